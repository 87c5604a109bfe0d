-module(esdb_archive_gen).
-moduledoc """
Arguments for every export of `m:esdb_archive_nif`, valid and hostile, for `esdb_equivalence_SUITE`.
""".

-include_lib("proper/include/proper.hrl").

-export([args/2, cost/2, observe/3]).
-export([open/2, fed/4, forged/3, mixed_handle/2, dictionaries/0, vectors/0, vectors/1]).
-export([compression/0, content/0, text/0]).

-define(M, esdb_archive_nif).

cost(dictionary_id, 1) -> cheap;
cost(_, _) -> costly.

%% -------- arguments

args(compress, 2) -> [data(), algorithm()];
args(compress, 3) -> ?LET(A, algorithm(), [data(), A, compress_options(A)]);
args(decompress, 2) -> ?LET(A, algorithm(), [encoded(A), A]);
args(decompress, 3) -> ?LET(A, algorithm(), [encoded(A), A, decompress_options(A)]);
args(compress_lz4, 1) -> [data()];
args(compress_zstd, 1) -> [data()];
args(compress_zlib, 1) -> [data()];
args(compress_zstd, 2) -> [data(), level(zstd)];
args(compress_zlib, 2) -> [data(), level(zlib)];
args(decompress_lz4, 1) -> [encoded(lz4)];
args(decompress_zstd, 1) -> [encoded(zstd)];
args(decompress_zlib, 1) -> [encoded(zlib)];
args(compress_batch, 2) -> [listed(data()), algorithm()];
args(compress_batch, 3) -> ?LET(A, algorithm(), [listed(data()), A, compress_options(A)]);
args(decompress_batch, 2) -> ?LET(A, algorithm(), [listed(encoded(A)), A]);
args(decompress_batch, 3) -> ?LET(A, algorithm(), [listed(encoded(A)), A, decompress_options(A)]);
args(compression_stats, 2) -> [data(), algorithm()];
args(compression_stats, 3) -> ?LET(A, algorithm(), [data(), A, compress_options(A)]);
args(train_dictionary, 2) -> [samples(), dictionary_size()];
args(dictionary, 1) -> [frequency([{9, dictionary_bytes()}, {1, not_data()}])];
args(dictionary_id, 1) -> [frequency([{9, dictionary()}, {1, not_data()}])];
args(stream, 3) -> ?LET({D, A}, {direction(), algorithm()}, [D, A, stream_options(D, A)]);
args(stream_update, 2) -> ?LET({D, A}, streamed(), [stream(D, A), stream_input(D, A)]);
args(stream_finish, 1) -> ?LET({D, A}, streamed(), [stream(D, A)]).

%% These bytes with the reference of that handle.
mixed_handle(Bytes, Other) ->
    {esdb_dictionary, _, Ref} = ?M:dictionary(Other),
    {esdb_dictionary, Bytes, Ref}.

open(Direction, Algorithm) ->
    fed(Direction, Algorithm, #{}, []).

%% A stream that has taken these pieces; a new one where that failed. What came of it stays with the
%% process, which also observes the result.
fed(Direction, Algorithm, Options, Pieces) ->
    {ok, Stream} = ?M:stream(Direction, Algorithm, Options),
    case feed(Pieces, Stream, []) of
        {ok, Output, Fed} ->
            put(?MODULE, iolist_to_binary(Output)),
            Fed;
        {error, Reason, Output} ->
            New = open(Direction, Algorithm),
            put(?MODULE, {Reason, iolist_to_binary(Output)}),
            New
    end.

feed([Piece | Pieces], Stream, Output) ->
    case ?M:stream_update(Stream, Piece) of
        {ok, More, Stream1} -> feed(Pieces, Stream1, [Output | More]);
        {more, More, Stream1} -> feed([<<>> | Pieces], Stream1, [Output | More]);
        {error, Reason} -> {error, Reason, Output}
    end;
feed([], Stream, Output) ->
    {ok, Output, Stream}.

%% A stream with another element.
forged(Direction, Algorithm, {Place, Value}) ->
    setelement(Place, open(Direction, Algorithm), Value).

direction() -> frequency([{5, compress}, {5, decompress}, {1, sideways}]).

stream_options(decompress, Algorithm) -> decompress_options(Algorithm);
stream_options(_, Algorithm) -> compress_options(Algorithm).

streamed() -> {oneof([compress, decompress]), oneof([zlib, zstd])}.

stream(D, A) ->
    frequency([
        {8, {'$make', ?MODULE, open, [D, A]}},
        {12, {'$make', ?MODULE, fed, [D, A, fed_options(D, A), fed_pieces(D, A)]}},
        {1, {'$make', ?MODULE, forged, [D, A, {range(2, 6), oneof([an_atom, 1.5, <<>>])}]}},
        {1, not_data()}
    ]).

fed_options(compress, A) -> some_options(A);
fed_options(decompress, _) -> oneof([#{}, option(max_size, range(0, 10_000))]).

fed_pieces(compress, _) -> list(content());
fed_pieces(decompress, A) -> ?LET({E, Size}, {encoded(A), range(1, 300)}, in_pieces(E, Size)).

in_pieces(Bytes, Size) when is_binary(Bytes), byte_size(Bytes) > Size ->
    <<Piece:Size/binary, Rest/binary>> = Bytes,
    [Piece | in_pieces(Rest, Size)];
in_pieces(Bytes, _) when is_binary(Bytes) ->
    [Bytes];
in_pieces(_, _) ->
    [].

stream_input(decompress, Algorithm) -> encoded(Algorithm);
stream_input(_, _) -> data().

algorithm() ->
    frequency([
        {8, lz4},
        {8, zstd},
        {8, zlib},
        {1, oneof([foo, "zstd", 7, {zstd}, <<"lz4">>])}
    ]).

data() -> frequency([{12, content()}, {4, pieces()}, {1, not_data()}]).

content() ->
    frequency([
        {1, <<>>},
        {4, binary()},
        {4, text()},
        {2, ?LET({B, N}, {byte(), range(0, 5000)}, binary:copy(<<B>>, N))},
        {2, ?LET({B, N}, {non_empty(binary()), range(1, 500)}, binary:copy(B, N))},
        {1, ?LET({B, N}, {text(), range(1, 3000)}, binary:copy(<<B/binary, (N rem 251)>>, N))}
    ]).

text() ->
    Words = [
        ~"order",
        ~"placed",
        ~"{\"id\":",
        ~"shipped",
        ~"\"type\":\"",
        ~"stream-",
        ~"}, ",
        ~"42",
        ~" "
    ],
    ?LET(Chosen, list(oneof(Words)), iolist_to_binary(Chosen)).

%% iodata, improper lists among it
pieces() ->
    ?LET(
        {A, B, C},
        {content(), content(), byte()},
        oneof([[A, B], [A | B], [[A], C, [B | A]], [C | A]])
    ).

not_data() ->
    oneof([
        an_atom,
        1.5,
        17,
        -1,
        #{},
        {},
        <<1:3>>,
        [<<1:3>>],
        [a | b],
        [256],
        [-1],
        [<<"x">> | 7],
        [[] | c]
    ]).

listed(Type) -> frequency([{12, list(Type)}, {1, [Type | an_improper_end]}, {1, not_data()}]).

level(zstd) -> frequency([{8, range(1, 22)}, {2, hostile_level()}]);
level(_) -> frequency([{8, range(0, 9)}, {2, hostile_level()}]).

hostile_level() -> oneof([0, -1, 10, 23, 1 bsl 31, 1 bsl 70, -(1 bsl 70), an_atom, 3.0, <<"3">>]).

compress_options(Algorithm) ->
    frequency([
        {4, level(Algorithm)},
        {2, option(level, level(Algorithm))},
        {2, option(checksum, oneof([true, false, 1]))},
        {4, option(dictionary, dictionary())},
        {2, ?LET({D, L}, {dictionary(), level(Algorithm)}, #{dictionary => D, level => L})},
        {2, #{}},
        {1, oneof([[], an_atom, #{unknown => 1}, #{level => 3, max_size => 1}])}
    ]).

decompress_options(_) ->
    frequency([
        {4, option(max_size, max_size())},
        {4, option(dictionary, dictionary())},
        {2, #{}},
        {1, oneof([[], an_atom, 5, #{unknown => 1}, #{level => 3}])}
    ]).

max_size() -> frequency([{4, range(0, 10_000)}, {1, oneof([-1, 1.0, 1 bsl 64, 1 bsl 90])}]).

option(Key, Type) -> ?LET(Value, Type, #{Key => Value}).

dictionary() ->
    frequency([
        {4, dictionary_bytes()},
        {4, {'$make', ?M, dictionary, [oneof(dictionaries())]}},
        %% A handle of another node, or of an earlier load.
        {2, ?LET(Bytes, dictionary_bytes(), {esdb_dictionary, Bytes, make_ref()})},
        %% One that was put together: the bytes decide.
        {2, {'$make', ?MODULE, mixed_handle, [dictionary_bytes(), oneof(dictionaries())]}},
        {1, oneof([{esdb_dictionary, an_atom, none}, {esdb_dictionary}, none])}
    ]).

dictionary_bytes() ->
    frequency([
        {6, oneof(dictionaries())},
        {2, content()},
        {2, ?LET(Bytes, hd(dictionaries()), mutated(Bytes))}
    ]).

dictionary_size() ->
    frequency([
        {6, range(256, 4096)},
        {1, oneof([0, 255, -1, 1 bsl 24 + 1, 1 bsl 70, a, 300.0])}
    ]).

samples() ->
    frequency([
        {6, ?LET(N, range(0, 60), vector(N, text()))},
        {2, ?LET(N, range(8, 40), vector(N, binary(40)))},
        {1, listed(data())}
    ]).

%% One trained dictionary, and two of raw content.
dictionaries() ->
    case persistent_term:get(?MODULE, none) of
        none ->
            #{~"dictionaries" := #{~"trained" := #{~"bytes" := Trained}}} = vectors(),
            Events = iolist_to_binary([event(N) || N <- lists:seq(1, 5)]),
            Known = [base64:decode(Trained), Events, ~"abc"],
            persistent_term:put(?MODULE, Known),
            Known;
        Known ->
            Known
    end.

%% What independent implementations made: see vectors/generate_archive.py.
vectors() -> vectors("archive.json").

vectors(Name) ->
    Folder = filename:dirname(code:which(?MODULE)),
    {ok, Json} = file:read_file(filename:join([Folder, "vectors", Name])),
    json:decode(Json).

event(N) ->
    io_lib:format("{\"event_id\":\"~b\",\"type\":\"order_~b_placed\",\"stream\":\"order-~b\"}", [
        N * 7919, N rem 7, N rem 13
    ]).

%% An algorithm with valid options, a dictionary not among them.
compression() ->
    oneof([
        {lz4, #{}},
        {zlib, option(level, range(0, 9))},
        {zstd, ?LET({L, C}, {range(1, 22), boolean()}, #{level => L, checksum => C})}
    ]).

%% -------- what a decoder meets

encoded(Algorithm) when Algorithm =:= lz4; Algorithm =:= zstd; Algorithm =:= zlib ->
    Compressed = ?LET(
        {Data, Options},
        {content(), some_options(Algorithm)},
        compressed(Data, Algorithm, Options)
    ),
    frequency([
        {8, Compressed},
        {6, ?LET(C, Compressed, mutated(C))},
        {1, ?LET({A, B}, {Compressed, Compressed}, <<A/binary, B/binary>>)},
        {1, ?LET({A, B}, {Compressed, binary()}, <<(skippable(B))/binary, A/binary>>)},
        {1, ?LET({Size, B}, {range(0, 16#FFFFFFFF), binary()}, <<Size:32/little, B/binary>>)},
        {1, ?LET(B, binary(), <<16#FD2FB528:32/little, B/binary>>)},
        {2, data()}
    ]);
encoded(_) ->
    data().

skippable(Bytes) -> <<16#184D2A53:32/little, (byte_size(Bytes)):32/little, Bytes/binary>>.

some_options(zstd) ->
    oneof([#{}, #{level => 19}, option(dictionary, oneof(dictionaries()))]);
some_options(_) ->
    #{}.

compressed(Data, Algorithm, Options) ->
    {ok, Compressed} = ?M:compress(Data, Algorithm, Options),
    Compressed.

mutated(<<>>) ->
    <<0>>;
mutated(Bytes) ->
    ?LET(
        {At, Bit},
        {range(0, byte_size(Bytes) - 1), range(0, 7)},
        oneof([
            binary:part(Bytes, 0, At),
            flipped(Bytes, At, Bit),
            <<Bytes/binary, Bit>>
        ])
    ).

flipped(Bytes, At, Bit) ->
    <<Before:At/binary, Byte, After/binary>> = Bytes,
    <<Before/binary, (Byte bxor (1 bsl Bit)), After/binary>>.

%% -------- what must be equal

%% What was compressed must come back with the same options on this node; that the other node reads
%% it too is a property of esdb_archive_SUITE.
observe(compress, [Data, Algorithm | Options], {ok, Compressed}) ->
    {ok, is_content(Data, Compressed, Algorithm, Options)};
observe(compress_lz4, [Data], {ok, Compressed}) ->
    {ok, is_content(Data, Compressed, lz4, [])};
observe(compress_zstd, [Data | Level], {ok, Compressed}) ->
    {ok, is_content(Data, Compressed, zstd, Level)};
observe(compress_zlib, [Data | Level], {ok, Compressed}) ->
    {ok, is_content(Data, Compressed, zlib, Level)};
observe(compress_batch, [List, Algorithm | Options], {ok, Compressed}) ->
    {ok, [is_content(D, C, Algorithm, Options) || {D, C} <- lists:zip(List, Compressed)]};
observe(
    compression_stats,
    _,
    {ok, #{original_size := Size, compressed_size := Compressed, ratio := Ratio}}
) ->
    {ok, Size, is_integer(Compressed), Ratio =:= Size / Compressed};
observe(train_dictionary, _, {ok, Dictionary}) ->
    {ok, is_binary(Dictionary) andalso Dictionary =/= <<>>};
observe(dictionary, _, {esdb_dictionary, Bytes, _}) ->
    Bytes;
observe(stream, _, {ok, _}) ->
    {ok, stream};
observe(Function, _, Result) when Function =:= stream_update; Function =:= stream_finish ->
    {erase(?MODULE), streamed(Result)};
%% On OTP 27 one mode decompresses with libzstd and the other with the own codec, which refuses some
%% frames before it comes to their checksum: see doc/format.md.
observe(_, _, {error, checksum_mismatch}) ->
    case code:ensure_loaded(zstd) of
        {module, zstd} -> {error, checksum_mismatch};
        {error, _} -> {error, corrupt}
    end;
observe(_, _, Result) ->
    Result.

streamed({ok, Output}) -> {ok, iolist_to_binary(Output)};
streamed({State, Output, _}) -> {State, iolist_to_binary(Output)};
streamed({error, Reason}) -> {error, Reason}.

%% With the size of the data, so that results differ from each other.
is_content(Data, Compressed, Algorithm, Options) ->
    Content = iolist_to_binary(Data),
    Read = ?M:decompress(Compressed, Algorithm, reading(Options)),
    {byte_size(Content), Read =:= {ok, Content}}.

%% The options to read what was written with those.
reading([#{dictionary := Dictionary}]) -> #{dictionary => Dictionary};
reading(_) -> #{}.
