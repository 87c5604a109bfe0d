-module(erl_esdb_pages).
-moduledoc """
Many events, a page at a time: a page has few events where events are large, so that a walk through
a store takes bounded memory.

```erlang
1> Count = fun(Events, _Next, N) -> {next, N + length(Events)} end.
2> erl_esdb_pages:log(shop, 0, 1000, #{}, Count, 0).
{done,1000}
```
""".

-export([log/6, log/7, stream/7, info/2, info/3, first_size/0, next_size/2]).
-export_type([step/1]).

-include("erl_esdb.hrl").

%% Events of the first page, of the largest, and the bytes that a page is meant to have.
-define(FIRST, 64).
-define(LARGEST, 2_000).
-define(BYTES, 8_388_608).

-type step(Acc) :: fun(
    ([event(), ...], Next :: non_neg_integer(), Acc) ->
        {next, Acc} | {stop, Acc} | {error, term()}
).
-type source() :: {
    Read :: fun((non_neg_integer(), pos_integer()) -> {ok, [event()]} | {error, term()}),
    Place :: fun((event()) -> non_neg_integer())
}.

-doc """
Folds over the events of a store from a position to before another.

The fun gets a page and the position to go on from. The answer is `{done, Acc}`, or `{stopped, Acc}`
where the fun said `stop`. Options as `erl_esdb_streams:read_log/5`.
""".
-spec log(
    Store :: atom(),
    From :: non_neg_integer(),
    Until :: non_neg_integer(),
    erl_esdb_store:read_options(),
    step(Acc),
    Acc
) -> {done | stopped, Acc} | {error, term()}.
log(Store, From, Until, Options, Fun, Acc) ->
    log(Store, From, Until, ?FIRST, Options, Fun, Acc).

-doc """
The same with the size of the first page. A fold that goes on where another one was stopped, with
the size that the next page would have had (`first_size/0`, then `next_size/2`), has its pages.
""".
-spec log(
    Store :: atom(),
    From :: non_neg_integer(),
    Until :: non_neg_integer(),
    Size :: pos_integer(),
    erl_esdb_store:read_options(),
    step(Acc),
    Acc
) -> {done | stopped, Acc} | {error, term()}.
log(Store, From, Until, Size, Options, Fun, Acc) ->
    Read = fun(Begin, Count) ->
        erl_esdb_store:read_log(Store, Begin, Count, forward, Options)
    end,
    Place = fun(#event{position = Position}) when is_integer(Position) -> Position end,
    fold({Read, Place}, From, Until, Size, Fun, Acc).

-doc "The same over the versions of a stream, all that are kept.".
-spec stream(
    Store :: atom(),
    Stream :: binary(),
    From :: non_neg_integer(),
    Until :: non_neg_integer(),
    erl_esdb_store:read_options(),
    step(Acc),
    Acc
) -> {done | stopped, Acc} | {error, term()}.
stream(Store, Stream, From, Until, Options, Fun, Acc) ->
    Read = fun(Begin, Count) ->
        erl_esdb_store:read(Store, Stream, Begin, Count, forward, Options#{hidden => true})
    end,
    fold({Read, fun(#event{version = Version}) -> Version end}, From, Until, ?FIRST, Fun, Acc).

-doc "The same as `info/3` without options.".
-spec info(Store :: atom(), Stream :: binary()) -> {ok, erl_esdb_log:info()} | {error, term()}.
info(Store, Stream) -> info(Store, Stream, #{}).

-doc """
What is known of a stream: `first` is the first version that is kept, hidden or not. Option:
`timeout`.
""".
-spec info(Store :: atom(), Stream :: binary(), erl_esdb_store:read_options()) ->
    {ok, erl_esdb_log:info()} | {error, term()}.
info(Store, Stream, Options) -> erl_esdb_store:info(Store, Stream, Options#{hidden => true}).

-spec fold(source(), non_neg_integer(), non_neg_integer(), pos_integer(), step(Acc), Acc) ->
    {done | stopped, Acc} | {error, term()}.
fold(_Source, From, Until, _Size, _Fun, Acc) when From >= Until ->
    {done, Acc};
fold({Read, Place} = Source, From, Until, Size, Fun, Acc) ->
    case Read(From, min(Size, Until - From)) of
        {ok, []} ->
            {done, Acc};
        {ok, Events} ->
            Next = Place(lists:last(Events)) + 1,
            Wanted = lists:takewhile(fun(Event) -> Place(Event) < Until end, Events),
            Go = fun(Acc1) -> fold(Source, Next, Until, next_size(Size, Events), Fun, Acc1) end,
            step(Wanted, min(Next, Until), Fun, Acc, Go);
        {error, Reason} ->
            {error, Reason}
    end.

-spec step([event()], non_neg_integer(), step(Acc), Acc, fun((Acc) -> Result)) ->
    Result | {done | stopped, Acc} | {error, term()}.
step([], _Next, _Fun, Acc, _Go) ->
    {done, Acc};
step(Events, Next, Fun, Acc, Go) ->
    case Fun(Events, Next, Acc) of
        {next, Acc1} -> Go(Acc1);
        {stop, Acc1} -> {stopped, Acc1};
        {error, Reason} -> {error, Reason}
    end.

-doc "How many events to read first.".
-spec first_size() -> pos_integer().
first_size() -> ?FIRST.

-doc "How many events to read next, when so many were asked for and these were there.".
-spec next_size(pos_integer(), [event(), ...]) -> pos_integer().
next_size(Size, Events) when is_integer(Size) ->
    Bytes = lists:sum([erl_esdb_event_segment:size_of(Event) || Event <- Events]),
    Fitting = ?BYTES * length(Events) div max(1, Bytes),
    max(1, min(Fitting, min(2 * Size, ?LARGEST))).
