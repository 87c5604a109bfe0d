-module(erl_esdb_aggregator_SUITE).
-moduledoc "Rows A/AGG.".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_agg_01_no_events,
        a_agg_02_last_plain_value_wins,
        a_agg_03_initial_state_is_kept,
        a_agg_04_sums_accumulate_and_stay_tagged,
        a_agg_05_sum_on_a_number_and_on_overwrite,
        a_agg_06_sum_on_what_is_no_number,
        a_agg_07_overwrite_replaces,
        a_agg_08_floats_and_negative_sums,
        a_agg_09_three_forms_of_events,
        a_agg_10_binary_data_is_passed_over,
        a_agg_11_foldr_takes_the_last_first,
        a_agg_12_finalize,
        a_agg_13_without_snapshot,
        a_agg_14_with_snapshot,
        a_agg_15_snapshot_without_map,
        a_agg_16_finalize_false_keeps_tags,
        t_31_overwrite_keeps_its_tag,
        a_record_is_not_unwrapped_twice,
        misuse_is_badarg,
        foldr_is_foldl_of_the_reverse,
        a_snapshot_in_between_changes_nothing
    ].

a_agg_01_no_events(_Config) ->
    ?assertEqual(#{}, erl_esdb_aggregator:foldl([])),
    ?assertEqual(#{}, erl_esdb_aggregator:foldr([])).

a_agg_02_last_plain_value_wins(_Config) ->
    Events = [event(#{name => Name}) || Name <- [~"Alice", ~"Bob", ~"Charlie"]],
    ?assertEqual(#{name => ~"Charlie"}, erl_esdb_aggregator:foldl(Events)).

a_agg_03_initial_state_is_kept(_Config) ->
    Initial = #{country => ~"UK", name => ~"none"},
    ?assertEqual(
        #{country => ~"UK", name => ~"Alice"},
        erl_esdb_aggregator:foldl([event(#{name => ~"Alice"})], Initial)
    ).

a_agg_04_sums_accumulate_and_stay_tagged(_Config) ->
    Events = [event(#{n => {sum, 1}}), event(#{n => {sum, 3}})],
    ?assertEqual(#{n => {sum, 4}}, erl_esdb_aggregator:foldl(Events)),
    ?assertEqual(#{n => {sum, 9}}, erl_esdb_aggregator:foldl(Events, #{n => {sum, 5}})).

a_agg_05_sum_on_a_number_and_on_overwrite(_Config) ->
    [
        ?assertEqual(
            #{n => {sum, 105}},
            erl_esdb_aggregator:foldl([event(#{n => Before}), event(#{n => {sum, 5}})])
        )
     || Before <- [100, {overwrite, 100}]
    ].

a_agg_06_sum_on_what_is_no_number(_Config) ->
    [
        ?assertEqual(
            #{n => {sum, 5}},
            erl_esdb_aggregator:foldl([event(#{n => Before}), event(#{n => {sum, 5}})])
        )
     || Before <- [~"x", {overwrite, ~"x"}, {sum, ~"x"}, undefined, #{}]
    ].

a_agg_07_overwrite_replaces(_Config) ->
    Events = [event(#{s => {overwrite, pending}}), event(#{s => {overwrite, completed}})],
    State = erl_esdb_aggregator:foldl(Events),
    ?assertEqual(#{s => completed}, erl_esdb_aggregator:finalize(State)).

a_agg_08_floats_and_negative_sums(_Config) ->
    Sum = fun(Numbers) -> erl_esdb_aggregator:foldl([event(#{n => {sum, N}}) || N <- Numbers]) end,
    ?assertEqual(#{n => {sum, -2}}, Sum([3, -5])),
    ?assertEqual(#{n => {sum, 4.0}}, Sum([1.5, 2.5])),
    ?assertEqual(#{n => {sum, 3.5}}, Sum([1, 2.5])).

a_agg_09_three_forms_of_events(_Config) ->
    Data = #{n => {sum, 1}},
    Forms = [event(Data), #{event_type => ~"t", data => Data}, Data],
    ?assertEqual(#{n => {sum, 3}}, erl_esdb_aggregator:foldl(Forms)).

a_agg_10_binary_data_is_passed_over(_Config) ->
    Others = [event(~"binary"), a, 7, [], {event, 1}],
    ?assertEqual(#{n => 1}, erl_esdb_aggregator:foldl(Others, #{n => 1})),
    ?assertEqual(#{n => 2}, erl_esdb_aggregator:foldl(Others ++ [event(#{n => 2})])).

a_agg_11_foldr_takes_the_last_first(_Config) ->
    Events = [event(#{name => Name}) || Name <- [~"Alice", ~"Bob", ~"Charlie"]],
    ?assertEqual(#{name => ~"Alice"}, erl_esdb_aggregator:foldr(Events)),
    ?assertEqual(
        #{name => ~"Alice", country => ~"UK"},
        erl_esdb_aggregator:foldr(Events, #{name => ~"none", country => ~"UK"})
    ).

a_agg_12_finalize(_Config) ->
    ?assertEqual(
        #{a => 5, b => done, c => plain},
        erl_esdb_aggregator:finalize(#{a => {sum, 5}, b => {overwrite, done}, c => plain})
    ).

a_agg_13_without_snapshot(_Config) ->
    Events = [event(#{n => {sum, 5}})],
    ?assertEqual(#{n => 5}, erl_esdb_aggregator:aggregate(Events, undefined, #{})),
    ?assertEqual(
        #{n => 15, m => 1},
        erl_esdb_aggregator:aggregate(Events, undefined, #{initial_state => #{n => 10, m => 1}})
    ).

a_agg_14_with_snapshot(_Config) ->
    Events = [event(#{n => {sum, 100}}), event(#{n => {sum, -50}})],
    ?assertEqual(
        #{n => 550},
        erl_esdb_aggregator:aggregate(
            Events, snapshot(#{n => 500}), #{initial_state => #{n => 1, m => 1}}
        )
    ).

a_agg_15_snapshot_without_map(_Config) ->
    ?assertEqual(
        #{n => 5},
        erl_esdb_aggregator:aggregate(
            [event(#{n => {sum, 5}})], snapshot(~"binary"), #{initial_state => #{n => 1}}
        )
    ).

a_agg_16_finalize_false_keeps_tags(_Config) ->
    Events = [event(#{n => {sum, 5}})],
    ?assertEqual(
        #{n => {sum, 5}}, erl_esdb_aggregator:aggregate(Events, undefined, #{finalize => false})
    ),
    ?assertEqual(
        #{n => 5}, erl_esdb_aggregator:aggregate(Events, undefined, #{finalize => true})
    ).

t_31_overwrite_keeps_its_tag(_Config) ->
    Events = [event(#{s => {overwrite, 7}})],
    ?assertEqual(#{s => {overwrite, 7}}, erl_esdb_aggregator:foldl(Events)).

%% Data of its own may have a field of the name.
a_record_is_not_unwrapped_twice(_Config) ->
    Data = #{data => #{n => 1}},
    ?assertEqual(Data, erl_esdb_aggregator:foldl([event(Data)])),
    ?assertEqual(#{n => 1}, erl_esdb_aggregator:foldl([Data])).

misuse_is_badarg(_Config) ->
    [
        ?assertError(badarg, apply(erl_esdb_aggregator, Function, Arguments))
     || {Function, Arguments} <- [
            {foldl, [a]},
            {foldl, [[#{} | a]]},
            {foldl, [[], a]},
            {foldr, [[#{} | a]]},
            {finalize, [a]},
            {aggregate, [[], a, #{}]},
            {aggregate, [[], undefined, #{finalize => yes}]}
        ]
    ].

foldr_is_foldl_of_the_reverse(_Config) ->
    check(
        ?FORALL(
            Events,
            events(),
            erl_esdb_aggregator:foldr(Events) =:=
                erl_esdb_aggregator:foldl(lists:reverse(Events))
        )
    ).

a_snapshot_in_between_changes_nothing(_Config) ->
    check(
        ?FORALL({Before, After}, {events(), events()}, begin
            Taken = snapshot(erl_esdb_aggregator:foldl(Before)),
            erl_esdb_aggregator:aggregate(After, Taken, #{}) =:=
                erl_esdb_aggregator:aggregate(Before ++ After, undefined, #{})
        end)
    ).

%% Helpers

events() -> list(oneof([event(), event(fields()), fields(), #{data => fields()}, atom()])).

event() -> event(~"binary").

fields() ->
    ?LET(Fields, list({oneof([a, b, ~"a"]), field()}), maps:from_list(Fields)).

field() ->
    oneof([integer(), {sum, integer()}, {sum, float()}, {overwrite, integer()}, ~"text", atom()]).

event(Data) ->
    #event{
        event_id = ~"id",
        event_type = ~"type",
        stream_id = ~"stream",
        version = 0,
        data = Data,
        timestamp = 0,
        epoch_us = 0
    }.

snapshot(Data) -> #snapshot{stream_id = ~"stream", version = 1, data = Data, timestamp = 0}.

check(Property) ->
    ?assert(proper:quickcheck(Property, [quiet, {numtests, 300}, {to_file, user}])).
