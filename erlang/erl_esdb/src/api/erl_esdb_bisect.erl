-module(erl_esdb_bisect).
-moduledoc """
Which versions of a stream lie in a span of time: a binary search, since the times of a stream never
run backwards.

It asks the engine for windows of one event and looks at where that event stands, not into it:
O(log n) of them, however long the stream is.

```erlang
1> erl_esdb_bisect:window(shop, ~"order-1", beginning, 1_700_000_000_000_000, #{}).
{ok,{0,42}}
```
""".

-export([window/5, from_position/4, later/4]).
-export_type([probe/0]).

-include("../log/erl_esdb_log.hrl").

-doc """
Looks at the append that holds a version: the first of its versions, the first after it, and its
time; or why there is none. In place of a time any other number that never falls.
""".
-type probe() :: fun((non_neg_integer()) -> {ok, append()} | removed | {error, term()}).
-type append() :: {
    First :: non_neg_integer(), After :: non_neg_integer(), EpochUs :: integer()
}.

-doc """
The versions of the events from a time to another, both included: from the first to before the
second; none where the first is not smaller. `beginning` is before every time. Options: `timeout`,
of all looks together, `consistency`, and `hidden` for what the metadata of the stream hides.
""".
-spec window(
    Store :: atom(),
    Stream :: binary(),
    From :: integer() | beginning,
    To :: integer(),
    erl_esdb_store:read_options()
) ->
    {ok, {Low :: non_neg_integer(), Before :: non_neg_integer()}} | {error, term()}.
window(Store, Stream, From, To, Options) ->
    searched(Store, Stream, Options, fun append_at/2, fun(Info, Probe) ->
        maybe
            {ok, Low} ?= low(From, Info, Probe),
            {ok, Before} ?= within(To, Info, Probe),
            {ok, {Low, Before}}
        end
    end).

-doc """
The version of the first event that stands at a position or behind it, in the order of all events;
the next version where none does. Options as `window/5`.
""".
-spec from_position(
    Store :: atom(), Stream :: binary(), non_neg_integer(), erl_esdb_store:read_options()
) -> {ok, Version :: non_neg_integer()} | {error, term()}.
from_position(Store, Stream, Position, Options) ->
    searched(Store, Stream, Options, fun event_at/2, fun(#{first := Low, next := High}, Probe) ->
        later(Position - 1, Low, High, Probe)
    end).

%% What there is to see of the append, or event, that holds a version.
-type seen() :: fun((#row{}, non_neg_integer()) -> append()).

-spec append_at(#row{}, non_neg_integer()) -> append().
append_at(#row{version = First, count = Count, epoch_us = EpochUs}, _Version) ->
    {First, First + Count, EpochUs}.

-spec event_at(#row{}, non_neg_integer()) -> append().
event_at(#row{version = First, position = Position}, Version) ->
    {Version, Version + 1, Position + Version - First}.

-spec searched(atom(), binary(), erl_esdb_store:read_options(), seen(), Search) ->
    {ok, Found} | {error, term()}
when
    Search :: fun((erl_esdb_log:info(), probe()) -> {ok, Found} | removed | {error, term()}).
searched(Store, Stream, Options, Seen, Search) ->
    maybe
        {ok, Engine, Handle, Settings} ?= erl_esdb_store:engine(Store),
        Until = erl_esdb_store:deadline(Options, Settings),
        Read = fun(Version, Timed) -> Engine:read(Handle, Stream, Version, 1, forward, Timed) end,
        Probe = fun(Version) -> look(Store, Version, Read, Seen, Options, Until) end,
        Info = fun() ->
            erl_esdb_store:info(Store, Stream, Options#{timeout => erl_esdb_store:left(Until)})
        end,
        search(Info, Probe, Search)
    end.

-spec search(fun(() -> {ok, erl_esdb_log:info()} | {error, term()}), probe(), Search) ->
    {ok, Found} | {error, term()}
when
    Search :: fun((erl_esdb_log:info(), probe()) -> {ok, Found} | removed | {error, term()}).
search(Info, Probe, Search) ->
    maybe
        {ok, Known} ?= Info(),
        %% The stream was cut or deleted since we asked: what there is now decides.
        removed ?= Search(Known, Probe),
        search(Info, Probe, Search)
    end.

-spec look(atom(), non_neg_integer(), Read, seen(), map(), erl_esdb_store:deadline()) ->
    {ok, append()} | removed | {error, term()}
when
    Read :: fun((non_neg_integer(), map()) -> {ok, [erl_esdb_engine:piece()]} | {error, term()}).
look(Store, Version, Read, Seen, Options, Until) ->
    case erl_esdb_store:left(Until) of
        0 -> {error, {timeout, Store}};
        Left -> probe(Store, Seen, Read(Version, Options#{timeout => Left}))
    end.

-spec low(integer() | beginning, erl_esdb_log:info(), probe()) ->
    {ok, non_neg_integer()} | removed | {error, term()}.
low(beginning, #{first := First}, _Probe) -> {ok, First};
low(From, Info, Probe) -> within(From - 1, Info, Probe).

-spec within(integer(), erl_esdb_log:info(), probe()) ->
    {ok, non_neg_integer()} | removed | {error, term()}.
within(Time, #{next := Next, epoch_us := Last}, _Probe) when Last =< Time -> {ok, Next};
within(Time, #{first := First, next := Next}, Probe) -> later(Time, First, Next, Probe).

-doc """
The first version from `Low` to before `High` that is later than a time; `High` where none is.
""".
-spec later(Time :: integer(), Low, High, probe()) -> {ok, Version} | removed | {error, term()} when
    Low :: non_neg_integer(), High :: non_neg_integer(), Version :: non_neg_integer().
later(Time, Low, High, Probe) when Low < High ->
    case Probe((Low + High) div 2) of
        {ok, {_First, After, EpochUs}} when EpochUs =< Time ->
            later(Time, min(After, High), High, Probe);
        {ok, {First, _After, _EpochUs}} ->
            later(Time, Low, max(First, Low), Probe);
        Other ->
            Other
    end;
later(_Time, Low, _High, _Probe) ->
    {ok, Low}.

-spec probe(atom(), seen(), {ok, [erl_esdb_engine:piece()]} | {error, term()}) ->
    {ok, append()} | removed | {error, term()}.
probe(_Store, Seen, {ok, [{_Stream, {Row, Version, _}, _Packed}]}) ->
    {ok, Seen(Row, Version)};
probe(_Store, _Seen, {ok, []}) ->
    removed;
probe(_Store, _Seen, {error, stream_not_found}) ->
    removed;
probe(Store, _Seen, Failure) ->
    erl_esdb_store:named(Store, Failure).
