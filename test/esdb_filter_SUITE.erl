-module(esdb_filter_SUITE).
-moduledoc "Rows A/NFI, and the rest of `esdb_filter_nif`, on whichever implementation is loaded.".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(esdb_filter_nif, [
    wildcard_match/2,
    regex_match/2,
    is_valid_regex/1,
    match_indices/2,
    filter_count/2
]).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_nfi_01_wildcards,
        a_nfi_02_regex_characters_are_literal,
        a_nfi_03_newlines_and_utf8,
        a_nfi_04_wildcard_to_regex,
        a_nfi_05_regex_match,
        a_nfi_06_prefix_and_suffix,
        a_nfi_07_filters_keep_the_order,
        a_nfi_08_match_indices,
        a_nfi_09_count_matches,
        a_nfi_10_is_valid_regex,
        a_nfi_11_pathological_patterns,
        a_nfi_12_predicates,
        t_17_stars_and_question_marks_and_nothing_else,
        every_pattern_function_takes_a_handle,
        foreign_handles_are_made_again,
        wildcards_against_the_naive_reference,
        sets_of_patterns,
        dialect,
        mistakes_have_positions,
        size_and_depth_are_limited,
        rendering_means_the_same,
        regexes_against_the_naive_reference,
        many_states_are_forgotten,
        predicate_mistakes,
        predicate_handles,
        numbers_compare_as_erlang_compares,
        predicates_against_the_naive_reference,
        functions_over_events,
        packed_events_answer_as_maps,
        segments_that_cannot_be_read,
        forged_handles_count_by_their_bytes,
        numbers_are_in_by_their_value,
        long_lists_of_values,
        what_is_too_large_is_told_where_it_is,
        real_events,
        tables_of_the_guide,
        misuse_is_badarg,
        long_lists
    ].

a_nfi_01_wildcards(_Config) ->
    Table = [
        {~"", ~"", true},
        {~"a", ~"", false},
        {~"", ~"*", true},
        {~"", ~"?", false},
        {~"abc", ~"abc", true},
        {~"abc", ~"ab", false},
        {~"abc", ~"a*", true},
        {~"abc", ~"*c", true},
        {~"abc", ~"*b*", true},
        {~"abc", ~"*d*", false},
        {~"abc", ~"a*c", true},
        {~"ac", ~"a*c", true},
        {~"a", ~"a*a", false},
        {~"abc", ~"a?c", true},
        {~"abc", ~"???", true},
        {~"abc", ~"??", false},
        {~"abc", ~"*??*", true},
        {~"a", ~"*??*", false},
        {~"xabyabz", ~"x*a?z", true},
        {~"xabyabz", ~"x*a?*z", true},
        {~"abab", ~"*ab*ab*", true},
        {~"aba", ~"*ab*ba*", false}
    ],
    [?assertEqual(Is, wildcard_match(Text, Wild), {Text, Wild}) || {Text, Wild, Is} <- Table].

a_nfi_02_regex_characters_are_literal(_Config) ->
    Literals = [~"a.b", ~"a+b", ~"(x)", ~"[x]", ~"a|b", ~"^a$", ~"\\d", ~"{2}"],
    [?assert(wildcard_match(Text, Text)) || Text <- Literals],
    ?assertNot(wildcard_match(~"axb", ~"a.b")),
    ?assertNot(wildcard_match(~"aab", ~"a+b")),
    ?assertNot(wildcard_match(~"x", ~"(x)")).

a_nfi_03_newlines_and_utf8(_Config) ->
    ?assert(wildcard_match(~"a\nb", ~"a*b")),
    ?assert(wildcard_match(~"a\nb", ~"a?b")),
    ?assertNot(regex_match(~"a\nb", ~"a.b")),
    ?assert(regex_match(~"a\nb", ~"(?s)a.b")),
    %% A question mark is one byte, and "ü" has two.
    ?assertNot(wildcard_match(<<"ü"/utf8>>, ~"?")),
    ?assert(wildcard_match(<<"ü"/utf8>>, ~"??")),
    ?assert(wildcard_match(<<"für"/utf8>>, ~"f*r")),
    ?assert(wildcard_match(<<255, 254>>, <<255, $?>>)).

a_nfi_04_wildcard_to_regex(_Config) ->
    ?assertEqual(~"^orders-.*$", esdb_filter_nif:wildcard_to_regex(~"orders-*")),
    ?assertEqual(~"^user-.$", esdb_filter_nif:wildcard_to_regex(~"user-?")),
    ?assertEqual(~"^a\\.b$", esdb_filter_nif:wildcard_to_regex(~"a.b")).

a_nfi_05_regex_match(_Config) ->
    ?assert(regex_match(~"order-17", ~"^order-[0-9]+$")),
    ?assertNot(regex_match(~"order-x", ~"^order-[0-9]+$")),
    ?assertNot(regex_match(~"(", ~"(")),
    ?assertEqual([], esdb_filter_nif:filter_by_regex([~"("], ~"(")).

a_nfi_06_prefix_and_suffix(_Config) ->
    Table = [
        {~"abc", ~"ab", true, false},
        {~"abc", ~"bc", false, true},
        {~"abc", ~"abc", true, true},
        {~"abc", ~"", true, true},
        {~"", ~"", true, true},
        {~"bc", ~"abc", false, false},
        {~"", ~"a", false, false}
    ],
    [
        begin
            ?assertEqual(IsPrefix, esdb_filter_nif:has_prefix(Text, Part), {Text, Part}),
            ?assertEqual(IsSuffix, esdb_filter_nif:has_suffix(Text, Part), {Text, Part})
        end
     || {Text, Part, IsPrefix, IsSuffix} <- Table
    ].

a_nfi_07_filters_keep_the_order(_Config) ->
    Items = [~"b-2", ~"a-1", ~"b-1", ~"a-2", ~"b-2"],
    ?assertEqual([~"b-2", ~"b-1", ~"b-2"], esdb_filter_nif:filter_by_wildcard(Items, ~"b*")),
    ?assertEqual([~"b-2", ~"a-2", ~"b-2"], esdb_filter_nif:filter_by_regex(Items, ~"2$")),
    ?assertEqual([~"a-1", ~"a-2"], esdb_filter_nif:filter_by_prefix(Items, ~"a-")),
    ?assertEqual([~"a-1", ~"b-1"], esdb_filter_nif:filter_by_suffix(Items, ~"1")).

a_nfi_08_match_indices(_Config) ->
    ?assertEqual([0, 2], match_indices([~"a1", ~"b1", ~"a2"], ~"a*")),
    ?assertEqual([], match_indices([], ~"a*")).

a_nfi_09_count_matches(_Config) ->
    ?assertEqual(2, esdb_filter_nif:count_matches([~"a1", ~"b1", ~"a2"], ~"a?")),
    ?assertEqual(0, esdb_filter_nif:count_matches([], ~"*")).

a_nfi_10_is_valid_regex(_Config) ->
    ?assert(is_valid_regex(~"^(a|b)*$")),
    ?assertNot(is_valid_regex(~"(")),
    ?assertNot(is_valid_regex(~"(a)\\1")).

%% Each would take longer than the world is old where steps are taken back.
a_nfi_11_pathological_patterns(_Config) ->
    Text = binary:copy(~"a", 20_000),
    ?assertNot(wildcard_match(Text, ~"a*a*a*a*a*a*a*a*b")),
    ?assertNot(regex_match(Text, ~"a*a*a*a*a*a*a*a*b$")),
    ?assertNot(regex_match(Text, ~"^((a|aa)+)+b")),
    ?assert(regex_match(<<(binary:copy(~"a", 40))/binary, $b>>, ~"(a|aa)+c|b$")).

%% What other dialects of wildcards give a meaning stands for itself.
t_17_stars_and_question_marks_and_nothing_else(_Config) ->
    Ordinary = [~"[a]", ~"{a,b}", ~"\\", ~"%", ~"_", ~"#", ~"+", ~"!a", ~"a|b", ~".", ~"**", ~"$^"],
    [?assert(wildcard_match(Text, Text)) || Text <- Ordinary],
    [
        ?assertNot(wildcard_match(Text, Pattern))
     || {Text, Pattern} <- [
            {~"a", ~"[a]"},
            {~"a", ~"{a,b}"},
            {~"*", ~"\\*"},
            {~"abc", ~"%"},
            {~"a", ~"_"},
            {~"a/b", ~"a/#"},
            {~"b", ~"!a"},
            {~"a", ~"a|b"},
            {~"a", ~"."}
        ]
    ],
    [?assert(wildcard_match(<<Byte>>, ~"?")) || Byte <- lists:seq(0, 255)],
    ?assert(wildcard_match(~"a/b\nc", ~"a*c")).

a_nfi_12_predicates(_Config) ->
    Event = event(),
    True = [
        true,
        {'and', []},
        {'not', false},
        {event_type, ~"paid"},
        {eq, amount, 10},
        {eq, amount, 10.0},
        {neq, amount, 11},
        {gt, amount, 9},
        {gte, amount, 10},
        {lt, amount, 10.5},
        {lte, amount, 10},
        {between, amount, 10, 11},
        {in, amount, [1, 10.0]},
        {any_of, tags, [~"x", ~"b"]},
        {any_of, amount, [10]},
        {exists, [address, city]},
        {prefix, name, ~"an"},
        {suffix, name, ~"na"},
        {wildcard, name, ~"a*a"},
        {wildcard, name, ~"*nn*"},
        {wildcard, name, ~"anna"},
        {wildcard, name, ~"a??a"},
        {regex, name, ~"n{2}"},
        {eq, [metadata, actor], 7},
        {eq, version, 3},
        {gt, name, ~"ann"},
        {'or', [false, {eq, amount, 10}]},
        {'not', {exists, missing}},
        {'not', {neq, missing, 1}}
    ],
    False = [
        false,
        {'or', []},
        {event_type, ~"sent"},
        {eq, missing, undefined},
        {neq, missing, 1},
        {gt, name, 1},
        {gt, amount, ~"1"},
        {lt, missing, 1},
        {eq, ~"amount", 10},
        {in, tags, [~"a"]},
        {any_of, tags, []},
        {exists, [address, street]},
        {exists, [amount, deeper]},
        {prefix, amount, ~"1"},
        {wildcard, name, ~"b*"},
        {regex, name, ~"^n"},
        {between, amount, 11, 12},
        {eq, nested, [1.0]},
        {'and', [true, {eq, amount, 11}]}
    ],
    [?assertEqual(1, filter_count([Event], P), P) || P <- True],
    [?assertEqual(0, filter_count([Event], P), P) || P <- False],
    %% Without a data map the event is its own data.
    ?assertEqual(1, filter_count([#{amount => 5}], {eq, amount, 5})).

event() ->
    #{
        event_type => ~"paid",
        version => 3,
        metadata => #{actor => 7},
        data => #{
            amount => 10,
            name => ~"anna",
            tags => [~"a", ~"b"],
            address => #{city => ~"Oslo"},
            nested => [1]
        }
    }.

%% Handles

every_pattern_function_takes_a_handle(_Config) ->
    Items = [~"a-1", ~"b-2", ~"a-3"],
    {ok, Wild} = esdb_filter_nif:compile_wildcard(~"a*"),
    {ok, Regex} = esdb_filter_nif:compile_regex(~"^a"),
    [
        ?assertEqual({[0, 2], 2}, {
            match_indices(Items, Handle), esdb_filter_nif:count_matches(Items, Handle)
        })
     || Handle <- [Wild, Regex]
    ],
    ?assertEqual([~"a-1", ~"a-3"], esdb_filter_nif:filter_by_wildcard(Items, Wild)),
    ?assertEqual([~"a-1", ~"a-3"], esdb_filter_nif:filter_by_regex(Items, Regex)),
    ?assert(wildcard_match(~"a", Wild)),
    ?assert(regex_match(~"a", Regex)),
    ?assert(is_valid_regex(Regex)),
    ?assertMatch({ok, _}, esdb_filter_nif:compile_regex(Regex)),
    ?assertEqual(~"^a.*$", esdb_filter_nif:wildcard_to_regex(Wild)),
    ?assertError(badarg, wildcard_match(~"a", Regex)),
    ?assertError(badarg, regex_match(~"a", Wild)),
    Event = #{name => ~"a-1"},
    ?assertEqual(1, filter_count([Event], {wildcard, name, Wild})),
    ?assertEqual(1, filter_count([Event], {regex, name, Regex})).

%% Only the bytes of a handle count, whatever else it carries.
foreign_handles_are_made_again(_Config) ->
    {ok, {_, _, Made}} = esdb_filter_nif:compile_wildcard(~"b*"),
    {ok, {_, Rendering, _}} = esdb_filter_nif:compile_regex(~"^a-\\d$"),
    {ok, {_, Canonical, _}} = esdb_filter_nif:match_set([~"b*", ~"*1"]),
    [
        begin
            ?assert(wildcard_match(~"a-1", {esdb_wildcard, ~"a*", Junk})),
            ?assert(regex_match(~"a-1", {esdb_regex, Rendering, Junk})),
            ?assert(regex_match(~"a-1", {esdb_regex, ~"a-\\d$", Junk})),
            ?assertError(badarg, regex_match(~"a-1", {esdb_regex, ~"(", Junk})),
            Set = {esdb_match_set, Canonical, Junk},
            ?assertEqual([[1]], esdb_filter_nif:match_set_indices([~"a-1"], Set))
        end
     || Junk <- [none, {1, make_ref()}, make_ref(), Made, {a, b, c}, []]
    ],
    ?assertError(badarg, esdb_filter_nif:match_set_indices([], {esdb_match_set, ~"x", none})).

%% Wildcards

wildcards_against_the_naive_reference(_Config) ->
    Property = ?FORALL(
        {Text, Pattern},
        {word("ab", 12), word("ab*?", 8)},
        wildcard_match(Text, Pattern) =:=
            naive_wildcard(binary_to_list(Text), binary_to_list(Pattern))
    ),
    holds(Property, 20_000).

naive_wildcard([], []) -> true;
naive_wildcard(Text, [$* | Pattern]) ->
    naive_wildcard(Text, Pattern) orelse
        (Text =/= [] andalso naive_wildcard(tl(Text), [$* | Pattern]));
naive_wildcard([_ | Text], [$? | Pattern]) -> naive_wildcard(Text, Pattern);
naive_wildcard([C | Text], [C | Pattern]) -> naive_wildcard(Text, Pattern);
naive_wildcard(_, _) -> false.

sets_of_patterns(_Config) ->
    {ok, Digit} = esdb_filter_nif:compile_regex(~"[0-9]"),
    Patterns = [~"a*", ~"*1", ~"a-1", ~"*-*", Digit, ~"a*", ~"*", ~"?-?"],
    {ok, Set} = esdb_filter_nif:match_set(Patterns),
    ?assertEqual(
        [[0, 1, 2, 3, 4, 5, 6, 7], [6], [0, 5, 6], [6]],
        esdb_filter_nif:match_set_indices([~"a-1", ~"b", ~"ab", ~""], Set)
    ),
    ?assertEqual([[], []], esdb_filter_nif:match_set_indices([~"a", ~""], [])),
    Property = ?FORALL(
        {Texts, Wilds},
        {list(word("ab", 8)), list(word("ab*?", 5))},
        esdb_filter_nif:match_set_indices(Texts, Wilds) =:=
            [
                [Index || {Index, Wild} <- lists:enumerate(0, Wilds), wildcard_match(Text, Wild)]
             || Text <- Texts
            ]
    ),
    holds(Property, 2_000).

%% Regular expressions

dialect(_Config) ->
    Table = [
        {~"abc", ~"b", true},
        {~"abc", ~"^b", false},
        {~"abc", ~"\\Aab", true},
        {~"abc\n", ~"c$", false},
        {~"abc\n", ~"(?m)c$", true},
        {~"x\nabc", ~"(?m)^a", true},
        {~"x\nabc", ~"^a", false},
        {~"ABC", ~"(?i)abc", true},
        {~"ABC", ~"(?i:ab)C", true},
        {~"ABc", ~"(?i:ab)C", false},
        {~"ABc", ~"(?i)a(?-i)B", true},
        {~"a_1", ~"^\\w+$", true},
        {~"a-1", ~"^\\w+$", false},
        {~"a-1", ~"\\W\\d", true},
        {~"a b", ~"\\s", true},
        {~"a b", ~"\\S\\s\\S", true},
        {~"ab", ~"\\bab\\b", true},
        {~"ab", ~"a\\bb", false},
        {~"ab", ~"a\\Bb", true},
        {~"a]b", ~"[]]", true},
        {~"a]b", ~"[^]a]b", false},
        {~"a-b", ~"[+-]", true},
        {~"f", ~"[[:alpha:]]", true},
        {~"1", ~"[[:^alpha:]]", true},
        {~"aaa", ~"^a{3}$", true},
        {~"aaa", ~"^a{1,2}$", false},
        {~"aaa", ~"^a{2,}$", true},
        {~"aaa", ~"^a+?$", true},
        {~"ac", ~"^(ab|a(?:c|d))$", true},
        {~"ac", ~"(?<first>a)(?P<second>c)", true},
        {<<255>>, ~"\\xff", true},
        {<<10>>, ~"\\x{A}", true},
        {~"a.b", ~"a\\.b", true},
        {~"axb", ~"a\\.b", false},
        {~"", ~"", true},
        {~"", ~"^$", true},
        {~"a", ~"[^\\x00-\\xff]", false},
        {~"}", ~"}", true}
    ],
    [?assertEqual(Is, regex_match(Text, Regex), {Text, Regex}) || {Text, Regex, Is} <- Table].

mistakes_have_positions(_Config) ->
    Table = [
        {~"ab(", {2, unclosed_group}},
        {~"ab)", {2, unopened_group}},
        {~"a[b", {1, unclosed_class}},
        {~"a**", {2, nothing_to_repeat}},
        {~"*", {0, nothing_to_repeat}},
        {~"a{2,1}", {1, invalid_repetition}},
        {~"[b-a]", {2, invalid_range}},
        {~"a\\", {1, trailing_backslash}},
        {~"\\xg0", {0, invalid_hex}},
        {~"\\q", {0, {unknown_escape, $q}}},
        {~"(?=a)", {0, {unsupported, look_around}}},
        {~"(?<!a)", {0, {unsupported, look_around}}},
        {~"(a)\\1", {3, {unsupported, back_reference}}},
        {~"a++", {2, {unsupported, possessive}}},
        {~"(?>a)", {0, {unsupported, atomic_group}}},
        {~"\\pL", {0, {unsupported, property}}},
        {~"(?x)a", {2, {unknown_flag, $x}}},
        {~"[[:wrong:]]", {1, {unknown_class, ~"wrong"}}}
    ],
    [
        ?assertEqual(
            {error, {invalid_pattern, Mistake}}, esdb_filter_nif:compile_regex(Regex), Regex
        )
     || {Regex, Mistake} <- Table
    ].

size_and_depth_are_limited(_Config) ->
    ?assert(is_valid_regex(~"a{4999}")),
    ?assertEqual(
        {error, {invalid_pattern, {8, {too_large, 10_000}}}},
        esdb_filter_nif:compile_regex(~"a{65536}")
    ),
    ?assertNot(is_valid_regex(~"((a{99}){99}){99}")),
    Deep = fun(N, Inside) ->
        <<"(?m)", (binary:copy(~"(", N))/binary, Inside/binary, (binary:copy(~"|b)+", N))/binary>>
    end,
    {ok, Handle} = esdb_filter_nif:compile_regex(Deep(100, ~"^a$")),
    ?assert(regex_match(~"x\na", Handle)),
    {_, Rendering, _} = Handle,
    ?assert(is_valid_regex(Rendering)),
    ?assertMatch(
        {error, {invalid_pattern, {104, {too_deep, 100}}}},
        esdb_filter_nif:compile_regex(Deep(101, ~"a"))
    ),
    {ok, Largest} = esdb_filter_nif:compile_regex(~"(ab|c){1500}$"),
    ?assert(regex_match(binary:copy(~"abc", 1000), Largest)).

rendering_means_the_same(_Config) ->
    Property = ?FORALL(Ast, regex(), begin
        {ok, Parsed} = esdb_regex_erl:parse(text(Ast)),
        Rendering = esdb_regex_erl:rendering(Parsed),
        {ok, Again} = esdb_regex_erl:parse(Rendering),
        Parsed =:= Again
    end),
    holds(Property, 5_000).

regexes_against_the_naive_reference(_Config) ->
    Property = ?FORALL({Ast, Text}, {regex(), word("ab\n", 8)}, begin
        Expected = naive_regex(Ast, binary_to_list(Text)),
        ?WHENFAIL(
            ct:pal("~p ~p ~p", [text(Ast), Text, Expected]),
            regex_match(Text, text(Ast)) =:= Expected
        )
    end),
    holds(Property, 10_000).

%% A regular expression as a term, as text, and by sets of places: no automaton, no order of tries.

regex() -> ?SIZED(Size, regex(min(Size, 12))).

regex(0) ->
    oneof([{byte, $a}, {byte, $b}, {byte, $\n}, any, text_start, text_end, empty, {set, "ab"}]);
regex(Size) ->
    Half = Size div 2,
    frequency([
        {2, regex(0)},
        {3, ?LAZY({cat, regex(Half), regex(Half)})},
        {2, ?LAZY({alt, regex(Half), regex(Half)})},
        {2, ?LAZY({repeat, regex(Half), integer(0, 2), oneof([infinity, integer(2, 3)])})}
    ]).

text({byte, C}) -> <<C>>;
text(any) -> ~".";
text(text_start) -> ~"^";
text(text_end) -> ~"$";
text(empty) -> ~"(?:)";
text({set, Bytes}) -> <<$[, (list_to_binary(Bytes))/binary, $]>>;
text({cat, A, B}) -> <<(text(A))/binary, (text(B))/binary>>;
text({alt, A, B}) -> <<"(", (text(A))/binary, "|", (text(B))/binary, ")">>;
text({repeat, A, Min, infinity}) ->
    iolist_to_binary(["(", text(A), io_lib:format("){~b,}", [Min])]);
text({repeat, A, Min, Max}) ->
    iolist_to_binary(["(", text(A), io_lib:format("){~b,~b}", [Min, Max])]).

naive_regex(Ast, Text) ->
    lists:any(fun(From) -> ends(Ast, From, Text) =/= [] end, lists:seq(0, length(Text))).

%% Where a match that begins at a place can end.
ends({byte, C}, At, Text) -> [At + 1 || At < length(Text), lists:nth(At + 1, Text) =:= C];
ends(any, At, Text) -> [At + 1 || At < length(Text), lists:nth(At + 1, Text) =/= $\n];
ends({set, Set}, At, Text) ->
    [At + 1 || At < length(Text), lists:member(lists:nth(At + 1, Text), Set)];
ends(text_start, At, _) -> [0 || At =:= 0];
ends(text_end, At, Text) -> [At || At =:= length(Text)];
ends(empty, At, _) -> [At];
ends({cat, A, B}, At, Text) -> from_each(B, ends(A, At, Text), Text);
ends({alt, A, B}, At, Text) -> lists:umerge(ends(A, At, Text), ends(B, At, Text));
ends({repeat, A, Min, Max}, At, Text) -> repeated(A, Min, Max, 0, [At], Text).

from_each(Ast, Places, Text) -> lists:usort([End || At <- Places, End <- ends(Ast, At, Text)]).

%% More rounds than the text is long bring nothing new.
repeated(Ast, Min, Max, Round, Places, Text) ->
    Enough = [Place || Round >= Min, Place <- Places],
    case Round =:= Max orelse Round > Min + length(Text) orelse Places =:= [] of
        true ->
            Enough;
        false ->
            Next = from_each(Ast, Places, Text),
            lists:umerge(Enough, repeated(Ast, Min, Max, Round + 1, Next, Text))
    end.

%% The automaton of this expression has more than 2^14 states.
many_states_are_forgotten(_Config) ->
    rand:seed(exsss, {1, 2, 3}),
    {ok, Handle} = esdb_filter_nif:compile_regex(~"^(a|b)*a(a|b){14}c"),
    Text = <<<<(lists:nth(rand:uniform(2), "ab"))>> || _ <- lists:seq(1, 20_000)>>,
    ?assertNot(regex_match(Text, Handle)),
    Ending = fun(C) -> <<Text/binary, C, (binary:copy(~"b", 14))/binary, $c>> end,
    ?assert(regex_match(Ending($a), Handle)),
    ?assertNot(regex_match(Ending($b), Handle)).

%% Predicates

predicate_mistakes(_Config) ->
    Table = [
        {nonsense, {[], unknown_predicate}},
        {{'and', [true, {eq, [], 1}]}, {[2, 2, 2], invalid_path}},
        {{eq, [a | b], 1}, {[2], invalid_path}},
        {{eq, {event, []}, 1}, {[2, 2], invalid_path}},
        {{'or', true}, {[2], not_a_list}},
        {{in, a, [1 | 2]}, {[3], not_a_list}},
        {{prefix, a, "list"}, {[3], not_a_binary}},
        {{eq, a, self()}, {[3], not_storable}},
        {{regex, a, ~"x("}, {[3], {invalid_pattern, {1, unclosed_group}}}},
        {lists:foldl(fun(_, P) -> {'not', P} end, true, lists:seq(1, 101)),
            {lists:duplicate(101, 2), {too_deep, 100}}}
    ],
    [
        ?assertEqual(
            {error, {invalid_predicate, Mistake}}, esdb_filter_nif:compile_predicate(Predicate)
        )
     || {Predicate, Mistake} <- Table
    ],
    ?assertError(badarg, filter_count([], nonsense)).

predicate_handles(_Config) ->
    Predicate = {'and', [{gt, amount, 9}, {regex, name, ~"(?i)^AN"}, {wildcard, name, ~"a*a"}]},
    {ok, {esdb_predicate, Canonical, Made} = Handle} = esdb_filter_nif:compile_predicate(Predicate),
    ?assertMatch({ok, _}, esdb_predicate_erl:decode(Canonical)),
    {ok, {_, Other, _}} = esdb_filter_nif:compile_predicate(false),
    ?assertEqual(1, filter_count([event()], Handle)),
    ?assertEqual(0, filter_count([event()], {'not', Handle})),
    ?assertEqual(1, filter_count([event()], {esdb_predicate, Canonical, junk})),
    ?assertEqual(0, filter_count([event()], {esdb_predicate, Other, Made})),
    ?assertError(badarg, filter_count([event()], {esdb_predicate, ~"junk", Made})).

numbers_compare_as_erlang_compares(_Config) ->
    Large = 1 bsl 53,
    Count = fun(Value, Predicate) -> filter_count([#{n => Value}], Predicate) end,
    ?assertEqual(1, Count(Large + 1, {gt, n, float(Large)})),
    ?assertEqual(0, Count(Large + 1, {eq, n, float(Large)})),
    ?assertEqual(1, Count(1 bsl 200, {lt, n, (1 bsl 200) + 1})),
    ?assertEqual(1, Count(1, {eq, n, 1.0})),
    ?assertEqual(0, Count([1], {eq, n, [1.0]})),
    ?assertEqual(1, Count(1, {in, n, [a, 1.0]})).

predicates_against_the_naive_reference(_Config) ->
    Property = ?FORALL({Events, Predicate}, {list(event_type()), predicate()}, begin
        {ok, Handle} = esdb_filter_nif:compile_predicate(Predicate),
        {esdb_predicate, Canonical, _} = Handle,
        {ok, Normal} = esdb_predicate_erl:decode(Canonical),
        Expected = [Event || Event <- Events, naive(Predicate, Event)],
        esdb_predicate_erl:canonical(Normal) =:= Canonical andalso
            esdb_filter_nif:filter_events(Events, Handle) =:= Expected andalso
            esdb_filter_nif:filter_events(Events, Predicate) =:= Expected
    end),
    holds(Property, 5_000).

event_type() ->
    ?LET(
        {Type, Data, Wrapped},
        {oneof([~"a", ~"b"]), map(oneof([x, y, ~"x"]), value()), boolean()},
        case Wrapped of
            true -> #{event_type => Type, data => Data};
            false -> Data#{event_type => Type}
        end
    ).

value() ->
    oneof([
        integer(0, 3),
        oneof([0.0, 1.0, 2.5]),
        word("ab", 3),
        list(integer(0, 2)),
        [~"a", 1.0],
        undefined,
        #{y => 1}
    ]).

predicate() -> ?SIZED(Size, predicate(min(Size, 8))).

predicate(0) ->
    Path = oneof([x, y, [x], [x, y], ~"x"]),
    oneof([
        boolean(),
        {event_type, oneof([~"a", ~"b"])},
        {oneof([eq, neq, gt, gte, lt, lte]), Path, value()},
        {between, Path, value(), value()},
        {oneof([in, any_of]), Path, list(value())},
        {exists, Path},
        {oneof([prefix, suffix]), Path, word("ab", 2)},
        {wildcard, Path, word("ab*?", 4)}
    ]);
predicate(Size) ->
    frequency([
        {2, predicate(0)},
        {1, ?LAZY({'not', predicate(Size div 2)})},
        {1, ?LAZY({oneof(['and', 'or']), list(predicate(Size div 3))})}
    ]).

naive(Boolean, _) when is_boolean(Boolean) -> Boolean;
naive({'and', Ps}, Event) -> [] =:= [P || P <- Ps, not naive(P, Event)];
naive({'or', Ps}, Event) -> [] =/= [P || P <- Ps, naive(P, Event)];
naive({'not', P}, Event) -> not naive(P, Event);
naive({event_type, Type}, Event) -> maps:get(event_type, Event) =:= Type;
naive({between, Path, Low, High}, Event) ->
    naive({gte, Path, Low}, Event) andalso naive({lte, Path, High}, Event);
naive({exists, Path}, Event) -> naive_field(Path, Event) =/= none;
naive({Op, Path, Operand}, Event) ->
    case naive_field(Path, Event) of
        none -> false;
        {some, Value} -> naive(Op, Value, Operand)
    end.

naive_field(Path, Event) ->
    Data = maps:get(data, Event, Event),
    Keys = lists:flatten([Path]),
    lists:foldl(fun naive_step/2, {some, Data}, Keys).

naive_step(Key, {some, #{} = Map}) ->
    case maps:find(Key, Map) of
        {ok, Value} -> {some, Value};
        error -> none
    end;
naive_step(_, _) ->
    none.

naive(eq, A, B) when is_number(A), is_number(B) -> A == B;
naive(eq, A, B) -> A =:= B;
naive(neq, A, B) -> not naive(eq, A, B);
naive(in, A, Bs) -> [] =/= [B || B <- Bs, naive(eq, A, B)];
naive(any_of, As, Bs) when is_list(As) -> [] =/= [A || A <- As, naive(in, A, Bs)];
naive(any_of, A, Bs) -> naive(in, A, Bs);
naive(wildcard, A, B) ->
    is_binary(A) andalso naive_wildcard(binary_to_list(A), binary_to_list(B));
naive(prefix, A, B) -> is_binary(A) andalso lists:prefix(binary_to_list(B), binary_to_list(A));
naive(suffix, A, B) -> is_binary(A) andalso lists:suffix(binary_to_list(B), binary_to_list(A));
naive(Op, A, B) when is_number(A), is_number(B) -> naive_order(Op, A, B);
naive(Op, A, B) when is_binary(A), is_binary(B) -> naive_order(Op, A, B);
naive(_, _, _) -> false.

naive_order(gt, A, B) -> B < A;
naive_order(gte, A, B) -> not (A < B);
naive_order(lt, A, B) -> A < B;
naive_order(lte, A, B) -> not (B < A).

functions_over_events(_Config) ->
    Events = [#{n => N} || N <- [1, 5, 2, 7]],
    [_, Five, _, Seven] = Events,
    {ok, Large} = esdb_filter_nif:compile_predicate({gt, n, 4}),
    ?assertEqual([Five, Seven], esdb_filter_nif:filter_events(Events, Large)),
    ?assertEqual(2, filter_count(Events, Large)),
    ?assertEqual(
        {[Five, Seven], Events -- [Five, Seven]}, esdb_filter_nif:partition_events(Events, Large)
    ),
    ?assertEqual({ok, Five}, esdb_filter_nif:first_match(Events, Large)),
    ?assertEqual(not_found, esdb_filter_nif:first_match(Events, false)),
    ?assertEqual([{1, Five}, {3, Seven}], esdb_filter_nif:find_all(Events, Large)),
    ?assert(esdb_filter_nif:any_match(Events, Large)),
    ?assertNot(esdb_filter_nif:any_match([], true)),
    ?assertNot(esdb_filter_nif:all_match(Events, Large)),
    ?assert(esdb_filter_nif:all_match([], false)).

%% The functions, each with what it says of events that are in several lists.
packed_events_answer_as_maps(_Config) ->
    Options = oneof([#{}, #{compress => zstd}]),
    Parts = list({esdb_segment_gen:events(), Options}),
    Property = ?FORALL({Lists, Predicate}, {Parts, esdb_segment_gen:predicate()}, begin
        {ok, Handle} = esdb_filter_nif:compile_predicate(Predicate),
        Events = lists:append([Events || {Events, _} <- Lists]),
        Segments = [esdb_segment_nif:pack(Part, With) || {Part, With} <- Lists],
        same_answers(Events, Segments, Predicate, Handle) andalso
            lists:all(
                fun({{Part, _}, Segment}) -> same_answers(Part, Segment, Predicate, Handle) end,
                lists:zip(Lists, Segments)
            )
    end),
    holds(Property, 150).

same_answers(Events, Packed, Predicate, Handle) ->
    lists:all(
        fun(Function) ->
            Expected = esdb_filter_nif:Function(Events, Predicate),
            Expected =:= esdb_filter_nif:Function(Packed, Predicate) andalso
                Expected =:= esdb_filter_nif:Function(Packed, Handle)
        end,
        over_events()
    ).

over_events() ->
    [
        filter_events,
        filter_count,
        partition_events,
        first_match,
        find_all,
        any_match,
        all_match
    ].

segments_that_cannot_be_read(_Config) ->
    Whole = esdb_segment_nif:pack([#{data => #{n => 1}}]),
    Cut = binary:part(Whole, 0, byte_size(Whole) - 1),
    Dictionary = ~"a dictionary of its own",
    {esdb_segment, With, _} = esdb_segment_nif:with_dictionary(
        esdb_segment_nif:pack([#{data => binary:copy(Dictionary, 9)}], #{
            compress => zstd, dictionary => Dictionary
        }),
        Dictionary
    ),
    [
        begin
            Ask = fun(Events) -> esdb_filter_nif:Function(Events, {eq, n, 2}) end,
            ?assertEqual({error, {corrupt, header}}, Ask(~"segment")),
            ?assertEqual({error, {corrupt, header}}, Ask([Whole, Cut])),
            ?assertEqual({error, {corrupt, data}}, Ask(With)),
            ?assertError(badarg, Ask([Whole, #{}])),
            ?assertError(badarg, Ask([Whole | Whole])),
            ?assertError(badarg, Ask({esdb_segment, Whole, no_dictionary})),
            ?assertError(badarg, esdb_filter_nif:Function(Whole, nonsense)),
            ?assertError(badarg, esdb_filter_nif:Function(Whole, {esdb_predicate, ~"x", none}))
        end
     || Function <- over_events()
    ].

numbers_are_in_by_their_value(_Config) ->
    Numbers = [0, -0.0, 0.0, 1, 1.0, 2.5, -7, -7.0, 1 bsl 53, (1 bsl 53) + 1, 9007199254740992.0],
    More = Numbers ++ [1.0e300, trunc(1.0e300), 0.5, 5.0e-324, [1], [1.0], ~"1"],
    [
        ?assertEqual(
            {One, Of, filter_count([#{x => One}], {eq, x, Of})},
            {One, Of, filter_count([#{x => One}], {Op, x, [~"other", Of]})}
        )
     || One <- More, Of <- More, not is_list(One), not is_list(Of), Op <- [in, any_of]
    ],
    ?assertEqual(1, filter_count([#{x => [1]}, #{x => [1.0]}], {in, x, [[1]]})),
    ?assertEqual(2, filter_count([#{x => [1]}, #{x => [1.0]}], {any_of, x, [1]})).

%% Terms whose encodings begin alike, and more of them than anyone would look through.
long_lists_of_values(_Config) ->
    Values = [
        [<<N:16>>, <<N:24>>, N * 3, [N], {N, ~"a"}, #{N => 1}, list_to_atom("at" ++ [N rem 9 + $0])]
     || N <- lists:seq(1, 1_000)
    ],
    Wanted = lists:append(Values),
    Found = [3, 3.0, 1500, <<7:16>>, <<7:24>>, [8], {9, ~"a"}, #{9 => 1}, at3, [7.0, 8]],
    Near = [<<7:32>>, <<>>, <<0>>, [], [8 | 8], [8, 8], {9, ~"b"}, {9}, #{9 => 2}, at, at33],
    Others = [4, 3.5 | Near],
    Members = [~"no", 6, {}],
    Events = [#{x => Value} || Value <- Found ++ Others ++ [Members]],
    Packed = esdb_segment_nif:pack([#{data => Event} || Event <- Events]),
    InList = [[7.0, 8] | Wanted],
    [
        begin
            Naive = [E || #{x := X} = E <- Events, lists:any(fun(Y) -> is_one(X, Y) end, List)],
            ?assertEqual(Naive, esdb_filter_nif:filter_events(Events, {in, x, List})),
            ?assertEqual(length(Naive), filter_count(Packed, {in, x, List})),
            AnyOf = filter_count(Events, {any_of, x, List}),
            ?assertEqual(AnyOf, filter_count(Packed, {any_of, x, List})),
            ?assert(AnyOf >= 4)
        end
     || List <- [InList, lists:reverse(InList)]
    ],
    ?assertEqual(10, filter_count(Packed, {in, x, InList})).

is_one(X, Y) when is_number(X), is_number(Y) -> X == Y;
is_one(X, Y) -> X =:= Y.

what_is_too_large_is_told_where_it_is(_Config) ->
    Mistake = fun(Pattern) -> esdb_filter_nif:compile_regex(iolist_to_binary(Pattern)) end,
    Large = fun(At) -> {error, {invalid_pattern, {At, {too_large, 10_000}}}} end,
    ?assertEqual(Large(10_001), Mistake(binary:copy(~"a", 1_000_000))),
    ?assertEqual(Large(10_001), Mistake(binary:copy(~"|", 1_000_000))),
    ?assertEqual(Large(13), Mistake(~"(a{200}){100}b)")),
    ?assertMatch({ok, _}, Mistake(binary:copy(~"a", 10_000))),
    ?assertMatch({ok, _}, Mistake(binary:copy(~"()", 100_000))),
    ?assertMatch({ok, _}, Mistake([$[, binary:copy(~"abc", 100_000), $]])),
    %% Each alternative counts one more: known only at the end.
    ?assertEqual(Large(11_999), Mistake([lists:duplicate(5_999, ~"a|"), $a])).

%% What a handle carries besides its bytes may be anything.
forged_handles_count_by_their_bytes(_Config) ->
    {ok, {_, No, KeptNo}} = esdb_filter_nif:compile_predicate(false),
    {ok, {_, Yes, _}} = esdb_filter_nif:compile_predicate(true),
    Funs = [
        fun() -> {Yes, fun(_) -> error(called) end} end,
        fun() -> error(called) end,
        fun esdb_predicate_erl:module_info/0,
        fun esdb_filter_erl:module_info/0,
        fun erlang:self/0
    ],
    Garbage = [none, {Yes, garbage}, {made, esdb_regex, ~"a", garbage}, {1, KeptNo}, KeptNo | Funs],
    {ok, {_, Set, _}} = esdb_filter_nif:match_set([~"?a"]),
    [
        begin
            ?assertEqual(1, filter_count([#{}], {esdb_predicate, Yes, Kept})),
            ?assertEqual(0, filter_count([#{}], {esdb_predicate, No, Kept})),
            ?assert(wildcard_match(~"ab", {esdb_wildcard, ~"a*", Kept})),
            ?assert(regex_match(~"ab", {esdb_regex, ~"a", Kept})),
            ?assertEqual([0], match_indices([~"ab", ~"b"], {esdb_regex, ~"a", Kept})),
            ?assertEqual(
                [[0]],
                esdb_filter_nif:match_set_indices([~"ba"], {esdb_match_set, Set, Kept})
            )
        end
     || Kept <- Garbage
    ].

real_events(_Config) ->
    Events = esdb_commits:events(),
    Segments = [esdb_segment_nif:pack(Part, #{compress => zstd}) || Part <- parts(Events, 200)],
    [
        begin
            Expected = [Event || Event <- Events, Test(Event)],
            ?assert(Expected =/= [] andalso length(Expected) < length(Events)),
            ?assertEqual(Expected, esdb_filter_nif:filter_events(Events, Predicate)),
            ?assertEqual(Expected, esdb_filter_nif:filter_events(Segments, Predicate)),
            ?assertEqual(length(Expected), filter_count(Segments, Predicate)),
            ?assertEqual(
                {Expected, [Event || Event <- Events, not Test(Event)]},
                esdb_filter_nif:partition_events(Segments, Predicate)
            )
        end
     || {Predicate, Test} <- questions()
    ],
    Ids = [Id || #{event_id := Id} <- Events],
    {ok, Regex} = esdb_filter_nif:compile_regex(~"^[0-9]{2}.*(a|bc)$"),
    {ok, Same} = re:compile(~"^[0-9]{2}.*(a|bc)$"),
    ?assertEqual(
        [Id || Id <- Ids, re:run(Id, Same, [{capture, none}]) =:= match],
        esdb_filter_nif:filter_by_regex(Ids, Regex)
    ).

questions() ->
    [
        {{event_type, ~"CommitMerged"}, fun(#{event_type := Type}) -> Type =:= ~"CommitMerged" end},
        {{gt, ~"insertions", 100}, fun(#{data := #{~"insertions" := N}}) -> N > 100 end},
        {
            {'and', [{between, version, 10, 300}, {prefix, event_id, ~"a"}]},
            fun(#{version := V, event_id := <<C, _/binary>>}) ->
                V >= 10 andalso V =< 300 andalso C =:= $a
            end
        },
        {
            {'or', [{wildcard, event_id, ~"*7?"}, {in, stream_id, [~"area-1", ~"area-2"]}]},
            fun(#{event_id := Id, stream_id := Stream}) ->
                binary:at(Id, byte_size(Id) - 2) =:= $7 orelse Stream =:= ~"area-1" orelse
                    Stream =:= ~"area-2"
            end
        },
        {
            {'not', {regex, event_id, ~"^[a-f]"}},
            fun(#{event_id := <<C, _/binary>>}) -> C < $a end
        },
        {
            {'or', [{exists, [metadata, ~"parents", 1]}, {lt, ~"insertions", 500}]},
            fun(#{data := #{~"insertions" := N}}) -> N < 500 end
        }
    ].

parts([], _) ->
    [];
parts(Events, Size) ->
    {Part, Rest} = lists:split(min(Size, length(Events)), Events),
    [Part | parts(Rest, Size)].

%% Each row `| pattern | text that matches | text that does not |` of the guide is true.
tables_of_the_guide(_Config) ->
    Guide = filename:join([source_dir(), "..", "doc", "guides", "patterns.md"]),
    {ok, Text} = file:read_file(Guide),
    Wildcards = rows(Text, ~"<!-- wildcards -->"),
    Regexes = rows(Text, ~"<!-- expressions -->"),
    ?assert(length(Wildcards) >= 10),
    ?assert(length(Regexes) >= 40),
    [guide_row(fun esdb_filter_nif:wildcard_match/2, Row) || Row <- Wildcards],
    [guide_row(fun esdb_filter_nif:regex_match/2, Row) || Row <- Regexes],
    [
        begin
            Written = text_of_cell(Cell),
            {error, {invalid_pattern, Mistake}} = esdb_filter_nif:compile_regex(Written),
            ?assertEqual(text_of_cell(Expected), printed(Mistake), Written)
        end
     || [Cell, Expected | _] <- rows(Text, ~"<!-- mistakes -->")
    ].

printed(Mistake) -> iolist_to_binary(io_lib:format("~0tp", [Mistake])).

guide_row(Match, [Pattern, Yes, No | _]) ->
    [?assert(Match(Text, text_of_cell(Pattern)), {Pattern, Text}) || Text <- texts(Yes)],
    [?assertNot(Match(Text, text_of_cell(Pattern)), {Pattern, Text}) || Text <- texts(No)].

%% The cells of the table behind a mark.
rows(Text, Mark) ->
    [_, Behind] = binary:split(Text, Mark),
    [Table | _] = binary:split(string:trim(Behind, leading), ~"\n\n"),
    [_Head, _Line | Rows] = binary:split(Table, ~"\n", [global, trim_all]),
    [cells(Row) || Row <- Rows].

%% A bar inside of a cell is escaped.
cells(Row) ->
    Hidden = binary:replace(Row, ~"\\|", <<0>>, [global]),
    Cells = binary:split(Hidden, ~"|", [global, trim]),
    [binary:replace(string:trim(Cell), <<0>>, ~"|", [global]) || Cell <- tl(Cells)].

%% `code`, ...
texts(Cell) ->
    {match, Found} = re:run(Cell, ~"`([^`]*)`|(none)", [global, {capture, [1], binary}]),
    [unescaped(Text) || [Text] <- Found, Cell =/= ~"none"].

text_of_cell(Cell) ->
    {match, [Text]} = re:run(Cell, ~"`([^`]*)`", [{capture, [1], binary}]),
    Text.

%% In texts, not in patterns: a newline, an empty text and a byte that is no character.
unescaped(~"\"\"") -> <<>>;
unescaped(Text) -> unescaped(Text, <<>>).

unescaped(<<"\\n", Rest/binary>>, Done) ->
    unescaped(Rest, <<Done/binary, $\n>>);
unescaped(<<"\\t", Rest/binary>>, Done) ->
    unescaped(Rest, <<Done/binary, $\t>>);
unescaped(<<"\\x", A, B, Rest/binary>>, Done) ->
    unescaped(Rest, <<Done/binary, (binary_to_integer(<<A, B>>, 16))>>);
unescaped(<<C, Rest/binary>>, Done) ->
    unescaped(Rest, <<Done/binary, C>>);
unescaped(<<>>, Done) ->
    Done.

source_dir() -> filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))).

misuse_is_badarg(_Config) ->
    [
        ?assertError(badarg, apply(esdb_filter_nif, Function, Arguments))
     || {Function, Arguments} <- [
            {wildcard_match, ["list", ~"a"]},
            {wildcard_match, [~"a", "list"]},
            {regex_match, [a, ~"("]},
            {compile_wildcard, [a]},
            {compile_regex, ["a"]},
            {match_set, [[~"a" | ~"b"]]},
            {match_set, [[a]]},
            {filter_by_wildcard, [[~"a" | b], ~"*"]},
            {filter_by_regex, [[~"a", b], ~"("]},
            {filter_by_prefix, [[a], ~"a"]},
            {match_indices, [~"a", ~"*"]},
            {match_indices, [[<<1:3>>], ~"*"]},
            {filter_events, [[#{} | a], true]},
            {filter_events, [[a], true]}
        ]
    ].

%% Above what a normal scheduler takes.
long_lists(_Config) ->
    Items = [<<"item-", (integer_to_binary(I))/binary>> || I <- lists:seq(1, 50_000)],
    Expected = [I || I <- lists:seq(0, 49_999), (I + 1) rem 10 =:= 7],
    {ok, Wild} = esdb_filter_nif:compile_wildcard(~"*7"),
    {ok, Regex} = esdb_filter_nif:compile_regex(~"^item-\\d*7$"),
    ?assertEqual(Expected, match_indices(Items, Wild)),
    ?assertEqual(Expected, match_indices(Items, Regex)),
    ?assertEqual(5_000, esdb_filter_nif:count_matches(Items, ~"*7")),
    ?assertEqual(5_000, length(esdb_filter_nif:filter_by_regex(Items, Regex))),
    Sets = esdb_filter_nif:match_set_indices(Items, [~"*7", Regex]),
    ?assertEqual(5_000, length([Both || [0, 1] = Both <- Sets])).

%% Helpers

word(Letters, Length) ->
    ?LET(Size, integer(0, Length), ?LET(Word, vector(Size, oneof(Letters)), list_to_binary(Word))).

holds(Property, Cases) ->
    ?assert(proper:quickcheck(Property, [quiet, {numtests, Cases}, {to_file, user}])).
