-module(esdb_hash_SUITE).
-moduledoc "Rows A/NHA, on whichever implementation is loaded, and the Erlang twin besides it.".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_nha_01_fnv1a_vectors,
        a_nha_02_xxhash64_vectors,
        a_nha_03_xxhash3_vectors,
        a_nha_04_partition_hash,
        a_nha_05_no_partitions,
        a_nha_06_stream_partition,
        a_nha_07_batch_equals_single,
        a_nha_08_fast_phash,
        t_56_twin_has_the_same_vectors,
        seed_is_checked,
        iodata_is_hashed_as_a_binary,
        what_is_not_iodata_is_badarg,
        streaming_equals_one_shot,
        old_states_stay_valid,
        foreign_states_are_badarg,
        long_input_is_hashed_alike,
        long_batches
    ].

a_nha_01_fnv1a_vectors(_Config) ->
    ?assertEqual(14695981039346656037, esdb_hash_nif:fnv1a(<<>>)),
    ?assertEqual(12638187200555641996, esdb_hash_nif:fnv1a(~"a")),
    ?assertEqual(9625390261332436968, esdb_hash_nif:fnv1a(~"foobar")),
    each(~"fnv1a", fun([Hex, Hash]) ->
        ?assertEqual(Hash, esdb_hash_nif:fnv1a(binary:decode_hex(Hex))),
        ?assertEqual(Hash, esdb_hash_erl:fnv1a(binary:decode_hex(Hex)))
    end).

a_nha_02_xxhash64_vectors(_Config) ->
    ?assertEqual(17241709254077376921, esdb_hash_nif:xxhash64(<<>>)),
    ?assertNotEqual(esdb_hash_nif:xxhash64(~"a", 1), esdb_hash_nif:xxhash64(~"a", 2)),
    #{~"published" := #{~"xxh64" := Published}} = vectors(),
    [?assertEqual(Hash, esdb_hash_nif:xxhash64(data(Size))) || [Size, Hash] <- Published],
    each(~"xxhash", fun([Size, Seed, Hash, _]) ->
        ?assertEqual(Hash, esdb_hash_nif:xxhash64(data(Size), Seed), {Size, Seed})
    end).

a_nha_03_xxhash3_vectors(_Config) ->
    ?assertEqual(3244421341483603138, esdb_hash_nif:xxhash3(<<>>)),
    #{~"published" := #{~"xxh3" := Published}} = vectors(),
    [?assertEqual(Hash, esdb_hash_nif:xxhash3(data(Size))) || [Size, Hash] <- Published],
    each(~"xxhash", fun([Size, Seed, _, Hash]) ->
        ?assertEqual(Hash, esdb_hash_nif:xxhash3(data(Size), Seed), {Size, Seed}),
        ?assertEqual(Seed =:= 0, esdb_hash_nif:xxhash3(data(Size)) =:= Hash, {Size, Seed})
    end).

a_nha_04_partition_hash(_Config) ->
    each(~"partitions", fun([Hex, N, Partition]) ->
        ?assertEqual(Partition, esdb_hash_nif:partition_hash(binary:decode_hex(Hex), N))
    end),
    check(?FORALL({Data, N}, {binary(), integer(1, 16#FFFFFFFF)}, begin
        Partition = esdb_hash_nif:partition_hash(Data, N),
        Partition =:= esdb_hash_nif:xxhash3(Data) rem N andalso Partition < N
    end)),
    Counts = count([esdb_hash_nif:partition_hash(key(I), 8) || I <- lists:seq(1, 1000)]),
    ?assertEqual(lists:seq(0, 7), lists:sort(maps:keys(Counts))),
    ?assertEqual([], [Partition || Partition := Count <- Counts, Count =< 50]).

a_nha_05_no_partitions(_Config) ->
    [
        begin
            ?assertError(badarg, esdb_hash_nif:partition_hash(~"a", N)),
            ?assertError(badarg, esdb_hash_nif:partition_hash_batch([~"a"], N)),
            ?assertError(badarg, esdb_hash_nif:partition_hash_batch([], N)),
            ?assertError(badarg, esdb_hash_nif:stream_partition(~"a", ~"b", N)),
            ?assertError(badarg, esdb_hash_nif:fast_phash(~"a", N))
        end
     || N <- [0, -1, 16#100000000, 1 bsl 64, 8.0, eight]
    ].

a_nha_06_stream_partition(_Config) ->
    each(~"streams", fun([Store, Stream, N, Partition]) ->
        ?assertEqual(
            Partition,
            esdb_hash_nif:stream_partition(binary:decode_hex(Store), binary:decode_hex(Stream), N)
        )
    end),
    check(?FORALL({Store, Stream, N}, {binary(), binary(), integer(1, 16#FFFFFFFF)}, begin
        Whole = <<Store/binary, 0, Stream/binary>>,
        esdb_hash_nif:stream_partition(Store, Stream, N) =:= esdb_hash_nif:partition_hash(Whole, N)
    end)),
    Streams = [esdb_hash_nif:stream_partition(~"shop", key(I), 16) || I <- lists:seq(1, 100)],
    Stores = [esdb_hash_nif:stream_partition(key(I), ~"orders", 16) || I <- lists:seq(1, 100)],
    ?assert(map_size(count(Streams)) > 8),
    ?assert(map_size(count(Stores)) > 8),
    ?assertError(badarg, esdb_hash_nif:stream_partition(shop, ~"orders", 16)),
    ?assertError(badarg, esdb_hash_nif:stream_partition(~"shop", "orders", 16)).

a_nha_07_batch_equals_single(_Config) ->
    check(?FORALL({Items, N}, {list(oneof([binary(), list(byte())])), integer(1, 1000)}, begin
        Single = [esdb_hash_nif:partition_hash(Item, N) || Item <- Items],
        esdb_hash_nif:partition_hash_batch(Items, N) =:= Single
    end)),
    ?assertError(badarg, esdb_hash_nif:partition_hash_batch([~"a" | ~"b"], 8)),
    ?assertError(badarg, esdb_hash_nif:partition_hash_batch([["a"] | ~"b"], 8)),
    ?assertError(badarg, esdb_hash_nif:partition_hash_batch([~"a", b], 8)),
    ?assertError(badarg, esdb_hash_nif:partition_hash_batch(~"a", 8)).

a_nha_08_fast_phash(_Config) ->
    check(?FORALL({Data, Range}, {binary(), integer(1, 16#FFFFFFFF)}, begin
        esdb_hash_nif:fast_phash(Data, Range) =:= esdb_hash_nif:xxhash3(Data) rem Range
    end)).

t_56_twin_has_the_same_vectors(_Config) ->
    each(~"xxhash", fun([Size, Seed, Hash64, Hash3]) ->
        ?assertEqual({Hash64, Hash3}, {
            esdb_hash_erl:xxhash64(data(Size), Seed), esdb_hash_erl:xxhash3(data(Size), Seed)
        })
    end).

seed_is_checked(_Config) ->
    [
        begin
            ?assertError(badarg, esdb_hash_nif:xxhash64(~"a", Seed)),
            ?assertError(badarg, esdb_hash_nif:xxhash3(~"a", Seed)),
            ?assertError(badarg, esdb_hash_nif:new(Seed))
        end
     || Seed <- [-1, 1 bsl 64, 1.0, seed]
    ].

iodata_is_hashed_as_a_binary(_Config) ->
    check(?FORALL(Pieces, list(oneof([binary(), byte(), list(byte())])), begin
        Whole = iolist_to_binary(Pieces),
        lists:all(fun(Hash) -> Hash(Pieces) =:= Hash(Whole) end, [
            fun esdb_hash_nif:xxhash3/1,
            fun esdb_hash_nif:xxhash64/1,
            fun esdb_hash_nif:fnv1a/1,
            fun(Data) -> esdb_hash_nif:xxhash3(Data, 7) end,
            fun(Data) -> esdb_hash_nif:partition_hash(Data, 1000) end
        ])
    end)).

what_is_not_iodata_is_badarg(_Config) ->
    [
        begin
            ?assertError(badarg, esdb_hash_nif:xxhash3(Data)),
            ?assertError(badarg, esdb_hash_nif:xxhash3(Data, 1)),
            ?assertError(badarg, esdb_hash_nif:xxhash64(Data)),
            ?assertError(badarg, esdb_hash_nif:fnv1a(Data)),
            ?assertError(badarg, esdb_hash_nif:partition_hash(Data, 8)),
            ?assertError(badarg, esdb_hash_nif:update(esdb_hash_nif:new(), Data))
        end
     || Data <- [a, 1, <<1:7>>, [<<1:7>>], [256], [~"a" | b], #{}]
    ].

streaming_equals_one_shot(_Config) ->
    check(?FORALL({Seed, Pieces}, {integer(0, 99), list(piece())}, begin
        Update = fun(Piece, State) -> esdb_hash_nif:update(State, Piece) end,
        Last = lists:foldl(Update, esdb_hash_nif:new(Seed), Pieces),
        esdb_hash_nif:digest(Last) =:= esdb_hash_nif:xxhash3(Pieces, Seed)
    end)),
    ?assertEqual(esdb_hash_nif:xxhash3(<<>>), esdb_hash_nif:digest(esdb_hash_nif:new())).

%% Each state goes on to answer for what it had seen, however often it is asked and gone on from.
old_states_stay_valid(_Config) ->
    check(?FORALL({Before, Left, Right}, {piece(), piece(), piece()}, begin
        State = esdb_hash_nif:update(esdb_hash_nif:new(), Before),
        StateLeft = esdb_hash_nif:update(State, Left),
        StateRight = esdb_hash_nif:update(State, Right),
        Expected = [esdb_hash_nif:xxhash3(D) || D <- [Before, [Before, Left], [Before, Right]]],
        Expected =:= [esdb_hash_nif:digest(S) || S <- [State, StateLeft, StateRight]]
    end)).

foreign_states_are_badarg(_Config) ->
    Foreign =
        case esdb_hash_nif:implementation() of
            nif -> esdb_hash_erl:new(0);
            erlang -> make_ref()
        end,
    [
        begin
            ?assertError(badarg, esdb_hash_nif:digest(State)),
            ?assertError(badarg, esdb_hash_nif:update(State, ~"a")),
            ?assertError(badarg, esdb_hash_nif:update(State, ["a"]))
        end
     || State <- [Foreign, make_ref(), a, ~"a", {}, {xxh3, 1}]
    ].

%% Beyond what a normal scheduler takes.
long_input_is_hashed_alike(_Config) ->
    Data = binary:copy(data(1021), 3000),
    Expected = esdb_hash_erl:xxhash3(Data, 0),
    ?assertEqual(Expected, esdb_hash_nif:xxhash3(Data)),
    ?assertEqual(Expected, esdb_hash_nif:xxhash3(Data, 0)),
    ?assertEqual(Expected rem 7, esdb_hash_nif:partition_hash(Data, 7)),
    ?assertEqual([Expected rem 7], esdb_hash_nif:partition_hash_batch([Data], 7)),
    ?assertEqual(Expected, esdb_hash_nif:digest(esdb_hash_nif:update(esdb_hash_nif:new(), Data))),
    ?assertEqual(esdb_hash_erl:xxhash64(Data, 1), esdb_hash_nif:xxhash64(Data, 1)),
    ?assertEqual(esdb_hash_erl:fnv1a(Data), esdb_hash_nif:fnv1a(Data)),
    ?assertEqual(
        esdb_hash_erl:stream_partition(Data, ~"a", 1000),
        esdb_hash_nif:stream_partition(Data, ~"a", 1000)
    ).

long_batches(_Config) ->
    Items = [key(I) || I <- lists:seq(1, 50_000)],
    ?assertEqual(
        [esdb_hash_nif:partition_hash(Item, 64) || Item <- Items],
        esdb_hash_nif:partition_hash_batch(Items, 64)
    ).

%% Helpers

piece() ->
    frequency([{3, binary()}, {1, ?LET(Size, integer(0, 3000), data(Size))}]).

key(I) -> <<"stream-", (integer_to_binary(I))/binary>>.

count(Values) ->
    maps:map(fun(_, Group) -> length(Group) end, maps:groups_from_list(fun(V) -> V end, Values)).

check(Property) ->
    ?assert(proper:quickcheck(Property, [quiet, {numtests, 500}, {to_file, user}])).

each(Name, Check) ->
    #{Name := [_ | _] = Rows} = vectors(),
    lists:foreach(Check, Rows).

vectors() -> vectors(~"hash.json").

vectors(File) ->
    {ok, Text} = file:read_file(filename:join([test_folder(), "vectors", File])),
    json:decode(Text).

%% Common Test compiles the suite elsewhere, but remembers where the source is.
test_folder() -> filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile))).

%% The buffer of xxHash's own sanity checks, as in generate.py.
data(Size) -> data(Size, 2654435761, <<>>).

data(0, _, Data) ->
    Data;
data(Size, State, Data) ->
    Next = (State * 11400714785074694797) band 16#FFFFFFFFFFFFFFFF,
    data(Size - 1, Next, <<Data/binary, (State bsr 56)>>).
