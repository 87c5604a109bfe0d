%% What users of the store include: its own records and constants, and those shared with clients.
%%
%%   -include_lib("erl_esdb/include/erl_esdb.hrl").
-ifndef(ERL_ESDB_HRL).
-define(ERL_ESDB_HRL, true).

-include_lib("erl_esdb_gater/include/esdb_gater_types.hrl").

-define(ERL_ESDB_VERSION, "0.1.0").
%% milliseconds
-ifndef(DEFAULT_TIMEOUT).
-define(DEFAULT_TIMEOUT, 5000).
-endif.
-define(DEFAULT_BATCH_SIZE, 100).
-define(DEFAULT_POOL_SIZE, 10).
-define(DEFAULT_GATEWAY_POOL_SIZE, 1).
-define(VERSION_PADDING, 12).

-define(STREAMS_PATH, [streams]).
-define(SNAPSHOTS_PATH, [snapshots]).
-define(SUBSCRIPTIONS_PATH, [subscriptions]).
-define(METADATA_PATH, [metadata]).
-define(TELEMETRY_PREFIX, [erl_esdb]).

-record(store_config, {
    store_id :: atom(),
    data_dir :: file:filename() | undefined,
    mode = single :: single | cluster,
    %% milliseconds
    timeout = ?DEFAULT_TIMEOUT :: timeout(),
    writer_pool_size = ?DEFAULT_POOL_SIZE :: pos_integer(),
    reader_pool_size = ?DEFAULT_POOL_SIZE :: pos_integer(),
    gateway_pool_size = ?DEFAULT_GATEWAY_POOL_SIZE :: pos_integer(),
    options :: map() | undefined
}).
-type store_config() :: #store_config{}.

-record(cluster_node, {
    node :: node(),
    is_leader = false :: boolean(),
    status = up :: up | down,
    last_heartbeat :: integer() | undefined,
    stores :: [atom()] | undefined
}).
-type cluster_node() :: #cluster_node{}.

-endif.
