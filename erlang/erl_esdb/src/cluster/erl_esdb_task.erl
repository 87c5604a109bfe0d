-module(erl_esdb_task).
-moduledoc """
Work that a process has done aside, so that it can answer others meanwhile.

```erlang
1> Ref = erl_esdb_task:start(fun() -> lists:sum([1, 2, 3]) end).
2> receive {'DOWN', Ref, process, _, {done, Sum}} -> Sum end.
6
```

Another reason than `{done, Result}` is that of a crash.
""".

-export([start/1, run/1]).

-doc "Runs a fun in a process of its own. How it ended comes as the end of a monitored process.".
-spec start(fun(() -> term())) -> reference().
start(Fun) ->
    {_, Ref} = spawn_monitor(?MODULE, run, [Fun]),
    Ref.

-doc false.
-spec run(fun(() -> term())) -> no_return().
run(Fun) -> exit({done, Fun()}).
