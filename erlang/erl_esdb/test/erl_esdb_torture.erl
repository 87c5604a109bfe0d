-module(erl_esdb_torture).
-moduledoc """
A store on nodes that fail while clients use it, and the judgement on what they saw.

A *chapter* starts nodes and a store, lets a load run on it, does one fault after the other to them,
mends everything, and checks the history. What it does is drawn from its seed: which faults, to
which node, for how long. What comes of it depends on the machine, too, so a seed names a kind of
chapter and not each step of it.

```erlang
1> erl_esdb_torture:chapter(#{seed => 42, size => 1, faults => [kill, disk_full]}).
#{faults => #{kill => #{times => 1, acted => 1, operations => 1204}, ...}, violations => [], ...}
```

A fault counts (`acted`) where it was seen to act: a process is gone, bytes were held, a call of the
disk failed, events were stamped by a clock that is off. What is wrong only as long as a fault lasts
(`passing/0`) has to be over by itself afterwards: a node that has to be started again is a
violation, `restart_needed`. `main/1` goes on with chapter after chapter
until the time is over, tells of each violation with its seed, and prints a table.
""".

-export([main/1, chapter/1, faults/1, library/1, print/1, drawn_seed/0]).
-export_type([fault/0, options/0, report/0]).

-include("../include/erl_esdb.hrl").
-include("erl_esdb_history.hrl").

-type fault() ::
    kill
    | kill_all
    | power_loss
    | power_loss_all
    | freeze
    | disk_full
    | write_error
    | sync_error
    | short_write
    | slow_disk
    | clock
    | subscriber_killed
    | store_restarted
    | compaction
    | hung
    | kill_leader
    | kill_follower
    | cut_leader
    | cut_follower
    | cut_one_way
    | flap
    | delay
    | leader_changed
    | member_replaced
    | member_left
    | file_system_full.
-doc """
`size`: how many nodes. `faults`: what is done, in this order; without it `rounds` of those that
there are for this size are drawn. `library`: of `m:erl_esdb_disk`; without it no disk fails.
`megabytes`: each node has a file system of this size. `namespaces`: they have a network of their
own. `small_files`: of their logs (`m:erl_esdb_ra_small`); without it, of every second seed.
`options`: of the store. `patience`: milliseconds for a store to go on by itself (60,000).
""".
-type options() :: #{
    seed := integer(),
    dir := file:filename(),
    size => pos_integer(),
    faults => [fault()],
    rounds => pos_integer(),
    library => file:filename(),
    megabytes => pos_integer(),
    namespaces => boolean(),
    small_files => boolean(),
    patience => pos_integer(),
    options => map()
}.
-type counts() :: #{times := pos_integer(), acted := non_neg_integer(), operations := integer()}.
-doc "What Ra did on all nodes, as far as they lived to tell: looked at a few times a second.".
-type counts_of_ra() :: #{
    snapshots_written := non_neg_integer(),
    snapshot_installed := non_neg_integer(),
    minor_compactions := non_neg_integer(),
    major_compactions := non_neg_integer()
}.
-type report() :: #{
    seed := integer(),
    size := pos_integer(),
    faults := #{fault() => counts()},
    late := [{Subscription :: binary(), Missing :: pos_integer(), Info :: term()}],
    restarts := non_neg_integer(),
    counts := counts_of_ra(),
    operations := non_neg_integer(),
    events := non_neg_integer(),
    violations := [erl_esdb_history:violation()]
}.

-record(chapter, {
    options :: options(),
    nodes :: erl_esdb_fault_nodes:nodes(),
    history :: erl_esdb_history:history(),
    load :: erl_esdb_load:load(),
    stop :: atomics:atomics_ref(),
    followers = [] :: [erl_esdb_load:follower()],
    %% nodes that had to be started again to go on
    restarts = 0 :: non_neg_integer(),
    %% those that should not have had to
    stuck = [] :: [erl_esdb_history:violation()]
}).

-define(STORE, tortured).
%% Milliseconds: of the store's calls, for a store to be there again, and until it is looked again.
-define(TIMEOUT, 3_000).
-define(MENDED, 30_000).
-define(AGAIN, 50).
-define(DELIVERED, 30_000).
%% For a store to go on by itself; between two looks at what Ra has done.
-define(BY_ITSELF, 60_000).
-define(COUNT, 200).
%% Of a file system that is small, and large enough for a chapter.
-define(MEGABYTES, 24).

-doc """
The faults that there are for so many nodes. Besides there is `hung`, which is drawn by nobody: a
store that does not go on until its node is started again, which has to be found.
""".
-spec faults(pos_integer()) -> [fault()].
faults(1) ->
    [kill, freeze, clock, subscriber_killed, store_restarted, compaction | disks()];
faults(_) ->
    [kill_leader, kill_follower, kill_all, cut_leader, cut_follower, cut_one_way, flap, delay] ++
        [leader_changed, member_replaced, member_left, freeze, clock, subscriber_killed] ++
        [store_restarted, compaction, power_loss_all | disks()].

-spec disks() -> [fault()].
disks() -> [power_loss, disk_full, write_error, sync_error, short_write, slow_disk].

%% Those that end nothing: what they hinder goes on when they are over.
-spec passing() -> [fault()].
passing() ->
    [freeze, clock, slow_disk, subscriber_killed, compaction, hung, cut_leader, cut_follower] ++
        [cut_one_way, flap, delay, leader_changed].

-doc "A seed that nobody chose.".
-spec drawn_seed() -> pos_integer().
drawn_seed() -> rand:uniform(1_000_000_000).

-doc "The library of a disk that fails; where there is no compiler, that is said.".
-spec library(file:filename()) -> #{library => file:filename()}.
library(Dir) ->
    ok = filelib:ensure_path(Dir),
    case erl_esdb_disk:library(Dir) of
        {ok, Library} ->
            #{library => Library};
        {error, Reason} ->
            io:format(user, "no disk fails in what follows: ~tp~n", [Reason]),
            #{}
    end.

%% ---- a chapter

-spec chapter(options()) -> report().
chapter(Given) ->
    Options = maps:merge(#{size => 1, rounds => 4, options => #{}}, Given),
    #{seed := Seed, dir := Dir} = Options,
    _ = rand:seed(exsss, {Seed, 0, 0}),
    Faults = drawn_faults(Options),
    _ = file:del_dir_r(Dir),
    ok = filelib:ensure_path(Dir),
    Chapter = begun(Options),
    try
        Runner = running(Chapter),
        Counting = counting(Chapter#chapter.nodes),
        {Counts, Chapter1} = lists:mapfoldl(fun fault/2, Chapter, Faults),
        ok = mended(Chapter1),
        ok = atomics:put(Chapter1#chapter.stop, 1, 1),
        _ = ended(Runner),
        Report = #{violations := Violations} =
            report(Faults, Counts, counted_by(Counting), Chapter1),
        ok = lists:foreach(fun(_) -> kept(Chapter) end, lists:sublist(Violations, 1)),
        Report
    catch
        Class:Reason:Stack ->
            ok = kept(Chapter),
            erlang:raise(Class, Reason, Stack)
    after
        over(Chapter)
    end.

-spec drawn_faults(options()) -> [fault()].
drawn_faults(#{faults := Faults}) ->
    Faults;
drawn_faults(#{size := Size, rounds := Rounds} = Options) ->
    Disks =
        case Options of
            #{library := _} -> faults(Size);
            #{} -> faults(Size) -- [power_loss_all | disks()]
        end,
    Delays = [delay || #{namespaces := true} <- [Options]],
    Possible = [file_system_full || #{megabytes := _} <- [Options]] ++ (Disks -- Delays),
    [one_of(Possible) || _ <- lists:seq(1, Rounds)].

-spec begun(options()) -> #chapter{}.
begun(#{seed := Seed, size := Size} = Options) ->
    Names = [list_to_atom("n" ++ integer_to_list(N)) || N <- lists:seq(1, Size)],
    ok = lists:foreach(fun(Name) -> mounted(Name, Options) end, Names),
    Given = maps:with([dir, library, namespaces], Options),
    Nodes = erl_esdb_fault_nodes:start(Names, Given#{args => arguments(Options)}),
    History = erl_esdb_history:new(),
    Stop = atomics:new(1, []),
    Load = #{
        history => History,
        store => ?STORE,
        targets => fun() -> erl_esdb_fault_nodes:targets(Nodes) end,
        seed => Seed,
        clients => 1 + rand:uniform(9),
        streams => one_of([1, 2, 4, 4, 12]),
        operations => 1_000_000,
        stop => Stop
    },
    Chapter = #chapter{
        options = Options, nodes = Nodes, history = History, load = Load, stop = Stop
    },
    ok = founded(Names, Chapter),
    %% Nodes that have just joined may still believe that they lead.
    ok = erl_esdb_history:fault(History, joined),
    Chapter#chapter{
        followers = [
            erl_esdb_load:follow(Load, Wanted)
         || Wanted <- [{~"all", all}, {~"one", {stream, ~"stream-1"}}]
        ]
    }.

-spec arguments(options()) -> [string()].
arguments(#{seed := Seed, dir := Dir} = Options) ->
    case maps:get(small_files, Options, Seed rem 2 =:= 0) of
        true ->
            Small = filename:join(Dir, "small"),
            ok = erl_esdb_ra_small:beam(Small),
            ["-pa", Small];
        false ->
            []
    end.

-spec mounted(atom(), options()) -> ok.
mounted(Name, #{dir := Dir, megabytes := Size}) ->
    Folder = filename:join(Dir, Name),
    ok = filelib:ensure_path(Folder),
    Mount = io_lib:format("mount -t tmpfs -o size=~bm tmpfs '~ts'", [Size, Folder]),
    "" = os:cmd(lists:flatten(Mount)),
    ok;
mounted(_Name, #{}) ->
    ok.

%% What is on file systems of its own would be gone with them, and tells why something went wrong.
-spec kept(#chapter{}) -> ok.
kept(#chapter{nodes = Nodes, options = #{dir := Dir, megabytes := _}}) ->
    Copy = fun(Name) ->
        Folder = filename:join(Dir, Name),
        os:cmd("cp -a '" ++ Folder ++ "' '" ++ Folder ++ "-kept'")
    end,
    lists:foreach(Copy, erl_esdb_fault_nodes:names(Nodes));
kept(#chapter{}) ->
    ok.

-spec unmounted(atom(), options()) -> ok.
unmounted(Name, #{dir := Dir, megabytes := _}) ->
    "" = os:cmd("umount -l '" ++ filename:join(Dir, Name) ++ "'"),
    ok;
unmounted(_Name, #{}) ->
    ok.

%% The first node has the store, the others join it; in mode `cluster' they would by themselves.
-spec founded([atom(), ...], #chapter{}) -> ok.
founded([First | Others], #chapter{nodes = Nodes} = Chapter) ->
    {ok, _} = opened(First, Chapter),
    ok = lists:foreach(
        fun(Name) ->
            Node = erl_esdb_fault_nodes:node_of(Nodes, First),
            true = erl_esdb_fault_nodes:call(Nodes, Name, net_kernel, connect_node, [Node]),
            {ok, _} = opened(Name, Chapter),
            ok = erl_esdb_fault_nodes:call(Nodes, Name, erl_esdb, join, [?STORE, Node], 60_000)
        end,
        Others
    ).

%% Starts the store on a node, or finds that it runs.
-spec opened(atom(), #chapter{}) -> {ok, pid()} | {error, term()}.
opened(Name, #chapter{nodes = Nodes, options = #{options := More}} = Chapter) ->
    Dir = data_dir(Name, Chapter),
    Start = maps:merge(#{engine => ra, data_dir => Dir, timeout => ?TIMEOUT}, More),
    case called(Nodes, Name, erl_esdb, start_store, [?STORE, Start], 60_000) of
        {error, {already_started, Pid}} -> {ok, Pid};
        Other -> Other
    end.

-spec data_dir(atom(), #chapter{}) -> file:filename().
data_dir(Name, #chapter{nodes = Nodes}) ->
    filename:join(erl_esdb_fault_nodes:dir(Nodes, Name), "data").

-spec called(erl_esdb_fault_nodes:nodes(), atom(), module(), atom(), [term()], timeout()) ->
    term() | {error, {unreachable, term()}}.
called(Nodes, Name, Module, Function, Arguments, Timeout) ->
    try
        erl_esdb_fault_nodes:call(Nodes, Name, Module, Function, Arguments, Timeout)
    catch
        exit:Reason -> {error, {unreachable, Reason}}
    end.

-spec running(#chapter{}) -> {pid(), reference()}.
running(#chapter{load = Load}) -> spawn_monitor(fun() -> exit({done, erl_esdb_load:run(Load)}) end).

%% What Ra counts begins anew with each life of a node, and of its server.
-spec counting(erl_esdb_fault_nodes:nodes()) -> pid().
counting(Nodes) ->
    Names = [snapshots_written, snapshot_installed, minor_compactions, major_compactions],
    %% It ends with the nodes, where nobody asks.
    spawn(fun() -> counting(Nodes, #{}, #{Name => 0 || Name <- Names}) end).

-spec counting(erl_esdb_fault_nodes:nodes(), map(), counts_of_ra()) -> ok.
counting(Nodes, Before, Sums) ->
    Answers = [
        {Target, Counts}
     || {Target, Via} <- erl_esdb_fault_nodes:targets(Nodes), Counts <- [counts(Via)]
    ],
    Sums1 = lists:foldl(
        fun({Target, Counts}, Sum) -> risen(maps:get(Target, Before, #{}), Counts, Sum) end,
        Sums,
        Answers
    ),
    receive
        {counted, Pid} ->
            Pid ! {counted, self(), Sums1},
            ok
    after ?COUNT -> counting(Nodes, maps:merge(Before, maps:from_list(Answers)), Sums1)
    end.

-spec counts(erl_esdb_history:via()) -> #{atom() => non_neg_integer()}.
counts(Via) ->
    try
        Via(erl_esdb_test, ra_counts, [?STORE])
    catch
        _:_ -> #{}
    end.

-spec risen(map(), map(), counts_of_ra()) -> counts_of_ra().
risen(Before, Counts, Sums) ->
    Risen = maps:map(
        fun(Name, Count) ->
            case maps:get(Name, Before, 0) of
                Less when Less =< Count -> Count - Less;
                _ -> Count
            end
        end,
        Counts
    ),
    maps:merge_with(fun(_, A, B) -> A + B end, Sums, Risen).

-spec counted_by(pid()) -> counts_of_ra().
counted_by(Pid) ->
    Pid ! {counted, self()},
    receive
        {counted, Pid, Counts} -> Counts
    end.

-spec ended({pid(), reference()}) -> map().
ended({_, Ref}) ->
    receive
        {'DOWN', Ref, process, _, {done, Outcomes}} -> Outcomes
    end.

-spec over(#chapter{}) -> ok.
over(#chapter{nodes = Nodes, history = History, followers = Followers} = Chapter) ->
    ok = atomics:put(Chapter#chapter.stop, 1, 1),
    ok = lists:foreach(fun erl_esdb_load:unfollow/1, Followers),
    ok = erl_esdb_fault_nodes:stop(Nodes),
    Unmounted = fun(Name) -> unmounted(Name, Chapter#chapter.options) end,
    ok = lists:foreach(Unmounted, erl_esdb_fault_nodes:names(Nodes)),
    erl_esdb_history:delete(History).

%% ---- the end

-spec report([fault()], [{non_neg_integer(), integer()}], counts_of_ra(), #chapter{}) -> report().
report(Faults, Counts, Ra, #chapter{options = #{seed := Seed, size := Size}} = Chapter) ->
    #chapter{nodes = Nodes, history = History, load = Load} = Chapter,
    ok = documents(Chapter),
    Finals = [final(Name, Chapter) || Name <- erl_esdb_fault_nodes:names(Nodes)],
    [{_, Final, _} | _] = Finals,
    Late = erl_esdb_load:awaited(Load, Final, ?DELIVERED),
    #{
        seed => Seed,
        late => [{Name, Missing, subscription(Name, Chapter)} || {Name, Missing} <- Late],
        size => Size,
        faults => counted(lists:zip(Faults, Counts)),
        restarts => Chapter#chapter.restarts,
        counts => Ra,
        operations => erl_esdb_history:operations(History),
        events => length(Final#final.events),
        violations =>
            erl_esdb_history:check(erl_esdb_history:entries(History), Final) ++
            differing(Finals) ++ times(Finals) ++ Chapter#chapter.stuck
    }.

%% What each node says of a subscription that does not deliver, and who leads for it.
-spec subscription(binary(), #chapter{}) -> [tuple()].
subscription(Name, #chapter{nodes = Nodes, load = #{history := History}}) ->
    [Key | _] = [
        Key
     || #call{op = {subscribe, N, _, _}, outcome = {ok, Key}} <- erl_esdb_history:entries(History),
        N =:= Name
    ],
    Ask = fun(Node, Function, Arguments) ->
        called(Nodes, Node, erl_esdb_cluster, Function, Arguments, 10_000)
    end,
    [
        {
            Node,
            called(Nodes, Node, erl_esdb_subscriptions, info, [?STORE, Key], 10_000),
            Ask(Node, leader, [?STORE]),
            Ask(Node, known_leader, [?STORE])
        }
     || Node <- erl_esdb_fault_nodes:up(Nodes)
    ].

-spec counted([{fault(), {non_neg_integer(), integer()}}]) -> #{fault() => counts()}.
counted(Done) ->
    maps:map(
        fun(_, Counts) ->
            #{
                times => length(Counts),
                acted => length([acted || {Acted, _} <- Counts, Acted > 0]),
                operations => lists:sum([Operations || {_, Operations} <- Counts])
            }
        end,
        maps:groups_from_list(fun({Fault, _}) -> Fault end, fun({_, Count}) -> Count end, Done)
    ).

%% What the documents are in the end is read like anything else.
-spec documents(#chapter{}) -> ok.
documents(#chapter{nodes = Nodes, history = History}) ->
    [Name | _] = erl_esdb_fault_nodes:up(Nodes),
    lists:foreach(
        fun(N) ->
            Request = {get, {~"documents", N}, linearizable},
            Via = erl_esdb_fault_nodes:via(Nodes, Name),
            {ok, _} = documented(
                erl_esdb_history:call(History, {the_end, Name}, Request, ?STORE, Via)
            )
        end,
        [1, 2, 3]
    ).

-spec documented(term()) -> {ok, term()} | term().
documented({error, not_found}) -> {ok, none};
documented(Answer) -> Answer.

%% All events as a node has them, with their times.
-spec final(atom(), #chapter{}) -> {atom(), #final{}, [{binary(), integer()}]}.
final(Name, #chapter{nodes = Nodes}) ->
    Times = ets:new(times, [public, ordered_set]),
    Via = fun(Module, Function, Arguments) ->
        Answer = erl_esdb_fault_nodes:call(Nodes, Name, Module, Function, Arguments, 60_000),
        true = ets:insert(Times, timed(Answer)),
        Answer
    end,
    %% A read that takes too long is asked again, as any client would.
    {ok, Final} = until(fun() -> erl_esdb_history:final(?STORE, Via) end, ?DELIVERED),
    Timed = [Time || {_, Time} <- ets:tab2list(Times)],
    true = ets:delete(Times),
    {Name, Final, Timed}.

-spec timed(term()) -> [{non_neg_integer(), {binary(), integer()}}].
timed({ok, Events}) ->
    [
        {Position, {Stream, Time}}
     || #event{position = Position, stream_id = Stream, epoch_us = Time} <- Events
    ];
timed(_) ->
    [].

-spec differing([{atom(), #final{}, term()}]) -> [erl_esdb_history:violation()].
differing([{First, Final, _} | Others]) ->
    [
        {members_differ, {First, Name, only(Final, F), only(F, Final)}, [Final, F]}
     || {Name, F, _} <- Others, F =/= Final
    ].

-spec only(#final{}, #final{}) -> [#seen{}].
only(#final{events = A}, #final{events = B}) -> lists:sort(A) -- lists:sort(B).

%% The time of a stream does not run backwards, whatever the clocks do.
-spec times([{atom(), #final{}, [{binary(), integer()}]}]) -> [erl_esdb_history:violation()].
times([{_, Final, Times} | _]) ->
    Streams = maps:groups_from_list(fun({S, _}) -> S end, fun({_, T}) -> T end, Times),
    [
        {time_backwards, Stream, [Final]}
     || Stream := InOrder <- Streams, InOrder =/= lists:sort(InOrder)
    ].

%% ---- faults

%% Whether it acted, and how many calls were made meanwhile.
-spec fault(fault(), #chapter{}) -> {{non_neg_integer(), integer()}, #chapter{}}.
fault(Fault, #chapter{history = History} = Chapter) ->
    ok = hold(300, 1000),
    ok = erl_esdb_history:fault(History, Fault),
    Before = erl_esdb_history:operations(History),
    Acted = act(Fault, Chapter),
    Operations = erl_esdb_history:operations(History) - Before,
    {{Acted, Operations}, recovered(by_itself(Fault, Chapter))}.

%% Whether what has passed left nothing behind, on any node.
-spec by_itself(fault(), #chapter{}) -> #chapter{}.
by_itself(Fault, #chapter{nodes = Nodes, stuck = Stuck, options = Options} = Chapter) ->
    case lists:member(Fault, passing()) of
        false ->
            Chapter;
        true ->
            ok = erl_esdb_fault_nodes:heal(Nodes),
            Until = erl_esdb_deadline:in(maps:get(patience, Options, ?BY_ITSELF)),
            Left = [
                {restart_needed, {Fault, Name, Why}, []}
             || Name <- erl_esdb_fault_nodes:names(Nodes),
                {error, Why} <- [until_over(fun() -> probed(Name, Chapter) end, Until)]
            ],
            Chapter#chapter{stuck = Left ++ Stuck}
    end.

-spec hold(pos_integer(), pos_integer()) -> ok.
hold(From, To) -> wait(From + rand:uniform(To - From)).

-spec wait(non_neg_integer()) -> ok.
wait(Time) ->
    receive
    after Time -> ok
    end.

-spec one_of([Element, ...]) -> Element.
one_of(List) -> lists:nth(rand:uniform(length(List)), List).

-spec act(fault(), #chapter{}) -> Acted :: non_neg_integer().
act(kill, Chapter) ->
    killed([any(Chapter)], Chapter);
act(kill_all, #chapter{nodes = Nodes} = Chapter) ->
    killed(erl_esdb_fault_nodes:names(Nodes), Chapter);
act(kill_leader, Chapter) ->
    killed([leader(Chapter)], Chapter);
act(kill_follower, Chapter) ->
    killed([follower(Chapter)], Chapter);
act(power_loss, Chapter) ->
    lost([any(Chapter)], Chapter);
act(power_loss_all, #chapter{nodes = Nodes} = Chapter) ->
    lost(erl_esdb_fault_nodes:names(Nodes), Chapter);
act(freeze, #chapter{nodes = Nodes} = Chapter) ->
    Name = any(Chapter),
    ok = erl_esdb_fault_nodes:freeze(Nodes, Name),
    ok = hold(200, 3000),
    ok = erl_esdb_fault_nodes:thaw(Nodes, Name),
    1;
act(disk_full, Chapter) ->
    failing([write_enospc], Chapter);
act(write_error, Chapter) ->
    failing([write_eio], Chapter);
act(sync_error, Chapter) ->
    failing([sync_eio], Chapter);
act(short_write, Chapter) ->
    failing([write_short], Chapter);
act(slow_disk, Chapter) ->
    failing([write_slow, sync_slow], Chapter);
act(clock, Chapter) ->
    jumped(any(Chapter), Chapter);
act(subscriber_killed, #chapter{nodes = Nodes}) ->
    lists:sum([
        called(Nodes, Name, erl_esdb_subscriber, kill_all, [], 5000)
     || Name <- erl_esdb_fault_nodes:up(Nodes)
    ]);
act(compaction, #chapter{nodes = Nodes} = Chapter) ->
    Name = leader(Chapter),
    Call = fun(Function, Time) -> called(Nodes, Name, erl_esdb_test, Function, [?STORE], Time) end,
    Before = Call(snapshot_index, 10_000),
    _ = Call(snapshot_due, 30_000),
    Written = until(fun() ->
        case Call(snapshot_index, 10_000) of
            Index when is_integer(Index), Index > Before -> {ok, Index};
            Other -> {error, Other}
        end
    end),
    _ = [
        called(Nodes, Up, erl_esdb_test, compact, [?STORE], 10_000)
     || Up <- erl_esdb_fault_nodes:up(Nodes)
    ],
    length([written || {ok, _} <- [Written]]);
act(hung, #chapter{nodes = Nodes} = Chapter) ->
    Name = any(Chapter),
    Server = called(Nodes, Name, erl_esdb_test, orderer, [?STORE], 10_000),
    length([hung || called(Nodes, Name, sys, suspend, [Server], 10_000) =:= ok]);
act(store_restarted, #chapter{nodes = Nodes} = Chapter) ->
    Name = any(Chapter),
    Stopped = called(Nodes, Name, erl_esdb, stop_store, [?STORE], 30_000),
    ok = hold(1, 500),
    {ok, _} = until(fun() -> opened(Name, Chapter) end),
    length([stopped || Stopped =:= ok]);
act(cut_leader, Chapter) ->
    cut(fun(Nodes) -> erl_esdb_fault_nodes:cut(Nodes, [leader(Chapter)]) end, Chapter);
act(cut_follower, Chapter) ->
    cut(fun(Nodes) -> erl_esdb_fault_nodes:cut(Nodes, [follower(Chapter)]) end, Chapter);
act(cut_one_way, Chapter) ->
    cut(fun(Nodes) -> erl_esdb_fault_nodes:cut_one_way(Nodes, [any(Chapter)]) end, Chapter);
act(delay, Chapter) ->
    Time = 20 + rand:uniform(80),
    cut(fun(Nodes) -> erl_esdb_fault_nodes:delay(Nodes, [any(Chapter)], Time) end, Chapter);
act(flap, #chapter{nodes = Nodes} = Chapter) ->
    Name = any(Chapter),
    Acted = erl_esdb_fault_nodes:acted(Nodes),
    ok = lists:foreach(
        fun(_) ->
            ok = erl_esdb_fault_nodes:cut(Nodes, [Name]),
            ok = hold(20, 600),
            ok = erl_esdb_fault_nodes:heal(Nodes),
            ok = hold(20, 600)
        end,
        lists:seq(1, 3 + rand:uniform(5))
    ),
    erl_esdb_fault_nodes:acted(Nodes) - Acted;
act(leader_changed, #chapter{nodes = Nodes} = Chapter) ->
    Before = leader(Chapter),
    To = erl_esdb_fault_nodes:node_of(Nodes, follower(Chapter)),
    _ = called(Nodes, Before, erl_esdb, transfer_leadership, [?STORE, To], 10_000),
    ok = hold(100, 1000),
    length([changed || leader(Chapter) =/= Before]);

%% A dead node is removed, and comes back with nothing.
act(member_replaced, #chapter{nodes = Nodes} = Chapter) ->
    Name = follower(Chapter),
    ok = erl_esdb_fault_nodes:hide(Nodes, Name),
    ok = erl_esdb_fault_nodes:kill(Nodes, Name),
    ok = file:del_dir_r(data_dir(Name, Chapter)),
    Node = erl_esdb_fault_nodes:node_of(Nodes, Name),
    ok = changed(Chapter, fun(Leader) ->
        called(Nodes, Leader, erl_esdb, force_remove, [?STORE, Node], 40_000)
    end),
    ok = hold(1, 1000),
    ok = erl_esdb_fault_nodes:boot(Nodes, Name),
    joined(Name, Chapter);
act(member_left, #chapter{nodes = Nodes} = Chapter) ->
    Name = follower(Chapter),
    ok = erl_esdb_fault_nodes:hide(Nodes, Name),
    ok = changed(Chapter, fun(_) ->
        called(Nodes, Name, erl_esdb, leave, [?STORE], 40_000)
    end),
    ok = hold(1, 1000),
    _ = called(Nodes, Name, erl_esdb, drop, [?STORE], 40_000),
    joined(Name, Chapter);
%% A file takes what room is left, until it is removed.
act(file_system_full, #chapter{nodes = Nodes} = Chapter) ->
    Ballast = filename:join(erl_esdb_fault_nodes:dir(Nodes, any(Chapter)), "ballast"),
    {ok, File} = file:open(Ballast, [write, raw, binary]),
    Full = filled(File, binary:copy(<<0>>, 65_536)),
    ok = hold(300, 3000),
    _ = file:close(File),
    ok = file:delete(Ballast),
    Full.

-spec filled(file:io_device(), binary()) -> 0 | 1.
filled(File, Bytes) ->
    case file:write(File, Bytes) of
        ok -> filled(File, Bytes);
        {error, enospc} -> 1
    end.

%% A change of the members is tried until it is done; what was done by a try before is done.
-spec changed(#chapter{}, fun((Leader :: atom()) -> ok | {error, term()})) -> ok.
changed(Chapter, Change) ->
    {ok, done} = until(fun() ->
        case Change(leader(Chapter)) of
            ok -> {ok, done};
            {error, {not_member, _}} -> {ok, done};
            {error, {already_member, _}} -> {ok, done};
            {error, Reason} -> {error, Reason}
        end
    end),
    ok.

-spec joined(atom(), #chapter{}) -> 1.
joined(Name, #chapter{nodes = Nodes} = Chapter) ->
    {ok, _} = until(fun() -> opened(Name, Chapter) end),
    ok = changed(Chapter, fun(Leader) ->
        Node = erl_esdb_fault_nodes:node_of(Nodes, Leader),
        called(Nodes, Name, erl_esdb, join, [?STORE, Node], 40_000)
    end),
    ok = erl_esdb_fault_nodes:show(Nodes, Name),
    1.

%% Nodes that are killed, and are down for a while.
-spec killed([atom()], #chapter{}) -> non_neg_integer().
killed(Names, #chapter{nodes = Nodes}) ->
    ok = lists:foreach(fun(Name) -> erl_esdb_fault_nodes:kill(Nodes, Name) end, Names),
    ok = hold(1, 2000),
    length(Names).

%% It acts where something was lost.
-spec lost([atom()], #chapter{}) -> non_neg_integer().
lost(Names, #chapter{nodes = Nodes}) ->
    ok = lists:foreach(fun(Name) -> erl_esdb_fault_nodes:kill(Nodes, Name) end, Names),
    Lost = [erl_esdb_disk:power_loss(erl_esdb_fault_nodes:disk(Nodes, Name)) || Name <- Names],
    lists:sum([Bytes || {_, Bytes} <- Lost]).

-spec failing([erl_esdb_disk:fault()], #chapter{}) -> non_neg_integer().
failing(Faults, #chapter{nodes = Nodes} = Chapter) ->
    Disk = erl_esdb_fault_nodes:disk(Nodes, any(Chapter)),
    Before = [erl_esdb_disk:acted(Disk, Fault) || Fault <- Faults],
    ok = erl_esdb_disk:fail(Disk, Faults, 1000 * rand:uniform(30)),
    ok = hold(300, 3000),
    ok = erl_esdb_disk:fail(Disk, [], 0),
    lists:sum([erl_esdb_disk:acted(Disk, Fault) || Fault <- Faults]) - lists:sum(Before).

%% It acts where events were written meanwhile, on this node or, as far as it leads, on any.
-spec jumped(atom(), #chapter{}) -> non_neg_integer().
jumped(Name, #chapter{nodes = Nodes, history = History}) ->
    Written = fun() ->
        length([
            done
         || #call{op = {append, _, _}, outcome = {ok, _}, node = {N, _}} <-
                erl_esdb_history:entries(History),
            N =:= Name
        ])
    end,
    Before = Written(),
    ok = lists:foreach(
        fun(_) ->
            Off = one_of([-86_400_000_000, -1_000_000, 1_000_000, 86_400_000_000]),
            _ = called(Nodes, Name, erl_esdb_clock, jump, [Off], 5000),
            ok = hold(50, 500)
        end,
        lists:seq(1, 3)
    ),
    Acted = Written() - Before,
    _ = called(Nodes, Name, erl_esdb_clock, back, [], 5000),
    Acted.

-spec cut(fun((erl_esdb_fault_nodes:nodes()) -> ok), #chapter{}) -> non_neg_integer().
cut(Cut, #chapter{nodes = Nodes}) ->
    Before = erl_esdb_fault_nodes:acted(Nodes),
    ok = Cut(Nodes),
    ok = hold(500, 6000),
    ok = erl_esdb_fault_nodes:heal(Nodes),
    erl_esdb_fault_nodes:acted(Nodes) - Before.

-spec any(#chapter{}) -> atom().
any(#chapter{nodes = Nodes}) -> one_of(erl_esdb_fault_nodes:names(Nodes)).

-spec leader(#chapter{}) -> atom().
leader(#chapter{nodes = Nodes}) ->
    {ok, Leader} = until(fun() ->
        {{Asked, _}, _} = one_of(erl_esdb_fault_nodes:targets(Nodes)),
        case called(Nodes, Asked, erl_esdb, leader, [?STORE], 5000) of
            {ok, Node} when Node =/= undefined -> {ok, Node};
            Other -> {error, Other}
        end
    end),
    [Name] = [
        N
     || N <- erl_esdb_fault_nodes:names(Nodes), erl_esdb_fault_nodes:node_of(Nodes, N) =:= Leader
    ],
    Name.

-spec follower(#chapter{}) -> atom().
follower(#chapter{nodes = Nodes} = Chapter) ->
    one_of(erl_esdb_fault_nodes:names(Nodes) -- [leader(Chapter)]).

%% ---- mending

%% Everything is as it should be; a node whose store does not answer in time is started again, as
%% who operates it would.
-spec recovered(#chapter{}) -> #chapter{}.
recovered(#chapter{nodes = Nodes} = Chapter) ->
    ok = erl_esdb_fault_nodes:heal(Nodes),
    Down = erl_esdb_fault_nodes:names(Nodes) -- erl_esdb_fault_nodes:up(Nodes),
    ok = lists:foreach(fun(Name) -> erl_esdb_fault_nodes:boot(Nodes, Name) end, Down),
    %% Not one answers before there is a majority.
    _ = erl_esdb_test:concurrently([
        fun() -> opened(Name, Chapter) end
     || Name <- erl_esdb_fault_nodes:names(Nodes)
    ]),
    lists:foldl(fun answering/2, Chapter, erl_esdb_fault_nodes:names(Nodes)).

-spec answering(atom(), #chapter{}) -> #chapter{}.
answering(Name, #chapter{nodes = Nodes, restarts = Restarts} = Chapter) ->
    case until(fun() -> answers(Name, Chapter) end, ?MENDED div 3) of
        {ok, _} ->
            Chapter;
        {error, Before} ->
            ok = erl_esdb_fault_nodes:kill(Nodes, Name),
            ok = erl_esdb_fault_nodes:boot(Nodes, Name),
            case until(fun() -> answers(Name, Chapter) end) of
                {ok, _} -> Chapter#chapter{restarts = Restarts + 1};
                {error, After} -> silent(Name, Before, After, Chapter)
            end
    end.

%% Why a store does not answer, as far as its node says: the files stay where they are.
-spec silent(atom(), term(), term(), #chapter{}) -> no_return().
silent(Name, Before, After, #chapter{nodes = Nodes, options = #{seed := Seed}} = Chapter) ->
    Files = [
        {File, filelib:file_size(File)}
     || File <- filelib:wildcard(data_dir(Name, Chapter) ++ "/**"), filelib:is_regular(File)
    ],
    Said = lists:join("\n", erl_esdb_fault_nodes:said(Nodes, Name)),
    io:format(user, "seed ~b: the store of ~s does not answer~n~tp~n~tp~n~tp~n~ts~n", [
        Seed, Name, Before, After, Files, Said
    ]),
    error({does_not_answer, Name, After}).

%% A store that gave up is started again.
-spec answers(atom(), #chapter{}) -> {ok, term()} | {error, term()}.
answers(Name, Chapter) ->
    maybe
        {ok, _} ?= opened(Name, Chapter),
        probed(Name, Chapter)
    else
        Error -> {error, Error}
    end.

-spec probed(atom(), #chapter{}) -> {ok, term()} | {error, term()}.
probed(Name, #chapter{nodes = Nodes, history = History}) ->
    Id = <<"probe-", (integer_to_binary(erlang:unique_integer([positive])))/binary>>,
    Request = {append, [{~"probes", ?ANY_VERSION, [erl_esdb_history:event(Id, #{})]}], #{}},
    Via = erl_esdb_fault_nodes:via(Nodes, Name),
    case erl_esdb_history:call(History, {probe, Name}, Request, ?STORE, Via) of
        {ok, Result} -> {ok, Result};
        Error -> {error, Error}
    end.

-spec until(fun(() -> {ok, Result} | {error, term()})) -> {ok, Result} | {error, term()}.
until(Fun) -> until(Fun, ?MENDED).

-spec until(fun(() -> {ok, Result} | term()), timeout()) -> {ok, Result} | {error, term()}.
until(Fun, Timeout) -> until_over(Fun, erl_esdb_deadline:in(Timeout)).

-spec until_over(fun(() -> {ok, Result} | term()), erl_esdb_deadline:deadline()) ->
    {ok, Result} | {error, term()}.
until_over(Fun, Until) ->
    case Fun() of
        {ok, Result} ->
            {ok, Result};
        Other ->
            case erl_esdb_deadline:is_over(Until) of
                true ->
                    {error, Other};
                false ->
                    ok = wait(?AGAIN),
                    until_over(Fun, Until)
            end
    end.

-spec mended(#chapter{}) -> ok.
mended(Chapter) ->
    _ = recovered(Chapter),
    ok.

%% ---- from a shell

-doc """
`make torture MINUTES=n SEED=s`: chapters until the time is over, from this seed on. Ends with 1
where there was a violation.
""".
-spec main([string()]) -> no_return().
main([Minutes, Seed]) ->
    ok = logger:set_primary_config(level, none),
    Dir = filename:join(os:getenv("TMPDIR", "/tmp"), "esdb_torture." ++ os:getpid()),
    Until = erl_esdb_deadline:in(list_to_integer(Minutes) * 60_000),
    Given = maps:merge(library(Dir), namespaces()),
    First =
        case Seed of
            "drawn" -> drawn_seed();
            _ -> list_to_integer(Seed)
        end,
    io:format("seed ~b, ~ts minutes, files below ~ts~n", [First, Minutes, Dir]),
    Reports = chapters(Until, First, Dir, Given),
    ok = print(Reports),
    case [Seed1 || #{seed := Seed1, violations := [_ | _]} <- Reports] of
        [] ->
            ok = file:del_dir_r(Dir),
            halt(0);
        Seeds ->
            io:format("violations with the seeds ~0tp~n", [Seeds]),
            halt(1)
    end.

-spec chapters(erl_esdb_deadline:deadline(), integer(), file:filename(), map()) -> [report()].
chapters(Until, Seed, Dir, Given) ->
    Size = one_of_seed(Seed, sizes()),
    Below = filename:join(Dir, integer_to_list(Seed)),
    Own = #{namespaces => Size > 1 andalso is_map_key(namespaces, Given) andalso Seed rem 2 =:= 0},
    Options = maps:merge(maps:merge(Given, file_systems()), Own#{
        seed => Seed, size => Size, dir => Below
    }),
    Report = told(tried(Options)),
    case erl_esdb_deadline:is_over(Until) of
        true -> [Report];
        false -> [Report | chapters(Until, Seed + 1, Dir, Given)]
    end.

-spec one_of_seed(integer(), [Element, ...]) -> Element.
one_of_seed(Seed, List) -> lists:nth(1 + erlang:phash2({size, Seed}, length(List)), List).

%% Only who is root may mount any.
-spec file_systems() -> #{megabytes => pos_integer()}.
file_systems() ->
    case os:cmd("id -u") of
        "0\n" -> #{megabytes => ?MEGABYTES};
        _ -> #{}
    end.

%% Every second chapter of several nodes has them, where there are any.
-spec namespaces() -> #{namespaces => true}.
namespaces() ->
    case erl_esdb_netns:available() of
        ok ->
            #{namespaces => true};
        {error, Said} ->
            io:format("no network namespaces in what follows: ~ts~n", [string:trim(Said)]),
            #{}
    end.

%% How many nodes there are; with one nothing is to be cut off.
-spec sizes() -> [pos_integer(), ...].
sizes() -> [1, 3, 3].

%% What goes wrong with the chapter itself is told like a violation.
-spec tried(options()) -> report().
tried(#{seed := Seed, size := Size, dir := Dir} = Options) ->
    try chapter(Options) of
        #{violations := []} = Report ->
            ok = file:del_dir_r(Dir),
            Report;
        Report ->
            Report
    catch
        Class:Reason:Stack ->
            #{
                seed => Seed,
                size => Size,
                faults => #{},
                late => [],
                restarts => 0,
                counts => #{},
                operations => 0,
                events => 0,
                violations => [{chapter_failed, {Class, Reason, Stack}, []}]
            }
    end.

-spec told(report()) -> report().
told(#{seed := Seed, size := Size, faults := Faults, violations := Violations} = Report) ->
    #{operations := Operations, events := Events, restarts := Restarts} = Report,
    io:format("seed ~b, nodes ~b: ~b operations, ~b events, ~b restarts, ~b violations, ~0tp~n", [
        Seed, Size, Operations, Events, Restarts, length(Violations), maps:keys(Faults)
    ]),
    _ = [io:put_chars(erl_esdb_history:format(V)) || V <- lists:sublist(Violations, 10)],
    io:format("    ~0tp~n", [maps:get(counts, Report)]),
    _ = [io:format("late: ~0tp~n", [Late]) || Late <- maps:get(late, Report)],
    Report.

-doc "The table of what was done.".
-spec print([report()]) -> ok.
print(Reports) ->
    Rows = lists:foldl(fun rows/2, #{}, Reports),
    io:format("~n~-20s ~8s ~8s ~12s ~12s~n", [
        "fault", "times", "acted", "operations", "violations"
    ]),
    maps:foreach(
        fun(Fault, {Times, Acted, Operations, Violations}) ->
            io:format("~-20s ~8b ~8b ~12b ~12b~n", [Fault, Times, Acted, Operations, Violations])
        end,
        Rows
    ),
    io:format("~-20s ~8b ~8s ~12b ~12b~n", [
        chapters,
        length(Reports),
        "",
        lists:sum([O || #{operations := O} <- Reports]),
        lists:sum([length(V) || #{violations := V} <- Reports])
    ]),
    Add = fun(#{counts := Counts}, Sum) ->
        maps:merge_with(fun(_, A, B) -> A + B end, Sum, Counts)
    end,
    Restarts = #{restarts => lists:sum([Restarts || #{restarts := Restarts} <- Reports])},
    maps:foreach(
        fun(What, Count) -> io:format("~-20s ~8b~n", [What, Count]) end,
        lists:foldl(Add, Restarts, Reports)
    ).

-spec rows(report(), map()) -> map().
rows(#{faults := Faults, violations := Violations}, Rows) ->
    maps:fold(
        fun(Fault, #{times := Times, acted := Acted, operations := Operations}, Sum) ->
            {T, A, O, V} = maps:get(Fault, Sum, {0, 0, 0, 0}),
            Sum#{Fault => {T + Times, A + Acted, O + Operations, V + length(Violations)}}
        end,
        Rows,
        Faults
    ).
