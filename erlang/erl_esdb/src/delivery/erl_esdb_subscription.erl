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

While there is none nothing is read, and nothing is lost: what one of them had not handled when it
ended goes to the next, and what it had not acknowledged also where another takes its place.

It stops, tells who gets the events, and goes on when a process is attached or joins: where its
queue is full with the strategy `error`, and where an event is not as it was written
(`m:erl_esdb_integrity`).
""".

-behaviour(gen_server).

-export([start_link/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-define(SCOPE, erl_esdb_pg).
%% Milliseconds until another look at a full mailbox, and at one that may have been emptied; twice
%% as many each time that nothing has moved, up to the last: who is slow costs the others nothing.
-define(LOOK, 10).
-define(SETTLE, 100).
-define(LONGEST, 1000).
%% The same until a store is read again that could not be read.
-define(AGAIN, 1000).
-define(WINDOW, 1000).
-define(DEAD, 1 bsl 32).
%% Milliseconds after which a node that led before this one has long heard of it: what it may have
%% sent to handlers was written before that.
-define(DEPOSED, 5000).
%% Processes that were handlers and are remembered, besides those that are.
-define(FORMER, 1000).

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
    %% who was sent events as a handler, also those that have left, and a monitor each, that tells
    %% when no more word of it is on its way
    served = #{} :: #{pid() => reference()},
    %% who may have been sent events as a handler, also by an earlier process of the subscription,
    %% on any node; and whether all handlers of now are among them
    former :: [pid()],
    noted = false :: boolean(),
    %% emitters that the events go through, each stream through one; none with a pool of one
    lanes = [] :: [pid()],
    pool_size :: pos_integer(),
    %% events of a message `{events, _}'
    batch :: pos_integer(),
    %% events in a mailbox from which on it gets no more
    window :: pos_integer(),
    saved :: erl_esdb_outbox:place(),
    %% whether a message is on its way that goes on with reading
    pumping = false :: boolean(),
    %% why it does not go on before a process is attached or joins
    halted :: undefined | queue_full | {integrity_violation, map()},
    timer :: reference() | undefined,
    %% how things stood at the last look, and after how long there is another
    looked = {none, 0} :: {Progress :: term(), Delay :: non_neg_integer()},
    %% whether a mailbox has events of ours that it may take
    behind = false :: boolean()
}).

-type backlog() :: non_neg_integer() | unknown.

-doc false.
-spec start_link(atom(), subscription()) -> gen_server:start_ret().
start_link(Store, Subscription) -> gen_server:start_link(?MODULE, {Store, Subscription}, []).

-doc false.
-spec init({atom(), subscription()}) -> {ok, #state{}} | {stop, term()}.
init({Store, #subscription{id = Key, type = Type, selector = Selector} = Subscription}) ->
    %% Lanes are ended in terminate/2.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store, Key}),
    ok = erl_esdb_delivery:outlive(Store, subscription, Key),
    maybe
        {ok, Filter} ?= erl_esdb_filters:compile(Type, Selector),
        {ok, Place} ?= erl_esdb_subscriptions:resume(Store, Subscription),
        {ok, Acknowledged} ?= erl_esdb_subscriptions:acknowledged(Store, Key),
        {ok, Former} ?= erl_esdb_delivery:load_handlers(Store, Key),
        {ok, Feed} ?= erl_esdb_feed:subscribe(Store, erl_esdb_filters:stream(Filter)),
        ok ?= erl_esdb_delivery:claim(Store, subscription, Key),
        {ok, pumped(new(Store, Subscription, Filter, {Place, Acknowledged, Former}, Feed))}
    else
        {error, Reason} -> {stop, Reason}
    end.

-spec new(atom(), subscription(), erl_esdb_filters:filter(), {Place, Acknowledged, Former}, Feed) ->
    #state{}
when
    Place :: erl_esdb_outbox:place(),
    Acknowledged :: non_neg_integer() | undefined,
    Former :: [pid()],
    Feed :: erl_esdb_feed:feed().
new(Store, Subscription, Filter, {Place, Acknowledged, Former}, Feed) ->
    #subscription{id = Key, options = Given, pool_size = Size} = Subscription,
    Options = Given#{store_id => Store, subscription_key => Key},
    _ = monitor(process, ?SCOPE),
    {Group, _} = pg:monitor(?SCOPE, erl_esdb_emitter_group:group_key(Store, Key)),
    Outbox = erl_esdb_outbox:new(behind(Acknowledged, Place, Options), Options),
    doubting(laned(#state{
        store = Store,
        key = Key,
        options = Options,
        filter = Filter,
        cursor = erl_esdb_cursor:new(Store, Filter, erl_esdb_outbox:next(Outbox)),
        outbox = acknowledged(Acknowledged, Outbox),
        feed = Feed,
        subscriber = taker(Subscription#subscription.subscriber_pid),
        caller = taker(caller(Subscription, erl_esdb_delivery:consumers(Store, Key))),
        group = Group,
        handlers = erl_esdb_emitter_group:handlers(Store, Key),
        former = Former,
        pool_size = Size,
        batch = maps:get(batch, Given, 1),
        window = maps:get(window, Given, ?WINDOW),
        saved = Place
    })).

%% Whoever took events before this process began may have some of them still. Where no other node
%% can have led, none comes to them any more.
-spec doubting(#state{}) -> #state{}.
doubting(#state{options = #{ack := manual}, handlers = Handlers} = State) ->
    #state{store = Store, former = Former, outbox = Outbox} = State,
    Takers = [Pid || {Pid, _} <- [State#state.subscriber, State#state.caller]],
    _ =
        case erl_esdb_delivery:is_shared(Store) of
            true -> erlang:send_after(?DEPOSED, self(), certain);
            false -> self() ! certain
        end,
    State#state{outbox = erl_esdb_outbox:doubt(Former ++ Handlers ++ Takers, Outbox)};
doubting(State) ->
    State.

%% What was acknowledged is saved at once, the place a moment later: where the process, or its node,
%% ended in between it is not to be handed over again.
-spec behind(non_neg_integer() | undefined, Place, map()) -> Place when
    Place :: erl_esdb_outbox:place().
behind(Acknowledged, Place, #{ack := manual}) when is_integer(Acknowledged), is_integer(Place) ->
    max(Place, Acknowledged + 1);
behind(_Acknowledged, Place, _Options) ->
    Place.

-spec acknowledged(non_neg_integer() | undefined, erl_esdb_outbox:outbox()) ->
    erl_esdb_outbox:outbox().
acknowledged(undefined, Outbox) -> Outbox;
acknowledged(Position, Outbox) -> erl_esdb_outbox:acknowledged(Position, Outbox).

%% Who subscribed gets the events only where nobody was named: those of a subscriber that has ended
%% wait for the next one.
-spec caller(subscription(), {ok, pid()} | error) -> pid() | undefined.
caller(#subscription{subscriber_pid = undefined}, {ok, Pid}) when is_pid(Pid) -> Pid;
caller(_Subscription, _) -> undefined.

-spec taker(pid() | undefined) -> taker().
taker(undefined) -> undefined;
taker(Pid) -> {Pid, monitor(process, Pid)}.

%% Who acknowledges up to a position gets all in the order of positions, which lanes do not keep.
-spec laned(#state{}) -> #state{}.
laned(#state{options = #{ack := manual}} = State) ->
    State;
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
    Info = erl_esdb_outbox:info(Outbox),
    {reply, {ok, Info#{status => status(State)}}, pumped(State)};
handle_call({demand, More}, _From, #state{outbox = Outbox} = State) ->
    {reply, ok, pumped(State#state{outbox = erl_esdb_outbox:demand(More, Outbox)})};
handle_call(_, _From, State) ->
    {reply, {error, not_competing}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({acknowledged, Name, Position, By}, State) ->
    {noreply, pumped(saved(acknowledged(Name, Position, By, State)))};
handle_cast({attach, Pid}, #state{subscriber = {Pid, _}} = State) ->
    {noreply, pumped(State#state{halted = undefined})};
handle_cast({attach, Pid}, State) ->
    {noreply, pumped(attached(Pid, State))};
handle_cast(_, State) ->
    {noreply, State}.

%% A handler speaks of what itself was sent, also after it has left, and so does who had all events
%% before handlers joined; of what handlers have another process can only say of an event that it is
%% done. Who takes all events speaks of all. Where the event is gone from its stream, and the log
%% does not know its position any more, what was sent tells it.
-spec acknowledged(erl_esdb_outbox:name(), Position, pid(), #state{}) -> #state{} when
    Position :: non_neg_integer() | undefined.
acknowledged(Name, Position, By, #state{options = #{ack := manual}} = State) ->
    #state{outbox = Outbox} = State,
    Outbox1 =
        case {taken_by(State), speaks_for_itself(By, State)} of
            {{one, By, _}, true} -> own_or_all(Name, Position, By, Outbox);
            {_, true} -> erl_esdb_outbox:acknowledged(Name, By, Outbox);
            {{many, _}, false} -> own_or_one(Name, By, Outbox);
            {_, false} -> acknowledged(position(Name, Position, Outbox), Outbox)
        end,
    State#state{outbox = Outbox1};
acknowledged(_Name, undefined, _By, State) ->
    State;
acknowledged(_Name, Position, _By, #state{outbox = Outbox} = State) ->
    case taken_by(State) of
        {many, _} -> State#state{outbox = erl_esdb_outbox:done(Position, Outbox)};
        _ -> State#state{outbox = erl_esdb_outbox:acknowledged(Position, Outbox)}
    end.

%% The word of one that has ended may come after the news of that: where another node passes it on.
-spec speaks_for_itself(pid(), #state{}) -> boolean().
speaks_for_itself(By, #state{former = Former} = State) ->
    is_handler(By, State) orelse lists:member(By, Former).

%% Also one of which this process has not heard since it began anew.
-spec is_handler(pid(), #state{}) -> boolean().
is_handler(Pid, #state{served = Served, handlers = Handlers}) ->
    is_map_key(Pid, Served) orelse lists:member(Pid, Handlers).

%% One that takes all events by now, and has some from the time when it did not.
-spec own_or_all(erl_esdb_outbox:name(), Position, pid(), Outbox) -> Outbox when
    Position :: non_neg_integer() | undefined, Outbox :: erl_esdb_outbox:outbox().
own_or_all(Name, Position, By, Outbox) ->
    At = position(Name, Position, Outbox),
    case erl_esdb_outbox:is_sent(Name, By, Outbox) of
        true ->
            erl_esdb_outbox:acknowledged(Name, By, Outbox);
        false ->
            case is_integer(At) andalso erl_esdb_outbox:is_doubtful(At, By, Outbox) of
                true -> erl_esdb_outbox:done(Name, Outbox);
                false -> acknowledged(At, Outbox)
            end
    end.

-spec own_or_one(erl_esdb_outbox:name(), pid(), Outbox) -> Outbox when
    Outbox :: erl_esdb_outbox:outbox().
own_or_one(Name, By, Outbox) ->
    case erl_esdb_outbox:is_sent(Name, By, Outbox) of
        true -> erl_esdb_outbox:acknowledged(Name, By, Outbox);
        false -> erl_esdb_outbox:done(Name, Outbox)
    end.

-spec position(erl_esdb_outbox:name(), Position, erl_esdb_outbox:outbox()) -> Position when
    Position :: non_neg_integer() | undefined.
position(Name, Position, Outbox) ->
    case erl_esdb_outbox:position(Name, Outbox) of
        {ok, Sent} -> Sent;
        error -> Position
    end.

-spec status(#state{}) -> running | {halted, queue_full | {integrity_violation, map()}}.
status(#state{halted = undefined}) -> running;
status(#state{halted = Reason}) -> {halted, Reason}.

%% Who is attached takes the place of all who had events so far.
-spec attached(pid(), #state{}) -> #state{}.
attached(Pid, #state{subscriber = Subscriber, caller = Caller} = State) ->
    Replace = fun(Taker, Acc) -> replaced(Taker, Pid, Acc) end,
    State1 = lists:foldl(Replace, State, [Taker || {_, _} = Taker <- [Subscriber, Caller]]),
    State2 = taken_over(Pid, State1),
    laned(State2#state{subscriber = taker(Pid), caller = undefined, halted = undefined}).

%% The news that it is dead may still be on its way: then it is as if it were here.
-spec replaced({pid(), reference()}, By :: pid(), #state{}) -> #state{}.
replaced({Pid, Ref}, Pid, State) ->
    true = demonitor(Ref, [flush]),
    State;
replaced({Pid, Ref}, _By, #state{lanes = Lanes} = State) ->
    true = demonitor(Ref, [flush]),
    lists:foreach(fun drained/1, Lanes),
    case is_known_alive(Pid) of
        true -> lived(Pid, State);
        false -> gone(Ref, State)
    end.

%% What is written from here on only this process sends: of that a handler's word is certain.
-spec certain(#state{}) -> #state{}.
certain(#state{store = Store, outbox = Outbox} = State) ->
    case erl_esdb_store:next_position(Store) of
        {ok, End} ->
            State#state{outbox = erl_esdb_outbox:certain_from(End, Outbox)};
        {error, _} ->
            _ = erlang:send_after(?AGAIN, self(), certain),
            State
    end.

%% It keeps what it was sent, but for what it is to acknowledge. What was in the lanes is before one
%% that goes on as a handler by now.
-spec lived(pid(), #state{}) -> #state{}.
lived(_Pid, #state{options = #{ack := manual}} = State) ->
    State;
lived(Pid, #state{handlers = Handlers, lanes = Lanes, outbox = Outbox} = State) ->
    case lists:member(Pid, Handlers) of
        true ->
            Merged = erl_esdb_outbox:merge(Lanes, Pid, Outbox),
            State#state{lanes = [], outbox = Merged};
        false ->
            forgotten([Pid | Lanes], State#state{lanes = []})
    end.

%% What others have not acknowledged goes to who speaks of all from now on.
-spec taken_over(pid(), #state{}) -> #state{}.
taken_over(Pid, #state{options = #{ack := manual}, outbox = Outbox} = State) ->
    lists:foldl(fun lost/2, State, erl_esdb_outbox:receivers(Outbox) -- [Pid]);
taken_over(_Pid, State) ->
    State.

%% A lane never waits for anybody: it passes on what it has, and ends.
-spec drained(pid()) -> ok.
drained(Lane) ->
    true = unlink(Lane),
    try
        erl_esdb_emitter:stop(Lane)
    catch
        exit:_ -> ok
    end.

-spec forgotten([pid()], #state{}) -> #state{}.
forgotten(Pids, #state{outbox = Outbox} = State) ->
    State#state{outbox = lists:foldl(fun erl_esdb_outbox:forget/2, Outbox, Pids)}.

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
handle_info(certain, State) ->
    {noreply, certain(State)};
handle_info({Group, Change, _, Pids}, #state{group = Group} = State) ->
    {noreply, pumped(regrouped(Change, Pids, State))};
handle_info({'DOWN', _, process, {?SCOPE, _}, _}, State) ->
    %% Who is a member now is only heard by who asks anew.
    {stop, groups_ended, State};
handle_info({'DOWN', Ref, process, Pid, _}, #state{served = Served} = State) ->
    case Served of
        #{Pid := Ref} -> {noreply, silent(Pid, State#state{served = maps:remove(Pid, Served)})};
        #{} -> {noreply, pumped(gone(Ref, State))}
    end;
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
consumer(#state{halted = Reason}) when Reason =/= undefined -> none;
consumer(State) -> taken_by(State).

-spec taken_by(#state{}) -> consumer().
taken_by(#state{subscriber = {Pid, _}}) -> {one, Pid, events};
taken_by(#state{handlers = [_ | _] = Handlers}) -> {many, Handlers};
taken_by(#state{caller = {Pid, _}}) -> {one, Pid, event};
taken_by(#state{}) -> none.

-spec regrouped(join | leave, [pid()], #state{}) -> #state{}.
regrouped(join, _Pids, State) ->
    regrouped(State#state{halted = undefined});
regrouped(leave, Pids, #state{handlers = Before} = State) ->
    State1 = #state{handlers = Handlers} = regrouped(State),
    Back = [Pid || Pid <- Pids, lists:member(Pid, Before), lists:member(Pid, Handlers)],
    lists:foldl(fun back/2, State1, Back).

%% One that has left and joined again, before that was heard of, may have thrown away what it had.
-spec back(pid(), #state{}) -> #state{}.
back(Pid, #state{options = #{ack := manual}} = State) -> lost(Pid, State);
back(_Pid, State) -> State.

-spec regrouped(#state{}) -> #state{}.
regrouped(#state{store = Store, key = Key, handlers = Before} = State) ->
    Handlers = erl_esdb_emitter_group:handlers(Store, Key),
    State1 = State#state{handlers = Handlers, noted = false},
    lists:foldl(fun handler_left/2, State1, Before -- Handlers).

%% A handler that leaves takes along what it was sent, unless it goes on in another role. What it
%% has not acknowledged goes to another all the same, and so does all that a dead one had.
-spec handler_left(pid(), #state{}) -> #state{}.
handler_left(Pid, #state{subscriber = {Pid, _}} = State) ->
    State;
handler_left(Pid, #state{caller = {Pid, _}, handlers = []} = State) ->
    State;
handler_left(Pid, #state{options = #{ack := manual}} = State) ->
    lost(Pid, State);
handler_left(Pid, #state{caller = {Pid, _}} = State) ->
    State;
handler_left(Pid, State) ->
    case is_known_alive(Pid) of
        true -> forgotten([Pid], State);
        false -> lost(Pid, State)
    end.

%% Where something was acknowledged that need not be, and this one was sent events beyond it, all
%% beyond it goes out again: what of it was this one's is not known.
-spec lost(pid(), #state{}) -> #state{}.
lost(Pid, #state{outbox = Outbox} = State) ->
    Outbox1 =
        case erl_esdb_outbox:is_bounded(Pid, Outbox) of
            true -> erl_esdb_outbox:again(Outbox);
            false -> erl_esdb_outbox:lose(Pid, Outbox)
        end,
    spoken(Pid, placed(State#state{outbox = Outbox1})).

%% Only of handlers it matters what they say of events that others have by now.
-spec spoken(pid(), #state{}) -> #state{}.
spoken(Pid, State) ->
    case is_handler(Pid, State) of
        true -> State;
        false -> silent(Pid, State)
    end.

%% No more word of it is on its way.
-spec silent(pid(), #state{}) -> #state{}.
silent(Pid, #state{outbox = Outbox} = State) ->
    State#state{outbox = erl_esdb_outbox:silent(Pid, Outbox)}.

%% Another who takes its place gets what it has not handled.
-spec gone(reference(), #state{}) -> #state{}.
gone(Ref, #state{subscriber = {Pid, Ref}, lanes = Lanes} = State) ->
    lists:foreach(fun ended/1, Lanes),
    subscriber_gone(Pid, Lanes, State#state{subscriber = undefined, lanes = []});
gone(Ref, #state{caller = {_, Ref}, subscriber = undefined, handlers = []} = State) ->
    rewound(State#state{caller = undefined});
gone(Ref, #state{caller = {Pid, Ref}} = State) ->
    lost(Pid, State#state{caller = undefined});
gone(_Ref, State) ->
    State.

%% Handlers that live keep what they have.
-spec subscriber_gone(pid(), Lanes :: [pid()], #state{}) -> #state{}.
subscriber_gone(_Pid, _Lanes, #state{handlers = []} = State) -> rewound(State);
subscriber_gone(Pid, Lanes, State) -> lists:foldl(fun lost/2, State, [Pid | Lanes]).

-spec rewound(#state{}) -> #state{}.
rewound(#state{outbox = Outbox} = State) ->
    Rewound = placed(State#state{outbox = erl_esdb_outbox:rewind(Outbox)}),
    lists:foldl(fun spoken/2, Rewound, erl_esdb_outbox:receivers(Outbox)).

%% Reads on where the outbox says, whether that is before or behind.
-spec placed(#state{}) -> #state{}.
placed(#state{store = Store, filter = Filter, cursor = Cursor, outbox = Outbox} = State) ->
    Next = erl_esdb_outbox:next(Outbox),
    case erl_esdb_cursor:position(Cursor) of
        Next -> State;
        _ -> State#state{cursor = erl_esdb_cursor:new(Store, Filter, Next)}
    end.

%% ---- the loop: hand over, read a page, hand over, and what has come in between has its turn

-spec pumped(#state{}) -> #state{}.
pumped(#state{pumping = true} = State) ->
    State;
pumped(State) ->
    self() ! pump,
    State#state{pumping = true}.

-spec pump(#state{}) -> #state{}.
pump(State) ->
    case noted(consumer(State), State) of
        {ok, State1} -> moved(State1);
        {error, Reason} -> troubled(Reason, State)
    end.

%% Who were handlers outlives this process, and its node: before one of them has an event.
-spec noted(consumer(), #state{}) -> {ok, #state{}} | {error, erl_esdb_store:failure()}.
noted({many, Pids}, #state{noted = false, former = Former} = State) ->
    case Pids -- Former of
        [] -> {ok, State#state{noted = true}};
        _ -> remembered(Pids ++ lists:sublist(Former -- Pids, ?FORMER), State)
    end;
noted(_Consumer, State) ->
    {ok, State}.

-spec remembered([pid(), ...], #state{}) -> {ok, #state{}} | {error, erl_esdb_store:failure()}.
remembered(Pids, #state{store = Store, key = Key} = State) ->
    case erl_esdb_delivery:put_handlers(Store, Key, Pids) of
        ok -> {ok, State#state{former = Pids, noted = true}};
        {error, Reason} -> {error, Reason}
    end.

-spec moved(#state{}) -> #state{}.
moved(State) ->
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
        {error, {integrity_violation, Details}} -> violated(Details, State);
        {error, Reason} -> troubled(Reason, State)
    end.

-spec taken_in([event()], #state{}) -> #state{}.
taken_in(Events, #state{cursor = Cursor, outbox = Outbox, options = Options} = State) ->
    {ok, Decoded} = erl_esdb_json:decode_all({ok, Events}, Options),
    case erl_esdb_outbox:add(Decoded, erl_esdb_cursor:position(Cursor), Outbox) of
        {ok, Outbox1} -> delivered(placed(State#state{outbox = Outbox1}));
        {error, queue_full} -> halted(queue_full, State)
    end.

-spec waiting(#state{}) -> #state{}.
waiting(#state{feed = Feed, cursor = Cursor} = State) ->
    case erl_esdb_feed:wait(Feed, erl_esdb_cursor:position(Cursor)) of
        ready -> pumped(State);
        wait -> later(State)
    end.

%% Nothing is dropped: the log is read again from here for who attaches.
-spec halted(queue_full | {integrity_violation, map()}, #state{}) -> #state{}.
halted(Reason, #state{key = Key} = State) ->
    ok = tell(consumer(State), message(Reason, Key)),
    rewound(State#state{halted = Reason}).

-spec message(queue_full | {integrity_violation, map()}, binary()) -> tuple().
message(queue_full, Key) -> {erl_esdb_subscription, Key, {error, queue_full}};
message(Violation, _Key) -> {subscription_error, Violation}.

%% What was read with the event that is wrong is not handed over.
-spec violated(map(), #state{}) -> #state{}.
violated(Details, #state{store = Store, key = Key} = State) ->
    Violation = {integrity_violation, Details},
    ?LOG_ERROR("store ~tp: subscription ~ts is halted: ~tp", [Store, Key, Violation]),
    halted(Violation, State).

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
    ?LOG_ERROR("store ~tp: subscription ~ts cannot go on: ~tp", [Store, Key, Reason]),
    timed(?AGAIN, State).

%% Only where a look at a mailbox can tell more: all else makes a message.
-spec later(#state{}) -> #state{}.
later(#state{options = #{ack := manual}} = State) ->
    State;
later(#state{timer = undefined, outbox = Outbox} = State) ->
    #{queue := #{size := Size}} = erl_esdb_outbox:info(Outbox),
    case {Size > 0 andalso erl_esdb_outbox:limit(Outbox) =/= 0, State} of
        {true, _} -> looking(?LOOK, State);
        {false, #state{behind = true}} -> looking(?SETTLE, State);
        {false, _} -> State
    end;
later(State) ->
    State.

-spec looking(pos_integer(), #state{}) -> #state{}.
looking(First, #state{outbox = Outbox, looked = {Before, Delay}} = State) ->
    Delay1 =
        case erl_esdb_outbox:progress(Outbox) of
            Before -> min(?LONGEST, max(First, 2 * Delay));
            _ -> First
        end,
    timed(Delay1, State#state{looked = {erl_esdb_outbox:progress(Outbox), Delay1}}).

-spec timed(pos_integer(), #state{}) -> #state{}.
timed(Time, #state{timer = undefined} = State) ->
    State#state{timer = erlang:send_after(Time, self(), look)};
timed(_Time, State) ->
    State.

-spec saved(#state{}) -> #state{}.
saved(#state{store = Store, key = Key, outbox = Outbox, saved = Saved} = State) ->
    case erl_esdb_outbox:place(Outbox) of
        Saved ->
            State;
        Place ->
            NextKey = erl_esdb_subscriptions_store:next_key(Key),
            ok = erl_esdb_checkpoints:save(Store, NextKey, Place),
            State#state{saved = Place}
    end.

%% ---- handing over

-spec delivered(#state{}) -> #state{}.
delivered(State) ->
    case consumer(State) of
        none ->
            State;
        Consumer ->
            Seen = seen(Consumer, State),
            handed_over(Consumer, Seen, settled(Seen, State))
    end.

%% How many messages each process has before it that has or gets events of ours.
-spec seen(consumer(), #state{}) -> [{pid(), backlog()}].
seen({one, Pid, _}, #state{lanes = Lanes} = State) ->
    %% The lanes first: what leaves one meanwhile is counted twice, and not forgotten.
    seen_by(Lanes ++ [Pid], State);
seen({many, Pids}, State) ->
    seen_by(Pids, State).

-spec seen_by([pid()], #state{}) -> [{pid(), backlog()}].
seen_by(Pids, #state{outbox = Outbox}) ->
    Others = erl_esdb_outbox:receivers(Outbox) -- Pids,
    [{Pid, backlog(Pid)} || Pid <- Pids ++ Others].

-spec settled([{pid(), backlog()}], #state{}) -> #state{}.
settled(Seen, #state{outbox = Outbox} = State) ->
    Outbox1 = lists:foldl(fun settle/2, Outbox, through(Seen, State)),
    Waits = lists:any(fun({_, N}) -> is_integer(N) andalso N > 0 andalso N < ?DEAD end, Seen),
    State#state{outbox = Outbox1, behind = Waits andalso erl_esdb_outbox:is_unhandled(Outbox1)}.

%% What went through a lane is in its mailbox, in its hands, or in the mailbox of the subscriber, of
%% which nobody knows whose messages are the newest.
-spec through([{pid(), backlog()}], #state{}) -> [{pid(), backlog()}].
through(Seen, #state{lanes = []}) ->
    Seen;
through(Seen, #state{lanes = Lanes, subscriber = {Pid, _}}) ->
    {_, Before} = lists:keyfind(Pid, 1, Seen),
    {InLanes, Others} = lists:split(length(Lanes), Seen),
    [{Lane, plus(plus(Backlog, 1), Before)} || {Lane, Backlog} <- InLanes] ++ Others.

-spec settle({pid(), backlog()}, erl_esdb_outbox:outbox()) -> erl_esdb_outbox:outbox().
settle({Pid, Backlog}, Outbox) -> erl_esdb_outbox:settle(Pid, Backlog, Outbox).

-spec plus(backlog(), backlog()) -> backlog().
plus(A, B) when is_integer(A), is_integer(B) -> A + B;
plus(_, _) -> unknown.

%% One that has died has no room: the news of its end is on the way here. So has one of a time
%% before this node was started, which is no process to ask about.
-spec backlog(pid()) -> backlog().
backlog(Pid) when node(Pid) =:= node() ->
    try process_info(Pid, message_queue_len) of
        {message_queue_len, Length} -> Length;
        undefined -> ?DEAD
    catch
        error:badarg -> ?DEAD
    end;
backlog(_) ->
    unknown.

-spec handed_over(consumer(), [{pid(), backlog()}], #state{}) -> #state{}.
handed_over({one, Pid, _} = Consumer, Seen, #state{outbox = Outbox, lanes = Lanes} = State) ->
    {Events, Outbox1} = erl_esdb_outbox:take(room(Pid, Lanes, Seen, State), Outbox),
    Messages = messages(Consumer, Events, State),
    Outbox2 = lists:foldl(fun sent/2, Outbox1, Messages),
    ok = told(Events, State),
    State#state{outbox = Outbox2};
handed_over({many, Pids}, Seen, #state{outbox = Outbox} = State) ->
    Rooms = [{Pid, room(Pid, [], Seen, State)} || Pid <- Pids],
    {Events, Outbox1} = erl_esdb_outbox:take(total(Rooms), Outbox),
    {Messages, Left} = deal(Events, [{Pid, Room} || {Pid, Room} <- Rooms, Room =/= 0], [], []),
    Outbox2 = lists:foldl(fun sent/2, Outbox1, Messages),
    ok = told(Events, State),
    Served = lists:foldl(fun served/2, State#state.served, Messages),
    %% Who was dealt to last begins last the next time.
    State#state{outbox = Outbox2, handlers = Left ++ (Pids -- Left), served = Served}.

-spec served(message(), Served) -> Served when Served :: #{pid() => reference()}.
served({Pid, _, _}, Served) when is_map_key(Pid, Served) -> Served;
served({Pid, _, _}, Served) -> Served#{Pid => monitor(process, Pid)}.

%% How many events a process may be sent. Who asks for events, or acknowledges them, says so what it
%% can take.
-spec room(pid(), [pid()], [{pid(), backlog()}], #state{}) -> non_neg_integer() | infinity.
room(Pid, _Lanes, _Seen, #state{options = #{ack := manual}, outbox = Outbox}) ->
    erl_esdb_outbox:left_for(Pid, Outbox);
room(_Pid, _Lanes, _Seen, #state{options = #{mode := pull}}) ->
    infinity;
room(Pid, [], Seen, #state{outbox = Outbox} = State) ->
    case lists:keyfind(Pid, 1, Seen) of
        {_, unknown} -> infinity;
        {_, Backlog} -> left_of(erl_esdb_outbox:waiting(Pid, Backlog, Outbox), State)
    end;
room(_Pid, Lanes, Seen, State) ->
    {Way, _Others} = lists:split(length(Lanes) + 1, Seen),
    left_of(lists:foldl(fun({_, Backlog}, Sum) -> plus(Backlog, Sum) end, 0, Way), State).

-spec left_of(backlog(), #state{}) -> non_neg_integer() | infinity.
left_of(unknown, _State) -> infinity;
left_of(Waiting, #state{window = Window}) -> max(0, Window - Waiting).

%% A message, and who gets it.
-type message() :: {pid(), event | events, [event(), ...]}.

-spec messages(consumer(), [event()], #state{}) -> [message()].
messages({one, Pid, event}, Events, _State) ->
    [{Pid, event, [Event]} || Event <- Events];
messages({one, Pid, events}, Events, #state{lanes = [], batch = Size}) ->
    [{Pid, events, Batch} || Batch <- batches(Events, Size)];
messages({one, _Pid, events}, Events, #state{lanes = Lanes}) ->
    Tuple = list_to_tuple(Lanes),
    Lane = fun(Stream) -> element(1 + erlang:phash2(Stream, tuple_size(Tuple)), Tuple) end,
    [{Lane(Stream), events, [Event]} || #event{stream_id = Stream} = Event <- Events].

-spec batches([event()], pos_integer()) -> [[event(), ...]].
batches([], _Size) ->
    [];
batches(Events, Size) when length(Events) =< Size ->
    [Events];
batches(Events, Size) ->
    {Batch, Rest} = lists:split(Size, Events),
    [Batch | batches(Rest, Size)].

-spec sent(message(), erl_esdb_outbox:outbox()) -> erl_esdb_outbox:outbox().
sent({Pid, event, [Event] = Events}, Outbox) ->
    Pid ! {event, Event},
    erl_esdb_outbox:sent(Pid, Events, Outbox);
sent({Pid, events, Events}, Outbox) ->
    Pid ! {events, Events},
    erl_esdb_outbox:sent(Pid, Events, Outbox).

-type room() :: non_neg_integer() | infinity.

-spec total([{pid(), room()}]) -> room().
total(Rooms) -> lists:foldl(fun({_, Room}, Sum) -> more(Room, Sum) end, 0, Rooms).

-spec more(room(), room()) -> room().
more(A, B) when is_integer(A), is_integer(B) -> A + B;
more(_, _) -> infinity.

%% In turn; answers also whose turn it is next. There is room for all of them.
-spec deal([event()], Next, Had :: Next, [message()]) -> {[message()], [pid()]} when
    Next :: [{pid(), room()}].
deal([], Next, Had, Messages) ->
    {lists:reverse(Messages), [Pid || {Pid, _} <- Next ++ lists:reverse(Had)]};
deal(Events, [], Had, Messages) ->
    deal(Events, lists:reverse(Had), [], Messages);
deal([Event | Events], [{Pid, Room} | Next], Had, Messages) ->
    Had1 = [{Pid, Left} || Left <- [less(Room)], Left =/= 0] ++ Had,
    deal(Events, Next, Had1, [{Pid, event, [Event]} | Messages]).

-spec less(room()) -> room().
less(infinity) -> infinity;
less(Room) when is_integer(Room) -> Room - 1.

-spec told([event()], #state{}) -> ok.
told(Events, #state{store = Store, key = Key}) ->
    Tell = fun(#event{event_id = Id, event_type = Type}) ->
        erl_esdb_telemetry:emit(?SUBSCRIPTION_EVENT_DELIVERED, #{count => 1}, #{
            store_id => Store, subscription_id => Key, event_id => Id, event_type => Type
        })
    end,
    lists:foreach(Tell, Events).
