-module(bench_store).
-moduledoc """
The store in memory, 300-byte events, against the least that keeps them: `ets:insert/2` of the
events as terms into an ordered table, with no version check, no order over streams, no packing,
no telemetry. That is no event store, so a ratio below 1 is what the promises cost.
""".

-export([run/0]).

-define(STREAM, <<"bench">>).

-spec run() -> ok.
run() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    esdb_bench:title("Store in memory, append, 300-byte events (one call; events a second below)"),
    [append(Writers, Batch) || Writers <- [1, 50], Batch <- [1, 10, 100]],
    esdb_bench:title("Store in memory, read"),
    read(),
    ok.

-spec append(pos_integer(), pos_integer()) -> ok.
append(Writers, Batch) ->
    {ok, _} = erl_esdb:start_store(?MODULE),
    Events = events(Batch),
    Table = ets:new(?MODULE, [ordered_set, public, {write_concurrency, true}]),
    Counter = atomics:new(1, []),
    Ours = fun() -> {ok, _} = erl_esdb_streams:append(?MODULE, stream(), any, Events) end,
    Rival = fun() ->
        Last = atomics:add_get(Counter, 1, Batch),
        Numbered = lists:enumerate(0, Events),
        ets:insert(Table, [{{stream(), Last - N}, Event} || {N, Event} <- Numbered])
    end,
    What = lists:flatten(io_lib:format("~b writers, ~b an append", [Writers, Batch])),
    _ = esdb_bench:compare(What, #{
        ours => {"append", at_once(Writers, Ours)},
        rival => {"ets:insert", at_once(Writers, Rival)},
        same => fun(_, _) -> true end
    }),
    esdb_bench:note("~ts: ~b events a second", [What, rate(Writers, Batch, Ours)]),
    true = ets:delete(Table),
    ok = erl_esdb:stop_store(?MODULE).

%% Each writer its own stream.
-spec stream() -> binary().
stream() -> term_to_binary(self()).

%% One call is 20 of each writer, so that starting the writers does not count for much.
-spec at_once(pos_integer(), fun(() -> term())) -> fun(() -> term()).
at_once(1, Fun) ->
    Fun;
at_once(Writers, Fun) ->
    fun() -> join([spawn_monitor(fun() -> repeat(20, Fun) end) || _ <- lists:seq(1, Writers)]) end.

-spec join([{pid(), reference()}]) -> ok.
join(Started) ->
    lists:foreach(
        fun({_, Ref}) -> receive {'DOWN', Ref, process, _, normal} -> ok end end, Started
    ).

-spec repeat(non_neg_integer(), fun(() -> term())) -> ok.
repeat(0, _) -> ok;
repeat(N, Fun) -> _ = Fun(), repeat(N - 1, Fun).

-spec rate(pos_integer(), pos_integer(), fun(() -> term())) -> non_neg_integer().
rate(Writers, Batch, Fun) ->
    Calls = max(1, 200_000 div (Writers * Batch)),
    Begin = erlang:monotonic_time(microsecond),
    join([spawn_monitor(fun() -> repeat(Calls, Fun) end) || _ <- lists:seq(1, Writers)]),
    Calls * Writers * Batch * 1_000_000 div (erlang:monotonic_time(microsecond) - Begin).

-spec read() -> ok.
read() ->
    {ok, _} = erl_esdb:start_store(?MODULE),
    Table = ets:new(?MODULE, [ordered_set, public]),
    [fill(Table, Stream, Batch) || {Stream, Batch} <- [{<<"ones">>, 1}, {<<"hundreds">>, 100}]],
    Streams = [<<"ones">>, <<"hundreds">>],
    [window(Table, Stream, Count) || Stream <- Streams, Count <- [1, 100, 1000]],
    true = ets:delete(Table),
    ok = erl_esdb:stop_store(?MODULE).

-spec fill(ets:table(), binary(), pos_integer()) -> ok.
fill(Table, Stream, Batch) ->
    Events = events(Batch),
    repeat(20_000 div Batch, fun() ->
        {ok, _} = erl_esdb_streams:append(?MODULE, Stream, any, Events)
    end),
    {ok, All} = erl_esdb_streams:read(?MODULE, Stream, 0, infinity, forward),
    true = ets:insert(Table, [{{Stream, version(Event)}, Event} || Event <- All]),
    ok.

-spec window(ets:table(), binary(), pos_integer()) -> ok.
window(Table, Stream, Count) ->
    What = lists:flatten(io_lib:format("~b events of ~ts", [Count, Stream])),
    Ours = fun() ->
        {ok, Events} = erl_esdb_streams:read(?MODULE, Stream, 10_050, Count, forward),
        Events
    end,
    Rival = fun() ->
        [ets:lookup_element(Table, {Stream, V}, 2) || V <- lists:seq(10_050, 10_049 + Count)]
    end,
    _ = esdb_bench:compare(What, #{ours => {"read", Ours}, rival => {"ets:lookup_element", Rival}}),
    esdb_bench:note("~ts: ~b events a second", [What, rate(1, Count, Ours)]).

%% The fifth place of an #event{}: benchmarks are compiled without the applications' headers.
-spec version(tuple()) -> non_neg_integer().
version(Event) -> element(5, Event).

-spec events(pos_integer()) -> [map()].
events(Count) ->
    [
        #{
            event_type => <<"ItemAdded">>,
            data => #{item => N, note => binary:copy(<<"n">>, 150)},
            metadata => #{actor => <<"someone">>}
        }
     || N <- lists:seq(1, Count)
    ].
