-module(erl_esdb_restore).
-moduledoc """
Writing recorded events again: with their ids and times, and, into an empty store, at the same
versions and positions.

Versions and positions that no event has any more (it was removed, or its stream was deleted) are
filled with events that are removed in the end, so that numbering is as it was. Which stream fills
which free position is open, but each must have its removed versions before its first event that is
kept; so free positions go to the stream whose first event comes first (earliest deadline first:
if there is a way, this is one).

```erlang
1> Plan0 = erl_esdb_restore:plan([{~"order-1", 2, 7, 900}], ~"$restore-1").
2> {[{~"order-1", 0, 2, 900}], Plan} = erl_esdb_restore:fill(2, Plan0).
```
""".

-export([append/5, append/6, replay/7, truncate/4, runs/2]).
-export([plan/2, fill/2, filler/1]).
-export_type([plan/0]).

-include("erl_esdb.hrl").

%% Events of an append.
-define(RUN, 1000).

%% An append goes to the store that it was begun with, also in parts.
-record(call, {
    store :: atom(),
    engine :: module(),
    handle :: erl_esdb_engine:handle(),
    until :: erl_esdb_store:deadline()
}).

%% ---- appending

-doc "The same as `append/6` without options.".
-spec append(
    Store :: atom(), Stream :: binary(), Expected :: integer(), [map()], EpochUs :: integer()
) -> {ok, Version :: integer()} | {error, term()}.
append(Store, Stream, Expected, Events, EpochUs) ->
    append(Store, Stream, Expected, Events, EpochUs, #{}).

-doc """
Appends events that have a time: that of the append, unless an event of the stream is later.
`Expected` as the command has it: a version, -1 or -2. A store that signs signs them.

An append that is larger than those of this store may be is done in parts. Options: `timeout`, of
each part; `handle`, as `erl_esdb_store:put_document/4`.

## Errors

- those of `erl_esdb_streams:append/5`
""".
-spec append(
    Store :: atom(),
    Stream :: binary(),
    Expected :: integer(),
    [map()],
    EpochUs :: integer(),
    #{timeout => timeout(), handle => erl_esdb_engine:handle(), _ => _}
) -> {ok, Version :: integer()} | {error, term()}.
append(Store, Stream, Expected, Events, EpochUs, Options) ->
    maybe
        {ok, Engine, Handle, Settings} ?= erl_esdb_store:engine(Store, Options),
        ok ?= erl_esdb_args:stream_id(Stream),
        {ok, Bodies} ?= erl_esdb_event:bodies(Events),
        Send = fun(Expect, Part) ->
            Call = #call{
                store = Store,
                engine = Engine,
                handle = Handle,
                until = erl_esdb_store:deadline(Options, Settings)
            },
            seal(Settings, Call, Stream, Expect, Part, EpochUs)
        end,
        append_parts(parts(Bodies, Settings), Expected, Send)
    end.

-spec seal(erl_esdb_engine:settings(), #call{}, binary(), integer(), Bodies, integer()) ->
    {ok, integer()} | {error, term()}
when
    Bodies :: [erl_esdb_event:body()].
seal(#{integrity := Keys}, Call, Stream, Expected, Bodies, EpochUs) when Keys =/= disabled ->
    #call{store = Store, until = Until} = Call,
    Try = fun(_) -> try_sealed(Keys, Call, Stream, Expected, Bodies, EpochUs) end,
    case erl_esdb_turns:run([{Store, Stream}], Until, Try, first) of
        {ok, Answer} -> Answer;
        {error, timeout} -> {error, {timeout, Store}}
    end;
seal(_Settings, Call, Stream, Expected, Bodies, EpochUs) ->
    send(Call, Stream, Expected, Bodies, #{epoch_us => EpochUs}).

%% Where somebody was faster they are signed again, behind what is there then.
-spec try_sealed(erl_esdb_chain:keys(), #call{}, binary(), integer(), Bodies, integer()) ->
    {done, {ok, integer()} | {error, term()}} | {again, refused}
when
    Bodies :: [erl_esdb_event:body()].
try_sealed(Keys, #call{store = Store, until = Until} = Call, Stream, Expected, Bodies, EpochUs) ->
    Timed = #{timeout => erl_esdb_store:left(Until)},
    maybe
        {ok, #{epoch_us := Last, tip := Tip} = Place} ?= erl_esdb_store:tip(Store, Stream, Timed),
        Time = max(EpochUs, Last),
        {Signed, New} = erl_esdb_integrity:seal(Keys, Stream, Place#{epoch_us := Time}, Bodies),
        Summary = #{epoch_us => Time, tip => {Tip, New}},
        {error, tip_moved} ?= send(Call, Stream, Expected, Signed, Summary),
        {again, refused}
    else
        Answer -> {done, Answer}
    end.

-doc """
Appends events of a run as they were recorded, with what they were signed with. `New` is the tip
that the stream has then; `none` where it has none.
""".
-spec replay(
    Store :: atom(),
    Stream :: binary(),
    Expected :: integer(),
    [map()],
    EpochUs,
    New,
    #{timeout => timeout(), _ => _}
) -> {ok, Version :: integer()} | {error, term()} when
    EpochUs :: integer(), New :: erl_esdb_log:tip().
replay(Store, Stream, Expected, Events, EpochUs, New, Options) ->
    maybe
        {ok, Engine, Handle, Settings} ?= erl_esdb_store:engine(Store),
        Until = erl_esdb_store:deadline(Options, Settings),
        Call = #call{store = Store, engine = Engine, handle = Handle, until = Until},
        {ok, Bodies} ?= erl_esdb_event:bodies(Events),
        Timed = #{timeout => erl_esdb_store:left(Until)},
        {ok, #{tip := Tip}} ?= erl_esdb_store:tip(Store, Stream, Timed),
        Signed = lists:zipwith(fun signed/2, Bodies, Events),
        Summary = (tips(Tip, New))#{epoch_us => EpochUs},
        send(Call, Stream, Expected, Signed, Summary)
    end.

-spec tips(erl_esdb_log:tip(), erl_esdb_log:tip()) -> map().
tips(_Known, none) -> #{};
tips(Known, New) -> #{tip => {Known, New}}.

-spec signed(erl_esdb_event:body(), map()) -> erl_esdb_event:body().
signed(Body, #{prev_event_hash := _, mac := _} = Map) ->
    {ok, Event} = erl_esdb_event_segment:from_map(Map, existing),
    erl_esdb_event:signed(Body, Event);
signed(Body, #{}) ->
    Body.

-spec send(#call{}, binary(), integer(), [erl_esdb_event:body()], map()) ->
    {ok, integer()} | {error, term()}.
send(Call, Stream, Expected, Bodies, Summary) ->
    #call{store = Store, engine = Engine, handle = Handle, until = Until} = Call,
    Summary1 = Summary#{count => length(Bodies), facts => erl_esdb_event:facts(Bodies)},
    Command = {append, Stream, Expected, erl_esdb_batch:pack(Bodies), Summary1},
    Left = erl_esdb_store:left(Until),
    case erl_esdb_store:command(Store, Engine, Handle, Command, Left) of
        {ok, {Version, _Position, _Count}} -> {ok, Version};
        {error, Reason} -> {error, Reason}
    end.

-spec append_parts([[erl_esdb_event:body()]] | {error, term()}, integer(), fun()) ->
    {ok, integer()} | {error, term()}.
append_parts({error, Reason}, _Expected, _Send) ->
    {error, Reason};
append_parts([Part], Expected, Send) ->
    Send(Expected, Part);
append_parts([Part | Parts], Expected, Send) ->
    case Send(Expected, Part) of
        {ok, _} when Expected < ?NO_STREAM -> append_parts(Parts, Expected, Send);
        {ok, Version} -> append_parts(Parts, Version, Send);
        {error, Reason} -> {error, Reason}
    end.

-doc """
Removes what filled a place. Where a store signs, what it keeps of removed events is in the
documents of the backup.
""".
-spec truncate(
    Store :: atom(), Stream :: binary(), Before :: pos_integer(), #{timeout => timeout(), _ => _}
) -> {ok, term()} | {error, term()}.
truncate(Store, Stream, Before, Options) ->
    maybe
        {ok, Engine, Handle, Settings} ?= erl_esdb_store:engine(Store),
        Timeout = erl_esdb_store:timeout(Options, Settings),
        Command = {truncate, Stream, Before},
        {ok, _} ?= erl_esdb_store:command(Store, Engine, Handle, Command, Timeout)
    end.

%% Parts that the limits of the store allow; an event alone that they do not is the error.
-spec parts([erl_esdb_event:body()], erl_esdb_engine:settings()) ->
    [[erl_esdb_event:body()], ...] | {error, term()}.
parts(Bodies, Settings) ->
    #{max_event_size := MaxEvent, max_batch_size := MaxBatch, max_batch_events := MaxCount} =
        Settings,
    Sized = [{erl_esdb_batch:term_size(Body), Body} || Body <- Bodies],
    case lists:max([0 | [Size || {Size, _} <- Sized]]) of
        Size when Size > MaxEvent -> {error, {event_too_large, Size, MaxEvent}};
        _ -> parts(Sized, min(MaxCount, ?RUN), MaxBatch, 0, 0, [])
    end.

-spec parts(
    [{pos_integer(), erl_esdb_event:body()}],
    pos_integer(),
    pos_integer(),
    non_neg_integer(),
    non_neg_integer(),
    [erl_esdb_event:body()]
) -> [[erl_esdb_event:body()], ...].
parts([{Size, Body} | Sized], MaxCount, MaxBytes, Count, Bytes, Part) when
    Part =:= []; Count < MaxCount, Bytes + Size =< MaxBytes
->
    parts(Sized, MaxCount, MaxBytes, Count + 1, Bytes + Size, [Body | Part]);
parts([], _MaxCount, _MaxBytes, _Count, _Bytes, Part) ->
    [lists:reverse(Part)];
parts(Sized, MaxCount, MaxBytes, _Count, _Bytes, Part) ->
    [lists:reverse(Part) | parts(Sized, MaxCount, MaxBytes, 0, 0, [])].

-doc """
Events in their order, as runs that can be an append each: of one stream and one time, and no id
twice. Neighbours stay together where the fun says so.
""".
-spec runs([map()], Together :: fun((Before :: map(), Next :: map()) -> boolean())) ->
    [[map(), ...]].
runs(Events, Together) -> runs(Events, Together, [], #{}).

-spec runs([map()], fun((map(), map()) -> boolean()), [map()], #{binary() => true}) ->
    [[map(), ...]].
runs([Event | Events], Together, [], _Ids) ->
    runs(Events, Together, [Event], ids(Event));
runs([Event | Events], Together, [Last | _] = Run, Ids) ->
    case follows(Last, Event) andalso not is_known(Event, Ids) andalso Together(Last, Event) of
        true -> runs(Events, Together, [Event | Run], maps:merge(Ids, ids(Event)));
        false -> [lists:reverse(Run) | runs(Events, Together, [Event], ids(Event))]
    end;
runs([], _Together, [], _Ids) ->
    [];
runs([], _Together, Run, _Ids) ->
    [lists:reverse(Run)].

-spec follows(map(), map()) -> boolean().
follows(#{stream_id := Stream} = Last, #{stream_id := Stream} = Event) ->
    maps:get(epoch_us, Event, none) =:= maps:get(epoch_us, Last, none);
follows(_, _) ->
    false.

-spec ids(map()) -> #{binary() => true}.
ids(#{event_id := Id}) -> #{Id => true};
ids(#{}) -> #{}.

-spec is_known(map(), #{binary() => true}) -> boolean().
is_known(#{event_id := Id}, Ids) -> is_map_key(Id, Ids);
is_known(#{}, _Ids) -> false.

%% ---- filling

%% Of a position; none is after all of them, as every atom is greater than every number.
-type deadline() :: non_neg_integer() | none.

-record(plan, {
    %% by the position of their first event that is kept
    streams :: [{deadline(), binary(), Left :: pos_integer(), integer()}],
    %% versions that a stream has of its removed ones
    filled = #{} :: #{binary() => non_neg_integer()},
    %% takes what belonged to streams that are not there any more
    other :: binary()
}).
-opaque plan() :: #plan{}.

-doc """
What is to be filled: for each stream how many versions were removed, the position of its first
event that is kept (any number above all where there is none), and a time; and the name of a stream
for the rest.
""".
-spec plan(
    [{binary(), Removed :: non_neg_integer(), First :: deadline(), EpochUs :: integer()}],
    Other :: binary()
) -> plan().
plan(Streams, Other) ->
    Sorted = lists:sort([
        {Deadline, Stream, Removed, EpochUs}
     || {Stream, Removed, Deadline, EpochUs} <- Streams, Removed > 0
    ]),
    #plan{streams = Sorted, other = Other}.

-doc """
Who fills so many positions: streams, the version they have reached, how many events, and a time.
""".
-spec fill(Count :: non_neg_integer(), plan()) ->
    {[{binary(), From :: non_neg_integer(), pos_integer(), integer()}], plan()}.
fill(0, Plan) ->
    {[], Plan};
fill(Count, #plan{streams = [{Deadline, Stream, Left, EpochUs} | Streams]} = Plan) ->
    Taken = lists:min([Count, Left, ?RUN]),
    Streams1 = [{Deadline, Stream, Left - Taken, EpochUs} || Left > Taken] ++ Streams,
    filled(Stream, Taken, EpochUs, Count, Plan#plan{streams = Streams1});
fill(Count, #plan{streams = [], other = Other} = Plan) ->
    filled(Other, min(Count, ?RUN), 0, Count, Plan).

-spec filled(binary(), pos_integer(), integer(), pos_integer(), plan()) ->
    {[{binary(), non_neg_integer(), pos_integer(), integer()}], plan()}.
filled(Stream, Taken, EpochUs, Count, #plan{filled = Filled} = Plan) ->
    From = maps:get(Stream, Filled, 0),
    {More, Plan1} = fill(Count - Taken, Plan#plan{filled = Filled#{Stream => From + Taken}}),
    {[{Stream, From, Taken, EpochUs} | More], Plan1}.

-doc "So many events that fill a place.".
-spec filler(pos_integer()) -> [map()].
filler(Count) ->
    [
        #{event_id => integer_to_binary(N), event_type => ~"$removed", data => #{}}
     || N <- lists:seq(1, Count)
    ].
