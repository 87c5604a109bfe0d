-module(esdb_archive_erl).
-moduledoc false.
%% The pure Erlang twin of esdb_archive_nif: the same formats, limits and errors without a library.
%%
%% zlib is OTP's. LZ4 is written here (esdb_lz4_erl). Zstandard is OTP's from release 28 on, behind
%% an own walk over the frames (esdb_zstd_frame_erl), and on OTP 27 an own codec (esdb_zstd_erl).

-export([lz4_compress/1, lz4_decompress/2]).
-export([zstd_compress/4, zstd_decompress/3, zstd_decompress/4]).
-export([zlib_compress/2, zlib_decompress/2]).
-export([prepare_dictionary/1, train_dictionary/2, prepared/3]).

-type result() :: {ok, binary()} | {error, esdb_archive_nif:reason()}.
-type dictionary() :: none | esdb_archive_options:dictionary().

-define(DEFAULT_LEVEL, 3).
%% A byte of a zlib stream stands for 1032 bytes at most (https://zlib.net/zlib_tech.html): where
%% all that fits into the limit there is nothing to count.
-define(MAX_RATIO, 1_032).
-define(SMALL_CONTENT, 4_194_304).

-spec lz4_compress(binary()) -> result().
lz4_compress(Data) -> esdb_lz4_erl:compress(Data).

-spec lz4_decompress(binary(), MaxSize :: non_neg_integer()) -> result().
lz4_decompress(Data, MaxSize) -> esdb_lz4_erl:decompress(Data, MaxSize).

-spec zstd_compress(binary(), 1..22, Checksum :: boolean(), dictionary()) -> result().
zstd_compress(Data, Level, Checksum, Dictionary) ->
    maybe
        {ok, Prepared} ?= prepared(compress, Dictionary, Level),
        {ok, (esdb_zstd_erl:codec()):compress(Data, Level, Checksum, Prepared)}
    end.

-spec zstd_decompress(binary(), MaxSize :: non_neg_integer(), dictionary()) -> result().
zstd_decompress(Data, MaxSize, Dictionary) ->
    case zstd_decompress(Data, MaxSize, Dictionary, infinity) of
        {ok, Content} when is_binary(Content) -> {ok, Content};
        {error, Reason} -> {error, Reason}
    end.

%% The same, unless the content may be larger than Short: then `{ok, long}`.
-spec zstd_decompress(binary(), MaxSize, dictionary(), Short) -> result() | {ok, long} when
    MaxSize :: non_neg_integer(), Short :: non_neg_integer() | infinity.
zstd_decompress(Data, MaxSize, Dictionary, Short) ->
    maybe
        {ok, Prepared} ?= prepared(decompress, Dictionary, ?DEFAULT_LEVEL),
        Id = esdb_archive_options:dictionary_id(Dictionary),
        {ok, #{most := Most} = Plan} ?= esdb_zstd_frame_erl:plan(Data, MaxSize, Id),
        true ?= Most =< Short orelse {ok, long},
        (esdb_zstd_erl:codec()):decompress(Data, Plan, MaxSize, Prepared)
    end.

%% What the codec uses a dictionary by: what its handle keeps, or the bytes, where they are one.
-spec prepared(compress | decompress, dictionary(), 1..22) ->
    {ok, none | binary() | Prepared :: term()} | {error, invalid_dictionary}.
prepared(_, none, _) ->
    {ok, none};
prepared(Direction, {esdb_dictionary, Bytes, Ref}, Level) ->
    case (esdb_zstd_erl:codec()):prepared(Direction, Bytes, Ref, Level) of
        {ok, Prepared} -> {ok, Prepared};
        none -> checked(Bytes, Level)
    end;
prepared(_, Bytes, Level) ->
    checked(Bytes, Level).

-spec checked(binary(), 1..22) -> {ok, binary()} | {error, invalid_dictionary}.
checked(Bytes, Level) ->
    maybe
        {ok, _} ?= prepare(Bytes, Level),
        {ok, Bytes}
    end.

%% The bytes and the reference of a handle.
-spec prepare_dictionary(binary()) ->
    {ok, {binary(), Ref :: term()}} | {error, invalid_dictionary}.
prepare_dictionary(Bytes) ->
    %% Not a part of something larger, all of which the handle would keep.
    Own = binary:copy(Bytes),
    maybe
        {ok, Ref} ?= prepare(Own, ?DEFAULT_LEVEL),
        {ok, {Own, Ref}}
    end.

-spec prepare(binary(), 1..22) -> {ok, Ref :: term()} | {error, invalid_dictionary}.
prepare(<<>>, _) -> {error, invalid_dictionary};
prepare(Bytes, Level) -> (esdb_zstd_erl:codec()):prepare(Bytes, Level).

-spec train_dictionary([binary()], pos_integer()) -> {ok, binary()}.
train_dictionary(Samples, Size) -> {ok, esdb_dictionary_erl:train(Samples, Size)}.

-spec zlib_compress(binary(), 0..9) -> result().
zlib_compress(Data, Level) ->
    Z = zlib:open(),
    try
        ok = zlib:deflateInit(Z, Level),
        Compressed = zlib:deflate(Z, Data, finish),
        ok = zlib:deflateEnd(Z),
        {ok, iolist_to_binary(Compressed)}
    after
        zlib:close(Z)
    end.

-spec zlib_decompress(binary(), MaxSize :: non_neg_integer()) -> result().
zlib_decompress(<<>>, _MaxSize) ->
    {error, truncated};
zlib_decompress(Data, MaxSize) ->
    Z = zlib:open(),
    try
        %% With `error` OTP does not take anything behind the end of the stream.
        ok = zlib:inflateInit(Z, 15, error),
        case byte_size(Data) * ?MAX_RATIO =< min(MaxSize, ?SMALL_CONTENT) of
            true -> inflated(Z, zlib:inflate(Z, Data));
            false -> inflate(Z, zlib:safeInflate(Z, Data), 0, MaxSize, [])
        end
    catch
        error:{need_dictionary, Id} -> {error, {dictionary_mismatch, Id}};
        error:data_error -> {error, corrupt}
    after
        zlib:close(Z)
    end.

-spec inflate(zlib:zstream(), Inflated, Size, MaxSize, Pieces :: [iolist()]) -> result() when
    Inflated :: {continue | finished, iolist()} | {need_dictionary, non_neg_integer(), iolist()},
    Size :: non_neg_integer(),
    MaxSize :: non_neg_integer().
inflate(_, {need_dictionary, Id, _}, _, _, _) ->
    {error, {dictionary_mismatch, Id}};
inflate(Z, {State, Output}, Size, MaxSize, Pieces) ->
    case {Size + iolist_size(Output), State} of
        {Together, _} when Together > MaxSize -> {error, {too_large, MaxSize}};
        {Together, continue} ->
            inflate(Z, zlib:safeInflate(Z, []), Together, MaxSize, [Output | Pieces]);
        {_, finished} ->
            inflated(Z, lists:reverse(Pieces, [Output]))
    end.

%% The end of the input is the end of the stream, or it was cut.
-spec inflated(zlib:zstream(), iolist()) -> result().
inflated(Z, Content) ->
    try zlib:inflateEnd(Z) of
        ok -> {ok, iolist_to_binary(Content)}
    catch
        error:data_error -> {error, truncated}
    end.
