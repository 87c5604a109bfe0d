%% Capability tokens: who may do what with which stream.
-ifndef(ESDB_CAPABILITY_TYPES_HRL).
-define(ESDB_CAPABILITY_TYPES_HRL, true).

-define(ACTION_STREAM_APPEND, <<"stream/append">>).
-define(ACTION_STREAM_READ, <<"stream/read">>).
-define(ACTION_STREAM_SUBSCRIBE, <<"stream/subscribe">>).
-define(ACTION_STREAM_DELETE, <<"stream/delete">>).
-define(ACTION_CHANNEL_PUBLISH, <<"channel/publish">>).
-define(ACTION_CHANNEL_SUBSCRIBE, <<"channel/subscribe">>).
-define(ACTION_SNAPSHOT_WRITE, <<"snapshot/write">>).
-define(ACTION_SNAPSHOT_READ, <<"snapshot/read">>).
-define(ACTION_SNAPSHOT_DELETE, <<"snapshot/delete">>).
-define(ACTION_SUBSCRIPTION_CREATE, <<"subscription/create">>).
-define(ACTION_SUBSCRIPTION_DELETE, <<"subscription/delete">>).
-define(ACTION_SUBSCRIPTION_LIST, <<"subscription/list">>).
-define(ACTION_ALL, <<"*">>).

%% One grant: a resource pattern and an action.
-type capability_grant() :: #{with := binary(), can := binary()}.

-record(capability, {
    alg = <<"EdDSA">> :: binary(),
    typ = <<"UCAN">> :: binary(),
    iss :: binary(),
    aud :: binary(),
    %% nbf, exp and iat are seconds since 1970
    nbf :: integer() | undefined,
    exp :: integer(),
    iat :: integer(),
    nnc :: binary(),
    att :: [capability_grant()],
    fct = #{} :: map(),
    prf = [] :: [binary()],
    sig :: binary() | undefined
}).
-type capability() :: #capability{}.

-record(identity, {
    did :: binary(),
    public_key :: <<_:256>>,
    private_key :: <<_:256>> | undefined
}).
-type identity() :: #identity{}.

-record(verification_result, {
    capability :: capability(),
    issuer_chain :: [binary()],
    resource :: binary(),
    action :: binary(),
    %% seconds since 1970
    verified_at :: integer()
}).
-type verification_result() :: #verification_result{}.

-endif.
