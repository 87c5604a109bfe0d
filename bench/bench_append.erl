-module(bench_append).
-moduledoc """
Appends to the store on disk, 300-byte events, every index on, fsync on, against

- the disk: one thread that writes 300 bytes and calls fdatasync;
- own code that keeps each event with one `khepri:put/3`, on the same settings of Ra;
- a bare Ra machine, `m:esdb_bare_machine`: on what the store stands, without anything of it.

All in turn, in rounds of a second or two, so that whatever else the disk does meets all of them. A
row is the time of one event; how many a second, and how long one append took, stands below. On one
node, and on three nodes of this machine.

A machine that is shared gives other numbers each time: the ratios are what to look at.
""".

-export([run/0, here/3]).

-define(STORE, bench_append).
-define(ROUNDS, 3).
-define(MS, 1500).
-define(KHEPRI_MS, 1000).
-define(COMBINATIONS, [{Writers, Batch} || Writers <- [1, 50], Batch <- [1, 10, 100]]).

-type target() :: {ours | bare | disk | khepri, term()}.

-spec run() -> ok.
run() ->
    case code:which(ra) of
        non_existing -> esdb_bench:note("Ra is not here: the store on disk is not measured", []);
        _ -> with_ra()
    end.

-spec with_ra() -> ok.
with_ra() ->
    Khepri = esdb_durable:khepri(),
    ok = esdb_durable:quiet(),
    esdb_bench:title("Store on disk, append, 300-byte events, one node (one event)"),
    esdb_durable:in_folder(fun(Dir) -> one_node(Dir, Khepri) end),
    esdb_bench:title("Store on disk, append, 300-byte events, three nodes here (one event)"),
    esdb_durable:in_folder(fun three_nodes/1).

-spec one_node(file:filename(), boolean()) -> ok.
one_node(Dir, Khepri) ->
    ok = esdb_durable:start(?STORE, Dir),
    Bare = esdb_bare_machine:start(filename:join(Dir, "bare"), [node()]),
    ok = right(Bare),
    lists:foreach(
        fun({Writers, Batch} = Combination) ->
            Put = [khepri(Dir, Combination) || Khepri],
            Targets = [{ours, ?STORE}, {bare, Bare} | [{disk, Dir} || Combination =:= {1, 1}]],
            Results = here(Writers, Batch, Targets),
            rows(Combination, maps:from_list(Put ++ Results))
        end,
        ?COMBINATIONS
    ),
    ok = esdb_bare_machine:stop([node()]),
    esdb_durable:stop(?STORE).

-spec three_nodes(file:filename()) -> ok.
three_nodes(Dir) ->
    [{First, _} | _] = Peers = esdb_durable:peers(3),
    Nodes = [Node || {_, Node} <- Peers],
    try
        ok = esdb_durable:start_cluster(?STORE, Dir, Peers),
        Bare = peer:call(
            First, esdb_bare_machine, start, [filename:join(Dir, "bare"), Nodes], 60_000
        ),
        ok = peer:call(First, esdb_bare_machine, append, [Bare, esdb_writers:events(1)], 60_000),
        lists:foreach(
            fun({Writers, Batch} = Combination) ->
                Args = [Writers, Batch, [{ours, ?STORE}, {bare, Bare}]],
                rows(Combination, maps:from_list(peer:call(First, ?MODULE, here, Args, 120_000)))
            end,
            ?COMBINATIONS
        )
    after
        lists:foreach(fun({Peer, _}) -> peer:stop(Peer) end, Peers)
    end.

%% Before anything is timed: what was appended is there, and in turn.
-spec right(ra:server_id()) -> ok.
right(Bare) ->
    Events = esdb_writers:events(10),
    Stream = ~"before",
    {ok, 9} = erl_esdb_streams:append(?STORE, Stream, -1, Events),
    {error, _} = erl_esdb_streams:append(?STORE, Stream, -1, Events),
    {ok, Found} = erl_esdb_streams:read(?STORE, Stream, 0, 20, forward),
    Data = [Data || #{data := Data} <- Events],
    Data = [element(6, Event) || Event <- Found],
    esdb_bare_machine:append(Bare, Events).

-doc false.
%% Of each target the round in the middle, on this node.
-spec here(pos_integer(), pos_integer(), [target()]) -> [{atom(), esdb_writers:result()}].
here(Writers, Batch, Targets) ->
    Before = counts(Targets),
    Rounds = [
        {Name, round(Writers, Batch, ?MS, Target)}
     || _ <- lists:seq(1, ?ROUNDS), {Name, _} = Target <- Targets
    ],
    By = maps:groups_from_list(fun({Name, _}) -> Name end, fun({_, R}) -> R end, Rounds),
    ok = complete(Batch, By, Before, counts(Targets)),
    [{Name, esdb_writers:median(Results)} || Name := Results <- By].

-spec counts([target()]) -> #{atom() => non_neg_integer()}.
counts(Targets) -> #{Name => count(Target) || {Name, _} = Target <- Targets}.

-spec count(target()) -> non_neg_integer().
count({ours, Store}) ->
    {ok, Next} = erl_esdb_store:next_position(Store),
    Next;
count({bare, Leader}) ->
    esdb_bare_machine:count(Leader);
count({disk, _}) ->
    0.

%% All that was acknowledged is there, once.
-spec complete(pos_integer(), #{atom() => [esdb_writers:result()]}, Counts, Counts) -> ok when
    Counts :: #{atom() => non_neg_integer()}.
complete(Batch, #{ours := Ours, bare := Bare}, Before, After) ->
    Calls = fun(Results) -> lists:sum([Calls || #{calls := Calls} <- Results]) end,
    true = map_get(ours, After) - map_get(ours, Before) =:= Batch * Calls(Ours),
    true = map_get(bare, After) - map_get(bare, Before) =:= Calls(Bare),
    ok.

-spec round(pos_integer(), pos_integer(), pos_integer(), target()) -> esdb_writers:result().
round(Writers, Batch, Ms, {ours, Store}) ->
    Events = esdb_writers:events(Batch),
    esdb_writers:run(Writers, Ms, fun(Writer) ->
        {ok, _} = erl_esdb_streams:append(Store, stream(Writer), any, Events)
    end);
round(Writers, Batch, Ms, {bare, Leader}) ->
    Events = esdb_writers:events(Batch),
    esdb_writers:run(Writers, Ms, fun(_) -> ok = esdb_bare_machine:append(Leader, Events) end);
round(1, 1, Ms, {disk, Dir}) ->
    {ok, File} = file:open(filename:join(Dir, "sync"), [write, raw, binary]),
    Data = binary:copy(~"d", 300),
    Write = fun() ->
        ok = file:write(File, Data),
        ok = file:datasync(File)
    end,
    try
        %% A raw file belongs to who opened it.
        esdb_writers:timed(Ms, Write)
    after
        ok = file:close(File)
    end;
round(Writers, Batch, Ms, {khepri, Id}) ->
    Events = esdb_writers:events(Batch),
    Versions = counters:new(Writers, []),
    esdb_writers:run(Writers, Ms, fun(Writer) ->
        lists:foreach(fun(Event) -> ok = put(Id, Writer, Versions, Event) end, Events)
    end).

-spec put(atom(), pos_integer(), counters:counters_ref(), map()) -> ok.
put(Id, Writer, Versions, Event) ->
    ok = counters:add(Versions, Writer, 1),
    khepri:put(Id, path(Writer, counters:get(Versions, Writer)), Event).

-spec path(pos_integer(), pos_integer()) -> [binary()].
path(Writer, Version) -> [~"streams", stream(Writer), <<Version:64>>].

-spec stream(pos_integer()) -> binary().
stream(Writer) -> <<"stream-", (integer_to_binary(Writer))/binary>>.

%% A new Khepri each time: it becomes slower with what it has.
-spec khepri(file:filename(), {pos_integer(), pos_integer()}) -> {khepri, esdb_writers:result()}.
khepri(Dir, {Writers, Batch}) ->
    Name = lists:flatten(io_lib:format("khepri-~b-~b", [Writers, Batch])),
    Folder = filename:join(Dir, Name),
    {ok, System} = erl_esdb_ra_systems:acquire(Folder),
    Id = list_to_atom("khepri_" ++ integer_to_list(Writers) ++ "_" ++ integer_to_list(Batch)),
    {ok, Id} = khepri:start(System, Id),
    [Event] = esdb_writers:events(1),
    ok = khepri:put(Id, path(0, 1), Event),
    {ok, Event} = khepri:get(Id, path(0, 1)),
    Result = round(Writers, Batch, ?KHEPRI_MS, {khepri, Id}),
    ok = khepri:stop(Id),
    ok = erl_esdb_ra_systems:release(Folder),
    {khepri, Result}.

%% ---- rows

-spec rows({pos_integer(), pos_integer()}, #{atom() => esdb_writers:result()}) -> ok.
rows({Writers, Batch} = Combination, #{ours := Ours} = Results) ->
    What = lists:flatten(io_lib:format("~b writers, ~b an append", [Writers, Batch])),
    lists:foreach(
        fun(Rival) ->
            is_map_key(Rival, Results) andalso
                esdb_bench:measured(
                    What,
                    {"append", ns(Batch, Ours)},
                    {name(Rival), ns(Batch, map_get(Rival, Results))},
                    goal(Rival, Combination)
                )
        end,
        [bare, khepri, disk]
    ),
    lists:foreach(
        fun(Name) ->
            case Results of
                #{Name := #{rate := Rate, p50 := P50, p99 := P99, max := Max}} ->
                    esdb_bench:note(
                        "~ts, ~ts: ~b events a second; an append ~b us (p50), ~b us (p99), "
                        "~b us (longest)",
                        [What, name(Name), round(Rate * Batch), P50, P99, Max]
                    );
                #{} ->
                    ok
            end
        end,
        [ours, bare, khepri, disk]
    ).

-spec ns(pos_integer(), esdb_writers:result()) -> float().
ns(Batch, #{rate := Rate}) -> 1.0e9 / (Rate * Batch).

-spec name(atom()) -> string().
name(ours) -> "append";
name(bare) -> "bare Ra machine";
name(khepri) -> "khepri:put";
name(disk) -> "fdatasync".

-spec goal(atom(), {pos_integer(), pos_integer()}) -> none | float().
goal(bare, _) -> 0.7;
goal(disk, _) -> 0.75;
goal(khepri, {50, 1}) -> 2.0;
goal(khepri, {50, 10}) -> 7.0;
goal(khepri, {50, 100}) -> 20.0;
goal(khepri, _) -> none.
