-module(erl_esdb_delivery).
-moduledoc """
Where the processes that deliver the events of a store are found, and who takes them.

One table of the node, which belongs to the top supervisor: so it is there when a process begins
again after a crash, and who took events before still gets them. A row is found by the store, a kind
and an id: `feed`, `checkpoints` and `manager` stand once in a store, `subscription` and
`projection` under their key; `consumer` is the process that takes the events of a subscription
without being named in its record.
""".

-export([create_table/0, put/4, find/3, pid/3, remove/3, ids/2, forget/1]).
-export_type([kind/0]).

-type kind() ::
    feed | checkpoints | manager | subscriptions | subscription | projection | consumer | name.

-doc false.
-spec create_table() -> ok.
create_table() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {read_concurrency, true}]),
    ok.

-doc false.
-spec put(Store :: atom(), kind(), Id :: term(), Value :: term()) -> ok.
put(Store, Kind, Id, Value) ->
    true = ets:insert(?MODULE, {{Store, Kind, Id}, Value}),
    ok.

-doc false.
-spec find(Store :: atom(), kind(), Id :: term()) -> {ok, term()} | error.
find(Store, Kind, Id) ->
    try ets:lookup_element(?MODULE, {Store, Kind, Id}, 2, ?MODULE) of
        ?MODULE -> error;
        Value -> {ok, Value}
    catch
        %% The application does not run.
        error:badarg -> error
    end.

-doc false.
-spec pid(Store :: atom(), kind(), Id :: term()) ->
    {ok, pid()} | {error, {store_not_started, atom()} | not_found}.
pid(Store, Kind, Id) ->
    case {find(Store, Kind, Id), Id} of
        {{ok, Pid}, _} -> {ok, Pid};
        {error, none} -> {error, {store_not_started, Store}};
        {error, _} -> {error, not_found}
    end.

-doc false.
-spec remove(Store :: atom(), kind(), Id :: term()) -> ok.
remove(Store, Kind, Id) ->
    true = ets:delete(?MODULE, {Store, Kind, Id}),
    ok.

-doc false.
-spec ids(Store :: atom(), kind()) -> [term()].
ids(Store, Kind) -> ets:select(?MODULE, [{{{Store, Kind, '$1'}, '_'}, [], ['$1']}]).

-doc false.
%% When a store was stopped: nothing of it stays.
-spec forget(Store :: atom()) -> ok.
forget(Store) ->
    true = ets:match_delete(?MODULE, {{Store, '_', '_'}, '_'}),
    erl_esdb_emitter_sup:forget(Store).
