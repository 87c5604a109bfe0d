-module(erl_esdb_leader_tracker).
-moduledoc """
Keeps the emitter pools of a store as its subscriptions are made, changed and removed, where
`m:erl_esdb_leader` is active. It is told of them as a member of the group `subscriptions` of
`m:erl_esdb_tracker_group`: of those that were made on other nodes, too.
""".

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include("erl_esdb.hrl").

-define(SCOPE, erl_esdb_pg).
%% Milliseconds until it is tried again to join the group.
-define(AGAIN, 20).

-doc "Starts the process, registered as `erl_esdb_naming:leader_tracker_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store}) ->
    Name = erl_esdb_naming:leader_tracker_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, Store, [])
    end).

-doc false.
-spec init(atom()) -> {ok, atom()}.
init(Store) ->
    %% It leaves the group in terminate/2.
    process_flag(trap_exit, true),
    ok = joined(whereis(?SCOPE), Store),
    {ok, Store}.

%% The process that keeps the groups may crash; it comes back without members.
-spec joined(pid() | undefined, atom()) -> ok.
joined(undefined, _Store) ->
    _ = erlang:send_after(?AGAIN, self(), join),
    ok;
joined(Groups, Store) ->
    _ = monitor(process, Groups, [{tag, groups_down}]),
    try
        erl_esdb_subscriptions:setup_tracking(Store, self())
    catch
        %% It has ended again, which is told.
        exit:_ -> ok
    end.

-doc false.
-spec handle_call(term(), gen_server:from(), atom()) -> {reply, {error, unknown_request}, atom()}.
handle_call(_, _From, Store) -> {reply, {error, unknown_request}, Store}.

-doc false.
-spec handle_cast(term(), atom()) -> {noreply, atom()}.
handle_cast(_, Store) -> {noreply, Store}.

-doc false.
-spec handle_info(term(), atom()) -> {noreply, atom()}.
handle_info({Change, subscriptions, #subscription{id = Key} = Subscription}, Store) when
    is_binary(Key)
->
    _ = erl_esdb_leader:is_active(Store) andalso changed(Change, Store, Subscription),
    {noreply, Store};
handle_info({groups_down, _, process, _, _}, Store) ->
    ok = joined(whereis(?SCOPE), Store),
    {noreply, Store};
handle_info(join, Store) ->
    ok = joined(whereis(?SCOPE), Store),
    {noreply, Store};
handle_info(_, Store) ->
    {noreply, Store}.

-spec changed(atom(), atom(), subscription()) -> ok.
changed(feature_created, Store, Subscription) ->
    erl_esdb_leader:start_pool(Store, Subscription);
changed(feature_updated, Store, Subscription) ->
    ok = erl_esdb_emitter_pool:stop_emitter(Store, Subscription),
    erl_esdb_leader:start_pool(Store, Subscription);
changed(feature_deleted, Store, Subscription) ->
    erl_esdb_emitter_pool:stop_emitter(Store, Subscription);
changed(_, _Store, _Subscription) ->
    ok.

-doc false.
-spec terminate(term(), atom()) -> ok.
terminate(_Reason, Store) ->
    try
        erl_esdb_tracker_group:leave(Store, subscriptions, self())
    catch
        %% There are no groups.
        exit:_ -> ok
    end.
