-module(erl_esdb_temporal).
-moduledoc """
A stream as it was at a time.

```erlang
1> {ok, Events} = erl_esdb_temporal:read_until(shop, ~"order-1", Yesterday).
2> {ok, [Last]} = erl_esdb_temporal:read_until(shop, ~"order-1", Yesterday,
       #{direction => backward, limit => 1}).
3> erl_esdb_temporal:version_at(shop, ~"order-1", Yesterday).
{ok,41}
```

Times are microseconds since 1970 and are compared with the `epoch_us` of the events, which never
runs backwards within a stream. So the versions that a time stands for are found by a binary
search, and only the events asked for are read.

## Options

- `direction`: `forward` (default) or `backward`, by version
- `limit`: so many events at most, counted in that direction
- `timeout`, `consistency`, `decode`, `verify`, `hidden`: as in `erl_esdb_streams:read/6`; the time
  is that of the search and that of the read, each

Others are ignored; `archives` is `{invalid_option, archives, Backend}`, as only the events that are
kept are looked at.

## Errors

- `{stream_not_found, Stream}`
- `{invalid_option, Key, Value}`

and those of `m:erl_esdb_streams`. Arguments of a wrong shape are `error(badarg)`.
""".

-export([read_until/3, read_until/4, read_range/4, read_range/5, version_at/3, version_at/4]).
-export_type([options/0]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-type options() :: #{
    direction => direction(),
    limit => pos_integer(),
    timeout => timeout(),
    consistency => linearizable | read_your_writes | local,
    decode => erl_esdb_json:codec(),
    verify => erl_esdb_integrity:mode(),
    hidden => boolean(),
    _ => _
}.

-define(READ_OPTIONS, [timeout, consistency, decode, verify, hidden]).

-doc #{equiv => read_until(Store, Stream, Time, #{})}.
-spec read_until(Store :: atom(), Stream :: binary(), Time :: integer()) ->
    {ok, [event()]} | {error, term()}.
read_until(Store, Stream, Time) -> read_until(Store, Stream, Time, #{}).

-doc "The events up to a time, it included.".
-spec read_until(Store :: atom(), Stream :: binary(), Time :: integer(), options()) ->
    {ok, [event()]} | {error, term()}.
read_until(Store, Stream, Time, Options) when is_integer(Time), is_map(Options) ->
    Read = fun() -> read(Store, Stream, beginning, Time, Options) end,
    told(?TEMPORAL_READ_UNTIL, Store, Stream, Time, Read);
read_until(_, _, _, _) ->
    error(badarg).

-doc #{equiv => read_range(Store, Stream, From, To, #{})}.
-spec read_range(Store :: atom(), Stream :: binary(), From :: integer(), To :: integer()) ->
    {ok, [event()]} | {error, term()}.
read_range(Store, Stream, From, To) -> read_range(Store, Stream, From, To, #{}).

-doc "The events from a time to another, both included; none where `From` is later than `To`.".
-spec read_range(
    Store :: atom(), Stream :: binary(), From :: integer(), To :: integer(), options()
) ->
    {ok, [event()]} | {error, term()}.
read_range(Store, Stream, From, To, Options) when
    is_integer(From), is_integer(To), is_map(Options)
->
    Read = fun() -> read(Store, Stream, From, To, Options) end,
    told(?TEMPORAL_READ_RANGE, Store, Stream, {From, To}, Read);
read_range(_, _, _, _, _) ->
    error(badarg).

-doc "The same as `version_at/4` without options.".
-spec version_at(Store :: atom(), Stream :: binary(), Time :: integer()) ->
    {ok, integer()} | {error, term()}.
version_at(Store, Stream, Time) -> version_at(Store, Stream, Time, #{}).

-doc """
The version of the last event up to a time, it included; -1 where there is none.

Removed events do not count: before the first event that is kept the answer is -1. Options:
`timeout`, `consistency`, `hidden`.
""".
-spec version_at(Store :: atom(), Stream :: binary(), Time :: integer(), options()) ->
    {ok, integer()} | {error, term()}.
version_at(Store, Stream, Time, Options) when is_integer(Time), is_map(Options) ->
    case erl_esdb_bisect:window(Store, Stream, beginning, Time, Options) of
        {ok, {Low, Before}} when Low < Before -> {ok, Before - 1};
        {ok, _} -> {ok, -1};
        {error, Reason} -> {error, Reason}
    end;
version_at(_, _, _, _) ->
    error(badarg).

-spec read(atom(), binary(), integer() | beginning, integer(), options()) ->
    {ok, [event()]} | {error, term()}.
read(Store, Stream, From, To, Options) ->
    maybe
        {ok, Direction, Limit} ?= order(Options),
        ReadOptions = maps:with(?READ_OPTIONS, Options),
        {ok, Window} ?= erl_esdb_bisect:window(Store, Stream, From, To, ReadOptions),
        read_window(Store, Stream, Window, Direction, Limit, ReadOptions)
    end.

-spec read_window(
    atom(),
    binary(),
    {non_neg_integer(), non_neg_integer()},
    direction(),
    pos_integer() | infinity,
    erl_esdb_store:read_options()
) -> {ok, [event()]} | {error, term()}.
read_window(_, _, {Low, Before}, _, _, _) when Low >= Before ->
    {ok, []};
read_window(Store, Stream, {Low, Before}, Direction, Limit, Options) ->
    %% Every atom is greater than every number.
    Count = min(Before - Low, Limit),
    Start =
        case Direction of
            forward -> Low;
            backward -> Before - 1
        end,
    erl_esdb_store:read(Store, Stream, Start, Count, Direction, Options).

-spec order(map()) ->
    {ok, direction(), pos_integer() | infinity} | {error, {invalid_option, atom(), term()}}.
order(Options) ->
    Direction = maps:get(direction, Options, forward),
    Limit = maps:get(limit, Options, infinity),
    if
        Direction =/= forward, Direction =/= backward ->
            {error, {invalid_option, direction, Direction}};
        is_map_key(limit, Options), not is_integer(Limit); is_integer(Limit), Limit < 1 ->
            {error, {invalid_option, limit, Limit}};
        is_map_key(archives, Options) ->
            {error, {invalid_option, archives, map_get(archives, Options)}};
        true ->
            {ok, Direction, Limit}
    end.

-spec told([atom(), ...], atom(), binary(), term(), fun(() -> Result)) -> Result when
    Result :: {ok, [event()]} | {error, term()}.
told(Event, Store, Stream, Timestamp, Read) ->
    Begin = erlang:monotonic_time(),
    Result = Read(),
    Duration = erlang:monotonic_time() - Begin,
    Metadata = #{store_id => Store, stream_id => Stream, timestamp => Timestamp},
    erl_esdb_telemetry:emit(
        Event, #{duration => Duration, event_count => count(Result)}, Metadata
    ),
    Result.

-spec count({ok, [event()]} | {error, term()}) -> non_neg_integer().
count({ok, Events}) -> length(Events);
count({error, _}) -> 0.
