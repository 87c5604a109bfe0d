-module(esdb_guides_SUITE).
-moduledoc """
The examples of the guides and of the modules' documentation: what they print is what happens.

A page is one session. Where an example shows a result it must be that; where it shows none it must
only not fail. The guide to the streams is not here: it reads records, as only the shell can.
""".

-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

all() ->
    [guide_library, guide_patterns, guide_segments, guide_graphs, modules].

guide_library(_) -> guide("library.md", 80).
guide_patterns(_) -> guide("patterns.md", 0).
guide_segments(_) -> guide("segments.md", 20).
guide_graphs(_) -> guide("graphs.md", 10).

%% The examples of a module and of its functions are a session too.
modules(_) ->
    Modules = [M || M <- maps:keys(maps:get(modules, esdb_nif:status()))],
    ?assert(length(Modules) >= 7),
    Run = [session(Module, documentation(Module)) || Module <- [erl_esdb_aggregator | Modules]],
    ?assert(lists:sum(Run) > 20).

guide(Name, Least) ->
    {ok, Page} = file:read_file(filename:join([root(), "doc/guides", Name])),
    Run = session(Name, Page),
    ?assert(Run >= Least, Run).

documentation(Module) ->
    {ok, {docs_v1, _, _, _, #{~"en" := Page}, _, Functions}} = code:get_doc(Module),
    [Page | [["\n", Text] || {{function, _, _}, _, _, #{~"en" := Text}, _} <- Functions]].

%% How many examples of a page ran, with its variables.
session(Name, Page) ->
    Examples = lists:append([examples(Block) || Block <- blocks(iolist_to_binary(Page))]),
    lists:foldl(fun(Example, Known) -> run(Name, Example, Known) end, [], Examples),
    length(Examples).

blocks(Page) ->
    Options = [global, multiline, dotall, {capture, all_but_first, binary}],
    case re:run(Page, "^ *```erlang\n(.*?)^ *```$", Options) of
        {match, Blocks} -> [Block || [Block] <- Blocks];
        nomatch -> []
    end.

%% What stands behind a prompt up to its full stop, and what stands behind that. A block without
%% prompts shows a form and no session.
examples(Block) ->
    Options = [{return, binary}],
    [_ | Entries] = re:split(Block, "^[0-9]+> ", [multiline | Options]),
    [{Code, Shown} || Entry <- Entries, {Code, Shown} <- [cut(Entry)]].

cut(Entry) ->
    {done, {ok, Tokens, _}, Rest} = erl_scan:tokens([], unicode:characters_to_list(Entry), 1),
    {Tokens, string:trim(Rest)}.

run(Name, {Tokens, Shown}, Known) ->
    {ok, Expressions} = erl_parse:parse_exprs(placed(Tokens)),
    try erl_eval:exprs(Expressions, Known) of
        {value, Value, Bindings} ->
            ?assertEqual(shown(Shown, Value), Value, {Name, code(Expressions)}),
            Bindings
    catch
        Class:Reason:Stack ->
            ct:pal("~ts: ~ts", [Name, code(Expressions)]),
            erlang:raise(Class, Reason, Stack)
    end.

%% Where the applications are that are tested here, for those in the examples.
placed(Tokens) ->
    Libraries = filename:dirname(filename:dirname(filename:dirname(code:which(esdb_nif)))),
    [
        case Token of
            {string, At, "_build/default/lib/" ++ Rest} -> {string, At, Libraries ++ "/" ++ Rest};
            _ -> Token
        end
     || Token <- Tokens
    ].

code(Expressions) ->
    unicode:characters_to_binary(erl_pp:exprs(Expressions)).

shown("", Value) ->
    Value;
shown(Shown, _) ->
    {ok, Tokens, _} = erl_scan:string(Shown ++ "."),
    {ok, Term} = erl_parse:parse_term(Tokens),
    Term.

root() ->
    root(filename:dirname(code:which(?MODULE))).

root(Folder) ->
    case filelib:is_dir(filename:join(Folder, "doc/guides")) of
        true -> Folder;
        false -> root(filename:dirname(Folder))
    end.
