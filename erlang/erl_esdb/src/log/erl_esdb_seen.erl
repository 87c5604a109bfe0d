-module(erl_esdb_seen).
-moduledoc """
Which ids the latest appends of a store brought, as hashes: so an append that is sent twice is
recognised.

It forgets the oldest append when there are more hashes than it may keep, at most 90 bytes each.
What it finds are only candidates: two ids may have one hash, and whoever asks compares the ids.

```erlang
1> Seen = erl_esdb_seen:add(1, 0, [17, 18], erl_esdb_seen:new(1000)).
2> erl_esdb_seen:find(1, [18, 19], Seen).
[0]
```
""".

-export([new/1, add/4, find/3]).
-export_type([seen/0, hash/0]).

-record(seen, {
    max :: non_neg_integer(),
    size = 0 :: non_neg_integer(),
    %% hash of stream and id => the first version of the append
    keys = #{} :: #{key() => non_neg_integer()},
    %% the appends, the oldest first
    order = queue:new() :: queue:queue({non_neg_integer(), [key()]})
}).

-opaque seen() :: #seen{}.
-doc "Of an id or of all ids of an append; no bignum.".
-type hash() :: 0..16#7FFFFFFFFFFFFFF.
-type key() :: 0..16#7FFFFFFFFFFFFFF.

-doc "Nothing seen; keeps at most so many hashes.".
-spec new(Max :: non_neg_integer()) -> seen().
new(Max) -> #seen{max = Max}.

-doc "Remembers the hashes of an append to the stream with this number.".
-spec add(No :: pos_integer(), Version :: non_neg_integer(), [hash()], seen()) -> seen().
add(_No, _Version, [], Seen) ->
    Seen;
add(No, Version, Hashes, #seen{size = Size, keys = Known, order = Order} = Seen) ->
    Keys = [key(No, Hash) || Hash <- Hashes],
    trim(Seen#seen{
        size = Size + length(Keys),
        keys = lists:foldl(fun(Key, Map) -> Map#{Key => Version} end, Known, Keys),
        order = queue:in({Version, Keys}, Order)
    }).

-spec trim(#seen{}) -> #seen{}.
trim(#seen{size = Size, max = Max} = Seen) when Size =< Max ->
    Seen;
trim(#seen{size = Size, keys = Known, order = Order} = Seen) ->
    {{value, {Version, Keys}}, Rest} = queue:out(Order),
    Left = lists:foldl(fun(Key, Map) -> forget(Key, Version, Map) end, Known, Keys),
    trim(Seen#seen{size = Size - length(Keys), keys = Left, order = Rest}).

%% Unless a later append brought the same.
-spec forget(key(), non_neg_integer(), #{key() => non_neg_integer()}) ->
    #{key() => non_neg_integer()}.
forget(Key, Version, Known) ->
    case Known of
        #{Key := Version} -> maps:remove(Key, Known);
        #{} -> Known
    end.

-doc "The first versions of the appends to a stream that may have brought one of these, ascending.".
-spec find(No :: pos_integer(), [hash()], seen()) -> [non_neg_integer()].
find(No, Hashes, #seen{keys = Known}) ->
    Keys = [key(No, Hash) || Hash <- Hashes],
    lists:usort([map_get(Key, Known) || Key <- Keys, is_map_key(Key, Known)]).

%% Streams are kept apart by a step of the golden ratio (Knuth, TAOCP 3, 6.4).
-spec key(pos_integer(), hash()) -> key().
key(No, Hash) -> (Hash + No * 16#4F1BBCDCBFA53E1) band 16#7FFFFFFFFFFFFFF.
