-module(erl_esdb_node_monitor).
-moduledoc """
Watches the nodes and the leader of a store.

```erlang
1> erl_esdb_node_monitor:get_members(shop).
{ok,[{shop,'shop@10.0.0.1'}]}
```

| event | when |
|---|---|
| `[erl_esdb, cluster, node, up]` | another node is connected |
| `[erl_esdb, cluster, node, down]` | it is no more |
| `[erl_esdb, cluster, leader, elected]` | another node leads; this one: `m:erl_esdb_leader` |

In mode `cluster` a node that comes up leads to `erl_esdb_store_coordinator:found/1`, and when this
node leads `m:erl_esdb_leader` is activated: but for a store that is alone and empty, which could
not join another one any more with what is written then. A process that is started for a store in
mode `single` looks for the leader once, after a second. One that has other members all the same is
watched, and nothing is done for it (`m:erl_esdb_member_watch`).
""".

-behaviour(gen_server).

-export([start_link/1, start_joined/1, get_members/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Milliseconds.
-define(FIRST_LOOK, 1000).
-define(LEADER_LOOK, 5000).
-define(MEMBERS_LOOK, 10_000).

%% `joined`: in mode single, with other members.
-type mode() :: single | joined | cluster.

-record(state, {
    store :: atom(),
    mode :: mode(),
    leader :: node() | undefined,
    members = [] :: [node()]
}).

-doc "Starts the process, registered as `erl_esdb_naming:node_monitor_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store, mode = Mode}) -> start_link(Store, Mode).

-doc false.
-spec start_joined(store_config()) -> gen_server:start_ret().
start_joined(#store_config{store_id = Store}) -> start_link(Store, joined).

-spec start_link(atom(), mode()) -> gen_server:start_ret().
start_link(Store, Mode) ->
    Name = erl_esdb_naming:node_monitor_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, {Store, Mode}, [])
    end).

-doc "The same as `erl_esdb_store_coordinator:members/1`.".
-spec get_members(Store :: atom()) -> {ok, [{atom(), node()}]} | {error, term()}.
get_members(Store) -> erl_esdb_store_coordinator:members(Store).

-doc false.
-spec init({atom(), mode()}) -> {ok, #state{}}.
init({Store, Mode}) ->
    _ = net_kernel:monitor_nodes(true),
    State = #state{store = Store, mode = Mode, members = members(Store)},
    case Mode of
        single ->
            {ok, later(?FIRST_LOOK, look, State)};
        _ ->
            _ = erl_esdb_cluster:watch_leader(Store),
            self() ! look,
            {ok, later(?MEMBERS_LOOK, members, State)}
    end.

-spec later(pos_integer(), look | members, #state{}) -> #state{}.
later(Time, What, State) ->
    _ = erlang:send_after(Time, self(), What),
    State.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, {error, unknown_request}, #state{}}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({nodeup, Node}, State) ->
    tell(?CLUSTER_NODE_UP, #{node => Node, member_count => count(State)}, State),
    {noreply, up(State)};
handle_info({nodedown, Node}, State) ->
    Metadata = #{node => Node, reason => nodedown, member_count => count(State)},
    tell(?CLUSTER_NODE_DOWN, Metadata, State),
    {noreply, compared(looked(State))};
handle_info(look, #state{mode = single} = State) ->
    {noreply, looked(State)};
handle_info(look, State) ->
    {noreply, later(?LEADER_LOOK, look, looked(State))};
handle_info(members, State) ->
    {noreply, later(?MEMBERS_LOOK, members, compared(State))};
handle_info({erl_esdb_leader, Store, _}, #state{store = Store} = State) ->
    {noreply, looked(State)};
handle_info(_, State) ->
    {noreply, State}.

-spec up(#state{}) -> #state{}.
up(#state{mode = cluster, store = Store} = State) ->
    ok = erl_esdb_store_coordinator:found(Store),
    State;
up(State) ->
    State.

-spec members(atom()) -> [node()].
members(Store) ->
    case erl_esdb_cluster:members(Store) of
        {ok, Members} -> Members;
        {error, _} -> []
    end.

%% Of a store that does not run here nobody says who the members are.
-spec count(#state{}) -> pos_integer().
count(#state{store = Store}) ->
    case members(Store) of
        [] -> length(nodes()) + 1;
        Members -> length(Members)
    end.

-spec compared(#state{}) -> #state{}.
compared(#state{store = Store, members = Before} = State) ->
    case members(Store) of
        Before ->
            State;
        Members ->
            ?LOG_NOTICE("store ~tp: members ~tp", [Store, Members]),
            State#state{members = Members}
    end.

-spec looked(#state{}) -> #state{}.
looked(#state{store = Store, mode = Mode, leader = Before} = State) ->
    case erl_esdb_cluster:leader(Store) of
        {ok, Leader} when Leader =:= node(), Mode =/= joined -> leads(State#state{leader = Leader});
        {ok, Before} -> State;
        {ok, Leader} -> elected(Leader, State);
        %% Who led before is told with the next one.
        {error, _} -> State
    end.

-spec elected(node(), #state{}) -> #state{}.
elected(Leader, #state{leader = Before} = State) ->
    tell(?CLUSTER_LEADER_ELECTED, #{leader => Leader, previous_leader => Before}, State),
    State#state{leader = Leader}.

%% It takes several questions to the store, which may be slow: nobody waits for it. One that fails
%% is made up for by the next look.
-spec leads(#state{}) -> #state{}.
leads(#state{store = Store} = State) ->
    _ = erl_esdb_leader:is_active(Store) orelse may_join(State) orelse
        spawn(fun() -> erl_esdb_leader:activate(Store) end),
    State.

-spec may_join(#state{}) -> boolean().
may_join(#state{mode = single}) ->
    false;
may_join(#state{store = Store}) ->
    erl_esdb_cluster:is_clustered(Store) andalso
        erl_esdb_store_coordinator:should_handle_nodeup(Store) andalso
        erl_esdb_store:next_position(Store, #{consistency => local}) =:= {ok, 0}.

-spec tell(erl_esdb_telemetry:event_name(), map(), #state{}) -> ok.
tell(Event, Metadata, #state{store = Store}) ->
    Measurements = #{system_time => erlang:system_time(millisecond)},
    erl_esdb_telemetry:emit(Event, Measurements, Metadata#{store_id => Store}).
