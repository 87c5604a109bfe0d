-module(esdb_archive_stream).
-moduledoc false.
%% Compression and decompression in pieces, with bounded memory.
%%
%% The same code in both modes: OTP's zlib and, from release 28 on, OTP's zstd do as well in pieces
%% as the native library could (bench/), and on OTP 27 the own codec stands in. OTP's zstd is fed
%% behind the walk over the frames, which tells a truncated input from a complete one.

-export([open/3, update/2, finish/1]).
-export_type([stream/0, result/0]).

-record(stream, {
    owner :: pid(),
    %% How often the stream has been used: the term that is returned replaces the one before.
    uses :: atomics:atomics_ref(),
    use = 0 :: non_neg_integer(),
    left :: non_neg_integer(),
    max_size :: non_neg_integer(),
    codec :: codec()
}).

-opaque stream() :: #stream{}.
%% Each with the input that it has not taken yet; the own decoder has it in the second of its walks,
%% from which it takes event by event.
-type codec() ::
    {deflate, zlib:zstream(), binary()}
    | {inflate, zlib:zstream(), binary()}
    | {zstd_compress, term(), binary()}
    | {zstd_decompress, term(), binary(), esdb_zstd_frame_erl:walk()}
    | {own_compress, esdb_zstd_encode_erl:stream(), binary()}
    | {own_decompress, esdb_zstd_erl:decoder(), Ahead :: esdb_zstd_frame_erl:walk(),
        esdb_zstd_frame_erl:walk()}.
-type result() :: {ok | more, iodata(), stream()} | {error, esdb_archive_nif:reason()}.

%% A call returns when it has that many bytes of output, or no input left.
-define(PIECE, 262_144).
-define(NO_LIMIT, 16#7FFFFFFFFFFFFFFF).

-spec open(compress | decompress, esdb_archive_nif:algorithm(), map() | integer()) ->
    {ok, stream()} | {error, esdb_archive_nif:reason()}.
open(compress, Algorithm, Options) ->
    maybe
        {ok, Checked} ?= esdb_archive_options:compress(Algorithm, Options),
        {ok, Codec} ?= compressor(Algorithm, Checked),
        {ok, stream(Codec, ?NO_LIMIT)}
    end;
open(decompress, Algorithm, Options) ->
    maybe
        {ok, Checked} ?= esdb_archive_options:decompress(Algorithm, Options),
        #{max_size := MaxSize} = Checked,
        {ok, Codec} ?= decompressor(Algorithm, Checked),
        {ok, stream(Codec, MaxSize)}
    end;
open(_, _, _) ->
    error(badarg).

-spec stream(codec(), non_neg_integer()) -> stream().
stream(Codec, MaxSize) ->
    #stream{
        owner = self(),
        uses = atomics:new(1, [{signed, false}]),
        left = MaxSize,
        max_size = MaxSize,
        codec = Codec
    }.

-spec compressor(esdb_archive_nif:algorithm(), esdb_archive_options:compress()) ->
    {ok, codec()} | {error, esdb_archive_nif:reason()}.
compressor(lz4, _) ->
    {error, {not_streamable, lz4}};
compressor(zlib, #{level := Level}) ->
    Z = zlib:open(),
    ok = zlib:deflateInit(Z, Level),
    {ok, {deflate, Z, <<>>}};
compressor(zstd, #{level := Level, checksum := Checksum, dictionary := Dictionary}) ->
    Codec = esdb_zstd_erl:codec(),
    maybe
        {ok, Prepared} ?= esdb_archive_erl:prepared(compress, Dictionary, Level),
        case Codec of
            esdb_zstd_otp_erl ->
                {ok, {zstd_compress, Codec:compressor(Level, Checksum, Prepared), <<>>}};
            esdb_zstd_erl ->
                {ok, {own_compress, Codec:compressor(Checksum, Prepared), <<>>}}
        end
    end.

-spec decompressor(esdb_archive_nif:algorithm(), esdb_archive_options:decompress()) ->
    {ok, codec()} | {error, esdb_archive_nif:reason()}.
decompressor(lz4, _) ->
    {error, {not_streamable, lz4}};
decompressor(zlib, _) ->
    Z = zlib:open(),
    ok = zlib:inflateInit(Z, 15, error),
    {ok, {inflate, Z, <<>>}};
decompressor(zstd, #{max_size := MaxSize, dictionary := Dictionary}) ->
    Codec = esdb_zstd_erl:codec(),
    maybe
        {ok, Prepared} ?= esdb_archive_erl:prepared(decompress, Dictionary, 3),
        Id = esdb_archive_options:dictionary_id(Dictionary),
        Walk = esdb_zstd_frame_erl:new(MaxSize, Id, window),
        case Codec of
            esdb_zstd_otp_erl -> {ok, {zstd_decompress, Codec:decompressor(Prepared), <<>>, Walk}};
            esdb_zstd_erl -> {ok, {own_decompress, Codec:new(Prepared), Walk, Walk}}
        end
    end.

-spec update(stream(), iodata()) -> result().
update(#stream{codec = Codec} = Stream, Data) ->
    Bytes = esdb_archive_options:data(Data),
    Used = use(Stream),
    case feed(Bytes, Codec) of
        {ok, Codec1} -> answer(drain(Used#stream{codec = Codec1}, 0, []));
        {error, Reason} -> {error, Reason}
    end;
update(_, _) ->
    error(badarg).

-spec answer({done | more, iodata(), stream()} | {error, term()}) -> result().
answer({done, Output, Stream}) -> {ok, Output, Stream};
answer(Other) -> Other.

-spec finish(stream()) ->
    {ok, iodata()} | {more, iodata(), stream()} | {error, esdb_archive_nif:reason()}.
finish(#stream{} = Stream) ->
    case drain(use(Stream), 0, []) of
        {done, Output, #stream{codec = Codec}} ->
            case close(Codec) of
                {ok, Rest} -> {ok, [Output | Rest]};
                {error, Reason} -> {error, Reason}
            end;
        Other ->
            Other
    end;
finish(_) ->
    error(badarg).

%% The codecs of OTP keep their state outside the term: only the latest term of the owner is good.
-spec use(stream()) -> stream().
use(#stream{owner = Owner, uses = Uses, use = Use, left = Left, max_size = MaxSize} = Stream) when
    Owner =:= self(), is_integer(Use), is_integer(Left), is_integer(MaxSize)
->
    case atomics:compare_exchange(Uses, 1, Use, Use + 1) of
        ok -> Stream#stream{use = Use + 1};
        _ -> error(badarg)
    end;
use(_) ->
    error(badarg).

%% Takes output until there is enough for one answer, or no more without more input.
-spec drain(stream(), non_neg_integer(), iolist()) ->
    {done | more, iodata(), stream()} | {error, esdb_archive_nif:reason()}.
drain(#stream{codec = Codec, left = Left, max_size = MaxSize} = Stream, Size, Pieces) ->
    case pull(Codec) of
        {error, Reason} ->
            {error, Reason};
        {State, Output, Codec1} ->
            Bytes = iolist_size(Output),
            Stream1 = Stream#stream{codec = Codec1, left = Left - Bytes},
            Pieces1 = together(Pieces, Output, Bytes),
            if
                Bytes > Left -> {error, {too_large, MaxSize}};
                State =:= done -> {done, Pieces1, Stream1};
                Size + Bytes >= ?PIECE -> {more, Pieces1, Stream1};
                true -> drain(Stream1, Size + Bytes, Pieces1)
            end
    end.

%% A codec may be called very often without giving anything.
-spec together(iolist(), iodata(), non_neg_integer()) -> iolist().
together(Pieces, _, 0) -> Pieces;
together(Pieces, Output, _) -> [Pieces | Output].

-spec feed(binary(), codec()) -> {ok, codec()} | {error, esdb_archive_nif:reason()}.
feed(Bytes, {zstd_decompress, Context, Pending, Walk}) ->
    maybe
        {ok, Walk1} ?= esdb_zstd_frame_erl:feed(Bytes, Walk),
        {ok, {zstd_decompress, Context, joined(Pending, Bytes), Walk1}}
    end;
feed(Bytes, {own_decompress, Decoder, Ahead, Walk}) ->
    maybe
        {ok, Walk1} ?= esdb_zstd_frame_erl:feed(Bytes, Walk),
        {ok, {own_decompress, Decoder, esdb_zstd_frame_erl:add(Bytes, Ahead), Walk1}}
    end;
feed(Bytes, {Kind, State, Pending}) ->
    {ok, {Kind, State, joined(Pending, Bytes)}}.

-spec joined(binary(), binary()) -> binary().
joined(<<>>, Bytes) -> Bytes;
joined(Pending, Bytes) -> <<Pending/binary, Bytes/binary>>.

-spec pull(codec()) -> {done | more, iodata(), codec()} | {error, esdb_archive_nif:reason()}.
pull({deflate, Z, Input}) ->
    {done, zlib:deflate(Z, Input), {deflate, Z, <<>>}};
pull({inflate, Z, Input}) ->
    try zlib:safeInflate(Z, Input) of
        {continue, Output} -> {more, Output, {inflate, Z, <<>>}};
        {finished, Output} -> {done, Output, {inflate, Z, <<>>}};
        {need_dictionary, Id, _} -> {error, {dictionary_mismatch, Id}}
    catch
        error:data_error -> {error, corrupt}
    end;
pull({zstd_compress, Context, Input}) ->
    {ok, Rest, Output} = esdb_zstd_otp_erl:stream(Context, Input),
    {state(Rest, <<>>), Output, {zstd_compress, Context, Rest}};
pull({zstd_decompress, Context, Input, Walk}) ->
    maybe
        {ok, Rest, Output} ?= esdb_zstd_otp_erl:stream(Context, Input),
        {state(Rest, Output), Output, {zstd_decompress, Context, Rest, Walk}}
    end;
pull({own_compress, Encoder, Input}) ->
    {Output, Encoder1} = esdb_zstd_encode_erl:update(Input, Encoder),
    {done, Output, {own_compress, Encoder1, <<>>}};
pull({own_decompress, Decoder, Ahead, Walk}) ->
    maybe
        {event, Event, Ahead1} ?= esdb_zstd_frame_erl:next(Ahead),
        {ok, Decoder1} ?= esdb_zstd_erl:decode(Event, Decoder),
        {Output, Decoder2} = esdb_zstd_erl:take(Decoder1),
        {more, Output, {own_decompress, Decoder2, Ahead1, Walk}}
    else
        {more, Ahead2} -> {done, [], {own_decompress, Decoder, Ahead2, Walk}};
        {error, Reason} -> {error, Reason}
    end.

%% OTP's decoder may still hold output back when it has taken all input: it has none when it gives
%% none.
-spec state(binary(), binary()) -> done | more.
state(<<>>, <<>>) -> done;
state(_, _) -> more.

%% The end of the input: what is left of the output, or that something is missing.
-spec close(codec()) -> {ok, iodata()} | {error, truncated}.
close({deflate, Z, _}) ->
    Output = zlib:deflate(Z, [], finish),
    ok = zlib:deflateEnd(Z),
    zlib:close(Z),
    {ok, Output};
close({inflate, Z, _}) ->
    try zlib:inflateEnd(Z) of
        ok -> {ok, []}
    catch
        error:data_error -> {error, truncated}
    after
        zlib:close(Z)
    end;
close({zstd_compress, Context, _}) ->
    {ok, esdb_zstd_otp_erl:finish(Context)};
close({own_compress, Encoder, _}) ->
    {ok, esdb_zstd_encode_erl:finish(Encoder)};
close({_, _, _, Walk}) ->
    maybe
        ok ?= esdb_zstd_frame_erl:finish(Walk),
        {ok, []}
    end.
