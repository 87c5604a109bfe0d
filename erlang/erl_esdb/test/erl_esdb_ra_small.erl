-module(erl_esdb_ra_small).
-moduledoc """
Stores whose files are small, on nodes of tests: what else happens after tens of thousands of
commands, a next file of the log, segments of which nothing lives, and others that are written anew,
happens after some hundreds.
""".

-export([beam/1]).

%% Entries of a segment, and bytes of the write-ahead log: as `m:erl_esdb_ra_systems' has them.
-define(SMALL, #{32_768 => 128, 67_108_864 => 131_072}).

-doc "Writes an `m:erl_esdb_ra_systems` with them into a folder, to come first in the code path.".
-spec beam(file:filename()) -> ok.
beam(Dir) ->
    Path = code:which(erl_esdb_ra_systems),
    {ok, {_, [{abstract_code, {raw_abstract_v1, Forms}}]}} =
        beam_lib:chunks(Path, [abstract_code]),
    {Changed, Found} = lists:mapfoldl(fun changed/2, #{}, Forms),
    %% None that is not there any more.
    true = Found =:= ?SMALL,
    {ok, erl_esdb_ra_systems, Code} = compile:forms(Changed, [debug_info]),
    ok = filelib:ensure_path(Dir),
    file:write_file(filename:join(Dir, "erl_esdb_ra_systems.beam"), Code).

-spec changed(Form, map()) -> {Form, map()} when Form :: erl_parse:abstract_form().
changed(Form, Found) ->
    {Tree, Found1} = erl_syntax_lib:mapfold(fun smaller/2, Found, Form),
    {erl_syntax:revert(Tree), Found1}.

-spec smaller(erl_syntax:syntaxTree(), map()) -> {erl_syntax:syntaxTree(), map()}.
smaller(Tree, Found) ->
    maybe
        integer ?= erl_syntax:type(Tree),
        Value = erl_syntax:integer_value(Tree),
        #{Value := Small} ?= ?SMALL,
        {erl_syntax:copy_pos(Tree, erl_syntax:integer(Small)), Found#{Value => Small}}
    else
        _ -> {Tree, Found}
    end.
