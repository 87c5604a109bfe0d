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
were removed while it was made, by scavenging or deletion, are not in it. Of the documents
(snapshots, subscriptions, policies and so on) those that were there before that position was taken:
none is ahead of the events.

## What restoring does

The store must be empty. Events get the versions, positions, times, ids and contents that they had;
versions and positions of removed events are not given again. What events were signed with is
kept, so a store that has the keys verifies them; and the metadata of streams. Then everything in
the store is compared with the backup. How often a document was put is not kept; the incarnations
of archives are. Not in a backup are the numbering of streams behind a tombstone, the metadata of
streams without events, how far subscriptions came, and what is in other places (archives, the
application's environment).

A restore that is stopped leaves a store that is to be dropped: begin again with an empty one.

## Errors

- `{not_empty, Dir}`: the folder of a new backup has files
- `{not_a_backup, Dir}`, `{unsupported_version, N}`
- `{checksum_mismatch, Path}`, `{corrupt_file, Path, Reason}`, `{read_failed, R}`
- `{failed_to_create_dir, R}`, `{write_failed, R}`: R as of `m:file`
- `{store_not_empty, Store}`
- `{differs, What}`: what is in the store is not what is in the backup: `position`,
  `{events, From}` (a position), `{stream, Name}`, `streams`, `{document, Key}` or `documents`

and those of `m:erl_esdb_streams`.
""".

-export([backup/2, verify/1, restore/2, compare/2]).
-export_type([manifest/0]).

-include("erl_esdb.hrl").

-define(EVENTS, ~"events.esdb").
-define(DOCUMENTS, ~"documents.esdb").
-define(MANIFEST, ~"manifest.json").
-define(FORMAT, 1).
-define(SEGMENT, #{events => 4096, bytes => 16_777_216}).
%% Streams of a frame.
-define(GROUP, 500).
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

%% A stream in the table of a backup: versions from `first' to before `next' are in it.
-type entry() :: #{
    no := pos_integer(),
    first := non_neg_integer(),
    next := non_neg_integer(),
    %% of the first event, where there is one
    position := non_neg_integer() | none,
    epoch_us := integer(),
    metadata := erl_esdb_log:metadata(),
    %% the first version that was signed, and the tip
    signed := none | non_neg_integer(),
    tip := erl_esdb_log:tip()
}.

-record(out, {
    fd :: file:fd(),
    sum :: non_neg_integer(),
    hash :: crypto:hash_state(),
    bytes :: non_neg_integer()
}).

%% ---- making one

-doc "Copies a store to a folder, which is made, or is empty.".
-spec backup(Store :: atom(), Dir :: file:filename_all()) ->
    {ok, manifest()} | {error, term()}.
backup(Store, Dir) when is_atom(Store) ->
    Path = erl_esdb_file:path(filename:absname(Dir)),
    maybe
        {ok, _} ?= erl_esdb_store:next_position(Store),
        ok ?= erl_esdb_file:ensure_dir(Path),
        ok ?= empty_dir(Path),
        {ok, Documents, DocumentsFile} ?= copy_documents(Store, Path),
        {ok, Copied, EventsFile} ?= copy_events(Store, Path),
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
backup(_, _) ->
    error(badarg).

-spec empty_dir(binary()) -> ok | {error, term()}.
empty_dir(Dir) ->
    case file:list_dir_all(Dir) of
        {ok, []} -> ok;
        {ok, _} -> {error, {not_empty, Dir}};
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-spec copy_documents(atom(), binary()) -> {ok, non_neg_integer(), map()} | {error, term()}.
copy_documents(Store, Dir) ->
    maybe
        {ok, Keys} ?= erl_esdb_store:list_documents(Store, {}, ?LAST_KEY),
        written(filename:join(Dir, ?DOCUMENTS), documents, fun(Out) ->
            copy_documents(Store, [Key || {Key, _} <- Keys], 0, Out)
        end)
    end.

-spec copy_documents(atom(), [tuple()], non_neg_integer(), #out{}) ->
    {ok, non_neg_integer(), #out{}} | {error, term()}.
copy_documents(_Store, [], Count, Out) ->
    {ok, Count, Out};
copy_documents(Store, [Key | Keys], Count, Out) ->
    maybe
        {ok, Term} ?= erl_esdb_store:get_document(Store, Key),
        {ok, Out1} ?= frame(documents, encode({Key, Term}), Out),
        copy_documents(Store, Keys, Count + 1, Out1)
    else
        %% Removed since it was listed.
        {error, not_found} -> copy_documents(Store, Keys, Count, Out);
        {error, Reason} -> {error, Reason}
    end.

%% What is known of streams before the position is taken tells the numbering of those whose events
%% were all removed, and which stream it was that had a name.
-spec copy_events(atom(), binary()) -> {ok, map(), map()} | {error, term()}.
copy_events(Store, Dir) ->
    Known = ets:new(?MODULE, [ordered_set, private]),
    try
        maybe
            {ok, Names} ?= erl_esdb_store:streams(Store),
            ok ?= know(Store, Names, Known),
            {ok, Position} ?= erl_esdb_store:next_position(Store),
            Write = fun(Out) -> copy_events(Store, Position, Known, Out) end,
            {ok, {Events, Streams}, File} ?=
                written(filename:join(Dir, ?EVENTS), backup, Write),
            {ok, #{position => Position, events => Events, streams => Streams}, File}
        end
    after
        ets:delete(Known)
    end.

-spec know(atom(), [binary()], ets:table()) -> ok | {error, term()}.
know(Store, [Name | Names], Known) ->
    case erl_esdb_pages:info(Store, Name) of
        {ok, #{no := No, next := Next}} ->
            true = ets:insert(Known, {Name, No, Next}),
            know(Store, Names, Known);
        {error, {stream_not_found, _}} ->
            know(Store, Names, Known);
        {error, Reason} ->
            {error, Reason}
    end;
know(_Store, [], _Known) ->
    ok.

-spec copy_events(atom(), non_neg_integer(), ets:table(), #out{}) ->
    {ok, {non_neg_integer(), non_neg_integer()}, #out{}} | {error, term()}.
copy_events(Store, Position, Known, Out) ->
    Copy = fun(Events, _Next, Out1) ->
        lists:foreach(fun(Event) -> seen(Event, Known) end, Events),
        case segments(erl_esdb_event_segment:split(Events, ?SEGMENT), Out1) of
            {ok, Out2} -> {next, Out2};
            {error, Reason} -> {error, Reason}
        end
    end,
    maybe
        {done, Out1} ?= erl_esdb_pages:log(Store, 0, Position, #{hidden => true}, Copy, Out),
        table(Store, ets:first(Known), Known, {0, 0}, [], Out1)
    end.

-spec seen(event(), ets:table()) -> true.
seen(#event{stream_id = Name, version = Version}, Known) ->
    case ets:lookup(Known, Name) of
        [{_, _, Next}] when Next > Version -> true;
        [{_, No, _}] -> ets:insert(Known, {Name, No, Version + 1});
        [] -> ets:insert(Known, {Name, unknown, Version + 1})
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
    atom(),
    binary() | '$end_of_table',
    ets:table(),
    {non_neg_integer(), non_neg_integer()},
    [{binary(), entry()}],
    #out{}
) ->
    {ok, {non_neg_integer(), non_neg_integer()}, #out{}} | {error, term()}.
table(Store, Name, Known, Counts, Entries, Out) when length(Entries) >= ?GROUP ->
    case frame(streams, encode(Entries), Out) of
        {ok, Out1} -> table(Store, Name, Known, Counts, [], Out1);
        {error, Reason} -> {error, Reason}
    end;
table(_Store, '$end_of_table', _Known, Counts, Entries, Out) ->
    case frame(streams, encode(Entries), Out) of
        {ok, Out1} -> {ok, Counts, Out1};
        {error, Reason} -> {error, Reason}
    end;
table(Store, Name, Known, {Events, Streams} = Counts, Entries, Out) ->
    [{_, No, Next}] = ets:lookup(Known, Name),
    Following = ets:next(Known, Name),
    case entry(Store, Name, No, Next) of
        {ok, #{first := First} = Entry} ->
            Counts1 = {Events + Next - First, Streams + 1},
            table(Store, Following, Known, Counts1, [{Name, Entry} | Entries], Out);
        gone ->
            table(Store, Following, Known, Counts, Entries, Out);
        {error, Reason} ->
            {error, Reason}
    end.

-spec entry(atom(), binary(), pos_integer() | unknown, non_neg_integer()) ->
    {ok, entry()} | gone | {error, term()}.
entry(Store, Name, No, Next) ->
    maybe
        {ok, #{no := Number, first := First} = Info} ?= erl_esdb_pages:info(Store, Name),
        {ok, Metadata} ?= erl_esdb_store:get_metadata(Store, Name, #{}),
        true ?= No =:= unknown orelse No =:= Number,
        {ok, Position} ?= position_of(Store, Name, First, Next),
        {ok, (maps:with([no, epoch_us, signed, tip], Info))#{
            first => min(First, Next), next => Next, position => Position, metadata => Metadata
        }}
    else
        false -> gone;
        {error, {stream_not_found, _}} -> gone;
        %% It was cut in between.
        removed -> entry(Store, Name, No, Next);
        {error, Reason} -> {error, Reason}
    end.

-spec position_of(atom(), binary(), non_neg_integer(), non_neg_integer()) ->
    {ok, non_neg_integer() | none} | removed | {error, term()}.
position_of(_Store, _Name, First, Next) when First >= Next ->
    {ok, none};
position_of(Store, Name, First, _Next) ->
    Options = #{hidden => true, verify => skip_all},
    case erl_esdb_store:read(Store, Name, First, 1, forward, Options) of
        {ok, [#event{position = Position}]} -> {ok, Position};
        {ok, []} -> removed;
        {error, Reason} -> {error, Reason}
    end.

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
    Path = erl_esdb_file:path(filename:absname(Dir)),
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

-doc "Puts a backup into an empty store, and compares it.".
-spec restore(Store :: atom(), Dir :: file:filename_all()) ->
    {ok, manifest()} | {error, term()}.
restore(Store, Dir) when is_atom(Store) ->
    Path = erl_esdb_file:path(filename:absname(Dir)),
    maybe
        ok ?= empty_store(Store),
        {ok, #{position := Position} = Manifest} ?= verify(Path),
        {ok, Table} ?= read_table(Path),
        ok ?= restore_events(Store, Path, Position, Table),
        ok ?= restore_documents(Store, Path, Table),
        ok ?= same(Store, Path, Manifest, Table),
        {ok, Manifest}
    end;
restore(_, _) ->
    error(badarg).

-spec empty_store(atom()) -> ok | {error, term()}.
empty_store(Store) ->
    maybe
        {ok, 0} ?= erl_esdb_store:next_position(Store),
        {ok, []} ?= erl_esdb_store:list_documents(Store, {}, ?LAST_KEY),
        ok
    else
        {ok, _} -> {error, {store_not_empty, Store}};
        {error, Reason} -> {error, Reason}
    end.

-type table() :: #{binary() => entry()}.

-spec read_table(binary()) -> {ok, table()} | {error, term()}.
read_table(Dir) ->
    Read = fun
        (streams, Body, Table) -> {ok, maps:merge(Table, maps:from_list(binary_to_term(Body)))};
        (_Tag, _Body, Table) -> {ok, Table}
    end,
    frames(filename:join(Dir, ?EVENTS), backup, Read, #{}).

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
            {error, {corrupt_file, Path, Reason}}
    end.

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
    {error, {corrupt_file, Path, Reason}}.

%% The events of each segment that belong to the backup.
-spec events(binary(), table(), Fun, Acc) -> {ok, Acc} | {error, term()} when
    Fun :: fun(([event()], Acc) -> {ok, Acc} | {error, term()}).
events(Dir, Table, Fun, Acc) ->
    Path = filename:join(Dir, ?EVENTS),
    Read = fun
        (segment, Body, Acc1) ->
            case erl_esdb_event_segment:unpack(Body, create) of
                {ok, Events} -> Fun([E || E <- Events, belongs(E, Table)], Acc1);
                {error, Reason} -> {error, {corrupt_file, Path, Reason}}
            end;
        (_Tag, _Body, Acc1) ->
            {ok, Acc1}
    end,
    frames(Path, backup, Read, Acc).

-spec belongs(event(), table()) -> boolean().
belongs(#event{stream_id = Name, version = Version}, Table) ->
    case Table of
        #{Name := #{first := First, next := Next}} -> First =< Version andalso Version < Next;
        #{} -> false
    end.

-spec restore_events(atom(), binary(), non_neg_integer(), table()) -> ok | {error, term()}.
restore_events(Store, Dir, Position, Table) ->
    Other = other(Table),
    Removed = [
        {Name, First, Begin, time(Entry)}
     || Name := #{first := First, position := Begin} = Entry <- Table
    ],
    Plan = erl_esdb_restore:plan(Removed, Other),
    Write = fun(Events, Acc) ->
        Maps = [erl_esdb_event_segment:to_map(Event) || Event <- Events],
        write_runs(Store, Table, erl_esdb_restore:runs(Maps, fun neighbours/2), Acc)
    end,
    maybe
        {ok, {Next, Plan1}} ?= events(Dir, Table, Write, {0, Plan}),
        {ok, _} ?= fill(Store, Table, Position - Next, Plan1),
        ok ?= truncate(Store, [{Name, First} || {Name, First, _, _} <- Removed, First > 0]),
        ok ?= erl_esdb_store:delete(Store, Other),
        set_metadata(Store, [{Name, M} || Name := #{metadata := M} <- Table, M =/= #{}])
    end.

-spec set_metadata(atom(), [{binary(), erl_esdb_log:metadata()}]) -> ok | {error, term()}.
set_metadata(Store, [{Name, Metadata} | Streams]) ->
    case erl_esdb_store:set_metadata(Store, Name, Metadata, #{}) of
        ok -> set_metadata(Store, Streams);
        {error, Reason} -> {error, Reason}
    end;
set_metadata(_Store, []) ->
    ok.

%% Of what fills the place of removed events: no later than the first event that is kept, or where
%% none is, that of the last one.
-spec time(entry()) -> integer().
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

-spec write_runs(atom(), table(), [[map(), ...]], Acc) -> {ok, Acc} | {error, term()} when
    Acc :: {non_neg_integer(), erl_esdb_restore:plan()}.
write_runs(Store, Table, [[First | _] = Run | Runs], {Next, Plan}) ->
    #{stream_id := Name, position := Position, version := Version, epoch_us := Time} = First,
    maybe
        {ok, Plan1} ?= fill(Store, Table, Position - Next, Plan),
        Tip = tip_of(lists:last(Run)),
        {ok, _} ?= erl_esdb_restore:replay(Store, Name, Version - 1, Run, Time, Tip),
        write_runs(Store, Table, Runs, {Position + length(Run), Plan1})
    end;
write_runs(_Store, _Table, [], Acc) ->
    {ok, Acc}.

-spec tip_of(map()) -> erl_esdb_log:tip().
tip_of(#{mac := _} = Map) ->
    {ok, Event} = erl_esdb_event_segment:from_map(Map, existing),
    erl_esdb_chain:chain_hash(Event);
tip_of(#{}) ->
    none.

-spec fill(atom(), table(), non_neg_integer(), erl_esdb_restore:plan()) ->
    {ok, erl_esdb_restore:plan()} | {error, term()}.
fill(Store, Table, Count, Plan) ->
    {Fillers, Plan1} = erl_esdb_restore:fill(Count, Plan),
    case fill_each(Store, Table, Fillers) of
        ok -> {ok, Plan1};
        {error, Reason} -> {error, Reason}
    end.

-spec fill_each(atom(), table(), [{binary(), non_neg_integer(), pos_integer(), integer()}]) ->
    ok | {error, term()}.
fill_each(Store, Table, [{Name, From, Count, Time} | Fillers]) ->
    {Part, Tip, Rest} = signed_part(maps:get(Name, Table, #{}), From, Count),
    Events = erl_esdb_restore:filler(Part),
    Fillers1 = [{Name, From + Part, Rest, Time} || Rest > 0] ++ Fillers,
    case erl_esdb_restore:replay(Store, Name, From - 1, Events, Time, Tip) of
        {ok, _} -> fill_each(Store, Table, Fillers1);
        {error, Reason} -> {error, Reason}
    end;
fill_each(_Store, _Table, []) ->
    ok.

%% Signing began with the version it began with, and where no event is kept the tip is what it was.
%% How many of these come before that or all after, the tip they leave, and how many are left.
-spec signed_part(entry() | #{}, non_neg_integer(), pos_integer()) ->
    {pos_integer(), erl_esdb_log:tip(), non_neg_integer()}.
signed_part(#{signed := Signed, tip := Tip}, From, Count) when
    is_integer(Signed), Signed < From + Count
->
    case Signed > From of
        true -> {Signed - From, none, From + Count - Signed};
        false -> {Count, Tip, 0}
    end;
signed_part(#{}, _From, Count) ->
    {Count, none, 0}.

-spec truncate(atom(), [{binary(), pos_integer()}]) -> ok | {error, term()}.
truncate(Store, [{Name, First} | Streams]) ->
    case erl_esdb_restore:truncate(Store, Name, First) of
        {ok, _} -> truncate(Store, Streams);
        {error, Reason} -> {error, Reason}
    end;
truncate(_Store, []) ->
    ok.

-spec restore_documents(atom(), binary(), table()) -> ok | {error, term()}.
restore_documents(Store, Dir, Table) ->
    Put = fun(Key, Term, ok) ->
        maybe
            {ok, Renumbered} ?= renumbered(Store, Key, Term, Table),
            {ok, _} ?= erl_esdb_store:put_document(Store, Key, Renumbered),
            {ok, ok}
        end
    end,
    case documents(Dir, Put, ok) of
        {ok, ok} -> ok;
        {error, Reason} -> {error, Reason}
    end.

-spec documents(binary(), Fun, Acc) -> {ok, Acc} | {error, term()} when
    Fun :: fun((tuple(), term(), Acc) -> {ok, Acc} | {error, term()}).
documents(Dir, Fun, Acc) ->
    Path = filename:join(Dir, ?DOCUMENTS),
    Each = fun(documents, Body, Acc1) ->
        {Key, Term} = binary_to_term(Body),
        Fun(Key, Term, Acc1)
    end,
    frames(Path, documents, Each, Acc).

%% Streams have other numbers here: an incarnation goes with its stream.
-spec renumbered(atom(), tuple(), term(), table()) -> {ok, term()} | {error, term()}.
renumbered(Store, {archive, Name}, {No, Incarnation}, Table) ->
    case Table of
        #{Name := #{no := No}} ->
            maybe
                {ok, #{no := Number}} ?= erl_esdb_pages:info(Store, Name),
                {ok, {Number, Incarnation}}
            end;
        %% Of a stream that was deleted: no number is that of another one.
        #{} ->
            {ok, {0, Incarnation}}
    end;
renumbered(_Store, _Key, Term, _Table) ->
    {ok, Term}.

%% ---- comparing

-doc "Whether a store has what is in a backup, and nothing else.".
-spec compare(Store :: atom(), Dir :: file:filename_all()) -> ok | {error, term()}.
compare(Store, Dir) when is_atom(Store) ->
    Path = erl_esdb_file:path(filename:absname(Dir)),
    maybe
        {ok, Manifest} ?= verify(Path),
        {ok, Table} ?= read_table(Path),
        same(Store, Path, Manifest, Table)
    end;
compare(_, _) ->
    error(badarg).

-spec same(atom(), binary(), manifest(), table()) -> ok | {error, term()}.
same(Store, Dir, #{position := Position, documents := Documents}, Table) ->
    maybe
        {ok, Next} ?= erl_esdb_store:next_position(Store),
        ok ?= equal(position, Next, Position),
        ok ?= same_events(Store, Dir, Table),
        {ok, Names} ?= erl_esdb_store:streams(Store),
        ok ?= equal(streams, Names, lists:sort(maps:keys(Table))),
        ok ?= same_streams(Store, maps:to_list(Table)),
        {ok, Keys} ?= erl_esdb_store:list_documents(Store, {}, ?LAST_KEY),
        ok ?= equal(documents, length(Keys), Documents),
        same_documents(Store, Dir, Table)
    end.

-spec equal(term(), term(), term()) -> ok | {error, {differs, term()}}.
equal(_What, Same, Same) -> ok;
equal(What, _, _) -> {error, {differs, What}}.

-spec same_events(atom(), binary(), table()) -> ok | {error, term()}.
same_events(Store, Dir, Table) ->
    Compare = fun
        ([], From) ->
            {ok, From};
        (Events, From) ->
            maybe
                {ok, Here} ?= read_log(Store, From, length(Events)),
                ok ?= equal({events, From}, Here, Events),
                {ok, (lists:last(Events))#event.position + 1}
            end
    end,
    maybe
        {ok, From} ?= events(Dir, Table, Compare, 0),
        {ok, More} ?= read_log(Store, From, 1),
        equal({events, From}, More, [])
    end.

-spec read_log(atom(), non_neg_integer(), pos_integer()) -> {ok, [event()]} | {error, term()}.
read_log(Store, From, Count) ->
    erl_esdb_store:read_log(Store, From, Count, forward, #{hidden => true}).

-spec same_streams(atom(), [{binary(), entry()}]) -> ok | {error, term()}.
same_streams(Store, [{Name, Entry} | Streams]) ->
    #{first := First, next := Next, metadata := Metadata} = Entry,
    maybe
        {ok, #{first := First1, next := Next1}} ?= erl_esdb_pages:info(Store, Name),
        {ok, Metadata1} ?= erl_esdb_store:get_metadata(Store, Name, #{}),
        ok ?= equal({stream, Name}, {First1, Next1, Metadata1}, {First, Next, Metadata}),
        same_streams(Store, Streams)
    end;
same_streams(_Store, []) ->
    ok.

-spec same_documents(atom(), binary(), table()) -> ok | {error, term()}.
same_documents(Store, Dir, Table) ->
    Compare = fun(Key, Term, ok) ->
        maybe
            {ok, Expected} ?= renumbered(Store, Key, Term, Table),
            {ok, Here} ?= erl_esdb_store:get_document(Store, Key),
            ok ?= equal({document, Key}, Here, Expected),
            {ok, ok}
        else
            {error, not_found} -> {error, {differs, {document, Key}}};
            {error, Reason} -> {error, Reason}
        end
    end,
    case documents(Dir, Compare, ok) of
        {ok, ok} -> ok;
        {error, Reason} -> {error, Reason}
    end.
