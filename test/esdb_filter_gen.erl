-module(esdb_filter_gen).
-moduledoc "Arguments for the functions of `esdb_filter_nif`; see `esdb_equivalence_SUITE`.".

-export([args/2, cost/2, observe/3]).
-export([segments/1]).

-include_lib("proper/include/proper.hrl").

-define(DICTIONARY, ~"amount event_type data ab ba").

args(compile_wildcard, 1) -> [wildcard()];
args(compile_regex, 1) -> [regex()];
args(compile_predicate, 1) -> [predicate()];
args(match_set, 1) -> [patterns()];
args(wildcard_match, 2) -> [item(), wildcard()];
args(regex_match, 2) -> [item(), regex()];
args(has_prefix, 2) -> [item(), item()];
args(has_suffix, 2) -> [item(), item()];
args(is_valid_regex, 1) -> [regex()];
args(wildcard_to_regex, 1) -> [wildcard()];
args(filter_by_wildcard, 2) -> [items(), wildcard()];
args(filter_by_regex, 2) -> [items(), regex()];
args(filter_by_prefix, 2) -> [items(), item()];
args(filter_by_suffix, 2) -> [items(), item()];
args(match_set_indices, 2) -> [items(), patterns()];
args(F, 2) when F =:= match_indices; F =:= count_matches -> [items(), pattern()];
args(_Events, 2) -> [events(), predicate()].

cost(F, _) when F =:= wildcard_match; F =:= has_prefix; F =:= has_suffix -> cheap;
cost(F, _) when F =:= compile_wildcard; F =:= wildcard_to_regex; F =:= is_valid_regex -> cheap;
cost(_, _) -> costly.

%% A handle is its bytes and what it answers.
observe(F, _, {ok, {Kind, Bytes, _} = Handle}) when F =:= compile_wildcard; F =:= compile_regex ->
    {Kind, Bytes, esdb_filter_nif:match_indices(texts(), Handle)};
observe(match_set, _, {ok, {Kind, Bytes, _} = Set}) ->
    {Kind, Bytes, esdb_filter_nif:match_set_indices(texts(), Set)};
observe(compile_predicate, _, {ok, {Kind, Bytes, _} = Handle}) ->
    Events = [#{event_type => Text, x => Text, y => [1]} || Text <- texts()],
    {Kind, Bytes, esdb_filter_nif:find_all(Events, Handle)};
observe(_, _, Result) ->
    Result.

texts() -> [~"", ~"a", ~"ab", ~"ba", ~"a\nb", ~"aab1", <<255, 0>>, ~"a-b.c"].

item() -> frequency([{20, word("ab-1\n", 10)}, {2, binary()}, {1, hostile()}]).

items() ->
    frequency([
        {10, list(word("ab-1\n", 8))},
        {3, list(binary())},
        {1, list(item())},
        {1, ?LET({Items, Tail}, {list(binary()), hostile()}, Items ++ Tail)},
        {1, hostile()}
    ]).

word(Letters, Most) ->
    ?LET(Size, integer(0, Most), ?LET(Word, vector(Size, oneof(Letters)), list_to_binary(Word))).

wildcard() ->
    frequency([
        {10, word("ab*?", 7)},
        {2, binary()},
        {4, ?LET(Text, word("ab*?", 6), handle(compile_wildcard, Text))},
        {2, {esdb_wildcard, word("ab*?", 6), junk()}},
        {1, handle(compile_regex, ~"a")},
        {1, hostile()}
    ]).

regex() ->
    frequency([
        {8, expression()},
        {3, word("ab()[]|*+?{},12^$.\\dwbAz-:i", 8)},
        {1, binary()},
        {4, ?LET(Text, valid(), handle(compile_regex, Text))},
        {2, {esdb_regex, frequency([{3, valid()}, {1, binary()}]), junk()}},
        {1, handle(compile_wildcard, ~"a")},
        {1, hostile()}
    ]).

expression() -> ?LET(Parts, list(part()), iolist_to_binary(Parts)).

part() ->
    ?LET(
        {Atom, Count},
        {
            oneof([
                "a",
                "b",
                ".",
                "-",
                "\\d",
                "\\W",
                "\\b",
                "\\B",
                "^",
                "$",
                "\\xff",
                "\\z",
                "[a-b]",
                "[^a]",
                "[[:alpha:]\\n]",
                "(a|b-)",
                "(?i:AB|)",
                "(?m)^",
                "(?s).",
                "|",
                "(?:(?:a|b)*1)"
            ]),
            frequency([{6, ""}, {4, oneof(["*", "+", "?", "{2}", "{1,3}", "{0,}", "*?", "{0}"])}])
        },
        [Atom, Count]
    ).

valid() -> oneof([~"a", ~"^a", ~"b$", ~"a|b", ~"[^a]", ~"(ab)+", ~"a{2}", ~"\\w-", ~"(?s)a.b"]).

pattern() -> frequency([{3, wildcard()}, {2, ?LET(Text, valid(), handle(compile_regex, Text))}]).

patterns() ->
    frequency([
        {8, list(pattern())},
        {3, ?LET(Texts, list(word("ab*?", 4)), handle(match_set, Texts))},
        {1, ?LET({Some, Tail}, {list(pattern()), hostile()}, Some ++ Tail)},
        {1, {esdb_match_set, canonical(), junk()}},
        {1, hostile()}
    ]).

canonical() ->
    oneof([
        term_to_binary([{esdb_wildcard, ~"a*"}, {esdb_regex, ~"b"}]),
        term_to_binary([{esdb_regex, ~"("}]),
        term_to_binary([{esdb_other, ~"a"}]),
        term_to_binary([a | b]),
        binary()
    ]).

%% What a handle must not be judged by.
junk() ->
    oneof([
        none,
        {1, none},
        {1, ?LAZY(make_ref())},
        {1 bsl 80, 1},
        {'$make', erlang, element, [3, handle(compile_wildcard, ~"b")]},
        {'$make', erlang, element, [3, handle(compile_predicate, false)]},
        {made, esdb_wildcard, ~"a", garbage},
        fun() -> {made, esdb_regex, ~"a", garbage} end,
        fun esdb_filter_erl:module_info/0,
        fun() -> {~"a", fun(_) -> true end} end,
        fun esdb_predicate_erl:module_info/0,
        []
    ]).

%% Made where the case runs.
handle(Function, Argument) ->
    {'$make', erlang, element, [2, {'$make', esdb_filter_nif, Function, [Argument]}]}.

hostile() -> oneof([a, 1, 1.5, <<1:7>>, "a", #{}, {}, {esdb_wildcard, a, b}, {esdb_regex, ~"a"}]).

events() ->
    frequency([
        {10, list(event())},
        {1, list(oneof([event(), hostile()]))},
        {1, ?LET({Events, Tail}, {list(event()), hostile()}, Events ++ Tail)},
        {1, hostile()},
        {10, segments(event())}
    ]).

%% Packed events: whole and damaged, compressed, with a dictionary or with what is none; and lists.
segments(Event) ->
    frequency([
        {6, segment(Event)},
        {3, ?LET(Count, integer(1, 3), vector(Count, segment(Event)))},
        {1, [segment(Event), oneof([a, #{}, {esdb_segment, a, b}])]},
        {1, [segment(Event) | oneof([a, ~"ESDS"])]}
    ]).

segment(Event) ->
    Packed = ?LET(
        {Events, Options},
        {list(Event), oneof([#{}, #{}, #{compress => zstd}])},
        packed(Events, Options)
    ),
    frequency([
        {8, Packed},
        {5, ?LET(Segment, Packed, esdb_segment_gen:damaged(Segment))},
        {2, ?LET(Segment, Packed, binary:part(Segment, 0, byte_size(Segment) div 2))},
        {2, ?LET(Events, list(Event), with_dictionary(Events))},
        {1, {esdb_segment, Packed, oneof([?DICTIONARY, ~"another", a])}},
        {1, binary()}
    ]).

%% Not every term has a place in a segment.
packed(Events, Options) ->
    case esdb_segment_nif:pack([Event || Event <- Events, is_map(Event)], Options) of
        {error, _} -> esdb_segment_nif:pack([]);
        Segment -> Segment
    end.

with_dictionary(Events) ->
    Segment = packed(Events, #{compress => zstd, dictionary => ?DICTIONARY}),
    {'$make', esdb_segment_nif, with_dictionary, [Segment, ?DICTIONARY]}.

event() ->
    ?LET(
        {Type, Fields, IsWrapped},
        {word("ab", 1), map(oneof([x, y, ~"x"]), value()), boolean()},
        case IsWrapped of
            true -> #{event_type => Type, data => Fields};
            false -> Fields#{event_type => Type}
        end
    ).

value() ->
    frequency([
        {4, integer(0, 3)},
        {2, oneof([0.0, 1.0, -1.5, 1 bsl 70, 1.0e300])},
        {4, word("ab1", 3)},
        {2, list(integer(0, 2))},
        {1, oneof([undefined, #{y => 1}, {a}, [1 | 2], <<1:3>>, ?LAZY(make_ref())])}
    ]).

predicate() -> ?SIZED(Size, predicate(min(Size, 9))).

predicate(0) ->
    Path = frequency([{8, oneof([x, y, [x, y], ~"x"])}, {1, oneof([[], [x | y], [event_type]])}]),
    frequency([
        {2, boolean()},
        {3, {event_type, word("ab", 1)}},
        {9, {oneof([eq, neq, gt, gte, lt, lte]), Path, value()}},
        {3, {between, Path, value(), value()}},
        {4, {oneof([in, any_of]), Path, list(value())}},
        {2, {exists, Path}},
        {3, {oneof([prefix, suffix]), Path, word("ab", 2)}},
        {3, {wildcard, Path, wildcard()}},
        {3, {regex, Path, oneof([valid(), regex()])}},
        {1, {oneof([eq, in, 'or', nonsense]), Path, hostile()}},
        {1, ?LET(Type, word("ab", 1), handle(compile_predicate, {event_type, Type}))},
        {1, {esdb_predicate, oneof([binary(), term_to_binary({'not', true})]), junk()}}
    ]);
predicate(Size) ->
    frequency([
        {3, predicate(0)},
        {1, ?LAZY({'not', predicate(Size div 2)})},
        {1, ?LAZY({oneof(['and', 'or']), list(predicate(Size div 3))})}
    ]).
