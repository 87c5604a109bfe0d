-module(erl_esdb_member_watch).
-moduledoc """
Has a store in mode `single` watched as one in mode `cluster` is, as long as it lives on other nodes
besides: with `erl_esdb:join/2` clusters are made of such stores, too.

It looks at the members each second, and when another node leads. With the first other one it starts
`m:erl_esdb_cluster_sup`, which watches them and finds nobody; when this node is alone again it ends
that.
""".

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").

%% Milliseconds.
-define(LOOK, 1000).

-record(state, {
    config :: store_config(),
    %% whether there are others, when that was looked at last
    others :: boolean() | unknown
}).

-doc "Starts the process, registered as `erl_esdb_naming:member_watch_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store} = Config) ->
    Name = erl_esdb_naming:member_watch_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, Config, [])
    end).

-doc false.
-spec init(store_config()) -> {ok, #state{}}.
init(#store_config{store_id = Store} = Config) ->
    _ = erl_esdb_cluster:watch_leader(Store),
    self() ! look,
    {ok, #state{config = Config, others = unknown}}.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, {error, unknown_request}, #state{}}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info(look, State) ->
    _ = erlang:send_after(?LOOK, self(), look),
    {noreply, looked(State)};
handle_info({erl_esdb_leader, _, _}, State) ->
    {noreply, looked(State)};
handle_info(_, State) ->
    {noreply, State}.

-spec looked(#state{}) -> #state{}.
looked(#state{config = #store_config{store_id = Store}, others = Before} = State) ->
    case erl_esdb_cluster:members(Store) of
        {ok, Members} -> changed(Members -- [node()] =/= [], State);
        %% Nobody knows.
        {error, _} -> State#state{others = Before}
    end.

%% What was begun is seen to by the supervisor of the store.
-spec changed(boolean(), #state{}) -> #state{}.
changed(Others, #state{others = Others} = State) ->
    State;
changed(Others, #state{config = #store_config{store_id = Store} = Config} = State) ->
    Sup = erl_esdb_naming:system_sup_name(Store),
    case Others andalso supervisor:start_child(Sup, erl_esdb_cluster_sup:child_spec(Config)) of
        false ->
            _ = supervisor:terminate_child(Sup, cluster_sup),
            _ = supervisor:delete_child(Sup, cluster_sup),
            State#state{others = false};
        {ok, _} ->
            State#state{others = true};
        {error, {already_started, _}} ->
            State#state{others = true};
        {error, already_present} ->
            %% It ended while it was removed.
            _ = supervisor:delete_child(Sup, cluster_sup),
            changed(Others, State);
        {error, Reason} ->
            %% The next look tries again.
            ?LOG_WARNING("store ~tp: its members are not watched: ~tP", [Store, Reason, 20]),
            State
    end.
