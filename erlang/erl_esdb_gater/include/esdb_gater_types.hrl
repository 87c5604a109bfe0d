%% Records, types and constants shared by the event store and its clients.
%%
%%   -include_lib("erl_esdb_gater/include/esdb_gater_types.hrl").
-ifndef(ESDB_GATER_TYPES_HRL).
-define(ESDB_GATER_TYPES_HRL, true).

%% What an append may expect of its stream, beside an exact version.
-define(NO_STREAM, -1).
-define(ANY_VERSION, -2).
-define(STREAM_EXISTS, -4).

-define(CONTENT_TYPE_JSON, <<"application/json">>).
-define(CONTENT_TYPE_BINARY, <<"application/octet-stream">>).

-type direction() :: forward | backward.
-type subscription_type() :: stream | event_type | event_pattern | event_payload.

%% What a caller hands in. Other keys are ignored.
-type new_event() :: #{
    event_type := binary(),
    data := map() | binary(),
    metadata => map(),
    event_id => binary(),
    tags => [binary()],
    data_content_type => binary(),
    metadata_content_type => binary(),
    _ => _
}.

%% An event as it was recorded. The first ten fields are those of the original, in its order.
-record(event, {
    event_id :: binary(),
    event_type :: binary(),
    stream_id :: binary(),
    %% 0 for the first event of a stream
    version :: non_neg_integer(),
    data :: map() | binary(),
    metadata = #{} :: map(),
    %% milliseconds and microseconds since 1970, one reading for all events of an append
    timestamp :: integer(),
    epoch_us :: integer(),
    data_content_type = ?CONTENT_TYPE_JSON :: binary(),
    metadata_content_type = ?CONTENT_TYPE_JSON :: binary(),
    tags = [] :: [binary()],
    %% place in the order of all events of the store, from 0
    position :: non_neg_integer() | undefined,
    prev_event_hash :: binary() | undefined,
    mac :: {KeyId :: pos_integer(), Mac :: binary()} | undefined
}).
-type event() :: #event{}.

-record(snapshot, {
    stream_id :: binary(),
    version :: non_neg_integer(),
    data :: map() | binary(),
    metadata = #{} :: map(),
    %% milliseconds since 1970
    timestamp :: integer()
}).
-type snapshot() :: #snapshot{}.

-record(subscription, {
    id :: binary(),
    type :: subscription_type(),
    selector :: binary() | map(),
    subscription_name :: binary(),
    subscriber_pid :: pid() | undefined,
    %% milliseconds since 1970
    created_at :: integer(),
    pool_size = 1 :: pos_integer(),
    checkpoint :: non_neg_integer() | undefined,
    options = #{} :: map()
}).
-type subscription() :: #subscription{}.

%% The answer of an append that asked for `#{return => result}'.
-record(append_result, {
    %% of the last event written; of the stream where nothing was written
    version :: integer(),
    %% of the last event written; undefined where nothing was written
    position :: non_neg_integer() | undefined,
    count :: non_neg_integer()
}).
-type append_result() :: #append_result{}.

-endif.
