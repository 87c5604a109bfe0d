-module(erl_esdb_memory_SUITE).
-moduledoc "Memory pressure.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb_telemetry.hrl").

%% Thresholds that make any memory normal, elevated, critical.
-define(NORMAL, #{elevated_threshold => 2.0, critical_threshold => 2.0}).
-define(ELEVATED, #{elevated_threshold => 0.0, critical_threshold => 2.0}).
-define(CRITICAL, #{elevated_threshold => 0.0, critical_threshold => 0.0}).

suite() -> [{timetrap, {minutes, 10}}].

all() -> [F || {F, 1} <- ?MODULE:module_info(exports), is_case(atom_to_list(F))].

is_case(Name) -> lists:prefix("a_", Name) orelse lists:prefix("t_", Name).

init_per_testcase(_Case, Config) ->
    {ok, _} = erl_esdb_memory:start_link(?NORMAL),
    Config.

end_per_testcase(_Case, _Config) ->
    _ = [gen_server:stop(erl_esdb_memory) || is_pid(whereis(erl_esdb_memory))],
    ok.

a_mem_01_level(_Config) ->
    ?assertEqual(
        [normal, normal, elevated, elevated, critical, critical, critical],
        [erl_esdb_memory:level(Ratio) || Ratio <- [0, 0.69, 0.70, 0.84, 0.85, 1.0, 1]]
    ).

a_mem_02_start(_Config) ->
    ok = gen_server:stop(erl_esdb_memory),
    {ok, Pid} = erl_esdb_memory:start_link(),
    ?assertEqual(Pid, whereis(erl_esdb_memory)),
    ?assertEqual(
        #{elevated_threshold => 0.70, critical_threshold => 0.85, check_interval => 10_000},
        erl_esdb_memory:get_config()
    ),
    ?assertEqual({error, {already_started, Pid}}, erl_esdb_memory:start_link(#{})).

a_mem_03_configure(_Config) ->
    ?assertEqual(normal, erl_esdb_memory:level()),
    ?assertEqual(ok, erl_esdb_memory:configure(?ELEVATED)),
    ?assertEqual(elevated, erl_esdb_memory:level()),
    ok = erl_esdb_memory:configure(#{critical_threshold => 0.0}),
    ?assertEqual(critical, erl_esdb_memory:level()),
    ?assertMatch(
        #{elevated_threshold := +0.0, critical_threshold := +0.0, check_interval := 10_000},
        erl_esdb_memory:get_config()
    ).

a_mem_03_wrong_options(_Config) ->
    [
        ?assertError(badarg, erl_esdb_memory:configure(Options))
     || Options <- [
            [], #{elevated_threshold => high}, #{check_interval => 0}, #{check_interval => 1.5},
            #{unheard_of => 1}, #{check_interval => 1 bsl 40}
        ]
    ],
    ?assertError(badarg, erl_esdb_memory:level(high)),
    ?assertError(badarg, erl_esdb_memory:on_pressure_change(fun() -> ok end)),
    ?assertEqual({error, unknown_request}, gen_server:call(erl_esdb_memory, unheard_of)),
    ?assertEqual(normal, erl_esdb_memory:level()).

a_mem_04_callbacks_on_changes_only(_Config) ->
    Self = self(),
    Ref = erl_esdb_memory:on_pressure_change(fun(Level) -> Self ! {level, Level} end),
    ?assert(is_reference(Ref)),
    [ok = erl_esdb_memory:configure(C) || C <- [?ELEVATED, ?ELEVATED, ?CRITICAL, ?NORMAL, ?NORMAL]],
    ?assertEqual([elevated, critical, normal], levels()).

levels() ->
    receive
        {level, Level} -> [Level | levels()]
    after 0 -> []
    end.

a_mem_05_a_callback_that_crashes(_Config) ->
    Self = self(),
    _ = erl_esdb_memory:on_pressure_change(fun(_) -> error(deliberate) end),
    _ = erl_esdb_memory:on_pressure_change(fun(Level) -> Self ! {level, Level} end),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    [ok = erl_esdb_memory:configure(C) || C <- [?ELEVATED, ?NORMAL]],
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertEqual([elevated, normal], levels()).

a_mem_06_remove_callback(_Config) ->
    Self = self(),
    Ref = erl_esdb_memory:on_pressure_change(fun(Level) -> Self ! {level, Level} end),
    ?assertEqual(ok, erl_esdb_memory:remove_callback(Ref)),
    ?assertEqual(ok, erl_esdb_memory:remove_callback(Ref)),
    ?assertEqual(ok, erl_esdb_memory:remove_callback(make_ref())),
    ok = erl_esdb_memory:configure(?ELEVATED),
    ?assertEqual([], levels()).

a_mem_07_stats(_Config) ->
    Now = erlang:system_time(millisecond),
    _ = erl_esdb_memory:on_pressure_change(fun(_) -> ok end),
    Stats = #{memory_used := Used, memory_total := Total, last_check := At} =
        erl_esdb_memory:get_stats(),
    ?assertMatch(#{level := normal, callback_count := 1}, Stats),
    ?assertEqual(5, map_size(Stats)),
    ?assert(Used > 0 andalso Used =< Total),
    ?assert(abs(Now - At) < 60_000).

a_mem_08_check_now(_Config) ->
    ?assertEqual(normal, erl_esdb_memory:check_now()),
    ok = erl_esdb_memory:configure(?CRITICAL),
    ?assertEqual(critical, erl_esdb_memory:check_now()).

a_mem_09_looks_by_itself(_Config) ->
    ok = erl_esdb_memory:configure(#{check_interval => 20}),
    #{last_check := Before} = erl_esdb_memory:get_stats(),
    Twice = fun() -> maps:get(last_check, erl_esdb_memory:get_stats()) >= Before + 40 end,
    erl_esdb_test:await(Twice).

a_mem_10_telemetry(_Config) ->
    Self = self(),
    Handler = fun(_, Measurements, Metadata, _) -> Self ! {told, Measurements, Metadata} end,
    ok = erl_esdb_telemetry:attach_many(?FUNCTION_NAME, [?MEMORY_PRESSURE_CHANGED], Handler, none),
    [ok = erl_esdb_memory:configure(C) || C <- [?ELEVATED, ?ELEVATED, ?CRITICAL]],
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    Told = fun() ->
        receive
            {told, #{usage_ratio := Ratio}, Metadata} when Ratio > 0, Ratio =< 1 -> Metadata
        after 0 -> none
        end
    end,
    ?assertEqual(#{old_level => normal, new_level => elevated}, Told()),
    ?assertEqual(#{old_level => elevated, new_level => critical}, Told()),
    ?assertEqual(none, Told()).

a_mem_11_without_os_mon(_Config) ->
    ?assertEqual(undefined, whereis(memsup)),
    #{memory_used := Used, memory_total := Total} = erl_esdb_memory:get_stats(),
    ?assertEqual(2 * Used, Total).

%% T-47: what memsup says, and what it may leave out; and a memsup that does not answer.
t_47_what_memsup_says(_Config) ->
    ?assertEqual(
        {500, 1000},
        erl_esdb_memory:usage([
            {total_memory, 1000},
            {free_memory, 200},
            {cached_memory, 200},
            {buffered_memory, 100},
            {system_total_memory, 2000}
        ])
    ),
    ?assertEqual({800, 1000}, erl_esdb_memory:usage([{total_memory, 1000}, {free_memory, 200}])),
    ?assertEqual({0, 10}, erl_esdb_memory:usage([{total_memory, 10}, {free_memory, 20}])),
    {Used, Total} = erl_esdb_memory:usage([]),
    ?assertEqual(2 * Used, Total),
    Failing = spawn(fun() -> receive _ -> exit(deliberate) end end),
    true = register(memsup, Failing),
    ?assertEqual(normal, erl_esdb_memory:check_now()).

t_47_with_os_mon(_Config) ->
    ok = application:load(os_mon),
    %% Nothing but the memory.
    [ok = application:set_env(os_mon, Key, false) || Key <- [start_cpu_sup, start_disksup]],
    {ok, Started} = application:ensure_all_started(os_mon),
    try
        #{total_memory := Memory} = maps:from_list(apply(memsup, get_system_memory_data, [])),
        _ = erl_esdb_memory:check_now(),
        ?assertMatch(#{memory_total := Memory}, erl_esdb_memory:get_stats())
    after
        [ok = application:stop(App) || App <- lists:reverse(Started)],
        ok = application:unload(os_mon)
    end.
