-module(esdb_demo_nodes).
-moduledoc """
Three nodes on this machine with one store, each with a folder of its own; they can be killed and
started again.

They speak to each other over the loopback interface, with a cookie that nobody else knows, and end
with this node. This node has no name: it calls them over connections of its own.

```erlang
1> {ok, Nodes} = esdb_demo_nodes:start("/tmp/three", demo).
2> esdb_demo_nodes:call(Nodes, 2, erl_esdb, members, [demo]).
{ok,{ok,['demo_1@127.0.0.1','demo_2@127.0.0.1','demo_3@127.0.0.1']}}
3> ok = esdb_demo_nodes:kill(Nodes, 1).
4> ok = esdb_demo_nodes:revive(Nodes, 1).
```
""".

-export([start/2, stop/1, kill/2, revive/2, call/5, name/1, numbers/0, leader/1]).
-export_type([nodes/0, member/0]).

-type member() :: 1..3.

-record(nodes, {
    folder :: file:filename(),
    store :: atom(),
    cookie :: string(),
    %% {Number, Peer | down}
    table :: ets:table()
}).

-opaque nodes() :: #nodes{}.

%% Milliseconds: for a node to boot, for a call, and between two looks.
-define(BOOT, 60_000).
-define(CALL, 60_000).
-define(LOOK, 50).

-doc "The numbers of the nodes.".
-spec numbers() -> [member(), ...].
numbers() -> [1, 2, 3].

-doc "The name of a node.".
-spec name(member()) -> node().
name(1) -> 'demo_1@127.0.0.1';
name(2) -> 'demo_2@127.0.0.1';
name(3) -> 'demo_3@127.0.0.1'.

-doc """
Starts the nodes, and on them a store on disk of which they are the members. Errors: why a node or
the store does not start.
""".
-spec start(Folder :: file:filename(), Store :: atom()) -> {ok, nodes()} | {error, term()}.
start(Folder, Store) ->
    Cookie = binary_to_list(binary:encode_hex(crypto:strong_rand_bytes(16))),
    Nodes = #nodes{
        folder = filename:absname(Folder),
        store = Store,
        cookie = Cookie,
        table = ets:new(?MODULE, [public])
    },
    true = ets:insert(Nodes#nodes.table, [{Number, down} || Number <- numbers()]),
    maybe
        ok ?= all(fun(Number) -> revive(Nodes, Number) end, numbers()),
        ok ?= all(fun(Number) -> joined(Nodes, Number) end, [2, 3]),
        {ok, Nodes}
    else
        {error, Reason} ->
            ok = stop(Nodes),
            {error, Reason}
    end.

-spec all(fun((member()) -> ok | {error, term()}), [member()]) -> ok | {error, term()}.
all(_Fun, []) ->
    ok;
all(Fun, [Number | Numbers]) ->
    maybe
        ok ?= Fun(Number),
        all(Fun, Numbers)
    end.

-spec joined(nodes(), member()) -> ok | {error, term()}.
joined(#nodes{store = Store} = Nodes, Number) ->
    case call(Nodes, Number, erl_esdb, join, [Store, name(1)]) of
        {ok, Answer} -> Answer;
        {error, Why} -> {error, {Why, name(Number)}}
    end.

-doc "Starts a node that does not run, and the store on it with what its folder has.".
-spec revive(nodes(), member()) -> ok | {error, term()}.
revive(#nodes{table = Table} = Nodes, Number) ->
    [{Number, down}] = ets:lookup(Table, Number),
    maybe
        ok ?= filelib:ensure_path(names(Nodes)),
        {ok, Peer, _} ?= peer:start(options(Nodes, Number)),
        true = ets:insert(Table, {Number, Peer}),
        opened(Nodes, Number)
    end.

-spec opened(nodes(), member()) -> ok | {error, term()}.
opened(#nodes{store = Store, folder = Folder} = Nodes, Number) ->
    Dir = filename:join(Folder, atom_to_list(name(Number))),
    Options = #{engine => ra, mode => cluster, data_dir => Dir},
    maybe
        {ok, {ok, _}} ?= call(Nodes, Number, application, ensure_all_started, [erl_esdb]),
        {ok, {ok, _}} ?= call(Nodes, Number, erl_esdb, start_store, [Store, Options]),
        ok
    else
        {ok, {error, Reason}} -> {error, Reason};
        {error, Reason} -> {error, {Reason, name(Number)}}
    end.

-spec options(nodes(), member()) -> map().
options(#nodes{cookie = Cookie} = Nodes, Number) ->
    [Name, Host] = string:split(atom_to_list(name(Number)), "@"),
    #{
        name => Name,
        host => Host,
        longnames => true,
        connection => {{127, 0, 0, 1}, 0},
        env => [{"ESDB_DEMO_NAMES", names(Nodes)}],
        args =>
            ["-pa" | code:get_path()] ++
            ["-start_epmd", "false", "-epmd_module", "esdb_demo_epmd", "-setcookie", Cookie] ++
            ["-kernel", "inet_dist_use_interface", "{127,0,0,1}", "logger_level", "none"] ++
            ["-kernel", "prevent_overlapping_partitions", "false"] ++
            %% They are told of each other.
            ["-erl_esdb", "discovery", "[{method,none}]"],
        wait_boot => ?BOOT
    }.

-spec names(nodes()) -> file:filename().
names(#nodes{folder = Folder}) -> Folder ++ "/names".

-doc "Ends all nodes.".
-spec stop(nodes()) -> ok.
stop(#nodes{table = Table}) ->
    lists:foreach(fun peer:stop/1, [Peer || {_, Peer} <- ets:tab2list(Table), is_pid(Peer)]),
    true = ets:delete(Table),
    ok.

-doc "Ends a node as `kill -9` does. Returns when its process is gone.".
-spec kill(nodes(), member()) -> ok.
kill(#nodes{table = Table} = Nodes, Number) ->
    [{Number, Peer}] = ets:lookup(Table, Number),
    {ok, Pid} = call(Nodes, Number, os, getpid, []),
    Ref = monitor(process, Peer),
    {ok, 0, _} = esdb_demo_program:run("sh", ["-c", "kill -9 " ++ Pid], ?BOOT),
    receive
        {'DOWN', Ref, process, Peer, _} -> ok
    end,
    true = ets:insert(Table, {Number, down}),
    ok.

-doc """
Calls a function on a node. `down`: it does not run; `gone`: it ended during the call, or did not
answer, and what became of the call is not known.
""".
-spec call(nodes(), member(), module(), atom(), [term()]) -> {ok, term()} | {error, down | gone}.
call(#nodes{table = Table}, Number, Module, Function, Arguments) ->
    case ets:lookup_element(Table, Number, 2) of
        down ->
            {error, down};
        Peer ->
            try
                {ok, peer:call(Peer, Module, Function, Arguments, ?CALL)}
            catch
                exit:_ -> {error, gone}
            end
    end.

-doc "The number of the node that leads, as soon as those that run know one.".
-spec leader(nodes()) -> member().
leader(#nodes{store = Store} = Nodes) ->
    Said = [call(Nodes, Number, erl_esdb, leader, [Store]) || Number <- numbers()],
    case [N || {ok, {ok, Node}} <- Said, N <- numbers(), name(N) =:= Node] of
        [Leader | _] ->
            Leader;
        [] ->
            receive
            after ?LOOK -> leader(Nodes)
            end
    end.
