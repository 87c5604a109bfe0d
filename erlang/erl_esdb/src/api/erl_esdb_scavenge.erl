-module(erl_esdb_scavenge).
-moduledoc """
Removes old events of a stream, after they were archived where that is wanted. The stream stays:
its version does not change, and the next append goes on from it.

```erlang
1> ok = erl_esdb_snapshots:save(shop, ~"order-1", 99, State).
2> erl_esdb_scavenge:scavenge(shop, ~"order-1", #{before_version => 100}).
{ok,#{stream_id => <<"order-1">>,deleted_count => 100,deleted_versions => {0,99},archived => false}}
3> {ok, Files} = erl_esdb_archive_file:init(#{base_dir => "/var/lib/archive"}).
4> erl_esdb_scavenge:archive_and_scavenge(
       shop, ~"order-1", {erl_esdb_archive_file, Files}, #{before_version => 200}).
```

## Options

- `before_version`: removes the events before this version; or else
- `before`: removes the events whose `epoch_us` is earlier than this; none for this where neither is
  given
- `keep_versions`: the newest so many events stay in any case; default 0
- `require_snapshot`: whether the stream must have a snapshot; default `true`. Any snapshot will
  do: whether it stands for all that is removed, only the caller can know
- `dry_run`: tells what would be done and does nothing; default `false`
- `timeout`: of each call to the store, in milliseconds or `infinity`; a stream takes a few, and
  with an archive one for each page of events. The time of a backend is its own

and for `archive_and_scavenge/4`

- `archive_events`: how many events an archive has at most, default 4,096; more make more archives.
  A read takes each archive that it goes on into as a whole
- `verify`: reads each archive and compares it before anything is removed; default `false`

Others are ignored. What the metadata of the stream hides (`erl_esdb_streams:set_metadata/4`) is
removed in any case, but for what `keep_versions` keeps.

## Results

| key | |
|---|---|
| `stream_id` | |
| `deleted_count` | |
| `deleted_versions` | `{First, Last}`; `{0, 0}` where nothing was to be removed |
| `archived` | whether the events were archived |
| `archive_key` | only where they were; with several archives, that of the first |
| `archive_keys` | only where they were: all keys |
| `dry_run` | only in a dry run: `true` |

## Errors

- `{no_snapshot, Stream}`: it is required; told before anything else of the stream
- `{stream_not_found, Stream}`
- `{invalid_option, Key, Value}`
- `{stream_replaced, Stream}`: it was deleted and made again meanwhile
- `{archive_differs, Key}`: what was read back is not what was archived (`verify`)
- of the backend, as they are

and those of `m:erl_esdb_streams`. After an error nothing was removed, but for `{timeout, S}` and
`{store_not_started, S}`, after which it is not known. Arguments of a wrong shape are
`error(badarg)`.
""".

-export([scavenge/3, dry_run/3, scavenge_matching/3, archive_and_scavenge/4]).
-export_type([options/0, result/0]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-type options() :: #{
    before => integer(),
    before_version => non_neg_integer(),
    keep_versions => non_neg_integer(),
    require_snapshot => boolean(),
    dry_run => boolean(),
    archive_events => pos_integer(),
    verify => boolean(),
    timeout => timeout(),
    _ => _
}.
-type result() :: #{
    stream_id := binary(),
    deleted_count := non_neg_integer(),
    deleted_versions := {non_neg_integer(), non_neg_integer()},
    archived := boolean(),
    archive_key => binary(),
    archive_keys => [binary(), ...],
    dry_run => true
}.
%% Versions from the first to before the second.
-type span() :: {non_neg_integer(), non_neg_integer()}.

%% Names of streams that are listed at a time.
-define(NAMES, 1000).
-define(DEFAULTS, #{
    before => undefined,
    before_version => undefined,
    keep_versions => 0,
    require_snapshot => true,
    dry_run => false,
    archive_events => 4096,
    verify => false
}).

-doc "Removes events of a stream.".
-spec scavenge(Store :: atom(), Stream :: binary(), options()) ->
    {ok, result()} | {error, term()}.
scavenge(Store, Stream, Options) when is_atom(Store), is_binary(Stream), is_map(Options) ->
    told(Store, Stream, fun() -> run(Store, Stream, none, Options) end);
scavenge(_, _, _) ->
    error(badarg).

-doc "What `scavenge/3` would do.".
-spec dry_run(Store :: atom(), Stream :: binary(), options()) ->
    {ok, result()} | {error, term()}.
dry_run(Store, Stream, Options) when is_map(Options) ->
    scavenge(Store, Stream, Options#{dry_run => true});
dry_run(_, _, _) ->
    error(badarg).

-doc """
Does `scavenge/3` on each stream whose name matches: `*` is any run of bytes, all else is itself.
Streams that fail are not in the list.
""".
-spec scavenge_matching(Store :: atom(), Pattern :: binary(), options()) ->
    {ok, [result()]} | {error, term()}.
scavenge_matching(Store, Pattern, Options) when is_map(Options) ->
    Page = (maps:with([timeout], Options))#{pattern => Pattern, limit => ?NAMES},
    maybe
        {ok, _} ?= checked(Options),
        scavenge_pages(Store, Page, Options, [])
    end;
scavenge_matching(_, _, _) ->
    error(badarg).

-spec scavenge_pages(atom(), erl_esdb_store:names_options(), options(), [[result()]]) ->
    {ok, [result()]} | {error, term()}.
scavenge_pages(Store, Page, Options, Before) ->
    case erl_esdb_store:names(Store, Page) of
        {ok, Streams, Next} ->
            Results = [Result || S <- Streams, {ok, Result} <- [scavenge(Store, S, Options)]],
            scavenge_next(Store, Page, Next, Options, [Results | Before]);
        {error, Reason} ->
            {error, Reason}
    end.

-spec scavenge_next(
    atom(), erl_esdb_store:names_options(), binary() | done, options(), [[result()]]
) -> {ok, [result()]} | {error, term()}.
scavenge_next(_Store, _Page, done, _Options, Results) ->
    {ok, lists:append(lists:reverse(Results))};
scavenge_next(Store, Page, Next, Options, Results) ->
    scavenge_pages(Store, Page#{from => Next}, Options, Results).

-doc """
Archives the events that `scavenge/3` would remove, and then removes them.

The keys are those of `erl_esdb_archive_backend:make_key/5`, with the stream's incarnation. Nothing
is archived in a dry run or where there is nothing to remove.
""".
-spec archive_and_scavenge(
    Store :: atom(), Stream :: binary(), erl_esdb_archive_backend:backend(), options()
) -> {ok, result()} | {error, term()}.
archive_and_scavenge(Store, Stream, Backend, Options) when
    is_atom(Store), is_binary(Stream), is_map(Options)
->
    erl_esdb_archive_backend:is_backend(Backend) orelse error(badarg),
    told(Store, Stream, fun() -> run(Store, Stream, Backend, Options) end);
archive_and_scavenge(_, _, _, _) ->
    error(badarg).

-spec told(atom(), binary(), fun(() -> Result)) -> Result when
    Result :: {ok, result()} | {error, term()}.
told(Store, Stream, Run) ->
    Begin = erlang:monotonic_time(),
    Result = Run(),
    Duration = erlang:monotonic_time() - Begin,
    {Count, Archived} =
        case Result of
            {ok, #{deleted_count := Deleted, archived := Kept}} -> {Deleted, Kept};
            {error, _} -> {0, false}
        end,
    erl_esdb_telemetry:emit(
        ?SCAVENGE_COMPLETE,
        #{duration => Duration, deleted_count => Count},
        #{store_id => Store, stream_id => Stream, archived => Archived}
    ),
    Result.

-spec run(atom(), binary(), none | erl_esdb_archive_backend:backend(), options()) ->
    {ok, result()} | {error, term()}.
run(Store, Stream, Backend, Options) ->
    maybe
        {ok, Checked} ?= checked(Options),
        ok ?= snapshot(Store, Stream, Checked),
        {ok, Info} ?= erl_esdb_pages:info(Store, Stream, timed(Checked)),
        {ok, Span} ?= span(Store, Stream, Info, Checked),
        remove(Store, Stream, Info, Span, Backend, Checked)
    end.

-spec checked(map()) -> {ok, map()} | {error, {invalid_option, atom(), term()}}.
checked(Options) ->
    Checked = maps:merge(?DEFAULTS, maps:with([timeout | maps:keys(?DEFAULTS)], Options)),
    Given = maps:with(maps:keys(Options), Checked),
    case [{Key, Value} || Key := Value <- Given, not is_valid(Key, Value)] of
        [] -> {ok, Checked};
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}}
    end.

-spec is_valid(atom(), term()) -> boolean().
is_valid(before, Time) -> is_integer(Time);
is_valid(timeout, Timeout) -> erl_esdb_store:is_timeout(Timeout);
is_valid(archive_events, Count) -> is_integer(Count) andalso Count > 0;
is_valid(Key, Version) when Key =:= before_version; Key =:= keep_versions ->
    is_integer(Version) andalso Version >= 0;
is_valid(_, Flag) -> is_boolean(Flag).

-spec timed(map()) -> #{timeout => timeout()}.
timed(Options) -> maps:with([timeout], Options).

-spec snapshot(atom(), binary(), map()) -> ok | {error, term()}.
snapshot(_Store, _Stream, #{require_snapshot := false}) ->
    ok;
snapshot(Store, Stream, Options) ->
    case erl_esdb_snapshots_store:versions(Store, Stream, timed(Options)) of
        {ok, []} -> {error, {no_snapshot, Stream}};
        {ok, [_ | _]} -> ok;
        {error, Reason} -> {error, Reason}
    end.

-spec span(atom(), binary(), erl_esdb_log:info(), map()) -> {ok, span()} | {error, term()}.
span(Store, Stream, #{first := First, next := Next}, #{keep_versions := Keep} = Options) ->
    maybe
        {ok, Cut} ?= cut(Store, Stream, Options),
        {ok, Hidden} ?= erl_esdb_store:scavengeable(Store, Stream, timed(Options)),
        {ok, {First, max(First, min(max(Cut, Hidden), Next - Keep))}}
    end.

-spec cut(atom(), binary(), map()) -> {ok, non_neg_integer()} | {error, term()}.
cut(_Store, _Stream, #{before_version := Version}) when is_integer(Version) ->
    {ok, Version};
cut(Store, Stream, #{before := Time} = Options) when is_integer(Time) ->
    case erl_esdb_bisect:window(Store, Stream, beginning, Time - 1, timed(Options)) of
        {ok, {_Low, Before}} -> {ok, Before};
        {error, Reason} -> {error, Reason}
    end;
cut(_Store, _Stream, #{}) ->
    {ok, 0}.

-spec remove(
    atom(),
    binary(),
    erl_esdb_log:info(),
    span(),
    none | erl_esdb_archive_backend:backend(),
    map()
) -> {ok, result()} | {error, term()}.
remove(_Store, Stream, _Info, Span, _Backend, #{dry_run := true}) ->
    {ok, (result(Stream, Span))#{dry_run => true}};
remove(_Store, Stream, _Info, {Same, Same} = Span, _Backend, _Options) ->
    {ok, result(Stream, Span)};
remove(Store, Stream, #{no := No}, {_, Before}, none, Options) ->
    truncate(Store, Stream, No, Before, Options);
remove(Store, Stream, #{no := No}, {_, Before} = Span, Backend, Options) ->
    maybe
        {ok, [Key | _] = Keys} ?=
            erl_esdb_archive:archive(Store, Stream, No, Span, Backend, Options),
        {ok, Result} ?= truncate(Store, Stream, No, Before, Options),
        {ok, Result#{archived := true, archive_key => Key, archive_keys => Keys}}
    else
        %% Somebody else has removed them meanwhile.
        {ok, []} -> {ok, result(Stream, {Before, Before})};
        {error, Reason} -> {error, Reason}
    end.

%% The stream whose versions were chosen, not another one of its name.
-spec truncate(atom(), binary(), pos_integer(), non_neg_integer(), map()) ->
    {ok, result()} | {error, term()}.
truncate(Store, Stream, No, Before, Options) ->
    case erl_esdb_store:truncate(Store, Stream, Before, (timed(Options))#{no => No}) of
        {ok, Span} -> {ok, result(Stream, Span)};
        {error, Reason} -> {error, Reason}
    end.

-spec result(binary(), span()) -> result().
result(Stream, {Same, Same}) ->
    #{stream_id => Stream, deleted_count => 0, deleted_versions => {0, 0}, archived => false};
result(Stream, {From, Before}) ->
    #{
        stream_id => Stream,
        deleted_count => Before - From,
        deleted_versions => {From, Before - 1},
        archived => false
    }.
