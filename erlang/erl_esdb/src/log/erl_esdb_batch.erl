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
body is in the external term format (`minor_version` 2).

```erlang
1> Packed = erl_esdb_batch:pack([a, b, c]).
2> erl_esdb_batch:unpack(Packed, 1, 2).
{ok,[b,c]}
```
""".

-export([pack/1, pack_terms/1, term_size/1, packed_size/1, verified/1, unpack/3, fold/5, count/1]).
-export_type([packed/0]).

-define(MAGIC, "EB").
-define(FORMAT, 1).
%% Bytes before the table of ends, bytes of the checksum.
-define(HEADER, 7).
-define(SUM, 8).
%% How a term is encoded, and measured.
-define(MINOR, {minor_version, 2}).

-doc "A batch, or what is left of one that does not fit its checksum.".
-type packed() :: binary() | damaged.

-doc "Packs terms.".
-spec pack([term()]) -> binary().
pack(Terms) ->
    pack_terms([term_to_binary(Term, [?MINOR]) || Term <- Terms]).

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
The batch, if it is as it was packed, `damaged` otherwise.

For who brings it back from where it may have changed: an engine compares the checksum when it
reads from a disk, once for what it then keeps in memory. So `unpack/3` and `fold/5`, which are
asked again and again, and often for one event of many, do not look at it.
""".
-spec verified(binary()) -> packed().
verified(Packed) when byte_size(Packed) >= ?HEADER + ?SUM ->
    Size = byte_size(Packed) - ?SUM,
    <<Front:Size/binary, Sum:64>> = Packed,
    case esdb_hash_nif:xxhash3(Front) of
        Sum -> Packed;
        _ -> damaged
    end;
verified(Packed) when is_binary(Packed) ->
    damaged.

-doc """
Takes out the bodies from the first index to the last, both counted from 0 and included.

`{error, corrupt}`: this is no packed batch, it is `damaged`, or it has no such bodies. The checksum
is not compared: `verified/1`.
""".
-spec unpack(packed(), First :: non_neg_integer(), Last :: non_neg_integer()) ->
    {ok, [term()]} | {error, corrupt}.
unpack(<<?MAGIC, ?FORMAT, 1:32, End:32, Rest/binary>>, 0, 0) when
    byte_size(Rest) =:= End + ?SUM
->
    %% Most appends bring one event.
    terms(<<End:32>>, 0, Rest);
unpack(Packed, First, Last) ->
    maybe
        {ok, Ends, Bodies} ?= opened(Packed, First, Last),
        {Begin, _} = limits(First, Ends),
        Wanted = binary_part(Ends, First * 4, (Last - First + 1) * 4),
        terms(Wanted, Begin, Bodies)
    end.

%% The checksum is no proof against somebody who computes it. So ends may fall or lie outside, and
%% what lies between them may be no term, or a term and more.
-spec terms(Ends :: binary(), Begin :: non_neg_integer(), Bodies :: binary()) ->
    {ok, [term()]} | {error, corrupt}.
terms(Ends, Begin, Bodies) ->
    try
        {ok, decoded(Ends, Begin, Bodies)}
    catch
        error:Why when Why =:= badarg; Why =:= function_clause; element(1, Why) =:= badmatch ->
            {error, corrupt}
    end.

-spec decoded(binary(), non_neg_integer(), binary()) -> [term()].
decoded(<<End:32, Ends/binary>>, Begin, Bodies) when End >= Begin ->
    Size = End - Begin,
    {Term, Size} = binary_to_term(binary_part(Bodies, Begin, Size), [used]),
    [Term | decoded(Ends, End, Bodies)];
decoded(<<>>, _Begin, _Bodies) ->
    [].

-doc """
Folds over the bodies of `unpack/3` with their indexes, until the fun says stop.

A body is decoded when its turn comes, so that one who looks for a few needs the memory of a few.
Errors as `unpack/3`; what the fun did before it is lost.
""".
-spec fold(packed(), First :: non_neg_integer(), Last :: non_neg_integer(), Fun, Acc) ->
    {ok, Acc} | {error, corrupt}
when
    Fun :: fun((Nth :: non_neg_integer(), Body :: term(), Acc) -> {next | stop, Acc}).
fold(Packed, First, Last, Fun, Acc) ->
    maybe
        {ok, Ends, Bodies} ?= opened(Packed, First, Last),
        fold(First, Last, Ends, Bodies, Fun, Acc)
    end.

%% The table of ends, and the bodies.
-spec opened(packed(), non_neg_integer(), non_neg_integer()) ->
    {ok, binary(), binary()} | {error, corrupt}.
opened(<<?MAGIC, ?FORMAT, Count:32, Rest/binary>>, First, Last) when
    First =< Last, Last < Count, Count * 4 + ?SUM =< byte_size(Rest)
->
    Size = byte_size(Rest) - Count * 4 - ?SUM,
    {Ends, Bodies} = split_binary(Rest, Count * 4),
    %% Nothing lies behind the last body but the checksum.
    case limits(Count - 1, Ends) of
        {_, Size} -> {ok, Ends, binary_part(Bodies, 0, Size)};
        _ -> {error, corrupt}
    end;
opened(Packed, _First, _Last) when is_binary(Packed); Packed =:= damaged ->
    {error, corrupt}.

-spec fold(non_neg_integer(), non_neg_integer(), binary(), binary(), Fun, Acc) ->
    {ok, Acc} | {error, corrupt}
when
    Fun :: fun((non_neg_integer(), term(), Acc) -> {next | stop, Acc}).
fold(Nth, Last, _Ends, _Bodies, _Fun, Acc) when Nth > Last ->
    {ok, Acc};
fold(Nth, Last, Ends, Bodies, Fun, Acc) ->
    {Begin, End} = limits(Nth, Ends),
    maybe
        {ok, [Body]} ?= terms(<<End:32>>, Begin, Bodies),
        {next, Acc1} ?= Fun(Nth, Body, Acc),
        fold(Nth + 1, Last, Ends, Bodies, Fun, Acc1)
    else
        {stop, Acc2} -> {ok, Acc2};
        {error, corrupt} -> {error, corrupt}
    end.

-spec limits(non_neg_integer(), binary()) -> {non_neg_integer(), non_neg_integer()}.
limits(0, <<End:32, _/binary>>) ->
    {0, End};
limits(Nth, Ends) ->
    <<Begin:32, End:32>> = binary_part(Ends, (Nth - 1) * 4, 8),
    {Begin, End}.
