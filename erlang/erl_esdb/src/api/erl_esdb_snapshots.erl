-module(erl_esdb_snapshots).
-moduledoc """
Snapshots: the state of a stream at a version, kept so that not all of its events need be read.

```erlang
1> ok = erl_esdb_snapshots:save(shop, ~"order-1", 99, #{total => 42}).
2> {ok, #snapshot{version = 99, data = State}} = erl_esdb_snapshots:load(shop, ~"order-1").
3> erl_esdb_streams:read(shop, ~"order-1", 100, infinity, forward).   % the events since
```

A snapshot stands by itself: the stream need not exist, and removing events does not remove it. Its
data is any term of at most 16 MiB packed. Funs, pids and the like are terms of one node: do not
keep them.

## Policies

A policy says for the streams of a pattern (`*` is any run of bytes) after how many events a
snapshot is due, how its state is made, and how many are kept:

```erlang
1> Policy = #{every => 100, keep => 2, fold => {order, apply_event, []}, initial => #{}}.
2> ok = erl_esdb_snapshots:set_policy(shop, ~"order-*", Policy).
3> erl_esdb_snapshots:maybe_snapshot(shop, ~"order-1").
not_due
```

`maybe_snapshot/2` folds the events since the latest snapshot, one after the other, with
`order:apply_event(Event, State)`. Call it after an append, or where events are read anyway, such as
in a projection. Policies are kept in the store, so their fold is a function of a module.

## Errors

`{error, R}` as in `m:erl_esdb_streams` where the store cannot be reached; `exists/2` and
`exists_at/3`, which have no room for it, raise `error({erl_esdb, R})`. Arguments of a wrong shape
are `error(badarg)`.
""".

-export([save/4, save/5, load/2, load_at/3]).
-export([list/2, delete/2, delete_at/3, exists/2, exists_at/3]).
-export([set_policy/3, get_policy/2, delete_policy/2, list_policies/1, maybe_snapshot/2]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-doc "The same as `save/5` with empty metadata.".
-spec save(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), Data :: term()) ->
    ok | {error, term()}.
save(Store, Stream, Version, Data) -> save(Store, Stream, Version, Data, #{}).

-doc """
Keeps the state that the events up to `Version`, with it, have led to; in place of the snapshot of
this version where there is one.

## Errors

- `{document_too_large, Size, Max}`: bytes, packed
""".
-spec save(
    Store :: atom(),
    Stream :: binary(),
    Version :: non_neg_integer(),
    Data :: term(),
    Metadata :: map()
) -> ok | {error, term()}.
save(Store, Stream, Version, Data, Metadata) when is_map(Metadata) ->
    Begin = erlang:monotonic_time(),
    Now = erlang:system_time(millisecond),
    Snapshot = #snapshot{
        stream_id = Stream, version = Version, data = Data, metadata = Metadata, timestamp = Now
    },
    maybe
        ok ?= erl_esdb_snapshots_store:put(Store, Snapshot),
        tell(?SNAPSHOT_CREATED, #{system_time => Now}, Begin, Store, Snapshot)
    end;
save(_, _, _, _, _) ->
    error(badarg).

-doc "The snapshot of the highest version, whenever it was saved.".
-spec load(Store :: atom(), Stream :: binary()) ->
    {ok, snapshot()} | {error, not_found | term()}.
load(Store, Stream) ->
    Begin = erlang:monotonic_time(),
    maybe
        {ok, #snapshot{} = Snapshot} ?=
            found(fun() -> erl_esdb_snapshots_store:get_latest(Store, Stream) end),
        tell(?SNAPSHOT_READ, #{}, Begin, Store, Snapshot),
        {ok, Snapshot}
    end.

-doc "The snapshot of this version.".
-spec load_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) ->
    {ok, snapshot()} | {error, not_found | term()}.
load_at(Store, Stream, Version) ->
    found(fun() -> erl_esdb_snapshots_store:get(Store, Stream, Version) end).

%% Here is room for a failure.
-spec found(fun(() -> snapshot() | undefined)) -> {ok, snapshot()} | {error, term()}.
found(Get) ->
    try Get() of
        undefined -> {error, not_found};
        Snapshot -> {ok, Snapshot}
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-doc "All snapshots of a stream, by ascending version.".
-spec list(Store :: atom(), Stream :: binary()) -> {ok, [snapshot()]} | {error, term()}.
list(Store, Stream) ->
    try
        erl_esdb_snapshots_store:list(Store, Stream)
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-doc "Removes all snapshots of a stream; `ok` also where there is none.".
-spec delete(Store :: atom(), Stream :: binary()) -> ok | {error, term()}.
delete(Store, Stream) -> erl_esdb_snapshots_store:delete(Store, Stream).

-doc "Removes the snapshot of a version; `ok` also where there is none.".
-spec delete_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) ->
    ok | {error, term()}.
delete_at(Store, Stream, Version) -> erl_esdb_snapshots_store:delete(Store, Stream, Version).

-doc "Whether a stream has a snapshot.".
-spec exists(Store :: atom(), Stream :: binary()) -> boolean().
exists(Store, Stream) -> erl_esdb_snapshots_store:exists(Store, Stream).

-doc "Whether a version of a stream has a snapshot.".
-spec exists_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) -> boolean().
exists_at(Store, Stream, Version) -> erl_esdb_snapshots_store:exists(Store, Stream, Version).

-spec tell([atom(), ...], map(), integer(), atom(), snapshot()) -> ok.
tell(Event, Measurements, Begin, Store, #snapshot{stream_id = Stream} = Snapshot) ->
    Duration = erlang:monotonic_time() - Begin,
    erl_esdb_telemetry:emit(
        Event,
        Measurements#{duration => Duration, size_bytes => size_of(Snapshot#snapshot.data)},
        #{store_id => Store, stream_id => Stream, version => Snapshot#snapshot.version}
    ).

-spec size_of(term()) -> non_neg_integer().
size_of(Data) when is_binary(Data) -> byte_size(Data);
size_of(Data) -> erlang:external_size(Data).

%% ---- policies

-doc """
Sets the policy of a pattern, in place of the one it has.

- `every`: a snapshot is due when so many events came after the latest one
- `keep`: how many snapshots stay, the newest; default `infinity`
- `fold`: `{Module, Function, Args}`, called as `Module:Function(Event, State, Args...)`
- `initial`: the state before the first event, default `#{}`
- `automatic`: whether the store takes the snapshots by itself, a moment after the events were
  committed (`m:erl_esdb_snapshotter`), also of streams that are there already; default `true`.
  `maybe_snapshot/2` works with both

Where several patterns match a stream, the one with the most bytes beside `*` holds, of these the
first in term order.

## Errors

- `{invalid_option, Key, Value}`: also for keys that are missing (`undefined`) or not known
""".
-spec set_policy(Store :: atom(), Pattern :: binary(), erl_esdb_snapshot_policy:policy()) ->
    ok | {error, term()}.
set_policy(Store, Pattern, Policy) -> erl_esdb_snapshot_policy:set(Store, Pattern, Policy).

-doc "The policy that holds for a stream.".
-spec get_policy(Store :: atom(), Stream :: binary()) ->
    {ok, {Pattern :: binary(), erl_esdb_snapshot_policy:policy()}} | {error, not_found | term()}.
get_policy(Store, Stream) -> erl_esdb_snapshot_policy:get(Store, Stream).

-doc "Removes the policy of a pattern; `ok` also where there is none. Snapshots stay.".
-spec delete_policy(Store :: atom(), Pattern :: binary()) -> ok | {error, term()}.
delete_policy(Store, Pattern) -> erl_esdb_snapshot_policy:delete(Store, Pattern).

-doc "All policies by their patterns.".
-spec list_policies(Store :: atom()) ->
    {ok, #{Pattern :: binary() => erl_esdb_snapshot_policy:policy()}} | {error, term()}.
list_policies(Store) -> erl_esdb_snapshot_policy:list(Store).

-doc """
Saves a snapshot of a stream where its policy says that one is due, and removes those that are not
kept any more.

Answers `{saved, Version}`, `not_due`, or `no_policy`. An exception of the fold is raised here.

## Errors

- `{stream_not_found, Stream}`
- `{events_removed, Stream, From, First}`: events since the latest snapshot, from version `From`
  to before `First`, are there no more, so that the state cannot be made
""".
-spec maybe_snapshot(Store :: atom(), Stream :: binary()) ->
    {saved, Version :: non_neg_integer()} | not_due | no_policy | {error, term()}.
maybe_snapshot(Store, Stream) -> erl_esdb_snapshot_policy:run(Store, Stream).
