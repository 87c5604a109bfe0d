-module(erl_esdb_large_SUITE).
-moduledoc """
Stores with many streams, and with a long one: what a call costs does not grow with what is there.
And large payloads: what a byte costs does not grow with how many there are.

Costs are counted in reductions, of the caller and of the processes that work for it, so that no
other load of the machine is taken for a cost. `ESDB_LARGE` says how many events (by default
100,000); what each run has counted, and how long it took, is in its log.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-define(WRITERS, 50).
%% Events of an append.
-define(BATCH, 10).
%% Commands after which a snapshot is taken.
-define(DUE, 20_000).
-define(PAGE, 100).
%% Of each kind of call.
-define(CALLS, 100).
%% Reductions: what 100 ms are on a fast machine, and what each call may take more for once.
-define(PAUSE, 4_000_000).
-define(ONCE, 5_000).
%% Bytes: twice a file of the log, with some room. There are 184 MiB of documents, of events more.
-define(IN_MEMORY, 160 * 1_048_576).

suite() -> [{timetrap, {minutes, 20}}].

all() -> erl_esdb_test:all().

groups() ->
    erl_esdb_test:groups([
        many_streams_of_one_event, one_stream_of_many_events, large_events, large_documents
    ]).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

size() -> list_to_integer(os:getenv("ESDB_LARGE", "100000")).

many_streams_of_one_event(Config) ->
    Stream = fun(N) -> <<"s-", (integer_to_binary(N))/binary>> end,
    Append = fun(Store, Numbers) ->
        {ok, _} = erl_esdb_streams:append_many(
            Store, [{Stream(N), ?ANY_VERSION, [event(N)]} || N <- Numbers], #{}
        )
    end,
    costs_do_not_grow(Stream, Append, Config).

one_stream_of_many_events(Config) ->
    Append = fun(Store, Numbers) ->
        {ok, _} = append(Store, <<"long">>, [event(N) || N <- Numbers])
    end,
    costs_do_not_grow(fun(_) -> <<"long">> end, Append, Config).

append(Store, Stream, Events) -> erl_esdb_streams:append(Store, Stream, ?ANY_VERSION, Events).

%% A tenth of the events, then the others, and what calls cost after each.
costs_do_not_grow(Stream, Append, Config) ->
    Size = size(),
    Few = Size div 10,
    Store = ?MODULE,
    Options = erl_esdb_test:fresh(proplists:get_value(options, Config)),
    {ok, _} = erl_esdb:start_store(Store, Options),
    First = filled(Store, Append, 0, Few),
    Started1 = restarted(Store, Options),
    Costs1 = costs(Store, Stream, Few),
    Second = filled(Store, Append, Few, Size),
    {ok, Status} = erl_esdb:status(Store),
    Started2 = restarted(Store, Options),
    Costs2 = costs(Store, Stream, Size),
    ok = erl_esdb:stop_store(Store),
    ct:pal("~p~n~p", [Status, [First, Started1, Costs1, Second, Started2, Costs2]]),
    [
        ?assert(map_get(Call, Costs2) =< 2 * Cost + ?ONCE, {Call, Cost, map_get(Call, Costs2)})
     || Call := Cost <- Costs1
    ],
    ?assert(map_get(command, Second) =< 2 * map_get(command, First) + ?ONCE),
    %% In proportion, and not more.
    ?assert(map_get(cost, Started2) =< 20 * map_get(cost, Started1) + 1_000_000),
    ?assert(map_get(paused, Second) =< ?PAUSE),
    ?assertEqual(is_on_disk(Options), map_get(snapshots, Second) > 0).

is_on_disk(Options) when is_map(Options) -> is_map_key(data_dir, Options);
is_on_disk(Store) -> element(2, erl_esdb_engine:find(Store)) =:= erl_esdb_engine_ra.

%% ---- large payloads

large_events(Config) ->
    Write = fun(Store, N, Bytes) ->
        Event = #{event_type => <<"Large">>, data => #{bytes => Bytes}},
        {ok, N} = append(Store, <<"large">>, [Event])
    end,
    Read = fun(Store, N) ->
        {ok, [#event{data = #{bytes := Bytes}}]} = erl_esdb_streams:read(
            Store, <<"large">>, N, 1, forward
        ),
        Bytes
    end,
    bytes_cost_the_same([{1, 60}, {15, 4}, {4, 40}], Write, Read, Config).

large_documents(Config) ->
    Write = fun(Store, N, Bytes) ->
        ok = erl_esdb_snapshots:save(Store, <<"large">>, N, #{bytes => Bytes})
    end,
    Read = fun(Store, N) ->
        {ok, #snapshot{data = #{bytes := Bytes}}} = erl_esdb_snapshots:load_at(
            Store, <<"large">>, N
        ),
        Bytes
    end,
    bytes_cost_the_same([{1, 60}, {15, 4}, {8, 8}], Write, Read, Config).

%% So many payloads of so many MiB: a byte of the large ones takes not much more of the processors
%% than one of the small ones. While the last are written somebody looks how long appends wait.
bytes_cost_the_same([{Small, _}, {Large, _}, {Beside, _}] = Sizes, Write, Read, Config) ->
    Store = ?MODULE,
    %% What is read comes from the log.
    Options = (erl_esdb_test:fresh(proplists:get_value(options, Config)))#{read_cache => 1},
    {ok, _} = erl_esdb:start_store(Store, Options),
    Before = erlang:memory(total),
    {Payloads, _} = lists:mapfoldl(
        fun({MiB, Count}, From) ->
            Numbers = lists:seq(From, From + Count - 1),
            {{MiB, Numbers}, From + Count}
        end,
        0,
        Sizes
    ),
    Written = fun(MiB) -> used(MiB, Payloads, fun(N, Bytes) -> Write(Store, N, Bytes) end) end,
    Writes = #{MiB => Written(MiB) || MiB <- [Small, Large]},
    Stop = atomics:new(1, []),
    Orderer = erl_esdb_test:orderer(Store),
    Prober = spawn_monitor(fun() -> exit(probed(Store, Orderer, Stop)) end),
    _ = Written(Beside),
    ok = atomics:put(Stop, 1, 1),
    {Probes, _, Longest, _} = ended(Prober),
    Started = restarted(Store, Options),
    Same = fun(N, Bytes) -> Bytes = Read(Store, N) end,
    Reads = #{MiB => used(MiB, Payloads, Same) || {MiB, _} <- Sizes},
    ct:pal("us of the processors a MiB: written ~0p, read ~0p~n"
           "~p appends beside them, the longest took ~p ms~nstart: ~p", [
        Writes, Reads, Probes, Longest div 1000, Started
    ]),
    %% Where the cost were quadratic it would be fifteen times as much.
    [
        ?assert(map_get(Large, Of) < 7 * map_get(Small, Of) + 2000, {What, Of})
     || {What, Of} <- [{written, Writes}, {read, Reads}]
    ],
    is_on_disk(Options) andalso comes_back(Before),
    ok = erl_esdb:stop_store(Store).

%% The same for a number each time.
payload(N, MiB) -> binary:copy(erlang:md5(<<N:32>>), MiB * 65_536).

%% Microseconds of all threads of this node, a MiB.
used(MiB, Payloads, Do) ->
    {MiB, Numbers} = lists:keyfind(MiB, 1, Payloads),
    _ = statistics(runtime),
    ok = lists:foreach(fun(N) -> Do(N, payload(N, MiB)) end, Numbers),
    {_, Used} = statistics(runtime),
    Used * 1000 div (MiB * length(Numbers)).

%% What is written is not kept in memory, but for what stands in the log.
comes_back(Before) ->
    erl_esdb_test:await(
        fun() ->
            _ = [garbage_collect(Pid) || Pid <- processes()],
            erlang:memory(total) - Before < ?IN_MEMORY
        end,
        60_000
    ).

%% ---- writing

%% Writers with a share each, and then others whose commands make a snapshot due; beside them one
%% who looks how long it waits.
filled(Store, Append, From, To) ->
    Orderer = erl_esdb_test:orderer(Store),
    Next = atomics:new(1, []),
    ok = atomics:put(Next, 1, From),
    Stop = atomics:new(1, []),
    Prober = spawn_monitor(fun() -> exit(probed(Store, Orderer, Stop)) end),
    Before = reductions([Orderer]),
    Began = erlang:monotonic_time(millisecond),
    Writer = fun() -> written(Store, Append, Next, To) end,
    _ = erl_esdb_test:concurrently(lists:duplicate(?WRITERS, Writer)),
    Took = erlang:monotonic_time(millisecond) - Began,
    Cost = reductions([Orderer]) - Before,
    %% What is due then is written while the prober goes on.
    Newest = snapshot(Store),
    Save = fun() -> saved(Store, ?DUE div ?WRITERS) end,
    _ = erl_esdb_test:concurrently(lists:duplicate(?WRITERS, Save)),
    ok = await_snapshot(Store, Newest),
    ok = atomics:put(Stop, 1, 1),
    {Probes, Paused, Longest, Indexes} = ended(Prober),
    #{
        events => To - From,
        ms => Took,
        probes => Probes,
        paused => Paused,
        longest_ms => Longest div 1000,
        snapshots => length(lists:usort(Indexes)) - 1,
        command => Cost div ((To - From) div ?BATCH)
    }.

await_snapshot(_Store, none) -> ok;
await_snapshot(Store, Newest) ->
    erl_esdb_test:await(fun() -> snapshot(Store) > Newest end, 120_000).

written(Store, Append, Next, To) ->
    case atomics:add_get(Next, 1, ?BATCH) of
        End when End > To ->
            done;
        End ->
            _ = Append(Store, lists:seq(End - ?BATCH + 1, End)),
            written(Store, Append, Next, To)
    end.

%% One is due after so many commands, or a tenth of what is kept.
saved(Store, Commands) ->
    Save = fun(N) -> ok = erl_esdb_store:save_checkpoints(Store, #{{a, place} => N}) end,
    lists:foreach(Save, lists:seq(1, Commands)).

event(N) -> #{event_type => <<"Counted">>, data => #{n => N, text => binary:copy(<<"x">>, 200)}}.

%% Appends to a stream of its own: the most reductions of the orderer and the most microseconds
%% that one took, and which snapshots there were.
probed(Store, Orderer, Stop) -> probed(Store, Orderer, Stop, {0, 0, 0, [snapshot(Store)]}).

probed(Store, Orderer, Stop, {Probes, Paused, Longest, Indexes}) ->
    Before = reductions([Orderer]),
    {Time, {ok, _}} = timer:tc(fun() -> append(Store, <<"probe">>, [event(Probes)]) end),
    Cost = reductions([Orderer]) - Before,
    Seen = {
        Probes + 1, max(Paused, Cost), max(Longest, Time), lists:usort([snapshot(Store) | Indexes])
    },
    case atomics:get(Stop, 1) of
        0 -> probed(Store, Orderer, Stop, Seen);
        _ -> Seen
    end.

%% The index of the newest one.
snapshot(Store) ->
    case is_on_disk(Store) of
        true -> maps:get(snapshot_index, ra:key_metrics(server(Store)));
        false -> none
    end.

server(Store) -> erl_esdb_test:server(Store).

ended({_, Ref}) ->
    receive
        {'DOWN', Ref, process, _, Seen} -> Seen
    end.

%% ---- the costs

%% Of a start, where it has something to begin with.
restarted(Store, #{data_dir := _} = Options) ->
    ok = erl_esdb:stop_store(Store),
    {Time, {ok, _}} = timer:tc(fun() -> erl_esdb:start_store(Store, Options) end),
    #{cost => reductions([erl_esdb_test:orderer(Store)]), ms => Time div 1000};
restarted(_Store, #{}) ->
    #{cost => 0, ms => 0}.

%% Of calls at both ends, of whoever works for them. Afterwards the store is as it was but for the
%% stream that is appended to.
costs(Store, Stream, Size) ->
    %% What reads for the index after a start reads for others, too: it is done when it is asked.
    {ok, []} = erl_esdb_streams:read_by_event_types(Store, [<<"Nothing">>], 1),
    Read = fun(Name, Direction) ->
        From = case Direction of forward -> 0; backward -> last end,
        {ok, [_ | _]} = erl_esdb_streams:read(Store, Name, From, ?PAGE, Direction)
    end,
    Log = fun(From, Direction) ->
        {ok, [_ | _]} = erl_esdb_streams:read_log(Store, From, ?PAGE, Direction, #{})
    end,
    Append = fun(Name) -> {ok, _} = append(Store, Name, [event(0)]) end,
    #{
        append_to_a_new_stream => cost(Store, fun(N) ->
            Append(<<"new-", (integer_to_binary(Size + N))/binary>>)
        end),
        append_to_the_first_stream => cost(Store, fun(_) -> Append(Stream(1)) end),
        read_the_oldest => cost(Store, fun(_) -> Read(Stream(1), forward) end),
        read_the_newest => cost(Store, fun(_) -> Read(Stream(Size), backward) end),
        read_the_log_from_the_begin => cost(Store, fun(_) -> Log(0, forward) end),
        read_the_log_from_the_end => cost(Store, fun(_) -> Log(last, backward) end),
        read_the_log_in_the_middle => cost(Store, fun(_) -> Log(Size div 2, forward) end),
        version => cost(Store, fun(_) -> erl_esdb_streams:get_version(Store, Stream(Size)) end)
    }.

%% The median: what else these processes do in between counts for nothing.
cost(Store, Call) ->
    Working = [self(), erl_esdb_test:orderer(Store) | linked(erl_esdb_test:engine(Store))],
    Costs = [counted(Working, fun() -> Call(N) end) || N <- lists:seq(1, ?CALLS)],
    lists:nth(?CALLS div 2, lists:sort(Costs)).

counted(Working, Call) ->
    Before = reductions(Working),
    _ = Call(),
    reductions(Working) - Before.

linked(Engine) ->
    {links, Links} = process_info(Engine, links),
    [Engine | [Pid || Pid <- Links, is_pid(Pid)]].

reductions(Pids) ->
    lists:sum([R || Pid <- Pids, {reductions, R} <- [process_info(Pid, reductions)]]).
