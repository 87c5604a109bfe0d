-module(erl_esdb_store_coordinator).
-moduledoc """
Finds the cluster that a store of this node belongs to, and has it join.

```erlang
1> erl_esdb_store_coordinator:join_cluster(shop).
ok
2> erl_esdb_store_coordinator:members(shop).
{ok,[{shop,'shop@10.0.0.1'},{shop,'shop@10.0.0.2'}]}
```

A store in mode `cluster` has a process of this kind, which also joins by itself, when the store
starts and when another node comes up: as long as it is alone, and where both are, the node with the
higher name joins the other. Who waits for others looks again: they may belong to a cluster by then.
What is refused is tried again, more and more rarely.
""".

-behaviour(gen_server).

-export([start_link/1, join_cluster/1, join_cluster/2, should_handle_nodeup/1]).
-export([members/1, leader/1, is_leader/1, found/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([outcome/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").

%% Milliseconds: for the question who has the store; until who waits looks again; and until the next
%% try, twice as many each time up to the last.
-define(ASK, 5000).
-define(LOOK, 2000).
-define(AGAIN, 1000).
-define(LONGEST, 60_000).

-record(state, {
    store :: atom(),
    timer :: reference() | undefined,
    %% after how long it is tried again
    delay = ?AGAIN :: pos_integer()
}).

-doc """
`ok`: it is a member. Where nobody has the store: `coordinator` for the node with the lowest name,
`waiting` for the others; `no_nodes` where there are no others. `failed`: the log has the reason.
""".
-type outcome() :: ok | coordinator | no_nodes | waiting | failed.

-doc "Starts the process, registered as `erl_esdb_naming:coordinator_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store}) ->
    Name = erl_esdb_naming:coordinator_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, Store, [])
    end).

-doc """
Has a store join the cluster that connected nodes have of it; where there are several, the largest.
It returns when the store is a member, which may take its time where much is to be copied: see
`erl_esdb_cluster:join/3`. Errors: `{store_not_started, Store}` where there is neither a store nor
this process.
""".
-spec join_cluster(Store :: atom()) -> outcome() | {error, {store_not_started, atom()}}.
join_cluster(Store) ->
    try
        gen_server:call(erl_esdb_naming:coordinator_name(Store), join, infinity)
    catch
        exit:{_, {gen_server, call, _}} -> join_without(erl_esdb_store:is_ready(Store), Store)
    end.

%% A store in mode single has no such process.
-spec join_without(boolean(), atom()) -> outcome() | {error, {store_not_started, atom()}}.
join_without(true, Store) -> joined(asked, Store);
join_without(false, Store) -> {error, {store_not_started, Store}}.

-doc "Has a store join the cluster of a node. Errors as `erl_esdb_cluster:join/3`.".
-spec join_cluster(Store :: atom(), node()) -> ok | {error, term()}.
join_cluster(Store, Node) -> erl_esdb_cluster:join(Store, Node).

-doc "Whether the store is alone here, and would join one that comes up.".
-spec should_handle_nodeup(Store :: atom()) -> boolean().
should_handle_nodeup(Store) ->
    case erl_esdb_cluster:members(Store) of
        {ok, [_, _ | _]} -> false;
        _ -> true
    end.

-doc "The members of the cluster, sorted. Errors: the failures of a store.".
-spec members(Store :: atom()) -> {ok, [{atom(), node()}]} | {error, erl_esdb_store:failure()}.
members(Store) ->
    case erl_esdb_cluster:members(Store) of
        {ok, Nodes} -> {ok, [{Store, Node} || Node <- Nodes]};
        {error, Reason} -> {error, Reason}
    end.

-doc "The node that leads. Errors: `no_leader`, also where the store does not run.".
-spec leader(Store :: atom()) -> {ok, node()} | {error, no_leader}.
leader(Store) ->
    case erl_esdb_cluster:leader(Store) of
        {ok, Leader} -> {ok, Leader};
        {error, _} -> {error, no_leader}
    end.

-doc "Whether this node leads.".
-spec is_leader(Store :: atom()) -> boolean().
is_leader(Store) -> erl_esdb_cluster:is_leading(Store).

-doc "Says that another node is there: the store joins by itself if it is alone. Does not wait.".
-spec found(Store :: atom()) -> ok.
found(Store) -> gen_server:cast(erl_esdb_naming:coordinator_name(Store), found).

%% ---- the process

-doc false.
-spec init(atom()) -> {ok, #state{}}.
init(Store) ->
    ok = gen_server:cast(self(), found),
    {ok, #state{store = Store}}.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(join, _From, #state{store = Store} = State) -> {reply, joined(asked, Store), State};
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(found, State) -> {noreply, by_itself(State#state{delay = ?AGAIN})};
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({timeout, Timer, again}, #state{timer = Timer} = State) ->
    {noreply, by_itself(State#state{timer = undefined})};
handle_info(_, State) ->
    {noreply, State}.

-spec by_itself(#state{}) -> #state{}.
by_itself(#state{store = Store, delay = Delay} = State) ->
    case may_join(Store) andalso joined(alone, Store) of
        failed -> again(Delay, State#state{delay = min(?LONGEST, 2 * Delay)});
        Waits when Waits =:= coordinator; Waits =:= waiting -> again(?LOOK, State);
        _ -> State
    end.

-spec may_join(atom()) -> boolean().
may_join(Store) -> erl_esdb_cluster:is_clustered(Store) andalso should_handle_nodeup(Store).

-spec again(pos_integer(), #state{}) -> #state{}.
again(Delay, #state{timer = undefined} = State) ->
    State#state{timer = erlang:start_timer(Delay, self(), again)};
again(_Delay, State) ->
    State.

%% ---- joining

-type found() :: [{node(), erl_esdb_engine:view()}].

%% `asked': by somebody; `alone': by itself, when both may be about to join each other.
-spec joined(asked | alone, atom()) -> outcome().
joined(How, Store) ->
    case {should_handle_nodeup(Store), nodes()} of
        {false, _} -> ok;
        {true, []} -> no_nodes;
        {true, Nodes} -> joined(How, Store, who_has(Store, Nodes))
    end.

-spec joined(asked | alone, atom(), {found(), Others :: [node()]}) ->
    ok | coordinator | waiting | failed.
joined(_How, _Store, {[], Others}) ->
    case node() =:= lists:min([node() | Others]) of
        true -> coordinator;
        false -> waiting
    end;
joined(How, Store, {Found, _}) ->
    {Node, #{members := Members}} = largest(Found),
    case How =:= alone andalso length(Members) =:= 1 andalso node() < Node of
        true -> coordinator;
        false -> outcome(erl_esdb_cluster:join(Store, Node), Store, Node)
    end.

-spec outcome(ok | {error, term()}, atom(), node()) -> ok | failed.
outcome(ok, _Store, _Node) ->
    ok;
outcome({error, Reason}, Store, Node) ->
    ?LOG_WARNING("store ~tp: it does not join ~tp: ~tP", [Store, Node, Reason, 20]),
    failed.

-spec largest(found()) -> {node(), erl_esdb_engine:view()}.
largest(Found) ->
    [{_, Node, View} | _] = lists:sort([{-length(M), N, V} || {N, #{members := M} = V} <- Found]),
    {Node, View}.

%% Who has the store, and all others with this application: a node without it is none of a cluster.
-spec who_has(atom(), [node()]) -> {found(), [node()]}.
who_has(Store, Nodes) ->
    Answers = lists:zip(Nodes, erpc:multicall(Nodes, erl_esdb_cluster, view, [Store], ?ASK)),
    {
        [{Node, View} || {Node, {ok, {ok, View}}} <- Answers],
        [Node || {Node, {ok, {error, _}}} <- Answers]
    }.
