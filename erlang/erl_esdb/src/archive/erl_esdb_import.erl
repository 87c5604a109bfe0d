-module(erl_esdb_import).
-moduledoc """
Appends the events of a file that `m:erl_esdb_export` wrote, or of lines of JSON from anywhere: page
by page, with bounded memory, and going on where it was stopped.

```erlang
1> erl_esdb_import:from_file(shop, "shop.ndjson", #{cursor => "shop.progress"}).
{ok,#{events => 2500,skipped => 0}}
```

Events keep their streams, ids, types, data, metadata, tags, content types and times; without a time
they get that of the import. Within a stream times do not run backwards: an event that is earlier
than the last one of its stream gets the time of that, and the first one of a stream at the earliest
that of 1970. **Positions and versions are given anew**:
behind what the store has. Into an empty store they come out as they were where nothing had been
removed; for an exact copy in any case see `m:erl_esdb_backup`. Hashes and signatures are not taken
over.

Where `Path.manifest` stands beside the file, the whole file is compared with its checksum before
the first event is written; with a cursor once, and again where the size of the file or the second
of its last change is another one. A change to the same size within that second is not seen.

## Options

- `format`: `ndjson` or `segments`; else what the file begins with says it
- `cursor`: a file that says how far the import came. With it the same call after a stop or a crash
  goes on, and writes no event twice that has an id: of the page that was being written it says
  where its streams ended before, and what came behind that is looked at, whoever else writes to
  them. It is removed in the end. One process of a node at a time goes on from a cursor; give each
  node its own
- `atoms`: `existing` (default) takes only atoms that this node has, `create` makes them: for files
  that you trust
- `codec`: `json` stores data as JSON text, as an append does (`m:erl_esdb_json`), `none` as the
  file has them; the default is the store's. Data that are a binary stay as they are
- `max_line`: bytes of a line at most, default 67,108,864
- `max_pages`: stops after so many pages, with `{more, Report}`; with a cursor the next call goes on
- `timeout`: of each call to the store, of which a page takes a few; after `{timeout, Store}` it is
  not known whether the append was done, which a cursor finds out the next time

## Errors

- `{line, N, Reason}`, `{segment, N, Reason}`: what is wrong where, N from 1; of lines
  `invalid_json`, `{missing | bad_type, Field}`, `{line_too_long, Max}`; of both, where data or
  metadata shall be JSON and cannot, `{invalid_event, {not_json, data | metadata}}`. The pages
  before it are imported
- `{checksum_mismatch, Path}`: the file is not what its manifest says
- `{cursor_mismatch, Path}`: the cursor belongs to another file (of another begin, size or
  manifest), format or store, or is damaged; a store that came back empty under its name, or from a
  backup, is another one. Nothing is written. Without the cursor the import begins anew
- `{store_replaced, Store}`: the store was begun anew while the file was imported, and may have lost
  what had been imported; with a cursor the next call finds that out
- `{busy, Path}`: another process of this node imports with this cursor
- `{read_failed, R}`, `{write_failed, R}`: R as of `m:file`
- `{invalid_option, Key, Value}`

and those of `erl_esdb_streams:append/5`.
""".

-export([from_file/3]).
-export_type([options/0, report/0]).

-include("erl_esdb.hrl").

-define(DEFAULTS, #{
    format => detect,
    cursor => none,
    atoms => existing,
    max_line => 67_108_864,
    max_pages => infinity
}).
%% Events and bytes of lines in a page.
-define(PAGE, 1000).
-define(BYTES, 8_388_608).

-type options() :: #{
    format => ndjson | segments,
    cursor => file:filename_all(),
    atoms => existing | create,
    codec => erl_esdb_json:codec(),
    max_line => pos_integer(),
    max_pages => pos_integer() | infinity,
    timeout => timeout(),
    _ => _
}.
-doc "Events that were appended, and those that had been appended before a stop.".
-type report() :: #{events := non_neg_integer(), skipped := non_neg_integer()}.

-record(import, {
    store :: atom(),
    path :: binary(),
    options :: map(),
    source :: source(),
    %% lines or frames read, of all calls
    nth = 0 :: non_neg_integer(),
    pages :: pos_integer() | infinity,
    events = 0 :: non_neg_integer(),
    skipped = 0 :: non_neg_integer(),
    %% where the streams of the next page ended before it was begun, when that was before a stop
    begun = none :: none | #{binary() => non_neg_integer()},
    %% which store the cursor is that of; none without a cursor
    incarnation = none :: none | erl_esdb_incarnation:id()
}).
%% What tells a file from others: its begin, size and manifest; and when it was changed.
-type facts() :: #{
    'begin' := binary(), size := non_neg_integer(), changed := integer(), manifest := binary()
}.
-type source() :: {ndjson, erl_esdb_lines:lines()} | {segments, erl_esdb_frames:reader()}.
%% The events of a page with where they were.
-type page() :: {[map()], source(), Nth :: non_neg_integer()}.

-doc "Imports a file.".
-spec from_file(Store :: atom(), file:filename_all(), options()) ->
    {ok | more, report()} | {error, term()}.
from_file(Store, Path, Options) when is_atom(Store), is_map(Options) ->
    File = filename:absname(erl_esdb_file:path(Path)),
    Known = [codec, timeout | maps:keys(?DEFAULTS)],
    maybe
        {ok, Checked} ?= check(maps:merge(?DEFAULTS, maps:with(Known, Options))),
        {ok, _, Handle, Settings} ?= erl_esdb_store:engine(Store),
        Codec = maps:with([codec], Settings),
        Meant = maps:merge(Codec, Checked#{handle => Handle}),
        alone(Meant, fun() -> import_alone(Store, File, Meant) end)
    end;
from_file(_, _, _) ->
    error(badarg).

-spec alone(map(), fun(() -> Result)) -> Result | {error, term()}.
alone(#{cursor := none}, Fun) -> Fun();
alone(#{cursor := Path}, Fun) ->
    erl_esdb_file:alone(Path, fun() ->
        ok = erl_esdb_file:remove_unfinished(Path),
        Fun()
    end).

-spec import_alone(atom(), binary(), map()) -> {ok | more, report()} | {error, term()}.
import_alone(Store, File, Options) ->
    maybe
        {ok, #{'begin' := Begin} = Facts} ?= facts(File),
        Known = Options#{format := format(Options, Begin), facts => Facts},
        {ok, Cursor} ?= cursor(Store, Known),
        ok ?= verify(File, Facts, Cursor),
        {ok, Import} ?= begun(Store, File, Cursor, Known),
        told(run(Import), Import)
    end.

%% Events are appended to the store that the import was begun with, never to the next one of its
%% name: that would have the rest of the file, and who imports without a cursor would not know.
-spec told(Result, #import{}) -> Result | {error, {store_replaced, atom()}}.
told({error, {store_not_started, Store}} = Error, #import{options = #{handle := Handle}}) ->
    case erl_esdb_store:engine(Store) of
        {ok, _, Other, _} when Other =/= Handle -> {error, {store_replaced, Store}};
        _ -> Error
    end;
told(Result, _Import) ->
    Result.

-spec timed(map()) -> #{timeout => timeout()}.
timed(Options) -> maps:with([timeout], Options).

-spec check(map()) -> {ok, map()} | {error, {invalid_option, atom(), term()}}.
check(Options) ->
    case [{Key, Value} || Key := Value <- Options, not is_valid(Key, Value)] of
        [] -> {ok, Options};
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}}
    end.

-spec is_valid(atom(), term()) -> boolean().
is_valid(format, Format) -> lists:member(Format, [detect, ndjson, segments]);
is_valid(cursor, Path) -> Path =:= none orelse is_list(Path) orelse is_binary(Path);
is_valid(atoms, Atoms) -> Atoms =:= existing orelse Atoms =:= create;
is_valid(codec, Codec) -> Codec =:= json orelse Codec =:= none;
is_valid(timeout, Timeout) -> erl_esdb_store:is_timeout(Timeout);
is_valid(max_line, Max) -> is_integer(Max) andalso Max > 0;
is_valid(max_pages, Pages) -> Pages =:= infinity orelse (is_integer(Pages) andalso Pages > 0).

%% ---- the file, and its manifest

-spec facts(binary()) -> {ok, facts()} | {error, {read_failed, term()}}.
facts(Path) ->
    maybe
        {ok, Begin} ?= file_begin(Path),
        {ok, {Size, Changed}} ?= erl_esdb_file:stamp(Path),
        {ok, Manifest} ?= manifest(file:read_file(<<Path/binary, ".manifest">>, [raw])),
        {ok, #{'begin' => Begin, size => Size, changed => Changed, manifest => Manifest}}
    else
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-spec manifest({ok, binary()} | {error, term()}) -> {ok, binary()} | {error, term()}.
manifest({error, enoent}) -> {ok, <<>>};
manifest(Read) -> Read.

-spec file_begin(binary()) -> {ok, binary()} | {error, term()}.
file_begin(Path) ->
    maybe
        {ok, Fd} ?= file:open(Path, [read, raw, binary]),
        Read = file:read(Fd, 4096),
        ok = file:close(Fd),
        read_begin(Read)
    end.

-spec read_begin({ok, binary()} | eof | {error, term()}) -> {ok, binary()} | {error, term()}.
read_begin(eof) -> {ok, <<>>};
read_begin(Read) -> Read.

%% Not again for each part of an import.
-spec verify(binary(), facts(), map()) -> ok | {error, term()}.
verify(_Path, #{changed := Changed}, #{changed := Changed}) ->
    ok;
verify(_Path, #{manifest := <<>>}, _Cursor) ->
    ok;
verify(Path, #{manifest := Manifest}, _Cursor) ->
    maybe
        {ok, Hash} ?= erl_esdb_file:sha256(Path),
        #{~"sha256" := Hash} ?= decoded(Manifest),
        ok
    else
        {error, Reason} -> {error, {read_failed, Reason}};
        _ -> {error, {checksum_mismatch, Path}}
    end.

-spec decoded(binary()) -> term().
decoded(Json) ->
    try
        json:decode(Json)
    catch
        %% Whatever the parser says.
        error:_ -> none
    end.

%% ---- beginning, or going on

-spec begun(atom(), binary(), map(), map()) -> {ok, #import{}} | {error, term()}.
begun(Store, Path, Cursor, #{format := Format, max_pages := Pages} = Options) ->
    maybe
        {ok, Source} ?= open(Format, Path, maps:get(place, Cursor, begin_of(Format)), Options),
        {ok, #import{
            store = Store,
            path = Path,
            options = Options,
            source = {Format, Source},
            nth = maps:get(nth, Cursor, 0),
            pages = Pages,
            begun = maps:get(begun, Cursor, none),
            incarnation = maps:get(incarnation, Cursor, none)
        }}
    end.

-spec format(map(), binary()) -> ndjson | segments.
format(#{format := detect}, <<"EF", _/binary>>) -> segments;
format(#{format := detect}, _) -> ndjson;
format(#{format := Format}, _) -> Format.

-spec begin_of(ndjson | segments) -> term().
begin_of(ndjson) -> 0;
begin_of(segments) -> none.

-spec open(ndjson | segments, binary(), term(), map()) -> {ok, term()} | {error, term()}.
open(ndjson, Path, Offset, #{max_line := Max} = Options) ->
    case is_line_begin(Path, Offset) of
        true -> erl_esdb_lines:open(Path, Offset, Max);
        false -> {error, {cursor_mismatch, map_get(cursor, Options)}}
    end;
open(segments, Path, Place, _) ->
    Opened =
        case Place of
            none -> erl_esdb_frames:open(Path, export);
            {Offset, Sum} -> erl_esdb_frames:resume(Path, export, Offset, Sum)
        end,
    case Opened of
        {ok, Reader} -> {ok, Reader};
        {error, Reason} -> wrong(segment, 1, Reason)
    end.

%% The last line may have no end.
-spec is_line_begin(binary(), non_neg_integer()) -> boolean().
is_line_begin(_Path, 0) ->
    true;
is_line_begin(Path, Offset) ->
    maybe
        {ok, Fd} ?= file:open(Path, [read, raw, binary]),
        Read = file:pread(Fd, Offset - 1, 2),
        ok = file:close(Fd),
        is_line_end(Read)
    else
        %% Whoever reads on tells why.
        {error, _} -> true
    end.

-spec is_line_end({ok, binary()} | eof | {error, term()}) -> boolean().
is_line_end({ok, <<"\n", _/binary>>}) -> true;
is_line_end({ok, <<_>>}) -> true;
is_line_end({ok, _}) -> false;
is_line_end(_) -> true.

-spec cursor(atom(), map()) -> {ok, map()} | {error, term()}.
cursor(_Store, #{cursor := none}) ->
    {ok, #{}};
cursor(Store, #{cursor := Path} = Options) ->
    Identity = identity(Store, Options),
    case erl_esdb_file:read_term(Path) of
        {ok, #{identity := Identity, incarnation := Id, position := Position} = Cursor} ->
            of_store(Store, Id, Position, Options, Cursor);
        {error, enoent} ->
            new_cursor(Store, timed(Options));
        _ ->
            {error, {cursor_mismatch, Path}}
    end.

-spec new_cursor(atom(), map()) -> {ok, map()} | {error, term()}.
new_cursor(Store, Timed) ->
    case erl_esdb_incarnation:id(Store, Timed) of
        {ok, Id} -> {ok, #{incarnation => Id}};
        {error, Reason} -> {error, Reason}
    end.

%% A store that came back empty has nothing of what the cursor says is there.
-spec of_store(atom(), erl_esdb_incarnation:id(), non_neg_integer(), map(), Result) ->
    {ok, Result} | {error, term()}.
of_store(Store, Id, Position, #{cursor := Path} = Options, Result) ->
    case erl_esdb_incarnation:has(Store, Id, Position, timed(Options)) of
        {ok, true} -> {ok, Result};
        {ok, false} -> {error, {cursor_mismatch, Path}};
        {error, Reason} -> {error, Reason}
    end.

%% A place in a file is one of its lines or one of its segments.
-spec identity(atom(), map()) -> binary().
identity(Store, #{format := Format, facts := Facts}) ->
    #{'begin' := Begin, size := Size, manifest := Manifest} = Facts,
    Texts = [atom_to_binary(Store), atom_to_binary(Format), Begin, Manifest],
    Parts = [<<(byte_size(Text)):64, Text/binary>> || Text <- Texts],
    crypto:hash(sha256, [<<Size:64>> | Parts]).

-spec save(#import{}) -> ok | {error, term()}.
save(#import{options = #{cursor := none}}) ->
    ok;
save(#import{store = Store, incarnation = Id, options = #{cursor := Path} = Options} = Import) ->
    maybe
        {ok, Position} ?= erl_esdb_store:next_position(Store, timed(Options)),
        {ok, Cursor} ?= of_store(Store, Id, Position, Options, cursor_of(Import)),
        erl_esdb_file:write_term(Path, Cursor#{position => Position})
    end.

-spec cursor_of(#import{}) -> map().
cursor_of(#import{store = Store, options = Options} = Import) ->
    #{facts := #{changed := Changed}} = Options,
    #{
        identity => identity(Store, Options),
        incarnation => Import#import.incarnation,
        changed => Changed,
        place => place(Import#import.source),
        nth => Import#import.nth,
        begun => Import#import.begun
    }.

-spec place(source()) -> term().
place({ndjson, Lines}) -> erl_esdb_lines:offset(Lines);
place({segments, Reader}) -> erl_esdb_frames:place(Reader).

%% ---- pages

-spec run(#import{}) -> {ok | more, report()} | {error, term()}.
run(#import{source = Source, nth = Nth, options = Options} = Import) ->
    case page(Source, Nth, Options) of
        {ok, Page} ->
            imported(import_page(Page, Import), Import);
        done ->
            close(Import),
            finish(Import);
        {error, Reason} ->
            close(Import),
            {error, Reason}
    end.

-spec imported({ok, #import{}} | {error, term()}, #import{}) ->
    {ok | more, report()} | {error, term()}.
imported({ok, #import{pages = 1} = Import}, _) ->
    Saved = save(Import),
    close(Import),
    stopped(Saved, Import);
imported({ok, #import{pages = infinity} = Import}, _) ->
    run(Import);
imported({ok, #import{pages = Pages} = Import}, _) ->
    run(Import#import{pages = Pages - 1});
imported({error, Reason}, Import) ->
    close(Import),
    {error, Reason}.

-spec stopped(ok | {error, term()}, #import{}) -> {more, report()} | {error, term()}.
stopped(ok, Import) -> {more, report(Import)};
stopped({error, Reason}, _Import) -> {error, Reason}.

-spec close(#import{}) -> ok.
close(#import{source = {ndjson, Lines}}) -> erl_esdb_lines:close(Lines);
close(#import{source = {segments, Reader}}) -> erl_esdb_frames:close(Reader).

-spec finish(#import{}) -> {ok, report()} | {error, term()}.
finish(#import{options = #{cursor := none}} = Import) ->
    {ok, report(Import)};
finish(#import{store = Store, incarnation = Id, options = #{cursor := Path} = Options} = Import) ->
    maybe
        {ok, Report} ?= of_store(Store, Id, 0, Options, report(Import)),
        ok ?= deleted(erl_esdb_file:delete(Path)),
        {ok, Report}
    end.

-spec deleted(ok | {error, term()}) -> ok | {error, {write_failed, term()}}.
deleted(ok) -> ok;
deleted({error, Reason}) -> {error, {write_failed, Reason}}.

-spec report(#import{}) -> report().
report(#import{events = Events, skipped = Skipped}) -> #{events => Events, skipped => Skipped}.

-spec import_page(page(), #import{}) -> {ok, #import{}} | {error, term()}.
import_page({Events, Source, Nth}, #import{options = Options} = Import) ->
    maybe
        {ok, New} ?= fresh(Events, Import),
        Runs = erl_esdb_restore:runs(New, fun(_, _) -> true end),
        ok ?= append_runs(Import#import.store, Runs, maps:with([handle, timeout], Options)),
        {ok, Import#import{
            source = Source,
            nth = Nth,
            events = Import#import.events + length(New),
            skipped = Import#import.skipped + length(Events) - length(New),
            begun = none
        }}
    end.

-spec append_runs(atom(), [[map(), ...]], map()) -> ok | {error, term()}.
append_runs(Store, [[#{stream_id := Stream} = First | _] = Run | Runs], Options) ->
    Time = maps:get(epoch_us, First, erl_esdb_clock:now_us()),
    case erl_esdb_restore:append(Store, Stream, ?ANY_VERSION, Run, Time, Options) of
        {ok, _Version} -> append_runs(Store, Runs, Options);
        {error, Reason} -> {error, Reason}
    end;
append_runs(_Store, [], _Options) ->
    ok.

%% Of a page that was begun before a stop, what stands behind where its streams ended then is there
%% already. Of another one it is written down where they end, before anything is appended.
-spec fresh([map()], #import{}) -> {ok, [map()]} | {error, term()}.
fresh(Events, #import{options = #{cursor := none}}) ->
    {ok, Events};
fresh(Events, #import{begun = none, store = Store, options = Options} = Import) ->
    Streams = lists:usort([Stream || #{stream_id := Stream} <- Events]),
    maybe
        {ok, Ends} ?= ends(Store, Streams, timed(Options), #{}),
        ok ?= save(Import#import{begun = Ends}),
        {ok, Events}
    end;
fresh(Events, #import{begun = Ends, store = Store, options = Options}) ->
    Asked = #{{Stream, Id} => 0 || #{stream_id := Stream, event_id := Id} <- Events},
    maybe
        %% An append that nobody waits for any more may still be in the queue: this comes behind it.
        ok ?= erl_esdb_store:save_checkpoints(Store, #{}, timed(Options)),
        {ok, Known} ?= known(Store, maps:to_list(Ends), timed(Options), Asked),
        {ok, unknown(Events, Known)}
    end.

-spec ends(atom(), [binary()], map(), map()) -> {ok, map()} | {error, term()}.
ends(Store, [Stream | Streams], Timed, Ends) ->
    case erl_esdb_store:tip(Store, Stream, Timed) of
        {ok, #{next := Next}} -> ends(Store, Streams, Timed, Ends#{Stream => Next});
        {error, Reason} -> {error, Reason}
    end;
ends(_Store, [], _Timed, Ends) ->
    {ok, Ends}.

%% How often each id that is asked for stands there; what others wrote meanwhile may be a lot.
-spec known(atom(), [{binary(), non_neg_integer()}], map(), map()) ->
    {ok, map()} | {error, term()}.
known(Store, [{Stream, From} | Ends], Timed, Known) ->
    Add = fun(Events, _Next, Ids) ->
        {next, lists:foldl(fun(E, Acc) -> more({Stream, E#event.event_id}, Acc) end, Ids, Events)}
    end,
    maybe
        {ok, #{next := Next}} ?= erl_esdb_pages:info(Store, Stream, Timed),
        {done, Known1} ?= erl_esdb_pages:stream(Store, Stream, From, Next, Timed, Add, Known),
        known(Store, Ends, Timed, Known1)
    else
        {error, {stream_not_found, _}} -> known(Store, Ends, Timed, Known);
        {error, Reason} -> {error, Reason}
    end;
known(_Store, [], _Timed, Known) ->
    {ok, Known}.

-spec more(Key, #{Key => non_neg_integer()}) -> #{Key => non_neg_integer()}.
more(Key, Counts) ->
    case Counts of
        #{Key := Count} -> Counts#{Key := Count + 1};
        #{} -> Counts
    end.

%% An id that stands twice in the file and once in the store is there once more to come.
-spec unknown([map()], #{{binary(), binary()} => non_neg_integer()}) -> [map()].
unknown([#{stream_id := Stream, event_id := Id} = Event | Events], Known) ->
    case Known of
        #{{Stream, Id} := 0} -> [Event | unknown(Events, Known)];
        #{{Stream, Id} := Count} -> unknown(Events, Known#{{Stream, Id} := Count - 1})
    end;
unknown([Event | Events], Known) ->
    [Event | unknown(Events, Known)];
unknown([], _Known) ->
    [].

%% ---- reading

-spec page(source(), non_neg_integer(), map()) -> {ok, page()} | done | {error, term()}.
page({ndjson, Lines}, Nth, Options) ->
    case lines(Lines, Nth, Options, ?PAGE, ?BYTES, []) of
        {ok, {[], _, Nth}} -> done;
        Page -> Page
    end;
page({segments, Reader}, Nth, Options) ->
    case erl_esdb_frames:next(Reader) of
        {ok, segment, Segment, Reader1} -> segment(Segment, Reader1, Nth + 1, Options);
        {ok, 'end', <<>>, _Reader1} -> done;
        {ok, _Tag, _Body, _Reader1} -> wrong(segment, Nth + 1, corrupt);
        {error, Reason} -> wrong(segment, Nth + 1, Reason)
    end.

%% What the disk says is of the file.
-spec wrong(line | segment, pos_integer(), term()) -> {error, term()}.
wrong(_Part, _Nth, {read_failed, _} = Reason) -> {error, Reason};
wrong(Part, Nth, Reason) -> {error, {Part, Nth, Reason}}.

-spec segment(binary(), erl_esdb_frames:reader(), pos_integer(), map()) ->
    {ok, page()} | {error, term()}.
segment(Segment, Reader, Nth, #{atoms := Atoms} = Options) ->
    maybe
        {ok, Events} ?= erl_esdb_event_segment:unpack(Segment, Atoms),
        Maps = [erl_esdb_event_segment:to_map(Event) || Event <- Events],
        {ok, Stored} ?= stored(Maps, Options),
        {ok, {Stored, {segments, Reader}, Nth}}
    else
        {error, Reason} -> wrong(segment, Nth, Reason)
    end.

-spec lines(
    erl_esdb_lines:lines(),
    non_neg_integer(),
    map(),
    non_neg_integer(),
    integer(),
    [map()]
) -> {ok, page()} | {error, term()}.
lines(Lines, Nth, _Options, Left, Bytes, Events) when Left =:= 0; Bytes =< 0 ->
    {ok, {lists:reverse(Events), {ndjson, Lines}, Nth}};
lines(Lines, Nth, Options, Left, Bytes, Events) ->
    case erl_esdb_lines:next(Lines) of
        {ok, Line, Lines1} ->
            case line(Line, Options) of
                {ok, New} ->
                    Left1 = Left - length(New),
                    Bytes1 = Bytes - byte_size(Line),
                    lines(Lines1, Nth + 1, Options, Left1, Bytes1, New ++ Events);
                {error, Reason} ->
                    wrong(line, Nth + 1, Reason)
            end;
        eof ->
            lines(Lines, Nth, Options, 0, Bytes, Events);
        {error, Reason} ->
            wrong(line, Nth + 1, Reason)
    end.

%% An empty line is no event.
-spec line(binary(), map()) -> {ok, [map()]} | {error, term()}.
line(<<>>, _Options) ->
    {ok, []};
line(Line, #{atoms := Atoms} = Options) ->
    case erl_esdb_event_json:decode(Line, Atoms) of
        {ok, Event} -> stored([Event], Options);
        {error, Reason} -> {error, Reason}
    end.

%% As an append stores them; but a binary is what somebody stored already, whatever it is.
-spec stored([map()], map()) -> {ok, [map()]} | {error, erl_esdb_json:invalid()}.
stored(Events, #{codec := json}) ->
    case erl_esdb_json:encode_all([without_binary(Event) || Event <- Events], json) of
        {ok, Encoded} -> {ok, lists:zipwith(fun with_binary/2, Events, Encoded)};
        {error, Reason} -> {error, Reason}
    end;
stored(Events, #{}) ->
    {ok, Events}.

-spec without_binary(map()) -> map().
without_binary(#{data := Data} = Event) when is_binary(Data) -> Event#{data := #{}};
without_binary(Event) -> Event.

-spec with_binary(map(), map()) -> map().
with_binary(#{data := Data}, Encoded) when is_binary(Data) -> Encoded#{data := Data};
with_binary(_Event, Encoded) -> Encoded.
