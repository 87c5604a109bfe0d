-module(erl_esdb_outbox).
-moduledoc """
What a subscription has read and not handed over yet, and what it has handed over and is not known
to be handled. Pure.

```erlang
1> Box0 = erl_esdb_outbox:new(0, #{ack => manual, window => 2}).
2> {ok, Box1} = erl_esdb_outbox:add([E0, E1, E2], 3, Box0).
3> {[E0, E1], Box2} = erl_esdb_outbox:take(10, Box1).
4> 0 = erl_esdb_outbox:floor(Box2).
5> 1 = erl_esdb_outbox:floor(erl_esdb_outbox:acknowledged(0, Box2)).
```

The *floor* is the position to go on from when everything here is lost: of the first event that is
not handled, or where reading has come to when there is none. What counts as handled:

- with `ack => manual`, what was acknowledged, and all before it;
- with `ack => auto`, what the subscriber has taken out of its mailbox, but the last, which it may
  be at work on; where its mailbox cannot be seen, all but the newest `window`. And once something
  was acknowledged, nothing beyond that is handled before it is acknowledged, too.
""".

-compile({no_auto_import, [floor/1]}).

-export([new/2, add/3, room/1, limit/1, take/2, settle/2, acknowledged/2]).
-export([floor/1, rewind/1, demand/2, is_unsettled/1, info/1]).
-export_type([outbox/0, options/0]).

-include("erl_esdb.hrl").

%% Events that are read at a time.
-define(PAGE, 100).
-define(WINDOW, 1000).

-type options() :: #{
    max_queue => pos_integer(),
    strategy => erl_esdb_backpressure:strategy(),
    mode => erl_esdb_backpressure:mode(),
    ack => auto | manual,
    window => pos_integer(),
    store_id => atom(),
    subscription_key => binary(),
    _ => _
}.

-record(outbox, {
    queue :: erl_esdb_backpressure:queue(event()),
    strategy :: erl_esdb_backpressure:strategy(),
    ack :: auto | manual,
    window :: pos_integer(),
    %% events of a message, at most
    batch :: pos_integer(),
    %% positions that were handed over and are not known to be handled, and how many
    sent = queue:new() :: queue:queue(non_neg_integer()),
    count = 0 :: non_neg_integer(),
    %% positions: the last handed over, the one acknowledged, and where reading has come to
    last :: integer(),
    acknowledged :: non_neg_integer() | undefined,
    next :: non_neg_integer()
}).

-opaque outbox() :: #outbox{}.

-doc """
An empty one, of a reader at a position.

Of the options those of `m:erl_esdb_backpressure` (but `strategy` is `block` by default: the log
keeps what waits), `ack` (`auto`), `window` (1000) and `batch` (1).
""".
-spec new(Next :: non_neg_integer(), options()) -> outbox().
new(Next, Options) ->
    Strategy = maps:get(strategy, Options, block),
    {ok, Queue} = erl_esdb_backpressure:new(Options#{strategy => Strategy}),
    #outbox{
        queue = Queue,
        strategy = Strategy,
        ack = maps:get(ack, Options, auto),
        window = maps:get(window, Options, ?WINDOW),
        batch = maps:get(batch, Options, 1),
        last = Next - 1,
        next = Next
    }.

-doc "Takes in what was read before a position. Fails only with the strategy `error`.".
-spec add([event()], Next :: non_neg_integer(), outbox()) -> {ok, outbox()} | {error, queue_full}.
add(Events, Next, #outbox{queue = Queue} = Box) ->
    case erl_esdb_backpressure:enqueue_many(Queue, Events) of
        {ok, Queue1} -> {ok, Box#outbox{queue = Queue1, next = Next}};
        {error, queue_full} -> {error, queue_full}
    end.

-doc "How many events may be read: 0 where those that wait have to go first.".
-spec room(outbox()) -> non_neg_integer().
room(#outbox{strategy = block, queue = Queue}) ->
    #{size := Size, max_size := Max} = erl_esdb_backpressure:info(Queue),
    min(?PAGE, Max - Size);
room(#outbox{}) ->
    ?PAGE.

-doc "How many events may be handed over, besides what the mailbox of the subscriber says.".
-spec limit(outbox()) -> non_neg_integer() | infinity.
limit(#outbox{ack = manual, window = Window, count = Count, queue = Queue}) ->
    min(erl_esdb_backpressure:get_demand(Queue), max(0, Window - Count));
limit(#outbox{queue = Queue}) ->
    erl_esdb_backpressure:get_demand(Queue).

-doc "The next events to hand over, at most so many, and no more than `limit/1` allows.".
-spec take(non_neg_integer() | infinity, outbox()) -> {[event()], outbox()}.
take(Room, #outbox{queue = Queue, sent = Sent, count = Count, last = Last} = Box) ->
    Size = erl_esdb_backpressure:size(Queue),
    {ok, Events, Queue1} = erl_esdb_backpressure:dequeue(Queue, at_most(Room, limit(Box), Size)),
    Positions = [Event#event.position || Event <- Events],
    {Events, Box#outbox{
        queue = Queue1,
        sent = queue:join(Sent, queue:from_list(Positions)),
        count = Count + length(Positions),
        last = lists:last([Last | Positions])
    }}.

%% An atom is greater than any number.
-spec at_most(Limit, Limit, non_neg_integer()) -> non_neg_integer() when
    Limit :: non_neg_integer() | infinity.
at_most(Room, Limit, Size) ->
    case min(Room, Limit) of
        infinity -> Size;
        Most -> min(Most, Size)
    end.

-doc """
Takes note of how many messages the subscriber has before it, that this is `unknown`, or that all
that was sent counts as handled. Without effect with `ack => manual`.
""".
-spec settle(non_neg_integer() | unknown | all, outbox()) -> outbox().
settle(_, #outbox{ack = manual} = Box) -> Box;
settle(all, Box) -> keep(0, Box);
settle(unknown, #outbox{window = Window} = Box) -> keep(Window, Box);
%% The one before those that wait may be in its hands.
settle(Backlog, Box) -> keep(Backlog + 1, Box).

%% The events of the newest so many messages are not handled yet; a message may have had fewer.
-spec keep(non_neg_integer(), outbox()) -> outbox().
keep(Messages, #outbox{batch = Batch, count = Have} = Box) when Have =< Messages * Batch -> Box;
keep(Messages, #outbox{sent = Sent, batch = Batch, count = Have} = Box) ->
    Count = Messages * Batch,
    {_, Kept} = queue:split(Have - Count, Sent),
    Box#outbox{sent = Kept, count = Count}.

-doc "Takes note that the event at this position was acknowledged.".
-spec acknowledged(Position :: non_neg_integer(), outbox()) -> outbox().
acknowledged(Position, #outbox{ack = manual, sent = Sent} = Box) ->
    Left = queue:filter(fun(At) -> At > Position end, Sent),
    Box#outbox{acknowledged = Position, sent = Left, count = queue:len(Left)};
acknowledged(Position, Box) ->
    Box#outbox{acknowledged = Position}.

-doc "The position to go on from when all this is lost.".
-spec floor(outbox()) -> non_neg_integer().
floor(#outbox{acknowledged = Position, last = Last} = Box) when
    is_integer(Position), Position < Last
->
    min(Position + 1, unhandled(Box));
floor(Box) ->
    unhandled(Box).

-spec unhandled(outbox()) -> non_neg_integer().
unhandled(#outbox{sent = Sent, queue = Queue, next = Next}) ->
    case {queue:peek(Sent), erl_esdb_backpressure:peek(Queue)} of
        {{value, Position}, _} -> Position;
        {empty, {ok, #event{position = Position}}} when is_integer(Position) -> Position;
        {empty, empty} -> Next
    end.

-doc "Forgets all, for another subscriber, who goes on from the floor. A demand begins at 0 again.".
-spec rewind(outbox()) -> outbox().
rewind(#outbox{queue = Queue} = Box) ->
    Floor = floor(Box),
    {ok, _, Empty} = erl_esdb_backpressure:dequeue_all(Queue),
    Box#outbox{queue = Empty, sent = queue:new(), count = 0, last = Floor - 1, next = Floor}.

-doc "The subscriber of a queue in mode `pull` wants so many more.".
-spec demand(non_neg_integer(), outbox()) -> outbox().
demand(More, #outbox{queue = Queue} = Box) ->
    Box#outbox{queue = erl_esdb_backpressure:add_demand(Queue, More)}.

-doc "Whether another look at the mailbox of the subscriber could tell more.".
-spec is_unsettled(outbox()) -> boolean().
is_unsettled(#outbox{ack = Ack, count = Count}) -> Ack =:= auto andalso Count > 1.

-doc "What `erl_esdb_subscriptions:info/2` tells of it.".
-spec info(outbox()) -> map().
info(#outbox{queue = Queue, count = Count, next = Next} = Box) ->
    #{
        queue => erl_esdb_backpressure:info(Queue),
        unhandled => Count,
        position => Next,
        floor => floor(Box)
    }.
