-module(erl_esdb_leader).
-moduledoc """
What a node does for a store when it begins to lead, for callers of the original: it makes a
subscription to all events named `all-events`, and starts a pool of emitters for each subscription.

```erlang
1> erl_esdb_leader:is_active(shop).
false
2> ok = erl_esdb_leader:activate(shop).
3> erl_esdb_leader:is_active(shop).
true
```

In mode `cluster` that happens by itself (`m:erl_esdb_node_monitor`); in mode `single` only when it
is asked for. Nothing is delivered because of it: that is the work of `m:erl_esdb_subscriptions`,
and emitters pass on what is broadcast to them (`m:erl_esdb_emitter_group`). A node that leads no
more is not active, and stops its pools.

Names of pools are atoms, which are never freed. A node that has more than half of the atoms that it
can have starts no more of them, and the log says so.

Telemetry: `[erl_esdb, cluster, leader, elected]`, when it has become active.
""".

-behaviour(gen_server).

-export([start_link/1, activate/1, is_active/1, start_pool/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-define(TIMEOUT, 30_000).
-define(ALL_EVENTS, ~"all-events").

-record(state, {
    store :: atom(),
    leader :: node() | undefined,
    %% who led before
    previous :: node() | undefined
}).

-doc "Starts the process, registered as `erl_esdb_naming:leader_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store}) ->
    Name = erl_esdb_naming:leader_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, Store, [])
    end).

-doc """
Does it; `ok` also where it is done. Errors: `not_started`, `not_leader`, `{timeout, Store}` after
30 seconds, and the failures of a store.
""".
-spec activate(Store :: atom()) -> ok | {error, not_started | not_leader | term()}.
activate(Store) ->
    try
        gen_server:call(erl_esdb_naming:leader_name(Store), activate, ?TIMEOUT)
    catch
        exit:{timeout, _} -> {error, {timeout, Store}};
        exit:{_, {gen_server, call, _}} -> {error, not_started}
    end.

-doc "Whether that was done, and this node leads still.".
-spec is_active(Store :: atom()) -> boolean().
is_active(Store) when is_atom(Store) ->
    case erl_esdb_volatile:get(Store, ?MODULE) of
        {ok, Pid} -> is_process_alive(Pid);
        {error, not_found} -> false
    end;
is_active(_) ->
    error(badarg).

-doc false.
%% Starts the emitters of a subscription, unless they run.
-spec start_pool(atom(), subscription()) -> ok.
start_pool(Store, #subscription{id = Key} = Subscription) ->
    case 2 * erlang:system_info(atom_count) < erlang:system_info(atom_limit) of
        true ->
            _ = erl_esdb_emitter_pool:start_emitter(Store, Subscription),
            ok;
        false ->
            ?LOG_WARNING("store ~tp: no emitters of ~ts: too many atoms", [Store, Key])
    end.

%% ---- the process

-doc false.
-spec init(atom()) -> {ok, #state{}}.
init(Store) ->
    process_flag(trap_exit, true),
    {ok, #state{store = Store, leader = erl_esdb_cluster:watch_leader(Store)}}.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(activate, _From, #state{store = Store} = State) ->
    %% Who asks may have been told sooner.
    case erl_esdb_cluster:leader(Store) of
        {ok, Leader} -> activated(Leader, led(Leader, State));
        {error, {store_not_started, _}} -> {reply, {error, not_started}, State};
        {error, Reason} -> {reply, {error, Reason}, State}
    end;
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({erl_esdb_leader, Store, Leader}, #state{store = Store} = State) ->
    {noreply, led(Leader, State)};
handle_info(_, State) ->
    {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{store = Store}) -> erl_esdb_volatile:delete(Store, ?MODULE, self()).

-spec led(node() | undefined, #state{}) -> #state{}.
led(Leader, #state{leader = Leader} = State) ->
    State;
led(Leader, #state{store = Store, leader = Before, previous = Previous} = State) ->
    _ = Leader =/= node() andalso is_active(Store) andalso deactivated(State),
    %% While nobody leads, it is who led last.
    State#state{leader = Leader, previous = last(Before, Previous)}.

-spec last(node() | undefined, node() | undefined) -> node() | undefined.
last(undefined, Previous) -> Previous;
last(Leader, _Previous) -> Leader.

-spec deactivated(#state{}) -> ok.
deactivated(#state{store = Store}) ->
    ok = erl_esdb_volatile:delete(Store, ?MODULE),
    case erl_esdb_subscriptions_store:keys(Store) of
        {ok, Keys} -> lists:foreach(fun(Key) -> erl_esdb_emitter_pool:stop(Store, Key) end, Keys);
        {error, _} -> ok
    end.

-spec activated(node(), #state{}) -> {reply, ok | {error, term()}, #state{}}.
activated(Leader, State) when Leader =/= node() ->
    {reply, {error, not_leader}, State};
activated(_Leader, #state{store = Store} = State) ->
    case is_active(Store) of
        true -> {reply, ok, State};
        false -> {reply, activated_now(State), State}
    end.

-spec activated_now(#state{}) -> ok | {error, term()}.
activated_now(#state{store = Store, previous = Previous}) ->
    maybe
        ok ?= all_events(Store),
        {ok, Subscriptions} ?= erl_esdb_subscriptions:list(Store),
        ok = erl_esdb_volatile:put(Store, ?MODULE, self()),
        lists:foreach(fun(Subscription) -> start_pool(Store, Subscription) end, Subscriptions),
        erl_esdb_telemetry:emit(
            ?CLUSTER_LEADER_ELECTED,
            #{system_time => erlang:system_time(millisecond)},
            #{
                store_id => Store,
                leader => node(),
                previous_leader => Previous,
                subscription_count => length(Subscriptions)
            }
        )
    end.

-spec all_events(atom()) -> ok | {error, term()}.
all_events(Store) ->
    try erl_esdb_subscriptions_store:find_by_name(Store, ?ALL_EVENTS) of
        {ok, _, _} -> ok;
        {error, not_found} -> subscribed(Store)
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

%% Who subscribes gets the events until somebody takes them: so that is a process that ends.
-spec subscribed(atom()) -> ok | {error, term()}.
subscribed(Store) ->
    Ref = erl_esdb_task:start(fun() ->
        erl_esdb_subscriptions:subscribe(Store, stream, ~"$all", ?ALL_EVENTS)
    end),
    receive
        {'DOWN', Ref, process, _, {done, {ok, _}}} -> ok;
        {'DOWN', Ref, process, _, {done, {error, {already_exists, _}}}} -> ok;
        {'DOWN', Ref, process, _, {done, {error, Reason}}} -> {error, Reason};
        {'DOWN', Ref, process, _, Reason} -> {error, Reason}
    end.
