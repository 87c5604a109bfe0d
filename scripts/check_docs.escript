#!/usr/bin/env escript
%% -*- erlang -*-
%%! -kernel logger_level error
%% Every module says what it is (or is marked internal), and every exported function of a public
%% module has its documentation. Reads the documentation that the compiler keeps in the beam files.

main(_) ->
    Beams = filelib:wildcard("_build/default/lib/*/ebin/*.beam"),
    Beams =/= [] orelse fail(["nothing is built: run make build first"]),
    Missing = lists:append([missing(Beam) || Beam <- lists:sort(Beams), ours(Beam)]),
    Missing =:= [] orelse fail(["without documentation:" | Missing]),
    io:format("~b modules documented~n", [length(Beams)]).

fail(Lines) ->
    [io:format("~ts~n", [Line]) || Line <- Lines],
    halt(1).

%% A dependency has documentation rules of its own: ours are the folders that are in the repository.
ours(Beam) ->
    App = filename:basename(filename:dirname(filename:dirname(Beam))),
    App =:= "erl_esdb_nifs" orelse
        filelib:is_dir(filename:join("erlang", App)) orelse App =:= "esdb_demo".

missing(Beam) ->
    {ok, {Module, Chunks}} = beam_lib:chunks(Beam, ["Docs", exports], [allow_missing_chunks]),
    case proplists:get_value("Docs", Chunks) of
        missing_chunk ->
            [io_lib:format("  ~s", [Module])];
        Docs ->
            {docs_v1, _, _, _, ModuleDoc, _, Entries} = binary_to_term(Docs),
            undocumented(Module, ModuleDoc, Entries)
    end.

undocumented(_Module, hidden, _Entries) ->
    [];
undocumented(Module, none, _Entries) ->
    [io_lib:format("  ~s", [Module])];
undocumented(Module, _ModuleDoc, Entries) ->
    [
        io_lib:format("  ~s:~s/~b", [Module, Name, Arity])
     || {{function, Name, Arity}, _, _, none, Meta} <- Entries, not maps:is_key(equiv, Meta)
    ].
