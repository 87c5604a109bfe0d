-module(consumer).
-moduledoc "What a project that has an event store would call.".

-export([partition/1, pack/1, unpack/1]).

-spec partition(binary()) -> 0..15.
partition(Stream) -> esdb_hash_nif:partition_hash(Stream, 16).

-spec pack(binary()) -> binary().
pack(Data) ->
    {ok, Packed} = esdb_archive_nif:compress(Data, zstd),
    Packed.

-spec unpack(binary()) -> binary().
unpack(Packed) ->
    {ok, Data} = esdb_archive_nif:decompress(Packed, zstd),
    Data.
