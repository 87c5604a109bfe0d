-module(erl_esdb_status_SUITE).
-moduledoc "What an operator is told of a store, also of one that is in trouble.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-behaviour(erl_esdb_projection).

-import(erl_esdb_nodes, [call/4, name/1]).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    erl_esdb_test:all() ++ [a_store_without_a_majority, an_engine_that_tells_nothing] ++
        [three_nodes || lists:member(ra, erl_esdb_test:engines())].

groups() -> erl_esdb_test:groups(cases(), #{one_node => [a_store_alone]}).

cases() ->
    [
        a_store_alone,
        a_store_that_does_not_run,
        a_store_that_was_stopped,
        how_far_the_index_is,
        what_a_subscription_has_not_handled,
        a_subscription_that_is_halted,
        a_subscription_that_hangs,
        a_subscription_without_a_process,
        competing_consumers,
        a_projection,
        what_it_takes_comes_back
    ].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_Config) -> application:stop(erl_esdb).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(Case, Config) ->
    case lists:member(Case, cases()) of
        true -> [{store, erl_esdb_test:start_store(#{})} | Config];
        false -> Config
    end.

end_per_testcase(_Case, Config) ->
    _ = [erl_esdb:drop(Store) || {store, Store} <- Config],
    ok.

store(Config) -> proplists:get_value(store, Config).

append(Store, Stream, Events) ->
    {ok, _} = erl_esdb_streams:append(Store, Stream, any, Events),
    ok.

told(Store) ->
    {ok, Status} = erl_esdb:status(Store),
    Status.

subscribe(Store, Options) ->
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", ~"mail", Options),
    Key.

the_subscription(Store) ->
    #{subscriptions := [Subscription]} = told(Store),
    Subscription.

subscription_process(Store, Key) ->
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    Pid.

received(0) ->
    ok;
received(N) ->
    receive
        {events, Events} -> received(N - length(Events))
    end.

%% ---- cases

a_store_alone(Config) ->
    Store = store(Config),
    ok = append(Store, ~"s", erl_esdb_test:events(10)),
    #{engine := Engine} = proplists:get_value(options, Config),
    Status = told(Store),
    Expected = #{
        store => Store,
        node => node(),
        engine => Engine,
        mode => single,
        readiness => ready,
        role => leader,
        leader => node(),
        members => [node()],
        next_position => 10,
        subscriptions => [],
        projections => []
    },
    ?assertEqual(Expected, maps:with(maps:keys(Expected), Status)),
    #{uptime_ms := Uptime, ram_bytes := Ram} = Status,
    ?assert(Uptime >= 0 andalso Uptime < 120_000),
    ?assert(Ram > 0),
    ?assertEqual(ready, erl_esdb:readiness(Store)).

a_store_that_does_not_run(_Config) ->
    ?assertEqual({error, {store_not_started, nosuch}}, erl_esdb:status(nosuch)),
    ?assertEqual({not_ready, store_not_started}, erl_esdb:readiness(nosuch)).

a_store_that_was_stopped(Config) ->
    Store = store(Config),
    ok = erl_esdb:stop_store(Store),
    ?assertEqual({error, {store_not_started, Store}}, erl_esdb:status(Store)),
    ?assertEqual({not_ready, store_not_started}, erl_esdb:readiness(Store)).

how_far_the_index_is(Config) ->
    Store = store(Config),
    ok = append(Store, ~"s", erl_esdb_test:events(7)),
    ok = erl_esdb_test:await(fun() ->
        #{index := #{lag := Lag, next := Next}} = told(Store),
        7 = Lag + Next,
        Lag =:= 0
    end).

what_a_subscription_has_not_handled(Config) ->
    Store = store(Config),
    ok = append(Store, ~"s", erl_esdb_test:events(10)),
    Key = subscribe(Store, #{subscriber => self(), ack => manual}),
    ok = received(10),
    ?assertEqual(
        #{key => Key, name => ~"mail", type => stream, status => running, floor => 0, lag => 10},
        the_subscription(Store)
    ),
    ok = erl_esdb_subscriptions:ack(Store, ~"mail", ~"s", 3),
    ok = erl_esdb_test:await(fun() ->
        maps:with([floor, lag], the_subscription(Store)) =:= #{floor => 4, lag => 6}
    end).

a_subscription_that_is_halted(Config) ->
    Store = store(Config),
    ok = append(Store, ~"s", erl_esdb_test:events(10)),
    Options = #{strategy => error, max_queue => 2, ack => manual, window => 1},
    Key = subscribe(Store, Options#{subscriber => self()}),
    receive
        {erl_esdb_subscription, Key, {error, queue_full}} -> ok
    end,
    ?assertMatch(#{status := {halted, queue_full}, lag := 10}, the_subscription(Store)).

%% The others are told of all the same, and no later than asked for.
a_subscription_that_hangs(Config) ->
    Store = store(Config),
    ok = append(Store, ~"s", erl_esdb_test:events(10)),
    Key = subscribe(Store, #{subscriber => self(), ack => manual}),
    {ok, Other} = erl_esdb_subscriptions:subscribe(Store, event_type, ~"T", ~"other", #{}),
    ok = received(10),
    Pid = subscription_process(Store, Key),
    true = erl_esdb_test:suspended(Pid),
    Ask = fun() -> erl_esdb:status(Store, #{timeout => 200}) end,
    erl_esdb_test:await(fun() -> element(1, timer:tc(Ask)) < 2_000_000 end),
    {ok, Status} = Ask(),
    true = erlang:resume_process(Pid),
    #{subscriptions := Subscriptions, readiness := ready, next_position := 10} = Status,
    ?assertEqual(
        lists:sort([{Key, not_running}, {Other, running}]),
        lists:sort([{K, S} || #{key := K, status := S} <- Subscriptions])
    ),
    ?assertEqual([], flush()).

%% No late answer is left behind.
flush() ->
    receive
        {events, _} -> flush();
        Message -> [Message | flush()]
    after 0 -> []
    end.

%% What was saved of it says how far it was.
a_subscription_without_a_process(Config) ->
    Store = store(Config),
    ok = append(Store, ~"s", erl_esdb_test:events(10)),
    Key = subscribe(Store, #{subscriber => self(), ack => manual}),
    ok = received(10),
    ok = erl_esdb_subscriptions:ack(Store, ~"mail", ~"s", 3),
    Place = erl_esdb_subscriptions_store:next_key(Key),
    ok = erl_esdb_test:await(fun() -> erl_esdb_store:checkpoint(Store, Place) =:= {ok, 4} end),
    Pid = subscription_process(Store, Key),
    ok = erl_esdb_delivery:remove(Store, subscription, Key),
    ?assertMatch(#{status := not_running, floor := 4, lag := 6}, the_subscription(Store)),
    %% As it is saved where several share the events.
    ok = erl_esdb_store:save_checkpoints(Store, #{Place => {8, [2, 5]}}),
    ?assertMatch(#{status := not_running, floor := 2, lag := 8}, the_subscription(Store)),
    ok = erl_esdb_store:save_checkpoints(Store, #{Place => delete}),
    Without = the_subscription(Store),
    ?assertEqual([key, name, status, type], lists:sort(maps:keys(Without))),
    ok = erl_esdb_delivery:put(Store, subscription, Key, Pid).

competing_consumers(Config) ->
    Store = store(Config),
    ok = append(Store, ~"s", erl_esdb_test:events(5)),
    Key = subscribe(Store, #{consumers => competing}),
    ok = erl_esdb_subscriptions:connect(Store, Key, self(), #{}),
    [#event{position = 0} = First] = receive {events, Events} -> Events end,
    ?assertMatch(#{status := running, floor := 0, lag := 5}, the_subscription(Store)),
    ok = erl_esdb_subscriptions:ack_events(Store, Key, self(), [First]),
    ok = erl_esdb_test:await(fun() ->
        maps:with([floor, lag], the_subscription(Store)) =:= #{floor => 1, lag => 4}
    end).

a_projection(Config) ->
    Store = store(Config),
    ok = append(Store, ~"s", erl_esdb_test:events(10)),
    {ok, Pid} = erl_esdb_projection:start_link(Store, ~"totals", ?MODULE, #{}),
    ok = erl_esdb_projection:await(Store, ~"totals", 9, 60_000),
    ?assertMatch(
        #{projections := [#{name := ~"totals", status := running, position := 10, lag := 0}]},
        told(Store)
    ),
    true = erl_esdb_test:suspended(Pid),
    {ok, #{projections := Hangs}} = erl_esdb:status(Store, #{timeout => 200}),
    true = erlang:resume_process(Pid),
    ?assertEqual([#{name => ~"totals", status => not_running}], Hangs),
    ok = erl_esdb_projection:stop(Store, ~"totals"),
    ?assertMatch(#{projections := []}, told(Store)).

init(#{}) -> {ok, 0}.

handle_event(#event{}, Count) -> {ok, Count + 1}.

%% Bodies are in memory, or on disk: what is removed does not count any more.
what_it_takes_comes_back(Config) ->
    Store = store(Config),
    Before = taken(Store),
    Events = [
        #{event_type => ~"T", data => #{bytes => rand:bytes(10_000)}}
     || _ <- lists:seq(1, 100)
    ],
    ok = append(Store, ~"s", Events),
    {ok, _} = erl_esdb_streams:append_many(
        Store, [{Stream, any, Events} || Stream <- [~"a", ~"b"]], #{}
    ),
    ?assert(taken(Store) - Before > 3_000_000),
    lists:foreach(fun(S) -> ok = erl_esdb_streams:delete(Store, S) end, [~"s", ~"a", ~"b"]),
    given_back(proplists:get_value(options, Config), Store, Before).

%% On a disk that is the work of compaction, in its own time.
given_back(#{engine := memory}, Store, Before) ->
    erl_esdb_test:await(fun() -> taken(Store) - Before < 500_000 end);
given_back(#{}, _Store, _Before) ->
    ok.

taken(Store) ->
    Status = told(Store),
    maps:get(ram_bytes, Status) + maps:get(disk_bytes, Status, 0) +
        maps:get(wal_bytes, Status, 0).

%% ---- several nodes

status_there(Peer) -> status_there(Peer, 30_000).

status_there(Peer, Timeout) ->
    {ok, Status} = call(Peer, erl_esdb, status, [shop, #{timeout => Timeout}]),
    Status.

%% What each knows of itself; and what the last one knows, alone.
three_nodes(Config) ->
    [A, B, C] = Peers = erl_esdb_nodes:start(3),
    try
        [start_there(Peer, Config) || Peer <- Peers],
        [ok = call(Peer, erl_esdb, join, [shop, name(A)]) || Peer <- [B, C]],
        {ok, 9} = call(A, erl_esdb_streams, append, [shop, ~"s", -1, erl_esdb_test:events(10)]),
        Options = #{ack => manual},
        Args = [shop, stream, ~"s", ~"mail", Options],
        {ok, Key} = call(A, erl_esdb_subscriptions, subscribe, Args),
        Names = lists:sort([name(Peer) || Peer <- Peers]),
        erl_esdb_test:await(fun() -> lists:all(fun(P) -> knows_all(P, Names, Key) end, Peers) end),
        Statuses = [status_there(Peer) || Peer <- Peers],
        ?assertEqual(
            [follower, follower, leader], lists:sort([Role || #{role := Role} <- Statuses])
        ),
        ?assertEqual(
            [not_running, not_running, running],
            lists:sort([S || #{subscriptions := [#{status := S}]} <- Statuses])
        ),
        [?assertEqual(ready, call(Peer, erl_esdb, readiness, [shop])) || Peer <- Peers],
        ok = is_behind(B, [A, C]),
        ok = erl_esdb_nodes:kill(A),
        ok = erl_esdb_nodes:kill(B),
        erl_esdb_test:await(fun() ->
            call(C, erl_esdb, readiness, [shop, #{timeout => 200}]) =/= ready
        end),
        %% Half of the time is for an answer that does not come.
        Alone = status_there(C, 4000),
        ?assertMatch(#{readiness := {not_ready, _}, next_position := 40}, Alone),
        ?assertMatch(#{subscriptions := [#{key := Key}], members := Names}, Alone),
        ?assertNotMatch(#{role := leader}, Alone)
    after
        erl_esdb_nodes:stop(Peers)
    end.

%% One that is cut off: itself it cannot know. Who leads does, and takes no longer to say so.
is_behind(Cut, [Leader, Other]) ->
    Lead = [shop, name(Leader)],
    erl_esdb_test:await(fun() ->
        call(Leader, erl_esdb, transfer_leadership, Lead) =:= ok andalso
            lag_of_members(Leader) =:= #{name(Cut) => 0, name(Other) => 0}
    end),
    [?assertEqual(none, lag_of_members(Peer)) || Peer <- [Cut, Other]],
    Server = call(Cut, erl_esdb_test, orderer, [shop]),
    ok = call(Cut, sys, suspend, [Server, 60_000]),
    Append = [shop, ~"other", any, erl_esdb_test:events(1)],
    [{ok, _} = call(Leader, erl_esdb_streams, append, Append) || _ <- lists:seq(1, 30)],
    Lag = fun() ->
        #{lag := 0, members_lag := Lags} = status_there(Leader),
        {maps:get(name(Other), Lags), maps:get(name(Cut), Lags)}
    end,
    IsBehind = fun
        ({0, Commands}) -> Commands >= 30;
        (_) -> false
    end,
    erl_esdb_test:await(fun() -> IsBehind(Lag()) end),
    ?assertMatch(#{lag := 0}, status_there(Cut)),
    ok = call(Cut, sys, resume, [Server, 60_000]),
    erl_esdb_test:await(fun() -> Lag() =:= {0, 0} end),
    Delete = [shop, ~"other"],
    ok = call(Leader, erl_esdb_streams, delete, Delete).

lag_of_members(Peer) -> maps:get(members_lag, status_there(Peer), none).

start_there(Peer, Config) ->
    Folder = filename:join(proplists:get_value(priv_dir, Config), name(Peer)),
    ok = erl_esdb_nodes:start_store(Peer, shop, #{engine => ra, data_dir => Folder}).

knows_all(Peer, Names, Key) ->
    case status_there(Peer) of
        #{
            members := Names,
            leader := _,
            lag := 0,
            next_position := 10,
            readiness := ready,
            subscriptions := [#{key := Key}]
        } ->
            true;
        #{} ->
            false
    end.

%% ---- this module as an engine

%% The engine of a store that has no majority: each look but a local one fails.
next_position(_, #{consistency := local}) -> {ok, 7};
next_position(_, #{consistency := linearizable}) -> {error, no_quorum}.

documents(_, _, _, _) -> {error, timeout}.

status_of_engine(with) -> #{role => follower, commit_index => 9, applied_index => 4, term => 3};
status_of_engine(without) -> error(not_to_be_asked).

with_engine(Engine, Handle, Case) ->
    Store = erl_esdb_test:start_store(#{engine => memory}),
    {ok, _, _, Settings} = erl_esdb_engine:find(Store),
    Life = #{supervisor => self(), mode => cluster, data_dir => "/data"},
    Other = list_to_atom(atom_to_list(Store) ++ "_other"),
    ok = erl_esdb_engine:ready(Other, Engine, {Handle, Settings#{life => Life}}),
    try
        Case(Other)
    after
        erl_esdb_engine:gone(Other, normal),
        erl_esdb:drop(Store)
    end.

a_store_without_a_majority(_Config) ->
    with_engine(erl_esdb_status_engine(), with, fun(Store) ->
        ?assertEqual({not_ready, no_quorum}, erl_esdb:readiness(Store)),
        Status = told(Store),
        Expected = #{
            readiness => {not_ready, no_quorum},
            next_position => 7,
            mode => cluster,
            data_dir => "/data",
            role => follower,
            term => 3,
            lag => 5,
            projections => []
        },
        ?assertEqual(Expected, maps:with(maps:keys(Expected), Status)),
        %% It does not know of any, which is not the same as none.
        ?assertNot(maps:is_key(subscriptions, Status))
    end).

an_engine_that_tells_nothing(_Config) ->
    with_engine(?MODULE, without, fun(Store) ->
        Status = told(Store),
        ?assertEqual(?MODULE, maps:get(engine, Status)),
        ?assertNot(maps:is_key(lag, Status)),
        ?assertEqual(7, maps:get(next_position, Status))
    end).

%% The same functions, and that one which an engine need not have.
erl_esdb_status_engine() ->
    Source = [
        "-module(erl_esdb_status_engine).",
        "-export([next_position/2, documents/4, status/1]).",
        "next_position(Handle, Options) -> erl_esdb_status_SUITE:next_position(Handle, Options).",
        "documents(H, From, To, O) -> erl_esdb_status_SUITE:documents(H, From, To, O).",
        "status(Handle) -> erl_esdb_status_SUITE:status_of_engine(Handle)."
    ],
    Forms = [form(Line) || Line <- Source],
    {ok, Module, Code} = compile:forms(Forms),
    {module, Module} = code:load_binary(Module, "none", Code),
    Module.

form(Line) ->
    {ok, Tokens, _} = erl_scan:string(Line),
    {ok, Form} = erl_parse:parse_form(Tokens),
    Form.
