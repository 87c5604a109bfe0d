-module(erl_esdb_query).
-moduledoc """
Queries on types and tags.

A query is a list of items, maps with `types` and `tags`. An event matches an item when its type is
one of `types` (none given: any) and it has all of `tags`; it matches the query when it matches one
of its items. The empty query matches every event.

```erlang
1> Query = erl_esdb_query:compile([#{types => [~"Enrolled"], tags => [~"course-7"]}]).
2> erl_esdb_query:matches({~"id", ~"Enrolled", #{}, #{}, #{tags => [~"course-7"]}}, Query).
true
```
""".

-export([is_query/1, compile/1, matches/2, matches_event/2, where/2, hashed/1]).
-include("erl_esdb.hrl").

-export_type([query/0, compiled/0]).

-type query() :: [#{types => [binary()], tags => [binary()]}].
-opaque compiled() :: [{any | #{binary() => true}, [binary()]}].

-doc "Whether this is a query: no keys but `types` and `tags`, each a list of binaries.".
-spec is_query(term()) -> boolean().
is_query([Item | Query]) -> is_item(Item) andalso is_query(Query);
is_query(Rest) -> Rest =:= [].

-spec is_item(term()) -> boolean().
is_item(#{} = Item) ->
    map_size(maps:without([types, tags], Item)) =:= 0 andalso
        lists:all(fun is_binaries/1, maps:values(Item));
is_item(_) ->
    false.

-spec is_binaries(term()) -> boolean().
is_binaries([Value | Values]) -> is_binary(Value) andalso is_binaries(Values);
is_binaries(Rest) -> Rest =:= [].

-doc "The query in the form in which it is asked of events.".
-spec compile(query()) -> compiled().
compile(Query) -> [{types(Item), lists:usort(maps:get(tags, Item, []))} || Item <- Query].

-spec types(map()) -> any | #{binary() => true}.
types(#{types := [_ | _] = Types}) -> maps:from_keys(Types, true);
types(#{}) -> any.

-doc "Whether an event matches.".
-spec matches(erl_esdb_event:body(), compiled()) -> boolean().
matches(_Body, []) -> true;
matches(Body, Query) -> lists:any(fun(Item) -> matches_item(Body, Item) end, Query).

-doc "The same of an event.".
-spec matches_event(event(), compiled()) -> boolean().
matches_event(#event{} = Event, Query) ->
    #event{event_id = Id, event_type = Type, tags = Tags} = Event,
    matches({Id, Type, #{}, #{}, #{tags => Tags}}, Query).

-doc """
By which keys an index that has these kinds finds all events that may match, and some more where it
has not all kinds. `none`: every event may.
""".
-spec where(query(), [erl_esdb_index_keys:kind()]) -> {ok, erl_esdb_index:where()} | none.
where(Query, Kinds) ->
    Items = [where_item(Item, Kinds) || Item <- Query],
    case Items =:= [] orelse lists:member(none, Items) of
        true -> none;
        false -> {ok, {any, Items}}
    end.

-spec where_item(map(), [erl_esdb_index_keys:kind()]) -> erl_esdb_index:where() | none.
where_item(Item, Kinds) ->
    Types = [{type, Type} || Type <- maps:get(types, Item, []), lists:member(type, Kinds)],
    Tags = [{tag, Tag} || Tag <- maps:get(tags, Item, []), lists:member(tag, Kinds)],
    case {Types, Tags} of
        {[], []} -> none;
        {[], _} -> {all, Tags};
        {_, _} -> {all, [{any, Types} | Tags]}
    end.

-spec matches_item(erl_esdb_event:body(), {any | #{binary() => true}, [binary()]}) -> boolean().
matches_item(Body, {Types, Tags}) ->
    (Types =:= any orelse is_map_key(erl_esdb_event:type(Body), Types)) andalso
        (Tags =:= [] orelse Tags -- erl_esdb_event:tags(Body) =:= []).

-doc "The query as it is asked of the hashes that the machine keeps.".
-spec hashed(compiled()) -> erl_esdb_recent:query().
hashed(Query) ->
    [{hashes(Types), [erl_esdb_event:tag_hash(Tag) || Tag <- Tags]} || {Types, Tags} <- Query].

-spec hashes(any | #{binary() => true}) -> any | [erl_esdb_recent:hash()].
hashes(any) -> any;
hashes(Types) -> [erl_esdb_event:type_hash(Type) || Type := _ <- Types].
