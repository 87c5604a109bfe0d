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

The engine pays two atomic operations for a commit, and one message where somebody waits. A reader
gets one message for each call of `wait/2` at most, however much is written in the meantime. One
that wants a single stream is only woken for that: so thousands of them cost what one costs.

When the feed ends its readers are to subscribe anew: `pid/1` is what to monitor.
""".

-behaviour(gen_server).

-export([start_link/1, committed/2, subscribe/1, subscribe/2, wait/2, pid/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([feed/0, interest/0]).

%% Positions whose streams are looked up. After more all readers are woken.
-define(SCAN, 1000).

%% Places in the array of a feed: the position after the newest event, and whether the feed need not
%% be told of it: it has a message already, or nobody waits.
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

-type reader() :: {pid(), atomics:atomics_ref()}.
-doc "What a reader wants to be woken for: what is written to one stream, or anything.".
-type interest() :: any | {ok, Stream :: binary()}.

-record(state, {
    store :: atom(),
    shared :: atomics:atomics_ref(),
    %% who wants what, by the monitors of the readers
    interests = #{} :: #{reference() => interest()},
    readers = #{} :: #{interest() => #{reference() => reader()}},
    %% whose streams are woken for what lies before
    scanned :: non_neg_integer()
}).

-opaque feed() :: #feed{}.

-doc false.
-spec start_link(atom()) -> gen_server:start_ret().
start_link(Store) -> gen_server:start_link(?MODULE, Store, []).

-doc """
The engine's word that the log now ends before this position. Costs next to nothing.

An engine that begins anew says where, before it gets to what it had: who reads meanwhile finds
less, and is woken for what comes after that.
""".
-spec committed(Store :: atom(), NextPosition :: non_neg_integer()) -> ok.
committed(Store, Next) ->
    case erl_esdb_delivery:find(Store, feed, none) of
        {ok, {Pid, Shared}} -> committed(Pid, Shared, Next);
        error -> ok
    end.

%% First the position, then the word: who reads it the other way round misses nothing.
-spec committed(pid(), atomics:atomics_ref(), non_neg_integer()) -> ok.
committed(Pid, Shared, Next) ->
    _ = atomics:exchange(Shared, ?NEXT, Next) > Next andalso (Pid ! {back, Next}),
    case atomics:exchange(Shared, ?AWAKE, 1) of
        0 ->
            Pid ! wake,
            ok;
        1 ->
            ok
    end.

-doc "Makes the calling process a reader of everything, until it ends.".
-spec subscribe(Store :: atom()) -> {ok, feed()} | {error, {store_not_started, atom()}}.
subscribe(Store) -> subscribe(Store, any).

-doc "Makes the calling process a reader, until it ends.".
-spec subscribe(Store :: atom(), interest()) ->
    {ok, feed()} | {error, {store_not_started, atom()}}.
subscribe(Store, Interest) ->
    case erl_esdb_delivery:find(Store, feed, none) of
        {ok, {Pid, Shared}} -> subscribe(Store, Interest, Pid, Shared);
        error -> {error, {store_not_started, Store}}
    end.

-spec subscribe(atom(), interest(), pid(), atomics:atomics_ref()) ->
    {ok, feed()} | {error, {store_not_started, atom()}}.
subscribe(Store, Interest, Pid, Shared) ->
    Own = atomics:new(1, []),
    try gen_server:call(Pid, {subscribe, Interest, {self(), Own}}, infinity) of
        ok -> {ok, #feed{store = Store, pid = Pid, shared = Shared, own = Own}}
    catch
        exit:_ -> {error, {store_not_started, Store}}
    end.

-doc """
Whether the log has events from a position on: `ready`, or `wait`: then the process that subscribed
gets `{erl_esdb_feed, Store}` when something is written that it wants. Now and then it gets one for
nothing.
""".
-spec wait(feed(), Position :: non_neg_integer()) -> ready | wait.
wait(#feed{shared = Shared, own = Own}, Position) ->
    %% Waiting first: what is written from here on makes a message, what was before is seen below.
    ok = atomics:put(Own, ?WAITS, 1),
    ok = atomics:put(Shared, ?AWAKE, 0),
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
    %% From the beginning: the word of a commit may come after its events are there, so what was
    %% there before this process says nothing of what its readers were woken for. It costs one look,
    %% or one wake of all.
    {ok, #state{store = Store, shared = Shared, scanned = 0}}.

%% What is written meanwhile may have set it already. Where the engine has ended all of this is
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
handle_call({subscribe, Interest, {Pid, _} = Reader}, _From, State) ->
    #state{interests = Interests, readers = Readers} = State,
    Ref = monitor(process, Pid),
    Same = maps:get(Interest, Readers, #{}),
    {reply, ok, State#state{
        interests = Interests#{Ref => Interest},
        readers = Readers#{Interest => Same#{Ref => Reader}}
    }};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info(wake, #state{shared = Shared} = State) ->
    State1 = woken(atomics:get(Shared, ?NEXT), State),
    ok = armed(State1),
    {noreply, State1};
handle_info({back, Next}, #state{scanned = Scanned} = State) ->
    handle_info(wake, State#state{scanned = min(Next, Scanned)});
handle_info({'DOWN', Ref, process, _, _}, State) ->
    #state{interests = Interests, readers = Readers} = State,
    {Interest, Interests1} = maps:take(Ref, Interests),
    #{Interest := Same} = Readers,
    Readers1 = without(Interest, maps:remove(Ref, Same), Readers),
    {noreply, State#state{interests = Interests1, readers = Readers1}};
handle_info(_, State) ->
    {noreply, State}.

%% Where some still wait, a commit from here on sends the next message; of one that came between the
%% look and this word there is a message, too. Where nobody does, the next who waits says so.
-spec armed(#state{}) -> ok.
armed(#state{shared = Shared, scanned = Scanned} = State) ->
    case is_awaited(State) andalso atomics:exchange(Shared, ?AWAKE, 0) of
        false ->
            ok;
        _ ->
            _ = atomics:get(Shared, ?NEXT) > Scanned andalso (self() ! wake),
            ok
    end.

%% Of those who wait for single streams some do, as a rule.
-spec is_awaited(#state{}) -> boolean().
is_awaited(#state{readers = #{any := Same} = Readers}) when map_size(Readers) =:= 1 ->
    does_wait(maps:next(maps:iterator(Same)));
is_awaited(#state{readers = Readers}) ->
    map_size(Readers) > 0.

-spec does_wait(none | {reference(), reader(), maps:iterator()}) -> boolean().
does_wait(none) ->
    false;
does_wait({_, {_, Own}, Others}) ->
    atomics:get(Own, ?WAITS) =:= 1 orelse does_wait(maps:next(Others)).

-spec without(interest(), #{reference() => reader()}, Readers) -> Readers when
    Readers :: #{interest() => #{reference() => reader()}}.
without(Interest, Left, Readers) when map_size(Left) =:= 0 -> maps:remove(Interest, Readers);
without(Interest, Left, Readers) -> Readers#{Interest := Left}.

-spec woken(non_neg_integer(), #state{}) -> #state{}.
woken(Next, #state{store = Store, readers = Readers, scanned = Scanned} = State) ->
    Tell = fun(_, Reader) -> tell(Store, Reader) end,
    Woken = maps:with([any | written(Store, Scanned, Next, Readers)], Readers),
    maps:foreach(fun(_, Same) -> maps:foreach(Tell, Same) end, Woken),
    State#state{scanned = max(Next, Scanned)}.

%% What of the streams that readers want was written; all of them where it is too much to look at.
-spec written(atom(), non_neg_integer(), non_neg_integer(), #{interest() => map()}) ->
    [interest()].
written(_Store, Scanned, Next, Readers) when
    map_size(Readers) =:= 0; map_size(Readers) =:= 1, is_map_key(any, Readers); Next =< Scanned
->
    [];
written(Store, Scanned, Next, Readers) when Next - Scanned =< ?SCAN ->
    maybe
        {ok, Engine, Handle, _} ?= erl_esdb_engine:find(Store),
        {ok, Pieces} ?= Engine:read_log(Handle, Scanned, Next - Scanned, forward, #{}),
        lists:usort([{ok, Stream} || {Stream, _, _} <- Pieces])
    else
        {error, _} -> maps:keys(Readers)
    end;
written(_Store, _Scanned, _Next, Readers) ->
    maps:keys(Readers).

-spec tell(atom(), reader()) -> ok.
tell(Store, {Pid, Own}) ->
    case atomics:exchange(Own, ?WAITS, 0) of
        1 ->
            Pid ! {?MODULE, Store},
            ok;
        0 ->
            ok
    end.
