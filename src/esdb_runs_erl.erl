-module(esdb_runs_erl).
-moduledoc """
The twin of `m:esdb_runs_nif` in Erlang.

Records of 14 bytes, which the indexes of the store are made of, are compared as two integers of 56
bits, the most that one without an allocation holds. Others are compared as binaries.
""".

-export([sort/2, merge/2]).

-doc "See `esdb_runs_nif:sort/2`.".
-spec sort(binary(), esdb_runs_nif:width()) -> esdb_runs_nif:run().
sort(Records, 14) ->
    Pairs = [{High, Low} || <<High:56, Low:56>> <= Records],
    %% Both are stable: less work than to compare pairs, and little where the lower halves rise.
    Sorted = lists:keysort(1, lists:keysort(2, Pairs)),
    whole(<<<<High:56, Low:56>> || {High, Low} <- Sorted>>);
sort(Records, Width) ->
    iolist_to_binary(lists:sort(records(Records, Width))).

-spec records(binary(), esdb_runs_nif:width()) -> [binary()].
records(Run, Width) -> [Record || <<Record:Width/binary>> <= Run].

%% What is built piece by piece has room to grow: the copy has none.
-spec whole(binary()) -> binary().
whole(Built) -> binary:copy(Built).

-doc "See `esdb_runs_nif:merge/2`.".
-spec merge([esdb_runs_nif:run()], esdb_runs_nif:width()) -> esdb_runs_nif:run().
merge([], _Width) -> <<>>;
merge([Run], _Width) -> whole(Run);
merge(Runs, Width) -> merge(pairs(Runs, Width), Width).

-spec pairs([esdb_runs_nif:run()], esdb_runs_nif:width()) -> [esdb_runs_nif:run()].
pairs([A, B | Runs], Width) -> [merge(A, B, Width) | pairs(Runs, Width)];
pairs(Runs, _Width) -> Runs.

-spec merge(binary(), binary(), esdb_runs_nif:width()) -> binary().
merge(A, <<High:56, Low:56, B/binary>>, 14) ->
    from_a(A, High, Low, B, <<>>);
merge(A, <<>>, 14) ->
    A;
merge(A, B, Width) ->
    iolist_to_binary(merged(records(A, Width), records(B, Width), [])).

%% `lists:merge/2' is for lists that are sorted.
-spec merged([binary()], [binary()], [binary()]) -> [binary()].
merged([A | As], [B | _] = Bs, Merged) when A =< B -> merged(As, Bs, [A | Merged]);
merged([_ | _] = As, [B | Bs], Merged) -> merged(As, Bs, [B | Merged]);
merged(As, Bs, Merged) -> lists:reverse(Merged, As ++ Bs).

-spec from_a(binary(), High, Low, binary(), binary()) -> binary() when
    High :: non_neg_integer(), Low :: non_neg_integer().
from_a(<<HighA:56, LowA:56, A/binary>>, High, Low, B, Merged) when
    HighA < High; HighA =:= High, LowA =< Low
->
    from_a(A, High, Low, B, <<Merged/binary, HighA:56, LowA:56>>);
from_a(<<HighA:56, LowA:56, A/binary>>, High, Low, B, Merged) ->
    from_b(B, HighA, LowA, A, <<Merged/binary, High:56, Low:56>>);
from_a(<<>>, High, Low, B, Merged) ->
    <<Merged/binary, High:56, Low:56, B/binary>>.

-spec from_b(binary(), High, Low, binary(), binary()) -> binary() when
    High :: non_neg_integer(), Low :: non_neg_integer().
from_b(<<HighB:56, LowB:56, B/binary>>, High, Low, A, Merged) when
    HighB < High; HighB =:= High, LowB < Low
->
    from_b(B, High, Low, A, <<Merged/binary, HighB:56, LowB:56>>);
from_b(<<HighB:56, LowB:56, B/binary>>, High, Low, A, Merged) ->
    from_a(A, HighB, LowB, B, <<Merged/binary, High:56, Low:56>>);
from_b(<<>>, High, Low, A, Merged) ->
    <<Merged/binary, High:56, Low:56, A/binary>>.
