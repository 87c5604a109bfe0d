-module(erl_esdb_ra_folder).
-moduledoc """
Has a folder ready for its Ra system, however the one before has ended.

Ra takes its list of servers, `names.dets`, for the whole truth: what the write-ahead log holds for
a server that is not listed it throws away. And what dets repairs, after a kill, it does not sync
before it takes the place of the old file: who loses power then has an empty one. So before Ra opens
anything, and while the folder is locked:

- a file of dets that needs it is repaired as a copy, which is synced before it takes the place;
- a server whose folder is there and which is not listed is listed: its node was killed while it was
  made, or the list was lost. The list can be made from the folders, for each names its server;
- `meta.dets`, the terms and votes of the servers, cannot be made from anything: where it cannot be
  read, or what dets has repaired lacks a server that has written, the start is refused;
- so it is where the write-ahead log goes on behind what Ra takes for its end (`m:erl_esdb_ra_wal`).

Other folders may lie in it.
""".

-export([prepare/1, folders/2]).
-export_type([reason/0]).

-include_lib("kernel/include/logger.hrl").

-doc """
`damaged_file`: a file without which something that was acknowledged would be lost, or a vote
forgotten. `unknown_data`: folders of servers of one name, of which none is listed.
""".
-type reason() ::
    {damaged_file, file:filename_all()} | {unknown_data, file:filename_all()} | file:posix().

-type server() :: {Name :: atom(), ra:uid()}.

-doc "Errors: see `t:reason/0`.".
-spec prepare(file:filename()) -> ok | {error, reason()}.
prepare(Dir) ->
    maybe
        {ok, Listed} ?= readable(names(Dir), fun(_) -> ok end),
        {ok, Servers} ?= servers(Dir, Listed),
        ok ?= listed(Dir, Listed, Servers),
        {ok, Logged} ?= logged(Dir, Servers),
        terms(Dir, Servers, Logged)
    else
        {error, Reason} -> {error, erl_esdb_ra_server:posix(Reason)}
    end.

-spec names(file:filename()) -> file:filename_all().
names(Dir) -> filename:join(Dir, "names.dets").

%% ---- the servers

-doc "The folders of the servers of one cluster, whether they are listed or not.".
-spec folders(file:filename_all(), Cluster :: atom()) -> [file:filename_all()].
folders(Dir, Cluster) ->
    Folders = [filename:join(Dir, Uid) || Uid <- configured(Dir), is_of_ra(Dir, Uid, [])],
    [Folder || Folder <- Folders, {ok, #{cluster_name := Of}} <- [config(Folder)], Of =:= Cluster].

%% As their folders say. One without a configuration was not made, or is removed: Ra forgets it.
-spec servers(file:filename(), [tuple()] | unreadable | none) ->
    {ok, [server()]} | {error, reason()}.
servers(Dir, Listed) ->
    Uids = [Uid || is_list(Listed), {_, Uid} <- Listed],
    Folders = [filename:join(Dir, Uid) || Uid <- configured(Dir), is_of_ra(Dir, Uid, Uids)],
    each(fun server/1, Folders, []).

-spec configured(file:filename_all()) -> [file:filename()].
configured(Dir) ->
    Configs = filelib:wildcard("*/config", unicode:characters_to_list(Dir)),
    [filename:dirname(Config) || Config <- lists:sort(Configs)].

%% What somebody else keeps here is not looked at. Ra makes the folder of the snapshots first.
-spec is_of_ra(file:filename_all(), file:filename(), [ra:uid()]) -> boolean().
is_of_ra(Dir, Name, Listed) ->
    Folder = filename:join(Dir, Name),
    lists:member(unicode:characters_to_binary(Name), Listed) orelse
        filelib:is_dir(filename:join(Folder, "snapshots")) orelse
        filelib:wildcard("*.segment", unicode:characters_to_list(Folder)) =/= [].

-spec server(file:filename_all()) -> {ok, server()} | {error, reason()}.
server(Folder) ->
    Uid = unicode:characters_to_binary(filename:basename(Folder)),
    case config(Folder) of
        {ok, #{id := {Name, _}, uid := Uid}} when is_atom(Name) -> {ok, {Name, Uid}};
        {error, Posix} when is_atom(Posix), Posix =/= parsing -> {error, Posix};
        _ -> {error, {damaged_file, filename:join(Folder, "config")}}
    end.

-spec config(file:filename_all()) -> {ok, term()} | {error, parsing | term()}.
config(Folder) ->
    try
        ra_log:read_config(Folder)
    catch
        %% Some of what is no term is not expected there.
        error:_ -> {error, parsing}
    end.

-spec each(fun((Element) -> {ok, Found} | {error, Reason}), [Element], [Found]) ->
    {ok, [Found]} | {error, Reason}.
each(_Fun, [], Found) ->
    {ok, lists:reverse(Found)};
each(Fun, [Element | Rest], Found) ->
    case Fun(Element) of
        {ok, One} -> each(Fun, Rest, [One | Found]);
        {error, Reason} -> {error, Reason}
    end.

%% ---- the list

%% An entry whose folder is gone counts for nothing; one that has its folder stays.
-spec listed(file:filename(), [tuple()] | unreadable | none, [server()]) -> ok | {error, reason()}.
listed(Dir, unreadable, Servers) ->
    ?LOG_WARNING("~ts cannot be read and is made again", [names(Dir)]),
    maybe
        ok ?= file:delete(names(Dir)),
        listed(Dir, none, Servers)
    end;
listed(Dir, none, Servers) ->
    listed(Dir, [], Servers);
listed(Dir, Listed, Servers) ->
    Kept = [Name || {Name, _} = Server <- Servers, lists:member(Server, Listed)],
    Missing = [Server || {Name, _} = Server <- Servers, not lists:member(Name, Kept)],
    Names = [Name || {Name, _} <- Missing],
    case [Uid || {Name, Uid} <- Missing, lists:member(Name, Names -- [Name])] of
        [] -> list(Dir, Missing);
        [Uid | _] -> {error, {unknown_data, folder(Dir, Uid)}}
    end.

-spec folder(file:filename(), ra:uid()) -> file:filename_all().
folder(Dir, Uid) -> filename:join(Dir, unicode:characters_to_list(Uid)).

-spec list(file:filename(), [server()]) -> ok | {error, reason()}.
list(_Dir, []) ->
    ok;
list(Dir, Servers) ->
    with_table(names(Dir), fun(Table) ->
        maybe
            ok ?= dets:insert(Table, Servers),
            ok ?= dets:sync(Table),
            ra_lib:sync_dir(Dir)
        end
    end).

%% ---- the write-ahead log

%% The highest terms that it has of the servers; nothing is known of another version's.
-spec logged(file:filename(), [server()]) ->
    {ok, erl_esdb_ra_wal:written() | unknown} | {error, reason()}.
logged(Dir, Servers) ->
    Uids = [Uid || {_, Uid} <- Servers],
    Files = [filename:join(Dir, File) || File <- filelib:wildcard("*.wal", Dir)],
    Logged =
        case each(fun(File) -> logged_in(File, Uids) end, Files, []) of
            {ok, Each} -> {ok, lists:foldl(fun both/2, #{}, Each)};
            {error, Reason} -> {error, Reason}
        end,
    %% The files were read as a whole.
    true = garbage_collect(),
    Logged.

-spec logged_in(file:filename_all(), [ra:uid()]) ->
    {ok, erl_esdb_ra_wal:written() | unknown} | {error, reason()}.
logged_in(File, Uids) ->
    case erl_esdb_ra_wal:read(File, Uids) of
        {ok, Written} -> {ok, Written};
        damaged -> {error, {damaged_file, File}};
        {error, unknown_format} -> {ok, unknown};
        {error, Reason} -> {error, Reason}
    end.

-spec both(Logged, Logged) -> Logged when Logged :: erl_esdb_ra_wal:written() | unknown.
both(A, B) when is_map(A), is_map(B) ->
    maps:merge_with(fun(_Uid, Term, Other) -> max(Term, Other) end, A, B);
both(_, _) ->
    unknown.

%% ---- terms and votes

%% A server has its first term on disk before it writes anything in it: what is older is the entry
%% with which it begins its log.
-spec terms(file:filename(), [server()], erl_esdb_ra_wal:written() | unknown) ->
    ok | {error, reason()}.
terms(Dir, Servers, Logged) ->
    File = filename:join(Dir, "meta.dets"),
    Written = fun(Uid) -> has_term(Uid, Logged) orelse has_written(folder(Dir, Uid)) end,
    Complete = fun(Known) ->
        case [Uid || {_, Uid} <- Servers, not lists:keymember(Uid, 1, Known), Written(Uid)] of
            [] -> ok;
            [_ | _] -> {error, {damaged_file, File}}
        end
    end,
    case readable(File, Complete) of
        {ok, Objects} when is_list(Objects) ->
            ok;
        {ok, _} ->
            maybe
                ok ?= Complete([]),
                removed(File)
            end;
        {error, Reason} ->
            {error, Reason}
    end.

-spec removed(file:filename()) -> ok | {error, reason()}.
removed(File) ->
    case file:delete(File) of
        ok -> ok;
        {error, enoent} -> ok;
        {error, Reason} -> {error, Reason}
    end.

-spec has_term(ra:uid(), erl_esdb_ra_wal:written() | unknown) -> boolean().
has_term(_Uid, unknown) -> true;
has_term(Uid, Logged) -> maps:get(Uid, Logged, 0) > 0.

-spec has_written(file:filename()) -> boolean().
has_written(Folder) ->
    Segments = [filename:join(Folder, S) || S <- filelib:wildcard("*.segment", Folder)],
    filelib:wildcard("snapshots/*/snapshot.dat", Folder) =/= [] orelse
        lists:any(fun is_of_a_term/1, Segments).

%% One that was just being made is empty.
-spec is_of_a_term(file:filename()) -> boolean().
is_of_a_term(Segment) ->
    filelib:file_size(Segment) > 0 andalso erl_esdb_ra_segment:last_term(Segment) =/= {ok, 0}.

%% ---- files of dets

%% What is in it, after a repair where it needs one. The file stays as it is where that is refused.
-spec readable(file:filename(), fun(([tuple()]) -> ok | {error, reason()})) ->
    {ok, [tuple()] | unreadable | none} | {error, reason()}.
readable(File, Accept) ->
    Copy = File ++ ".copy",
    case file:read_file(File) of
        {ok, Bytes} ->
            try
                maybe
                    ok ?= file:write_file(Copy, Bytes),
                    {ok, Objects} ?= objects(Copy),
                    ok ?= accepted(Objects, Accept),
                    ok ?= replaced(Objects, File, Copy, Bytes),
                    {ok, Objects}
                end
            after
                _ = [file:delete(Left) || Left <- [Copy, Copy ++ ".TMP"]]
            end;
        {error, enoent} ->
            {ok, none};
        {error, Reason} ->
            {error, Reason}
    end.

-spec accepted([tuple()] | unreadable, fun(([tuple()]) -> Answer)) -> ok | Answer.
accepted(unreadable, _Accept) -> ok;
accepted(Objects, Accept) -> Accept(Objects).

%% A full disk says nothing of what is in the file.
-spec objects(file:filename()) -> {ok, [tuple()] | unreadable} | {error, file:posix()}.
objects(Copy) ->
    case with_table(Copy, fun(Table) -> dets:match_object(Table, '_') end) of
        Objects when is_list(Objects) -> {ok, Objects};
        {error, {file_error, _, Posix}} -> {error, Posix};
        {error, _} -> {ok, unreadable}
    end.

-spec replaced([tuple()] | unreadable, file:filename(), file:filename(), binary()) ->
    ok | {error, file:posix()}.
replaced(unreadable, _File, _Copy, _Bytes) ->
    ok;
replaced(_Objects, File, Copy, Bytes) ->
    case file:read_file(Copy) of
        {ok, Bytes} ->
            ok;
        {ok, _Repaired} ->
            maybe
                ok ?= ra_lib:sync_file(Copy),
                ok ?= file:rename(Copy, File),
                ra_lib:sync_dir(filename:dirname(File))
            end;
        {error, Reason} ->
            {error, Reason}
    end.

-spec with_table(file:filename(), fun((reference()) -> Result)) -> Result | {error, term()}.
with_table(File, Fun) ->
    case dets:open_file(make_ref(), [{file, File}, {auto_save, infinity}]) of
        {ok, Table} ->
            try
                Fun(Table)
            after
                _ = dets:close(Table)
            end;
        {error, Reason} ->
            {error, Reason}
    end.
