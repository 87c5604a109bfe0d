-module(esdb_demo_epmd).
-moduledoc """
The names of the nodes of `make demo-cluster` without a daemon that stays behind: where a node
listens stands in a file with its name, in the folder that the environment variable
`ESDB_DEMO_NAMES` says.

Nodes are started with `-start_epmd false -epmd_module esdb_demo_epmd`.
""".

-export([start_link/0, register_node/2, register_node/3, listen_port_please/2]).
-export([port_please/2, port_please/3, address_please/3, names/0, names/1]).

%% Of the distribution protocol.
-define(VERSION, 6).

-doc false.
-spec start_link() -> ignore.
start_link() -> ignore.

-doc false.
-spec register_node(atom() | string(), inet:port_number()) -> {ok, pos_integer()}.
register_node(Name, Port) -> register_node(Name, Port, inet).

%% Each life of a node has another number.
-doc false.
-spec register_node(atom() | string(), inet:port_number(), term()) -> {ok, pos_integer()}.
register_node(Name, Port, _Family) ->
    File = file(Name),
    ok = file:write_file(File ++ ".new", integer_to_list(Port)),
    ok = file:rename(File ++ ".new", File),
    <<Creation:31>> = <<(erlang:system_time(microsecond)):31>>,
    {ok, Creation + 4}.

-doc false.
-spec listen_port_please(term(), term()) -> {ok, 0}.
listen_port_please(_Name, _Host) -> {ok, 0}.

-doc false.
-spec address_please(atom() | string(), term(), term()) ->
    {ok, inet:ip_address(), inet:port_number(), pos_integer()} | {error, nxdomain}.
address_please(Name, _Host, _Family) ->
    case file:read_file(file(Name)) of
        {ok, Port} -> {ok, {127, 0, 0, 1}, binary_to_integer(Port), ?VERSION};
        {error, _} -> {error, nxdomain}
    end.

-doc false.
-spec port_please(atom() | string(), term()) ->
    {port, inet:port_number(), pos_integer()} | noport.
port_please(Name, Host) -> port_please(Name, Host, infinity).

-doc false.
-spec port_please(atom() | string(), term(), timeout()) ->
    {port, inet:port_number(), pos_integer()} | noport.
port_please(Name, Host, _Timeout) ->
    case address_please(Name, Host, inet) of
        {ok, _, Port, Version} -> {port, Port, Version};
        {error, _} -> noport
    end.

-doc false.
-spec names() -> {error, address}.
names() -> {error, address}.

-doc false.
-spec names(term()) -> {error, address}.
names(_Host) -> names().

-spec file(atom() | string()) -> file:filename().
file(Name) when is_atom(Name) -> file(atom_to_list(Name));
file(Name) -> os:getenv("ESDB_DEMO_NAMES", ".") ++ "/" ++ Name.
