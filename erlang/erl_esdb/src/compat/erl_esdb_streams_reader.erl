-module(erl_esdb_streams_reader).
-moduledoc """
Reads through a process of their stream, for callers of the original. `erl_esdb_streams:read/5` does
the same without one.

```erlang
1> {ok, Events} = erl_esdb_streams_reader:read(shop, ~"order-1", 0, 10, forward).
```

The process is a member of the group `{Store, Stream, streams_reader}` in the scope `erl_esdb_pg`,
and ends when it was idle for `reader_idle_timeout_ms` (10,000 by default).
""".

-export([read/5, get_streams/1, get_reader/2, start_link/1]).

-include("erl_esdb.hrl").

-define(KIND, streams_reader).

-doc """
The same as `erl_esdb_streams:read/5`. Also `{error, {worker_down, Store}}`: the process was killed
meanwhile.
""".
-spec read(atom(), binary(), non_neg_integer(), erl_esdb_store:count(), direction()) ->
    {ok, [event()]} | {error, term()}.
read(Store, Stream, Start, Count, Direction) ->
    erl_esdb_streams_worker:ask(?MODULE, ?KIND, {Store, Stream}, {read, Start, Count, Direction}).

-doc "The same as `erl_esdb_streams:list_streams/1`.".
-spec get_streams(Store :: atom()) -> {ok, [binary()]} | {error, term()}.
get_streams(Store) -> erl_esdb_streams:list_streams(Store).

-doc """
The reader of a stream; it is started where there is none. Raises
`error({erl_esdb, {store_not_started, Store}})`.
""".
-spec get_reader(Store :: atom(), Stream :: binary()) -> pid().
get_reader(Store, Stream) ->
    case erl_esdb_streams_worker:find(?MODULE, ?KIND, {Store, Stream}) of
        {ok, Pid} -> Pid;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "Starts a reader.".
-spec start_link({Store :: atom(), Stream :: binary(), Partition :: non_neg_integer()}) ->
    gen_server:start_ret().
start_link(Key) -> erl_esdb_streams_worker:start_link(?MODULE, ?KIND, Key).
