-module(esdb_crypto_gen).
-moduledoc "Arguments for the functions of `esdb_crypto_nif`; see `esdb_equivalence_SUITE`.".

-export([args/2, cost/2, observe/3]).
-export([handle/1]).

-include_lib("proper/include/proper.hrl").

-define(TWIN, esdb_crypto_erl).

args(verify_ed25519, 3) -> ?LET({M, S, K}, signed(), [M, S, K]);
args(verify_ed25519_batch, 1) -> [batch()];
args(verify_key, 1) -> [encoded_key()];
args(sign_ed25519, 2) -> [data(), frequency([{6, binary(32)}, {1, binary()}, {1, hostile()}])];
args(hmac_sha256, 2) -> [data(), data()];
args(secure_compare, 2) -> pair();
args(base64_decode_urlsafe, 1) -> [base64()];
args(base58_decode, 1) -> [base58()];
args(_Function, 1) -> [data()].

cost(verify_ed25519, 3) -> costly;
cost(verify_ed25519_batch, 1) -> costly;
cost(verify_key, 1) -> costly;
cost(sign_ed25519, 2) -> costly;
cost(_, _) -> cheap.

%% A handle is its key and what it answers.
observe(verify_key, [_], {ok, Key}) ->
    {ok, element(2, Key), [verify(Key, Case) || Case <- lists:sublist(edge_cases(), 5)]};
observe(_, _, Result) ->
    Result.

verify(Key, {Message, Signature, _}) -> esdb_crypto_nif:verify_ed25519(Message, Signature, Key).

%% Data

data() ->
    frequency([
        {8, binary()},
        {2, ?LET(Size, integer(0, 200), binary(Size))},
        {1, ?LET({Size, Byte}, {integer(1000, 1100), byte()}, binary:copy(<<Byte>>, Size))},
        {2, list(frequency([{3, binary()}, {1, byte()}]))},
        {1, hostile()}
    ]).

hostile() ->
    oneof([
        atom(),
        integer(),
        <<1:7>>,
        [<<1:3>>],
        [256],
        [-1],
        [~"a" | b],
        [~"a" | ~"tail"],
        #{},
        {},
        1.5
    ]).

pair() ->
    frequency([
        {3, ?LET(Data, binary(), [Data, Data])},
        {3, ?LET(Data, non_empty(binary()), [Data, flip(Data, 3)])},
        {2, [binary(), binary()]},
        {1, [hostile(), binary()]},
        {1, [binary(), hostile()]}
    ]).

%% Texts

base64() ->
    frequency([
        {6, ?LET(Data, binary(), ?TWIN:base64_encode(Data))},
        {4, ?LET({Data, At}, {non_empty(binary()), nat()}, flip(?TWIN:base64_encode(Data), At))},
        {2, ?LET(Data, binary(), base64:encode(Data))},
        {2, ?LET({Data, At}, {binary(), nat()}, inserted(?TWIN:base64_encode(Data), At, ~" "))},
        {2, ?LET(Text, list(oneof("AQgwZz09-_+/= \n")), list_to_binary(Text))},
        {1, data()}
    ]).

base58() ->
    frequency([
        {6, ?LET({Z, D}, {integer(0, 4), binary()}, ?TWIN:base58_encode(<<0:Z/unit:8, D/binary>>))},
        {3, ?LET({Data, At}, {non_empty(binary()), nat()}, flip(?TWIN:base58_encode(Data), At))},
        {2, ?LET(Text, list(oneof("119AHJNPZakmz0OIl")), list_to_binary(Text))},
        {1, ?LET(Size, integer(11_180, 11_195), binary:copy(~"1", Size))},
        {1, data()}
    ]).

inserted(Text, At, Piece) ->
    {Left, Right} = split_binary(Text, At rem (byte_size(Text) + 1)),
    <<Left/binary, Piece/binary, Right/binary>>.

flip(<<>>, _) ->
    <<>>;
flip(Data, Bit) ->
    At = Bit rem bit_size(Data),
    <<Left:At/bitstring, Flipped:1, Right/bitstring>> = Data,
    <<Left/bitstring, (1 - Flipped):1, Right/bitstring>>.

%% Signatures

%% True ones, true ones with a bit flipped somewhere, the edge cases of the vectors, and nonsense.
signed() ->
    frequency([
        {4, ?LET({M, N, K}, {data(), integer(1, 8), boolean()}, truly_signed(M, N, K))},
        {3, ?LET({{M, S, K}, At}, {truly_signed(), integer(0, 511)}, {M, flip(S, At), K})},
        {2, ?LET({{M, S, _}, At}, {truly_signed(), integer(0, 255)}, {M, S, flip(public(1), At)})},
        {1, ?LET({M, S, K}, truly_signed(), {<<M/binary, 0>>, S, K})},
        {4, ?LET({{M, S, K}, Handle}, {oneof(edge_cases()), boolean()}, {M, S, as_key(K, Handle)})},
        {1, {data(), binary(64), binary(32)}},
        {1, {data(), oneof([binary(), hostile()]), oneof([binary(), hostile()])}},
        {1, ?LET({{M, S, _}, Key}, {truly_signed(), forged()}, {M, S, Key})}
    ]).

truly_signed() -> ?LET({M, N}, {binary(), integer(1, 8)}, truly_signed(M, N, false)).

truly_signed(Message, N, Handle) ->
    Signature =
        try
            crypto:sign(eddsa, none, iolist_to_binary(Message), [<<N:256>>, ed25519])
        catch
            error:_ -> <<0:512>>
        end,
    {Message, Signature, as_key(public(N), Handle)}.

as_key(Key, false) -> Key;
as_key(Key, true) -> {'$make', ?MODULE, handle, [Key]}.

-doc "The handle of a key, or where it is none a handle that someone forged.".
handle(Key) ->
    case esdb_crypto_nif:verify_key(Key) of
        {ok, Handle} -> Handle;
        {error, invalid_key} -> {esdb_ed25519_key, Key, none}
    end.

%% Handles that no verify_key/1 gave: without a reference, with a foreign one, with other bytes.
forged() ->
    oneof([
        {esdb_ed25519_key, public(1), none},
        {esdb_ed25519_key, public(2), make_ref()},
        {esdb_ed25519_key, public(1), ~"reference"},
        {esdb_ed25519_key, ~"short", none},
        {esdb_ed25519_key, none, none},
        {other_key, public(1), none},
        {esdb_ed25519_key, public(1)}
    ]).

public(N) ->
    {Public, _} = crypto:generate_key(eddsa, ed25519, <<N:256>>),
    Public.

encoded_key() ->
    frequency([
        {4, binary(32)},
        {3, ?LET(N, integer(1, 99), public(N))},
        {3, oneof([Key || {_, _, Key} <- edge_cases()])},
        {1, binary()},
        {1, hostile()}
    ]).

batch() ->
    frequency([
        {8, ?SIZED(Size, resize(min(Size, 8), list(frequency([{8, signed()}, {1, hostile()}]))))},
        {1, ?LET(Item, signed(), [Item, Item, Item, Item])},
        {1, ?LET({Items, Tail}, {list(signed()), hostile()}, Items ++ Tail)},
        {1, hostile()}
    ]).

%% Read once a process: PropEr asks for the types again and again.
edge_cases() ->
    case get(?MODULE) of
        undefined ->
            Cases = read_edge_cases(),
            put(?MODULE, Cases),
            Cases;
        Cases ->
            Cases
    end.

read_edge_cases() ->
    #{~"ed25519_edge" := Rows} = esdb_crypto_SUITE:vectors(),
    [
        {binary:decode_hex(M), binary:decode_hex(S), binary:decode_hex(K)}
     || #{~"message" := M, ~"signature" := S, ~"key" := K} <- Rows
    ].
