-module(esdb_filter_nif).
-moduledoc """
Patterns over texts, and predicates over events.

Texts are binaries, and patterns match bytes. A wildcard matches a whole text: `*` is any run of
bytes, `?` exactly one byte (a character of three bytes in UTF-8 takes three), everything else is
itself. A regular expression matches anywhere in a text, in time that grows with the text and never
explodes; its dialect is the table of `doc/guides/patterns.md`.

```erlang
1> esdb_filter_nif:filter_by_wildcard([~"order-1", ~"user-1", ~"order-2"], ~"order-*").
[<<"order-1">>,<<"order-2">>]
2> {ok, Number} = esdb_filter_nif:compile_regex(~"-[0-9]+$").
3> esdb_filter_nif:match_indices([~"order-1", ~"order-x", ~"user-7"], Number).
[0,2]
4> Events = [#{event_type => ~"paid", data => #{amount => N}} || N <- [5, 50, 500]].
5> {ok, Large} = esdb_filter_nif:compile_predicate({gt, amount, 9}).
6> esdb_filter_nif:filter_count(Events, Large).
2
```

Where a pattern is asked for, its text or a handle will do. A handle is made once and asked many
times; it is a value of this node, not to be stored: on another node it works, but may be made again
in each call. A regular expression that is given as text is parsed in each call.

## Predicates

Functions over events take a list of maps, or events that are packed: a segment of
`m:esdb_segment_nif`, one with its dictionary, or a list of these, which counts as one sequence. Of
packed events those are built that are in the answer. A list is one of segments if its first element
is one.

An event is a map, and its data the map under `data`, or the event itself where there is none. A
predicate is one of

| predicate | satisfied when |
|---|---|
| `true`, `false` | always, never |
| `{'and', [P]}`, `{'or', [P]}`, `{'not', P}` | all (also of none), one, it is not |
| `{event_type, T}` | the event has the type T |
| `{eq, Path, V}`, `{neq, Path, V}` | the field equals V, differs from V |
| `{gt, Path, V}`, `gte`, `lt`, `lte` | both are numbers or both are binaries, and in that order |
| `{between, Path, Low, High}` | `gte` Low and `lte` High |
| `{in, Path, [V]}` | the field equals one of the values |
| `{any_of, Path, [V]}` | of a list a member does, of anything else the field itself |
| `{exists, Path}` | there is such a field |
| `{prefix, Path, B}`, `{suffix, Path, B}` | the field is a binary that begins or ends so |
| `{wildcard, Path, W}`, `{regex, Path, R}` | the field is a binary that matches |
| a handle | its predicate is |

A path is a key or a list of keys, into the data; or into the event itself, when its first key is
the atom `stream_id`, `event_type`, `version`, `metadata`, `event_id` or `epoch_us`. `{event, Path}`
and `{data, Path}` say where, whatever the key: `{event, position}`, `{data, version}`. Numbers are
equal by value (1 and 1.0), everything else exactly, and numbers inside lists and maps exactly, too.
A field that is missing satisfies nothing but what is around it with `not`.

## Errors

A predicate that is none, an event that is no map, a list without an end and what is neither events
nor segments raise `badarg`. A predicate is one for packed events, too: with a fun, pid, port or
reference in it, which no stored event has, it is none, also over maps (`{eq, owner, self()}`).

A segment that cannot be read is `{error, Reason}`, with the reasons of
`m:esdb_segment_nif`.
""".

%% Handles
-export([compile_wildcard/1, compile_regex/1, compile_predicate/1, match_set/1]).
%% One text
-export([wildcard_match/2, regex_match/2, has_prefix/2, has_suffix/2]).
-export([is_valid_regex/1, wildcard_to_regex/1]).
%% Lists of texts
-export([filter_by_wildcard/2, filter_by_regex/2, filter_by_prefix/2, filter_by_suffix/2]).
-export([match_indices/2, count_matches/2, match_set_indices/2]).
%% Events
-export([filter_events/2, filter_count/2, partition_events/2, first_match/2, find_all/2]).
-export([any_match/2, all_match/2]).
-export_type([wildcard/0, regex/0, pattern/0, match_set/0, predicate/0, event/0, events/0]).

-nifs([
    make_n/3,
    make_d/3,
    wildcard_n/3,
    wildcard_d/3,
    match_n/2,
    match_d/2,
    filter_n/2,
    filter_d/2,
    indices_n/2,
    indices_d/2,
    count_n/2,
    count_d/2,
    make_set_n/2,
    make_set_d/2,
    set_indices_n/2,
    set_indices_d/2
]).
%% Dialyzer does not know that the library replaces functions, and answers `long` then, or what its
%% handles hold.
-dialyzer({nowarn_function, [is_for_library/1, placed/3, match/2, match_long/2]}).
-dialyzer({nowarn_function, [wildcard_d/3, match_d/2, filter_by_prefix/2, filter_by_suffix/2]}).
%% Nor what it returns in their place; and results that go through a function for all kinds of them
%% are one type to it.
-dialyzer([no_missing_return, no_extra_return]).

%% The pattern itself, and what this node made of it.
-type wildcard() :: binary() | {esdb_wildcard, binary(), term()}.
-type regex() :: binary() | {esdb_regex, Rendering :: binary(), term()}.
-type pattern() :: wildcard() | regex().
-type match_set() :: {esdb_match_set, Canonical :: binary(), term()}.
-type predicate() :: esdb_predicate_erl:predicate() | esdb_predicate_erl:handle().
-type event() :: map().
-type events() :: [event()] | esdb_segment_nif:segments().
-type error() :: {error, esdb_segment_nif:reason()}.
-type handle() :: {esdb_wildcard | esdb_regex, binary(), term()}.
-type made() :: reference() | esdb_filter_erl:kept().

%% More bytes, and texts, than this are not for a normal scheduler, whatever the pattern. With less
%% the library counts what it does, and answers `long` when it should not go on there.
-define(SHORT, 500_000).
%% What one text of a list counts for besides its bytes.
-define(ITEM, 50).
%% An expression with so many instructions is made on a normal scheduler; and wildcards of so many
%% bytes, of which each may be a star.
-define(SHORT_SIZE, 200).
-define(SHORT_PATTERN, 1_000).

-include("esdb_nif.hrl").

%% Handles

-doc "The handle of a wildcard. Every binary is a wildcard; anything else is `badarg`.".
-spec compile_wildcard(Pattern :: wildcard()) -> {ok, wildcard()}.
compile_wildcard(Pattern) ->
    Bytes = text_of(esdb_wildcard, Pattern),
    {ok, {esdb_wildcard, Bytes, made(esdb_wildcard, Bytes, 0)}}.

-doc """
The handle of a regular expression.

## Errors

`{invalid_pattern, {Position, Reason}}`: the place in the pattern, in bytes from 0, and what is
wrong there: see `t:esdb_regex_erl:reason/0`. What is no binary is `badarg`.
""".
-spec compile_regex(Pattern :: regex()) ->
    {ok, regex()} | {error, {invalid_pattern, esdb_regex_erl:mistake()}}.
compile_regex(Pattern) ->
    case esdb_regex_erl:parse(text_of(esdb_regex, Pattern)) of
        {ok, Parsed} -> {ok, regex_handle(Parsed)};
        {error, Mistake} -> {error, {invalid_pattern, Mistake}}
    end.

-doc """
The handle of a predicate.

## Errors

`{invalid_predicate, {Position, Reason}}`: the way to the mistake, and what it is: see
`t:esdb_predicate_erl:mistake/0`. Any term may be given.
""".
-spec compile_predicate(Predicate :: predicate() | term()) ->
    {ok, esdb_predicate_erl:handle()}
    | {error, {invalid_predicate, esdb_predicate_erl:mistake()}}.
compile_predicate(Predicate) ->
    case esdb_predicate_erl:normalise(Predicate) of
        {ok, Normal} -> {ok, esdb_predicate_erl:made(Normal)};
        {error, Mistake} -> {error, Mistake}
    end.

-doc """
The handle of many patterns, to be asked at once: wildcards as text, or handles of either kind.

In the library, wildcards that are literals, `p*` or `*s` are looked up, once for each length that
they have: how many share a length hardly matters. Any other pattern is tried by itself, and so is
every one in Erlang. A list with anything else in it is `badarg`.
""".
-spec match_set(Patterns :: [pattern()] | match_set()) -> {ok, match_set()}.
match_set({esdb_match_set, Canonical, _}) -> {ok, set_handle(set_patterns(Canonical))};
match_set(Patterns) -> {ok, set_handle(each(fun set_pattern/1, Patterns))}.

%% One text

-doc "Whether the whole text matches a wildcard.".
-spec wildcard_match(Text :: binary(), Pattern :: wildcard()) -> boolean().
wildcard_match(Text, Pattern) when is_binary(Text) -> match(Text, wildcard(Pattern));
wildcard_match(_, _) -> error(badarg).

-doc "Whether some part of the text matches a regular expression; an invalid one matches nothing.".
-spec regex_match(Text :: binary(), Pattern :: regex()) -> boolean().
regex_match(Text, Pattern) when is_binary(Text) ->
    case regex(Pattern) of
        invalid -> false;
        Handle -> match(Text, Handle)
    end;
regex_match(_, _) ->
    error(badarg).

-doc "Whether the text begins with `Prefix`.".
-spec has_prefix(Text :: binary(), Prefix :: binary()) -> boolean().
has_prefix(Text, Prefix) when is_binary(Text), is_binary(Prefix) ->
    esdb_filter_erl:has_prefix(Text, Prefix);
has_prefix(_, _) ->
    error(badarg).

-doc "Whether the text ends with `Suffix`.".
-spec has_suffix(Text :: binary(), Suffix :: binary()) -> boolean().
has_suffix(Text, Suffix) when is_binary(Text), is_binary(Suffix) ->
    esdb_filter_erl:has_suffix(Text, Suffix);
has_suffix(_, _) ->
    error(badarg).

-doc "Whether a pattern is a regular expression of the dialect, and not too large.".
-spec is_valid_regex(Pattern :: regex()) -> boolean().
is_valid_regex(Pattern) ->
    case esdb_regex_erl:parse(text_of(esdb_regex, Pattern)) of
        {ok, _} -> true;
        {error, _} -> false
    end.

-doc """
A wildcard as a regular expression, for people to read: nothing here matches with it.

```erlang
1> esdb_filter_nif:wildcard_to_regex(~"orders-*.v?").
<<"^orders-.*\\.v.$">>
```
""".
-spec wildcard_to_regex(Pattern :: wildcard()) -> binary().
wildcard_to_regex(Pattern) -> esdb_wildcard_erl:to_regex(text_of(esdb_wildcard, Pattern)).

%% Lists of texts

-doc "The texts that match a wildcard, in their order. An improper list is `badarg`.".
-spec filter_by_wildcard(Items :: [binary()], Pattern :: wildcard()) -> [binary()].
filter_by_wildcard(Items, Pattern) -> filter(Items, wildcard(Pattern)).

-doc "The texts that match a regular expression, in their order; of an invalid one, none.".
-spec filter_by_regex(Items :: [binary()], Pattern :: regex()) -> [binary()].
filter_by_regex(Items, Pattern) ->
    case regex(Pattern) of
        invalid ->
            _ = weight(Items, 0),
            [];
        Handle ->
            filter(Items, Handle)
    end.

-doc "The texts that begin with `Prefix`, in their order.".
-spec filter_by_prefix(Items :: [binary()], Prefix :: binary()) -> [binary()].
filter_by_prefix(Items, Prefix) when is_binary(Prefix) ->
    case is_for_library(Prefix) of
        true ->
            filter(Items, {esdb_wildcard, <<Prefix/binary, $*>>, none});
        false ->
            _ = weight(Items, 0),
            [Item || Item <- Items, esdb_filter_erl:has_prefix(Item, Prefix)]
    end;
filter_by_prefix(_, _) ->
    error(badarg).

-doc "The texts that end with `Suffix`, in their order.".
-spec filter_by_suffix(Items :: [binary()], Suffix :: binary()) -> [binary()].
filter_by_suffix(Items, Suffix) when is_binary(Suffix) ->
    case is_for_library(Suffix) of
        true ->
            filter(Items, {esdb_wildcard, <<$*, Suffix/binary>>, none});
        false ->
            _ = weight(Items, 0),
            [Item || Item <- Items, esdb_filter_erl:has_suffix(Item, Suffix)]
    end;
filter_by_suffix(_, _) ->
    error(badarg).

-doc "The places of the texts that match, from 0, ascending. A pattern as text is a wildcard.".
-spec match_indices(Items :: [binary()], Pattern :: pattern()) -> [non_neg_integer()].
match_indices(Items, Pattern) ->
    Weight = weight(Items, 0),
    asked(Weight, pattern(Pattern), fun
        (short, Handle) -> indices_n(Items, Handle);
        (long, Handle) -> indices_d(Items, Handle)
    end).

-doc "How many texts match. A pattern as text is a wildcard.".
-spec count_matches(Items :: [binary()], Pattern :: pattern()) -> non_neg_integer().
count_matches(Items, Pattern) ->
    Weight = weight(Items, 0),
    asked(Weight, pattern(Pattern), fun
        (short, Handle) -> count_n(Items, Handle);
        (long, Handle) -> count_d(Items, Handle)
    end).

-doc "For each text the places of the patterns that match it, from 0, ascending.".
-spec match_set_indices(Items :: [binary()], Set :: match_set() | [pattern()]) ->
    [[non_neg_integer()]].
match_set_indices(Items, {esdb_match_set, _, _} = Handle) ->
    Weight = weight(Items, 0),
    asked(Weight, Handle, fun
        (short, Set) -> set_indices_n(Items, Set);
        (long, Set) -> set_indices_d(Items, Set)
    end);
match_set_indices(Items, Patterns) ->
    {ok, Set} = match_set(Patterns),
    match_set_indices(Items, Set).

%% Events

-doc "The events that satisfy a predicate, in their order.".
-spec filter_events(events(), predicate()) -> [event()] | error().
filter_events(Events, Predicate) ->
    case esdb_events_erl:is_packed(Events) of
        true -> packed(esdb_segment_nif:select(Events, Predicate));
        false -> selected(Events, esdb_predicate_erl:test(Predicate), [])
    end.

-doc "How many events satisfy a predicate.".
-spec filter_count(events(), predicate()) -> non_neg_integer() | error().
filter_count(Events, Predicate) ->
    case esdb_events_erl:is_packed(Events) of
        true -> packed(esdb_segment_nif:count_where(Events, Predicate));
        false -> counted(Events, esdb_predicate_erl:test(Predicate), 0)
    end.

-doc "The events that satisfy a predicate, and the others.".
-spec partition_events(events(), predicate()) -> {[event()], [event()]} | error().
partition_events(Events, Predicate) ->
    Test = test(Predicate),
    over_maps(Events, fun(Maps) -> lists:partition(Test, Maps) end).

-doc "The first event that satisfies a predicate.".
-spec first_match(events(), predicate()) -> {ok, event()} | not_found | error().
first_match(Events, Predicate) ->
    case esdb_events_erl:is_packed(Events) of
        true -> packed(esdb_segment_nif:first(Events, Predicate));
        false -> searched(test(Predicate), list(Events))
    end.

-doc """
The events that satisfy a predicate, each with its place from 0.

All events of a segment are built for this: `filter_events/2` builds only those that it returns.
""".
-spec find_all(events(), predicate()) -> [{non_neg_integer(), event()}] | error().
find_all(Events, Predicate) ->
    Test = test(Predicate),
    over_maps(Events, fun(Maps) ->
        [Found || {_, Event} = Found <- lists:enumerate(0, Maps), Test(Event)]
    end).

-doc "Whether some event satisfies a predicate.".
-spec any_match(events(), predicate()) -> boolean() | error().
any_match(Events, Predicate) ->
    case first_match(Events, Predicate) of
        {ok, _} -> true;
        not_found -> false;
        {error, Reason} -> {error, Reason}
    end.

-doc "Whether all events satisfy a predicate; those of an empty list do.".
-spec all_match(events(), predicate()) -> boolean() | error().
all_match(Events, Predicate) ->
    case esdb_events_erl:is_packed(Events) of
        true -> all_of_packed(Events, filter_count(Events, Predicate));
        false -> lists:all(test(Predicate), list(Events))
    end.

-spec all_of_packed(esdb_segment_nif:segments(), non_neg_integer() | error()) ->
    boolean() | error().
all_of_packed(_, {error, Reason}) ->
    {error, Reason};
all_of_packed(Segments, Count) when is_list(Segments) ->
    %% Each can be read: that has just been done.
    Count =:= lists:sum([esdb_segment_nif:count(Segment) || Segment <- Segments]);
all_of_packed(Segment, Count) ->
    Count =:= esdb_segment_nif:count(Segment).

%% With what is no map refused.
-spec test(predicate()) -> fun((event()) -> boolean()).
test(Predicate) ->
    Test = esdb_predicate_erl:test(Predicate),
    fun(Event) -> esdb_predicate_erl:matches(Test, Event) end.

-spec selected([event()] | term(), esdb_predicate_erl:test(), [event()]) -> [event()].
selected([#{} = Event | Events], Test, Found) ->
    case Test(Event) of
        true -> selected(Events, Test, [Event | Found]);
        false -> selected(Events, Test, Found)
    end;
selected([], _, Found) ->
    lists:reverse(Found);
selected(_, _, _) ->
    error(badarg).

-spec counted([event()] | term(), esdb_predicate_erl:test(), non_neg_integer()) ->
    non_neg_integer().
counted([#{} = Event | Events], Test, Count) ->
    case Test(Event) of
        true -> counted(Events, Test, Count + 1);
        false -> counted(Events, Test, Count)
    end;
counted([], _, Count) ->
    Count;
counted(_, _, _) ->
    error(badarg).

-spec searched(fun((event()) -> boolean()), [event()]) -> {ok, event()} | not_found.
searched(Test, Events) ->
    case lists:search(Test, Events) of
        {value, Event} -> {ok, Event};
        false -> not_found
    end.

%% Where all events have to be built anyway.
-spec over_maps(events() | term(), fun(([event()]) -> X)) -> X | error().
over_maps(Events, Fun) ->
    case esdb_events_erl:is_packed(Events) of
        false ->
            Fun(list(Events));
        true ->
            case esdb_events_erl:built(Events) of
                {ok, Built} -> Fun(lists:append(Built));
                {error, Reason} -> {error, Reason}
            end
    end.

%% A predicate that is none is misuse here, whatever is asked.
-spec packed(X | {error, esdb_segment_nif:reason()}) -> X | error().
packed({error, {invalid_predicate, _}}) -> error(badarg);
packed(Answer) -> Answer.

%% A proper one, or badarg.
-spec list([event()] | term()) -> [event()].
list(Events) when length(Events) >= 0 -> Events;
list(_) -> error(badarg).

%% Patterns

-spec text_of(esdb_wildcard | esdb_regex, pattern() | term()) -> binary().
text_of(_, Bytes) when is_binary(Bytes) -> Bytes;
text_of(Kind, {Kind, Bytes, _}) when is_binary(Bytes) -> Bytes;
text_of(_, _) -> error(badarg).

-spec wildcard(wildcard() | term()) -> handle().
wildcard(Bytes) when is_binary(Bytes) -> {esdb_wildcard, Bytes, none};
wildcard({esdb_wildcard, Bytes, _} = Handle) when is_binary(Bytes) -> Handle;
wildcard(_) -> error(badarg).

%% Whether the library can be asked, to which it has to mean itself in a wildcard. The twin would
%% take half as long again as a comprehension.
-spec is_for_library(binary()) -> boolean().
is_for_library(Bytes) ->
    is_nif_loaded() andalso binary:match(Bytes, ~"*") =:= nomatch andalso
        binary:match(Bytes, ~"?") =:= nomatch.

-spec regex(regex() | term()) -> handle() | invalid.
regex({esdb_regex, Bytes, _} = Handle) when is_binary(Bytes) ->
    Handle;
regex(Pattern) ->
    case esdb_regex_erl:parse(text_of(esdb_regex, Pattern)) of
        {ok, Parsed} -> regex_handle(Parsed);
        {error, _} -> invalid
    end.

-spec pattern(pattern() | term()) -> handle().
pattern({esdb_regex, Bytes, _} = Handle) when is_binary(Bytes) -> Handle;
pattern(Pattern) -> wildcard(Pattern).

-spec regex_handle(esdb_regex_erl:parsed()) -> handle().
regex_handle(Parsed) ->
    Rendering = esdb_regex_erl:rendering(Parsed),
    {esdb_regex, Rendering, made(esdb_regex, Rendering, esdb_regex_erl:size(Parsed))}.

-spec made(esdb_filter_erl:kind(), binary(), Size :: non_neg_integer()) -> made().
made(Kind, Bytes, Size) when Size =< ?SHORT_SIZE, byte_size(Bytes) =< ?SHORT_PATTERN ->
    make_n(Kind, Bytes, Size);
made(Kind, Bytes, Size) ->
    make_d(Kind, Bytes, Size).

%% The answer, on the scheduler that it needs; what a handle says of its pattern is not asked.
-spec asked(non_neg_integer(), Handle, fun((short | long, Handle) -> X | stale | long)) -> X when
    Handle :: handle() | match_set().
asked(Weight, Handle, Ask) ->
    case placed(Weight, Handle, Ask) of
        stale -> placed(Weight, fresh(Handle), Ask);
        Answer -> Answer
    end.

-spec placed(non_neg_integer(), Handle, fun((short | long, Handle) -> X | stale | long)) ->
    X | stale
when
    Handle :: handle() | match_set().
placed(Weight, Handle, Ask) when Weight =< ?SHORT ->
    case Ask(short, Handle) of
        long -> Ask(long, Handle);
        Answer -> Answer
    end;
placed(_, Handle, Ask) ->
    Ask(long, Handle).

%% Anew, where what a handle has is of another node, or of none.
-spec fresh(handle() | match_set()) -> handle() | match_set().
fresh({esdb_match_set, Canonical, _}) ->
    set_handle(set_patterns(Canonical));
fresh({esdb_regex, Bytes, _}) ->
    case esdb_regex_erl:parse(Bytes) of
        {ok, Parsed} -> regex_handle(Parsed);
        {error, _} -> error(badarg)
    end.

-spec match(binary(), handle()) -> boolean().
match(Text, {esdb_wildcard, Bytes, Kept}) ->
    case wildcard_n(Text, Bytes, Kept) of
        long -> wildcard_d(Text, Bytes, Kept);
        Answer -> Answer
    end;
match(Text, Handle) ->
    case match_n(Text, Handle) of
        long -> match_long(Text, Handle);
        stale -> match(Text, fresh(Handle));
        Answer -> Answer
    end.

-spec match_long(binary(), handle()) -> boolean().
match_long(Text, Handle) ->
    case match_d(Text, Handle) of
        stale -> match_long(Text, fresh(Handle));
        Answer -> Answer
    end.

-spec filter([binary()], handle()) -> [binary()].
filter(Items, Handle) ->
    asked(weight(Items, 0), Handle, fun
        (short, Pattern) -> filter_n(Items, Pattern);
        (long, Pattern) -> filter_d(Items, Pattern)
    end).

%% Sets

%% With the size of a regular expression.
-spec set_pattern(pattern() | term()) -> esdb_filter_erl:sized().
set_pattern({esdb_regex, Bytes, _}) when is_binary(Bytes) ->
    case esdb_regex_erl:parse(Bytes) of
        {ok, Parsed} ->
            {esdb_regex, esdb_regex_erl:rendering(Parsed), esdb_regex_erl:size(Parsed)};
        {error, _} ->
            error(badarg)
    end;
set_pattern(Pattern) ->
    {esdb_wildcard, text_of(esdb_wildcard, Pattern), 0}.

%% The patterns that the canonical bytes of a set name.
-spec set_patterns(term()) -> [esdb_filter_erl:sized()].
set_patterns(<<131, Tag, _/binary>> = Canonical) when Tag =/= $P ->
    Written = fun
        ({Kind, Bytes}) -> set_pattern({Kind, Bytes, none});
        (_) -> error(badarg)
    end,
    each(Written, binary_to_term(Canonical, [safe]));
set_patterns(_) ->
    error(badarg).

-spec set_handle([esdb_filter_erl:sized()]) -> match_set().
set_handle(Patterns) ->
    Named = [{Kind, Bytes} || {Kind, Bytes, _} <- Patterns],
    Canonical = term_to_binary(Named, [deterministic, {minor_version, 2}]),
    {esdb_match_set, Canonical, made_set(Canonical, Patterns)}.

%% The canonical bytes have those of each pattern, and some more.
-spec made_set(binary(), [esdb_filter_erl:sized()]) -> made().
made_set(Canonical, Patterns) ->
    IsSmall = byte_size(Canonical) =< 4 * ?SHORT_PATTERN,
    case IsSmall andalso are_short(Patterns, ?SHORT_PATTERN) of
        true -> make_set_n(Canonical, Patterns);
        false -> make_set_d(Canonical, Patterns)
    end.

-spec are_short([esdb_filter_erl:sized()], integer()) -> boolean().
are_short([{esdb_wildcard, Bytes, _} | Patterns], Left) when Left > 0 ->
    are_short(Patterns, Left - byte_size(Bytes) - 1);
are_short(Patterns, Left) ->
    Patterns =:= [] andalso Left >= 0.

-spec each(fun((term()) -> X), [term()] | term()) -> [X].
each(Fun, [Item | Items]) -> [Fun(Item) | each(Fun, Items)];
each(_, []) -> [];
each(_, _) -> error(badarg).

%% Work

-spec weight([binary()] | term(), non_neg_integer()) -> non_neg_integer().
weight([Item | Items], Sum) when is_binary(Item) -> weight(Items, Sum + byte_size(Item) + ?ITEM);
weight([], Sum) -> Sum;
weight(_, _) -> error(badarg).

%% Replaced when the library is loaded: _n on the caller's scheduler, _d on a dirty one

-spec make_n(esdb_filter_erl:kind(), binary(), non_neg_integer()) -> made().
make_n(Kind, Bytes, _Size) -> esdb_filter_erl:make(Kind, Bytes).

-spec make_d(esdb_filter_erl:kind(), binary(), non_neg_integer()) -> made().
make_d(Kind, Bytes, _Size) -> esdb_filter_erl:make(Kind, Bytes).

%% The library needs the bytes only.
-spec wildcard_n(binary(), binary(), term()) -> boolean() | long.
wildcard_n(Text, Bytes, Kept) -> esdb_filter_erl:wildcard(Text, Bytes, Kept).

-spec wildcard_d(binary(), binary(), term()) -> boolean().
wildcard_d(Text, Bytes, Kept) -> esdb_filter_erl:wildcard(Text, Bytes, Kept).

-spec match_n(binary(), handle()) -> boolean() | stale | long.
match_n(Text, Handle) -> esdb_filter_erl:match(Text, Handle).

-spec match_d(binary(), handle()) -> boolean() | stale.
match_d(Text, Handle) -> esdb_filter_erl:match(Text, Handle).

-spec filter_n([binary()], handle()) -> [binary()] | stale | long.
filter_n(Items, Handle) -> esdb_filter_erl:filter(Items, Handle).

-spec filter_d([binary()], handle()) -> [binary()] | stale.
filter_d(Items, Handle) -> esdb_filter_erl:filter(Items, Handle).

-spec indices_n([binary()], handle()) -> [non_neg_integer()] | stale | long.
indices_n(Items, Handle) -> esdb_filter_erl:indices(Items, Handle).

-spec indices_d([binary()], handle()) -> [non_neg_integer()] | stale.
indices_d(Items, Handle) -> esdb_filter_erl:indices(Items, Handle).

-spec count_n([binary()], handle()) -> non_neg_integer() | stale | long.
count_n(Items, Handle) -> esdb_filter_erl:count(Items, Handle).

-spec count_d([binary()], handle()) -> non_neg_integer() | stale.
count_d(Items, Handle) -> esdb_filter_erl:count(Items, Handle).

-spec make_set_n(binary(), [esdb_filter_erl:sized()]) -> made().
make_set_n(Canonical, Patterns) -> esdb_filter_erl:make_set(Canonical, Patterns).

-spec make_set_d(binary(), [esdb_filter_erl:sized()]) -> made().
make_set_d(Canonical, Patterns) -> esdb_filter_erl:make_set(Canonical, Patterns).

-spec set_indices_n([binary()], match_set()) -> [[non_neg_integer()]] | stale | long.
set_indices_n(Items, Set) -> esdb_filter_erl:set_indices(Items, Set).

-spec set_indices_d([binary()], match_set()) -> [[non_neg_integer()]] | stale.
set_indices_d(Items, Set) -> esdb_filter_erl:set_indices(Items, Set).
