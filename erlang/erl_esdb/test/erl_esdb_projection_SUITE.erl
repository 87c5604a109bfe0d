-module(erl_esdb_projection_SUITE).
-moduledoc "Projections, of which this module is one: it counts, and fails where it is told to.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-behaviour(erl_esdb_projection).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases(), #{in_memory => [it_outlives_the_processes_of_the_store]}).

cases() ->
    [
        users_read_their_own_writes,
        a_document_survives_a_crash,
        exactly_once_whenever_it_crashes,
        a_table,
        a_table_begins_again_after_a_crash,
        selected_events_only,
        rebuild_folds_all_again,
        lag_is_what_is_missing,
        await_gives_up,
        one_of_a_name,
        it_ends_with_the_store,
        it_outlives_the_processes_of_the_store,
        a_supervisor_outlives_the_store,
        it_waits_for_a_store_that_begins_again,
        a_store_that_begins_anew_during_an_event,
        calls_end_in_time,
        a_module_without_callbacks,
        a_table_outlives_the_delivery,
        who_waited_is_forgotten,
        callbacks_may_have_processes,
        one_of_many_that_start_at_once,
        data_may_be_json,
        mistakes
    ].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

%% ---- the projection

init(#{table := Table}) -> {ok, Table};
init(#{args := _}) -> {ok, #{}}.

handle_event(#event{data = #{n := crash}} = Event, State) ->
    case take_crash() of
        true -> error({told_to, Event#event.position});
        false -> counted(Event, State)
    end;
handle_event(Event, State) ->
    counted(Event, State).

counted(#event{data = #{n := processes}} = Event, State) ->
    {Pid, Ref} = spawn_monitor(fun() -> ok end),
    Linked = spawn_link(fun() -> ok end),
    erl_esdb_test:await(fun() -> not lists:any(fun is_process_alive/1, [Pid, Linked]) end),
    true = is_reference(Ref),
    counted(Event#event{data = #{}}, State);
counted(#event{data = #{n := {waits, Pid}}} = Event, State) ->
    Pid ! {waits, self()},
    receive go_on -> counted(Event#event{data = #{}}, State) end;
counted(#event{data = #{~"json" := Key}} = Event, State) ->
    counted(Event#event{data = #{}, stream_id = Key}, State);
counted(#event{stream_id = Stream}, Counts) when is_map(Counts) ->
    {ok, maps:update_with(Stream, fun(N) -> N + 1 end, 1, Counts)};
counted(#event{stream_id = Stream}, Table) ->
    _ = ets:update_counter(Table, Stream, 1, {Stream, 0}),
    {ok, Table}.

%% As many crashes as are left.
take_crash() -> counters_take(persistent_term:get(?MODULE)).

counters_take(Crashes) ->
    case atomics:sub_get(Crashes, 1, 1) of
        Left when Left >= 0 -> true;
        _ -> false
    end.

crashes(Count) ->
    Crashes = atomics:new(1, []),
    ok = atomics:put(Crashes, 1, Count),
    persistent_term:put(?MODULE, Crashes).

%% ---- the cases

init_per_testcase(_Case, Config) ->
    ok = crashes(0),
    process_flag(trap_exit, true),
    [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb_test:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

start(Config) -> start(Config, #{}).

start(Config, Options) ->
    {ok, Pid} = erl_esdb_projection:start_link(store(Config), <<"p">>, ?MODULE, Options),
    Pid.

append(Config, Stream, Count) ->
    append_events(Config, Stream, erl_esdb_test:events(Count)).

append_events(Config, Stream, Events) ->
    Options = #{return => result},
    {ok, #append_result{position = Position}} =
        erl_esdb_streams:append(store(Config), Stream, any, Events, Options),
    Position.

await(Config, Position) ->
    erl_esdb_projection:await(store(Config), <<"p">>, Position, 60_000).

state(Config) ->
    {ok, State} = erl_esdb_projection:state(store(Config), <<"p">>),
    State.

users_read_their_own_writes(Config) ->
    _ = append(Config, <<"a">>, 3),
    _ = start(Config),
    [
        begin
            ok = await(Config, append(Config, <<"b">>, 1)),
            ?assertEqual(#{<<"a">> => 3, <<"b">> => N}, state(Config))
        end
     || N <- lists:seq(1, 100)
    ].

a_document_survives_a_crash(Config) ->
    Pid = start(Config),
    ok = await(Config, append(Config, <<"a">>, 500)),
    exit(Pid, kill),
    receive {'EXIT', Pid, killed} -> ok end,
    _ = append(Config, <<"a">>, 1),
    _ = start(Config),
    ok = await(Config, 500),
    ?assertEqual(#{<<"a">> => 501}, state(Config)).

%% A handler that fails at any events, and a supervisor that starts it again.
exactly_once_whenever_it_crashes(Config) ->
    Property = ?FORALL(
        {Sizes, Crashes},
        {non_empty(list({range(1, 3), range(1, 300), boolean()})), range(0, 5)},
        begin
            Store = erl_esdb_test:start_store(#{}),
            Mine = [{store, Store} | proplists:delete(store, Config)],
            ok = crashes(Crashes),
            Starter = self(),
            Supervisor = spawn_link(fun() -> supervise(Mine, Starter) end),
            Last = [append_events(Mine, <<S>>, batch(Size, Bad)) || {S, Size, Bad} <- Sizes],
            erl_esdb_test:await(fun() -> await(Mine, lists:last(Last)) =:= ok end),
            Expected = lists:foldl(
                fun({S, Size, _}, Acc) ->
                    maps:update_with(<<S>>, fun(N) -> N + Size end, Size, Acc)
                end,
                #{},
                Sizes
            ),
            Equal = state(Mine) =:= Expected,
            exit(Supervisor, kill),
            receive {'EXIT', Supervisor, _} -> ok end,
            ok = erl_esdb:stop_store(Store),
            Equal
        end
    ),
    erl_esdb_test:quietly(fun() -> erl_esdb_test:property(30, Property) end).

batch(Size, false) -> erl_esdb_test:events(Size);
batch(Size, true) -> erl_esdb_test:events(Size - 1) ++ [erl_esdb_test:event(crash)].

supervise(Config, Starter) ->
    process_flag(trap_exit, true),
    Pid = start(Config),
    receive
        {'EXIT', Pid, _} -> supervise(Config, Starter);
        {'EXIT', Starter, Reason} -> exit(Reason)
    end.

a_table(Config) ->
    _ = start(Config, #{keep => ets}),
    ok = await(Config, append(Config, <<"a">>, 3)),
    {ok, Table} = erl_esdb_projection:table(store(Config), <<"p">>),
    ?assertEqual([{<<"a">>, 3}], ets:tab2list(Table)),
    ?assertEqual(Table, state(Config)).

a_table_begins_again_after_a_crash(Config) ->
    Pid = start(Config, #{keep => ets}),
    ok = await(Config, append(Config, <<"a">>, 3)),
    exit(Pid, kill),
    receive {'EXIT', Pid, killed} -> ok end,
    _ = start(Config, #{keep => ets}),
    ok = await(Config, 2),
    ?assertEqual([{<<"a">>, 3}], ets:tab2list(state(Config))).

selected_events_only(Config) ->
    _ = start(Config, #{type => event_pattern, selector => <<"a*">>}),
    _ = append(Config, <<"ab">>, 2),
    %% Also a position of another stream is reached.
    ok = await(Config, append(Config, <<"b">>, 2)),
    ?assertEqual(#{<<"ab">> => 2}, state(Config)).

rebuild_folds_all_again(Config) ->
    [
        begin
            Pid = start(Config, #{keep => Keep}),
            Position = append(Config, <<"a">>, 3),
            ok = await(Config, Position),
            Before = counts(state(Config)),
            ok = erl_esdb_projection:rebuild(store(Config), <<"p">>),
            ok = await(Config, Position),
            ?assertEqual(Before, counts(state(Config))),
            ok = erl_esdb_projection:stop(store(Config), <<"p">>),
            receive {'EXIT', Pid, normal} -> ok end
        end
     || Keep <- [document, ets]
    ].

counts(Counts) when is_map(Counts) -> Counts;
counts(Table) -> maps:from_list(ets:tab2list(Table)).

lag_is_what_is_missing(Config) ->
    ?assertEqual({error, not_found}, erl_esdb_projection:lag(store(Config), <<"p">>)),
    Pid = start(Config),
    ok = await(Config, append(Config, <<"a">>, 3)),
    ?assertEqual({ok, 0}, erl_esdb_projection:lag(store(Config), <<"p">>)),
    ok = sys:suspend(Pid),
    _ = append(Config, <<"a">>, 5),
    Self = self(),
    spawn_link(fun() -> Self ! {lag, erl_esdb_projection:lag(store(Config), <<"p">>)} end),
    ok = sys:resume(Pid),
    receive {lag, {ok, Lag}} -> ?assert(Lag =< 5) end,
    ok = await(Config, 7),
    ?assertEqual({ok, 0}, erl_esdb_projection:lag(store(Config), <<"p">>)).

await_gives_up(Config) ->
    ?assertEqual({error, not_found}, await(Config, 0)),
    _ = start(Config),
    ?assertEqual(
        {error, timeout}, erl_esdb_projection:await(store(Config), <<"p">>, 0, 10)
    ).

one_of_a_name(Config) ->
    Pid = start(Config),
    ?assertEqual(
        {error, {already_started, Pid}},
        erl_esdb_projection:start_link(store(Config), <<"p">>, ?MODULE, #{})
    ).

it_ends_with_the_store(Config) ->
    Pid = start(Config),
    ok = erl_esdb:stop_store(store(Config)),
    receive
        {'EXIT', Pid, Reason} -> ?assertEqual({shutdown, store_stopped}, Reason)
    after 60_000 -> error(missing)
    end,
    ?assertEqual(
        {error, {store_not_started, store(Config)}},
        erl_esdb_projection:state(store(Config), <<"p">>)
    ).

%% A store in memory comes back without its events: what is counted then are the new ones.
it_outlives_the_processes_of_the_store(Config) ->
    [
        begin
            Pid = start(Config, #{keep => Keep}),
            _ = [crashed(Config, What) || What <- [engine, supervisor, feed]],
            ?assert(is_process_alive(Pid)),
            crashed(Config, engine),
            ok = await(Config, append(Config, <<"a">>, 3)),
            ?assertEqual(#{<<"a">> => 3}, counts(state(Config))),
            ok = erl_esdb_projection:stop(store(Config), <<"p">>),
            receive {'EXIT', Pid, normal} -> ok end
        end
     || Keep <- [document, ets]
    ].

%% Ends a process of the store, and waits until what it stood for is there again.
crashed(Config, What) ->
    Store = store(Config),
    Pid = process(What, Store),
    exit(Pid, kill),
    erl_esdb_test:await(fun() ->
        Now = process(What, Store),
        is_pid(Now) andalso Now =/= Pid
    end),
    erl_esdb_test:await(fun() -> is_pid(process(feed, Store)) end),
    %% A table that the store made anew does not know the projection at first.
    erl_esdb_test:await(fun() ->
        element(1, erl_esdb_projection:position(Store, <<"p">>)) =:= ok
    end).

process(engine, Store) ->
    whereis_engine([Pid || {S, #{engine := Pid}} <- erl_esdb_engine:lives(), S =:= Store]);
process(supervisor, Store) ->
    whereis(erl_esdb_naming:system_sup_name(Store));
process(feed, Store) ->
    case erl_esdb_delivery:find(Store, feed, none) of
        {ok, {Pid, _}} -> Pid;
        error -> undefined
    end.

whereis_engine([Pid]) -> Pid;
whereis_engine([]) -> undefined.

%% The most impatient supervisor: OTP's default of one restart in five seconds would do.
a_supervisor_outlives_the_store(Config) ->
    Store = store(Config),
    Spec = erl_esdb_projection:child_spec(Store, <<"p">>, ?MODULE, #{}),
    Flags = #{strategy => one_for_one, intensity => 0, period => 3600},
    {ok, Supervisor} = supervisor:start_link(erl_esdb_test_sup, {Flags, [Spec]}),
    _ = [crashed(Config, What) || What <- [engine, feed, supervisor, engine]],
    ok = await(Config, append(Config, <<"a">>, 3)),
    ?assertEqual(#{<<"a">> => 3}, state(Config)),
    ok = erl_esdb:stop_store(Store),
    #{id := Id} = Spec,
    erl_esdb_test:await(fun() ->
        lists:keymember(undefined, 2, supervisor:which_children(Supervisor))
    end),
    {ok, _} = erl_esdb_test:start_store(Store, erl_esdb_test:options()),
    {ok, _} = supervisor:restart_child(Supervisor, Id),
    ok = await(Config, append(Config, <<"b">>, 1)),
    ?assertEqual(#{<<"b">> => 1}, state(Config)),
    unlink(Supervisor),
    exit(Supervisor, shutdown).

%% Started between the end of an engine and the next one.
it_waits_for_a_store_that_begins_again(Config) ->
    Store = store(Config),
    Core = erl_esdb_naming:core_sup_name(Store),
    ok = supervisor:terminate_child(Core, persistence_sup),
    Pid = start(Config),
    ?assertEqual(
        {error, {store_not_started, Store}}, erl_esdb_projection:state(Store, <<"p">>)
    ),
    {ok, _} = supervisor:restart_child(Core, persistence_sup),
    erl_esdb_test:await(fun() -> erl_esdb_projection:position(Store, <<"p">>) =:= {ok, 0} end),
    ok = await(Config, append(Config, <<"a">>, 2)),
    ?assertEqual(#{<<"a">> => 2}, state(Config)),
    ?assert(is_process_alive(Pid)).

%% A callback that takes long holds up nobody longer than he wants to wait.
calls_end_in_time(Config) ->
    Store = store(Config),
    Pid = start(Config),
    append_events(Config, <<"s">>, [erl_esdb_test:event({waits, self()})]),
    receive {waits, Pid} -> ok end,
    [
        ?assertEqual(
            {error, {timeout, Store}},
            apply(erl_esdb_projection, Call, [Store, <<"p">>, #{timeout => 1}])
        )
     || Call <- [state, table, position, lag, rebuild, stop]
    ],
    ?assertError(badarg, erl_esdb_projection:state(Store, <<"p">>, #{timeout => soon})),
    Pid ! go_on,
    %% It was told to.
    receive {'EXIT', Pid, normal} -> ok end.

a_module_without_callbacks(Config) ->
    [
        ?assertEqual(
            {error, {no_projection, Module}},
            erl_esdb_projection:start_link(store(Config), <<"p">>, Module, #{})
        )
     || Module <- [nosuch, lists]
    ].

%% Its store is stopped, and another one of the name has other events, before the callback returns:
%% the projection is of these then, and nobody is told that they were seen before they were.
a_store_that_begins_anew_during_an_event(Config) ->
    [begins_anew(Config, Keep) || Keep <- [document, ets]].

begins_anew(Config, Keep) ->
    Store = store(Config),
    Pid = start(Config, #{keep => Keep}),
    append(Config, <<"old">>, 3),
    ok = erl_esdb_projection:await(Store, <<"p">>, 2, 60_000),
    append_events(Config, <<"old">>, [erl_esdb_test:event({waits, self()})]),
    receive {waits, Pid} -> ok end,
    ok = erl_esdb:stop_store(Store),
    {ok, _} = erl_esdb_test:start_store(Store, erl_esdb_test:options()),
    append(Config, <<"new">>, 2),
    Pid ! go_on,
    erl_esdb_test:await(fun() ->
        erl_esdb_projection:lag(Store, <<"p">>) =/= {error, not_found}
    end),
    ?assertEqual(ok, erl_esdb_projection:await(Store, <<"p">>, 1, 60_000)),
    ?assertEqual(#{<<"new">> => 2}, counts(state(Config))),
    ?assertEqual({ok, 2}, erl_esdb_projection:position(Store, <<"p">>)),
    ok = erl_esdb_projection:stop(Store, <<"p">>),
    receive {'EXIT', Pid, _} -> ok end.

%% The log is the same: nothing is folded again.
a_table_outlives_the_delivery(Config) ->
    Pid = start(Config, #{keep => ets}),
    ok = await(Config, append(Config, <<"a">>, 3)),
    {ok, Table} = erl_esdb_projection:table(store(Config), <<"p">>),
    1 = erlang:trace(Pid, true, [call]),
    _ = erlang:trace_pattern({?MODULE, handle_event, 2}, true, [local]),
    crashed(Config, feed),
    ok = await(Config, append(Config, <<"a">>, 1)),
    1 = erlang:trace(Pid, false, [call]),
    ?assertEqual([{<<"a">>, 4}], ets:tab2list(Table)),
    ?assertEqual([3], traced()).

traced() ->
    receive
        {trace, _, call, {?MODULE, handle_event, [#event{position = At}, _]}} -> [At | traced()]
    after 0 -> []
    end.

%% The projection watches its feed, and nobody besides.
who_waited_is_forgotten(Config) ->
    Pid = start(Config),
    Await = fun(Timeout) ->
        erl_esdb_projection:await(store(Config), <<"p">>, 1_000_000, Timeout)
    end,
    Watched = fun() -> length(element(2, process_info(Pid, monitors))) end,
    Workers = [spawn(fun() -> Await(infinity) end) || _ <- lists:seq(1, 100)],
    erl_esdb_test:await(fun() -> Watched() =:= 101 end),
    ?assertEqual(
        [{error, timeout}],
        lists:usort(erl_esdb_test:concurrently([fun() -> Await(1) end || _ <- lists:seq(1, 100)]))
    ),
    _ = [exit(Worker, kill) || Worker <- Workers],
    erl_esdb_test:await(fun() -> Watched() =:= 1 end),
    %% Who waits for what comes is told, and forgotten too.
    ok = await(Config, append(Config, <<"a">>, 1)),
    ?assertEqual(1, Watched()).

callbacks_may_have_processes(Config) ->
    Pid = start(Config),
    ok = await(Config, append_events(Config, <<"a">>, [erl_esdb_test:event(processes)])),
    ok = await(Config, append(Config, <<"a">>, 1)),
    ?assertEqual(#{<<"a">> => 2}, state(Config)),
    ?assert(is_process_alive(Pid)).

one_of_many_that_start_at_once(Config) ->
    Start = fun() ->
        process_flag(trap_exit, true),
        Started = erl_esdb_projection:start_link(store(Config), <<"p">>, ?MODULE, #{}),
        _ = [unlink(Pid) || {ok, Pid} <- [Started]],
        Started
    end,
    Started = erl_esdb_test:concurrently([Start || _ <- lists:seq(1, 20)]),
    [Pid] = [Pid || {ok, Pid} <- Started],
    ?assertEqual([{already_started, Pid}], lists:usort([Reason || {error, Reason} <- Started])),
    ok = erl_esdb_projection:stop(store(Config), <<"p">>).

data_may_be_json(Config) ->
    Event = #{event_type => <<"T">>, data => #{json => <<"k">>}},
    _ = start(Config, #{decode => json}),
    {ok, #append_result{position = Position}} =
        erl_esdb_streams:append(store(Config), <<"a">>, any, [Event], #{
            codec => json, return => result
        }),
    ok = await(Config, Position),
    ?assertEqual(#{<<"k">> => 1}, state(Config)).

mistakes(Config) ->
    Start = fun(Store, Options) ->
        erl_esdb_projection:start_link(Store, <<"p">>, ?MODULE, Options)
    end,
    ?assertEqual({error, {invalid_option, keep, disk}}, Start(store(Config), #{keep => disk})),
    ?assertEqual({error, {invalid_option, decode, x}}, Start(store(Config), #{decode => x})),
    ?assertEqual({error, {invalid_type, x}}, Start(store(Config), #{type => x})),
    ?assertEqual({error, {store_not_started, no_store}}, Start(no_store, #{})),
    ?assertError(badarg, Start("store", #{})),
    ?assertError(badarg, erl_esdb_projection:await(store(Config), <<"p">>, -1, 10)),
    ?assertError(badarg, erl_esdb_projection:await(store(Config), <<"p">>, 0, -1)),
    ?assertEqual(
        {error, {store_not_started, no_store}}, erl_esdb_projection:await(no_store, <<"p">>, 0, 9)
    ),
    ?assertError(badarg, erl_esdb_projection:state("store", <<"p">>)),
    ?assertError(badarg, erl_esdb_projection:child_spec(store(Config), p, ?MODULE, #{})).
