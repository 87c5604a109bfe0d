-module(erl_esdb_persistence_worker).
-moduledoc """
What the original flushed its stores with.

Nothing is flushed here: an append that was acknowledged is as durable as its engine promises, at
once. What remains of it is a barrier and a sign of life. `force_persistence/1` answers `ok` when
the engine answers, and everything that was acknowledged before is kept then; each cycle asks the
same, and tells telemetry.

```erlang
1> erl_esdb_persistence_worker:force_persistence(shop).
ok
```

The interval is that of the option `persistence_interval` of the store, of the application's
environment, or 5000 milliseconds.

| event | measurements | metadata |
|---|---|---|
| `[erl_esdb, persistence_worker, started]` | `system_time` | `store_id`, `persistence_interval` |
| the same with `cycle` or `forced` | `duration`, `pending_count` | `store_id`, `result` |
""".

-behaviour(gen_server).

-export([start_link/1, request_persistence/1, force_persistence/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Milliseconds.
-define(INTERVAL, 5000).
-define(FORCE_TIMEOUT, 30_000).

-record(state, {
    store :: atom(),
    interval :: pos_integer(),
    %% requests since the last cycle
    pending = 0 :: non_neg_integer()
}).

-doc "Starts the worker, registered as `erl_esdb_naming:persistence_worker_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store} = Config) ->
    Name = erl_esdb_naming:persistence_worker_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, Config, [])
    end).

-doc "Asks for the next cycle to count this request. Does not wait.".
-spec request_persistence(Store :: atom()) -> ok | {error, not_found}.
request_persistence(Store) ->
    case whereis(erl_esdb_naming:persistence_worker_name(Store)) of
        undefined -> {error, not_found};
        Pid -> gen_server:cast(Pid, request)
    end.

-doc """
Answers when everything that was acknowledged before is kept.

Errors: `not_found` where the store does not run, `{timeout, Store}` after 30 seconds, or those of
`m:erl_esdb_streams`.
""".
-spec force_persistence(Store :: atom()) -> ok | {error, term()}.
force_persistence(Store) ->
    try
        gen_server:call(erl_esdb_naming:persistence_worker_name(Store), force, ?FORCE_TIMEOUT)
    catch
        exit:{timeout, _} -> {error, {timeout, Store}};
        exit:{_, {gen_server, call, _}} -> {error, not_found}
    end.

%% ---- the process

-doc false.
-spec init(store_config()) -> {ok, #state{}}.
init(#store_config{store_id = Store} = Config) ->
    %% The last flush is in terminate/2.
    process_flag(trap_exit, true),
    Interval = interval(Config),
    erl_esdb_telemetry:emit(
        ?PERSISTENCE_WORKER_STARTED,
        #{system_time => erlang:system_time(millisecond)},
        #{store_id => Store, persistence_interval => Interval}
    ),
    {ok, scheduled(#state{store = Store, interval = Interval})}.

-spec interval(store_config()) -> pos_integer().
interval(#store_config{options = #{persistence_interval := Interval}}) -> Interval;
interval(#store_config{}) -> erl_esdb_config:get_env(persistence_interval, ?INTERVAL).

-spec scheduled(#state{}) -> #state{}.
scheduled(#state{interval = Interval} = State) ->
    _ = erlang:send_after(Interval, self(), cycle),
    State.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(force, _From, State) ->
    {Result, State1} = flushed(?PERSISTENCE_WORKER_FORCED, State),
    {reply, Result, State1};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(request, #state{pending = Pending} = State) ->
    {noreply, State#state{pending = Pending + 1}};
handle_cast(_, State) ->
    {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info(cycle, State) ->
    {_, State1} = flushed(?PERSISTENCE_WORKER_CYCLE, State),
    {noreply, scheduled(State1)};
handle_info(_, State) ->
    {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{pending = 0}) ->
    ok;
terminate(_Reason, State) ->
    _ = flushed(?PERSISTENCE_WORKER_CYCLE, State),
    ok.

-spec flushed(erl_esdb_telemetry:event_name(), #state{}) -> {ok | {error, term()}, #state{}}.
flushed(Event, #state{store = Store, pending = Pending} = State) ->
    Begin = erlang:monotonic_time(),
    Result = flush(Store),
    Duration = erlang:monotonic_time() - Begin,
    Measurements = #{duration => Duration, pending_count => Pending},
    erl_esdb_telemetry:emit(Event, Measurements, #{store_id => Store, result => Result}),
    {Result, State#state{pending = 0}}.

-spec flush(atom()) -> ok | {error, term()}.
flush(Store) ->
    case erl_esdb_store:next_position(Store) of
        {ok, _} -> ok;
        {error, Reason} -> {error, Reason}
    end.
