-module(esdb_aggregate_SUITE).
-moduledoc """
Rows A/NAG and groups, on whichever implementation is loaded.

The properties compare with a naive reference that knows lists and integers only: all integers are
added first, then the floats from left to right.
""".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_nag_01_aggregate_events,
        a_nag_02_initial_state,
        a_nag_03_sum_field,
        a_nag_04_count_where,
        a_nag_05_merge_tagged_batch,
        a_nag_06_finalize,
        a_nag_07_aggregation_stats,
        a_nag_08_atom_and_binary_keys,
        t_60_integers_stay_integers,
        integers_are_exact_at_any_size,
        what_no_float_holds_is_badarith,
        misuse_is_badarg,
        group_by_answers_each_aggregate,
        group_by_tells_keys_apart_exactly,
        group_by_paths,
        group_by_first_of_equals_is_kept,
        group_by_of_many_events_and_keys,
        group_by_of_long_integers,
        sums_are_those_of_the_reference,
        folds_are_those_of_the_reference,
        groups_are_those_of_the_reference,
        splitting_a_batch_changes_nothing,
        integers_become_the_nearest_float,
        packed_events_answer_as_maps,
        packed_fields_are_those_of_the_data,
        segments_that_cannot_be_read,
        real_events
    ].

a_nag_01_aggregate_events(_Config) ->
    Events = [
        #{data => #{balance => {sum, 100}, name => ~"Alice", status => {overwrite, open}}},
        #{data => #{balance => {sum, 50}, name => ~"Bob"}},
        #{data => #{status => {overwrite, closed}}}
    ],
    ?assertEqual(
        #{balance => {sum, 150}, name => ~"Bob", status => {overwrite, closed}},
        esdb_aggregate_nif:aggregate_events(Events, #{}, false)
    ),
    ?assertEqual(
        #{balance => 150, name => ~"Bob", status => closed},
        esdb_aggregate_nif:aggregate_events(Events, #{}, true)
    ),
    ?assertEqual(#{}, esdb_aggregate_nif:aggregate_events([], #{}, true)).

a_nag_02_initial_state(_Config) ->
    Events = [#{data => #{balance => {sum, 50}}}],
    [
        ?assertEqual(
            #{balance => 150, kept => 1},
            esdb_aggregate_nif:aggregate_events(Events, #{balance => Start, kept => 1}, true)
        )
     || Start <- [100, {sum, 100}, {overwrite, 100}]
    ],
    [
        ?assertEqual(
            #{balance => {sum, 50}},
            esdb_aggregate_nif:aggregate_events(Events, #{balance => Start}, false)
        )
     || Start <- [~"text", {sum, ~"text"}, {overwrite, ~"text"}, {overwrite, {sum, 100}}, undefined]
    ].

a_nag_03_sum_field(_Config) ->
    Of = fun(Values) -> [#{data => #{amount => Value}} || Value <- Values] end,
    Sum = fun(Values) -> esdb_aggregate_nif:sum_field(Of(Values), amount) end,
    ?assertEqual(450, Sum([100, 150, 200])),
    ?assertEqual(120, Sum([100, {sum, 20}, ~"7", {overwrite, 5}, {sum, ~"x"}, undefined])),
    ?assertEqual(4.0, Sum([1.5, 2.5])),
    ?assertEqual(4.0, Sum([1, {sum, 2.5}, 0.5])),
    ?assertEqual(0, Sum([])),
    ?assertEqual(0, Sum([~"a"])),
    ?assertEqual(5, esdb_aggregate_nif:sum_field([#{amount => 5}, #{other => 1}, none], amount)),
    ?assertEqual(7, esdb_aggregate_nif:sum_field([#{amount => 7, data => ~"binary"}], amount)),
    ?assertEqual(0, esdb_aggregate_nif:sum_field([#{amount => 7, data => #{}}], amount)).

a_nag_04_count_where(_Config) ->
    Events = [
        #{data => #{status => Status}}
     || Status <- [open, closed, open, 1, 1.0, undefined]
    ],
    Count = fun(Value) -> esdb_aggregate_nif:count_where(Events, status, Value) end,
    ?assertEqual(2, Count(open)),
    ?assertEqual(1, Count(1)),
    ?assertEqual(1, Count(1.0)),
    ?assertEqual(0, Count(~"open")),
    ?assertEqual(1, Count(undefined)),
    ?assertEqual(6, esdb_aggregate_nif:count_where(Events, missing, undefined)),
    ?assertEqual(0, esdb_aggregate_nif:count_where([none, 1], status, undefined)).

a_nag_05_merge_tagged_batch(_Config) ->
    ?assertEqual(
        #{a => {sum, 15}},
        esdb_aggregate_nif:merge_tagged_batch([{a, {sum, 10}}, {a, {sum, 5}}], #{})
    ),
    Pairs = [{a, {sum, 1}}, {a, 7}, {a, {sum, 2}}, {b, {overwrite, 3}}, {b, {sum, 4}}],
    ?assertEqual(
        #{a => {sum, 9}, b => {sum, 7}, c => 1},
        esdb_aggregate_nif:merge_tagged_batch(Pairs, #{c => 1})
    ),
    ?assertEqual(#{c => 1}, esdb_aggregate_nif:merge_tagged_batch([], #{c => 1})).

a_nag_06_finalize(_Config) ->
    State = #{
        a => {sum, 5}, b => {overwrite, x}, c => 1, d => {sum, ~"t"}, e => {overwrite, {sum, 1}}
    },
    ?assertEqual(
        #{a => 5, b => x, c => 1, d => ~"t", e => {sum, 1}},
        esdb_aggregate_nif:finalize(State)
    ),
    ?assertEqual(#{}, esdb_aggregate_nif:finalize(#{})).

a_nag_07_aggregation_stats(_Config) ->
    Stats = fun(Events) -> esdb_aggregate_nif:aggregation_stats(Events) end,
    Expected = #{total_events => 3, events_with_data => 3, unique_fields => 2},
    ?assertEqual(Expected, Stats([#{data => #{a => 1}}, #{data => #{b => 1}}, #{a => 1}])),
    ?assertEqual(
        #{total_events => 4, events_with_data => 1, unique_fields => 1},
        Stats([#{data => #{}}, #{}, none, #{~"a" => 1}])
    ),
    ?assertEqual(#{total_events => 0, events_with_data => 0, unique_fields => 0}, Stats([])).

a_nag_08_atom_and_binary_keys(_Config) ->
    Events = [#{data => #{amount => 1, ~"amount" => 10}}, #{data => #{~"amount" => {sum, 20}}}],
    ?assertEqual(1, esdb_aggregate_nif:sum_field(Events, amount)),
    ?assertEqual(30, esdb_aggregate_nif:sum_field(Events, ~"amount")),
    ?assertEqual(1, esdb_aggregate_nif:count_where(Events, amount, undefined)),
    ?assertEqual(
        #{amount => 1, ~"amount" => 30}, esdb_aggregate_nif:aggregate_events(Events, #{}, true)
    ),
    ?assertEqual(#{1 => 10, undefined => 20}, group(Events, amount, {sum, ~"amount"})),
    #{unique_fields := 2} = esdb_aggregate_nif:aggregation_stats(Events).

t_60_integers_stay_integers(_Config) ->
    ?assert(is_integer(esdb_aggregate_nif:sum_field([#{a => 1}, #{a => 2}], a))),
    ?assertEqual(#{undefined => 3}, group([#{a => 1}, #{a => 2}], b, {sum, a})).

integers_are_exact_at_any_size(_Config) ->
    Integers = [1 bsl 62, 1 bsl 63, 1 bsl 64, 1 bsl 127, -(1 bsl 63), -1, -(1 bsl 200), 1 bsl 2000],
    Events = [#{a => Integer} || Integer <- Integers],
    Sum = lists:sum(Integers),
    ?assertEqual(Sum, esdb_aggregate_nif:sum_field(Events, a)),
    ?assertEqual(
        #{undefined => [Sum, -(1 bsl 200), 1 bsl 2000]},
        group(Events, b, [{sum, a}, {min, a}, {max, a}])
    ),
    %% One by one the ones would get lost in a float of this size.
    Mixed = [#{a => 0.5}, #{a => 1 bsl 53} | [#{a => 1} || _ <- lists:seq(1, 8)]],
    ?assertEqual(9007199254741000.0, esdb_aggregate_nif:sum_field(Mixed, a)),
    ?assertEqual(#{undefined => 9007199254741000.0}, group(Mixed, b, {sum, a})).

what_no_float_holds_is_badarith(_Config) ->
    [
        begin
            Events = [#{a => Number} || Number <- Numbers],
            ?assertError(badarith, esdb_aggregate_nif:sum_field(Events, a)),
            ?assertError(badarith, group(Events, b, {sum, a})),
            ?assertError(badarith, group(Events, b, {avg, a})),
            ?assertEqual(#{undefined => 2}, group(Events, b, count))
        end
     || Numbers <- [[1.7e308, 1.7e308], [1 bsl 1024, 0.0], [1.7e308, 1 bsl 1023]]
    ],
    ?assertError(badarith, group([#{a => 1 bsl 1024}], b, {avg, a})),
    Tagged = [#{a => 1.7e308}, #{a => {sum, 1.7e308}}],
    ?assertError(badarith, esdb_aggregate_nif:aggregate_events(Tagged, #{}, true)),
    %% The longest integer there is, and one.
    Longest = ((1 bsl 4_194_238) - 1) * 4 + 3,
    Two = [#{a => Longest}, #{a => 1}],
    ?assertEqual(Longest, esdb_aggregate_nif:sum_field([#{a => Longest}], a)),
    ?assertError(badarith, esdb_aggregate_nif:sum_field(Two, a)),
    ?assertError(badarith, group(Two, b, {sum, a})),
    ?assertEqual(#{undefined => [1, Longest]}, group(Two, b, [{min, a}, {max, a}])).

misuse_is_badarg(_Config) ->
    Module = esdb_aggregate_nif,
    [
        ?assertError(badarg, apply(Module, Function, Arguments))
     || {Function, Arguments} <- [
            {aggregate_events, [#{}, #{}, true]},
            {aggregate_events, [[#{} | #{}], #{}, true]},
            {aggregate_events, [[], [], true]},
            {aggregate_events, [[], #{}, yes]},
            {merge_tagged_batch, [[a], #{}]},
            {merge_tagged_batch, [[{a, 1} | b], #{}]},
            {merge_tagged_batch, [[], a]},
            {finalize, [[]]},
            {sum_field, [a, a]},
            {sum_field, [[#{} | a], a]},
            {count_where, [a, a, a]},
            {count_where, [[#{} | a], a, a]},
            {aggregation_stats, [[#{} | a]]},
            {group_by, [a, a, count]},
            {group_by, [[#{} | a], a, count]},
            {group_by, [[], [], count]},
            {group_by, [[], [a | b], count]},
            {group_by, [[], a, median]},
            {group_by, [[], a, {sum, []}]},
            {group_by, [[], a, {count, a}]},
            {group_by, [[], a, [count | count]]}
        ]
    ].

group_by_answers_each_aggregate(_Config) ->
    Events = [
        #{event_type => Type, data => #{amount => Amount}}
     || {Type, Amount} <- [{a, 3}, {b, 1.5}, {a, {sum, 4}}, {c, none}, {a, ~"x"}]
    ],
    All = [count, {sum, amount}, {min, amount}, {max, amount}, {avg, amount}],
    ?assertEqual(
        #{
            a => [3, 7, 3, 4, 3.5],
            b => [1, 1.5, 1.5, 1.5, 1.5],
            c => [1, 0, undefined, undefined, undefined]
        },
        group(Events, event_type, All)
    ),
    ?assertEqual(#{a => 3, b => 1, c => 1}, group(Events, event_type, count)),
    ?assertEqual(#{a => [], b => [], c => []}, group(Events, event_type, [])),
    ?assertEqual(#{}, group([], event_type, All)),
    ?assertEqual(#{}, group([none, 1], event_type, count)).

group_by_tells_keys_apart_exactly(_Config) ->
    Numbers = [1, 1.0, 0.0, -0.0, 1 bsl 70],
    Keys = Numbers ++ [a, ~"a", "a", [], {}, #{}, #{1 => 2}, #{1.0 => 2}, undefined],
    Events = [#{k => Key} || Key <- Keys ++ Keys],
    ?assertEqual(#{Key => 2 || Key <- Keys}, group(Events, k, count)),
    ?assertEqual(#{undefined => 2}, group([#{}, #{k => undefined}], k, count)).

group_by_paths(_Config) ->
    Event = #{
        event_type => t,
        version => 7,
        metadata => #{actor_id => ~"me"},
        data => #{event_type => inner, a => #{b => #{c => 5}}, "key" => 1, metadata => other}
    },
    Key = fun(Path) -> [{K, 1}] = maps:to_list(group([Event], Path, count)), K end,
    ?assertEqual(t, Key(event_type)),
    ?assertEqual(7, Key([version])),
    ?assertEqual(~"me", Key([metadata, actor_id])),
    ?assertEqual(5, Key([a, b, c])),
    ?assertEqual(#{c => 5}, Key([a, b])),
    ?assertEqual(undefined, Key([a, b, c, d])),
    ?assertEqual(undefined, Key([a, x])),
    ?assertEqual(1, Key(["key"])),
    ?assertEqual(undefined, Key(data)),
    ?assertEqual(undefined, Key(stream_id)),
    %% Without data that is a map the event is the data.
    ?assertEqual(#{~"bytes" => 5}, group([#{data => ~"bytes", a => 5}], data, {sum, a})).

group_by_first_of_equals_is_kept(_Config) ->
    Numbers = [1, 1.0, 0.0, -0.0, 1 bsl 53, 9007199254740992.0],
    [
        ?assertEqual(
            #{undefined => [A, A]}, group([#{a => A}, #{a => B}], k, [{min, a}, {max, a}])
        )
     || A <- Numbers, B <- Numbers, A == B
    ].

group_by_of_many_events_and_keys(_Config) ->
    Events = [#{k => I rem 30_000, n => I} || I <- lists:seq(0, 59_999)],
    Expected = #{I => [2, 2 * I + 30_000] || I <- lists:seq(0, 29_999)},
    ?assertEqual(Expected, group(Events, k, [count, {sum, n}])).

%% Where the library changes the scheduler half way through.
group_by_of_long_integers(_Config) ->
    Integers = [1, 1 bsl 9000, 1 bsl 100_000, -(1 bsl 9000)],
    Events = [#{a => I} || I <- Integers],
    ?assertEqual(#{undefined => lists:sum(Integers)}, group(Events, b, {sum, a})).

sums_are_those_of_the_reference(_Config) ->
    check(
        ?FORALL(
            {Events, Key},
            {esdb_aggregate_gen:events(), esdb_aggregate_gen:key()},
            attempt(fun() -> esdb_aggregate_nif:sum_field(Events, Key) end) =:=
                attempt(fun() -> reference_sum(numbers_of_data(Events, Key)) end)
        )
    ).

folds_are_those_of_the_reference(_Config) ->
    check(
        ?FORALL(
            Events,
            esdb_aggregate_gen:events(),
            attempt(fun() -> esdb_aggregate_nif:aggregate_events(Events, #{}, false) end) =:=
                attempt(fun() -> reference_fold(Events) end)
        )
    ).

groups_are_those_of_the_reference(_Config) ->
    All = fun(Field) -> [count | [{Kind, Field} || Kind <- [sum, min, max, avg]]] end,
    check(
        ?FORALL(
            {Events, Group, Field},
            {esdb_aggregate_gen:events(), esdb_aggregate_gen:path(), esdb_aggregate_gen:path()},
            attempt(fun() -> group(Events, Group, All(Field)) end) =:=
                attempt(fun() -> reference_groups(Events, as_list(Group), as_list(Field)) end)
        )
    ).

splitting_a_batch_changes_nothing(_Config) ->
    Pairs = list({esdb_aggregate_gen:key(), esdb_aggregate_gen:field_value()}),
    Merge = fun esdb_aggregate_nif:merge_tagged_batch/2,
    check(
        ?FORALL(
            {First, Second},
            {Pairs, Pairs},
            attempt(fun() -> Merge(First ++ Second, #{}) end) =:=
                attempt(fun() -> Merge(Second, Merge(First, #{})) end)
        )
    ).

%% Of two floats that are equally near, the even one: on every release of Erlang, in both modes.
integers_become_the_nearest_float(_Config) ->
    Whole = 1 bsl 52,
    [
        begin
            Integer = ((Whole + Odd) bsl Bits) + (1 bsl (Bits - 1)) + Rest,
            Up = Rest > 0 orelse (Rest =:= 0 andalso Odd rem 2 =:= 1),
            Mantissa = Whole + Odd + length([up || Up]),
            %% Up to 2^53 and by a power of two: without any rounding.
            Expected = float(Mantissa) * math:pow(2.0, Bits),
            Events = [#{a => Integer}, #{a => 0.0}],
            ?assertEqual(#{undefined => Expected}, group(Events, b, {sum, a})),
            ?assertEqual(#{undefined => Expected}, group([#{a => Integer}], b, {avg, a})),
            ?assertEqual(Expected, esdb_aggregate_nif:sum_field(Events, a)),
            Below = [#{a => -Integer}, #{a => 0.0}],
            ?assertEqual(-Expected, esdb_aggregate_nif:sum_field(Below, a))
        end
     || Bits <- [2, 11, 12, 13, 64, 65, 76, 128, 500, 960],
        Odd <- [0, 1, 2, 3, 1234567],
        Rest <- [-1, 0, 1]
    ],
    %% No sum of zeros is a zero below zero, as 0 + -0.0 is none.
    ?assertEqual(0.0, esdb_aggregate_nif:sum_field([#{a => -0.0}], a)),
    ?assertEqual(#{undefined => 0.0}, group([#{a => -0.0}], b, {sum, a})),
    Packed = esdb_segment_nif:pack([#{a => -0.0}]),
    ?assertEqual(0.0, esdb_aggregate_nif:sum_field(Packed, a)).

%% One segment: with several, floats are added in another order.
packed_events_answer_as_maps(_Config) ->
    check(
        ?FORALL(
            {Events, Path, Field, Value, Init},
            {
                esdb_segment_gen:events(),
                esdb_segment_gen:path(),
                esdb_aggregate_gen:key(),
                oneof([undefined, esdb_segment_gen:content()]),
                esdb_segment_gen:init()
            },
            begin
                Segment = esdb_segment_nif:pack(Events),
                Same = fun(Function, Rest) ->
                    Ask = fun(All) -> apply(esdb_aggregate_nif, Function, [All | Rest]) end,
                    attempt(fun() -> Ask(Events) end) =:= attempt(fun() -> Ask(Segment) end)
                end,
                Same(sum_field, [Field]) andalso
                    Same(count_where, [Field, Value]) andalso
                    Same(group_by, [Path, [count, {sum, [Field]}, {max, Path}]]) andalso
                    Same(aggregation_stats, []) andalso
                    Same(aggregate_events, [Init, false]) andalso
                    Same(aggregate_events, [Init, true])
            end
        )
    ).

packed_fields_are_those_of_the_data(_Config) ->
    Event = #{version => 7, event_type => ~"t", data => #{version => 5, event_type => 1, a => 2}},
    Segments = [esdb_segment_nif:pack([Event, Event]), esdb_segment_nif:pack([#{version => 1}])],
    ?assertEqual(11, esdb_aggregate_nif:sum_field(Segments, version)),
    ?assertEqual(4, esdb_aggregate_nif:sum_field(Segments, a)),
    Count = fun(Field, Value) -> esdb_aggregate_nif:count_where(Segments, Field, Value) end,
    ?assertEqual(2, Count(version, 5)),
    ?assertEqual(0, Count(version, 5.0)),
    ?assertEqual(2, Count(event_type, 1)),
    ?assertEqual(1, Count(event_type, undefined)),
    ?assertEqual(1, Count(a, undefined)),
    ?assertEqual(2, Count(a, 2)),
    ?assertEqual(0, Count(a, 2.0)),
    ?assertEqual(#{5 => 1}, group([esdb_segment_nif:pack([#{version => 5}])], version, count)).

segments_that_cannot_be_read(_Config) ->
    Whole = esdb_segment_nif:pack([#{data => #{n => 1, version => 2}}]),
    Cut = binary:part(Whole, 0, byte_size(Whole) - 1),
    [
        begin
            Ask = fun(Events) -> apply(esdb_aggregate_nif, Function, [Events | Rest]) end,
            ?assertEqual({error, {corrupt, header}}, Ask(~"segment")),
            ?assertEqual({error, {corrupt, header}}, Ask([Whole, Cut])),
            ?assertError(badarg, Ask([Whole, #{}])),
            ?assertError(badarg, Ask([Whole | Whole])),
            ?assertError(badarg, Ask({esdb_segment, Whole, no_dictionary}))
        end
     || {Function, Rest} <- [
            {aggregate_events, [#{}, true]},
            {sum_field, [n]},
            {sum_field, [version]},
            {count_where, [n, 1]},
            {count_where, [n, ~"a"]},
            {count_where, [version, 1]},
            {group_by, [n, count]},
            {aggregation_stats, []}
        ]
    ].

real_events(_Config) ->
    Events = esdb_commits:events(),
    {First, Second} = lists:split(length(Events) div 3, Events),
    Segments = [esdb_segment_nif:pack(First, #{compress => zstd}), esdb_segment_nif:pack(Second)],
    Number = fun(Key) -> [N || #{data := #{Key := N}} <- Events] end,
    Sum = lists:sum(Number(~"insertions")),
    Grouped = maps:groups_from_list(
        fun(#{stream_id := Area}) -> Area end, fun(#{data := Data}) -> Data end, Events
    ),
    Expected = #{
        Area => begin
            Inserted = [N || #{~"insertions" := N} <- Datas],
            Deleted = [N || #{~"deletions" := N} <- Datas],
            [length(Datas), lists:sum(Inserted), lists:max(Inserted), lists:min(Deleted)]
        end
     || Area := Datas <- Grouped
    },
    Asked = [count, {sum, ~"insertions"}, {max, ~"insertions"}, {min, ~"deletions"}],
    Actors = lists:usort([Actor || #{metadata := #{~"actor_id" := Actor}} <- Events]),
    [
        begin
            ?assertEqual(Sum, esdb_aggregate_nif:sum_field(From, ~"insertions")),
            ?assertEqual(
                length([1 || 3 <- Number(~"files")]),
                esdb_aggregate_nif:count_where(From, ~"files", 3)
            ),
            ?assertEqual(Expected, group(From, stream_id, Asked)),
            ByActor = group(From, [metadata, ~"actor_id"], count),
            ?assertEqual(Actors, lists:sort(maps:keys(ByActor))),
            ?assertEqual(length(Events), lists:sum(maps:values(ByActor)))
        end
     || From <- [Events, Segments]
    ].

%% The reference.

reference_sum(Numbers) ->
    Ints = lists:sum([N || N <- Numbers, is_integer(N)]),
    case [N || N <- Numbers, is_float(N)] of
        [] -> Ints;
        [First | Floats] -> Ints + lists:foldl(fun(N, Sum) -> Sum + N end, First, Floats)
    end.

reference_groups(Events, Group, Field) ->
    Maps = [Event || Event <- Events, is_map(Event)],
    #{
        Key => reference_answers([Event || Event <- Maps, find(Event, Group) =:= Key], Field)
     || Key <- [find(Event, Group) || Event <- Maps]
    }.

reference_answers(Events, Field) ->
    Numbers = numbers(Events, Field),
    [length(Events), reference_sum(Numbers) | extremes(Numbers)].

extremes([]) ->
    [undefined, undefined, undefined];
extremes(Numbers) ->
    [Least | _] = lists:sort(Numbers),
    [Greatest | _] = lists:sort(fun(A, B) -> A >= B end, Numbers),
    [Least, Greatest, reference_sum(Numbers) / length(Numbers)].

numbers(Events, Path) ->
    Values = [find(Event, Path) || Event <- Events, is_map(Event)],
    lists:append([number(Value) || Value <- Values]).

%% A field is always one of the data, whatever its name.
numbers_of_data(Events, Key) ->
    Values = [maps:get(Key, data(Event), none) || Event <- Events, is_map(Event)],
    lists:append([number(Value) || Value <- Values]).

number({sum, N}) when is_number(N) -> [N];
number(N) when is_number(N) -> [N];
number(_) -> [].

find(Event, {event, Path}) ->
    lists:foldl(fun step/2, Event, Path);
find(Event, {data, Path}) ->
    lists:foldl(fun step/2, data(Event), Path);
find(Event, [Key | _] = Path) ->
    Envelope = [stream_id, event_type, version, metadata, event_id, epoch_us],
    From =
        case lists:any(fun(Name) -> Name =:= Key end, Envelope) of
            true -> Event;
            false -> data(Event)
        end,
    lists:foldl(fun step/2, From, Path).

step(Key, Map) when is_map(Map) -> maps:get(Key, Map, undefined);
step(_Key, _) -> undefined.

data(Event) ->
    case maps:get(data, Event, none) of
        Data when is_map(Data) -> Data;
        _ -> Event
    end.

reference_fold(Events) ->
    Pairs = [maps:to_list(data(Event)) || Event <- Events, is_map(Event)],
    lists:foldl(fun reference_field/2, #{}, lists:append(Pairs)).

reference_field({Key, {sum, N}}, State) when is_number(N) ->
    Before =
        case maps:get(Key, State, 0) of
            {Tag, M} when is_number(M), (Tag =:= sum orelse Tag =:= overwrite) -> M;
            M when is_number(M) -> M;
            _ -> 0
        end,
    maps:put(Key, {sum, Before + N}, State);
reference_field({Key, Value}, State) ->
    maps:put(Key, Value, State).

%% Helpers

group(Events, Path, Aggregates) -> esdb_aggregate_nif:group_by(Events, Path, Aggregates).

as_list([]) -> error(badarg);
as_list(Path) when is_list(Path) -> Path;
as_list({Root, Path}) when Root =:= event; Root =:= data -> {Root, as_list(Path)};
as_list(Key) -> [Key].

attempt(Fun) ->
    try
        {value, Fun()}
    catch
        error:Reason -> {error, Reason}
    end.

check(Property) ->
    case proper:quickcheck(Property, [quiet, {numtests, 1000}, {to_file, user}]) of
        true -> ok;
        Other -> ct:fail({Other, proper:counterexample()})
    end.
