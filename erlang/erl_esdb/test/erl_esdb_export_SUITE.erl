-module(erl_esdb_export_SUITE).
-moduledoc "Export and import, and the forms of events outside a store.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-import(erl_esdb_export, [to_file/3]).
-import(erl_esdb_import, [from_file/3]).
-import(erl_esdb_test, [ids/1, events/1]).

-define(S, <<"orders-1">>).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    Functions = [atom_to_list(F) || {F, 1} <- ?MODULE:module_info(exports)],
    [list_to_atom(F) || "b_" ++ _ = F <- Functions].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(Case, Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(Case)),
    ok = filelib:ensure_path(Dir),
    [{dir, Dir}, {store, start()} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

start() -> erl_esdb_test:start_store(#{}).

store(Config) -> proplists:get_value(store, Config).

path(Config, Name) -> filename:join(proplists:get_value(dir, Config), Name).

append(Store, Stream, New) ->
    {ok, _} = erl_esdb_streams:append(Store, Stream, any, New),
    ok.

log(Store) ->
    {ok, Events} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    Events.

lines(Path) ->
    {ok, Content} = file:read_file(Path),
    [json:decode(Line) || Line <- binary:split(Content, <<"\n">>, [global, trim_all])].

%% Runs a fun with a store of its own.
with_store(Fun) ->
    Store = start(),
    try
        Fun(Store)
    after
        erl_esdb:stop_store(Store)
    end.

%% ---- export

b_lines_of_json(Config) ->
    Store = store(Config),
    New = #{
        event_type => <<"Placed">>,
        data => #{total => 42, <<"state">> => open, list => [1.5, true, null, undefined]},
        metadata => #{by => <<"me">>},
        tags => [<<"eu">>]
    },
    append(Store, ?S, [New, #{event_type => <<"Raw">>, data => <<"text">>}]),
    {ok, Report} = to_file(Store, path(Config, "a.ndjson"), #{}),
    [#event{event_id = Id, epoch_us = Time}, _] = log(Store),
    [Line, Raw] = lines(path(Config, "a.ndjson")),
    ?assertEqual(
        #{
            <<"position">> => 0,
            <<"stream_id">> => ?S,
            <<"version">> => 0,
            <<"event_id">> => Id,
            <<"event_type">> => <<"Placed">>,
            <<"epoch_us">> => Time,
            <<"data">> => #{
                <<"total">> => 42,
                <<"state">> => <<"open">>,
                <<"list">> => [1.5, true, null, <<"undefined">>]
            },
            <<"metadata">> => #{<<"by">> => <<"me">>},
            <<"tags">> => [<<"eu">>]
        },
        Line
    ),
    ?assertMatch(#{<<"data">> := <<"text">>, <<"version">> := 1}, Raw),
    Size = filelib:file_size(path(Config, "a.ndjson")),
    {ok, Hash} = erl_esdb_file:sha256(path(Config, "a.ndjson")),
    ?assertEqual(#{events => 2, bytes => Size, next => 2, sha256 => Hash}, Report),
    {ok, Manifest} = file:read_file(path(Config, "a.ndjson.manifest")),
    ?assertEqual(
        #{<<"events">> => 2, <<"bytes">> => Size, <<"next">> => 2, <<"sha256">> => Hash},
        json:decode(Manifest)
    ),
    {ok, Files} = file:list_dir(proplists:get_value(dir, Config)),
    ?assertEqual(["a.ndjson", "a.ndjson.manifest"], lists:sort(Files)).

b_what_is_exported(Config) ->
    Store = store(Config),
    [append(Store, Stream, events(3)) || Stream <- [?S, <<"users-1">>, <<"orders-2">>]],
    Positions = fun(Options) ->
        {ok, #{events := Count}} = to_file(Store, path(Config, "b"), Options),
        Found = [Position || #{<<"position">> := Position} <- lines(path(Config, "b"))],
        ?assertEqual(Count, length(Found)),
        Found
    end,
    ?assertEqual(lists:seq(0, 8), Positions(#{})),
    ?assertEqual([4, 5, 6], Positions(#{from => 4, until => 7})),
    ?assertEqual([0, 1, 2, 6, 7, 8], Positions(#{streams => <<"orders-*">>})),
    ?assertEqual([], Positions(#{from => 9})),
    ?assertEqual([8], Positions(#{from => 8, until => 1000})),
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 2),
    ?assertEqual([2, 3, 4, 5, 6, 7, 8], Positions(#{})).

%% Stopped after each page, it makes the same file as in one go, whatever is appended meanwhile.
b_an_export_goes_on_where_it_was_stopped(Config) ->
    Store = store(Config),
    [append(Store, ?S, events(100)) || _ <- lists:seq(1, 12)],
    [
        begin
            Whole = path(Config, ["whole.", atom_to_list(Format)]),
            Parts = path(Config, ["parts.", atom_to_list(Format)]),
            {ok, Report} = to_file(Store, Whole, #{format => Format, until => 1200}),
            Pages = go_on(Store, Parts, #{format => Format, until => 1200, max_pages => 1}, 0),
            ?assert(Pages > 2),
            {ok, Expected} = file:read_file(Whole),
            {ok, Written} = file:read_file(Parts),
            ?assert(Expected =:= Written),
            with_store(fun(Copy) ->
                {ok, #{events := 1200}} = from_file(Copy, Parts, #{atoms => create}),
                ?assertEqual(ids(lists:sublist(log(Store), 1200)), ids(log(Copy)))
            end),
            ?assertMatch(#{events := 1200, next := 1200}, Report)
        end
     || Format <- [ndjson, segments]
    ].

go_on(Store, Path, Options, Pages) ->
    append(Store, <<"meanwhile">>, events(1)),
    case to_file(Store, Path, Options) of
        {more, #{next := Next}} ->
            ?assertNot(filelib:is_regular(Path)),
            ?assert(Next =< 1200),
            %% As a crash leaves it: more in the file than the cursor knows.
            ok = file:write_file([Path, ".part"], <<"garbage">>, [append]),
            go_on(Store, Path, Options, Pages + 1);
        {ok, _} ->
            Pages
    end.

b_another_export_begins_anew(Config) ->
    Store = store(Config),
    append(Store, ?S, events(500)),
    Path = path(Config, "x"),
    {more, _} = to_file(Store, Path, #{max_pages => 1}),
    %% Other options.
    {ok, #{events := 100}} = to_file(Store, Path, #{from => 400}),
    %% What was written is not what the cursor says.
    {more, _} = to_file(Store, Path, #{max_pages => 1}),
    ok = file:write_file([Path, ".part"], <<"garbage">>),
    {ok, #{events := 500}} = to_file(Store, Path, #{}),
    ?assertEqual(500, length(lines(Path))),
    %% A cursor that is none.
    {more, _} = to_file(Store, Path, #{max_pages => 1}),
    ok = file:write_file([Path, ".cursor"], <<"garbage">>),
    {ok, #{events := 500}} = to_file(Store, Path, #{}),
    ?assertEqual(500, length(lines(Path))).

%% What was written is not that of a store that came back without its events.
b_an_export_is_that_of_one_store(Config) ->
    Store = store(Config),
    append(Store, ?S, events(5000)),
    Path = path(Config, "x"),
    {more, #{events := 192}} = to_file(Store, Path, #{max_pages => 2}),
    restart(Store),
    append(Store, ?S, events(100)),
    ?assertMatch({ok, #{events := 100, next := 100}}, to_file(Store, Path, #{})),
    ?assertEqual(100, length(lines(Path))),
    %% The same store, with fewer events than it had.
    {more, _} = to_file(Store, Path, #{max_pages => 1}),
    {ok, Cursor} = erl_esdb_file:read_term([Path, ".cursor"]),
    ok = erl_esdb_file:write_term([Path, ".cursor"], Cursor#{until := 101}),
    ?assertMatch({ok, #{events := 100}}, to_file(Store, Path, #{})),
    %% One that comes back while it is exported.
    append(Store, ?S, events(5000)),
    ?assertEqual({error, {store_replaced, Store}}, restarted_within(Store, Path)),
    ?assertMatch({ok, #{events := 0}}, to_file(Store, Path, #{})).

restart(Store) ->
    ok = erl_esdb:stop_store(Store),
    {ok, _} = erl_esdb_test:start_store(Store, erl_esdb_test:options()),
    ok.

%% Of many exports one is caught at work.
restarted_within(Store, Path) ->
    Self = self(),
    Cursor = [Path, ".cursor"],
    _ = file:delete(Cursor),
    {Pid, Ref} = spawn_monitor(fun() -> Self ! {self(), to_file(Store, Path, #{})} end),
    erl_esdb_test:await(fun() -> filelib:is_regular(Cursor) orelse not is_process_alive(Pid) end),
    case erl_esdb_test:suspended(Pid) of
        true ->
            case erl_esdb_file:read_term(Cursor) of
                {ok, #{next := Next}} when Next < 3000 -> restart(Store);
                _ -> ok
            end,
            true = erlang:resume_process(Pid);
        %% It was done before.
        false ->
            ok
    end,
    receive
        {'DOWN', Ref, process, Pid, normal} -> ok
    end,
    receive
        {Pid, {ok, _}} -> restarted_within(Store, Path);
        {Pid, Answer} -> Answer
    end.

%% A copy goes its own way from the position of the backup.
b_a_restored_store_is_another_one(Config) ->
    Store = store(Config),
    append(Store, ?S, events(500)),
    [Path, Backup] = [path(Config, Name) || Name <- ["x", "backup"]],
    {more, _} = to_file(Store, Path, #{max_pages => 1}),
    {ok, Id} = erl_esdb_incarnation:id(Store, #{}),
    ?assertEqual({ok, true}, erl_esdb_incarnation:has(Store, Id, 500, #{})),
    {ok, #{documents := 0}} = erl_esdb_backup:backup(Store, Backup),
    restart(Store),
    %% An id is nothing that a store has to be empty of.
    {ok, Other} = erl_esdb_incarnation:id(Store, #{}),
    {ok, _} = erl_esdb_backup:restore(Store, Backup),
    ?assertEqual({ok, false}, erl_esdb_incarnation:has(Store, Id, 0, #{})),
    ?assertEqual({ok, Other}, erl_esdb_incarnation:id(Store, #{})),
    ?assertMatch({ok, #{events := 500}}, to_file(Store, Path, #{})).

%% A writer that is killed leaves what it had begun, and whoever writes there next removes it.
b_what_a_killed_writer_left(Config) ->
    append(store(Config), ?S, events(10)),
    [Path, Cursor] = [path(Config, Name) || Name <- ["x", "cursor"]],
    [killed_writer(File) || File <- [[Path, ".cursor"], [Path, ".manifest"], Cursor]],
    Others = [
        "cursor.0123456789abcde.tmp",
        "cursor.tmp",
        "other.cursor.0123456789abcdef.tmp",
        "x.cursor.0123456789abcdeg.tmp",
        "x.other.0123456789abcdef.tmp"
    ],
    [ok = file:write_file(path(Config, Name), <<"kept">>) || Name <- Others],
    Files = fun() -> filelib:wildcard("*", path(Config, "")) end,
    ?assertEqual(3, length(Files() -- Others)),
    {ok, _} = to_file(store(Config), Path, #{}),
    ?assertMatch(["cursor." ++ _, "x", "x.manifest"], Files() -- Others),
    with_store(fun(Copy) -> {ok, _} = from_file(Copy, Path, #{cursor => Cursor}) end),
    ?assertEqual(["x", "x.manifest"], Files() -- Others),
    ?assertEqual([], Others -- Files()).

%% Of many writers one is caught at work.
killed_writer(Path) ->
    Begun = fun() -> filelib:wildcard("*.tmp", filename:dirname(Path)) end,
    Before = Begun(),
    Content = binary:copy(<<0>>, 33_554_432),
    {Pid, Ref} = spawn_monitor(fun() -> erl_esdb_file:write(Path, Content) end),
    erl_esdb_test:await(fun() -> Begun() =/= Before orelse not is_process_alive(Pid) end),
    exit(Pid, kill),
    receive
        {'DOWN', Ref, process, Pid, _} -> ok
    end,
    case Begun() of
        Before -> ok = file:delete(Path), killed_writer(Path);
        _ -> ok
    end.

%% One process at a time, whatever the folder is called; one that was killed is none.
b_an_export_is_alone(Config) ->
    Store = store(Config),
    append(Store, ?S, events(500)),
    ok = filelib:ensure_path(path(Config, "folder")),
    ok = file:make_symlink(path(Config, "folder"), path(Config, "alias")),
    [Path, Alias] = [path(Config, Name) || Name <- ["folder/x", "alias/x"]],
    killed_at_work(Store, fun() -> to_file(Store, Path, #{}) end, fun() ->
        ?assertEqual({error, {busy, Path}}, to_file(Store, Path, #{})),
        ?assertEqual({error, {busy, Alias}}, to_file(Store, Alias, #{}))
    end),
    ?assertMatch({ok, #{events := 500}}, to_file(Store, Alias, #{})),
    with_store(fun(Copy) ->
        Cursor = path(Config, "cursor"),
        Import = fun() -> from_file(Copy, Path, #{cursor => Cursor}) end,
        killed_at_work(Copy, Import, fun() ->
            ?assertEqual({error, {busy, Cursor}}, Import())
        end),
        ?assertMatch({ok, #{events := 500}}, Import())
    end).

%% Calls the second fun while a process is in the first one and waits for the store.
killed_at_work(Store, Work, Meanwhile) ->
    Engine = erl_esdb_test:orderer(Store),
    ok = sys:suspend(Engine),
    {Pid, Ref} = spawn_monitor(Work),
    erl_esdb_test:await(fun() ->
        erl_esdb_test:calls(Engine, Pid) =:= 1
    end),
    Meanwhile(),
    exit(Pid, kill),
    receive
        {'DOWN', Ref, process, Pid, killed} -> ok
    end,
    ok = sys:resume(Engine).

%% An export that fails, or begins anew, closes what it opened.
b_an_export_leaves_no_file_open(Config) ->
    Store = store(Config),
    append(Store, ?S, events(100)),
    Path = path(Config, "x"),
    {more, _} = to_file(Store, Path, #{max_pages => 1}),
    ok = file:write_file([Path, ".part"], <<"garbage">>),
    ?assertMatch({{more, _}, []}, opened_by(fun() -> to_file(Store, Path, #{max_pages => 1}) end)),
    %% A device that cannot be cut off.
    Full = path(Config, "full"),
    ok = file:make_symlink("/dev/full", [Full, ".part"]),
    Segments = fun() -> to_file(Store, Full, #{format => segments}) end,
    ?assertEqual({{error, {write_failed, einval}}, []}, opened_by(Segments)).

%% What a fun returns, and the files that it leaves open; of a process that collects no garbage,
%% with which they would be closed.
opened_by(Fun) ->
    Before = open_files(),
    Self = self(),
    Work = fun() -> Self ! {self(), {Fun(), open_files() -- Before}} end,
    Pid = spawn_opt(Work, [link, {min_heap_size, 10_000_000}]),
    receive
        {Pid, Answer} -> Answer
    end.

open_files() ->
    Fds = filelib:wildcard("/proc/self/fd/*"),
    [Name || {ok, Name} <- [file:read_link(Fd) || Fd <- Fds], is_export(Name)].

is_export(Name) ->
    lists:suffix(".part", Name) orelse lists:suffix("/dev/full", Name).

b_bad_calls_of_export(Config) ->
    Bad = [
        {format, xml}, {from, -1}, {until, last}, {streams, orders}, {max_pages, 0}
    ],
    [
        ?assertEqual(
            {error, {invalid_option, Key, Value}},
            to_file(store(Config), path(Config, "x"), #{Key => Value})
        )
     || {Key, Value} <- Bad
    ],
    ?assertEqual(
        {error, {store_not_started, no_such_store}},
        to_file(no_such_store, path(Config, "x"), #{})
    ),
    ok = file:write_file(path(Config, "file"), <<"x">>),
    ?assertEqual(
        {error, {failed_to_create_dir, enotdir}},
        to_file(store(Config), path(Config, "file/below"), #{})
    ),
    ok = filelib:ensure_path(path(Config, "dir.part")),
    ?assertEqual(
        {error, {write_failed, eisdir}}, to_file(store(Config), path(Config, "dir"), #{})
    ),
    ?assertError(badarg, to_file(store(Config), path(Config, "x"), [])).

%% ---- both

%% Any events come back as they were from segments; from JSON but for atoms.
b_segments_round_trip(Config) ->
    round_trip(Config, segments, erl_esdb_data_gen:new_event(), fun(Event) -> Event end).

b_json_round_trip(Config) ->
    round_trip(Config, ndjson, erl_esdb_data_gen:json_event(), fun(Event) -> Event end),
    round_trip(Config, ndjson, erl_esdb_data_gen:new_event(), fun spelled/1).

round_trip(Config, Format, Event, Spelled) ->
    Path = path(Config, "round"),
    Property = ?FORALL(Log, erl_esdb_data_gen:log(Event), begin
        with_store(fun(From) ->
            erl_esdb_data_gen:write(From, Log),
            {ok, #{events := Count}} = to_file(From, Path, #{format => Format}),
            with_store(fun(To) ->
                {ok, #{events := Count}} = from_file(To, Path, #{}),
                compare(log(From), log(To), Spelled)
            end)
        end)
    end),
    erl_esdb_test:property(25, Property).

%% Positions and versions are new: without gaps, in the same order.
compare(Before, After, Spelled) ->
    Expected = [(Spelled(E))#event{position = P} || {P, E} <- lists:enumerate(0, Before)],
    Same = fun(E, A) ->
        E#event{version = 0, timestamp = 0, epoch_us = 0} =:=
            A#event{version = 0, timestamp = 0, epoch_us = 0} andalso
            A#event.epoch_us =:= E#event.epoch_us
    end,
    length(Expected) =:= length(After) andalso
        lists:all(fun({E, A}) -> Same(E, A) end, lists:zip(Expected, After)).

%% What JSON makes of atoms.
spelled(#event{data = Data, metadata = Metadata} = Event) ->
    Event#event{data = spelled_term(Data), metadata = spelled_term(Metadata)}.

spelled_term(Term) ->
    case erl_esdb_event_json:is_json(Term) of
        true -> text(Term);
        false -> Term
    end.

text(Map) when is_map(Map) -> #{text_key(Key) => text(Value) || Key := Value <- Map};
text(List) when is_list(List) -> [text(Item) || Item <- List];
text(Value) when is_boolean(Value); Value =:= null -> Value;
text(Atom) when is_atom(Atom) -> atom_to_binary(Atom);
text(Value) -> Value.

text_key(Key) when is_atom(Key) -> atom_to_binary(Key);
text_key(Key) -> Key.

b_the_commits_of_a_history(Config) ->
    Streams = erl_esdb_test:append_commits(store(Config)),
    {ok, #{events := Count}} = to_file(store(Config), path(Config, "c.ndjson"), #{}),
    ?assertEqual(lists:sum([length(Commits) || _ := Commits <- Streams]), Count),
    with_store(fun(Copy) ->
        {ok, #{events := Count, skipped := 0}} = from_file(Copy, path(Config, "c.ndjson"), #{}),
        %% Into an empty store, from one where nothing was removed: the very same.
        ?assertEqual(log(store(Config)), log(Copy))
    end).

%% ---- import

b_lines_from_elsewhere(Config) ->
    Path = path(Config, "elsewhere"),
    ok = file:write_file(Path, [
        <<"{\"stream_id\":\"a\",\"event_type\":\"T\",\"data\":{\"n\":1}}\r\n">>,
        <<"\n">>,
        <<"{\"stream_id\":\"a\",\"event_type\":\"T\",\"data\":\"text\",\"tags\":[\"x\"],">>,
        <<"\"event_id\":\"e-2\",\"epoch_us\":17,\"metadata\":{\"k\":null},\"other\":[]}">>
    ]),
    {ok, #{events := 2}} = from_file(store(Config), Path, #{}),
    {ok, [E1, E2]} = erl_esdb_streams:read(store(Config), <<"a">>, 0, 9, forward),
    ?assertMatch(#event{data = #{<<"n">> := 1}, metadata = M, tags = []} when M =:= #{}, E1),
    ?assertMatch(
        #event{
            event_id = <<"e-2">>,
            data = <<"text">>,
            metadata = #{<<"k">> := null},
            tags = [<<"x">>]
        },
        E2
    ),
    %% Times do not run backwards in a stream.
    ?assertEqual(E1#event.epoch_us, E2#event.epoch_us).

b_what_is_wrong_is_named(Config) ->
    Good = <<"{\"stream_id\":\"a\",\"event_type\":\"T\",\"data\":{}}">>,
    Field = fun(Name, Json) ->
        Object = maps:without([Name, atom_to_binary(Name)], json:decode(Good)),
        json:encode(Object#{<<(atom_to_binary(Name))/binary, Json/binary>> => 7})
    end,
    Cases = [
        {invalid_json, <<"{">>},
        {invalid_json, <<"[]">>},
        {invalid_json, <<"7">>},
        {invalid_json, <<Good/binary, Good/binary>>},
        {invalid_json, <<"{\"stream_id\":\"", 255, "\"}">>},
        {{missing, stream_id}, <<"{}">>},
        {{missing, data}, <<"{\"stream_id\":\"a\",\"event_type\":\"T\"}">>},
        {{bad_type, data}, Field(data, <<>>)},
        {{bad_type, stream_id}, Field(stream_id, <<>>)},
        {{bad_type, tags}, Field(tags, <<>>)},
        {{bad_type, metadata}, Field(metadata, <<>>)},
        {{bad_type, event_id}, Field(event_id, <<>>)},
        {{bad_type, metadata},
            <<"{\"stream_id\":\"a\",\"event_type\":\"T\",\"data\":{},\"metadata_etf\":\"AAAA\"}">>},
        {{bad_type, metadata},
            <<"{\"stream_id\":\"a\",\"event_type\":\"T\",\"data\":{},\"metadata_etf\":\"%\"}">>}
    ],
    Path = path(Config, "wrong"),
    [
        begin
            ok = file:write_file(Path, [Good, $\n, Good, $\n, Line, $\n]),
            ?assertEqual({error, {line, 3, Reason}}, from_file(store(Config), Path, #{}))
        end
     || {Reason, Line} <- Cases
    ],
    ?assertEqual([], log(store(Config))),
    ok = file:write_file(Path, [Good, $\n, binary:copy(<<" ">>, 2000)]),
    ?assertEqual(
        {error, {line, 2, {line_too_long, 1000}}},
        from_file(store(Config), Path, #{max_line => 1000})
    ),
    %% A name that no stream may have is told by the store.
    Long = binary:copy(<<"x">>, 70_000),
    ok = file:write_file(Path, json:encode(#{stream_id => Long, event_type => a, data => #{}})),
    ?assertEqual(
        {error, {stream_id_too_long, 70_000, 65_536}}, from_file(store(Config), Path, #{})
    ).

b_a_damaged_export_is_refused(Config) ->
    append(store(Config), ?S, events(50)),
    Path = path(Config, "damaged"),
    {ok, _} = to_file(store(Config), Path, #{format => segments}),
    {ok, Good} = file:read_file(Path),
    with_store(fun(Copy) ->
        %% With its manifest, nothing is begun.
        ok = file:write_file(Path, binary_part(Good, 0, byte_size(Good) - 20)),
        ?assertMatch({error, {checksum_mismatch, _}}, from_file(Copy, Path, #{})),
        ok = file:write_file([Path, ".manifest"], <<"{}">>),
        ?assertMatch({error, {checksum_mismatch, _}}, from_file(Copy, Path, #{})),
        %% Without, the frames tell it.
        ok = file:delete([Path, ".manifest"]),
        Property = ?FORALL(At, range(0, byte_size(Good) - 40), begin
            <<Head:At/binary, Byte, Tail/binary>> = Good,
            ok = file:write_file(Path, <<Head/binary, (Byte bxor 32), Tail/binary>>),
            case from_file(Copy, Path, #{format => segments}) of
                {error, {segment, 1, _}} -> true;
                Other -> {unexpected, Other}
            end
        end),
        erl_esdb_test:property(200, Property),
        ?assertEqual([], log(Copy)),
        ok = file:write_file(Path, binary_part(Good, 0, 3)),
        ?assertEqual(
            {error, {segment, 1, truncated}}, from_file(Copy, Path, #{format => segments})
        ),
        ok = file:write_file(Path, <<"EF", 9, "X">>),
        ?assertEqual(
            {error, {segment, 1, {unsupported_version, 9}}}, from_file(Copy, Path, #{})
        )
    end).

%% Stopped after each page, or while a page was being written: nothing is missing, nothing twice.
b_an_import_goes_on_where_it_was_stopped(Config) ->
    Store = store(Config),
    [append(Store, S, events(500)) || _ <- lists:seq(1, 4), S <- [?S, <<"orders-2">>]],
    Path = path(Config, "resume.ndjson"),
    Options = #{cursor => path(Config, "cursor")},
    {ok, _} = to_file(Store, Path, #{}),
    with_store(fun(Copy) ->
        {more, #{events := 1000}} = from_file(Copy, Path, Options#{max_pages => 1}),
        crash_in_a_page(Copy, Path, Options, #{?S => 500, <<"orders-2">> => 500}, 500),
        %% Who else writes does not hide what was written.
        append(Copy, ?S, [cart(1, N) || N <- lists:seq(1, 3_000)]),
        Second = from_file(Copy, Path, Options#{max_pages => 1}),
        ?assertEqual({more, #{events => 500, skipped => 500}}, Second),
        {ok, #{events := 2000, skipped := 0}} = from_file(Copy, Path, Options),
        ?assertNot(filelib:is_regular(path(Config, "cursor"))),
        Of = fun(S, Stream) ->
            {ok, Events} = erl_esdb_streams:read(S, Stream, 0, infinity, forward),
            ids([E || #event{event_type = Type} = E <- Events, Type =/= <<"Cart">>])
        end,
        [
            ?assertEqual(Of(Store, Stream), Of(Copy, Stream))
         || Stream <- [?S, <<"orders-2">>]
        ]
    end).

%% The importer is killed when it has sent the first append of a page, which is then done.
crash_in_a_page(Store, Path, #{cursor := Cursor} = Options, Begun, Count) ->
    {ok, Before} = erl_esdb_store:next_position(Store),
    Engine = erl_esdb_test:orderer(Store),
    ok = sys:suspend(Engine),
    {Pid, Ref} = spawn_monitor(fun() -> from_file(Store, Path, Options) end),
    %% Who leads may have something to write, too.
    erl_esdb_test:await(fun() -> erl_esdb_test:calls(Engine, Pid) =:= 1 end),
    {ok, #{begun := Begun}} = erl_esdb_file:read_term(Cursor),
    exit(Pid, kill),
    receive
        {'DOWN', Ref, process, Pid, killed} -> ok
    end,
    ok = sys:resume(Engine),
    Behind = {ok, Before + Count},
    erl_esdb_test:await(fun() -> erl_esdb_store:next_position(Store) =:= Behind end).

%% An id that stands twice in a stream is there twice, also after a crash between the two.
b_an_id_that_stands_twice(Config) ->
    Line = fun(Stream, Id) ->
        Event = #{stream_id => Stream, event_id => Id, event_type => <<"T">>, data => #{}},
        [json:encode(Event), $\n]
    end,
    Path = path(Config, "twice"),
    In = [{?S, <<"1">>}, {<<"b">>, <<"2">>}, {?S, <<"1">>}, {<<"b">>, <<"3">>}, {?S, <<"1">>}],
    ok = file:write_file(Path, [Line(Stream, Id) || {Stream, Id} <- In]),
    Options = #{cursor => path(Config, "cursor")},
    with_store(fun(Copy) ->
        {ok, _} = erl_esdb_incarnation:id(Copy, #{}),
        crash_in_a_page(Copy, Path, Options, #{?S => 0, <<"b">> => 0}, 1),
        ?assertEqual({ok, #{events => 4, skipped => 1}}, from_file(Copy, Path, Options)),
        ?assertEqual(In, [{S, Id} || #event{stream_id = S, event_id = Id} <- log(Copy)])
    end).

%% What others wrote since the stop is looked through, and not kept.
b_an_import_that_goes_on_takes_bounded_memory(Config) ->
    append(store(Config), ?S, events(2_000)),
    Path = path(Config, "busy"),
    Options = #{cursor => path(Config, "cursor")},
    {ok, _} = to_file(store(Config), Path, #{}),
    with_store(fun(Copy) ->
        {more, _} = from_file(Copy, Path, Options#{max_pages => 1}),
        crash_in_a_page(Copy, Path, Options, #{?S => 1_000}, 1_000),
        [append(Copy, ?S, events(5_000)) || _ <- lists:seq(1, 40)],
        Words = #{size => 4_000_000, kill => true, error_logger => false},
        Import = fun() -> exit({done, from_file(Copy, Path, Options)}) end,
        {Pid, Ref} = spawn_opt(Import, [monitor, {max_heap_size, Words}]),
        receive
            {'DOWN', Ref, process, Pid, Reason} ->
                ?assertEqual({done, {ok, #{events => 0, skipped => 1_000}}}, Reason)
        end
    end).

%% No event comes into a store that was begun anew under the name, and who imports is told.
b_an_import_into_a_store_that_comes_back(Config) ->
    [append(store(Config), ?S, events(5_000)) || _ <- lists:seq(1, 4)],
    Path = path(Config, "x"),
    {ok, _} = to_file(store(Config), Path, #{}),
    Signing = #{integrity => #{enabled => true, key => <<7:256>>}},
    [
        begin
            Copy = erl_esdb_test:start_store(Started),
            Restart = fun() ->
                ok = erl_esdb:stop_store(Copy),
                {ok, _} = erl_esdb_test:start_store(
                    Copy, maps:merge(erl_esdb_test:options(), Started)
                )
            end,
            {error, {Why, _}} = replaced_within(Copy, Path, Options, Restart),
            ?assert(lists:member(Why, Whys)),
            ?assertEqual([], log(Copy)),
            ok = erl_esdb:stop_store(Copy)
        end
     || {Started, Options, Whys} <- [
            {#{}, #{}, [store_replaced]},
            {Signing, #{}, [store_replaced]},
            {#{}, #{cursor => path(Config, "cursor")}, [store_replaced, cursor_mismatch]}
        ]
    ].

%% Of many imports one is caught at work.
replaced_within(Store, Path, Options, Restart) ->
    Next = fun() -> erl_esdb_store:next_position(Store) end,
    {Pid, Ref} = spawn_monitor(fun() -> exit({done, from_file(Store, Path, Options)}) end),
    erl_esdb_test:await(fun() -> Next() > {ok, 0} end),
    IsCaught = erl_esdb_test:suspended(Pid) andalso Next() < {ok, 20_000},
    {ok, _} = Restart(),
    _ = is_process_alive(Pid) andalso erlang:resume_process(Pid),
    receive
        {'DOWN', Ref, process, Pid, {done, Answer}} when IsCaught -> Answer;
        {'DOWN', Ref, process, Pid, {done, _}} -> replaced_within(Store, Path, Options, Restart)
    end.

%% Where a file has lines there are no segments to go on from.
b_an_import_goes_on_in_its_format(Config) ->
    append(store(Config), ?S, events(2_000)),
    Cursor = path(Config, "cursor"),
    [
        with_store(fun(Copy) ->
            Path = path(Config, atom_to_list(Format)),
            {ok, _} = to_file(store(Config), Path, #{format => Format}),
            Options = #{cursor => Cursor, max_pages => 1},
            {more, #{events := First}} = from_file(Copy, Path, Options),
            ?assertEqual(
                {error, {cursor_mismatch, Cursor}},
                from_file(Copy, Path, #{cursor => Cursor, format => Other})
            ),
            {ok, #{events := Rest}} = from_file(Copy, Path, #{cursor => Cursor, format => Format}),
            ?assertEqual(2_000, First + Rest)
        end)
     || {Format, Other} <- [{ndjson, segments}, {segments, ndjson}]
    ].

%% Into a store of JSON text comes what an append would have put there, but binaries as they are.
b_data_as_the_store_keeps_them(Config) ->
    By = #{by => me},
    append(store(Config), ?S, [
        #{event_type => <<"T">>, data => #{<<"n">> => 1}, metadata => By},
        #{event_type => <<"T">>, data => <<"{\"n\": 2}">>},
        #{event_type => <<"T">>, data => <<"no json">>, metadata => By},
        #{event_type => <<"T">>, data => #{<<"t">> => 1}, data_content_type => <<"x/term">>}
    ]),
    Same = [<<"{\"n\": 2}">>, <<"no json">>, #{<<"t">> => 1}],
    Text = [<<"{\"n\":1}">> | Same],
    Terms = [#{<<"n">> => 1} | Same],
    Normal = #{<<"by">> => <<"me">>},
    Json = #{codec => json},
    [
        begin
            Path = path(Config, atom_to_list(Format)),
            {ok, _} = to_file(store(Config), Path, #{format => Format}),
            Imported = fun(Started, Options) -> imported(Started, Path, Options) end,
            ?assertEqual({Text, [Normal, #{}, Normal, #{}]}, Imported(Json, #{})),
            ?assertEqual({Text, [Normal, #{}, Normal, #{}]}, Imported(#{}, Json)),
            ?assertEqual({Terms, [Kept, #{}, Kept, #{}]}, Imported(#{}, #{})),
            ?assertEqual({Terms, [Kept, #{}, Kept, #{}]}, Imported(Json, #{codec => none}))
        end
     || {Format, Kept} <- [{ndjson, Normal}, {segments, By}]
    ].

%% Data and metadata of what a new store has of a file.
imported(Started, Path, Options) ->
    Copy = erl_esdb_test:start_store(Started),
    {ok, _} = from_file(Copy, Path, Options),
    Events = log(Copy),
    ok = erl_esdb:stop_store(Copy),
    {[Data || #event{data = Data} <- Events], [Metadata || #event{metadata = Metadata} <- Events]}.

b_data_that_cannot_be_json(Config) ->
    [
        begin
            Path = path(Config, atom_to_list(Format)),
            with_store(fun(From) ->
                append(From, ?S, [
                    #{event_type => <<"T">>, data => #{}},
                    maps:merge(#{event_type => <<"T">>, data => #{}}, #{Key => #{t => {1, 2}}})
                ]),
                {ok, _} = to_file(From, Path, #{format => Format})
            end),
            Wrong = {Part, Nth, {invalid_event, {not_json, Key}}},
            ?assertEqual({error, Wrong}, from_file(store(Config), Path, #{codec => json})),
            ?assertEqual([], log(store(Config)))
        end
     || {Format, Part, Nth} <- [{ndjson, line, 2}, {segments, segment, 1}],
        Key <- [data, metadata]
    ].

%% A copy has what was stored, whatever the codec of the store that it is restored into.
b_a_restored_copy_has_no_other_data(Config) ->
    append(store(Config), ?S, [
        #{event_type => <<"T">>, data => #{n => {1, 2}}, metadata => #{by => me}}
    ]),
    Backup = path(Config, "backup"),
    {ok, _} = erl_esdb_backup:backup(store(Config), Backup),
    Copy = erl_esdb_test:start_store(#{codec => json}),
    {ok, _} = erl_esdb_backup:restore(Copy, Backup),
    ?assertEqual(log(store(Config)), log(Copy)),
    ok = erl_esdb:stop_store(Copy).

%% What the disk says is of the file, not of a part of it.
b_a_file_that_goes_away(Config) ->
    append(store(Config), ?S, events(10)),
    [
        with_store(fun(Copy) ->
            Path = path(Config, atom_to_list(Format)),
            {ok, _} = to_file(store(Config), Path, #{format => Format}),
            ok = file:delete([Path, ".manifest"]),
            %% It waits for the id of the store when the file is known, and not yet open.
            Engine = erl_esdb_test:orderer(Copy),
            ok = sys:suspend(Engine),
            Import = fun() -> exit(from_file(Copy, Path, #{cursor => [Path, ".progress"]})) end,
            {Pid, Ref} = spawn_monitor(Import),
            erl_esdb_test:await(fun() ->
                erl_esdb_test:calls(Engine, Pid) =:= 1
            end),
            ok = file:delete(Path),
            ok = sys:resume(Engine),
            receive
                {'DOWN', Ref, process, Pid, Answer} ->
                    ?assertEqual({error, {read_failed, enoent}}, Answer)
            end
        end)
     || Format <- [ndjson, segments]
    ].

b_times_before_1970(Config) ->
    Path = path(Config, "early"),
    Line = #{stream_id => ?S, event_type => <<"T">>, data => #{}},
    Times = [-1_000_000, 5, -7],
    ok = file:write_file(Path, [[json:encode(Line#{epoch_us => Time}), $\n] || Time <- Times]),
    {ok, #{events := 3}} = from_file(store(Config), Path, #{}),
    ?assertEqual([0, 5, 5], [Time || #event{epoch_us = Time} <- log(store(Config))]).

%% A store that came back without what was imported is not gone on with.
b_an_import_is_into_one_store(Config) ->
    append(store(Config), ?S, events(5000)),
    [Path, Cursor] = [path(Config, Name) || Name <- ["x", "cursor"]],
    {ok, _} = to_file(store(Config), Path, #{}),
    Options = #{cursor => Cursor},
    Refused = {error, {cursor_mismatch, Cursor}},
    with_store(fun(Copy) ->
        {more, #{events := 3000}} = from_file(Copy, Path, Options#{max_pages => 3}),
        restart(Copy),
        ?assertEqual(Refused, from_file(Copy, Path, Options)),
        ?assertEqual([], log(Copy)),
        ok = file:delete(Cursor),
        {more, #{events := 1000}} = from_file(Copy, Path, Options#{max_pages => 1}),
        %% The same store, with fewer events than it had.
        {ok, #{position := 1000} = Kept} = erl_esdb_file:read_term(Cursor),
        ok = erl_esdb_file:write_term(Cursor, Kept#{position := 1001}),
        ?assertEqual(Refused, from_file(Copy, Path, Options)),
        ok = erl_esdb_file:write_term(Cursor, Kept),
        ?assertMatch({ok, #{events := 4000}}, from_file(Copy, Path, Options)),
        ?assertEqual(ids(log(store(Config))), ids(log(Copy)))
    end).

cart(User, N) -> #{event_type => <<"Cart">>, data => #{user => User, item => N}}.

%% Two writers of one stream: an import takes the versions that are free.
b_an_import_of_many_events_beside_a_writer(Config) ->
    Store = store(Config),
    Ids = [integer_to_binary(N) || N <- lists:seq(1, 2_000)],
    append(Store, ?S, [E#{event_id => Id} || {Id, E} <- lists:zip(Ids, events(2_000))]),
    Path = path(Config, "beside.ndjson"),
    {ok, _} = to_file(Store, Path, #{}),
    Copy = erl_esdb_test:start_store(#{
        max_batch_events => 10, integrity => #{enabled => true, key => <<7:256>>}
    }),
    Stop = atomics:new(1, []),
    Write = fun Loop() ->
        append(Copy, ?S, [cart(1, 1)]),
        atomics:get(Stop, 1) =:= 1 orelse Loop()
    end,
    Import = fun() ->
        try
            from_file(Copy, Path, #{})
        after
            atomics:put(Stop, 1, 1)
        end
    end,
    ?assertMatch(
        [_, {ok, #{events := 2_000}}], erl_esdb_test:concurrently([Write, Import])
    ),
    {ok, Events} = erl_esdb_streams:read(Copy, ?S, 0, infinity, forward),
    ?assertEqual(Ids, ids([E || #event{event_type = Type} = E <- Events, Type =/= <<"Cart">>])),
    ?assertMatch({ok, _}, erl_esdb_integrity:verify_stream(Copy, ?S)),
    erl_esdb:stop_store(Copy).

%% What metadata hide is left out, unless it is asked for.
b_hidden_events(Config) ->
    Store = store(Config),
    append(Store, ?S, events(10)),
    ok = erl_esdb_streams:set_metadata(Store, ?S, #{max_count => 3}, #{}),
    ?assertMatch({ok, #{events := 3}}, to_file(Store, path(Config, "seen"), #{})),
    ?assertMatch({ok, #{events := 10}}, to_file(Store, path(Config, "all"), #{hidden => true})).

b_times_are_those_of_a_call(Config) ->
    Store = store(Config),
    append(Store, ?S, events(10)),
    Path = path(Config, "timed"),
    {ok, #{events := 10}} = to_file(Store, Path, #{timeout => 1_000}),
    Cursor = path(Config, "timed.progress"),
    with_store(fun(Copy) ->
        Engine = erl_esdb_test:orderer(Copy),
        {ok, _} = erl_esdb_incarnation:id(Copy, #{}),
        ok = sys:suspend(Engine),
        ?assertEqual(
            {error, {timeout, Copy}}, from_file(Copy, Path, #{cursor => Cursor, timeout => 20})
        ),
        ok = sys:resume(Engine),
        %% It is done after all, which the cursor finds out.
        ?assertEqual(
            {ok, #{events => 0, skipped => 10}}, from_file(Copy, Path, #{cursor => Cursor})
        ),
        ?assertEqual(10, length(log(Copy)))
    end),
    [
        ?assertEqual({error, {invalid_option, timeout, soon}}, Call)
     || Call <- [
            to_file(Store, Path, #{timeout => soon}), from_file(Store, Path, #{timeout => soon})
        ]
    ].

%% The file is read for its checksum once, however many calls an import takes.
b_a_file_is_verified_once(Config) ->
    append(store(Config), ?S, events(3_000)),
    Path = path(Config, "once"),
    Options = #{cursor => path(Config, "once.progress"), max_pages => 1},
    {ok, _} = to_file(store(Config), Path, #{}),
    with_store(fun(Copy) ->
        Hashes = {erl_esdb_file, sha256, 1},
        1 = erlang:trace_pattern(Hashes, true, [local, call_count]),
        {more, _} = from_file(Copy, Path, Options),
        {more, _} = from_file(Copy, Path, Options),
        ?assertEqual({call_count, 1}, erlang:trace_info(Hashes, call_count)),
        %% Unless it was changed.
        {ok, <<Begin:10_000/binary, Byte, End/binary>>} = file:read_file(Path),
        ok = file:write_file(Path, <<Begin/binary, (Byte bxor 1), End/binary>>),
        ok = file:change_time(Path, {{2020, 1, 1}, {0, 0, 0}}),
        ?assertMatch({error, {checksum_mismatch, _}}, from_file(Copy, Path, Options)),
        1 = erlang:trace_pattern(Hashes, false, [local, call_count])
    end).

b_a_cursor_belongs_to_its_file(Config) ->
    append(store(Config), ?S, events(2000)),
    Cursor = path(Config, "cursor"),
    [A, B] = [path(Config, Name) || Name <- ["a", "b"]],
    {ok, _} = to_file(store(Config), A, #{}),
    {ok, _} = to_file(store(Config), B, #{from => 1}),
    with_store(fun(Copy) ->
        {more, _} = from_file(Copy, A, #{cursor => Cursor, max_pages => 1}),
        Refused = {error, {cursor_mismatch, Cursor}},
        ?assertEqual(Refused, from_file(Copy, B, #{cursor => Cursor})),
        ?assertEqual(Refused, from_file(store(Config), A, #{cursor => Cursor})),
        %% The same begin, and then other lines; with a manifest and without.
        {ok, Lines} = file:read_file(A),
        Longer = path(Config, "longer"),
        ok = file:write_file(Longer, [Lines, "\n"]),
        ?assertEqual(Refused, from_file(Copy, Longer, #{cursor => Cursor})),
        ok = file:delete([A, ".manifest"]),
        ?assertEqual(Refused, from_file(Copy, A, #{cursor => Cursor})),
        {more, _} = from_file(Copy, A, #{cursor => [Cursor, "2"], max_pages => 1}),
        {ok, #{place := Place}} = erl_esdb_file:read_term([Cursor, "2"]),
        <<Before:(Place - 1)/binary, $\n, After/binary>> = Lines,
        ok = file:write_file(A, [Before, $\s, After]),
        ?assertEqual(
            {error, {cursor_mismatch, [Cursor, "2"]}},
            from_file(Copy, A, #{cursor => [Cursor, "2"]})
        ),
        ok = file:write_file(Cursor, <<"garbage">>),
        ?assertEqual(Refused, from_file(Copy, A, #{cursor => Cursor}))
    end).

b_bad_calls_of_import(Config) ->
    Path = path(Config, "none"),
    ?assertEqual({error, {read_failed, enoent}}, from_file(store(Config), Path, #{})),
    ok = file:write_file(Path, <<>>),
    ?assertEqual({ok, #{events => 0, skipped => 0}}, from_file(store(Config), Path, #{})),
    Bad = [
        {format, xml},
        {cursor, 7},
        {atoms, some},
        {codec, xml},
        {max_line, 0},
        {max_pages, none}
    ],
    [
        ?assertEqual(
            {error, {invalid_option, Key, Value}}, from_file(store(Config), Path, #{Key => Value})
        )
     || {Key, Value} <- Bad
    ],
    ?assertEqual(
        {error, {store_not_started, no_such_store}}, from_file(no_such_store, Path, #{})
    ),
    ?assertError(badarg, from_file(store(Config), Path, [])).

%% A store that signs signs what is imported.
b_into_a_store_that_signs(Config) ->
    append(store(Config), ?S, events(30)),
    Path = path(Config, "signed"),
    {ok, _} = to_file(store(Config), Path, #{}),
    Key = #{enabled => true, key => <<7:256>>},
    Signing = erl_esdb_test:start_store(#{integrity => Key}),
    append(Signing, ?S, events(2)),
    {ok, #{events := 30}} = from_file(Signing, Path, #{}),
    ?assertMatch({ok, #{signed := 32}}, erl_esdb_integrity:verify_stream(Signing, ?S)),
    ok = erl_esdb:stop_store(Signing).

%% A store with smaller limits takes the events of a batch in several appends.
b_limits_of_the_store(Config) ->
    append(store(Config), ?S, events(100)),
    Path = path(Config, "limits"),
    {ok, _} = to_file(store(Config), Path, #{}),
    Small = erl_esdb_test:start_store(#{max_batch_events => 7, max_batch_size => 500}),
    {ok, #{events := 100}} = from_file(Small, Path, #{}),
    ?assertEqual(ids(log(store(Config))), ids(log(Small))),
    _ = erl_esdb:stop_store(Small),
    Tiny = erl_esdb_test:start_store(#{max_event_size => 10}),
    ?assertMatch({error, {event_too_large, _, 10}}, from_file(Tiny, Path, #{})),
    ?assertEqual([], log(Tiny)),
    _ = erl_esdb:stop_store(Tiny).

%% ---- the parts

b_frames(_Config) ->
    Tags = [header, segment, documents, streams],
    Frame = {oneof(Tags), binary()},
    Property = ?FORALL({Frames, Kind}, {list(Frame), oneof([archive, export, backup])}, begin
        All = Frames ++ [{'end', <<>>}],
        {Head, Sum} = erl_esdb_frames:head(Kind),
        {Encoded, _} = lists:mapfoldl(
            fun({Tag, Body}, S) -> erl_esdb_frames:frame(Tag, Body, S) end, Sum, All
        ),
        File = iolist_to_binary([Head | Encoded]),
        Cut = binary_part(File, 0, byte_size(File) - 1),
        {ok, All} =:= erl_esdb_frames:decode(File, Kind) andalso
            {error, corrupt} =:= erl_esdb_frames:decode(File, documents) andalso
            {error, truncated} =:= erl_esdb_frames:decode(Cut, Kind) andalso
            {error, corrupt} =:= erl_esdb_frames:decode([File, 0], Kind) andalso
            {error, corrupt} =:= swapped(Head, Encoded, Kind)
    end),
    erl_esdb_test:property(200, Property).

%% Frames out of order are found, also where each is intact.
swapped(Head, [A, B | Rest], Kind) -> erl_esdb_frames:decode([Head, B, A | Rest], Kind);
swapped(_Head, _, _Kind) -> {error, corrupt}.

b_lines(Config) ->
    Path = path(Config, "lines"),
    Text = ?LET(Chars, list(frequency([{5, $a}, {1, $\n}, {1, $\r}])), list_to_binary(Chars)),
    Long = ?LET({A, N}, {Text, range(60_000, 70_000)}, [A, binary:copy(<<"b">>, N)]),
    Property = ?FORALL(Parts, list(frequency([{4, Text}, {1, Long}])), begin
        Content = iolist_to_binary(Parts),
        ok = file:write_file(Path, Content),
        {ok, Lines} = erl_esdb_lines:open(Path, 0, 1_000_000),
        Read = read_lines(Lines, []),
        ok = erl_esdb_lines:close(Lines),
        Read =:= [chomp(Line) || Line <- split(Content)]
    end),
    erl_esdb_test:property(100, Property).

%% Also where the line was read along with those before it.
b_lines_that_are_too_long(Config) ->
    Path = path(Config, "lines"),
    ok = file:write_file(Path, ["abc\n", "abcd\n", "abc\n", "abcd"]),
    Read = fun(Max) ->
        {ok, Lines} = erl_esdb_lines:open(Path, 0, Max),
        Each = read_lines(Lines, []),
        ok = erl_esdb_lines:close(Lines),
        Each
    end,
    ?assertEqual([<<"abc">>, <<"abcd">>, <<"abc">>, <<"abcd">>], Read(4)),
    ?assertEqual([<<"abc">>, {line_too_long, 3}], Read(3)),
    ?assertEqual([{line_too_long, 2}], Read(2)).

read_lines(Lines, Read) ->
    case erl_esdb_lines:next(Lines) of
        {ok, Line, Lines1} -> read_lines(Lines1, [Line | Read]);
        eof -> lists:reverse(Read);
        {error, Reason} -> lists:reverse([Reason | Read])
    end.

split(Content) ->
    Lines = binary:split(Content, <<"\n">>, [global]),
    case lists:last(Lines) of
        <<>> -> lists:droplast(Lines);
        _ -> Lines
    end.

chomp(Line) ->
    case binary:longest_common_suffix([Line, <<"\r">>]) of
        1 -> binary_part(Line, 0, byte_size(Line) - 1);
        0 -> Line
    end.

b_files_are_there_as_a_whole(Config) ->
    Path = path(Config, "a/b/c"),
    ?assertEqual(ok, erl_esdb_file:write(Path, [<<"x">>, "y"])),
    ?assertEqual({ok, <<"xy">>}, file:read_file(Path)),
    ?assertEqual(ok, erl_esdb_file:write(Path, <<"z">>)),
    ?assertEqual({ok, <<"z">>}, file:read_file(Path)),
    ?assertEqual({ok, ["c"]}, file:list_dir(path(Config, "a/b"))),
    ok = filelib:ensure_path(path(Config, "dir/full")),
    ?assertMatch({error, {write_failed, _}}, erl_esdb_file:write(path(Config, "dir"), <<"x">>)),
    ?assertEqual(["a", "dir"], lists:sort(filelib:wildcard("*", path(Config, "")))),
    ok = erl_esdb_file:write_term(Path, #{a => [1, 2]}),
    ?assertEqual({ok, #{a => [1, 2]}}, erl_esdb_file:read_term(Path)),
    {ok, <<Byte, Rest/binary>>} = file:read_file(Path),
    ok = file:write_file(Path, <<(Byte bxor 1), Rest/binary>>),
    ?assertEqual({error, corrupt}, erl_esdb_file:read_term(Path)),
    ok = file:write_file(Path, <<>>),
    ?assertEqual({error, corrupt}, erl_esdb_file:read_term(Path)).

%% A page is small where events are large.
b_pages(Config) ->
    Store = store(Config),
    Large = #{event_type => <<"t">>, data => binary:copy(<<0>>, 1_000_000)},
    [append(Store, ?S, [Large]) || _ <- lists:seq(1, 70)],
    append(Store, ?S, events(5000)),
    Sizes = fun(Events, _Next, Acc) -> {next, [length(Events) | Acc]} end,
    {done, Pages} = erl_esdb_pages:log(Store, 0, 5070, #{}, Sizes, []),
    ?assertEqual(5070, lists:sum(Pages)),
    [First, Second | _] = lists:reverse(Pages),
    ?assertEqual({64, 6 + 2}, {First, Second}),
    ?assertEqual(2000, lists:max(Pages)),
    {stopped, [First]} =
        erl_esdb_pages:log(Store, 0, 5070, #{}, fun(E, _, A) -> {stop, [length(E) | A]} end, []),
    ?assertEqual(
        {error, enough},
        erl_esdb_pages:stream(Store, ?S, 0, 9, #{}, fun(_, _, _) -> {error, enough} end, [])
    ).
