-module(esdb_demo_calendar).
-moduledoc """
Weeks since the epoch, put into weeks, months, quarters, years or longer spans, so that a chart of
any history has a readable number of rows.

```erlang
1> esdb_demo_calendar:spans(#{2140 => 3, 2192 => 5, 2300 => 1}, 26).
{quarter,[{"2011 Q1",3},{"2011 Q2",0},{"2011 Q3",0},{"2011 Q4",0},{"2012 Q1",5}|...]}
```
""".

-export([spans/2, weeks/1, date/1, monday/1, day_name/1]).
-export_type([unit/0]).

-type unit() :: week | month | quarter | year | {years, pos_integer()}.

-define(UNITS, [week, month, quarter, year, {years, 10}, {years, 100}, {years, 1000}]).
-define(DAY_US, 86_400_000_000).

-doc """
The counts of weeks in the smallest unit that needs at most `Rows` rows, empty ones in between
included.

A week is counted where its first day lies (a Thursday: the epoch was one).
""".
-spec spans(#{Week :: non_neg_integer() => non_neg_integer()}, Rows :: pos_integer()) ->
    {unit(), [{Label :: string(), non_neg_integer()}]}.
spans(Weeks, _) when map_size(Weeks) =:= 0 ->
    {week, []};
spans(Weeks, Rows) ->
    First = lists:min(maps:keys(Weeks)),
    Last = lists:max(maps:keys(Weeks)),
    Fits = [U || U <- ?UNITS, index(U, Last) - index(U, First) < Rows],
    Unit = hd(Fits ++ [lists:last(?UNITS)]),
    Counts = maps:fold(fun(W, N, In) -> add(index(Unit, W), N, In) end, #{}, Weeks),
    Indexes = lists:seq(index(Unit, First), index(Unit, Last)),
    {Unit, [{label(Unit, I), maps:get(I, Counts, 0)} || I <- Indexes]}.

-spec add(integer(), non_neg_integer(), #{integer() => non_neg_integer()}) ->
    #{integer() => non_neg_integer()}.
add(Index, N, Counts) ->
    Counts#{Index => maps:get(Index, Counts, 0) + N}.

-doc "The counts of all weeks from the first to the last, weeks without events included.".
-spec weeks(#{Week :: non_neg_integer() => non_neg_integer()}) -> [non_neg_integer()].
weeks(Weeks) when map_size(Weeks) =:= 0 ->
    [];
weeks(Weeks) ->
    Keys = maps:keys(Weeks),
    [maps:get(W, Weeks, 0) || W <- lists:seq(lists:min(Keys), lists:max(Keys))].

-doc "The day of a time in microseconds, as `2011-01-09`.".
-spec date(non_neg_integer()) -> string().
date(Us) -> day_name(Us div ?DAY_US).

-doc "The last Monday that is not after a time in microseconds, in days since the epoch.".
-spec monday(non_neg_integer()) -> integer().
monday(Us) ->
    %% Day 0 was a Thursday, so the first Monday is day -3.
    (Us div ?DAY_US + 3) div 7 * 7 - 3.

-doc "The name of a day that is counted from the epoch, as `2011-01-09`.".
-spec day_name(integer()) -> string().
day_name(SinceEpoch) ->
    {Year, Month, Day} = day(SinceEpoch),
    lists:flatten(io_lib:format("~4..0b-~2..0b-~2..0b", [Year, Month, Day])).

-spec day(integer()) -> calendar:date().
day(SinceEpoch) ->
    calendar:gregorian_days_to_date(calendar:date_to_gregorian_days(1970, 1, 1) + SinceEpoch).

-spec index(unit(), non_neg_integer()) -> non_neg_integer().
index(week, Week) ->
    Week;
index(Unit, Week) ->
    {Year, Month, _} = day(Week * 7),
    case Unit of
        month -> Year * 12 + Month - 1;
        quarter -> Year * 4 + (Month - 1) div 3;
        year -> Year;
        {years, N} -> Year div N
    end.

-spec label(unit(), non_neg_integer()) -> string().
label(week, Week) -> date(Week * 7 * ?DAY_US);
label(month, I) -> format("~4..0b-~2..0b", [I div 12, I rem 12 + 1]);
label(quarter, I) -> format("~4..0b Q~b", [I div 4, I rem 4 + 1]);
label(year, I) -> format("~4..0b", [I]);
label({years, N}, I) -> format("~bs", [I * N]).

-spec format(io:format(), [term()]) -> string().
format(Format, Arguments) ->
    lists:flatten(io_lib:format(Format, Arguments)).
