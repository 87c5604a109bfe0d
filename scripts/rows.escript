#!/usr/bin/env escript
%% -*- erlang -*-
%% Every row of the checklist has a test case named after it (`A-LNK-07' is `a_lnk_07_...'), or
%% stands in the list of those that are met elsewhere, with the reason. Prints the rows for which
%% that is not so, and fails if there is one.
-mode(compile).

-define(TESTS, "erlang/erl_esdb/test").

main(_) ->
    ok = file:set_cwd(filename:join(filename:dirname(escript:script_name()), "..")),
    Rows = [Row || [Row] <- lines("rows.txt")],
    Elsewhere = lines("rows_elsewhere.txt"),
    Cases = cases(),
    Moved = [Row || [Row | _] <- Elsewhere],
    report("rows without a test", [Row || Row <- Rows -- Moved, not has_case(Row, Cases)]),
    report("rows met elsewhere without a reason", [Row || [Row] <- Elsewhere]),
    report("rows met elsewhere that are none", Moved -- Rows),
    io:format("~b rows, ~b of them met elsewhere~n", [length(Rows), length(Moved)]).

%% The words of each line that says something.
lines(Name) ->
    {ok, Text} = file:read_file(filename:join(?TESTS, Name)),
    [
        [binary_to_list(Word) || Word <- binary:split(Line, ~" ", [global, trim_all])]
     || Line <- binary:split(Text, ~"\n", [global, trim_all]), binary:first(Line) =/= $#
    ].

%% The names of the functions with one argument in the suites.
cases() ->
    lists:append([
        names(File)
     || File <- filelib:wildcard(filename:join(?TESTS, "*_SUITE.erl"))
    ]).

names(File) ->
    {ok, Text} = file:read_file(File),
    Case = "^(a_[a-z0-9_]+)\\(_?[A-Z][A-Za-z_]*\\)",
    case re:run(Text, Case, [global, multiline, {capture, [1], list}]) of
        {match, Found} -> [Name || [Name] <- Found];
        nomatch -> []
    end.

has_case(Row, Cases) ->
    Prefix = lists:flatten(string:replace(string:lowercase(Row), "-", "_", all)) ++ "_",
    lists:any(fun(Case) -> lists:prefix(Prefix, Case) end, Cases).

report(_What, []) ->
    ok;
report(What, Rows) ->
    io:format("~ts:~n", [What]),
    [io:format("  ~ts~n", [Row]) || Row <- Rows],
    halt(1).
