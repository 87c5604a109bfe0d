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

The checksum is of all behind it, and never 0: that it is until all is written, and synced. Where
another member sends the file it stands there last, too. How it is read for that is
`m:ra_log_snapshot`'s.

Ra keeps the list of live log entries in a second file, which it writes after the first. A node that
is killed between the two finds a snapshot without a list, which Ra (3.1) reads as "nothing is
live", and it drops the bodies of all events. Here the list is written before the snapshot, synced
with it, and `validate/1`, which Ra calls before it reads the list, writes it again where it is
missing or damaged. What compactions have left that did not come to their end is forgotten then,
too, and before a snapshot is written (`m:erl_esdb_ra_compaction`).

Ra deletes a snapshot that does not validate, and begins with an older one or with none. That is
right for one that was not finished: its checksum is still 0, or it is shorter than what stands
before the meta, or nothing but zeros. Any other stays: `validate/1` raises what is wrong, a
`t:defect/0`, and the store does not start. So it does where a later release has written it.

A store that stops does not wait for one that is being written: `m:erl_esdb_tables` has its reader
give up, and who goes on with the store begins with the snapshot before.
""".

-behaviour(ra_snapshot).

-export([prepare/2, write/4, sync/1, recover/1, validate/1, read_meta/1]).
-export([begin_read/2, read_chunk/3, begin_accept/2, accept_chunk/2, complete_accept/2]).
-export([context/0, get_size/1, defect/1]).
-export_type([defect/0]).

-define(MAGIC, "RASN").
-define(VERSION, 1).
%% Bytes before what the checksum is of.
-define(HEADER, 9).
%% Where a sum is 0, which says that a file is not finished.
-define(NO_ZERO, 1).
%% Bytes that are read at a time to compare the checksum.
-define(BLOCK, 1_048_576).

-doc """
Of a snapshot that is there and cannot be used. It was finished and does not fit its checksum, or
does not begin as one; a later release wrote it; the system cannot read it.
""".
-type defect() ::
    {damaged_snapshot, file:filename()}
    | {snapshot, file:filename(), {unsupported_version, non_neg_integer() | unknown}}
    | {snapshot, file:filename(), file:posix()}.

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
        ok = erl_esdb_ra_compaction:forget(server_folder(Dir)),
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
                ok ?= finished(Fd, Crc),
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

%% A checksum that is on disk stands before what is on disk.
-spec finished(file:io_device(), non_neg_integer()) -> ok | {error, term()}.
finished(Fd, Crc) ->
    maybe
        ok ?= file:datasync(Fd),
        file:pwrite(Fd, ?HEADER - 4, <<(never_zero(Crc)):32>>)
    end.

-spec never_zero(non_neg_integer()) -> pos_integer().
never_zero(0) -> ?NO_ZERO;
never_zero(Crc) -> Crc.

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
        case erl_esdb_ra_machine:check_format(Written) of
            ok -> {ok, Meta, recovered(Written, Frames)};
            {error, Reason} -> error({snapshot, filename(Dir), Reason})
        end
    end).

-spec recovered(map(), file:io_device()) -> erl_esdb_ra_machine:state().
recovered(#{store := Store} = Written, Frames) ->
    case is_server(Store) of
        true -> restored(Written, Frames);
        false -> erl_esdb_ra_machine:from_snapshot(Written, none)
    end.

-spec is_server(atom()) -> boolean().
is_server(Store) ->
    case process_info(self(), registered_name) of
        {registered_name, Name} -> erl_esdb_ra_server:is_name(Name, Store);
        [] -> false
    end.

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
            ok = listed(is_listed(Dir), Dir),
            erl_esdb_ra_compaction:forget(server_folder(Dir));
        unfinished ->
            {error, unfinished};
        {error, Defect} ->
            error(Defect)
    end.

-doc "Whether below the folder of a server there is a snapshot that cannot be used, and why.".
-spec defect(Folder :: file:filename_all()) -> ok | {error, defect()}.
defect(Folder) ->
    Snapshots = filename:join(Folder, "snapshots"),
    case file:list_dir_all(Snapshots) of
        {ok, Names} -> first_defect([filename:join(Snapshots, Name) || Name <- Names]);
        {error, enoent} -> ok;
        {error, Reason} -> {error, {snapshot, unicode:characters_to_list(Snapshots), Reason}}
    end.

-spec first_defect([file:filename_all()]) -> ok | {error, defect()}.
first_defect([]) ->
    ok;
first_defect([Dir | Others]) ->
    case check(Dir) of
        {error, Defect} -> {error, Defect};
        _ -> first_defect(Others)
    end.

-spec is_listed(file:filename_all()) -> boolean().
is_listed(Dir) ->
    ra_lib:is_file(filename:join(Dir, "indexes")) andalso
        element(1, ra_snapshot:indexes(Dir)) =:= ok.

-spec server_folder(file:filename_all()) -> file:filename_all().
server_folder(Dir) -> filename:dirname(filename:dirname(Dir)).

%% An error that is returned has Ra take the snapshot for invalid, and delete it.
-spec listed(boolean(), file:filename_all()) -> ok.
listed(true, _Dir) ->
    ok;
listed(false, Dir) ->
    case list_again(Dir) of
        ok -> ok;
        {error, Reason} -> error({snapshot, unicode:characters_to_list(filename(Dir)), Reason})
    end.

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

%% Whether the file is as it was written.
-spec check(file:filename_all()) -> ok | unfinished | {error, defect()}.
check(Dir) ->
    File = unicode:characters_to_list(filename(Dir)),
    case file:open(File, [read, raw, binary]) of
        {ok, Fd} ->
            try
                told(checked(file:read(Fd, ?HEADER), Fd), File)
            after
                _ = file:close(Fd)
            end;
        {error, enoent} ->
            unfinished;
        {error, Reason} ->
            {error, {snapshot, File, Reason}}
    end.

-type unusable() :: damaged | {error, term()}.
-type judgement() :: ok | unfinished | unusable().

-spec told(judgement(), file:filename()) -> ok | unfinished | {error, defect()}.
told(damaged, File) -> {error, {damaged_snapshot, File}};
told({error, Reason}, File) -> {error, {snapshot, File, Reason}};
told(Judgement, _File) -> Judgement.

-spec checked({ok, binary()} | eof | {error, term()}, file:io_device()) -> judgement().
checked({ok, <<?MAGIC, ?VERSION, 0:32>>}, _Fd) ->
    unfinished;
checked({ok, <<?MAGIC, ?VERSION, Crc:32>>}, Fd) ->
    case check_sum(Fd, Crc, erlang:crc32(<<>>)) of
        ok -> check_format(Fd);
        Other -> Other
    end;
checked({ok, <<?MAGIC, Version, _:32>>}, _Fd) ->
    {error, {unsupported_version, Version}};
%% As a system leaves it that lost power before it had written any of it.
checked({ok, <<0:?HEADER/unit:8>>}, Fd) ->
    only_zeros(file:read(Fd, ?BLOCK), Fd);
checked({ok, Bytes}, _Fd) when byte_size(Bytes) < ?HEADER ->
    unfinished;
checked({ok, _}, _Fd) ->
    damaged;
checked(eof, _Fd) ->
    unfinished;
checked({error, Reason}, _Fd) ->
    {error, Reason}.

-spec check_sum(file:io_device(), non_neg_integer(), non_neg_integer()) -> ok | unusable().
check_sum(Fd, Wanted, Crc) ->
    case file:read(Fd, ?BLOCK) of
        {ok, Data} -> check_sum(Fd, Wanted, erlang:crc32(Crc, Data));
        eof -> fits(never_zero(Crc), Wanted);
        {error, Reason} -> {error, Reason}
    end.

-spec fits(pos_integer(), pos_integer()) -> ok | damaged.
fits(Sum, Sum) -> ok;
fits(_, _) -> damaged.

-spec only_zeros({ok, binary()} | eof | {error, term()}, file:io_device()) ->
    unfinished | unusable().
only_zeros({ok, Data}, Fd) ->
    case Data =:= <<0:(byte_size(Data))/unit:8>> of
        true -> only_zeros(file:read(Fd, ?BLOCK), Fd);
        false -> damaged
    end;
only_zeros(eof, _Fd) ->
    unfinished;
only_zeros({error, Reason}, _Fd) ->
    {error, Reason}.

%% The state has a number of its own.
-spec check_format(file:io_device()) -> ok | unusable().
check_format(Fd) ->
    maybe
        {ok, ?HEADER} ?= file:position(Fd, ?HEADER),
        {ok, _Meta} ?= frame(Fd),
        {ok, Written} ?= frame(Fd),
        erl_esdb_ra_machine:check_format(Written)
    else
        eof -> damaged;
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
-spec context() -> map().
context() -> ra_log_snapshot:context().

-doc false.
-spec get_size(file:filename_all()) -> {ok, non_neg_integer()} | {error, term()}.
get_size(Dir) -> ra_log_snapshot:get_size(Dir).

%% ---- what another member sends

%% The file as it is there, in parts: its own checksum, and that of what has come.
-type accepting() ::
    {file:io_device(), begun} | {file:io_device(), pos_integer(), non_neg_integer()}.

-doc false.
-spec begin_accept(file:filename_all(), ra_snapshot:meta()) -> {ok, accepting()}.
begin_accept(Dir, _Meta) ->
    {ok, Fd} = file:open(filename(Dir), [write, raw, binary]),
    {ok, {Fd, begun}}.

-doc false.
%% A node that ends before all has come leaves a file that is not finished.
-spec accept_chunk(binary(), accepting()) -> {ok, accepting()}.
accept_chunk(<<?MAGIC, ?VERSION, Wanted:32, Data/binary>>, {Fd, begun}) when Wanted > 0 ->
    ok = file:write(Fd, [<<?MAGIC, ?VERSION, 0:32>>, Data]),
    {ok, {Fd, Wanted, erlang:crc32(Data)}};
accept_chunk(<<?MAGIC, Version, _/binary>>, {_Fd, begun}) when Version =/= ?VERSION ->
    error({unsupported_version, Version});
accept_chunk(Data, {Fd, Wanted, Crc}) ->
    ok = file:write(Fd, Data),
    {ok, {Fd, Wanted, erlang:crc32(Crc, Data)}}.

-doc false.
-spec complete_accept(binary(), accepting()) -> {ok, non_neg_integer()}.
complete_accept(Chunk, Accepting) ->
    {ok, {Fd, Wanted, Crc}} = accept_chunk(Chunk, Accepting),
    Wanted = never_zero(Crc),
    {ok, Bytes} = file:position(Fd, cur),
    ok = finished(Fd, Crc),
    ok = file:sync(Fd),
    ok = file:close(Fd),
    {ok, Bytes}.
