-module(erl_esdb_links).
-moduledoc """
Links: streams that the store derives from others, kept up to date as events are committed.

A link reads one stream, the streams whose names match a pattern, or all; keeps the events that its
filter keeps; and writes what its transformation makes of them to the stream `$link:Name`, in the
order of positions.

```erlang
1> erl_esdb_links:create(shop, #{
       name => ~"large-orders",
       source => #{type => stream_pattern, pattern => ~"order-*"},
       filter => {gt, total, 1000},
       backfill => true
   }).
ok
2> erl_esdb_links:start(shop, ~"large-orders").
ok
3> {ok, Large} = erl_esdb_streams:read(shop, ~"$link:large-orders", 0, 100, forward).
```

## What a link promises

Each source event that passes has exactly one output, also when the link, the store or the node
crashes at any moment. The output has the id of its source, and in its metadata `source_stream`,
`source_version`, `source_position` and, by which the link knows what it wrote itself, `link_id`. So
others may write to its stream, too. An output comes a moment after its source was committed.

A link waits for a store that does not answer. Where it cannot go on, because an event cannot be
read or what it makes of it is refused, its status is `error`, with a `reason`.

The streams of links are never a source for `all` or a pattern. One link may name the stream of
another as its source, where no loop comes of it.

## Filters and transformations

A filter is a fun of the event, `{Module, Function, ExtraArgs}`, or a predicate of
`m:esdb_filter_nif`; it keeps the events for which it says `true`, and where it crashes, none. A
transformation is a fun of the event or `{Module, Function, ExtraArgs}`; it answers an event, or a
map as for an append. Where it crashes or answers anything else, the event is written as it is.

A predicate looks into data that are JSON text. Functions get them as they are stored; with
`decode => json` decoded, and what a transformation makes of them becomes JSON text again.

Named functions and predicates survive a restart. Other funs work until the store stops; they are
`volatile` in the answers of `get/2`. A link that has lost some then has the status `error`;
creating it again with the same source gives it new ones, and when it is started it goes on where it
was.

Errors that are not named with a function are those of `m:erl_esdb_streams`.
""".

-export([create/2, delete/2, get/2, list/1, start/2, stop/2, info/2]).
-export_type([info/0]).

-include("erl_esdb.hrl").

-doc """
`processed`: how many events the link has written; `last_event`: the id of the last, once there is
one; `volatile`: what of it does not survive a restart; `reason`: why its status is `error`.
""".
-type info() :: #{
    name := binary(),
    source := erl_esdb_link_spec:source(),
    status := running | stopped | error,
    processed := non_neg_integer(),
    last_event => binary() | undefined,
    volatile => [filter | transform],
    decode => json,
    reason => term(),
    link_stream => binary(),
    link_stream_version => integer(),
    created_at => Milliseconds :: integer()
}.

-doc """
Creates a link, `stopped`. With `backfill => true` it begins with the oldest event when it is
started, otherwise with the first that is committed after that.

## Errors

- `already_exists`
- `{invalid_link, {missing | bad_type | undefined_function, Key}}`
- `{link_loop, Names}`: the link would read, through these, what it writes
""".
-spec create(Store :: atom(), erl_esdb_link_spec:spec() | map()) -> ok | {error, term()}.
create(Store, Spec) when is_atom(Store), is_map(Spec) ->
    erl_esdb_link_mgr:request(Store, {create, Spec});
create(_, _) ->
    error(badarg).

-doc "Stops a link and removes it; its stream stays. `ok` also where there is none.".
-spec delete(Store :: atom(), Name :: binary()) -> ok | {error, term()}.
delete(Store, Name) -> request(Store, delete, Name).

-doc """
Starts a link; `ok` also where it runs. It goes on where it was; only one without `backfill` that
was stopped by `stop/2` begins with what is committed from now on.

Errors: `not_found`, `{functions_lost, [filter | transform]}`.
""".
-spec start(Store :: atom(), Name :: binary()) -> ok | {error, term()}.
start(Store, Name) -> request(Store, start, Name).

-doc """
Stops a link: when this has returned, it writes nothing more. `ok` also where it does not run, or
where there is none.
""".
-spec stop(Store :: atom(), Name :: binary()) -> ok | {error, term()}.
stop(Store, Name) -> request(Store, stop, Name).

-spec request(atom(), delete | start | stop, binary()) -> ok | {error, term()}.
request(Store, What, Name) when is_atom(Store), is_binary(Name) ->
    erl_esdb_link_mgr:request(Store, {What, Name});
request(_, _, _) ->
    error(badarg).

-doc "A link. Errors: `not_found`.".
-spec get(Store :: atom(), Name :: binary()) -> {ok, info()} | {error, term()}.
get(Store, Name) when is_atom(Store), is_binary(Name) ->
    maybe
        {ok, Definition} ?= erl_esdb_link_mgr:definition(Store, Name),
        {ok, Progress} ?= erl_esdb_link_mgr:progress(Store, Name),
        {ok, shown(Definition, Progress)}
    end;
get(_, _) ->
    error(badarg).

-spec shown(erl_esdb_link_spec:definition(), erl_esdb_link_spec:progress()) -> info().
shown(Definition, Progress) ->
    Shown = maps:with([name, source, status, reason], Definition),
    Done = maps:with([processed], Progress),
    Json = #{decode => json || decode := json <- Definition},
    Last = #{last_event => Id || last_event := Id <- Progress, is_binary(Id)},
    Funs = maps:with([filter, transform], Definition),
    Volatile = lists:sort([Place || Place := {volatile, _} <- Funs]),
    lists:foldl(fun maps:merge/2, Shown, [Done, Json, Last, listed(Volatile)]).

-spec listed([filter | transform]) -> map().
listed([]) -> #{};
listed(Volatile) -> #{volatile => Volatile}.

-doc "All links, in the order of their names.".
-spec list(Store :: atom()) -> {ok, [info()]} | {error, term()}.
list(Store) when is_atom(Store) ->
    maybe
        {ok, Definitions} ?= erl_esdb_link_mgr:definitions(Store),
        Found = [?MODULE:get(Store, Name) || #{name := Name} <- Definitions],
        {ok, [Info || {ok, Info} <- Found]}
    end;
list(_) ->
    error(badarg).

-doc """
A link, and the name and version of its stream (-1 where there is none yet), when it was created,
and always `last_event`. Errors: `not_found`.
""".
-spec info(Store :: atom(), Name :: binary()) -> {ok, info()} | {error, term()}.
info(Store, Name) ->
    maybe
        {ok, Info} ?= ?MODULE:get(Store, Name),
        {ok, #{created_at := Created}} ?= erl_esdb_link_mgr:definition(Store, Name),
        Stream = erl_esdb_link_spec:stream(Name),
        {ok, Version} ?= erl_esdb_link:version(Store, Stream),
        More = #{link_stream => Stream, link_stream_version => Version, created_at => Created},
        {ok, maps:merge(#{last_event => undefined}, maps:merge(Info, More))}
    end.
