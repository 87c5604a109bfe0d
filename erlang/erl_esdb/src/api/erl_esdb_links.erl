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

Named functions and predicates survive a restart. Other funs work until the store stops, or another
node leads it; they are `volatile` in the answers of `get/2`. A link that has lost some then has the
status `error`; creating it again with the same source gives it new ones, and when it is started it
goes on where it was.

## Options

Each function takes options as its last argument: `timeout`, in milliseconds. For a change it is how
long the caller waits, by default 30 seconds, because a link that is ended finishes first what it is
about; after it, it is not known whether the change was made. For the others it is the time of each
look into the store. Other options are ignored.

Errors that are not named with a function are those of `m:erl_esdb_streams`.
""".

-export([create/2, create/3, delete/2, delete/3, start/2, start/3, stop/2, stop/3]).
-export([get/2, get/3, list/1, list/2, info/2, info/3]).
-export_type([info/0, options/0]).

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

-type options() :: #{timeout => timeout(), _ => _}.

-doc "The same as `create/3` without options.".
-spec create(Store :: atom(), erl_esdb_link_spec:spec() | map()) -> ok | {error, term()}.
create(Store, Spec) -> create(Store, Spec, #{}).

-doc """
Creates a link, `stopped`. With `backfill => true` it begins with the oldest event when it is
started, otherwise with the first that is committed after that.

## Errors

- `already_exists`
- `{invalid_link, {missing | bad_type | undefined_function, Key}}`
- `{link_loop, Names}`: the link would read, through these, what it writes
""".
-spec create(Store :: atom(), erl_esdb_link_spec:spec() | map(), options()) ->
    ok | {error, term()}.
create(Store, Spec, Options) when is_atom(Store), is_map(Spec), is_map(Options) ->
    erl_esdb_link_mgr:request(Store, {create, Spec}, Options);
create(_, _, _) ->
    error(badarg).

-doc "The same as `delete/3` without options.".
-spec delete(Store :: atom(), Name :: binary()) -> ok | {error, term()}.
delete(Store, Name) -> delete(Store, Name, #{}).

-doc "Stops a link and removes it; its stream stays. `ok` also where there is none.".
-spec delete(Store :: atom(), Name :: binary(), options()) -> ok | {error, term()}.
delete(Store, Name, Options) -> request(Store, delete, Name, Options).

-doc "The same as `start/3` without options.".
-spec start(Store :: atom(), Name :: binary()) -> ok | {error, term()}.
start(Store, Name) -> start(Store, Name, #{}).

-doc """
Starts a link; `ok` also where it runs. It goes on where it was; only one without `backfill` that
was stopped by `stop/2` begins with what is committed from now on.

Errors: `not_found`, `{functions_lost, [filter | transform]}`.
""".
-spec start(Store :: atom(), Name :: binary(), options()) -> ok | {error, term()}.
start(Store, Name, Options) -> request(Store, start, Name, Options).

-doc "The same as `stop/3` without options.".
-spec stop(Store :: atom(), Name :: binary()) -> ok | {error, term()}.
stop(Store, Name) -> stop(Store, Name, #{}).

-doc """
Stops a link: when this has returned, it writes nothing more. `ok` also where it does not run, or
where there is none.
""".
-spec stop(Store :: atom(), Name :: binary(), options()) -> ok | {error, term()}.
stop(Store, Name, Options) -> request(Store, stop, Name, Options).

-spec request(atom(), delete | start | stop, binary(), options()) -> ok | {error, term()}.
request(Store, What, Name, Options) when is_atom(Store), is_binary(Name), is_map(Options) ->
    erl_esdb_link_mgr:request(Store, {What, Name}, Options);
request(_, _, _, _) ->
    error(badarg).

-doc "The same as `get/3` without options.".
-spec get(Store :: atom(), Name :: binary()) -> {ok, info()} | {error, term()}.
get(Store, Name) -> get(Store, Name, #{}).

-doc "A link. Errors: `not_found`.".
-spec get(Store :: atom(), Name :: binary(), options()) -> {ok, info()} | {error, term()}.
get(Store, Name, Options) when is_atom(Store), is_binary(Name), is_map(Options) ->
    maybe
        {ok, Definition} ?= erl_esdb_link_mgr:definition(Store, Name, Options),
        {ok, Progress} ?= erl_esdb_link_mgr:progress(Store, Name, Options),
        {ok, shown(Definition, Progress)}
    end;
get(_, _, _) ->
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

-doc "The same as `list/2` without options.".
-spec list(Store :: atom()) -> {ok, [info()]} | {error, term()}.
list(Store) -> list(Store, #{}).

-doc "All links, in the order of their names.".
-spec list(Store :: atom(), options()) -> {ok, [info()]} | {error, term()}.
list(Store, Options) when is_atom(Store), is_map(Options) ->
    maybe
        {ok, Definitions} ?= erl_esdb_link_mgr:definitions(Store, Options),
        Found = [get(Store, Name, Options) || #{name := Name} <- Definitions],
        {ok, [Info || {ok, Info} <- Found]}
    end;
list(_, _) ->
    error(badarg).

-doc "The same as `info/3` without options.".
-spec info(Store :: atom(), Name :: binary()) -> {ok, info()} | {error, term()}.
info(Store, Name) -> info(Store, Name, #{}).

-doc """
A link, and the name and version of its stream (-1 where there is none yet), when it was created,
and always `last_event`. Errors: `not_found`.
""".
-spec info(Store :: atom(), Name :: binary(), options()) -> {ok, info()} | {error, term()}.
info(Store, Name, Options) ->
    maybe
        {ok, Info} ?= get(Store, Name, Options),
        {ok, #{created_at := Created}} ?= erl_esdb_link_mgr:definition(Store, Name, Options),
        Stream = erl_esdb_link_spec:stream(Name),
        {ok, Version} ?= erl_esdb_link:version(Store, Stream, Options),
        More = #{link_stream => Stream, link_stream_version => Version, created_at => Created},
        {ok, maps:merge(#{last_event => undefined}, maps:merge(Info, More))}
    end.
