-module(esdb_zstd_frame_erl).
-moduledoc false.
%% A walk over the structure of Zstandard frames (RFC 8878, section 3), before or while they are
%% decoded.
%%
%%     input = (frame | skippable)*
%%     frame = 16#FD2FB528:32  descriptor:8  [window:8]  [dictionary id:8|16|32]
%%             [content size:8|16|32|64]  block*  [checksum:32]
%%     block = 1 bit last, 2 bits type (raw, repeated, compressed), 21 bits size, together 24,
%%             and its bytes
%%     skippable = 16#184D2A5?:32  size:32  bytes                       (all numbers little-endian)
%%
%% It finds truncation, trailing garbage, sizes that lie and windows that are too large, with the
%% same rules and the same order of checks as native/core/src/archive/frame.rs, so both modes give
%% the same reasons. The input may come in pieces, and one step of the walk is kept at a time: a
%% block may be as short as three bytes, so a list of them would be a hundred times the input.

-export([new/2, new/3, feed/2, finish/1, plan/3]).
-export([add/2, next/1, left/1]).
-export_type([walk/0, event/0, header/0, plan/0, reason/0]).

-type header() :: #{
    window := non_neg_integer(),
    content_size := non_neg_integer() | unknown,
    dictionary := non_neg_integer(),
    checksum := boolean()
}.
-type event() ::
    {frame, header()}
    | {block, raw | repeated | compressed, Bytes :: binary(), Size :: non_neg_integer()}
    %% The end of a frame, with its checksum if it has one.
    | {done, none | 0..16#FFFFFFFF}.
-type reason() ::
    truncated
    | corrupt
    | {too_large, non_neg_integer()}
    | {window_too_large, pos_integer()}
    | {dictionary_mismatch, pos_integer()}.

%% What the content of all frames is at least and at most, and whether there is one frame, all of
%% whose content fits into one block.
-type plan() :: #{
    least := non_neg_integer(), most := non_neg_integer(), is_short := boolean()
}.

-type state() ::
    start | boundary | {skip, non_neg_integer()} | {header, byte()} | block | checksum | ending.

-record(walk, {
    state = start :: state(),
    %% What has come and not been walked, the latest first, its size, and how much the next step
    %% needs.
    pending = [] :: [binary()],
    have = 0 :: non_neg_integer(),
    need = 1 :: non_neg_integer(),
    max_size :: non_neg_integer(),
    %% The limit for the window of a frame in one segment, which is its content.
    max_segment :: non_neg_integer() | infinity,
    dictionary :: non_neg_integer() | any,
    %% How many frames there were, skippable ones left out.
    frames = 0 :: non_neg_integer(),
    %% What all frames so far hold at least, and at most; and the same of the current one's blocks.
    least = 0 :: non_neg_integer(),
    most = 0 :: non_neg_integer(),
    block_least = 0 :: non_neg_integer(),
    block_most = 0 :: non_neg_integer(),
    header = none :: none | header()
}).

-opaque walk() :: #walk{}.

-type found() :: {Rest :: binary(), walk(), event()} | {error, reason()}.
-type step() :: found() | {Rest :: binary(), walk()} | {need, pos_integer()}.

-define(MAGIC, 16#FD2FB528).
-define(SKIPPABLE, 16#184D2A5).
-define(MAX_WINDOW, 134_217_728).
-define(MAX_BLOCK, 131_072).
%% Of a compressed block: the header of no literals, and the number of no sequences.
-define(MIN_COMPRESSED, 2).

%% The limit on the content of all frames, and the id of the dictionary at hand (0: none, or one
%% without; any: that was looked at before).
-spec new(MaxSize :: non_neg_integer(), Dictionary :: non_neg_integer() | any) -> walk().
new(MaxSize, Dictionary) -> new(MaxSize, Dictionary, infinity).

%% The same, with a limit for the content of frames in one segment: a stream, which keeps what a
%% match may reach, keeps no more of those than of others.
-spec new(MaxSize, Dictionary, MaxSegment) -> walk() when
    MaxSize :: non_neg_integer(),
    Dictionary :: non_neg_integer() | any,
    MaxSegment :: window | infinity.
new(MaxSize, Dictionary, window) ->
    #walk{max_size = MaxSize, dictionary = Dictionary, max_segment = ?MAX_WINDOW};
new(MaxSize, Dictionary, infinity) ->
    #walk{max_size = MaxSize, dictionary = Dictionary, max_segment = infinity}.

%% Walks over more input, as far as it goes.
-spec feed(binary(), walk()) -> {ok, walk()} | {error, reason()}.
feed(Bytes, Walk) ->
    case add(Bytes, Walk) of
        #walk{have = Have, need = Need} = Walk1 when Have < Need -> {ok, Walk1};
        Walk1 -> to_end(input(Walk1), Walk1)
    end.

-spec to_end(binary(), walk()) -> {ok, walk()} | {error, reason()}.
to_end(Input, Walk) ->
    case step(Walk#walk.state, Input, Walk) of
        {need, Need} -> {ok, keep(Input, Need, Walk)};
        {error, Reason} -> {error, Reason};
        {Rest, Walk1} -> to_end(Rest, Walk1);
        {Rest, Walk1, _Event} -> to_end(Rest, Walk1)
    end.

%% More input for next/1.
-spec add(binary(), walk()) -> walk().
add(<<>>, Walk) -> Walk;
add(Bytes, #walk{pending = Pending, have = Have} = Walk) ->
    Walk#walk{pending = [Bytes | Pending], have = Have + byte_size(Bytes)}.

%% The next event, if the input has one.
-spec next(walk()) -> {event, event(), walk()} | {more, walk()} | {error, reason()}.
next(#walk{have = Have, need = Need} = Walk) when Have < Need -> {more, Walk};
next(Walk) -> next(input(Walk), Walk).

-spec next(binary(), walk()) -> {event, event(), walk()} | {more, walk()} | {error, reason()}.
next(Input, Walk) ->
    case step(Walk#walk.state, Input, Walk) of
        {need, Need} -> {more, keep(Input, Need, Walk)};
        {error, Reason} -> {error, Reason};
        {Rest, Walk1} -> next(Rest, Walk1);
        {Rest, Walk1, Event} -> {event, Event, keep(Rest, 0, Walk1)}
    end.

-spec input(walk()) -> binary().
input(#walk{pending = [Input]}) -> Input;
input(#walk{pending = Pending}) -> iolist_to_binary(lists:reverse(Pending)).

-spec keep(binary(), Need :: non_neg_integer(), walk()) -> walk().
keep(<<>>, Need, Walk) -> Walk#walk{pending = [], have = 0, need = Need};
keep(Rest, Need, Walk) -> Walk#walk{pending = [Rest], have = byte_size(Rest), need = Need}.

%% How much of the input has not been walked.
-spec left(walk()) -> non_neg_integer().
left(#walk{have = Have}) -> Have.

%% Whether the input may end here.
-spec finish(walk()) -> ok | {error, truncated}.
finish(#walk{state = boundary, have = 0}) -> ok;
finish(_) -> {error, truncated}.

%% The whole input at once.
-spec plan(binary(), MaxSize :: non_neg_integer(), Dictionary :: non_neg_integer()) ->
    {ok, plan()} | {error, reason()}.
plan(Input, MaxSize, Dictionary) ->
    maybe
        {ok, Walk} ?= feed(Input, new(MaxSize, Dictionary)),
        ok ?= finish(Walk),
        #walk{least = Least, most = Most} = Walk,
        {ok, #{least => Least, most => Most, is_short => is_short(Walk)}}
    end.

-spec is_short(walk()) -> boolean().
is_short(#walk{frames = 0}) -> true;
is_short(#walk{frames = 1, header = Header, most = Most}) -> Most =< block_limit(Header);
is_short(_) -> false.

-spec step(state(), binary(), walk()) -> step().
step(start, <<_, _/binary>> = Input, Walk) ->
    frame(Input, Walk);
step(boundary, Input, Walk) ->
    frame(Input, Walk);
step({skip, Size}, Input, Walk) when byte_size(Input) >= Size ->
    <<_:Size/binary, Rest/binary>> = Input,
    {Rest, Walk#walk{state = boundary}};
step({skip, Size}, <<_, _/binary>> = Input, Walk) ->
    {<<>>, Walk#walk{state = {skip, Size - byte_size(Input)}}};
step({header, Descriptor}, Input, Walk) ->
    fields(Descriptor, Input, Walk);
step(ending, Input, Walk) ->
    done(none, Input, Walk);
step(block, <<Word:24/little, Rest/binary>>, Walk) ->
    block(Word band 1, (Word bsr 1) band 3, Word bsr 3, Rest, Walk);
step(checksum, <<Checksum:32/little, Rest/binary>>, Walk) ->
    done(Checksum, Rest, Walk);
step(checksum, _, _) ->
    {need, 4};
step(block, _, _) ->
    {need, 3};
step(_, <<>>, _) ->
    {need, 1}.

%% What begins at a boundary.
-spec frame(binary(), walk()) ->
    {Rest :: binary(), walk()} | {need, pos_integer()} | {error, corrupt}.
frame(<<?MAGIC:32/little, Descriptor, Rest/binary>>, Walk) ->
    case Descriptor band 2#1000 of
        0 -> {Rest, Walk#walk{state = {header, Descriptor}}};
        _ -> {error, corrupt}
    end;
frame(<<?MAGIC:32/little>>, _) ->
    {need, 5};
frame(<<Magic:32/little, Size:32/little, Rest/binary>>, Walk) when Magic bsr 4 =:= ?SKIPPABLE ->
    {Rest, Walk#walk{state = {skip, Size}}};
frame(<<Magic:32/little, _/binary>>, _) when Magic bsr 4 =:= ?SKIPPABLE ->
    {need, 8};
frame(<<_:32, _/binary>>, _) ->
    {error, corrupt};
frame(Input, _) ->
    {need, max(1, 4 * min(1, byte_size(Input)))}.

%% The fields of a header behind its descriptor.
-spec fields(byte(), binary(), walk()) -> step().
fields(Descriptor, Input, Walk) ->
    <<SizeFlag:2, Single:1, _:2, Checksum:1, DictionaryFlag:2>> = <<Descriptor>>,
    W = 8 * (1 - Single),
    D = element(DictionaryFlag + 1, {0, 8, 16, 32}),
    S = element(SizeFlag + 1, {8 * Single, 16, 32, 64}),
    case Input of
        <<Window:W/little, Dictionary:D/little, Size:S/little, Rest/binary>> ->
            ContentSize = content_size(S, Size),
            Header = #{
                window => window(W, Window, ContentSize),
                content_size => ContentSize,
                dictionary => Dictionary,
                checksum => Checksum =:= 1
            },
            header(Header, W, Rest, Walk);
        _ ->
            {need, (W + D + S) div 8}
    end.

-spec content_size(0..64, non_neg_integer()) -> non_neg_integer() | unknown.
content_size(0, _) -> unknown;
content_size(16, Size) -> Size + 256;
content_size(_, Size) -> Size.

-spec window(0 | 8, byte(), non_neg_integer() | unknown) -> non_neg_integer().
window(0, _, ContentSize) when is_integer(ContentSize) ->
    ContentSize;
window(8, Byte, _) ->
    Base = 1 bsl (10 + (Byte bsr 3)),
    Base + (Base bsr 3) * (Byte band 7).

-spec header(header(), WindowBits :: 0 | 8, binary(), walk()) -> found().
header(#{window := Window}, 8, _, _) when Window > ?MAX_WINDOW ->
    {error, {window_too_large, Window}};
header(#{dictionary := Id}, _, _, #walk{dictionary = Given}) when
    Id =/= 0, Id =/= Given, Given =/= any
->
    {error, {dictionary_mismatch, Id}};
header(#{content_size := Size}, _, _, #walk{least = Least, max_size = Max}) when
    is_integer(Size), Size > Max - Least
->
    {error, {too_large, Max}};
%% (Any number is less than an atom.)
header(#{window := Window}, _, _, #walk{max_segment = Max}) when Window > Max ->
    {error, {window_too_large, Window}};
header(Header, _, Rest, #walk{frames = Frames} = Walk) ->
    Walk1 = Walk#walk{
        state = block, header = Header, frames = Frames + 1, block_least = 0, block_most = 0
    },
    {Rest, Walk1, {frame, Header}}.

-spec block(Last :: 0..1, Type :: 0..3, Size :: non_neg_integer(), binary(), walk()) -> step().
block(Last, Type, Size, Rest, #walk{header = Header} = Walk) ->
    Limit = block_limit(Header),
    Length = block_length(Type, Size),
    if
        Size > Limit; Type =:= 3 -> {error, corrupt};
        Type =:= 2, Size < ?MIN_COMPRESSED -> {error, corrupt};
        Length > byte_size(Rest) -> {need, Length + 3};
        true ->
            <<Bytes:Length/binary, Rest1/binary>> = Rest,
            {Kind, Least, Most} = block_kind(Type, Size, Limit),
            Walk1 = Walk#walk{
                block_least = Walk#walk.block_least + Least,
                block_most = Walk#walk.block_most + Most
            },
            after_block(Last, Rest1, Walk1, {block, Kind, Bytes, Size})
    end.

%% What a block holds at most.
-spec block_limit(header()) -> non_neg_integer().
block_limit(#{window := Window}) -> min(Window, ?MAX_BLOCK).

-spec block_length(0..3, non_neg_integer()) -> non_neg_integer().
block_length(1, _) -> 1;
block_length(_, Size) -> Size.

-spec block_kind(0..2, Size :: non_neg_integer(), Limit :: non_neg_integer()) ->
    {raw | repeated | compressed, Least :: non_neg_integer(), Most :: non_neg_integer()}.
block_kind(0, Size, _) -> {raw, Size, Size};
block_kind(1, Size, _) -> {repeated, Size, Size};
block_kind(2, _, Limit) -> {compressed, 0, Limit}.

-spec after_block(Last :: 0..1, binary(), walk(), event()) -> found().
after_block(Last, Rest, #walk{header = Header} = Walk, Event) ->
    #walk{block_least = BlockLeast, least = Least, max_size = Max} = Walk,
    case Header of
        #{content_size := unknown} when BlockLeast > Max - Least -> {error, {too_large, Max}};
        #{content_size := Size} when is_integer(Size), BlockLeast > Size -> {error, corrupt};
        #{checksum := true} when Last =:= 1 -> {Rest, Walk#walk{state = checksum}, Event};
        #{} when Last =:= 1 -> {Rest, Walk#walk{state = ending}, Event};
        #{} -> {Rest, Walk, Event}
    end.

-spec done(none | 0..16#FFFFFFFF, binary(), walk()) -> found().
done(Checksum, Rest, #walk{header = #{content_size := Size}, block_most = Most} = Walk) ->
    case Size of
        unknown -> {Rest, boundary(Walk#walk.block_least, Most, Walk), {done, Checksum}};
        _ when Size > Most -> {error, corrupt};
        _ -> {Rest, boundary(Size, Size, Walk), {done, Checksum}}
    end.

-spec boundary(Least :: non_neg_integer(), Most :: non_neg_integer(), walk()) -> walk().
boundary(Least, Most, Walk) ->
    Walk#walk{state = boundary, least = Walk#walk.least + Least, most = Walk#walk.most + Most}.
