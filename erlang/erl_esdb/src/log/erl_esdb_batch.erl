-module(erl_esdb_batch).
-moduledoc """
The events of one append in one binary, packed once by the process that appends.

Neither version nor position nor time are in it: they are known only when the append is ordered,
and the reader adds them. Each body can be taken out alone.

```
   bytes
 +---------+---------+-----------------------+------------------------+---------------+
 | "EB"  2 | 1     1 | number of bodies    4 | end of each body  4 n  | bodies ...    |
 +---------+---------+-----------------------+------------------------+---------------+
 | XXH3-64 of all before                                            8 |
 +--------------------------------------------------------------------+
```

Numbers are unsigned and big-endian; ends count from the first byte after the table of ends. A
body is in the external term format (`minor_version` 2, deterministic).

```erlang
1> Packed = erl_esdb_batch:pack([a, b, c]).
2> erl_esdb_batch:unpack(Packed, 1, 2).
{ok,[b,c]}
```
""".

-export([pack/1, pack_terms/1, term_size/1, packed_size/1, unpack/3, fold/5, count/1]).

-define(MAGIC, "EB").
-define(FORMAT, 1).
%% Bytes before the table of ends, bytes of the checksum.
-define(HEADER, 7).
-define(SUM, 8).
%% How a term is encoded, and measured.
-define(MINOR, {minor_version, 2}).

-doc "Packs terms.".
-spec pack([term()]) -> binary().
pack(Terms) ->
    pack_terms([term_to_binary(Term, [deterministic, ?MINOR]) || Term <- Terms]).

-doc "Packs terms that are in the external term format already.".
-spec pack_terms([binary()]) -> binary().
pack_terms(Bodies) ->
    {Ends, _} = lists:mapfoldl(fun end_of/2, 0, Bodies),
    Front = iolist_to_binary([?MAGIC, ?FORMAT, <<(length(Bodies)):32>>, Ends, Bodies]),
    <<Front/binary, (esdb_hash_nif:xxhash3(Front)):64>>.

-spec end_of(binary(), non_neg_integer()) -> {<<_:32>>, non_neg_integer()}.
end_of(Body, Begin) ->
    End = Begin + byte_size(Body),
    {<<End:32>>, End}.

-doc """
The bytes that a term takes when it is packed, at most: counted, without encoding it.

For what events are made of this is the size; OTP promises that it is never less.
""".
-spec term_size(term()) -> pos_integer().
term_size(Term) -> erlang:external_size(Term, [?MINOR]).

-doc "The bytes of `pack/1` of these terms, at most; see `term_size/1`.".
-spec packed_size([term()]) -> pos_integer().
packed_size([]) -> ?HEADER + ?SUM;
packed_size([Term | Terms]) -> 4 + term_size(Term) + packed_size(Terms).

-doc "How many bodies there are. The checksum is not looked at.".
-spec count(binary()) -> {ok, non_neg_integer()} | {error, corrupt}.
count(<<?MAGIC, ?FORMAT, Count:32, _/binary>>) -> {ok, Count};
count(Bin) when is_binary(Bin) -> {error, corrupt}.

-doc """
Takes out the bodies from the first index to the last, both counted from 0 and included.

The checksum of the whole is compared first. `{error, corrupt}`: this is no packed batch, it is
damaged, or it has no such bodies.
""".
-spec unpack(binary(), First :: non_neg_integer(), Last :: non_neg_integer()) ->
    {ok, [term()]} | {error, corrupt}.
unpack(Packed, First, Last) ->
    case fold(Packed, First, Last, fun(_Nth, Body, Acc) -> {next, [Body | Acc]} end, []) of
        {ok, Bodies} -> {ok, lists:reverse(Bodies)};
        {error, corrupt} -> {error, corrupt}
    end.

-doc """
Folds over the bodies of `unpack/3` with their indexes, until the fun says stop.

A body is decoded when its turn comes, so that one who looks for a few needs the memory of a few.
Errors as `unpack/3`; what the fun did before it is lost.
""".
-spec fold(binary(), First :: non_neg_integer(), Last :: non_neg_integer(), Fun, Acc) ->
    {ok, Acc} | {error, corrupt}
when
    Fun :: fun((Nth :: non_neg_integer(), Body :: term(), Acc) -> {next | stop, Acc}).
fold(Packed, First, Last, Fun, Acc) ->
    maybe
        {ok, Count, Rest} ?= checked(Packed),
        true ?= First =< Last andalso Last < Count andalso Count * 4 =< byte_size(Rest),
        {Ends, Bodies} = split_binary(Rest, Count * 4),
        %% Nothing lies behind the last body.
        End = binary:decode_unsigned(binary_part(Ends, byte_size(Ends), -4)),
        true ?= End =:= byte_size(Bodies),
        fold(First, Last, Ends, Bodies, Fun, Acc)
    else
        _ -> {error, corrupt}
    end.

-spec checked(binary()) -> {ok, non_neg_integer(), binary()} | {error, corrupt}.
checked(Packed) when byte_size(Packed) >= ?HEADER + ?SUM ->
    Size = byte_size(Packed) - ?SUM,
    <<Front:Size/binary, Sum:64>> = Packed,
    case {esdb_hash_nif:xxhash3(Front), Front} of
        {Sum, <<?MAGIC, ?FORMAT, Count:32, Rest/binary>>} -> {ok, Count, Rest};
        _ -> {error, corrupt}
    end;
checked(Packed) when is_binary(Packed) ->
    {error, corrupt}.

-spec fold(non_neg_integer(), non_neg_integer(), binary(), binary(), Fun, Acc) ->
    {ok, Acc} | {error, corrupt}
when
    Fun :: fun((non_neg_integer(), term(), Acc) -> {next | stop, Acc}).
fold(Nth, Last, _Ends, _Bodies, _Fun, Acc) when Nth > Last ->
    {ok, Acc};
fold(Nth, Last, Ends, Bodies, Fun, Acc) ->
    maybe
        {ok, Body} ?= term(Nth, Ends, Bodies),
        {next, Acc1} ?= Fun(Nth, Body, Acc),
        fold(Nth + 1, Last, Ends, Bodies, Fun, Acc1)
    else
        {stop, Acc2} -> {ok, Acc2};
        {error, corrupt} -> {error, corrupt}
    end.

%% The checksum is no proof against somebody who computes it. So ends may fall or lie outside, and
%% what lies between them may be no term, or a term and more.
-spec term(non_neg_integer(), binary(), binary()) -> {ok, term()} | {error, corrupt}.
term(Nth, Ends, Bodies) ->
    case limits(Nth, Ends) of
        {Begin, End} when Begin =< End, End =< byte_size(Bodies) ->
            decode(binary_part(Bodies, Begin, End - Begin));
        _ ->
            {error, corrupt}
    end.

-spec limits(non_neg_integer(), binary()) -> {non_neg_integer(), non_neg_integer()}.
limits(0, <<End:32, _/binary>>) ->
    {0, End};
limits(Nth, Ends) ->
    <<Begin:32, End:32>> = binary_part(Ends, (Nth - 1) * 4, 8),
    {Begin, End}.

-spec decode(binary()) -> {ok, term()} | {error, corrupt}.
decode(Body) ->
    try binary_to_term(Body, [used]) of
        {Term, Used} when Used =:= byte_size(Body) -> {ok, Term};
        {_, _} -> {error, corrupt}
    catch
        error:badarg -> {error, corrupt}
    end.
