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

-type host() :: inet:ip_address() | inet:hostname() | binary().
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
        {ok, lists:usort([name(Name, Host) || Host <- lists:sublist(Hosts, ?MAX_HOSTS)])}
    else
        {ok, []} -> {error, nothing_found};
        {error, Reason} -> {error, Reason}
    end.

-spec hosts(options()) -> {ok, [host()]} | {error, term()}.
hosts(#{resolver := Resolver, service := Service}) ->
    Resolver(Service);
hosts(#{service := Service, record := Record, timeout := Timeout} = Options) ->
    Servers = [{nameservers, Servers} || nameservers := Servers <- Options],
    {ok, [host(Data) || Data <- inet_res:lookup(Service, in, Record, Servers, Timeout)]}.

-spec host(term()) -> host().
host({_Priority, _Weight, _Port, Target}) when is_list(Target) -> Target;
host(Address) -> Address.

-spec name(string(), host()) -> binary().
name(Name, Host) -> iolist_to_binary([Name, $@, text(Host)]).

-spec text(host()) -> iodata().
text(Host) when is_tuple(Host) -> inet:ntoa(Host);
text(Host) -> string:trim(Host, trailing, ".").
