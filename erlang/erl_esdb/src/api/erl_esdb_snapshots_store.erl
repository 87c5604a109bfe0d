-module(erl_esdb_snapshots_store).
-moduledoc """
Where snapshots are kept: a document each, under `{snapshot, Stream, Version}`.

Versions are numbers in the key, so they sort as numbers, however many digits they have. This is
the part below `m:erl_esdb_snapshots`: records in and out, no telemetry.

```erlang
1> Snapshot = #snapshot{stream_id = ~"order-1", version = 7, data = #{}, timestamp = 0}.
2> erl_esdb_snapshots_store:put(shop, Snapshot).
ok
3> #snapshot{version = 7} = erl_esdb_snapshots_store:get_latest(shop, ~"order-1").
```

In a store that signs, a snapshot is kept with a seal and checked when it is read
(`m:erl_esdb_integrity`). A store that cannot be reached is `{error, R}` where the answer has room
for it; elsewhere (`get/2,3`, `get_latest/2`, `exists/2,3`) it raises `error({erl_esdb, R})`: an
answer that nothing is there would be wrong.
""".

-export([put/2, get/2, get/3, get_latest/2]).
-export([delete/2, delete/3, list/2, versions/2, exists/2, exists/3]).

-include("erl_esdb.hrl").

-doc "Keeps a snapshot, in place of the one of this version.".
-spec put(Store :: atom(), snapshot()) -> ok | {error, term()}.
put(Store, #snapshot{stream_id = Stream, version = Version} = Snapshot) ->
    Key = key(Stream, Version),
    maybe
        {ok, Document} ?= erl_esdb_integrity:sealed(Store, Snapshot),
        {ok, _Times} ?= erl_esdb_store:put_document(Store, Key, Document),
        ok
    end.

-doc #{equiv => get_latest(Store, Stream)}.
-spec get(Store :: atom(), Stream :: binary()) -> snapshot() | undefined.
get(Store, Stream) -> get_latest(Store, Stream).

-doc "The snapshot of a version.".
-spec get(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) ->
    snapshot() | undefined.
get(Store, Stream, Version) ->
    maybe
        {ok, Document} ?= erl_esdb_store:get_document(Store, key(Stream, Version)),
        {ok, Snapshot} ?= erl_esdb_integrity:opened(Store, Document),
        Snapshot
    else
        {error, not_found} -> undefined;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "The snapshot of the highest version.".
-spec get_latest(Store :: atom(), Stream :: binary()) -> snapshot() | undefined.
get_latest(Store, Stream) ->
    case known(Store, Stream) of
        [] -> undefined;
        Versions -> latest(Store, Stream, get(Store, Stream, lists:last(Versions)))
    end.

%% It was deleted since it was listed: then another one is the latest.
-spec latest(atom(), binary(), snapshot() | undefined) -> snapshot() | undefined.
latest(Store, Stream, undefined) -> get_latest(Store, Stream);
latest(_Store, _Stream, Snapshot) -> Snapshot.

-doc "Removes all snapshots of a stream; `ok` also where there is none.".
-spec delete(Store :: atom(), Stream :: binary()) -> ok | {error, term()}.
delete(Store, Stream) ->
    case versions(Store, Stream) of
        {ok, Versions} -> delete_each(Store, Stream, Versions);
        {error, Reason} -> {error, Reason}
    end.

-spec delete_each(atom(), binary(), [non_neg_integer()]) -> ok | {error, term()}.
delete_each(Store, Stream, [Version | Versions]) ->
    case delete(Store, Stream, Version) of
        ok -> delete_each(Store, Stream, Versions);
        {error, Reason} -> {error, Reason}
    end;
delete_each(_Store, _Stream, []) ->
    ok.

-doc "Removes the snapshot of a version; `ok` also where there is none.".
-spec delete(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) ->
    ok | {error, term()}.
delete(Store, Stream, Version) -> erl_esdb_store:delete_document(Store, key(Stream, Version)).

-doc "All snapshots of a stream, by ascending version.".
-spec list(Store :: atom(), Stream :: binary()) -> {ok, [snapshot()]} | {error, term()}.
list(Store, Stream) ->
    case versions(Store, Stream) of
        {ok, Versions} -> {ok, found([get(Store, Stream, Version) || Version <- Versions])};
        {error, Reason} -> {error, Reason}
    end.

-spec found([snapshot() | undefined]) -> [snapshot()].
found(Snapshots) -> [Snapshot || #snapshot{} = Snapshot <- Snapshots].

-doc "The versions that have a snapshot, ascending. No snapshot is read.".
-spec versions(Store :: atom(), Stream :: binary()) -> {ok, [non_neg_integer()]} | {error, term()}.
versions(Store, Stream) when is_binary(Stream) ->
    %% An atom is greater than every number.
    case erl_esdb_store:list_documents(Store, key(Stream, 0), {snapshot, Stream, last}) of
        {ok, Keys} -> {ok, [Version || {{snapshot, _, Version}, _Times} <- Keys]};
        {error, Reason} -> {error, Reason}
    end;
versions(_, _) ->
    error(badarg).

-doc "Whether a stream has a snapshot.".
-spec exists(Store :: atom(), Stream :: binary()) -> boolean().
exists(Store, Stream) -> known(Store, Stream) =/= [].

-doc "Whether a version of a stream has a snapshot.".
-spec exists(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) -> boolean().
exists(Store, Stream, Version) ->
    _ = key(Stream, Version),
    lists:member(Version, known(Store, Stream)).

-spec known(atom(), binary()) -> [non_neg_integer()].
known(Store, Stream) ->
    case versions(Store, Stream) of
        {ok, Versions} -> Versions;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-spec key(binary(), non_neg_integer()) -> erl_esdb_log:document_key().
key(Stream, Version) when is_binary(Stream), is_integer(Version), Version >= 0 ->
    {snapshot, Stream, Version};
key(_, _) ->
    error(badarg).
