-module(esdb_demo_calendar).
-moduledoc """
Days since the epoch, put into weeks, months, quarters, years or longer spans, so that a chart of
any history has a readable number of rows. A week begins on its Monday.

```erlang
1> esdb_demo_calendar:spans(#{14980 => 3, 15344 => 5, 16100 => 1}, 26).
{quarter,[{"2011 Q1",3},{"2011 Q2",0},{"2011 Q3",0},{"2011 Q4",0},{"2012 Q1",5}|...]}
```
""".

-export([spans/2, weeks/1, day/1, date/1, day_name/1]).
-export_type([unit/0]).

-type unit() :: week | month | quarter | year | {years, pos_integer()}.

-define(UNITS, [week, month, quarter, year, {years, 10}, {years, 100}, {years, 1000}]).
-define(DAY_US, 86_400_000_000).

-doc """
The counts of days in the smallest unit that needs at most `Rows` rows, empty ones in between
included.
""".
-spec spans(#{Day :: non_neg_integer() => non_neg_integer()}, Rows :: pos_integer()) ->
    {unit(), [{Label :: string(), non_neg_integer()}]}.
spans(Days, _) when map_size(Days) =:= 0 ->
    {week, []};
spans(Days, Rows) ->
    First = lists:min(maps:keys(Days)),
    Last = lists:max(maps:keys(Days)),
    Fits = [U || U <- ?UNITS, index(U, Last) - index(U, First) < Rows],
    Unit = hd(Fits ++ [lists:last(?UNITS)]),
    {Unit, [{label(Unit, I), N} || {I, N} <- counts(Unit, Days)]}.

%% Of all spans from the first to the last, those without events included.
-spec counts(unit(), #{non_neg_integer() => non_neg_integer()}) ->
    [{Index :: non_neg_integer(), non_neg_integer()}].
counts(Unit, Days) ->
    Counts = maps:fold(fun(Day, N, In) -> add(index(Unit, Day), N, In) end, #{}, Days),
    Indexes = maps:keys(Counts),
    [{I, maps:get(I, Counts, 0)} || I <- lists:seq(lists:min(Indexes), lists:max(Indexes))].

-spec add(integer(), non_neg_integer(), #{integer() => non_neg_integer()}) ->
    #{integer() => non_neg_integer()}.
add(Index, N, Counts) ->
    Counts#{Index => maps:get(Index, Counts, 0) + N}.

-doc "All weeks from the first to the last by their Mondays, weeks without events included.".
-spec weeks(#{Day :: non_neg_integer() => non_neg_integer()}) ->
    [{Monday :: integer(), non_neg_integer()}].
weeks(Days) when map_size(Days) =:= 0 -> [];
weeks(Days) -> [{monday(Week), N} || {Week, N} <- counts(week, Days)].

-doc "The day of a time in microseconds, counted from the epoch.".
-spec day(non_neg_integer()) -> non_neg_integer().
day(Us) -> Us div ?DAY_US.

-doc "The day of a time in microseconds, as `2011-01-09`.".
-spec date(non_neg_integer()) -> string().
date(Us) -> day_name(day(Us)).

-doc "The name of a day that is counted from the epoch, as `2011-01-09`.".
-spec day_name(integer()) -> string().
day_name(SinceEpoch) ->
    {Year, Month, Day} = calendar_date(SinceEpoch),
    lists:flatten(io_lib:format("~4..0b-~2..0b-~2..0b", [Year, Month, Day])).

-spec calendar_date(integer()) -> calendar:date().
calendar_date(SinceEpoch) ->
    calendar:gregorian_days_to_date(calendar:date_to_gregorian_days(1970, 1, 1) + SinceEpoch).

-spec index(unit(), non_neg_integer()) -> non_neg_integer().
index(week, Day) ->
    (Day + 3) div 7;
index(Unit, Day) ->
    {Year, Month, _} = calendar_date(Day),
    case Unit of
        month -> Year * 12 + Month - 1;
        quarter -> Year * 4 + (Month - 1) div 3;
        year -> Year;
        {years, N} -> Year div N
    end.

%% Day 0 was a Thursday, so week 0 began on day -3.
-spec monday(non_neg_integer()) -> integer().
monday(Week) -> Week * 7 - 3.

-spec label(unit(), non_neg_integer()) -> string().
label(week, I) -> day_name(monday(I));
label(month, I) -> format("~4..0b-~2..0b", [I div 12, I rem 12 + 1]);
label(quarter, I) -> format("~4..0b Q~b", [I div 4, I rem 4 + 1]);
label(year, I) -> format("~4..0b", [I]);
label({years, N}, I) -> format("~bs", [I * N]).

-spec format(io:format(), [term()]) -> string().
format(Format, Arguments) ->
    lists:flatten(io_lib:format(Format, Arguments)).
