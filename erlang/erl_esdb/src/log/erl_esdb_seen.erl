-module(erl_esdb_seen).
-moduledoc """
Which ids the latest appends of a store brought, as hashes: so an append that is sent twice is
recognised.

It forgets the oldest append when there are more hashes than it may keep. It holds their order only,
in 26 bytes for an append with one hash; whoever asks it keeps a table of what it says, with the
version of the append under each key, 80 bytes an entry. What is found there are only candidates:
two ids may have one hash, and whoever asks compares the ids.

```
 chunk  =  entry, entry, ...     of about 4 KiB, the oldest first
 entry  =  index:64  version:64  keys:16  key:64 ...
```

```erlang
1> Keys = erl_esdb_seen:keys(1, [17, 18]).
[2654435744,2654435747]
2> {Seen, []} = erl_esdb_seen:add(1, 0, Keys, erl_esdb_seen:new(1000)).
3> erl_esdb_seen:entries(Seen).
[{2654435744,0},{2654435747,0}]
```
""".

-export([new/1, keys/2, add/4, since/1, entries/1]).
-export_type([seen/0, hash/0, key/0, entry/0]).

%% Bytes of a chunk that is full.
-define(CHUNK, 4096).

-record(seen, {
    %% hashes to keep, and how many there are
    max :: non_neg_integer(),
    size = 0 :: non_neg_integer(),
    %% the command of the append that was forgotten last
    since = 0 :: non_neg_integer(),
    %% entries: the oldest, full chunks, and those that came last
    oldest = <<>> :: binary(),
    full = queue:new() :: queue:queue(binary()),
    open = <<>> :: binary()
}).

-opaque seen() :: #seen{}.
-doc "Of an id or of all ids of an append; no bignum.".
-type hash() :: 0..16#7FFFFFFFFFFFFFF.
-doc "Of a hash in a stream.".
-type key() :: 0..16#7FFFFFFFFFFFFFF.
-doc "A key, and the first version of the append that brought it.".
-type entry() :: {key(), non_neg_integer()}.

-doc "Nothing seen; keeps at most so many hashes.".
-spec new(Max :: non_neg_integer()) -> seen().
new(Max) -> #seen{max = Max}.

-doc "Under which keys the hashes of an append to the stream with this number are kept.".
-spec keys(No :: pos_integer(), [hash()]) -> [key()].
keys(No, Hashes) -> [key(No, Hash) || Hash <- Hashes].

%% Streams are kept apart by steps of the golden ratio (Knuth, TAOCP 3, 6.4), of 32 bits: no bignum
%% comes up below 2^27 streams.
-spec key(pos_integer(), hash()) -> key().
key(No, Hash) -> Hash bxor (No * 16#9E3779B1 band 16#7FFFFFFFFFFFFFF).

-doc """
Remembers the keys of the append that a command did, and answers what is forgotten for it, the
oldest first: where a later append brought the same key this is not what is kept under it.
""".
-spec add(Index :: pos_integer(), Version :: non_neg_integer(), [key(), ...], seen()) ->
    {seen(), Forgotten :: [entry()]}.
add(Index, Version, [_ | _] = Keys, #seen{size = Size, open = Open} = Seen) ->
    Count = length(Keys),
    Open1 = append(Keys, <<Open/binary, Index:64, Version:64, Count:16>>),
    trim(closed(Seen#seen{size = Size + Count, open = Open1})).

-doc "All appends of commands after this one are remembered.".
-spec since(seen()) -> Index :: non_neg_integer().
since(#seen{since = Since}) -> Since.

-spec append([key()], binary()) -> binary().
append([Key | Keys], Open) -> append(Keys, <<Open/binary, Key:64>>);
append([], Open) -> Open.

-spec closed(#seen{}) -> #seen{}.
closed(#seen{open = Open, full = Full} = Seen) when byte_size(Open) >= ?CHUNK ->
    %% A copy: the open one has room to grow.
    Seen#seen{full = queue:in(binary:copy(Open), Full), open = <<>>};
closed(Seen) ->
    Seen.

-spec trim(#seen{}) -> {#seen{}, [entry()]}.
trim(#seen{size = Size, max = Max} = Seen) when Size =< Max ->
    {Seen, []};
trim(#seen{size = Size} = Seen) ->
    {Index, Version, Keys, Seen1} = oldest(Seen),
    {Seen2, Forgotten} = trim(Seen1#seen{size = Size - length(Keys), since = Index}),
    {Seen2, [{Key, Version} || Key <- Keys] ++ Forgotten}.

-spec oldest(#seen{}) -> {pos_integer(), non_neg_integer(), [key(), ...], #seen{}}.
oldest(#seen{oldest = <<Index:64, Version:64, Count:16, Rest/binary>>} = Seen) ->
    <<Bytes:Count/binary-unit:64, Later/binary>> = Rest,
    {Index, Version, [Key || <<Key:64>> <= Bytes], Seen#seen{oldest = Later}};
oldest(#seen{oldest = <<>>, full = Full, open = Open} = Seen) ->
    case queue:out(Full) of
        {{value, Chunk}, Full1} -> oldest(Seen#seen{oldest = Chunk, full = Full1});
        {empty, _} -> oldest(Seen#seen{oldest = Open, open = <<>>})
    end.

-doc "All that is remembered, the oldest first: of one key the last entry counts.".
-spec entries(seen()) -> [entry()].
entries(#seen{oldest = Oldest, full = Full, open = Open}) ->
    lists:append([in_chunk(Chunk) || Chunk <- [Oldest | queue:to_list(Full)] ++ [Open]]).

-spec in_chunk(binary()) -> [entry()].
in_chunk(<<_Index:64, Version:64, Count:16, Bytes:Count/binary-unit:64, Rest/binary>>) ->
    [{Key, Version} || <<Key:64>> <= Bytes] ++ in_chunk(Rest);
in_chunk(<<>>) ->
    [].
