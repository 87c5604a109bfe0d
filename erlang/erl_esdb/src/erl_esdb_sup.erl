-module(erl_esdb_sup).
-moduledoc "The top supervisor: one subtree a store, which come and go independently.".

-behaviour(supervisor).

-export([start_link/0, start_store/1, start_store/2, stop_store/1, which_stores/0]).
-export([init/1]).

-include("erl_esdb.hrl").

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
        restart => permanent,
        shutdown => infinity,
        type => supervisor
    },
    started(running(fun() -> start_child(Child) end));
start_plan({error, Reason}) ->
    {error, Reason}.

%% The specification of a store that is being stopped stays until its stopper has deleted it.
-spec start_child(supervisor:child_spec()) -> supervisor:startchild_ret().
start_child(#{id := Id} = Child) ->
    case supervisor:start_child(?MODULE, Child) of
        {error, already_present} ->
            _ = supervisor:delete_child(?MODULE, Id),
            start_child(Child);
        Result ->
            Result
    end.

-spec started(term()) -> {ok, pid()} | {error, term()}.
started({ok, Pid}) -> {ok, Pid};
started({error, {{shutdown, {failed_to_start_child, _, Reason}}, _Child}}) -> {error, Reason};
started({error, {Reason, {child, _, _, _, _, _, _, _}}}) -> {error, Reason};
started({error, Reason}) -> {error, Reason}.

-doc "Stops a store. What a memory store held is gone.".
-spec stop_store(atom()) -> ok | {error, not_found}.
stop_store(Store) when is_atom(Store) ->
    Id = {store, Store},
    case running(fun() -> supervisor:terminate_child(?MODULE, Id) end) of
        ok ->
            %% Another caller may have been faster.
            _ = supervisor:delete_child(?MODULE, Id),
            ok;
        {error, _} ->
            {error, not_found}
    end;
stop_store(_) ->
    error(badarg).

-doc "The stores that run, sorted.".
-spec which_stores() -> [atom()].
which_stores() ->
    case running(fun() -> supervisor:which_children(?MODULE) end) of
        {error, _} -> [];
        Children -> lists:sort([Store || {{store, Store}, Pid, _, _} <- Children, is_pid(Pid)])
    end.

-spec running(fun(() -> Result)) -> Result | {error, {not_started, erl_esdb}}.
running(Fun) ->
    try
        Fun()
    catch
        exit:{_, {gen_server, call, [?MODULE | _]}} -> {error, {not_started, erl_esdb}}
    end.

-doc false.
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    ok = erl_esdb_engine:create_registry(),
    {ok, {#{strategy => one_for_one, intensity => 10, period => 60}, []}}.
