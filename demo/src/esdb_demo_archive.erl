-module(esdb_demo_archive).
-moduledoc """
Measures how small events get: what each codec makes of them, how long it takes, and whether it
gives back exactly what it got.

An archive line is an event as JSON. Two shapes are measured: each line compressed alone, as it
must be where single events are read, and blocks of a thousand lines.

A codec that was given more than `budget` of time is left out from there on; what it was given is in
`events`, so that a reader can scale the rest and say so.

```erlang
1> A0 = esdb_demo_archive:new({ok, Dictionary}, 3_000_000),
   A1 = esdb_demo_archive:add(Lines, A0), hd(esdb_demo_archive:results(A1)).
#{codec => zlib,shape => single,events => 1000,raw => 416000,packed => 291000,same => true,
  write_us => 21000,read_us => 5100}
```
""".

-export([train/1, new/2, add/2, results/1]).
-export([parcel/2, unlike/1]).
-export_type([archive/0, result/0, parcel/0, codec/0, shape/0]).

-type codec() :: zlib | lz4 | zstd | zstd_dictionary.
-type shape() :: single | block.
-type result() :: #{
    codec := codec(),
    shape := shape(),
    events := non_neg_integer(),
    raw := non_neg_integer(),
    packed := non_neg_integer(),
    same := boolean(),
    write_us := non_neg_integer(),
    read_us := non_neg_integer()
}.
-type trained() :: {ok, Dictionary :: binary()} | {error, too_few_samples}.
-type archive() :: #{
    budget := pos_integer(),
    dictionary := esdb_archive_nif:dictionary() | none,
    results := [result()]
}.
%% Lines, and what each codec made of them, for another node to read.
-type parcel() :: #{
    trained := trained(), lines := [binary()], packed := #{codec() => [binary()]}
}.

-define(DICTIONARY_SIZE, 32_768).

-doc "A dictionary of 32 KiB trained on sample lines, and the time that it took.".
-spec train(Samples :: [binary()]) -> {Micros :: non_neg_integer(), trained()}.
train(Samples) ->
    timer:tc(fun() -> esdb_archive_nif:train_dictionary(Samples, ?DICTIONARY_SIZE) end).

-doc "An empty measurement, of the codec with a dictionary only where there is one.".
-spec new(trained(), Budget :: pos_integer()) -> archive().
new(Trained, Budget) ->
    Shapes = [{single, C} || C <- codecs(Trained)] ++ [{block, C} || C <- [zlib, lz4, zstd]],
    #{
        budget => Budget,
        dictionary => handle(Trained),
        results => [empty(Shape, Codec) || {Shape, Codec} <- Shapes]
    }.

-spec codecs(trained()) -> [codec()].
codecs(Trained) ->
    [zlib, lz4, zstd] ++ [zstd_dictionary || {ok, _} <- [Trained]].

-spec handle(trained()) -> esdb_archive_nif:dictionary() | none.
handle({ok, Dictionary}) -> esdb_archive_nif:dictionary(Dictionary);
handle({error, _}) -> none.

-spec empty(shape(), codec()) -> result().
empty(Shape, Codec) ->
    #{
        codec => Codec,
        shape => Shape,
        events => 0,
        raw => 0,
        packed => 0,
        same => true,
        write_us => 0,
        read_us => 0
    }.

-doc "The measurement with one more block of lines.".
-spec add(Lines :: [binary()], archive()) -> archive().
add(Lines, #{results := Results} = Archive) ->
    Block = [iolist_to_binary(lists:join($\n, Lines))],
    Given = #{single => Lines, block => Block},
    Add = fun(#{shape := Shape} = Result) ->
        measure(maps:get(Shape, Given), length(Lines), Result, Archive)
    end,
    Archive#{results := lists:map(Add, Results)}.

-doc "The results, single lines first.".
-spec results(archive()) -> [result()].
results(#{results := Results}) ->
    Results.

-spec measure([binary()], pos_integer(), result(), archive()) -> result().
measure(_, _, #{write_us := W, read_us := R} = Result, #{budget := Budget}) when W + R > Budget ->
    Result;
measure(Pieces, Events, #{codec := Codec} = Result, #{dictionary := Dictionary}) ->
    {WriteUs, {ok, Packed}} = timer:tc(fun() -> pack(Codec, Pieces, Dictionary) end),
    {ReadUs, Read} = timer:tc(fun() -> unpack(Codec, Packed, Dictionary) end),
    sum(Result, #{
        events => Events,
        raw => iolist_size(Pieces),
        packed => iolist_size(Packed),
        same => is_same(Read, Pieces),
        write_us => WriteUs,
        read_us => ReadUs
    }).

-spec pack(codec(), [binary()], esdb_archive_nif:dictionary() | none) ->
    {ok, [binary()]} | {error, term()}.
pack(zstd_dictionary, Pieces, Dictionary) ->
    esdb_archive_nif:compress_batch(Pieces, zstd, #{dictionary => Dictionary});
pack(Algorithm, Pieces, _) ->
    esdb_archive_nif:compress_batch(Pieces, Algorithm).

-spec unpack(codec(), [binary()], esdb_archive_nif:dictionary() | none) ->
    {ok, [binary()]} | {error, term()}.
unpack(zstd_dictionary, Packed, Dictionary) ->
    esdb_archive_nif:decompress_batch(Packed, zstd, #{dictionary => Dictionary});
unpack(Algorithm, Packed, _) ->
    esdb_archive_nif:decompress_batch(Packed, Algorithm).

-spec sum(result(), map()) -> result().
sum(Result, More) ->
    maps:merge_with(fun(_, A, B) -> plus(A, B) end, Result, More).

-spec plus(boolean(), boolean()) -> boolean(); (integer(), integer()) -> integer().
plus(A, B) when is_boolean(A) -> A andalso B;
plus(A, B) -> A + B.

-doc "Lines packed by each codec, to be read on another node.".
-spec parcel(Lines :: [binary()], trained()) -> parcel().
parcel(Lines, Trained) ->
    Dictionary = handle(Trained),
    Pack = fun(Codec) ->
        {ok, Packed} = pack(Codec, Lines, Dictionary),
        {Codec, Packed}
    end,
    #{
        trained => Trained,
        lines => Lines,
        packed => maps:from_list(lists:map(Pack, codecs(Trained)))
    }.

-doc "The codecs whose part of a parcel does not read here as the lines that it was made of.".
-spec unlike(parcel()) -> [codec()].
unlike(#{trained := Trained, lines := Lines, packed := Packed}) ->
    Dictionary = handle(Trained),
    [Codec || Codec := Pieces <- Packed, not is_same(unpack(Codec, Pieces, Dictionary), Lines)].

%% A codec that refuses what it should read is as bad as one that reads something else.
-spec is_same({ok, [binary()]} | {error, term()}, [binary()]) -> boolean().
is_same(Read, Pieces) ->
    Read =:= {ok, Pieces}.
