-module(erl_esdb_snapshot_marks).
-moduledoc """
Of which stream a snapshot is that a policy has made: `{Id, No}` in its metadata tells.

A snapshot outlives its stream, whose name another one may have by then. `Id` is that of a store
(`m:erl_esdb_incarnation`), `No` the number of the stream there.

```erlang
1> {ok, Metadata} = erl_esdb_snapshot_marks:metadata(shop, 7, #{}).
2> Snapshot = #snapshot{stream_id = ~"order-1", version = 9, metadata = Metadata, timestamp = 0}.
3> [erl_esdb_snapshot_marks:is_own(shop, Snapshot, No, #{}) || No <- [7, 8]].
[{ok,true},{ok,false}]
```

A copy of a store has another id, and its streams have other numbers; its snapshots are as they
were, as seals are of the whole of them. So in a backup each stream has the marks that mean it, and
the copy notes those that its snapshots have: documents without content, under
`{snapshot_mark, Stream, No, Mark}` with the number that the stream has here. They go with it.
""".

-export([metadata/3, is_marked/1, is_own/4, in_backup/4, restore/4]).
-export_type([mark/0]).

-include("erl_esdb.hrl").

%% No user takes this name.
-define(KEY, erl_esdb_snapshot_policy).

-type mark() :: {erl_esdb_incarnation:id(), No :: pos_integer()}.
-type timed() :: #{timeout => timeout()}.

-doc "What the snapshots of a stream with this number are marked with. Option: `timeout`.".
-spec metadata(Store :: atom(), No :: pos_integer(), timed()) -> {ok, map()} | {error, term()}.
metadata(Store, No, Timed) ->
    case erl_esdb_incarnation:id(Store, Timed) of
        {ok, Id} -> {ok, #{?KEY => {Id, No}}};
        {error, Reason} -> {error, Reason}
    end.

-doc "Whether a policy has made it, for whatever stream.".
-spec is_marked(snapshot()) -> boolean().
is_marked(#snapshot{metadata = Metadata}) -> is_map_key(?KEY, Metadata).

-doc """
Whether it is of the stream that has this number by now. What has no mark a user has saved, for
whatever stream has the name. Option: `timeout`.
""".
-spec is_own(Store :: atom(), snapshot(), No :: pos_integer(), timed()) ->
    {ok, boolean()} | {error, term()}.
is_own(Store, #snapshot{metadata = #{?KEY := {Id, Of} = Mark}} = Snapshot, No, Timed) ->
    #snapshot{stream_id = Stream} = Snapshot,
    case erl_esdb_incarnation:has(Store, Id, 0, Timed) of
        {ok, true} -> {ok, Of =:= No};
        {ok, false} -> is_noted(Store, key(Stream, No, Mark), Timed);
        {error, Reason} -> {error, Reason}
    end;
is_own(_Store, #snapshot{} = Snapshot, _No, _Timed) ->
    {ok, not is_marked(Snapshot)}.

-spec key(binary(), pos_integer(), mark()) -> erl_esdb_log:document_key().
key(Stream, No, Mark) -> {snapshot_mark, Stream, No, Mark}.

-spec is_noted(atom(), erl_esdb_log:document_key(), timed()) -> {ok, boolean()} | {error, term()}.
is_noted(Store, Key, Timed) ->
    case erl_esdb_store:get_document(Store, Key, Timed) of
        {ok, _} -> {ok, true};
        {error, not_found} -> {ok, false};
        {error, Reason} -> {error, Reason}
    end.

-doc """
The marks that mean a stream: those of the store itself, and of those that it is a copy of. Option:
`timeout`.
""".
-spec in_backup(Store :: atom(), Stream :: binary(), No :: pos_integer(), timed()) ->
    {ok, [mark()]} | {error, term()}.
in_backup(Store, Stream, No, Timed) ->
    %% Every tuple is greater than every number.
    {First, Last} = {{snapshot_mark, Stream, No, 0}, {snapshot_mark, Stream, No + 1, -1}},
    maybe
        {ok, Ids} ?= erl_esdb_incarnation:ids(Store, Timed),
        {ok, Noted} ?= erl_esdb_store:list_documents(Store, First, Last, Timed),
        {ok, [{Id, No} || Id <- Ids] ++ [Mark || {{_, _, _, Mark}, _} <- Noted]}
    end.

-doc """
Notes in a copy that a snapshot is of the stream with this number there, where its mark is one of
these. Comes before the snapshot is put, so that nobody takes it for another stream's.
""".
-spec restore(At, No :: pos_integer(), [mark()], Document :: term()) -> ok | {error, term()} when
    At :: {Store :: atom(), timed()}.
restore(At, No, Marks, {sealed, Snapshot, _Seal}) ->
    restore(At, No, Marks, Snapshot);
restore({Store, Timed}, No, Marks, #snapshot{stream_id = Stream, metadata = #{?KEY := Mark}}) ->
    case lists:member(Mark, Marks) of
        true -> put_note(Store, key(Stream, No, Mark), Timed);
        false -> ok
    end;
restore(_At, _No, _Marks, _Document) ->
    ok.

-spec put_note(atom(), erl_esdb_log:document_key(), timed()) -> ok | {error, term()}.
put_note(Store, Key, Timed) ->
    case erl_esdb_store:put_document(Store, Key, [], Timed) of
        {ok, _Version} -> ok;
        {error, Reason} -> {error, Reason}
    end.
