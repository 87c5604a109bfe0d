-module(bench_hash).
-moduledoc "Hashes against what a BEAM user would call, `erlang:phash2`, and the Erlang twin.".

-export([run/0]).

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    esdb_bench:title("Hashes"),
    lists:foreach(fun xxhash3/1, [
        {"16 B", 16, 1 / 1.4}, {"64 B", 64, none}, {"1 KiB", 1024, 6.0}, {"64 KiB", 65_536, 10.0}
    ]),
    Names = [<<"stream-", (integer_to_binary(I))/binary>> || I <- lists:seq(1, 1000)],
    compare("partition of a name", none, #{
        ours => {"partition_hash", fun() -> esdb_hash_nif:partition_hash(~"orders-1001", 64) end},
        rival => {"erlang:phash2/2", fun() -> erlang:phash2(~"orders-1001", 64) end},
        same => fun differ/2
    }),
    compare("partitions of 1000 names", none, #{
        ours => {"batch", fun() -> esdb_hash_nif:partition_hash_batch(Names, 64) end},
        rival => {"phash2/2 of each", fun() -> [erlang:phash2(Name, 64) || Name <- Names] end},
        same => fun differ/2
    }),
    lists:foreach(fun twin/1, [
        {"XXH3, 1 KiB", fun esdb_hash_nif:xxhash3/1, fun(D) -> esdb_hash_erl:xxhash3(D, 0) end},
        {"XXH64, 1 KiB", fun esdb_hash_nif:xxhash64/1, fun(D) -> esdb_hash_erl:xxhash64(D, 0) end},
        {"FNV-1a, 1 KiB", fun esdb_hash_nif:fnv1a/1, fun esdb_hash_erl:fnv1a/1}
    ]),
    esdb_bench:note("A hash of 64 bits is a bignum for Erlang: 10 ns of each XXH3 call.", []).

-spec xxhash3({string(), pos_integer(), float() | none}) -> float().
xxhash3({Size, Bytes, Goal}) ->
    Data = rand:bytes(Bytes),
    compare("XXH3, " ++ Size, Goal, #{
        ours => {"xxhash3", fun() -> esdb_hash_nif:xxhash3(Data) end},
        rival => {"erlang:phash2", fun() -> erlang:phash2(Data) end},
        same => fun differ/2
    }).

-spec twin({string(), fun((binary()) -> term()), fun((binary()) -> term())}) -> float().
twin({What, Ours, Twin}) ->
    Data = rand:bytes(1024),
    compare(What ++ ", against the twin", none, #{
        ours => {"library", fun() -> Ours(Data) end}, rival => {"twin", fun() -> Twin(Data) end}
    }).

%% Two hashes of one thing: nothing to compare.
-spec differ(term(), term()) -> true.
differ(_, _) -> true.

-spec compare(string(), float() | none, esdb_bench:row()) -> float().
compare(What, none, Row) -> esdb_bench:compare(What, Row);
compare(What, Goal, Row) -> esdb_bench:compare(What, Row#{goal => Goal}).
