-module(erl_esdb_lifecycle).
-moduledoc """
Tells of the stores: that one has started, has stopped, or has given up.

One process for all stores, which watches their engines and supervisors. Nobody waits for it: so the
handlers of these events, which run in it one after the other, may start, stop and list stores. They
are told a moment after it happened, as a rule when `start_store` or `stop_store` has returned. Only
the end of the application waits for them, up to five seconds; a handler that ends the application
itself has it wait so long.

| event | when |
|---|---|
| `[erl_esdb, store, started]` | an engine can be used, also one that was started again |
| `[erl_esdb, store, stopped]` | it has ended; `reason` is `shutdown` where that was asked for |
| `[erl_esdb, store, gave_up]` | it ended too often and is not started again; the log has a line |
""".

-behaviour(gen_server).

-export([start_link/0, watch/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([life/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-doc "What there is to tell of a running engine; `since` is in monotonic milliseconds.".
-type life() :: #{
    engine := pid(),
    supervisor := pid(),
    since := integer(),
    mode := single | cluster,
    data_dir := file:filename() | undefined
}.

-record(watched, {
    store :: atom(),
    life :: life(),
    %% the engine's monitor, as long as it lives; then why it ended
    engine :: reference() | undefined,
    reason :: term()
}).

%% By the supervisors of the stores.
-type state() :: #{pid() => #watched{}}.

-doc false.
-spec start_link() -> gen_server:start_ret().
start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-doc "The engine's word that its store runs from now on.".
-spec watch(Store :: atom(), life()) -> ok.
watch(Store, Life) -> gen_server:cast(?MODULE, {watch, Store, Life}).

-doc false.
%% The stores that run already were told of by a process before this one.
-spec init([]) -> {ok, state()}.
init([]) ->
    process_flag(trap_exit, true),
    Watch = fun({Store, Life}, State) -> watched(Store, Life, State) end,
    {ok, lists:foldl(Watch, #{}, erl_esdb_engine:lives())}.

-doc false.
-spec handle_call(term(), gen_server:from(), state()) ->
    {reply, {error, unknown_request}, state()}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast({watch, Store, #{mode := Mode, data_dir := Dir} = Life}, State) ->
    State1 = watched(Store, Life, State),
    tell(?STORE_STARTED, #{}, #{store_id => Store, mode => Mode, data_dir => Dir}),
    {noreply, State1};
handle_cast(_, State) ->
    {noreply, State}.

-doc false.
-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({{engine, Sup}, _, process, _, Reason}, State) ->
    #{Sup := Watched} = State,
    {noreply, State#{Sup := engine_down(Reason, Watched)}};
handle_info({{supervisor, Sup}, _, process, Sup, Reason}, State) ->
    {Watched, State1} = maps:take(Sup, State),
    supervisor_down(has_given_up(Sup, Reason), settled(Sup, Watched)),
    {noreply, State1};
handle_info(_, State) ->
    {noreply, State}.

-doc false.
%% The supervisor of all ends its stores first.
-spec terminate(term(), state()) -> ok.
terminate(_Reason, State) ->
    maps:foreach(fun(Sup, Watched) -> is_process_alive(Sup) orelse last(Sup, Watched) end, State).

-spec last(pid(), #watched{}) -> ok.
last(Sup, Watched) ->
    receive
        {{supervisor, Sup}, _, process, Sup, Reason} ->
            supervisor_down(has_given_up(Sup, Reason), settled(Sup, Watched))
    end.

-spec watched(atom(), life(), state()) -> state().
watched(Store, #{supervisor := Sup, engine := Engine} = Life, State) ->
    _ =
        case State of
            #{Sup := Before} -> settled(Sup, Before);
            #{} -> monitor(process, Sup, [{tag, {supervisor, Sup}}])
        end,
    Ref = monitor(process, Engine, [{tag, {engine, Sup}}]),
    %% The runtime sends a monitor later than a message to somebody else, at the latest when the
    %% process pauses. So this is told why an engine ended that is killed at once by who was told.
    true = erlang:yield(),
    State#{Sup => #watched{store = Store, life = Life, engine = Ref}}.

%% An engine whose supervisor has started the next one, or has ended, has ended too: the news of it
%% is on its way at least.
-spec settled(pid(), #watched{}) -> #watched{}.
settled(_Sup, #watched{engine = undefined} = Watched) ->
    Watched;
settled(Sup, #watched{engine = Ref} = Watched) ->
    receive
        {{engine, Sup}, Ref, process, _, Reason} -> engine_down(Reason, Watched)
    end.

-spec engine_down(term(), #watched{}) -> #watched{}.
engine_down(Down, #watched{store = Store, life = Life} = Watched) ->
    #{engine := Engine, since := Since} = Life,
    Reason = erl_esdb_engine:ended(Store, Engine, Down),
    Uptime = erlang:monotonic_time(millisecond) - Since,
    tell(?STORE_STOPPED, #{uptime_ms => Uptime}, #{store_id => Store, reason => Reason}),
    Watched#watched{engine = undefined, reason = Reason}.

%% A supervisor says `shutdown' when it was told to end and when it gave up. One that was killed is
%% started again.
-spec has_given_up(pid(), term()) -> boolean().
has_given_up(Sup, Reason) ->
    not erl_esdb_engine:was_stopped(Sup) andalso Reason =:= shutdown andalso
        erl_esdb_sup:state() =:= open.

-spec supervisor_down(GaveUp :: boolean(), #watched{}) -> ok.
supervisor_down(false, _) ->
    ok;
supervisor_down(true, #watched{store = Store, reason = Reason}) ->
    ?LOG_ERROR("store ~tp ended too often and is not started again; the last time: ~tP", [
        Store, Reason, 30
    ]),
    tell(?STORE_GAVE_UP, #{}, #{store_id => Store, reason => Reason}).

-spec tell(erl_esdb_telemetry:event_name(), map(), map()) -> ok.
tell(Event, Measurements, Metadata) ->
    Now = erlang:system_time(millisecond),
    erl_esdb_telemetry:emit(Event, Measurements#{system_time => Now}, Metadata).
