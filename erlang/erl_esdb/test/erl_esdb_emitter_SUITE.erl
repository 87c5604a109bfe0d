-module(erl_esdb_emitter_SUITE).
-moduledoc "Emitters, their groups, pools and supervisors, and the groups of trackers.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_emitter_group, [members/2, broadcast/3]).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

%% Where the node gets a name in between: a store on disk belongs to a node with one name.
groups() -> erl_esdb_test:groups(cases(), #{in_memory => [a_emt_04_broadcast_to_a_remote_member]}).

cases() ->
    [F || {F, 1} <- ?MODULE:module_info(exports), is_case(atom_to_list(F))].

is_case(Name) -> lists:any(fun(P) -> lists:prefix(P, Name) end, ["a_", "b_", "t_"]).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb_test:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

receives(Message) ->
    receive
        Message -> ok
    after 60_000 -> error({missing, Message, erlang:process_info(self(), messages)})
    end.

idle() -> spawn_link(fun() -> receive stop -> ok end end).

event() -> #event{event_id = <<"id">>, event_type = <<"T">>, stream_id = <<"s">>}.

a_emt_01_members(Config) ->
    Store = store(Config),
    [A, B] = Both = [idle(), idle()],
    ok = erl_esdb_emitter_group:join(Store, <<"k">>, A),
    ?assertEqual([A], members(Store, <<"k">>)),
    ok = erl_esdb_emitter_group:join(Store, <<"k">>, [B]),
    ?assertEqual(lists:sort(Both), lists:sort(members(Store, <<"k">>))),
    ok = erl_esdb_emitter_group:leave(Store, <<"k">>, Both),
    ?assertEqual([], members(Store, <<"k">>)).

t_43_leave_of_no_member(Config) ->
    ?assertEqual(ok, erl_esdb_emitter_group:leave(store(Config), <<"k">>, self())),
    ?assertEqual(ok, erl_esdb_tracker_group:leave(store(Config), streams, self())).

a_emt_02_broadcast_to_nobody(Config) ->
    ?assertEqual({error, no_emitters}, broadcast(store(Config), <<"k">>, event())).

a_emt_03_broadcast_to_a_local_member(Config) ->
    Store = store(Config),
    ok = erl_esdb_emitter_group:join(Store, <<"k">>, self()),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store),
    ?assertEqual(ok, broadcast(Store, <<"k">>, event())),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    receives({forward_to_local, erl_esdb_emitter_group:topic(Store, <<"k">>), event()}),
    ?assertMatch(
        [{?EMITTER_BROADCAST, #{duration := _}, #{recipient_count := 1, event_id := <<"id">>}}],
        erl_esdb_test:collected(?FUNCTION_NAME)
    ).

%% A process of another node that is a member.
a_emt_04_broadcast_to_a_remote_member(Config) ->
    Store = store(Config),
    Self = self(),
    ok = distributed(),
    Args = ["-pa" | code:get_path()],
    {ok, Peer, Node} = peer:start_link(#{name => peer:random_name(), args => Args}),
    {ok, _} = erpc:call(Node, pg, start, [erl_esdb_pg]),
    Member = spawn(Node, fun() -> receive Message -> Self ! {got, self(), Message} end end),
    ok = erpc:call(Node, pg, join, [erl_esdb_pg, {Store, <<"k">>, emitters}, Member]),
    erl_esdb_test:await(fun() -> [Member] =:= members(Store, <<"k">>) end),
    ok = broadcast(Store, <<"k">>, event()),
    receives({got, Member, {broadcast, erl_esdb_emitter_group:topic(Store, <<"k">>), event()}}),
    ok = peer:stop(Peer),
    _ = net_kernel:stop(),
    ok.

distributed() ->
    case is_alive() of
        true ->
            ok;
        false ->
            _ = os:cmd("epmd -daemon"),
            %% A name of its own: this suite may run more than once at a time on a machine.
            Name = list_to_atom(peer:random_name()),
            {ok, _} = net_kernel:start(Name, #{name_domain => shortnames}),
            ok
    end.

a_emt_05_group_key(_Config) ->
    ?assertEqual({s, <<"k">>, emitters}, erl_esdb_emitter_group:group_key(s, <<"k">>)).

a_emt_06_topic(_Config) ->
    ?assertEqual(<<"s:k">>, erl_esdb_emitter_group:topic(s, <<"k">>)),
    ?assertEqual(<<"s:$all">>, erl_esdb_emitter_group:topic(s, <<"$all">>)).

a_emt_07_emitter_name(_Config) ->
    ?assertEqual(s_k_emitter, erl_esdb_emitter_group:emitter_name(s, <<"k">>)),
    ?assertEqual(s_k_emitter_2, erl_esdb_emitter_group:emitter_name(s, <<"k">>, 2)).

a_emt_08_persist_emitters(Config) ->
    Store = store(Config),
    ?assertEqual([], erl_esdb_emitter_group:retrieve_emitters(Store, <<"k">>)),
    [
        begin
            Names = erl_esdb_emitter_group:persist_emitters(Store, <<"k">>, Size),
            ?assertEqual(Size, length(lists:usort(Names))),
            ?assertEqual(Names, erl_esdb_emitter_group:retrieve_emitters(Store, <<"k">>))
        end
     || Size <- [1, 4]
    ].

emitter(Config, Subscriber) ->
    {ok, Emitter} = erl_esdb_emitter:start_link(store(Config), <<"k">>, Subscriber, ?MODULE),
    Emitter.

a_emt_09_start_link(Config) ->
    Emitter = emitter(Config, self()),
    ?assertEqual(Emitter, whereis(?MODULE)),
    ?assertEqual([Emitter], members(store(Config), <<"k">>)),
    ok = erl_esdb_emitter:stop(Emitter),
    ?assertEqual([], members(store(Config), <<"k">>)).

a_emt_10_passes_on(Config) ->
    Emitter = emitter(Config, self()),
    Emitter ! {broadcast, <<"t">>, event()},
    receives({events, [event()]}),
    Emitter ! {forward_to_local, <<"t">>, event()},
    receives({events, [event()]}),
    Emitter ! {events, [1, 2]},
    receives({events, [1, 2]}),
    ok = erl_esdb_emitter:stop(Emitter).

a_emt_11_without_a_subscriber(Config) ->
    Topic = erl_esdb_emitter_group:topic(store(Config), <<"k">>),
    ok = pg:join(erl_esdb_pg, {store(Config), Topic, subscribers}, self()),
    Emitter = emitter(Config, undefined),
    Emitter ! {broadcast, Topic, event()},
    receives({events, [event()]}),
    ok = pg:leave(erl_esdb_pg, {store(Config), Topic, subscribers}, self()),
    ok = erl_esdb_emitter:stop(Emitter).

a_emt_12_update_subscriber(Config) ->
    Emitter = emitter(Config, idle()),
    ok = erl_esdb_emitter:update_subscriber(Emitter, self()),
    Emitter ! {broadcast, <<"t">>, event()},
    receives({events, [event()]}),
    ok = erl_esdb_emitter:stop(Emitter).

a_emt_13_dead_subscriber(Config) ->
    Subscriber = idle(),
    Emitter = emitter(Config, Subscriber),
    Ref = monitor(process, Subscriber),
    Subscriber ! stop,
    receive {'DOWN', Ref, process, _, _} -> ok end,
    {error, unknown_request} = erl_esdb_test:quietly(fun() ->
        Emitter ! {broadcast, <<"t">>, event()},
        gen_server:call(Emitter, x)
    end),
    ok = erl_esdb_emitter:update_subscriber(Emitter, self()),
    Emitter ! {broadcast, <<"t">>, event()},
    receives({events, [event()]}),
    ok = erl_esdb_emitter:stop(Emitter).

a_emt_14_child_spec(_Config) ->
    ?assertMatch(
        #{id := n, restart := permanent, shutdown := 5000, start := {erl_esdb_emitter, _, _}},
        erl_esdb_emitter:child_spec(s, <<"k">>, undefined, n)
    ).

pool(Config, Size) ->
    #subscription{
        id = integer_to_binary(erlang:phash2(store(Config))),
        type = stream,
        selector = <<"s">>,
        subscription_name = <<"n">>,
        subscriber_pid = self(),
        pool_size = Size
    }.

a_emt_15_pool(Config) ->
    Store = store(Config),
    #subscription{id = Key} = Subscription = pool(Config, 3),
    {ok, Pool} = erl_esdb_emitter_pool:start_emitter(Store, Subscription),
    ?assertEqual(3, length(members(Store, Key))),
    ?assertEqual(
        {error, {already_started, Pool}}, erl_esdb_emitter_pool:start_emitter(Store, Subscription)
    ),
    ok = broadcast(Store, Key, event()),
    receives({events, [event()]}).

a_emt_16_stop_of_a_pool(Config) ->
    Store = store(Config),
    #subscription{id = Key} = Subscription = pool(Config, 3),
    ?assertEqual(ok, erl_esdb_emitter_pool:stop_emitter(Store, Subscription)),
    {ok, _} = erl_esdb_emitter_pool:start_emitter(Store, Subscription),
    ?assertEqual(ok, erl_esdb_emitter_pool:stop_emitter(Store, Subscription)),
    ?assertEqual([], members(Store, Key)),
    ?assertEqual([], erl_esdb_emitter_group:retrieve_emitters(Store, Key)),
    ?assertEqual(ok, erl_esdb_emitter_pool:stop(Store, Key)).

a_emt_17_update_of_a_pool(Config) ->
    Store = store(Config),
    #subscription{id = Key} = Subscription = pool(Config, 3),
    {ok, _} = erl_esdb_emitter_pool:start_emitter(Store, Subscription),
    {ok, _} = erl_esdb_emitter_pool:update_emitter(Store, Subscription#subscription{pool_size = 5}),
    ?assertEqual(5, length(members(Store, Key))).

a_emt_18_pool_name(_Config) ->
    ?assertEqual(erl_esdb_emitter_pool_s_k, erl_esdb_emitter_pool:name(s, <<"k">>)).

a_emt_19_supervisor(Config) ->
    Store = store(Config),
    #subscription{id = Key} = Subscription = pool(Config, 1),
    ?assertEqual({error, not_found}, erl_esdb_emitter_sup:stop_emitter_pool(Store, Key)),
    {ok, Pool} = erl_esdb_emitter_sup:start_emitter_pool(Store, Subscription),
    ?assert(is_process_alive(Pool)),
    ?assertEqual(ok, erl_esdb_emitter_sup:stop_emitter_pool(Store, Key)),
    ?assertNot(is_process_alive(Pool)),
    ?assertMatch(
        {error, {store_not_started, no_store}},
        erl_esdb_emitter_sup:start_emitter_pool(no_store, Subscription)
    ).

a_emt_20_pool_is_told(Config) ->
    Store = store(Config),
    #subscription{id = Key} = Subscription = pool(Config, 2),
    Self = self(),
    Tell = fun(_, Measurements, Metadata, _) -> Self ! {told, Measurements, Metadata} end,
    ok = erl_esdb_telemetry:attach_many(?FUNCTION_NAME, [?EMITTER_POOL_CREATED], Tell, none),
    {ok, _} = erl_esdb_emitter_pool:start_emitter(Store, Subscription),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    receive
        {told, #{system_time := _}, Metadata} ->
            ?assertEqual(#{store_id => Store, subscription_id => Key, pool_size => 2}, Metadata)
    after 0 -> error(missing)
    end.

%% A subscription and a pool beside it: each event of the log comes once.
a_pool_does_not_double_events(Config) ->
    Store = store(Config),
    Options = #{subscriber => self(), pool_size => 2},
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    {ok, Subscription} = erl_esdb_subscriptions:get(Store, Key),
    {ok, _} = erl_esdb_emitter_pool:start_emitter(Store, Subscription),
    {ok, 2} = erl_esdb_streams:append(Store, <<"s">>, -1, erl_esdb_test:events(3)),
    Versions = [receive {events, [E]} -> E#event.version end || _ <- [1, 2, 3]],
    ?assertEqual([0, 1, 2], Versions),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    ?assertEqual([], members(Store, Key)),
    receive {events, More} -> error({twice, More}) after 0 -> ok end.

%% The groups end, and are there again: so are the members, each once.
b_emitters_outlive_their_groups(Config) ->
    Store = store(Config),
    #subscription{id = Key} = Subscription = pool(Config, 12),
    {ok, Pool} = erl_esdb_emitter_pool:start_emitter(Store, Subscription),
    Members = lists:sort(members(Store, Key)),
    Groups = whereis(erl_esdb_pg),
    exit(Groups, kill),
    erl_esdb_test:await(fun() ->
        is_pid(whereis(erl_esdb_pg)) andalso whereis(erl_esdb_pg) =/= Groups andalso
            lists:sort(members(Store, Key)) =:= Members
    end),
    ?assert(is_process_alive(Pool)),
    ?assertEqual([], erl_esdb_emitter_group:handlers(Store, Key)),
    ok = broadcast(Store, Key, event()),
    receives({events, [event()]}).

%% Subscriptions make no atoms of what users name.
t_46_no_atoms_of_user_data(Config) ->
    Store = store(Config),
    Subscribe = fun(N) ->
        Name = <<"never before ", (integer_to_binary(N))/binary>>,
        {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, Name, Name, #{pool_size => 3}),
        ok = erl_esdb_subscriptions:ack(Store, Name, Name, 1),
        ok = erl_esdb_subscriptions:unsubscribe(Store, Key)
    end,
    Subscribe(1),
    Before = erlang:system_info(atom_count),
    [Subscribe(N) || N <- lists:seq(2, 50)],
    ?assert(erlang:system_info(atom_count) - Before < 10).

%% ---- trackers

a_trk_01_group_key(_Config) ->
    ?assertEqual(
        erlang:phash2({s, streams, trackers}), erl_esdb_tracker_group:group_key(s, streams)
    ),
    ?assertNotEqual(
        erl_esdb_tracker_group:group_key(s, streams), erl_esdb_tracker_group:group_key(t, streams)
    ).

a_trk_02_members(Config) ->
    Store = store(Config),
    [A, B, C] = All = [idle(), idle(), idle()],
    ok = erl_esdb_tracker_group:join(Store, streams, A),
    ok = erl_esdb_tracker_group:join(Store, streams, [B, C]),
    ?assertEqual(lists:sort(All), lists:sort(erl_esdb_tracker_group:members(Store, streams))),
    ok = erl_esdb_tracker_group:leave(Store, streams, All),
    ?assertEqual([], erl_esdb_tracker_group:members(Store, streams)).

a_trk_03_notify(Config) ->
    Store = store(Config),
    ok = erl_esdb_tracker_group:join(Store, snapshots, self()),
    ok = erl_esdb_tracker_group:notify_created(Store, snapshots, 1),
    ok = erl_esdb_tracker_group:notify_updated(Store, snapshots, 2),
    ok = erl_esdb_tracker_group:notify_deleted(Store, snapshots, 3),
    receives({feature_created, snapshots, 1}),
    receives({feature_updated, snapshots, 2}),
    receives({feature_deleted, snapshots, 3}).

a_trk_04_nobody(Config) ->
    ?assertEqual(ok, erl_esdb_tracker_group:notify_created(store(Config), streams, 1)).

a_trk_05_subscriptions(Config) ->
    Store = store(Config),
    ok = erl_esdb_tracker_group:join(Store, subscriptions, self()),
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, <<"s">>, <<"n">>),
    ok = erl_esdb_subscriptions:attach(Store, Key, self()),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    receive {feature_created, subscriptions, #subscription{id = Key}} -> ok end,
    receive {feature_updated, subscriptions, #subscription{id = Key}} -> ok end,
    receive {feature_deleted, subscriptions, #subscription{id = Key}} -> ok end.
