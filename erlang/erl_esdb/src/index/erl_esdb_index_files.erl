-module(erl_esdb_index_files).
-moduledoc """
Keeps the large runs of an index in files, so that a start reads them instead of the whole log.

```
 index/ 0-1048576.runs  1048576-1572864.runs      positions from the first to before the second
```

A file is written when runs were merged, beside the old ones; then those that it covers are removed.
A start takes from position 0 on the file that reaches furthest, and so on as far as they follow
each other. What comes behind, and all where a file is missing, damaged or of other kinds, is read
from the log: an index is derived, so nothing here is synced, and no error is more than a line in
the log.

They lie in the folder of the store's server, and go with it: in another folder the same positions
are other events.
""".

-export([load/2, save/3]).

-include_lib("kernel/include/logger.hrl").

-define(FOLDER, "index").
-define(EXTENSION, ".runs").

-type kinds() :: [erl_esdb_index_keys:kind()].
-type part() :: {From :: erl_esdb_runs:position(), Before :: erl_esdb_runs:position()}.

-doc "What the files below a folder hold of an index of these kinds.".
-spec load(Folder :: file:filename_all(), kinds()) -> erl_esdb_runs:runs().
load(Folder, Kinds) ->
    Dir = filename:join(Folder, ?FOLDER),
    Label = erl_esdb_index_keys:label(Kinds),
    from(0, lists:sort(fun furthest/2, parts(Dir)), Dir, Label, erl_esdb_runs:new()).

-spec furthest(part(), part()) -> boolean().
furthest({From, A}, {From, B}) -> A >= B;
furthest({A, _}, {B, _}) -> A < B.

-spec from(Position, [part()], file:filename_all(), byte(), Runs) -> Runs when
    Position :: erl_esdb_runs:position(), Runs :: erl_esdb_runs:runs().
from(At, [{At, Before} = Part | Parts], Dir, Label, Runs) ->
    case read(file(Dir, Part), Label) of
        {ok, More} ->
            from(Before, Parts, Dir, Label, erl_esdb_runs:append(More, Runs));
        {error, Reason} ->
            ?LOG_NOTICE("~ts is made again: ~tp", [file(Dir, Part), Reason]),
            from(At, Parts, Dir, Label, Runs)
    end;
from(At, [{From, _} | Parts], Dir, Label, Runs) when From < At ->
    from(At, Parts, Dir, Label, Runs);
from(_At, _Parts, _Dir, _Label, Runs) ->
    Runs.

-spec read(file:filename_all(), byte()) -> {ok, erl_esdb_runs:runs()} | {error, term()}.
read(File, Label) ->
    maybe
        {ok, Bytes} ?= file:read_file(File),
        {ok, Label, Runs} ?= erl_esdb_runs:from_binary(Bytes),
        {ok, Runs}
    else
        {ok, _Other, _Runs} -> {error, other_kinds};
        {error, Reason} -> {error, Reason}
    end.

-doc """
Keeps a run of an index of these kinds, instead of those that it covers. An empty one is not kept.
""".
-spec save(Folder :: file:filename_all(), kinds(), erl_esdb_runs:run()) -> ok.
save(Folder, Kinds, Run) ->
    Runs = erl_esdb_runs:only(Run),
    case erl_esdb_runs:size(Runs) of
        0 -> ok;
        _ -> save(filename:join(Folder, ?FOLDER), erl_esdb_runs:stretch([Run]), Kinds, Runs)
    end.

-spec save(file:filename_all(), part(), kinds(), erl_esdb_runs:runs()) -> ok.
save(Dir, Part, Kinds, Runs) ->
    File = file(Dir, Part),
    maybe
        ok ?= made(Dir),
        Label = erl_esdb_index_keys:label(Kinds),
        ok ?= write(File, erl_esdb_runs:to_iodata(Label, Runs)),
        Covered = [Other || Other <- parts(Dir), is_covered(Other, Part)],
        lists:foreach(fun(Other) -> file:delete(file(Dir, Other)) end, Covered)
    else
        {error, Reason} -> ?LOG_WARNING("~ts cannot be written: ~tp", [File, Reason])
    end.

%% Only in a folder that is there: that of a server which is gone is not to come back.
-spec made(file:filename_all()) -> ok | {error, term()}.
made(Dir) ->
    case file:make_dir(Dir) of
        {error, eexist} -> ok;
        Answer -> Answer
    end.

%% Under its name is only what is whole.
-spec write(file:filename_all(), iodata()) -> ok | {error, term()}.
write(File, Bytes) ->
    Temporary = [File, ".new"],
    maybe
        ok ?= file:write_file(Temporary, Bytes, [raw]),
        file:rename(Temporary, File)
    else
        {error, Reason} ->
            _ = file:delete(Temporary),
            {error, Reason}
    end.

-spec is_covered(part(), part()) -> boolean().
is_covered(Part, Part) -> false;
is_covered({From, Before}, {First, Last}) -> From >= First andalso Before =< Last.

-spec parts(file:filename_all()) -> [part()].
parts(Dir) ->
    case file:list_dir(Dir) of
        {ok, Names} -> [Part || Name <- Names, {ok, Part} <- [part(Name)]];
        {error, _} -> []
    end.

-spec part(file:filename()) -> {ok, part()} | error.
part(Name) ->
    case io_lib:fread("~d-~d" ?EXTENSION, Name) of
        {ok, [From, Before], ""} when From < Before -> {ok, {From, Before}};
        _ -> error
    end.

-spec file(file:filename_all(), part()) -> file:filename_all().
file(Dir, {From, Before}) ->
    filename:join(Dir, [integer_to_list(From), "-", integer_to_list(Before), ?EXTENSION]).
