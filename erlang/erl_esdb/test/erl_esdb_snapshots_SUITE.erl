-module(erl_esdb_snapshots_SUITE).
-moduledoc "Snapshots and their policies, row by row of the checklist.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_snapshots, [
    save/4, save/5, load/2, load_at/3, list/2, delete/2, delete_at/3, exists/2, exists_at/3
]).

-define(S, <<"orders-1">>).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    Functions = [atom_to_list(F) || {F, 1} <- ?MODULE:module_info(exports)],
    [list_to_atom(F) || F <- Functions, [C, $_ | _] <- [F], lists:member(C, "abt")].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

versions(Snapshots) -> [Version || #snapshot{version = Version} <- Snapshots].

%% ---- snapshots

a_snp_01_save(Config) ->
    ?assertEqual(ok, save(store(Config), ?S, 5, #{a => 1})),
    {ok, Snapshot} = load(store(Config), ?S),
    ?assertMatch(
        #snapshot{stream_id = ?S, version = 5, data = #{a := 1}, metadata = M} when M =:= #{},
        Snapshot
    ).

a_snp_02_save_with_metadata(Config) ->
    ?assertEqual(ok, save(store(Config), ?S, 5, #{}, #{by => me})),
    ?assertMatch({ok, #snapshot{metadata = #{by := me}}}, load(store(Config), ?S)).

a_snp_03_the_same_version_is_replaced(Config) ->
    ok = save(store(Config), ?S, 5, old),
    ok = save(store(Config), ?S, 5, new),
    ?assertMatch({ok, #snapshot{data = new}}, load_at(store(Config), ?S, 5)),
    ?assertMatch({ok, [_]}, list(store(Config), ?S)).

a_snp_04_the_time_is_in_milliseconds(Config) ->
    Before = erlang:system_time(millisecond),
    ok = save(store(Config), ?S, 5, data),
    After = erlang:system_time(millisecond),
    {ok, #snapshot{timestamp = Time}} = load(store(Config), ?S),
    ?assert(Before =< Time andalso Time =< After).

a_snp_05_any_term(Config) ->
    Property = ?FORALL(Term, erl_esdb_data_gen:value(), begin
        ok = save(store(Config), ?S, 0, Term),
        {ok, #snapshot{data = Loaded}} = load(store(Config), ?S),
        Loaded =:= Term
    end),
    erl_esdb_test:property(100, Property),
    ok = save(store(Config), ?S, 1, #event{event_id = <<"e">>}),
    ?assertMatch({ok, #snapshot{data = #event{event_id = <<"e">>}}}, load(store(Config), ?S)).

a_snp_06_a_stream_without_events(Config) ->
    ok = save(store(Config), ?S, 7, data),
    ?assertNot(erl_esdb_streams:exists(store(Config), ?S)),
    ?assertMatch({ok, #snapshot{version = 7}}, load(store(Config), ?S)).

a_snp_07_load_takes_the_highest_version(Config) ->
    [ok = save(store(Config), ?S, Version, Version) || Version <- [5, 15, 10]],
    ?assertMatch({ok, #snapshot{version = 15, data = 15}}, load(store(Config), ?S)).

a_snp_08_load_of_nothing(Config) ->
    ok = save(store(Config), <<"orders-2">>, 1, data),
    ?assertEqual({error, not_found}, load(store(Config), ?S)).

a_snp_09_load_at(Config) ->
    [ok = save(store(Config), ?S, Version, Version) || Version <- [5, 15]],
    ?assertMatch({ok, #snapshot{version = 5, data = 5}}, load_at(store(Config), ?S, 5)),
    ?assertEqual({error, not_found}, load_at(store(Config), ?S, 6)).

a_snp_10_list_ascends(Config) ->
    [ok = save(store(Config), ?S, Version, Version) || Version <- [20, 10, 30]],
    ok = save(store(Config), <<"orders-10">>, 25, other),
    {ok, Snapshots} = list(store(Config), ?S),
    ?assertEqual([10, 20, 30], versions(Snapshots)),
    ?assertEqual([10, 20, 30], [Data || #snapshot{data = Data} <- Snapshots]).

a_snp_11_list_of_nothing(Config) ->
    ?assertEqual({ok, []}, list(store(Config), ?S)).

a_snp_12_delete(Config) ->
    [ok = save(store(Config), ?S, Version, Version) || Version <- [1, 2]],
    ok = save(store(Config), <<"orders-2">>, 3, other),
    ?assertEqual(ok, delete(store(Config), ?S)),
    ?assertNot(exists(store(Config), ?S)),
    ?assertEqual({ok, []}, list(store(Config), ?S)),
    ?assertEqual(ok, delete(store(Config), ?S)),
    ?assert(exists(store(Config), <<"orders-2">>)).

a_snp_13_delete_at(Config) ->
    [ok = save(store(Config), ?S, Version, Version) || Version <- [1, 2, 3]],
    ?assertEqual(ok, delete_at(store(Config), ?S, 2)),
    ?assertEqual(ok, delete_at(store(Config), ?S, 2)),
    {ok, Snapshots} = list(store(Config), ?S),
    ?assertEqual([1, 3], versions(Snapshots)),
    [ok = delete_at(store(Config), ?S, Version) || Version <- [1, 3]],
    ?assertNot(exists(store(Config), ?S)).

a_snp_14_exists(Config) ->
    ok = save(store(Config), ?S, 4, data),
    ?assert(exists(store(Config), ?S)),
    ?assertNot(exists(store(Config), <<"orders-2">>)),
    ?assert(exists_at(store(Config), ?S, 4)),
    ?assertNot(exists_at(store(Config), ?S, 5)).

a_snp_15_versions_of_more_than_ten_digits(Config) ->
    Versions = [9_999_999_999, 10_000_000_000, 999_999_999_999, 1_000_000_000_000, 1 bsl 70],
    [ok = save(store(Config), ?S, Version, Version) || Version <- lists:reverse(Versions)],
    {ok, Snapshots} = list(store(Config), ?S),
    ?assertEqual(Versions, versions(Snapshots)),
    ?assertMatch({ok, #snapshot{version = V}} when V =:= 1 bsl 70, load(store(Config), ?S)).

t_11_versions_sort_as_numbers(Config) ->
    [ok = save(store(Config), ?S, Version, data) || Version <- [2, 10, 1, 100]],
    {ok, Snapshots} = list(store(Config), ?S),
    ?assertEqual([1, 2, 10, 100], versions(Snapshots)).

t_13_the_payload_is_data(_Config) ->
    ?assertEqual(
        [stream_id, version, data, metadata, timestamp], record_info(fields, snapshot)
    ).

a_snp_16_telemetry_of_save(Config) ->
    ok = erl_esdb_test:collect(?FUNCTION_NAME, store(Config)),
    ok = save(store(Config), ?S, 3, <<"12345">>),
    ok = save(store(Config), ?S, 4, #{a => 1}),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    Size = erlang:external_size(#{a => 1}),
    [
        {?SNAPSHOT_CREATED, M1, #{stream_id := ?S, version := 3}},
        {?SNAPSHOT_CREATED, M2, #{stream_id := ?S, version := 4}}
    ] = erl_esdb_test:collected(?FUNCTION_NAME),
    ?assertMatch(#{size_bytes := 5, duration := D, system_time := _} when D >= 0, M1),
    ?assertMatch(#{size_bytes := Size}, M2).

a_snp_17_telemetry_of_load_alone(Config) ->
    ok = save(store(Config), ?S, 3, <<"12345">>),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, store(Config)),
    {ok, _} = load(store(Config), ?S),
    {error, not_found} = load(store(Config), <<"orders-2">>),
    {ok, _} = load_at(store(Config), ?S, 3),
    {ok, _} = list(store(Config), ?S),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    ?assertMatch(
        [{?SNAPSHOT_READ, #{size_bytes := 5, duration := _}, #{stream_id := ?S}}],
        erl_esdb_test:collected(?FUNCTION_NAME)
    ).

a_snapshot_is_not_larger_than_a_document(Config) ->
    Data = binary:copy(<<0>>, 16_777_216),
    ?assertMatch({error, {document_too_large, _, 16_777_216}}, save(store(Config), ?S, 1, Data)),
    ?assertNot(exists(store(Config), ?S)).

a_misuse_is_an_error(Config) ->
    Store = store(Config),
    [
        ?assertError(badarg, Call())
     || Call <- [
            fun() -> save(Store, ?S, -1, data) end,
            fun() -> save(Store, ?S, 1.0, data) end,
            fun() -> save(Store, orders, 1, data) end,
            fun() -> save(Store, ?S, 1, data, no_map) end,
            fun() -> save("store", ?S, 1, data) end,
            fun() -> load(Store, orders) end,
            fun() -> load_at(Store, ?S, last) end,
            fun() -> list(Store, "orders") end,
            fun() -> delete(Store, orders) end,
            fun() -> delete_at(Store, ?S, any) end,
            fun() -> exists(Store, 1) end,
            fun() -> exists_at(Store, ?S, -1) end
        ]
    ].

a_store_that_does_not_run_is_an_error(_Config) ->
    Gone = {store_not_started, no_such_store},
    ?assertEqual({error, Gone}, save(no_such_store, ?S, 1, data)),
    ?assertEqual({error, Gone}, load(no_such_store, ?S)),
    ?assertEqual({error, Gone}, load_at(no_such_store, ?S, 1)),
    ?assertEqual({error, Gone}, list(no_such_store, ?S)),
    ?assertEqual({error, Gone}, delete(no_such_store, ?S)),
    ?assertEqual({error, Gone}, delete_at(no_such_store, ?S, 1)),
    ?assertError({erl_esdb, Gone}, exists(no_such_store, ?S)),
    ?assertError({erl_esdb, Gone}, exists_at(no_such_store, ?S, 1)),
    ?assertEqual({error, Gone}, erl_esdb_snapshots:maybe_snapshot(no_such_store, ?S)).

%% ---- the store module

a_sns_01_put(Config) ->
    Snapshot = #snapshot{stream_id = ?S, version = 3, data = #{a => 1}, timestamp = 7},
    ?assertEqual(ok, erl_esdb_snapshots_store:put(store(Config), Snapshot)),
    ?assertEqual(Snapshot, erl_esdb_snapshots_store:get(store(Config), ?S, 3)).

a_sns_02_get_the_latest(Config) ->
    Snapshots = [#snapshot{stream_id = ?S, version = V, timestamp = V} || V <- [3, 9, 5]],
    ?assertEqual(undefined, erl_esdb_snapshots_store:get(store(Config), ?S)),
    ?assertEqual(undefined, erl_esdb_snapshots_store:get_latest(store(Config), ?S)),
    [ok = erl_esdb_snapshots_store:put(store(Config), Snapshot) || Snapshot <- Snapshots],
    ?assertMatch(#snapshot{version = 9}, erl_esdb_snapshots_store:get(store(Config), ?S)),
    ?assertMatch(#snapshot{version = 9}, erl_esdb_snapshots_store:get_latest(store(Config), ?S)).

a_sns_03_by_version(Config) ->
    Snapshot = #snapshot{stream_id = ?S, version = 3, data = data, timestamp = 7},
    ok = erl_esdb_snapshots_store:put(store(Config), Snapshot),
    ?assertEqual(undefined, erl_esdb_snapshots_store:get(store(Config), ?S, 4)),
    ?assert(erl_esdb_snapshots_store:exists(store(Config), ?S, 3)),
    ?assertNot(erl_esdb_snapshots_store:exists(store(Config), ?S, 4)),
    ?assertEqual(ok, erl_esdb_snapshots_store:delete(store(Config), ?S, 3)),
    ?assertNot(erl_esdb_snapshots_store:exists(store(Config), ?S, 3)).

a_sns_04_by_stream(Config) ->
    [
        ok = erl_esdb_snapshots_store:put(
            store(Config), #snapshot{stream_id = ?S, version = V, timestamp = V}
        )
     || V <- [3, 9, 5]
    ],
    {ok, Snapshots} = erl_esdb_snapshots_store:list(store(Config), ?S),
    ?assertEqual([3, 5, 9], versions(Snapshots)),
    ?assert(erl_esdb_snapshots_store:exists(store(Config), ?S)),
    ?assertEqual(ok, erl_esdb_snapshots_store:delete(store(Config), ?S)),
    ?assertNot(erl_esdb_snapshots_store:exists(store(Config), ?S)).

%% Readers never see that a snapshot is being replaced by a newer one.
b_load_while_snapshots_come_and_go(Config) ->
    Store = store(Config),
    ok = save(Store, ?S, 0, 0),
    Write = fun() ->
        [
            begin
                ok = save(Store, ?S, V, V),
                ok = delete_at(Store, ?S, V - 1)
            end
         || V <- lists:seq(1, 300)
        ],
        done
    end,
    Read = fun() ->
        [{ok, #snapshot{version = V, data = V}} = load(Store, ?S) || _ <- lists:seq(1, 300)],
        done
    end,
    ?assertEqual([done, done, done], erl_esdb_test:concurrently([Write, Read, Read])).

%% ---- policies

count(#event{data = #{n := N}}, State) -> State#{sum => maps:get(sum, State, 0) + N}.

count(Event, Sum, Factor) -> Sum + Factor * maps:get(n, Event#event.data).

%% None of these is to be made by itself.
policy(Every, Keep) ->
    #{every => Every, keep => Keep, fold => {?MODULE, count, []}, automatic => false}.

b_a_snapshot_is_made_when_it_is_due(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, <<"orders-*">>, policy(10, 2)),
    {ok, 8} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(9)),
    ?assertEqual(not_due, erl_esdb_snapshots:maybe_snapshot(Store, ?S)),
    {ok, 9} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(9, 9)),
    ?assertEqual({saved, 9}, erl_esdb_snapshots:maybe_snapshot(Store, ?S)),
    ?assertEqual(not_due, erl_esdb_snapshots:maybe_snapshot(Store, ?S)),
    ?assertMatch({ok, #snapshot{version = 9, data = #{sum := 45}}}, load(Store, ?S)),
    %% Goes on from the snapshot: the events before it need not be there.
    {ok, _} = erl_esdb_scavenge:scavenge(Store, ?S, #{before_version => 10}),
    {ok, 3009} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(10, 3009)),
    ?assertEqual({saved, 3009}, erl_esdb_snapshots:maybe_snapshot(Store, ?S)),
    Sum = lists:sum(lists:seq(0, 3009)),
    ?assertMatch({ok, #snapshot{data = #{sum := Sum}}}, load(Store, ?S)).

%% Nothing of a stream that was deleted is in the snapshots of another one of its name.
b_a_stream_that_is_made_again_has_its_own_snapshots(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, ?S, policy(10, infinity)),
    Of = fun(N, Count) -> [erl_esdb_test:event(N) || _ <- lists:seq(1, Count)] end,
    Again = fun(Mode, Count) ->
        {ok, _} = erl_esdb_streams:append(Store, ?S, any, Of(1000, 15)),
        {saved, _} = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
        ok = erl_esdb_streams:delete(Store, ?S, Mode),
        {ok, _} = erl_esdb_streams:append(Store, ?S, any, Of(1, Count)),
        {saved, Version} = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
        {ok, #snapshot{version = Version, data = #{sum := Count}}} = load(Store, ?S),
        {ok, [#snapshot{}]} = list(Store, ?S),
        ok = erl_esdb_streams:delete(Store, ?S),
        Version
    end,
    ?assertEqual([29, 11], [Again(#{}, Count) || Count <- [30, 12]]),
    %% What a user has saved stays where it is.
    ok = erl_esdb_snapshots:save(Store, ?S, 99, mine),
    {ok, _} = erl_esdb_streams:append(Store, ?S, any, Of(1, 10)),
    {saved, 9} = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
    {ok, All} = list(Store, ?S),
    ?assertEqual([9, 99], versions(All)),
    ok = erl_esdb_snapshots:delete(Store, ?S),
    %% Behind a tombstone the versions go on, and the state begins again.
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertEqual(44, Again(#{mode => tombstone}, 30)).

%% From the first on, however many the other one has left behind; and each has the state of its own.
b_the_snapshots_of_a_longer_stream_are_in_nobodys_way(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, ?S, policy(10, infinity)),
    Of = fun(N) ->
        [
            begin
                {ok, _} = erl_esdb_streams:append(Store, ?S, any, [
                    erl_esdb_test:event(N)
                 || _ <- lists:seq(1, 10)
                ]),
                erl_esdb_snapshots:maybe_snapshot(Store, ?S)
            end
         || _ <- lists:seq(1, 5)
        ]
    end,
    Each = [{saved, Version} || Version <- lists:seq(9, 49, 10)],
    ?assertEqual(Each, Of(1000)),
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertEqual(Each, Of(1)),
    {ok, All} = list(Store, ?S),
    ?assertEqual(
        [{V, #{sum => V + 1}} || V <- lists:seq(9, 49, 10)],
        [{V, State} || #snapshot{version = V, data = State} <- All]
    ).

%% Also where the event is removed that would tell one from the other.
b_no_state_is_that_of_a_stream_which_was_cut(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, ?S, policy(10, infinity)),
    {ok, 14} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(15)),
    {saved, 14} = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
    ok = erl_esdb_streams:delete(Store, ?S),
    {ok, 39} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(40)),
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 15),
    ?assertEqual(
        {error, {events_removed, ?S, 0, 15}}, erl_esdb_snapshots:maybe_snapshot(Store, ?S)
    ).

%% Where the stream has another number, and events that are in a snapshot are removed.
b_a_restored_store_goes_on_from_its_snapshots(Config) ->
    Store = store(Config),
    Events = fun(Count) -> erl_esdb_test:events(Count) end,
    [
        begin
            {ok, _} = erl_esdb_streams:append(Store, Stream, any, Events(15)),
            ok = erl_esdb_streams:delete(Store, Stream)
        end
     || Stream <- [~"a", ~"b", ?S]
    ],
    [ok = erl_esdb_snapshots:set_policy(Store, S, policy(10, infinity)) || S <- [?S, ~"cut"]],
    [{ok, 14} = erl_esdb_streams:append(Store, S, any, Events(15)) || S <- [?S, ~"cut"]],
    [{saved, 14} = erl_esdb_snapshots:maybe_snapshot(Store, S) || S <- [?S, ~"cut"]],
    {ok, _} = erl_esdb_store:truncate(Store, ~"cut", 15),
    %% What it has saved of one that is gone by now is not of the next of its name.
    ok = erl_esdb_streams:delete(Store, ?S),
    {ok, 19} = erl_esdb_streams:append(Store, ?S, any, Events(20)),
    Directory = filename:join(proplists:get_value(priv_dir, Config), ?FUNCTION_NAME),
    {ok, _} = erl_esdb_backup:backup(Store, Directory),
    Copy = list_to_atom(atom_to_list(Store) ++ "_copy"),
    {ok, _} = erl_esdb_test:start_store(Copy, erl_esdb_test:options()),
    {ok, _} = erl_esdb_backup:restore(Copy, Directory),
    {ok, #{no := No}} = erl_esdb_pages:info(Copy, ~"cut"),
    ?assertNotMatch({ok, #{no := No}}, erl_esdb_pages:info(Store, ~"cut")),
    [{ok, _} = erl_esdb_streams:append(Copy, S, any, Events(10)) || S <- [?S, ~"cut"]],
    ?assertEqual({saved, 29}, erl_esdb_snapshots:maybe_snapshot(Copy, ?S)),
    ?assertEqual({saved, 24}, erl_esdb_snapshots:maybe_snapshot(Copy, ~"cut")),
    Sum = fun(Counts) -> lists:sum([N || Count <- Counts, N <- lists:seq(0, Count - 1)]) end,
    Sums = [Sum([20, 10]), Sum([15, 10])],
    ?assertEqual(
        [{ok, #{sum => S}} || S <- Sums],
        [
            {ok, State}
         || S <- [?S, ~"cut"], {ok, #snapshot{data = State}} <- [load(Copy, S)]
        ]
    ),
    ok = erl_esdb:stop_store(Copy).

%% Neither in a copy nor in a copy of that one: where the events are removed that are in a snapshot,
%% it is gone on from if it is of this stream, whatever number that has there, and only then.
b_no_copy_goes_on_from_another_stream(Config) ->
    [
        no_copy_goes_on_from_another_stream(Config, erl_esdb_test:start_store(Options))
     || Options <- [#{}, signing()]
    ].

signing() -> #{integrity => #{enabled => true, key => <<7:256>>}}.

no_copy_goes_on_from_another_stream(Config, Store) ->
    Append = fun(S, Stream, N, Count) ->
        {ok, _} = erl_esdb_streams:append(S, Stream, any, lists:duplicate(Count, #{
            event_type => ~"Added", data => #{n => N}
        }))
    end,
    ok = erl_esdb_snapshots:set_policy(Store, ~"*", policy(10, infinity)),
    [Append(Store, Stream, 1000, 15) || Stream <- [~"again", ~"same"]],
    [{saved, 14} = erl_esdb_snapshots:maybe_snapshot(Store, S) || S <- [~"again", ~"same"]],
    ok = erl_esdb_streams:delete(Store, ~"again"),
    Append(Store, ~"again", 1, 20),
    {ok, _} = erl_esdb_store:truncate(Store, ~"same", 15),
    Copy = copied(Config, Store, fun(_Backup) -> ok end),
    Second = copied(Config, Copy, fun(_Backup) -> ok end),
    Old = copied(Config, Copy, fun without_marks/1),
    [
        begin
            {ok, _} = erl_esdb_store:truncate(S, ~"again", 15),
            [Append(S, Stream, 1, 10) || Stream <- [~"again", ~"same"]],
            Made = erl_esdb_snapshots:maybe_snapshot(S, ~"again"),
            ?assertEqual({error, {events_removed, ~"again", 0, 15}}, Made)
        end
     || S <- [Store, Copy, Second, Old]
    ],
    [
        begin
            ?assertEqual({saved, 24}, erl_esdb_snapshots:maybe_snapshot(S, ~"same")),
            ?assertMatch({ok, #snapshot{version = 24, data = #{sum := 15010}}}, load(S, ~"same"))
        end
     || S <- [Store, Copy, Second]
    ],
    %% Of these it is not known, and they are not removed either.
    Removed = {error, {events_removed, ~"same", 0, 15}},
    ?assertEqual(Removed, erl_esdb_snapshots:maybe_snapshot(Old, ~"same")),
    ?assertMatch({ok, #snapshot{version = 14, data = #{sum := 15000}}}, load(Old, ~"same")),
    %% What is noted of a stream goes with it.
    ?assertMatch([{~"same", _}], noted(Second)),
    ok = erl_esdb_streams:delete(Second, ~"same"),
    ?assertEqual([], noted(Second)),
    [ok = erl_esdb:stop_store(S) || S <- [Store, Copy, Second, Old]].

%% A store that signs as its model does, with what is in a backup of that one.
copied(Config, Store, Change) ->
    Unique = integer_to_list(erlang:unique_integer([positive])),
    Directory = filename:join([proplists:get_value(priv_dir, Config), ?FUNCTION_NAME, Unique]),
    {ok, _} = erl_esdb_backup:backup(Store, Directory),
    ok = Change(Directory),
    {ok, _, _, #{integrity := Keys}} = erl_esdb_store:engine(Store),
    Copy = erl_esdb_test:start_store(
        case Keys of
            disabled -> #{};
            _ -> signing()
        end
    ),
    {ok, _} = erl_esdb_backup:restore(Copy, Directory),
    Copy.

%% As of a release that did not know them.
without_marks(Directory) ->
    Change = fun(Entry) -> maps:remove(marks, Entry) end,
    erl_esdb_backup_SUITE:change_entries(Directory, Change).

noted(Store) ->
    {First, Last} = {{snapshot_mark, <<>>, 0, 0}, {snapshot_mark_, <<>>, 0, 0}},
    {ok, Documents} = erl_esdb_store:list_documents(Store, First, Last),
    [{Stream, Mark} || {{snapshot_mark, Stream, _No, Mark}, _} <- Documents].

%% Whatever they call what they note of a snapshot, it stays, and is a state to go on from.
b_what_a_user_has_saved_stays(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, ?S, policy(10, infinity)),
    {ok, 4} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(5)),
    ok = save(Store, ?S, 4, #{sum => 1000}, #{position => {lat, 52}}),
    ok = save(Store, ?S, 99, mine, #{position => 7}),
    {ok, 24} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(20)),
    ?assertEqual({saved, 24}, erl_esdb_snapshots:maybe_snapshot(Store, ?S)),
    {ok, All} = list(Store, ?S),
    ?assertEqual(
        [{4, #{sum => 1000}}, {24, #{sum => 1190}}, {99, mine}],
        [{V, State} || #snapshot{version = V, data = State} <- All]
    ).

%% None that another caller has saved meanwhile is taken for one of another stream.
b_callers_leave_each_others_snapshots(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, ?S, policy(1, infinity)),
    Save = fun() ->
        [
            begin
                {ok, _} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(1)),
                erl_esdb_snapshots:maybe_snapshot(Store, ?S)
            end
         || _ <- lists:seq(1, 500)
        ]
    end,
    Answers = lists:append(erl_esdb_test:concurrently(lists:duplicate(6, Save))),
    {ok, Kept} = erl_esdb_snapshots_store:versions(Store, ?S),
    ?assertEqual([], lists:usort([V || {saved, V} <- Answers]) -- Kept).

b_the_newest_snapshots_are_kept(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, ?S, policy(1, 3)),
    [
        begin
            {ok, V} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(1)),
            {saved, V} = erl_esdb_snapshots:maybe_snapshot(Store, ?S)
        end
     || V <- lists:seq(0, 9)
    ],
    {ok, Kept} = list(Store, ?S),
    ?assertEqual([7, 8, 9], versions(Kept)),
    ok = erl_esdb_snapshots:set_policy(Store, ?S, maps:remove(keep, policy(1, 1))),
    {ok, 10} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(1)),
    {saved, 10} = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
    {ok, All} = list(Store, ?S),
    ?assertEqual([7, 8, 9, 10], versions(All)).

b_the_fold_gets_its_arguments(Config) ->
    Store = store(Config),
    Policy = #{
        every => 1, fold => {?MODULE, count, [10]}, initial => 1000, automatic => false
    },
    ok = erl_esdb_snapshots:set_policy(Store, <<"*">>, Policy),
    {ok, 2} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(3)),
    {saved, 2} = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
    ?assertMatch({ok, #snapshot{data = 1030}}, load(Store, ?S)).

b_the_closest_policy_holds(Config) ->
    Store = store(Config),
    Policies = #{
        <<"*">> => policy(1, 1), <<"orders-*">> => policy(2, 1), <<"*-1">> => policy(3, 1)
    },
    [ok = erl_esdb_snapshots:set_policy(Store, P, Policy) || P := Policy <- Policies],
    Of = fun(Stream) ->
        {ok, {Pattern, #{every := _}}} = erl_esdb_snapshots:get_policy(Store, Stream),
        Pattern
    end,
    ?assertEqual(<<"orders-*">>, Of(?S)),
    ?assertEqual(<<"*-1">>, Of(<<"users-1">>)),
    ?assertEqual(<<"*">>, Of(<<"users">>)),
    {ok, Listed} = erl_esdb_snapshots:list_policies(Store),
    ?assertEqual(lists:sort(maps:keys(Policies)), lists:sort(maps:keys(Listed))),
    [ok = erl_esdb_snapshots:delete_policy(Store, P) || P := _ <- Policies],
    ?assertEqual({error, not_found}, erl_esdb_snapshots:get_policy(Store, ?S)),
    ?assertEqual(no_policy, erl_esdb_snapshots:maybe_snapshot(Store, ?S)).

%% What is hidden is not removed, and what the state is made of.
b_hidden_events_are_folded(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, <<"*">>, policy(10, 1)),
    {ok, 9} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(10)),
    ok = erl_esdb_streams:set_metadata(Store, ?S, #{max_count => 3}, #{}),
    ?assertEqual({saved, 9}, erl_esdb_snapshots:maybe_snapshot(Store, ?S)),
    ?assertMatch({ok, #snapshot{data = #{sum := 45}}}, load(Store, ?S)).

%% The fold of a policy that decodes gets the value of JSON text.
b_a_policy_decodes(Config) ->
    Store = store(Config),
    Fold = {?MODULE, keep_data, []},
    Policy = #{every => 1, fold => Fold, initial => []},
    Append = fun(N) ->
        New = #{event_type => <<"t">>, data => #{n => N}},
        {ok, _} = erl_esdb_streams:append(Store, ?S, any, [New], #{codec => json}),
        {saved, _} = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
        {ok, #snapshot{data = Data}} = load(Store, ?S),
        Data
    end,
    ok = erl_esdb_snapshots:set_policy(Store, <<"*">>, Policy),
    ?assertEqual([<<"{\"n\":1}">>], Append(1)),
    ok = erl_esdb_snapshots:set_policy(Store, <<"*">>, Policy#{decode => json}),
    ?assertEqual([#{<<"n">> => 2}, <<"{\"n\":1}">>], Append(2)),
    ?assertEqual(
        {error, {invalid_option, decode, yaml}},
        erl_esdb_snapshots:set_policy(Store, <<"*">>, Policy#{decode => yaml})
    ).

keep_data(#event{data = Data}, Before) -> [Data | Before].

%% Each call to the store has its time.
b_times_are_those_of_a_call(Config) ->
    Store = store(Config),
    ok = save(Store, ?S, 1, #{sum => 1}),
    ok = erl_esdb_snapshots:set_policy(Store, <<"*">>, policy(1, 1)),
    {ok, 2} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(3)),
    ok = sys:suspend(erl_esdb_test:orderer(Store)),
    Soon = #{timeout => 20},
    [
        ?assertEqual({error, {timeout, Store}}, Call)
     || Call <- [
            erl_esdb_snapshots:save(Store, ?S, 2, two, #{}, Soon),
            erl_esdb_snapshots:delete(Store, ?S, Soon),
            erl_esdb_snapshots:delete_at(Store, ?S, 1, Soon),
            erl_esdb_snapshots:set_policy(Store, <<"*">>, policy(2, 1), Soon),
            erl_esdb_snapshots:delete_policy(Store, <<"*">>, Soon),
            erl_esdb_snapshots:maybe_snapshot(Store, ?S, Soon)
        ]
    ],
    ok = sys:resume(erl_esdb_test:orderer(Store)),
    %% What was sent is done all the same, in its order.
    erl_esdb_test:await(fun() -> erl_esdb_snapshots:list_policies(Store) =:= {ok, #{}} end),
    ok = erl_esdb_snapshots:delete(Store, ?S),
    ?assertEqual({error, not_found}, erl_esdb_snapshots:load(Store, ?S, Soon)),
    ?assertEqual({error, not_found}, erl_esdb_snapshots:load_at(Store, ?S, 1, Soon)),
    ?assertEqual({ok, []}, erl_esdb_snapshots:list(Store, ?S, Soon)),
    ?assertEqual({ok, #{}}, erl_esdb_snapshots:list_policies(Store, Soon)),
    ?assertNot(erl_esdb_snapshots:exists(Store, ?S, Soon)),
    ?assertNot(erl_esdb_snapshots:exists_at(Store, ?S, 1, Soon)),
    Never = #{timeout => never},
    [
        ?assertError(badarg, Call())
     || Call <- [
            fun() -> erl_esdb_snapshots:save(Store, ?S, 2, two, #{}, Never) end,
            fun() -> erl_esdb_snapshots:load(Store, ?S, Never) end,
            fun() -> erl_esdb_snapshots:exists(Store, ?S, Never) end,
            fun() -> erl_esdb_snapshots:maybe_snapshot(Store, ?S, Never) end
        ]
    ].

b_no_snapshot_without_the_events_for_it(Config) ->
    Store = store(Config),
    ok = erl_esdb_snapshots:set_policy(Store, <<"*">>, policy(3, 1)),
    Missing = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
    ?assertEqual({error, {stream_not_found, ?S}}, Missing),
    {ok, 9} = erl_esdb_streams:append(Store, ?S, any, erl_esdb_test:events(10)),
    Options = #{before_version => 4, require_snapshot => false},
    {ok, _} = erl_esdb_scavenge:scavenge(Store, ?S, Options),
    Refused = erl_esdb_snapshots:maybe_snapshot(Store, ?S),
    ?assertEqual({error, {events_removed, ?S, 0, 4}}, Refused),
    ?assertNot(exists(Store, ?S)).

b_policies_are_checked(Config) ->
    Set = fun(Policy) -> erl_esdb_snapshots:set_policy(store(Config), <<"*">>, Policy) end,
    Good = policy(10, 2),
    ?assertEqual({error, {invalid_option, every, 0}}, Set(Good#{every => 0})),
    ?assertEqual({error, {invalid_option, every, undefined}}, Set(maps:remove(every, Good))),
    ?assertEqual({error, {invalid_option, keep, 0}}, Set(Good#{keep => 0})),
    ?assertEqual({error, {invalid_option, fold, undefined}}, Set(maps:remove(fold, Good))),
    Fun = fun(_, S) -> S end,
    ?assertEqual({error, {invalid_option, fold, Fun}}, Set(Good#{fold => Fun})),
    ?assertEqual({error, {invalid_option, evry, 1}}, Set(Good#{evry => 1})),
    ?assertError(badarg, Set(no_map)),
    ?assertError(badarg, erl_esdb_snapshots:set_policy(store(Config), order, Good)),
    ?assertEqual({ok, #{}}, erl_esdb_snapshots:list_policies(store(Config))).

b_the_pattern_language(_Config) ->
    Matches = fun(Pattern, Name) ->
        erl_esdb_pattern:matches(Name, erl_esdb_pattern:compile(Pattern))
    end,
    ?assert(Matches(<<"*">>, <<>>)),
    ?assert(Matches(<<"a*c*e">>, <<"abcde">>)),
    ?assertNot(Matches(<<"a*c*e">>, <<"abde">>)),
    ?assertNot(Matches(<<"aa*aa">>, <<"aaa">>)),
    ?assertNot(Matches(<<"a?c">>, <<"abc">>)),
    ?assert(Matches(<<"a?c">>, <<"a?c">>)),
    %% Against a definition by cases.
    Letters = fun() -> ?LET(L, list(oneof("ab*")), list_to_binary(L)) end,
    Name = ?LET(L, list(oneof("ab")), list_to_binary(L)),
    Property = ?FORALL({P, N}, {Letters(), Name}, Matches(P, N) =:= naive(P, N)),
    erl_esdb_test:property(500, Property).

naive(<<>>, Name) -> Name =:= <<>>;
naive(<<$*, P/binary>>, <<_, N/binary>> = Name) -> naive(P, Name) orelse naive(<<$*, P/binary>>, N);
naive(<<$*, P/binary>>, <<>>) -> naive(P, <<>>);
naive(<<C, P/binary>>, <<C, N/binary>>) -> naive(P, N);
naive(_, _) -> false.
