-module(esdb_wildcard_erl).
-moduledoc """
Wildcards: `*` is any run of bytes, `?` is exactly one byte, everything else is itself.

```erlang
1> esdb_wildcard_erl:compile(~"order-*").
{prefix,<<"order-">>}
2> esdb_wildcard_erl:is_match(~"order-17", esdb_wildcard_erl:compile(~"*-1?")).
true
```

A pattern is split at its stars. What stands before the first must begin the text, what stands
behind the last must end it, and the pieces between are found from left to right, each at its first
place: a later place would leave less for the next one.
""".

-export([compile/1, is_match/2, to_regex/1]).
-export_type([wildcard/0]).

%% Bytes, or a piece with question marks in it: never empty but for the edges.
-type piece() :: binary() | {marked, binary()}.
-type wildcard() ::
    {equals | prefix | suffix | infix, binary()}
    | {exactly, piece()}
    | {pieces, First :: piece(), [piece()], Last :: piece(), Least :: non_neg_integer()}.

-doc "The test that a pattern stands for.".
-spec compile(Pattern :: binary()) -> wildcard().
compile(Pattern) ->
    case binary:split(Pattern, ~"*", [global]) of
        [Whole] ->
            whole(piece(Whole));
        [First | Rest] ->
            {Middle, [Last]} = lists:split(length(Rest) - 1, Rest),
            Pieces = [piece(Piece) || Piece <- Middle, Piece =/= <<>>],
            shape(piece(First), Pieces, piece(Last))
    end.

-spec piece(binary()) -> piece().
piece(Piece) ->
    case binary:match(Piece, ~"?") of
        nomatch -> Piece;
        _ -> {marked, Piece}
    end.

-spec whole(piece()) -> {equals, binary()} | {exactly, piece()}.
whole(Piece) when is_binary(Piece) -> {equals, Piece};
whole(Piece) -> {exactly, Piece}.

-spec shape(piece(), [piece()], piece()) ->
    {prefix | suffix | infix, binary()} | {pieces, piece(), [piece()], piece(), integer()}.
shape(First, [], <<>>) when is_binary(First) -> {prefix, First};
shape(<<>>, [], Last) when is_binary(Last) -> {suffix, Last};
shape(<<>>, [Piece], <<>>) when is_binary(Piece) -> {infix, Piece};
shape(First, Pieces, Last) ->
    {pieces, First, Pieces, Last, lists:sum([size_of(Piece) || Piece <- [First, Last | Pieces]])}.

-spec size_of(piece()) -> non_neg_integer().
size_of({marked, Piece}) -> byte_size(Piece);
size_of(Piece) -> byte_size(Piece).

-doc "Whether the whole text matches.".
-spec is_match(Text :: binary(), wildcard()) -> boolean().
is_match(Text, {equals, Bytes}) ->
    Text =:= Bytes;
is_match(Text, {prefix, Prefix}) ->
    is_at(Text, 0, Prefix);
is_match(Text, {suffix, Suffix}) ->
    is_at(Text, byte_size(Text) - byte_size(Suffix), Suffix);
is_match(Text, {infix, Bytes}) ->
    found(Text, 0, byte_size(Text), Bytes) =/= nomatch;
is_match(Text, {exactly, Piece}) ->
    byte_size(Text) =:= size_of(Piece) andalso is_at(Text, 0, Piece);
is_match(Text, {pieces, First, Pieces, Last, Least}) ->
    From = size_of(First),
    To = byte_size(Text) - size_of(Last),
    byte_size(Text) >= Least andalso is_at(Text, 0, First) andalso is_at(Text, To, Last) andalso
        are_found(Text, From, To, Pieces).

-spec is_at(binary(), integer(), piece()) -> boolean().
is_at(_, At, _) when At < 0 ->
    false;
is_at(Text, At, {marked, Piece}) ->
    case Text of
        <<_:At/binary, Rest/binary>> -> begins(Rest, Piece);
        _ -> false
    end;
is_at(Text, At, Piece) ->
    Size = byte_size(Piece),
    case Text of
        <<_:At/binary, Piece:Size/binary, _/binary>> -> true;
        _ -> false
    end.

-spec begins(binary(), binary()) -> boolean().
begins(<<_, Text/binary>>, <<$?, Piece/binary>>) -> begins(Text, Piece);
begins(<<C, Text/binary>>, <<C, Piece/binary>>) -> begins(Text, Piece);
begins(_, Piece) -> Piece =:= <<>>.

-spec are_found(binary(), non_neg_integer(), integer(), [piece()]) -> boolean().
are_found(_, _, _, []) ->
    true;
are_found(Text, From, To, [Piece | Pieces]) ->
    case found(Text, From, To, Piece) of
        nomatch -> false;
        At -> are_found(Text, At + size_of(Piece), To, Pieces)
    end.

%% The first place of a piece that lies between From and To.
-spec found(binary(), non_neg_integer(), integer(), piece()) -> non_neg_integer() | nomatch.
found(Text, From, To, {marked, Piece} = Marked) ->
    case From + byte_size(Piece) =< To of
        false ->
            nomatch;
        true ->
            case is_at(Text, From, Marked) of
                true -> From;
                false -> found(Text, From + 1, To, Marked)
            end
    end;
found(_, From, To, Piece) when From + byte_size(Piece) > To -> nomatch;
found(_, From, _, <<>>) ->
    From;
found(Text, From, To, Piece) ->
    case binary:match(Text, Piece, [{scope, {From, To - From}}]) of
        {At, _} -> At;
        nomatch -> nomatch
    end.

-doc "The pattern as the text of a regular expression, anchored at both ends.".
-spec to_regex(Pattern :: binary()) -> binary().
to_regex(Pattern) -> <<$^, (<<<<(escaped(C))/binary>> || <<C>> <= Pattern>>)/binary, $$>>.

-spec escaped(byte()) -> binary().
escaped($*) ->
    ~".*";
escaped($?) ->
    ~".";
escaped(C) when
    C =:= $.; C =:= $\\; C =:= $+; C =:= $(; C =:= $); C =:= $[; C =:= $]; C =:= ${; C =:= $};
    C =:= $^; C =:= $$; C =:= $|
->
    <<$\\, C>>;
escaped(C) ->
    <<C>>.
