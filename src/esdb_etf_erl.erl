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
-export([is_storable/1, is_same/2, number/1, text/1, elements/1, tagged/1, check/1]).
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

%% The bytes that a value identical to this term begins with.
-spec key(term()) -> key().
key(Term) ->
    <<131, Key/binary>> = term_to_binary(Term, [deterministic, {minor_version, 2}]),
    Key.

%% Whether it holds nothing that means something on this node only: functions, pids and the like.
-spec is_storable(term()) -> boolean().
is_storable(Term) when is_atom(Term); is_number(Term); is_bitstring(Term) -> true;
is_storable([Head | Tail]) -> is_storable(Head) andalso is_storable(Tail);
is_storable([]) -> true;
is_storable(Tuple) when is_tuple(Tuple) -> is_storable(tuple_to_list(Tuple));
is_storable(Map) when is_map(Map) -> are_storable(maps:next(maps:iterator(Map)));
is_storable(_) -> false.

-spec are_storable(none | {term(), term(), maps:iterator()}) -> boolean().
are_storable({Key, Value, Next}) ->
    is_storable(Key) andalso is_storable(Value) andalso are_storable(maps:next(Next));
are_storable(none) ->
    true.

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
check(View) -> check(1, View).

-spec check(non_neg_integer(), view()) -> view().
check(0, View) ->
    View;
check(N, <<?SMALL_ATOM, Size, Name:Size/binary, Rest/binary>>) ->
    check(N - 1, named(Name, Rest));
check(N, <<?ATOM, Size:16, Name:Size/binary, Rest/binary>>) ->
    check(N - 1, named(Name, Rest));
check(N, <<?MAP, Arity:32, Rest/binary>>) ->
    check(N - 1, pairs(Arity, Rest, #{}));
check(N, <<?LIST, Length:32, Rest/binary>>) ->
    check(N + Length, Rest);
check(N, <<?SMALL_TUPLE, Arity, Rest/binary>>) ->
    check(N - 1 + Arity, Rest);
check(N, <<?LARGE_TUPLE, Arity:32, Rest/binary>>) ->
    check(N - 1 + Arity, Rest);
check(N, <<?NEW_FLOAT, Bytes:8/binary, Rest/binary>>) ->
    case Bytes of
        <<_/float>> -> check(N - 1, Rest);
        _ -> throw(malformed)
    end;
check(N, <<?BIT_BINARY, Size:32, Bits, _:Size/binary, Rest/binary>>) when
    Bits >= 1, Bits =< 8, Size > 0
->
    check(N - 1, Rest);
check(_, <<?BIT_BINARY, _/binary>>) ->
    throw(malformed);
check(N, View) ->
    check(N - 1, skip(1, View)).

-spec named(binary(), view()) -> view().
named(Name, Rest) ->
    case unicode:characters_to_list(Name) of
        Characters when is_list(Characters), length(Characters) =< 255 -> Rest;
        _ -> throw(malformed)
    end.

-spec pairs(non_neg_integer(), view(), #{key() => []}) -> view().
pairs(0, View, _) ->
    View;
pairs(Arity, View, Keys) ->
    Value = check(View),
    Key = binary:part(View, 0, byte_size(View) - byte_size(Value)),
    case Keys of
        #{Key := _} -> throw(malformed);
        #{} -> pairs(Arity - 1, check(Value), Keys#{Key => []})
    end.
