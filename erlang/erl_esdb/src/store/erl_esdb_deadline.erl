-module(erl_esdb_deadline).
-moduledoc """
When a call has to have answered: what it does in several steps it does in one time.

```erlang
1> Until = erl_esdb_deadline:in(5000).
2> erl_esdb_deadline:left(Until).
4998
3> erl_esdb_deadline:map(fun(N) -> {ok, 2 * N} end, [1, 2, 3], Until).
{ok,[2,4,6]}
```
""".

-export([in/1, left/1, is_over/1, check/2, map/3]).
-export_type([deadline/0]).

%% Elements that are mapped between two looks at the clock.
-define(BETWEEN, 256).

-doc "In monotonic milliseconds.".
-opaque deadline() :: integer() | infinity.

-doc "The end of so many milliseconds from now.".
-spec in(timeout()) -> deadline().
in(infinity) -> infinity;
in(Timeout) when is_integer(Timeout) -> erlang:monotonic_time(millisecond) + Timeout.

-doc "The milliseconds that are left.".
-spec left(deadline()) -> timeout().
left(infinity) -> infinity;
left(Until) when is_integer(Until) -> max(0, Until - erlang:monotonic_time(millisecond)).

-doc "Whether none are left.".
-spec is_over(deadline()) -> boolean().
is_over(Until) -> left(Until) =:= 0.

-doc "Whether who is done, or has time left, may go on.".
-spec check(deadline(), Done :: boolean()) -> ok | {error, timeout}.
check(_Until, true) ->
    ok;
check(Until, false) ->
    case is_over(Until) of
        true -> {error, timeout};
        false -> ok
    end.

-doc """
Maps a fun over a list, until the first error or the end of the time. A list of at most 256 elements
is mapped however long it takes.
""".
-spec map(fun((A) -> {ok, B} | {error, Reason}), [A], deadline()) ->
    {ok, [B]} | {error, timeout | Reason}.
map(Fun, List, Until) -> map(Fun, List, Until, ?BETWEEN, []).

-spec map(fun((A) -> {ok, B} | {error, Reason}), [A], deadline(), non_neg_integer(), [B]) ->
    {ok, [B]} | {error, timeout | Reason}.
map(_Fun, [], _Until, _Left, Mapped) ->
    {ok, lists:reverse(Mapped)};
map(Fun, List, Until, 0, Mapped) ->
    maybe
        ok ?= check(Until, false),
        map(Fun, List, Until, ?BETWEEN, Mapped)
    end;
map(Fun, [Element | List], Until, Left, Mapped) ->
    maybe
        {ok, Result} ?= Fun(Element),
        map(Fun, List, Until, Left - 1, [Result | Mapped])
    end.
