-module(esdb_runs_SUITE).
-moduledoc "Sorted runs, on whichever implementation is loaded, and the twin besides.".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {minutes, 5}}].

all() ->
    [
        a_run_is_its_records_in_order,
        numbers_are_in_their_order,
        several_runs_are_one,
        what_is_not_sorted_loses_nothing,
        equal_records_are_all_kept,
        large_runs,
        many_runs,
        a_run_has_no_room_to_grow,
        what_is_given_stays_as_it_is,
        what_are_no_records_is_badarg
    ].

%% ---- by properties

-define(ALL(X, Type, Check),
    ?assert(proper:quickcheck(?FORALL(X, Type, Check), [quiet, {numtests, 300}, {max_size, 60}]))
).

records(Bytes, Width) -> [Record || <<Record:Width/binary>> <= Bytes].

sorted(Bytes, Width) -> list_to_binary(lists:sort(records(Bytes, Width))).

whole(Width) -> ?LET(Records, list(binary(Width)), list_to_binary(Records)).

both(Function, Arguments) ->
    Result = apply(esdb_runs_nif, Function, Arguments),
    ?assertEqual(Result, apply(esdb_runs_erl, Function, Arguments)),
    Result.

a_run_is_its_records_in_order(_Config) ->
    ?ALL(
        {Width, Bytes},
        ?LET(Width, integer(1, 16), {Width, whole(Width)}),
        both(sort, [Bytes, Width]) =:= sorted(Bytes, Width)
    ).

%% What the store has: a hash, and a position, big-endian.
numbers_are_in_their_order(_Config) ->
    Number = oneof([integer(0, 3), integer(0, 16#FFFFFFFFFFFFFF)]),
    ?ALL(Pairs, list({Number, Number}), begin
        Pack = fun(Some) -> <<<<High:56, Low:56>> || {High, Low} <- Some>> end,
        both(sort, [Pack(Pairs), 14]) =:= Pack(lists:sort(Pairs))
    end).

several_runs_are_one(_Config) ->
    ?ALL(
        {Width, Several},
        ?LET(Width, oneof([14, integer(1, 16)]), {Width, list(whole(Width))}),
        both(merge, [[sorted(Bytes, Width) || Bytes <- Several], Width]) =:=
            sorted(list_to_binary(Several), Width)
    ).

what_is_not_sorted_loses_nothing(_Config) ->
    ?ALL(
        {Width, Several},
        ?LET(Width, oneof([14, integer(1, 16)]), {Width, list(whole(Width))}),
        sorted(both(merge, [Several, Width]), Width) =:= sorted(list_to_binary(Several), Width)
    ).

%% ---- by examples

equal_records_are_all_kept(_Config) ->
    ?assertEqual(~"aabbbb", both(sort, [~"babbab", 1])),
    ?assertEqual(~"a1a1a1b2", both(merge, [[~"a1", ~"a1a1b2"], 2])),
    ?assertEqual(<<>>, both(sort, [<<>>, 14])),
    ?assertEqual(<<>>, both(merge, [[], 14])),
    ?assertEqual(~"a", both(merge, [[<<>>, ~"a", <<>>], 1])).

%% As large as those that run on dirty schedulers.
large_runs(_Config) ->
    Count = 60_000,
    Old = << <<(erlang:phash2(N)):56, N:56>> || N <- lists:seq(1, Count) >>,
    New = << <<(erlang:phash2(N)):56, N:56>> || N <- lists:seq(Count + 1, 2 * Count) >>,
    Runs = [both(sort, [Records, 14]) || Records <- [Old, New]],
    ?assertEqual([sorted(Old, 14), sorted(New, 14)], Runs),
    ?assertEqual(sorted(<<Old/binary, New/binary>>, 14), both(merge, [Runs, 14])).

many_runs(_Config) ->
    Runs = [<<N:16>> || N <- lists:seq(9999, 0, -1)],
    ?assertEqual(list_to_binary(lists:reverse(Runs)), both(merge, [Runs, 2])).

%% Runs are kept: what is unused behind them would be kept along.
a_run_has_no_room_to_grow(_Config) ->
    Sizes = fun(Run) -> {byte_size(Run), binary:referenced_byte_size(Run)} end,
    Records = binary:copy(~"sixteen bytes of", 1000),
    Part = binary:part(Records, 0, 8000),
    [
        ?assertEqual({Size, Size}, Sizes(Run))
     || {Size, Run} <- [
            {16_000, both(sort, [Records, 16])},
            {8000, both(sort, [Part, 16])},
            {8000, both(merge, [[Part], 16])},
            {16_000, both(merge, [[Part, Part], 16])},
            {16_000, both(merge, [[Records, <<>>], 16])},
            {7000, both(sort, [binary:part(Records, 0, 7000), 14])},
            {7000, both(merge, [[binary:part(Records, 0, 7000), <<>>], 14])}
        ]
    ].

what_is_given_stays_as_it_is(_Config) ->
    Records = binary:copy(~"cba", 100),
    Before = binary:copy(Records),
    _ = both(sort, [Records, 1]),
    _ = both(merge, [[Records, Records], 1]),
    ?assertEqual(Before, Records).

what_are_no_records_is_badarg(_Config) ->
    Sort = fun esdb_runs_nif:sort/2,
    Merge = fun esdb_runs_nif:merge/2,
    [
        ?assertError(badarg, Call(Records, Width))
     || {Call, Records, Width} <- [
            {Sort, ~"abc", 2},
            {Sort, ~"abc", 0},
            {Sort, ~"abc", -3},
            {Sort, ~"abc", 17},
            {Sort, <<0:136>>, 17},
            {Sort, ~"abc", 3.0},
            {Sort, ~"abc", a},
            {Sort, <<1:7>>, 1},
            {Sort, abc, 1},
            {Sort, [256], 1},
            {Sort, [~"a" | b], 1},
            {Merge, ~"abc", 1},
            {Merge, [~"abc" | ~"d"], 1},
            {Merge, [~"ab", ~"c"], 2},
            {Merge, [~"ab", [$a, $b]], 2},
            {Merge, [<<1:7>>], 1},
            {Merge, [], 0},
            {Merge, [], 17},
            {Merge, [~"a"], 1.0}
        ]
    ].
