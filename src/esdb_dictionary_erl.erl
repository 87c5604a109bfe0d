-module(esdb_dictionary_erl).
-moduledoc false.
%% A dictionary of raw content for Zstandard: the pieces of the samples that the most samples have
%% in common.
%%
%% The rule is that of COVER (Liao, Petri, Moffat and Wirth, "Effective Construction of Relative
%% Lempel-Ziv Dictionaries", 2016), the one zstd's own trainer follows too: a piece of ?PIECE bytes
%% is worth, for each of its strings of ?GRAM bytes, the number of samples that hold that string.
%% The samples are cut into as many epochs as pieces fit into the dictionary; the best piece of each
%% epoch is taken, and what it holds is worth nothing from then on. The pieces worth most stand
%% last, where matches are cheapest.

-export([train/2]).

-define(GRAM, 8).
-define(PIECE, 128).
%% Pieces start that far from each other.
-define(STEP, 8).
%% Of more bytes of samples than that, a part is looked at: the beginning of each sample, and where
%% that would be less than ?SHARE bytes, of evenly spread ones.
-define(MAX_BYTES, 524_288).
-define(SHARE, 1024).

-spec train(Samples :: [binary()], Size :: pos_integer()) -> binary().
train(Samples, Size) ->
    Chosen = thin_out(Samples, lists:sum([byte_size(Sample) || Sample <- Samples])),
    Worth = worth(Chosen),
    Pieces = [P || Sample <- Chosen, P <- pieces(Sample)],
    Epochs = max(1, Size div ?PIECE),
    Best = best(epochs(Pieces, Epochs), Worth, []),
    Ordered = [Piece || {_, Piece} <- lists:keysort(1, Best)],
    last_bytes(iolist_to_binary(Ordered), Size, Samples).

-spec thin_out([binary()], non_neg_integer()) -> [binary()].
thin_out(Samples, Bytes) when Bytes =< ?MAX_BYTES ->
    Samples;
thin_out(Samples, _) ->
    Share = max(?SHARE, ?MAX_BYTES div length(Samples)),
    Slices = [binary:part(Sample, 0, min(byte_size(Sample), Share)) || Sample <- Samples],
    spread(Slices, lists:sum([byte_size(Slice) || Slice <- Slices]), 0, 0).

%% Takes a slice whenever the ones taken so far are not ahead of their share of those seen.
-spec spread([binary()], All, Seen, Taken) -> [binary()] when
    All :: non_neg_integer(), Seen :: non_neg_integer(), Taken :: non_neg_integer().
spread([Slice | Slices], All, Seen, Taken) when Taken * All =< ?MAX_BYTES * Seen ->
    Size = byte_size(Slice),
    [Slice | spread(Slices, All, Seen + Size, Taken + Size)];
spread([Slice | Slices], All, Seen, Taken) ->
    spread(Slices, All, Seen + byte_size(Slice), Taken);
spread([], _, _, _) ->
    [].

%% For each string of ?GRAM bytes, in how many samples it occurs, where that is more than one.
-spec worth([binary()]) -> #{binary() => pos_integer()}.
worth(Samples) ->
    Count = fun(Sample, Worth) ->
        maps:fold(
            fun(Gram, _, Acc) -> maps:update_with(Gram, fun(N) -> N + 1 end, 1, Acc) end,
            Worth,
            maps:from_keys(grams(Sample), [])
        )
    end,
    maps:filter(fun(_, N) -> N > 1 end, lists:foldl(Count, #{}, Samples)).

-spec grams(binary()) -> [binary()].
grams(Bytes) when byte_size(Bytes) < ?GRAM ->
    [];
grams(Bytes) ->
    [binary:part(Bytes, At, ?GRAM) || At <- lists:seq(0, byte_size(Bytes) - ?GRAM)].

-spec pieces(binary()) -> [binary()].
pieces(Sample) when byte_size(Sample) =< ?PIECE ->
    [Sample];
pieces(Sample) ->
    [binary:part(Sample, At, ?PIECE) || At <- lists:seq(0, byte_size(Sample) - ?PIECE, ?STEP)].

-spec epochs([binary()], pos_integer()) -> [[binary()]].
epochs(Pieces, Count) ->
    Length = length(Pieces),
    split(Pieces, Length, max(1, Length div Count)).

-spec split([binary()], Length :: non_neg_integer(), pos_integer()) -> [[binary()]].
split(Pieces, Length, Size) when Length > Size ->
    {Epoch, Rest} = lists:split(Size, Pieces),
    [Epoch | split(Rest, Length - Size, Size)];
split(Pieces, _, _) ->
    [Pieces].

%% The best piece of each epoch, with what it is worth.
-spec best(Epochs :: [[binary()]], Worth :: #{binary() => pos_integer()}, Found) -> Found when
    Found :: [{Value :: pos_integer(), Piece :: binary()}].
best([], _, Found) ->
    Found;
best([Epoch | Epochs], Worth, Found) ->
    {Value, Piece} = lists:max([{value(Piece, Worth), Piece} || Piece <- Epoch]),
    case Value of
        0 -> best(Epochs, Worth, Found);
        _ -> best(Epochs, maps:without(grams(Piece), Worth), [{Value, Piece} | Found])
    end.

-spec value(binary(), #{binary() => pos_integer()}) -> non_neg_integer().
value(Piece, Worth) ->
    maps:fold(
        fun(Gram, _, Sum) -> Sum + maps:get(Gram, Worth, 0) end,
        0,
        maps:from_keys(grams(Piece), [])
    ).

%% Samples that have nothing in common are as good a dictionary as there is.
-spec last_bytes(binary(), pos_integer(), [binary()]) -> binary().
last_bytes(<<>>, Size, Samples) ->
    last_bytes(iolist_to_binary(Samples), Size, []);
last_bytes(Bytes, Size, _) when byte_size(Bytes) > Size ->
    binary:part(Bytes, byte_size(Bytes) - Size, Size);
last_bytes(Bytes, _, _) ->
    Bytes.
