-module(esdb_xxh64_erl).
-moduledoc false.
%% XXH64 with seed 0 of data that comes in pieces: the checksum of Zstandard frames that are decoded
%% in Erlang. The same as esdb_hash_erl:xxhash64/2 of the whole (doc/xxhash_spec.md of the xxHash
%% repository).

-export([new/0, update/2, checksum/1]).
-export_type([state/0]).

-define(P1, 16#9E3779B185EBCA87).
-define(P2, 16#C2B2AE3D27D4EB4F).
-define(P3, 16#165667B19E3779F9).
-define(P4, 16#85EBCA77C2B2AE63).
-define(P5, 16#27D4EB2F165667C5).
-define(MASK, 16#FFFFFFFFFFFFFFFF).

-opaque state() :: {
    Lanes :: {non_neg_integer(), non_neg_integer(), non_neg_integer(), non_neg_integer()},
    Length :: non_neg_integer(),
    Pending :: binary()
}.

-spec new() -> state().
new() ->
    {{(?P1 + ?P2) band ?MASK, ?P2, 0, -?P1 band ?MASK}, 0, <<>>}.

-spec update(binary(), state()) -> state().
update(Data, {Lanes, Length, <<>>}) ->
    stripes(Data, Lanes, Length + byte_size(Data));
update(Data, {Lanes, Length, Pending}) ->
    stripes(<<Pending/binary, Data/binary>>, Lanes, Length + byte_size(Data)).

-spec stripes(binary(), tuple(), non_neg_integer()) -> state().
stripes(
    <<W:64/little, X:64/little, Y:64/little, Z:64/little, Rest/binary>>, {A, B, C, D}, Length
) ->
    stripes(Rest, {mix(A, W), mix(B, X), mix(C, Y), mix(D, Z)}, Length);
stripes(Rest, Lanes, Length) ->
    {Lanes, Length, binary:copy(Rest)}.

%% The low 32 bits of the hash.
-spec checksum(state()) -> 0..16#FFFFFFFF.
checksum({_, Length, Pending}) when Length < 32 ->
    tail(Pending, (?P5 + Length) band ?MASK);
checksum({{A, B, C, D}, Length, Pending}) ->
    Sum = rotate(A, 1) + rotate(B, 7) + rotate(C, 12) + rotate(D, 18),
    Merged = lists:foldl(fun merge/2, Sum band ?MASK, [A, B, C, D]),
    tail(Pending, (Merged + Length) band ?MASK).

-spec mix(non_neg_integer(), non_neg_integer()) -> non_neg_integer().
mix(Lane, Input) -> rotate((Lane + Input * ?P2) band ?MASK, 31) * ?P1 band ?MASK.

-spec merge(non_neg_integer(), non_neg_integer()) -> non_neg_integer().
merge(Lane, Hash) -> ((Hash bxor mix(0, Lane)) * ?P1 + ?P4) band ?MASK.

-spec tail(binary(), non_neg_integer()) -> 0..16#FFFFFFFF.
tail(<<Input:64/little, Rest/binary>>, Hash) ->
    tail(Rest, (rotate(Hash bxor mix(0, Input), 27) * ?P1 + ?P4) band ?MASK);
tail(<<Input:32/little, Rest/binary>>, Hash) ->
    tail(Rest, (rotate(Hash bxor (Input * ?P1 band ?MASK), 23) * ?P2 + ?P3) band ?MASK);
tail(<<Input, Rest/binary>>, Hash) ->
    tail(Rest, rotate(Hash bxor (Input * ?P5 band ?MASK), 11) * ?P1 band ?MASK);
tail(<<>>, Hash0) ->
    Hash1 = (Hash0 bxor (Hash0 bsr 33)) * ?P2 band ?MASK,
    Hash2 = (Hash1 bxor (Hash1 bsr 29)) * ?P3 band ?MASK,
    (Hash2 bxor (Hash2 bsr 32)) band 16#FFFFFFFF.

-spec rotate(non_neg_integer(), 1..31) -> non_neg_integer().
rotate(Number, Count) -> (Number bsl Count bor (Number bsr (64 - Count))) band ?MASK.
