-module(erl_esdb_log).
-moduledoc """
The state machine of a store: versions, positions, conditions, indexes, documents, metadata. Pure.

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

## What an append is asked

In this order, and the first that says no is the answer; nothing has changed then.

0. Where it is sent again (`repeat`): whether it can be told if it was done. It cannot where events
   of the stream were removed since it was sent first, or its ids are not remembered any more.
1. With expectation -2 or -4: whether the stream has seen its ids lately (`ids`). What is found are
   candidates, `{seen, Spans}`: whoever sent the command compares the ids, and sends it again with
   `known` where they are others.
2. Its expectation.
3. Its tip: 32 bytes that it brings and that the next append has to name, `tip_moved` otherwise.
4. Its condition: an append after the position up to which the sender has looked may have brought
   what must not be there (`stale`: look again), or it was found already.

An append to several streams is done when all of its parts may be, under one index.

An engine that answers reads from other processes than the one that applies commands mirrors the
effects, in their order, into tables: whoever looks from the stream or the log downwards then
finds everything it names, or finds that it was removed in between and looks again. `rows/5` and
`log_rows/6` work on either.
""".

-export([new/0, new/1, new/2, rest/1, on/2, is_state/1, order/1, seen/1]).
-export([apply/3, is_command/1, pending/1]).
-export([read/5, read_log/4, stream/2, streams/1, next_position/1, document/2, documents/3]).
-export([metadata/2, checkpoint/2]).
-export([rows/5, log_rows/6, view/4, describe/1, first/1, no/1, log_end/1]).
-export([first_version/1, after_span/1, before_span/1]).
-export_type([state/0, command/0, reply/0, effect/0, index/0, head/0, expected/0, span/0]).
-export_type([document_key/0, chunk_key/0, info/0, limits/0, summary/0, condition/0, refusal/0]).
-export_type([appended/0, checkpoints/0, tip/0, metadata/0, owner/0, sight/0, base/0, table/0]).

-include("erl_esdb_log.hrl").

-import(erl_esdb_args, [all/2, is_natural/1, less/2]).

%% Appends that are erased at a time: in the memory engine the work of a millisecond, at most a few.
-define(SLICE, 256).
%% Bytes of a tip.
-define(TIP, 32).

-record(head, {
    %% number of the stream
    no :: pos_integer(),
    %% first version that is kept
    first = 0 :: non_neg_integer(),
    %% first version since it was made, or made again after a tombstone
    base = 0 :: non_neg_integer(),
    %% the tip that it had then
    base_tip = none :: tip(),
    tip = none :: tip(),
    %% the first version that came with a tip
    signed = none :: none | non_neg_integer(),
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
    %% what is kept by keys; with a base, what the command changes that is applied
    kept = #{} :: #{{table(), Key :: term()} => Value :: term() | gone},
    base = none :: none | base(),
    %% all appends in the order of positions
    order = erl_esdb_chunks:new() :: erl_esdb_chunks:seq(),
    %% how many rows of a chunk of the order are erased, until all are
    erased = #{} :: #{erl_esdb_chunks:chunk_no() => pos_integer()},
    removals = queue:new() :: queue:queue(#removal{}),
    %% of how many rows of an append to several streams nothing is left, until it is all
    shared = #{} :: #{index() => pos_integer()},
    next_no = 1 :: pos_integer(),
    %% the appends of a stream among which ids are looked for
    appends :: non_neg_integer(),
    seen :: erl_esdb_seen:seen(),
    recent :: erl_esdb_recent:recent(),
    removed = erl_esdb_removals:new() :: erl_esdb_removals:removals()
}).

-opaque state() :: #log{}.
-doc """
What the machine keeps by keys: `streams` heads and `tombs` heads by names, `names` by numbers of
streams, `metadata` by names of streams, `chunks`, `documents`, `checkpoints`, and `seen`: what
`m:erl_esdb_seen` remembers, which is all in the machine, too.
""".
-type table() :: streams | tombs | names | metadata | chunks | documents | checkpoints | seen.
-doc "Looks up what an engine has in its tables.".
-type base() :: fun((table(), Key :: term()) -> {ok, Value :: term()} | none).
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
-doc """
What is remembered: hashes of ids in all, appends of a stream among which an id is found, appends
that a condition is checked against.
""".
-type limits() :: #{
    idempotence_window => non_neg_integer(),
    idempotence_appends => non_neg_integer(),
    condition_window => non_neg_integer(),
    _ => _
}.
-doc "Of all that a stream's chain of hashes holds so far.".
-type tip() :: none | <<_:256>>.
-doc "What of a stream may be seen; `max_age` in microseconds.".
-type metadata() :: #{
    max_age => pos_integer(), max_count => pos_integer(), truncate_before => non_neg_integer()
}.
-doc """
What the machine needs to know of the events of an append: how many there are and when they came,
the hashes of their ids and of their types and tags. And what is asked of it: `known` are first
versions of appends that have other ids. `repeat`: the command may have been done before, but by
none up to this index.
""".
-type summary() :: #{
    count := non_neg_integer(),
    epoch_us := integer(),
    ids => [erl_esdb_seen:hash()],
    known => [non_neg_integer()],
    repeat => non_neg_integer(),
    facts => erl_esdb_recent:facts(),
    tip => {Known :: tip(), New :: <<_:256>>},
    condition => condition()
}.
-doc "Nothing up to a position matches; or what matches, which is refused if nothing else is.".
-type condition() ::
    {evaluated, UpTo :: integer(), erl_esdb_recent:query()} | {failed, non_neg_integer()}.
-type command() ::
    {append, Stream :: binary(), expected(), Packed :: binary(), summary()}
    | {append_many, [{Stream :: binary(), expected(), Packed :: binary(), summary()}], #{
        condition => condition()
    }}
    | {truncate, Stream :: binary(), Before :: non_neg_integer()}
    | {truncate, Stream :: binary(), Before :: non_neg_integer(), sight()}
    | {delete, Stream :: binary()}
    | {tombstone, Stream :: binary()}
    | {set_metadata, Stream :: binary(), metadata()}
    | sweep
    | {put_document, document_key(), Body :: binary()}
    | {delete_document, document_key()}
    | {checkpoint, checkpoints()}.
-doc "The number of the stream that the sender looked at, and its next version where that matters.".
-type sight() :: #{no := pos_integer(), next => non_neg_integer()}.
-doc "What to keep under which key; `delete` keeps nothing.".
-type checkpoints() :: #{Key :: term() => Value :: delete | term()}.
-type appended() :: {
    Version :: integer(), Position :: non_neg_integer() | undefined, Count :: non_neg_integer()
}.
-doc "Why an append is not done.".
-type refusal() ::
    {seen, [{From :: non_neg_integer(), To :: non_neg_integer()}, ...]}
    | {wrong_expected_version, expected(), Actual :: integer()}
    | tip_moved
    | forgotten.
-type reply() ::
    {ok, appended()}
    | {ok, [appended()]}
    | {ok, {From :: non_neg_integer(), Before :: non_neg_integer()}}
    | {ok, DocumentVersion :: pos_integer()}
    | ok
    | {error, refusal() | {refused, [ok | refusal()]}}
    | {error, stale | {condition_failed, Position :: non_neg_integer()}}
    | {error, stream_not_found | stream_replaced | stream_moved}.
-type effect() ::
    {live | dead, [index()]}
    | {stream, binary(), head()}
    | {no_stream, binary(), head()}
    | {tomb, binary(), head()}
    | {no_tomb, binary()}
    | {metadata, binary(), metadata()}
    | {no_metadata, binary()}
    | {order, erl_esdb_chunks:seq()}
    | {chunk, chunk_key(), erl_esdb_chunks:chunk()}
    | {no_chunk, chunk_key()}
    | {document, document_key(), {pos_integer(), index()}}
    | {no_document, document_key()}
    | {checkpoint, Saved :: checkpoints(), Gone :: [Key :: term()]}
    | {seen, [erl_esdb_seen:entry()], Forgotten :: [erl_esdb_seen:entry()]}.
-doc "A row and which of its versions are meant.".
-type span() :: {#row{}, From :: non_neg_integer(), To :: non_neg_integer()}.
-doc """
`first`: the first version that is kept and may be seen; `next`: the version of the next event;
`base`: the first version since the stream was made, or made again after a tombstone, and
`base_tip` the tip that it had then; `signed`: the
first version that came with a tip.
""".
-type info() :: #{
    no := pos_integer(),
    first := non_neg_integer(),
    base := non_neg_integer(),
    base_tip := tip(),
    next := non_neg_integer(),
    epoch_us := integer(),
    tip := tip(),
    signed := none | non_neg_integer()
}.
-doc "Of a stream its name, the first version that is kept, and the first that may be seen.".
-type owner() :: {binary(), Kept :: non_neg_integer(), Seen :: non_neg_integer()} | gone.
-type part() :: {binary(), expected(), summary(), head() | absent}.

-doc "The empty machine, with the limits of a store that has no others.".
-spec new() -> state().
new() -> new(#{}).

-doc """
The empty machine. Limits: `idempotence_window` (100,000), `idempotence_appends` (1,000),
`condition_window` (100,000). The same for all machines that are to agree.
""".
-spec new(limits()) -> state().
new(Limits) ->
    #log{
        appends = maps:get(idempotence_appends, Limits, 1000),
        seen = erl_esdb_seen:new(maps:get(idempotence_window, Limits, 100_000)),
        recent = erl_esdb_recent:new(maps:get(condition_window, Limits, 100_000))
    }.

-doc """
The empty machine of an engine that has what is kept by keys in tables of its own: it mirrors the
effects of a command into them before it applies the next one, to `rest/1` of what came out.

That way the machine itself stays small however many streams there are: it holds the last appends of
all, what is about to be erased, and what is remembered of ids and facts.
""".
-spec new(limits(), base()) -> state().
new(Limits, Base) -> (new(Limits))#log{base = Base}.

-doc "The machine without what its effects have told to keep in tables.".
-spec rest(state()) -> state().
rest(#log{base = none} = Log) -> Log;
rest(Log) -> Log#log{kept = #{}}.

-doc """
The same machine on other tables; `none`: on none, as it is to be written to a disk. What it has to
keep by keys must have been mirrored; `order/1` and `seen/1` are what it has itself, and tables that
are filled anew are to be told.
""".
-spec on(base() | none, state()) -> state().
on(Base, #log{} = Log) -> Log#log{base = Base, kept = #{}}.

-doc """
Whether a term has the fields of a state: one that was written by another version of this module may
have others.
""".
-spec is_state(term()) -> boolean().
is_state(#log{} = Log) ->
    lists:all(fun is_like/1, lists:zip(tuple_to_list(new()), tuple_to_list(Log)));
is_state(_) ->
    false.

%% Of what other modules keep in it: a record of the same name and size.
-spec is_like({Known :: term(), term()}) -> boolean().
is_like({Known, Field}) when is_tuple(Known), is_atom(element(1, Known)) ->
    is_tuple(Field) andalso tuple_size(Field) =:= tuple_size(Known) andalso
        element(1, Field) =:= element(1, Known);
is_like(_) ->
    true.

-doc "All appends in the order of positions.".
-spec order(state()) -> erl_esdb_chunks:seq().
order(#log{order = Order}) -> Order.

-doc "What is remembered of ids, the oldest first: of one key the last entry counts.".
-spec seen(state()) -> [erl_esdb_seen:entry()].
seen(#log{seen = Seen}) -> erl_esdb_seen:entries(Seen).

-doc """
Applies one command.

The reply of an append is `{Version, Position, Count}` of its last event; an empty one answers the
stream's version and `undefined`. One to several streams answers a list of them in its own order, or
what each part would have been answered. A truncation answers which versions it removed, from the
first to before the second. What is dead need never be read again; an index never comes back to
life.
""".
-spec apply(index(), command(), state()) -> {reply(), [effect()], state()}.
apply(Index, {append, Stream, Expected, _Packed, Summary}, Log) ->
    Part = {Stream, Expected, Summary, head_of(Stream, Log)},
    maybe
        ok ?= may(Part, Log),
        ok ?= holds(Summary, Log),
        {Reply, Effects, Log1} = append_part(Part, {Index, 1}, Log),
        {{ok, Reply}, ordered(Index, Effects, Log1), Log1}
    else
        Refusal -> {{error, Refusal}, [], Log}
    end;
apply(Index, {append_many, Given, Common}, Log) ->
    Parts = [
        {Stream, Expected, Summary, head_of(Stream, Log)}
     || {Stream, Expected, _Packed, Summary} <- Given
    ],
    maybe
        ok ?= may_all(Parts, Log),
        ok ?= holds(Common, Log),
        {Replies, Effects, Log1} = append(Parts, Index, Log),
        {{ok, Replies}, Effects, Log1}
    else
        Refusal -> {{error, Refusal}, [], Log}
    end;
apply(Index, {truncate, Stream, Before}, Log) ->
    case look(streams, Stream, Log) of
        {ok, Head} -> removing(Index, Stream, truncate(Stream, Head, Before, Log));
        none -> {{error, stream_not_found}, [], Log}
    end;
%% Only where the stream is still what the sender has looked at.
apply(Index, {truncate, Stream, Before, Sight}, Log) ->
    case is_same(head_of(Stream, Log), Sight) of
        true -> ?MODULE:apply(Index, {truncate, Stream, Before}, Log);
        Other -> {{error, Other}, [], Log}
    end;
apply(Index, {delete, Stream}, Log) ->
    {Effects, Log1} = delete(Stream, Log),
    {Forgotten, Log2} = keep_metadata(Stream, #{}, Log1),
    removing(Index, Stream, {ok, Effects ++ Forgotten, Log2});
apply(Index, {tombstone, Stream}, Log) ->
    case look(streams, Stream, Log) of
        {ok, Head} -> removing(Index, Stream, bury(Stream, Head, Log));
        none -> {ok, [], Log}
    end;
apply(_Index, {set_metadata, Stream, Metadata}, Log) ->
    {Effects, Log1} = keep_metadata(Stream, Metadata, Log),
    {ok, Effects, Log1};
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
is_command({append, Stream, Expected, Packed, Summary}) ->
    is_part({Stream, Expected, Packed, Summary}) andalso is_condition(Summary);
is_command({append_many, [_ | _] = Parts, #{} = Common}) ->
    all(fun is_part/1, Parts) andalso is_condition(Common) andalso
        length(lists:usort([element(1, Part) || Part <- Parts])) =:= length(Parts);
is_command({truncate, Stream, Before}) ->
    is_binary(Stream) andalso is_natural(Before);
is_command({truncate, Stream, Before, #{no := No} = Sight}) ->
    is_binary(Stream) andalso is_natural(Before) andalso is_natural(No) andalso
        is_natural(maps:get(next, Sight, 0));
is_command({delete, Stream}) ->
    is_binary(Stream);
is_command({tombstone, Stream}) ->
    is_binary(Stream);
is_command({set_metadata, Stream, Metadata}) ->
    is_binary(Stream) andalso is_metadata(Metadata);
is_command({put_document, Key, Body}) ->
    is_tuple(Key) andalso is_binary(Body);
is_command({delete_document, Key}) ->
    is_tuple(Key);
is_command({checkpoint, Values}) ->
    is_map(Values);
is_command(Other) ->
    Other =:= sweep.

-spec is_part(term()) -> boolean().
is_part({Stream, Expected, Packed, #{count := Count, epoch_us := Time} = Summary}) ->
    is_binary(Stream) andalso is_integer(Expected) andalso is_binary(Packed) andalso
        is_natural(Count) andalso is_integer(Time) andalso is_tip(Summary) andalso
        is_naturals(maps:get(ids, Summary, [])) andalso
        is_naturals(maps:get(known, Summary, [])) andalso
        is_natural(maps:get(repeat, Summary, 0)) andalso
        is_facts(maps:get(facts, Summary, any));
is_part(_) ->
    false.

-spec is_tip(map()) -> boolean().
is_tip(#{tip := {none, <<_:?TIP/binary>>}}) -> true;
is_tip(#{tip := {<<_:?TIP/binary>>, <<_:?TIP/binary>>}}) -> true;
is_tip(Summary) -> not is_map_key(tip, Summary).

-spec is_facts(term()) -> boolean().
is_facts(Facts) -> Facts =:= any orelse (is_binary(Facts) andalso byte_size(Facts) rem 4 =:= 0).

-spec is_condition(map()) -> boolean().
is_condition(#{condition := {evaluated, Position, Query}}) ->
    is_integer(Position) andalso all(fun is_item/1, Query);
is_condition(#{condition := {failed, Position}}) ->
    is_natural(Position);
is_condition(Map) ->
    not is_map_key(condition, Map).

-spec is_item(term()) -> boolean().
is_item({Types, Tags}) ->
    (Types =:= any orelse is_naturals(Types)) andalso is_naturals(Tags);
is_item(_) ->
    false.

-spec is_naturals(term()) -> boolean().
is_naturals(Values) -> all(fun erl_esdb_args:is_natural/1, Values).

-spec is_metadata(term()) -> boolean().
is_metadata(#{} = Metadata) ->
    [] =:= [Key || Key := Value <- Metadata, not is_limit(Key, Value)];
is_metadata(_) ->
    false.

-spec is_limit(term(), term()) -> boolean().
is_limit(truncate_before, Value) -> is_natural(Value);
is_limit(Key, Value) when Key =:= max_age; Key =:= max_count -> is_natural(Value) andalso Value > 0;
is_limit(_, _) -> false.

-doc "Whether there is something to erase for the command `sweep`.".
-spec pending(state()) -> boolean().
pending(#log{removals = Removals}) -> not queue:is_empty(Removals).

%% ---- whether an append may be done

-spec may_all([part()], state()) -> ok | {refused, [ok | refusal()]}.
may_all(Parts, Log) ->
    Answers = [may(Part, Log) || Part <- Parts],
    case lists:all(fun(Answer) -> Answer =:= ok end, Answers) of
        true -> ok;
        false -> {refused, Answers}
    end.

-spec may(part(), state()) -> ok | refusal().
may({Stream, Expected, Summary, Head}, Log) ->
    maybe
        ok ?= remembered(Stream, Expected, Summary, Log),
        ok ?= unseen(Expected, Head, Summary, Log),
        ok ?= meets(Expected, version(Head)),
        continues(Stream, Head, Summary, Log)
    end.

%% Whether what is here tells if a command that is sent again was done: all of what it brought would
%% still be there, and its ids be known, where they are what it is recognised by.
-spec remembered(binary(), expected(), summary(), state()) -> ok | forgotten.
remembered(Stream, Expected, #{repeat := Since}, #log{seen = Seen, removed = Removed}) ->
    IsForgotten = Expected < -1 andalso Since < erl_esdb_seen:since(Seen),
    case IsForgotten orelse erl_esdb_removals:is_since(Since, Stream, Removed) of
        true -> forgotten;
        false -> ok
    end;
remembered(_Stream, _Expected, _Summary, _Log) ->
    ok.

-spec unseen(expected(), head() | absent, summary(), state()) -> ok | {seen, [{_, _}, ...]}.
unseen(Expected, #head{no = No} = Head, #{ids := [_ | _] = Ids} = Summary, Log) when
    Expected < -1
->
    Found = [V || Key <- erl_esdb_seen:keys(No, Ids), {ok, V} <- [look(seen, Key, Log)]],
    case lists:usort(Found) -- maps:get(known, Summary, []) of
        [] -> ok;
        Versions -> kept(Versions, Head, Summary, Log)
    end;
unseen(_Expected, _Head, _Summary, _Log) ->
    ok.

%% Which of these appends are kept, at least in part, and are among the latest of the stream. What
%% came since a command that is sent again was sent first may be what it did itself: that counts
%% however much came after it.
-spec kept([non_neg_integer()], head(), summary(), state()) -> ok | {seen, [{_, _}, ...]}.
kept(Versions, #head{first = First} = Head, Summary, Log) ->
    Own = [Row || #{repeat := Since} <- [Summary], Row <- rows_since(Since, Versions, Head, Log)],
    Others = Versions -- [Version || #row{version = Version} <- Own],
    Spans = [{V, V + C - 1} || #row{version = V, count = C} <- Own, V + C > First],
    case Spans ++ latest(Others, Head, Log) of
        [] -> ok;
        Found -> {seen, Found}
    end.

%% Of the appends that begin with these versions those of later commands, where they are kept.
-spec rows_since(index() | 0, [non_neg_integer()], head(), state()) -> [#row{}].
rows_since(Since, Versions, #head{no = No, seq = Seq}, Log) ->
    Look = fun(#row{version = V, index = Index} = Row, {Wanted, Found}) ->
        {stop, {Wanted, [Row || V =:= Wanted, Index > Since] ++ Found}}
    end,
    Rows = fun(V) ->
        element(2, erl_esdb_chunks:fold(version, V, forward, Look, {V, []}, Seq, fetch(No, Log)))
    end,
    lists:flatmap(Rows, Versions).

-spec latest([non_neg_integer()], head(), state()) -> [{non_neg_integer(), non_neg_integer()}].
latest([], _Head, _Log) ->
    [];
latest(Versions, #head{no = No, first = First, seq = Seq}, #log{appends = Most} = Log) ->
    Look = fun
        (_Row, {Left, Wanted, Spans}) when Left =:= 0; Wanted =:= [] ->
            {stop, {Left, Wanted, Spans}};
        (#row{version = V, count = C}, {Left, Wanted, Spans}) ->
            Found = [{V, V + C - 1} || lists:member(V, Wanted), V + C > First],
            {next, {Left - 1, lists:delete(V, Wanted), Found ++ Spans}}
    end,
    Start = {Most, Versions, []},
    #row{version = Last} = erl_esdb_chunks:last(Seq),
    {_, _, Spans} =
        erl_esdb_chunks:fold(version, Last, backward, Look, Start, Seq, fetch(No, Log)),
    Spans.

-spec meets(expected(), Actual :: integer()) ->
    ok | {wrong_expected_version, expected(), integer()}.
meets(-2, _) -> ok;
meets(-4, Actual) when Actual >= 0 -> ok;
meets(Actual, Actual) -> ok;
meets(Expected, Actual) -> {wrong_expected_version, Expected, Actual}.

-spec version(head() | absent) -> integer().
version(absent) -> -1;
version(Head) -> next(Head) - 1.

-spec continues(binary(), head() | absent, summary(), state()) -> ok | tip_moved.
continues(Stream, absent, #{tip := _} = Summary, Log) ->
    case look(tombs, Stream, Log) of
        {ok, Head} -> continues(Stream, Head, Summary, Log);
        none -> continued(none, Summary)
    end;
continues(_Stream, #head{tip = Tip}, #{tip := _} = Summary, _Log) ->
    continued(Tip, Summary);
continues(_Stream, _Head, _Summary, _Log) ->
    ok.

-spec continued(tip(), summary()) -> ok | tip_moved.
continued(Tip, #{tip := {Tip, _}}) -> ok;
continued(_Tip, _Summary) -> tip_moved.

-spec holds(#{condition => condition(), _ => _}, state()) ->
    ok | stale | {condition_failed, non_neg_integer()}.
holds(#{condition := {failed, Position}}, _Log) ->
    {condition_failed, Position};
holds(#{condition := {evaluated, Position, Query}}, #log{recent = Recent}) ->
    case erl_esdb_recent:may_match(Position, Query, Recent) of
        true -> stale;
        false -> ok
    end;
holds(#{}, _Log) ->
    ok.

%% ---- appends

-spec append([part()], index(), state()) -> {[appended()], [effect()], state()}.
append(Parts, Index, Log) ->
    Rows = length([Stream || {Stream, _, #{count := Count}, _} <- Parts, Count > 0]),
    Append = fun(Part, {Sum, Effects}) ->
        {Reply, New, Sum1} = append_part(Part, {Index, Rows}, Sum),
        {Reply, {Sum1, [New | Effects]}}
    end,
    {Replies, {Log1, Effects}} = lists:mapfoldl(Append, {Log, []}, Parts),
    {Replies, ordered(Index, lists:append(lists:reverse(Effects)), Log1), Log1}.

%% Whoever looks from the order downwards sees all parts of an append, or none.
-spec ordered(index(), [effect()], state()) -> [effect()].
ordered(_Index, [], _Log) -> [];
ordered(Index, Effects, #log{order = Order}) -> [{live, [Index]} | Effects] ++ [{order, Order}].

-spec append_part(part(), {index(), non_neg_integer()}, state()) ->
    {appended(), [effect()], state()}.
append_part({_, _, #{count := 0}, Found}, _, Log) ->
    {{version(Found), undefined, 0}, [], Log};
append_part({Stream, _, Summary, Found}, {Index, Rows}, Log) ->
    {#head{seq = Seq} = Head, Revived, Log1} = head(Stream, Found, Log),
    #{count := Count, epoch_us := Time} = Summary,
    #row{epoch_us = LastTime} = erl_esdb_chunks:last(Seq),
    Row = #row{
        index = Index,
        count = Count,
        stream = Head#head.no,
        version = next(Head),
        position = log_end(Log1#log.order),
        epoch_us = max(Time, LastTime),
        parts = Rows
    },
    {Effects, Log2} = append_row(Row, Stream, Head, Summary, Log1),
    Reply = {Row#row.version + Count - 1, Row#row.position + Count - 1, Count},
    {Seen, Log3} = remember(Row, Summary, Log2),
    {Reply, Effects ++ Revived ++ Seen, Log3}.

-spec append_row(#row{}, binary(), head(), summary(), state()) -> {[effect()], state()}.
append_row(Row, Stream, #head{no = No, seq = Seq, tip = Tip} = Head, Summary, Log) ->
    {Seq1, Full1} = erl_esdb_chunks:add(Row, Seq),
    {Order1, Full2} = erl_esdb_chunks:add(Row, Log#log.order),
    {_, Tip1} = maps:get(tip, Summary, {Tip, Tip}),
    Head1 = Head#head{seq = Seq1, tip = Tip1, signed = signed_from(Head, Tip1, Row)},
    Sealed = sealed(No, Full1) ++ sealed(0, Full2),
    Log1 = keep([{streams, Stream, Head1} | chunks(Sealed)], Log#log{order = Order1}),
    {Sealed ++ [{stream, Stream, Head1}], Log1}.

-spec chunks([effect()]) -> [{chunks, chunk_key(), erl_esdb_chunks:chunk()}].
chunks(Effects) -> [{chunks, Key, Chunk} || {chunk, Key, Chunk} <- Effects].

-spec signed_from(head(), tip(), #row{}) -> none | non_neg_integer().
signed_from(#head{signed = none}, Tip, #row{version = Version}) when Tip =/= none -> Version;
signed_from(#head{signed = Signed}, _Tip, _Row) -> Signed.

-spec remember(#row{}, summary(), state()) -> {[effect()], state()}.
remember(#row{count = Count} = Row, Summary, #log{recent = Recent} = Log) ->
    Recent1 = erl_esdb_recent:add(Count, maps:get(facts, Summary, any), Recent),
    saw(Row, maps:get(ids, Summary, []), Log#log{recent = Recent1}).

-spec saw(#row{}, [erl_esdb_seen:hash()], state()) -> {[effect()], state()}.
saw(_Row, [], Log) ->
    {[], Log};
saw(#row{index = Index, stream = No, version = Version}, Ids, #log{seen = Seen} = Log) ->
    Keys = erl_esdb_seen:keys(No, Ids),
    {Seen1, Forgotten} = erl_esdb_seen:add(Index, Version, Keys, Seen),
    New = [{Key, Version} || Key <- Keys],
    {[{seen, New, Forgotten}], saw_here(New, Forgotten, Log#log{seen = Seen1})}.

%% Nobody looks for them again while a command is applied, so tables are told and nothing is kept.
-spec saw_here([erl_esdb_seen:entry()], [erl_esdb_seen:entry()], state()) -> state().
saw_here(New, Forgotten, #log{base = none} = Log) ->
    Log1 = keep([{seen, Key, Version} || {Key, Version} <- New], Log),
    %% Unless a later append brought the same.
    remove([{seen, Key} || {Key, V} <- Forgotten, look(seen, Key, Log1) =:= {ok, V}], Log1);
saw_here(_New, _Forgotten, Log) ->
    Log.

%% The stream that is there, goes on behind its tombstone, or begins.
-spec head(binary(), head() | absent, state()) -> {head(), [effect()], state()}.
head(_Stream, #head{} = Head, Log) -> {Head, [], Log};
head(Stream, absent, Log) -> begun(Stream, look(tombs, Stream, Log), Log).

-spec begun(binary(), {ok, head()} | none, state()) -> {head(), [effect()], state()}.
begun(Stream, {ok, #head{no = No, tip = Tip} = Head}, Log) ->
    Log1 = keep([{names, No, Stream}], remove([{tombs, Stream}], Log)),
    {Head#head{base = next(Head), base_tip = Tip}, [{no_tomb, Stream}], Log1};
begun(Stream, none, #log{next_no = No} = Log) ->
    Head = #head{no = No, seq = erl_esdb_chunks:new()},
    {Head, [], keep([{names, No, Stream}], Log#log{next_no = No + 1})}.

-spec sealed(non_neg_integer(), none | {erl_esdb_chunks:chunk_no(), binary()}) -> [effect()].
sealed(_No, none) -> [];
sealed(No, {Number, Chunk}) -> [{chunk, {No, Number}, Chunk}].

%% ---- removal

%% What was removed is remembered, where something was.
-spec removing(index(), binary(), {reply(), [effect()], state()}) -> {reply(), [effect()], state()}.
removing(_Index, _Stream, {Reply, [], Log}) ->
    {Reply, [], Log};
removing(Index, Stream, {Reply, Effects, #log{removed = Removed} = Log}) ->
    {Reply, Effects, Log#log{removed = erl_esdb_removals:add(Index, Stream, Removed)}}.

-spec truncate(binary(), head(), non_neg_integer(), state()) -> {reply(), [effect()], state()}.
truncate(Stream, #head{first = First} = Head, Before, Log) ->
    case min(Before, next(Head)) of
        Cut when Cut =< First -> {{ok, {First, First}}, [], Log};
        Cut -> truncated(Stream, Head, Cut, Log)
    end.

-spec is_same(head() | absent, sight()) -> true | stream_replaced | stream_moved.
is_same(absent, _) -> true;
is_same(#head{no = Other}, #{no := No}) when Other =/= No -> stream_replaced;
is_same(Head, #{next := Next}) -> next(Head) =:= Next orelse stream_moved;
is_same(_Head, _) -> true.

-spec truncated(binary(), head(), non_neg_integer(), state()) -> {reply(), [effect()], state()}.
truncated(Stream, #head{first = First} = Head, Cut, Log) ->
    {Head1, Removal} = cut(Head, Cut, Log),
    {Effects, Log1} = removed(Removal, keep([{streams, Stream, Head1}], Log)),
    {{ok, {First, Cut}}, [{stream, Stream, Head1} | Effects], Log1}.

-spec cut(head(), non_neg_integer(), state()) -> {head(), #removal{}}.
cut(#head{no = No, first = First, seq = Seq} = Head, Cut, Log) ->
    Seq1 = erl_esdb_chunks:drop_before(version, Cut, Seq, fetch(No, Log)),
    {Keep, _} = erl_esdb_chunks:numbers(Seq1),
    Removal = #removal{no = No, seq = Seq, from = First, before = Cut, keep = Keep},
    {Head#head{first = Cut, seq = Seq1}, Removal}.

%% Its number stays, and with it its versions, its tip and what was seen of it.
-spec bury(binary(), head(), state()) -> {ok, [effect()], state()}.
bury(Stream, Head, Log) ->
    {Head1, Removal} = cut(Head, next(Head), Log),
    Gone = [{streams, Stream}, {names, Head#head.no}],
    Log1 = keep([{tombs, Stream, Head1}], remove(Gone, Log)),
    {Effects, Log2} = removed(Removal, Log1),
    {ok, [{tomb, Stream, Head1}, {no_stream, Stream, Head1} | Effects], Log2}.

-spec delete(binary(), state()) -> {[effect()], state()}.
delete(Stream, Log) ->
    case look(streams, Stream, Log) of
        {ok, #head{no = No} = Head} ->
            Log1 = remove([{streams, Stream}, {names, No}], Log),
            {Effects, Log2} = removed(whole(Head), Log1),
            {[{no_stream, Stream, Head} | Effects], Log2};
        none ->
            delete_tomb(Stream, Log)
    end.

-spec delete_tomb(binary(), state()) -> {[effect()], state()}.
delete_tomb(Stream, Log) ->
    case look(tombs, Stream, Log) of
        {ok, Head} ->
            {Effects, Log1} = removed(whole(Head), remove([{tombs, Stream}], Log)),
            {[{no_tomb, Stream} | Effects], Log1};
        none ->
            {[], Log}
    end.

-spec whole(head()) -> #removal{}.
whole(#head{no = No, first = First, seq = Seq} = Head) ->
    {_, Next} = erl_esdb_chunks:numbers(Seq),
    #removal{no = No, seq = Seq, from = First, before = next(Head), keep = Next}.

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
sweep(#removal{no = No, seq = Seq} = Removal, Rest, Log) ->
    Fetch = fetch(No, Log),
    {Rows, More} = slice(Removal, Fetch),
    {Removals, Before} = left(More, Rows, Removal, Rest, Fetch),
    {First, _} = erl_esdb_chunks:numbers(Seq),
    Keys = [{No, Number} || Number <- lists:seq(First, Before - 1)],
    {Dead, Shared} = lists:foldl(fun dead/2, {[], Log#log.shared}, Rows),
    Swept = remove([{chunks, Key} || Key <- Keys], Log),
    Log1 = Swept#log{removals = Removals, shared = Shared},
    {Gaps, Log2} = erased([Row#row.position || Row <- Rows], Log1),
    %% Whoever meets a gap finds no body of what lay before it in its stream either.
    Bodies = [{dead, lists:reverse(Dead)} || Dead =/= []],
    {Bodies ++ [{no_chunk, Key} || Key <- Keys] ++ Gaps, Log2}.

%% An index is dead with the last of its rows.
-spec dead(#row{}, {[index()], Shared}) -> {[index()], Shared} when
    Shared :: #{index() => pos_integer()}.
dead(#row{index = Index, parts = 1}, {Dead, Shared}) ->
    {[Index | Dead], Shared};
dead(#row{index = Index, parts = Parts}, {Dead, Shared}) ->
    case maps:get(Index, Shared, 0) + 1 of
        Parts -> {[Index | Dead], maps:remove(Index, Shared)};
        Erased -> {Dead, Shared#{Index => Erased}}
    end.

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
gap(Number, {Effects, #log{order = Order} = Log}) ->
    Changed = erl_esdb_chunks:remove(Number, Order, fetch(0, Log)),
    Effects1 = [{chunk, {0, N}, Chunk} || {N, Chunk} <- Changed],
    {Effects ++ Effects1, keep(chunks(Effects1), Log)}.

%% ---- documents

-spec put_document(index(), document_key(), state()) -> {reply(), [effect()], state()}.
put_document(Index, Key, Log) ->
    {Version, Dead} =
        case look(documents, Key, Log) of
            none -> {1, []};
            {ok, {Before, Old}} -> {Before + 1, [{dead, [Old]}]}
        end,
    Entry = {Version, Index},
    Effects = [{live, [Index]}, {document, Key, Entry} | Dead],
    {{ok, Version}, Effects, keep([{documents, Key, Entry}], Log)}.

-spec delete_document(document_key(), state()) -> {reply(), [effect()], state()}.
delete_document(Key, Log) ->
    case look(documents, Key, Log) of
        none ->
            {ok, [], Log};
        {ok, {_Version, Index}} ->
            {ok, [{no_document, Key}, {dead, [Index]}], remove([{documents, Key}], Log)}
    end.

%% ---- metadata

-spec keep_metadata(binary(), metadata(), state()) -> {[effect()], state()}.
keep_metadata(Stream, Metadata, Log) ->
    case look(metadata, Stream, Log) of
        {ok, Metadata} ->
            {[], Log};
        none when map_size(Metadata) =:= 0 ->
            {[], Log};
        {ok, _} when map_size(Metadata) =:= 0 ->
            {[{no_metadata, Stream}], remove([{metadata, Stream}], Log)};
        _ ->
            {[{metadata, Stream, Metadata}], keep([{metadata, Stream, Metadata}], Log)}
    end.

%% ---- checkpoints: small values that change often, kept in the machine itself

-spec checkpoints(checkpoints(), state()) -> {reply(), [effect()], state()}.
checkpoints(Values, Log) ->
    Is = fun(Key, Value) -> look(checkpoints, Key, Log) =:= saved(Value) end,
    Changed = maps:filter(fun(Key, Value) -> not Is(Key, Value) end, Values),
    Gone = [Key || Key := delete <- Changed],
    Saved = maps:without(Gone, Changed),
    Effects = [{checkpoint, Saved, Gone} || map_size(Changed) > 0],
    Log1 = remove([{checkpoints, Key} || Key <- Gone], Log),
    {ok, Effects, keep([{checkpoints, Key, Value} || Key := Value <- Saved], Log1)}.

-spec saved(delete | term()) -> {ok, term()} | none.
saved(delete) -> none;
saved(Value) -> {ok, Value}.

-doc "What is kept under a key of a checkpoint.".
-spec checkpoint(Key :: term(), state()) -> {ok, term()} | {error, not_found}.
checkpoint(Key, Log) ->
    case look(checkpoints, Key, Log) of
        {ok, Value} -> {ok, Value};
        none -> {error, not_found}
    end.

%% ---- what is kept by keys

-spec look(table(), Key :: term(), state()) -> {ok, Value :: term()} | none.
look(Table, Key, #log{kept = Kept, base = Base}) ->
    case Kept of
        #{{Table, Key} := gone} -> none;
        #{{Table, Key} := Value} -> {ok, Value};
        #{} when Base =:= none -> none;
        #{} -> Base(Table, Key)
    end.

-spec head_of(binary(), state()) -> head() | absent.
head_of(Stream, Log) ->
    case look(streams, Stream, Log) of
        {ok, Head} -> Head;
        none -> absent
    end.

-spec keep([{table(), Key :: term(), Value :: term()}], state()) -> state().
keep(Values, #log{kept = Kept} = Log) ->
    Keep = fun({Table, Key, Value}, Sum) -> Sum#{{Table, Key} => Value} end,
    Log#log{kept = lists:foldl(Keep, Kept, Values)}.

%% The tables of an engine have it until they are told.
-spec remove([{table(), Key :: term()}], state()) -> state().
remove(Keys, #log{kept = Kept, base = none} = Log) ->
    Log#log{kept = maps:without(Keys, Kept)};
remove(Keys, Log) ->
    keep([{Table, Key, gone} || {Table, Key} <- Keys], Log).

%% ---- queries on a machine without tables

-doc "Where the events of a window of versions are, also hidden ones: see `rows/5`.".
-spec read(
    binary(),
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    state()
) -> {ok, [span()]} | {error, stream_not_found}.
read(Stream, From, Count, Direction, Log) ->
    case look(streams, Stream, Log) of
        {ok, Head} -> {ok, rows(Head, From, Count, Direction, fetch(Head#head.no, Log))};
        none -> {error, stream_not_found}
    end.

-doc """
Where the events from a position on are, also hidden ones, with the names of their streams: see
`log_rows/6`.
""".
-spec read_log(
    non_neg_integer() | last, non_neg_integer() | infinity, forward | backward, state()
) -> [{binary(), span()}].
read_log(From, Count, Direction, #log{order = Order} = Log) ->
    Owner = fun(No) ->
        case look(names, No, Log) of
            {ok, Name} -> owner(Name, first(head_of(Name, Log)));
            none -> gone
        end
    end,
    log_rows(Order, From, Count, Direction, Owner, fetch(0, Log)).

-spec owner(binary(), First) -> {binary(), First, First} when First :: non_neg_integer().
owner(Name, First) -> {Name, First, First}.

-doc "What is known of a stream.".
-spec stream(binary(), state()) -> {ok, info()} | {error, stream_not_found}.
stream(Stream, Log) ->
    case look(streams, Stream, Log) of
        {ok, Head} -> {ok, describe(Head)};
        none -> {error, stream_not_found}
    end.

-doc "The names of all streams, sorted.".
-spec streams(state()) -> [binary()].
streams(#log{kept = Kept}) -> lists:sort([Stream || {streams, Stream} := _ <- Kept]).

-doc "The position that the next event gets.".
-spec next_position(state()) -> non_neg_integer().
next_position(#log{order = Order}) -> log_end(Order).

-doc "What may be seen of a stream, also of one that is not there.".
-spec metadata(binary(), state()) -> metadata().
metadata(Stream, Log) ->
    case look(metadata, Stream, Log) of
        {ok, Metadata} -> Metadata;
        none -> #{}
    end.

-doc "How often a document was put, and by which command the last time.".
-spec document(document_key(), state()) -> {ok, {pos_integer(), index()}} | {error, not_found}.
document(Key, Log) ->
    case look(documents, Key, Log) of
        {ok, Entry} -> {ok, Entry};
        none -> {error, not_found}
    end.

-doc "The documents whose keys lie between two keys, both included, in term order.".
-spec documents(document_key(), document_key(), state()) ->
    [{document_key(), {pos_integer(), index()}}].
documents(From, To, #log{kept = Kept}) ->
    lists:sort([{Key, Entry} || {documents, Key} := Entry <- Kept, From =< Key, Key =< To]).

-spec fetch(non_neg_integer(), state()) -> erl_esdb_chunks:fetch().
fetch(No, Log) ->
    fun(Number) ->
        {ok, Chunk} = look(chunks, {No, Number}, Log),
        Chunk
    end.

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
rows(#head{seq = Seq} = Head, From, Count, Direction, Fetch) when Count >= 0 ->
    case window(From, Count, Direction, Head) of
        {Low, High} when Low > High ->
            [];
        {Low, High} ->
            Start = start(Direction, Low, High),
            Collect = fun(Row, Acc) -> within(Row, Low, High, Acc) end,
            lists:reverse(erl_esdb_chunks:fold(version, Start, Direction, Collect, [], Seq, Fetch))
    end;
rows(_Head, _From, _Count, _Direction, _Fetch) ->
    error(badarg).

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
The head as one sees it whom the metadata of the stream tells what to see: its first version is the
first that is not before `truncate_before`, not older than `max_age` and among the last `max_count`.
""".
-spec view(head(), metadata(), NowUs :: integer(), erl_esdb_chunks:fetch()) -> head().
view(Head, Metadata, _Now, _Fetch) when map_size(Metadata) =:= 0 ->
    Head;
view(#head{first = First} = Head, Metadata, Now, Fetch) ->
    Firsts = [from(Key, Value, Head, Now, Fetch) || Key := Value <- Metadata],
    Head#head{first = min(next(Head), lists:max([First | Firsts]))}.

-spec from(atom(), non_neg_integer(), head(), integer(), erl_esdb_chunks:fetch()) -> integer().
from(truncate_before, Version, _Head, _Now, _Fetch) ->
    Version;
from(max_count, Count, Head, _Now, _Fetch) ->
    next(Head) - Count;
from(max_age, Age, #head{seq = Seq} = Head, Now, Fetch) ->
    case erl_esdb_chunks:since(Now - Age, Seq, Fetch) of
        #row{version = Version} -> Version;
        none -> next(Head)
    end.

-doc """
Where the next `Count` events from a position on are, in the order of positions, without those
removed or hidden.

`Owner` tells for the number of a stream its `t:owner/0`. It is asked
once a stream: a stream that is cut in between is seen as it was, and whoever then misses a body
looks again. Throws `removed`, as the caller's fun may that fetches, where a gap was passed and a
stream has been cut in between: then the gap may hide what was there. `last` begins backward with
the newest event. A negative count is `badarg`.
""".
-spec log_rows(
    erl_esdb_chunks:seq(),
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    Owner :: fun((pos_integer()) -> owner()),
    erl_esdb_chunks:fetch()
) -> [{binary(), span()}].
log_rows(_Order, _From, 0, _Direction, _Owner, _Fetch) ->
    [];
log_rows(_Order, _From, Count, _Direction, _Owner, _Fetch) when Count < 0 ->
    error(badarg);
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

%% What may be seen moves with the clock and with each append: it tells of no cut.
-spec check_owners(#{pos_integer() => owner()}, fun((pos_integer()) -> owner())) -> true.
check_owners(Owners, Owner) ->
    Check = fun(No, Was) -> uncut(Owner(No), Was) orelse throw(removed) end,
    maps:foreach(Check, Owners),
    true.

-spec uncut(owner(), owner()) -> boolean().
uncut({Name, First, _}, {Name, First, _}) -> true;
uncut(Is, Was) -> Is =:= Was.

-spec asked(pos_integer(), fun((pos_integer()) -> owner()), #{pos_integer() => owner()}) ->
    #{pos_integer() => owner()}.
asked(No, _Owner, Owners) when is_map_key(No, Owners) -> Owners;
asked(No, Owner, Owners) -> Owners#{No => Owner(No)}.

-spec log_row(#row{}, non_neg_integer(), forward | backward, owner(), Sum) ->
    {next | stop, Sum}
when
    Sum :: {Left :: non_neg_integer() | infinity, [{binary(), span()}]}.
log_row(Row, From, Direction, Owner, {Left, Spans}) ->
    {Low, High} = versions_from(From, Direction, Row),
    case Owner of
        {Name, _, First} when First =< High ->
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

-doc "What is known of the stream with this head.".
-spec describe(head()) -> info().
describe(#head{no = No, first = First, base = Base, seq = Seq} = Head) ->
    #row{epoch_us = Time} = erl_esdb_chunks:last(Seq),
    #{
        no => No,
        first => First,
        base => Base,
        base_tip => Head#head.base_tip,
        next => next(Head),
        epoch_us => Time,
        tip => Head#head.tip,
        signed => Head#head.signed
    }.

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

-doc "The position before the first event of a span; -1 where there is none.".
-spec before_span(span()) -> integer().
before_span({#row{version = Version, position = Position}, From, _To}) when
    is_integer(Version), is_integer(Position), is_integer(From)
->
    Position + From - Version - 1.

-doc "The position after the last event of a span.".
-spec after_span(span()) -> integer().
after_span({#row{version = Version, position = Position}, _From, To}) when
    is_integer(Version), is_integer(Position), is_integer(To)
->
    Position + To - Version + 1.
