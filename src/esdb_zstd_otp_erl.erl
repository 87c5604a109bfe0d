-module(esdb_zstd_otp_erl).
-moduledoc false.
%% The codec of Zstandard frames that OTP has from release 28 on, behind the walk over the frames:
%% by itself OTP answers what there is of a truncated frame, and knows no limit.

-export([compress/4, decompress/4, prepare/2, prepared/4]).
-export([compressor/3, decompressor/1, stream/2, finish/1]).

-ignore_xref([
    {zstd, close, 1},
    {zstd, compress, 2},
    {zstd, context, 2},
    {zstd, dict, 2},
    {zstd, dict, 3},
    {zstd, finish, 2},
    {zstd, get_dict_id, 1},
    {zstd, stream, 2}
]).

%% Windows are limited by the walk: a frame in one segment has one as large as its content.
-define(WINDOW_LOG_MAX, 31).

%% Less than a millisecond of compression, or of decompression, at the lower levels.
-define(SLICE, 32_768).
%% Bytes of output that take as long as a reduction.
-define(REDUCTION, 256).

%% A dictionary: its bytes, or what zstd:dict/2,3 made of them.
-type dictionary() :: binary() | term().

-spec compress(binary(), 1..22, boolean(), none | dictionary()) -> binary().
compress(Data, Level, Checksum, Dictionary) ->
    Options = #{compressionLevel => Level, checksumFlag => Checksum},
    iolist_to_binary(zstd:compress(slices(Data), dictionary(Dictionary, Options))).

%% OTP takes as much input in one call as it is given, and can be interrupted between two calls
%% only.
-spec slices(binary()) -> [binary()].
slices(<<Slice:?SLICE/binary, Data/binary>>) -> [Slice | slices(Data)];
slices(Data) -> [Data].

-spec dictionary(none | dictionary(), map()) -> map().
dictionary(none, Options) -> Options;
dictionary(Dictionary, Options) -> Options#{dictionary => Dictionary}.

%% The content of frames that were walked before. Most is at least what they can hold.
-spec decompress(binary(), Most, MaxSize, none | dictionary()) ->
    {ok, binary()} | {error, corrupt | checksum_mismatch | {too_large, non_neg_integer()}}
when
    Most :: non_neg_integer(), MaxSize :: non_neg_integer().
decompress(Data, Most, MaxSize, Dictionary) ->
    Options = dictionary(Dictionary, #{windowLogMax => ?WINDOW_LOG_MAX}),
    {ok, Context} = zstd:context(decompress, Options),
    try pieces(Context, Data, 0, min(Most, MaxSize), []) of
        too_large when Most > MaxSize -> {error, {too_large, MaxSize}};
        too_large -> {error, corrupt};
        Result -> Result
    after
        zstd:close(Context)
    end.

-spec pieces(Context :: term(), binary(), Size, Limit, [binary()]) ->
    {ok, binary()} | too_large | {error, corrupt | checksum_mismatch}
when
    Size :: non_neg_integer(), Limit :: non_neg_integer().
pieces(Context, Data, Size, Limit, Pieces) ->
    case stream(Context, Data) of
        {ok, _, Piece} when Size + byte_size(Piece) > Limit -> too_large;
        %% Without input left OTP may still hold output back: it has none when it gives none.
        {ok, <<>>, <<>>} -> {ok, iolist_to_binary(lists:reverse(Pieces))};
        {ok, Rest, Piece} ->
            pieces(Context, Rest, Size + byte_size(Piece), Limit, together(Piece, Pieces));
        {error, Reason} -> {error, Reason}
    end.

%% There may be millions of blocks without any content.
-spec together(binary(), [binary()]) -> [binary()].
together(<<>>, Pieces) -> Pieces;
together(Piece, Pieces) -> [Piece | Pieces].

%% A context for input of unknown length.
-spec compressor(1..22, boolean(), none | dictionary()) -> term().
compressor(Level, Checksum, Dictionary) ->
    Options = #{compressionLevel => Level, checksumFlag => Checksum},
    {ok, Context} = zstd:context(compress, dictionary(Dictionary, Options)),
    Context.

-spec decompressor(none | dictionary()) -> term().
decompressor(Dictionary) ->
    Options = dictionary(Dictionary, #{windowLogMax => ?WINDOW_LOG_MAX}),
    {ok, Context} = zstd:context(decompress, Options),
    Context.

%% One piece of output, and the input that is left. Another process may run between two of them.
-spec stream(Context :: term(), binary()) ->
    {ok, Rest :: binary(), Output :: binary()} | {error, corrupt | checksum_mismatch}.
stream(Context, Data) ->
    Slice = binary:part(Data, 0, min(?SLICE, byte_size(Data))),
    try zstd:stream(Context, Slice) of
        {continue, Rest, Output} -> streamed(Data, byte_size(Slice) - iolist_size(Rest), Output);
        {continue, Output} -> streamed(Data, byte_size(Slice), Output)
    catch
        error:{zstd_error, Text} -> {error, reason(Text)}
    end.

-spec streamed(binary(), Taken :: non_neg_integer(), binary()) ->
    {ok, Rest :: binary(), Output :: binary()}.
streamed(Data, Taken, Output) ->
    %% OTP counts the input as work, of which there may be next to none.
    true = erlang:bump_reductions(1 + byte_size(Output) div ?REDUCTION),
    {ok, binary:part(Data, Taken, byte_size(Data) - Taken), Output}.

-spec finish(Context :: term()) -> iolist().
finish(Context) ->
    {done, Output} = zstd:finish(Context, <<>>),
    Output.

-spec reason(binary()) -> corrupt | checksum_mismatch.
reason(<<"Restored data doesn't match checksum", _/binary>>) -> checksum_mismatch;
reason(_) -> corrupt.

%% What a handle keeps, so that the dictionary is not digested at each call. What dict/2,3 returns
%% for bytes that libzstd does not take can only be told by using it.
-spec prepare(binary(), Level) -> {ok, Ref} | {error, invalid_dictionary} when
    Level :: 1..22, Ref :: {prepared, binary(), Level, term(), term()}.
prepare(Bytes, Level) ->
    {ok, Compress} = zstd:dict(compress, Bytes, #{compressionLevel => Level}),
    {ok, Decompress} = zstd:dict(decompress, Bytes),
    case is_usable(Compress) andalso is_usable(Decompress) of
        true -> {ok, {prepared, Bytes, Level, Compress, Decompress}};
        false -> {error, invalid_dictionary}
    end.

%% The bytes decide. What stands beside them is foreign when the handle was made by another node or
%% the native library, made of something else when somebody put a handle together, and prepared for
%% one level.
-spec prepared(compress | decompress, binary(), Ref :: term(), 1..22) -> {ok, term()} | none.
prepared(compress, Bytes, {prepared, Bytes, Level, Compress, _}, Level) -> usable(Compress);
prepared(decompress, Bytes, {prepared, Bytes, _, _, Decompress}, _) -> usable(Decompress);
prepared(_, _, _, _) -> none.

-spec usable(term()) -> {ok, term()} | none.
usable(Dictionary) ->
    case is_usable(Dictionary) of
        true -> {ok, Dictionary};
        false -> none
    end.

-spec is_usable(term()) -> boolean().
is_usable(Dictionary) ->
    try zstd:get_dict_id(Dictionary) of
        _ -> true
    catch
        error:_ -> false
    end.
