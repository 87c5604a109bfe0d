-module(esdb_archive_options).
-moduledoc false.
%% What callers may ask of esdb_archive_nif, checked once for both implementations.

-export([compress/2, decompress/2, data/1]).
-export([dictionary/1, dictionary_bytes/1, dictionary_id/1]).
-export_type([compress/0, decompress/0, dictionary/0]).

-type dictionary() :: binary() | {esdb_dictionary, binary(), term()}.
-type compress() :: #{level := 0..22, checksum := boolean(), dictionary := none | dictionary()}.
-type decompress() :: #{max_size := non_neg_integer(), dictionary := none | dictionary()}.

-define(MAX_SIZE, 1_073_741_824).
%% Sizes are 64-bit numbers in the formats: a larger limit is none.
-define(NO_LIMIT, 16#7FFFFFFFFFFFFFFF).
-define(DICTIONARY_MAGIC, 16#EC30A437).

-spec compress(Algorithm :: term(), integer() | map()) -> {ok, compress()} | {error, term()}.
compress(zstd, Options) when Options =:= #{} ->
    {ok, #{level => 3, checksum => true, dictionary => none}};
compress(Algorithm, Level) when is_integer(Level) ->
    compress(Algorithm, #{level => Level});
compress(Algorithm, Options) ->
    maybe
        ok ?= algorithm(Algorithm),
        Checked = options(Options, [level, checksum, dictionary]),
        ok ?= only_for_zstd(Algorithm, Checked),
        Level = maps:get(level, Checked, default_level(Algorithm)),
        ok ?= level(Algorithm, Level),
        {ok, #{
            level => Level,
            checksum => maps:get(checksum, Checked, true),
            dictionary => maps:get(dictionary, Checked, none)
        }}
    end.

-spec decompress(Algorithm :: term(), map()) -> {ok, decompress()} | {error, term()}.
decompress(zstd, Options) when Options =:= #{} ->
    {ok, #{max_size => ?MAX_SIZE, dictionary => none}};
decompress(Algorithm, Options) ->
    maybe
        ok ?= algorithm(Algorithm),
        Checked = options(Options, [max_size, dictionary]),
        ok ?= only_for_zstd(Algorithm, Checked),
        MaxSize = maps:get(max_size, Checked, ?MAX_SIZE),
        {ok, #{
            max_size => min(MaxSize, ?NO_LIMIT), dictionary => maps:get(dictionary, Checked, none)
        }}
    end.

-spec algorithm(term()) -> ok | {error, {unsupported_algorithm, term()}}.
algorithm(Algorithm) when Algorithm =:= lz4; Algorithm =:= zstd; Algorithm =:= zlib -> ok;
algorithm(Algorithm) -> {error, {unsupported_algorithm, Algorithm}}.

-spec options(map(), [atom()]) -> map().
options(Options, Known) when is_map(Options) ->
    #{known(Key, Known) => option(Key, Value) || Key := Value <- Options};
options(_, _) ->
    error(badarg).

-spec known(term(), [atom()]) -> atom().
known(Key, Known) ->
    case lists:member(Key, Known) of
        true -> Key;
        false -> error(badarg)
    end.

-spec option(atom(), term()) -> term().
option(level, Level) when is_integer(Level) -> Level;
option(checksum, Checksum) when is_boolean(Checksum) -> Checksum;
option(max_size, Size) when is_integer(Size), Size >= 0 -> Size;
option(dictionary, Dictionary) -> dictionary(Dictionary);
option(_, _) -> error(badarg).

-spec only_for_zstd(lz4 | zstd | zlib, map()) -> ok | {error, {unsupported_option, atom()}}.
only_for_zstd(zstd, _) -> ok;
only_for_zstd(_, #{dictionary := _}) -> {error, {unsupported_option, dictionary}};
only_for_zstd(_, #{checksum := _}) -> {error, {unsupported_option, checksum}};
only_for_zstd(_, #{}) -> ok.

-spec default_level(lz4 | zstd | zlib) -> 0 | 3 | 6.
default_level(lz4) -> 0;
default_level(zstd) -> 3;
default_level(zlib) -> 6.

-spec level(lz4 | zstd | zlib, integer()) -> ok | {error, {invalid_level, integer()}}.
level(lz4, _) -> ok;
level(zstd, Level) when Level >= 1, Level =< 22 -> ok;
level(zlib, Level) when Level >= 0, Level =< 9 -> ok;
level(_, Level) -> {error, {invalid_level, Level}}.

-spec data(iodata()) -> binary().
data(Data) when is_binary(Data) -> Data;
data(Data) when is_list(Data) -> iolist_to_binary(Data);
data(_) -> error(badarg).

-spec dictionary(term()) -> dictionary().
dictionary(Bytes) when is_binary(Bytes) -> Bytes;
dictionary({esdb_dictionary, Bytes, _Ref} = Handle) when is_binary(Bytes) -> Handle;
dictionary(_) -> error(badarg).

-spec dictionary_bytes(dictionary()) -> binary().
dictionary_bytes({esdb_dictionary, Bytes, _Ref}) -> Bytes;
dictionary_bytes(Bytes) -> Bytes.

-spec dictionary_id(none | dictionary()) -> 0..16#FFFFFFFF.
dictionary_id(none) -> 0;
dictionary_id({esdb_dictionary, Bytes, _Ref}) -> dictionary_id(Bytes);
dictionary_id(<<?DICTIONARY_MAGIC:32/little, Id:32/little, _/binary>>) -> Id;
dictionary_id(_Raw) -> 0.
