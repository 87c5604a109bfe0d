-module(erl_esdb_tables).
-moduledoc """
What an engine keeps of a store in ETS: everything but the bodies of events and documents.

The process that applies the commands mirrors the effects of `m:erl_esdb_log` into these tables, in
their order, and gives the machine `base/1` to look there. Everybody else reads at the same time:
from the head of a stream or the order of the log down to chunks. What is looked up may be removed
in between by a truncation or deletion; then `removed` is thrown, and `looking/1` begins again with
the new head. Nothing that a head names is ever missing otherwise, because a head is written after
all it names and before anything it does not name any more is removed.

```erlang
1> Tables = erl_esdb_tables:new(),
2> Log = erl_esdb_log:new(#{}, erl_esdb_tables:base(Tables)),
3> {Reply, Effects, Log1} = erl_esdb_log:apply(1, Command, Log),
4> lists:foreach(fun(Effect) -> erl_esdb_tables:write(Effect, Tables) end, Effects),
5> Log2 = erl_esdb_log:rest(Log1).
```

## Pictures

A picture is what the tables held at one moment, for another process to read while the next commands
are applied (copy-on-write): `open_picture/1` costs nothing, and from there on the owner keeps a
copy of an object before it changes it for the first time. `fold_picture/4` reads the whole, in
parts; whoever reads says `close_picture/2` when done, also where it failed. There is one picture at
a time: who reads one that the next has replaced is told so.
""".

-export([new/0, delete/1, base/1, write/2, write_order/2, write_seen/2, looking/1]).
-export([spans/6, log_spans/5, stream/3, streams/1, names/4, tip/2, tombs/3, metadata/2]).
-export([next_position/1, order/1, document/2, documents/3, checkpoint/2, checkpoints/1]).
-export([may_open_picture/2, open_picture/1, fold_picture/4, close_picture/2, end_pictures/1]).
-export([restore/2, bytes/1, is_empty/1]).
-export_type([tables/0, picture/0, part/0]).

-include("../log/erl_esdb_log.hrl").

-import(erl_esdb_args, [less/2]).

%% What the next append goes on from.
-define(TIP, [next, epoch_us, tip, no, signed]).
%% Objects of a part of a picture.
-define(PART, 1000).
%% In the array of the tables: the state of the picture, its number, when somebody read there last,
%% or it was opened, in monotonic milliseconds, and whether there are to be no more.
-define(PICTURE, 1).
-define(NONE, 0).
-define(OPEN, 1).
-define(CLOSED, 2).
-define(NUMBER, 2).
-define(READ, 3).
-define(ENDED, 4).

-record(tables, {
    %% {Stream, Head}, ordered
    streams :: ets:table(),
    %% {Stream, Head} of streams with a tombstone, ordered
    tombs :: ets:table(),
    %% {Stream, Metadata}
    metadata :: ets:table(),
    %% {Number of a stream, Name, First version kept} and {order, Sequence}
    owners :: ets:table(),
    %% {{Number of a stream or 0, Number}, Chunk or gap}
    chunks :: ets:table(),
    %% {Key, Version, Index}, ordered
    documents :: ets:table(),
    %% {Key, Value}
    checkpoints :: ets:table(),
    %% {Key, Version} of `m:erl_esdb_seen': in no picture, because the machine can tell it
    seen :: ets:table(),
    %% {{Table, Key}, [Object as it was, if it was there]}
    picture :: ets:table(),
    flags :: atomics:atomics_ref()
}).

-opaque tables() :: #tables{}.
-type table() :: streams | tombs | metadata | chunks | documents | checkpoints.
-type count() :: non_neg_integer() | infinity.
-type direction() :: forward | backward.
-doc "The number of a picture.".
-type picture() :: pos_integer().
-doc "Some objects of one of the tables.".
-type part() :: {table(), [tuple(), ...]}.

-doc "Empty tables, of the calling process.".
-spec new() -> tables().
new() ->
    Tables = #tables{
        streams = table(ordered_set),
        tombs = table(ordered_set),
        metadata = table(set),
        owners = table(set),
        chunks = table(set),
        documents = table(ordered_set),
        checkpoints = table(set),
        seen = table(set),
        picture = table(set),
        flags = atomics:new(4, [])
    },
    ok = write_order(erl_esdb_chunks:new(), Tables),
    Tables.

-spec table(set | ordered_set) -> ets:table().
table(Type) -> ets:new(?MODULE, [Type, protected, {read_concurrency, true}]).

-doc "Deletes the tables: whoever reads there finds that they are gone.".
-spec delete(tables()) -> ok.
delete(#tables{} = Tables) -> lists:foreach(fun ets:delete/1, all(Tables)).

-spec all(tables()) -> [ets:table()].
all(#tables{owners = Owners, seen = Seen, picture = Picture} = Tables) ->
    [Owners, Seen, Picture | kept(Tables)].

-spec kept(tables()) -> [ets:table()].
kept(Tables) -> [table(Name, Tables) || Name <- kinds()].

-spec kinds() -> [table(), ...].
kinds() -> [streams, tombs, metadata, chunks, documents, checkpoints].

-spec table(table(), tables()) -> ets:table().
table(streams, #tables{streams = Table}) -> Table;
table(tombs, #tables{tombs = Table}) -> Table;
table(metadata, #tables{metadata = Table}) -> Table;
table(chunks, #tables{chunks = Table}) -> Table;
table(documents, #tables{documents = Table}) -> Table;
table(checkpoints, #tables{checkpoints = Table}) -> Table.

-doc "The bytes of RAM that the tables take, without binaries of more than 64 bytes.".
-spec bytes(tables()) -> non_neg_integer().
bytes(Tables) -> words(all(Tables)) * erlang:system_info(wordsize).

-spec words([ets:table()]) -> non_neg_integer().
words([]) ->
    0;
words([Table | Tables]) ->
    case ets:info(Table, memory) of
        Size when is_integer(Size) -> Size + words(Tables);
        %% It is gone.
        undefined -> words(Tables)
    end.

-doc "Whether nothing was ever appended, and nothing is kept.".
-spec is_empty(tables()) -> boolean().
is_empty(Tables) ->
    next_position(Tables) =:= 0 andalso
        lists:all(fun(Table) -> ets:info(Table, size) =:= 0 end, kept(Tables)).

%% ---- writing, in the process of the tables

-doc "Where the machine looks up what is kept here.".
-spec base(tables()) -> erl_esdb_log:base().
base(#tables{} = Tables) ->
    fun(Table, Key) -> kept(Table, Key, Tables) end.

-spec kept(erl_esdb_log:table(), term(), tables()) -> {ok, term()} | none.
kept(documents, Key, #tables{documents = Documents}) ->
    case ets:lookup(Documents, Key) of
        [{_, Version, Index}] -> {ok, {Version, Index}};
        [] -> none
    end;
kept(names, No, #tables{owners = Owners}) ->
    case ets:lookup(Owners, No) of
        [{_, Name, _}] -> {ok, Name};
        [] -> none
    end;
kept(seen, Key, #tables{seen = Seen}) ->
    case ets:lookup(Seen, Key) of
        [{_, Version}] -> {ok, Version};
        [] -> none
    end;
kept(Kind, Key, Tables) ->
    case ets:lookup(table(Kind, Tables), Key) of
        [{_, Value}] -> {ok, Value};
        [] -> none
    end.

-doc "Mirrors an effect. Bodies (`live`, `dead`) are not kept here.".
-spec write(erl_esdb_log:effect(), tables()) -> ok.
write({stream, Name, Head}, #tables{owners = Owners} = Tables) ->
    {No, First} = {erl_esdb_log:no(Head), erl_esdb_log:first(Head)},
    %% With an append it stays what it is: a look costs less than to write it again.
    _ = ets:lookup_element(Owners, No, 3, none) =:= First orelse
        ets:insert(Owners, {No, Name, First}),
    insert(streams, {Name, Head}, Tables);
write({no_stream, Name, Head}, #tables{owners = Owners} = Tables) ->
    true = ets:delete(Owners, erl_esdb_log:no(Head)),
    erase(streams, Name, Tables);
write({order, Order}, Tables) ->
    write_order(Order, Tables);
write({tomb, Name, Head}, Tables) ->
    insert(tombs, {Name, Head}, Tables);
write({no_tomb, Name}, Tables) ->
    erase(tombs, Name, Tables);
write({metadata, Name, Metadata}, Tables) ->
    insert(metadata, {Name, Metadata}, Tables);
write({no_metadata, Name}, Tables) ->
    erase(metadata, Name, Tables);
write({chunk, Key, Chunk}, Tables) ->
    insert(chunks, {Key, Chunk}, Tables);
write({no_chunk, Key}, Tables) ->
    erase(chunks, Key, Tables);
write({document, Key, {Version, Index}}, Tables) ->
    insert(documents, {Key, Version, Index}, Tables);
write({no_document, Key}, Tables) ->
    erase(documents, Key, Tables);
write({checkpoint, Saved, Gone}, Tables) ->
    lists:foreach(fun(Key) -> erase(checkpoints, Key, Tables) end, Gone),
    lists:foreach(fun(Pair) -> insert(checkpoints, Pair, Tables) end, maps:to_list(Saved));
write({seen, New, Forgotten}, #tables{seen = Seen} = Tables) ->
    ok = write_seen(New, Tables),
    lists:foreach(fun(Entry) -> ets:delete_object(Seen, Entry) end, Forgotten);
write({Bodies, _Indexes}, _Tables) when Bodies =:= live; Bodies =:= dead ->
    ok.

-doc "Keeps the order of all appends.".
-spec write_order(erl_esdb_chunks:seq(), tables()) -> ok.
write_order(Order, #tables{owners = Owners}) ->
    true = ets:insert(Owners, {order, Order}),
    ok.

-doc "Keeps what was seen.".
-spec write_seen([erl_esdb_seen:entry()], tables()) -> ok.
write_seen(Entries, #tables{seen = Seen}) ->
    true = ets:insert(Seen, Entries),
    ok.

-spec insert(table(), tuple(), tables()) -> ok.
insert(Kind, Object, Tables) ->
    ok = as_it_was(Kind, element(1, Object), Tables),
    true = ets:insert(table(Kind, Tables), Object),
    ok.

-spec erase(table(), Key :: term(), tables()) -> ok.
erase(Kind, Key, Tables) ->
    ok = as_it_was(Kind, Key, Tables),
    true = ets:delete(table(Kind, Tables), Key),
    ok.

%% ---- pictures

-spec as_it_was(table(), Key :: term(), tables()) -> ok.
as_it_was(Kind, Key, #tables{flags = Flags} = Tables) ->
    case atomics:get(Flags, ?PICTURE) of
        ?NONE -> ok;
        ?OPEN -> copied(Kind, Key, Tables);
        ?CLOSED -> forget_picture(Tables)
    end.

-spec copied(table(), Key :: term(), tables()) -> ok.
copied(Kind, Key, #tables{picture = Picture} = Tables) ->
    _ =
        ets:member(Picture, {Kind, Key}) orelse
            ets:insert(Picture, {{Kind, Key}, ets:lookup(table(Kind, Tables), Key)}),
    ok.

-spec forget_picture(tables()) -> ok.
forget_picture(#tables{flags = Flags, picture = Picture}) ->
    true = ets:delete_all_objects(Picture),
    atomics:put(Flags, ?PICTURE, ?NONE).

-doc """
Whether there is no picture that somebody reads or is about to read: none, or one where nothing has
happened for so many milliseconds. Never after `end_pictures/1`.
""".
-spec may_open_picture(tables(), Patience :: non_neg_integer()) -> boolean().
may_open_picture(#tables{flags = Flags} = Tables, Patience) ->
    not has_ended(Tables) andalso
        (atomics:get(Flags, ?PICTURE) =/= ?OPEN orelse
            now_ms() - atomics:get(Flags, ?READ) > Patience).

-doc "Opens a picture of the tables as they are, in their process.".
-spec open_picture(tables()) -> picture().
open_picture(#tables{flags = Flags} = Tables) ->
    Number = atomics:add_get(Flags, ?NUMBER, 1),
    ok = forget_picture(Tables),
    ok = atomics:put(Flags, ?READ, now_ms()),
    ok = atomics:put(Flags, ?PICTURE, ?OPEN),
    Number.

-spec now_ms() -> integer().
now_ms() -> erlang:monotonic_time(millisecond).

-doc "Ends the picture: its copies are forgotten with the next change.".
-spec close_picture(picture(), tables()) -> ok.
close_picture(Number, #tables{flags = Flags} = Tables) ->
    _ = is_open(Number, Tables) andalso atomics:compare_exchange(Flags, ?PICTURE, ?OPEN, ?CLOSED),
    ok.

-spec is_open(picture(), tables()) -> boolean().
is_open(Number, #tables{flags = Flags}) ->
    atomics:get(Flags, ?NUMBER) =:= Number andalso atomics:get(Flags, ?PICTURE) =:= ?OPEN.

-doc "No more pictures: whoever reads one is told so with the next part. From any process.".
-spec end_pictures(tables()) -> ok.
end_pictures(#tables{flags = Flags}) -> atomics:put(Flags, ?ENDED, 1).

-spec has_ended(tables()) -> boolean().
has_ended(#tables{flags = Flags}) -> atomics:get(Flags, ?ENDED) =:= 1.

-doc """
Folds over what the tables held when the picture was opened, in parts, in any process. Now and then
an object comes twice. `gone`: it is not the open picture, or was not any more; `ended`: there are
to be none. What the fun has seen counts for nothing then.
""".
-spec fold_picture(fun((part(), Acc) -> Acc), Acc, picture(), tables()) ->
    {ok, Acc} | gone | ended.
fold_picture(Fun, Acc, Number, #tables{flags = Flags} = Tables) ->
    Read = fun(Part, Sum) ->
        ok = readable(Number, Tables),
        ok = atomics:put(Flags, ?READ, now_ms()),
        Fun(Part, Sum)
    end,
    try
        ok = readable(Number, Tables),
        Acc1 = fold_picture(Read, Acc, Tables),
        ok = readable(Number, Tables),
        {ok, Acc1}
    catch
        throw:{?MODULE, Why} ->
            Why;
        error:badarg:Stack ->
            {error, not_started} = gone(Stack),
            gone
    end.

-spec readable(picture(), tables()) -> ok.
readable(Number, Tables) ->
    case {has_ended(Tables), is_open(Number, Tables)} of
        {true, _} -> throw({?MODULE, ended});
        {false, false} -> throw({?MODULE, gone});
        {false, true} -> ok
    end.

-spec fold_picture(fun((part(), Acc) -> Acc), Acc, tables()) -> Acc.
fold_picture(Fun, Acc, #tables{picture = Picture} = Tables) ->
    Acc1 = lists:foldl(
        fun(Kind, Sum) ->
            Table = table(Kind, Tables),
            Same = fun(Part, S) -> part(Kind, same(Part, Kind, Picture), Fun, S) end,
            fold_table(Same, Sum, Table)
        end,
        Acc,
        kinds()
    ),
    Changed = fun(Part, Sum) ->
        Kinds = maps:groups_from_list(fun({{Kind, _}, _}) -> Kind end, Part),
        maps:fold(
            fun(Kind, Of, S) -> part(Kind, [O || {_, [O]} <- Of], Fun, S) end, Sum, Kinds
        )
    end,
    fold_table(Changed, Acc1, Picture).

-spec part(table(), [tuple()], fun((part(), Acc) -> Acc), Acc) -> Acc.
part(_Kind, [], _Fun, Acc) -> Acc;
part(Kind, Objects, Fun, Acc) -> Fun({Kind, Objects}, Acc).

%% Those that were not changed: the copy is made before the change, and looked for after the object.
-spec same([tuple()], table(), ets:table()) -> [tuple()].
same(Objects, Kind, Picture) ->
    [Object || Object <- Objects, not ets:member(Picture, {Kind, element(1, Object)})].

-spec fold_table(fun(([tuple(), ...], Acc) -> Acc), Acc, ets:table()) -> Acc.
fold_table(Fun, Acc, Table) ->
    true = ets:safe_fixtable(Table, true),
    try
        fold_parts(ets:select(Table, [{'$1', [], ['$1']}], ?PART), Fun, Acc)
    after
        true = ets:safe_fixtable(Table, false)
    end.

-spec fold_parts({[tuple()], term()} | '$end_of_table', fun(([tuple(), ...], Acc) -> Acc), Acc) ->
    Acc.
fold_parts('$end_of_table', _Fun, Acc) -> Acc;
fold_parts({[], More}, Fun, Acc) -> fold_parts(ets:select(More), Fun, Acc);
fold_parts({Part, More}, Fun, Acc) -> fold_parts(ets:select(More), Fun, Fun(Part, Acc)).

-doc "Puts a part of a picture into tables that are being filled.".
-spec restore(part(), tables()) -> ok.
restore({Kind, Objects}, #tables{owners = Owners} = Tables) ->
    true = ets:insert(table(Kind, Tables), Objects),
    case Kind of
        streams ->
            true = ets:insert(Owners, [
                {erl_esdb_log:no(Head), Name, erl_esdb_log:first(Head)}
             || {Name, Head} <- Objects
            ]),
            ok;
        _ ->
            ok
    end.

%% ---- reading, in any process

-doc "Where the events of a window of versions are that the metadata of the stream lets be seen.".
-spec spans(tables(), binary(), non_neg_integer() | last, count(), direction(), map()) ->
    {ok, [{binary(), erl_esdb_log:span()}]} | {error, stream_not_found}.
spans(Tables, Stream, From, Count, Direction, Options) ->
    on_head(Tables, Stream, Options, fun(Head, Fetch) ->
        Spans = erl_esdb_log:rows(Head, From, Count, Direction, Fetch),
        [{Stream, Span} || Span <- Spans]
    end).

%% The head of a stream, as its metadata lets it be seen.
-spec on_head(tables(), binary(), map(), Fun) -> {ok, Result} | {error, stream_not_found} when
    Fun :: fun((erl_esdb_log:head(), erl_esdb_chunks:fetch()) -> Result).
on_head(#tables{streams = Streams} = Tables, Stream, Options, Fun) ->
    case ets:lookup(Streams, Stream) of
        [{_, Head}] ->
            Fetch = fetch(Tables, erl_esdb_log:no(Head)),
            {ok, Fun(view(Tables, Stream, Head, Options, Fetch), Fetch)};
        [] ->
            {error, stream_not_found}
    end.

-spec view(tables(), binary(), erl_esdb_log:head(), map(), erl_esdb_chunks:fetch()) ->
    erl_esdb_log:head().
view(_Tables, _Stream, Head, #{hidden := true}, _Fetch) ->
    Head;
view(#tables{metadata = Table}, Stream, Head, _Options, Fetch) ->
    case ets:lookup(Table, Stream) of
        [{_, Metadata}] -> erl_esdb_log:view(Head, Metadata, now_us(), Fetch);
        [] -> Head
    end.

-spec now_us() -> integer().
now_us() -> erl_esdb_clock:now_us().

-spec fetch(tables(), non_neg_integer()) -> erl_esdb_chunks:fetch().
fetch(#tables{chunks = Chunks}, No) ->
    fun(Number) ->
        case ets:lookup(Chunks, {No, Number}) of
            [{_, Chunk}] -> Chunk;
            [] -> throw(removed)
        end
    end.

-doc "Where the events from a position on are, as `erl_esdb_log:log_rows/6` finds them.".
-spec log_spans(tables(), non_neg_integer() | last, count(), direction(), map()) ->
    [{binary(), erl_esdb_log:span()}].
log_spans(#tables{owners = Owners} = Tables, From, Count, Direction, Options) ->
    Owner = fun(No) ->
        case ets:lookup(Owners, No) of
            [{_, Name, First}] -> {Name, First, first_seen(Tables, Name, No, First, Options)};
            [] -> gone
        end
    end,
    erl_esdb_log:log_rows(order(Tables), From, Count, Direction, Owner, fetch(Tables, 0)).

-spec first_seen(tables(), binary(), pos_integer(), First, map()) -> First when
    First :: non_neg_integer().
first_seen(_Tables, _Name, _No, First, #{hidden := true}) ->
    First;
first_seen(#tables{streams = Streams, metadata = Table} = Tables, Name, No, First, Options) ->
    case ets:member(Table, Name) andalso ets:lookup(Streams, Name) of
        [{_, Head}] -> erl_esdb_log:first(view(Tables, Name, Head, Options, fetch(Tables, No)));
        %% It has none, or was removed a moment ago.
        _ -> First
    end.

-doc "All appends in the order of positions.".
-spec order(tables()) -> erl_esdb_chunks:seq().
order(#tables{owners = Owners}) ->
    [{order, Order}] = ets:lookup(Owners, order),
    Order.

-doc "The position that the next event gets.".
-spec next_position(tables()) -> non_neg_integer().
next_position(Tables) -> erl_esdb_log:log_end(order(Tables)).

-doc "What is known of a stream.".
-spec stream(tables(), binary(), map()) ->
    {ok, erl_esdb_log:info()} | {error, stream_not_found}.
stream(Tables, Stream, Options) ->
    on_head(Tables, Stream, Options, fun(Head, _Fetch) -> erl_esdb_log:describe(Head) end).

-doc "The names of all streams, sorted.".
-spec streams(tables()) -> [binary()].
streams(#tables{streams = Streams}) -> ets:select(Streams, [{{'$1', '_'}, [], ['$1']}]).

-doc "The names of streams that begin with a prefix and come behind a name, in order.".
-spec names(tables(), binary() | first, binary(), count()) -> [binary()].
names(#tables{streams = Streams}, Behind, Prefix, Limit) ->
    First =
        case Behind =:= first orelse Behind < Prefix of
            true -> from(Prefix, Streams);
            false -> ets:next(Streams, Behind)
        end,
    collect(First, Prefix, Limit, Streams).

%% The first key that is not before this one.
-spec from(Key, ets:table()) -> Key | '$end_of_table' when Key :: binary() | tuple().
from(Key, Table) ->
    case ets:member(Table, Key) of
        true -> Key;
        false -> ets:next(Table, Key)
    end.

-spec collect(binary() | '$end_of_table', binary(), count(), ets:table()) -> [binary()].
collect(_Name, _Prefix, 0, _Streams) ->
    [];
collect(Name, Prefix, Limit, Streams) ->
    Size = byte_size(Prefix),
    case Name of
        <<Prefix:Size/binary, _/binary>> ->
            [Name | collect(ets:next(Streams, Name), Prefix, less(Limit, 1), Streams)];
        _ ->
            []
    end.

-doc "What the next append of a stream goes on from.".
-spec tip(tables(), binary()) -> erl_esdb_engine:place().
tip(#tables{streams = Streams, tombs = Tombs}, Stream) ->
    %% The second time for one that went on behind its tombstone in between.
    case [Head || Table <- [Streams, Tombs, Streams], {_, Head} <- ets:lookup(Table, Stream)] of
        [Head | _] -> maps:with(?TIP, erl_esdb_log:describe(Head));
        [] -> #{next => 0, epoch_us => 0, tip => none, no => none, signed => none}
    end.

-doc "What is known of streams that have a tombstone, behind a name, in the order of their names.".
-spec tombs(tables(), binary() | first, count()) -> [{binary(), erl_esdb_log:info()}].
tombs(#tables{tombs = Tombs}, first, Limit) -> buried(ets:first(Tombs), Limit, Tombs);
tombs(#tables{tombs = Tombs}, Behind, Limit) -> buried(ets:next(Tombs, Behind), Limit, Tombs).

-spec buried(binary() | '$end_of_table', count(), ets:table()) ->
    [{binary(), erl_esdb_log:info()}].
buried(Name, Limit, _Tombs) when Limit =:= 0; Name =:= '$end_of_table' ->
    [];
buried(Name, Limit, Tombs) ->
    After = ets:next(Tombs, Name),
    case ets:lookup(Tombs, Name) of
        [{_, Head}] -> [{Name, erl_esdb_log:describe(Head)} | buried(After, less(Limit, 1), Tombs)];
        %% Made again a moment ago.
        [] -> buried(After, Limit, Tombs)
    end.

-doc "What may be seen of a stream, also of one that is not there.".
-spec metadata(tables(), binary()) -> erl_esdb_log:metadata().
metadata(#tables{metadata = Table}, Stream) ->
    ets:lookup_element(Table, Stream, 2, #{}).

-doc "How often a document was put, and by which command the last time.".
-spec document(tables(), erl_esdb_log:document_key()) ->
    {ok, {pos_integer(), erl_esdb_log:index()}} | {error, not_found}.
document(Tables, Key) ->
    case kept(documents, Key, Tables) of
        {ok, Entry} -> {ok, Entry};
        none -> {error, not_found}
    end.

-doc "Keys and versions of the documents between two keys, both included, in term order.".
-spec documents(tables(), erl_esdb_log:document_key(), erl_esdb_log:document_key()) ->
    [{erl_esdb_log:document_key(), pos_integer()}].
documents(#tables{documents = Documents}, From, To) ->
    documents_to(from(From, Documents), To, Documents).

%% From key to key: a match specification with bounds would look at every document of the store.
-spec documents_to(erl_esdb_log:document_key() | '$end_of_table', tuple(), ets:table()) ->
    [{erl_esdb_log:document_key(), pos_integer()}].
documents_to(Key, To, Documents) when is_tuple(Key), Key =< To ->
    After = ets:next(Documents, Key),
    case ets:lookup(Documents, Key) of
        [{_, Version, _}] -> [{Key, Version} | documents_to(After, To, Documents)];
        %% Removed a moment ago.
        [] -> documents_to(After, To, Documents)
    end;
documents_to(_, _, _) ->
    [].

-doc "What is kept under a key of a checkpoint.".
-spec checkpoint(tables(), Key :: term()) -> {ok, term()} | {error, not_found}.
checkpoint(Tables, Key) ->
    case kept(checkpoints, Key, Tables) of
        {ok, Value} -> {ok, Value};
        none -> {error, not_found}
    end.

-doc "All that is kept under keys of checkpoints.".
-spec checkpoints(tables()) -> #{Key :: term() => Value :: term()}.
checkpoints(#tables{checkpoints = Checkpoints}) -> maps:from_list(ets:tab2list(Checkpoints)).

-doc """
Calls a fun that looks into the tables, again where what it looked for was removed meanwhile.

`{error, not_started}`: the tables are gone. There was one more truncation for each time that it is
called again.
""".
-spec looking(fun(() -> Result)) -> Result | {error, not_started}.
looking(Look) ->
    try
        Look()
    catch
        throw:removed -> looking(Look);
        error:badarg:Stack -> gone(Stack)
    end.

-spec gone([tuple()]) -> {error, not_started}.
gone([{ets, _, _, _} | _]) -> {error, not_started};
gone(Stack) -> erlang:raise(error, badarg, Stack).
