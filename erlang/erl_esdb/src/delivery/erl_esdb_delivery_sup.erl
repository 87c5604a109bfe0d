-module(erl_esdb_delivery_sup).
-moduledoc """
What delivers the events of a store. The processes need each other: when one ends all begin again,
from the places that are saved.
""".

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc false.
-spec start_link(store_config()) -> supervisor:startlink_ret().
start_link(#store_config{store_id = Store}) -> supervisor:start_link(?MODULE, Store).

-doc false.
-spec init(atom()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Store) ->
    Child = fun(Module, Type) ->
        #{id => Module, start => {Module, start_link, [Store]}, type => Type}
    end,
    {ok,
        {#{strategy => one_for_all, intensity => 5, period => 30}, [
            Child(erl_esdb_feed, worker),
            Child(erl_esdb_checkpoints, worker),
            Child(erl_esdb_subscription_sup, supervisor),
            Child(erl_esdb_subscription_manager, worker)
        ]}}.
