-module(erl_esdb_delivery).
-moduledoc """
Where the processes that deliver the events of a store are found, and who takes them.

It stands in the store's own table (`m:erl_esdb_volatile`), which belongs to its supervisor: so it
is there when a process begins again after a crash, who took events before still gets them, and it
ends with the store. Each is found by a kind and an id: `feed`, `checkpoints` and `manager` stand
once in a store, `subscription` and `projection` under their key; `consumer` is the process that
takes the events of a subscription without being named in its record, `handlers` are those that may
have been sent some as handlers, the latest first.

Of a store that lives on several nodes the subscriptions run where it is led. Who takes their events
is kept in the store then, and who were handlers, so that the next node that leads knows it.
""".

-export([put/4, find/3, pid/3, remove/3, remove/4, ids/2, outlive/3]).
-export([call/5, call_leader/5, call_leading/5]).
-export([put_consumers/3, consumers/2, consumers_values/3, forget_consumers/1]).
-export([put_handlers/3, load_handlers/2, handlers/3, handlers_values/3]).
-export([begin_life/0, life_values/1, is_of_this_life/1, without_processes/1]).
-export([claim/3, is_shared/1, is_failure/2]).
-export_type([kind/0]).

%% Under which a store keeps in which life of a node without a name it was given names of processes.
-define(LIFE, {?MODULE, life}).
%% Milliseconds for a process to end, as its supervisor gives it.
-define(SHUTDOWN, 5000).

-type kind() ::
    feed
    | checkpoints
    | manager
    | subscriptions
    | subscription
    | projection
    | consumer
    | handlers.

-doc false.
-spec put(Store :: atom(), kind(), Id :: term(), Value :: term()) -> ok.
put(Store, Kind, Id, Value) -> ok = erl_esdb_volatile:put(Store, {?MODULE, Kind, Id}, Value).

-doc false.
-spec find(Store :: atom(), kind(), Id :: term()) -> {ok, term()} | error.
find(Store, Kind, Id) ->
    case erl_esdb_volatile:get(Store, {?MODULE, Kind, Id}) of
        {ok, Value} -> {ok, Value};
        {error, not_found} -> error
    end.

-doc false.
-spec pid(Store :: atom(), kind(), Id :: term()) ->
    {ok, pid()} | {error, {store_not_started, atom()} | not_found}.
pid(Store, Kind, Id) ->
    case {find(Store, Kind, Id), Id} of
        {{ok, Pid}, _} -> {ok, Pid};
        {error, none} -> {error, {store_not_started, Store}};
        {error, _} -> {error, not_found}
    end.

-doc false.
-spec remove(Store :: atom(), kind(), Id :: term()) -> ok.
remove(Store, Kind, Id) -> erl_esdb_volatile:delete(Store, {?MODULE, Kind, Id}).

-doc false.
%% What a process says that ends: the one that has begun in its place may stand there.
-spec remove(Store :: atom(), kind(), Id :: term(), Value :: term()) -> ok.
remove(Store, Kind, Id, Value) -> erl_esdb_volatile:delete(Store, {?MODULE, Kind, Id}, Value).

-doc false.
%% Waits until the process that stands there has ended. Whose supervisor was killed has heard of it,
%% and may have something to do before.
-spec outlive(Store :: atom(), kind(), Id :: term()) -> ok.
outlive(Store, Kind, Id) ->
    case find(Store, Kind, Id) of
        {ok, Pid} when Pid =/= self() -> ended(Pid, ?SHUTDOWN);
        _ -> ok
    end.

-spec ended(pid(), timeout()) -> ok.
ended(Pid, Timeout) ->
    Ref = monitor(process, Pid),
    receive
        {'DOWN', Ref, process, _, _} -> ok
    after Timeout ->
        true = demonitor(Ref, [flush]),
        true = exit(Pid, kill),
        ended(Pid, infinity)
    end.

-doc false.
-spec ids(Store :: atom(), kind()) -> [term()].
ids(Store, Kind) -> [Id || {_, _, Id} <- erl_esdb_volatile:keys(Store, {?MODULE, Kind, '_'})].

-doc false.
%% Asks a process of a store, and waits so long for the answer as the options say, or the store. A
%% process that ends meanwhile, as all do with the store, has perhaps done what was asked.
-spec call(Store :: atom(), kind(), Id :: term(), Request :: term(), #{
    timeout => timeout(), _ => _
}) -> term() | {error, not_found | {store_not_started | timeout, atom()}}.
call(Store, Kind, Id, Request, Options) ->
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        {ok, Pid} ?= pid(Store, Kind, Id),
        called(Store, Pid, Request, erl_esdb_store:timeout(Options, Settings))
    end.

-spec called(atom(), pid(), term(), timeout()) ->
    term() | {error, {store_not_started | timeout, atom()}}.
called(Store, Pid, Request, Timeout) ->
    try
        gen_server:call(Pid, Request, Timeout)
    catch
        exit:{timeout, _} -> {error, {timeout, Store}};
        exit:_ -> {error, {store_not_started, Store}}
    end.

-doc false.
%% The same on the node that leads, from any other.
-spec call_leader(Store :: atom(), kind(), Id :: term(), Request :: term(), #{
    timeout => timeout(), _ => _
}) -> term() | {error, not_found | erl_esdb_store:failure()}.
call_leader(Store, Kind, Id, Request, Options) ->
    Call = {?MODULE, call_leading, [Store, Kind, Id, Request]},
    erl_esdb_cluster:at_leader(Store, Call, Options).

-doc false.
%% The same, on the node that leads.
-spec call_leading(Store :: atom(), kind(), Id :: term(), Request :: term(), #{
    timeout => timeout(), _ => _
}) -> term() | {error, not_found | {not_leader, atom()} | erl_esdb_store:failure()}.
call_leading(Store, Kind, Id, Request, Options) ->
    case erl_esdb_cluster:check_leading(Store) of
        ok -> call(Store, Kind, Id, Request, Options);
        {error, Reason} -> {error, Reason}
    end.

-doc false.
%% Who takes the events of a subscription: a process, or several with what is told of them. Other
%% nodes know it a moment later.
-spec put_consumers(Store :: atom(), Key :: binary(), pid() | #{pid() => term()}) -> ok.
put_consumers(Store, Key, Consumers) ->
    ok = put(Store, consumer, Key, Consumers),
    Save = fun(K, Value) -> erl_esdb_checkpoints:save(Store, K, Value) end,
    maps:foreach(Save, consumers_values(Store, Key, Consumers)).

-doc false.
-spec consumers(Store :: atom(), Key :: binary()) -> {ok, pid() | #{pid() => term()}} | error.
consumers(Store, Key) ->
    maybe
        true ?= is_shared(Store),
        {ok, Consumers} ?= erl_esdb_checkpoints:get(Store, {consumer, Key}),
        {ok, Consumers}
    else
        _ -> find(Store, consumer, Key)
    end.

-doc false.
%% What is to be saved for the other nodes, with what is saved besides: nothing where there are
%% none.
-spec consumers_values(Store :: atom(), Key :: binary(), pid() | #{pid() => term()} | delete) ->
    erl_esdb_log:checkpoints().
consumers_values(Store, Key, Consumers) ->
    case is_shared(Store) of
        true -> #{{consumer, Key} => Consumers};
        false -> #{}
    end.

-doc false.
%% Whether other nodes deliver too, in turn. Names of processes say nothing there where this one has
%% no name.
-spec is_shared(Store :: atom()) -> boolean().
is_shared(Store) -> is_alive() andalso erl_esdb_cluster:is_clustered(Store).

-doc false.
%% What this node knows of it by itself: another leads from now on.
-spec forget_consumers(Store :: atom()) -> ok.
forget_consumers(Store) ->
    Forget = fun(Kind) -> [remove(Store, Kind, Key) || Key <- ids(Store, Kind)] end,
    lists:foreach(Forget, [Kind || is_shared(Store), Kind <- [consumer, handlers]]).

-doc false.
%% Who may have been sent events as a handler. When this returns, other nodes know it: an event that
%% is sent before is one of which the next that leads cannot tell whose it was.
-spec put_handlers(Store :: atom(), Key :: binary(), [pid()]) ->
    ok | {error, erl_esdb_store:failure()}.
put_handlers(Store, Key, Pids) ->
    maybe
        ok ?= saved(Store, handlers_values(Store, Key, Pids)),
        put(Store, handlers, Key, Pids)
    end.

-spec saved(atom(), erl_esdb_log:checkpoints()) -> ok | {error, erl_esdb_store:failure()}.
saved(_Store, Values) when map_size(Values) =:= 0 -> ok;
saved(Store, Values) -> erl_esdb_checkpoints:put(Store, Values).

-doc false.
%% What the process of a subscription begins with, on the node that leads.
-spec load_handlers(Store :: atom(), Key :: binary()) ->
    {ok, [pid()]} | {error, erl_esdb_store:failure()}.
load_handlers(Store, Key) ->
    maybe
        true ?= is_shared(Store),
        {ok, Pids} ?= kept_handlers(Store, Key, #{}),
        ok = put(Store, handlers, Key, Pids),
        {ok, Pids}
    else
        false -> {ok, known_handlers(Store, Key)};
        {error, Reason} -> {error, Reason}
    end.

-doc false.
%% Where no process of the subscription has begun here yet, what the one before knew is asked for.
-spec handlers(Store :: atom(), Key :: binary(), #{timeout => timeout(), _ => _}) ->
    {ok, [pid()]} | {error, erl_esdb_store:failure()}.
handlers(Store, Key, Options) ->
    case find(Store, handlers, Key) =:= error andalso is_shared(Store) of
        true -> kept_handlers(Store, Key, Options#{consistency => linearizable});
        false -> {ok, known_handlers(Store, Key)}
    end.

-spec known_handlers(atom(), binary()) -> [pid()].
known_handlers(Store, Key) ->
    case find(Store, handlers, Key) of
        {ok, Pids} -> Pids;
        error -> []
    end.

-spec kept_handlers(atom(), binary(), #{timeout => timeout(), _ => _}) ->
    {ok, [pid()]} | {error, erl_esdb_store:failure()}.
kept_handlers(Store, Key, Options) ->
    case erl_esdb_store:checkpoint(Store, {handlers, Key}, Options) of
        {ok, Pids} -> {ok, Pids};
        {error, not_found} -> {ok, []};
        {error, Reason} -> {error, Reason}
    end.

-doc false.
%% As `consumers_values/3'.
-spec handlers_values(Store :: atom(), Key :: binary(), [pid()] | delete) ->
    erl_esdb_log:checkpoints().
handlers_values(Store, Key, Pids) ->
    case is_shared(Store) of
        true -> #{{handlers, Key} => Pids};
        false -> #{}
    end.

-doc false.
%% A node without a name gives the names of its processes anew each time that it is started: a store
%% on disk has to know whether a name that it kept is one of now.
-spec begin_life() -> ok.
begin_life() ->
    case persistent_term:get(?LIFE, none) of
        none -> persistent_term:put(?LIFE, crypto:strong_rand_bytes(16));
        _ -> ok
    end.

-doc false.
%% What is to be saved with the name of a process.
-spec life_values(Store :: atom()) -> erl_esdb_log:checkpoints().
life_values(Store) ->
    case is_without_names(Store) of
        true -> #{?LIFE => persistent_term:get(?LIFE)};
        false -> #{}
    end.

-doc false.
%% Whether the names that a store has kept are of now.
-spec is_of_this_life(Store :: atom()) -> {ok, boolean()} | {error, erl_esdb_store:failure()}.
is_of_this_life(Store) ->
    maybe
        true ?= is_without_names(Store),
        {ok, Life} ?= erl_esdb_store:checkpoint(Store, ?LIFE),
        {ok, Life =:= persistent_term:get(?LIFE)}
    else
        false -> {ok, true};
        {error, not_found} -> {ok, true};
        {error, Reason} -> {error, Reason}
    end.

-spec is_without_names(atom()) -> boolean().
is_without_names(Store) -> not is_alive() andalso erl_esdb_cluster:is_clustered(Store).

-doc false.
%% Checkpoints without those that name processes: a copy of the store has others.
-spec without_processes(#{term() => term()}) -> #{term() => term()}.
without_processes(Checkpoints) -> #{K => V || K := V <- Checkpoints, not is_of_processes(K)}.

-spec is_of_processes(term()) -> boolean().
is_of_processes({consumer, _}) -> true;
is_of_processes({handlers, _}) -> true;
is_of_processes(Key) -> Key =:= ?LIFE.

-doc false.
%% Puts the calling process there, unless another one that lives stands there.
-spec claim(Store :: atom(), kind(), Id :: term()) ->
    ok | {error, {already_started, pid()} | {store_not_started, atom()}}.
claim(Store, Kind, Id) -> erl_esdb_volatile:claim(Store, {?MODULE, Kind, Id}).

-doc false.
%% Whether an error says that the store does not answer, which passes.
-spec is_failure(term(), atom()) -> boolean().
is_failure({Why, Store}, Store) ->
    lists:member(Why, [store_not_started, timeout, no_quorum, overloaded]);
is_failure(_, _) ->
    false.
