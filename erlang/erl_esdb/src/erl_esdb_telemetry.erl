-module(erl_esdb_telemetry).
-moduledoc """
Telemetry of the store. The names of the events are macros in `erl_esdb_telemetry.hrl`.

With the library `telemetry` on the code path, events go there and handlers are attached there.
Without it, handlers are kept here with the same rules: a handler runs in the process that emits,
and one that crashes is detached with a line in the log.

```erlang
1> Print = fun(Event, Measurements, Metadata, _Config) ->
       io:format("~p ~p ~p~n", [Event, Measurements, Metadata])
   end.
2> erl_esdb_telemetry:attach(my_handler, Print, #{}).
ok
3> erl_esdb_telemetry:detach(my_handler).
ok
```

Durations are in native time units, `system_time` in milliseconds.

With `{telemetry_aliases, true}` in the environment of `erl_esdb`, events that some guides of the
original name otherwise are emitted under that name too, with the same measurements and metadata:

| event | also |
|---|---|
| `[erl_esdb, stream, write, start]` | `[erl_esdb, append, start]` |
| `[erl_esdb, stream, write, stop]` | `[erl_esdb, append, stop]` |
| `[erl_esdb, stream, write, error]` | `[erl_esdb, append, exception]` |
| `[erl_esdb, stream, read, start]`, `stop` | `[erl_esdb, read, start]`, `stop` |
| `[erl_esdb, health, probe, complete]` | `[erl_esdb, health, probe]` |
| `[erl_esdb, health, node, failed]`, `recovered` | `[erl_esdb, health, change]` |
""".

-export([attach/3, attach_many/4, detach/1, attach_default_handler/0, detach_default_handler/0]).
-export([attach_logger/0, detach_logger/0]).
-export([emit/3, span/3, handle_event/4, set_aliases/1]).
-export_type([handler/0, event_name/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb_telemetry.hrl").

-define(HANDLERS, {?MODULE, handlers}).
-define(ALIASES, {?MODULE, aliases}).
-define(DEFAULT_ID, erl_esdb_telemetry_handler).
-define(LOGGER_ID, erl_esdb_logger_handler).

-type event_name() :: [atom(), ...].
-type handler() :: fun((event_name(), map(), map(), Config :: term()) -> term()).

-define(EVENTS, [
    ?STREAM_WRITE_START,
    ?STREAM_WRITE_STOP,
    ?STREAM_WRITE_ERROR,
    ?STREAM_READ_START,
    ?STREAM_READ_STOP,
    ?SUBSCRIPTION_CREATED,
    ?SUBSCRIPTION_DELETED,
    ?SUBSCRIPTION_EVENT_DELIVERED,
    ?SNAPSHOT_CREATED,
    ?SNAPSHOT_READ,
    ?CLUSTER_NODE_UP,
    ?CLUSTER_NODE_DOWN,
    ?CLUSTER_LEADER_ELECTED,
    ?STORE_STARTED,
    ?STORE_STOPPED,
    ?EMITTER_BROADCAST,
    ?EMITTER_POOL_CREATED
]).
-define(LOGGED, [
    ?STREAM_WRITE_STOP,
    ?STREAM_WRITE_ERROR,
    ?STREAM_READ_STOP,
    ?SUBSCRIPTION_CREATED,
    ?SUBSCRIPTION_DELETED,
    ?CLUSTER_NODE_UP,
    ?CLUSTER_NODE_DOWN,
    ?CLUSTER_LEADER_ELECTED,
    ?STORE_STARTED,
    ?STORE_STOPPED
]).

-doc "Attaches a handler to the 17 events of streams, subscriptions, snapshots, nodes and stores.".
-spec attach(Id :: term(), handler(), Config :: term()) -> ok | {error, already_exists}.
attach(Id, Handler, Config) -> attach_many(Id, ?EVENTS, Handler, Config).

-doc "Attaches a handler to the named events.".
-spec attach_many(Id :: term(), [event_name()], handler(), Config :: term()) ->
    ok | {error, already_exists}.
attach_many(Id, Events, Handler, Config) when is_function(Handler, 4) ->
    is_list_of(fun is_event_name/1, Events) orelse error(badarg),
    case library() of
        true -> telemetry_call(attach_many, [Id, Events, Handler, Config]);
        false -> locked(fun(Handlers) -> attach_own(Id, Events, Handler, Config, Handlers) end)
    end;
attach_many(_, _, _, _) ->
    error(badarg).

-spec is_event_name(term()) -> boolean().
is_event_name(Name) -> Name =/= [] andalso is_list_of(fun erlang:is_atom/1, Name).

-spec is_list_of(fun((term()) -> boolean()), term()) -> boolean().
is_list_of(Is, [Head | Tail]) -> Is(Head) andalso is_list_of(Is, Tail);
is_list_of(_Is, Tail) -> Tail =:= [].

-doc "Detaches a handler.".
-spec detach(Id :: term()) -> ok | {error, not_found}.
detach(Id) ->
    case locked(fun(Handlers) -> detach_own(Id, Handlers) end) of
        ok -> ok;
        {error, not_found} -> detach_library(Id, library())
    end.

-spec detach_library(term(), boolean()) -> ok | {error, not_found}.
detach_library(Id, true) -> telemetry_call(detach, [Id]);
detach_library(_Id, false) -> {error, not_found}.

-doc "Attaches `handle_event/4`, which logs, to the events of `attach/3`.".
-spec attach_default_handler() -> ok | {error, already_exists}.
attach_default_handler() -> attach(?DEFAULT_ID, fun ?MODULE:handle_event/4, #{}).

-doc "Detaches what `attach_default_handler/0` attached.".
-spec detach_default_handler() -> ok | {error, not_found}.
detach_default_handler() -> detach(?DEFAULT_ID).

-doc false.
%% What the application does for `{telemetry_handlers, [logger]}'.
-spec attach_logger() -> ok | {error, already_exists}.
attach_logger() -> attach_many(?LOGGER_ID, ?LOGGED, fun ?MODULE:handle_event/4, #{}).

-doc false.
-spec detach_logger() -> ok | {error, not_found}.
detach_logger() -> detach(?LOGGER_ID).

-doc "Calls the handlers of an event.".
-spec emit(event_name(), Measurements :: map(), Metadata :: map()) -> ok.
emit(Event, Measurements, Metadata) when is_map(Measurements), is_map(Metadata) ->
    execute(Event, Measurements, Metadata),
    case persistent_term:get(?ALIASES, #{}) of
        #{Event := Alias} -> execute(Alias, Measurements, Metadata);
        #{} -> ok
    end;
emit(_, _, _) ->
    error(badarg).

-spec execute(event_name(), map(), map()) -> ok.
execute(Event, Measurements, Metadata) ->
    case persistent_term:get(?HANDLERS, #{}) of
        #{Event := Handlers} -> run(Handlers, Event, Measurements, Metadata);
        #{} -> ok
    end,
    case library() of
        true -> telemetry_call(execute, [Event, Measurements, Metadata]);
        false -> ok
    end.

-doc false.
%% What the application does for `{telemetry_aliases, true}'.
-spec set_aliases(boolean()) -> ok.
set_aliases(true) ->
    persistent_term:put(?ALIASES, #{
        ?STREAM_WRITE_START => [erl_esdb, append, start],
        ?STREAM_WRITE_STOP => [erl_esdb, append, stop],
        ?STREAM_WRITE_ERROR => [erl_esdb, append, exception],
        ?STREAM_READ_START => [erl_esdb, read, start],
        ?STREAM_READ_STOP => [erl_esdb, read, stop],
        ?HEALTH_PROBE_COMPLETE => [erl_esdb, health, probe],
        ?HEALTH_NODE_FAILED => [erl_esdb, health, change],
        ?HEALTH_NODE_RECOVERED => [erl_esdb, health, change]
    });
set_aliases(false) ->
    _ = persistent_term:erase(?ALIASES),
    ok.

-doc """
Runs a fun between the events `Prefix ++ [start]` and `Prefix ++ [stop]`, and gives its result.

An exception of the fun makes the event `Prefix ++ [exception]` with `kind`, `reason` and
`stacktrace`, and is raised again.
""".
-spec span(event_name(), Metadata :: map(), fun(() -> Result)) -> Result.
span(Prefix, Metadata, Fun) ->
    Begin = erlang:monotonic_time(),
    Start = #{system_time => erlang:system_time(millisecond), monotonic_time => Begin},
    emit(Prefix ++ [start], Start, Metadata),
    try Fun() of
        Result ->
            emit(Prefix ++ [stop], since(Begin), Metadata),
            Result
    catch
        Kind:Reason:Stack ->
            Failure = Metadata#{kind => Kind, reason => Reason, stacktrace => Stack},
            emit(Prefix ++ [exception], since(Begin), Failure),
            erlang:raise(Kind, Reason, Stack)
    end.

-spec since(integer()) -> map().
since(Begin) ->
    Now = erlang:monotonic_time(),
    #{duration => Now - Begin, monotonic_time => Now}.

-doc """
The handler that logs: changes of the cluster as notices, refused writes, stores starting and
stopping as information, the rest for debugging. Takes any event, also with keys missing.
""".
-spec handle_event(event_name(), map(), map(), Config :: term()) -> ok.
handle_event(Event, Measurements, Metadata, _Config) ->
    logger:log(level(Event), fun report/1, #{
        event => Event, measurements => Measurements, metadata => Metadata
    }).

-spec level(event_name()) -> logger:level().
level(?STREAM_WRITE_ERROR) -> info;
level([erl_esdb, cluster | _]) -> notice;
level([erl_esdb, store | _]) -> info;
level(_) -> debug.

-spec report(map()) -> {io:format(), [term()]}.
report(#{event := Event, measurements := Measurements, metadata := Metadata}) ->
    {"~tp ~tp ~tp", [Event, Measurements, Metadata]}.

%% ---- the library

%% Not called by its name, so that it need not be there.
-spec telemetry_call(atom(), [term()]) -> term().
telemetry_call(Function, Args) -> apply(telemetry, Function, Args).

-spec library() -> boolean().
library() -> erlang:function_exported(telemetry, execute, 3).

%% ---- handlers kept here: rarely changed, read by every call of every process

-spec attach_own(term(), [event_name()], handler(), term(), map()) ->
    {ok, map()} | {error, already_exists}.
attach_own(Id, Events, Handler, Config, Handlers) ->
    case is_attached(Id, Handlers) of
        true -> {error, already_exists};
        false -> {ok, lists:foldl(adder({Id, Handler, Config}), Handlers, Events)}
    end.

-spec adder(tuple()) -> fun((event_name(), map()) -> map()).
adder(Entry) ->
    fun(Event, Acc) -> Acc#{Event => maps:get(Event, Acc, []) ++ [Entry]} end.

-spec detach_own(term(), map()) -> {ok, map()} | {error, not_found}.
detach_own(Id, Handlers) ->
    case is_attached(Id, Handlers) of
        true -> {ok, #{E => List || E := All <- Handlers, [_ | _] = List <- [without(Id, All)]}};
        false -> {error, not_found}
    end.

-spec without(term(), [tuple()]) -> [tuple()].
without(Id, Entries) -> lists:keydelete(Id, 1, Entries).

-spec is_attached(term(), map()) -> boolean().
is_attached(Id, Handlers) ->
    lists:any(fun(List) -> lists:keymember(Id, 1, List) end, maps:values(Handlers)).

-spec locked(fun((map()) -> {ok, map()} | {error, Reason})) -> ok | {error, Reason}.
locked(Change) ->
    global:trans({?MODULE, self()}, fun() -> change(Change) end, [node()]).

-spec change(fun((map()) -> {ok, map()} | {error, Reason})) -> ok | {error, Reason}.
change(Change) ->
    case Change(persistent_term:get(?HANDLERS, #{})) of
        {ok, Handlers} -> keep(Handlers);
        {error, Reason} -> {error, Reason}
    end.

-spec keep(map()) -> ok.
keep(Handlers) when map_size(Handlers) =:= 0 ->
    _ = persistent_term:erase(?HANDLERS),
    ok;
keep(Handlers) ->
    persistent_term:put(?HANDLERS, Handlers).

-spec run([{term(), handler(), term()}], event_name(), map(), map()) -> ok.
run(Handlers, Event, Measurements, Metadata) ->
    lists:foreach(fun(Entry) -> run_one(Entry, Event, Measurements, Metadata) end, Handlers).

-spec run_one({term(), handler(), term()}, event_name(), map(), map()) -> ok.
run_one({Id, Handler, Config}, Event, Measurements, Metadata) ->
    try Handler(Event, Measurements, Metadata, Config) of
        _ -> ok
    catch
        Class:Reason:Stack ->
            ?LOG_ERROR(
                "Handler ~tp has failed and has been detached: ~tp ~tp~n~tp",
                [Id, Class, Reason, Stack]
            ),
            _ = detach(Id),
            ok
    end.
