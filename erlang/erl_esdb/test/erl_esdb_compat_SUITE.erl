-module(erl_esdb_compat_SUITE).
-moduledoc "The processes and names that callers of the original know.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_test, [await/1, events/1]).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    [
        F
     || {F, 1} <- ?MODULE:module_info(exports),
        lists:any(fun(P) -> lists:prefix(P, atom_to_list(F)) end, ["a_", "t_"])
    ].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) -> [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    [
        application:unset_env(erl_esdb, Key)
     || Key <- [writer_idle_timeout_ms, reader_idle_timeout_ms, persistence_interval]
    ],
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

%% ---- writers and readers

a_wrk_01_append(Config) ->
    Store = store(Config),
    Append = fun(Expected, Events) ->
        erl_esdb_streams_writer:append(Store, ~"s", Expected, Events)
    end,
    ?assertEqual({ok, 0}, Append(-1, events(1))),
    ?assertEqual({ok, 2}, Append(0, events(2))),
    ?assertEqual({error, {wrong_expected_version, -1, 2}}, Append(-1, events(1))),
    ?assertEqual({error, {invalid_event, not_an_event}}, Append(any, [x])),
    ?assertError(badarg, Append(x, [])),
    ?assertEqual(2, erl_esdb_streams:get_version(Store, ~"s")),
    ?assertEqual(
        {error, {store_not_started, nosuch}},
        erl_esdb_streams_writer:append(nosuch, ~"s", any, events(1))
    ),
    ?assertError(badarg, erl_esdb_streams_writer:append(Store, "s", any, events(1))).

a_wrk_02_one_writer_for_a_stream(Config) ->
    Store = store(Config),
    Get = fun() -> erl_esdb_streams_writer:get_writer(Store, ~"s") end,
    [Pid | Pids] = erl_esdb_test:concurrently([Get || _ <- lists:seq(1, 20)]),
    ?assert(is_process_alive(Pid)),
    ?assertEqual([Pid], lists:usort(Pids)),
    ?assertEqual([Pid], pg:get_members(erl_esdb_pg, {Store, ~"s", streams_writer})),
    ?assertNotEqual(Pid, erl_esdb_streams_writer:get_writer(Store, ~"t")),
    ?assertError(
        {erl_esdb, {store_not_started, nosuch}},
        erl_esdb_streams_writer:get_writer(nosuch, ~"s")
    ).

a_wrk_03_writers_end_when_idle(Config) ->
    ok = application:set_env(erl_esdb, writer_idle_timeout_ms, 50),
    Writer = erl_esdb_streams_writer:get_writer(store(Config), ~"s"),
    Ref = monitor(process, Writer),
    receive
        {'DOWN', Ref, process, Writer, Reason} -> ?assertEqual(normal, Reason)
    after 60_000 -> error(still_there)
    end,
    Next = erl_esdb_streams_writer:get_writer(store(Config), ~"s"),
    ?assertNotEqual(Writer, Next),
    ?assertEqual({ok, 0}, erl_esdb_streams_writer:append(store(Config), ~"s", -1, events(1))).

%% Ending and asking at the same time: nobody notices.
a_wrk_03_a_writer_that_just_ended_is_replaced(Config) ->
    ok = application:set_env(erl_esdb, writer_idle_timeout_ms, 1),
    Append = fun() ->
        [
            begin
                await(fun() -> os:system_time(millisecond) rem 2 =:= N rem 2 end),
                {ok, _} = erl_esdb_streams_writer:append(store(Config), ~"s", any, events(1))
            end
         || N <- lists:seq(1, 100)
        ]
    end,
    _ = erl_esdb_test:concurrently([Append, Append, Append]),
    ?assertEqual(299, erl_esdb_streams:get_version(store(Config), ~"s")).

a_wrk_04_a_killed_writer_is_replaced(Config) ->
    Writer = erl_esdb_streams_writer:get_writer(store(Config), ~"s"),
    exit(Writer, kill),
    ?assertEqual({ok, 0}, erl_esdb_streams_writer:append(store(Config), ~"s", -1, events(1))),
    ?assertNotEqual(Writer, erl_esdb_streams_writer:get_writer(store(Config), ~"s")).

a_wrk_04_killed_during_a_call(Config) ->
    Store = store(Config),
    Writer = erl_esdb_streams_writer:get_writer(Store, ~"s"),
    ok = sys:suspend(Writer),
    Waiting = fun() -> element(2, process_info(Writer, message_queue_len)) =:= 1 end,
    Results = erl_esdb_test:concurrently([
        fun() -> erl_esdb_streams_writer:append(Store, ~"s", any, events(1)) end,
        fun() -> await(Waiting), exit(Writer, kill) end
    ]),
    ?assertEqual([{error, {worker_down, Store}}, true], Results).

a_wrk_05_start_link(Config) ->
    Partition = erl_esdb_streams_worker:partition(store(Config), ~"s"),
    Schedulers = erlang:system_info(schedulers_online),
    ?assertEqual(erlang:phash2({store(Config), ~"s"}, Schedulers), Partition),
    {ok, Writer} = erl_esdb_streams_writer:start_link({store(Config), ~"s", Partition}),
    ?assertEqual({error, unknown_request}, gen_server:call(Writer, unheard_of)),
    ?assertEqual({error, unknown_request}, gen_server:call(Writer, {read, 0, 1, forward})),
    Writer ! unheard_of,
    ok = gen_server:cast(Writer, unheard_of),
    ?assertEqual(Writer, erl_esdb_streams_writer:get_writer(store(Config), ~"s")),
    ok = gen_server:stop(Writer).

a_wrk_06_read(Config) ->
    Store = store(Config),
    {ok, 9} = erl_esdb_streams:append(Store, ~"s", -1, events(10)),
    [
        ?assertEqual(
            erl_esdb_streams:read(Store, S, Start, Count, Direction),
            erl_esdb_streams_reader:read(Store, S, Start, Count, Direction)
        )
     || S <- [~"s", ~"unknown"],
        {Start, Count, Direction} <- [{0, 3, forward}, {9, 4, backward}, {20, 1, forward}]
    ],
    ?assertError(badarg, erl_esdb_streams_reader:read(Store, ~"s", -1, 1, forward)).

a_wrk_07_get_streams(Config) ->
    ?assertEqual({ok, []}, erl_esdb_streams_reader:get_streams(store(Config))),
    [{ok, 0} = erl_esdb_streams:append(store(Config), S, -1, events(1)) || S <- [~"b", ~"a"]],
    ?assertEqual({ok, [~"a", ~"b"]}, erl_esdb_streams_reader:get_streams(store(Config))).

a_wrk_08_readers(Config) ->
    Store = store(Config),
    Reader = erl_esdb_streams_reader:get_reader(Store, ~"s"),
    ?assertEqual(Reader, erl_esdb_streams_reader:get_reader(Store, ~"s")),
    ?assertEqual([Reader], pg:get_members(erl_esdb_pg, {Store, ~"s", streams_reader})),
    ?assertEqual({error, unknown_request}, gen_server:call(Reader, {append, any, []})),
    exit(Reader, kill),
    ok = application:set_env(erl_esdb, reader_idle_timeout_ms, 50),
    Next = erl_esdb_streams_reader:get_reader(Store, ~"s"),
    Ref = monitor(process, Next),
    receive
        {'DOWN', Ref, process, Next, Reason} -> ?assertEqual(normal, Reason)
    after 60_000 -> error(still_there)
    end.

a_wrk_09_their_supervisor(Config) ->
    Store = store(Config),
    Sup = whereis(erl_esdb_naming:streams_sup_name(Store)),
    ?assertEqual([], supervisor:which_children(Sup)),
    Writer = erl_esdb_streams_writer:get_writer(Store, ~"s"),
    [{Id, Writer, worker, _}] = supervisor:which_children(Sup),
    ?assertMatch({ok, #{restart := temporary}}, supervisor:get_childspec(Sup, Id)),
    {ok, Other} = erl_esdb_streams_sup:start_link(#store_config{store_id = by_hand}),
    ?assertEqual(Other, whereis(erl_esdb_streams_by_hand)),
    ?assertEqual(
        {error, {already_started, Other}},
        erl_esdb_streams_sup:start_link(#store_config{store_id = by_hand})
    ),
    unlink(Other),
    ok = gen_server:stop(Other, shutdown, 5000).

%% ---- names

a_nam_01_names(_Config) ->
    Names = [
        {system_sup_name, erl_esdb_system_s},
        {core_sup_name, erl_esdb_core_s},
        {persistence_sup_name, erl_esdb_persistence_s},
        {notification_sup_name, erl_esdb_notification_s},
        {cluster_sup_name, erl_esdb_cluster_s},
        {member_watch_name, erl_esdb_member_watch_s},
        {gateway_sup_name, erl_esdb_gateway_s},
        {streams_sup_name, erl_esdb_streams_s},
        {emitter_sup_name, erl_esdb_emitter_s},
        {leader_sup_name, erl_esdb_leader_s},
        {store_name, s},
        {store_mgr_name, erl_esdb_store_mgr_s},
        {subscriptions_store_name, erl_esdb_subscriptions_s},
        {snapshots_store_name, erl_esdb_snapshots_s},
        {persistence_worker_name, erl_esdb_persistence_worker_s},
        {leader_name, erl_esdb_leader_worker_s},
        {leader_tracker_name, erl_esdb_leader_tracker_s},
        {discovery_name, erl_esdb_discovery_s},
        {coordinator_name, erl_esdb_coordinator_s},
        {node_monitor_name, erl_esdb_node_monitor_s},
        {gateway_worker_name, erl_esdb_gateway_worker_s},
        {writer_pool_name, erl_esdb_writer_pool_s},
        {reader_pool_name, erl_esdb_reader_pool_s},
        {store_worker_name, erl_esdb_store_s}
    ],
    [?assertEqual(Name, erl_esdb_naming:Function(s)) || {Function, Name} <- Names],
    [?assertError(badarg, erl_esdb_naming:F("s")) || {F, _} <- Names, F =/= store_name],
    ?assertEqual(erl_esdb_emitter_pool_s_k, erl_esdb_naming:emitter_pool_name(s, ~"k")),
    ?assertEqual({s, f}, erl_esdb_naming:pg_group_name(s, f)),
    ?assertEqual({s, ~"k", emitters}, erl_esdb_naming:emitter_group_key(s, ~"k")).

a_nam_02_tracker_group_key(_Config) ->
    Key = erl_esdb_naming:tracker_group_key(s, streams),
    ?assertEqual(erlang:phash2({s, streams, trackers}), Key),
    ?assertEqual(Key, erl_esdb_naming:tracker_group_key(s, streams)),
    ?assertNotEqual(Key, erl_esdb_naming:tracker_group_key(t, streams)),
    ?assertNotEqual(Key, erl_esdb_naming:tracker_group_key(s, snapshots)).

%% T-46: an atom cannot be made of everything, and streams and links make none at all.
t_46_no_atoms_from_names_of_users(Config) ->
    Store = store(Config),
    Long = binary:copy(~"k", 300),
    ?assertError(badarg, erl_esdb_naming:emitter_pool_name(Store, Long)),
    Use = fun(N) ->
        Name = <<"user-", (integer_to_binary(N))/binary>>,
        {ok, 0} = erl_esdb_streams_writer:append(Store, Name, -1, events(1)),
        {ok, [_]} = erl_esdb_streams_reader:read(Store, Name, 0, 1, forward),
        ok = erl_esdb_schema:register(Store, Name, #{version => 1}),
        ok = erl_esdb_links:create(Store, #{name => Name, source => #{type => all}})
    end,
    Use(0),
    Before = erlang:system_info(atom_count),
    [Use(N) || N <- lists:seq(1, 100)],
    %% The runtime makes some now and then.
    ?assert(erlang:system_info(atom_count) - Before < 50).

%% ---- persistence worker

a_per_01_request(Config) ->
    ?assertEqual(ok, erl_esdb_persistence_worker:request_persistence(store(Config))),
    ?assertEqual({error, not_found}, erl_esdb_persistence_worker:request_persistence(nosuch)).

a_per_02_force(Config) ->
    ?assertEqual(ok, erl_esdb_persistence_worker:force_persistence(store(Config))),
    ?assertEqual({error, not_found}, erl_esdb_persistence_worker:force_persistence(nosuch)).

%% Each store with its events of the persistence worker, told here.
persistence_events(Fun) ->
    Self = self(),
    Handler = fun(Event, Measurements, Metadata, _) ->
        Self ! {told, lists:last(Event), Measurements, Metadata}
    end,
    Events = [
        ?PERSISTENCE_WORKER_STARTED, ?PERSISTENCE_WORKER_CYCLE, ?PERSISTENCE_WORKER_FORCED
    ],
    ok = erl_esdb_telemetry:attach_many(?MODULE, Events, Handler, none),
    try
        Fun()
    after
        ok = erl_esdb_telemetry:detach(?MODULE)
    end.

told(Store, Kind) ->
    receive
        {told, Kind, Measurements, #{store_id := Store} = Metadata} -> {Measurements, Metadata}
    after 60_000 -> error({not_told, Kind})
    end.

a_per_03_interval(_Config) ->
    Interval = fun(Options) ->
        Store = erl_esdb_test:start_store(Options),
        {_, #{persistence_interval := Interval}} = told(Store, started),
        ok = erl_esdb:stop_store(Store),
        Interval
    end,
    persistence_events(fun() ->
        ?assertEqual(5000, Interval(#{})),
        ok = application:set_env(erl_esdb, persistence_interval, 7000),
        ?assertEqual(7000, Interval(#{})),
        ?assertEqual(3000, Interval(#{persistence_interval => 3000}))
    end),
    ?assertEqual(
        {error, {invalid_option, persistence_interval, 0}},
        erl_esdb:start_store(never, #{persistence_interval => 0})
    ).

a_per_04_telemetry(_Config) ->
    persistence_events(fun() ->
        Store = erl_esdb_test:start_store(#{persistence_interval => 100}),
        {#{system_time := _}, Started} = told(Store, started),
        ?assertEqual(#{store_id => Store, persistence_interval => 100}, Started),
        [ok = erl_esdb_persistence_worker:request_persistence(Store) || _ <- [1, 2, 3]],
        {#{duration := _, pending_count := 3}, Cycle} = told(Store, cycle),
        ?assertEqual(#{store_id => Store, result => ok}, Cycle),
        {#{pending_count := 0}, _} = told(Store, cycle),
        ok = erl_esdb_persistence_worker:force_persistence(Store),
        {#{duration := _, pending_count := 0}, #{result := ok}} = told(Store, forced),
        %% The last flush is that of the end.
        ok = erl_esdb_persistence_worker:request_persistence(Store),
        ok = erl_esdb:stop_store(Store),
        {#{pending_count := 1}, #{result := ok}} = told(Store, cycle)
    end).

%% ---- store

a_lif_15_get_leader(Config) ->
    ?assertEqual({ok, node()}, erl_esdb_store:get_leader(store(Config))),
    ?assertEqual({error, not_started}, erl_esdb_store:get_leader(nosuch)).

a_lif_16_get_store(Config) ->
    ?assertEqual(store(Config), erl_esdb_store:get_store(store(Config))),
    ?assertError(badarg, erl_esdb_store:get_store("s")).

a_lif_17_get_info(Config) ->
    Store = store(Config),
    {ok, #{data_dir := Dir} = Info} = erl_esdb_store_mgr:get_info(Store),
    ?assertEqual(#{store_id => Store, mode => single, data_dir => Dir, ready => true}, Info),
    ?assertEqual(maps:is_key(data_dir, erl_esdb_test:options()), Dir =/= undefined),
    ?assertEqual({error, {store_not_started, nosuch}}, erl_esdb_store_mgr:get_info(nosuch)),
    Mgr = whereis(erl_esdb_naming:store_mgr_name(Store)),
    ?assertEqual({error, unknown_request}, gen_server:call(Mgr, unheard_of)).

a_lif_19_facade(Config) ->
    Store = store(Config),
    InMemory = erl_esdb_test:start_store(#{engine => memory}),
    ?assertEqual({error, {not_clustered, InMemory}}, erl_esdb:join_cluster(InMemory)),
    ?assertEqual({error, {not_clustered, InMemory}}, erl_esdb:join_cluster(InMemory, node())),
    ?assertEqual({error, {not_clustered, InMemory}}, erl_esdb:join(InMemory, 'other@host')),
    ?assertEqual({error, {store_not_started, nosuch}}, erl_esdb:join(nosuch, node())),
    ?assertError(badarg, erl_esdb:join(Store, "node")),
    {ok, _} = erl_esdb:start_store(a_store_of_options, #{mode => single, timeout => 1000}),
    ?assert(lists:member(a_store_of_options, erl_esdb:list_stores())),
    ok = erl_esdb:stop_store(a_store_of_options),
    ok = erl_esdb:stop_store(InMemory).
