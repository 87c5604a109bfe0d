-module(esdb_window_erl).
-moduledoc false.
%% What a decoder of the LZ family has written so far, as far back as its matches reach.
%%
%% A binary cannot be read at its end and appended to without being copied, so the output is kept as
%% a short young binary and older chunks that are merged in pairs of like size, the youngest first:
%%
%%     young 3 KB | 4 KB  8 KB  32 KB  128 KB ...
%%
%% A byte is copied about as often as there are sizes, and a match looks at few chunks.

-export([new/1, new/2, reaching/2, append/2, copy/3, size/1, take/1]).
-export_type([window/0]).

-record(window, {
    young = <<>> :: binary(),
    chunks = [] :: [binary()],
    %% Bytes in the chunks, without the young ones.
    held = 0 :: non_neg_integer(),
    %% How far back a match may reach.
    reach :: pos_integer(),
    %% What was appended in all, the prefix left out.
    size = 0 :: non_neg_integer(),
    %% What was written and not taken yet, the latest first.
    out = [] :: [binary()]
}).

-opaque window() :: #window{}.

-define(YOUNG, 4096).
-define(MERGED, 1_048_576).

-spec new(Reach :: pos_integer()) -> window().
new(Reach) -> #window{reach = Reach}.

%% With a dictionary: bytes that a match may reach and that are no output.
-spec new(Reach :: pos_integer(), Prefix :: binary()) -> window().
new(Reach, <<>>) -> new(Reach);
new(Reach, Prefix) -> #window{reach = Reach, chunks = [Prefix], held = byte_size(Prefix)}.

%% The same window where matches reach that far from now on.
-spec reaching(Reach :: pos_integer(), window()) -> window().
reaching(Reach, Window) -> Window#window{reach = Reach}.

-spec append(binary(), window()) -> window().
append(Bytes, #window{young = Young, size = Size} = Window) ->
    Window1 = Window#window{size = Size + byte_size(Bytes)},
    case byte_size(Young) + byte_size(Bytes) of
        Together when Together =< ?YOUNG -> Window1#window{young = <<Young/binary, Bytes/binary>>};
        _ -> age(Bytes, age(Young, Window1#window{young = <<>>}))
    end.

%% Repeats what stands Offset bytes back, Length bytes long; the two may overlap.
-spec copy(Offset :: pos_integer(), Length :: pos_integer(), window()) -> {ok, window()} | error.
copy(Offset, _Length, #window{young = Young, held = Held, reach = Reach}) when
    Offset > byte_size(Young) + Held; Offset > Reach
->
    error;
copy(Offset, Length, Window) when Length =< Offset ->
    {ok, append(slice(Offset, Length, Window), Window)};
copy(Offset, Length, Window) ->
    Pattern = slice(Offset, Offset, Window),
    Repeated = binary:copy(Pattern, (Length + Offset - 1) div Offset),
    {ok, append(binary:part(Repeated, 0, Length), Window)}.

-spec size(window()) -> non_neg_integer().
size(#window{size = Size}) -> Size.

%% What was written since the last time.
-spec take(window()) -> {iolist(), window()}.
take(Window) ->
    #window{young = Young} = Window,
    Aged = #window{out = Out} = age(Young, Window#window{young = <<>>}),
    {lists:reverse(Out), Aged#window{out = []}}.

-spec age(binary(), window()) -> window().
age(<<>>, Window) ->
    Window;
age(Bytes, #window{chunks = Chunks, held = Held, reach = Reach, out = Out} = Window) ->
    Merged = merge(Bytes, Chunks),
    Window1 = Window#window{chunks = Merged, held = Held + byte_size(Bytes), out = [Bytes | Out]},
    case Window1#window.held > 2 * Reach + ?MERGED of
        true -> trim(Window1);
        false -> Window1
    end.

-spec merge(binary(), [binary()]) -> [binary()].
merge(Bytes, [Next | Chunks]) when
    byte_size(Next) =< byte_size(Bytes), byte_size(Bytes) =< ?MERGED
->
    merge(<<Next/binary, Bytes/binary>>, Chunks);
merge(Bytes, Chunks) ->
    [Bytes | Chunks].

-spec trim(window()) -> window().
trim(#window{chunks = Chunks, reach = Reach} = Window) ->
    Kept = newest(Chunks, Reach),
    Window#window{chunks = Kept, held = iolist_size(Kept)}.

-spec newest([binary()], Size :: integer()) -> [binary()].
newest([Chunk | Chunks], Size) when Size > 0 ->
    [Chunk | newest(Chunks, Size - byte_size(Chunk))];
newest(_, _) ->
    [].

-spec slice(pos_integer(), pos_integer(), window()) -> binary().
slice(Offset, Length, #window{young = Young, chunks = Chunks}) ->
    case slice_of([Young | Chunks], Offset, Length, []) of
        [Slice] -> Slice;
        Slices -> iolist_to_binary(Slices)
    end.

%% Chunks run from the youngest to the oldest; the pieces come out oldest first.
-spec slice_of([binary()], pos_integer(), pos_integer(), [binary()]) -> [binary()].
slice_of([Chunk | Chunks], Offset, Length, Younger) ->
    Size = byte_size(Chunk),
    End = Offset - Length,
    if
        End >= Size -> slice_of(Chunks, Offset - Size, Length, Younger);
        Offset =< Size -> [binary:part(Chunk, Size - Offset, Length) | Younger];
        true ->
            Piece = binary:part(Chunk, 0, Size - End),
            slice_of(Chunks, Offset - Size, Length - byte_size(Piece), [Piece | Younger])
    end.
