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

Archives belong to an incarnation of a stream: a stream that is deleted and made again gets
another, so that its archives do not take the place of those before. Its name is a random number,
kept in the store as the document `{archive, Stream}` together with the number of the stream. The
archives of earlier incarnations stay, and are read by their keys.
""".

-export([archive/6, read_through/6, read_through/7, check/3, incarnation/3]).
-export_type([check/0]).

-include("erl_esdb.hrl").

%% Bytes of events that an archive takes at most, so that its events find place in memory.
-define(ARCHIVE_BYTES, 67_108_864).

-type check() :: #{
    archives := non_neg_integer(),
    events := non_neg_integer(),
    gaps := [{From :: non_neg_integer(), To :: non_neg_integer()}],
    damaged := [{erl_esdb_archive_backend:key(), Reason :: term()}]
}.
%% Versions from the first to before the second.
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
    #{archive_events := pos_integer(), verify := boolean(), _ => _}
) -> {ok, [erl_esdb_archive_backend:key(), ...]} | {error, term()}.
archive(Store, Stream, No, {From, Before}, Backend, Options) ->
    maybe
        {ok, Incarnation} ?= incarnation(Store, Stream, No),
        Name = {Store, Stream, Incarnation},
        Start = {Backend, [], [], 0, 0},
        Collect = fun(Events, _Next, Acc) -> collect(Events, Name, Options, Acc) end,
        {done, Acc} ?= erl_esdb_pages:stream(Store, Stream, From, Before, Collect, Start),
        {ok, {_, Keys, [], 0, 0}} ?= flush(Name, Options, Acc),
        ok ?= same(Store, Stream, No),
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

%% What is left of a race: the stream may be replaced between this and the truncation.
-spec same(atom(), binary(), pos_integer()) -> ok | {error, term()}.
same(Store, Stream, No) ->
    case erl_esdb_pages:info(Store, Stream) of
        {ok, #{no := No}} -> ok;
        {ok, _} -> {error, {stream_replaced, Stream}};
        {error, Reason} -> {error, Reason}
    end.

-doc "The name of the incarnation of a stream; the first time one is made for it.".
-spec incarnation(Store :: atom(), Stream :: binary(), No :: pos_integer()) ->
    {ok, binary()} | {error, term()}.
incarnation(Store, Stream, No) ->
    case known(Store, Stream, No) of
        {error, not_found} ->
            %% Of two who archive at once the second one takes the name that the first one made.
            Make = fun() -> make(Store, Stream, No) end,
            global:trans({{?MODULE, Store, Stream}, self()}, Make);
        Known ->
            Known
    end.

-spec make(atom(), binary(), pos_integer()) -> {ok, binary()} | {error, term()}.
make(Store, Stream, No) ->
    maybe
        {error, not_found} ?= known(Store, Stream, No),
        Name = binary:encode_hex(crypto:strong_rand_bytes(8), lowercase),
        {ok, _} ?= erl_esdb_store:put_document(Store, {archive, Stream}, {No, Name}),
        {ok, Name}
    end.

-spec known(atom(), binary(), pos_integer()) -> {ok, binary()} | {error, not_found | term()}.
known(Store, Stream, No) ->
    case erl_esdb_store:get_document(Store, {archive, Stream}) of
        {ok, {No, Name}} -> {ok, Name};
        {ok, {_Earlier, _Name}} -> {error, not_found};
        {error, Reason} -> {error, Reason}
    end.

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
out.

## Errors

- those of the read
- those of the backend, which name the archive: `{archive_not_found, Key}`,
  `{corrupted_archive, Key}`, `{missing_dictionary, Path}`
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
read_through(Store, Stream, From, Count, Direction, Backend, Options) ->
    Plain = maps:remove(archives, Options),
    maybe
        {ok, #{no := No, next := Next}} ?= erl_esdb_pages:info(Store, Stream),
        Begin = begin_at(From, Next, Direction),
        {ok, Kept} ?= erl_esdb_store:read(Store, Stream, Begin, Count, Direction, Plain),
        %% Asked after the read: what was removed before that is archived by now.
        {ok, #{no := No, first := First}} ?= erl_esdb_pages:info(Store, Stream),
        Window = missing(window(Begin, Count, Direction), Kept, First),
        {ok, Archived} ?= archived(Store, Stream, No, Window, Backend),
        {ok, joined(Direction, Archived, Kept)}
    else
        %% It was deleted and made again in between.
        {ok, _} -> read_through(Store, Stream, From, Count, Direction, Backend, Options);
        {error, Reason} -> {error, Reason}
    end.

-spec begin_at(non_neg_integer() | last, non_neg_integer(), direction()) ->
    non_neg_integer() | last.
begin_at(last, Next, backward) -> Next - 1;
begin_at(From, _Next, _Direction) -> From.

-spec window(non_neg_integer() | last, erl_esdb_store:count(), direction()) -> window().
window(From, infinity, forward) -> {From, infinity};
window(From, Count, forward) -> {From, From + Count};
window(From, infinity, backward) -> {0, From + 1};
window(From, Count, backward) -> {max(0, From - Count + 1), From + 1}.

%% Versions below the first one that is kept, without those read when it was still another one.
-spec missing(window(), [event()], non_neg_integer()) -> span().
missing({From, Before}, Kept, First) ->
    %% Every atom is greater than every number.
    {From, lists:min([Before, First | [Version || #event{version = Version} <- Kept]])}.

-spec joined(direction(), [event()], [event()]) -> [event()].
joined(forward, Archived, Kept) -> Archived ++ Kept;
joined(backward, Archived, Kept) -> Kept ++ lists:reverse(Archived).

-spec archived(atom(), binary(), pos_integer(), span(), erl_esdb_archive_backend:backend()) ->
    {ok, [event()]} | {error, term()}.
archived(_Store, _Stream, _No, {From, Before}, _Backend) when From >= Before ->
    {ok, []};
archived(Store, Stream, No, Span, Backend) ->
    case keys(Store, Stream, No, Backend) of
        {ok, Keys, Backend1} -> read_keys(Keys, Span, Backend1, []);
        {error, Reason} -> {error, Reason}
    end.

-type found() :: {From :: non_neg_integer(), To :: non_neg_integer(), binary()}.

%% Of this incarnation, by the version that they begin with.
-spec keys(atom(), binary(), pos_integer(), erl_esdb_archive_backend:backend()) ->
    {ok, [found()], erl_esdb_archive_backend:backend()} | {error, term()}.
keys(Store, Stream, No, {Module, State} = Backend) ->
    maybe
        {ok, Incarnation} ?= known(Store, Stream, No),
        {ok, Keys, State1} ?= Module:list(State, Store, Stream),
        {ok, of_incarnation(Incarnation, Keys), {Module, State1}}
    else
        {error, not_found} -> {ok, [], Backend};
        {error, Reason} -> {error, Reason}
    end.

-spec of_incarnation(binary(), [binary()]) -> [found()].
of_incarnation(Incarnation, Keys) ->
    lists:sort([
        {From, To, Key}
     || Key <- Keys,
        {ok, #{incarnation := Name, from_version := From, to_version := To}} <-
            [erl_esdb_archive_backend:split_key(Key)],
        Name =:= Incarnation
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

-doc """
Reads all archives of a stream, and tells which versions below the first one that is kept are in
none (`gaps`, each from a version to a version, both included), and which archives cannot be read or
hold other versions than their key says (`damaged`).
""".
-spec check(Store :: atom(), Stream :: binary(), erl_esdb_archive_backend:backend()) ->
    {ok, check()} | {error, term()}.
check(Store, Stream, Backend) ->
    maybe
        {ok, #{no := No, first := First}} ?= erl_esdb_pages:info(Store, Stream),
        {ok, Keys, Backend1} ?= keys(Store, Stream, No, Backend),
        {Good, Damaged} = check_each(Keys, Backend1, [], []),
        {ok, #{
            archives => length(Keys),
            events => lists:sum([Before - From || {From, Before} <- Good]),
            gaps => gaps(Good, 0, First),
            damaged => Damaged
        }}
    end.

-spec check_each([found()], erl_esdb_archive_backend:backend(), [span()], [{binary(), term()}]) ->
    {[span()], [{binary(), term()}]}.
check_each([{From, To, Key} | Keys], {Module, State}, Good, Damaged) ->
    case Module:read(State, Key) of
        {ok, Events, State1} ->
            case [Version || #event{version = Version} <- Events] =:= lists:seq(From, To) of
                true ->
                    check_each(Keys, {Module, State1}, [{From, To + 1} | Good], Damaged);
                false ->
                    check_each(Keys, {Module, State1}, Good, [{Key, wrong_versions} | Damaged])
            end;
        {error, Reason} ->
            check_each(Keys, {Module, State}, Good, [{Key, Reason} | Damaged])
    end;
check_each([], _Backend, Good, Damaged) ->
    {lists:reverse(Good), lists:reverse(Damaged)}.

-spec gaps([span()], non_neg_integer(), non_neg_integer()) ->
    [{non_neg_integer(), non_neg_integer()}].
gaps(_Spans, Next, First) when Next >= First -> [];
gaps([{From, Before} | Spans], Next, First) when From =< Next ->
    gaps(Spans, max(Next, Before), First);
gaps([{From, Before} | Spans], Next, First) ->
    [{Next, min(From, First) - 1} | gaps(Spans, Before, First)];
gaps([], Next, First) ->
    [{Next, First - 1}].
