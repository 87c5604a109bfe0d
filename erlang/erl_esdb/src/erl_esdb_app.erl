-module(erl_esdb_app).
-moduledoc """
The application: its supervisor, the stores that the environment names, its telemetry.

```erlang
1> {ok, _Started} = erl_esdb_app:start().
```
""".

-behaviour(application).

-export([start/0, stop/0]).
-export([start/2, prep_stop/1, stop/1]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb_telemetry.hrl").

-define(APP, erl_esdb).

-doc "Starts the application and what it depends on. The success names what was started.".
-spec start() -> {ok, [atom()]} | {error, term()}.
start() -> application:ensure_all_started(?APP).

-doc "Stops the application.".
-spec stop() -> ok | {error, term()}.
stop() -> application:stop(?APP).

-doc false.
-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_Type, _Args) ->
    erl_esdb_sup:open(),
    maybe
        ok ?= erl_esdb_config:check_environment(),
        %% From here on erl_esdb_telemetry sees the library where there is one.
        _ = code:ensure_loaded(telemetry),
        ok = erl_esdb_telemetry:set_aliases(erl_esdb_config:get_env(telemetry_aliases, false)),
        ok = lists:foreach(
            fun attach/1, erl_esdb_config:get_env(telemetry_handlers, [logger])
        ),
        detach_unless(supervised())
    end.

%% Handlers are attached first, so that they see the stores start; they leave when that fails.
-spec detach_unless({ok, pid()} | {error, term()}) -> {ok, pid()} | {error, term()}.
detach_unless({ok, Pid}) ->
    {ok, Pid};
detach_unless({error, Reason}) ->
    _ = erl_esdb_telemetry:detach_logger(),
    ok = erl_esdb_telemetry:set_aliases(false),
    {error, Reason}.

-spec supervised() -> {ok, pid()} | {error, term()}.
supervised() ->
    maybe
        {ok, Pid} ?= erl_esdb_sup:start_link(),
        ok ?= start_stores([Store || {Store, _} <- erl_esdb_config:get_env(stores, [])], Pid),
        emit_started(),
        {ok, Pid}
    end.

-doc false.
%% From here on no store is started or stopped by a call, also not by a handler that is told of the
%% end of one.
-spec prep_stop(State) -> State.
prep_stop(State) ->
    ok = erl_esdb_sup:close(),
    State.

-doc false.
-spec stop(term()) -> ok.
stop(_State) ->
    erl_esdb_telemetry:emit(?STORE_STOPPED, now_ms(), #{reason => normal}),
    _ = erl_esdb_telemetry:detach_logger(),
    ok = erl_esdb_telemetry:set_aliases(false),
    erl_esdb_sup:open().

-spec emit_started() -> ok.
emit_started() ->
    {ok, Version} = application:get_key(?APP, vsn),
    erl_esdb_telemetry:emit(?STORE_STARTED, now_ms(), #{application => ?APP, version => Version}).

-spec now_ms() -> #{system_time := integer()}.
now_ms() -> #{system_time => erlang:system_time(millisecond)}.

-spec attach(term()) -> ok.
attach(logger) ->
    _ = erl_esdb_telemetry:attach_logger(),
    ok;
attach(Other) ->
    ?LOG_WARNING("erl_esdb: there is no telemetry handler ~tp", [Other]).

%% All or none: an application with half its stores is no use.
-spec start_stores([atom()], pid()) -> ok | {error, term()}.
start_stores([Store | Stores], Sup) ->
    case erl_esdb_sup:start_store(Store) of
        {ok, _} ->
            start_stores(Stores, Sup);
        {error, Reason} ->
            ok = erl_esdb_sup:close(),
            gen_server:stop(Sup, shutdown, infinity),
            ok = erl_esdb_sup:open(),
            {error, {store, Store, Reason}}
    end;
start_stores([], _Sup) ->
    ok.
