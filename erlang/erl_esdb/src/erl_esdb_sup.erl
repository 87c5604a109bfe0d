-module(erl_esdb_sup).
-moduledoc """
The top supervisor: one subtree a store, which come and go independently.

A store that gives up is not started again and takes nothing with it: a supervisor that ends by
itself says `shutdown`, and a transient child that does so stays away. The process that tells of
stores, and the scope of process groups `erl_esdb_pg`, are the first children, so that they are
there before and after the stores.
""".

-behaviour(supervisor).

-export([start_link/0, start_store/1, start_store/2, stop_store/1, which_stores/0]).
-export([open/0, close/0, state/0, is_known/1]).
-export([init/1]).

-include("erl_esdb.hrl").

-define(CLOSED, {?MODULE, closed}).

-doc false.
-spec start_link() -> supervisor:startlink_ret().
start_link() -> supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-doc """
Starts a store that the environment names, or that a record describes.

Errors: `not_found` (the environment does not name it), `{already_started, Pid}`,
`{engine_not_available, Engine}`, `{unknown_engine, Engine}`, `{invalid_option, Key, Value}`,
`{invalid_store, Term}`, `{not_started, erl_esdb}` (the application does not run).
""".
-spec start_store(atom() | store_config()) -> {ok, pid()} | {error, term()}.
start_store(Store) when is_atom(Store); is_record(Store, store_config) ->
    start_plan(erl_esdb_config:plan(Store));
start_store(_) ->
    error(badarg).

-doc "Starts a store with options; see `m:erl_esdb_config`. Errors as `start_store/1`.".
-spec start_store(atom(), map()) -> {ok, pid()} | {error, term()}.
start_store(Store, Options) when is_atom(Store), is_map(Options) ->
    start_plan(erl_esdb_config:plan(Store, Options));
start_store(_, _) ->
    error(badarg).

-spec start_plan({ok, erl_esdb_config:plan()} | {error, term()}) -> {ok, pid()} | {error, term()}.
start_plan({ok, {#store_config{store_id = Store}, _, _} = Plan}) ->
    Child = #{
        id => {store, Store},
        start => {erl_esdb_system_sup, start_link, [Plan]},
        restart => transient,
        shutdown => infinity,
        type => supervisor
    },
    started(running(fun() -> start_child(Child) end));
start_plan({error, Reason}) ->
    {error, Reason}.

%% One that gave up is still known to the supervisor.
-spec start_child(supervisor:child_spec()) -> supervisor:startchild_ret().
start_child(#{id := Id} = Child) ->
    case supervisor:start_child(?MODULE, Child) of
        {error, already_present} ->
            _ = supervisor:delete_child(?MODULE, Id),
            start_child(Child);
        Started ->
            Started
    end.

-spec started(term()) -> {ok, pid()} | {error, term()}.
started({ok, Pid}) -> {ok, Pid};
started({error, {Reason, Child}}) when element(1, Child) =:= child -> {error, innermost(Reason)};
started({error, Reason}) -> {error, Reason}.

%% Each supervisor on the way wraps what its child said.
-spec innermost(term()) -> term().
innermost({shutdown, {failed_to_start_child, _, Reason}}) -> innermost(Reason);
innermost(Reason) -> Reason.

-doc "Stops a store. What a memory store held is gone.".
-spec stop_store(atom()) -> ok | {error, not_found}.
stop_store(Store) when is_atom(Store) ->
    case running(fun() -> stop_child({store, Store}) end) of
        ok -> ok;
        {error, _} -> {error, not_found}
    end;
stop_store(_) ->
    error(badarg).

-spec stop_child(term()) -> ok | {error, not_found}.
stop_child(Id) ->
    case lists:keyfind(Id, 1, supervisor:which_children(?MODULE)) of
        {_, Pid, _, _} when is_pid(Pid) ->
            ok = erl_esdb_engine:stopping(Pid),
            terminate_child(Id);
        {_, restarting, _, _} ->
            terminate_child(Id);
        _ ->
            {error, not_found}
    end.

-spec terminate_child(term()) -> ok | {error, not_found}.
terminate_child(Id) ->
    maybe
        ok ?= supervisor:terminate_child(?MODULE, Id),
        %% Where somebody has started it again meanwhile, it is not deleted.
        _ = supervisor:delete_child(?MODULE, Id),
        ok
    end.

-doc "The stores that run, sorted. Waits for no process.".
-spec which_stores() -> [atom()].
which_stores() -> erl_esdb_engine:running().

-doc false.
%% Whether a store runs or is about to be started again: not one that was stopped or gave up. Waits
%% for what the supervisor does at the time.
-spec is_known(atom()) -> boolean().
is_known(Store) ->
    Find = fun() -> lists:keyfind({store, Store}, 1, supervisor:which_children(?MODULE)) end,
    case running(Find) of
        {_, Child, _, _} -> Child =/= undefined;
        _ -> false
    end.

-spec running(fun(() -> Result)) -> Result | {error, {not_started, erl_esdb}}.
running(Fun) ->
    case state() of
        open -> called(Fun);
        _ -> {error, {not_started, erl_esdb}}
    end.

-spec called(fun(() -> Result)) -> Result | {error, {not_started, erl_esdb}}.
called(Fun) ->
    try
        Fun()
    catch
        exit:{_, {gen_server, call, [?MODULE | _]}} -> {error, {not_started, erl_esdb}}
    end.

-doc false.
%% Stores can be started and stopped, the application is about to end, or it does not run. Who asks
%% the supervisor while it ends its children would wait for it, and it for him if he is one of them.
-spec state() -> open | closed | down.
state() ->
    case {persistent_term:get(?CLOSED, false), whereis(?MODULE)} of
        {true, _} -> closed;
        {false, undefined} -> down;
        {false, _} -> open
    end.

-doc false.
-spec close() -> ok.
close() -> persistent_term:put(?CLOSED, true).

-doc false.
-spec open() -> ok.
open() ->
    _ = persistent_term:erase(?CLOSED),
    ok.

-doc false.
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    ok = erl_esdb_engine:create_registry(),
    ok = erl_esdb_index:create_registry(),
    ok = erl_esdb_delivery:begin_life(),
    Groups = #{id => groups, start => {pg, start_link, [erl_esdb_pg]}},
    Lifecycle = #{id => lifecycle, start => {erl_esdb_lifecycle, start_link, []}},
    Turns = #{id => turns, start => {erl_esdb_turns, start_link, []}},
    Systems = #{id => ra_systems, start => {erl_esdb_ra_systems, start_link, []}},
    Children = [Groups, Lifecycle, Turns, Systems],
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60}, Children}}.
