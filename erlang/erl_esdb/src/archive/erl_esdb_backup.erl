-module(erl_esdb_backup).
-moduledoc """
A copy of a whole store, made while it is written to, and put back into an empty one.

```erlang
1> {ok, #{position := 2500}} = erl_esdb_backup:backup(shop, "/backup/2024-05-01").
2> {ok, _} = erl_esdb_backup:verify("/backup/2024-05-01").
3> {ok, _} = erl_esdb:start_store(copy).
4> {ok, _} = erl_esdb_backup:restore(copy, "/backup/2024-05-01").
```

A backup is a folder with three files: `documents.esdb` and `events.esdb` (drawn in
`m:erl_esdb_frames`) and, written last, `manifest.json` with the position, counts, and size and
SHA-256 of the other two. A folder without manifest is no backup.

## What is in it

The events below a position: that which the next event would have had when copying began. So an
append is in it as a whole or not at all, and with an event everything that came before. Events that
were removed while it was made, by scavenging or deletion, are not in it. With them the metadata of
streams, where streams with a tombstone go on, which archives are a stream's, and what a store that
signs keeps of removed events, all taken behind the events, so that they fit together. Of documents
(snapshots, subscriptions, links, policies and so on) and of how far subscriptions and links have
come it is what was there before that position was taken: none is ahead of the events.

Making one leaves the id of the store there (`m:erl_esdb_incarnation`), so it fails where the store
cannot be written to.

## What restoring does

The store must be empty. Events get the versions, positions, times, ids and contents that they had;
versions and positions of removed events are not given again, also not behind a tombstone. What
events were signed with is kept, so a store that has the keys verifies them, and does so here. Then
everything in the store is compared with the backup, and links that were running and subscriptions
go on: these when a process is attached. What was delivered or linked between the copy of their
place and that of the events is delivered again, and not linked again. A projection goes on when it
is started. Policies of snapshots go on from those that are of the same stream, not of one that was
deleted and had its name; what is due by then is taken when all this is done.

A restored store is another one than that of the backup, for what stands outside of it: an export
that was stopped begins anew, and an import is not gone on with.

How often a document was put is not kept. Not in a backup are the metadata of streams that do not
exist, and what is in other places: archives, which are found under the name of the store, the
application's environment, plain funs of subscriptions and links.

A restore that is stopped leaves a store that is to be dropped: begin again with an empty one.

## Options

- `timeout`: of each call to the store, of which there is one for each page of events, stream and
  document; default that of the store. Other options are ignored

## Errors

- `{not_empty, Dir}`: the folder of a new backup has files
- `{store_replaced, Store}`: it came back empty under its name while the backup was made
- `{not_a_backup, Dir}`; `{unsupported_version, N}`: a later release has made it
- `{checksum_mismatch, Path}`, `{corrupt_file, Path, Reason}`, `{read_failed, R}`
- `{failed_to_create_dir, R}`, `{write_failed, R}`: R as of `m:file`
- `{store_not_empty, Store}`
- `{differs, What}`: what is in the store is not what is in the backup: `position`,
  `{events, From}` (a position), `{stream, Name}`, `streams`, `tombstones`, `{document, Key}`,
  `documents` or `checkpoints`
- `{integrity_violation, Details}`: the store has keys, and what was restored is not right by them

and those of `m:erl_esdb_streams`.
""".

-export([backup/2, backup/3, verify/1, restore/2, restore/3, compare/2, compare/3]).
-export([documents/2, detached/1]).
-export_type([manifest/0, entry/0, options/0]).

-include("erl_esdb.hrl").

-define(EVENTS, ~"events.esdb").
-define(DOCUMENTS, ~"documents.esdb").
-define(MANIFEST, ~"manifest.json").
-define(FORMAT, 1).
-define(SEGMENT, #{events => 4096, bytes => 16_777_216}).
%% Streams or checkpoints of a frame.
-define(GROUP, 500).
%% Names of streams that are listed at a time.
-define(PAGE, 1000).
%% No key of a document has more elements.
-define(LAST_KEY, erlang:make_tuple(1024, [])).

-doc """
`position`: of the first event that is not in it; `created_at` in milliseconds since 1970.
""".
-type manifest() :: #{
    store := binary(),
    position := non_neg_integer(),
    events := non_neg_integer(),
    streams := non_neg_integer(),
    documents := non_neg_integer(),
    created_at := integer(),
    files := #{binary() => #{bytes := non_neg_integer(), sha256 := binary()}}
}.

-type options() :: #{timeout => timeout(), _ => _}.
-doc """
A stream in the table of a backup: versions from `first` to before `next` are in it. `buried`: it
has a tombstone. `anchors`: see `erl_esdb_integrity:anchors/4`. `archived`: see
`m:erl_esdb_archive_notes`; old backups have `incarnations` alone, the names. `marks`: see
`m:erl_esdb_snapshot_marks`; old backups have none.
""".
-type entry() :: #{
    first := non_neg_integer(),
    next := non_neg_integer(),
    %% of the first event, where there is one
    position := non_neg_integer() | none,
    %% of the last one, also where it was removed
    epoch_us := integer(),
    tip := erl_esdb_log:tip(),
    %% the first version that was signed; the first one behind a tombstone, and the tip there
    signed := none | non_neg_integer(),
    base := non_neg_integer(),
    base_tip := erl_esdb_log:tip(),
    buried := boolean(),
    metadata := erl_esdb_log:metadata(),
    anchors := #{non_neg_integer() => erl_esdb_integrity:anchor()},
    incarnations := [binary()],
    archived => erl_esdb_archive_notes:copied(),
    marks => [erl_esdb_snapshot_marks:mark()]
}.

%% Where the versions of a stream end, and the time and tip there.
-type place() :: #{next := non_neg_integer(), epoch_us := integer(), tip := erl_esdb_log:tip()}.
%% The last event of a stream that was copied.
-type last() :: #{
    next := non_neg_integer(),
    epoch_us := integer(),
    tip := erl_esdb_log:tip(),
    position := non_neg_integer()
}.
%% A store and the options of its calls.
-type store() :: {atom(), #{timeout => timeout()}}.

-record(out, {
    fd :: file:fd(),
    sum :: non_neg_integer(),
    hash :: crypto:hash_state(),
    bytes :: non_neg_integer()
}).

%% ---- making one

-doc "The same as `backup/3` without options.".
-spec backup(Store :: atom(), Dir :: file:filename_all()) ->
    {ok, manifest()} | {error, term()}.
backup(Store, Dir) -> backup(Store, Dir, #{}).

-doc "Copies a store to a folder, which is made, or is empty.".
-spec backup(Store :: atom(), Dir :: file:filename_all(), options()) ->
    {ok, manifest()} | {error, term()}.
backup(Store, Dir, Options) when is_atom(Store), is_map(Options) ->
    Path = filename:absname(erl_esdb_file:path(Dir)),
    Timed = timed(Options),
    maybe
        {ok, _} ?= erl_esdb_store:next_position(Store, Timed),
        ok ?= erl_esdb_file:ensure_dir(Path),
        ok ?= empty_dir(Path),
        {ok, Id} ?= erl_esdb_incarnation:id(Store, Timed),
        {ok, Documents, DocumentsFile} ?= copy_documents({Store, Timed}, Path),
        {ok, Copied, EventsFile} ?= copy_events({Store, Timed}, Path),
        ok ?= same_store(erl_esdb_incarnation:has(Store, Id, 0, Timed), Store),
        Manifest = Copied#{
            store => atom_to_binary(Store),
            documents => Documents,
            created_at => erlang:system_time(millisecond),
            files => #{?EVENTS => EventsFile, ?DOCUMENTS => DocumentsFile}
        },
        Json = json:encode(Manifest#{format => ?FORMAT}),
        ok ?= erl_esdb_file:write(filename:join(Path, ?MANIFEST), [Json, $\n]),
        {ok, Manifest}
    end;
backup(_, _, _) ->
    error(badarg).

%% Of one that came back empty meanwhile there is nothing where the other was not copied yet.
-spec same_store({ok, boolean()} | {error, term()}, atom()) -> ok | {error, term()}.
same_store({ok, true}, _Store) -> ok;
same_store({ok, false}, Store) -> {error, {store_replaced, Store}};
same_store({error, Reason}, _Store) -> {error, Reason}.

-spec timed(options()) -> #{timeout => timeout()}.
timed(#{timeout := Timeout}) ->
    #{timeout => erl_esdb_store:timeout(#{timeout => Timeout}, #{timeout => Timeout})};
timed(#{}) ->
    #{}.

-spec empty_dir(binary()) -> ok | {error, term()}.
empty_dir(Dir) ->
    case file:list_dir_all(Dir) of
        {ok, []} -> ok;
        {ok, _} -> {error, {not_empty, Dir}};
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

%% Checkpoints before and after, so that each document has its own, whether it was made or removed
%% meanwhile.
-spec copy_documents(store(), binary()) -> {ok, non_neg_integer(), map()} | {error, term()}.
copy_documents({Store, Timed} = At, Dir) ->
    maybe
        {ok, Before} ?= erl_esdb_store:checkpoints(Store, Timed),
        {ok, Keys} ?= documents(Store, Timed),
        written(filename:join(Dir, ?DOCUMENTS), documents, fun(Out) ->
            maybe
                {ok, Count, Out1} ?= copy_documents(At, Keys, 0, Out),
                {ok, After} ?= erl_esdb_store:checkpoints(Store, Timed),
                Checkpoints = erl_esdb_delivery:without_processes(maps:merge(Before, After)),
                {ok, Out2} ?= copy_checkpoints(maps:next(maps:iterator(Checkpoints)), [], Out1),
                {ok, Count, Out2}
            end
        end)
    end.

-doc false.
%% The keys of documents that stand by themselves. Others are what is known of a stream: they have
%% its number, and go with its entry in the table. A restored copy is another store than its model.
-spec documents(atom(), #{timeout => timeout()}) ->
    {ok, [erl_esdb_log:document_key()]} | {error, term()}.
documents(Store, Timed) ->
    case erl_esdb_store:list_documents(Store, {}, ?LAST_KEY, Timed) of
        {ok, Found} -> {ok, [Key || {Key, _} <- Found, not is_left_out(Key)]};
        {error, Reason} -> {error, Reason}
    end.

-spec is_left_out(erl_esdb_log:document_key()) -> boolean().
is_left_out({Kind, _Stream, _No, _}) -> lists:member(Kind, [integrity, archive, snapshot_mark]);
is_left_out(Key) -> erl_esdb_incarnation:is_key(Key).

-spec copy_documents(store(), [tuple()], non_neg_integer(), #out{}) ->
    {ok, non_neg_integer(), #out{}} | {error, term()}.
copy_documents(_At, [], Count, Out) ->
    {ok, Count, Out};
copy_documents({Store, Timed} = At, [Key | Keys], Count, Out) ->
    maybe
        {ok, Term} ?= erl_esdb_store:get_document(Store, Key, Timed),
        {ok, Out1} ?= frame(documents, encode({Key, detached(Term)}), Out),
        copy_documents(At, Keys, Count + 1, Out1)
    else
        %% Removed since it was listed.
        {error, not_found} -> copy_documents(At, Keys, Count, Out);
        {error, Reason} -> {error, Reason}
    end.

-doc false.
%% A subscription without its process: that of a copy is another one.
-spec detached(term()) -> term().
detached(#subscription{} = Subscription) -> Subscription#subscription{subscriber_pid = undefined};
detached(Term) -> Term.

-spec copy_checkpoints(none | {term(), term(), maps:iterator()}, [{term(), term()}], #out{}) ->
    {ok, #out{}} | {error, term()}.
copy_checkpoints(Next, Group, Out) when Next =:= none; length(Group) >= ?GROUP ->
    case {frame(checkpoints, encode(Group), Out), Next} of
        {{ok, Out1}, none} -> {ok, Out1};
        {{ok, Out1}, _} -> copy_checkpoints(Next, [], Out1);
        {{error, Reason}, _} -> {error, Reason}
    end;
copy_checkpoints({Key, Value, Iterator}, Group, Out) ->
    copy_checkpoints(maps:next(Iterator), [{Key, Value} | Group], Out).

%% What is known of streams before the position is taken tells the numbering of those whose events
%% were all removed, and which stream it was that had a name. Rows are
%% `{Name, {No, place()} | unknown, last() | none}'.
-spec copy_events(store(), binary()) -> {ok, map(), map()} | {error, term()}.
copy_events(At, Dir) ->
    Known = ets:new(?MODULE, [ordered_set, private]),
    try
        maybe
            ok ?= know_streams(At, #{limit => ?PAGE}, Known),
            ok ?= know_tombs(At, first, Known),
            {ok, Position} ?= position(At),
            Write = fun(Out) -> copy_events(At, Position, Known, Out) end,
            {ok, {Events, Streams}, File} ?=
                written(filename:join(Dir, ?EVENTS), backup, Write),
            {ok, #{position => Position, events => Events, streams => Streams}, File}
        end
    after
        ets:delete(Known)
    end.

%% An append is seen in its stream before it is seen in the log. A command behind it, that does
%% nothing, is answered when it is in both: so no stream is known to go beyond the position.
-spec position(store()) -> {ok, non_neg_integer()} | {error, term()}.
position({Store, Timed}) ->
    maybe
        ok ?= erl_esdb_store:save_checkpoints(Store, #{}, Timed),
        erl_esdb_store:next_position(Store, Timed#{consistency => linearizable})
    end.

-spec know_streams(store(), map(), ets:table()) -> ok | {error, term()}.
know_streams({Store, Timed} = At, Page, Known) ->
    maybe
        {ok, Names, Next} ?= erl_esdb_store:names(Store, maps:merge(Timed, Page)),
        ok ?= know_each(At, Names, Known),
        case Next of
            done -> ok;
            _ -> know_streams(At, Page#{from => Next}, Known)
        end
    end.

-spec know_each(store(), [binary()], ets:table()) -> ok | {error, term()}.
know_each({Store, Timed} = At, [Name | Names], Known) ->
    case erl_esdb_pages:info(Store, Name, Timed) of
        {ok, Info} ->
            know(Name, Info, Known),
            know_each(At, Names, Known);
        %% It has a tombstone since it was listed, or is gone.
        {error, {stream_not_found, _}} ->
            know_each(At, Names, Known);
        {error, Reason} ->
            {error, Reason}
    end;
know_each(_At, [], _Known) ->
    ok.

%% Behind the streams: one that was buried in between is among these, one that was made again is
%% among those.
-spec know_tombs(store(), binary() | first, ets:table()) -> ok | {error, term()}.
know_tombs({Store, Timed} = At, Behind, Known) ->
    case erl_esdb_store:tombs(Store, Behind, Timed) of
        {ok, []} ->
            ok;
        {ok, Tombs} ->
            [know(Name, Info, Known) || {Name, Info} <- Tombs],
            know_tombs(At, element(1, lists:last(Tombs)), Known);
        {error, Reason} ->
            {error, Reason}
    end.

-spec know(binary(), erl_esdb_log:info(), ets:table()) -> true.
know(Name, #{no := No} = Info, Known) ->
    ets:insert(Known, {Name, {No, maps:with([next, epoch_us, tip], Info)}, none}).

-spec copy_events(store(), non_neg_integer(), ets:table(), #out{}) ->
    {ok, {non_neg_integer(), non_neg_integer()}, #out{}} | {error, term()}.
copy_events({Store, Timed} = At, Position, Known, Out) ->
    Copy = fun(Events, _Next, Out1) ->
        seen(Events, Known),
        case segments(erl_esdb_event_segment:split(Events, ?SEGMENT), Out1) of
            {ok, Out2} -> {next, Out2};
            {error, Reason} -> {error, Reason}
        end
    end,
    Options = Timed#{hidden => true},
    maybe
        {done, Out1} ?= erl_esdb_pages:log(Store, 0, Position, Options, Copy, Out),
        table(At, ets:first(Known), {Known, Position}, {0, 0}, [], Out1)
    end.

%% The last event of each stream in a page.
-spec seen([event()], ets:table()) -> ok.
seen(Events, Known) ->
    Last = maps:from_list([{Name, Event} || #event{stream_id = Name} = Event <- Events]),
    maps:foreach(fun(Name, Event) -> seen(Name, Event, Known) end, Last).

-spec seen(binary(), event(), ets:table()) -> true.
seen(Name, #event{version = Version, position = Position, epoch_us = Time} = Event, Known) ->
    Last = #{next => Version + 1, epoch_us => Time, tip => tip_of(Event), position => Position},
    case ets:lookup(Known, Name) of
        [{_, Before, _}] -> ets:insert(Known, {Name, Before, Last});
        [] -> ets:insert(Known, {Name, unknown, Last})
    end.

-spec tip_of(event()) -> erl_esdb_log:tip().
tip_of(Event) ->
    case erl_esdb_chain:is_signed(Event) of
        true -> erl_esdb_chain:chain_hash(Event);
        false -> none
    end.

-spec segments([[event()]], #out{}) -> {ok, #out{}} | {error, term()}.
segments([Events | Rest], Out) ->
    maybe
        {ok, Segment} ?= erl_esdb_event_segment:pack(Events, #{compress => zstd}),
        {ok, Out1} ?= frame(segment, Segment, Out),
        segments(Rest, Out1)
    end;
segments([], Out) ->
    {ok, Out}.

%% Taken in the end: events of streams that are gone by now, and those before the first version that
%% a stream has now, do not count as copied.
-spec table(
    store(),
    binary() | '$end_of_table',
    {ets:table(), Position :: non_neg_integer()},
    {non_neg_integer(), non_neg_integer()},
    [{binary(), entry()}],
    #out{}
) ->
    {ok, {non_neg_integer(), non_neg_integer()}, #out{}} | {error, term()}.
table(At, Name, Known, Counts, Entries, Out) when length(Entries) >= ?GROUP ->
    case frame(streams, encode(Entries), Out) of
        {ok, Out1} -> table(At, Name, Known, Counts, [], Out1);
        {error, Reason} -> {error, Reason}
    end;
table(_At, '$end_of_table', _Known, Counts, Entries, Out) ->
    case frame(streams, encode(Entries), Out) of
        {ok, Out1} -> {ok, Counts, Out1};
        {error, Reason} -> {error, Reason}
    end;
table(At, Name, {Table, Position} = Known, Counts, Entries, Out) ->
    [{_, Before, Last}] = ets:lookup(Table, Name),
    Following = ets:next(Table, Name),
    case entry(At, Name, Before, Last, Position) of
        {ok, Entry} ->
            table(At, Following, Known, count(Entry, Counts), [{Name, Entry} | Entries], Out);
        gone ->
            table(At, Following, Known, Counts, Entries, Out);
        {error, Reason} ->
            {error, Reason}
    end.

-spec count(entry(), {non_neg_integer(), non_neg_integer()}) ->
    {non_neg_integer(), non_neg_integer()}.
count(#{buried := true}, Counts) -> Counts;
count(#{first := First, next := Next}, {Events, Streams}) -> {Events + Next - First, Streams + 1}.

-spec entry(store(), binary(), {pos_integer(), place()} | unknown, last() | none, Position) ->
    {ok, entry()} | gone | {error, term()}
when
    Position :: non_neg_integer().
entry({Store, Timed} = At, Name, Before, Last, Position) ->
    maybe
        {ok, #{no := No} = Info} ?= now(At, Name),
        {ok, Metadata} ?= erl_esdb_store:get_metadata(Store, Name, Timed),
        {ok, #{next := Next} = Place} ?= copied(At, Name, Info, Before, Last),
        Cut = cut(Info, Place),
        {ok, First} ?= position_of(At, Name, Cut, Position),
        {ok, Anchors} ?= erl_esdb_integrity:anchors(Store, Name, No, Timed),
        {ok, Notes} ?= erl_esdb_archive_notes:all(Store, Name, No, Timed),
        Archived = erl_esdb_archive_notes:past(erl_esdb_archive_notes:in_backup(Notes), Next),
        {ok, Marks} ?= erl_esdb_snapshot_marks:in_backup(Store, Name, No, Timed),
        %% Nothing was removed meanwhile, so all this belongs together.
        {ok, Info} ?= now(At, Name),
        Kept = #{V => Anchor || V := Anchor <- Anchors, V < min(Next, map_get(first, Cut))},
        {ok, Cut#{
            position => First,
            metadata => Metadata,
            anchors => with_last(Store, Name, Cut, Kept),
            incarnations => lists:sort(maps:keys(Archived)),
            archived => Archived,
            marks => Marks
        }}
    else
        {error, Reason} -> {error, Reason};
        gone -> gone;
        {ok, _Changed} -> entry(At, Name, Before, Last, Position)
    end.

%% What a stream is by now: as far as an append does not change it.
-spec now(store(), binary()) -> {ok, map()} | gone | {error, term()}.
now({Store, Timed}, Name) ->
    case erl_esdb_pages:info(Store, Name, Timed) of
        {ok, Info} ->
            {ok, (maps:with([no, first, base, base_tip, signed], Info))#{buried => false}};
        {error, {stream_not_found, _}} ->
            buried({Store, Timed}, Name);
        {error, Reason} ->
            {error, Reason}
    end.

%% Where it is made again between both questions, the next answer is another one.
-spec buried(store(), binary()) -> {ok, map()} | gone | {error, term()}.
buried({Store, Timed}, Name) ->
    case erl_esdb_store:tip(Store, Name, Timed) of
        {ok, #{no := none}} ->
            gone;
        {ok, #{no := No, signed := Signed}} ->
            Nothing = #{first => 0, base => 0, base_tip => none},
            {ok, Nothing#{no => No, signed => Signed, buried => true}};
        {error, Reason} ->
            {error, Reason}
    end.

%% How far a stream goes in the copy: as it was known before, or behind the last event that was
%% copied. One that was made again since counts only with events that are its own.
-spec copied(store(), binary(), map(), {pos_integer(), place()} | unknown, last() | none) ->
    {ok, place()} | gone | {error, term()}.
copied(_At, _Name, #{no := No}, {No, #{next := Next} = Place}, #{next := Seen}) when Next >= Seen ->
    {ok, Place};
copied(_At, _Name, #{no := No}, {No, Place}, none) ->
    {ok, Place};
copied(_At, _Name, #{no := No}, {No, _}, Last) ->
    {ok, maps:remove(position, Last)};
copied(_At, _Name, _Info, _, none) ->
    gone;
copied(_At, _Name, #{buried := true}, _, Last) ->
    {ok, maps:remove(position, Last)};
copied({Store, Timed}, Name, #{first := First}, _, Last) ->
    #{next := Next, position := Position} = Last,
    Options = Timed#{hidden => true, verify => skip_all},
    case erl_esdb_store:read(Store, Name, Next - 1, 1, forward, Options) of
        {ok, [#event{position = Position}]} -> {ok, maps:remove(position, Last)};
        {ok, []} when First >= Next -> {ok, maps:remove(position, Last)};
        {ok, _} -> gone;
        {error, {stream_not_found, _}} -> gone;
        {error, Reason} -> {error, Reason}
    end.

%% What came later is not in the copy: a tombstone behind its end neither, nor the begin of signing.
%% One that has no more versions of its own than those before a tombstone has that tombstone.
-spec cut(map(), place()) -> map().
cut(#{first := First, base := Base, signed := Signed, buried := Buried} = Info, Place) ->
    #{next := Next} = Place,
    Entry = maps:merge(maps:without([no], Info), Place),
    Since = [Version || Version <- [Signed], is_integer(Version), Version < Next],
    Signed1 =
        case Since of
            [Version] -> Version;
            [] -> none
        end,
    Entry1 = Entry#{first := min(First, Next), signed := Signed1},
    case Buried orelse (Base > 0 andalso Base >= Next) of
        true -> Entry1#{first := Next, base := 0, base_tip := none, buried := true};
        false -> Entry1
    end.

%% The event of the first version may have come after the position.
-spec position_of(store(), binary(), map(), non_neg_integer()) ->
    {ok, non_neg_integer() | none} | gone | {error, term()}.
position_of(_At, _Name, #{first := Same, next := Same}, _Position) ->
    {ok, none};
position_of({Store, Timed}, Name, #{first := First}, Before) ->
    Options = Timed#{hidden => true, verify => skip_all},
    case erl_esdb_store:read(Store, Name, First, 1, forward, Options) of
        {ok, [#event{position = Position}]} when Position < Before -> {ok, Position};
        {ok, [_]} -> gone;
        %% Removed meanwhile, which is seen at the end.
        {ok, []} -> {ok, none};
        {error, {stream_not_found, _}} -> {ok, none};
        {error, Reason} -> {error, Reason}
    end.

%% Of a stream without events what the next one has to name, where it was written meanwhile.
-spec with_last(atom(), binary(), map(), #{non_neg_integer() => erl_esdb_integrity:anchor()}) ->
    #{non_neg_integer() => erl_esdb_integrity:anchor()}.
with_last(Store, Name, #{first := Next, next := Next, buried := false} = Cut, Anchors) when
    not is_map_key(Next - 1, Anchors), map_get(signed, Cut) =/= none, map_get(tip, Cut) =/= none
->
    #{tip := Tip} = Cut,
    case erl_esdb_store:engine(Store) of
        {ok, _, _, #{integrity := Keys}} when Keys =/= disabled ->
            Anchor = erl_esdb_integrity:anchor(Keys, Name, Next - 1, none, Tip),
            Anchors#{Next - 1 => Anchor};
        _ ->
            Anchors
    end;
with_last(_Store, _Name, _Cut, Anchors) ->
    Anchors.

%% ---- files of frames

-spec written(binary(), erl_esdb_frames:kind(), Write) -> {ok, Counts, map()} | {error, term()} when
    Write :: fun((#out{}) -> {ok, Counts, #out{}} | {error, term()}).
written(Path, Kind, Write) ->
    maybe
        {ok, Fd} ?= failed(file:open(Path, [write, raw, binary, exclusive])),
        Written = written_to(Fd, Kind, Write),
        ok = file:close(Fd),
        {ok, Counts, #out{bytes = Bytes, hash = Hash}} ?= Written,
        {ok, Counts, #{bytes => Bytes, sha256 => hex(Hash)}}
    end.

-spec written_to(file:fd(), erl_esdb_frames:kind(), Write) ->
    {ok, Counts, #out{}} | {error, term()}
when
    Write :: fun((#out{}) -> {ok, Counts, #out{}} | {error, term()}).
written_to(Fd, Kind, Write) ->
    {Head, Sum} = erl_esdb_frames:head(Kind),
    Out = #out{fd = Fd, sum = Sum, hash = crypto:hash_init(sha256), bytes = 0},
    maybe
        {ok, Out1} ?= write(Head, Out),
        {ok, Counts, Out2} ?= Write(Out1),
        {ok, Out3} ?= frame('end', <<>>, Out2),
        {ok, _} ?= failed(file:sync(Fd)),
        {ok, Counts, Out3}
    end.

-spec frame(erl_esdb_frames:tag(), iodata(), #out{}) -> {ok, #out{}} | {error, term()}.
frame(Tag, Body, #out{sum = Sum} = Out) ->
    {Frame, Sum1} = erl_esdb_frames:frame(Tag, Body, Sum),
    write(Frame, Out#out{sum = Sum1}).

-spec write(iodata(), #out{}) -> {ok, #out{}} | {error, term()}.
write(Content, #out{fd = Fd, hash = Hash, bytes = Bytes} = Out) ->
    maybe
        {ok, _} ?= failed(file:write(Fd, Content)),
        Hash1 = crypto:hash_update(Hash, Content),
        {ok, Out#out{hash = Hash1, bytes = Bytes + iolist_size(Content)}}
    end.

-spec failed(ok | {ok, Value} | {error, term()}) ->
    {ok, Value | done} | {error, {write_failed, term()}}.
failed(ok) -> {ok, done};
failed({ok, Value}) -> {ok, Value};
failed({error, Reason}) -> {error, {write_failed, Reason}}.

-spec hex(crypto:hash_state()) -> binary().
hex(Hash) -> binary:encode_hex(crypto:hash_final(Hash), lowercase).

-spec encode(term()) -> binary().
encode(Term) -> term_to_binary(Term, [{minor_version, 2}]).

%% ---- checking one

-doc "Compares the files of a backup with its manifest.".
-spec verify(Dir :: file:filename_all()) -> {ok, manifest()} | {error, term()}.
verify(Dir) ->
    Path = filename:absname(erl_esdb_file:path(Dir)),
    maybe
        {ok, #{files := Files} = Manifest} ?= manifest(Path),
        ok ?= verify_files(Path, maps:to_list(Files)),
        {ok, Manifest}
    end.

-spec verify_files(binary(), [{binary(), map()}]) -> ok | {error, term()}.
verify_files(Dir, [{Name, #{sha256 := Hash}} | Files]) ->
    Path = filename:join(Dir, Name),
    case erl_esdb_file:sha256(Path) of
        {ok, Hash} -> verify_files(Dir, Files);
        {error, Reason} when Reason =/= enoent -> {error, {read_failed, Reason}};
        _ -> {error, {checksum_mismatch, Path}}
    end;
verify_files(_Dir, []) ->
    ok.

-spec manifest(binary()) -> {ok, manifest()} | {error, term()}.
manifest(Dir) ->
    case file:read_file(filename:join(Dir, ?MANIFEST), [raw]) of
        {ok, Json} -> parsed(Dir, Json);
        {error, Reason} when Reason =:= enoent; Reason =:= enotdir -> {error, {not_a_backup, Dir}};
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-spec parsed(binary(), binary()) -> {ok, manifest()} | {error, term()}.
parsed(Dir, Json) ->
    try
        checked(json:decode(Json))
    catch
        %% No JSON, or not all that is needed.
        error:_ -> {error, {not_a_backup, Dir}}
    end.

-spec checked(map()) -> {ok, manifest()} | {error, {unsupported_version, pos_integer()}}.
checked(#{~"format" := Format}) when is_integer(Format), Format > ?FORMAT ->
    {error, {unsupported_version, Format}};
checked(#{~"format" := ?FORMAT, ~"files" := Files, ~"store" := Store} = Manifest) ->
    Keys = [position, events, streams, documents, created_at],
    Numbers = #{Key => number(maps:get(atom_to_binary(Key), Manifest)) || Key <- Keys},
    Found = #{Name => file_of(maps:get(Name, Files)) || Name <- [?EVENTS, ?DOCUMENTS]},
    {ok, Numbers#{store => Store, files => Found}}.

-spec number(integer()) -> integer().
number(Number) when is_integer(Number) -> Number.

-spec file_of(map()) -> map().
file_of(#{~"bytes" := Bytes, ~"sha256" := Hash}) -> #{bytes => Bytes, sha256 => Hash}.

%% ---- restoring

-doc "The same as `restore/3` without options.".
-spec restore(Store :: atom(), Dir :: file:filename_all()) ->
    {ok, manifest()} | {error, term()}.
restore(Store, Dir) -> restore(Store, Dir, #{}).

-doc "Puts a backup into an empty store, and compares it.".
-spec restore(Store :: atom(), Dir :: file:filename_all(), options()) ->
    {ok, manifest()} | {error, term()}.
restore(Store, Dir, Options) when is_atom(Store), is_map(Options) ->
    Path = filename:absname(erl_esdb_file:path(Dir)),
    At = {Store, timed(Options)},
    maybe
        ok ?= erl_esdb_backup_restore:empty_store(At),
        {ok, Manifest} ?= verify(Path),
        ok ?= erl_esdb_backup_restore:restore(At, files(Path), Manifest),
        {ok, Manifest}
    end;
restore(_, _, _) ->
    error(badarg).

-doc "The same as `compare/3` without options.".
-spec compare(Store :: atom(), Dir :: file:filename_all()) -> ok | {error, term()}.
compare(Store, Dir) -> compare(Store, Dir, #{}).

-doc "Whether a store has what is in a backup, and nothing else.".
-spec compare(Store :: atom(), Dir :: file:filename_all(), options()) -> ok | {error, term()}.
compare(Store, Dir, Options) when is_atom(Store), is_map(Options) ->
    Path = filename:absname(erl_esdb_file:path(Dir)),
    At = {Store, timed(Options)},
    maybe
        {ok, Manifest} ?= verify(Path),
        erl_esdb_backup_restore:compare(At, files(Path), Manifest)
    end;
compare(_, _, _) ->
    error(badarg).

-spec files(binary()) -> #{events := binary(), documents := binary()}.
files(Dir) ->
    #{events => filename:join(Dir, ?EVENTS), documents => filename:join(Dir, ?DOCUMENTS)}.
