-module(erl_esdb_integrity_SUITE).
-moduledoc """
Stores that sign: what is appended is verified on read, and who changes what is stored is found out.

Who changes what is stored goes past the store: `erl_esdb_test:tamper/3`.
""".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-import(erl_esdb_test, [event/1, events/1, versions/1]).

-define(KEY, <<"0123456789abcdef0123456789abcdef">>).
-define(S, ~"s").

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    [
        appended_events_are_signed,
        a_store_that_does_not_sign_has_nothing_to_verify,
        options_are_checked,
        the_key_is_in_no_report_and_no_state,
        reads_verify_from_any_place_on,
        writers_at_the_same_time_make_one_chain,
        repeated_appends_are_recognised,
        several_streams_in_one_append,
        changed_events_are_named,
        another_newest_event_is_noticed_by_the_tip,
        events_from_before_it_signed,
        scavenged_streams_go_on,
        tombstones_keep_the_chain,
        deleted_streams_begin_anew,
        snapshots_are_anchored,
        an_event_signed_again_below_a_snapshot,
        snapshots_of_removed_events,
        readers_while_a_stream_is_cut,
        a_cut_of_all_happens_at_one_moment,
        a_cut_that_comes_too_late,
        deletions_while_a_stream_is_cut,
        a_stream_of_many_removed_versions,
        times_are_those_of_a_call,
        the_whole_store
    ].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_Config) -> application:stop(erl_esdb).

init_per_testcase(_Case, Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => ?KEY}}),
    [{store, Store} | Config].

end_per_testcase(_Case, Config) -> erl_esdb_test:stop_store(?config(store, Config)).

appended_events_are_signed(Config) ->
    Store = ?config(store, Config),
    {ok, 2} = append(Store, -1, events(3)),
    {ok, 3} = append(Store, 2, [event(3)]),
    {ok, [First | _] = Events} = read(Store, 0, 10),
    ?assertEqual(<<0:256>>, First#event.prev_event_hash),
    ?assertMatch([{1, <<_:256>>}, {1, _}, {1, _}, {1, _}], [E#event.mac || E <- Events]),
    Tip = erl_esdb_chain:chain_hash(lists:last(Events)),
    ?assertEqual(
        {ok, #{stream_id => ?S, first => 0, last => 3, events => 4, signed => 4, tip => Tip}},
        erl_esdb_integrity:verify_stream(Store, ?S)
    ).

a_store_that_does_not_sign_has_nothing_to_verify(_Config) ->
    Store = erl_esdb_test:start_store(#{}),
    {ok, 0} = append(Store, -1, [event(1)]),
    ?assertMatch({ok, [#event{prev_event_hash = undefined, mac = undefined}]}, read(Store, 0, 1)),
    ?assertEqual({error, integrity_disabled}, erl_esdb_integrity:verify_stream(Store, ?S)),
    ?assertEqual({error, integrity_disabled}, erl_esdb_integrity:verify_store(Store)),
    erl_esdb_test:stop_store(Store),
    ?assertMatch({error, {store_not_started, _}}, erl_esdb_integrity:verify_store(Store)).

options_are_checked(Config) ->
    Store = ?config(store, Config),
    [
        ?assertEqual(
            {error, {invalid_option, integrity, Reason}},
            erl_esdb:start_store(never_started, #{integrity => Integrity})
        )
     || {Integrity, Reason} <- [
            {#{enabled => true, key => <<1>>}, {integrity_key_invalid_size, 1}},
            {#{enabled => false}, integrity_config_invalid},
            {true, integrity_config_invalid}
        ]
    ],
    {ok, 0} = append(Store, -1, [event(1)]),
    ?assertError(badarg, erl_esdb_streams:read(Store, ?S, 0, 1, forward, #{verify => all})).

%% Each process of a store is killed, so that those above it say what they start again.
the_key_is_in_no_report_and_no_state(_Config) ->
    Options = #{integrity => #{enabled => true, key => ?KEY}},
    Store = erl_esdb_test:start_store(Options),
    Tree = erl_esdb_test:tree(Store),
    States = [sys:get_state(Pid) || {_, Pid} <- Tree],
    erl_esdb_test:stop_store(Store),
    ok = logger:add_handler(?MODULE, ?MODULE, #{level => all, config => self()}),
    lists:foreach(fun({Path, _}) -> crash(Path, erl_esdb_test:start_store(Options)) end, Tree),
    ok = logger:remove_handler(?MODULE),
    Said = reports(),
    ?assert(length(Said) >= length(Tree)),
    Shown = [unicode:characters_to_binary(io_lib:format("~0p", [Term])) || Term <- Said ++ States],
    ?assertEqual(0, length([Text || Text <- Shown, binary:match(Text, ?KEY) =/= nomatch])).

crash(Path, Store) ->
    {_, Victim} = lists:keyfind(Path, 1, erl_esdb_test:tree(Store)),
    exit(Victim, kill),
    erl_esdb_test:await(fun() ->
        not is_process_alive(Victim) andalso lists:keymember(Path, 1, erl_esdb_test:tree(Store))
    end),
    erl_esdb_test:stop_store(Store).

%% What this suite hears as a handler of the logger.
log(Event, #{config := Pid}) -> Pid ! {said, Event}.

reports() ->
    receive
        {said, Event} -> [Event | reports()]
    after 0 -> []
    end.

reads_verify_from_any_place_on(Config) ->
    Store = ?config(store, Config),
    [{ok, _} = append(Store, any, events(3)) || _ <- lists:seq(1, 5)],
    [
        begin
            {ok, Forward} = read(Store, From, Count),
            ?assertEqual(lists:seq(From, min(From + Count, 15) - 1), versions(Forward)),
            {ok, Backward} = erl_esdb_streams:read(Store, ?S, From, Count, backward),
            ?assertEqual(lists:seq(From, max(0, From - Count + 1), -1), versions(Backward))
        end
     || From <- lists:seq(0, 14), Count <- [1, 2, 7, 20]
    ].

writers_at_the_same_time_make_one_chain(Config) ->
    Store = ?config(store, Config),
    Writer = fun() -> [{ok, _} = append(Store, any, events(2)) || _ <- lists:seq(1, 10)] end,
    erl_esdb_test:concurrently(lists:duplicate(20, Writer)),
    ?assertMatch(
        {ok, #{events := 400, signed := 400}}, erl_esdb_integrity:verify_stream(Store, ?S)
    ),
    Race = [fun() -> append(Store, 399, [event(N)]) end || N <- lists:seq(1, 20)],
    Results = erl_esdb_test:concurrently(Race),
    ?assertEqual([{ok, 400}], [Result || {ok, _} = Result <- Results]),
    ?assertMatch({ok, #{events := 401}}, erl_esdb_integrity:verify_stream(Store, ?S)).

repeated_appends_are_recognised(Config) ->
    Store = ?config(store, Config),
    Event = (event(1))#{event_id => ~"first"},
    {ok, 0} = append(Store, -1, [Event]),
    {ok, 1} = append(Store, 0, [event(2)]),
    ?assertEqual({ok, 0}, append(Store, -1, [Event])),
    ?assertEqual({ok, 0}, append(Store, any, [Event])),
    ?assertMatch({ok, #{events := 2}}, erl_esdb_integrity:verify_stream(Store, ?S)).

several_streams_in_one_append(Config) ->
    Store = ?config(store, Config),
    {ok, 0} = append(Store, -1, [event(0)]),
    Parts = [{?S, 0, events(2)}, {~"t", -1, events(3)}, {~"u", any, []}],
    {ok, #{?S := 2, ~"t" := 2}} = erl_esdb_streams:append_many(Store, Parts, #{}),
    ?assertEqual(
        {ok, #{streams => 2, events => 6, signed => 6}}, erl_esdb_integrity:verify_store(Store)
    ).

changed_events_are_named(Config) ->
    Store = ?config(store, Config),
    {ok, 2} = append(Store, -1, events(3)),
    {ok, 5} = append(Store, 2, events(3)),
    [
        begin
            Undo = change(Store, Version, fun(Body) -> setelement(Field, Body, Value) end),
            Expected = {error, violation(Version, mac_mismatch)},
            ?assertEqual(Expected, named(read(Store, 0, 10))),
            ?assertEqual(Expected, named(read(Store, Version, 1))),
            ?assertEqual(Expected, named(erl_esdb_streams:read(Store, ?S, 5, 6, backward))),
            ?assertEqual(Expected, named(erl_esdb_integrity:verify_stream(Store, ?S))),
            ?assertEqual(Expected, named(erl_esdb_integrity:verify_store(Store))),
            Unchecked = #{verify => skip_all},
            {ok, [_]} = erl_esdb_streams:read(Store, ?S, Version, 1, forward, Unchecked),
            Undo(),
            {ok, [_, _, _, _, _, _]} = read(Store, 0, 10)
        end
     || Version <- [0, 2, 3, 5], {Field, Value} <- [{1, ~"id"}, {2, ~"T"}, {3, #{}}, {4, #{a => 1}}]
    ],
    Undo = change(Store, 4, fun({A, B, C, D, E}) ->
        {A, B, C, D, E#{prev_event_hash := <<1:256>>}}
    end),
    ?assertEqual({error, violation(4, chain_mismatch)}, named(read(Store, 0, 10))),
    ?assertEqual({error, violation(4, chain_mismatch)}, named(read(Store, 4, 1))),
    Undo(),
    _ = change(Store, 1, fun({A, B, C, D, _}) -> {A, B, C, D} end),
    ?assertEqual({error, violation(1, missing_integrity)}, named(read(Store, 0, 10))),
    ?assertEqual({error, violation(1, missing_integrity)}, named(read(Store, 2, 10))),
    ?assertMatch({ok, [_, _, _]}, read(Store, 3, 10)).

%% The chain alone could not tell: even who has the key cannot exchange the newest event.
another_newest_event_is_noticed_by_the_tip(Config) ->
    Store = ?config(store, Config),
    {ok, 1} = append(Store, -1, events(2)),
    {ok, [First, Second]} = read(Store, 0, 2),
    Before = erl_esdb_chain:chain_hash(First),
    {[Other], _} = erl_esdb_chain:sign(keys(), Before, [Second#event{event_id = ~"other"}]),
    _ = change(Store, 1, fun({_, B, C, D, E}) ->
        {~"other", B, C, D, E#{mac := Other#event.mac}}
    end),
    ?assertMatch({ok, [_, #event{event_id = ~"other"}]}, read(Store, 0, 2)),
    ?assertEqual(
        {error, violation(1, tip_mismatch)}, named(erl_esdb_integrity:verify_stream(Store, ?S))
    ).

events_from_before_it_signed(Config) ->
    Store = ?config(store, Config),
    unsigned(Store, 3),
    {ok, 4} = append(Store, 2, events(2)),
    ?assertMatch({ok, [_, _, _, _, _]}, read(Store, 0, 10)),
    ?assertMatch({ok, #{events := 5, signed := 2}}, erl_esdb_integrity:verify_stream(Store, ?S)),
    ?assertEqual(
        {error, violation(1, missing_integrity)},
        named(erl_esdb_streams:read(Store, ?S, 1, 2, forward, #{verify => strict}))
    ),
    ?assertMatch(
        {ok, [_, _]}, erl_esdb_streams:read(Store, ?S, 3, 2, forward, #{verify => strict})
    ).

scavenged_streams_go_on(Config) ->
    Store = ?config(store, Config),
    [{ok, _} = append(Store, any, events(2)) || _ <- lists:seq(1, 6)],
    [
        begin
            {ok, _} = erl_esdb_store:truncate(Store, ?S, Before),
            {ok, Events} = read(Store, 0, 100),
            ?assertEqual(lists:seq(Before, 11), versions(Events)),
            ?assertMatch({ok, [_]}, read(Store, Before, 1)),
            ?assertMatch({ok, #{first := Before}}, erl_esdb_integrity:verify_stream(Store, ?S))
        end
     || Before <- [3, 4, 9]
    ],
    %% Anchors that nobody needs do not stay.
    ?assertEqual([3, 8], anchors(Store)),
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 1_000),
    ?assertMatch({ok, []}, read(Store, 0, 100)),
    {ok, 12} = append(Store, 11, [event(12)]),
    ?assertMatch({ok, [#event{version = 12}]}, read(Store, 0, 100)),
    %% Who takes the anchor away takes the proof.
    {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
    ok = erl_esdb_store:delete_document(Store, {integrity, ?S, No, 11}),
    ?assertEqual({error, violation(12, chain_mismatch)}, named(read(Store, 0, 100))).

tombstones_keep_the_chain(Config) ->
    Store = ?config(store, Config),
    {ok, 2} = append(Store, -1, events(3)),
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}),
    {ok, 4} = append(Store, -1, events(2)),
    {ok, Events} = read(Store, 0, 10),
    ?assertEqual([3, 4], versions(Events)),
    ?assertNotEqual(<<0:256>>, (hd(Events))#event.prev_event_hash),
    ?assertMatch({ok, #{events := 2, first := 3}}, erl_esdb_integrity:verify_stream(Store, ?S)).

deleted_streams_begin_anew(Config) ->
    Store = ?config(store, Config),
    {ok, 9} = append(Store, -1, events(10)),
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 4),
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertEqual([], anchors(Store)),
    {ok, 1} = append(Store, -1, events(2)),
    ?assertMatch({ok, [#event{prev_event_hash = <<0:256>>}, _]}, read(Store, 0, 10)).

snapshots_are_anchored(Config) ->
    Store = ?config(store, Config),
    {ok, 4} = append(Store, -1, events(5)),
    {ok, _, _, Settings} = erl_esdb_store:engine(Store),
    Snapshot = snapshot(3, #{total => 6}),
    {ok, Seal} = erl_esdb_integrity:seal_snapshot(Store, Settings, Snapshot, #{}),
    Check = fun(Given) ->
        named(erl_esdb_integrity:check_snapshot(Store, Settings, Given, Seal, #{}))
    end,
    ?assertEqual(ok, Check(Snapshot)),
    ?assertEqual(ok, erl_esdb_integrity:check_snapshot(Store, Settings, Snapshot, none, #{})),
    [
        ?assertEqual(
            {error, violation(snapshot, Version, snapshot_mac_mismatch)},
            Check(Changed)
        )
     || #snapshot{version = Version} = Changed <- [
            Snapshot#snapshot{data = #{total => 7}},
            Snapshot#snapshot{metadata = #{a => 1}},
            Snapshot#snapshot{timestamp = 8},
            Snapshot#snapshot{version = 2}
        ]
    ],
    ?assertEqual(
        {error,
            {snapshot_anchor_unavailable, #{
                stream_id => ?S, version => 5, reason => event_not_found
            }}},
        erl_esdb_integrity:seal_snapshot(Store, Settings, snapshot(5, #{}), #{})
    ),
    ?assertEqual(
        {ok, none}, erl_esdb_integrity:seal_snapshot(Store, #{integrity => disabled}, Snapshot, #{})
    ).

%% Who has the key can sign another event in the place of one, but not below a snapshot of it.
an_event_signed_again_below_a_snapshot(Config) ->
    Store = ?config(store, Config),
    {ok, 2} = append(Store, -1, events(3)),
    ok = erl_esdb_snapshots:save(Store, ?S, 2, #{total => 3}),
    {ok, [Before, Event]} = read(Store, 1, 2),
    Tip = erl_esdb_chain:chain_hash(Before),
    {[Other], _} = erl_esdb_chain:sign(keys(), Tip, [Event#event{event_type = ~"Other"}]),
    Undo = change(Store, 2, fun({A, _, C, D, E}) ->
        {A, ~"Other", C, D, E#{mac := Other#event.mac}}
    end),
    ?assertMatch({ok, [#event{event_type = ~"Other"}]}, read(Store, 2, 1)),
    ?assertEqual(
        {error, violation(snapshot, 2, snapshot_anchor_mismatch)},
        named(erl_esdb_snapshots:load(Store, ?S))
    ),
    Undo(),
    ?assertMatch({ok, #snapshot{version = 2}}, erl_esdb_snapshots:load(Store, ?S)).

snapshots_of_removed_events(Config) ->
    Store = ?config(store, Config),
    {ok, 9} = append(Store, -1, events(10)),
    ok = erl_esdb_snapshots:save(Store, ?S, 3, #{total => 6}),
    ok = erl_esdb_snapshots:save(Store, ?S, 5, #{total => 15}),
    {ok, Saved} = erl_esdb_snapshots:load_at(Store, ?S, 3),
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 7),
    ?assertEqual({ok, Saved}, erl_esdb_snapshots:load_at(Store, ?S, 3)),
    ?assertMatch({ok, #snapshot{version = 5}}, erl_esdb_snapshots:load(Store, ?S)),
    %% A snapshot that somebody has changed in the store.
    Key = {snapshot, ?S, 5},
    {ok, {sealed, Snapshot, Seal}} = erl_esdb_store:get_document(Store, Key),
    Changed = {sealed, Snapshot#snapshot{data = #{total => 16}}, Seal},
    {ok, _} = erl_esdb_store:put_document(Store, Key, Changed),
    ?assertEqual(
        {error, violation(snapshot, 5, snapshot_mac_mismatch)},
        named(erl_esdb_snapshots:load(Store, ?S))
    ),
    ?assertMatch(
        {error, {snapshot_anchor_unavailable, #{reason := event_not_found}}},
        erl_esdb_snapshots:save(Store, ~"none", 0, #{})
    ),
    [
        begin
            ok = erl_esdb_streams:delete(Store, ?S, #{mode => Mode}),
            ?assertEqual({ok, Saved}, erl_esdb_snapshots:load_at(Store, ?S, 3)),
            %% A namesake with other events of the same versions, kept and then removed.
            {ok, _} = append(Store, -1, events(6)),
            ?assertEqual({ok, Saved}, erl_esdb_snapshots:load_at(Store, ?S, 3)),
            {ok, _} = erl_esdb_store:truncate(Store, ?S, 4),
            ?assertEqual({ok, Saved}, erl_esdb_snapshots:load_at(Store, ?S, 3))
        end
     || Mode <- [tombstone, hard]
    ],
    %% Whoever puts it into its place, or changes it there, is found out.
    {ok, {sealed, Old, OldSeal}} = erl_esdb_store:get_document(Store, {snapshot, ?S, 3}),
    Forged = {sealed, Old#snapshot{data = #{total => 7}}, OldSeal},
    {ok, _} = erl_esdb_store:put_document(Store, {snapshot, ?S, 3}, Forged),
    ?assertEqual(
        {error, violation(snapshot, 3, snapshot_mac_mismatch)},
        named(erl_esdb_snapshots:load_at(Store, ?S, 3))
    ).

%% What is removed while it is read, or while it is verified, was not changed by anybody.
readers_while_a_stream_is_cut(Config) ->
    Store = ?config(store, Config),
    Stop = atomics:new(1, []),
    Until = fun(Step) -> erl_esdb_test:until_stopped(Stop, Step) end,
    {ok, _} = append(Store, -1, events(20)),
    Cut = fun() ->
        {ok, Last} = append(Store, any, events(7)),
        {ok, _} = erl_esdb_store:truncate(Store, ?S, Last - 10)
    end,
    Replace = fun() ->
        ok = erl_esdb_streams:delete(Store, ~"other"),
        {ok, _} = erl_esdb_streams:append(Store, ~"other", any, events(7)),
        {ok, _} = erl_esdb_store:truncate(Store, ~"other", 3)
    end,
    Checked = fun
        ({ok, _}) -> ok;
        ({error, {stream_not_found, _}}) -> ok
    end,
    Look = fun() ->
        [
            begin
                First = first(Store, Stream),
                ok = Checked(erl_esdb_streams:read(Store, Stream, First + 3, 5, forward)),
                ok = Checked(erl_esdb_integrity:verify_stream(Store, Stream))
            end
         || _ <- lists:seq(1, 1_000), Stream <- [?S, ~"other"]
        ],
        done
    end,
    Looks = fun() ->
        try
            Look()
        after
            atomics:put(Stop, 1, 1)
        end
    end,
    Work = [fun() -> Until(Cut) end, fun() -> Until(Replace) end, Looks, Look],
    ?assertEqual([done, done, done, done], erl_esdb_test:concurrently(Work)),
    ?assertMatch({ok, _}, erl_esdb_integrity:verify_store(Store)).

first(Store, Stream) ->
    case erl_esdb_store:info(Store, Stream) of
        {ok, #{first := First}} -> First;
        {error, {stream_not_found, _}} -> 0
    end.

%% Whoever appends and reads while all is cut sees a moment before the cut, and then it takes the
%% new events too, or one after it.
a_cut_of_all_happens_at_one_moment(Config) ->
    Store = ?config(store, Config),
    [happens_at_one_moment(Store, <<"s", N:16>>) || N <- lists:seq(1, 200)].

happens_at_one_moment(Store, Stream) ->
    {ok, 0} = erl_esdb_streams:append(Store, Stream, -1, events(1)),
    [Seen, {ok, Cut}] = erl_esdb_test:concurrently([
        fun() ->
            {ok, 4} = erl_esdb_streams:append(Store, Stream, any, events(4)),
            {ok, Events} = erl_esdb_streams:read(Store, Stream, 0, 10, forward),
            length(Events)
        end,
        fun() -> erl_esdb_store:truncate(Store, Stream, 20) end
    ]),
    ?assert(lists:member({Seen, Cut}, [{5, {0, 5}}, {0, {0, 5}}, {4, {0, 1}}])).

%% A stream that is made again while it is about to be cut: what is kept of the first one is not
%% what the second one needs.
a_cut_that_comes_too_late(Config) ->
    Store = ?config(store, Config),
    {ok, 8} = append(Store, -1, events(9)),
    {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
    {ok, Engine, Handle, Settings} = erl_esdb_store:engine(Store),
    {ok, Command} = erl_esdb_integrity:truncation(Store, Settings, ?S, any, 3, #{}),
    ok = erl_esdb_streams:delete(Store, ?S),
    {ok, 8} = append(Store, -1, events(9)),
    ?assertEqual(
        {error, stream_replaced}, erl_esdb_store:command(Store, Engine, Handle, Command, 5_000)
    ),
    ?assertEqual(
        {error, {stream_replaced, ?S}}, erl_esdb_store:truncate(Store, ?S, 3, #{no => No})
    ),
    ?assertMatch({ok, [_, _, _, _, _, _, _, _, _]}, read(Store, 0, 9)),
    {ok, {0, 3}} = erl_esdb_store:truncate(Store, ?S, 3),
    ?assertMatch({ok, #{first := 3}}, erl_esdb_integrity:verify_stream(Store, ?S)).

%% Deleting one takes away only what was kept of it, whatever happens at the same time.
deletions_while_a_stream_is_cut(Config) ->
    Store = ?config(store, Config),
    Replace = fun() ->
        [
            begin
                ok = erl_esdb_streams:delete(Store, ?S),
                {ok, _} = append(Store, any, events(9))
            end
         || _ <- lists:seq(1, 300)
        ]
    end,
    Cut = fun() ->
        [erl_esdb_store:truncate(Store, ?S, Before) || _ <- lists:seq(1, 300), Before <- [3, 6]]
    end,
    erl_esdb_test:concurrently([Replace, Cut, Cut]),
    {ok, Events} = read(Store, 0, 9),
    ?assertEqual(lists:seq(first(Store, ?S), 8), versions(Events)),
    ?assertMatch({ok, _}, erl_esdb_integrity:verify_stream(Store, ?S)),
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertEqual([], anchors(Store)).

%% Verifying begins where events are.
a_stream_of_many_removed_versions(Config) ->
    Store = ?config(store, Config),
    {ok, 0} = append(Store, -1, events(1)),
    {reductions, Before} = process_info(self(), reductions),
    {ok, #{events := 1}} = erl_esdb_integrity:verify_stream(Store, ?S),
    {reductions, Few} = process_info(self(), reductions),
    [{ok, _} = append(Store, any, events(5_000)) || _ <- lists:seq(1, 20)],
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 100_000),
    {reductions, Between} = process_info(self(), reductions),
    {ok, #{events := 1, first := 100_000}} = erl_esdb_integrity:verify_stream(Store, ?S),
    {reductions, After} = process_info(self(), reductions),
    ?assert(After - Between < 10 * (Few - Before)).

times_are_those_of_a_call(Config) ->
    Store = ?config(store, Config),
    {ok, 2} = append(Store, -1, events(3)),
    ok = sys:suspend(erl_esdb_test:orderer(Store)),
    Soon = #{timeout => 20},
    Timeout = {error, {timeout, Store}},
    ?assertEqual(Timeout, erl_esdb_store:truncate(Store, ?S, 2, Soon)),
    ?assertEqual(Timeout, erl_esdb_snapshots:save(Store, ?S, 1, #{}, #{}, Soon)),
    ?assertMatch({ok, #{events := 3}}, erl_esdb_integrity:verify_stream(Store, ?S, Soon)),
    ?assertMatch({ok, #{events := 3}}, erl_esdb_integrity:verify_store(Store, Soon)),
    ok = sys:resume(erl_esdb_test:orderer(Store)),
    ?assertError(badarg, erl_esdb_integrity:verify_stream(Store, ?S, #{timeout => soon})),
    ?assertError(badarg, erl_esdb_integrity:verify_store(Store, [])).

the_whole_store(Config) ->
    Store = ?config(store, Config),
    Streams = [<<"s-", (integer_to_binary(N))/binary>> || N <- lists:seq(1, 1_200)],
    [{ok, 1} = erl_esdb_streams:append(Store, Stream, -1, events(2)) || Stream <- Streams],
    ?assertEqual(
        {ok, #{streams => 1_200, events => 2_400, signed => 2_400}},
        erl_esdb_integrity:verify_store(Store)
    ),
    _ = change(Store, ~"s-777", 1, fun(Body) -> setelement(2, Body, ~"Changed") end),
    ?assertMatch(
        {error, {integrity_violation, #{stream_id := ~"s-777", version := 1}}},
        erl_esdb_integrity:verify_store(Store)
    ).

%% -------- helpers

append(Store, Expected, Events) -> erl_esdb_streams:append(Store, ?S, Expected, Events).

read(Store, From, Count) -> erl_esdb_streams:read(Store, ?S, From, Count, forward).

%% Versions of removed events whose chain hashes are kept.
anchors(Store) ->
    {From, To} = {{integrity, ?S, 0, 0}, {integrity, ?S, last, 0}},
    {ok, Found} = erl_esdb_store:list_documents(Store, From, To),
    [Version || {{_, _, _, Version}, _} <- Found].

keys() ->
    {ok, Keys} = erl_esdb_chain:keys(#{enabled => true, key => ?KEY}),
    Keys.

snapshot(Version, Data) ->
    #snapshot{stream_id = ?S, version = Version, data = Data, timestamp = 7}.

violation(Version, Kind) -> violation(storage, Version, Kind).

violation(Layer, Version, Kind) -> {integrity_violation, {Layer, ?S, Version, Kind}}.

%% Without its context.
named({error, {integrity_violation, Details}}) ->
    #{layer := Layer, stream_id := Stream, version := Version, kind := Kind} = Details,
    {error, {integrity_violation, {Layer, Stream, Version, Kind}}};
named(Other) ->
    Other.

%% As a store appended that did not sign.
unsigned(Store, Count) ->
    {ok, Engine, Handle, _} = erl_esdb_store:engine(Store),
    {ok, Bodies} = erl_esdb_event:bodies(events(Count)),
    Summary = #{count => Count, epoch_us => erlang:system_time(microsecond)},
    Command = {append, ?S, -1, erl_esdb_batch:pack(Bodies), Summary},
    {ok, _} = erl_esdb_store:command(Store, Engine, Handle, Command, 5_000).

change(Store, Version, Change) -> change(Store, ?S, Version, Change).

%% Changes what the engine has stored of one event; the answer undoes it.
change(Store, Stream, Version, Change) ->
    {ok, Engine, Handle, _} = erl_esdb_store:engine(Store),
    {ok, [{_, {Row, _, _}, Packed}]} =
        Engine:read(Handle, Stream, Version, 1, forward, #{hidden => true}),
    First = erl_esdb_log:first_version(Row),
    {ok, Count} = erl_esdb_batch:count(Packed),
    {ok, Bodies} = erl_esdb_batch:unpack(Packed, 0, Count - 1),
    {Before, [Body | After]} = lists:split(Version - First, Bodies),
    Changed = erl_esdb_batch:pack(Before ++ [Change(Body) | After]),
    ok = erl_esdb_test:tamper(Store, Packed, Changed),
    fun() -> ok = erl_esdb_test:tamper(Store, Changed, Packed) end.
