-module(esdb_demo_facts).
-moduledoc """
What can be said of events from their envelopes alone, gathered in one fold over them.

What their contents say is asked by `m:esdb_demo_questions`.

```erlang
1> lists:foldl(fun esdb_demo_facts:add/2, esdb_demo_facts:new(), [Event]).
#{events => 1,streams => #{<<"area-src">> => 1},days => #{14983 => 1},ids => [<<"c0ffee">>],
  first => 1294562768000000,last => 1294562768000000}
```
""".

-export([new/0, add/2]).
-export_type([facts/0]).

-type counts(Key) :: #{Key => non_neg_integer()}.
-type facts() :: #{
    events := non_neg_integer(),
    streams := counts(binary()),
    %% Counted from the epoch.
    days := counts(non_neg_integer()),
    first := integer() | none,
    last := integer() | none,
    %% Of all events, the last one first.
    ids := [binary()]
}.

-doc "The facts about no event.".
-spec new() -> facts().
new() ->
    #{
        events => 0,
        streams => #{},
        days => #{},
        first => none,
        last => none,
        ids => []
    }.

-doc "The facts with one more event.".
-spec add(esdb_demo_event:commit(), facts()) -> facts().
add(#{event_id := Id, stream_id := Stream, epoch_us := Time}, Facts) ->
    #{
        events := Events,
        streams := Streams,
        days := Days,
        first := First,
        last := Last,
        ids := Ids
    } = Facts,
    #{
        events => Events + 1,
        streams => count(Stream, Streams),
        days => count(esdb_demo_calendar:day(Time), Days),
        %% An atom is greater than any number.
        first => min(First, Time),
        last => latest(Last, Time),
        ids => [Id | Ids]
    }.

-spec count(Key, counts(Key)) -> counts(Key).
count(Key, Counts) ->
    Counts#{Key => maps:get(Key, Counts, 0) + 1}.

-spec latest(integer() | none, integer()) -> integer().
latest(none, Time) -> Time;
latest(Last, Time) -> max(Last, Time).
