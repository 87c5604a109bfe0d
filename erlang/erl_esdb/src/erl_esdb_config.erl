-module(erl_esdb_config).
-moduledoc """
Configuration: the application's environment and the options of a store.

```erlang
[{erl_esdb, [
    {stores, [{orders, []}, {audit, #{timeout => 10_000, max_event_size => 1_000_000}}]},
    {telemetry_handlers, [logger]}
]}].
```

| option of a store | default | |
|---|---|---|
| `engine` | `ra` with a `data_dir` or in mode `cluster`, else `memory` | what keeps the events |
| `data_dir` | `/var/lib/erl_esdb/<store>` | the folder of a store on disk; see below |
| `mode` | `single` | or `cluster` |
| `timeout` | 5000 | milliseconds for a call: 0 to 4,294,967,295 or `infinity` |
| `max_event_size` | 16 MiB | bytes of an event, encoded |
| `max_batch_size` | 64 MiB | bytes of an append, encoded |
| `max_batch_events` | 100,000 | events of an append |
| `max_queue` | 10,000 | commands that wait for the store; more are `overloaded` |
| `idempotence_window` | 100,000 | ids by which appends that are sent twice are recognised |
| `idempotence_appends` | 1000 | the latest appends of a stream for which they are |
| `condition_window` | 100,000 | the latest appends a condition is checked against at once |
| `indexes` | `event_id`, `type`, `tag`, `causation`, `correlation` | see `m:erl_esdb_index` |
| `integrity` | `disabled` | keys, to sign events with: see `m:erl_esdb_integrity` |
| `codec` | `none` | `json` stores the data of events as JSON text: `m:erl_esdb_json` |
| `persistence_interval` | 5000 | milliseconds: `m:erl_esdb_persistence_worker` |
| `read_cache` | 64 MiB | bytes of events that a store on disk keeps in memory for readers |
| `writer_pool_size`, `reader_pool_size`, `gateway_pool_size` | 10, 10, 1 | taken, not used here |

| key of the application | default | |
|---|---|---|
| `stores` | `[]` | the stores that start with the application, with their options |
| `default_timeout` | 5000 | what stores have as `timeout` |
| `writer_pool_size`, `reader_pool_size`, `gateway_pool_size` | 10, 10, 1 | the same of stores |
| `writer_idle_timeout_ms` | 10,000 | of the processes of `m:erl_esdb_streams_writer` |
| `reader_idle_timeout_ms` | 10,000 | of the processes of `m:erl_esdb_streams_reader` |
| `persistence_interval` | 5000 | what stores have as `persistence_interval` |
| `telemetry_handlers` | `[logger]` | which handlers are attached |
| `telemetry_aliases` | `false` | second names of events: `m:erl_esdb_telemetry` |
| `health_probe_interval`, `health_probe_timeout` | 2000, 1000 | clusters |
| `health_failure_threshold` | 3 | clusters |
| `health_probe_type` | `rpc` | clusters; or `ping`, `khepri`, `deep` |
| `consistency_check_interval` | 5000 | clusters |
| `discovery` | | clusters: `m:erl_esdb_discovery_config` |
| `discovery_port`, `multicast_addr`, `broadcast_interval` | | the same |

Stores of a node with the same `data_dir` share one write-ahead log there: one file and one sync for
what all of them write, which is faster than a folder for each. What is damaged in that log stops
all of them. The default is another folder for each store: by itself none shares a log. A folder
belongs to one node at a time. Giving one makes a store durable, the default alone does not.

The options of a store are a list of pairs or a map. What is not known of a store goes to its
`options`, with a warning when the store starts; an unknown key of the application is refused by
name when it starts. So is a value that cannot be: `{invalid_option, Key, Value}`, and
`{invalid_store, Term}` for an entry of `stores` or a name that is none.
""".

-export([get_store_config/1, get_all_store_configs/0, get_env/2, get_env/3]).
-export([plan/1, plan/2, check_environment/0, engine_name/1]).
-export_type([plan/0, invalid/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").

-define(APP, erl_esdb).
-define(MIB, 1_048_576).
%% The longest name of a store: those of its processes begin with up to 28 characters more.
-define(MAX_NAME, 200).
%% The longest time that a process can wait.
-define(MAX_INTERVAL, 16#FFFFFFFF).

-define(FIELDS, [
    data_dir, mode, timeout, writer_pool_size, reader_pool_size, gateway_pool_size
]).
-define(OPTIONS, [
    engine,
    max_event_size,
    max_batch_size,
    max_batch_events,
    max_queue,
    idempotence_window,
    idempotence_appends,
    condition_window,
    persistence_interval,
    read_cache,
    indexes,
    integrity,
    codec
]).

-doc "How a store is to be started.".
-type plan() :: {store_config(), Engine :: module(), erl_esdb_engine:settings()}.
-type invalid() :: {invalid_option, Key :: atom(), Value :: term()} | {invalid_store, term()}.

-doc "The configuration of a store that the environment names.".
-spec get_store_config(atom()) -> {ok, store_config()} | {error, not_found | invalid()}.
get_store_config(Store) when is_atom(Store) ->
    maybe
        {ok, Options} ?= named(Store),
        {ok, config(Store, Options)}
    end;
get_store_config(_) ->
    error(badarg).

-doc "The configurations of all stores that the environment names, without entries that are none.".
-spec get_all_store_configs() -> [store_config()].
get_all_store_configs() ->
    case stores() of
        {ok, Entries} -> [config(Store, Options) || {ok, {Store, Options}} <- Entries];
        {error, _} -> []
    end.

%% ---- the entries of the environment

-type entry() :: {ok, {atom(), map()}} | {error, {invalid_store, term()}}.

-spec stores() -> {ok, [entry()]} | {error, {invalid_option, stores, term()}}.
stores() ->
    Stores = get_env(stores, []),
    case is_proper(Stores) of
        true -> {ok, [entry(Entry) || Entry <- Stores]};
        false -> {error, {invalid_option, stores, Stores}}
    end.

-spec entry(term()) -> entry().
entry({Store, Given} = Entry) ->
    case {is_name(Store), pairs(Given)} of
        {true, {ok, Options}} -> {ok, {Store, Options}};
        _ -> {error, {invalid_store, Entry}}
    end;
entry(Entry) ->
    {error, {invalid_store, Entry}}.

%% As in a property list the first of two equal keys counts.
-spec pairs(term()) -> {ok, map()} | error.
pairs(Options) when is_map(Options) ->
    {ok, Options};
pairs(Options) ->
    case is_proper(Options) andalso lists:all(fun is_pair/1, Options) of
        true -> {ok, maps:from_list(lists:reverse(Options))};
        false -> error
    end.

-spec is_pair(term()) -> boolean().
is_pair({_, _}) -> true;
is_pair(_) -> false.

-spec is_proper(term()) -> boolean().
is_proper([_ | Rest]) -> is_proper(Rest);
is_proper(Rest) -> Rest =:= [].

-spec is_name(term()) -> boolean().
is_name(Store) ->
    is_atom(Store) andalso Store =/= undefined andalso length(atom_to_list(Store)) =< ?MAX_NAME.

%% The options of a store that the environment names.
-spec named(atom()) -> {ok, map()} | {error, not_found | invalid()}.
named(Store) ->
    maybe
        {ok, Entries} ?= stores(),
        [Entry | _] ?= [Entry || Entry <- Entries, is_of(Store, Entry)],
        {ok, {Store, Options}} ?= Entry,
        {ok, Options}
    else
        [] -> {error, not_found};
        {error, Reason} -> {error, Reason}
    end.

-spec is_of(atom(), entry()) -> boolean().
is_of(Store, {ok, {Name, _}}) -> Name =:= Store;
is_of(Store, {error, {invalid_store, {Name, _}}}) -> Name =:= Store;
is_of(_, _) -> false.

-doc "A key of the environment of erl_esdb.".
-spec get_env(atom(), Default) -> term() | Default.
get_env(Key, Default) -> get_env(?APP, Key, Default).

-doc "A key of the environment of an application.".
-spec get_env(atom(), atom(), Default) -> term() | Default.
get_env(App, Key, Default) -> application:get_env(App, Key, Default).

-doc "How to start a store that the environment names, or that a record describes.".
-spec plan(atom() | store_config()) -> {ok, plan()} | {error, term()}.
plan(#store_config{options = undefined} = Config) ->
    plan(Config#store_config{options = #{}});
plan(#store_config{} = Config) ->
    planned(Config, Config);
plan(Store) when is_atom(Store) ->
    maybe
        {ok, Options} ?= named(Store),
        plan(Store, Options)
    end;
plan(_) ->
    error(badarg).

-doc "How to start a store with these options.".
-spec plan(atom(), map()) -> {ok, plan()} | {error, term()}.
plan(Store, Options) when is_atom(Store), is_map(Options) ->
    Config = config(Store, Options),
    %% The default of data_dir does not make a store durable, giving one does.
    Given = Config#store_config{data_dir = maps:get(data_dir, Options, undefined)},
    warn_mode(Store, maps:get(mode, Options, single)),
    planned(Config, Given);
plan(_, _) ->
    error(badarg).

%% `Given`: the same, without defaults that would choose an engine.
-spec planned(store_config(), Given :: store_config()) -> {ok, plan()} | {error, term()}.
planned(#store_config{store_id = Store} = Config, Given) ->
    maybe
        ok ?= check(Config),
        {ok, Settings} ?= settings(Config),
        {ok, Module} ?= engine_module(engine(Given)),
        Options = Config#store_config.options,
        warn_unknown(Store, maps:keys(maps:without(?OPTIONS, Options))),
        %% Supervisors log what they start their children with: of the keys only the settings know,
        %% in a fun.
        Kept = Config#store_config{
            data_dir = dir(Module, Config), options = maps:remove(integrity, Options)
        },
        {ok, {Kept, Module, Settings}}
    end.

%% Nothing is written for a store in memory.
-spec dir(module(), store_config()) -> file:filename() | undefined.
dir(erl_esdb_engine_memory, _Config) -> undefined;
dir(_Module, #store_config{store_id = Store, data_dir = undefined}) -> default_dir(Store);
dir(_Module, #store_config{data_dir = Dir}) -> Dir.

%% ---- what may be in a configuration

-spec check(store_config()) -> ok | {error, invalid()}.
check(#store_config{store_id = Store} = Config) ->
    Fields = [
        {data_dir, Config#store_config.data_dir, fun is_dir/1},
        {mode, Config#store_config.mode, fun is_mode/1},
        {timeout, Config#store_config.timeout, fun erl_esdb_store:is_timeout/1},
        {writer_pool_size, Config#store_config.writer_pool_size, fun is_positive/1},
        {reader_pool_size, Config#store_config.reader_pool_size, fun is_positive/1},
        {gateway_pool_size, Config#store_config.gateway_pool_size, fun is_positive/1},
        {options, Config#store_config.options, fun erlang:is_map/1}
    ],
    case {is_name(Store), [{Key, Value} || {Key, Value, May} <- Fields, not May(Value)]} of
        {false, _} -> {error, {invalid_store, Store}};
        {true, [{Key, Value} | _]} -> {error, {invalid_option, Key, Value}};
        {true, []} -> ok
    end.

-spec is_dir(term()) -> boolean().
is_dir(undefined) -> true;
is_dir(Dir) when is_binary(Dir) -> Dir =/= <<>>;
is_dir(Dir) -> Dir =/= [] andalso is_proper(Dir) andalso lists:all(fun is_character/1, Dir).

-spec is_character(term()) -> boolean().
is_character(C) -> is_integer(C) andalso C > 0 andalso C =< 16#10FFFF.

-spec is_mode(term()) -> boolean().
is_mode(Mode) -> Mode =:= single orelse Mode =:= cluster.

-spec engine(store_config()) -> term().
engine(#store_config{options = #{engine := Engine}}) -> Engine;
engine(#store_config{mode = cluster}) -> ra;
engine(#store_config{data_dir = undefined}) -> memory;
engine(#store_config{}) -> ra.

-spec engine_module(term()) -> {ok, module()} | {error, term()}.
engine_module(memory) -> {ok, erl_esdb_engine_memory};
engine_module(ra) -> available(ra, [ra, erl_esdb_engine_ra]);
engine_module(Other) -> {error, {unknown_engine, Other}}.

-doc false.
%% As the option `engine' names it.
-spec engine_name(module()) -> atom().
engine_name(erl_esdb_engine_memory) -> memory;
engine_name(erl_esdb_engine_ra) -> ra;
engine_name(Other) -> Other.

%% The engine comes last; before it, what it stands on and need not be there.
-spec available(atom(), [module(), ...]) ->
    {ok, module()} | {error, {engine_not_available, atom()}}.
available(Name, Modules) ->
    case code:ensure_modules_loaded(Modules) of
        ok -> {ok, lists:last(Modules)};
        {error, _} -> {error, {engine_not_available, Name}}
    end.

-spec settings(store_config()) -> {ok, erl_esdb_engine:settings()} | {error, invalid()}.
settings(#store_config{timeout = Timeout, options = Given}) ->
    Defaults = #{
        max_event_size => 16 * ?MIB,
        max_batch_size => 64 * ?MIB,
        max_batch_events => 100_000,
        max_queue => 10_000,
        idempotence_window => 100_000,
        idempotence_appends => 1000,
        condition_window => 100_000,
        read_cache => 64 * ?MIB
    },
    Settings = maps:merge(Defaults, maps:with([codec | maps:keys(Defaults)], Given)),
    Indexes = maps:get(indexes, Given, erl_esdb_index_keys:kinds()),
    All = maps:merge(Settings#{indexes => Indexes}, maps:with([persistence_interval], Given)),
    case [{Key, Value} || Key := Value <- All, not is_option(Key, Value)] of
        [] -> signing(Given, Settings#{timeout => Timeout, indexes => lists:usort(Indexes)});
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}}
    end.

-spec is_option(atom(), term()) -> boolean().
is_option(codec, Codec) -> Codec =:= json orelse Codec =:= none;
is_option(persistence_interval, Interval) -> is_interval(Interval);
is_option(indexes, Kinds) -> are_indexes(Kinds);
is_option(_, Value) -> is_positive(Value).

-spec is_interval(term()) -> boolean().
is_interval(Value) -> is_positive(Value) andalso Value =< ?MAX_INTERVAL.

-spec are_indexes(term()) -> boolean().
are_indexes(Kinds) ->
    is_proper(Kinds) andalso lists:all(fun erl_esdb_index_keys:is_kind/1, Kinds).

%% The value may have a key in it: it is not told.
-spec signing(map(), erl_esdb_engine:settings()) ->
    {ok, erl_esdb_engine:settings()} | {error, {invalid_option, integrity, term()}}.
signing(Given, Settings) ->
    case erl_esdb_chain:keys(maps:get(integrity, Given, disabled)) of
        {ok, Keys} -> {ok, Settings#{integrity => Keys}};
        {error, Reason} -> {error, {invalid_option, integrity, Reason}}
    end.

-spec is_positive(term()) -> boolean().
is_positive(Value) -> is_integer(Value) andalso Value > 0.

-spec config(atom(), map()) -> store_config().
config(Store, Options) ->
    #store_config{
        store_id = Store,
        data_dir = maps:get(data_dir, Options, default_dir(Store)),
        mode = mode(maps:get(mode, Options, single)),
        timeout = maps:get(timeout, Options, get_env(default_timeout, ?DEFAULT_TIMEOUT)),
        writer_pool_size = pool(writer_pool_size, Options, ?DEFAULT_POOL_SIZE),
        reader_pool_size = pool(reader_pool_size, Options, ?DEFAULT_POOL_SIZE),
        gateway_pool_size = pool(gateway_pool_size, Options, ?DEFAULT_GATEWAY_POOL_SIZE),
        options = maps:without(?FIELDS, Options)
    }.

-spec default_dir(atom()) -> file:filename().
default_dir(Store) -> "/var/lib/erl_esdb/" ++ atom_to_list(Store).

-spec pool(atom(), map(), pos_integer()) -> pos_integer().
pool(Key, Options, Default) -> maps:get(Key, Options, get_env(Key, Default)).

-spec mode(term()) -> single | cluster.
mode(cluster) -> cluster;
mode(_) -> single.

-spec warn_mode(atom(), term()) -> ok.
warn_mode(Store, Mode) ->
    case is_mode(Mode) of
        true -> ok;
        false -> ?LOG_WARNING("store ~tp: mode ~tp is not known, single is used", [Store, Mode])
    end.

-spec warn_unknown(atom(), [term()]) -> ok.
warn_unknown(_Store, []) -> ok;
warn_unknown(Store, Keys) -> ?LOG_WARNING("store ~tp: unknown options ~tp", [Store, Keys]).

-doc "Whether the environment has known keys only, values that can be, and stores that are such.".
-spec check_environment() -> ok | {error, {unknown_config_key, atom()} | invalid()}.
check_environment() ->
    Given = [Pair || {Key, _} = Pair <- application:get_all_env(?APP), Key =/= stores],
    Known = keys(),
    Unknown = [{unknown_config_key, Key} || {Key, _} <- Given, not is_map_key(Key, Known)],
    Wrong = [
        {invalid_option, Key, shown(Key, Value)}
     || {Key, Value} <- Given, is_map_key(Key, Known), not (maps:get(Key, Known))(Value)
    ],
    maybe
        [] ?= Unknown ++ Wrong,
        {ok, Entries} ?= stores(),
        hd([{error, Reason} || {error, Reason} <- Entries] ++ [ok])
    else
        [Reason | _] -> {error, Reason};
        {error, Reason} -> {error, Reason}
    end.

%% What goes to the log has no secret in it.
-spec shown(atom(), term()) -> term().
shown(discovery, Value) -> erl_esdb_discovery_config:without_secret(Value);
shown(_Key, Value) -> Value.

-spec is_address(term()) -> boolean().
is_address(Value) -> erl_esdb_discovery_config:check(#{multicast_addr => Value}) =:= ok.

%% Keys of the application's environment besides `stores', and what their values can be.
-spec keys() -> #{atom() => fun((term()) -> boolean())}.
keys() ->
    Any = fun(_) -> true end,
    #{
        default_timeout => fun erl_esdb_store:is_timeout/1,
        writer_pool_size => fun is_positive/1,
        reader_pool_size => fun is_positive/1,
        gateway_pool_size => fun is_positive/1,
        writer_idle_timeout_ms => fun is_interval/1,
        reader_idle_timeout_ms => fun is_interval/1,
        health_probe_interval => fun is_interval/1,
        health_probe_timeout => fun is_interval/1,
        health_failure_threshold => fun is_positive/1,
        health_probe_type => fun(Type) -> lists:member(Type, [ping, rpc, khepri, deep]) end,
        consistency_check_interval => fun is_interval/1,
        persistence_interval => fun is_interval/1,
        telemetry_handlers => fun is_proper/1,
        telemetry_aliases => fun erlang:is_boolean/1,
        discovery => fun(Value) -> erl_esdb_discovery_config:check(Value) =:= ok end,
        discovery_port => fun(Port) -> is_positive(Port) andalso Port < 65_536 end,
        multicast_addr => fun is_address/1,
        broadcast_interval => fun is_interval/1,
        %% set by OTP
        included_applications => Any
    }.
