-module(erl_esdb_ra_wal_SUITE).
-moduledoc """
Damage in the middle of Ra's write-ahead log is told from what a loss of power leaves at its end.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").
-include_lib("proper/include/proper.hrl").

-define(UIDS, [~"SHOP__ABCDEFGHIJKL", ~"OTHER_ABCDEFGHIJKL"]).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    case lists:member(ra, erl_esdb_test:engines()) of
        true -> [{group, files}, {group, ra}];
        false -> []
    end.

groups() ->
    [
        {files, [parallel], [
            who_has_written,
            an_end_that_is_cut_off,
            holes_of_a_loss_of_power,
            a_hole_that_is_small,
            a_length_that_is_damaged,
            a_writer_that_is_damaged,
            a_server_that_is_damaged,
            the_first_record_is_damaged,
            nobody_asks_for_others,
            an_entry_that_looks_like_records,
            a_file_that_is_none
        ]},
        {ra, [], [
            what_ra_has_written,
            a_damaged_length_is_named,
            a_damaged_length_before_zeros_is_named,
            a_damaged_end_is_the_end
        ]}
    ].

init_per_group(ra, Config) -> erl_esdb_test:init_per_group(ra, Config);
init_per_group(_, Config) -> Config.

end_per_group(ra, Config) -> erl_esdb_test:end_per_group(ra, Config);
end_per_group(_, _Config) -> ok.

init_per_testcase(Case, Config) ->
    Name = filename:join(?config(priv_dir, Config), atom_to_list(Case) ++ ".wal"),
    [{store, Case}, {name, Name}, {options, erl_esdb_test:options()} | Config].

end_per_testcase(Case, _Config) ->
    _ = erl_esdb:stop_store(Case),
    ok.

%% ---- files as Ra writes them

record(Writer, Truncates, Index, Term, Data) ->
    Body = <<Index:64, Term:64, (term_to_binary(Data))/binary>>,
    <<Truncates:1, Writer/bitstring, (erlang:adler32(Body)):32, (byte_size(Body) - 16):32,
        Body/binary>>.

introduced(Number, Uid) -> <<0:1, Number:22, (byte_size(Uid)):16, Uid/binary>>.

known(Number) -> <<1:1, Number:22>>.

%% Records of two writers, with entries of these sizes.
records(Sizes) ->
    {Records, _} = lists:mapfoldl(
        fun({N, Size}, Seen) ->
            Number = N rem 2,
            Writer =
                case Seen of
                    #{Number := _} -> known(Number);
                    #{} -> introduced(Number, lists:nth(Number + 1, ?UIDS))
                end,
            Entry = {'$usr', N, rand:bytes(Size)},
            {record(Writer, N rem 7 div 6, N, 1 + N div 10, Entry), Seen#{Number => N}}
        end,
        #{},
        lists:enumerate(2, Sizes)
    ),
    Records.

file(Records) -> iolist_to_binary([<<"RAWA", 1>> | Records]).

read(Bytes, Config) -> read(Bytes, ?UIDS, Config).

read(Bytes, Servers, Config) ->
    ok = file:write_file(?config(name, Config), Bytes),
    erl_esdb_ra_wal:read(?config(name, Config), Servers).

zeros(Count) -> <<0:(8 * Count)>>.

sizes() -> non_empty(list(oneof([integer(0, 40), integer(0, 300), integer(0, 3000)]))).

property(Property) -> ?assert(proper:quickcheck(Property, [quiet, {numtests, 1000}])).

who_has_written(Config) ->
    Records = records(lists:duplicate(40, 100)),
    [First, Second] = ?UIDS,
    [
        begin
            ?assertEqual({ok, #{First => 5, Second => 5}}, read(file([Records, End]), Config)),
            ?assertEqual({ok, #{First => 1}}, read(file([hd(Records), End]), Config)),
            ?assertEqual({ok, #{}}, read(file(End), Config))
        end
     || End <- [<<>>, zeros(1), zeros(13), zeros(100_000)]
    ].

%% What is cut off at any place, behind which nothing or zeros come.
an_end_that_is_cut_off(Config) ->
    property(
        ?FORALL({Sizes, Part, Zeros}, {sizes(), float(0.0, 1.0), oneof([0, 5, 20, 5000])}, begin
            Records = file(records(Sizes)),
            Left = binary:part(Records, 0, 5 + trunc(Part * (byte_size(Records) - 5))),
            {ok, Written} = read(<<Left/binary, (zeros(Zeros))/binary>>, Config),
            maps:keys(Written) -- ?UIDS =:= []
        end)
    ).

%% Of the last write sectors are missing, whichever; what was there before it stays.
holes_of_a_loss_of_power(Config) ->
    property(
        ?FORALL(
            {Before, Sizes, Seed, Zeros, Sector},
            {sizes(), sizes(), integer(), oneof([0, 5000]), oneof([512, 4096])},
            begin
                Records = records(Before ++ Sizes ++ [200, 3000, 10]),
                {Synced, Last} = lists:split(length(Before), Records),
                From = byte_size(file(Synced)),
                {Bytes, _} = lists:foldl(
                    fun(At, {Sum, State}) ->
                        {Missing, Next} = rand:uniform_s(2, State),
                        {without(Missing, max(From, At), At + Sector, Sum), Next}
                    end,
                    {file([Synced, Last]), rand:seed(exsss, Seed)},
                    lists:seq(From - From rem Sector, byte_size(file(Records)) - 1, Sector)
                ),
                element(1, read(<<Bytes/binary, (zeros(Zeros))/binary>>, Config)) =:= ok
            end
        )
    ).

without(1, _From, _To, Bytes) ->
    Bytes;
without(2, From, To, Bytes) ->
    Count = min(To, byte_size(Bytes)) - From,
    <<Before:From/binary, _:Count/binary, Behind/binary>> = Bytes,
    <<Before/binary, (zeros(Count))/binary, Behind/binary>>.

%% The last write began near the end of a sector, which is missing: of that there are few zeros.
a_hole_that_is_small(Config) ->
    [Uid | _] = ?UIDS,
    Head = record(introduced(0, Uid), 0, 1, 1, <<>>),
    [
        begin
            Fill = 4096 - Left - 5 - byte_size(Head) - byte_size(record(known(0), 0, 2, 1, <<>>)),
            Before = file([Head, record(known(0), 0, 2, 1, rand:bytes(Fill))]),
            ?assertEqual(4096 - Left, byte_size(Before)),
            Behind = file([record(known(0), 0, N, 1, rand:bytes(100)) || N <- lists:seq(3, 9)]),
            <<_:(5 + Left)/binary, There/binary>> = Behind,
            Bytes = <<Before/binary, (zeros(Left))/binary, There/binary>>,
            ?assertMatch({ok, _}, read(Bytes, Config), Left)
        end
     || Left <- lists:seq(1, 40)
    ].

%% Each bit of the length of each record but the last.
a_length_that_is_damaged(Config) ->
    Records = records([10, 700, 30, 30, 3, 100, 2000, 44]),
    Damaged = [
        {Nth, Bit, changed(Records, Nth, length_at(lists:nth(Nth, Records)) * 8 + Bit, Zeros)}
     || Nth <- lists:seq(1, length(Records) - 1), Bit <- lists:seq(0, 31), Zeros <- [0, 3, 100_000]
    ],
    [?assert(is_named(Bytes, Config), {Nth, Bit}) || {Nth, Bit, Bytes} <- Damaged],
    %% Of most nobody else says anything.
    Silent = [Nth || {Nth, _, Bytes} <- Damaged, not is_refused_by_ra(Bytes)],
    ?assert(length(Silent) > length(Damaged) div 2).

%% The bit that says whether it is the first of its writer, and the writer's number, where that
%% does not make it another's.
a_writer_that_is_damaged(Config) ->
    Records = records([10, 700, 30, 30, 3, 100, 2000, 44]),
    [
        ?assertEqual(damaged, read(changed(Records, Nth, Bit, Zeros), Config), {Nth, Bit})
     || Nth <- lists:seq(3, length(Records) - 1), Bit <- lists:seq(1, 22), Zeros <- [0, 100_000]
    ].

%% No checksum covers who it is: what comes behind it would be nobody's.
a_server_that_is_damaged(Config) ->
    Records = [First, Second | _] = records([10, 700, 30, 30, 3, 100, 2000, 44]),
    [
        ?assertEqual(damaged, read(changed(Records, Nth, Bit, Zeros), Config), {Nth, Bit})
     || {Nth, Record} <- [{1, First}, {2, Second}],
        Bit <- lists:seq(24, length_at(Record) * 8 - 32 - 1),
        Zeros <- [0, 100_000]
    ],
    %% One that was removed has a name of its own.
    [Left | _] = ?UIDS,
    ?assertMatch({ok, _}, read(file(Records), [Left], Config)).

%% It says who writes; what comes behind it has the number only.
the_first_record_is_damaged(Config) ->
    [Uid | _] = ?UIDS,
    Rest = [record(known(0), 0, N, 1, {entry, N}) || N <- lists:seq(2, 9)],
    Records = [record(introduced(0, Uid), 0, 1, 1, first) | Rest],
    [
        ?assertEqual(damaged, read(changed(Records, 1, At, Zeros), Config))
     || At <- [24, length_at(hd(Records)) * 8], Zeros <- [0, 100_000]
    ].

changed(Records, Nth, Bit, Zeros) ->
    {Before, [Record | Behind]} = lists:split(Nth - 1, Records),
    <<Head:Bit/bitstring, Was:1, Tail/bitstring>> = Record,
    file([Before, <<Head/bitstring, (1 - Was):1, Tail/bitstring>>, Behind, zeros(Zeros)]).

length_at(<<_:1, 1:1, _/bitstring>>) -> 7;
length_at(<<_:1, 0:1, _:22, Size:16, _/binary>>) -> 9 + Size.

is_named(Bytes, Config) -> read(Bytes, Config) =:= damaged orelse is_refused_by_ra(Bytes).

%% A record that does not fit its checksum and is not the last.
is_refused_by_ra(<<_:5/binary, Records/binary>>) -> is_refused(Records).

is_refused(<<0:24, Size:16, _:Size/binary, 0:64, _/binary>>) ->
    false;
is_refused(<<_:1, 0:1, _:22, Size:16, _:Size/binary, Crc:32, Length:32, Body:(16 + Length)/binary,
        Rest/binary>>) ->
    is_refused(erlang:adler32(Body) =:= Crc, Rest);
is_refused(<<_:1, 1:1, _:22, Crc:32, Length:32, Body:(16 + Length)/binary, Rest/binary>>) ->
    is_refused(erlang:adler32(Body) =:= Crc, Rest);
is_refused(_) ->
    false.

is_refused(true, Rest) -> is_refused(Rest);
is_refused(false, <<0:104, _/binary>>) -> false;
is_refused(false, Rest) -> byte_size(Rest) >= 13.

%% Of servers that were removed nothing is missed.
nobody_asks_for_others(Config) ->
    Records = records([10, 700, 30, 30, 3, 100]),
    Bytes = changed(Records, 3, 7 * 8, 0),
    [First, Second] = ?UIDS,
    ?assertEqual(damaged, read(Bytes, [First], Config)),
    ?assertEqual(damaged, read(Bytes, [Second], Config)),
    ?assertMatch({ok, _}, read(Bytes, [], Config)).

%% Its checksum says that it is an entry.
an_entry_that_looks_like_records(Config) ->
    Inner = iolist_to_binary(records([10, 20, 30])),
    Records = records([10, 20]) ++ [record(known(0), 0, 9, 9, Inner)],
    ?assertMatch({ok, _}, read(file(Records), Config)),
    ?assertMatch({ok, _}, read(file([Records, zeros(100)]), Config)).

a_file_that_is_none(Config) ->
    ?assertEqual({error, enoent}, erl_esdb_ra_wal:read(?config(name, Config), [])),
    [
        ?assertEqual({error, unknown_format}, read(Bytes, Config))
     || Bytes <- [<<>>, ~"RAWA", <<"RAWA", 2>>, <<"RAWB", 1>>]
    ].

%% ---- with a store

start(Config) ->
    {ok, _} = erl_esdb:start_store(?config(store, Config), ?config(options, Config)),
    ?config(store, Config).

%% A store that has stopped, with all in the log, and the file of that.
stopped(Config) ->
    Store = start(Config),
    [
        {ok, N} = erl_esdb_streams:append(Store, ~"s", N - 1, erl_esdb_test:events(1))
     || N <- lists:seq(0, 19)
    ],
    ok = erl_esdb:stop_store(Store),
    [File] = filelib:wildcard(maps:get(data_dir, ?config(options, Config)) ++ "/*.wal"),
    File.

%% Where the records begin, as Ra counts them.
places(File) ->
    {ok, <<_:5/binary, Records/binary>>} = file:read_file(File),
    Places = places(Records, 5),
    ?assertEqual(length(ra_log_wal:wal2list(File)), length(Places)),
    Places.

places(<<>>, _At) ->
    [];
places(<<_:1, 1:1, _:22, _:32, Length:32, _:(16 + Length)/binary, Rest/binary>>, At) ->
    [At | places(Rest, At + 27 + Length)];
places(<<_:24, S:16, _:S/binary, _:32, Length:32, _:(16 + Length)/binary, Rest/binary>>, At) ->
    [At | places(Rest, At + 29 + S + Length)].

what_ra_has_written(Config) ->
    File = stopped(Config),
    Dir = filename:dirname(File),
    [Uid] = [list_to_binary(filename:dirname(F)) || F <- filelib:wildcard("*/config", Dir)],
    Term = lists:max([Term || {_, Term, _} <- ra_log_wal:wal2list(File)]),
    ?assert(Term > 0),
    ?assertEqual({ok, #{Uid => Term}}, erl_esdb_ra_wal:read(File, [Uid])).

a_damaged_length_is_named(Config) -> damaged_length_is_named(0, Config).

%% As of a log that was allocated before it was written.
a_damaged_length_before_zeros_is_named(Config) -> damaged_length_is_named(1_000_000, Config).

damaged_length_is_named(Zeros, Config) ->
    File = stopped(Config),
    %% The first one has a head of its own.
    [_ | Places] = lists:droplast(places(File)),
    {ok, Records} = file:read_file(File),
    Bytes = <<Records/binary, (zeros(Zeros))/binary>>,
    Options = #{data_dir := Dir} = ?config(options, Config),
    [
        begin
            ok = file:write_file(File, Bytes),
            ok = erl_esdb_disk:flip(File, Place + Byte),
            ?assertEqual(
                {error, {data_dir, Dir, {damaged_file, File}}},
                erl_esdb:start_store(?config(store, Config), Options)
            )
        end
     || Place <- [hd(Places), lists:nth(length(Places) div 2, Places), lists:last(Places)],
        Byte <- [7, 8]
    ],
    ok = file:write_file(File, Bytes),
    Store = start(Config),
    ?assertMatch({ok, [_]}, erl_esdb_streams:read(Store, ~"s", 19, 10, forward)).

%% Nobody can tell it from one that was cut off.
a_damaged_end_is_the_end(Config) ->
    File = stopped(Config),
    ok = erl_esdb_disk:flip(File, lists:last(places(File)) + 7),
    Store = start(Config),
    {ok, Events} = erl_esdb_streams:read(Store, ~"s", 0, 100, forward),
    ?assertEqual(19, length(Events)).
