-module(erl_esdb_scavenge_SUITE).
-moduledoc "Removal of old events, row by row of the checklist.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_scavenge, [scavenge/3, dry_run/3, scavenge_matching/3, archive_and_scavenge/4]).
-import(erl_esdb_test, [versions/1, events/1]).

-define(S, <<"orders-1">>).
-define(FREE, require_snapshot => false).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    Functions = [atom_to_list(F) || {F, 1} <- ?MODULE:module_info(exports)],
    [list_to_atom(F) || F <- Functions, [C, $_ | _] <- [F], lists:member(C, "abt")].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

fill(Config, Count) -> fill(Config, ?S, Count).

fill(Config, Stream, Count) ->
    {ok, _} = erl_esdb_streams:append(store(Config), Stream, any, events(Count)).

left(Config) ->
    {ok, Events} = erl_esdb_streams:read(store(Config), ?S, 0, infinity, forward),
    versions(Events).

backend(Options) ->
    Table = ets:new(?MODULE, [public]),
    {ok, State} = erl_esdb_test_backend:init(Options#{table => Table, owner => self()}),
    {erl_esdb_test_backend, State}.

%% What the backend was asked so far.
asked() ->
    receive
        {erl_esdb_test_backend, What} -> [What | asked()]
    after 0 -> []
    end.

%% ---- scavenge

a_scv_01_before_version(Config) ->
    fill(Config, 10),
    {ok, _} = scavenge(store(Config), ?S, #{before_version => 4, ?FREE}),
    ?assertEqual([4, 5, 6, 7, 8, 9], left(Config)).

a_scv_02_before_removes_by_time(Config) ->
    [
        {ok, _} = erl_esdb_restore:append(store(Config), ?S, -2, events(3), Time)
     || Time <- [100, 200]
    ],
    {ok, Result} = scavenge(store(Config), ?S, #{before => 200, ?FREE}),
    ?assertMatch(#{deleted_count := 3, deleted_versions := {0, 2}}, Result),
    ?assertEqual([3, 4, 5], left(Config)).

t_26_before_is_strict(Config) ->
    [
        {ok, _} = erl_esdb_restore:append(store(Config), ?S, -2, events(1), Time)
     || Time <- [100, 200, 300]
    ],
    {ok, #{deleted_count := 0}} = scavenge(store(Config), ?S, #{before => 100, ?FREE}),
    {ok, #{deleted_count := 1}} = scavenge(store(Config), ?S, #{before => 101, ?FREE}),
    {ok, #{deleted_count := 2}} = scavenge(store(Config), ?S, #{before => 1 bsl 70, ?FREE}).

a_scv_03_keep_versions(Config) ->
    fill(Config, 10),
    {ok, Result} = scavenge(store(Config), ?S, #{before_version => 9, keep_versions => 4, ?FREE}),
    ?assertMatch(#{deleted_count := 6, deleted_versions := {0, 5}}, Result),
    ?assertEqual([6, 7, 8, 9], left(Config)).

a_scv_04_keep_as_many_as_there_are(Config) ->
    fill(Config, 10),
    [
        ?assertMatch(
            {ok, #{deleted_count := 0, deleted_versions := {0, 0}}},
            scavenge(store(Config), ?S, #{before_version => 9, keep_versions => Keep, ?FREE})
        )
     || Keep <- [10, 11, 1 bsl 70]
    ],
    ?assertEqual(10, length(left(Config))).

a_scv_05_no_criterion(Config) ->
    fill(Config, 10),
    ok = erl_esdb_snapshots:save(store(Config), ?S, 9, data),
    ?assertMatch({ok, #{deleted_count := 0}}, scavenge(store(Config), ?S, #{})),
    ?assertMatch({ok, #{deleted_count := 0}}, scavenge(store(Config), ?S, #{keep_versions => 2})),
    ?assertEqual(10, length(left(Config))).

a_scv_06_no_snapshot(Config) ->
    fill(Config, 10),
    Refused = {error, {no_snapshot, ?S}},
    ?assertEqual(Refused, scavenge(store(Config), ?S, #{before_version => 4})),
    ?assertEqual(Refused, scavenge(store(Config), ?S, #{before_version => 4, dry_run => true})),
    ?assertEqual(10, length(left(Config))),
    Unknown = scavenge(store(Config), <<"orders-2">>, #{before_version => 4}),
    ?assertEqual({error, {no_snapshot, <<"orders-2">>}}, Unknown),
    ok = erl_esdb_snapshots:save(store(Config), ?S, 3, data),
    ?assertMatch({ok, #{deleted_count := 4}}, scavenge(store(Config), ?S, #{before_version => 4})).

a_scv_07_no_snapshot_required(Config) ->
    fill(Config, 10),
    ?assertMatch(
        {ok, #{deleted_count := 4}}, scavenge(store(Config), ?S, #{before_version => 4, ?FREE})
    ).

a_scv_08_an_absent_stream(Config) ->
    ?assertEqual(
        {error, {stream_not_found, ?S}}, scavenge(store(Config), ?S, #{before_version => 4, ?FREE})
    ).

a_scv_09_the_result(Config) ->
    fill(Config, 10),
    ?assertEqual(
        {ok, #{
            stream_id => ?S, deleted_count => 5, deleted_versions => {0, 4}, archived => false
        }},
        scavenge(store(Config), ?S, #{before_version => 5, ?FREE})
    ).

a_scv_10_a_second_run(Config) ->
    fill(Config, 10),
    Run = fun(Before) -> scavenge(store(Config), ?S, #{before_version => Before, ?FREE}) end,
    {ok, #{deleted_count := 5}} = Run(5),
    ?assertMatch({ok, #{deleted_count := 0, deleted_versions := {0, 0}}}, Run(5)),
    ?assertMatch({ok, #{deleted_count := 0, deleted_versions := {0, 0}}}, Run(2)),
    ?assertMatch({ok, #{deleted_count := 2, deleted_versions := {5, 6}}}, Run(7)).

a_scv_11_numbering_goes_on(Config) ->
    fill(Config, 10),
    {ok, _} = scavenge(store(Config), ?S, #{before_version => 5, ?FREE}),
    ?assertEqual(9, erl_esdb_streams:get_version(store(Config), ?S)),
    ?assertEqual({ok, 10}, erl_esdb_streams:append(store(Config), ?S, 9, events(1))),
    ?assertEqual([5, 6, 7, 8, 9, 10], left(Config)).

a_scv_12_all_events(Config) ->
    fill(Config, 10),
    {ok, Result} = scavenge(store(Config), ?S, #{before_version => 1000, ?FREE}),
    ?assertMatch(#{deleted_count := 10, deleted_versions := {0, 9}}, Result),
    ?assertEqual([], left(Config)),
    ?assert(erl_esdb_streams:exists(store(Config), ?S)),
    ?assertEqual({ok, [?S]}, erl_esdb_streams:list_streams(store(Config))),
    ?assertEqual({ok, 10}, erl_esdb_streams:append(store(Config), ?S, 9, events(1))).

a_scv_13_a_dry_run(Config) ->
    fill(Config, 10),
    Options = #{before_version => 7, keep_versions => 4, ?FREE},
    {ok, Dry} = dry_run(store(Config), ?S, Options),
    ?assertEqual({ok, Dry}, scavenge(store(Config), ?S, Options#{dry_run => true})),
    ?assertEqual(10, length(left(Config))),
    {ok, Real} = scavenge(store(Config), ?S, Options),
    ?assertEqual(Real#{dry_run => true}, Dry),
    ?assertEqual(4, length(left(Config))).

a_scv_14_matching_streams(Config) ->
    Streams = [<<"orders-1-eu">>, <<"orders-2-us">>, <<"users-1-eu">>, <<"o">>],
    [fill(Config, Stream, 5) || Stream <- Streams],
    Matched = fun(Pattern) ->
        Options = #{before_version => 1, ?FREE, dry_run => true},
        {ok, Results} = scavenge_matching(store(Config), Pattern, Options),
        [Stream || #{stream_id := Stream, deleted_count := 1} <- Results]
    end,
    ?assertEqual([<<"orders-1-eu">>, <<"orders-2-us">>], Matched(<<"orders-*">>)),
    ?assertEqual([<<"orders-1-eu">>, <<"users-1-eu">>], Matched(<<"*-eu">>)),
    ?assertEqual([<<"orders-2-us">>], Matched(<<"o*2*us">>)),
    ?assertEqual([<<"o">>], Matched(<<"o">>)),
    ?assertEqual(lists:sort(Streams), lists:sort(Matched(<<"*">>))),
    ?assertEqual([], Matched(<<"orders-">>)),
    {ok, [_, _]} = scavenge_matching(store(Config), <<"orders-*">>, #{before_version => 2, ?FREE}),
    {ok, [E | _]} = erl_esdb_streams:read(store(Config), <<"orders-2-us">>, 0, 9, forward),
    ?assertEqual(2, E#event.version).

a_scv_15_streams_that_fail_are_left_out(Config) ->
    Streams = [<<"orders-1">>, <<"orders-2">>, <<"orders-3">>],
    [fill(Config, Stream, 5) || Stream <- Streams],
    ok = erl_esdb_snapshots:save(store(Config), <<"orders-2">>, 4, data),
    {ok, Results} = scavenge_matching(store(Config), <<"orders-*">>, #{before_version => 2}),
    ?assertMatch([#{stream_id := <<"orders-2">>, deleted_count := 2}], Results).

a_scv_16_other_characters_are_themselves(Config) ->
    Streams = [<<"a.b">>, <<"axb">>, <<"a?b">>, <<"a+b">>, <<"a(b">>, <<"a[x]b">>, <<"a\\b">>],
    [fill(Config, Stream, 2) || Stream <- Streams],
    [
        begin
            Options = #{before_version => 1, ?FREE, dry_run => true},
            {ok, Results} = scavenge_matching(store(Config), Stream, Options),
            ?assertEqual([Stream], [S || #{stream_id := S} <- Results])
        end
     || Stream <- Streams
    ].

%% ---- archive_and_scavenge

a_scv_17_archived_first(Config) ->
    fill(Config, 10),
    {ok, Before} = erl_esdb_streams:read(store(Config), ?S, 0, 6, forward),
    {Module, State} = Backend = backend(#{}),
    Options = #{before_version => 6, ?FREE},
    {ok, Result} = archive_and_scavenge(store(Config), ?S, Backend, Options),
    ?assertMatch(
        #{
            stream_id := ?S,
            deleted_count := 6,
            deleted_versions := {0, 5},
            archived := true,
            archive_keys := [_]
        },
        Result
    ),
    #{archive_key := Key} = Result,
    {ok, Parsed} = erl_esdb_archive_backend:parse_key(Key),
    ?assertEqual(
        #{store_id => store(Config), stream_id => ?S, from_version => 0, to_version => 5},
        maps:remove(incarnation, Parsed)
    ),
    Prefix = <<(atom_to_binary(store(Config)))/binary, "/orders-1/0-5.">>,
    ?assertEqual(byte_size(Prefix), binary:longest_common_prefix([Prefix, Key])),
    ?assertEqual({ok, Before, State}, Module:read(State, Key)),
    ?assertEqual([6, 7, 8, 9], left(Config)).

a_scv_18_an_error_of_the_backend(Config) ->
    fill(Config, 10),
    Backend = backend(#{fail => {disk, full}}),
    Options = #{before_version => 6, ?FREE},
    Result = archive_and_scavenge(store(Config), ?S, Backend, Options),
    ?assertEqual({error, {disk, full}}, Result),
    ?assertEqual(10, length(left(Config))).

a_scv_19_nothing_to_do(Config) ->
    fill(Config, 10),
    Options = #{before_version => 6, keep_versions => 10, ?FREE},
    {ok, Result} = archive_and_scavenge(store(Config), ?S, backend(#{}), Options),
    ?assertEqual(
        #{stream_id => ?S, deleted_count => 0, deleted_versions => {0, 0}, archived => false},
        Result
    ),
    ?assertEqual([], asked()).

a_scv_20_no_snapshot_no_archive(Config) ->
    fill(Config, 10),
    Result = archive_and_scavenge(store(Config), ?S, backend(#{}), #{before_version => 6}),
    ?assertEqual({error, {no_snapshot, ?S}}, Result),
    ?assertEqual([], asked()).

a_scv_21_a_dry_run_archives_nothing(Config) ->
    fill(Config, 10),
    Options = #{before_version => 6, ?FREE, dry_run => true},
    {ok, Result} = archive_and_scavenge(store(Config), ?S, backend(#{}), Options),
    ?assertMatch(#{deleted_count := 6, archived := false, dry_run := true}, Result),
    ?assertNot(is_map_key(archive_key, Result)),
    ?assertEqual([], asked()),
    ?assertEqual(10, length(left(Config))).

t_27_everything_is_checked_before_archiving(Config) ->
    fill(Config, 10),
    Backend = backend(#{}),
    Call = fun(Options) -> archive_and_scavenge(store(Config), ?S, Backend, Options) end,
    {error, {no_snapshot, ?S}} = Call(#{before_version => 6, dry_run => true}),
    {error, {invalid_option, dry_run, 1}} = Call(#{before_version => 6, dry_run => 1, ?FREE}),
    ?assertEqual([], asked()).

a_scv_22_telemetry(Config) ->
    Store = store(Config),
    fill(Config, 10),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store, [?SCAVENGE_COMPLETE]),
    {ok, _} = dry_run(Store, ?S, #{before_version => 4, ?FREE}),
    {ok, _} = scavenge(Store, ?S, #{before_version => 4, ?FREE}),
    {ok, _} = archive_and_scavenge(Store, ?S, backend(#{}), #{before_version => 6, ?FREE}),
    {error, _} = scavenge(Store, ?S, #{before_version => 8}),
    {error, _} = archive_and_scavenge(Store, ?S, backend(#{}), #{before_version => 8}),
    {ok, [_]} = scavenge_matching(Store, <<"*">>, #{before_version => 7, ?FREE}),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    Told = erl_esdb_test:collected(?FUNCTION_NAME),
    ?assertEqual(
        [{4, false}, {4, false}, {2, true}, {0, false}, {0, false}, {1, false}],
        [
            {Count, Archived}
         || {?SCAVENGE_COMPLETE, #{deleted_count := Count, duration := D}, #{
                stream_id := ?S, archived := Archived
            }} <- Told,
            D >= 0
        ]
    ).

%% A stream of any length: an archive has a part of it.
b_many_events_make_many_archives(Config) ->
    fill(Config, 25),
    Backend = backend(#{}),
    Options = #{before_version => 22, archive_events => 10, verify => true, ?FREE},
    {ok, #{archive_keys := Keys, archive_key := First, deleted_count := 22}} =
        archive_and_scavenge(store(Config), ?S, Backend, Options),
    ?assertEqual(First, hd(Keys)),
    ?assertEqual(
        [{0, 9}, {10, 19}, {20, 21}],
        [
            {From, To}
         || Key <- Keys,
            {ok, #{from_version := From, to_version := To}} <-
                [erl_esdb_archive_backend:parse_key(Key)]
        ]
    ),
    {ok, Events} = erl_esdb_archive:read_through(
        store(Config), ?S, 0, infinity, forward, Backend
    ),
    ?assertEqual(lists:seq(0, 24), versions(Events)).

%% What metadata hides is removed, and archived before.
b_what_is_hidden_is_removed(Config) ->
    fill(Config, 10),
    ok = erl_esdb_streams:set_metadata(store(Config), ?S, #{max_count => 4}, #{}),
    ?assertEqual([6, 7, 8, 9], left(Config)),
    ?assertMatch(
        {ok, #{deleted_versions := {0, 1}}},
        dry_run(store(Config), ?S, #{?FREE, keep_versions => 8})
    ),
    Backend = backend(#{}),
    {ok, #{deleted_versions := {0, 5}, archive_keys := [_]}} =
        archive_and_scavenge(store(Config), ?S, Backend, #{?FREE}),
    ok = erl_esdb_streams:set_metadata(store(Config), ?S, #{}, #{}),
    ?assertEqual([6, 7, 8, 9], left(Config)),
    {ok, All} = erl_esdb_archive:read_through(store(Config), ?S, 0, 99, forward, Backend),
    ?assertEqual(lists:seq(0, 9), versions(All)).

%% Streams are listed a page at a time.
b_many_streams_match(Config) ->
    Store = store(Config),
    Streams = [<<"many-", (integer_to_binary(N))/binary>> || N <- lists:seq(1, 2_300)],
    [fill(Config, Stream, 2) || Stream <- Streams],
    fill(Config, <<"other">>, 2),
    {ok, Results} = scavenge_matching(Store, <<"many-*">>, #{before_version => 1, ?FREE}),
    ?assertEqual(lists:sort(Streams), [Stream || #{stream_id := Stream} <- Results]),
    ?assertEqual([1], lists:usort([Count || #{deleted_count := Count} <- Results])).

b_times_are_those_of_a_call(Config) ->
    Store = store(Config),
    fill(Config, 10),
    ok = sys:suspend(erl_esdb_test:orderer(Store)),
    ?assertEqual(
        {error, {timeout, Store}},
        scavenge(Store, ?S, #{before_version => 4, timeout => 20, ?FREE})
    ),
    ok = sys:resume(erl_esdb_test:orderer(Store)),
    %% What was sent is done all the same.
    erl_esdb_test:await(fun() -> left(Config) =:= [4, 5, 6, 7, 8, 9] end),
    ?assertEqual(
        {error, {invalid_option, timeout, soon}}, scavenge(Store, ?S, #{timeout => soon, ?FREE})
    ).

b_an_archive_that_lost_events_is_noticed(Config) ->
    fill(Config, 10),
    Options = #{before_version => 6, verify => true, ?FREE},
    Result = archive_and_scavenge(store(Config), ?S, backend(#{lose => true}), Options),
    ?assertMatch({error, {archive_differs, _}}, Result),
    ?assertEqual(10, length(left(Config))).

b_a_stream_that_is_replaced_meanwhile_is_not_cut(Config) ->
    fill(Config, 10),
    Store = store(Config),
    Replace = fun() ->
        ok = erl_esdb_streams:delete(Store, ?S),
        fill(Config, 3)
    end,
    Options = #{before_version => 6, ?FREE},
    Result = archive_and_scavenge(Store, ?S, backend(#{during => Replace}), Options),
    ?assertEqual({error, {stream_replaced, ?S}}, Result),
    ?assertEqual([0, 1, 2], left(Config)).

b_options_are_checked(Config) ->
    fill(Config, 10),
    Bad = [
        {before, yesterday},
        {before_version, -1},
        {before_version, 1.0},
        {keep_versions, -1},
        {keep_versions, many},
        {require_snapshot, no},
        {dry_run, 1},
        {archive_events, 0},
        {verify, maybe_}
    ],
    [
        begin
            Options = maps:merge(#{before_version => 4, ?FREE}, #{Key => Value}),
            Expected = {error, {invalid_option, Key, Value}},
            ?assertEqual(Expected, scavenge(store(Config), ?S, Options)),
            ?assertEqual(Expected, scavenge_matching(store(Config), <<"*">>, Options))
        end
     || {Key, Value} <- Bad
    ],
    ?assertEqual(10, length(left(Config))),
    {ok, #{deleted_count := 4}} =
        scavenge(store(Config), ?S, #{before_version => 4, unknown => 1, ?FREE}),
    ?assertError(badarg, scavenge(store(Config), orders, #{})),
    ?assertError(badarg, scavenge(store(Config), ?S, [])),
    ?assertError(badarg, scavenge("store", ?S, #{})),
    ?assertError(badarg, dry_run(store(Config), ?S, dry)),
    ?assertError(badarg, scavenge_matching(store(Config), orders, #{})),
    ?assertError(badarg, archive_and_scavenge(store(Config), ?S, erl_esdb_archive_file, #{})),
    Gone = {error, {store_not_started, no_such_store}},
    ?assertEqual(Gone, scavenge(no_such_store, ?S, #{})),
    ?assertEqual(Gone, scavenge_matching(no_such_store, <<"*">>, #{})).

%% Whatever is asked: a real run does what the dry run said, what is left is the rest, in any order
%% of appends and runs.
b_any_runs(Config) ->
    Store = store(Config),
    Option = oneof([
        {before_version, range(0, 30)}, {before, range(0, 30)}, {keep_versions, range(0, 10)}
    ]),
    Step = oneof([{append, range(1, 5)}, {scavenge, list(Option)}]),
    Property = ?FORALL(
        Steps,
        list(Step),
        begin
            Stream = integer_to_binary(erlang:unique_integer()),
            {ok, 0} = erl_esdb_restore:append(Store, Stream, -1, events(1), 0),
            {Model, true} = lists:foldl(
                fun(S, Acc) -> step(Store, Stream, S, Acc) end, {[{0, 0}], true}, Steps
            ),
            {ok, Events} = erl_esdb_streams:read(Store, Stream, 0, infinity, forward),
            [V || {V, _} <- Model] =:= versions(Events)
        end
    ),
    erl_esdb_test:property(100, Property).

%% The model: versions with their times.
step(Store, Stream, {append, Count}, {Model, Good}) ->
    Next = erl_esdb_streams:get_version(Store, Stream) + 1,
    {ok, _} = erl_esdb_restore:append(Store, Stream, -2, events(Count), Next),
    {Model ++ [{V, Next} || V <- lists:seq(Next, Next + Count - 1)], Good};
step(Store, Stream, {scavenge, Options}, {Model, Good}) ->
    Map = maps:from_list(Options),
    Last = erl_esdb_streams:get_version(Store, Stream),
    Keep = maps:get(keep_versions, Map, 0),
    Goes = fun({V, Time}) ->
        V =< Last - Keep andalso
            case Map of
                #{before_version := Before} -> V < Before;
                #{before := Before} -> Time < Before;
                #{} -> false
            end
    end,
    {Gone, Left} = lists:partition(Goes, Model),
    {ok, Dry} = dry_run(Store, Stream, Map#{?FREE}),
    {ok, Real} = scavenge(Store, Stream, Map#{?FREE}),
    #{deleted_count := Count, deleted_versions := Span} = Real,
    Expected =
        case Gone of
            [] -> {0, 0};
            _ -> {element(1, hd(Gone)), element(1, lists:last(Gone))}
        end,
    {Left, Good andalso Dry =:= Real#{dry_run => true} andalso Count =:= length(Gone) andalso
        Span =:= Expected}.
