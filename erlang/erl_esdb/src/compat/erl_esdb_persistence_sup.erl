-module(erl_esdb_persistence_sup).
-moduledoc """
The supervisor of the engine and of the processes that callers of the original know; see
`m:erl_esdb_system_sup`.
""".

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc "Starts the supervisor, registered as `erl_esdb_naming:persistence_sup_name/1` says.".
-spec start_link(erl_esdb_config:plan()) -> supervisor:startlink_ret().
start_link({#store_config{store_id = Store}, _, _} = Plan) ->
    Name = erl_esdb_naming:persistence_sup_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        supervisor:start_link({local, Name}, ?MODULE, Plan)
    end).

-doc false.
%% An engine that ended is not started again from here: this supervisor ends too, and so all that
%% followed the log of the old engine is started again with the new one.
-spec init(erl_esdb_config:plan()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({#store_config{store_id = Store} = Config, Engine, Settings}) ->
    Flags = #{
        strategy => one_for_one, intensity => 5, period => 30, auto_shutdown => any_significant
    },
    {ok,
        {Flags, [
            #{
                id => engine,
                start => {Engine, start_link, [Store, Settings]},
                restart => temporary,
                significant => true,
                shutdown => 60_000
            },
            #{
                id => streams_sup,
                start => {erl_esdb_streams_sup, start_link, [Config]},
                shutdown => infinity,
                type => supervisor
            },
            #{
                id => persistence_worker,
                start => {erl_esdb_persistence_worker, start_link, [Config]}
            }
        ]}}.
