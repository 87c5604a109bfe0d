-module(esdb_zstd_otp_erl).
-moduledoc false.
%% The codec of Zstandard frames that OTP has from release 28 on, behind the walk over the frames: by itself
%% OTP answers what there is of a truncated frame, and knows no limit.

-export([compress/4, decompress/4, check_dictionary/2]).

-ignore_xref([
    {zstd, close, 1},
    {zstd, compress, 2},
    {zstd, context, 2},
    {zstd, dict, 2},
    {zstd, dict, 3},
    {zstd, get_dict_id, 1},
    {zstd, stream, 2}
]).

%% Windows are limited by the walk: a frame in one segment has one as large as its content.
-define(WINDOW_LOG_MAX, 31).

-spec compress(binary(), 1..22, boolean(), none | binary()) -> binary().
compress(Data, Level, Checksum, Dictionary) ->
    Options = #{compressionLevel => Level, checksumFlag => Checksum},
    iolist_to_binary(zstd:compress(Data, dictionary(Dictionary, Options))).

-spec dictionary(none | binary(), map()) -> map().
dictionary(none, Options) -> Options;
dictionary(Dictionary, Options) -> Options#{dictionary => Dictionary}.

%% The content of frames that were walked before. Most is at least what they can hold.
-spec decompress(binary(), Most, MaxSize, none | binary()) ->
    {ok, binary()} | {error, corrupt | checksum_mismatch | {too_large, non_neg_integer()}}
when
    Most :: non_neg_integer(), MaxSize :: non_neg_integer().
decompress(Data, Most, MaxSize, Dictionary) ->
    Options = dictionary(Dictionary, #{windowLogMax => ?WINDOW_LOG_MAX}),
    {ok, Context} = zstd:context(decompress, Options),
    try stream(Context, Data, 0, min(Most, MaxSize), []) of
        {ok, Content} -> {ok, Content};
        too_large when Most > MaxSize -> {error, {too_large, MaxSize}};
        too_large -> {error, corrupt}
    catch
        error:{zstd_error, Text} -> {error, reason(Text)}
    after
        zstd:close(Context)
    end.

stream(Context, Data, Size, Limit, Pieces) ->
    {Rest, Piece} =
        case zstd:stream(Context, Data) of
            {continue, Remaining, Output} -> {iolist_to_binary(Remaining), Output};
            {continue, Output} -> {<<>>, Output}
        end,
    Together = Size + byte_size(Piece),
    if
        Together > Limit -> too_large;
        %% Without input left OTP may still hold output back: it has none when it gives none.
        Rest =:= <<>>, Piece =:= <<>> -> {ok, iolist_to_binary(lists:reverse(Pieces))};
        true -> stream(Context, Rest, Together, Limit, [Piece | Pieces])
    end.

-spec reason(binary()) -> corrupt | checksum_mismatch.
reason(<<"Restored data doesn't match checksum", _/binary>>) -> checksum_mismatch;
reason(_) -> corrupt.

%% Whether libzstd takes these bytes for a dictionary, in both directions. What dict/2,3 returns for bytes
%% that it does not take can only be told by using it.
-spec check_dictionary(binary(), 1..22) -> ok | {error, invalid_dictionary}.
check_dictionary(Dictionary, Level) ->
    {ok, Decompress} = zstd:dict(decompress, Dictionary),
    {ok, Compress} = zstd:dict(compress, Dictionary, #{compressionLevel => Level}),
    try {zstd:get_dict_id(Decompress), zstd:get_dict_id(Compress)} of
        {Id, Id} -> ok
    catch
        error:_ -> {error, invalid_dictionary}
    end.
