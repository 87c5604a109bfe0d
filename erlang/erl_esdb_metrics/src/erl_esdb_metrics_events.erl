-module(erl_esdb_metrics_events).
-moduledoc """
Counts and measures what the store emits (`m:erl_esdb_telemetry`).

A handler runs in the process that emits, so each does no more than add to a counter. None has a
label that the name of a stream or an event could get into: there is no bound to these.
""".

-export([declare/1, undeclare/1, attach/1, detach/0, handle_event/4, metrics/0]).

%% As in erl_esdb_telemetry.hrl: a header of another application is found by its name, and not in a
%% clone of the whole whose folder has that name.
-define(STREAM_WRITE_STOP, [erl_esdb, stream, write, stop]).
-define(STREAM_WRITE_ERROR, [erl_esdb, stream, write, error]).
-define(STREAM_READ_STOP, [erl_esdb, stream, read, stop]).
-define(SUBSCRIPTION_EVENT_DELIVERED, [erl_esdb, subscription, event_delivered]).
-define(BACKPRESSURE_DROPPED, [erl_esdb, subscription, backpressure, dropped]).
-define(SNAPSHOT_CREATED, [erl_esdb, snapshot, created]).
-define(SNAPSHOT_FAILED, [erl_esdb, snapshot, failed]).
-define(SCAVENGE_COMPLETE, [erl_esdb, scavenge, complete]).
-define(STORE_STARTED, [erl_esdb, store, started]).
-define(STORE_GAVE_UP, [erl_esdb, store, gave_up]).
-define(CLUSTER_LEADER_ELECTED, [erl_esdb, cluster, leader, elected]).
-define(QUORUM_LOST, [erl_esdb, consistency, quorum, lost]).
-define(HEALTH_NODE_FAILED, [erl_esdb, health, node, failed]).
-define(SPLIT_BRAIN_DETECTED, [erl_esdb, consistency, split_brain, detected]).

-define(APPENDS, erl_esdb_append_duration_seconds).
-define(APPENDED, erl_esdb_appended_events_total).
-define(REFUSED, erl_esdb_append_errors_total).
-define(READS, erl_esdb_read_duration_seconds).
-define(READ, erl_esdb_read_events_total).
-define(DELIVERED, erl_esdb_delivered_events_total).
-define(DROPPED, erl_esdb_dropped_events_total).
-define(SNAPSHOTS, erl_esdb_snapshots_created_total).
-define(SNAPSHOTS_FAILED, erl_esdb_snapshots_failed_total).
-define(SCAVENGED, erl_esdb_scavenged_events_total).
-define(STARTED, erl_esdb_store_starts_total).
-define(GAVE_UP, erl_esdb_store_gave_up_total).
-define(ELECTED, erl_esdb_leader_elections_total).
-define(LOST_QUORUM, erl_esdb_quorum_lost_total).
-define(NODES_FAILED, erl_esdb_node_failures_total).
-define(SPLIT, erl_esdb_split_brain_total).

%% In seconds: a store in memory takes some microseconds, a disk that is slow a second.
-define(BUCKETS, [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10
]).

-type registry() :: prometheus_registry:registry().

-doc "The metrics with their types, labels and descriptions.".
-spec metrics() -> [{atom(), counter | histogram, [atom()], string()}, ...].
metrics() ->
    Store = [store],
    [
        {?APPENDS, histogram, Store, "How long appends took that were done"},
        {?APPENDED, counter, Store, "Events that were appended"},
        {?REFUSED, counter, [store, reason], "Appends that were refused, or that failed"},
        {?READS, histogram, Store, "How long reads of a stream took"},
        {?READ, counter, Store, "Events that were read from a stream"},
        {?DELIVERED, counter, Store, "Events that were handed over to subscribers"},
        {?DROPPED, counter, Store, "Events that a full queue of a subscription left out"},
        {?SNAPSHOTS, counter, Store, "Snapshots of streams that were taken"},
        {?SNAPSHOTS_FAILED, counter, Store, "Snapshots of streams that could not be taken"},
        {?SCAVENGED, counter, Store, "Events that scavenging removed"},
        {?STARTED, counter, Store, "How often the store began, also after a crash"},
        {?GAVE_UP, counter, Store, "How often the store crashed so often that it stayed away"},
        {?ELECTED, counter, Store, "How often a leader of the store was elected"},
        {?LOST_QUORUM, counter, Store, "How often the store lost its majority"},
        {?NODES_FAILED, counter, Store, "How often another node of the store failed its probes"},
        {?SPLIT, counter, Store, "How often nodes were seen to disagree on who is in the cluster"}
    ].

-doc "Makes the metrics in a registry, unless they are there.".
-spec declare(registry()) -> ok.
declare(Registry) ->
    lists:foreach(fun(Metric) -> declare(Metric, Registry) end, metrics()).

-spec declare({atom(), counter | histogram, [atom()], string()}, registry()) -> boolean().
declare({Name, Type, Labels, Help}, Registry) ->
    Spec = [{name, Name}, {registry, Registry}, {labels, Labels}, {help, Help}],
    case Type of
        counter -> prometheus_counter:declare(Spec);
        histogram -> prometheus_histogram:declare([{buckets, ?BUCKETS} | Spec])
    end.

-doc "Removes the metrics from a registry, and what they have counted.".
-spec undeclare(registry()) -> ok.
undeclare(Registry) ->
    lists:foreach(
        fun
            ({Name, counter, _, _}) -> prometheus_counter:deregister(Registry, Name);
            ({Name, histogram, _, _}) -> prometheus_histogram:deregister(Registry, Name)
        end,
        metrics()
    ).

-doc "From here on events are counted in a registry.".
-spec attach(registry()) -> ok | {error, already_exists}.
attach(Registry) ->
    Events = [
        ?STREAM_WRITE_STOP,
        ?STREAM_WRITE_ERROR,
        ?STREAM_READ_STOP,
        ?SUBSCRIPTION_EVENT_DELIVERED,
        ?BACKPRESSURE_DROPPED,
        ?SNAPSHOT_CREATED,
        ?SNAPSHOT_FAILED,
        ?SCAVENGE_COMPLETE,
        ?STORE_STARTED,
        ?STORE_GAVE_UP,
        ?CLUSTER_LEADER_ELECTED,
        ?QUORUM_LOST,
        ?HEALTH_NODE_FAILED,
        ?SPLIT_BRAIN_DETECTED
    ],
    erl_esdb_telemetry:attach_many(?MODULE, Events, fun ?MODULE:handle_event/4, Registry).

-doc "Ends what `attach/1` began.".
-spec detach() -> ok.
detach() ->
    _ = erl_esdb_telemetry:detach(?MODULE),
    ok.

-doc false.
%% One that crashes is detached for good: events that are not as they should be are passed over.
-spec handle_event(erl_esdb_telemetry:event_name(), map(), map(), registry()) -> ok.
handle_event(Event, Measurements, #{store_id := Store} = Metadata, Registry) when is_atom(Store) ->
    count(Event, Measurements, Metadata#{store_id := atom_to_binary(Store)}, Registry);
handle_event(_, _, _, _) ->
    ok.

-spec count(erl_esdb_telemetry:event_name(), map(), map(), registry()) -> ok.
count(?STREAM_WRITE_STOP, #{duration := Duration, event_count := N}, #{store_id := Store}, R) ->
    observe(?APPENDS, Store, Duration, R),
    add(?APPENDED, [Store], N, R);
count(?STREAM_WRITE_ERROR, _, #{store_id := Store, reason := Reason}, R) ->
    add(?REFUSED, [Store, reason(Reason)], 1, R);
count(?STREAM_READ_STOP, #{duration := Duration, event_count := N}, #{store_id := Store}, R) ->
    observe(?READS, Store, Duration, R),
    add(?READ, [Store], N, R);
count(?SUBSCRIPTION_EVENT_DELIVERED, #{count := N}, #{store_id := Store}, R) ->
    add(?DELIVERED, [Store], N, R);
count(?BACKPRESSURE_DROPPED, #{count := N}, #{store_id := Store}, R) ->
    add(?DROPPED, [Store], N, R);
count(?SNAPSHOT_CREATED, _, #{store_id := Store}, R) ->
    add(?SNAPSHOTS, [Store], 1, R);
count(?SNAPSHOT_FAILED, _, #{store_id := Store}, R) ->
    add(?SNAPSHOTS_FAILED, [Store], 1, R);
count(?SCAVENGE_COMPLETE, #{deleted_count := N}, #{store_id := Store}, R) ->
    add(?SCAVENGED, [Store], N, R);
count(?STORE_STARTED, _, #{store_id := Store}, R) ->
    add(?STARTED, [Store], 1, R);
count(?STORE_GAVE_UP, _, #{store_id := Store}, R) ->
    add(?GAVE_UP, [Store], 1, R);
count(?CLUSTER_LEADER_ELECTED, _, #{store_id := Store}, R) ->
    add(?ELECTED, [Store], 1, R);
count(?QUORUM_LOST, _, #{store_id := Store}, R) ->
    add(?LOST_QUORUM, [Store], 1, R);
count(?HEALTH_NODE_FAILED, _, #{store_id := Store}, R) ->
    add(?NODES_FAILED, [Store], 1, R);
count(?SPLIT_BRAIN_DETECTED, _, #{store_id := Store}, R) ->
    add(?SPLIT, [Store], 1, R);
count(_, _, _, _) ->
    ok.

%% In native units of time, which the library turns into those of the name.
-spec observe(atom(), binary(), term(), registry()) -> ok.
observe(Name, Store, Duration, Registry) when is_integer(Duration), Duration >= 0 ->
    prometheus_histogram:observe(Registry, Name, [Store], Duration);
observe(_, _, _, _) ->
    ok.

-spec add(atom(), [binary() | atom()], term(), registry()) -> ok.
add(Name, Labels, N, Registry) when is_integer(N), N >= 0 ->
    prometheus_counter:inc(Registry, Name, Labels, N);
add(_, _, _, _) ->
    ok.

%% The kind of a reason, without what it was in this case. An append to several streams says first
%% which one refuses.
-spec reason(term()) -> atom().
reason(Reason) when is_atom(Reason) -> Reason;
reason({Stream, Reason}) when is_binary(Stream) -> reason(Reason);
reason(Reason) when is_tuple(Reason), is_atom(element(1, Reason)) -> element(1, Reason);
reason(_) -> other.
