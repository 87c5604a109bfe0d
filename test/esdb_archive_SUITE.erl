-module(esdb_archive_SUITE).
-moduledoc """
Compression: formats, limits, hostile input, dictionaries, streams.

Every case runs on whatever implementation is loaded; what concerns the Erlang codecs calls them
directly, so that they are tested where OTP or the library would stand in for them.
""".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(M, esdb_archive_nif).
-define(ALGORITHMS, [lz4, zstd, zlib]).
-define(PROPERTY(N, Property),
    ?assert(proper:quickcheck(Property, [quiet, {numtests, N}, {to_file, user}]))
).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("a_n", atom_to_list(F))] ++
        [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("t_", atom_to_list(F))].

%% -------- A/NAR

a_nar_01_round_trip(_) ->
    [round_trip(Algorithm, Data) || Algorithm <- ?ALGORITHMS, Data <- samples()],
    ?PROPERTY(
        300,
        ?FORALL(
            {Algorithm, Data},
            {oneof(?ALGORITHMS), binary()},
            round_trip(Algorithm, Data) =:= ok
        )
    ).

a_nar_02_levels(_) ->
    Data = events(50),
    Levels = [{zlib, L} || L <- lists:seq(0, 9)] ++ [{zstd, L} || L <- lists:seq(1, 22)],
    [
        begin
            {ok, Compressed} = ?M:compress(Data, Algorithm, Level),
            ?assertEqual({ok, Data}, ?M:decompress(Compressed, Algorithm))
        end
     || {Algorithm, Level} <- Levels
    ],
    [
        ?assertEqual({error, {invalid_level, Level}}, ?M:compress(Data, Algorithm, Level))
     || {Algorithm, Level} <- [{zlib, -1}, {zlib, 10}, {zstd, 0}, {zstd, 23}, {zstd, 1 bsl 100}]
    ],
    ?assertMatch({ok, _}, ?M:compress(Data, lz4, 1 bsl 100)),
    {ok, Fast} = ?M:compress_zstd(Data, 1),
    {ok, Small} = ?M:compress_zstd(Data, 19),
    %% The encoder for OTP 27 has one level.
    ?assert(byte_size(Small) =< byte_size(Fast)),
    [?assert(byte_size(Small) < byte_size(Fast)) || ?M:is_nif_loaded()].

a_nar_03_zlib_is_zlib(_) ->
    [
        begin
            {ok, Compressed} = ?M:compress_zlib(Data),
            ?assertEqual(Data, zlib:uncompress(Compressed)),
            ?assertEqual({ok, Data}, ?M:decompress_zlib(zlib:compress(Data)))
        end
     || Data <- samples()
    ].

a_nar_04_garbage_and_truncation(_) ->
    [
        begin
            {ok, Compressed} = ?M:compress(Data, Algorithm),
            %% Whatever is cut off, something is missing; whatever follows is too much.
            [
                ?assertEqual(
                    {error, truncated},
                    ?M:decompress(binary:part(Compressed, 0, Size), Algorithm),
                    {Algorithm, Size}
                )
             || Size <- lists:seq(0, byte_size(Compressed) - 1)
            ],
            ?assertMatch({error, _}, ?M:decompress(<<Compressed/binary, 0>>, Algorithm)),
            [is_result(?M:decompress(Damaged, Algorithm)) || Damaged <- damaged(Compressed)]
        end
     || Algorithm <- ?ALGORITHMS, Data <- [<<>>, ~"a", events(3)]
    ],
    ?assertEqual({error, corrupt}, ?M:decompress(~"garbage, not a frame", zstd)),
    ?assertEqual({error, corrupt}, ?M:decompress(~"garbage, not zlib", zlib)).

a_nar_04_damage_is_noticed_by_the_checksum(_) ->
    Data = events(3),
    [
        begin
            {ok, Compressed} = ?M:compress(Data, Algorithm),
            [
                ?assertEqual(Data, Content)
             || Damaged <- damaged(Compressed),
                {ok, Content} <- [?M:decompress(Damaged, Algorithm)]
            ]
        end
     || Algorithm <- [zstd, zlib]
    ],
    {ok, Frame} = ?M:compress(Data, zstd),
    Flipped = flipped(Frame, bit_size(Frame) - 1),
    ?assertEqual({error, checksum_mismatch}, ?M:decompress(Flipped, zstd)).

a_nar_05_stats(_) ->
    Data = binary:copy(~"to be or not to be ", 1000),
    [
        begin
            {ok, #{original_size := 19_000, compressed_size := Size, ratio := Ratio}} = Stats,
            ?assert(is_float(Ratio)),
            ?assert(Ratio > 1.0),
            ?assertEqual(19_000 / Size, Ratio)
        end
     || Algorithm <- ?ALGORITHMS,
        Stats <- [
            ?M:compression_stats(Data, Algorithm),
            ?M:compression_stats(Data, Algorithm, 3)
        ]
    ],
    ?assertMatch({ok, #{original_size := 0, ratio := +0.0}}, ?M:compression_stats(<<>>, zstd)).

a_nar_06_unknown_algorithm(_) ->
    Foo = {error, {unsupported_algorithm, foo}},
    ?assertEqual(Foo, ?M:compress(~"a", foo)),
    ?assertEqual(Foo, ?M:compress(~"a", foo, 3)),
    ?assertEqual(Foo, ?M:decompress(~"a", foo)),
    ?assertEqual(Foo, ?M:compression_stats(~"a", foo)),
    ?assertEqual(Foo, ?M:compress_batch([~"a"], foo)),
    ?assertEqual(Foo, ?M:decompress_batch([~"a"], foo)),
    ?assertEqual(Foo, ?M:stream(compress, foo, #{})).

a_nar_07_batch_keeps_the_order(_) ->
    List = [integer_to_binary(N) || N <- lists:seq(1, 500)],
    [
        begin
            {ok, Compressed} = ?M:compress_batch(List, Algorithm),
            ?assertEqual({ok, List}, ?M:decompress_batch(Compressed, Algorithm)),
            ?assertEqual(
                {error, truncated},
                ?M:decompress_batch(Compressed ++ [<<>>, ~"x"], Algorithm)
            ),
            ?assertEqual(
                {error, {too_large, 100}},
                ?M:decompress_batch(Compressed, Algorithm, #{max_size => 100})
            )
        end
     || Algorithm <- ?ALGORITHMS
    ],
    ?assertEqual({ok, []}, ?M:compress_batch([], zstd)).

a_nif_01_implementation_and_flag_agree(_) ->
    ?assertEqual(?M:implementation() =:= nif, ?M:is_nif_loaded()).

%% -------- other implementations

t_vectors(_) ->
    #{~"contents" := Contents, ~"dictionaries" := Dictionaries, ~"cases" := Cases} =
        esdb_archive_gen:vectors(),
    ?assert(length(Cases) > 100),
    [vector(Case, Contents, Dictionaries) || Case <- Cases],
    [
        ?assertEqual(Id, ?M:dictionary_id(base64:decode(B)))
     || #{~"bytes" := B, ~"id" := Id} <- maps:values(Dictionaries)
    ].

vector(Case, Contents, Dictionaries) ->
    #{
        ~"content" := Name,
        ~"by" := By,
        ~"algorithm" := Algorithm,
        ~"compressed" := Base64,
        ~"dictionary" := D
    } = Case,
    Pieces = map_get(Name, Contents),
    Content = iolist_to_binary([binary:copy(base64:decode(B), N) || [B, N] <- Pieces]),
    Compressed = base64:decode(Base64),
    Dictionary =
        case D of
            null -> none;
            _ -> base64:decode(map_get(~"bytes", map_get(D, Dictionaries)))
        end,
    Options = dictionary(Dictionary),
    Atom = binary_to_existing_atom(Algorithm),
    Expected = {ok, Content},
    ?assertEqual(Expected, ?M:decompress(Compressed, Atom, Options), {Name, By}),
    ?assertEqual(Expected, twin(decompress, Compressed, Atom, Options), {Name, By}),
    Algorithm =:= ~"zstd" andalso ?assertEqual(Expected, own(Compressed, Dictionary), {Name, By}).

t_formats(_) ->
    ?assertMatch({ok, <<5:32/little, 16#50, "hello">>}, ?M:compress(~"hello", lz4)),
    %% magic, descriptor with a checksum and a size of one byte in one segment, the size
    ?assertMatch(
        {ok, <<16#FD2FB528:32/little, 2#00100100, 5, _/binary>>},
        ?M:compress(~"hello", zstd)
    ),
    ?assertMatch(
        {ok, <<16#FD2FB528:32/little, 2#00100000, 5, _/binary>>},
        ?M:compress(~"hello", zstd, #{checksum => false})
    ),
    {ok, Twin} = twin(compress, ~"hello", zstd, #{}),
    ?assertMatch(<<16#FD2FB528:32/little, 2#00100100, 5, _/binary>>, Twin).

%% What RFC 8878 prescribes and what follows from it, with the codec that is loaded and the own one.
t_rfc8878(_) ->
    #{
        ~"distributions" := Distributions,
        ~"tables" := Tables,
        ~"frames" := Frames,
        ~"broken" := Broken
    } = esdb_archive_gen:vectors("archive_rfc8878.json"),
    [
        begin
            AccuracyLog = accuracy_log(Kind),
            {AccuracyLog, States} = esdb_zstd_encode_erl:predefined(Kind),
            Expected = [list_to_tuple(State) || State <- map_get(atom_to_binary(Kind), Tables)],
            ?assertEqual(Expected, tuple_to_list(States), Kind),
            Counts = map_get(atom_to_binary(Kind), Distributions),
            ?assertEqual({AccuracyLog, States}, esdb_zstd_fse_erl:decoder(AccuracyLog, Counts))
        end
     || Kind <- [literal_length, offset, match_length]
    ],
    [decodes_to({ok, C}, F, Name) || #{~"name" := Name, ~"frame" := F, ~"content" := C} <- Frames],
    [
        decodes_to({error, binary_to_existing_atom(Reason)}, F, Name)
     || #{~"name" := Name, ~"frame" := F, ~"reason" := Reason} <- Broken
    ].

accuracy_log(offset) -> 5;
accuracy_log(_) -> 6.

decodes_to(Expected, Hex, Name) ->
    Frame = binary:decode_hex(Hex),
    ?assertEqual(Expected, ?M:decompress(Frame, zstd), Name),
    ?assertEqual(Expected, twin(decompress, Frame, zstd, #{}), Name),
    ?assertEqual(Expected, own(Frame, none), Name).

%% -------- two nodes

%% What one mode compresses the other one reads, whoever trained the dictionary.
t_each_mode_reads_what_the_other_wrote(_) ->
    with_peer(other_mode(), fun reads_what_the_other_wrote/1).

%% The same with the codec that stands in on OTP 27, whatever OTP this is; and any input, hostile
%% or not, has the same result.
t_own_zstd_stands_in(_) ->
    with_peer(off, fun(Peer) ->
        ok = remote(Peer, persistent_term, put, [{esdb_zstd_erl, codec}, esdb_zstd_erl]),
        esdb_zstd_erl = remote(Peer, esdb_zstd_erl, codec, []),
        reads_what_the_other_wrote(Peer),
        [
            ?PROPERTY(400, own_codec_agrees(Peer, Function, Arity))
         || {Function, Arity} <- [
                {compress, 3},
                {decompress, 3},
                {compress_batch, 3},
                {decompress_batch, 3},
                {compression_stats, 3},
                {dictionary, 1},
                {decompress_zstd, 1}
            ]
        ]
    end).

own_codec_agrees(Peer, Function, Arity) ->
    ?FORALL(Arguments, esdb_archive_gen:args(Function, Arity), begin
        Here = esdb_equivalence_SUITE:evaluate(?M, Function, Arguments),
        There = remote(Peer, esdb_equivalence_SUITE, evaluate, [?M, Function, Arguments]),
        ?WHENFAIL(
            ct:pal("~p~nhere ~p~nthere ~p", [Arguments, Here, There]),
            Here =:= There orelse
                (There =:= {value, {error, corrupt}} andalso excepted(Function, Arguments))
        )
    end).

excepted(decompress_zstd, [Data]) ->
    is_excepted(iolist_to_binary(Data), #{});
excepted(decompress, [Data, zstd, Options]) ->
    is_excepted(iolist_to_binary(Data), esdb_equivalence_SUITE:resolve(Options));
excepted(decompress_batch, [Batch, zstd, Options]) ->
    lists:any(fun(Data) -> excepted(decompress, [Data, zstd, Options]) end, Batch);
excepted(_, _) ->
    false.

reads_what_the_other_wrote(Peer) ->
    Events = [event(N) || N <- lists:seq(1, 400)],
    {ok, Here} = ?M:train_dictionary(Events, 2048),
    {ok, There} = remote(Peer, ?M, train_dictionary, [Events, 2048]),
    Trained = [#{dictionary => D} || D <- [Here, There, ~"raw content of events"]],
    ?PROPERTY(
        500,
        ?FORALL(
            {Data, {Algorithm, Options}, Dictionary, Size},
            {written(), esdb_archive_gen:compression(), oneof([#{} | Trained]), range(1, 5000)},
            begin
                Reading = maps:filter(fun(_, _) -> Algorithm =:= zstd end, Dictionary),
                Writing = maps:merge(Options, Reading),
                Mine = ?M:compress(Data, Algorithm, Writing),
                Its = remote(Peer, ?M, compress, [Data, Algorithm, Writing]),
                reads(?M, fun apply/3, Its, Data, Algorithm, Reading) andalso
                    reads(?M, remote(Peer), Mine, Data, Algorithm, Reading) andalso
                    streams(Peer, Algorithm, Data, Writing, Reading, Size)
            end
        )
    ).

written() ->
    oneof([
        esdb_archive_gen:content(),
        ?LET(N, range(1, 100_000), event(N)),
        ?LET(N, range(1, 300), events(N))
    ]).

reads(Module, Apply, {ok, Compressed}, Data, Algorithm, Reading) ->
    {ok, Data} =:= Apply(Module, decompress, [Compressed, Algorithm, Reading]).

streams(_, lz4, _, _, _, _) ->
    true;
streams(Peer, Algorithm, Data, Writing, Reading, Size) ->
    Pieces = chopped(Data, Size),
    Mine = through(compress, Algorithm, Writing, Pieces),
    Its = remote(Peer, ?MODULE, through, [compress, Algorithm, Writing, Pieces]),
    Read = [decompress, Algorithm, Reading],
    Data =:= apply(?MODULE, through, Read ++ [chopped(Its, Size)]) andalso
        Data =:= remote(Peer, ?MODULE, through, Read ++ [chopped(Mine, Size)]).

%% Frames that were damaged: what is loaded and OTP's codec always agree, and the own codec does but
%% for the exception that doc/format.md names.
t_damaged_frames_have_one_result(_) ->
    Count = 3_000 * list_to_integer(os:getenv("ESDB_PROP", "1")),
    _ = rand:seed(exsss, 20_261_121),
    Frames = list_to_tuple([frame() || _ <- lists:seq(1, 200)]),
    Results = [agreement(element(rand:uniform(200), Frames)) || _ <- lists:seq(1, Count)],
    ct:log("~p", [maps:groups_from_list(fun(R) -> R end, fun(_) -> 1 end, Results)]),
    [?assert(lists:member(Class, Results)) || Class <- [ok, corrupt, checksum_mismatch, too_large]],
    %% Where too many were excepted nothing would be proven.
    ?assert(length([R || R <- Results, R =:= excepted]) * 10 < Count).

agreement({Frame, Size, Options}) ->
    Damaged = hurt(rand:uniform(8), Frame),
    Below = max(0, Size - rand:uniform(200)),
    MaxSize = oneof_now([1 bsl 30, Size, rand:uniform(Size + 10), Below]),
    Limited = Options#{max_size => MaxSize},
    Loaded = ?M:decompress(Damaged, zstd, Limited),
    Twin = with(esdb_zstd_erl:codec(), Damaged, Limited),
    Own = with(esdb_zstd_erl, Damaged, Limited),
    Info = {Limited, Damaged},
    case esdb_zstd_erl:codec() of
        %% On OTP 27 the own codec is the twin's.
        esdb_zstd_otp_erl -> ?assertEqual(Loaded, Twin, Info);
        esdb_zstd_erl -> ok
    end,
    case Own of
        Loaded ->
            class(Loaded);
        {error, corrupt} ->
            ?assert(is_excepted(Damaged, Limited), Info),
            excepted
    end.

class({ok, _}) -> ok;
class({error, Reason}) when is_atom(Reason) -> Reason;
class({error, {Reason, _}}) -> Reason.

%% With and without checksum, size and dictionary, and of all kinds of blocks.
frame() ->
    Content = oneof_now([
        rand:bytes(rand:uniform(300)),
        events(rand:uniform(60)),
        events(rand:uniform(4000)),
        binary:copy(rand:bytes(rand:uniform(100)), rand:uniform(3000)),
        <<<<(trunc(abs(rand:normal() * 20)) band 255)>> || _ <- lists:seq(1, rand:uniform(3000))>>
    ]),
    Reading = oneof_now([#{}, #{} | [#{dictionary => D} || D <- esdb_archive_gen:dictionaries()]]),
    Writing = Reading#{
        level => oneof_now([1, 3, 9, 19]), checksum => oneof_now([true, false])
    },
    Frame =
        case rand:uniform(3) of
            1 -> through(compress, zstd, Writing, [Content]);
            2 -> element(2, ?M:compress(Content, zstd, Writing));
            3 -> blocks_together(Content, Writing)
        end,
    {Frame, byte_size(Content), Reading}.

%% Many blocks behind one header, with a small window and without a size. What repeats something of
%% the frame that it was written for may now repeat something else.
blocks_together(Content, #{checksum := Checksum} = Writing) ->
    Pieces = chopped(Content, max(900, byte_size(Content) div 50)),
    Blocks = [
        blocks(element(2, ?M:compress(Piece, zstd, Writing#{checksum => false})))
     || Piece <- Pieces
    ],
    WindowLog = oneof_now([10, 11, 13, 17]),
    All = [Blocks, last_block()],
    case Checksum of
        true -> checked_frame(All, rand:bytes(4));
        false -> open_frame(WindowLog, All)
    end.

blocks(Frame) -> blocks_of(esdb_zstd_frame_erl:next(walk(Frame))).

blocks_of({event, {block, raw, Bytes, Size}, Walk}) ->
    [<<(Size bsl 3):24/little>>, Bytes | blocks_of(esdb_zstd_frame_erl:next(Walk))];
blocks_of({event, {block, repeated, Byte, Size}, Walk}) ->
    [<<(Size bsl 3 bor 2):24/little>>, Byte | blocks_of(esdb_zstd_frame_erl:next(Walk))];
blocks_of({event, {block, compressed, Bytes, _}, Walk}) ->
    [compressed_block(0, Bytes) | blocks_of(esdb_zstd_frame_erl:next(Walk))];
blocks_of({event, _, Walk}) ->
    blocks_of(esdb_zstd_frame_erl:next(Walk));
blocks_of(_) ->
    [].

%% What libzstd does not look at: whether a Huffman-coded stream is used up, and whether a match
%% that finds its bytes reaches behind the window.
is_excepted(Frame, Options) ->
    Functions = [{esdb_zstd_huffman_erl, decode, 3}, {esdb_window_erl, copy, 3}],
    {Traces, _} = traced(fun() -> with(esdb_zstd_erl, Frame, Options) end, [call], fun() ->
        [1 = erlang:trace_pattern(F, [{'_', [], [{return_trace}]}], [global]) || F <- Functions]
    end),
    case lists:reverse(Traces) of
        [{trace, _, return_from, {esdb_zstd_huffman_erl, decode, 3}, corrupt} | _] ->
            true;
        [{trace, _, return_from, {esdb_window_erl, copy, 3}, error}, Call | _] ->
            {trace, _, call, {_, _, [Offset, Length, Window]}} = Call,
            Further = esdb_window_erl:reaching(1 bsl 40, Window),
            {ok, _} = esdb_window_erl:copy(Offset, Length, Further),
            true;
        _ ->
            false
    end.

walk(Frame) -> esdb_zstd_frame_erl:add(Frame, esdb_zstd_frame_erl:new(1 bsl 30, any)).

hurt(1, Frame) -> Frame;
hurt(2, Frame) -> binary:part(Frame, 0, rand:uniform(byte_size(Frame)) - 1);
hurt(3, Frame) -> hurt_at(rand:uniform(14), Frame);
hurt(4, Frame) -> hurt_at(rand:uniform(60), Frame);
hurt(5, Frame) -> <<Frame/binary, (hurt(8, Frame))/binary>>;
hurt(6, Frame) -> hurt(8, hurt(8, Frame));
hurt(_, Frame) -> hurt_at(rand:uniform(byte_size(Frame)), Frame).

%% Another byte, or another bit.
hurt_at(Place, Frame) ->
    At = min(Place, byte_size(Frame)) - 1,
    <<Before:At/binary, Byte, After/binary>> = Frame,
    Other = oneof_now([rand:uniform(256) - 1, Byte bxor (1 bsl (rand:uniform(8) - 1))]),
    <<Before/binary, Other, After/binary>>.

oneof_now(List) -> lists:nth(rand:uniform(length(List)), List).

%% Where no library has been built both are Erlang.
other_mode() ->
    Built = filelib:wildcard("esdb_archive_nif.so", code:priv_dir(erl_esdb_nifs)) =/= [],
    case ?M:implementation() of
        erlang when Built -> require;
        _ -> off
    end.

with_peer(Policy, Fun) ->
    Peer = esdb_peer:start(Policy),
    try
        Fun(Peer)
    after
        esdb_peer:stop(Peer)
    end.

remote(Peer) -> fun(M, F, A) -> remote(Peer, M, F, A) end.

remote(Peer, M, F, A) ->
    {value, Value} = esdb_peer:call(Peer, M, F, A),
    Value.

%% -------- the codec for OTP 27, called directly

t_own_zstd_decodes_every_level(_) ->
    [
        begin
            {ok, Compressed} = ?M:compress(Data, zstd, Level),
            ?assertEqual({ok, Data}, own(Compressed, none), {Level, byte_size(Data)})
        end
     || Data <- samples(), Level <- [1, 2, 3, 5, 7, 9, 13, 16, 19, 22]
    ].

%% The library has an encoder of its own for less than a kilobyte: each size around and below that.
t_own_zstd_decodes_every_size(_) ->
    Shapes = [
        binary:copy(<<7>>, 1100),
        rand:bytes(1100),
        events(12),
        binary:copy(rand:bytes(150), 8),
        <<<<(rand:uniform(40))>> || _ <- lists:seq(1, 1100)>>,
        <<<<(rand:uniform(rand:uniform(8)))>> || _ <- lists:seq(1, 1100)>>
    ],
    [
        begin
            Data = binary:part(Shape, 0, Size),
            {ok, Compressed} = ?M:compress(Data, zstd, #{checksum => Size rem 2 =:= 0}),
            ?assertEqual({ok, Data}, own(Compressed, none)),
            ?assertEqual({ok, Data}, ?M:decompress(Compressed, zstd)),
            ?assert(byte_size(Compressed) =< Size + 14)
        end
     || Shape <- Shapes, Size <- lists:seq(0, 1030)
    ].

t_own_zstd_decodes_tiny(_) ->
    ?PROPERTY(
        1000,
        ?FORALL(Data, tiny(), begin
            {ok, Compressed} = ?M:compress(Data, zstd),
            {ok, Data} =:= own(Compressed, none)
        end)
    ).

%% New bytes, runs, and what was there before.
tiny() ->
    Part = oneof([
        {new, binary()},
        {run, byte(), range(1, 40)},
        {again, non_neg_integer(), range(3, 60)}
    ]),
    ?LET(
        {Count, Parts},
        {range(0, 40), vector(40, Part)},
        tiny(lists:sublist(Parts, Count), <<>>)
    ).

tiny([{new, Bytes} | Parts], Data) ->
    tiny(Parts, <<Data/binary, Bytes/binary>>);
tiny([{run, Byte, Count} | Parts], Data) ->
    tiny(Parts, <<Data/binary, (binary:copy(<<Byte>>, Count))/binary>>);
tiny([{again, At, Count} | Parts], Data) when At < byte_size(Data) ->
    Again = binary:part(Data, At, min(Count, byte_size(Data) - At)),
    tiny(Parts, <<Data/binary, Again/binary>>);
tiny([_ | Parts], Data) ->
    tiny(Parts, Data);
tiny([], Data) ->
    Data.

t_own_zstd_is_decoded(_) ->
    Dictionaries = [none | esdb_archive_gen:dictionaries()],
    [
        begin
            Compressed = esdb_zstd_erl:compress(Data, 3, Checksum, Dictionary),
            ?assertEqual({ok, Data}, own(Compressed, Dictionary)),
            ?assertEqual({ok, Data}, ?M:decompress(Compressed, zstd, dictionary(Dictionary)))
        end
     || Data <- samples(), Checksum <- [true, false], Dictionary <- Dictionaries
    ],
    Text = events(500),
    ?assert(byte_size(esdb_zstd_erl:compress(Text, 3, true, none)) * 2 < byte_size(Text)).

t_own_zstd_survives_damage(_) ->
    Data = events(8),
    [
        begin
            Options = (dictionary(Dictionary))#{checksum => Checksum, level => 9},
            {ok, Compressed} = ?M:compress(Data, zstd, Options),
            [is_result(own(Damaged, Dictionary)) || Damaged <- damaged(Compressed)],
            [
                ?assertEqual({error, truncated}, own(binary:part(Compressed, 0, Size), Dictionary))
             || Size <- lists:seq(0, byte_size(Compressed) - 1)
            ]
        end
     || Checksum <- [true, false], Dictionary <- [none | esdb_archive_gen:dictionaries()]
    ].

t_own_checksum(_) ->
    ?PROPERTY(
        300,
        ?FORALL(Pieces, list(binary()), begin
            State = lists:foldl(fun esdb_xxh64_erl:update/2, esdb_xxh64_erl:new(), Pieces),
            Whole = esdb_hash_erl:xxhash64(iolist_to_binary(Pieces), 0),
            esdb_xxh64_erl:checksum(State) =:= Whole band 16#FFFFFFFF
        end)
    ).

%% -------- limits and lies

t_sizes_that_lie(_) ->
    Limit = 1 bsl 30,
    ?assertEqual({error, {too_large, Limit}}, ?M:decompress(<<16#FFFFFFFF:32, 0>>, lz4)),
    ?assertEqual({error, truncated}, ?M:decompress(<<(1 bsl 29):32/little, 0>>, lz4)),
    %% A frame of one byte that says it holds 16 exabytes, or half a gigabyte.
    Frame = fun(Size) -> <<16#FD2FB528:32/little, 2#11100000, Size:64/little, 9:24/little, 0>> end,
    ?assertEqual({error, {too_large, Limit}}, ?M:decompress(Frame(16#FFFFFFFFFFFFFFFF), zstd)),
    ?assertEqual({error, corrupt}, ?M:decompress(Frame(1 bsl 29), zstd)),
    ?assertEqual({error, {too_large, 3}}, ?M:decompress(Frame(4), zstd, #{max_size => 3})),
    %% A window of 2 GiB, and one of 3.75 TiB.
    Window = fun(Byte) -> <<16#FD2FB528:32/little, 0, Byte, 9:24/little, 0>> end,
    ?assertEqual({error, {window_too_large, 1 bsl 31}}, ?M:decompress(Window(21 bsl 3), zstd)),
    ?assertMatch({error, {window_too_large, _}}, ?M:decompress(Window(255), zstd)),
    ?assertEqual({ok, <<0>>}, ?M:decompress(Window(17 bsl 3), zstd)).

t_max_size(_) ->
    Data = binary:copy(<<0>>, 100_000),
    [
        begin
            {ok, Compressed} = ?M:compress(Data, Algorithm),
            ?assertEqual({ok, Data}, ?M:decompress(Compressed, Algorithm, #{max_size => 100_000})),
            ?assertEqual(
                {error, {too_large, 99_999}},
                ?M:decompress(Compressed, Algorithm, #{max_size => 99_999})
            ),
            Huge = #{max_size => 1 bsl 200},
            ?assertEqual({ok, Data}, ?M:decompress(Compressed, Algorithm, Huge)),
            ?assertEqual({ok, Data}, twin(decompress, Compressed, Algorithm, Huge))
        end
     || Algorithm <- ?ALGORITHMS
    ].

%% 4 bytes of input for each 128 KB of output: refused before it is decoded.
t_bomb(_) ->
    Blocks = binary:copy(<<(131_072 bsl 3 bor 2):24/little, 0>>, 20_000),
    Bomb = <<16#FD2FB528:32/little, 0, (17 bsl 3), Blocks/binary, 1:24/little>>,
    ?assertEqual({error, {too_large, 1 bsl 30}}, ?M:decompress(Bomb, zstd)),
    {ok, Stream} = ?M:stream(decompress, zstd, #{max_size => 1 bsl 33}),
    {more, Output, Stream1} = ?M:stream_update(Stream, Bomb),
    ?assert(iolist_size(Output) =< 1_048_576),
    {more, _, _} = ?M:stream_update(Stream1, <<>>).

%% A frame of a million blocks of nothing: 3 MB of input must not become a hundred times that, in
%% any codec, at once or as a stream.
t_blocks_of_nothing_take_no_memory(_) ->
    Blocks = binary:copy(<<0:24>>, 1_000_000),
    Frame = <<16#FD2FB528:32/little, 0, (17 bsl 3), Blocks/binary, 1:24/little>>,
    Codecs = lists:usort([esdb_zstd_erl:codec(), esdb_zstd_erl]),
    Readers = [
        fun() -> ?M:decompress(Frame, zstd) end,
        fun() -> twin(decompress, Frame, zstd, #{}) end,
        fun() -> {ok, through(decompress, zstd, #{}, [Frame])} end
    ],
    [
        with_codec(Codec, fun() -> ?assertEqual({ok, <<>>}, within(1_000_000, Reader)) end)
     || Codec <- Codecs, Reader <- Readers
    ].

%% Blocks whose content may be, by what the frame says, more than any machine has memory for.
t_sizes_that_could_be_take_no_memory(_) ->
    Nothing = binary:copy(compressed_block(0, <<0, 0>>), 500_000),
    Frame = open_frame(17, [Nothing, last_block()]),
    Stated = <<16#FD2FB528:32/little, 2#11000000, (17 bsl 3), (1 bsl 36):64/little>>,
    [
        begin
            ?assertEqual({ok, <<>>}, Decompress(Frame, #{max_size => 1 bsl 62})),
            Lie = <<Stated/binary, Nothing/binary, (last_block())/binary>>,
            ?assertEqual({error, corrupt}, Decompress(Lie, #{max_size => 1 bsl 62}))
        end
     || Decompress <- decoders()
    ].

%% Blocks are judged one by one, each as a whole, and the checksum after them.
t_the_first_block_decides(_) ->
    {Good, Bad, Last} = {repeats(600), compressed_block(0, <<3, 0>>), last_block()},
    Wrong = <<0:32>>,
    TooLarge = {error, {too_large, 1000}},
    Corrupt = {error, corrupt},
    Stated = fun(Size, Blocks) ->
        iolist_to_binary([<<16#FD2FB528:32/little, 16#80, 56, Size:32/little>> | Blocks])
    end,
    Cases = [
        {{ok, binary:copy(<<7>>, 600)}, open_frame(17, [Good, Last])},
        {TooLarge, open_frame(17, [Good, Good, Last])},
        {TooLarge, open_frame(17, [Good, Good, Bad, Last])},
        {Corrupt, open_frame(17, [Good, Bad, Good, Last])},
        {TooLarge, open_frame(17, [repeats(1001), Bad, Last])},
        {Corrupt, open_frame(17, [Bad, repeats(1001), Last])},
        {TooLarge, [open_frame(17, [Good, Last]), open_frame(17, [Good, Bad, Last])]},
        {Corrupt, [open_frame(17, [Good, Bad, Last]), open_frame(17, [Good, Good, Last])]},
        %% A checksum.
        {TooLarge, checked_frame([Good, Good, Last], Wrong)},
        {{error, checksum_mismatch}, checked_frame([Good, Last], Wrong)},
        {Corrupt, checked_frame([Good, Bad, Last], Wrong)},
        {{error, checksum_mismatch}, [
            checked_frame([Good, Last], Wrong), open_frame(17, [Good, Last])
        ]},
        %% A size that is stated, and more or less than that.
        {{ok, binary:copy(<<7>>, 600)}, Stated(600, [Good, Last])},
        {Corrupt, Stated(599, [Good, Last])},
        {Corrupt, Stated(601, [Good, Last])},
        {Corrupt, [open_frame(17, [Good, Last]), Stated(400, [repeats(500), Last])]},
        %% Of more than a block may hold, and of less than one needs.
        {Corrupt, open_frame(10, [block_of(1515), Last])},
        {Corrupt, open_frame(10, [block_of(1515), repeats(5), Last])},
        {{ok, binary:copy(<<7>>, 900)}, open_frame(10, [block_of(900), Last])},
        {Corrupt, open_frame(17, [compressed_block(0, <<>>), Last])},
        {Corrupt, open_frame(17, [compressed_block(0, <<0>>), Last])},
        {Corrupt, binary:decode_hex(~"28B52FFD00584D0000100000010096F4FF16")}
    ],
    [
        ?assertEqual(
            Expected, Decompress(iolist_to_binary(Frame), #{max_size => 1000}), {Index, Frame}
        )
     || {Index, {Expected, Frame}} <- lists:enumerate(Cases), Decompress <- decoders()
    ].

%% What is loaded, and both codecs of the twin.
decoders() ->
    Codecs = lists:usort([esdb_zstd_erl:codec(), esdb_zstd_erl]),
    [
        fun(Frame, Options) -> ?M:decompress(Frame, zstd, Options) end
        | [fun(Frame, Options) -> with(Codec, Frame, Options) end || Codec <- Codecs]
    ].

with(Codec, Frame, Options) ->
    {ok, #{max_size := MaxSize, dictionary := Dictionary}} =
        esdb_archive_options:decompress(zstd, Options),
    Id = esdb_archive_options:dictionary_id(Dictionary),
    maybe
        {ok, Plan} ?= esdb_zstd_frame_erl:plan(Frame, MaxSize, Id),
        Codec:decompress(Frame, Plan, MaxSize, Dictionary)
    end.

%% A frame that does not state its size.
open_frame(WindowLog, Blocks) ->
    iolist_to_binary([<<16#FD2FB528:32/little, 0, ((WindowLog - 10) bsl 3)>> | Blocks]).

checked_frame(Blocks, Checksum) ->
    iolist_to_binary([<<16#FD2FB528:32/little, 2#100, (7 bsl 3)>>, Blocks, Checksum]).

compressed_block(Last, Bytes) ->
    <<(byte_size(Bytes) bsl 3 bor 4 bor Last):24/little, Bytes/binary>>.

last_block() -> <<1:24/little>>.

%% A compressed block whose literals are that many sevens.
repeats(Count) -> compressed_block(0, <<(sevens(Count))/binary, 0>>).

sevens(Count) -> <<(Count bsl 4 bor 2#0101):16/little, 7>>.

%% The same with a sequence: one literal, and a match of 515 of what is one back, its codes repeated
%% and its bits zero.
block_of(Count) ->
    Sequence = <<1, 2#01010100, 1, 2, 45, 16#0800:16/little>>,
    compressed_block(0, <<(sevens(Count - 515))/binary, Sequence/binary>>).

%% What Fun returns when its process needs no more than that many words.
within(Words, Fun) ->
    Limit = {max_heap_size, #{size => Words, kill => true, error_logger => false}},
    {_, Monitor} = spawn_opt(fun() -> exit({done, Fun()}) end, [monitor, Limit]),
    receive
        {'DOWN', Monitor, process, _, {done, Result}} -> Result;
        {'DOWN', Monitor, process, _, Reason} -> {stopped, Reason}
    end.

with_codec(Codec, Fun) ->
    Before = esdb_zstd_erl:codec(),
    persistent_term:put({esdb_zstd_erl, codec}, Codec),
    try
        Fun()
    after
        persistent_term:put({esdb_zstd_erl, codec}, Before)
    end.

t_frames_are_joined_and_skippable_ones_skipped(_) ->
    {ok, One} = ?M:compress(~"one", zstd),
    {ok, Two} = ?M:compress(~"two", zstd, #{checksum => false}),
    Skippable = <<16#184D2A5A:32/little, 4:32/little, "skip">>,
    ?assertEqual({ok, ~"onetwo"}, ?M:decompress([Skippable, One, Skippable, Two, Skippable], zstd)),
    ?assertEqual({ok, <<>>}, ?M:decompress(Skippable, zstd)),
    ?assertEqual({error, truncated}, ?M:decompress(binary:part(Skippable, 0, 11), zstd)).

t_misuse_is_badarg(_) ->
    Calls = [
        fun() -> ?M:compress(an_atom, zstd) end,
        fun() -> ?M:compress([<<"a">> | b], zstd) end,
        fun() -> ?M:compress(<<1:3>>, lz4) end,
        fun() -> ?M:decompress({}, zlib) end,
        fun() -> ?M:compress(~"a", zstd, #{levl => 3}) end,
        fun() -> ?M:compress(~"a", zstd, #{level => high}) end,
        fun() -> ?M:compress(~"a", zstd, best) end,
        fun() -> ?M:compress_zstd(~"a", #{}) end,
        fun() -> ?M:decompress(~"a", zstd, #{max_size => -1}) end,
        fun() -> ?M:compress_batch(~"a", zstd) end,
        fun() -> ?M:compress_batch([~"a" | ~"b"], zstd) end,
        fun() -> ?M:dictionary(<<>>) end,
        fun() -> ?M:dictionary_id(none) end,
        fun() -> ?M:train_dictionary([~"a"], 255) end,
        fun() -> ?M:stream(sideways, zstd, #{}) end,
        fun() -> ?M:stream_update(none, ~"a") end
        | [
            fun() -> ?M:stream_update(esdb_archive_gen:forged(compress, A, {Place, x}), ~"a") end
         || A <- [zlib, zstd], Place <- [2, 3, 4, 5, 6]
        ]
    ],
    [?assertError(badarg, Call()) || Call <- Calls].

t_options_of_zstd_only(_) ->
    [
        ?assertEqual(
            {error, {unsupported_option, Option}},
            ?M:compress(~"a", Algorithm, #{Option => Value})
        )
     || Algorithm <- [lz4, zlib], {Option, Value} <- [{dictionary, ~"abc"}, {checksum, true}]
    ].

%% -------- dictionaries

t_trained_dictionary(_) ->
    Events = [event(N) || N <- lists:seq(1, 3000)],
    {Training, Others} = lists:split(2000, Events),
    {ok, Dictionary} = ?M:train_dictionary(Training, 8192),
    ?assert(byte_size(Dictionary) =< 8192),
    Plain = total(Others, #{}),
    Small = total(Others, #{dictionary => ?M:dictionary(Dictionary)}),
    ?assert(Small * 2 < Plain),
    {ok, Twin} = esdb_archive_erl:train_dictionary(Training, 8192),
    ?assert(total(Others, #{dictionary => Twin}) * 2 < Plain).

t_too_few_samples(_) ->
    Few = {error, too_few_samples},
    ?assertEqual(Few, ?M:train_dictionary([], 256)),
    ?assertEqual(Few, ?M:train_dictionary([event(N) || N <- lists:seq(1, 7)], 256)),
    ?assertEqual(Few, ?M:train_dictionary([event(N) || N <- lists:seq(1, 20)], 1 bsl 20)),
    %% Samples that teach nothing still make a dictionary.
    Dull = [binary:copy(<<N>>, 64) || N <- lists:seq(1, 20)],
    ?assertMatch({ok, _}, ?M:train_dictionary(Dull, 256)).

%% Each of them would be left out by a choice of every Nth sample.
t_twin_trains_on_few_large_samples(_) ->
    Common = iolist_to_binary([event(N) || N <- lists:seq(1, 40)]),
    Samples = [
        <<(rand:bytes(700))/binary, Common/binary, (rand:bytes(300_000))/binary>>
     || _ <- lists:seq(1, 8)
    ],
    {ok, Dictionary} = esdb_archive_erl:train_dictionary(Samples, 4096),
    ?assert(byte_size(Dictionary) =< 4096),
    ?assertMatch({_, _}, binary:match(Common, binary:part(Dictionary, 0, 128))),
    ?assert(binary:longest_common_suffix([Dictionary, lists:last(Samples)]) < 64).

t_twin_trains_on_many_tiny_samples(_) ->
    Many = [event(N) || N <- lists:seq(1, 100_000)],
    Others = [event(N) || N <- lists:seq(200_001, 200_500)],
    [
        begin
            {ok, Dictionary} = esdb_archive_erl:train_dictionary(Many, Size),
            ?assert(byte_size(Dictionary) =< Size),
            ?assert(total(Others, #{dictionary => Dictionary}) * 2 < total(Others, #{}))
        end
     || Size <- [8192, 1 bsl 22]
    ].

%% Many pieces and many epochs: the work must not grow with the product of both.
t_twin_trains_in_linear_time(_) ->
    Samples = [rand:bytes(85_000) || _ <- lists:seq(1, 200)],
    Train = fun(Size) -> {ok, _} = esdb_archive_erl:train_dictionary(Samples, Size) end,
    [Few, Many] = [reductions(fun() -> Train(Size) end) || Size <- [8192, 1 bsl 24]],
    ct:log("~b and ~b reductions", [Few, Many]),
    ?assert(Many < 1.5 * Few).

%% The reference of a handle is a short cut to what its bytes say.
t_the_bytes_of_a_handle_decide(_) ->
    [Trained | _] = esdb_archive_gen:dictionaries(),
    Like = flipped(Trained, bit_size(Trained) - 100),
    Data = iolist_to_binary([event(7), binary:part(Trained, byte_size(Trained) - 200, 200)]),
    [
        begin
            Mixed = esdb_archive_gen:mixed_handle(Bytes, Other),
            {ok, Compressed} = ?M:compress(Data, zstd, #{dictionary => Mixed}),
            ?assertEqual({ok, Compressed}, ?M:compress(Data, zstd, #{dictionary => Bytes})),
            ?assertEqual({ok, Data}, ?M:decompress(Compressed, zstd, #{dictionary => Bytes})),
            ?assertEqual({ok, Data}, ?M:decompress(Compressed, zstd, #{dictionary => Mixed}))
        end
     || Bytes <- [Trained, Like, ~"abc", event(7)],
        Other <- [Trained, Like, ~"abd", ~"abc"]
    ],
    Invalid = esdb_archive_gen:mixed_handle(<<>>, Trained),
    ?assertEqual(
        {error, invalid_dictionary}, ?M:compress(Data, zstd, #{dictionary => Invalid})
    ).

%% OTP counts the input as work, whatever the level.
t_higher_levels_are_more_work(_) ->
    Data = rand:bytes(16_384),
    Codec = esdb_zstd_erl:codec(),
    Work = fun(Level) -> reductions(fun() -> Codec:compress(Data, Level, true, none) end) end,
    %% A timeslice has 4,000 reductions.
    Counted = [{Level, Work(Level)} || Level <- [3, 9, 19]],
    ?assertMatch([{3, _}, {9, Nine}, {19, Most}] when Nine >= 1_000 andalso Most >= 3_000, Counted).

%% A dictionary given as bytes is prepared, which takes up to 1.5 ms for 64 KB: not on a normal
%% scheduler. Where one has to be that came with a handle, and fails or not, the scheduler is told.
t_preparing_a_dictionary_is_work(_) ->
    Calls = [
        fun(Dictionary) -> ?M:compress(~"x", zstd, #{dictionary => Dictionary}) end,
        fun(Dictionary) -> ?M:decompress(~"x", zstd, #{dictionary => Dictionary}) end
    ],
    [
        begin
            ?assertEqual(native(["d"]), schedulers(fun() -> Call(rand:bytes(65_536)) end)),
            ?assertEqual(native(["d"]), schedulers(fun() -> Call(rand:bytes(4_097)) end)),
            ?assertEqual(native(["n"]), schedulers(fun() -> Call(rand:bytes(4_096)) end)),
            Foreign = {esdb_dictionary, rand:bytes(60_000), make_ref()},
            ?assertEqual(native(["n"]), schedulers(fun() -> Call(Foreign) end)),
            [
                %% A timeslice has 4,000 reductions.
                ?assert(reductions(fun() -> Call(Dictionary) end) >= Least, Least)
             || {Least, Dictionary} <- [
                    {400, rand:bytes(4_096)},
                    {400, <<16#EC30A437:32/little, (rand:bytes(4_088))/binary>>},
                    {3_000, {esdb_dictionary, rand:bytes(60_000), make_ref()}}
                ],
                ?M:is_nif_loaded()
            ]
        end
     || Call <- Calls
    ].

native(Schedulers) ->
    case ?M:is_nif_loaded() of
        true -> Schedulers;
        false -> []
    end.

%% Of the native functions that Fun calls: normal or dirty. In Erlang they are all the same.
schedulers(Fun) ->
    Functions = [
        {zstd_compress_n, 4}, {zstd_compress_d, 4}, {zstd_decompress_n, 4}, {zstd_decompress_d, 3}
    ],
    {Traces, _} = traced(Fun, [call], fun() ->
        [erlang:trace_pattern({?M, F, A}, ?M:is_nif_loaded(), [local]) || {F, A} <- Functions]
    end),
    [lists:last(string:split(atom_to_list(F), "_", all)) || {trace, _, call, {?M, F, _}} <- Traces].

%% Of a process of its own: no more can be counted at once than a timeslice has left, and this one
%% has garbage.
reductions(Fun) ->
    in_a_process(fun() ->
        {reductions, Before} = process_info(self(), reductions),
        _ = Fun(),
        {reductions, After} = process_info(self(), reductions),
        After - Before
    end).

t_each_mode_reads_the_other_with_a_dictionary(_) ->
    Data = event(7),
    [
        begin
            {ok, Compressed} = Compress(compress, Data, zstd, #{dictionary => D}),
            ?assertEqual(
                {ok, Data},
                Decompress(decompress, Compressed, zstd, #{dictionary => Other})
            )
        end
     || Dictionary <- esdb_archive_gen:dictionaries(),
        D <- [Dictionary, ?M:dictionary(Dictionary)],
        Other <- [Dictionary, {esdb_dictionary, Dictionary, make_ref()}],
        Compress <- both(),
        Decompress <- both()
    ].

%% Whoever made the handle, and whatever it keeps: its bytes decide.
t_any_process_uses_any_handle(_) ->
    [Dictionary, Other | _] = esdb_archive_gen:dictionaries(),
    Data = event(7),
    {esdb_dictionary, _, OthersRef} = ?M:dictionary(Other),
    Peer = esdb_peer:start(off),
    {value, Foreign} = esdb_peer:call(Peer, ?M, dictionary, [Dictionary]),
    ok = esdb_peer:stop(Peer),
    Handles = [
        ?M:dictionary(Dictionary),
        binary_to_term(term_to_binary(?M:dictionary(Dictionary))),
        {esdb_dictionary, Dictionary, OthersRef},
        Foreign
    ],
    [
        ?assertEqual({ok, Data}, in_a_process(fun() -> there_and_back(Data, Handle, Level) end))
     || Handle <- Handles, Level <- [1, 3, 19]
    ].

there_and_back(Data, Handle, Level) ->
    Options = #{dictionary => Handle, level => Level},
    {ok, Compressed} = ?M:compress(Data, zstd, Options),
    ?assertEqual(
        {error, {dictionary_mismatch, ?M:dictionary_id(Handle)}}, ?M:decompress(Compressed, zstd)
    ),
    ?M:decompress(Compressed, zstd, #{dictionary => Handle}).

in_a_process(Fun) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({done, Fun()}) end),
    receive
        {'DOWN', Monitor, process, Pid, {done, Result}} -> Result
    end.

t_wrong_dictionary(_) ->
    [Trained | _] = esdb_archive_gen:dictionaries(),
    Id = ?M:dictionary_id(Trained),
    {ok, Compressed} = ?M:compress(event(1), zstd, #{dictionary => Trained}),
    Mismatch = {error, {dictionary_mismatch, Id}},
    ?assertEqual(Mismatch, ?M:decompress(Compressed, zstd)),
    ?assertEqual(Mismatch, ?M:decompress(Compressed, zstd, #{dictionary => ~"abc"})),
    Broken = binary:part(Trained, 0, 40),
    Invalid = {error, invalid_dictionary},
    ?assertEqual(Invalid, ?M:compress(~"a", zstd, #{dictionary => Broken})),
    ?assertEqual(Invalid, ?M:decompress(Compressed, zstd, #{dictionary => Broken})),
    ?assertEqual(Invalid, esdb_zstd_erl:prepare(Broken, 3)),
    ?assertError(badarg, ?M:dictionary(Broken)).

%% -------- streams

t_stream_round_trip(_) ->
    ?PROPERTY(
        200,
        ?FORALL(
            {Algorithm, Pieces, Size},
            {oneof([zlib, zstd]), list(binary()), range(1, 50)},
            begin
                Data = iolist_to_binary(Pieces),
                Compressed = through(compress, Algorithm, #{}, Pieces),
                {ok, Data} =:= ?M:decompress(Compressed, Algorithm) andalso
                    Data =:= through(decompress, Algorithm, #{}, chopped(Compressed, Size))
            end
        )
    ).

%% OTP's codec works on what it is given without being interrupted: it is given little at a time.
t_stream_is_interrupted(_) ->
    Zeros = binary:copy(<<0>>, 1 bsl 24),
    {ok, Compressed} = ?M:compress(Zeros, zstd, #{level => 1}),
    Empty = binary:copy(<<16#FD2FB528:32/little, 16#20, 0, 1:24/little>>, 100_000),
    Sizes = [
        largest_input(fun() -> through(Direction, zstd, #{}, [Data]) end)
     || {Direction, Data} <- [{compress, Zeros}, {decompress, Compressed}, {decompress, Empty}]
    ],
    ?assertEqual([], [Size || Size <- Sizes, Size > 32_768]),
    %% Between two calls other processes run.
    ?assert(times_off(fun() -> through(compress, zstd, #{}, [Zeros]) end) > 16).

%% Of the calls of OTP's codec that Fun makes.
largest_input(Fun) ->
    {Traces, _} = traced(Fun, [call], fun() ->
        erlang:trace_pattern({zstd, stream, 2}, true, [global])
    end),
    Inputs = [iolist_size(Data) || {trace, _, call, {zstd, stream, [_, Data]}} <- Traces],
    ?assert(Inputs =/= [] orelse esdb_zstd_erl:codec() =:= esdb_zstd_erl),
    lists:max([0 | Inputs]).

times_off(Fun) ->
    {Traces, _} = traced(Fun, [running], fun() -> ok end),
    length([out || {trace, _, out, _} <- Traces]).

traced(Fun, Flags, Prepare) ->
    Self = self(),
    Worker = spawn_link(fun() ->
        receive
            go -> Self ! {self(), Fun()}
        end
    end),
    Prepare(),
    1 = erlang:trace(Worker, true, [{tracer, Self} | Flags]),
    Worker ! go,
    receive
        {Worker, Result} -> {collect(Worker), Result}
    end.

%% All that was traced until now.
collect(Worker) ->
    Ref = erlang:trace_delivered(Worker),
    receive
        {trace_delivered, Worker, Ref} -> traces(Worker)
    end.

traces(Worker) ->
    receive
        Trace when element(1, Trace) =:= trace, element(2, Trace) =:= Worker ->
            [Trace | traces(Worker)]
    after 0 -> []
    end.

t_stream_of_the_own_codec(_) ->
    Data = iolist_to_binary([events(2000), binary:copy(<<7>>, 200_000), events(100)]),
    New = esdb_zstd_encode_erl:new(true, {0, <<>>}),
    {Blocks, Encoder} = esdb_zstd_encode_erl:update(Data, New),
    Compressed = iolist_to_binary([Blocks, esdb_zstd_encode_erl:finish(Encoder)]),
    ?assertEqual({ok, Data}, ?M:decompress(Compressed, zstd)),
    ?assertEqual({ok, Data}, own(Compressed, none)).

t_stream_errors(_) ->
    ?assertEqual({error, {not_streamable, lz4}}, ?M:stream(compress, lz4, #{})),
    ?assertEqual({error, {not_streamable, lz4}}, ?M:stream(decompress, lz4, #{})),
    [
        begin
            {ok, Compressed} = ?M:compress(events(100), Algorithm),
            {ok, S0} = ?M:stream(decompress, Algorithm, #{}),
            Cut = binary:part(Compressed, 0, byte_size(Compressed) - 1),
            {ok, _, S1} = ?M:stream_update(S0, Cut),
            ?assertEqual({error, truncated}, ?M:stream_finish(S1)),
            %% A stream is used once, by its owner.
            ?assertError(badarg, ?M:stream_update(S0, <<>>)),
            ?assertError(badarg, ?M:stream_finish(S1)),
            {ok, S2} = ?M:stream(decompress, Algorithm, #{max_size => 10}),
            ?assertEqual({error, {too_large, 10}}, ?M:stream_update(S2, Compressed)),
            {ok, S3} = ?M:stream(decompress, Algorithm, #{}),
            Update = fun() -> ?M:stream_update(S3, <<>>) end,
            {_, Monitor} = spawn_monitor(fun() -> exit(catch_error(Update)) end),
            receive
                {'DOWN', Monitor, process, _, Reason} -> ?assertEqual(badarg, Reason)
            end
        end
     || Algorithm <- [zlib, zstd]
    ].

%% 128 MB pass through compression and decompression, made and dropped piece by piece.
t_stream_of_128_mb_in_bounded_memory(_) ->
    Piece = events(8000),
    Count = (1 bsl 27) div byte_size(Piece) + 1,
    [
        begin
            {ok, C} = ?M:stream(compress, Algorithm, #{}),
            {ok, D} = ?M:stream(decompress, Algorithm, #{}),
            {Size, Memory} = pump(Count, Piece, C, D, 0, 0),
            ?assertEqual(Count * byte_size(Piece), Size),
            ct:log("~s: ~b bytes, at most ~b bytes of binaries", [Algorithm, Size, Memory]),
            ?assert(Memory < 1 bsl 26)
        end
     || Algorithm <- [zlib, zstd]
    ].

pump(0, _, C, D, Size, Memory) ->
    {ok, Last} = ?M:stream_finish(C),
    {Bytes, D1} = count(?M:stream_update(D, Last), 0),
    {ok, Rest} = ?M:stream_finish(D1),
    {Size + Bytes + iolist_size(Rest), Memory};
pump(Count, Piece, C, D, Size, Memory) ->
    {ok, Compressed, C1} = ?M:stream_update(C, Piece),
    {Bytes, D1} = count(?M:stream_update(D, Compressed), 0),
    Count rem 16 =:= 0 andalso garbage_collect(),
    pump(Count - 1, Piece, C1, D1, Size + Bytes, max(Memory, held())).

%% The binaries that this process holds.
held() ->
    {binary, Binaries} = process_info(self(), binary),
    lists:sum([Size || {_, Size, _} <- Binaries]).

count({ok, Output, Stream}, Bytes) ->
    {Bytes + iolist_size(Output), Stream};
count({more, Output, Stream}, Bytes) ->
    count(?M:stream_update(Stream, <<>>), Bytes + iolist_size(Output)).

%% -------- helpers

round_trip(Algorithm, Data) ->
    [
        begin
            {ok, Compressed} = Compress(compress, Data, Algorithm, #{}),
            {ok, Data} = Decompress(decompress, Compressed, Algorithm, #{})
        end
     || Compress <- both(), Decompress <- both()
    ],
    ok.

%% What is loaded, and the Erlang twin.
both() -> [fun loaded/4, fun twin/4].

loaded(Function, Data, Algorithm, Options) -> ?M:Function(Data, Algorithm, Options).

twin(Direction, Data, Algorithm, Options) ->
    {ok, Checked} = esdb_archive_options:Direction(Algorithm, Options),
    twin_does({Direction, Algorithm}, Data, Checked).

twin_does({compress, lz4}, Data, _) ->
    esdb_archive_erl:lz4_compress(Data);
twin_does({compress, zstd}, Data, #{level := L, checksum := C, dictionary := D}) ->
    esdb_archive_erl:zstd_compress(Data, L, C, D);
twin_does({compress, zlib}, Data, #{level := Level}) ->
    esdb_archive_erl:zlib_compress(Data, Level);
twin_does({decompress, lz4}, Data, #{max_size := MaxSize}) ->
    esdb_archive_erl:lz4_decompress(Data, MaxSize);
twin_does({decompress, zstd}, Data, #{max_size := MaxSize, dictionary := D}) ->
    esdb_archive_erl:zstd_decompress(Data, MaxSize, D);
twin_does({decompress, zlib}, Data, #{max_size := MaxSize}) ->
    esdb_archive_erl:zlib_decompress(Data, MaxSize).

samples() ->
    Random = rand:bytes(3000),
    [
        <<>>,
        ~"a",
        binary:copy(~"abc", 20),
        binary:copy(<<0>>, 300_000),
        binary:copy(events(4000), 2),
        Random,
        %% A match across more than LZ4 and a block can reach.
        iolist_to_binary([Random, binary:copy(~"xy", 70_000), Random]),
        <<<<(rand:uniform(6))>> || _ <- lists:seq(1, 20_000)>>
    ].

events(Count) -> iolist_to_binary([event(N) || N <- lists:seq(1, Count)]).

event(N) ->
    iolist_to_binary(
        io_lib:format(
            "{\"event_id\":\"~8.16.0b\",\"type\":\"order_~b_placed\",\"stream\":\"order-~b\","
            "\"data\":{\"items\":~b,\"total\":~b}}~n",
            [N * 2_654_435_761 rem (1 bsl 32), N rem 7, N rem 131, N rem 9, N * 17]
        )
    ).

%% With each bit flipped in turn.
damaged(Bytes) -> [flipped(Bytes, Bit) || Bit <- lists:seq(0, bit_size(Bytes) - 1)].

flipped(Bytes, Bit) ->
    <<Before:Bit/bitstring, Old:1, After/bitstring>> = Bytes,
    <<Before/bitstring, (1 - Old):1, After/bitstring>>.

is_result({ok, Content}) when is_binary(Content) -> ok;
is_result({error, _}) -> ok.

own(Compressed, Dictionary) ->
    Id = esdb_archive_options:dictionary_id(Dictionary),
    maybe
        {ok, Plan} ?= esdb_zstd_frame_erl:plan(Compressed, 1 bsl 30, Id),
        esdb_zstd_erl:decompress(Compressed, Plan, 1 bsl 30, Dictionary)
    end.

dictionary(none) -> #{};
dictionary(Dictionary) -> #{dictionary => Dictionary}.

total(Events, Options) ->
    {ok, Compressed} = ?M:compress_batch(Events, zstd, Options),
    {ok, Events} = ?M:decompress_batch(Compressed, zstd, Options),
    iolist_size(Compressed).

through(Direction, Algorithm, Options, Pieces) ->
    {ok, Stream} = ?M:stream(Direction, Algorithm, Options),
    iolist_to_binary(fed(Stream, Pieces)).

fed(Stream, [Piece | Pieces]) ->
    case ?M:stream_update(Stream, Piece) of
        {ok, Output, Stream1} -> [Output | fed(Stream1, Pieces)];
        {more, Output, Stream1} -> [Output | fed(Stream1, [<<>> | Pieces])]
    end;
fed(Stream, []) ->
    case ?M:stream_finish(Stream) of
        {ok, Output} -> [Output];
        {more, Output, Stream1} -> [Output | fed(Stream1, [])]
    end.

chopped(Bytes, Size) when byte_size(Bytes) =< Size -> [Bytes];
chopped(Bytes, Size) ->
    <<Piece:Size/binary, Rest/binary>> = Bytes,
    [Piece | chopped(Rest, Size)].

catch_error(Fun) ->
    try Fun() of
        Value -> {value, Value}
    catch
        error:Reason -> Reason
    end.
