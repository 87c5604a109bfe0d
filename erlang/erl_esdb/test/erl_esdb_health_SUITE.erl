-module(erl_esdb_health_SUITE).
-moduledoc "Whether the other members of a cluster live.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_nodes, [call/4, name/1]).
-import(erl_esdb_test, [await/1]).

-define(PROBER, erl_esdb_health_prober).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_hlt_01_defaults_from_the_environment,
        a_hlt_02_unknown_node,
        a_hlt_03_nobody_else,
        a_hlt_04_probe_now,
        a_hlt_05_suspect_then_failed,
        a_hlt_06_recovered,
        a_hlt_07_callbacks,
        a_hlt_08_configure,
        a_hlt_09_health_check,
        a_hlt_10_types_of_probes,
        a_hlt_11_nodedown,
        b_members_are_asked,
        b_by_itself_in_mode_cluster,
        b_no_prober
    ].

init_per_suite(Config) -> erl_esdb_nodes:init_per_suite(Config).

end_per_suite(Config) -> erl_esdb_nodes:end_per_suite(Config).

end_per_testcase(_, _) -> lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()).

%% A prober without timer and store: it asks when it is told to.
started() ->
    {ok, Pid} = ?PROBER:start_link(#store_config{store_id = shop}),
    Pid.

%% A round, and what came of it.
probed() -> probed(shop).

probed(Store) ->
    Id = make_ref(),
    ok = erl_esdb_test:collect(Id, Store, [?HEALTH_PROBE_COMPLETE]),
    ok = ?PROBER:probe_now(Store),
    receive
        {Id, _, Measurements, _} ->
            ok = erl_esdb_test:release(Id),
            Measurements
    end.

%% Of two named nodes the first probes the second.
with_peers(Fun) ->
    [A, B] = erl_esdb_nodes:start(2),
    try
        {ok, _} = call(A, ?PROBER, start_link, [#store_config{store_id = shop}]),
        Events = [?HEALTH_PROBE_COMPLETE, ?HEALTH_NODE_FAILED, ?HEALTH_NODE_RECOVERED],
        ok = erl_esdb_nodes:collect(A, Events),
        ok = erl_esdb_nodes:connect(A, B),
        Fun(A, B)
    after
        erl_esdb_nodes:stop([A, B])
    end.

rounds(A) -> [M || {?HEALTH_PROBE_COMPLETE, M, _} <- erl_esdb_nodes:collected(A)].

told(A) ->
    [{E, M, Meta} || {E, M, Meta} <- erl_esdb_nodes:collected(A), E =/= ?HEALTH_PROBE_COMPLETE].

round_at(A) ->
    Before = length(rounds(A)),
    ok = call(A, ?PROBER, probe_now, [shop]),
    await(fun() -> length(rounds(A)) > Before end).

status(A, B) -> call(A, ?PROBER, get_node_status, [shop, name(B)]).

configure(A, Config) -> call(A, ?PROBER, configure, [shop, Config]).

a_hlt_01_defaults_from_the_environment(_) ->
    Pid = started(),
    Config = fun() -> element(4, sys:get_state(erl_esdb_naming:health_prober_name(shop))) end,
    ?assertEqual(
        #{probe_interval => 2000, probe_timeout => 1000, failure_threshold => 3, probe_type => rpc},
        Config()
    ),
    ok = gen_server:stop(Pid),
    Given = #{
        health_probe_interval => 11,
        health_probe_timeout => 12,
        health_failure_threshold => 13,
        health_probe_type => ping
    },
    [application:set_env(erl_esdb, Key, Value) || Key := Value <- Given],
    _ = started(),
    ?assertEqual(
        #{probe_interval => 11, probe_timeout => 12, failure_threshold => 13, probe_type => ping},
        Config()
    ),
    [application:unset_env(erl_esdb, Key) || Key <- maps:keys(Given)].

a_hlt_02_unknown_node(_) ->
    _ = started(),
    Unknown = {error, unknown_node},
    ?assertEqual(Unknown, ?PROBER:get_node_status(shop, 'another@127.0.0.1')),
    ?assertEqual(Unknown, ?PROBER:get_node_status(shop, node())).

a_hlt_03_nobody_else(_) ->
    {ok, _} = erl_esdb:start_store(a, erl_esdb_nodes:options()),
    ?assertEqual(#{}, ?PROBER:get_all_status(a)),
    ?assertMatch(#{success_count := 0, failure_count := 0}, probed(a)),
    ?assertEqual(#{}, ?PROBER:get_all_status(a)).

a_hlt_04_probe_now(_) ->
    _ = started(),
    ?assertMatch(#{duration_us := D, success_count := 0, failure_count := 0} when D >= 0, probed()),
    with_peers(fun(A, B) ->
        ?assertEqual({ok, unknown}, status(A, B)),
        ok = round_at(A),
        ?assertEqual({ok, healthy}, status(A, B)),
        ?assertEqual(#{name(B) => healthy}, call(A, ?PROBER, get_all_status, [shop])),
        ?assertMatch([#{success_count := 1, failure_count := 0}], rounds(A))
    end).

%% Its application does not answer, but the node is connected.
a_hlt_05_suspect_then_failed(_) ->
    with_peers(fun(A, B) ->
        ok = configure(A, #{probe_type => deep, failure_threshold => 3}),
        States = [
            begin
                ok = round_at(A),
                {ok, Status} = status(A, B),
                Status
            end
         || _ <- lists:seq(1, 4)
        ],
        ?assertEqual([suspect, suspect, failed, failed], States),
        Node = name(B),
        ?assertMatch(
            [
                {?HEALTH_NODE_FAILED, #{system_time := _, consecutive_failures := 3}, #{
                    store_id := shop, node := Node
                }}
            ],
            told(A)
        )
    end).

a_hlt_06_recovered(_) ->
    with_peers(fun(A, B) ->
        ok = configure(A, #{probe_type => deep, failure_threshold => 1}),
        ok = call(A, ?MODULE, remember, [on_node_recovered]),
        ok = round_at(A),
        ?assertEqual({ok, failed}, status(A, B)),
        ok = erl_esdb_nodes:start_store(B, shop, #{}),
        ok = round_at(A),
        ?assertEqual({ok, healthy}, status(A, B)),
        Node = name(B),
        ?assertMatch(
            [
                {?HEALTH_NODE_FAILED, _, _},
                {?HEALTH_NODE_RECOVERED, #{system_time := _}, #{node := Node}}
            ],
            told(A)
        ),
        await(fun() -> called(A) =:= [{on_node_recovered, Node}] end)
    end).

%% Callbacks, which run there, put what they are called with into the application's environment.
remember(When) ->
    {ok, Ref} = remembering(When, When),
    true = is_reference(Ref),
    ok.

remembering(When, What) ->
    {ok, ?PROBER:When(shop, fun(Node) ->
        application:set_env(erl_esdb_gater, {called, What}, Node)
    end)}.

called(A) ->
    Env = call(A, application, get_all_env, [erl_esdb_gater]),
    lists:sort([{What, Node} || {{called, What}, Node} <- Env]).

a_hlt_07_callbacks(_) ->
    with_peers(fun(A, B) ->
        ok = configure(A, #{probe_type => deep, failure_threshold => 1}),
        {ok, _} = call(A, ?MODULE, remembering, [on_node_failed, kept]),
        {ok, Removed} = call(A, ?MODULE, remembering, [on_node_failed, removed]),
        {ok, _} = call(A, ?MODULE, remembering, [on_node_recovered, not_yet]),
        ok = call(A, ?PROBER, remove_callback, [shop, Removed]),
        ?assertEqual(ok, call(A, ?PROBER, remove_callback, [shop, make_ref()])),
        {ok, _} = call(A, ?MODULE, crashing, []),
        ok = round_at(A),
        await(fun() -> called(A) =:= [{kept, name(B)}] end),
        ok = round_at(A),
        ?assertEqual({ok, failed}, status(A, B))
    end).

crashing() -> {ok, ?PROBER:on_node_failed(shop, fun(_) -> error(crash) end)}.

a_hlt_08_configure(_) ->
    Pid = started(),
    ?assertEqual(ok, ?PROBER:configure(shop, #{failure_threshold => 1})),
    ?assertMatch(
        #{failure_threshold := 1, probe_interval := 2000, probe_type := rpc},
        element(4, sys:get_state(Pid))
    ),
    [
        ?assertEqual({error, {invalid_option, Key, V}}, ?PROBER:configure(shop, #{Key => V}))
     || {Key, V} <- [
            {failure_threshold, 0}, {probe_interval, 0}, {probe_timeout, x}, {probe_type, x}, {a, b}
        ]
    ].

a_hlt_09_health_check(_) ->
    Node = node(),
    {ok, Map} = ?PROBER:health_check('another@127.0.0.1'),
    ?assertMatch(
        #{
            node := Node,
            caller := 'another@127.0.0.1',
            timestamp := T,
            memory := M,
            process_count := P
        } when T > 1_700_000_000_000 andalso M > 0 andalso P > 0,
        Map
    ),
    ?assertEqual(5, map_size(Map)).

a_hlt_10_types_of_probes(_) ->
    with_peers(fun(A, B) ->
        %% Nothing is asked of the store, which is not there.
        [
            begin
                ok = configure(A, #{probe_type => Type, failure_threshold => 1}),
                ok = round_at(A),
                ?assertEqual({Type, {ok, Status}}, {Type, status(A, B)})
            end
         || {Type, Status} <- [{ping, healthy}, {rpc, healthy}, {khepri, failed}, {deep, failed}]
        ],
        ok = erl_esdb_nodes:start_store(B, shop, #{}),
        ok = round_at(A),
        ?assertEqual({ok, healthy}, status(A, B))
    end).

a_hlt_11_nodedown(_) ->
    with_peers(fun(A, B) ->
        ok = round_at(A),
        ok = erl_esdb_nodes:kill(B),
        await(fun() -> status(A, B) =:= {ok, failed} end),
        ?assertMatch([{?HEALTH_NODE_FAILED, #{consecutive_failures := 1}, _}], told(A)),
        %% It is back, and a prober that lost it finds it healthy.
        B1 = erl_esdb_nodes:restart(B),
        ok = erl_esdb_nodes:connect(A, B1),
        ok = round_at(A),
        ?assertEqual({ok, healthy}, status(A, B1)),
        ?assertMatch([_, {?HEALTH_NODE_RECOVERED, _, _}], told(A)),
        ok = erl_esdb_nodes:stop([B1])
    end).

%% A member that is gone is asked; a connected node that is no member is not.
b_members_are_asked(_) ->
    [A, B, C] = erl_esdb_nodes:start(3),
    Options = erl_esdb_nodes:options(),
    [erl_esdb_nodes:start_fake(P, shop, Options) || P <- [A, B]],
    [erl_esdb_nodes:connect(A, P) || P <- [B, C]],
    await(fun() -> call(B, erl_esdb, members, [shop]) =:= {ok, [name(A), name(B)]} end),
    All = fun() -> call(A, ?PROBER, get_all_status, [shop]) end,
    ok = call(A, ?PROBER, probe_now, [shop]),
    await(fun() -> All() =:= #{name(B) => healthy} end),
    %% Who hangs does not answer in time.
    ok = configure(A, #{failure_threshold => 1, probe_timeout => 200}),
    Os = call(B, os, getpid, []),
    Becomes = fun(Status) ->
        await(fun() ->
            ok = call(A, ?PROBER, probe_now, [shop]),
            All() =:= #{name(B) => Status}
        end)
    end,
    [] = os:cmd("kill -STOP " ++ Os),
    ok = Becomes(failed),
    [] = os:cmd("kill -CONT " ++ Os),
    ok = Becomes(healthy),
    ok = erl_esdb_nodes:stop([A, B, C]).

b_by_itself_in_mode_cluster(_) ->
    ok = application:set_env(erl_esdb, health_probe_interval, 10),
    {ok, _} = erl_esdb:start_store(a, erl_esdb_nodes:options()),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, a, [?HEALTH_PROBE_COMPLETE]),
    [receive {?FUNCTION_NAME, _, _, _} -> ok end || _ <- lists:seq(1, 3)],
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    ok = application:unset_env(erl_esdb, health_probe_interval).

b_no_prober(_) ->
    None = {error, {store_not_started, nosuch}},
    ?assertEqual(None, ?PROBER:get_node_status(nosuch, node())),
    ?assertEqual(None, ?PROBER:get_all_status(nosuch)),
    ?assertEqual(None, ?PROBER:configure(nosuch, #{})),
    ?assertEqual(None, ?PROBER:on_node_failed(nosuch, fun(_) -> ok end)),
    ?assertEqual(None, ?PROBER:remove_callback(nosuch, make_ref())),
    ?assertEqual(ok, ?PROBER:probe_now(nosuch)).
