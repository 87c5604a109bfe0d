-module(erl_esdb_lifecycle).
-moduledoc "Emits that a store has started and, when it stops, that and how long it ran.".

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, terminate/2]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-doc false.
-spec start_link(store_config()) -> {ok, pid()} | {error, term()}.
start_link(Config) -> gen_server:start_link(?MODULE, Config, []).

-doc false.
-spec init(store_config()) -> {ok, {atom(), integer()}}.
init(#store_config{store_id = Store, mode = Mode, data_dir = Dir}) ->
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    Now = #{system_time => erlang:system_time(millisecond)},
    Metadata = #{store_id => Store, mode => Mode, data_dir => Dir},
    erl_esdb_telemetry:emit(?STORE_STARTED, Now, Metadata),
    {ok, {Store, erlang:monotonic_time(millisecond)}}.

-doc false.
-spec handle_call(term(), gen_server:from(), State) -> {reply, {error, unknown_request}, State}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), State) -> {noreply, State}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec terminate(term(), {atom(), integer()}) -> ok.
terminate(Reason, {Store, Begin}) ->
    Measurements = #{
        system_time => erlang:system_time(millisecond),
        uptime_ms => erlang:monotonic_time(millisecond) - Begin
    },
    erl_esdb_telemetry:emit(?STORE_STOPPED, Measurements, #{store_id => Store, reason => Reason}).
