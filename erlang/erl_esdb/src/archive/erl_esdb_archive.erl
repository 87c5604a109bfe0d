-module(erl_esdb_archive).
-moduledoc """
Archives of a store: writing them from a stream, and reading a stream on into them.

```erlang
1> {ok, Files} = erl_esdb_archive_file:init(#{base_dir => "/var/lib/archive"}).
2> Backend = {erl_esdb_archive_file, Files}.
3> erl_esdb_archive:read_through(shop, ~"order-1", 0, 100, forward, Backend).
4> erl_esdb_archive:check(shop, ~"order-1", Backend).
{ok,#{archives => 3,events => 250,gaps => [],damaged => []}}
```

Before events are removed the store notes that they were archived. Where an archive is wanted that
it knows of, and the backend does not have it, the answer is `{archive_not_found, {From, To}}`, with
the versions that are missing, both included. Who removes an archive on purpose says so:

```erlang
1> {ok, Files1} = erl_esdb_archive_file:delete(Files, Key).
2> ok = erl_esdb_archive:forget(shop, ~"order-1", 0, 99).
```

Archives belong to an incarnation of a stream: a stream that is deleted and made again gets
another, so that its archives do not take the place of those before. Its name is a random number,
which the store notes with the number of the stream (`m:erl_esdb_archive_notes`). Who archives a
stream for the first time while another one does may make a second name: then both are its. When a
stream is deleted its names are forgotten; its archives stay, and are read by their keys. Behind a
tombstone a stream goes on without its events from before, also those in archives. A store that was
restored from a backup reads the archives of its model as far as the backup goes, and writes others.

In a store that signs, archived events are verified with those that are kept, as one chain
(`m:erl_esdb_integrity`).

`timeout` in options is the time of each call to the store, of which these functions make several;
that of the backend is its own.
""".

-export([archive/6, read_through/6, read_through/7, check/3, check/4, forget/4, forget/5]).
-export_type([check/0]).

-include("erl_esdb.hrl").

-import(erl_esdb_archive_notes, [joined/1]).

%% Bytes of events that an archive takes at most, so that its events find place in memory.
-define(ARCHIVE_BYTES, 67_108_864).

-type check() :: #{
    archives := non_neg_integer(),
    events := non_neg_integer(),
    gaps := [{From :: non_neg_integer(), To :: non_neg_integer()}],
    damaged := [{erl_esdb_archive_backend:key() | versions(), Reason :: term()}]
}.
-doc "Versions from the first to the second, both included.".
-type versions() :: {From :: non_neg_integer(), To :: non_neg_integer()}.
-type span() :: erl_esdb_archive_notes:span().
-type window() :: {From :: non_neg_integer(), Before :: non_neg_integer() | infinity}.

%% ---- writing

-doc """
Archives the versions of a stream, from the first to before the second, and answers the keys: none
where these events were removed meanwhile.

`No` is the number that the stream had when the versions were chosen; `{stream_replaced, Stream}`
when it has another one in the end.
""".
-spec archive(
    Store :: atom(),
    Stream :: binary(),
    No :: pos_integer(),
    span(),
    erl_esdb_archive_backend:backend(),
    #{archive_events := pos_integer(), verify := boolean(), timeout => timeout(), _ => _}
) -> {ok, [erl_esdb_archive_backend:key()]} | {error, term()}.
archive(Store, Stream, No, {From, Before}, Backend, Options) ->
    Timed = maps:with([timeout], Options),
    maybe
        {ok, Incarnation} ?= erl_esdb_archive_notes:name(Store, Stream, No, Timed),
        Name = {Store, Stream, Incarnation},
        Start = {Backend, [], [], 0, 0},
        Collect = fun(Events, _Next, Acc) -> collect(Events, Name, Options, Acc) end,
        {done, Acc} ?= erl_esdb_pages:stream(Store, Stream, From, Before, Timed, Collect, Start),
        {ok, {_, Keys, [], 0, 0}} ?= flush(Name, Options, Acc),
        ok ?= same(Store, Stream, No, Timed),
        ok ?= note({Store, Stream, No, Timed}, Incarnation, Keys),
        {ok, lists:reverse(Keys)}
    end.

-spec note(erl_esdb_archive_notes:at(), binary(), [binary()]) -> ok | {error, term()}.
note(At, Incarnation, Keys) ->
    Versions = [erl_esdb_archive_backend:split_key(Key) || Key <- Keys],
    Spans = [{From, To + 1} || {ok, #{from_version := From, to_version := To}} <- Versions],
    note_each(At, Incarnation, joined(Spans)).

-spec note_each(erl_esdb_archive_notes:at(), binary(), [span()]) -> ok | {error, term()}.
note_each(At, Incarnation, [Span | Spans]) ->
    case erl_esdb_archive_notes:note(At, Incarnation, Span) of
        ok -> note_each(At, Incarnation, Spans);
        {error, Reason} -> {error, Reason}
    end;
note_each(_At, _Incarnation, []) ->
    ok.

-type collected() :: {
    erl_esdb_archive_backend:backend(),
    Keys :: [binary()],
    Waiting :: [event()],
    Count :: non_neg_integer(),
    Bytes :: non_neg_integer()
}.
-type name() :: {Store :: atom(), Stream :: binary(), Incarnation :: binary()}.

-spec collect([event()], name(), map(), collected()) -> {next, collected()} | {error, term()}.
collect([Event | Events], Name, Options, Acc) ->
    maybe
        {ok, Acc1} ?= flush_at(is_begin(Event, Acc), Name, Options, Acc),
        Acc2 = add(Event, Acc1),
        {ok, Acc3} ?= flush_at(is_full(Acc2, Options), Name, Options, Acc2),
        collect(Events, Name, Options, Acc3)
    end;
collect([], _Name, _Options, Acc) ->
    {next, Acc}.

%% An archive has no gap: what was removed while the others were read is in none.
-spec is_begin(event(), collected()) -> boolean().
is_begin(#event{version = Version}, {_, _, [#event{version = Last} | _], _, _}) ->
    Version =/= Last + 1;
is_begin(_Event, _Acc) ->
    false.

-spec add(event(), collected()) -> collected().
add(Event, {Backend, Keys, Waiting, Count, Bytes}) ->
    Size = erl_esdb_event_segment:size_of(Event),
    {Backend, Keys, [Event | Waiting], Count + 1, Bytes + Size}.

-spec is_full(collected(), map()) -> boolean().
is_full({_, _, _, Count, Bytes}, #{archive_events := MaxCount}) ->
    Count >= MaxCount orelse Bytes >= ?ARCHIVE_BYTES.

-spec flush_at(boolean(), name(), map(), collected()) -> {ok, collected()} | {error, term()}.
flush_at(true, Name, Options, Acc) -> flush(Name, Options, Acc);
flush_at(false, _Name, _Options, Acc) -> {ok, Acc}.

-spec flush(name(), map(), collected()) -> {ok, collected()} | {error, term()}.
flush(_Name, _Options, {_, _, [], _, _} = Acc) ->
    {ok, Acc};
flush({Store, Stream, Incarnation}, Options, {{Module, State}, Keys, Waiting, _, _}) ->
    [#event{version = From} | _] = Events = lists:reverse(Waiting),
    #event{version = To} = hd(Waiting),
    Key = erl_esdb_archive_backend:make_key(Store, Stream, From, To, Incarnation),
    maybe
        {ok, State1} ?= Module:archive(State, Key, Events),
        {ok, State2} ?= verified(Options, Module, State1, Key, Events),
        {ok, {{Module, State2}, [Key | Keys], [], 0, 0}}
    end.

-spec verified(map(), module(), term(), binary(), [event()]) -> {ok, term()} | {error, term()}.
verified(#{verify := false}, _Module, State, _Key, _Events) ->
    {ok, State};
verified(#{verify := true}, Module, State, Key, Events) ->
    case Module:read(State, Key) of
        {ok, Events, State1} -> {ok, State1};
        {ok, _Others, _} -> {error, {archive_differs, Key}};
        {error, Reason} -> {error, Reason}
    end.

%% Who removes what was archived names the number, too.
-spec same(atom(), binary(), pos_integer(), map()) -> ok | {error, term()}.
same(Store, Stream, No, Timed) ->
    case erl_esdb_pages:info(Store, Stream, Timed) of
        {ok, #{no := No}} -> ok;
        {ok, _} -> {error, {stream_replaced, Stream}};
        {error, Reason} -> {error, Reason}
    end.

-doc #{equiv => forget(Store, Stream, From, To, #{})}.
-spec forget(Store :: atom(), Stream :: binary(), From, To) -> ok | {error, term()} when
    From :: non_neg_integer(), To :: non_neg_integer().
forget(Store, Stream, From, To) -> forget(Store, Stream, From, To, #{}).

-doc """
Forgets that the versions `From` to `To` of a stream were archived, when their archives were removed
on purpose: from then on reads leave them out, and `check/4` has them among its gaps alone. Archives
that are there are read as before. Option: `timeout`. Errors: `{stream_not_found, Stream}`, and
`{stream_replaced, Stream}` where it is deleted and made again at the same time.
""".
-spec forget(Store :: atom(), Stream :: binary(), From, To, map()) -> ok | {error, term()} when
    From :: non_neg_integer(), To :: non_neg_integer().
forget(Store, Stream, From, To, Options) when
    is_integer(From), From >= 0, is_integer(To), To >= From, is_map(Options)
->
    Timed = maps:with([timeout], Options),
    case erl_esdb_pages:info(Store, Stream, Timed) of
        {ok, #{no := No}} ->
            erl_esdb_archive_notes:forget({Store, Stream, No, Timed}, {From, To + 1});
        {error, Reason} ->
            {error, Reason}
    end;
forget(_, _, _, _, _) ->
    error(badarg).

%% ---- reading

-doc #{equiv => read_through(Store, Stream, From, Count, Direction, Backend, #{})}.
-spec read_through(
    Store :: atom(),
    Stream :: binary(),
    From :: non_neg_integer() | last,
    erl_esdb_store:count(),
    direction(),
    erl_esdb_archive_backend:backend()
) -> {ok, [event()]} | {error, term()}.
read_through(Store, Stream, From, Count, Direction, Backend) ->
    read_through(Store, Stream, From, Count, Direction, Backend, #{}).

-doc """
Reads a window of versions as `erl_esdb_streams:read/6` does, and those that were removed from the
store from the archives of this incarnation of the stream. Versions that are in neither are left
out. Options as there; what the metadata of the stream hides is always answered, for what was
removed because it was hidden is in the archives.

## Errors

- those of the read
- those of the backend, which name the archive: `{archive_not_found, Key}`,
  `{corrupted_archive, Key}`, `{missing_dictionary, Path}`
- `{archive_not_found, {From, To}}`: these versions were archived, and the backend has no archive of
  them

`badarg` where the backend is none.
""".
-spec read_through(
    Store :: atom(),
    Stream :: binary(),
    From :: non_neg_integer() | last,
    erl_esdb_store:count(),
    direction(),
    erl_esdb_archive_backend:backend(),
    erl_esdb_store:read_options()
) -> {ok, [event()]} | {error, term()}.
read_through(Store, Stream, From, Count, Direction, Backend, Options) when is_map(Options) ->
    erl_esdb_archive_backend:is_backend(Backend) orelse error(badarg),
    Window = {From, Count, Direction},
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        Timeout = erl_esdb_store:timeout(Options, Settings),
        Until = erl_esdb_store:deadline(Options, Settings),
        Look = fun() -> read_both(Store, Settings, Stream, Window, Backend, Options, Until) end,
        Checked = erl_esdb_integrity:confirmed(Store, Stream, Timeout, Look),
        erl_esdb_json:decode_all(Checked, Options)
    end;
read_through(_, _, _, _, _, _, _) ->
    error(badarg).

%% Checked and decoded is what both are together.
-spec read_both(
    atom(),
    erl_esdb_engine:settings(),
    binary(),
    erl_esdb_store:window(),
    erl_esdb_archive_backend:backend(),
    erl_esdb_store:read_options(),
    erl_esdb_store:deadline()
) -> {ok, [event()]} | {error, term()}.
read_both(Store, Settings, Stream, {From, Count, Direction} = Window, Backend, Options, Until) ->
    Plain = maps:without([archives, decode], Options#{hidden => true, verify => skip_all}),
    Timed = maps:with([timeout], Options),
    maybe
        {ok, #{no := No, next := Next}} ?= erl_esdb_pages:info(Store, Stream, Options),
        Begin = begin_at(From, Next, Direction),
        {ok, Kept} ?= erl_esdb_store:read(Store, Stream, Begin, Count, Direction, Plain),
        %% Asked after the read: what was removed before that is archived by now.
        {ok, #{no := No} = Info} ?= erl_esdb_pages:info(Store, Stream, Timed),
        Missing = missing(window(Begin, Count, Direction), Kept, Info),
        {ok, Known, Archived} ?= archived(Store, Settings, Stream, Info, Missing, Backend, Timed),
        All = Archived ++ upwards(Direction, Kept),
        ok ?= erl_esdb_integrity:check_archived(Store, Settings, Known, All, Info, Options),
        {ok, upwards(Direction, All)}
    else
        %% It was deleted and made again in between.
        {ok, _} -> again(Store, Settings, Stream, Window, Backend, Options, Until);
        replaced -> again(Store, Settings, Stream, Window, Backend, Options, Until);
        {error, Reason} -> {error, Reason}
    end.

-spec again(
    atom(),
    erl_esdb_engine:settings(),
    binary(),
    erl_esdb_store:window(),
    erl_esdb_archive_backend:backend(),
    erl_esdb_store:read_options(),
    erl_esdb_store:deadline()
) -> {ok, [event()]} | {error, term()}.
again(Store, Settings, Stream, Window, Backend, Options, Until) ->
    case erl_esdb_store:left(Until) of
        0 -> {error, {timeout, Store}};
        _ -> read_both(Store, Settings, Stream, Window, Backend, Options, Until)
    end.

%% Turns them, and turned ones back.
-spec upwards(direction(), [event()]) -> [event()].
upwards(forward, Events) -> Events;
upwards(backward, Events) -> lists:reverse(Events).

-spec begin_at(non_neg_integer() | last, non_neg_integer(), direction()) ->
    non_neg_integer() | last.
begin_at(last, Next, backward) -> Next - 1;
begin_at(From, _Next, _Direction) -> From.

-spec window(non_neg_integer() | last, erl_esdb_store:count(), direction()) -> window().
window(From, infinity, forward) -> {From, infinity};
window(From, Count, forward) -> {From, From + Count};
window(From, infinity, backward) -> {0, From + 1};
window(From, Count, backward) -> {max(0, From - Count + 1), From + 1}.

%% Versions below the first one that is kept, without those read when it was still another one, and
%% without those from before a tombstone.
-spec missing(window(), [event()], erl_esdb_log:info()) -> span().
missing({From, Before}, Kept, #{first := First, base := Base}) ->
    %% Every atom is greater than every number.
    {max(From, Base), lists:min([Before, First | [Version || #event{version = Version} <- Kept]])}.

%% And before them the one that the first has to name, in a store that signs.
-spec archived(
    atom(),
    erl_esdb_engine:settings(),
    binary(),
    erl_esdb_log:info(),
    span(),
    erl_esdb_archive_backend:backend(),
    map()
) -> {ok, [event()], [event()]} | replaced | {error, term()}.
archived(_Store, _Settings, _Stream, _Info, {From, Before}, _Backend, _) when From >= Before ->
    {ok, [], []};
archived(Store, Settings, Stream, Info, Span, Backend, Timed) ->
    Found =
        case keys(Store, Stream, Info, Backend, Timed) of
            {ok, Keys, Spans, Backend1} -> in_archives(Settings, Keys, Spans, Span, Backend1);
            {error, Reason} -> {error, Reason}
        end,
    case unchanged(Store, Stream, Info, Timed) of
        ok -> Found;
        Other -> Other
    end.

%% Of a stream that was deleted in between the notes are gone, and perhaps the archives. The stream
%% is so before they are.
-spec unchanged(atom(), binary(), erl_esdb_log:info(), map()) -> ok | replaced | {error, term()}.
unchanged(Store, Stream, #{no := No, base := Base}, Timed) ->
    case erl_esdb_pages:info(Store, Stream, Timed) of
        {ok, #{no := No, base := Base}} -> ok;
        {ok, #{}} -> replaced;
        {error, Reason} -> {error, Reason}
    end.

-spec in_archives(
    erl_esdb_engine:settings(), [found()], [span()], span(), erl_esdb_archive_backend:backend()
) -> {ok, [event()], [event()]} | {error, term()}.
in_archives(Settings, Keys, Spans, {From, Before} = Span, Backend) ->
    maybe
        [] ?= lost(Spans, Keys, Span),
        Needed = [Found || {_, End, _} = Found <- Keys, End > From],
        Low = with_known(Settings, Needed, From),
        {ok, Events} ?= read_keys(Needed, {Low, Before}, Backend, []),
        {Known, Wanted} = lists:splitwith(fun(#event{version = V}) -> V < From end, Events),
        {ok, known(Settings, Keys, Known, From, Backend), Wanted}
    else
        [Versions | _] -> {error, {archive_not_found, Versions}};
        {error, Reason} -> {error, Reason}
    end.

%% What was archived, is wanted, and is in no archive.
-spec lost([span()], [found()], span()) -> [versions()].
lost(Spans, Keys, {Low, Before}) ->
    There = joined(spans_of(Keys)),
    lists:append([gaps(There, max(Low, From), min(Before, To)) || {From, To} <- Spans]).

%% Where the archive of the first event has the one before it, too, it is read once for both.
-spec with_known(erl_esdb_engine:settings(), [found()], non_neg_integer()) -> non_neg_integer().
with_known(#{integrity := Signs}, [{Low, _, _} | _], From) when Signs =/= disabled, Low < From ->
    From - 1;
with_known(_Settings, _Needed, From) ->
    From.

%% What cannot be read is not known: it was not asked for.
-spec known(
    erl_esdb_engine:settings(),
    [found()],
    Read :: [event()],
    non_neg_integer(),
    erl_esdb_archive_backend:backend()
) -> [event()].
known(#{integrity := Signs}, Keys, [], From, Backend) when Signs =/= disabled, From > 0 ->
    case read_keys(Keys, {From - 1, From}, Backend, []) of
        {ok, Events} -> Events;
        {error, _} -> []
    end;
known(_Settings, _Keys, Read, _From, _Backend) ->
    Read.

%% The versions of an archive that belong to the stream, and its key.
-type found() :: {From :: non_neg_integer(), Before :: non_neg_integer(), binary()}.

%% Of this incarnation and behind its last tombstone, by the version that they begin with; and what
%% was noted. That is asked first: what is noted by then is in the backend.
-spec keys(atom(), binary(), erl_esdb_log:info(), erl_esdb_archive_backend:backend(), map()) ->
    {ok, [found()], [span()], erl_esdb_archive_backend:backend()} | {error, term()}.
keys(Store, Stream, #{no := No, base := Base}, {Module, State}, Timed) ->
    maybe
        {ok, #{parts := Parts} = Notes} ?= erl_esdb_archive_notes:all(Store, Stream, No, Timed),
        {ok, Keys, State1} ?= list(Notes, Module, State, Store, Stream),
        Noted = [{From, Before} || _ := Of <- Parts, {noted, From, Before} <- Of],
        {ok, belonging(Keys, Notes, Base), joined(Noted), {Module, State1}}
    end.

-spec list(erl_esdb_archive_notes:notes(), module(), State, atom(), binary()) ->
    {ok, [binary()], State} | {error, term()}.
list(#{own := [], parts := Parts}, _Module, State, _Store, _Stream) when map_size(Parts) =:= 0 ->
    {ok, [], State};
list(#{}, Module, State, Store, Stream) ->
    Module:list(State, Store, Stream).

-spec belonging([binary()], erl_esdb_archive_notes:notes(), non_neg_integer()) -> [found()].
belonging(Keys, Notes, Base) ->
    lists:sort([
        %% Every atom is greater than every number.
        {max(From, Low), min(To + 1, Before), Key}
     || Key <- Keys,
        {ok, #{incarnation := Name, from_version := From, to_version := To}} <-
            [erl_esdb_archive_backend:split_key(Key)],
        From >= Base,
        {Low, Before} <- spans_under(Name, Notes),
        Low =< To,
        From < Before
    ]).

%% Which versions of the archives under a name belong to the stream.
-spec spans_under(binary(), erl_esdb_archive_notes:notes()) -> [window()].
spans_under(Name, #{own := Own, parts := Parts}) ->
    case lists:member(Name, Own) of
        true -> [{0, infinity}];
        false -> [{From, Before} || {_, From, Before} <- maps:get(Name, Parts, [])]
    end.

-spec spans_of([found()]) -> [span()].
spans_of(Found) -> [{From, Before} || {From, Before, _} <- Found].

%% An archive that was written before a removal that then failed may lie within a later one: each
%% version is taken once.
-spec read_keys([found()], span(), erl_esdb_archive_backend:backend(), [[event()]]) ->
    {ok, [event()]} | {error, term()}.
read_keys([{From, End, Key} | Keys], {Low, Before}, {Module, State}, Read) when
    End > Low, From < Before, Low < Before
->
    case Module:read(State, Key) of
        {ok, Events, State1} ->
            Wanted = within(Events, {max(Low, From), min(Before, End)}),
            read_keys(Keys, {End, Before}, {Module, State1}, [Wanted | Read]);
        {error, Reason} ->
            {error, Reason}
    end;
read_keys([_ | Keys], Span, Backend, Read) ->
    read_keys(Keys, Span, Backend, Read);
read_keys([], _Span, _Backend, Read) ->
    {ok, lists:append(lists:reverse(Read))}.

-spec within([event()], span()) -> [event()].
within(Events, {Low, Before}) ->
    [Event || #event{version = Version} = Event <- Events, Version >= Low, Version < Before].

-doc #{equiv => check(Store, Stream, Backend, #{})}.
-spec check(Store :: atom(), Stream :: binary(), erl_esdb_archive_backend:backend()) ->
    {ok, check()} | {error, term()}.
check(Store, Stream, Backend) -> check(Store, Stream, Backend, #{}).

-doc """
Reads all archives of a stream, and tells which versions below the first one that is kept are in
none (`gaps`, each from a version to a version, both included), and which archives cannot be read,
hold other versions than their key says (`wrong_versions`), or, in a store that signs, events that
are not as they were written (`damaged`). Versions that were archived and are in no archive are
there, too, as `{{From, To}, {archive_not_found, {From, To}}}`. Options: `timeout`, `verify`.
`badarg` where the backend is none.
""".
-spec check(Store :: atom(), Stream :: binary(), erl_esdb_archive_backend:backend(), map()) ->
    {ok, check()} | {error, term()}.
check(Store, Stream, Backend, Options) when is_map(Options) ->
    erl_esdb_archive_backend:is_backend(Backend) orelse error(badarg),
    Timed = maps:with([timeout], Options),
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        {ok, #{first := First, base := Base} = Info} ?= erl_esdb_pages:info(Store, Stream, Timed),
        {ok, Keys, Spans, Backend1} ?= keys(Store, Stream, Info, Backend, Timed),
        {ok, Kept} ?= first_kept(Store, Stream, First, Timed),
        Verify = fun(Known, Events) ->
            erl_esdb_integrity:check_archived(Store, Settings, Known, Events, Info, Options)
        end,
        {Read, Damaged} = check_each(Keys, Backend1, {Verify, Kept}, {[], [], []}),
        ok ?= unchanged(Store, Stream, Info, Timed),
        Good = joined(Read),
        {ok, #{
            archives => length(lists:usort([Key || {_, _, Key} <- Keys])),
            events => lists:sum([Before - From || {From, Before} <- Good]),
            gaps => gaps(Good, Base, First),
            damaged => Damaged ++ lost_each(lost(Spans, Keys, {Base, First}))
        }}
    else
        replaced -> check(Store, Stream, Backend, Options);
        {error, Reason} -> {error, Reason}
    end;
check(_, _, _, _) ->
    error(badarg).

-spec lost_each([versions()]) -> [{versions(), {archive_not_found, versions()}}].
lost_each(Lost) -> [{Versions, {archive_not_found, Versions}} || Versions <- Lost].

-spec first_kept(atom(), binary(), non_neg_integer(), map()) -> {ok, [event()]} | {error, term()}.
first_kept(Store, Stream, First, Timed) ->
    Options = Timed#{hidden => true, verify => skip_all},
    erl_esdb_store:read(Store, Stream, First, 1, forward, Options).

%% Each is checked with the last event of the one before; the last one with the first that is kept.
-spec check_each(
    [found()],
    erl_esdb_archive_backend:backend(),
    {Verify :: fun(([event()], [event()]) -> ok | {error, term()}), Kept :: [event()]},
    {Last :: [event()], [span()], [{binary(), term()}]}
) ->
    {[span()], [{binary(), term()}]}.
check_each([{From, Before, Key} | Keys], {Module, State}, With, {Last, Good, Damaged}) ->
    {Verify, Kept} = With,
    maybe
        {ok, Events, State1} ?= Module:read(State, Key),
        true ?= has_versions(Events, Key),
        Mine = within(Events, {From, Before}),
        ok ?= Verify(Last, Mine ++ [E || #event{version = V} = E <- Kept, V =:= Before]),
        Sum = {[lists:last(Mine)], [{From, Before} | Good], Damaged},
        check_each(Keys, {Module, State1}, With, Sum)
    else
        false ->
            check_rest(Keys, {Module, State}, With, {Good, [{Key, wrong_versions} | Damaged]});
        {error, Reason} ->
            check_rest(Keys, {Module, State}, With, {Good, [{Key, Reason} | Damaged]})
    end;
check_each([], _Backend, _With, {_Last, Good, Damaged}) ->
    {Good, lists:reverse(Damaged)}.

%% All that its key says, also where only a part belongs to the stream.
-spec has_versions([event()], binary()) -> boolean().
has_versions(Events, Key) ->
    {ok, #{from_version := From, to_version := To}} = erl_esdb_archive_backend:split_key(Key),
    [Version || #event{version = Version} <- Events] =:= lists:seq(From, To).

%% Of the one before nothing is known.
-spec check_rest(
    [found()],
    erl_esdb_archive_backend:backend(),
    {Verify :: fun(([event()], [event()]) -> ok | {error, term()}), Kept :: [event()]},
    {[span()], [{binary(), term()}]}
) ->
    {[span()], [{binary(), term()}]}.
check_rest(Keys, Backend, With, {Good, Damaged}) ->
    check_each(Keys, Backend, With, {[], Good, Damaged}).

-spec gaps([span()], non_neg_integer(), non_neg_integer()) -> [versions()].
gaps(_Spans, Next, First) when Next >= First -> [];
gaps([{From, Before} | Spans], Next, First) when From =< Next ->
    gaps(Spans, max(Next, Before), First);
gaps([{From, Before} | Spans], Next, First) ->
    [{Next, min(From, First) - 1} | gaps(Spans, Before, First)];
gaps([], Next, First) ->
    [{Next, First - 1}].
