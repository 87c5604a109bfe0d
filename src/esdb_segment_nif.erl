-module(esdb_segment_nif).
-moduledoc """
Packed segments: many events in one binary, asked without building them.

```erlang
1> Segment = esdb_segment_nif:pack([
       #{event_type => ~"paid", version => 0, data => #{amount => 30}},
       #{event_type => ~"sent", version => 1, data => #{amount => 12}}
   ]).
2> esdb_segment_nif:sum(Segment, amount).
42
3> esdb_segment_nif:select(Segment, {gt, amount, 20}).
[#{version => 0,data => #{amount => 30},event_type => <<"paid">>}]
```

An event is a map. Its envelope keys `event_id`, `event_type`, `stream_id` (binaries), `version`,
`position`, `epoch_us` (integers of 64 bits), `data` and `metadata` (any terms) have columns of
their own; all other keys, and envelope keys with other values, are kept too. Terms of all kinds
have their place but those that mean something on one node only: functions, pids, ports and
references.

The format is drawn in `doc/format.md`. It is numbered, has a checksum for each section, and is
meant to be stored and sent.

## Questions

Every question but `project/2,3` takes a segment, one with its dictionary (`with_dictionary/2`) or a
list of these, which counts as one sequence of events. Predicates are those of `m:esdb_filter_nif`.
A path is a key or a list of keys below each other, looked up in the data; a path that begins with
`event_id`, `event_type`, `stream_id`, `version`, `epoch_us` or `metadata` in the event itself;
`{event, Path}` and `{data, Path}` say where, whatever the key. Data is the map under `data` where
there is one, else the event itself. Only those sections are decompressed, and
only those values looked at, that an answer needs.

## Scheduling

With the library a question that is measured to stay well below a millisecond runs on the caller's
scheduler: about 2,000 events for a sum, 1,000 for a predicate, 800 for groups, some hundred for a
fold or a projection, fewer where they are large or compressed. All others, and all predicates with
a regular expression or a wildcard of more than one piece, run on a dirty one. There the segments
of a list whose sections have 1 MiB or more together, decompressed, are shared out among a bounded
number of threads, by default half as many as there are schedulers: `threads` of `m:esdb_nif`. A
fold, and the search for the first event, go from one segment to the next. Answers and errors do not
depend on any of that. What makes or takes events
(`pack/2`, `to_events/2`, `info/1`, `verify/1`, `concat/1`, `slice/3`) runs in Erlang in both modes.

## Errors

| reason | meaning |
|---|---|
| `{corrupt, header}` | no segment, or one cut off or damaged at its head |
| `{corrupt, Section}` | this section is damaged, or has a malformed term or an unknown atom |
| `{unsupported_version, N}` | a segment of a later format |
| `{dictionary_mismatch, Id}` | compressed with the dictionary of that id, which was not given |
| `invalid_dictionary` | what a segment brings as its dictionary, to make another with, is none |
| `{unsupported_term, Index}` | the event of this index, from 0, has a term without a place |
| `too_large` | more than 16,777,216 parts, 1 GiB of sections, or 256 MiB built into terms |
| `no_memory` | the content of a section finds no place |

Sections are `versions`, `positions`, `epoch_us`, `event_ids`, `types`, `streams`, `data`,
`metadata` and `others`.

A segment is not trusted: a hostile one leads to one of these, never to a crash. Its sections take
1 GiB at most once they are decompressed. An answer is built of 256 MiB of them at most and has at
most 16,777,216 parts (events, rows and values, groups and their numbers, fields), which become up
to 16 times as much memory as terms. Checksums find damage, not malice. Atoms are only taken from
those that exist, unless `atoms => create` says otherwise, and terms that no packer writes, such as
functions, are refused.

Misuse (no list of maps, an unknown option, a path that is no path) raises `badarg`; numbers that
leave the range of floats raise `badarith`.
""".

%% Segments
-export([pack/1, pack/2, with_dictionary/2]).
-export([info/1, count/1, verify/1]).
-export([to_events/1, to_events/2]).
-export([concat/1, slice/3]).
%% Questions
-export([filter/2, select/2, select/3, first/2, first/3, count_where/2]).
-export([sum/2, min/2, max/2, group_by/3]).
-export([fold_tagged/2, project/2, project/3]).

-export_type([segment/0, segments/0, event/0, path/0, aggregate/0, reason/0, info/0]).

-nifs([
    matching_n/3,
    matching_d/3,
    filtered_n/2,
    filtered_d/2,
    counted_n/2,
    counted_d/2,
    aggregated_n/3,
    aggregated_d/3,
    grouped_n/3,
    grouped_d/3,
    folded_n/2,
    folded_d/2,
    projected_n/3,
    projected_d/3
]).
-compile({no_auto_import, [min/2, max/2]}).
%% Dialyzer does not know that the library may stop where Erlang goes on.
-dialyzer({no_match, unless_long/2}).
%% Nor does it tell the results apart that opened/1 takes the values out of.
-dialyzer(
    {no_missing_return, [
        pack/2,
        to_events/2,
        count_where/2,
        sum/2,
        aggregated/3,
        group_by/3,
        fold_tagged/2,
        project/3
    ]}
).

-type segment() ::
    binary() | {esdb_segment, binary(), binary() | esdb_archive_nif:dictionary()}.
-type segments() :: segment() | [segment()].
-type event() :: map().
-type path() :: esdb_predicate_erl:path().
-type aggregate() :: count | {sum | min | max | avg, path()}.
-type reason() ::
    {corrupt,
        header
        | versions
        | positions
        | epoch_us
        | event_ids
        | types
        | streams
        | data
        | metadata
        | others}
    | {unsupported_version, byte()}
    | {dictionary_mismatch, pos_integer()}
    | invalid_dictionary
    | {unsupported_term, Index :: non_neg_integer()}
    | {invalid_predicate, term()}
    | too_large
    | no_memory.
-type info() :: #{
    count := non_neg_integer(),
    versions := {Least :: integer(), Most :: integer()} | undefined,
    epoch_us := {Least :: integer(), Most :: integer()} | undefined,
    size := pos_integer(),
    unpacked_size := pos_integer(),
    compressed := boolean(),
    sections := #{atom() => #{codec := stored | zstd, stored := integer(), size := integer()}}
}.
-type source() :: esdb_segment_erl:source().
-type result(Value) :: {ok, Value} | {error, esdb_segment_erl:reason()}.

%% Work is counted in nanoseconds, as measured and rounded up: so much a normal scheduler takes.
-define(SHORT, 400_000).
%% Questions of more bytes are taken for long whatever they are asked of.
-define(SHORT_QUESTION, 1_024).
%% More fields than these take too long to be built where others wait.
-define(SHORT_FIELDS, 512).
%% To open a segment; to put its answer together with those of others, where it has many parts.
-define(OPEN, 2_000).
-define(JOIN, 20_000).

%% What a segment costs: once, for each event, and in halves of a nanosecond for each byte and for
%% each byte that decompression makes. A dictionary, to be prepared, counts as some more of these.
-type cost() :: {pos_integer(), pos_integer(), pos_integer(), pos_integer()}.

-define(LOAD_INFO, {esdb_nif:version(), esdb_nif:threads()}).
-include("esdb_nif.hrl").

%% Segments

-doc "The same as `pack(Events, #{})`.".
-spec pack([event()]) -> binary() | {error, reason()}.
pack(Events) -> pack(Events, #{}).

-doc """
Packs events, in their order.

- `compress`: `none` (default) or `zstd`. A section that does not become smaller stays as it is.
- `level`: that of `zstd`, 1 to 22, default 3.
- `dictionary`: for `zstd`, its bytes or its handle (`esdb_archive_nif:dictionary/1`). The segment
  does not hold it: it is read through `with_dictionary/2`.

The same events make the same bytes where nothing is compressed. Terms are encoded by the virtual
machine, on the caller's scheduler, which it yields.

## Errors

`{error, {unsupported_term, Index}}` and `{error, too_large}`, see the module.
""".
-spec pack([event()], Options) -> binary() | {error, reason()} when
    Options :: #{
        compress => none | zstd,
        level => 1..22,
        dictionary => binary() | esdb_archive_nif:dictionary()
    }.
pack(Events, Options) when is_list(Events), is_map(Options) ->
    Defaults = #{compress => none, level => 3, dictionary => none},
    Checked = maps:merge(Defaults, #{Key => option(pack, Key, V) || Key := V <- Options}),
    opened(esdb_segment_events:pack(Events, Checked));
pack(_, _) ->
    error(badarg).

-doc """
A compressed segment with the dictionary that it was made with, for every function that takes one.

It is a term of this node; what is stored is the binary alone.
""".
-spec with_dictionary(segment(), binary() | esdb_archive_nif:dictionary()) ->
    {esdb_segment, binary(), binary() | esdb_archive_nif:dictionary()}.
with_dictionary(Segment, Dictionary) when is_binary(Dictionary) ->
    with_dictionary(Segment, esdb_archive_nif:dictionary(Dictionary));
with_dictionary(Segment, Dictionary) ->
    {Bytes, _} = source(Segment),
    {esdb_segment, Bytes, dictionary(Dictionary)}.

-doc """
What a segment says of itself: how many events, from which version to which and from which time to
which (`undefined` where no event has one), its size in bytes and that with all sections
decompressed, and for each section the same.
""".
-spec info(segment()) -> info() | {error, reason()}.
info(Segment) ->
    {Bytes, _} = Source = source(Segment),
    maybe
        {ok, #{count := Count, sections := Sections} = Header} ?= esdb_segment_format:header(Bytes),
        {ok, Columns} ?= esdb_segment_format:load(Source, Header, [1, 3]),
        #{
            count => Count,
            versions => range(1, Columns, Count),
            epoch_us => range(3, Columns, Count),
            size => byte_size(Bytes),
            unpacked_size => lists:foldl(fun unpacked/2, byte_size(Bytes), Sections),
            compressed => lists:any(fun(#{codec := Codec}) -> Codec =:= zstd end, Sections),
            sections => #{
                esdb_segment_format:name(Id) => maps:with([codec, stored, size], Section)
             || #{id := Id} = Section <- Sections
            }
        }
    end.

-spec unpacked(esdb_segment_format:section(), pos_integer()) -> pos_integer().
unpacked(#{stored := Stored, size := Size}, Sum) when
    is_integer(Stored), is_integer(Size), is_integer(Sum)
->
    Sum - Stored + Size.

-spec range(1 | 3, esdb_segment_format:columns(), non_neg_integer()) ->
    {integer(), integer()} | undefined.
range(Id, Columns, Count) ->
    case Columns of
        #{Id := Column} ->
            Values = [esdb_segment_format:value(Column, I) || I <- lists:seq(0, Count - 1)],
            case [Value || Value <- Values, is_integer(Value)] of
                [] -> undefined;
                Integers -> {lists:min(Integers), lists:max(Integers)}
            end;
        #{} ->
            undefined
    end.

-doc "The number of events. Looks at the header only.".
-spec count(segment()) -> non_neg_integer() | {error, reason()}.
count(Segment) ->
    {Bytes, _} = source(Segment),
    case esdb_segment_format:header(Bytes) of
        {ok, #{count := Count}} -> Count;
        {error, Reason} -> {error, Reason}
    end.

-doc """
Checks everything: each checksum, each section, each term to its end. No atom is made by it, and
none needs to exist.
""".
-spec verify(segment()) -> ok | {error, reason()}.
verify(Segment) -> esdb_segment_events:verify(source(Segment)).

-doc "The same as `to_events(Segment, #{})`.".
-spec to_events(segment()) -> [event()] | {error, reason()}.
to_events(Segment) -> to_events(Segment, #{}).

-doc """
The events of a segment, or those that are asked for; only these are built.

- `from_version`, `to_version`: their version is a number in this range, both ends included.
- `from_us`, `to_us`: the same of `epoch_us`.
- `types`: their `event_type` is one of these.
- `limit`: so many at most, default `infinity`.
- `direction`: `forward` (default) or `backward`, from the last to the first.
- `atoms`: `existing` (default) or `create`. An atom that is not in the atom table of this node
  makes the segment corrupt, or is made: `create` is for segments that come from a trusted place,
  since atoms are never freed.
""".
-spec to_events(segment(), Options) -> [event()] | {error, reason()} when
    Options :: #{
        from_version => integer(),
        to_version => integer(),
        from_us => integer(),
        to_us => integer(),
        types => [term()],
        limit => non_neg_integer() | infinity,
        direction => forward | backward,
        atoms => existing | create
    }.
to_events(Segment, Options) when is_map(Options) ->
    Source = source(Segment),
    Checked = #{Key => option(to_events, Key, Value) || Key := Value <- Options},
    Limit = maps:get(limit, Checked, infinity),
    Atoms = atoms(Checked),
    maybe
        {ok, Count, Columns} ?= esdb_segment_events:all(Source),
        Indices = directed(maps:get(direction, Checked, forward), Count),
        Passes = fun(I) -> passes(Checked, I, Columns) end,
        Options1 = {Limit, Atoms, esdb_segment_events:room()},
        {ok, Events, _} ?= esdb_segment_events:select(Columns, Indices, Passes, Options1),
        Events
    end;
to_events(_, _) ->
    error(badarg).

-spec directed(forward | backward, non_neg_integer()) -> esdb_segment_events:indices().
directed(forward, Count) -> {0, 1, Count};
directed(backward, Count) -> {Count - 1, -1, Count}.

-spec atoms(map()) -> existing | create.
atoms(Options) -> maps:get(atoms, Options, existing).

-spec passes(map(), non_neg_integer(), esdb_segment_format:columns()) -> boolean().
passes(Options, I, Columns) ->
    is_between(Options, from_version, to_version, version, I, Columns) andalso
        is_between(Options, from_us, to_us, epoch_us, I, Columns) andalso
        is_of_type(Options, I, Columns).

-spec is_between(
    map(), atom(), atom(), version | epoch_us, non_neg_integer(), esdb_segment_format:columns()
) ->
    boolean().
is_between(Options, From, To, Key, I, Columns) when
    is_map_key(From, Options); is_map_key(To, Options)
->
    case esdb_segment_events:field(Key, Columns, I, atoms(Options)) of
        {ok, Value} when is_number(Value) ->
            Value >= maps:get(From, Options, Value) andalso Value =< maps:get(To, Options, Value);
        _ ->
            false
    end;
is_between(_, _, _, _, _, _) ->
    true.

-spec is_of_type(map(), non_neg_integer(), esdb_segment_format:columns()) -> boolean().
is_of_type(#{types := Types} = Options, I, Columns) ->
    case esdb_segment_events:field(event_type, Columns, I, atoms(Options)) of
        {ok, Type} -> lists:any(fun(One) -> One =:= Type end, Types);
        none -> false
    end;
is_of_type(_, _, _) ->
    true.

-doc """
One segment of the events of all, in their order.

A section is compressed where it is in one of them, with the first dictionary among them.
""".
-spec concat([segment()]) -> segment() | {error, reason()}.
concat(Segments) when is_list(Segments) ->
    Sources = sources(Segments),
    Dictionary = esdb_segment_format:first_dictionary(Sources),
    Parts = [{Source, all} || Source <- Sources],
    repacked(esdb_segment_events:gather(Parts, Dictionary), Dictionary);
concat(_) ->
    error(badarg).

-doc """
A segment of `Count` events from index `From`, counted from 0, on; of fewer where there are fewer.
""".
-spec slice(segment(), From :: non_neg_integer(), Count :: non_neg_integer()) ->
    segment() | {error, reason()}.
slice(Segment, From, Count) when
    is_integer(From), From >= 0, is_integer(Count), Count >= 0
->
    {Bytes, Dictionary} = Source = source(Segment),
    maybe
        {ok, #{count := All}} ?= esdb_segment_format:header(Bytes),
        Start = erlang:min(From, All),
        Indices = lists:seq(Start, erlang:min(From + Count, All) - 1),
        repacked(esdb_segment_events:gather([{Source, Indices}], Dictionary), Dictionary)
    end;
slice(_, _, _) ->
    error(badarg).

%% Questions

-doc """
A segment of the events that satisfy a predicate, in their order.

Of a list of segments it is one segment of all of them, as `concat/1` makes it.
""".
-spec filter(segments(), Predicate) -> segment() | {error, reason()} when
    Predicate :: esdb_predicate_erl:predicate().
filter(Segments, Predicate) ->
    Sources = sources(Segments),
    maybe
        {ok, Canonical} ?= predicate(Predicate),
        Filtered =
            case is_quick(Canonical) andalso is_short(Sources, copying(Canonical)) of
                true -> filtered_n(Sources, Canonical);
                false -> filtered_d(Sources, Canonical)
            end,
        repacked(Filtered, esdb_segment_format:first_dictionary(Sources))
    end.

-doc "The same as `select(Segments, Predicate, existing)`.".
-spec select(segments(), Predicate) -> [event()] | {error, reason()} when
    Predicate :: esdb_predicate_erl:predicate().
select(Segments, Predicate) -> select(Segments, Predicate, existing).

-doc """
The events that satisfy a predicate, in their order; only these are built. `Atoms` as for
`to_events/2`.
""".
-spec select(segments(), Predicate, Atoms :: existing | create) ->
    [event()] | {error, reason()}
when
    Predicate :: esdb_predicate_erl:predicate().
select(Segments, Predicate, Atoms) ->
    Sources = sources(Segments),
    Checked = option(to_events, atoms, Atoms),
    maybe
        {ok, Canonical} ?= predicate(Predicate),
        {ok, Found} ?= matching(Sources, Canonical, infinity),
        events(Sources, Found, Checked, esdb_segment_events:room(), [])
    end.

-doc "The same as `first(Segments, Predicate, existing)`.".
-spec first(segments(), Predicate) -> {ok, event()} | not_found | {error, reason()} when
    Predicate :: esdb_predicate_erl:predicate().
first(Segments, Predicate) -> first(Segments, Predicate, existing).

-doc "The first event that satisfies a predicate. `Atoms` as for `to_events/2`.".
-spec first(segments(), Predicate, Atoms :: existing | create) ->
    {ok, event()} | not_found | {error, reason()}
when
    Predicate :: esdb_predicate_erl:predicate().
first(Segments, Predicate, Atoms) ->
    Sources = sources(Segments),
    Checked = option(to_events, atoms, Atoms),
    maybe
        {ok, Canonical} ?= predicate(Predicate),
        {ok, Found} ?= matching(Sources, Canonical, 1),
        case events(Sources, Found, Checked, esdb_segment_events:room(), []) of
            [Event] -> {ok, Event};
            [] -> not_found;
            {error, Reason} -> {error, Reason}
        end
    end.

-spec matching([source()], binary(), pos_integer() | infinity) -> result([binary()]).
matching(Sources, Predicate, Limit) ->
    case is_quick(Predicate) andalso is_short(Sources, reading(Predicate)) of
        true -> matching_n(Sources, Predicate, Limit);
        false -> matching_d(Sources, Predicate, Limit)
    end.

-spec events([source()], [binary()], existing | create, non_neg_integer(), [[event()]]) ->
    [event()] | {error, reason()}.
events([_ | Sources], [<<>> | Found], Atoms, Room, Done) ->
    events(Sources, Found, Atoms, Room, Done);
events([Source | Sources], [Indices | Found], Atoms, Room, Done) ->
    maybe
        {ok, _, Columns} ?= esdb_segment_events:all(Source),
        Wanted = [I || <<I:32/little>> <= Indices],
        All = fun(_) -> true end,
        {ok, Events, Left} ?=
            esdb_segment_events:select(Columns, Wanted, All, {infinity, Atoms, Room}),
        events(Sources, Found, Atoms, Left, [Events | Done])
    end;
events([], [], _, _, Done) ->
    lists:append(lists:reverse(Done)).

-doc "How many events satisfy a predicate.".
-spec count_where(segments(), Predicate) -> non_neg_integer() | {error, reason()} when
    Predicate :: esdb_predicate_erl:predicate().
count_where(Segments, Predicate) ->
    Sources = sources(Segments),
    maybe
        {ok, Canonical} ?= predicate(Predicate),
        opened(
            case is_quick(Canonical) andalso is_short(Sources, reading(Canonical)) of
                true -> counted_n(Sources, Canonical);
                false -> counted_d(Sources, Canonical)
            end
        )
    end.

-doc """
The sum of a field's numbers; `{sum, N}` counts N, anything else nothing. 0 where there are none.

Integers are exact at any size. Floats are added from left to right within a segment, the sums of
segments in their order, and that of the integers at last.
""".
-spec sum(segments(), path()) -> number() | {error, reason()}.
sum(Segments, Path) -> aggregated(Segments, Path, sum).

-doc "The smallest of a field's numbers, the first of equal ones; `undefined` where there is none.".
-spec min(segments(), path()) -> number() | undefined | {error, reason()}.
min(Segments, Path) -> aggregated(Segments, Path, min).

-doc "The largest of a field's numbers, the first of equal ones; `undefined` where there is none.".
-spec max(segments(), path()) -> number() | undefined | {error, reason()}.
max(Segments, Path) -> aggregated(Segments, Path, max).

-spec aggregated(segments(), path(), sum | min | max) -> number() | undefined | {error, reason()}.
aggregated(Segments, Path, Kind) ->
    Sources = sources(Segments),
    Canonical = canonical(rooted(Path)),
    opened(
        case is_quick(Canonical) andalso is_short(Sources, reading(Canonical)) of
            true -> aggregated_n(Sources, Canonical, Kind);
            false -> aggregated_d(Sources, Canonical, Kind)
        end
    ).

-doc """
For each value of a field what the aggregate, or the list of aggregates, says of the events with it;
events without the field are under `undefined`.

`count` counts events, `{sum | min | max, Path}` are those of `sum/2` and so on, and `{avg, Path}`
is the sum divided by the number of numbers, `undefined` where there are none. Values are told apart
exactly: 1 and 1.0 are two.
""".
-spec group_by(segments(), path(), aggregate() | [aggregate()]) ->
    #{term() => term() | [term()]} | {error, reason()}.
group_by(Segments, Path, Aggregates) when is_list(Aggregates) ->
    Sources = sources(Segments),
    By = canonical(rooted(Path)),
    Asked = canonical(aggregates(Aggregates)),
    Long = fun() -> grouped_d(Sources, By, Asked) end,
    IsQuick = is_quick(By) andalso is_quick(Asked),
    opened(
        case IsQuick andalso is_short(Sources, joining(<<By/binary, Asked/binary>>)) of
            true -> unless_long(grouped_n(Sources, By, Asked), Long);
            false -> Long()
        end
    );
group_by(Segments, Path, Aggregate) ->
    case group_by(Segments, Path, [Aggregate]) of
        {error, Reason} -> {error, Reason};
        Groups -> #{Key => Value || Key := [Value] <- Groups}
    end.

-doc """
Folds the data of all events into a map, in their order, as `esdb_aggregate_nif` does: a value
replaces the one before it under its key, and `{sum, N}` adds to it. Tags stay.
""".
-spec fold_tagged(segments(), Init :: map()) -> map() | {error, reason()}.
fold_tagged(Segments, Init) when is_map(Init) ->
    Sources = sources(Segments),
    Fields = [{esdb_etf_erl:key(Key), addable(Value)} || Key := Value <- Init],
    Long = fun() -> folded_d(Sources, Fields) end,
    opened(
        case map_size(Init) =< ?SHORT_FIELDS andalso is_short(Sources, {?JOIN, 100, 4, 5}) of
            true -> unless_long(folded_n(Sources, Fields), Long);
            false -> Long()
        end
    );
fold_tagged(_, _) ->
    error(badarg).

%% Numbers that sums are added to are such as a segment's own.
-spec addable(term()) -> term().
addable({Tag, Number} = Value) when (Tag =:= sum orelse Tag =:= overwrite), is_number(Number) ->
    _ = addable(Number),
    Value;
addable(Number) when is_integer(Number) ->
    esdb_etf_erl:is_askable(Number) orelse error(badarg),
    Number;
addable(Value) ->
    Value.

-doc "The same as `project(Segment, Paths, existing)`.".
-spec project(segment(), [path()]) -> [[term()]] | {error, reason()}.
project(Segment, Paths) -> project(Segment, Paths, existing).

-doc """
For each event the values of these fields, in their order, `undefined` where there is none. Of an
event only these values are built; `Atoms` as for `to_events/2`.
""".
-spec project(segment(), [path()], Atoms :: existing | create) -> [[term()]] | {error, reason()}.
project(Segment, Paths, Atoms) when is_list(Paths) ->
    Source = source(Segment),
    Canonical = [canonical(Path) || Path <- rooted_each(Paths)],
    Checked = option(to_events, atoms, Atoms),
    Long = fun() -> projected_d(Source, Canonical, Checked) end,
    IsQuick = lists:all(fun is_quick/1, Canonical),
    opened(
        case IsQuick andalso is_short([Source], building(length(Paths))) of
            true -> unless_long(projected_n(Source, Canonical, Checked), Long);
            false -> Long()
        end
    );
project(_, _, _) ->
    error(badarg).

%% Arguments and results

-spec opened(result(Value) | {error, reason()}) -> Value | {error, reason()}.
opened({ok, Value}) -> Value;
opened({error, badarith}) -> error(badarith);
opened({error, Reason}) -> {error, Reason}.

-spec repacked({ok, binary()} | {error, reason()}, esdb_segment_format:dictionary()) ->
    segment() | {error, reason()}.
repacked({ok, Segment}, none) -> Segment;
repacked({ok, Segment}, Dictionary) -> {esdb_segment, Segment, Dictionary};
repacked({error, Reason}, _) -> {error, Reason}.

-spec sources(term()) -> [source()].
sources(Segments) when is_list(Segments) -> source_each(Segments);
sources(Segment) -> [source(Segment)].

-spec source_each(term()) -> [source()].
source_each([Segment | Segments]) -> [source(Segment) | source_each(Segments)];
source_each([]) -> [];
source_each(_) -> error(badarg).

-spec source(term()) -> source().
source(Segment) when is_binary(Segment) -> {Segment, none};
source({esdb_segment, Segment, Dictionary}) when is_binary(Segment) ->
    {Segment, dictionary(Dictionary)};
source(_) ->
    error(badarg).

-spec dictionary(term()) -> esdb_archive_options:dictionary().
dictionary(Dictionary) -> esdb_archive_options:dictionary(Dictionary).

%% Work

%% Whether what is asked is soon made ready and costs each event no more than its size tells:
%% expressions may take long to make, and they and wildcards do not go through a text only once.
-spec is_quick(binary()) -> boolean().
is_quick(Asked) ->
    byte_size(Asked) =< ?SHORT_QUESTION andalso
        binary:match(Asked, [<<119, 5, "regex">>, <<119, 8, "wildcard">>]) =:= nomatch.

%% Maps below the first are walked for each path that leads there.
-spec reading(binary()) -> cost().
reading(Asked) ->
    Walks = 1 + byte_size(Asked) div 128,
    {?OPEN, 20 + 2 * byte_size(Asked), Walks, Walks + 1}.

%% What was compressed is so again.
-spec copying(binary()) -> cost().
copying(Asked) ->
    {Once, Event, Byte, Unpacked} = reading(Asked),
    {Once, Event, Byte + 2, Unpacked + 8}.

-spec joining(binary()) -> cost().
joining(Asked) -> setelement(1, reading(Asked), ?JOIN).

-spec building(non_neg_integer()) -> cost().
building(Values) ->
    Walks = 1 + Values div 4,
    {?OPEN, 20 + 150 * Values, Walks, Walks + 1}.

-spec is_short([source()], cost()) -> boolean().
is_short(Sources, Cost) -> fits(Sources, Cost, ?SHORT).

-spec fits([source()], cost(), integer()) -> boolean().
fits(_, _, Left) when Left < 0 ->
    false;
fits([{Segment, Dictionary} | Sources], {Once, Event, Byte, UnpackedByte} = Cost, Left) ->
    {Events, Bytes, Unpacked} = esdb_segment_format:weight(Segment),
    Halves = Bytes * Byte + (Unpacked + prepared(Dictionary)) * UnpackedByte,
    fits(Sources, Cost, Left - Once - Events * Event - Halves div 2);
fits([], _, _) ->
    true.

%% Measured: up to 1 ns a byte to decompress with it, 10 ns to compress again, and its tables.
-spec prepared(esdb_segment_format:dictionary()) -> non_neg_integer().
prepared(none) -> 0;
prepared({esdb_dictionary, Bytes, _}) -> prepared(Bytes);
prepared(Bytes) -> 32_768 + 2 * byte_size(Bytes).

%% The library stops on a normal scheduler where the answer becomes too large.
-spec unless_long(result(Value) | {error, too_many}, fun(() -> result(Value))) -> result(Value).
unless_long({error, too_many}, Long) -> Long();
unless_long(Result, _) -> Result.

-spec predicate(term()) -> {ok, binary()} | {error, {invalid_predicate, term()}}.
predicate({esdb_predicate, Canonical, _} = Handle) when is_binary(Canonical) ->
    case esdb_predicate_erl:is_own(Handle) orelse esdb_predicate_erl:decode(Canonical) of
        error -> error(badarg);
        _ -> {ok, Canonical}
    end;
predicate(Predicate) ->
    maybe
        {ok, Normal} ?= esdb_predicate_erl:normalise(Predicate),
        {ok, esdb_predicate_erl:canonical(Normal)}
    end.

-spec canonical(term()) -> binary().
canonical(Term) -> term_to_binary(Term, [deterministic, {minor_version, 2}]).

-spec aggregates(term()) -> [count | {sum | min | max | avg, {data | event, [term()]}}].
aggregates([count | Rest]) -> [count | aggregates(Rest)];
aggregates([{Kind, Path} | Rest]) when Kind =:= sum; Kind =:= min; Kind =:= max; Kind =:= avg ->
    [{Kind, rooted(Path)} | aggregates(Rest)];
aggregates([]) -> [];
aggregates(_) -> error(badarg).

-spec rooted_each(term()) -> [{data | event, [term(), ...]}].
rooted_each([Path | Paths]) -> [rooted(Path) | rooted_each(Paths)];
rooted_each([]) -> [];
rooted_each(_) -> error(badarg).

%% A path with where it begins: the same as that of a predicate.
-spec rooted(term()) -> {data | event, [term(), ...]}.
rooted(Path) ->
    case esdb_predicate_erl:normalise({exists, Path}) of
        {ok, {exists, Rooted}} -> Rooted;
        {error, _} -> error(badarg)
    end.

-spec option(pack | to_events, term(), term()) -> term().
option(pack, compress, Compress) when Compress =:= none; Compress =:= zstd -> Compress;
option(pack, level, Level) when is_integer(Level), Level >= 1, Level =< 22 -> Level;
option(pack, dictionary, Dictionary) -> usable(Dictionary);
option(to_events, atoms, Atoms) when Atoms =:= existing; Atoms =:= create -> Atoms;
option(to_events, direction, To) when To =:= forward; To =:= backward -> To;
option(to_events, limit, infinity) -> infinity;
option(to_events, limit, Limit) when is_integer(Limit), Limit >= 0 -> Limit;
option(to_events, types, Types) when is_list(Types), length(Types) >= 0 -> Types;
option(to_events, Key, Bound) when
    is_integer(Bound),
    Key =:= from_version orelse Key =:= to_version orelse Key =:= from_us orelse Key =:= to_us
->
    Bound;
option(_, _, _) ->
    error(badarg).

%% A dictionary that cannot be one is misuse, and known before anything is packed.
-spec usable(term()) -> esdb_archive_options:dictionary().
usable(Bytes) when is_binary(Bytes) -> esdb_archive_nif:dictionary(Bytes);
usable(Dictionary) -> dictionary(Dictionary).

%% Replaced when the library is loaded: _n on the caller's scheduler, _d on a dirty one

-spec matching_n([source()], binary(), pos_integer() | infinity) -> result([binary()]).
matching_n(Sources, Predicate, Limit) -> esdb_segment_erl:matching(Sources, Predicate, Limit).

-spec matching_d([source()], binary(), pos_integer() | infinity) -> result([binary()]).
matching_d(Sources, Predicate, Limit) -> esdb_segment_erl:matching(Sources, Predicate, Limit).

-spec filtered_n([source()], binary()) -> result(binary()).
filtered_n(Sources, Predicate) -> esdb_segment_erl:filtered(Sources, Predicate).

-spec filtered_d([source()], binary()) -> result(binary()).
filtered_d(Sources, Predicate) -> esdb_segment_erl:filtered(Sources, Predicate).

-spec counted_n([source()], binary()) -> result(non_neg_integer()).
counted_n(Sources, Predicate) -> esdb_segment_erl:counted(Sources, Predicate).

-spec counted_d([source()], binary()) -> result(non_neg_integer()).
counted_d(Sources, Predicate) -> esdb_segment_erl:counted(Sources, Predicate).

-spec aggregated_n([source()], binary(), sum | min | max) -> result(number() | undefined).
aggregated_n(Sources, Path, Kind) -> esdb_segment_erl:aggregated(Sources, Path, Kind).

-spec aggregated_d([source()], binary(), sum | min | max) -> result(number() | undefined).
aggregated_d(Sources, Path, Kind) -> esdb_segment_erl:aggregated(Sources, Path, Kind).

-spec grouped_n([source()], binary(), binary()) ->
    result(#{term() => [term()]}) | {error, too_many}.
grouped_n(Sources, Path, Asked) -> esdb_segment_erl:grouped(Sources, Path, Asked).

-spec grouped_d([source()], binary(), binary()) -> result(#{term() => [term()]}).
grouped_d(Sources, Path, Asked) -> esdb_segment_erl:grouped(Sources, Path, Asked).

-spec folded_n([source()], esdb_segment_erl:initial()) -> result(map()) | {error, too_many}.
folded_n(Sources, Init) -> esdb_segment_erl:folded(Sources, Init).

-spec folded_d([source()], esdb_segment_erl:initial()) -> result(map()).
folded_d(Sources, Init) -> esdb_segment_erl:folded(Sources, Init).

-spec projected_n(source(), [binary()], existing | create) ->
    result([[term()]]) | {error, too_many}.
projected_n(Source, Paths, Atoms) -> esdb_segment_erl:projected(Source, Paths, Atoms).

-spec projected_d(source(), [binary()], existing | create) -> result([[term()]]).
projected_d(Source, Paths, Atoms) -> esdb_segment_erl:projected(Source, Paths, Atoms).
