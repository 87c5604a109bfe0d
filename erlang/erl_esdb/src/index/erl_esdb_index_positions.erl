-module(erl_esdb_index_positions).
-moduledoc """
Positions of several keys as one sequence, in their order and each once: of events that have any of
the keys, or all. Pure, and lazy: what is not taken is not searched.

```erlang
1> Cursors = [erl_esdb_runs:cursor(Hash, 0, forward, Runs) || Hash <- [17, 4]].
2> {[0, 1], _} = erl_esdb_index_positions:take(
       2, erl_esdb_index_positions:new(any, forward, Cursors)).
```
""".

-export([new/3, take/2]).
-export_type([positions/0, mode/0]).

-type mode() :: any | all.
-type direction() :: erl_esdb_runs:direction().
-type cursor() :: erl_esdb_runs:cursor().
-type position() :: erl_esdb_runs:position().

%% Most questions have one key. For `any' a heap of what comes next from each cursor, by its
%% position in the given direction and, so that equal ones differ, its number. For `all' the
%% cursors, none of which has ended.
-opaque positions() ::
    {one, cursor()}
    | {any, direction(), gb_sets:set({Rank :: integer(), pos_integer(), cursor()})}
    | {all, direction(), [cursor()]}.

-doc "The positions that any of the cursors gives, or all do. No cursors give none.".
-spec new(mode(), direction(), [cursor()]) -> positions().
new(_Mode, _Direction, [Cursor]) ->
    {one, Cursor};
new(all, Direction, Cursors) ->
    {all, Direction, Cursors};
new(any, Direction, Cursors) ->
    Heads = [
        head(Direction, Number, Next)
     || {Number, Cursor} <- lists:enumerate(Cursors),
        Next <- [erl_esdb_runs:next(Cursor)],
        Next =/= none
    ],
    {any, Direction, gb_sets:from_list(Heads)}.

-spec head(direction(), pos_integer(), {position(), cursor()}) ->
    {integer(), pos_integer(), cursor()}.
head(forward, Number, {Position, Cursor}) -> {Position, Number, Cursor};
head(backward, Number, {Position, Cursor}) -> {-Position, Number, Cursor}.

-doc "The next positions, at most so many, and the rest; `done` where there is no rest.".
-spec take(pos_integer(), positions()) -> {[position()], positions() | done}.
take(Count, Positions) -> take(Count, Positions, []).

-spec take(non_neg_integer(), positions(), [position()]) -> {[position()], positions() | done}.
take(0, Positions, Taken) ->
    {lists:reverse(Taken), Positions};
take(Count, Positions, Taken) ->
    case next(Positions) of
        {Position, Positions1} -> take(Count - 1, Positions1, [Position | Taken]);
        done -> {lists:reverse(Taken), done}
    end.

-spec next(positions()) -> {position(), positions()} | done.
next({one, Cursor}) ->
    case erl_esdb_runs:next(Cursor) of
        {Position, Cursor1} -> {Position, {one, Cursor1}};
        none -> done
    end;
next({any, Direction, Heads}) ->
    case gb_sets:is_empty(Heads) of
        true -> done;
        false -> next_of_any(Direction, gb_sets:take_smallest(Heads))
    end;
next({all, _Direction, []}) ->
    done;
next({all, Direction, [Cursor | Cursors]}) ->
    case erl_esdb_runs:next(Cursor) of
        {Position, Cursor1} -> agreed(Position, Direction, Cursors, [Cursor1]);
        none -> done
    end.

%% All cursors that give this position go on.
-spec next_of_any(direction(), {{integer(), pos_integer(), cursor()}, gb_sets:set(_)}) ->
    {position(), positions()}.
next_of_any(Direction, {{Rank, Number, Cursor}, Heads}) ->
    {abs(Rank), {any, Direction, passed(Rank, Direction, moved(Direction, Number, Cursor, Heads))}}.

-spec passed(integer(), direction(), gb_sets:set(Head)) -> gb_sets:set(Head) when
    Head :: {integer(), pos_integer(), cursor()}.
passed(Rank, Direction, Heads) ->
    case gb_sets:is_empty(Heads) orelse gb_sets:smallest(Heads) of
        {Rank, Number, Cursor} = Head ->
            Heads1 = gb_sets:delete(Head, Heads),
            passed(Rank, Direction, moved(Direction, Number, Cursor, Heads1));
        _ ->
            Heads
    end.

-spec moved(direction(), pos_integer(), cursor(), gb_sets:set(Head)) -> gb_sets:set(Head) when
    Head :: {integer(), pos_integer(), cursor()}.
moved(Direction, Number, Cursor, Heads) ->
    case erl_esdb_runs:next(Cursor) of
        none -> Heads;
        Next -> gb_sets:add(head(Direction, Number, Next), Heads)
    end.

%% The other cursors move on to the position. One that passes it by names the next candidate, for
%% which all have to be asked again. `Asked' gave the candidate, or are at it.
-spec agreed(position(), direction(), [cursor()], [cursor(), ...]) ->
    {position(), positions()} | done.
agreed(Position, Direction, [], Asked) ->
    {Position, {all, Direction, Asked}};
agreed(Position, Direction, [Cursor | Cursors], Asked) ->
    case erl_esdb_runs:next(erl_esdb_runs:seek(Position, Cursor)) of
        {Position, Cursor1} ->
            agreed(Position, Direction, Cursors, [Cursor1 | Asked]);
        {Further, Cursor1} ->
            agreed(Further, Direction, Cursors ++ Asked, [Cursor1]);
        none ->
            done
    end.
