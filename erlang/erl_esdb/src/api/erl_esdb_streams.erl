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
that they answer -1 and false where the store does not run. Every function with options takes a
`timeout` in milliseconds (0 to 4,294,967,295 or `infinity`), by default that of the store.

After `{timeout, S}` it is not known whether an append was done; `{store_not_started, S}` says the
same where the store ended during the call, and that nothing was done where it did not run.
`{overloaded, S}`: `max_queue` commands wait already, and this one was not sent. A read that finds
damaged events answers `{error, {corrupt_events, Stream, Version}}`. Arguments of a wrong shape are
`error(badarg)`.
""".

-export([append/4, append/5, append_many/3]).
-export([read/5, read/6, read_all/4, read_all/5, read_log/5]).
-export([read_category/5, read_category/6, read_by_event_types/3, read_by_tags/3, read_by_tags/4]).
-export([get_version/2, get_version/3, exists/2, exists/3, list_streams/1, list_streams/2]).
-export([delete/2, delete/3, set_metadata/4, get_metadata/2, get_metadata/3]).
-export([do_append/4, do_read/5]).
-export_type([expected/0, search_options/0]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-define(COUNT, 1000).

-doc """
Of a search through all events: at most so many (`batch_size`, default 1000), from a position on
(`from`, default the first or, backward, the newest), in which `direction` (default `forward`).
""".
-type search_options() :: #{
    batch_size => erl_esdb_store:count(),
    from => non_neg_integer() | last,
    direction => direction(),
    timeout => timeout(),
    _ => _
}.

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
version (-1 where there is no stream). All events of an append have the same time, never earlier
than the one before in their stream. Options, others are ignored:

- `return => result`: an `#append_result{}` instead of the version
- `timeout`
- `codec => json` or `none`: how the data are stored (`m:erl_esdb_json`); the default is the store's
- `condition => #{fail_if_events_match => Query, after_position => P}`: the append is done only if
  no event of the store after position P matches (without P: no event at all). A query is a list of
  items `#{types => [Type], tags => [Tag]}`; an event matches an item that has its type (no types:
  any) and whose tags it has all, and a query one of whose items it matches; `[]` is matched by
  every event. Who decides on what a query found appends with the same query and the last position
  it saw: so no stream needs to guard the decision (a dynamic consistency boundary).

## Sending an append again

An append whose answer was lost may be sent again, where the caller gave its events ids
(`event_id`):

- With an exact version, -1 or `no_stream`: if the events after that version are exactly these, in
  this order, the answer is the first one again, however old it is.
- With `any` or `stream_exists`: if they are among the last 1,000 appends of the stream
  (`idempotence_appends`) and the last 100,000 ids of the store (`idempotence_window`). Of an append
  with more than 1,000 events this is known as a whole only.
- If only some of them are there, nothing is written: `{duplicate_event_ids, [Id]}`.

Ids that were removed in the meantime are not known any more. Other streams may have the same ids.

## Errors

- `{wrong_expected_version, Expected, Actual}`: both as numbers, Actual -1 where there is no stream
- `{invalid_event, {missing, Key} | {bad_type, Key} | {not_json, Key} | not_an_event}`
- `{duplicate_event_ids, [Id]}`: an id twice among these events, or some were appended before
- `{condition_failed, Position}`: of the first event that matches
- `{event_too_large, Size, Max}`, `{batch_too_large, Size, Max}`: bytes, encoded
- `{too_many_events, Count, Max}`
- `{stream_id_too_long, Size, Max}`: a name may have 65,536 bytes
""".
-spec append(
    Store :: atom(),
    Stream :: binary(),
    expected(),
    [new_event() | event()],
    erl_esdb_append:options()
) -> {ok, Version :: integer() | append_result()} | {error, term()}.
append(Store, Stream, Expected, Events, Options) ->
    %% Misuse raises before anything is told: each start has its stop or its error.
    ok = erl_esdb_append:check(Store, Stream, Expected, Events, Options),
    Begin = erlang:monotonic_time(),
    ok = appending(Store, {Stream, Expected, Events}),
    Result = erl_esdb_store:append(Store, Stream, Expected, Events, Options),
    Duration = erlang:monotonic_time() - Begin,
    appended(Result, Duration, #{store_id => Store, stream_id => Stream}),
    returned(Result, Options).

-doc """
Appends to several streams, each with its expectation: all of it or nothing.

The events get their positions in the order of the list, with no others between, and whoever reads
all streams sees all of them or none. An append that is sent again is recognised as with `append/5`,
if all of it was there. The options are those of `append/5`; with `return => result` the map has an
`#append_result{}` for each stream.

```erlang
1> Out = #{event_type => ~"Withdrawn", data => #{amount => 5}}.
2> In = #{event_type => ~"Deposited", data => #{amount => 5}}.
3> erl_esdb_streams:append_many(bank, [{~"account-1", 7, [Out]}, {~"account-2", any, [In]}], #{}).
{ok,#{<<"account-1">> => 8,<<"account-2">> => 0}}
```

## Errors

`{Stream, Reason}` with the first stream that refuses and a reason of `append/5`, limits being those
of the whole; `{Stream, duplicate_stream}`; `{condition_failed, Position}`; or that the store cannot
be reached.
""".
-spec append_many(
    Store :: atom(),
    [{Stream :: binary(), expected(), [new_event() | event()]}],
    erl_esdb_append:options()
) ->
    {ok, #{Stream :: binary() => Version :: integer() | append_result()}}
    | {error, {Stream :: binary(), Reason :: term()} | term()}.
append_many(Store, Parts, Options) ->
    ok = erl_esdb_append:check_many(Store, Parts, Options),
    Begin = erlang:monotonic_time(),
    ok = lists:foreach(fun(Part) -> appending(Store, Part) end, Parts),
    Result = erl_esdb_store:append_many(Store, Parts, Options),
    Duration = erlang:monotonic_time() - Begin,
    ok = lists:foreach(fun(Part) -> appended_part(Result, Duration, Store, Part) end, Parts),
    returned_many(Result, Options).

-spec appending(atom(), {binary(), expected(), [new_event() | event()]}) -> ok.
appending(Store, {Stream, Expected, Events}) ->
    erl_esdb_telemetry:emit(
        ?STREAM_WRITE_START,
        #{system_time => erlang:system_time(millisecond)},
        #{
            store_id => Store,
            stream_id => Stream,
            event_count => length(Events),
            expected_version => Expected
        }
    ).

-spec appended_part(
    {ok, #{binary() => append_result()}} | {error, term()}, integer(), atom(), {binary(), _, _}
) -> ok.
appended_part({ok, Results}, Duration, Store, {Stream, _, _}) ->
    Metadata = #{store_id => Store, stream_id => Stream},
    appended({ok, map_get(Stream, Results)}, Duration, Metadata);
appended_part({error, Reason}, Duration, Store, {Stream, _, _}) ->
    appended({error, Reason}, Duration, #{store_id => Store, stream_id => Stream}).

-spec returned_many({ok, #{binary() => append_result()}} | {error, term()}, map()) ->
    {ok, #{binary() => integer() | append_result()}} | {error, term()}.
returned_many({ok, Results}, #{return := result}) ->
    {ok, Results};
returned_many({ok, Results}, _) ->
    {ok, #{Stream => Version || Stream := #append_result{version = Version} <- Results}};
returned_many({error, Reason}, _) ->
    {error, Reason}.

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
memory), `timeout`, `hidden => true` for events that the metadata of the stream hides, too, `decode
=> json` for data that are JSON text (`m:erl_esdb_json`), `verify` (`m:erl_esdb_integrity`), and
`archives => Backend` to go on where events were archived and removed (`m:erl_esdb_archive`); others
are ignored.

## Errors

- `{stream_not_found, Stream}`: the name is taken as it stands, `*` has no meaning in it
- `{invalid_option, archives, Value}`: that is no backend
- with `archives`, those of `erl_esdb_archive:read_through/7`
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
        {ok, Events} ?= found(Store, Stream, {Start, Count, Direction}, Options),
        tell(Began, length(Events), #{store_id => Store, stream_id => Stream}, #{
            start_version => Start, count => Count, direction => Direction
        }),
        {ok, Events}
    end.

-spec found(atom(), binary(), erl_esdb_store:window(), erl_esdb_store:read_options()) ->
    {ok, [event()]} | {error, term()}.
found(Store, Stream, {Start, Count, Direction}, #{archives := Backend} = Options) ->
    maybe
        ok ?= erl_esdb_archive_backend:check_option(Options),
        erl_esdb_archive:read_through(Store, Stream, Start, Count, Direction, Backend, Options)
    end;
found(Store, Stream, {Start, Count, Direction}, Options) ->
    erl_esdb_store:read(Store, Stream, Start, Count, Direction, Options).

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

-doc "The same as `read_all/5` without options.".
-spec read_all(atom(), binary() | non_neg_integer(), erl_esdb_store:count(), direction()) ->
    {ok, [event()]} | {error, term()}.
read_all(Store, From, Count, Direction) -> read_all(Store, From, Count, Direction, #{}).

-doc """
Reads a whole stream, or all streams. Options as `read/6`.

With the name of a stream: its first `Count` events forward, its newest `Count` backward. With a
number: the events of all streams in the order of positions, forward from this position on,
backward leaving out that many positions at the end.
""".
-spec read_all(
    atom(),
    binary() | non_neg_integer(),
    erl_esdb_store:count(),
    direction(),
    erl_esdb_store:read_options()
) -> {ok, [event()]} | {error, term()}.
read_all(Store, Stream, Count, forward, Options) when is_binary(Stream) ->
    told(Store, Stream, 0, Count, forward, Options);
read_all(Store, Stream, Count, backward, Options) when is_binary(Stream) ->
    told(Store, Stream, last, Count, backward, Options);
read_all(Store, Offset, Count, forward, Options) ->
    read_log(Store, Offset, Count, forward, Options);
read_all(Store, Offset, Count, backward, Options) when is_integer(Offset), Offset >= 0 ->
    erl_esdb_store:read_log_end(Store, Offset, Count, Options);
read_all(_, _, _, _, _) ->
    error(badarg).

-doc """
Reads `Count` events of all streams in the order of positions, from a position on, forward or
backward; `last` begins backward with the newest. Events that were removed are left out and do not
count, so a reader goes on from the last position it got plus 1 (minus 1 backward). Options as
`read/6` but for `verify` and `archives`, which mean nothing here: over many streams nothing is
verified, and nothing is read from archives. The same holds for categories, types and tags.
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

-doc "The same as `read_category/6` without options.".
-spec read_category(
    atom(), binary(), non_neg_integer() | last, erl_esdb_store:count(), direction()
) -> {ok, [event()]} | {error, term()}.
read_category(Store, Pattern, From, Count, Direction) ->
    read_category(Store, Pattern, From, Count, Direction, #{}).

-doc """
Reads `Count` events of the streams whose names match a pattern, in the order of positions, as
`read_log/5` does of all streams.

`*` stands for any bytes, everything else for itself: `order-*` is the category `order`. There is no
index of categories: what lies between their events is passed over, though not decoded, so the time
is that of the log from the position on. Only a pattern without `*` takes the time of its stream.
""".
-spec read_category(
    Store :: atom(),
    Pattern :: binary(),
    FromPosition :: non_neg_integer() | last,
    erl_esdb_store:count(),
    direction(),
    erl_esdb_store:read_options()
) -> {ok, [event()]} | {error, term()}.
read_category(Store, Pattern, From, Count, Direction, Options) ->
    erl_esdb_store:read_category(Store, Pattern, From, Count, Direction, Options).

-doc """
Reads the events of some types, of all streams, in the order of positions. No types means all
events. The last argument says how many at most, or is a map of `t:search_options/0`.
""".
-spec read_by_event_types(atom(), [binary()], erl_esdb_store:count() | search_options()) ->
    {ok, [event()]} | {error, term()}.
read_by_event_types(Store, Types, Given) ->
    {Window, Options} = window(Given),
    erl_esdb_store:read_by_types(Store, Types, Window, Options).

-doc "The same as `read_by_tags/4` with `any`.".
-spec read_by_tags(atom(), [binary()], erl_esdb_store:count() | search_options()) ->
    {ok, [event()]} | {error, term()}.
read_by_tags(Store, Tags, Given) -> read_by_tags(Store, Tags, any, Given).

-doc """
Reads the events that have one of these tags (`any`) or all of them (`all`), of all streams, in the
order of positions. No tags: no events. The last argument as of `read_by_event_types/3`.
""".
-spec read_by_tags(atom(), [binary()], any | all, erl_esdb_store:count() | search_options()) ->
    {ok, [event()]} | {error, term()}.
read_by_tags(Store, Tags, Which, Given) ->
    {Window, Options} = window(Given),
    erl_esdb_store:read_by_tags(Store, Tags, Which, Window, Options).

-spec window(erl_esdb_store:count() | search_options()) -> {erl_esdb_store:window(), map()}.
window(Options) when is_map(Options) ->
    Direction = maps:get(direction, Options, forward),
    From = maps:get(from, Options, first_of(Direction)),
    {{From, maps:get(batch_size, Options, ?COUNT), Direction}, Options};
window(Count) ->
    {{0, Count, forward}, #{}}.

-spec first_of(direction()) -> 0 | last.
first_of(backward) -> last;
first_of(_) -> 0.

-doc "The same as `get_version/3` without options.".
-spec get_version(atom(), binary()) -> integer().
get_version(Store, Stream) -> get_version(Store, Stream, #{}).

-doc """
The version of the newest event; -1 where there is no such stream or the store does not run.

It does not change when events are removed or hidden. Options as `read/6`. Raises
`error({erl_esdb, {timeout | no_quorum | overloaded, S}})`: -1 would invite a caller to begin a
second stream.
""".
-spec get_version(atom(), binary(), erl_esdb_store:read_options()) -> integer().
get_version(Store, Stream, Options) ->
    case erl_esdb_store:info(Store, Stream, Options) of
        {ok, #{next := Next}} -> Next - 1;
        {error, {stream_not_found, _}} -> ?NO_STREAM;
        {error, {store_not_started, _}} -> ?NO_STREAM;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "Whether there is such a stream; see `get_version/3` for a store that does not run or answer.".
-spec exists(atom(), binary()) -> boolean().
exists(Store, Stream) -> exists(Store, Stream, #{}).

-doc "The same with options as `read/6`.".
-spec exists(atom(), binary(), erl_esdb_store:read_options()) -> boolean().
exists(Store, Stream, Options) -> get_version(Store, Stream, Options) >= 0.

-doc "The names of all streams, sorted.".
-spec list_streams(atom()) -> {ok, [binary()]} | {error, term()}.
list_streams(Store) -> erl_esdb_store:streams(Store).

-doc """
A page of the names of streams, sorted, and from where to go on.

Options: `prefix`, or `pattern` with `*` for any bytes, or both; `from`, a name behind which to
begin; `limit` (default 1000, or `infinity`); `timeout`. The last element of the answer is `done`,
or the name to give as `from` of the next page, which may be empty. Streams that come or go in
between are listed or not; each other is listed once.

```erlang
1> {ok, Names, Next} = erl_esdb_streams:list_streams(shop, #{prefix => ~"order-", limit => 2}).
{ok,[<<"order-1">>,<<"order-10">>],<<"order-10">>}
2> erl_esdb_streams:list_streams(shop, #{prefix => ~"order-", limit => 2, from => Next}).
{ok,[<<"order-2">>],done}
```
""".
-spec list_streams(atom(), erl_esdb_store:names_options()) ->
    {ok, [binary()], Next :: binary() | done} | {error, term()}.
list_streams(Store, Options) -> erl_esdb_store:names(Store, Options).

-doc "The same as `delete/3` without options.".
-spec delete(atom(), binary()) -> ok | {error, term()}.
delete(Store, Stream) -> erl_esdb_store:delete(Store, Stream).

-doc """
Removes a stream and its events; `ok` also where there is none. Positions are not used again.

Afterwards the stream is not found and has version -1. By default nothing is left of it, and its
versions begin at 0 when it is written again. With `mode => tombstone` its last version is kept,
also its metadata: an append with -1 succeeds and goes on with the next version. Option: `timeout`.
""".
-spec delete(atom(), binary(), #{mode => hard | tombstone, timeout => timeout(), _ => _}) ->
    ok | {error, term()}.
delete(Store, Stream, Options) -> erl_esdb_store:delete(Store, Stream, Options).

-doc """
Says what of a stream may be read, in place of what was said before; `#{}` for everything.

- `max_age`: events that are older, in microseconds, are hidden
- `max_count`: all but the last so many
- `truncate_before`: events before this version

Every read leaves hidden events out, from the next one on; they are removed when the stream is
scavenged. Versions and positions stay. A stream may be told before it is written; deleting it, but
with a tombstone, forgets what was said. Option: `timeout`.

```erlang
1> ok = erl_esdb_streams:set_metadata(shop, ~"visits", #{max_count => 1000}, #{}).
```
""".
-spec set_metadata(
    atom(), binary(), erl_esdb_log:metadata(), #{timeout => timeout(), _ => _}
) -> ok | {error, term()}.
set_metadata(Store, Stream, Metadata, Options) ->
    erl_esdb_store:set_metadata(Store, Stream, Metadata, Options).

-doc "The same as `get_metadata/3` without options.".
-spec get_metadata(atom(), binary()) -> {ok, erl_esdb_log:metadata()} | {error, term()}.
get_metadata(Store, Stream) -> get_metadata(Store, Stream, #{}).

-doc "What `set_metadata/4` said of a stream; `#{}` where it did not. Options as `read/6`.".
-spec get_metadata(atom(), binary(), erl_esdb_store:read_options()) ->
    {ok, erl_esdb_log:metadata()} | {error, term()}.
get_metadata(Store, Stream, Options) -> erl_esdb_store:get_metadata(Store, Stream, Options).
