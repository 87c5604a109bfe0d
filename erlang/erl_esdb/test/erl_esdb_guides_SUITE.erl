-module(erl_esdb_guides_SUITE).
-moduledoc """
The guides to the store: every example of them runs here, those in Elixir where Elixir is installed.
""".

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-compile(export_all).

%% Elixir need not be installed to build and to test the store.
all() ->
    pages() ++ on_disk(lists:member(ra, erl_esdb_test:engines())) ++
        [events_of_telemetry, deployment_shows_its_examples] ++
        [in_elixir || os:find_executable("elixir") =/= false].

pages() ->
    [
        readme,
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

%% Pages about stores on disk.
on_disk(true) -> [one_node, cluster, operations, consistency, the_shells_have_ra, keys_of_a_status];
on_disk(false) -> [].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Config.

end_per_suite(_) ->
    ok = application:stop(erl_esdb).

%% A page begins without stores.
end_per_testcase(_, _) ->
    lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()).

readme(Config) -> guide(Config, "../../README.md", 14).
getting_started(Config) -> guide(Config, "getting_started.md", 10).
event_sourcing(Config) -> guide(Config, "event_sourcing.md", 15).
subscriptions(Config) -> guide(Config, "subscriptions.md", 45).
snapshots(Config) -> guide(Config, "snapshots.md", 15).
schemas(Config) -> guide(Config, "schemas.md", 15).
archives(Config) -> guide(Config, "archives.md", 30).
causation(Config) -> guide(Config, "causation.md", 20).
integrity(Config) -> guide(Config, "integrity.md", 12).
one_node(Config) -> guide(Config, "one_node.md", 12).
operations(Config) -> guide(Config, "operations.md", 17).
consistency(Config) -> guide(Config, "consistency.md", 9).
%% In a node that has a name, as the page has it.
cluster(Config) ->
    ok = erl_esdb_three:begin_one(),
    try
        %% Others of this machine may run the same page.
        Ours = iolist_to_binary(["Begin(shop", os:getpid(), "_"]),
        Named = fun(Page) -> binary:replace(Page, ~"Begin(shop", Ours, [global]) end,
        guide(Config, "cluster.md", 40, Named)
    after
        ok = erl_esdb_three:end_one()
    end.
testing(Config) -> guide(Config, "testing.md", 14).
telemetry(Config) -> guide(Config, "telemetry.md", 9).
disk_formats(Config) -> guide(Config, "disk_formats.md", 7).
coming_from_erl_esdb(Config) -> guide(Config, "coming_from_erl_esdb.md", 16).
streams(Config) -> guide(Config, "streams.md", 40).

%% The paths with which a shell is to be started have all that a store on disk needs, also where
%% Ra does not come from the registry.
the_shells_have_ra(_) ->
    Needed = [erl_esdb, erl_esdb_gater, erl_esdb_nifs, ra, aten, gen_batch_server, seshat],
    Guides = ["doc/guides/" ++ Name || Name <- ["getting_started.md", "streams.md", "cluster.md"]],
    Shells = lists:append([shells(Page) || Page <- ["README.md" | Guides]]),
    ?assertEqual(6, length(Shells)),
    [
        ?assertEqual([], Needed -- [App || App <- Needed, is_found(App, Shell)], Shell)
     || Shell <- Shells
    ].

%% What a page has behind `-pa`, of this build.
shells(Page) ->
    {ok, Text} = file:read_file(filename:join(root(), Page)),
    Options = [global, {capture, all_but_first, list}],
    {match, Found} = re:run(Text, "-pa \"?(_build/default/[^\\s\"`]+)", Options),
    Build = filename:dirname(filename:dirname(code:lib_dir(erl_esdb))),
    [Build ++ Glob || ["_build/default" ++ Glob] <- Found].

is_found(App, Glob) ->
    lists:member(filename:join(code:lib_dir(App), "ebin"), filelib:wildcard(Glob)).

%% Nothing is in a status that the guide does not explain.
keys_of_a_status(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), ?FUNCTION_NAME),
    {ok, _} = erl_esdb:start_store(?FUNCTION_NAME, #{engine => ra, data_dir => Dir}),
    {ok, Status} = erl_esdb:status(?FUNCTION_NAME, #{timeout => 30_000}),
    {ok, Page} = file:read_file(filename:join([root(), "doc", "guides", "operations.md"])),
    [_, Section] = string:split(Page, "\n### What a status has\n"),
    [Own | _] = string:split(Section, "\n## "),
    Explained = lists:append([
        keys(quoted(Names))
     || <<"| `", _/binary>> = Row <- re:split(Own, "\n"),
        [_, Names | _] <- [string:split(Row, "|", all)]
    ]),
    ?assertEqual([], maps:keys(Status) -- Explained),
    ?assert(map_size(Status) > 20).

%% What stands behind a link to a file of the examples is a piece of that file.
deployment_shows_its_examples(_) ->
    {ok, Page} = file:read_file(filename:join([root(), "doc", "guides", "deployment.md"])),
    Shown = "\\(\\.\\./\\.\\./(test/consumers/[^)]+\\.[a-z]+)\\)[^\n]*:\n\n```[a-z]*\n(.*?)```\n",
    {match, Pieces} = re:run(Page, Shown, [global, dotall, {capture, all_but_first, binary}]),
    ?assertEqual(8, length(Pieces)),
    [
        begin
            {ok, Text} = file:read_file(filename:join(root(), File)),
            ?assertNotEqual(nomatch, binary:match(Text, Piece), File)
        end
     || [File, Piece] <- Pieces
    ].

%% The table of events: each that is in it comes, with the measurements and metadata that it says.
events_of_telemetry(_) ->
    {ok, Page} = file:read_file(filename:join([root(), "doc", "guides", "telemetry.md"])),
    Table = maps:from_list(lists:append([rows(Row) || Row <- re:split(Page, "\n"), is_row(Row)])),
    ?assertEqual(34, map_size(Table)),
    Tell = fun(Event, Measurements, Metadata, To) -> To ! {told, Event, Measurements, Metadata} end,
    ok = erl_esdb_telemetry:attach_many(?FUNCTION_NAME, maps:keys(Table), Tell, self()),
    ok = everything_happens(),
    Told = told(Table, #{}),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    ?assertEqual(Table, Told).

is_row(Row) ->
    string:prefix(Row, "| `") =/= nomatch andalso length(string:split(Row, "`", all)) > 4.

%% `link, created`, `deleted`: several events of one row.
rows(Row) ->
    [_, Names, Measurements, Metadata | _] = string:split(Row, "|", all),
    [First | Others] = quoted(Names),
    Path = string:split(First, ", ", all),
    Last = [lists:droplast(Path) ++ [Other] || Other <- Others],
    Keys = {keys(quoted(Measurements)), keys(quoted(Metadata))},
    [{[erl_esdb | [binary_to_atom(Part) || Part <- Name]], Keys} || Name <- [Path | Last]].

quoted(Cell) ->
    case re:run(Cell, "`([^`]*)`", [global, {capture, [1], binary}]) of
        {match, Found} -> [Text || [Text] <- Found];
        nomatch -> []
    end.

keys(Names) -> lists:sort([binary_to_atom(Name) || Name <- Names]).

%% What came first of each event, as soon as there is one of each.
told(Table, Told) when map_size(Told) =:= map_size(Table) ->
    Told;
told(Table, Told) ->
    receive
        %% Those of the application have no store.
        {told, [erl_esdb, store, _], _, Metadata} when not is_map_key(store_id, Metadata) ->
            told(Table, Told);
        {told, Event, _, _} when is_map_key(Event, Told) ->
            told(Table, Told);
        {told, Event, Measurements, Metadata} ->
            Keys = {lists:sort(maps:keys(Measurements)), lists:sort(maps:keys(Metadata))},
            told(Table, Told#{Event => Keys})
    after 60_000 -> Told
    end.

everything_happens() ->
    Store = erl_esdb_test:start_store(#{}),
    [Event] = erl_esdb_test:events(1),
    S = ~"s",
    Me = #{subscriber => self()},
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, S, ~"name", Me),
    {ok, 0} = erl_esdb_streams:append(Store, S, -1, [Event]),
    {error, _} = erl_esdb_streams:append(Store, S, -1, [Event]),
    {ok, [#event{event_id = Id} = Old]} = erl_esdb_streams:read(Store, S, 0, 1, forward),
    receive
        {events, [_]} -> ok
    end,
    ok = erl_esdb_subscriptions:ack(Store, ~"name", S, 0),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    {ok, Queue} = erl_esdb_backpressure:new(#{max_queue => 1}),
    {ok, _} = erl_esdb_backpressure:enqueue_many(Queue, [a, b]),
    ok = erl_esdb_snapshots:save(Store, S, 0, #{}),
    {ok, _} = erl_esdb_snapshots:load(Store, S),
    ok = no_snapshot(Store, ~"t", Event),
    {ok, _} = erl_esdb_temporal:read_until(Store, S, 0),
    {ok, _} = erl_esdb_temporal:read_range(Store, S, 0, 1),
    {ok, _} = erl_esdb_scavenge:scavenge(Store, S, #{}),
    {ok, _} = erl_esdb_causation:get_effects(Store, Id),
    Schema = #{version => 2, upcast_from => #{1 => fun(Data) -> Data end}},
    ok = erl_esdb_schema:register(Store, Old#event.event_type, Schema),
    [_] = erl_esdb_schema:upcast(Store, [Old]),
    ok = erl_esdb_schema:unregister(Store, Old#event.event_type),
    ok = erl_esdb_links:create(Store, #{name => ~"l", source => #{type => all}}),
    ok = erl_esdb_links:start(Store, ~"l"),
    ok = erl_esdb_links:stop(Store, ~"l"),
    ok = erl_esdb_links:delete(Store, ~"l"),
    ok = emitters(Store, Old),
    ok = erl_esdb_persistence_worker:force_persistence(Store),
    %% What is pending is the last cycle's.
    ok = erl_esdb_persistence_worker:request_persistence(Store),
    ok = erl_esdb:stop_store(Store),
    memory_is_short(),
    gives_up(erl_esdb_test:start_store(#{})).

emitters(Store, Event) ->
    Pool = #subscription{id = ~"pool", type = stream, selector = ~"s", subscriber_pid = self()},
    {ok, _} = erl_esdb_emitter_pool:start_emitter(Store, Pool),
    erl_esdb_emitter_group:broadcast(Store, ~"pool", Event).

%% A fold that fails.
no_snapshot(Store, Stream, Event) ->
    Policy = #{every => 1, fold => {erlang, binary_to_atom, []}},
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    ok = erl_esdb_snapshots:set_policy(Store, Stream, Policy),
    {ok, 0} = erl_esdb_streams:append(Store, Stream, -1, [Event]),
    receive
        {told, [_, snapshot, failed], _, _} = Told -> self() ! Told
    end,
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME).

memory_is_short() ->
    {ok, Pid} = erl_esdb_memory:start_link(),
    ok = erl_esdb_memory:configure(#{elevated_threshold => 0.0, critical_threshold => 0.0}),
    ok = gen_server:stop(Pid).

%% Its engine ends six times: once more than it is started again.
gives_up(Store) ->
    lists:foldl(fun(_, Before) -> ends(Store, Before) end, none, lists:seq(1, 6)),
    ok.

ends(Store, Before) ->
    ok = erl_esdb_test:await(fun() -> engines(Store) -- [Before] =/= [] end),
    [Engine] = engines(Store),
    exit(Engine, kill),
    Engine.

engines(Store) ->
    [Pid || {S, #{engine := Pid}} <- erl_esdb_engine:lives(), S =:= Store].

in_elixir(Config) ->
    Guides = filelib:wildcard(filename:join([root(), "doc", "guides", "*.md"])),
    Pages = [filename:join(root(), "README.md") | Guides],
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

guide(Config, Name, Least) -> guide(Config, Name, Least, fun(Page) -> Page end).

guide(Config, Name, Least, Changed) ->
    {ok, Page} = file:read_file(filename:join([root(), "doc", "guides", Name])),
    Folder = filename:join(proplists:get_value(priv_dir, Config), filename:basename(Name)),
    ok = filelib:ensure_path(Folder),
    Run = erl_esdb_guide:session(Name, Changed(Page), Folder),
    ?assert(Run >= Least, Run).

root() -> filename:join([filename:dirname(source()), "..", "..", ".."]).

%% rebar3 may have linked the folder elsewhere.
source() -> proplists:get_value(source, ?MODULE:module_info(compile)).
