-module(erl_esdb_competing_SUITE).
-moduledoc "Competing consumers: the pure part against any schedule, and the process.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-import(erl_esdb_subscriptions, [connect/4, ack_events/4, nack/5]).
-import(erl_esdb_subscriptions, [parked/2, parked/3, replay_parked/2, replay_parked/3]).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    [
        any_schedule_keeps_the_order,
        many_and_long_streams_keep_the_order,
        what_is_done_costs_what_it_is,
        what_is_replayed_costs_what_it_is,
        a_consumer_gets_what_it_has_room_for,
        events_are_shared,
        the_order_of_a_stream_holds_through_retries,
        a_retry_comes_after_its_delay,
        too_many_retries_park,
        parked_events_are_listed_and_replayed,
        skipped_events_are_gone,
        a_dead_consumer_gives_back,
        consumers_stay_when_the_process_crashes,
        a_stream_that_waits_does_not_fill_the_queue,
        parked_events_survive_and_go_with_the_subscription,
        parked_events_are_looked_at_in_pages,
        parked_events_that_are_gone_are_forgotten,
        many_that_are_gone_cost_what_they_are,
        another_event_with_the_id_of_a_parked_one,
        hidden_events_are_in_nobodys_way,
        what_does_not_go_out_does_not_count,
        mistakes
    ].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb_test:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

subscribed(Config, Options) ->
    {ok, Key} = erl_esdb_subscriptions:subscribe(
        store(Config), stream, <<"$all">>, <<"n">>, Options#{consumers => competing}
    ),
    Key.

append(Config, Stream, Count) ->
    {ok, _} = erl_esdb_streams:append(store(Config), Stream, any, erl_esdb_test:events(Count)),
    ok.

one() ->
    receive
        {events, [Event]} -> Event
    after 60_000 -> error(missing)
    end.

name(#event{stream_id = Stream, version = Version}) -> {Stream, Version}.

%% A word with the process: what it has done before is in our mailbox.
nothing_more(Config, Key) ->
    {ok, _} = erl_esdb_subscriptions:info(store(Config), Key),
    {ok, _} = erl_esdb_subscriptions:info(store(Config), Key),
    receive
        {events, _} = Message -> error({unexpected, Message})
    after 0 -> ok
    end.

%% ---- the pure part

%% Any streams and consumers, each event out acknowledged, retried, parked or lost with its consumer
%% in any order: of a stream one event is out at most, no later one goes out before an
%% earlier one is done or parked, and in the end each is done or parked once.
any_schedule_keeps_the_order(_Config) ->
    Choice = {oneof([ack, ack, ack, retry, park, die]), nat()},
    Property = ?FORALL(
        {Streams, Choices, Max},
        {non_empty(list(range(1, 4))), list(Choice), range(1, 3)},
        begin
            Events = numbered(Streams),
            State0 = erl_esdb_competing:new(#{max_retries => 3, retry_delays => [1]}),
            State1 = consumers(Max, erl_esdb_competing:add(Events, State0)),
            Done = run(Choices, Max, erl_esdb_competing:dispatch(State1), [], []),
            Expected = [E#event.position || E <- Events],
            lists:sort([P || {_, P} <- Done]) =:= Expected andalso
                lists:all(
                    fun(N) -> is_sorted([P || {S, P} <- Done, S =:= <<N>>]) end, [1, 2, 3, 4]
                )
        end
    ),
    erl_esdb_test:property(500, Property).

numbered(Streams) ->
    [
        #event{event_id = <<P:32>>, stream_id = <<S>>, version = P, position = P}
     || {P, S} <- lists:enumerate(0, Streams)
    ].

consumers(Max, State) ->
    lists:foldl(fun(N, S) -> erl_esdb_competing:connect(pid(N), Max, S) end, State, [1, 2]).

pid(N) -> list_to_pid("<0." ++ integer_to_list(N) ++ ".0>").

is_sorted(List) -> List =:= lists:sort(List).

run(Choices, Max, {Sent, State}, Out, Done) ->
    Out1 = Out ++ Sent,
    Streams = [E#event.stream_id || {_, E} <- Out1],
    length(lists:usort(Streams)) =:= length(Streams) orelse error({two_of_a_stream, Streams}),
    case {Out1, Choices} of
        {[], _} -> lists:reverse(Done);
        {_, []} -> run([{ack, 0}], Max, {[], State}, Out1, Done);
        {_, [{How, N} | Rest]} ->
            {Pid, _} = Chosen = lists:nth(N rem length(Out1) + 1, Out1),
            {Left, Done1, State1} = choose(How, Max, Pid, Chosen, Out1, Done, State),
            run(Rest, Max, erl_esdb_competing:dispatch(State1), Left, Done1)
    end.

choose(die, Max, Pid, _, Out, Done, State) ->
    {Parked, State1} = erl_esdb_competing:disconnect(Pid, State),
    Left = [O || {P, _} = O <- Out, P =/= Pid],
    {Left, finished(Parked, Done), erl_esdb_competing:connect(Pid, Max, State1)};
choose(retry, _Max, Pid, {_, Event} = Chosen, Out, Done, State) ->
    {ok, Position} = erl_esdb_competing:find(Pid, Event, State),
    case erl_esdb_competing:retry(Pid, Position, State) of
        {retry, Due, 1, State1} -> {Out -- [Chosen], Done, erl_esdb_competing:due(Due, State1)};
        {park, Event, State1} -> {Out -- [Chosen], finished([Event], Done), State1}
    end;
choose(_, _Max, Pid, {_, Event} = Chosen, Out, Done, State) ->
    {ok, Position} = erl_esdb_competing:find(Pid, Event#event.event_id, State),
    {ok, Event, State1} = erl_esdb_competing:done(Pid, Position, State),
    {Out -- [Chosen], finished([Event], Done), State1}.

%% The same of up to two hundred streams, one of them longer than what is held of one: what is
%% missing is asked for and read from the log.
many_and_long_streams_keep_the_order(_Config) ->
    Choice = {oneof([ack, ack, ack, ack, retry, park, die]), nat()},
    Property = ?FORALL(
        {Streams, Long, Choices, Max},
        {range(51, 200), range(51, 160), list(Choice), range(1, 30)},
        begin
            Names = [N rem 256 || N <- lists:seq(1, Streams)] ++ lists:duplicate(Long, 255),
            Log = numbered(Names),
            State0 = erl_esdb_competing:new(#{max_retries => 2, retry_delays => [1]}),
            State1 = consumers(Max, erl_esdb_competing:add(Log, State0)),
            Done = run_log(Choices, Max, Log, erl_esdb_competing:dispatch(State1), {[], []}),
            lists:sort([P || {_, P} <- Done]) =:= [E#event.position || E <- Log] andalso
                lists:all(
                    fun(N) -> is_sorted([P || {S, P} <- Done, S =:= <<N>>]) end,
                    lists:usort(Names)
                )
        end
    ),
    erl_esdb_test:property(100, Property).

run_log(Choices, Max, Log, {Sent, State}, {Out, Done}) ->
    Out1 = Out ++ Sent,
    Streams = [E#event.stream_id || {_, E} <- Out1],
    length(lists:usort(Streams)) =:= length(Streams) orelse error({two_of_a_stream, Streams}),
    Taken = length(Out1),
    ?assert(Taken =< 2 * Max),
    case {Out1, erl_esdb_competing:refills(State)} of
        {[], {[], _}} ->
            lists:reverse(Done);
        {_, {[_ | _] = Empty, State1}} ->
            State2 = lists:foldl(fun(Lane, S) -> refilled(Lane, Log, S) end, State1, Empty),
            run_log(Choices, Max, Log, erl_esdb_competing:dispatch(State2), {Out1, Done});
        {_, {[], State1}} ->
            {{How, N}, Rest} = next_choice(Choices),
            {Pid, _} = Chosen = lists:nth(N rem Taken + 1, Out1),
            {Left, Done1, State2} = choose(How, Max, Pid, Chosen, Out1, Done, State1),
            run_log(Rest, Max, Log, erl_esdb_competing:dispatch(State2), {Left, Done1})
    end.

next_choice([Choice | Choices]) -> {Choice, Choices};
next_choice([]) -> {{ack, 0}, []}.

%% A page of the stream, and where the next one begins.
refilled({Stream, From}, Log, State) ->
    Found = [E || #event{stream_id = S, position = P} = E <- Log, S =:= Stream, P >= From],
    case lists:split(min(50, length(Found)), Found) of
        {Page, []} ->
            erl_esdb_competing:refill(Stream, Page, undefined, State);
        {Page, [#event{position = More} | _]} ->
            erl_esdb_competing:refill(Stream, Page, More, State)
    end.

%% Eight times as much is out: each event costs about the same, whether it is acknowledged by its
%% id, goes out again or is dealt to one of many.
what_is_done_costs_what_it_is(_Config) ->
    Work = fun(Count) ->
        Consumers = [pid(N) || N <- lists:seq(1, Count)],
        Connect = fun(Pid, S) -> erl_esdb_competing:connect(Pid, 1, S) end,
        Empty = erl_esdb_competing:new(#{max_queue => Count, retry_delays => [1]}),
        Events = [
            #event{event_id = <<P:32>>, stream_id = <<P:32>>, version = 0, position = P}
         || P <- lists:seq(1, Count)
        ],
        Added = erl_esdb_competing:add(Events, lists:foldl(Connect, Empty, Consumers)),
        {Sent, Out} = erl_esdb_competing:dispatch(Added),
        Again = lists:foldl(
            fun({Pid, #event{position = At}}, S) ->
                {retry, Due, 1, S1} = erl_esdb_competing:retry(Pid, At, S),
                erl_esdb_competing:due(Due, S1)
            end,
            Out,
            Sent
        ),
        {Resent, Out1} = erl_esdb_competing:dispatch(Again),
        Acknowledge = fun({Pid, #event{event_id = Id}}, S) ->
            {ok, At} = erl_esdb_competing:find(Pid, Id, S),
            {ok, _, S1} = erl_esdb_competing:done(Pid, At, S),
            S1
        end,
        #{held := 0, out := 0} =
            erl_esdb_competing:info(lists:foldl(Acknowledge, Out1, Resent))
    end,
    Cost = fun(Count) -> erl_esdb_test:reductions(fun() -> Work(Count) end) end,
    ?assert(Cost(4000) < 16 * Cost(500)).

%% Eight times as many of one stream, each of them twice.
what_is_replayed_costs_what_it_is(_Config) ->
    Replay = fun(Event, State) ->
        {true, State1} = erl_esdb_competing:replay(Event, State),
        State1
    end,
    Work = fun(Count) ->
        Events = numbered(lists:duplicate(Count, 1)),
        State = lists:foldl(Replay, erl_esdb_competing:new(#{}), Events ++ Events),
        #{held := Count} = erl_esdb_competing:info(State)
    end,
    Cost = fun(Count) -> erl_esdb_test:reductions(fun() -> Work(Count) end) end,
    ?assert(Cost(4000) < 16 * Cost(500)).

finished(Events, Done) ->
    [{E#event.stream_id, E#event.position} || E <- lists:reverse(Events)] ++ Done.

%% ---- the process

a_consumer_gets_what_it_has_room_for(Config) ->
    Key = subscribed(Config, #{}),
    [append(Config, <<N>>, 1) || N <- lists:seq(1, 5)],
    ok = connect(store(Config), Key, self(), #{max_in_flight => 2}),
    [E1, E2] = [one(), one()],
    nothing_more(Config, Key),
    ok = ack_events(store(Config), Key, self(), [E1, E2]),
    [_, _] = [one(), one()],
    nothing_more(Config, Key).

%% Begins to acknowledge when it is told to.
worker(Store, Key, Report) ->
    Work = fun Loop() ->
        receive
            {events, [Event]} ->
                Report ! {worked, self(), name(Event)},
                receive go -> self() ! go end,
                ok = ack_events(Store, Key, self(), [Event#event.position]),
                Loop();
            stop ->
                ok
        end
    end,
    Pid = spawn_link(Work),
    ok = connect(Store, Key, Pid, #{max_in_flight => 5}),
    Pid.

worked(0) -> [];
worked(Count) ->
    receive
        {worked, Pid, Name} -> [{Pid, Name} | worked(Count - 1)]
    after 60_000 -> error({missing, Count})
    end.

events_are_shared(Config) ->
    Key = subscribed(Config, #{}),
    Workers = [worker(store(Config), Key, self()) || _ <- [1, 2, 3]],
    [append(Config, <<(N rem 20)>>, 3) || N <- lists:seq(1, 200)],
    %% Each has as many as it has room for, whoever is the faster.
    erl_esdb_test:await(fun() ->
        {ok, #{consumers := Has}} = erl_esdb_subscriptions:info(store(Config), Key),
        Has =:= #{Worker => 5 || Worker <- Workers}
    end),
    [Worker ! go || Worker <- Workers],
    Worked = worked(600),
    ?assertEqual(600, length(lists:usort([Name || {_, Name} <- Worked]))),
    [?assert(lists:keymember(Worker, 1, Worked)) || Worker <- Workers],
    [
        ?assertEqual(lists:seq(0, 29), [V || {_, {S, V}} <- Worked, S =:= <<N>>])
     || N <- lists:seq(0, 19)
    ].

the_order_of_a_stream_holds_through_retries(Config) ->
    %% The first retry is soon, the second not in the time of this test.
    Key = subscribed(Config, #{retry_delays => [1, 3_600_000]}),
    append(Config, <<"a">>, 3),
    append(Config, <<"b">>, 3),
    ok = connect(store(Config), Key, self(), #{max_in_flight => 10}),
    [A0, B0] = lists:keysort(#event.stream_id, [one(), one()]),
    %% It comes again, and nothing of its stream before it.
    ok = nack(store(Config), Key, self(), [A0], retry),
    ?assertEqual(A0, one()),
    ok = nack(store(Config), Key, self(), [A0], retry),
    %% The other stream goes on.
    ok = ack_events(store(Config), Key, self(), [B0]),
    B1 = one(),
    ?assertEqual({<<"b">>, 1}, name(B1)),
    ok = ack_events(store(Config), Key, self(), [B1#event.event_id]),
    B2 = one(),
    ?assertEqual({<<"b">>, 2}, name(B2)),
    ok = ack_events(store(Config), Key, self(), [B2]),
    nothing_more(Config, Key),
    {ok, #{held := 3, out := 0, floor := 0}} = erl_esdb_subscriptions:info(store(Config), Key).

a_retry_comes_after_its_delay(Config) ->
    Key = subscribed(Config, #{retry_delays => [50, 100]}),
    append(Config, <<"a">>, 1),
    ok = connect(store(Config), Key, self(), #{}),
    Event = one(),
    Times = [
        begin
            Begin = erlang:monotonic_time(millisecond),
            ok = nack(store(Config), Key, self(), [Event], retry),
            Event = one(),
            erlang:monotonic_time(millisecond) - Begin
        end
     || _ <- [1, 2]
    ],
    [First, Second] = Times,
    ?assert(First >= 50),
    ?assert(Second >= 100).

too_many_retries_park(Config) ->
    Key = subscribed(Config, #{retry_delays => [1], max_retries => 2}),
    append(Config, <<"a">>, 2),
    ok = connect(store(Config), Key, self(), #{}),
    [ok = nack(store(Config), Key, self(), [one()], retry) || _ <- [1, 2, 3]],
    ?assertEqual({<<"a">>, 1}, name(one())),
    ?assertMatch(
        {ok, [#{stream_id := <<"a">>, version := 0, reason := retries}]},
        parked(store(Config), Key)
    ).

parked_events_are_listed_and_replayed(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    append(Config, <<"a">>, 3),
    ok = connect(Store, Key, self(), #{}),
    ok = nack(Store, Key, self(), [one()], park),
    ok = nack(Store, Key, self(), [one()], park),
    E2 = one(),
    {ok, Parked} = parked(Store, Key),
    ?assertMatch([#{version := 0, reason := nack}, #{version := 1, position := 1}], Parked),
    %% They come after what is out of their stream, in their order, and stay parked until then.
    ?assertEqual({ok, 2}, replay_parked(Store, Key)),
    ?assertEqual({ok, 2}, replay_parked(Store, Key)),
    nothing_more(Config, Key),
    ok = ack_events(Store, Key, self(), [E2]),
    E0 = one(),
    ?assertEqual({<<"a">>, 0}, name(E0)),
    {ok, [_, _]} = parked(Store, Key),
    ok = ack_events(Store, Key, self(), [E0]),
    E1 = one(),
    {ok, [#{version := 1}]} = parked(Store, Key),
    ok = nack(Store, Key, self(), [E1], skip),
    ?assertEqual({ok, []}, parked(Store, Key)),
    nothing_more(Config, Key).

%% Cut away, or of a deleted stream, also where another has its name: what is behind them goes out.
parked_events_that_are_gone_are_forgotten(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    [append(Config, Stream, 3) || Stream <- [<<"a">>, <<"b">>, <<"c">>]],
    ok = connect(Store, Key, self(), #{}),
    [ok = nack(Store, Key, self(), [one()], park) || _ <- lists:seq(1, 9)],
    ok = erl_esdb_streams:delete(Store, <<"a">>),
    {ok, _} = erl_esdb_store:truncate(Store, <<"b">>, 3),
    append(Config, <<"a">>, 3),
    [ok = ack_events(Store, Key, self(), [one()]) || _ <- lists:seq(1, 3)],
    {ok, Parked} = parked(Store, Key),
    ?assertEqual(9, length(Parked)),
    ?assertEqual({ok, 2}, replay_parked(Store, Key, #{limit => 2})),
    ?assertMatch({ok, [#{stream_id := <<"c">>}, _, _]}, parked(Store, Key)),
    ?assertEqual({<<"c">>, 0}, name(one())).

%% Eight times as many before the one that goes out.
many_that_are_gone_cost_what_they_are(Config) ->
    Store = store(Config),
    Cost = fun(Count) ->
        {ok, Key} = erl_esdb_subscriptions:subscribe(
            Store, stream, <<"$all">>, integer_to_binary(Count), #{consumers => competing}
        ),
        Parked = #{stream_id => <<"gone">>, version => 0, event_id => <<"id">>, reason => nack},
        [
            {ok, _} = erl_esdb_store:put_document(
                Store, {parked, Key, At}, Parked#{position => At, parked_at => 0}
            )
         || At <- lists:seq(1, Count)
        ],
        {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
        {reductions, Before} = process_info(Pid, reductions),
        ?assertEqual({ok, 0}, replay_parked(Store, Key, #{limit => 1})),
        {reductions, After} = process_info(Pid, reductions),
        ?assertEqual({ok, []}, parked(Store, Key)),
        After - Before
    end,
    Few = Cost(250),
    ?assert(Cost(2000) < 16 * Few).

%% It is delivered for itself, and the one that was parked is gone with its stream.
another_event_with_the_id_of_a_parked_one(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    Append = fun(N) ->
        Event = (erl_esdb_test:event(N))#{event_id => <<"id">>},
        {ok, 0} = erl_esdb_streams:append(Store, <<"a">>, any, [Event])
    end,
    Append(1),
    ok = connect(Store, Key, self(), #{}),
    ok = nack(Store, Key, self(), [one()], park),
    ok = erl_esdb_streams:delete(Store, <<"a">>),
    Append(2),
    ok = ack_events(Store, Key, self(), [one()]),
    ?assertMatch({ok, [_]}, parked(Store, Key)),
    ?assertEqual({ok, 0}, replay_parked(Store, Key)),
    nothing_more(Config, Key),
    ?assertEqual({ok, []}, parked(Store, Key)).

%% They stay parked, and what is behind them goes out.
hidden_events_are_in_nobodys_way(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    append(Config, <<"a">>, 2),
    append(Config, <<"b">>, 2),
    ok = connect(Store, Key, self(), #{}),
    [ok = nack(Store, Key, self(), [one()], park) || _ <- lists:seq(1, 4)],
    ok = erl_esdb_streams:set_metadata(Store, <<"a">>, #{truncate_before => 2}, #{}),
    ?assertEqual({ok, 1}, replay_parked(Store, Key, #{limit => 1})),
    B0 = one(),
    ?assertEqual({<<"b">>, 0}, name(B0)),
    ok = ack_events(Store, Key, self(), [B0]),
    nothing_more(Config, Key),
    ?assertMatch({ok, [#{version := 0}, #{version := 1}, _]}, parked(Store, Key)).

%% Of a stream that cannot be read on, what was parked does not go out before that.
what_does_not_go_out_does_not_count(_Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    Config = [{store, Store}],
    Key = subscribed(Config, #{}),
    [append(Config, <<"a">>, 1) || _ <- lists:seq(1, 60)],
    ok = connect(Store, Key, self(), #{max_in_flight => 1}),
    ok = nack(Store, Key, self(), [one()], park),
    erl_esdb_test:await(fun() ->
        {ok, #{position := Position}} = erl_esdb_subscriptions:info(Store, Key),
        Position =:= 60
    end),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    {ok, Engine, Handle, _} = erl_esdb_store:engine(Store),
    [{_, _, Packed}, {_, _, Other}] = [
        Piece
     || Version <- [55, 56],
        {ok, [Piece]} <- [Engine:read(Handle, <<"a">>, Version, 1, forward, #{})]
    ],
    ok = erl_esdb_test:tamper(Store, Packed, Other),
    [ok = ack_events(Store, Key, self(), [one()]) || _ <- lists:seq(1, 49)],
    receive {subscription_error, {integrity_violation, _}} -> ok end,
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertEqual({ok, 0}, replay_parked(Store, Key)),
    nothing_more(Config, Key),
    ?assertMatch({ok, [#{version := 0}]}, parked(Store, Key)),
    ok = erl_esdb_test:stop_store(Store).

skipped_events_are_gone(Config) ->
    Key = subscribed(Config, #{}),
    append(Config, <<"a">>, 2),
    ok = connect(store(Config), Key, self(), #{}),
    ok = nack(store(Config), Key, self(), [one()], skip),
    ?assertEqual({<<"a">>, 1}, name(one())),
    ?assertEqual({ok, []}, parked(store(Config), Key)).

a_dead_consumer_gives_back(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    Self = self(),
    Dying = spawn(fun() ->
        Self ! {got, [name(one()), name(one())]},
        receive die -> ok end
    end),
    ok = connect(Store, Key, Dying, #{max_in_flight => 2}),
    append(Config, <<"a">>, 1),
    append(Config, <<"b">>, 1),
    append(Config, <<"b">>, 1),
    receive {got, Names} -> ?assertEqual([{<<"a">>, 0}, {<<"b">>, 0}], lists:sort(Names)) end,
    ok = connect(Store, Key, self(), #{}),
    nothing_more(Config, Key),
    Dying ! die,
    Back = [one(), one()],
    ?assertEqual([{<<"a">>, 0}, {<<"b">>, 0}], lists:sort([name(E) || E <- Back])),
    ok = ack_events(Store, Key, self(), Back),
    ?assertEqual({<<"b">>, 1}, name(one())),
    ok = erl_esdb_subscriptions:disconnect(Store, Key, self()).

consumers_stay_when_the_process_crashes(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    ok = connect(Store, Key, self(), #{max_in_flight => 1}),
    append(Config, <<"a">>, 2),
    ok = ack_events(Store, Key, self(), [one()]),
    ?assertEqual({<<"a">>, 1}, name(one())),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    exit(Pid, kill),
    %% What was not acknowledged for all the process knew comes again, in order.
    First = one(),
    ?assert(First#event.version =< 1).

%% One stream fails and has more events than are held: others still go through, and its own come in
%% order when it goes on.
a_stream_that_waits_does_not_fill_the_queue(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{max_queue => 100, retry_delays => [1]}),
    append(Config, <<"bad">>, 1000),
    append(Config, <<"good">>, 10),
    ok = connect(Store, Key, self(), #{max_in_flight => 2}),
    Bad = one(),
    ?assertEqual({<<"bad">>, 0}, name(Bad)),
    Good = [
        begin
            Event = one(),
            ok = ack_events(Store, Key, self(), [Event]),
            name(Event)
        end
     || _ <- lists:seq(1, 10)
    ],
    ?assertEqual([{<<"good">>, V} || V <- lists:seq(0, 9)], Good),
    {ok, #{held := Held, floor := 0}} = erl_esdb_subscriptions:info(Store, Key),
    ?assert(Held =< 100),
    append(Config, <<"bad">>, 5),
    ok = ack_events(Store, Key, self(), [Bad]),
    Rest = [
        begin
            Event = one(),
            ok = ack_events(Store, Key, self(), [Event]),
            name(Event)
        end
     || _ <- lists:seq(1, 1004)
    ],
    ?assertEqual([{<<"bad">>, V} || V <- lists:seq(1, 1004)], Rest),
    {ok, #{held := 0, floor := 1015, streams := 0}} = erl_esdb_subscriptions:info(Store, Key).

parked_events_survive_and_go_with_the_subscription(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    append(Config, <<"a">>, 1),
    ok = connect(Store, Key, self(), #{}),
    ok = nack(Store, Key, self(), [one()], park),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    exit(Pid, kill),
    {ok, [#{version := 0}]} = parked(Store, Key),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    ?assertEqual({error, not_found}, parked(Store, Key)),
    Key = subscribed(Config, #{}),
    ?assertEqual({ok, []}, parked(Store, Key)).

%% So that many of them hold up nobody.
parked_events_are_looked_at_in_pages(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    append(Config, <<"a">>, 10),
    ok = connect(Store, Key, self(), #{}),
    [ok = nack(Store, Key, self(), [one()], park) || _ <- lists:seq(1, 10)],
    Versions = fun(Options) ->
        {ok, Parked} = parked(Store, Key, Options),
        [Version || #{version := Version} <- Parked]
    end,
    ?assertEqual([0, 1, 2], Versions(#{limit => 3})),
    ?assertEqual([3, 4, 5, 6], Versions(#{limit => 4, from => 3})),
    ?assertEqual(lists:seq(8, 9), Versions(#{from => 8})),
    ?assertEqual({ok, 2}, replay_parked(Store, Key, #{from => 4, limit => 2})),
    [
        begin
            Event = one(),
            ?assertEqual({<<"a">>, Version}, name(Event)),
            ok = ack_events(Store, Key, self(), [Event])
        end
     || Version <- [4, 5]
    ],
    nothing_more(Config, Key),
    ?assertEqual([0, 1, 2, 3, 6, 7, 8, 9], Versions(#{})),
    [
        ?assertEqual({error, {invalid_option, Name, Value}}, F(Store, Key, #{Name => Value}))
     || {Name, Value} <- [{limit, 0}, {from, -1}],
        F <- [
            fun erl_esdb_subscriptions:parked/3, fun erl_esdb_subscriptions:replay_parked/3
        ]
    ].

mistakes(Config) ->
    Store = store(Config),
    Key = subscribed(Config, #{}),
    ?assertEqual({error, not_found}, connect(Store, <<"no">>, self(), #{})),
    ?assertEqual(
        {error, {invalid_option, max_in_flight, 0}},
        connect(Store, Key, self(), #{max_in_flight => 0})
    ),
    ?assertEqual(
        {error, {not_in_flight, [7, <<"id">>]}}, ack_events(Store, Key, self(), [7, <<"id">>])
    ),
    ?assertEqual({error, competing}, erl_esdb_subscriptions:demand(Store, Key, 1)),
    {ok, Other} = erl_esdb_subscriptions:subscribe(Store, stream, <<"s">>, <<"n">>),
    ?assertEqual({error, not_competing}, connect(Store, Other, self(), #{})),
    ?assertEqual({error, not_competing}, replay_parked(Store, Other)),
    ?assertEqual({error, competing}, erl_esdb_subscriptions:attach(Store, Key, self())),
    ?assertError(badarg, nack(Store, Key, self(), [], later)),
    %% What is no list of events is found before the process is asked.
    append(Config, <<"a">>, 1),
    ok = connect(Store, Key, self(), #{}),
    Event = one(),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    [
        ?assertError(badarg, F(Refs))
     || Refs <- [[Event | foo], foo, [foo], [-1], [#event{}]],
        F <- [
            fun(R) -> ack_events(Store, Key, self(), R) end,
            fun(R) -> nack(Store, Key, self(), R, retry) end
        ]
    ],
    ok = ack_events(Store, Key, self(), [Event]),
    ?assertEqual({ok, Pid}, erl_esdb_delivery:pid(Store, subscription, Key)).
