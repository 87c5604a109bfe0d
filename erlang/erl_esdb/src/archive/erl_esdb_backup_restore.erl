-module(erl_esdb_backup_restore).
-moduledoc """
Puts what `m:erl_esdb_backup` has copied into an empty store, and compares it.

```erlang
1> At = {copy, #{timeout => 10_000}}.
2> ok = erl_esdb_backup_restore:empty_store(At).
3> ok = erl_esdb_backup_restore:restore(At, #{events => Events, documents => Documents}, Manifest).
```

Events are appended in the order of their positions, and what fills the place of removed ones with
them (`m:erl_esdb_restore`). A stream that was made again behind a tombstone gets one when its
versions have come so far.
""".

-export([empty_store/1, restore/3, compare/3]).

-include("erl_esdb.hrl").

%% A store and the options of its calls.
-type store() :: {atom(), #{timeout => timeout()}}.
%% Files of a backup, of which it is known that they are whole.
-type files() :: #{events := binary(), documents := binary()}.
-type table() :: #{binary() => erl_esdb_backup:entry()}.

-doc "Whether nothing was ever in a store.".
-spec empty_store(store()) -> ok | {error, {store_not_empty, atom()} | term()}.
empty_store({Store, Timed}) ->
    maybe
        {ok, 0} ?= erl_esdb_store:next_position(Store, Timed),
        {ok, []} ?= erl_esdb_backup:documents(Store, Timed),
        {ok, Checkpoints} ?= erl_esdb_store:checkpoints(Store, Timed),
        true ?= map_size(Checkpoints) =:= 0,
        ok
    else
        {error, Reason} -> {error, Reason};
        _ -> {error, {store_not_empty, Store}}
    end.

-doc "Restores, compares, verifies where the store has keys, and lets what was delivered go on.".
-spec restore(store(), files(), erl_esdb_backup:manifest()) -> ok | {error, term()}.
restore({Store, _Timed} = At, Files, Manifest) ->
    %% Snapshots that are due in the copy are not in the backup.
    PutBack = fun() -> put_back(At, Files, Manifest) end,
    erl_esdb_notification_sup:without_snapshotter(Store, PutBack).

-spec put_back(store(), files(), erl_esdb_backup:manifest()) -> ok | {error, term()}.
put_back({Store, Timed} = At, Files, #{position := Position} = Manifest) ->
    maybe
        {ok, Table} ?= read_table(Files),
        ok ?= restore_events(At, Files, Position, Table),
        ok ?= restore_streams(At, maps:to_list(Table)),
        ok ?= restore_documents(At, Files, Table),
        ok ?= same(At, Files, Manifest, Table),
        ok ?= verified(erl_esdb_integrity:verify_store(Store, Timed)),
        erl_esdb_notification_sup:restart_delivery(Store)
    end.

-spec verified({ok, map()} | {error, term()}) -> ok | {error, term()}.
verified({ok, _}) -> ok;
verified({error, integrity_disabled}) -> ok;
verified({error, Reason}) -> {error, Reason}.

-doc "Whether a store has what is in the files, and nothing else.".
-spec compare(store(), files(), erl_esdb_backup:manifest()) -> ok | {error, term()}.
compare(At, Files, Manifest) ->
    case read_table(Files) of
        {ok, Table} -> same(At, Files, Manifest, Table);
        {error, Reason} -> {error, Reason}
    end.

%% ---- reading the files

-spec read_table(files()) -> {ok, table()} | {error, term()}.
read_table(#{events := Path}) ->
    Read = fun
        (streams, Body, Table) -> {ok, maps:merge(Table, maps:from_list(binary_to_term(Body)))};
        (_Tag, _Body, Table) -> {ok, Table}
    end,
    frames(Path, backup, Read, #{}).

%% What is in these files was compared with the manifest, which names this backup: it is trusted.
-spec frames(binary(), erl_esdb_frames:kind(), Fun, Acc) -> {ok, Acc} | {error, term()} when
    Fun :: fun((erl_esdb_frames:tag(), binary(), Acc) -> {ok, Acc} | {error, term()}).
frames(Path, Kind, Fun, Acc) ->
    case erl_esdb_frames:open(Path, Kind) of
        {ok, Reader} ->
            try
                next_frame(erl_esdb_frames:next(Reader), Path, Fun, Acc)
            after
                erl_esdb_frames:close(Reader)
            end;
        {error, Reason} ->
            {error, unreadable(Path, Reason)}
    end.

%% A later release may have written it.
-spec unreadable(binary(), term()) ->
    {unsupported_version, byte()} | {corrupt_file, binary(), term()}.
unreadable(_Path, {unsupported_version, _} = Reason) -> Reason;
unreadable(Path, Reason) -> {corrupt_file, Path, Reason}.

-spec next_frame(term(), binary(), Fun, Acc) -> {ok, Acc} | {error, term()} when
    Fun :: fun((erl_esdb_frames:tag(), binary(), Acc) -> {ok, Acc} | {error, term()}).
next_frame({ok, 'end', _, _Reader}, _Path, _Fun, Acc) ->
    {ok, Acc};
next_frame({ok, Tag, Body, Reader}, Path, Fun, Acc) ->
    case Fun(Tag, Body, Acc) of
        {ok, Acc1} -> next_frame(erl_esdb_frames:next(Reader), Path, Fun, Acc1);
        {error, Reason} -> {error, Reason}
    end;
next_frame({error, Reason}, Path, _Fun, _Acc) ->
    {error, unreadable(Path, Reason)}.

%% The events of each segment that belong to the backup.
-spec events(files(), table(), Fun, Acc) -> {ok, Acc} | {error, term()} when
    Fun :: fun(([event()], Acc) -> {ok, Acc} | {error, term()}).
events(#{events := Path}, Table, Fun, Acc) ->
    Read = fun
        (segment, Body, Acc1) ->
            case erl_esdb_event_segment:unpack(Body, create) of
                {ok, Events} -> Fun([E || E <- Events, belongs(E, Table)], Acc1);
                {error, Reason} -> {error, unreadable(Path, Reason)}
            end;
        (_Tag, _Body, Acc1) ->
            {ok, Acc1}
    end,
    frames(Path, backup, Read, Acc).

%% An earlier one may be of a namesake that was deleted while the backup was made.
-spec belongs(event(), table()) -> boolean().
belongs(#event{stream_id = Name, version = Version, position = Position}, Table) ->
    case Table of
        #{Name := #{first := First, next := Next, position := Begin}} ->
            First =< Version andalso Version < Next andalso Begin =< Position;
        #{} ->
            false
    end.

-spec documents(files(), Fun, Acc) -> {ok, Acc} | {error, term()} when
    Fun :: fun((document | checkpoints, term(), Acc) -> {ok, Acc} | {error, term()}).
documents(#{documents := Path}, Fun, Acc) ->
    Each = fun
        (documents, Body, Acc1) -> Fun(document, binary_to_term(Body), Acc1);
        (checkpoints, Body, Acc1) -> Fun(checkpoints, maps:from_list(binary_to_term(Body)), Acc1)
    end,
    frames(Path, documents, Each, Acc).

%% ---- events

-spec restore_events(store(), files(), non_neg_integer(), table()) -> ok | {error, term()}.
restore_events({Store, Timed} = At, Files, Position, Table) ->
    Other = other(Table),
    Removed = [
        {Name, First, Begin, time(Entry)}
     || Name := #{first := First, position := Begin} = Entry <- Table
    ],
    Plan = erl_esdb_restore:plan(Removed, Other),
    Write = fun(Events, Acc) ->
        Maps = [erl_esdb_event_segment:to_map(Event) || Event <- Events],
        write_runs(At, Table, erl_esdb_restore:runs(Maps, fun neighbours/2), Acc)
    end,
    maybe
        {ok, {Next, Plan1}} ?= events(Files, Table, Write, {0, Plan}),
        {ok, _} ?= fill(At, Table, Position - Next, Plan1),
        erl_esdb_store:delete(Store, Other, Timed)
    end.

%% Of what fills the place of removed events: no later than the first event that is kept, or where
%% none is, that of the last one.
-spec time(erl_esdb_backup:entry()) -> integer().
time(#{position := none, epoch_us := Time}) -> Time;
time(#{}) -> 0.

%% A name that no stream has.
-spec other(table()) -> binary().
other(Table) ->
    Name = <<"$restore-", (binary:encode_hex(crypto:strong_rand_bytes(8), lowercase))/binary>>,
    case Table of
        #{Name := _} -> other(Table);
        #{} -> Name
    end.

-spec neighbours(map(), map()) -> boolean().
neighbours(#{position := Position} = Event, #{position := Next} = Following) ->
    Next =:= Position + 1 andalso is_map_key(mac, Event) =:= is_map_key(mac, Following).

-spec write_runs(store(), table(), [[map(), ...]], Acc) -> {ok, Acc} | {error, term()} when
    Acc :: {non_neg_integer(), erl_esdb_restore:plan()}.
write_runs(At, Table, [[First | _] = Run | Runs], {Next, Plan}) ->
    #{stream_id := Name, position := Position, version := Version, epoch_us := Time} = First,
    maybe
        {ok, Plan1} ?= fill(At, Table, Position - Next, Plan),
        Tip = tip_of(lists:last(Run)),
        ok ?= replay(At, {Name, map_get(Name, Table)}, Version, Run, Time, Tip),
        write_runs(At, Table, Runs, {Position + length(Run), Plan1})
    end;
write_runs(_At, _Table, [], Acc) ->
    {ok, Acc}.

-spec tip_of(map()) -> erl_esdb_log:tip().
tip_of(#{mac := _} = Map) ->
    {ok, Event} = erl_esdb_event_segment:from_map(Map, existing),
    erl_esdb_chain:chain_hash(Event);
tip_of(#{}) ->
    none.

-spec fill(store(), table(), non_neg_integer(), erl_esdb_restore:plan()) ->
    {ok, erl_esdb_restore:plan()} | {error, term()}.
fill(At, Table, Count, Plan) ->
    {Fillers, Plan1} = erl_esdb_restore:fill(Count, Plan),
    case fill_each(At, Table, Fillers) of
        ok -> {ok, Plan1};
        {error, Reason} -> {error, Reason}
    end.

-spec fill_each(store(), table(), [{binary(), non_neg_integer(), pos_integer(), integer()}]) ->
    ok | {error, term()}.
fill_each(At, Table, [{Name, From, Count, Time} | Fillers]) ->
    Entry = maps:get(Name, Table, #{}),
    Part = part(Entry, From, Count),
    Events = erl_esdb_restore:filler(Part),
    Rest = [{Name, From + Part, Count - Part, Time} || Count > Part],
    case replay(At, {Name, Entry}, From, Events, Time, filler_tip(Entry, From)) of
        ok -> fill_each(At, Table, Rest ++ Fillers);
        {error, Reason} -> {error, Reason}
    end;
fill_each(_At, _Table, []) ->
    ok.

%% How many of so many versions come before signing began, or before a tombstone.
-spec part(erl_esdb_backup:entry() | #{}, non_neg_integer(), pos_integer()) -> pos_integer().
part(Entry, From, Count) ->
    Marks = [maps:get(Key, Entry, none) || Key <- [signed, base]],
    lists:min([Count | [Mark - From || Mark <- Marks, is_integer(Mark), Mark > From]]).

%% The tip that is left where no event is kept is what it was, behind a tombstone what it was there.
-spec filler_tip(erl_esdb_backup:entry() | #{}, non_neg_integer()) -> erl_esdb_log:tip().
filler_tip(#{signed := Signed, base := Base, base_tip := Tip}, From) when
    is_integer(Signed), From >= Signed, From < Base
->
    Tip;
filler_tip(#{signed := Signed, tip := Tip}, From) when is_integer(Signed), From >= Signed -> Tip;
filler_tip(#{}, _From) ->
    none.

%% Behind a tombstone, where the stream has one before this version.
-spec replay(store(), {binary(), map()}, non_neg_integer(), [map()], integer(), Tip) ->
    ok | {error, term()}
when
    Tip :: erl_esdb_log:tip().
replay({Store, Timed} = At, {Name, Entry}, Version, Events, Time, Tip) ->
    maybe
        {ok, Expected} ?= expected(At, Name, Entry, Version),
        {ok, _} ?= erl_esdb_restore:replay(Store, Name, Expected, Events, Time, Tip, Timed),
        ok
    end.

-spec expected(store(), binary(), map(), non_neg_integer()) -> {ok, integer()} | {error, term()}.
expected(At, Name, #{base := Version}, Version) when Version > 0 ->
    case bury(At, Name) of
        ok -> {ok, ?NO_STREAM};
        {error, Reason} -> {error, Reason}
    end;
expected(_At, _Name, _Entry, Version) ->
    {ok, Version - 1}.

-spec bury(store(), binary()) -> ok | {error, term()}.
bury({Store, Timed}, Name) ->
    erl_esdb_store:delete(Store, Name, Timed#{mode => tombstone}).

%% ---- what is known of streams

-spec restore_streams(store(), [{binary(), erl_esdb_backup:entry()}]) -> ok | {error, term()}.
restore_streams(At, [{Name, Entry} | Streams]) ->
    maybe
        ok ?= remove(At, Name, Entry),
        ok ?= set_metadata(At, Name, Entry),
        ok ?= restore_stream(At, Name, Entry),
        restore_streams(At, Streams)
    end;
restore_streams(_At, []) ->
    ok.

-spec remove(store(), binary(), erl_esdb_backup:entry()) -> ok | {error, term()}.
remove(At, Name, #{buried := true}) ->
    bury(At, Name);
remove({Store, Timed}, Name, #{first := First}) when First > 0 ->
    case erl_esdb_restore:truncate(Store, Name, First, Timed) of
        {ok, _} -> ok;
        {error, Reason} -> {error, Reason}
    end;
remove(_At, _Name, #{}) ->
    ok.

-spec set_metadata(store(), binary(), erl_esdb_backup:entry()) -> ok | {error, term()}.
set_metadata(_At, _Name, #{metadata := Metadata}) when map_size(Metadata) =:= 0 -> ok;
set_metadata({Store, Timed}, Name, #{metadata := Metadata}) ->
    erl_esdb_store:set_metadata(Store, Name, Metadata, Timed).

%% The stream has another number here.
-spec restore_stream(store(), binary(), erl_esdb_backup:entry()) -> ok | {error, term()}.
restore_stream({Store, Timed} = At, Name, #{anchors := Anchors, next := Next} = Entry) ->
    maybe
        {ok, No} ?= number(At, Name),
        Documents = [{{integrity, Name, No, V}, Anchor} || V := Anchor <- Anchors],
        ok ?= erl_esdb_store:put_documents(Store, Documents, Timed),
        erl_esdb_archive_notes:restore({Store, Name, No, Timed}, archived(Entry), Next)
    end.

%% Old backups have the names alone.
-spec archived(erl_esdb_backup:entry()) -> erl_esdb_archive_notes:copied().
archived(#{archived := Archived}) -> Archived;
archived(#{incarnations := Incarnations}) -> maps:from_keys(Incarnations, []).

-spec number(store(), binary()) -> {ok, pos_integer() | none} | {error, term()}.
number({Store, Timed}, Name) ->
    case erl_esdb_store:tip(Store, Name, Timed) of
        {ok, #{no := No}} -> {ok, No};
        {error, Reason} -> {error, Reason}
    end.

-spec restore_documents(store(), files(), table()) -> ok | {error, term()}.
restore_documents({Store, Timed} = At, Files, Table) ->
    Restore = fun
        (document, Document, ok) -> done(restore_document(At, Document, Table));
        (checkpoints, Values, ok) -> done(erl_esdb_store:save_checkpoints(Store, Values, Timed))
    end,
    case documents(Files, Restore, ok) of
        {ok, ok} -> ok;
        {error, Reason} -> {error, Reason}
    end.

-spec restore_document(store(), {tuple(), term()}, table()) -> ok | {error, term()}.
restore_document({Store, Timed} = At, {{snapshot, Name, _Version}, Term} = Document, Table) when
    is_map_key(Name, Table)
->
    Marks = maps:get(marks, map_get(Name, Table), []),
    maybe
        {ok, No} ?= number(At, Name),
        ok ?= erl_esdb_snapshot_marks:restore(At, No, Marks, Term),
        erl_esdb_store:put_documents(Store, [Document], Timed)
    end;
restore_document({Store, Timed}, Document, _Table) ->
    erl_esdb_store:put_documents(Store, [Document], Timed).

-spec done(ok | {error, Reason}) -> {ok, ok} | {error, Reason}.
done(ok) -> {ok, ok};
done({error, Reason}) -> {error, Reason}.

%% ---- comparing

-spec same(store(), files(), erl_esdb_backup:manifest(), table()) -> ok | {error, term()}.
same({Store, Timed} = At, Files, #{position := Position, documents := Documents}, Table) ->
    maybe
        {ok, Next} ?= erl_esdb_store:next_position(Store, Timed),
        ok ?= equal(position, Next, Position),
        ok ?= same_events(At, Files, Table),
        {ok, Names} ?= names(At, #{}),
        ok ?= equal(streams, Names, lists:sort([N || N := #{buried := false} <- Table])),
        {ok, Tombs} ?= tombs(At, first),
        ok ?= equal(tombstones, Tombs, lists:sort([N || N := #{buried := true} <- Table])),
        ok ?= same_streams(At, maps:to_list(Table)),
        {ok, Keys} ?= erl_esdb_backup:documents(Store, Timed),
        ok ?= equal(documents, length(Keys), Documents),
        same_documents(At, Files)
    end.

-spec equal(term(), term(), term()) -> ok | {error, {differs, term()}}.
equal(_What, Same, Same) -> ok;
equal(What, _, _) -> {error, {differs, What}}.

-spec same_events(store(), files(), table()) -> ok | {error, term()}.
same_events(At, Files, Table) ->
    Compare = fun
        ([], From) ->
            {ok, From};
        (Events, From) ->
            maybe
                {ok, Here} ?= read_log(At, From, length(Events)),
                ok ?= equal({events, From}, Here, Events),
                {ok, (lists:last(Events))#event.position + 1}
            end
    end,
    maybe
        {ok, From} ?= events(Files, Table, Compare, 0),
        {ok, More} ?= read_log(At, From, 1),
        equal({events, From}, More, [])
    end.

-spec read_log(store(), non_neg_integer(), pos_integer()) -> {ok, [event()]} | {error, term()}.
read_log({Store, Timed}, From, Count) ->
    erl_esdb_store:read_log(Store, From, Count, forward, Timed#{hidden => true}).

-spec names(store(), map()) -> {ok, [binary()]} | {error, term()}.
names({Store, Timed} = At, From) ->
    maybe
        {ok, Names, Next} ?= erl_esdb_store:names(Store, maps:merge(Timed, From)),
        {ok, More} ?= names_behind(At, Next),
        {ok, Names ++ More}
    end.

-spec names_behind(store(), binary() | done) -> {ok, [binary()]} | {error, term()}.
names_behind(_At, done) -> {ok, []};
names_behind(At, Next) -> names(At, #{from => Next}).

-spec tombs(store(), binary() | first) -> {ok, [binary()]} | {error, term()}.
tombs({Store, Timed} = At, Behind) ->
    maybe
        {ok, [_ | _] = Tombs} ?= erl_esdb_store:tombs(Store, Behind, Timed),
        Names = [Name || {Name, _} <- Tombs],
        {ok, More} ?= tombs(At, lists:last(Names)),
        {ok, Names ++ More}
    end.

-spec same_streams(store(), [{binary(), erl_esdb_backup:entry()}]) -> ok | {error, term()}.
same_streams(At, [{Name, Entry} | Streams]) ->
    maybe
        {ok, Here} ?= stream(At, Name, Entry),
        There = Entry#{archived => past(archived(Entry), Entry)},
        ok ?= equal({stream, Name}, Here, maps:with(maps:keys(Here), There)),
        same_streams(At, Streams)
    end;
same_streams(_At, []) ->
    ok.

-spec stream(store(), binary(), erl_esdb_backup:entry()) -> {ok, map()} | {error, term()}.
stream({Store, Timed} = At, Name, #{buried := Buried} = Entry) ->
    maybe
        {ok, #{no := No} = Info} ?= info(At, Name, Buried),
        {ok, Metadata} ?= erl_esdb_store:get_metadata(Store, Name, Timed),
        {ok, Anchors} ?= erl_esdb_integrity:anchors(Store, Name, No, Timed),
        {ok, Notes} ?= erl_esdb_archive_notes:all(Store, Name, No, Timed),
        Archived = past(erl_esdb_archive_notes:in_backup(Notes), Entry),
        {ok, (maps:remove(no, Info))#{
            metadata => Metadata, anchors => Anchors, archived => Archived
        }}
    end.

-spec past(erl_esdb_archive_notes:copied(), erl_esdb_backup:entry()) ->
    erl_esdb_archive_notes:copied().
past(Copied, #{next := Next}) -> erl_esdb_archive_notes:past(Copied, Next).

-spec info(store(), binary(), Buried :: boolean()) -> {ok, map()} | {error, term()}.
info({Store, Timed}, Name, true) -> erl_esdb_store:tip(Store, Name, Timed);
info({Store, Timed}, Name, false) -> erl_esdb_pages:info(Store, Name, Timed).

-spec same_documents(store(), files()) -> ok | {error, term()}.
same_documents({Store, Timed} = At, Files) ->
    Compare = fun
        (document, {Key, Term}, Count) ->
            case same_document(At, Key, Term) of
                ok -> {ok, Count};
                {error, Reason} -> {error, Reason}
            end;
        (checkpoints, Values, Found) ->
            {ok, maps:merge(Found, Values)}
    end,
    maybe
        {ok, Values} ?= documents(Files, Compare, #{}),
        {ok, Checkpoints} ?= erl_esdb_store:checkpoints(Store, Timed),
        Without = fun erl_esdb_delivery:without_processes/1,
        equal(checkpoints, Without(Checkpoints), Without(Values))
    end.

-spec same_document(store(), tuple(), term()) -> ok | {error, term()}.
same_document({Store, Timed}, Key, Term) ->
    case erl_esdb_store:get_document(Store, Key, Timed) of
        {ok, Here} -> equal({document, Key}, erl_esdb_backup:detached(Here), Term);
        {error, not_found} -> {error, {differs, {document, Key}}};
        {error, Reason} -> {error, Reason}
    end.
