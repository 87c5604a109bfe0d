-module(erl_esdb_history_SUITE).
-moduledoc """
The checker of histories: that it says nothing of what may be, and something of what may not.

Each rule has a history in which only that is wrong; random clean histories pass, and each change of
one that makes it wrong is found; a load on a store is clean, and the same load on stores with one
rule broken is not.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").
-include("erl_esdb_history.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_clean_history,
        appends_that_nobody_answered,
        what_was_removed_may_be_gone,
        sent_again_after_it_was_removed,
        {group, rules},
        clean_histories_pass,
        changed_histories_are_found,
        what_a_violation_looks_like,
        a_load,
        a_load_whose_clients_die,
        subscribers_that_are_killed,
        {group, broken}
    ].

groups() ->
    [
        {rules, [], [
            unknown_event,
            changed,
            refused_present,
            too_early,
            position_twice,
            version_twice,
            written_twice,
            missing,
            torn,
            vanished,
            removed_present,
            wrong_version,
            condition_ignored,
            hole,
            version_hole,
            order_of_positions,
            order,
            read_order,
            read_missed,
            read_missed_what_was_written_there,
            read_missed_what_the_node_showed,
            read_missed_within,
            read_removed,
            damaged,
            not_selected,
            not_delivered,
            delivered_out_of_order,
            delivered_twice,
            document_unknown,
            document_stale
        ]},
        {broken, [], [
            checked_outside_the_machine,
            refused_and_written,
            written_in_two_halves,
            acknowledged_and_dropped,
            bodies_lost_after_a_restart,
            stale_reads,
            deliveries_dropped
        ]}
    ].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_Config) -> application:stop(erl_esdb).

%% ---- histories by hand

content(Id) -> {~"T", [], Id}.

seen(Stream, Version, Position, Id) ->
    #seen{stream = Stream, version = Version, position = Position, id = Id, content = content(Id)}.

%% From, to, stream, expected, ids; answered with the first version and position.
append(From, To, Stream, Expected, Ids, {Version, Position}) when is_integer(Version) ->
    Last = length(Ids) - 1,
    Placed = {Stream, Version + Last, Position + Last},
    call(From, To, append_op(Stream, Expected, Ids), {ok, [Placed]});
append(From, To, Stream, Expected, Ids, Outcome) ->
    call(From, To, append_op(Stream, Expected, Ids), Outcome).

append_op(Stream, Expected, Ids) ->
    {append, [{Stream, Expected, [{Id, content(Id)} || Id <- Ids]}], none}.

call(From, To, Op, Outcome) -> #call{op = Op, from = From, to = To, outcome = Outcome}.

lost(From, Op) -> #call{op = Op, from = From}.

read(From, To, Of, Window, Seen) -> read(From, To, Of, Window, linearizable, Seen).

read(From, To, Of, Window, Consistency, Seen) ->
    call(From, To, {read, Of, Window, Consistency}, {ok, Seen}).

subscribed(Selector) -> call(50, 51, {subscribe, sub, Selector, 0}, {ok, ~"key"}).

delivered(At, Seen) -> #delivery{subscription = sub, at = At, events = Seen}.

%% Two appends to a, one to b, in this order.
three() ->
    [
        append(1, 2, ~"a", -1, [~"a0", ~"a1"], {0, 0}),
        append(3, 4, ~"b", -1, [~"b0"], {0, 2}),
        append(5, 6, ~"a", 1, [~"a2"], {2, 3})
    ].

a(Version) -> seen(~"a", Version, lists:nth(Version + 1, [0, 1, 3]), <<$a, ($0 + Version)>>).

b() -> seen(~"b", 0, 2, ~"b0").

four() -> [a(0), a(1), b(), a(2)].

rules(Entries, Events) -> rules(Entries, Events, #{}).

rules(Entries, Events, Documents) ->
    Violations = erl_esdb_history:check(Entries, #final{events = Events, documents = Documents}),
    lists:usort([Rule || {Rule, _, _} <- Violations]).

a_clean_history(_Config) ->
    Entries =
        three() ++
            [
                append(7, 8, ~"a", 0, [~"x"], {refused, {wrong_expected_version, 0, 2}}),
                read(9, 10, ~"a", {0, 2, forward}, [a(0), a(1)]),
                read(9, 10, ~"a", {2, 5, backward}, [a(2), a(1), a(0)]),
                read(9, 10, ~"a", {last, 1, backward}, [a(2)]),
                read(9, 10, log, {1, 2, forward}, [a(1), b()]),
                read(9, 10, log, {9, 2, backward}, [a(2), b()]),
                read(9, 10, ~"none", {0, 2, forward}, []),
                call(11, 12, {put, k, 1}, {ok, ok}),
                call(13, 14, {get, k, linearizable}, {ok, {value, 1}}),
                subscribed({stream, ~"a"}),
                delivered(52, [a(0), a(1)]),
                #fault{what = killed, at = 53},
                delivered(54, [a(1), a(2)])
            ],
    ?assertEqual([], rules(Entries, four(), #{k => {value, 1}})),
    ?assertEqual([], rules([], [])).

%% Done, not done, done after all.
appends_that_nobody_answered(_Config) ->
    Entries = [lost(1, append_op(~"a", -1, [~"a0", ~"a1"])) | tl(three())],
    ?assertEqual([], rules(Entries, four())),
    ?assertEqual([], rules([lost(1, append_op(~"c", -1, [~"c0"])) | three()], four())),
    Late = append(7, 8, ~"a", -1, [~"a0", ~"a1"], {0, 0}),
    ?assertEqual([], rules(Entries ++ [Late], four())).

what_was_removed_may_be_gone(_Config) ->
    Truncate = {truncate, ~"a", 2},
    ?assertEqual([], rules(three() ++ [lost(1, Truncate)], four())),
    ?assertEqual([], rules(three() ++ [lost(1, Truncate)], [b(), a(2)])),
    ?assertEqual([], rules(three() ++ [call(7, 8, Truncate, {ok, 2})], [b(), a(2)])),
    Gone = [call(7, 8, {delete, ~"a", hard}, {ok, ok})],
    Read = read(9, 10, log, {0, 9, forward}, [b()]),
    ?assertEqual([], rules(three() ++ Gone ++ [Read], [b()])),
    %% Between two that were seen; nobody knows its version.
    Unseen = [
        lost(1, append_op(~"c", -1, [~"c0"])),
        lost(2, {delete, ~"c", hard}),
        append(3, 4, ~"a", -1, [~"a0"], {0, 1})
    ],
    ?assertEqual([], rules(Unseen, [seen(~"a", 0, 1, ~"a0")])).

sent_again_after_it_was_removed(_Config) ->
    Entries = [
        lost(1, append_op(~"a", -1, [~"a0"])),
        read(2, 3, ~"a", {0, 9, forward}, [a(0)]),
        call(4, 5, {delete, ~"a", hard}, {ok, ok}),
        append(6, 7, ~"a", -1, [~"a0"], {0, 1})
    ],
    ?assertEqual([], rules(Entries, [seen(~"a", 0, 1, ~"a0")])).

%% ---- each rule

unknown_event(_Config) ->
    ?assertEqual([unknown_event], rules(three(), four() ++ [seen(~"b", 1, 4, ~"b1")])).

changed(_Config) ->
    Changed = (b())#seen{content = {~"T", [], other}},
    ?assertEqual([changed], rules(three(), [a(0), a(1), Changed, a(2)])),
    Retyped = (b())#seen{content = {~"U", [], ~"b0"}},
    Read = read(9, 10, ~"b", {0, 1, forward}, [Retyped]),
    ?assertEqual([changed], rules(three() ++ [Read], four())).

refused_present(_Config) ->
    Refused = append(7, 8, ~"b", 0, [~"b1"], {refused, {wrong_expected_version, 0, 3}}),
    Events = four() ++ [seen(~"b", 1, 4, ~"b1")],
    ?assertEqual([refused_present], rules(three() ++ [Refused], Events)),
    %% One of its attempts has no answer.
    Attempts = [lost(6, append_op(~"b", 0, [~"b1"])), Refused],
    ?assertEqual([], rules(three() ++ Attempts, Events)).

too_early(_Config) ->
    Read = read(1, 2, ~"b", {0, 1, forward}, [b()]),
    ?assertEqual([too_early], rules(three() ++ [Read], four())).

position_twice(_Config) ->
    Twice = append(5, 6, ~"c", -1, [~"c0"], {0, 2}),
    ?assert(lists:member(position_twice, rules(three() ++ [Twice], four()))).

version_twice(_Config) ->
    Twice = append(7, 8, ~"b", -2, [~"b1"], {0, 4}),
    Events = four() ++ [seen(~"b", 0, 4, ~"b1")],
    ?assertEqual([version_hole, version_twice], rules(three() ++ [Twice], Events)),
    Deleted = call(4, 5, {delete, ~"b", hard}, {ok, ok}),
    After = (four() -- [b()]) ++ [seen(~"b", 0, 4, ~"b1")],
    ?assertEqual([], rules(three() ++ [Deleted, Twice], After)),
    %% A tombstone goes on counting.
    Tomb = call(4, 5, {delete, ~"b", tombstone}, {ok, ok}),
    ?assertEqual([version_twice], rules(three() ++ [Tomb, Twice], After)).

written_twice(_Config) ->
    Lost = lost(3, append_op(~"b", -1, [~"b0"])),
    Entries = [hd(three()), Lost | tl(three())],
    ?assertEqual([], rules(Entries, four())),
    Twice = four() ++ [seen(~"b", 1, 4, ~"b0")],
    ?assert(lists:member(written_twice, rules(Entries, Twice))).

missing(_Config) ->
    ?assertEqual([missing], rules(three(), [a(0), a(1), b()])),
    ?assertEqual([missing, version_hole], rules(three(), [a(0), b(), a(2)])),
    %% Removed before it was written.
    Removed = call(0, 1, {delete, ~"b", hard}, {ok, ok}),
    ?assertEqual([missing], rules(three() ++ [Removed], four() -- [b()])),
    %% Truncated, but not as far as this.
    Truncated = call(7, 8, {truncate, ~"a", 2}, {ok, 2}),
    ?assertEqual([missing], rules(three() ++ [Truncated], [b()])).

torn(_Config) ->
    Lost = lost(7, append_op(~"b", 0, [~"b1", ~"b2"])),
    First = seen(~"b", 1, 4, ~"b1"),
    ?assertEqual([torn], rules(three() ++ [Lost], four() ++ [First])),
    Apart = [First, seen(~"b", 2, 6, ~"b2")],
    ?assert(lists:member(torn, rules(three() ++ [Lost], four() ++ Apart))),
    Parts = [{~"b", 0, [{~"b1", content(~"b1")}]}, {~"c", -1, [{~"c0", content(~"c0")}]}],
    Many = lost(7, {append, Parts, none}),
    ?assertEqual([], rules(three() ++ [Many], four() ++ [First, seen(~"c", 0, 5, ~"c0")])),
    ?assertEqual([torn], rules(three() ++ [Many], four() ++ [First])).

vanished(_Config) ->
    Lost = lost(7, append_op(~"b", 0, [~"b1"])),
    Read = read(8, 9, ~"b", {1, 1, forward}, local, [seen(~"b", 1, 4, ~"b1")]),
    ?assertEqual([vanished], rules(three() ++ [Lost, Read], four())).

removed_present(_Config) ->
    Truncated = call(7, 8, {truncate, ~"a", 1}, {ok, 1}),
    ?assertEqual([], rules(three() ++ [Truncated], tl(four()))),
    ?assertEqual([removed_present], rules(three() ++ [Truncated], four())),
    Deleted = call(7, 8, {delete, ~"b", tombstone}, {ok, ok}),
    ?assertEqual([removed_present], rules(three() ++ [Deleted], four())),
    %% It says that there was nothing to remove.
    Idle = call(7, 8, {truncate, ~"a", 1}, {ok, 0}),
    ?assertEqual([], rules(three() ++ [Idle], four())).

%% Two that expect the same are both done.
wrong_version(_Config) ->
    Racer = append(5, 6, ~"a", 1, [~"a3"], {3, 4}),
    ?assertEqual([wrong_version], rules(three() ++ [Racer], four() ++ [seen(~"a", 3, 4, ~"a3")])),
    First = append(7, 8, ~"b", -1, [~"b1"], {1, 4}),
    Events = four() ++ [seen(~"b", 1, 4, ~"b1")],
    ?assertEqual([wrong_version], rules(three() ++ [First], Events)),
    Tomb = call(5, 6, {delete, ~"b", tombstone}, {ok, ok}),
    ?assertEqual([], rules(three() ++ [Tomb, First], Events -- [b()])).

condition_ignored(_Config) ->
    Conditional = fun(Query, After) ->
        {append, [{~"c", -2, [{~"c0", content(~"c0")}]}], {Query, After}}
    end,
    Done = fun(Query, After) ->
        Call = call(7, 8, Conditional(Query, After), {ok, [{~"c", 0, 4}]}),
        rules(three() ++ [Call], four() ++ [seen(~"c", 0, 4, ~"c0")])
    end,
    ?assertEqual([], Done([#{types => [~"T"]}], 3)),
    ?assertEqual([], Done([#{types => [~"U"]}], 0)),
    ?assertEqual([], Done([#{tags => [~"t"]}], 0)),
    ?assertEqual([condition_ignored], Done([#{types => [~"T"]}], 2)),
    ?assertEqual([condition_ignored], Done([], 2)).

hole(_Config) ->
    Far = append(7, 8, ~"b", 0, [~"b1"], {1, 9}),
    ?assertEqual([hole], rules(three() ++ [Far], four() ++ [seen(~"b", 1, 9, ~"b1")])).

version_hole(_Config) ->
    Far = append(7, 8, ~"b", -2, [~"b1"], {3, 4}),
    ?assertEqual([version_hole], rules(three() ++ [Far], four() ++ [seen(~"b", 3, 4, ~"b1")])).

order_of_positions(_Config) ->
    ?assertEqual([order_of_positions], rules(three(), [a(0), a(1), a(2), b()])).

order(_Config) ->
    [First, _, Last] = three(),
    Late = append(7, 8, ~"b", -1, [~"b0"], {0, 2}),
    ?assertEqual([order], rules([First, Last, Late], four())).

read_order(_Config) ->
    Read = fun(Window, Seen) -> rules(three() ++ [read(9, 10, ~"a", Window, Seen)], four()) end,
    ?assertEqual([read_order], Read({0, 9, forward}, [a(1), a(0), a(2)])),
    ?assertEqual([read_order], Read({0, 9, forward}, [a(0), a(0), a(1), a(2)])),
    ?assertEqual([read_order], Read({1, 9, forward}, [a(0), a(1), a(2)])),
    ?assertEqual([read_order], Read({0, 2, forward}, [a(0), a(1), a(2)])),
    ?assertEqual([read_order], Read({0, 9, forward}, [a(0), a(1), b(), a(2)])).

read_missed(_Config) ->
    Read = fun(Of, Window, Seen) -> rules(three() ++ [read(9, 10, Of, Window, Seen)], four()) end,
    ?assertEqual([read_missed], Read(~"a", {0, 9, forward}, [a(0), a(1)])),
    ?assertEqual([read_missed], Read(~"b", {0, 9, forward}, [])),
    ?assertEqual([read_missed], Read(log, {0, 9, forward}, [a(0), a(1), b()])),
    ?assertEqual([read_missed], Read(log, {3, 9, backward}, [])),
    ?assertEqual([read_missed], Read(~"a", {last, 1, backward}, [a(1)])),
    %% What was acknowledged when it had begun need not be there.
    ?assertEqual([], rules(three() ++ [read(5, 10, ~"a", {0, 9, forward}, [a(0), a(1)])], four())).

read_missed_what_was_written_there(_Config) ->
    Read = (read(9, 10, ~"b", {0, 9, forward}, read_your_writes, []))#call{node = one},
    Other = Read#call{node = other},
    [First, Second, Third] = three(),
    Entries = [First, Second#call{node = one}, Third],
    ?assertEqual([], rules(Entries ++ [Other], four())),
    ?assertEqual([read_missed], rules(Entries ++ [Read], four())).

read_missed_what_the_node_showed(_Config) ->
    First = read(9, 10, ~"a", {2, 1, forward}, local, [a(2)]),
    Second = read(11, 12, ~"b", {0, 9, forward}, local, []),
    ?assertEqual([], rules(three() ++ [Second], four())),
    ?assertEqual([], rules(three() ++ [First, Second#call{node = other}], four())),
    ?assertEqual([read_missed], rules(three() ++ [First, Second], four())).

%% Who sees an event sees all before it.
read_missed_within(_Config) ->
    Gap = read(3, 10, ~"a", {0, 9, forward}, local, [a(0), a(2)]),
    ?assertEqual([read_missed], rules(three() ++ [Gap], four())),
    LogGap = read(3, 10, log, {0, 9, forward}, local, [a(0), a(1), a(2)]),
    ?assertEqual([read_missed], rules(three() ++ [LogGap], four())).

read_removed(_Config) ->
    Deleted = call(7, 8, {delete, ~"b", tombstone}, {ok, ok}),
    Read = read(9, 10, ~"b", {0, 9, forward}, [b()]),
    ?assertEqual([read_removed], rules(three() ++ [Deleted, Read], four() -- [b()])),
    Local = read(9, 10, ~"b", {0, 9, forward}, local, [b()]),
    ?assertEqual([], rules(three() ++ [Deleted, Local], four() -- [b()])).

damaged(_Config) ->
    Read = fun(Reason) -> call(9, 10, {read, log, {0, 9, forward}, local}, {refused, Reason}) end,
    ?assertEqual([damaged], rules(three() ++ [Read({corrupt_events, ~"b", 0})], four())),
    ?assertEqual([], rules(three() ++ [Read(overloaded)], four())).

not_selected(_Config) ->
    Entries = [subscribed({stream, ~"b"}), delivered(52, [b()]), delivered(53, [a(0)])],
    ?assertEqual([not_selected], rules(three() ++ Entries, four())).

not_delivered(_Config) ->
    Entries = [subscribed(all), delivered(52, four() -- [b()])],
    ?assertEqual([not_delivered], rules(three() ++ Entries, four())),
    ?assertEqual([not_delivered], rules(three() ++ [subscribed(all)], four())).

delivered_out_of_order(_Config) ->
    Entries = [subscribed(all), delivered(52, [a(0), a(2), b(), a(1)])],
    ?assertEqual([delivered_out_of_order], rules(three() ++ Entries, four())),
    %% Nothing is said of the order of two streams.
    Streams = [subscribed(all), delivered(52, [a(0), b(), a(1), a(2)])],
    ?assertEqual([], rules(three() ++ Streams, four())).

delivered_twice(_Config) ->
    Twice = [subscribed(all), delivered(52, four()), delivered(54, [a(2)])],
    ?assertEqual([delivered_twice], rules(three() ++ Twice, four())),
    ?assertEqual([], rules(three() ++ Twice ++ [#fault{what = killed, at = 53}], four())).

document_unknown(_Config) ->
    Put = call(1, 2, {put, k, 1}, {ok, ok}),
    Get = call(3, 4, {get, k, local}, {ok, {value, 2}}),
    ?assertEqual([document_unknown], rules([Put, Get], [])),
    Refused = call(1, 2, {put, k, 2}, {refused, too_large}),
    ?assertEqual([document_unknown], rules([Put, Refused], [], #{k => {value, 2}})).

document_stale(_Config) ->
    Puts = [call(1, 2, {put, k, 1}, {ok, ok}), call(3, 4, {put, k, 2}, {ok, ok})],
    Get = fun(Consistency, Value) -> call(5, 6, {get, k, Consistency}, {ok, Value}) end,
    ?assertEqual([document_stale], rules(Puts ++ [Get(linearizable, {value, 1})], [])),
    ?assertEqual([document_stale], rules(Puts ++ [Get(linearizable, none)], [])),
    ?assertEqual([document_stale], rules(Puts, [], #{k => {value, 1}})),
    ?assertEqual([], rules(Puts ++ [Get(local, {value, 1})], [], #{k => {value, 2}})),
    Lost = [hd(Puts), lost(3, {put, k, 2})],
    ?assertEqual([], rules(Lost, [], #{k => {value, 1}})),
    ?assertEqual([], rules(Lost, [], #{k => {value, 2}})).

%% ---- random histories

clean_histories_pass(_Config) ->
    erl_esdb_test:property(
        300,
        ?FORALL(Plan, erl_esdb_history_gen:plan(), begin
            {Entries, Final} = erl_esdb_history_gen:history(Plan),
            Violations = erl_esdb_history:check(Entries, Final),
            ?WHENFAIL(print(Violations), Violations =:= [])
        end)
    ).

changed_histories_are_found(_Config) ->
    every_change_is_found(ets:new(seen, [public]), 10).

%% Until every kind of change was drawn.
every_change_is_found(Seen, Rounds) when Rounds > 0 ->
    changes_are_found(Seen),
    ets:info(Seen, size) =:= 10 orelse every_change_is_found(Seen, Rounds - 1).

changes_are_found(Seen) ->
    erl_esdb_test:property(
        300,
        ?FORALL({Plan, Draw}, {erl_esdb_history_gen:plan(), non_neg_integer()}, begin
            case erl_esdb_history_gen:mutations(erl_esdb_history_gen:history(Plan)) of
                [] ->
                    true;
                Mutations ->
                    Name = drawn(Draw, lists:usort([N || {N, _} <- Mutations])),
                    {Entries, Final} = drawn(Draw, [M || {N, M} <- Mutations, N =:= Name]),
                    true = ets:insert(Seen, {Name}),
                    ?WHENFAIL(
                        io:format("~p~n~p~n~p~n", [Name, Entries, Final]),
                        erl_esdb_history:check(Entries, Final) =/= []
                    )
            end
        end)
    ).

drawn(Draw, List) -> lists:nth(1 + erlang:phash2(Draw, length(List)), List).

print(Violations) -> io:put_chars([erl_esdb_history:format(V) || V <- Violations]).

what_a_violation_looks_like(_Config) ->
    [Violation] = erl_esdb_history:check(three(), #final{events = [a(0), a(1), b()]}),
    Text = unicode:characters_to_binary(erl_esdb_history:format(Violation)),
    ?assertMatch(<<"missing: {<<\"a2\">>,3}\n", _/binary>>, Text),
    ?assertNotEqual(nomatch, binary:match(Text, ~"[5, 6]")).

%% ---- loads

with_store(Fun) ->
    Store = erl_esdb_test:start_store(#{}),
    History = erl_esdb_history:new(),
    try
        Fun(#{
            history => History,
            store => Store,
            targets => fun() -> [{node(), fun erlang:apply/3}] end,
            seed => erlang:phash2(Store),
            operations => 300
        })
    after
        ok = erl_esdb_history:delete(History),
        ok = erl_esdb_test:stop_store(Store)
    end.

%% The violations of a load, whose calls go this way in place of straight to the store.
violations(Load, Via) ->
    Subscriptions = [{~"all", all}, {~"one", {stream, ~"stream-1"}}],
    Load1 = Load#{targets := fun() -> [{node(), Via}] end},
    Followers = [erl_esdb_load:follow(Load1, Wanted) || Wanted <- Subscriptions],
    _ = erl_esdb_load:run(Load1),
    violations(Load1, Via, Followers, 60_000).

violations(#{history := History, store := Store} = Load, Via, Followers, Patience) ->
    {ok, Final} = erl_esdb_history:final(Store, Via),
    _ = erl_esdb_load:awaited(Load, Final, Patience),
    ok = lists:foreach(fun erl_esdb_load:unfollow/1, Followers),
    erl_esdb_history:check(erl_esdb_history:entries(History), Final).

found(Violations) -> lists:usort([Rule || {Rule, _, _} <- Violations]).

a_load(_Config) ->
    with_store(fun(#{history := History} = Load) ->
        Load1 = Load#{weights => #{delete => 100, truncate => 100}},
        ?assertEqual([], violations(Load1, fun erlang:apply/3)),
        Calls = [C || #call{} = C <- erl_esdb_history:entries(History)],
        %% It does what it is there for.
        Outcomes = lists:usort([{element(1, Op), kind(O)} || #call{op = Op, outcome = O} <- Calls]),
        Wanted = [
            {append, ok},
            {append, refused},
            {delete, ok},
            {get, ok},
            {put, ok},
            {read, ok},
            {truncate, ok}
        ],
        ?assertEqual([], Wanted -- Outcomes),
        ?assertNotEqual([], [D || #delivery{} = D <- erl_esdb_history:entries(History)])
    end).

kind(unknown) -> unknown;
kind(Outcome) -> element(1, Outcome).

%% Every tenth answer is lost, and what was asked is done or not.
a_load_whose_clients_die(_Config) ->
    with_store(fun(#{history := History} = Load) ->
        Via = fun(Module, Function, Arguments) ->
            case Module =/= erl_esdb_subscriber andalso rand:uniform(20) of
                1 -> exit(lost);
                2 -> exit({lost, apply(Module, Function, Arguments)});
                _ -> apply(Module, Function, Arguments)
            end
        end,
        _ = erl_esdb_load:run(Load#{targets := fun() -> [{node(), Via}] end}),
        ?assertEqual([], violations(Load, fun erlang:apply/3, [], 0)),
        Unknown = [C || #call{outcome = unknown} = C <- erl_esdb_history:entries(History)],
        ?assert(length(Unknown) > 5)
    end).

subscribers_that_are_killed(_Config) ->
    with_store(fun(#{history := History} = Load) ->
        Live = ets:new(live, [public]),
        Via = fun(Module, Function, Arguments) ->
            Result = apply(Module, Function, Arguments),
            case {Module, Function} of
                {erl_esdb_subscriber, start} -> ets:insert(Live, {Result});
                _ -> ok
            end,
            Result
        end,
        Load1 = Load#{targets := fun() -> [{node(), Via}] end},
        Follower = erl_esdb_load:follow(Load1, {~"all", all}),
        Killed = lists:sum([killing(Live, History, Load1#{name => <<"l", N>>}) || N <- "123456"]),
        ?assertEqual([], violations(Load1, Via, [Follower], 60_000)),
        ?assertEqual(6, Killed)
    end).

%% Kills who takes the events, while there are some.
killing(Live, History, Load) ->
    [_] = erl_esdb_test:concurrently([fun() -> erl_esdb_load:run(Load#{operations := 50}) end]),
    Before = ets:info(Live, size),
    erl_esdb_test:await(fun() -> ets:info(Live, size) > 0 end),
    ok = erl_esdb_history:fault(History, subscriber_killed),
    [exit(Pid, kill) || {Pid} <- ets:tab2list(Live)],
    erl_esdb_test:await(fun() -> ets:info(Live, size) > Before end),
    1.

%% ---- stores with one rule broken, on the way between the clients and a store that has none broken

%% In one of some loads: clients have to meet.
is_found(Fun) -> ?assert(lists:any(fun(_) -> with_store(Fun) end, lists:seq(1, 20))).

%% The expectation is compared here, and the machine is asked for nothing.
checked_outside_the_machine(_Config) ->
    is_found(fun(Load) ->
        Via = fun
            (erl_esdb_streams, append, [Store, Stream, Expected, Events, Options]) when
                Expected >= -1
            ->
                case erl_esdb_streams:get_version(Store, Stream) of
                    Expected ->
                        erlang:yield(),
                        erl_esdb_streams:append(Store, Stream, any, Events, Options);
                    Actual ->
                        {error, {wrong_expected_version, Expected, Actual}}
                end;
            (Module, Function, Arguments) ->
                apply(Module, Function, Arguments)
        end,
        Few = #{streams => 1, clients => 8, weights => #{append_exact => 15_000}},
        lists:member(wrong_version, found(violations(maps:merge(Load, Few), Via)))
    end).

refused_and_written(_Config) ->
    with_store(fun(Load) ->
        Via = fun
            (erl_esdb_streams, append, [Store, Stream, Expected, Events, Options]) ->
                case erl_esdb_streams:append(Store, Stream, Expected, Events, Options) of
                    {error, {wrong_expected_version, _, _}} = Refused ->
                        _ = erl_esdb_streams:append(Store, Stream, any, Events, #{}),
                        Refused;
                    Result ->
                        Result
                end;
            (Module, Function, Arguments) ->
                apply(Module, Function, Arguments)
        end,
        ?assert(lists:member(refused_present, found(violations(Load, Via))))
    end).

written_in_two_halves(_Config) ->
    is_found(fun(Load) ->
        Via = fun
            (erl_esdb_streams, append, [Store, Stream, -2, [First, Second | Events], Options]) ->
                {ok, _} = erl_esdb_streams:append(Store, Stream, any, [First], #{}),
                erl_esdb_streams:append(Store, Stream, any, [Second | Events], Options);
            (Module, Function, Arguments) ->
                apply(Module, Function, Arguments)
        end,
        Found = found(violations(Load#{weights => #{append_any => 5000}}, Via)),
        [] =/= [R || R <- Found, lists:member(R, [torn, missing, position_twice])]
    end).

%% The answer is given, and then nothing is written.
acknowledged_and_dropped(_Config) ->
    with_store(fun(Load) ->
        Via = fun
            (erl_esdb_streams, append, [Store, Stream, -2, Events, Options] = Arguments) ->
                case rand:uniform(20) of
                    1 ->
                        {ok, Next} = erl_esdb_store:next_position(Store),
                        Version = erl_esdb_streams:get_version(Store, Stream),
                        Count = length(Events),
                        {ok, #append_result{
                            version = Version + Count, position = Next + Count - 1, count = Count
                        }};
                    _ when is_map(Options) ->
                        apply(erl_esdb_streams, append, Arguments)
                end;
            (Module, Function, Arguments) ->
                apply(Module, Function, Arguments)
        end,
        Found = found(violations(Load, Via)),
        ?assertNotEqual([], [R || R <- Found, lists:member(R, [missing, position_twice])])
    end).

%% The list of what lives is gone, and with it the bodies: who reads finds nothing before a point.
bodies_lost_after_a_restart(_Config) ->
    with_store(fun(#{store := Store} = Load) ->
        %% Nothing else explains that events are gone.
        _ = erl_esdb_load:run(Load#{weights => #{truncate => 0, tombstone => 0, delete => 0}}),
        {ok, Next} = erl_esdb_store:next_position(Store),
        Lost = Next div 2,
        Via = fun(Module, Function, Arguments) ->
            without(Lost, apply(Module, Function, Arguments))
        end,
        ?assert(lists:member(missing, found(violations(Load, Via, [], 0))))
    end).

without(Lost, {ok, [#event{} | _] = Events}) ->
    {ok, [Event || #event{position = Position} = Event <- Events, Position > Lost]};
without(_Lost, Result) ->
    Result.

%% Reads that say to be linearizable show what was there a while ago.
stale_reads(_Config) ->
    with_store(fun(Load) ->
        Via = fun
            (erl_esdb_streams, Read, [Store | _] = Arguments) when
                Read =:= read; Read =:= read_all
            ->
                {ok, Next} = erl_esdb_store:next_position(Store),
                before(max(0, Next - 20), apply(erl_esdb_streams, Read, Arguments));
            (Module, Function, Arguments) ->
                apply(Module, Function, Arguments)
        end,
        ?assert(lists:member(read_missed, found(violations(Load, Via))))
    end).

before(Next, {ok, Events}) -> {ok, [E || #event{position = P} = E <- Events, P < Next]};
before(_Next, Error) -> Error.

deliveries_dropped(_Config) ->
    with_store(fun(Load) ->
        Via = fun
            (erl_esdb_subscriber, take, Arguments) ->
                case apply(erl_esdb_subscriber, take, Arguments) of
                    {ok, [_ | Events]} -> {ok, Events};
                    Other -> Other
                end;
            (Module, Function, Arguments) ->
                apply(Module, Function, Arguments)
        end,
        Load1 = Load#{targets := fun() -> [{node(), Via}] end},
        Follower = erl_esdb_load:follow(Load1, {~"all", all}),
        _ = erl_esdb_load:run(Load),
        Violations = violations(Load, fun erlang:apply/3, [Follower], 1000),
        ?assert(lists:member(not_delivered, found(Violations)))
    end).
