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
%% What it takes to make a context and free it, in reductions.
-define(CONTEXT, 100).
%% Bytes of output that take as long as a reduction.
-define(REDUCTION, 256).

%% A dictionary: its bytes, or what zstd:dict/2,3 made of them.
-type dictionary() :: binary() | term().
-type reason() :: corrupt | checksum_mismatch | no_memory.
-type failure() :: {error, reason() | {too_large, non_neg_integer()}}.

-record(reading, {
    context :: term(),
    %% What has not been given to OTP, part of which has been walked.
    data :: binary(),
    walk :: esdb_zstd_frame_erl:walk(),
    %% Each block is given by itself, because it may take the content above max_size.
    is_stepwise :: boolean(),
    max_size :: non_neg_integer(),
    %% What the frame states, and where in the content it begins.
    stated = unknown :: non_neg_integer() | unknown,
    start = 0 :: non_neg_integer(),
    size = 0 :: non_neg_integer(),
    pieces = [] :: iolist()
}).

-spec compress(binary(), 1..22, boolean(), none | dictionary()) -> binary().
compress(Data, Level, Checksum, Dictionary) ->
    Options = #{compressionLevel => Level, checksumFlag => Checksum},
    Compressed = zstd:compress(slices(Data), dictionary(Dictionary, Options)),
    %% OTP counts the input as work, whatever the level, and what a new context takes not at all.
    true = erlang:bump_reductions(?CONTEXT + byte_size(Data) div compressed_in_a_reduction(Level)),
    iolist_to_binary(Compressed).

%% In bytes.
-spec compressed_in_a_reduction(1..22) -> pos_integer().
compressed_in_a_reduction(Level) when Level =< 3 -> 128;
compressed_in_a_reduction(Level) when Level =< 9 -> 32;
compressed_in_a_reduction(Level) when Level =< 15 -> 8;
compressed_in_a_reduction(_) -> 1.

%% OTP takes as much input in one call as it is given, and can be interrupted between two calls
%% only.
-spec slices(binary()) -> [binary()].
slices(<<Slice:?SLICE/binary, Data/binary>>) -> [Slice | slices(Data)];
slices(Data) -> [Data].

-spec dictionary(none | dictionary(), map()) -> map().
dictionary(none, Options) -> Options;
dictionary(Dictionary, Options) -> Options#{dictionary => Dictionary}.

%% The content of frames that were planned with the same limit, by the rule that
%% `esdb_archive_nif:decompress/3` documents.
-spec decompress(binary(), esdb_zstd_frame_erl:plan(), MaxSize, none | dictionary()) ->
    {ok, binary()} | failure()
when
    MaxSize :: non_neg_integer().
decompress(Data, Plan, MaxSize, Dictionary) ->
    Context = decompressor(Dictionary),
    try all(Context, Data, Plan, MaxSize) of
        {ok, Pieces} -> {ok, iolist_to_binary(Pieces)};
        {error, Reason} -> {error, Reason}
    after
        zstd:close(Context)
    end.

-spec all(Context :: term(), binary(), esdb_zstd_frame_erl:plan(), MaxSize) ->
    {ok, iolist()} | failure()
when
    MaxSize :: non_neg_integer().
all(Context, Data, #{most := Most, least := Least, is_short := true}, MaxSize) when
    Most =< MaxSize
->
    case given(Context, Data, Most, 0, []) of
        {ok, Size, Pieces} when Least =< Size, Size =< Most -> {ok, Pieces};
        {ok, _, _} -> {error, corrupt};
        {error, Reason} -> {error, Reason}
    end;
all(Context, Data, #{most := Most}, MaxSize) ->
    frames(#reading{
        context = Context,
        data = Data,
        walk = esdb_zstd_frame_erl:add(Data, esdb_zstd_frame_erl:new(MaxSize, any)),
        is_stepwise = Most > MaxSize,
        max_size = MaxSize
    }).

%% libzstd looks closer at the blocks of a stream than at those of a frame that it has as a whole.
%% So the header of a frame is given by itself, and no piece ends within a block: for whatever
%% frames, this does what native/core/src/archive/zstd.rs does.
-spec frames(#reading{}) -> {ok, iolist()} | failure().
frames(#reading{walk = Walk} = Reading) ->
    case esdb_zstd_frame_erl:next(Walk) of
        {event, Event, Walk1} ->
            maybe
                {ok, Reading1} ?= event(Event, Reading#reading{walk = Walk1}),
                frames(Reading1)
            end;
        {more, _} ->
            {ok, Reading#reading.pieces}
    end.

-spec event(esdb_zstd_frame_erl:event(), #reading{}) -> {ok, #reading{}} | failure().
event({frame, #{content_size := Stated}}, #reading{size = Size} = Reading) ->
    give(walked(Reading), Reading#reading{stated = Stated, start = Size});
event({block, _, _, _}, #reading{is_stepwise = IsStepwise} = Reading) ->
    case walked(Reading) of
        Count when Count >= ?SLICE; IsStepwise -> give(Count, Reading);
        _ -> {ok, Reading}
    end;
event({done, none}, Reading) ->
    ended(give(walked(Reading), Reading));
event({done, _Checksum}, Reading) ->
    maybe
        {ok, Reading1} ?= ended(give(walked(Reading) - 4, Reading)),
        give(4, Reading1)
    end.

%% libzstd does not look at the size where the last block is empty.
-spec ended({ok, #reading{}} | failure()) -> {ok, #reading{}} | failure().
ended({ok, #reading{stated = Stated, start = Start, size = Size}}) when
    is_integer(Stated), Size - Start < Stated
->
    {error, corrupt};
ended(Result) ->
    Result.

-spec walked(#reading{}) -> non_neg_integer().
walked(#reading{data = Data, walk = Walk}) ->
    byte_size(Data) - esdb_zstd_frame_erl:left(Walk).

%% Gives that much of the input to OTP, and judges what comes.
-spec give(Count :: non_neg_integer(), #reading{}) -> {ok, #reading{}} | failure().
give(0, Reading) ->
    {ok, Reading};
give(Count, #reading{context = Context, data = Data, size = Size, pieces = Pieces} = Reading) ->
    <<Piece:Count/binary, Rest/binary>> = Data,
    maybe
        {ok, Size1, Pieces1} ?= given(Context, Piece, limit(Reading), Size, Pieces),
        judged(Reading#reading{data = Rest, size = Size1, pieces = Pieces1})
    end.

%% Above that nothing more need come to judge it. (A number is less than an atom.)
-spec limit(#reading{}) -> non_neg_integer() | infinity.
limit(#reading{is_stepwise = false, stated = Stated, start = Start}) when is_integer(Stated) ->
    Start + Stated;
limit(_) ->
    infinity.

-spec judged(#reading{}) -> {ok, #reading{}} | failure().
judged(#reading{stated = Stated, start = Start, size = Size}) when Size - Start > Stated ->
    {error, corrupt};
judged(#reading{size = Size, max_size = MaxSize}) when Size > MaxSize ->
    {error, {too_large, MaxSize}};
judged(Reading) ->
    {ok, Reading}.

%% What comes of this piece of input, until it is more than the limit.
-spec given(Context :: term(), binary(), Limit, Size, iolist()) ->
    {ok, Size, iolist()} | {error, reason()}
when
    Limit :: non_neg_integer() | infinity, Size :: non_neg_integer().
given(Context, Data, Limit, Size, Pieces) ->
    case piece(Context, Data, byte_size(Data)) of
        %% Without input left OTP may still hold output back: it has none when it gives none.
        {ok, <<>>, <<>>} -> {ok, Size, Pieces};
        {ok, _, Piece} when Size + byte_size(Piece) > Limit -> {ok, Limit + 1, Pieces};
        {ok, Rest, Piece} ->
            given(Context, Rest, Limit, Size + byte_size(Piece), together(Pieces, Piece));
        {error, Reason} -> {error, Reason}
    end.

%% There may be millions of blocks without any content.
-spec together(iolist(), binary()) -> iolist().
together(Pieces, <<>>) -> Pieces;
together(Pieces, Piece) -> [Pieces, Piece].

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
    {ok, Rest :: binary(), Output :: binary()} | {error, reason()}.
stream(Context, Data) -> piece(Context, Data, min(?SLICE, byte_size(Data))).

-spec piece(Context :: term(), binary(), Count :: non_neg_integer()) ->
    {ok, Rest :: binary(), Output :: binary()} | {error, reason()}.
piece(Context, Data, Count) ->
    Slice = binary:part(Data, 0, Count),
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

-spec reason(binary()) -> reason().
reason(<<"Allocation error", _/binary>>) -> no_memory;
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
