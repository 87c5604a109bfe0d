-module(esdb_regex_erl).
-moduledoc """
Regular expressions over bytes: the parser of both implementations, and the automaton of the twin.

```erlang
1> {ok, Parsed} = esdb_regex_erl:parse(~"^order-\\d{2,}$").
2> esdb_regex_erl:rendering(Parsed).
<<"\\Aorder\\x2D[0-9]{2,}\\z">>
3> esdb_regex_erl:is_match(~"order-17", esdb_regex_erl:automaton(Parsed)).
true
```

The dialect stands as a table in `doc/guides/patterns.md`. `parse/1` refuses what is outside of it,
and what is larger than `size/1` may be. A rendering is text of the same dialect with all flags
resolved: it parses to the same expression, and the `regex` crate of Rust, told to match bytes,
understands it alike.

The automaton is Thompson's, made deterministic as the text is read (see Russ Cox, "Regular
Expression Matching Can Be Simple And Fast", 2007): each byte is looked at once, and the states
found so far are forgotten when they become too many. A state is the set of places that are
reached, and what the byte before was as far as `^`, `\b` and their like ask. Bytes that no class
tells apart share their transitions.
""".

-export([parse/1, rendering/1, size/1]).
-export([automaton/1, is_match/2, match/2]).
-export_type([parsed/0, automaton/0, mistake/0, reason/0]).

%% For dialyzer a sum is any number.
-dialyzer({no_missing_return, measure/1}).

-type byte_range() :: {byte(), byte()}.
-type look() :: text_start | text_end | line_start | line_end | word | no_word.
-type ast() ::
    {class, [byte_range()]}
    | {look, look()}
    | {cat, [ast()]}
    | {alt, [ast(), ...]}
    | {repeat, ast(), non_neg_integer(), non_neg_integer() | infinity}.
-opaque parsed() :: {esdb_parsed_regex, ast()}.

-doc "Where in the pattern the mistake is, in bytes from 0, and what it is.".
-type mistake() :: {Position :: non_neg_integer(), reason()}.
-type reason() ::
    {unsupported, look_around | back_reference | atomic_group | possessive | property | conditional}
    | {unknown_escape, byte()}
    | {unknown_flag, byte()}
    | {unknown_class, binary()}
    | {too_large, Limit :: pos_integer()}
    | {too_deep, Limit :: pos_integer()}
    | unclosed_group
    | unopened_group
    | unclosed_class
    | invalid_group_name
    | nothing_to_repeat
    | invalid_repetition
    | invalid_range
    | invalid_hex
    | trailing_backslash.

%% The size of an expression is the number of its instructions, with repetitions written out.
-define(MAX_SIZE, 10_000).
-define(MAX_DEPTH, 100).
-define(ANY, [{0, 255}]).
-define(ANY_BUT_NEWLINE, [{0, 9}, {11, 255}]).
-define(DIGIT, [{$0, $9}]).
-define(WORD, [{$0, $9}, {$A, $Z}, {$_, $_}, {$a, $z}]).
-define(SPACE, [{$\t, $\r}, {$\s, $\s}]).
-define(EMPTY, {cat, []}).

%% Parser

%% `end_at` is the size of the pattern: what is left tells the position. `size` is at most what
%% `measure/1` will say of all that is read so far: so nothing is read on when it is too large.
-type context() :: #{
    end_at := non_neg_integer(),
    size := non_neg_integer(),
    depth := non_neg_integer(),
    ignore_case := boolean(),
    multi_line := boolean(),
    dot_all := boolean()
}.

-doc """
Parses a pattern; the mistake is the first one.

That a pattern is too large is found behind the part that makes it so, or at its end.
""".
-spec parse(Pattern :: binary()) -> {ok, parsed()} | {error, mistake()}.
parse(Pattern) ->
    End = byte_size(Pattern),
    Context = #{
        end_at => End,
        size => 0,
        depth => 0,
        ignore_case => false,
        multi_line => false,
        dot_all => false
    },
    try
        Ast = whole(Pattern, Context),
        measure(Ast) =< ?MAX_SIZE orelse throw({mistake, End, {too_large, ?MAX_SIZE}}),
        {ok, {esdb_parsed_regex, Ast}}
    catch
        throw:{mistake, Position, Reason} -> {error, {Position, Reason}}
    end.

-spec whole(binary(), context()) -> ast().
whole(Text, Context) ->
    case alternatives(Text, Context, []) of
        {Ast, <<>>} -> Ast;
        {_, Rest} -> mistake(Rest, Context, unopened_group)
    end.

-spec mistake(binary(), context(), reason()) -> no_return().
mistake(Rest, #{end_at := End}, Reason) -> throw({mistake, End - byte_size(Rest), Reason}).

-spec alternatives(binary(), context(), [ast()]) -> {ast(), binary()}.
alternatives(Text, Context, Before) ->
    case sequence(Text, Context, []) of
        {?EMPTY = Ast, <<$|, Rest/binary>>, Context1} ->
            alternatives(Rest, larger(1, Rest, Context1), [Ast | Before]);
        {Ast, <<$|, Rest/binary>>, Context1} ->
            alternatives(Rest, Context1, [Ast | Before]);
        {Ast, Rest, _} -> {alt(lists:reverse(Before, [Ast])), Rest}
    end.

%% Flags that are set in a sequence hold to the end of its group, the next alternatives included.
-spec sequence(binary(), context(), [ast()]) -> {ast(), binary(), context()}.
sequence(<<>>, Context, Done) ->
    {cat(lists:reverse(Done)), <<>>, Context};
sequence(<<C, _/binary>> = Text, Context, Done) when C =:= $|; C =:= $) ->
    {cat(lists:reverse(Done)), Text, Context};
sequence(<<"(?", C, _/binary>> = Text, Context, Done) when C >= $a, C =< $z; C =:= $- ->
    <<"(?", Rest/binary>> = Text,
    case flags(Rest, Context, true) of
        {<<$), Rest1/binary>>, Context1} ->
            sequence(Rest1, Context1, Done);
        {<<$:, Rest1/binary>>, Context1} ->
            {Ast, Rest2} = group(Text, Rest1, Context1),
            repeated(Ast, Rest2, Context, Done)
    end;
sequence(Text, Context, Done) ->
    {Ast, Rest} = atom(Text, Context),
    repeated(Ast, Rest, Context, Done).

-spec repeated(ast(), binary(), context(), [ast()]) -> {ast(), binary(), context()}.
repeated(Ast, Text, Context, Done) ->
    case repetition(Text, Context) of
        none -> part(Ast, Text, Context, Done);
        {Min, Max, Rest} -> part(repeat(Ast, Min, Max), once(Rest, Context), Context, Done)
    end.

-spec part(ast(), binary(), context(), [ast()]) -> {ast(), binary(), context()}.
part(?EMPTY, Text, Context, Done) ->
    sequence(Text, Context, Done);
part(Ast, Text, Context, Done) ->
    sequence(Text, larger(measure(Ast), Text, Context), [Ast | Done]).

-spec larger(pos_integer(), binary(), context()) -> context().
larger(By, Rest, #{size := Size} = Context) ->
    Size + By =< ?MAX_SIZE orelse mistake(Rest, Context, {too_large, ?MAX_SIZE}),
    Context#{size := Size + By}.

%% Whether few or many are preferred changes nothing where only yes or no is asked.
-spec once(binary(), context()) -> binary().
once(<<$?, Rest/binary>>, Context) -> not_repeated(Rest, Context);
once(<<$+, _/binary>> = Text, Context) -> mistake(Text, Context, {unsupported, possessive});
once(Text, Context) -> not_repeated(Text, Context).

-spec not_repeated(binary(), context()) -> binary().
not_repeated(<<C, _/binary>> = Text, Context) when C =:= $*; C =:= $+; C =:= $?; C =:= ${ ->
    mistake(Text, Context, nothing_to_repeat);
not_repeated(Text, _) ->
    Text.

-spec repetition(binary(), context()) ->
    none | {non_neg_integer(), non_neg_integer() | infinity, binary()}.
repetition(<<$*, Rest/binary>>, _) -> {0, infinity, Rest};
repetition(<<$+, Rest/binary>>, _) -> {1, infinity, Rest};
repetition(<<$?, Rest/binary>>, _) -> {0, 1, Rest};
repetition(<<${, Rest/binary>> = Text, Context) -> counted(number(Rest), Text, Context);
repetition(_, _) -> none.

-spec counted({non_neg_integer() | none, binary()}, binary(), context()) ->
    {non_neg_integer(), non_neg_integer() | infinity, binary()}.
counted({Min, <<$}, Rest/binary>>}, _, _) when is_integer(Min) ->
    {Min, Min, Rest};
counted({Min, <<$,, Rest/binary>>}, Text, Context) when is_integer(Min) ->
    case number(Rest) of
        {none, <<$}, Rest1/binary>>} -> {Min, infinity, Rest1};
        {Max, <<$}, Rest1/binary>>} when is_integer(Max), Max >= Min -> {Min, Max, Rest1};
        _ -> mistake(Text, Context, invalid_repetition)
    end;
counted(_, Text, Context) ->
    mistake(Text, Context, invalid_repetition).

%% Digits; a number above the limit stays just above it, however long it is.
-spec number(binary()) -> {non_neg_integer() | none, binary()}.
number(Text) -> number(Text, none).

-spec number(binary(), non_neg_integer() | none) -> {non_neg_integer() | none, binary()}.
number(<<C, Rest/binary>>, none) when C >= $0, C =< $9 -> number(Rest, C - $0);
number(<<C, Rest/binary>>, N) when C >= $0, C =< $9 ->
    number(Rest, min(N * 10 + C - $0, ?MAX_SIZE + 1));
number(Rest, N) ->
    {N, Rest}.

-spec atom(binary(), context()) -> {ast(), binary()}.
atom(<<$., Rest/binary>>, #{dot_all := true}) -> {{class, ?ANY}, Rest};
atom(<<$., Rest/binary>>, _) -> {{class, ?ANY_BUT_NEWLINE}, Rest};
atom(<<$^, Rest/binary>>, #{multi_line := true}) -> {{look, line_start}, Rest};
atom(<<$^, Rest/binary>>, _) -> {{look, text_start}, Rest};
atom(<<$$, Rest/binary>>, #{multi_line := true}) -> {{look, line_end}, Rest};
atom(<<$$, Rest/binary>>, _) -> {{look, text_end}, Rest};
atom(<<$[, Rest/binary>> = Text, Context) -> class(Rest, Text, Context);
atom(<<"(?", Rest/binary>> = Text, Context) -> special_group(Rest, Text, Context);
atom(<<$(, Rest/binary>> = Text, Context) -> group(Text, Rest, Context);
atom(<<$\\, Rest/binary>> = Text, Context) -> escape(Rest, Text, Context);
atom(<<C, _/binary>> = Text, Context) when C =:= $*; C =:= $+; C =:= $?; C =:= ${ ->
    mistake(Text, Context, nothing_to_repeat);
atom(<<C, Rest/binary>>, Context) ->
    {literal(C, Context), Rest}.

-spec literal(byte(), context()) -> {class, [byte_range()]}.
literal(C, Context) -> {class, folded([{C, C}], Context)}.

%% What stands between the parentheses; Text begins with the opening one.
-spec group(binary(), binary(), context()) -> {ast(), binary()}.
group(Text, _, #{depth := ?MAX_DEPTH} = Context) ->
    mistake(Text, Context, {too_deep, ?MAX_DEPTH});
group(Text, Rest, #{depth := Depth} = Context) ->
    case alternatives(Rest, Context#{depth := Depth + 1}, []) of
        {Ast, <<$), Rest1/binary>>} -> {Ast, Rest1};
        {_, <<>>} -> mistake(Text, Context, unclosed_group)
    end.

-spec special_group(binary(), binary(), context()) -> {ast(), binary()}.
special_group(<<$:, Rest/binary>>, Text, Context) ->
    group(Text, Rest, Context);
special_group(<<C, _/binary>>, Text, Context) when C =:= $=; C =:= $! ->
    mistake(Text, Context, {unsupported, look_around});
special_group(<<$<, C, _/binary>>, Text, Context) when C =:= $=; C =:= $! ->
    mistake(Text, Context, {unsupported, look_around});
special_group(<<$>, _/binary>>, Text, Context) ->
    mistake(Text, Context, {unsupported, atomic_group});
special_group(<<$(, _/binary>>, Text, Context) ->
    mistake(Text, Context, {unsupported, conditional});
special_group(<<"P=", _/binary>>, Text, Context) ->
    mistake(Text, Context, {unsupported, back_reference});
special_group(<<"P<", Rest/binary>>, Text, Context) ->
    group(Text, group_name(Rest, Rest, Context), Context);
special_group(<<$<, Rest/binary>>, Text, Context) ->
    group(Text, group_name(Rest, Rest, Context), Context);
special_group(<<C, _/binary>> = Rest, _, Context) ->
    mistake(Rest, Context, {unknown_flag, C});
special_group(<<>>, Text, Context) ->
    mistake(Text, Context, unclosed_group).

%% A name is read and forgotten: nothing is captured.
-spec group_name(binary(), binary(), context()) -> binary().
group_name(<<$>, Rest/binary>>, Name, _) when byte_size(Name) > byte_size(Rest) + 1 ->
    Rest;
group_name(<<C, Rest/binary>>, Name, Context) when
    C >= $a, C =< $z; C >= $A, C =< $Z; C =:= $_; C >= $0, C =< $9, Rest =/= Name
->
    case C >= $0 andalso C =< $9 andalso byte_size(Rest) + 1 =:= byte_size(Name) of
        true -> mistake(Name, Context, invalid_group_name);
        false -> group_name(Rest, Name, Context)
    end;
group_name(_, Name, Context) ->
    mistake(Name, Context, invalid_group_name).

%% After "(?": letters, a minus that turns off what follows it, and the end, `)` or `:`.
-spec flags(binary(), context(), boolean()) -> {binary(), context()}.
flags(<<$i, Rest/binary>>, Context, On) -> flags(Rest, Context#{ignore_case := On}, On);
flags(<<$m, Rest/binary>>, Context, On) -> flags(Rest, Context#{multi_line := On}, On);
flags(<<$s, Rest/binary>>, Context, On) -> flags(Rest, Context#{dot_all := On}, On);
flags(<<$-, C, Rest/binary>>, Context, true) when C =/= $), C =/= $: ->
    flags(<<C, Rest/binary>>, Context, false);
flags(<<C, _/binary>> = Text, Context, _) when C =:= $); C =:= $: -> {Text, Context};
flags(<<C, _/binary>> = Text, Context, _) -> mistake(Text, Context, {unknown_flag, C});
flags(<<>>, Context, _) -> mistake(<<>>, Context, unclosed_group).

%% Text begins with the backslash.
-spec escape(binary(), binary(), context()) -> {ast(), binary()}.
escape(<<$A, Rest/binary>>, _, _) ->
    {{look, text_start}, Rest};
escape(<<$z, Rest/binary>>, _, _) ->
    {{look, text_end}, Rest};
escape(<<$b, Rest/binary>>, _, _) ->
    {{look, word}, Rest};
escape(<<$B, Rest/binary>>, _, _) ->
    {{look, no_word}, Rest};
escape(<<C, _/binary>>, Text, Context) when C >= $1, C =< $9; C =:= $k; C =:= $g ->
    mistake(Text, Context, {unsupported, back_reference});
escape(Rest, Text, Context) ->
    case escaped(Rest, Text, Context) of
        {byte, C, Rest1} -> {literal(C, Context), Rest1};
        {class, Ranges, Rest1} -> {{class, Ranges}, Rest1}
    end.

%% The escapes that a class has too.
-spec escaped(binary(), binary(), context()) ->
    {byte, byte(), binary()} | {class, [byte_range()], binary()}.
escaped(<<$d, Rest/binary>>, _, _) -> {class, ?DIGIT, Rest};
escaped(<<$D, Rest/binary>>, _, _) -> {class, negated(?DIGIT), Rest};
escaped(<<$w, Rest/binary>>, _, _) -> {class, ?WORD, Rest};
escaped(<<$W, Rest/binary>>, _, _) -> {class, negated(?WORD), Rest};
escaped(<<$s, Rest/binary>>, _, _) -> {class, ?SPACE, Rest};
escaped(<<$S, Rest/binary>>, _, _) -> {class, negated(?SPACE), Rest};
escaped(<<$n, Rest/binary>>, _, _) -> {byte, $\n, Rest};
escaped(<<$r, Rest/binary>>, _, _) -> {byte, $\r, Rest};
escaped(<<$t, Rest/binary>>, _, _) -> {byte, $\t, Rest};
escaped(<<$f, Rest/binary>>, _, _) -> {byte, $\f, Rest};
escaped(<<$v, Rest/binary>>, _, _) -> {byte, $\v, Rest};
escaped(<<$a, Rest/binary>>, _, _) -> {byte, 7, Rest};
escaped(<<$x, Rest/binary>>, Text, Context) -> hex(Rest, Text, Context);
escaped(<<C, _/binary>>, Text, Context) when C =:= $p; C =:= $P ->
    mistake(Text, Context, {unsupported, property});
escaped(<<C, _/binary>>, Text, Context) when
    C >= $0, C =< $9; C >= $A, C =< $Z; C >= $a, C =< $z; C >= 128
->
    mistake(Text, Context, {unknown_escape, C});
escaped(<<C, Rest/binary>>, _, _) -> {byte, C, Rest};
escaped(<<>>, Text, Context) -> mistake(Text, Context, trailing_backslash).

-spec hex(binary(), binary(), context()) -> {byte, byte(), binary()}.
hex(<<${, A, $}, Rest/binary>>, Text, Context) ->
    {byte, digit(A, Text, Context), Rest};
hex(<<${, A, B, $}, Rest/binary>>, Text, Context) ->
    {byte, digit(A, Text, Context) * 16 + digit(B, Text, Context), Rest};
hex(<<A, B, Rest/binary>>, Text, Context) ->
    {byte, digit(A, Text, Context) * 16 + digit(B, Text, Context), Rest};
hex(_, Text, Context) ->
    mistake(Text, Context, invalid_hex).

-spec digit(byte(), binary(), context()) -> 0..15.
digit(C, _, _) when C >= $0, C =< $9 -> C - $0;
digit(C, _, _) when C >= $a, C =< $f -> C - $a + 10;
digit(C, _, _) when C >= $A, C =< $F -> C - $A + 10;
digit(_, Text, Context) -> mistake(Text, Context, invalid_hex).

%% Classes. A `]` right at the beginning is a member.

%% However long a class is, there are not many ranges.
-type ranges() :: #{byte_range() => []}.

-spec class(binary(), binary(), context()) -> {ast(), binary()}.
class(<<"^]", Rest/binary>>, Text, Context) ->
    excluding(member($], Rest, Text, Context, #{}), Context);
class(<<$^, Rest/binary>>, Text, Context) ->
    excluding(members(Rest, Text, Context, #{}), Context);
class(<<$], Rest/binary>>, Text, Context) ->
    including(member($], Rest, Text, Context, #{}), Context);
class(Rest, Text, Context) ->
    including(members(Rest, Text, Context, #{}), Context).

-spec including({[byte_range()], binary()}, context()) -> {ast(), binary()}.
including({Ranges, Rest}, Context) -> {{class, folded(Ranges, Context)}, Rest}.

-spec excluding({[byte_range()], binary()}, context()) -> {ast(), binary()}.
excluding({Ranges, Rest}, Context) -> {{class, negated(folded(Ranges, Context))}, Rest}.

-spec members(binary(), binary(), context(), ranges()) -> {[byte_range()], binary()}.
members(<<$], Rest/binary>>, _, _, Done) ->
    {maps:keys(Done), Rest};
members(<<"[:", Rest/binary>> = At, Text, Context, Done) ->
    {Ranges, Rest1} = named(binary:split(Rest, ~":]"), At, Context),
    members(Rest1, Text, Context, with(Ranges, Done));
members(<<$\\, $b, _/binary>> = At, _, Context, _) ->
    mistake(At, Context, {unknown_escape, $b});
members(<<$\\, Rest/binary>> = At, Text, Context, Done) ->
    case escaped(Rest, At, Context) of
        {byte, C, Rest1} -> member(C, Rest1, Text, Context, Done);
        {class, Ranges, Rest1} -> after_class(Rest1, Text, Context, with(Ranges, Done))
    end;
members(<<C, Rest/binary>>, Text, Context, Done) ->
    member(C, Rest, Text, Context, Done);
members(<<>>, Text, Context, _) ->
    mistake(Text, Context, unclosed_class).

%% A class is no end of a range: a minus behind it has to be the last member.
-spec after_class(binary(), binary(), context(), ranges()) -> {[byte_range()], binary()}.
after_class(<<$-, C, _/binary>> = At, _, Context, _) when C =/= $] ->
    mistake(At, Context, invalid_range);
after_class(Rest, Text, Context, Done) ->
    members(Rest, Text, Context, Done).

%% The byte C, which may begin a range.
-spec member(byte(), binary(), binary(), context(), ranges()) -> {[byte_range()], binary()}.
member(C, <<"-]", _/binary>> = Rest, Text, Context, Done) ->
    members(Rest, Text, Context, Done#{{C, C} => []});
member(C, <<$-, Rest/binary>> = At, Text, Context, Done) ->
    case range_end(Rest, Text, Context) of
        {byte, Last, Rest1} when Last >= C ->
            members(Rest1, Text, Context, Done#{{C, Last} => []});
        _ ->
            mistake(At, Context, invalid_range)
    end;
member(C, Rest, Text, Context, Done) ->
    members(Rest, Text, Context, Done#{{C, C} => []}).

-spec range_end(binary(), binary(), context()) ->
    {byte, byte(), binary()} | {class, [byte_range()], binary()}.
range_end(<<$\\, $b, _/binary>> = At, _, Context) -> mistake(At, Context, {unknown_escape, $b});
range_end(<<$\\, Rest/binary>> = At, _, Context) -> escaped(Rest, At, Context);
range_end(<<"[:", _/binary>> = At, _, Context) -> mistake(At, Context, invalid_range);
range_end(<<C, Rest/binary>>, _, _) -> {byte, C, Rest};
range_end(<<>>, Text, Context) -> mistake(Text, Context, unclosed_class).

-spec with([byte_range()], ranges()) -> ranges().
with(Ranges, Done) -> maps:merge(Done, maps:from_keys(Ranges, [])).

-spec named([binary()], binary(), context()) -> {[byte_range()], binary()}.
named([<<$^, Name/binary>>, Rest], At, Context) ->
    {negated(named_ranges(Name, At, Context)), Rest};
named([Name, Rest], At, Context) ->
    {named_ranges(Name, At, Context), Rest};
named([_], At, Context) ->
    mistake(At, Context, unclosed_class).

-spec named_ranges(binary(), binary(), context()) -> [byte_range()].
named_ranges(~"alpha", _, _) -> [{$A, $Z}, {$a, $z}];
named_ranges(~"digit", _, _) -> ?DIGIT;
named_ranges(~"alnum", _, _) -> [{$0, $9}, {$A, $Z}, {$a, $z}];
named_ranges(~"upper", _, _) -> [{$A, $Z}];
named_ranges(~"lower", _, _) -> [{$a, $z}];
named_ranges(~"space", _, _) -> ?SPACE;
named_ranges(~"blank", _, _) -> [{$\t, $\t}, {$\s, $\s}];
named_ranges(~"punct", _, _) -> [{$!, $/}, {$:, $@}, {$[, $`}, {${, $~}];
named_ranges(~"xdigit", _, _) -> [{$0, $9}, {$A, $F}, {$a, $f}];
named_ranges(~"word", _, _) -> ?WORD;
named_ranges(~"cntrl", _, _) -> [{0, 31}, {127, 127}];
named_ranges(~"print", _, _) -> [{$\s, $~}];
named_ranges(~"graph", _, _) -> [{$!, $~}];
named_ranges(~"ascii", _, _) -> [{0, 127}];
named_ranges(Name, At, Context) ->
    mistake(At, Context, {unknown_class, binary:part(Name, 0, min(32, byte_size(Name)))}).

%% Sets of bytes: ranges in ascending order that neither overlap nor touch.

-spec folded([byte_range()], context()) -> [byte_range()].
folded(Ranges, #{ignore_case := false}) ->
    joined(Ranges);
folded(Ranges, #{ignore_case := true}) ->
    Upper = [R || Range <- Ranges, R <- shifted(Range, $a, $z, -32)],
    Lower = [R || Range <- Ranges, R <- shifted(Range, $A, $Z, 32)],
    joined(Upper ++ Lower ++ Ranges).

-spec shifted(byte_range(), byte(), byte(), -32 | 32) -> [byte_range()].
shifted({First, Last}, Low, High, By) when Last >= Low, First =< High ->
    [{max(First, Low) + By, min(Last, High) + By}];
shifted(_, _, _, _) ->
    [].

-spec joined([byte_range()]) -> [byte_range()].
joined(Ranges) -> join(lists:usort(Ranges)).

-spec join([byte_range()]) -> [byte_range()].
join([{A, B}, {C, D} | Ranges]) when C =< B + 1 -> join([{A, max(B, D)} | Ranges]);
join([Range | Ranges]) -> [Range | join(Ranges)];
join([]) -> [].

-spec negated([byte_range()]) -> [byte_range()].
negated(Ranges) -> gaps(0, joined(Ranges)).

-spec gaps(0..256, [byte_range()]) -> [byte_range()].
gaps(From, [{First, Last} | Ranges]) when From < First ->
    [{From, First - 1} | gaps(Last + 1, Ranges)];
gaps(_, [{_, Last} | Ranges]) ->
    gaps(Last + 1, Ranges);
gaps(256, []) ->
    [];
gaps(From, []) ->
    [{From, 255}].

%% Expressions in the one form that the parser makes of them and of their rendering

-spec cat([ast()]) -> ast().
cat([Ast]) ->
    Ast;
cat(Asts) ->
    case lists:flatmap(fun parts/1, Asts) of
        [Ast] -> Ast;
        Parts -> {cat, Parts}
    end.

-spec parts(ast()) -> [ast()].
parts({cat, Asts}) -> Asts;
parts(Ast) -> [Ast].

-spec alt([ast(), ...]) -> ast().
alt([Ast]) -> Ast;
alt(Asts) -> {alt, lists:flatmap(fun branches/1, Asts)}.

-spec branches(ast()) -> [ast()].
branches({alt, Asts}) -> Asts;
branches(Ast) -> [Ast].

-spec repeat(ast(), non_neg_integer(), non_neg_integer() | infinity) -> ast().
repeat(Ast, 1, 1) -> Ast;
repeat(Ast, Min, Max) -> {repeat, Ast, Min, Max}.

-doc """
How large an expression is: what the automaton has of instructions, at most 10,000.

A class counts as the number of its ranges, an alternative and an optional part as one more, and
what is repeated as often as it may be.
""".
-spec size(parsed()) -> pos_integer().
size({esdb_parsed_regex, Ast}) -> measure(Ast).

-spec measure(ast()) -> pos_integer().
measure({class, Ranges}) -> max(1, length(Ranges));
measure({look, _}) -> 1;
measure({cat, Asts}) -> max(1, lists:sum([measure(Ast) || Ast <- Asts]));
measure({alt, Asts}) -> lists:sum([measure(Ast) + 1 || Ast <- Asts]);
measure({repeat, Ast, Min, infinity}) -> (measure(Ast) + 1) * max(1, Min);
measure({repeat, Ast, _, Max}) -> (measure(Ast) + 1) * max(1, Max).

%% Rendering

-doc """
The expression as text for the `regex` crate (bytes, without Unicode), and for `parse/1`.
""".
-spec rendering(parsed()) -> binary().
rendering({esdb_parsed_regex, Ast}) ->
    case has_line_look(Ast) of
        true -> iolist_to_binary([~"(?m)", render(Ast)]);
        false -> iolist_to_binary(render(Ast))
    end.

%% `^` and `$` of a rendering are those of lines: no group is needed around them, which could make
%% it deeper than the pattern was.
-spec has_line_look(ast()) -> boolean().
has_line_look({look, Look}) -> Look =:= line_start orelse Look =:= line_end;
has_line_look({class, _}) -> false;
has_line_look({repeat, Ast, _, _}) -> has_line_look(Ast);
has_line_look({_, Asts}) -> lists:any(fun has_line_look/1, Asts).

-spec render(ast()) -> iodata().
render({class, [{C, C}]}) -> render_byte(C);
render({class, []}) -> ~"[^\\x00-\\xFF]";
render({class, Ranges}) -> [$[, [render_range(Range) || Range <- Ranges], $]];
render({look, text_start}) -> ~"\\A";
render({look, text_end}) -> ~"\\z";
render({look, line_start}) -> ~"^";
render({look, line_end}) -> ~"$";
render({look, word}) -> ~"\\b";
render({look, no_word}) -> ~"\\B";
render({cat, Asts}) -> [render_part(Ast) || Ast <- Asts];
render({alt, Asts}) -> lists:join($|, [render(Ast) || Ast <- Asts]);
render({repeat, {class, _} = Ast, Min, Max}) -> [render(Ast), render_count(Min, Max)];
render({repeat, Ast, Min, Max}) -> [~"(?:", render(Ast), $), render_count(Min, Max)].

-spec render_part(ast()) -> iodata().
render_part({alt, _} = Ast) -> [~"(?:", render(Ast), $)];
render_part(Ast) -> render(Ast).

-spec render_count(non_neg_integer(), non_neg_integer() | infinity) -> iodata().
render_count(0, infinity) -> ~"*";
render_count(1, infinity) -> ~"+";
render_count(0, 1) -> ~"?";
render_count(Min, infinity) -> [${, integer_to_binary(Min), ~",}"];
render_count(Min, Min) -> [${, integer_to_binary(Min), $}];
render_count(Min, Max) -> [${, integer_to_binary(Min), $,, integer_to_binary(Max), $}].

-spec render_range(byte_range()) -> iolist().
render_range({C, C}) -> render_byte(C);
render_range({First, Last}) -> [render_byte(First), $-, render_byte(Last)].

-spec render_byte(byte()) -> iolist().
render_byte(C) when C >= $0, C =< $9; C >= $A, C =< $Z; C >= $a, C =< $z; C =:= $_ -> [C];
render_byte(C) -> [~"\\x", binary:encode_hex(<<C>>)].

%% Automaton

-type place() :: non_neg_integer().
-type instruction() ::
    {class, [byte_range()], place()}
    | {look, look(), place()}
    | {split, place(), place()}
    | match.
%% What the byte before was, as far as the expression asks.
-type before() :: text_start | newline | word | other.
-type symbol() :: byte() | text_end.

-record(automaton, {
    code :: #{place() => instruction()},
    start :: place(),
    %% Which kind each byte is of: those of one kind are in the same classes.
    kinds :: binary(),
    %% Whether it matters what the byte before was: never, at the start of the text only, always.
    looks :: none | start | all,
    first :: {[place()], before()},
    %% What has been found out so far: states by number, numbers by state, and transitions.
    states = #{} :: #{non_neg_integer() => {[place()], before()}},
    numbers = #{} :: #{{[place()], before()} => non_neg_integer()},
    next = #{} :: #{non_neg_integer() => non_neg_integer() | match},
    %% How many places all states together have.
    held = 0 :: non_neg_integer()
}).
-opaque automaton() :: #automaton{}.

%% So many states are kept at most, and so many places in them: some 2 MB.
-define(MAX_STATES, 2_000).
-define(MAX_HELD, 100_000).
%% The kind of the end of the text.
-define(END, 256).

-doc "The automaton of an expression, before any text.".
-spec automaton(parsed()) -> automaton().
automaton({esdb_parsed_regex, Ast}) ->
    {Start, _, Code} = code(Ast, 0, 1, #{0 => match}),
    Looks = looks(maps:values(Code), none),
    Automaton = #automaton{
        code = Code,
        start = Start,
        kinds = kinds(maps:values(Code)),
        looks = Looks,
        first = {[Start], first_before(Looks)}
    },
    fresh(Automaton).

-spec first_before(none | start | all) -> text_start | other.
first_before(none) -> other;
first_before(_) -> text_start.

%% With what it knows at least: the first state, number 0.
-spec fresh(automaton()) -> automaton().
fresh(#automaton{first = First} = Automaton) ->
    Automaton#automaton{states = #{0 => First}, numbers = #{First => 0}, next = #{}, held = 0}.

%% Instructions that go on at To; New is the first place that is free.
-spec code(ast(), To :: place(), New :: place(), Code) -> {Start :: place(), place(), Code} when
    Code :: #{place() => instruction()}.
code({class, Ranges}, To, New, Code) ->
    {New, New + 1, Code#{New => {class, Ranges, To}}};
code({look, Look}, To, New, Code) ->
    {New, New + 1, Code#{New => {look, Look, To}}};
code({cat, Asts}, To, New, Code) ->
    Each = fun(Ast, {To1, New1, Code1}) -> code(Ast, To1, New1, Code1) end,
    lists:foldr(Each, {To, New, Code}, Asts);
code({alt, [Ast]}, To, New, Code) ->
    code(Ast, To, New, Code);
code({alt, [Ast | Asts]}, To, New, Code) ->
    {One, New1, Code1} = code(Ast, To, New, Code),
    {Other, New2, Code2} = code({alt, Asts}, To, New1, Code1),
    {New2, New2 + 1, Code2#{New2 => {split, One, Other}}};
code({repeat, Ast, 0, infinity}, To, New, Code) ->
    {Start, New1, Code1} = code(Ast, New, New + 1, Code),
    {New, New1, Code1#{New => {split, Start, To}}};
code({repeat, Ast, Min, infinity}, To, New, Code) ->
    {Start, New1, Code1} = code(Ast, New, New + 1, Code),
    times(Min - 1, Ast, Start, New1, Code1#{New => {split, Start, To}});
code({repeat, Ast, Min, Max}, To, New, Code) ->
    {Start, New1, Code1} = optional(Max - Min, Ast, To, To, New, Code),
    times(Min, Ast, Start, New1, Code1).

-spec times(non_neg_integer(), ast(), place(), place(), Code) -> {place(), place(), Code} when
    Code :: #{place() => instruction()}.
times(0, _, To, New, Code) ->
    {To, New, Code};
times(N, Ast, To, New, Code) ->
    {Start, New1, Code1} = code(Ast, To, New, Code),
    times(N - 1, Ast, Start, New1, Code1).

%% Up to N times Ast and then To; who has enough goes to Out.
-spec optional(non_neg_integer(), ast(), place(), place(), place(), Code) ->
    {place(), place(), Code}
when
    Code :: #{place() => instruction()}.
optional(0, _, To, _, New, Code) ->
    {To, New, Code};
optional(N, Ast, To, Out, New, Code) ->
    {Start, New1, Code1} = code(Ast, To, New, Code),
    optional(N - 1, Ast, New1, Out, New1 + 1, Code1#{New1 => {split, Start, Out}}).

-spec looks([instruction()], none | start | all) -> none | start | all.
looks([{look, text_start, _} | Code], none) -> looks(Code, start);
looks([{look, Look, _} | _], _) when Look =/= text_start, Look =/= text_end -> all;
looks([_ | Code], Looks) -> looks(Code, Looks);
looks([], Looks) -> Looks.

%% Numbers the intervals between all bytes at which some class, or what looks around, changes.
-spec kinds([instruction()]) -> binary().
kinds(Code) ->
    Looked = [
        [{$\n, $\n} | ?WORD]
     || {look, Look, _} <- Code, Look =/= text_start, Look =/= text_end
    ],
    Ranges = [Ranges || {class, Ranges, _} <- Code] ++ Looked,
    Starts = #{Byte => [] || Range <- Ranges, {First, Last} <- Range, Byte <- [First, Last + 1]},
    {Kinds, _} = lists:mapfoldl(
        fun
            (Byte, Kind) when Byte > 0, is_map_key(Byte, Starts) -> {Kind + 1, Kind + 1};
            (_, Kind) -> {Kind, Kind}
        end,
        0,
        lists:seq(0, 255)
    ),
    list_to_binary(Kinds).

-doc "Whether some part of the text matches.".
-spec is_match(Text :: binary(), automaton()) -> boolean().
is_match(Text, Automaton) ->
    {IsMatch, _} = match(Text, Automaton),
    IsMatch.

-doc "The same, and the automaton with what it has learned: for the next text.".
-spec match(Text :: binary(), automaton()) -> {boolean(), automaton()}.
match(Text, Automaton) -> run(Text, 0, Automaton).

-spec run(binary(), non_neg_integer(), automaton()) -> {boolean(), automaton()}.
run(<<Byte, Rest/binary>>, State, #automaton{kinds = Kinds, next = Next} = Automaton) ->
    Key = State bsl 9 + binary:at(Kinds, Byte),
    case Next of
        #{Key := match} ->
            {true, Automaton};
        #{Key := State1} ->
            run(Rest, State1, Automaton);
        _ ->
            case learned(State, Key, Byte, Automaton) of
                {match, Automaton1} -> {true, Automaton1};
                {State1, Automaton1} -> run(Rest, State1, Automaton1)
            end
    end;
run(<<>>, State, #automaton{next = Next} = Automaton) ->
    Key = State bsl 9 + ?END,
    case Next of
        #{Key := To} ->
            {To =:= match, Automaton};
        _ ->
            {To, Automaton1} = learned(State, Key, text_end, Automaton),
            {To =:= match, Automaton1}
    end.

%% Where a state leads to. A text may match anywhere, so each state begins anew as well.
-spec learned(non_neg_integer(), non_neg_integer(), symbol(), automaton()) ->
    {non_neg_integer() | match, automaton()}.
learned(Number, Key, Symbol, #automaton{states = States} = Automaton) ->
    #{Number := {Places, Before}} = States,
    case closed(Places, Before, Symbol, Automaton, #{}, []) of
        match ->
            {match, known(Key, match, Automaton)};
        Reached ->
            #automaton{start = Start, looks = Looks} = Automaton,
            State = {lists:usort([Start | Reached]), before(Symbol, Looks)},
            numbered(State, Key, Automaton)
    end.

-spec known(non_neg_integer(), non_neg_integer() | match, automaton()) -> automaton().
known(Key, To, #automaton{next = Next} = Automaton) -> Automaton#automaton{next = Next#{Key => To}}.

-spec numbered({[place()], before()}, non_neg_integer(), automaton()) ->
    {non_neg_integer(), automaton()}.
numbered(State, Key, Automaton) ->
    #automaton{states = States, numbers = Numbers, held = Held} = Automaton,
    case Numbers of
        #{State := Number} ->
            {Number, known(Key, Number, Automaton)};
        _ when map_size(States) >= ?MAX_STATES; Held >= ?MAX_HELD ->
            Fresh = fresh(Automaton),
            {1, Fresh#automaton{
                states = (Fresh#automaton.states)#{1 => State},
                numbers = (Fresh#automaton.numbers)#{State => 1}
            }};
        _ ->
            Number = map_size(States),
            Known = known(Key, Number, Automaton),
            {Number, Known#automaton{
                states = States#{Number => State},
                numbers = Numbers#{State => Number},
                held = Held + length(element(1, State))
            }}
    end.

-spec before(symbol(), none | start | all) -> newline | word | other.
before($\n, all) -> newline;
before(Byte, all) when is_integer(Byte) -> before_word(is_word(Byte));
before(_, _) -> other.

-spec before_word(boolean()) -> word | other.
before_word(true) -> word;
before_word(false) -> other.

%% What is reached from these places by Symbol; `match` when the end is reached without it.
-spec closed([place()], before(), symbol(), automaton(), #{place() => []}, [place()]) ->
    [place()] | match.
closed([Place | Places], Before, Symbol, Automaton, Seen, Reached) when is_map_key(Place, Seen) ->
    closed(Places, Before, Symbol, Automaton, Seen, Reached);
closed([Place | Places], Before, Symbol, #automaton{code = Code} = Automaton, Seen, Reached) ->
    Seen1 = Seen#{Place => []},
    case Code of
        #{Place := match} ->
            match;
        #{Place := {split, One, Other}} ->
            closed([One, Other | Places], Before, Symbol, Automaton, Seen1, Reached);
        #{Place := {look, Look, To}} ->
            case looks_so(Look, Before, Symbol) of
                true -> closed([To | Places], Before, Symbol, Automaton, Seen1, Reached);
                false -> closed(Places, Before, Symbol, Automaton, Seen1, Reached)
            end;
        #{Place := {class, Ranges, To}} ->
            case is_in(Symbol, Ranges) of
                true -> closed(Places, Before, Symbol, Automaton, Seen1, [To | Reached]);
                false -> closed(Places, Before, Symbol, Automaton, Seen1, Reached)
            end
    end;
closed([], _, _, _, _, Reached) ->
    Reached.

-spec looks_so(look(), before(), symbol()) -> boolean().
looks_so(text_start, Before, _) -> Before =:= text_start;
looks_so(text_end, _, Symbol) -> Symbol =:= text_end;
looks_so(line_start, Before, _) -> Before =:= text_start orelse Before =:= newline;
looks_so(line_end, _, Symbol) -> Symbol =:= text_end orelse Symbol =:= $\n;
looks_so(word, Before, Symbol) -> (Before =:= word) =/= is_word(Symbol);
looks_so(no_word, Before, Symbol) -> (Before =:= word) =:= is_word(Symbol).

-spec is_word(symbol()) -> boolean().
is_word(Symbol) -> is_in(Symbol, ?WORD).

-spec is_in(symbol(), [byte_range()]) -> boolean().
is_in(text_end, _) -> false;
is_in(Byte, [{_, Last} | Ranges]) when Byte > Last -> is_in(Byte, Ranges);
is_in(Byte, [{First, _} | _]) -> Byte >= First;
is_in(_, []) -> false.
