%% Names of the telemetry events of the store.
%%
%%   -include_lib("erl_esdb/include/erl_esdb_telemetry.hrl").
-ifndef(ERL_ESDB_TELEMETRY_HRL).
-define(ERL_ESDB_TELEMETRY_HRL, true).

-define(STREAM_WRITE_START, [erl_esdb, stream, write, start]).
-define(STREAM_WRITE_STOP, [erl_esdb, stream, write, stop]).
-define(STREAM_WRITE_ERROR, [erl_esdb, stream, write, error]).
-define(STREAM_READ_START, [erl_esdb, stream, read, start]).
-define(STREAM_READ_STOP, [erl_esdb, stream, read, stop]).
-define(SUBSCRIPTION_CREATED, [erl_esdb, subscription, created]).
-define(SUBSCRIPTION_DELETED, [erl_esdb, subscription, deleted]).
-define(SUBSCRIPTION_EVENT_DELIVERED, [erl_esdb, subscription, event_delivered]).
-define(SUBSCRIPTION_CHECKPOINT, [erl_esdb, subscription, checkpoint]).
-define(SNAPSHOT_CREATED, [erl_esdb, snapshot, created]).
-define(SNAPSHOT_READ, [erl_esdb, snapshot, read]).
-define(CLUSTER_NODE_UP, [erl_esdb, cluster, node, up]).
-define(CLUSTER_NODE_DOWN, [erl_esdb, cluster, node, down]).
-define(CLUSTER_LEADER_ELECTED, [erl_esdb, cluster, leader, elected]).
-define(STORE_STARTED, [erl_esdb, store, started]).
-define(STORE_STOPPED, [erl_esdb, store, stopped]).
-define(STORE_GAVE_UP, [erl_esdb, store, gave_up]).
-define(EMITTER_BROADCAST, [erl_esdb, emitter, broadcast]).
-define(EMITTER_POOL_CREATED, [erl_esdb, emitter, pool, created]).
-define(TEMPORAL_READ_UNTIL, [erl_esdb, temporal, read_until]).
-define(TEMPORAL_READ_RANGE, [erl_esdb, temporal, read_range]).
-define(SCAVENGE_COMPLETE, [erl_esdb, scavenge, complete]).
-define(CAUSATION_QUERY, [erl_esdb, causation, query]).
-define(BACKPRESSURE_WARNING, [erl_esdb, subscription, backpressure, warning]).
-define(BACKPRESSURE_DROPPED, [erl_esdb, subscription, backpressure, dropped]).
-define(SCHEMA_REGISTERED, [erl_esdb, schema, registered]).
-define(SCHEMA_UNREGISTERED, [erl_esdb, schema, unregistered]).
-define(SCHEMA_UPCASTED, [erl_esdb, schema, upcasted]).
-define(MEMORY_PRESSURE_CHANGED, [erl_esdb, memory, pressure_changed]).
-define(CONSISTENCY_CHECK_COMPLETE, [erl_esdb, consistency, check, complete]).
-define(CONSISTENCY_STATUS_CHANGED, [erl_esdb, consistency, status, changed]).
-define(SPLIT_BRAIN_DETECTED, [erl_esdb, consistency, split_brain, detected]).
-define(QUORUM_LOST, [erl_esdb, consistency, quorum, lost]).
-define(QUORUM_RESTORED, [erl_esdb, consistency, quorum, restored]).
-define(HEALTH_PROBE_COMPLETE, [erl_esdb, health, probe, complete]).
-define(HEALTH_NODE_FAILED, [erl_esdb, health, node, failed]).
-define(HEALTH_NODE_RECOVERED, [erl_esdb, health, node, recovered]).
-define(LINK_CREATED, [erl_esdb, link, created]).
-define(LINK_DELETED, [erl_esdb, link, deleted]).
-define(LINK_STARTED, [erl_esdb, link, started]).
-define(LINK_STOPPED, [erl_esdb, link, stopped]).

-endif.
