-module(esdb_hash_erl).
-moduledoc false.
-export([fnv1a/1]).
-spec fnv1a(binary()) -> 0..16#FFFFFFFFFFFFFFFF.
-spec fnv1a(binary(), non_neg_integer()) -> 0..16#FFFFFFFFFFFFFFFF.
fnv1a(Data) -> fnv1a(Data, 16#CBF29CE484222325).
fnv1a(<<Byte, Rest/binary>>, Hash) -> fnv1a(Rest, ((Hash bxor Byte) * 16#100000001B3) band 16#FFFFFFFFFFFFFFFF);
fnv1a(<<>>, Hash) -> Hash.
