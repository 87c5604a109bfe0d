-module(erl_esdb_temporal_SUITE).
-moduledoc "A stream as it was at a time, row by row of the checklist.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_temporal, [
    read_until/3, read_until/4, read_range/4, read_range/5, version_at/3
]).
-import(erl_esdb_test, [versions/1]).

-define(S, <<"orders-1">>).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    Functions = [atom_to_list(F) || {F, 1} <- ?MODULE:module_info(exports)],
    [list_to_atom(F) || F <- Functions, [C, $_ | _] <- [F], lists:member(C, "ab")].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

%% Appends of so many events at these times.
at_times(Config, Appends) -> at_times(Config, ?S, Appends).

at_times(Config, Stream, Appends) ->
    [
        {ok, _} = erl_esdb_restore:append(
            store(Config), Stream, ?ANY_VERSION, erl_esdb_test:events(Count), Time
        )
     || {Time, Count} <- Appends
    ].

a_tmp_01_until_includes_its_end(Config) ->
    at_times(Config, [{100, 2}, {200, 1}, {300, 3}]),
    {ok, [_, _, #event{epoch_us = Time} | _]} =
        erl_esdb_streams:read(store(Config), ?S, 0, 9, forward),
    {ok, Events} = read_until(store(Config), ?S, Time),
    ?assertEqual([0, 1, 2], versions(Events)),
    {ok, Earlier} = read_until(store(Config), ?S, Time - 1),
    ?assertEqual([0, 1], versions(Earlier)).

a_tmp_02_before_the_first(Config) ->
    at_times(Config, [{100, 2}]),
    ?assertEqual({ok, []}, read_until(store(Config), ?S, 0)),
    ?assertEqual({ok, []}, read_until(store(Config), ?S, -1)).

a_tmp_03_backward_and_then_the_limit(Config) ->
    at_times(Config, [{100, 2}, {200, 1}, {300, 3}]),
    {ok, Events} = read_until(store(Config), ?S, 200, #{direction => backward, limit => 2}),
    ?assertEqual([2, 1], versions(Events)).

a_tmp_04_a_limit_larger_than_the_result(Config) ->
    at_times(Config, [{100, 2}, {200, 1}]),
    {ok, Events} = read_until(store(Config), ?S, 900, #{limit => 1 bsl 70}),
    ?assertEqual([0, 1, 2], versions(Events)).

a_tmp_05_a_range_includes_both_ends(Config) ->
    at_times(Config, [{100, 1}, {200, 2}, {300, 1}, {400, 1}]),
    {ok, Events} = read_range(store(Config), ?S, 200, 300),
    ?assertEqual([1, 2, 3], versions(Events)),
    {ok, Inner} = read_range(store(Config), ?S, 201, 299),
    ?assertEqual([], Inner).

a_tmp_06_from_later_than_to(Config) ->
    at_times(Config, [{100, 1}, {200, 2}, {300, 1}]),
    ?assertEqual({ok, []}, read_range(store(Config), ?S, 300, 100)).

a_tmp_07_options_of_a_range(Config) ->
    at_times(Config, [{100, 1}, {200, 2}, {300, 1}]),
    Options = #{direction => backward, limit => 1},
    {ok, Events} = read_range(store(Config), ?S, 100, 200, Options),
    ?assertEqual([2], versions(Events)).

a_tmp_08_version_at(Config) ->
    at_times(Config, [{100, 2}, {200, 1}, {300, 3}]),
    At = fun(Time) -> version_at(store(Config), ?S, Time) end,
    ?assertEqual({ok, -1}, At(99)),
    ?assertEqual({ok, 1}, At(100)),
    ?assertEqual({ok, 1}, At(199)),
    ?assertEqual({ok, 2}, At(299)),
    ?assertEqual({ok, 5}, At(1 bsl 80)).

a_tmp_09_an_absent_stream(Config) ->
    Absent = {error, {stream_not_found, ?S}},
    ?assertEqual(Absent, read_until(store(Config), ?S, 1)),
    ?assertEqual(Absent, read_range(store(Config), ?S, 1, 2)),
    ?assertEqual(Absent, read_range(store(Config), ?S, 2, 1)),
    ?assertEqual(Absent, version_at(store(Config), ?S, 1)).

a_tmp_10_after_scavenging(Config) ->
    at_times(Config, [{100 * N, 3} || N <- lists:seq(1, 400)]),
    {ok, {0, 601}} = erl_esdb_store:truncate(store(Config), ?S, 601),
    {ok, Events} = read_until(store(Config), ?S, 20_200),
    ?assertEqual([601, 602, 603, 604, 605], versions(Events)),
    {ok, Range} = read_range(store(Config), ?S, 0, 20_100),
    ?assertEqual([601, 602], versions(Range)),
    ?assertEqual({ok, -1}, version_at(store(Config), ?S, 100)),
    ?assertEqual({ok, 605}, version_at(store(Config), ?S, 20_200)),
    {ok, _} = erl_esdb_store:truncate(store(Config), ?S, 5000),
    ?assertEqual({ok, []}, read_until(store(Config), ?S, 1 bsl 60)),
    ?assertEqual({ok, []}, read_range(store(Config), ?S, 0, 1 bsl 60)),
    ?assertEqual({ok, -1}, version_at(store(Config), ?S, 1 bsl 60)).

a_tmp_11_bad_options(Config) ->
    at_times(Config, [{100, 2}]),
    [
        begin
            Expected = {error, {invalid_option, limit, Limit}},
            ?assertEqual(Expected, read_until(store(Config), ?S, 100, #{limit => Limit})),
            ?assertEqual(Expected, read_range(store(Config), ?S, 1, 100, #{limit => Limit}))
        end
     || Limit <- [0, -1, many, 1.0, infinity, <<"1">>]
    ],
    ?assertEqual(
        {error, {invalid_option, direction, up}},
        read_until(store(Config), ?S, 100, #{direction => up})
    ),
    ?assertError(badarg, read_until(store(Config), ?S, yesterday)),
    ?assertError(badarg, read_until(store(Config), ?S, 1, [])),
    ?assertError(badarg, read_range(store(Config), ?S, 1, now)),
    ?assertError(badarg, read_until(store(Config), orders, 1)),
    ?assertError(badarg, version_at(store(Config), ?S, 1.0)),
    Gone = {error, {store_not_started, no_such_store}},
    ?assertEqual(Gone, read_until(no_such_store, ?S, 1)),
    ?assertEqual(Gone, version_at(no_such_store, ?S, 1)).

a_tmp_12_telemetry(Config) ->
    at_times(Config, [{100, 2}, {200, 1}]),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, store(Config), [
        ?TEMPORAL_READ_UNTIL, ?TEMPORAL_READ_RANGE
    ]),
    {ok, _} = read_until(store(Config), ?S, 150),
    {ok, _} = read_range(store(Config), ?S, 50, 250),
    {error, _} = read_until(store(Config), <<"orders-2">>, 1),
    {ok, _} = version_at(store(Config), ?S, 1),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    [
        {?TEMPORAL_READ_UNTIL, M1, T1},
        {?TEMPORAL_READ_RANGE, M2, T2},
        {?TEMPORAL_READ_UNTIL, M3, _}
    ] = erl_esdb_test:collected(?FUNCTION_NAME),
    ?assertMatch(#{event_count := 2, duration := D} when D >= 0, M1),
    ?assertEqual(#{store_id => store(Config), stream_id => ?S, timestamp => 150}, T1),
    ?assertMatch(#{event_count := 3}, M2),
    ?assertMatch(#{timestamp := {50, 250}}, T2),
    ?assertMatch(#{event_count := 0}, M3).

%% Random appends, removals and questions against a walk through all events.
b_the_same_as_a_walk_through_the_stream(Config) ->
    Store = store(Config),
    Time = range(0, 60),
    Appends = list({Time, range(1, 4)}),
    Questions = non_empty(list({Time, Time, oneof([forward, backward]), range(1, 20)})),
    Property = ?FORALL(
        {Before, Cut, After, Asked},
        {non_empty(Appends), range(0, 20), Appends, Questions},
        begin
            Stream = integer_to_binary(erlang:unique_integer()),
            at_times(Config, Stream, Before),
            {ok, _} = erl_esdb_store:truncate(Store, Stream, Cut),
            at_times(Config, Stream, After),
            {ok, All} = erl_esdb_streams:read(Store, Stream, 0, infinity, forward),
            lists:all(fun(Q) -> answers_as(All, Store, Stream, Q) end, Asked)
        end
    ),
    erl_esdb_test:property(150, Property).

answers_as(All, Store, Stream, {From, To, Direction, Limit}) ->
    Options = #{direction => Direction, limit => Limit},
    Until = [E || #event{epoch_us = Time} = E <- All, Time =< To],
    Range = [E || #event{epoch_us = Time} = E <- Until, Time >= From],
    Last = lists:last([-1 | versions(Until)]),
    {ok, cut(Direction, Limit, Until)} =:= read_until(Store, Stream, To, Options) andalso
        {ok, cut(Direction, Limit, Range)} =:= read_range(Store, Stream, From, To, Options) andalso
        {ok, Range} =:= read_range(Store, Stream, From, To) andalso
        {ok, Last} =:= version_at(Store, Stream, To).

cut(forward, Limit, Events) -> lists:sublist(Events, Limit);
cut(backward, Limit, Events) -> lists:sublist(lists:reverse(Events), Limit).

%% Reads by time take what other reads of a stream take.
b_options_of_reads(_Config) ->
    Store = erl_esdb_test:start_store(#{
        codec => json, integrity => #{enabled => true, key => <<7:256>>}
    }),
    [
        {ok, _} = erl_esdb_streams:append(
            Store, ?S, any, [#{event_type => <<"t">>, data => #{n => N}}], #{epoch_us => N}
        )
     || N <- lists:seq(1, 9)
    ],
    Data = fun({ok, Events}) -> [Value || #event{data = Value} <- Events] end,
    ?assertMatch([<<_/binary>>], Data(read_range(Store, ?S, 4, 4))),
    ?assertEqual([#{<<"n">> => 4}], Data(read_range(Store, ?S, 4, 4, #{decode => json}))),
    ?assertEqual(
        [#{<<"n">> => 2}, #{<<"n">> => 1}],
        Data(read_until(Store, ?S, 2, #{decode => json, direction => backward}))
    ),
    ok = erl_esdb_streams:set_metadata(Store, ?S, #{max_count => 3}, #{}),
    ?assertEqual({ok, []}, read_until(Store, ?S, 5)),
    ?assertEqual({ok, -1}, version_at(Store, ?S, 5)),
    {ok, Hidden} = read_until(Store, ?S, 5, #{hidden => true, verify => strict}),
    ?assertEqual([0, 1, 2, 3, 4], versions(Hidden)),
    ?assertEqual({ok, 4}, erl_esdb_temporal:version_at(Store, ?S, 5, #{hidden => true})),
    ?assertEqual(
        {error, {timeout, Store}}, read_range(Store, ?S, 4, 5, #{timeout => 0, hidden => true})
    ),
    ?assertEqual(
        {error, {timeout, Store}},
        erl_esdb_temporal:version_at(Store, ?S, 5, #{timeout => 0, hidden => true})
    ),
    ?assertEqual(
        {error, {invalid_option, archives, none}}, read_until(Store, ?S, 5, #{archives => none})
    ),
    [
        ?assertError(badarg, read_until(Store, ?S, 5, #{Key => wrong}))
     || Key <- [timeout, decode, verify, hidden, consistency]
    ],
    ?assertError(badarg, erl_esdb_temporal:version_at(Store, ?S, 5, #{timeout => wrong})),
    erl_esdb:stop_store(Store).

%% A search looks at few places, whatever the stream has.
b_a_search_takes_logarithmic_looks(_Config) ->
    Looks = fun(Size, Time) ->
        Counter = counters:new(1, []),
        Probe = fun(Version) ->
            counters:add(Counter, 1, 1),
            {ok, {Version, Version + 1, Version}}
        end,
        Expected = min(Size, Time + 1),
        {ok, Expected} = erl_esdb_bisect:later(Time, 0, Size, Probe),
        counters:get(Counter, 1)
    end,
    [
        ?assert(Looks(Size, Time) =< 1 + math:log2(Size) + 1)
     || Size <- [1, 10, 1000, 1 bsl 40], Time <- [0, 5, 500, 1 bsl 39, 1 bsl 41]
    ].

%% What was removed while we searched: the search begins again with what there is.
b_queries_while_the_stream_is_cut(Config) ->
    Store = store(Config),
    at_times(Config, [{N, 1} || N <- lists:seq(0, 999)]),
    Cut = fun() ->
        [{ok, _} = erl_esdb_store:truncate(Store, ?S, V) || V <- lists:seq(1, 900)],
        done
    end,
    Ask = fun() ->
        [{ok, 950} = version_at(Store, ?S, 950) || _ <- lists:seq(1, 500)],
        [
            {ok, [#event{version = 950}, #event{version = 951}]} =
                read_range(Store, ?S, 950, 951)
         || _ <- lists:seq(1, 500)
        ],
        done
    end,
    ?assertEqual([done, done, done], erl_esdb_test:concurrently([Cut, Ask, Ask])).

%% Real events, with their own times, compared with the file.
b_the_commits_of_a_history(Config) ->
    Streams = erl_esdb_test:append_commits(store(Config)),
    [
        begin
            Times = [Time || #{epoch_us := Time} <- Commits],
            %% Each point reads all before it: some thirty of them, however long the history is.
            Step = max(7, length(Times) div 30),
            Points = [lists:min(Times) - 1, lists:max(Times) | every(Step, Times)],
            [compare_commits(store(Config), Stream, Commits, Time) || Time <- Points]
        end
     || Stream := Commits <- Streams
    ],
    ?assert(map_size(Streams) > 5).

every(N, List) -> [Item || {I, Item} <- lists:enumerate(List), I rem N =:= 1].

compare_commits(Store, Stream, Commits, Time) ->
    Expected = [Id || #{event_id := Id, epoch_us := T} <- Commits, T =< Time],
    {ok, Events} = read_until(Store, Stream, Time),
    ?assertEqual(Expected, erl_esdb_test:ids(Events)),
    ?assertEqual({ok, length(Expected) - 1}, version_at(Store, Stream, Time)).
