-module(erl_esdb_feed).
-moduledoc """
Tells who reads the log of a store that it has grown.

```erlang
1> {ok, Feed} = erl_esdb_feed:subscribe(shop).
2> wait = erl_esdb_feed:wait(Feed, 0).
3> {ok, 0} = erl_esdb_streams:append(shop, ~"order-1", -1, [Placed]).
4> receive {erl_esdb_feed, shop} -> ready = erl_esdb_feed:wait(Feed, 0) end.
```

One process a store and node. It carries no events: who is woken reads the log from where it is, so
that there is one way for old events and new ones, and nothing to hand over between two.

The engine pays two atomic operations for a commit, and one message where the feed sleeps. A reader
gets one message for each call of `wait/2` at most, however much is written in the meantime.

When the feed ends its readers are to subscribe anew: `pid/1` is what to monitor.
""".

-behaviour(gen_server).

-export([start_link/1, committed/2, subscribe/1, wait/2, pid/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([feed/0]).

%% Places in the array of a feed: the position after the newest event, and whether the feed is
%% awake or has a message that wakes it.
-define(NEXT, 1).
-define(AWAKE, 2).
%% In the array of a reader: whether it waits.
-define(WAITS, 1).

-record(feed, {
    store :: atom(),
    pid :: pid(),
    shared :: atomics:atomics_ref(),
    own :: atomics:atomics_ref()
}).

-record(state, {
    store :: atom(),
    shared :: atomics:atomics_ref(),
    readers = #{} :: #{reference() => {pid(), atomics:atomics_ref()}}
}).

-opaque feed() :: #feed{}.

-doc false.
-spec start_link(atom()) -> gen_server:start_ret().
start_link(Store) -> gen_server:start_link(?MODULE, Store, []).

-doc "The engine's word that the log now ends before this position. Costs next to nothing.".
-spec committed(Store :: atom(), NextPosition :: non_neg_integer()) -> ok.
committed(Store, Next) ->
    case erl_esdb_delivery:find(Store, feed, none) of
        {ok, {Pid, Shared}} -> committed(Pid, Shared, Next);
        error -> ok
    end.

%% First the position, then the word: who reads it the other way round misses nothing.
-spec committed(pid(), atomics:atomics_ref(), non_neg_integer()) -> ok.
committed(Pid, Shared, Next) ->
    ok = atomics:put(Shared, ?NEXT, Next),
    case atomics:exchange(Shared, ?AWAKE, 1) of
        0 ->
            Pid ! wake,
            ok;
        1 ->
            ok
    end.

-doc "Makes the calling process a reader, until it ends.".
-spec subscribe(Store :: atom()) -> {ok, feed()} | {error, {store_not_started, atom()}}.
subscribe(Store) ->
    case erl_esdb_delivery:find(Store, feed, none) of
        {ok, {Pid, Shared}} -> subscribe(Store, Pid, Shared);
        error -> {error, {store_not_started, Store}}
    end.

-spec subscribe(atom(), pid(), atomics:atomics_ref()) ->
    {ok, feed()} | {error, {store_not_started, atom()}}.
subscribe(Store, Pid, Shared) ->
    Own = atomics:new(1, []),
    try gen_server:call(Pid, {subscribe, self(), Own}, infinity) of
        ok -> {ok, #feed{store = Store, pid = Pid, shared = Shared, own = Own}}
    catch
        exit:_ -> {error, {store_not_started, Store}}
    end.

-doc """
Whether the log has events from a position on: `ready`, or `wait`: then the process that subscribed
gets `{erl_esdb_feed, Store}` when something is written. Now and then it gets one for nothing.
""".
-spec wait(feed(), Position :: non_neg_integer()) -> ready | wait.
wait(#feed{shared = Shared, own = Own}, Position) ->
    %% Waiting first: what is written from here on makes a message, what was before is seen below.
    ok = atomics:put(Own, ?WAITS, 1),
    case atomics:get(Shared, ?NEXT) > Position of
        true ->
            ok = atomics:put(Own, ?WAITS, 0),
            ready;
        false ->
            wait
    end.

-doc "The process of the feed.".
-spec pid(feed()) -> pid().
pid(#feed{pid = Pid}) -> Pid.

-doc false.
-spec init(atom()) -> {ok, #state{}}.
init(Store) ->
    proc_lib:set_label({?MODULE, Store}),
    Shared = atomics:new(2, []),
    ok = erl_esdb_delivery:put(Store, feed, none, {self(), Shared}),
    ok = begin_at(erl_esdb_store:next_position(Store), Shared),
    {ok, #state{store = Store, shared = Shared}}.

%% What is written meanwhile has set it already, to more. Where the engine has ended all of this is
%% about to end too.
-spec begin_at({ok, non_neg_integer()} | {error, term()}, atomics:atomics_ref()) -> ok.
begin_at({ok, Next}, Shared) ->
    _ = atomics:compare_exchange(Shared, ?NEXT, 0, Next),
    ok;
begin_at({error, _}, _Shared) ->
    ok.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, ok | {error, unknown_request}, #state{}}.
handle_call({subscribe, Pid, Own}, _From, #state{readers = Readers} = State) ->
    {reply, ok, State#state{readers = Readers#{monitor(process, Pid) => {Pid, Own}}}};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info(wake, #state{store = Store, shared = Shared, readers = Readers} = State) ->
    %% Asleep first: a commit from here on sends the next message.
    ok = atomics:put(Shared, ?AWAKE, 0),
    maps:foreach(fun(_, {Pid, Own}) -> tell(Store, Pid, Own) end, Readers),
    {noreply, State};
handle_info({'DOWN', Ref, process, _, _}, #state{readers = Readers} = State) ->
    {noreply, State#state{readers = maps:remove(Ref, Readers)}};
handle_info(_, State) ->
    {noreply, State}.

-spec tell(atom(), pid(), atomics:atomics_ref()) -> ok.
tell(Store, Pid, Own) ->
    case atomics:exchange(Own, ?WAITS, 0) of
        1 ->
            Pid ! {?MODULE, Store},
            ok;
        0 ->
            ok
    end.
