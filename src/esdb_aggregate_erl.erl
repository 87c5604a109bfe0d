-module(esdb_aggregate_erl).
-moduledoc """
Groups of events in Erlang, the twin of `esdb_aggregate_nif`, and the loops over maps that both
modes share because no library is faster at them.

Integers are summed apart from floats and come to them at the end, so integers stay exact at any
size and the result does not depend on where the floats stand between them.
""".

-export([grouped/3]).
-export([nearest/1]).
-export([fold/2, merge/2, finalize/1]).
-export([sum_field/2, count_where/3, statistics/1]).
-export([packed_sum/2, packed_count/3, packed_statistics/1]).
-export_type([path/0, question/0]).

%% Dialyzer takes it that a sum could be anything that the twin answers to any question.
-dialyzer({no_missing_return, packed_sum/2}).

%% In the data of an event, or in the event itself.
-type path() :: {data | event, [term(), ...]}.
-type question() :: count | {sum | min | max | avg, path()}.
%% Of events; or of numbers, `undefined` before the first that an extreme could be.
-type answer() :: non_neg_integer() | undefined | of_numbers().
-type of_numbers() :: sum() | {sum(), non_neg_integer()} | {number()}.
%% Without floats as long as none came.
-type sum() :: {sum, integer(), float() | none}.

%% An integer beyond what the virtual machine takes is no other error than a float beyond what
%% floats can be.
-define(BOUNDED(Expression),
    try
        Expression
    catch
        error:system_limit -> error(badarith)
    end
).

%% Groups

-doc "The groups of events, and the answers for each, in the order of the questions.".
-spec grouped(Events :: [term()], path(), [question()]) -> #{term() => [number() | undefined]}.
grouped(Events, Path, Questions) ->
    ?BOUNDED(#{
        Key => results(Answers, Questions)
     || Key := Answers <- groups(Events, Path, Questions, #{})
    }).

-spec groups([term()], path(), [question()], Groups) -> Groups when
    Groups :: #{term() => [answer()]}.
groups([#{} = Event | Events], Path, Questions, Groups) ->
    Key = value(Path, Event),
    Answers =
        case Groups of
            #{Key := Before} -> Before;
            #{} -> [nothing(Question) || Question <- Questions]
        end,
    groups(Events, Path, Questions, Groups#{Key => asked(Questions, Answers, Event)});
groups([_ | Events], Path, Questions, Groups) ->
    groups(Events, Path, Questions, Groups);
groups([], _Path, _Questions, Groups) ->
    Groups;
groups(_, _, _, _) ->
    error(badarg).

-spec value(path(), map()) -> term() | undefined.
value({data, Keys}, Event) -> value_in(Keys, data(Event));
value({event, Keys}, Event) -> value_in(Keys, Event).

-spec value_in([term()], term()) -> term() | undefined.
value_in([], Value) ->
    Value;
value_in([Key | Keys], Map) ->
    case Map of
        #{Key := Value} -> value_in(Keys, Value);
        _ -> undefined
    end.

-spec nothing(question()) -> 0 | {sum, 0, none} | {{sum, 0, none}, 0} | undefined.
nothing(count) -> 0;
nothing({sum, _}) -> {sum, 0, none};
nothing({avg, _}) -> {{sum, 0, none}, 0};
nothing(_) -> undefined.

-spec asked([question()], [answer()], map()) -> [answer()].
asked([count | Questions], [Count | Answers], Event) ->
    [Count + 1 | asked(Questions, Answers, Event)];
asked([{Kind, Path} | Questions], [Answer | Answers], Event) ->
    Next =
        case number(value(Path, Event)) of
            none -> Answer;
            Number -> more(Kind, Answer, Number)
        end,
    [Next | asked(Questions, Answers, Event)];
asked([], [], _Event) ->
    [].

-spec more(sum | min | max | avg, answer(), number()) -> of_numbers().
more(sum, Sum, Number) -> add(Sum, Number);
more(avg, {Sum, Count}, Number) -> {add(Sum, Number), Count + 1};
more(_, undefined, Number) -> {Number};
more(min, {Least}, Number) when Number < Least -> {Number};
more(max, {Greatest}, Number) when Number > Greatest -> {Number};
more(_, {_} = Kept, _Number) -> Kept.

-spec results([answer()], [question()]) -> [number() | undefined].
results(Answers, Questions) -> lists:zipwith(fun result/2, Answers, Questions).

-spec result(answer(), question()) -> number() | undefined.
result(Count, count) -> Count;
result(Sum, {sum, _}) -> total(Sum);
result({_, 0}, {avg, _}) -> undefined;
result({Sum, Count}, {avg, _}) -> nearest(total(Sum)) / Count;
result({Number}, _) -> Number;
result(undefined, _) -> undefined.

%% Sums

-spec add(sum(), number()) -> sum().
add({sum, Ints, Floats}, Number) when is_integer(Number) -> {sum, Ints + Number, Floats};
add({sum, Ints, none}, Number) -> {sum, Ints, Number};
add({sum, Ints, Floats}, Number) -> {sum, Ints, Floats + Number}.

-spec total(sum()) -> number().
total({sum, Ints, none}) -> Ints;
total({sum, Ints, Floats}) -> nearest(Ints) + Floats.

-doc """
The float next to a number, of two the even one; `badarith` where there is none.

Erlang's own conversion is that in release 29; before, integers of several words were rounded once
for each of them. One word is rounded by the processor, with a bit that stands for all below it.
""".
-spec nearest(number()) -> float().
nearest(Float) when is_float(Float) -> Float;
nearest(Int) when Int < 0 -> -nearest(-Int);
nearest(Int) when Int < 1 bsl 64 -> float(Int);
nearest(Int) when Int >= 1 bsl 1024 -> error(badarith);
nearest(Int) ->
    Below = significant(Int) - 64,
    Top = Int bsr Below,
    Rest =
        case Top bsl Below of
            Int -> 0;
            _ -> 1
        end,
    <<Scale/float>> = <<0:1, (1023 + Below):11, 0:52>>,
    (Top bor Rest) * Scale.

%% How many bits an integer above 0 has.
-spec significant(pos_integer()) -> pos_integer().
significant(Int) ->
    <<First, Rest/binary>> = binary:encode_unsigned(Int),
    length(integer_to_list(First, 2)) + bit_size(Rest).

%% What counts as a number: one, or a tagged one.
-spec number(term()) -> number() | none.
number(Number) when is_number(Number) -> Number;
number({sum, Number}) when is_number(Number) -> Number;
number(_) -> none.

-doc "The sum of one field.".
-spec sum_field(Events :: [term()], Field :: term()) -> number().
sum_field(Events, Field) -> ?BOUNDED(sum_field(Events, Field, 0, none)).

-spec sum_field([term()], term(), integer(), float() | none) -> number().
sum_field([Event | Events], Field, Ints, Floats) ->
    case data(Event) of
        #{Field := Number} when is_integer(Number) ->
            sum_field(Events, Field, Ints + Number, Floats);
        #{Field := Value} ->
            {sum, MoreInts, MoreFloats} = sum_of(number(Value), {sum, Ints, Floats}),
            sum_field(Events, Field, MoreInts, MoreFloats);
        _ ->
            sum_field(Events, Field, Ints, Floats)
    end;
sum_field([], _Field, Ints, Floats) ->
    total({sum, Ints, Floats});
sum_field(_, _, _, _) ->
    error(badarg).

-spec sum_of(number() | none, sum()) -> sum().
sum_of(none, Sum) -> Sum;
sum_of(Number, Sum) -> add(Sum, Number).

%% Tagged fields

-doc "Applies the fields of all events to a state, one after the other.".
-spec fold(Events :: [term()], State :: map()) -> map().
fold(Events, State) -> ?BOUNDED(folded(Events, State)).

-spec folded([term()], map()) -> map().
folded([Event | Events], State) ->
    case data(Event) of
        none -> folded(Events, State);
        Data -> folded(Events, maps:fold(fun apply_field/3, State, Data))
    end;
folded([], State) ->
    State;
folded(_, _) ->
    error(badarg).

-doc "Applies fields to a state in their order.".
-spec merge([{Key :: term(), Value :: term()}], State :: map()) -> map().
merge(Pairs, State) -> ?BOUNDED(merged(Pairs, State)).

-spec merged([{term(), term()}] | term(), map()) -> map().
merged([{Key, Value} | Pairs], State) -> merged(Pairs, apply_field(Key, Value, State));
merged([], State) -> State;
merged(_, _) -> error(badarg).

-spec apply_field(term(), term(), map()) -> map().
apply_field(Key, {sum, Number}, State) when is_number(Number) ->
    State#{Key => {sum, counted(maps:get(Key, State, undefined)) + Number}};
apply_field(Key, Value, State) ->
    State#{Key => Value}.

%% What a value counts for a sum that is added to it. (A field that is not there counts 0 too, and
%% is added to like the others: the compiler makes `Number` of a written `0 + Number`, which for
%% -0.0 is not the same.)
-spec counted(term()) -> number().
counted({sum, Number}) when is_number(Number) -> Number;
counted({overwrite, Number}) when is_number(Number) -> Number;
counted(Number) when is_number(Number) -> Number;
counted(_) -> 0.

-doc "The state without its tags.".
-spec finalize(map()) -> map().
finalize(State) -> #{Key => untagged(Value) || Key := Value <- State}.

-spec untagged(term()) -> term().
untagged({sum, Value}) -> Value;
untagged({overwrite, Value}) -> Value;
untagged(Value) -> Value.

%% Counts

-doc "How many events have exactly this value in a field.".
-spec count_where(Events :: [term()], Field :: term(), Value :: term()) -> non_neg_integer().
count_where(Events, Field, Value) -> count_where(Events, Field, Value, 0).

-spec count_where([term()], term(), term(), non_neg_integer()) -> non_neg_integer().
count_where([Event | Events], Field, Value, Count) ->
    case data(Event) of
        #{Field := Value} -> count_where(Events, Field, Value, Count + 1);
        #{Field := _} -> count_where(Events, Field, Value, Count);
        #{} when Value =:= undefined -> count_where(Events, Field, Value, Count + 1);
        _ -> count_where(Events, Field, Value, Count)
    end;
count_where([], _Field, _Value, Count) ->
    Count;
count_where(_, _, _, _) ->
    error(badarg).

-doc "How many events there are, how many with data, and how many different fields.".
-spec statistics(Events :: [term()]) -> {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
statistics(Events) -> statistics(Events, 0, 0, #{}).

-spec statistics([term()], non_neg_integer(), non_neg_integer(), map()) ->
    {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
statistics([Event | Events], Total, WithData, Fields) ->
    case data(Event) of
        #{} = Data when map_size(Data) > 0 ->
            statistics(Events, Total + 1, WithData + 1, maps:merge(Fields, Data));
        _ ->
            statistics(Events, Total + 1, WithData, Fields)
    end;
statistics([], Total, WithData, Fields) ->
    {Total, WithData, map_size(Fields)};
statistics(_, _, _, _) ->
    error(badarg).

%% Packed events: a field is one of the data, whatever its name.

-type segments() :: esdb_segment_nif:segments().
-type error() :: {error, esdb_segment_nif:reason()}.

-doc "The sum of one field of packed events.".
-spec packed_sum(segments(), Field :: term()) -> number() | error().
packed_sum(Segments, Field) -> esdb_segment_nif:sum(Segments, {data, [Field]}).

-doc "How many packed events have exactly this value in a field.".
-spec packed_count(segments(), Field :: term(), Value :: term()) -> non_neg_integer() | error().
packed_count(Segments, Field, Value) when is_number(Value) ->
    %% Groups are told apart exactly, which predicates do not do with numbers.
    case esdb_segment_nif:group_by(Segments, {data, [Field]}, count) of
        {error, Reason} -> {error, Reason};
        Groups -> maps:get(Value, Groups, 0)
    end;
packed_count(Segments, Field, undefined) ->
    Path = {data, [Field]},
    counted(Segments, {'or', [{eq, Path, undefined}, {'not', {exists, Path}}]});
packed_count(Segments, Field, Value) ->
    counted(Segments, {eq, {data, [Field]}, Value}).

-spec counted(segments(), esdb_predicate_erl:predicate()) -> non_neg_integer() | error().
counted(Segments, Predicate) ->
    case esdb_segment_nif:count_where(Segments, Predicate) of
        {error, {invalid_predicate, _}} -> error(badarg);
        Answer -> Answer
    end.

-doc "The same as `statistics/1`, of packed events, which are built for it.".
-spec packed_statistics(segments()) ->
    {non_neg_integer(), non_neg_integer(), non_neg_integer()} | error().
packed_statistics(Segments) ->
    case esdb_events_erl:built(Segments) of
        {ok, Built} -> statistics(lists:append(Built), 0, 0, #{});
        {error, Reason} -> {error, Reason}
    end.

%% The map under `data`, or else the event, if it is a map.
-spec data(term()) -> map() | none.
data(#{data := #{} = Data}) -> Data;
data(#{} = Event) -> Event;
data(_) -> none.
