-module(esdb_peer).
-moduledoc """
A second node for tests that need both implementations, or two nodes at all.

The node is a peer on standard input and output: no distribution, no name, no cookie. It has the
code path of this node and the environment variable `ESDB_NIF` of your choice.

```erlang
Peer = esdb_peer:start(off),
{value, erlang} = esdb_peer:call(Peer, esdb_hash_nif, implementation, []),
{error, badarg} = esdb_peer:call(Peer, esdb_hash_nif, fnv1a, [an_atom]),
ok = esdb_peer:stop(Peer)
```
""".

-export([start/1, start/2, stop/1, call/4, evaluate/3]).
-export_type([peer/0, outcome/0]).

-type peer() :: pid().
-type outcome() :: {value, term()} | {error | exit | throw, Reason :: term()}.

-define(TIMEOUT, 120_000).

-doc "Starts a node with this value of `ESDB_NIF`, or with none (`unset`).".
-spec start(Policy :: atom()) -> peer().
start(Policy) ->
    start(Policy, []).

-doc "The same, with more arguments for `erl`; a `-pa` among them wins over this node's code path.".
-spec start(Policy :: atom(), [string()]) -> peer().
start(Policy, Arguments) ->
    {ok, Peer, _Node} = peer:start_link(#{
        connection => {{127, 0, 0, 1}, 0},
        args => ["-pa" | code:get_path()] ++ Arguments,
        env => [{"ESDB_NIF", policy(Policy)}],
        wait_boot => ?TIMEOUT
    }),
    Peer.

%% An empty variable is one that is not set.
-spec policy(atom()) -> string().
policy(unset) -> "";
policy(Policy) -> atom_to_list(Policy).

-doc "Stops the node.".
-spec stop(peer()) -> ok.
stop(Peer) ->
    peer:stop(Peer).

-doc "Calls a function there. What is raised comes back as a value.".
-spec call(peer(), module(), atom(), [term()]) -> outcome().
call(Peer, Module, Function, Arguments) ->
    peer:call(Peer, ?MODULE, evaluate, [Module, Function, Arguments], ?TIMEOUT).

-doc "Calls a function here. What is raised comes back as a value, without its stack.".
-spec evaluate(module(), atom(), [term()]) -> outcome().
evaluate(Module, Function, Arguments) ->
    try
        {value, apply(Module, Function, Arguments)}
    catch
        Class:Reason -> {Class, Reason}
    end.
