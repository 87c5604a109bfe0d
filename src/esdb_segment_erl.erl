-module(esdb_segment_erl).
-moduledoc false.
%% The Erlang twin of the questions to segments: what native/core/src/query.rs does, in the same
%% order, on the same bytes. Nothing is built but what is in the answer, and what an answer does not
%% need is not looked at: so a malformed term disturbs only whoever asks for it.

-export([matching/3, filtered/2, counted/2, aggregated/3, grouped/3, folded/2, projected/3]).
-export_type([source/0, initial/0, reason/0]).

-type source() :: {binary(), esdb_segment_format:dictionary()}.
-type reason() :: esdb_segment_format:reason() | too_large | badarith.
-type result(Value) :: {ok, Value} | {error, reason()}.
%% The fields that a fold begins with, the keys by their encoding.
-type initial() :: [{esdb_etf_erl:key(), Value :: term()}].
-type columns() :: esdb_segment_format:columns().
%% How many bytes may still become terms of the answer.
-type room() :: non_neg_integer().
%% Where a field is looked up: in the data or in the event itself, which column has its first key,
%% that key, the keys below it.
-type path() :: {data | event, 1..8 | none, esdb_etf_erl:key(), [esdb_etf_erl:key()]}.
%% A value: that of a column, or the rest of a payload from it on.
-type view() :: missing | integer() | binary() | {term, 7..9, esdb_etf_erl:view()}.
-type aggregate() :: count | {sum | min | max | avg, path()}.
%% Integers and floats apart; `none` before the first float.
-type members() :: {esdb_member_erl:set(), gb_sets:set(esdb_etf_erl:key())}.
-type sums() :: {integer(), none | float()}.
-type accumulated() ::
    {count, non_neg_integer()}
    | {sum, sums()}
    | {avg, non_neg_integer(), sums()}
    | {min | max, undefined | number()}.

-define(PAYLOAD(Id), (Id >= 7)).
%% Of one answer no more parts are made: events, rows and their values, groups and their numbers,
%% fields.
-define(MAX_PARTS, 16_777_216).

%% -------- the questions

%% For each segment the indices of the events that match, 32-bit little-endian; no more than
%% `Limit` of all segments together.
-spec matching([source()], binary(), pos_integer() | infinity) -> result([binary()]).
matching(Sources, Predicate, Limit) ->
    Compiled = compiled(Predicate),
    answer(fun() ->
        Found = matching_each(Sources, Compiled, Limit),
        Limit =/= infinity orelse fits(lists:sum([byte_size(Indices) div 4 || Indices <- Found])),
        Found
    end).

-spec fits(Parts :: non_neg_integer()) -> true.
fits(Parts) -> Parts =< ?MAX_PARTS orelse throw({unreadable, too_large}).

-spec finds_room(Bytes :: non_neg_integer()) -> true.
finds_room(Bytes) -> Bytes =< esdb_segment_events:room() orelse throw({unreadable, too_large}).

-spec matching_each([source()], term(), non_neg_integer() | infinity) -> [binary()].
matching_each(Sources, _, 0) ->
    [<<>> || _ <- Sources];
matching_each([Source | Sources], Compiled, Limit) ->
    {Count, Columns} = open(Source, sections(Compiled)),
    Found = indices(0, Count, Columns, Compiled, Limit),
    Rest = matching_each(Sources, Compiled, left(Limit, Found)),
    [<<<<I:32/little>> || I <- Found>> | Rest];
matching_each([], _, _) ->
    [].

-spec left(non_neg_integer() | infinity, [non_neg_integer()]) -> non_neg_integer() | infinity.
left(infinity, _) -> infinity;
left(Limit, Found) when is_integer(Limit) -> Limit - length(Found).

-spec indices(
    non_neg_integer(), non_neg_integer(), columns(), term(), non_neg_integer() | infinity
) ->
    [non_neg_integer()].
indices(_, _, _, _, 0) ->
    [];
indices(Count, Count, _, _, _) ->
    [];
indices(I, Count, Columns, Compiled, Limit) ->
    case matches(Compiled, I, Columns) of
        true -> [I | indices(I + 1, Count, Columns, Compiled, left(Limit, [I]))];
        false -> indices(I + 1, Count, Columns, Compiled, Limit)
    end.

%% One segment of the events of all that match.
-spec filtered([source()], binary()) -> result(binary()).
filtered(Sources, Predicate) ->
    maybe
        {ok, Parts} ?= kept(Sources, Predicate, []),
        esdb_segment_events:gather(Parts, esdb_segment_format:first_dictionary(Sources))
    end.

-spec kept([source()], binary(), [Part]) -> result([Part]) when
    Part :: {source(), [non_neg_integer()]}.
kept([Source | Sources], Predicate, Parts) ->
    maybe
        %% Everything is copied, so everything is checked, and first.
        {ok, _, _} ?= esdb_segment_events:all(Source),
        {ok, [Indices]} ?= matching([Source], Predicate, infinity),
        kept(Sources, Predicate, [{Source, [I || <<I:32/little>> <= Indices]} | Parts])
    end;
kept([], _, Parts) ->
    {ok, lists:reverse(Parts)}.

%% How many events match.
-spec counted([source()], binary()) -> result(non_neg_integer()).
counted(Sources, Predicate) ->
    Compiled = compiled(Predicate),
    answer(fun() ->
        lists:sum([
            length(indices(0, Count, Columns, Compiled, infinity))
         || Source <- Sources, {Count, Columns} <- [open(Source, sections(Compiled))]
        ])
    end).

%% The sum, or the smallest or largest, of a field's numbers.
-spec aggregated([source()], binary(), sum | min | max) -> result(number() | undefined).
aggregated(Sources, Path, Kind) ->
    Aggregate = {Kind, path(binary_to_term(Path))},
    answer(fun() ->
        Partial = [
            over(0, Count, Columns, Aggregate, initial(Aggregate))
         || Source <- Sources,
            {Count, Columns} <- [open(Source, sections([Aggregate]))]
        ],
        final(lists:foldl(fun combined/2, initial(Aggregate), Partial))
    end).

-spec over(non_neg_integer(), non_neg_integer(), columns(), aggregate(), accumulated()) ->
    accumulated().
over(Count, Count, _, _, Acc) ->
    Acc;
over(I, Count, Columns, Aggregate, Acc) ->
    over(I + 1, Count, Columns, Aggregate, add(Aggregate, I, Columns, Acc)).

%% For each value of a field what the aggregates say of the events that have it.
-spec grouped([source()], binary(), binary()) -> result(#{term() => [term()]}).
grouped(Sources, Path, Aggregates) ->
    By = path(binary_to_term(Path)),
    Asked = [aggregate(Aggregate) || Aggregate <- binary_to_term(Aggregates)],
    answer(fun() ->
        {Known, Order, _} = lists:foldl(
            fun(Source, Groups) ->
                {Count, Columns} = open(Source, sections([{by, By} | Asked])),
                {Partial, Keys, _} = groups(0, Count, Columns, By, Asked, {#{}, [], 0}),
                merged(lists:reverse(Keys), Partial, length(Asked), Groups)
            end,
            {#{}, [], 0},
            Sources
        ),
        built({Known, Order}, fun(Accs, Room) -> {[final(Acc) || Acc <- Accs], Room} end)
    end).

%% Groups by the bytes of their keys, these in the order of their first appearance with the section
%% that they stand in, and how many bytes they are.
-type groups() :: {
    #{esdb_etf_erl:key() => [accumulated()]},
    [{esdb_etf_erl:key(), 7..9}],
    non_neg_integer()
}.

-spec groups(non_neg_integer(), non_neg_integer(), columns(), path(), [aggregate()], groups()) ->
    groups().
groups(Count, Count, _, _, _, Groups) ->
    Groups;
groups(I, Count, Columns, By, Asked, {Known, Order, Size}) ->
    {Key, Section} = group_key(lookup(By, I, Columns)),
    {Accs, Order1, Size1} =
        case Known of
            #{Key := Old} ->
                {Old, Order, Size};
            #{} ->
                Larger = with_group(Key, map_size(Known), length(Asked), Size),
                {[initial(Aggregate) || Aggregate <- Asked], [{Key, Section} | Order], Larger}
        end,
    New = [add(Aggregate, I, Columns, Acc) || {Aggregate, Acc} <- lists:zip(Asked, Accs)],
    groups(I + 1, Count, Columns, By, Asked, {Known#{Key => New}, Order1, Size1}).

%% The bytes of all keys with this one, if there is room for it and its numbers.
-spec with_group(esdb_etf_erl:key(), non_neg_integer(), non_neg_integer(), non_neg_integer()) ->
    non_neg_integer().
with_group(Key, Known, Width, Size) ->
    Larger = Size + byte_size(Key),
    fits((Known + 1) * (1 + Width)),
    finds_room(Larger),
    Larger.

%% A column's value and a missing one are told from none by the encoding that a payload would have.
-spec group_key(view()) -> {esdb_etf_erl:key(), 7..9}.
group_key(missing) -> {esdb_etf_erl:key(undefined), 7};
group_key({term, Section, View}) ->
    {guarded(Section, fun() -> esdb_etf_erl:slice(View) end), Section};
group_key(Value) -> {esdb_etf_erl:key(Value), 7}.

-spec merged([{Key, 7..9}], #{Key => [accumulated()]}, non_neg_integer(), groups()) -> groups() when
    Key :: esdb_etf_erl:key().
merged([{Key, Section} | Keys], Partial, Width, {Known, Order, Size}) ->
    Accs = maps:get(Key, Partial),
    case Known of
        #{Key := Old} ->
            Both = [combined(Acc, Before) || {Acc, Before} <- lists:zip(Accs, Old)],
            merged(Keys, Partial, Width, {Known#{Key := Both}, Order, Size});
        #{} ->
            Larger = with_group(Key, map_size(Known), Width, Size),
            merged(Keys, Partial, Width, {Known#{Key => Accs}, [{Key, Section} | Order], Larger})
    end;
merged([], _, _, Groups) ->
    Groups.

%% The map of an answer; keys that are different bytes and the same term are nobody's encoding.
-spec built({#{Key => Held}, [{Key, 7..9}]}, fun((Held, room()) -> {Value, room()})) ->
    #{term() => Value}
when
    Key :: esdb_etf_erl:key().
built({Known, Order}, Final) ->
    {Map, _} = lists:foldl(
        fun({Key, Section}, {Map, Room}) ->
            {Term, Room1} = term(Section, Key, existing, Room),
            {Value, Room2} =
                case Map of
                    #{Term := _} -> throw({corrupt, esdb_segment_format:name(Section)});
                    #{} -> Final(maps:get(Key, Known), Room1)
                end,
            {Map#{Term => Value}, Room2}
        end,
        {#{}, esdb_segment_events:room()},
        lists:reverse(Order)
    ),
    Map.

%% A tagged fold over the data of all events, one after the other.
-spec folded([source()], initial()) -> result(map()).
folded(Sources, Init) ->
    answer(fun() ->
        Fields = #{Key => {built, Value} || {Key, Value} <- Init},
        Order = [{Key, 7} || {Key, _} <- lists:reverse(Init)],
        Size = lists:sum([byte_size(Key) || {Key, _} <- Init]),
        {Known, Order1, _} = lists:foldl(fun folded_source/2, {Fields, Order, Size}, Sources),
        built({Known, Order1}, fun field_value/2)
    end).

%% The fields, their keys as they came up, and how many bytes of encodings they hold.
-type fields() :: {
    #{
        esdb_etf_erl:key() =>
            {sum, number()} | {built, term()} | {term | overwrite, 7..9, esdb_etf_erl:key()}
    },
    [{esdb_etf_erl:key(), 7..9}],
    non_neg_integer()
}.

-spec folded_source(source(), fields()) -> fields().
folded_source(Source, Fields) ->
    {Count, Columns} = open(Source, [7]),
    Indices = lists:seq(0, Count - 1),
    All =
        case lists:all(fun(I) -> has_data(I, Columns) end, Indices) of
            true -> Columns;
            false -> all_columns(Source, Columns)
        end,
    {_, _, Size} =
        Folded = lists:foldl(fun(I, Acc) -> folded_event(I, All, Acc) end, Fields, Indices),
    finds_room(Size),
    Folded.

-spec all_columns(source(), columns()) -> columns().
all_columns(Source, Columns) ->
    {_, Others} = open(Source, [1, 2, 3, 4, 5, 6, 8, 9]),
    maps:merge(Columns, Others).

-spec has_data(non_neg_integer(), columns()) -> boolean().
has_data(I, Columns) ->
    case column(7, I, Columns) of
        none -> false;
        Payload -> esdb_etf_erl:is_map_payload(Payload)
    end.

-spec folded_event(non_neg_integer(), columns(), fields()) -> fields().
folded_event(I, Columns, Fields) ->
    case has_data(I, Columns) of
        true ->
            folded_map(7, column(7, I, Columns), Fields);
        false ->
            Others =
                case column(9, I, Columns) of
                    none -> Fields;
                    Payload -> folded_map(9, Payload, Fields)
                end,
            lists:foldl(
                fun({Id, Key}, Acc) ->
                    folded_column(Id, Key, column(Id, I, Columns), Acc)
                end,
                Others,
                esdb_segment_format:keys()
            )
    end.

-spec folded_map(7 | 9, binary(), fields()) -> fields().
folded_map(Section, Payload, Fields) ->
    guarded(Section, fun() ->
        Fold = fun(Key, View, Acc) -> folded_field(Section, Key, View, Acc) end,
        esdb_etf_erl:fold(Fold, Fields, esdb_etf_erl:payload(Payload))
    end).

-spec folded_column(1..8, atom(), esdb_segment_format:value(), fields()) -> fields().
folded_column(_, _, none, Fields) ->
    Fields;
folded_column(Id, Key, Payload, Fields) when ?PAYLOAD(Id) ->
    guarded(Id, fun() ->
        folded_field(Id, esdb_etf_erl:key(Key), esdb_etf_erl:payload(Payload), Fields)
    end);
folded_column(_, Key, Value, Fields) ->
    put_field(esdb_etf_erl:key(Key), 7, {built, Value}, Fields).

-spec folded_field(7..9, esdb_etf_erl:key(), esdb_etf_erl:view(), fields()) -> fields().
folded_field(Section, Key, View, {Known, _, _} = Fields) ->
    Slice = esdb_etf_erl:slice(View),
    Tagged = esdb_etf_erl:tagged(View),
    Value =
        case sum_of(Tagged) of
            none when element(1, Tagged) =:= overwrite ->
                {overwrite, Section, Slice};
            none ->
                {term, Section, Slice};
            Number ->
                {sum, plus(number_of(maps:get(Key, Known, none)), Number)}
        end,
    put_field(Key, Section, Value, Fields).

-spec sum_of({sum | overwrite, esdb_etf_erl:view()} | none) -> number() | none.
sum_of({sum, View}) -> esdb_etf_erl:number(View);
sum_of(_) -> none.

-spec put_field(esdb_etf_erl:key(), 7..9, tuple(), fields()) -> fields().
put_field(Key, Section, Value, {Known, Order, Size}) ->
    case Known of
        #{Key := Old} ->
            {Known#{Key := Value}, Order, Size + size_of_value(Value) - size_of_value(Old)};
        #{} ->
            fits(map_size(Known) + 1),
            Larger = Size + byte_size(Key) + size_of_value(Value),
            {Known#{Key => Value}, [{Key, Section} | Order], Larger}
    end.

-spec size_of_value(tuple()) -> non_neg_integer().
size_of_value({_, _, Slice}) -> byte_size(Slice);
size_of_value({_, _}) -> 0.

%% What a field counts as when a sum comes to it.
-spec number_of(tuple() | none) -> number().
number_of({sum, Number}) ->
    Number;
number_of({built, {Tag, Number}}) when (Tag =:= sum orelse Tag =:= overwrite), is_number(Number) ->
    Number;
number_of({built, Number}) when is_number(Number) ->
    Number;
number_of({term, Section, Slice}) ->
    guarded(Section, fun() -> or_zero(esdb_etf_erl:number(Slice)) end);
number_of({overwrite, Section, Slice}) ->
    {overwrite, View} = esdb_etf_erl:tagged(Slice),
    guarded(Section, fun() -> or_zero(esdb_etf_erl:number(View)) end);
number_of(_) ->
    0.

-spec or_zero(number() | none) -> number().
or_zero(none) -> 0;
or_zero(Number) -> Number.

-spec field_value(tuple(), room()) -> {term(), room()}.
field_value({sum, Number}, Room) -> {{sum, Number}, Room};
field_value({built, Value}, Room) -> {Value, Room};
field_value({_, Section, Slice}, Room) -> term(Section, Slice, existing, Room).

%% For each event the values of these fields, `undefined` where missing.
-spec projected(source(), [binary()], existing | create) -> result([[term()]]).
projected(Source, Paths, Atoms) ->
    Asked = [{by, path(binary_to_term(Path))} || Path <- Paths],
    answer(fun() ->
        {Count, Columns} = open(Source, sections(Asked)),
        fits(Count * (1 + length(Asked))),
        Row = fun(I, Left) ->
            Value = fun({by, Path}, Room) -> value(lookup(Path, I, Columns), Atoms, Room) end,
            lists:mapfoldl(Value, Left, Asked)
        end,
        {Rows, _} = lists:mapfoldl(Row, esdb_segment_events:room(), lists:seq(0, Count - 1)),
        Rows
    end).

-spec value(view(), existing | create, room()) -> {term(), room()}.
value(missing, _, Room) ->
    {undefined, Room};
value({term, Section, View}, Atoms, Room) ->
    term(Section, guarded(Section, fun() -> esdb_etf_erl:slice(View) end), Atoms, Room);
value(Value, _, Room) ->
    {Value, Room}.

%% The bytes count before anything is built of them.
-spec term(7..9, esdb_etf_erl:key(), existing | create, room()) -> {term(), room()}.
term(_, Slice, _, Room) when byte_size(Slice) > Room ->
    throw({unreadable, too_large});
term(Section, Slice, Atoms, Room) ->
    Options =
        case Atoms of
            existing -> [safe];
            create -> []
        end,
    try
        {binary_to_term(<<131, Slice/binary>>, Options), Room - byte_size(Slice)}
    catch
        error:_ -> throw({corrupt, esdb_segment_format:name(Section)})
    end.

%% -------- opening and failing

%% A question in its own words, with what stops it as a result.
-spec answer(fun(() -> Value)) -> result(Value).
answer(Question) ->
    try
        {ok, Question()}
    catch
        throw:{corrupt, Section} -> {error, {corrupt, Section}};
        throw:{unreadable, Reason} -> {error, Reason};
        error:badarith -> {error, badarith}
    end.

-spec guarded(7..9, fun(() -> Value)) -> Value.
guarded(Section, Look) ->
    try
        Look()
    catch
        throw:malformed -> throw({corrupt, esdb_segment_format:name(Section)})
    end.

-spec open(source(), [1..9]) -> {non_neg_integer(), columns()}.
open({Segment, _} = Source, Ids) ->
    maybe
        {ok, #{count := Count} = Header} ?= esdb_segment_format:header(Segment),
        {ok, Columns} ?= esdb_segment_format:load(Source, Header, Ids),
        {Count, Columns}
    else
        {error, Reason} -> throw({unreadable, Reason})
    end.

-spec column(1..9, non_neg_integer(), columns()) -> esdb_segment_format:value().
column(Id, I, Columns) ->
    case Columns of
        #{Id := Column} -> esdb_segment_format:value(Column, I);
        #{} -> none
    end.

%% -------- paths

-spec path({data | event, [term()]}) -> path().
path({Root, [First | Rest]}) when Root =:= data; Root =:= event ->
    Id =
        case lists:keyfind(First, 2, esdb_segment_format:keys()) of
            {Column, First} -> Column;
            _ -> none
        end,
    {Root, Id, esdb_etf_erl:key(First), [esdb_etf_erl:key(Key) || Key <- Rest]}.

-spec aggregate(count | {sum | min | max | avg, {data | event, [term()]}}) -> aggregate().
aggregate(count) -> count;
aggregate({Kind, Path}) -> {Kind, path(Path)}.

%% The sections that a question may have to look into.
-spec sections(term()) -> [1..9].
sections(Asked) -> lists:usort(lists:append([section(Path) || Path <- paths(Asked)])).

-spec paths(term()) -> [path()].
paths(Asked) when is_list(Asked) -> lists:append([paths(One) || One <- Asked]);
paths({'not', Predicate}) -> paths(Predicate);
paths({Junction, Predicates}) when Junction =:= 'and'; Junction =:= 'or' -> paths(Predicates);
paths(Asked) when is_tuple(Asked) -> [element(2, Asked)];
paths(_) -> [].

-spec section(path()) -> [1..9].
section({event, 8, _, _}) -> [8];
section({event, none, _, _}) -> [9];
section({event, Id, _, _}) -> [Id, 9];
section({data, none, _, _}) -> [7, 9];
section({data, Id, _, _}) -> [7, 9, Id].

-spec lookup(path(), non_neg_integer(), columns()) -> view().
lookup({event, Id, Key, Keys}, I, Columns) ->
    below(event_field(Id, Key, I, Columns), Keys);
lookup({data, Id, Key, Keys}, I, Columns) ->
    case column(7, I, Columns) of
        <<131, 116, _/binary>> = Payload -> below({term, 7, payload(7, Payload)}, [Key | Keys]);
        _ -> below(event_field(Id, Key, I, Columns), Keys)
    end.

-spec event_field(1..8 | none, esdb_etf_erl:key(), non_neg_integer(), columns()) -> view().
event_field(none, Key, I, Columns) -> other_field(Key, I, Columns);
event_field(Id, Key, I, Columns) -> column_field(Id, Key, I, Columns).

-spec column_field(1..8, esdb_etf_erl:key(), non_neg_integer(), columns()) -> view().
column_field(Id, Key, I, Columns) ->
    case column(Id, I, Columns) of
        none when ?PAYLOAD(Id) -> missing;
        none -> other_field(Key, I, Columns);
        Payload when ?PAYLOAD(Id) -> {term, Id, payload(Id, Payload)};
        Value -> Value
    end.

-spec other_field(esdb_etf_erl:key(), non_neg_integer(), columns()) -> view().
other_field(Key, I, Columns) ->
    case column(9, I, Columns) of
        none -> missing;
        Payload -> below({term, 9, payload(9, Payload)}, [Key])
    end.

-spec payload(7..9, binary()) -> esdb_etf_erl:view().
payload(Section, Payload) -> guarded(Section, fun() -> esdb_etf_erl:payload(Payload) end).

-spec below(view(), [esdb_etf_erl:key()]) -> view().
below(View, []) ->
    View;
below({term, Section, View}, [Key | Keys]) ->
    case guarded(Section, fun() -> esdb_etf_erl:find(Key, View) end) of
        {ok, Found} -> below({term, Section, Found}, Keys);
        missing -> missing
    end;
below(_, _) ->
    missing.

%% -------- predicates

%% The canonical form, with paths and literals as bytes.
-spec compiled(binary()) -> term().
compiled(Canonical) -> prepared(binary_to_term(Canonical)).

-spec prepared(term()) -> term().
prepared(Boolean) when is_boolean(Boolean) -> Boolean;
prepared({Junction, Predicates}) when Junction =:= 'and'; Junction =:= 'or' ->
    {Junction, [prepared(Predicate) || Predicate <- Predicates]};
prepared({'not', Predicate}) ->
    {'not', prepared(Predicate)};
prepared({exists, Path}) ->
    {exists, path(Path)};
prepared({between, Path, Low, High}) ->
    {between, path(Path), Low, High};
prepared({Operation, Path, Value}) when Operation =:= eq; Operation =:= neq ->
    {Operation, path(Path), literal(Value)};
prepared({Operation, Path, Values}) when Operation =:= in; Operation =:= any_of ->
    {Operation, path(Path), members(Values)};
prepared({equals_bytes, Path, Bytes}) ->
    {wildcard, path(Path), {equals, Bytes}};
prepared({Operation, Path, Bytes}) when
    Operation =:= prefix; Operation =:= suffix; Operation =:= infix
->
    {wildcard, path(Path), {Operation, Bytes}};
prepared({wildcard, Path, Pattern}) ->
    {wildcard, path(Path), esdb_wildcard_erl:compile(Pattern)};
prepared({regex, Path, Rendering}) ->
    {ok, Parsed} = esdb_regex_erl:parse(Rendering),
    {regex, path(Path), esdb_regex_erl:automaton(Parsed)};
prepared({Operation, Path, Value}) ->
    {Operation, path(Path), Value}.

-spec literal(term()) -> {number, number()} | {bytes, esdb_etf_erl:key()}.
literal(Number) when is_number(Number) -> {number, Number};
literal(Term) -> {bytes, esdb_etf_erl:key(Term)}.

%% The encodings of all but numbers are ordered as binaries, and none is the beginning of another.
-spec members([term()]) -> members().
members(Values) ->
    {Numbers, Terms} = lists:partition(fun erlang:is_number/1, Values),
    {esdb_member_erl:new(Numbers), gb_sets:from_list([esdb_etf_erl:key(Term) || Term <- Terms])}.

-spec matches(term(), non_neg_integer(), columns()) -> boolean().
matches(Boolean, _, _) when is_boolean(Boolean) ->
    Boolean;
matches({'and', Predicates}, I, Columns) ->
    lists:all(fun(Predicate) -> matches(Predicate, I, Columns) end, Predicates);
matches({'or', Predicates}, I, Columns) ->
    lists:any(fun(Predicate) -> matches(Predicate, I, Columns) end, Predicates);
matches({'not', Predicate}, I, Columns) ->
    not matches(Predicate, I, Columns);
matches(Test, I, Columns) ->
    case lookup(element(2, Test), I, Columns) of
        missing -> false;
        {term, Section, View} -> guarded(Section, fun() -> test(Test, {term, View}) end);
        Value -> test(Test, Value)
    end.

%% A value that is there: of a column, or a view.
-spec test(term(), integer() | binary() | {term, esdb_etf_erl:view()}) -> boolean().
test({exists, _}, _) -> true;
test({eq, _, Literal}, Value) -> is_same(Literal, Value);
test({neq, _, Literal}, Value) -> not is_same(Literal, Value);
test({in, _, Members}, Value) -> is_in(Members, Value);
test({any_of, _, Members}, Value) -> is_any_of(Members, Value);
test({gt, _, Limit}, Value) -> compares(Limit, Value, fun erlang:'>'/2);
test({gte, _, Limit}, Value) -> compares(Limit, Value, fun erlang:'>='/2);
test({lt, _, Limit}, Value) -> compares(Limit, Value, fun erlang:'<'/2);
test({lte, _, Limit}, Value) -> compares(Limit, Value, fun erlang:'=<'/2);
test({between, _, Low, High}, Value) ->
    compares(Low, Value, fun erlang:'>='/2) andalso compares(High, Value, fun erlang:'=<'/2);
test({wildcard, _, Wildcard}, Value) ->
    Text = text(Value),
    Text =/= none andalso esdb_wildcard_erl:is_match(Text, Wildcard);
test({regex, _, Automaton}, Value) ->
    Text = text(Value),
    Text =/= none andalso esdb_regex_erl:is_match(Text, Automaton).

-spec is_same({number, number()} | {bytes, esdb_etf_erl:key()}, term()) -> boolean().
is_same({number, Number}, Value) ->
    case number(Value) of
        none -> false;
        Found -> Found == Number
    end;
is_same({bytes, Key}, {term, View}) ->
    esdb_etf_erl:is_same(Key, View);
is_same({bytes, Key}, Value) ->
    esdb_etf_erl:key(Value) =:= Key.

-spec is_in(members(), integer() | binary() | {term, esdb_etf_erl:view()}) -> boolean().
is_in({Numbers, Terms}, {term, View}) ->
    is_term_in(View, Terms) orelse
        (map_size(Numbers) > 0 andalso is_number_in(esdb_etf_erl:number(View), Numbers));
is_in({Numbers, _}, Integer) when is_integer(Integer) ->
    is_number_in(Integer, Numbers);
is_in({_, Terms}, Text) ->
    gb_sets:is_element(esdb_etf_erl:key(Text), Terms).

%% If one of them is what the view begins with, no other one stands between the two.
-spec is_term_in(esdb_etf_erl:view(), gb_sets:set(esdb_etf_erl:key())) -> boolean().
is_term_in(View, Terms) ->
    case gb_sets:smaller(View, Terms) of
        {found, Key} -> esdb_etf_erl:is_same(Key, View) orelse gb_sets:is_element(View, Terms);
        none -> gb_sets:is_element(View, Terms)
    end.

-spec is_number_in(number() | none, esdb_member_erl:set()) -> boolean().
is_number_in(none, _) -> false;
is_number_in(Number, Numbers) -> esdb_member_erl:is_in(Number, Numbers).

-spec is_any_of(members(), integer() | binary() | {term, esdb_etf_erl:view()}) -> boolean().
is_any_of(Members, {term, View}) ->
    case esdb_etf_erl:elements(View) of
        none -> is_in(Members, {term, View});
        {bytes, Bytes} -> lists:any(fun(Byte) -> is_in(Members, Byte) end, binary_to_list(Bytes));
        {views, Length, Rest} -> is_any_element(Length, Rest, Members)
    end;
is_any_of(Members, Value) ->
    is_in(Members, Value).

-spec is_any_element(non_neg_integer(), esdb_etf_erl:view(), members()) -> boolean().
is_any_element(0, _, _) ->
    false;
is_any_element(Length, View, Members) ->
    is_in(Members, {term, View}) orelse
        is_any_element(Length - 1, esdb_etf_erl:skip(View), Members).

%% A number with a number, or a binary with a binary; nothing else has an order.
-spec compares(term(), term(), fun((term(), term()) -> boolean())) -> boolean().
compares(Limit, Value, Order) when is_number(Limit) ->
    case number(Value) of
        none -> false;
        Number -> Order(Number, Limit)
    end;
compares(Limit, Value, Order) when is_binary(Limit) ->
    case text(Value) of
        none -> false;
        Text -> Order(Text, Limit)
    end;
compares(_, _, _) ->
    false.

-spec number(integer() | binary() | {term, esdb_etf_erl:view()}) -> number() | none.
number({term, View}) -> esdb_etf_erl:number(View);
number(Integer) when is_integer(Integer) -> Integer;
number(_) -> none.

-spec text(integer() | binary() | {term, esdb_etf_erl:view()}) -> binary() | none.
text({term, View}) -> esdb_etf_erl:text(View);
text(Text) when is_binary(Text) -> Text;
text(_) -> none.

%% -------- aggregates

-spec initial(aggregate()) -> accumulated().
initial(count) -> {count, 0};
initial({sum, _}) -> {sum, {0, none}};
initial({avg, _}) -> {avg, 0, {0, none}};
initial({Kind, _}) -> {Kind, undefined}.

-spec add(aggregate(), non_neg_integer(), columns(), accumulated()) -> accumulated().
add(count, _, _, {count, N}) ->
    {count, N + 1};
add({_, Path}, I, Columns, Acc) ->
    case counted_number(lookup(Path, I, Columns)) of
        none -> Acc;
        Number -> added(Number, Acc)
    end.

%% A number, or that of a `{sum, Number}`.
-spec counted_number(view()) -> number() | none.
counted_number(missing) ->
    none;
counted_number({term, Section, View}) ->
    guarded(Section, fun() ->
        case esdb_etf_erl:number(View) of
            none -> sum_of(esdb_etf_erl:tagged(View));
            Number -> Number
        end
    end);
counted_number(Value) ->
    number(Value).

-spec added(number(), accumulated()) -> accumulated().
added(Number, {sum, Sums}) -> {sum, sums(Number, Sums)};
added(Number, {avg, N, Sums}) -> {avg, N + 1, sums(Number, Sums)};
added(Number, {min, Least}) when Least =:= undefined; Number < Least -> {min, Number};
added(Number, {max, Most}) when Most =:= undefined; Number > Most -> {max, Number};
added(_, Acc) -> Acc.

-spec sums(number(), sums()) -> sums().
sums(Integer, {Integers, Floats}) when is_integer(Integer) -> {Integers + Integer, Floats};
sums(Float, {Integers, none}) -> {Integers, Float};
sums(Float, {Integers, Floats}) -> {Integers, Floats + Float}.

%% A later part with what was before it.
-spec combined(accumulated(), accumulated()) -> accumulated().
combined({count, M}, {count, N}) -> {count, N + M};
combined({sum, Later}, {sum, Before}) -> {sum, both(Later, Before)};
combined({avg, M, Later}, {avg, N, Before}) -> {avg, N + M, both(Later, Before)};
combined({_, undefined}, Before) -> Before;
combined({_, Number}, Before) -> added(Number, Before).

-spec both(sums(), sums()) -> sums().
both({Integers, none}, {Before, Floats}) -> {Before + Integers, Floats};
both({Integers, Float}, Before) -> sums(Float, sums(Integers, Before)).

-spec final(accumulated()) -> number() | undefined.
final({count, N}) -> N;
final({sum, Sums}) -> total(Sums);
final({avg, 0, _}) -> undefined;
final({avg, N, Sums}) -> esdb_aggregate_erl:nearest(total(Sums)) / N;
final({_, Number}) -> Number.

-spec total(sums()) -> number().
total({Integers, none}) -> Integers;
total({Integers, Floats}) -> esdb_aggregate_erl:nearest(Integers) + Floats.

-spec plus(number(), number()) -> number().
plus(A, B) -> A + B.
