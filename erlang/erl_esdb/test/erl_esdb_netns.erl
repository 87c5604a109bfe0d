-module(erl_esdb_netns).
-moduledoc """
A network of its own for nodes, for who is root on Linux: each node in a network namespace, with one
interface, and all of them on one bridge in another namespace. Nobody else is on it.

```erlang
1> ok = erl_esdb_netns:available().
2> Net = erl_esdb_netns:start([n1, n2]).
3> {Program, Arguments} = erl_esdb_netns:exec(Net, n1).   % what runs there
4> ok = erl_esdb_netns:unplug(Net, n1).                   % its packets are lost, both ways
5> ok = erl_esdb_netns:lose(Net, [{n2, n1}]).             % what n2 sends to n1 is lost
6> ok = erl_esdb_netns:heal(Net).
7> ok = erl_esdb_netns:stop(Net).
```

What is lost here is lost: the kernels of both sides find that out, and send again what they may.
""".

-export([available/0, start/1, stop/1, exec/2, address/2]).
-export([unplug/2, lose/2, heal/1, acted/1]).
-export_type([net/0]).

-opaque net() :: #{names := [atom(), ...], prefix := string()}.

%% A bridge's name is that of a namespace which no node has.
-define(SWITCH, '_switch').

-doc "Whether there can be one. Error: what the system says.".
-spec available() -> ok | {error, string()}.
available() ->
    try start([n0]) of
        Net -> stop(Net)
    catch
        error:{ip, Said} -> {error, Said}
    end.

-doc "A network of these nodes.".
-spec start([atom(), ...]) -> net().
start(Names) ->
    Prefix = "esdb" ++ os:getpid(),
    Net = #{names => Names, prefix => Prefix},
    %% Not what somebody with this number has left.
    _ = removed(Net),
    try
        _ = [ip(["netns", "add", space(Net, Name)]) || Name <- [?SWITCH | Names]],
        _ = ip(["-n", space(Net, ?SWITCH), "link", "add", "br0", "type", "bridge"]),
        _ = ip(["-n", space(Net, ?SWITCH), "link", "set", "br0", "up"]),
        ok = lists:foreach(fun(Name) -> plugged(Net, Name) end, Names),
        Net
    catch
        error:{ip, Said} ->
            _ = removed(Net),
            error({ip, Said})
    end.

-spec plugged(net(), atom()) -> ok.
plugged(Net, Name) ->
    Space = space(Net, Name),
    Switch = space(Net, ?SWITCH),
    Plug = plug(Name),
    _ = [
        ip(Words)
     || Words <- [
            ["link", "add", "e0", "netns", Space, "type", "veth", "peer", "name", Plug] ++
                ["netns", Switch],
            ["-n", Space, "addr", "add", address(Net, Name) ++ "/24", "dev", "e0"],
            ["-n", Space, "link", "set", "lo", "up"],
            ["-n", Space, "link", "set", "e0", "up"],
            ["-n", Switch, "link", "set", Plug, "master", "br0", "up"]
        ]
    ],
    ok.

-spec stop(net()) -> ok.
stop(Net) ->
    [] = removed(Net),
    ok.

%% With a namespace goes what is in it. Those that are left.
-spec removed(net()) -> [atom()].
removed(#{names := Names} = Net) ->
    [Name || Name <- [?SWITCH | Names], is_left(run(["netns", "del", space(Net, Name)]))].

-spec is_left({non_neg_integer(), string()}) -> boolean().
is_left({Status, _Said}) -> Status =/= 0.

-doc "The program that runs another on a node, and the arguments before those of `erl`.".
-spec exec(net(), atom()) -> {string(), [string()]}.
exec(Net, Name) ->
    Erl = filename:join([code:root_dir(), "bin", "erl"]),
    {program(), ["netns", "exec", space(Net, Name), Erl]}.

-doc "Of a node: one of those that are for examples.".
-spec address(net(), atom()) -> string().
address(#{names := Names}, Name) ->
    {No, Name} = lists:keyfind(Name, 2, lists:enumerate(Names)),
    "192.0.2." ++ integer_to_list(No).

-doc "What a node sends is lost, and what is sent to it.".
-spec unplug(net(), atom()) -> ok.
unplug(Net, Name) ->
    _ = ip(["-n", space(Net, ?SWITCH), "link", "set", plug(Name), "down"]),
    ok.

-doc "What is sent these ways is lost.".
-spec lose(net(), [{From :: atom(), To :: atom()}]) -> ok.
lose(Net, Ways) ->
    _ = [
        ip(["-n", space(Net, From), "route", "replace", "blackhole", address(Net, To)])
     || {From, To} <- Ways
    ],
    ok.

-doc "All hear all.".
-spec heal(net()) -> ok.
heal(#{names := Names} = Net) ->
    _ = [
        ip(["-n", space(Net, Name), "route", "flush", "type", "blackhole"])
     || Name <- Names
    ],
    _ = [ip(["-n", space(Net, ?SWITCH), "link", "set", plug(Name), "up"]) || Name <- Names],
    ok.

-doc "How often a plug was pulled or put in, and how many packets found no way.".
-spec acted(net()) -> non_neg_integer().
acted(#{names := Names} = Net) ->
    lists:sum([changes(Net, Name) + without_route(Net, Name) || Name <- Names]).

-spec changes(net(), atom()) -> non_neg_integer().
changes(Net, Name) ->
    list_to_integer(string:trim(in(Net, Name, "/sys/class/net/e0/carrier_changes"))).

%% Two lines of the protocol: the names of the counters, and their values.
-spec without_route(net(), atom()) -> non_neg_integer().
without_route(Net, Name) ->
    [Names, Values | _] = [
        string:lexemes(Line, " ")
     || Line <- string:lexemes(in(Net, Name, "/proc/net/snmp"), "\n"), lists:prefix("Ip:", Line)
    ],
    {_, Value} = lists:keyfind("OutNoRoutes", 1, lists:zip(Names, Values)),
    list_to_integer(Value).

-spec in(net(), atom(), string()) -> string().
in(Net, Name, File) -> ip(["netns", "exec", space(Net, Name), "cat", File]).

-spec space(net(), atom()) -> string().
space(#{prefix := Prefix}, Name) -> Prefix ++ "_" ++ atom_to_list(Name).

-spec plug(atom()) -> string().
plug(Name) -> "to_" ++ atom_to_list(Name).

-spec program() -> string() | false.
program() -> os:find_executable("ip", os:getenv("PATH", "") ++ ":/usr/sbin:/sbin").

-spec ip([string()]) -> string().
ip(Words) ->
    case run(Words) of
        {0, Said} -> Said;
        {_, Said} -> error({ip, Said})
    end.

-spec run([string()]) -> {non_neg_integer(), string()}.
run(Words) ->
    case program() of
        false ->
            {127, "there is no program ip"};
        Ip ->
            Port = open_port({spawn_executable, Ip}, [
                {args, Words}, exit_status, stderr_to_stdout, hide
            ]),
            said(Port, "")
    end.

-spec said(port(), string()) -> {non_neg_integer(), string()}.
said(Port, Said) ->
    receive
        {Port, {data, More}} -> said(Port, Said ++ More);
        {Port, {exit_status, Status}} -> {Status, Said}
    end.
