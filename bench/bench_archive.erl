-module(bench_archive).
-moduledoc """
Compression against OTP's `zstd` (from release 28 on) and `zlib`, on events such as the demo
imports.
""".

-export([run/0]).

-define(M, esdb_archive_nif).

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    small(),
    lz4(),
    large(),
    zlib_rows().

-spec small() -> ok.
small() ->
    esdb_bench:title("Compression: one event of 350 bytes"),
    {Training, [Event | Others]} = lists:split(4000, events(5000)),
    {ok, Trained} = ?M:train_dictionary(Training, 32_768),
    Handle = #{dictionary => ?M:dictionary(Trained)},
    small_compress(Event, Handle),
    small_decompress(Event, Handle),
    small_sizes(Others, Handle).

-spec small_compress(binary(), map()) -> float().
small_compress(Event, Handle) ->
    Otp = fun() -> zstd:compress(Event, #{checksumFlag => true}) end,
    row("compress", fun() -> ?M:compress(Event, zstd) end, "zstd:compress/2", Otp, 4.0),
    esdb_bench:compare("compress with a dictionary", #{
        ours => {"ours", fun() -> ?M:compress(Event, zstd, Handle) end},
        rival => {"zstd:compress/2, without", Otp},
        same => fun({ok, C}, _) -> {ok, Event} =:= ?M:decompress(C, zstd, Handle) end,
        goal => 4.0
    }).

-spec small_decompress(binary(), map()) -> float().
small_decompress(Event, Handle) ->
    {ok, Plain} = ?M:compress(Event, zstd),
    {ok, Packed} = ?M:compress(Event, zstd, Handle),
    row(
        "decompress",
        fun() -> ?M:decompress(Plain, zstd) end,
        "zstd:decompress/1",
        fun() -> zstd:decompress(Plain) end
    ),
    row(
        "decompress with a dictionary",
        fun() -> ?M:decompress(Packed, zstd, Handle) end,
        "zstd:decompress/1, without",
        fun() -> zstd:decompress(Plain) end
    ).

-spec small_sizes([binary()], map()) -> ok.
small_sizes(Others, Handle) ->
    {ok, Without} = ?M:compress_batch(Others, zstd),
    {ok, With} = ?M:compress_batch(Others, zstd, Handle),
    esdb_bench:note(
        "~b events: ~b bytes, zstd ~b, with a trained dictionary of 32 KB ~b: "
        "~.2f times smaller than without",
        [
            length(Others),
            iolist_size(Others),
            iolist_size(Without),
            iolist_size(With),
            iolist_size(Without) / iolist_size(With)
        ]
    ).

-spec lz4() -> ok.
lz4() ->
    esdb_bench:title("Compression: LZ4 against OTP's zstd"),
    [
        begin
            Data = data(Size),
            {ok, Lz4} = ?M:compress(Data, lz4),
            Zstd = iolist_to_binary(zstd:compress(Data)),
            row(
                "decompress " ++ Name,
                fun() -> ?M:decompress(Lz4, lz4) end,
                "zstd:decompress/1",
                fun() -> zstd:decompress(Zstd) end,
                1.5
            ),
            row(
                "compress " ++ Name,
                fun() -> ?M:compress(Data, lz4) end,
                "zstd:compress/1",
                fun() -> zstd:compress(Data) end
            )
        end
     || {Name, Size} <- [{"64 KiB", 65_536}, {"1 MiB", 1_048_576}]
    ],
    ok.

-spec large() -> ok.
large() ->
    esdb_bench:title("Compression: large zstd, the same libzstd on both sides"),
    [
        begin
            Data = data(Size),
            {ok, Zstd} = ?M:compress(Data, zstd),
            Otp = fun() -> zstd:compress(Data, #{checksumFlag => true}) end,
            row("compress " ++ Name, fun() -> ?M:compress(Data, zstd) end, "zstd:compress/2", Otp),
            row(
                "decompress " ++ Name,
                fun() -> ?M:decompress(Zstd, zstd) end,
                "zstd:decompress/1",
                fun() -> zstd:decompress(Zstd) end
            )
        end
     || {Name, Size} <- [{"64 KiB", 65_536}, {"1 MiB", 1_048_576}, {"16 MiB", 16_777_216}]
    ],
    ok.

-spec zlib_rows() -> ok.
zlib_rows() ->
    esdb_bench:title("Compression: zlib is OTP's in both modes, so this is the price of the limit"),
    [
        begin
            Data = data(Size),
            {ok, Compressed} = ?M:compress(Data, zlib),
            row(
                "compress " ++ Name,
                fun() -> ?M:compress(Data, zlib) end,
                "zlib:compress/1",
                fun() -> zlib:compress(Data) end
            ),
            row(
                "decompress " ++ Name,
                fun() -> ?M:decompress(Compressed, zlib) end,
                "zlib:uncompress/1",
                fun() -> zlib:uncompress(Compressed) end
            )
        end
     || {Name, Size} <- [{"350 B", 350}, {"64 KiB", 65_536}, {"1 MiB", 1_048_576}]
    ],
    ok.

-spec row(string(), fun(() -> term()), string(), fun(() -> term())) -> float().
row(What, Ours, RivalName, Rival) ->
    esdb_bench:compare(What, rivals(Ours, RivalName, Rival)).

-spec row(string(), fun(() -> term()), string(), fun(() -> term()), float()) -> float().
row(What, Ours, RivalName, Rival, Goal) ->
    esdb_bench:compare(What, (rivals(Ours, RivalName, Rival))#{goal => Goal}).

-spec rivals(fun(() -> term()), string(), fun(() -> term())) -> map().
rivals(Ours, RivalName, Rival) ->
    #{ours => {"ours", Ours}, rival => {RivalName, Rival}, same => fun both_answer/2}.

%% Contents must be equal; compressed bytes need not be.
-spec both_answer({ok, binary()}, iodata()) -> boolean().
both_answer({ok, Ours}, Rival) ->
    Theirs = iolist_to_binary(Rival),
    Ours =:= Theirs orelse content(Ours) =:= content(Theirs).

-spec content(binary()) -> [binary()].
content(Compressed) ->
    Read = [?M:decompress(Compressed, Algorithm) || Algorithm <- [zstd, zlib, lz4]],
    [Content || {ok, Content} <- Read].

-spec data(pos_integer()) -> binary().
data(Size) ->
    Events = iolist_to_binary(events(min(20_000, Size div 200 + 10))),
    binary:part(binary:copy(Events, Size div byte_size(Events) + 1), 0, Size).

%% Like the commits of the demo: an id, one of some streams, counts, and links to others.
-spec events(pos_integer()) -> [binary()].
events(Count) ->
    State = rand:seed_s(exsss, 42),
    {Events, _} = lists:mapfoldl(fun event/2, State, lists:seq(1, Count)),
    Events.

-spec event(pos_integer(), rand:state()) -> {binary(), rand:state()}.
event(N, State0) ->
    {Id, State1} = rand:bytes_s(20, State0),
    {Parent, State2} = rand:bytes_s(20, State1),
    {Area, State3} = rand:uniform_s(40, State2),
    {Insertions, State4} = rand:uniform_s(900, State3),
    Json = json:encode(#{
        event_id => binary:encode_hex(Id, lowercase),
        event_type => ~"CommitAuthored",
        stream_id => <<"area-", (integer_to_binary(Area))/binary>>,
        epoch_us => 1_700_000_000_000_000 + N * 61_000_000,
        data => #{files => Area rem 9, insertions => Insertions, deletions => Insertions div 3},
        metadata => #{
            causation_id => binary:encode_hex(Parent, lowercase),
            actor_id => <<"actor-", (integer_to_binary(Area * 7 rem 23))/binary>>,
            correlation_id => <<"week-", (integer_to_binary(N div 60))/binary>>
        }
    }),
    {iolist_to_binary(Json), State4}.
