-module(erl_esdb_ra_server).
-moduledoc """
Starts and stops the Ra server of a store on this node.

A folder knows its stores: Ra keeps there which server has which data, and in which cluster it is,
which has the name of the store. One that is known goes on with what it has; another begins a
cluster of one.

Each server that begins has a name of its own. Members write to each other by the names, and Ra asks
no further: one that had lost its disk and began anew under its old name would be written to by the
members that know it. What it had acknowledged meanwhile would be overwritten, and a vote that it
gave before would be forgotten.
""".

-export([find/2, is_name/2, cluster/1, start/4, elected/1, stop/2, delete/2, renew/6, reset/4]).
-export([machine/2, adopt/3, files/2]).
-export([posix/1]).

-include_lib("kernel/include/logger.hrl").

%% Ra's type of a configuration leaves out some of what it takes.
-dialyzer({nowarn_function, [begun/4, renew/6]}).

%% Milliseconds for the end of a server.
-define(STOP, 30_000).

-doc "How the Ra cluster of a store is called, on all nodes.".
-spec cluster(Store :: atom()) -> atom().
cluster(Store) -> erl_esdb_naming:store_worker_name(Store).

-doc """
The server of a store in the folder of a Ra system. Errors: `not_found`; `{unknown_data, Folder}`
where there are several.
""".
-spec find(System :: atom(), Store :: atom()) ->
    {ok, ra:server_id()} | {error, not_found | {unknown_data, file:filename_all()}}.
find(System, Store) ->
    Listed = [
        {Name, Folder}
     || {Name, Uid} <- ra_directory:list_registered(System),
        %% So not all configurations have to be read.
        is_name(Name, Store),
        Folder <- [ra_env:server_data_dir(System, Uid)],
        is_of(Folder, cluster(Store))
    ],
    case Listed of
        [] -> {error, not_found};
        [{Name, _}] -> {ok, {Name, node()}};
        [_, {_, Folder} | _] -> {error, {unknown_data, Folder}}
    end.

-doc "Whether a server of the store may be called so.".
-spec is_name(Name :: atom(), Store :: atom()) -> boolean().
is_name(Name, Store) -> lists:prefix(atom_to_list(cluster(Store)), atom_to_list(Name)).

%% One that cannot be read is told of when its server is started; without one it is being removed.
-spec is_of(file:filename_all(), atom()) -> boolean().
is_of(Folder, Cluster) ->
    case ra_log:read_config(Folder) of
        {ok, #{cluster_name := Other}} -> Other =:= Cluster;
        {error, enoent} -> false;
        {error, _} -> true
    end.

-doc """
Starts the server of a store. When this returns the server of a cluster of one is its leader.

Errors: `{node_renamed, Old, New}`: the data was written by a node of another name;
`{unknown_data, Folder}`: there is data of the store that the folder's list of stores does not name;
a `t:erl_esdb_ra_snapshot:defect/0`; `{damaged_segment, File}`; or what Ra says.
""".
-spec start(System :: atom(), file:filename_all(), Store :: atom(), Settings) ->
    {ok, ra:server_id()} | {error, term()}
when
    Settings :: erl_esdb_engine:settings().
start(System, Dir, Store, Settings) ->
    maybe
        {ok, Server} ?= started(System, Dir, Store, Settings),
        ok ?= elected(Server),
        {ok, Server}
    else
        {error, Reason} -> {error, named(Reason, Dir)}
    end.

-spec started(atom(), file:filename_all(), atom(), erl_esdb_engine:settings()) ->
    {ok, ra:server_id()} | {error, term()}.
started(System, Dir, Store, Settings) ->
    maybe
        {ok, Server} ?= find(System, Store),
        ok ?= is_ours(System, Dir, Server),
        ok ?= restarted(ra:restart_server(System, Server)),
        {ok, Server}
    else
        {error, not_found} ->
            maybe
                ok ?= unknown_data(Dir, cluster(Store)),
                New = new(Store),
                ok ?= begun(System, Store, New, Settings),
                {ok, New}
            end;
        {error, Reason} ->
            {error, Reason}
    end.

-spec restarted(ok | {error, term()}) -> ok | {error, term()}.
restarted({error, {already_started, _}}) -> ok;
restarted(Answer) -> Answer.

%% No two servers have the same name, whenever and wherever they began.
-spec new(atom()) -> ra:server_id().
new(Store) ->
    Cluster = atom_to_binary(cluster(Store)),
    {binary_to_atom(ra_lib:make_uid(<<Cluster/binary, "_">>)), node()}.

%% What Ra says of a segment whose entries do not fit their checksums.
-spec named(term(), file:filename_all()) -> term().
named({ra_log_segment_crc_check_failure, _Index, _Entry, File}, _Dir) ->
    {damaged_segment, unicode:characters_to_list(File)};
named(Reason, Dir) ->
    case posix(Reason) of
        Reason -> Reason;
        Posix -> {data_dir, Dir, Posix}
    end.

-doc false.
%% Ra matches with `ok` what a file says, and ends with that: then why it says so.
-spec posix(term()) -> term().
posix(Reason) -> posix(Reason, Reason).

-spec posix(term(), term()) -> term().
posix({shutdown, {failed_to_start_child, _, Inner}}, Reason) -> posix(Inner, Reason);
posix({Inner, [{_, _, _, _} | _]}, Reason) -> posix(Inner, Reason);
posix({badmatch, {error, Inner}}, Reason) -> posix(Inner, Reason);
posix({file_error, _File, Inner}, Reason) -> posix(Inner, Reason);
posix(Posix, _Reason) when Posix =:= enospc; Posix =:= edquot; Posix =:= eio; Posix =:= erofs ->
    Posix;
posix(_Other, Reason) ->
    Reason.

-spec begun(atom(), atom(), ra:server_id(), erl_esdb_engine:settings()) -> ok | {error, term()}.
begun(System, Store, Server, Settings) ->
    maybe
        Machine = {module, erl_esdb_ra_machine, #{store => Store, limits => limits(Settings)}},
        Cluster = cluster(Store),
        Uid = ra:new_uid(atom_to_binary(Cluster)),
        ok ?= ra:start_server(System, config(Cluster, Server, [Server], Machine, Uid)),
        saved(System)
    end.

-doc """
Removes a server with its data, and starts it as one that is about to be a member of a cluster.
""".
-spec renew(System, Store, ra:server_id(), [ra:server_id()], Machine, ra:uid()) ->
    ok | {error, term()}
when
    System :: atom(), Store :: atom(), Machine :: term().
renew(System, Store, Server, Members, Machine, Uid) ->
    maybe
        ok = stop(System, Server),
        ok ?= delete(System, Server),
        Config = config(cluster(Store), Server, Members, Machine, Uid),
        ok ?= ra:start_server(System, Config#{membership => promotable}),
        saved(System)
    end.

-doc "Removes a server with its data, and begins a cluster of one.".
-spec reset(System :: atom(), Store :: atom(), ra:server_id(), erl_esdb_engine:settings()) ->
    ok | {error, term()}.
reset(System, Store, Server, Settings) ->
    ok = stop(System, Server),
    maybe
        ok ?= delete(System, Server),
        ok ?= begun(System, Store, Server, Settings),
        elected(Server)
    end.

-doc "How the machine of a server is made.".
-spec machine(System :: atom(), ra:server_id()) -> {ok, term()} | {error, term()}.
machine(System, {Name, _}) ->
    Uid = ra_directory:uid_of(System, Name),
    maybe
        {ok, #{machine := Machine}} ?= ra_log:read_config(ra_env:server_data_dir(System, Uid)),
        {ok, Machine}
    end.

%% Ra's own type of it names what Ra adds itself.
-spec config(atom(), ra:server_id(), [ra:server_id()], term(), ra:uid()) -> map().
config(Cluster, Server, Members, Machine, Uid) ->
    #{
        id => Server,
        uid => Uid,
        cluster_name => Cluster,
        initial_members => Members,
        machine => Machine,
        log_init_args => #{
            uid => Uid,
            %% Ra prepares the recovery of logs with this one, and not with what the machine says.
            snapshot_module => erl_esdb_ra_snapshot,
            %% the machine knows when one is due
            min_snapshot_interval => 0,
            segment_max_entries => erl_esdb_ra_systems:segment_entries()
        }
    }.

%% Ra saves its list of servers half a second later, and does not sync the folder in which that of a
%% server is made: before that nothing may be acknowledged.
-spec saved(atom()) -> ok | {error, term()}.
saved(System) ->
    #{data_dir := Dir} = ra_system:fetch(System),
    {ok, Names} = ra_system:lookup_name(System, directory_rev),
    maybe
        ok ?= dets:sync(Names),
        ra_lib:sync_dir(Dir)
    end.

-spec limits(erl_esdb_engine:settings()) -> erl_esdb_log:limits().
limits(Settings) ->
    maps:with([idempotence_window, idempotence_appends, condition_window], Settings).

-doc "Has the server of a cluster of one lead: it need not wait whether somebody else does.".
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
    is_named(filename:join(Dir, ra_directory:uid_of(System, Name)), Node).

-spec is_named(file:filename_all(), node()) -> ok | {error, term()}.
is_named(Folder, Node) ->
    case ra_log:read_config(Folder) of
        {ok, #{id := {_, Node}}} ->
            %% A move that was interrupted is gone on with.
            case is_adopted(Folder) of
                true -> {error, {node_renamed, element(2, adopted_from(Folder)), Node}};
                false -> erl_esdb_ra_snapshot:defect(Folder)
            end;
        {ok, #{id := {_, Old}}} -> {error, {node_renamed, Old, Node}};
        {error, Reason} -> {error, {unreadable_config, Folder, Reason}}
    end.

-spec unknown_data(file:filename_all(), atom()) -> ok | {error, {unknown_data, file:filename()}}.
unknown_data(Dir, Cluster) ->
    case erl_esdb_ra_folder:folders(Dir, Cluster) of
        [] -> ok;
        [Folder | _] -> {error, {unknown_data, Folder}}
    end.

-doc "Stops a server; its data stays.".
-spec stop(System :: atom(), ra:server_id()) -> ok.
stop(System, {Name, _} = Server) ->
    %% One that is just being started asks its supervisor, which would wait for its end.
    _ = ra:ping(Server, ?STOP),
    Ref = monitor(process, Name),
    case stopped(System, Server) of
        ok -> ok;
        {error, Reason} -> ?LOG_WARNING("Ra server ~tp: ~tP", [Server, Reason, 20])
    end,
    receive
        {'DOWN', Ref, process, _, _} -> ok
    after ?STOP -> ?LOG_WARNING("Ra server ~tp does not end", [Server])
    end.

%% Of a system that has ended Ra says so in a way that it does not expect itself.
-spec stopped(atom(), ra:server_id()) -> ok | {error, term()}.
stopped(System, Server) ->
    try
        ra:stop_server(System, Server)
    catch
        error:{try_clause, {error, {badrpc, Reason}}} -> {error, Reason}
    end.

-doc "Removes a server that does not run, with its data.".
-spec delete(System :: atom(), ra:server_id()) -> ok | {error, term()}.
delete(System, {Name, _} = Server) ->
    case ra_directory:uid_of(System, Name) of
        undefined ->
            ok;
        Uid ->
            maybe
                ok ?= forgotten(ra_env:server_data_dir(System, Uid)),
                case ra:force_delete_server(System, Server) of
                    ok -> saved(System);
                    {badrpc, Reason} -> {error, Reason};
                    {error, Reason} -> {error, Reason}
                end
            end
    end.

%% Ra forgets its vote first, and removes its files in any order. Without a configuration it is
%% none, whatever a kill leaves of it.
-spec forgotten(file:filename_all()) -> ok | {error, file:posix()}.
forgotten(Folder) ->
    case file:delete(filename:join(Folder, "config")) of
        ok -> ra_lib:sync_dir(Folder);
        {error, enoent} -> ok;
        {error, Reason} -> {error, Reason}
    end.

%% ---- another name

-doc """
Has a server that a node of another name has written belong to this one.

Ra keeps the name in the configuration of a server, in its snapshots and in its log. The
configuration is written anew, and the server, which then finds itself in a cluster with somebody
who does not exist, decides to be alone, which Ra does for a member whose others are lost. A file
says that this has begun until it is done: a node that is killed in between begins with it again.

Errors: `{not_single, Nodes}` where there are other members, which would go on without knowing of
it.
""".
-spec adopt(System :: atom(), file:filename_all(), ra:server_id()) -> ok | {error, term()}.
adopt(System, Dir, {Name, Node} = Server) ->
    maybe
        Folder = filename:join(Dir, ra_directory:uid_of(System, Name)),
        {ok, Old} ?= adopted_from(Folder),
        false ?= Old =:= Node,
        ok ?= file:write_file(marker(Folder), io_lib:format("~tp.~n", [Old])),
        ok ?= synced(marker(Folder)),
        ok ?= renamed(Folder, Server),
        case alone(System, Server, Old) of
            ok ->
                file:delete(marker(Folder));
            {error, Reason} ->
                ok = renamed(Folder, {Name, Old}),
                ok = file:delete(marker(Folder)),
                {error, Reason}
        end
    else
        true -> ok;
        {error, Reason1} -> {error, Reason1}
    end.

%% Who wrote it, also where a move from there was interrupted.
-spec adopted_from(file:filename_all()) -> {ok, node()} | {error, term()}.
adopted_from(Folder) ->
    case file:consult(marker(Folder)) of
        {ok, [Old]} ->
            {ok, Old};
        _ ->
            maybe
                {ok, #{id := {_, Old}}} ?= ra_log:read_config(Folder),
                {ok, Old}
            end
    end.

-spec marker(file:filename_all()) -> file:filename_all().
marker(Folder) -> filename:join(Folder, "adopted_from").

-spec synced(file:filename_all()) -> ok | {error, term()}.
synced(File) -> ra_lib:sync_file(File).

-spec renamed(file:filename_all(), ra:server_id()) -> ok | {error, term()}.
renamed(Folder, {Name, Node} = Server) ->
    maybe
        {ok, Config} ?= ra_log:read_config(Folder),
        Renamed = Config#{id := Server, initial_members := [{Name, Node}]},
        Temporary = filename:join(Folder, "config.new"),
        Text = io_lib:format("~tp.", [Renamed]),
        ok ?= file:write_file(Temporary, unicode:characters_to_binary(Text)),
        ok ?= synced(Temporary),
        ok ?= file:rename(Temporary, filename:join(Folder, "config")),
        ra_lib:sync_dir(Folder)
    end.

-spec alone(atom(), ra:server_id(), node()) -> ok | {error, term()}.
alone(System, {Name, _} = Server, Old) ->
    maybe
        ok ?= ra:restart_server(System, Server),
        {ok, Members, _} ?= ra:members({local, Server}, infinity),
        [] ?= Members -- [Server, {Name, Old}],
        ok ?= forced(Server, Members),
        stop(System, Server)
    else
        [_ | _] = Others ->
            ok = stop(System, Server),
            {error, {not_single, lists:usort([Node || {_, Node} <- Others])}};
        {timeout, _} ->
            {error, timeout};
        {error, Reason} ->
            {error, Reason}
    end.

-spec forced(ra:server_id(), [ra:server_id()]) -> ok | {error, term()}.
forced(Server, [Server]) -> ra:trigger_election(Server, infinity);
forced(Server, _Members) ->
    case ra_server_proc:force_shrink_members_to_current_member(Server) of
        ok -> committed(Server);
        timeout -> {error, timeout};
        {error, Reason} -> {error, Reason}
    end.

%% On disk is what is committed.
-spec committed(ra:server_id()) -> ok | {error, term()}.
committed(Server) ->
    case ra:consistent_query(Server, {erl_esdb_ra_machine, ask, [index]}, ?STOP) of
        {ok, _, _} -> ok;
        {timeout, _} -> {error, timeout};
        {error, Reason} -> {error, Reason}
    end.

-spec is_adopted(file:filename_all()) -> boolean().
is_adopted(Folder) -> filelib:is_regular(marker(Folder)).

%% ---- files

-doc """
What a store has on disk: `disk_bytes` of its own files, `segments`, `snapshot_age_ms` of the newest
snapshot, and `wal_bytes` of the write-ahead log of its folder.
""".
-spec files(System :: atom(), ra:server_id()) -> #{atom() => non_neg_integer()}.
files(System, {Name, _}) ->
    case {ra_system:fetch(System), ra_directory:uid_of(System, Name)} of
        {#{data_dir := Dir}, Uid} when is_binary(Uid) ->
            Folder = unicode:characters_to_list(filename:join(Dir, Uid)),
            maps:merge(snapshot_age(Folder), #{
                disk_bytes => bytes(Folder),
                segments => length(files_in(Folder, "*.segment")),
                wal_bytes => lists:sum([filelib:file_size(Wal) || Wal <- files_in(Dir, "*.wal")])
            });
        _ ->
            #{}
    end.

%% A folder may have a name that is itself a pattern: it is no part of one.
-spec files_in(file:filename_all(), string()) -> [file:filename()].
files_in(Dir, Pattern) ->
    Folder = unicode:characters_to_list(Dir),
    [filename:join(Folder, File) || File <- filelib:wildcard(Pattern, Folder)].

-spec bytes(file:filename()) -> non_neg_integer().
bytes(Folder) ->
    Add = fun(File, Sum) -> Sum + filelib:file_size(File) end,
    filelib:fold_files(Folder, ".*", true, Add, 0).

-spec snapshot_age(file:filename()) -> #{snapshot_age_ms => non_neg_integer()}.
snapshot_age(Folder) ->
    Written = [
        calendar:datetime_to_gregorian_seconds(filelib:last_modified(File))
     || File <- files_in(Folder, "snapshots/*/snapshot.dat")
    ],
    case Written of
        [] ->
            #{};
        _ ->
            Now = calendar:datetime_to_gregorian_seconds(calendar:local_time()),
            #{snapshot_age_ms => max(0, Now - lists:max(Written)) * 1000}
    end.
