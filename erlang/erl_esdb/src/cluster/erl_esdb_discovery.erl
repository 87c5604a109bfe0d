-module(erl_esdb_discovery).
-moduledoc """
Finds the other nodes of a cluster: by multicast, by the DNS of Kubernetes, or from a list.

```erlang
1> ok = erl_esdb_discovery:trigger_discovery(shop).
2> erl_esdb_discovery:get_discovered_nodes(shop).
['shop@10.0.0.1']
```

Works in mode `cluster`, on a node that has a name; how is said in
`m:erl_esdb_discovery_config`. A node that is found is connected, and
`erl_esdb_store_coordinator:found/1` has the store join it. Nodes need the same cookie besides: to
be found gives no rights.

With `multicast` a node says its name to a group, and proves with the secret that it may
(`m:erl_esdb_gossip`). What is not proven, or comes again, is ignored. Where the socket cannot be
opened the log says so, and it is tried again with each round.

Telemetry: `[erl_esdb, cluster, node, up]` is told by `m:erl_esdb_node_monitor`; by this process
where that one does not run.
""".

-behaviour(gen_server).

-export([start_link/1, trigger_discovery/1, get_discovered_nodes/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Messages of a socket between two permissions; bytes of a datagram of ours, at most.
-define(ACTIVE, 100).
-define(MAX_DATAGRAM, 2048).
%% Names of nodes that atoms are made of, by one process.
-define(MAX_NODES, 10_000).
%% Milliseconds for an answer of the DNS.
-define(DNS_TIMEOUT, 5000).
%% Until another round where the configuration is no use.
-define(AGAIN, 5000).

-record(state, {
    store :: atom(),
    socket :: gen_udp:socket() | undefined,
    %% what the log has been told
    said :: term(),
    seen = #{} :: erl_esdb_gossip:seen(),
    %% all that were made atoms of, and those that were connected
    known = #{} :: #{binary() => node()},
    found = #{} :: #{node() => true},
    %% processes that connect, and the one that asks the DNS
    connecting = #{} :: #{reference() => node()},
    asking :: reference() | undefined,
    timer :: reference() | undefined
}).

-doc "Starts the process, registered as `erl_esdb_naming:discovery_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store, mode = Mode}) ->
    Name = erl_esdb_naming:discovery_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, {Store, Mode}, [])
    end).

-doc "Begins a round now. Does not wait; nothing in mode `single`.".
-spec trigger_discovery(Store :: atom()) -> ok.
trigger_discovery(Store) -> gen_server:cast(erl_esdb_naming:discovery_name(Store), discover).

-doc "The nodes that were found and connected, sorted; none where the process does not run.".
-spec get_discovered_nodes(Store :: atom()) -> [node()].
get_discovered_nodes(Store) ->
    try
        gen_server:call(erl_esdb_naming:discovery_name(Store), get_nodes)
    catch
        exit:{_, {gen_server, call, _}} -> []
    end.

%% ---- the process

-doc false.
-spec init({atom(), single | cluster}) -> {ok, #state{} | {single, atom()}}.
init({Store, single}) -> {ok, {single, Store}};
init({Store, cluster}) -> {ok, timed(0, #state{store = Store})}.

-spec timed(non_neg_integer(), #state{}) -> #state{}.
timed(Time, #state{timer = Timer} = State) ->
    _ = is_reference(Timer) andalso erlang:cancel_timer(Timer),
    State#state{timer = erlang:start_timer(Time, self(), discover)}.

-doc false.
-spec handle_call(term(), gen_server:from(), State) -> {reply, term(), State} when
    State :: #state{} | {single, atom()}.
handle_call(get_nodes, _From, #state{found = Found} = State) ->
    {reply, lists:sort(maps:keys(Found)), State};
handle_call(get_nodes, _From, State) ->
    {reply, [], State};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), State) -> {noreply, State} when State :: #state{} | {single, atom()}.
handle_cast(discover, #state{} = State) -> {noreply, timed(0, State)};
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), State) -> {noreply, State} when State :: #state{} | {single, atom()}.
handle_info({timeout, Timer, discover}, #state{timer = Timer} = State) ->
    {noreply, discovered(is_alive(), erl_esdb_discovery_config:get(), State)};
handle_info({udp, Socket, _, _, Datagram}, #state{socket = Socket} = State) ->
    {noreply, heard(Datagram, erl_esdb_discovery_config:get(), State)};
handle_info({udp_passive, Socket}, #state{socket = Socket} = State) ->
    ok = inet:setopts(Socket, [{active, ?ACTIVE}]),
    {noreply, State};
handle_info({udp_error, Socket, Reason}, #state{socket = Socket} = State) ->
    {noreply, closed(Reason, State)};
handle_info({'DOWN', Ref, process, _, Reason}, #state{asking = Ref} = State) ->
    {noreply, resolved(Reason, State#state{asking = undefined})};
handle_info({'DOWN', Ref, process, _, Reason}, #state{connecting = Connecting} = State) when
    is_map_key(Ref, Connecting)
->
    {Node, Connecting1} = maps:take(Ref, Connecting),
    {noreply, connected(Reason, Node, State#state{connecting = Connecting1})};
handle_info(_, State) ->
    {noreply, State}.

%% ---- a round

-spec discovered(boolean(), {ok, erl_esdb_discovery_config:config()} | {error, term()}, #state{}) ->
    #state{}.
discovered(false, _, State) ->
    timed(?AGAIN, said(node_without_name, State));
discovered(true, {error, Reason}, State) ->
    timed(?AGAIN, said(Reason, State));
discovered(true, {ok, #{interval := Interval} = Config}, State) ->
    timed(Interval, round(Config, State)).

-spec round(erl_esdb_discovery_config:config(), #state{}) -> #state{}.
round(#{method := multicast} = Config, State) ->
    spoken(Config, opened(Config, State));
round(#{method := k8s_dns} = Config, #state{asking = undefined} = State) ->
    Name = Config#{timeout => ?DNS_TIMEOUT},
    State#state{asking = erl_esdb_task:start(fun() -> erl_esdb_discovery_dns:nodes(Name) end)};
round(#{method := static, nodes := Nodes}, State) ->
    lists:foldl(fun(Node, Acc) -> candidate(atom_to_binary(Node), Acc) end, State, Nodes);
round(_, State) ->
    State.

%% The log is told of a state once.
-spec said(term(), #state{}) -> #state{}.
said(What, #state{said = What} = State) ->
    State;
said(What, #state{store = Store} = State) ->
    What =:= ok orelse ?LOG_WARNING("store ~tp: discovery is passive: ~tp", [Store, What]),
    State#state{said = What}.

%% ---- multicast

-spec opened(erl_esdb_discovery_config:config(), #state{}) -> #state{}.
opened(Config, #state{socket = undefined, store = Store} = State) ->
    #{port := Port, bind := Bind, interface := Interface, multicast_addr := Group} = Config,
    Options = [
        binary,
        {active, ?ACTIVE},
        {reuseaddr, true},
        {ip, Bind},
        {multicast_if, Interface},
        {multicast_ttl, maps:get(multicast_ttl, Config)},
        {multicast_loop, maps:get(multicast_loop, Config)},
        {add_membership, {Group, Interface}}
    ],
    try gen_udp:open(Port, Options) of
        {ok, Socket} ->
            warn_secret(erl_esdb_discovery_config:is_default(Config), Store),
            said(ok, State#state{socket = Socket});
        {error, Reason} ->
            said({Reason, Bind, Port}, State)
    catch
        exit:badarg -> said({badarg, Bind, Port}, State)
    end;
opened(_Config, State) ->
    State.

-spec warn_secret(boolean(), atom()) -> ok.
warn_secret(false, _Store) ->
    ok;
warn_secret(true, Store) ->
    ?LOG_WARNING("store ~tp: the secret of its cluster is the one that everybody knows", [Store]).

-spec closed(term(), #state{}) -> #state{}.
closed(Reason, #state{socket = Socket} = State) ->
    ok = gen_udp:close(Socket),
    said(Reason, State#state{socket = undefined}).

-spec spoken(erl_esdb_discovery_config:config(), #state{}) -> #state{}.
spoken(_Config, #state{socket = undefined} = State) ->
    State;
spoken(Config, #state{socket = Socket, store = Store} = State) ->
    #{port := Port, multicast_addr := Group, proof := Proof, secret := Secret} = Config,
    Datagram = erl_esdb_gossip:encode(Proof, Store, node(), Secret, now_ms()),
    case gen_udp:send(Socket, Group, Port, Datagram) of
        ok -> said(ok, State);
        {error, Reason} -> closed(Reason, State)
    end.

-spec now_ms() -> integer().
now_ms() -> erlang:system_time(millisecond).

-spec heard(binary(), {ok, erl_esdb_discovery_config:config()} | {error, term()}, #state{}) ->
    #state{}.
heard(Datagram, {ok, Config}, #state{store = Store, seen = Seen} = State) when
    byte_size(Datagram) =< ?MAX_DATAGRAM
->
    #{proof := Proof, secret := Secret, window := Window} = Config,
    Name = atom_to_binary(Store),
    Self = atom_to_binary(node()),
    maybe
        {ok, #{store := Of, node := Node} = Told} ?=
            erl_esdb_gossip:decode(Proof, Datagram, Secret),
        true ?= (Of =:= any orelse Of =:= Name) andalso Node =/= Self,
        {ok, Seen1} ?= erl_esdb_gossip:accept(Told, Seen, {now_ms(), Window}),
        candidate(Node, State#state{seen = Seen1})
    else
        false ->
            State;
        {error, Reason} ->
            ?LOG_DEBUG("store ~tp: a datagram was ignored: ~tp", [Store, Reason]),
            State
    end;
heard(_, _, State) ->
    State.

%% ---- names

-spec resolved(term(), #state{}) -> #state{}.
resolved({done, {ok, Names}}, State) ->
    lists:foldl(fun candidate/2, said(ok, State), Names);
resolved({done, {error, Reason}}, State) ->
    said({k8s_dns, Reason}, State);
resolved(Reason, State) ->
    said({k8s_dns, Reason}, State).

%% ---- nodes

-spec candidate(binary(), #state{}) -> #state{}.
candidate(Name, #state{known = Known} = State) ->
    case Known of
        #{Name := Node} -> met(Node, State);
        #{} when map_size(Known) >= ?MAX_NODES -> said(too_many_nodes, State);
        #{} -> named(erl_esdb_gossip:is_node(Name), Name, State)
    end.

-spec named(boolean(), binary(), #state{}) -> #state{}.
named(false, _Name, State) ->
    State;
named(true, Name, #state{known = Known} = State) ->
    Node = binary_to_atom(Name),
    met(Node, State#state{known = Known#{Name => Node}}).

-spec met(node(), #state{}) -> #state{}.
met(Node, #state{found = Found, connecting = Connecting} = State) ->
    Done = is_map_key(Node, Found) andalso lists:member(Node, nodes()),
    case Node =:= node() orelse Done orelse lists:member(Node, maps:values(Connecting)) of
        true ->
            State;
        false ->
            Ref = erl_esdb_task:start(fun() -> net_kernel:connect_node(Node) end),
            State#state{connecting = Connecting#{Ref => Node}}
    end.

-spec connected(term(), node(), #state{}) -> #state{}.
connected({done, true}, Node, #state{store = Store, found = Found} = State) ->
    tell(Node, is_map_key(Node, Found), State),
    ok = erl_esdb_store_coordinator:found(Store),
    State#state{found = Found#{Node => true}};
connected(_, _Node, State) ->
    %% It is found again when it says so, or with the next round.
    State.

-spec tell(node(), Known :: boolean(), #state{}) -> ok.
tell(Node, false, #state{store = Store}) ->
    case whereis(erl_esdb_naming:node_monitor_name(Store)) of
        undefined ->
            erl_esdb_telemetry:emit(
                ?CLUSTER_NODE_UP,
                #{system_time => now_ms()},
                #{store_id => Store, node => Node, member_count => length(nodes()) + 1}
            );
        _ ->
            ok
    end;
tell(_Node, true, _State) ->
    ok.
