-module(erl_esdb_projection).
-moduledoc """
A behaviour: events folded into a state that can be read.

```erlang
-module(totals).
-behaviour(erl_esdb_projection).
-export([init/1, handle_event/2]).
-include_lib("erl_esdb/include/erl_esdb.hrl").

init(_Context) -> {ok, #{}}.

handle_event(#event{stream_id = Order, data = #{total := Total}}, Totals) ->
    {ok, Totals#{Order => Total}}.
```

```erlang
1> {ok, _} = erl_esdb_projection:start_link(shop, ~"totals", totals, #{
       type => event_type, selector => ~"Placed"}).
2> {ok, #append_result{position = P}} =
       erl_esdb_streams:append(shop, ~"order-1", -1, [Placed], #{return => result}).
3> ok = erl_esdb_projection:await(shop, ~"totals", P, 5000).
4> {ok, #{~"order-1" := 42}} = erl_esdb_projection:state(shop, ~"totals").
```

## Where the state is kept

- `keep => document` (the default): in the store, as one document together with the position, after
  each page of events. Both or none are there, so each event has its effect on the state exactly
  once, through any crash and restart. Such a state is limited to 16 MiB and should be small.
- `keep => ets`: in a table that the projection makes and hands to `init/1`; any process may read
  it. It lives as long as the projection, which begins from the start again after a crash: so here,
  too, each event has its effect once. `state/2` answers what the callbacks returned.

What a callback does elsewhere (mail, another database) can happen again after a crash. An exception
in a callback ends the projection, with the state as it was before the page.

## Below a supervisor

A projection belongs below a supervisor of the application (`child_spec/4`). A crash of the store's
processes does not end it: it answers with the state that it has, and goes on when the store has
started again. When the store is stopped, or gives up, the projection ends with
`{shutdown, store_stopped}`, after which a supervisor does not start it again.

In a cluster each node folds for itself: a name stands for one process on a node.
""".

-behaviour(gen_server).

-export([start_link/4, child_spec/4, stop/2, stop/3]).
-export([state/2, state/3, table/2, table/3, position/2, position/3, lag/2, lag/3]).
-export([await/4, rebuild/2, rebuild/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([options/0, call_options/0, context/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").

%% Events that are folded before the state is saved and calls are answered.
-define(PAGE, 200).
%% Milliseconds that a call may take while the store is away and says nothing of it.
-define(TIMEOUT, 5000).
%% Milliseconds until it is tried again, after the store did not answer.
-define(RETRY, 200).

-doc """
`type` (`stream`) and `selector` (`<<"$all">>`) choose the events as those of a subscription, `args`
(`undefined`) goes to `init/1`. With `decode => json` the callbacks get the data of events decoded
that are JSON text (`m:erl_esdb_json`).
""".
-type options() :: #{
    type => subscription_type(),
    selector => erl_esdb_filters:selector(),
    keep => document | ets,
    decode => erl_esdb_json:codec(),
    args => term()
}.
-doc "Milliseconds that a call waits for the projection, default that of the store.".
-type call_options() :: #{timeout => timeout(), _ => _}.
-doc "`table` is there with `keep => ets`: an ordered set.".
-type context() :: #{
    store := atom(), name := binary(), args := term(), table => ets:table()
}.

-doc "The state before the first event.".
-callback init(context()) -> {ok, State :: term()}.

-doc "The state after an event.".
-callback handle_event(event(), State) -> {ok, State} when State :: term().

-record(state, {
    store :: atom(),
    name :: binary(),
    module :: module(),
    keep :: document | ets,
    decode :: erl_esdb_json:codec(),
    args :: term(),
    filter :: erl_esdb_filters:filter(),
    cursor :: erl_esdb_cursor:cursor() | undefined,
    %% what wakes it, while that lives; and of which log the state was made
    feed :: erl_esdb_feed:feed() | undefined,
    log :: erl_esdb_engine:handle(),
    table :: ets:table() | undefined,
    value :: term(),
    saved = 0 :: non_neg_integer(),
    waiting = gb_trees:empty() :: gb_trees:tree(awaited(), waiter()),
    pumping = false :: boolean()
}).

-type awaited() :: {Position :: non_neg_integer(), reference()}.
-type waiter() :: {gen_server:from(), Monitor :: reference(), Timer :: reference() | none}.
-type answer(Answer) :: Answer | {error, not_found | {store_not_started | timeout, atom()}}.

-doc """
Starts a projection, which goes on where it stopped. Where the store is about to be started again
after a crash, the projection waits for it.

Errors: `{already_started, Pid}`, `{store_not_started, Store}`, `{invalid_option, Key, Value}`,
`{no_projection, Module}` where it has not these callbacks, and those of a selector.
""".
-spec start_link(Store :: atom(), Name :: binary(), module(), options()) ->
    {ok, pid()} | {error, term()}.
start_link(Store, Name, Module, Options) when
    is_atom(Store), is_binary(Name), is_atom(Module), is_map(Options)
->
    Known = #{keep => [document, ets], decode => [json, none]},
    Wrong = [
        {invalid_option, Key, Value}
     || Key := Value <- Options, Values <- [maps:get(Key, Known, [Value])],
        not lists:member(Value, Values)
    ],
    case Wrong of
        [] -> start(Store, Name, Module, Options);
        [Reason | _] -> {error, Reason}
    end;
start_link(_, _, _, _) ->
    error(badarg).

-spec start(atom(), binary(), module(), options()) -> {ok, pid()} | {error, term()}.
start(Store, Name, Module, Options) ->
    Type = maps:get(type, Options, stream),
    Selector = maps:get(selector, Options, <<"$all">>),
    maybe
        {ok, Filter} ?= erl_esdb_filters:compile(Type, Selector),
        ok ?= check_callbacks(Module),
        State = #state{
            store = Store,
            name = Name,
            module = Module,
            keep = maps:get(keep, Options, document),
            decode = maps:get(decode, Options, none),
            args = maps:get(args, Options, undefined),
            filter = Filter
        },
        {ok, Pid} ?= gen_server:start_link(?MODULE, State, []),
        {ok, Pid}
    else
        {error, {shutdown, Reason}} -> {error, Reason};
        {error, Reason} -> {error, Reason};
        ignore -> {error, ignore}
    end.

-spec check_callbacks(module()) -> ok | {error, {no_projection, module()}}.
check_callbacks(Module) ->
    _ = code:ensure_loaded(Module),
    Has = fun({Function, Arity}) -> erlang:function_exported(Module, Function, Arity) end,
    case lists:all(Has, [{init, 1}, {handle_event, 2}]) of
        true -> ok;
        false -> {error, {no_projection, Module}}
    end.

-doc """
A projection below a supervisor, which starts it again after a crash of its callbacks, and not after
its store was stopped.
""".
-spec child_spec(Store :: atom(), Name :: binary(), module(), options()) ->
    supervisor:child_spec().
child_spec(Store, Name, Module, Options) when
    is_atom(Store), is_binary(Name), is_atom(Module), is_map(Options)
->
    #{
        id => {?MODULE, Store, Name},
        start => {?MODULE, start_link, [Store, Name, Module, Options]},
        restart => transient,
        shutdown => 5000
    };
child_spec(_, _, _, _) ->
    error(badarg).

-doc "The same as `stop/3` without options.".
-spec stop(Store :: atom(), Name :: binary()) -> answer(ok).
stop(Store, Name) -> stop(Store, Name, #{}).

-doc """
Stops a projection. A state in a document stays.

Errors, also of the functions that follow: `not_found` where no such projection runs,
`{store_not_started, Store}` where its store does not, `{timeout, Store}` where a callback takes too
long; the projection may stop yet.
""".
-spec stop(Store :: atom(), Name :: binary(), call_options()) -> answer(ok).
stop(Store, Name, Options) ->
    in_time(Store, Name, Options, fun(Pid, Time) -> gen_server:stop(Pid, normal, Time) end).

-doc "The same as `state/3` without options.".
-spec state(Store :: atom(), Name :: binary()) -> answer({ok, term()}).
state(Store, Name) -> state(Store, Name, #{}).

-doc "The state as of the last page.".
-spec state(Store :: atom(), Name :: binary(), call_options()) -> answer({ok, term()}).
state(Store, Name, Options) -> call(Store, Name, state, Options).

-doc "The same as `table/3` without options.".
-spec table(Store :: atom(), Name :: binary()) -> answer({ok, ets:table()}).
table(Store, Name) -> table(Store, Name, #{}).

-doc "The table of a projection with `keep => ets`; `not_found` also for another one.".
-spec table(Store :: atom(), Name :: binary(), call_options()) -> answer({ok, ets:table()}).
table(Store, Name, Options) -> call(Store, Name, table, Options).

-doc "The same as `position/3` without options.".
-spec position(Store :: atom(), Name :: binary()) -> answer({ok, non_neg_integer()}).
position(Store, Name) -> position(Store, Name, #{}).

-doc "The position up to which all events are in the state.".
-spec position(Store :: atom(), Name :: binary(), call_options()) ->
    answer({ok, non_neg_integer()}).
position(Store, Name, Options) -> call(Store, Name, position, Options).

-doc "The same as `lag/3` without options.".
-spec lag(Store :: atom(), Name :: binary()) -> answer({ok, non_neg_integer()} | {error, term()}).
lag(Store, Name) -> lag(Store, Name, #{}).

-doc "How many positions the state is behind the end of the log.".
-spec lag(Store :: atom(), Name :: binary(), call_options()) ->
    answer({ok, non_neg_integer()} | {error, term()}).
lag(Store, Name, Options) ->
    maybe
        {ok, Position} ?= position(Store, Name, Options),
        {ok, End} ?= erl_esdb_store:next_position(Store, maps:with([timeout], Options)),
        {ok, max(0, End - Position)}
    end.

-doc """
Waits until the event at a position is in the state: then `state/2` shows it. So a user reads their
own writes. Error: `timeout`, after so many milliseconds.
""".
-spec await(Store :: atom(), Name :: binary(), Position :: non_neg_integer(), timeout()) ->
    answer(ok | {error, timeout}).
await(Store, Name, Position, Timeout) when is_integer(Position), Position >= 0 ->
    erl_esdb_store:is_timeout(Timeout) orelse error(badarg),
    Request = {await, Position, Timeout},
    asked(Store, Name, fun(Pid) -> gen_server:call(Pid, Request, Timeout) end);
await(_, _, _, _) ->
    error(badarg).

-doc "The same as `rebuild/3` without options.".
-spec rebuild(Store :: atom(), Name :: binary()) -> answer(ok | {error, term()}).
rebuild(Store, Name) -> rebuild(Store, Name, #{}).

-doc "Forgets the state and folds all events again, from the first one on.".
-spec rebuild(Store :: atom(), Name :: binary(), call_options()) -> answer(ok | {error, term()}).
rebuild(Store, Name, Options) -> call(Store, Name, rebuild, Options).

-spec call(atom(), binary(), atom(), call_options()) -> answer(term()).
call(Store, Name, Request, Options) ->
    in_time(Store, Name, Options, fun(Pid, Time) -> gen_server:call(Pid, Request, Time) end).

-spec in_time(atom(), binary(), call_options(), fun((pid(), timeout()) -> Answer)) ->
    answer(Answer).
in_time(Store, Name, Options, Ask) when is_atom(Store), is_binary(Name), is_map(Options) ->
    Time =
        case erl_esdb_store:engine(Store) of
            {ok, _, _, Settings} -> erl_esdb_store:timeout(Options, Settings);
            {error, _} -> erl_esdb_store:timeout(Options, #{timeout => ?TIMEOUT})
        end,
    case asked(Store, Name, fun(Pid) -> Ask(Pid, Time) end) of
        {error, timeout} -> {error, {timeout, Store}};
        Answer -> Answer
    end;
in_time(_, _, _, _) ->
    error(badarg).

-spec asked(atom(), binary(), fun((pid()) -> Answer)) -> answer(Answer | {error, timeout}).
asked(Store, Name, Ask) when is_atom(Store), is_binary(Name) ->
    maybe
        {ok, Pid} ?= erl_esdb_delivery:pid(Store, projection, Name),
        {ok, Answer} ?= answered(Pid, Ask),
        Answer
    else
        timeout -> {error, timeout};
        _ -> {error, missing(Store)}
    end;
asked(_, _, _) ->
    error(badarg).

-spec answered(pid(), fun((pid()) -> Answer)) -> {ok, Answer} | timeout | gone.
answered(Pid, Ask) ->
    try
        {ok, Ask(Pid)}
    catch
        exit:{timeout, _} -> timeout;
        exit:timeout -> timeout;
        exit:_ -> gone
    end.

-spec missing(atom()) -> not_found | {store_not_started, atom()}.
missing(Store) ->
    case erl_esdb_engine:find(Store) of
        {ok, _, _, _} -> not_found;
        {error, not_started} -> {store_not_started, Store}
    end.

%% ---- the process

-doc false.
-spec init(#state{}) -> {ok, #state{}} | {stop, {shutdown, term()}}.
init(#state{store = Store, name = Name} = State) ->
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store, Name}),
    case connect(State) of
        {ok, State1} -> {ok, pumped(State1)};
        {error, Reason, State1} ->
            begun(erl_esdb_delivery:is_failure(Reason, Store), Reason, State1)
    end.

-spec begun(boolean(), term(), #state{}) -> {ok, #state{}} | {stop, {shutdown, term()}}.
begun(true, Reason, #state{store = Store} = State) ->
    case erl_esdb_sup:is_known(Store) of
        true -> {ok, retry(Reason, State)};
        false -> {stop, {shutdown, Reason}}
    end;
begun(false, Reason, _State) ->
    {stop, {shutdown, Reason}}.

-spec retry(term(), #state{}) -> #state{}.
retry(Reason, #state{store = Store, name = Name} = State) ->
    ?LOG_DEBUG("store ~tp: projection ~ts waits: ~tp", [Store, Name, Reason]),
    _ = erlang:send_after(?RETRY, self(), connect),
    State.

%% What is to be found under its name is put there first: a table that a store made anew is empty.
-spec connect(#state{}) -> {ok, #state{}} | {error, term(), #state{}}.
connect(#state{store = Store, name = Name} = State) ->
    maybe
        ok ?= erl_esdb_delivery:claim(Store, projection, Name),
        {ok, Feed} ?= subscribed(State),
        loaded(State#state{feed = Feed})
    else
        {error, Reason} -> {error, Reason, State}
    end.

-spec subscribed(#state{}) -> {ok, erl_esdb_feed:feed()} | {error, term()}.
subscribed(#state{store = Store, feed = undefined}) ->
    maybe
        {ok, Feed} ?= erl_esdb_feed:subscribe(Store),
        _ = monitor(process, erl_esdb_feed:pid(Feed), [{tag, feed_down}]),
        {ok, Feed}
    end;
subscribed(#state{feed = Feed}) ->
    {ok, Feed}.

-spec loaded(#state{}) -> {ok, #state{}} | {error, term(), #state{}}.
loaded(#state{store = Store, keep = Keep, log = Log} = State) ->
    case {erl_esdb_engine:find(Store), Keep} of
        {{ok, _, Log, _}, ets} -> {ok, State};
        {{ok, _, Other, _}, ets} -> {ok, fresh(State#state{log = Other})};
        {{ok, _, Other, _}, document} -> kept(State#state{log = Other});
        {{error, _}, _} -> {error, {store_not_started, Store}, State}
    end.

-spec kept(#state{}) -> {ok, #state{}} | {error, term(), #state{}}.
kept(#state{store = Store, name = Name, filter = Filter} = State) ->
    case erl_esdb_store:get_document(Store, {projection, Name}) of
        {ok, {Position, Value}} ->
            Cursor = erl_esdb_cursor:new(Store, Filter, Position),
            {ok, State#state{cursor = Cursor, value = Value, saved = Position}};
        {error, not_found} ->
            {ok, fresh(State)};
        {error, Reason} ->
            {error, Reason, State}
    end.

%% Before the first event.
-spec fresh(#state{}) -> #state{}.
fresh(#state{store = Store, name = Name, module = Module, args = Args, filter = Filter} = State) ->
    Table = emptied(State),
    Context = #{store => Store, name => Name, args => Args},
    {ok, Value} = Module:init(with_table(Table, Context)),
    Cursor = erl_esdb_cursor:new(Store, Filter, 0),
    State#state{cursor = Cursor, table = Table, value = Value, saved = 0}.

-spec emptied(#state{}) -> ets:table() | undefined.
emptied(#state{keep = document}) ->
    undefined;
emptied(#state{table = undefined}) ->
    ets:new(?MODULE, [ordered_set, protected, {read_concurrency, true}]);
emptied(#state{table = Table}) ->
    true = ets:delete_all_objects(Table),
    Table.

-spec with_table(ets:table() | undefined, context()) -> context().
with_table(undefined, Context) -> Context;
with_table(Table, Context) -> Context#{table => Table}.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {noreply, #state{}}.
handle_call(Request, _From, #state{cursor = undefined, store = Store} = State) when
    is_atom(Request)
->
    {reply, {error, {store_not_started, Store}}, State};
handle_call(state, _From, #state{value = Value} = State) ->
    {reply, {ok, Value}, State};
handle_call(table, _From, #state{table = undefined} = State) ->
    {reply, {error, not_found}, State};
handle_call(table, _From, #state{table = Table} = State) ->
    {reply, {ok, Table}, State};
handle_call(position, _From, #state{saved = Saved} = State) ->
    {reply, {ok, Saved}, State};
handle_call({await, Position, Timeout}, From, #state{saved = Saved} = State) ->
    %% A position in a log that was begun anew is none of that which was folded.
    case Position < Saved andalso is_of_the_store(State) of
        true -> {reply, ok, State};
        false -> {noreply, waits({Position, make_ref()}, Timeout, From, State)}
    end;
handle_call(rebuild, _From, State) ->
    rebuilt(forgotten(State), State);
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-spec forgotten(#state{}) -> ok | {error, term()}.
forgotten(#state{keep = ets}) -> ok;
forgotten(#state{store = Store, name = Name, log = Log}) ->
    erl_esdb_store:delete_document(Store, {projection, Name}, #{handle => Log}).

-spec rebuilt(ok | {error, term()}, #state{}) -> {reply, ok | {error, term()}, #state{}}.
rebuilt(ok, State) -> {reply, ok, pumped(fresh(State))};
rebuilt({error, Reason}, State) -> {reply, {error, Reason}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({erl_esdb_feed, _}, State) ->
    {noreply, pumped(State)};
handle_info(pump, State) ->
    pump(State#state{pumping = false});
handle_info(connect, State) ->
    connected(connect(State));
handle_info({feed_down, _, process, _, _}, State) ->
    connected(connect(State#state{feed = undefined}));
handle_info({{waiter_down, Awaited}, _, process, _, _}, State) ->
    {noreply, forget(Awaited, State)};
handle_info({timeout, _, {waited, Awaited}}, State) ->
    {noreply, forget(Awaited, State)};
%% A process that a callback has linked.
handle_info({'EXIT', _, Reason}, State) when Reason =/= normal ->
    {stop, Reason, State};
handle_info(_, State) ->
    {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{store = Store, name = Name}) ->
    erl_esdb_delivery:remove(Store, projection, Name, self()).

-spec connected({ok, #state{}} | {error, term(), #state{}}) ->
    {noreply, #state{}} | {stop, term(), #state{}}.
connected({ok, State}) ->
    {noreply, pumped(State)};
connected({error, Reason, #state{store = Store} = State}) ->
    case erl_esdb_delivery:is_failure(Reason, Store) of
        true -> away(erl_esdb_sup:is_known(Store), Reason, State);
        false -> {stop, Reason, State}
    end.

-spec away(IsKnown :: boolean(), term(), #state{}) ->
    {noreply, #state{}} | {stop, term(), #state{}}.
away(true, Reason, State) -> {noreply, retry(Reason, State)};
away(false, _Reason, State) -> {stop, {shutdown, store_stopped}, State}.

-spec pumped(#state{}) -> #state{}.
pumped(#state{pumping = true} = State) ->
    State;
pumped(State) ->
    self() ! pump,
    State#state{pumping = true}.

-spec pump(#state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
pump(#state{feed = undefined} = State) ->
    {noreply, State};
pump(#state{cursor = Cursor} = State) ->
    maybe
        {More, Events, Cursor1} ?= erl_esdb_cursor:page(Cursor, ?PAGE),
        {ok, State1} ?= saved(Events, folded(Events, State#state{cursor = Cursor1})),
        {noreply, awaited(next(More, State1))}
    else
        {error, Reason} -> connected({error, Reason, State})
    end.

-spec folded([event()], #state{}) -> #state{}.
folded(Events, #state{module = Module, value = Value, decode = Decode} = State) ->
    {ok, Decoded} = erl_esdb_json:decode_all({ok, Events}, #{decode => Decode}),
    Fold = fun(Event, Acc) ->
        {ok, Acc1} = Module:handle_event(Event, Acc),
        Acc1
    end,
    State#state{value = lists:foldl(Fold, Value, Decoded)}.

%% The state and where it stands, in one step, and only in the store that it was made of: another
%% one may have begun during the callbacks. A page without an event for us changes neither: after a
%% crash it is only read again.
-spec saved([event()], #state{}) -> {ok, #state{}} | {error, term()}.
saved([_ | _], #state{keep = document, store = Store, name = Name, log = Log} = State) ->
    Position = erl_esdb_cursor:position(State#state.cursor),
    Kept = {Position, State#state.value},
    case erl_esdb_store:put_document(Store, {projection, Name}, Kept, #{handle => Log}) of
        {ok, _} -> {ok, State#state{saved = Position}};
        {error, Reason} -> {error, Reason}
    end;
saved(_, #state{store = Store, cursor = Cursor} = State) ->
    case is_of_the_store(State) of
        true -> {ok, State#state{saved = erl_esdb_cursor:position(Cursor)}};
        false -> {error, {store_not_started, Store}}
    end.

%% Whether the log that was folded is that of the store now.
-spec is_of_the_store(#state{}) -> boolean().
is_of_the_store(#state{feed = undefined}) ->
    false;
is_of_the_store(#state{store = Store, log = Log}) ->
    case erl_esdb_engine:find(Store) of
        {ok, _, Log, _} -> true;
        _ -> false
    end.

-spec next(more | done, #state{}) -> #state{}.
next(more, State) ->
    pumped(State);
next(done, #state{feed = Feed, cursor = Cursor} = State) ->
    case erl_esdb_feed:wait(Feed, erl_esdb_cursor:position(Cursor)) of
        ready -> pumped(State);
        wait -> State
    end.

%% ---- who waits for a position

-spec waits(awaited(), timeout(), gen_server:from(), #state{}) -> #state{}.
waits(Awaited, Timeout, {Pid, _} = From, #state{waiting = Waiting} = State) ->
    Monitor = monitor(process, Pid, [{tag, {waiter_down, Awaited}}]),
    Waiter = {From, Monitor, timer(Timeout, Awaited)},
    State#state{waiting = gb_trees:insert(Awaited, Waiter, Waiting)}.

-spec timer(timeout(), awaited()) -> reference() | none.
timer(infinity, _Awaited) -> none;
timer(Timeout, Awaited) -> erlang:start_timer(Timeout, self(), {waited, Awaited}).

%% Has ended, or has waited long enough.
-spec forget(awaited(), #state{}) -> #state{}.
forget(Awaited, #state{waiting = Waiting} = State) ->
    case gb_trees:take_any(Awaited, Waiting) of
        {Waiter, Others} ->
            _ = released(Waiter),
            State#state{waiting = Others};
        error ->
            State
    end.

-spec released(waiter()) -> gen_server:from().
released({From, Monitor, Timer}) ->
    true = demonitor(Monitor, [flush]),
    _ = is_reference(Timer) andalso erlang:cancel_timer(Timer),
    From.

-spec awaited(#state{}) -> #state{}.
awaited(#state{waiting = Waiting, saved = Saved} = State) ->
    case gb_trees:is_empty(Waiting) orelse gb_trees:take_smallest(Waiting) of
        {{Position, _}, Waiter, Others} when Position < Saved ->
            ok = gen_server:reply(released(Waiter), ok),
            awaited(State#state{waiting = Others});
        _ ->
            State
    end.
