-module(erl_esdb_leader_sup).
-moduledoc "The supervisor of what the node that leads does for callers of the original.".

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc "Starts the supervisor, registered as `erl_esdb_naming:leader_sup_name/1` says.".
-spec start_link(store_config()) -> supervisor:startlink_ret().
start_link(#store_config{store_id = Store} = Config) ->
    Name = erl_esdb_naming:leader_sup_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        supervisor:start_link({local, Name}, ?MODULE, Config)
    end).

-doc false.
-spec init(store_config()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Config) ->
    Child = fun(Id, Module) -> #{id => Id, start => {Module, start_link, [Config]}} end,
    {ok,
        {#{strategy => one_for_one, intensity => 5, period => 30}, [
            Child(leader_tracker, erl_esdb_leader_tracker),
            Child(leader, erl_esdb_leader)
        ]}}.
