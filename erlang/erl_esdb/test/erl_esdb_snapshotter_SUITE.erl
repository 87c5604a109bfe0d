-module(erl_esdb_snapshotter_SUITE).
-moduledoc "Snapshots that a store takes by itself, whatever the folds of its policies do.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_test, [await/1, events/1, events/2]).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

cases() -> [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("b_", atom_to_list(F))].

init_per_testcase(_Case, Config) -> [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

append(Store, Stream, Events) ->
    {ok, Version} = erl_esdb_streams:append(Store, Stream, any, Events),
    Version.

set(Store, Pattern, Policy) -> ok = erl_esdb_snapshots:set_policy(Store, Pattern, Policy).

policy(Every, Keep) -> #{every => Every, keep => Keep, fold => {?MODULE, count, []}}.

count(#event{data = #{n := N}}, State) -> State#{sum => maps:get(sum, State, 0) + N}.

latest(Store, Stream) ->
    case erl_esdb_snapshots:load(Store, Stream) of
        {ok, #snapshot{version = Version, data = State}} -> {Version, State};
        {error, not_found} -> none
    end.

kept(Store, Stream) ->
    {ok, Versions} = erl_esdb_snapshots_store:versions(Store, Stream),
    Versions.

process(Store) ->
    case erl_esdb_volatile:get(Store, erl_esdb_snapshotter) of
        {ok, Pid} -> Pid;
        {error, not_found} -> none
    end.

%% Returns when the process has seen all that is in the log, and has nothing more to do.
settled(Store) -> await(fun() -> is_settled(Store) end).

%% With each policy that acts it is at the end, and has nothing to do.
is_settled(Store) ->
    {ok, Policies} = erl_esdb_snapshots:list_policies(Store),
    {ok, End} = erl_esdb_store:next_position(Store),
    Acting = #{P => Policy || P := #{automatic := true} = Policy <- Policies},
    try
        #{P => Policy || P := {Policy, Next} <- places(Store), Next >= End} =:= Acting
    catch
        exit:_ -> false
    end.

%% How far it is with each policy; with one that it has work for, nowhere.
places(Store) ->
    {state, _, _, _, Places, _, _} = sys:get_state(process(Store)),
    #{Pattern => {element(2, Place), place(Place)} || Pattern := Place <- Places}.

place({place, _, Next, _, [], undefined, _, _}) -> Next;
place(_) -> -1.

%% ---- when

b_snapshots_come_by_themselves(Config) ->
    Store = store(Config),
    set(Store, ~"order-*", policy(10, 2)),
    [
        begin
            V = append(Store, ~"order-1", events(10 * I, 10 * I + 9)),
            await(fun() -> erl_esdb_snapshots:exists_at(Store, ~"order-1", V) end)
        end
     || I <- lists:seq(0, 3)
    ],
    await(fun() -> kept(Store, ~"order-1") =:= [29, 39] end),
    ?assertEqual({39, #{sum => lists:sum(lists:seq(0, 39))}}, latest(Store, ~"order-1")),
    _ = append(Store, ~"order-1", events(9)),
    _ = append(Store, ~"other-1", events(100)),
    _ = append(Store, ~"order-2", events(10)),
    await(fun() -> latest(Store, ~"order-2") =/= none end),
    settled(Store),
    ?assertEqual([29, 39], kept(Store, ~"order-1")),
    ?assertEqual([], kept(Store, ~"other-1")).

%% Also of streams that nobody writes to any more, however long the log is.
b_a_policy_holds_for_what_is_there(Config) ->
    Store = store(Config),
    [append(Store, <<"s-", (I rem 7 + $0)>>, events(1)) || I <- lists:seq(0, 2_999)],
    set(Store, ~"s-*", policy(100, 1)),
    settled(Store),
    [?assertEqual([428], kept(Store, <<"s-", I>>)) || I <- "0123"],
    %% A policy that was changed is looked at anew.
    set(Store, ~"s-*", (policy(100, 1))#{every => 500}),
    settled(Store),
    ?assertEqual([428], kept(Store, ~"s-0")),
    ok = erl_esdb_snapshots:delete(Store, ~"s-0"),
    set(Store, ~"s-*", policy(200, 1)),
    settled(Store),
    ?assertEqual([428], kept(Store, ~"s-0")).

b_the_closest_policy_acts(Config) ->
    Store = store(Config),
    set(Store, ~"*", policy(1, 1)),
    set(Store, ~"order-*", policy(100, 1)),
    set(Store, ~"order-by-hand", (policy(1, 1))#{automatic => false}),
    [append(Store, S, events(10)) || S <- [~"order-1", ~"order-by-hand", ~"s"]],
    settled(Store),
    ?assertEqual([[], [], [9]], [kept(Store, S) || S <- [~"order-1", ~"order-by-hand", ~"s"]]),
    ?assertEqual({saved, 9}, erl_esdb_snapshots:maybe_snapshot(Store, ~"order-by-hand")).

b_a_policy_that_is_removed(Config) ->
    Store = store(Config),
    Key = {snapshot_policy, ~"*"},
    set(Store, ~"*", policy(1, infinity)),
    _ = [append(Store, ~"s", events(1)) || _ <- lists:seq(1, 1001)],
    settled(Store),
    await(fun() -> element(1, erl_esdb_store:checkpoint(Store, Key)) =:= ok end),
    ok = erl_esdb_snapshots:delete_policy(Store, ~"*"),
    await(fun() -> places(Store) =:= #{} end),
    Before = kept(Store, ~"s"),
    _ = append(Store, ~"s", events(1)),
    set(Store, ~"t", policy(1, 1)),
    _ = append(Store, ~"t", events(1)),
    await(fun() -> latest(Store, ~"t") =/= none end),
    ?assertEqual(Before, kept(Store, ~"s")),
    ?assertEqual({error, not_found}, erl_esdb_store:checkpoint(Store, Key)).

%% Whatever a longer stream has left behind that had the name before.
b_a_stream_that_is_made_again(Config) ->
    Store = store(Config),
    set(Store, ~"s", policy(10, infinity)),
    Of = fun(N, Version) ->
        append(Store, ~"s", [erl_esdb_test:event(N) || _ <- lists:seq(1, 10)]),
        await(fun() -> erl_esdb_snapshots:exists_at(Store, ~"s", Version) end),
        settled(Store)
    end,
    [Of(1000, Version) || Version <- lists:seq(9, 49, 10)],
    ok = erl_esdb_streams:delete(Store, ~"s"),
    append(Store, ~"s", [erl_esdb_test:event(1) || _ <- lists:seq(1, 10)]),
    settled(Store),
    ?assertEqual({9, #{sum => 10}}, latest(Store, ~"s")),
    [Of(1, Version) || Version <- [19, 29]],
    ?assertEqual([9, 19, 29], kept(Store, ~"s")),
    ?assertEqual({29, #{sum => 30}}, latest(Store, ~"s")).

%% What is wrong with a snapshot holds up no other one: it is told, as where one cannot be made.
b_a_snapshot_that_cannot_be_read(_Config) ->
    Store = signing_store(?FUNCTION_NAME),
    append(Store, ~"bad", events(10)),
    settled(Store),
    forge(Store, ~"bad", 9),
    append(Store, ~"bad", events(1)),
    append(Store, ~"good", events(10)),
    settled(Store),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertEqual([9], kept(Store, ~"good")),
    ?assertMatch(
        [{_, _, #{stream_id := ~"bad", version := 10, reason := {integrity_violation, _}}}],
        erl_esdb_test:collected(?FUNCTION_NAME)
    ),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    ok = erl_esdb:stop_store(Store).

%% Nor is its state loaded to see that none is due: one that cannot be read is met when it is.
b_a_snapshot_is_not_read_for_each_event(_Config) ->
    Store = signing_store(?FUNCTION_NAME),
    append(Store, ~"s", events(10)),
    settled(Store),
    append(Store, ~"s", events(1)),
    settled(Store),
    forge(Store, ~"s", 9),
    [begin append(Store, ~"s", events(1)), settled(Store) end || _ <- lists:seq(11, 18)],
    ?assertEqual([], erl_esdb_test:collected(?FUNCTION_NAME)),
    append(Store, ~"s", events(1)),
    settled(Store),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertMatch(
        [{_, _, #{version := 19, reason := {integrity_violation, _}}}],
        erl_esdb_test:collected(?FUNCTION_NAME)
    ),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    ok = erl_esdb:stop_store(Store).

%% That says by this name what it cannot do, and not in the log.
signing_store(Name) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    ok = logger:add_handler_filter(default, Name, {fun(_, _) -> stop end, none}),
    ok = erl_esdb_test:collect(Name, Store, [?SNAPSHOT_FAILED]),
    set(Store, ~"*", policy(10, infinity)),
    Store.

forge(Store, Stream, Version) ->
    Key = {snapshot, Stream, Version},
    {ok, {sealed, Snapshot, Seal}} = erl_esdb_store:get_document(Store, Key),
    Forged = {sealed, Snapshot#snapshot{data = forged}, Seal},
    {ok, _} = erl_esdb_store:put_document(Store, Key, Forged).

%% Whatever it has seen of a stream before, it sees that the snapshot is gone, or the stream.
b_what_was_seen_of_a_stream_is_no_more(Config) ->
    Store = store(Config),
    set(Store, ~"*", policy(10, infinity)),
    Append = fun(Count) -> append(Store, ~"s", events(Count)), settled(Store) end,
    [Append(Count) || Count <- [10, 1]],
    ok = erl_esdb_snapshots:delete(Store, ~"s"),
    Append(1),
    ?assertEqual([11], kept(Store, ~"s")),
    Append(1),
    ok = erl_esdb_streams:delete(Store, ~"s"),
    Append(12),
    ?assertEqual({11, #{sum => 66}}, latest(Store, ~"s")),
    Append(1),
    ok = erl_esdb_streams:delete(Store, ~"s", #{mode => tombstone}),
    Append(9),
    ?assertEqual([11], kept(Store, ~"s")),
    Append(1),
    ?assertEqual([22], kept(Store, ~"s")).

b_stores_have_their_own(Config) ->
    Store = store(Config),
    Other = erl_esdb_test:start_store(#{}),
    set(Store, ~"*", policy(1, 1)),
    [append(S, ~"s", events(3)) || S <- [Other, Store]],
    await(fun() -> latest(Store, ~"s") =/= none end),
    ?assertEqual(#{}, places(Other)),
    ok = erl_esdb:stop_store(Store),
    set(Other, ~"*", policy(1, 1)),
    await(fun() -> latest(Other, ~"s") =:= {2, #{sum => 3}} end),
    ok = erl_esdb:stop_store(Other).

json_count(#event{data = #{~"n" := N}}, State) ->
    State#{sum => maps:get(sum, State, 0) + N}.

b_in_a_store_of_json(_Config) ->
    Store = erl_esdb_test:start_store(#{codec => json}),
    set(Store, ~"*", #{every => 3, fold => {?MODULE, json_count, []}, decode => json}),
    _ = append(Store, ~"s", events(3)),
    await(fun() -> latest(Store, ~"s") =:= {2, #{sum => 3}} end),
    _ = append(Store, ~"s", events(3, 5)),
    await(fun() -> latest(Store, ~"s") =:= {5, #{sum => 15}} end),
    ok = erl_esdb:stop_store(Store).

b_in_a_store_that_signs(_Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    set(Store, ~"*", policy(3, 1)),
    _ = append(Store, ~"s", events(3)),
    await(fun() -> latest(Store, ~"s") =:= {2, #{sum => 3}} end),
    ok = erl_esdb:stop_store(Store).

%% What is due in a copy comes when the copy is there: until then it is what is in the backup. With
%% so many documents that there is time for it.
b_none_is_taken_while_a_store_is_restored(Config) ->
    Store = store(Config),
    Documents = 10_000,
    [ok = erl_esdb_snapshots:save(Store, ~"other", N, N) || N <- lists:seq(2, Documents)],
    Dir = filename:join(proplists:get_value(priv_dir, Config), ?FUNCTION_NAME),
    Made = erl_esdb_notification_sup:without_snapshotter(Store, fun() ->
        set(Store, ~"*", policy(1, 1)),
        append(Store, ~"s", events(1)),
        erl_esdb_backup:backup(Store, Dir)
    end),
    ?assertMatch({ok, #{documents := Documents}}, Made),
    Copy = erl_esdb_test:start_store(#{}),
    ?assertMatch({ok, _}, erl_esdb_backup:restore(Copy, Dir)),
    [await(fun() -> latest(S, ~"s") =:= {0, #{sum => 0}} end) || S <- [Store, Copy]],
    ok = erl_esdb:stop_store(Copy).

%% ---- folds that are no good

%% Waits for its word.
slow(#event{stream_id = Stream} = Event, State, Gate) ->
    Gate ! {waits, self(), Stream},
    receive go -> count(Event, State) end.

gate() ->
    receive {waits, Pid, Stream} -> {Pid, Stream} after 60_000 -> error(nobody_waits) end.

b_a_slow_fold_holds_up_its_own_policy_only(Config) ->
    Store = store(Config),
    set(Store, ~"slow-*", #{every => 1, fold => {?MODULE, slow, [self()]}}),
    set(Store, ~"*", policy(1, 1)),
    _ = append(Store, ~"slow-1", events(1)),
    {Pid, ~"slow-1"} = gate(),
    [append(Store, <<"s-", (integer_to_binary(I))/binary>>, events(1)) || I <- lists:seq(1, 100)],
    _ = append(Store, ~"slow-2", events(1)),
    await(fun() ->
        lists:all(
            fun(I) -> kept(Store, <<"s-", (integer_to_binary(I))/binary>>) =:= [0] end,
            lists:seq(1, 100)
        )
    end),
    ?assertEqual([[], []], [kept(Store, S) || S <- [~"slow-1", ~"slow-2"]]),
    Pid ! go,
    {Pid2, ~"slow-2"} = gate(),
    Pid2 ! go,
    await(fun() -> kept(Store, ~"slow-2") =:= [0] end),
    ?assertEqual([0], kept(Store, ~"slow-1")).

%% The process of a policy that is removed does not go on; nor does it where its store ends.
b_a_slow_fold_ends_with_what_wants_it(Config) ->
    Store = store(Config),
    Policy = #{every => 1, fold => {?MODULE, slow, [self()]}},
    Ends = [
        fun() -> erl_esdb_snapshots:delete_policy(Store, ~"s") end,
        fun() -> set(Store, ~"s", Policy#{automatic => false}) end,
        fun() -> exit(process(Store), kill) end,
        fun() -> erl_esdb:stop_store(Store) end
    ],
    _ = append(Store, ~"s", events(1)),
    [
        begin
            set(Store, ~"s", Policy),
            {Pid, ~"s"} = gate(),
            Ref = monitor(process, Pid),
            _ = End(),
            receive {'DOWN', Ref, process, Pid, Reason} -> ?assertEqual(killed, Reason) end
        end
     || End <- Ends
    ].

bad(#event{data = #{n := error}}, _) -> error(deliberate);
bad(#event{data = #{n := throw}}, _) -> throw(deliberate);
bad(#event{data = #{n := exit}}, _) -> exit(deliberate);
bad(#event{data = #{n := kill}}, _) -> exit(self(), kill);
bad(#event{data = #{n := link}}, _) ->
    _ = spawn_link(fun() -> exit(deliberate) end),
    receive never -> ok end;
bad(#event{data = #{n := state}}, State) -> State#{ballast => binary:copy(~"x", 17_000_000)};
bad(Event, State) -> count(Event, State).

%% Told with the reason; the other streams have theirs, and the process lives.
b_a_fold_that_fails_is_told(Config) ->
    Store = store(Config),
    Process = process(Store),
    Self = self(),
    Kinds = [error, throw, exit, kill, link, state],
    Bad = fun(Kind) -> events(4) ++ [erl_esdb_test:event(Kind)] end,
    Catch = fun
        (#{msg := {"store ~tp: no snapshot" ++ _, [S, Stream, 4 | _]}}, _) when S =:= Store ->
            Self ! {logged, Stream},
            stop;
        (Event, _) ->
            Event
    end,
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {Catch, none}),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store, [?SNAPSHOT_FAILED]),
    [append(Store, atom_to_binary(Kind), Bad(Kind)) || Kind <- Kinds],
    _ = append(Store, ~"good", events(5)),
    set(Store, ~"*", #{every => 5, fold => {?MODULE, bad, []}}),
    settled(Store),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    Reasons = #{
        binary_to_existing_atom(Stream) => Reason
     || {_, #{system_time := _}, #{stream_id := Stream, version := 4, reason := Reason}} <-
            erl_esdb_test:collected(?FUNCTION_NAME)
    },
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    ?assertMatch(
        #{
            error := {deliberate, [_ | _]},
            throw := {{nocatch, deliberate}, [_ | _]},
            exit := deliberate,
            kill := killed,
            link := deliberate,
            state := {document_too_large, _, _}
        },
        Reasons
    ),
    ?assertEqual(lists:sort([atom_to_binary(Kind) || Kind <- Kinds]), lists:sort(logged())),
    ?assertEqual([4], kept(Store, ~"good")),
    ?assertEqual(Process, process(Store)).

logged() ->
    receive
        {logged, Stream} -> [Stream | logged()]
    after 0 -> []
    end.

%% Not with each event, which would be a line in the log for each.
b_it_is_tried_again_after_as_many_events(Config) ->
    Store = store(Config),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store, [?SNAPSHOT_FAILED]),
    set(Store, ~"*", #{every => 10, fold => {?MODULE, bad, []}}),
    Failures = fun() -> length(erl_esdb_test:collected(?FUNCTION_NAME)) end,
    _ = append(Store, ~"s", events(9) ++ [erl_esdb_test:event(error)]),
    settled(Store),
    ?assertEqual(1, Failures()),
    [begin _ = append(Store, ~"s", events(1)), settled(Store) end || _ <- lists:seq(1, 9)],
    ?assertEqual(0, Failures()),
    _ = append(Store, ~"s", events(1)),
    settled(Store),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertEqual(1, Failures()),
    ok = erl_esdb_test:release(?FUNCTION_NAME).

%% ---- restarts

%% In the end no stream has more events behind its snapshot than it may, and each state is that of
%% its events.
b_whatever_is_killed(_Config) ->
    Property = ?FORALL(
        {Every, Keep, Steps},
        {range(1, 20), oneof([infinity, range(1, 3)]), list(step())},
        begin
            Store = erl_esdb_test:start_store(#{}),
            set(Store, ~"*", policy(Every, Keep)),
            _ = [done(Step, Store) || Step <- Steps],
            ok = settled(Store),
            {ok, Streams} = erl_esdb_streams:list_streams(Store),
            Good = lists:all(fun(Stream) -> is_good(Store, Stream, Every, Keep) end, Streams),
            ok = erl_esdb:stop_store(Store),
            Good
        end
    ),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    erl_esdb_test:property(25, Property),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME).

step() -> oneof([{range(1, 4), range(1, 60)}, kill, feed]).

done({Stream, Count}, Store) ->
    append(Store, <<"s-", (Stream + $0)>>, events(Count));
done(kill, Store) ->
    Pid = process(Store),
    is_pid(Pid) andalso few_kills(Store) andalso exit(Pid, kill);
done(feed, Store) ->
    case erl_esdb_delivery:find(Store, feed, none) of
        {ok, {Pid, _}} -> few_kills(Store) andalso exit(Pid, kill);
        error -> false
    end.

%% Not so many in a short time that the store gives up.
few_kills(Store) ->
    Kills =
        case erl_esdb_volatile:get(Store, ?MODULE) of
            {ok, Before} -> Before;
            {error, not_found} -> 0
        end,
    ok = erl_esdb_volatile:put(Store, ?MODULE, Kills + 1),
    Kills < 3.

is_good(Store, Stream, Every, Keep) ->
    Version = erl_esdb_streams:get_version(Store, Stream),
    Kept = kept(Store, Stream),
    Latest = lists:last([-1 | Kept]),
    {ok, Events} = erl_esdb_streams:read(Store, Stream, 0, Latest + 1, forward),
    Version - Latest < Every andalso length(Kept) =< Keep andalso
        (Latest =:= -1 orelse
            latest(Store, Stream) =:= {Latest, lists:foldl(fun count/2, #{}, Events)}).

b_misuse(Config) ->
    Policy = policy(1, 1),
    ?assertEqual(
        {error, {invalid_option, automatic, yes}},
        erl_esdb_snapshots:set_policy(store(Config), ~"*", Policy#{automatic => yes})
    ).
