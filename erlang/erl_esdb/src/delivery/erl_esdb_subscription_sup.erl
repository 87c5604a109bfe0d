-module(erl_esdb_subscription_sup).
-moduledoc """
The processes of the subscriptions of a store. One that ends takes nothing with it: it is
`m:erl_esdb_subscription_manager` that starts it again.
""".

-behaviour(supervisor).

-export([start_link/1, start/2, stop/2]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc false.
-spec start_link(atom()) -> supervisor:startlink_ret().
start_link(Store) -> supervisor:start_link(?MODULE, Store).

-doc false.
-spec start(atom(), subscription()) -> {ok, pid()} | {error, term()}.
start(Store, Subscription) ->
    {ok, Sup} = erl_esdb_delivery:find(Store, subscriptions, none),
    case supervisor:start_child(Sup, [module(Subscription), Subscription]) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    end.

-spec module(subscription()) -> module().
module(#subscription{options = #{consumers := competing}}) -> erl_esdb_consumers;
module(#subscription{}) -> erl_esdb_subscription.

-doc false.
-spec stop(atom(), pid()) -> ok.
stop(Store, Pid) ->
    {ok, Sup} = erl_esdb_delivery:find(Store, subscriptions, none),
    _ = supervisor:terminate_child(Sup, Pid),
    ok.

-doc false.
-spec init(atom()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Store) ->
    ok = erl_esdb_delivery:put(Store, subscriptions, none, self()),
    Child = #{
        id => subscription,
        start => {erl_esdb_subscription_manager, start_subscription, [Store]},
        restart => temporary,
        shutdown => 5000
    },
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
