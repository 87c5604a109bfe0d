-module(esdb_demo_lane).
-moduledoc """
The two places where the demo's steps run: this node, and a second one on the same machine that was
started with `ESDB_NIF=off`, so that there everything runs in Erlang.

The second node is reached over its standard input and output: no network, no cookie, no epmd. A
third kind of place is a function that does a step in its own way (`through/1`).

```erlang
1> {ok, Lane} = esdb_demo_lane:open(off),
   {esdb_demo_lane:call(Lane, implementation, []), esdb_demo_lane:close(Lane)}.
{erlang,ok}
```
""".

-export([open/1, through/1, call/3, close/1]).
-export_type([lane/0]).

-type through() :: fun((Function :: atom(), Arguments :: [term()]) -> term()).
-opaque lane() :: here | {peer, pid()} | {through, through()}.

-doc "This node (`here`) or a new one without native libraries (`off`).".
-spec open(here | off) -> {ok, lane()} | {error, term()}.
open(here) ->
    {ok, here};
open(off) ->
    Options = #{
        connection => standard_io,
        env => [{"ESDB_NIF", "off"}],
        %% What a library logs would arrive in the middle of the report.
        args => ["-kernel", "logger_level", "error", "-pa" | code:get_path()],
        wait_boot => 30_000
    },
    case peer:start(Options) of
        {ok, Peer, _Node} -> {ok, {peer, Peer}};
        {ok, Peer} -> {ok, {peer, Peer}};
        {error, Reason} -> {error, Reason}
    end.

-doc "A place where a function does what is called, for whoever takes lanes.".
-spec through(through()) -> lane().
through(Fun) -> {through, Fun}.

-doc "Calls a function of `esdb_demo_steps`, in a process of its own on this node and the second.".
-spec call(lane(), Function :: atom(), Arguments :: [term()]) -> term().
call(here, Function, Arguments) ->
    erpc:call(node(), esdb_demo_steps, Function, Arguments);
call({peer, Peer}, Function, Arguments) ->
    peer:call(Peer, esdb_demo_steps, Function, Arguments, infinity);
call({through, Fun}, Function, Arguments) ->
    Fun(Function, Arguments).

-doc "Ends the second node.".
-spec close(lane()) -> ok.
close({peer, Peer}) -> peer:stop(Peer);
close(_) -> ok.
