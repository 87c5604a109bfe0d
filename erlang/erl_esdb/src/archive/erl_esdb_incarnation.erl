-module(erl_esdb_incarnation).
-moduledoc """
Which store a name means: a store that comes back empty under its name is another one.

A store has an id from when it is first asked for: 128 random bits, in the key of a document. What
is kept outside of a store and counts on its events (how far an export or an import came) names the
id, and is good for as long as the store has that document. Two callers that make the first id at
once make two, and the store has both.

```erlang
1> {ok, Id} = erl_esdb_incarnation:id(shop, #{}).
2> erl_esdb_incarnation:has(shop, Id, 0, #{}).
{ok,true}
3> ok = erl_esdb:stop_store(shop), {ok, _} = erl_esdb:start_store(shop).
4> erl_esdb_incarnation:has(shop, Id, 0, #{}).
{ok,false}
```

A backup leaves the ids out: a restored copy is a store of its own, which goes its own way from the
position of the backup.
""".

-export([id/2, ids/2, has/4, is_key/1]).
-export_type([id/0]).

-define(KEY, store_incarnation).

-type id() :: <<_:128>>.

-doc "An id of a store; makes the first. Option: `timeout`.".
-spec id(Store :: atom(), #{timeout => timeout()}) -> {ok, id()} | {error, term()}.
id(Store, Timed) ->
    case ids(Store, Timed) of
        {ok, [Id | _]} -> {ok, Id};
        {ok, []} -> made(Store, crypto:strong_rand_bytes(16), Timed);
        {error, Reason} -> {error, Reason}
    end.

-doc "All ids that a store has by now. Option: `timeout`.".
-spec ids(Store :: atom(), #{timeout => timeout()}) -> {ok, [id()]} | {error, term()}.
ids(Store, Timed) ->
    case erl_esdb_store:list_documents(Store, {?KEY, <<>>}, {?KEY, last()}, Timed) of
        {ok, Found} -> {ok, [Id || {{?KEY, Id}, _Version} <- Found]};
        {error, Reason} -> {error, Reason}
    end.

-spec last() -> id().
last() -> <<-1:128>>.

-spec made(atom(), id(), map()) -> {ok, id()} | {error, term()}.
made(Store, Id, Timed) ->
    case erl_esdb_store:put_document(Store, {?KEY, Id}, [], Timed) of
        {ok, _Version} -> {ok, Id};
        {error, Reason} -> {error, Reason}
    end.

-doc """
Whether an id is one of the store, and the store has come as far as a position. Option: `timeout`.
""".
-spec has(Store :: atom(), id(), Position :: non_neg_integer(), #{timeout => timeout()}) ->
    {ok, boolean()} | {error, term()}.
has(Store, Id, Position, Timed) ->
    maybe
        {ok, _} ?= erl_esdb_store:get_document(Store, {?KEY, Id}, Timed),
        {ok, Next} ?= erl_esdb_store:next_position(Store, Timed),
        {ok, Next >= Position}
    else
        {error, not_found} -> {ok, false};
        {error, Reason} -> {error, Reason}
    end.

-doc "Whether a document's key is that of an id.".
-spec is_key(erl_esdb_log:document_key()) -> boolean().
is_key({?KEY, _Id}) -> true;
is_key(_Key) -> false.
