-module(esdb_writers).
-moduledoc """
So many processes that write for some time, and what that took: for benchmarks of what waits for a
disk, where how many at once matters as much as how long.

```erlang
1> esdb_writers:run(50, 1000, fun(Writer) -> append(stream(Writer)) end).
#{calls => 61200,rate => 61187.1,p50 => 790,p99 => 2100,max => 9100}
```
""".

-export([run/3, timed/2, fill/4, median/1, events/1, event/1]).
-export_type([result/0]).

-doc "Calls, calls a second, and microseconds of a call.".
-type result() :: #{
    calls := pos_integer(), rate := float(), p50 := integer(), p99 := integer(), max := integer()
}.

-doc "Each writer calls the fun, with its number, until the time is over.".
-spec run(pos_integer(), Ms :: pos_integer(), fun((pos_integer()) -> term())) -> result().
run(Writers, Ms, Fun) ->
    Begin = erlang:monotonic_time(microsecond),
    result(Begin, all_calls(Writers, infinity, Begin + Ms * 1000, Fun)).

-doc "The same until each has made its share of so many calls, or the time is over; how many.".
-spec fill(pos_integer(), Calls, Ms :: pos_integer(), fun((pos_integer()) -> term())) -> Calls when
    Calls :: non_neg_integer().
fill(Writers, Calls, Ms, Fun) ->
    Until = erlang:monotonic_time(microsecond) + Ms * 1000,
    length(all_calls(Writers, Calls div Writers, Until, Fun)).

-spec all_calls(pos_integer(), Each, Until :: integer(), fun((pos_integer()) -> term())) ->
    [integer()]
when
    Each :: non_neg_integer() | infinity.
all_calls(Writers, Each, Until, Fun) ->
    Started = [
        spawn_monitor(fun() -> exit({us, calls(Each, Until, fun() -> Fun(N) end, [])}) end)
     || N <- lists:seq(1, Writers)
    ],
    lists:append([joined(One) || One <- Started]).

-doc "The same in the calling process alone.".
-spec timed(Ms :: pos_integer(), fun(() -> term())) -> result().
timed(Ms, Fun) ->
    Begin = erlang:monotonic_time(microsecond),
    result(Begin, calls(infinity, Begin + Ms * 1000, Fun, [])).

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

-spec calls(non_neg_integer() | infinity, integer(), fun(() -> term()), [integer()]) -> [integer()].
calls(0, _Until, _Fun, Times) ->
    Times;
calls(Left, Until, Fun, Times) ->
    Begin = erlang:monotonic_time(microsecond),
    _ = Fun(),
    case erlang:monotonic_time(microsecond) of
        End when End >= Until -> [End - Begin | Times];
        End -> calls(erl_esdb_args:less(Left, 1), Until, Fun, [End - Begin | Times])
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
