-module(erl_esdb_metrics_app).
-moduledoc "Starts and stops the application `erl_esdb_metrics`.".

-behaviour(application).

-export([start/2, stop/1]).

-doc false.
-spec start(application:start_type(), []) -> {ok, pid()} | {error, term()}.
start(_Type, []) ->
    maybe
        ok ?= erl_esdb_metrics_config:check(),
        {ok, Pid} ?= erl_esdb_metrics_sup:start_link(),
        {ok, Pid}
    end.

-doc false.
-spec stop(term()) -> ok.
stop(_State) -> ok.
