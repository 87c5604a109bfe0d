-module(erl_esdb_ra_server).
-moduledoc """
Starts and stops the Ra server of a store on this node.

A folder knows its stores by their names: Ra keeps there which server has which data. One that is
known goes on with what it has; another begins a cluster of one.
""".

-export([start/5, stop/2, delete/3]).

-include_lib("kernel/include/logger.hrl").

%% Milliseconds for the end of a server.
-define(STOP, 30_000).

-doc """
Starts the server of a store. When this returns the server of a cluster of one is its leader.

Errors: `{node_renamed, Old, New}`: the data was written by a node of another name;
`{unknown_data, Folder}`: there is data of the store that the folder's list of stores does not name; or
what Ra says.
""".
-spec start(System :: atom(), file:filename_all(), Store :: atom(), ra:server_id(), Settings) ->
    ok | {error, term()}
when
    Settings :: erl_esdb_engine:settings().
start(System, Dir, Store, Server, Settings) ->
    maybe
        ok ?= is_ours(System, Dir, Server),
        ok ?= started(System, Store, Server, Settings),
        elected(Server)
    end.

-spec started(atom(), atom(), ra:server_id(), erl_esdb_engine:settings()) -> ok | {error, term()}.
started(System, Store, Server, Settings) ->
    case ra:restart_server(System, Server) of
        ok -> ok;
        {error, {already_started, _}} -> ok;
        {error, name_not_registered} -> begun(System, Store, Server, Settings);
        {error, Reason} -> {error, Reason}
    end.

-spec begun(atom(), atom(), ra:server_id(), erl_esdb_engine:settings()) -> ok | {error, term()}.
begun(System, Store, Server, Settings) ->
    maybe
        ok ?= ra:start_server(System, config(Store, Server, [Server], Settings)),
        saved(System)
    end.

%% Ra saves its list of servers half a second later: before that nothing may be acknowledged, for
%% a server that is not listed is not found again.
-spec saved(atom()) -> ok | {error, term()}.
saved(System) ->
    {ok, Names} = ra_system:lookup_name(System, directory_rev),
    dets:sync(Names).

-spec config(atom(), ra:server_id(), [ra:server_id()], erl_esdb_engine:settings()) ->
    ra_server:ra_server_config().
config(Store, {Name, _} = Server, Members, Settings) ->
    Uid = ra:new_uid(atom_to_binary(Name)),
    #{
        id => Server,
        uid => Uid,
        cluster_name => Name,
        initial_members => Members,
        machine => {module, erl_esdb_ra_machine, #{store => Store, limits => limits(Settings)}},
        log_init_args => #{
            uid => Uid,
            %% Ra prepares the recovery of logs with this one, and not with what the machine says.
            snapshot_module => erl_esdb_ra_snapshot,
            %% the machine knows when one is due
            min_snapshot_interval => 0,
            segment_max_entries => erl_esdb_ra_systems:segment_entries()
        }
    }.

-spec limits(erl_esdb_engine:settings()) -> erl_esdb_log:limits().
limits(Settings) ->
    maps:with([idempotence_window, idempotence_appends, condition_window], Settings).

%% Nobody else can lead a cluster of one: it need not wait whether somebody does.
-spec elected(ra:server_id()) -> ok | {error, term()}.
elected(Server) ->
    case ra:members({local, Server}, infinity) of
        {ok, [Server], _} -> ra:trigger_election(Server, infinity);
        {ok, _, _} -> ok;
        {error, Reason} -> {error, Reason};
        {timeout, _} -> {error, timeout}
    end.

-spec is_ours(atom(), file:filename_all(), ra:server_id()) -> ok | {error, term()}.
is_ours(System, Dir, {Name, Node}) ->
    case ra_directory:uid_of(System, Name) of
        undefined -> unknown_data(Dir, Name);
        Uid -> is_named(filename:join(Dir, Uid), Node)
    end.

-spec is_named(file:filename_all(), node()) -> ok | {error, term()}.
is_named(Folder, Node) ->
    case ra_log:read_config(Folder) of
        {ok, #{id := {_, Node}}} -> ok;
        {ok, #{id := {_, Old}}} -> {error, {node_renamed, Old, Node}};
        {error, Reason} -> {error, {unreadable_config, Folder, Reason}}
    end.

-spec unknown_data(file:filename_all(), atom()) -> ok | {error, {unknown_data, file:filename()}}.
unknown_data(Dir, Name) ->
    Found = [
        Folder
     || File <- filelib:wildcard("*/config", Dir),
        Folder <- [filename:join(Dir, filename:dirname(File))],
        {ok, #{id := {Of, _}}} <- [ra_log:read_config(Folder)],
        Of =:= Name
    ],
    case Found of
        [] -> ok;
        [Folder | _] -> {error, {unknown_data, Folder}}
    end.

-doc "Stops a server; its data stays.".
-spec stop(System :: atom(), ra:server_id()) -> ok.
stop(System, {Name, _} = Server) ->
    Ref = monitor(process, Name),
    case ra:stop_server(System, Server) of
        ok -> ok;
        {error, Reason} -> ?LOG_WARNING("Ra server ~tp: ~tp", [Server, Reason])
    end,
    receive
        {'DOWN', Ref, process, _, _} -> ok
    after ?STOP -> ?LOG_WARNING("Ra server ~tp does not end", [Server])
    end.

-doc "Removes a server that does not run, with its data.".
-spec delete(System :: atom(), file:filename_all(), ra:server_id()) -> ok | {error, term()}.
delete(System, _Dir, {Name, _} = Server) ->
    case ra_directory:uid_of(System, Name) of
        undefined ->
            ok;
        _ ->
            case ra:force_delete_server(System, Server) of
                ok -> saved(System);
                {badrpc, Reason} -> {error, Reason};
                {error, Reason} -> {error, Reason}
            end
    end.
