-module(erl_esdb_emitter_sup).
-moduledoc """
The supervisor of the emitter pools of a store, registered as `erl_esdb_emitter_<store>`.

A pool that ends too often is gone, and takes nothing with it.

```erlang
1> {ok, _} = erl_esdb_emitter_sup:start_emitter_pool(shop, Subscription).
2> ok = erl_esdb_emitter_sup:stop_emitter_pool(shop, Subscription#subscription.id).
```
""".

-behaviour(supervisor).

-export([start_link/1, start_emitter_pool/2, stop_emitter_pool/2]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc false.
-spec start_link(store_config()) -> supervisor:startlink_ret().
start_link(#store_config{store_id = Store}) ->
    Name = erl_esdb_naming:emitter_sup_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        supervisor:start_link({local, Name}, ?MODULE, Store)
    end).

-doc "Starts the pool of a subscription, whose id must be set.".
-spec start_emitter_pool(Store :: atom(), subscription()) -> {ok, pid()} | {error, term()}.
start_emitter_pool(Store, #subscription{id = Key} = Subscription) when is_binary(Key) ->
    Child = #{
        id => Key,
        start => {erl_esdb_emitter_pool, start_link, [Store, Subscription]},
        restart => temporary,
        shutdown => infinity,
        type => supervisor
    },
    case running(Store, fun(Sup) -> supervisor:start_child(Sup, Child) end) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    end.

-doc "Stops the pool of a subscription, and forgets the names of its emitters.".
-spec stop_emitter_pool(Store :: atom(), Key :: binary()) -> ok | {error, not_found}.
stop_emitter_pool(Store, Key) ->
    case running(Store, fun(Sup) -> supervisor:terminate_child(Sup, Key) end) of
        ok -> erl_esdb_emitter_group:erase_emitters(Store, Key);
        {error, _} -> {error, not_found}
    end.

-spec running(atom(), fun((pid()) -> Answer)) -> Answer | {error, {store_not_started, atom()}}.
running(Store, Fun) ->
    try
        case whereis(erl_esdb_naming:emitter_sup_name(Store)) of
            undefined -> {error, {store_not_started, Store}};
            Sup -> Fun(Sup)
        end
    catch
        exit:_ -> {error, {store_not_started, Store}}
    end.

-doc false.
-spec init(atom()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Store) ->
    Names = #{id => names, start => {erl_esdb_emitter_names, start_link, [Store]}},
    {ok, {#{strategy => one_for_one, intensity => 5, period => 30}, [Names]}}.
