-module(esdb_hash_erl).
-moduledoc false.
%% The twin of the library behind esdb_hash_nif: XXH3 and XXH64 after the xxHash specification
%% (github.com/Cyan4973/xxHash, doc/xxhash_spec.md), FNV-1a after RFC 9923.
%%
%% Integers of 60 bits and more live on the heap, so the loops over long data (XXH3, FNV-1a) keep a
%% 64-bit number as two halves of 32 bits, High and Low, and let a half grow a few bits between two
%% reductions. Where only a few numbers are at stake the code follows the specification's text.
%%
%% Arguments are checked by esdb_hash_nif; only a state is checked here, since it can come from
%% anywhere.

-export([fnv1a/1, xxhash64/2, xxhash3/2]).
-export([partition/2, partitions/2, stream_partition/3]).
-export([new/1, update/2, digest/1]).
-export_type([state/0]).

-compile({inline, [mask/1, rotl/2, fold/2]}).

%% Up to that many bytes it costs less to put a key together than to hash its pieces.
-define(SHORT_KEY, 4_096).

-type hash() :: 0..16#FFFFFFFFFFFFFFFF.
%% Two lanes of 64 bits, {High0, Low0, High1, Low1}; a half may exceed 32 bits until it is reduced.
-type pair() :: {integer(), integer(), integer(), integer()}.
%% The eight lanes.
-type lanes() :: [pair()].
%% The secret in words of 32 bits.
-type keys() :: [0..16#FFFFFFFF].
%% The bytes before Tail are in Lanes; Last are the last 64 of them. Tail is at most a block, and
%% empty only before the first byte: the end of the data is treated in another way, so some is
%% always kept back.
-record(xxh3, {
    seed :: hash(),
    length :: non_neg_integer(),
    lanes :: lanes(),
    last :: binary(),
    tail :: binary()
}).
-opaque state() :: #xxh3{}.

-define(M32, 16#FFFFFFFF).
-define(M64, 16#FFFFFFFFFFFFFFFF).

-define(P32_1, 16#9E3779B1).
-define(P32_2, 16#85EBCA77).
-define(P32_3, 16#C2B2AE3D).
-define(P64_1, 16#9E3779B185EBCA87).
-define(P64_2, 16#C2B2AE3D27D4EB4F).
-define(P64_3, 16#165667B19E3779F9).
-define(P64_4, 16#85EBCA77C2B2AE63).
-define(P64_5, 16#27D4EB2F165667C5).
-define(PRIME_MX1, 16#165667919E3779F9).
-define(PRIME_MX2, 16#9FB21C651E98DF25).

-define(STRIPE, 64).
%% Stripes in a block with a secret of 192 bytes: (192 - 64) / 8.
-define(BLOCK, 1024).

-define(SECRET, <<
    16#B8FE6C3923A44BBE7C01812CF721AD1CDED46DE9839097DB7240A4A4B7B3671F:256,
    16#CB79E64ECCC0E578825AD07DCCFF7221B8084674F743248EE03590E6813A264C:256,
    16#3C2852BB91C300CB88D0658B1B532EA371644897A20DF94E3819EF46A9DEACD8:256,
    16#A8FA763FE39C343FF9DCBBC7C70B4F1D8A51E04BCDB45931C89F7EC9D9787364:256,
    16#EAC5AC8334D3EBC3C581A0FFFA1363EB170DDD51B7F0DA49D316552629D4689E:256,
    16#2B16BE587D47A1FC8FF8B8D17AD031CE45CB3A8F95160428AFD7FBCABB4B407E:256
>>).

%% FNV-1a

-spec fnv1a(binary()) -> hash().
fnv1a(Data) -> fnv1a(Data, 16#CBF29CE4, 16#84222325).

%% The prime is 2^40 + 16#1B3.
-spec fnv1a(binary(), 0..?M32, 0..?M32) -> hash().
fnv1a(<<Byte, Rest/binary>>, High, Low) ->
    Xored = Low bxor Byte,
    Product = Xored * 16#1B3,
    Carried = High * 16#1B3 + (Product bsr 32) + (Xored bsl 8),
    fnv1a(Rest, Carried band ?M32, Product band ?M32);
fnv1a(<<>>, High, Low) ->
    (High bsl 32) bor Low.

%% XXH64

-spec xxhash64(binary(), hash()) -> hash().
xxhash64(Data, Seed) when byte_size(Data) < 32 ->
    xxh64_tail(Data, mask(Seed + ?P64_5 + byte_size(Data)));
xxhash64(Data, Seed) ->
    A = mask(Seed + ?P64_1 + ?P64_2),
    B = mask(Seed + ?P64_2),
    D = mask(Seed - ?P64_1),
    xxh64_stripes(Data, byte_size(Data), A, B, Seed, D).

-spec xxh64_stripes(binary(), non_neg_integer(), hash(), hash(), hash(), hash()) -> hash().
xxh64_stripes(
    <<W:64/little, X:64/little, Y:64/little, Z:64/little, Rest/binary>>, Length, A, B, C, D
) ->
    xxh64_stripes(
        Rest, Length, xxh64_round(A, W), xxh64_round(B, X), xxh64_round(C, Y), xxh64_round(D, Z)
    );
xxh64_stripes(Rest, Length, A, B, C, D) ->
    Sum = mask(rotl(A, 1) + rotl(B, 7) + rotl(C, 12) + rotl(D, 18)),
    Merged = lists:foldl(fun xxh64_merge/2, Sum, [A, B, C, D]),
    xxh64_tail(Rest, mask(Merged + Length)).

-spec xxh64_round(hash(), hash()) -> hash().
xxh64_round(Lane, Input) -> mask(rotl(mask(Lane + Input * ?P64_2), 31) * ?P64_1).

-spec xxh64_merge(hash(), hash()) -> hash().
xxh64_merge(Lane, Hash) -> mask((Hash bxor xxh64_round(0, Lane)) * ?P64_1 + ?P64_4).

-spec xxh64_tail(binary(), hash()) -> hash().
xxh64_tail(<<Input:64/little, Rest/binary>>, Hash) ->
    xxh64_tail(Rest, mask(rotl(Hash bxor xxh64_round(0, Input), 27) * ?P64_1 + ?P64_4));
xxh64_tail(<<Input:32/little, Rest/binary>>, Hash) ->
    xxh64_tail(Rest, mask(rotl(Hash bxor mask(Input * ?P64_1), 23) * ?P64_2 + ?P64_3));
xxh64_tail(<<Input, Rest/binary>>, Hash) ->
    xxh64_tail(Rest, mask(rotl(Hash bxor mask(Input * ?P64_5), 11) * ?P64_1));
xxh64_tail(<<>>, Hash) ->
    xxh64_avalanche(Hash).

-spec xxh64_avalanche(hash()) -> hash().
xxh64_avalanche(H0) ->
    H1 = mask((H0 bxor (H0 bsr 33)) * ?P64_2),
    H2 = mask((H1 bxor (H1 bsr 29)) * ?P64_3),
    H2 bxor (H2 bsr 32).

%% XXH3, by the length of the data

-spec xxhash3(binary(), hash()) -> hash().
xxhash3(Data, Seed) ->
    case byte_size(Data) of
        0 -> xxh3_empty(Seed);
        Length when Length =< 3 -> xxh3_1_3(Data, Length, Seed);
        Length when Length =< 8 -> xxh3_4_8(Data, Length, Seed);
        Length when Length =< 16 -> xxh3_9_16(Data, Length, Seed);
        Length when Length =< 128 -> xxh3_17_128(Data, Length, Seed);
        Length when Length =< 240 -> xxh3_129_240(Data, Length, Seed);
        Length -> xxh3_long(Data, Length, Seed)
    end.

-spec xxh3_empty(hash()) -> hash().
xxh3_empty(Seed) ->
    <<_:56/binary, A:64/little, B:64/little, _/binary>> = ?SECRET,
    xxh64_avalanche(Seed bxor A bxor B).

-spec xxh3_1_3(binary(), 1..3, hash()) -> hash().
xxh3_1_3(Data, Length, Seed) ->
    <<A:32/little, B:32/little, _/binary>> = ?SECRET,
    First = binary:first(Data),
    Middle = binary:at(Data, Length bsr 1),
    Last = binary:last(Data),
    Combined = (First bsl 16) bor (Middle bsl 24) bor Last bor (Length bsl 8),
    xxh64_avalanche(Combined bxor mask((A bxor B) + Seed)).

-spec xxh3_4_8(binary(), 4..8, hash()) -> hash().
xxh3_4_8(Data, Length, Seed) ->
    <<_:8/binary, A:64/little, B:64/little, _/binary>> = ?SECRET,
    <<First:32/little, _/binary>> = Data,
    <<Last:32/little>> = binary_part(Data, Length, -4),
    <<Swapped:32/little>> = <<Seed:32>>,
    Flip = mask((A bxor B) - (Seed bxor (Swapped bsl 32))),
    H0 = (Last + (First bsl 32)) bxor Flip,
    H1 = mask((H0 bxor rotl(H0, 49) bxor rotl(H0, 24)) * ?PRIME_MX2),
    H2 = mask((H1 bxor ((H1 bsr 35) + Length)) * ?PRIME_MX2),
    H2 bxor (H2 bsr 28).

-spec xxh3_9_16(binary(), 9..16, hash()) -> hash().
xxh3_9_16(Data, Length, Seed) ->
    <<_:24/binary, A:64/little, B:64/little, C:64/little, D:64/little, _/binary>> = ?SECRET,
    <<First:64/little, _/binary>> = Data,
    <<Last:64/little>> = binary_part(Data, Length, -8),
    Low = First bxor mask((A bxor B) + Seed),
    High = Last bxor mask((C bxor D) - Seed),
    <<Swapped:64/little>> = <<Low:64>>,
    xxh3_avalanche(mask(Length + Swapped + High + fold(Low, High))).

%% Pairs of 16 bytes from both ends towards the middle, as many as it takes to have seen each byte.
-spec xxh3_17_128(binary(), 17..128, hash()) -> hash().
xxh3_17_128(Data, Length, Seed) ->
    Pairs = (Length - 1) div 32,
    Mixed = [
        mix_at(Data, 16 * I, 32 * I, Seed) + mix_at(Data, Length - 16 * (I + 1), 32 * I + 16, Seed)
     || I <- lists:seq(0, Pairs)
    ],
    xxh3_avalanche(mask(Length * ?P64_1 + lists:sum(Mixed))).

-spec xxh3_129_240(binary(), 129..240, hash()) -> hash().
xxh3_129_240(Data, Length, Seed) ->
    <<Head:128/binary, Rest/binary>> = Data,
    <<_:3/binary, Shifted/binary>> = ?SECRET,
    <<_:119/binary, ForLast/binary>> = ?SECRET,
    Middle = xxh3_avalanche(mix_all(Head, ?SECRET, Seed, Length * ?P64_1)),
    Last = mix(binary_part(Data, Length, -16), ForLast, Seed),
    xxh3_avalanche(mix_all(Rest, Shifted, Seed, Middle + Last)).

-spec mix_at(binary(), non_neg_integer(), non_neg_integer(), hash()) -> hash().
mix_at(Data, At, SecretAt, Seed) ->
    mix(binary_part(Data, At, 16), binary_part(?SECRET, SecretAt, 16), Seed).

%% Adds up the whole pieces of 16 bytes.
-spec mix_all(binary(), binary(), hash(), non_neg_integer()) -> hash().
mix_all(<<Piece:16/binary, Data/binary>>, <<Key:16/binary, Secret/binary>>, Seed, Sum) ->
    mix_all(Data, Secret, Seed, Sum + mix(Piece, Key, Seed));
mix_all(_, _, _, Sum) ->
    mask(Sum).

-spec mix(binary(), binary(), hash()) -> hash().
mix(<<A:64/little, B:64/little>>, <<K:64/little, L:64/little, _/binary>>, Seed) ->
    fold(A bxor mask(K + Seed), B bxor mask(L - Seed)).

%% The halves of the product of 128 bits, xored.
-spec fold(hash(), hash()) -> hash().
fold(A, B) ->
    Product = A * B,
    mask(Product) bxor (Product bsr 64).

-spec xxh3_avalanche(hash()) -> hash().
xxh3_avalanche(H0) ->
    H1 = mask((H0 bxor (H0 bsr 37)) * ?PRIME_MX1),
    H1 bxor (H1 bsr 32).

%% XXH3 of more than 240 bytes

-spec xxh3_long(binary(), pos_integer(), hash()) -> hash().
xxh3_long(Data, Length, Seed) ->
    Secret = secret(Seed),
    {Lanes, Last, Tail} = consume(Data, Secret, first_lanes()),
    finish(Last, Tail, Length, Secret, Lanes).

%% Specification: INIT_ACC.
-spec first_lanes() -> lanes().
first_lanes() ->
    [halves(A, B) || {A, B} <- [
        {?P32_3, ?P64_1}, {?P64_2, ?P64_3}, {?P64_4, ?P32_2}, {?P64_5, ?P32_1}
    ]].

-spec halves(hash(), hash()) -> pair().
halves(A, B) -> {A bsr 32, A band ?M32, B bsr 32, B band ?M32}.

-spec secret(hash()) -> binary().
secret(0) ->
    ?SECRET;
secret(Seed) ->
    <<
        <<(K + Seed):64/little, (L - Seed):64/little>>
     || <<K:64/little, L:64/little>> <= ?SECRET
    >>.

-spec keys(binary(), non_neg_integer()) -> keys().
keys(Secret, At) ->
    <<_:At/binary, Rest/binary>> = Secret,
    [Word || <<Word:32/little>> <= Rest].

%% Takes the blocks that are followed by at least one byte; what is last in them and what follows.
-spec consume(binary(), binary(), lanes()) -> {lanes(), binary(), binary()}.
consume(Data, Secret, Lanes) ->
    Taken = (byte_size(Data) - 1) div ?BLOCK * ?BLOCK,
    <<Blocks:Taken/binary, Tail/binary>> = Data,
    Last = binary_part(Blocks, Taken, -min(Taken, ?STRIPE)),
    {blocks(Blocks, keys(Secret, 0), keys(Secret, 128), Lanes), Last, Tail}.

-spec blocks(binary(), keys(), keys(), lanes()) -> lanes().
blocks(<<Block:?BLOCK/binary, Rest/binary>>, Keys, EndKeys, Lanes) ->
    blocks(Rest, Keys, EndKeys, scramble(stripes(Block, Keys, Lanes), EndKeys));
blocks(<<>>, _, _, Lanes) ->
    Lanes.

%% Up to a block of whole stripes, one pair of lanes after the other: a pair takes 16 bytes of each
%% stripe.
-spec stripes(binary(), keys(), lanes()) -> lanes().
stripes(<<_:16/binary, Next/binary>> = Data, Keys, [{H0, L0, H1, L1} | Pairs]) ->
    [_, _, _, _ | NextKeys] = Keys,
    [stripe(Data, Keys, H0, L0, H1, L1) | stripes(Next, NextKeys, Pairs)];
stripes(_, _, Pairs) ->
    Pairs.

%% A lane gains the data of its neighbour and the product of the halves of (data xor secret). That
%% product of 64 bits is taken in two of 48. In the 17 stripes between two reductions a lower half
%% stays below 2^53 and a higher one below 2^38, so that all is done in small integers.
-spec stripe(binary(), keys(), integer(), integer(), integer(), integer()) -> pair().
stripe(
    <<A:32/little, B:32/little, C:32/little, D:32/little, Rest/binary>>,
    [K0, K1 | [K2, K3 | _] = Keys],
    H0,
    L0,
    H1,
    L1
) ->
    X0 = A bxor K0,
    Y0 = B bxor K1,
    P0 = X0 * (Y0 band 16#FFFF),
    Q0 = X0 * (Y0 bsr 16),
    X1 = C bxor K2,
    Y1 = D bxor K3,
    P1 = X1 * (Y1 band 16#FFFF),
    Q1 = X1 * (Y1 bsr 16),
    next_stripe(
        Rest,
        Keys,
        H0 + D + (Q0 bsr 16),
        L0 + C + P0 + ((Q0 band 16#FFFF) bsl 16),
        H1 + B + (Q1 bsr 16),
        L1 + A + P1 + ((Q1 band 16#FFFF) bsl 16)
    ).

%% The secret moves on by 8 bytes with each stripe.
-spec next_stripe(binary(), keys(), integer(), integer(), integer(), integer()) -> pair().
next_stripe(<<_:48/binary, Rest/binary>>, Keys, H0, L0, H1, L1) when byte_size(Rest) > 0 ->
    stripe(Rest, Keys, H0, L0, H1, L1);
next_stripe(_, _, H0, L0, H1, L1) ->
    {H0, L0, H1, L1}.

-spec scramble(lanes(), keys()) -> lanes().
scramble([{H0, L0, H1, L1} | Pairs], [K0, K1, K2, K3 | Keys]) ->
    {High0, Low0} = scramble(H0, L0, K1, K0),
    {High1, Low1} = scramble(H1, L1, K3, K2),
    [{High0, Low0, High1, Low1} | scramble(Pairs, Keys)];
scramble([], _) ->
    [].

%% lane = (lane xor (lane bsr 47) xor key) * P32_1, the prime in two parts of 16 bits.
-spec scramble(integer(), integer(), integer(), integer()) -> {integer(), integer()}.
scramble(High, Low, KeyHigh, KeyLow) ->
    Reduced = (High + (Low bsr 32)) band ?M32,
    X = Reduced bxor KeyHigh,
    Y = (Low band ?M32) bxor (Reduced bsr 15) bxor KeyLow,
    Upper = Y * (?P32_1 bsr 16),
    Sum = Y * (?P32_1 band 16#FFFF) + ((Upper band 16#FFFF) bsl 16),
    Product = X * (?P32_1 band 16#FFFF) + (((X * (?P32_1 bsr 16)) band 16#FFFF) bsl 16),
    {(Product + (Upper bsr 16) + (Sum bsr 32)) band ?M32, Sum band ?M32}.

%% The last stripe ends where the data ends, over bytes seen before if need be, with its own keys.
-spec finish(binary(), binary(), pos_integer(), binary(), lanes()) -> hash().
finish(Last, Tail, Length, Secret, Lanes0) ->
    Whole = (byte_size(Tail) - 1) div ?STRIPE * ?STRIPE,
    Lanes1 = stripes(binary_part(Tail, 0, Whole), keys(Secret, 0), Lanes0),
    End = <<Last/binary, Tail/binary>>,
    LastStripe = binary_part(End, byte_size(End), -?STRIPE),
    Lanes = stripes(LastStripe, keys(Secret, 121), Lanes1),
    <<_:11/binary, ForMerge/binary>> = Secret,
    merge(Lanes, ForMerge, Length * ?P64_1).

-spec merge(lanes(), binary(), non_neg_integer()) -> hash().
merge([{H0, L0, H1, L1} | Pairs], <<K:64/little, L:64/little, Secret/binary>>, Sum) ->
    A = mask((H0 bsl 32) + L0) bxor K,
    B = mask((H1 bsl 32) + L1) bxor L,
    merge(Pairs, Secret, Sum + fold(A, B));
merge([], _, Sum) ->
    xxh3_avalanche(mask(Sum)).

%% XXH3 of data in pieces

-spec new(hash()) -> state().
new(Seed) ->
    #xxh3{seed = Seed, length = 0, lanes = first_lanes(), last = <<>>, tail = <<>>}.

-spec update(state(), binary()) -> state().
update(#xxh3{length = Length, tail = Tail} = State, Data) when
    is_integer(State#xxh3.seed), is_integer(Length), is_binary(Tail)
->
    Next = State#xxh3{length = Length + byte_size(Data)},
    case <<Tail/binary, Data/binary>> of
        All when byte_size(All) =< ?BLOCK -> Next#xxh3{tail = All};
        All -> update_blocks(Next, All)
    end;
update(_, _) ->
    error(badarg).

%% What stays is copied: it would hold on to all of the data.
-spec update_blocks(state(), binary()) -> state().
update_blocks(#xxh3{seed = Seed, lanes = Lanes0} = State, Data) ->
    {Lanes, Last, Tail} = consume(Data, secret(Seed), Lanes0),
    State#xxh3{lanes = Lanes, last = binary:copy(Last), tail = binary:copy(Tail)}.

-spec digest(state()) -> hash().
digest(#xxh3{length = Length, seed = Seed, tail = Tail}) when
    is_integer(Length), Length =< 240, is_integer(Seed), is_binary(Tail)
->
    xxhash3(Tail, Seed);
digest(#xxh3{length = Length, seed = Seed, tail = Tail, last = Last, lanes = Lanes}) when
    is_integer(Length), is_integer(Seed), is_binary(Tail), is_binary(Last)
->
    finish(Last, Tail, Length, secret(Seed), Lanes);
digest(_) ->
    error(badarg).

%% Partitions

-spec partition(binary(), pos_integer()) -> non_neg_integer().
partition(Data, N) -> xxhash3(Data, 0) rem N.

-spec partitions([binary()], pos_integer()) -> [non_neg_integer()].
partitions(Items, N) -> [partition(Item, N) || Item <- Items].

-spec stream_partition(binary(), binary(), pos_integer()) -> non_neg_integer().
stream_partition(Store, Stream, N) when byte_size(Store) + byte_size(Stream) =< ?SHORT_KEY ->
    partition(<<Store/binary, 0, Stream/binary>>, N);
stream_partition(Store, Stream, N) ->
    Pieces = [Store, <<0>>, Stream],
    digest(lists:foldl(fun(Piece, State) -> update(State, Piece) end, new(0), Pieces)) rem N.

%% Arithmetic modulo 2^64

-spec mask(integer()) -> hash().
mask(Number) -> Number band ?M64.

-spec rotl(hash(), 1..63) -> hash().
rotl(Number, Bits) -> mask(Number bsl Bits) bor (Number bsr (64 - Bits)).
