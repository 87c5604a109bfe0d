-module(erl_esdb_chain_SUITE).
-moduledoc "Hash chains and codes over events: what is signed is verified, changes are named.".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-define(M, erl_esdb_chain).
-define(KEY, <<"0123456789abcdef0123456789abcdef">>).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        keys_are_checked,
        no_key_is_printed,
        the_first_event_by_hand,
        what_was_signed_is_verified,
        parts_of_a_chain_verify_from_their_tips,
        each_change_is_found_where_it_is,
        taken_out_or_put_in_or_swapped,
        keys_rotate,
        unsigned_events_are_missing_integrity,
        a_code_without_the_key_is_worth_nothing
    ].

keys_are_checked(_Config) ->
    ?assertEqual({ok, disabled}, ?M:keys(disabled)),
    ?assertMatch({ok, _}, ?M:keys(#{enabled => true, key => ?KEY})),
    [
        ?assertEqual(
            {error, {integrity_key_invalid_size, Size}},
            ?M:keys(#{enabled => true, key => <<0:(8 * Size)>>})
        )
     || Size <- [0, 16, 31, 33, 64]
    ],
    [
        ?assertEqual({error, integrity_config_invalid}, ?M:keys(Config))
     || Config <- [
            enabled,
            #{},
            #{enabled => false},
            #{enabled => true},
            #{enabled => true, key => a},
            #{enabled => true, key => ?KEY, other => 1},
            #{enabled => true, keys => #{}},
            #{enabled => true, keys => #{0 => ?KEY}},
            #{enabled => true, keys => #{a => ?KEY}},
            #{enabled => true, keys => #{1 => ?KEY}, key_id => 2},
            #{enabled => true, keys => [{1, ?KEY}]}
        ]
    ].

no_key_is_printed(_Config) ->
    Printed = lists:flatten(io_lib:format("~p ~w", [keys(), keys()])),
    ?assertEqual(nomatch, string:find(Printed, "0123456789abcdef")),
    ?assertEqual(nomatch, string:find(Printed, "48,49,50,51")).

%% The definition, written down once more.
the_first_event_by_hand(_Config) ->
    [Event] = events(1),
    {[Signed], Tip} = ?M:sign(keys(), none, [Event]),
    Bytes = fun(Name) ->
        Tuple =
            {event, ~"id-0", ~"Counted", ~"s", 0, #{n => 0}, #{actor => a}, 1, 1_000,
                ?CONTENT_TYPE_JSON, ?CONTENT_TYPE_JSON, [], Name},
        term_to_binary(Tuple, [deterministic, {minor_version, 2}])
    end,
    Code = crypto:mac(hmac, sha256, ?KEY, <<"evt|", (Bytes(<<0:256>>))/binary>>),
    ?assertEqual(Event#event{prev_event_hash = <<0:256>>, mac = {1, Code}}, Signed),
    ?assertEqual(crypto:hash(sha256, [<<"chain|">>, Bytes(undefined), <<0:256>>]), Tip).

what_was_signed_is_verified(_Config) ->
    Events = events(20),
    {Signed, Tip} = ?M:sign(keys(), none, Events),
    ?assertEqual({ok, Tip}, ?M:verify(keys(), none, Signed)),
    ?assert(lists:all(fun ?M:is_signed/1, Signed)),
    ?assertNot(lists:any(fun ?M:is_signed/1, Events)),
    ?assertEqual({ok, none}, ?M:verify(keys(), none, [])),
    %% The position comes later, and is no part of it.
    Placed = [E#event{position = 100 + V} || #event{version = V} = E <- Signed],
    ?assertEqual({ok, Tip}, ?M:verify(keys(), none, Placed)).

parts_of_a_chain_verify_from_their_tips(_Config) ->
    {Signed, Tip} = ?M:sign(keys(), none, events(10)),
    [
        begin
            {Before, After} = lists:split(N, Signed),
            {ok, Middle} = ?M:verify(keys(), none, Before),
            ?assertEqual({ok, Tip}, ?M:verify(keys(), Middle, After))
        end
     || N <- lists:seq(0, 10)
    ],
    {First, Middle} = ?M:sign(keys(), none, lists:sublist(events(10), 4)),
    {Second, Tip} = ?M:sign(keys(), Middle, lists:nthtail(4, events(10))),
    ?assertEqual(Signed, First ++ Second).

each_change_is_found_where_it_is(_Config) ->
    erl_esdb_test:property(
        300,
        ?FORALL({Count, At, Change}, {range(1, 12), range(0, 11), change()}, begin
            {Signed, _} = ?M:sign(keys(), none, events(Count)),
            Place = At rem Count,
            {Before, [Event | After]} = lists:split(Place, Signed),
            Changed = changed(Change, Event),
            Found = ?M:verify(keys(), none, Before ++ [Changed | After]),
            ?IMPLIES(Changed =/= Event, is_named(Change, Place, Found))
        end)
    ).

change() ->
    oneof([
        {#event.event_id, binary()},
        {#event.event_type, binary()},
        {#event.stream_id, binary()},
        {#event.version, range(0, 99)},
        {#event.data, oneof([binary(), #{n => integer()}])},
        {#event.metadata, #{actor => binary()}},
        {#event.timestamp, integer()},
        {#event.epoch_us, integer()},
        {#event.data_content_type, binary()},
        {#event.metadata_content_type, binary()},
        {#event.tags, list(binary())},
        {#event.prev_event_hash, binary(32)},
        {#event.mac, {oneof([1, 2, 0, a]), oneof([binary(32), binary(), a])}},
        {#event.mac, undefined}
    ]).

changed({Field, Value}, Event) -> setelement(Field, Event, Value).

is_named({Field, _}, Place, {error, #{kind := Kind, version := Version}}) ->
    Expected =
        case Field of
            #event.prev_event_hash -> chain_mismatch;
            _ -> mac_mismatch
        end,
    Kind =:= Expected andalso (Version =:= Place orelse Field =:= #event.version);
is_named(_, _, {ok, _}) ->
    false.

taken_out_or_put_in_or_swapped(_Config) ->
    {[A, B, C, D] = All, _} = ?M:sign(keys(), none, events(4)),
    {[Other], _} = ?M:sign(keys(), none, [(hd(events(1)))#event{event_id = ~"other"}]),
    [
        ?assertMatch(
            {error, #{kind := chain_mismatch, version := At}}, ?M:verify(keys(), none, Bad)
        )
     || {At, Bad} <- [
            {2, [A, C, D]},
            {1, [B, C, D]},
            {2, [A, C, B, D]},
            {0, [A, A, B, C, D]},
            {1, [Other, B, C, D]}
        ]
    ],
    %% The chain cannot know that there was more.
    ?assertMatch({ok, _}, ?M:verify(keys(), none, lists:droplast(All))).

keys_rotate(_Config) ->
    New = crypto:strong_rand_bytes(32),
    {ok, Both} = ?M:keys(#{enabled => true, keys => #{1 => ?KEY, 2 => New}}),
    {Old, Middle} = ?M:sign(keys(), none, lists:sublist(events(6), 3)),
    {Newer, Tip} = ?M:sign(Both, Middle, lists:nthtail(3, events(6))),
    ?assertEqual([1, 1, 1, 2, 2, 2], [Id || #event{mac = {Id, _}} <- Old ++ Newer]),
    ?assertEqual({ok, Tip}, ?M:verify(Both, none, Old ++ Newer)),
    ?assertMatch(
        {error, #{version := 3, kind := mac_mismatch, context := #{detail := unknown_key}}},
        ?M:verify(keys(), none, Old ++ Newer)
    ),
    {ok, First} = ?M:keys(#{enabled => true, keys => #{1 => ?KEY, 2 => New}, key_id => 1}),
    ?assertEqual({Old, Middle}, ?M:sign(First, none, lists:sublist(events(6), 3))).

unsigned_events_are_missing_integrity(_Config) ->
    ?assertMatch(
        {error, #{layer := storage, stream_id := ~"s", version := 0, kind := missing_integrity}},
        ?M:verify(keys(), none, events(1))
    ).

%% Who can write everything but has no key.
a_code_without_the_key_is_worth_nothing(_Config) ->
    {ok, Foreign} = ?M:keys(#{enabled => true, key => <<7:256>>}),
    {Forged, _} = ?M:sign(Foreign, none, events(3)),
    ?assertMatch({error, #{version := 0, kind := mac_mismatch}}, ?M:verify(keys(), none, Forged)).

keys() ->
    {ok, Keys} = ?M:keys(#{enabled => true, key => ?KEY}),
    Keys.

events(Count) ->
    [
        #event{
            event_id = <<"id-", (integer_to_binary(N))/binary>>,
            event_type = ~"Counted",
            stream_id = ~"s",
            version = N,
            data = #{n => N},
            metadata = #{actor => a},
            timestamp = 1 + N,
            epoch_us = 1_000 * (1 + N)
        }
     || N <- lists:seq(0, Count - 1)
    ].
