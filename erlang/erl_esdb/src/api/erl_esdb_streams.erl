-module(erl_esdb_streams).
-moduledoc """
Streams: the API for writing and reading events.

A stream is named by a binary and numbers its events from 0. An append writes all its events or
none, and of many appends that expect the same version exactly one is done. Beside its version in
the stream an event has a position, its place in the order of all events of the store.

```erlang
1> {ok, _} = erl_esdb:start_store(shop).
2> Placed = #{event_type => <<"Placed">>, data => #{total => 42}}.
3> erl_esdb_streams:append(shop, <<"order-1">>, -1, [Placed, Placed]).
{ok,1}
4> erl_esdb_streams:append(shop, <<"order-1">>, 0, [Placed]).
{error,{wrong_expected_version,0,1}}
5> {ok, [E0, E1]} = erl_esdb_streams:read(shop, <<"order-1">>, 0, 10, forward).
```

## Errors

Every function answers `{error, R}` where the store cannot be reached, R one of
`{store_not_started, S}`, `{timeout, S}`, `{no_quorum, S}`, `{overloaded, S}`; only
`get_version/2` and `exists/2`, which have no room for it, raise `error({erl_esdb, R})` except
that they answer -1 and false where the store does not run. After `{timeout, S}` it is not known
whether an append was done; `{store_not_started, S}` says the same where the store ended during the
call, and that nothing was done where it did not run. A read that finds damaged events answers
`{error, {corrupt_events, Stream, Version}}`. Arguments of a wrong shape are `error(badarg)`.
""".

-export([append/4, append/5]).
-export([read/5, read/6, read_all/4, read_log/5, read_by_event_types/3]).
-export([get_version/2, exists/2, list_streams/1, delete/2]).
-export([do_append/4, do_read/5]).
-export_type([expected/0]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-doc """
What an append expects: an exact version, or -1 / `no_stream`, -2 / `any`, -4 / `stream_exists`.
""".
-type expected() :: integer() | any | no_stream | stream_exists.

-doc "The same as `append/5` without options.".
-spec append(Store :: atom(), Stream :: binary(), expected(), [new_event() | event()]) ->
    {ok, Version :: integer()} | {error, term()}.
append(Store, Stream, Expected, Events) ->
    append(Store, Stream, Expected, Events, #{}).

-doc """
Appends events to a stream: all or none. Answers the version of the last one.

Without events nothing is written, the expectation is checked, and the answer is the stream's
version (-1 where there is no stream). Options: `return => result` to get an `#append_result{}`
instead of the `version`, `timeout` in milliseconds (0 to 4,294,967,295 or `infinity`), `codec =>
json` or `none` for how the data are stored (`m:erl_esdb_json`; the default is that of the store);
others are ignored.

All events of an append have the same time, never earlier than the one before in their stream.

## Errors

- `{wrong_expected_version, Expected, Actual}`: both as numbers, Actual -1 where there is no stream
- `{invalid_event, {missing, Key} | {bad_type, Key} | {not_json, Key} | not_an_event}`
- `{duplicate_event_ids, [Id]}`: an id twice among these events
- `{event_too_large, Size, Max}`, `{batch_too_large, Size, Max}`: bytes, encoded
- `{too_many_events, Count, Max}`
- `{stream_id_too_long, Size, Max}`: a name may have 65,536 bytes
""".
-spec append(
    Store :: atom(),
    Stream :: binary(),
    expected(),
    [new_event() | event()],
    erl_esdb_store:append_options()
) -> {ok, Version :: integer() | append_result()} | {error, term()}.
append(Store, Stream, Expected, Events, Options) ->
    %% Misuse raises before anything is told: each start has its stop or its error.
    ok = erl_esdb_store:check_append(Store, Stream, Expected, Events, Options),
    Metadata = #{store_id => Store, stream_id => Stream},
    Begin = erlang:monotonic_time(),
    erl_esdb_telemetry:emit(
        ?STREAM_WRITE_START,
        #{system_time => erlang:system_time(millisecond)},
        Metadata#{event_count => length(Events), expected_version => Expected}
    ),
    Result = erl_esdb_store:append(Store, Stream, Expected, Events, Options),
    appended(Result, erlang:monotonic_time() - Begin, Metadata),
    returned(Result, Options).

-spec appended({ok, append_result()} | {error, term()}, integer(), map()) -> ok.
appended({ok, #append_result{version = Version, count = Count}}, Duration, Metadata) ->
    Measurements = #{duration => Duration, event_count => Count},
    erl_esdb_telemetry:emit(?STREAM_WRITE_STOP, Measurements, Metadata#{new_version => Version});
appended({error, Reason}, Duration, Metadata) ->
    erl_esdb_telemetry:emit(
        ?STREAM_WRITE_ERROR, #{duration => Duration}, Metadata#{reason => Reason}
    ).

-spec returned({ok, append_result()} | {error, term()}, map()) ->
    {ok, integer() | append_result()} | {error, term()}.
returned({ok, Result}, #{return := result}) -> {ok, Result};
returned({ok, #append_result{version = Version}}, _) -> {ok, Version};
returned({error, Reason}, _) -> {error, Reason}.

-doc "`append/4` without telemetry.".
-spec do_append(atom(), binary(), expected(), [new_event() | event()]) ->
    {ok, integer()} | {error, term()}.
do_append(Store, Stream, Expected, Events) ->
    returned(erl_esdb_store:append(Store, Stream, Expected, Events, #{}), #{}).

-doc "The same as `read/6` without options.".
-spec read(atom(), binary(), non_neg_integer(), erl_esdb_store:count(), direction()) ->
    {ok, [event()]} | {error, term()}.
read(Store, Stream, Start, Count, Direction) ->
    read(Store, Stream, Start, Count, Direction, #{}).

-doc """
Reads a window of versions: `Start` to `Start + Count - 1` forward, `Start` down to `Start - Count
+ 1` backward. Versions that do not exist or were removed are left out. `Count` may be `infinity`.

Options: `consistency` (`linearizable`, `read_your_writes` or `local`: all the same for a store in
memory), `timeout` in milliseconds, `decode => json` for data that are JSON text
(`m:erl_esdb_json`); others are ignored.

## Errors

- `{stream_not_found, Stream}`: the name is taken as it stands, `*` has no meaning in it
""".
-spec read(
    Store :: atom(),
    Stream :: binary(),
    Start :: non_neg_integer(),
    erl_esdb_store:count(),
    direction(),
    erl_esdb_store:read_options()
) -> {ok, [event()]} | {error, term()}.
read(Store, Stream, Start, Count, Direction, Options) ->
    told(Store, Stream, Start, Count, Direction, Options).

%% A read that fails emits nothing, so what started it is told when it is known to have gone well.
-spec told(
    atom(),
    binary(),
    non_neg_integer() | last,
    erl_esdb_store:count(),
    direction(),
    erl_esdb_store:read_options()
) -> {ok, [event()]} | {error, term()}.
told(Store, Stream, Start, Count, Direction, Options) ->
    Began = {erlang:system_time(millisecond), erlang:monotonic_time()},
    maybe
        {ok, Events} ?= erl_esdb_store:read(Store, Stream, Start, Count, Direction, Options),
        tell(Began, length(Events), #{store_id => Store, stream_id => Stream}, #{
            start_version => Start, count => Count, direction => Direction
        }),
        {ok, Events}
    end.

-spec tell({integer(), integer()}, non_neg_integer(), map(), map()) -> ok.
tell({Time, Begin}, Count, Metadata, Window) ->
    Duration = erlang:monotonic_time() - Begin,
    Start = maps:merge(Metadata, Window),
    erl_esdb_telemetry:emit(?STREAM_READ_START, #{system_time => Time}, Start),
    erl_esdb_telemetry:emit(
        ?STREAM_READ_STOP, #{duration => Duration, event_count => Count}, Metadata
    ).

-doc "`read/5` without telemetry.".
-spec do_read(atom(), binary(), non_neg_integer(), erl_esdb_store:count(), direction()) ->
    {ok, [event()]} | {error, term()}.
do_read(Store, Stream, Start, Count, Direction) ->
    erl_esdb_store:read(Store, Stream, Start, Count, Direction, #{}).

-doc """
Reads a whole stream, or all streams.

With the name of a stream: its first `Count` events forward, its newest `Count` backward. With a
number: the events of all streams in the order of positions, forward from this position on,
backward leaving out that many positions at the end.
""".
-spec read_all(atom(), binary() | non_neg_integer(), erl_esdb_store:count(), direction()) ->
    {ok, [event()]} | {error, term()}.
read_all(Store, Stream, Count, forward) when is_binary(Stream) ->
    told(Store, Stream, 0, Count, forward, #{});
read_all(Store, Stream, Count, backward) when is_binary(Stream) ->
    told(Store, Stream, last, Count, backward, #{});
read_all(Store, Offset, Count, forward) ->
    read_log(Store, Offset, Count, forward, #{});
read_all(Store, Offset, Count, backward) when is_integer(Offset), Offset >= 0 ->
    erl_esdb_store:read_log_end(Store, Offset, Count);
read_all(_, _, _, _) ->
    error(badarg).

-doc """
Reads `Count` events of all streams in the order of positions, from a position on, forward or
backward; `last` begins backward with the newest. Events that were removed are left out and do not
count, so a reader goes on from the last position it got plus 1 (minus 1 backward). Options as
`read/6`.
""".
-spec read_log(
    Store :: atom(),
    FromPosition :: non_neg_integer() | last,
    erl_esdb_store:count(),
    direction(),
    erl_esdb_store:read_options()
) -> {ok, [event()]} | {error, term()}.
read_log(Store, From, Count, Direction, Options) ->
    erl_esdb_store:read_log(Store, From, Count, Direction, Options).

-doc """
Reads the events of some types, of all streams, in the order of positions, at most so many. No types
means all events. The last argument may be a map with `batch_size` (default 1000).
""".
-spec read_by_event_types(
    atom(), [binary()], pos_integer() | #{batch_size => pos_integer(), _ => _}
) -> {ok, [event()]} | {error, term()}.
read_by_event_types(Store, Types, Options) when is_map(Options) ->
    read_by_event_types(Store, Types, maps:get(batch_size, Options, 1000));
read_by_event_types(Store, Types, BatchSize) ->
    erl_esdb_store:read_by_types(Store, Types, BatchSize).

-doc """
The version of the newest event; -1 where there is no such stream or the store does not run.

It does not change when events are removed. Raises `error({erl_esdb, {timeout | no_quorum |
overloaded, S}})`:
-1 would invite a caller to begin a second stream.
""".
-spec get_version(atom(), binary()) -> integer().
get_version(Store, Stream) ->
    case erl_esdb_store:info(Store, Stream) of
        {ok, #{next := Next}} -> Next - 1;
        {error, {stream_not_found, _}} -> ?NO_STREAM;
        {error, {store_not_started, _}} -> ?NO_STREAM;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "Whether there is such a stream; see `get_version/2` for a store that does not run or answer.".
-spec exists(atom(), binary()) -> boolean().
exists(Store, Stream) -> get_version(Store, Stream) >= 0.

-doc "The names of all streams, sorted.".
-spec list_streams(atom()) -> {ok, [binary()]} | {error, term()}.
list_streams(Store) -> erl_esdb_store:streams(Store).

-doc """
Removes a stream and its events; `ok` also where there is none. Its versions begin at 0 when it is
written again; positions are not used again.
""".
-spec delete(atom(), binary()) -> ok | {error, term()}.
delete(Store, Stream) -> erl_esdb_store:delete(Store, Stream).
