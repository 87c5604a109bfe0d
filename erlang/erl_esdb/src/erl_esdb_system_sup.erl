-module(erl_esdb_system_sup).
-moduledoc """
The processes of one store, each registered under its name of `m:erl_esdb_naming`:

```
erl_esdb_system_sup
    erl_esdb_core_sup                  what is below it goes with what stands before it
        erl_esdb_persistence_sup       ends with its engine
            the engine
            erl_esdb_streams_sup
            erl_esdb_persistence_worker
        erl_esdb_notification_sup
            erl_esdb_leader_watch
            erl_esdb_index
            erl_esdb_leader_sup
            erl_esdb_emitter_sup
            erl_esdb_delivery_sup
            erl_esdb_links_sup
            erl_esdb_snapshotter
        erl_esdb_store_mgr
    erl_esdb_member_watch              in mode single, on an engine that can have members
    erl_esdb_cluster_sup               in mode cluster, or where there are other members
        erl_esdb_store_coordinator     in mode cluster
        erl_esdb_discovery             in mode cluster
        erl_esdb_node_monitor
        erl_esdb_health_prober
        erl_esdb_consistency_checker
```

An engine that ends takes with it what follows its log, for an engine in memory comes back with
another: all of that is started again, up to five times in half a minute. Then the store gives up:
it ends with its supervisor, and the other stores go on; `m:erl_esdb_lifecycle` tells of it. What
follows the log may end and come back without the engine.
""".

-behaviour(supervisor).

-export([start_link/1, start_named/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc false.
-spec start_link(erl_esdb_config:plan()) -> supervisor:startlink_ret().
start_link({#store_config{store_id = Store}, _, _} = Plan) ->
    Name = erl_esdb_naming:system_sup_name(Store),
    start_named(fun() -> supervisor:start_link({local, Name}, ?MODULE, Plan) end).

-doc false.
%% What is below a supervisor that was killed is still about to end when the next supervisor starts
%% another: its name is waited for. One whose parent lives is no such orphan.
-spec start_named(fun(() -> Started)) -> Started when Started :: {ok, pid()} | ignore | {error, _}.
start_named(Start) ->
    maybe
        {error, {already_started, Pid}} ?= Start(),
        true ?= is_orphan(process_info(Pid, parent)),
        Ref = monitor(process, Pid),
        receive
            {'DOWN', Ref, process, Pid, _} -> start_named(Start)
        end
    else
        false -> Start();
        Started -> Started
    end.

-spec is_orphan({parent, pid() | undefined} | undefined) -> boolean().
is_orphan({parent, Parent}) when is_pid(Parent) -> not is_process_alive(Parent);
is_orphan(_) -> true.

-doc false.
-spec init(erl_esdb_config:plan()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({#store_config{store_id = Store} = Config, Engine, Settings}) ->
    #store_config{mode = Mode, data_dir = Dir} = Config,
    ok = erl_esdb_volatile:create(Store),
    Life = #{supervisor => self(), mode => Mode, data_dir => Dir},
    Plan = {Config, Engine, Settings#{life => Life}},
    %% One that was killed is started again; one that gave up ends the store.
    Core = #{
        id => core_sup,
        start => {erl_esdb_core_sup, start_link, [Plan]},
        restart => transient,
        significant => true,
        shutdown => infinity,
        type => supervisor
    },
    Flags = #{
        strategy => rest_for_one, intensity => 5, period => 30, auto_shutdown => any_significant
    },
    {ok, {Flags, [Core | cluster(Config, Engine)]}}.

-spec cluster(store_config(), module()) -> [supervisor:child_spec()].
cluster(#store_config{mode = cluster} = Config, _Engine) ->
    [erl_esdb_cluster_sup:child_spec(Config)];
cluster(#store_config{} = Config, Engine) ->
    Watch = #{id => member_watch, start => {erl_esdb_member_watch, start_link, [Config]}},
    [Watch || erl_esdb_cluster:can_join(Engine)].
