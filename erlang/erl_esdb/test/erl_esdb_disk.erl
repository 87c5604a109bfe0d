-module(erl_esdb_disk).
-moduledoc """
A disk that fails: a library between a node and libc, `data/disk_fault.c`, compiled when it is first
wanted and preloaded. It acts on one folder, and on nothing else of the node.

```erlang
1> {ok, Library} = erl_esdb_disk:library("/tmp/x").
2> Disk = erl_esdb_disk:new(Library, "/tmp/x/n1", "/tmp/x/disk1").
3> %% start a node with erl_esdb_disk:environment(Disk)
3> ok = erl_esdb_disk:fail(Disk, [sync_eio], 0).
4> erl_esdb_disk:acted(Disk, sync_eio).
3
```

`power_loss/1`, for a node that was killed, takes back what was written and not synced since. That
is the data of files and their size; names that were made or removed stay.

`kill_after/2` has the node killed before one call of those that change its folder: with one number
after the other, at each step of what it does.
""".

-export([library/1, new/3, environment/1, fail/3, acted/2, kill_after/2, power_loss/1]).
-export([flip/2, damage/2]).
-export_type([disk/0, fault/0]).

-doc "What a disk does.".
-type fault() ::
    write_enospc | write_eio | sync_eio | write_slow | sync_slow | write_short | read_eio.
-opaque disk() :: #{
    library := file:filename(),
    dir := file:filename(),
    control := file:filename(),
    journal := file:filename()
}.

%% In the order of the bits.
-define(FAULTS, [write_enospc, write_eio, sync_eio, write_slow, sync_slow, write_short, read_eio]).

-doc "Compiles the library into a folder. Errors: `no_compiler`, or what the compiler says.".
-spec library(file:filename()) -> {ok, file:filename()} | {error, no_compiler | string()}.
library(Dir) ->
    Source = filename:join([folder(), "data", "disk_fault.c"]),
    Library = filename:join(Dir, "libdisk_fault.so"),
    case [Path || Path <- lists:map(fun os:find_executable/1, ["cc", "gcc"]), Path =/= false] of
        [] -> {error, no_compiler};
        [Compiler | _] -> compiled(Compiler, Source, Library)
    end.

-spec compiled(file:filename(), file:filename(), file:filename()) ->
    {ok, file:filename()} | {error, string()}.
compiled(Compiler, Source, Library) ->
    Said = os:cmd(
        lists:flatten(
            io_lib:format("'~ts' -shared -fPIC -O1 -o '~ts' '~ts' -ldl -lpthread", [
                Compiler, Library, Source
            ])
        )
    ),
    case filelib:is_regular(Library) of
        true -> {ok, Library};
        false -> {error, Said}
    end.

-spec folder() -> file:filename().
folder() -> filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))).

-doc "A disk for this folder, of which its state is in another one.".
-spec new(Library :: file:filename(), Dir :: file:filename(), State :: file:filename()) -> disk().
new(Library, Dir, State) ->
    Journal = filename:join(State, "journal"),
    Control = filename:join(State, "control"),
    ok = filelib:ensure_path(Dir),
    ok = filelib:ensure_path(Journal),
    ok = file:write_file(Control, <<0:(128 * 8)>>),
    #{library => Library, dir => filename:absname(Dir), control => Control, journal => Journal}.

-doc "What a node is started with to have this disk.".
-spec environment(disk()) -> [{string(), string()}].
environment(#{library := Library, dir := Dir, control := Control, journal := Journal}) ->
    [
        {"LD_PRELOAD", Library},
        {"ESDB_FAULT_DIR", Dir},
        {"ESDB_FAULT_CONTROL", Control},
        {"ESDB_FAULT_JOURNAL", Journal}
    ].

-doc "From now on it does this, and nothing else; slow is so many microseconds.".
-spec fail(disk(), [fault()], Microseconds :: non_neg_integer()) -> ok.
fail(#{control := Control}, Faults, Delay) ->
    Mode = lists:sum([1 bsl bit(Fault) || Fault <- Faults]),
    changed(Control, fun(File) -> file:pwrite(File, 0, <<Mode:32/native, Delay:32/native>>) end).

-doc "How many calls were changed in this way.".
-spec acted(disk(), fault()) -> non_neg_integer().
acted(#{control := Control}, Fault) ->
    {ok, <<Count:64/native>>} = changed(Control, fun(File) ->
        file:pread(File, 8 + 8 * bit(Fault), 8)
    end),
    Count.

-doc """
The node makes so many calls more that change its folder, and is killed before the next one;
`infinity` takes it back.
""".
-spec kill_after(disk(), Calls :: non_neg_integer() | infinity) -> ok.
kill_after(#{control := Control}, Calls) ->
    Left =
        case Calls of
            infinity -> 0;
            _ -> Calls + 1
        end,
    At = 8 + 8 * length(?FAULTS),
    changed(Control, fun(File) -> file:pwrite(File, At, <<Left:64/native>>) end).

%% In place: the node has this file mapped.
-spec changed(file:filename(), fun((file:io_device()) -> Result)) -> Result.
changed(Control, Fun) ->
    {ok, File} = file:open(Control, [read, write, raw, binary]),
    try
        Fun(File)
    after
        ok = file:close(File)
    end.

-spec bit(fault()) -> non_neg_integer().
bit(Fault) ->
    {Bit, _} = lists:keyfind(Fault, 2, lists:enumerate(0, ?FAULTS)),
    Bit.

-doc """
Takes back what a node that was killed had written and not synced. Answers how many bytes were
written in vain, of how many files.
""".
-spec power_loss(disk()) -> {Files :: non_neg_integer(), Bytes :: non_neg_integer()}.
power_loss(#{dir := Dir, journal := Journal}) ->
    {ok, Inodes} = file:list_dir(Journal),
    Paths = [Path || Path <- filelib:wildcard(Dir ++ "/**"), filelib:is_regular(Path)],
    Files = #{inode(Path) => Path || Path <- Paths},
    Lost = [
        undo(map_get(Inode, Files), filename:join(Journal, Inode))
     || Inode <- Inodes, is_map_key(Inode, Files)
    ],
    _ = [ok = file:delete(filename:join(Journal, Inode)) || Inode <- Inodes],
    {length(Lost), lists:sum(Lost)}.

-spec inode(file:filename()) -> string().
inode(Path) ->
    {ok, Info} = file:read_file_info(Path, [raw]),
    integer_to_list(element(12, Info)).

%% From the last to the first; how much shorter the file is, or how many bytes are as they were.
-spec undo(file:filename(), file:filename()) -> non_neg_integer().
undo(Path, Journal) ->
    {ok, Records} = file:read_file(Journal),
    {ok, File} = file:open(Path, [read, write, raw, binary]),
    {ok, Before} = file:position(File, eof),
    Undone = [restore(File, Record) || Record <- lists:reverse(records(Records))],
    {ok, After} = file:position(File, eof),
    ok = file:sync(File),
    ok = file:close(File),
    max(0, Before - After) + lists:sum(Undone).

%% One that was being written at the end is of a write that had not begun.
-spec records(binary()) -> [{non_neg_integer(), non_neg_integer(), binary()}].
records(<<Offset:64/native, Size:64/native, Kept:64/native, Bytes:Kept/binary, Rest/binary>>) ->
    [{Offset, Size, Bytes} | records(Rest)];
records(_) ->
    [].

-spec restore(file:io_device(), {non_neg_integer(), non_neg_integer(), binary()}) ->
    non_neg_integer().
restore(File, {Offset, Size, Bytes}) ->
    {ok, Size} = file:position(File, Size),
    ok = file:truncate(File),
    ok = file:pwrite(File, Offset, Bytes),
    byte_size(Bytes).

-doc "Changes one bit of a file, for good: what a bad sector or a bad memory does.".
-spec flip(file:filename(), Offset :: non_neg_integer()) -> ok.
flip(Path, Offset) ->
    {ok, File} = file:open(Path, [read, write, raw, binary]),
    {ok, <<Byte>>} = file:pread(File, Offset, 1),
    ok = file:pwrite(File, Offset, <<(Byte bxor 16#10)>>),
    ok = file:sync(File),
    file:close(File).

-doc "Changes a byte where these bytes stand for the first time; whether they stand there at all.".
-spec damage(file:filename(), Mark :: binary()) -> boolean().
damage(Path, Mark) ->
    {ok, Bytes} = file:read_file(Path),
    case binary:match(Bytes, Mark) of
        nomatch -> false;
        {Offset, _} -> flip(Path, Offset) =:= ok
    end.
