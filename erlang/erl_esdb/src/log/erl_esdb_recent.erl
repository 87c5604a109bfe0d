-module(erl_esdb_recent).
-moduledoc """
Which types and tags the latest appends of a store had, as hashes of 32 bits: enough to say that an
append cannot match a query.

```
 chunk  =  entry, entry, ...     of up to 128 appends, the oldest first
 entry  =  events:32  hashes:16  hash:32 ...      16#FFFF: may have had any type and tag
```

Entries take 6 bytes and 4 for each type and tag. Whole chunks are forgotten, when without them
there are still as many appends as it is to keep.

```erlang
1> Recent = erl_esdb_recent:add(1, erl_esdb_recent:facts([7, 8]), erl_esdb_recent:new(1000)).
2> erl_esdb_recent:may_match(-1, [{[9], []}], Recent).
false
```
""".

-export([new/1, add/3, facts/1, may_match/3]).
-export_type([recent/0, facts/0, hash/0, query/0]).

-define(APPENDS, 128).
-define(ANYTHING, 16#FFFF).
%% An append with more types and tags than these is taken for one that may have any.
-define(MOST, 1000).

-record(recent, {
    %% appends to keep
    max :: non_neg_integer(),
    %% full chunks with the positions they begin at, and how many
    full = queue:new() :: queue:queue({non_neg_integer(), binary()}),
    chunks = 0 :: non_neg_integer(),
    %% the last chunk: where it begins, its appends, and what is in it
    begins = 0 :: non_neg_integer(),
    size = 0 :: 0..?APPENDS,
    open = <<>> :: binary(),
    %% the position after the last event
    next = 0 :: non_neg_integer()
}).

-opaque recent() :: #recent{}.
-type hash() :: 0..16#FFFFFFFF.
-doc "The hashes of the types and tags of an append, or that it may have any.".
-type facts() :: binary() | any.
-doc "What an event has to have, in one of these ways: one of the types, all of the tags.".
-type query() :: [{Types :: any | [hash()], Tags :: [hash()]}].

-doc "No appends; keeps at least so many of the latest.".
-spec new(Max :: non_neg_integer()) -> recent().
new(Max) -> #recent{max = Max}.

-doc "What an append tells of itself.".
-spec facts([hash()]) -> facts().
facts(Hashes) when length(Hashes) > ?MOST -> any;
%% Not by a comprehension: that begins with a binary that has room for 256 bytes.
facts(Hashes) -> list_to_binary([<<Hash:32>> || Hash <- Hashes]).

-doc "Remembers an append: how many events, and its facts. Positions have no gaps.".
-spec add(pos_integer(), facts(), recent()) -> recent().
add(Count, Facts, #recent{size = Size, open = Open, next = Next} = Recent) ->
    Entry = entry(Count, Facts),
    Open1 = <<Open/binary, Entry/binary>>,
    closed(Recent#recent{size = Size + 1, open = Open1, next = Next + Count}).

-spec entry(pos_integer(), facts()) -> binary().
entry(Count, any) -> <<Count:32, ?ANYTHING:16>>;
entry(Count, Facts) -> <<Count:32, (byte_size(Facts) div 4):16, Facts/binary>>.

-spec closed(#recent{}) -> #recent{}.
closed(#recent{size = ?APPENDS, full = Full, chunks = Chunks, next = Next} = Recent) ->
    %% A copy: the open one has room to grow.
    Chunk = {Recent#recent.begins, binary:copy(Recent#recent.open)},
    trim(Recent#recent{
        full = queue:in(Chunk, Full), chunks = Chunks + 1, begins = Next, size = 0, open = <<>>
    });
closed(Recent) ->
    Recent.

-spec trim(#recent{}) -> #recent{}.
trim(#recent{chunks = Chunks, max = Max} = Recent) when (Chunks - 1) * ?APPENDS < Max ->
    Recent;
trim(#recent{full = Full, chunks = Chunks} = Recent) ->
    trim(Recent#recent{full = queue:drop(Full), chunks = Chunks - 1}).

-doc """
Whether an append after a position may have brought an event that matches. Also where it is not
known any more.
""".
-spec may_match(After :: integer(), query(), recent()) -> boolean().
may_match(After, _Query, #recent{next = Next}) when After + 1 >= Next ->
    false;
may_match(After, Query, #recent{begins = Begins, open = Open, full = Full}) ->
    in_chunk(After, Query, Begins, Open) orelse
        (Begins > After + 1 andalso in_chunks(After, Query, queue:out_r(Full))).

-spec in_chunks(integer(), query(), {{value, {non_neg_integer(), binary()}} | empty, _}) ->
    boolean().
in_chunks(_After, _Query, {empty, _}) ->
    true;
in_chunks(After, Query, {{value, {Begins, Chunk}}, Rest}) ->
    in_chunk(After, Query, Begins, Chunk) orelse
        (Begins > After + 1 andalso in_chunks(After, Query, queue:out_r(Rest))).

-spec in_chunk(integer(), query(), Begins :: non_neg_integer(), binary()) -> boolean().
in_chunk(After, Query, Begins, <<Count:32, ?ANYTHING:16, Rest/binary>>) ->
    Begins + Count > After + 1 orelse in_chunk(After, Query, Begins + Count, Rest);
in_chunk(After, Query, Begins, <<Count:32, N:16, Facts:N/binary-unit:32, Rest/binary>>) ->
    (Begins + Count > After + 1 andalso matches(Query, Facts)) orelse
        in_chunk(After, Query, Begins + Count, Rest);
in_chunk(_After, _Query, _Begins, <<>>) ->
    false.

-spec matches(query(), binary()) -> boolean().
matches([], _Facts) ->
    true;
matches(Query, Facts) ->
    Hashes = [Hash || <<Hash:32>> <= Facts],
    lists:any(fun(Item) -> matches_item(Item, Hashes) end, Query).

-spec matches_item({any | [hash()], [hash()]}, [hash()]) -> boolean().
matches_item({Types, Tags}, Hashes) ->
    Has = fun(Hash) -> lists:member(Hash, Hashes) end,
    (Types =:= any orelse lists:any(Has, Types)) andalso lists:all(Has, Tags).
