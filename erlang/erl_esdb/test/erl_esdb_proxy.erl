-module(erl_esdb_proxy).
-moduledoc """
The network between nodes: whatever one sends to another goes through sockets of this one, and is
let pass, held or delayed, each direction for itself.

```erlang
1> Proxy = erl_esdb_proxy:start([n1, n2]).
2> Port = erl_esdb_proxy:port(Proxy, n1, n2).        % what n1 dials to reach n2
3> ok = erl_esdb_proxy:target(Proxy, n2, 40002).     % where n2 listens
4> ok = erl_esdb_proxy:flow(Proxy, [{n1, n2}, {n2, n1}], hold).
```

What is held is not lost: it goes on when the flow is `pass` again, as what TCP sends again after a
partition. While it is held a new connection is accepted and hears nothing. `acted/1` counts what
was held or delayed, so that a test knows that there was anything.
""".

-behaviour(gen_server).

-export([start/1, stop/1, port/3, target/3, flow/3, flow_of/2, reset/2, acted/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([proxy/0, way/0, flow/0]).

-type proxy() :: pid().
-type name() :: atom().
-doc "Who sends, and who is to get it.".
-type way() :: {name(), name()}.
-type flow() :: pass | hold | {delay, Milliseconds :: pos_integer()}.

-record(state, {
    %% {{flow, way()}, flow()}, {{target, name()}, Port}, {acted, Count}
    table :: ets:table(),
    ports :: #{way() => inet:port_number()},
    %% processes that carry what goes between two
    relays = #{} :: #{pid() => way()}
}).

-define(OPTIONS, [binary, {active, false}, {nodelay, true}, {ip, {127, 0, 0, 1}}]).

-doc "Starts the network of these nodes. It ends with this process.".
-spec start([name()]) -> proxy().
start(Names) ->
    {ok, Proxy} = gen_server:start_link(?MODULE, Names, []),
    Proxy.

-spec stop(proxy()) -> ok.
stop(Proxy) -> gen_server:stop(Proxy).

-doc "The port that one node dials for another.".
-spec port(proxy(), From :: name(), To :: name()) -> inet:port_number().
port(Proxy, From, To) -> gen_server:call(Proxy, {port, {From, To}}).

-doc "Where a node listens in this life of it.".
-spec target(proxy(), name(), inet:port_number()) -> ok.
target(Proxy, Name, Port) -> gen_server:call(Proxy, {target, Name, Port}).

-doc "What is done from now on with what is sent this way.".
-spec flow(proxy(), [way()], flow()) -> ok.
flow(Proxy, Ways, Flow) -> gen_server:call(Proxy, {flow, Ways, Flow}).

-doc "What is done with it now.".
-spec flow_of(proxy(), way()) -> flow().
flow_of(Proxy, Way) -> gen_server:call(Proxy, {flow_of, Way}).

-doc "Closes the connections between two nodes.".
-spec reset(proxy(), way()) -> ok.
reset(Proxy, Way) -> gen_server:call(Proxy, {reset, Way}).

-doc "How often something was held or delayed.".
-spec acted(proxy()) -> non_neg_integer().
acted(Proxy) -> gen_server:call(Proxy, acted).

-spec init([name()]) -> {ok, #state{}}.
init(Names) ->
    _ = process_flag(trap_exit, true),
    Table = ets:new(?MODULE, [public]),
    true = ets:insert(Table, {acted, 0}),
    Ports = #{{A, B} => listen(Table, {A, B}) || A <- Names, B <- Names, A =/= B},
    {ok, #state{table = Table, ports = Ports}}.

handle_call({port, Way}, _From, State) ->
    {reply, map_get(Way, State#state.ports), State};
handle_call({target, Name, Port}, _From, #state{table = Table} = State) ->
    true = ets:insert(Table, {{target, Name}, Port}),
    {reply, ok, State};
handle_call({flow, Ways, Flow}, _From, #state{table = Table, relays = Relays} = State) ->
    true = ets:insert(Table, [{{flow, Way}, Flow} || Way <- Ways]),
    _ = [Relay ! flow_changed || Relay := _ <- Relays],
    {reply, ok, State};
handle_call({flow_of, Way}, _From, #state{table = Table} = State) ->
    {reply, ets:lookup_element(Table, {flow, Way}, 2, pass), State};
handle_call({reset, {A, B}}, _From, #state{relays = Relays} = State) ->
    _ = [exit(Relay, kill) || Relay := Way <- Relays, Way =:= {A, B} orelse Way =:= {B, A}],
    {reply, ok, State};
handle_call(acted, _From, #state{table = Table} = State) ->
    {reply, ets:lookup_element(Table, acted, 2), State};
handle_call({carries, Way}, {Relay, _}, #state{relays = Relays} = State) ->
    _ = monitor(process, Relay),
    {reply, ok, State#state{relays = Relays#{Relay => Way}}}.

handle_cast(_, State) -> {noreply, State}.

handle_info({'DOWN', _, process, Relay, _}, #state{relays = Relays} = State) ->
    {noreply, State#state{relays = maps:remove(Relay, Relays)}};
handle_info({'EXIT', _, _}, State) ->
    {noreply, State}.

%% ---- connections

-spec listen(ets:table(), way()) -> inet:port_number().
listen(Table, Way) ->
    Proxy = self(),
    Acceptor = spawn_link(fun() ->
        {ok, Listen} = gen_tcp:listen(0, [{reuseaddr, true}, {backlog, 64} | ?OPTIONS]),
        {ok, Port} = inet:port(Listen),
        Proxy ! {self(), Port},
        accept(Proxy, Table, Way, Listen)
    end),
    receive
        {Acceptor, Port} -> Port
    end.

-spec accept(proxy(), ets:table(), way(), gen_tcp:socket()) -> no_return().
accept(Proxy, Table, Way, Listen) ->
    {ok, Socket} = gen_tcp:accept(Listen),
    Relay = spawn(fun() ->
        receive
            yours -> relay(Proxy, Table, Way, Socket)
        end
    end),
    _ = gen_tcp:controlling_process(Socket, Relay),
    Relay ! yours,
    accept(Proxy, Table, Way, Listen).

%% The sockets are this process's: they close when it ends, for whatever reason.
-spec relay(proxy(), ets:table(), way(), gen_tcp:socket()) -> ok.
relay(Proxy, Table, {From, To}, Socket) ->
    _ = monitor(process, Proxy),
    maybe
        [{_, Port}] ?= ets:lookup(Table, {target, To}),
        {ok, Other} ?= gen_tcp:connect({127, 0, 0, 1}, Port, ?OPTIONS),
        Pumps = [
            pump(Proxy, Table, {From, To}, Socket, Other),
            pump(Proxy, Table, {To, From}, Other, Socket)
        ],
        receive
            {'DOWN', _, process, _, _} -> lists:foreach(fun(Pump) -> exit(Pump, kill) end, Pumps)
        end
    else
        _ -> ok
    end.

-spec pump(proxy(), ets:table(), way(), gen_tcp:socket(), gen_tcp:socket()) -> pid().
pump(Proxy, Table, Way, In, Out) ->
    {Pump, _} = spawn_monitor(fun() ->
        ok = gen_server:call(Proxy, {carries, Way}),
        pumping(Table, Way, In, Out)
    end),
    Pump.

-spec pumping(ets:table(), way(), gen_tcp:socket(), gen_tcp:socket()) -> ok.
pumping(Table, Way, In, Out) ->
    maybe
        {ok, Bytes} ?= gen_tcp:recv(In, 0),
        ok = gate(Table, Way),
        ok ?= gen_tcp:send(Out, Bytes),
        pumping(Table, Way, In, Out)
    else
        _ -> gate(Table, Way)
    end.

%% The end of a connection is held like what is sent.
-spec gate(ets:table(), way()) -> ok.
gate(Table, Way) ->
    case ets:lookup_element(Table, {flow, Way}, 2, pass) of
        pass ->
            ok;
        hold ->
            _ = ets:update_counter(Table, acted, 1),
            held(Table, Way);
        {delay, Time} ->
            _ = ets:update_counter(Table, acted, 1),
            receive
            after Time -> ok
            end
    end.

-spec held(ets:table(), way()) -> ok.
held(Table, Way) ->
    receive
        flow_changed -> ok
    end,
    case ets:lookup_element(Table, {flow, Way}, 2, pass) of
        hold -> held(Table, Way);
        _ -> ok
    end.
