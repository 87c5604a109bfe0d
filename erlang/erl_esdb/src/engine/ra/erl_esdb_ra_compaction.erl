-module(erl_esdb_ra_compaction).
-moduledoc """
Compactions of segments that have not come to their end.

Ra (3.1) copies what is alive in a group of segments into a new file, renames that to the first of
them, and makes the others links to it. Before it makes the file it writes down the group, and
deletes that note when all is done:

```
 0000000000000002.compaction_group    [~"0000000000000002.segment", ~"0000000000000003.segment"]
 0000000000000002.compacting          the new file, until it is renamed
```

A server that begins and finds the note without the new file takes it that the file was renamed, and
makes the links. But it was not made yet where the process ended right after the note, where power
was lost before the file stood in its folder, where the note could not be synced, or where there was
no room for the file: then the links replace segments whose events are nowhere else. And a server
that finds two notes does not start.

Here they are settled before Ra looks. Where the first segment has all that is alive of the others
the links lose nothing, and are made; where it has not, it cannot have been renamed, and the note is
deleted: the segments stay as they were.
""".

-export([settle/2]).

-include_lib("kernel/include/file.hrl").

-type segment() :: {Folder :: file:filename_all(), Name :: string()}.

-define(NOTE, ".compaction_group").
-define(NEW, ".compacting").
-define(LINK, ".link").

-doc """
Settles the compactions in the folder of a server that does not run, of whose entries these are
alive. Raises `{segment, File, Reason}` for a file that cannot be read or written.
""".
-spec settle(Folder :: file:filename_all(), Live :: ra_seq:state()) -> ok.
settle(Folder, Live) ->
    Notes = [Name || Name <- names(Folder), filename:extension(Name) =:= ?NOTE],
    lists:foreach(fun(Note) -> settle_one(Folder, Note, Live) end, Notes).

-spec names(file:filename_all()) -> [file:filename()].
names(Folder) ->
    case file:list_dir(Folder) of
        {ok, Names} -> Names;
        {error, Reason} -> failed(Folder, Reason)
    end.

-spec settle_one(file:filename_all(), file:filename(), ra_seq:state()) -> ok.
settle_one(Folder, Note, Live) ->
    New = filename:join(Folder, filename:rootname(Note) ++ ?NEW),
    File = filename:join(Folder, Note),
    ok =
        case is_file(New) of
            true -> deleted(New);
            false -> linked([{Folder, Name} || Name <- group(File)], Live)
        end,
    deleted(File).

%% One that is not whole was written by who got no further.
-spec group(file:filename_all()) -> [string()].
group(File) ->
    case file:read_file(File, [raw]) of
        {ok, Bytes} -> names_of(Bytes);
        {error, Reason} -> failed(File, Reason)
    end.

-spec names_of(binary()) -> [string()].
names_of(Bytes) ->
    try
        [binary_to_list(Name) || Name <- binary_to_term(Bytes, [safe])]
    catch
        error:badarg -> [];
        error:{bad_generator, _} -> []
    end.

-spec linked([segment()], ra_seq:state()) -> ok.
linked([First | Others], Live) ->
    Segments = [Segment || Segment <- Others, is_file(path(Segment))],
    case Segments =/= [] andalso is_file(path(First)) andalso has_all(First, Segments, Live) of
        true -> lists:foreach(fun(Segment) -> link_to(First, Segment) end, Segments);
        false -> ok
    end;
linked([], _Live) ->
    ok.

%% Not a link.
-spec is_file(file:filename_all()) -> boolean().
is_file(File) ->
    case file:read_link_info(File, [raw]) of
        {ok, #file_info{type = Type}} -> Type =:= regular;
        {error, enoent} -> false;
        {error, Reason} -> failed(File, Reason)
    end.

%% Whether a segment has what is alive of these.
-spec has_all(segment(), [segment()], ra_seq:state()) -> boolean().
has_all(First, Segments, Live) ->
    Has = indexes(First),
    lists:all(fun(Segment) -> alive(indexes(Segment), Live) -- Has =:= [] end, Segments).

-spec indexes(segment()) -> [ra:index()].
indexes(Segment) ->
    case erl_esdb_ra_segment:indexes(path(Segment)) of
        {ok, Indexes} -> Indexes;
        {error, Reason} -> failed(path(Segment), Reason)
    end.

-spec alive([ra:index()], ra_seq:state()) -> [ra:index()].
alive([], _Live) ->
    [];
alive([First | _] = Indexes, Live) ->
    InRange = ra_seq:expand(ra_seq:in_range({First, lists:last(Indexes)}, Live)),
    ordsets:intersection(ordsets:from_list(InRange), Indexes).

%% As Ra does it: whatever ends in between leaves one or the other.
-spec link_to(segment(), segment()) -> ok.
link_to(First, {Folder, Name} = Segment) ->
    Link = path({Folder, filename:rootname(Name) ++ ?LINK}),
    _ = file:delete(Link, [raw]),
    ok = done(Link, file:make_symlink(path(First), Link)),
    ok = done(path(Segment), file:rename(Link, path(Segment))).

-spec path(segment()) -> file:filename_all().
path({Folder, Name}) -> filename:join(Folder, Name).

-spec deleted(file:filename_all()) -> ok.
deleted(File) -> ok = done(File, file:delete(File, [raw])).

-spec done(file:filename_all(), ok | {error, file:posix() | badarg}) -> ok.
done(_File, ok) -> ok;
done(File, {error, Reason}) -> failed(File, Reason).

-spec failed(file:filename_all(), term()) -> no_return().
failed(File, Reason) -> error({segment, File, Reason}).
