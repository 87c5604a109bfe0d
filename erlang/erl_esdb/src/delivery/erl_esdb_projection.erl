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

A projection belongs below a supervisor of the application (`child_spec/4`). When the store stops
the projection ends, too.
""".

-behaviour(gen_server).

-export([start_link/4, child_spec/4, stop/2]).
-export([state/2, table/2, position/2, lag/2, await/4, rebuild/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([options/0, context/0]).

-include("erl_esdb.hrl").

%% Events that are folded before the state is saved and calls are answered.
-define(PAGE, 200).

-doc """
`type` (`stream`) and `selector` (`<<"$all">>`) choose the events as those of a subscription, `args`
(`undefined`) goes to `init/1`.
""".
-type options() :: #{
    type => subscription_type(),
    selector => erl_esdb_filters:selector(),
    keep => document | ets,
    args => term()
}.
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
    args :: term(),
    filter :: erl_esdb_filters:filter(),
    cursor :: erl_esdb_cursor:cursor(),
    feed :: erl_esdb_feed:feed(),
    table :: ets:table() | undefined,
    value :: term(),
    saved = 0 :: non_neg_integer(),
    %% who waits for which position
    waiting = [] :: [{non_neg_integer(), gen_server:from()}],
    pumping = false :: boolean()
}).

-doc """
Starts a projection, which goes on where it stopped.

Errors: `{already_started, Pid}`, `{store_not_started, Store}`, `{invalid_option, Key, Value}`, and
those of a selector.
""".
-spec start_link(Store :: atom(), Name :: binary(), module(), options()) ->
    {ok, pid()} | {error, term()}.
start_link(Store, Name, Module, Options) when
    is_atom(Store), is_binary(Name), is_atom(Module), is_map(Options)
->
    case maps:get(keep, Options, document) of
        Keep when Keep =:= document; Keep =:= ets -> start(Store, Name, Module, Options, Keep);
        Other -> {error, {invalid_option, keep, Other}}
    end;
start_link(_, _, _, _) ->
    error(badarg).

-spec start(atom(), binary(), module(), options(), document | ets) ->
    {ok, pid()} | {error, term()}.
start(Store, Name, Module, Options, Keep) ->
    Type = maps:get(type, Options, stream),
    Selector = maps:get(selector, Options, <<"$all">>),
    maybe
        {ok, Filter} ?= erl_esdb_filters:compile(Type, Selector),
        Args = {Store, Name, Module, Keep, maps:get(args, Options, undefined), Filter},
        {ok, Pid} ?= gen_server:start_link(?MODULE, Args, []),
        {ok, Pid}
    else
        {error, {shutdown, Reason}} -> {error, Reason};
        {error, Reason} -> {error, Reason};
        ignore -> {error, ignore}
    end.

-doc "A projection below a supervisor.".
-spec child_spec(Store :: atom(), Name :: binary(), module(), options()) ->
    supervisor:child_spec().
child_spec(Store, Name, Module, Options) ->
    #{
        id => {?MODULE, Store, Name},
        start => {?MODULE, start_link, [Store, Name, Module, Options]},
        shutdown => 5000
    }.

-doc "Stops a projection. A state in a document stays.".
-spec stop(Store :: atom(), Name :: binary()) -> ok | {error, not_found}.
stop(Store, Name) ->
    case erl_esdb_delivery:pid(Store, projection, Name) of
        {ok, Pid} -> stopped(Pid);
        {error, _} -> {error, not_found}
    end.

-spec stopped(pid()) -> ok | {error, not_found}.
stopped(Pid) ->
    try
        gen_server:stop(Pid)
    catch
        exit:_ -> {error, not_found}
    end.

-doc "The state as of the last page. Errors: `not_found` where no such projection runs.".
-spec state(Store :: atom(), Name :: binary()) -> {ok, term()} | {error, not_found}.
state(Store, Name) -> found(call(Store, Name, state, infinity)).

-doc "The table of a projection with `keep => ets`.".
-spec table(Store :: atom(), Name :: binary()) -> {ok, ets:table()} | {error, not_found}.
table(Store, Name) ->
    case call(Store, Name, table, infinity) of
        {ok, undefined} -> {error, not_found};
        Answer -> found(Answer)
    end.

-doc "The position up to which all events are in the state.".
-spec position(Store :: atom(), Name :: binary()) ->
    {ok, non_neg_integer()} | {error, not_found}.
position(Store, Name) -> found(call(Store, Name, position, infinity)).

-doc "How many positions the state is behind the end of the log.".
-spec lag(Store :: atom(), Name :: binary()) ->
    {ok, non_neg_integer()} | {error, not_found | term()}.
lag(Store, Name) ->
    maybe
        {ok, Position} ?= position(Store, Name),
        {ok, End} ?= erl_esdb_store:next_position(Store),
        {ok, max(0, End - Position)}
    end.

-doc """
Waits until the event at a position is in the state: then `state/2` shows it. So a user reads their
own writes. Errors: `timeout`, `not_found`.
""".
-spec await(Store :: atom(), Name :: binary(), Position :: non_neg_integer(), timeout()) ->
    ok | {error, timeout | not_found}.
await(Store, Name, Position, Timeout) when is_integer(Position), Position >= 0 ->
    done(call(Store, Name, {await, Position}, Timeout));
await(_, _, _, _) ->
    error(badarg).

-doc "Forgets the state and folds all events again, from the first one on.".
-spec rebuild(Store :: atom(), Name :: binary()) -> ok | {error, not_found | term()}.
rebuild(Store, Name) -> done(call(Store, Name, rebuild, infinity)).

-spec found({ok, Found} | {error, Reason}) -> {ok, Found} | {error, Reason}.
found({ok, Found}) -> {ok, Found};
found({error, Reason}) -> {error, Reason}.

-spec done(ok | {error, Reason}) -> ok | {error, Reason}.
done(ok) -> ok;
done({error, Reason}) -> {error, Reason}.

-spec call(atom(), binary(), term(), timeout()) -> Answer | {error, timeout | not_found} when
    Answer :: ok | {ok, term()} | {error, term()}.
call(Store, Name, Request, Timeout) ->
    case erl_esdb_delivery:pid(Store, projection, Name) of
        {ok, Pid} ->
            try
                gen_server:call(Pid, Request, Timeout)
            catch
                exit:{timeout, _} -> {error, timeout};
                exit:_ -> {error, not_found}
            end;
        {error, _} ->
            {error, not_found}
    end.

%% ---- the process

-doc false.
-spec init(tuple()) -> {ok, #state{}} | {stop, {shutdown, term()}}.
init({Store, Name, Module, Keep, Args, Filter}) ->
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store, Name}),
    maybe
        ok ?= alone(Store, Name),
        {ok, Feed} ?= erl_esdb_feed:subscribe(Store),
        _ = monitor(process, erl_esdb_feed:pid(Feed)),
        State = #state{
            store = Store,
            name = Name,
            module = Module,
            keep = Keep,
            args = Args,
            filter = Filter,
            cursor = erl_esdb_cursor:new(Store, Filter, 0),
            feed = Feed
        },
        {ok, State1} ?= loaded(State),
        ok = erl_esdb_delivery:put(Store, projection, Name, self()),
        {ok, pumped(State1)}
    else
        {error, Reason} -> {stop, {shutdown, Reason}}
    end.

-spec alone(atom(), binary()) -> ok | {error, {already_started, pid()}}.
alone(Store, Name) ->
    case erl_esdb_delivery:pid(Store, projection, Name) of
        {ok, Pid} ->
            case is_process_alive(Pid) of
                true -> {error, {already_started, Pid}};
                false -> ok
            end;
        {error, _} ->
            ok
    end.

-spec loaded(#state{}) -> {ok, #state{}} | {error, term()}.
loaded(#state{keep = ets} = State) ->
    {ok, fresh(State)};
loaded(#state{store = Store, name = Name, filter = Filter} = State) ->
    case erl_esdb_store:get_document(Store, {projection, Name}) of
        {ok, {Position, Value}} ->
            Cursor = erl_esdb_cursor:new(Store, Filter, Position),
            {ok, State#state{cursor = Cursor, value = Value, saved = Position}};
        {error, not_found} ->
            {ok, fresh(State)};
        {error, Reason} ->
            {error, Reason}
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
handle_call(state, _From, #state{value = Value} = State) ->
    {reply, {ok, Value}, State};
handle_call(table, _From, #state{table = Table} = State) ->
    {reply, {ok, Table}, State};
handle_call(position, _From, #state{saved = Saved} = State) ->
    {reply, {ok, Saved}, State};
handle_call({await, Position}, _From, #state{saved = Saved} = State) when Position < Saved ->
    {reply, ok, State};
handle_call({await, Position}, From, #state{waiting = Waiting} = State) ->
    {noreply, State#state{waiting = [{Position, From} | Waiting]}};
handle_call(rebuild, _From, State) ->
    rebuilt(forgotten(State), State);
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-spec forgotten(#state{}) -> ok | {error, term()}.
forgotten(#state{keep = ets}) -> ok;
forgotten(#state{store = Store, name = Name}) ->
    erl_esdb_store:delete_document(Store, {projection, Name}).

-spec rebuilt(ok | {error, term()}, #state{}) -> {reply, ok | {error, term()}, #state{}}.
rebuilt(ok, State) -> {reply, ok, pumped(fresh(State))};
rebuilt({error, Reason}, State) -> {reply, {error, Reason}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({erl_esdb_feed, _}, State) -> {noreply, pumped(State)};
handle_info(pump, State) -> pump(State#state{pumping = false});
handle_info({'DOWN', _, process, _, _}, State) -> {stop, {shutdown, store_stopped}, State};
handle_info({'EXIT', _, Reason}, State) -> {stop, Reason, State};
handle_info(_, State) -> {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{store = Store, name = Name}) ->
    case erl_esdb_delivery:find(Store, projection, Name) of
        {ok, Pid} when Pid =:= self() -> erl_esdb_delivery:remove(Store, projection, Name);
        _ -> ok
    end.

-spec pumped(#state{}) -> #state{}.
pumped(#state{pumping = true} = State) ->
    State;
pumped(State) ->
    self() ! pump,
    State#state{pumping = true}.

-spec pump(#state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
pump(#state{cursor = Cursor} = State) ->
    maybe
        {More, Events, Cursor1} ?= erl_esdb_cursor:page(Cursor, ?PAGE),
        {ok, State1} ?= saved(Events, folded(Events, State#state{cursor = Cursor1})),
        {noreply, awaited(next(More, State1))}
    else
        {error, {store_not_started, _}} -> {stop, {shutdown, store_stopped}, State};
        {error, Reason} -> {stop, Reason, State}
    end.

-spec folded([event()], #state{}) -> #state{}.
folded(Events, #state{module = Module, value = Value} = State) ->
    Fold = fun(Event, Acc) ->
        {ok, Acc1} = Module:handle_event(Event, Acc),
        Acc1
    end,
    State#state{value = lists:foldl(Fold, Value, Events)}.

%% The state and where it stands, in one step. A page without an event for us changes neither in the
%% store: after a crash it is only read again.
-spec saved([event()], #state{}) -> {ok, #state{}} | {error, term()}.
saved([_ | _], #state{keep = document, store = Store, name = Name} = State) ->
    Position = erl_esdb_cursor:position(State#state.cursor),
    case erl_esdb_store:put_document(Store, {projection, Name}, {Position, State#state.value}) of
        {ok, _} -> {ok, State#state{saved = Position}};
        {error, Reason} -> {error, Reason}
    end;
saved(_, #state{cursor = Cursor} = State) ->
    {ok, State#state{saved = erl_esdb_cursor:position(Cursor)}}.

-spec next(more | done, #state{}) -> #state{}.
next(more, State) ->
    pumped(State);
next(done, #state{feed = Feed, cursor = Cursor} = State) ->
    case erl_esdb_feed:wait(Feed, erl_esdb_cursor:position(Cursor)) of
        ready -> pumped(State);
        wait -> State
    end.

-spec awaited(#state{}) -> #state{}.
awaited(#state{waiting = Waiting, saved = Saved} = State) ->
    {Reached, Others} = lists:partition(fun({Position, _}) -> Position < Saved end, Waiting),
    lists:foreach(fun({_, From}) -> gen_server:reply(From, ok) end, Reached),
    State#state{waiting = Others}.
