-module(erl_esdb_emitter_pool).
-moduledoc """
The emitters of one subscription below one supervisor: as many as its `pool_size`.

```erlang
1> {ok, Subscription} = erl_esdb_subscriptions:get(shop, Key).
2> {ok, _} = erl_esdb_emitter_pool:start_emitter(shop, Subscription).
3> ok = erl_esdb_emitter_group:broadcast(shop, Key, Event).
```

Emitters of a pool pass on what is broadcast to their group. Subscriptions do not need them to
deliver: an event of the log reaches its subscriber once, with a pool or without.
""".

-behaviour(supervisor).

-export([name/2, start_link/2, start_emitter/2, stop_emitter/2, update_emitter/2, stop/2]).
-export([init/1]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-doc "The name that the supervisor of a pool is registered under. Makes an atom.".
-spec name(Store :: atom(), Key :: binary()) -> atom().
name(Store, Key) ->
    binary_to_atom(<<"erl_esdb_emitter_pool_", (atom_to_binary(Store))/binary, $_, Key/binary>>).

-doc "Starts the supervisor and its emitters.".
-spec start_link(Store :: atom(), subscription()) -> supervisor:startlink_ret().
start_link(Store, #subscription{id = Key, pool_size = Size} = Subscription) when is_binary(Key) ->
    case supervisor:start_link({local, name(Store, Key)}, ?MODULE, {Store, Subscription}) of
        {ok, Pid} ->
            Metadata = #{store_id => Store, subscription_id => Key, pool_size => Size},
            Measurements = #{system_time => erlang:system_time(millisecond)},
            erl_esdb_telemetry:emit(?EMITTER_POOL_CREATED, Measurements, Metadata),
            {ok, Pid};
        Other ->
            Other
    end.

-doc "Starts a pool below the supervisor of the store.".
-spec start_emitter(Store :: atom(), subscription()) ->
    {ok, pid()} | {error, {already_started, pid()} | term()}.
start_emitter(Store, Subscription) -> erl_esdb_emitter_sup:start_emitter_pool(Store, Subscription).

-doc "Stops a pool; `ok` also where there is none.".
-spec stop_emitter(Store :: atom(), subscription()) -> ok.
stop_emitter(Store, #subscription{id = Key}) -> stop(Store, Key).

-doc "Stops the pool of a key; `ok` also where there is none. Use `stop_emitter/2`.".
-spec stop(Store :: atom(), Key :: binary()) -> ok.
stop(Store, Key) ->
    _ = erl_esdb_emitter_sup:stop_emitter_pool(Store, Key),
    ok.

-doc "Starts a pool anew, with what the subscription now says.".
-spec update_emitter(Store :: atom(), subscription()) -> {ok, pid()} | {error, term()}.
update_emitter(Store, Subscription) ->
    ok = stop_emitter(Store, Subscription),
    start_emitter(Store, Subscription).

-doc false.
-spec init({atom(), subscription()}) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({Store, #subscription{id = Key, pool_size = Size, subscriber_pid = Subscriber}}) ->
    Names = erl_esdb_emitter_group:persist_emitters(Store, Key, Size),
    Specs = [erl_esdb_emitter:child_spec(Store, Key, Subscriber, Name) || Name <- Names],
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60}, Specs}}.
