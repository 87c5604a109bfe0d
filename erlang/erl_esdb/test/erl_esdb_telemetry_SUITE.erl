-module(erl_esdb_telemetry_SUITE).
-moduledoc """
Telemetry, with the handlers kept here and with a library named `telemetry`: a stand-in of a few
lines that has the calls of the real one that the store makes.
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
        a_handler_survives_the_library
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
        a_crashing_handler_is_detached,
        concurrent_attaches,
        misuse
    ].

init_per_group(with_library, Config) ->
    load_stand_in(),
    Config;
init_per_group(alone, Config) ->
    ?assertNot(erlang:function_exported(telemetry, execute, 3)),
    Config.

end_per_group(with_library, _Config) -> unload_stand_in();
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
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    try
        erl_esdb_test:property(200, Property)
    after
        logger:set_primary_config(level, Level)
    end,
    %% Also the function that makes the text of it.
    ok = logger:add_handler(?MODULE, ?MODULE, #{level => all, config => self()}),
    ok = erl_esdb_telemetry:handle_event(?CLUSTER_NODE_UP, #{}, #{}, none),
    ok = logger:remove_handler(?MODULE),
    receive
        {logged, Text} -> ?assertEqual(<<"[erl_esdb,cluster,node,up] #{} #{}">>, Text)
    after 5000 -> error(nothing_logged)
    end.

%% The logger's call into the handler above.
log(#{msg := {report, Report}, meta := #{report_cb := Format}}, #{config := Pid}) ->
    {Text, Args} = Format(Report),
    Pid ! {logged, unicode:characters_to_binary(io_lib:format(Text, Args))};
log(#{msg := {Text, Args}}, #{config := Pid}) when is_list(Args) ->
    Pid ! {logged, unicode:characters_to_binary(io_lib:format(Text, Args))};
log(_, _) ->
    ok.

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
    ?assertError(badarg, erl_esdb_telemetry:attach(id, no_fun, none)).

%% Handlers attached before the library came go on and can be detached.
a_handler_survives_the_library(_Config) ->
    ok = attach(early),
    load_stand_in(),
    ok = attach(late),
    ok = erl_esdb_telemetry:emit(?STORE_STARTED, #{}, #{}),
    ?assertMatch([_, _], received()),
    ?assertEqual(ok, erl_esdb_telemetry:detach(early)),
    ?assertEqual(ok, erl_esdb_telemetry:detach(late)),
    ok = erl_esdb_telemetry:emit(?STORE_STARTED, #{}, #{}),
    ?assertEqual([], received()),
    unload_stand_in().

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
        {?CLUSTER_NODE_UP, "cluster.node.up"},
        {?CLUSTER_NODE_DOWN, "cluster.node.down"},
        {?CLUSTER_LEADER_ELECTED, "cluster.leader.elected"},
        {?STORE_STARTED, "store.started"},
        {?STORE_STOPPED, "store.stopped"},
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

%% What the library does with these calls, in as few words as possible; its table is a process'
%% dictionary.
load_stand_in() ->
    Source = [
        "-module(telemetry).",
        "-export([attach_many/4, detach/1, execute/3, loop/1]).",
        "attach_many(I, Es, F, C) -> call({attach, I, Es, F, C}).",
        "detach(I) -> call({detach, I}).",
        "execute(E, M, D) ->",
        "  [run(H, E, M, D) || {_, Es, _, _} = H <- call(list), lists:member(E, Es)], ok.",
        "run({I, _, F, C}, E, M, D) -> try F(E, M, D, C) catch _:_ -> detach(I) end.",
        "call(R) -> case whereis(telemetry) of",
        "    undefined -> P = spawn(telemetry, loop, [[]]), catch register(telemetry, P);",
        "    _ -> ok end,",
        "  telemetry ! {self(), R}, receive {telemetry, A} -> A end.",
        "loop(L) -> receive",
        "    {P, {attach, I, Es, F, C}} -> case lists:keymember(I, 1, L) of",
        "        true -> P ! {telemetry, {error, already_exists}}, loop(L);",
        "        false -> P ! {telemetry, ok}, loop(L ++ [{I, Es, F, C}]) end;",
        "    {P, {detach, I}} -> case lists:keymember(I, 1, L) of",
        "        true -> P ! {telemetry, ok}, loop(lists:keydelete(I, 1, L));",
        "        false -> P ! {telemetry, {error, not_found}}, loop(L) end;",
        "    {P, list} -> P ! {telemetry, L}, loop(L) end."
    ],
    {ok, telemetry, Code} = compile:forms(parse(Source), [binary]),
    {module, telemetry} = code:load_binary(telemetry, "telemetry.erl", Code),
    %% Here, so that two callers do not start it twice.
    {error, not_found} = telemetry:detach(nobody),
    ok.

parse(Lines) ->
    {ok, Tokens, _} = erl_scan:string(lists:flatten(lists:join("\n", Lines))),
    [begin {ok, Form} = erl_parse:parse_form(Tokens1), Form end || Tokens1 <- forms(Tokens, [])].

forms([{dot, _} = Dot | Rest], Form) -> [lists:reverse([Dot | Form]) | forms(Rest, [])];
forms([Token | Rest], Form) -> forms(Rest, [Token | Form]);
forms([], []) -> [].

unload_stand_in() ->
    case whereis(telemetry) of
        undefined -> ok;
        Pid -> exit(Pid, kill)
    end,
    _ = code:purge(telemetry),
    true = code:delete(telemetry),
    _ = code:purge(telemetry),
    ok.
