-module(bench_temporal).
-moduledoc """
A stream as it was at a time, in stores of 1e3 to 1e6 events: a binary search over places, against a
walk through the whole stream, which is what a store without it does, and against an ordered ETS
table with the time in its key, which is the most that can be had: an index more, with the events in
it as terms.
""".

-export([run/0]).

-include("../erlang/erl_esdb_gater/include/esdb_gater_types.hrl").

-define(STREAM, <<"bench">>).

-spec run() -> ok.
run() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    lists:foreach(fun sized/1, [1_000, 100_000, 1_000_000]).

-spec sized(pos_integer()) -> ok.
sized(Size) ->
    Title = "Temporal, a stream of ~b events in memory",
    esdb_bench:title(lists:flatten(io_lib:format(Title, [Size]))),
    {ok, _} = erl_esdb:start_store(?MODULE),
    Table = ets:new(?MODULE, [ordered_set]),
    ok = fill(0, Size),
    ok = indexed(Table, 0, Size),
    Time = Size div 2,
    walk(Size, Time),
    until(Time, "ets:prev", fun() -> last(Table, Time) end),
    _ = esdb_bench:compare("the events of a span of time", #{
        ours => {"read_range/5", fun() -> range(Time, Time + 20) end},
        rival => {"ets:next", fun() -> next(Table, {Time, -1}, Time + 20) end}
    }),
    true = ets:delete(Table),
    ok = erl_esdb:stop_store(?MODULE).

%% Over a million events it takes seconds.
-spec walk(pos_integer(), integer()) -> ok.
walk(Size, _Time) when Size > 100_000 ->
    ok;
walk(_Size, Time) ->
    until(Time, "walk", fun() ->
        {ok, Events} = erl_esdb_streams:read(?MODULE, ?STREAM, 0, infinity, forward),
        Until = lists:takewhile(fun(#event{epoch_us = T}) -> T =< Time end, Events),
        lists:sublist(lists:reverse(Until), 10)
    end).

-spec until(integer(), string(), fun(() -> [event()])) -> ok.
until(Time, RivalName, Rival) ->
    _ = esdb_bench:compare("the last ten up to a time", #{
        ours => {"read_until/4", fun() -> search(Time) end}, rival => {RivalName, Rival}
    }),
    ok.

-spec range(integer(), integer()) -> [event()].
range(From, To) ->
    {ok, Events} = erl_esdb_temporal:read_range(?MODULE, ?STREAM, From, To),
    Events.

-spec indexed(ets:table(), non_neg_integer(), pos_integer()) -> ok.
indexed(_Table, Size, Size) ->
    ok;
indexed(Table, From, Size) ->
    {ok, Events} = erl_esdb_streams:read(?MODULE, ?STREAM, From, 1000, forward),
    true = ets:insert(Table, [{{T, V}, E} || #event{epoch_us = T, version = V} = E <- Events]),
    indexed(Table, From + length(Events), Size).

-spec last(ets:table(), integer()) -> [event()].
last(Table, Time) -> before(Table, ets:prev(Table, {Time, last}), 10).

-spec before(ets:table(), term(), non_neg_integer()) -> [event()].
before(_Table, _Key, 0) -> [];
before(Table, Key, N) ->
    [ets:lookup_element(Table, Key, 2) | before(Table, ets:prev(Table, Key), N - 1)].

-spec next(ets:table(), term(), integer()) -> [event()].
next(Table, Key, To) ->
    case ets:next(Table, Key) of
        {Time, _} = Next when Time =< To ->
            [ets:lookup_element(Table, Next, 2) | next(Table, Next, To)];
        _ ->
            []
    end.

-spec search(integer()) -> [event()].
search(Time) ->
    Options = #{direction => backward, limit => 10},
    {ok, Events} = erl_esdb_temporal:read_until(?MODULE, ?STREAM, Time, Options),
    Events.

%% Ten events an append; the time of an event is the version of the first one of its append.
-spec fill(non_neg_integer(), pos_integer()) -> ok.
fill(Size, Size) ->
    ok;
fill(From, Size) ->
    Events = [
        #{event_type => <<"Counted">>, data => #{n => N, text => <<"some text of the event">>}}
     || N <- lists:seq(From, From + 9)
    ],
    {ok, _} = erl_esdb_restore:append(?MODULE, ?STREAM, From - 1, Events, From),
    fill(From + 10, Size).
