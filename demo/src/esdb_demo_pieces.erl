-module(esdb_demo_pieces).
-moduledoc """
Cuts a stream of chunks into the pieces between one separator byte, whatever the chunks' borders.

A piece longer than the limit is reported as `too_long` and not kept, so that a file without any
line end needs no more memory than the limit.

```erlang
1> P0 = esdb_demo_pieces:new($\n, 100), {A, P1} = esdb_demo_pieces:feed(~"one\ntw", P0), A.
[<<"one">>]
2> {B, P2} = esdb_demo_pieces:feed(~"o\nend", P1), {B, esdb_demo_pieces:rest(P2)}.
{[<<"two">>],[<<"end">>]}
```
""".

-export([new/2, feed/2, rest/1]).
-export_type([pieces/0, piece/0]).

-record(pieces, {
    separator :: binary(),
    limit :: pos_integer(),
    %% The chunks of the unfinished piece, newest first; nothing is kept above the limit.
    open = [] :: [binary()],
    size = 0 :: non_neg_integer()
}).

-opaque pieces() :: #pieces{}.
-type piece() :: binary() | too_long.

-doc "A cutter for pieces of at most `Limit` bytes.".
-spec new(Separator :: byte(), Limit :: pos_integer()) -> pieces().
new(Separator, Limit) ->
    #pieces{separator = <<Separator>>, limit = Limit}.

-doc "The pieces that `Chunk` completes, in order.".
-spec feed(Chunk :: binary(), pieces()) -> {[piece()], pieces()}.
feed(Chunk, #pieces{separator = Separator} = Pieces) ->
    case binary:split(Chunk, Separator, [global]) of
        [Part] ->
            {[], open(Part, Pieces)};
        [First | More] ->
            {Whole, [Last]} = lists:split(length(More) - 1, More),
            Cleared = Pieces#pieces{open = [], size = 0},
            {rest(open(First, Pieces)) ++ [limited(P, Pieces) || P <- Whole], open(Last, Cleared)}
    end.

-doc "What came after the last separator: one piece, an empty one included.".
-spec rest(pieces()) -> [piece()].
rest(#pieces{size = Size, limit = Limit}) when Size > Limit -> [too_long];
rest(#pieces{open = Open}) -> [iolist_to_binary(lists:reverse(Open))].

-spec open(binary(), pieces()) -> pieces().
open(Part, #pieces{open = Open, size = Size, limit = Limit} = Pieces) ->
    case Size + byte_size(Part) of
        Sum when Sum > Limit -> Pieces#pieces{open = [], size = Limit + 1};
        Sum -> Pieces#pieces{open = [Part | Open], size = Sum}
    end.

-spec limited(binary(), pieces()) -> piece().
limited(Piece, #pieces{limit = Limit}) when byte_size(Piece) > Limit -> too_long;
limited(Piece, _) -> Piece.
