-module(erl_esdb_streams_writer).
-moduledoc """
Appends through a process of their stream, for callers of the original. `erl_esdb_streams:append/4`
does the same without one.

```erlang
1> erl_esdb_streams_writer:append(shop, ~"order-1", -1, [#{event_type => ~"Placed", data => #{}}]).
{ok,0}
```

The process is a member of the group `{Store, Stream, streams_writer}` in the scope `erl_esdb_pg`,
and ends when it was idle for `writer_idle_timeout_ms` (10,000 by default).
""".

-export([append/4, get_writer/2, start_link/1]).

-include("erl_esdb.hrl").

-define(KIND, streams_writer).

-doc """
The same as `erl_esdb_streams:append/4`. Also `{error, {worker_down, Store}}`: the process was
killed meanwhile, and it is not known whether the append was done.
""".
-spec append(atom(), binary(), erl_esdb_streams:expected(), [new_event() | event()]) ->
    {ok, Version :: integer()} | {error, term()}.
append(Store, Stream, Expected, Events) ->
    erl_esdb_streams_worker:ask(?MODULE, ?KIND, {Store, Stream}, {append, Expected, Events}).

-doc """
The writer of a stream; it is started where there is none. Raises
`error({erl_esdb, {store_not_started, Store}})`.
""".
-spec get_writer(Store :: atom(), Stream :: binary()) -> pid().
get_writer(Store, Stream) ->
    case erl_esdb_streams_worker:find(?MODULE, ?KIND, {Store, Stream}) of
        {ok, Pid} -> Pid;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "Starts a writer.".
-spec start_link({Store :: atom(), Stream :: binary(), Partition :: non_neg_integer()}) ->
    gen_server:start_ret().
start_link(Key) -> erl_esdb_streams_worker:start_link(?MODULE, ?KIND, Key).
