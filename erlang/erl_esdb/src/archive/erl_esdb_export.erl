-module(erl_esdb_export).
-moduledoc """
Writes events to a file: in the order of positions, page by page, with bounded memory, and going on
where it was stopped.

```erlang
1> erl_esdb_export:to_file(shop, "shop.ndjson", #{}).
{ok,#{events => 2500,bytes => 612000,next => 2500,sha256 => <<"9f86d0...">>}}
2> erl_esdb_export:to_file(shop, "orders.esdb", #{format => segments, streams => ~"order-*"}).
```

What is exported are the events that the store had when the export began: those below its next
position, without those that the metadata of their stream hides. While it runs the file is
`Path.part`; `Path.cursor` says, with each page that is on the disk, how far it came. In the end the
file gets its name, `Path.manifest` (JSON: the report) is written beside it, and the cursor is
removed. The same call after a stop or a crash goes on from the cursor, and makes the file that
would have come without, but for events that are removed meanwhile; it reads what was written
before, to see that it is what the cursor says. With other options it begins anew, and also where
the store is not the one that it was, because it came back empty or from a backup.

The first export of a store gives it an id, a document that tells it from one that comes back empty:
where the store cannot be written to, that fails.

One process of a node at a time writes to a path; another one gets `{busy, Path}`. Of other nodes
with the same disk nothing is known: give each its own path.

## Options

- `format`: `ndjson` (default, see `m:erl_esdb_event_json`) or `segments` (packed and compressed,
  with all terms as they are; see `m:erl_esdb_frames`)
- `from`, `until`: positions, from the first to before the second; default all
- `streams`: a pattern, `*` is any run of bytes; default all
- `hidden`: whether also what the metadata of streams hides; default `false`
- `max_pages`: stops after so many pages, with `{more, Report}`: the next call goes on
- `timeout`: of each call to the store, of which there is one a page

## Errors

- `{invalid_option, Key, Value}`
- `{failed_to_create_dir, R}`, `{write_failed, R}`: R as of `m:file`
- `{event_too_large, Size, Max}`: an event of more than 128 MiB, in segments
- `{busy, Path}`: another process of this node exports to this path
- `{store_replaced, Store}`: the store came back without its events while they were exported

and those of `m:erl_esdb_streams`.
""".

-export([to_file/3]).
-export_type([options/0, report/0]).

-include("erl_esdb.hrl").

-define(DEFAULTS, #{
    format => ndjson,
    from => 0,
    until => infinity,
    streams => ~"*",
    hidden => false,
    max_pages => infinity
}).
-define(SEGMENT, #{events => 4096, bytes => 16_777_216}).
-define(BLOCK, 1_048_576).

-type options() :: #{
    format => ndjson | segments,
    from => non_neg_integer(),
    until => non_neg_integer() | infinity,
    streams => binary(),
    hidden => boolean(),
    max_pages => pos_integer() | infinity,
    timeout => timeout(),
    _ => _
}.
-doc """
Events and bytes written so far, the position to go on from, and SHA-256 of the file, in
hexadecimal digits.
""".
-type report() :: #{
    events := non_neg_integer(),
    bytes := non_neg_integer(),
    next := non_neg_integer(),
    sha256 := binary()
}.

-record(export, {
    store :: atom(),
    path :: binary(),
    options :: map(),
    pattern :: erl_esdb_pattern:pattern(),
    pages :: pos_integer() | infinity,
    fd :: file:fd(),
    hash :: crypto:hash_state(),
    %% that frames go on from
    sum = 0 :: non_neg_integer(),
    next :: non_neg_integer(),
    until :: non_neg_integer(),
    %% which store the positions are those of; of none there is nothing to export
    incarnation = none :: none | erl_esdb_incarnation:id(),
    %% of the next page
    size = erl_esdb_pages:first_size() :: pos_integer(),
    events = 0 :: non_neg_integer(),
    bytes = 0 :: non_neg_integer()
}).

-doc "Exports to a file, from the begin or from where an export to it was stopped.".
-spec to_file(Store :: atom(), file:filename_all(), options()) ->
    {ok | more, report()} | {error, term()}.
to_file(Store, Path, Options) when is_atom(Store), is_map(Options) ->
    Known = [timeout | maps:keys(?DEFAULTS)],
    maybe
        {ok, Checked} ?= check(maps:merge(?DEFAULTS, maps:with(Known, Options))),
        {ok, Next} ?= erl_esdb_store:next_position(Store, timed(Checked)),
        File = filename:absname(erl_esdb_file:path(Path)),
        erl_esdb_file:alone(Path, fun() -> export_alone(Store, File, Checked, Next) end)
    end;
to_file(_, _, _) ->
    error(badarg).

-spec export_alone(atom(), binary(), map(), non_neg_integer()) ->
    {ok | more, report()} | {error, term()}.
export_alone(Store, Path, Options, Next) ->
    ok = lists:foreach(fun erl_esdb_file:remove_unfinished/1, [cursor(Path), manifest(Path)]),
    case begun(Store, Path, Options, Next) of
        {ok, Export} -> run(Export);
        {error, Reason} -> {error, Reason}
    end.

-spec timed(map()) -> #{timeout => timeout()}.
timed(Options) -> maps:with([timeout], Options).

-spec check(map()) -> {ok, map()} | {error, {invalid_option, atom(), term()}}.
check(Options) ->
    case [{Key, Value} || Key := Value <- Options, not is_valid(Key, Value)] of
        [] -> {ok, Options};
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}}
    end.

-spec is_valid(atom(), term()) -> boolean().
is_valid(format, Format) -> Format =:= ndjson orelse Format =:= segments;
is_valid(streams, Pattern) -> is_binary(Pattern);
is_valid(hidden, Hidden) -> is_boolean(Hidden);
is_valid(timeout, Timeout) -> erl_esdb_store:is_timeout(Timeout);
is_valid(from, From) -> is_integer(From) andalso From >= 0;
is_valid(until, Until) -> Until =:= infinity orelse (is_integer(Until) andalso Until >= 0);
is_valid(max_pages, Pages) -> Pages =:= infinity orelse (is_integer(Pages) andalso Pages > 0).

%% ---- beginning, or going on

-spec begun(atom(), binary(), map(), non_neg_integer()) -> {ok, #export{}} | {error, term()}.
begun(Store, Path, Options, Next) ->
    Identity = identity(Store, Options),
    maybe
        {ok, #{identity := Identity} = Cursor} ?= erl_esdb_file:read_term(cursor(Path)),
        #{incarnation := Id, until := Until} ?= Cursor,
        {same, {ok, true}} ?= {same, erl_esdb_incarnation:has(Store, Id, Until, timed(Options))},
        resumed(Store, Path, Options, Next, Cursor)
    else
        {same, {error, Reason}} -> {error, Reason};
        _ -> fresh(Store, Path, Options, Next)
    end.

%% What makes an export another one. Terms that a cursor may be read with on any node.
-spec identity(atom(), map()) -> binary().
identity(Store, Options) ->
    Parts = {Store, maps:without([max_pages, timeout], Options)},
    crypto:hash(sha256, term_to_binary(Parts, [deterministic])).

-spec fresh(atom(), binary(), map(), non_neg_integer()) -> {ok, #export{}} | {error, term()}.
fresh(Store, Path, #{from := From, until := Until, format := Format} = Options, Next) ->
    %% Every atom is greater than every number.
    Before = min(Until, Next),
    maybe
        {ok, Id} ?= incarnation(Store, From, Before, timed(Options)),
        {ok, Fd} ?= failed(file:open(part(Path), [write, read, raw, binary])),
        Export = export(Store, Path, Options, Fd, {From, Before}),
        opened(empty(Format, Export#export{incarnation = Id}), Fd)
    end.

%% An empty store stays one.
-spec incarnation(atom(), non_neg_integer(), non_neg_integer(), map()) ->
    {ok, none | erl_esdb_incarnation:id()} | {error, term()}.
incarnation(Store, From, Until, Timed) when From < Until -> erl_esdb_incarnation:id(Store, Timed);
incarnation(_Store, _From, _Until, _Timed) -> {ok, none}.

-spec empty(ndjson | segments, #export{}) -> {ok, #export{}} | {error, term()}.
empty(Format, #export{fd = Fd} = Export) ->
    maybe
        {ok, 0} ?= failed(file:position(Fd, 0)),
        ok ?= failed(file:truncate(Fd)),
        head(Format, Export)
    end.

-spec opened({ok, #export{}} | Failed, file:fd()) -> {ok, #export{}} | Failed when
    Failed :: {error, term()}.
opened({ok, Export}, _Fd) ->
    {ok, Export};
opened(Failed, Fd) ->
    _ = file:close(Fd),
    Failed.

-spec failed({error, term()} | Done) -> {error, {write_failed, term()}} | Done.
failed({error, Reason}) -> {error, {write_failed, Reason}};
failed(Done) -> Done.

-spec export(atom(), binary(), map(), file:fd(), {non_neg_integer(), non_neg_integer()}) ->
    #export{}.
export(Store, Path, #{streams := Pattern, max_pages := Pages} = Options, Fd, {Next, Until}) ->
    #export{
        store = Store,
        path = Path,
        options = Options,
        pattern = erl_esdb_pattern:compile(Pattern),
        pages = Pages,
        fd = Fd,
        hash = crypto:hash_init(sha256),
        next = Next,
        until = Until
    }.

-spec head(ndjson | segments, #export{}) -> {ok, #export{}} | {error, term()}.
head(ndjson, Export) ->
    {ok, Export};
head(segments, Export) ->
    {Head, Sum} = erl_esdb_frames:head(export),
    write(Head, Export#export{sum = Sum}).

%% What stands in the file beyond the cursor was not known to be on the disk, and is written again.
-spec resumed(atom(), binary(), map(), non_neg_integer(), map()) ->
    {ok, #export{}} | {error, term()}.
resumed(Store, Path, Options, Next, Cursor) ->
    #{next := From, until := Until, incarnation := Id, size := Size} = Cursor,
    maybe
        {ok, Fd} ?= file:open(part(Path), [read, write, raw, binary]),
        Export = export(Store, Path, Options, Fd, {From, Until}),
        {ok, _} ?= opened(cut(Cursor, Export#export{incarnation = Id, size = Size}), Fd)
    else
        %% The file is not what the cursor says.
        _ -> fresh(Store, Path, Options, Next)
    end.

-spec cut(map(), #export{}) -> {ok, #export{}} | {error, term()}.
cut(#{bytes := Bytes, sha256 := Sha} = Cursor, #export{fd = Fd} = Export) ->
    maybe
        {ok, Hash} ?= hash_file(Fd, Bytes, Export#export.hash),
        true ?= hex(Hash) =:= Sha,
        {ok, Bytes} ?= file:position(Fd, Bytes),
        ok ?= file:truncate(Fd),
        #{events := Events, sum := Sum} = Cursor,
        {ok, Export#export{hash = Hash, sum = Sum, events = Events, bytes = Bytes}}
    else
        false -> {error, other_content};
        {error, Reason} -> {error, Reason}
    end.

-spec hash_file(file:fd(), non_neg_integer(), crypto:hash_state()) ->
    {ok, crypto:hash_state()} | {error, term()}.
hash_file(_Fd, 0, Hash) ->
    {ok, Hash};
hash_file(Fd, Left, Hash) ->
    case file:read(Fd, min(Left, ?BLOCK)) of
        {ok, Block} -> hash_file(Fd, Left - byte_size(Block), crypto:hash_update(Hash, Block));
        eof -> {error, eof};
        {error, Reason} -> {error, Reason}
    end.

%% ---- pages

-spec run(#export{}) -> {ok | more, report()} | {error, term()}.
run(#export{store = Store, next = From, until = Until, size = Size} = Export) ->
    Read = maps:with([hidden, timeout], Export#export.options),
    finish(erl_esdb_pages:log(Store, From, Until, Size, Read, fun page/3, Export), Export).

-spec page([event()], non_neg_integer(), #export{}) ->
    {next | stop, #export{}} | {error, term()}.
page(Events, Next, #export{pattern = Pattern, options = #{format := Format}} = Export) ->
    Wanted = [E || E <- Events, erl_esdb_pattern:matches(E#event.stream_id, Pattern)],
    maybe
        {ok, Export1} ?= write_events(Format, Wanted, Export),
        Count = Export1#export.events + length(Wanted),
        Size = erl_esdb_pages:next_size(Export#export.size, Events),
        Export2 = Export1#export{next = Next, events = Count, size = Size},
        ok ?= save(Export2),
        paged(Export2)
    end.

-spec paged(#export{}) -> {next | stop, #export{}}.
paged(#export{pages = infinity} = Export) -> {next, Export};
paged(#export{pages = 1} = Export) -> {stop, Export};
paged(#export{pages = Pages} = Export) -> {next, Export#export{pages = Pages - 1}}.

-spec write_events(ndjson | segments, [event()], #export{}) -> {ok, #export{}} | {error, term()}.
write_events(ndjson, Events, Export) ->
    write([erl_esdb_event_json:encode(Event) || Event <- Events], Export);
write_events(segments, Events, Export) ->
    write_segments(erl_esdb_event_segment:split(Events, ?SEGMENT), Export).

-spec write_segments([[event()]], #export{}) -> {ok, #export{}} | {error, term()}.
write_segments([Events | Rest], Export) ->
    maybe
        {ok, Segment} ?= erl_esdb_event_segment:pack(Events, #{compress => zstd}),
        {ok, Export1} ?= write_frame(segment, Segment, Export),
        write_segments(Rest, Export1)
    end;
write_segments([], Export) ->
    {ok, Export}.

-spec write_frame(erl_esdb_frames:tag(), binary(), #export{}) -> {ok, #export{}} | {error, term()}.
write_frame(Tag, Body, #export{sum = Sum} = Export) ->
    {Frame, Sum1} = erl_esdb_frames:frame(Tag, Body, Sum),
    write(Frame, Export#export{sum = Sum1}).

-spec write(iodata(), #export{}) -> {ok, #export{}} | {error, term()}.
write(Content, #export{fd = Fd, hash = Hash, bytes = Bytes} = Export) ->
    maybe
        ok ?= failed(file:write(Fd, Content)),
        Hash1 = crypto:hash_update(Hash, Content),
        {ok, Export#export{hash = Hash1, bytes = Bytes + iolist_size(Content)}}
    end.

-spec save(#export{}) -> ok | {error, term()}.
save(#export{fd = Fd, path = Path} = Export) ->
    maybe
        ok ?= failed(file:sync(Fd)),
        erl_esdb_file:write_term(cursor(Path), cursor_of(Export))
    end.

-spec cursor_of(#export{}) -> map().
cursor_of(#export{store = Store, options = Options} = Export) ->
    (report(Export))#{
        identity => identity(Store, Options),
        incarnation => Export#export.incarnation,
        until => Export#export.until,
        size => Export#export.size,
        sum => Export#export.sum
    }.

%% ---- the end

-spec finish({done | stopped, #export{}} | {error, term()}, #export{}) ->
    {ok | more, report()} | {error, term()}.
finish({stopped, #export{fd = Fd} = Export}, _) ->
    ok = file:close(Fd),
    {more, report(Export)};
finish({done, #export{fd = Fd, until = Until, next = Next} = Export}, _) ->
    Completed = complete(Export#export{next = max(Next, Until)}),
    ok = file:close(Fd),
    named(Completed);
finish({error, Reason}, #export{fd = Fd}) ->
    ok = file:close(Fd),
    {error, Reason}.

-spec complete(#export{}) -> {ok, #export{}} | {error, term()}.
complete(#export{options = #{format := Format}} = Export) ->
    maybe
        ok ?= same_store(Export),
        {ok, #export{fd = Fd} = Export1} ?= tail(Format, Export),
        ok ?= failed(file:sync(Fd)),
        {ok, Export1}
    end.

%% A store that came back empty has no events either, but not because it comes to its end.
-spec same_store(#export{}) -> ok | {error, term()}.
same_store(#export{incarnation = none}) ->
    ok;
same_store(#export{store = Store, incarnation = Id, until = Until, options = Options}) ->
    case erl_esdb_incarnation:has(Store, Id, Until, timed(Options)) of
        {ok, true} -> ok;
        {ok, false} -> {error, {store_replaced, Store}};
        {error, Reason} -> {error, Reason}
    end.

-spec tail(ndjson | segments, #export{}) -> {ok, #export{}} | {error, term()}.
tail(ndjson, Export) -> {ok, Export};
tail(segments, Export) -> write_frame('end', <<>>, Export).

-spec named({ok, #export{}} | {error, term()}) -> {ok, report()} | {error, term()}.
named({ok, #export{path = Path} = Export}) ->
    Report = report(Export),
    maybe
        ok ?= erl_esdb_file:write(manifest(Path), [json:encode(Report), $\n]),
        ok ?= erl_esdb_file:rename(part(Path), Path),
        _ = erl_esdb_file:delete(cursor(Path)),
        {ok, Report}
    end;
named({error, Reason}) ->
    {error, Reason}.

-spec report(#export{}) -> report().
report(#export{events = Events, bytes = Bytes, next = Next, hash = Hash}) ->
    #{events => Events, bytes => Bytes, next => Next, sha256 => hex(Hash)}.

-spec hex(crypto:hash_state()) -> binary().
hex(Hash) -> binary:encode_hex(crypto:hash_final(Hash), lowercase).

-spec part(binary()) -> binary().
part(Path) -> <<Path/binary, ".part">>.

-spec cursor(binary()) -> binary().
cursor(Path) -> <<Path/binary, ".cursor">>.

-spec manifest(binary()) -> binary().
manifest(Path) -> <<Path/binary, ".manifest">>.
