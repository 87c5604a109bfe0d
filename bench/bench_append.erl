-module(bench_append).
-moduledoc """
Appends to the store on disk, 300-byte events, every index on, fsync on, against

- the disk: one thread that writes 300 bytes and calls fdatasync;
- own code that keeps each event with one `khepri:put/3`, on the same settings of Ra;
- a bare Ra machine, `m:esdb_bare_machine`: on what the store stands, without anything of it.

All in turn, in rounds of a second and a half, so that whatever else the disk does meets all of
them. Khepri becomes slower with what it has, so each of its rounds is in a store of its own; what
that means stands in rows of their own. A row is the time of one event; how many a second, and how
long one append took, stands below. On one node, and on three nodes of this machine; there the goal
is what a prototype reached on such a machine, before this store was built.

A machine that is shared gives other numbers each time: the ratios are what to look at.
""".

-export([run/0, here/3, khepri_begun/3]).

-define(STORE, bench_append).
-define(ROUNDS, 3).
-define(MS, 1500).
-define(COMBINATIONS, [{Writers, Batch} || Writers <- [1, 50], Batch <- [1, 10, 100]]).
%% Events that are there already, and milliseconds after which it is gone on with fewer.
-define(SIZES, [1_000, 10_000, 50_000]).
-define(FILLERS, 50).
-define(FILL_MS, 60_000).

-type target() :: {ours | bare | disk | khepri, term()}.
-type khepri() :: {Id :: atom(), Versions :: counters:counters_ref()}.

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
    ok = with_events(Khepri),
    esdb_bench:title("Store on disk, append, 300-byte events, three nodes here (one event)"),
    esdb_durable:in_folder(fun(Dir) -> three_nodes(Dir, Khepri) end).

-spec one_node(file:filename(), boolean()) -> ok.
one_node(Dir, Khepri) ->
    ok = esdb_durable:start(?STORE, Dir),
    Bare = esdb_bare_machine:start(filename:join(Dir, "bare"), [node()]),
    ok = right(Bare),
    lists:foreach(
        fun({Writers, Batch} = Combination) ->
            Disk = [{disk, Dir} || Combination =:= {1, 1}],
            Rivals = Disk ++ [{khepri, {Dir, [node()]}} || Khepri],
            Results = here(Writers, Batch, [{ours, ?STORE}, {bare, Bare} | Rivals]),
            rows(Combination, goals(), maps:from_list(Results))
        end,
        ?COMBINATIONS
    ),
    ok = rounds(),
    ok = esdb_bare_machine:stop([node()]),
    esdb_durable:stop(?STORE).

%% What an event costs where others are there already, in turn with Khepri.
-spec with_events(boolean()) -> ok.
with_events(false) ->
    ok;
with_events(true) ->
    esdb_bench:title("Store on disk, beside Khepri, by size: 50 writers, 1 an append (one event)"),
    esdb_durable:in_folder(fun(Dir) ->
        ok = esdb_durable:start(?STORE, Dir),
        with_khepri({Dir, [node()]}, ?FILLERS, fun(Khepri) ->
            lists:foreach(fun(Size) -> with_events(Size, Khepri) end, ?SIZES)
        end),
        esdb_durable:stop(?STORE)
    end).

-spec with_events(pos_integer(), khepri()) -> ok.
with_events(Size, Khepri) ->
    [Event] = esdb_writers:events(1),
    Append = fun(Writer) ->
        {ok, _} = erl_esdb_streams:append(?STORE, stream(Writer), any, [Event])
    end,
    Put = fun(Writer) -> ok = put(Khepri, Writer, Event) end,
    Has = fun() -> count({ours, ?STORE}) end,
    HasKhepri = fun() -> puts(Khepri) end,
    Before = filled(Size, Has(), Append),
    BeforeKhepri = filled(Size, HasKhepri(), Put),
    Ours = esdb_writers:run(?FILLERS, ?MS, Append),
    Theirs = esdb_writers:run(?FILLERS, ?MS, Put),
    What = lists:flatten(io_lib:format("after ~b and ~b events", [Before, BeforeKhepri])),
    _ = esdb_bench:measured(What, {"append", ns(1, Ours)}, {name(khepri), ns(1, Theirs)}, none),
    notes(What, 1, #{ours => Ours, khepri => Theirs}).

%% How many there are then.
-spec filled(pos_integer(), non_neg_integer(), fun((pos_integer()) -> term())) -> pos_integer().
filled(Size, Before, Fun) ->
    Before + esdb_writers:fill(?FILLERS, max(0, Size - Before), ?FILL_MS, Fun).

-spec rounds() -> ok.
rounds() ->
    esdb_bench:note(
        "each is the middle of ~b rounds of ~.1f s, in turn; khepri:put begins anew in each round",
        [?ROUNDS, ?MS / 1000]
    ).

-spec three_nodes(file:filename(), boolean()) -> ok.
three_nodes(Dir, Khepri) ->
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
                Rivals = [{bare, Bare} | [{khepri, {Dir, Nodes}} || Khepri]],
                Args = [Writers, Batch, [{ours, ?STORE} | Rivals]],
                Results = maps:from_list(peer:call(First, ?MODULE, here, Args, 300_000)),
                rows(Combination, goals_of_three(), Results),
                prototype(Combination, Results)
            end,
            ?COMBINATIONS
        ),
        rounds()
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
count({_, _}) ->
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
round(Writers, Batch, Ms, {khepri, Where}) ->
    Events = esdb_writers:events(Batch),
    with_khepri(Where, Writers, fun(Khepri) ->
        esdb_writers:run(Writers, Ms, fun(Writer) ->
            lists:foreach(fun(Event) -> ok = put(Khepri, Writer, Event) end, Events)
        end)
    end).

-spec put(khepri(), pos_integer(), map()) -> ok.
put({Id, Versions}, Writer, Event) ->
    ok = counters:add(Versions, Writer, 1),
    khepri:put(Id, path(Writer, counters:get(Versions, Writer)), Event).

-spec puts(khepri()) -> non_neg_integer().
puts({_, Versions}) ->
    #{size := Writers} = counters:info(Versions),
    lists:sum([counters:get(Versions, Writer) || Writer <- lists:seq(1, Writers)]).

-spec path(pos_integer(), pos_integer()) -> [binary()].
path(Writer, Version) -> [~"streams", stream(Writer), <<Version:64>>].

-spec stream(pos_integer()) -> binary().
stream(Writer) -> <<"stream-", (integer_to_binary(Writer))/binary>>.

%% A new Khepri on these nodes, of which this is the first, for as long as the fun runs.
-spec with_khepri({file:filename(), [node()]}, pos_integer(), fun((khepri()) -> Result)) -> Result.
with_khepri({Dir, [Here | Others]}, Writers, Fun) ->
    Id = list_to_atom("khepri_" ++ integer_to_list(erlang:unique_integer([positive]))),
    Keepers = [khepri_on(Node, Dir, Id) || Node <- [Here | Others]],
    %% Who joins gives up what it has: so the others join this one.
    [ok = erpc:call(Node, khepri_cluster, join, [Id, Here]) || Node <- Others],
    {ok, Members} = khepri_cluster:members(Id),
    true = length(Members) =:= length(Keepers),
    [Event] = esdb_writers:events(1),
    ok = khepri:put(Id, path(0, 1), Event),
    {ok, Event} = khepri:get(Id, path(0, 1)),
    Result = Fun({Id, counters:new(Writers, [])}),
    lists:foreach(fun khepri_stopped/1, Keepers),
    Result.

%% A Ra system belongs to a process: on each node one that lives as long as it is needed.
-spec khepri_on(node(), file:filename(), atom()) -> pid().
khepri_on(Node, Dir, Id) ->
    Keeper = spawn_link(Node, ?MODULE, khepri_begun, [self(), filename:join([Dir, Node, Id]), Id]),
    receive
        {Keeper, begun} -> Keeper
    end.

-doc false.
-spec khepri_begun(pid(), file:filename(), atom()) -> ok.
khepri_begun(For, Folder, Id) ->
    {ok, _} = application:ensure_all_started(khepri),
    {ok, System} = erl_esdb_ra_systems:acquire(Folder),
    {ok, Id} = khepri:start(System, Id),
    For ! {self(), begun},
    receive
        {For, stop} -> ok
    end,
    ok = khepri:stop(Id),
    ok = erl_esdb_ra_systems:release(Folder),
    true = unlink(For),
    For ! {self(), stopped},
    ok.

-spec khepri_stopped(pid()) -> ok.
khepri_stopped(Keeper) ->
    Keeper ! {self(), stop},
    receive
        {Keeper, stopped} -> ok
    end.

%% ---- rows

-type goals() :: #{{Rival :: atom(), combination()} => float()}.
-type combination() :: {Writers :: pos_integer(), Batch :: pos_integer()}.

-spec rows(combination(), goals(), #{atom() => esdb_writers:result()}) -> ok.
rows({_, Batch} = Combination, Goals, #{ours := Ours} = Results) ->
    What = what(Combination),
    lists:foreach(
        fun(Rival) ->
            is_map_key(Rival, Results) andalso
                esdb_bench:measured(
                    What,
                    {"append", ns(Batch, Ours)},
                    {name(Rival), ns(Batch, map_get(Rival, Results))},
                    maps:get({Rival, Combination}, Goals, none)
                )
        end,
        [bare, khepri, disk]
    ),
    notes(What, Batch, Results).

-spec what(combination()) -> string().
what({Writers, Batch}) ->
    lists:flatten(io_lib:format("~b writers, ~b an append", [Writers, Batch])).

%% Its events a second on three nodes of one machine.
-spec prototype(combination(), #{atom() => esdb_writers:result()}) -> ok.
prototype({50, Batch} = Combination, #{ours := Ours}) ->
    Rate = maps:get(Batch, #{1 => 8_000, 10 => 42_000, 100 => 96_000}),
    _ = esdb_bench:measured(
        what(Combination), {name(ours), ns(Batch, Ours)}, {"the prototype", 1.0e9 / Rate}, 1.0
    ),
    ok;
prototype(_, _) ->
    ok.

-spec notes(string(), pos_integer(), #{atom() => esdb_writers:result()}) -> ok.
notes(What, Batch, Results) ->
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

-spec goals() -> goals().
goals() ->
    Khepri = #{{khepri, {50, 1}} => 2.0, {khepri, {50, 10}} => 7.0, {khepri, {50, 100}} => 20.0},
    maps:merge(Khepri#{{disk, {1, 1}} => 0.75}, goals_of_three()).

-spec goals_of_three() -> goals().
goals_of_three() -> #{{bare, Combination} => 0.7 || Combination <- ?COMBINATIONS}.
