-module(erl_esdb_archive_file).
-moduledoc """
Archives as files: one for each key, at `base_dir/Store/Stream/From-To.Incarnation.archive`.

```erlang
1> {ok, State} = erl_esdb_archive_file:init(#{base_dir => "/var/lib/archive"}).
2> {ok, State1} = erl_esdb_archive_file:archive(State, Key, Events).
3> {ok, Events, State2} = erl_esdb_archive_file:read(State1, Key).
```

A file (drawn in `m:erl_esdb_frames`) holds packed segments of at most 4,096 events, compressed with
zstd, and says what it should have. It is written as a whole or not at all, is on the disk when
`archive/3` answers, and everything in it is checked when it is read.

Small archives gain by a dictionary, which is trained once for the streams of a family, those with
the same name up to the first `-`, as soon as enough events of it were archived. Dictionaries stand
in `base_dir/Store/~dictionaries`: without its dictionary an archive cannot be read.

Until it is whole a file stands in `base_dir/Store/~unfinished`. What a writer leaves there that was
killed is removed by the next one that writes an archive of the store an hour later or more.

An archive is never changed. What is under a key already may be written again with the same events;
other ones are refused. A damaged one is replaced.

Parts of a path that are too long for a file system are cut, and end in `~` and a hash.

## Options

- `base_dir` (or `base_path`): the folder; made where it is missing
- `dictionary_size`: bytes of a dictionary, 256 to 1,048,576, default 32,768; `none` for no
  dictionaries. One is trained on 32 times as many bytes
- `level`: of zstd, 1 to 22, default 9
- `atoms`: `create` (default) makes atoms that this node does not have; `existing` makes an archive
  with such ones corrupt, for folders that others can write to

## Errors

- `{missing_option, base_dir}`, `{invalid_option, Key, Value}`
- `{invalid_key, Key}`: not one of `erl_esdb_archive_backend:make_key/4,5`; none climbs out of the
  folder
- `{failed_to_create_dir, R}`, `{write_failed, R}`, `{read_failed, R}`, `{list_failed, R}`,
  `{delete_failed, R}`: R as of `m:file`
- `{archive_not_found, Key}`, `{corrupted_archive, Key}`, `{archive_exists, Key}`
- `{missing_dictionary, Path}`: it was removed, or is damaged
- `{unsupported_version, N}`: it was written by a later release; such a one is not replaced either
- `{event_too_large, Size, Max}`: an event of more than 128 MiB
""".

-behaviour(erl_esdb_archive_backend).

-export([init/1, archive/3, read/2, list/3, delete/2, exists/2]).

-include("erl_esdb.hrl").

%% Not beside the archives, of which a stream may have any number: it is looked through after each.
-define(UNFINISHED, "~unfinished").
-define(SEGMENT, #{events => 4096, bytes => 16_777_216}).
-define(DEFAULTS, #{dictionary_size => 32_768, level => 9, atoms => create}).

-record(state, {
    dir :: binary(),
    level :: 1..22,
    atoms :: existing | create,
    dictionaries :: erl_esdb_archive_dictionary:cache()
}).
-opaque state() :: #state{}.
-export_type([state/0]).

-doc "Makes the folder.".
-spec init(map()) -> {ok, state()} | {error, term()}.
init(#{base_path := Dir} = Options) when not is_map_key(base_dir, Options) ->
    init((maps:remove(base_path, Options))#{base_dir => Dir});
init(#{base_dir := Dir} = Options) ->
    Checked = maps:merge(?DEFAULTS, Options),
    maybe
        ok ?= check(Checked),
        #{dictionary_size := Size, level := Level, atoms := Atoms} = Checked,
        Path = erl_esdb_file:path(filename:absname(Dir)),
        ok ?= erl_esdb_file:ensure_dir(Path),
        Dictionaries = erl_esdb_archive_dictionary:new(Size, Level),
        {ok, #state{dir = Path, level = Level, atoms = Atoms, dictionaries = Dictionaries}}
    end;
init(#{}) ->
    {error, {missing_option, base_dir}}.

-spec check(map()) -> ok | {error, {invalid_option, atom(), term()}}.
check(Options) ->
    case [{Key, Value} || Key := Value <- Options, not is_valid(Key, Value)] of
        [] -> ok;
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}}
    end.

-spec is_valid(term(), term()) -> boolean().
is_valid(base_dir, Dir) -> is_binary(Dir) orelse io_lib:char_list(Dir);
is_valid(dictionary_size, none) -> true;
is_valid(dictionary_size, Size) -> is_integer(Size) andalso Size >= 256 andalso Size =< 1_048_576;
is_valid(level, Level) -> is_integer(Level) andalso Level >= 1 andalso Level =< 22;
is_valid(atoms, Atoms) -> Atoms =:= existing orelse Atoms =:= create;
is_valid(_, _) -> true.

-doc "Writes an archive, or finds that it is there.".
-spec archive(state(), erl_esdb_archive_backend:key(), [event()]) ->
    {ok, state()} | {error, term()}.
archive(State, Key, Events) when is_list(Events) ->
    maybe
        {ok, Place} ?= place(State, Key),
        case read(State, Key) of
            {ok, Events, State1} -> {ok, State1};
            {ok, _Others, _} -> {error, {archive_exists, Key}};
            {error, {archive_not_found, _}} -> write(State, Key, Place, Events);
            {error, {corrupted_archive, _}} -> write(State, Key, Place, Events);
            {error, Reason} -> {error, Reason}
        end
    end.

-type place() :: #{path := binary(), store_dir := binary(), stream := binary()}.

-spec write(state(), binary(), place(), [event()]) -> {ok, state()} | {error, term()}.
write(#state{dictionaries = Cache, level = Level} = State, Key, Place, Events) ->
    #{path := Path, store_dir := Dir, stream := Stream} = Place,
    {Dictionary, Cache1} = erl_esdb_archive_dictionary:for(Dir, Stream, Events, Cache),
    maybe
        {ok, Segments} ?= pack(erl_esdb_event_segment:split(Events, ?SEGMENT), Level, Dictionary),
        Header = #{
            key => Key,
            created_at => erlang:system_time(millisecond),
            event_count => length(Events),
            dictionary => erl_esdb_archive_dictionary:name(Dictionary)
        },
        Unfinished = filename:join(Dir, ?UNFINISHED),
        ok ?= erl_esdb_file:write(Path, file(Header, Segments), Unfinished),
        ok = erl_esdb_file:sweep(Unfinished),
        {ok, State#state{dictionaries = Cache1}}
    end.

-spec pack([[event()]], 1..22, erl_esdb_archive_dictionary:dictionary()) ->
    {ok, [binary()]} | {error, term()}.
pack([Events | Rest], Level, Dictionary) ->
    Options = erl_esdb_archive_dictionary:options(Dictionary, Level),
    maybe
        {ok, Segment} ?= erl_esdb_event_segment:pack(Events, Options),
        {ok, Segments} ?= pack(Rest, Level, Dictionary),
        {ok, [Segment | Segments]}
    end;
pack([], _Level, _Dictionary) ->
    {ok, []}.

-spec file(map(), [binary()]) -> iolist().
file(Header, Segments) ->
    {Head, Sum} = erl_esdb_frames:head(archive),
    Frames = [{header, encode(Header)} | [{segment, S} || S <- Segments]] ++ [{'end', <<>>}],
    {Encoded, _} = lists:mapfoldl(
        fun({Tag, Body}, Acc) -> erl_esdb_frames:frame(Tag, Body, Acc) end, Sum, Frames
    ),
    [Head | Encoded].

-spec encode(map()) -> binary().
encode(Header) -> term_to_binary(Header, [{minor_version, 2}, deterministic]).

-doc "The events of an archive, checked.".
-spec read(state(), erl_esdb_archive_backend:key()) ->
    {ok, [event()], state()} | {error, term()}.
read(State, Key) ->
    maybe
        {ok, #{path := Path, store_dir := Dir}} ?= place(State, Key),
        {ok, File} ?= content(Path, Key),
        {ok, [{header, Header} | Frames]} ?= erl_esdb_frames:decode(File, archive),
        {ok, #{key := Key, event_count := Count, dictionary := Name}} ?=
            erl_esdb_event_segment:decode(Header, existing),
        {ok, Dictionary, State1} ?= dictionary(State, Dir, Name),
        {ok, Events} ?= unpack(Frames, Dictionary, State#state.atoms, []),
        true ?= length(Events) =:= Count,
        {ok, Events, State1}
    else
        {error, {missing_dictionary, _} = Reason} -> {error, Reason};
        {error, {archive_not_found, _} = Reason} -> {error, Reason};
        {error, {invalid_key, _} = Reason} -> {error, Reason};
        {error, {read_failed, _} = Reason} -> {error, Reason};
        {error, {unsupported_version, _} = Reason} -> {error, Reason};
        _ -> {error, {corrupted_archive, Key}}
    end.

-spec content(binary(), binary()) -> {ok, binary()} | {error, term()}.
content(Path, Key) ->
    case file:read_file(Path, [raw]) of
        {ok, File} -> {ok, File};
        {error, enoent} -> {error, {archive_not_found, Key}};
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-spec dictionary(state(), binary(), term()) ->
    {ok, erl_esdb_archive_dictionary:dictionary(), state()} | {error, term()}.
dictionary(#state{dictionaries = Cache} = State, Dir, Name) ->
    case erl_esdb_archive_dictionary:named(Dir, Name, Cache) of
        {ok, Dictionary, Cache1} -> {ok, Dictionary, State#state{dictionaries = Cache1}};
        {error, Reason} -> {error, Reason}
    end.

-spec unpack([{erl_esdb_frames:tag(), binary()}], Dictionary, existing | create, [[event()]]) ->
    {ok, [event()]} | {error, term()}
when
    Dictionary :: erl_esdb_archive_dictionary:dictionary().
unpack([{segment, Segment} | Frames], Dictionary, Atoms, Read) ->
    With = erl_esdb_archive_dictionary:with(Segment, Dictionary),
    case erl_esdb_event_segment:unpack(With, Atoms) of
        {ok, Events} -> unpack(Frames, Dictionary, Atoms, [Events | Read]);
        {error, Reason} -> {error, Reason}
    end;
unpack([{'end', <<>>}], _Dictionary, _Atoms, Read) ->
    {ok, lists:append(lists:reverse(Read))};
unpack(_, _, _, _) ->
    {error, corrupt}.

-doc "The keys of the archives of a stream, by version.".
-spec list(state(), Store :: atom(), Stream :: binary()) ->
    {ok, [erl_esdb_archive_backend:key()], state()} | {error, term()}.
list(#state{dir = Dir} = State, Store, Stream) when is_atom(Store), is_binary(Stream) ->
    Prefix = [erl_esdb_archive_backend:escape(Name) || Name <- [atom_to_binary(Store), Stream]],
    case file:list_dir_all(filename:join([Dir | [component(Part) || Part <- Prefix]])) of
        {ok, Files} -> {ok, keys(iolist_to_binary(lists:join($/, Prefix)), Files), State};
        {error, enoent} -> {ok, [], State};
        {error, Reason} -> {error, {list_failed, Reason}}
    end.

%% What is no archive, such as a file that is just being written, is passed over.
-spec keys(binary(), [file:filename_all()]) -> [erl_esdb_archive_backend:key()].
keys(Prefix, Files) ->
    Keys = [<<Prefix/binary, $/, (erl_esdb_file:path(File))/binary>> || File <- Files],
    Sorted = lists:sort([
        {From, To, Key}
     || Key <- Keys,
        {ok, #{from_version := From, to_version := To}} <-
            [erl_esdb_archive_backend:split_key(Key)]
    ]),
    [Key || {_, _, Key} <- Sorted].

-doc "Removes an archive; `ok` also where there is none.".
-spec delete(state(), erl_esdb_archive_backend:key()) -> {ok, state()} | {error, term()}.
delete(State, Key) ->
    maybe
        {ok, #{path := Path}} ?= place(State, Key),
        ok ?= erl_esdb_file:delete(Path),
        {ok, State}
    else
        {error, {invalid_key, _} = Reason} -> {error, Reason};
        {error, Reason} -> {error, {delete_failed, Reason}}
    end.

-doc "Whether there is an archive. A key that is none has none.".
-spec exists(state(), erl_esdb_archive_backend:key()) -> {boolean(), state()}.
exists(State, Key) ->
    case place(State, Key) of
        {ok, #{path := Path}} -> {filelib:is_regular(Path), State};
        {error, _} -> {false, State}
    end.

-spec place(state(), term()) -> {ok, place()} | {error, {invalid_key, term()}}.
place(#state{dir = Dir}, Key) ->
    case erl_esdb_archive_backend:split_key(Key) of
        {ok, #{stream_id := Stream}} ->
            [Store, Name, File] = binary:split(Key, ~"/", [global]),
            StoreDir = filename:join(Dir, component(Store)),
            Path = filename:join([StoreDir, component(Name), File]),
            {ok, #{path => Path, store_dir => StoreDir, stream => Stream}};
        {error, invalid_key} ->
            {error, {invalid_key, Key}}
    end.

-spec component(binary()) -> binary().
component(Name) -> erl_esdb_archive_dictionary:component(Name).
