-module(esdb_demo_facts).
-moduledoc """
What a report tells about events, gathered in one fold over them.

```erlang
1> Facts = lists:foldl(fun esdb_demo_facts:add/2, esdb_demo_facts:new(), Events),
   esdb_demo_facts:top_areas(Facts, 2).
[{<<"lib">>,912345},{<<"src">>,81234}]
```
""".

-export([new/0, add/2, top_areas/2]).
-export_type([facts/0]).

-type counts(Key) :: #{Key => non_neg_integer()}.
-type facts() :: #{
    events := non_neg_integer(),
    streams := counts(binary()),
    types := counts(binary()),
    %% Counted from the epoch.
    days := counts(non_neg_integer()),
    areas := counts(binary()),
    first := integer() | none,
    last := integer() | none,
    links := esdb_demo_chain:links()
}.

-doc "The facts about no event.".
-spec new() -> facts().
new() ->
    #{
        events => 0,
        streams => #{},
        types => #{},
        days => #{},
        areas => #{},
        first => none,
        last => none,
        links => #{}
    }.

-doc "The facts with one more event.".
-spec add(esdb_demo_event:commit(), facts()) -> facts().
add(#{event_id := Id, event_type := Type, stream_id := Stream, epoch_us := Time} = Event, Facts) ->
    #{
        events := Events,
        streams := Streams,
        types := Types,
        days := Days,
        areas := Areas,
        first := First,
        last := Last,
        links := Links
    } = Facts,
    #{
        events => Events + 1,
        streams => count(Stream, 1, Streams),
        types => count(Type, 1, Types),
        days => count(esdb_demo_calendar:day(Time), 1, Days),
        areas => lists:foldl(fun count_area/2, Areas, esdb_demo_event:insertions_by_area(Event)),
        %% An atom is greater than any number.
        first => min(First, Time),
        last => latest(Last, Time),
        links => Links#{Id => cause(Event)}
    }.

-spec count_area({binary(), pos_integer()}, counts(binary())) -> counts(binary()).
count_area({Area, Insertions}, Areas) ->
    count(Area, Insertions, Areas).

-spec count(Key, pos_integer(), counts(Key)) -> counts(Key).
count(Key, N, Counts) ->
    Counts#{Key => maps:get(Key, Counts, 0) + N}.

-spec latest(integer() | none, integer()) -> integer().
latest(none, Time) -> Time;
latest(Last, Time) -> max(Last, Time).

-spec cause(esdb_demo_event:commit()) -> binary() | none.
cause(#{metadata := #{~"causation_id" := Cause}}) when is_binary(Cause) -> Cause;
cause(_) -> none.

-doc "The `N` areas with most inserted lines, most first, equals by name.".
-spec top_areas(facts(), pos_integer()) -> [{binary(), pos_integer()}].
top_areas(#{areas := Areas}, N) ->
    Sorted = lists:sort([{-Sum, Area} || Area := Sum <- Areas]),
    [{Area, -Sum} || {Sum, Area} <- lists:sublist(Sorted, N)].
