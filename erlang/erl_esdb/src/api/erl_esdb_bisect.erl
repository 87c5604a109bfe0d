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

-export([window/5, later/4]).
-export_type([probe/0]).

-include("../log/erl_esdb_log.hrl").

-doc """
Looks at the append that holds a version: the first of its versions, the first after it, and its
time; or why there is none.
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
    maybe
        {ok, Engine, Handle, Settings} ?= erl_esdb_store:engine(Store),
        Until = erl_esdb_store:deadline(Options, Settings),
        Probe = fun(Version) -> look(Store, {Engine, Handle}, Stream, Version, Options, Until) end,
        search(Store, Stream, {From, To}, Options, Until, Probe)
    end.

-spec look(atom(), {module(), term()}, binary(), non_neg_integer(), map(), Until) ->
    {ok, append()} | removed | {error, term()}
when
    Until :: erl_esdb_store:deadline().
look(Store, {Engine, Handle}, Stream, Version, Options, Until) ->
    case erl_esdb_store:left(Until) of
        0 ->
            {error, {timeout, Store}};
        Left ->
            Timed = Options#{timeout => Left},
            probe(Store, Engine:read(Handle, Stream, Version, 1, forward, Timed))
    end.

-spec search(atom(), binary(), {integer() | beginning, integer()}, map(), Until, probe()) ->
    {ok, {non_neg_integer(), non_neg_integer()}} | {error, term()}
when
    Until :: erl_esdb_store:deadline().
search(Store, Stream, {From, To} = Times, Options, Until, Probe) ->
    Timed = Options#{timeout => erl_esdb_store:left(Until)},
    maybe
        {ok, Info} ?= erl_esdb_store:info(Store, Stream, Timed),
        {ok, Low} ?= low(From, Info, Probe),
        {ok, Before} ?= within(To, Info, Probe),
        {ok, {Low, Before}}
    else
        %% The stream was cut or deleted since we asked: what there is now decides.
        removed -> search(Store, Stream, Times, Options, Until, Probe);
        {error, Reason} -> {error, Reason}
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

-spec probe(atom(), {ok, [erl_esdb_engine:piece()]} | {error, term()}) ->
    {ok, append()} | removed | {error, term()}.
probe(_Store, {ok, [{_Stream, {Row, _From, _To}, _Packed}]}) ->
    #row{version = Version, count = Count, epoch_us = EpochUs} = Row,
    {ok, {Version, Version + Count, EpochUs}};
probe(_Store, {ok, []}) ->
    removed;
probe(_Store, {error, stream_not_found}) ->
    removed;
probe(Store, Failure) ->
    named(Store, Failure).

%% The same names as erl_esdb_store gives.
-spec named(atom(), Answer) -> Answer | {error, erl_esdb_store:failure()}.
named(Store, {error, not_started}) -> {error, {store_not_started, Store}};
named(Store, {error, Failure}) -> {error, {Failure, Store}};
named(_Store, Answer) -> Answer.
