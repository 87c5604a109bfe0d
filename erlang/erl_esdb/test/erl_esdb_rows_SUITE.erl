-module(erl_esdb_rows_SUITE).
-moduledoc """
Each promised behaviour is a row of `data/rows.txt`, and has a test case named after it (`A-LNK-07`
is `a_lnk_07_...`) that its suite runs, or stands in `data/rows_elsewhere.txt` with the reason.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

all() -> [every_row_has_a_case, what_is_met_elsewhere_is_a_row].

every_row_has_a_case(_Config) ->
    Cases = [lists:flatten(string:replace(atom_to_list(Case), "_", "-", all)) || Case <- cases()],
    Tested = [Row || Row <- rows(), lists:any(fun(Case) -> is_named(Case, Row) end, Cases)],
    ?assertEqual([], rows() -- (Tested ++ elsewhere())).

what_is_met_elsewhere_is_a_row(_Config) ->
    ?assertEqual([], elsewhere() -- rows()),
    ?assertEqual([], [Row || [Row] <- lines("rows_elsewhere.txt")]).

is_named(Case, Row) -> lists:prefix(string:lowercase(Row) ++ "-", Case).

rows() -> [Row || [Row] <- lines("rows.txt")].

elsewhere() -> [Row || [Row | _Reason] <- lines("rows_elsewhere.txt")].

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
    Groups =
        case erlang:function_exported(Suite, groups, 0) of
            true -> Suite:groups();
            false -> []
        end,
    lists:append([run(What, Groups) || What <- Suite:all()]).

run({group, Name}, Groups) ->
    {Name, _Properties, Whats} = lists:keyfind(Name, 1, Groups),
    lists:append([run(What, Groups) || What <- Whats]);
run(Case, _Groups) when is_atom(Case) ->
    [Case].

folder() -> filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))).
