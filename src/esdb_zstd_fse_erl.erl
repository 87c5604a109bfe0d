-module(esdb_zstd_fse_erl).
-moduledoc false.
%% Finite state entropy of Zstandard: RFC 8878, section 4.1.

-export([read_counts/3, decoder/2, single/1, encoder/1]).
-export([backward/1]).
-export_type([decoder/0, encoder/0]).

%% For each state its symbol, and the next state: a base plus that many bits of input.
-type decoder() :: {AccuracyLog :: 0..9, States :: tuple()}.
%% For each symbol and the state that follows it: the state before, and the bits that lead from one
%% to other.
-type encoder() :: #{
    {symbol, byte()} => State :: non_neg_integer(),
    {byte(), Next :: non_neg_integer()} => {State :: non_neg_integer(), bitstring()}
}.

%% The distribution of a table, as counts in parts of 2^AccuracyLog; -1 stands for "less than one".
-spec read_counts(binary(), MaxAccuracyLog :: 5..9, MaxSymbol :: byte()) ->
    {ok, 5..9, Counts :: [integer()], Rest :: binary()} | corrupt.
read_counts(Input, MaxAccuracyLog, MaxSymbol) ->
    %% No table is longer than that; bits are read from the lowest on.
    Head = binary:part(Input, 0, min(byte_size(Input), 256)),
    Number = binary:decode_unsigned(Head, little),
    case (Number band 15) + 5 of
        AccuracyLog when AccuracyLog =< MaxAccuracyLog, Input =/= <<>> ->
            maybe
                {Counts, Bits} ?= counts(Number bsr 4, 4, 1 bsl AccuracyLog, MaxSymbol + 1, []),
                Bytes = (Bits + 7) div 8,
                <<_:Bytes/binary, Rest/binary>> ?= Input,
                {ok, AccuracyLog, Counts, Rest}
            else
                _ -> corrupt
            end;
        _ ->
            corrupt
    end.

%% Number has the bits to read, of which Bits are done; Remaining and Room are what counts and
%% symbols may still come.
-spec counts(Number, Bits, Remaining, Room, Counts) ->
    {Counts, Bits} | corrupt
when
    Number :: non_neg_integer(),
    Bits :: non_neg_integer(),
    Remaining :: integer(),
    Room :: integer(),
    Counts :: [integer()].
counts(_, Bits, 0, Room, Counts) when Room >= 0 ->
    {lists:reverse(Counts), Bits};
counts(Number, Bits, Remaining, Room, Counts) when Remaining > 0, Room > 0 ->
    Width = bit_length(Remaining + 1),
    Low = Number band ((1 bsl (Width - 1)) - 1),
    Threshold = (1 bsl Width) - 2 - Remaining,
    {Value, Used} =
        case Number band ((1 bsl Width) - 1) of
            _ when Low < Threshold -> {Low, Width - 1};
            Whole when Whole >= 1 bsl (Width - 1) -> {Whole - Threshold, Width};
            Whole -> {Whole, Width}
        end,
    Count = Value - 1,
    Left = Remaining - abs(Count),
    case Count of
        0 -> zeros(Number bsr Used, Bits + Used, Left, Room - 1, [0 | Counts]);
        _ -> counts(Number bsr Used, Bits + Used, Left, Room - 1, [Count | Counts])
    end;
counts(_, _, _, _, _) ->
    corrupt.

%% Behind a count of zero stands in two bits how many more follow, 3 for "and go on".
-spec zeros(Number, Bits, Remaining, Room, Counts) ->
    {Counts, Bits} | corrupt
when
    Number :: non_neg_integer(),
    Bits :: non_neg_integer(),
    Remaining :: integer(),
    Room :: integer(),
    Counts :: [integer()].
zeros(Number, Bits, Remaining, Room, Counts) ->
    More = Number band 3,
    Counts1 = lists:duplicate(More, 0) ++ Counts,
    case More of
        3 when Room > 0 -> zeros(Number bsr 2, Bits + 2, Remaining, Room - 3, Counts1);
        _ -> counts(Number bsr 2, Bits + 2, Remaining, Room - More, Counts1)
    end.

-spec bit_length(pos_integer()) -> pos_integer().
bit_length(Number) when Number < 2 -> 1;
bit_length(Number) -> 1 + bit_length(Number bsr 1).

-spec decoder(AccuracyLog :: 5..9, Counts :: [integer()]) -> decoder().
decoder(AccuracyLog, Counts) ->
    Size = 1 bsl AccuracyLog,
    Symbols = lists:enumerate(0, Counts),
    Rare = [Symbol || {Symbol, -1} <- Symbols],
    High = Size - length(Rare),
    Spread = lists:append([lists:duplicate(N, Symbol) || {Symbol, N} <- Symbols, N > 0]),
    Common = lists:zip(positions(Size, High), Spread),
    Placed = lists:keysort(1, Common ++ lists:zip(lists:seq(Size - 1, High, -1), Rare)),
    Firsts = #{Symbol => abs(Count) || {Symbol, Count} <- Symbols},
    {States, _} = lists:mapfoldl(
        fun({_, Symbol}, Nexts) -> state(Symbol, AccuracyLog, Nexts) end, Firsts, Placed
    ),
    {AccuracyLog, list_to_tuple(States)}.

%% Where the symbols that are not rare stand, in the order of their placing.
-spec positions(pos_integer(), pos_integer()) -> [non_neg_integer()].
positions(Size, High) ->
    Step = (Size bsr 1) + (Size bsr 3) + 3,
    [P || I <- lists:seq(0, Size - 1), P <- [I * Step band (Size - 1)], P < High].

-spec state(byte(), 5..9, #{byte() => non_neg_integer()}) ->
    {{byte(), Bits :: non_neg_integer(), Base :: integer()}, #{byte() => non_neg_integer()}}.
state(Symbol, AccuracyLog, Nexts) ->
    #{Symbol := Next} = Nexts,
    Bits = AccuracyLog - bit_length(Next) + 1,
    {{Symbol, Bits, (Next bsl Bits) - (1 bsl AccuracyLog)}, Nexts#{Symbol := Next + 1}}.

%% The table that knows one symbol and reads nothing.
-spec single(byte()) -> decoder().
single(Symbol) -> {0, {{Symbol, 0, 0}}}.

-spec encoder(decoder()) -> encoder().
encoder({_, States}) ->
    lists:foldl(
        fun({State, {Symbol, Bits, Base}}, Encoder) ->
            Leads = #{
                {Symbol, Base + Value} => {State, <<Value:Bits>>}
             || Value <- lists:seq(0, (1 bsl Bits) - 1)
            },
            maps:merge(Encoder#{{symbol, Symbol} => State}, Leads)
        end,
        #{},
        lists:enumerate(0, tuple_to_list(States))
    ).

%% A stream that is read from its end, as bits in the order of reading: the bytes reversed, without
%% the padding of zeros and a one that stands first.
-spec backward(binary()) -> {ok, bitstring()} | corrupt.
backward(<<>>) ->
    corrupt;
backward(Stream) ->
    case binary:last(Stream) of
        0 ->
            corrupt;
        Last ->
            Padding = 9 - bit_length(Last),
            Reversed = binary:encode_unsigned(binary:decode_unsigned(Stream, little), big),
            <<_:Padding, Bits/bitstring>> = Reversed,
            {ok, Bits}
    end.
