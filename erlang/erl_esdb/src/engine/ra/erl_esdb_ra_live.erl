-module(erl_esdb_ra_live).
-moduledoc """
Sets of log indexes, as Ra has them (`m:ra_seq`): single ones and ranges, the highest first.
""".

-export([subtract/2]).

-doc """
A set without these indexes, which may come in any order and more than once: in time that grows with
the number of ranges and of indexes, where `ra_seq:subtract/2` looks at each index of both.
""".
-spec subtract(ra_seq:state(), [ra:index()]) -> ra_seq:state().
subtract(Live, []) -> Live;
subtract(Live, Dead) -> without(Live, lists:reverse(lists:usort(Dead))).

-spec without(ra_seq:state(), [ra:index()]) -> ra_seq:state().
without(Live, []) ->
    Live;
without([], _Dead) ->
    [];
without([{_, To} | _] = Live, [Index | Dead]) when Index > To ->
    without(Live, Dead);
without([{From, To} | Live], [Index | Dead]) when Index >= From ->
    range(Index + 1, To) ++ without(range(From, Index - 1) ++ Live, Dead);
without([{_, _} = Range | Live], Dead) ->
    [Range | without(Live, Dead)];
without([Single | _] = Live, [Index | Dead]) when Index > Single ->
    without(Live, Dead);
without([Single | Live], [Single | Dead]) ->
    without(Live, Dead);
without([Single | Live], Dead) ->
    [Single | without(Live, Dead)].

%% As Ra writes it: two neighbours are no range.
-spec range(ra:index(), ra:index()) -> ra_seq:state().
range(From, To) when From > To -> [];
range(Single, Single) -> [Single];
range(From, To) when To =:= From + 1 -> [To, From];
range(From, To) -> [{From, To}].
