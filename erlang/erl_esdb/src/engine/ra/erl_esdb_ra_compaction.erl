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
no room for the file: then the links replace segments whose events are nowhere else. A server that
finds two notes does not start. And one that runs appends to the new file of a compaction that
failed, until that is full, and compacts nothing any more.

So both are deleted: before Ra looks, and before a snapshot is written, which is done by the process
that compacts. Where the first segment was renamed already it has copies of what the others still
have: Ra reads each entry from the last file that has it, and the next compaction of the group makes
the links.
""".

-export([forget/1]).

-doc """
Forgets what compactions have left in the folder of a server, of which none runs. Raises
`{segment, File, Reason}` for a file that cannot be deleted.
""".
-spec forget(Folder :: file:filename_all()) -> ok.
forget(Folder) ->
    case file:list_dir(Folder) of
        {ok, Names} ->
            %% A new file without a note is nothing to Ra.
            Left = [
                filename:join(Folder, Name)
             || Ending <- [".compaction_group", ".compacting"],
                Name <- Names,
                filename:extension(Name) =:= Ending
            ],
            lists:foreach(fun(File) -> deleted(File, file:delete(File, [raw])) end, Left);
        {error, Reason} ->
            error({segment, Folder, Reason})
    end.

-spec deleted(file:filename_all(), ok | {error, file:posix() | badarg}) -> ok.
deleted(_File, ok) -> ok;
deleted(File, {error, Reason}) -> error({segment, File, Reason}).
