-module(erl_esdb_discovery_config).
-moduledoc """
How the nodes of a cluster find each other, from the environment.

```erlang
[{erl_esdb, [
    {discovery, [{method, multicast}, {port, 45892}, {secret, ~"from the vault"}]}
]}].
```

| key of `discovery` | default | |
|---|---|---|
| `method` | `multicast` | or `k8s_dns`, `static`, `none` |
| `interval` | 5000 | milliseconds between two rounds; flat: `broadcast_interval` |
| `secret` | | what proves a node; OS variable: `ERL_ESDB_CLUSTER_SECRET` |
| `proof` | `hmac` | `clear` sends and takes the datagrams of the original, too |
| `window` | 30,000 | milliseconds that clocks may differ |
| `port` | 45892 | flat: `discovery_port` |
| `multicast_addr` | 239.255.0.1 | flat: `multicast_addr` |
| `interface` | any | the address of the interface that multicast goes through |
| `bind` | any | the address that is listened on |
| `multicast_ttl` | 1 | |
| `multicast_loop` | `false` | whether other nodes of this host hear it |
| `service` | | of `k8s_dns`: the name that is looked up |
| `record` | `a` | or `aaaa`; `srv` where addresses do not stay |
| `basename` | that of this node | of the nodes that are found |
| `nameservers` | those of the host | `[{Address, Port}]` |
| `resolver` | | a fun in place of the DNS: `m:erl_esdb_discovery_dns` |
| `nodes` | `[]` | of `static`: who they are |

What stands in `discovery` comes before the flat keys. Addresses are tuples or text.
""".

-export([get/0, check/1, without_secret/1, is_default/1]).
-export_type([config/0]).

-define(SECRET, ~"erl_esdb_default_secret").
-define(MAX_INTERVAL, 16#FFFFFFFF).

-type config() :: #{
    method := multicast | k8s_dns | static | none,
    interval := pos_integer(),
    secret := binary(),
    proof := erl_esdb_gossip:proof(),
    window := non_neg_integer(),
    port := inet:port_number(),
    multicast_addr := inet:ip_address(),
    interface := inet:ip_address(),
    bind := inet:ip_address(),
    multicast_ttl := pos_integer(),
    multicast_loop := boolean(),
    service := string(),
    record := a | aaaa | srv,
    basename := string(),
    nodes := [node()],
    nameservers => [{inet:ip_address(), inet:port_number()}],
    resolver => fun((string()) -> {ok, list()} | {error, term()})
}.

-doc "The configuration as it is now.".
-spec get() -> {ok, config()} | {error, {invalid_option, discovery, Key :: term()}}.
get() ->
    Nested = erl_esdb_config:get_env(discovery, []),
    maybe
        ok ?= check(Nested),
        {ok, maps:merge(defaults(), maps:map(fun value/2, map(Nested)))}
    end.

-spec map(map() | [{atom(), term()}]) -> map().
map(Nested) when is_map(Nested) -> Nested;
map(Nested) -> maps:from_list(lists:reverse(Nested)).

-spec defaults() -> config().
defaults() ->
    Flat = fun(Key, Name, Default) -> value(Key, erl_esdb_config:get_env(Name, Default)) end,
    #{
        method => multicast,
        interval => Flat(interval, broadcast_interval, 5000),
        secret => secret(os:getenv("ERL_ESDB_CLUSTER_SECRET")),
        proof => hmac,
        window => 30_000,
        port => Flat(port, discovery_port, 45_892),
        multicast_addr => Flat(multicast_addr, multicast_addr, {239, 255, 0, 1}),
        interface => {0, 0, 0, 0},
        bind => {0, 0, 0, 0},
        multicast_ttl => 1,
        multicast_loop => false,
        service => "",
        record => a,
        basename => hd(string:split(atom_to_list(node()), "@")),
        nodes => []
    }.

-spec secret(string() | false) -> binary().
secret(Given) when Given =:= false; Given =:= "" -> ?SECRET;
secret(Given) ->
    <<_, _/binary>> = Secret = unicode:characters_to_binary(Given),
    Secret.

-spec value(atom(), term()) -> term().
value(secret, Secret) ->
    unicode:characters_to_binary(Secret);
value(Key, Name) when Key =:= service; Key =:= basename -> unicode:characters_to_list(Name);
value(Key, Address) when Key =:= multicast_addr; Key =:= interface; Key =:= bind ->
    {ok, Parsed} = address(Address),
    Parsed;
value(_, Value) ->
    Value.

-spec address(term()) -> {ok, inet:ip_address()} | {error, einval}.
address(Address) when is_tuple(Address) ->
    case inet:is_ip_address(Address) of
        true -> {ok, Address};
        false -> {error, einval}
    end;
address(Address) when is_binary(Address) ->
    address(binary_to_list(Address));
address(Address) ->
    case is_text(Address) of
        true -> inet:parse_address(Address);
        false -> {error, einval}
    end.

-doc "Whether the value of `discovery` can be. The error names the key, not its value.".
-spec check(term()) -> ok | {error, {invalid_option, discovery, Key :: term()}}.
check(Nested) ->
    case is_map(Nested) orelse erl_esdb_args:all(fun is_pair/1, Nested) of
        true -> check_keys(map(Nested));
        false -> {error, {invalid_option, discovery, not_a_list}}
    end.

-spec is_pair(term()) -> boolean().
is_pair({_, _}) -> true;
is_pair(_) -> false.

-spec check_keys(map()) -> ok | {error, {invalid_option, discovery, term()}}.
check_keys(Nested) ->
    case lists:sort([Key || Key := Value <- Nested, not is_option(Key, Value)]) of
        [Key | _] -> {error, {invalid_option, discovery, Key}};
        [] -> ok
    end.

-spec is_option(term(), term()) -> boolean().
is_option(Key, Value) ->
    case tests() of
        #{Key := Is} -> Is(Value);
        #{} -> false
    end.

-spec tests() -> #{atom() => fun((term()) -> boolean())}.
tests() ->
    IsAddress = fun(Value) -> element(1, address(Value)) =:= ok end,
    #{
        method => one_of([multicast, k8s_dns, static, none]),
        interval => fun(Value) -> is_between(Value, 1, ?MAX_INTERVAL) end,
        secret => fun is_text/1,
        proof => one_of([hmac, clear]),
        window => fun(Value) -> is_between(Value, 0, ?MAX_INTERVAL) end,
        port => fun(Value) -> is_between(Value, 1, 65_535) end,
        multicast_addr => IsAddress,
        interface => IsAddress,
        bind => IsAddress,
        multicast_ttl => fun(Value) -> is_between(Value, 1, 255) end,
        multicast_loop => fun erlang:is_boolean/1,
        service => fun is_text/1,
        record => one_of([a, aaaa, srv]),
        basename => fun is_text/1,
        nameservers => fun(Value) -> erl_esdb_args:all(fun is_server/1, Value) end,
        resolver => fun(Value) -> is_function(Value, 1) end,
        nodes => fun(Value) -> erl_esdb_args:all(fun erlang:is_atom/1, Value) end
    }.

-spec one_of([atom()]) -> fun((term()) -> boolean()).
one_of(Values) -> fun(Value) -> lists:member(Value, Values) end.

-spec is_between(term(), integer(), integer()) -> boolean().
is_between(Value, Min, Max) -> is_integer(Value) andalso Value >= Min andalso Value =< Max.

-spec is_text(term()) -> boolean().
is_text(<<_, _/binary>>) -> true;
is_text([_ | _] = Text) -> io_lib:char_list(Text);
is_text(_) -> false.

-spec is_server(term()) -> boolean().
is_server({Address, Port}) -> inet:is_ip_address(Address) andalso is_between(Port, 1, 65_535);
is_server(_) -> false.

-doc "Whether nobody has chosen the secret: everybody knows it then.".
-spec is_default(config()) -> boolean().
is_default(#{secret := Secret}) -> Secret =:= ?SECRET.

-doc "The value of `discovery`, to be shown.".
-spec without_secret(term()) -> term().
without_secret(Nested) when is_map(Nested) -> maps:remove(secret, Nested);
without_secret(Nested) ->
    case erl_esdb_args:is_proper(Nested) of
        true -> [Pair || Pair <- Nested, not is_secret(Pair)];
        false -> not_a_list
    end.

-spec is_secret(term()) -> boolean().
is_secret({secret, _}) -> true;
is_secret(_) -> false.
