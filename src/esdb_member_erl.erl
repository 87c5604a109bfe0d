-module(esdb_member_erl).
-moduledoc """
Sets of values in which numbers are the same by their value, and everything else exactly.

```erlang
1> Set = esdb_member_erl:new([1, ~"a", 2.5, [1]]).
2> [esdb_member_erl:is_in(Value, Set) || Value <- [1.0, 2.5, ~"a", [1.0], 2]].
[true,true,true,false,false]
```

A float that is whole stands there as the integer, so one look decides, however many numbers there
are: a float with a fraction equals itself and no other number.
""".

-export([new/1, is_in/2, is_any_in/2]).
-export_type([set/0]).

-type set() :: #{term() => []}.

-doc "The set of these values.".
-spec new([term()]) -> set().
new(Values) -> #{key(Value) => [] || Value <- Values}.

-doc "Whether a value is in the set.".
-spec is_in(term(), set()) -> boolean().
is_in(Value, Set) when is_float(Value) -> is_map_key(key(Value), Set);
is_in(Value, Set) -> is_map_key(Value, Set).

-doc """
Whether a member of a list is in the set, or what is no list.

The end of an improper list is no member.
""".
-spec is_any_in(term(), set()) -> boolean().
is_any_in([_ | _] = Values, Set) -> is_member_in(Values, Set);
is_any_in([], _) -> false;
is_any_in(Value, Set) -> is_in(Value, Set).

-spec is_member_in(term(), set()) -> boolean().
is_member_in([Value | Values], Set) -> is_in(Value, Set) orelse is_member_in(Values, Set);
is_member_in(_, _) -> false.

-spec key(term()) -> term().
key(Value) when is_float(Value) ->
    case trunc(Value) of
        Whole when Whole == Value -> Whole;
        _ -> Value
    end;
key(Value) ->
    Value.
