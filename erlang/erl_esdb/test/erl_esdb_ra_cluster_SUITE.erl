-module(erl_esdb_ra_cluster_SUITE).
-moduledoc "A store on disk that lives on several nodes.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("erl_esdb_history.hrl").

-define(STORE, shop).
-define(S, <<"s">>).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    case lists:member(ra, erl_esdb_test:engines()) of
        true -> [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("a_", atom_to_list(F))];
        false -> []
    end.

init_per_testcase(Case, Config) ->
    [{dir, filename:join(proplists:get_value(priv_dir, Config), Case)} | Config].

end_per_testcase(_Case, Config) ->
    _ = file:del_dir_r(proplists:get_value(dir, Config)),
    ok.

%% ---- nodes with a store

options(Peer, Config) ->
    Dir = filename:join(proplists:get_value(dir, Config), atom_to_list(erl_esdb_nodes:name(Peer))),
    #{engine => ra, mode => cluster, data_dir => Dir}.

start_store(Peer, Config) -> erl_esdb_nodes:start_store(Peer, ?STORE, options(Peer, Config)).

call(Peer, F, Args) -> erl_esdb_nodes:call(Peer, erl_esdb, F, [?STORE | Args]).

streams(Peer, F, Args) -> erl_esdb_nodes:call(Peer, erl_esdb_streams, F, [?STORE | Args]).

%% Nodes that are members of one cluster.
cluster(Count, Config) ->
    [First | Others] = Peers = erl_esdb_nodes:start(Count),
    lists:foreach(fun(Peer) -> start_store(Peer, Config) end, Peers),
    lists:foreach(fun(Peer) -> joined(Peer, First) end, Others),
    Peers.

joined(Peer, To) ->
    ok = erl_esdb_nodes:connect(Peer, To),
    ?assertEqual(ok, call(Peer, join, [erl_esdb_nodes:name(To)])).

names(Peers) -> lists:sort([erl_esdb_nodes:name(Peer) || Peer <- Peers]).

append(Peer, Expected, Count) -> streams(Peer, append, [?S, Expected, erl_esdb_test:events(Count)]).

append(Peer, Expected, Count, Timeout) ->
    streams(Peer, append, [?S, Expected, erl_esdb_test:events(Count), #{timeout => Timeout}]).

log(Peer) -> log(Peer, read_your_writes).

log(Peer, Consistency) ->
    {ok, Events} = streams(Peer, read_log, [0, infinity, forward, #{consistency => Consistency}]),
    Events.

versions(Peer) -> erl_esdb_test:versions(log(Peer, linearizable)).

leader(Peers) ->
    Leads = fun(Peer) -> call(Peer, leader, []) =:= {ok, erl_esdb_nodes:name(Peer)} end,
    erl_esdb_test:await(fun() -> lists:any(Leads, Peers) end),
    [Leader | _] = lists:filter(Leads, Peers),
    Leader.

server(Peer) -> erl_esdb_nodes:call(Peer, erl_esdb_test, server, [?STORE]).

%% ---- growing

a_one_node_becomes_three_while_it_is_written(Config) ->
    [A, B, C] = Peers = erl_esdb_nodes:start(3),
    lists:foreach(fun(Peer) -> start_store(Peer, Config) end, Peers),
    {ok, 0} = append(A, -1, 1),
    Stop = atomics:new(1, []),
    Writer = spawn_monitor(fun() -> exit({wrote, written(A, Stop, 1)}) end),
    joined(B, A),
    joined(C, A),
    ok = atomics:put(Stop, 1, 1),
    Last =
        receive
            {'DOWN', Ref, process, _, {wrote, N}} when Ref =:= element(2, Writer) -> N
        end,
    ?assert(Last > 1),
    [?assertEqual(lists:seq(0, Last - 1), versions(Peer)) || Peer <- Peers],
    [?assertEqual({ok, names(Peers)}, call(Peer, members, [])) || Peer <- Peers],
    [
        ?assertEqual({ok, Version}, append(Peer, Version - 1, 1))
     || {Version, Peer} <- lists:enumerate(Last, Peers)
    ],
    [?assertEqual(log(A, linearizable), log(Peer, linearizable)) || Peer <- [B, C]],
    ok = erl_esdb_nodes:stop(Peers).

%% And on, with clients at all members; then two of five may fail.
a_three_nodes_become_five_while_they_are_written(Config) ->
    Peers = erl_esdb_nodes:start(5),
    lists:foreach(fun(Peer) -> start_store(Peer, Config) end, Peers),
    {[A | _] = Three, [D, E]} = lists:split(3, Peers),
    lists:foreach(fun(Peer) -> joined(Peer, A) end, tl(Three)),
    Five = under_load(Three, fun(Up) ->
        lists:foreach(
            fun({Peer, To}) ->
                joined(Peer, To),
                ok = up(Up, Peer)
            end,
            [{D, A}, {E, D}]
        ),
        ok = await_calls(Up, 200),
        Leader = leader(Peers),
        [Follower | _] = Peers -- [Leader],
        ok = await_calls(killed(Up, Leader), 100),
        ok = await_calls(killed(Up, Follower), 100),
        Back = [back(Up, Peer, Config) || Peer <- [Leader, Follower]],
        ok = await_calls(Up, 100),
        (Peers -- [Leader, Follower]) ++ Back
    end),
    [?assertEqual({ok, names(Five)}, call(Peer, members, [])) || Peer <- Five],
    ok = erl_esdb_nodes:stop(Five).

%% A copy that takes longer than a join has without any of it goes on as long as something comes.
a_join_that_takes_longer_than_its_time(Config) ->
    Folder = filename:join(proplists:get_value(dir, Config), "slow"),
    ok = erl_esdb_ra_stopped:beam(slow, Folder),
    [A] = erl_esdb_nodes:start(1),
    [B] = erl_esdb_nodes:start(1, ["-pa", Folder]),
    %% They do not look for each other.
    Options = fun(Peer) -> (options(Peer, Config))#{mode := single} end,
    Start = fun(Peer) -> erl_esdb_nodes:start_store(Peer, ?STORE, Options(Peer)) end,
    ok = Start(A),
    Parts = [{<<"s", (integer_to_binary(N))/binary>>, -1, events(1)} || N <- lists:seq(1, 400)],
    {ok, _} = streams(A, append_many, [Parts, #{}]),
    ok = snapshotted(A),
    Written = maps:get(data_dir, Options(A)) ++ "/*/snapshots/*/snapshot.dat",
    [Snapshot] = filelib:wildcard(Written),
    %% In twelve parts, of which each takes a fifth of the time.
    ok = call(A, stop_store, []),
    Part = filelib:file_size(Snapshot) div 11,
    ok = erl_esdb_nodes:call(A, application, set_env, [ra, snapshot_chunk_size, Part]),
    ok = Start(A),
    ok = Start(B),
    ok = erl_esdb_nodes:connect(B, A),
    Join = fun(Time) ->
        Arguments = [?STORE, erl_esdb_nodes:name(A), #{timeout => Time}],
        erl_esdb_nodes:call(B, erl_esdb_cluster, join, Arguments)
    end,
    Pace = fun(Pace) -> ok = erl_esdb_nodes:call(B, erl_esdb_ra_stopped, pace, [Pace]) end,
    %% Where nothing comes it is taken back.
    ok = Pace(never),
    ?assertEqual({error, {timeout, ?STORE}}, Join(1000)),
    ?assertEqual({ok, [erl_esdb_nodes:name(A)]}, call(A, members, [])),
    ?assertEqual({ok, [erl_esdb_nodes:name(B)]}, call(B, members, [])),
    %% Nor does who ends the store wait for it.
    {_, Joining} = spawn_monitor(fun() -> exit({joined, Join(infinity)}) end),
    erl_esdb_test:await(fun() -> length(element(2, call(A, members, []))) =:= 2 end),
    ?assertEqual(ok, call(B, stop_store, [])),
    receive
        {'DOWN', Joining, process, _, Ended} ->
            ?assertEqual({joined, {error, {store_not_started, ?STORE}}}, Ended)
    end,
    ?assertEqual({ok, [erl_esdb_nodes:name(A)]}, call(A, members, [])),
    ok = Start(B),
    ok = Pace(1000),
    {Took, ok} = timer:tc(fun() -> Join(5000) end, millisecond),
    ?assert(Took > 10_000, Took),
    ?assertEqual({ok, names([A, B])}, call(A, members, [])),
    ?assertEqual(log(A, linearizable), log(B, linearizable)),
    ?assertEqual(400, length(log(B, linearizable))),
    ok = erl_esdb_nodes:stop([A, B]).

events(Count) -> erl_esdb_test:events(Count).

written(Peer, Stop, Next) ->
    case atomics:get(Stop, 1) of
        1 ->
            Next;
        0 ->
            {ok, Next} = append(Peer, Next - 1, 1),
            written(Peer, Stop, Next + 1)
    end.

%% What was written elsewhere is there when the read begins, and what was written here always.
a_consistency_of_reads(Config) ->
    [A, B, C] = Peers = cluster(3, Config),
    [
        begin
            {ok, N} = append(Writer, any, 1),
            Versions = lists:seq(0, N),
            ?assertEqual(Versions, erl_esdb_test:versions(log(Writer, read_your_writes))),
            ?assertEqual(Versions, erl_esdb_test:versions(log(Reader, linearizable))),
            Local = erl_esdb_test:versions(log(Reader, local)),
            ?assertEqual(Local, lists:sublist(Versions, length(Local)))
        end
     || N <- lists:seq(0, 29), {Writer, Reader} <- [element(1 + N rem 3, {{A, B}, {B, C}, {C, A}})]
    ],
    ok = erl_esdb_nodes:stop(Peers).

%% A store that has events is not thrown away.
a_join_refuses(Config) ->
    [A, B, C] = Peers = erl_esdb_nodes:start(3),
    lists:foreach(fun(Peer) -> start_store(Peer, Config) end, [A, B]),
    {ok, 0} = append(A, any, 1),
    {ok, 0} = append(B, any, 1),
    [ok = erl_esdb_nodes:connect(P, Q) || {P, Q} <- [{A, B}, {A, C}]],
    ?assertEqual({error, {not_empty, ?STORE}}, call(B, join, [erl_esdb_nodes:name(A)])),
    ?assertEqual({error, {store_not_started, ?STORE}}, call(A, join, [erl_esdb_nodes:name(C)])),
    ?assertEqual({error, {unreachable, 'nobody@127.0.0.1'}}, call(A, join, ['nobody@127.0.0.1'])),
    [?assertEqual([0], versions(Peer)) || Peer <- [A, B]],
    ok = erl_esdb_nodes:stop(Peers).

%% Who does not vote yet counts for no quorum: here one that never comes.
a_joining_member_counts_for_no_quorum(Config) ->
    [A, B] = Peers = cluster(2, Config),
    {Name, _} = Server = server(A),
    Nobody = 'nobody@127.0.0.1',
    New = #{id => {Name, Nobody}, membership => promotable, uid => ~"nobody"},
    Join = {'$ra_join', New, await_consensus},
    %% Not while the change before it is under way.
    erl_esdb_test:await(fun() ->
        case erl_esdb_nodes:call(A, ra_server_proc, command, [Server, Join, 30_000]) of
            {ok, {error, _}, _} -> false;
            {ok, _, _} -> true;
            {error, cluster_change_not_permitted} -> false
        end
    end),
    Members = lists:sort([Nobody | names(Peers)]),
    erl_esdb_test:await(fun() ->
        [call(Peer, members, []) || Peer <- Peers] =:= [{ok, Members}, {ok, Members}]
    end),
    View = fun(Peer) ->
        {ok, Seen} = erl_esdb_nodes:call(Peer, erl_esdb_cluster, view, [?STORE]),
        Seen
    end,
    Voters = fun() -> lists:usort([maps:get(voters, View(Peer)) || Peer <- Peers]) end,
    erl_esdb_test:await(fun() -> Voters() =:= [names(Peers)] end),
    Quorum = #{total_nodes => 2, available_nodes => 2, required_quorum => 2, has_quorum => true},
    [
        begin
            {ok, Found} = erl_esdb_nodes:call(
                Peer, erl_esdb_consistency_checker, get_quorum_status, [?STORE]
            ),
            ?assertEqual(Quorum, maps:with(maps:keys(Quorum), Found))
        end
     || Peer <- Peers
    ],
    ?assertEqual({ok, 0}, append(B, -1, 1)),
    ?assertEqual(ok, call(A, force_remove, [Nobody])),
    erl_esdb_test:await(fun() -> call(B, members, []) =:= {ok, names(Peers)} end),
    ok = erl_esdb_nodes:stop(Peers).

%% ---- losing nodes

a_leader_is_killed(Config) ->
    Peers = cluster(3, Config),
    {ok, 9} = append(hd(Peers), any, 10),
    Leader = leader(Peers),
    [Left, _] = Others = Peers -- [Leader],
    ok = erl_esdb_nodes:kill(Leader),
    %% Within the time of a call somebody else leads.
    ?assertEqual({ok, 10}, append(Left, 9, 1)),
    [?assertEqual(lists:seq(0, 10), versions(Peer)) || Peer <- Others],
    Back = erl_esdb_nodes:restart(Leader),
    start_store(Back, Config),
    ?assertEqual(lists:seq(0, 10), versions(Back)),
    ok = erl_esdb_nodes:stop([Back | Others]).

a_majority_is_lost(Config) ->
    Peers = cluster(3, Config),
    {ok, 0} = append(hd(Peers), any, 1),
    Leader = leader(Peers),
    Others = Peers -- [Leader],
    lists:foreach(fun erl_esdb_nodes:kill/1, Others),
    ?assertEqual({error, {no_quorum, ?STORE}}, append(Leader, any, 1, 2000)),
    ?assertEqual(
        {error, {no_quorum, ?STORE}},
        streams(Leader, read, [?S, 0, 1, forward, #{consistency => linearizable, timeout => 1000}])
    ),
    %% What is here can be read.
    ?assertMatch([_ | _], log(Leader, local)),
    Back = [erl_esdb_nodes:restart(Peer) || Peer <- Others],
    lists:foreach(fun(Peer) -> start_store(Peer, Config) end, Back),
    %% It has its outcome now, or never had one.
    ?assertMatch({ok, _}, append(Leader, any, 1)),
    ?assertEqual(log(Leader, linearizable), log(hd(Back), linearizable)),
    ok = erl_esdb_nodes:stop([Leader | Back]).

%% What is here can be looked up as it can be read: also after a restart, alone.
a_look_up_without_a_majority(Config) ->
    [A, B] = cluster(2, Config),
    Event = fun(N) -> #{event_type => ~"T", data => #{n => N}, tags => [~"tag"]} end,
    Events = [(Event(N))#{event_id => integer_to_binary(N)} || N <- lists:seq(1, 10)],
    {ok, 9} = streams(A, append, [?S, -1, Events]),
    ok = erl_esdb_nodes:kill(B),
    ok = call(A, stop_store, []),
    start_store(A, Config),
    Here = erl_esdb_test:versions(log(A, local)),
    ?assertEqual(lists:seq(0, 9), Here),
    Local = #{consistency => local, timeout => 10_000},
    {ok, ByType} = streams(A, read_by_event_types, [[~"T"], Local]),
    {ok, ByTag} = streams(A, read_by_tags, [[~"tag"], all, Local]),
    ?assertEqual([Here, Here], [erl_esdb_test:versions(Found) || Found <- [ByType, ByTag]]),
    ?assertMatch(
        {ok, [#event{event_id = ~"7"}]},
        erl_esdb_nodes:call(A, erl_esdb_index, events, [?STORE, event_id, ~"7", Local])
    ),
    %% Who wants to know that it is all waits for the others.
    [
        ?assertEqual(
            {error, {no_quorum, ?STORE}},
            streams(A, read_by_event_types, [
                [~"T"], #{consistency => Consistency, timeout => 500}
            ])
        )
     || Consistency <- [read_your_writes, linearizable]
    ],
    Back = erl_esdb_nodes:restart(B),
    start_store(Back, Config),
    {ok, All} = streams(Back, read_by_event_types, [[~"T"], #{consistency => linearizable}]),
    ?assertEqual(Here, erl_esdb_test:versions(All)),
    ok = erl_esdb_nodes:stop([A, Back]).

a_dead_node_is_replaced(Config) ->
    [A, B, C] = cluster(3, Config),
    {ok, 4} = append(A, any, 5),
    ok = erl_esdb_nodes:kill(C),
    ?assertEqual(ok, call(A, force_remove, [erl_esdb_nodes:name(C)])),
    ?assertEqual({ok, names([A, B])}, call(A, members, [])),
    ?assertEqual(
        {error, {not_member, erl_esdb_nodes:name(C)}},
        call(A, force_remove, [erl_esdb_nodes:name(C)])
    ),
    [D] = erl_esdb_nodes:start(1),
    start_store(D, Config),
    joined(D, B),
    ?assertEqual(lists:seq(0, 4), versions(D)),
    ?assertEqual({ok, names([A, B, D])}, call(D, members, [])),
    ok = erl_esdb_nodes:stop([A, B, D]).

a_node_leaves(Config) ->
    [A, B, C] = Peers = cluster(3, Config),
    {ok, 4} = append(A, any, 5),
    Leader = leader(Peers),
    [Left, _] = Others = Peers -- [Leader],
    ?assertEqual(ok, call(Leader, leave, [])),
    ?assertEqual([], erl_esdb_nodes:call(Leader, erl_esdb, which_stores, [])),
    erl_esdb_test:await(fun() -> call(Left, members, []) =:= {ok, names(Others)} end),
    ?assertEqual({ok, 5}, append(Left, 4, 1)),
    %% It may come back, and takes what is there: by itself, or as it is told.
    start_store(Leader, Config),
    joined(Leader, Left),
    ?assertEqual(lists:seq(0, 5), versions(Leader)),
    [?assertEqual({ok, names([A, B, C])}, call(Peer, members, [])) || Peer <- Peers],
    ok = erl_esdb_nodes:stop(Peers).

%% It has forgotten what it acknowledged and for whom it voted, so it is nobody whom the others
%% know: what it writes alone stays, and where it joins them it takes the place of the lost one.
a_member_that_has_lost_its_disk_is_another(Config) ->
    [A, B, C] = cluster(3, Config),
    {ok, 9} = append(A, any, 10),
    ok = erl_esdb_nodes:kill(B),
    ok = file:del_dir_r(maps:get(data_dir, options(B, Config))),
    New = erl_esdb_nodes:restart(B),
    Alone = (options(New, Config))#{mode => single},
    ok = erl_esdb_nodes:start_store(New, ?STORE, Alone),
    Mine = fun(Count) ->
        streams(New, append, [<<"mine">>, any, erl_esdb_test:events(Count)])
    end,
    {ok, 1} = Mine(2),
    [ok = erl_esdb_nodes:connect(P, Q) || {P, Q} <- [{New, A}, {New, C}]],
    {ok, 19} = append(A, 9, 10),
    ?assertEqual(lists:seq(0, 19), versions(C)),
    ?assertEqual({ok, names([New])}, call(New, members, [])),
    ?assertEqual({ok, 3}, Mine(2)),
    ?assertEqual(lists:seq(0, 3), versions(New)),
    ?assertEqual({error, {not_empty, ?STORE}}, call(New, join, [erl_esdb_nodes:name(A)])),
    %% What it had is given up.
    ok = call(New, drop, []),
    ok = erl_esdb_nodes:start_store(New, ?STORE, Alone),
    ?assertEqual(ok, call(New, join, [erl_esdb_nodes:name(A)])),
    Peers = [A, New, C],
    [?assertEqual({ok, names(Peers)}, call(Peer, members, [])) || Peer <- Peers],
    ?assertEqual(lists:seq(0, 19), versions(New)),
    %% It is one of three, where there were four with the lost one.
    ok = erl_esdb_nodes:kill(C),
    ?assertEqual({ok, 20}, append(New, 19, 1, 60_000)),
    ok = erl_esdb_nodes:stop([A, New]).

%% Between the one and the other its server does not vote, and the others do not know of it.
a_node_that_is_killed_before_it_has_joined(Config) ->
    [A, B] = cluster(2, Config),
    {ok, 9} = append(A, any, 10),
    [New] = erl_esdb_nodes:start(1),
    Alone = (options(New, Config))#{mode => single},
    ok = erl_esdb_nodes:start_store(New, ?STORE, Alone),
    ok = erl_esdb_nodes:connect(New, A),
    _ = call(A, transfer_leadership, [erl_esdb_nodes:name(A)]),
    %% One of two decides nothing.
    ok = erl_esdb_nodes:kill(B),
    {_, Ref} = spawn_monitor(fun() -> call(New, join, [erl_esdb_nodes:name(A)]) end),
    Server = server(New),
    erl_esdb_test:await(fun() ->
        Metrics = erl_esdb_nodes:call(New, ra, key_metrics, [Server]),
        maps:get(membership, Metrics, none) =:= promotable
    end),
    ok = erl_esdb_nodes:kill(New),
    receive
        {'DOWN', Ref, process, _, _} -> ok
    end,
    [Back, Again] = [erl_esdb_nodes:restart(Peer) || Peer <- [B, New]],
    ok = start_store(Back, Config),
    ok = erl_esdb_nodes:start_store(Again, ?STORE, Alone),
    [ok = erl_esdb_nodes:connect(P, A) || P <- [Back, Again]],
    ?assertEqual({ok, 10}, append(A, 9, 1, 60_000)),
    ?assertEqual(ok, call(Again, join, [erl_esdb_nodes:name(A)])),
    Peers = [A, Back, Again],
    [?assertEqual({ok, names(Peers)}, call(Peer, members, [])) || Peer <- Peers],
    ?assertEqual(lists:seq(0, 10), versions(Again)),
    ok = erl_esdb_nodes:stop(Peers).

a_leadership_is_handed_over(Config) ->
    Peers = cluster(3, Config),
    {ok, 0} = append(hd(Peers), any, 1),
    Leader = leader(Peers),
    [Next | _] = Peers -- [Leader],
    ?assertEqual(ok, call(Leader, transfer_leadership, [erl_esdb_nodes:name(Next)])),
    [
        erl_esdb_test:await(fun() -> call(Peer, leader, []) =:= {ok, erl_esdb_nodes:name(Next)} end)
     || Peer <- Peers
    ],
    ?assertEqual({ok, 1}, append(Leader, 0, 1)),
    ?assertEqual(
        {error, {not_member, 'nobody@127.0.0.1'}},
        call(Leader, transfer_leadership, ['nobody@127.0.0.1'])
    ),
    ok = erl_esdb_nodes:stop(Peers).

%% The one that would be asked first to lead: who leaves asks another one, and does not wait for it.
a_dead_member_is_not_asked_to_lead(Config) ->
    Peers = cluster(4, Config),
    {ok, 0} = append(hd(Peers), any, 1),
    Leader = leader(Peers),
    Name = erl_esdb_nodes:name(Leader),
    Server = server(Leader),
    {ok, Members, _} = erl_esdb_nodes:call(Leader, ra, members, [Server]),
    [{_, First} | _] = lists:delete(Server, Members),
    [Dead] = [Peer || Peer <- Peers, erl_esdb_nodes:name(Peer) =:= First],
    Others = Peers -- [Leader, Dead],
    ok = erl_esdb_nodes:kill(Dead),
    Connected = fun(Peer) -> erl_esdb_nodes:call(Peer, erlang, nodes, [connected]) end,
    erl_esdb_test:await(fun() ->
        not lists:any(fun(Peer) -> lists:member(First, Connected(Peer)) end, [Leader | Others])
    end),
    [
        ?assertEqual({error, {unreachable, First}}, call(Peer, transfer_leadership, [First]))
     || Peer <- [Leader | Others]
    ],
    %% It leads as before.
    ?assertEqual({ok, 1}, append(Leader, 0, 1)),
    ?assertEqual({ok, Name}, call(Leader, leader, [])),
    ?assertEqual(ok, call(Leader, leave, [])),
    [Left | _] = Others,
    ?assertEqual({ok, 2}, append(Left, 1, 1)),
    ok = erl_esdb_nodes:stop([Leader | Others]).

a_all_nodes_are_killed_at_once(Config) ->
    Peers = cluster(3, Config),
    {ok, 99} = append(hd(Peers), any, 100),
    lists:foreach(fun erl_esdb_nodes:kill/1, Peers),
    [A | _] = Back = [erl_esdb_nodes:restart(Peer) || Peer <- Peers],
    lists:foreach(fun(Peer) -> start_store(Peer, Config) end, Back),
    [?assertEqual(lists:seq(0, 99), versions(Peer)) || Peer <- Back],
    ?assertEqual({ok, 100}, append(A, 99, 1)),
    ok = erl_esdb_nodes:stop(Back).

%% Each node, one after the other, while several clients write and read all the time: its store is
%% stopped and started again; then the node is killed and booted.
a_rolling_restart(Config) ->
    Last = under_load(cluster(3, Config), fun(Up) ->
        Stopped = [
            begin
                ok = down(Up, Peer),
                ok = call(Peer, stop_store, []),
                ok = await_calls(Up, 50),
                start_store(Peer, Config),
                ok = up(Up, Peer),
                ok = await_calls(Up, 50),
                Peer
            end
         || Peer <- members(Up)
        ],
        [
            begin
                ok = await_calls(killed(Up, Peer), 50),
                Back = back(Up, Peer, Config),
                ok = await_calls(Up, 50),
                Back
            end
         || Peer <- Stopped
        ]
    end),
    ok = erl_esdb_nodes:stop(Last).

%% ---- clients

%% Runs a fun while clients ask those of the nodes that are up, and judges at the end what they were
%% answered, and what there is on the nodes that the fun answers.
under_load(Peers, Fun) ->
    Seed = rand:uniform(1_000_000_000),
    ct:pal("seed ~b", [Seed]),
    History = erl_esdb_history:new(),
    Up = {ets:new(up, [public, ordered_set]), History},
    ok = lists:foreach(fun(Peer) -> up(Up, Peer) end, Peers),
    Stop = atomics:new(1, []),
    Load = #{
        history => History,
        store => ?STORE,
        targets => fun() -> targets(Up) end,
        seed => Seed,
        clients => 5,
        operations => 1_000_000,
        stop => Stop
    },
    {_, Ref} = spawn_monitor(fun() -> exit({done, erl_esdb_load:run(Load)}) end),
    Last =
        try
            Fun(Up)
        after
            ok = atomics:put(Stop, 1, 1)
        end,
    receive
        {'DOWN', Ref, process, _, Ended} -> ct:pal("~p", [Ended])
    end,
    [First | Others] = [final(Peer) || Peer <- Last],
    [?assertEqual(First, Final) || Final <- Others],
    Violations = erl_esdb_history:check(erl_esdb_history:entries(History), First),
    Violations =:= [] orelse ct:fail("~ts", [lists:map(fun erl_esdb_history:format/1, Violations)]),
    ?assertMatch({done, #{ok := _}}, Ended),
    ok = erl_esdb_history:delete(History),
    Last.

final(Peer) ->
    {ok, Final} = erl_esdb_history:final(?STORE, via(Peer)),
    Final.

via(Peer) -> fun(M, F, Arguments) -> erl_esdb_nodes:call(Peer, M, F, Arguments) end.

%% A node that starts again is another life of it.
targets({Table, _}) -> [{Target, via(Peer)} || {_, Target, Peer} <- ets:tab2list(Table)].

members({Table, _}) -> [Peer || {_, _, Peer} <- ets:tab2list(Table)].

up({Table, _}, Peer) ->
    Name = erl_esdb_nodes:name(Peer),
    true = ets:insert(Table, {Name, {Name, erlang:unique_integer([positive])}, Peer}),
    ok.

down({Table, _}, Peer) ->
    true = ets:delete(Table, erl_esdb_nodes:name(Peer)),
    ok.

%% Clients may be waiting for it.
killed({_, History} = Up, Peer) ->
    ok = erl_esdb_history:fault(History, killed),
    ok = erl_esdb_nodes:kill(Peer),
    ok = down(Up, Peer),
    Up.

back(Up, Peer, Config) ->
    Back = erl_esdb_nodes:restart(Peer),
    start_store(Back, Config),
    ok = up(Up, Back),
    Back.

%% So many calls more.
await_calls({_, History}, Count) ->
    Wanted = erl_esdb_history:operations(History) + Count,
    erl_esdb_test:await(fun() -> erl_esdb_history:operations(History) >= Wanted end, 120_000).

%% A member that was away while the others wrote snapshots and forgot their log.
a_member_catches_up_with_a_snapshot(Config) ->
    [A, B, C] = Peers = cluster(3, Config),
    {ok, 9} = append(A, any, 10),
    ok = call(C, stop_store, []),
    [{ok, _} = append(A, any, 100) || _ <- lists:seq(1, 20)],
    ok = snapshotted(leader([A, B])),
    {ok, _} = append(B, any, 10),
    start_store(C, Config),
    ?assertEqual(log(A, linearizable), log(C, linearizable)),
    ?assertEqual(2020, length(versions(C))),
    %% And what it has is enough to lead.
    ok = call(A, transfer_leadership, [erl_esdb_nodes:name(C)]),
    ?assertEqual({ok, 2020}, append(C, 2019, 1)),
    ok = erl_esdb_nodes:stop(Peers).

%% A read that waits for what is not here yet goes on where that comes with a snapshot, which puts
%% other tables in the place of those it waited at.
a_read_that_waits_sees_what_comes_with_a_snapshot(Config) ->
    [A, B, C] = Peers = cluster(3, Config),
    {ok, 0} = append(C, any, 1),
    ?assertEqual([0], versions(C)),
    ok = call(A, transfer_leadership, [erl_esdb_nodes:name(A)]),
    Led = fun() -> call(C, leader, []) =:= {ok, erl_esdb_nodes:name(A)} end,
    erl_esdb_test:await(Led),
    {Server, _} = server(C),
    ok = erl_esdb_nodes:call(C, sys, suspend, [Server]),
    ok = snapshotted(A),
    {ok, 1} = append(C, any, 1),
    Read = fun() -> streams(C, read, [?S, 0, infinity, forward, #{timeout => 60_000}]) end,
    {_, Ref} = spawn_monitor(fun() -> exit({read, Read()}) end),
    erl_esdb_test:await(fun() -> is_awaited(C) end),
    ok = erl_esdb_nodes:call(C, sys, resume, [Server]),
    receive
        {'DOWN', Ref, process, _, Reason} ->
            ?assertMatch({read, {ok, [#event{version = 0}, #event{version = 1}]}}, Reason)
    end,
    ?assertEqual(versions(A), versions(B)),
    ok = erl_esdb_nodes:stop(Peers).

%% Whether somebody there waits until more is applied.
is_awaited(Peer) -> erl_esdb_nodes:call(Peer, ?MODULE, is_awaited, []).

is_awaited() ->
    Waits = {current_function, {erl_esdb_ra_replica, waited, 2}},
    lists:any(fun(Pid) -> process_info(Pid, current_function) =:= Waits end, processes()).

snapshotted(Peer) -> ok = erl_esdb_nodes:call(Peer, erl_esdb_test, snapshotted, [?STORE]).

%% ---- another version

%% A running cluster is upgraded one node at a time, while it is written to. What only the next
%% version knows is done when all have it, and by all at the same place of the log.
a_machine_of_the_next_version(Config) ->
    Peers = cluster(3, Config),
    {ok, 9} = append(hd(Peers), any, 10),
    Next = filename:join(proplists:get_value(dir, Config), "next"),
    ok = erl_esdb_ra_machine_next:beam(Next),
    Upgrade = fun(Peer, {Up, N}) ->
        [Writer | _] = Others = lists:delete(Peer, Up),
        ?assertEqual({ok, {error, unknown_command}}, word(Writer)),
        ok = erl_esdb_nodes:stop([Peer]),
        {ok, N} = append(Writer, any, 1),
        New = erl_esdb_nodes:restart(Peer, ["-pa", Next]),
        start_store(New, Config),
        ?assertEqual(lists:seq(0, N), versions(New)),
        {Others ++ [New], N + 1}
    end,
    {[A | _] = Upgraded, 13} = lists:foldl(Upgrade, {Peers, 10}, Peers),
    erl_esdb_test:await(fun() -> word(A) =:= {ok, {next, word}} end),
    [?assertEqual({ok, {next, word}}, word(Peer)) || Peer <- Upgraded],
    {ok, 13} = append(A, 12, 1),
    [?assertEqual(lists:seq(0, 13), versions(Peer)) || Peer <- Upgraded],
    %% Snapshots of the new version are read by it.
    ok = snapshotted(leader(Upgraded)),
    ok = call(A, stop_store, []),
    start_store(A, Config),
    ?assertEqual(lists:seq(0, 13), versions(A)),
    ok = erl_esdb_nodes:stop(Upgraded).

word(Peer) ->
    Server = server(Peer),
    case erl_esdb_nodes:call(Peer, ra, process_command, [Server, {next, word}]) of
        {ok, {_Index, Answer}, _Leader} -> {ok, Answer};
        Failure -> Failure
    end.
