-module(bench_store).
-moduledoc """
The store in memory, 300-byte events, against the least that keeps them: `ets:insert/2` of the
events as terms into an ordered table, with no version check, no order over streams, no packing,
no telemetry. That is no event store, so a ratio below 1 is what the promises cost.

The same again in stores that begin with 1e3, 1e5 and 1e6 events, where a row is to cost what it
costs in the one before: what grows with the store is found by that.
""".

-export([run/0]).

-define(SIZES, [1_000, 100_000, 1_000_000]).
%% Of the stores of these sizes: streams, appends of so many events, types, and events of a page.
-define(STREAMS, 100).
-define(BATCH, 100).
-define(TYPES, 50).
-define(PAGE, 100).

-spec run() -> ok.
run() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    esdb_bench:title("Store in memory, append, 300-byte events (one call; events a second below)"),
    [append(Writers, Batch) || Writers <- [1, 50], Batch <- [1, 10, 100]],
    esdb_bench:title("Store in memory, read"),
    read(),
    lists:foreach(fun sized/1, ?SIZES),
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

%% ---- by size

-spec sized(pos_integer()) -> ok.
sized(Size) ->
    Title = "Store in memory, ~b events: pages of 100 (one call)",
    esdb_bench:title(lists:flatten(io_lib:format(Title, [Size]))),
    with_store(Size, fun(Table) -> pages(Size, Table) end),
    esdb_bench:title(lists:flatten(io_lib:format("Store in memory, ~b events: append", [Size]))),
    [
        with_store(Size, fun(Table) -> more(Size, Writers, Batch, Table) end)
     || Writers <- [1, 50], Batch <- [1, 100]
    ],
    ok.

%% A store with so many events, and the same events in a table, by position.
-spec with_store(pos_integer(), fun((ets:table()) -> term())) -> ok.
with_store(Size, Fun) ->
    {ok, _} = erl_esdb:start_store(?MODULE),
    Table = ets:new(?MODULE, [ordered_set, public, {write_concurrency, true}]),
    lists:foreach(fun(From) -> fill_page(Table, From) end, lists:seq(0, Size - 1, ?BATCH)),
    {ok, Size} = erl_esdb_store:next_position(?MODULE),
    _ = Fun(Table),
    true = ets:delete(Table),
    ok = erl_esdb:stop_store(?MODULE).

-spec fill_page(ets:table(), non_neg_integer()) -> true.
fill_page(Table, From) ->
    Events = [typed(N) || N <- lists:seq(From, From + ?BATCH - 1)],
    {ok, _} = erl_esdb_streams:append(?MODULE, name(From), any, Events),
    ets:insert(Table, lists:enumerate(From, Events)).

%% The stream of the append that begins at a position: all in turn.
-spec name(non_neg_integer()) -> binary().
name(From) -> <<"stream-", (integer_to_binary(From div ?BATCH rem ?STREAMS))/binary>>.

-spec typed(non_neg_integer()) -> map().
typed(N) ->
    [Event] = events(1),
    Event#{event_type := <<"Type", (integer_to_binary(N rem ?TYPES))/binary>>}.

%% Pages from the middle. The rival has the place that is to be found.
-spec pages(pos_integer(), ets:table()) -> ok.
pages(Size, Table) ->
    Middle = Size div 2,
    Positions = lists:seq(Middle, Middle + ?PAGE - 1),
    page("of the log, forward", Table, Positions, fun() ->
        erl_esdb_streams:read_log(?MODULE, Middle, ?PAGE, forward, #{})
    end),
    page("of the log, backward", Table, lists:reverse(Positions), fun() ->
        erl_esdb_streams:read_log(?MODULE, Middle + ?PAGE - 1, ?PAGE, backward, #{})
    end),
    %% The newest append is the newest of its stream, too.
    Last = Size - ?BATCH,
    Stream = name(Last),
    Version = erl_esdb_streams:get_version(?MODULE, Stream),
    Tail = lists:seq(Last, Last + ?PAGE - 1),
    page("of a stream, forward", Table, Tail, fun() ->
        erl_esdb_streams:read(?MODULE, Stream, Version - ?PAGE + 1, ?PAGE, forward)
    end),
    page("of a stream, backward", Table, lists:reverse(Tail), fun() ->
        erl_esdb_streams:read(?MODULE, Stream, Version, ?PAGE, backward)
    end),
    typed_page(Size, Table).

-spec page(string(), ets:table(), [non_neg_integer()], fun(() -> {ok, [tuple()]})) -> ok.
page(What, Table, Positions, Read) ->
    _ = esdb_bench:compare(What, #{
        ours => {"read", fun() -> {ok, Events} = Read(), Events end},
        rival => {"ets:lookup_element", fun() ->
            [ets:lookup_element(Table, Position, 2) || Position <- Positions]
        end},
        same => fun(Events, Maps) -> lists:all(fun same/1, lists:zip(Events, Maps)) end
    }),
    ok.

-spec same({tuple(), map()}) -> boolean().
same({Event, #{data := Data, event_type := Type}}) ->
    element(6, Event) =:= Data andalso element(3, Event) =:= Type.

%% The first of a type; the rival goes through all before them.
-spec typed_page(pos_integer(), ets:table()) -> ok.
typed_page(Size, Table) ->
    Count = min(?PAGE, Size div ?TYPES),
    Type = <<"Type7">>,
    Spec = [{{'$1', '$2'}, [{'=:=', {map_get, event_type, '$2'}, Type}], ['$1']}],
    _ = esdb_bench:compare("by type, the first", #{
        ours => {"by_event_types", fun() ->
            {ok, Events} = erl_esdb_streams:read_by_event_types(?MODULE, [Type], Count),
            [position(Event) || Event <- Events]
        end},
        rival => {"ets:select", fun() -> {Found, _} = ets:select(Table, Spec, Count), Found end}
    }),
    ok.

-spec more(pos_integer(), pos_integer(), pos_integer(), ets:table()) -> ok.
more(Size, Writers, Batch, Table) ->
    Events = events(Batch),
    Counter = atomics:new(1, []),
    ok = atomics:put(Counter, 1, Size),
    Ours = fun() -> {ok, _} = erl_esdb_streams:append(?MODULE, stream(), any, Events) end,
    Rival = fun() ->
        Last = atomics:add_get(Counter, 1, Batch),
        ets:insert(Table, lists:enumerate(Last - Batch, Events))
    end,
    What = lists:flatten(io_lib:format("~b writers, ~b an append", [Writers, Batch])),
    _ = esdb_bench:compare(What, #{
        ours => {"append", at_once(Writers, Ours)},
        rival => {"ets:insert", at_once(Writers, Rival)},
        same => fun(_, _) ->
            {ok, Next} = erl_esdb_store:next_position(?MODULE),
            Next =:= atomics:get(Counter, 1)
        end
    }),
    ok.

%% The thirteenth.
-spec position(tuple()) -> non_neg_integer().
position(Event) -> element(13, Event).
