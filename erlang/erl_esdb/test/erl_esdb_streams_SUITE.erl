-module(erl_esdb_streams_SUITE).
-moduledoc """
The streams API, row by row of the checklist, on every engine: each group runs the same cases.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_test, [event/1, event/2, events/1, events/2, versions/1, concurrently/1]).
-import(erl_esdb_streams, [append/4, append/5, read/5, read_all/4, read_by_event_types/3]).

-define(S, <<"orders-1">>).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all([ra3]).

%% One traces the messages of the process that applies commands.
groups() -> erl_esdb_test:groups(cases(), #{in_memory => [b_removal_goes_on_between_commands]}).

cases() ->
    [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("a_", atom_to_list(F))] ++
        [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("b_", atom_to_list(F))].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

%% ---- append

a_str_01_new_stream(Config) ->
    ?assertEqual({ok, 0}, append(store(Config), ?S, ?NO_STREAM, events(1))).

a_str_02_five_events_on_a_new_stream(Config) ->
    ?assertEqual({ok, 4}, append(store(Config), ?S, ?NO_STREAM, events(5))),
    {ok, Events} = read(store(Config), ?S, 0, 100, forward),
    ?assertEqual([0, 1, 2, 3, 4], versions(Events)).

a_str_03_the_returned_version_continues(Config) ->
    {ok, 0} = append(store(Config), ?S, ?NO_STREAM, events(1)),
    ?assertEqual({ok, 1}, append(store(Config), ?S, 0, events(1))).

a_str_04_no_stream_on_an_existing_one(Config) ->
    {ok, 2} = append(store(Config), ?S, ?NO_STREAM, events(3)),
    Expected = {error, {wrong_expected_version, -1, 2}},
    ?assertEqual(Expected, append(store(Config), ?S, ?NO_STREAM, events(1))),
    ?assertEqual(Expected, append(store(Config), ?S, no_stream, events(1))).

a_str_05_another_version_than_the_current_one(Config) ->
    {ok, 0} = append(store(Config), ?S, ?NO_STREAM, events(1)),
    Refused = append(store(Config), ?S, 5, events(1)),
    ?assertEqual({error, {wrong_expected_version, 5, 0}}, Refused),
    ?assertEqual(0, erl_esdb_streams:get_version(store(Config), ?S)),
    ?assertMatch({ok, [_]}, erl_esdb_streams:read_log(store(Config), 0, 9, forward, #{})).

a_str_06_a_version_of_an_absent_stream(Config) ->
    Refused = append(store(Config), ?S, 0, events(1)),
    ?assertEqual({error, {wrong_expected_version, 0, -1}}, Refused),
    ?assertNot(erl_esdb_streams:exists(store(Config), ?S)).

a_str_07_any_version(Config) ->
    ?assertEqual({ok, 0}, append(store(Config), ?S, ?ANY_VERSION, events(1))),
    ?assertEqual({ok, 1}, append(store(Config), ?S, ?ANY_VERSION, events(1))).

a_str_08_a_stream_that_exists(Config) ->
    Refused = {error, {wrong_expected_version, -4, -1}},
    ?assertEqual(Refused, append(store(Config), ?S, ?STREAM_EXISTS, events(1))),
    ?assertEqual(Refused, append(store(Config), ?S, stream_exists, events(1))),
    {ok, 0} = append(store(Config), ?S, any, events(1)),
    ?assertEqual({ok, 1}, append(store(Config), ?S, ?STREAM_EXISTS, events(1))),
    ?assertEqual({ok, 2}, append(store(Config), ?S, stream_exists, events(1))).

a_str_09_the_atom_any(Config) ->
    ?assertEqual({ok, 0}, append(store(Config), ?S, any, events(1))),
    ?assertEqual({ok, 2}, append(store(Config), ?S, any, events(2))).

a_str_10_no_events(Config) ->
    Store = store(Config),
    ?assertEqual({ok, -1}, append(Store, ?S, ?ANY_VERSION, [])),
    ?assertEqual({ok, -1}, append(Store, ?S, ?NO_STREAM, [])),
    ?assertNot(erl_esdb_streams:exists(Store, ?S)),
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)),
    ?assertEqual({error, {wrong_expected_version, 7, -1}}, append(Store, ?S, 7, [])),
    {ok, 1} = append(Store, ?S, any, events(2)),
    ?assertEqual({ok, 1}, append(Store, ?S, 1, [])).

a_str_11_all_or_nothing(Config) ->
    Batch = [event(1), #{event_type => <<"NoData">>}, event(3)],
    Refused = append(store(Config), ?S, any, Batch),
    ?assertEqual({error, {invalid_event, {missing, data}}}, Refused),
    ?assertEqual(-1, erl_esdb_streams:get_version(store(Config), ?S)),
    ?assertEqual({ok, []}, erl_esdb_streams:read_log(store(Config), 0, 9, forward, #{})).

a_str_12_one_winner_of_fifty(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, ?S, any, events(1)),
    Results = concurrently([fun() -> append(Store, ?S, 0, events(2)) end || _ <- lists:seq(1, 50)]),
    {Won, Lost} = lists:partition(fun(Result) -> element(1, Result) =:= ok end, Results),
    ?assertEqual([{ok, 2}], Won),
    ?assertEqual([{error, {wrong_expected_version, 0, 2}}], lists:usort(Lost)),
    ?assertEqual(2, erl_esdb_streams:get_version(Store, ?S)).

a_str_13_concurrent_appends_lose_and_double_nothing(Config) ->
    Store = store(Config),
    Append = fun(Writer) ->
        [append(Store, ?S, any, [event({Writer, N})]) || N <- lists:seq(1, 10)]
    end,
    Results = concurrently([fun() -> Append(Writer) end || Writer <- lists:seq(1, 50)]),
    ?assertEqual(lists:seq(0, 499), lists:sort([V || {ok, V} <- lists:append(Results)])),
    {ok, Events} = read(Store, ?S, 0, infinity, forward),
    ?assertEqual(lists:seq(0, 499), versions(Events)),
    ?assertEqual(lists:seq(0, 499), [Event#event.position || Event <- Events]),
    Written = lists:sort([{Writer, N} || Writer <- lists:seq(1, 50), N <- lists:seq(1, 10)]),
    ?assertEqual(Written, lists:sort([maps:get(n, Event#event.data) || Event <- Events])).

a_str_14_a_given_id_is_kept(Config) ->
    {ok, 0} = append(store(Config), ?S, any, [(event(1))#{event_id => <<"mine">>}]),
    {ok, [Event]} = read(store(Config), ?S, 0, 1, forward),
    ?assertEqual(<<"mine">>, Event#event.event_id).

a_str_15_ids_are_generated(Config) ->
    {ok, 999} = append(store(Config), ?S, any, events(1000)),
    {ok, Events} = read(store(Config), ?S, 0, 1000, forward),
    Ids = erl_esdb_test:ids(Events),
    Form = "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$",
    lists:foreach(fun(Id) -> ?assertEqual({match, [{0, 36}]}, re:run(Id, Form)) end, Ids),
    ?assertEqual(1000, length(lists:usort(Ids))).

a_str_16_metadata_is_empty_by_default(Config) ->
    {ok, 1} = append(store(Config), ?S, any, [event(1), (event(2))#{metadata => #{by => me}}]),
    {ok, Events} = read(store(Config), ?S, 0, 2, forward),
    ?assertEqual([#{}, #{by => me}], [Event#event.metadata || Event <- Events]).

a_str_17_content_types(Config) ->
    Other = (event(2))#{
        data_content_type => ?CONTENT_TYPE_BINARY, metadata_content_type => <<"text/plain">>
    },
    {ok, 1} = append(store(Config), ?S, any, [event(1), Other]),
    {ok, [One, Two]} = read(store(Config), ?S, 0, 2, forward),
    ?assertEqual(?CONTENT_TYPE_JSON, One#event.data_content_type),
    ?assertEqual(?CONTENT_TYPE_JSON, One#event.metadata_content_type),
    ?assertEqual(?CONTENT_TYPE_BINARY, Two#event.data_content_type),
    ?assertEqual(<<"text/plain">>, Two#event.metadata_content_type).

a_str_18_data_may_be_a_binary(Config) ->
    Datas = [<<>>, <<0, 255, "bytes">>, binary:copy(<<"x">>, 100_000)],
    Events = [#{event_type => <<"Raw">>, data => Data} || Data <- Datas],
    {ok, 2} = append(store(Config), ?S, any, Events),
    {ok, Read} = read(store(Config), ?S, 0, 3, forward),
    ?assertEqual(Datas, [Event#event.data || Event <- Read]).

a_str_19_times(Config) ->
    Store = store(Config),
    Before = erlang:system_time(microsecond),
    Batches = [append(Store, ?S, any, events(3)) || _ <- lists:seq(1, 200)],
    ?assertMatch({ok, 599}, lists:last(Batches)),
    After = erlang:system_time(microsecond),
    {ok, Events} = read(Store, ?S, 0, infinity, forward),
    Times = [Event#event.epoch_us || Event <- Events],
    ?assertEqual(Times, lists:sort(Times)),
    ?assert(hd(Times) >= Before andalso lists:last(Times) =< After),
    ?assert(lists:all(fun(E) -> E#event.timestamp =:= E#event.epoch_us div 1000 end, Events)),
    OfBatches = [lists:sublist(Times, 1 + 3 * N, 3) || N <- lists:seq(0, 199)],
    ?assertEqual([], [Batch || Batch <- OfBatches, length(lists:usort(Batch)) =/= 1]).

a_str_20_missing_keys(Config) ->
    Store = store(Config),
    Missing = fun(Key) -> {error, {invalid_event, {missing, Key}}} end,
    Bad = fun(Key) -> {error, {invalid_event, {bad_type, Key}}} end,
    ?assertEqual(Missing(event_type), append(Store, ?S, any, [#{}])),
    ?assertEqual(Missing(event_type), append(Store, ?S, any, [#{data => #{}}])),
    ?assertEqual(Missing(data), append(Store, ?S, any, [#{event_type => <<"T">>}])),
    ?assertEqual(Bad(event_type), append(Store, ?S, any, [(event(1))#{event_type => t}])),
    ?assertEqual(Bad(data), append(Store, ?S, any, [(event(1))#{data => [1]}])),
    ?assertEqual(Bad(metadata), append(Store, ?S, any, [(event(1))#{metadata => []}])),
    ?assertEqual(Bad(event_id), append(Store, ?S, any, [(event(1))#{event_id => 7}])),
    ?assertEqual(Bad(tags), append(Store, ?S, any, [(event(1))#{tags => [<<"a">> | b]}])),
    ?assertEqual({error, {invalid_event, not_an_event}}, append(Store, ?S, any, [nonsense])),
    ?assertEqual(-1, erl_esdb_streams:get_version(Store, ?S)).

a_str_21_any_name(Config) ->
    Store = store(Config),
    Names = [
        <<"größe-日本"/utf8>>,
        <<"$">>,
        <<"$all">>,
        <<"a/b//c">>,
        <<"*">>,
        <<"orders-*">>,
        <<"with space\n">>,
        <<0, 255>>,
        binary:copy(<<"n">>, 10_000),
        <<>>
    ],
    [{ok, 0} = append(Store, Name, ?NO_STREAM, [event(Name)]) || Name <- Names],
    Read = [read(Store, Name, 0, 10, forward) || Name <- Names],
    ?assertEqual(Names, [Name || {ok, [#event{stream_id = Name, data = #{n := Name}}]} <- Read]),
    ?assertEqual({ok, lists:sort(Names)}, erl_esdb_streams:list_streams(Store)).

a_str_22_records_are_accepted(Config) ->
    Store = store(Config),
    Given = #event{
        event_id = <<"id">>,
        event_type = <<"T">>,
        stream_id = <<"other">>,
        version = 77,
        data = #{a => 1},
        metadata = #{m => 2},
        timestamp = 1,
        epoch_us = 1,
        tags = [<<"t">>],
        position = 99
    },
    {ok, 1} = append(Store, ?S, any, [Given, #event{event_type = <<"U">>, data = <<>>}]),
    {ok, [Read, Second]} = read(Store, ?S, 0, 2, forward),
    ?assertEqual(36, byte_size(Second#event.event_id)),
    ?assert(Read#event.epoch_us > 1),
    Expected = Given#event{
        stream_id = ?S,
        version = 0,
        position = 0,
        timestamp = Read#event.timestamp,
        epoch_us = Read#event.epoch_us
    },
    ?assertEqual(Expected, Read).

a_str_23_terms_keep_their_value(Config) ->
    Store = store(Config),
    Property = ?FORALL(
        {Data, Metadata},
        {oneof([binary(), map(any(), any())]), map(any(), any())},
        begin
            Event = #{event_type => <<"T">>, data => Data, metadata => Metadata},
            {ok, Version} = append(Store, ?S, any, [Event]),
            {ok, [Read]} = read(Store, ?S, Version, 1, forward),
            Read#event.data =:= Data andalso Read#event.metadata =:= Metadata
        end
    ),
    erl_esdb_test:property(300, Property).

a_str_24_options(Config) ->
    Store = store(Config),
    ?assertEqual({ok, 0}, append(Store, ?S, any, events(1), #{})),
    ?assertEqual({ok, 1}, append(Store, ?S, any, events(1), #{unheard_of => 1, timeout => 9000})),
    Result = append(Store, ?S, any, events(3), #{return => result}),
    ?assertEqual({ok, #append_result{version = 4, position = 4, count = 3}}, Result),
    ?assertEqual(
        {ok, #append_result{version = 4, position = undefined, count = 0}},
        append(Store, ?S, 4, [], #{return => result})
    ),
    ?assertError(badarg, append(Store, ?S, any, events(1), #{timeout => soon})),
    ?assertError(badarg, append(Store, ?S, any, events(1), no_map)).

%% Not that of the store, which does not end.
a_str_24_the_timeout_acts(_Config) ->
    Store = erl_esdb_test:start_store(#{timeout => infinity}),
    Append = fun(Timeout) -> append(Store, ?S, any, events(1), #{timeout => Timeout}) end,
    Engine = erl_esdb_test:orderer(Store),
    ok = sys:suspend(Engine),
    Answer = Append(20),
    ok = sys:resume(Engine),
    ?assertEqual({error, {timeout, Store}}, Answer),
    {ok, _} = Append(16#FFFFFFFF),
    {ok, Version} = Append(infinity),
    %% What no receive can wait is refused before it is sent.
    [?assertError(badarg, Append(T)) || T <- [-1, 16#100000000, 5_000_000_000, 1.0, soon]],
    ?assertEqual(Version, erl_esdb_streams:get_version(Store, ?S)),
    ok = erl_esdb:stop_store(Store).

a_str_25_no_store(Config) ->
    Stopped = store(Config),
    ok = erl_esdb:stop_store(Stopped),
    lists:foreach(fun no_store/1, [Stopped, nosuch]).

no_store(Store) ->
    Error = {error, {store_not_started, Store}},
    ?assertEqual(Error, append(Store, ?S, any, events(1))),
    ?assertEqual(Error, erl_esdb_streams:do_append(Store, ?S, any, events(1))),
    ?assertEqual(Error, read(Store, ?S, 0, 1, forward)),
    ?assertEqual(Error, erl_esdb_streams:do_read(Store, ?S, 0, 1, forward)),
    ?assertEqual(Error, read_all(Store, ?S, 1, forward)),
    ?assertEqual(Error, read_all(Store, 0, 1, forward)),
    ?assertEqual(Error, read_all(Store, 0, 1, backward)),
    ?assertEqual(Error, erl_esdb_streams:read_log(Store, 0, 1, forward, #{})),
    ?assertEqual(Error, read_by_event_types(Store, [], 1)),
    ?assertEqual(Error, erl_esdb_streams:list_streams(Store)),
    ?assertEqual(Error, erl_esdb_streams:delete(Store, ?S)),
    ?assertEqual(-1, erl_esdb_streams:get_version(Store, ?S)),
    ?assertNot(erl_esdb_streams:exists(Store, ?S)),
    ?assertNot(erl_esdb_store:is_ready(Store)).

a_str_26_telemetry_of_an_append(Config) ->
    Store = store(Config),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store),
    {ok, 2} = append(Store, ?S, any, events(3)),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    [{?STREAM_WRITE_START, Start, Meta1}, {?STREAM_WRITE_STOP, Stop, Meta2}] =
        erl_esdb_test:collected(?FUNCTION_NAME),
    ?assert(abs(maps:get(system_time, Start) - erlang:system_time(millisecond)) < 60_000),
    Stream = #{store_id => Store, stream_id => ?S},
    ?assertEqual(Stream#{event_count => 3, expected_version => any}, Meta1),
    ?assertMatch(#{duration := D, event_count := 3} when D >= 0, Stop),
    ?assertEqual(Stream#{new_version => 2}, Meta2).

a_str_27_telemetry_of_a_refused_append(Config) ->
    Store = store(Config),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store),
    {error, Reason} = append(Store, ?S, 3, events(1)),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    [{?STREAM_WRITE_START, _, _}, {?STREAM_WRITE_ERROR, #{duration := _}, Meta}] =
        erl_esdb_test:collected(?FUNCTION_NAME),
    ?assertEqual(#{store_id => Store, stream_id => ?S, reason => Reason}, Meta).

%% Each start has its stop or its error: misuse tells nothing.
a_str_27_misuse_tells_nothing(Config) ->
    Store = store(Config),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store),
    ?assertError(badarg, append(Store, ?S, -3, events(1))),
    ?assertError(badarg, append(Store, "s", any, events(1))),
    ?assertError(badarg, append(Store, ?S, any, [event(1) | event(2)])),
    ?assertError(badarg, append(Store, ?S, any, events(1), #{timeout => -1})),
    ?assertError(badarg, append(Store, ?S, any, events(1), [])),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    ?assertEqual([], erl_esdb_test:collected(?FUNCTION_NAME)).

a_str_28_order_past_powers_of_ten(Config) ->
    Store = store(Config),
    [{ok, N} = append(Store, ?S, N - 1, [event(N)]) || N <- lists:seq(0, 1099)],
    {ok, Events} = read(Store, ?S, 0, 1100, forward),
    ?assertEqual(lists:seq(0, 1099), versions(Events)),
    ?assertEqual(lists:seq(0, 1099), [maps:get(n, Event#event.data) || Event <- Events]).

%% ---- read

a_str_29_forward_from_the_beginning(Config) ->
    ok = filled(Config, 5),
    ?assertEqual([0, 1, 2, 3, 4], window(Config, 0, 100, forward)).

a_str_30_count_limits(Config) ->
    ok = filled(Config, 10),
    ?assertEqual([0, 1, 2], window(Config, 0, 3, forward)).

a_str_31_forward_from_the_middle(Config) ->
    ok = filled(Config, 10),
    ?assertEqual([5, 6, 7], window(Config, 5, 3, forward)).

a_str_32_past_the_end(Config) ->
    ok = filled(Config, 10),
    ?assertEqual([], window(Config, 100, 5, forward)),
    ?assertEqual([], window(Config, 10, 5, forward)).

a_str_33_backward_from_the_last(Config) ->
    ok = filled(Config, 5),
    ?assertEqual([4, 3, 2, 1, 0], window(Config, 4, 5, backward)),
    ?assertEqual([3, 2], window(Config, 3, 2, backward)).

a_str_34_backward_ends_at_zero(Config) ->
    ok = filled(Config, 5),
    ?assertEqual([1, 0], window(Config, 1, 10, backward)).

a_str_35_backward_from_past_the_end(Config) ->
    ok = filled(Config, 5),
    ?assertEqual([4, 3], window(Config, 100, 98, backward)),
    ?assertEqual([], window(Config, 100, 50, backward)).

a_str_36_an_absent_stream(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, <<"orders-1">>, any, events(1)),
    Missing = fun(Id) -> {error, {stream_not_found, Id}} end,
    ?assertEqual(Missing(<<"none">>), read(Store, <<"none">>, 0, 10, forward)),
    ?assertEqual(Missing(<<"none">>), read(Store, <<"none">>, 0, 0, backward)),
    ?assertEqual(Missing(<<"orders-*">>), read(Store, <<"orders-*">>, 0, 10, forward)),
    ?assertEqual(Missing(<<"none">>), read_all(Store, <<"none">>, 10, forward)),
    ?assertEqual(Missing(<<"none">>), read_all(Store, <<"none">>, 10, backward)).

a_str_37_counts_zero_and_infinity(Config) ->
    ok = filled(Config, 5),
    ?assertEqual([], window(Config, 0, 0, forward)),
    ?assertEqual([], window(Config, 4, 0, backward)),
    ?assertEqual([1, 2, 3, 4], window(Config, 1, infinity, forward)),
    ?assertEqual([3, 2, 1, 0], window(Config, 3, infinity, backward)).

a_str_38_the_fields_of_an_event(Config) ->
    Store = store(Config),
    {ok, 1} = append(Store, <<"other">>, any, events(2)),
    Given = #{event_id => <<"i">>, event_type => <<"t">>, data => #{d => 1}, metadata => #{m => 2}},
    {ok, 0} = append(Store, ?S, any, [Given]),
    {ok, [Event]} = read(Store, ?S, 0, 1, forward),
    ?assert(is_record(Event, event)),
    [event, Id, Type, Stream, Version, Data, Metadata, Time, EpochUs, Ct1, Ct2 | More] =
        tuple_to_list(Event),
    ?assertEqual({<<"i">>, <<"t">>, ?S, 0}, {Id, Type, Stream, Version}),
    ?assertEqual({#{d => 1}, #{m => 2}}, {Data, Metadata}),
    ?assert(is_integer(Time) andalso EpochUs div 1000 =:= Time),
    ?assertEqual({?CONTENT_TYPE_JSON, ?CONTENT_TYPE_JSON}, {Ct1, Ct2}),
    ?assertEqual([[], 2, undefined, undefined], More).

a_str_39_telemetry_of_a_read(Config) ->
    Store = store(Config),
    ok = filled(Config, 5),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store),
    {ok, [_, _]} = read(Store, ?S, 3, 10, forward),
    [{?STREAM_READ_START, Start, Meta1}, {?STREAM_READ_STOP, Stop, Meta2}] =
        erl_esdb_test:collected(?FUNCTION_NAME),
    Stream = #{store_id => Store, stream_id => ?S},
    ?assertMatch(#{system_time := _}, Start),
    ?assertEqual(Stream#{start_version => 3, count => 10, direction => forward}, Meta1),
    ?assertMatch(#{duration := D, event_count := 2} when D >= 0, Stop),
    ?assertEqual(Stream, Meta2),
    {error, _} = read(Store, <<"none">>, 0, 10, forward),
    {ok, _} = erl_esdb_streams:do_read(Store, ?S, 3, 10, forward),
    ?assertEqual([], erl_esdb_test:collected(?FUNCTION_NAME)),
    ok = erl_esdb_test:release(?FUNCTION_NAME).

a_str_40_pages_of_a_large_stream(Config) ->
    Store = store(Config),
    Sizes = lists:flatten(lists:duplicate(400, [1, 2, 247])),
    lists:foldl(
        fun(Size, From) ->
            {ok, _} = append(Store, ?S, From - 1, events(From, From + Size - 1)),
            From + Size
        end,
        0,
        Sizes
    ),
    {ok, Whole} = read(Store, ?S, 0, infinity, forward),
    ?assertEqual(lists:seq(0, 99_999), versions(Whole)),
    ?assertEqual(lists:seq(0, 99_999), [maps:get(n, Event#event.data) || Event <- Whole]),
    Pages = [read(Store, ?S, From, 777, forward) || From <- lists:seq(0, 99_999, 777)],
    ?assertEqual(Whole, lists:append([Page || {ok, Page} <- Pages])),
    Back = [read(Store, ?S, From, 7000, backward) || From <- lists:seq(99_999, 0, -7000)],
    ?assertEqual(lists:reverse(Whole), lists:append([Page || {ok, Page} <- Back])).

a_str_41_read_all_of_a_stream(Config) ->
    ok = filled(Config, 10),
    {ok, Expected} = read(store(Config), ?S, 0, 4, forward),
    ?assertEqual({ok, Expected}, read_all(store(Config), ?S, 4, forward)),
    {ok, All} = read_all(store(Config), ?S, 100, forward),
    ?assertEqual(10, length(All)).

a_str_42_read_all_backward_begins_at_the_newest(Config) ->
    ok = filled(Config, 5),
    {ok, Newest} = read_all(store(Config), ?S, 2, backward),
    ?assertEqual([4, 3], versions(Newest)),
    {ok, All} = read_all(store(Config), ?S, infinity, backward),
    ?assertEqual([4, 3, 2, 1, 0], versions(All)).

a_str_43_read_all_streams(Config) ->
    Store = store(Config),
    [{ok, _} = append(Store, S, any, events(2)) || S <- [<<"a">>, <<"b">>, <<"a">>, <<"b">>]],
    Places = fun({ok, Events}) -> [{S, V} || #event{stream_id = S, version = V} <- Events] end,
    Order = [{S, V} || V0 <- [0, 2], S <- [<<"a">>, <<"b">>], V <- [V0, V0 + 1]],
    ?assertEqual(Order, Places(read_all(Store, 0, 100, forward))),
    ?assertEqual(lists:sublist(Order, 4, 3), Places(read_all(Store, 3, 3, forward))),
    ?assertEqual([], Places(read_all(Store, 8, 3, forward))),
    Reverse = lists:reverse(Order),
    ?assertEqual(Reverse, Places(read_all(Store, 0, 100, backward))),
    ?assertEqual(lists:sublist(Reverse, 4, 3), Places(read_all(Store, 3, 3, backward))),
    ?assertEqual([], Places(read_all(Store, 8, 3, backward))),
    ?assertError(badarg, read_all(Store, -1, 3, backward)).

%% ---- read by types

a_str_44_types(Config) ->
    Store = store(Config),
    Streams = [<<"a">>, <<"b">>, <<"c">>],
    Types = [<<"X">>, <<"Y">>, <<"Z">>],
    [{ok, _} = append(Store, S, any, [event(N, T)]) || N <- [1, 2], S <- Streams, T <- Types],
    {ok, Events} = read_by_event_types(Store, [<<"X">>, <<"Z">>], 100),
    Expected = [{S, T, N} || N <- [1, 2], S <- Streams, T <- [<<"X">>, <<"Z">>]],
    ?assertEqual(Expected, [
        {E#event.stream_id, E#event.event_type, maps:get(n, E#event.data)}
     || E <- Events
    ]),
    Times = [E#event.epoch_us || E <- Events],
    ?assertEqual(lists:sort(Times), Times),
    ?assertEqual({ok, []}, read_by_event_types(Store, [<<"none">>], 100)).

a_str_45_types_batch_size(Config) ->
    Store = store(Config),
    [{ok, _} = append(Store, S, any, [event(N)]) || N <- [1, 2], S <- [<<"b">>, <<"a">>]],
    {ok, Events} = read_by_event_types(Store, [<<"Counted">>], 2),
    ?assertEqual([<<"b">>, <<"a">>], [E#event.stream_id || E <- Events]),
    ?assertEqual([0, 1], [E#event.position || E <- Events]).

a_str_46_no_types_are_all_types(Config) ->
    Store = store(Config),
    {ok, 2499} = append(Store, ?S, any, events(2500)),
    {ok, 0} = append(Store, <<"b">>, any, [event(1, <<"Other">>)]),
    {ok, Events} = read_by_event_types(Store, [], 10_000),
    ?assertEqual(lists:seq(0, 2500), [E#event.position || E <- Events]).

a_str_47_types_keep_version_order_in_a_batch(Config) ->
    {ok, 49} = append(store(Config), ?S, any, events(50)),
    {ok, Events} = read_by_event_types(store(Config), [<<"Counted">>], 50),
    ?assertEqual(lists:seq(0, 49), versions(Events)).

a_str_48_types_with_a_map(Config) ->
    {ok, 1099} = append(store(Config), ?S, any, events(1100)),
    {ok, Two} = read_by_event_types(store(Config), [<<"Counted">>], #{batch_size => 2}),
    ?assertEqual([0, 1], versions(Two)),
    {ok, Default} = read_by_event_types(store(Config), [<<"Counted">>], #{}),
    ?assertEqual(1000, length(Default)).

%% One that is looked for costs one, and a thousand large ones that are not wanted are never in the
%% heap at the same time: each takes 1.6 MB there, the process may have 64 MB.
a_str_45_no_more_is_decoded_than_is_asked_for(Config) ->
    Store = store(Config),
    Large = #{event_type => <<"Large">>, data => #{n => lists:seq(1, 100_000)}},
    {ok, 999} = append(Store, ?S, any, events(1000)),
    [{ok, _} = append(Store, <<"large">>, any, [Large]) || _ <- lists:seq(1, 100)],
    {ok, 0} = append(Store, <<"last">>, any, [event(1, <<"Last">>)]),
    One = fun() -> read_by_event_types(Store, [<<"Counted">>], 1) end,
    %% The index has caught up by then.
    {ok, [_]} = One(),
    {{ok, [#event{position = 0}]}, Decoded} = counted({erlang, binary_to_term, 2}, One),
    ?assert(Decoded > 0 andalso Decoded < 10),
    Self = self(),
    Search = fun() -> Self ! {found, read_by_event_types(Store, [<<"Last">>], 1)} end,
    Limit = #{size => 8_000_000, kill => true, error_logger => false},
    {_, Ref} = spawn_opt(Search, [monitor, {max_heap_size, Limit}]),
    receive
        {'DOWN', Ref, process, _, Reason} -> ?assertEqual(normal, Reason)
    end,
    receive
        {found, Found} -> ?assertMatch({ok, [#event{position = 1100}]}, Found)
    end.

%% ---- get_version, exists, list_streams, delete

a_str_49_version_of_an_absent_stream(Config) ->
    ?assertEqual(-1, erl_esdb_streams:get_version(store(Config), <<"none">>)).

a_str_50_the_version_is_an_integer(Config) ->
    ok = filled(Config, 1),
    ?assert(is_integer(erl_esdb_streams:get_version(store(Config), ?S))).

a_str_51_the_version_is_the_latest(Config) ->
    ok = filled(Config, 5),
    ?assertEqual(4, erl_esdb_streams:get_version(store(Config), ?S)).

a_str_52_removing_events_keeps_the_version(Config) ->
    Store = store(Config),
    ok = filled(Config, 5),
    ?assertEqual({ok, {0, 3}}, erl_esdb_store:truncate(Store, ?S, 3)),
    ?assertEqual(4, erl_esdb_streams:get_version(Store, ?S)),
    ?assertEqual([3, 4], window(Config, 0, 100, forward)),
    ?assertEqual([4, 3], window(Config, 4, 100, backward)),
    ?assertEqual({ok, {3, 5}}, erl_esdb_store:truncate(Store, ?S, 5)),
    ?assertEqual(4, erl_esdb_streams:get_version(Store, ?S)),
    ?assert(erl_esdb_streams:exists(Store, ?S)),
    ?assertEqual([], window(Config, 0, 100, forward)),
    ?assertEqual({ok, 5}, append(Store, ?S, 4, [event(5)])),
    {ok, [Event]} = erl_esdb_streams:read_log(Store, 0, 100, forward, #{}),
    ?assertEqual({5, 5}, {Event#event.version, Event#event.position}).

a_str_53_exists(Config) ->
    Store = store(Config),
    ?assertNot(erl_esdb_streams:exists(Store, ?S)),
    {ok, 0} = append(Store, ?S, any, events(1)),
    ?assert(erl_esdb_streams:exists(Store, ?S)),
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertNot(erl_esdb_streams:exists(Store, ?S)).

a_str_54_streams_are_listed_sorted(Config) ->
    Store = store(Config),
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)),
    [{ok, _} = append(Store, S, any, events(1)) || S <- [<<"b">>, <<"c">>, <<"a">>, <<"b">>]],
    ?assertEqual({ok, [<<"a">>, <<"b">>, <<"c">>]}, erl_esdb_streams:list_streams(Store)).

a_str_55_documents_are_no_streams_links_are(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, <<"$link:open">>, any, events(1)),
    {ok, 1} = erl_esdb_store:put_document(Store, {snapshot, ?S, 7}, #{state => 1}),
    ?assertEqual({ok, [<<"$link:open">>]}, erl_esdb_streams:list_streams(Store)),
    ?assertEqual({ok, 1}, erl_esdb_store:next_position(Store)).

a_str_56_delete_is_ok(Config) ->
    ok = filled(Config, 3),
    ?assertEqual(ok, erl_esdb_streams:delete(store(Config), ?S)),
    ?assertEqual(ok, erl_esdb_streams:delete(store(Config), ?S)),
    ?assertEqual(ok, erl_esdb_streams:delete(store(Config), <<"none">>)).

a_str_57_a_deleted_stream_begins_again(Config) ->
    Store = store(Config),
    ok = filled(Config, 3),
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertEqual({error, {stream_not_found, ?S}}, read(Store, ?S, 0, 10, forward)),
    ?assertEqual(-1, erl_esdb_streams:get_version(Store, ?S)),
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)),
    ?assertEqual({ok, 0}, append(Store, ?S, ?NO_STREAM, [event(again)])),
    {ok, [Event]} = read(Store, ?S, 0, 10, forward),
    ?assertMatch(#event{version = 0, position = 3, data = #{n := again}}, Event),
    ?assertEqual({ok, [Event]}, erl_esdb_streams:read_log(Store, 0, 100, forward, #{})).

a_str_58_other_streams_stay(Config) ->
    Store = store(Config),
    ok = filled(Config, 3),
    {ok, 2} = append(Store, <<"other">>, any, events(3)),
    ok = erl_esdb_streams:delete(Store, ?S),
    {ok, Events} = read(Store, <<"other">>, 0, 10, forward),
    ?assertEqual([0, 1, 2], versions(Events)),
    ?assertEqual({ok, Events}, read_all(Store, 0, 10, forward)),
    ?assertEqual({ok, lists:reverse(Events)}, read_all(Store, 0, 10, backward)).

a_str_59_snapshots_stay(Config) ->
    Store = store(Config),
    ok = filled(Config, 3),
    Key = {snapshot, ?S, 2},
    {ok, 1} = erl_esdb_store:put_document(Store, Key, #{total => 3}),
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertEqual({ok, #{total => 3}}, erl_esdb_store:get_document(Store, Key)).

%% ---- beyond the rows

b_ids_twice_in_a_batch(Config) ->
    Batch = [(event(N))#{event_id => Id} || {N, Id} <- [{1, <<"a">>}, {2, <<"b">>}, {3, <<"a">>}]],
    Refused = append(store(Config), ?S, any, Batch),
    ?assertEqual({error, {duplicate_event_ids, [<<"a">>]}}, Refused),
    ?assertEqual(-1, erl_esdb_streams:get_version(store(Config), ?S)).

b_limits(_Config) ->
    Limits = #{max_event_size => 1000, max_batch_size => 2500, max_batch_events => 100},
    Store = erl_esdb_test:start_store(Limits),
    Event = fun(Size) -> #{event_type => <<"T">>, data => binary:copy(<<"x">>, Size)} end,
    ?assertMatch(
        {error, {event_too_large, S, 1000}} when S > 1000,
        append(Store, ?S, any, [Event(1000)])
    ),
    ?assertMatch(
        {error, {batch_too_large, S, 2500}} when S > 2500,
        append(Store, ?S, any, [Event(800), Event(800), Event(800)])
    ),
    ?assertEqual({error, {too_many_events, 101, 100}}, append(Store, ?S, any, events(101))),
    %% Documents have a limit of their own.
    ?assertEqual(
        {ok, 1}, erl_esdb_store:put_document(Store, {d, 1}, binary:copy(<<"x">>, 10_000))
    ),
    ?assertMatch(
        {error, {document_too_large, S, 16_777_216}} when S > 16_777_216,
        erl_esdb_store:put_document(Store, {d, 2}, binary:copy(<<"x">>, 16_777_216))
    ),
    ?assertEqual({error, not_found}, erl_esdb_store:get_document(Store, {d, 2})),
    ?assertEqual(-1, erl_esdb_streams:get_version(Store, ?S)),
    ?assertEqual({ok, 1}, append(Store, ?S, any, [Event(800), Event(800)])),
    ok = erl_esdb:stop_store(Store).

%% Events that share one binary are small until they are encoded: what will be refused never is.
b_what_is_refused_is_not_encoded(Config) ->
    Store = store(Config),
    Encoded = fun(Events) ->
        counted({erlang, term_to_binary, 2}, fun() -> append(Store, ?S, any, Events) end)
    end,
    Shared = binary:copy(<<"x">>, 10_000_000),
    Event = #{event_type => <<"T">>, data => Shared},
    {{error, {batch_too_large, Size, 67_108_864}}, 0} = Encoded(lists:duplicate(150, Event)),
    ?assert(Size > 1_500_000_000),
    Large = Event#{data => #{two => [Shared, Shared]}},
    ?assertMatch({{error, {event_too_large, _, 16_777_216}}, 0}, Encoded([event(1), Large])),
    Document = fun() -> erl_esdb_store:put_document(Store, {d, 1}, [Shared, Shared]) end,
    Refused = counted({erlang, term_to_binary, 2}, Document),
    ?assertMatch({{error, {document_too_large, _, _}}, 0}, Refused),
    ?assertEqual({{ok, 1}, 2}, Encoded([Event, event(2)])).

b_names_have_a_limit(Config) ->
    Store = store(Config),
    Longest = binary:copy(<<"n">>, 65_536),
    TooLong = <<Longest/binary, "n">>,
    Refused = {error, {stream_id_too_long, 65_537, 65_536}},
    ?assertEqual(Refused, append(Store, TooLong, any, events(1))),
    ?assertEqual(Refused, erl_esdb_streams:do_append(Store, TooLong, any, events(1))),
    ?assertEqual({ok, 0}, append(Store, Longest, any, events(1))),
    ?assertMatch({ok, [_]}, read(Store, Longest, 0, 10, forward)),
    ?assertEqual({ok, [Longest]}, erl_esdb_streams:list_streams(Store)).

b_misuse(Config) ->
    Store = store(Config),
    [
        ?assertError(badarg, Misuse())
     || Misuse <- [
            fun() -> append("store", ?S, any, []) end,
            fun() -> append(Store, "stream", any, []) end,
            fun() -> append(Store, ?S, -3, []) end,
            fun() -> append(Store, ?S, 1.0, []) end,
            fun() -> append(Store, ?S, whatever, []) end,
            fun() -> append(Store, ?S, any, #{}) end,
            fun() -> append(Store, ?S, any, [event(1) | event(2)]) end,
            fun() -> append(Store, ?S, any, events(1), #{return => bogus}) end,
            fun() -> read(Store, stream, 0, 1, forward) end,
            fun() -> read(Store, ?S, -1, 1, forward) end,
            fun() -> read(Store, ?S, 0, -1, forward) end,
            fun() -> read(Store, ?S, 0, 1, sideways) end,
            fun() -> read(Store, ?S, last, 1, forward) end,
            fun() -> erl_esdb_streams:read(Store, ?S, 0, 1, forward, #{consistency => none}) end,
            fun() -> erl_esdb_streams:read(Store, ?S, 0, 1, forward, #{timeout => -1}) end,
            fun() -> read_all(Store, some, 1, forward) end,
            fun() -> read_all(Store, some, 1, backward) end,
            fun() -> read_all(Store, 0, foo, forward) end,
            %% also where there is nothing to read
            fun() -> read_all(Store, 100, foo, backward) end,
            fun() -> read_all(Store, 100, -1, backward) end,
            fun() -> read_all(Store, 0, 1, sideways) end,
            fun() -> read_all(Store, ?S, foo, backward) end,
            fun() -> read_all("store", 0, 1, backward) end,
            fun() -> read_by_event_types(Store, [type], 1) end,
            fun() -> read_by_event_types(Store, [], -1) end,
            fun() -> erl_esdb_streams:delete(Store, stream) end,
            fun() -> erl_esdb_streams:get_version(Store, stream) end
        ]
    ],
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)).

b_read_options(Config) ->
    ok = filled(Config, 3),
    [
        ?assertMatch(
            {ok, [_, _, _]},
            erl_esdb_streams:read(store(Config), ?S, 0, 9, forward, #{
                consistency => Consistency, timeout => 1000, unheard_of => 1
            })
        )
     || Consistency <- [linearizable, read_your_writes, local]
    ].

b_global_reads_page_without_gaps(Config) ->
    Store = store(Config),
    [
        {ok, _} = append(Store, <<"s", (N rem 7)>>, any, events(1 + N rem 5))
     || N <- lists:seq(1, 500)
    ],
    [ok = erl_esdb_streams:delete(Store, <<"s", N>>) || N <- [2, 5]],
    {ok, _} = erl_esdb_store:truncate(Store, <<"s", 3>>, 100),
    {ok, All} = read_all(Store, 0, infinity, forward),
    Positions = [E#event.position || E <- All],
    ?assertEqual(lists:usort(Positions), Positions),
    ?assertEqual(All, pages(Store, 0, 13)),
    {ok, Back} = erl_esdb_streams:read_log(Store, last, infinity, backward, #{}),
    ?assertEqual(lists:reverse(All), Back),
    {ok, Few} = erl_esdb_streams:read_log(Store, last, 17, backward, #{}),
    ?assertEqual(lists:sublist(Back, 17), Few),
    ByStream = [E || S <- [0, 1, 3, 4, 6], E <- whole(Store, <<"s", S>>)],
    ?assertEqual(lists:sort(fun(A, B) -> A#event.position < B#event.position end, ByStream), All).

pages(Store, From, Count) ->
    case erl_esdb_streams:read_log(Store, From, Count, forward, #{}) of
        {ok, []} -> [];
        {ok, Page} -> Page ++ pages(Store, (lists:last(Page))#event.position + 1, Count)
    end.

whole(Store, Stream) ->
    {ok, Events} = read(Store, Stream, 0, infinity, forward),
    Events.

b_documents(Config) ->
    Store = store(Config),
    Put = fun(Key, Term) -> erl_esdb_store:put_document(Store, Key, Term) end,
    ?assertEqual({ok, 1}, Put({snapshot, ?S, 10}, one)),
    ?assertEqual({ok, 2}, Put({snapshot, ?S, 10}, [other])),
    ?assertEqual({ok, 1}, Put({snapshot, ?S, 9}, <<>>)),
    ?assertEqual({ok, 1}, Put({schema, <<"T">>}, #{})),
    ?assertEqual({ok, [other]}, erl_esdb_store:get_document(Store, {snapshot, ?S, 10})),
    From = {snapshot, ?S, 0},
    To = {snapshot, ?S, infinity},
    Listed = [{{snapshot, ?S, 9}, 1}, {{snapshot, ?S, 10}, 2}],
    ?assertEqual({ok, Listed}, erl_esdb_store:list_documents(Store, From, To)),
    ?assertEqual(ok, erl_esdb_store:delete_document(Store, {snapshot, ?S, 10})),
    ?assertEqual(ok, erl_esdb_store:delete_document(Store, {snapshot, ?S, 10})),
    ?assertEqual({error, not_found}, erl_esdb_store:get_document(Store, {snapshot, ?S, 10})),
    ?assertError(badarg, Put(no_tuple, 1)).

%% Readers run while a writer appends to, cuts and deletes the same stream: each sees a stream as
%% it was at some moment, never a part of it and never an error.
b_readers_race_removal(Config) ->
    Store = store(Config),
    Rounds = 300,
    Writer = fun() ->
        [
            begin
                {ok, _} = append(Store, ?S, any, events(1 + N rem 3)),
                remove(Store, N)
            end
         || N <- lists:seq(1, Rounds)
        ],
        {ok, _} = append(Store, <<"end">>, any, events(1)),
        []
    end,
    Reader = fun() -> read_until_end(Store, []) end,
    [[] | Seen] = concurrently([Writer, Reader, Reader]),
    ?assertEqual([], lists:append(Seen)).

remove(Store, N) when N rem 60 =:= 0 -> ok = erl_esdb_streams:delete(Store, ?S);
remove(Store, N) when N rem 7 =:= 0 ->
    {ok, _} = erl_esdb_store:truncate(Store, ?S, erl_esdb_streams:get_version(Store, ?S));
remove(_, _) -> ok.

read_until_end(Store, Bad) ->
    Wrong = [
        Result
     || Result <- [read(Store, ?S, 0, infinity, forward), read_all(Store, 0, infinity, forward)],
        not is_dense(Result)
    ],
    case erl_esdb_streams:exists(Store, <<"end">>) of
        true -> Wrong ++ Bad;
        false -> read_until_end(Store, Wrong ++ Bad)
    end.

is_dense({error, {stream_not_found, ?S}}) -> true;
is_dense({ok, []}) -> true;
is_dense({ok, Events}) ->
    Positions = [E#event.position || E <- Events],
    Runs = maps:groups_from_list(fun(E) -> E#event.stream_id end, Events),
    Positions =:= lists:usort(Positions) andalso
        lists:all(fun is_run/1, [versions(Run) || _ := Run <- Runs]);
is_dense(_) -> false.

is_run([First | _] = Versions) -> Versions =:= lists:seq(First, lists:last(Versions)).

%% The check of the case before can fail: what it must not let through.
b_a_part_of_a_stream_is_not_dense(_Config) ->
    Read = fun(Versions) ->
        {ok, [#event{stream_id = ?S, version = V, position = V} || V <- Versions]}
    end,
    ?assert(is_dense(Read([3, 4, 5]))),
    [?assertNot(is_dense(Read(Versions))) || Versions <- [[0, 1, 5, 9], [0, 2], [1, 0], [1, 1]]],
    Mixed = [{<<"a">>, 0}, {<<"b">>, 7}, {<<"a">>, 2}],
    Events = [
        #event{stream_id = Stream, version = V, position = P}
     || {P, {Stream, V}} <- lists:enumerate(Mixed)
    ],
    ?assertNot(is_dense({ok, Events})).

%% A cut that removes much holds nobody up: a command that came after it has its turn before the
%% rest is erased, and in the end everything is.
b_removal_goes_on_between_commands(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, <<"other">>, any, events(1)),
    [{ok, _} = append(Store, ?S, any, [event(N)]) || N <- lists:seq(1, 5000)],
    Engine = erl_esdb_test:orderer(Store),
    ok = sys:suspend(Engine),
    Cut = spawn_monitor(fun() -> exit(erl_esdb_store:truncate(Store, ?S, 4990)) end),
    ok = erl_esdb_test:await(fun() -> queued(Engine) =:= 1 end),
    Append = spawn_monitor(fun() -> exit(append(Store, <<"other">>, 0, events(1))) end),
    ok = erl_esdb_test:await(fun() -> queued(Engine) =:= 2 end),
    1 = erlang:trace(Engine, true, [send]),
    ok = sys:resume(Engine),
    ?assertEqual({ok, {0, 4990}}, ended(Cut)),
    ?assertEqual({ok, 1}, ended(Append)),
    %% One slice of 256 is erased with the cut, one each time the engine tells itself to go on,
    %% which it does behind what has come: so each of these calls finds one less.
    [{ok, -1} = append(Store, <<"none">>, any, []) || _ <- lists:seq(1, 4990 div 256)],
    1 = erlang:trace(Engine, false, [send]),
    Sent = sent(Engine),
    %% To who resumed it, to itself, to who cut, to who appended: no other slice lies between.
    ?assertMatch([answer, sweep, answer, answer | _], Sent),
    ?assertEqual(4990 div 256, length([sweep || sweep <- Sent])),
    {ok, Events} = read_all(Store, 0, infinity, forward),
    ?assertEqual(12, length(Events)),
    ?assertEqual(lists:seq(4990, 4999), [V || #event{stream_id = ?S, version = V} <- Events]).

queued(Pid) -> erl_esdb_test:calls(Pid).

ended({_, Ref}) ->
    receive
        {'DOWN', Ref, process, _, Result} -> Result
    end.

%% What a process has sent while it was traced.
sent(Pid) ->
    Ref = erlang:trace_delivered(Pid),
    receive
        {trace_delivered, Pid, Ref} -> sent_so_far()
    end.

sent_so_far() ->
    receive
        {trace, _, send, sweep, _} -> [sweep | sent_so_far()];
        {trace, _, send, _, _} -> [answer | sent_so_far()]
    after 0 -> []
    end.

%% Readers of all streams run while many rows are cut, in both directions: each sees the stream from
%% one of the cuts on to the end.
b_readers_race_a_large_removal(Config) ->
    Store = store(Config),
    Count = 3000,
    Cuts = lists:seq(0, 2900, 100),
    [{ok, _} = append(Store, ?S, any, [event(N)]) || N <- lists:seq(1, Count)],
    Writer = fun() ->
        [{ok, _} = erl_esdb_store:truncate(Store, ?S, Cut) || Cut <- Cuts],
        {ok, _} = append(Store, <<"end">>, any, events(1)),
        []
    end,
    Read = fun(From, Direction) ->
        {ok, Events} = erl_esdb_streams:read_log(Store, From, infinity, Direction, #{}),
        lists:sort([V || #event{stream_id = ?S, version = V} <- Events])
    end,
    Right = fun(Versions) ->
        lists:member(hd(Versions), Cuts) andalso Versions =:= lists:seq(hd(Versions), Count - 1)
    end,
    Reader = fun Reader(From, Direction, Bad) ->
        Wrong = [Versions || Versions <- [Read(From, Direction)], not Right(Versions)],
        case erl_esdb_streams:exists(Store, <<"end">>) of
            true -> Wrong ++ Bad;
            false -> Reader(From, Direction, Wrong ++ Bad)
        end
    end,
    [[] | Seen] = concurrently([
        Writer, fun() -> Reader(0, forward, []) end, fun() -> Reader(last, backward, []) end
    ]),
    ?assertEqual([], lists:append(Seen)).

%% A store that stops while it is called: an answer, no exit, no process left behind.
b_stop_in_the_middle(Config) ->
    Store = store(Config),
    Write = fun() -> append_until_stopped(Store) end,
    Stop = fun() ->
        erl_esdb_test:await(fun() -> erl_esdb_streams:get_version(Store, ?S) > 20 end),
        erl_esdb:stop_store(Store)
    end,
    [ok | Ends] = concurrently([Stop | [Write || _ <- lists:seq(1, 8)]]),
    ?assertEqual([{error, {store_not_started, Store}}], lists:usort(Ends)).

append_until_stopped(Store) ->
    case append(Store, ?S, any, events(1)) of
        {ok, _} -> append_until_stopped(Store);
        Error -> Error
    end.

%% ---- helpers

filled(Config, Count) ->
    {ok, _} = append(store(Config), ?S, ?NO_STREAM, events(Count)),
    ok.

%% The answer of a fun, and how often it called a function of another module.
counted(MFA, Fun) ->
    1 = erlang:trace_pattern(MFA, true, [call_count]),
    Result = Fun(),
    {call_count, Count} = erlang:trace_info(MFA, call_count),
    1 = erlang:trace_pattern(MFA, false, [call_count]),
    {Result, Count}.

window(Config, Start, Count, Direction) ->
    {ok, Events} = read(store(Config), ?S, Start, Count, Direction),
    versions(Events).
