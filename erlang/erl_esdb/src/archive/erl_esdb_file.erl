-module(erl_esdb_file).
-moduledoc """
Files that are there as a whole or not at all.

A file is written under another name, in the same folder or in one for what is unfinished, brought
to the disk, renamed, and then its folder is brought to the disk: after a crash there is the old
file or the new one.

```erlang
1> erl_esdb_file:write("/tmp/a/b/c", ~"content").
ok
```
""".

-export([write/2, write/3, rename/2, delete/1, remove_unfinished/1, sweep/1]).
-export([ensure_dir/1, sync_dir/1]).
-export([read_term/1, write_term/2, sha256/1, stamp/1, path/1, alone/2]).
-export_type([reason/0]).

-include_lib("kernel/include/file.hrl").

-define(BLOCK, 1_048_576).
%% Seconds after which nobody writes to a file any more that nobody has written to.
-define(ABANDONED, 3600).
%% A holder that has died may be noticed a moment later.
-define(TRIES, 2).

-type reason() :: {failed_to_create_dir | write_failed, term()}.

-doc "A file's name as a binary.".
-spec path(file:filename_all()) -> binary().
path(Path) when is_binary(Path) -> Path;
path(Path) when not is_list(Path), not is_atom(Path) -> error(badarg);
path(Path) -> encoded(unicode:characters_to_binary(filename:flatten(Path))).

-spec encoded(binary() | tuple()) -> binary().
encoded(Path) when is_binary(Path) -> Path;
encoded(_) -> error(badarg).

-doc "Writes a file, in place of what is there, and the folders above it where they are missing.".
-spec write(file:filename_all(), iodata()) -> ok | {error, reason()}.
write(Path, Content) -> write(Path, Content, filename:dirname(Path)).

-doc """
The same, where the file stands in another folder of the same file system until it is whole: one
that has few files is swept in no time.
""".
-spec write(file:filename_all(), iodata(), Unfinished :: file:filename_all()) ->
    ok | {error, reason()}.
write(Path, Content, Unfinished) ->
    Temporary = temporary(filename:join(Unfinished, filename:basename(Path))),
    maybe
        ok ?= ensure_dir(Unfinished),
        ok ?= ensure_dir(filename:dirname(Path)),
        ok ?= failed(write_and_sync(Temporary, Content)),
        ok ?= rename(Temporary, Path),
        ok
    else
        {error, Reason} ->
            _ = file:delete(Temporary, [raw]),
            {error, Reason}
    end.

%% Two writers of one file have each their own.
-spec temporary(file:filename_all()) -> binary().
temporary(Path) ->
    Suffix = binary:encode_hex(crypto:strong_rand_bytes(8), lowercase),
    <<(path(Path))/binary, ".", Suffix/binary, ".tmp">>.

-doc """
Removes from a folder what writers have left there that were killed: their files of an hour ago and
earlier. One that another writer of now has under way is younger.
""".
-spec sweep(Dir :: file:filename_all()) -> ok.
sweep(Dir) ->
    Before = os:system_time(second) - ?ABANDONED,
    Left = [filename:join(Dir, Name) || {Name, _Base} <- unfinished(Dir)],
    lists:foreach(fun(Path) -> sweep(Path, stamp(Path), Before) end, Left).

-spec sweep(binary(), {ok, {integer(), integer()}} | {error, term()}, integer()) -> ok.
sweep(Path, {ok, {_Bytes, Changed}}, Before) when Changed =< Before ->
    _ = delete(Path),
    ok;
sweep(_Path, _Stamp, _Before) ->
    ok.

-spec write_and_sync(binary(), iodata()) -> ok | {error, term()}.
write_and_sync(Path, Content) ->
    maybe
        {ok, Fd} ?= file:open(Path, [write, raw, binary, exclusive]),
        Written = written(Fd, Content),
        Closed = file:close(Fd),
        ok ?= Written,
        Closed
    end.

-spec written(file:fd(), iodata()) -> ok | {error, term()}.
written(Fd, Content) ->
    maybe
        ok ?= file:write(Fd, Content),
        file:sync(Fd)
    end.

-doc "Renames a file that is on the disk already, in place of what is there.".
-spec rename(file:filename_all(), file:filename_all()) -> ok | {error, reason()}.
rename(From, To) ->
    maybe
        ok ?= failed(file:rename(From, To)),
        sync_dir(filename:dirname(To))
    end.

-spec failed(ok | {error, term()}) -> ok | {error, reason()}.
failed(ok) -> ok;
failed({error, Reason}) -> {error, {write_failed, Reason}}.

-doc "Makes a folder and those above it where they are missing, each brought to the disk.".
-spec ensure_dir(file:filename_all()) -> ok | {error, reason()}.
ensure_dir(Dir) ->
    case file:read_file_info(Dir, [raw]) of
        {ok, #file_info{type = directory}} -> ok;
        {ok, _} -> {error, {failed_to_create_dir, enotdir}};
        {error, enoent} -> make_dir(Dir, filename:dirname(Dir));
        {error, Reason} -> {error, {failed_to_create_dir, Reason}}
    end.

-spec make_dir(file:filename_all(), file:filename_all()) -> ok | {error, reason()}.
make_dir(Dir, Dir) ->
    {error, {failed_to_create_dir, enoent}};
make_dir(Dir, Parent) ->
    maybe
        ok ?= ensure_dir(Parent),
        ok ?= made(file:make_dir(Dir)),
        sync_dir(Parent)
    end.

%% Somebody else may have been quicker.
-spec made(ok | {error, term()}) -> ok | {error, reason()}.
made(ok) -> ok;
made({error, eexist}) -> ok;
made({error, Reason}) -> {error, {failed_to_create_dir, Reason}}.

-doc "Brings the entries of a folder to the disk.".
-spec sync_dir(file:filename_all()) -> ok | {error, reason()}.
sync_dir(Dir) ->
    maybe
        {ok, Fd} ?= file:open(Dir, [read, raw, directory]),
        Synced = file:sync(Fd),
        ok = file:close(Fd),
        failed(Synced)
    else
        {error, Reason} -> {error, {write_failed, Reason}}
    end.

-doc "Removes a file; `ok` also where there is none.".
-spec delete(file:filename_all()) -> ok | {error, term()}.
delete(Path) ->
    case file:delete(Path, [raw]) of
        {error, enoent} -> ok;
        Other -> Other
    end.

-doc """
Calls a fun that no other process of this node calls for the same file meanwhile, however its folder
is spelled; makes the folder. A process that dies holds nothing.

## Errors

- `{busy, Path}`: another process is at it
- `t:reason/0`
""".
-spec alone(file:filename_all(), fun(() -> Result)) ->
    Result | {error, {busy, file:filename_all()} | reason()}.
alone(Path, Fun) ->
    File = filename:absname(path(Path)),
    maybe
        ok ?= ensure_dir(filename:dirname(File)),
        {ok, Place} ?= place(File),
        Lock = {{?MODULE, Place}, self()},
        true ?= global:set_lock(Lock, [node()], ?TRIES),
        try
            Fun()
        after
            global:del_lock(Lock, [node()])
        end
    else
        false -> {error, {busy, Path}};
        {error, Reason} -> {error, Reason}
    end.

-spec place(binary()) -> {ok, term()} | {error, reason()}.
place(File) ->
    case file:read_file_info(filename:dirname(File), [raw]) of
        {ok, #file_info{major_device = Device, inode = Inode}} ->
            {ok, {Device, Inode, filename:basename(File)}};
        {error, Reason} ->
            {error, {write_failed, Reason}}
    end.

-doc """
Removes what writers of a file left that were killed. Only for who is `alone/2` at it: of another
writer it would remove what that is about to rename.
""".
-spec remove_unfinished(file:filename_all()) -> ok.
remove_unfinished(Path) ->
    Dir = filename:dirname(Path),
    Own = path(filename:basename(Path)),
    Left = [filename:join(Dir, Name) || {Name, Base} <- unfinished(Dir), Base =:= Own],
    lists:foreach(fun delete/1, Left).

%% Files that temporary/1 has named, and for which.
-spec unfinished(Dir :: file:filename_all()) -> [{Name :: binary(), Base :: binary()}].
unfinished(Dir) ->
    Names = [path(Name) || {ok, All} <- [file:list_dir_all(Dir)], Name <- All],
    [{Name, Base} || Name <- Names, {ok, Base} <- [unfinished_of(Name, byte_size(Name) - 21)]].

-spec unfinished_of(binary(), integer()) -> {ok, Base :: binary()} | none.
unfinished_of(Name, Size) ->
    case Name of
        <<Base:Size/binary, ".", Suffix:16/binary, ".tmp">> when Size > 0 ->
            case is_hex(Suffix) of
                true -> {ok, Base};
                false -> none
            end;
        _ ->
            none
    end.

-spec is_hex(binary()) -> boolean().
is_hex(Text) ->
    lists:all(fun(Char) -> lists:member(Char, "0123456789abcdef") end, binary_to_list(Text)).

-doc "Writes a term with its checksum, as `write/2` does.".
-spec write_term(file:filename_all(), term()) -> ok | {error, reason()}.
write_term(Path, Term) ->
    Body = term_to_binary(Term, [{minor_version, 2}]),
    write(Path, [<<(esdb_hash_nif:xxhash3(Body)):64>>, Body]).

-doc "Reads a term that `write_term/2` wrote. Makes no atoms.".
-spec read_term(file:filename_all()) -> {ok, term()} | {error, corrupt | term()}.
read_term(Path) ->
    maybe
        {ok, <<Sum:64, Body/binary>>} ?= file:read_file(Path, [raw]),
        true ?= Sum =:= esdb_hash_nif:xxhash3(Body),
        {ok, binary_to_term(Body, [safe])}
    else
        {error, Reason} -> {error, Reason};
        _ -> {error, corrupt}
    end.

-doc "SHA-256 of a file in hexadecimal digits; the file is read in pieces.".
-spec sha256(file:filename_all()) -> {ok, binary()} | {error, term()}.
sha256(Path) ->
    maybe
        {ok, Fd} ?= file:open(Path, [read, raw, binary]),
        Hashed = hash(Fd, crypto:hash_init(sha256)),
        ok = file:close(Fd),
        Hashed
    end.

-doc "Size and time of the last change of a file: while both stay, so does its content.".
-spec stamp(file:filename_all()) ->
    {ok, {Bytes :: non_neg_integer(), Changed :: integer()}} | {error, term()}.
stamp(Path) ->
    case file:read_file_info(Path, [raw, {time, posix}]) of
        {ok, #file_info{size = Size, mtime = Changed}} -> {ok, {Size, Changed}};
        {error, Reason} -> {error, Reason}
    end.

-spec hash(file:fd(), crypto:hash_state()) -> {ok, binary()} | {error, term()}.
hash(Fd, Hash) ->
    case file:read(Fd, ?BLOCK) of
        {ok, Block} -> hash(Fd, crypto:hash_update(Hash, Block));
        eof -> {ok, binary:encode_hex(crypto:hash_final(Hash), lowercase)};
        {error, Reason} -> {error, Reason}
    end.
