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
in a projection; each call loads the latest snapshot. Policies are kept in the store, so their fold
is a function of a module.

A snapshot that a policy makes has a note in its metadata, under `erl_esdb_snapshot_policy`, which
names the stream that it is of: snapshots stay when a stream is deleted, and are not taken for those
of another stream of its name. The first snapshot of that one removes them. What `save/4,5,6` has
kept is taken as it is, for whatever stream has the name.

In a JSON store the data of events are text: `decode => json` in the policy hands them to the fold
as `erl_esdb_streams:read/6` does with that option.

## Options

Each function takes options as its last argument: `timeout`, in milliseconds, of each call to the
store. Saving and loading make a few in a store that signs; `list/3`, `delete/3` and
`maybe_snapshot/3` as many as there are snapshots or pages of events. Other options are ignored.

## Errors

`{error, R}` as in `m:erl_esdb_streams` where the store cannot be reached; `exists/2,3` and
`exists_at/3,4`, which have no room for it, raise `error({erl_esdb, R})`. Arguments of a wrong shape
are `error(badarg)`.
""".

-export([save/4, save/5, save/6, load/2, load/3, load_at/3, load_at/4]).
-export([list/2, list/3, delete/2, delete/3, delete_at/3, delete_at/4]).
-export([exists/2, exists/3, exists_at/3, exists_at/4]).
-export([set_policy/3, set_policy/4, get_policy/2, get_policy/3, delete_policy/2, delete_policy/3]).
-export([list_policies/1, list_policies/2, maybe_snapshot/2, maybe_snapshot/3]).
-export_type([options/0]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-type options() :: #{timeout => timeout(), _ => _}.

-doc "The same as `save/5` with empty metadata.".
-spec save(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), Data :: term()) ->
    ok | {error, term()}.
save(Store, Stream, Version, Data) -> save(Store, Stream, Version, Data, #{}).

-doc "The same as `save/6` without options.".
-spec save(
    Store :: atom(),
    Stream :: binary(),
    Version :: non_neg_integer(),
    Data :: term(),
    Metadata :: map()
) -> ok | {error, term()}.
save(Store, Stream, Version, Data, Metadata) ->
    save(Store, Stream, Version, Data, Metadata, #{}).

-doc """
Keeps the state that the events up to `Version`, with it, have led to; in place of the snapshot of
this version where there is one.

## Errors

- `{document_too_large, Size, Max}`: bytes, packed
- `{snapshot_anchor_unavailable, Details}`: in a store that signs, there is no event of this version
  (`m:erl_esdb_integrity`)
""".
-spec save(
    Store :: atom(),
    Stream :: binary(),
    Version :: non_neg_integer(),
    Data :: term(),
    Metadata :: map(),
    options()
) -> ok | {error, term()}.
save(Store, Stream, Version, Data, Metadata, Options) when is_map(Metadata), is_map(Options) ->
    Begin = erlang:monotonic_time(),
    Now = erlang:system_time(millisecond),
    Snapshot = #snapshot{
        stream_id = Stream, version = Version, data = Data, metadata = Metadata, timestamp = Now
    },
    maybe
        ok ?= erl_esdb_snapshots_store:put(Store, Snapshot, Options),
        tell(?SNAPSHOT_CREATED, #{system_time => Now}, Begin, Store, Snapshot)
    end;
save(_, _, _, _, _, _) ->
    error(badarg).

-doc "The same as `load/3` without options.".
-spec load(Store :: atom(), Stream :: binary()) ->
    {ok, snapshot()} | {error, not_found | term()}.
load(Store, Stream) -> load(Store, Stream, #{}).

-doc "The snapshot of the highest version, whenever it was saved.".
-spec load(Store :: atom(), Stream :: binary(), options()) ->
    {ok, snapshot()} | {error, not_found | term()}.
load(Store, Stream, Options) ->
    Begin = erlang:monotonic_time(),
    maybe
        {ok, #snapshot{} = Snapshot} ?=
            found(fun() -> erl_esdb_snapshots_store:get_latest(Store, Stream, Options) end),
        tell(?SNAPSHOT_READ, #{}, Begin, Store, Snapshot),
        {ok, Snapshot}
    end.

-doc "The same as `load_at/4` without options.".
-spec load_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) ->
    {ok, snapshot()} | {error, not_found | term()}.
load_at(Store, Stream, Version) -> load_at(Store, Stream, Version, #{}).

-doc "The snapshot of this version.".
-spec load_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), options()) ->
    {ok, snapshot()} | {error, not_found | term()}.
load_at(Store, Stream, Version, Options) ->
    found(fun() -> erl_esdb_snapshots_store:get(Store, Stream, Version, Options) end).

%% Here is room for a failure.
-spec found(fun(() -> snapshot() | undefined)) -> {ok, snapshot()} | {error, term()}.
found(Get) ->
    try Get() of
        undefined -> {error, not_found};
        Snapshot -> {ok, Snapshot}
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-doc "The same as `list/3` without options.".
-spec list(Store :: atom(), Stream :: binary()) -> {ok, [snapshot()]} | {error, term()}.
list(Store, Stream) -> list(Store, Stream, #{}).

-doc "All snapshots of a stream, by ascending version.".
-spec list(Store :: atom(), Stream :: binary(), options()) ->
    {ok, [snapshot()]} | {error, term()}.
list(Store, Stream, Options) ->
    try
        erl_esdb_snapshots_store:list(Store, Stream, Options)
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-doc "The same as `delete/3` without options.".
-spec delete(Store :: atom(), Stream :: binary()) -> ok | {error, term()}.
delete(Store, Stream) -> delete(Store, Stream, #{}).

-doc "Removes all snapshots of a stream; `ok` also where there is none.".
-spec delete(Store :: atom(), Stream :: binary(), options()) -> ok | {error, term()}.
delete(Store, Stream, Options) -> erl_esdb_snapshots_store:delete_all(Store, Stream, Options).

-doc "The same as `delete_at/4` without options.".
-spec delete_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) ->
    ok | {error, term()}.
delete_at(Store, Stream, Version) -> delete_at(Store, Stream, Version, #{}).

-doc "Removes the snapshot of a version; `ok` also where there is none.".
-spec delete_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), options()) ->
    ok | {error, term()}.
delete_at(Store, Stream, Version, Options) ->
    erl_esdb_snapshots_store:delete(Store, Stream, Version, Options).

-doc "The same as `exists/3` without options.".
-spec exists(Store :: atom(), Stream :: binary()) -> boolean().
exists(Store, Stream) -> exists(Store, Stream, #{}).

-doc "Whether a stream has a snapshot.".
-spec exists(Store :: atom(), Stream :: binary(), options()) -> boolean().
exists(Store, Stream, Options) ->
    case erl_esdb_snapshots_store:versions(Store, Stream, Options) of
        {ok, Versions} -> Versions =/= [];
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "The same as `exists_at/4` without options.".
-spec exists_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) -> boolean().
exists_at(Store, Stream, Version) -> exists_at(Store, Stream, Version, #{}).

-doc "Whether a version of a stream has a snapshot.".
-spec exists_at(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), options()) ->
    boolean().
exists_at(Store, Stream, Version, Options) ->
    erl_esdb_snapshots_store:exists(Store, Stream, Version, Options).

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

-doc "The same as `set_policy/4` without options.".
-spec set_policy(Store :: atom(), Pattern :: binary(), erl_esdb_snapshot_policy:policy()) ->
    ok | {error, term()}.
set_policy(Store, Pattern, Policy) -> set_policy(Store, Pattern, Policy, #{}).

-doc """
Sets the policy of a pattern, in place of the one it has.

- `every`: a snapshot is due when so many events came after the latest one
- `keep`: how many snapshots stay, the newest; default `infinity`
- `fold`: `{Module, Function, Args}`, called as `Module:Function(Event, State, Args...)`
- `initial`: the state before the first event, default `#{}`
- `automatic`: whether the store takes the snapshots by itself, a moment after the events were
  committed (`m:erl_esdb_snapshotter`), also of streams that are there already; default `true`.
  `maybe_snapshot/2` works with both
- `decode`: `json` for the JSON value of data that are JSON text; default `none`

Where several patterns match a stream, the one with the most bytes beside `*` holds, of these the
first in term order.

## Errors

- `{invalid_option, Key, Value}`: also for keys that are missing (`undefined`) or not known
""".
-spec set_policy(
    Store :: atom(), Pattern :: binary(), erl_esdb_snapshot_policy:policy(), options()
) -> ok | {error, term()}.
set_policy(Store, Pattern, Policy, Options) ->
    erl_esdb_snapshot_policy:set(Store, Pattern, Policy, Options).

-doc "The same as `get_policy/3` without options.".
-spec get_policy(Store :: atom(), Stream :: binary()) ->
    {ok, {Pattern :: binary(), erl_esdb_snapshot_policy:policy()}} | {error, not_found | term()}.
get_policy(Store, Stream) -> get_policy(Store, Stream, #{}).

-doc "The policy that holds for a stream.".
-spec get_policy(Store :: atom(), Stream :: binary(), options()) ->
    {ok, {Pattern :: binary(), erl_esdb_snapshot_policy:policy()}} | {error, not_found | term()}.
get_policy(Store, Stream, Options) -> erl_esdb_snapshot_policy:get(Store, Stream, Options).

-doc "The same as `delete_policy/3` without options.".
-spec delete_policy(Store :: atom(), Pattern :: binary()) -> ok | {error, term()}.
delete_policy(Store, Pattern) -> delete_policy(Store, Pattern, #{}).

-doc "Removes the policy of a pattern; `ok` also where there is none. Snapshots stay.".
-spec delete_policy(Store :: atom(), Pattern :: binary(), options()) -> ok | {error, term()}.
delete_policy(Store, Pattern, Options) ->
    erl_esdb_snapshot_policy:delete(Store, Pattern, Options).

-doc "The same as `list_policies/2` without options.".
-spec list_policies(Store :: atom()) ->
    {ok, #{Pattern :: binary() => erl_esdb_snapshot_policy:policy()}} | {error, term()}.
list_policies(Store) -> list_policies(Store, #{}).

-doc "All policies by their patterns.".
-spec list_policies(Store :: atom(), options()) ->
    {ok, #{Pattern :: binary() => erl_esdb_snapshot_policy:policy()}} | {error, term()}.
list_policies(Store, Options) -> erl_esdb_snapshot_policy:list(Store, Options).

-doc "The same as `maybe_snapshot/3` without options.".
-spec maybe_snapshot(Store :: atom(), Stream :: binary()) ->
    {saved, Version :: non_neg_integer()} | not_due | no_policy | {error, term()}.
maybe_snapshot(Store, Stream) -> maybe_snapshot(Store, Stream, #{}).

-doc """
Saves a snapshot of a stream where its policy says that one is due, and removes those that are not
kept any more. Events that the metadata of the stream hides count and are folded as the others.

Answers `{saved, Version}`, `not_due`, or `no_policy`. An exception of the fold is raised here.

## Errors

- `{stream_not_found, Stream}`
- `{events_removed, Stream, From, First}`: events since the latest snapshot, from version `From`
  to before `First`, are there no more, so that the state cannot be made
""".
-spec maybe_snapshot(Store :: atom(), Stream :: binary(), options()) ->
    {saved, Version :: non_neg_integer()} | not_due | no_policy | {error, term()}.
maybe_snapshot(Store, Stream, Options) when is_map(Options) ->
    erl_esdb_snapshot_policy:run(Store, Stream, Options);
maybe_snapshot(_, _, _) ->
    error(badarg).
