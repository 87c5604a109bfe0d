-module(erl_esdb_archive_SUITE).
-moduledoc "Archives: keys, files, and streams that go on into them, row by row of the checklist.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-import(erl_esdb_archive_backend, [make_key/4, make_key/5, parse_key/1]).
-import(erl_esdb_test, [versions/1, events/1]).

-define(FILE_BACKEND, erl_esdb_archive_file).
-define(S, <<"orders-1">>).
-define(KEY, <<"my_store/orders-123/0-99.archive">>).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    Functions = [atom_to_list(F) || {F, 1} <- ?MODULE:module_info(exports)],
    [list_to_atom(F) || F <- Functions, [C, $_ | _] <- [F], lists:member(C, "abt")].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(Case, Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(Case)),
    [{dir, Dir}, {store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

dir(Config) -> proplists:get_value(dir, Config).

files(Config) -> files(Config, #{}).

files(Config, Options) ->
    {ok, State} = ?FILE_BACKEND:init(Options#{base_dir => dir(Config)}),
    State.

%% Recorded events of a stream.
recorded(Config, Stream, New) ->
    {ok, _} = erl_esdb_streams:append(store(Config), Stream, any, New),
    {ok, Events} = erl_esdb_streams:read(store(Config), Stream, 0, infinity, forward),
    Events.

paths(Config, Wildcard) ->
    filelib:wildcard(filename:join([dir(Config), "**", Wildcard])).

%% ---- keys

a_arc_01_make_key(_Config) ->
    ?assertEqual(?KEY, make_key(my_store, <<"orders-123">>, 0, 99)).

a_arc_02_parse_key(_Config) ->
    ?assertEqual(
        {ok, #{
            store_id => my_store, stream_id => <<"orders-123">>, from_version => 0, to_version => 99
        }},
        parse_key(?KEY)
    ),
    Part = ?LET(Text, list(oneof([$a, $7, $B])), list_to_binary(Text)),
    Property = ?FORALL(
        {Stream, From, Count, Incarnation},
        {oneof([erl_esdb_data_gen:stream(), binary()]), non_neg_integer(), non_neg_integer(), Part},
        begin
            Parsed = #{
                store_id => my_store,
                stream_id => Stream,
                from_version => From,
                to_version => From + Count
            },
            {ok, Parsed} =:= parse_key(make_key(my_store, Stream, From, From + Count)) andalso
                (Incarnation =:= <<>> orelse
                    {ok, Parsed#{incarnation => Incarnation}} =:=
                        parse_key(make_key(my_store, Stream, From, From + Count, Incarnation)))
        end
    ),
    erl_esdb_test:property(300, Property).

a_arc_03_invalid_keys(_Config) ->
    Invalid = [
        <<>>,
        <<"my_store">>,
        <<"my_store/0-99.archive">>,
        <<"my_store/orders/1/0-99.archive">>,
        <<"my_store/orders/0-99">>,
        <<"my_store/orders/0-99.zip">>,
        <<"my_store/orders/0-x.archive">>,
        <<"my_store/orders/a-9.archive">>,
        <<"my_store/orders/-1-9.archive">>,
        <<"my_store/orders/00-9.archive">>,
        <<"my_store/orders/+0-9.archive">>,
        <<"my_store/orders/0.archive">>,
        <<"my_store/orders/0-9..archive">>,
        <<"my_store/orders/0-9.a-b.archive">>,
        <<"my_store/orders/0-9.a.b.archive">>,
        <<"my_store/../0-9.archive">>,
        <<"../orders/0-9.archive">>,
        <<"my_store/%2e/0-9.archive">>,
        <<"my_store/%6F/0-9.archive">>,
        <<"my_store/%/0-9.archive">>,
        <<"my_store/a b/0-9.archive">>,
        <<"my_store/orders/0-9.archive/">>,
        <<"/my_store/orders/0-9.archive">>,
        <<"no_atom_of_this_node_1/orders/0-9.archive">>,
        my_key,
        "my_store/orders-123/0-99.archive"
    ],
    [?assertEqual({Key, {error, invalid_key}}, {Key, parse_key(Key)}) || Key <- Invalid],
    ?assertError(badarg, make_key(my_store, <<"s">>, -1, 2)),
    ?assertError(badarg, make_key(my_store, <<"s">>, 0, 2, <<"../..">>)),
    ?assertError(badarg, make_key(my_store, <<"s">>, 0, 2, <<>>)).

a_arc_14_the_behaviour(_Config) ->
    ?assertEqual(
        lists:sort([{init, 1}, {archive, 3}, {read, 2}, {list, 3}, {delete, 2}, {exists, 2}]),
        lists:sort(erl_esdb_archive_backend:behaviour_info(callbacks))
    ).

%% ---- files

a_arc_04_init(Config) ->
    Dir = filename:join(dir(Config), "a/b"),
    ?assertMatch({ok, _}, ?FILE_BACKEND:init(#{base_dir => Dir})),
    ?assert(filelib:is_dir(Dir)),
    Binary = list_to_binary(Dir ++ "2"),
    ?assertMatch({ok, _}, ?FILE_BACKEND:init(#{base_dir => Binary})),
    ?assert(filelib:is_dir(Binary)).

t_28_base_path(Config) ->
    {ok, State} = ?FILE_BACKEND:init(#{base_path => dir(Config)}),
    {ok, State1} = ?FILE_BACKEND:archive(State, ?KEY, []),
    ?assertMatch({ok, [], _}, ?FILE_BACKEND:read(State1, ?KEY)),
    ?assertMatch({ok, [], _}, ?FILE_BACKEND:read(files(Config), ?KEY)).

a_arc_05_missing_and_bad_options(Config) ->
    ?assertEqual({error, {missing_option, base_dir}}, ?FILE_BACKEND:init(#{})),
    Bad = [
        {base_dir, undefined}, {dictionary_size, 1}, {level, 0}, {level, high}, {atoms, some}
    ],
    [
        ?assertEqual(
            {error, {invalid_option, Key, Value}},
            ?FILE_BACKEND:init(maps:merge(#{base_dir => dir(Config)}, #{Key => Value}))
        )
     || {Key, Value} <- Bad
    ].

a_arc_06_round_trip(Config) ->
    Events = recorded(Config, ?S, events(3)),
    {ok, State} = ?FILE_BACKEND:archive(files(Config), ?KEY, Events),
    ?assertMatch({ok, Events, _}, ?FILE_BACKEND:read(State, ?KEY)),
    %% By another one, who knows nothing but the folder.
    ?assertMatch({ok, Events, _}, ?FILE_BACKEND:read(files(Config), ?KEY)),
    ?assertEqual([], paths(Config, "*.tmp")).

%% Any events, of any streams, also terms that have no place in a segment.
b_any_events_round_trip(Config) ->
    State = files(Config, #{dictionary_size => 256}),
    Property = ?FORALL(
        {Stream, New},
        {erl_esdb_data_gen:stream(), erl_esdb_data_gen:new_events()},
        begin
            Name = <<Stream/binary, (integer_to_binary(erlang:unique_integer()))/binary>>,
            Events = recorded(Config, Name, New),
            Key = make_key(store(Config), Name, 0, length(Events) - 1),
            {ok, State1} = ?FILE_BACKEND:archive(State, Key, Events),
            {ok, Read, _} = ?FILE_BACKEND:read(State1, Key),
            {ok, Read1, _} = ?FILE_BACKEND:read(State, Key),
            Events =:= Read andalso Events =:= Read1 andalso
                {ok, [Key], State} =:= ?FILE_BACKEND:list(State, store(Config), Name)
        end
    ),
    erl_esdb_test:property(30, Property).

b_terms_without_a_place_in_a_segment(Config) ->
    New = [
        #{event_type => <<"t">>, data => Data}
     || Data <- [#{pid => self()}, #{}, #{f => fun lists:map/2, r => make_ref()}]
    ],
    Events = recorded(Config, ?S, New),
    {ok, State} = ?FILE_BACKEND:archive(files(Config), ?KEY, Events),
    ?assertMatch({ok, Events, _}, ?FILE_BACKEND:read(State, ?KEY)).

b_an_archive_of_many_segments(Config) ->
    Large = #{event_type => <<"t">>, data => binary:copy(<<0>>, 10_000_000)},
    Events = recorded(Config, ?S, events(9000)) ++ recorded(Config, <<"large">>, [Large, Large]),
    {ok, State} = ?FILE_BACKEND:archive(files(Config), ?KEY, Events),
    {ok, Read, _} = ?FILE_BACKEND:read(State, ?KEY),
    ?assert(Events =:= Read).

a_arc_07_an_absent_archive(Config) ->
    ?assertEqual({error, {archive_not_found, ?KEY}}, ?FILE_BACKEND:read(files(Config), ?KEY)).

a_arc_08_a_corrupt_archive(Config) ->
    Events = recorded(Config, ?S, events(50)),
    {ok, State} = ?FILE_BACKEND:archive(files(Config), ?KEY, Events),
    [Path] = paths(Config, "*.archive"),
    {ok, Good} = file:read_file(Path),
    Corrupt = {error, {corrupted_archive, ?KEY}},
    Property = ?FORALL({At, Bit}, {range(0, byte_size(Good) - 1), range(0, 7)}, begin
        <<Head:At/binary, Byte, Tail/binary>> = Good,
        Changed = Byte bxor (1 bsl Bit),
        ok = file:write_file(Path, <<Head/binary, Changed, Tail/binary>>),
        %% The third byte is the format: one that is not known may be that of a later release.
        Expected =
            case At =:= 2 andalso Changed > Byte of
                true -> {error, {unsupported_version, Changed}};
                false -> Corrupt
            end,
        Expected =:= ?FILE_BACKEND:read(State, ?KEY)
    end),
    erl_esdb_test:property(300, Property),
    Others = [
        <<>>,
        <<"garbage">>,
        binary_part(Good, 0, byte_size(Good) - 1),
        binary_part(Good, 0, 4),
        <<Good/binary, 0>>,
        <<Good/binary, Good/binary>>
    ],
    [
        begin
            ok = file:write_file(Path, Other),
            ?assertEqual(Corrupt, ?FILE_BACKEND:read(State, ?KEY))
        end
     || Other <- Others
    ],
    %% It is replaced when it is archived again.
    {ok, State1} = ?FILE_BACKEND:archive(State, ?KEY, Events),
    ?assertMatch({ok, Events, _}, ?FILE_BACKEND:read(State1, ?KEY)).

b_an_archive_under_another_name_is_corrupt(Config) ->
    Events = recorded(Config, ?S, events(5)),
    {ok, State} = ?FILE_BACKEND:archive(files(Config), ?KEY, Events),
    [Path] = paths(Config, "*.archive"),
    ok = file:rename(Path, filename:join(filename:dirname(Path), "100-199.archive")),
    Key = make_key(my_store, <<"orders-123">>, 100, 199),
    ?assertEqual({error, {corrupted_archive, Key}}, ?FILE_BACKEND:read(State, Key)).

b_an_archive_is_not_changed(Config) ->
    [E1, E2] = recorded(Config, ?S, events(2)),
    {ok, State} = ?FILE_BACKEND:archive(files(Config), ?KEY, [E1]),
    ?assertMatch({ok, _}, ?FILE_BACKEND:archive(State, ?KEY, [E1])),
    Refused = ?FILE_BACKEND:archive(State, ?KEY, [E2]),
    ?assertEqual({error, {archive_exists, ?KEY}}, Refused),
    ?assertMatch({ok, [E1], _}, ?FILE_BACKEND:read(State, ?KEY)).

a_arc_09_list(Config) ->
    State = files(Config),
    ?assertEqual({ok, [], State}, ?FILE_BACKEND:list(State, my_store, <<"orders-123">>)),
    Keys = [
        make_key(my_store, <<"orders-123">>, From, To)
     || {From, To} <- [{0, 9}, {10, 99}, {100, 101}]
    ],
    Other = make_key(my_store, <<"orders-1234">>, 0, 9),
    [{ok, _} = ?FILE_BACKEND:archive(State, Key, []) || Key <- [Other | lists:reverse(Keys)]],
    %% What is no archive is passed over.
    Folder = filename:dirname(hd(paths(Config, "0-9.archive"))),
    ok = file:write_file(filename:join(Folder, "notes.txt"), <<"x">>),
    ok = file:write_file(filename:join(Folder, "0-9.archive.ab12.tmp"), <<"x">>),
    ?assertEqual({ok, Keys, State}, ?FILE_BACKEND:list(State, my_store, <<"orders-123">>)),
    ?assertEqual({ok, [], State}, ?FILE_BACKEND:list(State, my_store, <<"orders">>)),
    ?assertEqual({ok, [], State}, ?FILE_BACKEND:list(State, other_store, <<"orders-123">>)),
    ok = file:write_file(filename:join([dir(Config), "my_store", "file"]), <<"x">>),
    ?assertEqual(
        {error, {list_failed, enotdir}}, ?FILE_BACKEND:list(State, my_store, <<"file">>)
    ).

a_arc_10_delete(Config) ->
    {ok, State} = ?FILE_BACKEND:archive(files(Config), ?KEY, []),
    {ok, State1} = ?FILE_BACKEND:delete(State, ?KEY),
    ?assertEqual({error, {archive_not_found, ?KEY}}, ?FILE_BACKEND:read(State1, ?KEY)),
    ?assertMatch({ok, _}, ?FILE_BACKEND:delete(State1, ?KEY)).

a_arc_11_exists(Config) ->
    State = files(Config),
    ?assertEqual({false, State}, ?FILE_BACKEND:exists(State, ?KEY)),
    {ok, State1} = ?FILE_BACKEND:archive(State, ?KEY, []),
    ?assertMatch({true, _}, ?FILE_BACKEND:exists(State1, ?KEY)).

a_arc_12_no_path_climbs_out(Config) ->
    State = files(Config),
    Keys = [
        <<"../orders/0-9.archive">>,
        <<"my_store/../0-9.archive">>,
        <<"my_store/orders/../0-9.archive">>,
        <<"my_store/orders/..%2F0-9.archive">>,
        <<"../../x/0-9.archive">>,
        <<"/etc/orders/0-9.archive">>,
        <<"my_store/", 0, "/0-9.archive">>,
        <<"./orders/0-9.archive">>,
        <<"my_store/~dictionaries/0-9.archive">>
    ],
    [
        begin
            Refused = {error, {invalid_key, Key}},
            ?assertEqual(Refused, ?FILE_BACKEND:archive(State, Key, [])),
            ?assertEqual(Refused, ?FILE_BACKEND:read(State, Key)),
            ?assertEqual(Refused, ?FILE_BACKEND:delete(State, Key)),
            ?assertEqual({false, State}, ?FILE_BACKEND:exists(State, Key))
        end
     || Key <- Keys
    ],
    ?assertEqual([], paths(Config, "*")),
    %% Whatever the stream is called, its archive is in the folder.
    Property = ?FORALL(Stream, oneof([erl_esdb_data_gen:stream(), binary()]), begin
        Key = make_key('../x', Stream, 0, 9),
        {ok, State1} = ?FILE_BACKEND:archive(State, Key, []),
        {IsThere, _} = ?FILE_BACKEND:exists(State1, Key),
        Found = paths(Config, "0-9.archive"),
        {ok, _} = ?FILE_BACKEND:delete(State1, Key),
        IsThere andalso length(Found) =:= 1
    end),
    erl_esdb_test:property(60, Property).

a_arc_13_a_folder_that_cannot_be_written(Config) ->
    ok = filelib:ensure_path(dir(Config)),
    File = filename:join(dir(Config), "file"),
    ok = file:write_file(File, <<"x">>),
    ?assertEqual(
        {error, {failed_to_create_dir, enotdir}}, ?FILE_BACKEND:init(#{base_dir => File})
    ),
    ?assertEqual(
        {error, {failed_to_create_dir, enotdir}},
        ?FILE_BACKEND:init(#{base_dir => filename:join(File, "below")})
    ),
    ok = file:write_file(filename:join(dir(Config), "my_store"), <<"x">>),
    ?assertMatch({error, {_, enotdir}}, ?FILE_BACKEND:archive(files(Config), ?KEY, [])),
    ok = file:delete(filename:join(dir(Config), "my_store")),
    %% A folder where the file should be.
    ok = filelib:ensure_path(filename:join([dir(Config), "my_store/orders-123/0-99.archive"])),
    ?assertEqual(
        {error, {read_failed, eisdir}}, ?FILE_BACKEND:archive(files(Config), ?KEY, [])
    ),
    ?assertEqual([], paths(Config, "*.tmp")).

%% One that is just written is another writer's; older ones are nobody's.
b_what_a_killed_writer_left_is_removed(Config) ->
    {ok, State} = ?FILE_BACKEND:archive(files(Config), ?KEY, []),
    [Folder] = paths(Config, "~unfinished"),
    Left = fun(Name, Age) ->
        Path = filename:join(Folder, Name),
        ok = file:write_file(Path, <<"x">>),
        Changed = calendar:system_time_to_universal_time(os:system_time(second) - Age, second),
        ok = file:change_time(Path, calendar:universal_time_to_local_time(Changed)),
        Path
    end,
    Old = Left("0-9.archive.0123456789abcdef.tmp", 4_000),
    Young = Left("0-9.archive.fedcba9876543210.tmp", 60),
    Others = [Left(Name, 4_000) || Name <- ["notes.txt", "notes.tmp", "0-9.zip.tmp"]],
    {ok, State1} = ?FILE_BACKEND:archive(State, make_key(my_store, <<"orders-123">>, 100, 109), []),
    ?assertEqual(
        [false, true, true, true, true],
        [filelib:is_regular(Path) || Path <- [Old, Young | Others]]
    ),
    ?assertMatch({ok, [], _}, ?FILE_BACKEND:read(State1, ?KEY)).

%% However many archives a stream has, another one costs the same.
b_an_archive_beside_many(Config) ->
    State = files(Config),
    Archive = fun(Version) ->
        Key = make_key(my_store, <<"orders-123">>, Version, Version),
        erl_esdb_test:reductions(fun() -> {ok, _} = ?FILE_BACKEND:archive(State, Key, []) end)
    end,
    [First | _] = [Archive(Version) || Version <- lists:seq(1, 3)],
    Folder = filename:dirname(hd(paths(Config, "1-1.archive"))),
    [
        ok = file:write_file(filename:join(Folder, [integer_to_list(N), "-9999.archive"]), <<>>)
     || N <- lists:seq(1_000, 4_000)
    ],
    ?assert(Archive(10_000) < 3 * First).

%% ---- dictionaries

%% Small archives of one family: as soon as there are samples enough, a dictionary is trained.
b_a_dictionary_for_a_family(Config) ->
    State = files(Config, #{dictionary_size => 1024}),
    Name = fun(N) -> <<"cart-", (integer_to_binary(N))/binary>> end,
    Sizes = [
        begin
            Events = recorded(Config, Name(N), [cart(N, I) || I <- lists:seq(1, 5)]),
            Key = make_key(my_store, Name(N), 0, 4),
            {ok, _} = ?FILE_BACKEND:archive(State, Key, Events),
            {ok, Events, _} = ?FILE_BACKEND:read(State, Key),
            [Path] = paths(Config, "cart-" ++ integer_to_list(N) ++ "/*"),
            filelib:file_size(Path)
        end
     || N <- lists:seq(1, 120)
    ],
    [Dictionary] = paths(Config, "*.dictionary"),
    ?assertEqual([], paths(Config, "*.samples")),
    %% The same content is smaller with it.
    ?assert(lists:last(Sizes) < hd(Sizes)),
    %% Without it, the archives that need it say which one is missing, and the others are read.
    {ok, Bytes} = file:read_file(Dictionary),
    Last = make_key(my_store, Name(120), 0, 4),
    Missing = fun() ->
        {error, {missing_dictionary, Path}} = ?FILE_BACKEND:read(files(Config), Last),
        binary_to_list(Path)
    end,
    ok = file:delete(Dictionary),
    ?assertEqual(filename:basename(Dictionary), filename:basename(Missing())),
    ok = file:write_file(Dictionary, binary:replace(Bytes, <<"a">>, <<"b">>)),
    ?assertEqual(filename:basename(Dictionary), filename:basename(Missing())),
    ?assertMatch({ok, [_ | _], _}, ?FILE_BACKEND:read(State, make_key(my_store, Name(1), 0, 4))),
    ok = file:write_file(Dictionary, Bytes),
    ?assertMatch({ok, [_ | _], _}, ?FILE_BACKEND:read(files(Config), Last)).

%% A dictionary that was never written to its end is no dictionary of its family.
b_a_dictionary_that_was_begun(Config) ->
    State = files(Config, #{dictionary_size => 256}),
    Folder = filename:join([dir(Config), "my_store", "~dictionaries"]),
    ok = filelib:ensure_path(Folder),
    Begun = filename:join(Folder, "cart~0123456789abcdef.dictionary.0123456789abcdef.tmp"),
    ok = file:write_file(Begun, <<"x">>),
    Events = recorded(Config, <<"cart-1">>, [cart(1, I) || I <- lists:seq(1, 300)]),
    {ok, _} = ?FILE_BACKEND:archive(State, make_key(my_store, <<"cart-1">>, 0, 299), Events),
    ?assertMatch([_], paths(Config, "*.dictionary")).

cart(N, I) ->
    #{
        event_type => <<"ItemAdded">>,
        data => #{
            product => <<"product number ", (integer_to_binary(N * I rem 17))/binary>>,
            quantity => I,
            currency => <<"EUR">>,
            warehouse => <<"north building, second floor">>
        },
        metadata => #{user => <<"user-", (integer_to_binary(N rem 9))/binary>>}
    }.

b_no_dictionaries_when_they_are_not_wanted(Config) ->
    State = files(Config, #{dictionary_size => none}),
    Events = recorded(Config, ?S, [cart(1, I) || I <- lists:seq(1, 300)]),
    {ok, _} = ?FILE_BACKEND:archive(State, ?KEY, Events),
    ?assertMatch({ok, Events, _}, ?FILE_BACKEND:read(State, ?KEY)),
    ?assertEqual([], paths(Config, "~dictionaries")).

b_atoms_of_others_are_not_made(_Config) ->
    Atom = <<"atom_of_an_archive_", (integer_to_binary(erlang:unique_integer([positive])))/binary>>,
    %% {#{Atom => 1}, #{}}, as a node wrote it that has this atom.
    Data = <<116, 1:32, 119, (byte_size(Atom)), Atom/binary, 97, 1>>,
    Event = #{event_id => <<"e">>, event_type => <<"t">>, stream_id => <<"s">>, version => 0},
    Segment = esdb_segment_nif:pack([
        Event#{epoch_us => 0, encoded => <<131, 104, 2, Data/binary, 116, 0:32>>}
    ]),
    ?assertEqual({error, {corrupt, event}}, erl_esdb_event_segment:unpack(Segment, existing)),
    ?assertError(badarg, binary_to_existing_atom(Atom)),
    {ok, [#event{data = Made}]} = erl_esdb_event_segment:unpack(Segment, create),
    ?assertEqual(#{binary_to_existing_atom(Atom) => 1}, Made),
    Bomb = term_to_binary({#{a => binary:copy(<<0>>, 100_000)}, #{}}, [compressed]),
    Compressed = esdb_segment_nif:pack([Event#{epoch_us => 0, encoded => Bomb}]),
    ?assertEqual({error, {corrupt, event}}, erl_esdb_event_segment:unpack(Compressed, create)).

%% ---- reading on into archives

backend(Config) -> {?FILE_BACKEND, files(Config, #{dictionary_size => none})}.

scavenge(Config, Stream, Before, Backend) ->
    Options = #{before_version => Before, require_snapshot => false, verify => true},
    {ok, Result} =
        erl_esdb_scavenge:archive_and_scavenge(store(Config), Stream, Backend, Options),
    Result.

b_a_read_goes_on_into_the_archives(Config) ->
    Backend = backend(Config),
    All = recorded(Config, ?S, [cart(1, I) || I <- lists:seq(1, 60)]),
    [scavenge(Config, ?S, Before, Backend) || Before <- [7, 20, 21, 45]],
    Read = fun(From, Count, Direction) ->
        erl_esdb_archive:read_through(store(Config), ?S, From, Count, Direction, Backend)
    end,
    ?assertEqual({ok, All}, Read(0, infinity, forward)),
    ?assertEqual({ok, lists:reverse(All)}, Read(last, infinity, backward)),
    Property = ?FORALL(
        {From, Count, Direction},
        {range(0, 70), oneof([infinity, range(0, 70)]), oneof([forward, backward])},
        Read(From, Count, Direction) =:= {ok, window(All, From, Count, Direction)}
    ),
    erl_esdb_test:property(100, Property),
    %% What was removed without an archive is left out.
    {ok, _} = erl_esdb_store:truncate(store(Config), ?S, 50),
    {ok, Left} = Read(0, infinity, forward),
    ?assertEqual(lists:seq(0, 44) ++ lists:seq(50, 59), versions(Left)),
    {ok, Check} = erl_esdb_archive:check(store(Config), ?S, Backend),
    ?assertEqual(#{archives => 4, events => 45, gaps => [{45, 49}], damaged => []}, Check).

window(All, From, Count, forward) ->
    [E || #event{version = V} = E <- All, V >= From, V < From + count(Count)];
window(All, From, Count, backward) ->
    [E || #event{version = V} = E <- lists:reverse(All), V =< From, V > From - count(Count)].

count(infinity) -> 1 bsl 60;
count(Count) -> Count.

b_damaged_and_missing_archives_are_named(Config) ->
    {_, State} = Backend = backend(Config),
    recorded(Config, ?S, events(40)),
    [K1, K2, K3] =
        [map_get(archive_key, scavenge(Config, ?S, B, Backend)) || B <- [10, 20, 30]],
    Read = fun(From) ->
        erl_esdb_archive:read_through(store(Config), ?S, From, 100, forward, Backend)
    end,
    [P1, P2, _] = lists:sort(paths(Config, "*.archive")),
    {ok, Good} = file:read_file(P2),
    ok = file:write_file(P2, binary_part(Good, 0, 50)),
    ?assertEqual({error, {corrupted_archive, K2}}, Read(0)),
    ?assertMatch({ok, [#event{version = 25} | _]}, Read(25)),
    {ok, Check} = erl_esdb_archive:check(store(Config), ?S, Backend),
    ?assertEqual(
        #{
            archives => 3,
            events => 20,
            gaps => [{10, 19}],
            damaged => [{K2, {corrupted_archive, K2}}]
        },
        Check
    ),
    ok = file:write_file(P2, Good),
    ok = file:delete(P1),
    {ok, Check1} = erl_esdb_archive:check(store(Config), ?S, Backend),
    Lost = {archive_not_found, {0, 9}},
    ?assertEqual(
        #{archives => 2, events => 20, gaps => [{0, 9}], damaged => [{{0, 9}, Lost}]}, Check1
    ),
    ?assertEqual({error, Lost}, Read(0)),
    ?assertEqual({error, {archive_not_found, K1}}, ?FILE_BACKEND:read(State, K1)),
    {true, _} = ?FILE_BACKEND:exists(State, K3).

%% Nothing is left out in silence: neither by a read, nor where all that was archived is lost.
b_a_lost_archive_is_no_short_answer(_Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    Table = ets:new(archives, [public]),
    {ok, State} = erl_esdb_test_backend:init(#{table => Table, owner => self()}),
    Backend = {erl_esdb_test_backend, State},
    {ok, 39} = erl_esdb_streams:append(Store, ?S, -1, events(40)),
    Options = #{before_version => 30, require_snapshot => false, archive_events => 10},
    {ok, #{archive_keys := [K1, K2, K3]}} =
        erl_esdb_scavenge:archive_and_scavenge(Store, ?S, Backend, Options),
    Read = fun(From, Count, Direction) ->
        With = #{archives => Backend, verify => strict},
        erl_esdb_streams:read(Store, ?S, From, Count, Direction, With)
    end,
    Verify = fun() -> erl_esdb_integrity:verify_stream(Store, ?S, #{archives => Backend}) end,
    {ok, #{archived := 30}} = Verify(),
    true = ets:delete(Table, K2),
    Lost = fun(From, To) -> {error, {archive_not_found, {From, To}}} end,
    ?assertEqual(Lost(10, 19), Read(0, infinity, forward)),
    ?assertEqual(Lost(12, 13), Read(12, 2, forward)),
    ?assertEqual(Lost(15, 19), Read(25, 11, backward)),
    ?assertEqual(Lost(10, 19), Verify()),
    {ok, [_ | _] = First} = Read(0, 10, forward),
    ?assertEqual(lists:seq(0, 9), versions(First)),
    [true = ets:delete(Table, Key) || Key <- [K1, K3]],
    ?assertEqual(Lost(0, 29), Read(0, infinity, forward)),
    ?assertEqual(Lost(0, 29), Verify()),
    ?assertMatch(
        {ok, #{archives := 0, damaged := [{{0, 29}, {archive_not_found, {0, 29}}}]}},
        erl_esdb_archive:check(Store, ?S, Backend)
    ),
    %% Removed on purpose: first a part in the middle, then all.
    ok = erl_esdb_archive:forget(Store, ?S, 5, 24),
    ?assertMatch(
        {ok, #{gaps := [{0, 29}], damaged := [{{0, 4}, _}, {{25, 29}, _}]}},
        erl_esdb_archive:check(Store, ?S, Backend)
    ),
    ?assertEqual({ok, []}, Read(10, 10, forward)),
    ok = erl_esdb_archive:forget(Store, ?S, 0, 100),
    {ok, Kept} = Read(0, infinity, forward),
    ?assertEqual(lists:seq(30, 39), versions(Kept)),
    ?assertMatch({ok, #{archived := 0}}, Verify()),
    ?assertEqual(
        {error, {stream_not_found, <<"none">>}}, erl_esdb_archive:forget(Store, <<"none">>, 0, 1)
    ),
    ok = erl_esdb:stop_store(Store).

%% However often a stream is archived, what is noted of it is short.
b_what_is_noted_of_archives(Config) ->
    Backend = backend(Config),
    Store = store(Config),
    All = recorded(Config, ?S, events(40)),
    [scavenge(Config, ?S, Before, Backend) || Before <- [5, 10, 20]],
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 25),
    scavenge(Config, ?S, 30, Backend),
    {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
    Noted = fun() ->
        {ok, #{own := [Name], parts := Parts}} = notes(Config, No),
        ?assertEqual([Name], maps:keys(Parts)),
        Notes = [Key || {_, _, _, Note} = Key <- note_keys(Store), Note =/= replaced],
        ?assertEqual(1 + length(map_get(Name, Parts)), length(Notes)),
        map_get(Name, Parts)
    end,
    ?assertEqual([{noted, 0, 20}, {noted, 25, 30}], Noted()),
    ok = erl_esdb_archive:forget(Store, ?S, 8, 26),
    ?assertEqual([{noted, 0, 8}, {noted, 27, 30}], Noted()),
    ok = erl_esdb_archive:forget(Store, ?S, 8, 26),
    [ok = file:delete(Path) || Path <- paths(Config, "10-19.*")],
    {ok, Left} = erl_esdb_streams:read(Store, ?S, 0, 50, forward, #{archives => Backend}),
    ?assertEqual(lists:seq(0, 9) ++ lists:seq(25, 39), versions(Left)),
    ?assertEqual([], Left -- All),
    scavenge(Config, ?S, 35, Backend),
    ?assertEqual([{noted, 0, 8}, {noted, 27, 35}], Noted()).

notes(Config, No) -> erl_esdb_archive_notes:all(store(Config), ?S, No, #{}).

note_keys(Store) ->
    {ok, Keys} = erl_esdb_store:list_documents(Store, {}, {z, z, z, z, z}),
    [Key || {{archive, _, _, _} = Key, _} <- Keys].

%% Whoever notes or forgets at the same time: what was noted stays, what was forgotten does not come
%% back.
b_notes_at_once(Config) ->
    [notes_at_once(store(Config), integer_to_binary(N)) || N <- lists:seq(1, 50)].

notes_at_once(Store, Stream) ->
    {ok, 0} = erl_esdb_streams:append(Store, Stream, -1, events(1)),
    {ok, #{no := No}} = erl_esdb_store:info(Store, Stream),
    Note = fun(Span) ->
        fun() -> erl_esdb_archive_notes:note({Store, Stream, No, #{}}, ~"a", Span) end
    end,
    Forget = fun({From, To}) ->
        fun() -> erl_esdb_archive:forget(Store, Stream, From, To) end
    end,
    Parts = fun() ->
        {ok, #{own := [], parts := Parts}} = erl_esdb_archive_notes:all(Store, Stream, No, #{}),
        Parts
    end,
    Spans = [{0, 10}, {10, 20}, {20, 30}, {40, 50}],
    [ok, ok, ok, ok] = erl_esdb_test:concurrently([Note(Span) || Span <- Spans]),
    ?assertEqual(#{~"a" => [{noted, 0, 30}, {noted, 40, 50}]}, Parts()),
    [ok, ok, ok, ok] = erl_esdb_test:concurrently(
        [Note({50, 60}) | [Forget(Versions) || Versions <- [{5, 9}, {12, 14}, {25, 44}]]]
    ),
    Left = [{noted, A, B} || {A, B} <- [{0, 5}, {10, 12}, {15, 25}, {45, 60}]],
    ?assertEqual(#{~"a" => Left}, Parts()).

%% Whenever a stream is deleted, nothing stays noted of it.
b_nothing_is_noted_of_a_deleted_stream(Config) ->
    Store = store(Config),
    Make = fun() ->
        {ok, _} = erl_esdb_streams:append(Store, ?S, -1, events(30)),
        {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
        No
    end,
    No = Make(),
    Late = [
        fun() -> erl_esdb_archive_notes:name(Store, ?S, No, #{}) end,
        fun() -> erl_esdb_archive_notes:note({Store, ?S, No, #{}}, ~"a", {0, 10}) end,
        fun() -> erl_esdb_archive_notes:forget({Store, ?S, No, #{}}, {0, 10}) end
    ],
    ok = erl_esdb_streams:delete(Store, ?S),
    [?assertEqual({error, {stream_not_found, ?S}}, Note()) || Note <- Late],
    _ = Make(),
    [?assertEqual({error, {stream_replaced, ?S}}, Note()) || Note <- Late],
    ?assertEqual([], note_keys(Store)),
    ok = erl_esdb_streams:delete(Store, ?S),
    [deleted_at_once(Store, Make, backend(Config)) || _ <- lists:seq(1, 300)].

deleted_at_once(Store, Make, Backend) ->
    _ = Make(),
    Options = #{before_version => 10, require_snapshot => false},
    [_, ok] = erl_esdb_test:concurrently([
        fun() -> erl_esdb_scavenge:archive_and_scavenge(Store, ?S, Backend, Options) end,
        fun() -> erl_esdb_streams:delete(Store, ?S) end
    ]),
    ?assertEqual([], note_keys(Store)).

%% Whoever reads notes while others take their place, wherever held up: what is noted all the time
%% is there.
b_notes_are_read_while_they_are_replaced(Config) ->
    Store = store(Config),
    {ok, 0} = erl_esdb_streams:append(Store, ?S, -1, events(1)),
    {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
    At = {Store, ?S, No, #{}},
    ok = erl_esdb_archive_notes:note(At, ~"a", {0, 10}),
    [Stop, Reads] = [atomics:new(1, []) || _ <- [stop, reads]],
    Read = fun() ->
        {ok, #{parts := #{~"a" := [{noted, 0, Before}]}}} = notes(Config, No),
        ?assert(Before =:= 10 orelse Before =:= 20),
        ok = atomics:add(Reads, 1, 1),
        erlang:bump_reductions(rand:uniform(300))
    end,
    {Pid, Ref} = spawn_monitor(fun() -> erl_esdb_test:until_stopped(Stop, Read) end),
    Changes = [
        fun() -> erl_esdb_archive_notes:note(At, ~"a", {10, 20}) end,
        fun() -> erl_esdb_archive_notes:forget(At, {10, 20}) end
    ],
    try
        [changed_while(Pid, Reads, Change) || _ <- lists:seq(1, 1_000), Change <- Changes]
    after
        ok = atomics:put(Stop, 1, 1)
    end,
    receive
        {'DOWN', Ref, process, Pid, Reason} -> ?assertEqual(normal, Reason)
    end.

%% The reader is held up meanwhile, and reads once at least before the next one.
changed_while(Reader, Reads, Change) ->
    Seen = atomics:get(Reads, 1),
    IsSuspended = erl_esdb_test:suspended(Reader),
    ok = Change(),
    _ = IsSuspended andalso erlang:resume_process(Reader),
    erl_esdb_test:await(fun() ->
        atomics:get(Reads, 1) > Seen orelse not is_process_alive(Reader)
    end).

%% Who waits for the store holds up nobody else, whose time is over when it is over.
b_a_call_that_waits_holds_up_no_other(Config) ->
    Backend = backend(Config),
    Store = store(Config),
    recorded(Config, ?S, events(30)),
    scavenge(Config, ?S, 10, Backend),
    Engine = erl_esdb_test:orderer(Store),
    ok = sys:suspend(Engine),
    Self = self(),
    Archive = fun(Timeout) ->
        spawn_link(fun() ->
            Options = #{before_version => 20, require_snapshot => false, timeout => Timeout},
            Result = erl_esdb_scavenge:archive_and_scavenge(Store, ?S, Backend, Options),
            Self ! {Timeout, Result}
        end)
    end,
    Archive(infinity),
    erl_esdb_test:await(fun() -> process_info(Engine, messages) =/= {messages, []} end),
    Archive(100),
    receive
        {100, Result} -> ?assertEqual({error, {timeout, Store}}, Result)
    after 60_000 -> error(held_up)
    end,
    ok = sys:resume(Engine),
    receive
        {infinity, Done} -> ?assertMatch({ok, #{archived := true}}, Done)
    end.

%% What was deleted does not come back out of an archive.
b_a_tombstone_hides_archives_before_it(Config) ->
    Backend = backend(Config),
    Store = store(Config),
    recorded(Config, ?S, events(20)),
    scavenge(Config, ?S, 10, Backend),
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}),
    {ok, 29} = erl_esdb_streams:append(Store, ?S, -1, events(10)),
    Read = fun(From, Count, Direction) ->
        Options = #{archives => Backend},
        {ok, Events} = erl_esdb_streams:read(Store, ?S, From, Count, Direction, Options),
        versions(Events)
    end,
    Check = fun() -> erl_esdb_archive:check(Store, ?S, Backend) end,
    ?assertEqual(lists:seq(20, 29), Read(0, infinity, forward)),
    ?assertEqual([], Read(9, 5, backward)),
    ?assertEqual({ok, #{archives => 0, events => 0, gaps => [], damaged => []}}, Check()),
    scavenge(Config, ?S, 25, Backend),
    ?assertEqual(lists:seq(20, 29), Read(0, infinity, forward)),
    ?assertEqual(lists:seq(29, 20, -1), Read(29, infinity, backward)),
    ?assertEqual({ok, #{archives => 1, events => 5, gaps => [], damaged => []}}, Check()).

%% The read of the API, with what it takes beside the archives.
b_options_hold_for_archived_events(Config) ->
    Backend = backend(Config),
    Store = store(Config),
    New = [#{event_type => <<"t">>, data => #{n => N}} || N <- lists:seq(0, 9)],
    {ok, 9} = erl_esdb_streams:append(Store, ?S, any, New, #{codec => json}),
    scavenge(Config, ?S, 6, Backend),
    Read = fun(From, Direction, Options) ->
        erl_esdb_streams:read(Store, ?S, From, 10, Direction, Options#{archives => Backend})
    end,
    {ok, Texts} = Read(0, forward, #{}),
    ?assertEqual([true], lists:usort([is_binary(Data) || #event{data = Data} <- Texts])),
    {ok, Decoded} = Read(0, forward, #{decode => json}),
    ?assertEqual([#{<<"n">> => N} || N <- lists:seq(0, 9)], [D || #event{data = D} <- Decoded]),
    ?assertEqual({ok, lists:reverse(Decoded)}, Read(9, backward, #{decode => json})),
    %% What is hidden and not removed is no gap before what is archived.
    ok = erl_esdb_streams:set_metadata(Store, ?S, #{max_count => 2}, #{}),
    ?assertEqual({ok, Texts}, Read(0, forward, #{})),
    ?assertMatch({ok, [_, _]}, erl_esdb_streams:read(Store, ?S, 0, 10, forward)),
    ?assertError(badarg, Read(0, forward, #{verify => all})),
    ok = sys:suspend(erl_esdb_test:orderer(Store)),
    ?assertEqual(
        {error, {timeout, Store}},
        erl_esdb_scavenge:archive_and_scavenge(Store, ?S, Backend, #{
            before_version => 8, require_snapshot => false, timeout => 20
        })
    ),
    ok = sys:resume(erl_esdb_test:orderer(Store)).

archived_before(Store, Backend, Before) ->
    Options = #{before_version => Before, require_snapshot => false},
    {ok, #{archive_key := Key}} =
        erl_esdb_scavenge:archive_and_scavenge(Store, ?S, Backend, Options),
    Key.

%% Archived events of a store that signs are verified with the others, as one chain.
b_archived_events_are_verified(_Config) ->
    Signs = #{enabled => true, key => <<7:256>>},
    Store = erl_esdb_test:start_store(#{integrity => Signs}),
    Table = ets:new(archives, [public]),
    {ok, State} = erl_esdb_test_backend:init(#{table => Table, owner => self()}),
    Backend = {erl_esdb_test_backend, State},
    {ok, 19} = erl_esdb_streams:append(Store, ?S, -1, events(20)),
    {ok, All} = erl_esdb_streams:read(Store, ?S, 0, 20, forward),
    [K1, K2] = [archived_before(Store, Backend, Before) || Before <- [6, 12]],
    Read = fun(From, Count, Direction, Mode) ->
        Options = #{archives => Backend, verify => Mode},
        erl_esdb_streams:read(Store, ?S, From, Count, Direction, Options)
    end,
    Property = ?FORALL(
        {From, Count, Direction},
        {range(0, 22), range(0, 22), oneof([forward, backward])},
        Read(From, Count, Direction, strict) =:= {ok, window(All, From, Count, Direction)}
    ),
    erl_esdb_test:property(100, Property),
    Verify = fun() ->
        erl_esdb_integrity:verify_stream(Store, ?S, #{archives => Backend})
    end,
    ?assertMatch({ok, #{events := 8, signed := 8, archived := 12}}, Verify()),
    ?assertMatch(
        {ok, #{events := 8}}, erl_esdb_integrity:verify_store(Store, #{archives => Backend})
    ),
    Kinds = fun({error, {integrity_violation, #{version := V, kind := Kind}}}) -> {V, Kind} end,
    With = fun(Key, Change, Check) ->
        [{Key, Events}] = ets:lookup(Table, Key),
        true = ets:insert(Table, {Key, Change(Events)}),
        Check(),
        true = ets:insert(Table, {Key, Events})
    end,
    %% One is changed, in an archive that a read begins in, goes through or ends in.
    Forge = fun([A, B | Rest]) -> [A, B#event{data = #{forged => true}} | Rest] end,
    With(K2, Forge, fun() ->
        [
            ?assertEqual({7, mac_mismatch}, Kinds(Read(From, Count, Direction, skip_legacy)))
         || {From, Count, Direction} <- [
                {0, 20, forward}, {7, 1, forward}, {7, 9, forward}, {15, 20, backward}
            ]
        ],
        ?assertMatch({ok, [_ | _]}, Read(0, 20, forward, skip_all)),
        ?assertMatch({ok, [_, _, _]}, Read(9, 3, forward, strict)),
        ?assertEqual({7, mac_mismatch}, Kinds(Verify())),
        ?assertMatch(
            {ok, #{damaged := [{K2, {integrity_violation, _}}]}},
            erl_esdb_archive:check(Store, ?S, Backend)
        )
    end),
    %% An archive of a namesake, signed by the same store.
    ok = erl_esdb_streams:delete(Store, ?S),
    {ok, 19} = erl_esdb_streams:append(Store, ?S, -1, events(20)),
    [K3, K4] = [archived_before(Store, Backend, Before) || Before <- [6, 12]],
    [{_, First}, {_, Second}] = [hd(ets:lookup(Table, Key)) || Key <- [K1, K2]],
    With(K3, fun(_) -> First end, fun() ->
        ?assertEqual({6, chain_mismatch}, Kinds(Read(0, 20, forward, skip_legacy))),
        ?assertEqual({6, chain_mismatch}, Kinds(Verify()))
    end),
    With(K4, fun(_) -> Second end, fun() ->
        ?assertEqual({6, chain_mismatch}, Kinds(Read(0, 20, forward, skip_legacy))),
        ?assertEqual({6, chain_mismatch}, Kinds(Read(6, 1, forward, skip_legacy))),
        ?assertEqual({12, chain_mismatch}, Kinds(Read(8, 9, forward, skip_legacy))),
        ?assertEqual({6, chain_mismatch}, Kinds(Verify()))
    end),
    %% What is before a gap cannot be named: the codes of those behind it count.
    true = ets:delete(Table, K3),
    ok = erl_esdb_archive:forget(Store, ?S, 0, 5),
    ?assertMatch({ok, [#event{version = 6} | _]}, Read(0, 20, forward, strict)),
    erl_esdb:stop_store(Store).

%% A stream that was deleted and made again has archives of its own.
b_incarnations_keep_their_archives(Config) ->
    {_, State} = Backend = backend(Config),
    First = recorded(Config, ?S, events(10)),
    #{archive_key := K1} = scavenge(Config, ?S, 5, Backend),
    ok = erl_esdb_streams:delete(store(Config), ?S),
    Read = fun() ->
        erl_esdb_archive:read_through(store(Config), ?S, 0, infinity, forward, Backend)
    end,
    ?assertEqual({error, {stream_not_found, ?S}}, Read()),
    Second = recorded(Config, ?S, [cart(9, I) || I <- lists:seq(1, 8)]),
    ?assertEqual({ok, Second}, Read()),
    #{archive_key := K2} = scavenge(Config, ?S, 5, Backend),
    ?assertNotEqual(K1, K2),
    ?assertEqual({ok, Second}, Read()),
    Past = lists:sublist(First, 5),
    ?assertMatch({ok, Past, _}, ?FILE_BACKEND:read(State, K1)),
    {ok, Keys, _} = ?FILE_BACKEND:list(State, store(Config), ?S),
    ?assertEqual(lists:sort([K1, K2]), lists:sort(Keys)),
    %% A stream that is gone leaves nothing but its archives.
    ok = erl_esdb_streams:delete(store(Config), ?S),
    ?assertEqual({ok, []}, erl_esdb_store:list_documents(store(Config), {}, {z, z, z, z, z})).

%% Archived and not removed (as after a failure), and later archived with more: no event twice.
b_archives_that_overlap(_Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    Backend = table_backend(#{}),
    {ok, 29} = erl_esdb_streams:append(Store, ?S, -1, events(30)),
    {ok, All} = erl_esdb_streams:read(Store, ?S, 0, 30, forward),
    {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
    Options = #{archive_events => 100, verify => false},
    {ok, [_]} = erl_esdb_archive:archive(Store, ?S, No, {0, 10}, Backend, Options),
    Read = fun() -> erl_esdb_archive:read_through(Store, ?S, 0, infinity, forward, Backend) end,
    ?assertEqual({ok, All}, Read()),
    archived_before(Store, Backend, 20),
    ?assertEqual({ok, All}, Read()),
    ?assertEqual(
        {ok, #{archives => 2, events => 20, gaps => [], damaged => []}},
        erl_esdb_archive:check(Store, ?S, Backend)
    ),
    ?assertMatch(
        {ok, #{events := 10, archived := 20}},
        erl_esdb_integrity:verify_stream(Store, ?S, #{archives => Backend})
    ),
    ok = erl_esdb:stop_store(Store).

table_backend(Options) ->
    Table = ets:new(archives, [public]),
    {ok, State} = erl_esdb_test_backend:init(Options#{table => Table, owner => self()}),
    {erl_esdb_test_backend, State}.

%% Removed while it is archived: what is left is in archives without a gap.
b_an_archive_has_no_gap(_Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    Scavenge = fun() ->
        {ok, _} = erl_esdb_scavenge:scavenge(Store, ?S, #{
            before_version => 80, require_snapshot => false
        })
    end,
    {Module, State} = Backend = table_backend(#{during => Scavenge}),
    {ok, 99} = erl_esdb_streams:append(Store, ?S, -1, events(100)),
    Options = #{before_version => 100, require_snapshot => false, archive_events => 50},
    {ok, #{archive_keys := Keys}} =
        erl_esdb_scavenge:archive_and_scavenge(Store, ?S, Backend, Options),
    Archived = [
        begin
            {ok, Events, _} = Module:read(State, Key),
            versions(Events)
        end
     || Key <- Keys
    ],
    [?assertEqual(lists:seq(hd(Versions), lists:last(Versions)), Versions) || Versions <- Archived],
    %% A part of a page that was read before.
    [Lost | _] = Gone = lists:seq(0, 99) -- lists:append(Archived),
    Count = 100 - length(Gone),
    Gap = {Lost, lists:last(Gone)},
    ?assertEqual(
        {ok, #{archives => length(Keys), events => Count, gaps => [Gap], damaged => []}},
        erl_esdb_archive:check(Store, ?S, Backend)
    ),
    ?assertMatch(
        {ok, #{archived := Count}},
        erl_esdb_integrity:verify_stream(Store, ?S, #{archives => Backend})
    ),
    ok = erl_esdb:stop_store(Store).

%% Who comes too late has nothing to do; nothing is removed twice, and nothing without an archive.
b_several_who_archive_one_stream(Config) ->
    Store = store(Config),
    Backend = table_backend(#{}),
    {ok, 99} = erl_esdb_streams:append(Store, ?S, -1, events(100)),
    {ok, #{no := No}} = erl_esdb_store:info(Store, ?S),
    {ok, _} = erl_esdb_store:truncate(Store, ?S, 10),
    ?assertEqual(
        {ok, []},
        erl_esdb_archive:archive(Store, ?S, No, {0, 10}, Backend, #{
            archive_events => 10, verify => false
        })
    ),
    [several_archive(Store, integer_to_binary(N), Backend) || N <- lists:seq(1, 200)].

several_archive(Store, Stream, Backend) ->
    {ok, 99} = erl_esdb_streams:append(Store, Stream, -1, events(100)),
    Options = #{before_version => 80, require_snapshot => false},
    Archive = fun() ->
        {ok, #{deleted_count := Count}} =
            erl_esdb_scavenge:archive_and_scavenge(Store, Stream, Backend, Options),
        Count
    end,
    ?assertEqual(80, lists:sum(erl_esdb_test:concurrently(lists:duplicate(4, Archive)))),
    ?assertMatch(
        {ok, #{events := 80, gaps := [], damaged := []}},
        erl_esdb_archive:check(Store, Stream, Backend)
    ).

%% A stream that is deleted between two looks: no answer is a part of it.
b_a_stream_that_is_deleted_while_it_is_read(Config) ->
    Store = store(Config),
    Backend = table_backend(#{}),
    Make = fun() ->
        {ok, 29} = erl_esdb_streams:append(Store, ?S, -1, events(30)),
        archived_before(Store, Backend, 20)
    end,
    Delete = fun() -> ok = erl_esdb_streams:delete(Store, ?S) end,
    {Module, State} = Backend,
    Deleting = {Module, State#{listing => Delete}},
    Gone = {error, {stream_not_found, ?S}},
    Make(),
    ?assertEqual(
        Gone, erl_esdb_archive:read_through(Store, ?S, 0, infinity, forward, Deleting)
    ),
    Make(),
    ?assertEqual(Gone, erl_esdb_archive:check(Store, ?S, Deleting)),
    %% And between any two others.
    Stop = atomics:new(1, []),
    Again = fun() ->
        [
            begin
                Make(),
                Delete(),
                ets:delete_all_objects(map_get(table, State))
            end
         || _ <- lists:seq(1, 1_000)
        ],
        atomics:put(Stop, 1, 1)
    end,
    Read = fun() ->
        erl_esdb_test:until_stopped(Stop, fun() ->
            Options = #{archives => Backend},
            whole(erl_esdb_streams:read(Store, ?S, 0, infinity, forward, Options)),
            whole_check(erl_esdb_archive:check(Store, ?S, Backend))
        end)
    end,
    [ok, done] = erl_esdb_test:concurrently([Again, Read]).

%% It may have been read before it was archived, or when it was not there.
whole({ok, Events}) -> ?assertEqual(lists:seq(0, 29), versions(Events));
whole(Answer) -> ?assertEqual({error, {stream_not_found, ?S}}, Answer).

whole_check({ok, #{events := Events, gaps := Gaps}}) ->
    ?assert(lists:member({Events, Gaps}, [{20, []}, {0, []}]));
whole_check(Answer) ->
    ?assertEqual({error, {stream_not_found, ?S}}, Answer).

%% A page costs an archive at most, of any length of the stream, also where it is verified.
b_paging_through_archives(_Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    Reads = counters:new(1, []),
    Backend = table_backend(#{reads => Reads}),
    [
        {ok, _} = erl_esdb_streams:append(Store, ?S, any, events(5_000))
     || _ <- lists:seq(1, 3)
    ],
    Options = #{before_version => 14_999, require_snapshot => false},
    {ok, #{archive_keys := Keys}} =
        erl_esdb_scavenge:archive_and_scavenge(Store, ?S, Backend, Options),
    ?assertEqual(4, length(Keys)),
    Cost = fun(From) ->
        ok = counters:put(Reads, 1, 0),
        {ok, [_ | _]} =
            erl_esdb_streams:read(Store, ?S, From, 500, forward, #{archives => Backend}),
        counters:get(Reads, 1)
    end,
    ?assertEqual([4_096, 4_096, 4_096], [Cost(From) || From <- [0, 500, 5_000]]),
    %% The page has parts of two, or the event before it is in another one.
    ?assertEqual([8_192, 8_192], [Cost(From) || From <- [4_000, 4_096]]),
    ok = erl_esdb:stop_store(Store).

%% Each of them may make a name; all of them are the stream's.
b_who_archives_at_once_is_found(Config) ->
    Backend = backend(Config),
    All = recorded(Config, ?S, events(40)),
    {ok, #{no := No}} = erl_esdb_store:info(store(Config), ?S),
    Options = #{archive_events => 100, verify => true},
    Archive = fun(From) ->
        fun() ->
            Span = {From, From + 10},
            erl_esdb_archive:archive(store(Config), ?S, No, Span, Backend, Options)
        end
    end,
    Archived = erl_esdb_test:concurrently([Archive(From) || From <- [0, 10, 20]]),
    ?assertMatch([{ok, [_]}, {ok, [_]}, {ok, [_]}], Archived),
    {ok, _} = erl_esdb_store:truncate(store(Config), ?S, 30),
    ?assertEqual(
        {ok, All},
        erl_esdb_archive:read_through(store(Config), ?S, 0, infinity, forward, Backend)
    ),
    {ok, #{own := [Name | _] = Names}} = notes(Config, No),
    ?assertEqual({ok, Name}, erl_esdb_archive_notes:name(store(Config), ?S, No, #{})),
    ?assertEqual(lists:usort(Names), Names).

%% Readers see every event while it goes from the store to the archive.
b_reads_while_events_are_archived(Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    [reads_while_archived([{store, S} | Config]) || S <- [Store, store(Config)]],
    ok = erl_esdb:stop_store(Store).

reads_while_archived(Config) ->
    Backend = backend(Config),
    All = recorded(Config, ?S, events(200)),
    Move = fun() ->
        [scavenge(Config, ?S, Before, Backend) || Before <- lists:seq(10, 200, 10)],
        done
    end,
    Read = fun() ->
        [
            {ok, All} = erl_esdb_archive:read_through(
                store(Config), ?S, 0, infinity, forward, Backend
            )
         || _ <- lists:seq(1, 20)
        ],
        done
    end,
    ?assertEqual([done, done], erl_esdb_test:concurrently([Move, Read])).

%% Real events: archived stream by stream, and read on.
b_the_commits_of_a_history(Config) ->
    Backend = {?FILE_BACKEND, files(Config, #{dictionary_size => 1024})},
    Streams = erl_esdb_test:append_commits(store(Config)),
    [
        begin
            Half = length(Commits) div 2,
            scavenge(Config, Stream, Half, Backend),
            {ok, Events} = erl_esdb_archive:read_through(
                store(Config), Stream, 0, infinity, forward, Backend
            ),
            Fields = fun(#event{event_id = I, data = D, metadata = M, epoch_us = T}) ->
                #{event_id => I, data => D, metadata => M, epoch_us => T}
            end,
            Keys = [event_id, data, metadata, epoch_us],
            ?assertEqual(
                [maps:with(Keys, Commit) || Commit <- Commits],
                [Fields(Event) || Event <- Events]
            )
        end
     || Stream := [_, _ | _] = Commits <- Streams
    ].
