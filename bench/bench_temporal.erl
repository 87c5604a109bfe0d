-module(bench_temporal).
-moduledoc """
A stream as it was at a time, in stores of 1e3 to 1e6 events: a binary search over places, against a
walk through the whole stream, which is what a store without it does.
""".

-export([run/0]).

-include("../erlang/erl_esdb_gater/include/esdb_gater_types.hrl").

-define(STREAM, <<"bench">>).

-spec run() -> ok.
run() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    esdb_bench:title("The last ten events up to a time, of a stream in memory"),
    lists:foreach(fun measure/1, [1_000, 100_000]),
    alone(1_000_000).

-spec measure(pos_integer()) -> ok.
measure(Size) ->
    {ok, _} = erl_esdb:start_store(?MODULE),
    ok = fill(0, Size),
    Time = Size div 2,
    Search = fun() -> search(Time) end,
    Walk = fun() ->
        {ok, Events} = erl_esdb_streams:read(?MODULE, ?STREAM, 0, infinity, forward),
        Until = lists:takewhile(fun(#event{epoch_us = T}) -> T =< Time end, Events),
        lists:sublist(lists:reverse(Until), 10)
    end,
    What = lists:flatten(io_lib:format("~b events", [Size])),
    _ = esdb_bench:compare(What, #{
        ours => {"read_until/4", Search}, rival => {"walk", Walk}, same => fun(A, B) -> A =:= B end
    }),
    ok = erl_esdb:stop_store(?MODULE).

%% The walk takes seconds there.
-spec alone(pos_integer()) -> ok.
alone(Size) ->
    {ok, _} = erl_esdb:start_store(?MODULE),
    ok = fill(0, Size),
    Expected = lists:seq(Size div 2 + 9, Size div 2, -1),
    Expected = [Version || #event{version = Version} <- search(Size div 2)],
    {Us, ok} = timer:tc(fun() -> lists:foreach(fun search/1, lists:seq(0, Size - 1, 100)) end),
    esdb_bench:note("~b events: ~.1f us a search", [Size, Us / (Size div 100)]),
    ok = erl_esdb:stop_store(?MODULE).

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
