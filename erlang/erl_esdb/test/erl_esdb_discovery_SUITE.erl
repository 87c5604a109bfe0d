-module(erl_esdb_discovery_SUITE).
-moduledoc """
Nodes that find each other: by datagrams over real sockets on the loopback interface, and by the
answers of a small name server.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_nodes, [call/4, name/1]).
-import(erl_esdb_test, [await/1]).

-define(SECRET, ~"a secret of the tests").
-define(GROUP, {239, 255, 77, 1}).
-define(LOOPBACK, {127, 0, 0, 1}).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_dsc_01_single,
        a_dsc_02_trigger_in_any_mode,
        a_dsc_03_gossip,
        a_dsc_03_gossip_of_the_original,
        a_dsc_03_two_nodes_of_a_group,
        a_dsc_04_what_is_ignored,
        a_dsc_05_no_socket,
        a_dsc_06_configuration,
        a_dsc_06_what_cannot_be,
        a_dsc_06_the_datagram,
        a_dsc_07_k8s_dns,
        a_dsc_07_a_real_answer,
        a_dsc_08_no_atoms,
        b_a_list_of_nodes,
        b_a_node_that_is_lost_is_found_again,
        b_a_node_without_a_name,
        b_the_secret_is_not_told,
        b_datagrams,
        b_datagrams_that_were_changed,
        b_garbage,
        b_replays,
        b_names
    ].

init_per_suite(Config) ->
    ok = application:set_env(erl_esdb, discovery, [{method, none}]),
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_) ->
    ok = application:stop(erl_esdb),
    application:unset_env(erl_esdb, discovery).

init_per_testcase(_, Config) ->
    ok = application:set_env(erl_esdb, discovery, [{method, none}]),
    Config.

end_per_testcase(_, _) ->
    Keys = [discovery_port, multicast_addr, broadcast_interval],
    [application:unset_env(erl_esdb, Key) || Key <- Keys],
    os:unsetenv("ERL_ESDB_CLUSTER_SECRET"),
    lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()).

%% A port that was free a moment ago.
free_port() ->
    {ok, Socket} = gen_udp:open(0, [{ip, ?LOOPBACK}]),
    {ok, Port} = inet:port(Socket),
    ok = gen_udp:close(Socket),
    Port.

%% Listens on loopback, and speaks to a group that only this host is in.
gossip(Port) ->
    #{
        method => multicast,
        port => Port,
        secret => ?SECRET,
        bind => ?LOOPBACK,
        interface => ?LOOPBACK,
        multicast_addr => ?GROUP,
        interval => 20
    }.

with_nodes(Count, Config, Fun) ->
    Peers = erl_esdb_nodes:start(Count),
    try
        [ok = configure(P, Config) || P <- Peers],
        Fun(Peers)
    after
        erl_esdb_nodes:stop(Peers)
    end.

configure(Peer, Config) -> call(Peer, application, set_env, [erl_esdb, discovery, Config]).

start(Peer) -> erl_esdb_nodes:start_fake(Peer, shop, erl_esdb_nodes:options()).

found(Peer) -> call(Peer, erl_esdb_discovery, get_discovered_nodes, [shop]).

send(Port, Datagrams) ->
    {ok, Socket} = gen_udp:open(0, [binary, {ip, ?LOOPBACK}]),
    [ok = gen_udp:send(Socket, ?LOOPBACK, Port, Datagram) || Datagram <- Datagrams],
    gen_udp:close(Socket).

said(Node) -> said(Node, ?SECRET).

said(Node, Secret) -> erl_esdb_gossip:encode(hmac, shop, Node, Secret, now_ms()).

now_ms() -> erlang:system_time(millisecond).

%% Whether the socket of a node is open: what is sent before that is lost.
listens(Peer) ->
    Pid = call(Peer, erlang, whereis, [erl_esdb_naming:discovery_name(shop)]),
    element(3, call(Peer, sys, get_state, [Pid])) =/= undefined.

sockets(Pid) ->
    [Port || Port <- erlang:ports(), erlang:port_info(Port, connected) =:= {connected, Pid}].

are_members(Peers) ->
    All = {ok, [name(P) || P <- Peers]},
    [] =:= [P || P <- Peers, call(P, erl_esdb, members, [shop]) =/= All].

%% ---- the rows

a_dsc_01_single(_) ->
    {ok, Pid} = erl_esdb_discovery:start_link(#store_config{store_id = shop}),
    ?assertEqual([], erl_esdb_discovery:get_discovered_nodes(shop)),
    ?assertEqual([], sockets(Pid)),
    Pid ! {udp, port, ?LOOPBACK, 1, said('another@127.0.0.1')},
    ?assertEqual([], erl_esdb_discovery:get_discovered_nodes(shop)),
    ok = gen_server:stop(Pid).

a_dsc_02_trigger_in_any_mode(_) ->
    {ok, Pid} = erl_esdb_discovery:start_link(#store_config{store_id = shop}),
    ?assertEqual(ok, erl_esdb_discovery:trigger_discovery(shop)),
    ok = gen_server:stop(Pid),
    ?assertEqual(ok, erl_esdb_discovery:trigger_discovery(shop)),
    ?assertEqual([], erl_esdb_discovery:get_discovered_nodes(shop)),
    %% Where the interval is long a round comes when it is asked for.
    with_nodes(2, #{method => static, nodes => [], interval => 3600_000}, fun([A, B]) ->
        ok = start(A),
        ok = configure(A, #{method => static, nodes => [name(B)], interval => 3600_000}),
        await(fun() ->
            ok = call(A, erl_esdb_discovery, trigger_discovery, [shop]),
            found(A) =:= [name(B)]
        end)
    end).

a_dsc_03_gossip(_) ->
    Port = free_port(),
    with_nodes(2, gossip(Port), fun([A, B]) ->
        ok = configure(B, #{method => none}),
        [start(P) || P <- [A, B]],
        ok = erl_esdb_nodes:collect(A, [?CLUSTER_NODE_UP]),
        await(fun() -> listens(A) end),
        ?assertEqual([], found(A)),
        ok = send(Port, [said(name(B))]),
        await(fun() -> found(A) =:= [name(B)] end),
        Members = {ok, [name(A), name(B)]},
        await(fun() -> call(A, erl_esdb, members, [shop]) =:= Members end),
        Node = name(B),
        ?assertMatch([{_, _, #{store_id := shop, node := Node}}], erl_esdb_nodes:collected(A))
    end).

a_dsc_03_gossip_of_the_original(_) ->
    Port = free_port(),
    with_nodes(2, (gossip(Port))#{proof => clear}, fun([A, B]) ->
        ok = start(A),
        await(fun() -> listens(A) end),
        Clear = term_to_binary({gossip, name(B), ?SECRET, now_ms()}),
        ok = send(Port, [Clear]),
        await(fun() -> found(A) =:= [name(B)] end)
    end).

%% Both hear what is sent to the group, on one port of one host.
a_dsc_03_two_nodes_of_a_group(_) ->
    Config = (gossip(free_port()))#{bind => ?GROUP, multicast_loop => true},
    with_nodes(3, Config, fun([A, B, C] = Peers) ->
        ok = configure(C, Config#{secret => ~"another secret"}),
        [start(P) || P <- Peers],
        await(fun() -> {found(A), found(B)} =:= {[name(B)], [name(A)]} end),
        await(fun() -> are_members([A, B]) end),
        ?assertEqual([], found(C))
    end).

%% What is sent last, and found, came after all the rest.
a_dsc_04_what_is_ignored(_) ->
    Port = free_port(),
    with_nodes(3, gossip(Port), fun([A, B, C]) ->
        ok = start(A),
        await(fun() -> listens(A) end),
        Node = name(B),
        Encode = fun(Store, Time) ->
            erl_esdb_gossip:encode(hmac, Store, Node, ?SECRET, now_ms() + Time)
        end,
        <<_, Changed/binary>> = said(Node),
        ok = send(Port, [
            said(Node, ~"wrong"),
            ~"",
            ~"garbage",
            binary:copy(~"x", 5000),
            <<"E", Changed/binary, 0>>,
            %% of another store, too old, of a clock that is too far ahead
            Encode(another, 0),
            Encode(shop, -31_000),
            Encode(shop, 31_000),
            %% in clear, which was not asked for
            term_to_binary({gossip, Node, ?SECRET, now_ms()}),
            term_to_binary({gossip, Node, ?SECRET}),
            said(name(A)),
            said(name(C))
        ]),
        await(fun() -> lists:member(name(C), found(A)) end),
        %% No other name was even thought of.
        Pid = call(A, erlang, whereis, [erl_esdb_naming:discovery_name(shop)]),
        Known = element(6, call(A, sys, get_state, [Pid])),
        ?assertEqual(#{atom_to_binary(name(C)) => name(C)}, Known),
        ?assertEqual([name(C)], found(A)),
        ?assertEqual([name(C)], call(A, erlang, nodes, []))
    end).

a_dsc_05_no_socket(_) ->
    {ok, Socket} = gen_udp:open(0, [{ip, ?LOOPBACK}]),
    {ok, Port} = inet:port(Socket),
    with_nodes(2, gossip(Port), fun([A, B]) ->
        ok = start(A),
        Pid = call(A, erlang, whereis, [erl_esdb_naming:discovery_name(shop)]),
        %% Rounds go by.
        await(fun() -> element(4, call(A, sys, get_state, [Pid])) =/= undefined end),
        ok = call(A, erl_esdb_discovery, trigger_discovery, [shop]),
        ?assertEqual([], found(A)),
        ?assertNot(listens(A)),
        ?assertEqual(Pid, call(A, erlang, whereis, [erl_esdb_naming:discovery_name(shop)])),
        %% When the port is free it is taken.
        ok = gen_udp:close(Socket),
        await(fun() -> listens(A) end),
        ok = send(Port, [said(name(B))]),
        await(fun() -> found(A) =:= [name(B)] end)
    end).

a_dsc_06_configuration(_) ->
    Get = fun() ->
        {ok, Config} = erl_esdb_discovery_config:get(),
        maps:with([method, port, multicast_addr, interval, secret], Config)
    end,
    ok = application:unset_env(erl_esdb, discovery),
    ?assertEqual(
        #{
            method => multicast,
            port => 45_892,
            multicast_addr => {239, 255, 0, 1},
            interval => 5000,
            secret => ~"erl_esdb_default_secret"
        },
        Get()
    ),
    {ok, Default} = erl_esdb_discovery_config:get(),
    ?assert(erl_esdb_discovery_config:is_default(Default)),
    true = os:putenv("ERL_ESDB_CLUSTER_SECRET", "of the system"),
    ok = application:set_env(erl_esdb, discovery_port, 1234),
    ok = application:set_env(erl_esdb, multicast_addr, "239.1.2.3"),
    ok = application:set_env(erl_esdb, broadcast_interval, 77),
    Flat = #{
        method => multicast,
        port => 1234,
        multicast_addr => {239, 1, 2, 3},
        interval => 77,
        secret => ~"of the system"
    },
    ?assertEqual(Flat, Get()),
    %% What is nested comes first, the first of two pairs with one key counts.
    ok = application:set_env(erl_esdb, discovery, [
        {port, 4321}, {secret, ~"nested"}, {multicast_addr, {239, 9, 9, 9}}, {port, 1}
    ]),
    Nested = Flat#{port := 4321, secret := ~"nested", multicast_addr := {239, 9, 9, 9}},
    ?assertEqual(Nested, Get()),
    ok = application:set_env(erl_esdb, discovery, #{method => k8s_dns, service => "a.b"}),
    ?assertMatch(
        {ok, #{method := k8s_dns, service := "a.b", record := a, basename := "nonode"}},
        erl_esdb_discovery_config:get()
    ).

a_dsc_06_what_cannot_be(_) ->
    [
        ?assertEqual(
            {Key, {error, {invalid_option, discovery, Key}}},
            {Key, erl_esdb_discovery_config:check(#{Key => Value})}
        )
     || {Key, Value} <- [
            {method, carrier_pigeon},
            {port, 0},
            {port, 65_536},
            {multicast_addr, "nowhere"},
            {multicast_addr, {1, 2, 3}},
            {secret, <<>>},
            {secret, 42},
            {interval, 0},
            {window, -1},
            {nodes, [~"a@b"]},
            {nameservers, [{127, 0, 0, 1}]},
            {resolver, fun() -> ok end},
            {unknown, 1}
        ]
    ],
    [
        ?assertEqual(
            {error, {invalid_option, discovery, not_a_list}}, erl_esdb_discovery_config:check(V)
        )
     || V <- [none, [a], [{port, 1} | b]]
    ],
    %% Nor does the application start with it; the secret is not in the reason.
    Start = fun(Key, Value) ->
        ok = application:set_env(erl_esdb, Key, Value),
        erl_esdb_config:check_environment()
    end,
    ?assertEqual(
        {error, {invalid_option, discovery, [{port, none}]}},
        Start(discovery, [{secret, ~"hidden"}, {port, none}])
    ),
    ?assertEqual(ok, Start(discovery, [])),
    ?assertEqual(
        {error, {invalid_option, multicast_addr, nowhere}}, Start(multicast_addr, nowhere)
    ),
    %% What is changed while it runs is looked at as well.
    with_nodes(1, #{method => none, interval => 10}, fun([A]) ->
        ok = configure(A, [{port, none}]),
        ok = start(A),
        ok = call(A, erl_esdb_discovery, trigger_discovery, [shop]),
        ?assertEqual([], found(A))
    end).

%% The flat keys and the variable of the system decide what is sent, where it goes, and how often.
a_dsc_06_the_datagram(_) ->
    Port = free_port(),
    {ok, Socket} = gen_udp:open(Port, [
        binary,
        {active, true},
        {reuseaddr, true},
        {ip, ?GROUP},
        {add_membership, {?GROUP, ?LOOPBACK}}
    ]),
    Nested = #{bind => ?LOOPBACK, interface => ?LOOPBACK, multicast_loop => true},
    with_nodes(1, Nested, fun([A]) ->
        true = call(A, os, putenv, ["ERL_ESDB_CLUSTER_SECRET", "of the system"]),
        [
            ok = call(A, application, set_env, [erl_esdb, Key, Value])
         || {Key, Value} <- [
                {discovery_port, Port}, {multicast_addr, ?GROUP}, {broadcast_interval, 10}
            ]
        ],
        ok = start(A),
        Heard = fun() ->
            receive
                {udp, Socket, _, _, Datagram} -> Datagram
            end
        end,
        [First, Second] = [Heard(), Heard()],
        Node = atom_to_binary(name(A)),
        [
            ?assertMatch(
                {ok, #{store := ~"shop", node := Node, time := T}} when T > 0,
                erl_esdb_gossip:decode(hmac, Datagram, ~"of the system")
            )
         || Datagram <- [First, Second]
        ],
        ?assertEqual(nomatch, binary:match(First, ~"of the system")),
        ?assertEqual({error, forged}, erl_esdb_gossip:decode(hmac, First, ~"another"))
    end),
    ok = gen_udp:close(Socket).

%% The nodes of the tests differ in what stands before their common host.
k8s(Peer) ->
    [Name, Host] = string:split(atom_to_list(name(Peer)), "@"),
    {Name, Host}.

a_dsc_07_k8s_dns(_) ->
    with_nodes(2, #{method => none}, fun([A, B]) ->
        {Name, Host} = k8s(B),
        Config = #{
            method => k8s_dns, service => "shop.svc", basename => Name, interval => 20
        },
        ok = call(A, application, set_env, [erl_esdb_gater, hosts, {error, not_yet}]),
        ok = configure(A, Config#{resolver => fun ?MODULE:resolved/1}),
        [start(P) || P <- [A, B]],
        Asked = fun() -> call(A, application, get_env, [erl_esdb_gater, asked]) end,
        await(fun() -> Asked() =:= {ok, "shop.svc"} end),
        ?assertEqual([], found(A)),
        %% Who has no such name, and itself, are passed over.
        Hosts = [Host, "a b", "127.0.0.9"],
        ok = call(A, application, set_env, [erl_esdb_gater, hosts, {ok, Hosts}]),
        await(fun() -> found(A) =:= [name(B)] end),
        Members = {ok, [name(A), name(B)]},
        await(fun() -> call(B, erl_esdb, members, [shop]) =:= Members end),
        %% A resolver that crashes does no harm.
        ok = call(A, application, set_env, [erl_esdb_gater, hosts, crash]),
        _ = call(A, application, unset_env, [erl_esdb_gater, asked]),
        await(fun() -> Asked() =:= {ok, "shop.svc"} end),
        ?assertEqual([name(B)], found(A))
    end).

resolved(Service) ->
    ok = application:set_env(erl_esdb_gater, asked, Service),
    case application:get_env(erl_esdb_gater, hosts) of
        {ok, crash} -> error(crash);
        {ok, Answer} -> Answer
    end.

a_dsc_07_a_real_answer(_) ->
    {Server, Port} = name_server(#{
        {~"shop.svc.cluster.local", 1} => [<<127, 0, 0, 1>>, <<127, 0, 0, 2>>],
        {~"shop.svc.cluster.local", 28} => [<<0:120, 1>>],
        {~"_epmd._tcp.shop.svc", 33} => [srv(~"127.0.0.1"), srv(~"pod-1.shop.svc")]
    }),
    Options = #{
        service => "shop.svc.cluster.local",
        record => a,
        basename => "esdb",
        timeout => 5000,
        nameservers => [{?LOOPBACK, Port}]
    },
    Nodes = fun(Changes) -> erl_esdb_discovery_dns:nodes(maps:merge(Options, Changes)) end,
    ?assertEqual({ok, [~"esdb@127.0.0.1", ~"esdb@127.0.0.2"]}, Nodes(#{})),
    ?assertEqual({ok, [~"esdb@::1"]}, Nodes(#{record => aaaa})),
    ?assertEqual(
        {ok, [~"esdb@127.0.0.1", ~"esdb@pod-1.shop.svc"]},
        Nodes(#{record => srv, service => "_epmd._tcp.shop.svc"})
    ),
    ?assertEqual({error, nothing_found}, Nodes(#{service => "none.svc"})),
    %% And a node connects to what it was told.
    with_nodes(2, #{method => none}, fun([A, B]) ->
        {Name, _} = k8s(B),
        Config = maps:without([timeout], Options#{basename => Name}),
        ok = configure(A, Config#{method => k8s_dns, interval => 20}),
        [start(P) || P <- [A, B]],
        await(fun() -> found(A) =:= [name(B)] end)
    end),
    exit(Server, kill).

%% A server that answers from a table, as RFC 1035 says.
name_server(Table) ->
    Self = self(),
    Server = spawn_link(fun() ->
        {ok, Socket} = gen_udp:open(0, [binary, {active, true}, {ip, ?LOOPBACK}]),
        {ok, Port} = inet:port(Socket),
        Self ! {port, Port},
        answering(Socket, Table)
    end),
    true = unlink(Server),
    receive
        {port, Port} -> {Server, Port}
    end.

answering(Socket, Table) ->
    receive
        {udp, Socket, Address, Port, <<Id:16, _Flags:16, 1:16, _:48, Query/binary>>} ->
            {Name, <<Type:16, 1:16, _/binary>>} = labels(Query, []),
            Size = byte_size(Query) - byte_size(element(2, labels(Query, []))) + 4,
            <<Question:Size/binary, _/binary>> = Query,
            Data = maps:get({Name, Type}, Table, []),
            Code = case Data of [] -> 3; _ -> 0 end,
            Records = [
                <<16#C00C:16, Type:16, 1:16, 5:32, (byte_size(D)):16, D/binary>>
             || D <- Data
            ],
            Answer = [
                <<Id:16, 1:1, 0:4, 1:1, 0:6, Code:4, 1:16, (length(Data)):16, 0:32>>,
                Question,
                Records
            ],
            ok = gen_udp:send(Socket, Address, Port, Answer),
            answering(Socket, Table)
    end.

labels(<<0, Rest/binary>>, Labels) ->
    {iolist_to_binary(lists:join($., lists:reverse(Labels))), Rest};
labels(<<Size, Label:Size/binary, Rest/binary>>, Labels) ->
    labels(Rest, [Label | Labels]).

srv(Target) ->
    Labels = [<<(byte_size(L)), L/binary>> || L <- binary:split(Target, ~".", [global])],
    iolist_to_binary([<<0:16, 0:16, 4369:16>>, Labels, 0]).

a_dsc_08_no_atoms(_) ->
    Port = free_port(),
    Unknown = fun(Peer, Names) ->
        [
            ?assertError(badarg, call(Peer, erlang, binary_to_existing_atom, [Name]))
         || Name <- Names
        ]
    end,
    with_nodes(2, (gossip(Port))#{proof => clear}, fun([A, B]) ->
        ok = start(A),
        await(fun() -> listens(A) end),
        Id = integer_to_binary(erlang:unique_integer([positive])),
        [N1, N2, N3, N4] = Names = [<<"n", Id/binary, (N + $0), "@h">> || N <- lists:seq(1, 4)],
        Term = fun(Name, Secret) ->
            Size = byte_size(Name),
            <<131, 104, 4, 119, 6, "gossip", 119, Size, Name/binary, 109, (byte_size(Secret)):32,
                Secret/binary, 98, 0:32>>
        end,
        <<131, Tuple/binary>> = Term(N4, ?SECRET),
        ok = send(Port, [
            %% forged, too old, with an atom in place of what is wanted, in a shape that is not
            Term(N1, ~"wrong"),
            Term(N2, ?SECRET),
            <<131, 119, (byte_size(N3)), N3/binary>>,
            <<131, 104, 1, Tuple/binary>>,
            said(name(B))
        ]),
        await(fun() -> found(A) =:= [name(B)] end),
        Unknown(A, Names)
    end).

%% ---- besides

b_a_list_of_nodes(_) ->
    with_nodes(3, #{method => none}, fun([A, B, C] = Peers) ->
        All = [name(P) || P <- Peers] ++ ['nobody@127.0.0.1'],
        [ok = configure(P, #{method => static, nodes => All, interval => 20}) || P <- Peers],
        [start(P) || P <- Peers],
        await(fun() -> are_members(Peers) end),
        ?assertEqual([name(B), name(C)], found(A))
    end).

b_a_node_that_is_lost_is_found_again(_) ->
    with_nodes(2, #{method => none}, fun([A, B]) ->
        ok = configure(A, #{method => static, nodes => [name(B)], interval => 20}),
        ok = start(A),
        await(fun() -> found(A) =:= [name(B)] end),
        Up = fun() -> call(A, erlang, nodes, []) =:= [name(B)] end,
        await(Up),
        true = call(B, erlang, disconnect_node, [name(A)]),
        await(Up)
    end).

b_a_node_without_a_name(_) ->
    ok = application:set_env(erl_esdb, discovery, gossip(free_port())),
    {ok, Pid} = erl_esdb_discovery:start_link(#store_config{store_id = shop, mode = cluster}),
    ok = erl_esdb_discovery:trigger_discovery(shop),
    ?assertEqual([], erl_esdb_discovery:get_discovered_nodes(shop)),
    ?assertEqual([], sockets(Pid)),
    ok = gen_server:stop(Pid).

b_the_secret_is_not_told(_) ->
    Shown = erl_esdb_discovery_config:without_secret([{secret, ~"x"}, {port, 1}]),
    ?assertEqual([{port, 1}], Shown),
    ?assertEqual(#{}, erl_esdb_discovery_config:without_secret(#{secret => ~"x"})),
    ?assertEqual(not_a_list, erl_esdb_discovery_config:without_secret([{secret, ~"x"} | ~"y"])).

%% ---- datagrams, without a socket

milliseconds() -> integer(0, 1 bsl 63).

secret() -> non_empty(binary()).

b_datagrams(_) ->
    erl_esdb_test:property(
        200,
        ?FORALL({Secret, Time, Proof}, {secret(), milliseconds(), oneof([hmac, clear])}, begin
            Node = 'some-node@host.example.org',
            Datagram = erl_esdb_gossip:encode(Proof, shop, Node, Secret, Time),
            {ok, Told} = erl_esdb_gossip:decode(Proof, Datagram, Secret),
            Store = case Proof of hmac -> ~"shop"; clear -> any end,
            Told =:= #{store => Store, node => atom_to_binary(Node), time => Time} andalso
                byte_size(Datagram) < 500 + byte_size(Secret)
        end)
    ).

%% Whatever is changed of it, it is taken no more.
b_datagrams_that_were_changed(_) ->
    Datagram = erl_esdb_gossip:encode(hmac, shop, 'a@b', ?SECRET, 1000),
    Bits = bit_size(Datagram),
    erl_esdb_test:property(
        300,
        ?FORALL(Bit, integer(0, Bits - 1), begin
            <<Before:Bit/bits, One:1, After/bits>> = Datagram,
            Changed = <<Before/bits, (1 - One):1, After/bits>>,
            {error, _} = erl_esdb_gossip:decode(hmac, Changed, ?SECRET),
            true
        end)
    ),
    [
        {error, _} = erl_esdb_gossip:decode(hmac, binary:part(Datagram, 0, Size), ?SECRET)
     || Size <- lists:seq(0, byte_size(Datagram) - 1)
    ].

b_garbage(_) ->
    Beginnings = [<<>>, ~"ESDG", <<"ESDG", 1>>, <<131, 104, 4>>, <<131, 104, 4, 119, 6, "gossip">>],
    erl_esdb_test:property(
        500,
        ?FORALL({Begin, Rest, Proof}, {oneof(Beginnings), binary(), oneof([hmac, clear])}, begin
            Answer = erl_esdb_gossip:decode(Proof, <<Begin/binary, Rest/binary>>, ?SECRET),
            Answer =:= {error, malformed} orelse Answer =:= {error, forged}
        end)
    ).

b_replays(_) ->
    Told = fun(Node, Time) -> #{store => ~"shop", node => Node, time => Time} end,
    {ok, Seen} = erl_esdb_gossip:accept(Told(~"a@b", 1000), #{}, {1000, 500}),
    Accept = fun(Node, Time, Now) -> erl_esdb_gossip:accept(Told(Node, Time), Seen, {Now, 500}) end,
    ?assertEqual({error, replayed}, Accept(~"a@b", 1000, 1000)),
    ?assertEqual({error, replayed}, Accept(~"a@b", 999, 1000)),
    ?assertMatch({ok, #{~"a@b" := 1001}}, Accept(~"a@b", 1001, 1000)),
    ?assertMatch({ok, #{~"a@b" := 1000, ~"c@d" := 700}}, Accept(~"c@d", 700, 1000)),
    ?assertEqual({error, stale}, Accept(~"c@d", 499, 1000)),
    ?assertEqual({error, stale}, Accept(~"c@d", 1501, 1000)),
    %% What is forgotten is out of the window for good.
    {ok, Later} = Accept(~"c@d", 1600, 1600),
    ?assertEqual(#{~"c@d" => 1600}, Later),
    ?assertEqual({error, stale}, erl_esdb_gossip:accept(Told(~"a@b", 1000), Later, {1600, 500})).

b_names(_) ->
    Good = [~"a@b", ~"shop@10.0.0.1", ~"a_b-c@pod-1.shop.svc", ~"x@::1"],
    Bad = [
        ~"",
        ~"@",
        ~"a@",
        ~"@b",
        ~"a",
        ~"a@b@c",
        ~"a b@c",
        ~"a@b\n",
        ~"a@-b",
        <<"a@", 255>>,
        binary:copy(~"a@b", 100)
    ],
    [?assert(erl_esdb_gossip:is_node(Name)) || Name <- Good],
    [?assertNot(erl_esdb_gossip:is_node(Name)) || Name <- Bad].
