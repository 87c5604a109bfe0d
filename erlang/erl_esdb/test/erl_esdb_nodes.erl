-module(erl_esdb_nodes).
-moduledoc """
Named nodes for tests, on the loopback interface. The node that runs the tests has no name: it
speaks to them over their standard input and output.

```erlang
[A, B] = erl_esdb_nodes:start(2),
ok = erl_esdb_nodes:connect(A, B),
{ok, _} = erl_esdb_nodes:call(A, erl_esdb, start_store, [shop]),
ok = erl_esdb_nodes:stop([A, B]).
```
""".

-export([init_per_suite/1, end_per_suite/1]).
-export([start/1, start/2, stop/1, kill/1, restart/1, restart/2, name/1]).
-export([connect/2, disconnect/2]).
-export([call/4]).
-export([collect/2, collected/1, collector/2, told/4]).
-export([start_store/3, start_fake/3, start_on/4, options/0]).
-export_type([peer/0]).

-include("../include/erl_esdb.hrl").

-record(peer, {name :: atom(), pid :: pid(), args :: [string()]}).

-opaque peer() :: #peer{}.

-define(TIMEOUT, 60_000).
-define(HOST, "127.0.0.1").

-doc "Before a suite whose stores are in mode `cluster`: the application runs, and finds nobody.".
-spec init_per_suite([tuple()]) -> [tuple()].
init_per_suite(Config) ->
    ok = application:set_env(erl_esdb, discovery, [{method, none}]),
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

-spec end_per_suite([tuple()]) -> ok.
end_per_suite(_Config) ->
    ok = application:stop(erl_esdb),
    application:unset_env(erl_esdb, discovery).

-doc "So many nodes, with the application, in the order of their names.".
-spec start(pos_integer()) -> [peer()].
start(Count) -> start(Count, []).

-doc "The same, with more arguments for `erl`.".
-spec start(pos_integer(), [string()]) -> [peer()].
start(Count, Args) ->
    Id = integer_to_list(erlang:unique_integer([positive])) ++ "_" ++ os:getpid(),
    Names = ["esdb" ++ integer_to_list(N) ++ "_" ++ Id || N <- lists:seq(1, Count)],
    [begun(list_to_atom(Name ++ "@" ++ ?HOST), Args) || Name <- Names].

begun(Node, Args) ->
    [Name, Host] = string:split(atom_to_list(Node), "@"),
    {ok, Pid, Node} = peer:start(#{
        name => Name,
        host => Host,
        longnames => true,
        connection => standard_io,
        args =>
            ["-pa" | code:get_path()] ++
            ["-setcookie", "esdb_test", "-kernel", "inet_dist_use_interface", "{127,0,0,1}"] ++
            ["-kernel", "prevent_overlapping_partitions", "false"] ++ Args,
        env => [{"ERL_EPMD_ADDRESS", ?HOST}, {"ESDB_NIF", os:getenv("ESDB_NIF", "")}],
        wait_boot => ?TIMEOUT
    }),
    Peer = #peer{name = Node, pid = Pid, args = Args},
    %% Nobody is found by accident.
    ok = call(Peer, application, set_env, [erl_esdb, discovery, [{method, none}]]),
    ok = call(Peer, logger, set_primary_config, [level, critical]),
    {ok, _} = call(Peer, application, ensure_all_started, [erl_esdb]),
    Peer.

-doc "Stops nodes; those that have stopped already, too.".
-spec stop([peer()]) -> ok.
stop(Peers) ->
    lists:foreach(fun ended/1, Peers).

ended(#peer{pid = Pid}) ->
    try
        peer:stop(Pid)
    catch
        exit:_ -> ok
    end.

-doc "Ends a node as `kill -9` does.".
-spec kill(peer()) -> ok.
kill(#peer{} = Peer) ->
    Os = call(Peer, os, getpid, []),
    [] = os:cmd("kill -9 " ++ Os),
    erl_esdb_test:await(fun() -> not is_process_alive(Peer#peer.pid) end).

-doc "Starts a node that has ended, under its name.".
-spec restart(peer()) -> peer().
restart(#peer{name = Node, args = Args}) -> begun(Node, Args).

-doc "The same, with other arguments for `erl`.".
-spec restart(peer(), [string()]) -> peer().
restart(#peer{name = Node}, Args) -> begun(Node, Args).

-spec name(peer()) -> node().
name(#peer{name = Name}) -> Name.

-doc "Connects two nodes; both know it when this returns.".
-spec connect(peer(), peer()) -> ok.
connect(A, B) ->
    true = call(A, net_kernel, connect_node, [name(B)]),
    erl_esdb_test:await(fun() -> lists:member(name(A), call(B, erlang, nodes, [])) end).

-spec disconnect(peer(), peer()) -> ok.
disconnect(A, B) ->
    _ = call(A, erlang, disconnect_node, [name(B)]),
    erl_esdb_test:await(fun() -> not lists:member(name(A), call(B, erlang, nodes, [])) end).

-doc "Calls a function there.".
-spec call(peer(), module(), atom(), [term()]) -> term().
call(#peer{pid = Pid}, Module, Function, Args) ->
    peer:call(Pid, Module, Function, Args, ?TIMEOUT).

%% ---- telemetry there

-doc "Remembers these events there.".
-spec collect(peer(), [[atom(), ...]]) -> ok.
collect(Peer, Events) -> call(Peer, ?MODULE, collector, [self(), Events]).

collector(_For, Events) ->
    Self = self(),
    spawn(fun() ->
        ?MODULE = ets:new(?MODULE, [named_table, public, ordered_set]),
        Self ! collects,
        receive
            stop -> ok
        end
    end),
    receive
        collects -> ok
    end,
    erl_esdb_telemetry:attach_many(?MODULE, Events, fun ?MODULE:told/4, none).

told(Event, Measurements, Metadata, none) ->
    ets:insert(?MODULE, {erlang:unique_integer([monotonic]), {Event, Measurements, Metadata}}).

-doc "What was remembered there so far.".
-spec collected(peer()) -> [{[atom()], map(), map()}].
collected(Peer) -> [Told || {_, Told} <- call(Peer, ets, tab2list, [?MODULE])].

%% ---- stores there

-doc "Starts a store there.".
-spec start_store(peer(), atom(), map()) -> ok.
start_store(Peer, Store, Options) ->
    {ok, _} = call(Peer, erl_esdb, start_store, [Store, Options]),
    ok.

-doc "Starts a store there whose engine is one of the tests, which can join.".
-spec start_fake(peer(), atom(), map()) -> ok.
start_fake(Peer, Store, Options) ->
    {ok, _} = call(Peer, erl_esdb_engine_fake, start_store, [Store, Options]),
    ok.

-doc "Starts a store there on an engine that can join: that of the tests, or that on disk.".
-spec start_on(fake | ra, peer(), atom(), map()) -> ok.
start_on(fake, Peer, Store, Options) ->
    start_fake(Peer, Store, maps:remove(folder, Options));
start_on(ra, Peer, Store, #{folder := Folder} = Options) ->
    Dir = filename:join(Folder, name(Peer)),
    start_store(Peer, Store, (maps:remove(folder, Options))#{engine => ra, data_dir => Dir}).

-doc "Of a store in mode cluster.".
-spec options() -> map().
options() -> #{mode => cluster, engine => memory}.
