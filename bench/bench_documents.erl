-module(bench_documents).
-moduledoc """
Snapshots in stores that have 1e3 to 1e5 of them, two of each stream, against an ordered ETS table
of the same terms by the same keys.
""".

-export([run/0]).

-define(SIZES, [1_000, 10_000, 100_000]).

-spec run() -> ok.
run() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    lists:foreach(fun sized/1, ?SIZES).

-spec sized(pos_integer()) -> ok.
sized(Size) ->
    esdb_bench:title(lists:flatten(io_lib:format("Snapshots in memory, ~b of them", [Size]))),
    {ok, _} = erl_esdb:start_store(?MODULE),
    Table = ets:new(?MODULE, [ordered_set, public]),
    Streams = Size div 2,
    [keep(Table, stream(N), V) || N <- lists:seq(1, Streams), V <- [9, 99]],
    Stream = stream(Streams div 2),
    questions(Table, Stream),
    true = ets:delete(Table),
    ok = erl_esdb:stop_store(?MODULE).

-spec stream(pos_integer()) -> binary().
stream(N) -> <<"stream-", (integer_to_binary(N))/binary>>.

-spec state() -> map().
state() -> #{total => 42, lines => lists:seq(1, 20), note => binary:copy(<<"n">>, 200)}.

-spec keep(ets:table(), binary(), non_neg_integer()) -> true.
keep(Table, Stream, Version) ->
    ok = erl_esdb_snapshots:save(?MODULE, Stream, Version, state()),
    ets:insert(Table, {{Stream, Version}, state()}).

-spec questions(ets:table(), binary()) -> ok.
questions(Table, Stream) ->
    State = state(),
    _ = esdb_bench:compare("save", #{
        ours => {"save/4", fun() -> erl_esdb_snapshots:save(?MODULE, Stream, 99, State) end},
        rival => {"ets:insert", fun() -> ets:insert(Table, {{Stream, 99}, State}) end},
        same => fun(ok, true) -> true end
    }),
    _ = esdb_bench:compare("load the newest of a stream", #{
        ours => {"load/2", fun() ->
            {ok, S} = erl_esdb_snapshots:load(?MODULE, Stream),
            data(S)
        end},
        rival => {"ets:prev, ets:lookup", fun() ->
            ets:lookup_element(Table, ets:prev(Table, {Stream, newest}), 2)
        end}
    }),
    _ = esdb_bench:compare("load one by its version", #{
        ours => {"load_at/3", fun() ->
            {ok, S} = erl_esdb_snapshots:load_at(?MODULE, Stream, 9),
            data(S)
        end},
        rival => {"ets:lookup", fun() -> ets:lookup_element(Table, {Stream, 9}, 2) end}
    }),
    ok.

%% Of a #snapshot{}: benchmarks are compiled without the applications' headers.
-spec data(tuple()) -> term().
data(Snapshot) -> element(4, Snapshot).
