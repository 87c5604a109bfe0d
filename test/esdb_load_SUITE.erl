-module(esdb_load_SUITE).
-moduledoc """
The load policy: what happens with the library, without it, with a wrong one, and when code is
reloaded.

Each case starts a node of its own that sees a copy of the application, arranged as the case wants
it. Where no library has been built, the cases that need one build nothing and use a stand-in: a
file that the system's loader refuses is enough to prove what must happen without Rust.
""".

-compile(export_all).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(MODULES, esdb_nif:modules()).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    without_library() ++
        case built() of
            true -> with_library();
            false -> []
        end.

without_library() ->
    [
        a_nif_02_every_module_loads_without_library,
        one_log_line_says_that_erlang_runs,
        require_without_library_refuses_the_module,
        a_file_that_is_no_library_leaves_erlang_and_is_told,
        require_refuses_a_file_that_is_no_library,
        unknown_policy_is_an_error,
        application_key_decides_where_the_variable_is_silent,
        reload_in_erlang_is_fine
    ].

with_library() ->
    [
        a_nif_01_implementation_and_is_nif_loaded_agree,
        one_log_line_says_that_the_library_runs,
        off_leaves_a_library_alone,
        code_without_its_application_runs_in_erlang,
        a_module_that_differs_is_named,
        library_of_another_module_is_refused,
        library_of_another_version_is_refused,
        reload_keeps_the_running_code,
        a_second_version_does_not_replace_the_running_one
    ].

init_per_testcase(Case, Config) ->
    App = filename:join([?config(priv_dir, Config), Case, "erl_esdb_nifs"]),
    copy("ebin", "*.{beam,app}", App),
    copy("priv", "*.so", App),
    [{app, App} | Config].

end_per_testcase(_Case, _Config) -> ok.

%% Without a library.

a_nif_02_every_module_loads_without_library(Config) ->
    remove_libraries(Config),
    on_node(auto, Config, fun(Peer) ->
        ?assertMatch(#{policy := auto}, status(Peer)),
        [?assertEqual(erlang, implementation(Peer, M)) || M <- ?MODULES],
        [?assertEqual({value, false}, call(Peer, M, is_nif_loaded, [])) || M <- ?MODULES],
        ?assertEqual({value, 16#85944171F73967E8}, call(Peer, esdb_hash_nif, fnv1a, [~"foobar"]))
    end).

one_log_line_says_that_erlang_runs(Config) ->
    remove_libraries(Config),
    ?assertMatch([{notice, "erl_esdb_nifs " ++ _}], log_of_loading_all(auto, Config)).

require_without_library_refuses_the_module(Config) ->
    remove_libraries(Config),
    on_node(require, Config, fun(Peer) ->
        [?assertMatch({error, _}, implementation(Peer, M)) || M <- ?MODULES],
        ?assertEqual({error, undef}, call(Peer, esdb_hash_nif, fnv1a, [~"a"]))
    end).

a_file_that_is_no_library_leaves_erlang_and_is_told(Config) ->
    [write_library(Config, M, ~"this is no library") || M <- ?MODULES],
    [{notice, Line}] = log_of_loading_all(auto, Config),
    ?assertNotEqual(nomatch, string:find(Line, "esdb_")),
    on_node(auto, Config, fun(Peer) ->
        [?assertEqual(erlang, implementation(Peer, M)) || M <- ?MODULES]
    end).

require_refuses_a_file_that_is_no_library(Config) ->
    [write_library(Config, M, ~"this is no library") || M <- ?MODULES],
    on_node(require, Config, fun(Peer) ->
        [?assertMatch({error, _}, implementation(Peer, M)) || M <- ?MODULES]
    end).

unknown_policy_is_an_error(Config) ->
    on_node(sometimes, Config, fun(Peer) ->
        ?assertEqual({error, {badarg, {"ESDB_NIF", "sometimes"}}}, call(Peer, esdb_nif, status, []))
    end).

application_key_decides_where_the_variable_is_silent(Config) ->
    on_node(unset, Config, fun(Peer) ->
        {value, ok} = call(Peer, application, load, [erl_esdb_nifs]),
        {value, ok} = call(Peer, application, set_env, [erl_esdb_nifs, nif, off]),
        ?assertMatch(#{policy := off}, status(Peer)),
        [?assertEqual(erlang, implementation(Peer, M)) || M <- ?MODULES],
        {value, ok} = call(Peer, application, set_env, [erl_esdb_nifs, nif, 7]),
        ?assertEqual({error, {badarg, {erl_esdb_nifs, nif, 7}}}, call(Peer, esdb_nif, status, []))
    end).

reload_in_erlang_is_fine(Config) ->
    on_node(off, Config, fun(Peer) ->
        [
            ?assertEqual({value, {module, Module}}, call(Peer, code, load_file, [Module]))
         || Module <- ?MODULES ++ ?MODULES
        ]
    end).

%% With the library.

a_nif_01_implementation_and_is_nif_loaded_agree(Config) ->
    [
        on_node(Policy, Config, fun(Peer) ->
            [?assertEqual(Implementation, implementation(Peer, M)) || M <- ?MODULES],
            [
                ?assertEqual({value, Implementation =:= nif}, call(Peer, M, is_nif_loaded, []))
             || M <- ?MODULES
            ]
        end)
     || {Policy, Implementation} <- [{auto, nif}, {require, nif}, {off, erlang}]
    ].

one_log_line_says_that_the_library_runs(Config) ->
    ?assertMatch([{info, "erl_esdb_nifs " ++ _}], log_of_loading_all(require, Config)).

off_leaves_a_library_alone(Config) ->
    on_node(off, Config, fun(Peer) ->
        [?assertEqual(erlang, implementation(Peer, M)) || M <- ?MODULES],
        Libraries = filelib:wildcard("priv/*.so", ?config(app, Config)),
        {value, Maps} = call(Peer, file, read_file, ["/proc/self/maps"]),
        mapped_files_are_known(Maps, Libraries)
    end).

%% Nor does it look below the working directory, where anybody may have put a file.
code_without_its_application_runs_in_erlang(Config) ->
    App = ?config(app, Config),
    on_node(auto, Config, fun(Peer) ->
        {value, ok} = call(Peer, ?MODULE, load_from_memory, [App]),
        ?assertMatch(#{version := ~"unknown"}, status(Peer)),
        [?assertEqual(erlang, implementation(Peer, M)) || M <- ?MODULES]
    end).

load_from_memory(App) ->
    Beams = [
        {list_to_atom(filename:basename(File, ".beam")), File}
     || File <- filelib:wildcard(filename:join([App, "ebin", "esdb_*.beam"]))
    ],
    Code = [{Module, "", read(File)} || {Module, File} <- Beams],
    {[_ | _] = WithLibrary, First} = lists:partition(fun has_library/1, Code),
    [code:purge(Module) || {Module, _} <- Beams, code:delete(Module)],
    [true = code:del_path(Path) || Path <- code:get_path(), is_ours(Path)],
    ok = file:set_cwd(App),
    [{module, M} = code:load_binary(M, F, B) || {M, F, B} <- First ++ WithLibrary],
    ok.

is_ours(Path) -> string:find(Path, "erl_esdb_nifs") =/= nomatch.

has_library({Module, _, _}) -> lists:member(Module, ?MODULES).

read(File) ->
    {ok, Content} = file:read_file(File),
    Content.

%% Only where the system tells which files a process has mapped.
mapped_files_are_known({ok, Maps}, Libraries) ->
    [?assertEqual(nomatch, binary:match(Maps, list_to_binary(L))) || L <- Libraries];
mapped_files_are_known({error, enoent}, _Libraries) ->
    ok.

a_module_that_differs_is_named(Config) ->
    ok = file:delete(library(Config, esdb_crypto_nif)),
    Lines = [Line || {_, Line} <- log_of_loading_all(auto, Config)],
    ?assertMatch([_, _], lists:sort(Lines)),
    ?assertMatch([_], [Line || "esdb_crypto_nif " ++ _ = Line <- Lines]).

library_of_another_module_is_refused(Config) ->
    {ok, _} = file:copy(library(Config, esdb_crypto_nif), library(Config, esdb_hash_nif)),
    on_node(auto, Config, fun(Peer) ->
        ?assertMatch({error, _}, implementation(Peer, esdb_hash_nif)),
        ?assertEqual(nif, implementation(Peer, esdb_crypto_nif))
    end).

library_of_another_version_is_refused(Config) ->
    set_version(Config, "99.0.0"),
    on_node(auto, Config, fun(Peer) ->
        ?assertMatch(#{version := ~"99.0.0"}, status(Peer)),
        [?assertMatch({error, _}, implementation(Peer, M)) || M <- ?MODULES]
    end).

reload_keeps_the_running_code(Config) ->
    on_node(require, Config, fun(Peer) ->
        nif = implementation(Peer, esdb_hash_nif),
        Before = call(Peer, esdb_hash_nif, xxhash3, [~"before"]),
        Reload = call(Peer, code, load_file, [esdb_hash_nif]),
        ?assertEqual({value, {error, on_load_failure}}, Reload),
        ?assertEqual(nif, implementation(Peer, esdb_hash_nif)),
        ?assertEqual(Before, call(Peer, esdb_hash_nif, xxhash3, [~"before"]))
    end).

a_second_version_does_not_replace_the_running_one(Config) ->
    Second = filename:join([?config(priv_dir, Config), "v2", "erl_esdb_nifs"]),
    copy("ebin", "*.{beam,app}", Second),
    copy("priv", "*.so", Second),
    set_version([{app, Second}], "99.0.0"),
    on_node(require, Config, fun(Peer) ->
        nif = implementation(Peer, esdb_hash_nif),
        {value, true} = call(Peer, code, add_patha, [filename:join(Second, "ebin")]),
        Reload = call(Peer, code, load_file, [esdb_hash_nif]),
        ?assertEqual({value, {error, on_load_failure}}, Reload),
        ?assertEqual(nif, implementation(Peer, esdb_hash_nif)),
        {value, {file, Beam}} = call(Peer, code, is_loaded, [esdb_hash_nif]),
        ?assertEqual(nomatch, string:find(Beam, "/v2/"))
    end),
    %% Nor does a fresh node run the new code on the library of the old.
    on_node(require, [{app, Second} | Config], fun(Peer) ->
        ?assertMatch({error, _}, implementation(Peer, esdb_hash_nif))
    end).

%% The log of a node, kept there: this module is also a logger handler.

log(#{level := Level, msg := {Format, Arguments}}, #{config := #{table := Table}}) when
    is_list(Format)
->
    Line = lists:flatten(io_lib:format(Format, Arguments)),
    ets:insert(Table, {erlang:unique_integer([monotonic]), Level, Line});
log(_Event, _Config) ->
    ok.

log_of_loading_all(Policy, Config) ->
    on_node(Policy, Config, fun(Peer) ->
        {value, Lines} = call(Peer, ?MODULE, load_all_and_collect, []),
        Lines
    end).

load_all_and_collect() ->
    Table = ets:new(?MODULE, [public, ordered_set]),
    ok = logger:set_primary_config(level, info),
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{table => Table}}),
    _ = esdb_nif:status(),
    ok = logger:remove_handler(?MODULE),
    [{Level, Line} || {_, Level, "e" ++ _ = Line} <- ets:tab2list(Table)].

%% Helpers.

on_node(Policy, Config, Fun) ->
    App = ?config(app, Config),
    Peer = esdb_peer:start(Policy, ["-pa", filename:join(App, "ebin")]),
    try
        {value, Which} = call(Peer, code, which, [esdb_nif]),
        ?assertEqual(filename:join([App, "ebin", "esdb_nif.beam"]), Which),
        Fun(Peer)
    after
        esdb_peer:stop(Peer)
    end.

call(Peer, Module, Function, Arguments) -> esdb_peer:call(Peer, Module, Function, Arguments).

status(Peer) ->
    {value, Status} = call(Peer, esdb_nif, status, []),
    Status.

implementation(Peer, Module) ->
    #{modules := #{Module := Implementation}} = status(Peer),
    Implementation.

built() -> filelib:wildcard("esdb_*_nif.so", code:priv_dir(erl_esdb_nifs)) =/= [].

copy(Folder, Pattern, App) ->
    From = filename:join(code:lib_dir(erl_esdb_nifs), Folder),
    To = filename:join(App, Folder),
    ok = filelib:ensure_path(To),
    [
        {ok, _} = file:copy(filename:join(From, File), filename:join(To, File))
     || File <- filelib:wildcard(Pattern, From)
    ].

library(Config, Module) ->
    filename:join([?config(app, Config), "priv", atom_to_list(Module) ++ ".so"]).

write_library(Config, Module, Content) -> ok = file:write_file(library(Config, Module), Content).

remove_libraries(Config) ->
    Libraries = filelib:wildcard(filename:join([?config(app, Config), "priv", "*.so"])),
    lists:foreach(fun(Library) -> ok = file:delete(Library) end, Libraries).

set_version(Config, Version) ->
    File = filename:join([?config(app, Config), "ebin", "erl_esdb_nifs.app"]),
    {ok, [{application, Name, Keys}]} = file:consult(File),
    Changed = {application, Name, lists:keyreplace(vsn, 1, Keys, {vsn, Version})},
    ok = file:write_file(File, io_lib:format("~p.~n", [Changed])).
