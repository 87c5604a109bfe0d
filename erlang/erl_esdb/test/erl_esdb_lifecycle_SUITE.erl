-module(erl_esdb_lifecycle_SUITE).
-moduledoc "Stores coming and going, and what configures them.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all() ++ (cases() -- any_engine()).

%% Two start stores from many processes, and count what there is of the node.
groups() ->
    erl_esdb_test:groups(any_engine(), #{
        one_node => [a_lif_05_starts_and_stops_race, a_lif_05_stop_leaves_nothing_behind]
    }).

cases() ->
    [
        F
     || {F, 1} <- ?MODULE:module_info(exports),
        lists:prefix("a_", atom_to_list(F)) orelse lists:prefix("t_", atom_to_list(F))
    ].

%% The others are of the environment, or of what an engine that is memory forgets.
any_engine() ->
    [
        a_lif_02_start_by_record,
        a_lif_04_already_started,
        a_lif_05_starts_and_stops_race,
        a_lif_05_stop_leaves_nothing_behind,
        a_lif_06_which_stores,
        a_lif_10_isolation,
        a_lif_13_names_of_the_tree,
        a_lif_14_is_ready,
        a_lif_18_a_handler_may_start_and_stop_stores,
        a_lif_18_the_teller_may_crash,
        a_timeout_is_an_answer,
        a_mistake_is_no_end_of_the_store,
        a_foreign_messages_leave_the_events,
        a_store_killed_during_a_call
    ].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    _ = application:stop(erl_esdb),
    %% Fresh, without what a case before this one set.
    _ = application:unload(erl_esdb),
    ok = application:load(erl_esdb),
    Config.

end_per_testcase(_Case, _Config) ->
    _ = application:stop(erl_esdb),
    ok.

stores(Stores) -> application:set_env(erl_esdb, stores, Stores).

record(Store) ->
    Options = erl_esdb_test:options(),
    #store_config{
        store_id = Store,
        data_dir = maps:get(data_dir, Options, undefined),
        options = maps:remove(data_dir, Options)
    }.

start(Store) -> erl_esdb_test:start_store(Store, erl_esdb_test:options()).

writes(Store) -> erl_esdb_streams:append(Store, <<"s">>, any, erl_esdb_test:events(1)).

%% ---- configuration

a_cfg_01_given_values(_Config) ->
    stores([
        {a, [
            {data_dir, "/tmp/a"},
            {mode, cluster},
            {timeout, 7},
            {writer_pool_size, 1},
            {reader_pool_size, 2},
            {gateway_pool_size, 3}
        ]}
    ]),
    Expected = #store_config{
        store_id = a,
        data_dir = "/tmp/a",
        mode = cluster,
        timeout = 7,
        writer_pool_size = 1,
        reader_pool_size = 2,
        gateway_pool_size = 3,
        options = #{}
    },
    ?assertEqual({ok, Expected}, erl_esdb_config:get_store_config(a)).

a_cfg_02_unknown_store(_Config) ->
    ?assertEqual({error, not_found}, erl_esdb_config:get_store_config(a)),
    stores([{b, []}]),
    ?assertEqual({error, not_found}, erl_esdb_config:get_store_config(a)).

a_cfg_03_defaults(_Config) ->
    application:set_env(erl_esdb, writer_pool_size, 4),
    stores([{a, []}]),
    {ok, Config} = erl_esdb_config:get_store_config(a),
    ?assertMatch(
        #store_config{
            mode = single,
            timeout = 5000,
            writer_pool_size = 4,
            reader_pool_size = 10,
            gateway_pool_size = 1
        },
        Config
    ).

a_cfg_04_invalid_mode(_Config) ->
    stores([{a, [{mode, foo}]}]),
    ?assertMatch({ok, #store_config{mode = single}}, erl_esdb_config:get_store_config(a)).

a_cfg_05_other_pairs_are_options(_Config) ->
    stores([{a, [{persistence_interval, 9}, {timeout, 7}]}]),
    {ok, Config} = erl_esdb_config:get_store_config(a),
    ?assertEqual(#{persistence_interval => 9}, Config#store_config.options).

a_cfg_06_default_data_dir(_Config) ->
    stores([{a, []}]),
    {ok, Config} = erl_esdb_config:get_store_config(a),
    ?assertEqual("/var/lib/erl_esdb/a", Config#store_config.data_dir).

a_cfg_07_all_configs(_Config) ->
    ?assertEqual([], erl_esdb_config:get_all_store_configs()),
    stores([{a, []}, {b, []}]),
    ?assertMatch(
        [#store_config{store_id = a}, #store_config{store_id = b}],
        erl_esdb_config:get_all_store_configs()
    ).

a_cfg_08_get_env(_Config) ->
    ?assertEqual(5000, erl_esdb_config:get_env(default_timeout, 1)),
    ?assertEqual(1, erl_esdb_config:get_env(none, 1)),
    ?assertEqual(2, erl_esdb_config:get_env(kernel, none, 2)).

a_cfg_unknown_keys_are_refused_by_name(_Config) ->
    application:set_env(erl_esdb, wirter_pool_size, 3),
    ?assertMatch(
        {error, {erl_esdb, {{unknown_config_key, wirter_pool_size}, _}}}, erl_esdb_app:start()
    ).

a_cfg_values_that_cannot_be_are_refused_by_name(_Config) ->
    [
        begin
            application:set_env(erl_esdb, Key, Value),
            ?assertEqual(
                {error, {invalid_option, Key, Value}}, erl_esdb_config:check_environment()
            ),
            application:unset_env(erl_esdb, Key)
        end
     || {Key, Value} <- [
            {default_timeout, soon},
            {writer_pool_size, 0},
            {gateway_pool_size, many},
            {writer_idle_timeout_ms, -1},
            {reader_idle_timeout_ms, 1 bsl 32},
            {persistence_interval, infinity},
            {health_probe_type, guess},
            {health_failure_threshold, 0},
            {consistency_check_interval, 1.5},
            {telemetry_aliases, maybe_later},
            {discovery_port, 65_536},
            {broadcast_interval, 0}
        ]
    ],
    ?assertEqual(ok, erl_esdb_config:check_environment()).

%% T-34: every key of the contract is known, with a value that it can have.
t_34_every_key(_Config) ->
    Values = [
        {stores, []},
        {default_timeout, infinity},
        {writer_pool_size, 1},
        {reader_pool_size, 1},
        {gateway_pool_size, 1},
        {writer_idle_timeout_ms, 60_000},
        {reader_idle_timeout_ms, 60_000},
        {health_probe_interval, 5000},
        {health_probe_timeout, 2000},
        {health_failure_threshold, 3},
        {health_probe_type, ping},
        {consistency_check_interval, 60_000},
        {persistence_interval, 60_000},
        {telemetry_handlers, [logger]},
        {telemetry_aliases, false},
        {discovery, [{method, multicast}]},
        {discovery_port, 45_892},
        {multicast_addr, {239, 255, 0, 1}},
        {broadcast_interval, 5000}
    ],
    [application:set_env(erl_esdb, Key, Value) || {Key, Value} <- Values],
    ?assertMatch({ok, _}, erl_esdb_app:start()).

a_cfg_names_that_leave_no_room(_Config) ->
    Name = fun(Length) -> list_to_atom(lists:duplicate(Length, $s)) end,
    {ok, _} = erl_esdb:start_store(Name(200)),
    {ok, #{ready := true}} = erl_esdb_store_mgr:get_info(Name(200)),
    ?assertEqual({error, {invalid_store, Name(201)}}, erl_esdb:start_store(Name(201))).

a_cfg_the_engine_follows_the_options(_Config) ->
    Engine = fun(Options) -> erl_esdb_config:plan(a, Options) end,
    ?assertMatch({ok, {_, erl_esdb_engine_memory, _}}, Engine(#{})),
    Asked = Engine(#{engine => memory, data_dir => "/d"}),
    ?assertMatch({ok, {_, erl_esdb_engine_memory, _}}, Asked),
    %% Never in memory what was meant for a disk.
    Durable = [#{data_dir => "/var/lib/erl_esdb/a"}, #{mode => cluster}, #{engine => ra}],
    [?assert(is_on_disk(Engine(Options))) || Options <- Durable],
    ?assertEqual({error, {unknown_engine, tape}}, Engine(#{engine => tape})),
    ?assertEqual({error, {invalid_option, max_event_size, 0}}, Engine(#{max_event_size => 0})),
    ?assertEqual({error, {invalid_option, timeout, soon}}, Engine(#{timeout => soon})).

%% Where there is no Ra, such a store does not start.
is_on_disk({ok, {#store_config{data_dir = Dir}, erl_esdb_engine_ra, _}}) ->
    Dir =:= "/var/lib/erl_esdb/a";
is_on_disk({error, {engine_not_available, ra}}) ->
    code:which(ra) =:= non_existing.

a_cfg_timeouts_that_no_call_can_wait(_Config) ->
    Plan = fun(Timeout) -> erl_esdb_config:plan(a, #{timeout => Timeout}) end,
    [?assertMatch({ok, _}, Plan(Timeout)) || Timeout <- [0, 1, 16#FFFFFFFF, infinity]],
    [
        ?assertEqual({error, {invalid_option, timeout, Timeout}}, Plan(Timeout))
     || Timeout <- [-1, 16#100000000, 1 bsl 40, 1.0, never]
    ],
    {ok, _} = erl_esdb_app:start(),
    ?assertMatch({error, {invalid_option, timeout, _}}, erl_esdb:start_store(a, #{timeout => -1})).

a_cfg_options_may_be_a_map(_Config) ->
    stores([{a, #{timeout => 7, max_batch_events => 1}}]),
    ?assertMatch({ok, #store_config{timeout = 7}}, erl_esdb_config:get_store_config(a)),
    {ok, _} = erl_esdb_app:start(),
    ?assertEqual([a], erl_esdb:which_stores()).

a_cfg_malformed_entries_are_refused_by_name(_Config) ->
    [
        begin
            stores(Stores),
            {error, {erl_esdb, {Reason, _}}} = erl_esdb_app:start(),
            ?assertEqual(Expected, Reason)
        end
     || {Stores, Expected} <- [
            {[{s, [debug]}], {invalid_store, {s, [debug]}}},
            {[s], {invalid_store, s}},
            {[{a, []}, {s, [{timeout, 1} | x]}], {invalid_store, {s, [{timeout, 1} | x]}}},
            {[{<<"s">>, []}], {invalid_store, {<<"s">>, []}}},
            {[{undefined, []}], {invalid_store, {undefined, []}}},
            {s, {invalid_option, stores, s}},
            {[{s, #{writer_pool_size => foo}}],
                {store, s, {invalid_option, writer_pool_size, foo}}},
            {[{s, [{data_dir, [a]}]}], {store, s, {invalid_option, data_dir, [a]}}}
        ]
    ],
    stores([]),
    application:set_env(erl_esdb, telemetry_handlers, logger),
    {error, {erl_esdb, {{invalid_option, telemetry_handlers, logger}, _}}} = erl_esdb_app:start().

a_cfg_malformed_records(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    Record = record(a),
    [
        ?assertEqual({error, Expected}, erl_esdb:start_store(Given))
     || {Given, Expected} <- [
            {Record#store_config{options = []}, {invalid_option, options, []}},
            {Record#store_config{store_id = <<"x">>}, {invalid_store, <<"x">>}},
            {Record#store_config{store_id = undefined}, {invalid_store, undefined}},
            {Record#store_config{writer_pool_size = foo}, {invalid_option, writer_pool_size, foo}},
            {Record#store_config{mode = both}, {invalid_option, mode, both}}
        ]
    ],
    ?assertEqual({error, {invalid_store, undefined}}, erl_esdb:start_store(undefined)),
    ?assertEqual([], erl_esdb:which_stores()).

%% Whatever stands in the environment or in a record: an answer of a documented form.
a_cfg_any_configuration_is_answered(_Config) ->
    erl_esdb_test:property(500, ?FORALL(Stores, hostile_stores(), is_answered(Stores))),
    Record = ?LET(
        [Id, Dir, Mode, Time, Pool, Options],
        [oneof([a, any()]), hostile(), hostile(), hostile(), hostile(), oneof([options(), any()])],
        #store_config{
            store_id = Id,
            data_dir = Dir,
            mode = Mode,
            timeout = Time,
            writer_pool_size = Pool,
            options = Options
        }
    ),
    erl_esdb_test:property(500, ?FORALL(R, Record, is_plan(erl_esdb_config:plan(R)))).

is_answered(Stores) ->
    stores(Stores),
    Checked = erl_esdb_config:check_environment(),
    Names = [Name || is_list(Stores), Name <- names(Stores)],
    Plans = [erl_esdb_config:plan(Name) || Name <- Names],
    Configs = [erl_esdb_config:get_store_config(Name) || Name <- Names],
    (Checked =:= ok orelse is_plan(Checked)) andalso
        lists:all(fun is_plan/1, Plans) andalso
        lists:all(fun({Kind, _}) -> Kind =:= ok orelse Checked =/= ok end, Configs) andalso
        is_list(erl_esdb_config:get_all_store_configs()).

names([{Name, _} | Rest]) when is_atom(Name) -> [Name | names(Rest)];
names([_ | Rest]) -> names(Rest);
names(_) -> [].

is_plan({ok, {#store_config{}, Engine, #{timeout := _}}}) ->
    Engine =:= erl_esdb_engine_memory orelse Engine =:= erl_esdb_engine_ra;
is_plan({error, {invalid_option, Key, _}}) -> is_atom(Key);
is_plan({error, {Why, _}}) ->
    lists:member(Why, [invalid_store, engine_not_available, unknown_engine]);
is_plan(_) -> false.

hostile_stores() ->
    Pairs = ?LET(Map, options(), to_list(Map)),
    Entry = frequency([
        {6, {oneof([a, b, undefined, <<"s">>]), oneof([options(), Pairs])}},
        {1, {a, any()}},
        {1, any()}
    ]),
    frequency([{8, list(Entry)}, {1, any()}, {1, ?LET({E, T}, {Entry, any()}, [E | T])}]).

to_list(Map) -> maps:to_list(Map).

options() ->
    Key = oneof([
        engine, data_dir, mode, timeout, writer_pool_size, max_event_size, max_batch_events, other
    ]),
    map(Key, hostile()).

hostile() ->
    oneof([memory, ra, single, cluster, "/tmp/a", undefined, infinity, 1, 7, 1 bsl 32, any()]).

a_cfg_unknown_options_are_told_once(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    ok = logger:add_handler(?FUNCTION_NAME, ?MODULE, #{level => warning, config => self()}),
    stores([{a, [{wirter_pool_size, 1}, {mode, both}]}]),
    {ok, _} = erl_esdb:start_store(a),
    {ok, _} = erl_esdb:start_store(b, #{unheard_of => 1}),
    {ok, _} = erl_esdb:start_store((record(c))#store_config{options = #{rare => 1}}),
    _ = erl_esdb_config:get_all_store_configs(),
    ok = logger:remove_handler(?FUNCTION_NAME),
    ?assertEqual(
        [
            "store a: mode both is not known, single is used",
            "store a: unknown options [wirter_pool_size]",
            "store b: unknown options [unheard_of]",
            "store c: unknown options [rare]"
        ],
        lists:sort(warnings())
    ).

%% A handler of the logger: it runs in the process that logs.
log(#{msg := {Format, Args}}, #{config := Pid}) when is_list(Format), is_list(Args) ->
    Pid ! {warning, lists:flatten(io_lib:format(Format, Args))};
log(_, _) ->
    ok.

warnings() ->
    receive
        {warning, Text} -> [Text | warnings()]
    after 0 -> []
    end.

%% ---- life

a_lif_01_application(_Config) ->
    Runs = fun() -> lists:keymember(erl_esdb, 1, application:which_applications()) end,
    ?assertMatch({ok, _}, erl_esdb_app:start()),
    ?assert(Runs()),
    ?assertEqual(ok, erl_esdb_app:stop()),
    ?assertNot(Runs()).

a_lif_02_start_by_record(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    {ok, Pid} = erl_esdb_sup:start_store(record(a)),
    ?assert(is_pid(Pid)),
    ?assertEqual({ok, 0}, writes(a)).

a_lif_03_unknown_store(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    ?assertEqual({error, not_found}, erl_esdb_sup:start_store(nosuch)).

a_lif_04_already_started(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    {ok, Pid} = erl_esdb_sup:start_store(record(a)),
    ?assertEqual({error, {already_started, Pid}}, erl_esdb_sup:start_store(record(a))),
    ?assertEqual({error, {already_started, Pid}}, start(a)).

a_lif_05_stop_store(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    {ok, _} = erl_esdb_sup:start_store(record(a)),
    ?assertEqual(ok, erl_esdb_sup:stop_store(a)),
    ?assertEqual({error, not_found}, erl_esdb_sup:stop_store(a)),
    ?assertEqual({error, not_found}, erl_esdb:stop_store(nosuch)),
    {ok, _} = erl_esdb_sup:start_store(record(a)),
    ?assertEqual(-1, erl_esdb_streams:get_version(a, <<"s">>)).

a_lif_05_starts_and_stops_race(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    Start = fun() -> [start(a) || _ <- lists:seq(1, 1000)] end,
    Stop = fun() -> [erl_esdb:stop_store(a) || _ <- lists:seq(1, 1000)] end,
    Results = lists:append(erl_esdb_test:concurrently([Start, Stop, Start, Stop, Start, Stop])),
    ?assertEqual([], [Result || Result <- Results, not is_outcome(Result)]),
    _ = erl_esdb:stop_store(a),
    ?assertMatch({ok, _}, start(a)).

is_outcome(ok) -> true;
is_outcome({ok, Pid}) -> is_pid(Pid);
is_outcome({error, {already_started, _}}) -> true;
is_outcome(Result) -> Result =:= {error, not_found}.

%% Not of what was asked of the store either: writers, readers, links, funs.
a_lif_05_stop_leaves_nothing_behind(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    %% What the first store of a node starts stays.
    {ok, _} = start(b),
    ok = erl_esdb:stop_store(b),
    Before = everything(),
    {ok, _} = start(a),
    {ok, 0} = writes(a),
    {ok, 1} = erl_esdb_streams_writer:append(a, <<"s">>, any, erl_esdb_test:events(1)),
    {ok, [_]} = erl_esdb_streams_reader:read(a, <<"s">>, 0, 1, forward),
    Link = #{name => <<"l">>, source => #{type => all}, filter => fun(_) -> true end},
    ok = erl_esdb_links:create(a, Link),
    ok = erl_esdb_links:start(a, <<"l">>),
    ok = erl_esdb_schema:register(a, <<"T">>, #{version => 1, validator => fun(_) -> ok end}),
    ?assertMatch({[_ | _], [_ | _], [_ | _], _, [_ | _]}, left(Before, everything())),
    ok = erl_esdb:stop_store(a),
    erl_esdb_test:await(fun() -> left(Before, everything()) =:= {[], [], [], 0, []} end).

everything() ->
    {
        ets:all(),
        registered(),
        pg:which_groups(erl_esdb_pg),
        maps:get(count, persistent_term:info()),
        [Pid || Pid <- processes(), is_of_store(Pid)]
    }.

%% Processes of other applications come and go.
is_of_store(Pid) ->
    case process_info(Pid, dictionary) of
        {dictionary, Dictionary} ->
            Ancestors = proplists:get_value('$ancestors', Dictionary, []),
            lists:member(erl_esdb_sup, Ancestors);
        undefined ->
            false
    end.

left({Ets0, Names0, Groups0, Terms0, Pids0}, {Ets, Names, Groups, Terms, Pids}) ->
    {Ets -- Ets0, Names -- Names0, Groups -- Groups0, max(0, Terms - Terms0), Pids -- Pids0}.

a_lif_06_which_stores(_Config) ->
    ?assertEqual([], erl_esdb:which_stores()),
    {ok, _} = erl_esdb_app:start(),
    [{ok, _} = start(S) || S <- [c, a, b]],
    ok = erl_esdb:stop_store(b),
    ?assertEqual([a, c], erl_esdb_sup:which_stores()),
    ?assertEqual([a, c], erl_esdb:list_stores()).

a_lif_07_configured_stores(_Config) ->
    stores([{a, []}, {b, [{max_batch_events, 1}]}]),
    {ok, _} = erl_esdb_app:start(),
    ?assertEqual([a, b], erl_esdb:which_stores()),
    Two = erl_esdb_test:events(2),
    ?assertEqual({error, {too_many_events, 2, 1}}, erl_esdb_streams:append(b, <<"s">>, any, Two)).

a_lif_07_a_store_that_does_not_start(_Config) ->
    stores([{a, []}, {b, [{engine, tape}]}]),
    {error, {erl_esdb, {Reason, _}}} = erl_esdb_app:start(),
    ?assertEqual({store, b, {unknown_engine, tape}}, Reason),
    ?assertEqual(undefined, whereis(erl_esdb_sup)),
    %% Nothing stays: no handler either.
    ?assertEqual({error, not_found}, erl_esdb_telemetry:detach_logger()),
    stores([]),
    {ok, _} = erl_esdb_app:start(),
    ?assertEqual(ok, erl_esdb_telemetry:detach_logger()).

a_lif_10_isolation(_Config) ->
    [{ok, _} = start(S) || S <- [a, b]],
    {ok, 0} = writes(a),
    ?assertEqual(-1, erl_esdb_streams:get_version(b, <<"s">>)),
    ?assertEqual({ok, []}, erl_esdb_streams:read_all(b, 0, 9, forward)).

a_lif_11_a_crash_restarts_the_store(_Config) ->
    {ok, _} = erl_esdb:start_store(a),
    {ok, 0} = writes(a),
    exit(erl_esdb_test:orderer(a), kill),
    erl_esdb_test:await(fun() -> element(1, writes(a)) =:= ok end),
    ?assertEqual([a], erl_esdb:which_stores()),
    %% What was in memory is gone, as documented: this is the first event again, or one of few.
    {ok, Events} = erl_esdb_streams:read(a, <<"s">>, 0, 10, forward),
    ?assertMatch([#event{version = 0, position = 0}], Events).

%% Each process of a store, supervisors too: what it was for is there again, and a process that does
%% not keep the events has not taken them along.
a_lif_11_a_crash_of_any_process(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    {ok, _} = erl_esdb:start_store(first),
    Paths = [Path || {Path, _} <- erl_esdb_test:tree(first)],
    ok = erl_esdb:stop_store(first),
    ?assert(lists:member([core_sup, persistence_sup, engine], Paths)),
    ?assert(length(Paths) >= 10),
    [crash(Nth, Path, Paths) || {Nth, Path} <- lists:enumerate(Paths)].

crash(Nth, Path, Paths) ->
    Store = list_to_atom("crash_" ++ integer_to_list(Nth)),
    {ok, _} = erl_esdb:start_store(Store),
    {ok, 0} = writes(Store),
    {_, Victim} = lists:keyfind(Path, 1, erl_esdb_test:tree(Store)),
    exit(Victim, kill),
    %% All there again, and none of them what was killed.
    erl_esdb_test:await(fun() ->
        not is_process_alive(Victim) andalso erl_esdb_store:is_ready(Store) andalso
            [P || {P, _} <- erl_esdb_test:tree(Store)] =:= Paths
    end),
    {ok, Version} = writes(Store),
    Keeps = not lists:prefix(Path, [core_sup, persistence_sup, engine]),
    ?assertEqual({Path, Keeps}, {Path, Version =:= 1}),
    {ok, _} = erl_esdb_streams_writer:append(Store, <<"s">>, any, erl_esdb_test:events(1)),
    {ok, #{ready := true}} = erl_esdb_store_mgr:get_info(Store),
    ok = erl_esdb_persistence_worker:force_persistence(Store),
    {ok, []} = erl_esdb_links:list(Store),
    ok = erl_esdb:stop_store(Store),
    ?assertEqual({error, {store_not_started, Store}}, writes(Store)).

a_lif_13_names_of_the_tree(_Config) ->
    {ok, _} = start(a),
    [
        ?assert(is_pid(whereis(erl_esdb_naming:Name(a))))
     || Name <- [
            system_sup_name,
            core_sup_name,
            persistence_sup_name,
            notification_sup_name,
            streams_sup_name,
            store_mgr_name,
            persistence_worker_name
        ]
    ],
    ?assertEqual(undefined, whereis(erl_esdb_naming:cluster_sup_name(a))),
    ok = erl_esdb:stop_store(a).

%% Not only an engine can be the reason; and it is told then as well.
a_lif_11_giving_up_for_another_reason(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    ok = listen(fun(_, _) -> ok end),
    ok = logger:add_handler(?FUNCTION_NAME, ?MODULE, #{level => error, config => self()}),
    {ok, _} = erl_esdb:start_store(a),
    ?assertMatch({?STORE_STARTED, _, #{store_id := a}}, heard()),
    Name = erl_esdb_naming:notification_sup_name(a),
    Kill = fun() ->
        Pid = whereis(Name),
        exit(Pid, kill),
        erl_esdb_test:await(fun() ->
            not lists:member(whereis(Name), [Pid, undefined]) orelse erl_esdb:which_stores() =:= []
        end)
    end,
    {ok, 0} = writes(a),
    [Kill() || _ <- lists:seq(1, 5)],
    ?assertEqual({ok, 1}, writes(a)),
    Kill(),
    ?assertMatch({?STORE_STOPPED, _, #{store_id := a}}, heard()),
    ?assertMatch({?STORE_GAVE_UP, _, #{store_id := a}}, heard()),
    ok = logger:remove_handler(?FUNCTION_NAME),
    ok = erl_esdb_telemetry:detach(?MODULE),
    ?assertMatch([_], [Line || "store a ended too often" ++ _ = Line <- warnings()]),
    ?assertEqual({error, not_found}, erl_esdb:stop_store(a)),
    {ok, _} = erl_esdb:start_store(a),
    ?assertEqual({ok, 0}, writes(a)).

a_lif_14_is_ready(_Config) ->
    ?assertNot(erl_esdb_store:is_ready(a)),
    {ok, _} = start(a),
    ?assert(erl_esdb_store:is_ready(a)),
    ok = erl_esdb:stop_store(a),
    ?assertNot(erl_esdb_store:is_ready(a)).

a_lif_18_telemetry(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    ok = listen(fun(_, _) -> ok end),
    {ok, _} = erl_esdb:start_store(a, #{engine => memory, data_dir => "/nowhere"}),
    ok = erl_esdb:stop_store(a),
    {?STORE_STARTED, Start, Meta1} = heard(),
    {?STORE_STOPPED, Stop, Meta2} = heard(),
    ok = erl_esdb_telemetry:detach(?MODULE),
    ?assertMatch(#{system_time := _}, Start),
    %% Nothing is written anywhere.
    ?assertEqual(#{store_id => a, mode => single, data_dir => undefined}, Meta1),
    ?assertMatch(#{system_time := _, uptime_ms := Up} when Up >= 0, Stop),
    ?assertEqual(#{store_id => a, reason => shutdown}, Meta2).

a_lif_18_a_handler_may_start_and_stop_stores(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    ok = listen(fun
        (?STORE_STARTED, a) ->
            [a] = erl_esdb:which_stores(),
            {ok, _} = start(b),
            [a, b] = erl_esdb:which_stores(),
            ok = erl_esdb:stop_store(b);
        (?STORE_STOPPED, a) ->
            [] = erl_esdb:which_stores(),
            {ok, _} = start(c),
            {error, not_found} = erl_esdb:stop_store(a);
        (_, _) ->
            ok
    end),
    {ok, _} = start(a),
    ?assertMatch({?STORE_STARTED, _, #{store_id := a}}, heard()),
    ?assertMatch({?STORE_STARTED, _, #{store_id := b}}, heard()),
    ?assertMatch({?STORE_STOPPED, _, #{store_id := b}}, heard()),
    {Micros, ok} = timer:tc(fun() -> erl_esdb:stop_store(a) end),
    ?assertMatch({?STORE_STOPPED, _, #{store_id := a}}, heard()),
    ?assertMatch({?STORE_STARTED, _, #{store_id := c}}, heard()),
    ok = erl_esdb_telemetry:detach(?MODULE),
    ?assert(Micros < 4_000_000),
    ?assertEqual([c], erl_esdb:which_stores()).

%% The handlers are told of each store and of the application, and hold nothing up.
a_lif_18_a_handler_may_call_while_the_application_ends(_Config) ->
    stores([{a, []}, {b, []}]),
    {ok, _} = erl_esdb_app:start(),
    ok = erl_esdb_test:told(),
    ok = listen(fun(_, _) ->
        {error, {not_started, erl_esdb}} = erl_esdb:start_store(c),
        {error, not_found} = erl_esdb:stop_store(c),
        _ = erl_esdb:which_stores()
    end),
    {Micros, ok} = timer:tc(fun() -> erl_esdb_app:stop() end),
    Told = [heard() || _ <- [a, b, application]],
    ok = erl_esdb_telemetry:detach(?MODULE),
    ?assertEqual([?STORE_STOPPED], lists:usort([Event || {Event, _, _} <- Told])),
    Stores = [maps:get(store_id, Metadata, none) || {_, _, Metadata} <- Told],
    ?assertEqual([a, b, none], lists:sort(lists:droplast(Stores)) ++ [lists:last(Stores)]),
    ?assert(Micros < 4_000_000),
    {ok, _} = erl_esdb:start_store(c),
    ?assertEqual([a, b, c], erl_esdb:which_stores()).

%% Nor does what tells of the stores belong to any of them.
a_lif_18_the_teller_may_crash(_Config) ->
    {ok, _} = start(a),
    {ok, 0} = writes(a),
    ok = erl_esdb_test:told(),
    Before = whereis(erl_esdb_lifecycle),
    exit(Before, kill),
    Again = fun() -> not lists:member(whereis(erl_esdb_lifecycle), [Before, undefined]) end,
    ok = erl_esdb_test:await(Again),
    ok = listen(fun(_, _) -> ok end),
    {ok, 1} = writes(a),
    ok = erl_esdb:stop_store(a),
    ?assertMatch({?STORE_STOPPED, #{uptime_ms := _}, #{store_id := a}}, heard()),
    ok = erl_esdb_telemetry:detach(?MODULE).

%% More deaths than any supervisor takes, of one store after the other, beside one that stays.
a_lif_11_a_store_that_gives_up_leaves_the_others(_Config) ->
    {ok, _} = erl_esdb:start_store(healthy),
    {ok, 0} = writes(healthy),
    ok = erl_esdb_test:told(),
    ok = listen(fun(_, _) -> ok end),
    ok = logger:add_handler(?FUNCTION_NAME, ?MODULE, #{level => error, config => self()}),
    Names = [list_to_atom("crashing_" ++ integer_to_list(N)) || N <- lists:seq(1, 12)],
    [ok = give_up(Name) || Name <- Names],
    ok = logger:remove_handler(?FUNCTION_NAME),
    ok = erl_esdb_telemetry:detach(?MODULE),
    Lines = [Line || "store crashing_1 ended too often" ++ _ = Line <- warnings()],
    ?assertEqual(
        ["store crashing_1 ended too often and is not started again; the last time: killed"], Lines
    ),
    ?assertEqual([healthy], erl_esdb:which_stores()),
    ?assertEqual({ok, 1}, writes(healthy)),
    %% It may be started again, and stopped as any other.
    {ok, _} = erl_esdb:start_store(crashing_1),
    {ok, 0} = writes(crashing_1),
    ok = erl_esdb:stop_store(crashing_1).

%% Started and ended six times, and given up.
give_up(Store) ->
    {ok, _} = erl_esdb:start_store(Store),
    [
        begin
            ?assertMatch({?STORE_STARTED, _, #{store_id := Store}}, heard()),
            exit(erl_esdb_test:orderer(Store), kill),
            ?assertMatch({?STORE_STOPPED, _, #{store_id := Store, reason := killed}}, heard())
        end
     || _ <- lists:seq(1, 6)
    ],
    ?assertMatch(
        {?STORE_GAVE_UP, #{system_time := _}, #{store_id := Store, reason := killed}}, heard()
    ),
    ?assertNot(lists:member(Store, erl_esdb:which_stores())),
    ?assertEqual({error, {store_not_started, Store}}, writes(Store)),
    ?assertEqual({error, not_found}, erl_esdb:stop_store(Store)),
    ok.

%% Has each event of stores sent here after the fun was run on it, in the process that tells.
listen(Fun) ->
    Self = self(),
    Handler = fun(Event, Measurements, Metadata, _) ->
        _ = Fun(Event, maps:get(store_id, Metadata, none)),
        Self ! {heard, {Event, Measurements, Metadata}}
    end,
    Events = [?STORE_STARTED, ?STORE_STOPPED, ?STORE_GAVE_UP],
    erl_esdb_telemetry:attach_many(?MODULE, Events, Handler, none).

heard() ->
    receive
        {heard, Event} -> Event
    after 60_000 -> error(nothing_heard)
    end.

a_start_store_with_options(_Config) ->
    {ok, _} = erl_esdb:start_store(a, #{engine => memory, max_event_size => 100}),
    {error, {event_too_large, _, 100}} =
        erl_esdb_streams:append(a, <<"s">>, any, [
            #{event_type => <<"T">>, data => binary:copy(<<0>>, 100)}
        ]),
    {ok, _} = erl_esdb:start_store(record(b)),
    ?assertEqual({error, {unknown_engine, tape}}, erl_esdb:start_store(c, #{engine => tape})),
    ?assertError(badarg, erl_esdb:start_store("name", #{})).

a_misuse(_Config) ->
    {ok, _} = erl_esdb_app:start(),
    [
        ?assertError(badarg, Misuse())
     || Misuse <- [
            fun() -> erl_esdb:start_store("x") end,
            fun() -> erl_esdb:start_store(x, []) end,
            fun() -> erl_esdb:stop_store("x") end,
            fun() -> erl_esdb_sup:start_store("x") end,
            fun() -> erl_esdb_sup:start_store("x", #{}) end,
            fun() -> erl_esdb_sup:start_store(x, []) end,
            fun() -> erl_esdb_sup:stop_store("x") end
        ]
    ],
    ?assertEqual([], erl_esdb:which_stores()).

a_timeout_is_an_answer(_Config) ->
    {ok, _} = start(a),
    Engine = erl_esdb_test:orderer(a),
    ok = sys:suspend(Engine),
    Append = fun() ->
        erl_esdb_streams:append(a, <<"s">>, any, erl_esdb_test:events(1), #{timeout => 20})
    end,
    ?assertEqual({error, {timeout, a}}, Append()),
    ok = sys:resume(Engine),
    %% The answer that came too late is nobody's message.
    {ok, _} = writes(a),
    ?assertEqual({messages, []}, process_info(self(), messages)).

%% A call with a timeout that no receive takes has sent its command: no answer may deny it.
a_mistake_is_no_end_of_the_store(_Config) ->
    {ok, _} = start(a),
    {ok, Engine, Handle, _} = erl_esdb_engine:find(a),
    Raised =
        try
            Engine:command(Handle, {put_document, {d, 1}, <<>>}, 1 bsl 40)
        catch
            Class:_ -> Class
        end,
    ?assert(Raised =:= exit orelse Raised =:= {ok, 1}).

%% Only its process has the events of a store: nothing that reaches it may end it.
a_foreign_messages_leave_the_events(_Config) ->
    {ok, _} = start(a),
    {ok, 0} = writes(a),
    Engine = erl_esdb_test:engine(a),
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, debug),
    ok = logger:add_handler(?FUNCTION_NAME, ?MODULE, #{level => debug, config => self()}),
    Property = ?FORALL(
        Message,
        foreign(),
        begin
            ok = gen_server:cast(Engine, Message),
            Engine ! Message,
            {error, unknown_request} =:= gen_server:call(Engine, Message)
        end
    ),
    try
        erl_esdb_test:property(300, Property),
        Engine ! ?FUNCTION_NAME,
        {error, unknown_request} = gen_server:call(Engine, last)
    after
        ok = logger:remove_handler(?FUNCTION_NAME),
        ok = logger:set_primary_config(level, Level)
    end,
    ?assert(lists:member("store a: ignored " ++ atom_to_list(?FUNCTION_NAME), warnings())),
    ?assertEqual(Engine, erl_esdb_test:engine(a)),
    ?assertEqual({ok, 1}, writes(a)).

%% Anything, and commands with a part that is wrong.
foreign() ->
    Summary = #{count => 1, epoch_us => 0},
    oneof([
        any(),
        nonsense,
        {append, <<"s">>, -2, <<>>, #{}},
        {append, <<"s">>, -2, <<>>, #{count => -1, epoch_us => 0}},
        {append, stream, -2, <<>>, Summary},
        {append, <<"s">>, any, <<>>, Summary},
        {append, <<"s">>, -2, [], Summary},
        {append, <<"s">>, -2, <<>>, Summary#{epoch_us => now}},
        {truncate, <<"s">>, -1},
        {truncate, "s", 1},
        {delete, s},
        {put_document, key, <<>>},
        {put_document, {key}, body},
        {delete_document, key},
        {'EXIT', self(), some_reason},
        {make_ref(), late_answer}
    ]).

a_store_killed_during_a_call(_Config) ->
    {ok, _} = start(a),
    Engine = erl_esdb_test:orderer(a),
    ok = sys:suspend(Engine),
    Waiting = fun() -> erl_esdb_test:calls(Engine) =:= 1 end,
    Kill = fun() -> erl_esdb_test:await(Waiting), exit(Engine, kill) end,
    Results = erl_esdb_test:concurrently([fun() -> writes(a) end, Kill]),
    %% Where nothing is lost with it, the call goes on with the next one.
    Expected =
        case is_map_key(data_dir, erl_esdb_test:options()) of
            true -> {ok, 0};
            false -> {error, {store_not_started, a}}
        end,
    ?assertEqual([Expected, true], Results).

a_worker_that_crashes_fails_its_case(_Config) ->
    Forever = fun() -> receive never -> ok end end,
    Crashes = fun() -> exit(on_purpose) end,
    ?assertError({worker, on_purpose}, erl_esdb_test:concurrently([Crashes, Forever])).

a_headers_of_clients(_Config) ->
    Dir = code:lib_dir(erl_esdb_gater),
    Headers = ["esdb_gater_types.hrl", "esdb_gater.hrl", "esdb_capability_types.hrl"],
    Includes = [["-include_lib(\"erl_esdb_gater/include/", H, "\").\n"] || H <- Headers],
    File = filename:join(filename:dirname(Dir), "headers_of_clients.erl"),
    Uses = "all() -> [#event{}, #capability{}, #gater_config{}, ?ACTION_ALL, ?NO_STREAM].\n",
    Module = "-module(headers_of_clients).\n-export([all/0]).\n",
    ok = file:write_file(File, [Module, Includes, Uses]),
    Result = compile:file(File, [binary, return]),
    ok = file:delete(File),
    {ok, headers_of_clients, Code, []} = Result,
    {module, M} = code:load_binary(headers_of_clients, File, Code),
    [Event, Capability, Gater, <<"*">>, -1] = M:all(),
    ?assertEqual(15, tuple_size(Event)),
    ?assertEqual(13, tuple_size(Capability)),
    ?assertEqual({<<"EdDSA">>, <<"UCAN">>}, {element(2, Capability), element(3, Capability)}),
    ?assertMatch({gater_config, _, {retry_config, 100, 30000, 10}, 1}, Gater).
