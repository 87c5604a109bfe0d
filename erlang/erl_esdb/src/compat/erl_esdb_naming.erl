-module(erl_esdb_naming).
-moduledoc """
The names under which the processes of a store are registered, and the keys of its process groups.

```erlang
1> erl_esdb_naming:system_sup_name(orders).
erl_esdb_system_orders
2> erl_esdb_naming:emitter_group_key(orders, ~"sub-1").
{orders,<<"sub-1">>,emitters}
```

Each function makes an atom of the name of a store, which is an atom itself: there are as many as
stores. Only `emitter_pool_name/2` makes one of what may come from users; see there.
""".

%% Supervisors
-export([system_sup_name/1, core_sup_name/1, persistence_sup_name/1, notification_sup_name/1]).
-export([cluster_sup_name/1, gateway_sup_name/1, streams_sup_name/1, emitter_sup_name/1]).
-export([leader_sup_name/1, links_sup_name/1, link_pool_name/1]).
%% Workers
-export([store_name/1, store_worker_name/1, store_mgr_name/1, subscriptions_store_name/1]).
-export([snapshots_store_name/1, persistence_worker_name/1, leader_name/1, leader_tracker_name/1]).
-export([discovery_name/1, coordinator_name/1, node_monitor_name/1, gateway_worker_name/1]).
-export([writer_pool_name/1, reader_pool_name/1, emitter_pool_name/2, link_mgr_name/1]).
-export([leader_watch_name/1, health_prober_name/1, consistency_checker_name/1]).
-export([member_watch_name/1]).
%% Tables
-export([volatile_name/1]).
%% Groups
-export([pg_group_name/2, tracker_group_key/2, emitter_group_key/2]).

%% The longest atom.
-define(MAX_ATOM, 255).

-doc "The supervisor of a store.".
-spec system_sup_name(Store :: atom()) -> atom().
system_sup_name(Store) -> name("erl_esdb_system_", Store).

-doc "The supervisor of what a store cannot do without.".
-spec core_sup_name(Store :: atom()) -> atom().
core_sup_name(Store) -> name("erl_esdb_core_", Store).

-doc "The supervisor of the engine.".
-spec persistence_sup_name(Store :: atom()) -> atom().
persistence_sup_name(Store) -> name("erl_esdb_persistence_", Store).

-doc "The supervisor of what follows the log.".
-spec notification_sup_name(Store :: atom()) -> atom().
notification_sup_name(Store) -> name("erl_esdb_notification_", Store).

-doc "The supervisor of what finds and watches other nodes.".
-spec cluster_sup_name(Store :: atom()) -> atom().
cluster_sup_name(Store) -> name("erl_esdb_cluster_", Store).

-doc "The supervisor of the gateway's workers.".
-spec gateway_sup_name(Store :: atom()) -> atom().
gateway_sup_name(Store) -> name("erl_esdb_gateway_", Store).

-doc "The supervisor of the writers and readers.".
-spec streams_sup_name(Store :: atom()) -> atom().
streams_sup_name(Store) -> name("erl_esdb_streams_", Store).

-doc "The supervisor of the emitters.".
-spec emitter_sup_name(Store :: atom()) -> atom().
emitter_sup_name(Store) -> name("erl_esdb_emitter_", Store).

-doc "The supervisor of the leader's processes.".
-spec leader_sup_name(Store :: atom()) -> atom().
leader_sup_name(Store) -> name("erl_esdb_leader_", Store).

-doc "The supervisor of the links' processes.".
-spec links_sup_name(Store :: atom()) -> atom().
links_sup_name(Store) -> name("erl_esdb_links_", Store).

-doc "The supervisor of the links that run.".
-spec link_pool_name(Store :: atom()) -> atom().
link_pool_name(Store) -> name("erl_esdb_link_pool_", Store).

-doc "The store itself: its name, unchanged.".
-spec store_name(Store :: atom()) -> atom().
store_name(Store) when is_atom(Store) -> Store.

-doc "The Ra cluster of a store on disk; the names of its servers begin so.".
-spec store_worker_name(Store :: atom()) -> atom().
store_worker_name(Store) -> name("erl_esdb_store_", Store).

-doc "The process that knows how the store was configured.".
-spec store_mgr_name(Store :: atom()) -> atom().
store_mgr_name(Store) -> name("erl_esdb_store_mgr_", Store).

-doc "The store of subscriptions.".
-spec subscriptions_store_name(Store :: atom()) -> atom().
subscriptions_store_name(Store) -> name("erl_esdb_subscriptions_", Store).

-doc "The store of snapshots.".
-spec snapshots_store_name(Store :: atom()) -> atom().
snapshots_store_name(Store) -> name("erl_esdb_snapshots_", Store).

-doc "The persistence worker.".
-spec persistence_worker_name(Store :: atom()) -> atom().
persistence_worker_name(Store) -> name("erl_esdb_persistence_worker_", Store).

-doc "The leader's process.".
-spec leader_name(Store :: atom()) -> atom().
leader_name(Store) -> name("erl_esdb_leader_worker_", Store).

-doc "The process that follows the subscriptions for the leader.".
-spec leader_tracker_name(Store :: atom()) -> atom().
leader_tracker_name(Store) -> name("erl_esdb_leader_tracker_", Store).

-doc "The process that knows who leads.".
-spec leader_watch_name(Store :: atom()) -> atom().
leader_watch_name(Store) -> name("erl_esdb_leader_watch_", Store).

-doc "Who has the other members of a store in mode `single` watched.".
-spec member_watch_name(Store :: atom()) -> atom().
member_watch_name(Store) -> name("erl_esdb_member_watch_", Store).

-doc "The process that asks the other members whether they live.".
-spec health_prober_name(Store :: atom()) -> atom().
health_prober_name(Store) -> name("erl_esdb_health_prober_", Store).

-doc "The process that compares what the members know.".
-spec consistency_checker_name(Store :: atom()) -> atom().
consistency_checker_name(Store) -> name("erl_esdb_consistency_checker_", Store).

-doc "The process that finds other nodes.".
-spec discovery_name(Store :: atom()) -> atom().
discovery_name(Store) -> name("erl_esdb_discovery_", Store).

-doc "The process that joins a cluster.".
-spec coordinator_name(Store :: atom()) -> atom().
coordinator_name(Store) -> name("erl_esdb_coordinator_", Store).

-doc "The process that watches nodes.".
-spec node_monitor_name(Store :: atom()) -> atom().
node_monitor_name(Store) -> name("erl_esdb_node_monitor_", Store).

-doc "The first part of the ids of the gateway's workers.".
-spec gateway_worker_name(Store :: atom()) -> atom().
gateway_worker_name(Store) -> name("erl_esdb_gateway_worker_", Store).

-doc "The writers.".
-spec writer_pool_name(Store :: atom()) -> atom().
writer_pool_name(Store) -> name("erl_esdb_writer_pool_", Store).

-doc "The readers.".
-spec reader_pool_name(Store :: atom()) -> atom().
reader_pool_name(Store) -> name("erl_esdb_reader_pool_", Store).

-doc "The process that keeps the definitions of links.".
-spec link_mgr_name(Store :: atom()) -> atom().
link_mgr_name(Store) -> name("erl_esdb_link_mgr_", Store).

-doc """
The emitters of a subscription.

The atom is made of the key of the subscription, so who calls this with keys that others choose
decides how many atoms there are; atoms are never freed. Raises `badarg` where it would be longer
than 255 characters.
""".
-spec emitter_pool_name(Store :: atom(), Subscription :: binary()) -> atom().
emitter_pool_name(Store, Subscription) when is_atom(Store), is_binary(Subscription) ->
    made(["erl_esdb_emitter_pool_", atom_to_list(Store), "_", Subscription]);
emitter_pool_name(_, _) ->
    error(badarg).

-doc "The table of what a store knows only as long as it runs.".
-spec volatile_name(Store :: atom()) -> atom().
volatile_name(Store) ->
    %% Asked for with each commit: of a store that runs there is the atom.
    try
        binary_to_existing_atom(<<"erl_esdb_volatile_", (atom_to_binary(Store))/binary>>)
    catch
        error:_ -> name("erl_esdb_volatile_", Store)
    end.

-doc "The process group of a feature of a store.".
-spec pg_group_name(Store :: atom(), Feature) -> {atom(), Feature}.
pg_group_name(Store, Feature) when is_atom(Store) -> {Store, Feature}.

-doc "The process group of those who are told of changes: a number.".
-spec tracker_group_key(Store :: atom(), Feature :: term()) -> non_neg_integer().
tracker_group_key(Store, Feature) when is_atom(Store) ->
    erlang:phash2({Store, Feature, trackers}).

-doc "The process group of the emitters of a subscription.".
-spec emitter_group_key(Store :: atom(), Subscription) -> {atom(), Subscription, emitters}.
emitter_group_key(Store, Subscription) when is_atom(Store) -> {Store, Subscription, emitters}.

-spec name(string(), atom()) -> atom().
name(Prefix, Store) when is_atom(Store) -> made([Prefix, atom_to_list(Store)]);
name(_Prefix, _Store) -> error(badarg).

-spec made(unicode:chardata()) -> atom().
made(Parts) ->
    case unicode:characters_to_list(Parts) of
        Text when is_list(Text), length(Text) =< ?MAX_ATOM -> list_to_atom(Text);
        _ -> error(badarg)
    end.
