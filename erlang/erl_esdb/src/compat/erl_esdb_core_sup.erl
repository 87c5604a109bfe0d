-module(erl_esdb_core_sup).
-moduledoc "The supervisor of the engine and of what follows its log; see `m:erl_esdb_system_sup`.".

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc "Starts the supervisor, registered as `erl_esdb_naming:core_sup_name/1` says.".
-spec start_link(erl_esdb_config:plan()) -> supervisor:startlink_ret().
start_link({#store_config{store_id = Store}, _, _} = Plan) ->
    Name = erl_esdb_naming:core_sup_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        supervisor:start_link({local, Name}, ?MODULE, Plan)
    end).

-doc false.
%% In this order: who follows the log needs an engine, and an engine in memory must not end because
%% one of those did.
-spec init(erl_esdb_config:plan()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({Config, _, _} = Plan) ->
    Supervisor = #{type => supervisor, shutdown => infinity},
    {ok,
        {#{strategy => rest_for_one, intensity => 5, period => 30}, [
            Supervisor#{
                id => persistence_sup, start => {erl_esdb_persistence_sup, start_link, [Plan]}
            },
            Supervisor#{
                id => notification_sup, start => {erl_esdb_notification_sup, start_link, [Config]}
            },
            #{id => store_mgr, start => {erl_esdb_store_mgr, start_link, [Config]}}
        ]}}.
