-module(esdb_zstd_huffman_erl).
-moduledoc false.
%% Huffman coding of Zstandard's literals: RFC 8878, section 4.2.

-export([read/1, decode/3]).
-export_type([table/0]).

%% For each string of MaxBits bits, the symbol that begins it and how many bits are its own.
-opaque table() :: {MaxBits :: 1..12, tuple()}.

%% One more than the RFC allows, because libzstd does.
-define(MAX_BITS, 12).
-define(MAX_ACCURACY, 6).

%% The description of a tree in front of the streams that use it.
-spec read(binary()) -> {ok, table(), Rest :: binary()} | corrupt.
read(<<Size, Rest/binary>>) when Size >= 128 ->
    Count = Size - 127,
    Bytes = (Count + 1) div 2,
    case Rest of
        <<Packed:Bytes/binary, Rest1/binary>> ->
            Weights = [Weight || <<Weight:4>> <= Packed],
            table(lists:sublist(Weights, Count), Rest1);
        _ ->
            corrupt
    end;
read(<<Size, Compressed:Size/binary, Rest/binary>>) ->
    maybe
        {ok, AccuracyLog, Counts, Stream} ?=
            esdb_zstd_fse_erl:read_counts(Compressed, ?MAX_ACCURACY, 255),
        {ok, Bits} ?= esdb_zstd_fse_erl:backward(Stream),
        {_, States} = esdb_zstd_fse_erl:decoder(AccuracyLog, Counts),
        <<One:AccuracyLog, Other:AccuracyLog, Bits1/bitstring>> ?= Bits,
        Weights = [_ | _] ?= weights(Bits1, One, Other, States, 0, []),
        table(Weights, Rest)
    else
        _ -> corrupt
    end;
read(_) ->
    corrupt.

%% Two states take turns. When there are too few bits for the next state, the other one's symbol is
%% last.
-spec weights(bitstring(), State, Other :: State, States :: tuple(), Count, Weights) ->
    Weights | corrupt
when
    State :: non_neg_integer(), Count :: non_neg_integer(), Weights :: [non_neg_integer()].
weights(_, _, _, _, Count, _) when Count > 254 ->
    corrupt;
weights(Bits, State, Other, States, Count, Weights) ->
    {Weight, Width, Base} = element(State + 1, States),
    case Bits of
        <<More:Width, Bits1/bitstring>> ->
            weights(Bits1, Other, Base + More, States, Count + 1, [Weight | Weights]);
        _ ->
            {Last, _, _} = element(Other + 1, States),
            lists:reverse(Weights, [Weight, Last])
    end.

%% The last weight is not written: it fills the sum up to a power of two.
-spec table([non_neg_integer()], binary()) -> {ok, table(), binary()} | corrupt.
table(Weights, Rest) ->
    Sum = lists:sum([1 bsl (Weight - 1) || Weight <- Weights, Weight > 0]),
    MaxBits = log2(Sum) + 1,
    Left = (1 bsl MaxBits) - Sum,
    case Sum > 0 andalso MaxBits =< ?MAX_BITS andalso Left =:= 1 bsl log2(Left) of
        true when length(Weights) =< 255 -> complete(Weights ++ [log2(Left) + 1], MaxBits, Rest);
        _ -> corrupt
    end.

%% The longest codes are as long as the weights say.
-spec complete([non_neg_integer()], 1..12, binary()) -> {ok, table(), binary()} | corrupt.
complete(Weights, MaxBits, Rest) ->
    case lists:member(1, Weights) of
        true -> {ok, {MaxBits, entries(Weights, MaxBits)}, Rest};
        false -> corrupt
    end.

-spec log2(non_neg_integer()) -> non_neg_integer().
log2(Number) when Number < 2 -> 0;
log2(Number) -> 1 + log2(Number bsr 1).

%% The lightest symbols, which have the longest codes, come first.
-spec entries([non_neg_integer()], 1..12) -> tuple().
entries(Weights, MaxBits) ->
    Sorted = lists:keysort(1, [{W, Symbol} || {Symbol, W} <- lists:enumerate(0, Weights), W > 0]),
    list_to_tuple(
        lists:append([
            lists:duplicate(1 bsl (Weight - 1), {Symbol, MaxBits + 1 - Weight})
         || {Weight, Symbol} <- Sorted
        ])
    ).

%% Count symbols of one stream, which must hold exactly these.
-spec decode(binary(), Count :: non_neg_integer(), table()) -> {ok, binary()} | corrupt.
decode(Stream, Count, {MaxBits, Entries}) ->
    maybe
        {ok, Bits} ?= esdb_zstd_fse_erl:backward(Stream),
        %% So that MaxBits bits can be looked at up to the end.
        symbols(<<Bits/bitstring, 0:MaxBits>>, Count, MaxBits, Entries, [])
    end.

-spec symbols(bitstring(), Count, MaxBits :: 1..12, Entries :: tuple(), [byte()]) ->
    {ok, binary()} | corrupt
when
    Count :: non_neg_integer().
symbols(Bits, 0, MaxBits, _, Symbols) when bit_size(Bits) =:= MaxBits ->
    {ok, list_to_binary(lists:reverse(Symbols))};
symbols(Bits, Count, MaxBits, Entries, Symbols) when Count > 0 ->
    case Bits of
        <<Index:MaxBits, _/bitstring>> ->
            {Symbol, Width} = element(Index + 1, Entries),
            <<_:Width, Rest/bitstring>> = Bits,
            symbols(Rest, Count - 1, MaxBits, Entries, [Symbol | Symbols]);
        _ ->
            corrupt
    end;
symbols(_, _, _, _, _) ->
    corrupt.
