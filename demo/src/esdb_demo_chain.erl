-module(esdb_demo_chain).
-moduledoc """
The longest chain of causes in a set of events.

Each event is visited a bounded number of times, so a chain of a million commits is no deeper for
the stack and no dearer per event than one of ten. Links may come in any order, may point to
events that are not there (then the chain begins after them), and may form a circle, which is cut
where it closes.

```erlang
1> esdb_demo_chain:longest(#{~"a" => none, ~"b" => ~"a", ~"c" => ~"b", ~"x" => none}).
[<<"a">>,<<"b">>,<<"c">>]
```
""".

-export([longest/1]).
-export_type([links/0]).

-type links() :: #{Id :: binary() => Cause :: binary() | none}.
-type depths() :: #{Id :: binary() => pos_integer()}.

-doc "The ids of the longest chain, first cause first; of equals the one whose end sorts first.".
-spec longest(links()) -> [Id :: binary()].
longest(Links) when map_size(Links) =:= 0 ->
    [];
longest(Links) ->
    Depths = maps:fold(fun(Id, _, Known) -> measure(Id, Links, [], #{}, Known) end, #{}, Links),
    {_, End} = lists:min([{-Depth, Id} || Id := Depth <- Depths]),
    climb(End, Links, Depths, []).

%% Climbs to a root or to an event whose depth is known, then goes the same way back down.
-spec measure(binary(), links(), [binary()], #{binary() => []}, depths()) -> depths().
measure(Id, Links, Path, OnPath, Known) ->
    case Links of
        _ when is_map_key(Id, Known) -> descend(Path, maps:get(Id, Known), Known);
        #{Id := Cause} when not is_map_key(Id, OnPath) ->
            measure(Cause, Links, [Id | Path], OnPath#{Id => []}, Known);
        #{} -> descend(Path, 0, Known)
    end.

-spec descend([binary()], non_neg_integer(), depths()) -> depths().
descend([], _, Known) -> Known;
descend([Id | Path], Depth, Known) -> descend(Path, Depth + 1, Known#{Id => Depth + 1}).

%% Depth falls by one with each true step; where a circle was cut it does not.
-spec climb(binary(), links(), depths(), [binary()]) -> [binary()].
climb(Id, Links, Depths, Chain) ->
    Depth = maps:get(Id, Depths),
    #{Id := Cause} = Links,
    case Depths of
        #{Cause := Above} when Above =:= Depth - 1 -> climb(Cause, Links, Depths, [Id | Chain]);
        #{} -> [Id | Chain]
    end.
