-module(erl_esdb_metrics_SUITE).
-moduledoc "The metrics as Prometheus gets them, over HTTP, and the other pages.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../../erl_esdb/include/erl_esdb.hrl").
-include("../../erl_esdb/include/erl_esdb_telemetry.hrl").

-behaviour(erl_esdb_projection).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        the_reader_is_strict,
        a_scrape,
        every_metric_stands_in_the_guide,
        appends_and_reads,
        appends_that_are_refused,
        appends_to_several_streams,
        what_stores_tell,
        what_stores_on_disk_tell,
        what_the_leader_tells_of_members,
        subscriptions_and_projections,
        names_of_any_kind,
        events_that_are_not_as_they_should_be,
        every_event_that_is_counted,
        a_store_that_is_away,
        a_store_that_hangs,
        no_store_is_not_ready,
        ready_for_one_store,
        health,
        other_requests,
        a_compressed_scrape,
        only_this_machine_by_default,
        a_port_that_is_taken,
        without_pages,
        a_registry_of_ones_own,
        values_that_cannot_be,
        what_registers_crashes,
        it_leaves_nothing_behind
    ].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(inets),
    Config.

end_per_suite(_Config) -> application:stop(inets).

init_per_testcase(_Case, Config) ->
    lists:foreach(fun fresh/1, [erl_esdb_metrics, erl_esdb]),
    ok = application:set_env(erl_esdb_metrics, port, 0),
    {ok, _} = application:ensure_all_started(erl_esdb_metrics),
    Config.

fresh(Application) ->
    _ = application:stop(Application),
    _ = application:unload(Application),
    ok = application:load(Application).

end_per_testcase(_Case, _Config) ->
    _ = application:stop(erl_esdb_metrics),
    _ = application:stop(erl_esdb),
    ok.

start_store() -> start_store(list_to_atom("store_" ++ unique())).

start_store(Store) ->
    {ok, _} = erl_esdb:start_store(Store, #{engine => memory}),
    Store.

unique() -> integer_to_list(erlang:unique_integer([positive])).

label(Store) -> atom_to_binary(Store).

append(Store, Events) -> erl_esdb_streams:append(Store, ~"s", any, Events).

event(N) -> #{event_type => ~"Counted", data => #{n => N}}.

fetch(Path) -> request(get, Path, []).

request(Method, Path, Headers) ->
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b~s", [erl_esdb_metrics:port(), Path])),
    Request =
        case Method of
            post -> {Url, Headers, "text/plain", ~"body"};
            _ -> {Url, Headers}
        end,
    {ok, {{_, Status, _}, Got, Body}} =
        httpc:request(Method, Request, [{timeout, 10_000}], [{body_format, binary}]),
    {Status, maps:from_list(Got), Body}.

json(Path) ->
    {Status, #{"content-type" := "application/json"}, Body} = fetch(Path),
    {Status, json:decode(Body)}.

scrape() ->
    {200, #{"content-type" := "text/plain; version=0.0.4" ++ _}, Body} = fetch("/metrics"),
    parsed(Body).

parsed(Body) ->
    {ok, Families} = erl_esdb_metrics_text:parse(Body),
    Families.

value(Name, Labels) -> erl_esdb_metrics_text:sample(Name, Labels, scrape()).

of_store(Name, Store) -> value(Name, #{~"store" => label(Store)}).

%% ---- the reader

the_reader_is_strict(_Config) ->
    Good = ~"""
    # HELP a_total What \\ it \n is
    # TYPE a_total counter
    a_total{x="1",y="a\\b\"c\nd ä"} 1.5e3
    a_total 7
    # HELP b of a kind
    # TYPE b histogram
    b_bucket{le="0.5"} 1
    b_bucket{le="+Inf"} 2
    b_sum 0.75
    b_count 2

    """,
    {ok, #{~"a_total" := A, ~"b" := _} = Families} = erl_esdb_metrics_text:parse(Good),
    Labels = #{~"x" => ~"1", ~"y" => ~"a\\b\"c\nd ä"},
    ?assertMatch(#{samples := [{_, Labels, 1500.0}, {_, #{}, 7}]}, A),
    ?assertEqual(7, erl_esdb_metrics_text:sample(~"a_total", #{}, Families)),
    Bad = [
        {~"# HELP a_total", ~"# HELP 1a"},
        {~"# HELP a_total What", ~"# HELP a_total \\x"},
        {~"# TYPE a_total counter", ~"# TYPE a_total number"},
        {~"# TYPE a_total counter", ~"# TYPE other counter"},
        {~"# TYPE a_total counter\n", ~""},
        {~"a_total 7", ~"other 7"},
        {~"a_total 7", ~"a_total seven"},
        {~"a_total 7", ~"a_total  7"},
        {~"a_total 7", ~"a_total 7 "},
        {~"a_total 7", ~"a_total -7"},
        {~"a_total 7", ~"\na_total 7"},
        {~"a_total 7", ~"a_total 7\na_total 8"},
        {~"x=\"1\"", ~"x=1"},
        {~"x=\"1\"", ~"y=\"1\""},
        {~"x=\"1\"", ~"1x=\"1\""},
        {~"a\\\\b", ~"a\\b"},
        {~"\"} 1.5e3", ~"\" 1.5e3"},
        {~"# HELP b", ~"# HELP a_total"},
        {~"b_bucket{le=\"0.5\"} 1", ~"b_bucket{le=\"0.5\"} 3"},
        {~"b_bucket{le=\"0.5\"} 1", ~"b_bucket 1"},
        {~"b_bucket{le=\"+Inf\"} 2\n", ~""},
        {~"b_sum 0.75\n", ~""},
        {~"b_count 2", ~"b_count 3"},
        {~"b_count 2\n", ~"b_count 2"},
        {~"ä", <<255>>}
    ],
    [
        begin
            Text = binary:replace(Good, From, To),
            ?assertNotEqual(Good, Text),
            ?assertMatch({error, _}, erl_esdb_metrics_text:parse(Text), {From, To})
        end
     || {From, To} <- Bad
    ].

%% ---- metrics

%% Those of the node are in it, because the library registers them in the same place.
a_scrape(_Config) ->
    Store = start_store(),
    {ok, _} = append(Store, [event(1)]),
    Families = scrape(),
    ?assertEqual(1, of_store(~"erl_esdb_appended_events_total", Store)),
    ?assert(is_map_key(~"erlang_vm_memory_bytes", Families)).

described() ->
    [{Name, Type, Help} || {Name, Type, _, Help} <- erl_esdb_metrics_events:metrics()] ++
        [{Name, gauge, Help} || {Name, Help} <- erl_esdb_metrics_collector:metrics()].

every_metric_stands_in_the_guide(_Config) ->
    Source = proplists:get_value(source, ?MODULE:module_info(compile)),
    Root = filename:join([filename:dirname(Source), "..", "..", ".."]),
    {ok, Guide} = file:read_file(filename:join([Root, "doc", "guides", "metrics.md"])),
    {match, Rows} = re:run(Guide, "^\\| `(erl_esdb_[a-z_]+)` \\| (\\w+) \\|", [
        global, multiline, {capture, all_but_first, binary}
    ]),
    Metrics = [[atom_to_binary(Name), atom_to_binary(Type)] || {Name, Type, _} <- described()],
    ?assertEqual(lists:sort(Metrics), lists:sort(Rows)).

appends_and_reads(_Config) ->
    Store = start_store(),
    [{ok, _} = append(Store, [event(N), event(N)]) || N <- lists:seq(1, 5)],
    {ok, _} = append(Store, []),
    {ok, [_, _, _]} = erl_esdb_streams:read(Store, ~"s", 0, 3, forward),
    Families = scrape(),
    Labels = #{~"store" => label(Store)},
    Value = fun(Name) -> erl_esdb_metrics_text:sample(Name, Labels, Families) end,
    ?assertEqual(10, Value(~"erl_esdb_appended_events_total")),
    ?assertEqual(6, Value(~"erl_esdb_append_duration_seconds_count")),
    ?assertEqual(3, Value(~"erl_esdb_read_events_total")),
    ?assertEqual(1, Value(~"erl_esdb_read_duration_seconds_count")),
    %% Seconds, not native units: all of it took less than this test may.
    ?assert(Value(~"erl_esdb_append_duration_seconds_sum") > 0),
    ?assert(Value(~"erl_esdb_append_duration_seconds_sum") < 120),
    Bounds = [
        Bound
     || {#{~"store" := Of, ~"le" := Bound}, _} <-
            erl_esdb_metrics_text:samples(~"erl_esdb_append_duration_seconds_bucket", Families),
        Of =:= label(Store)
    ],
    ?assert(lists:member(~"0.005", Bounds)).

%% What a duration is in the buckets is that in seconds.
appends_that_are_refused(_Config) ->
    Store = start_store(),
    {ok, 0} = append(Store, [event(1)]),
    [
        {error, _} = erl_esdb_streams:append(Store, ~"s", 7, [event(2)])
     || _ <- lists:seq(1, 3)
    ],
    {error, _} = erl_esdb_streams:append_many(
        Store, [{~"s", 7, [event(2)]}, {~"t", any, [event(2)]}], #{}
    ),
    Families = scrape(),
    Refused = #{~"store" => label(Store), ~"reason" => ~"wrong_expected_version"},
    Name = ~"erl_esdb_append_errors_total",
    ?assertEqual(5, erl_esdb_metrics_text:sample(Name, Refused, Families)),
    Took = #{~"store" => label(Store)},
    Count = ~"erl_esdb_append_duration_seconds_count",
    ?assertEqual(1, erl_esdb_metrics_text:sample(Count, Took, Families)).

appends_to_several_streams(_Config) ->
    Store = start_store(),
    {ok, _} = erl_esdb_streams:append_many(
        Store, [{~"s", any, [event(1)]}, {~"t", any, [event(2), event(3)]}], #{}
    ),
    ?assertEqual(3, of_store(~"erl_esdb_appended_events_total", Store)),
    ?assertEqual(2, of_store(~"erl_esdb_append_duration_seconds_count", Store)).

what_stores_tell(_Config) ->
    Store = start_store(),
    Other = start_store(),
    {ok, _} = append(Store, [event(N) || N <- lists:seq(1, 10)]),
    Families = scrape(),
    Value = fun(Name, Of) ->
        erl_esdb_metrics_text:sample(Name, #{~"store" => label(Of)}, Families)
    end,
    ?assertEqual(10, Value(~"erl_esdb_next_position", Store)),
    ?assertEqual(0, Value(~"erl_esdb_next_position", Other)),
    [?assertEqual(1, Value(~"erl_esdb_store_ready", Of)) || Of <- [Store, Other]],
    ?assertEqual(1, Value(~"erl_esdb_store_leader", Store)),
    ?assertEqual(1, Value(~"erl_esdb_store_members", Store)),
    ?assert(Value(~"erl_esdb_ram_bytes", Store) > 1000),
    ?assert(Value(~"erl_esdb_uptime_seconds", Store) < 120),
    ?assert(is_number(Value(~"erl_esdb_index_lag", Store))),
    %% It has no disk.
    ?assertEqual(none, Value(~"erl_esdb_disk_bytes", Store)).

what_stores_on_disk_tell(Config) ->
    Store = list_to_atom("store_" ++ unique()),
    Folder = filename:join(proplists:get_value(priv_dir, Config), Store),
    {ok, _} = erl_esdb:start_store(Store, #{engine => ra, data_dir => Folder}),
    [{ok, _} = append(Store, [event(N)]) || N <- lists:seq(1, 10)],
    Families = scrape(),
    Labels = #{~"store" => label(Store)},
    Value = fun(Name) -> erl_esdb_metrics_text:sample(Name, Labels, Families) end,
    ?assertEqual(10, Value(~"erl_esdb_next_position")),
    ?assertEqual(0, Value(~"erl_esdb_lag_commands")),
    ?assertEqual(Value(~"erl_esdb_commit_index"), Value(~"erl_esdb_applied_index")),
    [
        ?assert(Value(Name) > 0, Name)
     || Name <- [
            ~"erl_esdb_term",
            ~"erl_esdb_commit_index",
            ~"erl_esdb_last_index",
            ~"erl_esdb_ram_bytes",
            ~"erl_esdb_disk_bytes",
            ~"erl_esdb_wal_bytes"
        ]
    ],
    Names = [~"erl_esdb_store_ready", ~"erl_esdb_store_leader"],
    [?assertEqual(1, Value(Name), Name) || Name <- Names],
    ok = erl_esdb:drop(Store).

%% A sample for each of them, of the store that leads alone.
what_the_leader_tells_of_members(_Config) ->
    Lags = #{'b@127.0.0.1' => 0, 'c@127.0.0.1' => 4711},
    Stores = [{leads, #{role => leader, members_lag => Lags}}, {follows, #{role => follower}}],
    Settings = #{
        timeout => 1000, indexes => [], life => #{
            supervisor => self(), mode => single, data_dir => undefined
        }
    },
    [ok = erl_esdb_engine:ready(S, ?MODULE, {Handle, Settings}) || {S, Handle} <- Stores],
    Families = scrape(),
    [ok = erl_esdb_engine:gone(Store, normal) || {Store, _} <- Stores],
    #{~"erl_esdb_member_lag_commands" := #{samples := Samples}} = Families,
    ?assertEqual(
        [
            {#{~"store" => ~"leads", ~"member" => ~"b@127.0.0.1"}, 0},
            {#{~"store" => ~"leads", ~"member" => ~"c@127.0.0.1"}, 4711}
        ],
        lists:sort([{Labels, Lag} || {_, Labels, Lag} <- Samples])
    ).

%% This module as the engine of a store, which has nothing but a status.
status(Status) -> Status.

next_position(_, _) -> {error, timeout}.

documents(_, _, _, _) -> {error, timeout}.

subscriptions_and_projections(_Config) ->
    Store = start_store(),
    {ok, _} = append(Store, [event(N) || N <- lists:seq(1, 10)]),
    Options = #{subscriber => self(), ack => manual},
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", ~"mail", Options),
    [receive {events, [_]} -> ok end || _ <- lists:seq(1, 10)],
    ok = start_projection(Store, ~"totals"),
    ok = erl_esdb_projection:await(Store, ~"totals", 9, 60_000),
    Families = scrape(),
    Subscription = #{~"store" => label(Store), ~"subscription" => ~"mail", ~"key" => Key},
    Projection = #{~"store" => label(Store), ~"projection" => ~"totals"},
    [
        ?assertEqual(Value, erl_esdb_metrics_text:sample(Name, Labels, Families), Name)
     || {Name, Labels, Value} <- [
            {~"erl_esdb_subscription_lag", Subscription, 10},
            {~"erl_esdb_subscription_running", Subscription, 1},
            {~"erl_esdb_delivered_events_total", #{~"store" => label(Store)}, 10},
            {~"erl_esdb_projection_lag", Projection, 0},
            {~"erl_esdb_projection_running", Projection, 1}
        ]
    ].

%% It ends with the store, and this process does not.
start_projection(Store, Name) ->
    {ok, Pid} = erl_esdb_projection:start_link(Store, Name, ?MODULE, #{}),
    true = unlink(Pid),
    ok.

init(#{}) -> {ok, 0}.

handle_event(#event{}, Count) -> {ok, Count + 1}.

%% Whatever a store, a subscription and a projection are called, the scrape can be read, and no two
%% are one.
names_of_any_kind(_Config) ->
    Store = start_store('a "store"\\\n{}=, ä'),
    Long = binary:copy(~"n", 10_000),
    Names = [
        ~"", ~"a\"b\\c\nd", <<255, 0, 1>>, <<255, 0, 2>>, ~"grün", Long, <<Long/binary, "m">>,
        binary:copy(~"ä", 100), <<"x", (binary:copy(~"ä", 100))/binary>>
    ],
    [
        {ok, _} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", Name, #{})
     || Name <- Names
    ],
    [ok = start_projection(Store, Name) || Name <- Names],
    {ok, _} = append(Store, [event(1)]),
    Families = scrape(),
    Labels = #{~"store" => label(Store)},
    ?assertEqual(1, erl_esdb_metrics_text:sample(~"erl_esdb_next_position", Labels, Families)),
    Projections = [
        Label
     || {#{~"projection" := Label}, 1} <-
            erl_esdb_metrics_text:samples(~"erl_esdb_projection_running", Families)
    ],
    ?assertEqual(length(Names), length(lists:usort(Projections))),
    ?assertEqual([], [~"", ~"a\"b\\c\nd", ~"grün"] -- Projections),
    ?assertEqual([], [P || P <- Projections, byte_size(P) > 150]),
    ?assertEqual(
        length(Names),
        length(erl_esdb_metrics_text:samples(~"erl_esdb_subscription_lag", Families))
    ).

%% A handler that crashes would be detached, and count nothing any more.
events_that_are_not_as_they_should_be(_Config) ->
    Store = start_store(),
    Events = [?STREAM_WRITE_STOP, ?STREAM_WRITE_ERROR, ?STREAM_READ_STOP, ?SCAVENGE_COMPLETE],
    [
        erl_esdb_telemetry:emit(Event, Measurements, Metadata)
     || Event <- Events,
        Measurements <- [#{}, #{duration => long, event_count => many, deleted_count => -1}],
        Metadata <- [
            #{}, #{store_id => ~"name"}, #{store_id => Store}, #{store_id => Store, reason => [1]}
        ]
    ],
    {ok, 0} = append(Store, [event(1)]),
    ?assertEqual(1, of_store(~"erl_esdb_appended_events_total", Store)),
    Other = #{~"store" => label(Store), ~"reason" => ~"other"},
    ?assertEqual(2, value(~"erl_esdb_append_errors_total", Other)).

every_event_that_is_counted(_Config) ->
    Store = start_store(),
    Emitted = [
        {?BACKPRESSURE_DROPPED, #{count => 3}, ~"erl_esdb_dropped_events_total", 3},
        {?SNAPSHOT_CREATED, #{duration => 1, size_bytes => 1},
            ~"erl_esdb_snapshots_created_total", 1},
        {?SNAPSHOT_FAILED, #{}, ~"erl_esdb_snapshots_failed_total", 1},
        {?SCAVENGE_COMPLETE, #{duration => 1, deleted_count => 5},
            ~"erl_esdb_scavenged_events_total", 5},
        {?STORE_GAVE_UP, #{}, ~"erl_esdb_store_gave_up_total", 1},
        {?CLUSTER_LEADER_ELECTED, #{}, ~"erl_esdb_leader_elections_total", 1},
        {?QUORUM_LOST, #{}, ~"erl_esdb_quorum_lost_total", 1},
        {?HEALTH_NODE_FAILED, #{}, ~"erl_esdb_node_failures_total", 1},
        {?SPLIT_BRAIN_DETECTED, #{}, ~"erl_esdb_split_brain_total", 1}
    ],
    [
        erl_esdb_telemetry:emit(Event, Measurements, #{store_id => Store})
     || {Event, Measurements, _, _} <- Emitted
    ],
    [?assertEqual(Value, of_store(Name, Store), Name) || {_, _, Name, Value} <- Emitted],
    {ok, 0} = append(Store, [event(1)]),
    ok = erl_esdb_snapshots:save(Store, ~"s", 0, #{}),
    ?assertEqual(2, of_store(~"erl_esdb_snapshots_created_total", Store)),
    %% It began once.
    await(fun() -> of_store(~"erl_esdb_store_starts_total", Store) =:= 1 end).

await(Fun) -> await(Fun, erlang:monotonic_time(millisecond) + 60_000).

await(Fun, Until) ->
    case Fun() of
        true -> ok;
        false ->
            erlang:monotonic_time(millisecond) < Until orelse error(awaited_in_vain),
            receive
            after 5 -> ok
            end,
            await(Fun, Until)
    end.

%% One that is named in the environment and does not run is told of, for somebody misses it.
a_store_that_is_away(_Config) ->
    Store = start_store(),
    ok = application:set_env(erl_esdb, stores, [{Store, #{engine => memory}}, {missing, []}]),
    ?assertEqual(1, of_store(~"erl_esdb_store_ready", Store)),
    ?assertEqual(0, of_store(~"erl_esdb_store_ready", missing)),
    Stores = #{label(Store) => ~"ready", ~"missing" => ~"store_not_started"},
    ?assertEqual({503, #{~"status" => ~"not_ready", ~"stores" => Stores}}, json("/ready")),
    ok = erl_esdb:stop_store(Store),
    ?assertEqual(0, of_store(~"erl_esdb_store_ready", Store)).

%% It is waited for as long as the environment says, and the others are told of.
a_store_that_hangs(_Config) ->
    Store = start_store(),
    ok = application:set_env(erl_esdb_metrics, timeout, 200),
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", ~"mail", #{}),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    true = erlang:suspend_process(Pid),
    Labels = #{~"store" => label(Store), ~"subscription" => ~"mail", ~"key" => Key},
    Ask = fun() -> value(~"erl_esdb_subscription_running", Labels) end,
    ?assertEqual(0, Ask()),
    await(fun() -> element(1, timer:tc(Ask)) < 5_000_000 end),
    true = erlang:resume_process(Pid).

%% ---- the other pages

no_store_is_not_ready(_Config) ->
    ?assertEqual({503, #{~"status" => ~"not_ready", ~"stores" => #{}}}, json("/ready")),
    Store = start_store(),
    Stores = #{label(Store) => ~"ready"},
    ?assertEqual({200, #{~"status" => ~"ready", ~"stores" => Stores}}, json("/ready")).

ready_for_one_store(_Config) ->
    Store = start_store(),
    ok = application:set_env(erl_esdb, stores, [{missing, []}]),
    {200, _} = json("/ready?store=" ++ atom_to_list(Store)),
    {503, _} = json("/ready?store=missing"),
    %% No page makes an atom.
    Name = "never_heard_of_" ++ unique(),
    {503, #{~"stores" := Stores}} = json("/ready?store=" ++ Name),
    ?assertEqual(#{list_to_binary(Name) => ~"store_not_started"}, Stores),
    ?assertError(badarg, list_to_existing_atom(Name)),
    {503, _} = json("/ready?store=%FF%00"),
    {503, _} = json("/ready?store=" ++ lists:duplicate(300, $x)),
    {503, _} = json("/ready?store"),
    {400, _, _} = fetch("/ready?store=%").

health(_Config) ->
    ?assertEqual({200, #{~"status" => ~"up"}}, json("/health")),
    %% Stores are no matter of it.
    ok = application:set_env(erl_esdb, stores, [{missing, []}]),
    {200, _} = json("/health"),
    ok = application:stop(erl_esdb),
    ?assertEqual({503, #{~"status" => ~"down"}}, json("/health")),
    {503, _} = json("/ready").

other_requests(_Config) ->
    {404, _, _} = fetch("/"),
    {404, _, _} = fetch("/metrics/more"),
    [
        begin
            {405, #{"allow" := "GET, HEAD"}, <<>>} = request(post, Path, []),
            {405, _, _} = request(delete, Path, [])
        end
     || Path <- ["/metrics", "/health", "/ready"]
    ],
    {200, #{"content-type" := _}, <<>>} = request(head, "/metrics", []).

a_compressed_scrape(_Config) ->
    Store = start_store(),
    {ok, 0} = append(Store, [event(1)]),
    {200, Headers, Body} = request(get, "/metrics", [{"accept-encoding", "gzip"}]),
    ?assertMatch(#{"content-encoding" := "gzip"}, Headers),
    Families = parsed(zlib:gunzip(Body)),
    Labels = #{~"store" => label(Store)},
    ?assertEqual(1, erl_esdb_metrics_text:sample(~"erl_esdb_next_position", Labels, Families)).

only_this_machine_by_default(_Config) ->
    {Ip, _} = ranch:get_addr(erl_esdb_metrics_http),
    ?assertEqual({127, 0, 0, 1}, Ip).

%% ---- the application

restart(Key, Value) ->
    _ = application:stop(erl_esdb_metrics),
    ok = application:set_env(erl_esdb_metrics, Key, Value),
    quietly(fun() -> application:ensure_all_started(erl_esdb_metrics) end).

quietly(Fun) ->
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, none),
    try
        Fun()
    after
        ok = logger:set_primary_config(level, Level)
    end.

a_port_that_is_taken(_Config) ->
    {ok, Socket} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Socket),
    {error, Reason} = restart(port, Port),
    ok = gen_tcp:close(Socket),
    ?assertNotEqual(nomatch, string:find(io_lib:format("~p", [Reason]), "eaddrinuse")),
    {ok, _} = restart(port, Port),
    ?assertEqual(Port, erl_esdb_metrics:port()).

without_pages(_Config) ->
    {ok, _} = restart(port, none),
    ?assertEqual(none, erl_esdb_metrics:port()),
    Store = start_store(),
    {ok, 0} = append(Store, [event(1)]),
    Labels = #{~"store" => label(Store)},
    Families = parsed(erl_esdb_metrics:text()),
    Appended = ~"erl_esdb_appended_events_total",
    ?assertEqual(1, erl_esdb_metrics_text:sample(Appended, Labels, Families)).

a_registry_of_ones_own(_Config) ->
    {ok, _} = restart(registry, a_registry),
    Store = start_store(),
    {ok, 0} = append(Store, [event(1)]),
    Families = scrape(),
    ?assertEqual([], [N || N <- maps:keys(Families), string:prefix(N, "erl_esdb_") =:= nomatch]),
    ?assert(is_map_key(~"erl_esdb_appended_events_total", Families)).

values_that_cannot_be(_Config) ->
    [
        ?assertMatch(
            {error, {erl_esdb_metrics, {{invalid_option, Key, Value}, _}}}, wrong(Key, Value)
        )
     || {Key, Value} <- [
            {port, -1},
            {port, 65536},
            {port, "9568"},
            {ip, "127.0.0.1"},
            {ip, {1, 2, 3}},
            {registry, "default"},
            {timeout, 0},
            {timeout, infinity},
            {prot, 9568}
        ]
    ].

wrong(Key, Value) ->
    _ = application:stop(erl_esdb_metrics),
    fresh(erl_esdb_metrics),
    restart(Key, Value).

%% It begins again, and what was counted is still there.
what_registers_crashes(_Config) ->
    Store = start_store(),
    {ok, 0} = append(Store, [event(1)]),
    Port = erl_esdb_metrics:port(),
    Pid = whereis(erl_esdb_metrics_registered),
    true = exit(Pid, kill),
    await(fun() -> is_registered(Pid) end),
    {ok, 1} = append(Store, [event(2)]),
    ?assertEqual(Port, erl_esdb_metrics:port()),
    ?assertEqual(2, of_store(~"erl_esdb_appended_events_total", Store)).

%% By the next process, which has done so when it answers.
is_registered(Before) ->
    case whereis(erl_esdb_metrics_registered) of
        Pid when is_pid(Pid), Pid =/= Before ->
            {error, unknown_request} =:= gen_server:call(Pid, ?FUNCTION_NAME);
        _ ->
            false
    end.

it_leaves_nothing_behind(_Config) ->
    Store = start_store(),
    {ok, 0} = append(Store, [event(1)]),
    Port = erl_esdb_metrics:port(),
    ok = application:stop(erl_esdb_metrics),
    ?assertEqual({error, econnrefused}, gen_tcp:connect({127, 0, 0, 1}, Port, [])),
    ?assertEqual({error, not_found}, erl_esdb_telemetry:detach(erl_esdb_metrics_events)),
    Families = parsed(prometheus_text_format:format(default)),
    ?assertEqual([], [N || N <- maps:keys(Families), string:prefix(N, "erl_esdb_") =/= nomatch]),
    {ok, 1} = append(Store, [event(2)]).
