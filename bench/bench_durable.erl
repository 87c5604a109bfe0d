-module(bench_durable).
-moduledoc """
The store on disk by what is in it: reading, catching up, and what grows with the number of events.

Reads are measured against `binary_to_term/1` of events that are in memory already, the least that a
reader does. Cold is after a restart of the store, with the files out of the memory of the operating
system. The derived indexes, which are made anew after a start and read all of the log for that, are
off, except in a row of their own.

`SIZE` says how large the largest store is (100,000; 1,000,000 for a record).
""".

-export([run/0]).

-define(STORE, bench_durable).
-define(PAGE, 1000).
-define(STREAM, 10_000).
-define(WRITERS, 50).
-define(NO_INDEXES, #{indexes => []}).
%% Milliseconds at the end of each decade in which appends are measured, and for two snapshots.
-define(MS, 2000).
-define(PAUSE_MS, 60_000).

-spec run() -> ok.
run() ->
    case code:which(ra) of
        non_existing -> esdb_bench:note("Ra is not here: the store on disk is not measured", []);
        _ -> with_ra()
    end.

-spec with_ra() -> ok.
with_ra() ->
    ok = esdb_durable:quiet(),
    Events = events(),
    esdb_bench:title("Store on disk, read (one event)"),
    esdb_durable:in_folder(fun read/1),
    esdb_bench:title("Store on disk, by size: 50 writers, one event an append (one event)"),
    esdb_durable:in_folder(fun(Dir) -> grown(Dir, Events) end),
    esdb_bench:title("Store on disk, while a snapshot is taken: one event an append (longest)"),
    esdb_durable:in_folder(fun(Dir) -> pause(Dir, Events) end).

-spec events() -> pos_integer().
events() ->
    Default =
        case os:getenv("RECORD", "") of
            "" -> "100000";
            _ -> "1000000"
        end,
    list_to_integer(os:getenv("SIZE", Default)).

%% ---- reading

%% One stream of single appends among those of nine other writers, and as much again in large ones.
-spec read(file:filename()) -> ok.
read(Dir) ->
    ok = esdb_durable:start(?STORE, Dir, ?NO_INDEXES),
    Others = [spawn_monitor(fun() -> others(N) end) || N <- lists:seq(1, 9)],
    [Event] = esdb_writers:events(1),
    lists:foreach(
        fun(N) -> {ok, N} = erl_esdb_streams:append(?STORE, ~"one", N - 1, [Event]) end,
        lists:seq(0, ?STREAM - 1)
    ),
    lists:foreach(fun ended/1, Others),
    Batch = esdb_writers:events(100),
    lists:foreach(
        fun(_) -> {ok, _} = erl_esdb_streams:append(?STORE, ~"many", any, Batch) end,
        lists:seq(1, 500)
    ),
    {ok, Next} = erl_esdb_store:next_position(?STORE),
    %% With this start the write-ahead log becomes segments.
    ok = restarted(Dir, ?NO_INDEXES),
    ok = restarted(Dir, ?NO_INDEXES),
    {ColdNs, ?STREAM} = per_event(fun stream/0),
    {WarmNs, ?STREAM} = best(fun stream/0),
    ok = restarted(Dir, #{}),
    {BusyNs, ?STREAM} = per_event(fun stream/0),
    ok = indexed(Next),
    ok = restarted(Dir, ?NO_INDEXES),
    {ColdAllNs, Next} = per_event(fun log/0),
    {WarmAllNs, Next} = best(fun log/0),
    {DecodeNs, Next} = best(fun() -> decoded(Next, term_to_binary(Event)) end),
    Row = fun(What, Ns, Wanted) ->
        %% The goal is a rate: the ratio that it is here.
        Goal = DecodeNs * Wanted / 1.0e9,
        esdb_bench:measured(What, {"read", Ns}, {"binary_to_term", DecodeNs}, Goal),
        esdb_bench:note("~ts: ~b events a second; wanted are ~b", [What, rate(Ns), Wanted])
    end,
    Row("a stream of 10,000 appends, cold", ColdNs, 50_000),
    Row("a stream of 10,000 appends, warm", WarmNs, 200_000),
    esdb_bench:note("a stream of 10,000 appends, cold, while the indexes are made: ~b a second", [
        rate(BusyNs)
    ]),
    Row("$all in pages of 1,000, cold", ColdAllNs, 400_000),
    Row("$all in pages of 1,000, again", WarmAllNs, 400_000),
    esdb_durable:stop(?STORE).

-spec others(pos_integer()) -> ok.
others(N) ->
    Stream = <<"other-", (integer_to_binary(N))/binary>>,
    [Event] = esdb_writers:events(1),
    lists:foreach(
        fun(_) -> {ok, _} = erl_esdb_streams:append(?STORE, Stream, any, [Event]) end,
        lists:seq(1, ?STREAM div 2)
    ).

-spec ended({pid(), reference()}) -> ok.
ended({Pid, Ref}) ->
    receive
        {'DOWN', Ref, process, Pid, normal} -> ok;
        {'DOWN', Ref, process, Pid, Reason} -> error(Reason)
    end.

-spec restarted(file:filename(), map()) -> ok.
restarted(Dir, Options) ->
    ok = esdb_durable:stop(?STORE),
    ok = esdb_durable:forgotten(Dir),
    esdb_durable:start(?STORE, Dir, Options).

%% Nanoseconds of one of so many events as the fun says, in a process of its own.
-spec per_event(fun(() -> pos_integer())) -> {float(), pos_integer()}.
per_event(Fun) ->
    {Pid, Ref} = spawn_monitor(fun() ->
        Begin = erlang:monotonic_time(nanosecond),
        Count = Fun(),
        exit({took, (erlang:monotonic_time(nanosecond) - Begin) / Count, Count})
    end),
    receive
        {'DOWN', Ref, process, Pid, {took, Ns, Count}} -> {Ns, Count};
        {'DOWN', Ref, process, Pid, Reason} -> error(Reason)
    end.

%% What is warm by now: the second in the middle of three.
-spec best(fun(() -> pos_integer())) -> {float(), pos_integer()}.
best(Fun) -> lists:nth(2, lists:sort([per_event(Fun) || _ <- lists:seq(1, 3)])).

-spec stream() -> pos_integer().
stream() -> stream(0).

-spec stream(non_neg_integer()) -> pos_integer().
stream(From) ->
    {ok, Events} = erl_esdb_streams:read(?STORE, ~"one", From, ?PAGE, forward),
    Versions = lists:seq(From, From + length(Events) - 1),
    Versions = [element(5, Event) || Event <- Events],
    case length(Events) of
        ?PAGE -> stream(From + ?PAGE);
        Last -> From + Last
    end.

-spec log() -> pos_integer().
log() -> log(0).

-spec log(non_neg_integer()) -> pos_integer().
log(From) ->
    {ok, Events} = erl_esdb_streams:read_log(?STORE, From, ?PAGE, forward, #{}),
    case length(Events) of
        ?PAGE -> log(From + ?PAGE);
        Last -> From + Last
    end.

-spec decoded(pos_integer(), binary()) -> pos_integer().
decoded(Count, Event) ->
    lists:foreach(fun(_) -> #{} = binary_to_term(Event) end, lists:seq(1, Count)),
    Count.

-spec rate(float()) -> non_neg_integer().
rate(Ns) -> round(1.0e9 / Ns).

%% ---- as it grows

%% The store is filled by fifty writers, who are measured each time that it has ten times as much.
-spec grown(file:filename(), pos_integer()) -> ok.
grown(Dir, Events) ->
    ok = esdb_durable:start(?STORE, Dir),
    ok = ram_free(),
    Sizes = [Size || Size <- [10_000, 100_000, 1_000_000, 10_000_000], Size =< Events],
    _ = lists:foldl(fun grown_to/2, none, Sizes),
    {ok, Next} = erl_esdb_store:next_position(?STORE),
    ok = indexed(Next),
    ok = weights(Dir, Next),
    ok = esdb_durable:stop(?STORE),
    {Us, ok} = timer:tc(fun() -> esdb_durable:start(?STORE, Dir) end),
    {ok, Next} = erl_esdb_store:next_position(?STORE),
    {IndexUs, ok} = timer:tc(fun() -> indexed(Next) end),
    esdb_bench:note(
        "~b events: restart ~.2f s (wanted: under 2 s), its indexes ~.2f s later",
        [Next, Us / 1.0e6, IndexUs / 1.0e6]
    ),
    ok = restarted(Dir, ?NO_INDEXES),
    {ColdNs, Read} = per_event(fun() -> lists:sum([scattered(N) || N <- lists:seq(1, 20)]) end),
    esdb_bench:note(
        "~b events in a thousand streams: 20 streams, ~b events, read whole and cold: "
        "~b events a second",
        [Next, Read, rate(ColdNs)]
    ),
    esdb_durable:stop(?STORE).

%% One stream of a thousand: about every thousandth event is one of its.
-spec scattered(pos_integer()) -> pos_integer().
scattered(N) ->
    Stream = <<"stream-", (integer_to_binary(N))/binary>>,
    {ok, [_ | _] = Events} = erl_esdb_streams:read(?STORE, Stream, 0, infinity, forward),
    length(Events).

-spec grown_to(pos_integer(), none | float()) -> float().
grown_to(Size, First) ->
    ok = filled(Size),
    #{rate := Rate, p50 := P50, p99 := P99} = esdb_writers:run(?WRITERS, ?MS, fun(_) -> one() end),
    Ns = 1.0e9 / Rate,
    Rival =
        case First of
            none -> Ns;
            _ -> First
        end,
    What = lists:flatten(io_lib:format("~b events", [Size])),
    _ = esdb_bench:measured(What, {"append", Ns}, {"with 10,000", Rival}, none),
    esdb_bench:note("~ts: ~b events a second; an append ~b us (p50), ~b us (p99)", [
        What, round(Rate), P50, P99
    ]),
    Rival.

-spec filled(pos_integer()) -> ok.
filled(Size) ->
    {ok, Next} = erl_esdb_store:next_position(?STORE),
    Each = max(0, Size - Next) div ?WRITERS,
    Fill = fun() -> lists:foreach(fun(_) -> one() end, lists:seq(1, Each)) end,
    lists:foreach(fun ended/1, [spawn_monitor(Fill) || _ <- lists:seq(1, ?WRITERS)]).

%% An append to one of a thousand streams.
-spec one() -> {ok, non_neg_integer()}.
one() ->
    N = rand:uniform(1000),
    Stream = <<"stream-", (integer_to_binary(N))/binary>>,
    {ok, _} = erl_esdb_streams:append(?STORE, Stream, any, [esdb_writers:event(N)]).

%% Waits for an answer that needs all of the index.
-spec indexed(non_neg_integer()) -> ok.
indexed(Next) ->
    {ok, []} = erl_esdb_index:events(?STORE, type, ~"NoSuchType", #{timeout => infinity}),
    {ok, #{next := Reached}} = erl_esdb_index:info(?STORE),
    true = Reached >= Next,
    ok.

-spec ram_free() -> ok.
ram_free() ->
    lists:foreach(fun erlang:garbage_collect/1, processes()).

-spec weights(file:filename(), pos_integer()) -> ok.
weights(Dir, Next) ->
    ok = ram_free(),
    {ok, Replica} = erl_esdb_ra_replica:find(?STORE),
    Tables = erl_esdb_tables:bytes(erl_esdb_ra_replica:tables(Replica)),
    %% What the tables do not count: binaries of more than 64 bytes, which the chunks are.
    Chunks = chunk_bytes(),
    {ok, #{bytes := Index}} = erl_esdb_index:info(?STORE),
    [Event] = esdb_writers:events(1),
    Payload = Next * byte_size(term_to_binary(Event)),
    %% What is in the write-ahead log is not in a segment yet, or soon only there.
    Log = lists:sum([filelib:file_size(File) || File <- filelib:wildcard(Dir ++ "/*/*.wal")]),
    Disk = esdb_durable:bytes(Dir) - Log,
    esdb_bench:note(
        "~b events, one an append: tables ~.1f bytes an append (wanted: at most 20), "
        "indexes ~.1f an event; together ~.1f (wanted: at most 100)",
        [Next, (Tables + Chunks) / Next, Index / Next, (Tables + Chunks + Index) / Next]
    ),
    esdb_bench:note(
        "~b events: ~.2f bytes on disk for one of payload (wanted: at most 1.6), and ~.2f in the "
        "write-ahead log",
        [Next, Disk / Payload, Log / Payload]
    ).

-spec chunk_bytes() -> non_neg_integer().
chunk_bytes() ->
    {Server, _} = esdb_durable:server(?STORE),
    Owned = [Table || Table <- ets:all(), ets:info(Table, owner) =:= whereis(Server)],
    Large = fun
        ({{No, Number}, Chunk}, Sum) when is_integer(No), is_integer(Number), is_binary(Chunk) ->
            Sum + byte_size(Chunk);
        (_, Sum) ->
            Sum
    end,
    lists:sum([ets:foldl(Large, 0, T) || T <- Owned, ets:info(T, protection) =:= protected]).

%% ---- while a snapshot is taken

%% As many streams as there are events. One process goes on appending to a stream of its own, others
%% bring the snapshots about.
-spec pause(file:filename(), pos_integer()) -> ok.
pause(Dir, Streams) ->
    ok = esdb_durable:start(?STORE, Dir),
    [Event] = esdb_writers:events(1),
    lists:foreach(
        fun(From) ->
            Parts = [{<<N:64>>, -1, [Event]} || N <- lists:seq(From, From + 99)],
            {ok, _} = erl_esdb_streams:append_many(?STORE, Parts, #{})
        end,
        lists:seq(1, Streams, 100)
    ),
    Stop = atomics:new(1, []),
    Writers = [spawn_monitor(fun() -> writes(Stop, Event) end) || _ <- lists:seq(1, 10)],
    Until = erlang:monotonic_time(millisecond) + ?PAUSE_MS,
    First = snapshot(),
    Quiet = longest(First, Until, 0),
    During = longest(snapshot(), Until, 0),
    ok = atomics:put(Stop, 1, 1),
    lists:foreach(fun ended/1, Writers),
    _ = esdb_bench:measured(
        "until the next snapshot is there",
        {"append", During * 1.0e3},
        {"until the one before", Quiet * 1.0e3},
        %% 100 ms
        Quiet / 100_000
    ),
    esdb_bench:note(
        "~b streams: the longest append until a snapshot was there ~.1f ms, until the next one "
        "~.1f ms (wanted: under 100 ms)",
        [Streams, Quiet / 1000, During / 1000]
    ),
    esdb_durable:stop(?STORE).

-spec writes(atomics:atomics_ref(), map()) -> ok.
writes(Stop, Event) ->
    case atomics:get(Stop, 1) of
        0 ->
            {ok, _} = erl_esdb_streams:append(?STORE, term_to_binary(self()), any, [Event]),
            writes(Stop, Event);
        1 ->
            ok
    end.

-spec snapshot() -> non_neg_integer().
snapshot() -> maps:get(snapshot_index, ra:key_metrics(esdb_durable:server(?STORE))).

%% Microseconds of the longest append until there is another snapshot than this one.
-spec longest(non_neg_integer(), integer(), non_neg_integer()) -> non_neg_integer().
longest(Snapshot, Until, Longest) ->
    {Us, {ok, _}} = timer:tc(fun() ->
        erl_esdb_streams:append(?STORE, ~"watched", any, esdb_writers:events(1))
    end),
    case erlang:monotonic_time(millisecond) > Until orelse snapshot() =/= Snapshot of
        true -> max(Us, Longest);
        false -> longest(Snapshot, Until, max(Us, Longest))
    end.
