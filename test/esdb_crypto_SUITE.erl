-module(esdb_crypto_SUITE).
-moduledoc "Rows A/NCR, on whichever implementation is loaded, and the Erlang twin besides it.".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(NIF, esdb_crypto_nif).
-define(TWIN, esdb_crypto_erl).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_ncr_01_verify_ed25519,
        a_ncr_01_malformed_is_false,
        a_ncr_01_rfc_8032_vectors,
        a_ncr_01_edge_vectors,
        a_ncr_02_sha256,
        a_ncr_03_sha256_base64,
        a_ncr_04_base64_round_trip,
        a_ncr_04_base64_vectors,
        a_ncr_05_base64_is_strict_and_exact,
        a_ncr_06_secure_compare,
        a_ncr_07_base58_vectors,
        a_ncr_07_base58_invalid_characters,
        t_49_base58_keeps_leading_zeros,
        base58_is_limited,
        batch_equals_single,
        batch_takes_lists_only,
        prepared_key_equals_key,
        prepared_key_is_its_bytes,
        only_keys_are_prepared,
        handles_travel,
        sign_and_verify,
        hmac_vectors,
        what_is_not_iodata_is_badarg,
        long_input
    ].

%% Ed25519

a_ncr_01_verify_ed25519(_Config) ->
    {Public, Private} = crypto:generate_key(eddsa, ed25519),
    {Other, _} = crypto:generate_key(eddsa, ed25519),
    Signature = crypto:sign(eddsa, none, ~"message", [Private, ed25519]),
    ?assert(?NIF:verify_ed25519(~"message", Signature, Public)),
    ?assert(?NIF:verify_ed25519(["mess", [~"age"]], Signature, Public)),
    ?assertNot(?NIF:verify_ed25519(~"Message", Signature, Public)),
    ?assertNot(?NIF:verify_ed25519(~"message", Signature, Other)),
    [
        ?assertNot(?NIF:verify_ed25519(~"message", flip(Signature, Bit), Public), Bit)
     || Bit <- lists:seq(0, 511)
    ].

a_ncr_01_malformed_is_false(_Config) ->
    {M, S, K} = signed(~"message", 1),
    Wrong = [a, 1, [], #{}, <<1:7>>, <<>>, ~"short", <<0:8, S/binary>>, <<0:8, K/binary>>],
    [?assertNot(?NIF:verify_ed25519(M, W, K), W) || W <- Wrong],
    [?assertNot(?NIF:verify_ed25519(M, S, W), W) || W <- Wrong],
    [?assertNot(?NIF:verify_ed25519(W, S, K), W) || W <- [[a], [~"a" | b], [256] | Wrong]].

a_ncr_01_rfc_8032_vectors(_Config) ->
    each(~"ed25519", fun(#{~"private" := Private} = Row) ->
        {M, S, K} = row(Row),
        ?assertEqual(S, ?NIF:sign_ed25519(M, binary:decode_hex(Private))),
        ?assertEqual(S, ?TWIN:sign(M, binary:decode_hex(Private))),
        ?assertEqual([true], lists:usort(all_answers(M, S, K)))
    end).

%% Small orders, mixed orders, encodings that are not canonical, S beyond the group's order.
a_ncr_01_edge_vectors(_Config) ->
    each(~"ed25519_edge", fun(#{~"valid" := Valid, ~"name" := Name} = Row) ->
        {M, S, K} = row(Row),
        ?assertEqual([Valid], lists:usort(all_answers(M, S, K)), Name)
    end),
    #{~"ed25519_edge" := Rows} = vectors(),
    ?assertEqual(
        [Valid || #{~"valid" := Valid} <- Rows],
        ?NIF:verify_ed25519_batch([row(Row) || Row <- Rows])
    ).

%% All ways to ask.
all_answers(M, S, K) ->
    Handle = esdb_crypto_gen:handle(K),
    [
        ?NIF:verify_ed25519(M, S, K),
        ?NIF:verify_ed25519(M, S, Handle),
        ?TWIN:verify(M, S, K)
        | ?NIF:verify_ed25519_batch([{M, S, K}, {M, S, Handle}, {M, S, K}, {M, S, K}])
    ].

batch_equals_single(_Config) ->
    check(50, ?FORALL(Items, list(item()), begin
        Single = [?NIF:verify_ed25519(M, S, K) || {M, S, K} <- Items],
        ?NIF:verify_ed25519_batch(Items) =:= Single
    end)),
    %% More than a normal scheduler takes, a few keys, every third one false.
    Items = [broken(I rem 3, signed(integer_to_binary(I), I rem 4)) || I <- lists:seq(1, 120)],
    ?assertEqual([I rem 3 =/= 0 || I <- lists:seq(1, 120)], ?NIF:verify_ed25519_batch(Items)).

batch_takes_lists_only(_Config) ->
    Item = signed(~"message", 1),
    ?assertEqual([], ?NIF:verify_ed25519_batch([])),
    ?assertEqual(
        [true, false, false, false],
        ?NIF:verify_ed25519_batch([Item, a, {}, setelement(1, Item, [a])])
    ),
    [?assertError(badarg, ?NIF:verify_ed25519_batch(Items)) || Items <- [a, Item, [Item | Item]]].

prepared_key_equals_key(_Config) ->
    check(50, ?FORALL({M, S, K}, item(), begin
        {ok, Key} = ?NIF:verify_key(K),
        ?NIF:verify_ed25519(M, S, K) =:= ?NIF:verify_ed25519(M, S, Key)
    end)).

%% A reference to one key inside the handle of another changes nothing.
prepared_key_is_its_bytes(_Config) ->
    {M, S, K} = signed(~"message", 1),
    {_, _, OtherK} = signed(~"message", 2),
    {ok, Key} = ?NIF:verify_key(K),
    {ok, Other} = ?NIF:verify_key(OtherK),
    ?assert(?NIF:verify_ed25519(M, S, setelement(3, Key, element(3, Other)))),
    ?assertNot(?NIF:verify_ed25519(M, S, setelement(3, Other, element(3, Key)))),
    [
        ?assert(?NIF:verify_ed25519(M, S, setelement(3, Key, Reference)))
     || Reference <- [none, make_ref(), 7]
    ].

only_keys_are_prepared(_Config) ->
    ?assertMatch({ok, _}, ?NIF:verify_key(element(3, signed(~"", 1)))),
    [
        ?assertEqual({error, invalid_key}, ?NIF:verify_key(K), K)
     || K <- [<<>>, <<0:256>>, <<1:256/little>>, <<2:256/little>>, <<-1:256>>, <<0:264>>]
    ],
    [?assertError(badarg, ?NIF:verify_key(K)) || K <- [a, "key", 1, <<0:255>>]].

%% To a node with the other implementation, and back.
handles_travel(_Config) ->
    {M, S, K} = signed(~"message", 1),
    Peer = esdb_peer:start(off),
    try
        {ok, Here} = ?NIF:verify_key(K),
        {value, {ok, There}} = esdb_peer:call(Peer, ?NIF, verify_key, [K]),
        Answer = esdb_peer:call(Peer, ?NIF, verify_ed25519, [M, S, Here]),
        ?assertEqual({value, true}, Answer),
        ?assert(?NIF:verify_ed25519(M, S, There))
    after
        esdb_peer:stop(Peer)
    end.

sign_and_verify(_Config) ->
    check(50, ?FORALL({Message, Private}, {binary(), binary(32)}, begin
        {Public, _} = crypto:generate_key(eddsa, ed25519, Private),
        Signature = ?NIF:sign_ed25519([Message], Private),
        Signature =:= crypto:sign(eddsa, none, Message, [Private, ed25519]) andalso
            ?NIF:verify_ed25519(Message, Signature, Public)
    end)),
    Wrong = [<<>>, <<0:248>>, <<0:264>>, a],
    [?assertError(badarg, ?NIF:sign_ed25519(~"m", Key)) || Key <- Wrong].

%% Digests and secrets

a_ncr_02_sha256(_Config) ->
    each(~"sha256", fun([Data, Digest]) ->
        ?assertEqual(binary:decode_hex(Digest), ?NIF:hash_sha256(binary:decode_hex(Data)))
    end),
    check(500, ?FORALL(Data, iodata(), ?NIF:hash_sha256(Data) =:= crypto:hash(sha256, Data))).

a_ncr_03_sha256_base64(_Config) ->
    Texts = [?NIF:hash_sha256_base64(<<I:32, 0:(I * 16)>>) || I <- lists:seq(1, 200)],
    ?assertEqual([43], lists:usort([byte_size(Text) || Text <- Texts])),
    Characters = lists:usort(binary_to_list(iolist_to_binary(Texts))),
    ?assert(lists:member($-, Characters)),
    ?assert(lists:member($_, Characters)),
    ?assertEqual([], [C || C <- Characters, lists:member(C, "+/=")]),
    check(500, ?FORALL(Data, iodata(), begin
        {ok, crypto:hash(sha256, Data)} =:=
            ?NIF:base64_decode_urlsafe(?NIF:hash_sha256_base64(Data))
    end)).

hmac_vectors(_Config) ->
    each(~"hmac_sha256", fun(Row) ->
        [Key, Data, Mac] = [binary:decode_hex(Hex) || Hex <- Row],
        ?assertEqual(Mac, ?NIF:hmac_sha256(Key, Data)),
        ?assertEqual(Mac, ?NIF:hmac_sha256([Key], [[], Data]))
    end).

a_ncr_06_secure_compare(_Config) ->
    ?assert(?NIF:secure_compare(<<>>, <<>>)),
    ?assert(?NIF:secure_compare(~"secret", ~"secret")),
    ?assertNot(?NIF:secure_compare(~"secret", ~"secreT")),
    ?assertNot(?NIF:secure_compare(~"secret", ~"secrets")),
    ?assertNot(?NIF:secure_compare(~"secret", <<>>)),
    Wrong = [secret, "secret", 1, <<1:7>>],
    [?assertError(badarg, ?NIF:secure_compare(A, ~"secret")) || A <- Wrong],
    [?assertError(badarg, ?NIF:secure_compare(~"secret", A)) || A <- Wrong],
    check(500, ?FORALL({A, B}, {binary(), binary()}, ?NIF:secure_compare(A, B) =:= (A =:= B))).

%% Text encodings

a_ncr_04_base64_round_trip(_Config) ->
    [
        ?assertEqual({ok, Data}, ?NIF:base64_decode_urlsafe(?NIF:base64_encode_urlsafe(Data)))
     || Size <- lists:seq(0, 300),
        Data <- [rand:bytes(Size), <<0:Size/unit:8>>, binary:copy(<<255>>, Size)]
    ].

a_ncr_04_base64_vectors(_Config) ->
    each(~"base64", fun([Hex, Text]) ->
        Data = binary:decode_hex(Hex),
        ?assertEqual(Text, ?NIF:base64_encode_urlsafe(Data)),
        ?assertEqual({ok, Data}, ?NIF:base64_decode_urlsafe(Text))
    end),
    each(~"base64_invalid", fun(Text) ->
        ?assertEqual({error, invalid_base64}, ?NIF:base64_decode_urlsafe(Text), Text),
        ?assertEqual({error, invalid_base64}, ?TWIN:base64_decode(Text), Text)
    end).

%% On any OTP, whatever its base64 tolerates: what decodes is the one encoding of its data.
a_ncr_05_base64_is_strict_and_exact(_Config) ->
    check(3000, ?FORALL(Characters, list(oneof("AQgwZz09-_+/=")), begin
        Text = list_to_binary(Characters),
        case ?NIF:base64_decode_urlsafe(Text) of
            {ok, Data} -> ?NIF:base64_encode_urlsafe(Data) =:= Text;
            {error, invalid_base64} -> ?TWIN:base64_decode(Text) =:= {error, invalid_base64}
        end
    end)).

a_ncr_07_base58_vectors(_Config) ->
    each(~"base58", fun([Hex, Text]) ->
        Data = binary:decode_hex(Hex),
        ?assertEqual(Text, ?NIF:base58_encode(Data)),
        ?assertEqual({ok, Data}, ?NIF:base58_decode(Text))
    end),
    check(500, ?FORALL(Data, binary(), begin
        {ok, Data} =:= ?NIF:base58_decode(?NIF:base58_encode(Data))
    end)).

a_ncr_07_base58_invalid_characters(_Config) ->
    each(~"base58_invalid", fun([Text, Character]) ->
        ?assertEqual({error, {invalid_base58_char, Character}}, ?NIF:base58_decode(Text))
    end),
    Alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz",
    [
        ?assertEqual({error, {invalid_base58_char, C}}, ?NIF:base58_decode(<<"1z", C, "0">>))
     || C <- lists:seq(0, 255) -- Alphabet
    ].

t_49_base58_keeps_leading_zeros(_Config) ->
    ?assertEqual(~"112", ?NIF:base58_encode(<<0, 0, 1>>)),
    ?assertEqual(~"11", ?NIF:base58_encode(<<0, 0>>)),
    ?assertEqual(<<>>, ?NIF:base58_encode(<<>>)),
    ?assertEqual({ok, <<0, 0, 1>>}, ?NIF:base58_decode(~"112")),
    ?assertEqual({ok, <<>>}, ?NIF:base58_decode(<<>>)),
    Key = <<16#ed, 1, 1:256>>,
    ?assertEqual(~"6MkeTG3bFFSLYVU7VqhgZxqr6YzpaGrQtFMh1uvqGy1vDnQ", ?NIF:base58_encode(Key)).

base58_is_limited(_Config) ->
    Longest = binary:copy(<<255>>, 8192),
    Text = ?NIF:base58_encode(Longest),
    ?assertEqual(11_188, byte_size(Text)),
    ?assertEqual({ok, Longest}, ?NIF:base58_decode(Text)),
    ?assertEqual({error, too_large}, ?NIF:base58_decode(<<Text/binary, "0">>)),
    ?assertError(badarg, ?NIF:base58_encode(<<0, Longest/binary>>)),
    ?assertEqual({ok, <<0:8192/unit:8>>}, ?NIF:base58_decode(binary:copy(~"1", 8192))),
    ?assertEqual({error, too_large}, ?NIF:base58_decode(binary:copy(~"1", 8193))),
    %% As long as the longest, and greater.
    ?assertEqual({error, too_large}, ?NIF:base58_decode(binary:copy(~"z", 11_188))).

what_is_not_iodata_is_badarg(_Config) ->
    [
        ?assertError(badarg, Function(Data), {Function, Data})
     || Data <- [a, 1, <<1:7>>, [<<1:7>>], [256], [~"a" | b], #{}],
        Function <- [
            fun ?NIF:hash_sha256/1,
            fun ?NIF:hash_sha256_base64/1,
            fun ?NIF:base64_encode_urlsafe/1,
            fun ?NIF:base64_decode_urlsafe/1,
            fun ?NIF:base58_encode/1,
            fun ?NIF:base58_decode/1,
            fun(D) -> ?NIF:hmac_sha256(D, ~"data") end,
            fun(D) -> ?NIF:hmac_sha256(~"key", D) end,
            fun(D) -> ?NIF:sign_ed25519(D, <<0:256>>) end
        ]
    ].

%% Beyond what a normal scheduler takes.
long_input(_Config) ->
    Data = binary:copy(~"0123456789abcdef", 50_000),
    {Data, Signature, Public} = signed(Data, 1),
    {ok, Key} = ?NIF:verify_key(Public),
    ?assertEqual(Signature, ?NIF:sign_ed25519(Data, <<1:256>>)),
    ?assertEqual([true], lists:usort(all_answers(Data, Signature, Public))),
    ?assertNot(?NIF:verify_ed25519(flip(Data, 4_000_000), Signature, Key)),
    ?assertEqual(crypto:hash(sha256, Data), ?NIF:hash_sha256(Data)),
    ?assertEqual(crypto:mac(hmac, sha256, Data, Data), ?NIF:hmac_sha256(Data, Data)),
    ?assert(?NIF:secure_compare(Data, binary:copy(Data))),
    ?assertNot(?NIF:secure_compare(Data, flip(Data, 4_000_000))),
    Text = ?NIF:base64_encode_urlsafe(Data),
    ?assertEqual(?TWIN:base64_encode(Data), Text),
    ?assertEqual({ok, Data}, ?NIF:base64_decode_urlsafe(Text)),
    ?assertEqual({error, invalid_base64}, ?NIF:base64_decode_urlsafe([Text, "="])).

%% Helpers

iodata() ->
    oneof([binary(), list(oneof([binary(), byte()])), ?LET(N, integer(1000, 1100), binary(N))]).

%% True signatures of a few keys, and ones with a bit flipped.
item() ->
    ?LET(
        {Message, N, Bit},
        {binary(), integer(1, 4), integer(0, 1023)},
        broken(Bit, signed(Message, N))
    ).

signed(Message, N) ->
    {Public, Private} = crypto:generate_key(eddsa, ed25519, <<N:256>>),
    {Message, crypto:sign(eddsa, none, Message, [Private, ed25519]), Public}.

broken(Bit, {Message, Signature, Public}) when Bit rem 3 =:= 0 ->
    {Message, flip(Signature, Bit rem 512), Public};
broken(_, Item) ->
    Item.

flip(Data, Bit) ->
    <<Left:Bit/bitstring, Flipped:1, Right/bitstring>> = Data,
    <<Left/bitstring, (1 - Flipped):1, Right/bitstring>>.

row(#{~"message" := M, ~"signature" := S, ~"key" := K}) ->
    {binary:decode_hex(M), binary:decode_hex(S), binary:decode_hex(K)}.

check(Cases, Property) ->
    ?assert(proper:quickcheck(Property, [quiet, {numtests, Cases}, {to_file, user}])).

each(Name, Check) ->
    #{Name := [_ | _] = Rows} = vectors(),
    lists:foreach(Check, Rows).

vectors() -> esdb_hash_SUITE:vectors(~"crypto.json").
