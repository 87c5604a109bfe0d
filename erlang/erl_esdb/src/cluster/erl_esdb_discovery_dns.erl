-module(erl_esdb_discovery_dns).
-moduledoc """
Names of nodes from the records of a name in the DNS, as Kubernetes keeps them for a headless
service.

```erlang
1> erl_esdb_discovery_dns:nodes(#{service => "shop.default.svc.cluster.local", record => a,
       basename => "shop", nameservers => [{{10,96,0,10},53}], timeout => 2000}).
{ok,[<<"shop@10.1.0.7">>,<<"shop@10.1.0.8">>]}
```

With `a` and `aaaa` a node is `basename@address`, with `srv` it is `basename@target`. A `resolver`
in place of the DNS is a fun that takes the name and answers `{ok, [Address | HostName]}` or
`{error, Reason}`.
""".

-export([nodes/1]).

%% Of an answer: a cluster has fewer.
-define(MAX_HOSTS, 1000).

-type host() :: inet:ip_address() | string() | binary().
-type options() :: #{
    service := string(),
    record := a | aaaa | srv,
    basename := string(),
    timeout := timeout(),
    nameservers => [{inet:ip_address(), inet:port_number()}],
    resolver => fun((string()) -> {ok, [host()]} | {error, term()}),
    _ => _
}.

-doc "The names, sorted. Errors: `nothing_found`, or what the resolver says.".
-spec nodes(options()) -> {ok, [binary()]} | {error, term()}.
nodes(#{basename := Name} = Options) ->
    maybe
        {ok, [_ | _] = Hosts} ?= hosts(Options),
        Names = [name(Name, Host) || Host <- lists:sublist(Hosts, ?MAX_HOSTS)],
        {ok, lists:usort(lists:append(Names))}
    else
        {ok, []} -> {error, nothing_found};
        {error, Reason} -> {error, Reason}
    end.

-spec hosts(options()) -> {ok, [host()]} | {error, term()}.
hosts(#{resolver := Resolver, service := Service}) ->
    Resolver(Service);
hosts(#{service := Service, record := Record, timeout := Timeout} = Options) ->
    Servers = [{nameservers, Servers} || nameservers := Servers <- Options],
    {ok, hosts(Record, inet_res:lookup(Service, in, Record, Servers, Timeout))}.

-spec hosts(a | aaaa | srv, [term()]) -> [host()].
hosts(srv, Data) -> [Target || {_Priority, _Weight, _Port, Target} <- Data, is_list(Target)];
hosts(_, Data) -> [Address || Address <- Data, inet:is_ip_address(Address)].

%% None where a resolver has said something that is no address.
-spec name(string(), host()) -> [binary()].
name(Name, Host) when is_tuple(Host) ->
    case inet:ntoa(Host) of
        {error, einval} -> [];
        Text -> [iolist_to_binary([Name, $@, Text])]
    end;
name(Name, Host) ->
    [iolist_to_binary([Name, $@, string:trim(Host, trailing, ".")])].
