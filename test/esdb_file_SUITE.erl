-module(esdb_file_SUITE).
-moduledoc "Many ranges of a file, on whichever implementation is loaded, and the twin besides.".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {minutes, 5}}].

all() ->
    [
        ranges_are_slices,
        any_order_and_overlaps,
        nothing_is_behind_the_end,
        far_ranges,
        a_file_that_grows_or_is_cut,
        a_file_that_is_replaced_stays_open,
        limits,
        names,
        errors_of_the_system,
        a_file_belongs_to_its_process,
        closed_files,
        the_file_goes_with_its_process,
        what_is_no_range_is_badarg
    ].

init_per_testcase(Case, Config) ->
    Name = filename:join(?config(priv_dir, Config), Case),
    [{name, Name} | Config].

end_per_testcase(_Case, _Config) -> ok.

content(Size) -> <<<<(N * 31 + N div 256)>> || N <- lists:seq(1, Size)>>.

opened(Config, Content) ->
    ok = file:write_file(?config(name, Config), Content),
    {ok, File} = esdb_file_nif:open(?config(name, Config)),
    File.

slice(Content, {Offset, Length}) ->
    case byte_size(Content) of
        Size when Offset >= Size -> <<>>;
        Size -> binary:part(Content, Offset, min(Length, Size - Offset))
    end.

ranges_are_slices(Config) ->
    Content = content(300_000),
    File = opened(Config, Content),
    {ok, Twin} = esdb_file_erl:open(list_to_binary(?config(name, Config))),
    Range = {integer(0, 310_000), oneof([integer(0, 600), integer(0, 40_000)])},
    Property = ?FORALL(Ranges, list(Range), begin
        Slices = {ok, [slice(Content, R) || R <- Ranges]},
        {Slices, Slices} =:= {esdb_file_nif:read(File, Ranges), esdb_file_erl:read(Twin, Ranges)}
    end),
    ?assert(proper:quickcheck(Property, [quiet, {numtests, 300}, {max_size, 60}])),
    ok = esdb_file_nif:close(File),
    ok = esdb_file_erl:close(Twin).

any_order_and_overlaps(Config) ->
    File = opened(Config, ~"one two three"),
    ?assertEqual(
        {ok, [~"three", ~"one", ~"e two", ~"e two", <<>>]},
        esdb_file_nif:read(File, [{8, 5}, {0, 3}, {2, 5}, {2, 5}, {4, 0}])
    ),
    ?assertEqual({ok, []}, esdb_file_nif:read(File, [])).

nothing_is_behind_the_end(Config) ->
    File = opened(Config, ~"0123456789"),
    ?assertEqual(
        {ok, [~"89", <<>>, <<>>, <<>>]},
        esdb_file_nif:read(File, [{8, 60_000_000}, {10, 1}, {11, 1}, {1 bsl 61, 1}])
    ),
    Empty = opened(Config, <<>>),
    ?assertEqual({ok, [<<>>]}, esdb_file_nif:read(Empty, [{0, 100}])).

%% Of a file with holes, as far apart as they can be.
far_ranges(Config) ->
    File = opened(Config, ~"begin"),
    {ok, Writer} = file:open(?config(name, Config), [read, write, raw, binary]),
    Far = [N * 1_000_000_007 || N <- lists:seq(1, 100)],
    [ok = file:pwrite(Writer, At, <<At:64>>) || At <- Far],
    ok = file:close(Writer),
    {ok, [~"begin" | Found]} = esdb_file_nif:read(File, [{0, 5} | [{At, 8} || At <- Far]]),
    ?assertEqual([<<At:64>> || At <- Far], Found),
    ok = file:delete(?config(name, Config)).

a_file_that_grows_or_is_cut(Config) ->
    File = opened(Config, ~"0123"),
    {ok, Writer} = file:open(?config(name, Config), [read, write, raw, binary]),
    ok = file:pwrite(Writer, 4, ~"4567"),
    ?assertEqual({ok, [~"3456"]}, esdb_file_nif:read(File, [{3, 4}])),
    {ok, 2} = file:position(Writer, 2),
    ok = file:truncate(Writer),
    ?assertEqual({ok, [<<>>, ~"01"]}, esdb_file_nif:read(File, [{3, 4}, {0, 4}])).

a_file_that_is_replaced_stays_open(Config) ->
    File = opened(Config, ~"before"),
    Other = ?config(name, Config) ++ ".other",
    ok = file:write_file(Other, ~"behind"),
    ok = file:rename(Other, ?config(name, Config)),
    ?assertEqual({ok, [~"before"]}, esdb_file_nif:read(File, [{0, 10}])),
    ok = file:delete(?config(name, Config)),
    ?assertEqual({ok, [~"before"]}, esdb_file_nif:read(File, [{0, 10}])).

limits(Config) ->
    File = opened(Config, ~"0123456789"),
    Most = lists:duplicate(65_536, {1, 1024}),
    ?assertEqual({ok, lists:duplicate(65_536, ~"123456789")}, esdb_file_nif:read(File, Most)),
    [
        ?assertEqual({error, too_large}, esdb_file_nif:read(File, Ranges))
     || Ranges <- [
            lists:duplicate(65_537, {0, 0}),
            [{0, 67_108_865}],
            [{0, 67_108_864}, {0, 1}],
            [{0, 1 bsl 61}]
        ]
    ].

names(Config) ->
    Name = ?config(name, Config),
    _ = opened(Config, ~"x"),
    Names = [Name, list_to_binary(Name), filename:join([Name, "..", filename:basename(Name)])],
    [{ok, _} = esdb_file_nif:open(N) || N <- lists:sublist(Names, 2)],
    ?assertEqual({error, enotdir}, esdb_file_nif:open(lists:last(Names))),
    [
        ?assertError(badarg, esdb_file_nif:open(N))
     || N <- [a, 1, {}, [a], [0], <<0>>, ["x" | y], [16#D800], <<1:3>>]
    ].

errors_of_the_system(Config) ->
    Dir = ?config(priv_dir, Config),
    Pipe = ?config(name, Config),
    "" = os:cmd("mkfifo '" ++ Pipe ++ "'"),
    ?assertEqual({error, eisdir}, esdb_file_nif:open(Dir)),
    ?assertEqual({error, enoent}, esdb_file_nif:open(filename:join(Dir, "missing"))),
    ?assertEqual({error, enoent}, esdb_file_nif:open("")),
    ?assertEqual({error, enametoolong}, esdb_file_nif:open(lists:duplicate(5000, $x))),
    %% To open it would take until somebody writes.
    ?assertEqual({error, einval}, esdb_file_nif:open(Pipe)),
    ?assertEqual({error, einval}, esdb_file_nif:open("/dev/null")).

a_file_belongs_to_its_process(Config) ->
    File = opened(Config, ~"mine"),
    Other = fun() ->
        exit({esdb_file_nif:read(File, [{0, 4}]), esdb_file_nif:close(File)})
    end,
    {Pid, Ref} = spawn_monitor(Other),
    Refused = {error, not_on_controlling_process},
    receive
        {'DOWN', Ref, process, Pid, Answers} -> ?assertEqual({Refused, Refused}, Answers)
    end,
    ?assertEqual({ok, [~"mine"]}, esdb_file_nif:read(File, [{0, 4}])).

closed_files(Config) ->
    File = opened(Config, ~"x"),
    ok = esdb_file_nif:close(File),
    ?assertEqual({error, einval}, esdb_file_nif:close(File)),
    ?assertEqual({error, einval}, esdb_file_nif:read(File, [{0, 1}])),
    ?assertEqual({error, einval}, esdb_file_nif:read(File, [])),
    [
        ?assertError(badarg, Call(Handle))
     || Handle <- [a, 1, make_ref(), {}, {file_descriptor, a}, ~"x"],
        Call <- [fun esdb_file_nif:close/1, fun(H) -> esdb_file_nif:read(H, [{0, 1}]) end]
    ].

%% As many processes as may have a file open at a time would not do without.
the_file_goes_with_its_process(Config) ->
    _ = opened(Config, ~"x"),
    Before = descriptors(),
    Open = fun() -> {ok, _} = esdb_file_nif:open(?config(name, Config)) end,
    [
        receive
            {'DOWN', Ref, process, Pid, normal} -> ok
        end
     || {Pid, Ref} <- [spawn_monitor(Open) || _ <- lists:seq(1, 500)]
    ],
    %% What a process leaves is freed soon after it has ended.
    freed(Before + 50, erlang:monotonic_time(millisecond) + 60_000).

freed(Most, Until) ->
    case descriptors() of
        Count when Count =< Most -> ok;
        Count -> freed(Most, Until, Count)
    end.

freed(Most, Until, Count) ->
    ?assert(erlang:monotonic_time(millisecond) < Until, Count),
    receive after 10 -> freed(Most, Until) end.

descriptors() ->
    case file:list_dir("/proc/self/fd") of
        {ok, Names} -> length(Names);
        %% Not Linux.
        {error, _} -> 0
    end.

what_is_no_range_is_badarg(Config) ->
    File = opened(Config, ~"x"),
    [
        ?assertError(badarg, esdb_file_nif:read(File, Ranges))
     || Ranges <- [
            a,
            {0, 1},
            [{0, 1} | {1, 1}],
            [{-1, 1}],
            [{0, -1}],
            [{0, 1.0}],
            [{0, 1, 2}],
            [0, 1],
            [{1 bsl 62, 0}],
            [{0, 1 bsl 64}]
        ]
    ].
