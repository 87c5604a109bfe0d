-module(erl_esdb_metrics_registered).
-moduledoc """
Registers the metrics as long as it lives: what events tell (`m:erl_esdb_metrics_events`), and what
stores are asked at each scrape (`m:erl_esdb_metrics_collector`).
""".

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-doc false.
-spec start_link(prometheus_registry:registry()) -> gen_server:start_ret().
start_link(Registry) -> gen_server:start_link({local, ?MODULE}, ?MODULE, Registry, []).

-doc false.
-spec init(Registry) -> {ok, Registry} when Registry :: prometheus_registry:registry().
init(Registry) ->
    process_flag(trap_exit, true),
    %% One before may have been killed.
    ok = withdraw(Registry),
    ok = erl_esdb_metrics_events:declare(Registry),
    ok = prometheus_registry:register_collector(Registry, erl_esdb_metrics_collector),
    ok = erl_esdb_metrics_events:attach(Registry),
    {ok, Registry}.

-doc false.
-spec handle_call(term(), gen_server:from(), State) -> {reply, {error, unknown_request}, State}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), State) -> {noreply, State}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), State) -> {noreply, State}.
handle_info(_, State) -> {noreply, State}.

-doc false.
-spec terminate(term(), prometheus_registry:registry()) -> ok.
terminate(_Reason, Registry) ->
    ok = withdraw(Registry),
    erl_esdb_metrics_events:undeclare(Registry).

%% What was counted stays.
-spec withdraw(prometheus_registry:registry()) -> ok.
withdraw(Registry) ->
    ok = erl_esdb_metrics_events:detach(),
    prometheus_registry:deregister_collector(Registry, erl_esdb_metrics_collector).
