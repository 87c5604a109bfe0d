-module(esdb_aggregate_gen).
-moduledoc """
Arguments for the functions of `esdb_aggregate_nif`; see `esdb_equivalence_SUITE`. Keys and values
are few, so that events meet.
""".

-export([args/2, cost/2, observe/3]).
-export([events/0, event/0, field_value/0, key/0, path/0, numeric/0]).

-include_lib("proper/include/proper.hrl").

args(aggregate_events, 3) -> [list_of_events(), state(), oneof([true, false, yes])];
args(merge_tagged_batch, 2) -> [pairs(), state()];
args(finalize, 1) -> [state()];
args(sum_field, 2) -> [list_of_events(), key()];
args(count_where, 3) -> [list_of_events(), key(), oneof([undefined, field_value()])];
args(group_by, 3) -> [list_of_events(), any_path(), aggregates()];
args(aggregation_stats, 1) -> [list_of_events()].

%% What is Erlang in both modes needs no more.
cost(group_by, 3) -> cheap;
cost(_, _) -> costly.

%% Exactly: 1 is not 1.0, nor is 0.0 -0.0.
observe(_, _, Result) -> Result.

list_of_events() ->
    frequency([
        {12, events()},
        {1, ?LET({Events, Tail}, {events(), hostile()}, Events ++ Tail)},
        {1, hostile()},
        {1, ?LET(Events, events(), [~"binary" | Events])},
        {8, esdb_filter_gen:segments(event())}
    ]).

%% A list that begins with a binary is one of segments.
events() ->
    ?SUCHTHAT(
        Events,
        list(frequency([{10, event()}, {1, hostile()}])),
        Events =:= [] orelse not is_binary(hd(Events))
    ).

event() ->
    frequency([
        {4, ?LET({Data, More}, {fields(), fields()}, More#{data => Data})},
        {2, fields()},
        {1, ?LET({Data, More}, {hostile(), fields()}, More#{data => Data})}
    ]).

fields() -> ?LET(Fields, list({key(), field_value()}), maps:from_list(Fields)).

key() ->
    frequency([
        {6, oneof([amount, area, ~"amount", event_type, version, metadata, data])},
        {1, oneof([1, 1.0, 0.0, -0.0, [], {sum, 1}, ~"", 1 bsl 70])}
    ]).

field_value() ->
    frequency([
        {6, numeric()},
        {3, {sum, numeric()}},
        {2, oneof([~"a", ~"b", binary:copy(~"no heap binary ", 6)])},
        {1, oneof([{overwrite, numeric()}, {sum, ~"a"}, {sum, 1, 2}, {sum}, undefined])},
        {1, ?LET(Key, key(), #{Key => 1})},
        {1, ?LET({Key, Value}, {key(), numeric()}, #{Key => Value})},
        {1, hostile()}
    ]).

numeric() ->
    frequency([
        {6, integer(-5, 5)},
        {3, integer()},
        {3, oneof([0.0, -0.0, 1.0, 0.1, -0.5, 9007199254740992.0, 1.0e300, -1.7e308, 1.7e308])},
        {2, float()},
        {2, near(1 bsl 53)},
        {2, near(1 bsl 59)},
        {2, near(1 bsl 63)},
        {1, near(1 bsl 64)},
        {1, near(1 bsl 127)},
        {1, near(1 bsl 1023)},
        {1, near(1 bsl 1024)},
        {1, near(1 bsl 9000)}
    ]).

near(Number) ->
    ?LET({Sign, Distance}, {oneof([1, -1]), integer(-2, 2)}, Sign * (Number + Distance)).

state() ->
    frequency([{9, fields()}, {1, hostile()}]).

pairs() ->
    frequency([
        {8, list({key(), field_value()})},
        {1, list(oneof([{key(), field_value()}, hostile()]))},
        {1, [{a, {sum, 1}} | {b, 2}]},
        {1, hostile()}
    ]).

path() ->
    frequency([
        {5, key()},
        {3, non_empty(list(key()))},
        {1, {oneof([event, data]), oneof([key(), non_empty(list(key()))])}}
    ]).

any_path() -> frequency([{12, path()}, {1, oneof([[], [a | b], {event, []}, {data, [a | b]}])}]).

aggregates() ->
    frequency([
        {4, aggregate()},
        {6, list(aggregate())},
        {1, list(oneof([aggregate(), hostile()]))},
        {1, [count | count]},
        {1, hostile()}
    ]).

aggregate() ->
    frequency([
        {2, count},
        {6, ?LET({Kind, Path}, {oneof([sum, min, max, avg]), path()}, {Kind, Path})},
        {1, ?LET({Kind, Path}, {oneof([sum, median]), any_path()}, {Kind, Path})}
    ]).

hostile() ->
    oneof([a, 7, -1.5, ~"binary", <<1:3>>, {}, [], [x | y], #{}, {data, #{}}, fun erlang:abs/1]).
