-module(erl_esdb_removals).
-moduledoc """
From which streams events were removed lately, and by which commands: so who sends an append again
is not told that it was never done where it was, and what it brought is gone since.

```
 entry  =  index:64  hash of the name:32      the oldest first
```

It keeps the last 5,000 to 10,000 removals, in 12 bytes each. What lies before them counts as a
removal from every stream, and so does one from a stream whose name has the same hash: a wrong
`true` costs an answer, a wrong `false` would do an append twice.

```erlang
1> Removals = erl_esdb_removals:add(17, ~"order-1", erl_esdb_removals:new()).
2> erl_esdb_removals:is_since(16, ~"order-1", Removals).
true
3> erl_esdb_removals:is_since(17, ~"order-1", Removals).
false
```
""".

-export([new/0, add/3, is_since/3]).
-export_type([removals/0]).

%% Entries, and bytes of one.
-define(MOST, 10_000).
-define(ENTRY, 12).

-record(removals, {
    %% the last command of those that are not known any more
    before = 0 :: non_neg_integer(),
    entries = <<>> :: binary()
}).

-opaque removals() :: #removals{}.

-doc "Nothing was removed yet.".
-spec new() -> removals().
new() -> #removals{}.

-doc "Remembers that a command removed events of a stream. Indexes rise.".
-spec add(Index :: pos_integer(), Stream :: binary(), removals()) -> removals().
add(Index, Stream, #removals{entries = Entries} = Removals) when
    byte_size(Entries) < ?MOST * ?ENTRY
->
    Removals#removals{entries = <<Entries/binary, Index:64, (hash(Stream)):32>>};
add(Index, Stream, #removals{entries = Entries} = Removals) ->
    Half = (?MOST div 2 - 1) * ?ENTRY,
    <<_:Half/binary, Before:64, _:32, Rest/binary>> = Entries,
    add(Index, Stream, Removals#removals{before = Before, entries = binary:copy(Rest)}).

-doc "Whether a command after this index may have removed events of the stream.".
-spec is_since(Index :: non_neg_integer(), Stream :: binary(), removals()) -> boolean().
is_since(Index, _Stream, #removals{before = Before}) when Index < Before -> true;
is_since(Index, Stream, #removals{entries = Entries}) -> is_in(hash(Stream), Index, Entries).

-spec is_in(non_neg_integer(), non_neg_integer(), binary()) -> boolean().
is_in(Hash, After, <<Index:64, Hash:32, _/binary>>) when Index > After -> true;
is_in(Hash, After, <<_:?ENTRY/binary, Rest/binary>>) -> is_in(Hash, After, Rest);
is_in(_Hash, _After, <<>>) -> false.

-spec hash(binary()) -> non_neg_integer().
hash(Stream) -> esdb_hash_nif:xxhash3(Stream) band 16#FFFFFFFF.
