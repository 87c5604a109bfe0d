-module(erl_esdb_system_sup).
-moduledoc "The processes of one store: its engine, and one that tells of its start and end.".

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc false.
-spec start_link(erl_esdb_config:plan()) -> {ok, pid()} | {error, term()}.
start_link(Plan) -> supervisor:start_link(?MODULE, Plan).

-doc false.
-spec init(erl_esdb_config:plan()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({#store_config{store_id = Store} = Config, Engine, Settings}) ->
    Flags = #{strategy => rest_for_one, intensity => 5, period => 30},
    Children = [
        #{id => engine, start => {Engine, start_link, [Store, Settings]}, shutdown => 60_000},
        #{id => lifecycle, start => {erl_esdb_lifecycle, start_link, [Config]}}
    ],
    {ok, {Flags, Children}}.
