-module(esdb_demo_steps).
-moduledoc """
The measured steps of the demo. They run unchanged on a node with the native libraries and on one
without, each on its own store.

```erlang
1> ok = esdb_demo_steps:open(demo), esdb_demo_steps:append(demo, [{~"area-src", [Event]}]).
{ok,1834,[]}
2> #{times := Times} = esdb_demo_steps:measure(demo, 3_000_000), Times.
#{fold => 411230,spread => 3922,keep => 201200,ask => 31021,train => 812345}
```
""".

-include_lib("erl_esdb_gater/include/esdb_gater_types.hrl").

-export([open/1, open/2, reopen/2, close/1, implementation/0]).
-export([append/2, measure/2, measure_briefly/2, unlike/1, fold/3]).
-export_type([measured/0, refused/0, reopened/0]).

-type measured() :: #{
    facts => esdb_demo_facts:facts(),
    digest := binary(),
    partitions := partitions(),
    asked => [esdb_demo_questions:asked()],
    storage := esdb_demo_questions:storage(),
    %% The questions whose answers differ from those of plain Erlang.
    wrong := [atom()],
    archive := [esdb_demo_archive:result()],
    parcel := esdb_demo_archive:parcel(),
    times := #{fold | spread | keep | ask | train => non_neg_integer()}
}.

%% The id of an event that the store does not take, and why.
-type refused() :: {EventId :: binary(), Reason :: term()}.

%% Of a store that was started again.
-type reopened() :: #{
    start_us := non_neg_integer(),
    events := non_neg_integer(),
    bytes := non_neg_integer()
}.

%% One number a partition: streams, events in these streams, and event ids spread on their own.
-type partitions() :: #{
    streams := [non_neg_integer()],
    stream_events := [non_neg_integer()],
    ids := [non_neg_integer()]
}.

-define(PAGE, 1000).
%% What a store answers where it is the store, and not the events, with which something is wrong.
-define(FAILURES, [store_not_started, timeout, no_quorum, overloaded]).
-define(PARTITIONS, 16).
%% Events that a dictionary is trained on, at most, evenly from all.
-define(SAMPLES, 4000).
%% Lines that the other node is given to read.
-define(PARCEL, 200).

-doc "Starts a store in memory.".
-spec open(Store :: atom()) -> ok | {error, term()}.
open(Store) -> open(Store, #{}).

-doc "Starts a store with options.".
-spec open(Store :: atom(), map()) -> ok | {error, term()}.
open(Store, Options) ->
    maybe
        {ok, _} ?= application:ensure_all_started(erl_esdb),
        {ok, _} ?= erl_esdb:start_store(Store, Options),
        ok
    end.

-doc """
Stops a store and starts it again; says how long the latter took, how many events there are, and how
many bytes its files have.
""".
-spec reopen(Store :: atom(), map()) -> {ok, reopened()} | {error, term()}.
reopen(Store, Options) ->
    maybe
        ok ?= close(Store),
        {Micros, ok} ?= timer:tc(fun() -> open(Store, Options) end),
        {ok, #{next_position := Next} = Status} ?= erl_esdb:status(Store),
        Bytes = maps:get(disk_bytes, Status, 0) + maps:get(wal_bytes, Status, 0),
        {ok, #{start_us => Micros, events => Next, bytes => Bytes}}
    else
        {_, {error, Reason}} -> {error, Reason};
        {ok, _} -> {error, no_status};
        {error, Reason} -> {error, Reason}
    end.

-doc "Stops the store and forgets its events.".
-spec close(Store :: atom()) -> ok | {error, term()}.
close(Store) ->
    erl_esdb:stop_store(Store).

-doc "What the libraries that the steps use run on.".
-spec implementation() -> nif | erlang.
implementation() ->
    Modules = [esdb_hash_nif, esdb_archive_nif, esdb_segment_nif, esdb_graph_nif],
    case [M || M <- Modules, M:implementation() =/= nif] of
        [] -> nif;
        _ -> erlang
    end.

-doc """
Appends batches, one a stream; says how many microseconds it took and which events were refused.

## Errors
The store does not run or does not answer.
""".
-spec append(Store :: atom(), [{Stream :: binary(), [map()]}]) ->
    {ok, Micros :: non_neg_integer(), [refused()]} | {error, {Stream :: binary(), term()}}.
append(Store, Batches) ->
    try timer:tc(fun() -> [append_batch(Store, S, Events) || {S, Events} <- Batches] end) of
        {Micros, Refused} -> {ok, Micros, lists:append(Refused)}
    catch
        throw:{?MODULE, Failure} -> {error, Failure}
    end.

%% The store takes a batch as a whole or not at all. Where it refuses one, each half is tried, down
%% to the events that it does not take by themselves.
-spec append_batch(atom(), binary(), [map()]) -> [refused()].
append_batch(Store, Stream, Events) ->
    case erl_esdb_streams:append(Store, Stream, ?ANY_VERSION, Events) of
        {ok, _} -> [];
        {error, Reason} -> refused(is_failure(Reason, Store), Reason, Store, Stream, Events)
    end.

-spec is_failure(term(), atom()) -> boolean().
is_failure({Kind, Store}, Store) -> lists:member(Kind, ?FAILURES);
is_failure(_, _) -> false.

-spec refused(boolean(), term(), atom(), binary(), [map()]) -> [refused()].
refused(true, Reason, _, Stream, _) ->
    throw({?MODULE, {Stream, Reason}});
refused(false, Reason, _, _, [#{event_id := Id}]) ->
    [{Id, Reason}];
refused(false, _, Store, Stream, Events) ->
    {First, Second} = lists:split(length(Events) div 2, Events),
    append_batch(Store, Stream, First) ++ append_batch(Store, Stream, Second).

-doc "All measurements but the append; `Budget` in microseconds is what one codec may take.".
-spec measure(Store :: atom(), Budget :: pos_integer()) -> measured().
measure(Store, Budget) ->
    {FoldUs, Facts} = timer:tc(fun() -> facts(Store) end),
    {SpreadUs, Partitions} = timer:tc(fun() -> partitions(Store, Facts) end),
    {Storage, Asked} = questions(Store),
    Samples = samples(Store, Facts),
    {TrainUs, Trained} = esdb_demo_archive:train(Samples),
    Archive = archive(Store, esdb_demo_archive:new(Trained, Budget)),
    Found = {Facts, Partitions, [maps:with([question, answer], A) || A <- Asked]},
    #{
        facts => Facts,
        digest => crypto:hash(sha256, term_to_binary(Found, [deterministic])),
        partitions => Partitions,
        asked => Asked,
        storage => Storage,
        wrong => [esdb_demo_questions:name(Q) || #{question := Q, same := false} <- Asked],
        archive => esdb_demo_archive:results(Archive),
        parcel => esdb_demo_archive:parcel(lists:sublist(Samples, ?PARCEL), Trained),
        times => #{
            fold => FoldUs,
            spread => SpreadUs,
            keep => maps:get(packed_us, Storage),
            ask => lists:sum([Us || #{packed_us := Us} <- Asked]),
            train => TrainUs
        }
    }.

-doc "The same without facts and answers, which are long: the digest stands for them.".
-spec measure_briefly(Store :: atom(), Budget :: pos_integer()) -> measured().
measure_briefly(Store, Budget) ->
    maps:without([facts, asked], measure(Store, Budget)).

-doc "The codecs of a parcel from another node that do not read here as they should.".
-spec unlike(esdb_demo_archive:parcel()) -> [esdb_demo_archive:codec()].
unlike(Parcel) ->
    esdb_demo_archive:unlike(Parcel).

-spec facts(atom()) -> esdb_demo_facts:facts().
facts(Store) ->
    fold(Store, fun esdb_demo_facts:add/2, esdb_demo_facts:new()).

-spec questions(atom()) -> {esdb_demo_questions:storage(), [esdb_demo_questions:asked()]}.
questions(Store) ->
    Kept = fold_pages(Store, 0, fun esdb_demo_questions:add/2, esdb_demo_questions:new()),
    {esdb_demo_questions:storage(Kept), esdb_demo_questions:ask(Kept)}.

-doc "Folds over all events of the store in the order of their positions, a page at a time.".
-spec fold(Store :: atom(), fun((esdb_demo_event:commit(), Acc) -> Acc), Acc) -> Acc.
fold(Store, Fun, Acc) ->
    fold_pages(Store, 0, fun(Events, In) -> lists:foldl(Fun, In, Events) end, Acc).

-spec fold_pages(atom(), non_neg_integer(), fun(([esdb_demo_event:commit()], Acc) -> Acc), Acc) ->
    Acc.
fold_pages(Store, Position, Fun, Acc) ->
    case erl_esdb_streams:read_log(Store, Position, ?PAGE, forward, #{}) of
        {ok, []} ->
            Acc;
        {ok, Page} ->
            Next = (lists:last(Page))#event.position + 1,
            Acc1 = Fun([esdb_demo_event:from_stored(E) || E <- Page], Acc),
            fold_pages(Store, Next, Fun, Acc1)
    end.

%% Where a store of 16 partitions would put each stream, and each event if events were spread alone.
-spec partitions(atom(), esdb_demo_facts:facts()) -> partitions().
partitions(Store, #{streams := Streams, ids := Ids}) ->
    Name = atom_to_binary(Store),
    Placed = [
        {esdb_hash_nif:stream_partition(Name, Stream, ?PARTITIONS), Events}
     || Stream := Events <- Streams
    ],
    Spread = esdb_hash_nif:partition_hash_batch(Ids, ?PARTITIONS),
    #{
        streams => tally([{P, 1} || {P, _} <- Placed]),
        stream_events => tally(Placed),
        ids => tally([{P, 1} || P <- Spread])
    }.

-spec tally([{non_neg_integer(), non_neg_integer()}]) -> [non_neg_integer()].
tally(Placed) ->
    Empty = #{P => 0 || P <- lists:seq(0, ?PARTITIONS - 1)},
    Counts = lists:foldl(fun({P, N}, In) -> In#{P := map_get(P, In) + N} end, Empty, Placed),
    [N || {_, N} <- lists:sort(maps:to_list(Counts))].

-spec samples(atom(), esdb_demo_facts:facts()) -> [binary()].
samples(Store, #{events := Events}) ->
    Wanted = min(?SAMPLES, Events),
    %% How many samples there are of the first N events; the first event is one.
    Due = fun(N) -> (N * Wanted + Events - 1) div Events end,
    Take = fun(Event, {N, Taken}) ->
        case Due(N + 1) > Due(N) of
            true -> {N + 1, [esdb_demo_event:to_json(Event) | Taken]};
            false -> {N + 1, Taken}
        end
    end,
    {_, Samples} = fold(Store, Take, {0, []}),
    lists:reverse(Samples).

-spec archive(atom(), esdb_demo_archive:archive()) -> esdb_demo_archive:archive().
archive(Store, Empty) ->
    Add = fun(Events, Archive) ->
        esdb_demo_archive:add([esdb_demo_event:to_json(E) || E <- Events], Archive)
    end,
    fold_pages(Store, 0, Add, Empty).
