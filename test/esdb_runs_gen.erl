-module(esdb_runs_gen).
-moduledoc "Arguments for the functions of `esdb_runs_nif`; see `esdb_equivalence_SUITE`.".

-export([args/2, cost/2, observe/3]).

-include_lib("proper/include/proper.hrl").

args(sort, 2) -> ?LET(Width, width(), [records(Width), given(Width)]);
args(merge, 2) -> ?LET(Width, width(), [runs(Width), given(Width)]).

cost(_, _) -> cheap.

observe(_, _, Result) -> Result.

%% Those of the store's indexes more often.
width() -> frequency([{3, 14}, {4, integer(1, 16)}]).

%% As a rule the width that the records have.
given(Width) ->
    frequency([{20, Width}, {1, oneof([0, -1, 17, 3, 255, 1 bsl 64, 14.0, a, [], <<14>>])}]).

records(Width) ->
    frequency([
        {10, whole(Width)},
        {3, list(whole(Width))},
        {1, ?LET({Cut, Bytes}, {integer(0, 40), whole(Width)}, pieces(Cut, Bytes))},
        {1, ?LET({Odd, Bytes}, {binary(), whole(Width)}, <<Bytes/binary, Odd/binary>>)},
        {1, hostile()}
    ]).

pieces(Cut, Bytes) ->
    {Head, Tail} = split_binary(Bytes, min(Cut, byte_size(Bytes))),
    [binary_to_list(Head) | Tail].

%% Few values, so that records are often equal, and equal up to a byte.
whole(Width) ->
    ?LET(Count, frequency([{5, integer(0, 9)}, {3, integer(0, 60)}]), bytes(Count * Width)).

bytes(Size) ->
    ?LET(Bytes, vector(Size, frequency([{3, integer(0, 2)}, {1, byte()}])), list_to_binary(Bytes)).

%% Also such as are not sorted.
runs(Width) ->
    frequency([
        {8, list(run(Width))},
        {3, list(whole(Width))},
        {1, ?LET({Runs, Odd}, {list(run(Width)), binary()}, Runs ++ [Odd])},
        {1, ?LET({Runs, Bad}, {list(run(Width)), hostile()}, Runs ++ [Bad])},
        {1, ?LET({Runs, Tail}, {list(run(Width)), hostile()}, Runs ++ Tail)},
        {1, hostile()}
    ]).

run(Width) -> ?LET(Bytes, whole(Width), sorted(Bytes, Width)).

sorted(Bytes, Width) -> list_to_binary(lists:sort([R || <<R:Width/binary>> <= Bytes])).

hostile() -> oneof([a, 1, -1, 1.5, {}, #{}, <<1:3>>, [a], [-1], [<<1:3>>], [256], [<<>> | a]]).
