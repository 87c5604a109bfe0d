%% Records of the gateway between clients and stores.
-ifndef(ESDB_GATER_HRL).
-define(ESDB_GATER_HRL, true).

-include("esdb_gater_types.hrl").

-record(retry_config, {
    base_delay_ms = 100 :: pos_integer(),
    max_delay_ms = 30000 :: pos_integer(),
    max_retries = 10 :: non_neg_integer()
}).
-type retry_config() :: #retry_config{}.

-record(worker_entry, {
    store_id :: atom(),
    node :: node(),
    pid :: pid(),
    %% milliseconds since 1970
    registered_at :: integer()
}).
-type worker_entry() :: #worker_entry{}.

-record(gater_config, {
    store_id :: atom(),
    retry_config = #retry_config{} :: retry_config(),
    pool_size = 1 :: pos_integer()
}).
-type gater_config() :: #gater_config{}.

-endif.
