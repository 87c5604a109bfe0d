-module(esdb_aggregate_nif).
-moduledoc """
Sums, counts, groups and tagged folds over lists of events that are maps.

The data of an event is the map under its key `data`, where there is one, else the event itself.
Elements that are no maps are passed over. Integers stay exact at any size, floats are floats; a sum
that no float holds is `badarith`.

```erlang
1> Events = [#{event_type => ~"deposited", data => #{account => ~"a", amount => {sum, 100}}},
             #{event_type => ~"withdrawn", data => #{account => ~"a", amount => {sum, -30}}},
             #{event_type => ~"deposited", data => #{account => ~"b", amount => {sum, 5}}}].
2> esdb_aggregate_nif:sum_field(Events, amount).
75
3> esdb_aggregate_nif:group_by(Events, account, [count, {sum, amount}]).
#{<<"a">> => [2,70],<<"b">> => [1,5]}
4> esdb_aggregate_nif:aggregate_events(Events, #{}, true).
#{account => <<"b">>,amount => 75}
```

In place of the list, events may be packed: a segment of `m:esdb_segment_nif`, one with its
dictionary, or a list of these, which counts as one sequence. Then sums, counts, groups and folds
are answered on their bytes, floats are added segment by segment, and a segment that cannot be read
is `{error, Reason}`, with the reasons given there. A list is one of segments if its first element
is one; fields, values and paths have to be such as a segment can hold, or they are `badarg`.

Fields of events can be *tagged*: `{sum, Number}` is added to what the state has; what stands in
`{overwrite, Value}` replaces it, and any other value does too. See `aggregate_events/3`.

Looking at one field of each map, and folding maps into one, is as fast in Erlang as it can be made:
these functions are the same Erlang in both modes. Grouping runs in the library.
""".

%% Folds of tagged fields
-export([aggregate_events/3, merge_tagged_batch/2, finalize/1]).
%% Questions
-export([sum_field/2, count_where/3, group_by/3, aggregation_stats/1]).
-export_type([event/0, events/0, path/0, aggregate/0]).

-nifs([grouped_n/3, grouped_d/3]).
%% Dialyzer does not know that the library replaces implementation/0, and answers `long` then.
-dialyzer({nowarn_function, [grouped/3, grouped_n/3]}).

-type event() :: map() | term().
-type events() :: [event()] | esdb_segment_nif:segments().
-type error() :: {error, esdb_segment_nif:reason()}.
-type path() :: esdb_predicate_erl:path().
-type aggregate() :: count | {sum | min | max | avg, path()}.

%% Fields of events that a normal scheduler looks at: 0.5 ms, measured.
-define(SHORT, 10_000).
%% Bytes of keys, each of which may have to be compared for each event.
-define(SHORT_PATHS, 1_024).

-include("esdb_nif.hrl").

%% Folds of tagged fields

-doc """
The state after all events: each field of the data of each event, in the order of the events, is
applied to the state `Init`.

- `{sum, N}`, N a number, adds N to the field and leaves it `{sum, Sum}`. The state counts with its
  number: of `{sum, M}` and `{overwrite, M}`, and a number itself; anything else counts 0.
- `{overwrite, Value}` and any other value replace the field. They stay as they are.

With `Finalize` the result is `finalize/1` of the state. A state that is no map, or a `Finalize`
that is no boolean, is `badarg`.
""".
-spec aggregate_events(events(), Init :: map(), Finalize :: boolean()) -> map() | error().
aggregate_events(Events, Init, Finalize) when is_map(Init), is_boolean(Finalize) ->
    case {folded(Events, Init), Finalize} of
        {State, true} when is_map(State) -> esdb_aggregate_erl:finalize(State);
        {Result, _} -> Result
    end;
aggregate_events(_, _, _) ->
    error(badarg).

-spec folded(events(), map()) -> map() | error().
folded(Events, Init) ->
    case esdb_events_erl:is_packed(Events) of
        true -> esdb_segment_nif:fold_tagged(Events, Init);
        false -> esdb_aggregate_erl:fold(Events, Init)
    end.

-doc "Applies fields, in their order, to a state; the rules are those of `aggregate_events/3`.".
-spec merge_tagged_batch(Pairs :: [{Key :: term(), Value :: term()}], State :: map()) -> map().
merge_tagged_batch(Pairs, State) when is_list(Pairs), is_map(State) ->
    esdb_aggregate_erl:merge(Pairs, State);
merge_tagged_batch(_, _) ->
    error(badarg).

-doc "The state with `Value` for each `{sum, Value}` and `{overwrite, Value}`, one level deep.".
-spec finalize(State :: map()) -> map().
finalize(State) when is_map(State) -> esdb_aggregate_erl:finalize(State);
finalize(_) -> error(badarg).

%% Questions

-doc """
The sum of a field of the data of all events.

A number counts, and so does `{sum, Number}`; any other value, or none, does not. Without numbers it
is 0. Integers are added exactly, floats from left to right, and both to each other at the end.
""".
-spec sum_field(events(), Field :: term()) -> number() | error().
sum_field(Events, Field) ->
    case esdb_events_erl:is_packed(Events) of
        true -> esdb_aggregate_erl:packed_sum(Events, Field);
        false -> esdb_aggregate_erl:sum_field(Events, Field)
    end.

-doc """
How many events have exactly (`=:=`) this value in a field of their data.

A field that is not there counts as `undefined`.
""".
-spec count_where(events(), Field :: term(), Value :: term()) -> non_neg_integer() | error().
count_where(Events, Field, Value) ->
    case esdb_events_erl:is_packed(Events) of
        true -> esdb_aggregate_erl:packed_count(Events, Field, Value);
        false -> esdb_aggregate_erl:count_where(Events, Field, Value)
    end.

-doc """
Groups events by the value at `Path` and answers `Aggregates` for each group: a value for one
aggregate, a list for a list of them.

A path is a key of the data, or a list of keys that leads further in. If it begins with `stream_id`,
`event_type`, `version`, `metadata`, `event_id` or `epoch_us`, it leads into the event itself.
`{event, Path}` and `{data, Path}` say where, whatever the key.
Events that have no such field are the group `undefined`; values are one group if they are exactly
equal (`=:=`).

| aggregate | value |
|---|---|
| `count` | how many events |
| `{sum, Path}` | the sum of the numbers there, as in `sum_field/2`; 0 without any |
| `{min, Path}`, `{max, Path}` | the least or greatest, of equals the first, or `undefined` |
| `{avg, Path}` | their sum by their count, a float; `undefined` without any |

A path or an aggregate of another form is `badarg`.
""".
-spec group_by(events(), path(), aggregate()) -> #{term() => number() | undefined} | error();
    (events(), path(), [aggregate()]) -> #{term() => [number() | undefined]} | error().
group_by(Events, Path, Aggregates) ->
    case esdb_events_erl:is_packed(Events) of
        true -> esdb_segment_nif:group_by(Events, Path, Aggregates);
        false -> grouped_maps(Events, Path, Aggregates)
    end.

-spec grouped_maps([event()], path(), aggregate() | [aggregate()]) -> #{term() => term()}.
grouped_maps(Events, Path, Aggregates) when is_list(Events), is_list(Aggregates) ->
    grouped(Events, path(Path), questions(Aggregates));
grouped_maps(Events, Path, Aggregate) when is_list(Events) ->
    #{Key => Value || Key := [Value] <- grouped_maps(Events, Path, [Aggregate])};
grouped_maps(_, _, _) ->
    error(badarg).

-doc """
How many events there are, how many of them have data that is not empty, and how many different
fields all data has together. Packed events are all built for this.
""".
-spec aggregation_stats(events()) ->
    #{
        total_events := non_neg_integer(),
        events_with_data := non_neg_integer(),
        unique_fields := non_neg_integer()
    }
    | error().
aggregation_stats(Events) ->
    Statistics =
        case esdb_events_erl:is_packed(Events) of
            true -> esdb_aggregate_erl:packed_statistics(Events);
            false -> esdb_aggregate_erl:statistics(Events)
        end,
    case Statistics of
        {error, Reason} ->
            {error, Reason};
        {Total, WithData, Fields} ->
            #{total_events => Total, events_with_data => WithData, unique_fields => Fields}
    end.

%% Arguments

-spec path(path()) -> esdb_aggregate_erl:path().
path(Path) ->
    case esdb_path:parse(Path) of
        invalid -> error(badarg);
        Parsed -> Parsed
    end.

-spec questions([aggregate()] | term()) -> [esdb_aggregate_erl:question()].
questions([Aggregate | Aggregates]) -> [question(Aggregate) | questions(Aggregates)];
questions([]) -> [];
questions(_) -> error(badarg).

-spec question(aggregate() | term()) -> esdb_aggregate_erl:question().
question(count) -> count;
question({K, Path}) when K =:= sum; K =:= min; K =:= max; K =:= avg -> {K, path(Path)};
question(_) -> error(badarg).

-spec grouped([event()], esdb_aggregate_erl:path(), [esdb_aggregate_erl:question()]) ->
    #{term() => [number() | undefined]}.
grouped(Events, Path, Questions) ->
    Fields = lists:sum([keys(Path) | [keys(Question) || Question <- Questions]]),
    IsShort =
        is_short(Events, ?SHORT div Fields) andalso
            erlang:external_size([Path | Questions]) =< ?SHORT_PATHS,
    case IsShort andalso grouped_n(Events, Path, Questions) of
        Groups when is_map(Groups) -> Groups;
        %% Many events, or integers of kilobytes.
        _ -> grouped_d(Events, Path, Questions)
    end.

-spec keys(esdb_aggregate_erl:path() | esdb_aggregate_erl:question()) -> pos_integer().
keys(count) -> 1;
keys({_, [_ | _] = Keys}) -> length(Keys);
keys({_, Path}) -> keys(Path).

%% Whether a list has at most so many elements; not more of them are looked at.
-spec is_short(nonempty_maybe_improper_list() | [], integer()) -> boolean().
is_short([_ | Events], Left) -> Left > 0 andalso is_short(Events, Left - 1);
is_short(_, Left) -> Left >= 0.

%% Replaced when the library is loaded: _n on the caller's scheduler, _d on a dirty one

-spec grouped_n([event()], esdb_aggregate_erl:path(), [esdb_aggregate_erl:question()]) ->
    #{term() => [number() | undefined]} | long.
grouped_n(Events, Path, Questions) -> esdb_aggregate_erl:grouped(Events, Path, Questions).

-spec grouped_d([event()], esdb_aggregate_erl:path(), [esdb_aggregate_erl:question()]) ->
    #{term() => [number() | undefined]}.
grouped_d(Events, Path, Questions) -> esdb_aggregate_erl:grouped(Events, Path, Questions).
