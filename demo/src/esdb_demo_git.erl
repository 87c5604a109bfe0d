-module(esdb_demo_git).
-moduledoc """
The commits of a repository as events, read from one run of `git log`.

| of the commit | in the event |
|---|---|
| hash | `event_id` |
| more than one parent | `event_type` `CommitMerged`, else `CommitAuthored` |
| top-level folder with the most changed lines, of equals the first by name | `stream_id` |
| committer time | `epoch_us` |
| changed files and lines, in all and by top-level folder | `data` |
| first parent, parents, week, 12 digits of SHA-256 of the author's e-mail | `metadata` |

The `stream_id` is `area-<folder>`, and `area-.` for files at the root and for a commit without
files. A rename counts where the file went to, a binary file counts as a file without lines, and a
merge has no files, as `git log` shows none. Of a shallow clone the oldest commits have no parents.

```erlang
1> esdb_demo_git:fold(".", fun({event, _Hash, _Event}, N) -> N + 1; (_, N) -> N end, 0).
{ok,178}
```
""".

-export([fold/3, is_shallow/1]).

-define(MAX_TOKEN, 1_048_576).
%% The weeks of `correlation_id` are whole ones since the epoch, a Thursday; those of the report
%% begin on Mondays.
-define(WEEK_S, 604_800).
-define(QUICK, 60_000).

-record(log, {
    pieces = esdb_demo_pieces:new(0, ?MAX_TOKEN) :: esdb_demo_pieces:pieces(),
    %% The commit whose files are being read: its four header fields and its areas so far.
    commit = none :: none | {header(), areas()},
    %% A renamed file: git gives the numbers, then the old name, then the new one.
    rename = no :: no | {old | new, counts()},
    seen = 0 :: non_neg_integer(),
    total :: non_neg_integer(),
    handler :: fun((esdb_demo_source:item(), term()) -> term()),
    acc :: term()
}).

-type header() :: {Hash :: binary(), Time :: binary(), Parents :: binary(), Mail :: binary()}.
-type counts() :: {Insertions :: non_neg_integer(), Deletions :: non_neg_integer()}.
-type areas() :: #{Area :: binary() => {Files :: pos_integer(), integer(), integer()}}.

-doc """
Folds over all commits that HEAD leads to, parents first; see `t:esdb_demo_source:item/0`.

## Errors
One sentence for people: no git on the PATH, no such folder, no repository or only a folder inside
one, no commits, or git's own last words.
""".
-spec fold(file:filename(), fun((esdb_demo_source:item(), Acc) -> Acc), Acc) ->
    {ok, Acc} | {error, Sentence :: binary()}.
fold(Path, Handler, Acc) ->
    maybe
        ok ?= check_folder(Path),
        ok ?= check_repository(Path),
        {ok, Total} ?= count(Path),
        log(Path, #log{total = Total, handler = Handler, acc = Acc})
    end.

-doc "Whether the repository is a shallow clone, which lacks the older part of its history.".
-spec is_shallow(file:filename()) -> boolean().
is_shallow(Path) ->
    git(Path, ["rev-parse", "--is-shallow-repository"]) =:= {ok, 0, ~"true\n"}.

-spec check_folder(file:filename()) -> ok | {error, binary()}.
check_folder(Path) ->
    case filelib:is_dir(Path) of
        true -> ok;
        false -> {error, esdb_demo_text:binary(["there is no folder ", Path])}
    end.

%% git looks for a repository in all folders above too; what the user named must be one itself: the
%% top of a work tree, or the folder that git keeps its files in, as a bare repository is.
-spec check_repository(file:filename()) -> ok | {error, binary()}.
check_repository(Path) ->
    case git(Path, ["rev-parse", "--is-inside-work-tree", "--show-prefix"]) of
        {ok, 0, ~"true\n\n"} -> ok;
        {ok, 0, <<"true\n", _/binary>>} -> inside(Path, "--show-toplevel");
        {ok, 0, _} -> check_git_dir(Path);
        {ok, _, Output} -> {error, no_repository(Path, words(Output))};
        {error, Reason} -> {error, no_answer(Reason)}
    end.

-spec check_git_dir(file:filename()) -> ok | {error, binary()}.
check_git_dir(Path) ->
    case git(Path, ["rev-parse", "--git-dir"]) of
        {ok, 0, ~".\n"} -> ok;
        _ -> inside(Path, "--absolute-git-dir")
    end.

-spec inside(file:filename(), Enclosing :: string()) -> {error, binary()}.
inside(Path, Enclosing) ->
    case git(Path, ["rev-parse", Enclosing]) of
        {ok, _, Output} ->
            Repository = string:trim(esdb_demo_text:name(Output), trailing, "\n"),
            {error, no_repository(Path, ["it lies inside of ", Repository])};
        {error, Reason} ->
            {error, no_answer(Reason)}
    end.

-spec no_repository(file:filename(), unicode:chardata()) -> binary().
no_repository(Path, Why) ->
    esdb_demo_text:binary(["the folder ", Path, " is no git repository (", Why, ")"]).

-spec count(file:filename()) -> {ok, pos_integer()} | {error, binary()}.
count(Path) ->
    maybe
        {ok, 0, _} ?= git(Path, ["rev-parse", "--verify", "--quiet", "HEAD"]),
        {ok, 0, Digits} ?= git(Path, ["rev-list", "--count", "HEAD", "--"]),
        {ok, binary_to_integer(string:trim(Digits))}
    else
        {ok, _, <<>>} -> {error, no_commits(Path)};
        {ok, _, Output} -> {error, broken(Path, words(Output))};
        {error, Reason} -> {error, no_answer(Reason)}
    end.

-spec git(file:filename(), [string()]) ->
    {ok, non_neg_integer(), binary()} | {error, not_found | timeout}.
git(Path, Arguments) ->
    esdb_demo_program:run("git", ["-C", Path | Arguments], ?QUICK).

-spec log(file:filename(), #log{}) -> {ok, term()} | {error, binary()}.
log(Path, Log) ->
    case esdb_demo_program:fold("git", ["-C", Path | log_arguments()], fun chunk/2, Log) of
        {ok, 0, End} -> {ok, (finish(End))#log.acc};
        {ok, Status, _} -> {error, broken(Path, io_lib:format("git log ended with ~b", [Status]))};
        {error, Reason} -> {error, no_answer(Reason)}
    end.

%% Everything that a user's configuration could change about the output is set here; what has no
%% option in older versions of git by its key. With -z names are given as they are, whatever bytes
%% they have, and end with a zero byte.
-spec log_arguments() -> [string()].
log_arguments() ->
    Keys = [
        "log.showRoot=true",
        "log.diffMerges=separate",
        "diff.renameLimit=1000",
        "diff.algorithm=myers",
        "diff.submodule=short"
    ],
    lists:append([["-c", Key] || Key <- Keys]) ++
    [
        "log",
        "--topo-order",
        "--reverse",
        "--encoding=UTF-8",
        "--no-color",
        "--no-ext-diff",
        "--no-textconv",
        "--no-mailmap",
        "--no-show-signature",
        "--ignore-submodules=none",
        "-M",
        "-z",
        "--numstat",
        "--format=commit %H%x09%ct%x09%P%x09%ae",
        "HEAD",
        "--"
    ].

-spec chunk(binary(), #log{}) -> #log{}.
chunk(Chunk, #log{pieces = Pieces} = Log) ->
    {Tokens, More} = esdb_demo_pieces:feed(Chunk, Pieces),
    Next = lists:foldl(fun token/2, Log#log{pieces = More}, Tokens),
    handle({progress, min(1.0, Next#log.seen / Next#log.total)}, Next).

-spec finish(#log{}) -> #log{}.
finish(#log{pieces = Pieces} = Log) ->
    complete(lists:foldl(fun token/2, Log, esdb_demo_pieces:rest(Pieces))).

%% What can come is known at each token, so a file named like a header is not taken for one.
-spec token(esdb_demo_pieces:piece(), #log{}) -> #log{}.
token(too_long, Log) -> Log;
token(_Old, #log{rename = {old, Counts}} = Log) -> Log#log{rename = {new, Counts}};
token(New, #log{rename = {new, Counts}} = Log) -> file(New, Counts, Log#log{rename = no});
token(<<"commit ", Header/binary>>, Log) -> header(Header, complete(Log));
token(<<"\n", Stat/binary>>, Log) -> stat(Stat, Log);
token(<<>>, Log) -> Log;
token(Stat, Log) -> stat(Stat, Log).

-spec header(binary(), #log{}) -> #log{}.
header(Header, Log) ->
    [Hash, Time, Parents, Mail] = re_join(binary:split(Header, ~"\t", [global])),
    Log#log{commit = {{Hash, Time, Parents, Mail}, #{}}}.

%% Only the e-mail, which comes last, may hold tabs itself.
-spec re_join([binary()]) -> [binary()].
re_join([Hash, Time, Parents | Mail]) ->
    [Hash, Time, Parents, iolist_to_binary(lists:join("\t", Mail))].

-spec stat(binary(), #log{}) -> #log{}.
stat(Stat, Log) ->
    [Insertions, Rest] = binary:split(Stat, ~"\t"),
    [Deletions, Name] = binary:split(Rest, ~"\t"),
    Counts = {lines(Insertions), lines(Deletions)},
    case Name of
        <<>> -> Log#log{rename = {old, Counts}};
        _ -> file(Name, Counts, Log)
    end.

%% git says "-" of a binary file.
-spec lines(binary()) -> non_neg_integer().
lines(~"-") -> 0;
lines(Digits) -> binary_to_integer(Digits).

-spec file(binary(), counts(), #log{}) -> #log{}.
file(Name, {Insertions, Deletions}, #log{commit = {Header, Areas}} = Log) ->
    Add = fun({F, I, D}) -> {F + 1, I + Insertions, D + Deletions} end,
    Areas1 = maps:update_with(area(Name), Add, {1, Insertions, Deletions}, Areas),
    Log#log{commit = {Header, Areas1}}.

-spec area(binary()) -> binary().
area(Name) ->
    case binary:split(Name, ~"/") of
        [_AtRoot] -> ~".";
        [Folder, _] -> esdb_demo_text:name(Folder)
    end.

-spec complete(#log{}) -> #log{}.
complete(#log{commit = none} = Log) ->
    Log;
complete(#log{commit = {{Hash, _, _, _} = Header, Areas}, seen = Seen} = Log) ->
    Next = Log#log{commit = none, seen = Seen + 1},
    case esdb_demo_event:check(json(Header, Areas)) of
        {ok, Event} -> handle({event, Hash, Event}, Next);
        {error, Why} -> handle({problem, Hash, Why}, Next)
    end.

-spec handle(esdb_demo_source:item(), #log{}) -> #log{}.
handle(Item, #log{handler = Handler, acc = Acc} = Log) ->
    Log#log{acc = Handler(Item, Acc)}.

-spec json(header(), areas()) -> map().
json({Hash, Time, ParentList, Mail}, Areas) ->
    Parents = binary:split(ParentList, ~" ", [global, trim_all]),
    Seconds = seconds(Time),
    #{
        ~"event_id" => Hash,
        ~"event_type" => type(Parents),
        ~"stream_id" => <<"area-", (main_area(Areas))/binary>>,
        ~"epoch_us" => Seconds * 1_000_000,
        ~"data" => data(Areas),
        ~"metadata" => #{
            ~"causation_id" => cause(Parents),
            ~"parents" => Parents,
            ~"actor_id" => actor(Mail),
            ~"correlation_id" => <<"week-", (integer_to_binary(Seconds div ?WEEK_S))/binary>>
        }
    }.

%% A damaged commit can have no time at all: -1 is refused by the check that each event goes
%% through.
-spec seconds(binary()) -> integer().
seconds(<<>>) -> -1;
seconds(Time) -> binary_to_integer(Time).

-spec type([binary()]) -> binary().
type([_, _ | _]) -> ~"CommitMerged";
type(_) -> ~"CommitAuthored".

-spec cause([binary()]) -> binary() | null.
cause([]) -> null;
cause([First | _]) -> First.

-spec actor(binary()) -> binary().
actor(Mail) ->
    <<Hashed:6/binary, _/binary>> = crypto:hash(sha256, Mail),
    binary:encode_hex(Hashed, lowercase).

-spec main_area(areas()) -> binary().
main_area(Areas) ->
    Changed = lists:sort([{-(I + D), Area} || Area := {_, I, D} <- Areas]),
    case Changed of
        [] -> ~".";
        [{_, Area} | _] -> Area
    end.

-spec data(areas()) -> map().
data(Areas) ->
    Sum = fun({F, I, D}, {Fs, Is, Ds}) -> {Fs + F, Is + I, Ds + D} end,
    Total = lists:foldl(Sum, {0, 0, 0}, maps:values(Areas)),
    (numbers(Total))#{~"areas" => #{Area => numbers(Counts) || Area := Counts <- Areas}}.

-spec numbers({integer(), integer(), integer()}) -> map().
numbers({Files, Insertions, Deletions}) ->
    #{~"files" => Files, ~"insertions" => Insertions, ~"deletions" => Deletions}.

-spec no_answer(not_found | timeout) -> binary().
no_answer(not_found) -> ~"there is no git on the PATH";
no_answer(timeout) -> ~"git did not answer within a minute".

-spec no_commits(file:filename()) -> binary().
no_commits(Path) ->
    esdb_demo_text:binary(["the repository ", Path, " has no commits yet"]).

-spec broken(file:filename(), unicode:chardata()) -> binary().
broken(Path, Why) ->
    esdb_demo_text:binary(["cannot read the repository ", Path, ": ", Why]).

%% What git said last, without the word that all its errors begin with.
-spec words(binary()) -> unicode:chardata().
words(Output) ->
    Lines = [L || L <- string:split(Output, "\n", all), string:trim(L) =/= <<>>],
    case Lines of
        [] -> ~"git gave no reason";
        [First | _] -> string:replace(esdb_demo_text:name(First), "fatal: ", "")
    end.
