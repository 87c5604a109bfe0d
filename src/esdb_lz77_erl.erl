-module(esdb_lz77_erl).
-moduledoc false.
%% Finds repetitions for the compressors of LZ4 and Zstandard, the way of LZ4's fast mode: a table
%% of the last position of each hash of four bytes, the first match taken, larger steps where
%% nothing matches.

-export([sequences/2, sequences/5, table/1, index/3]).
-export_type([sequence/0, table/0]).

%% Literals to copy from the input, then a match; lengths and offset in bytes.
-type sequence() :: {Literals :: binary(), Offset :: pos_integer(), Length :: pos_integer()}.

-define(MIN_MATCH, 4).
%% The last match starts that far from the end at least, and leaves five literals (rules of LZ4's
%% blocks).
-define(MARGIN, 12).
-define(LAST_LITERALS, 5).
%% How many bytes one call of a BIF compares.
-define(STRIDE, 65_536).

-type table() :: {atomics:atomics_ref(), Shift :: 0..32}.
-type search() :: {binary(), table(), MaxOffset :: pos_integer(), End :: non_neg_integer()}.

%% The sequences of all bytes, and the literals left.
-spec sequences(binary(), MaxOffset :: pos_integer()) -> {[sequence()], Rest :: binary()}.
sequences(Bytes, MaxOffset) ->
    sequences(Bytes, 0, byte_size(Bytes), MaxOffset, table(byte_size(Bytes))).

%% The same from position Start to End; what is before Start and in the table may be matched.
-spec sequences(binary(), Start, End, MaxOffset :: pos_integer(), table()) ->
    {[sequence()], Rest :: binary()}
when
    Start :: non_neg_integer(), End :: non_neg_integer().
sequences(Bytes, Start, End, MaxOffset, Table) ->
    find(Start, Start, 0, {Bytes, Table, MaxOffset, End}, []).

-spec table(Size :: non_neg_integer()) -> table().
table(Size) ->
    Bits = table_bits(Size),
    {atomics:new(1 bsl Bits, [{signed, false}]), 32 - Bits}.

-spec table_bits(non_neg_integer()) -> 8..16.
table_bits(Size) when Size =< 256 -> 8;
table_bits(Size) when Size > 65_535 -> 16;
table_bits(Size) -> length(integer_to_list(Size, 2)).

%% Takes the first End bytes, of which there are more, into the table, to be matched.
-spec index(binary(), End :: non_neg_integer(), table()) -> ok.
index(Bytes, End, Table) ->
    index(0, End - ?MIN_MATCH, Bytes, Table).

-spec index(integer(), integer(), binary(), table()) -> ok.
index(Position, Last, Bytes, Table) when Position =< Last ->
    _ = seen_before(word(Bytes, Position), Position, Table),
    index(Position + 1, Last, Bytes, Table);
index(_, _, _, _) ->
    ok.

%% Literals begin at Anchor; Misses counts the positions without a match.
-spec find(Position, Anchor, Misses, search(), [sequence()]) ->
    {[sequence()], Rest :: binary()}
when
    Position :: non_neg_integer(), Anchor :: non_neg_integer(), Misses :: non_neg_integer().
find(Position, Anchor, _Misses, {Bytes, _, _, End}, Found) when Position > End - ?MARGIN ->
    {lists:reverse(Found), binary:part(Bytes, Anchor, End - Anchor)};
find(Position, Anchor, Misses, {Bytes, Table, MaxOffset, End} = Search, Found) ->
    Word = word(Bytes, Position),
    Candidate = seen_before(Word, Position, Table),
    case Candidate >= 0 andalso Position - Candidate =< MaxOffset andalso word(Bytes, Candidate) of
        Word ->
            Limit = End - ?LAST_LITERALS - Position,
            Length = match_length(Bytes, Candidate, Position, ?MIN_MATCH, Limit),
            Literals = binary:part(Bytes, Anchor, Position - Anchor),
            Next = Position + Length,
            find(Next, Next, 0, Search, [{Literals, Position - Candidate, Length} | Found]);
        _ ->
            find(Position + 1 + (Misses bsr 6), Anchor, Misses + 1, Search, Found)
    end.

-spec word(binary(), non_neg_integer()) -> 0..16#FFFFFFFF.
word(Bytes, Position) ->
    <<_:Position/binary, Word:32/little, _/binary>> = Bytes,
    Word.

%% The last position with that hash, -1 for none; from now on this one.
-spec seen_before(0..16#FFFFFFFF, non_neg_integer(), table()) -> integer().
seen_before(Word, Position, {Ref, Shift}) ->
    Slot = ((Word * 2_654_435_761) band 16#FFFFFFFF) bsr Shift + 1,
    atomics:exchange(Ref, Slot, Position + 1) - 1.

-spec match_length(binary(), Candidate, Position, Length :: pos_integer(), Limit) ->
    pos_integer()
when
    Candidate :: non_neg_integer(), Position :: non_neg_integer(), Limit :: pos_integer().
match_length(Bytes, Candidate, Position, Length, Limit) ->
    Stride = min(?STRIDE, Limit - Length),
    One = binary:part(Bytes, Candidate + Length, Stride),
    Other = binary:part(Bytes, Position + Length, Stride),
    case binary:longest_common_prefix([One, Other]) of
        Stride when Stride > 0 -> match_length(Bytes, Candidate, Position, Length + Stride, Limit);
        Common -> Length + Common
    end.
