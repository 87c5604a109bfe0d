-module(erl_esdb_guides_SUITE).
-moduledoc """
The guides to the store: every example of them runs here, those in Elixir where Elixir is installed.
""".

-include_lib("stdlib/include/assert.hrl").

-compile(export_all).

%% Elixir need not be installed to build and to test the store.
all() -> pages() ++ [in_elixir || os:find_executable("elixir") =/= false].

pages() ->
    [
        getting_started,
        event_sourcing,
        subscriptions,
        snapshots,
        schemas,
        archives,
        causation,
        integrity,
        testing,
        telemetry,
        disk_formats,
        coming_from_erl_esdb,
        streams
    ].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_) ->
    ok = application:stop(erl_esdb).

%% A page begins without stores.
end_per_testcase(_, _) ->
    lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()).

getting_started(Config) -> guide(Config, "getting_started.md", 10).
event_sourcing(Config) -> guide(Config, "event_sourcing.md", 15).
subscriptions(Config) -> guide(Config, "subscriptions.md", 45).
snapshots(Config) -> guide(Config, "snapshots.md", 15).
schemas(Config) -> guide(Config, "schemas.md", 15).
archives(Config) -> guide(Config, "archives.md", 30).
causation(Config) -> guide(Config, "causation.md", 20).
integrity(Config) -> guide(Config, "integrity.md", 12).
testing(Config) -> guide(Config, "testing.md", 14).
telemetry(Config) -> guide(Config, "telemetry.md", 9).
disk_formats(Config) -> guide(Config, "disk_formats.md", 7).
coming_from_erl_esdb(Config) -> guide(Config, "coming_from_erl_esdb.md", 16).
streams(Config) -> guide(Config, "streams.md", 40).

in_elixir(Config) ->
    Pages = filelib:wildcard(filename:join([root(), "doc", "guides", "*.md"])),
    Script = filename:join(filename:dirname(source()), "erl_esdb_guide.exs"),
    Applications = [erl_esdb, erl_esdb_gater, erl_esdb_nifs],
    Paths = [["-pa", filename:join(code:lib_dir(App), "ebin")] || App <- Applications],
    Folder = proplists:get_value(priv_dir, Config),
    {Status, Output} = elixir(lists:append(Paths) ++ [Script, Folder | Pages]),
    ct:pal("~ts", [Output]),
    ?assertEqual(0, Status),
    {match, [Lines]} = re:run(Output, "(\\d+) lines ran", [{capture, [1], list}]),
    ?assert(list_to_integer(Lines) >= 30, Lines).

elixir(Args) ->
    Options = [{args, Args}, exit_status, stderr_to_stdout, binary],
    output(open_port({spawn_executable, os:find_executable("elixir")}, Options), []).

output(Port, Said) ->
    receive
        {Port, {data, Data}} -> output(Port, [Said | Data]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(Said)}
    end.

guide(Config, Name, Least) ->
    {ok, Page} = file:read_file(filename:join([root(), "doc", "guides", Name])),
    Folder = filename:join(proplists:get_value(priv_dir, Config), Name),
    ok = filelib:ensure_path(Folder),
    Run = erl_esdb_guide:session(Name, Page, Folder),
    ?assert(Run >= Least, Run).

root() -> filename:join([filename:dirname(source()), "..", "..", ".."]).

%% rebar3 may have linked the folder elsewhere.
source() -> proplists:get_value(source, ?MODULE:module_info(compile)).
