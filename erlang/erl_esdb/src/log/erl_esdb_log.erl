-module(erl_esdb_log).
-moduledoc """
The state machine of a store: versions, positions, conditions, indexes, documents. Pure.

Every engine runs it: it takes one command after the other, each with a rising index that the
engine chose, and answers what the caller gets and what changed. It reads no clock and no process,
so the same commands give the same state on every node. The bodies of events and documents are not
in it: the engine finds them by the index of the command that brought them.

```erlang
1> Log0 = erl_esdb_log:new().
2> {{ok, {0, 0, 1}}, Effects, Log} =
       erl_esdb_log:apply(1, {append, <<"s">>, -1, Packed, #{count => 1, epoch_us => 5}}, Log0).
```

Removal is quick however much is removed: a stream is cut or forgotten at once, and what it leaves
behind is erased in slices of at most 256 appends, the first with the command itself. While
`pending/1` says that there is more, the engine gives the command `sweep`, between others.

An engine that answers reads from other processes than the one that applies commands mirrors the
effects, in their order, into tables: whoever looks from the stream or the log downwards then
finds everything it names, or finds that it was removed in between and looks again. `rows/5` and
`log_rows/6` work on either.
""".

-export([new/0, apply/3, is_command/1, pending/1]).
-export([read/5, read_log/4, stream/2, streams/1, next_position/1, document/2, documents/3]).
-export([checkpoint/2]).
-export([rows/5, log_rows/6, describe/1, first/1, no/1, log_end/1]).
-export([first_version/1, after_span/1]).
-export_type([state/0, command/0, reply/0, effect/0, index/0, head/0, expected/0, span/0]).
-export_type([document_key/0, chunk_key/0, info/0]).
-export_type([checkpoints/0]).

-include("erl_esdb_log.hrl").

%% Appends that are erased at a time: in the memory engine the work of a millisecond, at most a few.
-define(SLICE, 256).

-record(head, {
    %% number of the stream
    no :: pos_integer(),
    %% first version that is kept
    first = 0 :: non_neg_integer(),
    seq :: erl_esdb_chunks:seq()
}).

%% What is still to be erased of a stream that was cut or forgotten.
-record(removal, {
    %% number of the stream, and its rows as they were
    no :: pos_integer(),
    seq :: erl_esdb_chunks:seq(),
    %% versions from the first to before the second
    from :: non_neg_integer(),
    before :: non_neg_integer(),
    %% the first chunk that stays
    keep :: erl_esdb_chunks:chunk_no()
}).

-record(log, {
    streams = #{} :: #{binary() => head()},
    names = #{} :: #{pos_integer() => binary()},
    chunks = #{} :: #{chunk_key() => erl_esdb_chunks:chunk()},
    %% all appends in the order of positions
    order = erl_esdb_chunks:new() :: erl_esdb_chunks:seq(),
    %% how many rows of a chunk of the order are erased, until all are
    erased = #{} :: #{erl_esdb_chunks:chunk_no() => pos_integer()},
    removals = queue:new() :: queue:queue(#removal{}),
    next_no = 1 :: pos_integer(),
    documents = gb_trees:empty() :: gb_trees:tree(document_key(), {pos_integer(), index()}),
    checkpoints = #{} :: #{term() => term()}
}).

-opaque state() :: #log{}.
-doc "What the machine keeps of a stream.".
-opaque head() :: #head{}.
-doc "Of a command; rises from 1, also with gaps.".
-type index() :: pos_integer().
-doc "An exact version, -1 no stream, -2 any, -4 a stream that exists.".
-type expected() :: non_neg_integer() | -1 | -2 | -4.
-doc "Any term, by convention `{Kind, Id, ...}`; listed in term order.".
-type document_key() :: tuple().
-doc "Stream number (0: the order of all events) and number of the chunk.".
-type chunk_key() :: {non_neg_integer(), erl_esdb_chunks:chunk_no()}.
-type command() ::
    {append, Stream :: binary(), expected(), Packed :: binary(), #{
        count := non_neg_integer(), epoch_us := integer()
    }}
    | {truncate, Stream :: binary(), Before :: non_neg_integer()}
    | {delete, Stream :: binary()}
    | sweep
    | {put_document, document_key(), Body :: binary()}
    | {delete_document, document_key()}
    | {checkpoint, checkpoints()}.
-doc "What to keep under which key; `delete` keeps nothing.".
-type checkpoints() :: #{Key :: term() => Value :: delete | term()}.
-type appended() :: {
    Version :: integer(), Position :: non_neg_integer() | undefined, Count :: non_neg_integer()
}.
-type reply() ::
    {ok, appended()}
    | {ok, {From :: non_neg_integer(), Before :: non_neg_integer()}}
    | {ok, DocumentVersion :: pos_integer()}
    | ok
    | {error, {wrong_expected_version, expected(), Actual :: integer()} | stream_not_found}.
-type effect() ::
    {live | dead, [index()]}
    | {stream, binary(), head()}
    | {no_stream, binary(), head()}
    | {order, erl_esdb_chunks:seq()}
    | {chunk, chunk_key(), erl_esdb_chunks:chunk()}
    | {no_chunk, chunk_key()}
    | {document, document_key(), {pos_integer(), index()}}
    | {no_document, document_key()}
    | {checkpoint, Saved :: checkpoints(), Gone :: [Key :: term()]}.
-doc "A row and which of its versions are meant.".
-type span() :: {#row{}, From :: non_neg_integer(), To :: non_neg_integer()}.
-doc "`first`: the first version that is kept; `next`: the version of the next event.".
-type info() :: #{
    no := pos_integer(),
    first := non_neg_integer(),
    next := non_neg_integer(),
    epoch_us := integer()
}.

-doc "The empty machine.".
-spec new() -> state().
new() -> #log{}.

-doc """
Applies one command.

The reply of an append is `{Version, Position, Count}` of its last event; an empty one answers the
stream's version and `undefined`. A truncation answers which versions it removed, from the first to
before the second. What is dead need never be read again; an index never comes back to life.
""".
-spec apply(index(), command(), state()) -> {reply(), [effect()], state()}.
apply(Index, {append, Stream, Expected, _Packed, Summary}, Log) ->
    Head = maps:get(Stream, Log#log.streams, absent),
    Actual = version(Head),
    case meets(Expected, Actual) of
        true -> append(Index, Stream, Head, Summary, Log);
        false -> {{error, {wrong_expected_version, Expected, Actual}}, [], Log}
    end;
apply(_Index, {truncate, Stream, Before}, Log) ->
    case Log#log.streams of
        #{Stream := Head} -> truncate(Stream, Head, Before, Log);
        #{} -> {{error, stream_not_found}, [], Log}
    end;
apply(_Index, {delete, Stream}, Log) ->
    case Log#log.streams of
        #{Stream := Head} -> delete(Stream, Head, Log);
        #{} -> {ok, [], Log}
    end;
apply(_Index, sweep, Log) ->
    {Effects, Log1} = sweep(Log),
    {ok, Effects, Log1};
apply(Index, {put_document, Key, _Body}, Log) ->
    put_document(Index, Key, Log);
apply(_Index, {delete_document, Key}, Log) ->
    delete_document(Key, Log);
apply(_Index, {checkpoint, Values}, Log) ->
    checkpoints(Values, Log).

-doc """
Whether a term is a command. An engine asks before it applies what came from a process that it does
not know: the machine has no clause for anything else.
""".
-spec is_command(term()) -> boolean().
is_command({append, Stream, Expected, Packed, #{count := Count, epoch_us := Time}}) ->
    is_binary(Stream) andalso is_integer(Expected) andalso is_binary(Packed) andalso
        is_natural(Count) andalso is_integer(Time);
is_command({truncate, Stream, Before}) ->
    is_binary(Stream) andalso is_natural(Before);
is_command({delete, Stream}) ->
    is_binary(Stream);
is_command({put_document, Key, Body}) ->
    is_tuple(Key) andalso is_binary(Body);
is_command({delete_document, Key}) ->
    is_tuple(Key);
is_command({checkpoint, Values}) ->
    is_map(Values);
is_command(Other) ->
    Other =:= sweep.

-spec is_natural(term()) -> boolean().
is_natural(Value) -> is_integer(Value) andalso Value >= 0.

-doc "Whether there is something to erase for the command `sweep`.".
-spec pending(state()) -> boolean().
pending(#log{removals = Removals}) -> not queue:is_empty(Removals).

%% ---- appends

-spec meets(expected(), Actual :: integer()) -> boolean().
meets(-2, _) -> true;
meets(-4, Actual) -> Actual >= 0;
meets(Expected, Actual) -> Expected =:= Actual.

-spec version(head() | absent) -> integer().
version(absent) -> -1;
version(Head) -> next(Head) - 1.

-spec append(index(), binary(), head() | absent, map(), state()) -> {reply(), [effect()], state()}.
append(_Index, _Stream, Head, #{count := 0}, Log) ->
    {{ok, {version(Head), undefined, 0}}, [], Log};
append(Index, Stream, absent, Summary, #log{next_no = No, names = Names} = Log) ->
    Head = #head{no = No, seq = erl_esdb_chunks:new()},
    append(Index, Stream, Head, Summary, Log#log{next_no = No + 1, names = Names#{No => Stream}});
append(Index, Stream, #head{seq = Seq} = Head, #{count := Count, epoch_us := Time}, Log) ->
    #row{epoch_us = LastTime} = erl_esdb_chunks:last(Seq),
    #log{streams = Streams, order = Order, chunks = Chunks} = Log,
    Row = #row{
        index = Index,
        count = Count,
        stream = Head#head.no,
        version = next(Head),
        position = log_end(Order),
        epoch_us = max(Time, LastTime)
    },
    {Seq1, Full1} = erl_esdb_chunks:add(Row, Seq),
    {Order1, Full2} = erl_esdb_chunks:add(Row, Order),
    Head1 = Head#head{seq = Seq1},
    Sealed = sealed(Head#head.no, Full1) ++ sealed(0, Full2),
    Log1 = Log#log{
        streams = Streams#{Stream => Head1},
        order = Order1,
        chunks = maps:merge(Chunks, #{Key => Chunk || {chunk, Key, Chunk} <- Sealed})
    },
    Reply = {Row#row.version + Count - 1, Row#row.position + Count - 1, Count},
    {{ok, Reply}, [{live, [Index]} | Sealed] ++ [{stream, Stream, Head1}, {order, Order1}], Log1}.

-spec sealed(non_neg_integer(), none | {erl_esdb_chunks:chunk_no(), binary()}) -> [effect()].
sealed(_No, none) -> [];
sealed(No, {Number, Chunk}) -> [{chunk, {No, Number}, Chunk}].

%% ---- removal

-spec truncate(binary(), head(), non_neg_integer(), state()) -> {reply(), [effect()], state()}.
truncate(Stream, #head{first = First} = Head, Before, Log) ->
    case min(Before, next(Head)) of
        Cut when Cut =< First -> {{ok, {First, First}}, [], Log};
        Cut -> truncated(Stream, Head, Cut, Log)
    end.

-spec truncated(binary(), head(), non_neg_integer(), state()) -> {reply(), [effect()], state()}.
truncated(Stream, #head{no = No, first = First, seq = Seq} = Head, Cut, Log) ->
    #log{streams = Streams} = Log,
    Seq1 = erl_esdb_chunks:drop_before(version, Cut, Seq, fetch(No, Log)),
    {Keep, _} = erl_esdb_chunks:numbers(Seq1),
    Head1 = Head#head{first = Cut, seq = Seq1},
    Removal = #removal{no = No, seq = Seq, from = First, before = Cut, keep = Keep},
    {Effects, Log1} = removed(Removal, Log#log{streams = Streams#{Stream => Head1}}),
    {{ok, {First, Cut}}, [{stream, Stream, Head1} | Effects], Log1}.

-spec delete(binary(), head(), state()) -> {reply(), [effect()], state()}.
delete(Stream, #head{no = No, first = First, seq = Seq} = Head, Log) ->
    #log{streams = Streams, names = Names} = Log,
    {_, Next} = erl_esdb_chunks:numbers(Seq),
    Removal = #removal{no = No, seq = Seq, from = First, before = next(Head), keep = Next},
    Log1 = Log#log{streams = maps:remove(Stream, Streams), names = maps:remove(No, Names)},
    {Effects, Log2} = removed(Removal, Log1),
    {ok, [{no_stream, Stream, Head} | Effects], Log2}.

-spec removed(#removal{}, state()) -> {[effect()], state()}.
removed(Removal, #log{removals = Removals} = Log) ->
    sweep(Log#log{removals = queue:in(Removal, Removals)}).

%% ---- erasing, a slice at a time, one removal after the other

-spec sweep(state()) -> {[effect()], state()}.
sweep(#log{removals = Removals} = Log) ->
    case queue:out(Removals) of
        {{value, Removal}, Rest} -> sweep(Removal, Rest, Log);
        {empty, _} -> {[], Log}
    end.

-spec sweep(#removal{}, queue:queue(#removal{}), state()) -> {[effect()], state()}.
sweep(#removal{no = No, seq = Seq} = Removal, Rest, #log{chunks = Chunks} = Log) ->
    Fetch = fetch(No, Log),
    {Rows, More} = slice(Removal, Fetch),
    {Removals, Before} = left(More, Rows, Removal, Rest, Fetch),
    {First, _} = erl_esdb_chunks:numbers(Seq),
    Keys = [{No, Number} || Number <- lists:seq(First, Before - 1)],
    Log1 = Log#log{chunks = maps:without(Keys, Chunks), removals = Removals},
    {Gaps, Log2} = erased([Row#row.position || Row <- Rows], Log1),
    Dead = [{dead, [Row#row.index || Row <- Rows]} || Rows =/= []],
    %% Whoever meets a gap finds no body of what lay before it in its stream either.
    {Dead ++ [{no_chunk, Key} || Key <- Keys] ++ Gaps, Log2}.

%% The next appends all of whose events lie before the version, and whether there are more.
-spec slice(#removal{}, erl_esdb_chunks:fetch()) -> {[#row{}], More :: boolean()}.
slice(#removal{seq = Seq, from = From, before = Before}, Fetch) ->
    Collect = fun
        (#row{version = V, count = C}, Sum) when V + C > Before -> {stop, Sum};
        (_Row, {?SLICE, Rows, _}) -> {stop, {?SLICE, Rows, true}};
        (Row, {N, Rows, _}) -> {next, {N + 1, [Row | Rows], false}}
    end,
    Start = {0, [], false},
    {_, Rows, More} =
        erl_esdb_chunks:fold(version, From, forward, Collect, Start, Seq, Fetch),
    {lists:reverse(Rows), More}.

%% What is still to be erased after these rows, and the first chunk that is not erased with them.
-spec left(boolean(), [#row{}], #removal{}, queue:queue(#removal{}), erl_esdb_chunks:fetch()) ->
    {queue:queue(#removal{}), erl_esdb_chunks:chunk_no()}.
left(false, _Rows, #removal{keep = Keep}, Rest, _Fetch) ->
    {Rest, Keep};
left(true, Rows, #removal{seq = Seq} = Removal, Rest, Fetch) ->
    #row{version = Version, count = Count} = lists:last(Rows),
    From = Version + Count,
    Seq1 = erl_esdb_chunks:drop_before(version, From, Seq, Fetch),
    {Before, _} = erl_esdb_chunks:numbers(Seq1),
    {queue:in_r(Removal#removal{seq = Seq1, from = From}, Rest), Before}.

%% Chunks of the order become gaps when the last of their rows is erased, so that a walk through the
%% order passes over them.
-spec erased([Position :: non_neg_integer()], state()) -> {[effect()], state()}.
erased(Positions, #log{order = Order, erased = Erased} = Log) ->
    Count = fun(Position, {Counts, Near}) ->
        {Number, _} = Near1 = holder(Position, Near, Order, fetch(0, Log)),
        {maps:update_with(Number, fun(N) -> N + 1 end, 1, Counts), Near1}
    end,
    {Counts, _} = lists:foldl(Count, {#{}, {0, 0}}, Positions),
    Sums = maps:merge_with(fun(_, A, B) -> A + B end, maps:with(maps:keys(Counts), Erased), Counts),
    Rows = erl_esdb_chunks:rows(),
    Full = lists:sort([Number || Number := N <- Sums, N =:= Rows]),
    Erased1 = maps:without(Full, maps:merge(Erased, Sums)),
    lists:foldl(fun gap/2, {[], Log#log{erased = Erased1}}, Full).

-spec holder(Position, {erl_esdb_chunks:chunk_no(), Position | infinity}, Order, Fetch) ->
    {erl_esdb_chunks:chunk_no(), Position | infinity}
when
    Position :: non_neg_integer(), Order :: erl_esdb_chunks:seq(), Fetch :: erl_esdb_chunks:fetch().
holder(Position, {_, Until} = Near, _Order, _Fetch) when Position < Until -> Near;
holder(Position, {Near, _}, Order, Fetch) ->
    erl_esdb_chunks:holder(position, Position, Near, Order, Fetch).

-spec gap(erl_esdb_chunks:chunk_no(), {[effect()], state()}) -> {[effect()], state()}.
gap(Number, {Effects, #log{order = Order, chunks = Chunks} = Log}) ->
    Changed = erl_esdb_chunks:remove(Number, Order, fetch(0, Log)),
    New = #{{0, N} => Chunk || {N, Chunk} <- Changed},
    Effects1 = [{chunk, {0, N}, Chunk} || {N, Chunk} <- Changed],
    {Effects ++ Effects1, Log#log{chunks = maps:merge(Chunks, New)}}.

%% ---- documents

-spec put_document(index(), document_key(), state()) -> {reply(), [effect()], state()}.
put_document(Index, Key, #log{documents = Documents} = Log) ->
    {Version, Dead} =
        case gb_trees:lookup(Key, Documents) of
            none -> {1, []};
            {value, {Before, Old}} -> {Before + 1, [{dead, [Old]}]}
        end,
    Entry = {Version, Index},
    Effects = [{live, [Index]}, {document, Key, Entry} | Dead],
    {{ok, Version}, Effects, Log#log{documents = gb_trees:enter(Key, Entry, Documents)}}.

-spec delete_document(document_key(), state()) -> {reply(), [effect()], state()}.
delete_document(Key, #log{documents = Documents} = Log) ->
    case gb_trees:take_any(Key, Documents) of
        error ->
            {ok, [], Log};
        {{_Version, Index}, Documents1} ->
            {ok, [{no_document, Key}, {dead, [Index]}], Log#log{documents = Documents1}}
    end.

%% ---- checkpoints: small values that change often, kept in the machine itself

-spec checkpoints(checkpoints(), state()) -> {reply(), [effect()], state()}.
checkpoints(Values, #log{checkpoints = Before} = Log) ->
    Changed = maps:filter(fun(K, V) -> maps:get(K, Before, delete) =/= V end, Values),
    Gone = [Key || Key := delete <- Changed],
    Saved = maps:without(Gone, Changed),
    After = maps:merge(maps:without(Gone, Before), Saved),
    Effects = [{checkpoint, Saved, Gone} || map_size(Changed) > 0],
    {ok, Effects, Log#log{checkpoints = After}}.

-doc "What is kept under a key of a checkpoint.".
-spec checkpoint(Key :: term(), state()) -> {ok, term()} | {error, not_found}.
checkpoint(Key, #log{checkpoints = Checkpoints}) ->
    case Checkpoints of
        #{Key := Value} -> {ok, Value};
        #{} -> {error, not_found}
    end.

%% ---- queries on the machine itself

-doc "Where the events of a window of versions are: see `rows/5`.".
-spec read(
    binary(),
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    state()
) -> {ok, [span()]} | {error, stream_not_found}.
read(Stream, From, Count, Direction, Log) ->
    case Log#log.streams of
        #{Stream := Head} -> {ok, rows(Head, From, Count, Direction, fetch(Head#head.no, Log))};
        #{} -> {error, stream_not_found}
    end.

-doc "Where the events from a position on are, with the names of their streams: see `log_rows/6`.".
-spec read_log(
    non_neg_integer() | last, non_neg_integer() | infinity, forward | backward, state()
) -> [{binary(), span()}].
read_log(From, Count, Direction, #log{order = Order, names = Names, streams = Streams} = Log) ->
    Owner = fun(No) ->
        case Names of
            #{No := Name} -> {Name, first(maps:get(Name, Streams))};
            #{} -> gone
        end
    end,
    log_rows(Order, From, Count, Direction, Owner, fetch(0, Log)).

-doc "What is known of a stream.".
-spec stream(binary(), state()) -> {ok, info()} | {error, stream_not_found}.
stream(Stream, Log) ->
    case Log#log.streams of
        #{Stream := Head} -> {ok, describe(Head)};
        #{} -> {error, stream_not_found}
    end.

-doc "The names of all streams, sorted.".
-spec streams(state()) -> [binary()].
streams(#log{streams = Streams}) -> lists:sort(maps:keys(Streams)).

-doc "The position that the next event gets.".
-spec next_position(state()) -> non_neg_integer().
next_position(#log{order = Order}) -> log_end(Order).

-doc "How often a document was put, and by which command the last time.".
-spec document(document_key(), state()) -> {ok, {pos_integer(), index()}} | {error, not_found}.
document(Key, #log{documents = Documents}) ->
    case gb_trees:lookup(Key, Documents) of
        {value, Entry} -> {ok, Entry};
        none -> {error, not_found}
    end.

-doc "The documents whose keys lie between two keys, both included, in term order.".
-spec documents(document_key(), document_key(), state()) ->
    [{document_key(), {pos_integer(), index()}}].
documents(From, To, #log{documents = Documents}) ->
    documents_to(To, gb_trees:next(gb_trees:iterator_from(From, Documents))).

-spec documents_to(document_key(), none | {document_key(), Entry, gb_trees:iter(_, _)}) ->
    [{document_key(), Entry}].
documents_to(To, {Key, Entry, Iterator}) when Key =< To ->
    [{Key, Entry} | documents_to(To, gb_trees:next(Iterator))];
documents_to(_To, _) ->
    [].

-spec fetch(non_neg_integer(), state()) -> erl_esdb_chunks:fetch().
fetch(No, #log{chunks = Chunks}) -> fun(Number) -> maps:get({No, Number}, Chunks) end.

%% ---- queries on what an engine mirrored

-doc """
Where the events of a window of versions are: forward `From` to `From + Count - 1`, backward
`From` down to `From - Count + 1`, without those that do not exist or were removed.
""".
-spec rows(
    head(),
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    erl_esdb_chunks:fetch()
) -> [span()].
rows(#head{seq = Seq} = Head, From, Count, Direction, Fetch) ->
    case window(From, Count, Direction, Head) of
        {Low, High} when Low > High ->
            [];
        {Low, High} ->
            Start = start(Direction, Low, High),
            Collect = fun(Row, Acc) -> within(Row, Low, High, Acc) end,
            lists:reverse(erl_esdb_chunks:fold(version, Start, Direction, Collect, [], Seq, Fetch))
    end.

-spec window(
    non_neg_integer() | last, non_neg_integer() | infinity, forward | backward, head()
) -> {non_neg_integer(), integer()}.
window(last, Count, Direction, Head) ->
    window(next(Head) - 1, Count, Direction, Head);
window(From, Count, forward, #head{first = First} = Head) when is_integer(Count) ->
    {max(From, First), min(From + Count, next(Head)) - 1};
window(From, infinity, forward, #head{first = First} = Head) ->
    {max(From, First), next(Head) - 1};
window(From, Count, backward, #head{first = First} = Head) when is_integer(Count) ->
    {max(From - Count + 1, First), min(From, next(Head) - 1)};
window(From, infinity, backward, #head{first = First} = Head) ->
    {First, min(From, next(Head) - 1)}.

-spec start(forward | backward, non_neg_integer(), non_neg_integer()) -> non_neg_integer().
start(forward, Low, _High) -> Low;
start(backward, _Low, High) -> High.

-spec within(#row{}, non_neg_integer(), non_neg_integer(), [span()]) -> {next | stop, [span()]}.
within(#row{version = V, count = C} = Row, Low, High, Spans) when V =< High, V + C > Low ->
    {next, [{Row, max(V, Low), min(V + C - 1, High)} | Spans]};
within(_Row, _Low, _High, Spans) ->
    {stop, Spans}.

-doc """
Where the next `Count` events from a position on are, in the order of positions, without those
removed.

`Owner` tells for the number of a stream its name and the first version that is kept. It is asked
once a stream: a stream that is cut in between is seen as it was, and whoever then misses a body
looks again. Throws `removed`, as the caller's fun may that fetches, where a gap was passed and a
stream has been cut in between: then the gap may hide what was there. `last` begins backward with
the newest event.
""".
-spec log_rows(
    erl_esdb_chunks:seq(),
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    Owner :: fun((pos_integer()) -> {binary(), non_neg_integer()} | gone),
    erl_esdb_chunks:fetch()
) -> [{binary(), span()}].
log_rows(_Order, _From, 0, _Direction, _Owner, _Fetch) ->
    [];
log_rows(Order, last, Count, Direction, Owner, Fetch) ->
    log_rows(Order, max(0, log_end(Order) - 1), Count, Direction, Owner, Fetch);
log_rows(Order, From, Count, Direction, Owner, Fetch) ->
    Collect = fun(#row{stream = No} = Row, {Owners, Sum}) ->
        Owners1 = asked(No, Owner, Owners),
        {Next, Sum1} = log_row(Row, From, Direction, maps:get(No, Owners1), Sum),
        {Next, {Owners1, Sum1}}
    end,
    Start = {#{}, {Count, []}},
    {{Owners, {_, Found}}, Passed} =
        erl_esdb_chunks:walk(position, From, Direction, Collect, Start, Order, Fetch),
    Passed andalso check_owners(Owners, Owner),
    lists:reverse(Found).

-spec check_owners(#{pos_integer() => Is}, fun((pos_integer()) -> Is)) -> true.
check_owners(Owners, Owner) ->
    maps:foreach(fun(No, Was) -> Owner(No) =:= Was orelse throw(removed) end, Owners),
    true.

-spec asked(pos_integer(), fun((pos_integer()) -> Owner), #{pos_integer() => Owner}) ->
    #{pos_integer() => Owner}.
asked(No, _Owner, Owners) when is_map_key(No, Owners) -> Owners;
asked(No, Owner, Owners) -> Owners#{No => Owner(No)}.

-spec log_row(
    #row{}, non_neg_integer(), forward | backward, {binary(), non_neg_integer()} | gone, Sum
) -> {next | stop, Sum} when
    Sum :: {Left :: non_neg_integer() | infinity, [{binary(), span()}]}.
log_row(Row, From, Direction, Owner, {Left, Spans}) ->
    {Low, High} = versions_from(From, Direction, Row),
    case Owner of
        {Name, First} when First =< High ->
            take(Name, {Row, max(Low, First), High}, Direction, Left, Spans);
        _Removed ->
            {next, {Left, Spans}}
    end.

%% The versions of a row that lie from the position on.
-spec versions_from(non_neg_integer(), forward | backward, #row{}) ->
    {non_neg_integer(), non_neg_integer()}.
versions_from(From, forward, #row{version = V, count = C, position = P}) ->
    {V + max(0, From - P), V + C - 1};
versions_from(From, backward, #row{version = V, count = C, position = P}) ->
    {V, V + min(C - 1, From - P)}.

-spec take(binary(), span(), forward | backward, Left, Spans) -> {next | stop, {Left, Spans}} when
    Left :: non_neg_integer() | infinity, Spans :: [{binary(), span()}].
take(Name, {_Row, Low, High} = Span, _Direction, Left, Spans) when Left > High - Low + 1 ->
    {next, {less(Left, High - Low + 1), [{Name, Span} | Spans]}};
take(Name, {Row, Low, _High}, forward, Left, Spans) ->
    {stop, {0, [{Name, {Row, Low, Low + Left - 1}} | Spans]}};
take(Name, {Row, _Low, High}, backward, Left, Spans) ->
    {stop, {0, [{Name, {Row, High - Left + 1, High}} | Spans]}}.

%% Every atom is greater than every number.
-spec less(non_neg_integer() | infinity, pos_integer()) -> non_neg_integer() | infinity.
less(infinity, _) -> infinity;
less(Left, Taken) when is_integer(Left), is_integer(Taken) -> Left - Taken.

-doc "What is known of the stream with this head.".
-spec describe(head()) -> info().
describe(#head{no = No, first = First, seq = Seq} = Head) ->
    #row{epoch_us = Time} = erl_esdb_chunks:last(Seq),
    #{no => No, first => First, next => next(Head), epoch_us => Time}.

-doc "The first version that is kept.".
-spec first(head()) -> non_neg_integer().
first(#head{first = First}) -> First.

-doc "The number of the stream.".
-spec no(head()) -> pos_integer().
no(#head{no = No}) -> No.

-doc "The position after the last event of an order.".
-spec log_end(erl_esdb_chunks:seq()) -> non_neg_integer().
log_end(Order) ->
    #row{position = Position, count = Count} = erl_esdb_chunks:last(Order),
    Position + Count.

-spec next(head()) -> non_neg_integer().
next(#head{seq = Seq}) ->
    #row{version = Version, count = Count} = erl_esdb_chunks:last(Seq),
    Version + Count.

-doc "The version of the first event of a row.".
-spec first_version(#row{}) -> non_neg_integer().
first_version(#row{version = Version}) -> Version.

-doc "The position after the last event of a span.".
-spec after_span(span()) -> integer().
after_span({#row{version = Version, position = Position}, _From, To}) when
    is_integer(Version), is_integer(Position), is_integer(To)
->
    Position + To - Version + 1.
