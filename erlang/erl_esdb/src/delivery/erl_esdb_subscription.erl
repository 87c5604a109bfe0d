-module(erl_esdb_subscription).
-moduledoc """
The process of a subscription: reads the log from its place, hands over what is selected, and waits
for the feed when there is no more. What waits, what is handled and where to go on is counted by
`m:erl_esdb_outbox`, which is pure.

Who gets the events, the first of these that there is:

1. the subscriber that the record names, as `{events, [Event]}`;
2. the handlers that joined the group of the subscription, each event one of them, in turn, as
   `{event, Event}`;
3. the process that subscribed, as `{event, Event}`.

While there is none nothing is read, and nothing is lost.
""".

-behaviour(gen_server).

-export([start_link/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-define(SCOPE, erl_esdb_pg).
%% Milliseconds until another look at a full mailbox, at one that may have been emptied, and until a
%% store is read again that could not be read.
-define(LOOK, 10).
-define(SETTLE, 100).
-define(AGAIN, 1000).
-define(WINDOW, 1000).
-define(DEAD, 1 bsl 32).

-type taker() :: {pid(), reference()} | undefined.
-type consumer() :: {one, pid(), event | events} | {many, [pid(), ...]} | none.

-record(state, {
    store :: atom(),
    key :: binary(),
    options :: map(),
    filter :: erl_esdb_filters:filter(),
    cursor :: erl_esdb_cursor:cursor(),
    outbox :: erl_esdb_outbox:outbox(),
    feed :: erl_esdb_feed:feed(),
    subscriber :: taker(),
    caller :: taker(),
    group :: reference(),
    handlers :: [pid()],
    %% emitters that the events go through, each stream through one; none with a pool of one
    lanes = [] :: [pid()],
    pool_size :: pos_integer(),
    %% messages in a mailbox from which on it gets no more
    window :: pos_integer(),
    saved :: non_neg_integer(),
    %% whether a message is on its way that goes on with reading
    pumping = false :: boolean(),
    %% the queue was full, with the strategy `error'
    suspended = false :: boolean(),
    timer :: reference() | undefined
}).

-doc false.
-spec start_link(atom(), subscription()) -> gen_server:start_ret().
start_link(Store, Subscription) -> gen_server:start_link(?MODULE, {Store, Subscription}, []).

-doc false.
-spec init({atom(), subscription()}) -> {ok, #state{}} | {stop, term()}.
init({Store, #subscription{id = Key, type = Type, selector = Selector} = Subscription}) ->
    %% Lanes are ended in terminate/2.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store, Key}),
    maybe
        {ok, Filter} ?= erl_esdb_filters:compile(Type, Selector),
        {ok, Next} ?= erl_esdb_subscriptions:resume(Store, Subscription),
        {ok, Feed} ?= erl_esdb_feed:subscribe(Store, erl_esdb_filters:stream(Filter)),
        ok = erl_esdb_delivery:put(Store, subscription, Key, self()),
        {ok, pumped(new(Store, Subscription, Filter, Next, Feed))}
    else
        {error, Reason} -> {stop, Reason}
    end.

-spec new(
    atom(), subscription(), erl_esdb_filters:filter(), non_neg_integer(), erl_esdb_feed:feed()
) -> #state{}.
new(Store, Subscription, Filter, Next, Feed) ->
    #subscription{id = Key, options = Given, pool_size = Size} = Subscription,
    Options = Given#{store_id => Store, subscription_key => Key},
    _ = monitor(process, ?SCOPE),
    {Group, _} = pg:monitor(?SCOPE, erl_esdb_emitter_group:group_key(Store, Key)),
    Outbox = erl_esdb_outbox:new(Next, Options),
    laned(#state{
        store = Store,
        key = Key,
        options = Options,
        filter = Filter,
        cursor = erl_esdb_cursor:new(Store, Filter, Next),
        outbox = acknowledged(erl_esdb_subscriptions:acknowledged(Store, Key), Outbox),
        feed = Feed,
        subscriber = taker(Subscription#subscription.subscriber_pid),
        caller = taker(caller(Subscription, erl_esdb_delivery:find(Store, consumer, Key))),
        group = Group,
        handlers = erl_esdb_emitter_group:handlers(Store, Key),
        pool_size = Size,
        window = maps:get(window, Given, ?WINDOW),
        saved = Next
    }).

-spec acknowledged(non_neg_integer() | undefined, erl_esdb_outbox:outbox()) ->
    erl_esdb_outbox:outbox().
acknowledged(undefined, Outbox) -> Outbox;
acknowledged(Position, Outbox) -> erl_esdb_outbox:acknowledged(Position, Outbox).

%% Who subscribed gets the events only where nobody was named: those of a subscriber that has ended
%% wait for the next one.
-spec caller(subscription(), {ok, pid()} | error) -> pid() | undefined.
caller(#subscription{subscriber_pid = undefined}, {ok, Pid}) -> Pid;
caller(_Subscription, _) -> undefined.

-spec taker(pid() | undefined) -> taker().
taker(undefined) -> undefined;
taker(Pid) -> {Pid, monitor(process, Pid)}.

-spec laned(#state{}) -> #state{}.
laned(#state{pool_size = Size, subscriber = {Pid, _}, lanes = []} = State) when Size > 1 ->
    #state{store = Store, key = Key} = State,
    Lane = fun(_) ->
        {ok, Emitter} = erl_esdb_emitter:start_lane(Store, Key, Pid),
        Emitter
    end,
    State#state{lanes = [Lane(N) || N <- lists:seq(1, Size)]};
laned(State) ->
    State.

%% ---- messages

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(info, _From, #state{outbox = Outbox} = State) ->
    %% Who asks again hears of what was written to other streams meanwhile, too.
    {reply, {ok, erl_esdb_outbox:info(Outbox)}, pumped(State)};
handle_call({demand, More}, _From, #state{outbox = Outbox} = State) ->
    {reply, ok, pumped(State#state{outbox = erl_esdb_outbox:demand(More, Outbox)})};
handle_call(_, _From, State) ->
    {reply, {error, not_competing}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({acknowledged, Position}, #state{outbox = Outbox} = State) ->
    Outbox1 = erl_esdb_outbox:acknowledged(Position, Outbox),
    {noreply, pumped(saved(State#state{outbox = Outbox1}))};
handle_cast({attach, Pid}, #state{lanes = Lanes} = State) ->
    State1 = without_caller(left(State)),
    lists:foreach(fun(Lane) -> erl_esdb_emitter:update_subscriber(Lane, Pid) end, Lanes),
    {noreply, pumped(laned(State1#state{subscriber = taker(Pid), suspended = false}))};
handle_cast(_, State) ->
    {noreply, State}.

-spec without_caller(#state{}) -> #state{}.
without_caller(#state{caller = undefined} = State) ->
    State;
without_caller(#state{caller = {_, Ref}} = State) ->
    true = demonitor(Ref, [flush]),
    State#state{caller = undefined}.

%% The news that the one before is dead may still be on its way: then it is as if it were here.
-spec left(#state{}) -> #state{}.
left(#state{subscriber = undefined} = State) ->
    State;
left(#state{subscriber = {Pid, Ref}} = State) ->
    true = demonitor(Ref, [flush]),
    case is_known_alive(Pid) of
        true -> State;
        false -> gone(Ref, State)
    end.

%% Of a process on another node it is not known: what it has not handled for all we know goes out
%% again.
-spec is_known_alive(pid()) -> boolean().
is_known_alive(Pid) -> not lists:member(backlog(Pid), [unknown, ?DEAD]).

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({erl_esdb_feed, _}, State) ->
    {noreply, pumped(State)};
handle_info(pump, State) ->
    {noreply, saved(pump(State#state{pumping = false}))};
handle_info(look, State) ->
    {noreply, pumped(State#state{timer = undefined})};
handle_info({Group, Change, _, _}, #state{group = Group} = State) ->
    {noreply, pumped(regrouped(Change, State))};
handle_info({'DOWN', _, process, {?SCOPE, _}, _}, State) ->
    %% Who is a member now is only heard by who asks anew.
    {stop, groups_ended, State};
handle_info({'DOWN', Ref, process, _, _}, State) ->
    {noreply, pumped(gone(Ref, State))};
handle_info({'EXIT', Pid, Reason}, #state{lanes = Lanes} = State) ->
    case lists:member(Pid, Lanes) of
        true -> {stop, {lane, Reason}, State};
        false -> {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

-doc false.
%% When this returns, nothing more is handed over.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{store = Store, key = Key, lanes = Lanes}) ->
    ok = erl_esdb_delivery:remove(Store, subscription, Key, self()),
    lists:foreach(fun ended/1, Lanes).

-spec ended(pid()) -> ok.
ended(Lane) ->
    Ref = monitor(process, Lane),
    exit(Lane, kill),
    receive
        {'DOWN', Ref, process, _, _} -> ok
    end.

%% ---- who takes the events

-spec consumer(#state{}) -> consumer().
consumer(#state{suspended = true}) -> none;
consumer(#state{subscriber = {Pid, _}}) -> {one, Pid, events};
consumer(#state{handlers = [_ | _] = Handlers}) -> {many, Handlers};
consumer(#state{caller = {Pid, _}}) -> {one, Pid, event};
consumer(#state{}) -> none.

-spec regrouped(join | leave, #state{}) -> #state{}.
regrouped(Change, #state{store = Store, key = Key} = State) ->
    State1 = State#state{handlers = erl_esdb_emitter_group:handlers(Store, Key)},
    case {Change, State} of
        %% What a handler has not acknowledged goes to another.
        {leave, #state{options = #{ack := manual}, subscriber = undefined}} -> rewound(State1);
        _ -> State1
    end.

%% Another who takes its place gets what it has not handled.
-spec gone(reference(), #state{}) -> #state{}.
gone(Ref, #state{subscriber = {_, Ref}} = State) ->
    rewound(State#state{subscriber = undefined});
gone(Ref, #state{caller = {_, Ref}, subscriber = undefined, handlers = []} = State) ->
    rewound(State#state{caller = undefined});
gone(Ref, #state{caller = {_, Ref}} = State) ->
    State#state{caller = undefined};
gone(_Ref, State) ->
    State.

-spec rewound(#state{}) -> #state{}.
rewound(#state{store = Store, filter = Filter, outbox = Outbox} = State) ->
    Outbox1 = erl_esdb_outbox:rewind(Outbox),
    Floor = erl_esdb_outbox:floor(Outbox1),
    State#state{outbox = Outbox1, cursor = erl_esdb_cursor:new(Store, Filter, Floor)}.

%% ---- the loop: hand over, read a page, hand over, and what has come in between has its turn

-spec pumped(#state{}) -> #state{}.
pumped(#state{pumping = true} = State) ->
    State;
pumped(State) ->
    self() ! pump,
    State#state{pumping = true}.

-spec pump(#state{}) -> #state{}.
pump(State) ->
    State1 = #state{outbox = Outbox} = delivered(State),
    case {consumer(State1), erl_esdb_outbox:room(Outbox)} of
        {none, _} -> State1;
        {_, 0} -> later(State1);
        {_, Room} -> read(Room, State1)
    end.

-spec read(pos_integer(), #state{}) -> #state{}.
read(Room, #state{cursor = Cursor} = State) ->
    case erl_esdb_cursor:page(Cursor, Room) of
        {more, Events, Cursor1} -> pumped(taken_in(Events, State#state{cursor = Cursor1}));
        {done, [], Cursor1} -> waiting(taken_in([], State#state{cursor = Cursor1}));
        {error, Reason} -> troubled(Reason, State)
    end.

-spec taken_in([event()], #state{}) -> #state{}.
taken_in(Events, #state{cursor = Cursor, outbox = Outbox} = State) ->
    case erl_esdb_outbox:add(Events, erl_esdb_cursor:position(Cursor), Outbox) of
        {ok, Outbox1} -> delivered(State#state{outbox = Outbox1});
        {error, queue_full} -> suspended(State)
    end.

-spec waiting(#state{}) -> #state{}.
waiting(#state{feed = Feed, cursor = Cursor} = State) ->
    case erl_esdb_feed:wait(Feed, erl_esdb_cursor:position(Cursor)) of
        ready -> pumped(State);
        wait -> later(State)
    end.

%% Nothing is dropped: the log is read again from here for who attaches.
-spec suspended(#state{}) -> #state{}.
suspended(#state{key = Key} = State) ->
    ok = tell(consumer(State), {erl_esdb_subscription, Key, {error, queue_full}}),
    rewound(State#state{suspended = true}).

-spec tell(consumer(), tuple()) -> ok.
tell({one, Pid, _}, Message) ->
    Pid ! Message,
    ok;
tell({many, Pids}, Message) ->
    lists:foreach(fun(Pid) -> Pid ! Message end, Pids);
tell(none, _Message) ->
    ok.

-spec troubled(term(), #state{}) -> #state{}.
troubled(Reason, #state{store = Store, key = Key} = State) ->
    ?LOG_ERROR("store ~tp: subscription ~ts cannot read on: ~tp", [Store, Key, Reason]),
    timed(?AGAIN, State).

%% Only where a look at a mailbox can tell more: all else makes a message.
-spec later(#state{}) -> #state{}.
later(#state{outbox = Outbox} = State) ->
    #{queue := #{size := Size}} = erl_esdb_outbox:info(Outbox),
    case {Size > 0 andalso erl_esdb_outbox:limit(Outbox) =/= 0, consumer(State)} of
        {true, _} -> timed(?LOOK, State);
        {false, {one, Pid, Shape}} -> settling(seen(backlogs(Pid, Shape, State)), State);
        {false, _} -> State
    end.

-spec settling(non_neg_integer() | unknown, #state{}) -> #state{}.
settling(unknown, State) ->
    State;
settling(_, #state{outbox = Outbox} = State) ->
    case erl_esdb_outbox:is_unsettled(Outbox) of
        true -> timed(?SETTLE, State);
        false -> State
    end.

-spec timed(pos_integer(), #state{}) -> #state{}.
timed(Time, #state{timer = undefined} = State) ->
    State#state{timer = erlang:send_after(Time, self(), look)};
timed(_Time, State) ->
    State.

-spec saved(#state{}) -> #state{}.
saved(#state{store = Store, key = Key, outbox = Outbox, saved = Saved} = State) ->
    case erl_esdb_outbox:floor(Outbox) of
        Saved ->
            State;
        Floor ->
            NextKey = erl_esdb_subscriptions_store:next_key(Key),
            ok = erl_esdb_checkpoints:save(Store, NextKey, Floor),
            State#state{saved = Floor}
    end.

%% ---- handing over

-spec delivered(#state{}) -> #state{}.
delivered(State) ->
    case consumer(State) of
        none -> State;
        {one, Pid, Shape} -> to_one(Pid, Shape, State);
        {many, Pids} -> to_many(Pids, State)
    end.

-spec to_one(pid(), event | events, #state{}) -> #state{}.
to_one(Pid, Shape, #state{outbox = Outbox} = State) ->
    Backlogs = backlogs(Pid, Shape, State),
    Outbox1 = erl_esdb_outbox:settle(seen(Backlogs), Outbox),
    {Events, Outbox2} = erl_esdb_outbox:take(room(sum(Backlogs), State), Outbox1),
    ok = hand_over(Shape, Pid, Events, State),
    ok = told(Events, State),
    State#state{outbox = Outbox2}.

-spec backlogs(pid(), event | events, #state{}) -> [non_neg_integer() | unknown].
backlogs(Pid, event, _State) -> [backlog(Pid)];
backlogs(Pid, events, #state{lanes = Lanes}) -> [backlog(Process) || Process <- [Pid | Lanes]].

%% With one process between, the newest messages in its mailbox are the newest events. Behind lanes,
%% or on another node, it is not known which they are.
-spec seen([non_neg_integer() | unknown]) -> non_neg_integer() | unknown.
seen([Backlog]) -> Backlog;
seen(_) -> unknown.

-spec sum([non_neg_integer() | unknown]) -> non_neg_integer() | unknown.
sum(Backlogs) -> lists:foldl(fun plus/2, 0, Backlogs).

-spec plus(non_neg_integer() | unknown, non_neg_integer() | unknown) -> non_neg_integer() | unknown.
plus(A, B) when is_integer(A), is_integer(B) -> A + B;
plus(_, _) -> unknown.

%% One that has died has no room: the news of its end is on the way here. So has one of a time
%% before this node was started, which is no process to ask about.
-spec backlog(pid()) -> non_neg_integer() | unknown.
backlog(Pid) when node(Pid) =:= node() ->
    try process_info(Pid, message_queue_len) of
        {message_queue_len, Length} -> Length;
        undefined -> ?DEAD
    catch
        error:badarg -> ?DEAD
    end;
backlog(_) ->
    unknown.

%% Who asks for events, or acknowledges them, says so what it can take.
-spec room(non_neg_integer() | unknown, #state{}) -> non_neg_integer() | infinity.
room(unknown, _State) -> infinity;
room(_Backlog, #state{options = #{mode := pull}}) -> infinity;
room(_Backlog, #state{options = #{ack := manual}}) -> infinity;
room(Backlog, #state{window = Window}) when is_integer(Backlog) -> max(0, Window - Backlog).

-spec hand_over(event | events, pid(), [event()], #state{}) -> ok.
hand_over(event, Pid, Events, _State) ->
    lists:foreach(fun(Event) -> Pid ! {event, Event} end, Events);
hand_over(events, Pid, Events, #state{lanes = [], options = Options}) ->
    in_batches(Pid, Events, maps:get(batch, Options, 1));
hand_over(events, _Pid, Events, #state{lanes = Lanes}) ->
    Tuple = list_to_tuple(Lanes),
    Send = fun(#event{stream_id = Stream} = Event) ->
        element(1 + erlang:phash2(Stream, tuple_size(Tuple)), Tuple) ! {events, [Event]}
    end,
    lists:foreach(Send, Events).

-spec in_batches(pid(), [event()], pos_integer()) -> ok.
in_batches(_Pid, [], _Size) ->
    ok;
in_batches(Pid, Events, Size) when length(Events) =< Size ->
    Pid ! {events, Events},
    ok;
in_batches(Pid, Events, Size) ->
    {Batch, Rest} = lists:split(Size, Events),
    Pid ! {events, Batch},
    in_batches(Pid, Rest, Size).

-spec to_many([pid(), ...], #state{}) -> #state{}.
to_many(Pids, #state{outbox = Outbox} = State) ->
    Rooms = [{Pid, room(backlog(Pid), State)} || Pid <- Pids],
    Outbox1 = erl_esdb_outbox:settle(all, Outbox),
    {Events, Outbox2} = erl_esdb_outbox:take(total(Rooms), Outbox1),
    Left = deal(Events, [{Pid, Room} || {Pid, Room} <- Rooms, Room =/= 0], []),
    ok = told(Events, State),
    %% Who was dealt to last begins last the next time.
    State#state{outbox = Outbox2, handlers = Left ++ (Pids -- Left)}.

-spec total([{pid(), non_neg_integer() | infinity}]) -> non_neg_integer() | infinity.
total(Rooms) -> lists:foldl(fun({_, Room}, Sum) -> more(Room, Sum) end, 0, Rooms).

-spec more(non_neg_integer() | infinity, non_neg_integer() | infinity) ->
    non_neg_integer() | infinity.
more(A, B) when is_integer(A), is_integer(B) -> A + B;
more(_, _) -> infinity.

%% In turn; answers whose turn it is next. There is room for all of them.
-spec deal([event()], [{pid(), pos_integer() | infinity}], [{pid(), pos_integer() | infinity}]) ->
    [pid()].
deal([], Next, Had) ->
    [Pid || {Pid, _} <- Next ++ lists:reverse(Had)];
deal(Events, [], Had) ->
    deal(Events, lists:reverse(Had), []);
deal([Event | Events], [{Pid, Room} | Next], Had) ->
    Pid ! {event, Event},
    deal(Events, Next, [{Pid, Left} || Left <- [less(Room)], Left =/= 0] ++ Had).

-spec less(pos_integer() | infinity) -> non_neg_integer() | infinity.
less(infinity) -> infinity;
less(Room) -> Room - 1.

-spec told([event()], #state{}) -> ok.
told(Events, #state{store = Store, key = Key}) ->
    Tell = fun(#event{event_id = Id, event_type = Type}) ->
        erl_esdb_telemetry:emit(?SUBSCRIPTION_EVENT_DELIVERED, #{count => 1}, #{
            store_id => Store, subscription_id => Key, event_id => Id, event_type => Type
        })
    end,
    lists:foreach(Tell, Events).
