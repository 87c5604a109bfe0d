-module(erl_esdb_schema_SUITE).
-moduledoc "Schemas: registered, applied to events, asked about what is stored.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-define(T, ~"OrderPlaced").

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    [
        F
     || {F, 1} <- ?MODULE:module_info(exports),
        lists:any(fun(P) -> lists:prefix(P, atom_to_list(F)) end, ["a_", "b_", "t_"])
    ].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) -> [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

%% An event of the type, with data and metadata.
event(Data) -> event(Data, #{}).

event(Data, Metadata) ->
    #event{
        event_id = ~"e-1",
        event_type = ?T,
        stream_id = ~"s",
        version = 0,
        data = Data,
        metadata = Metadata,
        timestamp = 0,
        epoch_us = 0,
        position = 0
    }.

%% A schema of version 3 whose steps note that they were here.
schema() -> #{version => 3, upcast_from => #{1 => passed(one), 2 => passed(two)}}.

passed(Name) -> fun(Data) -> Data#{passed => maps:get(passed, Data, []) ++ [Name]} end.

%% ---- registration

a_sch_01_register(Config) ->
    Before = erlang:system_time(millisecond),
    Schema = #{version => 2, description => ~"what was ordered"},
    ?assertEqual(ok, erl_esdb_schema:register(store(Config), ?T, Schema)),
    {ok, Found} = erl_esdb_schema:get(store(Config), ?T),
    ?assertMatch(#{event_type := ?T, version := 2, description := ~"what was ordered"}, Found),
    ?assert(maps:get(registered_at, Found) >= Before),
    ?assertEqual([description, event_type, registered_at, version], lists:sort(maps:keys(Found))).

a_sch_02_invalid_versions(Config) ->
    [
        ?assertEqual(
            {error, {invalid_version, Version}},
            erl_esdb_schema:register(store(Config), ?T, #{version => Version})
        )
     || Version <- [0, -1, 1.5, ~"1"]
    ],
    ?assertEqual({error, not_found}, erl_esdb_schema:get(store(Config), ?T)).

a_sch_03_no_version(Config) ->
    ?assertEqual(
        {error, {invalid_version, undefined}}, erl_esdb_schema:register(store(Config), ?T, #{})
    ).

a_sch_03_functions_that_are_none(Config) ->
    Store = store(Config),
    Register = fun(Schema) -> erl_esdb_schema:register(Store, ?T, Schema#{version => 2}) end,
    [
        ?assertEqual({error, {invalid_schema, Reason}}, Register(Schema))
     || {Schema, Reason} <- [
            {#{validator => fun() -> ok end}, {bad_type, validator}},
            {#{validator => {lists, [], []}}, {bad_type, validator}},
            {#{validator => {lists, nosuch, []}}, {undefined_function, validator}},
            {#{upcast_from => []}, {bad_type, upcast_from}},
            {#{upcast_from => #{0 => fun(D) -> D end}}, {bad_type, upcast_from}},
            {#{upcast_from => #{1 => true}}, {bad_type, {upcast_from, 1}}},
            {#{upcast_from => #{1 => {nosuch, f, [x]}}}, {undefined_function, {upcast_from, 1}}}
        ]
    ].

a_sch_04_registering_again_replaces(Config) ->
    ok = erl_esdb_schema:register(store(Config), ?T, schema()),
    ok = erl_esdb_schema:register(store(Config), ?T, #{version => 4}),
    ?assertEqual({ok, 4}, erl_esdb_schema:get_version(store(Config), ?T)),
    {ok, Found} = erl_esdb_schema:get(store(Config), ?T),
    ?assertNot(maps:is_key(upcast_from, Found)).

a_sch_05_unregister(Config) ->
    ?assertEqual(ok, erl_esdb_schema:unregister(store(Config), ?T)),
    ok = erl_esdb_schema:register(store(Config), ?T, schema()),
    ?assertEqual(ok, erl_esdb_schema:unregister(store(Config), ?T)),
    ?assertEqual({error, not_found}, erl_esdb_schema:get(store(Config), ?T)).

a_sch_06_get_version(Config) ->
    ?assertEqual({error, not_found}, erl_esdb_schema:get_version(store(Config), ?T)),
    ok = erl_esdb_schema:register(store(Config), ?T, schema()),
    ?assertEqual({ok, 3}, erl_esdb_schema:get_version(store(Config), ?T)).

a_sch_07_list(Config) ->
    ?assertEqual({ok, []}, erl_esdb_schema:list(store(Config))),
    %% Also the empty type, and long ones; and nothing but schemas.
    Types = lists:sort([~"", ~"B", ~"A", binary:copy(~"z", 300), <<255, 255>>]),
    [ok = erl_esdb_schema:register(store(Config), Type, schema()) || Type <- Types],
    [{ok, _} = erl_esdb_store:put_document(store(Config), {K, ~"A"}, x) || K <- [scheme, schemas]],
    {ok, Listed} = erl_esdb_schema:list(store(Config)),
    ?assertEqual(Types, [Type || #{event_type := Type} <- Listed]),
    [?assertEqual([event_type, registered_at, version], lists:sort(maps:keys(S))) || S <- Listed].

%% ---- upcasting

a_sch_08_through_all_steps(Config) ->
    ok = erl_esdb_schema:register(store(Config), ?T, schema()),
    #event{data = Data} = erl_esdb_schema:upcast_event(store(Config), event(#{n => 1})),
    ?assertEqual(#{n => 1, passed => [one, two]}, Data),
    Second = event(#{n => 1}, #{schema_version => 2}),
    ?assertEqual(
        #{n => 1, passed => [two]},
        (erl_esdb_schema:upcast_event(store(Config), Second))#event.data
    ).

a_sch_09_the_version_becomes_current(Config) ->
    ok = erl_esdb_schema:register(store(Config), ?T, schema()),
    Metadata = fun(Given) ->
        Upcasted = erl_esdb_schema:upcast_event(store(Config), event(#{}, Given)),
        Upcasted#event.metadata
    end,
    ?assertEqual(#{schema_version => 3, k => v}, Metadata(#{k => v})),
    ?assertEqual(#{schema_version => 3}, Metadata(#{schema_version => 2})),
    %% As other languages write it.
    ?assertEqual(#{~"schema_version" => 3}, Metadata(#{~"schema_version" => 2})).

%% T-30: also where the last steps have no function.
t_30_the_version_is_that_of_the_schema(Config) ->
    Schema = #{version => 5, upcast_from => #{1 => passed(one)}},
    ok = erl_esdb_schema:register(store(Config), ?T, Schema),
    Upcasted = erl_esdb_schema:upcast_event(store(Config), event(#{})),
    ?assertEqual(#{schema_version => 5}, Upcasted#event.metadata).

a_sch_10_a_missing_step_is_passed_over(Config) ->
    Schema = #{version => 3, upcast_from => #{2 => passed(two)}},
    ok = erl_esdb_schema:register(store(Config), ?T, Schema),
    Upcasted = erl_esdb_schema:upcast_event(store(Config), event(#{})),
    ?assertMatch(#event{data = #{passed := [two]}, metadata = #{schema_version := 3}}, Upcasted).

a_sch_11_current_and_newer_events(Config) ->
    ok = erl_esdb_schema:register(store(Config), ?T, schema()),
    [
        ?assertEqual(Event, erl_esdb_schema:upcast_event(store(Config), Event))
     || V <- [3, 4], Event <- [event(#{}, #{schema_version => V})]
    ].

a_sch_12_no_schema(Config) ->
    ?assertEqual(event(#{}), erl_esdb_schema:upcast_event(store(Config), event(#{}))).

a_sch_13_a_step_that_crashes(Config) ->
    ok = logger:add_handler(?FUNCTION_NAME, ?MODULE, #{level => warning, config => self()}),
    [
        begin
            Steps = #{1 => passed(one), 2 => Step},
            ok = erl_esdb_schema:register(store(Config), ?T, #{version => 3, upcast_from => Steps}),
            ?assertEqual(event(#{}), erl_esdb_schema:upcast_event(store(Config), event(#{}))),
            receive
                {logged, Text} -> ?assertMatch({_, _}, binary:match(Text, ~"left as it was"))
            after 60_000 -> error(nothing_logged)
            end
        end
     || Step <- [fun(_) -> throw(no) end, fun(_) -> error(no) end, fun(_) -> {no, data} end]
    ],
    ok = logger:remove_handler(?FUNCTION_NAME).

log(#{msg := {Format, Args}}, #{config := Pid}) when is_list(Args) ->
    Pid ! {logged, unicode:characters_to_binary(io_lib:format(Format, Args))};
log(_, _) ->
    ok.

a_sch_14_order_and_length_stay(Config) ->
    ok = erl_esdb_schema:register(store(Config), ?T, schema()),
    Events = [
        (event(#{}))#event{event_type = Type, version = Version}
     || {Version, Type} <- lists:enumerate(0, [?T, ~"Other", ?T, ~"Third", ?T])
    ],
    Upcasted = erl_esdb_schema:upcast(store(Config), Events),
    ?assertEqual([0, 1, 2, 3, 4], erl_esdb_test:versions(Upcasted)),
    ?assertEqual(
        [true, false, true, false, true],
        [is_map_key(passed, Data) || #event{data = Data} <- Upcasted]
    ),
    ?assertEqual([], erl_esdb_schema:upcast(store(Config), [])).

a_sch_15_validate(Config) ->
    Validate = fun(Event) -> erl_esdb_schema:validate(store(Config), Event) end,
    ?assertEqual(ok, Validate(event(#{}))),
    ok = erl_esdb_schema:register(store(Config), ?T, #{version => 1}),
    ?assertEqual(ok, Validate(event(#{}))),
    Positive = fun
        (#{n := N}) when N > 0 -> ok;
        (_) -> {error, not_positive}
    end,
    ok = erl_esdb_schema:register(store(Config), ?T, #{version => 1, validator => Positive}),
    ?assertEqual(ok, Validate(event(#{n => 1}))),
    ?assertEqual({error, not_positive}, Validate(event(#{n => 0}))),
    ok = erl_esdb_schema:register(store(Config), ?T, #{version => 1, validator => {gt, n, 0}}),
    ?assertEqual(ok, Validate(event(#{n => 1}))),
    ?assertEqual({error, invalid}, Validate(event(#{n => 0}))).

a_sch_16_a_validator_that_crashes(Config) ->
    [
        begin
            Schema = #{version => 1, validator => Validator},
            ok = erl_esdb_schema:register(store(Config), ?T, Schema),
            ?assertEqual(
                {error, {validator_failed, Why}},
                erl_esdb_schema:validate(store(Config), event(#{}))
            )
        end
     || {Validator, Why} <- [
            {fun(_) -> throw(no) end, {throw, no}},
            {fun(_) -> exit(no) end, {exit, no}},
            {fun(_) -> perhaps end, {no_verdict, perhaps}}
        ]
    ].

a_sch_17_telemetry(Config) ->
    Store = store(Config),
    Self = self(),
    Handler = fun(Event, Measurements, Metadata, _) ->
        maps:get(store_id, Metadata) =:= Store andalso (Self ! {Event, Measurements, Metadata})
    end,
    Events = [?SCHEMA_REGISTERED, ?SCHEMA_UNREGISTERED, ?SCHEMA_UPCASTED],
    ok = erl_esdb_telemetry:attach_many(?FUNCTION_NAME, Events, Handler, none),
    ok = erl_esdb_schema:register(Store, ?T, schema()),
    _ = erl_esdb_schema:upcast_event(Store, event(#{})),
    ok = erl_esdb_schema:unregister(Store, ?T),
    ok = erl_esdb_schema:unregister(Store, ?T),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    Type = #{store_id => Store, event_type => ?T},
    [{R, First, Type}, {U, #{duration := _}, One}, {U, _, Two}, {N, Last, Type}] = received(),
    ?assertMatch({#{version := 3}, #{version := 0}}, {First, Last}),
    ?assertEqual({?SCHEMA_REGISTERED, ?SCHEMA_UPCASTED, ?SCHEMA_UNREGISTERED}, {R, U, N}),
    ?assertEqual(Type#{from_version => 1, to_version => 2}, One),
    ?assertEqual(Type#{from_version => 2, to_version => 3}, Two).

received() ->
    receive
        {[erl_esdb | _], _, _} = Message -> [Message | received()]
    after 0 -> []
    end.

a_sch_18_isolation(Config) ->
    Other = erl_esdb_test:start_store(#{}),
    ok = erl_esdb_schema:register(store(Config), ?T, schema()),
    ?assertEqual({error, not_found}, erl_esdb_schema:get(Other, ?T)),
    ?assertEqual(event(#{}), erl_esdb_schema:upcast_event(Other, event(#{}))),
    ok = erl_esdb:stop_store(Other).

%% T-32: what has a name is kept in the document, funs are not.
t_32_what_survives(Config) ->
    Store = store(Config),
    Named = #{
        version => 4,
        upcast_from => #{
            1 => {maps, put, [~"no"]}, 2 => fun ?MODULE:second/1, 3 => {?MODULE, tag, [x]}
        },
        validator => {exists, tag}
    },
    {error, {invalid_schema, {undefined_function, _}}} = erl_esdb_schema:register(Store, ?T, Named),
    #{upcast_from := Steps} = Named,
    Good = Named#{upcast_from := maps:remove(1, Steps)},
    ok = erl_esdb_schema:register(Store, ?T, Good),
    {ok, Found} = erl_esdb_schema:get(Store, ?T),
    ?assertEqual(Good, maps:with(maps:keys(Good), Found)),
    ?assertNot(maps:is_key(volatile, Found)),
    %% As after a restart: nothing but the documents is there.
    forget_funs(Store),
    ?assertEqual({ok, Found}, erl_esdb_schema:get(Store, ?T)),
    #event{data = Data} = Upcasted = erl_esdb_schema:upcast_event(Store, event(#{})),
    ?assertEqual(#{second => true, tag => x}, Data),
    ?assertEqual(ok, erl_esdb_schema:validate(Store, Upcasted)).

second(Data) -> Data#{second => true}.

tag(Data, Tag) -> Data#{tag => Tag}.

t_32_what_does_not(Config) ->
    Store = store(Config),
    Schema = (schema())#{validator => fun(_) -> ok end},
    ok = erl_esdb_schema:register(Store, ?T, Schema),
    {ok, Found} = erl_esdb_schema:get(Store, ?T),
    Funs = [{upcast_from, 1}, {upcast_from, 2}, validator],
    ?assertEqual(Funs, maps:get(volatile, Found)),
    ?assertEqual(Schema, maps:with(maps:keys(Schema), Found)),
    %% A document has none of them.
    {ok, Document} = erl_esdb_store:get_document(Store, {schema, ?T}),
    ?assertNot(has_fun(Document)),
    forget_funs(Store),
    {ok, Lost} = erl_esdb_schema:get(Store, ?T),
    ?assertEqual(Funs, maps:get(lost, Lost)),
    ?assertNot(maps:is_key(volatile, Lost)),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    ?assertEqual(event(#{}), erl_esdb_schema:upcast_event(Store, event(#{}))),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertEqual(
        {error, {function_lost, validator}}, erl_esdb_schema:validate(Store, event(#{}))
    ),
    %% What was got can be registered again, when it has its funs back.
    ok = erl_esdb_schema:register(Store, ?T, maps:merge(Lost, Schema)),
    {ok, Again} = erl_esdb_schema:get(Store, ?T),
    ?assertEqual(Funs, maps:get(volatile, Again)),
    ?assertNot(maps:is_key(lost, Again)).

forget_funs(Store) -> true = ets:delete_all_objects(erl_esdb_naming:volatile_name(Store)).

has_fun(Fun) when is_function(Fun) -> true;
has_fun(Map) when is_map(Map) -> has_fun(maps:to_list(Map));
has_fun(Tuple) when is_tuple(Tuple) -> has_fun(tuple_to_list(Tuple));
has_fun([Head | Tail]) -> has_fun(Head) orelse has_fun(Tail);
has_fun(_) -> false.

%% ---- dry run

%% Events 0 to 299: each third of another type, each with its number; of some the data are no good.
stored(Config) ->
    Types = #{0 => ?T, 1 => ~"Paid", 2 => ~"Noise"},
    Events = [
        (erl_esdb_test:event(N, maps:get(N rem 3, Types)))#{event_id => integer_to_binary(N)}
     || N <- lists:seq(0, 299)
    ],
    {ok, 299} = erl_esdb_streams:append(store(Config), ~"s", -1, Events),
    ok.

b_check_lists_what_would_fail(Config) ->
    Store = store(Config),
    ok = stored(Config),
    Crashes = fun(#{n := N} = Data) when N =/= 30 -> Data#{step => 1} end,
    Placed = #{version => 2, upcast_from => #{1 => Crashes}, validator => {'not', {eq, n, 60}}},
    ok = erl_esdb_schema:register(Store, ?T, Placed),
    ok = erl_esdb_schema:register(Store, ~"Paid", #{
        version => 1, validator => fun(#{n := N}) -> N =/= 100 orelse {error, too_round} end
    }),
    {ok, Report} = erl_esdb_schema:check(Store, all),
    #{checked := 200, failed := 3, next := done, failures := Failures} = Report,
    ?assertEqual(
        [{30, ?T, 1}, {60, ?T, 1}, {100, ~"Paid", 1}],
        [{P, T, V} || #{position := P, event_type := T, schema_version := V} <- Failures]
    ),
    ?assertMatch(
        [{upcast_failed, 1, {error, function_clause}}, {invalid, invalid}, {invalid, too_round}],
        [Reason || #{reason := Reason} <- Failures]
    ),
    [#{event_id := ~"30", stream_id := ~"s", version := 30} | _] = Failures,
    ?assertMatch(
        {ok, #{checked := 100, failed := 1, next := done}}, erl_esdb_schema:check(Store, ~"Paid")
    ),
    ?assertMatch({ok, #{checked := 0, failed := 0}}, erl_esdb_schema:check(Store, ~"Unknown")).

%% What is registered stays as it is.
b_check_tries_a_schema_before_it_is_registered(Config) ->
    Store = store(Config),
    ok = stored(Config),
    Schemas = #{?T => #{version => 2, validator => {lt, n, 150}}},
    {ok, Report} = erl_esdb_schema:check(Store, all, #{schemas => Schemas}),
    ?assertMatch(#{checked := 100, failed := 50}, Report),
    ?assertEqual({error, not_found}, erl_esdb_schema:get(Store, ?T)),
    ?assertEqual(
        {error, {invalid_version, 0}},
        erl_esdb_schema:check(Store, ?T, #{schemas => #{?T => #{version => 0}}})
    ).

%% However the report is cut: each failure once, in order.
b_check_goes_on_where_it_stopped(Config) ->
    Store = store(Config),
    ok = stored(Config),
    Bad = fun(#{n := N}) -> N rem 7 =/= 0 end,
    ok = erl_esdb_schema:register(Store, ?T, #{version => 1, validator => Bad}),
    Expected = [N || N <- lists:seq(0, 299, 3), N rem 7 =:= 0],
    Property = ?FORALL(
        Limit,
        range(1, 20),
        Expected =:= checked(Store, 0, Limit)
    ),
    erl_esdb_test:property(20, Property).

checked(_Store, done, _Limit) ->
    [];
checked(Store, From, Limit) ->
    {ok, #{failures := Failures, failed := Failed, next := Next}} =
        erl_esdb_schema:check(Store, ?T, #{from => From, limit => Limit}),
    Failed = length(Failures),
    true = Failed =< Limit,
    [P || #{position := P} <- Failures] ++ checked(Store, Next, Limit).

b_check_decodes_json(Config) ->
    Store = store(Config),
    Event = #{event_type => ?T, data => #{total => 1}},
    {ok, 0} = erl_esdb_streams:append(Store, ~"s", -1, [Event], #{codec => json}),
    Check = fun(Validator, Options) ->
        Schemas = #{?T => #{version => 1, validator => Validator}},
        {ok, #{failed := Failed}} =
            erl_esdb_schema:check(Store, ?T, Options#{schemas => Schemas}),
        Failed
    end,
    Fun = fun(Data) -> Data =:= #{~"total" => 1} end,
    ?assertEqual([1, 0], [Check(Fun, Options) || Options <- [#{}, #{decode => json}]]),
    %% A predicate looks into the text.
    [
        ?assertEqual([Failed, Failed], [Check(P, Options) || Options <- [#{}, #{decode => json}]])
     || {P, Failed} <- [
            {{eq, ~"total", 1}, 0}, {{'not', {eq, ~"total", 1}}, 1}, {{eq, total, 1}, 1}
        ]
    ],
    {ok, [Stored]} = erl_esdb_streams:read(Store, ~"s", 0, 1, forward),
    ok = erl_esdb_schema:register(Store, ?T, #{version => 1, validator => {gt, ~"total", 1}}),
    ?assertEqual({error, invalid}, erl_esdb_schema:validate(Store, Stored)).

%% What it reads does not grow with the events of other types; without an index it finds the same.
b_check_reads_what_it_is_about(_Config) ->
    [Indexed, Plain] = [
        erl_esdb_test:start_store(Options) || Options <- [#{}, #{indexes => [event_id]}]
    ],
    [
        begin
            {ok, _} = erl_esdb_streams:append(Store, ~"s", any, [
                erl_esdb_test:event(N, ~"Noise") || N <- lists:seq(1, 20_000)
            ]),
            {ok, _} = erl_esdb_streams:append(Store, ~"s", any, [erl_esdb_test:event(1, ?T)])
        end
     || Store <- [Indexed, Plain]
    ],
    Schemas = #{?T => #{version => 1, validator => {gt, n, 1}}},
    Check = fun(Store) -> erl_esdb_schema:check(Store, ?T, #{schemas => Schemas}) end,
    {ok, #{checked := 1, failed := 1, failures := [#{position := 20_000}]}} = Check(Plain),
    ?assertMatch({ok, #{checked := 1, failures := [#{position := 20_000}]}}, Check(Indexed)),
    Reductions = fun() -> element(2, process_info(self(), reductions)) end,
    Before = Reductions(),
    {ok, _} = Check(Indexed),
    ?assert(Reductions() - Before < 20_000),
    [ok = erl_esdb:stop_store(Store) || Store <- [Indexed, Plain]].

%% ---- misuse

b_misuse(Config) ->
    Store = store(Config),
    [
        ?assertError(badarg, Call())
     || Call <- [
            fun() -> erl_esdb_schema:register("s", ?T, schema()) end,
            fun() -> erl_esdb_schema:register(Store, type, schema()) end,
            fun() -> erl_esdb_schema:register(Store, ?T, []) end,
            fun() -> erl_esdb_schema:unregister(Store, type) end,
            fun() -> erl_esdb_schema:get(Store, type) end,
            fun() -> erl_esdb_schema:list("s") end,
            fun() -> erl_esdb_schema:upcast("s", []) end,
            fun() -> erl_esdb_schema:upcast(Store, [event(#{}), no_event]) end,
            fun() -> erl_esdb_schema:upcast_event(Store, no_event) end,
            fun() -> erl_esdb_schema:validate(Store, no_event) end,
            fun() -> erl_esdb_schema:check(Store, type) end,
            fun() -> erl_esdb_schema:check(Store, all, #{limit => 0}) end,
            fun() -> erl_esdb_schema:check(Store, all, #{from => foo}) end,
            fun() -> erl_esdb_schema:check(Store, all, #{from => -1}) end,
            fun() -> erl_esdb_schema:check(Store, all, #{schemas => foo}) end,
            fun() -> erl_esdb_schema:check(Store, all, #{schemas => #{type => schema()}}) end,
            fun() -> erl_esdb_schema:check(Store, all, #{schemas => #{?T => []}}) end,
            fun() -> erl_esdb_schema:upcast(Store, foo) end,
            fun() -> erl_esdb_schema:upcast(Store, [event(#{}) | foo]) end,
            fun() -> erl_esdb_schema:check(Store, all, []) end
        ]
    ].

b_unknown_store(_Config) ->
    Error = {error, {store_not_started, nosuch}},
    [
        ?assertEqual(Error, Result)
     || Result <- [
            erl_esdb_schema:register(nosuch, ?T, schema()),
            erl_esdb_schema:unregister(nosuch, ?T),
            erl_esdb_schema:get(nosuch, ?T),
            erl_esdb_schema:get_version(nosuch, ?T),
            erl_esdb_schema:list(nosuch),
            erl_esdb_schema:validate(nosuch, event(#{})),
            erl_esdb_schema:check(nosuch, all)
        ]
    ],
    ?assertError(
        {erl_esdb, {store_not_started, nosuch}}, erl_esdb_schema:upcast(nosuch, [event(#{})])
    ).
