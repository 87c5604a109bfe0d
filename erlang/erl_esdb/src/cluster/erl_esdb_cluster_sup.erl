-module(erl_esdb_cluster_sup).
-moduledoc """
The supervisor of what finds, joins and watches other nodes, of a store in mode `cluster`; see
`m:erl_esdb_system_sup`.
""".

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc "Starts the supervisor, registered as `erl_esdb_naming:cluster_sup_name/1` says.".
-spec start_link(store_config()) -> supervisor:startlink_ret().
start_link(#store_config{store_id = Store} = Config) ->
    Name = erl_esdb_naming:cluster_sup_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        supervisor:start_link({local, Name}, ?MODULE, Config)
    end).

-doc false.
%% The one that joins before those that tell it of nodes.
-spec init(store_config()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Config) ->
    Child = fun(Id, Module) -> #{id => Id, start => {Module, start_link, [Config]}} end,
    {ok,
        {#{strategy => one_for_one, intensity => 5, period => 30}, [
            Child(coordinator, erl_esdb_store_coordinator),
            Child(discovery, erl_esdb_discovery),
            Child(node_monitor, erl_esdb_node_monitor),
            Child(health_prober, erl_esdb_health_prober),
            Child(consistency_checker, erl_esdb_consistency_checker)
        ]}}.
