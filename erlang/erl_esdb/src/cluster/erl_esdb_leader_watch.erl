-module(erl_esdb_leader_watch).
-moduledoc """
Knows which node leads a store, and tells the processes that have to know.

The engine says it (`erl_esdb_cluster:leader_is/2`), and is asked each second: so a word that was
lost, and an engine that says nothing, cost a second and no more. What is known stands in the table
of the store, so that it is there when this process begins anew.
""".

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-include("erl_esdb.hrl").

%% Milliseconds.
-define(LOOK, 1000).

-record(state, {
    store :: atom(),
    leader :: node() | undefined
}).

-doc "Starts the process, registered as `erl_esdb_naming:leader_watch_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store}) ->
    Name = erl_esdb_naming:leader_watch_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, Store, [])
    end).

-doc false.
%% Who begins after this process finds the leader in the table.
-spec init(atom()) -> {ok, #state{}}.
init(Store) ->
    Leader = leader(Store),
    ok = erl_esdb_cluster:put_leader(Store, Leader),
    {ok, later(#state{store = Store, leader = Leader})}.

-spec leader(atom()) -> node() | undefined.
leader(Store) ->
    case erl_esdb_cluster:leader(Store) of
        {ok, Leader} -> Leader;
        {error, _} -> undefined
    end.

-spec later(#state{}) -> #state{}.
later(State) ->
    _ = erlang:send_after(?LOOK, self(), look),
    State.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, {error, unknown_request}, #state{}}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({erl_esdb_leader, Store, Leader}, #state{store = Store} = State) ->
    {noreply, told(Leader, State)};
handle_info(look, #state{store = Store} = State) ->
    {noreply, later(told(leader(Store), State))};
handle_info(_, State) ->
    {noreply, State}.

-spec told(node() | undefined, #state{}) -> #state{}.
told(Leader, #state{leader = Leader} = State) ->
    State;
told(Leader, #state{store = Store} = State) ->
    ok = erl_esdb_cluster:put_leader(Store, Leader),
    State#state{leader = Leader}.
