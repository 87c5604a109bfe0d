-module(erl_esdb_cluster_sup).
-moduledoc """
The supervisor of what finds, joins and watches other nodes, of a store in mode `cluster`. Of one in
mode `single` that has other members all the same, of what watches them: see
`m:erl_esdb_member_watch` and `m:erl_esdb_system_sup`.
""".

-behaviour(supervisor).

-export([start_link/1, child_spec/1]).
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
-spec child_spec(store_config()) -> supervisor:child_spec().
child_spec(Config) ->
    #{
        id => cluster_sup,
        start => {?MODULE, start_link, [Config]},
        shutdown => infinity,
        type => supervisor
    }.

-doc false.
-spec init(store_config()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Config) ->
    Flags = #{strategy => one_for_one, intensity => 5, period => 30},
    {ok, {Flags, [child(Id, Start) || {Id, Start} <- children(Config)]}}.

%% The one that joins before those that tell it of nodes. In mode single nobody joins by itself.
-spec children(store_config()) -> [{atom(), {module(), atom(), [term()]}}].
children(#store_config{mode = cluster} = Config) ->
    [
        {coordinator, {erl_esdb_store_coordinator, start_link, [Config]}},
        {discovery, {erl_esdb_discovery, start_link, [Config]}},
        {node_monitor, {erl_esdb_node_monitor, start_link, [Config]}}
        | watching(Config)
    ];
children(Config) ->
    [
        {node_monitor, {erl_esdb_node_monitor, start_joined, [Config]}}
        | watching(Config#store_config{mode = cluster})
    ].

-spec watching(store_config()) -> [{atom(), {module(), atom(), [term()]}}].
watching(Config) ->
    [
        {health_prober, {erl_esdb_health_prober, start_link, [Config]}},
        {consistency_checker, {erl_esdb_consistency_checker, start_link, [Config]}}
    ].

-spec child(atom(), {module(), atom(), [term()]}) -> supervisor:child_spec().
child(Id, Start) -> #{id => Id, start => Start}.
