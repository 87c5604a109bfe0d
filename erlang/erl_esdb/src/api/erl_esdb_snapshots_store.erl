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
for it; elsewhere (`get/2,3,4`, `get_latest/2,3`, `exists/2,3,4`) it raises `error({erl_esdb, R})`:
an answer that nothing is there would be wrong.

The one option is `timeout`, of each call to the store.
""".

-export([put/2, put/3, get/2, get/3, get/4, get_latest/2, get_latest/3]).
-export([delete/2, delete/3, delete/4, delete_all/3, list/2, list/3, versions/2, versions/3]).
-export([exists/2, exists/3, exists/4]).
-export_type([options/0]).

-include("erl_esdb.hrl").

-type options() :: #{timeout => timeout(), _ => _}.

-doc "The same as `put/3` without options.".
-spec put(Store :: atom(), snapshot()) -> ok | {error, term()}.
put(Store, Snapshot) -> put(Store, Snapshot, #{}).

-doc "Keeps a snapshot, in place of the one of this version.".
-spec put(Store :: atom(), snapshot(), options()) -> ok | {error, term()}.
put(Store, #snapshot{stream_id = Stream, version = Version} = Snapshot, Options) ->
    Key = key(Stream, Version),
    maybe
        {ok, Document} ?= erl_esdb_integrity:sealed(Store, Snapshot, Options),
        {ok, _Times} ?= erl_esdb_store:put_document(Store, Key, Document, Options),
        ok
    end;
put(_, _, _) ->
    error(badarg).

-doc #{equiv => get_latest(Store, Stream)}.
-spec get(Store :: atom(), Stream :: binary()) -> snapshot() | undefined.
get(Store, Stream) -> get_latest(Store, Stream).

-doc "The same as `get/4` without options.".
-spec get(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) ->
    snapshot() | undefined.
get(Store, Stream, Version) -> get(Store, Stream, Version, #{}).

-doc "The snapshot of a version.".
-spec get(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), options()) ->
    snapshot() | undefined.
get(Store, Stream, Version, Options) ->
    maybe
        {ok, Document} ?= erl_esdb_store:get_document(Store, key(Stream, Version), Options),
        {ok, Snapshot} ?= erl_esdb_integrity:opened(Store, Document, Options),
        Snapshot
    else
        {error, not_found} -> undefined;
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-doc "The same as `get_latest/3` without options.".
-spec get_latest(Store :: atom(), Stream :: binary()) -> snapshot() | undefined.
get_latest(Store, Stream) -> get_latest(Store, Stream, #{}).

-doc "The snapshot of the highest version.".
-spec get_latest(Store :: atom(), Stream :: binary(), options()) -> snapshot() | undefined.
get_latest(Store, Stream, Options) ->
    case known(Store, Stream, Options) of
        [] ->
            undefined;
        Versions ->
            Snapshot = get(Store, Stream, lists:last(Versions), Options),
            latest(Store, Stream, Options, Snapshot)
    end.

%% It was deleted since it was listed: then another one is the latest.
-spec latest(atom(), binary(), options(), snapshot() | undefined) -> snapshot() | undefined.
latest(Store, Stream, Options, undefined) -> get_latest(Store, Stream, Options);
latest(_Store, _Stream, _Options, Snapshot) -> Snapshot.

-doc "The same as `delete_all/3` without options.".
-spec delete(Store :: atom(), Stream :: binary()) -> ok | {error, term()}.
delete(Store, Stream) -> delete_all(Store, Stream, #{}).

-doc "Removes all snapshots of a stream; `ok` also where there is none.".
-spec delete_all(Store :: atom(), Stream :: binary(), options()) -> ok | {error, term()}.
delete_all(Store, Stream, Options) ->
    case versions(Store, Stream, Options) of
        {ok, Versions} ->
            erl_esdb_store:delete_documents(Store, [key(Stream, V) || V <- Versions], Options);
        {error, Reason} ->
            {error, Reason}
    end.

-doc "The same as `delete/4` without options.".
-spec delete(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) ->
    ok | {error, term()}.
delete(Store, Stream, Version) -> delete(Store, Stream, Version, #{}).

-doc "Removes the snapshot of a version; `ok` also where there is none.".
-spec delete(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), options()) ->
    ok | {error, term()}.
delete(Store, Stream, Version, Options) ->
    erl_esdb_store:delete_document(Store, key(Stream, Version), Options).

-doc "The same as `list/3` without options.".
-spec list(Store :: atom(), Stream :: binary()) -> {ok, [snapshot()]} | {error, term()}.
list(Store, Stream) -> list(Store, Stream, #{}).

-doc "All snapshots of a stream, by ascending version.".
-spec list(Store :: atom(), Stream :: binary(), options()) ->
    {ok, [snapshot()]} | {error, term()}.
list(Store, Stream, Options) ->
    case versions(Store, Stream, Options) of
        {ok, Versions} -> {ok, found([get(Store, Stream, V, Options) || V <- Versions])};
        {error, Reason} -> {error, Reason}
    end.

-spec found([snapshot() | undefined]) -> [snapshot()].
found(Snapshots) -> [Snapshot || #snapshot{} = Snapshot <- Snapshots].

-doc "The same as `versions/3` without options.".
-spec versions(Store :: atom(), Stream :: binary()) -> {ok, [non_neg_integer()]} | {error, term()}.
versions(Store, Stream) -> versions(Store, Stream, #{}).

-doc "The versions that have a snapshot, ascending. No snapshot is read.".
-spec versions(Store :: atom(), Stream :: binary(), options()) ->
    {ok, [non_neg_integer()]} | {error, term()}.
versions(Store, Stream, Options) when is_binary(Stream) ->
    %% An atom is greater than every number.
    between(Store, key(Stream, 0), {snapshot, Stream, last}, Options);
versions(_, _, _) ->
    error(badarg).

-spec between(atom(), erl_esdb_log:document_key(), erl_esdb_log:document_key(), options()) ->
    {ok, [non_neg_integer()]} | {error, term()}.
between(Store, First, Last, Options) ->
    case erl_esdb_store:list_documents(Store, First, Last, Options) of
        {ok, Keys} -> {ok, [Version || {{snapshot, _, Version}, _Times} <- Keys]};
        {error, Reason} -> {error, Reason}
    end.

-doc "Whether a stream has a snapshot.".
-spec exists(Store :: atom(), Stream :: binary()) -> boolean().
exists(Store, Stream) -> known(Store, Stream, #{}) =/= [].

-doc "The same as `exists/4` without options.".
-spec exists(Store :: atom(), Stream :: binary(), Version :: non_neg_integer()) -> boolean().
exists(Store, Stream, Version) -> exists(Store, Stream, Version, #{}).

-doc "Whether a version of a stream has a snapshot.".
-spec exists(Store :: atom(), Stream :: binary(), Version :: non_neg_integer(), options()) ->
    boolean().
exists(Store, Stream, Version, Options) ->
    Key = key(Stream, Version),
    surely(between(Store, Key, Key, Options)) =/= [].

-spec known(atom(), binary(), options()) -> [non_neg_integer()].
known(Store, Stream, Options) -> surely(versions(Store, Stream, Options)).

-spec surely({ok, Found} | {error, term()}) -> Found.
surely({ok, Found}) -> Found;
surely({error, Reason}) -> error({erl_esdb, Reason}).

-spec key(binary(), non_neg_integer()) -> erl_esdb_log:document_key().
key(Stream, Version) when is_binary(Stream), is_integer(Version), Version >= 0 ->
    {snapshot, Stream, Version};
key(_, _) ->
    error(badarg).
