-module(erl_esdb_cluster_SUITE).
-moduledoc """
The nodes of a store: who they are, how they join, who watches them. Stores of several nodes run on
the engine of the tests (`erl_esdb_engine_fake`).
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_nodes, [call/4, name/1, start_fake/3, start_store/3]).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        b_a_store_in_memory_has_one_member,
        b_an_unknown_store,
        a_lif_13_the_processes_of_a_cluster,
        b_a_crash_of_any_process_of_a_cluster,
        b_join_cluster_of_the_facade,
        a_crd_01_no_nodes,
        a_crd_02_a_peer_with_the_store,
        a_crd_03_no_store_anywhere,
        a_crd_04_join_a_node,
        a_crd_05_should_handle_nodeup,
        a_crd_06_members_and_leader,
        b_two_that_are_alone_join_by_themselves,
        b_three_on_disk_join_by_themselves,
        b_the_larger_cluster_is_joined,
        b_who_waits_looks_again,
        b_a_store_that_starts_later,
        b_what_is_refused_is_tried_again,
        b_leave_and_force_remove,
        b_the_leader_is_asked_wherever_it_is,
        b_a_new_leader_is_waited_for,
        b_watchers_are_told_of_the_leader,
        b_a_word_that_was_lost,
        a_nmn_01_alive_without_a_store,
        a_nmn_02_node_up_and_down,
        a_nmn_03_activates_the_leader,
        a_nmn_04_get_members,
        b_another_leader_is_told
    ].

init_per_suite(Config) -> erl_esdb_nodes:init_per_suite(Config).

end_per_suite(Config) -> erl_esdb_nodes:end_per_suite(Config).

end_per_testcase(_, _) -> lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()).

with_nodes(Count, Fun) ->
    Peers = erl_esdb_nodes:start(Count),
    try
        Fun(Peers)
    after
        erl_esdb_nodes:stop(Peers)
    end.

await(Fun) -> erl_esdb_test:await(Fun).

members(Peer, Store) -> call(Peer, erl_esdb, members, [Store]).

%% ---- one node

b_a_store_in_memory_has_one_member(_) ->
    Store = erl_esdb_test:start_store(#{engine => memory}),
    {ok, 1} = erl_esdb_streams:append(Store, ~"s", -1, erl_esdb_test:events(2)),
    ?assertEqual({ok, [node()]}, erl_esdb:members(Store)),
    ?assertEqual({ok, node()}, erl_esdb:leader(Store)),
    ?assertMatch(
        {ok, #{role := leader, term := 0, commit_index := 2, last_applied := 2}},
        erl_esdb_cluster:view(Store)
    ),
    ?assert(erl_esdb_cluster:is_leading(Store)),
    Refused = {error, {not_clustered, Store}},
    ?assertEqual(Refused, erl_esdb:join(Store, 'another@127.0.0.1')),
    ?assertEqual(Refused, erl_esdb:leave(Store)),
    ?assertEqual(Refused, erl_esdb:transfer_leadership(Store, node())),
    ?assertEqual(Refused, erl_esdb:force_remove(Store, 'another@127.0.0.1')).

b_an_unknown_store(_) ->
    Unknown = {error, {store_not_started, nosuch}},
    ?assertEqual(Unknown, erl_esdb:members(nosuch)),
    ?assertEqual(Unknown, erl_esdb:leader(nosuch)),
    ?assertEqual(Unknown, erl_esdb:join(nosuch, node())),
    ?assertEqual(Unknown, erl_esdb:leave(nosuch)),
    ?assertEqual(undefined, erl_esdb_cluster:watch_leader(nosuch)),
    ?assertEqual(Unknown, erl_esdb_cluster:at_leader(nosuch, {erlang, node, []}, #{})).

a_lif_13_the_processes_of_a_cluster(_) ->
    {ok, _} = erl_esdb:start_store(single, #{}),
    {ok, _} = erl_esdb:start_store(many, erl_esdb_nodes:options()),
    Everywhere = [leader_sup_name, leader_name, leader_tracker_name, leader_watch_name],
    Cluster = [
        cluster_sup_name,
        discovery_name,
        coordinator_name,
        node_monitor_name,
        health_prober_name,
        consistency_checker_name
    ],
    Is = fun(Name, Store) -> is_pid(whereis(erl_esdb_naming:Name(Store))) end,
    [?assertEqual({Name, true}, {Name, Is(Name, many)}) || Name <- Everywhere ++ Cluster],
    [?assertEqual({Name, true}, {Name, Is(Name, single)}) || Name <- Everywhere],
    [?assertEqual({Name, false}, {Name, Is(Name, single)}) || Name <- Cluster].

%% What is outside of the core takes no event along when it ends.
b_a_crash_of_any_process_of_a_cluster(_) ->
    Store = erl_esdb_test:start_store(erl_esdb_nodes:options()),
    {ok, 0} = erl_esdb_streams:append(Store, ~"s", -1, erl_esdb_test:events(1)),
    %% It has made what a leader makes, emitters among it.
    await(fun() -> erl_esdb_leader:is_active(Store) end),
    ok = erl_esdb_leader:activate(Store),
    Paths = [Path || {Path, _} <- erl_esdb_test:tree(Store)],
    Outside = [Path || [Top | _] = Path <- Paths, Top =:= cluster_sup],
    ?assertEqual(6, length(Outside)),
    [
        begin
            {_, Victim} = lists:keyfind(Path, 1, erl_esdb_test:tree(Store)),
            exit(Victim, kill),
            await(fun() ->
                {_, New} = lists:keyfind(Path, 1, erl_esdb_test:tree(Store) ++ [{Path, Victim}]),
                New =/= Victim andalso [P || {P, _} <- erl_esdb_test:tree(Store)] =:= Paths
            end)
        end
     || Path <- lists:sublist(Outside, 5)
    ],
    ?assertMatch({ok, [_]}, erl_esdb_streams:read(Store, ~"s", 0, 10, forward)).

b_join_cluster_of_the_facade(_) ->
    {ok, _} = erl_esdb:start_store(a, #{}),
    ?assertEqual({error, {not_clustered, a}}, erl_esdb:join_cluster(a)),
    ?assertEqual({error, {store_not_started, nosuch}}, erl_esdb:join_cluster(nosuch)),
    with_nodes(2, fun([A, B]) ->
        [start_fake(P, shop, #{}) || P <- [A, B]],
        ?assertEqual(no_nodes, call(A, erl_esdb, join_cluster, [shop])),
        ok = erl_esdb_nodes:connect(A, B),
        ?assertEqual(ok, call(B, erl_esdb, join_cluster, [shop])),
        ?assertEqual({ok, [name(A), name(B)]}, members(A, shop))
    end).

%% ---- joining

a_crd_01_no_nodes(_) ->
    {ok, _} = erl_esdb:start_store(a, erl_esdb_nodes:options()),
    ?assertEqual(no_nodes, erl_esdb_store_coordinator:join_cluster(a)),
    with_nodes(1, fun([A]) ->
        ok = start_fake(A, shop, erl_esdb_nodes:options()),
        ?assertEqual(no_nodes, call(A, erl_esdb_store_coordinator, join_cluster, [shop]))
    end).

a_crd_02_a_peer_with_the_store(_) ->
    with_nodes(2, fun([A, B]) ->
        [start_fake(P, shop, #{}) || P <- [A, B]],
        ok = erl_esdb_nodes:connect(A, B),
        %% Who is asked to joins, also where it has the lower name.
        ?assertEqual(ok, call(A, erl_esdb_store_coordinator, join_cluster, [shop])),
        Both = {ok, [{shop, name(A)}, {shop, name(B)}]},
        [?assertEqual(Both, call(P, erl_esdb_store_coordinator, members, [shop])) || P <- [A, B]],
        ?assertEqual(ok, call(A, erl_esdb_store_coordinator, join_cluster, [shop])),
        %% A store that lives on one node cannot.
        [start_store(P, memory, #{}) || P <- [A, B]],
        ?assertEqual(failed, call(A, erl_esdb_store_coordinator, join_cluster, [memory]))
    end).

a_crd_03_no_store_anywhere(_) ->
    with_nodes(3, fun([A, B, C]) ->
        Config = #store_config{store_id = shop, mode = cluster},
        [erl_esdb_nodes:connect(X, Y) || {X, Y} <- [{A, B}, {B, C}, {A, C}]],
        [{ok, _} = call(P, erl_esdb_store_coordinator, start_link, [Config]) || P <- [A, B, C]],
        ?assertEqual(
            [coordinator, waiting, waiting],
            [call(P, erl_esdb_store_coordinator, join_cluster, [shop]) || P <- [A, B, C]]
        )
    end).

a_crd_04_join_a_node(_) ->
    with_nodes(2, fun([A, B]) ->
        [start_fake(P, shop, #{}) || P <- [A, B]],
        ?assertMatch(
            {error, _},
            call(A, erl_esdb_store_coordinator, join_cluster, [shop, 'nobody@127.0.0.1'])
        ),
        %% The node is connected by that.
        ?assertEqual(ok, call(A, erl_esdb_store_coordinator, join_cluster, [shop, name(B)])),
        ?assertEqual({ok, [name(A), name(B)]}, members(B, shop)),
        ?assertEqual(
            {error, {store_not_started, nosuch}},
            call(A, erl_esdb_store_coordinator, join_cluster, [nosuch, name(B)])
        )
    end).

a_crd_05_should_handle_nodeup(_) ->
    with_nodes(2, fun([A, B]) ->
        [start_fake(P, shop, #{}) || P <- [A, B]],
        Should = fun() -> call(A, erl_esdb_store_coordinator, should_handle_nodeup, [shop]) end,
        ?assert(Should()),
        ok = call(A, erl_esdb, join, [shop, name(B)]),
        ?assertNot(Should()),
        ?assert(erl_esdb_store_coordinator:should_handle_nodeup(nosuch))
    end).

a_crd_06_members_and_leader(_) ->
    {ok, _} = erl_esdb:start_store(a, #{}),
    ?assertEqual({ok, [{a, node()}]}, erl_esdb_store_coordinator:members(a)),
    ?assertEqual({ok, node()}, erl_esdb_store_coordinator:leader(a)),
    ?assert(erl_esdb_store_coordinator:is_leader(a)),
    ok = erl_esdb:stop_store(a),
    ?assertEqual({error, no_leader}, erl_esdb_store_coordinator:leader(a)),
    ?assertEqual({error, {store_not_started, a}}, erl_esdb_store_coordinator:members(a)),
    ?assertNot(erl_esdb_store_coordinator:is_leader(a)).

b_two_that_are_alone_join_by_themselves(_) ->
    with_nodes(2, fun([A, B]) ->
        [start_fake(P, shop, erl_esdb_nodes:options()) || P <- [A, B]],
        ok = erl_esdb_nodes:connect(B, A),
        Both = {ok, [name(A), name(B)]},
        await(fun() -> [members(P, shop) || P <- [A, B]] =:= [Both, Both] end),
        %% The node with the lower name kept what it had.
        ?assertEqual({ok, name(A)}, call(B, erl_esdb, leader, [shop]))
    end).

%% And the one that is killed comes back as a member.
b_three_on_disk_join_by_themselves(Config) ->
    case lists:member(ra, erl_esdb_test:engines()) of
        true -> three_on_disk(filename:join(proplists:get_value(priv_dir, Config), "disk"));
        false -> {comment, "there is no Ra"}
    end.

three_on_disk(Folder) ->
    with_nodes(3, fun([A, B, C] = Peers) ->
        Options = #{mode => cluster, folder => Folder},
        Start = fun(P) -> ok = erl_esdb_nodes:start_on(ra, P, shop, Options) end,
        lists:foreach(Start, Peers),
        [erl_esdb_nodes:connect(X, Y) || {X, Y} <- [{C, B}, {B, A}, {A, C}]],
        All = {ok, [name(P) || P <- Peers]},
        await(fun() -> [] =:= [P || P <- Peers, members(P, shop) =/= All] end),
        %% Now it is more than one, and what a leader makes is made.
        await(fun() -> [] =/= [P || P <- Peers, call(P, erl_esdb_leader, is_active, [shop])] end),
        {ok, [#subscription{}]} = call(A, erl_esdb_subscriptions, list, [shop]),
        {ok, 2} = call(C, erl_esdb_streams, append, [shop, ~"s", -1, erl_esdb_test:events(3)]),
        Check = fun() -> call(A, erl_esdb_consistency_checker, check_now, [shop]) end,
        ?assertMatch(#{status := healthy}, Check()),
        ok = erl_esdb_nodes:kill(B),
        await(fun() -> maps:get(status, Check()) =:= degraded end),
        B1 = erl_esdb_nodes:restart(B),
        Start(B1),
        [erl_esdb_nodes:connect(B1, P) || P <- [A, C]],
        await(fun() -> maps:get(status, Check()) =:= healthy end),
        Read = [shop, ~"s", 0, 9, forward],
        ?assertMatch({ok, [_, _, _]}, call(B1, erl_esdb_streams, read, Read)),
        ok = erl_esdb_nodes:stop([B1])
    end).

b_the_larger_cluster_is_joined(_) ->
    with_nodes(3, fun([A, B, C]) ->
        [start_fake(P, shop, #{}) || P <- [A, B, C]],
        ok = call(C, erl_esdb, join, [shop, name(B)]),
        [erl_esdb_nodes:connect(A, P) || P <- [B, C]],
        ok = call(A, erl_esdb_store_coordinator, join_cluster, [shop]),
        ?assertEqual({ok, lists:sort([name(P) || P <- [A, B, C]])}, members(C, shop))
    end).

%% The one with the lower name waits for the other, which belongs to a cluster by then.
b_who_waits_looks_again(_) ->
    with_nodes(3, fun([A, B, C]) ->
        Options = erl_esdb_nodes:options(),
        ok = start_fake(A, shop, Options),
        [start_fake(P, shop, #{}) || P <- [B, C]],
        ok = erl_esdb_nodes:connect(A, B),
        Timer = fun() ->
            Pid = call(A, erlang, whereis, [erl_esdb_naming:coordinator_name(shop)]),
            element(3, call(A, sys, get_state, [Pid]))
        end,
        await(fun() -> Timer() =/= undefined end),
        ?assertEqual({ok, [name(A)]}, members(A, shop)),
        ok = call(C, erl_esdb, join, [shop, name(B)]),
        await(fun() -> members(A, shop) =:= {ok, [name(P) || P <- [A, B, C]]} end)
    end).

%% The nodes are connected before it is there.
b_a_store_that_starts_later(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        ok = erl_esdb_nodes:connect(A, B),
        [start_fake(P, shop, erl_esdb_nodes:options()) || P <- Peers],
        await(fun() -> members(A, shop) =:= {ok, [name(A), name(B)]} end)
    end).

b_what_is_refused_is_tried_again(_) ->
    with_nodes(2, fun([A, B]) ->
        [start_fake(P, shop, erl_esdb_nodes:options()) || P <- [A, B]],
        Event = erl_esdb_test:event(1),
        {ok, 0} = call(B, erl_esdb_streams, append, [shop, ~"s", -1, [Event]]),
        ok = erl_esdb_nodes:connect(A, B),
        Tried = fun() ->
            Pid = call(B, erlang, whereis, [erl_esdb_naming:coordinator_name(shop)]),
            element(3, call(B, sys, get_state, [Pid])) =/= undefined
        end,
        await(Tried),
        ?assertEqual({ok, [name(B)]}, members(B, shop)),
        %% When nothing is in the way any more it is done.
        ok = call(B, erl_esdb, stop_store, [shop]),
        ok = start_fake(B, shop, erl_esdb_nodes:options()),
        ok = call(B, erl_esdb_store_coordinator, found, [shop]),
        await(fun() -> members(B, shop) =:= {ok, [name(A), name(B)]} end)
    end).

b_leave_and_force_remove(_) ->
    with_nodes(3, fun([A, B, C]) ->
        [start_fake(P, shop, #{}) || P <- [A, B, C]],
        [ok = call(P, erl_esdb, join, [shop, name(A)]) || P <- [B, C]],
        ok = call(B, erl_esdb, leave, [shop]),
        ?assertEqual({ok, [name(A), name(C)]}, members(A, shop)),
        ?assertEqual({ok, [name(B)]}, members(B, shop)),
        ok = erl_esdb_nodes:kill(C),
        ok = call(A, erl_esdb, force_remove, [shop, name(C)]),
        ?assertEqual({ok, [name(A)]}, members(A, shop))
    end).

%% ---- the leader

two_members(Fun) ->
    with_nodes(2, fun([A, B]) ->
        [start_fake(P, shop, #{}) || P <- [A, B]],
        ok = call(B, erl_esdb, join, [shop, name(A)]),
        await(fun() -> known(B) =:= name(A) end),
        Fun([A, B])
    end).

known(Peer) -> call(Peer, erl_esdb_cluster, known_leader, [shop]).

at_leader(Peer, Call, Timeout) ->
    call(Peer, erl_esdb_cluster, at_leader, [shop, Call, #{timeout => Timeout}]).

b_the_leader_is_asked_wherever_it_is(_) ->
    two_members(fun([A, B]) ->
        Where = {?MODULE, where, [word]},
        [?assertEqual({word, name(A)}, at_leader(P, Where, 5000)) || P <- [A, B]],
        ok = call(A, erl_esdb, transfer_leadership, [shop, name(B)]),
        await(fun() -> [known(P) || P <- [A, B]] =:= [name(B), name(B)] end),
        [?assertEqual({word, name(B)}, at_leader(P, Where, 5000)) || P <- [A, B]],
        %% What is raised there is raised here; who does not come back in time is a timeout.
        ?assertError(badarg, at_leader(A, {?MODULE, fails, []}, 5000)),
        ?assertEqual({error, {timeout, shop}}, at_leader(A, {?MODULE, hangs, []}, 100)),
        %% So is one that went away meanwhile.
        ?assertEqual({error, {timeout, shop}}, at_leader(A, {?MODULE, halts, []}, 5000))
    end).

where(Word, #{timeout := T}) when is_integer(T) -> {Word, node()}.
fails(_) -> error(badarg).
hangs(_) -> receive after infinity -> ok end.
halts(_) -> erlang:halt(1, [{flush, false}]).

b_a_new_leader_is_waited_for(_) ->
    two_members(fun([A, B]) ->
        %% Told wrongly: nobody leads, and then somebody who says that it does not.
        ok = call(B, erl_esdb_cluster, put_leader, [shop, undefined]),
        ?assertEqual({error, {no_quorum, shop}}, at_leader(B, {?MODULE, where, [w]}, 50)),
        ok = call(B, erl_esdb_cluster, put_leader, [shop, name(B)]),
        Not = {?MODULE, only_on, [name(A)]},
        ?assertEqual({error, {no_quorum, shop}}, at_leader(B, Not, 50)),
        Self = self(),
        spawn_link(fun() -> Self ! {answer, at_leader(B, Not, 10_000)} end),
        ok = call(B, erl_esdb_cluster, put_leader, [shop, name(A)]),
        receive
            {answer, Answer} -> ?assertEqual({ok, name(A)}, Answer)
        end
    end).

only_on(Node, _) when Node =:= node() -> {ok, Node};
only_on(_, _) -> {error, {not_leader, shop}}.

b_watchers_are_told_of_the_leader(_) ->
    {ok, _} = erl_esdb:start_store(a, #{}),
    ?assertEqual(node(), erl_esdb_cluster:watch_leader(a)),
    ok = erl_esdb_cluster:leader_is(a, 'another@127.0.0.1'),
    receive
        {erl_esdb_leader, a, 'another@127.0.0.1'} -> ok
    end,
    %% The engine knows better, when it is asked.
    receive
        {erl_esdb_leader, a, Node} -> ?assertEqual(node(), Node)
    end,
    %% One that begins anew knows who watches.
    exit(whereis(erl_esdb_naming:leader_watch_name(a)), kill),
    receive
        {erl_esdb_leader, a, Again} -> ?assertEqual(node(), Again)
    end,
    ok = erl_esdb_cluster:leader_is(nosuch, node()).

b_a_word_that_was_lost(_) ->
    two_members(fun([A, B]) ->
        Quietly = [shop, {quiet, name(B)}, #{}],
        ok = call(A, erl_esdb_engine_fake, transfer_leadership, Quietly),
        await(fun() -> [known(P) || P <- [A, B]] =:= [name(B), name(B)] end)
    end).

%% ---- the node monitor

a_nmn_01_alive_without_a_store(_) ->
    {ok, Pid} = erl_esdb_node_monitor:start_link(#store_config{store_id = nosuch}),
    Pid ! look,
    Pid ! {nodedown, 'another@127.0.0.1'},
    ?assertMatch({error, unknown_request}, gen_server:call(Pid, anything)),
    ?assert(is_process_alive(Pid)),
    ok = gen_server:stop(Pid).

a_nmn_02_node_up_and_down(_) ->
    with_nodes(2, fun([A, B]) ->
        ok = start_store(A, shop, erl_esdb_nodes:options()),
        Events = [?CLUSTER_NODE_UP, ?CLUSTER_NODE_DOWN],
        ok = erl_esdb_nodes:collect(A, Events),
        ok = erl_esdb_nodes:connect(A, B),
        await(fun() -> length(erl_esdb_nodes:collected(A)) =:= 1 end),
        ok = erl_esdb_nodes:disconnect(A, B),
        await(fun() -> length(erl_esdb_nodes:collected(A)) =:= 2 end),
        Other = name(B),
        ?assertMatch(
            [
                {?CLUSTER_NODE_UP, #{system_time := _},
                    #{store_id := shop, node := Other, member_count := 1}},
                {?CLUSTER_NODE_DOWN, #{system_time := _},
                    #{store_id := shop, node := Other, member_count := 1, reason := nodedown}}
            ],
            erl_esdb_nodes:collected(A)
        )
    end).

a_nmn_03_activates_the_leader(_) ->
    {ok, _} = erl_esdb:start_store(many, erl_esdb_nodes:options()),
    await(fun() -> erl_esdb_leader:is_active(many) end),
    %% In mode single one that is started looks once.
    {ok, _} = erl_esdb:start_store(single, #{}),
    ?assertNot(erl_esdb_leader:is_active(single)),
    {ok, Pid} = erl_esdb_node_monitor:start_link(#store_config{store_id = single}),
    await(fun() -> erl_esdb_leader:is_active(single) end),
    ok = gen_server:stop(Pid).

a_nmn_04_get_members(_) ->
    {ok, _} = erl_esdb:start_store(a, #{}),
    ?assertEqual(erl_esdb_store_coordinator:members(a), erl_esdb_node_monitor:get_members(a)),
    ?assertEqual({ok, [{a, node()}]}, erl_esdb_node_monitor:get_members(a)),
    ?assertEqual({error, {store_not_started, b}}, erl_esdb_node_monitor:get_members(b)).

b_another_leader_is_told(_) ->
    with_nodes(2, fun([A, B]) ->
        [start_fake(P, shop, erl_esdb_nodes:options()) || P <- [A, B]],
        ok = erl_esdb_nodes:connect(A, B),
        await(fun() -> members(B, shop) =:= {ok, [name(A), name(B)]} end),
        await(fun() -> call(A, erl_esdb_leader, is_active, [shop]) end),
        await(fun() -> not call(B, erl_esdb_leader, is_active, [shop]) end),
        [erl_esdb_nodes:collect(P, [?CLUSTER_LEADER_ELECTED]) || P <- [A, B]],
        ok = call(A, erl_esdb, transfer_leadership, [shop, name(B)]),
        await(fun() -> call(B, erl_esdb_leader, is_active, [shop]) end),
        ?assertNot(call(A, erl_esdb_leader, is_active, [shop])),
        Both = #{leader => name(B), previous_leader => name(A)},
        Told = fun(P) ->
            Elected = erl_esdb_nodes:collected(P),
            [maps:with([leader, previous_leader], Meta) || {_, _, Meta} <- Elected]
        end,
        %% That the first one was active may have been told late.
        Of = fun(P) -> [Elected || #{leader := L} = Elected <- Told(P), L =:= name(B)] end,
        await(fun() -> Of(A) =/= [] andalso Of(B) =/= [] end),
        ?assertEqual({[Both], [Both]}, {Of(A), Of(B)})
    end).
