-module(erl_esdb_consumers).
-moduledoc """
The process of a subscription whose events are shared by competing consumers
(`consumers => competing`): reads the log, hands events to those who have room, and keeps what they
could not handle. Who has what is counted by `m:erl_esdb_competing`, which is pure.

An event that is parked stands in a document of its own, written before anything goes on, until it
is replayed and done.

Where an event is not as it was written (`m:erl_esdb_integrity`) nothing more is read, and all
consumers are told, until one connects again; what was read before goes on.
""".

-behaviour(gen_server).

-export([start_link/2, parked/3, forget/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([parked/0, parked_options/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Events that are read at a time, and of one stream for its lane.
-define(PAGE, 100).
-define(REFILL, 50).
%% Milliseconds until a store is asked again that could not be read or written.
-define(AGAIN, 1000).
-define(SAVE, 100).
-define(MAX_IN_FLIGHT, 10).
%% Parked events that are looked at in a call.
-define(PARKED, 1000).

-type parked() :: #{
    position := non_neg_integer(),
    stream_id := binary(),
    version := non_neg_integer(),
    event_id := binary(),
    %% what led there: `nack`, or `retries` when there were too many
    reason := nack | retries,
    %% milliseconds since 1970
    parked_at := integer()
}.

-doc "From which position on, and how many at most.".
-type parked_options() :: #{
    from => non_neg_integer(), limit => pos_integer(), timeout => timeout(), _ => _
}.

-record(state, {
    store :: atom(),
    key :: binary(),
    options :: map(),
    filter :: erl_esdb_filters:filter(),
    cursor :: erl_esdb_cursor:cursor(),
    competing :: erl_esdb_competing:state(),
    feed :: erl_esdb_feed:feed(),
    monitors = #{} :: #{pid() => reference()},
    saved :: non_neg_integer(),
    %% whether a message is on its way that saves the place
    saving = false :: boolean(),
    pumping = false :: boolean(),
    %% why nothing more is read before a consumer connects
    halted :: undefined | {integrity_violation, map()},
    timer :: reference() | undefined
}).

-doc false.
-spec start_link(atom(), subscription()) -> gen_server:start_ret().
start_link(Store, Subscription) -> gen_server:start_link(?MODULE, {Store, Subscription}, []).

-doc false.
-spec parked(atom(), binary(), parked_options()) -> {ok, [parked()]} | {error, term()}.
parked(Store, Key, Options) ->
    case keys(Store, Key, maps:get(from, Options, 0), Options) of
        {ok, Keys} ->
            Asked = lists:sublist(Keys, maps:get(limit, Options, ?PARKED)),
            {ok, lists:append([document(Store, Doc) || Doc <- Asked])};
        {error, Reason} ->
            {error, Reason}
    end.

-spec keys(atom(), binary(), non_neg_integer(), map()) ->
    {ok, [erl_esdb_log:document_key()]} | {error, term()}.
keys(Store, Key, From, Options) ->
    Timeout = maps:with([timeout], Options),
    %% Every atom is greater than every number.
    case erl_esdb_store:list_documents(Store, {parked, Key, From}, {parked, Key, last}, Timeout) of
        {ok, Found} -> {ok, [Doc || {Doc, _} <- Found]};
        {error, Reason} -> {error, Reason}
    end.

-spec document(atom(), erl_esdb_log:document_key()) -> [parked()].
document(Store, Doc) ->
    case erl_esdb_store:get_document(Store, Doc) of
        {ok, Parked} -> [Parked];
        {error, _Removed} -> []
    end.

-doc false.
%% With the subscription goes what it had parked.
-spec forget(atom(), binary()) -> ok | {error, term()}.
forget(Store, Key) ->
    case keys(Store, Key, 0, #{}) of
        {ok, Keys} -> erl_esdb_store:delete_documents(Store, Keys, #{});
        {error, Reason} -> {error, Reason}
    end.

-doc false.
-spec init({atom(), subscription()}) -> {ok, #state{}} | {stop, term()}.
init({Store, #subscription{id = Key, type = Type, selector = Selector} = Subscription}) ->
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store, Key}),
    ok = erl_esdb_delivery:outlive(Store, subscription, Key),
    maybe
        {ok, Filter} ?= erl_esdb_filters:compile(Type, Selector),
        {ok, Next} ?= erl_esdb_subscriptions:resume(Store, Subscription),
        {ok, Feed} ?= erl_esdb_feed:subscribe(Store, erl_esdb_filters:stream(Filter)),
        ok ?= erl_esdb_delivery:claim(Store, subscription, Key),
        {ok,
            pumped(
                remembered(#state{
                    store = Store,
                    key = Key,
                    options = Subscription#subscription.options,
                    filter = Filter,
                    cursor = erl_esdb_cursor:new(Store, Filter, Next),
                    competing = erl_esdb_competing:new(Subscription#subscription.options),
                    feed = Feed,
                    saved = Next
                })
            )}
    else
        {error, Reason} -> {stop, Reason}
    end.

%% Consumers that were connected to the process before this one.
-spec remembered(#state{}) -> #state{}.
remembered(#state{store = Store, key = Key} = State) ->
    maps:fold(fun connected/3, State, consumers(Store, Key)).

-spec connected(pid(), pos_integer(), #state{}) -> #state{}.
connected(Pid, Max, #state{store = Store, key = Key, monitors = Monitors} = State) ->
    Ref = maps:get(Pid, Monitors, undefined),
    Consumers = consumers(Store, Key),
    ok = erl_esdb_delivery:put_consumers(Store, Key, Consumers#{Pid => Max}),
    State#state{
        monitors = Monitors#{Pid => watched(Ref, Pid)},
        competing = erl_esdb_competing:connect(Pid, Max, State#state.competing)
    }.

-spec watched(reference() | undefined, pid()) -> reference().
watched(undefined, Pid) -> monitor(process, Pid);
watched(Ref, _Pid) -> Ref.

-spec consumers(atom(), binary()) -> #{pid() => pos_integer()}.
consumers(Store, Key) ->
    case erl_esdb_delivery:consumers(Store, Key) of
        {ok, Consumers} when is_map(Consumers) -> Consumers;
        _ -> #{}
    end.

-spec disconnected(pid(), #state{}) -> #state{}.
disconnected(Pid, #state{monitors = Monitors} = State) when is_map_key(Pid, Monitors) ->
    #state{store = Store, key = Key, competing = Competing} = State,
    {Ref, Monitors1} = maps:take(Pid, Monitors),
    true = demonitor(Ref, [flush]),
    ok = erl_esdb_delivery:put_consumers(Store, Key, maps:remove(Pid, consumers(Store, Key))),
    {Park, Competing1} = erl_esdb_competing:disconnect(Pid, Competing),
    lists:foreach(fun(Event) -> ok = park(Event, retries, State) end, Park),
    State#state{competing = Competing1, monitors = Monitors1};
disconnected(_Pid, State) ->
    State.

%% ---- messages

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({connect, Pid, Options}, _From, State) ->
    Max = maps:get(max_in_flight, Options, ?MAX_IN_FLIGHT),
    {reply, ok, pumped(connected(Pid, Max, State#state{halted = undefined}))};
handle_call({disconnect, Pid}, _From, State) ->
    {reply, ok, pumped(disconnected(Pid, State))};
handle_call({settle, Pid, Refs, How}, _From, State) ->
    {Unknown, State1} = settled(Refs, Pid, How, State),
    {reply, answer(Unknown), pumped(State1)};
handle_call({replay, Options}, _From, State) ->
    {Reply, State1} = replayed(Options, refilled(State)),
    {reply, Reply, pumped(State1)};
handle_call(info, _From, #state{competing = Competing, cursor = Cursor} = State) ->
    Next = erl_esdb_cursor:position(Cursor),
    Info = erl_esdb_competing:info(Competing),
    Floor = erl_esdb_competing:floor(Next, Competing),
    {reply, {ok, Info#{position => Next, floor => Floor, status => status(State)}}, pumped(State)};
handle_call(_, _From, State) ->
    {reply, {error, competing}, State}.

-spec status(#state{}) -> running | {halted, {integrity_violation, map()}}.
status(#state{halted = undefined}) -> running;
status(#state{halted = Reason}) -> {halted, Reason}.

-spec answer([erl_esdb_competing:ref()]) ->
    ok | {error, {not_in_flight, [erl_esdb_competing:ref()]}}.
answer([]) -> ok;
answer(Unknown) -> {error, {not_in_flight, Unknown}}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({erl_esdb_feed, _}, State) ->
    {noreply, pumped(State)};
handle_info(pump, State) ->
    {noreply, saving(pump(State#state{pumping = false}))};
handle_info(save, State) ->
    {noreply, saved(State#state{saving = false})};
handle_info(again, State) ->
    {noreply, pumped(State#state{timer = undefined})};
handle_info({due, Due}, #state{competing = Competing} = State) ->
    {noreply, pumped(State#state{competing = erl_esdb_competing:due(Due, Competing)})};
handle_info({'DOWN', _, process, Pid, _}, State) ->
    {noreply, pumped(disconnected(Pid, State))};
handle_info(_, State) ->
    {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{store = Store, key = Key} = State) ->
    _ = saved(State),
    erl_esdb_delivery:remove(Store, subscription, Key, self()).

%% ---- what consumers say of the events they have

-spec settled([erl_esdb_competing:ref()], pid(), ack | park | retry | skip, #state{}) ->
    {[erl_esdb_competing:ref()], #state{}}.
settled(Refs, Pid, How, State) ->
    Settle = fun(Ref, #state{competing = Competing} = S) ->
        case erl_esdb_competing:find(Pid, Ref, Competing) of
            {ok, Position} -> {[], settled_one(How, Pid, Position, S)};
            error -> {[Ref], S}
        end
    end,
    {Unknown, State1} = lists:mapfoldl(Settle, State, Refs),
    {lists:append(Unknown), State1}.

-spec settled_one(ack | park | retry | skip, pid(), non_neg_integer(), #state{}) -> #state{}.
settled_one(retry, Pid, Position, #state{competing = Competing} = State) ->
    case erl_esdb_competing:retry(Pid, Position, Competing) of
        {retry, Due, Delay, Competing1} ->
            _ = erlang:send_after(Delay, self(), {due, Due}),
            State#state{competing = Competing1};
        {park, Event, Competing1} ->
            ok = park(Event, retries, State),
            State#state{competing = Competing1}
    end;
settled_one(How, Pid, Position, #state{competing = Competing} = State) ->
    {ok, Event, Competing1} = erl_esdb_competing:done(Pid, Position, Competing),
    ok = kept(How, Event, State),
    State#state{competing = Competing1}.

-spec kept(ack | park | skip, event(), #state{}) -> ok.
kept(park, Event, State) ->
    park(Event, nack, State);
kept(_, #event{position = Position}, #state{store = Store, key = Key}) ->
    %% It may be one that was parked. A document that is not there costs a look.
    Doc = {parked, Key, Position},
    case erl_esdb_store:get_document(Store, Doc) of
        {ok, _} -> ok = erl_esdb_store:delete_document(Store, Doc);
        {error, not_found} -> ok
    end.

%% Fails with the process where the store does not take it: the place that is saved lies before the
%% event, so it goes out again.
-spec park(event(), nack | retries, #state{}) -> ok.
park(#event{position = Position} = Event, Reason, #state{store = Store, key = Key}) ->
    {ok, _} = erl_esdb_store:put_document(Store, {parked, Key, Position}, #{
        position => Position,
        stream_id => Event#event.stream_id,
        version => Event#event.version,
        event_id => Event#event.event_id,
        reason => Reason,
        parked_at => erlang:system_time(millisecond)
    }),
    ok.

-spec replayed(parked_options(), #state{}) ->
    {{ok, non_neg_integer()} | {error, term()}, #state{}}.
replayed(Options, #state{store = Store, key = Key} = State) ->
    case keys(Store, Key, maps:get(from, Options, 0), Options) of
        {ok, Keys} -> replayed(Keys, maps:get(limit, Options, ?PARKED), 0, State);
        {error, Reason} -> {{error, Reason}, State}
    end.

%% Until so many go out: what cannot stays in nobody's way.
-spec replayed([erl_esdb_log:document_key()], Limit :: pos_integer(), Count, #state{}) ->
    {{ok, Count} | {error, term()}, #state{}}
when
    Count :: non_neg_integer().
replayed([Doc | Docs], Limit, Count, #state{store = Store} = State) when Count < Limit ->
    case found(document(Store, Doc), State) of
        #event{} = Event ->
            {Goes, Competing} = erl_esdb_competing:replay(Event, State#state.competing),
            More = length([goes || Goes]),
            replayed(Docs, Limit, Count + More, State#state{competing = Competing});
        gone ->
            forgotten(erl_esdb_store:delete_document(Store, Doc), Docs, Limit, Count, State);
        hidden ->
            replayed(Docs, Limit, Count, State)
    end;
replayed(_Docs, _Limit, Count, State) ->
    {{ok, Count}, State}.

%% One whose event is gone for ever.
-spec forgotten(
    ok | {error, term()}, [erl_esdb_log:document_key()], pos_integer(), non_neg_integer(), #state{}
) -> {{ok, non_neg_integer()} | {error, term()}, #state{}}.
forgotten(ok, Docs, Limit, Count, State) -> replayed(Docs, Limit, Count, State);
forgotten({error, Reason}, _Docs, _Limit, _Count, State) -> {{error, Reason}, State}.

-spec found([parked()], #state{}) -> event() | gone | hidden.
found([Parked], State) -> event(Parked, State);
found([], _State) -> hidden.

-spec event(parked(), #state{}) -> event() | gone | hidden.
event(#{stream_id := Stream, version := Version, position := Position} = Parked, State) ->
    #state{store = Store, options = Options} = State,
    Decode = maps:with([decode], Options),
    case erl_esdb_store:read(Store, Stream, Version, 1, forward, Decode) of
        {ok, [#event{position = Position} = Event]} -> Event;
        _ -> without_event(Store, Parked)
    end.

%% One that is hidden, or that a store which does not answer has, stays parked. One of the same id
%% at another position is another event.
-spec without_event(atom(), parked()) -> gone | hidden.
without_event(Store, #{stream_id := Stream, version := Version, position := Position}) ->
    case erl_esdb_store:read(Store, Stream, Version, 1, forward, #{hidden => true}) of
        {ok, [#event{position = Position}]} -> hidden;
        {ok, _Another} -> gone;
        {error, {stream_not_found, Stream}} -> gone;
        {error, _} -> hidden
    end.

%% ---- the loop

-spec pumped(#state{}) -> #state{}.
pumped(#state{pumping = true} = State) ->
    State;
pumped(State) ->
    self() ! pump,
    State#state{pumping = true}.

-spec pump(#state{}) -> #state{}.
pump(State) ->
    State1 = #state{competing = Competing} = dispatched(refilled(State)),
    case {erl_esdb_competing:consumers(Competing), erl_esdb_competing:room(Competing)} of
        {[], _} -> State1;
        {_, 0} -> State1;
        {_, _} when State1#state.halted =/= undefined -> State1;
        {_, Room} -> read(min(?PAGE, Room), State1)
    end.

-spec dispatched(#state{}) -> #state{}.
dispatched(#state{store = Store, key = Key, competing = Competing} = State) ->
    {Sent, Competing1} = erl_esdb_competing:dispatch(Competing),
    Send = fun({Pid, #event{event_id = Id, event_type = Type} = Event}) ->
        Pid ! {events, [Event]},
        erl_esdb_telemetry:emit(?SUBSCRIPTION_EVENT_DELIVERED, #{count => 1}, #{
            store_id => Store, subscription_id => Key, event_id => Id, event_type => Type
        })
    end,
    lists:foreach(Send, Sent),
    State#state{competing = Competing1}.

-spec read(pos_integer(), #state{}) -> #state{}.
read(Room, #state{cursor = Cursor, competing = Competing} = State) ->
    case erl_esdb_cursor:page(Cursor, Room) of
        {more, Events, Cursor1} ->
            Competing1 = erl_esdb_competing:add(decoded(Events, State), Competing),
            pumped(dispatched(State#state{cursor = Cursor1, competing = Competing1}));
        {done, [], Cursor1} ->
            waiting(State#state{cursor = Cursor1});
        {error, Reason} ->
            troubled(Reason, State)
    end.

-spec decoded([event()], #state{}) -> [event()].
decoded(Events, #state{options = Options}) ->
    {ok, Decoded} = erl_esdb_json:decode_all({ok, Events}, Options),
    Decoded.

-spec waiting(#state{}) -> #state{}.
waiting(#state{feed = Feed, cursor = Cursor} = State) ->
    case erl_esdb_feed:wait(Feed, erl_esdb_cursor:position(Cursor)) of
        ready -> pumped(State);
        wait -> State
    end.

-spec troubled(term(), #state{}) -> #state{}.
troubled({integrity_violation, _} = Violation, #state{competing = Competing} = State) ->
    #state{store = Store, key = Key} = State,
    ?LOG_ERROR("store ~tp: subscription ~ts is halted: ~tp", [Store, Key, Violation]),
    Consumers = erl_esdb_competing:consumers(Competing),
    lists:foreach(fun(Pid) -> Pid ! {subscription_error, Violation} end, Consumers),
    State#state{halted = Violation};
troubled(Reason, #state{store = Store, key = Key, timer = Timer} = State) ->
    ?LOG_ERROR("store ~tp: subscription ~ts cannot read on: ~tp", [Store, Key, Reason]),
    case Timer of
        undefined -> State#state{timer = erlang:send_after(?AGAIN, self(), again)};
        _ -> State
    end.

-spec refilled(#state{}) -> #state{}.
refilled(#state{halted = Reason} = State) when Reason =/= undefined ->
    State;
refilled(#state{competing = Competing} = State) ->
    {Empty, Competing1} = erl_esdb_competing:refills(Competing),
    lists:foldl(fun refilled/2, State#state{competing = Competing1}, Empty).

%% Of the stream alone, up to where reading of the log has come: what follows comes from there.
-spec refilled({binary(), non_neg_integer()}, #state{}) -> #state{}.
refilled({Stream, From}, #state{halted = Reason} = State) when Reason =/= undefined ->
    #state{competing = Competing} = State,
    State#state{competing = erl_esdb_competing:refill(Stream, [], From, Competing)};
refilled({Stream, From}, #state{store = Store, filter = Filter, cursor = Cursor} = State) ->
    #state{competing = Competing} = State,
    Next = erl_esdb_cursor:position(Cursor),
    OneStream = erl_esdb_cursor:new(Store, erl_esdb_filters:by_stream(Stream), From),
    case erl_esdb_cursor:page(OneStream, ?REFILL) of
        {_, Found, Cursor1} ->
            Events = [
                E
             || E <- Found, E#event.position < Next, erl_esdb_filters:matches(Filter, E)
            ],
            More = more(erl_esdb_cursor:position(Cursor1), Next),
            Competing1 =
                erl_esdb_competing:refill(Stream, decoded(Events, State), More, Competing),
            State#state{competing = Competing1};
        {error, Reason} ->
            Competing1 = erl_esdb_competing:refill(Stream, [], From, Competing),
            troubled(Reason, State#state{competing = Competing1})
    end.

-spec more(Position, Position) -> Position | undefined when Position :: non_neg_integer().
more(Position, Next) when Position < Next -> Position;
more(_, _) -> undefined.

%% The place is looked for now and then: that goes through all streams that events are held of.
-spec saving(#state{}) -> #state{}.
saving(#state{saving = true} = State) ->
    State;
saving(State) ->
    _ = erlang:send_after(?SAVE, self(), save),
    State#state{saving = true}.

-spec saved(#state{}) -> #state{}.
saved(#state{store = Store, key = Key, cursor = Cursor, saved = Saved} = State) ->
    case erl_esdb_competing:floor(erl_esdb_cursor:position(Cursor), State#state.competing) of
        Saved ->
            State;
        Floor ->
            NextKey = erl_esdb_subscriptions_store:next_key(Key),
            ok = erl_esdb_checkpoints:save(Store, NextKey, Floor),
            State#state{saved = Floor}
    end.
