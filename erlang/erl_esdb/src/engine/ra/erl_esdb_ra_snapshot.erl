-module(erl_esdb_ra_snapshot).
-moduledoc """
Snapshots of a store on Ra: the state of the machine, and its tables from an open picture.

```
   bytes
 +--------------+----------+---------------+---------------------+------+
 | "RASN"  4    | 1      1 | CRC-32      4 | bytes of meta     4 | meta |   as m:ra_log_snapshot
 +--------------+----------+---------------+---------------------+------+
 | bytes      4 | state: a map, in the external term format             |
 +--------------+-------------------------------------------------------+
 | bytes      4 | part of a table: {Table, [Object]}                    |   as many as there are
 +--------------+-------------------------------------------------------+
```

The checksum is of all behind it. What Ra does with the file as it is (sending it to another member)
is `m:ra_log_snapshot`'s.

Ra keeps the list of live log entries in a second file, which it writes after the first. A node that
is killed between the two finds a snapshot without a list, which Ra (3.1) reads as "nothing is
live", and it drops the bodies of all events. Here the list is written before the snapshot, synced
with it, and `validate/1`, which Ra calls before it reads the list, writes it again where it is
missing or damaged.

Ra deletes a snapshot that does not validate, and begins with an older one or with none. That is
right for one that was not finished, whose checksum is still 0. One that was finished and is damaged
now stays: `validate/1` raises `{damaged_snapshot, File}`, and the store does not start. So does one
that is of a format which is not known here, as a later release may have written it
(`{unknown_snapshot, File}`).

A store that stops does not wait for one that is being written: `m:erl_esdb_tables` has its reader
give up, and who goes on with the store begins with the snapshot before.
""".

-behaviour(ra_snapshot).

-export([prepare/2, write/4, sync/1, recover/1, validate/1, read_meta/1]).
-export([begin_read/2, read_chunk/3, begin_accept/2, accept_chunk/2, complete_accept/2]).
-export([context/0, get_size/1, refused/1]).

-define(MAGIC, "RASN").
-define(VERSION, 1).
%% Bytes before what the checksum is of.
-define(HEADER, 9).
%% Bytes that are read at a time to compare the checksum.
-define(BLOCK, 1_048_576).

-doc false.
-spec prepare(ra:index() | ra_snapshot:meta(), State) -> State when
    State :: erl_esdb_ra_machine:state().
prepare(_Meta, State) -> State.

-doc false.
-spec write(file:filename_all(), ra_snapshot:meta(), erl_esdb_ra_machine:state(), boolean()) ->
    {ok, non_neg_integer()} | {error, term()}.
write(Dir, Meta, State, Sync) ->
    {Picture, Tables} = erl_esdb_ra_machine:picture(State),
    try
        maybe
            #{live := Live} = Written = erl_esdb_ra_machine:to_snapshot(State),
            ok ?= ra_snapshot:write_indexes(Dir, Live),
            {ok, Bytes} ?= write_file(Dir, Meta, Written, {Picture, Tables}),
            ok ?= if_wanted(Sync, Dir),
            ok = erl_esdb_ra_machine:written(State),
            {ok, Bytes}
        end
    after
        erl_esdb_tables:close_picture(Picture, Tables)
    end.

-spec if_wanted(boolean(), file:filename_all()) -> ok | {error, term()}.
if_wanted(true, Dir) -> sync(Dir);
if_wanted(false, _Dir) -> ok.

-type sum() :: {file:io_device(), Crc :: non_neg_integer(), Bytes :: non_neg_integer()}.

-spec write_file(file:filename_all(), ra_snapshot:meta(), map(), {Picture, Tables}) ->
    {ok, non_neg_integer()} | {error, term()}
when
    Picture :: erl_esdb_tables:picture() | 0, Tables :: erl_esdb_tables:tables().
write_file(Dir, Meta, Written, {Picture, Tables}) ->
    maybe
        {ok, Fd} ?= file:open(filename(Dir), [write, raw, binary]),
        try
            maybe
                ok ?= file:write(Fd, <<?MAGIC, ?VERSION, 0:32>>),
                Sum = lists:foldl(fun framed/2, {Fd, erlang:crc32(<<>>), ?HEADER}, [Meta, Written]),
                {ok, {_, Crc, Bytes}} ?=
                    erl_esdb_tables:fold_picture(fun framed/2, Sum, Picture, Tables),
                ok ?= file:pwrite(Fd, ?HEADER - 4, <<Crc:32>>),
                {ok, Bytes}
            else
                gone -> {error, picture_gone};
                ended -> {error, {?MODULE, store_stops}};
                {error, Reason} -> {error, Reason}
            end
        catch
            throw:{?MODULE, Why} -> {error, Why}
        after
            _ = file:close(Fd)
        end
    end.

-spec framed(term(), sum()) -> sum().
framed(Term, {Fd, Crc, Bytes}) ->
    Frame = term_to_binary(Term),
    Data = [<<(byte_size(Frame)):32>>, Frame],
    case file:write(Fd, Data) of
        ok -> {Fd, erlang:crc32(Crc, Data), Bytes + 4 + byte_size(Frame)};
        {error, Reason} -> throw({?MODULE, Reason})
    end.

-doc false.
-spec sync(file:filename_all()) -> ok | {error, term()}.
sync(Dir) ->
    maybe
        ok ?= ra_lib:sync_file(filename:join(Dir, "indexes")),
        ra_lib:sync_file(filename(Dir))
    end.

-doc false.
%% Reads the tables only in the server of the store: others, who look for the list of live entries,
%% want the state alone.
-spec recover(file:filename_all()) ->
    {ok, ra_snapshot:meta(), erl_esdb_ra_machine:state()} | {error, term()}.
recover(Dir) ->
    %% Its checksum was compared when it was found, or taken over.
    with_frames(Dir, fun(Meta, Written, Frames) ->
        erl_esdb_ra_machine:is_known(Written) orelse error({unknown_snapshot, filename(Dir)}),
        {ok, Meta, recovered(Written, Frames)}
    end).

-spec recovered(map(), file:io_device()) -> erl_esdb_ra_machine:state().
recovered(#{store := Store} = Written, Frames) ->
    case is_server(Store) of
        true -> restored(Written, Frames);
        false -> erl_esdb_ra_machine:from_snapshot(Written, none)
    end.

-spec is_server(atom()) -> boolean().
is_server(Store) -> whereis(erl_esdb_naming:store_worker_name(Store)) =:= self().

-spec restored(map(), file:io_device()) -> erl_esdb_ra_machine:state().
restored(#{store := Store} = Written, Fd) ->
    Replica = erl_esdb_ra_replica:open(Store),
    Tables = erl_esdb_ra_replica:tables(Replica),
    ok = restore(frame(Fd), Fd, Tables),
    State = erl_esdb_ra_machine:from_snapshot(Written, Replica),
    ok = erl_esdb_ra_replica:publish(Replica),
    %% Who follows the log of a store that runs hears of what came with another node's snapshot.
    ok = erl_esdb_feed:committed(Store, erl_esdb_tables:next_position(Tables)),
    State.

-spec restore({ok, erl_esdb_tables:part()} | eof, file:io_device(), erl_esdb_tables:tables()) -> ok.
restore({ok, Part}, Fd, Tables) ->
    ok = erl_esdb_tables:restore(Part, Tables),
    restore(frame(Fd), Fd, Tables);
restore(eof, _Fd, _Tables) ->
    ok.

-doc false.
-spec validate(file:filename_all()) -> ok | {error, term()}.
validate(Dir) ->
    case check(Dir) of
        ok ->
            case is_listed(Dir) of
                true -> ok;
                false -> list_again(Dir)
            end;
        {error, Why} when Why =:= damaged_snapshot; Why =:= unknown_snapshot ->
            error({Why, filename(Dir)});
        {error, Reason} ->
            {error, Reason}
    end.

-doc """
The snapshots below the folder of a server that were finished and cannot be read: they are damaged,
or of a format that is not known here.
""".
-spec refused(Folder :: file:filename_all()) ->
    [{damaged_snapshot | unknown_snapshot, file:filename_all()}].
refused(Folder) ->
    Snapshots = filename:join(Folder, "snapshots"),
    Dirs =
        case file:list_dir_all(Snapshots) of
            {ok, Names} -> [filename:join(Snapshots, Name) || Name <- Names];
            {error, _} -> []
        end,
    [
        {Why, filename(Dir)}
     || Dir <- Dirs,
        {error, Why} <- [check(Dir)],
        Why =:= damaged_snapshot orelse Why =:= unknown_snapshot
    ].

-spec is_listed(file:filename_all()) -> boolean().
is_listed(Dir) ->
    ra_lib:is_file(filename:join(Dir, "indexes")) andalso
        element(1, ra_snapshot:indexes(Dir)) =:= ok.

-spec list_again(file:filename_all()) -> ok | {error, term()}.
list_again(Dir) ->
    maybe
        {ok, Live} ?= with_frames(Dir, fun(_Meta, #{live := Live}, _) -> {ok, Live} end),
        ok ?= ra_snapshot:write_indexes(Dir, Live),
        ra_lib:sync_file(filename:join(Dir, "indexes"))
    end.

%% ---- reading the file

-spec filename(file:filename_all()) -> file:filename_all().
filename(Dir) -> filename:join(Dir, "snapshot.dat").

%% Whether the file is as it was written, and can be read here.
-spec check(file:filename_all()) -> ok | {error, term()}.
check(Dir) ->
    maybe
        ok ?= check_file(filename(Dir)),
        with_frames(Dir, fun(_Meta, Written, _) -> check_state(Written) end)
    end.

-spec check_state(term()) -> ok | {error, unknown_snapshot}.
check_state(Written) ->
    case erl_esdb_ra_machine:is_known(Written) of
        true -> ok;
        false -> {error, unknown_snapshot}
    end.

-spec check_file(file:filename_all()) -> ok | {error, term()}.
check_file(File) ->
    maybe
        {ok, Fd} ?= file:open(File, [read, raw, binary]),
        try file:read(Fd, ?HEADER) of
            {ok, Header} -> check_header(Header, Fd);
            eof -> {error, incomplete};
            {error, Reason} -> {error, Reason}
        after
            _ = file:close(Fd)
        end
    end.

-spec check_header(binary(), file:io_device()) -> ok | {error, term()}.
check_header(<<?MAGIC, ?VERSION, 0:32>>, _Fd) -> {error, incomplete};
check_header(<<?MAGIC, ?VERSION, Crc:32>>, Fd) -> check_sum(Fd, Crc, erlang:crc32(<<>>));
check_header(<<?MAGIC, _Version, _:32>>, _Fd) -> {error, unknown_snapshot};
%% A crash has left a file of which nothing was written yet.
check_header(<<0:?HEADER/unit:8>>, _Fd) -> {error, incomplete};
check_header(<<_:?HEADER/binary>>, _Fd) -> {error, damaged_snapshot};
check_header(_Less, _Fd) -> {error, incomplete}.

-spec check_sum(file:io_device(), non_neg_integer(), non_neg_integer()) -> ok | {error, term()}.
check_sum(Fd, Wanted, Crc) ->
    case file:read(Fd, ?BLOCK) of
        {ok, Data} -> check_sum(Fd, Wanted, erlang:crc32(Crc, Data));
        eof when Crc =:= Wanted -> ok;
        eof -> {error, damaged_snapshot};
        {error, Reason} -> {error, Reason}
    end.

-spec with_frames(
    file:filename_all(), fun((ra_snapshot:meta(), map(), file:io_device()) -> Result)
) -> Result | {error, term()}.
with_frames(Dir, Fun) ->
    maybe
        {ok, Fd} ?= file:open(filename(Dir), [read, raw, binary, {read_ahead, ?BLOCK}]),
        try
            {ok, _} = file:read(Fd, ?HEADER),
            {ok, Meta} = frame(Fd),
            {ok, Written} = frame(Fd),
            Fun(Meta, Written, Fd)
        after
            _ = file:close(Fd)
        end
    end.

-spec frame(file:io_device()) -> {ok, term()} | eof.
frame(Fd) ->
    case file:read(Fd, 4) of
        {ok, <<Size:32>>} ->
            {ok, Frame} = file:read(Fd, Size),
            {ok, binary_to_term(Frame)};
        eof ->
            eof
    end.

%% ---- what Ra does with any file of this kind

-doc false.
-spec read_meta(file:filename_all()) -> {ok, ra_snapshot:meta()} | {error, term()}.
read_meta(Dir) -> ra_log_snapshot:read_meta(Dir).

-doc false.
-spec begin_read(file:filename_all(), map()) -> {ok, ra_snapshot:meta(), term()} | {error, term()}.
begin_read(Dir, Context) -> ra_log_snapshot:begin_read(Dir, Context).

-doc false.
-spec read_chunk(term(), non_neg_integer(), file:filename_all()) ->
    {ok, binary(), {next, term()} | last} | {error, term()}.
read_chunk(State, Size, Dir) -> ra_log_snapshot:read_chunk(State, Size, Dir).

-doc false.
-spec begin_accept(file:filename_all(), ra_snapshot:meta()) -> {ok, term()}.
begin_accept(Dir, Meta) -> ra_log_snapshot:begin_accept(Dir, Meta).

-doc false.
-spec accept_chunk(binary(), term()) -> {ok, term()}.
accept_chunk(Chunk, State) -> ra_log_snapshot:accept_chunk(Chunk, State).

-doc false.
-spec complete_accept(binary(), term()) -> {ok, non_neg_integer()}.
complete_accept(Chunk, State) -> ra_log_snapshot:complete_accept(Chunk, State).

-doc false.
-spec context() -> map().
context() -> ra_log_snapshot:context().

-doc false.
-spec get_size(file:filename_all()) -> {ok, non_neg_integer()} | {error, term()}.
get_size(Dir) -> ra_log_snapshot:get_size(Dir).
