-module(erl_esdb_rows_SUITE).
-moduledoc """
Each promised behaviour is a row of `data/rows.txt`, and has a test case named after it (`A-LNK-07`
is `a_lnk_07_...`) that its suite runs, or stands in `data/rows_elsewhere.txt`: with the suite and
the case that meets it where there is Ra, or with the word `later:` and what it waits for.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

all() ->
    [
        every_row_has_a_case,
        what_is_met_elsewhere_is_a_row,
        what_is_met_elsewhere_has_its_case,
        a_case_that_is_gone_is_noticed
    ].

every_row_has_a_case(_Config) ->
    Cases = [lists:flatten(string:replace(atom_to_list(Case), "_", "-", all)) || Case <- cases()],
    Tested = [Row || Row <- rows(), lists:any(fun(Case) -> is_named(Case, Row) end, Cases)],
    ?assertEqual([], rows() -- (Tested ++ elsewhere())).

what_is_met_elsewhere_is_a_row(_Config) ->
    ?assertEqual([], elsewhere() -- rows()),
    ?assertEqual([], [Row || [Row] <- lines("rows_elsewhere.txt")]).

what_is_met_elsewhere_has_its_case(_Config) ->
    ?assertEqual([], [Line || [_Row | Where] = Line <- exempt(), not is_met(Where)]).

a_case_that_is_gone_is_noticed(_Config) ->
    Suite = atom_to_list(?MODULE),
    ?assert(is_met([Suite ++ ":every_row_has_a_case", "of", "this", "suite"])),
    ?assert(is_met(["later:", "the", "gateway"])),
    %% No such case; one that is there and is not run; no such suite; no place, and no reason.
    ?assertNot(is_met([Suite ++ ":a_case_that_was_removed", "of", "this", "suite"])),
    ?assertNot(is_met([Suite ++ ":is_met", "of", "this", "suite"])),
    ?assertNot(is_met(["erl_esdb_no_such_SUITE:all", "of", "no", "suite"])),
    ?assertNot(is_met([Suite, "of", "this", "suite"])),
    ?assertNot(is_met(["later:"])).

%% Also where its suite does not run it, for want of Ra.
is_met(["later:", _ | _]) ->
    true;
is_met([Where | _]) ->
    case string:split(Where, ":") of
        [Suite, Case] -> is_suite(Suite) andalso is_run(list_to_atom(Suite), list_to_atom(Case));
        _ -> false
    end.

is_suite(Name) -> filelib:is_regular(filename:join(folder(), Name ++ ".erl")).

is_run(Suite, Case) ->
    {module, Suite} = code:ensure_loaded(Suite),
    InGroups = [What || {_Name, _Properties, Whats} <- groups(Suite), What <- Whats],
    erlang:function_exported(Suite, Case, 1) andalso
        lists:member(Case, InGroups ++ Suite:all()).

is_named(Case, Row) -> lists:prefix(string:lowercase(Row) ++ "-", Case).

rows() -> [Row || [Row] <- lines("rows.txt")].

elsewhere() -> [Row || [Row | _Where] <- exempt()].

exempt() -> lines("rows_elsewhere.txt").

%% The words of each line that is no comment.
lines(Name) ->
    {ok, Text} = file:read_file(filename:join([folder(), "data", Name])),
    [
        string:lexemes(Line, " ")
     || Line <- string:lexemes(binary_to_list(Text), "\n"), hd(Line) =/= $#
    ].

%% What the suites of this folder run, of all engines.
cases() ->
    lists:append([cases(suite(File)) || File <- filelib:wildcard(folder() ++ "/*_SUITE.erl")]).

suite(File) -> list_to_atom(filename:basename(File, ".erl")).

cases(Suite) ->
    {module, Suite} = code:ensure_loaded(Suite),
    lists:append([run(What, groups(Suite)) || What <- Suite:all()]).

groups(Suite) ->
    case erlang:function_exported(Suite, groups, 0) of
        true -> Suite:groups();
        false -> []
    end.

run({group, Name}, Groups) ->
    {Name, _Properties, Whats} = lists:keyfind(Name, 1, Groups),
    lists:append([run(What, Groups) || What <- Whats]);
run(Case, _Groups) when is_atom(Case) ->
    [Case].

folder() -> filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))).
