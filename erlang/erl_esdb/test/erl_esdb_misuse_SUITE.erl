-module(erl_esdb_misuse_SUITE).
-moduledoc """
What every public function says to arguments that are none.

A row names the kinds of the arguments of a function; a function of fewer arguments has the first of
them. Each argument in turn is then replaced by values of other kinds, the others stay good; and a
store by one that does not run, a name by none and by one of ten kilobytes. What is expected is
`badarg`, `{error, {store_not_started, nosuch}}`, and for names that nothing is crashed by them;
where a row says something else, that. Its cases `also` are whole calls with what they answer.

Functions that only make or find names, keys or members do not look at what they get. These
(`harmless`) may answer or raise, as long as nothing comes of it.

After all of that the stores work as before, and none of their processes has ended.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-behaviour(erl_esdb_projection).

-define(NOSUCH, {error, {store_not_started, nosuch}}).
%% Raised where there is no room for an error in the answer.
-define(RAISED, {raised, {erl_esdb, {store_not_started, nosuch}}}).
-define(NOT_RUNNING, {error, not_running}).
%% Answers where something is not there, whatever the name.
-define(MISSING, {error, not_found}).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        every_module_is_one_of_these,
        every_function_has_a_row,
        b_misuse,
        b_what_is_no_backend,
        b_payloads
    ].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_Config) -> application:stop(erl_esdb).

%% ---- which functions

%% Modules whose functions users do not call.
internal() ->
    [
        erl_esdb_append,
        erl_esdb_args,
        erl_esdb_archive_dictionary,
        erl_esdb_archive_notes,
        erl_esdb_backup_restore,
        erl_esdb_batch,
        erl_esdb_bisect,
        erl_esdb_callback,
        erl_esdb_causation_dot,
        erl_esdb_chain,
        erl_esdb_checkpoints,
        erl_esdb_chunks,
        erl_esdb_cluster_sup,
        erl_esdb_clock,
        erl_esdb_competing,
        erl_esdb_consistency,
        erl_esdb_consumers,
        erl_esdb_core_sup,
        erl_esdb_cursor,
        erl_esdb_deadline,
        erl_esdb_delivery,
        erl_esdb_delivery_sup,
        erl_esdb_discovery_config,
        erl_esdb_discovery_dns,
        erl_esdb_emitter_names,
        erl_esdb_engine,
        erl_esdb_engine_memory,
        erl_esdb_engine_ra,
        erl_esdb_event,
        erl_esdb_event_json,
        erl_esdb_event_segment,
        erl_esdb_feed,
        erl_esdb_file,
        erl_esdb_frames,
        erl_esdb_gossip,
        erl_esdb_incarnation,
        erl_esdb_index_files,
        erl_esdb_index_keys,
        erl_esdb_index_positions,
        erl_esdb_index_reader,
        erl_esdb_leader_sup,
        erl_esdb_leader_tracker,
        erl_esdb_leader_watch,
        erl_esdb_lifecycle,
        erl_esdb_lines,
        erl_esdb_link,
        erl_esdb_link_mgr,
        erl_esdb_link_spec,
        erl_esdb_links_sup,
        erl_esdb_log,
        erl_esdb_member_watch,
        erl_esdb_notification_sup,
        erl_esdb_outbox,
        erl_esdb_pages,
        erl_esdb_pattern,
        erl_esdb_persistence_sup,
        erl_esdb_query,
        erl_esdb_ra_command,
        erl_esdb_ra_compaction,
        erl_esdb_ra_folder,
        erl_esdb_ra_live,
        erl_esdb_ra_lock,
        erl_esdb_ra_machine,
        erl_esdb_ra_members,
        erl_esdb_ra_reader,
        erl_esdb_ra_replica,
        erl_esdb_ra_reports,
        erl_esdb_ra_segment,
        erl_esdb_ra_server,
        erl_esdb_ra_snapshot,
        erl_esdb_ra_systems,
        erl_esdb_ra_view,
        erl_esdb_ra_wal,
        erl_esdb_recent,
        erl_esdb_removals,
        erl_esdb_restore,
        erl_esdb_runs,
        erl_esdb_seen,
        erl_esdb_snapshot_marks,
        erl_esdb_snapshot_policy,
        erl_esdb_snapshotter,
        erl_esdb_status,
        erl_esdb_streams_sup,
        erl_esdb_streams_worker,
        erl_esdb_subscription,
        erl_esdb_subscription_manager,
        erl_esdb_subscription_sup,
        erl_esdb_system_sup,
        erl_esdb_task,
        erl_esdb_tables,
        erl_esdb_turns,
        erl_esdb_upcast,
        erl_esdb_volatile
    ].

modules() ->
    {ok, Modules} = application:get_key(erl_esdb, modules),
    [Module || Module <- Modules, not is_test(Module)].

is_test(Module) ->
    Source = proplists:get_value(source, compiled(Module), ""),
    filename:basename(filename:dirname(Source)) =:= "test".

compiled(Module) -> Module:module_info(compile).

%% A new module belongs to one list or the other.
every_module_is_one_of_these(_Config) ->
    Public = maps:keys(rows()),
    ?assertEqual([], Public -- (Public -- internal())),
    ?assertEqual(lists:sort(modules()), lists:sort(Public ++ internal())).

%% What is exported and not hidden, by its documentation.
functions(Module) ->
    {ok, {docs_v1, _, _, _, _, _, Docs}} = code:get_doc(Module),
    Hidden = [{F, A} || {{function, F, A}, _, _, hidden, _} <- Docs],
    Given = [{module_info, 0}, {module_info, 1}, {behaviour_info, 1}],
    Exports = Module:module_info(exports) -- Given,
    [Export || {_, Arity} = Export <- Exports, Arity > 0, not lists:member(Export, Hidden)].

every_function_has_a_row(_Config) ->
    Missing = [
        {Module, Function, Arity}
     || {Module, Rows} <- lists:sort(maps:to_list(rows())),
        {Function, Arity} <- lists:sort(functions(Module)),
        not has_row(Arity, row({Function, Arity}, Rows))
    ],
    ?assertEqual([], Missing),
    Superfluous = [
        {Module, Function}
     || {Module, Rows} <- lists:sort(maps:to_list(rows())),
        Function <- maps:keys(Rows),
        not lists:keymember(Function, 1, functions(Module)),
        not lists:member(Function, functions(Module))
    ],
    ?assertEqual([], Superfluous).

%% A row for all arities of a function, or for one of them.
row({Function, _} = Name, Rows) -> maps:get(Name, Rows, maps:get(Function, Rows, none)).

has_row(_Arity, none) -> false;
has_row(_Arity, internal) -> true;
has_row(Arity, {Kinds, _}) -> has_row(Arity, Kinds);
has_row(Arity, Kinds) -> Arity =< length(Kinds).

%% ---- kinds of arguments

good(store, #{store := Store}) -> Store;
good(name, _) -> ~"s";
good(key, #{key := Key}) -> Key;
good(natural, _) -> 0;
good(natural_or_name, _) -> 0;
good(positive, _) -> 1;
good(integer, _) -> 0;
good(count, _) -> 1;
good(expected, _) -> any;
good(direction, _) -> forward;
good(options, _) -> #{};
good(map, _) -> #{};
good(timeout, _) -> 1000;
good(pid, _) -> self();
good(event, #{event := Event}) -> Event;
good(events, _) -> [];
good(records, #{event := Event}) -> [Event];
good(names, _) -> [];
good(atom, _) -> an_atom;
good({one, [Value | _]}, _) -> Value;
good({is, Value}, _) -> Value;
good({fixture, Key}, Fixture) -> maps:get(Key, Fixture);
good(any, _) -> any.

wrong(store) -> ["store", ~"store", 1, #{}];
wrong(Name) when Name =:= name; Name =:= key -> [name, "name", 1, #{}, <<1:3>>];
wrong(natural) -> [-1, 1.5, one, ~"1"];
%% Of a stream, where a position is not meant.
wrong(natural_or_name) -> [-1, 1.5, one];
wrong(positive) -> [0 | wrong(natural)];
wrong(integer) -> [1.5, one, ~"1"];
wrong(count) -> [-1, 1.5, many];
wrong(expected) -> [-3, 1.5, anything, ~"1"];
wrong(direction) -> [sideways, ~"forward"];
wrong(options) -> [[], none, [{a, 1} | b]];
wrong(map) -> wrong(options);
wrong(timeout) -> [-1, 1.5, soon, 16#1FFFFFFFF];
wrong(pid) -> [self, 1, ~"pid"];
wrong(event) -> [#{}, event, {event}];
wrong(events) -> [event, #{}, [#{event_type => ~"T", data => #{}} | event]];
wrong(records) -> [event, [event], #{}];
wrong(names) -> [name, #{}, [~"a" | ~"b"], [name]];
wrong(atom) -> ["atom", ~"atom", 1];
wrong({one, _}) -> [another, 1, ~"one"];
wrong({is, _}) -> [];
wrong({fixture, Key}) -> wrong_fixture(Key);
wrong(any) -> [].

wrong_fixture(file) -> [1, #{}, {file}];
wrong_fixture(queue) -> [queue, #{}, []];
wrong_fixture(graph) -> [graph, #{}, []];
wrong_fixture(backend) -> [backend, {no_such_module, x}, #{}];
wrong_fixture(state) -> [state, 1, []];
wrong_fixture(archive_key) -> [key, 1];
wrong_fixture(snapshot) -> [snapshot, #{}, {snapshot}];
wrong_fixture(subscription) -> [subscription, #{}, {subscription}];
wrong_fixture(config) -> [config, #{}, {store_config}];
wrong_fixture(handler) -> [handler, fun() -> ok end, 1];
wrong_fixture(callback) -> [callback, fun() -> ok end, 1].

%% ---- the rows

rows() ->
    maps:from_list([{Module, rows(Module)} || Module <- public()]).

public() ->
    [
        erl_esdb,
        erl_esdb_aggregator,
        erl_esdb_app,
        erl_esdb_archive,
        erl_esdb_archive_backend,
        erl_esdb_archive_file,
        erl_esdb_backpressure,
        erl_esdb_backup,
        erl_esdb_causation,
        erl_esdb_cluster,
        erl_esdb_config,
        erl_esdb_consistency_checker,
        erl_esdb_discovery,
        erl_esdb_emitter,
        erl_esdb_emitter_group,
        erl_esdb_emitter_pool,
        erl_esdb_emitter_sup,
        erl_esdb_export,
        erl_esdb_filters,
        erl_esdb_health_prober,
        erl_esdb_import,
        erl_esdb_index,
        erl_esdb_integrity,
        erl_esdb_json,
        erl_esdb_leader,
        erl_esdb_links,
        erl_esdb_memory,
        erl_esdb_naming,
        erl_esdb_node_monitor,
        erl_esdb_persistence_worker,
        erl_esdb_projection,
        erl_esdb_scavenge,
        erl_esdb_schema,
        erl_esdb_snapshots,
        erl_esdb_snapshots_store,
        erl_esdb_store,
        erl_esdb_store_coordinator,
        erl_esdb_store_mgr,
        erl_esdb_streams,
        erl_esdb_streams_reader,
        erl_esdb_streams_writer,
        erl_esdb_subscriptions,
        erl_esdb_subscriptions_store,
        erl_esdb_sup,
        erl_esdb_telemetry,
        erl_esdb_temporal,
        erl_esdb_tracker_group
    ].

rows(erl_esdb) ->
    #{
        start_store => {[atom, options], #{}},
        stop_store => {[store], #{unknown => ?MISSING}},
        drop => {[store], #{unknown => ?MISSING}},
        adopt => {[store, options], #{unknown => any}},
        join => [store, atom],
        join_cluster => [store, atom],
        leave => [store],
        members => [store],
        leader => [store],
        transfer_leadership => [store, atom],
        force_remove => [store, atom],
        status => [store, options],
        readiness => {[store, options], #{unknown => {not_ready, store_not_started}}}
    };
rows(erl_esdb_aggregator) ->
    harmless(#{
        foldl => [records, map],
        foldr => [records, map],
        finalize => [map],
        aggregate => [records, {is, undefined}, options]
    });
rows(erl_esdb_app) ->
    #{};
rows(erl_esdb_archive) ->
    #{
        archive => internal,
        read_through => [store, name, natural, count, direction, {fixture, backend}, options],
        check => [store, name, {fixture, backend}, options],
        forget => [store, name, natural, natural, options]
    };
rows(erl_esdb_archive_backend) ->
    harmless(#{
        make_key => [store, name, natural, natural, name],
        parse_key => {[name], #{1 => {error, invalid_key}}},
        split_key => {[name], #{1 => {error, invalid_key}}},
        escape => [name]
    });
rows(erl_esdb_archive_file) ->
    harmless(#{
        init => [options],
        archive => [{fixture, state}, {fixture, archive_key}, records],
        read => [{fixture, state}, {fixture, archive_key}],
        list => [{fixture, state}, store, name],
        delete => [{fixture, state}, {fixture, archive_key}],
        exists => [{fixture, state}, {fixture, archive_key}]
    });
rows(erl_esdb_backpressure) ->
    Queue = {fixture, queue},
    #{
        new => [options],
        enqueue => [Queue, any],
        enqueue_many => {[Queue, names], harmless},
        dequeue => [Queue, natural],
        dequeue_all => [Queue],
        peek => [Queue],
        size => [Queue],
        is_empty => [Queue],
        is_full => [Queue],
        info => [Queue],
        set_demand => [Queue, natural],
        add_demand => [Queue, natural],
        get_demand => [Queue]
    };
rows(erl_esdb_backup) ->
    File = {fixture, file},
    #{
        backup => [store, File, options],
        verify => [File],
        restore => [store, File, options],
        compare => {[store, File, options], #{unknown => any}}
    };
rows(erl_esdb_causation) ->
    #{
        get_effects => [store, name, options],
        get_cause => [store, name, options],
        get_chain => [store, name, options],
        get_correlated => [store, name, options],
        build_graph => [store, name, options],
        to_dot => [{fixture, graph}],
        to_svg => [{fixture, graph}, timeout]
    };
rows(erl_esdb_cluster) ->
    #{
        view => [store],
        members => [store],
        leader => [store],
        is_leading => {[store], #{unknown => false}},
        join => [store, atom, options],
        leave => [store, options],
        transfer_leadership => [store, atom, options],
        force_remove => [store, atom, options],
        leader_is => internal,
        watch_leader => {[store], #{unknown => undefined}}
    };
rows(erl_esdb_config) ->
    #{
        get_store_config => {[store], #{unknown => ?MISSING}},
        get_env => internal,
        plan => [atom, options]
    };
rows(erl_esdb_consistency_checker) ->
    #{
        start_link => internal,
        check_now => [store],
        get_status => {[store], #{unknown => ?NOT_RUNNING}},
        verify_membership_consensus => [store],
        verify_leader_consensus => [store],
        verify_raft_consistency => [store],
        get_quorum_status => [store],
        get_local_raft_stats => [store],
        on_status_change => {[store, {fixture, callback}], #{unknown => ?NOT_RUNNING}},
        remove_callback => {[store, any], #{unknown => ?NOT_RUNNING}}
    };
rows(erl_esdb_discovery) ->
    #{
        start_link => internal,
        trigger_discovery => {[store], #{unknown => ok}},
        get_discovered_nodes => {[store], #{unknown => []}}
    };
rows(erl_esdb_emitter) ->
    harmless(#{
        start_link => [store, key, pid, atom],
        child_spec => [store, key, pid, atom],
        update_subscriber => [pid, pid],
        stop => [pid]
    });
rows(erl_esdb_emitter_group) ->
    harmless(#{
        join => [store, key, pid],
        leave => [store, key, pid],
        members => [store, key],
        handlers => [store, key],
        broadcast => [store, key, event],
        group_key => [store, key],
        topic => [store, key],
        emitter_name => [store, key, positive],
        persist_emitters => [store, key, positive],
        retrieve_emitters => [store, key],
        erase_emitters => [store, key]
    });
rows(erl_esdb_emitter_pool) ->
    harmless(#{
        name => [store, key],
        start_link => internal,
        start_emitter => [store, {fixture, subscription}],
        stop_emitter => [store, {fixture, subscription}],
        stop => [store, key],
        update_emitter => [store, {fixture, subscription}]
    });
rows(erl_esdb_emitter_sup) ->
    harmless(#{
        start_emitter_pool => [store, {fixture, subscription}],
        stop_emitter_pool => [store, key]
    });
rows(erl_esdb_export) ->
    #{to_file => [store, {fixture, file}, options]};
rows(erl_esdb_filters) ->
    #{
        by_stream => [name],
        by_event_type => [name],
        by_event_pattern => {
            [{is, ~"*"}], #{also => [{[1], {error, {invalid_predicate, {[], unknown_predicate}}}}]}
        },
        by_event_payload => {[map], #{1 => {error, {invalid_predicate, {[], unknown_predicate}}}}},
        compile => [any, any],
        stored => [any],
        matches => internal,
        stream => internal,
        wildcard => [name],
        wildcard_match => internal
    };
rows(erl_esdb_health_prober) ->
    #{
        start_link => internal,
        get_node_status => [store, atom],
        get_all_status => [store],
        probe_now => {[store], #{unknown => ok}},
        configure => [store, options],
        on_node_failed => [store, {fixture, callback}],
        on_node_recovered => [store, {fixture, callback}],
        remove_callback => [store, any],
        health_check => [any]
    };
rows(erl_esdb_import) ->
    #{from_file => [store, {fixture, file}, options]};
rows(erl_esdb_index) ->
    harmless(#{
        positions => [store, {one, [type]}, name, options],
        events => [store, {one, [type]}, name, options],
        events_of => internal,
        view => internal,
        look => internal,
        wake => internal,
        search => internal,
        in_time => internal,
        compact => [store, timeout],
        info => [store]
    });
rows(erl_esdb_integrity) ->
    (maps:from_keys(
        [
            check_snapshot,
            seal_snapshot,
            opened,
            sealed,
            check_archived,
            seal,
            anchor,
            anchors,
            confirmed,
            read,
            truncation
        ],
        internal
    ))#{
        verify_stream => [store, name, options],
        verify_store => [store, options]
    };
rows(erl_esdb_json) ->
    #{encode => [any], decode => [event]};
rows(erl_esdb_leader) ->
    #{
        start_link => internal,
        activate => {[store], #{unknown => {error, not_started}}},
        is_active => {[store], #{unknown => false}}
    };
rows(erl_esdb_links) ->
    #{
        create => [store, {is, #{}}, options],
        delete => [store, name, options],
        get => [store, name, options],
        list => [store, options],
        start => [store, name, options],
        stop => [store, name, options],
        info => [store, name, options]
    };
rows(erl_esdb_memory) ->
    #{
        start_link => [options],
        level => {[{is, 0.5}], #{also => [{[half], badarg}]}},
        configure => [options],
        on_pressure_change => [{fixture, callback}],
        remove_callback => [any]
    };
rows(erl_esdb_naming) ->
    %% Names, also of a store that does not run.
    Named = #{unknown => any},
    (maps:from_keys([F || {F, 1} <- functions(erl_esdb_naming)], {[store], Named}))#{
        store_name => {[store], harmless},
        emitter_pool_name => {[store, key], Named},
        pg_group_name => {[any, any], Named},
        tracker_group_key => {[any, any], Named},
        emitter_group_key => {[any, any], Named}
    };
rows(erl_esdb_node_monitor) ->
    #{start_link => internal, get_members => [store]};
rows(erl_esdb_persistence_worker) ->
    #{
        start_link => internal,
        request_persistence => {[store], #{unknown => ?MISSING}},
        force_persistence => {[store], #{unknown => ?MISSING}}
    };
rows(erl_esdb_projection) ->
    #{
        start_link => [store, name, {is, ?MODULE}, options],
        child_spec => {[store, name, {is, ?MODULE}, options], #{unknown => any}},
        stop => [store, name, options],
        state => [store, name, options],
        table => [store, name, options],
        position => [store, name, options],
        lag => [store, name, options],
        await => [store, name, natural, timeout],
        rebuild => [store, name, options]
    };
rows(erl_esdb_scavenge) ->
    #{
        scavenge => [store, name, options],
        dry_run => [store, name, options],
        scavenge_matching => [store, name, options],
        archive_and_scavenge => [store, name, {fixture, backend}, options]
    };
rows(erl_esdb_schema) ->
    #{
        register => [store, name, {is, #{version => 1}}],
        unregister => [store, name],
        get => [store, name],
        list => [store],
        get_version => [store, name],
        upcast => {[store, records], #{unknown => ?RAISED}},
        upcast_event => {[store, event], #{unknown => ?RAISED}},
        validate => [store, event],
        check => [store, name, options]
    };
rows(erl_esdb_snapshots) ->
    #{
        save => [store, name, natural, any, map, options],
        load => [store, name, options],
        load_at => [store, name, natural, options],
        list => [store, name, options],
        delete => [store, name, options],
        delete_at => [store, name, natural, options],
        exists => {[store, name, options], #{unknown => ?RAISED}},
        exists_at => {[store, name, natural, options], #{unknown => ?RAISED}},
        set_policy => {
            [store, name, {is, #{every => 1, fold => {?MODULE, fold, []}}}, options],
            #{
                also => [
                    {[nosuch, ~"s", #{}], {error, {invalid_option, fold, undefined}}},
                    {[nosuch, ~"s", []], badarg}
                ]
            }
        },
        get_policy => [store, name, options],
        delete_policy => [store, name, options],
        list_policies => [store, options],
        maybe_snapshot => [store, name, options]
    };
rows(erl_esdb_snapshots_store) ->
    #{
        put => [store, {fixture, snapshot}, options],
        get => {[store, name, natural, options], #{unknown => ?RAISED}},
        get_latest => {[store, name, options], #{unknown => ?RAISED}},
        delete => [store, name, natural, options],
        delete_all => [store, name, options],
        list => [store, name, options],
        versions => [store, name, options],
        exists => {[store, name, natural, options], #{unknown => ?RAISED}}
    };
rows(erl_esdb_store) ->
    #{
        append => [store, name, expected, events, options],
        append_many => [store, {is, []}, options],
        read => [store, name, natural, count, direction, options],
        read_log => [store, natural, count, direction, options],
        read_log_end => [store, natural, count, options],
        read_category => [store, name, natural, count, direction, options],
        read_by_types => internal,
        read_by_tags => internal,
        matching => internal,
        info => [store, name, options],
        streams => [store],
        names => [store, options],
        next_position => {[store, options], #{2 => harmless}},
        delete => [store, name, options],
        truncate => [store, name, natural, options],
        set_metadata => [store, name, map, options],
        get_metadata => [store, name, options],
        scavengeable => internal,
        tip => internal,
        tombs => internal,
        checkpoints => internal,
        put_document => internal,
        put_documents => internal,
        get_document => internal,
        delete_document => internal,
        delete_documents => internal,
        list_documents => internal,
        checkpoint => internal,
        save_checkpoints => internal,
        is_ready => {[store], #{unknown => false, 1 => {any_of, [badarg, false]}}},
        get_store => {[store], #{unknown => nosuch}},
        get_leader => {[store], #{unknown => {error, not_started}}},
        is_timeout => [any]
    };
rows(erl_esdb_store_coordinator) ->
    #{
        start_link => internal,
        join_cluster => [store, atom],
        should_handle_nodeup => {[store], #{unknown => true}},
        members => [store],
        leader => {[store], #{unknown => {error, no_leader}}},
        is_leader => {[store], #{unknown => false}},
        found => {[store], #{unknown => ok}}
    };
rows(erl_esdb_store_mgr) ->
    #{start_link => internal, get_info => [store]};
rows(erl_esdb_streams) ->
    #{
        append => [store, name, expected, events, options],
        append_many => [store, {is, []}, options],
        do_append => [store, name, expected, events],
        read => [store, name, natural, count, direction, options],
        do_read => [store, name, natural, count, direction],
        read_all => [store, natural_or_name, count, direction, options],
        read_log => [store, natural, count, direction, options],
        read_category => [store, name, natural, count, direction, options],
        read_by_event_types => [store, names, options],
        read_by_tags => [store, {is, [~"red"]}, {is, all}, options],
        {read_by_tags, 3} => [store, {is, [~"red"]}, options],
        get_version => {[store, name, options], #{unknown => -1}},
        exists => {[store, name, options], #{unknown => false}},
        list_streams => [store, options],
        delete => [store, name, options],
        set_metadata => [store, name, map, options],
        get_metadata => [store, name, options]
    };
rows(erl_esdb_streams_reader) ->
    #{
        read => [store, name, natural, count, direction],
        get_streams => [store],
        get_reader => {[store, name], #{unknown => ?RAISED}},
        start_link => internal
    };
rows(erl_esdb_streams_writer) ->
    #{
        append => [store, name, expected, events],
        get_writer => {[store, name], #{unknown => ?RAISED}},
        start_link => internal
    };
rows(erl_esdb_subscriptions) ->
    Refs = [store, key, pid, {is, []}],
    Improper = [~"a" | ~"b"],
    #{
        subscribe => [store, {is, stream}, {is, ~"s"}, name, options],
        unsubscribe => [store, key],
        {unsubscribe, 3} => [store, {is, stream}, name],
        {unsubscribe, 4} => [store, {is, stream}, name, options],
        attach => [store, key, pid, options],
        ack => [store, name, name, natural, options],
        ack_events => {Refs ++ [options], #{also => [{[store, ~"s", self(), Improper], badarg}]}},
        demand => [store, key, natural, options],
        get => [store, key, options],
        list => [store, options],
        exists => {[store, key, options], #{unknown => false}},
        info => [store, key, options],
        setup_tracking => {[store, pid], harmless},
        connect => [store, key, pid, options],
        disconnect => [store, key, pid, options],
        nack => {
            Refs ++ [{one, [park]}, options],
            #{also => [{[store, ~"s", self(), Improper, park], badarg}]}
        },
        parked => [store, key, options],
        replay_parked => [store, key, options]
    };
rows(erl_esdb_subscriptions_store) ->
    #{
        key => [{fixture, subscription}],
        {key, 3} => {[{is, stream}, any, name], harmless},
        free_key => internal,
        put => [store, {fixture, subscription}],
        get => {[store, key, options], #{unknown => ?RAISED}},
        delete => [store, key],
        exists => {[store, key], #{unknown => ?RAISED}},
        {exists, 3} => {[store, {is, stream}, name], #{unknown => ?RAISED}},
        list => [store, options],
        keys => [store, options],
        find_by_name => {[store, name, options], #{unknown => ?RAISED}},
        update_checkpoint => [store, key, natural]
    };
rows(erl_esdb_sup) ->
    #{start_store => [atom, options], stop_store => {[store], #{unknown => ?MISSING}}};
rows(erl_esdb_telemetry) ->
    #{
        attach => [any, {fixture, handler}, any],
        attach_many => [any, names, {fixture, handler}, any],
        detach => [any],
        emit => [any, map, map],
        span => [{is, [a]}, map, {is, fun() -> ok end}],
        handle_event => [any, any, any, any]
    };
rows(erl_esdb_temporal) ->
    #{
        read_until => [store, name, integer, options],
        read_range => [store, name, integer, integer, options],
        version_at => [store, name, integer, options]
    };
rows(erl_esdb_tracker_group) ->
    harmless(#{
        group_key => [store, any],
        join => [store, {is, streams}, pid],
        leave => [store, {is, streams}, pid],
        members => [store, {is, streams}],
        notify_created => [store, {is, streams}, any],
        notify_updated => [store, {is, streams}, any],
        notify_deleted => [store, {is, streams}, any]
    }).

harmless(Rows) ->
    #{Name => harmless_row(Row) || Name := Row <- Rows}.

harmless_row(Kinds) when is_list(Kinds) -> {Kinds, harmless};
harmless_row({Kinds, _}) -> {Kinds, harmless};
harmless_row(internal) -> internal.

%% ---- the table is asked

b_misuse(Config) ->
    ok = logger:add_handler_filter(default, ?MODULE, {fun(_, _) -> stop end, none}),
    #{store := Store} = Fixture = fixture(Config),
    Before = processes(erl_esdb_sup),
    Wrong = [
        {Module, Function, Args, {expected, Expected}, {got, Got}}
     || {Module, Rows} <- lists:sort(maps:to_list(rows())),
        {Function, Arity} = Name <- lists:sort(functions(Module)),
        {Args, Expected} <- cases(Arity, row(Name, Rows), Fixture),
        Got <- [outcome(Module, Function, Args)],
        not is_expected(Expected, Got)
    ],
    ok = logger:remove_handler_filter(default, ?MODULE),
    [ct:pal("~0tP", [Row, 40]) || Row <- Wrong],
    ?assertEqual(0, length(Wrong)),
    ?assertEqual([], [process_label(Pid) || Pid <- Before, not is_process_alive(Pid)]),
    works(Store).

process_label(Pid) -> {Pid, proc_lib:get_label(Pid)}.

%% Whether there are archives or not.
b_what_is_no_backend(Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    #{backend := Backend} = Fixture = fixture(Config),
    Events = erl_esdb_test:events(10),
    [{ok, 9} = erl_esdb_streams:append(Store, S, -1, Events) || S <- [~"a", ~"s"]],
    Options = #{before_version => 5, require_snapshot => false},
    {ok, _} = erl_esdb_scavenge:archive_and_scavenge(Store, ~"a", Backend, Options),
    Calls = [
        fun(S, O) -> erl_esdb_streams:read(Store, S, 0, 10, forward, O) end,
        fun(S, O) -> erl_esdb_streams:read_all(Store, S, 10, forward, O) end,
        fun(S, O) -> erl_esdb_streams:read_all(Store, S, 10, backward, O) end,
        fun(S, O) -> erl_esdb_integrity:verify_stream(Store, S, O) end,
        fun(_, O) -> erl_esdb_integrity:verify_store(Store, O) end
    ],
    Positions = [
        fun(S, B) -> erl_esdb_archive:read_through(Store, S, 0, 10, forward, B) end,
        fun(S, B) -> erl_esdb_archive:check(Store, S, B) end
    ],
    Values = [foo, #{}, {nomod, x}, {lists, x}, {erl_esdb_archive_file}, [Backend]],
    [
        begin
            Refused = {error, {invalid_option, archives, V}},
            [?assertEqual(Refused, Call(S, #{archives => V})) || Call <- Calls],
            [?assertError(badarg, Call(S, V)) || Call <- Positions]
        end
     || S <- [~"a", ~"s"], V <- Values
    ],
    [?assertMatch({ok, _}, Call(~"a", #{archives => Backend})) || Call <- Calls],
    ok = erl_esdb:stop_store(Store),
    ok = erl_esdb:stop_store(map_get(store, Fixture)).

%% What is written is read, found, delivered and linked.
works(Store) ->
    Event = #{event_type => ~"Late", data => #{n => 1}, tags => [~"late"]},
    ok = erl_esdb_links:create(Store, #{name => ~"late", source => #{type => all}}),
    ok = erl_esdb_links:start(Store, ~"late"),
    {ok, _} = erl_esdb_subscriptions:subscribe(Store, event_type, ~"Late", ~"late", #{
        subscriber => self()
    }),
    {ok, 0} = erl_esdb_streams:append(Store, ~"late", -1, [Event]),
    {ok, [#event{stream_id = ~"late"}]} = erl_esdb_streams:read(Store, ~"late", 0, 1, forward),
    {ok, [_ | _]} = erl_esdb_streams:read_by_tags(Store, [~"late"], #{}),
    receive
        {events, [#event{event_type = ~"Late"} | _]} -> ok
    after 60_000 -> error(nothing_delivered)
    end,
    erl_esdb_test:await(fun() -> erl_esdb_streams:exists(Store, ~"$link:late") end),
    ok = erl_esdb:stop_store(Store).

%% What takes data takes no more than it may.
b_payloads(_Config) ->
    Store = erl_esdb_test:start_store(#{}),
    Big = #{bytes => binary:copy(~"x", 17_000_000)},
    Event = #{event_type => ~"T", data => Big},
    Snapshot = #snapshot{stream_id = ~"s", version = 0, data = Big, timestamp = 0},
    Policy = #{every => 1, fold => {?MODULE, fold, []}, initial => Big},
    Schema = #{version => 1, description => Big},
    Events = [
        erl_esdb_streams:append(Store, ~"s", any, [Event]),
        erl_esdb_streams:append(Store, ~"s", any, [Event], #{codec => json}),
        erl_esdb_streams:append(Store, ~"s", any, [Event#{data => #{}, metadata => Big}]),
        erl_esdb_streams:do_append(Store, ~"s", any, [Event]),
        erl_esdb_streams_writer:append(Store, ~"s", any, [Event])
    ],
    [?assertMatch({error, {event_too_large, S, 16_777_216}} when S > 17_000_000, E) || E <- Events],
    ?assertMatch(
        {error, {~"s", {event_too_large, _, 16_777_216}}},
        erl_esdb_streams:append_many(Store, [{~"s", any, [Event]}], #{})
    ),
    Documents = [
        erl_esdb_snapshots:save(Store, ~"s", 0, Big),
        erl_esdb_snapshots:save(Store, ~"s", 0, #{}, Big),
        erl_esdb_snapshots_store:put(Store, Snapshot),
        erl_esdb_snapshots:set_policy(Store, ~"s", Policy),
        erl_esdb_schema:register(Store, ~"T", Schema)
    ],
    [
        ?assertMatch({error, {document_too_large, S, 16_777_216}} when S > 17_000_000, D)
     || D <- Documents
    ],
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)),
    works(Store).

init(_) -> {ok, #{}}.

handle_event(_, State) -> {ok, State}.

fold(_, State) -> State.

cases(_Arity, internal, _Fixture) -> [];
cases(Arity, Kinds, Fixture) when is_list(Kinds) -> cases(Arity, {Kinds, #{}}, Fixture);
cases(Arity, {Kinds, harmless}, Fixture) ->
    Says = maps:from_keys([unknown, name | lists:seq(1, length(Kinds))], harmless),
    cases(Arity, {Kinds, Says}, Fixture);
cases(Arity, {All, Says}, #{store := Store} = Fixture) ->
    Also = [
        {[case Arg of store -> Store; _ -> Arg end || Arg <- Args], Expected}
     || {Args, Expected} <- maps:get(also, Says, []), length(Args) =:= Arity
    ],
    Kinds = lists:sublist(All, Arity),
    Good = [good(Kind, Fixture) || Kind <- Kinds],
    Numbered = lists:enumerate(Kinds),
    [{with(N, W, Good), maps:get(N, Says, badarg)} || {N, K} <- Numbered, W <- wrong(K)] ++
        [{with(N, nosuch, Good), maps:get(unknown, Says, ?NOSUCH)} || {N, store} <- Numbered] ++
        [
            {with(N, Name, Good), maps:get(name, Says, any)}
         || {N, K} <- Numbered,
            K =:= name orelse K =:= key,
            Name <- [~"", binary:copy(~"n", 10_240)]
        ] ++ Also.

with(N, Value, Args) -> lists:sublist(Args, N - 1) ++ [Value] ++ lists:nthtail(N, Args).

outcome(Module, Function, Args) ->
    Call = fun() ->
        process_flag(trap_exit, true),
        exit({outcome,
            try
                {answer, apply(Module, Function, Args)}
            catch
                Class:Reason -> {Class, Reason}
            end})
    end,
    {Pid, Ref} = spawn_monitor(Call),
    receive
        {'DOWN', Ref, process, Pid, {outcome, Outcome}} -> Outcome;
        {'DOWN', Ref, process, Pid, Reason} -> {died, Reason}
    after 60_000 ->
        exit(Pid, kill),
        {hangs, Args}
    end.

is_expected(badarg, Got) -> Got =:= {error, badarg};
is_expected({raised, Reason}, Got) -> Got =:= {error, Reason};
is_expected(any, Got) -> element(1, Got) =:= answer orelse Got =:= {error, badarg};
is_expected(harmless, {Kind, _}) -> lists:member(Kind, [answer, error, exit]);
is_expected({any_of, Some}, Got) -> lists:any(fun(One) -> is_expected(One, Got) end, Some);
is_expected(Answer, Got) -> Got =:= {answer, Answer}.

%% ---- what good arguments are made of

fixture(Config) ->
    Store = erl_esdb_test:start_store(#{}),
    {ok, 2} = erl_esdb_streams:append(Store, ~"s", -1, erl_esdb_test:events(3)),
    {ok, [Event | _]} = erl_esdb_streams:read(Store, ~"s", 0, 3, forward),
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ~"s", ~"sub", #{
        consumers => competing
    }),
    {ok, Subscription} = erl_esdb_subscriptions:get(Store, Key),
    {ok, Queue} = erl_esdb_backpressure:new(#{}),
    {ok, Graph} = erl_esdb_causation:build_graph(Store, Event#event.event_id),
    Dir = filename:join(proplists:get_value(priv_dir, Config), "archive"),
    {ok, State} = erl_esdb_archive_file:init(#{base_dir => Dir}),
    #{
        store => Store,
        event => Event,
        key => Key,
        subscription => Subscription,
        queue => Queue,
        graph => Graph,
        file => filename:join(proplists:get_value(priv_dir, Config), "no_such_file"),
        backend => {erl_esdb_archive_file, State},
        state => State,
        archive_key => erl_esdb_archive_backend:make_key(Store, ~"s", 0, 1),
        snapshot => #snapshot{stream_id = ~"s", version = 0, data = #{}, timestamp = 0},
        config => #store_config{store_id = Store},
        callback => fun(_) -> ok end,
        handler => fun(_, _, _, _) -> ok end
    }.

%% All that are below a supervisor.
processes(Supervisor) ->
    lists:append([
        case Type of
            supervisor -> [Pid | processes(Pid)];
            worker -> [Pid]
        end
     || {_, Pid, Type, _} <- supervisor:which_children(Supervisor), is_pid(Pid)
    ]).
