-module(erl_esdb_failover_SUITE).
-moduledoc """
What runs on the node that leads, when another one leads: subscriptions, links, snapshots of
policies. The nodes are real. The engine is that on disk; and one of the tests
(`erl_esdb_engine_fake`), so that the cases run where there is no Ra.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-import(erl_esdb_nodes, [call/4, name/1]).
-import(erl_esdb_test, [await/1, events/2]).

-define(STORE, shop).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [{group, fake}] ++
        lists:append([
            [{group, ra}, b_a_subscriber_of_an_earlier_life, b_a_backup_without_processes]
         || has_ra()
        ]).

has_ra() -> lists:member(ra, erl_esdb_test:engines()).

groups() ->
    [
        {fake, [], [b_handlers_are_kept_before_they_get_events | cases()]},
        {ra, [], cases()}
    ].

cases() ->
    [
        b_a_subscription_runs_where_the_store_is_led,
        b_a_subscriber_of_any_node,
        b_who_subscribed_gets_the_events_of_the_next_leader,
        b_handlers_of_any_node,
        b_acknowledgements_come_from_any_node,
        b_a_handler_that_has_left_acknowledges_to_the_next_leader,
        b_demand_and_info_on_any_node,
        b_competing_consumers_stay_connected,
        b_unsubscribed_on_another_node,
        b_the_leader_is_killed,
        b_back_and_forth,
        b_links_run_where_the_store_is_led,
        b_a_link_with_a_fun,
        b_policies_act_where_the_store_is_led,
        b_places_that_are_handed_over
    ].

init_per_group(Engine, Config) ->
    Folder = filename:join(proplists:get_value(priv_dir, Config), Engine),
    ok = persistent_term:put(?MODULE, {Engine, Folder}),
    Config.

end_per_group(_, _) ->
    {_, Folder} = persistent_term:get(?MODULE),
    _ = file:del_dir_r(Folder),
    persistent_term:erase(?MODULE).

%% ---- nodes, and processes on them that remember what they get

with_nodes(Count, Fun) ->
    [First | Others] = Peers = erl_esdb_nodes:start(Count),
    {Engine, Folder} = persistent_term:get(?MODULE),
    try
        [erl_esdb_nodes:start_on(Engine, P, ?STORE, #{folder => Folder}) || P <- Peers],
        [ok = call(P, erl_esdb, join, [?STORE, name(First)]) || P <- Others],
        ok = leads(First, Peers),
        Fun(Peers)
    after
        erl_esdb_nodes:stop(Peers)
    end.

%% An election may come in between.
leads(Leader, Peers) ->
    Args = [?STORE, name(Leader)],
    await(fun() -> call(hd(Peers), erl_esdb, transfer_leadership, Args) =:= ok end),
    await(fun() -> [] =:= [P || P <- Peers, known(P) =/= name(Leader)] end).

known(Peer) -> call(Peer, erl_esdb_cluster, known_leader, [?STORE]).

append(Peer, From, To) ->
    {ok, To} = call(Peer, erl_esdb_streams, append, [?STORE, ~"s", From - 1, events(From, To)]).

subscribe(Peer, Name, Options) ->
    Args = [?STORE, stream, ~"s", Name, Options],
    {ok, Key} = call(Peer, erl_esdb_subscriptions, subscribe, Args),
    Key.

%% Whether the process of a subscription is there.
runs(Peer, Key) ->
    call(Peer, erl_esdb_delivery, find, [?STORE, subscription, Key]) =/= error.

%% A process there.
taker(Peer) -> call(Peer, ?MODULE, spawn_taker, []).

spawn_taker() -> spawn(fun() -> taking([]) end).

taking(Got) ->
    receive
        {events, Events} -> taking(lists:reverse(Events) ++ Got);
        {event, Event} -> taking([Event | Got]);
        {got, From, Ref} ->
            From ! {Ref, lists:reverse(Got)},
            taking(Got);
        {run, From, Ref, Fun} ->
            From ! {Ref, Fun()},
            taking(Got)
    end.

got(Peer, Taker) -> [V || #event{version = V} <- call(Peer, ?MODULE, ask, [Taker, got])].

ask(Taker, got) ->
    Ref = make_ref(),
    Taker ! {got, self(), Ref},
    receive
        {Ref, Got} -> Got
    end.

%% Runs a function in the process.
as(Peer, Taker, Module, Function, Args) ->
    call(Peer, ?MODULE, do, [Taker, Module, Function, Args]).

do(Taker, Module, Function, Args) ->
    Ref = make_ref(),
    Taker ! {run, self(), Ref, fun() -> apply(Module, Function, Args) end},
    receive
        {Ref, Answer} -> Answer
    end.

%% All of these have come, in order; those that came again stand out.
complete(Peer, Taker, To) ->
    All = lists:seq(0, To),
    await(fun() -> lists:usort(got(Peer, Taker)) =:= All end),
    first_seen(got(Peer, Taker), -1).

first_seen([Version | Versions], Last) when Version =:= Last + 1 -> first_seen(Versions, Version);
first_seen([Version | Versions], Last) when Version =< Last -> first_seen(Versions, Last);
first_seen([], _) -> ok.

%% ---- subscriptions

b_a_subscription_runs_where_the_store_is_led(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        %% Made on a node that does not lead; it knows it when it returns.
        Key = subscribe(B, ~"sub", #{}),
        Get = [?STORE, Key],
        ?assertMatch({ok, #subscription{id = Key}}, call(B, erl_esdb_subscriptions, get, Get)),
        ?assertEqual([true, false], [runs(P, Key) || P <- Peers]),
        Again = [?STORE, stream, ~"s", ~"sub", #{}],
        ?assertEqual(
            {error, {already_exists, ~"sub"}}, call(B, erl_esdb_subscriptions, subscribe, Again)
        ),
        ok = leads(B, Peers),
        await(fun() -> [runs(P, Key) || P <- Peers] =:= [false, true] end),
        ?assertMatch(
            {ok, #{status := running}}, call(A, erl_esdb_subscriptions, info, [?STORE, Key])
        )
    end).

b_a_subscriber_of_any_node(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        [TakerA, TakerB] = [taker(P) || P <- Peers],
        _ = subscribe(A, ~"a", #{subscriber => TakerA}),
        _ = subscribe(A, ~"b", #{subscriber => TakerB}),
        append(A, 0, 4),
        [complete(P, T, 4) || {P, T} <- [{A, TakerA}, {B, TakerB}]],
        ok = leads(B, Peers),
        append(A, 5, 9),
        [complete(P, T, 9) || {P, T} <- [{A, TakerA}, {B, TakerB}]]
    end).

b_who_subscribed_gets_the_events_of_the_next_leader(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Taker = taker(A),
        Args = [?STORE, stream, ~"s", ~"sub"],
        {ok, Key} = as(A, Taker, erl_esdb_subscriptions, subscribe, Args),
        append(A, 0, 4),
        complete(A, Taker, 4),
        ok = leads(B, Peers),
        append(A, 5, 9),
        complete(A, Taker, 9),
        %% Another one takes its place with the subscription.
        ok = as(A, Taker, erl_esdb_subscriptions, unsubscribe, [?STORE, Key]),
        Other = taker(B),
        {ok, Key} = as(B, Other, erl_esdb_subscriptions, subscribe, Args),
        ok = leads(A, Peers),
        append(A, 10, 12),
        complete(B, Other, 12),
        ?assertEqual(lists:seq(0, 9), lists:usort(got(A, Taker)))
    end).

b_handlers_of_any_node(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Key = subscribe(A, ~"sub", #{}),
        Takers = [{P, taker(P)} || P <- Peers],
        [ok = call(P, erl_esdb_emitter_group, join, [?STORE, Key, T]) || {P, T} <- Takers],
        append(A, 0, 9),
        All = fun() -> lists:usort(lists:append([got(P, T) || {P, T} <- Takers])) end,
        await(fun() -> All() =:= lists:seq(0, 9) end),
        ok = leads(B, Peers),
        append(A, 10, 19),
        await(fun() -> All() =:= lists:seq(0, 19) end)
    end).

%% What is acknowledged does not come again, also where the next leader takes over.
b_acknowledgements_come_from_any_node(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Taker = taker(B),
        Key = subscribe(B, ~"sub", #{subscriber => Taker, ack => manual, window => 3}),
        append(A, 0, 9),
        await(fun() -> got(B, Taker) =:= [0, 1, 2] end),
        Ack = fun(P, N) -> call(P, erl_esdb_subscriptions, ack, [?STORE, ~"sub", ~"s", N]) end,
        ok = Ack(B, 2),
        await(fun() -> got(B, Taker) =:= [0, 1, 2, 3, 4, 5] end),
        ?assertMatch(
            {ok, #subscription{checkpoint = 2}}, call(B, erl_esdb_subscriptions, get, [?STORE, Key])
        ),
        ok = leads(B, Peers),
        %% Those that were out come again, those that were acknowledged do not.
        Again = fun() -> lists:nthtail(6, got(B, Taker)) end,
        await(fun() -> length(Again()) >= 3 end),
        ?assertEqual([3, 4, 5], lists:usort(Again())),
        ok = Ack(A, 5),
        await(fun() -> lists:member(8, Again()) end),
        ?assertEqual([3, 4, 5, 6, 7, 8], lists:usort(Again())),
        ?assertEqual(
            {error, {subscription_not_found, ~"none"}},
            call(A, erl_esdb_subscriptions, ack, [?STORE, ~"none", ~"s", 1])
        )
    end).

%% The next leader has not sent it anything, and yet it was a handler: what another had is not done.
b_a_handler_that_has_left_acknowledges_to_the_next_leader(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Key = subscribe(A, ~"sub", #{ack => manual}),
        Takers = [{P, taker(P)} || P <- Peers],
        [ok = call(P, erl_esdb_emitter_group, join, [?STORE, Key, T]) || {P, T} <- Takers],
        await(fun() ->
            2 =:= length(call(A, erl_esdb_emitter_group, handlers, [?STORE, Key]))
        end),
        append(A, 0, 5),
        All = fun() -> lists:sort(lists:append([got(P, T) || {P, T} <- Takers])) end,
        await(fun() -> All() =:= lists:seq(0, 5) end),
        [{_, First}, {_, Second}] = Takers,
        {Node, Speaker, Ended} =
            case lists:member(5, got(A, First)) of
                true -> {A, First, Second};
                false -> {B, Second, First}
            end,
        Own = got(Node, Speaker),
        ?assertNotEqual(lists:seq(0, 5), Own),
        %% From here on the process that has sent all that hears of nothing.
        {ok, Process} = call(A, erl_esdb_delivery, pid, [?STORE, subscription, Key]),
        ok = call(A, sys, suspend, [Process]),
        true = call(A, erlang, exit, [Ended, kill]),
        ok = call(Node, erl_esdb_emitter_group, leave, [?STORE, Key, Speaker]),
        await(fun() -> [] =:= call(B, erl_esdb_emitter_group, handlers, [?STORE, Key]) end),
        ok = leads(B, Peers),
        ok = as(Node, Speaker, erl_esdb_subscriptions, ack, [?STORE, ~"sub", ~"s", 5]),
        %% And the one after that goes on from what was said.
        ok = leads(A, Peers),
        await(fun() -> [runs(P, Key) || P <- Peers] =:= [true, false] end),
        Last = taker(B),
        ok = call(B, erl_esdb_subscriptions, attach, [?STORE, Key, Last]),
        await(fun() -> (lists:seq(0, 5) -- Own) -- got(B, Last) =:= [] end)
    end).

%% What could not be kept is tried again, and nothing is sent or lost meanwhile.
b_handlers_are_kept_before_they_get_events(_) ->
    with_nodes(1, fun([A]) ->
        Key = subscribe(A, ~"sub", #{ack => manual}),
        ok = call(A, ?MODULE, refuse_handlers, []),
        Taker = taker(A),
        append(A, 0, 4),
        ok = call(A, erl_esdb_emitter_group, join, [?STORE, Key, Taker]),
        await(fun() -> call(A, ?MODULE, refused, []) >= 2 end),
        ?assertEqual([], got(A, Taker)),
        ok = call(A, ?MODULE, refuse_nothing, []),
        await(fun() -> got(A, Taker) =:= lists:seq(0, 4) end),
        ?assertEqual(
            {ok, [Taker]}, call(A, erl_esdb_store, checkpoint, [?STORE, {handlers, Key}])
        )
    end).

refuse_handlers() ->
    Refused = counters:new(1, []),
    ok = persistent_term:put({?MODULE, refused}, Refused),
    erl_esdb_engine_fake:set_fate(?STORE, fun(Apply, Command) ->
        case names_handlers(Command) of
            true ->
                ok = counters:add(Refused, 1, 1),
                {error, no_quorum};
            false ->
                Apply(Command)
        end
    end).

names_handlers({checkpoint, Values}) -> [] =/= [Key || {handlers, Key} := _ <- Values];
names_handlers(_Command) -> false.

refused() -> counters:get(persistent_term:get({?MODULE, refused}), 1).

refuse_nothing() ->
    erl_esdb_engine_fake:set_fate(?STORE, fun(Apply, Command) -> Apply(Command) end).

b_demand_and_info_on_any_node(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Taker = taker(A),
        Key = subscribe(A, ~"sub", #{subscriber => Taker, mode => pull}),
        append(A, 0, 9),
        Demand = fun(P, N) -> ok = call(P, erl_esdb_subscriptions, demand, [?STORE, Key, N]) end,
        Demand(B, 3),
        await(fun() -> got(A, Taker) =:= [0, 1, 2] end),
        ok = leads(B, Peers),
        await(fun() -> runs(B, Key) end),
        %% Those that were sent may come again.
        Demand(A, 5),
        await(fun() -> lists:max(got(A, Taker)) >= 3 end),
        ?assertMatch({ok, #{position := _}}, call(A, erl_esdb_subscriptions, info, [?STORE, Key])),
        ?assertEqual(
            {error, not_found}, call(A, erl_esdb_subscriptions, info, [?STORE, ~"none"])
        )
    end).

b_competing_consumers_stay_connected(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Key = subscribe(A, ~"sub", #{consumers => competing}),
        Taker = taker(B),
        ok = call(B, erl_esdb_subscriptions, connect, [?STORE, Key, Taker, #{}]),
        append(A, 0, 3),
        await(fun() -> got(B, Taker) =:= [0] end),
        Ack = fun(Position) ->
            call(B, erl_esdb_subscriptions, ack_events, [?STORE, Key, Taker, [Position]])
        end,
        ok = Ack(0),
        await(fun() -> got(B, Taker) =:= [0, 1] end),
        await(fun() ->
            call(A, erl_esdb_store, checkpoint, [?STORE, {consumer, Key}]) =:=
                {ok, #{Taker => 10}}
        end),
        ok = leads(B, Peers),
        await(fun() -> lists:member(got(B, Taker), [[0, 1, 1], [0, 1, 0]]) end)
    end).

b_unsubscribed_on_another_node(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Key = subscribe(A, ~"sub", #{subscriber => taker(A)}),
        Unsubscribe = fun() -> call(B, erl_esdb_subscriptions, unsubscribe, [?STORE, Key]) end,
        ok = Unsubscribe(),
        ?assertEqual([false, false], [runs(P, Key) || P <- Peers]),
        ?assertEqual({ok, []}, call(B, erl_esdb_subscriptions, list, [?STORE])),
        ?assertEqual({error, not_found}, Unsubscribe()),
        ok = leads(B, Peers),
        append(A, 0, 1),
        ?assertEqual([false, false], [runs(P, Key) || P <- Peers]),
        Other = taker(B),
        Key = subscribe(A, ~"sub", #{}),
        ok = call(A, erl_esdb_subscriptions, attach, [?STORE, Key, Other]),
        complete(B, Other, 1)
    end).

%% With its node go the places that were not saved yet: from the last that was it goes on.
b_the_leader_is_killed(_) ->
    with_nodes(3, fun([A, B, C] = Peers) ->
        ok = leads(B, Peers),
        Taker = taker(C),
        Key = subscribe(C, ~"sub", #{subscriber => Taker}),
        append(A, 0, 99),
        await(fun() -> length(got(C, Taker)) >= 20 end),
        ok = erl_esdb_nodes:kill(B),
        append(A, 100, 199),
        complete(C, Taker, 199),
        await(fun() -> lists:member(known(C), [name(A), name(C)]) end),
        await(fun() -> lists:sort([runs(P, Key) || P <- [A, C]]) =:= [false, true] end),
        _ = subscribe(C, ~"another", #{})
    end).

b_back_and_forth(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Taker = taker(A),
        Key = subscribe(B, ~"sub", #{subscriber => Taker, batch => 7}),
        [
            begin
                append(A, N * 50, N * 50 + 49),
                ok = leads(lists:nth(N rem 2 + 1, Peers), Peers)
            end
         || N <- lists:seq(0, 9)
        ],
        complete(A, Taker, 499),
        await(fun() -> [runs(P, Key) || P <- [A, B]] =:= [false, true] end)
    end).

%% ---- links, policies

b_links_run_where_the_store_is_led(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Spec = #{
            name => ~"all", source => #{type => stream, stream_id => ~"s"}, backfill => true
        },
        ok = call(B, erl_esdb_links, create, [?STORE, Spec]),
        ?assertMatch({ok, #{status := stopped}}, call(B, erl_esdb_links, get, [?STORE, ~"all"])),
        ok = call(B, erl_esdb_links, start, [?STORE, ~"all"]),
        append(A, 0, 49),
        ok = leads(B, Peers),
        append(A, 50, 99),
        Read = [?STORE, ~"$link:all", 0, 1000, forward],
        Linked = fun() ->
            case call(B, erl_esdb_streams, read, Read) of
                {ok, Events} -> [N || #event{data = #{n := N}} <- Events];
                {error, _} -> []
            end
        end,
        await(fun() -> length(Linked()) >= 100 end),
        ?assertEqual(lists:seq(0, 99), Linked()),
        Links = fun(P) ->
            Pool = erl_esdb_naming:link_pool_name(?STORE),
            length(call(P, supervisor, which_children, [Pool]))
        end,
        ?assertEqual([0, 1], [Links(P) || P <- Peers]),
        ok = call(A, erl_esdb_links, stop, [?STORE, ~"all"]),
        ?assertEqual([0, 0], [Links(P) || P <- Peers]),
        ok = call(A, erl_esdb_links, delete, [?STORE, ~"all"]),
        ?assertEqual({error, not_found}, call(B, erl_esdb_links, get, [?STORE, ~"all"]))
    end).

%% A fun is known where it was given to the leader: another one says that it is lost.
b_a_link_with_a_fun(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        ok = call(B, ?MODULE, create_with_fun, []),
        ok = call(B, erl_esdb_links, start, [?STORE, ~"odd"]),
        append(A, 0, 3),
        Status = fun() ->
            {ok, #{status := Status}} = call(B, erl_esdb_links, get, [?STORE, ~"odd"]),
            Status
        end,
        await(fun() ->
            call(A, erl_esdb_streams, get_version, [?STORE, ~"$link:odd"]) =:= 1
        end),
        ?assertEqual(running, Status()),
        ok = leads(B, Peers),
        await(fun() -> Status() =:= error end),
        ok = call(A, ?MODULE, create_with_fun, []),
        ok = call(A, erl_esdb_links, start, [?STORE, ~"odd"]),
        append(A, 4, 5),
        await(fun() ->
            call(A, erl_esdb_streams, get_version, [?STORE, ~"$link:odd"]) =:= 2
        end)
    end).

create_with_fun() ->
    erl_esdb_links:create(?STORE, #{
        name => ~"odd",
        source => #{type => stream, stream_id => ~"s"},
        backfill => true,
        filter => fun(#event{data = #{n := N}}) -> N rem 2 =:= 1 end
    }).

b_policies_act_where_the_store_is_led(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        append(A, 0, 9),
        Policy = #{every => 10, fold => {?MODULE, count, []}, initial => #{n => 0}},
        ok = call(B, erl_esdb_snapshots, set_policy, [?STORE, ~"s", Policy]),
        Versions = fun() ->
            {ok, Snapshots} = call(B, erl_esdb_snapshots, list, [?STORE, ~"s"]),
            lists:usort([V || #snapshot{version = V} <- Snapshots])
        end,
        %% It is looked at when it was set, on another node.
        await(fun() -> Versions() =:= [9] end),
        ok = leads(B, Peers),
        append(A, 10, 19),
        await(fun() -> lists:member(19, Versions()) end),
        Places = fun(P) ->
            Sup = erl_esdb_naming:notification_sup_name(?STORE),
            Children = call(P, supervisor, which_children, [Sup]),
            {_, Pid, _, _} = lists:keyfind(snapshotter, 1, Children),
            map_size(element(5, call(P, sys, get_state, [Pid])))
        end,
        ?assertEqual([0, 1], [Places(P) || P <- Peers])
    end).

count(_Event, #{n := N} = State) -> State#{n := N + 1}.

%% What was not saved when another began to lead is saved or forgotten, not kept for later.
b_places_that_are_handed_over(_) ->
    with_nodes(2, fun([A, B] = Peers) ->
        Taker = taker(A),
        _ = subscribe(A, ~"sub", #{subscriber => Taker}),
        append(A, 0, 9),
        complete(A, Taker, 9),
        ok = leads(B, Peers),
        Pending = fun() ->
            {ok, Pid} = call(A, erl_esdb_delivery, find, [?STORE, checkpoints, none]),
            element(3, call(A, sys, get_state, [Pid]))
        end,
        await(fun() -> Pending() =:= #{} end)
    end).

%% ---- a node without a name, on disk

%% After another start of the node its subscriber's name may be somebody else's, who gets nothing.
b_a_subscriber_of_an_earlier_life(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), ?FUNCTION_NAME),
    Start = fun() ->
        Peer = esdb_peer:start(unset),
        {value, {ok, _}} = esdb_peer:call(Peer, application, ensure_all_started, [erl_esdb]),
        Options = #{engine => ra, data_dir => Dir},
        {value, {ok, _}} = esdb_peer:call(Peer, erl_esdb, start_store, [?STORE, Options]),
        Peer
    end,
    Call = fun(Peer, M, F, A) ->
        {value, Value} = esdb_peer:call(Peer, M, F, A),
        Value
    end,
    First = Start(),
    {ok, Key} = Call(First, ?MODULE, subscribe_logger, []),
    Get = fun(Peer) ->
        {ok, Subscription} = Call(Peer, erl_esdb_subscriptions, get, [?STORE, Key]),
        Subscription#subscription.subscriber_pid
    end,
    ?assert(is_pid(Get(First))),
    %% The same life: the store is started again, and the process is there.
    ok = Call(First, erl_esdb, stop_store, [?STORE]),
    {ok, _} = Call(First, erl_esdb, start_store, [?STORE, #{engine => ra, data_dir => Dir}]),
    Runs = fun(Peer) ->
        Call(Peer, erl_esdb_delivery, find, [?STORE, subscription, Key]) =/= error
    end,
    await(fun() -> Runs(First) end),
    ?assert(is_pid(Get(First))),
    ok = esdb_peer:stop(First),
    Second = Start(),
    await(fun() -> Get(Second) =:= undefined end),
    %% Who is attached now stays.
    ok = Call(Second, ?MODULE, attach_logger, [Key]),
    ?assert(is_pid(Get(Second))),
    ok = Call(Second, erl_esdb, stop_store, [?STORE]),
    {ok, _} = Call(Second, erl_esdb, start_store, [?STORE, #{engine => ra, data_dir => Dir}]),
    await(fun() -> Runs(Second) end),
    ?assert(is_pid(Get(Second))),
    ok = esdb_peer:stop(Second).

%% A process that has one name in each life of a node.
subscribe_logger() ->
    Options = #{subscriber => whereis(logger)},
    erl_esdb_subscriptions:subscribe(?STORE, stream, ~"s", ~"sub", Options).

attach_logger(Key) -> erl_esdb_subscriptions:attach(?STORE, Key, whereis(logger)).

%% Who takes the events is none of a copy.
b_a_backup_without_processes(Config) ->
    Priv = proplists:get_value(priv_dir, Config),
    [A] = Peers = erl_esdb_nodes:start(1),
    Folder = filename:join(Priv, ?FUNCTION_NAME),
    ok = erl_esdb_nodes:start_on(ra, A, ?STORE, #{folder => Folder}),
    Taker = taker(A),
    Args = [?STORE, stream, ~"s", ~"sub"],
    {ok, Key} = as(A, Taker, erl_esdb_subscriptions, subscribe, Args),
    append(A, 0, 4),
    complete(A, Taker, 4),
    {ok, Taker} = call(A, erl_esdb_store, checkpoint, [?STORE, {consumer, Key}]),
    Handler = taker(A),
    ok = call(A, erl_esdb_emitter_group, join, [?STORE, Key, Handler]),
    append(A, 5, 9),
    await(fun() -> got(A, Handler) =/= [] end),
    {ok, [Handler]} = call(A, erl_esdb_store, checkpoint, [?STORE, {handlers, Key}]),
    Copy = filename:join(Priv, "copy"),
    {ok, _} = call(A, erl_esdb_backup, backup, [?STORE, Copy, #{}]),
    ok = erl_esdb_nodes:start_on(ra, A, restored, #{folder => filename:join(Priv, "restored")}),
    {ok, _} = call(A, erl_esdb_backup, restore, [restored, Copy, #{}]),
    ?assertEqual(
        {error, not_found}, call(A, erl_esdb_store, checkpoint, [restored, {consumer, Key}])
    ),
    ?assertEqual(
        {error, not_found}, call(A, erl_esdb_store, checkpoint, [restored, {handlers, Key}])
    ),
    ?assertMatch({ok, #subscription{}}, call(A, erl_esdb_subscriptions, get, [restored, Key])),
    ok = erl_esdb_nodes:stop(Peers).
