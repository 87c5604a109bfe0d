-module(erl_esdb_fault_SUITE).
-moduledoc """
Stores whose nodes fail, each fault for itself, for a few seconds; and the tools that make them
fail.

Each run has a seed, which is printed; `ESDB_SEED` sets it. `make torture` goes on for longer, with
faults that are drawn.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("erl_esdb_history.hrl").

-define(STORE, faulty).

suite() -> [{timetrap, {minutes, 3}}].

all() -> [{group, Group} || Group <- [tools, disks, clock] ++ stores()].

%% Without Ra no store outlives its node.
stores() -> [Group || lists:member(ra, erl_esdb_test:engines()), Group <- [one, three]].

groups() ->
    [
        {tools, [], namespaces() ++ [
            nodes_that_are_cut_off,
            nodes_that_are_cut_off_one_way,
            what_is_delayed_comes_later,
            a_connection_that_is_reset,
            a_node_that_is_killed,
            a_node_that_is_frozen
        ]},
        {disks, [], disks()},
        {clock, [], [clocks_that_jump]},
        {one, [], [a_changed_byte_is_named_and_never_served, a_store_that_hangs_is_found] ++
            lists() ++ steps() ++ faults(1)},
        {three, [], [subscriptions_of_nodes_that_have_just_joined | faults(3)]}
    ].

lists() ->
    [a_dropped_list_of_what_lives_is_found, killed_between_list_and_snapshot] ++
        [killed_between_snapshot_and_list].

steps() ->
    [killed_while_a_store_is_made, no_power_while_a_store_is_made, no_power_while_a_store_starts] ++
        [killed_while_a_store_is_dropped, a_full_disk_is_named_and_told_of_once].

faults(Size) -> erl_esdb_torture:faults(Size).

%% They are for who is root, where the system has them.
namespaces() -> [nodes_with_a_network_of_their_own || erl_esdb_netns:available() =:= ok].

%% What a disk does is only to be seen where its library can be compiled.
disks() ->
    case [Compiler || Compiler <- ["cc", "gcc"], os:find_executable(Compiler) =/= false] of
        [] ->
            [a_byte_that_is_changed, no_compiler];
        _ ->
            [a_byte_that_is_changed, a_disk_that_fails, a_disk_that_is_slow] ++
                [what_was_not_synced, a_file_that_is_gone, killed_at_a_call]
    end.

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    [{library, erl_esdb_torture:library(proplists:get_value(priv_dir, Config))} | Config].

end_per_suite(_Config) -> application:stop(erl_esdb).

%% Of nodes that are killed much is logged.
init_per_group(_Group, Config) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    [{level, Level} | Config].

end_per_group(_Group, Config) ->
    logger:set_primary_config(level, proplists:get_value(level, Config)).

%% ---- nodes

%% Nodes for one case, by name.
with_nodes(Names, Config, Fun) -> with_nodes(Names, #{}, Config, Fun).

with_nodes(Names, Options, Config, Fun) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "nodes"),
    %% Not what a case before has left.
    _ = file:del_dir_r(Dir),
    Library = proplists:get_value(library, Config),
    Nodes = erl_esdb_fault_nodes:start(Names, maps:merge(Library, Options#{dir => Dir})),
    try
        Fun(Nodes)
    after
        ok = erl_esdb_fault_nodes:stop(Nodes)
    end.

ping(Nodes, From, To) ->
    Node = erl_esdb_fault_nodes:node_of(Nodes, To),
    try
        erl_esdb_fault_nodes:call(Nodes, From, erpc, call, [Node, erlang, node, [], 500]) =:= Node
    catch
        error:{erpc, _} -> false
    end.

nodes_that_are_cut_off(Config) ->
    with_nodes([n1, n2, n3], Config, fun(Nodes) ->
        Pings = fun() -> [ping(Nodes, A, B) || A <- [n1, n2, n3], B <- [n1, n2, n3], A =/= B] end,
        ?assertEqual([true, true, true, true, true, true], Pings()),
        ok = erl_esdb_fault_nodes:cut(Nodes, [n1]),
        %% 1 to 2, 1 to 3, 2 to 1, 2 to 3, 3 to 1, 3 to 2
        ?assertEqual([false, false, false, true, false, true], Pings()),
        ?assert(erl_esdb_proxy:acted(erl_esdb_fault_nodes:proxy(Nodes)) > 0),
        ok = erl_esdb_fault_nodes:heal(Nodes),
        ?assertEqual([true, true, true, true, true, true], Pings())
    end).

%% The links of a kernel, in place of the proxy.
nodes_with_a_network_of_their_own(Config) ->
    with_nodes([n1, n2, n3], #{namespaces => true}, Config, fun(Nodes) ->
        Pings = fun() -> [ping(Nodes, A, B) || A <- [n1, n2, n3], B <- [n1, n2, n3], A =/= B] end,
        ?assertEqual([true, true, true, true, true, true], Pings()),
        Acted = fun(Do) ->
            Before = erl_esdb_fault_nodes:acted(Nodes),
            ok = Do(),
            %% 1 to 2, 1 to 3, 2 to 1, 2 to 3, 3 to 1, 3 to 2
            ?assertEqual([false, false, false, true, false, true], Pings()),
            ?assert(erl_esdb_fault_nodes:acted(Nodes) > Before),
            ok = erl_esdb_fault_nodes:heal(Nodes),
            erl_esdb_test:await(fun() -> lists:all(fun(P) -> P end, Pings()) end, 60_000)
        end,
        ok = Acted(fun() -> erl_esdb_fault_nodes:cut(Nodes, [n1]) end),
        ok = Acted(fun() -> erl_esdb_fault_nodes:cut_one_way(Nodes, [n1]) end),
        ok = Acted(fun() -> erl_esdb_fault_nodes:cut(Nodes, [n2, n3]) end)
    end).

%% What n1 says is not heard: it hears the question, and its answer does not come.
nodes_that_are_cut_off_one_way(Config) ->
    with_nodes([n1, n2], Config, fun(Nodes) ->
        true = ping(Nodes, n1, n2),
        ok = erl_esdb_fault_nodes:cut_one_way(Nodes, [n1]),
        ?assertNot(ping(Nodes, n1, n2)),
        N1 = erl_esdb_fault_nodes:node_of(Nodes, n1),
        Said = [N1, persistent_term, put, [?MODULE, down]],
        ok = erl_esdb_fault_nodes:call(Nodes, n2, erpc, cast, Said),
        Down = fun() -> erl_esdb_fault_nodes:call(Nodes, n1, ?MODULE, is_down, []) end,
        erl_esdb_test:await(Down),
        ok = erl_esdb_fault_nodes:heal(Nodes),
        ?assert(ping(Nodes, n1, n2))
    end).

what_is_delayed_comes_later(Config) ->
    with_nodes([n1, n2], Config, fun(Nodes) ->
        true = ping(Nodes, n1, n2),
        ok = erl_esdb_fault_nodes:delay(Nodes, [n1], 50),
        {Time, true} = timer:tc(fun() -> ping(Nodes, n1, n2) end),
        ?assert(Time >= 100_000),
        ok = erl_esdb_fault_nodes:heal(Nodes)
    end).

a_connection_that_is_reset(Config) ->
    with_nodes([n1, n2], Config, fun(Nodes) ->
        true = ping(Nodes, n1, n2),
        N2 = erl_esdb_fault_nodes:node_of(Nodes, n2),
        ok = erl_esdb_fault_nodes:call(Nodes, n1, ?MODULE, watch, [N2]),
        ok = erl_esdb_proxy:reset(erl_esdb_fault_nodes:proxy(Nodes), {n1, n2}),
        Down = fun() -> erl_esdb_fault_nodes:call(Nodes, n1, ?MODULE, is_down, []) end,
        erl_esdb_test:await(Down),
        ?assert(ping(Nodes, n1, n2))
    end).

%% On a node: remembers that another was not there.
watch(Node) ->
    Self = self(),
    _ = spawn(fun() ->
        true = monitor_node(Node, true),
        Self ! watching,
        receive
            {nodedown, Node} -> persistent_term:put(?MODULE, down)
        end
    end),
    receive
        watching -> ok
    end.

is_down() -> persistent_term:get(?MODULE, up) =:= down.

a_node_that_is_killed(Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        [{{n1, 1}, Via}] = erl_esdb_fault_nodes:targets(Nodes),
        ok = erl_esdb_fault_nodes:kill(Nodes, n1),
        ?assertEqual([], erl_esdb_fault_nodes:up(Nodes)),
        ?assertExit(_, Via(erlang, node, [])),
        ?assertExit({down, n1}, erl_esdb_fault_nodes:call(Nodes, n1, erlang, node, [])),
        ok = erl_esdb_fault_nodes:boot(Nodes, n1),
        ?assertMatch([{{n1, 2}, _}], erl_esdb_fault_nodes:targets(Nodes))
    end).

a_node_that_is_frozen(Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        ok = erl_esdb_fault_nodes:freeze(Nodes, n1),
        ?assertEqual([], erl_esdb_fault_nodes:targets(Nodes)),
        ?assertExit(_, erl_esdb_fault_nodes:call(Nodes, n1, erlang, node, [], 200)),
        ok = erl_esdb_fault_nodes:thaw(Nodes, n1),
        ?assertEqual('n1@127.0.0.1', erl_esdb_fault_nodes:call(Nodes, n1, erlang, node, []))
    end).

%% ---- disks

no_compiler(Config) ->
    ct:pal("no C compiler: no disk fails here, and no power"),
    ?assertEqual(#{}, proplists:get_value(library, Config)).

a_byte_that_is_changed(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "byte"),
    ok = file:write_file(File, ~"0123"),
    ok = erl_esdb_disk:flip(File, 2),
    ?assertEqual({ok, ~"01\"3"}, file:read_file(File)).

a_disk_that_fails(Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        Disk = erl_esdb_fault_nodes:disk(Nodes, n1),
        Inside = filename:join(erl_esdb_fault_nodes:dir(Nodes, n1), "file"),
        Outside = filename:join(proplists:get_value(priv_dir, Config), "outside"),
        Call = fun(Module, Function, Arguments) ->
            erl_esdb_fault_nodes:call(Nodes, n1, Module, Function, Arguments)
        end,
        Write = fun(File) -> Call(file, write_file, [File, ~"0123"]) end,
        Synced = fun(File) -> Call(?MODULE, write_and_sync, [File]) end,
        Failing = fun(Fault, Do, File) ->
            ok = erl_esdb_disk:fail(Disk, [Fault], 0),
            Result = Do(File),
            ok = erl_esdb_disk:fail(Disk, [], 0),
            {Result, erl_esdb_disk:acted(Disk, Fault)}
        end,
        ok = Write(Inside),
        ?assertEqual({ok, 0}, Failing(write_enospc, Write, Outside)),
        ?assertEqual({{error, enospc}, 1}, Failing(write_enospc, Write, Inside)),
        ?assertEqual({{error, eio}, 1}, Failing(write_eio, Write, Inside)),
        ?assertEqual({{error, eio}, 1}, Failing(sync_eio, Synced, Inside)),
        Read = fun(File) -> Call(file, read_file, [File]) end,
        ?assertMatch({{error, eio}, _}, Failing(read_eio, Read, Inside)),
        %% The rest is written by another call.
        ?assertMatch({ok, N} when N > 0, Failing(write_short, Write, Inside)),
        ?assertEqual({ok, ~"0123"}, Read(Inside))
    end).

%% On a node.
write_and_sync(Path) ->
    {ok, File} = file:open(Path, [write, raw, binary]),
    ok = file:write(File, ~"0123"),
    Result = file:sync(File),
    ok = file:close(File),
    Result.

a_disk_that_is_slow(Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        Disk = erl_esdb_fault_nodes:disk(Nodes, n1),
        File = filename:join(erl_esdb_fault_nodes:dir(Nodes, n1), "file"),
        ok = erl_esdb_disk:fail(Disk, [write_slow, sync_slow], 30_000),
        {Time, ok} = timer:tc(fun() ->
            erl_esdb_fault_nodes:call(Nodes, n1, ?MODULE, write_and_sync, [File])
        end),
        ?assert(Time >= 60_000),
        ?assertEqual(1, erl_esdb_disk:acted(Disk, write_slow)),
        ?assertEqual(1, erl_esdb_disk:acted(Disk, sync_slow))
    end).

%% Appended, written over, cut: as it was when it was synced last.
what_was_not_synced(Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        Path = fun(Name) -> filename:join(erl_esdb_fault_nodes:dir(Nodes, n1), Name) end,
        Names = ["appended", "over", "cut", "new", "synced"],
        Paths = lists:map(Path, Names),
        ok = erl_esdb_fault_nodes:call(Nodes, n1, ?MODULE, leave_unsynced, [Paths]),
        [?assertMatch({ok, _}, file:read_file(Path(Name))) || Name <- Names],
        ok = erl_esdb_fault_nodes:kill(Nodes, n1),
        Disk = erl_esdb_fault_nodes:disk(Nodes, n1),
        ?assertMatch({4, N} when N > 0, erl_esdb_disk:power_loss(Disk)),
        ?assertEqual(
            [~"synced", ~"synced", ~"synced", ~"", ~"synced, and again"],
            [Bytes || Name <- Names, {ok, Bytes} <- [file:read_file(Path(Name))]]
        ),
        %% Nothing is taken back twice.
        ?assertEqual({0, 0}, erl_esdb_disk:power_loss(Disk))
    end).

%% On a node.
leave_unsynced([Appended, Over, Cut, New, Synced]) ->
    [A, O, C, S] = [begun(Path) || Path <- [Appended, Over, Cut, Synced]],
    ok = file:write(A, ~", and more"),
    ok = file:pwrite(O, 2, ~"??????????"),
    ok = file:pwrite(O, 0, ~"!!!!"),
    {ok, 3} = file:position(C, 3),
    ok = file:truncate(C),
    ok = file:write(S, ~", and again"),
    ok = file:datasync(S),
    file:write_file(New, ~"new").

begun(Path) ->
    {ok, File} = file:open(Path, [read, write, raw, binary]),
    ok = file:write(File, ~"synced"),
    ok = file:sync(File),
    File.

%% Its number goes to the next file, and what is to be undone does not.
a_file_that_is_gone(Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        Path = fun(Name) -> filename:join(erl_esdb_fault_nodes:dir(Nodes, n1), Name) end,
        Paths = lists:map(Path, ["gone", "under", "renamed"]),
        ok = erl_esdb_fault_nodes:call(Nodes, n1, ?MODULE, leave_gone, [Paths]),
        ok = erl_esdb_fault_nodes:kill(Nodes, n1),
        ?assertEqual({0, 0}, erl_esdb_disk:power_loss(erl_esdb_fault_nodes:disk(Nodes, n1))),
        ?assertEqual({ok, ~"synced"}, file:read_file(Path("renamed")))
    end).

%% On a node.
leave_gone([Gone, Under, Renamed]) ->
    [ok = file:write(begun(Path), ~", and more") || Path <- [Gone, Renamed]],
    ok = file:delete(Gone),
    _ = begun(Under),
    file:rename(Under, Renamed).

%% The third call that changes the folder is not made: to open, to write, to sync.
killed_at_a_call(Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        Disk = erl_esdb_fault_nodes:disk(Nodes, n1),
        Path = filename:join(erl_esdb_fault_nodes:dir(Nodes, n1), "file"),
        ok = erl_esdb_disk:kill_after(Disk, 2),
        ?assertExit(_, erl_esdb_fault_nodes:call(Nodes, n1, ?MODULE, write_and_sync, [Path])),
        ok = erl_esdb_fault_nodes:kill(Nodes, n1),
        ?assertEqual({ok, ~"0123"}, file:read_file(Path)),
        ?assertMatch({1, 4}, erl_esdb_disk:power_loss(Disk)),
        ok = erl_esdb_disk:kill_after(Disk, infinity),
        ok = erl_esdb_fault_nodes:boot(Nodes, n1),
        ?assertEqual(ok, erl_esdb_fault_nodes:call(Nodes, n1, ?MODULE, write_and_sync, [Path]))
    end).

%% ---- clocks

%% Whatever the clock says, the time of a stream does not run backwards, and all else holds.
clocks_that_jump(_Config) ->
    Store = erl_esdb_test:start_store(#{}),
    History = erl_esdb_history:new(),
    Stop = atomics:new(1, []),
    Load = #{
        history => History,
        store => Store,
        targets => fun() -> [{node(), fun erlang:apply/3}] end,
        seed => seed(),
        operations => 300
    },
    Jumper = spawn_monitor(fun() -> jumping(Stop) end),
    try
        _ = erl_esdb_load:run(Load),
        {ok, Final} = erl_esdb_history:final(Store, fun erlang:apply/3),
        ?assertEqual([], erl_esdb_history:check(erl_esdb_history:entries(History), Final)),
        {ok, Events} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
        Times = maps:groups_from_list(
            fun(#event{stream_id = S}) -> S end, fun(#event{epoch_us = T}) -> T end, Events
        ),
        [?assertEqual(lists:sort(InOrder), InOrder) || _ := InOrder <- Times],
        %% It did jump.
        Now = erlang:system_time(microsecond),
        Off = [T || _ := InOrder <- Times, T <- InOrder, abs(T - Now) > 1_800_000_000],
        ?assertNotEqual([], Off)
    after
        ok = atomics:put(Stop, 1, 1),
        {_, Ref} = Jumper,
        receive
            {'DOWN', Ref, process, _, _} -> ok
        end,
        ok = erl_esdb_clock:back(),
        ok = erl_esdb_test:stop_store(Store)
    end.

jumping(Stop) ->
    erl_esdb_test:until_stopped(Stop, fun() ->
        ok = erl_esdb_clock:jump((rand:uniform(11) - 6) * 3_600_000_000),
        receive
        after 5 -> ok
        end
    end).

%% ---- stores

seed() ->
    Seed =
        case os:getenv("ESDB_SEED", "") of
            "" -> erl_esdb_torture:drawn_seed();
            Given -> list_to_integer(Given)
        end,
    ct:pal("ESDB_SEED=~b", [Seed]),
    Seed.

%% A chapter with this fault alone, with one node twice; again where the fault did not act.
chapter(Fault, Size, Config) -> chapter(Fault, Size, seed(), 3, Config).

chapter(Fault, Size, Seed, Tries, Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "chapter"),
    Options = (proplists:get_value(library, Config))#{
        seed => Seed,
        size => Size,
        dir => Dir,
        small_files => before(Fault) =/= [] orelse Seed rem 2 =:= 0,
        faults => before(Fault) ++ [Fault || _ <- lists:seq(Size, 3, 2)]
    },
    #{violations := Violations, faults := #{Fault := #{acted := Acted}}} =
        Report = erl_esdb_torture:chapter(Options),
    ct:pal("~p", [Report#{violations := length(Violations)}]),
    ok = counted(Fault, Report),
    [] =:= Violations orelse
        ct:fail("seed ~b:~n~ts", [Seed, lists:map(fun erl_esdb_history:format/1, Violations)]),
    case Acted of
        0 when Tries > 1 -> chapter(Fault, Size, Seed + 1, Tries - 1, Config);
        _ -> ?assert(Acted > 0)
    end.

%% One that answers again only when its node was started again has not come through.
a_store_that_hangs_is_found(Config) ->
    Options = #{
        seed => seed(),
        dir => filename:join(proplists:get_value(priv_dir, Config), "chapter"),
        faults => [hung],
        patience => 1000
    },
    ?assertMatch(
        #{violations := [{restart_needed, {hung, n1, _}, []}], restarts := 1},
        erl_esdb_torture:chapter(Options)
    ).

%% Where what was begun before is to go on with a snapshot there is one, and segments were dropped.
before(Fault) when
    Fault =:= compaction; Fault =:= kill; Fault =:= kill_all; Fault =:= power_loss;
    Fault =:= power_loss_all; Fault =:= cut_follower; Fault =:= member_replaced;
    Fault =:= member_left
->
    [compaction];
before(_Fault) ->
    [].

%% With it there were some; and who comes with nothing is sent one.
counted(Fault, #{counts := Counts, faults := #{compaction := #{acted := Acted}}}) when Acted > 0 ->
    ?assert(map_get(snapshots_written, Counts) > 0),
    ?assert(map_get(minor_compactions, Counts) + map_get(major_compactions, Counts) > 0),
    New = [member_replaced, member_left],
    ?assert(map_get(snapshot_installed, Counts) > 0 orelse not lists:member(Fault, New));
counted(_Fault, _Report) ->
    ok.

count(Config) ->
    case proplists:get_value(name, proplists:get_value(tc_group_properties, Config)) of
        one -> 1;
        three -> 3
    end.

%% Where no disk can fail there is none that does.
disk_chapter(Fault, Config) ->
    case proplists:get_value(library, Config) of
        #{library := _} -> chapter(Fault, count(Config), Config);
        #{} -> no_compiler(Config)
    end.

kill(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
kill_all(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
kill_leader(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
kill_follower(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
freeze(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
clock(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
subscriber_killed(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
compaction(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
store_restarted(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
cut_leader(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
cut_follower(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
cut_one_way(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
flap(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
delay(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
leader_changed(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
member_replaced(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
member_left(Config) -> chapter(?FUNCTION_NAME, count(Config), Config).
power_loss(Config) -> disk_chapter(?FUNCTION_NAME, Config).
power_loss_all(Config) -> disk_chapter(?FUNCTION_NAME, Config).
disk_full(Config) -> disk_chapter(?FUNCTION_NAME, Config).
write_error(Config) -> disk_chapter(?FUNCTION_NAME, Config).
sync_error(Config) -> disk_chapter(?FUNCTION_NAME, Config).
short_write(Config) -> disk_chapter(?FUNCTION_NAME, Config).
slow_disk(Config) -> disk_chapter(?FUNCTION_NAME, Config).

%% ---- at each step

%% A node that ends before one of the calls that change its folder, drawn from all that there are:
%% the next one has what was acknowledged, and goes on.

killed_while_a_store_is_made(Config) -> at_steps(0, fun(_) -> {0, 0} end, Config).

no_power_while_a_store_is_made(Config) -> at_steps(0, fun erl_esdb_disk:power_loss/1, Config).

no_power_while_a_store_starts(Config) -> at_steps(5, fun erl_esdb_disk:power_loss/1, Config).

at_steps(Count, Loss, Config) ->
    with_steps(fun(Step) -> at_step(Step, Count, Loss, Config) end, Config).

%% There are about sixty: one of each eight.
with_steps(Fun, Config) ->
    case proplists:get_value(library, Config) of
        #{library := _} ->
            _ = rand:seed(exsss, {seed(), 4, 4}),
            Steps = [N * 8 + rand:uniform(8) || N <- lists:seq(0, 6)],
            Ended = [Fun(Step) || Step <- Steps],
            ct:pal("~w", [lists:zip(Steps, Ended)]),
            ?assert(length([killed || killed <- Ended]) >= 5);
        #{} ->
            no_compiler(Config)
    end.

at_step(Step, Count, Loss, Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        Disk = erl_esdb_fault_nodes:disk(Nodes, n1),
        Again = fun() ->
            ok = erl_esdb_fault_nodes:kill(Nodes, n1),
            ok = erl_esdb_disk:kill_after(Disk, infinity),
            _ = Loss(Disk),
            ok = erl_esdb_fault_nodes:boot(Nodes, n1)
        end,
        _ =
            Count > 0 andalso
                begin
                    {ok, _} = opened(Nodes),
                    ok = write(Nodes, 0, Count - 1),
                    ok = Again()
                end,
        ok = erl_esdb_disk:kill_after(Disk, Step),
        Ended = ended(Nodes),
        ok = Again(),
        ?assertMatch({_, {ok, _}}, {Step, opened(Nodes)}),
        ?assertEqual([], [Other || Other <- served(Nodes, Count), not is_record(Other, seen)]),
        ok = write(Nodes, Count, Count),
        Ended
    end).

ended(Nodes) ->
    try opened(Nodes) of
        {ok, _} -> opened
    catch
        exit:_ -> killed
    end.

%% ---- the list of what lives

%% What Ra does with a snapshot whose list is gone, on a store that does not mend it: the checker
%% has to find what is lost.
a_dropped_list_of_what_lives_is_found(Config) ->
    with_snapshots_of(no_mend, Config, fun(Nodes, Load, _Beam) ->
        _ = erl_esdb_load:run(Load),
        ok = snapshotted(Nodes),
        ok = erl_esdb_fault_nodes:kill(Nodes, n1),
        [_ | _] = Lists = filelib:wildcard(data_dir(Nodes) ++ "/*/snapshots/*/indexes"),
        ok = lists:foreach(fun file:delete/1, Lists),
        ok = erl_esdb_fault_nodes:boot(Nodes, n1),
        {ok, _} = opened(Nodes),
        _ = erl_esdb_load:run(Load#{name => ~"after", operations => 20}),
        Violations = judged(Nodes, Load),
        Found = lists:usort([Rule || {Rule, _, _} <- Violations]),
        ct:pal("~p of ~w", [length(Violations), Found]),
        ?assertEqual([], [damaged, missing] -- Found)
    end).

%% A node that is killed when it has written one of the two files and not the other, while clients
%% write and read: a store that mends it loses nothing.
killed_between_list_and_snapshot(Config) -> killed_while_it_writes(before_snapshot, Config).

killed_between_snapshot_and_list(Config) -> killed_while_it_writes(before_list, Config).

killed_while_it_writes(Place, Config) ->
    with_snapshots_of(Place, Config, fun(Nodes, #{history := History} = Load, Beam) ->
        Stop = atomics:new(1, []),
        Run = fun() -> erl_esdb_load:run(Load#{operations => 1_000_000, stop => Stop}) end,
        {_, Ref} = spawn_monitor(Run),
        More = fun(Count) ->
            Wanted = erl_esdb_history:operations(History) + Count,
            Is = fun() -> erl_esdb_history:operations(History) >= Wanted end,
            erl_esdb_test:await(Is, 60_000)
        end,
        ok = More(200),
        ok = erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_test, snapshot_due, [?STORE], 60_000),
        Stopped = fun() ->
            erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_ra_stopped, is_stopped, [])
        end,
        erl_esdb_test:await(Stopped, 60_000),
        ok = More(200),
        ok = erl_esdb_fault_nodes:kill(Nodes, n1),
        %% The next ones do not stop.
        ok = file:delete(Beam),
        ok = erl_esdb_fault_nodes:boot(Nodes, n1),
        {ok, _} = opened(Nodes),
        ok = More(100),
        %% Also when what is dead is thrown away, and after another start.
        ok = erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_test, compact, [?STORE]),
        ok = snapshotted(Nodes),
        ok = More(100),
        ok = erl_esdb_fault_nodes:kill(Nodes, n1),
        ok = erl_esdb_fault_nodes:boot(Nodes, n1),
        {ok, _} = opened(Nodes),
        ok = More(100),
        ok = atomics:put(Stop, 1, 1),
        receive
            {'DOWN', Ref, process, _, Reason} -> ?assertEqual(normal, Reason)
        end,
        ?assertEqual([], judged(Nodes, Load))
    end).

snapshotted(Nodes) ->
    erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_test, snapshotted, [?STORE], 60_000).

with_snapshots_of(Place, Config, Fun) ->
    Folder = filename:join(proplists:get_value(priv_dir, Config), Place),
    ok = erl_esdb_ra_stopped:beam(Place, Folder),
    Beam = filename:join(Folder, "erl_esdb_ra_snapshot.beam"),
    with_nodes([n1], #{args => ["-pa", Folder]}, Config, fun(Nodes) ->
        {ok, _} = opened(Nodes),
        History = erl_esdb_history:new(),
        Load = #{
            history => History,
            store => ?STORE,
            targets => fun() -> erl_esdb_fault_nodes:targets(Nodes) end,
            seed => seed(),
            %% Nothing else explains that events are gone.
            weights => #{truncate => 0, tombstone => 0, delete => 0}
        },
        Fun(Nodes, Load, Beam)
    end).

%% What there is in the end: each event that can be read.
judged(Nodes, #{history := History}) ->
    {ok, Final} = erl_esdb_history:final(?STORE, fun(Module, Function, Arguments) ->
        readable(Nodes, Module, Function, Arguments)
    end),
    erl_esdb_history:check(erl_esdb_history:entries(History), Final).

readable(Nodes, Module, Function, [Store, From, Count | More] = Arguments) ->
    Call = fun(A) -> erl_esdb_fault_nodes:call(Nodes, n1, Module, Function, A, 60_000) end,
    case Call(Arguments) of
        {error, {corrupt_events, _, _}} ->
            {ok, [
                Event
             || Position <- lists:seq(From, From + Count - 1),
                {ok, [#event{position = P} = Event]} <- [Call([Store, Position, 1 | More])],
                P =:= Position
            ]};
        Answer ->
            Answer
    end.

%% It has all its events then, or none; never what is left of them.
killed_while_a_store_is_dropped(Config) ->
    with_steps(fun(Step) -> dropped_at(Step, Config) end, Config).

dropped_at(Step, Config) ->
    with_nodes([n1], Config, fun(Nodes) ->
        Disk = erl_esdb_fault_nodes:disk(Nodes, n1),
        Again = fun() ->
            ok = erl_esdb_fault_nodes:kill(Nodes, n1),
            ok = erl_esdb_disk:kill_after(Disk, infinity),
            ok = erl_esdb_fault_nodes:boot(Nodes, n1),
            ?assertMatch({_, {ok, _}}, {Step, opened(Nodes)})
        end,
        {ok, _} = opened(Nodes),
        ok = write(Nodes, 0, 9),
        %% From the log into segments.
        ok = Again(),
        ok = erl_esdb_disk:kill_after(Disk, Step),
        Ended = dropped(Nodes),
        ok = Again(),
        Left = length([Seen || Seen <- served(Nodes, 10), is_record(Seen, seen)]),
        ?assert(Left =:= 10 orelse Left =:= 0, {Step, Left}),
        ok = write(Nodes, Left, Left),
        Ended
    end).

dropped(Nodes) ->
    try erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb, drop, [?STORE]) of
        ok -> dropped
    catch
        exit:_ -> killed
    end.

%% ---- a full disk

%% What is acknowledged is there when there is room again. Ra fails dozens of times: the same report
%% is not written twice.
a_full_disk_is_named_and_told_of_once(Config) ->
    case proplists:get_value(library, Config) of
        #{library := _} -> with_nodes([n1], Config, fun full/1);
        #{} -> no_compiler(Config)
    end.

full(Nodes) ->
    Disk = erl_esdb_fault_nodes:disk(Nodes, n1),
    {ok, _} = opened(Nodes),
    ok = write(Nodes, 0, 9),
    Beside = #{engine => ra, data_dir => erl_esdb_fault_nodes:dir(Nodes, n1) ++ "_beside"},
    {ok, _} = erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb, start_store, [beside, Beside]),
    Append = fun(Store, Expected) ->
        Event = erl_esdb_history:event(integer_to_binary(Expected + 1), #{}),
        Arguments = [Store, ~"other", Expected, [Event]],
        erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_streams, append, Arguments, 30_000)
    end,
    {ok, 0} = Append(beside, -1),
    ok = erl_esdb_disk:fail(Disk, [write_enospc], 0),
    {error, _} = Append(?STORE, -1),
    erl_esdb_test:await(fun() -> is_refused(opened(Nodes)) end, 60_000),
    ?assertEqual({error, {data_dir, data_dir(Nodes), enospc}}, opened(Nodes)),
    %% Ra gives up as a whole; the folder that has room comes back by itself.
    erl_esdb_test:await(fun() -> Append(beside, 0) =:= {ok, 1} end),
    ok = erl_esdb_disk:fail(Disk, [], 0),
    ?assertMatch({ok, _}, opened(Nodes)),
    ?assertEqual([], [Other || Other <- served(Nodes, 10), not is_record(Other, seen)]),
    {ok, Log} = file:read_file(erl_esdb_fault_nodes:dir(Nodes, n1) ++ ".log"),
    Reports = re:run(Log, ~"supervisor: (.*)\n.*errorContext: (.*)\n", [
        global, {capture, all_but_first, binary}
    ]),
    {match, Found} = Reports,
    Ra = [Report || [Sup | _] = Report <- Found, re:run(Sup, ~"ra_(erl|log)") =/= nomatch],
    ct:pal("~p", [Found]),
    ?assertNotEqual([], Ra),
    %% Two children of one supervisor may fail.
    ?assertEqual([], [Report || Report <- Ra, length([R || R <- Ra, R =:= Report]) > 3]).

is_refused({error, {data_dir, _, enospc}}) -> true;
is_refused(_) -> false.

%% ---- subscriptions

%% Such a node may believe for a moment that it leads, as it did when it was alone.
subscriptions_of_nodes_that_have_just_joined(Config) ->
    with_nodes([n1, n2, n3], Config, fun(Nodes) ->
        {ok, _} = opened(Nodes),
        Subscribers = [subscribed(Nodes, Name) || Name <- [n2, n3]],
        Event = erl_esdb_history:event(~"1", #{}),
        Append = [?STORE, ~"stream", any, [Event]],
        {ok, 0} = erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_streams, append, Append),
        [
            ?assertMatch(
                {ok, [#event{event_id = ~"1"} | _]},
                erl_esdb_fault_nodes:call(Nodes, Name, erl_esdb_subscriber, take, [Pid, 5000])
            )
         || {Name, Pid} <- Subscribers
        ],
        %% And each runs where the store is led.
        [
            erl_esdb_test:await(fun() ->
                is_running(erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_subscriptions, info, [
                    ?STORE, erl_esdb_history:subscription_key(atom_to_binary(Name), all)
                ]))
            end)
         || {Name, _} <- Subscribers
        ]
    end).

is_running({ok, #{status := running}}) -> true;
is_running(_) -> false.

subscribed(Nodes, Name) ->
    First = erl_esdb_fault_nodes:node_of(Nodes, n1),
    Call = fun(Module, Function, Arguments) ->
        erl_esdb_fault_nodes:call(Nodes, Name, Module, Function, Arguments, 40_000)
    end,
    true = Call(net_kernel, connect_node, [First]),
    Dir = filename:join(erl_esdb_fault_nodes:dir(Nodes, Name), "data"),
    {ok, _} = Call(erl_esdb, start_store, [?STORE, #{engine => ra, data_dir => Dir}]),
    Pid = Call(erl_esdb_subscriber, start, []),
    ok = Call(erl_esdb, join, [?STORE, First]),
    {ok, _} = Call(erl_esdb_subscriptions, subscribe, [
        ?STORE, stream, ~"$all", atom_to_binary(Name), #{subscriber => Pid}
    ]),
    {Name, Pid}.

%% ---- bytes that change on disk

%% A byte of some file of a store that does not run, again and again, each time as it was before.
%% Then the store says at its start what is wrong, or each event that it serves is as it was written
%% and each other is named as damaged. In the log of writes a damaged record may look like the last
%% one, which a crash has cut off: then what came from there on is missing, and nothing else is.
a_changed_byte_is_named_and_never_served(Config) ->
    _ = rand:seed(exsss, {seed(), 3, 3}),
    with_nodes([n1], Config, fun(Nodes) ->
        {ok, _} = opened(Nodes),
        ok = write(Nodes, 0, 99),
        %% What was in the log of writes goes to segments, and what comes stands in the log.
        ok = erl_esdb_fault_nodes:kill(Nodes, n1),
        ok = erl_esdb_fault_nodes:boot(Nodes, n1),
        {ok, _} = opened(Nodes),
        ok = write(Nodes, 100, 149),
        ok = snapshotted(Nodes),
        ok = write(Nodes, 150, 159),
        ?assertMatch([_], filelib:wildcard(data_dir(Nodes) ++ "/*/snapshots/*/snapshot.dat")),
        Written = served(Nodes, 160),
        ?assertEqual([], [Other || Other <- Written, not is_record(Other, seen)]),
        %% Of each kind of file, and then of any.
        Kinds = [".wal", ".segment", ".dat"],
        Found = [
            changed_byte(Nodes, Written, Of)
         || Of <- [[Kind] || Kind <- Kinds, _ <- lists:seq(1, 3)] ++ lists:duplicate(5, Kinds)
        ],
        ct:pal("~p", [Found]),
        %% Of a snapshot each byte counts.
        ?assertEqual([], [One || {".dat", _, What} = One <- Found, element(1, What) =/= refused]),
        %% Not only bytes were changed that stand for nothing.
        ?assertNotEqual([], [What || {_, _, What} <- Found, What =/= {named, 0, 0}])
    end).

data_dir(Nodes) -> filename:join(erl_esdb_fault_nodes:dir(Nodes, n1), "data").

opened(Nodes) ->
    Options = #{engine => ra, data_dir => data_dir(Nodes)},
    erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb, start_store, [?STORE, Options], 30_000).

write(Nodes, From, To) ->
    lists:foreach(
        fun(N) ->
            Id = integer_to_binary(N),
            Event = erl_esdb_history:event(Id, #{n => N, pad => rand:bytes(300)}),
            Arguments = [?STORE, ~"stream", N - 1, [Event]],
            {ok, N} = erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_streams, append, Arguments)
        end,
        lists:seq(From, To)
    ).

%% Each event, or why there is none.
served(Nodes, Count) ->
    [
        case
            erl_esdb_fault_nodes:call(Nodes, n1, erl_esdb_streams, read, [
                ?STORE, ~"stream", N, 1, forward
            ])
        of
            {ok, [Event]} -> erl_esdb_history:seen(Event);
            Other -> Other
        end
     || N <- lists:seq(0, Count - 1)
    ].

changed_byte(Nodes, Written, Kinds) ->
    ok = erl_esdb_fault_nodes:kill(Nodes, n1),
    Files = [
        File
     || File <- filelib:wildcard(data_dir(Nodes) ++ "/**"),
        lists:member(filename:extension(File), Kinds),
        filelib:file_size(File) > 0
    ],
    %% The whole folder, as it is: what a start does to it is undone.
    Kept = data_dir(Nodes) ++ ".kept",
    "" = os:cmd("rm -rf '" ++ Kept ++ "' && cp -a '" ++ data_dir(Nodes) ++ "' '" ++ Kept ++ "'"),
    File = lists:nth(rand:uniform(length(Files)), Files),
    Offset = used(File),
    ok = erl_esdb_disk:flip(File, Offset),
    ok = erl_esdb_fault_nodes:boot(Nodes, n1),
    What = judged(opened(Nodes), filename:extension(File), Nodes, Written),
    ok = erl_esdb_fault_nodes:kill(Nodes, n1),
    ok = file:del_dir_r(data_dir(Nodes)),
    ok = file:rename(Kept, data_dir(Nodes)),
    ok = erl_esdb_fault_nodes:boot(Nodes, n1),
    {filename:extension(File), Offset, What}.

%% Of a byte that is not 0: large files have room that is not used.
used(File) ->
    {ok, Bytes} = file:read_file(File),
    Used = used(Bytes, 0, []),
    lists:nth(rand:uniform(length(Used)), Used).

used(<<0, Bytes/binary>>, Offset, Used) -> used(Bytes, Offset + 1, Used);
used(<<_, Bytes/binary>>, Offset, Used) -> used(Bytes, Offset + 1, [Offset | Used]);
used(<<>>, _Offset, Used) -> Used.

judged({error, Reason}, _Extension, _Nodes, _Written) ->
    {refused, Reason};
judged({ok, _}, Extension, Nodes, Written) ->
    Pairs = lists:zip(Written, served(Nodes, length(Written))),
    {Served, Missing} = lists:splitwith(fun({_, S}) -> S =/= {ok, []} end, Pairs),
    ?assert(Extension =:= ".wal" orelse Missing =:= [], {Extension, Missing}),
    ?assertEqual([], [Pair || {_, S} = Pair <- Missing, S =/= {ok, []}]),
    %% Nothing else than what was written, or the word that it is damaged.
    Other = [Pair || {W, S} = Pair <- Served, W =/= S],
    ?assertEqual([], [Pair || {_, S} = Pair <- Other, not is_named(S)]),
    {named, length(Other), length(Missing)}.

is_named({error, {corrupt_events, ~"stream", _}}) -> true;
is_named(_) -> false.
