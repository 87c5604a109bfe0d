-module(erl_esdb_system_sup).
-moduledoc """
The processes of one store: its engine, and those that deliver what it keeps.

An engine that ends is started again, up to five times in half a minute. Then the store gives up:
it ends with its supervisor, and the other stores go on. `m:erl_esdb_lifecycle` tells of it.
""".

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc false.
-spec start_link(erl_esdb_config:plan()) -> supervisor:startlink_ret().
start_link(Plan) -> supervisor:start_link(?MODULE, Plan).

-doc false.
-spec init(erl_esdb_config:plan()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({Config, Engine, Settings}) ->
    #store_config{store_id = Store, mode = Mode, data_dir = Dir} = Config,
    Life = #{supervisor => self(), mode => Mode, data_dir => Dir},
    Start = {Engine, start_link, [Store, Settings#{life => Life}]},
    Flags = #{strategy => rest_for_one, intensity => 5, period => 30},
    {ok, {Flags, [#{id => engine, start => Start, shutdown => 60_000} | delivery(Config)]}}.

-spec delivery(store_config()) -> [supervisor:child_spec()].
delivery(Config) ->
    [
        #{id => Module, start => {Module, start_link, [Config]}, type => supervisor}
     || Module <- [erl_esdb_emitter_sup, erl_esdb_delivery_sup]
    ].
