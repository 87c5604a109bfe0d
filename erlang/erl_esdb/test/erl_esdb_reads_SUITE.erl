-module(erl_esdb_reads_SUITE).
-moduledoc """
Reads by tag, type, category and name; what hides and removes streams; the traps of the streams API.
Each group runs the same cases on an engine.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-import(erl_esdb_test, [event/1, event/2, events/1, versions/1, concurrently/1]).
-import(erl_esdb_streams, [append/4, append/5, read/5, read_all/4, read_by_tags/3, read_by_tags/4]).
-import(erl_esdb_streams, [read_category/5, read_category/6, list_streams/2, set_metadata/4]).

-define(S, <<"orders-1">>).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups(cases()).

cases() ->
    Named = [atom_to_list(F) || {F, 1} <- ?MODULE:module_info(exports)],
    Prefixes = ["tags_", "category_", "names_", "hidden_", "tombstone_", "time_", "drop_", "t_"],
    [list_to_atom(F) || Prefix <- Prefixes, F <- Named, lists:prefix(Prefix, F)].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(Case, Config) -> erl_esdb_streams_SUITE:init_per_testcase(Case, Config).

end_per_testcase(Case, Config) -> erl_esdb_streams_SUITE:end_per_testcase(Case, Config).

store(Config) -> proplists:get_value(store, Config).

positions({ok, Events}) -> [Position || #event{position = Position} <- Events].

%% ---- by tags

tags_any_and_all(Config) ->
    Store = store(Config),
    Tagged = fun(Tags) -> (event(1))#{tags => Tags} end,
    Given = [[], [<<"a">>], [<<"b">>, <<"a">>], [<<"b">>], [<<"a">>, <<"c">>, <<"b">>]],
    [
        {ok, _} = append(Store, <<"s", (N rem 2)>>, any, [Tagged(Tags)])
     || {N, Tags} <- lists:enumerate(Given)
    ],
    Any = fun(Tags) -> positions(read_by_tags(Store, Tags, any, 100)) end,
    All = fun(Tags) -> positions(read_by_tags(Store, Tags, all, 100)) end,
    ?assertEqual([1, 2, 4], Any([<<"a">>])),
    ?assertEqual([1, 2, 3, 4], Any([<<"a">>, <<"b">>])),
    ?assertEqual([2, 4], All([<<"a">>, <<"b">>, <<"b">>])),
    ?assertEqual([4], All([<<"a">>, <<"b">>, <<"c">>])),
    ?assertEqual([], All([<<"a">>, <<"x">>])),
    ?assertEqual([4], Any([<<"c">>, <<"x">>])),
    ?assertEqual([], Any([])),
    ?assertEqual([], All([])),
    ?assertEqual([1, 2, 3, 4], positions(read_by_tags(Store, [<<"a">>, <<"b">>], 100))),
    {ok, [#event{tags = Tags}]} = read_by_tags(Store, [<<"c">>], 1),
    ?assertEqual([<<"a">>, <<"c">>, <<"b">>], Tags).

tags_windows(Config) ->
    Store = store(Config),
    Events = [(event(N))#{tags => [<<"t", (N rem 2)>>]} || N <- lists:seq(0, 2999)],
    {ok, 2999} = append(Store, ?S, any, Events),
    Read = fun(Options) -> positions(read_by_tags(Store, [<<"t", 1>>], Options)) end,
    ?assertEqual(lists:seq(1, 1999, 2), Read(#{})),
    ?assertEqual([1, 3], Read(2)),
    ?assertEqual([], Read(0)),
    ?assertEqual(lists:seq(1, 2999, 2), Read(infinity)),
    ?assertEqual([2001, 2003], Read(#{from => 2000, batch_size => 2})),
    ?assertEqual([2999, 2997, 2995], Read(#{direction => backward, batch_size => 3})),
    ?assertEqual([1], Read(#{direction => backward, from => 2})),
    Back = #{direction => backward, batch_size => infinity, timeout => 60_000},
    ?assertEqual(lists:seq(2999, 1, -2), Read(Back)),
    Typed = erl_esdb_streams:read_by_event_types(Store, [<<"Counted">>], Back#{batch_size => 2}),
    ?assertEqual([2999, 2998], positions(Typed)),
    [
        ?assertError(badarg, read_by_tags(Store, Tags, Which, Options))
     || {Tags, Which, Options} <- [
            {<<"t">>, any, 1},
            {[t], any, 1},
            {[], some, 1},
            {[<<"t">>], some, 1},
            {[<<"t">>], all, -1},
            {[], all, -1},
            {[<<"t">>], all, #{direction => up}},
            {[<<"t">>], all, #{from => last}},
            {[<<"t">>], all, #{timeout => soon}}
        ]
    ].

%% Against a plain filter over all events, both ways and with pages that end anywhere.
tags_against_a_filter(Config) ->
    Store = store(Config),
    Property = ?FORALL(
        {Batches, Query, From, Count, Direction},
        {
            list({oneof([<<"a">>, <<"b">>]), resize(5, list({type(), resize(3, list(tag()))}))}),
            resize(3, list(item())),
            range(0, 60),
            oneof([range(0, 20), infinity]),
            oneof([forward, backward])
        },
        begin
            {ok, Base} = erl_esdb_store:next_position(Store),
            [{ok, _} = append(Store, S, any, [tagged(E) || E <- Batch]) || {S, Batch} <- Batches],
            {ok, All} = erl_esdb_streams:read_log(Store, Base, infinity, forward, #{}),
            {ok, Found} = erl_esdb_store:matching(
                Store, Query, {Base + From, Count, Direction}, #{}
            ),
            Matching = [E || #event{position = P} = E <- All, on(Direction, P, Base + From)],
            Expected = take(Count, ordered(Direction, [E || E <- Matching, is_match(E, Query)])),
            [E || #event{position = P} = E <- Found, P >= Base] =:= Expected
        end
    ),
    erl_esdb_test:property(100, Property).

type() -> oneof([<<"X">>, <<"Y">>, <<"Z">>]).

tag() -> oneof([<<"s">>, <<"t">>, <<"u">>]).

item() ->
    ?LET(
        {Types, Tags, Keys},
        {resize(2, list(type())), resize(2, list(tag())), oneof([[types], [tags], [types, tags]])},
        maps:with(Keys, #{types => Types, tags => Tags})
    ).

tagged({Type, Tags}) -> (event(1, Type))#{tags => Tags}.

on(forward, Position, From) -> Position >= From;
on(backward, Position, From) -> Position =< From.

ordered(forward, Events) -> Events;
ordered(backward, Events) -> lists:reverse(Events).

take(infinity, Events) -> Events;
take(Count, Events) -> lists:sublist(Events, Count).

is_match(_Event, []) ->
    true;
is_match(#event{event_type = Type, tags = Tags}, Query) ->
    lists:any(
        fun(Item) ->
            Types = maps:get(types, Item, []),
            (Types =:= [] orelse lists:member(Type, Types)) andalso
                lists:all(fun(Tag) -> lists:member(Tag, Tags) end, maps:get(tags, Item, []))
        end,
        Query
    ).

%% ---- by category

category_in_global_order(Config) ->
    Store = store(Config),
    Streams = [<<"order-1">>, <<"order-2">>, <<"orders">>, <<"customer-1">>, <<"order-">>],
    [{ok, _} = append(Store, S, any, events(2)) || _ <- [1, 2], S <- Streams],
    Read = fun(Pattern, From, Count, Direction) ->
        {ok, Events} = read_category(Store, Pattern, From, Count, Direction),
        [{S, V} || #event{stream_id = S, version = V} <- Events]
    end,
    Orders = [
        {S, V}
     || V0 <- [0, 2], S <- [<<"order-1">>, <<"order-2">>, <<"order-">>], V <- [V0, V0 + 1]
    ],
    ?assertEqual(Orders, Read(<<"order-*">>, 0, infinity, forward)),
    ?assertEqual(lists:sublist(Orders, 3), Read(<<"order-*">>, 0, 3, forward)),
    ?assertEqual(lists:reverse(Orders), Read(<<"order-*">>, last, infinity, backward)),
    ?assertEqual([{<<"order-2">>, 2}], Read(<<"*-2">>, 10, 1, forward)),
    ?assertEqual([{<<"order-2">>, 1}], Read(<<"*-2">>, 10, 1, backward)),
    ?assertEqual([{<<"orders">>, V} || V <- [0, 1, 2, 3]], Read(<<"orders">>, 0, 9, forward)),
    ?assertEqual([], Read(<<"order-?">>, 0, 9, forward)),
    ?assertEqual(20, length(Read(<<"*">>, 0, infinity, forward))),
    ?assertError(badarg, read_category(Store, order, 0, 1, forward)),
    ?assertError(badarg, read_category(Store, <<"*">>, last, 1, forward)),
    ?assertError(badarg, read_category(Store, <<"*">>, 0, 1, forward, #{timeout => x})),
    ?assertEqual(
        {error, {store_not_started, nosuch}}, read_category(nosuch, <<"*">>, 0, 1, forward)
    ).

%% A reader goes on from the last position, and pages make the whole.
%% A category of one stream is read by way of this stream, and is what a search would find.
category_of_one_stream(Config) ->
    Store = store(Config),
    Names = [<<"a">>, <<"b">>, <<"a">>, <<"a">>, <<"b">>, <<"b">>, <<"a">>],
    [{ok, _} = append(Store, Name, any, events(3)) || Name <- Names],
    {ok, _} = erl_esdb_store:truncate(Store, <<"a">>, 2),
    Read = fun(Pattern, From, Count, Direction) ->
        read_category(Store, Pattern, From, Count, Direction)
    end,
    Windows = [
        {From, Count, Direction}
     || Direction <- [forward, backward],
        From <- lists:seq(0, 22) ++ [last || Direction =:= backward],
        Count <- [0, 1, 4, infinity]
    ],
    [
        ?assertEqual(Read(<<"*", Name/binary>>, F, C, D), Read(Name, F, C, D), {F, C, D})
     || {F, C, D} <- Windows, Name <- [<<"a">>, <<"b">>, <<"none">>]
    ].

%% However much others have written.
category_of_one_stream_costs_no_more(Config) ->
    Store = store(Config),
    {ok, 0} = append(Store, ?S, any, events(1)),
    [{ok, _} = append(Store, <<"others">>, any, events(1)) || _ <- lists:seq(1, 2000)],
    {ok, 1} = append(Store, ?S, any, events(1)),
    {reductions, Before} = process_info(self(), reductions),
    {ok, [_]} = read_category(Store, ?S, 1, 10, forward),
    {ok, [_]} = read_category(Store, ?S, 1, 10, backward),
    {reductions, After} = process_info(self(), reductions),
    ?assert(After - Before < 5_000, After - Before).

category_pages(Config) ->
    Store = store(Config),
    Append = fun(N) -> append(Store, <<"c", (N rem 5)>>, any, events(1 + N rem 4)) end,
    [{ok, _} = Append(N) || N <- lists:seq(1, 900)],
    {ok, Whole} = read_category(Store, <<"c", 3, "*">>, 0, infinity, forward),
    Page = fun Page(From) ->
        case read_category(Store, <<"c", 3, "*">>, From, 7, forward) of
            {ok, []} -> [];
            {ok, Events} -> Events ++ Page((lists:last(Events))#event.position + 1)
        end
    end,
    ?assertEqual(Whole, Page(0)),
    ?assertEqual({ok, Whole}, read(Store, <<"c", 3>>, 0, infinity, forward)).

%% ---- names

names_in_pages(Config) ->
    Store = store(Config),
    Names = [iolist_to_binary(io_lib:format("s-~4..0b", [N])) || N <- lists:seq(1, 2500)],
    Others = [<<"a">>, <<"s">>, <<"s-">>, <<"t">>],
    [{ok, 0} = append(Store, Name, -1, events(1)) || Name <- Names ++ Others],
    Sorted = lists:sort(Names ++ Others),
    First = {ok, lists:sublist(Sorted, 1000), lists:nth(1000, Sorted)},
    ?assertEqual(First, list_streams(Store, #{})),
    ?assertEqual({ok, Sorted, done}, list_streams(Store, #{limit => infinity})),
    ?assertEqual({ok, Sorted}, erl_esdb_streams:list_streams(Store)),
    Pages = fun Pages(Options) ->
        case list_streams(Store, Options) of
            {ok, Page, done} -> [Page];
            {ok, Page, Next} -> [Page | Pages(Options#{from => Next})]
        end
    end,
    ?assertEqual(Sorted, lists:append(Pages(#{limit => 7}))),
    ?assertEqual([<<"s-">> | Names], lists:append(Pages(#{limit => 333, prefix => <<"s-">>}))),
    Even = [Name || Name <- Names, lists:member(binary:last(Name), "02468")],
    Ends = [lists:append(Pages(#{limit => 9, pattern => <<"s-*", D>>})) || D <- "02468"],
    ?assertEqual(Even, lists:sort(lists:append(Ends))).

names_that_match(Config) ->
    Store = store(Config),
    Orders = [<<"order-1">>, <<"order-10">>, <<"order-2">>],
    Names = Orders ++ [<<"or">>, <<"x-order-1">>, <<>>, <<255>>],
    [{ok, 0} = append(Store, Name, -1, events(1)) || Name <- Names],
    Listed = fun(Options) ->
        {ok, Page, done} = list_streams(Store, Options#{limit => infinity}),
        Page
    end,
    ?assertEqual([<<"order-1">>, <<"order-10">>], Listed(#{prefix => <<"order-1">>})),
    ?assertEqual([<<"order-1">>, <<"x-order-1">>], Listed(#{pattern => <<"*order-1">>})),
    ?assertEqual([<<"order-1">>], Listed(#{pattern => <<"order-1">>})),
    ?assertEqual([], Listed(#{pattern => <<"order-?">>})),
    ?assertEqual([<<"order-10">>], Listed(#{prefix => <<"order-1">>, pattern => <<"o*0">>})),
    ?assertEqual([], Listed(#{prefix => <<"x">>, pattern => <<"order-*">>})),
    ?assertEqual([<<"order-2">>], Listed(#{pattern => <<"order-*">>, from => <<"order-10">>})),
    ?assertEqual([<<"order-2">>], Listed(#{prefix => <<"order">>, from => <<"order-15">>})),
    ?assertEqual([], Listed(#{prefix => <<"order">>, from => <<"p">>})),
    ?assertEqual(lists:sort(Names), Listed(#{prefix => <<>>})),
    ?assertEqual({ok, [<<>>], <<>>}, list_streams(Store, #{limit => 1})),
    ?assertEqual({ok, [<<"or">>], <<"or">>}, list_streams(Store, #{limit => 1, from => <<>>})),
    [
        ?assertError(badarg, list_streams(Store, Options))
     || Options <- [
            [], #{prefix => a}, #{pattern => "a"}, #{from => 0}, #{limit => 0}, #{timeout => -1}
        ]
    ],
    ?assertEqual({error, {store_not_started, nosuch}}, list_streams(nosuch, #{})).

%% Only the names that are asked for are looked at, however many there are.
names_cost_what_is_asked_for(Config) ->
    Store = store(Config),
    Parts = fun(From) -> [{<<"s", N:32>>, any, events(1)} || N <- lists:seq(From, From + 999)] end,
    [{ok, _} = erl_esdb_streams:append_many(Store, Parts(N * 1000), #{}) || N <- lists:seq(0, 19)],
    Work = fun(Options) ->
        {reductions, Before} = process_info(self(), reductions),
        {ok, [_, _, _], _} = list_streams(Store, Options#{limit => 3}),
        {reductions, After} = process_info(self(), reductions),
        After - Before
    end,
    Few = Work(#{}),
    ?assert(Few < 500, Few),
    ?assert(Work(#{from => <<"s", 19_000:32>>}) < 2 * Few).

%% A pattern means the same as the obvious search with every split tried.
names_patterns_against_a_naive_match(_Config) ->
    Bytes = resize(6, list(oneof([$a, $b, $?]))),
    Property = ?FORALL(
        {Name, Pattern},
        {Bytes, resize(6, list(oneof([$a, $b, $?, $*])))},
        erl_esdb_pattern:matches(
            list_to_binary(Name), erl_esdb_pattern:compile(list_to_binary(Pattern))
        ) =:= naive(Name, Pattern)
    ),
    erl_esdb_test:property(2000, Property).

naive(Name, [$* | Pattern]) ->
    lists:any(fun(N) -> naive(lists:nthtail(N, Name), Pattern) end, lists:seq(0, length(Name)));
naive([C | Name], [C | Pattern]) ->
    naive(Name, Pattern);
naive(Name, Pattern) ->
    Name =:= Pattern.

%% ---- what metadata hides

hidden_by_each_key(Config) ->
    Store = store(Config),
    {ok, 9} = append(Store, ?S, any, events(10)),
    {ok, 1} = append(Store, <<"other">>, any, events(2)),
    Seen = fun(Metadata) ->
        ok = set_metadata(Store, ?S, Metadata, #{}),
        {ok, Metadata} = erl_esdb_streams:get_metadata(Store, ?S),
        {ok, Up} = read(Store, ?S, 0, 100, forward),
        {ok, Down} = read_all(Store, ?S, 100, backward),
        {ok, Log} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
        {ok, Back} = erl_esdb_streams:read_log(Store, last, infinity, backward, #{}),
        {ok, Typed} = erl_esdb_streams:read_by_event_types(Store, [], infinity),
        ?assertEqual(Up, lists:reverse(Down)),
        ?assertEqual(Log, lists:reverse(Back)),
        ?assertEqual(Log, Typed),
        ?assertEqual(Up, [Event || #event{stream_id = ?S} = Event <- Log]),
        ?assertEqual(2 + length(Up), length(Log)),
        {ok, #{first := First, next := 10}} = erl_esdb_store:info(Store, ?S),
        ?assertEqual({ok, First}, erl_esdb_store:scavengeable(Store, ?S)),
        ?assertEqual(lists:seq(First, 9), versions(Up)),
        ?assertEqual(9, erl_esdb_streams:get_version(Store, ?S)),
        First
    end,
    ?assertEqual(0, Seen(#{})),
    ?assertEqual(4, Seen(#{truncate_before => 4})),
    ?assertEqual(7, Seen(#{max_count => 3})),
    ?assertEqual(10, Seen(#{truncate_before => 1000})),
    ?assertEqual(8, Seen(#{truncate_before => 8, max_count => 5})),
    ?assertEqual(0, Seen(#{max_age => 3_600_000_000})),
    ok = erl_esdb_test:await(fun() -> Seen(#{max_age => 1}) =:= 10 end),
    ?assertEqual(0, Seen(#{})),
    %% It is still there for who asks.
    ok = set_metadata(Store, ?S, #{max_count => 1}, #{}),
    Hidden = #{hidden => true},
    {ok, All} = erl_esdb_streams:read(Store, ?S, 0, 100, forward, Hidden),
    ?assertEqual(lists:seq(0, 9), versions(All)),
    {ok, Log} = erl_esdb_streams:read_log(Store, 0, infinity, forward, Hidden),
    ?assertEqual(12, length(Log)),
    ?assertMatch({ok, #{first := 0}}, erl_esdb_store:info(Store, ?S, Hidden)).

hidden_counts_do_not_count(Config) ->
    Store = store(Config),
    [{ok, _} = append(Store, S, any, events(1)) || _ <- lists:seq(1, 300), S <- [<<"a">>, <<"b">>]],
    ok = set_metadata(Store, <<"a">>, #{max_count => 10}, #{}),
    {ok, Events} = erl_esdb_streams:read_log(Store, 0, 295, forward, #{}),
    ?assertEqual(295, length(Events)),
    %% Of the first stream the last ten are seen, which stand among the last twenty positions.
    ?assertEqual([580, 582, 584], [P || #event{stream_id = <<"a">>, position = P} <- Events]),
    {ok, Whole} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    ?assertEqual(310, length(Whole)).

%% The window moves with each append; a scavenge removes what is outside and nothing else.
hidden_window_moves(Config) ->
    Store = store(Config),
    ok = set_metadata(Store, ?S, #{max_count => 3}, #{}),
    [
        begin
            {ok, N} = append(Store, ?S, any, [event(N)]),
            {ok, Events} = read(Store, ?S, 0, infinity, forward),
            ?assertEqual(lists:seq(max(0, N - 2), N), versions(Events)),
            {ok, Before} = erl_esdb_store:scavengeable(Store, ?S),
            {ok, {_, Before}} = erl_esdb_store:truncate(Store, ?S, Before),
            ?assertEqual({ok, Events}, read(Store, ?S, 0, infinity, forward))
        end
     || N <- lists:seq(0, 300)
    ],
    {ok, Left} = erl_esdb_streams:read(Store, ?S, 0, infinity, forward, #{hidden => true}),
    ?assertEqual([298, 299, 300], versions(Left)).

hidden_of_streams_that_come_and_go(Config) ->
    Store = store(Config),
    Get = fun() -> erl_esdb_streams:get_metadata(Store, ?S) end,
    ?assertEqual({ok, #{}}, Get()),
    ?assertEqual({error, {stream_not_found, ?S}}, erl_esdb_store:scavengeable(Store, ?S)),
    Metadata = #{max_count => 1, max_age => 1_000_000_000, truncate_before => 2},
    ok = set_metadata(Store, ?S, Metadata, #{timeout => 1000}),
    ?assertEqual({ok, Metadata}, Get()),
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)),
    {ok, 4} = append(Store, ?S, any, events(5)),
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}),
    ?assertEqual({ok, Metadata}, Get()),
    ok = erl_esdb_streams:delete(Store, ?S),
    ?assertEqual({ok, #{}}, Get()),
    ok = set_metadata(Store, ?S, #{max_count => 2}, #{}),
    ok = set_metadata(Store, ?S, #{}, #{}),
    ?assertEqual({ok, #{}}, Get()),
    [
        ?assertError(badarg, set_metadata(Store, ?S, Wrong, #{}))
     || Wrong <- [
            none,
            #{max_count => 0},
            #{max_count => infinity},
            #{max_age => -1},
            #{truncate_before => -1},
            #{maxcount => 1}
        ]
    ],
    ?assertError(badarg, set_metadata(Store, s, #{}, #{})),
    ?assertError(badarg, set_metadata(Store, ?S, #{}, #{timeout => x})),
    ?assertError(badarg, erl_esdb_streams:get_metadata(Store, s)),
    Gone = {error, {store_not_started, nosuch}},
    ?assertEqual(Gone, set_metadata(nosuch, ?S, #{}, #{})),
    ?assertEqual(Gone, erl_esdb_streams:get_metadata(nosuch, ?S)),
    Long = binary:copy(<<"n">>, 65_537),
    ?assertEqual(
        {error, {stream_id_too_long, 65_537, 65_536}}, set_metadata(Store, Long, #{}, #{})
    ).

%% ---- tombstones

tombstone_keeps_the_numbering(Config) ->
    Store = store(Config),
    {ok, 4} = append(Store, ?S, any, events(5)),
    {ok, 0} = append(Store, <<"other">>, any, events(1)),
    Bury = fun() -> erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}) end,
    ok = Bury(),
    ok = Bury(),
    ?assertNot(erl_esdb_streams:exists(Store, ?S)),
    ?assertEqual(-1, erl_esdb_streams:get_version(Store, ?S)),
    ?assertEqual({error, {stream_not_found, ?S}}, read(Store, ?S, 0, 10, forward)),
    ?assertEqual({error, {stream_not_found, ?S}}, read_all(Store, ?S, 10, backward)),
    ?assertEqual({error, {stream_not_found, ?S}}, erl_esdb_store:truncate(Store, ?S, 1)),
    ?assertEqual({ok, [<<"other">>]}, erl_esdb_streams:list_streams(Store)),
    ?assertEqual({ok, [<<"other">>], done}, list_streams(Store, #{})),
    ?assertEqual([5], positions(read_all(Store, 0, 10, forward))),
    ?assertEqual(
        {error, {wrong_expected_version, 4, -1}}, append(Store, ?S, 4, events(1))
    ),
    ?assertEqual(
        {error, {wrong_expected_version, -4, -1}}, append(Store, ?S, stream_exists, events(1))
    ),
    ?assertEqual({ok, -1}, append(Store, ?S, any, [])),
    ?assertEqual({ok, 6}, append(Store, ?S, -1, events(2))),
    {ok, Events} = read(Store, ?S, 0, 100, forward),
    ?assertEqual([5, 6], versions(Events)),
    ?assertEqual([6, 7], [P || #event{position = P} <- Events]),
    ok = Bury(),
    ?assertEqual({ok, 7}, append(Store, ?S, any, events(1))),
    %% A hard delete forgets the tombstone, too.
    ok = Bury(),
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => hard, timeout => 1000}),
    ?assertEqual({ok, 0}, append(Store, ?S, -1, events(1))),
    ok = Bury(),
    ok = erl_esdb_streams:delete(Store, <<"none">>, #{mode => tombstone}),
    ?assertEqual({ok, 0}, append(Store, <<"none">>, -1, events(1))),
    ?assertError(badarg, erl_esdb_streams:delete(Store, ?S, #{mode => soft})),
    ?assertError(badarg, erl_esdb_streams:delete(Store, ?S, [])).

%% Many events go in slices, and the stream goes on in the meantime.
tombstone_of_a_long_stream(Config) ->
    Store = store(Config),
    [{ok, _} = append(Store, ?S, any, [event(N)]) || N <- lists:seq(0, 2999)],
    ok = erl_esdb_streams:delete(Store, ?S, #{mode => tombstone}),
    [{ok, _} = append(Store, ?S, any, [event(N)]) || N <- lists:seq(3000, 3299)],
    {ok, Events} = read(Store, ?S, 0, infinity, forward),
    ?assertEqual(lists:seq(3000, 3299), versions(Events)),
    ?assertEqual(lists:seq(3000, 3299), [N || #event{data = #{n := N}} <- Events]),
    ?assertEqual({ok, Events}, read_all(Store, 0, infinity, forward)).

%% ---- time

time_that_is_up(Config) ->
    Store = store(Config),
    {ok, _} = append(Store, ?S, any, events(1)),
    Engine = erl_esdb_test:orderer(Store),
    ok = sys:suspend(Engine),
    Late = {error, {timeout, Store}},
    Options = #{timeout => 5},
    ?assertEqual(Late, append(Store, ?S, any, events(1), Options)),
    ?assertEqual(Late, erl_esdb_streams:append_many(Store, [{?S, any, events(1)}], Options)),
    ?assertEqual(Late, erl_esdb_streams:delete(Store, ?S, Options)),
    ?assertEqual(Late, set_metadata(Store, ?S, #{max_count => 1}, Options)),
    ?assertEqual(Late, erl_esdb_store:truncate(Store, ?S, 1, Options)),
    ?assertEqual(Late, erl_esdb_store:put_document(Store, {d, 1}, one, Options)),
    ?assertEqual(Late, erl_esdb_store:delete_document(Store, {d, 1}, Options)),
    %% Reads do not wait for the process.
    ?assertEqual(0, erl_esdb_streams:get_version(Store, ?S, Options)),
    ?assert(erl_esdb_streams:exists(Store, ?S, Options)),
    ?assertMatch({ok, [_]}, erl_esdb_streams:read_all(Store, 0, 9, forward, Options)),
    ?assertEqual({error, not_found}, erl_esdb_store:get_document(Store, {d, 1}, Options)),
    ?assertEqual({ok, []}, erl_esdb_store:list_documents(Store, {}, {d, 9}, Options)),
    ok = sys:resume(Engine).

%% A search through many pages ends when its time does, and has changed nothing.
time_of_a_search(Config) ->
    Options = proplists:get_value(options, Config),
    Store = erl_esdb_test:start_store(Options#{indexes => []}),
    [{ok, _} = append(Store, ?S, any, events(1000)) || _ <- lists:seq(1, 3)],
    searches_end_in_time(Store),
    ok = erl_esdb:stop_store(Store).

searches_end_in_time(Store) ->
    Late = {error, {timeout, Store}},
    None = #{timeout => 0},
    ?assertEqual(Late, erl_esdb_streams:read_by_event_types(Store, [<<"none">>], None)),
    ?assertEqual(Late, read_by_tags(Store, [<<"none">>], None)),
    ?assertEqual(Late, read_category(Store, <<"none-*">>, 0, 1, forward, None)),
    Condition = #{fail_if_events_match => [#{types => [<<"none">>]}]},
    ?assertEqual(Late, append(Store, ?S, any, events(1), None#{condition => Condition})),
    ?assertEqual({ok, []}, read_by_tags(Store, [<<"none">>], #{timeout => 60_000})),
    ?assertEqual(2999, erl_esdb_streams:get_version(Store, ?S)).

%% The index does not get there.
time_of_the_wait_for_the_index(Config) ->
    Store = store(Config),
    ok = sys:suspend(index(Store)),
    [{ok, _} = append(Store, ?S, any, events(1000)) || _ <- lists:seq(1, 3)],
    Late = {error, {timeout, Store}},
    ?assertEqual(Late, read_by_tags(Store, [<<"none">>], #{timeout => 5})),
    Condition = #{fail_if_events_match => [#{types => [<<"none">>]}]},
    ?assertEqual(Late, append(Store, ?S, any, events(1), #{condition => Condition, timeout => 5})),
    ok = sys:resume(index(Store)),
    ?assertEqual({ok, []}, read_by_tags(Store, [<<"none">>], #{timeout => 60_000})),
    ?assertEqual(2999, erl_esdb_streams:get_version(Store, ?S)).

%% The index is there, and what it finds is not what is wanted.
time_of_a_search_by_the_index(Config) ->
    Options = proplists:get_value(options, Config),
    Store = erl_esdb_test:start_store(Options#{indexes => [tag]}),
    Tagged = [Event#{tags => [<<"t">>]} || Event <- events(1000)],
    {ok, 999} = append(Store, ?S, any, Tagged),
    {ok, [_]} = read_by_tags(Store, [<<"t">>], 1),
    Condition = #{fail_if_events_match => [#{types => [<<"none">>], tags => [<<"t">>]}]},
    Late = {error, {timeout, Store}},
    ?assertEqual(Late, append(Store, ?S, any, events(1), #{condition => Condition, timeout => 0})),
    ?assertEqual(Late, read_by_tags(Store, [<<"t">>], #{timeout => 0})),
    ?assertEqual({ok, 1000}, append(Store, ?S, any, events(1), #{condition => Condition})),
    ok = erl_esdb:stop_store(Store).

%% So does a read of all there is.
time_of_a_large_read(Config) ->
    Store = store(Config),
    [{ok, _} = append(Store, ?S, any, events(1)) || _ <- lists:seq(1, 300)],
    Late = {error, {timeout, Store}},
    None = #{timeout => 0},
    ?assertEqual(Late, erl_esdb_streams:read_log(Store, 0, infinity, forward, None)),
    ?assertEqual(Late, erl_esdb_streams:read(Store, ?S, 0, infinity, forward, None)),
    ?assertMatch({ok, [_]}, erl_esdb_streams:read(Store, ?S, 0, 1, forward, None)).

index(Store) ->
    Sup = erl_esdb_naming:notification_sup_name(Store),
    [Index] = [Pid || {index, Pid, _, _} <- supervisor:which_children(Sup)],
    Index.

%% Who asks for a type and a tag pays for the events that have both.
tags_and_types_meet_in_the_index(Config) ->
    Store = store(Config),
    Of = fun(Count, Type, Tag) ->
        [(event(N, Type))#{tags => [Tag]} || N <- lists:seq(1, Count)]
    end,
    Tags = [{<<"often">>, <<"x">>}, {<<"rare">>, <<"y">>}, {<<"often">>, <<"x">>}],
    [{ok, _} = append(Store, ?S, any, Of(2000, Type, Tag)) || {Type, Tag} <- Tags],
    {ok, _} = append(Store, ?S, any, Of(3, <<"rare">>, <<"x">>)),
    Query = [#{types => [<<"rare">>, <<"never">>], tags => [<<"x">>]}],
    Ask = fun(Direction, From) ->
        {reductions, Before} = process_info(self(), reductions),
        {ok, Found} = erl_esdb_store:matching(Store, Query, {From, 10, Direction}, #{}),
        {reductions, After} = process_info(self(), reductions),
        {[Position || #event{position = Position} <- Found], After - Before}
    end,
    %% The index may have to catch up the first time.
    _ = Ask(forward, 0),
    {[6000, 6001, 6002], Forward} = Ask(forward, 0),
    {[6002, 6001, 6000], Backward} = Ask(backward, last),
    ?assert(Forward < 20_000, Forward),
    ?assert(Backward < 20_000, Backward).

%% ---- a store that is dropped

drop_leaves_nothing(_Config) ->
    ok = erl_esdb_test:told(),
    Tables = ets:all(),
    Store = erl_esdb_test:start_store(#{}),
    {ok, 0} = append(Store, ?S, any, events(1)),
    ?assertEqual(ok, erl_esdb:drop(Store)),
    ?assertNot(lists:member(Store, erl_esdb:which_stores())),
    ok = erl_esdb_test:await(fun() -> ets:all() -- Tables =:= [] end),
    ?assertEqual({error, not_found}, erl_esdb:drop(Store)),
    ?assertError(badarg, erl_esdb:drop("store")),
    {ok, _} = erl_esdb_test:start_store(Store, erl_esdb_test:options()),
    ?assertEqual({ok, []}, erl_esdb_streams:list_streams(Store)),
    ?assertEqual({ok, 0}, erl_esdb_store:next_position(Store)),
    ok = erl_esdb:drop(Store).

%% ---- traps

t_01_a_mismatch_is_a_triple(Config) ->
    ?assertEqual(
        {error, {wrong_expected_version, 3, -1}}, append(store(Config), ?S, 3, events(1))
    ).

t_02_not_found_names_the_stream(Config) ->
    ?assertEqual({error, {stream_not_found, ?S}}, read(store(Config), ?S, 0, 1, forward)).

t_03_a_version_is_an_integer(Config) ->
    {ok, 1} = append(store(Config), ?S, any, events(2)),
    ?assertEqual(1, erl_esdb_streams:get_version(store(Config), ?S)).

t_04_zero_is_no_empty_stream(Config) ->
    ?assertEqual(
        {error, {wrong_expected_version, 0, -1}}, append(store(Config), ?S, 0, events(1))
    ),
    ?assertEqual({ok, 0}, append(store(Config), ?S, -1, events(1))).

t_05_read_all_of_a_stream_or_of_all(Config) ->
    Store = store(Config),
    {ok, 1} = append(Store, <<"a">>, any, events(2)),
    {ok, 0} = append(Store, <<"b">>, any, events(1)),
    ?assertEqual([1, 0], positions(read_all(Store, <<"a">>, 9, backward))),
    ?assertEqual([1, 2], positions(read_all(Store, 1, 9, forward))).

t_06_types_with_a_number_or_options(Config) ->
    {ok, 2} = append(store(Config), ?S, any, events(3)),
    [
        ?assertEqual(
            [0, 1],
            positions(erl_esdb_streams:read_by_event_types(store(Config), [<<"Counted">>], Two))
        )
     || Two <- [2, #{batch_size => 2}]
    ].

t_07_delete_is_hard(Config) ->
    {ok, 2} = append(store(Config), ?S, any, events(3)),
    ok = erl_esdb_streams:delete(store(Config), ?S),
    ?assertEqual({ok, 0}, append(store(Config), ?S, -1, events(1))).

t_08_versions_outlive_their_events(Config) ->
    Store = store(Config),
    {ok, 2} = append(Store, ?S, any, events(3)),
    {ok, {0, 3}} = erl_esdb_store:truncate(Store, ?S, 3),
    ?assert(erl_esdb_streams:exists(Store, ?S)),
    ?assertEqual({ok, 3}, append(Store, ?S, 2, events(1))).

t_09_a_batch_is_atomic_and_races_have_one_winner(Config) ->
    Store = store(Config),
    Append = fun(Me) -> append(Store, ?S, -1, [event({Me, N}) || N <- lists:seq(1, 20)]) end,
    Results = concurrently([fun() -> Append(Me) end || Me <- lists:seq(1, 20)]),
    ?assertEqual([{ok, 19}], [Result || {ok, _} = Result <- Results]),
    {ok, Events} = read(Store, ?S, 0, infinity, forward),
    ?assertEqual(1, length(lists:usort([Me || #event{data = #{n := {Me, _}}} <- Events]))),
    ?assertEqual(lists:seq(1, 20), [N || #event{data = #{n := {_, N}}} <- Events]).

t_10_a_stream_that_has_to_exist(Config) ->
    Store = store(Config),
    ?assertEqual(
        {error, {wrong_expected_version, -4, -1}}, append(Store, ?S, ?STREAM_EXISTS, events(1))
    ),
    {ok, 0} = append(Store, ?S, any, events(1)),
    ?assertEqual({ok, 1}, append(Store, ?S, ?STREAM_EXISTS, events(1))).

t_11_versions_are_ordered_as_numbers(Config) ->
    Store = store(Config),
    [{ok, _} = append(Store, ?S, any, [event(N)]) || N <- lists:seq(0, 120)],
    {ok, Events} = read(Store, ?S, 98, 4, forward),
    ?assertEqual([98, 99, 100, 101], versions(Events)).

t_12_a_batch_keeps_its_order(Config) ->
    Store = store(Config),
    {ok, 99} = append(Store, ?S, any, events(100)),
    {ok, Events} = erl_esdb_streams:read_by_event_types(Store, [<<"Counted">>], 100),
    ?assertEqual(lists:seq(0, 99), versions(Events)),
    ?assertEqual(1, length(lists:usort([T || #event{epoch_us = T} <- Events]))).

t_17_a_question_mark_is_one(Config) ->
    Store = store(Config),
    [{ok, 0} = append(Store, S, any, events(1)) || S <- [<<"a?">>, <<"ab">>]],
    ?assertEqual({ok, [<<"a?">>], done}, list_streams(Store, #{pattern => <<"a?">>})),
    ?assertEqual({ok, [<<"a?">>, <<"ab">>], done}, list_streams(Store, #{pattern => <<"a*">>})).
