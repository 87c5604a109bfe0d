-module(esdb_zstd_encode_erl).
-moduledoc false.
%% Writes Zstandard frames (RFC 8878): repetitions by the predefined tables, literals as they are.
%% Larger output than libzstd's, readable by every decoder.

-export([compress/3]).
-export([new/2, update/2, finish/1]).
-export([predefined/1, literal_length/1, match_length/1]).

-define(MAGIC, 16#FD2FB528).
-define(MAX_BLOCK, 131_072).
%% Content above that is written with a window of that size, so that a reader needs no more memory.
-define(WINDOW_LOG, 23).
-define(WINDOW, (1 bsl ?WINDOW_LOG)).

%% Code, first value, and bits that are added to it: section 3.1.1.3.2.1.1.
-define(LITERAL_LENGTHS,
    {{0, 0}, {1, 0}, {2, 0}, {3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {9, 0}, {10, 0},
        {11, 0}, {12, 0}, {13, 0}, {14, 0}, {15, 0}, {16, 1}, {18, 1}, {20, 1}, {22, 1}, {24, 2},
        {28, 2}, {32, 3}, {40, 3}, {48, 4}, {64, 6}, {128, 7}, {256, 8}, {512, 9}, {1024, 10},
        {2048, 11}, {4096, 12}, {8192, 13}, {16384, 14}, {32768, 15}, {65536, 16}}
).
-define(MATCH_LENGTHS,
    {{3, 0}, {4, 0}, {5, 0}, {6, 0}, {7, 0}, {8, 0}, {9, 0}, {10, 0}, {11, 0}, {12, 0}, {13, 0},
        {14, 0}, {15, 0}, {16, 0}, {17, 0}, {18, 0}, {19, 0}, {20, 0}, {21, 0}, {22, 0}, {23, 0},
        {24, 0}, {25, 0}, {26, 0}, {27, 0}, {28, 0}, {29, 0}, {30, 0}, {31, 0}, {32, 0}, {33, 0},
        {34, 0}, {35, 1}, {37, 1}, {39, 1}, {41, 1}, {43, 2}, {47, 2}, {51, 3}, {59, 3}, {67, 4},
        {83, 4}, {99, 5}, {131, 7}, {259, 8}, {515, 9}, {1027, 10}, {2051, 11}, {4099, 12},
        {8195, 13}, {16387, 14}, {32771, 15}, {65539, 16}}
).

%% Section 3.1.1.3.2.2.
-define(LITERAL_LENGTH_COUNTS,
    [4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
        -1, -1, -1, -1]
).
-define(MATCH_LENGTH_COUNTS,
    [1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
        1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1]
).
-define(OFFSET_COUNTS,
    [1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1]
).

%% Of a stream so far: what is still to write as a header, the bytes that the next block may repeat,
%% and those that are not yet a block.
-record(stream, {
    header :: binary(),
    hash :: none | esdb_xxh64_erl:state(),
    history = <<>> :: binary(),
    pending = <<>> :: binary()
}).

-opaque stream() :: #stream{}.
-export_type([stream/0]).

-type kind() :: literal_length | offset | match_length.
%% Of literal length, offset and match length: the codes of a sequence with their extra bits, the
%% states that write them, and the tables of these.
-type codes() :: {0..35, non_neg_integer(), 0..52, Extra :: bitstring()}.
-type states() :: {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
-type encoders() :: {
    esdb_zstd_fse_erl:encoder(), esdb_zstd_fse_erl:encoder(), esdb_zstd_fse_erl:encoder()
}.

%% The tables that are used where a block brings none. They are the same for ever, so they are made
%% once.
-spec predefined(kind()) -> esdb_zstd_fse_erl:decoder().
predefined(Kind) -> element(1, tables(Kind)).

-spec tables(kind()) -> {esdb_zstd_fse_erl:decoder(), esdb_zstd_fse_erl:encoder()}.
tables(Kind) ->
    case persistent_term:get({?MODULE, Kind}, none) of
        none ->
            {AccuracyLog, Counts} = distribution(Kind),
            Decoder = esdb_zstd_fse_erl:decoder(AccuracyLog, Counts),
            Tables = {Decoder, esdb_zstd_fse_erl:encoder(Decoder)},
            persistent_term:put({?MODULE, Kind}, Tables),
            Tables;
        Tables ->
            Tables
    end.

-spec distribution(kind()) -> {5..6, [integer()]}.
distribution(literal_length) -> {6, ?LITERAL_LENGTH_COUNTS};
distribution(offset) -> {5, ?OFFSET_COUNTS};
distribution(match_length) -> {6, ?MATCH_LENGTH_COUNTS}.

-spec literal_length(0..35) -> {non_neg_integer(), 0..16}.
literal_length(Code) -> element(Code + 1, ?LITERAL_LENGTHS).

-spec match_length(0..52) -> {pos_integer(), 0..16}.
match_length(Code) -> element(Code + 1, ?MATCH_LENGTHS).

%% One frame. The content of a dictionary stands before the data, its tables are not used.
-spec compress(binary(), Checksum :: boolean(), {Id :: non_neg_integer(), Prefix :: binary()}) ->
    binary().
compress(Data, Checksum, {Id, Prefix}) ->
    Bytes = <<Prefix/binary, Data/binary>>,
    Table = esdb_lz77_erl:table(byte_size(Bytes)),
    ok = esdb_lz77_erl:index(Bytes, byte_size(Prefix), Table),
    iolist_to_binary([
        header(byte_size(Data), Checksum, Id),
        blocks(Bytes, byte_size(Prefix), Table),
        checksum(Checksum, Data)
    ]).

%% A frame whose content is not known yet.
-spec new(Checksum :: boolean(), {Id :: non_neg_integer(), Prefix :: binary()}) -> stream().
new(Checksum, {Id, Prefix}) ->
    Hash =
        case Checksum of
            true -> esdb_xxh64_erl:new();
            false -> none
        end,
    #stream{header = header(unknown, Checksum, Id), hash = Hash, history = Prefix}.

-spec update(binary(), stream()) -> {iolist(), stream()}.
update(Data, #stream{pending = Pending, header = Header} = Stream) ->
    {Blocks, Stream1} = full_blocks(
        <<Pending/binary, Data/binary>>, Stream#stream{header = <<>>, hash = hash(Data, Stream)}, []
    ),
    {[Header | Blocks], Stream1}.

-spec hash(binary(), stream()) -> none | esdb_xxh64_erl:state().
hash(_, #stream{hash = none}) -> none;
hash(Data, #stream{hash = Hash}) -> esdb_xxh64_erl:update(Data, Hash).

%% One block stays back: the last one has to say that it is.
-spec full_blocks(binary(), stream(), [iodata()]) -> {[iodata()], stream()}.
full_blocks(<<Raw:?MAX_BLOCK/binary, Rest/binary>>, Stream, Blocks) when Rest =/= <<>> ->
    {Block, Stream1} = next_block(0, Raw, Stream),
    full_blocks(Rest, Stream1, [Block | Blocks]);
full_blocks(Rest, Stream, Blocks) ->
    {lists:reverse(Blocks), Stream#stream{pending = Rest}}.

-spec next_block(0..1, binary(), stream()) -> {iodata(), stream()}.
next_block(Last, Raw, #stream{history = History} = Stream) ->
    Bytes = <<History/binary, Raw/binary>>,
    Table = esdb_lz77_erl:table(byte_size(Bytes)),
    ok = esdb_lz77_erl:index(Bytes, byte_size(History), Table),
    Block = block(Last, Bytes, byte_size(History), byte_size(Bytes), Table),
    {Block, Stream#stream{history = Raw, pending = <<>>}}.

-spec finish(stream()) -> iolist().
finish(#stream{header = Header, pending = Pending, hash = Hash} = Stream) ->
    {Block, _} = next_block(1, Pending, Stream),
    [Header, Block, [<<(esdb_xxh64_erl:checksum(Hash)):32/little>> || Hash =/= none]].

-spec header(non_neg_integer() | unknown, boolean(), non_neg_integer()) -> binary().
header(Size, Checksum, Id) ->
    Single = flag(is_integer(Size) andalso Size =< ?WINDOW),
    {SizeFlag, SizeBytes} = content_size(Size),
    {IdFlag, IdBits} = id(Id),
    Window = [<<(?WINDOW_LOG - 10):5, 0:3>> || Single =:= 0],
    iolist_to_binary([
        <<?MAGIC:32/little, SizeFlag:2, Single:1, 0:2, (flag(Checksum)):1, IdFlag:2>>,
        Window,
        <<Id:IdBits/little>>,
        SizeBytes
    ]).

-spec flag(boolean()) -> 0..1.
flag(true) -> 1;
flag(false) -> 0.

-spec content_size(non_neg_integer() | unknown) -> {0..3, binary()}.
content_size(unknown) -> {0, <<>>};
content_size(Size) when Size < 256 -> {0, <<Size>>};
content_size(Size) when Size < 65_792 -> {1, <<(Size - 256):16/little>>};
content_size(Size) when Size < 1 bsl 32 -> {2, <<Size:32/little>>};
content_size(Size) -> {3, <<Size:64/little>>}.

-spec id(non_neg_integer()) -> {0..3, 0..32}.
id(0) -> {0, 0};
id(_) -> {3, 32}.

-spec checksum(boolean(), binary()) -> binary().
checksum(true, Data) -> <<(esdb_hash_erl:xxhash64(Data, 0)):32/little>>;
checksum(false, _) -> <<>>.

-spec blocks(binary(), non_neg_integer(), esdb_lz77_erl:table()) -> iolist().
blocks(Bytes, Start, Table) ->
    End = min(Start + ?MAX_BLOCK, byte_size(Bytes)),
    Last = flag(End =:= byte_size(Bytes)),
    Block = block(Last, Bytes, Start, End, Table),
    case Last of
        1 -> [Block];
        0 -> [Block | blocks(Bytes, End, Table)]
    end.

%% A block: repeated, compressed or raw, whatever is smallest.
-spec block(0..1, binary(), Start, End, esdb_lz77_erl:table()) -> iolist() when
    Start :: non_neg_integer(), End :: non_neg_integer().
block(Last, Bytes, Start, End, Table) ->
    Raw = binary:part(Bytes, Start, End - Start),
    case is_repeated(Raw) of
        true ->
            <<Byte, _/binary>> = Raw,
            [block_header(Last, 1, byte_size(Raw)), Byte];
        false ->
            Found = esdb_lz77_erl:sequences(Bytes, Start, End, ?WINDOW, Table),
            Compressed = compressed(Found),
            case byte_size(Compressed) < byte_size(Raw) of
                true -> [block_header(Last, 2, byte_size(Compressed)), Compressed];
                false -> [block_header(Last, 0, byte_size(Raw)), Raw]
            end
    end.

-spec block_header(0..1, 0..2, non_neg_integer()) -> binary().
block_header(Last, Type, Size) -> <<(Size bsl 3 bor (Type bsl 1) bor Last):24/little>>.

-spec is_repeated(binary()) -> boolean().
is_repeated(<<Byte, _, _/binary>> = Raw) -> Raw =:= binary:copy(<<Byte>>, byte_size(Raw));
is_repeated(_) -> false.

-spec compressed({[esdb_lz77_erl:sequence()], binary()}) -> binary().
compressed({Sequences, Rest}) ->
    Literals = [[These || {These, _, _} <- Sequences], Rest],
    Size = iolist_size(Literals),
    iolist_to_binary([
        literals_header(Size), Literals, count(length(Sequences)), sequences(Sequences)
    ]).

-spec literals_header(non_neg_integer()) -> binary().
literals_header(Size) when Size < 32 -> <<(Size bsl 3)>>;
literals_header(Size) when Size < 4096 -> <<(Size bsl 4 bor 4):16/little>>;
literals_header(Size) -> <<(Size bsl 4 bor 12):24/little>>.

-spec count(non_neg_integer()) -> binary().
count(Count) when Count < 128 -> <<Count>>;
count(Count) when Count < 16#7F00 -> <<(Count bsr 8 + 128), Count>>;
count(Count) -> <<255, (Count - 16#7F00):16/little>>.

%% The stream is written in the order in which it will be read; since each state depends on the one
%% that follows, it is made from the last sequence to the first.
-spec sequences([esdb_lz77_erl:sequence()]) -> binary().
sequences([]) ->
    <<>>;
sequences(Sequences) ->
    Encoders = {encoder(literal_length), encoder(offset), encoder(match_length)},
    [Last | Before] = lists:reverse([codes(Sequence) || Sequence <- Sequences]),
    {States, Bits} = lists:foldl(
        fun(Codes, Acc) -> step(Codes, Acc, Encoders) end, first(Last, Encoders), Before
    ),
    {L, O, M} = States,
    %% No table of its own for any of the three.
    [Modes, Stream] = [<<0>>, << <<Part/bitstring>> || Part <- [<<L:6, O:5, M:6>> | Bits] >>],
    <<Modes/binary, (backward(Stream))/binary>>.

-spec encoder(kind()) -> esdb_zstd_fse_erl:encoder().
encoder(Kind) -> element(2, tables(Kind)).

-spec first(codes(), encoders()) -> {states(), [bitstring()]}.
first({L, O, M, Extra}, {Lengths, Offsets, Matches}) ->
    #{{symbol, L} := LState} = Lengths,
    #{{symbol, O} := OState} = Offsets,
    #{{symbol, M} := MState} = Matches,
    {{LState, OState, MState}, [Extra]}.

-spec step(codes(), {states(), [bitstring()]}, encoders()) -> {states(), [bitstring()]}.
step({L, O, M, Extra}, {{LNext, ONext, MNext}, Bits}, {Lengths, Offsets, Matches}) ->
    #{{L, LNext} := {LState, LBits}} = Lengths,
    #{{O, ONext} := {OState, OBits}} = Offsets,
    #{{M, MNext} := {MState, MBits}} = Matches,
    {{LState, OState, MState}, [Extra, LBits, MBits, OBits | Bits]}.

%% The three codes of a sequence and their extra bits. The first three offset values are for
%% repeated ones.
-spec codes(esdb_lz77_erl:sequence()) -> codes().
codes({Literals, Offset, Length}) ->
    {L, LMore, LBits} = code(byte_size(Literals), ?LITERAL_LENGTHS),
    {M, MMore, MBits} = code(Length, ?MATCH_LENGTHS),
    O = log2(Offset + 3),
    {L, O, M, <<(Offset + 3):O, MMore:MBits, LMore:LBits>>}.

-spec code(non_neg_integer(), tuple()) ->
    {Code :: non_neg_integer(), More :: non_neg_integer(), Bits :: 0..16}.
code(Value, Table) ->
    Code = last_not_above(Value, Table, tuple_size(Table)),
    {From, Bits} = element(Code, Table),
    {Code - 1, Value - From, Bits}.

-spec last_not_above(non_neg_integer(), tuple(), pos_integer()) -> pos_integer().
last_not_above(Value, Table, Index) ->
    case element(Index, Table) of
        {From, _} when From =< Value -> Index;
        _ -> last_not_above(Value, Table, Index - 1)
    end.

-spec log2(pos_integer()) -> non_neg_integer().
log2(1) -> 0;
log2(Number) -> 1 + log2(Number bsr 1).

-spec backward(bitstring()) -> binary().
backward(Bits) ->
    Padding = 7 - bit_size(Bits) rem 8,
    Forward = <<0:Padding, 1:1, Bits/bitstring>>,
    %% The first byte is not zero, so none is lost.
    binary:encode_unsigned(binary:decode_unsigned(Forward, big), little).
