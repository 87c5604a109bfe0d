-module(erl_esdb).
-moduledoc """
Starting and stopping event stores.

```erlang
1> {ok, _} = erl_esdb:start_store(orders).
2> erl_esdb_streams:append(orders, <<"order-1">>, -1,
       [#{event_type => <<"OrderPlaced">>, data => #{total => 42}}]).
{ok,0}
3> {ok, [Event]} = erl_esdb_streams:read(orders, <<"order-1">>, 0, 10, forward).
```

Without options a store lives in memory, until it is stopped or the node ends. The application
`erl_esdb` is started when it does not run.
""".

-export([start_store/1, start_store/2, stop_store/1, adopt/2, drop/1]).
-export([which_stores/0, list_stores/0]).
-export([status/1, status/2, readiness/1, readiness/2]).
-export([join_cluster/1, join_cluster/2, join/2, leave/1, members/1, leader/1]).
-export([transfer_leadership/2, force_remove/2]).

-include("erl_esdb.hrl").

-doc """
Starts a store: one that the environment names with its options there, another with the defaults;
or one that a record describes. Errors as `start_store/2`.
""".
-spec start_store(atom() | store_config()) -> {ok, pid()} | {error, term()}.
start_store(#store_config{} = Config) ->
    maybe
        ok ?= running(),
        erl_esdb_sup:start_store(Config)
    end;
start_store(Store) ->
    case erl_esdb_config:get_store_config(Store) of
        {ok, _} -> start_named(Store);
        {error, not_found} -> start_store(Store, #{});
        {error, Reason} -> {error, Reason}
    end.

-spec start_named(atom()) -> {ok, pid()} | {error, term()}.
start_named(Store) ->
    maybe
        ok ?= running(),
        erl_esdb_sup:start_store(Store)
    end.

-doc """
Starts a store with options; see `m:erl_esdb_config`.

A store in memory is no more than its process: when that crashes, the store starts again by itself
and is empty. `[erl_esdb, store, started]` tells of it. One that crashes more than five times in
half a minute gives up (`[erl_esdb, store, gave_up]`): this function starts it again.

Errors: `{already_started, Pid}`, `{engine_not_available, Engine}`, `{unknown_engine, Engine}`,
`{invalid_option, Key, Value}`, `{invalid_store, Term}` for what cannot be a store's name,
`{not_started, erl_esdb}` while the application ends, or why it does not start.
""".
-spec start_store(atom(), map()) -> {ok, pid()} | {error, term()}.
start_store(Store, Options) when is_atom(Store), is_map(Options) ->
    maybe
        ok ?= running(),
        erl_esdb_sup:start_store(Store, Options)
    end;
start_store(_, _) ->
    error(badarg).

%% Started only where it does not run: who asks OTP while it ends the application waits for that
%% end.
-spec running() -> ok | {error, term()}.
running() ->
    case erl_esdb_sup:state() of
        down -> started(application:ensure_all_started(?MODULE));
        _ -> ok
    end.

-spec started({ok, [atom()]} | {error, term()}) -> ok | {error, term()}.
started({ok, _}) -> ok;
started({error, Reason}) -> {error, Reason}.

-doc "Stops a store. What a store in memory held is gone.".
-spec stop_store(atom()) -> ok | {error, not_found}.
stop_store(Store) -> erl_esdb_sup:stop_store(Store).

-doc """
Moves a store on disk to this node, from a node of another name that was its only member: as one
that began on an unnamed node, embedded, and is to grow into a cluster. The store does not run, here
or there. All that it holds, and all positions, stay as they are; then it is started as ever.

Option: `data_dir`, its folder. It may be called again where it was interrupted. Errors:
`not_found`, no such store in the folder; `{not_single, Nodes}`, where it has other members: there
this node joins them; `{data_dir, Folder, Reason}`, `{already_started, Pid}`,
`{engine_not_available, ra}`.
""".
-spec adopt(Store :: atom(), #{data_dir := file:filename_all(), _ => _}) -> ok | {error, term()}.
adopt(Store, #{data_dir := _} = Options) when is_atom(Store) ->
    maybe
        ok ?= running(),
        {ok, {#store_config{data_dir = Dir}, Engine, _}} ?=
            erl_esdb_config:plan(Store, Options#{engine => ra}),
        ok ?= is_stopped(Store),
        Engine:adopt(Store, Dir)
    end;
adopt(_, _) ->
    error(badarg).

-spec is_stopped(atom()) -> ok | {error, {already_started, pid() | undefined}}.
is_stopped(Store) ->
    case erl_esdb_engine:find(Store) of
        {error, not_started} -> ok;
        _ -> {error, {already_started, whereis(erl_esdb_naming:system_sup_name(Store))}}
    end.

-doc """
Stops a store and removes all that it has left, for good. What a store in memory held is gone when
it is stopped. Errors: `not_found` where it does not run, or why its files cannot be removed.
""".
-spec drop(atom()) -> ok | {error, not_found | term()}.
drop(Store) ->
    maybe
        {ok, Remove} ?= erl_esdb_engine:remover(Store),
        ok ?= stop_store(Store),
        Remove()
    end.

-doc "The stores that run on this node, sorted.".
-spec which_stores() -> [atom()].
which_stores() -> erl_esdb_sup:which_stores().

-doc "The same as `which_stores/0`.".
-spec list_stores() -> [atom()].
list_stores() -> which_stores().

-doc "The same as `status/2` without options.".
-spec status(Store :: atom()) ->
    {ok, erl_esdb_status:status()} | {error, {store_not_started, atom()}}.
status(Store) -> status(Store, #{}).

-doc """
What an operator asks of a store, as this node knows it. What is not known, or is not answered in
time, is not in the map.

```erlang
1> erl_esdb:status(shop).
{ok,#{store => shop, engine => memory, node => nonode@nohost, mode => single,
      readiness => ready, role => leader, leader => nonode@nohost, members => [nonode@nohost],
      next_position => 1000, ram_bytes => 412_304, waiting => 0, uptime_ms => 86_400_000,
      index => #{next => 1000, lag => 0, entries => 3000, bytes => 48_000, runs => 1},
      subscriptions => [#{key => ~"84568820", name => ~"mail", type => event_pattern,
                          status => running, floor => 998, lag => 2}],
      projections => []}}
```

| key | |
|---|---|
| `readiness` | as `readiness/2` |
| `role`, `leader`, `members` | of this node, and of the cluster of the store |
| `next_position` | the position that the next event gets |
| `lag` | commands that are decided, for all this node knows, and not yet done on it |
| `members_lag` | where this node leads: how many decided commands each other member does not have |
| `term`, `last_index`, `commit_index`, `applied_index` | of the log of commands |
| `snapshot_index`, `snapshot_age_ms` | of the newest snapshot, with which that log is kept short |
| `compaction` | of the files of that log: see `t:erl_esdb_ra_view:compaction/0` |
| `disk_bytes`, `wal_bytes`, `segments`, `ram_bytes` | what the engine takes |
| `waiting` | commands that wait for the engine; at `max_queue` it is overloaded |
| `index` | of the indexes of this node; its `bytes` are in RAM, too |
| `subscriptions`, `projections` | see `t:erl_esdb_status:subscription_status/0` |

Option: `timeout`, milliseconds, by default 1000.
""".
-spec status(Store :: atom(), erl_esdb_status:options()) ->
    {ok, erl_esdb_status:status()} | {error, {store_not_started, atom()}}.
status(Store, Options) -> erl_esdb_status:status(Store, Options).

-doc "The same as `readiness/2` without options.".
-spec readiness(Store :: atom()) -> erl_esdb_status:readiness().
readiness(Store) -> readiness(Store, #{}).

-doc """
Whether this node can append to a store and read what was appended last, for load balancers:
`ready`, or `{not_ready, Reason}` with `store_not_started`, `timeout`, `no_quorum` or `overloaded`.

Option: `timeout`, milliseconds, by default 1000.
""".
-spec readiness(Store :: atom(), erl_esdb_status:options()) -> erl_esdb_status:readiness().
readiness(Store, Options) -> erl_esdb_status:readiness(Store, Options).

-doc """
Has a store join the same store on a node that is found by itself: as
`erl_esdb_store_coordinator:join_cluster/1`. Errors: as `join/2`.
""".
-spec join_cluster(Store :: atom()) ->
    erl_esdb_store_coordinator:outcome()
    | {error, {not_clustered | store_not_started, atom()} | term()}.
join_cluster(Store) ->
    case erl_esdb_store:is_ready(Store) of
        true -> join_found(erl_esdb_cluster:is_clustered(Store), Store);
        false -> {error, {store_not_started, Store}}
    end.

-spec join_found(boolean(), atom()) ->
    erl_esdb_store_coordinator:outcome() | {error, term()}.
join_found(true, Store) -> erl_esdb_store_coordinator:join_cluster(Store);
join_found(false, Store) -> {error, {not_clustered, Store}}.

-doc "The same as `join/2`.".
-spec join_cluster(Store :: atom(), node()) -> ok | {error, term()}.
join_cluster(Store, Node) -> join(Store, Node).

-doc """
Has a store of this node join the same store on another node, with what is there. It has to be empty
here.

Errors: `{not_clustered, Store}` (a store in memory lives on one node), `{store_not_started, Store}`
and the other failures of a store, or why its engine refuses.
""".
-spec join(Store :: atom(), node()) -> ok | {error, term()}.
join(Store, Node) -> erl_esdb_cluster:join(Store, Node).

-doc "Has this node be no member of a store's cluster any more. Errors: as `join/2`.".
-spec leave(Store :: atom()) -> ok | {error, term()}.
leave(Store) -> erl_esdb_cluster:leave(Store).

-doc "The nodes that a store lives on, sorted. Errors: the failures of a store.".
-spec members(Store :: atom()) -> {ok, [node()]} | {error, erl_esdb_store:failure()}.
members(Store) -> erl_esdb_cluster:members(Store).

-doc """
The node that orders what is written to a store, as this node knows it. Errors: `no_leader` and the
failures of a store.
""".
-spec leader(Store :: atom()) -> {ok, node()} | {error, no_leader | erl_esdb_store:failure()}.
leader(Store) -> erl_esdb_cluster:leader(Store).

-doc """
Has another member of a store's cluster lead. Errors: as `join/2`; `{not_member, Node}`,
`{unreachable, Node}` where it is not connected.
""".
-spec transfer_leadership(Store :: atom(), node()) -> ok | {error, term()}.
transfer_leadership(Store, Node) -> erl_esdb_cluster:transfer_leadership(Store, Node).

-doc """
Removes a member of a store's cluster that is dead and does not come back. Errors: as `join/2`.
""".
-spec force_remove(Store :: atom(), node()) -> ok | {error, term()}.
force_remove(Store, Node) -> erl_esdb_cluster:force_remove(Store, Node).
