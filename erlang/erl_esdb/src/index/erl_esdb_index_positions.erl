-module(erl_esdb_index_positions).
-moduledoc """
Positions of several keys as one sequence, in their order and each once: of events that have any of
the keys, or all, or any of some and all of others, in any depth. Pure, and lazy: what is not taken
is not searched.

What all have is found by leaps: whoever is furthest says from where on the others look, so that the
rarest of them decides how much is looked at (leapfrog join, Veldhuizen 2014).

```erlang
1> Keys = [erl_esdb_index_positions:key(erl_esdb_runs:cursor(Hash, 0, forward, Runs))
       || Hash <- [17, 4]].
2> {[0, 1], _} = erl_esdb_index_positions:take(
       2, erl_esdb_index_positions:new(any, forward, Keys)).
```
""".

-export([key/1, new/3, take/2]).
-export_type([positions/0, mode/0]).

%% Steps of a call, at most: those of some milliseconds.
-define(STEPS, 4096).

-type mode() :: any | all.
-type direction() :: erl_esdb_runs:direction().
-type cursor() :: erl_esdb_runs:cursor().
-type position() :: erl_esdb_runs:position().

%% For `any' a heap of what comes next from each, by its position in the given direction and, so
%% that equal ones differ, its number. For `all' those that have to agree.
-opaque positions() ::
    {key, cursor()}
    | {any, direction(), gb_sets:set(head())}
    | {all, direction(), [positions()]}.
%% `found': the rank is that of a position which was taken off. `from': there is none before it.
-type head() :: {Rank :: integer(), pos_integer(), found | from, positions()}.
-type step() :: {found | from, position(), positions()} | done.

-doc "The positions of a key.".
-spec key(cursor()) -> positions().
key(Cursor) -> {key, Cursor}.

-doc "The positions that any of these have, or all do. None of them have none.".
-spec new(mode(), direction(), [positions()]) -> positions().
new(_Mode, _Direction, [Positions]) ->
    Positions;
new(all, Direction, Several) ->
    {all, Direction, Several};
new(any, Direction, Several) ->
    First = rank(Direction, first(Direction)),
    Heads = [{First, Number, from, Positions} || {Number, Positions} <- lists:enumerate(Several)],
    {any, Direction, gb_sets:from_ordset(Heads)}.

%% None comes before it.
-spec first(direction()) -> position().
first(forward) -> 0;
first(backward) -> 1 bsl 56 - 1.

-doc """
The next positions, at most so many, and the rest; `done` where there is no rest. Less are taken
where they are far apart: so the caller can look at the clock.
""".
-spec take(pos_integer(), positions()) -> {[position()], positions() | done}.
take(Count, Positions) -> take(Count, ?STEPS, Positions, []).

-spec take(non_neg_integer(), non_neg_integer(), positions(), [position()]) ->
    {[position()], positions() | done}.
take(Count, Steps, Positions, Taken) when Count =:= 0; Steps =:= 0 ->
    {lists:reverse(Taken), Positions};
take(Count, Steps, Positions, Taken) ->
    case step(Positions) of
        {found, Position, Rest} -> take(Count - 1, Steps - 1, Rest, [Position | Taken]);
        {from, _, Rest} -> take(Count, Steps - 1, Rest, Taken);
        done -> {lists:reverse(Taken), done}
    end.

%% The next position, or from which one on it may be.
-spec step(positions()) -> step().
step({key, Cursor}) ->
    case erl_esdb_runs:next(Cursor) of
        {Position, Cursor1} -> {found, Position, {key, Cursor1}};
        none -> done
    end;
step({any, Direction, Heads}) ->
    case gb_sets:is_empty(Heads) of
        true -> done;
        false -> step_any(Direction, gb_sets:take_smallest(Heads))
    end;
step({all, _Direction, []}) ->
    done;
step({all, Direction, [First | Others]}) ->
    case step(First) of
        {found, Position, First1} -> agree(Position, Direction, Others, [First1]);
        {from, Position, First1} -> {from, Position, {all, Direction, [First1 | Others]}};
        done -> done
    end.

-spec step_any(direction(), {head(), gb_sets:set(head())}) -> step().
step_any(Direction, {{Rank, Number, found, Positions}, Heads}) ->
    Next = {Rank + 1, Number, from, Positions},
    Heads1 = beyond(Rank, Direction, gb_sets:add(Next, Heads)),
    {found, abs(Rank), {any, Direction, Heads1}};
step_any(Direction, {{_Rank, Number, from, Positions}, Heads}) ->
    case step(Positions) of
        {found, Position, Rest} ->
            Head = {rank(Direction, Position), Number, found, Rest},
            step({any, Direction, gb_sets:add(Head, Heads)});
        {from, Position, Rest} ->
            Heads1 = gb_sets:add({rank(Direction, Position), Number, from, Rest}, Heads),
            {Least, _, _, _} = gb_sets:smallest(Heads1),
            {from, abs(Least), {any, Direction, Heads1}};
        done ->
            step({any, Direction, Heads})
    end.

%% Backward the greatest comes first.
-spec rank(direction(), position()) -> integer().
rank(forward, Position) when is_integer(Position) -> Position;
rank(backward, Position) when is_integer(Position) -> -Position.

%% All that stand at this rank, or may, go on behind it.
-spec beyond(integer(), direction(), gb_sets:set(head())) -> gb_sets:set(head()).
beyond(0, backward, _Heads) ->
    gb_sets:empty();
beyond(Rank, Direction, Heads) ->
    case gb_sets:smallest(Heads) of
        {R, Number, Which, Positions} = Head when R =< Rank ->
            Positions1 =
                case Which of
                    found -> Positions;
                    from -> seek(abs(Rank + 1), Positions)
                end,
            Heads1 = gb_sets:add({Rank + 1, Number, from, Positions1}, gb_sets:delete(Head, Heads)),
            beyond(Rank, Direction, Heads1);
        _ ->
            Heads
    end.

%% Those that gave the position, or are at it, and those that are to be asked. One that has it not
%% says where the next candidate is, for which all are asked again.
-spec agree(position(), direction(), [positions()], [positions(), ...]) -> step().
agree(Position, Direction, [], Agreed) ->
    {found, Position, {all, Direction, lists:reverse(Agreed)}};
agree(Position, Direction, [Asked | Others], Agreed) ->
    Asked1 = seek(Position, Asked),
    case step(Asked1) of
        {found, Position, Rest} ->
            agree(Position, Direction, Others, [Rest | Agreed]);
        {found, Further, _} ->
            {from, Further, {all, Direction, [seek(Further, Asked1) | Others ++ Agreed]}};
        {from, Position, Rest} ->
            agree(Position, Direction, [Rest | Others], Agreed);
        {from, Further, Rest} ->
            {from, Further, {all, Direction, [Rest | Others ++ Agreed]}};
        done ->
            done
    end.

%% What lies before a position (backward: after it) is passed over.
-spec seek(position(), positions()) -> positions().
seek(Position, {key, Cursor}) ->
    {key, erl_esdb_runs:seek(Position, Cursor)};
seek(Position, {any, Direction, Heads}) ->
    {any, Direction, seek_heads(Position, rank(Direction, Position), Heads)};
seek(Position, {all, Direction, [First | Others]}) ->
    %% The others follow when they are asked.
    {all, Direction, [seek(Position, First) | Others]};
seek(_Position, {all, _, []} = None) ->
    None.

-spec seek_heads(position(), integer(), gb_sets:set(head())) -> gb_sets:set(head()).
seek_heads(Position, Rank, Heads) ->
    case gb_sets:is_empty(Heads) orelse gb_sets:smallest(Heads) of
        {R, Number, _, Positions} = Head when R < Rank ->
            Moved = {Rank, Number, from, seek(Position, Positions)},
            seek_heads(Position, Rank, gb_sets:add(Moved, gb_sets:delete(Head, Heads)));
        _ ->
            Heads
    end.
