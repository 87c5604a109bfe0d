-module(bench_filter).
-moduledoc """
Patterns over lists of names against `re` compiled once, and predicates over maps against funs.
""".

-export([run/0]).

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    Names = names(1000),
    esdb_bench:title("Patterns over 1,000 names"),
    lists:foreach(fun(Row) -> list_row(Names, Row) end, [
        {"regex, a literal and digits", regex, ~"^order-[0-9]+5$", 8.0},
        {"regex, alternatives", regex, ~"(paid|sent)-.*7", 8.0},
        {"regex, no literal", regex, ~"[a-z]+-[0-9]*[02468]-", 8.0},
        {"wildcard p*", wildcard, ~"order-*", 6.0},
        {"wildcard p*s", wildcard, ~"order-*5", 6.0},
        {"wildcard *i*", wildcard, ~"*-paid-*", 6.0},
        {"wildcard with ?", wildcard, ~"*-pa?d-*7", 6.0}
    ]),
    _ = kept_row(Names),
    by_hand(Names),
    one_text(),
    sets(Names),
    predicates().

%% Names of streams as they are: a kind, a number, a word.
-spec names(pos_integer()) -> [binary()].
names(Count) ->
    [
        iolist_to_binary([kind(I rem 3), integer_to_binary(I * 7919), word(I rem 4)])
     || I <- lists:seq(1, Count)
    ].

-spec kind(0..2) -> binary().
kind(0) -> ~"order-";
kind(1) -> ~"customer-";
kind(2) -> ~"invoice-".

-spec word(0..3) -> binary().
word(0) -> ~"";
word(1) -> ~"-paid-17";
word(2) -> ~"-sent-27";
word(3) -> ~"-cancelled".

-spec list_row([binary()], {string(), regex | wildcard, binary(), float() | none}) -> float().
list_row(Names, {What, Kind, Pattern, Goal}) ->
    {Handle, Text} = handle(Kind, Pattern),
    {ok, Compiled} = re:compile(Text),
    compare(What, Goal, #{
        ours => {"match_indices", fun() -> esdb_filter_nif:match_indices(Names, Handle) end},
        rival => {"re, compiled once", fun() -> with_re(Names, Compiled) end}
    }).

%% The rival keeps what matches: that costs it less than places.
-spec kept_row([binary()]) -> float().
kept_row(Names) ->
    Text = ~"(paid|sent)-.*7",
    {ok, Handle} = esdb_filter_nif:compile_regex(Text),
    {ok, Compiled} = re:compile(Text),
    compare("regex, the texts that match", 8.0, #{
        ours => {"filter_by_regex", fun() -> esdb_filter_nif:filter_by_regex(Names, Handle) end},
        rival =>
            {"re, compiled once", fun() ->
                [Name || Name <- Names, re:run(Name, Compiled, [{capture, none}]) =:= match]
            end}
    }).

%% What the compiler knows is matched in the head of a comprehension: nothing is faster.
-spec by_hand([binary()]) -> ok.
by_hand(Names) ->
    esdb_bench:title("Patterns over 1,000 names, against Erlang written for them"),
    Known = {"a comprehension", fun() -> [Name || <<"order-", _/binary>> = Name <- Names] end},
    Piece = binary:compile_pattern(~"-paid-"),
    Found =
        {"binary:match, compiled", fun() ->
            [Name || Name <- Names, binary:match(Name, Piece) =/= nomatch]
        end},
    lists:foreach(
        fun({What, Ours, Rival}) -> compare(What, none, #{ours => Ours, rival => Rival}) end,
        [
            {"a known prefix",
                {"filter_by_prefix", fun() ->
                    esdb_filter_nif:filter_by_prefix(Names, ~"order-")
                end},
                Known},
            {"a known prefix, as p*",
                {"filter_by_wildcard", fun() ->
                    esdb_filter_nif:filter_by_wildcard(Names, ~"order-*")
                end},
                Known},
            {"a known piece, as *i*",
                {"filter_by_wildcard", fun() ->
                    esdb_filter_nif:filter_by_wildcard(Names, ~"*-paid-*")
                end},
                Found}
        ]
    ).

-spec handle(regex | wildcard, binary()) -> {esdb_filter_nif:pattern(), Text :: binary()}.
handle(regex, Pattern) ->
    {ok, Handle} = esdb_filter_nif:compile_regex(Pattern),
    {Handle, Pattern};
handle(wildcard, Pattern) ->
    {ok, Handle} = esdb_filter_nif:compile_wildcard(Pattern),
    {Handle, esdb_filter_nif:wildcard_to_regex(Pattern)}.

-spec with_re([binary()], term()) -> [non_neg_integer()].
with_re(Names, Compiled) ->
    [
        Index
     || {Index, Name} <- lists:enumerate(0, Names),
        re:run(Name, Compiled, [{capture, none}]) =:= match
    ].

-spec one_text() -> ok.
one_text() ->
    esdb_bench:title("One text"),
    Name = ~"order-7919-paid-17",
    lists:foreach(
        fun({What, Kind, Pattern, Goal}) ->
            {Handle, Text} = handle(Kind, Pattern),
            {ok, Compiled} = re:compile(Text),
            Ours = matcher(Kind),
            compare(What, Goal, #{
                ours => {"kept", fun() -> Ours(Name, Handle) end},
                rival =>
                    {"re, compiled once", fun() ->
                        re:run(Name, Compiled, [{capture, none}]) =:= match
                    end}
            })
        end,
        [
            {"wildcard, kept", wildcard, ~"order-*-paid-*", 6.0},
            {"regex, kept", regex, ~"^order-[0-9]+-paid", none}
        ]
    ).

-spec matcher(regex | wildcard) -> fun((binary(), esdb_filter_nif:pattern()) -> boolean()).
matcher(regex) -> fun esdb_filter_nif:regex_match/2;
matcher(wildcard) -> fun esdb_filter_nif:wildcard_match/2.

-spec sets([binary()]) -> float().
sets(Names) ->
    esdb_bench:title("Many patterns at once, 1,000 names"),
    Prefixes = [<<"order-", (integer_to_binary(I))/binary>> || I <- lists:seq(10, 209)],
    {ok, Set} = esdb_filter_nif:match_set([<<Prefix/binary, $*>> || Prefix <- Prefixes]),
    compare("200 prefixes", none, #{
        ours => {"match_set_indices", fun() -> esdb_filter_nif:match_set_indices(Names, Set) end},
        rival => {"each by itself", fun() -> [prefixes(N, Prefixes) || N <- Names] end}
    }).

-spec prefixes(binary(), [binary()]) -> [non_neg_integer()].
prefixes(Name, Prefixes) ->
    [
        Index
     || {Index, Prefix} <- lists:enumerate(0, Prefixes), esdb_filter_nif:has_prefix(Name, Prefix)
    ].

-spec predicates() -> ok.
predicates() ->
    esdb_bench:title("Predicates over 1,000 maps"),
    Events = [
        #{event_type => ~"paid", data => #{amount => I, name => integer_to_binary(I)}}
     || I <- lists:seq(1, 1000)
    ],
    {ok, Handle} = esdb_filter_nif:compile_predicate(
        {'and', [{event_type, ~"paid"}, {gt, amount, 500}]}
    ),
    Ours = {"filter_events", fun() -> esdb_filter_nif:filter_events(Events, Handle) end},
    Known = fun
        (#{event_type := ~"paid", data := #{amount := Amount}}) -> Amount > 500;
        (_) -> false
    end,
    _ = compare("a type and a number", none, #{
        ours => Ours,
        rival => {"a fun with fields known", fun() -> lists:filter(Known, Events) end}
    }),
    %% Not known to the compiler.
    [TypeKey, Type, Key, Least] = binary_to_term(
        term_to_binary([event_type, ~"paid", amount, 500])
    ),
    Told = told(TypeKey, Type, Key, Least),
    _ = compare("a type and a number", none, #{
        ours => Ours,
        rival => {"a fun with fields told", fun() -> lists:filter(Told, Events) end}
    }),
    packed(Events, Handle),
    esdb_bench:note(
        "A predicate is a term that can be stored and sent. Over maps it is made into funs, in "
        "both modes: it costs as much as a fun that is told its fields and values when the program "
        "runs, and twice a fun in which they are written down.",
        []
    ).

-spec told(term(), term(), term(), number()) -> fun((map()) -> boolean()).
told(TypeKey, Type, Key, Least) ->
    fun
        (#{TypeKey := Known, data := #{Key := Value}}) when Known =:= Type -> Value > Least;
        (_) -> false
    end.

-spec packed([map()], esdb_filter_nif:predicate()) -> float().
packed(Events, Handle) ->
    Segment = esdb_segment_nif:pack(Events),
    Encoded = [term_to_binary(Event) || Event <- Events],
    compare("how many, the events packed", none, #{
        ours => {"filter_count", fun() -> esdb_filter_nif:filter_count(Segment, Handle) end},
        rival =>
            {"binary_to_term, fun", fun() ->
                length([
                    found
                 || Event <- Encoded,
                    #{event_type := ~"paid", data := #{amount := Amount}} <-
                        [binary_to_term(Event)],
                    Amount > 500
                ])
            end}
    }).

-spec compare(string(), float() | none, esdb_bench:row()) -> float().
compare(What, none, Row) -> esdb_bench:compare(What, Row);
compare(What, Goal, Row) -> esdb_bench:compare(What, Row#{goal => Goal}).
