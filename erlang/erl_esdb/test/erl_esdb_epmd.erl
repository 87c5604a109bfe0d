-module(erl_esdb_epmd).
-moduledoc """
The names of nodes without a daemon: where a node is dialled stands in its environment, one port for
each other node. These are ports of `m:erl_esdb_proxy`; or, with an address, of nodes that have one
(`m:erl_esdb_netns`).

Nodes are started with `-start_epmd false -epmd_module erl_esdb_epmd` and the environment variable
`ESDB_TEST_PORTS`, such as `n1=40001 n2=192.0.2.2:40002`. They listen on any free port where they
are not told which; `port/0` answers which.
""".

-export([port/0]).
-export([start_link/0, register_node/2, register_node/3, listen_port_please/2]).
-export([port_please/2, port_please/3, address_please/3, names/0, names/1]).

%% Of the distribution protocol.
-define(VERSION, 6).

-doc "Where this node listens.".
-spec port() -> inet:port_number().
port() -> persistent_term:get(?MODULE).

-spec start_link() -> ignore.
start_link() -> ignore.

-spec register_node(term(), inet:port_number()) -> {ok, pos_integer()}.
register_node(Name, Port) -> register_node(Name, Port, inet).

%% Each life of a node has another number.
-spec register_node(term(), inet:port_number(), term()) -> {ok, pos_integer()}.
register_node(_Name, Port, _Family) ->
    ok = persistent_term:put(?MODULE, Port),
    <<Creation:31>> = <<(erlang:system_time(microsecond)):31>>,
    {ok, Creation + 4}.

-spec listen_port_please(term(), term()) -> {ok, 0}.
listen_port_please(_Name, _Host) -> {ok, 0}.

-spec address_please(term(), term(), term()) ->
    {ok, inet:ip_address(), inet:port_number(), pos_integer()} | {error, nxdomain}.
address_please(Name, _Host, _Family) ->
    case port_of(text(Name), string:lexemes(os:getenv("ESDB_TEST_PORTS", ""), " ")) of
        {ok, Address, Port} -> {ok, Address, Port, ?VERSION};
        error -> {error, nxdomain}
    end.

-spec port_please(term(), term()) -> {port, inet:port_number(), pos_integer()} | noport.
port_please(Name, Host) -> port_please(Name, Host, infinity).

-spec port_please(term(), term(), timeout()) -> {port, inet:port_number(), pos_integer()} | noport.
port_please(Name, Host, _Timeout) ->
    case address_please(Name, Host, inet) of
        {ok, _, Port, Version} -> {port, Port, Version};
        {error, _} -> noport
    end.

-spec names() -> {error, address}.
names() -> {error, address}.

-spec names(term()) -> {error, address}.
names(_Host) -> names().

-spec text(atom() | string()) -> string().
text(Name) when is_atom(Name) -> atom_to_list(Name);
text(Name) -> Name.

-spec port_of(string(), [string()]) -> {ok, inet:ip_address(), inet:port_number()} | error.
port_of(Name, Ports) ->
    case [Place || Known <- Ports, [N, Place] <- [string:split(Known, "=")], N =:= Name] of
        [Place] -> place(string:split(Place, ":"));
        [] -> error
    end.

-spec place([string()]) -> {ok, inet:ip_address(), inet:port_number()}.
place([Port]) ->
    {ok, {127, 0, 0, 1}, list_to_integer(Port)};
place([Text, Port]) ->
    {ok, Address} = inet:parse_address(Text),
    {ok, Address, list_to_integer(Port)}.
