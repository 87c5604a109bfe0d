-module(erl_esdb_emitter_names).
-moduledoc """
Sees to it that the names of a store's emitters, which are persistent terms, end with the store: it
forgets what an earlier run has left when it begins, and all when it ends, after the pools.
""".

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, terminate/2]).

-doc false.
-spec start_link(Store :: atom()) -> gen_server:start_ret().
start_link(Store) -> gen_server:start_link(?MODULE, Store, []).

-doc false.
-spec init(atom()) -> {ok, atom()}.
init(Store) ->
    %% terminate/2 shall run when the supervisor stops us.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    ok = forget(Store),
    {ok, Store}.

-doc false.
-spec handle_call(term(), gen_server:from(), atom()) -> {reply, {error, unknown_request}, atom()}.
handle_call(_, _From, Store) -> {reply, {error, unknown_request}, Store}.

-doc false.
-spec handle_cast(term(), atom()) -> {noreply, atom()}.
handle_cast(_, Store) -> {noreply, Store}.

-doc false.
-spec terminate(term(), atom()) -> ok.
terminate(_Reason, Store) -> forget(Store).

-spec forget(atom()) -> ok.
forget(Store) ->
    Keys = [Key || {{S, Key, emitters}, _} <- persistent_term:get(), S =:= Store],
    lists:foreach(fun(Key) -> erl_esdb_emitter_group:erase_emitters(Store, Key) end, Keys).
