-module(esdb_zstd_erl).
-moduledoc false.
%% Zstandard in Erlang, for where OTP has none (before release 28): a complete decoder of RFC 8878,
%% and an encoder that finds repetitions but leaves literals as they are.
%%
%%     block     = literals  sequences
%%     literals  = 2 bits type (raw, repeated, Huffman, Huffman with the last tree), 2 bits size
%%                 format, sizes, [tree], 1 or 4 streams
%%     sequences = count, 2 bits mode for each of literal length, offset and match length
%%                 (predefined, one symbol, table, the last table), tables, one stream

-export([codec/0]).
-export([compress/4, decompress/4, prepare/2, prepared/4]).
-export([new/1, decode/2, take/1, compressor/2]).
-export_type([decoder/0]).

-type kind() :: literal_length | offset | match_length.
-type huffman() :: none | esdb_zstd_huffman_erl:table().
-type table() :: none | esdb_zstd_fse_erl:decoder().
%% Literal length, offset, match length.
-type tables() :: {table(), table(), table()}.
-type states() :: {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
-type repeats() :: {pos_integer(), pos_integer(), pos_integer()}.
-type dictionary() :: #{
    id := non_neg_integer(),
    content := binary(),
    huffman := huffman(),
    tables := tables(),
    repeats := repeats()
}.

-record(decoder, {
    dictionary = none :: none | dictionary(),
    window :: undefined | esdb_window_erl:window(),
    header :: undefined | esdb_zstd_frame_erl:header(),
    huffman = none :: huffman(),
    tables = {none, none, none} :: tables(),
    repeats = {1, 4, 8} :: repeats(),
    hash :: undefined | esdb_xxh64_erl:state(),
    out = [] :: iolist()
}).

-opaque decoder() :: #decoder{}.

-define(MAX_BLOCK, 131_072).
%% Of libzstd's buffer for decompression, behind the window and two blocks.
-define(BUFFER_EXTRA, 64).
-define(DICTIONARY_MAGIC, 16#EC30A437).
%% Offset codes above make offsets that no window holds.
-define(MAX_OFFSET_CODE, 31).

%% OTP has a codec from release 28 on.
-spec codec() -> esdb_zstd_otp_erl | ?MODULE.
codec() ->
    case persistent_term:get({?MODULE, codec}, none) of
        none ->
            Codec = find_codec(code:ensure_loaded(zstd)),
            persistent_term:put({?MODULE, codec}, Codec),
            Codec;
        Codec ->
            Codec
    end.

-spec find_codec({module, module()} | {error, term()}) -> esdb_zstd_otp_erl | ?MODULE.
find_codec({module, zstd}) -> esdb_zstd_otp_erl;
find_codec({error, _}) -> ?MODULE.

-spec compress(binary(), 1..22, boolean(), none | binary()) -> binary().
compress(Data, _Level, Checksum, Dictionary) ->
    esdb_zstd_encode_erl:compress(Data, Checksum, content(Dictionary)).

%% For input of unknown length.
-spec compressor(boolean(), none | binary()) -> esdb_zstd_encode_erl:stream().
compressor(Checksum, Dictionary) ->
    esdb_zstd_encode_erl:new(Checksum, content(Dictionary)).

-spec content(none | binary()) -> {Id :: non_neg_integer(), Content :: binary()}.
content(none) ->
    {0, <<>>};
content(Bytes) ->
    {ok, #{id := Id, content := Content}} = dictionary(Bytes),
    {Id, Content}.

%% The content of frames that were planned with the same limit.
-spec decompress(binary(), esdb_zstd_frame_erl:plan(), MaxSize, none | binary()) ->
    {ok, binary()} | {error, esdb_zstd_frame_erl:reason() | checksum_mismatch}
when
    MaxSize :: non_neg_integer().
decompress(Data, _Plan, MaxSize, Dictionary) ->
    Walk = esdb_zstd_frame_erl:add(Data, esdb_zstd_frame_erl:new(MaxSize, any)),
    case all(Walk, new(Dictionary), MaxSize, []) of
        {ok, Pieces} -> {ok, iolist_to_binary(Pieces)};
        {error, too_large} -> {error, {too_large, MaxSize}};
        {error, Reason} -> {error, Reason}
    end.

%% Event by event, so that a bomb is noticed when it passes the limit.
-spec all(esdb_zstd_frame_erl:walk(), decoder(), Left :: non_neg_integer(), iolist()) ->
    {ok, iolist()} | {error, too_large | checksum_mismatch | esdb_zstd_frame_erl:reason()}.
all(Walk, Decoder, Left, Pieces) ->
    maybe
        {event, Event, Walk1} ?= esdb_zstd_frame_erl:next(Walk),
        {ok, Decoder1} ?= decode(Event, Decoder),
        {Piece, Decoder2} = take(Decoder1),
        case iolist_size(Piece) of
            0 -> all(Walk1, Decoder2, Left, Pieces);
            Size when Size > Left -> {error, too_large};
            Size -> all(Walk1, Decoder2, Left - Size, [Pieces, Piece])
        end
    else
        {more, _} -> {ok, Pieces};
        {error, Reason} -> {error, Reason}
    end.

%% Nothing is kept: the bytes stand for themselves.
-spec prepare(binary(), 1..22) -> {ok, none} | {error, invalid_dictionary}.
prepare(Bytes, _Level) ->
    case dictionary(Bytes) of
        {ok, _} -> {ok, none};
        corrupt -> {error, invalid_dictionary}
    end.

-spec prepared(compress | decompress, binary(), Ref :: term(), 1..22) -> none.
prepared(_, _, _, _) -> none.

%% A dictionary that prepare/2 took, or none.
-spec new(none | binary()) -> decoder().
new(none) ->
    #decoder{};
new(Bytes) ->
    {ok, Dictionary} = dictionary(Bytes),
    #decoder{dictionary = Dictionary}.

%% What was decoded since the last time.
-spec take(decoder()) -> {iolist(), decoder()}.
take(#decoder{out = Out} = Decoder) -> {Out, Decoder#decoder{out = []}}.

%% Decodes what the walk over the frames found.
-spec decode(esdb_zstd_frame_erl:event(), decoder()) ->
    {ok, decoder()} | {error, corrupt | checksum_mismatch}.
decode(Event, Decoder) ->
    case event(Event, Decoder) of
        #decoder{} = Decoder1 -> {ok, Decoder1};
        Reason -> {error, Reason}
    end.

-spec event(esdb_zstd_frame_erl:event(), decoder()) -> decoder() | corrupt | checksum_mismatch.
event({frame, Header}, Decoder) ->
    start(Header, Decoder);
event({block, Kind, Bytes, Size}, Decoder) ->
    maybe
        #decoder{window = Window, header = #{content_size := Stated}} = Decoder1 ?=
            block(Kind, Bytes, Size, Decoder),
        %% (Any number is less than an atom.)
        true ?= esdb_window_erl:size(Window) =< Stated,
        output(Decoder1)
    else
        _ -> corrupt
    end;
event({done, Checksum}, #decoder{header = Header, window = Window, hash = Hash} = Decoder) ->
    Size = esdb_window_erl:size(Window),
    case Header of
        #{content_size := Stated} when is_integer(Stated), Stated =/= Size -> corrupt;
        #{checksum := false} -> Decoder;
        #{} ->
            case esdb_xxh64_erl:checksum(Hash) of
                Checksum -> Decoder;
                _ -> checksum_mismatch
            end
    end.

-spec start(esdb_zstd_frame_erl:header(), decoder()) -> decoder().
start(#{window := Reach} = Header, #decoder{dictionary = none} = Decoder) ->
    Decoder#decoder{
        header = Header,
        window = esdb_window_erl:new(max(1, Reach)),
        huffman = none,
        tables = {none, none, none},
        repeats = {1, 4, 8},
        hash = esdb_xxh64_erl:new()
    };
start(#{window := Reach} = Header, #decoder{dictionary = Dictionary} = Decoder) ->
    #{content := Content, huffman := Huffman, tables := Tables, repeats := Repeats} = Dictionary,
    Decoder#decoder{
        header = Header,
        window = esdb_window_erl:new(Reach + byte_size(Content), Content),
        huffman = Huffman,
        tables = Tables,
        repeats = Repeats,
        hash = esdb_xxh64_erl:new()
    }.

%% Hands over what the window has new.
-spec output(decoder()) -> decoder().
output(#decoder{window = Window, hash = Hash, out = Out, header = Header} = Decoder) ->
    {Pieces, Window1} = esdb_window_erl:take(Window),
    Hash1 =
        case Header of
            #{checksum := true} -> lists:foldl(fun esdb_xxh64_erl:update/2, Hash, Pieces);
            #{} -> Hash
        end,
    Decoder#decoder{window = Window1, hash = Hash1, out = [Out | Pieces]}.

-spec block(raw | repeated | compressed, binary(), Size :: non_neg_integer(), decoder()) ->
    decoder() | corrupt.
block(raw, Bytes, _, #decoder{window = Window} = Decoder) ->
    Decoder#decoder{window = append(Bytes, Window)};
block(repeated, Byte, Size, #decoder{window = Window} = Decoder) ->
    Decoder#decoder{window = append(binary:copy(Byte, Size), Window)};
block(compressed, Bytes, _, #decoder{huffman = Huffman0, window = Window} = Decoder) ->
    Limit = block_limit(Decoder#decoder.header),
    maybe
        {Literals, Huffman, Rest} ?= literals(Bytes, Huffman0, Limit),
        true ?= byte_size(Literals) =< Limit orelse corrupt,
        sequences(Rest, Literals, Limit, Decoder#decoder{
            huffman = Huffman, window = esdb_window_erl:reaching(reach(Decoder), Window)
        })
    end.

-spec block_limit(esdb_zstd_frame_erl:header()) -> non_neg_integer().
block_limit(#{window := Window}) -> min(Window, ?MAX_BLOCK).

%% How far back the matches of the next block may reach. libzstd takes what its buffer holds, which
%% is more than the window until the content has filled it.
-spec reach(decoder()) -> pos_integer().
reach(#decoder{header = #{window := Window, content_size := Stated} = Header} = Decoder) ->
    Limit = block_limit(Header),
    Buffer = Window + 2 * Limit + ?BUFFER_EXTRA,
    case esdb_window_erl:size(Decoder#decoder.window) + Limit of
        Filled when Filled =< Buffer; Stated =< Buffer -> Buffer + prefix(Decoder);
        _ -> max(1, Window)
    end.

-spec prefix(decoder()) -> non_neg_integer().
prefix(#decoder{dictionary = none}) -> 0;
prefix(#decoder{dictionary = #{content := Content}}) -> byte_size(Content).

%% Literals: section 3.1.1.3.1.
-spec literals(binary(), huffman(), Limit :: non_neg_integer()) ->
    {Literals :: binary(), huffman(), Rest :: binary()} | corrupt.
literals(<<Byte, _/binary>> = Block, Huffman, Limit) ->
    Format = (Byte bsr 2) band 3,
    case Byte band 3 of
        Plain when Plain < 2 ->
            {Length, Width} = element(Format + 1, {{1, 5}, {2, 12}, {1, 5}, {3, 20}}),
            Bits = 8 * Length,
            case Block of
                <<Head:Bits/little, Rest/binary>> ->
                    plain_literals(Plain, Head bsr (Bits - Width), Rest, Huffman, Limit);
                _ ->
                    corrupt
            end;
        Coded ->
            {Length, Width} = element(Format + 1, {{3, 10}, {3, 10}, {4, 14}, {5, 18}}),
            Bits = 8 * Length,
            case Block of
                <<Head:Bits/little, Rest/binary>> ->
                    Mask = (1 bsl Width) - 1,
                    Size = (Head bsr 4) band Mask,
                    Compressed = (Head bsr (4 + Width)) band Mask,
                    coded_literals(Coded, Format, Size, Compressed, Rest, Huffman, Limit);
                _ ->
                    corrupt
            end
    end;
literals(<<>>, _, _) ->
    corrupt.

-spec plain_literals(0..1, Size, binary(), huffman(), Limit) ->
    {Literals :: binary(), huffman(), Rest :: binary()} | corrupt
when
    Size :: non_neg_integer(), Limit :: non_neg_integer().
plain_literals(0, Size, Rest, Huffman, _) ->
    case Rest of
        <<Literals:Size/binary, Rest1/binary>> -> {Literals, Huffman, Rest1};
        _ -> corrupt
    end;
plain_literals(1, Size, <<Byte, Rest/binary>>, Huffman, Limit) when Size =< Limit ->
    {binary:copy(<<Byte>>, Size), Huffman, Rest};
plain_literals(_, _, _, _, _) ->
    corrupt.

-spec coded_literals(2..3, Format :: 0..3, Size, Compressed, binary(), huffman(), Limit) ->
    {Literals :: binary(), huffman(), Rest :: binary()} | corrupt
when
    Size :: non_neg_integer(), Compressed :: non_neg_integer(), Limit :: non_neg_integer().
coded_literals(Coded, Format, Size, Compressed, Rest, Huffman0, Limit) when Size =< Limit ->
    maybe
        <<Section:Compressed/binary, Rest1/binary>> ?= Rest,
        {ok, Huffman, Streams} ?= tree(Coded, Section, Huffman0),
        {ok, Literals} ?= streams(Format, Streams, Size, Huffman),
        {Literals, Huffman, Rest1}
    else
        _ -> corrupt
    end;
coded_literals(_, _, _, _, _, _, _) ->
    corrupt.

-spec tree(2..3, binary(), huffman()) ->
    {ok, esdb_zstd_huffman_erl:table(), Streams :: binary()} | corrupt.
tree(2, Section, _) -> esdb_zstd_huffman_erl:read(Section);
tree(3, _, none) -> corrupt;
tree(3, Section, Huffman) -> {ok, Huffman, Section}.

-spec streams(Format :: 0..3, binary(), Size, esdb_zstd_huffman_erl:table()) ->
    {ok, binary()} | corrupt
when
    Size :: non_neg_integer().
streams(0, Stream, Size, Huffman) ->
    esdb_zstd_huffman_erl:decode(Stream, Size, Huffman);
streams(_, <<A:16/little, B:16/little, C:16/little, Streams/binary>>, Size, Huffman) when
    Size >= 6
->
    Each = (Size + 3) div 4,
    maybe
        <<One:A/binary, Two:B/binary, Three:C/binary, Four/binary>> ?= Streams,
        {ok, First} ?= esdb_zstd_huffman_erl:decode(One, Each, Huffman),
        {ok, Second} ?= esdb_zstd_huffman_erl:decode(Two, Each, Huffman),
        {ok, Third} ?= esdb_zstd_huffman_erl:decode(Three, Each, Huffman),
        true ?= Size >= 3 * Each,
        {ok, Fourth} ?= esdb_zstd_huffman_erl:decode(Four, Size - 3 * Each, Huffman),
        {ok, <<First/binary, Second/binary, Third/binary, Fourth/binary>>}
    else
        _ -> corrupt
    end;
streams(_, _, _, _) ->
    corrupt.

%% Sequences: section 3.1.1.3.2.
-spec sequences(binary(), Literals :: binary(), Limit :: non_neg_integer(), decoder()) ->
    decoder() | corrupt.
sequences(<<0>>, Literals, _, Decoder) ->
    Decoder#decoder{window = append(Literals, Decoder#decoder.window)};
sequences(Section, Literals, Limit, Decoder) ->
    #decoder{tables = {Lengths0, Offsets0, Matches0}, repeats = Repeats} = Decoder,
    maybe
        {Count, <<L:2, O:2, M:2, 0:2, Rest/binary>>} ?= count(Section),
        {ok, Lengths, Rest1} ?= table(L, literal_length, Rest, Lengths0),
        {ok, Offsets, Rest2} ?= table(O, offset, Rest1, Offsets0),
        {ok, Matches, Rest3} ?= table(M, match_length, Rest2, Matches0),
        {ok, Bits} ?= esdb_zstd_fse_erl:backward(Rest3),
        {LBits, LStates} = Lengths,
        {OBits, OStates} = Offsets,
        {MBits, MStates} = Matches,
        <<LState:LBits, OState:OBits, MState:MBits, Bits1/bitstring>> ?= Bits,
        States = {LStates, OStates, MStates},
        Window0 = Decoder#decoder.window,
        %% The block may not make the content larger than that.
        End = esdb_window_erl:size(Window0) + Limit,
        {Repeats1, Window} ?=
            run(Bits1, Count, {LState, OState, MState}, States, Literals, Repeats, Window0, End),
        Decoder#decoder{
            tables = {Lengths, Offsets, Matches}, repeats = Repeats1, window = Window
        }
    else
        _ -> corrupt
    end.

-spec count(binary()) -> {non_neg_integer(), Rest :: binary()} | corrupt.
count(<<Count, Rest/binary>>) when Count > 0, Count < 128 -> {Count, Rest};
count(<<255, More:16/little, Rest/binary>>) -> {More + 16#7F00, Rest};
count(<<High, Low, Rest/binary>>) when High >= 128, High < 255 -> {(High - 128) bsl 8 + Low, Rest};
count(_) -> corrupt.

-spec table(Mode :: 0..3, kind(), binary(), Last :: table()) ->
    {ok, esdb_zstd_fse_erl:decoder(), Rest :: binary()} | corrupt.
table(0, Kind, Rest, _) ->
    {ok, esdb_zstd_encode_erl:predefined(Kind), Rest};
table(1, Kind, <<Symbol, Rest/binary>>, _) ->
    {_, MaxSymbol} = limits(Kind),
    case Symbol =< MaxSymbol of
        true -> {ok, esdb_zstd_fse_erl:single(Symbol), Rest};
        false -> corrupt
    end;
table(2, Kind, Rest, _) ->
    read_table(Kind, Rest);
table(3, _, Rest, Last) when Last =/= none ->
    {ok, Last, Rest};
table(_, _, _, _) ->
    corrupt.

-spec read_table(kind(), binary()) ->
    {ok, esdb_zstd_fse_erl:decoder(), Rest :: binary()} | corrupt.
read_table(Kind, Input) ->
    {MaxAccuracyLog, MaxSymbol} = limits(Kind),
    maybe
        {ok, AccuracyLog, Counts, Rest} ?=
            esdb_zstd_fse_erl:read_counts(Input, MaxAccuracyLog, MaxSymbol),
        {ok, esdb_zstd_fse_erl:decoder(AccuracyLog, Counts), Rest}
    end.

-spec limits(kind()) -> {8..9, byte()}.
limits(literal_length) -> {9, 35};
limits(offset) -> {8, ?MAX_OFFSET_CODE};
limits(match_length) -> {9, 52}.

%% The state is none when the last sequence is done.
-spec run(bitstring(), Count, none | states(), States, Literals, repeats(), Window, End) ->
    {repeats(), Window} | corrupt
when
    Count :: non_neg_integer(),
    States :: {tuple(), tuple(), tuple()},
    Literals :: binary(),
    Window :: esdb_window_erl:window(),
    End :: non_neg_integer().
run(<<>>, 0, _, _, Literals, Repeats, Window0, End) ->
    Window = append(Literals, Window0),
    case esdb_window_erl:size(Window) =< End of
        true -> {Repeats, Window};
        false -> corrupt
    end;
run(Bits, Count, {LState, OState, MState}, States, Literals, Repeats, Window, End) when Count > 0 ->
    {LStates, OStates, MStates} = States,
    {LSymbol, LWidth, LBase} = element(LState + 1, LStates),
    {OSymbol, OWidth, OBase} = element(OState + 1, OStates),
    {MSymbol, MWidth, MBase} = element(MState + 1, MStates),
    {LFrom, LMore} = esdb_zstd_encode_erl:literal_length(LSymbol),
    {MFrom, MMore} = esdb_zstd_encode_erl:match_length(MSymbol),
    maybe
        <<O:OSymbol, M:MMore, L:LMore, Bits1/bitstring>> ?= Bits,
        LiteralLength = LFrom + L,
        MatchLength = MFrom + M,
        {Offset, Repeats1} ?= offset((1 bsl OSymbol) + O, LiteralLength, Repeats),
        true ?= esdb_window_erl:size(Window) + LiteralLength + MatchLength =< End,
        <<These:LiteralLength/binary, Literals1/binary>> ?= Literals,
        {ok, Window1} ?= esdb_window_erl:copy(Offset, MatchLength, append(These, Window)),
        {NextStates, Bits2} ?=
            next(Count, Bits1, {LWidth, LBase}, {MWidth, MBase}, {OWidth, OBase}),
        run(Bits2, Count - 1, NextStates, States, Literals1, Repeats1, Window1, End)
    else
        _ -> corrupt
    end;
run(_, _, _, _, _, _, _, _) ->
    corrupt.

-spec next(Count :: pos_integer(), bitstring(), Step, Step, Step) ->
    {none | states(), bitstring()} | corrupt
when
    Step :: {Width :: non_neg_integer(), Base :: non_neg_integer()}.
next(1, Bits, _, _, _) ->
    {none, Bits};
next(_, Bits, {LWidth, LBase}, {MWidth, MBase}, {OWidth, OBase}) ->
    case Bits of
        <<L:LWidth, M:MWidth, O:OWidth, Rest/bitstring>> ->
            {{LBase + L, OBase + O, MBase + M}, Rest};
        _ ->
            corrupt
    end.

%% There is no window before the first frame.
-spec append(binary(), Window) -> Window when Window :: undefined | esdb_window_erl:window().
append(<<>>, Window) -> Window;
append(Bytes, Window) -> esdb_window_erl:append(Bytes, Window).

%% Values up to 3 are the last offsets again: section 3.1.1.5.
-spec offset(pos_integer(), LiteralLength :: non_neg_integer(), repeats()) ->
    {pos_integer(), repeats()} | corrupt.
offset(Value, _, {R1, R2, _}) when Value > 3 -> {Value - 3, {Value - 3, R1, R2}};
offset(Value, 0, Repeats) -> repeated(Value + 1, Repeats);
offset(Value, _, Repeats) -> repeated(Value, Repeats).

-spec repeated(pos_integer(), repeats()) -> {pos_integer(), repeats()} | corrupt.
repeated(1, {R1, _, _} = Repeats) -> {R1, Repeats};
repeated(2, {R1, R2, R3}) -> {R2, {R2, R1, R3}};
repeated(3, {R1, R2, R3}) -> {R3, {R3, R1, R2}};
repeated(4, {R1, R2, _}) when R1 > 1 -> {R1 - 1, {R1 - 1, R1, R2}};
repeated(_, _) -> corrupt.

%% Dictionaries: section 5.
-spec dictionary(binary()) -> {ok, dictionary()} | corrupt.
dictionary(<<?DICTIONARY_MAGIC:32/little, Id:32/little, Tables/binary>>) ->
    maybe
        {ok, Huffman, Rest} ?= esdb_zstd_huffman_erl:read(Tables),
        {ok, Offsets, Rest1} ?= read_table(offset, Rest),
        {ok, Matches, Rest2} ?= read_table(match_length, Rest1),
        {ok, Lengths, Rest3} ?= read_table(literal_length, Rest2),
        <<R1:32/little, R2:32/little, R3:32/little, Content/binary>> ?= Rest3,
        true ?= lists:all(fun(R) -> R > 0 andalso R =< byte_size(Content) end, [R1, R2, R3]),
        {ok, #{
            id => Id,
            content => Content,
            huffman => Huffman,
            tables => {Lengths, Offsets, Matches},
            repeats => {R1, R2, R3}
        }}
    else
        _ -> corrupt
    end;
dictionary(Content) ->
    {ok, #{
        id => 0,
        content => Content,
        huffman => none,
        tables => {none, none, none},
        repeats => {1, 4, 8}
    }}.
