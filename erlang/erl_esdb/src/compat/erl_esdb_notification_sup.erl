-module(erl_esdb_notification_sup).
-moduledoc "The supervisor of what follows the log of a store; see `m:erl_esdb_system_sup`.".

-behaviour(supervisor).

-export([start_link/1, restart_delivery/1, restart_delivery_here/2]).
-export([without_snapshotter/2, snapshotter/2]).
-export([init/1]).

-include("erl_esdb.hrl").

%% Milliseconds that another node may take to end a process.
-define(REMOTE, 30_000).

-doc "Starts the supervisor, registered as `erl_esdb_naming:notification_sup_name/1` says.".
-spec start_link(store_config()) -> supervisor:startlink_ret().
start_link(#store_config{store_id = Store} = Config) ->
    Name = erl_esdb_naming:notification_sup_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        supervisor:start_link({local, Name}, ?MODULE, Config)
    end).

-doc """
Ends what delivers the events of a store, and its links, and starts them again: with what the store
has in its documents by now. That is on the node that leads.
""".
-spec restart_delivery(Store :: atom()) -> ok | {error, term()}.
restart_delivery(Store) ->
    erl_esdb_cluster:at_leader(Store, {?MODULE, restart_delivery_here, [Store]}, #{
        timeout => ?REMOTE
    }).

-doc false.
-spec restart_delivery_here(Store :: atom(), map()) -> ok | {error, term()}.
restart_delivery_here(Store, _Options) ->
    with_supervisor(Store, fun(Supervisor) ->
        maybe
            ok ?= restart(Supervisor, delivery_sup),
            restart(Supervisor, links_sup)
        end
    end).

-spec restart(atom(), atom()) -> ok | {error, term()}.
restart(Supervisor, Id) ->
    case supervisor:terminate_child(Supervisor, Id) of
        ok -> start(Supervisor, Id);
        {error, Reason} -> {error, Reason}
    end.

-spec start(atom(), atom()) -> ok | {error, term()}.
start(Supervisor, Id) ->
    case supervisor:restart_child(Supervisor, Id) of
        {ok, _} -> ok;
        {error, Reason} -> {error, Reason}
    end.

-doc "Does something while a store takes no snapshots by itself; then it goes on with that.".
-spec without_snapshotter(Store :: atom(), fun(() -> Result)) -> Result | {error, term()}.
without_snapshotter(Store, Fun) ->
    %% The same node again, whoever leads by then.
    Leader = erl_esdb_cluster:known_leader(Store),
    case snapshotter(Leader, stop, Store) of
        ok ->
            try
                Fun()
            after
                _ = snapshotter(Leader, start, Store)
            end;
        {error, Reason} ->
            {error, Reason}
    end.

-spec snapshotter(node() | undefined, stop | start, atom()) -> ok | {error, term()}.
snapshotter(Node, What, Store) when Node =:= undefined; Node =:= node() ->
    snapshotter(What, Store);
snapshotter(Node, What, Store) ->
    try
        erpc:call(Node, ?MODULE, snapshotter, [What, Store], ?REMOTE)
    catch
        error:{erpc, _} -> {error, {timeout, Store}}
    end.

-doc false.
-spec snapshotter(stop | start, atom()) -> ok | {error, term()}.
snapshotter(stop, Store) ->
    with_supervisor(Store, fun(Sup) -> supervisor:terminate_child(Sup, snapshotter) end);
snapshotter(start, Store) ->
    with_supervisor(Store, fun(Sup) -> start(Sup, snapshotter) end).

-spec with_supervisor(atom(), fun((atom()) -> ok | {error, term()})) -> ok | {error, term()}.
with_supervisor(Store, Fun) ->
    try
        Fun(erl_esdb_naming:notification_sup_name(Store))
    catch
        %% It has ended, or ends.
        exit:_ -> {error, {store_not_started, Store}}
    end.

-doc false.
-spec init(store_config()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Config) ->
    {ok, {#{strategy => one_for_one, intensity => 5, period => 30}, children(Config)}}.

%% One line for each: they do not depend on each other.
-spec children(store_config()) -> [supervisor:child_spec()].
children(#store_config{store_id = Store} = Config) ->
    %% Who leads is known before those begin that ask for it.
    Watch = #{id => leader_watch, start => {erl_esdb_leader_watch, start_link, [Config]}},
    [Watch | index(Store)] ++
        [
            supervisor(leader_sup, erl_esdb_leader_sup, Config),
            supervisor(emitter_sup, erl_esdb_emitter_sup, Config),
            supervisor(delivery_sup, erl_esdb_delivery_sup, Config),
            supervisor(links_sup, erl_esdb_links_sup, Config),
            #{id => snapshotter, start => {erl_esdb_snapshotter, start_link, [Store]}}
        ].

-spec index(atom()) -> [supervisor:child_spec()].
index(Store) ->
    case erl_esdb_engine:find(Store) of
        {ok, _, _, #{indexes := [_ | _] = Kinds}} ->
            [#{id => index, start => {erl_esdb_index, start_link, [Store, Kinds]}}];
        _ ->
            []
    end.

-spec supervisor(atom(), module(), store_config()) -> supervisor:child_spec().
supervisor(Id, Module, Config) ->
    #{
        id => Id,
        start => {Module, start_link, [Config]},
        shutdown => infinity,
        type => supervisor
    }.
