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
kept in the store in the key of the document `{archive, Stream, No, Name}` with the number of the
stream; the document is the list of the versions that were archived, and has none of those that an
earlier release archived, which kept the name there, too. Who
archives a stream for the first time while another one does may make a second name: then both are
its. When a stream is deleted its names are forgotten; its archives stay, and are read by their
keys. Behind a tombstone a stream goes on without its events from before, also those in archives.

In a store that signs, archived events are verified with those that are kept, as one chain
(`m:erl_esdb_integrity`).

`timeout` in options is the time of each call to the store, of which these functions make several;
that of the backend is its own.
""".

-export([archive/6, read_through/6, read_through/7, check/3, check/4, forget/4, forget/5]).
-export([incarnation/3, incarnations/4, spans/4]).
-export_type([check/0, span/0]).

-include("erl_esdb.hrl").

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
-doc "Versions from the first to before the second.".
-type span() :: {non_neg_integer(), non_neg_integer()}.
-type window() :: {From :: non_neg_integer(), Before :: non_neg_integer() | infinity}.

%% ---- writing

-doc """
Archives the versions of a stream, from the first to before the second, and answers the keys.

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
) -> {ok, [erl_esdb_archive_backend:key(), ...]} | {error, term()}.
archive(Store, Stream, No, {From, Before}, Backend, Options) ->
    Timed = maps:with([timeout], Options),
    maybe
        {ok, Incarnation} ?= incarnation(Store, Stream, No, Timed),
        Name = {Store, Stream, Incarnation},
        Start = {Backend, [], [], 0, 0},
        Collect = fun(Events, _Next, Acc) -> collect(Events, Name, Options, Acc) end,
        {done, Acc} ?= erl_esdb_pages:stream(Store, Stream, From, Before, Timed, Collect, Start),
        {ok, {_, Keys, [], 0, 0}} ?= flush(Name, Options, Acc),
        ok ?= same(Store, Stream, No, Timed),
        Spans = spans_of(of_incarnation([Incarnation], Keys)),
        Note = fun(Noted) -> joined(Spans ++ Noted) end,
        ok ?= noted(Store, Stream, No, Incarnation, Note, Timed),
        {ok, lists:reverse(Keys)}
    end.

-type collected() :: {
    erl_esdb_archive_backend:backend(),
    Keys :: [binary()],
    Waiting :: [event()],
    Count :: non_neg_integer(),
    Bytes :: non_neg_integer()
}.
-type name() :: {Store :: atom(), Stream :: binary(), Incarnation :: binary()}.

-spec collect([event()], name(), map(), collected()) -> {next, collected()} | {error, term()}.
collect([Event | Events], Name, Options, {Backend, Keys, Waiting, Count, Bytes}) ->
    #{archive_events := MaxCount} = Options,
    Size = erl_esdb_event_segment:size_of(Event),
    Acc = {Backend, Keys, [Event | Waiting], Count + 1, Bytes + Size},
    case Count + 1 >= MaxCount orelse Bytes + Size >= ?ARCHIVE_BYTES of
        true ->
            case flush(Name, Options, Acc) of
                {ok, Acc1} -> collect(Events, Name, Options, Acc1);
                {error, Reason} -> {error, Reason}
            end;
        false ->
            collect(Events, Name, Options, Acc)
    end;
collect([], _Name, _Options, Acc) ->
    {next, Acc}.

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

-doc "The name of the incarnation of a stream; the first time one is made for it.".
-spec incarnation(Store :: atom(), Stream :: binary(), No :: pos_integer()) ->
    {ok, binary()} | {error, term()}.
incarnation(Store, Stream, No) -> incarnation(Store, Stream, No, #{}).

-spec incarnation(atom(), binary(), pos_integer(), map()) -> {ok, binary()} | {error, term()}.
incarnation(Store, Stream, No, Timed) ->
    case incarnations(Store, Stream, No, Timed) of
        {ok, [Name | _]} -> {ok, Name};
        {ok, []} -> make(Store, Stream, No, Timed);
        {error, Reason} -> {error, Reason}
    end.

-spec make(atom(), binary(), pos_integer(), map()) -> {ok, binary()} | {error, term()}.
make(Store, Stream, No, Timed) ->
    Name = binary:encode_hex(crypto:strong_rand_bytes(8), lowercase),
    case erl_esdb_store:put_document(Store, {archive, Stream, No, Name}, [], Timed) of
        {ok, _} -> {ok, Name};
        {error, Reason} -> {error, Reason}
    end.

-doc "All names of an incarnation, sorted. Option: `timeout`.".
-spec incarnations(Store :: atom(), Stream :: binary(), No :: pos_integer(), map()) ->
    {ok, [binary()]} | {error, term()}.
incarnations(Store, Stream, No, Timed) ->
    %% Every binary is greater than every number.
    {First, Last} = {{archive, Stream, No, 0}, {archive, Stream, No + 1, -1}},
    case erl_esdb_store:list_documents(Store, First, Last, Timed) of
        {ok, Found} -> {ok, [Name || {{archive, _, _, Name}, _} <- Found]};
        {error, Reason} -> {error, Reason}
    end.

-doc "What was archived under each name of an incarnation, where it was noted. Option: `timeout`.".
-spec spans(Store :: atom(), Stream :: binary(), No :: pos_integer(), map()) ->
    {ok, #{binary() => [span()]}} | {error, term()}.
spans(Store, Stream, No, Timed) ->
    case incarnations(Store, Stream, No, Timed) of
        {ok, Names} -> spans_each(Store, Stream, No, Names, Timed, #{});
        {error, Reason} -> {error, Reason}
    end.

-spec spans_each(atom(), binary(), pos_integer(), [binary()], map(), #{binary() => [span()]}) ->
    {ok, #{binary() => [span()]}} | {error, term()}.
spans_each(Store, Stream, No, [Name | Names], Timed, Spans) ->
    case erl_esdb_store:get_document(Store, {archive, Stream, No, Name}, Timed) of
        {ok, Term} -> spans_each(Store, Stream, No, Names, Timed, Spans#{Name => noted(Term)});
        %% The stream was deleted since.
        {error, not_found} -> spans_each(Store, Stream, No, Names, Timed, Spans);
        {error, Reason} -> {error, Reason}
    end;
spans_each(_Store, _Stream, _No, [], _Timed, Spans) ->
    {ok, Spans}.

%% Earlier releases kept the name.
-spec noted([span()] | binary()) -> [span()].
noted(Spans) when is_list(Spans) -> Spans;
noted(Name) when is_binary(Name) -> [].

%% One after the other: what somebody else notes at the same time is not lost.
-spec noted(atom(), binary(), pos_integer(), binary(), fun(([span()]) -> [span()]), map()) ->
    ok | {error, term()}.
noted(Store, Stream, No, Name, Change, Timed) ->
    Key = {archive, Stream, No, Name},
    Put = fun() ->
        maybe
            {ok, Term} ?= erl_esdb_store:get_document(Store, Key, Timed),
            {ok, _} ?= erl_esdb_store:put_document(Store, Key, Change(noted(Term)), Timed),
            ok
        else
            %% The stream was deleted.
            {error, not_found} -> {error, {stream_replaced, Stream}};
            {error, Reason} -> {error, Reason}
        end
    end,
    global:trans({{?MODULE, Store, Key}, self()}, Put, [node()]).

-spec spans_of([found()]) -> [span()].
spans_of(Found) -> [{From, To + 1} || {From, To, _} <- Found].

%% Those that touch are one, so that a stream that is archived again and again has a short list.
-spec joined([span()]) -> [span()].
joined(Spans) -> join(lists:sort(Spans)).

-spec join([span()]) -> [span()].
join([{A, B}, {C, D} | Spans]) when C =< B -> join([{A, max(B, D)} | Spans]);
join([Span | Spans]) -> [Span | join(Spans)];
join([]) -> [].

-doc #{equiv => forget(Store, Stream, From, To, #{})}.
-spec forget(Store :: atom(), Stream :: binary(), From, To) -> ok | {error, term()} when
    From :: non_neg_integer(), To :: non_neg_integer().
forget(Store, Stream, From, To) -> forget(Store, Stream, From, To, #{}).

-doc """
Forgets that the versions `From` to `To` of a stream were archived, when their archives were removed
on purpose: from then on reads leave them out, and `check/4` has them among its gaps alone. Archives
that are there are read as before. Option: `timeout`. Error: `{stream_not_found, Stream}`.
""".
-spec forget(Store :: atom(), Stream :: binary(), From, To, map()) -> ok | {error, term()} when
    From :: non_neg_integer(), To :: non_neg_integer().
forget(Store, Stream, From, To, Options) when
    is_integer(From), From >= 0, is_integer(To), To >= From, is_map(Options)
->
    Timed = maps:with([timeout], Options),
    Change = fun(Spans) -> without(Spans, {From, To + 1}) end,
    maybe
        {ok, #{no := No}} ?= erl_esdb_pages:info(Store, Stream, Timed),
        {ok, Names} ?= incarnations(Store, Stream, No, Timed),
        forget_each(Names, fun(Name) -> noted(Store, Stream, No, Name, Change, Timed) end)
    end;
forget(_, _, _, _, _) ->
    error(badarg).

-spec forget_each([binary()], fun((binary()) -> ok | {error, term()})) -> ok | {error, term()}.
forget_each([Name | Names], Forget) ->
    maybe
        ok ?= Forget(Name),
        forget_each(Names, Forget)
    end;
forget_each([], _Forget) ->
    ok.

-spec without([span()], span()) -> [span()].
without(Spans, {From, Before}) ->
    [
        {A, B}
     || {Low, High} <- Spans,
        {A, B} <- [{Low, min(High, From)}, {max(Low, Before), High}],
        A < B
    ].

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
) -> {ok, [event()], [event()]} | {error, term()}.
archived(_Store, _Settings, _Stream, _Info, {From, Before}, _Backend, _) when From >= Before ->
    {ok, [], []};
archived(Store, Settings, Stream, Info, {From, _} = Span, Backend, Timed) ->
    maybe
        {ok, Keys, Spans, Backend1} ?= keys(Store, Stream, Info, Backend, Timed),
        [] ?= lost(Spans, Keys, Span),
        {ok, Events} ?= read_keys(Keys, Span, Backend1, []),
        {ok, known(Settings, Keys, From, Backend1), Events}
    else
        [Versions | _] -> {error, {archive_not_found, Versions}};
        {error, Reason} -> {error, Reason}
    end.

%% What was archived, is wanted, and is in no archive.
-spec lost([span()], [found()], span()) -> [versions()].
lost(Spans, Keys, {Low, Before}) ->
    There = spans_of(Keys),
    lists:append([gaps(There, max(Low, From), min(Before, To)) || {From, To} <- Spans]).

%% What cannot be read is not known: it was not asked for.
-spec known(
    erl_esdb_engine:settings(), [found()], non_neg_integer(), erl_esdb_archive_backend:backend()
) -> [event()].
known(#{integrity := Signs}, Keys, From, Backend) when Signs =/= disabled, From > 0 ->
    case read_keys(Keys, {From - 1, From}, Backend, []) of
        {ok, Events} -> Events;
        {error, _} -> []
    end;
known(_Settings, _Keys, _From, _Backend) ->
    [].

-type found() :: {From :: non_neg_integer(), To :: non_neg_integer(), binary()}.

%% Of this incarnation and behind its last tombstone, by the version that they begin with; and what
%% was noted. That is asked first: what is noted by then is in the backend.
-spec keys(atom(), binary(), erl_esdb_log:info(), erl_esdb_archive_backend:backend(), map()) ->
    {ok, [found()], [span()], erl_esdb_archive_backend:backend()} | {error, term()}.
keys(Store, Stream, #{no := No, base := Base}, {Module, State} = Backend, Timed) ->
    maybe
        {ok, #{} = Noted} ?= spans(Store, Stream, No, Timed),
        [_ | _] = Names ?= maps:keys(Noted),
        {ok, Keys, State1} ?= Module:list(State, Store, Stream),
        Found = [One || {From, _, _} = One <- of_incarnation(Names, Keys), From >= Base],
        {ok, Found, joined(lists:append(maps:values(Noted))), {Module, State1}}
    else
        [] -> {ok, [], [], Backend};
        {error, Reason} -> {error, Reason}
    end.

-spec of_incarnation([binary()], [binary()]) -> [found()].
of_incarnation(Names, Keys) ->
    lists:sort([
        {From, To, Key}
     || Key <- Keys,
        {ok, #{incarnation := Name, from_version := From, to_version := To}} <-
            [erl_esdb_archive_backend:split_key(Key)],
        lists:member(Name, Names)
    ]).

%% An archive that was written before a removal that then failed may lie within a later one: each
%% version is taken once.
-spec read_keys([found()], span(), erl_esdb_archive_backend:backend(), [[event()]]) ->
    {ok, [event()]} | {error, term()}.
read_keys([{From, To, Key} | Keys], {Low, Before}, {Module, State}, Read) when
    To >= Low, From < Before
->
    case Module:read(State, Key) of
        {ok, Events, State1} ->
            Wanted = [E || #event{version = V} = E <- Events, V >= Low, V < Before],
            read_keys(Keys, {To + 1, Before}, {Module, State1}, [Wanted | Read]);
        {error, Reason} ->
            {error, Reason}
    end;
read_keys([_ | Keys], Span, Backend, Read) ->
    read_keys(Keys, Span, Backend, Read);
read_keys([], _Span, _Backend, Read) ->
    {ok, lists:append(lists:reverse(Read))}.

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
        {Good, Damaged} = check_each(Keys, Backend1, {Verify, Kept}, {[], [], []}),
        {ok, #{
            archives => length(Keys),
            events => lists:sum([Before - From || {From, Before} <- Good]),
            gaps => gaps(Good, Base, First),
            damaged => Damaged ++ lost_each(lost(Spans, Keys, {Base, First}))
        }}
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
check_each([{From, To, Key} | Keys], {Module, State}, With, {Last, Good, Damaged}) ->
    {Verify, Kept} = With,
    maybe
        {ok, Events, State1} ?= Module:read(State, Key),
        true ?= [Version || #event{version = Version} <- Events] =:= lists:seq(From, To),
        ok ?= Verify(Last, Events ++ [E || #event{version = V} = E <- Kept, V =:= To + 1]),
        Sum = {[lists:last(Events)], [{From, To + 1} | Good], Damaged},
        check_each(Keys, {Module, State1}, With, Sum)
    else
        false ->
            check_rest(Keys, {Module, State}, With, {Good, [{Key, wrong_versions} | Damaged]});
        {error, Reason} ->
            check_rest(Keys, {Module, State}, With, {Good, [{Key, Reason} | Damaged]})
    end;
check_each([], _Backend, _With, {_Last, Good, Damaged}) ->
    {lists:reverse(Good), lists:reverse(Damaged)}.

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
