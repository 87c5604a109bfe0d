-module(erl_esdb_fault_nodes).
-moduledoc """
Real nodes on this machine, that can be killed, frozen, cut off from each other, and given bad
disks.

```erlang
1> Nodes = erl_esdb_fault_nodes:start([n1, n2, n3], #{dir => "/tmp/x"}).
2> erl_esdb_fault_nodes:call(Nodes, n1, erlang, nodes, []).
3> ok = erl_esdb_fault_nodes:kill(Nodes, n2).
4> ok = erl_esdb_fault_nodes:boot(Nodes, n2).
5> ok = erl_esdb_fault_nodes:cut(Nodes, [n1]).
```

Each is an operating system process, called over a connection of its own to this node, which no
fault touches. What they say to each other goes through `m:erl_esdb_proxy`, or through a network of
their own (`m:erl_esdb_netns`). This node is not one of theirs and need not be distributed.

A node that is booted again has its name and its folder (`dir/2`), and is another life of it: the
name of a target is `{Name, Life}`.
""".

-export([start/2, stop/1, boot/2, kill/2, freeze/2, thaw/2, hide/2, show/2]).
-export([names/1, up/1, dir/2, node_of/2, said/2]).
-export([call/5, call/6, targets/1, via/2, proxy/1, acted/1, disk/2]).
-export([cut/2, cut_one_way/2, delay/3, heal/1]).
-export_type([nodes/0, options/0]).

-doc """
`dir`: where the nodes have their folders. `library`: of a disk that fails (`m:erl_esdb_disk`); each
node has one then. `args`, `env`: of each node. `ticktime`: in seconds, when a node that is not
heard is given up. `namespaces`: they have a network of their own; nothing can be delayed there.
""".
-type options() :: #{
    dir := file:filename(),
    library => file:filename(),
    args => [string()],
    env => [{string(), string()}],
    ticktime => pos_integer(),
    namespaces => boolean()
}.
-record(nodes, {
    options :: options(),
    names :: [atom()],
    network :: {proxy, erl_esdb_proxy:proxy()} | {namespaces, erl_esdb_netns:net()},
    %% {Name, Life, Peer, OsPid, up | down | frozen} and {{hidden, Name}}
    table :: ets:table(),
    disks :: #{atom() => erl_esdb_disk:disk()}
}).
-opaque nodes() :: #nodes{}.

%% Milliseconds: for a node to start, and for a call.
-define(BOOT, 60_000).
-define(CALL, 8_000).
-define(COOKIE, "faults").
%% Lines of its log.
-define(SAID, 200).
%% Where a node with a network of its own listens.
-define(PORT, 40_000).

-doc "Starts nodes. The network and what is known of the nodes end with this process.".
-spec start([atom(), ...], options()) -> nodes().
start(Names, #{dir := Dir} = Options) ->
    Nodes = #nodes{
        options = Options,
        names = Names,
        network = network(Names, Options),
        table = ets:new(?MODULE, [public]),
        disks = #{
            Name => erl_esdb_disk:new(
                Library, filename:join(Dir, Name), filename:join([Dir, "disks", Name])
            )
         || #{library := Library} <- [Options], Name <- Names
        }
    },
    true = ets:insert(Nodes#nodes.table, [{Name, 0, none, none, down} || Name <- Names]),
    ok = lists:foreach(fun(Name) -> boot(Nodes, Name) end, Names),
    Nodes.

-spec network([atom(), ...], options()) ->
    {proxy, erl_esdb_proxy:proxy()} | {namespaces, erl_esdb_netns:net()}.
network(Names, #{namespaces := true}) -> {namespaces, erl_esdb_netns:start(Names)};
network(Names, #{}) -> {proxy, erl_esdb_proxy:start(Names)}.

-spec stop(nodes()) -> ok.
stop(#nodes{names = Names, network = Network, table = Table} = Nodes) ->
    ok = lists:foreach(fun(Name) -> kill(Nodes, Name) end, Names),
    true = ets:delete(Table),
    case Network of
        {proxy, Proxy} -> erl_esdb_proxy:stop(Proxy);
        {namespaces, Net} -> erl_esdb_netns:stop(Net)
    end.

-doc "Starts a node that is down.".
-spec boot(nodes(), atom()) -> ok.
boot(#nodes{options = Options, table = Table} = Nodes, Name) ->
    [{Name, Life, _, _, down}] = ets:lookup(Table, Name),
    ok = filelib:ensure_path(dir(Nodes, Name)),
    {ok, Peer, _} = peer:start((placed(Nodes, Name))#{
        name => Name,
        host => "127.0.0.1",
        longnames => true,
        args => arguments(Options) ++ listens(Nodes, Name) ++ log(Nodes, Name),
        env => [{"ESDB_TEST_PORTS", ports(Nodes, Name)} | environment(Nodes, Name)],
        wait_boot => ?BOOT
    }),
    OsPid = peer:call(Peer, os, getpid, []),
    ok = listening(Nodes, Name, Peer),
    true = ets:insert(Table, {Name, Life + 1, Peer, OsPid, up}),
    ok.

%% A node with a network of its own has no loopback of this one.
-spec placed(nodes(), atom()) -> map().
placed(#nodes{network = {proxy, _}}, _Name) ->
    #{connection => {{127, 0, 0, 1}, 0}};
placed(#nodes{network = {namespaces, Net}}, Name) ->
    #{connection => standard_io, exec => erl_esdb_netns:exec(Net, Name)}.

-spec arguments(options()) -> [string()].
arguments(Options) ->
    Ticktime = integer_to_list(maps:get(ticktime, Options, 8)),
    ["-pa" | code:get_path()] ++
        ["-start_epmd", "false", "-epmd_module", "erl_esdb_epmd", "-setcookie", ?COOKIE] ++
        ["-kernel", "net_ticktime", Ticktime] ++
        ["-kernel", "logger_level", "warning", "prevent_overlapping_partitions", "false"] ++
        maps:get(args, Options, []).

%% Where it is dialled: by the proxy, which asks for the port, or by the other nodes.
-spec listens(nodes(), atom()) -> [string()].
listens(#nodes{network = {proxy, _}}, _Name) ->
    ["-kernel", "inet_dist_use_interface", "{127,0,0,1}"];
listens(#nodes{network = {namespaces, Net}}, Name) ->
    {ok, Address} = inet:parse_address(erl_esdb_netns:address(Net, Name)),
    Interface = lists:flatten(io_lib:format("~0p", [Address])),
    Port = integer_to_list(?PORT),
    ["-kernel", "inet_dist_use_interface", Interface] ++
        ["-kernel", "inet_dist_listen_min", Port, "inet_dist_listen_max", Port].

-spec listening(nodes(), atom(), pid()) -> ok.
listening(#nodes{network = {proxy, Proxy}}, Name, Peer) ->
    erl_esdb_proxy:target(Proxy, Name, peer:call(Peer, erl_esdb_epmd, port, []));
listening(#nodes{network = {namespaces, _}}, _Name, _Peer) ->
    ok.

%% What it says, beside its folder.
-spec log(nodes(), atom()) -> [string()].
log(Nodes, Name) ->
    Config = #{config => #{file => dir(Nodes, Name) ++ ".log"}},
    Handlers = [{handler, default, logger_std_h, Config}],
    ["-kernel", "logger", lists:flatten(io_lib:format("~0p", [Handlers]))].

-doc "The last lines that a node has logged.".
-spec said(nodes(), atom()) -> [unicode:chardata()].
said(Nodes, Name) ->
    case file:read_file(dir(Nodes, Name) ++ ".log") of
        {ok, Log} ->
            Lines = string:split(Log, "\n", all),
            lists:nthtail(max(0, length(Lines) - ?SAID), Lines);
        {error, _} ->
            []
    end.

-spec ports(nodes(), atom()) -> string().
ports(#nodes{names = Names, network = Network}, Name) ->
    lists:flatten(
        lists:join(" ", [
            [atom_to_list(Other), "=", place(Network, Name, Other)]
         || Other <- Names, Other =/= Name
        ])
    ).

-spec place({proxy, erl_esdb_proxy:proxy()} | {namespaces, erl_esdb_netns:net()}, atom(), atom()) ->
    string().
place({proxy, Proxy}, Name, Other) ->
    integer_to_list(erl_esdb_proxy:port(Proxy, Name, Other));
place({namespaces, Net}, _Name, Other) ->
    erl_esdb_netns:address(Net, Other) ++ ":" ++ integer_to_list(?PORT).

-spec environment(nodes(), atom()) -> [{string(), string()}].
environment(#nodes{options = Options, disks = Disks}, Name) ->
    maps:get(env, Options, []) ++
        case Disks of
            #{Name := Disk} -> erl_esdb_disk:environment(Disk);
            #{} -> []
        end.

-doc "Ends a node with SIGKILL; `ok` also where it is down.".
-spec kill(nodes(), atom()) -> ok.
kill(#nodes{table = Table}, Name) ->
    case ets:lookup(Table, Name) of
        [{Name, _, _, _, down}] ->
            ok;
        [{Name, Life, Peer, OsPid, _}] ->
            true = ets:insert(Table, {Name, Life, none, none, down}),
            Ref = monitor(process, Peer),
            "" = os:cmd("kill -9 " ++ OsPid),
            receive
                {'DOWN', Ref, process, Peer, _} -> gone(OsPid)
            end
    end.

%% The connection may be closed before the process has let go of its files.
-spec gone(string()) -> ok.
gone(OsPid) -> erl_esdb_test:await(fun() -> are_all(~"Z", OsPid) end).

%% Whether all its threads are in this state, or gone: one that was just writing a file ends, or
%% stops, when that is done; the state of the process is that of the first.
-spec are_all(binary(), string()) -> boolean().
are_all(State, OsPid) ->
    Stats = filelib:wildcard(filename:join(["/proc", OsPid, "task", "*", "stat"])),
    lists:all(fun(File) -> is_in(State, File) end, Stats).

-spec is_in(binary(), file:filename()) -> boolean().
is_in(State, File) ->
    case file:read_file(File) of
        {ok, Stat} -> binary:match(Stat, <<") ", State/binary, " ">>) =/= nomatch;
        {error, _} -> true
    end.

-doc "Stops a node in whatever it is doing, with SIGSTOP; it is not seen as down by anybody.".
-spec freeze(nodes(), atom()) -> ok.
freeze(#nodes{table = Table} = Nodes, Name) ->
    ok = signal(Nodes, Name, "STOP", up, frozen),
    OsPid = ets:lookup_element(Table, Name, 4),
    erl_esdb_test:await(fun() -> are_all(~"T", OsPid) end).

-doc "Has it go on.".
-spec thaw(nodes(), atom()) -> ok.
thaw(Nodes, Name) -> signal(Nodes, Name, "CONT", frozen, up).

-doc "A node that runs is no target any more: it is about to be made a member.".
-spec hide(nodes(), atom()) -> ok.
hide(#nodes{table = Table}, Name) ->
    true = ets:insert(Table, {{hidden, Name}}),
    ok.

-spec show(nodes(), atom()) -> ok.
show(#nodes{table = Table}, Name) ->
    true = ets:delete(Table, {hidden, Name}),
    ok.

-spec signal(nodes(), atom(), string(), Before, After) -> ok when
    Before :: up | frozen, After :: up | frozen.
signal(#nodes{table = Table}, Name, Signal, Before, After) ->
    [{Name, Life, Peer, OsPid, Before}] = ets:lookup(Table, Name),
    "" = os:cmd("kill -" ++ Signal ++ " " ++ OsPid),
    true = ets:insert(Table, {Name, Life, Peer, OsPid, After}),
    ok.

-spec names(nodes()) -> [atom()].
names(#nodes{names = Names}) -> Names.

-doc "The nodes that run.".
-spec up(nodes()) -> [atom()].
up(#nodes{table = Table}) -> lists:sort([Name || {Name, _, _, _, up} <- ets:tab2list(Table)]).

-doc "The folder of a node.".
-spec dir(nodes(), atom()) -> file:filename().
dir(#nodes{options = #{dir := Dir}}, Name) -> filename:absname(filename:join(Dir, Name)).

-doc "Its name among the others.".
-spec node_of(nodes(), atom()) -> node().
node_of(_Nodes, Name) -> list_to_atom(atom_to_list(Name) ++ "@127.0.0.1").

-spec proxy(nodes()) -> erl_esdb_proxy:proxy().
proxy(#nodes{network = {proxy, Proxy}}) -> Proxy.

-doc "How often the network did what it should not.".
-spec acted(nodes()) -> non_neg_integer().
acted(#nodes{network = {proxy, Proxy}}) -> erl_esdb_proxy:acted(Proxy);
acted(#nodes{network = {namespaces, Net}}) -> erl_esdb_netns:acted(Net).

-spec disk(nodes(), atom()) -> erl_esdb_disk:disk().
disk(#nodes{disks = Disks}, Name) -> map_get(Name, Disks).

-doc "Calls a function on a node. Exits where it is down, or does not answer in time.".
-spec call(nodes(), atom(), module(), atom(), [term()]) -> term().
call(Nodes, Name, Module, Function, Arguments) ->
    call(Nodes, Name, Module, Function, Arguments, ?CALL).

-spec call(nodes(), atom(), module(), atom(), [term()], timeout()) -> term().
call(#nodes{table = Table}, Name, Module, Function, Arguments, Timeout) ->
    case ets:lookup(Table, Name) of
        [{Name, _, _, _, down}] -> exit({down, Name});
        [{Name, _, Peer, _, _}] -> peer:call(Peer, Module, Function, Arguments, Timeout)
    end.

-doc "Who can be asked now, for `m:erl_esdb_load`.".
-spec targets(nodes()) -> [erl_esdb_load:target()].
targets(#nodes{table = Table}) ->
    [
        {{Name, Life}, fun(Module, Function, Arguments) ->
            peer:call(Peer, Module, Function, Arguments, ?CALL)
        end}
     || {Name, Life, Peer, _, up} <- ets:tab2list(Table), not ets:member(Table, {hidden, Name})
    ].

-doc "The way to one node.".
-spec via(nodes(), atom()) -> erl_esdb_history:via().
via(Nodes, Name) ->
    fun(Module, Function, Arguments) -> call(Nodes, Name, Module, Function, Arguments) end.

%% ---- the network

-doc "These nodes and the others do not hear each other.".
-spec cut(nodes(), [atom()]) -> ok.
cut(#nodes{network = {namespaces, Net}}, [Name]) ->
    erl_esdb_netns:unplug(Net, Name);
cut(#nodes{names = Names} = Nodes, Side) ->
    Ways = [{A, B} || A <- Side, B <- Names -- Side],
    held(Nodes, Ways ++ [{B, A} || {A, B} <- Ways]).

-doc "What these nodes say is not heard by the others, who are heard by them.".
-spec cut_one_way(nodes(), [atom()]) -> ok.
cut_one_way(#nodes{names = Names} = Nodes, Side) ->
    held(Nodes, [{A, B} || A <- Side, B <- Names -- Side]).

-spec held(nodes(), [erl_esdb_proxy:way()]) -> ok.
held(#nodes{network = {proxy, Proxy}}, Ways) -> erl_esdb_proxy:flow(Proxy, Ways, hold);
held(#nodes{network = {namespaces, Net}}, Ways) -> erl_esdb_netns:lose(Net, Ways).

-doc "What these nodes say, and what is said to them, comes later.".
-spec delay(nodes(), [atom()], Milliseconds :: pos_integer()) -> ok.
delay(#nodes{names = Names, network = {proxy, Proxy}}, Side, Time) ->
    Ways = [{A, B} || A <- Side, B <- Names -- Side],
    erl_esdb_proxy:flow(Proxy, Ways ++ [{B, A} || {A, B} <- Ways], {delay, Time}).

-doc "All hear all.".
-spec heal(nodes()) -> ok.
heal(#nodes{names = Names, network = {proxy, Proxy}}) ->
    erl_esdb_proxy:flow(Proxy, [{A, B} || A <- Names, B <- Names, A =/= B], pass);
heal(#nodes{network = {namespaces, Net}}) ->
    erl_esdb_netns:heal(Net).
