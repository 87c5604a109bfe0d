-module(esdb_lz4_erl).
-moduledoc false.
%% LZ4: the size of the content in 32 bits, little-endian, then one block.
%%
%%     block    = sequence* last
%%     sequence = token  literal length*  literals  offset (16, little-endian)  match length*
%%     last     = token  literal length*  literals
%%     token    = 4 bits literal length, 4 bits match length - 4; 15 goes on in bytes that are added
%%                up, to the first that is not 255
%%
%% https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md

-export([compress/1, decompress/2]).

-define(MAX_INPUT, 16#7E000000).
-define(REACH, 65_535).

-spec compress(binary()) -> {ok, binary()} | {error, {too_large, pos_integer()}}.
compress(Data) when byte_size(Data) > ?MAX_INPUT ->
    {error, {too_large, ?MAX_INPUT}};
compress(Data) ->
    {Sequences, Rest} = esdb_lz77_erl:sequences(Data, ?REACH),
    Block = [sequence(Sequence) || Sequence <- Sequences],
    Last = [token(byte_size(Rest), 0), more(byte_size(Rest)), Rest],
    {ok, iolist_to_binary([<<(byte_size(Data)):32/little>>, Block, Last])}.

-spec sequence(esdb_lz77_erl:sequence()) -> iolist().
sequence({Literals, Offset, Length}) ->
    Count = byte_size(Literals),
    [token(Count, Length - 4), more(Count), Literals, <<Offset:16/little>>, more(Length - 4)].

-spec token(non_neg_integer(), non_neg_integer()) -> byte().
token(Literals, Match) -> min(Literals, 15) bsl 4 bor min(Match, 15).

-spec more(non_neg_integer()) -> iolist().
more(Length) when Length < 15 -> [];
more(Length) -> [binary:copy(<<255>>, (Length - 15) div 255), (Length - 15) rem 255].

-spec decompress(binary(), MaxSize :: non_neg_integer()) ->
    {ok, binary()} | {error, truncated | corrupt | {too_large, non_neg_integer()}}.
decompress(<<Size:32/little, _/binary>>, MaxSize) when Size > MaxSize ->
    {error, {too_large, MaxSize}};
decompress(<<_:32/little>>, _MaxSize) ->
    {error, truncated};
%% No byte of a block stands for more than 255: beyond that the block is cut, or the size a lie.
decompress(<<Size:32/little, Block/binary>>, _MaxSize) when Size > byte_size(Block) * 255 ->
    {error, truncated};
decompress(<<Size:32/little, Block/binary>>, _MaxSize) ->
    case block(Block, Size, esdb_window_erl:new(?REACH)) of
        {ok, Window} ->
            {Content, _} = esdb_window_erl:take(Window),
            {ok, iolist_to_binary(Content)};
        Reason ->
            {error, Reason}
    end;
decompress(_, _MaxSize) ->
    {error, truncated}.

-spec block(binary(), non_neg_integer(), esdb_window_erl:window()) ->
    {ok, esdb_window_erl:window()} | truncated | corrupt.
block(<<Literals:4, Match:4, Rest/binary>>, Size, Window) ->
    case length_of(Literals, Rest) of
        {Count, Rest1} -> literals(Count, Match, Rest1, Size, Window);
        truncated -> truncated
    end;
block(<<>>, _Size, _Window) ->
    truncated.

-spec literals(Count :: non_neg_integer(), Match :: 0..15, binary(), Size, Window) ->
    {ok, esdb_window_erl:window()} | truncated | corrupt
when
    Size :: non_neg_integer(), Window :: esdb_window_erl:window().
literals(Count, Match, Block, Size, Window) ->
    Written = esdb_window_erl:size(Window) + Count,
    case Block of
        _ when Written > Size -> corrupt;
        <<Literals:Count/binary>> when Written =:= Size -> {ok, append(Literals, Window)};
        <<_:Count/binary>> -> truncated;
        <<Literals:Count/binary, Offset:16/little, Rest/binary>> ->
            match(Offset, Match, Rest, Size, append(Literals, Window));
        _ -> truncated
    end.

-spec append(binary(), esdb_window_erl:window()) -> esdb_window_erl:window().
append(<<>>, Window) -> Window;
append(Literals, Window) -> esdb_window_erl:append(Literals, Window).

-spec match(Offset :: 0..65_535, Match :: 0..15, binary(), Size, Window) ->
    {ok, esdb_window_erl:window()} | truncated | corrupt
when
    Size :: non_neg_integer(), Window :: esdb_window_erl:window().
match(Offset, Match, Block, Size, Window) ->
    Written = esdb_window_erl:size(Window),
    maybe
        true ?= Offset > 0 andalso Offset =< Written,
        {More, Rest} ?= length_of(Match, Block),
        true ?= Written + More + 4 =< Size,
        {ok, Window1} ?= esdb_window_erl:copy(Offset, More + 4, Window),
        block(Rest, Size, Window1)
    else
        truncated -> truncated;
        _ -> corrupt
    end.

-spec length_of(0..15, binary()) -> {non_neg_integer(), binary()} | truncated.
length_of(15, Rest) -> more_of(15, Rest);
length_of(Length, Rest) -> {Length, Rest}.

-spec more_of(pos_integer(), binary()) -> {non_neg_integer(), binary()} | truncated.
more_of(Length, <<255, Rest/binary>>) -> more_of(Length + 255, Rest);
more_of(Length, <<Last, Rest/binary>>) -> {Length + Last, Rest};
more_of(_, <<>>) -> truncated.
