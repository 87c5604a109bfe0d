-module(erl_esdb_ra_lock).
-moduledoc """
A folder belongs to one node at a time.

Two nodes that write one write-ahead log destroy it. So a node that uses a folder listens on a Unix
domain socket in it: whoever finds that somebody answers there does not touch the folder. A node
that was killed does not answer, however it ended, and nothing is to be cleaned up.

Where the file system has no sockets the folder is used without a lock, and a warning says so.
""".

-export([take/1, release/1]).
-export_type([lock/0, reason/0]).

-include_lib("kernel/include/logger.hrl").

-define(NAME, "in_use").
%% Milliseconds for an answer of a process of this machine.
-define(ANSWER, 1000).
%% Bytes of the path of a socket that every system takes.
-define(PATH, 90).

%% What says nothing of the file system: that there are no more descriptors, memory or room.
-define(IS_SHORTAGE(Reason),
    (Reason =:= emfile orelse Reason =:= enfile orelse Reason =:= system_limit orelse
        Reason =:= enobufs orelse Reason =:= enomem orelse
        Reason =:= enospc orelse Reason =:= edquot orelse Reason =:= eio)
).

-opaque lock() :: {gen_tcp:socket(), file:filename()} | none.
-type reason() :: in_use | system_limit | file:posix() | inet:posix().

-doc """
Takes the lock of a folder, for as long as the calling process lives. Errors: `in_use`, or why it
cannot be known who has it: no more descriptors or memory, a socket of another user.
""".
-spec take(file:filename()) -> {ok, lock()} | {error, reason()}.
take(Dir) ->
    Path = filename:join(Dir, ?NAME),
    with_short(Dir, fun(Short) ->
        case gen_tcp:connect({local, Short}, 0, [local], ?ANSWER) of
            {ok, Socket} ->
                ok = gen_tcp:close(Socket),
                {error, in_use};
            %% Somebody listens, to whom too many have come at a time.
            {error, Reason} when Reason =:= timeout; Reason =:= eagain ->
                {error, in_use};
            %% A file of that name that nobody listens to, or none: the systems differ in the word.
            {error, Reason} when
                Reason =:= enoent; Reason =:= econnrefused; Reason =:= enotsock
            ->
                listen(Short, Path);
            {error, Reason} when Reason =:= eafnosupport; Reason =:= eprotonosupport ->
                unlocked(Path, Reason);
            {error, Reason} ->
                {error, Reason}
        end
    end).

-spec listen(file:filename(), file:filename()) -> {ok, lock()} | {error, reason()}.
listen(Short, Path) ->
    %% Of one that has ended.
    _ = file:delete(Path),
    case gen_tcp:listen(0, [local, {ifaddr, {local, Short}}, {backlog, 128}, {active, false}]) of
        {ok, Socket} ->
            checked(Socket, Short, Path);
        {error, eaddrinuse} ->
            {error, in_use};
        {error, Reason} ->
            unlocked(Path, Reason)
    end.

%% Two that found nobody may have deleted each other's: who is reached by the path has the folder.
-spec checked(gen_tcp:socket(), file:filename(), file:filename()) ->
    {ok, lock()} | {error, reason()}.
checked(Socket, Short, Path) ->
    maybe
        {ok, Out} ?= gen_tcp:connect({local, Short}, 0, [local], ?ANSWER),
        Accepted = gen_tcp:accept(Socket, ?ANSWER),
        ok = gen_tcp:close(Out),
        {ok, In} ?= Accepted,
        ok = gen_tcp:close(In),
        {ok, {Socket, Path}}
    else
        {error, Reason} when ?IS_SHORTAGE(Reason) ->
            ok = gen_tcp:close(Socket),
            {error, Reason};
        {error, _} ->
            ok = gen_tcp:close(Socket),
            {error, in_use}
    end.

%% The path of a socket may have about a hundred bytes: a longer one goes by way of a link.
-spec with_short(file:filename(), fun((file:filename()) -> Answer)) -> Answer when
    Answer :: {ok, lock()} | {error, reason()}.
with_short(Dir, Fun) ->
    Path = filename:join(Dir, ?NAME),
    case is_short(Path) of
        true ->
            Fun(Path);
        false ->
            %% One that a killed node has left is in nobody's way.
            Unique = "erl_esdb_" ++ binary_to_list(binary:encode_hex(rand:bytes(8))),
            Links = [
                filename:join(Folder, Unique)
             || Folder <- [os:getenv("TMPDIR", "/tmp"), "/tmp"]
            ],
            case lists:filter(fun is_short/1, Links) of
                [Link | _] -> linked(Link, Dir, Fun);
                [] -> unlocked(Path, enametoolong)
            end
    end.

-spec is_short(file:filename()) -> boolean().
is_short(Path) -> byte_size(unicode:characters_to_binary(Path)) =< ?PATH.

-spec linked(file:filename(), file:filename(), fun((file:filename()) -> Answer)) -> Answer when
    Answer :: {ok, lock()} | {error, reason()}.
linked(Link, Dir, Fun) ->
    case file:make_symlink(Dir, Link) of
        ok ->
            try
                Fun(filename:join(Link, ?NAME))
            after
                _ = file:delete(Link)
            end;
        {error, Reason} ->
            unlocked(Link, Reason)
    end.

-spec unlocked(file:filename(), reason()) -> {ok, lock()} | {error, reason()}.
unlocked(_Path, Reason) when ?IS_SHORTAGE(Reason) ->
    {error, Reason};
unlocked(Path, Reason) ->
    ?LOG_WARNING("~ts: used without a lock: ~tp", [Path, Reason]),
    {ok, none}.

-doc "Gives a folder back.".
-spec release(lock()) -> ok.
release(none) ->
    ok;
release({Socket, Path}) ->
    _ = file:delete(Path),
    gen_tcp:close(Socket).
