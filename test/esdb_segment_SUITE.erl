-module(esdb_segment_SUITE).
-moduledoc """
Packed segments: what goes in comes out, what is damaged is told, and every answer is the one that a
plain computation on the events gives.
""".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(M, esdb_segment_nif).
-define(G, esdb_segment_gen).
-define(PROPERTY(N, Property),
    ?assert(proper:quickcheck(Property, [quiet, {numtests, N}, {to_file, user}]))
).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("t_", atom_to_list(F))].

%% -------- packing

t_every_kind_of_term_comes_back(_) ->
    [
        begin
            Events = [#{data => Term}, #{metadata => Term}, #{foo => Term}, #{Term => 1}],
            Segment = ?M:pack(Events),
            same(Events, ?M:to_events(Segment)),
            ?assertEqual(ok, ?M:verify(Segment))
        end
     || Term <- terms()
    ].

t_events_come_back(_) ->
    ?PROPERTY(
        500,
        ?FORALL({Events, Options}, {?G:events(), options()}, begin
            Segment = ?M:pack(Events, Options),
            is_same(Events, ?M:to_events(Segment)) andalso ?M:verify(Segment) =:= ok andalso
                ?M:count(Segment) =:= length(Events)
        end)
    ).

t_what_means_something_here_only_is_refused_with_its_index(_) ->
    Port = open_port({spawn, "cat"}, []),
    Foreign = [self(), make_ref(), Port, fun() -> ok end, fun lists:map/2],
    [
        [
            ?assertEqual(
                {error, {unsupported_term, Index}},
                ?M:pack(lists:duplicate(Index, #{data => 1}) ++ [Event, #{data => self()}])
            )
         || Event <- [
                #{data => Term},
                #{metadata => [1, {a, #{k => Term}}]},
                #{foo => [a | Term]},
                #{Term => 1},
                #{data => #{Term => 1}},
                #{version => Term}
            ]
        ]
     || Term <- Foreign, Index <- [0, 1, 7]
    ],
    port_close(Port).

%% Few events, but more in the answer than is made on a normal scheduler.
t_answers_are_of_any_size(_) ->
    Numbers = lists:seq(1, 700),
    Text = binary:copy(~"text", 100),
    Segment = ?M:pack([#{data => #{n => N, {n, N} => {sum, N}, text => Text}} || N <- Numbers]),
    same(#{N => 1 || N <- Numbers}, ?M:group_by(Segment, n, count)),
    Sums = #{{n, N} => {sum, N} || N <- Numbers},
    same(Sums#{n => 700, text => Text}, ?M:fold_tagged(Segment, #{})),
    same([[N, [Text]] || N <- Numbers], [[N, [T]] || [N, T] <- ?M:project(Segment, [n, text])]),
    Wide = ?M:pack([#{data => #{list => Numbers, n => N}} || N <- lists:seq(1, 100)]),
    same([[Numbers] || _ <- lists:seq(1, 100)], ?M:project(Wide, [list])),
    same(#{Numbers => 100}, ?M:group_by(Wide, list, count)).

t_misuse_is_badarg(_) ->
    Segment = ?M:pack([#{}]),
    [
        ?assertError(badarg, apply(?M, Function, Arguments))
     || {Function, Arguments} <- [
            {pack, [a]},
            {pack, [[a]]},
            {pack, [[#{} | #{}]]},
            {pack, [[#{}], []]},
            {pack, [[#{}], #{level => 0}]},
            {pack, [[#{}], #{level => 23}]},
            {pack, [[#{}], #{compress => lz4}]},
            {pack, [[#{}], #{dictionary => <<>>}]},
            {pack, [[#{}], #{unknown => 1}]},
            {with_dictionary, [Segment, <<>>]},
            {with_dictionary, [a, ~"text"]},
            {count, [a]},
            {count, [<<1:3>>]},
            {to_events, [Segment, []]},
            {to_events, [Segment, #{limit => -1}]},
            {to_events, [Segment, #{types => [a | b]}]},
            {to_events, [Segment, #{atoms => maybe_so}]},
            {to_events, [Segment, #{unknown => 1}]},
            {concat, [Segment]},
            {concat, [[Segment | Segment]]},
            {slice, [Segment, -1, 1]},
            {slice, [Segment, 0, 1.0]},
            {select, [a, true]},
            {select, [[Segment, a], true]},
            {select, [Segment, {esdb_predicate, ~"no predicate", none}]},
            {sum, [Segment, []]},
            {sum, [Segment, [a | b]]},
            {group_by, [Segment, a, total]},
            {group_by, [Segment, a, [count | count]]},
            {fold_tagged, [Segment, []]},
            {project, [Segment, a]},
            {project, [Segment, [a | b]]},
            {project, [Segment, [a], maybe_so]}
        ]
    ],
    ?assertMatch({error, {invalid_predicate, _}}, ?M:select(Segment, {sounds_like, a, b})).

t_compression_makes_smaller_and_a_dictionary_smaller_still(_) ->
    Events = shop(60),
    Few = lists:sublist(Events, 2),
    Dictionary = iolist_to_binary([term_to_binary(Event) || Event <- shop(20)]),
    Stored = ?M:pack(Few),
    Packed = ?M:pack(Few, #{compress => zstd}),
    WithIt = ?M:pack(Few, #{compress => zstd, dictionary => Dictionary}),
    ?assert(byte_size(?M:pack(Events, #{compress => zstd})) * 3 < byte_size(?M:pack(Events))),
    ?assert(byte_size(WithIt) < byte_size(Packed)),
    ?assert(byte_size(Packed) < byte_size(Stored)),
    same(Few, ?M:to_events(Packed)),
    same(Few, ?M:to_events(?M:with_dictionary(WithIt, Dictionary))),
    Handle = esdb_archive_nif:dictionary(Dictionary),
    same(Few, ?M:to_events(?M:with_dictionary(WithIt, Handle))),
    ?assertMatch({error, {corrupt, _}}, ?M:to_events(WithIt)).

t_a_trained_dictionary_that_is_missing_is_named(_) ->
    #{~"dictionaries" := #{~"trained" := #{~"bytes" := Text}}} = esdb_archive_gen:vectors(),
    Dictionary = base64:decode(Text),
    Id = esdb_archive_nif:dictionary_id(Dictionary),
    Segment = ?M:pack(shop(20), #{compress => zstd, dictionary => Dictionary}),
    ?assertEqual({error, {dictionary_mismatch, Id}}, ?M:to_events(Segment)),
    ?assertEqual({error, {dictionary_mismatch, Id}}, ?M:sum(Segment, amount)),
    ?assertEqual(190, ?M:sum(?M:with_dictionary(Segment, Dictionary), amount)).

t_what_comes_of_a_segment_with_a_dictionary_has_it(_) ->
    Dictionary = iolist_to_binary([term_to_binary(Event) || Event <- shop(20)]),
    Bytes = ?M:pack(shop(20), #{compress => zstd, dictionary => Dictionary}),
    Segment = ?M:with_dictionary(Bytes, Dictionary),
    Half = ?M:slice(Segment, 0, 10),
    Others = ?M:filter(Segment, {gte, amount, 10}),
    same(shop(20), ?M:to_events(?M:concat([Half, Others]))),
    same(shop(20), ?M:to_events(?M:filter([Half, Others], true))).

t_what_is_no_dictionary_is_told(_) ->
    %% The head of a trained one, and nothing that fits behind it.
    Broken = <<16#EC30A437:32/little, 1:32/little, 0:800>>,
    Compressed = ?M:pack(shop(20), #{compress => zstd}),
    Plain = {esdb_segment, ?M:pack(shop(20)), Broken},
    ?assertEqual({error, {corrupt, versions}}, ?M:filter({esdb_segment, Compressed, Broken}, true)),
    ?assertEqual({error, invalid_dictionary}, ?M:filter([Plain, Compressed], true)),
    ?assertEqual({error, invalid_dictionary}, ?M:concat([Plain, Compressed])),
    ?assertEqual(380, ?M:sum([Plain, Compressed], amount)),
    ?assertError(badarg, ?M:pack(shop(20), #{compress => zstd, dictionary => Broken})).

%% -------- the format

t_vectors_of_another_implementation_are_read(_) ->
    [
        begin
            Events = binary_to_term(hex(maps:get(~"events", Vector))),
            Bytes = hex(maps:get(~"segment", Vector)),
            Segment =
                case Vector of
                    #{~"dictionary" := Dictionary} -> ?M:with_dictionary(Bytes, hex(Dictionary));
                    #{} -> Bytes
                end,
            same(Events, ?M:to_events(Segment)),
            ?assertEqual(ok, ?M:verify(Segment)),
            ?assertEqual(length(Events), ?M:count_where(Segment, true)),
            same(Events, ?M:to_events(?M:filter(Segment, true)))
        end
     || Vector <- maps:get(~"valid", vectors())
    ].

t_vectors_of_another_implementation_are_written(_) ->
    [
        begin
            Events = binary_to_term(hex(maps:get(~"events", Vector))),
            Segment = hex(maps:get(~"segment", Vector)),
            ?assertEqual(Segment, ?M:pack(Events)),
            ?assertEqual(Segment, ?M:filter(Segment, true)),
            ?assertEqual(Segment, ?M:concat([Segment])),
            ?assertEqual(Segment, ?M:slice(Segment, 0, length(Events)))
        end
     || #{~"canonical" := true} = Vector <- maps:get(~"valid", vectors())
    ].

%% The bytes that doc/format.md shows.
t_the_example_of_the_format(_) ->
    Expected = <<
        "ESDS",
        16#01000100010000000000000001000000000000004000000000000000:224,
        16#08000000000000000800000000000000AF96B5D6581E678115AED7C870EF99680700000000000000:320
    >>,
    ?assertEqual(Expected, ?M:pack([#{version => 7}])).

t_each_kind_of_damage_is_named(_) ->
    [
        begin
            Segment = hex(maps:get(~"segment", Vector)),
            Error = {error, wrong(maps:get(~"error", Vector))},
            ?assertEqual(Error, ?M:verify(Segment), Name),
            [
                begin
                    ?assertEqual(Error, ?M:to_events(Segment), Name),
                    ?assertEqual(Error, ?M:filter(Segment, false), Name),
                    ?assertEqual(Error, ?M:slice(Segment, 0, 1), Name),
                    ?assertEqual(Error, ?M:concat([Segment]), Name)
                end
             || not is_map_key(~"term", Vector)
            ],
            [are_answers(Segment, Error) || true]
        end
     || #{~"name" := Name} = Vector <- maps:get(~"damaged", vectors())
    ].

%% A question either does not meet the damage or names it.
are_answers(Segment, Error) ->
    [
        case apply(?M, Function, [Segment | Arguments]) of
            {error, Reason} -> ?assertEqual(Error, {error, Reason});
            _ -> ok
        end
     || {Function, Arguments} <- questions()
    ].

questions() ->
    [
        {info, []},
        {count, []},
        {to_events, []},
        {to_events, [#{from_version => 1}]},
        {to_events, [#{to_us => 2_000, direction => backward}]},
        {to_events, [#{types => [~"paid", sent]}]},
        {select, [{gt, amount, 3}]},
        {first, [{'not', {exists, amount}}]},
        {count_where, [{eq, [metadata, x], 1}]},
        {sum, [amount]},
        {min, [version]},
        {max, [epoch_us]},
        {group_by, [event_type, count]},
        {group_by, [amount, [count, {avg, version}]]},
        {fold_tagged, [#{}]},
        {project, [[amount, [metadata, x], event_id]]}
    ].

wrong(~"header") -> {corrupt, header};
wrong(~"version 2") -> {unsupported_version, 2};
wrong(Section) -> {corrupt, binary_to_existing_atom(Section)}.

t_every_flipped_bit_is_noticed(_) ->
    [
        [
            ?assertMatch({error, _}, ?M:verify(flipped(Segment, Bit)), Bit)
         || Bit <- lists:seq(0, bit_size(Segment) - 1)
        ]
     || Segment <- [?M:pack(shop(2)), ?M:pack(shop(9), #{compress => zstd})]
    ].

t_every_cut_is_noticed(_) ->
    Segment = ?M:pack(shop(3)),
    [
        ?assertEqual({error, {corrupt, header}}, ?M:verify(binary:part(Segment, 0, Size)))
     || Size <- lists:seq(0, byte_size(Segment) - 1)
    ].

t_damage_leads_to_an_answer_or_an_error(_) ->
    ?PROPERTY(
        500,
        ?FORALL(Segment, ?LET(Events, ?G:events(), ?G:damaged(?M:pack(Events))), begin
            lists:all(
                fun({Function, Arguments}) -> is_answer(Function, [Segment | Arguments]) end,
                [{verify, []} | questions()]
            )
        end)
    ).

%% Overflow is the only thing that is raised.
is_answer(Function, Arguments) ->
    try apply(?M, Function, Arguments) of
        {error, {corrupt, Section}} -> is_atom(Section);
        {error, {unsupported_version, _}} -> true;
        {error, too_large} -> true;
        {error, _} -> false;
        _ -> true
    catch
        error:badarith -> true
    end.

t_promises_take_no_memory(_) ->
    %% A gigabyte of zeros in a few kilobytes of a frame, and a frame that states what it has not.
    {ok, Zeros} = esdb_archive_nif:compress(binary:copy(<<0>>, 1 bsl 20), zstd),
    Liar = ?G:repaired(forged(7, Zeros, 1 bsl 29)),
    Before = erlang:memory(total),
    ?assertEqual({error, {corrupt, data}}, ?M:sum(Liar, amount)),
    ?assertEqual({error, {corrupt, data}}, ?M:to_events(Liar)),
    Above = ?G:repaired(forged(7, Zeros, 1 bsl 30 + 1)),
    ?assertEqual({error, {corrupt, header}}, ?M:sum(Above, amount)),
    %% A compressed term would be built to the size that it states.
    Bomb = ?M:pack([#{data => 1}]),
    Term = <<131, 80, 16#7FFFFFFF:32, (zlib:compress(<<97, 1>>))/binary>>,
    Bombed = with_payload(Bomb, Term),
    ?assertEqual({error, {corrupt, data}}, ?M:to_events(Bombed)),
    ?assertEqual({error, {corrupt, data}}, ?M:verify(Bombed)),
    ?assert(erlang:memory(total) - Before < 1 bsl 28).

%% One section of one event, its bytes called a frame of that size.
forged(Id, Frame, Size) ->
    Stored = byte_size(Frame),
    Head = <<"ESDS", 1, 0, 1:16/little, 1:32/little, 0:32>>,
    Entry = <<Id, 1, 0:48, 64:64/little, Stored:64/little, Size:64/little, 0:64>>,
    <<Head/binary, Entry/binary, 0:64, Frame/binary>>.

%% -------- reading back

t_options_of_to_events(_) ->
    Events = shop(10),
    Segment = ?M:pack(Events),
    Read = fun(Options) -> [V || #{version := V} <- ?M:to_events(Segment, Options)] end,
    ?assertEqual(lists:seq(0, 9), Read(#{})),
    ?assertEqual([3, 4, 5, 6, 7, 8, 9], Read(#{from_version => 3})),
    ?assertEqual([0, 1, 2, 3], Read(#{to_version => 3})),
    ?assertEqual([3, 4, 5], Read(#{from_version => 3, to_version => 5})),
    ?assertEqual([], Read(#{from_version => 5, to_version => 3})),
    ?assertEqual([2, 3], Read(#{from_us => 1_002_000, to_us => 1_003_999})),
    ?assertEqual([0, 3, 6, 9], Read(#{types => [~"placed"]})),
    ?assertEqual([0, 1, 3, 4, 6, 7, 9], Read(#{types => [~"paid", placed, ~"placed"]})),
    ?assertEqual([], Read(#{types => []})),
    ?assertEqual([0, 1], Read(#{limit => 2})),
    ?assertEqual([], Read(#{limit => 0})),
    ?assertEqual(lists:seq(9, 0, -1), Read(#{direction => backward, limit => infinity})),
    Last = #{direction => backward, to_version => 8, types => [~"placed"], limit => 2},
    ?assertEqual([6, 3], Read(Last)).

t_bounds_concern_fields_of_other_kinds_too(_) ->
    Events = [#{version => 1 bsl 70}, #{version => 2.5}, #{version => x}, #{}, #{event_type => x}],
    Segment = ?M:pack(Events),
    ?assertEqual([#{version => 2.5}], ?M:to_events(Segment, #{to_version => 3})),
    ?assertEqual([hd(Events)], ?M:to_events(Segment, #{from_version => 3})),
    ?assertEqual([#{event_type => x}], ?M:to_events(Segment, #{types => [x]})).

t_atoms_are_made_only_when_asked_for(_) ->
    {Name, Segment} = with_unknown_atom(),
    ?assertEqual({error, {corrupt, data}}, ?M:to_events(Segment)),
    ?assertEqual({error, {corrupt, data}}, ?M:project(Segment, [k])),
    ?assertEqual({error, {corrupt, data}}, ?M:group_by(Segment, k, count)),
    ?assertEqual({error, {corrupt, data}}, ?M:fold_tagged(Segment, #{})),
    %% What does not build it does not mind.
    ?assertEqual(ok, ?M:verify(Segment)),
    ?assertEqual(7, ?M:sum(Segment, n)),
    ?assertEqual(1, ?M:count_where(Segment, {neq, k, 1})),
    ?assertEqual([[7]], ?M:project(Segment, [n])),
    ?assertEqual(#{7 => 1}, ?M:group_by(Segment, n, count)),
    ?assertError(badarg, binary_to_existing_atom(Name)),
    ?assertMatch([#{data := #{n := 7}}], ?M:to_events(Segment, #{atoms => create})),
    ?assert(is_atom(binary_to_existing_atom(Name))),
    {Other, Created} = with_unknown_atom(),
    [[Atom]] = ?M:project(Created, [k], create),
    ?assertEqual(Other, atom_to_binary(Atom)).

with_unknown_atom() -> with_unknown_atom(fun(Atom) -> #{data => #{k => Atom, n => 7}} end).

with_unknown_atom(Event) ->
    Name = <<"never_", (binary:encode_hex(rand:bytes(8)))/binary>>,
    Placeholder = <<"known_", (binary:copy(~"x", 16))/binary>>,
    Segment = ?M:pack([Event(binary_to_atom(Placeholder))]),
    {At, Size} = binary:match(Segment, Placeholder),
    ?assertEqual(Size, byte_size(Name)),
    {Name, ?G:repaired(?G:overwritten(Segment, At, Name))}.

t_envelope_values_among_others(_) ->
    %% Neither has a place in its column.
    Segment = ?M:pack([#{event_type => sent, version => 1.5}, #{event_type => ~"sent"}]),
    Sent = #{event_type => sent, version => 1.5},
    ?assertEqual([Sent], ?M:to_events(Segment, #{types => [sent]})),
    ?assertEqual([#{event_type => ~"sent"}], ?M:to_events(Segment, #{types => [~"sent"]})),
    ?assertMatch([#{version := 1.5}], ?M:to_events(Segment, #{from_version => 1})),
    {Name, Unknown} = with_unknown_atom(fun(Atom) -> #{event_type => Atom} end),
    Corrupt = {error, {corrupt, others}},
    ?assertEqual(Corrupt, ?M:to_events(Unknown, #{types => [~"sent"]})),
    ?assertEqual([], ?M:to_events(Unknown, #{atoms => create, types => [~"sent"]})),
    ?assert(is_atom(binary_to_existing_atom(Name))),
    %% A value that ends too early.
    Short = ?M:pack([#{event_type => {1, 2, 3}}]),
    {At, 1} = binary:match(Short, <<104>>, [{scope, {64, byte_size(Short) - 64}}]),
    Cut = ?G:repaired(?G:overwritten(Short, At, <<104, 9>>)),
    ?assertEqual(Corrupt, ?M:to_events(Cut, #{types => [~"sent"]})).

t_terms_that_nobody_packs(_) ->
    One = ?M:pack([#{data => 1}]),
    [
        begin
            Segment = with_payload(One, term_to_binary(Term)),
            Corrupt = {error, {corrupt, data}},
            ?assertEqual(Corrupt, ?M:verify(Segment)),
            ?assertEqual(Corrupt, ?M:to_events(Segment)),
            ?assertEqual(Corrupt, ?M:select(Segment, true)),
            ?assertEqual(Corrupt, ?M:first(Segment, true))
        end
     || Term <- [self(), fun lists:map/2, #{a => [1, {make_ref()}]}]
    ].

t_more_names_than_events(_) ->
    %% One event and two names, of which one is nobody's.
    Section = <<1:32/little, 2:32/little, 1:32/little, 2:32/little, "ab">>,
    Size = byte_size(Section),
    Head = <<"ESDS", 1, 0, 1:16/little, 1:32/little, 0:32>>,
    Entry = <<5, 0:56, 64:64/little, Size:64/little, Size:64/little, 0:64>>,
    Forged = ?G:repaired(<<Head/binary, Entry/binary, 0:64, Section/binary>>),
    ?assertEqual({error, {corrupt, types}}, ?M:verify(Forged)),
    ?assertEqual({error, {corrupt, types}}, ?M:to_events(Forged)),
    ?assertEqual({error, {corrupt, types}}, ?M:group_by(Forged, event_type, count)).

t_depth_is_bounded(_) ->
    Nested = fun(N) -> lists:foldl(fun(_, Map) -> #{a => Map} end, 1, lists:seq(1, N)) end,
    InKeys = fun(N) -> lists:foldl(fun(_, Map) -> #{Map => 1} end, 1, lists:seq(1, N)) end,
    ?assertEqual(ok, ?M:verify(?M:pack([#{data => Nested(9_000)}]))),
    ?assertEqual({error, {unsupported_term, 0}}, ?M:pack([#{data => Nested(10_001)}])),
    ?assertEqual(ok, ?M:verify(?M:pack([#{data => InKeys(16)}]))),
    ?assertEqual({error, {unsupported_term, 0}}, ?M:pack([#{data => InKeys(18)}])),
    %% What would take quadratic time to compare is not looked at.
    One = ?M:pack([#{data => 1}]),
    Deep = with_payload(One, term_to_binary(InKeys(5_000))),
    ?assertEqual({error, {corrupt, data}}, ?M:verify(Deep)).

t_answers_are_bounded(_) ->
    %% 272 MB, which compress to little.
    Large = #{data => #{a => binary:copy(~"x", 8_000_000)}},
    Segment = ?M:pack(lists:duplicate(34, Large), #{compress => zstd}),
    ?assertEqual({error, too_large}, ?M:to_events(Segment)),
    ?assertEqual({error, too_large}, ?M:select(Segment, true)),
    ?assertEqual({error, too_large}, ?M:project(Segment, [a])),
    ?assertEqual([Large, Large], ?M:to_events(Segment, #{limit => 2})),
    ?assertEqual({ok, Large}, ?M:first(Segment, true)),
    ?assertEqual(34, ?M:count_where(Segment, {exists, a})).

t_answers_have_only_so_many_parts(_) ->
    Many = ?M:pack([#{version => N} || N <- lists:seq(1, 1_000)]),
    Columns = fun(Count) -> lists:duplicate(Count, version) end,
    ?assertEqual({error, too_large}, ?M:project(Many, Columns(16_777))),
    ?assertEqual([[1, 1], [2, 2]], lists:sublist(?M:project(Many, Columns(2)), 2)),
    ?assertEqual({error, too_large}, ?M:group_by(Many, version, lists:duplicate(16_777, count))),
    ?assertEqual(
        #{undefined => lists:duplicate(16_777, 1_000)},
        ?M:group_by(Many, missing, lists:duplicate(16_777, count))
    ),
    Groups = ?M:group_by([Many, Many], version, lists:duplicate(100, count)),
    ?assertEqual({1_000, lists:duplicate(100, 2)}, {map_size(Groups), map_get(7, Groups)}),
    Half = lists:duplicate(2, ?M:pack([#{version => N} || N <- lists:seq(1, 600)])),
    Others = ?M:pack([#{version => N} || N <- lists:seq(601, 1_200)]),
    Counts = lists:duplicate(16_777, count),
    ?assertEqual({error, too_large}, ?M:group_by(Half ++ [Others], version, Counts)),
    ?assertEqual(600, map_size(?M:group_by(Half, version, Counts))),
    Alike = ?M:pack(lists:duplicate(1 bsl 18, #{version => 0})),
    ?assertEqual({error, too_large}, ?M:select(lists:duplicate(65, Alike), true)),
    ?assertEqual(65 bsl 18, ?M:count_where(lists:duplicate(65, Alike), true)).

t_states_of_a_fold_are_bounded(_) ->
    Text = binary:copy(~"x", 8_000_000),
    Part = fun(From, To) ->
        ?M:pack([#{data => #{N => Text}} || N <- lists:seq(From, To)], #{compress => zstd})
    end,
    ?assertEqual({error, too_large}, ?M:fold_tagged([Part(1, 17), Part(18, 34)], #{})),
    ?assertEqual(17, map_size(?M:fold_tagged([Part(1, 17), Part(1, 17)], #{}))).

t_integers_are_such_as_can_be_read_again(_) ->
    Longest = (1 bsl (8 * 523_993)) - 1,
    [
        begin
            ?assertEqual({error, {unsupported_term, 1}}, ?M:pack([#{}, #{TooLong => 1}])),
            ?assertEqual({error, {unsupported_term, 0}}, ?M:pack([#{data => [{TooLong}]}])),
            Event = #{data => #{a => Fitting}},
            Segment = ?M:pack([Event]),
            ?assertEqual([Event], ?M:to_events(Segment)),
            ?assertEqual(Fitting, ?M:sum(Segment, a)),
            ?assertEqual(1, ?M:count_where(Segment, {eq, a, Fitting}))
        end
     || {Fitting, TooLong} <- [{Longest, Longest + 1}, {-Longest, -Longest - 1}]
    ].

t_numbers_that_nobody_asks_about(_) ->
    Long = 1 bsl (8 * 524_000),
    Segment = ?M:pack([#{data => #{a => {sum, 1}}}]),
    ?assertMatch({error, {invalid_predicate, {[3], too_large}}}, ?M:select(Segment, {eq, a, Long})),
    ?assertMatch({error, {invalid_predicate, {[2], _}}}, ?M:select(Segment, {exists, [Long]})),
    ?assertError(badarg, ?M:sum(Segment, [Long])),
    [
        ?assertError(badarg, ?M:fold_tagged(Segment, #{a => Value}))
     || Value <- [Long, {sum, Long}, {overwrite, -Long}]
    ],
    ?assertEqual(#{a => {sum, 8}}, ?M:fold_tagged(Segment, #{a => {sum, 7}})).

t_handles_of_any_origin(_) ->
    Segment = ?M:pack(shop(9)),
    Predicate = {event_type, ~"paid"},
    {ok, {esdb_predicate, Canonical, _} = Own} = esdb_filter_nif:compile_predicate(Predicate),
    Count = ?M:count_where(Segment, Predicate),
    ?assertEqual(Count, ?M:count_where(Segment, Own)),
    ?assertEqual(Count, ?M:count_where(Segment, {esdb_predicate, Canonical, none})),
    {ok, {_, _, OtherKept}} = esdb_filter_nif:compile_predicate(true),
    ?assertEqual(Count, ?M:count_where(Segment, {esdb_predicate, Canonical, OtherKept})),
    [
        ?assertError(badarg, ?M:count_where(Segment, {esdb_predicate, Bytes, Kept}))
     || Bytes <- [
            <<Canonical/binary, 0>>,
            term_to_binary({eq, {data, [a]}, 1.5}, [{minor_version, 0}]),
            term_to_binary({'and', [true | false]}),
            term_to_binary({eq, a, 1}),
            ~"none"
        ],
        Kept <- [none, element(3, Own)]
    ].

t_only_what_a_question_needs_is_read(_) ->
    Segment = ?M:pack(shop(9)),
    [
        begin
            Damaged = flipped(Segment, 8 * (Offset + Stored) - 1),
            Section = esdb_segment_format:name(Id),
            ?assertEqual({error, {corrupt, Section}}, ?M:to_events(Damaged)),
            [
                ?assertEqual(Expected, apply(?M, Function, [Damaged | Arguments]))
             || {Read, Function, Arguments} <- needs(),
                Expected <- [
                    case lists:member(Section, Read) of
                        true -> {error, {corrupt, Section}};
                        false -> apply(?M, Function, [Segment | Arguments])
                    end
                ]
            ]
        end
     || #{id := Id, offset := Offset, stored := Stored} <- sections(Segment)
    ].

needs() ->
    [
        {[], count, []},
        {[versions, epoch_us], info, []},
        {[], count_where, [true]},
        {[data], sum, [amount]},
        {[versions], sum, [version]},
        {[types], count_where, [{event_type, ~"paid"}]},
        {[types, streams], count_where, [{'or', [{event_type, ~"paid"}, {exists, stream_id}]}]},
        {[metadata], min, [[metadata, actor]]},
        {[types, data], group_by, [event_type, {sum, amount}]},
        {[data], fold_tagged, [#{}]},
        {[event_ids, data], project, [[event_id, name]]}
    ].

t_info_tells_what_is_there(_) ->
    Segment = ?M:pack(shop(9), #{compress => zstd}),
    Info = ?M:info(Segment),
    ?assertMatch(
        #{count := 9, versions := {0, 8}, epoch_us := {1_000_000, 1_008_000}, compressed := true},
        Info
    ),
    #{size := Size, unpacked_size := Unpacked, sections := #{data := Data}} = Info,
    ?assertEqual(byte_size(Segment), Size),
    ?assertEqual(byte_size(?M:pack(shop(9))), Unpacked),
    ?assertMatch(#{codec := zstd, stored := S, size := U} when S < U, Data),
    ?assertMatch(
        #{count := 0, versions := undefined, epoch_us := undefined, compressed := false},
        ?M:info(?M:pack([]))
    ).

t_parts_are_those_of_the_list(_) ->
    ?PROPERTY(
        200,
        ?FORALL(
            {Lists, From, Count},
            {?G:few(?G:events()), range(0, 30), range(0, 30)},
            begin
                Events = lists:append(Lists),
                Whole = ?M:concat([?M:pack(List) || List <- Lists]),
                Part = ?M:slice(Whole, From, Count),
                Whole =:= ?M:pack(Events) andalso
                    Part =:= ?M:pack(part(Events, From, Count))
            end
        )
    ).

part(Events, From, Count) ->
    lists:sublist(lists:nthtail(min(From, length(Events)), Events), Count).

%% -------- questions, against a plain computation

t_matching_is_that_of_the_events(_) ->
    ?PROPERTY(
        1_000,
        ?FORALL({Events, Predicate, Options}, {?G:events(), ?G:predicate(), options()}, begin
            {ok, Normal} = esdb_predicate_erl:normalise(Predicate),
            Compiled = esdb_predicate_erl:compile(Normal),
            Segment = ?M:pack(Events, Options),
            Expected = [E || E <- Events, esdb_predicate_erl:matches(Compiled, E)],
            ?WHENFAIL(
                ct:pal("expected ~p~nfound ~p", [Expected, ?M:select(Segment, Predicate)]),
                is_same(Expected, ?M:select(Segment, Predicate)) andalso
                    length(Expected) =:= ?M:count_where(Segment, Predicate) andalso
                    is_same(Expected, ?M:to_events(?M:filter(Segment, Predicate))) andalso
                    is_same(first_of(Expected), ?M:first(Segment, Predicate))
            )
        end)
    ).

first_of([Event | _]) -> {ok, Event};
first_of([]) -> not_found.

t_filtered_is_packed_of_the_selected(_) ->
    ?PROPERTY(
        300,
        ?FORALL({Events, Predicate}, {?G:events(), ?G:predicate()}, begin
            Segment = ?M:pack(Events),
            ?M:filter(Segment, Predicate) =:= ?M:pack(?M:select(Segment, Predicate))
        end)
    ).

t_sums_and_extremes(_) ->
    ?PROPERTY(
        500,
        ?FORALL({Lists, Path}, {?G:few(?G:events()), ?G:path()}, begin
            Segments = [?M:pack(Events) || Events <- Lists],
            Numbers = [[N || E <- Events, {ok, N} <- [number(field(Path, E))]] || Events <- Lists],
            Sum = outcome(fun() -> ?M:sum(Segments, Path) end),
            is_same(outcome(fun() -> total(Numbers) end), Sum) andalso
                is_same(extreme(fun erlang:'<'/2, Numbers), ?M:min(Segments, Path)) andalso
                is_same(extreme(fun erlang:'>'/2, Numbers), ?M:max(Segments, Path))
        end)
    ).

t_groups(_) ->
    ?PROPERTY(
        500,
        ?FORALL(
            {Lists, By, Aggregates},
            {?G:few(?G:events()), ?G:path(), list(?G:aggregate())},
            begin
                Segments = [?M:pack(Events) || Events <- Lists],
                Key = fun(Event) -> value(field(By, Event)) end,
                Keys = unique([Key(E) || E <- lists:append(Lists)]),
                Naive = fun() ->
                    #{
                        K => [
                            naive_aggregate(A, [
                                [E || E <- Events, Key(E) =:= K]
                             || Events <- Lists
                            ])
                         || A <- Aggregates
                        ]
                     || K <- Keys
                    }
                end,
                is_same(outcome(Naive), outcome(fun() -> ?M:group_by(Segments, By, Aggregates) end))
            end
        )
    ).

unique(Keys) -> maps:keys(#{Key => [] || Key <- Keys}).

naive_aggregate(count, Lists) ->
    length(lists:append(Lists));
naive_aggregate({Kind, Path}, Lists) ->
    Numbers = [[N || E <- Events, {ok, N} <- [number(field(Path, E))]] || Events <- Lists],
    case {Kind, length(lists:append(Numbers))} of
        {sum, _} -> total(Numbers);
        {avg, 0} -> undefined;
        {avg, Count} -> total(Numbers) / Count;
        {min, _} -> extreme(fun erlang:'<'/2, Numbers);
        {max, _} -> extreme(fun erlang:'>'/2, Numbers)
    end.

t_fold_tagged(_) ->
    ?PROPERTY(
        500,
        ?FORALL({Lists, Init}, {?G:few(?G:events()), ?G:init()}, begin
            Segments = [?M:pack(Events) || Events <- Lists],
            Naive = fun() -> lists:foldl(fun fold_event/2, Init, lists:append(Lists)) end,
            is_same(outcome(Naive), outcome(fun() -> ?M:fold_tagged(Segments, Init) end))
        end)
    ).

fold_event(#{data := Data}, State) when is_map(Data) -> maps:fold(fun fold_field/3, State, Data);
fold_event(Event, State) -> maps:fold(fun fold_field/3, State, Event).

fold_field(Key, {sum, N}, State) when is_number(N) ->
    Before =
        case State of
            #{Key := {sum, M}} when is_number(M) -> M;
            #{Key := {overwrite, M}} when is_number(M) -> M;
            #{Key := M} when is_number(M) -> M;
            #{} -> 0
        end,
    State#{Key => {sum, Before + N}};
fold_field(Key, Value, State) ->
    State#{Key => Value}.

t_projection(_) ->
    ?PROPERTY(
        300,
        ?FORALL(
            {Events, Paths, Atoms},
            {?G:events(), list(?G:path()), oneof([existing, create])},
            begin
                Expected = [[value(field(Path, Event)) || Path <- Paths] || Event <- Events],
                is_same(Expected, ?M:project(?M:pack(Events), Paths, Atoms))
            end
        )
    ).

value({ok, Value}) -> Value;
value(missing) -> undefined.

t_a_list_is_one_sequence(_) ->
    Segments = [?M:pack(shop(5)), ?M:pack([]), ?M:pack(shop(7), #{compress => zstd})],
    Events = shop(5) ++ shop(7),
    same([E || #{version := V} = E <- Events, V > 3], ?M:select(Segments, {gt, version, 3})),
    same({ok, lists:nth(11, Events)}, ?M:first(Segments, {eq, version, 5})),
    ?assertEqual(3 + 1, ?M:count_where(Segments, {gt, version, 3})),
    ?assertEqual(10 + 21, ?M:sum(Segments, amount)),
    Early = ?M:filter(Segments, {lt, version, 2}),
    same([E || #{version := V} = E <- Events, V < 2], ?M:to_events(Early)),
    ?assertEqual([], ?M:select([], true)),
    ?assertEqual(not_found, ?M:first([], true)),
    ?assertEqual(0, ?M:sum([], amount)),
    ?assertEqual(undefined, ?M:min([], amount)),
    ?assertEqual(#{}, ?M:group_by([], amount, count)),
    ?assertEqual(#{a => 1}, ?M:fold_tagged([], #{a => 1})),
    ?assertEqual(?M:pack([]), ?M:filter([], true)).

t_numbers_are_exact(_) ->
    Big = 1 bsl 2000,
    Segment = ?M:pack([#{a => N} || N <- [1 bsl 63, 1 bsl 63, Big, -1, {sum, 2}, {sum, x}, ~"3"]]),
    ?assertEqual((1 bsl 64) + Big + 1, ?M:sum(Segment, a)),
    ?assertEqual(-1, ?M:min(Segment, a)),
    ?assertEqual(Big, ?M:max(Segment, a)),
    ?assertEqual(1, ?M:count_where(Segment, {gt, a, 1.0e308})),
    Near = ?M:pack([#{a => (1 bsl 53) + 1}, #{a => float(1 bsl 53)}]),
    ?assertEqual(1, ?M:count_where(Near, {eq, a, 1 bsl 53})),
    ?assertEqual(1, ?M:count_where(Near, {gt, a, 9_007_199_254_740_992.0})),
    Overflow = ?M:pack([#{a => 1.0e308}, #{a => 1.0e308}, #{a => 1 bsl 2000}]),
    ?assertError(badarith, ?M:sum(Overflow, a)),
    ?assertError(badarith, ?M:group_by(Overflow, b, {avg, a})).

%% What size takes to a dirty scheduler answers the same.
%% Against the same computed from the events themselves.
t_real_events(_) ->
    Events = esdb_commits:events(),
    {First, Second} = lists:split(length(Events) div 2, Events),
    Segments = [?M:pack(First, #{compress => zstd}), ?M:pack(Second)],
    same(Events, ?M:to_events(?M:concat(Segments))),
    Large = [E || #{data := #{~"insertions" := N}} = E <- Events, N > 500],
    ?assertNotEqual([], Large),
    same(Large, ?M:to_events(?M:filter(Segments, {gt, ~"insertions", 500}))),
    same({ok, hd(Large)}, ?M:first(Segments, {gt, ~"insertions", 500})),
    Deleted = [N || #{data := #{~"deletions" := N}} <- Events],
    Rows = [[Id, N] || #{event_id := Id, data := #{~"deletions" := N}} <- Events],
    Paths = [event_id, {data, ~"deletions"}],
    same(Rows, lists:append([?M:project(Segment, Paths) || Segment <- Segments])),
    Sum = lists:sum(Deleted),
    Answers = [length(Events), Sum, lists:max(Deleted), Sum / length(Deleted)],
    Asked = [count, {sum, ~"deletions"}, {max, ~"deletions"}, {avg, ~"deletions"}],
    same(#{undefined => Answers}, ?M:group_by(Segments, nowhere, Asked)),
    same(Sum, ?M:sum(Segments, ~"deletions")),
    same(lists:min(Deleted), ?M:min(Segments, ~"deletions")),
    Parts = [?M:pack([in_area(Event) || Event <- Part]) || Part <- [First, Second]],
    same(lists:foldl(fun in_areas/2, #{}, Events), ?M:fold_tagged(Parts, #{})).

%% How much was added to the area of a commit, and which commit was its last one.
in_area(#{event_id := Id, stream_id := Area, data := #{~"insertions" := N}}) ->
    #{data => #{Area => {sum, N}, {last, Area} => Id}}.

in_areas(#{event_id := Id, stream_id := Area, data := #{~"insertions" := N}}, State) ->
    {sum, Before} = maps:get(Area, State, {sum, 0}),
    State#{Area => {sum, Before + N}, {last, Area} => Id}.

t_large_segments(_) ->
    Events = shop(10_000),
    Segment = ?M:pack(Events),
    ?assert(byte_size(Segment) > 1_048_576),
    ?assertEqual(lists:sum(lists:seq(0, 9_999)), ?M:sum(Segment, amount)),
    ?assertEqual(5_000, ?M:count_where(Segment, {lt, amount, 5_000})),
    ?assertEqual(3_334, map_get(~"placed", ?M:group_by(Segment, event_type, count))),
    ?assertMatch(#{total := {sum, 10_000}}, ?M:fold_tagged(Segment, #{})),
    ?assertEqual(3_333, ?M:count(?M:filter(Segment, {event_type, ~"paid"}))),
    ?assertEqual([[N] || N <- lists:seq(0, 9_999)], ?M:project(Segment, [amount])),
    ?assertEqual(2 * lists:sum(lists:seq(0, 9_999)), ?M:sum([Segment, Segment], amount)).

%% -------- helpers

shop(Count) ->
    [
        #{
            event_id => <<"event-", (integer_to_binary(N))/binary>>,
            event_type => lists:nth(N rem 3 + 1, [~"placed", ~"paid", ~"sent"]),
            stream_id => <<"order-", (integer_to_binary(N div 3))/binary>>,
            version => N,
            epoch_us => 1_000_000 + 1_000 * N,
            data => #{amount => N, name => <<"customer ", (N rem 7 + $0)>>, total => {sum, 1}},
            metadata => #{actor => N rem 2}
        }
     || N <- lists:seq(0, Count - 1)
    ].

terms() ->
    [
        0,
        -1,
        255,
        256,
        1 bsl 31,
        -(1 bsl 31),
        1 bsl 63,
        -(1 bsl 63),
        1 bsl 64,
        1 bsl 3000,
        -(1 bsl 3000),
        0.0,
        -0.0,
        1.5e-300,
        1.0e308,
        '',
        atom,
        undefined,
        'Ünï',
        binary_to_atom(binary:copy(~"a", 255)),
        binary_to_atom(unicode:characters_to_binary(lists:duplicate(255, 16#1F600))),
        <<>>,
        ~"text",
        binary:copy(~"x", 70_000),
        <<1:1>>,
        <<5:31>>,
        [],
        "text",
        lists:duplicate(70_000, 1),
        [1, 256],
        [a | b],
        [[], [[[]]]],
        {},
        {a, {b, {c}}},
        list_to_tuple(lists:seq(1, 300)),
        #{},
        #{1 => a, 1.0 => b, a => #{~"b" => []}},
        #{N => N || N <- lists:seq(1, 100)}
    ].

options() ->
    frequency([{3, #{}}, {1, #{compress => zstd}}]).

%% The value of a path in an event, by the rules and nothing else.
field({event, Path}, Event) ->
    below(Path, Event);
field({data, Path}, #{data := #{} = Data}) ->
    below(Path, Data);
field({data, Path}, Event) ->
    below(Path, Event);
field([Key | _] = Path, Event) when
    Key =:= event_id;
    Key =:= event_type;
    Key =:= stream_id;
    Key =:= version;
    Key =:= epoch_us;
    Key =:= metadata
->
    below(Path, Event);
field([_ | _] = Path, Event) ->
    field({data, Path}, Event);
field(Key, Event) ->
    field([Key], Event).

below([_ | _] = Path, Root) ->
    lists:foldl(
        fun
            (Key, {ok, Map}) when is_map_key(Key, Map) -> {ok, map_get(Key, Map)};
            (_, _) -> missing
        end,
        {ok, Root},
        Path
    );
below(Key, Root) ->
    below([Key], Root).

number({ok, N}) when is_number(N) -> {ok, N};
number({ok, {sum, N}}) when is_number(N) -> {ok, N};
number(_) -> none.

%% Integers apart; floats within a list, then those of the lists.
total(Lists) ->
    Integers = lists:sum([N || List <- Lists, N <- List, is_integer(N)]),
    case [added([N || N <- List, is_float(N)]) || List <- Lists, lists:any(fun is_float/1, List)] of
        [] -> Integers;
        Floats -> Integers + added(Floats)
    end.

added([First | Rest]) -> lists:foldl(fun(N, Sum) -> Sum + N end, First, Rest).

extreme(IsBefore, Lists) ->
    lists:foldl(
        fun
            (N, undefined) -> N;
            (N, Best) ->
                case IsBefore(N, Best) of
                    true -> N;
                    false -> Best
                end
        end,
        undefined,
        lists:append(Lists)
    ).

outcome(Fun) ->
    try
        Fun()
    catch
        error:badarith -> badarith
    end.

same(Expected, Found) -> ?assert(is_same(Expected, Found)).

%% Also 0.0 and -0.0 are two, on every OTP.
is_same(Expected, Found) ->
    Encode = fun(Term) -> term_to_binary(Term, [deterministic, {minor_version, 2}]) end,
    Encode(Expected) =:= Encode(Found).

sections(Segment) ->
    {ok, #{sections := Sections}} = esdb_segment_format:header(Segment),
    Sections.

%% -------- threads, of nodes that may use one and four

t_answers_do_not_depend_on_the_number_of_threads(_) ->
    %% Only Linux tells the threads of a process in a file.
    Helpers =
        case {?M:implementation(), os:type()} of
            {nif, {unix, linux}} -> 3;
            _ -> 0
        end,
    [{Alone, One}, {Together, Four}] = [
        with_threads(Threads, ?MODULE, answers_to_a_long_list, [Awaited])
     || {Threads, Awaited} <- [{1, 0}, {4, Helpers}]
    ],
    same(Alone, Together),
    ?assertEqual(0, One),
    ?assertEqual(Helpers, Four).

t_the_number_of_threads_is_what_the_environment_says(_) ->
    Half = max(1, erlang:system_info(schedulers_online) div 2),
    [
        ?assertEqual(Expected, with_threads(Configured, esdb_nif, threads, []))
     || {Configured, Expected} <- [{1, 1}, {7, 7}, {0, Half}, {many, Half}, {1 bsl 70, 1024}]
    ].

with_threads(Threads, Module, Function, Arguments) ->
    Policy =
        case ?M:implementation() of
            nif -> require;
            erlang -> off
        end,
    Configured = ["-erl_esdb_nifs", "threads", lists:flatten(io_lib:format("~p", [Threads]))],
    Peer = esdb_peer:start(Policy, Configured),
    try
        {value, Value} = esdb_peer:call(Peer, Module, Function, Arguments),
        Value
    after
        esdb_peer:stop(Peer)
    end.

%% On such a node: what a list says whose segments are long only once they are decompressed, and how
%% many threads came to be meanwhile. They live as long as a question, and on a machine with other
%% work not every look meets them, so it is asked again until as many as awaited were seen.
answers_to_a_long_list(Awaited) ->
    Segments = [
        ?M:pack(
            [#{data => #{n => N * K / 7, k => N rem K}} || N <- lists:seq(1, 4_999)],
            #{compress => zstd}
        )
     || K <- lists:seq(1, 32)
    ],
    Damaged = Segments ++ [binary:part(hd(Segments), 0, 400), <<>>],
    Questions = [
        fun() -> ?M:count_where(Segments, {gt, n, 1_000}) end,
        fun() -> ?M:sum(Segments, n) end,
        fun() -> ?M:group_by(Segments, k, [count, {sum, n}, {avg, n}]) end,
        fun() -> ?M:filter(Segments, {eq, k, 3}) end,
        fun() -> ?M:fold_tagged(Segments, #{}) end,
        fun() -> ?M:count_where(Damaged, {gt, n, 1_000}) end
    ],
    Before = threads_of_this_node(),
    Most = counters:new(1, []),
    counters:put(Most, 1, Before),
    Watcher = spawn_link(fun() -> watch(Most) end),
    Answers = [Question() || Question <- Questions],
    ask_until(Questions, fun() -> counters:get(Most, 1) - Before >= Awaited end, 500),
    unlink(Watcher),
    exit(Watcher, kill),
    {Answers, counters:get(Most, 1) - Before}.

ask_until(_, _, 0) ->
    gave_up;
ask_until(Questions, IsSeen, Rounds) ->
    case IsSeen() of
        true ->
            seen;
        false ->
            [Question() || Question <- Questions],
            ask_until(Questions, IsSeen, Rounds - 1)
    end.

watch(Most) ->
    counters:put(Most, 1, max(counters:get(Most, 1), threads_of_this_node())),
    watch(Most).

threads_of_this_node() ->
    case file:list_dir("/proc/self/task") of
        {ok, Threads} -> length(Threads);
        {error, enoent} -> 0
    end.

%% A segment of one event with nothing but data, with this payload instead.
with_payload(Segment, Payload) ->
    [#{id := 7, offset := Offset}] = sections(Segment),
    <<Head:16/binary, Id:8/binary, _:32/binary, Hash:8/binary, _/binary>> = Segment,
    Size = byte_size(Payload),
    Stored = 4 + Size,
    Entry = <<Id/binary, Offset:64/little, Stored:64/little, Stored:64/little, 0:64>>,
    ?G:repaired(<<Head/binary, Entry/binary, Hash/binary, Size:32/little, Payload/binary>>).

flipped(Bytes, Bit) ->
    <<Before:Bit/bits, Value:1, After/bits>> = Bytes,
    <<Before/bits, (1 - Value):1, After/bits>>.

hex(Text) -> binary:decode_hex(Text).

vectors() ->
    Folder = filename:dirname(code:which(?MODULE)),
    {ok, Json} = file:read_file(filename:join([Folder, "vectors", "segment.json"])),
    json:decode(Json).
