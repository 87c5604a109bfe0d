-module(esdb_demo_source).
-moduledoc """
Where the events come from: a git repository or a file of newline-delimited JSON.

```erlang
1> esdb_demo_source:describe({git, "../another"}).
<<"git log of ../another">>
```
""".

-export([choose/2, describe/1, place/1, remarks/1, fold/3]).
-export_type([source/0, item/0]).

-type source() :: {git, file:filename()} | {ndjson, file:filename()}.

-doc """
What a fold hands on: an event or the reason why there is none, both with where it was met (a line
number or a commit's hash), and now and then how much of the source was read.
""".
-type item() ::
    {event, Where :: pos_integer() | binary(), esdb_demo_event:commit()}
    | {problem, Where :: pos_integer() | binary(), Why :: binary()}
    | {progress, Share :: float() | unknown}.

-doc "The source that the values of `REPO` and `EVENTS` (`\"\"` when unset) ask for.".
-spec choose(Repo :: file:filename(), Events :: file:filename()) ->
    {ok, source()} | {error, Sentence :: binary()}.
choose("", "") -> {ok, {git, "."}};
choose(Repo, "") -> {ok, {git, Repo}};
choose("", Events) -> {ok, {ndjson, Events}};
choose(_, _) -> {error, ~"give either REPO or EVENTS, not both"}.

-doc "The source in a few words.".
-spec describe(source()) -> binary().
describe({git, _} = Source) -> <<"git log of ", (place(Source))/binary>>;
describe({ndjson, _} = Source) -> <<"events of ", (place(Source))/binary>>.

-doc "The path of the source.".
-spec place(source()) -> binary().
place({git, "."}) ->
    {ok, Folder} = file:get_cwd(),
    esdb_demo_text:binary(Folder);
place({_, Path}) ->
    esdb_demo_text:binary(Path).

-doc "What a reader must know about the source to read the numbers right.".
-spec remarks(source()) -> [binary()].
remarks({git, Path}) ->
    case esdb_demo_git:is_shallow(Path) of
        true -> [~"a shallow clone: its older commits are not in it (git fetch --unshallow)"];
        false -> []
    end;
remarks({ndjson, _}) ->
    [].

-doc """
Folds over all items of the source, parents before their children where it is a repository.

## Errors
One sentence for people, without a full stop.
""".
-spec fold(source(), fun((item(), Acc) -> Acc), Acc) -> {ok, Acc} | {error, Sentence :: binary()}.
fold({git, Path}, Fun, Acc) -> esdb_demo_git:fold(Path, Fun, Acc);
fold({ndjson, Path}, Fun, Acc) -> esdb_demo_ndjson:fold(Path, Fun, Acc).
