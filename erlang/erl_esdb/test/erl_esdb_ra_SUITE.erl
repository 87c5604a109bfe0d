-module(erl_esdb_ra_SUITE).
-moduledoc "What holds for stores on disk only, on one node.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include_lib("kernel/include/file.hrl").
-include("../include/erl_esdb.hrl").

-define(S, <<"s">>).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    case lists:member(ra, erl_esdb_test:engines()) of
        true -> [{group, ra}];
        false -> []
    end.

groups() ->
    Cases = [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("a_", atom_to_list(F))],
    [{ra, [], Cases}].

init_per_group(Group, Config) -> erl_esdb_test:init_per_group(Group, Config).

end_per_group(Group, Config) -> erl_esdb_test:end_per_group(Group, Config).

init_per_testcase(Case, Config) ->
    [{store, Case}, {options, erl_esdb_test:options()} | Config].

end_per_testcase(Case, _Config) ->
    _ = erl_esdb:stop_store(Case),
    ok.

store(Config) -> proplists:get_value(store, Config).

options(Config) -> proplists:get_value(options, Config).

dir(Config) -> maps:get(data_dir, options(Config)).

start(Config) ->
    {ok, _} = erl_esdb:start_store(store(Config), options(Config)),
    store(Config).

restart(Config) ->
    ok = erl_esdb:stop_store(store(Config)),
    start(Config).

append(Store, Stream, Events) -> erl_esdb_streams:append(Store, Stream, any, Events).

events(Count) -> erl_esdb_test:events(Count).

all_events(Store) ->
    {ok, Events} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    Events.

%% ---- what stays

%% Of every kind of data something that is there, something that was changed, and something removed.
a_lif_08_all_kinds_survive(Config) ->
    Store = start(Config),
    {ok, 9} = append(Store, ?S, events(10)),
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 3),
    [{ok, _} = append(Store, Name, events(2)) || Name <- [<<"gone">>, <<"buried">>, <<"seen">>]],
    ok = erl_esdb_streams:delete(Store, <<"gone">>),
    ok = erl_esdb_streams:delete(Store, <<"buried">>, #{mode => tombstone}),
    ok = erl_esdb_streams:set_metadata(Store, <<"seen">>, #{max_count => 1}, #{}),
    Two = [{<<"x">>, -1, events(1)}, {<<"y">>, -1, events(1)}],
    {ok, _} = erl_esdb_streams:append_many(Store, Two, #{}),
    ok = erl_esdb_snapshots:save(Store, ?S, 9, #{sum => 45}),
    ok = erl_esdb_schema:register(Store, <<"T">>, #{version => 1}),
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ?S, <<"sub">>),
    ok = erl_esdb_store:save_checkpoints(Store, #{{my, place} => 7}),
    ok = linked(Store, <<"stays">>),
    ok = linked(Store, <<"unlinked">>),
    ok = erl_esdb_links:delete(Store, <<"unlinked">>),
    Before = everything(Store, Key),
    _ = restart(Config),
    ?assertEqual(Before, everything(Store, Key)),
    ?assertEqual({ok, 10}, append(Store, ?S, events(1))),
    ?assertEqual({ok, 0}, append(Store, <<"gone">>, events(1))),
    ?assertEqual({ok, 2}, append(Store, <<"buried">>, events(1))),
    %% The link goes on where it was: with what was appended since, and nothing twice.
    erl_esdb_test:await(fun() -> length(linked_versions(Store)) >= 8 end),
    ?assertEqual(lists:seq(3, 10), linked_versions(Store)).

%% A link of the stream that has written all there is.
linked(Store, Name) ->
    Source = #{type => stream, stream_id => ?S},
    ok = erl_esdb_links:create(Store, #{name => Name, source => Source, backfill => true}),
    ok = erl_esdb_links:start(Store, Name),
    erl_esdb_test:await(fun() -> length(outputs(Store, Name)) =:= 7 end).

outputs(Store, Name) ->
    case erl_esdb_streams:read(Store, <<"$link:", Name/binary>>, 0, 100, forward) of
        {ok, Outputs} -> Outputs;
        {error, {stream_not_found, _}} -> []
    end.

linked_versions(Store) ->
    [V || #event{metadata = #{source_version := V}} <- outputs(Store, <<"stays">>)].

everything(Store, Key) ->
    #{
        log => all_events(Store),
        hidden => erl_esdb_streams:read_log(Store, 0, infinity, forward, #{hidden => true}),
        streams => erl_esdb_streams:list_streams(Store),
        versions => [erl_esdb_streams:get_version(Store, S) || S <- [?S, <<"gone">>, <<"seen">>]],
        metadata => erl_esdb_streams:get_metadata(Store, <<"seen">>),
        snapshot => erl_esdb_snapshots:load(Store, ?S),
        schema => erl_esdb_schema:get(Store, <<"T">>),
        subscription => element(1, erl_esdb_subscriptions:get(Store, Key)),
        checkpoints => erl_esdb_store:checkpoint(Store, {my, place}),
        links => erl_esdb_links:list(Store),
        next => erl_esdb_store:next_position(Store),
        documents => erl_esdb_store:list_documents(Store, {integrity}, {zzz, 1, 2, 3, 4})
    }.

a_snp_18_survives_a_restart(Config) ->
    Store = start(Config),
    {ok, 9} = append(Store, ?S, events(10)),
    [ok = erl_esdb_snapshots:save(Store, ?S, V, #{sum => V}) || V <- [3, 6, 9]],
    ok = erl_esdb_snapshots:delete_at(Store, ?S, 6),
    Before = erl_esdb_snapshots:list(Store, ?S),
    _ = restart(Config),
    {ok, Snapshots} = erl_esdb_snapshots:list(Store, ?S),
    ?assertEqual(Before, {ok, Snapshots}),
    ?assertEqual([3, 9], lists:sort([V || #snapshot{version = V} <- Snapshots])),
    ?assertMatch({ok, #snapshot{data = #{sum := 9}}}, erl_esdb_snapshots:load(Store, ?S)).

a_sub_38_goes_on_after_the_checkpoint(Config) ->
    Store = start(Config),
    Options = #{ack => manual, subscriber => self()},
    {ok, Key} = erl_esdb_subscriptions:subscribe(Store, stream, ?S, <<"n">>, Options),
    {ok, 5} = append(Store, ?S, events(6)),
    ?assertEqual(lists:seq(0, 5), received(6)),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, ?S, 3),
    _ = restart(Config),
    {ok, 6} = append(Store, ?S, events(1)),
    ok = erl_esdb_subscriptions:attach(Store, Key, self()),
    ?assertEqual([4, 5, 6], received(3)).

received(0) ->
    [];
received(Count) ->
    receive
        {events, Events} -> erl_esdb_test:versions(Events) ++ received(Count - length(Events))
    end.

a_sub_50_survives_a_restart(Config) ->
    Store = start(Config),
    Subscribe = fun(Name) -> erl_esdb_subscriptions:subscribe(Store, stream, ?S, Name) end,
    [{ok, _}, {ok, Gone}, {ok, _}] = [Subscribe(Name) || Name <- [<<"a">>, <<"b">>, <<"c">>]],
    ok = erl_esdb_subscriptions:unsubscribe(Store, Gone),
    {ok, [_, _] = Before} = erl_esdb_subscriptions:list(Store),
    _ = restart(Config),
    {ok, After} = erl_esdb_subscriptions:list(Store),
    %% Who gets the events now is none of what is kept.
    Kept = fun(Found) -> lists:sort([S#subscription{subscriber_pid = none} || S <- Found]) end,
    ?assertEqual(Kept(Before), Kept(After)),
    ?assertEqual(
        {error, {already_exists, <<"a">>}}, Subscribe(<<"a">>)
    ).

a_positions_go_on(Config) ->
    Store = start(Config),
    {ok, 4} = append(Store, ?S, events(5)),
    ok = erl_esdb_streams:delete(Store, ?S),
    _ = restart(Config),
    {ok, 0} = append(Store, ?S, events(1)),
    ?assertMatch([#event{version = 0, position = 5}], all_events(Store)).

a_two_stores_of_one_folder(Config) ->
    Store = start(Config),
    {ok, _} = erl_esdb:start_store(another, options(Config)),
    {ok, 0} = append(Store, ?S, events(1)),
    {ok, 1} = append(another, ?S, events(2)),
    _ = restart(Config),
    ok = erl_esdb:stop_store(another),
    {ok, _} = erl_esdb:start_store(another, options(Config)),
    ?assertEqual([1, 2], [length(all_events(S)) || S <- [Store, another]]),
    ok = erl_esdb:drop(another),
    {ok, _} = erl_esdb:start_store(another, options(Config)),
    ?assertEqual([], all_events(another)),
    ?assertMatch([_], all_events(Store)),
    ok = erl_esdb:drop(another).

a_drop_leaves_no_event(Config) ->
    Store = start(Config),
    {ok, 9} = append(Store, ?S, events(10)),
    ok = erl_esdb:drop(Store),
    ?assertEqual([], filelib:wildcard("*/config", dir(Config))),
    ?assertEqual([], all_events(start(Config))).

%% ---- indexes

%% What the index has merged a start reads from its files, and only the rest from the log.
a_start_reads_the_index_from_its_files(Config) ->
    Store = start(Config),
    Batch = [
        Event#{tags => [<<"all">>, <<"t", (integer_to_binary(N rem 7))/binary>>]}
     || {N, Event} <- lists:enumerate(events(1000))
    ],
    [{ok, _} = append(Store, ?S, Batch) || _ <- lists:seq(1, 30)],
    ?assertEqual(30_000, found(Store, <<"all">>)),
    ok = erl_esdb_index:compact(Store, infinity),
    {ok, _} = append(Store, ?S, Batch),
    ?assertMatch([_], index_files(Config)),
    ?assertEqual([30_000], pages_of_a_start(Config)),
    ?assertEqual(31_000, found(Store, <<"all">>)),
    ?assertEqual(31 * 143, found(Store, <<"t3">>)),
    %% One of a log that was longer, and one that is damaged, are of no use.
    [File] = index_files(Config),
    ok = file:rename(File, File ++ ".bak"),
    {ok, Label, Runs} = erl_esdb_runs:from_binary(element(2, file:read_file(File ++ ".bak"))),
    Longer = erl_esdb_runs:add(erl_esdb_runs:entry(1, 50_000), 50_001, Runs),
    ok = file:write_file(File, erl_esdb_runs:to_iodata(Label, Longer)),
    ?assertMatch([0 | _], pages_of_a_start(Config)),
    ?assertEqual(31_000, found(Store, <<"all">>)),
    ok = file:rename(File ++ ".bak", File),
    [ok = erl_esdb_disk:flip(Each, 1000) || Each <- index_files(Config)],
    ?assertMatch([0 | _], pages_of_a_start(Config)),
    ?assertEqual(31_000, found(Store, <<"all">>)),
    %% They go with the store.
    ok = erl_esdb:drop(Store),
    ?assertEqual([], index_files(Config)).

%% What could not be read when the index came by is no hole for ever: the next start looks again.
a_start_finds_what_the_index_has_left_out(Config) ->
    Store = start(Config),
    Batch = [Event#{tags => [<<"all">>]} || Event <- events(1000)],
    [{ok, _} = append(Store, ?S, Batch) || _ <- lists:seq(1, 30)],
    ok = snapshotted(Store, 1),
    %% From the log into segments.
    _ = restart(Config),
    ok = erl_esdb:stop_store(Store),
    lists:foreach(fun file:delete/1, index_files(Config)),
    [Segment | _] = lists:sort(filelib:wildcard(dir(Config) ++ "/*/*.segment")),
    {ok, Bytes} = file:read_file(Segment),
    {At, 3} = binary:match(Bytes, <<"all">>),
    ok = erl_esdb_disk:flip(Segment, At),
    _ = start(Config),
    ?assertEqual(29_000, found(Store, <<"all">>)),
    ok = erl_esdb_index:compact(Store, infinity),
    ?assertEqual([], index_files(Config)),
    ok = erl_esdb:stop_store(Store),
    ok = erl_esdb_disk:flip(Segment, At),
    _ = start(Config),
    ?assertEqual(30_000, found(Store, <<"all">>)),
    ok = erl_esdb_index:compact(Store, infinity),
    ?assertMatch([_], index_files(Config)).

found(Store, Tag) ->
    {ok, Positions} = erl_esdb_index:positions(Store, tag, Tag, #{}),
    length(Positions).

index_files(Config) -> filelib:wildcard(dir(Config) ++ "/*/index/*.runs").

%% From which positions on the log is read for the index after a start.
pages_of_a_start(Config) ->
    ok = erl_esdb:stop_store(store(Config)),
    Session = trace:session_create(pages, self(), []),
    true = is_integer(trace:process(Session, new, true, [call])),
    1 = trace:function(Session, {erl_esdb_index_reader, page, 3}, true, []),
    Store = start(Config),
    _ = found(Store, <<"all">>),
    true = trace:session_destroy(Session),
    pages().

pages() ->
    receive
        {trace, _, call, {_, page, [_, From, _]}} -> [From | pages()]
    after 0 -> []
    end.

%% ---- snapshots

%% Enough commands for several snapshots; removals between them, and what the last one does not
%% have.
filled(Store) ->
    Streams = [<<"s", (integer_to_binary(N rem 50))/binary>> || N <- lists:seq(1, 500)],
    [
        begin
            {ok, _} = append(Store, Stream, events(3)),
            _ = N rem 100 =:= 0 andalso erl_esdb_store:truncate(Store, Stream, N div 100)
        end
     || {N, Stream} <- lists:enumerate(Streams)
    ],
    ok.

snapshotted(Store, Times) ->
    Server = erl_esdb_test:orderer(Store),
    ok = lists:foreach(fun(_) -> erl_esdb_test:snapshotted(Store) end, lists:seq(1, Times)),
    true = is_process_alive(Server),
    ok.

server(Store) -> erl_esdb_test:server(Store).

a_snapshots_hold_all(Config) ->
    Store = start(Config),
    ok = filled(Store),
    Events = all_events(Store),
    ok = snapshotted(Store, 2),
    ?assertEqual(Events, all_events(Store)),
    {ok, _} = append(Store, <<"later">>, events(2)),
    Later = all_events(Store),
    _ = restart(Config),
    ?assertEqual(Later, all_events(Store)),
    ?assertEqual(length(Events) + 2, length(Later)).

%% A node that was killed between a snapshot and its list of live entries, or whose list is damaged:
%% Ra alone would forget all events.
a_missing_or_damaged_list_of_live_entries(Config) ->
    Store = start(Config),
    ok = filled(Store),
    ok = snapshotted(Store, 1),
    Events = all_events(Store),
    [
        begin
            ok = erl_esdb:stop_store(Store),
            [_ | _] = Lists = filelib:wildcard(dir(Config) ++ "/*/snapshots/*/indexes"),
            lists:foreach(Damage, Lists),
            _ = start(Config),
            ?assertEqual(Events, all_events(Store)),
            %% Also when what is dead is thrown away.
            ok = ra:trigger_compaction(server(Store)),
            ok = snapshotted(Store, 1),
            ?assertEqual(Events, all_events(Store))
        end
     || Damage <- [fun file:delete/1, fun not_a_list/1]
    ].

%% A node is killed when it has written one of the two files and not the other.
a_killed_between_list_and_snapshot(Config) -> killed_while_it_writes(before_snapshot, Config).

a_killed_between_snapshot_and_list(Config) -> killed_while_it_writes(before_list, Config).

killed_while_it_writes(Place, Config) ->
    Store = store(Config),
    Folder = dir(Config) ++ "-stopped",
    ok = erl_esdb_ra_stopped:beam(Place, Folder),
    [Peer] = erl_esdb_nodes:start(1, ["-pa", Folder]),
    ok = erl_esdb_nodes:start_store(Peer, Store, options(Config)),
    ok = erl_esdb_nodes:call(Peer, ?MODULE, filled, [Store]),
    ok = erl_esdb_nodes:call(Peer, erl_esdb_test, snapshot_due, [Store]),
    Stopped = fun() -> erl_esdb_nodes:call(Peer, erl_esdb_ra_stopped, is_stopped, []) end,
    erl_esdb_test:await(Stopped, 60_000),
    %% What is acknowledged goes on.
    {ok, 9} = erl_esdb_nodes:call(Peer, ?MODULE, append, [Store, <<"later">>, events(10)]),
    Events = erl_esdb_nodes:call(Peer, ?MODULE, all_events, [Store]),
    ok = erl_esdb_nodes:kill(Peer),
    Files = filelib:wildcard("*/snapshots/*/{snapshot.dat,indexes}", dir(Config)),
    Written = lists:usort([filename:basename(File) || File <- Files]),
    ?assertEqual(left(Place), Written),
    Back = erl_esdb_nodes:restart(Peer, []),
    ok = erl_esdb_nodes:start_store(Back, Store, options(Config)),
    Read = fun() -> erl_esdb_nodes:call(Back, ?MODULE, all_events, [Store]) end,
    ?assertEqual(Events, Read()),
    %% Also when what is dead is thrown away, and after another start.
    ok = erl_esdb_nodes:call(Back, ?MODULE, compacted, [Store]),
    ?assertEqual(Events, Read()),
    ok = erl_esdb_nodes:call(Back, erl_esdb, stop_store, [Store]),
    ok = erl_esdb_nodes:start_store(Back, Store, options(Config)),
    ?assertEqual(Events, Read()),
    ok = erl_esdb_nodes:stop([Back]).

%% What is erased in slices goes on where the server ended in between.
a_removal_goes_on_after_a_crash(Config) ->
    Store = start(Config),
    Server = {Name, _} = server(Store),
    {ok, Bodies} = erl_esdb_event:bodies(events(1)),
    Append = {?S, -2, erl_esdb_batch:pack(Bodies), {1, 1, [], any}},
    [ok = ra:pipeline_command(Server, Append, N, normal) || N <- lists:seq(1, 20_000)],
    {ok, 0} = append(Store, <<"another">>, events(1)),
    Kept = fun() ->
        {ok, #{machine := #{kept := Count}}, _} = ra:member_overview(Server),
        Count
    end,
    ?assertEqual(20_001, Kept()),
    ok = erl_esdb_streams:delete(Store, ?S),
    %% The next of 78 slices waits for the disk by now.
    ok = erl_esdb_test:killed(whereis(Name)),
    {ok, 1} = append(Store, <<"another">>, events(1)),
    erl_esdb_test:await(fun() -> Kept() =:= 2 end),
    ?assertMatch({ok, [_, _]}, erl_esdb_streams:read(Store, <<"another">>, 0, 10, forward)).

%% A node that ended while segments were written anew, wherever in between. Ra alone takes the note
%% of which they are for the word that it is done, and puts links in the place of segments that are
%% nowhere else.
a_compaction_that_did_not_end(Config) ->
    Store = store(Config),
    Small = dir(Config) ++ "-small",
    ok = erl_esdb_ra_small:beam(Small),
    [Peer] = erl_esdb_nodes:start(1, ["-pa", Small]),
    ok = erl_esdb_nodes:start_store(Peer, Store, options(Config)),
    [ok = erl_esdb_nodes:call(Peer, ?MODULE, filled, [Store]) || _ <- [1, 2]],
    ok = erl_esdb_nodes:call(Peer, ?MODULE, snapshotted, [Store, 1]),
    Read = fun() -> erl_esdb_nodes:call(Peer, ?MODULE, all_events, [Store]) end,
    Events = Read(),
    [A, B, C, D, E | _] = lists:sort(filelib:wildcard(dir(Config) ++ "/*/*.segment")),
    Halfway = fun(Group) ->
        ok = noted(Group),
        file:write_file(filename:rootname(hd(Group)) ++ ".compacting", ~"RASG")
    end,
    Left = fun() -> filelib:wildcard(dir(Config) ++ "/*/*.compact*") end,
    [
        begin
            ok = erl_esdb_nodes:call(Peer, erl_esdb, stop_store, [Store]),
            ok = Ended(),
            ok = erl_esdb_nodes:start_store(Peer, Store, options(Config)),
            ?assertEqual(Events, Read()),
            ?assertEqual([], Left())
        end
     || Ended <- [
            fun() -> noted([A, B, C]) end,
            fun() -> file:write_file(note(A), ~"") end,
            fun() -> file:write_file(note(A), <<131, 108, 0>>) end,
            fun() -> Halfway([A, B]) end,
            %% With two notes Ra does not start.
            fun() -> noted([A, B]), noted([C, D]) end,
            fun() -> renewed([A, B]), noted([A, B]) end,
            fun() -> renewed([C, D, E]), made_link(C, D), noted([C, D, E]) end
        ]
    ],
    %% Of a server that runs, too: Ra would go on with the new file.
    ok = Halfway([A, B]),
    ok = erl_esdb_nodes:call(Peer, ?MODULE, snapshotted, [Store, 1]),
    erl_esdb_test:await(fun() -> Left() =:= [] end),
    ok = erl_esdb_nodes:call(Peer, ?MODULE, compacted, [Store]),
    ?assertEqual(Events, Read()),
    ok = erl_esdb_nodes:stop([Peer]).

note(First) -> filename:rootname(First) ++ ".compaction_group".

noted([First | _] = Group) ->
    Names = [list_to_binary(filename:basename(File)) || File <- Group],
    file:write_file(note(First), term_to_binary(Names)).

%% As Ra does it, up to the rename: all that they have is alive.
renewed([First | _] = Group) ->
    New = filename:rootname(First) ++ ".compacting",
    Indexes = [{File, indexes(File)} || File <- Group],
    Count = lists:sum([length(Of) || {_, Of} <- Indexes]),
    {ok, Segment} = ra_log_segment:open(New, #{max_count => Count}),
    Copy = fun({File, Of}, To) ->
        {ok, To1} = ra_log_segment:copy(To, File, Of),
        To1
    end,
    ok = ra_log_segment:close(lists:foldl(Copy, Segment, Indexes)),
    file:rename(New, First).

indexes(File) ->
    {ok, Segment} = ra_log_segment:open(File, #{mode => read}),
    {From, To} = ra_log_segment:range(Segment),
    ok = ra_log_segment:close(Segment),
    lists:seq(From, To).

made_link(First, File) ->
    ok = file:make_symlink(First, File ++ ".link"),
    file:rename(File ++ ".link", File).

left(before_snapshot) -> ["indexes", "snapshot.dat"];
left(before_list) -> ["snapshot.dat"].

compacted(Store) ->
    ok = ra:trigger_compaction(server(Store)),
    snapshotted(Store, 1).

not_a_list(File) -> file:write_file(File, <<"RASI", 1, 0:32, 7>>).

%% A snapshot that cannot be used is named, and neither served nor taken away: not where it is
%% damaged, wherever, nor where a later release wrote it.
a_damaged_snapshot_is_not_served(Config) ->
    {Store, Events, Snapshot} = with_a_snapshot(Config),
    {ok, <<"RASN", 1, Crc:32, Rest/binary>> = Bytes} = file:read_file(Snapshot),
    true = Crc > 0,
    Damaged = {error, {damaged_snapshot, Snapshot}},
    Later = fun(Version) -> {error, {snapshot, Snapshot, {unsupported_version, Version}}} end,
    Size = byte_size(Bytes),
    Places = [0, 1, 2, 3, 5, 6, 7, 8, 9, 12, 13, Size - 1],
    Cases =
        [{another_byte(Bytes, At), Damaged} || At <- Places] ++
            [
                {<<"RASN", 2, Crc:32, Rest/binary>>, Later(2)},
                {<<"RASN", 2, 0:32, Rest/binary>>, Later(2)},
                {<<"RASN", 0, Crc:32, Rest/binary>>, Later(0)},
                {of_a_later_format(Rest), Later(2)},
                {binary_part(Bytes, 0, Size - 1), Damaged},
                {binary_part(Bytes, 0, 9), Damaged},
                {<<Bytes/binary, 0>>, Damaged},
                {<<0:9/unit:8, Rest/binary>>, Damaged}
            ],
    [
        begin
            ok = file:write_file(Snapshot, Changed),
            ?assertEqual(Expected, start_again(Config)),
            ?assertEqual({ok, Changed}, file:read_file(Snapshot))
        end
     || {Changed, Expected} <- Cases
    ],
    %% Nor where the system does not read it.
    ok = file:delete(Snapshot),
    ok = file:make_dir(Snapshot),
    ?assertEqual({error, {snapshot, Snapshot, eisdir}}, start_again(Config)),
    ok = file:del_dir(Snapshot),
    ok = file:write_file(Snapshot, Bytes),
    _ = start(Config),
    ?assertEqual(Events, all_events(Store)).

%% A snapshot that another release has written, in a format or with fields that are not known here,
%% is named and stays as it is.
a_snapshot_of_an_unknown_format(Config) ->
    Store = start(Config),
    ok = filled(Store),
    Events = all_events(Store),
    ok = snapshotted(Store, 1),
    ok = erl_esdb:stop_store(Store),
    [File | _] = filelib:wildcard(dir(Config) ++ "/*/snapshots/*/snapshot.dat"),
    {ok, Bytes} = file:read_file(File),
    <<Magic:4/binary, 1, Rest/binary>> = Bytes,
    More = fun(Record) -> erlang:append_element(Record, more) end,
    Others = [
        <<Magic/binary, 2, Rest/binary>>
        | [
            rewritten(Change, Bytes)
         || Change <- [
                fun(#{format := 1} = State) -> State#{format := 2} end,
                fun(State) -> maps:without([format, store], State) end,
                fun(_) -> later end,
                fun(#{log := Log} = State) -> State#{log := More(Log)} end,
                fun(#{log := Log} = State) -> State#{log := changed_in(seen, More, Log)} end,
                fun(#{log := Log} = State) -> State#{log := changed_in(recent, More, Log)} end
            ]
        ]
    ],
    [
        begin
            ok = file:write_file(File, Other),
            Answer = erl_esdb:start_store(Store, options(Config)),
            ?assertMatch({error, {snapshot, _, {unsupported_version, _}}}, Answer),
            {error, {snapshot, Named, _}} = Answer,
            ?assertEqual({ok, Other}, file:read_file(Named))
        end
     || Other <- Others
    ],
    %% What is no snapshot at all is a damaged one.
    ok = file:write_file(File, <<"JUNK", 1, Rest/binary>>),
    ?assertMatch({error, {damaged_snapshot, _}}, erl_esdb:start_store(Store, options(Config))),
    ok = file:write_file(File, rewritten(fun(State) -> State end, Bytes)),
    _ = start(Config),
    ?assertEqual(Events, all_events(Store)).

%% With another state, as somebody else would have written it.
rewritten(Change, <<"RASN", 1, _Crc:32, Size:32, Meta:Size/binary, Bytes:32, Rest/binary>>) ->
    <<State:Bytes/binary, Tables/binary>> = Rest,
    Changed = term_to_binary(Change(binary_to_term(State))),
    Data = <<Size:32, Meta/binary, (byte_size(Changed)):32, Changed/binary, Tables/binary>>,
    <<"RASN", 1, (erlang:crc32(Data)):32, Data/binary>>.

%% The records of this name within another.
changed_in(Name, Change, Record) ->
    Changed = fun
        (Field) when is_tuple(Field), element(1, Field) =:= Name -> Change(Field);
        (Field) -> Field
    end,
    list_to_tuple(lists:map(Changed, tuple_to_list(Record))).

%% A node that was killed while it wrote a snapshot, or was sent one, goes on with what it has.
a_snapshot_that_was_not_finished(Config) ->
    {Store, Events, Snapshot} = with_a_snapshot(Config),
    {ok, <<"RASN", 1, _:32, Rest/binary>>} = file:read_file(Snapshot),
    %% Of a command later.
    Dir = filename:dirname(Snapshot),
    [Term, Index] = string:split(filename:basename(Dir), "_"),
    Next = string:pad(integer_to_list(list_to_integer(Index, 16) + 1, 16), 16, leading, $0),
    Unfinished = filename:join(filename:dirname(Dir), lists:flatten([Term, "_", Next])),
    [
        begin
            ok = file:make_dir(Unfinished),
            ok = file:write_file(filename:join(Unfinished, "snapshot.dat"), Left),
            _ = start(Config),
            ?assertEqual(Events, all_events(Store)),
            ok = erl_esdb:stop_store(Store),
            ?assertNot(filelib:is_dir(Unfinished))
        end
     || Left <- [<<>>, <<"RASN", 1>>, <<0:4096>>, <<"RASN", 1, 0:32, Rest/binary>>]
    ],
    ?assert(filelib:is_regular(Snapshot)).

%% It is finished when the last part is there, and not before.
a_snapshot_that_is_sent(Config) ->
    {_, _, Snapshot} = with_a_snapshot(Config),
    Sender = filename:dirname(Snapshot),
    Receiver = filename:join([dir(Config) ++ "-receiver", "snapshots", "1_1"]),
    ok = filelib:ensure_path(Receiver),
    Folder = filename:dirname(filename:dirname(Receiver)),
    {ok, Meta, Read} = erl_esdb_ra_snapshot:begin_read(Sender, erl_esdb_ra_snapshot:context()),
    {ok, Accepting} = erl_esdb_ra_snapshot:begin_accept(Receiver, Meta),
    Unfinished = fun() ->
        ?assertEqual({error, unfinished}, erl_esdb_ra_snapshot:validate(Receiver)),
        ?assertEqual(ok, erl_esdb_ra_snapshot:defect(Folder))
    end,
    Unfinished(),
    Part = filelib:file_size(Snapshot) div 3,
    {Left, Last} = sent(Read, Accepting, Part, Sender, Unfinished),
    Size = filelib:file_size(Snapshot),
    ?assertEqual({ok, Size}, erl_esdb_ra_snapshot:complete_accept(Last, Left)),
    ?assertEqual(ok, erl_esdb_ra_snapshot:validate(Receiver)),
    {ok, Bytes} = file:read_file(Snapshot),
    ?assertEqual({ok, Bytes}, file:read_file(filename:join(Receiver, "snapshot.dat"))),
    %% What came of it is no other.
    {ok, Again} = erl_esdb_ra_snapshot:begin_accept(Receiver, Meta),
    Changed = another_byte(Bytes, Size - 1),
    ?assertError(_, erl_esdb_ra_snapshot:complete_accept(Changed, Again)),
    Unfinished(),
    {ok, Later} = erl_esdb_ra_snapshot:begin_accept(Receiver, Meta),
    ?assertError(
        {unsupported_version, 2}, erl_esdb_ra_snapshot:accept_chunk(<<"RASN", 2, 7:32>>, Later)
    ).

sent(Read, Accepting, Part, Sender, Then) ->
    case erl_esdb_ra_snapshot:read_chunk(Read, Part, Sender) of
        {ok, Last, last} ->
            {Accepting, Last};
        {ok, Chunk, {next, Next}} ->
            {ok, Accepting1} = erl_esdb_ra_snapshot:accept_chunk(Chunk, Accepting),
            Then(),
            sent(Next, Accepting1, Part, Sender, Then)
    end.

%% A store that does not run, what it has, and the file of its snapshot.
with_a_snapshot(Config) ->
    Store = start(Config),
    ok = filled(Store),
    ok = snapshotted(Store, 1),
    Events = all_events(Store),
    ok = erl_esdb:stop_store(Store),
    [Snapshot] = filelib:wildcard(dir(Config) ++ "/*/snapshots/*/snapshot.dat"),
    {Store, Events, Snapshot}.

start_again(Config) -> erl_esdb:start_store(store(Config), options(Config)).

another_byte(Bytes, At) ->
    <<Before:At/binary, Byte, After/binary>> = Bytes,
    <<Before/binary, (255 - Byte), After/binary>>.

%% Its state has a number of its own.
of_a_later_format(<<Size:32, Meta:Size/binary, Length:32, State:Length/binary, Parts/binary>>) ->
    #{format := 1} = Written = binary_to_term(State),
    Later = term_to_binary(Written#{format := 2}),
    Data = <<Size:32, Meta/binary, (byte_size(Later)):32, Later/binary, Parts/binary>>,
    <<"RASN", 1, (erlang:crc32(Data)):32, Data/binary>>.

%% A snapshot that is being written does not hold up the end of its store, and nothing is lost.
a_stop_while_a_snapshot_is_written(Config) ->
    Store = start(Config),
    {ok, 0} = append(Store, ?S, events(1)),
    Keys = [{I, J} || I <- lists:seq(1, 100), J <- lists:seq(1, 1000)],
    [
        ok = erl_esdb_store:save_checkpoints(Store, #{{I, J} => I + J || J <- lists:seq(1, 1000)})
     || I <- lists:seq(1, 100)
    ],
    {Worker, File} = in_the_middle(Store, Config),
    {ok, Replica} = erl_esdb_ra_replica:find(Store),
    Tables = erl_esdb_ra_replica:tables(Replica),
    ok = logger:add_handler(?FUNCTION_NAME, ?MODULE, #{level => warning, config => self()}),
    {_, Ref} = spawn_monitor(fun() -> exit({stopped, erl_esdb:stop_store(Store)}) end),
    erl_esdb_test:await(fun() -> not erl_esdb_tables:may_open_picture(Tables, -1) end),
    true = erlang:resume_process(Worker),
    receive
        {'DOWN', Ref, process, _, Reason} -> ?assertEqual({stopped, ok}, Reason)
    end,
    ok = logger:remove_handler(?FUNCTION_NAME),
    ?assertEqual([], logged()),
    ?assertNot(is_finished(File)),
    _ = start(Config),
    ?assertMatch([#event{version = 0}], all_events(Store)),
    {ok, Checkpoints} = erl_esdb_store:checkpoints(Store, #{}),
    ?assertEqual(#{{I, J} => I + J || {I, J} <- Keys}, maps:remove({a, place}, Checkpoints)),
    ok = snapshotted(Store, 1).

%% The process that writes a snapshot, suspended with a file that is not finished.
in_the_middle(Store, Config) ->
    Files = fun() -> filelib:wildcard(dir(Config) ++ "/*/snapshots/*/snapshot.dat") end,
    Before = Files(),
    Worker = worker(Store),
    ok = erl_esdb_test:snapshot_due(Store),
    erl_esdb_test:await(fun() -> Files() -- Before =/= [] end),
    true = erlang:suspend_process(Worker),
    [File] = Files() -- Before,
    case is_finished(File) of
        false ->
            {Worker, File};
        true ->
            true = erlang:resume_process(Worker),
            ok = erl_esdb_test:await(fun() -> Files() =:= [File] end),
            in_the_middle(Store, Config)
    end.

%% Ra's process that writes snapshots for the server of a store.
worker(Store) ->
    {dictionary, Words} = process_info(whereis(element(1, server(Store))), dictionary),
    [Sup | _] = proplists:get_value('$ancestors', Words),
    {_, Worker, _, _} = lists:keyfind(ra_worker, 1, supervisor:which_children(Sup)),
    Worker.

is_finished(File) ->
    case file:read_file(File) of
        {ok, <<"RASN", 1, Crc:32, _/binary>>} -> Crc =/= 0;
        _ -> false
    end.

%% The logger's call.
log(Event, #{config := Pid}) -> Pid ! {logged, Event}.

logged() ->
    receive
        {logged, Event} -> [Event | logged()]
    after 0 -> []
    end.

%% ---- space

a_space_comes_back(Config) ->
    Store = start(Config),
    Data = #{blob => binary:copy(<<"x">>, 10_000)},
    Large = #{event_type => <<"Large">>, data => Data},
    [{ok, _} = append(Store, ?S, lists:duplicate(20, Large)) || _ <- lists:seq(1, 1200)],
    {ok, 0} = append(Store, <<"kept">>, events(1)),
    Full = size_of(Config),
    {ok, {0, 24_000}} = erl_esdb_store:truncate(Store, ?S, 24_000),
    %% The write-ahead log and the segment that was written last stay until they have a certain
    %% size.
    ok = erl_esdb_test:await(fun() -> size_of(Config) < Full div 2 end, 120_000),
    ?assertMatch([#event{stream_id = <<"kept">>}], all_events(Store)),
    %% An operator is told of it a moment later.
    erl_esdb_test:await(fun() -> maps:get(runs, compaction(Store), 0) > 0 end),
    ?assertMatch(
        #{age_ms := Age, rewrites := _, segments_before := N, segments_after := M} when
            Age >= 0 andalso Age < 120_000 andalso N >= M,
        compaction(Store)
    ).

compaction(Store) ->
    {ok, Status} = erl_esdb:status(Store),
    maps:get(compaction, Status, #{}).

a_no_compaction_yet(Config) ->
    Store = start(Config),
    {ok, 0} = append(Store, ?S, events(1)),
    erl_esdb_test:await(fun() -> compaction(Store) =/= #{} end),
    ?assertEqual(
        #{runs => 0, rewrites => 0, segments_before => 0, segments_after => 0}, compaction(Store)
    ).

%% What a shell takes for a pattern is a name like any other.
a_folder_whose_name_is_a_pattern(Config) ->
    Dir = dir(Config) ++ "-[a]{b,c}*?",
    Options = [{options, (options(Config))#{data_dir := Dir}} | proplists:delete(options, Config)],
    Store = start(Options),
    {ok, 9} = append(Store, ?S, events(10)),
    _ = restart(Options),
    ok = snapshotted(Store, 1),
    {ok, Status} = erl_esdb:status(Store),
    ?assertMatch(#{segments := Segments} when Segments > 0, Status),
    ?assertMatch(#{wal_bytes := Bytes} when Bytes > 0, Status),
    ?assertMatch(#{snapshot_age_ms := _}, Status),
    ?assertEqual(10, length(all_events(Store))).

%% Readers while streams are cut, deleted and scavenged, snapshots are taken, and segments are
%% dropped and written anew: what they are given is what was written, and never the word that it is
%% damaged.
a_readers_race_compaction(Config) ->
    Store = store(Config),
    %% Next to nothing is read from memory; and what waits behind thousands of commands may.
    Options = #{read_cache => 1, timeout => 120_000},
    {ok, _} = erl_esdb:start_store(Store, maps:merge(options(Config), Options)),
    Written = ets:new(?FUNCTION_NAME, [public, {write_concurrency, true}]),
    Stop = atomics:new(1, []),
    Names = [<<"s", N>> || N <- lists:seq($0, $7)],
    Writers = [fun() -> changing(Store, Name, Written, Stop, {0, 0}) end || Name <- Names],
    Readers = [fun() -> reading(Store, Names, Written, Stop, 0) end || _ <- lists:seq(1, 4)],
    Compacting = fun() ->
        Rounds = compacting(6, 40, Store, Config),
        ok = atomics:put(Stop, 1, 1),
        Rounds
    end,
    Counts = erl_esdb_test:concurrently([Compacting | Writers ++ Readers]),
    ?assert(lists:min(Counts) > 0, Counts),
    Before = all_events(Store),
    ?assertEqual([], wrong(Before, Written)),
    _ = restart(Config),
    ?assertEqual(Before, all_events(Store)).

%% A life of a stream: its events, of which now and then the first are removed, or all.
changing(Store, Name, Written, Stop, {Life, N}) ->
    case atomics:get(Stop, 1) of
        0 ->
            Events = [content(Name, Life, V) || V <- lists:seq(N, N + rand:uniform(5) - 1)],
            {ok, #append_result{version = Last, position = Position}} =
                erl_esdb_streams:append(Store, Name, N - 1, Events, #{return => result}),
            Places = lists:enumerate(Position - length(Events) + 1, Events),
            true = ets:insert(Written, Places),
            Next = removed(rand:uniform(60), Store, Name, {Life, Last + 1}),
            changing(Store, Name, Written, Stop, Next);
        _ ->
            N + Life
    end.

removed(1, Store, Name, {Life, _N}) ->
    ok = erl_esdb_streams:delete(Store, Name),
    {Life + 1, 0};
removed(Drawn, Store, Name, {Life, N}) when Drawn < 6 ->
    {ok, _} = erl_esdb_store:truncate(Store, Name, N div 2),
    {Life, N};
removed(Drawn, Store, Name, {Life, N}) when Drawn < 10 ->
    {ok, _} = erl_esdb_scavenge:scavenge(Store, Name, #{
        keep_versions => 20, require_snapshot => false
    }),
    {Life, N};
removed(_, _Store, _Name, Place) ->
    Place.

content(Name, Life, N) ->
    Pad = binary:copy(<<Name/binary, (integer_to_binary(N * 1000 + Life))/binary>>, 50),
    #{event_type => <<"T">>, data => #{stream => Name, life => Life, n => N, pad => Pad}}.

reading(Store, Names, Written, Stop, Count) ->
    case atomics:get(Stop, 1) of
        0 ->
            Name = lists:nth(rand:uniform(length(Names)), Names),
            {ok, Next} = erl_esdb_store:next_position(Store),
            From = rand:uniform(Next + 1) - 1,
            Reads = [
                erl_esdb_streams:read(Store, Name, 0, 200, forward),
                erl_esdb_streams:read(Store, Name, last, 20, backward),
                erl_esdb_streams:read_log(Store, From, 200, forward, #{})
            ],
            Read = lists:append([events_of(Result) || Result <- Reads]),
            ?assertEqual([], wrong(Read, Written)),
            reading(Store, Names, Written, Stop, Count + length(Read));
        _ ->
            Count
    end.

events_of({ok, Events}) -> Events;
events_of({error, {stream_not_found, _}}) -> [].

%% Events that are not what was written there. A writer may not have said it yet.
wrong(Events, Written) ->
    [
        Event
     || #event{position = Position, stream_id = Stream, version = Version, data = Data} = Event <-
            Events,
        #{stream := Name, life := Life, n := N} <- [Data],
        {Stream, Version, Data} =/= {Name, N, maps:get(data, content(Name, Life, N))} orelse
            ets:lookup(Written, Position) -- [{Position, content(Name, Life, N)}] =/= []
    ].

%% At least so often, and until it did happen: how often more it might have been tried.
compacting(Least, Most, Store, Config) when Most > 0 ->
    case {Least, compacted_segments(Store, Config)} of
        {1, [_ | _]} -> Most;
        {_, _} -> compacting(max(1, Least - 1), Most - 1, Store, Config)
    end;
compacting(_Least, 0, _Store, _Config) ->
    0.

%% Has all that was written go to segments, takes a snapshot, and has segments written anew. Which
%% are gone, or others by now.
compacted_segments(Store, Config) ->
    Before = segments(Config),
    ok = rolled_over(),
    ok = compacted(Store),
    Before -- segments(Config).

segments(Config) ->
    [
        {File, Inode}
     || File <- filelib:wildcard(dir(Config) ++ "/*/*.segment"),
        {ok, #file_info{inode = Inode}} <- [file:read_file_info(File)]
    ].

%% Of all systems of this node.
rolled_over() ->
    Wals = [
        Wal
     || {Name, _, _, _} <- supervisor:which_children(ra_systems_sup),
        #{names := #{wal := Wal}} <- [ra_system:fetch(Name)]
    ],
    [_ | _] = [ok = ra_log_wal:force_roll_over(Wal) || Wal <- Wals],
    ok.

size_of(Config) ->
    filelib:fold_files(dir(Config), ".*", true, fun(F, Sum) -> Sum + filelib:file_size(F) end, 0).

%% ---- damage

a_damaged_event_is_named(Config) ->
    Store = start(Config),
    Marked = #{event_type => <<"T">>, data => #{mark => <<"0123456789abcdef">>}},
    {ok, 0} = append(Store, <<"damaged">>, [Marked]),
    {ok, 0} = append(Store, <<"whole">>, events(1)),
    %% With a start all is in segments.
    _ = restart(Config),
    %% Before a snapshot: what is behind it is read again with the start, and found then.
    ok = snapshotted(Store, 1),
    ok = erl_esdb:stop_store(Store),
    Files = filelib:wildcard(dir(Config) ++ "/*/*.segment"),
    Damaged = [File || File <- Files, erl_esdb_disk:damage(File, <<"0123456789abcdef">>)],
    ?assertMatch([_ | _], Damaged),
    _ = start(Config),
    ?assertEqual(
        {error, {corrupt_events, <<"damaged">>, 0}},
        erl_esdb_streams:read(Store, <<"damaged">>, 0, 10, forward)
    ),
    ?assertMatch({ok, [_]}, erl_esdb_streams:read(Store, <<"whole">>, 0, 10, forward)).

%% One that has to be read again, because no snapshot has it, is found with the start.
a_damaged_event_is_named_at_the_start(Config) ->
    Store = start(Config),
    Marked = #{event_type => <<"T">>, data => #{mark => <<"0123456789abcdef">>}},
    {ok, 0} = append(Store, <<"damaged">>, [Marked]),
    ok = erl_esdb:stop_store(Store),
    ok = erl_esdb:stop_store(start(Config)),
    [File] = filelib:wildcard(dir(Config) ++ "/*/*.segment"),
    true = erl_esdb_disk:damage(File, <<"0123456789abcdef">>),
    ?assertEqual(
        {error, {damaged_segment, File}},
        erl_esdb:start_store(Store, options(Config))
    ).

a_damaged_write_ahead_log(Config) ->
    Marked = #{event_type => <<"T">>, data => #{mark => <<"0123456789abcdef">>}},
    [Peer] = erl_esdb_nodes:start(1),
    %% Only a node that was killed leaves something there.
    Dir = dir(Config) ++ "-wal",
    ok = erl_esdb_nodes:start_store(Peer, other, #{engine => ra, data_dir => Dir}),
    Append = [other, <<"damaged">>, any, [Marked]],
    {ok, 0} = erl_esdb_nodes:call(Peer, erl_esdb_streams, append, Append),
    {ok, 1} = erl_esdb_nodes:call(Peer, erl_esdb_streams, append, Append),
    ok = erl_esdb_nodes:kill(Peer),
    [File] = filelib:wildcard(Dir ++ "/*.wal"),
    true = erl_esdb_disk:damage(File, <<"0123456789abcdef">>),
    Again = erl_esdb_nodes:restart(Peer),
    Start = [other, #{engine => ra, data_dir => Dir}],
    ?assertEqual(
        {error, {data_dir, Dir, damaged_write_ahead_log}},
        erl_esdb_nodes:call(Again, erl_esdb, start_store, Start)
    ),
    ok = erl_esdb_nodes:stop([Again]).

%% ---- what a kill or a loss of power leaves

%% All is in the write-ahead log when these begin, nothing in segments: what Ra has no server for
%% there it throws away.
stopped(Config) ->
    Store = start(Config),
    {ok, 9} = append(Store, ?S, events(10)),
    Events = all_events(Store),
    ok = erl_esdb:stop_store(Store),
    Events.

file(Config, Name) -> filename:join(dir(Config), Name).

a_list_of_servers_that_is_lost(Config) ->
    Events = stopped(Config),
    Names = file(Config, "names.dets"),
    [
        begin
            ok = Damage(Names),
            ?assertEqual(Events, all_events(start(Config))),
            ok = erl_esdb:stop_store(store(Config))
        end
     || Damage <- [fun file:delete/1, fun emptied/1, fun overwritten/1, fun left_open/1]
    ].

emptied(File) -> file:write_file(File, <<>>).

overwritten(File) -> file:write_file(File, binary:copy(<<7>>, filelib:file_size(File))).

%% As a kill leaves it: to be repaired.
left_open(File) ->
    {ok, Fd} = file:open(File, [read, write, raw, binary]),
    ok = file:pwrite(Fd, 8, <<0:32>>),
    file:close(Fd).

a_terms_are_repaired(Config) ->
    Events = stopped(Config),
    ok = left_open(file(Config, "meta.dets")),
    ?assertEqual(Events, all_events(start(Config))),
    ?assertEqual([], filelib:wildcard("meta.dets.*", dir(Config))).

%% They say whom a server has voted for: what cannot be read is not begun anew.
a_terms_that_are_lost_are_named(Config) ->
    Events = stopped(Config),
    Meta = file(Config, "meta.dets"),
    {ok, Bytes} = file:read_file(Meta),
    [
        begin
            ok = Damage(Meta),
            ?assertEqual(
                {error, {data_dir, dir(Config), {damaged_file, Meta}}},
                erl_esdb:start_store(store(Config), options(Config))
            )
        end
     || Damage <- [fun file:delete/1, fun emptied/1, fun overwritten/1]
    ],
    ok = file:write_file(Meta, Bytes),
    ?assertEqual(Events, all_events(start(Config))).

%% Also where the file can be read, and only one of the stores has lost its vote.
a_vote_that_is_lost_is_named(Config) ->
    Events = stopped(Config),
    {ok, _} = erl_esdb:start_store(another, options(Config)),
    ok = erl_esdb:stop_store(another),
    Meta = file(Config, "meta.dets"),
    {ok, Bytes} = file:read_file(Meta),
    Uids = [list_to_binary(filename:dirname(F)) || F <- filelib:wildcard("*/config", dir(Config))],
    ?assertEqual(2, length(Uids)),
    [
        begin
            ok = file:write_file(Meta, Bytes),
            {ok, Table} = dets:open_file(make_ref(), [{file, Meta}]),
            ok = dets:delete(Table, Uid),
            ok = dets:close(Table),
            ok = After(Meta),
            {ok, Without} = file:read_file(Meta),
            ?assertEqual(
                {error, {data_dir, dir(Config), {damaged_file, Meta}}},
                erl_esdb:start_store(store(Config), options(Config))
            ),
            %% It is as it was found.
            ?assertEqual({ok, Without}, file:read_file(Meta))
        end
     || Uid <- Uids, After <- [fun left_open/1, fun(_) -> ok end]
    ],
    ok = file:write_file(Meta, Bytes),
    ?assertEqual(Events, all_events(start(Config))),
    ?assertMatch({ok, _}, erl_esdb:start_store(another, options(Config))),
    ok = erl_esdb:drop(another).

%% What a user keeps there is the user's.
a_folder_of_somebody_else(Config) ->
    Events = stopped(Config),
    Content = [~"", ~"#{", ~"\"", ~"[].", ~"[core]\n\trepositoryformatversion = 0\n", <<255, 0>>],
    Files = [
        {filename:join([dir(Config), "own" ++ integer_to_list(N), "config"]), Bytes}
     || {N, Bytes} <- lists:enumerate(Content)
    ],
    [ok = filelib:ensure_dir(File) || {File, _} <- Files],
    [ok = file:write_file(File, Bytes) || {File, Bytes} <- Files],
    ok = filelib:ensure_path(filename:join([dir(Config), "folder", "config"])),
    ?assertEqual(Events, all_events(start(Config))),
    %% One that is not known yet.
    ?assertMatch({ok, _}, erl_esdb:start_store(another, options(Config))),
    ok = erl_esdb:drop(another),
    ok = erl_esdb:stop_store(store(Config)),
    %% Nor where it is not known which folders are.
    ok = file:delete(file(Config, "names.dets")),
    ?assertEqual(Events, all_events(start(Config))),
    [?assertEqual({ok, Bytes}, file:read_file(File)) || {File, Bytes} <- Files].

%% Ra forgets a server whose configuration it cannot read, with all that it has in the log.
a_damaged_configuration_is_named(Config) ->
    Events = stopped(Config),
    [Name] = filelib:wildcard("*/config", dir(Config)),
    File = file(Config, Name),
    {ok, Bytes} = file:read_file(File),
    Other = binary:replace(Bytes, <<"uid">>, <<"did">>),
    [
        begin
            ok = file:write_file(File, Damaged),
            ?assertEqual(
                {error, {data_dir, dir(Config), {damaged_file, File}}},
                erl_esdb:start_store(store(Config), options(Config))
            )
        end
     || Damaged <- [<<>>, <<"#{">>, <<"\"">>, <<"[].">>, Other]
    ],
    ok = file:write_file(File, Bytes),
    ?assertEqual(Events, all_events(start(Config))).

%% Which of them is the store nobody can know.
a_two_folders_of_one_store(Config) ->
    Events = stopped(Config),
    [Name] = filelib:wildcard("*/config", dir(Config)),
    {ok, Bytes} = file:read_file(file(Config, Name)),
    Uid = filename:dirname(Name),
    Second = file(Config, Uid ++ "X"),
    ok = filelib:ensure_path(filename:join(Second, "snapshots")),
    Copied = binary:replace(Bytes, list_to_binary(Uid), list_to_binary(Uid ++ "X"), [global]),
    ok = file:write_file(filename:join(Second, "config"), Copied),
    %% The one that is listed.
    ?assertEqual(Events, all_events(start(Config))),
    ok = erl_esdb:stop_store(store(Config)),
    ok = file:delete(file(Config, "names.dets")),
    {error, {data_dir, _, {unknown_data, Folder}}} =
        erl_esdb:start_store(store(Config), options(Config)),
    ?assert(lists:member(Folder, [Second, file(Config, Uid)])),
    ok = file:del_dir_r(Second),
    ?assertEqual(Events, all_events(start(Config))).

%% ---- a system that has ended

%% As where its write-ahead log gave up; the other store does not let go of it.
a_system_that_has_ended_is_started_anew(Config) ->
    Store = start(Config),
    {ok, _} = erl_esdb:start_store(another, options(Config)),
    {ok, 0} = append(Store, ?S, events(1)),
    {ok, 1} = append(another, ?S, events(2)),
    [Engine] = [Pid || {another, #{engine := Pid}} <- erl_esdb_engine:lives()],
    ok = sys:suspend(Engine),
    [System] = [
        Name
     || {Name, _, _, _} <- supervisor:which_children(ra_systems_sup),
        maps:get(data_dir, ra_system:fetch(Name)) =:= filename:absname(dir(Config))
    ],
    ok = supervisor:terminate_child(ra_systems_sup, System),
    %% What the engines do when they end.
    ?assertEqual(ok, erl_esdb_ra_server:stop(System, server(another))),
    Length = fun(Name) ->
        case erl_esdb_streams:read(Name, ?S, 0, 10, forward) of
            {ok, Events} -> length(Events);
            {error, _} -> none
        end
    end,
    erl_esdb_test:await(fun() -> append(Store, <<"again">>, events(1)) =:= {ok, 0} end),
    ?assertEqual(1, Length(Store)),
    ok = sys:resume(Engine),
    erl_esdb_test:await(fun() -> append(another, <<"again">>, events(1)) =:= {ok, 0} end),
    ?assertEqual(2, Length(another)),
    ?assertEqual(1, Length(Store)),
    ok = erl_esdb:drop(another).

%% With the process that holds the locks its systems end: nobody else may write beside them.
a_folder_stays_locked_when_its_process_is_killed(Config) ->
    Store = start(Config),
    {ok, 0} = append(Store, ?S, events(1)),
    Systems = whereis(erl_esdb_ra_systems),
    Ref = monitor(process, erl_esdb_test:orderer(Store)),
    true = exit(Systems, kill),
    receive
        {'DOWN', Ref, process, _, _} -> ok
    after 60_000 -> error(goes_on_without_a_lock)
    end,
    erl_esdb_test:await(fun() -> append(Store, <<"again">>, events(1)) =:= {ok, 0} end),
    ?assertEqual(2, length(all_events(Store))),
    Peer = esdb_peer:start(require),
    ?assertEqual(
        {value, {error, {data_dir, dir(Config), in_use}}},
        esdb_peer:call(Peer, erl_esdb, start_store, [Store, options(Config)])
    ),
    ok = esdb_peer:stop(Peer).

%% ---- reports

a_reports_that_repeat_are_left_out(_Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Child = fun(System) ->
        [{id, wal}, {mfargs, {ra_log_wal, start_link, [#{system => System}]}}]
    end,
    Supervisor = fun(Sup, Reason, Offender) ->
        #{
            level => error,
            meta => #{},
            msg =>
                {report, #{
                    label => {supervisor, child_terminated},
                    report => [
                        {supervisor, Sup},
                        {errorContext, child_terminated},
                        {reason, Reason},
                        {offender, Offender}
                    ]
                }}
        }
    end,
    Crash = fun(Ancestors) ->
        Info = [
            {initial_call, {ra_log_wal, init, []}},
            {registered_name, []},
            {error_info, {error, {badmatch, {error, enospc}}, []}},
            {ancestors, Ancestors}
        ],
        Report = #{label => {proc_lib, crash}, report => [Info, []]},
        #{level => error, meta => #{}, msg => {report, Report}}
    end,
    Ours = Child(erl_esdb_test),
    Full = {badmatch, {error, enospc}},
    Twice = fun(Event) ->
        [erl_esdb_ra_reports:filter(Event, #{period => 60_000}) || _ <- [first, second]]
    end,
    [
        ?assertEqual([ignore, stop], Twice(Event))
     || Event <- [
            Supervisor({self(), ra_log_wal_sup}, Full, Ours),
            %% of another supervisor, for another reason
            Supervisor({local, ra_erl_esdb_test_log_sup}, Full, Ours),
            Supervisor({self(), ra_log_wal_sup}, killed, Ours),
            Crash([self(), ra_erl_esdb_test_log_sup, ra_systems_sup])
        ]
    ],
    %% What is not ours, and what is no such report.
    [
        ?assertEqual([ignore, ignore], Twice(Event))
     || Event <- [
            Supervisor({self(), ra_log_wal_sup}, Full, Child(somebodys)),
            Supervisor({local, some_sup}, Full, [{id, x}, {mfargs, undefined}]),
            Crash([self(), some_sup]),
            #{level => error, meta => #{}, msg => {string, "x"}},
            #{level => error, meta => #{}, msg => {report, #{label => {gen_server, terminate}}}}
        ]
    ],
    Again = Supervisor({self(), ra_log_wal_sup}, Full, Ours),
    ?assertEqual(ignore, erl_esdb_ra_reports:filter(Again, #{period => 0})).

%% What Ra warns of where a store stops, and nothing beside that.
a_reports_of_what_is_meant(_Config) ->
    Filter = fun({Where, Server, Why, Rest}) ->
        Event = #{
            level => warning,
            meta => #{mfa => Where},
            msg => {"~ts: it was ~p", [Server, Why | Rest]}
        },
        erl_esdb_ra_reports:filter(Event, #{period => 60_000})
    end,
    Writer = {ra_worker, handle_cast, 2},
    Down = {ra_server_proc, handle_process_down, 4},
    GivenUp = {case_clause, {error, {erl_esdb_ra_snapshot, store_stops}}},
    Ours = "{erl_esdb_store_shop,nonode@nohost}",
    [
        ?assertEqual(stop, Filter(Event))
     || Event <- [{Writer, Ours, GivenUp, [error, []]}, {Down, Ours, shutdown, []}]
    ],
    [
        ?assertEqual(ignore, Filter(Event))
     || Event <- [
            {Writer, Ours, {case_clause, {error, picture_gone}}, [error, []]},
            {Writer, Ours, {case_clause, {error, enospc}}, [error, []]},
            {Writer, "{somebodys,nonode@nohost}", GivenUp, [error, []]},
            {Down, Ours, killed, []},
            {Down, "{somebodys,nonode@nohost}", shutdown, []},
            {Down, <<"x">>, shutdown, []},
            {{ra_server_proc, terminate, 3}, Ours, shutdown, [leader]}
        ]
    ].

%% What Ra ends with where a file cannot be written.
a_reason_of_the_system_is_named(_Config) ->
    [
        ?assertEqual(Expected, erl_esdb_ra_server:posix(Reason))
     || {Reason, Expected} <- [
            {{badmatch, {error, enospc}}, enospc},
            {{{badmatch, {error, eio}}, [{ra_log_wal, init, 1, []}]}, eio},
            {{badmatch, {error, {file_error, "names.dets", enospc}}}, enospc},
            {{shutdown, {failed_to_start_child, x, {badmatch, {error, erofs}}}}, erofs},
            {{badmatch, {error, other}}, {badmatch, {error, other}}},
            {killed, killed}
        ]
    ].

%% ---- one node at a time

%% It may be about to end: a start waits a moment.
a_folder_that_is_about_to_be_free(Config) ->
    Store = store(Config),
    Peer = esdb_peer:start(require),
    Call = fun(Function, Args) -> esdb_peer:call(Peer, erl_esdb, Function, Args) end,
    {value, {ok, _}} = Call(start_store, [Store, options(Config)]),
    {ok, _} = application:ensure_all_started(erl_esdb),
    {module, _} = code:ensure_loaded(erl_esdb_ra_lock),
    Take = {erl_esdb_ra_lock, take, 1},
    Trace = trace:session_create(?MODULE, self(), []),
    1 = trace:function(Trace, Take, [{'_', [], [{return_trace}]}], [local]),
    1 = trace:process(Trace, whereis(erl_esdb_ra_systems), true, [call]),
    Self = self(),
    _ = spawn_link(fun() -> Self ! {started, erl_esdb:start_store(Store, options(Config))} end),
    receive
        {trace, _, return_from, Take, {error, in_use}} -> ok
    end,
    {value, ok} = Call(stop_store, [Store]),
    receive
        {started, Started} -> ?assertMatch({ok, _}, Started)
    end,
    true = trace:session_destroy(Trace),
    ok = esdb_peer:stop(Peer).

a_folder_in_use(Config) ->
    Store = start(Config),
    {ok, 0} = append(Store, ?S, events(1)),
    Peer = esdb_peer:start(require),
    Start = fun() -> esdb_peer:call(Peer, erl_esdb, start_store, [Store, options(Config)]) end,
    {value, Refused} = Start(),
    ?assertEqual({error, {data_dir, dir(Config), in_use}}, Refused),
    ok = erl_esdb:stop_store(Store),
    ?assertMatch({value, {ok, _}}, Start()),
    Here = fun() -> erl_esdb:start_store(Store, options(Config)) end,
    ?assertEqual({error, {data_dir, dir(Config), in_use}}, Here()),
    ok = esdb_peer:stop(Peer),
    erl_esdb_test:await(fun() -> element(1, Here()) =:= ok end),
    ?assertMatch([_], all_events(Store)).

%% Those who are refused stay in the queue of the lock: when that is full nobody gets through.
a_lock_that_many_were_refused(Config) ->
    Dir = dir(Config),
    ok = filelib:ensure_path(Dir),
    {ok, Lock} = erl_esdb_ra_lock:take(Dir),
    [?assertEqual({error, in_use}, erl_esdb_ra_lock:take(Dir)) || _ <- lists:seq(1, 300)],
    Peer = esdb_peer:start(require),
    Take = fun() -> esdb_peer:call(Peer, erl_esdb_ra_lock, take, [Dir]) end,
    ?assertEqual({value, {error, in_use}}, Take()),
    ok = erl_esdb_ra_lock:release(Lock),
    ?assertMatch({value, {ok, {_, _}}}, Take()),
    ok = esdb_peer:stop(Peer).

%% Who has no descriptor left knows nothing of others, and takes neither what is theirs nor what is
%% nobody's.
a_lock_without_descriptors(Config) ->
    Dir = dir(Config),
    ok = filelib:ensure_path(Dir),
    {ok, Lock} = erl_esdb_ra_lock:take(Dir),
    Args = ["-c", "ulimit -n 64 && exec \"$0\" \"$@\"", os:find_executable("erl")],
    {ok, Peer, _} = peer:start_link(#{
        connection => standard_io,
        exec => {os:find_executable("sh"), Args},
        args => ["-pa" | code:get_path()]
    }),
    Taken = fun() -> peer:call(Peer, ?MODULE, taken_without_descriptors, [Dir], 60_000) end,
    ?assertEqual({error, emfile}, Taken()),
    ?assertEqual({error, in_use}, erl_esdb_ra_lock:take(Dir)),
    ok = erl_esdb_ra_lock:release(Lock),
    ?assertEqual({error, emfile}, Taken()),
    {ok, Again} = erl_esdb_ra_lock:take(Dir),
    ok = erl_esdb_ra_lock:release(Again),
    ok = peer:stop(Peer).

taken_without_descriptors(Dir) ->
    %% All that it needs is loaded.
    Elsewhere = filename:join(Dir, "elsewhere"),
    ok = filelib:ensure_path(Elsewhere),
    {ok, Lock} = erl_esdb_ra_lock:take(Elsewhere),
    {error, in_use} = erl_esdb_ra_lock:take(Elsewhere),
    ok = erl_esdb_ra_lock:release(Lock),
    {value, Answer} = esdb_peer:evaluate(?MODULE, taken, [Dir, []]),
    Answer.

taken(Dir, Files) ->
    case file:open("/dev/null", [read, raw]) of
        {ok, File} ->
            taken(Dir, [File | Files]);
        {error, emfile} ->
            Answer = erl_esdb_ra_lock:take(Dir),
            ok = lists:foreach(fun file:close/1, Files),
            Answer
    end.

a_lif_09_kill_of_the_node(Config) ->
    [Peer] = erl_esdb_nodes:start(1),
    Store = store(Config),
    ok = erl_esdb_nodes:start_store(Peer, Store, options(Config)),
    Append = fun(P, N) ->
        erl_esdb_nodes:call(P, erl_esdb_streams, append, [Store, ?S, N - 1, events(1)])
    end,
    [{ok, N} = Append(Peer, N) || N <- lists:seq(0, 49)],
    ok = erl_esdb_nodes:kill(Peer),
    Again = erl_esdb_nodes:restart(Peer),
    ok = erl_esdb_nodes:start_store(Again, Store, options(Config)),
    {ok, Events} = erl_esdb_nodes:call(Again, erl_esdb_streams, read, [Store, ?S, 0, 100, forward]),
    ?assertEqual(lists:seq(0, 49), erl_esdb_test:versions(Events)),
    ?assertEqual({ok, 50}, Append(Again, 50)),
    ok = erl_esdb_nodes:stop([Again]).

%% ---- another name

a_node_with_another_name(Config) ->
    Store = start(Config),
    ok = filled(Store),
    ok = snapshotted(Store, 1),
    {ok, _} = append(Store, <<"later">>, events(3)),
    Events = all_events(Store),
    ok = erl_esdb:stop_store(Store),
    [Peer] = erl_esdb_nodes:start(1),
    Name = erl_esdb_nodes:name(Peer),
    Call = fun(F, Args) -> erl_esdb_nodes:call(Peer, erl_esdb, F, Args) end,
    ?assertEqual(
        {error, {node_renamed, nonode@nohost, Name}}, Call(start_store, [Store, options(Config)])
    ),
    ?assertEqual({error, not_found}, Call(adopt, [no_such_store, options(Config)])),
    ?assertEqual(ok, Call(adopt, [Store, options(Config)])),
    ?assertMatch({ok, _}, Call(start_store, [Store, options(Config)])),
    ?assertEqual({ok, [Name]}, Call(members, [Store])),
    Read = fun() ->
        {ok, All} = erl_esdb_nodes:call(
            Peer, erl_esdb_streams, read_log, [Store, 0, infinity, forward, #{}]
        ),
        All
    end,
    ?assertEqual(Events, Read()),
    More = [Store, <<"later">>, 2, events(1)],
    {ok, 3} = erl_esdb_nodes:call(Peer, erl_esdb_streams, append, More),
    ok = Call(stop_store, [Store]),
    %% It is done once.
    ?assertEqual(ok, Call(adopt, [Store, options(Config)])),
    ?assertMatch({ok, _}, Call(start_store, [Store, options(Config)])),
    ?assertEqual(length(Events) + 1, length(Read())),
    ok = erl_esdb_nodes:stop([Peer]),
    %% It may be about to end.
    erl_esdb_test:await(fun() ->
        erl_esdb:start_store(Store, options(Config)) =:=
            {error, {node_renamed, Name, nonode@nohost}}
    end).

%% ---- the parts

%% What is folded is what was there when the picture was opened, whatever happens meanwhile.
a_pictures_of_tables(_Config) ->
    Change = oneof([
        {put, integer(1, 30), integer()},
        {put, integer(1, 3000), integer()},
        {remove, integer(1, 3000)}
    ]),
    erl_esdb_test:property(
        200,
        ?FORALL({Before, Meanwhile}, {list(Change), list(Change)}, begin
            Tables = erl_esdb_tables:new(),
            lists:foreach(fun(C) -> changed(C, Tables) end, many() ++ Before),
            Expected = documents(Tables),
            Picture = erl_esdb_tables:open_picture(Tables),
            lists:foreach(fun(C) -> changed(C, Tables) end, lists:sublist(Meanwhile, 3)),
            Rest = atomics:new(1, []),
            Read = fun({documents, Part}, Sum) ->
                %% Between two parts of what is read, more happens.
                Nth = atomics:add_get(Rest, 1, 1),
                More = lists:nthtail(min(Nth, length(Meanwhile)), Meanwhile),
                lists:foreach(fun(C) -> changed(C, Tables) end, More),
                maps:merge(Sum, #{Key => {Version, Index} || {Key, Version, Index} <- Part})
            end,
            {ok, Found} = erl_esdb_tables:fold_picture(Read, #{}, Picture, Tables),
            ok = erl_esdb_tables:close_picture(Picture, Tables),
            ok = erl_esdb_tables:delete(Tables),
            Found =:= Expected
        end)
    ).

many() -> [{put, N, N} || N <- lists:seq(1, 2500)].

changed({put, Key, Value}, Tables) ->
    erl_esdb_tables:write({document, {d, Key}, {Value, Value}}, Tables);
changed({remove, Key}, Tables) ->
    erl_esdb_tables:write({no_document, {d, Key}}, Tables).

documents(Tables) ->
    #{
        Key => element(2, erl_esdb_tables:document(Tables, Key))
     || {Key, _} <- erl_esdb_tables:documents(Tables, {d, 0}, {d, 5000})
    }.

a_picture_that_is_replaced(_Config) ->
    Tables = erl_esdb_tables:new(),
    lists:foreach(fun(C) -> changed(C, Tables) end, many()),
    First = erl_esdb_tables:open_picture(Tables),
    ?assertNot(erl_esdb_tables:may_open_picture(Tables, 60_000)),
    ?assert(erl_esdb_tables:may_open_picture(Tables, -1)),
    Replace = fun(_Part, none) -> erl_esdb_tables:open_picture(Tables);
                 (_Part, Second) -> Second
              end,
    ?assertEqual(gone, erl_esdb_tables:fold_picture(Replace, none, First, Tables)),
    ?assertEqual(gone, erl_esdb_tables:fold_picture(Replace, none, First, Tables)),
    ok = erl_esdb_tables:close_picture(First, Tables),
    ?assertNot(erl_esdb_tables:may_open_picture(Tables, 60_000)),
    ok = erl_esdb_tables:close_picture(First + 1, Tables),
    ?assert(erl_esdb_tables:may_open_picture(Tables, 60_000)),
    Third = erl_esdb_tables:open_picture(Tables),
    End = fun(_Part, 0) -> erl_esdb_tables:end_pictures(Tables) end,
    ?assertEqual(ended, erl_esdb_tables:fold_picture(End, 0, Third, Tables)),
    ?assertEqual(ended, erl_esdb_tables:fold_picture(End, 0, Third, Tables)),
    ?assertNot(erl_esdb_tables:may_open_picture(Tables, -1)),
    ok = erl_esdb_tables:delete(Tables).

%% While a snapshot is written each command copies what it changes, and nothing else; and none takes
%% more than its share because one begins or ends.
a_commands_cost_little_while_a_snapshot_is_written(Config) ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    Store = store(Config),
    Machine = erl_esdb_ra_machine:init(#{store => Store, limits => #{}}),
    {_, Costs} = lists:foldl(fun applied/2, {{Machine, none}, []}, lists:seq(1, 70_000)),
    ok = erl_esdb_ra_replica:close(Store),
    {Copies, Reductions, Pictures} = lists:unzip3(Costs),
    %% Three of them, of which each was open for a third of the commands.
    ?assertEqual(3, length(lists:usort(Pictures) -- [none])),
    ?assert(lists:max(Copies) =< 6),
    ?assert(lists:max(Reductions) < 200_000).

%% One append each, to 20,000 streams in turn. A picture is closed after 10,000 more.
applied(Index, {{Machine, Open}, Costs}) ->
    Stream = <<"s", (integer_to_binary(Index rem 20_000))/binary>>,
    Command = {Stream, -2, <<"body">>, {1, Index, [], any}},
    Meta = #{index => Index, term => 1, machine_version => 0, system_time => 0},
    Objects = objects(),
    {reductions, Before} = process_info(self(), reductions),
    {Machine1, {Index, {ok, _}}, Effects} = erl_esdb_ra_machine:apply(Meta, Command, Machine),
    {reductions, After} = process_info(self(), reductions),
    Cost = {objects() - Objects, After - Before, picture(Open)},
    {{Machine1, closed(Index, opened(Effects, Index, Open))}, [Cost | Costs]}.

objects() ->
    lists:sum([ets:info(T, size) || T <- ets:all(), ets:info(T, owner) =:= self()]).

picture(none) -> none;
picture({State, _Index}) -> element(1, erl_esdb_ra_machine:picture(State)).

opened(Effects, Index, Open) ->
    case [State || {release_cursor, _, State, _} <- Effects] of
        [State] when Open =:= none -> {State, Index};
        [] -> Open
    end.

closed(Index, {State, Opened}) when Index =:= Opened + 10_000 ->
    {Picture, Tables} = erl_esdb_ra_machine:picture(State),
    ok = erl_esdb_tables:close_picture(Picture, Tables),
    ok = erl_esdb_ra_machine:written(State),
    none;
closed(_Index, Open) ->
    Open.

a_live_entries_without_dead_ones(_Config) ->
    erl_esdb_test:property(
        1000,
        ?FORALL({Live, Dead}, {list(integer(1, 60)), list(integer(1, 60))}, begin
            Left = erl_esdb_ra_live:subtract(ra_seq:from_list(Live), Dead),
            Expected = ra_seq:from_list(lists:usort(Live) -- lists:usort(Dead)),
            lists:sort(ra_seq:expand(Left)) =:= lists:sort(ra_seq:expand(Expected)) andalso
                %% Ra goes on with it.
                more(Left) =:= more(Expected)
        end)
    ).

more(Live) -> ra_seq:expand(ra_seq:append(100, Live)).

%% A server that is started again without a snapshot tells so who follows its log.
a_machine_that_begins_anew_tells_who_follows(Config) ->
    Store = store(Config),
    {ok, _} = erl_esdb:start_store(Store, #{engine => memory}),
    {ok, 0} = append(Store, ?S, events(1)),
    {ok, Feed} = erl_esdb_feed:subscribe(Store),
    ?assertEqual(ready, erl_esdb_feed:wait(Feed, 0)),
    Machine = erl_esdb_ra_machine:init(#{store => Store, limits => #{}}),
    ?assertEqual(wait, erl_esdb_feed:wait(Feed, 0)),
    _ = applied(1, {{Machine, none}, []}),
    receive {erl_esdb_feed, Store} -> ok end,
    ?assertEqual(ready, erl_esdb_feed:wait(Feed, 0)),
    ok = erl_esdb_ra_replica:close(Store).

%% ---- replicas

%% Who waits on a replica hears at once that another takes its place, whenever it began to wait.
a_who_waits_is_told_that_a_replica_is_replaced(Config) ->
    Store = store(Config),
    Replaced = fun(Wait) ->
        Replica = published(Store),
        Waiters = [waiter(Replica) || _ <- lists:seq(1, 3)],
        ok = Wait(Waiters),
        _ = published(Store),
        [?assertEqual({error, not_started}, answer(Waiter)) || Waiter <- Waiters]
    end,
    Replaced(fun(Waiters) -> erl_esdb_test:await(fun() -> lists:all(fun waits/1, Waiters) end) end),
    [Replaced(fun(_) -> ok end) || _ <- lists:seq(1, 300)],
    ok = erl_esdb_ra_replica:close(Store).

published(Store) ->
    Replica = erl_esdb_ra_replica:open(Store),
    ok = erl_esdb_ra_replica:publish(Replica),
    Replica.

waiter(Replica) ->
    spawn_monitor(fun() ->
        Until = erl_esdb_deadline:in(30_000),
        exit({answer, erl_esdb_ra_replica:await(Replica, 1, Until)})
    end).

waits({Pid, _}) -> process_info(Pid, status) =:= {status, waiting}.

answer({_, Ref}) ->
    receive
        {'DOWN', Ref, process, _, {answer, Answer}} -> Answer
    end.
