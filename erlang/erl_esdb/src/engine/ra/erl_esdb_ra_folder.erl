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
- `meta.dets`, the terms and votes of the servers, cannot be made from anything: one that cannot be
  read is removed where no server has written, and an error else.
""".

-export([prepare/1]).
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
        {ok, Servers} ?= servers(Dir),
        {ok, Listed} ?= readable(names(Dir)),
        ok ?= listed(Dir, Listed, Servers),
        terms(Dir, Servers)
    else
        {error, Reason} -> {error, erl_esdb_ra_server:posix(Reason)}
    end.

-spec names(file:filename()) -> file:filename_all().
names(Dir) -> filename:join(Dir, "names.dets").

%% ---- the servers

%% As their folders say. One without a configuration was not made, or is removed: Ra forgets it.
-spec servers(file:filename()) -> {ok, [server()]} | {error, reason()}.
servers(Dir) ->
    Configs = lists:sort(filelib:wildcard("*/config", Dir)),
    each(fun(Config) -> server(Dir, Config) end, Configs, []).

-spec server(file:filename(), file:filename()) -> {ok, server()} | {error, reason()}.
server(Dir, Config) ->
    File = filename:join(Dir, Config),
    Uid = unicode:characters_to_binary(filename:dirname(Config)),
    try ra_log:read_config(filename:dirname(File)) of
        {ok, #{id := {Name, _}, uid := Uid}} when is_atom(Name) -> {ok, {Name, Uid}};
        {error, Posix} when is_atom(Posix), Posix =/= parsing -> {error, Posix};
        _ -> {error, {damaged_file, File}}
    catch
        %% Some of what is no term is not expected there.
        error:_ -> {error, {damaged_file, File}}
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

%% ---- terms and votes

-spec terms(file:filename(), [server()]) -> ok | {error, reason()}.
terms(Dir, Servers) ->
    File = filename:join(Dir, "meta.dets"),
    case readable(File) of
        {ok, Objects} when is_list(Objects) ->
            ok;
        {ok, _} ->
            case Servers =/= [] andalso has_written(Dir) of
                true -> {error, {damaged_file, File}};
                false -> removed(File)
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

%% A server has its first term on disk before it writes anything in it: what is older is the entry
%% with which it begins its log.
-spec has_written(file:filename()) -> boolean().
has_written(Dir) ->
    Wals = [filename:join(Dir, Wal) || Wal <- filelib:wildcard("*.wal", Dir)],
    filelib:wildcard("*/*.segment", Dir) =/= [] orelse
        filelib:wildcard("*/snapshots/*/snapshot.dat", Dir) =/= [] orelse
        lists:any(fun has_term/1, Wals).

-spec has_term(file:filename()) -> boolean().
has_term(Wal) ->
    try
        lists:any(fun({_, Term, _}) -> Term > 0 end, ra_log_wal:wal2list(Wal))
    catch
        %% What it does not understand.
        _:_ -> true
    end.

%% ---- files of dets

%% What is in it, after a repair where it needs one.
-spec readable(file:filename_all()) -> {ok, [tuple()] | unreadable | none} | {error, file:posix()}.
readable(File) ->
    Copy = File ++ ".copy",
    case file:read_file(File) of
        {ok, Bytes} ->
            try
                maybe
                    ok ?= file:write_file(Copy, Bytes),
                    {ok, Objects} ?= objects(Copy),
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
