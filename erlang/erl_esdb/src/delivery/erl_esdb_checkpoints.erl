-module(erl_esdb_checkpoints).
-moduledoc """
Saves the places that readers of a store have come to: many of them with one command.

A value that is saved here reaches the store within a tenth of a second. What was not saved when the
node ended is read again, so a reader gets these events twice and misses none. `get/2` answers the
newest value, saved or not.
""".

-behaviour(gen_server).

-export([start_link/1, save/3, get/2, put/2, put/3, hand_over/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").

%% Milliseconds that a value may wait for others.
-define(INTERVAL, 100).

-type values() :: erl_esdb_log:checkpoints().

-record(state, {
    store :: atom(),
    pending = #{} :: values(),
    timer :: reference() | undefined
}).

-doc false.
-spec start_link(atom()) -> gen_server:start_ret().
start_link(Store) -> gen_server:start_link(?MODULE, Store, []).

-doc "Saves a value some time soon.".
-spec save(Store :: atom(), Key :: term(), Value :: term()) -> ok.
save(Store, Key, Value) ->
    case erl_esdb_delivery:find(Store, checkpoints, none) of
        {ok, Pid} -> gen_server:cast(Pid, {save, Key, Value});
        error -> ok
    end.

-doc "The newest value.".
-spec get(Store :: atom(), Key :: term()) ->
    {ok, term()} | {error, not_found | erl_esdb_store:failure()}.
get(Store, Key) -> erl_esdb_delivery:call(Store, checkpoints, none, {get, Key}, #{}).

-doc "Saves values, or deletes them, before it answers: all or none.".
-spec put(Store :: atom(), values()) -> ok | {error, erl_esdb_store:failure()}.
put(Store, Values) -> put(Store, Values, #{}).

-doc "The same, with the option `timeout`.".
-spec put(Store :: atom(), values(), #{timeout => timeout(), _ => _}) ->
    ok | {error, erl_esdb_store:failure()}.
put(Store, Values, Options) ->
    erl_esdb_delivery:call(Store, checkpoints, none, {put, Values}, Options).

-doc """
Another node leads from now on, and saves: what is pending here is saved now, or forgotten. It would
take back what is saved there.
""".
-spec hand_over(Store :: atom()) -> ok.
hand_over(Store) ->
    case erl_esdb_delivery:find(Store, checkpoints, none) of
        {ok, Pid} -> gen_server:cast(Pid, hand_over);
        error -> ok
    end.

-doc false.
-spec init(atom()) -> {ok, #state{}}.
init(Store) ->
    %% What is pending is saved when the supervisor stops us.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    ok = erl_esdb_delivery:put(Store, checkpoints, none, self()),
    {ok, #state{store = Store}}.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({get, Key}, _From, #state{store = Store, pending = Pending} = State) ->
    case Pending of
        #{Key := Value} -> {reply, {ok, Value}, State};
        #{} -> {reply, erl_esdb_store:checkpoint(Store, Key), State}
    end;
handle_call({put, Values}, _From, #state{store = Store, pending = Pending} = State) ->
    case erl_esdb_store:save_checkpoints(Store, Values) of
        ok -> {reply, ok, State#state{pending = maps:without(maps:keys(Values), Pending)}};
        {error, Reason} -> {reply, {error, Reason}, State}
    end;
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({save, Key, Value}, #state{pending = Pending} = State) ->
    {noreply, timed(State#state{pending = Pending#{Key => Value}})};
handle_cast(hand_over, #state{pending = Pending} = State) when map_size(Pending) =:= 0 ->
    {noreply, State};
handle_cast(hand_over, #state{store = Store, pending = Pending} = State) ->
    _ = erl_esdb_store:save_checkpoints(Store, Pending),
    {noreply, State#state{pending = #{}}};
handle_cast(_, State) ->
    {noreply, State}.

-spec timed(#state{}) -> #state{}.
timed(#state{timer = undefined} = State) ->
    State#state{timer = erlang:send_after(?INTERVAL, self(), save)};
timed(State) ->
    State.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info(save, State) -> {noreply, saved(State#state{timer = undefined})};
handle_info(_, State) -> {noreply, State}.

%% What could not be saved is tried again with what comes.
-spec saved(#state{}) -> #state{}.
saved(#state{pending = Pending} = State) when map_size(Pending) =:= 0 ->
    State;
saved(#state{store = Store, pending = Pending} = State) ->
    case erl_esdb_store:save_checkpoints(Store, Pending) of
        ok ->
            State#state{pending = #{}};
        {error, Reason} ->
            ?LOG_WARNING("store ~tp: checkpoints are not saved yet: ~tp", [Store, Reason]),
            timed(State)
    end.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{pending = Pending}) when map_size(Pending) =:= 0 -> ok;
terminate(_Reason, State) ->
    _ = saved(State),
    ok.
