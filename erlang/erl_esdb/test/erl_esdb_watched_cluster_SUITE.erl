-module(erl_esdb_watched_cluster_SUITE).
-moduledoc """
Who finds, joins and watches the members of stores on disk, on three real nodes: of one in mode
`cluster`, whose nodes find each other; and of one in mode `single`, whose nodes were told to join.
The nodes are the same for all cases; those that a case has killed come back before the next one.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_nodes, [call/4, name/1]).
-import(erl_esdb_test, [await/1]).

-define(CHECKER, erl_esdb_consistency_checker).
-define(COORDINATOR, erl_esdb_store_coordinator).

%% In mode cluster, and in mode single.
-define(SHOP, shop).
-define(PLAIN, plain).
-define(BOTH, [?PLAIN, ?SHOP]).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    case lists:member(ra, erl_esdb_test:engines()) of
        true -> cases();
        false -> []
    end.

groups() -> [{ra, [], cases()}].

cases() ->
    [
        a_crd_02_nodes_that_find_each_other_join,
        a_crd_04_a_join_that_is_refused,
        a_crd_06_members_and_leader,
        a_ldr_02_who_leads_is_active,
        a_cns_02_all_agree,
        a_hlt_03_all_are_healthy,
        a_cns_10_split_brain,
        a_nmn_03_the_leader_is_killed,
        a_nmn_02_a_node_that_is_killed,
        a_cns_08_no_quorum,
        b_watched_while_there_are_others,
        b_a_restarted_store_is_watched
    ].

init_per_suite(Config) ->
    case lists:member(ra, erl_esdb_test:engines()) of
        true ->
            Folder = filename:join(proplists:get_value(priv_dir, Config), "nodes"),
            Peers = erl_esdb_nodes:start(3),
            ok = remember(Peers),
            lists:foreach(fun(Peer) -> begun(Peer, Folder) end, Peers),
            [First | Others] = Peers,
            [ok = call(Peer, erl_esdb, join, [?PLAIN, name(First)]) || Peer <- Others],
            [{folder, Folder} | Config];
        false ->
            Config
    end.

end_per_suite(Config) ->
    _ = [erl_esdb_nodes:stop(peers()) || lists:keymember(folder, 1, Config)],
    _ = [file:del_dir_r(Folder) || {folder, Folder} <- Config],
    _ = persistent_term:erase(?MODULE),
    ok.

init_per_testcase(_Case, Config) ->
    ok = healed(Config),
    Config.

remember(Peers) -> persistent_term:put(?MODULE, Peers).

peers() -> persistent_term:get(?MODULE).

names() -> lists:sort([name(Peer) || Peer <- peers()]).

%% The stores of a node that has just begun, and what remembers what they tell.
begun(Peer, Folder) ->
    Env = [
        {discovery, #{method => static, nodes => names(), interval => 100}},
        {consistency_check_interval, 1000},
        {health_probe_interval, 100},
        {health_probe_timeout, 5000}
    ],
    [ok = call(Peer, application, set_env, [erl_esdb, Key, Value]) || {Key, Value} <- Env],
    ok = erl_esdb_nodes:collect(Peer, [
        ?CLUSTER_NODE_UP,
        ?CLUSTER_NODE_DOWN,
        ?CLUSTER_LEADER_ELECTED,
        ?HEALTH_NODE_FAILED,
        ?HEALTH_NODE_RECOVERED,
        ?CONSISTENCY_STATUS_CHANGED,
        ?SPLIT_BRAIN_DETECTED,
        ?QUORUM_LOST,
        ?QUORUM_RESTORED
    ]),
    ok = started(Peer, ?PLAIN, single, Folder),
    ok = started(Peer, ?SHOP, cluster, Folder).

started(Peer, Store, Mode, Folder) ->
    erl_esdb_nodes:start_on(ra, Peer, Store, #{folder => Folder, mode => Mode}).

%% All three are there, and all is well with both stores wherever it is asked.
healed(Config) ->
    Folder = proplists:get_value(folder, Config),
    ok = remember([alive(Peer, Folder) || Peer <- peers()]),
    await(fun() ->
        lists:usort([status(Peer, Store) || Peer <- peers(), Store <- ?BOTH]) =:=
            [{healthy, names()}]
    end).

alive(Peer, Folder) ->
    case is_up(Peer) of
        true ->
            Peer;
        false ->
            Back = erl_esdb_nodes:restart(Peer),
            ok = begun(Back, Folder),
            Back
    end.

is_up(Peer) ->
    try
        call(Peer, erlang, node, []) =:= name(Peer)
    catch
        exit:_ -> false
    end.

status(Peer, Store) ->
    case {call(Peer, ?CHECKER, get_status, [Store]), call(Peer, erl_esdb, members, [Store])} of
        {{ok, Status}, {ok, Members}} -> {Status, Members};
        Other -> Other
    end.

check(Peer) -> call(Peer, ?CHECKER, check_now, [?SHOP]).

%% Who leads, for all that are up.
leader(Store) ->
    Up = lists:filter(fun is_up/1, peers()),
    Known = fun() -> lists:usort([call(Peer, erl_esdb, leader, [Store]) || Peer <- Up]) end,
    Lead = fun
        ([{ok, Node}]) -> lists:member(Node, [name(Peer) || Peer <- Up]);
        (_) -> false
    end,
    await(fun() -> Lead(Known()) end),
    [{ok, Leader}] = Known(),
    [Peer] = [Peer || Peer <- Up, name(Peer) =:= Leader],
    Peer.

%% What was told there since: `count/1` says where to begin.
count(Peer) -> length(erl_esdb_nodes:collected(Peer)).

told(Peer, Since, Event) ->
    [
        {maps:get(store_id, Metadata), Measurements, Metadata}
     || {E, Measurements, Metadata} <- lists:nthtail(Since, erl_esdb_nodes:collected(Peer)),
        E =:= Event
    ].

%% The stores that were told of it, with this in the metadata.
told_of(Peer, Since, Event, Wanted) ->
    lists:usort([
        Store
     || {Store, _, Metadata} <- told(Peer, Since, Event),
        maps:with(maps:keys(Wanted), Metadata) =:= Wanted
    ]).

active(Peers) -> [P || P <- Peers, call(P, erl_esdb_leader, is_active, [?SHOP])].

%% ---- joining

a_crd_02_nodes_that_find_each_other_join(_) ->
    [
        begin
            Others = names() -- [name(Peer)],
            Found = call(Peer, erl_esdb_discovery, get_discovered_nodes, [?SHOP]),
            ?assertEqual(Others, lists:sort(Found)),
            ?assertEqual(
                {ok, [{?SHOP, Name} || Name <- names()]}, call(Peer, ?COORDINATOR, members, [?SHOP])
            ),
            ?assertEqual(ok, call(Peer, ?COORDINATOR, join_cluster, [?SHOP])),
            %% Who is a member joins nobody else.
            ?assertNot(call(Peer, ?COORDINATOR, should_handle_nodeup, [?SHOP]))
        end
     || Peer <- peers()
    ],
    [A, B, C] = peers(),
    {ok, 2} = call(C, erl_esdb_streams, append, [?SHOP, ~"s", any, erl_esdb_test:events(3)]),
    Read = [?SHOP, ~"s", 0, 9, forward, #{consistency => linearizable}],
    [?assertMatch({ok, [_, _, _]}, call(P, erl_esdb_streams, read, Read)) || P <- [A, B]].

%% With another one, whose store has an event already.
with_a_stranger(Config, Fun) ->
    [Stranger] = erl_esdb_nodes:start(1),
    try
        Folder = proplists:get_value(folder, Config),
        ok = started(Stranger, ?SHOP, cluster, Folder),
        Append = [?SHOP, ~"own", -1, erl_esdb_test:events(1)],
        {ok, 0} = call(Stranger, erl_esdb_streams, append, Append),
        ok = erl_esdb_nodes:connect(Stranger, hd(peers())),
        Fun(Stranger)
    after
        erl_esdb_nodes:stop([Stranger])
    end.

a_crd_04_a_join_that_is_refused(Config) ->
    A = hd(peers()),
    with_a_stranger(Config, fun(Stranger) ->
        To = [?SHOP, name(A)],
        ?assertEqual(
            {error, {not_empty, ?SHOP}}, call(Stranger, ?COORDINATOR, join_cluster, To)
        ),
        %% Not where it is asked to find somebody, and not by itself.
        ?assertEqual(failed, call(Stranger, ?COORDINATOR, join_cluster, [?SHOP])),
        ?assertEqual({ok, [name(Stranger)]}, call(Stranger, erl_esdb, members, [?SHOP])),
        ?assertMatch(
            {ok, [#event{version = 0}]},
            call(Stranger, erl_esdb_streams, read, [?SHOP, ~"own", 0, 9, forward])
        ),
        ?assertEqual({ok, names()}, call(A, erl_esdb, members, [?SHOP])),
        ?assertMatch(
            {error, {store_not_started, nosuch}},
            call(Stranger, ?COORDINATOR, join_cluster, [nosuch, name(A)])
        )
    end).

a_crd_06_members_and_leader(_) ->
    [
        begin
            Leader = name(leader(Store)),
            Members = {ok, [{Store, Name} || Name <- names()]},
            Is = [{name(P), call(P, ?COORDINATOR, is_leader, [Store])} || P <- peers()],
            ?assertEqual([{Name, Name =:= Leader} || {Name, _} <- Is], Is),
            [
                ?assertEqual(
                    [{ok, Leader}, Members, Members],
                    [
                        call(P, ?COORDINATOR, leader, [Store]),
                        call(P, ?COORDINATOR, members, [Store]),
                        call(P, erl_esdb_node_monitor, get_members, [Store])
                    ]
                )
             || P <- peers()
            ]
        end
     || Store <- ?BOTH
    ].

%% ---- who leads

a_ldr_02_who_leads_is_active(_) ->
    Leader = leader(?SHOP),
    await(fun() -> active(peers()) =:= [Leader] end),
    [
        ?assertEqual({error, not_leader}, call(P, erl_esdb_leader, activate, [?SHOP]))
     || P <- peers() -- [Leader]
    ],
    ?assertEqual(ok, call(Leader, erl_esdb_leader, activate, [?SHOP])),
    %% Made once, and known everywhere; in mode single nobody makes it.
    Names = fun(Peer, Store) ->
        {ok, Found} = call(Peer, erl_esdb_subscriptions, list, [Store]),
        [S#subscription.subscription_name || S <- Found]
    end,
    await(fun() -> lists:usort([Names(P, ?SHOP) || P <- peers()]) =:= [[~"all-events"]] end),
    ?assertEqual([[]], lists:usort([Names(P, ?PLAIN) || P <- peers()])).

%% ---- what all know

a_cns_02_all_agree(_) ->
    Leader = name(leader(?SHOP)),
    Names = names(),
    [
        begin
            ?assertMatch(#{status := healthy, checks := #{raft := #{status := ok}}}, check(Peer)),
            Verified = fun(What) -> call(Peer, ?CHECKER, What, [?SHOP]) end,
            ?assertEqual(
                {ok, #{
                    status => consensus,
                    nodes_checked => 3,
                    nodes_responded => 3,
                    failed_nodes => [],
                    consistent_view => Names
                }},
                Verified(verify_membership_consensus)
            ),
            ?assertEqual(
                {ok, #{status => consensus, leader => Leader}}, Verified(verify_leader_consensus)
            ),
            {ok, Raft} = Verified(verify_raft_consistency),
            ?assertMatch(
                #{
                    status := consensus,
                    terms_consistent := true,
                    commit_index_range := {Min, Max},
                    leader := Leader
                } when Min > 0 andalso Max >= Min,
                Raft
            ),
            #{terms := Terms} = Raft,
            ?assertEqual(Names, lists:sort(maps:keys(Terms))),
            ?assertMatch([Term] when Term > 0, lists:usort(maps:values(Terms))),
            await(fun() ->
                Verified(get_quorum_status) =:=
                    {ok, #{
                        has_quorum => true,
                        total_nodes => 3,
                        available_nodes => 3,
                        required_quorum => 2,
                        quorum_margin => 1,
                        can_lose => 1
                    }}
            end)
        end
     || Peer <- peers()
    ].

a_hlt_03_all_are_healthy(_) ->
    [
        begin
            Others = maps:from_keys(names() -- [name(Peer)], healthy),
            Statuses = fun() -> call(Peer, erl_esdb_health_prober, get_all_status, [Store]) end,
            await(fun() -> Statuses() =:= Others end),
            %% Also where the store itself has to answer.
            Deep = [Store, #{probe_type => deep}],
            ok = call(Peer, erl_esdb_health_prober, configure, Deep),
            ok = call(Peer, erl_esdb_health_prober, probe_now, [Store]),
            await(fun() -> Statuses() =:= Others end)
        end
     || Peer <- peers(), Store <- ?BOTH
    ].

%% Two clusters of one store, whose nodes are connected.
a_cns_10_split_brain(Config) ->
    A = hd(peers()),
    Since = count(A),
    with_a_stranger(Config, fun(Stranger) ->
        Alone = [name(Stranger)],
        await(fun() -> maps:get(status, check(A)) =:= split_brain end),
        {ok, Membership} = call(A, ?CHECKER, verify_membership_consensus, [?SHOP]),
        ?assertMatch(
            #{status := split_brain, conflicting_views := 2, views := #{Alone := Alone}},
            Membership
        ),
        await(fun() -> told(A, Since, ?SPLIT_BRAIN_DETECTED) =/= [] end),
        [{?SHOP, #{system_time := _}, #{result := #{checks := Checks}}} | _] =
            told(A, Since, ?SPLIT_BRAIN_DETECTED),
        ?assertMatch(#{membership := #{status := error}}, Checks)
    end),
    await(fun() -> call(A, ?CHECKER, get_status, [?SHOP]) =:= {ok, healthy} end).

%% ---- losing nodes

%% The next one does what a leader does.
a_nmn_03_the_leader_is_killed(_) ->
    Leader = leader(?SHOP),
    Lead = [?PLAIN, name(Leader)],
    await(fun() -> call(Leader, erl_esdb, transfer_leadership, Lead) =:= ok end),
    await(fun() -> active(peers()) =:= [Leader] end),
    Subscribe = [?SHOP, stream, ~"s", ~"sub", #{pool_size => 2}],
    {ok, Key} = call(Leader, erl_esdb_subscriptions, subscribe, Subscribe),
    await(fun() -> emitters(Leader, Key) =:= 2 end),
    Others = peers() -- [Leader],
    [await(fun() -> elected(P, Store) =:= name(Leader) end) || P <- Others, Store <- ?BOTH],
    Since = [{P, count(P)} || P <- Others],
    ok = erl_esdb_nodes:kill(Leader),
    Next = leader(?SHOP),
    NextPlain = leader(?PLAIN),
    await(fun() -> active(Others) =:= [Next] end),
    await(fun() -> emitters(Next, Key) =:= 2 end),
    ?assertEqual([0], [emitters(P, Key) || P <- Others, P =/= Next]),
    %% All are told of it: of both stores.
    Of = fun(New) -> #{leader => name(New), previous_leader => name(Leader)} end,
    [
        await(fun() ->
            lists:member(?SHOP, told_of(P, N, ?CLUSTER_LEADER_ELECTED, Of(Next))) andalso
                lists:member(?PLAIN, told_of(P, N, ?CLUSTER_LEADER_ELECTED, Of(NextPlain)))
        end)
     || {P, N} <- Since
    ],
    {Next, From} = lists:keyfind(Next, 1, Since),
    ?assertMatch(
        [{?SHOP, #{system_time := _}, #{subscription_count := 2}} | _],
        [T || {?SHOP, _, _} = T <- told(Next, From, ?CLUSTER_LEADER_ELECTED)]
    ),
    %% What is written goes on, and the subscription with it.
    {ok, _} = call(Next, erl_esdb_streams, append, [?SHOP, ~"s", any, erl_esdb_test:events(1)]),
    ok = call(Next, erl_esdb_subscriptions, unsubscribe, [?SHOP, Key]),
    await(fun() -> emitters(Next, Key) =:= 0 end).

%% Who leads, for all that was told there.
elected(Peer, Store) ->
    Told = told(Peer, 0, ?CLUSTER_LEADER_ELECTED),
    lists:last([none | [Leader || {S, _, #{leader := Leader}} <- Told, S =:= Store]]).

emitters(Peer, Key) ->
    Pids = call(Peer, erl_esdb_emitter_group, members, [?SHOP, Key]),
    length([Pid || Pid <- Pids, node(Pid) =:= name(Peer)]).

a_nmn_02_a_node_that_is_killed(Config) ->
    [Gone | _] = peers() -- [leader(?SHOP)],
    [A | _] = Others = peers() -- [Gone],
    Since = [{P, count(P)} || P <- Others],
    ok = erl_esdb_nodes:kill(Gone),
    Node = #{node => name(Gone)},
    Down = Node#{reason => nodedown, member_count => 3},
    Both = fun(P, From, Event, Metadata) -> told_of(P, From, Event, Metadata) =:= ?BOTH end,
    [
        begin
            await(fun() -> Both(P, From, ?CLUSTER_NODE_DOWN, Down) end),
            await(fun() -> Both(P, From, ?HEALTH_NODE_FAILED, Node) end),
            await(fun() ->
                [degraded] =:= lists:usort([element(1, status(P, Store)) || Store <- ?BOTH])
            end)
        end
     || {P, From} <- Since
    ],
    ?assertEqual(
        {ok, failed},
        call(A, erl_esdb_health_prober, get_node_status, [?SHOP, name(Gone)])
    ),
    ?assertMatch(
        {ok, #{status := consensus, failed_nodes := [_], nodes_responded := 2}},
        call(A, ?CHECKER, verify_membership_consensus, [?SHOP])
    ),
    ?assertMatch(
        {ok, #{has_quorum := true, quorum_margin := 0, can_lose := 0}},
        call(A, ?CHECKER, get_quorum_status, [?SHOP])
    ),
    ok = healed(Config),
    Up = Node#{member_count => 3},
    [
        begin
            await(fun() -> Both(P, From, ?CLUSTER_NODE_UP, Up) end),
            await(fun() -> Both(P, From, ?HEALTH_NODE_RECOVERED, Node) end)
        end
     || {P, From} <- Since
    ],
    %% Who came back does not lead, and does not do what a leader does.
    await(fun() -> active(peers()) =:= [leader(?SHOP)] end).

%% Of one that did not lead: who leads goes on with that, alone.
a_cns_08_no_quorum(Config) ->
    [A | _] = peers() -- [leader(?SHOP)],
    Others = peers() -- [A],
    ok = call(A, erl_esdb_consistency_SUITE, remember, [?SHOP]),
    Since = count(A),
    lists:foreach(fun erl_esdb_nodes:kill/1, Others),
    await(fun() -> maps:get(status, check(A)) =:= no_quorum end),
    Lost = [?QUORUM_LOST, ?CONSISTENCY_STATUS_CHANGED],
    [await(fun() -> told_of(A, Since, Event, #{}) =:= ?BOTH end) || Event <- Lost],
    [
        ?assertMatch(#{available_nodes := 1, required_quorum := 2}, Measurements)
     || {_, Measurements, _} <- told(A, Since, ?QUORUM_LOST)
    ],
    ?assertEqual({ok, no_quorum}, call(A, ?CHECKER, get_status, [?SHOP])),
    ?assertMatch(
        {ok, #{has_quorum := false, total_nodes := 3, available_nodes := 1, can_lose := 0}},
        call(A, ?CHECKER, get_quorum_status, [?SHOP])
    ),
    await(fun() ->
        call(A, ?CHECKER, verify_leader_consensus, [?SHOP]) =:= {ok, #{status => no_leader}}
    end),
    ?assertEqual({error, no_leader}, call(A, ?COORDINATOR, leader, [?SHOP])),
    ok = healed(Config),
    await(fun() -> told_of(A, Since, ?QUORUM_RESTORED, #{}) =:= ?BOTH end),
    await(fun() -> lists:last(erl_esdb_consistency_SUITE:called(A)) =:= healthy end),
    ?assert(lists:member(no_quorum, erl_esdb_consistency_SUITE:called(A))).

%% ---- in mode single

watchers() -> [node_monitor_name, health_prober_name, consistency_checker_name].

is_there(Peer, Name, Store) ->
    is_pid(call(Peer, erlang, whereis, [erl_esdb_naming:Name(Store)])).

are_watched(Peer, Store) ->
    lists:usort([is_there(Peer, Name, Store) || Name <- [cluster_sup_name | watchers()]]).

b_watched_while_there_are_others(Config) ->
    Folder = proplists:get_value(folder, Config),
    [A, B, _] = peers(),
    [ok = started(P, third, single, Folder) || P <- [A, B]],
    [?assertEqual([false], are_watched(P, third)) || P <- [A, B]],
    ok = call(B, erl_esdb, join, [third, name(A)]),
    [await(fun() -> are_watched(P, third) =:= [true] end) || P <- [A, B]],
    %% Nobody is looked for: that is for mode cluster.
    [?assertNot(is_there(P, N, third)) || P <- [A, B], N <- [discovery_name, coordinator_name]],
    %% One that crashes is there again.
    Crash = fun(Name) ->
        Pid = call(A, erlang, whereis, [erl_esdb_naming:Name(third)]),
        true = call(A, erlang, exit, [Pid, kill]),
        await(fun() ->
            New = call(A, erlang, whereis, [erl_esdb_naming:Name(third)]),
            is_pid(New) andalso New =/= Pid
        end),
        await(fun() -> are_watched(A, third) =:= [true] end)
    end,
    lists:foreach(Crash, [member_watch_name, cluster_sup_name]),
    ok = call(B, erl_esdb, leave, [third]),
    await(fun() -> are_watched(A, third) =:= [false] end),
    ?assertEqual({ok, [name(A)]}, call(A, erl_esdb, members, [third])),
    ok = call(A, erl_esdb, drop, [third]).

b_a_restarted_store_is_watched(Config) ->
    [A, B, _] = peers(),
    ok = call(B, erl_esdb, stop_store, [?PLAIN]),
    ?assertEqual([false], are_watched(B, ?PLAIN)),
    await(fun() -> element(1, status(A, ?PLAIN)) =:= degraded end),
    ok = started(B, ?PLAIN, single, proplists:get_value(folder, Config)),
    await(fun() -> are_watched(B, ?PLAIN) =:= [true] end),
    await(fun() -> element(1, status(A, ?PLAIN)) =:= healthy end).
