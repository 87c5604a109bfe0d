-module(erl_esdb_leader_SUITE).
-moduledoc "What a node does for a store when it leads, for callers of the original.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_test, [await/1, start_store/1]).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_ldr_01_not_active_at_first,
        a_ldr_02_activate,
        a_ldr_03_all_events_once,
        a_ldr_04_pools_of_stored_subscriptions,
        a_ldr_05_telemetry,
        a_ldr_06_the_tracker_follows,
        a_ldr_07_supervised,
        b_who_leads_no_more_stops,
        b_only_who_leads_can,
        b_groups_that_begin_anew
    ].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_) -> application:stop(erl_esdb).

end_per_testcase(_, _) -> lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()).

members(Store, Key) -> length(erl_esdb_emitter_group:members(Store, Key)).

a_ldr_01_not_active_at_first(_) ->
    Store = start_store(#{}),
    ?assertNot(erl_esdb_leader:is_active(Store)),
    ?assertNot(erl_esdb_leader:is_active(nosuch)).

a_ldr_02_activate(_) ->
    Store = start_store(#{}),
    ?assertEqual({error, not_started}, erl_esdb_leader:activate(nosuch)),
    ?assertEqual(ok, erl_esdb_leader:activate(Store)),
    ?assert(erl_esdb_leader:is_active(Store)),
    ?assertEqual(ok, erl_esdb_leader:activate(Store)),
    %% The process that was activated is gone.
    Name = erl_esdb_naming:leader_name(Store),
    Pid = whereis(Name),
    exit(Pid, kill),
    await(fun() -> not lists:member(whereis(Name), [Pid, undefined]) end),
    ?assertNot(erl_esdb_leader:is_active(Store)),
    ok = erl_esdb:stop_store(Store),
    ?assertNot(erl_esdb_leader:is_active(Store)).

a_ldr_03_all_events_once(_) ->
    Store = start_store(#{}),
    [?assertEqual(ok, erl_esdb_leader:activate(Store)) || _ <- [1, 2]],
    {ok, Key, Subscription} = erl_esdb_subscriptions_store:find_by_name(Store, ~"all-events"),
    ?assertMatch(#subscription{type = stream, selector = ~"$all"}, Subscription),
    ?assertMatch({ok, [_]}, erl_esdb_subscriptions:list(Store)),
    %% Nobody has to take the events; who does gets them all.
    {ok, 1} = erl_esdb_streams:append(Store, ~"s", -1, erl_esdb_test:events(2)),
    ok = erl_esdb_subscriptions:attach(Store, Key, self()),
    [receive {events, [#event{version = V}]} -> ok end || V <- [0, 1]],
    Leader = whereis(erl_esdb_naming:leader_name(Store)),
    ?assertEqual({message_queue_len, 0}, process_info(Leader, message_queue_len)).

a_ldr_04_pools_of_stored_subscriptions(_) ->
    Store = start_store(#{}),
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", ~"sub", #{
        subscriber => self(), pool_size => 3
    }),
    ?assertEqual(0, members(Store, Key)),
    ok = erl_esdb_leader:activate(Store),
    ?assertEqual(3, members(Store, Key)),
    %% They pass on what is broadcast, and deliver nothing twice.
    {ok, 0} = erl_esdb_streams:append(Store, ~"s", -1, erl_esdb_test:events(1)),
    receive
        {events, [#event{version = 0} = Event]} ->
            ok = erl_esdb_emitter_group:broadcast(Store, Key, Event)
    end,
    receive
        {events, [#event{version = 0}]} -> ok
    end,
    {ok, 1} = erl_esdb_streams:append(Store, ~"s", 0, erl_esdb_test:events(1)),
    receive
        {events, [Next]} -> ?assertMatch(#event{version = 1}, Next)
    end.

a_ldr_05_telemetry(_) ->
    Store = start_store(#{}),
    {ok, _} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", ~"sub"),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store, [?CLUSTER_LEADER_ELECTED]),
    [ok = erl_esdb_leader:activate(Store) || _ <- [1, 2]],
    Node = node(),
    ?assertMatch(
        [
            {?CLUSTER_LEADER_ELECTED, #{system_time := _}, #{
                leader := Node, previous_leader := undefined, subscription_count := 2
            }}
        ],
        erl_esdb_test:collected(?FUNCTION_NAME)
    ),
    ok = erl_esdb_test:release(?FUNCTION_NAME).

a_ldr_06_the_tracker_follows(_) ->
    Store = start_store(#{}),
    Subscribe = fun(Name, Options) ->
        {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", Name, Options),
        Key
    end,
    Before = Subscribe(~"before", #{}),
    tracked(Store),
    ?assertEqual(0, members(Store, Before)),
    ok = erl_esdb_leader:activate(Store),
    Key = Subscribe(~"sub", #{pool_size => 2}),
    tracked(Store),
    ?assertEqual(2, members(Store, Key)),
    %% One that was changed has what it says now.
    ok = erl_esdb_subscriptions:attach(Store, Key, self()),
    tracked(Store),
    {ok, [Event | _]} = appended(Store),
    receive
        {events, [_]} -> ok
    end,
    ok = erl_esdb_emitter_group:broadcast(Store, Key, Event),
    receive
        {events, [Event]} -> ok
    end,
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    tracked(Store),
    ?assertEqual(0, members(Store, Key)),
    ?assertEqual([], erl_esdb_emitter_group:retrieve_emitters(Store, Key)).

appended(Store) ->
    {ok, 0} = erl_esdb_streams:append(Store, ~"s", -1, erl_esdb_test:events(1)),
    erl_esdb_streams:read(Store, ~"s", 0, 1, forward).

%% What the tracker was told so far is done.
tracked(Store) ->
    Tracker = erl_esdb_naming:leader_tracker_name(Store),
    {error, unknown_request} = gen_server:call(Tracker, ?FUNCTION_NAME).

a_ldr_07_supervised(_) ->
    Store = start_store(#{}),
    Children = supervisor:which_children(erl_esdb_naming:leader_sup_name(Store)),
    ?assertEqual([leader, leader_tracker], lists:sort([Id || {Id, _, worker, _} <- Children])),
    Members = erl_esdb_tracker_group:members(Store, subscriptions),
    ?assertEqual([whereis(erl_esdb_naming:leader_tracker_name(Store))], Members),
    ok = erl_esdb:stop_store(Store),
    ?assertEqual([], erl_esdb_tracker_group:members(Store, subscriptions)).

b_who_leads_no_more_stops(_) ->
    Store = start_store(#{}),
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", ~"sub"),
    ok = erl_esdb_leader:activate(Store),
    ?assertEqual(1, members(Store, Key)),
    Leader = whereis(erl_esdb_naming:leader_name(Store)),
    Leader ! {erl_esdb_leader, Store, 'another@127.0.0.1'},
    await(fun() -> not erl_esdb_leader:is_active(Store) end),
    {error, unknown_request} = gen_server:call(Leader, anything),
    ?assertEqual(0, members(Store, Key)),
    %% Nor does the tracker start any.
    {ok, Key2} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", ~"other"),
    tracked(Store),
    ?assertEqual(0, members(Store, Key2)),
    ok = erl_esdb_leader:activate(Store),
    ?assertEqual({1, 1}, {members(Store, Key), members(Store, Key2)}).

b_only_who_leads_can(_) ->
    [A, B] = Peers = erl_esdb_nodes:start(2),
    [erl_esdb_nodes:start_fake(P, shop, #{}) || P <- Peers],
    ok = erl_esdb_nodes:call(B, erl_esdb, join, [shop, erl_esdb_nodes:name(A)]),
    Activate = fun(P) -> erl_esdb_nodes:call(P, erl_esdb_leader, activate, [shop]) end,
    ?assertEqual([ok, {error, not_leader}], [Activate(P) || P <- Peers]),
    ok = erl_esdb_nodes:stop(Peers).

b_groups_that_begin_anew(_) ->
    Store = start_store(#{}),
    Tracker = whereis(erl_esdb_naming:leader_tracker_name(Store)),
    erl_esdb_test:quietly(fun() ->
        exit(whereis(erl_esdb_pg), kill),
        await(fun() ->
            whereis(erl_esdb_pg) =/= undefined andalso
                erl_esdb_tracker_group:members(Store, subscriptions) =:= [Tracker]
        end)
    end).
