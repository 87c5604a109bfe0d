-module(esdb_demo_program).
-moduledoc """
Runs other programs with their arguments as a list: no shell reads them, so no path can be a
command.

```erlang
1> esdb_demo_program:run("git", ["--version"], 5000).
{ok,0,<<"git version 2.47.3\n">>}
```
""".

-export([run/3, fold/4]).

%% A repository named by the user is meant, not the one whose hook or shell we were started from;
%% and no program here may wait for an answer at the terminal.
-define(ENVIRONMENT, [
    {"GIT_DIR", false},
    {"GIT_WORK_TREE", false},
    {"GIT_INDEX_FILE", false},
    {"GIT_OBJECT_DIRECTORY", false},
    {"GIT_COMMON_DIR", false},
    {"GIT_NAMESPACE", false},
    {"GIT_TERMINAL_PROMPT", "0"},
    {"LC_ALL", "C"}
]).

-doc """
Runs a program to its end and collects what it prints, standard error included.

## Errors
`not_found` when no such program is on the PATH, `timeout` when it was stopped after `Timeout` ms.
""".
-spec run(Name :: string(), Arguments :: [string()], timeout()) ->
    {ok, Status :: non_neg_integer(), Output :: binary()} | {error, not_found | timeout}.
run(Name, Arguments, Timeout) ->
    maybe
        {ok, Port} ?= open(Name, Arguments, [stderr_to_stdout]),
        {ok, Status, Output} ?= follow(Port, fun(Chunk, Acc) -> [Acc, Chunk] end, [], Timeout),
        {ok, Status, iolist_to_binary(Output)}
    end.

-doc "Runs a program and folds over the chunks of its standard output as they come.".
-spec fold(Name :: string(), Arguments :: [string()], fun((binary(), Acc) -> Acc), Acc) ->
    {ok, Status :: non_neg_integer(), Acc} | {error, not_found | timeout}.
fold(Name, Arguments, Fun, Acc) ->
    maybe
        {ok, Port} ?= open(Name, Arguments, []),
        follow(Port, Fun, Acc, infinity)
    end.

-spec open(string(), [string()], [term()]) -> {ok, port()} | {error, not_found}.
open(Name, Arguments, Options) ->
    case os:find_executable(Name) of
        false ->
            {error, not_found};
        Path ->
            Settings = [{args, Arguments}, {env, ?ENVIRONMENT}, binary, exit_status, hide],
            {ok, open_port({spawn_executable, Path}, Settings ++ Options)}
    end.

-spec follow(port(), fun((binary(), Acc) -> Acc), Acc, timeout()) ->
    {ok, non_neg_integer(), Acc} | {error, timeout}.
follow(Port, Fun, Acc, Timeout) ->
    Timer = deadline(Timeout),
    try
        collect(Port, Fun, Acc, Timer)
    after
        cancel(Timer)
    end.

-spec collect(port(), fun((binary(), Acc) -> Acc), Acc, reference()) ->
    {ok, non_neg_integer(), Acc} | {error, timeout}.
collect(Port, Fun, Acc, Timer) ->
    receive
        {Port, {data, Chunk}} -> collect(Port, Fun, Fun(Chunk, Acc), Timer);
        {Port, {exit_status, Status}} -> {ok, Status, Acc};
        {timeout, Timer, stop} -> stop(Port)
    end.

-spec deadline(timeout()) -> reference().
deadline(infinity) -> make_ref();
deadline(Timeout) -> erlang:start_timer(Timeout, self(), stop).

-spec cancel(reference()) -> ok.
cancel(Timer) ->
    _ = erlang:cancel_timer(Timer),
    receive
        {timeout, Timer, stop} -> ok
    after 0 -> ok
    end.

%% Closing a port leaves the program running: it is told to end, and what it still says is dropped.
-spec stop(port()) -> {error, timeout}.
stop(Port) ->
    Pids = [Pid || {os_pid, Pid} <- [erlang:port_info(Port, os_pid)]],
    _ = [run("kill", [integer_to_list(Pid)], 5000) || Pid <- Pids],
    _ = erlang:unlink(Port),
    _ = erlang:exit(Port, kill),
    drop(Port),
    {error, timeout}.

-spec drop(port()) -> ok.
drop(Port) ->
    receive
        {Port, _} -> drop(Port)
    after 0 -> ok
    end.
