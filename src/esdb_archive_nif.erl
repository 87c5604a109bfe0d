-module(esdb_archive_nif).
-moduledoc """
Compression: LZ4, Zstandard and zlib, with dictionaries, limits, and streams of any length.

```erlang
1> {ok, Packed} = esdb_archive_nif:compress(~"to be or not to be", zstd),
   esdb_archive_nif:decompress(Packed, zstd).
{ok,<<"to be or not to be">>}
```

| algorithm | format | levels |
|---|---|---|
| `lz4` | size of the content in 32 bits, little-endian, then one LZ4 block | none |
| `zstd` | frames of RFC 8878, with content size and checksum | 1 to 22, default 3 |
| `zlib` | RFC 1950 | 0 to 9, default 6 |

## Errors

What can happen in life is `{error, Reason}`, the same with and without the native library:

| reason | meaning |
|---|---|
| `truncated` | the input ends too early; so does an empty one |
| `corrupt` | the input breaks its format, or something follows its end |
| `checksum_mismatch` | the content of a Zstandard frame is not what was compressed |
| `{too_large, Limit}` | the content is larger than `max_size`, or cannot be compressed as `lz4` |
| `{window_too_large, Size}` | a Zstandard frame asks for a window of more than 128 MiB |
| `{dictionary_mismatch, Id}` | compressed with the dictionary of that id, which was not given |
| `invalid_dictionary` | it is empty, or has the header of a trained one and breaks its format |
| `{invalid_level, Level}` | the algorithm has no such level |
| `{unsupported_algorithm, Algorithm}` | it is none of the three |
| `{unsupported_option, Option}` | a dictionary or checksum for `lz4` or `zlib`: no such choice |
| `too_few_samples` | there is too little to train a dictionary on |
| `{not_streamable, lz4}` | LZ4 blocks state their size first |
| `no_memory` | the result finds no place |

Misuse (data that is no iodata, an unknown option, an option of a wrong type) raises `badarg`.
""".

-export([compress/2, compress/3, decompress/2, decompress/3]).
-export([compress_lz4/1, decompress_lz4/1]).
-export([compress_zstd/1, compress_zstd/2, decompress_zstd/1]).
-export([compress_zlib/1, compress_zlib/2, decompress_zlib/1]).
-export([compress_batch/2, compress_batch/3, decompress_batch/2, decompress_batch/3]).
-export([compression_stats/2, compression_stats/3]).
-export([train_dictionary/2, dictionary/1, dictionary_id/1]).
-export([stream/3, stream_update/2, stream_finish/1]).

-export_type([algorithm/0, compress_options/0, decompress_options/0, reason/0]).
-export_type([dictionary/0, stats/0, stream/0]).

-nifs([
    lz4_compress_n/1,
    lz4_compress_d/1,
    lz4_decompress_n/2,
    lz4_decompress_d/2,
    zstd_compress_n/4,
    zstd_compress_d/4,
    zstd_decompress_n/4,
    zstd_decompress_d/3,
    prepare_dictionary_d/1,
    train_dictionary_d/2
]).
%% What these see of the functions that the library replaces is not in their Erlang bodies.
-dialyzer({nowarn_function, [trained/3, train_dictionary_d/2, dictionary/1]}).

-type algorithm() :: lz4 | zstd | zlib.
-type compress_options() :: #{
    level => integer(), checksum => boolean(), dictionary => binary() | dictionary()
}.
-type decompress_options() :: #{
    max_size => non_neg_integer(), dictionary => binary() | dictionary()
}.
-opaque dictionary() :: {esdb_dictionary, binary(), term()}.
-opaque stream() :: esdb_archive_stream:stream().
-type stats() :: #{
    original_size := non_neg_integer(), compressed_size := non_neg_integer(), ratio := float()
}.
-type reason() ::
    truncated
    | corrupt
    | checksum_mismatch
    | invalid_dictionary
    | no_memory
    | {too_large, non_neg_integer()}
    | {window_too_large, pos_integer()}
    | {dictionary_mismatch, pos_integer()}
    | {invalid_level, integer()}
    | {unsupported_algorithm, term()}
    | {unsupported_option, atom()}
    | {not_streamable, lz4}.

%% How many bytes of input (for compression) or output (for decompression) take less than 1 ms.
-define(SHORT_LZ4, 262_144).
-define(SHORT_ZSTD, 131_072).
%% A dictionary given as bytes has to be prepared. That of a handle is, or is compared, or prepared
%% once.
-define(SHORT_DICTIONARY, 4_096).
-define(SHORT_HANDLE, 65_536).

-define(MIN_DICTIONARY, 256).
-define(MAX_DICTIONARY, 16_777_216).
-define(MIN_SAMPLES, 8).

-include("esdb_nif.hrl").

-doc "The same as `compress(Data, Algorithm, #{})`.".
-spec compress(Data :: iodata(), algorithm()) -> {ok, binary()} | {error, reason()}.
%% What is called most: one event.
compress(Data, zstd) when is_binary(Data), byte_size(Data) =< ?SHORT_ZSTD ->
    zstd_compress_n(Data, 3, true, none);
compress(Data, Algorithm) -> compress(Data, Algorithm, #{}).

-doc """
Compresses data, at a level or with options:

- `level`: see the table of the module; ignored for `lz4`.
- `checksum`: whether a Zstandard frame ends with a checksum of its content, default `true`.
- `dictionary`: for `zstd`, the bytes of a dictionary or, much faster, its handle (`dictionary/1`).

Compressed bytes are not the same with and without the native library, and each reads the other's.
Without the library, on OTP 27, the encoder for `zstd` is Erlang and has no levels: it takes those
from 1 to 22 and does the same for each.
""".
-spec compress(Data :: iodata(), algorithm(), Level :: integer() | compress_options()) ->
    {ok, binary()} | {error, reason()}.
compress(Data, Algorithm, Options) ->
    maybe
        {ok, Checked} ?= esdb_archive_options:compress(Algorithm, Options),
        compress_as(Algorithm, esdb_archive_options:data(Data), Checked)
    end.

-spec compress_as(algorithm(), binary(), esdb_archive_options:compress()) ->
    {ok, binary()} | {error, reason()}.
compress_as(lz4, Data, _) when byte_size(Data) =< ?SHORT_LZ4 ->
    lz4_compress_n(Data);
compress_as(lz4, Data, _) ->
    lz4_compress_d(Data);
compress_as(zstd, Data, #{level := Level, checksum := Checksum, dictionary := Dictionary}) ->
    case is_short(Data, Level, Dictionary) of
        true -> zstd_compress_n(Data, Level, Checksum, Dictionary);
        false -> zstd_compress_d(Data, Level, Checksum, Dictionary)
    end;
%% OTP's zlib: the native one is not faster (see bench/).
compress_as(zlib, Data, #{level := Level}) ->
    esdb_archive_erl:zlib_compress(Data, Level).

%% The higher levels are slower by up to two orders, and need large tables even for little data; a
%% dictionary is prepared for another level than the default one when that is first asked for.
-spec is_short(binary(), 1..22, none | esdb_archive_options:dictionary()) -> boolean().
is_short(Data, Level, none) ->
    Limit =
        if
            Level =< 3 -> ?SHORT_ZSTD;
            Level =< 9 -> ?SHORT_ZSTD div 8;
            true -> 1_024
        end,
    byte_size(Data) =< Limit;
is_short(Data, Level, Dictionary) ->
    Level =:= 3 andalso is_short_dictionary(Dictionary) andalso is_short(Data, Level, none).

-spec is_short_dictionary(none | esdb_archive_options:dictionary()) -> boolean().
is_short_dictionary(Bytes) when is_binary(Bytes) -> byte_size(Bytes) =< ?SHORT_DICTIONARY;
is_short_dictionary({esdb_dictionary, Bytes, _}) -> byte_size(Bytes) =< ?SHORT_HANDLE;
is_short_dictionary(none) -> true.

-doc "The same as `decompress(Data, Algorithm, #{})`.".
-spec decompress(Data :: iodata(), algorithm()) -> {ok, binary()} | {error, reason()}.
decompress(Data, Algorithm) -> decompress(Data, Algorithm, #{}).

-doc """
Decompresses data, with options:

- `max_size`: the largest content that is accepted, in bytes, default 1 GiB. Memory is taken as the
  content needs it, whatever the input says about itself.
- `dictionary`: for `zstd`, the bytes of a dictionary or its handle (`dictionary/1`).

All Zstandard frames of the input are read, and their contents joined; skippable frames are skipped.
What is wrong with their structure is told first. Then their blocks are judged in order, and the
first one that is corrupt (`corrupt`) or takes the content above `max_size` (`{too_large, MaxSize}`)
decides; the checksum of a frame comes after all of its blocks.
""".
-spec decompress(Data :: iodata(), algorithm(), decompress_options()) ->
    {ok, binary()} | {error, reason()}.
decompress(Data, Algorithm, Options) ->
    maybe
        {ok, Checked} ?= esdb_archive_options:decompress(Algorithm, Options),
        decompress_as(Algorithm, esdb_archive_options:data(Data), Checked)
    end.

-spec decompress_as(algorithm(), binary(), esdb_archive_options:decompress()) ->
    {ok, binary()} | {error, reason()}.
decompress_as(lz4, <<Size:32/little, _/binary>> = Data, #{max_size := MaxSize}) when
    Size > ?SHORT_LZ4; byte_size(Data) > ?SHORT_LZ4
->
    lz4_decompress_d(Data, MaxSize);
decompress_as(lz4, Data, #{max_size := MaxSize}) ->
    lz4_decompress_n(Data, MaxSize);
decompress_as(zstd, Data, #{max_size := MaxSize, dictionary := Dictionary}) ->
    IsShort = byte_size(Data) =< ?SHORT_ZSTD andalso is_short_dictionary(Dictionary),
    case IsShort andalso zstd_decompress_n(Data, MaxSize, Dictionary, 2 * ?SHORT_ZSTD) of
        false -> zstd_decompress_d(Data, MaxSize, Dictionary);
        {ok, long} -> zstd_decompress_d(Data, MaxSize, Dictionary);
        Result -> Result
    end;
decompress_as(zlib, Data, #{max_size := MaxSize}) ->
    esdb_archive_erl:zlib_decompress(Data, MaxSize).

-doc "The same as `compress(Data, lz4)`.".
-spec compress_lz4(Data :: iodata()) -> {ok, binary()} | {error, reason()}.
compress_lz4(Data) -> compress(Data, lz4).

-doc "The same as `decompress(Data, lz4)`.".
-spec decompress_lz4(Data :: iodata()) -> {ok, binary()} | {error, reason()}.
decompress_lz4(Data) -> decompress(Data, lz4).

-doc "The same as `compress(Data, zstd)`.".
-spec compress_zstd(Data :: iodata()) -> {ok, binary()} | {error, reason()}.
compress_zstd(Data) -> compress(Data, zstd).

-doc "The same as `compress(Data, zstd, Level)`.".
-spec compress_zstd(Data :: iodata(), Level :: integer()) -> {ok, binary()} | {error, reason()}.
compress_zstd(Data, Level) when is_integer(Level) -> compress(Data, zstd, Level);
compress_zstd(_, _) -> error(badarg).

-doc "The same as `decompress(Data, zstd)`.".
-spec decompress_zstd(Data :: iodata()) -> {ok, binary()} | {error, reason()}.
decompress_zstd(Data) -> decompress(Data, zstd).

-doc "The same as `compress(Data, zlib)`.".
-spec compress_zlib(Data :: iodata()) -> {ok, binary()} | {error, reason()}.
compress_zlib(Data) -> compress(Data, zlib).

-doc "The same as `compress(Data, zlib, Level)`.".
-spec compress_zlib(Data :: iodata(), Level :: integer()) -> {ok, binary()} | {error, reason()}.
compress_zlib(Data, Level) when is_integer(Level) -> compress(Data, zlib, Level);
compress_zlib(_, _) -> error(badarg).

-doc "The same as `decompress(Data, zlib)`.".
-spec decompress_zlib(Data :: iodata()) -> {ok, binary()} | {error, reason()}.
decompress_zlib(Data) -> decompress(Data, zlib).

-doc "The same as `compress_batch(List, Algorithm, #{})`.".
-spec compress_batch([iodata()], algorithm()) -> {ok, [binary()]} | {error, reason()}.
compress_batch(List, Algorithm) -> compress_batch(List, Algorithm, #{}).

-doc """
Compresses each element by itself, in order; the options are those of `compress/3`.

The first failure is the result. An element's size decides on which scheduler it is compressed.
""".
-spec compress_batch([iodata()], algorithm(), Level :: integer() | compress_options()) ->
    {ok, [binary()]} | {error, reason()}.
compress_batch(List, Algorithm, Options) when is_list(List) ->
    maybe
        {ok, Checked} ?= esdb_archive_options:compress(Algorithm, Options),
        compress_each(List, Algorithm, Checked, [])
    end;
compress_batch(_, _, _) ->
    error(badarg).

-doc "The same as `decompress_batch(List, Algorithm, #{})`.".
-spec decompress_batch([iodata()], algorithm()) -> {ok, [binary()]} | {error, reason()}.
decompress_batch(List, Algorithm) -> decompress_batch(List, Algorithm, #{}).

-doc """
Decompresses each element by itself, in order; the options are those of `decompress/3`.

`max_size` is the limit on all contents together. The first failure is the result.
""".
-spec decompress_batch([iodata()], algorithm(), decompress_options()) ->
    {ok, [binary()]} | {error, reason()}.
decompress_batch(List, Algorithm, Options) when is_list(List) ->
    maybe
        {ok, Checked} ?= esdb_archive_options:decompress(Algorithm, Options),
        decompress_each(List, Algorithm, Checked, maps:get(max_size, Checked), [])
    end;
decompress_batch(_, _, _) ->
    error(badarg).

-spec compress_each([iodata()], algorithm(), esdb_archive_options:compress(), [binary()]) ->
    {ok, [binary()]} | {error, reason()}.
compress_each([Data | List], Algorithm, Checked, Done) ->
    maybe
        {ok, Compressed} ?= compress_as(Algorithm, esdb_archive_options:data(Data), Checked),
        compress_each(List, Algorithm, Checked, [Compressed | Done])
    end;
compress_each([], _, _, Done) ->
    {ok, lists:reverse(Done)};
compress_each(_, _, _, _) ->
    error(badarg).

-spec decompress_each(
    [iodata()], algorithm(), esdb_archive_options:decompress(), non_neg_integer(), [binary()]
) ->
    {ok, [binary()]} | {error, reason()}.
decompress_each([Data | List], Algorithm, #{max_size := Left} = Checked, MaxSize, Done) ->
    case decompress_as(Algorithm, esdb_archive_options:data(Data), Checked) of
        {ok, Content} ->
            Checked1 = Checked#{max_size := Left - byte_size(Content)},
            decompress_each(List, Algorithm, Checked1, MaxSize, [Content | Done]);
        {error, {too_large, Left}} ->
            {error, {too_large, MaxSize}};
        {error, Reason} ->
            {error, Reason}
    end;
decompress_each([], _, _, _, Done) ->
    {ok, lists:reverse(Done)};
decompress_each(_, _, _, _, _) ->
    error(badarg).

-doc "The same as `compression_stats(Data, Algorithm, #{})`.".
-spec compression_stats(Data :: iodata(), algorithm()) -> {ok, stats()} | {error, reason()}.
compression_stats(Data, Algorithm) -> compression_stats(Data, Algorithm, #{}).

-doc """
How small the data becomes, in bytes; `ratio` is the original size divided by the compressed one, so
it is above 1.0 where compression gains something, and 0.0 for empty data.
""".
-spec compression_stats(Data :: iodata(), algorithm(), Level :: integer() | compress_options()) ->
    {ok, stats()} | {error, reason()}.
compression_stats(Data, Algorithm, Options) ->
    maybe
        {ok, Compressed} ?= compress(Data, Algorithm, Options),
        Original = iolist_size(Data),
        Size = byte_size(Compressed),
        {ok, #{original_size => Original, compressed_size => Size, ratio => Original / Size}}
    end.

-doc """
Trains a dictionary of at most `Size` bytes (256 bytes to 16 MiB) on samples of what shall be
compressed.

Small pieces of data that resemble each other, such as events of 350 bytes, become two to four times
smaller with a dictionary of 32 KB that a few thousand of them trained. With the native library this
is libzstd's trainer, else raw content chosen by a rule that `esdb_dictionary_erl` documents; either
is a dictionary for both.

## Errors

`too_few_samples`: there are less than eight samples that are not empty, or together they are
smaller than the dictionary would be.
""".
-spec train_dictionary(Samples :: [iodata()], Size :: pos_integer()) ->
    {ok, binary()} | {error, too_few_samples}.
train_dictionary(Samples, Size) when
    is_list(Samples), is_integer(Size), Size >= ?MIN_DICTIONARY, Size =< ?MAX_DICTIONARY
->
    Full = [Sample || Sample <- samples(Samples), Sample =/= <<>>],
    case length(Full) < ?MIN_SAMPLES orelse iolist_size(Full) < Size of
        true -> {error, too_few_samples};
        false -> trained(train_dictionary_d(Full, Size), Full, Size)
    end;
train_dictionary(_, _) ->
    error(badarg).

-spec samples(term()) -> [binary()].
samples([Sample | Samples]) -> [esdb_archive_options:data(Sample) | samples(Samples)];
samples([]) -> [];
samples(_) -> error(badarg).

%% libzstd's trainer gives up where it finds nothing to learn; the other one never does.
-spec trained({ok, binary()} | {error, reason()}, [binary()], pos_integer()) -> {ok, binary()}.
trained({ok, Dictionary}, _, _) -> {ok, Dictionary};
trained({error, _}, Samples, Size) -> esdb_archive_erl:train_dictionary(Samples, Size).

-doc """
A handle for a dictionary, prepared once for use in many calls.

Any bytes are a dictionary of raw content, except none at all and those with the header of a trained
one that break its format (`badarg`). The handle is good on this node with this load of the library;
elsewhere it is prepared again from the bytes it carries, which a small cache remembers. Raises
`system_limit` when it finds no memory.

Besides the bytes a handle keeps what libzstd makes of them: for 32 KB together about half a
megabyte, for 1 MB about 4. When it is used to compress at another level than 3 it keeps that form
too, for the last such level only: at level 9 about as much again, at level 22 a megabyte for 32 KB
and 17 for 1 MB.
""".
-spec dictionary(Bytes :: binary()) -> dictionary().
dictionary(Bytes) when is_binary(Bytes) ->
    case prepare_dictionary_d(Bytes) of
        {ok, {Own, Ref}} -> {esdb_dictionary, Own, Ref};
        {error, no_memory} -> error(system_limit);
        {error, invalid_dictionary} -> error(badarg)
    end;
dictionary(_) ->
    error(badarg).

-doc """
The id of a dictionary, which frames compressed with it carry; 0 for one of raw content.
""".
-spec dictionary_id(binary() | dictionary()) -> 0..16#FFFFFFFF.
dictionary_id(Dictionary) ->
    esdb_archive_options:dictionary_id(esdb_archive_options:dictionary(Dictionary)).

-doc """
Begins to compress or decompress data of any length in pieces, with bounded memory.

```erlang
{ok, S0} = esdb_archive_nif:stream(compress, zstd, #{}),
{ok, Out1, S1} = esdb_archive_nif:stream_update(S0, ~"to be or "),
{ok, Out2, S2} = esdb_archive_nif:stream_update(S1, ~"not to be"),
{ok, Out3} = esdb_archive_nif:stream_finish(S2).
```

The options are those of `compress/3` and `decompress/3`; `max_size` is the limit on the whole
content. The formats are the same too, except that a Zstandard frame does not state its content
size. LZ4 states it first and so cannot be written in pieces: `{error, {not_streamable, lz4}}`.

The codecs are OTP's, with the native library too: they do as well in pieces. OTP 27 has no zstd,
so there Zstandard streams run in Erlang even where the library is loaded: the same results, some
tens of times slower, and without levels (the encoder has one). Above level 9 OTP's zstd works on
128 KB at a time without being interrupted, for some tens of milliseconds at the highest levels:
prefer `compress/3` there where the data fits into memory.

A stream belongs to the process that began it, and each call returns the stream for the next call:
another process, or an older stream, is `badarg`. A stream is freed with its process or when it is
forgotten.
""".
-spec stream(compress | decompress, algorithm(), Options) -> {ok, stream()} | {error, reason()} when
    Options :: integer() | compress_options() | decompress_options().
stream(Direction, Algorithm, Options) -> esdb_archive_stream:open(Direction, Algorithm, Options).

-doc """
Takes a piece of input, and answers what there is of output.

`{more, Output, Stream}` when a call has made enough output (about 256 KB, at most one piece of a
codec more) and more waits in the stream: go on with empty input. So a small piece that decompresses
to gigabytes does not do so at once. An error ends the stream.
""".
-spec stream_update(stream(), Data :: iodata()) ->
    {ok | more, Output :: iodata(), stream()} | {error, reason()}.
stream_update(Stream, Data) -> esdb_archive_stream:update(Stream, Data).

-doc """
Says that the input is complete, and answers the rest of the output.

`{more, Output, Stream}` as in `stream_update/2`: call it again. `{error, truncated}` when what was
to be decompressed is not complete.
""".
-spec stream_finish(stream()) ->
    {ok, Output :: iodata()} | {more, Output :: iodata(), stream()} | {error, reason()}.
stream_finish(Stream) -> esdb_archive_stream:finish(Stream).

-spec lz4_compress_n(binary()) -> {ok, binary()} | {error, reason()}.
lz4_compress_n(Data) -> esdb_archive_erl:lz4_compress(Data).

-spec lz4_compress_d(binary()) -> {ok, binary()} | {error, reason()}.
lz4_compress_d(Data) -> esdb_archive_erl:lz4_compress(Data).

-spec lz4_decompress_n(binary(), MaxSize :: non_neg_integer()) ->
    {ok, binary()} | {error, reason()}.
lz4_decompress_n(Data, MaxSize) -> esdb_archive_erl:lz4_decompress(Data, MaxSize).

-spec lz4_decompress_d(binary(), MaxSize :: non_neg_integer()) ->
    {ok, binary()} | {error, reason()}.
lz4_decompress_d(Data, MaxSize) -> esdb_archive_erl:lz4_decompress(Data, MaxSize).

-spec zstd_compress_n(binary(), 1..22, Checksum :: boolean(), Dictionary) ->
    {ok, binary()} | {error, reason()}
when
    Dictionary :: none | esdb_archive_options:dictionary().
zstd_compress_n(Data, Level, Checksum, Dictionary) ->
    esdb_archive_erl:zstd_compress(Data, Level, Checksum, Dictionary).

-spec zstd_compress_d(binary(), 1..22, Checksum :: boolean(), Dictionary) ->
    {ok, binary()} | {error, reason()}
when
    Dictionary :: none | esdb_archive_options:dictionary().
zstd_compress_d(Data, Level, Checksum, Dictionary) ->
    esdb_archive_erl:zstd_compress(Data, Level, Checksum, Dictionary).

-spec zstd_decompress_n(binary(), MaxSize, Dictionary, Short) ->
    {ok, binary() | long} | {error, reason()}
when
    MaxSize :: non_neg_integer(),
    Dictionary :: none | esdb_archive_options:dictionary(),
    Short :: non_neg_integer().
zstd_decompress_n(Data, MaxSize, Dictionary, Short) ->
    esdb_archive_erl:zstd_decompress(Data, MaxSize, Dictionary, Short).

-spec zstd_decompress_d(binary(), MaxSize :: non_neg_integer(), Dictionary) ->
    {ok, binary()} | {error, reason()}
when
    Dictionary :: none | esdb_archive_options:dictionary().
zstd_decompress_d(Data, MaxSize, Dictionary) ->
    esdb_archive_erl:zstd_decompress(Data, MaxSize, Dictionary).

-spec prepare_dictionary_d(binary()) ->
    {ok, {binary(), Prepared :: term()}} | {error, invalid_dictionary | no_memory}.
prepare_dictionary_d(Bytes) -> esdb_archive_erl:prepare_dictionary(Bytes).

-spec train_dictionary_d([binary()], pos_integer()) -> {ok, binary()} | {error, reason()}.
train_dictionary_d(Samples, Size) -> esdb_archive_erl:train_dictionary(Samples, Size).
