-module(erl_esdb_turns_SUITE).
-moduledoc "Turns: who has one, who waits, and that nobody is forgotten.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_first_try_is_free,
        who_fails_has_the_turn,
        turns_come_in_their_order,
        a_turn_ends_with_its_process,
        who_gives_up_waits_no_more,
        many_who_give_up_hold_up_nobody,
        several_keys_at_once,
        without_the_process_everybody_tries,
        unknown_messages
    ].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_Config) -> application:stop(erl_esdb).

end_per_testcase(_Case, _Config) ->
    erl_esdb_test:await(fun() -> ets:tab2list(erl_esdb_turns) =:= [] end).

run(Keys, Timeout, Try) ->
    erl_esdb_turns:run(Keys, erl_esdb_deadline:in(Timeout), Try, first).

%% A process that has the turn of these keys until it is told to go on, or ends.
holder(Keys) ->
    Self = self(),
    Holder = spawn(fun() ->
        {ok, done} = run(Keys, infinity, fun
            (first) ->
                {again, second};
            (second) ->
                Self ! {self(), has_it},
                receive go_on -> {done, done} end
        end)
    end),
    receive {Holder, has_it} -> Holder end.

%% A process that waits for the turn, and tells when it had it.
waiter(Keys, Name) ->
    Self = self(),
    Waiter = spawn(fun() -> Self ! run(Keys, infinity, fun(_) -> {done, Name} end) end),
    erl_esdb_test:await(fun() -> waits(Waiter) end),
    Waiter.

waits(Pid) ->
    process_info(Pid, [status, current_function]) =:=
        [{status, waiting}, {current_function, {gen, do_call, 4}}].

a_first_try_is_free(_Config) ->
    ok = sys:suspend(erl_esdb_turns),
    ?assertEqual({ok, first}, run([a], infinity, fun(State) -> {done, State} end)),
    ?assertEqual({ok, 3}, erl_esdb_turns:run([], erl_esdb_deadline:in(1000), fun count/1, 0)),
    ?assertEqual({error, timeout}, run([], 0, fun(State) -> {again, State} end)),
    ok = sys:resume(erl_esdb_turns).

count(3) -> {done, 3};
count(N) -> {again, N + 1}.

who_fails_has_the_turn(_Config) ->
    Holder = holder([a]),
    Waiter = waiter([a], waiter),
    %% Another key is free.
    ?assertEqual({ok, done}, run([b], 0, fun(_) -> {done, done} end)),
    Holder ! go_on,
    receive Answer -> ?assertEqual({ok, waiter}, Answer) end,
    ?assertNot(is_process_alive(Waiter) andalso waits(Waiter)).

turns_come_in_their_order(_Config) ->
    Holder = holder([a]),
    _ = [waiter([a], N) || N <- lists:seq(1, 10)],
    Holder ! go_on,
    ?assertEqual([{ok, N} || N <- lists:seq(1, 10)], [receive A -> A end || _ <- lists:seq(1, 10)]).

a_turn_ends_with_its_process(_Config) ->
    Holder = holder([a]),
    First = waiter([a], first),
    _ = waiter([a], second),
    exit(First, kill),
    exit(Holder, kill),
    receive Answer -> ?assertEqual({ok, second}, Answer) end.

who_gives_up_waits_no_more(_Config) ->
    Holder = holder([a]),
    ?assertEqual({error, timeout}, run([a], 10, fun(_) -> {done, had_it} end)),
    _ = waiter([a], next),
    Holder ! go_on,
    receive Answer -> ?assertEqual({ok, next}, Answer) end.

%% Eight times as many give up, in about eight times the work for the process.
many_who_give_up_hold_up_nobody(_Config) ->
    Turns = whereis(erl_esdb_turns),
    Cost = fun(Count) ->
        Holder = holder([a]),
        Wait = fun() -> run([a], infinity, fun(_) -> {done, had_it} end) end,
        Waiters = [spawn_monitor(Wait) || _ <- lists:seq(1, Count)],
        [erl_esdb_test:await(fun() -> waits(Waiter) end) || {Waiter, _} <- Waiters],
        ?assertEqual({error, unknown_request}, gen_server:call(Turns, word)),
        {reductions, Before} = process_info(Turns, reductions),
        [exit(Waiter, kill) || {Waiter, _} <- Waiters],
        [receive {'DOWN', Ref, process, _, killed} -> ok end || {_, Ref} <- Waiters],
        Holder ! go_on,
        erl_esdb_test:await(fun() -> ets:tab2list(erl_esdb_turns) =:= [] end),
        ?assertEqual({error, unknown_request}, gen_server:call(Turns, word)),
        {reductions, After} = process_info(Turns, reductions),
        After - Before
    end,
    Few = Cost(500),
    ?assert(Cost(4000) < 24 * Few).

%% In whatever order they are named: nobody waits for somebody who waits for them.
several_keys_at_once(_Config) ->
    Try = fun
        (first) -> {again, second};
        (second) -> {done, done}
    end,
    Several = fun(Keys) -> fun() -> [run(Keys, infinity, Try) || _ <- lists:seq(1, 200)] end end,
    Done = erl_esdb_test:concurrently([Several(Keys) || Keys <- [[a, b], [b, a], [c, b, a], [c]]]),
    ?assertEqual([{ok, done}], lists:usort(lists:append(Done))).

without_the_process_everybody_tries(_Config) ->
    ok = supervisor:terminate_child(erl_esdb_sup, turns),
    ?assertEqual({ok, 3}, erl_esdb_turns:run([a], erl_esdb_deadline:in(1000), fun count/1, 0)),
    {ok, _} = supervisor:restart_child(erl_esdb_sup, turns),
    ?assertEqual({ok, 3}, erl_esdb_turns:run([a], erl_esdb_deadline:in(1000), fun count/1, 0)).

unknown_messages(_Config) ->
    erl_esdb_turns ! what,
    ok = gen_server:cast(erl_esdb_turns, what),
    ok = gen_server:cast(erl_esdb_turns, {give, nobodys, self()}),
    ?assertEqual({error, unknown_request}, gen_server:call(erl_esdb_turns, what)).
