-module(erl_esdb_telemetry_SUITE).
-moduledoc """
Telemetry, with the handlers kept here and with an application named `telemetry`: a stand-in of a
few lines that has the calls of the real one that the store makes, and like it does nothing before
it is started.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb_telemetry.hrl").

all() ->
    [
        {group, alone},
        {group, with_library},
        a_tel_07_every_macro,
        a_handler_survives_the_library,
        the_library_is_started_first,
        the_store_starts_without_the_library,
        the_environment_switches_aliases
    ].

groups() -> [{Group, [], cases()} || Group <- [alone, with_library]].

cases() ->
    [
        a_tel_01_attach_default_handler,
        a_tel_02_detach_default_handler,
        a_tel_03_attach_and_detach,
        a_tel_04_emit,
        a_tel_05_span,
        a_tel_05_span_of_a_crash,
        a_tel_06_handle_event,
        t_37_missing_keys_detach_nobody,
        t_39_aliases,
        a_crashing_handler_is_detached,
        concurrent_attaches,
        misuse
    ].

init_per_group(with_library, Config) ->
    add_stand_in(Config),
    ok = application:start(telemetry),
    Config;
init_per_group(alone, Config) ->
    ?assertNot(erlang:function_exported(telemetry, execute, 3)),
    Config.

end_per_group(with_library, Config) -> remove_stand_in(Config);
end_per_group(alone, _Config) -> ok.

a_tel_01_attach_default_handler(_Config) ->
    ?assertEqual(ok, erl_esdb_telemetry:attach_default_handler()),
    ?assertEqual({error, already_exists}, erl_esdb_telemetry:attach_default_handler()),
    ok = erl_esdb_telemetry:detach_default_handler().

a_tel_02_detach_default_handler(_Config) ->
    ok = erl_esdb_telemetry:attach_default_handler(),
    ?assertEqual(ok, erl_esdb_telemetry:detach_default_handler()),
    ?assertEqual({error, not_found}, erl_esdb_telemetry:detach_default_handler()).

a_tel_03_attach_and_detach(_Config) ->
    ok = attach(?FUNCTION_NAME),
    ?assertEqual({error, already_exists}, attach(?FUNCTION_NAME)),
    [ok = erl_esdb_telemetry:emit(Event, #{m => 1}, #{d => 2}) || Event <- attached()],
    ?assertEqual([{Event, #{m => 1}, #{d => 2}, config} || Event <- attached()], received()),
    ok = erl_esdb_telemetry:emit([erl_esdb, unheard_of], #{}, #{}),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    ok = erl_esdb_telemetry:emit(?STORE_STARTED, #{}, #{}),
    ?assertEqual([], received()),
    ?assertEqual({error, not_found}, erl_esdb_telemetry:detach(?FUNCTION_NAME)).

a_tel_04_emit(_Config) ->
    ok = attach(one),
    ok = attach(two),
    ?assertEqual(ok, erl_esdb_telemetry:emit(?LINK_CREATED, #{}, #{})),
    ?assertEqual(ok, erl_esdb_telemetry:emit(?SNAPSHOT_READ, #{duration => 3}, #{store_id => s})),
    ok = erl_esdb_telemetry:detach(one),
    ok = erl_esdb_telemetry:detach(two),
    Received = {?SNAPSHOT_READ, #{duration => 3}, #{store_id => s}, config},
    ?assertEqual([Received, Received], received()).

a_tel_05_span(_Config) ->
    Prefix = [erl_esdb, something],
    ok = attach(?FUNCTION_NAME, [Prefix ++ [start], Prefix ++ [stop], Prefix ++ [exception]]),
    ?assertEqual(result, erl_esdb_telemetry:span(Prefix, #{a => 1}, fun() -> result end)),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    [{Start, M1, Meta, config}, {Stop, M2, Meta, config}] = received(),
    ?assertEqual({Prefix ++ [start], Prefix ++ [stop], #{a => 1}}, {Start, Stop, Meta}),
    ?assertMatch(#{system_time := _, monotonic_time := _}, M1),
    ?assertMatch(#{duration := D, monotonic_time := _} when D >= 0, M2).

a_tel_05_span_of_a_crash(_Config) ->
    Prefix = [erl_esdb, something],
    ok = attach(?FUNCTION_NAME, [Prefix ++ [stop], Prefix ++ [exception]]),
    ?assertExit(gone, erl_esdb_telemetry:span(Prefix, #{a => 1}, fun() -> exit(gone) end)),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    [{Exception, #{duration := _}, Meta, config}] = received(),
    ?assertEqual(Prefix ++ [exception], Exception),
    ?assertMatch(#{a := 1, kind := exit, reason := gone, stacktrace := [_ | _]}, Meta).

%% Every event, and whatever stands in its maps.
a_tel_06_handle_event(_Config) ->
    Property = ?FORALL(
        {Event, Measurements, Metadata, Config},
        {oneof(attached() ++ [list(atom())]), map(any(), any()), map(any(), any()), any()},
        ok =:= erl_esdb_telemetry:handle_event(Event, Measurements, Metadata, Config)
    ),
    erl_esdb_test:quietly(fun() -> erl_esdb_test:property(200, Property) end),
    %% Also the function that makes the text of it.
    ok = logger:add_handler(?MODULE, ?MODULE, #{level => all, config => self()}),
    ok = erl_esdb_telemetry:handle_event(?CLUSTER_NODE_UP, #{}, #{}, none),
    ok = logger:remove_handler(?MODULE),
    receive
        {logged, Text} -> ?assertEqual(<<"[erl_esdb,cluster,node,up] #{} #{}">>, Text)
    after 60_000 -> error(nothing_logged)
    end.

%% The logger's call into the handler above.
log(#{msg := {report, Report}, meta := #{report_cb := Format}}, #{config := Pid}) ->
    {Text, Args} = Format(Report),
    Pid ! {logged, unicode:characters_to_binary(io_lib:format(Text, Args))};
log(#{msg := {Text, Args}}, #{config := Pid}) when is_list(Args) ->
    Pid ! {logged, unicode:characters_to_binary(io_lib:format(Text, Args))};
log(_, _) ->
    ok.

%% T-37: the handler that logs stays, whatever an event has in its maps.
t_37_missing_keys_detach_nobody(_Config) ->
    ok = erl_esdb_telemetry:attach_default_handler(),
    [ok = erl_esdb_telemetry:emit(Event, #{}, #{}) || Event <- attached()],
    ?assertEqual(ok, erl_esdb_telemetry:detach_default_handler()).

%% T-39: the second vocabulary, where it is asked for.
t_39_aliases(_Config) ->
    Aliases = [
        {?STREAM_WRITE_START, [erl_esdb, append, start]},
        {?STREAM_WRITE_STOP, [erl_esdb, append, stop]},
        {?STREAM_WRITE_ERROR, [erl_esdb, append, exception]},
        {?STREAM_READ_START, [erl_esdb, read, start]},
        {?STREAM_READ_STOP, [erl_esdb, read, stop]},
        {?HEALTH_PROBE_COMPLETE, [erl_esdb, health, probe]},
        {?HEALTH_NODE_FAILED, [erl_esdb, health, change]},
        {?HEALTH_NODE_RECOVERED, [erl_esdb, health, change]}
    ],
    ok = attach(?FUNCTION_NAME, lists:usort([Alias || {_, Alias} <- Aliases])),
    Emit = fun() ->
        [ok = erl_esdb_telemetry:emit(Event, #{m => 1}, #{d => 2}) || {Event, _} <- Aliases],
        ok = erl_esdb_telemetry:emit(?STORE_STARTED, #{}, #{}),
        received()
    end,
    ?assertEqual([], Emit()),
    ok = erl_esdb_telemetry:set_aliases(true),
    ?assertEqual([{Alias, #{m => 1}, #{d => 2}, config} || {_, Alias} <- Aliases], Emit()),
    ok = erl_esdb_telemetry:set_aliases(false),
    ?assertEqual([], Emit()),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME).

a_crashing_handler_is_detached(_Config) ->
    Crash = fun(_, _, _, _) -> error(deliberate) end,
    ok = erl_esdb_telemetry:attach(crashing, Crash, none),
    ok = attach(healthy),
    ok = erl_esdb_telemetry:emit(?STORE_STOPPED, #{}, #{}),
    ?assertEqual({error, not_found}, erl_esdb_telemetry:detach(crashing)),
    ?assertMatch([{?STORE_STOPPED, _, _, _}], received()),
    ok = erl_esdb_telemetry:detach(healthy).

concurrent_attaches(_Config) ->
    Handler = fun(_, _, _, _) -> ok end,
    Ids = lists:seq(1, 40),
    Attach = fun(Id) -> erl_esdb_telemetry:attach({?FUNCTION_NAME, Id rem 20}, Handler, none) end,
    Results = erl_esdb_test:concurrently([fun() -> Attach(Id) end || Id <- Ids]),
    ?assertEqual(20, length([ok || ok <- Results])),
    ?assertEqual(
        lists:duplicate(20, ok),
        erl_esdb_test:concurrently([
            fun() -> erl_esdb_telemetry:detach({?FUNCTION_NAME, Id}) end
         || Id <- lists:seq(0, 19)
        ])
    ).

misuse(_Config) ->
    ?assertError(badarg, erl_esdb_telemetry:attach(id, fun() -> ok end, none)),
    ?assertError(badarg, erl_esdb_telemetry:attach(id, no_fun, none)),
    Names = [foo, [foo], [[]], [[foo, "bar"]], [[foo] | bar], [[foo | bar]], #{}],
    [?assertError(badarg, erl_esdb_telemetry:attach_many(a, N, handler(), [])) || N <- Names],
    ?assertEqual({error, not_found}, erl_esdb_telemetry:detach(a)).

%% Handlers attached before the library came go on and can be detached.
a_handler_survives_the_library(Config) ->
    ok = attach(early),
    add_stand_in(Config),
    ok = application:start(telemetry),
    ok = attach(late),
    ok = erl_esdb_telemetry:emit(?STORE_STARTED, #{}, #{}),
    ?assertMatch([_, _], received()),
    ?assertEqual(ok, erl_esdb_telemetry:detach(early)),
    ?assertEqual(ok, erl_esdb_telemetry:detach(late)),
    ok = erl_esdb_telemetry:emit(?STORE_STARTED, #{}, #{}),
    ?assertEqual([], received()),
    remove_stand_in(Config).

%% On the code path and neither loaded nor started: whoever starts the store gets both.
the_library_is_started_first(Config) ->
    fresh(),
    add_stand_in(Config),
    {ok, Started} = application:ensure_all_started(erl_esdb),
    ?assertEqual([telemetry, erl_esdb], [A || A <- Started, A =:= telemetry orelse A =:= erl_esdb]),
    ?assertEqual({error, already_exists}, telemetry:attach_many(logger_id(), [], handler(), none)),
    ok = telemetry:attach_many(?FUNCTION_NAME, [?STREAM_WRITE_STOP], handler(), config),
    {ok, _} = erl_esdb:start_store(?FUNCTION_NAME),
    {ok, 0} = erl_esdb_streams:append(?FUNCTION_NAME, <<"s">>, any, erl_esdb_test:events(1)),
    ?assertMatch([{?STREAM_WRITE_STOP, _, #{new_version := 0}, config}], received()),
    fresh(),
    remove_stand_in(Config).

the_store_starts_without_the_library(_Config) ->
    fresh(),
    ?assertEqual(non_existing, code:which(telemetry)),
    {ok, Started} = application:ensure_all_started(erl_esdb),
    ?assert(lists:member(erl_esdb, Started)),
    ?assertNot(lists:member(telemetry, Started)),
    ?assertEqual({error, already_exists}, erl_esdb_telemetry:attach_logger()),
    fresh().

%% By the environment, as long as the application runs.
the_environment_switches_aliases(_Config) ->
    fresh(),
    ok = application:load(erl_esdb),
    ok = application:set_env(erl_esdb, telemetry_aliases, true),
    {ok, _} = erl_esdb_app:start(),
    ok = attach(?FUNCTION_NAME, [[erl_esdb, append, stop], ?STREAM_WRITE_STOP]),
    {ok, _} = erl_esdb:start_store(?FUNCTION_NAME),
    {ok, 0} = erl_esdb_streams:append(?FUNCTION_NAME, <<"s">>, any, erl_esdb_test:events(1)),
    ?assertMatch(
        [{?STREAM_WRITE_STOP, M, D, config}, {[erl_esdb, append, stop], M, D, config}], received()
    ),
    ok = erl_esdb_app:stop(),
    ok = erl_esdb_telemetry:emit(?STREAM_WRITE_STOP, #{}, #{}),
    ?assertMatch([_], received()),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    fresh().

fresh() ->
    [_ = application:stop(App) || App <- [erl_esdb, erl_esdb_gater]],
    _ = application:unload(erl_esdb),
    ok.

logger_id() -> erl_esdb_logger_handler.

a_tel_07_every_macro(_Config) ->
    Macros = [
        {?STREAM_WRITE_START, "stream.write.start"},
        {?STREAM_WRITE_STOP, "stream.write.stop"},
        {?STREAM_WRITE_ERROR, "stream.write.error"},
        {?STREAM_READ_START, "stream.read.start"},
        {?STREAM_READ_STOP, "stream.read.stop"},
        {?SUBSCRIPTION_CREATED, "subscription.created"},
        {?SUBSCRIPTION_DELETED, "subscription.deleted"},
        {?SUBSCRIPTION_EVENT_DELIVERED, "subscription.event_delivered"},
        {?SUBSCRIPTION_CHECKPOINT, "subscription.checkpoint"},
        {?SNAPSHOT_CREATED, "snapshot.created"},
        {?SNAPSHOT_READ, "snapshot.read"},
        {?SNAPSHOT_FAILED, "snapshot.failed"},
        {?CLUSTER_NODE_UP, "cluster.node.up"},
        {?CLUSTER_NODE_DOWN, "cluster.node.down"},
        {?CLUSTER_LEADER_ELECTED, "cluster.leader.elected"},
        {?STORE_STARTED, "store.started"},
        {?STORE_STOPPED, "store.stopped"},
        {?STORE_GAVE_UP, "store.gave_up"},
        {?EMITTER_BROADCAST, "emitter.broadcast"},
        {?EMITTER_POOL_CREATED, "emitter.pool.created"},
        {?TEMPORAL_READ_UNTIL, "temporal.read_until"},
        {?TEMPORAL_READ_RANGE, "temporal.read_range"},
        {?SCAVENGE_COMPLETE, "scavenge.complete"},
        {?CAUSATION_QUERY, "causation.query"},
        {?BACKPRESSURE_WARNING, "subscription.backpressure.warning"},
        {?BACKPRESSURE_DROPPED, "subscription.backpressure.dropped"},
        {?SCHEMA_REGISTERED, "schema.registered"},
        {?SCHEMA_UNREGISTERED, "schema.unregistered"},
        {?SCHEMA_UPCASTED, "schema.upcasted"},
        {?MEMORY_PRESSURE_CHANGED, "memory.pressure_changed"},
        {?CONSISTENCY_CHECK_COMPLETE, "consistency.check.complete"},
        {?CONSISTENCY_STATUS_CHANGED, "consistency.status.changed"},
        {?SPLIT_BRAIN_DETECTED, "consistency.split_brain.detected"},
        {?QUORUM_LOST, "consistency.quorum.lost"},
        {?QUORUM_RESTORED, "consistency.quorum.restored"},
        {?HEALTH_PROBE_COMPLETE, "health.probe.complete"},
        {?HEALTH_NODE_FAILED, "health.node.failed"},
        {?HEALTH_NODE_RECOVERED, "health.node.recovered"},
        {?PERSISTENCE_WORKER_STARTED, "persistence_worker.started"},
        {?PERSISTENCE_WORKER_CYCLE, "persistence_worker.cycle"},
        {?PERSISTENCE_WORKER_FORCED, "persistence_worker.forced"},
        {?LINK_CREATED, "link.created"},
        {?LINK_DELETED, "link.deleted"},
        {?LINK_STARTED, "link.started"},
        {?LINK_STOPPED, "link.stopped"}
    ],
    [
        ?assertEqual(["erl_esdb" | string:lexemes(Name, ".")], [atom_to_list(A) || A <- Event])
     || {Event, Name} <- Macros
    ],
    ok.

%% ---- helpers

%% The 17 events of attach/3.
attached() ->
    [
        ?STREAM_WRITE_START,
        ?STREAM_WRITE_STOP,
        ?STREAM_WRITE_ERROR,
        ?STREAM_READ_START,
        ?STREAM_READ_STOP,
        ?SUBSCRIPTION_CREATED,
        ?SUBSCRIPTION_DELETED,
        ?SUBSCRIPTION_EVENT_DELIVERED,
        ?SNAPSHOT_CREATED,
        ?SNAPSHOT_READ,
        ?CLUSTER_NODE_UP,
        ?CLUSTER_NODE_DOWN,
        ?CLUSTER_LEADER_ELECTED,
        ?STORE_STARTED,
        ?STORE_STOPPED,
        ?EMITTER_BROADCAST,
        ?EMITTER_POOL_CREATED
    ].

handler() ->
    Self = self(),
    fun(Event, Measurements, Metadata, Config) ->
        Self ! {handled, {Event, Measurements, Metadata, Config}}
    end.

attach(Id) -> erl_esdb_telemetry:attach(Id, handler(), config).

attach(Id, Events) -> erl_esdb_telemetry:attach_many(Id, Events, handler(), config).

received() ->
    receive
        {handled, Event} -> [Event | received()]
    after 0 -> []
    end.

%% What the library does with these calls, in as few words as possible: an application whose process
%% keeps the handlers in a table. Before it is started there is no table, and each call fails.
stand_in() ->
    [
        "-module(telemetry).",
        "-behaviour(application).",
        "-behaviour(gen_server).",
        "-export([attach_many/4, detach/1, execute/3]).",
        "-export([start/2, stop/1, init/1, handle_call/3, handle_cast/2]).",
        "start(_, _) -> gen_server:start_link({local, telemetry}, telemetry, [], []).",
        "stop(_) -> ok.",
        "init([]) -> {ok, ets:new(telemetry, [named_table, ordered_set])}.",
        "attach_many(I, Es, F, C) -> gen_server:call(telemetry, {attach, {I, Es, F, C}}).",
        "detach(I) -> gen_server:call(telemetry, {detach, I}).",
        "execute(E, M, D) ->",
        "  [run(H, E, M, D) || {_, Es, _, _} = H <- ets:tab2list(telemetry), lists:member(E, Es)],",
        "  ok.",
        "run({I, _, F, C}, E, M, D) -> try F(E, M, D, C) catch _:_ -> detach(I) end.",
        "handle_call({attach, Handler}, _, T) -> case ets:insert_new(T, Handler) of",
        "    true -> {reply, ok, T};",
        "    false -> {reply, {error, already_exists}, T} end;",
        "handle_call({detach, I}, _, T) -> case ets:take(T, I) of",
        "    [_] -> {reply, ok, T};",
        "    [] -> {reply, {error, not_found}, T} end.",
        "handle_cast(_, T) -> {noreply, T}."
    ].

%% As a user has it: a folder on the code path.
add_stand_in(Config) ->
    Ebin = ebin(Config),
    ok = filelib:ensure_path(Ebin),
    {ok, telemetry, Code} = compile:forms(parse(stand_in()), [binary]),
    ok = file:write_file(filename:join(Ebin, "telemetry.beam"), Code),
    App =
        {application, telemetry, [
            {vsn, "1"}, {modules, [telemetry]}, {registered, []}, {mod, {telemetry, []}}
        ]},
    ok = file:write_file(filename:join(Ebin, "telemetry.app"), io_lib:format("~tp.~n", [App])),
    true = code:add_patha(Ebin).

ebin(Config) -> filename:join([proplists:get_value(priv_dir, Config), "telemetry", "ebin"]).

parse(Lines) ->
    {ok, Tokens, _} = erl_scan:string(lists:flatten(lists:join("\n", Lines))),
    [begin {ok, Form} = erl_parse:parse_form(Tokens1), Form end || Tokens1 <- forms(Tokens, [])].

forms([{dot, _} = Dot | Rest], Form) -> [lists:reverse([Dot | Form]) | forms(Rest, [])];
forms([Token | Rest], Form) -> forms(Rest, [Token | Form]);
forms([], []) -> [].

remove_stand_in(Config) ->
    _ = application:stop(telemetry),
    ok = application:unload(telemetry),
    true = code:del_path(ebin(Config)),
    _ = code:purge(telemetry),
    true = code:delete(telemetry),
    _ = code:purge(telemetry),
    ok.
