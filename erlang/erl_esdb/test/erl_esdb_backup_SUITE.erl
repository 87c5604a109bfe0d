-module(erl_esdb_backup_SUITE).
-moduledoc "Copies of a store, made while it is written to, and restored.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-import(erl_esdb_backup, [backup/2, backup/3, verify/1, restore/2, restore/3]).
-import(erl_esdb_backup, [compare/2, compare/3]).
-import(erl_esdb_test, [versions/1, events/1]).

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
    [{dir, Dir}, {store, start()} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

start() -> erl_esdb_test:start_store(#{}).

store(Config) -> proplists:get_value(store, Config).

dir(Config) -> proplists:get_value(dir, Config).

with_store(Fun) ->
    Store = start(),
    try
        Fun(Store)
    after
        erl_esdb:stop_store(Store)
    end.

append(Store, Stream, New) ->
    {ok, _} = erl_esdb_streams:append(Store, Stream, any, New),
    ok.

%% Everything that can be asked of a store.
everything(Store) ->
    {ok, Log} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    {ok, Next} = erl_esdb_store:next_position(Store),
    {ok, Names} = erl_esdb_streams:list_streams(Store),
    Infos = [
        begin
            {ok, Info} = erl_esdb_store:info(Store, Name),
            {ok, Events} = erl_esdb_streams:read(Store, Name, 0, infinity, forward),
            {Name, maps:remove(no, Info), Events}
        end
     || Name <- Names
    ],
    {ok, Keys} = erl_esdb_store:list_documents(Store, {}, erlang:make_tuple(100, [])),
    Documents = [
        {numberless(Key), erl_esdb_store:get_document(Store, Key)}
     || {Key, _} <- Keys, not erl_esdb_incarnation:is_key(Key)
    ],
    {ok, Buried} = erl_esdb_store:tombs(Store, first, #{}),
    Tips = [{Name, erl_esdb_store:tip(Store, Name)} || {Name, _} <- Buried],
    {ok, Checkpoints} = erl_esdb_store:checkpoints(Store, #{}),
    #{
        log => Log,
        next => Next,
        streams => Infos,
        documents => lists:sort(Documents),
        buried => [{Name, maps:remove(no, Tip)} || {Name, {ok, Tip}} <- Tips],
        checkpoints => Checkpoints
    }.

%% Streams have other numbers in a copy.
numberless({Kind, Stream, _No, Rest}) -> {Kind, Stream, Rest};
numberless(Key) -> Key.

b_a_copy_is_the_same(Config) ->
    Store = store(Config),
    append(Store, ?S, events(10)),
    append(Store, <<"gone">>, events(3)),
    append(Store, <<"orders-2">>, events(5)),
    append(Store, ?S, events(1)),
    ok = erl_esdb_snapshots:save(Store, ?S, 9, #{state => {any, term}}),
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 4),
    {ok, _} = erl_esdb_store:truncate(Store, <<"orders-2">>, 99),
    ok = erl_esdb_streams:delete(Store, <<"gone">>),
    {ok, Manifest} = backup(Store, dir(Config)),
    ?assertMatch(#{position := 19, events := 7, streams := 2, documents := 1}, Manifest),
    ?assertEqual({ok, Manifest}, verify(dir(Config))),
    with_store(fun(Copy) ->
        ?assertEqual({ok, Manifest}, restore(Copy, dir(Config))),
        ?assertEqual(everything(Store), everything(Copy)),
        %% Numbering goes on.
        ?assertEqual({ok, 11}, erl_esdb_streams:append(Copy, ?S, 10, events(1))),
        ?assertEqual({ok, 5}, erl_esdb_streams:append(Copy, <<"orders-2">>, 4, events(1))),
        ?assertEqual({ok, 0}, erl_esdb_streams:append(Copy, <<"gone">>, -1, events(1)))
    end).

b_any_store_is_copied(Config) ->
    Property = ?FORALL(Log, erl_esdb_data_gen:log(erl_esdb_data_gen:new_event()), begin
        Dir = filename:join(dir(Config), integer_to_list(erlang:unique_integer([positive]))),
        with_store(fun(Store) ->
            erl_esdb_data_gen:write(Store, Log),
            {ok, _} = backup(Store, Dir),
            with_store(fun(Copy) ->
                {ok, _} = restore(Copy, Dir),
                everything(Store) =:= everything(Copy)
            end)
        end)
    end),
    erl_esdb_test:property(40, Property).

b_an_empty_store(Config) ->
    {ok, #{position := 0, events := 0}} = backup(store(Config), dir(Config)),
    with_store(fun(Copy) ->
        {ok, _} = restore(Copy, dir(Config)),
        ?assertEqual(everything(store(Config)), everything(Copy))
    end).

%% While others append, cut and delete: what is copied is a store that could have been. Appends are
%% there as a whole, streams without gaps, and of streams that nobody cuts all up to the position.
b_a_copy_while_writes_go_on(Config) ->
    Store = store(Config),
    Streams = [<<"s-", (integer_to_binary(N))/binary>> || N <- lists:seq(1, 10)],
    [append(Store, Stream, events(200)) || Stream <- Streams],
    Stop = atomics:new(1, []),
    Until = fun(Step) -> erl_esdb_test:until_stopped(Stop, Step) end,
    Append = fun() -> Until(fun() -> [append(Store, S, events(5)) || S <- Streams] end) end,
    Cut = fun() ->
        Until(fun() ->
            [
                begin
                    {ok, #{next := Next}} = erl_esdb_store:info(Store, S),
                    {ok, _} = erl_esdb_store:truncate(Store, S, Next - 10)
                end
             || S <- [<<"s-2">>, <<"s-3">>]
            ]
        end)
    end,
    Delete = fun() ->
        Until(fun() ->
            append(Store, <<"short">>, events(3)),
            ok = erl_esdb_streams:delete(Store, <<"short">>)
        end)
    end,
    Copies = [filename:join(dir(Config), integer_to_list(N)) || N <- lists:seq(1, 4)],
    Backup = fun() ->
        try
            [{backup(Store, Dir), Dir} || Dir <- Copies]
        after
            atomics:put(Stop, 1, 1)
        end
    end,
    [done, done, done, Made] = erl_esdb_test:concurrently([Append, Cut, Delete, Backup]),
    [
        with_store(fun(Copy) ->
            {{ok, #{position := Position}}, Dir} = One,
            {ok, _} = restore(Copy, Dir),
            {ok, Log} = erl_esdb_streams:read_log(Copy, 0, infinity, forward, #{}),
            [consistent(Copy, S) || S <- Streams],
            Untouched = fun(S) ->
                {ok, Events} = erl_esdb_streams:read(Store, S, 0, infinity, forward),
                [E || #event{position = P} = E <- Events, P < Position]
            end,
            [
                ?assertEqual(Untouched(S), [E || E <- Log, E#event.stream_id =:= S])
             || S <- Streams -- [<<"s-2">>, <<"s-3">>]
            ]
        end)
     || One <- Made
    ].

consistent(Store, Stream) ->
    {ok, #{first := First, next := Next}} = erl_esdb_store:info(Store, Stream),
    {ok, Events} = erl_esdb_streams:read(Store, Stream, 0, infinity, forward),
    ?assertEqual(lists:seq(First, Next - 1), versions(Events)),
    %% Appends had five events (the first 200): none is there in part.
    ?assertEqual(0, Next rem 5).

%% Archives belong to the copy as they belonged to the store, as far as the backup goes: what was
%% archived later is of a store that is not there any more, and the copy goes its own way.
b_archives_are_found_again(Config) ->
    archives_are_found_again(Config, #{}),
    archives_are_found_again(Config, #{integrity => #{enabled => true, key => <<7:256>>}}).

archives_are_found_again(Config, Options) ->
    Store = erl_esdb_test:start_store(Options),
    Dir = filename:join(dir(Config), atom_to_list(Store)),
    Backend = file_backend(Dir),
    append(Store, <<"first">>, events(1)),
    ok = erl_esdb_streams:delete(Store, <<"first">>),
    append(Store, ?S, events(100)),
    {ok, All} = erl_esdb_streams:read(Store, ?S, 0, infinity, forward),
    archive(Store, Backend, 50),
    {ok, _} = backup(Store, filename:join(Dir, "1")),
    %% The store goes on, and archives, also what the backup does not have; then it is lost.
    append(Store, ?S, events(200)),
    archive(Store, Backend, 80),
    archive(Store, Backend, 200),
    begin_anew(Store, Options),
    {ok, _} = restore(Store, filename:join(Dir, "1")),
    ?assertEqual({ok, All}, read_on(Store, Backend)),
    ?assertEqual(ok, compare(Store, filename:join(Dir, "1"))),
    go_another_way(Store, Backend, 100),
    %% The copy is a model of others.
    {ok, _} = backup(Store, filename:join(Dir, "2")),
    {ok, Again} = read_on(Store, Backend),
    append(Store, ?S, events(50)),
    archive(Store, Backend, 300),
    begin_anew(Store, Options),
    {ok, _} = restore(Store, filename:join(Dir, "2")),
    ?assertEqual({ok, Again}, read_on(Store, Backend)),
    go_another_way(Store, Backend, 300),
    %% Each knows what it has to find there.
    [ok = file:delete(Path) || Path <- filelib:wildcard(Dir ++ "/archive/*/*/0-49.*")],
    ?assertEqual({error, {archive_not_found, {0, 49}}}, read_on(Store, Backend)),
    ok = erl_esdb:stop_store(Store).

%% Other events than the lost ones, archived at the same versions and at others.
go_another_way(Store, Backend, From) ->
    append(Store, ?S, [#{event_type => <<"Other">>, data => #{n => N}} || N <- lists:seq(1, 200)]),
    {ok, Kept} = erl_esdb_streams:read(Store, ?S, From, infinity, forward),
    [archive(Store, Backend, From + Count) || Count <- [20, 100, 150]],
    {ok, Events} = read_on(Store, Backend),
    ?assertEqual(lists:seq(0, From + 199), versions(Events)),
    ?assertEqual(Kept, lists:nthtail(From, Events)),
    Check = erl_esdb_archive:check(Store, ?S, Backend),
    Count = From + 150,
    ?assertMatch({ok, #{events := Count, gaps := [], damaged := []}}, Check).

file_backend(Dir) ->
    {ok, Files} = erl_esdb_archive_file:init(#{base_dir => filename:join(Dir, "archive")}),
    {erl_esdb_archive_file, Files}.

archive(Store, Backend, Before) ->
    Options = #{before_version => Before, require_snapshot => false},
    {ok, #{archived := true}} =
        erl_esdb_scavenge:archive_and_scavenge(Store, ?S, Backend, Options).

begin_anew(Store, Options) ->
    ok = erl_esdb:stop_store(Store),
    {ok, _} = erl_esdb_test:start_store(Store, maps:merge(erl_esdb_test:options(), Options)),
    ok = erl_esdb_test:told().

read_on(Store, Backend) ->
    erl_esdb_streams:read(Store, ?S, 0, infinity, forward, #{archives => Backend}).

%% The store is archived while it is copied, beyond the position of the copy.
b_what_is_archived_later_is_not_in_a_copy(Config) ->
    Store = store(Config),
    Backend = file_backend(dir(Config)),
    append(Store, ?S, events(30)),
    archive(Store, Backend, 10),
    {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
    {ok, Notes} = erl_esdb_archive_notes:all(Store, ?S, No, #{}),
    [{Name, _}] = maps:to_list(map_get(parts, Notes)),
    ok = erl_esdb_archive_notes:note({Store, ?S, No, #{}}, Name, {10, 40}),
    {ok, _} = backup(Store, filename:join(dir(Config), "backup")),
    {_, #{archived := Archived}} = entry(filename:join(dir(Config), "backup")),
    ?assertEqual(#{Name => [{noted, 0, 30}]}, Archived),
    %% A copy that was made with more.
    [
        ?assertEqual(#{Name => [Part]}, erl_esdb_archive_notes:past(#{Name => Copied}, 30))
     || {Part, Copied} <- [
            {{noted, 0, 30}, [{noted, 0, 40}]},
            {{noted, 5, 30}, [{5, 40}]},
            {{unnoted, 0, 30}, []}
        ]
    ],
    ?assertEqual(#{}, erl_esdb_archive_notes:past(#{Name => [{noted, 30, 40}]}, 30)).

%% The first entry of the table in the file of a backup.
entry(Dir) ->
    {ok, File} = file:read_file(filename:join(Dir, "events.esdb")),
    {ok, Frames} = erl_esdb_frames:decode(File, backup),
    [Table | _] = [binary_to_term(Body) || {streams, Body} <- Frames],
    hd(Table).

%% Of the archives that they know by name alone any version may be there that is in the copy.
b_old_backups_have_names_of_archives(Config) ->
    Store = store(Config),
    Backend = file_backend(dir(Config)),
    append(Store, ?S, events(100)),
    {ok, All} = erl_esdb_streams:read(Store, ?S, 0, infinity, forward),
    archive(Store, Backend, 50),
    Dir = filename:join(dir(Config), "backup"),
    {ok, _} = backup(Store, Dir),
    append(Store, ?S, events(100)),
    archive(Store, Backend, 200),
    change_entries(Dir, fun(Entry) -> maps:remove(archived, Entry) end),
    begin_anew(Store, #{}),
    {ok, _} = restore(Store, Dir),
    ?assertEqual({ok, All}, read_on(Store, Backend)),
    ?assertEqual(ok, compare(Store, Dir)),
    {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
    {ok, #{own := [], parts := Parts}} = erl_esdb_archive_notes:all(Store, ?S, No, #{}),
    ?assertMatch([[{unnoted, 0, 100}]], maps:values(Parts)),
    go_another_way(Store, Backend, 100),
    %% So also in a copy of the copy.
    Second = filename:join(dir(Config), "second"),
    {ok, _} = backup(Store, Second),
    begin_anew(Store, #{}),
    {ok, _} = restore(Store, Second),
    go_another_way(Store, Backend, 300),
    %% It was not noted: what is lost is left out.
    [ok = file:delete(P) || P <- filelib:wildcard(dir(Config) ++ "/archive/*/*/0-49.*")],
    {ok, [#event{version = First} | _]} = read_on(Store, Backend),
    ?assertEqual(50, First).

%% Writes the entries of the table anew, as one that had them so.
change_entries(Dir, Change) ->
    Path = filename:join(Dir, "events.esdb"),
    {ok, File} = file:read_file(Path),
    {ok, Frames} = erl_esdb_frames:decode(File, backup),
    Body = fun
        (streams, Table) ->
            term_to_binary([{Name, Change(Entry)} || {Name, Entry} <- binary_to_term(Table)]);
        (_, Other) ->
            Other
    end,
    {Head, Sum} = erl_esdb_frames:head(backup),
    Frame = fun({Tag, Old}, Acc) -> erl_esdb_frames:frame(Tag, Body(Tag, Old), Acc) end,
    {Written, _} = lists:mapfoldl(Frame, Sum, Frames),
    New = iolist_to_binary([Head | Written]),
    ok = file:write_file(Path, New),
    Hash = binary:encode_hex(crypto:hash(sha256, New), lowercase),
    Json = filename:join(Dir, "manifest.json"),
    {ok, Text} = file:read_file(Json),
    #{<<"files">> := #{<<"events.esdb">> := Of} = Files} = Manifest = json:decode(Text),
    Of1 = Of#{<<"sha256">> := Hash, <<"bytes">> := byte_size(New)},
    Files1 = Files#{<<"events.esdb">> := Of1},
    ok = file:write_file(Json, json:encode(Manifest#{<<"files">> := Files1})).

%% A store that comes back empty while it is copied is no end of the copy.
b_a_store_that_is_replaced_is_not_copied(Config) ->
    Store = store(Config),
    Fill = fun() -> [append(Store, ?S, events(1_000)) || _ <- lists:seq(1, 100)] end,
    Fill(),
    {ok, #{files := #{<<"events.esdb">> := #{bytes := Whole}}}} =
        backup(Store, filename:join(dir(Config), "whole")),
    Empty = fun() -> [] end,
    [
        ?assertEqual({error, {store_replaced, Store}}, replaced(Config, Whole, Fill, Then, 1))
     || Then <- [Empty, Fill]
    ].

%% It is held up between its begin and its end. Where it was further by then, or within a call,
%% another try.
replaced(Config, Whole, Fill, Then, Try) ->
    Store = store(Config),
    Dir = filename:join(dir(Config), integer_to_list(erlang:unique_integer([positive]))),
    Copied = fun() -> filelib:file_size(filename:join(Dir, "events.esdb")) end,
    begin_anew(Store, #{}),
    Fill(),
    {Pid, Ref} = spawn_monitor(fun() -> exit({result, backup(Store, Dir)}) end),
    erl_esdb_test:await(fun() -> Copied() > 5_000 end),
    IsCaught = erl_esdb_test:suspended(Pid) andalso Copied() < Whole div 2,
    begin_anew(Store, #{}),
    Then(),
    _ = is_process_alive(Pid) andalso erlang:resume_process(Pid),
    Result =
        receive
            {'DOWN', Ref, process, Pid, {result, Answer}} -> Answer
        end,
    case Result of
        _ when not IsCaught, Try < 20 ->
            replaced(Config, Whole, Fill, Then, Try + 1);
        {error, {store_not_started, Store}} when Try < 20 ->
            replaced(Config, Whole, Fill, Then, Try + 1);
        _ ->
            ?assertNot(filelib:is_file(filename:join(Dir, "manifest.json"))),
            Result
    end.

%% Signed events are verified in the copy, also behind what was removed, and where streams have
%% other numbers than they had.
b_a_signed_store(Config) ->
    Store = signing(),
    append(Store, <<"earlier">>, events(1)),
    append(Store, ?S, events(3)),
    append(Store, <<"orders-2">>, events(4)),
    ok = erl_esdb_streams:delete(Store, <<"earlier">>),
    ok = erl_esdb_streams:delete(Store, ?S),
    append(Store, ?S, events(15)),
    append(Store, <<"orders-3">>, events(6)),
    ok = erl_esdb_snapshots:save(Store, ?S, 1, one),
    ok = erl_esdb_snapshots:save(Store, ?S, 9, nine),
    Scavenge = fun(Stream, Before) ->
        Options = #{before_version => Before, require_snapshot => false},
        {ok, _} = erl_esdb_scavenge:scavenge(Store, Stream, Options)
    end,
    Scavenge(?S, 4),
    Scavenge(<<"orders-2">>, 9),
    ok = erl_esdb_streams:delete(Store, <<"orders-3">>, #{mode => tombstone}),
    append(Store, <<"orders-3">>, events(3)),
    ok = erl_esdb_streams:set_metadata(Store, ?S, #{max_count => 8}, #{}),
    {ok, _} = backup(Store, dir(Config)),
    Copy = signing(),
    {ok, _} = restore(Copy, dir(Config)),
    ?assertEqual(everything(Store), everything(Copy)),
    [?assertMatch({ok, _}, erl_esdb_snapshots:load_at(Copy, ?S, V)) || V <- [1, 9]],
    [
        begin
            Verified = erl_esdb_integrity:verify_stream(Store, Stream),
            ?assertMatch({ok, _}, Verified),
            ?assertEqual(Verified, erl_esdb_integrity:verify_stream(Copy, Stream)),
            append(Copy, Stream, events(2)),
            ?assertMatch({ok, _}, erl_esdb_integrity:verify_stream(Copy, Stream))
        end
     || Stream <- [?S, <<"orders-2">>, <<"orders-3">>]
    ],
    [ok = erl_esdb:stop_store(S) || S <- [Store, Copy]].

signing() ->
    erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}).

%% A store with another key finds that the events are not signed with its own.
b_a_signed_store_and_another_key(Config) ->
    Store = signing(),
    append(Store, ?S, events(3)),
    {ok, _} = backup(Store, dir(Config)),
    Copy = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<8:256>>}}),
    ?assertMatch(
        {error, {integrity_violation, #{kind := mac_mismatch}}}, restore(Copy, dir(Config))
    ),
    [ok = erl_esdb:stop_store(S) || S <- [Store, Copy]].

%% Any history of a store that signs is verified in its copy, and goes on there.
b_any_signed_store_is_copied(Config) ->
    Event = erl_esdb_data_gen:new_event(),
    Property = ?FORALL(Log, erl_esdb_data_gen:signed_log(Event), begin
        Dir = filename:join(dir(Config), integer_to_list(erlang:unique_integer([positive]))),
        {Store, Copy} = {signing(), signing()},
        try
            erl_esdb_data_gen:write(Store, Log),
            {ok, _} = backup(Store, Dir),
            {ok, _} = restore(Copy, Dir),
            Same = everything(Store) =:= everything(Copy),
            [append(Copy, Stream, events(2)) || {append, Stream, _} <- Log],
            {ok, _} = erl_esdb_integrity:verify_store(Copy),
            Same
        after
            [ok = erl_esdb:stop_store(S) || S <- [Store, Copy]]
        end
    end),
    erl_esdb_test:property(40, Property).

%% What signs, while events come and go: each copy is verified, and goes on.
b_a_copy_of_a_signed_store_while_it_is_cut(Config) ->
    Store = signing(),
    Streams = [<<"s-", (integer_to_binary(N))/binary>> || N <- lists:seq(1, 6)],
    [append(Store, Stream, events(20)) || Stream <- Streams],
    Stop = atomics:new(1, []),
    Until = fun(Step) -> erl_esdb_test:until_stopped(Stop, Step) end,
    Cut = fun() ->
        [
            begin
                append(Store, S, events(3)),
                {ok, #{next := Next}} = erl_esdb_store:info(Store, S),
                {ok, _} = erl_esdb_store:truncate(Store, S, max(0, Next - Left))
            end
         || {S, Left} <- lists:zip(Streams, [0, 1, 5, 10, 30, 100])
        ]
    end,
    Again = fun() ->
        append(Store, <<"again">>, events(5)),
        {ok, _} = erl_esdb_store:truncate(Store, <<"again">>, 2),
        ok = erl_esdb_streams:delete(Store, <<"again">>),
        append(Store, <<"buried">>, events(2)),
        ok = erl_esdb_streams:delete(Store, <<"buried">>, #{mode => tombstone})
    end,
    Dirs = [filename:join(dir(Config), integer_to_list(N)) || N <- lists:seq(1, 10)],
    Backup = fun() ->
        try
            [{backup(Store, Dir), Dir} || Dir <- Dirs]
        after
            atomics:put(Stop, 1, 1)
        end
    end,
    Works = [fun() -> Until(Cut) end, fun() -> Until(Again) end, Backup],
    [done, done, Made] = erl_esdb_test:concurrently(Works),
    [
        begin
            {{ok, _}, Dir} = One,
            Copy = signing(),
            {ok, _} = restore(Copy, Dir),
            [append(Copy, S, events(2)) || S <- [<<"again">>, <<"buried">> | Streams]],
            ?assertMatch({ok, _}, erl_esdb_integrity:verify_store(Copy)),
            erl_esdb:stop_store(Copy)
        end
     || One <- Made
    ],
    erl_esdb:stop_store(Store).

%% An engine that is held up anywhere, also where a stream has events and the log does not yet: no
%% stream goes further in the copy than the log does.
b_a_copy_while_the_engine_is_held_up(Config) ->
    Store = store(Config),
    Engine = erl_esdb_test:orderer(Store),
    Stop = atomics:new(1, []),
    Until = fun(Step) -> erl_esdb_test:until_stopped(Stop, Step) end,
    Append = fun() ->
        append(Store, ?S, events(3)),
        {ok, #{next := Next}} = erl_esdb_store:info(Store, ?S),
        {ok, _} = erl_esdb_store:truncate(Store, ?S, max(0, Next - 30))
    end,
    HoldUp = fun() ->
        true = erlang:suspend_process(Engine),
        [erlang:yield() || _ <- lists:seq(1, 300)],
        true = erlang:resume_process(Engine),
        erlang:yield()
    end,
    Dirs = [filename:join(dir(Config), integer_to_list(N)) || N <- lists:seq(1, 20)],
    Backup = fun() ->
        try
            [{ok, _} = backup(Store, Dir) || Dir <- Dirs]
        after
            atomics:put(Stop, 1, 1)
        end
    end,
    _ = erl_esdb_test:concurrently([fun() -> Until(F) end || F <- [Append, HoldUp]] ++ [Backup]),
    [with_store(fun(Copy) -> {ok, _} = restore(Copy, Dir) end) || Dir <- Dirs],
    %% What it has begun is waited for.
    ok = sys:suspend(Engine),
    ?assertEqual(
        {error, {timeout, Store}},
        backup(Store, filename:join(dir(Config), "suspended"), #{timeout => 20})
    ),
    ok = sys:resume(Engine).

%% Versions that were given once are not given again in the copy.
b_tombstones_are_kept(Config) ->
    Store = store(Config),
    append(Store, ?S, events(4)),
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}),
    append(Store, <<"orders-2">>, events(3)),
    ok = erl_esdb_streams:delete(Store, <<"orders-2">>, #{mode => tombstone}),
    append(Store, <<"orders-2">>, events(5)),
    {ok, _} = erl_esdb_store:truncate(Store, <<"orders-2">>, 5),
    {ok, #{streams := 1, events := 3}} = backup(Store, dir(Config)),
    with_store(fun(Copy) ->
        {ok, _} = restore(Copy, dir(Config)),
        ?assertEqual(everything(Store), everything(Copy)),
        ?assertEqual({ok, 4}, erl_esdb_streams:append(Copy, ?S, -1, events(1))),
        ?assertEqual({ok, 8}, erl_esdb_streams:append(Copy, <<"orders-2">>, 7, events(1))),
        ?assertEqual(ok, erl_esdb_streams:delete(Copy, ?S)),
        ?assertMatch({error, {differs, _}}, compare(Copy, dir(Config)))
    end).

%% Who was told, and what was linked, goes on behind what was told and linked before.
b_subscriptions_links_and_projections_go_on(Config) ->
    Store = store(Config),
    append(Store, ?S, events(5)),
    Source = #{type => stream, stream_id => ?S},
    ok = erl_esdb_links:create(Store, #{name => <<"all">>, source => Source, backfill => true}),
    ok = erl_esdb_links:start(Store, <<"all">>),
    erl_esdb_test:await(fun() -> is_linked(Store, 5) end),
    Subscribe = #{ack => manual, subscriber => self()},
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ?S, <<"name">>, Subscribe),
    ?assertEqual([0, 1, 2, 3, 4], received(5)),
    ok = erl_esdb_subscriptions:ack(Store, <<"name">>, ?S, 2),
    %% It is saved a moment later.
    NextKey = erl_esdb_subscriptions_store:next_key(Key),
    erl_esdb_test:await(fun() -> erl_esdb_store:checkpoint(Store, NextKey) =:= {ok, 3} end),
    ?assertEqual(#{?S => 5}, projected(Store, 5)),
    {ok, _} = backup(Store, dir(Config)),
    ?assertEqual(ok, compare(Store, dir(Config))),
    with_store(fun(Copy) ->
        {ok, _} = restore(Copy, dir(Config)),
        append(Copy, ?S, events(2)),
        %% Behind what was acknowledged, to who asks for them.
        Attached = self(),
        Other = spawn_link(fun() -> Attached ! {attached, received(4)} end),
        ok = erl_esdb_subscriptions:attach(Copy, Key, Other),
        receive
            {attached, Versions} -> ?assertEqual([3, 4, 5, 6], Versions)
        end,
        ?assertEqual(#{?S => 7}, projected(Copy, 7)),
        erl_esdb_test:await(fun() -> is_linked(Copy, 7) end),
        {ok, Linked} = erl_esdb_streams:read(Copy, <<"$link:all">>, 0, 99, forward),
        ?assertEqual(7, length(Linked))
    end).

%% Wherever a link is when it is copied: in the copy each source has one output, in its order.
b_a_link_is_copied_while_it_runs(Config) ->
    Store = store(Config),
    Source = #{type => stream, stream_id => ?S},
    ok = erl_esdb_links:create(Store, #{name => <<"all">>, source => Source, backfill => true}),
    ok = erl_esdb_links:start(Store, <<"all">>),
    Append = fun() ->
        [append(Store, ?S, erl_esdb_test:events(N, N + 9)) || N <- lists:seq(0, 9_990, 10)]
    end,
    Dirs = [filename:join(dir(Config), integer_to_list(N)) || N <- lists:seq(1, 5)],
    Backup = fun() -> [{ok, _} = backup(Store, Dir) || Dir <- Dirs] end,
    _ = erl_esdb_test:concurrently([Append, Backup]),
    Numbers = fun({ok, Events}) -> [N || #event{data = #{n := N}} <- Events] end,
    [
        with_store(fun(Copy) ->
            {ok, _} = restore(Copy, Dir),
            append(Copy, ?S, erl_esdb_test:events(-1, -1)),
            Read = fun(Stream) ->
                erl_esdb_streams:read(Copy, Stream, 0, infinity, forward)
            end,
            Sources = Numbers(Read(?S)),
            erl_esdb_test:await(fun() -> is_linked(Copy, length(Sources)) end),
            ?assertEqual(Sources, Numbers(Read(<<"$link:all">>)))
        end)
     || Dir <- Dirs
    ].

received(0) ->
    [];
received(Left) ->
    receive
        {events, Events} -> versions(Events) ++ received(Left - length(Events))
    end.

%% How many events of the stream a projection has counted, in all its lives.
projected(Store, Count) ->
    Options = #{type => stream, selector => ?S},
    Name = <<"counts">>,
    {ok, Pid} = erl_esdb_projection:start_link(Store, Name, erl_esdb_projection_SUITE, Options),
    {ok, Events} = erl_esdb_streams:read(Store, ?S, Count - 1, 1, forward),
    [#event{position = Position}] = Events,
    ok = erl_esdb_projection:await(Store, Name, Position, 60_000),
    {ok, State} = erl_esdb_projection:state(Store, Name),
    ok = erl_esdb_projection:stop(Store, Name),
    ?assertNot(is_process_alive(Pid)),
    State.

is_linked(Store, Count) ->
    case erl_esdb_streams:read(Store, <<"$link:all">>, 0, infinity, forward) of
        {ok, Events} -> length(Events) >= Count;
        {error, _} -> false
    end.

b_times_are_those_of_a_call(Config) ->
    Store = store(Config),
    append(Store, ?S, events(3)),
    {ok, _} = backup(Store, dir(Config), #{timeout => 1_000}),
    ?assertEqual(ok, compare(Store, dir(Config), #{timeout => 1_000})),
    with_store(fun(Copy) ->
        ok = sys:suspend(erl_esdb_test:orderer(Copy)),
        ?assertEqual(
            {error, {timeout, Copy}}, restore(Copy, dir(Config), #{timeout => 20})
        ),
        ok = sys:resume(erl_esdb_test:orderer(Copy))
    end),
    ?assertError(badarg, restore(Store, dir(Config), #{timeout => soon})),
    ?assertError(badarg, compare(Store, dir(Config), #{timeout => soon})),
    ?assertError(badarg, backup(Store, filename:join(dir(Config), "x"), #{timeout => soon})).

b_only_into_an_empty_store(Config) ->
    append(store(Config), ?S, events(3)),
    {ok, _} = backup(store(Config), dir(Config)),
    Refused = {error, {store_not_empty, store(Config)}},
    ?assertEqual(Refused, restore(store(Config), dir(Config))),
    with_store(fun(Copy) ->
        ok = erl_esdb_snapshots:save(Copy, ?S, 1, data),
        ?assertEqual({error, {store_not_empty, Copy}}, restore(Copy, dir(Config)))
    end),
    ?assertEqual(
        {error, {store_not_started, no_such_store}}, restore(no_such_store, dir(Config))
    ).

b_differences_are_found(Config) ->
    Store = store(Config),
    append(Store, ?S, events(10)),
    append(Store, <<"orders-2">>, events(10)),
    ok = erl_esdb_snapshots:save(Store, ?S, 3, data),
    {ok, _} = backup(Store, dir(Config)),
    ?assertEqual(ok, compare(Store, dir(Config))),
    Differs = fun(Change) ->
        with_store(fun(Copy) ->
            {ok, _} = restore(Copy, dir(Config)),
            Change(Copy),
            {error, {differs, What}} = compare(Copy, dir(Config)),
            What
        end)
    end,
    ?assertEqual(position, Differs(fun(S) -> append(S, ?S, events(1)) end)),
    ?assertEqual(
        {events, 0}, Differs(fun(S) -> {ok, _} = erl_esdb_store:truncate(S, ?S, 1) end)
    ),
    ?assertEqual({events, 0}, Differs(fun(S) -> erl_esdb_streams:delete(S, ?S) end)),
    ?assertEqual(
        {document, {snapshot, ?S, 3}},
        Differs(fun(S) -> ok = erl_esdb_snapshots:save(S, ?S, 3, other) end)
    ),
    ?assertEqual(
        documents, Differs(fun(S) -> ok = erl_esdb_snapshots:save(S, ?S, 4, data) end)
    ),
    ?assertEqual(documents, Differs(fun(S) -> ok = erl_esdb_snapshots:delete(S, ?S) end)).

b_damaged_backups_are_refused(Config) ->
    append(store(Config), ?S, events(10)),
    ok = erl_esdb_snapshots:save(store(Config), ?S, 3, data),
    {ok, _} = backup(store(Config), dir(Config)),
    ?assertMatch({error, {not_empty, _}}, backup(store(Config), dir(Config))),
    Refused = fun(Name, Content) ->
        Path = filename:join(dir(Config), Name),
        {ok, Good} = file:read_file(Path),
        ok = Content(Path, Good),
        Verified = verify(dir(Config)),
        with_store(fun(Copy) ->
            ?assertEqual(Verified, restore(Copy, dir(Config))),
            ?assertEqual({ok, 0}, erl_esdb_store:next_position(Copy))
        end),
        ok = file:write_file(Path, Good),
        element(1, element(2, Verified))
    end,
    Flip = fun(Path, <<A:20/binary, B, C/binary>>) ->
        file:write_file(Path, <<A/binary, (B bxor 1), C/binary>>)
    end,
    Cut = fun(Path, Good) -> file:write_file(Path, binary_part(Good, 0, byte_size(Good) - 1)) end,
    Delete = fun(Path, _) -> file:delete(Path) end,
    [
        ?assertEqual(checksum_mismatch, Refused(Name, How))
     || Name <- ["events.esdb", "documents.esdb"], How <- [Flip, Cut, Delete]
    ],
    ?assertEqual(not_a_backup, Refused("manifest.json", Delete)),
    ?assertEqual(not_a_backup, Refused("manifest.json", fun(P, _) -> file:write_file(P, "{") end)),
    ?assertEqual(not_a_backup, Refused("manifest.json", fun(P, _) -> file:write_file(P, "{}") end)),
    Half = fun(P, Good) ->
        file:write_file(P, json:encode(maps:remove(<<"position">>, json:decode(Good))))
    end,
    ?assertEqual(not_a_backup, Refused("manifest.json", Half)),
    Later = fun(P, _) -> file:write_file(P, "{\"format\": 99}") end,
    ?assertEqual(unsupported_version, Refused("manifest.json", Later)),
    ?assertMatch({error, {not_a_backup, _}}, verify(filename:join(dir(Config), "none"))),
    ok = compare(store(Config), dir(Config)).

b_bad_calls(Config) ->
    ?assertEqual(
        {error, {store_not_started, no_such_store}}, backup(no_such_store, dir(Config))
    ),
    ok = filelib:ensure_path(dir(Config)),
    File = filename:join(dir(Config), "file"),
    ok = file:write_file(File, <<"x">>),
    ?assertEqual({error, {failed_to_create_dir, enotdir}}, backup(store(Config), File)),
    ?assertError(badarg, backup("store", dir(Config))),
    ?assertError(badarg, restore("store", dir(Config))),
    ?assertError(badarg, compare("store", dir(Config))).

%% Free positions go to the streams that have to be ready first; there is always a way, as the
%% original order was one.
b_filling_in_time(_Config) ->
    Stream = range(1, 5),
    Order = list({Stream, range(1, 3)}),
    Property = ?FORALL({Appends, Cuts}, {Order, list({Stream, range(0, 9)})}, begin
        Positions = [S || {S, Count} <- Appends, _ <- lists:seq(1, Count)],
        Removed = maps:from_list(Cuts),
        Step = fun(S, {Acc, Seen}) -> kept(S, Removed, Acc, Seen) end,
        {Kept, _} = lists:foldl(Step, {[], #{}}, Positions),
        filled(lists:enumerate(0, lists:reverse(Kept)), Removed)
    end),
    erl_esdb_test:property(300, Property).

kept(Stream, Removed, Acc, Seen) ->
    Version = maps:get(Stream, Seen, 0),
    Seen1 = Seen#{Stream => Version + 1},
    case Version < maps:get(Stream, Removed, 0) of
        true -> {[free | Acc], Seen1};
        false -> {[{Stream, Version} | Acc], Seen1}
    end.

filled(Positions, Removed) ->
    Firsts = lists:reverse([{S, {P, V}} || {P, {S, V}} <- Positions]),
    First = maps:map(fun(_, {P, V}) -> {P, V} end, maps:from_list(Firsts)),
    Plan = erl_esdb_restore:plan(
        [{integer_to_binary(S), Left, P, 0} || S := {P, Left} <- First, is_map_key(S, Removed)],
        <<"other">>
    ),
    {Counts, _} = lists:foldl(fun place/2, {#{}, Plan}, Positions),
    is_map(Counts).

%% Each event comes to its version: so many events of its stream were there before.
place({_, free}, {Counts, Plan}) ->
    {[{Name, From, 1, 0}], Plan1} = erl_esdb_restore:fill(1, Plan),
    From = maps:get(Name, Counts, 0),
    {Counts#{Name => From + 1}, Plan1};
place({_, {Stream, Version}}, {Counts, Plan}) ->
    Name = integer_to_binary(Stream),
    Version = maps:get(Name, Counts, 0),
    {Counts#{Name => Version + 1}, Plan}.
