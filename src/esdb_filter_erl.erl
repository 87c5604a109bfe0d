-module(esdb_filter_erl).
-moduledoc """
The Erlang twin of the library behind `esdb_filter_nif`: patterns over texts and lists of texts.

```erlang
1> Handle = {esdb_wildcard, ~"a*", esdb_filter_erl:make(esdb_wildcard, ~"a*")}.
2> esdb_filter_erl:filter([~"ab", ~"ba"], Handle).
[<<"ab">>]
```

A pattern is its handle `{Kind, Bytes, Kept}`, and the bytes decide. Where `Kept` was not
made of them, a wildcard is made anew, and of a regular expression the answer is `stale`: whoever
asks has to give the bytes to the parser first. What is kept is wrapped in a fun of this module, for
nobody else can make one: so what is in a forged handle is never taken for it.
""".

-export([make/2, match/2, wildcard/3, filter/2, indices/2, count/2]).
-export([make_set/2, set_indices/2]).
-export([has_prefix/2, has_suffix/2]).
-export_type([kind/0, sized/0, kept/0, pattern/0]).

%% Dialyzer does not follow what is folded.
-dialyzer({no_missing_return, count/2}).

-type kind() :: esdb_wildcard | esdb_regex.
-type sized() :: {kind(), binary(), Size :: non_neg_integer()}.
-type made() ::
    {made, esdb_wildcard, binary(), esdb_wildcard_erl:wildcard()}
    | {made, esdb_regex, binary(), esdb_regex_erl:automaton()}.
-type made_set() :: {made_set, Canonical :: binary(), [made()]}.
-type kept() :: fun(() -> made() | made_set()).
-type pattern() :: {kind(), binary(), term()}.

-doc "What is kept of a pattern. The bytes of a regular expression are a rendering of the parser.".
-spec make(kind(), binary()) -> kept().
make(Kind, Bytes) -> kept(made(Kind, Bytes)).

-spec made(kind(), binary()) -> made().
made(esdb_wildcard, Bytes) ->
    {made, esdb_wildcard, Bytes, esdb_wildcard_erl:compile(Bytes)};
made(esdb_regex, Bytes) ->
    {ok, Parsed} = esdb_regex_erl:parse(Bytes),
    {made, esdb_regex, Bytes, esdb_regex_erl:automaton(Parsed)}.

-spec kept(made() | made_set()) -> kept().
kept(Made) -> fun() -> Made end.

%% What was made of a handle, on this node and by this implementation.
-spec made(pattern()) -> made() | stale.
made({Kind, Bytes, Compiled}) ->
    case esdb_handle:opened(Compiled, ?MODULE) of
        {ok, {made, Kind, Bytes, _} = Made} -> Made;
        _ when Kind =:= esdb_wildcard -> made(esdb_wildcard, Bytes);
        _ -> stale
    end.

-doc "Whether a whole text matches a wildcard; what was kept of it saves making it.".
-spec wildcard(binary(), binary(), Compiled :: term()) -> boolean().
wildcard(Text, Bytes, Compiled) ->
    {made, esdb_wildcard, _, Wildcard} = made({esdb_wildcard, Bytes, Compiled}),
    esdb_wildcard_erl:is_match(Text, Wildcard).

-doc "Whether a text matches.".
-spec match(binary(), pattern()) -> boolean() | stale.
match(Text, Pattern) ->
    case made(Pattern) of
        stale -> stale;
        Made -> element(1, ask(Text, Made))
    end.

-doc "The texts that match, in their order.".
-spec filter([binary()], pattern()) -> [binary()] | stale.
filter(Items, Pattern) ->
    case made(Pattern) of
        stale -> stale;
        Made -> lists:reverse(fold(fun(Item, _, Found) -> [Item | Found] end, [], Items, Made))
    end.

-doc "The places of the texts that match, from 0, ascending.".
-spec indices([binary()], pattern()) -> [non_neg_integer()] | stale.
indices(Items, Pattern) ->
    case made(Pattern) of
        stale -> stale;
        Made -> lists:reverse(fold(fun(_, Index, Found) -> [Index | Found] end, [], Items, Made))
    end.

-doc "How many texts match.".
-spec count([binary()], pattern()) -> non_neg_integer() | stale.
count(Items, Pattern) ->
    case made(Pattern) of
        stale -> stale;
        Made -> fold(fun(_, _, Found) -> Found + 1 end, 0, Items, Made)
    end.

-spec fold(fun((binary(), non_neg_integer(), Acc) -> Acc), Acc, [binary()], made()) -> Acc.
fold(Fun, Acc, Items, Made) -> fold(Fun, Acc, Items, 0, Made).

-spec fold(fun((binary(), I, Acc) -> Acc), Acc, [binary()], I, made()) -> Acc when
    I :: non_neg_integer().
fold(_, Acc, [], _, _) ->
    Acc;
fold(Fun, Acc, [Item | Items], Index, Made) ->
    case ask(Item, Made) of
        {true, Made1} -> fold(Fun, Fun(Item, Index, Acc), Items, Index + 1, Made1);
        {false, Made1} -> fold(Fun, Acc, Items, Index + 1, Made1)
    end.

%% The automaton learns from each text for the next.
-spec ask(binary(), made()) -> {boolean(), made()}.
ask(Text, {made, esdb_wildcard, _, Wildcard} = Made) ->
    {esdb_wildcard_erl:is_match(Text, Wildcard), Made};
ask(Text, {made, esdb_regex, Bytes, Automaton}) ->
    {IsMatch, Automaton1} = esdb_regex_erl:match(Text, Automaton),
    {IsMatch, {made, esdb_regex, Bytes, Automaton1}}.

-doc "What is kept of a set of patterns.".
-spec make_set(Canonical :: binary(), [sized()]) -> kept().
make_set(Canonical, Patterns) ->
    kept({made_set, Canonical, [made(Kind, Bytes) || {Kind, Bytes, _} <- Patterns]}).

-doc "For each text the places of the patterns that match it, from 0, ascending.".
-spec set_indices([binary()], {esdb_match_set, binary(), term()}) ->
    [[non_neg_integer()]] | stale.
set_indices(Items, {esdb_match_set, Canonical, Compiled}) ->
    case esdb_handle:opened(Compiled, ?MODULE) of
        {ok, {made_set, Canonical, Made}} ->
            {Found, _} = lists:mapfoldl(fun each/2, Made, Items),
            Found;
        _ ->
            stale
    end.

-spec each(binary(), [made()]) -> {[non_neg_integer()], [made()]}.
each(Item, Made) ->
    {Answers, Made1} = lists:unzip([ask(Item, One) || One <- Made]),
    {[Index || {Index, true} <- lists:enumerate(0, Answers)], Made1}.

-doc "Whether a text begins so.".
-spec has_prefix(binary(), binary()) -> boolean().
has_prefix(Text, Prefix) ->
    Size = byte_size(Prefix),
    case Text of
        <<Prefix:Size/binary, _/binary>> -> true;
        _ -> false
    end.

-doc "Whether a text ends so.".
-spec has_suffix(binary(), binary()) -> boolean().
has_suffix(Text, Suffix) ->
    Skip = byte_size(Text) - byte_size(Suffix),
    Skip >= 0 andalso binary_part(Text, Skip, byte_size(Suffix)) =:= Suffix.
