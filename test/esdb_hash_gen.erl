-module(esdb_hash_gen).
-moduledoc "Arguments for the functions of `esdb_hash_nif`; see `esdb_equivalence_SUITE`.".

-export([args/2, cost/2, observe/3]).

-include_lib("proper/include/proper.hrl").

args(new, 0) -> [];
args(new, 1) -> [seed()];
args(update, 2) -> [state(), data()];
args(digest, 1) -> [state()];
args(partition_hash, 2) -> [data(), count()];
args(fast_phash, 2) -> [data(), count()];
args(partition_hash_batch, 2) -> [batch(), count()];
args(stream_partition, 3) -> [name(), name(), count()];
args(_Hash, 1) -> [data()];
args(_Hash, 2) -> [data(), seed()].

cost(_, _) -> cheap.

%% A state is what it answers, now and after more data.
observe(F, _, State) when F =:= new; F =:= update ->
    {esdb_hash_nif:digest(State), esdb_hash_nif:digest(esdb_hash_nif:update(State, <<0:8200>>))};
observe(_, _, Result) ->
    Result.

data() -> frequency([{8, bytes()}, {2, pieces()}, {1, hostile()}]).

%% All classes of length of XXH3, and the edges of its blocks.
bytes() ->
    frequency([
        {4, binary()},
        {3, ?LET(Size, integer(0, 300), binary(Size))},
        {2, ?LET({Size, Byte}, {integer(1000, 3100), byte()}, filled(Size, Byte))}
    ]).

%% Long data that costs nothing to generate, and still differs everywhere.
filled(Size, Byte) -> <<<<(I * 7 + Byte)>> || I <- lists:seq(1, Size)>>.

pieces() -> list(frequency([{3, binary()}, {2, byte()}, {1, list(byte())}])).

hostile() ->
    oneof([
        atom(),
        integer(),
        <<1:7>>,
        [<<1:3>>],
        [256],
        [-1],
        [a | ~"improper"],
        [~"a" | b],
        [~"fine" | ~"tail"],
        #{},
        {},
        1.5
    ]).

seed() ->
    frequency([
        {3, integer(0, 16#FFFFFFFF)},
        {3, oneof([0, 1, 16#FFFFFFFFFFFFFFFF, 16#9E3779B185EBCA87, 1 bsl 63])},
        {1, oneof([-1, 1 bsl 64, 1 bsl 200, 1.0, a, ~"0"])}
    ]).

count() ->
    frequency([
        {6, integer(1, 1000)},
        {2, oneof([1, 2, 16#FFFFFFFF])},
        {1, oneof([0, -1, 16#100000000, 1 bsl 70, 4.0, n])}
    ]).

name() ->
    frequency([
        {6, binary()},
        {1, ?LET(Size, integer(100, 300), binary(Size))},
        {1, hostile()},
        {1, pieces()}
    ]).

batch() ->
    frequency([
        {6, list(bytes())},
        {2, list(data())},
        {1, ?LET({Items, Tail}, {list(bytes()), hostile()}, Items ++ Tail)},
        {1, hostile()}
    ]).

%% Made where the case runs.
state() ->
    frequency([
        {6, ?LET({Seed, Data}, {integer(0, 99), bytes()}, call(update, [call(new, [Seed]), Data]))},
        {2, ?LET(Pieces, list(bytes()), lists:foldl(fun updated/2, call(new, []), Pieces))},
        {1, oneof([make_ref(), {xxh3, 0}, ~"state", [], 0])},
        {1, oneof([{xxh3, 0, many, [], <<>>, <<>>}, {xxh3, 0, 0, [], <<>>, []}])},
        {1, {xxh3, zero, 300, [], <<>>, <<>>}}
    ]).

updated(Piece, State) -> call(update, [State, Piece]).

call(Function, Arguments) -> {'$make', esdb_hash_nif, Function, Arguments}.
