-module(erl_esdb_index_keys).
-moduledoc """
By what an event is found: its id, its type, its tags, the event that caused it, what it belongs to.
Pure.

Metadata may name cause and correlation by atoms or by binaries (`causation_id` or
`<<"causation_id">>`); the first of the two that has a binary counts. Events of streams whose names
begin with `$link:` are copies with the ids of their originals: they are found by type and tags
only.

```erlang
1> erl_esdb_index_keys:keys(Event, [event_id, causation]).
[{event_id,<<"e2">>},{causation,<<"e1">>}]
```
""".

-export([kinds/0, is_kind/1, keys/2, entries/2, hash/1, label/1]).
-export([cause/1, correlation/1]).
-export_type([kind/0, key/0]).

-include("erl_esdb.hrl").

-type kind() :: event_id | type | tag | causation | correlation.
-type key() :: {kind(), binary()}.

-doc "All kinds of keys.".
-spec kinds() -> [kind(), ...].
kinds() -> [event_id, type, tag, causation, correlation].

-doc "Whether this is a kind of keys.".
-spec is_kind(term()) -> boolean().
is_kind(Kind) -> lists:member(Kind, kinds()).

-doc "The keys of an event, each once, of these kinds.".
-spec keys(event(), [kind()]) -> [key()].
keys(Event, Kinds) -> lists:append([keys_of(Kind, Event) || Kind <- Kinds]).

-spec keys_of(kind(), event()) -> [key()].
keys_of(type, #event{event_type = Type}) -> [{type, Type}];
keys_of(tag, #event{tags = []}) -> [];
keys_of(tag, #event{tags = Tags}) -> [{tag, Tag} || Tag <- lists:usort(Tags)];
keys_of(_Kind, #event{stream_id = <<"$link:", _/binary>>}) -> [];
keys_of(event_id, #event{event_id = Id}) -> [{event_id, Id}];
keys_of(causation, Event) -> [{causation, Id} || Id <- [cause(Event)], Id =/= undefined];
keys_of(correlation, Event) -> [{correlation, Id} || Id <- [correlation(Event)], Id =/= undefined].

-doc "The id of the event that caused this one.".
-spec cause(event()) -> binary() | undefined.
cause(#event{metadata = #{causation_id := Id}}) when is_binary(Id) -> Id;
cause(#event{metadata = #{~"causation_id" := Id}}) when is_binary(Id) -> Id;
cause(#event{}) -> undefined.

-doc "What this event belongs to.".
-spec correlation(event()) -> binary() | undefined.
correlation(#event{metadata = #{correlation_id := Id}}) when is_binary(Id) -> Id;
correlation(#event{metadata = #{~"correlation_id" := Id}}) when is_binary(Id) -> Id;
correlation(#event{}) -> undefined.

-doc "What the index keeps of an event.".
-spec entries(event(), [kind()]) -> [erl_esdb_runs:entry()].
entries(#event{position = Position} = Event, Kinds) when is_integer(Position) ->
    [erl_esdb_runs:entry(hash(Key), Position) || Key <- keys(Event, Kinds)].

-doc "The upper 56 bits of XXH3 of the kind's number, a byte, and the key.".
-spec hash(key()) -> erl_esdb_runs:hash().
hash({Kind, Key}) -> esdb_hash_nif:xxhash3(<<(number(Kind)), Key/binary>>) bsr 8.

%% Part of the format of what is kept.
-spec number(kind()) -> byte().
number(event_id) -> 1;
number(type) -> 2;
number(tag) -> 3;
number(causation) -> 4;
number(correlation) -> 5.

-doc "A number for these kinds, a bit each: runs that are brought back must have the same.".
-spec label([kind()]) -> byte().
label(Kinds) -> lists:foldl(fun(Kind, Bits) -> Bits bor (1 bsl number(Kind)) end, 0, Kinds).
