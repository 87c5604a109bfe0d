-module(erl_esdb_consistency_SUITE).
-moduledoc "Whether the members of a cluster agree.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_nodes, [call/4, name/1]).
-import(erl_esdb_test, [await/1]).

-define(CHECKER, erl_esdb_consistency_checker).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_cns_01_status,
        a_cns_02_check_now,
        a_cns_03_membership,
        a_cns_04_leader,
        a_cns_05_raft,
        a_cns_06_quorum,
        a_cns_07_quorum_table,
        a_cns_08_status_change,
        a_cns_09_precedence,
        a_cns_10_telemetry,
        a_cns_11_interval,
        b_views_that_differ,
        b_leaders_that_differ,
        b_logs_that_differ,
        b_split_brain_of_real_nodes,
        b_a_member_that_is_gone
    ].

init_per_suite(Config) -> erl_esdb_nodes:init_per_suite(Config).

end_per_suite(Config) -> erl_esdb_nodes:end_per_suite(Config).

end_per_testcase(_, _) -> lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()).

start() ->
    Store = erl_esdb_test:start_store(erl_esdb_nodes:options()),
    {ok, 0} = erl_esdb_streams:append(Store, ~"s", -1, erl_esdb_test:events(1)),
    Store.

a_cns_01_status(_) ->
    ?assertEqual({ok, healthy}, ?CHECKER:get_status(start())),
    ?assertEqual({error, not_running}, ?CHECKER:get_status(nosuch)),
    ?assertEqual({error, not_running}, ?CHECKER:on_status_change(nosuch, fun(_) -> ok end)),
    ?assertEqual({error, not_running}, ?CHECKER:remove_callback(nosuch, make_ref())).

a_cns_02_check_now(_) ->
    Result = ?CHECKER:check_now(start()),
    ?assertMatch(
        #{
            status := healthy,
            checks := #{
                membership := #{status := ok, message := _, data := #{}},
                leader := #{status := ok, message := _, data := #{}},
                raft := #{status := ok, message := _, data := #{}},
                quorum := #{status := ok, message := _, data := #{}}
            },
            timestamp := T,
            duration_us := D
        } when T > 1_700_000_000_000 andalso D >= 0,
        Result
    ),
    ?assertEqual(4, map_size(maps:get(checks, Result))),
    %% Without its process too, where the store runs.
    {ok, _} = erl_esdb:start_store(single, #{}),
    ?assertMatch(#{status := healthy}, ?CHECKER:check_now(single)),
    ?assertEqual({error, {store_not_started, nosuch}}, ?CHECKER:check_now(nosuch)).

a_cns_03_membership(_) ->
    ?assertEqual(
        {ok, #{
            status => consensus,
            nodes_checked => 1,
            nodes_responded => 1,
            failed_nodes => [],
            consistent_view => [node()]
        }},
        ?CHECKER:verify_membership_consensus(start())
    ).

a_cns_04_leader(_) ->
    ?assertEqual(
        {ok, #{status => consensus, leader => node()}}, ?CHECKER:verify_leader_consensus(start())
    ).

a_cns_05_raft(_) ->
    ?assertEqual(
        {ok, #{
            status => consensus,
            terms => #{node() => 0},
            terms_consistent => true,
            commit_index_range => {1, 1},
            max_commit_lag => 0,
            leader => node()
        }},
        ?CHECKER:verify_raft_consistency(start())
    ).

a_cns_06_quorum(_) ->
    ?assertEqual(
        {ok, #{
            has_quorum => true,
            total_nodes => 1,
            available_nodes => 1,
            required_quorum => 1,
            quorum_margin => 0,
            can_lose => 0
        }},
        ?CHECKER:get_quorum_status(start())
    ),
    ?assertEqual({error, {store_not_started, nosuch}}, ?CHECKER:get_quorum_status(nosuch)).

a_cns_07_quorum_table(_) ->
    Table = [{1, 1}, {2, 2}, {3, 2}, {4, 3}, {5, 3}, {6, 4}, {7, 4}],
    [?assertEqual(Required, erl_esdb_consistency:required_quorum(N)) || {N, Required} <- Table],
    [
        ?assertMatch(
            #{
                has_quorum := Has,
                total_nodes := N,
                available_nodes := A,
                required_quorum := Required,
                quorum_margin := Margin,
                can_lose := CanLose
            } when
                Has =:= (A >= Required) andalso Margin =:= A - Required andalso
                    CanLose =:= max(0, A - Required),
            erl_esdb_consistency:quorum(N, A)
        )
     || {N, Required} <- Table, A <- lists:seq(0, N)
    ].

%% A member is killed: enough are there, then not.
a_cns_08_status_change(_) ->
    with_members(3, fun([A, B, C]) ->
        ok = call(A, ?MODULE, remember, [shop]),
        ?assertMatch(#{status := healthy}, check(A)),
        ?assertEqual([], called(A)),
        ok = erl_esdb_nodes:kill(C),
        [?assertMatch(#{status := degraded}, check(A)) || _ <- [1, 2]],
        ok = erl_esdb_nodes:kill(B),
        ?assertMatch(#{status := no_quorum}, check(A)),
        await(fun() -> called(A) =:= [degraded, no_quorum] end),
        ?assertEqual({ok, no_quorum}, call(A, ?CHECKER, get_status, [shop])),
        ?assertMatch(
            {ok, #{has_quorum := false, total_nodes := 3, available_nodes := 1, can_lose := 0}},
            call(A, ?CHECKER, get_quorum_status, [shop])
        )
    end).

with_members(Count, Fun) ->
    [First | Others] = Peers = erl_esdb_nodes:start(Count),
    try
        [ok = call(P, application, set_env, [erl_esdb, consistency_check_interval, 3600_000])
         || P <- Peers],
        [erl_esdb_nodes:start_fake(P, shop, erl_esdb_nodes:options()) || P <- Peers],
        [call(P, erl_esdb, join, [shop, name(First)]) || P <- Others],
        All = {ok, lists:sort([name(P) || P <- Peers])},
        await(fun() -> [] =:= [P || P <- Peers, call(P, erl_esdb, members, [shop]) =/= All] end),
        Fun(Peers)
    after
        erl_esdb_nodes:stop(Peers)
    end.

check(Peer) -> call(Peer, ?CHECKER, check_now, [shop]).

%% Each status that it was called with, in order; one that was removed is not called.
remember(Store) ->
    Put = fun(Prefix) ->
        fun(Status) ->
            Key = {Prefix, erlang:unique_integer([monotonic, positive])},
            application:set_env(erl_esdb_gater, Key, Status)
        end
    end,
    Kept = ?CHECKER:on_status_change(Store, Put(called)),
    Removed = ?CHECKER:on_status_change(Store, Put(removed)),
    ok = ?CHECKER:remove_callback(Store, Removed),
    true = is_reference(Kept),
    ok.

called(Peer) ->
    Env = call(Peer, application, get_all_env, [erl_esdb_gater]),
    ?assertEqual([], [Key || {{removed, _} = Key, _} <- Env]),
    [Status || {_, Status} <- lists:sort([{N, Status} || {{called, N}, Status} <- Env])].

a_cns_09_precedence(_) ->
    Check = fun(Which, Data) -> erl_esdb_consistency:check(Which, Data) end,
    Good = #{
        membership => Check(membership, #{status => consensus, failed_nodes => []}),
        leader => Check(leader, #{status => consensus, leader => a}),
        raft => Check(raft, #{status => consensus}),
        quorum => Check(quorum, erl_esdb_consistency:quorum(3, 3))
    },
    Split = Check(membership, #{status => split_brain}),
    None = Check(quorum, erl_esdb_consistency:quorum(3, 1)),
    Lag = Check(raft, #{status => warning}),
    NoLeader = Check(leader, #{status => no_leader}),
    Overall = fun(Changes) -> erl_esdb_consistency:overall(maps:merge(Good, Changes)) end,
    ?assertEqual(healthy, Overall(#{})),
    ?assertEqual(degraded, Overall(#{raft => Lag})),
    ?assertEqual(degraded, Overall(#{leader => NoLeader})),
    ?assertEqual(no_quorum, Overall(#{raft => Lag, quorum => None})),
    ?assertEqual(split_brain, Overall(#{raft => Lag, quorum => None, membership => Split})),
    Of = fun(#{status := Status}) -> Status end,
    ?assertEqual([error, error, warning, error], [Of(C) || C <- [Split, None, Lag, NoLeader]]),
    Some = Check(quorum, erl_esdb_consistency:quorum(3, 2)),
    ?assertEqual({warning, degraded}, {Of(Some), Overall(#{quorum => Some})}).

a_cns_10_telemetry(_) ->
    with_members(2, fun([A, B]) ->
        Events = [
            ?CONSISTENCY_CHECK_COMPLETE,
            ?CONSISTENCY_STATUS_CHANGED,
            ?SPLIT_BRAIN_DETECTED,
            ?QUORUM_LOST,
            ?QUORUM_RESTORED
        ],
        ok = erl_esdb_nodes:collect(A, Events),
        ?assertMatch(#{status := healthy}, check(A)),
        ?assertMatch(
            [
                {?CONSISTENCY_CHECK_COMPLETE, #{duration_us := _}, #{
                    store_id := shop, status := healthy, checks := #{quorum := _}
                }}
            ],
            erl_esdb_nodes:collected(A)
        ),
        ok = erl_esdb_nodes:kill(B),
        ?assertMatch(#{status := no_quorum}, check(A)),
        ?assertMatch(
            [
                {?QUORUM_LOST, #{available_nodes := 1, required_quorum := 2}, #{store_id := shop}},
                {?CONSISTENCY_STATUS_CHANGED, #{system_time := _}, #{
                    old_status := healthy, new_status := no_quorum
                }}
            ],
            others(A)
        ),
        %% The same name with a store of its own is another cluster.
        B1 = erl_esdb_nodes:restart(B),
        ok = erl_esdb_nodes:start_store(B1, shop, erl_esdb_nodes:options()),
        ok = erl_esdb_nodes:connect(A, B1),
        ?assertMatch(#{status := split_brain}, check(A)),
        ?assertMatch(
            [
                {?QUORUM_RESTORED, #{available_nodes := 2}, _},
                {?CONSISTENCY_STATUS_CHANGED, _, #{new_status := split_brain}},
                {?SPLIT_BRAIN_DETECTED, #{system_time := _}, #{result := #{checks := _}}}
            ],
            lists:nthtail(2, others(A))
        ),
        ok = erl_esdb_nodes:stop([B1])
    end).

others(Peer) ->
    [T || {E, _, _} = T <- erl_esdb_nodes:collected(Peer), E =/= ?CONSISTENCY_CHECK_COMPLETE].

%% At least a second lies between two checks, whatever is asked for.
a_cns_11_interval(_) ->
    ok = application:set_env(erl_esdb, consistency_check_interval, 10),
    Store = erl_esdb_test:start_store(erl_esdb_nodes:options()),
    Self = self(),
    %% When it was checked, not when that was heard of.
    Tell = fun
        (_, _, #{store_id := S}, _) when S =:= Store ->
            Self ! {checked, erlang:monotonic_time(millisecond)};
        (_, _, _, _) ->
            ok
    end,
    ok = erl_esdb_telemetry:attach_many(
        ?FUNCTION_NAME, [?CONSISTENCY_CHECK_COMPLETE], Tell, none
    ),
    [First, Second] = [receive {checked, At} -> At end || _ <- [first, second]],
    ?assert(Second - First >= 990),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    ok = application:unset_env(erl_esdb, consistency_check_interval),
    %% Not in mode single.
    {ok, Pid} = ?CHECKER:start_link(#store_config{store_id = single}),
    ?assertEqual({ok, healthy}, ?CHECKER:get_status(single)),
    ok = gen_server:stop(Pid).

%% ---- answers that no real nodes give at will

view(Members) -> view(Members, a, 1, 10).

view(Members, Leader, Term, Index) ->
    {ok, #{
        members => Members,
        leader => Leader,
        role => follower,
        term => Term,
        commit_index => Index,
        last_applied => Index
    }}.

b_views_that_differ(_) ->
    Membership = fun erl_esdb_consistency:membership/1,
    ?assertMatch(
        #{status := consensus, consistent_view := [a, b], nodes_responded := 2},
        Membership(#{a => view([a, b]), b => view([b, a])})
    ),
    ?assertMatch(
        #{
            status := split_brain,
            conflicting_views := 2,
            views := #{[a, b] := [a], [b] := [b]},
            failed_nodes := [c],
            nodes_checked := 3
        },
        Membership(#{a => view([a, b]), b => view([b]), c => {error, noconnection}})
    ),
    Nobody = Membership(#{c => {error, down}}),
    ?assertMatch(#{status := error}, erl_esdb_consistency:check(membership, Nobody)).

b_leaders_that_differ(_) ->
    Leader = fun(Leaders) ->
        erl_esdb_consistency:leader(#{N => view([a, b], L, 1, 1) || {N, L} <- Leaders})
    end,
    ?assertEqual(#{status => consensus, leader => a}, Leader([{a, a}, {b, a}])),
    ?assertEqual(
        #{status => no_consensus, leaders_reported => #{a => a, b => b}}, Leader([{a, a}, {b, b}])
    ),
    ?assertMatch(#{status := no_consensus}, Leader([{a, a}, {b, undefined}])),
    ?assertEqual(#{status => no_leader}, Leader([{a, undefined}, {b, undefined}])),
    ?assertEqual(#{status => no_leader}, Leader([])).

b_logs_that_differ(_) ->
    Raft = fun(Logs) ->
        erl_esdb_consistency:raft(#{N => view([a, b], a, T, I) || {N, T, I} <- Logs})
    end,
    ?assertMatch(#{status := consensus, max_commit_lag := 99}, Raft([{a, 2, 1}, {b, 2, 100}])),
    ?assertMatch(
        #{status := warning, max_commit_lag := 100, commit_index_range := {0, 100}},
        Raft([{a, 2, 0}, {b, 2, 100}])
    ),
    ?assertMatch(
        #{status := warning, terms_consistent := false, terms := #{a := 1, b := 2}, leader := a},
        Raft([{a, 1, 5}, {b, 2, 5}])
    ),
    ?assertMatch(#{commit_index_range := {0, 0}}, Raft([])).

%% ---- real ones

b_split_brain_of_real_nodes(_) ->
    [A, B, C] = Peers = erl_esdb_nodes:start(3),
    [erl_esdb_nodes:start_store(P, shop, erl_esdb_nodes:options()) || P <- [A, B]],
    %% In mode single it is a store of its own, that nobody wants to join.
    ok = erl_esdb_nodes:start_store(C, shop, #{}),
    ok = erl_esdb_nodes:connect(A, C),
    ?assertMatch(#{status := healthy}, check(A)),
    ok = erl_esdb_nodes:connect(A, B),
    ?assertMatch(
        #{status := split_brain, checks := #{membership := #{data := #{conflicting_views := 2}}}},
        check(A)
    ),
    ok = erl_esdb_nodes:stop(Peers).

b_a_member_that_is_gone(_) ->
    with_members(3, fun([A, B, C]) ->
        ok = erl_esdb_nodes:kill(C),
        Gone = [name(C)],
        ?assertMatch(
            {ok, #{status := consensus, nodes_checked := 3, failed_nodes := Gone}},
            call(B, ?CHECKER, verify_membership_consensus, [shop])
        ),
        ?assertMatch(
            {ok, #{has_quorum := true, quorum_margin := 0, available_nodes := 2}},
            call(A, ?CHECKER, get_quorum_status, [shop])
        )
    end).
