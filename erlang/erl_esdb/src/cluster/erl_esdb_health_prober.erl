-module(erl_esdb_health_prober).
-moduledoc """
Asks the other members of a store's cluster again and again whether they live.

```erlang
1> Ref = erl_esdb_health_prober:on_node_failed(shop, fun(Node) -> page(Node) end).
2> erl_esdb_health_prober:get_all_status(shop).
#{'shop@10.0.0.2' => healthy, 'shop@10.0.0.3' => suspect}
```

A node that answers is `healthy`. One that does not is `suspect`, and `failed` after
`failure_threshold` probes in a row, or when its connection breaks. Of one that was not asked yet it
is `unknown`. Where it is not known who the members are, as long as the store does not run, all
connected nodes are asked.

| option | key of the application | default | |
|---|---|---|---|
| `probe_interval` | `health_probe_interval` | 2000 | milliseconds |
| `probe_timeout` | `health_probe_timeout` | 1000 | milliseconds |
| `failure_threshold` | `health_failure_threshold` | 3 | |
| `probe_type` | `health_probe_type` | `rpc` | what a node has to do: see below |

`ping`: be connected; `rpc`: run a function; `deep`, which is the same as `khepri`: have the store
answer. In mode `single` nothing is asked by itself, as long as there are no other members.

Telemetry: `[erl_esdb, health, probe, complete]` after each round,
`[erl_esdb, health, node, failed]` and `recovered`.
""".

-behaviour(gen_server).

-export([start_link/1, get_node_status/2, get_all_status/1, probe_now/1, configure/2]).
-export([on_node_failed/2, on_node_recovered/2, remove_callback/2, health_check/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([status/0, config/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-define(MAX_INTERVAL, 16#FFFFFFFF).

-type status() :: healthy | suspect | failed | unknown.
-type config() :: #{
    probe_interval => pos_integer(),
    probe_timeout => pos_integer(),
    failure_threshold => pos_integer(),
    probe_type => ping | rpc | khepri | deep
}.
-type callback() :: {reference(), failed | recovered, fun((node()) -> term())}.

-record(node, {
    status = unknown :: status(),
    failures = 0 :: non_neg_integer()
}).

-record(state, {
    store :: atom(),
    mode :: single | cluster,
    config :: config(),
    nodes = #{} :: #{node() => #node{}},
    callbacks = [] :: [callback()],
    %% the process that asks
    round :: reference() | undefined,
    timer :: reference() | undefined
}).

-doc "Starts the process, registered as `erl_esdb_naming:health_prober_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store, mode = Mode}) ->
    Name = erl_esdb_naming:health_prober_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, {Store, Mode}, [])
    end).

-doc "What is known of a node. Errors: `unknown_node`, `{store_not_started, Store}`.".
-spec get_node_status(Store :: atom(), node()) ->
    {ok, status()} | {error, unknown_node | {store_not_started | timeout, atom()}}.
get_node_status(Store, Node) when is_atom(Node) -> call(Store, {get, Node});
get_node_status(_, _) -> error(badarg).

-doc "What is known of all of them. Errors: `{store_not_started, Store}`.".
-spec get_all_status(Store :: atom()) ->
    #{node() => status()} | {error, {store_not_started | timeout, atom()}}.
get_all_status(Store) -> call(Store, get_all).

-doc "Asks all now, also in mode `single`. Does not wait.".
-spec probe_now(Store :: atom()) -> ok.
probe_now(Store) -> gen_server:cast(erl_esdb_naming:health_prober_name(Store), probe).

-doc """
Changes options; those that are not named stay. Errors: `{invalid_option, Key, Value}`,
`{store_not_started, Store}`.
""".
-spec configure(Store :: atom(), config()) -> ok | {error, term()}.
configure(Store, Config) when is_map(Config) ->
    case lists:sort([{Key, Value} || Key := Value <- Config, not is_option(Key, Value)]) of
        [] -> call(Store, {configure, Config});
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}}
    end;
configure(_, _) ->
    error(badarg).

-spec is_option(term(), term()) -> boolean().
is_option(failure_threshold, Value) -> is_integer(Value) andalso Value > 0;
is_option(probe_type, Value) -> lists:member(Value, [ping, rpc, khepri, deep]);
is_option(Key, Value) when Key =:= probe_interval; Key =:= probe_timeout -> is_interval(Value);
is_option(_, _) -> false.

-spec is_interval(term()) -> boolean().
is_interval(Value) -> is_integer(Value) andalso Value > 0 andalso Value =< ?MAX_INTERVAL.

-doc """
Has a fun called, in a process of its own, with each node that has failed. Errors:
`{store_not_started, Store}`.
""".
-spec on_node_failed(Store :: atom(), fun((node()) -> term())) ->
    reference() | {error, {store_not_started | timeout, atom()}}.
on_node_failed(Store, Fun) when is_function(Fun, 1) -> call(Store, {add, failed, Fun});
on_node_failed(_, _) -> error(badarg).

-doc "The same with each node that has failed and answers again.".
-spec on_node_recovered(Store :: atom(), fun((node()) -> term())) ->
    reference() | {error, {store_not_started | timeout, atom()}}.
on_node_recovered(Store, Fun) when is_function(Fun, 1) -> call(Store, {add, recovered, Fun});
on_node_recovered(_, _) -> error(badarg).

-doc "Has it called no more; `ok` also for a reference that is not known.".
-spec remove_callback(Store :: atom(), reference()) ->
    ok | {error, {store_not_started | timeout, atom()}}.
remove_callback(Store, Ref) -> call(Store, {remove, Ref}).

-doc "What a node says to the probe `rpc`.".
-spec health_check(Caller :: node()) ->
    {ok, #{
        node := node(),
        caller := node(),
        timestamp := Milliseconds :: integer(),
        memory := non_neg_integer(),
        process_count := pos_integer()
    }}.
health_check(Caller) ->
    {ok, #{
        node => node(),
        caller => Caller,
        timestamp => erlang:system_time(millisecond),
        memory => erlang:memory(total),
        process_count => erlang:system_info(process_count)
    }}.

-spec call(atom(), term()) -> term() | {error, {store_not_started | timeout, atom()}}.
call(Store, Request) ->
    try
        gen_server:call(erl_esdb_naming:health_prober_name(Store), Request)
    catch
        exit:{timeout, _} -> {error, {timeout, Store}};
        exit:{_, {gen_server, call, _}} -> {error, {store_not_started, Store}}
    end.

%% ---- the process

-doc false.
-spec init({atom(), single | cluster}) -> {ok, #state{}}.
init({Store, Mode}) ->
    _ = net_kernel:monitor_nodes(true),
    Config = #{
        probe_interval => erl_esdb_config:get_env(health_probe_interval, 2000),
        probe_timeout => erl_esdb_config:get_env(health_probe_timeout, 1000),
        failure_threshold => erl_esdb_config:get_env(health_failure_threshold, 3),
        probe_type => erl_esdb_config:get_env(health_probe_type, rpc)
    },
    {ok, timed(#state{store = Store, mode = Mode, config = Config})}.

-spec timed(#state{}) -> #state{}.
timed(#state{mode = single} = State) ->
    State;
timed(#state{timer = undefined, config = #{probe_interval := Interval}} = State) ->
    State#state{timer = erlang:start_timer(Interval, self(), probe)};
timed(#state{timer = Timer} = State) ->
    _ = erlang:cancel_timer(Timer),
    timed(State#state{timer = undefined}).

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({get, Node}, _From, #state{nodes = Nodes} = State) ->
    case Nodes of
        #{Node := #node{status = Status}} -> {reply, {ok, Status}, State};
        #{} -> {reply, {error, unknown_node}, State}
    end;
handle_call(get_all, _From, #state{nodes = Nodes} = State) ->
    {reply, #{Node => Status || Node := #node{status = Status} <- Nodes}, State};
handle_call({configure, Changes}, _From, #state{config = Config} = State) ->
    {reply, ok, timed(State#state{config = maps:merge(Config, Changes)})};
handle_call({add, When, Fun}, _From, #state{callbacks = Callbacks} = State) ->
    Ref = make_ref(),
    {reply, Ref, State#state{callbacks = [{Ref, When, Fun} | Callbacks]}};
handle_call({remove, Ref}, _From, #state{callbacks = Callbacks} = State) ->
    {reply, ok, State#state{callbacks = lists:keydelete(Ref, 1, Callbacks)}};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(probe, State) -> {noreply, asked(State)};
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({timeout, Timer, probe}, #state{timer = Timer} = State) ->
    {noreply, timed(asked(State#state{timer = undefined}))};
handle_info({'DOWN', Ref, process, _, Reason}, #state{round = Ref} = State) ->
    {noreply, judged(Reason, State#state{round = undefined})};
handle_info({nodeup, Node}, #state{nodes = Nodes} = State) ->
    {noreply, State#state{nodes = maps:merge(#{Node => #node{}}, Nodes)}};
handle_info({nodedown, Node}, #state{nodes = Nodes} = State) when is_map_key(Node, Nodes) ->
    {noreply, down(Node, State)};
handle_info(_, State) ->
    {noreply, State}.

%% ---- a round

%% One at a time: nodes that do not answer do not pile up processes.
-spec asked(#state{}) -> #state{}.
asked(#state{round = undefined, store = Store, config = Config} = State) ->
    Targets = targets(Store),
    Ref = erl_esdb_task:start(fun() ->
        Begin = erlang:monotonic_time(microsecond),
        Answers = lists:zip(Targets, probe(Targets, Store, Config)),
        {Answers, erlang:monotonic_time(microsecond) - Begin}
    end),
    State#state{round = Ref};
asked(State) ->
    State.

-spec targets(atom()) -> [node()].
targets(Store) ->
    case erl_esdb_cluster:members(Store) of
        {ok, Members} -> lists:delete(node(), Members);
        {error, _} -> nodes()
    end.

-spec probe([node()], atom(), config()) -> [boolean()].
probe(Nodes, _Store, #{probe_type := rpc, probe_timeout := Timeout}) ->
    answers(Nodes, {?MODULE, health_check, [node()]}, Timeout);
probe(Nodes, _Store, #{probe_type := ping, probe_timeout := Timeout}) ->
    pings(Nodes, erl_esdb_deadline:in(Timeout));
probe(Nodes, Store, #{probe_timeout := Timeout}) ->
    answers(Nodes, {erl_esdb_cluster, view, [Store]}, Timeout).

-spec answers([node()], {module(), atom(), [term()]}, timeout()) -> [boolean()].
answers(Nodes, {Module, Function, Args}, Timeout) ->
    Answers = erpc:multicall(Nodes, Module, Function, Args, Timeout),
    [is_answer(Answer) || Answer <- Answers].

-spec is_answer(term()) -> boolean().
is_answer({ok, {ok, _}}) -> true;
is_answer(_) -> false.

%% A ping to a node that cannot be reached takes as long as a connection may take to be made.
-spec pings([node()], erl_esdb_deadline:deadline()) -> [boolean()].
pings(Nodes, Until) ->
    Pings = [erl_esdb_task:start(fun() -> net_adm:ping(Node) end) || Node <- Nodes],
    [pong(Ping, Until) || Ping <- Pings].

%% One that takes longer ends with its connection.
-spec pong(reference(), erl_esdb_deadline:deadline()) -> boolean().
pong(Ref, Until) ->
    receive
        {'DOWN', Ref, process, _, Reason} -> Reason =:= {done, pong}
    after erl_esdb_deadline:left(Until) ->
        true = demonitor(Ref, [flush]),
        false
    end.

%% Who is no member any more is forgotten.
-spec judged(term(), #state{}) -> #state{}.
judged({done, {Answers, Duration}}, #state{store = Store, nodes = Nodes} = State) ->
    Known = maps:with([Node || {Node, _} <- Answers], Nodes),
    State1 = lists:foldl(fun judged_node/2, State#state{nodes = Known}, Answers),
    Good = length([Node || {Node, true} <- Answers]),
    erl_esdb_telemetry:emit(
        ?HEALTH_PROBE_COMPLETE,
        #{
            duration_us => Duration,
            success_count => Good,
            failure_count => length(Answers) - Good
        },
        #{store_id => Store}
    ),
    State1;
judged(Reason, #state{store = Store} = State) ->
    ?LOG_WARNING("store ~tp: the nodes could not be asked: ~tP", [Store, Reason, 20]),
    State.

-spec judged_node({node(), boolean()}, #state{}) -> #state{}.
judged_node({Node, true}, #state{nodes = Nodes} = State) ->
    _ = status(Node, Nodes) =:= failed andalso told(recovered, Node, #{}, State),
    State#state{nodes = Nodes#{Node => #node{status = healthy}}};
judged_node({Node, false}, #state{nodes = Nodes, config = Config} = State) ->
    #node{status = Status, failures = Before} = maps:get(Node, Nodes, #node{}),
    #{failure_threshold := Threshold} = Config,
    case {Status, Before + 1} of
        {failed, N} -> failures(Node, failed, N, State);
        {_, N} when N >= Threshold -> failed(Node, N, State);
        {_, N} -> failures(Node, suspect, N, State)
    end.

-spec status(node(), #{node() => #node{}}) -> status().
status(Node, Nodes) ->
    #node{status = Status} = maps:get(Node, Nodes, #node{}),
    Status.

-spec failures(node(), status(), pos_integer(), #state{}) -> #state{}.
failures(Node, Status, Count, #state{nodes = Nodes} = State) ->
    State#state{nodes = Nodes#{Node => #node{status = Status, failures = Count}}}.

-spec failed(node(), pos_integer(), #state{}) -> #state{}.
failed(Node, Count, State) ->
    told(failed, Node, #{consecutive_failures => Count}, State),
    failures(Node, failed, Count, State).

-spec down(node(), #state{}) -> #state{}.
down(Node, #state{nodes = Nodes} = State) ->
    case maps:get(Node, Nodes) of
        #node{status = failed} -> State;
        #node{failures = Before} -> failed(Node, Before + 1, State)
    end.

-spec told(failed | recovered, node(), map(), #state{}) -> ok.
told(What, Node, Measurements, #state{store = Store, callbacks = Callbacks}) ->
    erl_esdb_telemetry:emit(
        event(What),
        Measurements#{system_time => erlang:system_time(millisecond)},
        #{store_id => Store, node => Node}
    ),
    Call = fun(Fun) -> spawn(fun() -> Fun(Node) end) end,
    lists:foreach(Call, [Fun || {_, When, Fun} <- Callbacks, When =:= What]).

-spec event(failed | recovered) -> erl_esdb_telemetry:event_name().
event(failed) -> ?HEALTH_NODE_FAILED;
event(recovered) -> ?HEALTH_NODE_RECOVERED.
