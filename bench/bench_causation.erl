-module(bench_causation).
-moduledoc """
Causation over the indexes of a store in memory, against the least that finds the same without them:
one pass over the log, page by page, that keeps what is wanted.

Events of some 300 bytes in appends of 100. Each is caused by the one before it of its line, and
correlated with it; a line has 100 events, spread evenly over the whole log.
""".

-export([run/0]).

-define(STORE, ?MODULE).
-define(LENGTH, 100).
-define(BATCH, 100).
-define(PAGE, 1000).

-spec run() -> ok.
run() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    lists:foreach(fun sized/1, [1_000, 100_000, 1_000_000]).

-spec sized(pos_integer()) -> ok.
sized(Events) ->
    esdb_bench:title(lists:flatten(io_lib:format("Causation, ~b events", [Events]))),
    {ok, _} = erl_esdb:start_store(?STORE),
    [{_, Index, _}] = ets:lookup(erl_esdb_index, ?STORE),
    ok = sys:suspend(Index),
    Begins = lists:seq(0, Events - 1, ?BATCH),
    lists:foreach(fun(From) -> append(From, Events div ?LENGTH) end, Begins),
    Before = memory(),
    ok = sys:resume(Index),
    {Us, {ok, _}} = timer:tc(fun() ->
        erl_esdb_causation:get_cause(?STORE, id(Events - 1), #{timeout => infinity})
    end),
    questions(Events),
    {ok, #{bytes := Bytes, runs := Runs}} = erl_esdb_index:info(?STORE),
    esdb_bench:note("~b events: indexed at ~b events a second into ~b runs", [
        Events, Events * 1_000_000 div Us, Runs
    ]),
    esdb_bench:note("~b events: ~.1f bytes an event; ~.1f that the node has more", [
        Events, Bytes / Events, (memory() - Before) / Events
    ]),
    ok = erl_esdb:stop_store(?STORE).

%% What is in use when all garbage is gone.
-spec memory() -> non_neg_integer().
memory() ->
    lists:foreach(fun erlang:garbage_collect/1, erlang:processes()),
    erlang:memory(total).

-spec append(non_neg_integer(), pos_integer()) -> ok.
append(From, Lines) ->
    Events = [event(N, Lines) || N <- lists:seq(From, From + ?BATCH - 1)],
    {ok, _} = erl_esdb_streams:append(?STORE, <<"bench">>, any, Events),
    ok.

-spec event(non_neg_integer(), pos_integer()) -> map().
event(N, Lines) ->
    Cause = #{causation_id => id(N - Lines) || N >= Lines},
    #{
        event_id => id(N),
        event_type => <<"ItemAdded">>,
        data => #{item => N, note => binary:copy(<<"n">>, 150)},
        metadata => Cause#{correlation_id => line(N rem Lines)}
    }.

-spec id(non_neg_integer()) -> binary().
id(N) -> <<"event-", (integer_to_binary(N))/binary>>.

-spec line(non_neg_integer()) -> binary().
line(N) -> <<"line-", (integer_to_binary(N))/binary>>.

-spec questions(pos_integer()) -> ok.
questions(Events) ->
    Last = Events - 1,
    Line = line(Last rem (Events div ?LENGTH)),
    Middle = id(Events div 2),
    compare(Events, "chain of 100", "get_chain", fun() ->
        {ok, Chain} = erl_esdb_causation:get_chain(?STORE, id(Last)),
        Chain
    end, fun() -> scanned_chain(id(Last)) end),
    compare(Events, "100 correlated events", "get_correlated", fun() ->
        {ok, Found} = erl_esdb_causation:get_correlated(?STORE, Line),
        Found
    end, fun() -> scan(fun(Event) -> key(correlation_id, Event) =:= Line end) end),
    compare(Events, "effects of an event", "get_effects", fun() ->
        {ok, Found} = erl_esdb_causation:get_effects(?STORE, Middle),
        Found
    end, fun() -> scan(fun(Event) -> key(causation_id, Event) =:= Middle end) end).

%% A pass over a million events takes seconds: there the results are compared, and ours is timed.
-spec compare(pos_integer(), string(), string(), fun(() -> [term()]), fun(() -> [term()])) -> ok.
compare(Events, What, Name, Ours, Scan) when Events =< 100_000 ->
    _ = esdb_bench:compare(What, #{ours => {Name, Ours}, rival => {"pass over the log", Scan}}),
    ok;
compare(_Events, What, _Name, Ours, Scan) ->
    {ScanUs, Found} = timer:tc(Scan),
    Found =:= Ours() orelse error({results_differ, What}),
    esdb_bench:note("~ts: ~b us, the median of 200; a pass over the log: ~.1f ms", [
        What, median_us(Ours, 200), ScanUs / 1000
    ]).

%% In a process of its own, without the garbage of the pass.
-spec median_us(fun(() -> term()), pos_integer()) -> non_neg_integer().
median_us(Fun, Calls) ->
    {Pid, Ref} = spawn_monitor(fun() ->
        exit({us, lists:sort([element(1, timer:tc(Fun)) || _ <- lists:seq(1, Calls)])})
    end),
    receive
        {'DOWN', Ref, process, Pid, {us, Times}} -> lists:nth(Calls div 2, Times)
    end.

%% An event comes after its cause.
-spec scanned_chain(binary()) -> [tuple()].
scanned_chain(Id) ->
    {_, Chain} = pass(last, backward, fun(Event, {Wanted, Chain}) ->
        case element(2, Event) of
            Wanted -> {key(causation_id, Event), [Event | Chain]};
            _ -> {Wanted, Chain}
        end
    end, {Id, []}),
    Chain.

-spec scan(fun((tuple()) -> boolean())) -> [tuple()].
scan(Wanted) ->
    Found = pass(0, forward, fun(Event, Acc) -> [Event || Wanted(Event)] ++ Acc end, []),
    lists:reverse(Found).

-spec pass(non_neg_integer() | last, forward | backward, fun((tuple(), Acc) -> Acc), Acc) -> Acc.
pass(From, Direction, Fun, Acc) ->
    {ok, Events} = erl_esdb_streams:read_log(?STORE, From, ?PAGE, Direction, #{}),
    Acc1 = lists:foldl(Fun, Acc, Events),
    case {length(Events), Direction, position(Events)} of
        {?PAGE, forward, Last} -> pass(Last + 1, forward, Fun, Acc1);
        {?PAGE, backward, Last} when Last > 0 -> pass(Last - 1, backward, Fun, Acc1);
        _ -> Acc1
    end.

%% Places in an #event{}: benchmarks are compiled without the applications' headers.
-spec position([tuple()]) -> non_neg_integer() | none.
position([]) -> none;
position(Events) -> element(13, lists:last(Events)).

-spec key(atom(), tuple()) -> binary() | none.
key(Key, Event) -> maps:get(Key, element(7, Event), none).
