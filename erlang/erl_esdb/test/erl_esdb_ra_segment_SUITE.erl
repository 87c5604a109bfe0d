-module(erl_esdb_ra_segment_SUITE).
-moduledoc """
What is read from Ra's files without Ra is what Ra would have read: a release of Ra that changes its
files, or what it says of them, fails here.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").
-include_lib("proper/include/proper.hrl").
-include("../src/log/erl_esdb_log.hrl").

suite() -> [{timetrap, {minutes, 5}}].

all() ->
    case lists:member(ra, erl_esdb_test:engines()) of
        true -> [{group, segments}, {group, ra}];
        false -> []
    end.

groups() ->
    [
        {segments, [], [
            a_segment_is_read_as_ra_reads_it,
            a_segment_of_the_version_before,
            replaced_entries_are_not_served,
            a_segment_that_grows,
            a_damaged_entry,
            an_entry_without_a_checksum,
            a_segment_that_was_cut_off,
            a_file_that_is_no_segment
        ]},
        {ra, [], [
            the_plan_is_of_the_form_that_is_known,
            scattered_events_are_complete,
            a_segment_that_grew_between_two_reads,
            what_is_read_in_the_background_is_not_kept,
            nobody_waits_behind_the_background,
            a_damaged_event_among_others_is_named,
            what_is_too_large_is_left_to_ra
        ]}
    ].

init_per_group(ra, Config) -> erl_esdb_test:init_per_group(ra, Config);
init_per_group(_, Config) -> Config.

end_per_group(ra, Config) -> erl_esdb_test:end_per_group(ra, Config);
end_per_group(_, _Config) -> ok.

init_per_testcase(Case, Config) ->
    Name = filename:join(?config(priv_dir, Config), atom_to_list(Case) ++ ".segment"),
    [{store, Case}, {name, Name}, {options, (erl_esdb_test:options())#{read_cache => 1}} | Config].

end_per_testcase(Case, _Config) ->
    _ = erl_esdb:stop_store(Case),
    ok.

%% ---- segments that Ra has written

entry(Index) -> {entry, Index, binary:copy(<<Index:32>>, Index rem 97)}.

written(Config, Indexes) -> written(Config, Indexes, fun entry/1).

written(Config, Indexes, Entry) ->
    Name = ?config(name, Config),
    {ok, Segment} = ra_log_segment:open(Name, #{max_count => 1000}),
    ok = close(appended(Segment, Indexes, Entry)),
    Name.

appended(Segment, Indexes, Entry) ->
    Append = fun(Index, Sum) ->
        {ok, Sum1} = ra_log_segment:append(Sum, Index, 1, term_to_binary(Entry(Index))),
        Sum1
    end,
    lists:foldl(Append, Segment, Indexes).

close(Segment) ->
    {ok, Synced} = ra_log_segment:sync(Segment),
    ra_log_segment:close(Synced).

%% What Ra reads of a segment: all entries.
by_ra(Name) ->
    {ok, Segment} = ra_log_segment:open(Name, #{mode => read}),
    {First, Last} = ra_log_segment:range(Segment),
    Has = fun(Index) -> ra_log_segment:term_query(Segment, Index) =/= undefined end,
    Indexes = lists:filter(Has, lists:seq(First, Last)),
    Add = fun(Index, _Term, Bytes, Sum) -> Sum#{Index => binary_to_term(Bytes)} end,
    {ok, _, Entries} = ra_log_segment:read_sparse(Segment, Indexes, Add, #{}),
    ok = ra_log_segment:close(Segment),
    Entries.

opened(Name) ->
    {ok, Segment} = erl_esdb_ra_segment:open(Name),
    Segment.

a_segment_is_read_as_ra_reads_it(Config) ->
    %% As a compaction leaves them: some without a neighbour.
    Around = lists:seq(100, 499) ++ lists:seq(641, 900),
    Indexes = [Index || Index <- Around, Index rem 7 =/= 0, Index rem 11 =/= 3],
    Name = written(Config, Indexes),
    All = by_ra(Name),
    ?assertEqual(Indexes, lists:sort(maps:keys(All))),
    Segment = opened(Name),
    Property = ?FORALL(Asked, list(integer(90, 910)), begin
        Sorted = lists:usort(Asked),
        There = maps:with(Sorted, All),
        Word =
            case map_size(There) =:= length(Sorted) of
                true -> ok;
                false -> missing
            end,
        {Word, There} =:= erl_esdb_ra_segment:entries(Sorted, Segment, earlier)
    end),
    ?assert(proper:quickcheck(Property, [quiet, {numtests, 500}, {max_size, 100}])),
    ?assertEqual({ok, All}, erl_esdb_ra_segment:entries(Indexes, Segment, earlier)),
    ok = erl_esdb_ra_segment:close(Segment).

%% Offsets had 32 bits. Ra does not write it any more, and still reads it.
a_segment_of_the_version_before(Config) ->
    Entries = [{I, term_to_binary(entry(I))} || I <- lists:seq(5, 20)],
    Begin = 8 + 32 * 28,
    {Records, _} = lists:mapfoldl(
        fun({I, Bytes}, At) ->
            Size = byte_size(Bytes),
            {<<I:64, 1:64, At:32, Size:32, (erlang:crc32(Bytes)):32>>, At + Size}
        end,
        Begin,
        Entries
    ),
    Index = iolist_to_binary(Records),
    Zeros = <<0:(8 * (Begin - 8 - byte_size(Index)))>>,
    File = [<<"RASG", 1:16, 32:16>>, Index, Zeros, [Bytes || {_, Bytes} <- Entries]],
    ok = file:write_file(?config(name, Config), File),
    All = by_ra(?config(name, Config)),
    ?assertEqual(#{I => entry(I) || {I, _} <- Entries}, All),
    Segment = opened(?config(name, Config)),
    ?assertEqual({ok, All}, erl_esdb_ra_segment:entries(lists:seq(5, 20), Segment, earlier)).

%% A leader that was deposed may have written entries that another one wrote anew.
replaced_entries_are_not_served(Config) ->
    Name = written(Config, lists:seq(1, 10) ++ [5, 6, 7] ++ [3, 4]),
    All = by_ra(Name),
    ?assertEqual([1, 2, 3, 4], lists:sort(maps:keys(All))),
    ?assertEqual(
        {missing, All}, erl_esdb_ra_segment:entries(lists:seq(1, 10), opened(Name), earlier)
    ),
    %% The last one counts.
    Tag = counters:new(1, []),
    Counted = fun(Index) -> {entry, Index, counters:add(Tag, 1, 1), counters:get(Tag, 1)} end,
    Other = written([{name, Name ++ "2"} | Config], [1, 2, 3, 2, 3, 3], Counted),
    All2 = by_ra(Other),
    ?assertEqual({ok, All2}, erl_esdb_ra_segment:entries([1, 2, 3], opened(Other), earlier)),
    ?assertEqual([1, 4, 6], [element(4, maps:get(I, All2)) || I <- [1, 2, 3]]).

a_segment_that_grows(Config) ->
    Name = written(Config, lists:seq(1, 10)),
    Segment = opened(Name),
    ?assertMatch({ok, #{10 := _}}, erl_esdb_ra_segment:entries([10], Segment, earlier)),
    {ok, Again} = ra_log_segment:open(Name, #{max_count => 1000}),
    ok = close(appended(Again, [10, 11], fun(I) -> {other, I} end)),
    ?assertEqual({error, grown}, erl_esdb_ra_segment:entries([10], Segment, earlier)),
    ?assertEqual(
        {ok, #{10 => {other, 10}, 11 => {other, 11}}},
        erl_esdb_ra_segment:entries([10, 11], opened(Name), earlier)
    ),
    %% What a crash leaves behind the last entry does not count as written.
    {ok, File} = file:open(Name, [read, append, raw]),
    ok = file:write(File, ~"left behind"),
    ok = file:close(File),
    ?assertMatch({ok, #{11 := _}}, erl_esdb_ra_segment:entries([11], opened(Name), now)).

a_damaged_entry(Config) ->
    Name = written(Config, lists:seq(1, 100)),
    All = by_ra(Name),
    {ok, Bytes} = file:read_file(Name),
    {At, _} = binary:match(Bytes, term_to_binary(entry(50))),
    {ok, File} = file:open(Name, [read, write, raw]),
    ok = file:pwrite(File, At + 20, ~"X"),
    ok = file:close(File),
    ?assertEqual(
        {damaged, maps:remove(50, All)},
        erl_esdb_ra_segment:entries(lists:seq(1, 100), opened(Name), earlier)
    ),
    ?assertMatch({ok, _}, erl_esdb_ra_segment:entries([49, 51], opened(Name), earlier)).

%% As Ra writes them when it is told to compute none: what is no term is damaged all the same.
an_entry_without_a_checksum(Config) ->
    Whole = term_to_binary(entry(1)),
    Begin = 8 + 2 * 32,
    Record = fun(Index, At, Crc) ->
        <<Index:64, 1:64, At:64, (byte_size(Whole)):32, Crc:32>>
    end,
    [
        begin
            Records = [Record(1, Begin, 0), Record(2, Begin + byte_size(Whole), Crc)],
            File = [<<"RASG", 2:16, 2:16>>, Records, Whole, Bad],
            ok = file:write_file(?config(name, Config), File),
            ?assertEqual(
                {damaged, #{1 => entry(1)}},
                erl_esdb_ra_segment:entries([1, 2], opened(?config(name, Config)), earlier)
            )
        end
     || Bad <- [<<0:(8 * byte_size(Whole))>>], Crc <- [0, erlang:crc32(Bad)]
    ].

a_segment_that_was_cut_off(Config) ->
    Name = written(Config, lists:seq(1, 100)),
    {ok, File} = file:open(Name, [read, write, raw]),
    {ok, _} = file:position(File, {eof, -1}),
    ok = file:truncate(File),
    ok = file:close(File),
    {Word, Entries} = erl_esdb_ra_segment:entries(lists:seq(1, 100), opened(Name), earlier),
    ?assertEqual({damaged, lists:seq(1, 99)}, {Word, lists:sort(maps:keys(Entries))}).

a_file_that_is_no_segment(Config) ->
    Name = ?config(name, Config),
    ?assertEqual({error, enoent}, erl_esdb_ra_segment:open(Name)),
    [
        begin
            ok = file:write_file(Name, Bytes),
            ?assertEqual({error, unknown_format}, erl_esdb_ra_segment:open(Name))
        end
     || Bytes <- [<<>>, <<"RASG">>, <<"RASX", 2:16, 0:16>>, <<"RASG", 3:16, 0:16>>]
    ].

%% ---- with a store

start(Config) ->
    {ok, _} = erl_esdb:start_store(?config(store, Config), ?config(options, Config)),
    ?config(store, Config).

%% With a start all is in segments, and nothing in memory but the last body that was applied.
restart(Config) ->
    ok = erl_esdb:stop_store(?config(store, Config)),
    start(Config).

server(Store) -> erl_esdb_test:server(Store).

dir(Config) -> maps:get(data_dir, ?config(options, Config)).

segments(Config) -> filelib:wildcard(dir(Config) ++ "/*/*.segment").

%% When this fails a new release of Ra is used, and `erl_esdb_ra_reader' leaves all to it, which is
%% slow: look at what its plans are now.
the_plan_is_of_the_form_that_is_known(Config) ->
    Store = start(Config),
    {ok, 9} = erl_esdb_streams:append(Store, ~"s", any, erl_esdb_test:events(10)),
    {ok, 10} = erl_esdb_streams:append(Store, ~"s", any, erl_esdb_test:events(1)),
    Indexes = [Index || {Index, _} <- appends(Store)],
    {ok, Memory} = gen_statem:call(server(Store), {local_call, {read_entries, Indexes}}),
    ?assertMatch({read_plan, _, #{}, []}, Memory),
    {read_plan, _, Read, []} = Memory,
    ?assertEqual(Indexes, lists:sort(maps:keys(Read))),
    [?assertMatch({I, _, {'$usr', _, {~"s", _, _, {_, _, _, _}}, _}}, E) || I := E <- Read],
    _ = restart(Config),
    ok = erl_esdb_test:await(fun() ->
        {ok, Plan} = gen_statem:call(server(Store), {local_call, {read_entries, Indexes}}),
        #{num_in_segments := Count} = ra_log:read_plan_info(Plan),
        Count =:= 2
    end),
    {ok, {read_plan, Dir, None, Parts}} =
        gen_statem:call(server(Store), {local_call, {read_entries, Indexes}}),
    ?assertEqual(#{}, None),
    ?assertEqual(Indexes, lists:sort(lists:append([Part || {_, Part} <- Parts]))),
    [?assert(filelib:is_regular(filename:join(Dir, Name))) || {Name, _} <- Parts].

%% The indexes of the appends of a store, with what they did.
appends(Store) ->
    {ok, Replica} = erl_esdb_ra_replica:find(Store),
    Spans = erl_esdb_tables:log_spans(
        erl_esdb_ra_replica:tables(Replica), 0, infinity, forward, #{hidden => true}
    ),
    [
        {Index, {append, Stream, Count}}
     || {Stream, {#row{index = Index, count = Count}, _, _}} <- Spans
    ].

wanted(Store) -> maps:from_list(appends(Store)).

names() -> [<<"stream-", N>> || N <- "abcdefg"].

scattered(Store) ->
    [
        {ok, _} = erl_esdb_streams:append(Store, Name, any, erl_esdb_test:events(Count))
     || Round <- lists:seq(1, 150), Name <- names(), Count <- [1 + Round rem 3]
    ],
    #{Name => read(Store, Name) || Name <- names()}.

read(Store, Name) ->
    {ok, Events} = erl_esdb_streams:read(Store, Name, 0, infinity, forward),
    Events.

scattered_events_are_complete(Config) ->
    Store = start(Config),
    Before = scattered(Store),
    {ok, Log} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    Windows = {oneof(names()), integer(0, 320), integer(1, 90)},
    Property = ?FORALL({Name, From, Count}, Windows, begin
        Wanted = lists:seq(From, From + Count - 1),
        Window = [E || E <- maps:get(Name, Before), lists:member(element(5, E), Wanted)],
        {ok, Window} =:= erl_esdb_streams:read(Store, Name, From, Count, forward) andalso
            {ok, lists:reverse(Window)} =:=
                erl_esdb_streams:read(Store, Name, From + Count - 1, Count, backward)
    end),
    _ = restart(Config),
    ?assert(proper:quickcheck(Property, [quiet, {numtests, 60}])),
    _ = restart(Config),
    ?assertEqual({ok, Log}, erl_esdb_streams:read_log(Store, 0, infinity, forward, #{})),
    _ = restart(Config),
    ?assertEqual(Before, #{Name => read(Store, Name) || Name <- names()}).

%% The reader has the file open, and what comes to it with the next start of a log file is found.
a_segment_that_grew_between_two_reads(Config) ->
    Store = start(Config),
    Before = scattered(Store),
    _ = restart(Config),
    _ = read(Store, ~"stream-a"),
    {ok, Last} = erl_esdb_streams:append(Store, ~"late", any, erl_esdb_test:events(3)),
    {ok, System} = erl_esdb_ra_systems:acquire(dir(Config)),
    #{names := #{wal := Wal}} = ra_system:fetch(System),
    ok = ra_log_wal:force_roll_over(Wal),
    Indexes = [Index || {Index, _} <- appends(Store)],
    ok = erl_esdb_test:await(fun() ->
        {ok, Plan} = gen_statem:call(server(Store), {local_call, {read_entries, Indexes}}),
        maps:get(num_read, ra_log:read_plan_info(Plan)) =:= 0
    end),
    ok = erl_esdb_ra_systems:release(dir(Config)),
    [Reader | _] = readers(Store),
    {ok, Replica} = erl_esdb_ra_replica:find(Store),
    Until = erl_esdb_deadline:in(60_000),
    {ok, Found} = erl_esdb_ra_reader:fetch(Reader, wanted(Store), Replica, keep, Until),
    ?assertEqual(Indexes, lists:sort(maps:keys(Found))),
    ?assertEqual(2, Last),
    ?assertEqual(Before, #{Name => read(Store, Name) || Name <- names()}).

readers(Store) ->
    {ok, _, Handle, _} = erl_esdb_engine:find(Store),
    Tuples = [Part || Part <- tuple_to_list(Handle), is_tuple(Part)],
    [Readers] = [Tuple || Tuple <- Tuples, is_pid(element(1, Tuple))],
    tuple_to_list(Readers).

%% Neither by the engine's word, nor when the index is made anew: what callers have read stays.
what_is_read_in_the_background_is_not_kept(Config0) ->
    Options = (?config(options, Config0))#{read_cache => 40_000},
    Config = lists:keystore(options, 1, Config0, {options, Options}),
    Store = start(Config),
    _ = scattered(Store),
    _ = restart(Config),
    ok = indexed(Store),
    {ok, Some} = erl_esdb_streams:read(Store, ~"stream-a", 0, 50, forward),
    ?assertEqual(50, length(Some)),
    Kept = kept(Store),
    ?assert(Kept =/= [] andalso length(Kept) < length(appends(Store)), Kept),
    All = log(Store, #{background => true}),
    ?assertEqual(length(appends(Store)), length(All)),
    ?assertEqual(Kept, kept(Store)),
    [{_, Index, _}] = ets:lookup(erl_esdb_index, Store),
    Monitor = monitor(process, Index),
    exit(Index, kill),
    receive
        {'DOWN', Monitor, process, _, killed} -> ok
    end,
    ok = indexed(Store),
    ?assertEqual(Kept, kept(Store)),
    ?assertEqual(All, log(Store, #{})),
    ?assertNotEqual(Kept, kept(Store)).

%% All that there is now.
indexed(Store) ->
    {ok, []} = erl_esdb_index:events(Store, type, ~"NoSuchType", #{timeout => 60_000}),
    ok.

log(Store, Options) ->
    {ok, Engine, Handle, _} = erl_esdb_engine:find(Store),
    {ok, Pieces} = Engine:read_log(Handle, 0, infinity, forward, Options),
    Pieces.

%% The indexes of the appends whose events are in memory.
kept(Store) ->
    {ok, Replica} = erl_esdb_ra_replica:find(Store),
    Indexes = [Index || {Index, _} <- appends(Store)],
    Bodies = erl_esdb_ra_replica:bodies(Indexes, pass, Replica),
    [Index || {Index, Body} <- lists:zip(Indexes, Bodies), Body =/= none].

%% Who has not moved on cannot have answered.
nobody_waits_behind_the_background(Config) ->
    Store = start(Config),
    _ = scattered(Store),
    _ = restart(Config),
    ok = indexed(Store),
    {Name, _} = server(Store),
    Label = {erl_esdb_ra_reader, background, Name},
    [Background] = [Pid || Pid <- processes(), proc_lib:get_label(Pid) =:= Label],
    ok = lists:foreach(fun sys:suspend/1, readers(Store)),
    All = log(Store, #{background => true}),
    ok = lists:foreach(fun sys:resume/1, readers(Store)),
    ok = sys:suspend(Background),
    ?assertEqual(All, log(Store, #{})),
    ok = sys:resume(Background).

a_damaged_event_among_others_is_named(Config) ->
    Store = start(Config),
    Marked = #{event_type => ~"T", data => #{mark => ~"0123456789abcdef"}},
    [{ok, _} = erl_esdb_streams:append(Store, N, any, erl_esdb_test:events(1)) || N <- names()],
    {ok, 1} = erl_esdb_streams:append(Store, ~"stream-c", any, [Marked]),
    [{ok, _} = erl_esdb_streams:append(Store, N, any, erl_esdb_test:events(1)) || N <- names()],
    Before = #{N => read(Store, N) || N <- names(), N =/= ~"stream-c"},
    _ = restart(Config),
    [File] = [F || F <- segments(Config), erl_esdb_disk:damage(F, ~"0123456789abcdef")],
    ?assert(filelib:is_regular(File)),
    ?assertEqual({error, {corrupt_events, ~"stream-c", 1}}, read_all(Store, ~"stream-c")),
    ?assertMatch({ok, [_]}, erl_esdb_streams:read(Store, ~"stream-c", 0, 1, forward)),
    ?assertMatch({ok, [_]}, erl_esdb_streams:read(Store, ~"stream-c", 2, 1, forward)),
    ?assertEqual(Before, #{Name => read(Store, Name) || Name := _ <- Before}).

read_all(Store, Name) -> erl_esdb_streams:read(Store, Name, 0, infinity, forward).

%% More than one call to read a file may bring.
what_is_too_large_is_left_to_ra(Config) ->
    Large = 100_000_000,
    Options = (?config(options, Config))#{max_event_size => Large, max_batch_size => Large},
    Store = ?config(store, Config),
    {ok, _} = erl_esdb:start_store(Store, Options),
    Event = #{event_type => ~"T", data => binary:copy(~"x", 67_108_864)},
    {ok, 0} = erl_esdb_streams:append(Store, ~"before", any, erl_esdb_test:events(1)),
    {ok, 0} = erl_esdb_streams:append(Store, ~"large", any, [Event]),
    {ok, 0} = erl_esdb_streams:append(Store, ~"small", any, erl_esdb_test:events(1)),
    ok = erl_esdb:stop_store(Store),
    {ok, _} = erl_esdb:start_store(Store, Options),
    %% A reader does not keep a file that it has closed for that.
    [Reader | _] = readers(Store),
    {ok, Replica} = erl_esdb_ra_replica:find(Store),
    Fetched = fun(Name) ->
        Wanted = #{Index => Did || Index := {append, Of, _} = Did <- wanted(Store), Of =:= Name},
        Until = erl_esdb_deadline:in(60_000),
        {ok, Bodies} = erl_esdb_ra_reader:fetch(Reader, Wanted, Replica, keep, Until),
        {map_size(Bodies), open_files(Reader)}
    end,
    %% In the same file.
    ?assertEqual({1, 1}, Fetched(~"before")),
    ?assertEqual({1, 0}, Fetched(~"large")),
    {ok, [Read]} = erl_esdb_streams:read(Store, ~"large", 0, 10, forward),
    ?assertEqual(67_108_864, byte_size(element(6, Read))),
    ?assertMatch({ok, [_]}, erl_esdb_streams:read(Store, ~"small", 0, 10, forward)).

open_files(Reader) ->
    {state, _, Open} = sys:get_state(Reader),
    ra_flru:size(Open).
