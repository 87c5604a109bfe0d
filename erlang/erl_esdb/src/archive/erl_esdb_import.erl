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
than the last one of its stream gets the time of that. **Positions and versions are given anew**:
behind what the store has. Into an empty store they come out as they were where nothing had been
removed; for an exact copy in any case see `m:erl_esdb_backup`. Hashes and signatures are not taken
over.

Where `Path.manifest` stands beside the file, the whole file is compared with its checksum and size
before the first event is written.

## Options

- `format`: `ndjson` or `segments`; else what the file begins with says it
- `cursor`: a file that says how far the import came. With it the same call after a stop or a crash
  goes on, and writes no event twice that has an id. It is removed in the end
- `atoms`: `existing` (default) takes only atoms that this node has, `create` makes them: for files
  that you trust
- `max_line`: bytes of a line at most, default 67,108,864
- `max_pages`: stops after so many pages, with `{more, Report}`; with a cursor the next call goes on

## Errors

- `{line, N, Reason}`, `{segment, N, Reason}`: what is wrong where, N from 1; of lines
  `invalid_json`, `{missing | bad_type, Field}`, `{line_too_long, Max}`. The pages before it are
  imported
- `{checksum_mismatch, Path}`: the file is not what its manifest says
- `{cursor_mismatch, Path}`: the cursor belongs to another file or store, or is damaged
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
    max_line => pos_integer(),
    max_pages => pos_integer() | infinity,
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
    %% whether the page may have been written in part before a stop
    doubtful = false :: boolean()
}).
-type source() :: {ndjson, erl_esdb_lines:lines()} | {segments, erl_esdb_frames:reader()}.
%% The events of a page with where they were.
-type page() :: {[map()], source(), Nth :: non_neg_integer()}.

-doc "Imports a file.".
-spec from_file(Store :: atom(), file:filename_all(), options()) ->
    {ok | more, report()} | {error, term()}.
from_file(Store, Path, Options) when is_atom(Store), is_map(Options) ->
    File = filename:absname(erl_esdb_file:path(Path)),
    maybe
        {ok, Checked} ?= check(maps:merge(?DEFAULTS, maps:with(maps:keys(?DEFAULTS), Options))),
        {ok, _} ?= erl_esdb_store:next_position(Store),
        ok ?= verify(File),
        {ok, Import} ?= begun(Store, File, Checked),
        run(Import)
    end;
from_file(_, _, _) ->
    error(badarg).

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
is_valid(max_line, Max) -> is_integer(Max) andalso Max > 0;
is_valid(max_pages, Pages) -> Pages =:= infinity orelse (is_integer(Pages) andalso Pages > 0).

%% ---- the manifest

-spec verify(binary()) -> ok | {error, term()}.
verify(Path) ->
    case file:read_file(<<Path/binary, ".manifest">>, [raw]) of
        {ok, Manifest} -> verify(Path, Manifest);
        {error, enoent} -> ok;
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-spec verify(binary(), binary()) -> ok | {error, term()}.
verify(Path, Manifest) ->
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

-spec begun(atom(), binary(), map()) -> {ok, #import{}} | {error, term()}.
begun(Store, Path, #{max_pages := Pages} = Options) ->
    maybe
        {ok, Begin} ?= file_begin(Path),
        {ok, Cursor} ?= cursor(Store, Begin, Options),
        Format = format(Options, Begin),
        {ok, Source} ?= open(Format, Path, maps:get(place, Cursor, begin_of(Format)), Options),
        Import = #import{
            store = Store,
            path = Path,
            options = Options,
            source = {Format, Source},
            nth = maps:get(nth, Cursor, 0),
            pages = Pages,
            doubtful = map_size(Cursor) > 0
        },
        saved(Import, Begin)
    end.

%% Also the first page may be written in part when we are stopped.
-spec saved(#import{}, binary()) -> {ok, #import{}} | {error, term()}.
saved(#import{options = Options} = Import, Begin) ->
    Import1 = Import#import{options = Options#{'begin' => Begin}},
    case save(Import1) of
        ok ->
            {ok, Import1};
        {error, Reason} ->
            close(Import1),
            {error, Reason}
    end.

-spec file_begin(binary()) -> {ok, binary()} | {error, {read_failed, term()}}.
file_begin(Path) ->
    maybe
        {ok, Fd} ?= file:open(Path, [read, raw, binary]),
        Read = file:read(Fd, 4096),
        ok = file:close(Fd),
        read_begin(Read)
    else
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-spec read_begin({ok, binary()} | eof | {error, term()}) -> {ok, binary()} | {error, term()}.
read_begin(eof) -> {ok, <<>>};
read_begin(Read) -> Read.

-spec format(map(), binary()) -> ndjson | segments.
format(#{format := detect}, <<"EF", _/binary>>) -> segments;
format(#{format := detect}, _) -> ndjson;
format(#{format := Format}, _) -> Format.

-spec begin_of(ndjson | segments) -> term().
begin_of(ndjson) -> 0;
begin_of(segments) -> none.

-spec open(ndjson | segments, binary(), term(), map()) -> {ok, term()} | {error, term()}.
open(ndjson, Path, Offset, #{max_line := Max}) ->
    erl_esdb_lines:open(Path, Offset, Max);
open(segments, Path, Place, _) ->
    Opened =
        case Place of
            none -> erl_esdb_frames:open(Path, export);
            {Offset, Sum} -> erl_esdb_frames:resume(Path, export, Offset, Sum)
        end,
    case Opened of
        {ok, Reader} -> {ok, Reader};
        {error, Reason} -> {error, {segment, 1, Reason}}
    end.

-spec cursor(atom(), binary(), map()) -> {ok, map()} | {error, {cursor_mismatch, term()}}.
cursor(_Store, _Begin, #{cursor := none}) ->
    {ok, #{}};
cursor(Store, Begin, #{cursor := Path}) ->
    Identity = identity(Store, Begin),
    case erl_esdb_file:read_term(Path) of
        {ok, #{identity := Identity} = Cursor} -> {ok, Cursor};
        {error, enoent} -> {ok, #{}};
        _ -> {error, {cursor_mismatch, Path}}
    end.

-spec identity(atom(), binary()) -> binary().
identity(Store, Begin) -> crypto:hash(sha256, [atom_to_binary(Store), 0, Begin]).

-spec save(#import{}) -> ok | {error, term()}.
save(#import{options = #{cursor := none}}) ->
    ok;
save(#import{store = Store, source = Source, nth = Nth, options = Options}) ->
    #{cursor := Path, 'begin' := Begin} = Options,
    Cursor = #{identity => identity(Store, Begin), place => place(Source), nth => Nth},
    erl_esdb_file:write_term(Path, Cursor).

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
    close(Import),
    {more, report(Import)};
imported({ok, #import{pages = infinity} = Import}, _) ->
    run(Import);
imported({ok, #import{pages = Pages} = Import}, _) ->
    run(Import#import{pages = Pages - 1});
imported({error, Reason}, Import) ->
    close(Import),
    {error, Reason}.

-spec close(#import{}) -> ok.
close(#import{source = {ndjson, Lines}}) -> erl_esdb_lines:close(Lines);
close(#import{source = {segments, Reader}}) -> erl_esdb_frames:close(Reader).

-spec finish(#import{}) -> {ok, report()} | {error, term()}.
finish(#import{options = #{cursor := none}} = Import) ->
    {ok, report(Import)};
finish(#import{options = #{cursor := Path}} = Import) ->
    case erl_esdb_file:delete(Path) of
        ok -> {ok, report(Import)};
        {error, Reason} -> {error, {write_failed, Reason}}
    end.

-spec report(#import{}) -> report().
report(#import{events = Events, skipped = Skipped}) -> #{events => Events, skipped => Skipped}.

-spec import_page(page(), #import{}) -> {ok, #import{}} | {error, term()}.
import_page({Events, Source, Nth}, #import{store = Store, skipped = Skipped} = Import) ->
    maybe
        {ok, New} ?= fresh(Events, Import),
        ok ?= append_runs(Store, erl_esdb_restore:runs(New, fun(_, _) -> true end)),
        Import1 = Import#import{
            source = Source,
            nth = Nth,
            events = Import#import.events + length(New),
            skipped = Skipped + length(Events) - length(New),
            doubtful = false
        },
        ok ?= save(Import1),
        {ok, Import1}
    end.

-spec append_runs(atom(), [[map(), ...]]) -> ok | {error, term()}.
append_runs(Store, [[#{stream_id := Stream} = First | _] = Run | Runs]) ->
    Time = maps:get(epoch_us, First, erlang:system_time(microsecond)),
    case erl_esdb_restore:append(Store, Stream, ?ANY_VERSION, Run, Time) of
        {ok, _Version} -> append_runs(Store, Runs);
        {error, Reason} -> {error, Reason}
    end;
append_runs(_Store, []) ->
    ok.

%% Of the page that was being written at a stop, what is at the end of its streams is there already.
-spec fresh([map()], #import{}) -> {ok, [map()]} | {error, term()}.
fresh(Events, #import{doubtful = false}) ->
    {ok, Events};
fresh(Events, #import{store = Store}) ->
    Counts = maps:groups_from_list(fun(#{stream_id := Stream}) -> Stream end, Events),
    Read = fun(Stream, Of, Acc) -> known(Store, Stream, length(Of), Acc) end,
    case maps:fold(Read, {ok, #{}}, Counts) of
        {ok, Known} -> {ok, [Event || Event <- Events, not is_known(Event, Known)]};
        {error, Reason} -> {error, Reason}
    end.

-spec known(atom(), binary(), pos_integer(), {ok, map()} | {error, term()}) ->
    {ok, map()} | {error, term()}.
known(Store, Stream, Count, {ok, Known}) ->
    case erl_esdb_store:read(Store, Stream, last, Count, backward, #{hidden => true}) of
        {ok, Events} ->
            {ok, maps:merge(Known, #{{Stream, E#event.event_id} => true || E <- Events})};
        {error, {stream_not_found, _}} ->
            {ok, Known};
        {error, Reason} ->
            {error, Reason}
    end;
known(_Store, _Stream, _Count, {error, Reason}) ->
    {error, Reason}.

-spec is_known(map(), map()) -> boolean().
is_known(#{stream_id := Stream, event_id := Id}, Known) -> is_map_key({Stream, Id}, Known);
is_known(#{}, _Known) -> false.

%% ---- reading

-spec page(source(), non_neg_integer(), map()) -> {ok, page()} | done | {error, term()}.
page({ndjson, Lines}, Nth, #{atoms := Atoms}) ->
    case lines(Lines, Nth, Atoms, ?PAGE, ?BYTES, []) of
        {ok, {[], _, Nth}} -> done;
        Page -> Page
    end;
page({segments, Reader}, Nth, #{atoms := Atoms}) ->
    case erl_esdb_frames:next(Reader) of
        {ok, segment, Segment, Reader1} -> segment(Segment, Reader1, Nth + 1, Atoms);
        {ok, 'end', <<>>, _Reader1} -> done;
        {ok, _Tag, _Body, _Reader1} -> {error, {segment, Nth + 1, corrupt}};
        {error, Reason} -> {error, {segment, Nth + 1, Reason}}
    end.

-spec segment(binary(), erl_esdb_frames:reader(), pos_integer(), existing | create) ->
    {ok, page()} | {error, term()}.
segment(Segment, Reader, Nth, Atoms) ->
    case erl_esdb_event_segment:unpack(Segment, Atoms) of
        {ok, Events} ->
            Maps = [erl_esdb_event_segment:to_map(Event) || Event <- Events],
            {ok, {Maps, {segments, Reader}, Nth}};
        {error, Reason} ->
            {error, {segment, Nth, Reason}}
    end.

-spec lines(
    erl_esdb_lines:lines(),
    non_neg_integer(),
    existing | create,
    non_neg_integer(),
    integer(),
    [map()]
) -> {ok, page()} | {error, term()}.
lines(Lines, Nth, _Atoms, Left, Bytes, Events) when Left =:= 0; Bytes =< 0 ->
    {ok, {lists:reverse(Events), {ndjson, Lines}, Nth}};
lines(Lines, Nth, Atoms, Left, Bytes, Events) ->
    case erl_esdb_lines:next(Lines) of
        {ok, Line, Lines1} ->
            case line(Line, Atoms) of
                {ok, New} ->
                    Left1 = Left - length(New),
                    Bytes1 = Bytes - byte_size(Line),
                    lines(Lines1, Nth + 1, Atoms, Left1, Bytes1, New ++ Events);
                {error, Reason} ->
                    {error, {line, Nth + 1, Reason}}
            end;
        eof ->
            lines(Lines, Nth, Atoms, 0, Bytes, Events);
        {error, {read_failed, _} = Reason} ->
            {error, Reason};
        {error, Reason} ->
            {error, {line, Nth + 1, Reason}}
    end.

%% An empty line is no event.
-spec line(binary(), existing | create) -> {ok, [map()]} | {error, term()}.
line(<<>>, _Atoms) ->
    {ok, []};
line(Line, Atoms) ->
    case erl_esdb_event_json:decode(Line, Atoms) of
        {ok, Event} -> {ok, [Event]};
        {error, Reason} -> {error, Reason}
    end.
