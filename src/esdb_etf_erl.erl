-module(esdb_etf_erl).
-moduledoc false.
%% Looks into terms in their external format (the ERTS User's Guide, chapter 11) without building
%% them: no atom comes to be, and nothing that a size claims is believed.
%%
%% A view is the rest of a payload from the place of a value on. What is not needed for an answer is
%% not looked at, so that the native reader, which does the same, answers the same for malformed
%% terms too. Terms are in their deterministic encoding: two are identical when their bytes are, and
%% one begins with the bytes of another only when it is that other. Malformed throws `malformed`.

-export([key/1, payload/1, is_map_payload/1, find/2, fold/3, skip/1, slice/1]).
-export([is_storable/1, is_askable/1, is_same/2, number/1, text/1, elements/1, tagged/1, check/1]).
-export_type([view/0, key/0]).

-type view() :: binary().
%% The encoding of a term, without the first byte.
-type key() :: binary().

-define(SMALL_INTEGER, 97).
-define(INTEGER, 98).
-define(NEW_FLOAT, 70).
-define(SMALL_BIG, 110).
-define(LARGE_BIG, 111).
-define(ATOM, 118).
-define(SMALL_ATOM, 119).
-define(SMALL_TUPLE, 104).
-define(LARGE_TUPLE, 105).
-define(NIL, 106).
-define(STRING, 107).
-define(LIST, 108).
-define(BINARY, 109).
-define(BIT_BINARY, 77).
-define(MAP, 116).
%% The virtual machine ends at 524,288 bytes: sums of such numbers still have their place below it.
-define(MAX_BIG, 524_000).
%% How deep maps may be nested, and how often one may be in a key of another: keys are compared.
-define(MAX_MAPS, 10_000).
-define(MAX_KEYS, 16).

%% The bytes that a value identical to this term begins with.
-spec key(term()) -> key().
key(Term) ->
    <<131, Key/binary>> = term_to_binary(Term, [deterministic, {minor_version, 2}]),
    Key.

%% Whether it has a place in a segment: nothing in it means something on this node only (functions,
%% pids and the like), its integers can be read again, and its maps are not nested deeper than a
%% check goes.
-spec is_storable(term()) -> boolean().
is_storable(Term) -> is_storable(Term, 0, 0).

-spec is_storable(term(), Maps, Keys) -> boolean() when
    Maps :: non_neg_integer(), Keys :: non_neg_integer().
is_storable(Term, _, _) when is_atom(Term); is_float(Term); is_bitstring(Term) ->
    true;
is_storable(Int, _, _) when is_integer(Int), Int > -(1 bsl 59), Int < 1 bsl 59 ->
    true;
is_storable(Int, _, _) when is_integer(Int) ->
    is_askable(Int);
is_storable([Head | Tail], Maps, Keys) ->
    is_storable(Head, Maps, Keys) andalso is_storable(Tail, Maps, Keys);
is_storable([], _, _) ->
    true;
is_storable(Tuple, Maps, Keys) when is_tuple(Tuple) ->
    is_storable(tuple_to_list(Tuple), Maps, Keys);
is_storable(Map, Maps, Keys) when is_map(Map), Maps < ?MAX_MAPS, Keys =< ?MAX_KEYS ->
    are_storable(maps:to_list(Map), Maps + 1, Keys);
is_storable(_, _, _) ->
    false.

-spec are_storable([{term(), term()}], Maps, Keys) -> boolean() when
    Maps :: pos_integer(), Keys :: non_neg_integer().
are_storable([{Key, Value} | Pairs], Maps, Keys) ->
    is_storable(Key, Maps, Keys + 1) andalso
        is_storable(Value, Maps, Keys) andalso
        are_storable(Pairs, Maps, Keys);
are_storable([], _, _) ->
    true.

%% Whether questions may be about it: an integer in it is one that readers look at.
-spec is_askable(term()) -> boolean().
is_askable(Term) -> erlang:external_size(Term, [{minor_version, 2}]) =< ?MAX_BIG.

-spec is_map_payload(binary()) -> boolean().
is_map_payload(<<131, ?MAP, _/binary>>) -> true;
is_map_payload(_) -> false.

%% The view of a whole payload.
-spec payload(binary()) -> view().
payload(<<131, View/binary>>) -> View;
payload(_) -> throw(malformed).

%% The value of a key, when this is a map that has it.
-spec find(key(), view()) -> {ok, view()} | missing.
find(Key, <<?MAP, Arity:32, Rest/binary>>) -> find(Arity, Key, byte_size(Key), Rest);
find(_, <<?MAP, _/binary>>) -> throw(malformed);
find(_, _) -> missing.

-spec find(non_neg_integer(), key(), pos_integer(), view()) -> {ok, view()} | missing.
find(0, _, _, _) ->
    missing;
find(Arity, Key, Size, View) ->
    case View of
        <<Key:Size/binary, Value/binary>> -> {ok, Value};
        _ -> find(Arity - 1, Key, Size, skip(skip(View)))
    end.

%% Over the pairs of a map, in the order in which they stand.
-spec fold(fun((key(), view(), Acc) -> Acc), Acc, view()) -> Acc.
fold(Fun, Acc, <<?MAP, Arity:32, Rest/binary>>) -> fold(Arity, Fun, Acc, Rest);
fold(_, _, <<?MAP, _/binary>>) -> throw(malformed);
fold(_, Acc, _) -> Acc.

-spec fold(non_neg_integer(), fun((key(), view(), Acc) -> Acc), Acc, view()) -> Acc.
fold(0, _, Acc, _) ->
    Acc;
fold(Arity, Fun, Acc, View) ->
    {Key, Value} = split(View),
    fold(Arity - 1, Fun, Fun(Key, Value, Acc), skip(Value)).

%% What follows the value.
-spec skip(view()) -> view().
skip(View) -> skip(1, View).

-spec skip(non_neg_integer(), view()) -> view().
skip(0, View) ->
    View;
skip(N, View) ->
    case View of
        <<?BINARY, Size:32, _:Size/binary, Rest/binary>> -> skip(N - 1, Rest);
        <<?SMALL_ATOM, Size, _:Size/binary, Rest/binary>> -> skip(N - 1, Rest);
        <<?SMALL_INTEGER, _, Rest/binary>> -> skip(N - 1, Rest);
        <<?INTEGER, _:32, Rest/binary>> -> skip(N - 1, Rest);
        <<?NEW_FLOAT, _:64, Rest/binary>> -> skip(N - 1, Rest);
        <<?MAP, Arity:32, Rest/binary>> -> skip(N - 1 + 2 * Arity, Rest);
        <<?NIL, Rest/binary>> -> skip(N - 1, Rest);
        <<?LIST, Length:32, Rest/binary>> -> skip(N + Length, Rest);
        <<?STRING, Size:16, _:Size/binary, Rest/binary>> -> skip(N - 1, Rest);
        <<?SMALL_TUPLE, Arity, Rest/binary>> -> skip(N - 1 + Arity, Rest);
        <<?LARGE_TUPLE, Arity:32, Rest/binary>> -> skip(N - 1 + Arity, Rest);
        <<?SMALL_BIG, Size, _, _:Size/binary, Rest/binary>> -> skip(N - 1, Rest);
        <<?LARGE_BIG, Size:32, _, _:Size/binary, Rest/binary>> -> skip(N - 1, Rest);
        <<?ATOM, Size:16, _:Size/binary, Rest/binary>> -> skip(N - 1, Rest);
        <<?BIT_BINARY, Size:32, _, _:Size/binary, Rest/binary>> -> skip(N - 1, Rest);
        _ -> throw(malformed)
    end.

%% The bytes of the value alone.
-spec slice(view()) -> key().
slice(View) ->
    {Slice, _} = split(View),
    Slice.

-spec split(view()) -> {key(), view()}.
split(View) ->
    Rest = skip(View),
    {binary:part(View, 0, byte_size(View) - byte_size(Rest)), Rest}.

%% Whether the value is the one with these bytes.
-spec is_same(key(), view()) -> boolean().
is_same(Key, View) ->
    Size = byte_size(Key),
    case View of
        <<Key:Size/binary, _/binary>> -> true;
        _ -> false
    end.

%% The number that this is, or `none`.
-spec number(view()) -> number() | none.
number(<<?SMALL_INTEGER, N, _/binary>>) -> N;
number(<<?INTEGER, N:32/signed, _/binary>>) -> N;
number(<<?NEW_FLOAT, F/float, _/binary>>) -> F;
number(<<?SMALL_BIG, Size, Sign, N:Size/little-unit:8, _/binary>>) -> signed(Sign, N);
number(<<?LARGE_BIG, Size:32, Sign, Rest/binary>>) when Size =< ?MAX_BIG -> big(Size, Sign, Rest);
number(View) -> none(View).

-spec big(non_neg_integer(), byte(), view()) -> integer().
big(Size, Sign, Rest) ->
    case Rest of
        <<N:Size/little-unit:8, _/binary>> -> signed(Sign, N);
        _ -> throw(malformed)
    end.

-spec signed(byte(), non_neg_integer()) -> integer().
signed(0, N) -> N;
signed(_, N) -> -N.

%% Not of the kind asked for. It must have the head of a term all the same: a size that is all
%% there, and the bytes of what has nothing inside.
-spec none(view()) -> none.
none(<<?SMALL_INTEGER, _, _/binary>>) -> none;
none(<<?INTEGER, _:32, _/binary>>) -> none;
none(<<?NEW_FLOAT, _/float, _/binary>>) -> none;
none(<<?SMALL_BIG, Size, _, _:Size/binary, _/binary>>) -> none;
none(<<?LARGE_BIG, Size:32, _, _:Size/binary, _/binary>>) when Size =< ?MAX_BIG -> none;
none(<<?SMALL_ATOM, Size, _:Size/binary, _/binary>>) -> none;
none(<<?ATOM, Size:16, _:Size/binary, _/binary>>) -> none;
none(<<?BINARY, Size:32, _:Size/binary, _/binary>>) -> none;
none(<<?STRING, Size:16, _:Size/binary, _/binary>>) -> none;
none(<<?SMALL_TUPLE, _, _/binary>>) -> none;
none(<<Tag, _:32, _/binary>>) when Tag =:= ?LARGE_TUPLE; Tag =:= ?LIST; Tag =:= ?MAP -> none;
none(<<Tag, _/binary>>) when Tag =:= ?NIL; Tag =:= ?BIT_BINARY -> none;
none(_) -> throw(malformed).

%% The binary that this is, or `none`.
-spec text(view()) -> binary() | none.
text(<<?BINARY, Size:32, Text:Size/binary, _/binary>>) -> Text;
text(View) -> none(View).

%% The members of a list: views to look at one by one, or the bytes that are integers.
-spec elements(view()) -> {bytes, binary()} | {views, non_neg_integer(), view()} | none.
elements(<<?NIL, _/binary>>) -> {bytes, <<>>};
elements(<<?STRING, Size:16, Bytes:Size/binary, _/binary>>) -> {bytes, Bytes};
elements(<<?LIST, Length:32, Rest/binary>>) -> {views, Length, Rest};
elements(View) -> none(View).

%% The number of a `{sum, Number}`, or what the tag says is tagged.
-spec tagged(view()) -> {sum, view()} | {overwrite, view()} | none.
tagged(<<?SMALL_TUPLE, 2, ?SMALL_ATOM, 3, "sum", Value/binary>>) -> {sum, Value};
tagged(<<?SMALL_TUPLE, 2, ?SMALL_ATOM, 9, "overwrite", Value/binary>>) -> {overwrite, Value};
tagged(View) -> none(View).

%% What follows the value, when all of it is well-formed: what the virtual machine would accept, but
%% whether it knows the atoms.
-spec check(view()) -> view().
check(View) -> check(1, View, 0, 0).

%% So many terms, inside of so many maps and so many keys.
-spec check(non_neg_integer(), view(), non_neg_integer(), non_neg_integer()) -> view().
check(0, View, _, _) ->
    View;
check(N, <<?SMALL_ATOM, Size, Name:Size/binary, Rest/binary>>, Maps, Keys) ->
    check(N - 1, named(Name, Rest), Maps, Keys);
check(N, <<?ATOM, Size:16, Name:Size/binary, Rest/binary>>, Maps, Keys) ->
    check(N - 1, named(Name, Rest), Maps, Keys);
check(N, <<?MAP, Arity:32, Rest/binary>>, Maps, Keys) when Maps < ?MAX_MAPS, Keys =< ?MAX_KEYS ->
    check(N - 1, pairs(Arity, Rest, #{}, Maps + 1, Keys), Maps, Keys);
check(_, <<?MAP, _/binary>>, _, _) ->
    throw(malformed);
check(N, <<?LIST, Length:32, Rest/binary>>, Maps, Keys) ->
    check(N + Length, Rest, Maps, Keys);
check(N, <<?SMALL_TUPLE, Arity, Rest/binary>>, Maps, Keys) ->
    check(N - 1 + Arity, Rest, Maps, Keys);
check(N, <<?LARGE_TUPLE, Arity:32, Rest/binary>>, Maps, Keys) ->
    check(N - 1 + Arity, Rest, Maps, Keys);
check(N, <<?NEW_FLOAT, Bytes:8/binary, Rest/binary>>, Maps, Keys) ->
    case Bytes of
        <<_/float>> -> check(N - 1, Rest, Maps, Keys);
        _ -> throw(malformed)
    end;
check(N, <<?BIT_BINARY, Size:32, Bits, _:Size/binary, Rest/binary>>, Maps, Keys) when
    Bits >= 1, Bits =< 8, Size > 0
->
    check(N - 1, Rest, Maps, Keys);
check(_, <<?BIT_BINARY, _/binary>>, _, _) ->
    throw(malformed);
check(N, View, Maps, Keys) ->
    check(N - 1, skip(1, View), Maps, Keys).

-spec named(binary(), view()) -> view().
named(Name, Rest) ->
    case unicode:characters_to_list(Name) of
        Characters when is_list(Characters), length(Characters) =< 255 -> Rest;
        _ -> throw(malformed)
    end.

-spec pairs(non_neg_integer(), view(), #{key() => []}, pos_integer(), non_neg_integer()) -> view().
pairs(0, View, _, _, _) ->
    View;
pairs(Arity, View, Known, Maps, Keys) ->
    Value = check(1, View, Maps, Keys + 1),
    Key = binary:part(View, 0, byte_size(View) - byte_size(Value)),
    case Known of
        #{Key := _} -> throw(malformed);
        #{} -> pairs(Arity - 1, check(1, Value, Maps, Keys), Known#{Key => []}, Maps, Keys)
    end.
