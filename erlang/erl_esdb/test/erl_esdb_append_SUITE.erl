-module(erl_esdb_append_SUITE).
-moduledoc """
What an append may ask beyond a version: to be done once, with others, under a condition, behind a
tip, at once or not at all. Each group runs the same cases on an engine.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_test, [event/1, events/1, versions/1, concurrently/1]).
-import(erl_esdb_streams, [append/4, append/5, append_many/3, read/5]).

-define(S, <<"orders-1">>).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    Named = [atom_to_list(F) || {F, 1} <- ?MODULE:module_info(exports)],
    Prefixes = ["once_", "many_", "condition_", "tip_", "queue_"],
    [list_to_atom(F) || Prefix <- Prefixes, F <- Named, lists:prefix(Prefix, F)].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(Case, Config) -> erl_esdb_streams_SUITE:init_per_testcase(Case, Config).

end_per_testcase(Case, Config) -> erl_esdb_streams_SUITE:end_per_testcase(Case, Config).

store(Config) -> proplists:get_value(store, Config).

store(_Config, Options) -> erl_esdb_test:start_store(Options).

%% ---- an append that is sent again

id(Id) -> (event(Id))#{event_id => Id}.

ids(Ids) -> [id(Id) || Id <- Ids].

once_with_an_exact_version(Config) ->
    Store = store(Config),
    Batch = ids([<<"a">>, <<"b">>]),
    Result = #{return => result},
    {ok, First} = append(Store, ?S, -1, Batch, Result),
    ?assertEqual(#append_result{version = 1, position = 1, count = 2}, First),
    ?assertEqual({ok, First}, append(Store, ?S, no_stream, Batch, Result)),
    {ok, 2} = append(Store, ?S, 1, ids([<<"c">>])),
    [{ok, _} = append(Store, ?S, any, events(1)) || _ <- lists:seq(1, 1500)],
    %% However old it is.
    ?assertEqual({ok, First}, append(Store, ?S, -1, Batch, Result)),
    ?assertEqual({ok, 2}, append(Store, ?S, 1, ids([<<"c">>]))),
    ?assertEqual(1502, erl_esdb_streams:get_version(Store, ?S)).

once_with_an_exact_version_but_others(Config) ->
    Store = store(Config),
    {ok, 2} = append(Store, ?S, -1, ids([<<"a">>, <<"b">>, <<"c">>])),
    Twice = fun(Ids) -> {error, {duplicate_event_ids, Ids}} end,
    Wrong = fun(Expected) -> {error, {wrong_expected_version, Expected, 2}} end,
    ?assertEqual(Twice([<<"a">>]), append(Store, ?S, -1, ids([<<"a">>, <<"x">>]))),
    ?assertEqual(Twice([<<"b">>, <<"a">>]), append(Store, ?S, -1, ids([<<"b">>, <<"a">>]))),
    Backward = [<<"c">>, <<"b">>, <<"a">>],
    ?assertEqual(Twice(Backward), append(Store, ?S, -1, ids(Backward))),
    ?assertEqual(
        Twice([<<"b">>, <<"c">>]), append(Store, ?S, 0, ids([<<"b">>, <<"c">>, <<"d">>]))
    ),
    ?assertEqual(Wrong(-1), append(Store, ?S, -1, ids([<<"x">>]))),
    ?assertEqual(Wrong(1), append(Store, ?S, 1, ids([<<"a">>]))),
    ?assertEqual(Wrong(-1), append(Store, ?S, -1, events(1))),
    ?assertEqual(Wrong(7), append(Store, ?S, 7, ids([<<"a">>]))),
    ?assertEqual(2, erl_esdb_streams:get_version(Store, ?S)).

%% It cannot be known what was there.
once_but_removed_since(Config) ->
    Store = store(Config),
    Batch = ids([<<"a">>, <<"b">>]),
    {ok, 1} = append(Store, ?S, -1, Batch),
    {ok, 2} = append(Store, ?S, any, events(1)),
    {ok, {0, 1}} = erl_esdb_store:truncate(Store, ?S, 1),
    Wrong = {error, {wrong_expected_version, -1, 2}},
    ?assertEqual(Wrong, append(Store, ?S, -1, Batch)),
    {ok, {1, 2}} = erl_esdb_store:truncate(Store, ?S, 2),
    ?assertEqual(Wrong, append(Store, ?S, -1, Batch)),
    ?assertEqual({ok, 4}, append(Store, ?S, any, Batch)).

%% Hidden events are there.
once_also_where_it_is_hidden(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, ?S, -1, ids([<<"a">>])),
    {ok, 1} = append(Store, ?S, any, ids([<<"b">>])),
    ok = erl_esdb_streams:set_metadata(Store, ?S, #{truncate_before => 2}, #{}),
    {ok, []} = read(Store, ?S, 0, 9, forward),
    ?assertEqual({ok, 0}, append(Store, ?S, -1, ids([<<"a">>]))),
    ?assertEqual({ok, 1}, append(Store, ?S, any, ids([<<"b">>]))).

once_behind_a_tombstone(Config) ->
    Store = store(Config),
    {ok, 1} = append(Store, ?S, -1, ids([<<"a">>, <<"b">>])),
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}),
    {ok, 2} = append(Store, ?S, -1, ids([<<"c">>])),
    ?assertEqual({ok, 2}, append(Store, ?S, -1, ids([<<"c">>]))),
    ?assertEqual(
        {error, {wrong_expected_version, -1, 2}}, append(Store, ?S, -1, ids([<<"a">>]))
    ).

once_with_any_version(Config) ->
    Store = store(Config),
    Result = #{return => result},
    {ok, First} = append(Store, ?S, any, ids([<<"a">>, <<"b">>]), Result),
    {ok, 4} = append(Store, ?S, any, events(3)),
    [
        ?assertEqual({ok, First}, append(Store, ?S, Expected, ids([<<"a">>, <<"b">>]), Result))
     || Expected <- [any, -2, -4, stream_exists]
    ],
    %% A part of it, one after the other, is one and the same.
    ?assertEqual({ok, 1}, append(Store, ?S, any, ids([<<"b">>]))),
    {ok, 5} = append(Store, ?S, any, ids([<<"c">>])),
    {ok, 6} = append(Store, ?S, any, ids([<<"d">>])),
    ?assertEqual({ok, 6}, append(Store, ?S, any, ids([<<"c">>, <<"d">>]))),
    Twice = fun(Ids, Found) ->
        Expected = {error, {duplicate_event_ids, Found}},
        ?assertEqual(Expected, append(Store, ?S, any, ids(Ids)))
    end,
    Twice([<<"b">>, <<"a">>], [<<"b">>, <<"a">>]),
    Twice([<<"a">>, <<"c">>], [<<"a">>, <<"c">>]),
    Twice([<<"x">>, <<"d">>], [<<"d">>]),
    ?assertEqual(6, erl_esdb_streams:get_version(Store, ?S)),
    %% In another stream the same ids are others.
    ?assertEqual({ok, 1}, append(Store, <<"$link:all">>, any, ids([<<"a">>, <<"b">>]))).

once_among_ids_that_were_not_given(Config) ->
    Store = store(Config),
    Mixed = [event(1), id(<<"a">>), event(3)],
    {ok, 2} = append(Store, ?S, any, Mixed),
    ?assertEqual({error, {duplicate_event_ids, [<<"a">>]}}, append(Store, ?S, any, Mixed)),
    %% Events without ids are new ones.
    ?assertEqual({ok, 3}, append(Store, ?S, any, [event(1)])),
    ?assertEqual({ok, 4}, append(Store, ?S, any, [event(1)])).

%% An empty id is none; any other is one, whatever is in it.
once_with_ids_of_any_size(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, ?S, any, ids([<<>>])),
    ?assertEqual({ok, 1}, append(Store, ?S, any, ids([<<>>]))),
    Ids = [<<0>>, binary:copy(<<"i">>, 10_000), <<255, 254>>, <<"größe"/utf8>>],
    {ok, 5} = append(Store, ?S, any, ids(Ids)),
    ?assertEqual({ok, 5}, append(Store, ?S, any, ids(Ids))),
    ?assertEqual({ok, 5}, append(Store, ?S, 1, ids(Ids))),
    ?assertEqual({ok, 3}, append(Store, ?S, stream_exists, ids([lists:nth(2, Ids)]))),
    ?assertEqual(5, erl_esdb_streams:get_version(Store, ?S)).

%% What is read is given back as it is: also records are known again.
once_of_records(Config) ->
    Store = store(Config),
    {ok, 2} = append(Store, ?S, any, events(3)),
    {ok, Events} = read(Store, ?S, 0, 9, forward),
    %% They had got their ids from the store, which does not remember those one by one.
    ?assertEqual({ok, 2}, append(Store, ?S, -1, Events)),
    {ok, 2} = append(Store, <<"copy">>, any, Events),
    ?assertEqual({ok, 2}, append(Store, <<"copy">>, any, Events)).

%% Only as a whole: their hashes would take too much room.
once_a_large_batch(Config) ->
    Store = store(Config),
    Batch = ids([integer_to_binary(N) || N <- lists:seq(1, 1001)]),
    {ok, 1000} = append(Store, ?S, any, Batch),
    ?assertEqual({ok, 1000}, append(Store, ?S, any, Batch)),
    ?assertEqual(1000, erl_esdb_streams:get_version(Store, ?S)),
    Parts = [{<<S>>, any, ids([<<S, N:16>> || N <- lists:seq(1, 600)])} || S <- "ab"],
    {ok, First} = append_many(Store, Parts, #{return => result}),
    ?assertEqual({ok, First}, append_many(Store, Parts, #{return => result})).

once_within_a_window(Config) ->
    Store = store(Config, #{idempotence_window => 10, idempotence_appends => 3}),
    Again = fun(Id) -> append(Store, ?S, any, ids([Id])) end,
    {ok, 0} = Again(<<"a">>),
    {ok, 2} = append(Store, ?S, any, events(2)),
    ?assertEqual({ok, 0}, Again(<<"a">>)),
    {ok, 4} = append(Store, ?S, any, events(2)),
    {ok, 6} = append(Store, ?S, any, events(2)),
    ?assertEqual({ok, 7}, Again(<<"a">>)),
    %% Appends to other streams take room in the window of the store.
    [{ok, _} = append(Store, <<"o">>, any, ids([<<N>>])) || N <- lists:seq(1, 9)],
    ?assertEqual({ok, 7}, Again(<<"a">>)),
    [{ok, _} = append(Store, <<"p">>, any, ids([<<N>>])) || N <- lists:seq(1, 10)],
    ?assertEqual({ok, 8}, Again(<<"a">>)),
    ok = erl_esdb:stop_store(Store).

%% An append that says it has the hash of an id which it does not have: the ids are what counts.
once_in_spite_of_equal_hashes(Config) ->
    Store = store(Config),
    {ok, Bodies} = erl_esdb_event:bodies(ids([<<"other">>])),
    Hashes = erl_esdb_event:hashes([<<"a">>], [{<<"a">>, <<"T">>, #{}, #{}}], each),
    Summary = #{count => 1, epoch_us => 0, ids => Hashes},
    {ok, Engine, Handle, _} = erl_esdb_engine:find(Store),
    Forged = {append, ?S, -2, erl_esdb_batch:pack(Bodies), Summary},
    {ok, {0, 0, 1}} = Engine:command(Handle, Forged, 5000),
    ?assertEqual({ok, 1}, append(Store, ?S, any, ids([<<"a">>]))),
    ?assertEqual({ok, 1}, append(Store, ?S, any, ids([<<"a">>]))).

%% Of many who send the same at the same time one writes, and all get the same answer.
once_of_many_at_once(Config) ->
    Store = store(Config),
    [
        begin
            Batch = ids([<<"a", N>>, <<"b", N>>]),
            Send = fun() -> append(Store, ?S, Expected, Batch, #{return => result}) end,
            [{ok, #append_result{count = 2}}] =
                lists:usort(concurrently(lists:duplicate(20, Send)))
        end
     || {N, Expected} <- lists:enumerate([any, any, 3, stream_exists])
    ],
    ?assertEqual(7, erl_esdb_streams:get_version(Store, ?S)).

%% An engine sends an append twice, and before its caller has read what was there already somebody
%% removes it: it is not done again, and nobody says that it was not done.
once_where_the_engine_repeats(_Config) ->
    Removals = [
        fun(Store) -> ok = erl_esdb_streams:delete(Store, ?S, #{}) end,
        fun(Store) -> {ok, _} = erl_esdb_store:truncate(Store, ?S, 9) end,
        fun(Store) ->
            ok = erl_esdb_streams:delete(Store, ?S, #{}),
            {ok, 6} = append(Store, ?S, -1, events(7))
        end
    ],
    Appends = [
        fun(Store) -> append(Store, ?S, any, ids([<<"a">>, <<"b">>])) end,
        fun(Store) -> append(Store, ?S, 4, ids([<<"a">>, <<"b">>])) end,
        fun(Store) ->
            append_many(Store, [{<<"t">>, any, ids([<<"c">>])}, {?S, 4, ids([<<"a">>])}], #{})
        end
    ],
    [
        begin
            Store = repeating(fun(_) -> ok end),
            ?assertMatch({ok, _}, Append(Store)),
            ok = erl_esdb:stop_store(Store),
            Other = repeating(Remove),
            ?assertEqual({error, {timeout, Other}}, Append(Other)),
            Left =
                case read(Other, ?S, 0, 99, forward) of
                    {ok, Events} -> [Id || #event{event_id = Id} <- Events];
                    {error, {stream_not_found, _}} -> []
                end,
            ?assertNot(lists:member(<<"a">>, Left)),
            ok = erl_esdb:stop_store(Other)
        end
     || Remove <- Removals, Append <- Appends
    ],
    %% What it was not done for was there before it.
    Store = repeating(fun(_) -> ok end),
    Wrong = {error, {wrong_expected_version, 3, 4}},
    ?assertEqual(Wrong, append(Store, ?S, 3, ids([<<"x">>]))),
    ok = erl_esdb:stop_store(Store).

%% A store with five events in a stream, where the first append that comes then is sent twice, and
%% this is done before the second answer.
repeating(Remove) ->
    Store = list_to_atom("fake_" ++ integer_to_list(erlang:unique_integer([positive]))),
    {ok, _} = erl_esdb_engine_fake:start_store(Store, #{}),
    {ok, 4} = append(Store, ?S, -1, events(5)),
    Usual = fun(Apply, Command) -> Apply(Command) end,
    ok = erl_esdb_engine_fake:set_fate(Store, fun(Apply, Command) ->
        _ = Apply(Command),
        Answer = answer(Apply, repeat(Command)),
        ok = erl_esdb_engine_fake:set_fate(Store, Usual),
        _ = Remove(Store),
        ok = erl_esdb_engine_fake:set_fate(Store, fun answer/2),
        Answer
    end),
    Store.

%% As an engine does it.
answer(Apply, Command) ->
    case {Apply(Command), since(Command)} of
        {{error, forgotten}, _} -> {error, timeout};
        {{error, {refused, [forgotten | _]}}, _} -> {error, timeout};
        {{error, {refused, [_, forgotten]}}, _} -> {error, timeout};
        {{error, Refusal}, {ok, Since}} -> {error, {repeated, Since, Refusal}};
        {Answer, _} -> Answer
    end.

since({append, _, _, _, Summary}) -> maps:find(repeat, Summary);
since({append_many, [{_, _, _, Summary} | _], _}) -> maps:find(repeat, Summary).

%% The first command of the store brought the five events.
repeat({append, S, E, P, Summary}) -> {append, S, E, P, Summary#{repeat => 1}};
repeat({append_many, Parts, Common}) ->
    {append_many, [{S, E, P, Summary#{repeat => 1}} || {S, E, P, Summary} <- Parts], Common}.

%% ---- several streams

many_streams(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, <<"b">>, any, events(1)),
    Parts = [{<<"a">>, -1, events(2)}, {<<"b">>, 0, events(1)}, {<<"c">>, any, []}],
    ?assertEqual(
        {ok, #{<<"a">> => 1, <<"b">> => 1, <<"c">> => -1}}, append_many(Store, Parts, #{})
    ),
    {ok, Events} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    ?assertEqual(
        [{<<"b">>, 0}, {<<"a">>, 0}, {<<"a">>, 1}, {<<"b">>, 1}],
        [{S, V} || #event{stream_id = S, version = V} <- Events]
    ),
    ?assertEqual([0, 1, 2, 3], [P || #event{position = P} <- Events]),
    ?assertNot(erl_esdb_streams:exists(Store, <<"c">>)),
    {ok, Read} = read(Store, <<"a">>, 0, 9, forward),
    ?assertEqual([0, 1], [N || #event{data = #{n := N}} <- Read]),
    Times = [T || #event{position = P, epoch_us = T} <- Events, P > 0],
    ?assertEqual(1, length(lists:usort(Times))),
    Result = append_many(Store, [{<<"c">>, -1, events(3)}], #{return => result}),
    Expected = #append_result{version = 2, position = 6, count = 3},
    ?assertEqual({ok, #{<<"c">> => Expected}}, Result),
    ?assertEqual({ok, #{}}, append_many(Store, [], #{})).

many_all_or_nothing(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, <<"b">>, any, events(1)),
    Refused = fun(Reason, Parts) ->
        ?assertEqual({error, Reason}, append_many(Store, Parts, #{})),
        ?assertEqual({ok, [<<"b">>]}, erl_esdb_streams:list_streams(Store)),
        ?assertEqual({ok, 1}, erl_esdb_store:next_position(Store))
    end,
    A = {<<"a">>, any, events(1)},
    Wrong = {wrong_expected_version, 3, 0},
    Refused({<<"b">>, Wrong}, [A, {<<"b">>, 3, events(1)}]),
    Refused({<<"b">>, Wrong}, [A, {<<"b">>, 3, events(1)}, {<<"c">>, 7, events(1)}]),
    NoData = #{event_type => <<"T">>},
    Refused({<<"b">>, {invalid_event, {missing, data}}}, [A, {<<"b">>, any, [NoData]}]),
    Refused({<<"a">>, duplicate_stream}, [A, {<<"b">>, any, events(1)}, A]),
    Long = binary:copy(<<"n">>, 65_537),
    Refused({Long, {stream_id_too_long, 65_537, 65_536}}, [A, {Long, any, events(1)}]),
    Twice = [id(<<"x">>), id(<<"x">>)],
    Refused({<<"b">>, {duplicate_event_ids, [<<"x">>]}}, [A, {<<"b">>, any, Twice}]).

many_limits_are_those_of_the_whole(Config) ->
    Store = store(Config, #{max_batch_events => 10, max_batch_size => 3000}),
    Parts = fun(Sizes) -> [{<<N>>, any, events(Size)} || {N, Size} <- lists:enumerate(Sizes)] end,
    ?assertEqual(
        {error, {<<3>>, {too_many_events, 11, 10}}}, append_many(Store, Parts([4, 4, 3]), #{})
    ),
    ?assertMatch({ok, _}, append_many(Store, Parts([4, 4, 2]), #{})),
    Large = #{event_type => <<"T">>, data => binary:copy(<<"x">>, 1200)},
    ?assertMatch(
        {error, {<<"c">>, {batch_too_large, Size, 3000}}} when Size > 3600,
        append_many(Store, [{S, any, [Large]} || S <- [<<"a">>, <<"b">>, <<"c">>]], #{})
    ),
    ok = erl_esdb:stop_store(Store).

many_sent_again(Config) ->
    Store = store(Config),
    Parts = [{<<"a">>, -1, ids([<<"x">>])}, {<<"b">>, any, ids([<<"y">>, <<"z">>])}],
    {ok, First} = append_many(Store, Parts, #{return => result}),
    {ok, _} = append(Store, <<"a">>, any, events(1)),
    {ok, _} = append(Store, <<"b">>, any, events(1)),
    ?assertEqual({ok, First}, append_many(Store, Parts, #{return => result})),
    Empty = {<<"c">>, any, []},
    ?assertEqual(
        {ok, #{<<"a">> => 0, <<"b">> => 1, <<"c">> => -1}},
        append_many(Store, [Empty | Parts], #{})
    ),
    %% A part of it was there, another was not.
    ?assertEqual(
        {error, {<<"a">>, {duplicate_event_ids, [<<"x">>]}}},
        append_many(Store, [hd(Parts), {<<"b">>, any, ids([<<"new">>])}], #{})
    ),
    ?assertEqual({ok, 5}, erl_esdb_store:next_position(Store)).

%% Transfers between accounts, each of two streams at their versions: the sum never changes, and who
%% reads all streams never sees half of one.
many_at_once_keep_what_is_true_of_all(Config) ->
    Store = store(Config),
    Accounts = [<<"account-", N>> || N <- lists:seq($1, $5)],
    Begin = [{Account, -1, [moved(100)]} || Account <- Accounts],
    {ok, _} = append_many(Store, Begin, #{}),
    Account = fun(N) -> lists:nth(1 + N rem 5, Accounts) end,
    Transfer = fun(Seed) ->
        [
            transfer(Store, Account(Seed + N), Account(N))
         || N <- lists:seq(1, 20), (Seed rem 5) =/= 0
        ]
    end,
    Look = fun() ->
        [
            begin
                {ok, All} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
                500 = lists:sum([N || #event{data = #{moved := N}} <- All])
            end
         || _ <- lists:seq(1, 50)
        ]
    end,
    _ = concurrently([Look, Look | [fun() -> Transfer(Seed) end || Seed <- lists:seq(1, 10)]]),
    {ok, Events} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    ?assertEqual(lists:seq(0, length(Events) - 1), [P || #event{position = P} <- Events]),
    ?assert(length(Events) > 100).

moved(Amount) -> #{event_type => <<"Moved">>, data => #{moved => Amount}}.

transfer(Store, From, To) ->
    Version = fun(Account) -> erl_esdb_streams:get_version(Store, Account) end,
    Parts = [{From, Version(From), [moved(-1)]}, {To, Version(To), [moved(1)]}],
    case append_many(Store, Parts, #{}) of
        {ok, #{}} -> ok;
        {error, {_, {wrong_expected_version, _, _}}} -> transfer(Store, From, To)
    end.

%% What is kept together goes apart: an index dies with its last stream.
many_streams_are_removed_one_by_one(Config) ->
    Store = store(Config),
    Streams = [<<"a">>, <<"b">>, <<"c">>],
    [{ok, _} = append_many(Store, [{S, any, events(2)} || S <- Streams], #{}) || _ <- [1, 2, 3]],
    {ok, {0, 4}} = erl_esdb_store:truncate(Store, <<"a">>, 4),
    ok = erl_esdb_streams:delete(Store, <<"b">>),
    {ok, Whole} = read(Store, <<"c">>, 0, 9, forward),
    ?assertEqual([0, 1, 0, 1, 0, 1], [N || #event{data = #{n := N}} <- Whole]),
    {ok, Rest} = read(Store, <<"a">>, 0, 9, forward),
    ?assertEqual([4, 5], versions(Rest)),
    ok = erl_esdb_streams:delete(Store, <<"c">>),
    ?assertEqual({ok, Rest}, erl_esdb_streams:read_log(Store, 0, infinity, forward, #{})).

many_are_told(Config) ->
    Store = store(Config),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store),
    Parts = [{<<"a">>, any, events(2)}, {<<"b">>, -1, events(1)}],
    {ok, _} = append_many(Store, Parts, #{}),
    {error, Reason} = append_many(Store, Parts, #{}),
    ?assertError(badarg, append_many(Store, [{<<"a">>, -3, []}], #{})),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    Told = [
        {lists:last(Event), maps:get(stream_id, Metadata), Metadata}
     || {Event, _, Metadata} <- erl_esdb_test:collected(?FUNCTION_NAME)
    ],
    ?assertMatch(
        [
            {start, <<"a">>, #{event_count := 2, expected_version := any}},
            {start, <<"b">>, #{event_count := 1, expected_version := -1}},
            {stop, <<"a">>, #{new_version := 1}},
            {stop, <<"b">>, #{new_version := 0}},
            {start, <<"a">>, _},
            {start, <<"b">>, _},
            {error, <<"a">>, #{reason := Reason}},
            {error, <<"b">>, #{reason := Reason}}
        ],
        Told
    ).

many_misuse(Config) ->
    Store = store(Config),
    [
        ?assertError(badarg, append_many(Store, Parts, Options))
     || {Parts, Options} <- [
            {nonsense, #{}},
            {[{<<"a">>, any}], #{}},
            {[{a, any, []}], #{}},
            {[{<<"a">>, soon, []}], #{}},
            {[{<<"a">>, any, []} | x], #{}},
            {[], []},
            {[], #{timeout => -1}},
            {[], #{condition => #{}}}
        ]
    ],
    ?assertEqual({error, {store_not_started, nosuch}}, append_many(nosuch, [], #{})).

%% ---- conditions

tagged(Type, Tags) -> #{event_type => Type, data => #{}, tags => Tags}.

if_none(Query) -> #{condition => #{fail_if_events_match => Query}}.

if_none(Query, After) ->
    #{condition => #{fail_if_events_match => Query, after_position => After}}.

condition_queries(Config) ->
    Store = store(Config),
    {ok, 2} = append(Store, <<"s">>, any, [
        tagged(<<"A">>, []), tagged(<<"B">>, [<<"x">>]), tagged(<<"B">>, [<<"x">>, <<"y">>])
    ]),
    Failed = fun(Options) ->
        case append(Store, ?S, any, events(1), Options) of
            {ok, _} -> none;
            {error, {condition_failed, Position}} -> Position
        end
    end,
    [
        ?assertEqual({Query, Expected}, {Query, Failed(if_none(Query))})
     || {Query, Expected} <- [
            {[#{types => [<<"A">>]}], 0},
            {[#{types => [<<"C">>, <<"B">>]}], 1},
            {[#{tags => [<<"y">>]}], 2},
            {[#{tags => [<<"y">>, <<"x">>, <<"x">>]}], 2},
            {[#{types => [<<"A">>], tags => [<<"x">>]}], none},
            {[#{types => [<<"C">>]}, #{tags => [<<"x">>]}], 1},
            {[#{types => [], tags => [<<"y">>]}], 2},
            {[#{tags => [<<"z">>]}], none},
            {[#{}], 0},
            {[], 0}
        ]
    ],
    ?assertEqual(1, Failed(if_none([#{tags => [<<"x">>]}], 0))),
    ?assertEqual(2, Failed(if_none([#{tags => [<<"x">>]}], 1))),
    ?assertEqual(none, Failed(if_none([#{tags => [<<"x">>]}], 2))),
    ?assertEqual(none, Failed(if_none([#{tags => [<<"x">>]}], 1_000_000))),
    {ok, Next} = erl_esdb_store:next_position(Store),
    ?assertEqual(none, Failed(if_none([], Next - 1))),
    ?assertEqual(Next, Failed(if_none([], Next - 1))).

condition_and_expectation(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, ?S, any, ids([<<"a">>])),
    Never = if_none([]),
    %% An append that was done is answered again, whatever matches since: it does so itself.
    ?assertEqual({ok, 0}, append(Store, ?S, any, ids([<<"a">>]), Never)),
    ?assertEqual({ok, 0}, append(Store, ?S, -1, ids([<<"a">>]), Never)),
    ?assertEqual(
        {error, {wrong_expected_version, 3, 0}}, append(Store, ?S, 3, ids([<<"b">>]), Never)
    ),
    ?assertEqual({error, {condition_failed, 0}}, append(Store, ?S, 0, ids([<<"b">>]), Never)),
    ?assertEqual({error, {condition_failed, 0}}, append(Store, ?S, 0, [], Never)),
    Many = append_many(Store, [{<<"x">>, any, events(1)}, {<<"y">>, any, events(1)}], Never),
    ?assertEqual({error, {condition_failed, 0}}, Many),
    ?assertEqual({ok, [?S]}, erl_esdb_streams:list_streams(Store)).

%% A seat is taken once, though no two writers share a stream or an expectation.
once_but_not_behind_a_tombstone_with_an_older_version(Config) ->
    Store = store(Config),
    {ok, 3} = append(Store, ?S, -1, events(4)),
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}),
    {ok, 4} = append(Store, ?S, -1, ids([<<"a">>])),
    ?assertEqual({ok, 4}, append(Store, ?S, -1, ids([<<"a">>]))),
    ?assertEqual(
        {error, {wrong_expected_version, 1, 4}}, append(Store, ?S, 1, ids([<<"a">>]))
    ).

%% What a link writes is no other event: neither looked at nor refused for.
condition_and_copies(Config) ->
    Store = store(Config),
    Booked = fun(Id) -> (id(Id))#{event_type => <<"Booked">>} end,
    {ok, #append_result{position = P}} =
        append(Store, ?S, any, [Booked(<<"a">>)], #{return => result}),
    {ok, 0} = append(Store, <<"$link:bookings">>, any, [Booked(<<"a">>)]),
    Booking = #{fail_if_events_match => [#{types => [<<"Booked">>]}], after_position => P},
    ?assertEqual({ok, 1}, append(Store, ?S, any, ids([<<"b">>]), #{condition => Booking})),
    {ok, 2} = append(Store, ?S, any, [Booked(<<"c">>)]),
    ?assertEqual(
        {error, {condition_failed, P + 3}},
        append(Store, ?S, any, ids([<<"d">>]), #{condition => Booking})
    ).

condition_of_racers(Config) ->
    Store = store(Config),
    Seats = lists:seq(1, 10),
    Take = fun(Me, Seat) ->
        Tag = <<"seat-", (integer_to_binary(Seat))/binary>>,
        Options = if_none([#{types => [<<"Taken">>], tags => [Tag]}]),
        append(Store, <<"guest-", Me>>, any, [tagged(<<"Taken">>, [Tag])], Options)
    end,
    Guest = fun(Me) -> fun() -> [{Seat, Take(Me, Seat)} || Seat <- Seats] end end,
    Results = lists:append(concurrently([Guest(Me) || Me <- lists:seq(1, 50)])),
    Won = [Seat || {Seat, {ok, _}} <- Results],
    ?assertEqual(Seats, lists:sort(Won)),
    {ok, Events} = erl_esdb_streams:read_by_event_types(Store, [<<"Taken">>], infinity),
    Taken = #{Tag => Position || #event{tags = [Tag], position = Position} <- Events},
    ?assertEqual(10, length(Events)),
    [
        ?assertEqual(map_get(<<"seat-", (integer_to_binary(Seat))/binary>>, Taken), Position)
     || {Seat, {error, {condition_failed, Position}}} <- Results
    ].

%% A counter by a query: who has seen position P adds if nobody has since. No increment is lost,
%% with a window of appends that is much too small, too.
condition_loses_no_update(Config) ->
    Store = store(Config, #{condition_window => 1}),
    Query = [#{tags => [<<"counter">>]}],
    Increment = fun Again(Me) ->
        {ok, Seen} = erl_esdb_store:matching(Store, Query, {0, infinity, forward}, #{}),
        Last = lists:max([-1 | [P || #event{position = P} <- Seen]]),
        Event = #{event_type => <<"Set">>, data => #{to => length(Seen)}, tags => [<<"counter">>]},
        {ok, _} = append(Store, <<"noise">>, any, events(1)),
        case append(Store, <<"c", Me>>, any, [Event], if_none(Query, Last)) of
            {ok, _} -> ok;
            {error, {condition_failed, P}} when P > Last -> Again(Me)
        end
    end,
    Writer = fun(Me) -> fun() -> [Increment(Me) || _ <- lists:seq(1, 5)] end end,
    _ = concurrently([Writer(Me) || Me <- lists:seq(1, 10)]),
    {ok, Events} = erl_esdb_streams:read_by_tags(Store, [<<"counter">>], infinity),
    ?assertEqual(lists:seq(0, 49), [N || #event{data = #{to := N}} <- Events]),
    ok = erl_esdb:stop_store(Store).

condition_misuse(Config) ->
    Store = store(Config),
    [
        ?assertError(badarg, append(Store, ?S, any, events(1), #{condition => Condition}))
     || Condition <- [
            [],
            #{},
            #{fail_if_events_match => #{}},
            #{fail_if_events_match => [a]},
            #{fail_if_events_match => [#{type => [<<"A">>]}]},
            #{fail_if_events_match => [#{types => <<"A">>}]},
            #{fail_if_events_match => [#{tags => [a]}]},
            #{fail_if_events_match => [#{} | #{}]},
            #{fail_if_events_match => [], after_position => -2},
            #{fail_if_events_match => [], after_position => last},
            #{fail_if_events_match => [], from => 3}
        ]
    ],
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)).

%% ---- tips

tip_is_named_by_the_next_append(Config) ->
    Store = store(Config),
    [One, Two, Three] = [crypto:hash(sha256, <<N>>) || N <- [1, 2, 3]],
    Append = fun(Known, New) ->
        erl_esdb_store:append(Store, ?S, any, events(2), #{tips => #{?S => {Known, New}}})
    end,
    Nothing = #{no => none, next => 0, epoch_us => 0, tip => none, signed => none},
    ?assertEqual({ok, Nothing}, erl_esdb_store:tip(Store, ?S)),
    ?assertEqual({error, tip_moved}, Append(One, Two)),
    {ok, #append_result{version = 1}} = Append(none, One),
    ?assertMatch({ok, #{next := 2, tip := One}}, erl_esdb_store:tip(Store, ?S)),
    [?assertEqual({error, tip_moved}, Append(Known, Two)) || Known <- [none, Two]],
    ?assertEqual(1, erl_esdb_streams:get_version(Store, ?S)),
    {ok, _} = Append(One, Two),
    {ok, {0, 4}} = erl_esdb_store:truncate(Store, ?S, 4),
    {ok, #{next := 4, tip := Two, epoch_us := Time}} = erl_esdb_store:tip(Store, ?S),
    ?assert(Time > 0),
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}),
    ?assertMatch({ok, #{next := 4, tip := Two}}, erl_esdb_store:tip(Store, ?S)),
    {ok, #append_result{version = 5}} = Append(Two, Three),
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertEqual({ok, Nothing}, erl_esdb_store:tip(Store, ?S)).

tip_of_one_of_several_streams(Config) ->
    Store = store(Config),
    Tip = <<7:256>>,
    Append = fun(Tips) ->
        Parts = [{S, any, events(1)} || S <- [<<"a">>, <<"b">>]],
        erl_esdb_store:append_many(Store, Parts, #{tips => Tips, epoch_us => 77})
    end,
    ?assertEqual({error, {<<"b">>, tip_moved}}, Append(#{<<"b">> => {Tip, Tip}})),
    {ok, _} = Append(#{<<"b">> => {none, Tip}}),
    {ok, OfB} = erl_esdb_store:tip(Store, <<"b">>),
    ?assertMatch(#{next := 1, tip := Tip, epoch_us := 77}, OfB),
    ?assertMatch({ok, #{tip := none}}, erl_esdb_store:tip(Store, <<"a">>)).

%% Who needs long to sign wins, too, among others who need little and never stop.
tip_of_a_large_append_among_small_ones(Config) ->
    Options = proplists:get_value(options, Config),
    Key = #{integrity => #{enabled => true, key => binary:copy(<<7>>, 32)}},
    Store = erl_esdb_test:start_store(maps:merge(Options, Key)),
    Small = fun Small() ->
        {ok, _} = append(Store, ?S, any, events(1)),
        Small()
    end,
    Writers = [spawn_link(Small) || _ <- [1, 2]],
    erl_esdb_test:await(fun() -> erl_esdb_streams:exists(Store, ?S) end),
    Long = #{timeout => 30_000},
    ?assertMatch({ok, _}, append(Store, ?S, any, events(2000), Long)),
    {ok, #{?S := _}} = erl_esdb_streams:append_many(Store, [{?S, any, events(2000)}], Long),
    Maps = [#{event_id => <<N:32>>, event_type => <<"T">>, data => #{}} || N <- lists:seq(1, 900)],
    ?assertMatch({ok, _}, erl_esdb_restore:append(Store, ?S, -2, Maps, 0, Long)),
    [begin unlink(Writer), exit(Writer, kill) end || Writer <- Writers],
    ?assertMatch({ok, _}, erl_esdb_integrity:verify_stream(Store, ?S)),
    ok = erl_esdb:stop_store(Store).

%% Signers who look, sign and try again make one chain, in the order of the versions.
tip_of_racers(Config) ->
    Store = store(Config),
    Sign = fun Sign(Me) ->
        {ok, #{tip := Known, next := Next}} = erl_esdb_store:tip(Store, ?S),
        New = crypto:hash(sha256, [chain(Known), <<Next:64>>]),
        Event = #{event_type => <<"Signed">>, data => #{tip => New}},
        case erl_esdb_store:append(Store, ?S, any, [Event], #{tips => #{?S => {Known, New}}}) of
            {ok, #append_result{version = Next}} -> ok;
            {error, tip_moved} -> Sign(Me)
        end
    end,
    Signer = fun(Me) -> fun() -> [Sign(Me) || _ <- lists:seq(1, 20)] end end,
    _ = concurrently([Signer(Me) || Me <- lists:seq(1, 10)]),
    {ok, Events} = read(Store, ?S, 0, infinity, forward),
    ?assertEqual(200, length(Events)),
    lists:foldl(
        fun(#event{version = V, data = #{tip := Tip}}, Before) ->
            ?assertEqual(crypto:hash(sha256, [chain(Before), <<V:64>>]), Tip),
            Tip
        end,
        none,
        Events
    ).

chain(none) -> <<0:256>>;
chain(Tip) -> Tip.

%% ---- limits

queue_that_is_full(Config) ->
    Store = store(Config, #{max_queue => 5}),
    Engine = erl_esdb_test:orderer(Store),
    ok = sys:suspend(Engine),
    Send = fun() -> exit(append(Store, ?S, any, events(1))) end,
    Waiting = [spawn_monitor(Send) || _ <- lists:seq(1, 5)],
    ok = erl_esdb_test:await(fun() -> queued(Engine) =:= 5 end),
    Full = {error, {overloaded, Store}},
    ?assertEqual(Full, append(Store, ?S, any, events(1))),
    ?assertEqual(Full, append_many(Store, [{?S, any, events(1)}], #{timeout => infinity})),
    ?assertEqual(Full, erl_esdb_streams:delete(Store, ?S)),
    ?assertEqual(Full, erl_esdb_store:put_document(Store, {d, 1}, one)),
    ?assertEqual(Full, erl_esdb_streams:set_metadata(Store, ?S, #{max_count => 1}, #{})),
    %% Reads need no turn.
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)),
    ok = sys:resume(Engine),
    Answers = [
        receive
            {'DOWN', Ref, process, _, Answer} -> Answer
        end
     || {_, Ref} <- Waiting
    ],
    ?assertEqual([{ok, N} || N <- lists:seq(0, 4)], lists:sort(Answers)),
    ?assertEqual({ok, 5}, append(Store, ?S, any, events(1))),
    ok = erl_esdb:stop_store(Store).

%% Who is killed while it waits takes no place for ever.
queue_of_callers_that_are_killed(Config) ->
    Store = store(Config, #{max_queue => 3}),
    Engine = erl_esdb_test:orderer(Store),
    [
        begin
            ok = sys:suspend(Engine),
            Send = fun() -> append(Store, ?S, any, events(1)) end,
            Waiting = [spawn_monitor(Send) || _ <- lists:seq(1, 3)],
            ok = erl_esdb_test:await(fun() -> queued(Engine) =:= 3 end),
            [exit(Pid, kill) || {Pid, _} <- Waiting],
            [receive {'DOWN', Ref, process, _, killed} -> ok end || {_, Ref} <- Waiting],
            ?assertEqual({error, {overloaded, Store}}, append(Store, ?S, any, events(1))),
            ok = sys:resume(Engine),
            ok = erl_esdb_test:await(fun() -> queued(Engine) =:= 0 end),
            {ok, _} = append(Store, ?S, any, events(1))
        end
     || _ <- lists:seq(1, 20)
    ],
    ?assertEqual(79, erl_esdb_streams:get_version(Store, ?S)),
    ok = erl_esdb:stop_store(Store).

queue_length_is_counted_in_the_handle_only(Config) ->
    Store = store(Config, #{max_queue => 10}),
    Writer = fun() -> [append(Store, ?S, any, events(1)) || _ <- lists:seq(1, 100)] end,
    Answers = lists:append(concurrently(lists:duplicate(30, Writer))),
    Done = length([ok || {ok, _} <- Answers]),
    ?assertEqual([], [A || A <- Answers, element(1, A) =/= ok, A =/= {error, {overloaded, Store}}]),
    ?assertEqual(Done - 1, erl_esdb_streams:get_version(Store, ?S)),
    %% Nobody waits any more: nobody is refused.
    ?assertEqual({ok, Done}, append(Store, ?S, any, events(1))),
    ok = erl_esdb:stop_store(Store).

queued(Pid) -> erl_esdb_test:calls(Pid).
