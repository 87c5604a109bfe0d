-module(esdb_hash_nif).
-moduledoc """
Hashes for routing, sharding and checking: XXH3, XXH64 and FNV-1a, 64 bits each.

They are fast and stable, not cryptographic: whoever can choose the data can choose the hash. Values
are those of the specifications, the same in both implementations and in every release, so they may
be stored and routed on. Data is a binary or iodata; anything else, also inside a list, is `badarg`.

```erlang
1> esdb_hash_nif:xxhash3(~"orders-1001").
1892544978455878569
2> esdb_hash_nif:partition_hash(~"orders-1001", 16).
9
3> esdb_hash_nif:stream_partition(~"shop", ~"orders-1001", 16).
8
4> State = esdb_hash_nif:update(esdb_hash_nif:new(), ~"orders-"),
   esdb_hash_nif:digest(esdb_hash_nif:update(State, ~"1001")).
1892544978455878569
```

A call on more data than a scheduler may be kept busy with runs on a dirty scheduler.
""".

%% Hashes
-export([xxhash3/1, xxhash3/2, xxhash64/1, xxhash64/2, fnv1a/1]).
%% Hashes of data in pieces
-export([new/0, new/1, update/2, digest/1]).
%% Partitions
-export([partition_hash/2, partition_hash_batch/2, stream_partition/3, fast_phash/2]).
-export_type([hash/0, state/0]).

-nifs([
    fnv1a_n/1,
    fnv1a_d/1,
    xxhash64_n/2,
    xxhash64_d/2,
    xxhash3_n/1,
    xxhash3_d/1,
    xxhash3_n/2,
    xxhash3_d/2,
    partition_n/2,
    partition_d/2,
    partitions_n/2,
    partitions_d/2,
    stream_partition_n/3,
    stream_partition_d/3,
    new_n/1,
    update_n/2,
    update_d/2,
    digest_n/1
]).

-type hash() :: 0..16#FFFFFFFFFFFFFFFF.
%% Opaque, and of one implementation: a reference to native memory or an Erlang term.
-opaque state() :: reference() | esdb_hash_erl:state().

%% Bytes that a normal scheduler takes: 0.1 to 0.3 ms each, measured.
-define(SHORT, 2_097_152).
-define(SHORT_FNV1A, 262_144).
%% What one item of a list costs, in bytes hashed in the same time.
-define(ITEM, 256).

-define(IS_SEED(Seed), (is_integer(Seed) andalso Seed >= 0 andalso Seed =< 16#FFFFFFFFFFFFFFFF)).
-define(IS_COUNT(N), (is_integer(N) andalso N >= 1 andalso N =< 16#FFFFFFFF)).

-include("esdb_nif.hrl").

%% Hashes

-doc "XXH3, 64 bits, with the default secret and seed 0.".
-spec xxhash3(Data :: iodata()) -> hash().
xxhash3(Data) when is_binary(Data), byte_size(Data) =< ?SHORT -> xxhash3_n(Data);
xxhash3(Data) when is_binary(Data) -> xxhash3_d(Data);
xxhash3(Data) -> xxhash3(flat(Data)).

-doc "XXH3, 64 bits, with the secret derived from `Seed`; a seed outside of 0..2^64-1 is `badarg`.".
-spec xxhash3(Data :: iodata(), Seed :: hash()) -> hash().
xxhash3(Data, Seed) when is_binary(Data), byte_size(Data) =< ?SHORT, ?IS_SEED(Seed) ->
    xxhash3_n(Data, Seed);
xxhash3(Data, Seed) when is_binary(Data), ?IS_SEED(Seed) ->
    xxhash3_d(Data, Seed);
xxhash3(Data, Seed) when is_list(Data), ?IS_SEED(Seed) ->
    xxhash3(flat(Data), Seed);
xxhash3(_, _) ->
    error(badarg).

-doc "XXH64 with seed 0.".
-spec xxhash64(Data :: iodata()) -> hash().
xxhash64(Data) -> xxhash64(Data, 0).

-doc "XXH64 with `Seed`; a seed outside of 0..2^64-1 is `badarg`.".
-spec xxhash64(Data :: iodata(), Seed :: hash()) -> hash().
xxhash64(Data, Seed) when is_binary(Data), byte_size(Data) =< ?SHORT, ?IS_SEED(Seed) ->
    xxhash64_n(Data, Seed);
xxhash64(Data, Seed) when is_binary(Data), ?IS_SEED(Seed) ->
    xxhash64_d(Data, Seed);
xxhash64(Data, Seed) when is_list(Data), ?IS_SEED(Seed) ->
    xxhash64(flat(Data), Seed);
xxhash64(_, _) ->
    error(badarg).

-doc "FNV-1a, 64 bits (RFC 9923). It goes byte by byte: `xxhash3/1` is faster from a few bytes on.".
-spec fnv1a(Data :: iodata()) -> hash().
fnv1a(Data) when is_binary(Data), byte_size(Data) =< ?SHORT_FNV1A -> fnv1a_n(Data);
fnv1a(Data) when is_binary(Data) -> fnv1a_d(Data);
fnv1a(Data) -> fnv1a(flat(Data)).

%% Hashes of data in pieces

-doc #{equiv => new(0)}.
-spec new() -> state().
new() -> new(0).

-doc """
The state of an XXH3 hash with `Seed` before the first byte.

`digest(update(update(new(Seed), A), B))` is `xxhash3([A, B], Seed)`. A state is a value: `update/2`
returns another one, and the old one stays as it was. It lives in memory, for one node and one
implementation: a state made with the library is `badarg` where there is none, and the other way
round.
""".
-spec new(Seed :: hash()) -> state().
new(Seed) when ?IS_SEED(Seed) -> new_n(Seed);
new(_) -> error(badarg).

-doc "The state after `Data` more.".
-spec update(State :: state(), Data :: iodata()) -> state().
update(State, Data) when is_binary(Data), byte_size(Data) =< ?SHORT -> update_n(State, Data);
update(State, Data) when is_binary(Data) -> update_d(State, Data);
update(State, Data) -> update(State, flat(Data)).

-doc "The hash of all data so far; the state can go on after it.".
-spec digest(State :: state()) -> hash().
digest(State) -> digest_n(State).

%% Partitions

-doc """
The partition of `Data` among `N`, from 0 to `N - 1`: `xxhash3(Data) rem N`.

`N` outside of 1..2^32-1 is `badarg`.
""".
-spec partition_hash(Data :: iodata(), N :: pos_integer()) -> non_neg_integer().
partition_hash(Data, N) when is_binary(Data), byte_size(Data) =< ?SHORT, ?IS_COUNT(N) ->
    partition_n(Data, N);
partition_hash(Data, N) when is_binary(Data), ?IS_COUNT(N) ->
    partition_d(Data, N);
partition_hash(Data, N) when is_list(Data), ?IS_COUNT(N) ->
    partition_hash(flat(Data), N);
partition_hash(_, _) ->
    error(badarg).

-doc "`partition_hash/2` of each item, in their order. An improper list is `badarg`.".
-spec partition_hash_batch(Items :: [iodata()], N :: pos_integer()) -> [non_neg_integer()].
partition_hash_batch(Items, N) when is_list(Items), ?IS_COUNT(N) ->
    case weight(Items, 0) of
        in_lists -> partition_hash_batch(flat_each(Items), N);
        Weight when Weight =< ?SHORT -> partitions_n(Items, N);
        _ -> partitions_d(Items, N)
    end;
partition_hash_batch(_, _) ->
    error(badarg).

-doc """
The partition of a stream of a store among `N`: XXH3 of `Store`, a zero byte and `Stream`, `rem N`.

Both names are binaries; `N` outside of 1..2^32-1 is `badarg`.
""".
-spec stream_partition(Store :: binary(), Stream :: binary(), N :: pos_integer()) ->
    non_neg_integer().
stream_partition(Store, Stream, N) when is_binary(Store), is_binary(Stream), ?IS_COUNT(N) ->
    case byte_size(Store) + byte_size(Stream) of
        Size when Size =< ?SHORT -> stream_partition_n(Store, Stream, N);
        _ -> stream_partition_d(Store, Stream, N)
    end;
stream_partition(_, _, _) ->
    error(badarg).

-doc """
A replacement for `erlang:phash2/2` on binary data: `xxhash3(Data) rem Range`.

The values are XXH3's, not those of `phash2`. `Range` outside of 1..2^32-1 is `badarg`.
""".
-spec fast_phash(Data :: iodata(), Range :: pos_integer()) -> non_neg_integer().
fast_phash(Data, Range) -> partition_hash(Data, Range).

%% Arguments

-spec flat(iodata() | term()) -> binary().
flat(Data) when is_list(Data) -> iolist_to_binary(Data);
flat(_) -> error(badarg).

-spec flat_each([iodata()] | term()) -> [binary()].
flat_each([Item | Items]) -> [iolist_to_binary(Item) | flat_each(Items)];
flat_each([]) -> [];
flat_each(_) -> error(badarg).

%% How much work a list of binaries is, in bytes; `in_lists` when items are to be flattened first.
-spec weight([iodata()] | term(), non_neg_integer()) -> non_neg_integer() | in_lists.
weight([Item | Items], Sum) when is_binary(Item) -> weight(Items, Sum + byte_size(Item) + ?ITEM);
weight([Item | _], _) when is_list(Item) -> in_lists;
weight([], Sum) -> Sum;
weight(_, _) -> error(badarg).

%% Replaced when the library is loaded: _n on the caller's scheduler, _d on a dirty one

-spec fnv1a_n(binary()) -> hash().
fnv1a_n(Data) -> esdb_hash_erl:fnv1a(Data).

-spec fnv1a_d(binary()) -> hash().
fnv1a_d(Data) -> esdb_hash_erl:fnv1a(Data).

-spec xxhash64_n(binary(), hash()) -> hash().
xxhash64_n(Data, Seed) -> esdb_hash_erl:xxhash64(Data, Seed).

-spec xxhash64_d(binary(), hash()) -> hash().
xxhash64_d(Data, Seed) -> esdb_hash_erl:xxhash64(Data, Seed).

-spec xxhash3_n(binary()) -> hash().
xxhash3_n(Data) -> esdb_hash_erl:xxhash3(Data, 0).

-spec xxhash3_d(binary()) -> hash().
xxhash3_d(Data) -> esdb_hash_erl:xxhash3(Data, 0).

-spec xxhash3_n(binary(), hash()) -> hash().
xxhash3_n(Data, Seed) -> esdb_hash_erl:xxhash3(Data, Seed).

-spec xxhash3_d(binary(), hash()) -> hash().
xxhash3_d(Data, Seed) -> esdb_hash_erl:xxhash3(Data, Seed).

-spec partition_n(binary(), pos_integer()) -> non_neg_integer().
partition_n(Data, N) -> esdb_hash_erl:partition(Data, N).

-spec partition_d(binary(), pos_integer()) -> non_neg_integer().
partition_d(Data, N) -> esdb_hash_erl:partition(Data, N).

-spec partitions_n([binary()], pos_integer()) -> [non_neg_integer()].
partitions_n(Items, N) -> esdb_hash_erl:partitions(Items, N).

-spec partitions_d([binary()], pos_integer()) -> [non_neg_integer()].
partitions_d(Items, N) -> esdb_hash_erl:partitions(Items, N).

-spec stream_partition_n(binary(), binary(), pos_integer()) -> non_neg_integer().
stream_partition_n(Store, Stream, N) -> esdb_hash_erl:stream_partition(Store, Stream, N).

-spec stream_partition_d(binary(), binary(), pos_integer()) -> non_neg_integer().
stream_partition_d(Store, Stream, N) -> esdb_hash_erl:stream_partition(Store, Stream, N).

-spec new_n(hash()) -> state().
new_n(Seed) -> esdb_hash_erl:new(Seed).

-spec update_n(state(), binary()) -> state().
update_n(State, Data) -> esdb_hash_erl:update(State, Data).

-spec update_d(state(), binary()) -> state().
update_d(State, Data) -> esdb_hash_erl:update(State, Data).

-spec digest_n(state()) -> hash().
digest_n(State) -> esdb_hash_erl:digest(State).
