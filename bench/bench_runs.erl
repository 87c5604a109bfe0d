-module(bench_runs).
-moduledoc """
Runs of records of 14 bytes, as the store's indexes have them, against OTP's lists: of pairs of
integers, which is the fastest that they do, and of binaries, which needs no decoding.
""".

-export([run/0]).

-define(WIDTH, 14).

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    esdb_bench:title("Runs (records of 14 bytes)"),
    lists:foreach(fun rows/1, [100, 10_000, 1_000_000]).

-spec rows(pos_integer()) -> ok.
rows(Count) ->
    Records = rand:bytes(Count * ?WIDTH),
    {Left, Right} = split_binary(Records, Count div 2 * ?WIDTH),
    Runs = [esdb_runs_nif:sort(Half, ?WIDTH) || Half <- [Left, Right]],
    Many = [esdb_runs_nif:sort(Part, ?WIDTH) || Part <- parts(8, Records)],
    Sort = {"sort/2", fun() -> esdb_runs_nif:sort(Records, ?WIDTH) end},
    Merge = {"merge/2", fun() -> esdb_runs_nif:merge(Runs, ?WIDTH) end},
    MergeMany = {"merge/2", fun() -> esdb_runs_nif:merge(Many, ?WIDTH) end},
    lists:foreach(
        fun({What, Ours, Rival}) ->
            Name = io_lib:format("~b records, ~ts", [Count, What]),
            esdb_bench:compare(lists:flatten(Name), #{ours => Ours, rival => Rival})
        end,
        [
            {"sorted", Sort, {"lists:sort/1, pairs", fun() -> sorted_pairs(Records) end}},
            {"sorted", Sort, {"lists:sort/1, binaries", fun() -> sorted_binaries(Records) end}},
            {"two merged", Merge, {"lists:merge/2, pairs", fun() -> merged_pairs(Runs) end}},
            {"eight merged", MergeMany, {"lists:merge/1, pairs", fun() -> merged_pairs(Many) end}}
        ]
    ).

-spec parts(pos_integer(), binary()) -> [binary()].
parts(Count, Records) ->
    Size = byte_size(Records) div Count div ?WIDTH * ?WIDTH,
    {Last, Parts} = lists:foldl(
        fun(_, {Rest, Parts}) ->
            {Part, Rest1} = split_binary(Rest, Size),
            {Rest1, [Part | Parts]}
        end,
        {Records, []},
        lists:seq(2, Count)
    ),
    [Last | Parts].

-spec sorted_pairs(binary()) -> binary().
sorted_pairs(Records) -> packed(lists:sort(pairs(Records))).

-spec merged_pairs([binary()]) -> binary().
merged_pairs([Left, Right]) -> packed(lists:merge(pairs(Left), pairs(Right)));
merged_pairs(Runs) -> packed(lists:merge([pairs(Run) || Run <- Runs])).

-spec pairs(binary()) -> [{non_neg_integer(), non_neg_integer()}].
pairs(Records) -> [{High, Low} || <<High:56, Low:56>> <= Records].

-spec packed([{non_neg_integer(), non_neg_integer()}]) -> binary().
packed(Pairs) -> <<<<High:56, Low:56>> || {High, Low} <- Pairs>>.

-spec sorted_binaries(binary()) -> binary().
sorted_binaries(Records) ->
    iolist_to_binary(lists:sort([Record || <<Record:?WIDTH/binary>> <= Records])).
