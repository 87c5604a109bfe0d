-module(erl_esdb_batch_SUITE).
-moduledoc "The packed batch: round trip, single bodies, and every kind of damage.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").

all() ->
    [
        what_is_packed_is_unpacked,
        a_fold_decodes_until_it_is_stopped,
        every_flipped_bit_is_found,
        only_the_wanted_body_is_looked_at,
        every_cut_is_found,
        garbage,
        forged_ends_and_bodies,
        sizes_are_counted,
        the_format
    ].

what_is_packed_is_unpacked(_Config) ->
    Property = ?FORALL(
        {Terms, A, B},
        {non_empty(list(any())), non_neg_integer(), non_neg_integer()},
        begin
            Packed = erl_esdb_batch:pack(Terms),
            Count = length(Terms),
            [First, Last] = lists:sort([A rem Count, B rem Count]),
            Part = lists:sublist(Terms, First + 1, Last - First + 1),
            erl_esdb_batch:count(Packed) =:= {ok, Count} andalso
                erl_esdb_batch:unpack(Packed, 0, Count - 1) =:= {ok, Terms} andalso
                erl_esdb_batch:unpack(Packed, First, Last) =:= {ok, Part} andalso
                erl_esdb_batch:unpack(Packed, First, Count) =:= {error, corrupt}
        end
    ),
    erl_esdb_test:property(500, Property).

%% The third body is no term: a fold that stops before it does not meet it.
a_fold_decodes_until_it_is_stopped(_Config) ->
    Packed = erl_esdb_batch:pack_terms([term_to_binary(a), term_to_binary(b), <<"no term">>]),
    Until = fun(Last) ->
        fun
            (Nth, Body, Acc) when Nth < Last -> {next, [{Nth, Body} | Acc]};
            (Nth, Body, Acc) -> {stop, [{Nth, Body} | Acc]}
        end
    end,
    Fold = fun(First, Last) -> erl_esdb_batch:fold(Packed, First, 2, Until(Last), []) end,
    ?assertEqual({ok, [{1, b}, {0, a}]}, Fold(0, 1)),
    ?assertEqual({ok, [{1, b}]}, Fold(1, 1)),
    ?assertEqual({error, corrupt}, Fold(0, 2)).

every_flipped_bit_is_found(_Config) ->
    Packed = erl_esdb_batch:pack([{<<"id">>, #{a => 1.5}}, [b], <<"three">>]),
    Flipped = [flip(Packed, Bit) || Bit <- lists:seq(0, bit_size(Packed) - 1)],
    ?assertEqual(Packed, erl_esdb_batch:verified(Packed)),
    ?assertEqual([damaged], lists:usort([erl_esdb_batch:verified(Bin) || Bin <- Flipped])),
    ?assertEqual({error, corrupt}, erl_esdb_batch:unpack(damaged, 0, 0)).

%% Somebody who wants one event of many does not pay for all of them.
only_the_wanted_body_is_looked_at(_Config) ->
    Packed = erl_esdb_batch:pack([binary:copy(<<"first">>, 100), second]),
    %% in the middle of the first body
    Damaged = flip(Packed, 8 * 100),
    ?assertEqual({ok, [second]}, erl_esdb_batch:unpack(Damaged, 1, 1)),
    Keep = fun(_Nth, Body, Acc) -> {next, [Body | Acc]} end,
    ?assertEqual({ok, [second]}, erl_esdb_batch:fold(Damaged, 1, 1, Keep, [])).

flip(Bin, Bit) ->
    <<Before:Bit, Value:1, After/bitstring>> = Bin,
    <<Before:Bit, (1 - Value):1, After/bitstring>>.

every_cut_is_found(_Config) ->
    Packed = erl_esdb_batch:pack([one, two]),
    Cut = [binary_part(Packed, 0, Size) || Size <- lists:seq(0, byte_size(Packed) - 1)],
    Longer = [<<Packed/binary, 0>>, <<0, Packed/binary>>, <<Packed/binary, Packed/binary>>],
    Bad = Cut ++ Longer,
    ?assertEqual([damaged], lists:usort([erl_esdb_batch:verified(Bin) || Bin <- Bad])),
    ?assertEqual([{error, corrupt}], lists:usort([erl_esdb_batch:unpack(B, 0, 1) || B <- Bad])).

%% Also with a checksum that somebody computed.
garbage(_Config) ->
    Property = ?FORALL(
        {Count, Body, First, Last},
        {range(0, 16#FFFFFFFF), binary(), range(0, 3), range(0, 3)},
        begin
            Front = <<"EB", 1, Count:32, Body/binary>>,
            Forged = <<Front/binary, (esdb_hash_nif:xxhash3(Front)):64>>,
            {error, corrupt} =:= erl_esdb_batch:unpack(Forged, First, Last) andalso
                {error, corrupt} =:= erl_esdb_batch:unpack(Body, First, Last)
        end
    ),
    erl_esdb_test:property(1000, Property).

%% Each with the checksum that fits: nothing is read twice or passed over in silence.
forged_ends_and_bodies(_Config) ->
    A = term_to_binary(a),
    Size = byte_size(A),
    Forge = fun(Ends, Bodies) ->
        Table = [<<End:32>> || End <- Ends],
        Front = iolist_to_binary([<<"EB", 1, (length(Ends)):32>>, Table, Bodies]),
        <<Front/binary, (esdb_hash_nif:xxhash3(Front)):64>>
    end,
    Two = Forge([Size, 2 * Size], [A, A]),
    ?assertEqual({ok, [a, a]}, erl_esdb_batch:unpack(Two, 0, 1)),
    Forged = [
        %% the second body is the first, read backwards
        {1, Forge([Size, 0, 2 * Size], [A, A])},
        {1, Forge([2 * Size, Size, 2 * Size], [A, A])},
        %% something behind the last body, between bodies, or behind the term of a body
        {0, Forge([Size], [A, "junk"])},
        {0, Forge([Size + 4], [A, "junk"])},
        {0, Forge([Size + 4, 2 * Size + 4], [A, "junk", A])},
        %% an end outside
        {0, Forge([3 * Size, 2 * Size], [A, A])},
        {1, Forge([Size, 3 * Size], [A, A])},
        {0, Forge([0], [])}
    ],
    [?assertEqual({error, corrupt}, erl_esdb_batch:unpack(Bin, Nth, Nth)) || {Nth, Bin} <- Forged].

%% Never less than it takes; of what events are made of exactly that.
sizes_are_counted(_Config) ->
    Property = ?FORALL(
        Terms,
        list(any()),
        byte_size(erl_esdb_batch:pack(Terms)) =:= erl_esdb_batch:packed_size(Terms)
    ),
    erl_esdb_test:property(500, Property).

%% The bytes are on disks for ever.
the_format(_Config) ->
    A = term_to_binary(a, [{minor_version, 2}]),
    B = term_to_binary({b}, [{minor_version, 2}]),
    Ends = <<(byte_size(A)):32, (byte_size(A) + byte_size(B)):32>>,
    Front = <<"EB", 1, 2:32, Ends/binary, A/binary, B/binary>>,
    Sum = esdb_hash_nif:xxhash3(Front),
    ?assertEqual(<<Front/binary, Sum:64>>, erl_esdb_batch:pack([a, {b}])),
    ?assertEqual(<<131, 119, 1, $a>>, A),
    ?assertEqual(<<"EB", 1, 0:32>>, binary_part(erl_esdb_batch:pack([]), 0, 7)).
