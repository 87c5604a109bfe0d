-module(erl_esdb_test).
-moduledoc "What the suites of the store share.".

-export([event/1, event/2, events/1, events/2, versions/1, ids/1]).
-export([engines/0, engines/1, all/0, all/1, groups/1, groups/2]).
-export([init_per_group/2, end_per_group/2]).
-export([options/0, fresh/1]).
-export([start_store/1, start_store/2, stop_store/1, lead/1, settled/1, term/1, told/0]).
-export([engine/1, orderer/1, server/1, calls/1, calls/2, machine/1, tree/1, tamper/3]).
-export([concurrently/1, collect/2, collect/3, collected/1, release/1]).
-export([await/1, await/2, until_stopped/2, suspended/1, killed/1, quietly/1]).
-export([property/2, why/2, reductions/1]).
-export([commits/0, append_commits/1]).
-export([snapshot_due/1, snapshot_index/1, snapshotted/1, compact/1, ra_counts/1]).

-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

%% The engine of the group that runs.
-define(ENGINE, {?MODULE, engine}).

%% Why the property that is checked does not hold.
-define(WHY, {?MODULE, why}).

%% The folder below which stores of the group have theirs.
-define(FOLDER, {?MODULE, folder}).

%% Milliseconds for a call to a store on disk: the disk of a machine may have much to do.
-define(TIMEOUT, 60_000).

%% How often `await/1` looks before it pauses between.
-define(LOOKS, 200).

%% `ra3`: on disk, on three nodes, of which this one leads.
-type engine() :: memory | ra | ra3.

%% What some cases need that not each engine has.
-type need() :: in_memory | one_node.

-doc """
The engines: what holds for a store holds on each of them.

A suite of stores runs its cases once for each:

    all() -> erl_esdb_test:all().
    groups() -> erl_esdb_test:groups([a_case, another_case]).
    init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).
    end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

and starts its stores with `start_store/1`, or with `start_store/2` and `options/0` where the name
matters. The environment variable `ESDB_ENGINES` chooses some of them (`memory,ra,ra3`); without it
the cases run in memory and on one node, and where `all/1` says so on three. Where there is no Ra,
only what is in memory runs.
""".
-spec engines() -> [engine()].
engines() -> engines([]).

-doc "The same, with some that are no engines of every suite.".
-spec engines([engine()]) -> [engine()].
engines(More) ->
    Default = lists:join(",", [atom_to_list(Engine) || Engine <- [memory, ra | More]]),
    Wanted = string:lexemes(os:getenv("ESDB_ENGINES", lists:append(Default)), ","),
    [Engine || Engine <- known(), lists:member(atom_to_list(Engine), Wanted)].

-spec known() -> [engine(), ...].
known() ->
    case code:which(ra) of
        non_existing -> [memory];
        _ -> [memory, ra, ra3]
    end.

%% What a store is started with to run on an engine: one on disk has a folder of its own.
-spec options(engine()) -> map().
options(memory) ->
    #{engine => memory};
options(_OnDisk) ->
    Name = integer_to_list(erlang:unique_integer([positive])),
    #{
        engine => ra,
        data_dir => filename:join(persistent_term:get(?FOLDER), Name),
        timeout => ?TIMEOUT
    }.

-doc "The groups of the engines, for `all/0` of a suite.".
-spec all() -> [{group, engine()}, ...].
all() -> all([]).

-doc "The same, on some more engines where none is chosen.".
-spec all([engine()]) -> [{group, engine()}, ...].
all(More) -> [{group, Engine} || Engine <- engines(More)].

-doc "The groups of the engines with these cases, for `groups/0` of a suite.".
-spec groups([atom()]) -> [{engine(), [], [atom()]}, ...].
groups(Cases) -> groups(Cases, #{}).

-doc "The same, without some cases where the engine has not what they need.".
-spec groups([atom()], #{need() => [atom()]}) -> [{engine(), [], [atom()]}, ...].
groups(Cases, Needs) ->
    [{Engine, [], Cases -- needing(lacks(Engine), Needs)} || Engine <- known()].

-spec lacks(engine()) -> [need()].
lacks(memory) -> [];
lacks(ra) -> [in_memory];
lacks(ra3) -> [in_memory, one_node].

-spec needing([need()], #{need() => [atom()]}) -> [atom()].
needing(Lacking, Needs) -> lists:append([maps:get(Need, Needs, []) || Need <- Lacking]).

-doc """
From here on stores start on this engine; its options stand in the configuration as `options`.

A group that is none of an engine's is left as it is.
""".
-spec init_per_group(atom(), [tuple()]) -> [tuple()].
init_per_group(Group, Config) ->
    case lists:member(Group, known()) of
        true ->
            ok = with_others(Group),
            Folder = filename:join(proplists:get_value(priv_dir, Config), Group),
            ok = filelib:ensure_path(Folder),
            ok = persistent_term:put(?FOLDER, filename:join(Folder, "stores")),
            ok = persistent_term:put(?ENGINE, Group),
            [{options, options()} | Config];
        false ->
            Config
    end.

-spec end_per_group(atom(), [tuple()]) -> ok.
%% What the cases of one engine leave is none of those of another.
end_per_group(Group, Config) ->
    ok = without_others(Group),
    _ = persistent_term:erase(?ENGINE),
    _ = persistent_term:erase(?FOLDER),
    Left = filelib:wildcard(filename:join(proplists:get_value(priv_dir, Config), "*")),
    lists:foreach(fun file:del_dir_r/1, Left).

-spec with_others(engine()) -> ok.
with_others(ra3) -> erl_esdb_three:begin_all();
with_others(_) -> ok.

-spec without_others(atom()) -> ok.
without_others(ra3) -> erl_esdb_three:end_all();
without_others(_) -> ok.

-doc "What a store is started with to run on the engine of the group.".
-spec options() -> map().
options() -> options(persistent_term:get(?ENGINE, memory)).

-doc "The same options for a store that knows nothing yet.".
-spec fresh(map()) -> map().
fresh(#{data_dir := _} = Options) -> maps:merge(Options, options(ra));
fresh(Options) -> Options.

-doc "Starts a store of its own for one test case, on the engine of the group.".
-spec start_store(map()) -> atom().
start_store(Options) ->
    Store = list_to_atom("store_" ++ integer_to_list(erlang:unique_integer([positive]))),
    {ok, _} = start_store(Store, maps:merge(options(), Options)),
    ok = told(),
    Store.

-doc "Starts a store with these options, on as many nodes as the engine of the group has.".
-spec start_store(atom(), map()) -> {ok, pid()} | {error, term()}.
start_store(Store, #{engine := ra} = Options) ->
    case persistent_term:get(?ENGINE, memory) of
        ra3 -> erl_esdb_three:start_store(Store, Options);
        _ -> erl_esdb:start_store(Store, Options)
    end;
start_store(Store, Options) ->
    erl_esdb:start_store(Store, Options).

-doc "Has this node lead a store whose engine has ended and is there again.".
-spec lead(atom()) -> ok.
lead(Store) -> on_three(fun() -> erl_esdb_three:lead(Store) end).

-doc "Waits until all nodes of a store have heard who leads it.".
-spec settled(atom()) -> ok.
settled(Store) -> on_three(fun() -> erl_esdb_three:settled(Store) end).

%% Where the engine of the group has three nodes.
-spec on_three(fun(() -> ok)) -> ok.
on_three(Fun) ->
    case persistent_term:get(?ENGINE, memory) of
        ra3 -> Fun();
        _ -> ok
    end.

-doc "How often it was decided who leads a store, where there are others.".
-spec term(atom()) -> non_neg_integer().
term(Store) ->
    case persistent_term:get(?ENGINE, memory) of
        ra3 ->
            {ok, #{term := Term}} = erl_esdb_cluster:view(Store),
            Term;
        _ ->
            0
    end.

-doc "Returns when the handlers have been told of all that happened to stores before.".
-spec told() -> ok.
told() ->
    {error, unknown_request} = gen_server:call(erl_esdb_lifecycle, ?FUNCTION_NAME),
    ok.

-spec stop_store(atom()) -> ok | {error, not_found}.
stop_store(Store) -> erl_esdb:stop_store(Store).

-doc "The process of a store's engine.".
-spec engine(atom()) -> pid().
engine(Store) ->
    [Engine] = [Pid || {S, #{engine := Pid}} <- erl_esdb_engine:lives(), S =:= Store],
    Engine.

-doc "The process that orders and applies the commands of a store.".
-spec orderer(atom()) -> pid().
orderer(Store) ->
    case erl_esdb_engine:find(Store) of
        {ok, erl_esdb_engine_ra, _, _} -> whereis(element(1, server(Store)));
        {ok, _, _, _} -> engine(Store)
    end.

-doc "The Ra server of a store.".
-spec server(atom()) -> ra:server_id().
server(Store) ->
    {ok, erl_esdb_engine_ra, Handle, _} = erl_esdb_engine:find(Store),
    erl_esdb_engine_ra:server(Handle).

-doc "How many calls wait for a process.".
-spec calls(pid()) -> non_neg_integer().
calls(Pid) ->
    {messages, Messages} = process_info(Pid, messages),
    length([call || {'$gen_call', _, _} <- Messages]).

-doc "How many calls of a process wait for another.".
-spec calls(pid(), From :: pid()) -> non_neg_integer().
calls(Pid, From) ->
    {messages, Messages} = process_info(Pid, messages),
    length([call || {'$gen_call', {Caller, _}, _} <- Messages, Caller =:= From]).

-doc "The processes of a store with the way to each; those between two lives are missing.".
-spec tree(atom()) -> [{Path :: [term()], pid()}].
tree(Store) ->
    case whereis(erl_esdb_naming:system_sup_name(Store)) of
        undefined -> [];
        Pid -> [{[], Pid} | below(Pid, [])]
    end.

-spec below(pid(), [term()]) -> [{[term()], pid()}].
below(Sup, Path) ->
    try lists:reverse(supervisor:which_children(Sup)) of
        Children -> lists:append([child(C, Path) || {_, P, _, _} = C <- Children, is_pid(P)])
    catch
        exit:_ -> []
    end.

-spec child(tuple(), [term()]) -> [{[term()], pid()}].
child({Id, Pid, worker, _}, Path) -> [{Path ++ [Id], Pid}];
child({Id, Pid, supervisor, _}, Path) -> [{Path ++ [Id], Pid} | below(Pid, Path ++ [Id])].

-doc "The state of the pure machine that a store's engine runs.".
-spec machine(atom()) -> erl_esdb_log:state().
machine(Store) ->
    [Machine] = machines(sys:get_state(orderer(Store))),
    Machine.

%% Ra has the state of its machine among much else.
-spec machines(term()) -> [erl_esdb_log:state()].
machines(Log) when is_tuple(Log), element(1, Log) =:= log -> [Log];
machines(Tuple) when is_tuple(Tuple) -> lists:append([machines(P) || P <- tuple_to_list(Tuple)]);
machines(#{machine_state := State}) -> machines(State);
machines(_) -> [].

-doc """
Puts other packed events in the place of some that an engine has stored, as one does who can write
where it keeps them. Each engine has its own way; in memory it is that of its process.
""".
-spec tamper(atom(), Packed :: binary(), Other :: binary()) -> ok.
tamper(Store, Packed, Other) ->
    {ok, Engine, _, _} = erl_esdb_store:engine(Store),
    tamper(Engine, Store, Packed, Other).

%% Wherever the tables of the engine have these bytes.
-spec tamper(module(), atom(), binary(), binary()) -> ok.
tamper(erl_esdb_engine_ra, Store, Packed, Other) ->
    {ok, Replica} = erl_esdb_ra_replica:find(Store),
    Tables = erl_esdb_ra_replica:tables(Replica),
    All = erl_esdb_tables:log_spans(Tables, 0, infinity, forward, #{hidden => true}),
    {ok, Pieces} = read_all(Store),
    [
        ok = erl_esdb_ra_replica:keep(element(2, Row), Other, Replica)
     || {{_, {Row, _, _}}, {_, _, Body}} <- lists:zip(All, Pieces), Body =:= Packed
    ],
    ok;
tamper(erl_esdb_engine_memory, Store, Packed, Other) ->
    _ = sys:replace_state(engine(Store), fun(State) ->
        Tables = [T || T <- ets:all(), ets:info(T, owner) =:= self()],
        [
            ets:insert(Table, setelement(Place, Object, Other))
         || Table <- Tables,
            Object <- ets:tab2list(Table),
            Place <- lists:seq(1, tuple_size(Object)),
            element(Place, Object) =:= Packed
        ],
        State
    end),
    ok.

-spec read_all(atom()) -> {ok, [erl_esdb_engine:piece()]}.
read_all(Store) ->
    {ok, Engine, Handle, _} = erl_esdb_store:engine(Store),
    Engine:read_log(Handle, 0, infinity, forward, #{hidden => true}).

-spec event(term()) -> new_event().
event(N) -> event(N, <<"Counted">>).

-spec event(term(), binary()) -> new_event().
event(N, Type) -> #{event_type => Type, data => #{n => N}}.

-spec events(non_neg_integer()) -> [new_event()].
events(Count) -> events(0, Count - 1).

-spec events(integer(), integer()) -> [new_event()].
events(From, To) -> [event(N) || N <- lists:seq(From, To)].

-spec versions([event()]) -> [non_neg_integer()].
versions(Events) -> [Event#event.version || Event <- Events].

-spec ids([event()]) -> [binary()].
ids(Events) -> [Event#event.event_id || Event <- Events].

-doc """
Runs the funs in processes that start together, and gives their results in order.

One that crashes is `error({worker, Reason})` here, and the others are ended.
""".
-spec concurrently([fun(() -> Result)]) -> [Result].
concurrently(Funs) ->
    Workers = [spawn_monitor(fun() -> receive go -> exit({result, Fun()}) end end) || Fun <- Funs],
    lists:foreach(fun({Pid, _}) -> Pid ! go end, Workers),
    try
        [result(Ref) || {_, Ref} <- Workers]
    after
        lists:foreach(fun({Pid, _}) -> exit(Pid, kill) end, Workers)
    end.

-spec result(reference()) -> term().
result(Ref) ->
    receive
        {'DOWN', Ref, process, _, {result, Result}} -> Result;
        {'DOWN', Ref, process, _, Reason} -> error({worker, Reason})
    end.

-doc "Attaches a handler that remembers the events whose metadata has this store.".
-spec collect(term(), atom()) -> ok.
collect(Id, Store) ->
    erl_esdb_telemetry:attach(Id, collector(Id, Store), none).

-doc "The same of these events.".
-spec collect(term(), atom(), [[atom(), ...]]) -> ok.
collect(Id, Store, Events) ->
    erl_esdb_telemetry:attach_many(Id, Events, collector(Id, Store), none).

-spec collector(term(), atom()) -> erl_esdb_telemetry:handler().
collector(Id, Store) ->
    Self = self(),
    fun
        (Event, Measurements, #{store_id := S} = Metadata, _) when S =:= Store ->
            Self ! {Id, Event, Measurements, Metadata};
        (_, _, _, _) ->
            ok
    end.

-doc "What was remembered so far: handlers run in the process that emits.".
-spec collected(term()) -> [{[atom()], map(), map()}].
collected(Id) ->
    receive
        {Id, Event, Measurements, Metadata} -> [{Event, Measurements, Metadata} | collected(Id)]
    after 0 -> []
    end.

-spec release(term()) -> ok.
release(Id) -> erl_esdb_telemetry:detach(Id).

-doc "Waits until a fun says true, at most a minute.".
-spec await(fun(() -> boolean())) -> ok.
await(Fun) -> await(Fun, 60_000).

-doc "The same, at most so many milliseconds.".
-spec await(fun(() -> boolean()), pos_integer()) -> ok.
await(Fun, Most) -> await_until(Fun, erlang:monotonic_time(millisecond) + Most, ?LOOKS).

-spec await_until(fun(() -> boolean()), integer(), non_neg_integer()) -> ok.
await_until(Fun, Until, Looks) ->
    case Fun() of
        true ->
            ok;
        false ->
            erlang:monotonic_time(millisecond) < Until orelse error(awaited_in_vain),
            ok = pause(Looks),
            await_until(Fun, Until, max(0, Looks - 1))
    end.

%% What is awaited for long may need the processor that the looks take.
-spec pause(non_neg_integer()) -> ok.
pause(0) ->
    receive
    after 2 -> ok
    end;
pause(_) ->
    true = erlang:yield(),
    ok.

-doc "Calls a fun again and again, until the first of these atomics is not 0.".
-spec until_stopped(atomics:atomics_ref(), fun(() -> term())) -> done.
until_stopped(Stop, Step) ->
    case atomics:get(Stop, 1) of
        0 ->
            _ = Step(),
            until_stopped(Stop, Step);
        _ ->
            done
    end.

-doc "Suspends a process; false where it is done by now, or ends at this moment.".
-spec suspended(pid()) -> boolean().
suspended(Pid) ->
    try
        erlang:suspend_process(Pid)
    catch
        error:Reason when Reason =:= badarg; Reason =:= internal_error -> false
    end.

-doc "Calls a fun, while nothing is logged: what is killed says so.".
-spec quietly(fun(() -> Result)) -> Result.
quietly(Fun) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    try
        Fun()
    after
        ok = logger:set_primary_config(level, Level)
    end.

-doc """
Checks a property; `ESDB_PROP` multiplies the number of cases. On three nodes, where each takes
longer, it is a tenth. Where it does not hold, the smallest counterexample that was found is the
reason of the error, behind what `why/2` was told of it.
""".
-spec property(pos_integer(), proper:outer_test()) -> true.
property(Cases, Property) ->
    Times = list_to_integer(os:getenv("ESDB_PROP", "1")),
    Options = [long_result, quiet, {numtests, tried(Cases * Times)}],
    _ = persistent_term:erase(?WHY),
    case proper:quickcheck(Property, Options) of
        true ->
            true;
        Counterexample ->
            error({falsified, persistent_term:get(?WHY, unknown), short(Counterexample)})
    end.

-doc "Why a property does not hold, and what is to be printed of it: for `?WHENFAIL`.".
-spec why(term(), term()) -> ok.
why(Reason, Details) ->
    io:format("~tp~n~tp~n", [Reason, Details]),
    persistent_term:put(?WHY, Reason).

%% Of commands what is called: where a report is cut it should tell something.
-spec short(term()) -> term().
short([[{init, _} | Commands] | Others]) -> [[call(C) || C <- Commands] | Others];
short(Counterexample) -> Counterexample.

-spec call(term()) -> term().
call({set, {var, N}, {call, _Module, Name, Args}}) -> {N, Name, Args};
call(Other) -> Other.

-spec tried(pos_integer()) -> pos_integer().
tried(Cases) ->
    case persistent_term:get(?ENGINE, memory) of
        ra3 -> max(1, Cases div 10);
        _ -> Cases
    end.

-doc "Kills a process, and waits until it has ended.".
-spec killed(pid()) -> ok.
killed(Pid) ->
    Ref = monitor(process, Pid),
    exit(Pid, kill),
    receive
        {'DOWN', Ref, process, _, _} -> ok
    end.

-doc "What a fun costs, in a process of its own: whatever the machine does besides.".
-spec reductions(fun(() -> term())) -> non_neg_integer().
reductions(Fun) ->
    [Cost] = concurrently([
        fun() ->
            {reductions, Before} = process_info(self(), reductions),
            _ = Fun(),
            {reductions, After} = process_info(self(), reductions),
            After - Before
        end
    ]),
    Cost.

-doc """
Real events: 500 commits of a history from `test/data/commits.json` of the repository, or all of the
file that the environment variable `ESDB_EVENTS` names, in the order of their times.
""".
-spec commits() -> [map()].
commits() ->
    Events =
        case os:getenv("ESDB_EVENTS") of
            false -> sample();
            File -> commits_of(File)
        end,
    lists:sort(fun(#{epoch_us := A}, #{epoch_us := B}) -> A =< B end, Events).

-spec sample() -> [map()].
sample() ->
    Source = proplists:get_value(source, ?MODULE:module_info(compile)),
    %% erlang/erl_esdb/test of the repository; rebar3 may have linked it elsewhere.
    Root = filename:join([filename:dirname(Source), "..", "..", ".."]),
    {ok, Json} = file:read_file(filename:join([Root, "test", "data", "commits.json"])),
    [commit(I, Id, Parents) || {I, [Id, Parents]} <- lists:enumerate(0, json:decode(Json))].

-spec commit(non_neg_integer(), binary(), [binary()]) -> map().
commit(I, Id, Parents) ->
    <<Files:4, Insertions:12, Area:8, _/binary>> = binary:decode_hex(Id),
    #{
        event_id => Id,
        event_type => <<"CommitAuthored">>,
        stream_id => <<"area-", (integer_to_binary(Area rem 12))/binary>>,
        epoch_us => 1_300_000_000_000_000 + I * 60_000_000,
        data => #{<<"files">> => Files + 1, <<"insertions">> => Insertions},
        metadata => #{<<"parents">> => Parents}
    }.

-spec commits_of(file:filename()) -> [map()].
commits_of(File) ->
    {ok, Content} = file:read_file(File),
    Keys = [event_id, event_type, stream_id, epoch_us, data, metadata],
    [
        #{Key => maps:get(atom_to_binary(Key), Event) || Key <- Keys}
     || Line <- binary:split(plain(Content), <<"\n">>, [global, trim_all]),
        Event <- [json:decode(Line)]
    ].

-spec plain(binary()) -> binary().
plain(<<31, 139, _/binary>> = Gzipped) -> zlib:gunzip(Gzipped);
plain(Content) -> Content.

-doc "Appends the commits at their times, and answers those of each stream.".
-spec append_commits(atom()) -> #{binary() => [map()]}.
append_commits(Store) ->
    Commits = commits(),
    [
        {ok, _} = erl_esdb_restore:append(Store, Stream, ?ANY_VERSION, [Commit], Time)
     || #{stream_id := Stream, epoch_us := Time} = Commit <- Commits
    ],
    maps:groups_from_list(fun(#{stream_id := Stream}) -> Stream end, Commits).

%% ---- what Ra does with a store

%% Commands after which a snapshot is due.
-define(DUE, 20_000).

-doc "Sends a store that leads here what makes a snapshot due, which costs no sync a command.".
-spec snapshot_due(Store :: atom()) -> ok.
snapshot_due(Store) ->
    Server = server(Store),
    Save = fun(N) ->
        ok = ra:pipeline_command(Server, {checkpoint, #{{a, place} => N}}, N, normal)
    end,
    ok = lists:foreach(Save, lists:seq(1, ?DUE + 1)),
    forget_events().

-spec forget_events() -> ok.
forget_events() ->
    receive
        {ra_event, _, _} -> forget_events()
    after 0 -> ok
    end.

-doc "The index of the newest snapshot here; -1 where there is none.".
-spec snapshot_index(Store :: atom()) -> integer().
snapshot_index(Store) -> map_get(snapshot_index, ra:key_metrics(server(Store))).

-doc "Has a store that leads here write a snapshot.".
-spec snapshotted(Store :: atom()) -> ok.
snapshotted(Store) ->
    Before = snapshot_index(Store),
    ok = snapshot_due(Store),
    await(fun() -> snapshot_index(Store) > Before end, 60_000),
    forget_events().

-doc "Has what is dead thrown away here.".
-spec compact(Store :: atom()) -> ok.
compact(Store) -> ra:trigger_compaction(server(Store)).

-doc "How often this node did what, since the server of a store was started.".
-spec ra_counts(Store :: atom()) -> #{atom() => non_neg_integer()}.
ra_counts(Store) ->
    Fields = [snapshots_written, snapshot_installed, minor_compactions, major_compactions],
    case ra_counters:counters(server(Store), Fields) of
        undefined -> #{};
        Counts -> Counts
    end.
