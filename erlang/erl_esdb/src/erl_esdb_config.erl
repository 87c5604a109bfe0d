-module(erl_esdb_config).
-moduledoc """
Configuration: the application's environment and the options of a store.

```erlang
[{erl_esdb, [
    {stores, [{orders, []}, {audit, [{timeout, 10_000}, {max_event_size, 1_000_000}]}]},
    {telemetry_handlers, [logger]}
]}].
```

| option of a store | default | |
|---|---|---|
| `engine` | `ra` with a `data_dir` or in mode `cluster`, else `memory` | what keeps the events |
| `data_dir` | `/var/lib/erl_esdb/<store>` | where, for an engine that writes to disk |
| `mode` | `single` | or `cluster` |
| `timeout` | 5000 | milliseconds for a call |
| `max_event_size` | 16 MiB | bytes of an event, encoded |
| `max_batch_size` | 64 MiB | bytes of an append, encoded |
| `max_batch_events` | 100,000 | events of an append |
| `writer_pool_size`, `reader_pool_size`, `gateway_pool_size` | 10, 10, 1 | |

What is not known of a store goes to its `options` with a warning; an unknown key of the
application is refused by name when it starts.
""".

-export([get_store_config/1, get_all_store_configs/0, get_env/2, get_env/3]).
-export([plan/1, plan/2, check_environment/0]).
-export_type([plan/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").

-define(APP, erl_esdb).
-define(MIB, 1_048_576).

%% Keys of the application's environment.
-define(KEYS, [
    stores,
    default_timeout,
    writer_pool_size,
    reader_pool_size,
    gateway_pool_size,
    writer_idle_timeout_ms,
    reader_idle_timeout_ms,
    health_probe_interval,
    health_probe_timeout,
    health_failure_threshold,
    health_probe_type,
    consistency_check_interval,
    persistence_interval,
    telemetry_handlers,
    discovery,
    discovery_port,
    multicast_addr,
    broadcast_interval,
    %% set by OTP
    included_applications
]).
-define(FIELDS, [
    data_dir, mode, timeout, writer_pool_size, reader_pool_size, gateway_pool_size
]).
-define(OPTIONS, [
    engine, max_event_size, max_batch_size, max_batch_events, persistence_interval
]).

-doc "How a store is to be started.".
-type plan() :: {store_config(), Engine :: module(), erl_esdb_engine:settings()}.

-doc "The configuration of a store that the environment names.".
-spec get_store_config(atom()) -> {ok, store_config()} | {error, not_found}.
get_store_config(Store) ->
    case lists:keyfind(Store, 1, get_env(stores, [])) of
        {Store, Options} -> {ok, config(Store, maps:from_list(Options))};
        false -> {error, not_found}
    end.

-doc "The configurations of all stores that the environment names.".
-spec get_all_store_configs() -> [store_config()].
get_all_store_configs() ->
    [config(Store, maps:from_list(Options)) || {Store, Options} <- get_env(stores, [])].

-doc "A key of the environment of erl_esdb.".
-spec get_env(atom(), Default) -> term() | Default.
get_env(Key, Default) -> get_env(?APP, Key, Default).

-doc "A key of the environment of an application.".
-spec get_env(atom(), atom(), Default) -> term() | Default.
get_env(App, Key, Default) -> application:get_env(App, Key, Default).

-doc "How to start a store that the environment names, or that a record describes.".
-spec plan(atom() | store_config()) -> {ok, plan()} | {error, term()}.
plan(#store_config{} = Config) ->
    plan(Config, engine(Config), settings(Config));
plan(Store) when is_atom(Store) ->
    case lists:keyfind(Store, 1, get_env(stores, [])) of
        {Store, Options} -> plan(Store, maps:from_list(Options));
        false -> {error, not_found}
    end.

-doc "How to start a store with these options.".
-spec plan(atom(), map()) -> {ok, plan()} | {error, term()}.
plan(Store, Options) when is_atom(Store), is_map(Options) ->
    Config = config(Store, Options),
    %% The default of data_dir does not make a store durable, giving one does.
    Given = Config#store_config{data_dir = maps:get(data_dir, Options, undefined)},
    plan(Config, engine(Given), settings(Config)).

-spec plan(store_config(), memory | ra | term(), {ok, map()} | {error, term()}) ->
    {ok, plan()} | {error, term()}.
plan(_Config, _Engine, {error, Reason}) ->
    {error, Reason};
plan(Config, Name, {ok, Settings}) ->
    case engine_module(Name) of
        {ok, Module} -> {ok, {Config, Module, Settings}};
        {error, Reason} -> {error, Reason}
    end.

-spec engine(store_config()) -> term().
engine(#store_config{options = #{engine := Engine}}) -> Engine;
engine(#store_config{mode = cluster}) -> ra;
engine(#store_config{data_dir = undefined}) -> memory;
engine(#store_config{}) -> ra.

-spec engine_module(term()) -> {ok, module()} | {error, term()}.
engine_module(memory) -> {ok, erl_esdb_engine_memory};
engine_module(ra) -> available(ra, erl_esdb_engine_ra);
engine_module(Other) -> {error, {unknown_engine, Other}}.

-spec available(atom(), module()) -> {ok, module()} | {error, {engine_not_available, atom()}}.
available(Name, Module) ->
    case code:ensure_loaded(Module) of
        {module, Module} -> {ok, Module};
        {error, _} -> {error, {engine_not_available, Name}}
    end.

-spec settings(store_config()) ->
    {ok, erl_esdb_engine:settings()} | {error, {invalid_option, atom(), term()}}.
settings(#store_config{timeout = Timeout, options = Given}) ->
    Defaults = #{
        max_event_size => 16 * ?MIB, max_batch_size => 64 * ?MIB, max_batch_events => 100_000
    },
    Settings = maps:merge(Defaults, maps:with(maps:keys(Defaults), options(Given))),
    case [{Key, Value} || Key := Value <- Settings, not is_positive(Value)] of
        [] when Timeout =:= infinity -> {ok, Settings#{timeout => Timeout}};
        [] when is_integer(Timeout), Timeout > 0 -> {ok, Settings#{timeout => Timeout}};
        [] -> {error, {invalid_option, timeout, Timeout}};
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}}
    end.

-spec options(map() | undefined) -> map().
options(undefined) -> #{};
options(Options) -> Options.

-spec is_positive(term()) -> boolean().
is_positive(Value) -> is_integer(Value) andalso Value > 0.

-spec config(atom(), map()) -> store_config().
config(Store, Options) ->
    Rest = maps:without(?FIELDS, Options),
    warn_unknown(Store, maps:keys(maps:without(?OPTIONS, Rest))),
    #store_config{
        store_id = Store,
        data_dir = maps:get(data_dir, Options, default_dir(Store)),
        mode = mode(Store, maps:get(mode, Options, single)),
        timeout = maps:get(timeout, Options, get_env(default_timeout, ?DEFAULT_TIMEOUT)),
        writer_pool_size = pool(writer_pool_size, Options, ?DEFAULT_POOL_SIZE),
        reader_pool_size = pool(reader_pool_size, Options, ?DEFAULT_POOL_SIZE),
        gateway_pool_size = pool(gateway_pool_size, Options, ?DEFAULT_GATEWAY_POOL_SIZE),
        options = Rest
    }.

-spec default_dir(atom()) -> file:filename().
default_dir(Store) -> "/var/lib/erl_esdb/" ++ atom_to_list(Store).

-spec pool(atom(), map(), pos_integer()) -> pos_integer().
pool(Key, Options, Default) -> maps:get(Key, Options, get_env(Key, Default)).

-spec mode(atom(), term()) -> single | cluster.
mode(_Store, Mode) when Mode =:= single; Mode =:= cluster -> Mode;
mode(Store, Other) ->
    ?LOG_WARNING("store ~ts: mode ~tp is not known, single is used", [Store, Other]),
    single.

-spec warn_unknown(atom(), [term()]) -> ok.
warn_unknown(_Store, []) -> ok;
warn_unknown(Store, Keys) -> ?LOG_WARNING("store ~ts: unknown options ~tp", [Store, Keys]).

-doc "Whether the environment has known keys only.".
-spec check_environment() -> ok | {error, {unknown_config_key, atom()}}.
check_environment() ->
    case [Key || {Key, _} <- application:get_all_env(?APP), not lists:member(Key, ?KEYS)] of
        [] -> ok;
        [Key | _] -> {error, {unknown_config_key, Key}}
    end.
