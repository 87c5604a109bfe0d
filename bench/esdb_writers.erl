-module(esdb_writers).
-moduledoc """
So many processes that write for some time, and what that took: for benchmarks of what waits for a
disk, where how many at once matters as much as how long.

```erlang
1> esdb_writers:run(50, 1000, fun(Writer) -> append(stream(Writer)) end).
#{calls => 61200,rate => 61187.1,p50 => 790,p99 => 2100,max => 9100}
```
""".

-export([run/3, timed/2, median/1, events/1, event/1]).
-export_type([result/0]).

-doc "Calls, calls a second, and microseconds of a call.".
-type result() :: #{
    calls := pos_integer(), rate := float(), p50 := integer(), p99 := integer(), max := integer()
}.

-doc "Each writer calls the fun, with its number, until the time is over.".
-spec run(pos_integer(), Ms :: pos_integer(), fun((pos_integer()) -> term())) -> result().
run(Writers, Ms, Fun) ->
    Begin = erlang:monotonic_time(microsecond),
    Until = Begin + Ms * 1000,
    Started = [
        spawn_monitor(fun() -> exit({us, calls(Until, fun() -> Fun(N) end, [])}) end)
     || N <- lists:seq(1, Writers)
    ],
    result(Begin, lists:append([joined(One) || One <- Started])).

-doc "The same in the calling process alone.".
-spec timed(Ms :: pos_integer(), fun(() -> term())) -> result().
timed(Ms, Fun) ->
    Begin = erlang:monotonic_time(microsecond),
    result(Begin, calls(Begin + Ms * 1000, Fun, [])).

-spec result(integer(), [integer(), ...]) -> result().
result(Begin, Unsorted) ->
    Took = erlang:monotonic_time(microsecond) - Begin,
    Times = lists:sort(Unsorted),
    Calls = length(Times),
    #{
        calls => Calls,
        rate => Calls * 1.0e6 / Took,
        p50 => nth(Times, 0.5),
        p99 => nth(Times, 0.99),
        max => lists:last(Times)
    }.

-spec joined({pid(), reference()}) -> [integer()].
joined({Pid, Ref}) ->
    receive
        {'DOWN', Ref, process, Pid, {us, Times}} -> Times;
        {'DOWN', Ref, process, Pid, Reason} -> error(Reason)
    end.

-spec calls(integer(), fun(() -> term()), [integer()]) -> [integer()].
calls(Until, Fun, Times) ->
    Begin = erlang:monotonic_time(microsecond),
    _ = Fun(),
    case erlang:monotonic_time(microsecond) of
        End when End >= Until -> [End - Begin | Times];
        End -> calls(Until, Fun, [End - Begin | Times])
    end.

-spec nth([integer()], float()) -> integer().
nth(Sorted, Share) -> lists:nth(max(1, round(length(Sorted) * Share)), Sorted).

-doc "Of several runs the one in the middle, by its rate.".
-spec median([result(), ...]) -> result().
median(Results) ->
    Sorted = lists:sort(fun(#{rate := A}, #{rate := B}) -> A =< B end, Results),
    lists:nth((length(Sorted) + 1) div 2, Sorted).

-doc "Events of about 300 bytes.".
-spec events(pos_integer()) -> [map()].
events(Count) -> [event(N) || N <- lists:seq(1, Count)].

-doc "One of them.".
-spec event(non_neg_integer()) -> map().
event(N) ->
    #{
        event_type => ~"ItemAdded",
        data => #{item => N, note => binary:copy(~"n", 150)},
        metadata => #{actor => ~"someone", correlation_id => <<"order-", (N rem 1000):32>>},
        tags => [~"bench"]
    }.
