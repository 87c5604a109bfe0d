-module(erl_esdb_outbox).
-moduledoc """
What a subscription has read and not handed over yet, and what it has handed over, to whom, and is
not known to be handled. Pure.

```erlang
1> Box0 = erl_esdb_outbox:new(0, #{ack => manual, window => 2}).
2> {ok, Box1} = erl_esdb_outbox:add([E0, E1, E2], 3, Box0).
3> {[E0, E1], Box2} = erl_esdb_outbox:take(10, Box1).
4> Box3 = erl_esdb_outbox:sent(Subscriber, [E0, E1], Box2).
5> 0 = erl_esdb_outbox:floor(Box3).
6> 1 = erl_esdb_outbox:floor(erl_esdb_outbox:acknowledged(0, Box3)).
```

The *floor* is the position of the first event that is not handled, or where reading has come to
when there is none. What counts as handled:

- with `ack => manual`, what was acknowledged, and all before it; where one of several receivers
  acknowledges, what this one was sent before it;
- with `ack => auto`, what a process has taken out of its mailbox, but the last message, which it
  may be at work on; where its mailbox cannot be seen, all but the newest `window` messages. And
  once something was acknowledged, nothing beyond that is handled before it is acknowledged, too.

The *place* is what is saved, to go on from when all here is lost: the floor; or, where several
processes share the events and one is behind the others, the position up to which all was handed
over, and the positions before it that are not handled.
""".

-compile({no_auto_import, [floor/1]}).

-export([new/2, add/3, next/1, room/1, limit/1, take/2, sent/3]).
-export([settle/3, waiting/3, receivers/1, left_for/2]).
-export([acknowledged/2, acknowledged/3, is_sent/3, done/2, position/2, is_bounded/2, silent/2]).
-export([doubt/2, certain_from/2, is_doubtful/3]).
-export([forget/2, lose/2, merge/3, again/1, rewind/1]).
-export([floor/1, place/1, progress/1, demand/2, is_unhandled/1, info/1]).
-export_type([outbox/0, options/0, place/0, receiver/0, name/0]).

-include("erl_esdb.hrl").

%% Events that are read at a time.
-define(PAGE, 100).
-define(WINDOW, 1000).
%% So many windows of events that were taken from a receiver are remembered.
-define(COPIES, 16).
%% Positions that a place may name; with more it is the floor.
-define(NAMED, 1000).

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
-type position() :: non_neg_integer().
-doc "Who events are sent to: a process.".
-type receiver() :: term().
-type place() :: position() | {Next :: position(), Unhandled :: [position(), ...]}.

%% What one receiver has and is not known to have handled.
-record(sent, {
    %% positions, by message
    messages = queue:new() :: queue:queue([position(), ...]),
    size = 0 :: non_neg_integer(),
    events = 0 :: non_neg_integer(),
    newest = -1 :: integer(),
    %% whether positions rise: not where it got what another had left
    sorted = true :: boolean(),
    %% whether the first message stands for several, of one event each (`merge/3')
    merged = false :: boolean(),
    %% positions before one that it acknowledged, perhaps of a copy that it had from elsewhere
    doubted = gb_sets:new() :: gb_sets:set(position())
}).

-record(outbox, {
    queue :: erl_esdb_backpressure:queue(event()),
    strategy :: erl_esdb_backpressure:strategy(),
    ack :: auto | manual,
    window :: pos_integer(),
    sent = #{} :: #{receiver() => #sent{}},
    %% events in all of them
    count = 0 :: non_neg_integer(),
    %% positions: the last handed over, the one acknowledged, and where reading has come to
    last :: integer(),
    acknowledged :: position() | undefined,
    next :: position(),
    %% up to the last, what is to be read and handed over again, sorted; nothing else there is
    again = [] :: [position()],
    %% of what was handed over and is to be acknowledged, also of some that was: it may be gone from
    %% the log by then
    names = #{} :: #{position() => {Stream :: binary(), Version :: non_neg_integer()}},
    %% what was taken from who may acknowledge it yet, in the order in which it was sent
    stale = #{} :: #{receiver() => [position()]},
    %% with `ack => auto', the last position that each was sent
    newest = #{} :: #{receiver() => position()},
    %% who may have events from elsewhere, and the position from which on none of these is
    doubtful = #{} :: #{receiver() => []},
    certain = infinity :: position() | infinity
}).

-opaque outbox() :: #outbox{}.
-doc "An event, by its position, or by its stream and version.".
-type name() :: position() | {Stream :: binary(), Version :: non_neg_integer()}.

-doc """
An empty one, of a reader who goes on from a place.

Of the options those of `m:erl_esdb_backpressure` (but `strategy` is `block` by default: the log
keeps what waits), `ack` (`auto`) and `window` (1000).
""".
-spec new(place(), options()) -> outbox().
new(Place, Options) ->
    Strategy = maps:get(strategy, Options, block),
    {ok, Queue} = erl_esdb_backpressure:new(Options#{strategy => Strategy}),
    Box = #outbox{
        queue = Queue,
        strategy = Strategy,
        ack = maps:get(ack, Options, auto),
        window = maps:get(window, Options, ?WINDOW),
        last = -1,
        next = 0
    },
    at(Place, Box).

-spec at(place(), outbox()) -> outbox().
at({Next, [First | _] = Again}, Box) ->
    Box#outbox{sent = #{}, count = 0, last = Next - 1, next = First, again = Again};
at(Next, Box) when is_integer(Next) ->
    Box#outbox{sent = #{}, count = 0, last = Next - 1, next = Next, again = []}.

-doc """
Takes in what was read before a position. Of what was read already only what is to go out again is
taken. Fails only with the strategy `error`.
""".
-spec add([event()], Next :: position(), outbox()) -> {ok, outbox()} | {error, queue_full}.
add(Events, Next, #outbox{queue = Queue, last = Last, again = Again} = Box) ->
    Wanted = [E || #event{position = At} = E <- Events, At > Last orelse lists:member(At, Again)],
    case erl_esdb_backpressure:enqueue_many(Queue, Wanted) of
        {ok, Queue1} ->
            Left = lists:dropwhile(fun(At) -> At < Next end, Again),
            {ok, Box#outbox{queue = Queue1, next = next(Next, Left, Last), again = Left}};
        {error, queue_full} ->
            {error, queue_full}
    end.

%% Nothing is wanted between the places that are.
-spec next(position(), [position()], integer()) -> position().
next(Next, [At | _], _Last) -> max(Next, At);
next(Next, [], Last) -> max(Next, Last + 1).

-doc "Where to read on.".
-spec next(outbox()) -> position().
next(#outbox{next = Next}) -> Next.

-doc "How many events may be read: 0 where those that wait have to go first.".
-spec room(outbox()) -> non_neg_integer().
room(#outbox{strategy = Strategy, queue = Queue}) ->
    #{size := Size, max_size := Max} = erl_esdb_backpressure:info(Queue),
    case Max - Size of
        %% The queue is to say what happens then.
        0 when Strategy =/= block -> ?PAGE;
        Free -> min(?PAGE, Free)
    end.

-doc "How many events may be handed over, besides what the mailboxes of the receivers say.".
-spec limit(outbox()) -> non_neg_integer() | infinity.
limit(#outbox{queue = Queue}) ->
    erl_esdb_backpressure:get_demand(Queue).

-doc """
The next events to hand over, at most so many, and no more than `limit/1` allows. `sent/3` is to be
told of each message that is made of them.
""".
-spec take(non_neg_integer() | infinity, outbox()) -> {[event()], outbox()}.
take(Room, #outbox{queue = Queue, last = Last} = Box) ->
    Size = erl_esdb_backpressure:size(Queue),
    {ok, Events, Queue1} = erl_esdb_backpressure:dequeue(Queue, at_most(Room, limit(Box), Size)),
    Newest = lists:foldl(fun(#event{position = At}, Max) -> max(At, Max) end, Last, Events),
    {Events, Box#outbox{queue = Queue1, last = Newest}}.

%% An atom is greater than any number.
-spec at_most(Limit, Limit, non_neg_integer()) -> non_neg_integer() when
    Limit :: non_neg_integer() | infinity.
at_most(Room, Limit, Size) ->
    case min(Room, Limit) of
        infinity -> Size;
        Most -> min(Most, Size)
    end.

-doc "Takes note of a message with these events.".
-spec sent(receiver(), [event(), ...], outbox()) -> outbox().
sent(Receiver, Events, #outbox{sent = All, count = Count} = Box) ->
    Positions = [Event#event.position || Event <- Events],
    Sent = more(Positions, maps:get(Receiver, All, #sent{})),
    Box1 = Box#outbox{sent = All#{Receiver => Sent}, count = Count + length(Positions)},
    noted(Receiver, Events, Positions, Box1).

-spec noted(receiver(), [event(), ...], [position(), ...], outbox()) -> outbox().
noted(Receiver, _Events, Positions, #outbox{ack = auto, newest = Newest} = Box) ->
    Last = lists:max([maps:get(Receiver, Newest, 0) | Positions]),
    Box#outbox{newest = Newest#{Receiver => Last}};
noted(_Receiver, Events, _Positions, Box) ->
    named(Events, Box).

-spec named([event()], outbox()) -> outbox().
named(Events, #outbox{names = Names, count = Count} = Box) ->
    New = #{P => {Stream, V} || #event{position = P, stream_id = Stream, version = V} <- Events},
    case maps:merge(Names, New) of
        Names1 when map_size(Names1) > 2 * (Count + ?NAMED) ->
            Box#outbox{names = maps:with(out(Box), Names1)};
        Names1 ->
            Box#outbox{names = Names1}
    end.

%% What is not known to be handled, in no order.
-spec out(outbox()) -> [position()].
out(#outbox{sent = All, again = Again}) ->
    lists:append([Again | [positions(Sent) || _ := Sent <- All]]).

-spec more([position(), ...], #sent{}) -> #sent{}.
more([First | _] = Positions, #sent{messages = Messages, size = Size, events = Events} = Sent) ->
    Sent#sent{
        messages = queue:in(Positions, Messages),
        size = Size + 1,
        events = Events + length(Positions),
        newest = lists:last(Positions),
        sorted = Sent#sent.sorted andalso First > Sent#sent.newest
    }.

-doc "Who has events that are not known to be handled.".
-spec receivers(outbox()) -> [receiver()].
receivers(#outbox{sent = All}) -> maps:keys(All).

-doc """
Takes note of how many messages a receiver has before it, or that this is `unknown`. Without effect
with `ack => manual`.
""".
-spec settle(receiver(), non_neg_integer() | unknown, outbox()) -> outbox().
settle(_, _, #outbox{ack = manual} = Box) -> Box;
settle(Receiver, unknown, #outbox{window = Window} = Box) -> keep(Window, Receiver, Box);
%% The one before those that wait may be in its hands.
settle(Receiver, Backlog, Box) -> keep(Backlog + 1, Receiver, Box).

%% The newest so many messages are not handled yet.
-spec keep(pos_integer(), receiver(), outbox()) -> outbox().
keep(Most, Receiver, #outbox{sent = All} = Box) ->
    case All of
        #{Receiver := #sent{messages = Messages, size = Size} = Sent} when Size > Most ->
            {Handled, Kept} = queue:split(Size - Most, Messages),
            Gone = queue:fold(fun(Message, Sum) -> length(Message) + Sum end, 0, Handled),
            has(Receiver, Sent#sent{messages = Kept, size = Most, merged = false}, Gone, Box);
        #{} ->
            Box
    end.

%% `Gone': so many events less.
-spec has(receiver(), #sent{}, non_neg_integer(), outbox()) -> outbox().
has(Receiver, #sent{events = Events} = Sent, Gone, #outbox{} = Box) ->
    put_sent(Receiver, Sent#sent{events = Events - Gone}, Box).

-spec put_sent(receiver(), #sent{}, outbox()) -> outbox().
put_sent(Receiver, Sent, #outbox{sent = All, count = Count} = Box) ->
    #{Receiver := Before} = All,
    case total(Sent) of
        0 ->
            Box#outbox{sent = maps:remove(Receiver, All), count = Count - total(Before)};
        Total ->
            Box#outbox{sent = All#{Receiver := Sent}, count = Count - total(Before) + Total}
    end.

-spec total(#sent{}) -> non_neg_integer().
total(#sent{events = Events, doubted = Doubted}) -> Events + gb_sets:size(Doubted).

-doc """
How many events wait before a receiver of which `settle/3` was just told that it has so many
messages before it. Those that are not ours count as one each.
""".
-spec waiting(receiver(), non_neg_integer(), outbox()) -> non_neg_integer().
waiting(Receiver, Backlog, #outbox{sent = All}) ->
    case All of
        #{Receiver := #sent{merged = true, messages = Messages, size = Size, events = Events}} ->
            max(0, Events - length(queue:get(Messages)) + Backlog - (Size - 1));
        #{Receiver := #sent{size = Size, events = Events}} when Size =< Backlog ->
            Events + Backlog - Size;
        #{Receiver := #sent{messages = Messages, events = Events}} ->
            Events - length(queue:get(Messages));
        #{} ->
            Backlog
    end.

-doc """
How many events more a receiver may be sent: with `ack => manual` as many as its window leaves.
""".
-spec left_for(receiver(), outbox()) -> non_neg_integer() | infinity.
left_for(Receiver, #outbox{ack = manual, window = Window, sent = All}) ->
    case All of
        #{Receiver := #sent{events = Events}} -> max(0, Window - Events);
        #{} -> Window
    end;
left_for(_Receiver, #outbox{}) ->
    infinity.

-doc "Takes note that the event at this position was acknowledged, and with it all before it.".
-spec acknowledged(position(), outbox()) -> outbox().
acknowledged(Position, #outbox{ack = manual, sent = All, again = Again} = Box) ->
    Left = lists:dropwhile(fun(At) -> At =< Position end, Again),
    Box1 = Box#outbox{acknowledged = Position, again = Left},
    maps:fold(fun(R, Sent, Acc) -> handled(R, Position, Sent, Acc) end, Box1, All);
acknowledged(Position, Box) ->
    Box#outbox{acknowledged = Position}.

-doc """
Takes note that one of several receivers acknowledged an event, and with it all that this one was
sent before it. Of an event that was taken from it meanwhile, and may have been sent to it again,
the word is that this one and those taken with it before are handled: what else it was sent since
comes later. Of an event that it has not, or not any more, it says nothing. And where it may have
the event from elsewhere (`doubt/2`) the word is of that one alone: what it was sent here before
stays unhandled, and takes no room in its window.
""".
-spec acknowledged(name(), receiver(), outbox()) -> outbox().
acknowledged(Name, Receiver, #outbox{ack = manual, stale = Stale} = Box) ->
    Is = is_named(Name, Box),
    case lists:splitwith(fun(At) -> not Is(At) end, maps:get(Receiver, Stale, [])) of
        {Before, [_ | Left]} when is_map_key(Receiver, Box#outbox.doubtful) ->
            Box1 = Box#outbox{stale = Stale#{Receiver := Before ++ Left}},
            acknowledged_own(Is, fun(_) -> true end, Receiver, Box1);
        {Before, [At | Left]} ->
            Box1 = Box#outbox{stale = Stale#{Receiver := Left}},
            acknowledged_again([At | Before], Receiver, Box1);
        {_, []} ->
            IsDoubtful = fun(At) -> is_doubtful(At, Receiver, Box) end,
            acknowledged_own(Is, IsDoubtful, Receiver, Box)
    end;
acknowledged(Position, _Receiver, Box) when is_integer(Position) ->
    reached(Position, Box).

%% Where it was sent some of them once more.
-spec acknowledged_again([position(), ...], receiver(), outbox()) -> outbox().
acknowledged_again(Handled, Receiver, #outbox{sent = All} = Box) when is_map_key(Receiver, All) ->
    Keeps = fun(At) -> not lists:member(At, Handled) end,
    kept(Receiver, Keeps, map_get(Receiver, All), Box#outbox{acknowledged = undefined});
acknowledged_again(_Handled, _Receiver, Box) ->
    Box.

-spec acknowledged_own(Is, IsDoubtful :: Is, receiver(), outbox()) -> outbox() when
    Is :: fun((position()) -> boolean()).
acknowledged_own(Is, IsDoubtful, Receiver, #outbox{sent = All} = Box) when
    is_map_key(Receiver, All)
->
    #{Receiver := #sent{messages = Messages, size = Size, events = Events} = Sent} = All,
    case until(Is, Messages, 0, []) of
        {Kept, Gone, [At | _] = Handled} ->
            Left = Sent#sent{
                messages = Kept, size = Size - Gone, events = Events - length(Handled)
            },
            Box1 = Box#outbox{acknowledged = undefined},
            own(IsDoubtful(At), Receiver, Handled, Left, Box1);
        none ->
            acknowledged_doubted(Is, Receiver, Sent, Box)
    end;
acknowledged_own(_Is, _IsDoubtful, _Receiver, Box) ->
    Box.

%% `Handled': the latest first, which is the one that was named.
-spec own(IsDoubtful :: boolean(), receiver(), Handled :: [position(), ...], #sent{}, outbox()) ->
    outbox().
own(true, Receiver, [_ | Before], #sent{doubted = Doubted} = Left, Box) ->
    Doubted1 = lists:foldl(fun gb_sets:add_element/2, Doubted, Before),
    put_sent(Receiver, Left#sent{doubted = Doubted1}, Box);
own(false, Receiver, _Handled, Left, Box) ->
    put_sent(Receiver, Left#sent{doubted = gb_sets:new()}, silent(Receiver, Box)).

%% Of those which it may not have handled it is only this one.
-spec acknowledged_doubted(fun((position()) -> boolean()), receiver(), #sent{}, outbox()) ->
    outbox().
acknowledged_doubted(Is, Receiver, #sent{doubted = Doubted} = Sent, Box) ->
    case search(Is, Sent) of
        {value, At} ->
            Left = Sent#sent{doubted = gb_sets:del_element(At, Doubted)},
            put_sent(Receiver, Left, Box#outbox{acknowledged = undefined});
        false ->
            Box
    end.

-doc """
These receivers may have events, and acknowledge them, that others than this outbox have sent them:
what of a word is of which copy nobody can tell.
""".
-spec doubt([receiver()], outbox()) -> outbox().
doubt(Receivers, Box) -> Box#outbox{doubtful = maps:from_keys(Receivers, [])}.

-doc "No event from this position on was sent by others: the first word counts.".
-spec certain_from(position(), outbox()) -> outbox().
certain_from(Position, #outbox{certain = infinity} = Box) -> Box#outbox{certain = Position};
certain_from(_Position, Box) -> Box.

-doc "Whether a receiver may have the event at a position from elsewhere.".
-spec is_doubtful(position(), receiver(), outbox()) -> boolean().
%% An atom is greater than any number.
is_doubtful(At, Receiver, #outbox{doubtful = Doubtful, certain = Certain}) ->
    At < Certain andalso is_map_key(Receiver, Doubtful).

-doc """
Whether a receiver was sent this event and has not acknowledged it: it has it, or it was taken from
it.
""".
-spec is_sent(name(), receiver(), outbox()) -> boolean().
is_sent(Name, Receiver, #outbox{sent = All, stale = Stale} = Box) ->
    Is = is_named(Name, Box),
    Sent = maps:get(Receiver, All, #sent{}),
    lists:any(Is, maps:get(Receiver, Stale, [])) orelse search(Is, Sent) =/= false.

-doc "A receiver will say nothing more of copies of events that were taken from it.".
-spec silent(receiver(), outbox()) -> outbox().
silent(Receiver, #outbox{stale = Stale} = Box) -> Box#outbox{stale = maps:remove(Receiver, Stale)}.

-doc """
Whether, with `ack => auto`, a receiver was sent something beyond what was acknowledged: then that
counts as not handled, whatever is known of its mailbox.
""".
-spec is_bounded(receiver(), outbox()) -> boolean().
is_bounded(Receiver, #outbox{ack = auto, acknowledged = Position, newest = Newest}) when
    is_integer(Position)
->
    maps:get(Receiver, Newest, -1) > Position;
is_bounded(_Receiver, #outbox{}) ->
    false.

-spec is_named(name(), outbox()) -> fun((position()) -> boolean()).
is_named(Position, _Box) when is_integer(Position) ->
    fun(At) -> At =:= Position end;
is_named(Name, #outbox{names = Names}) ->
    fun(At) -> maps:get(At, Names, none) =:= Name end.

-doc """
The position of an event that was handed over and is not known to be handled, the first so named.
""".
-spec position(name(), outbox()) -> {ok, position()} | error.
position(Name, #outbox{sent = All, again = Again} = Box) ->
    Is = is_named(Name, Box),
    Sent = [At || _ := Sent <- All, {value, At} <- [search(Is, Sent)]],
    case [At || {value, At} <- [lists:search(Is, Again)]] ++ Sent of
        [] -> error;
        Found -> {ok, lists:min(Found)}
    end.

-spec search(fun((position()) -> boolean()), #sent{}) -> {value, position()} | false.
search(Is, #sent{messages = Messages, doubted = Doubted}) ->
    case search_messages(Is, Messages) of
        {value, Position} -> {value, Position};
        false -> search_doubted(Is, gb_sets:next(gb_sets:iterator(Doubted)))
    end.

%% From the front: it costs about what is acknowledged with it.
-spec search_messages(fun((position()) -> boolean()), queue:queue([position(), ...])) ->
    {value, position()} | false.
search_messages(Is, Messages) ->
    case queue:out(Messages) of
        {{value, Message}, Rest} ->
            case lists:search(Is, Message) of
                {value, Position} -> {value, Position};
                false -> search_messages(Is, Rest)
            end;
        {empty, _} ->
            false
    end.

-spec search_doubted(fun((position()) -> boolean()), none | {position(), gb_sets:iter()}) ->
    {value, position()} | false.
search_doubted(_Is, none) ->
    false;
search_doubted(Is, {Position, Others}) ->
    case Is(Position) of
        true -> {value, Position};
        false -> search_doubted(Is, gb_sets:next(Others))
    end.

%% Of several who acknowledge, the one who is ahead tells how far.
-spec reached(position(), outbox()) -> outbox().
reached(Position, #outbox{acknowledged = undefined} = Box) ->
    Box#outbox{acknowledged = Position};
reached(Position, #outbox{acknowledged = Before} = Box) ->
    Box#outbox{acknowledged = max(Position, Before)}.

%% From the front, up to the one that is acknowledged, whatever the order of positions. Answers also
%% how many messages are gone, and what was in them, the latest first.
-spec until(fun((position()) -> boolean()), Messages, Gone, Handled) ->
    {Messages, Gone, Handled} | none
when
    Messages :: queue:queue([position(), ...]),
    Gone :: non_neg_integer(),
    Handled :: [position()].
until(Is, Messages, Gone, Handled) ->
    case queue:out(Messages) of
        {{value, Message}, Rest} ->
            {Some, Left} = lists:splitwith(fun(At) -> not Is(At) end, Message),
            Handled1 = lists:reverse(Some, Handled),
            case Left of
                [] -> until(Is, Rest, Gone + 1, Handled1);
                [At] -> {Rest, Gone + 1, [At | Handled1]};
                [At | Others] -> {queue:in_r(Others, Rest), Gone, [At | Handled1]}
            end;
        {empty, _} ->
            none
    end.

-doc "Takes note that this one event was handled, whoever has it.".
-spec done(name(), outbox()) -> outbox().
done(Name, #outbox{ack = manual, sent = All, again = Again} = Box) ->
    case position(Name, Box) of
        {ok, Position} ->
            Box1 = Box#outbox{acknowledged = undefined, again = lists:delete(Position, Again)},
            Keeps = fun(At) -> At =/= Position end,
            maps:fold(fun(R, Sent, Acc) -> kept(R, Keeps, Sent, Acc) end, Box1, All);
        error ->
            Box
    end;
done(Position, Box) when is_integer(Position) ->
    reached(Position, Box).

-spec handled(receiver(), position(), #sent{}, outbox()) -> outbox().
handled(Receiver, Position, #sent{sorted = true, size = Size} = Sent, Box) ->
    {Kept, Gone, Events} = drop(Position, Sent#sent.messages, 0, 0),
    Doubted = drop_doubted(Position, Sent#sent.doubted),
    Left = Sent#sent{messages = Kept, size = Size - Gone, doubted = Doubted},
    has(Receiver, Left, Events, Box);
handled(Receiver, Position, Sent, Box) ->
    kept(Receiver, fun(At) -> At > Position end, Sent, Box).

-spec kept(receiver(), fun((position()) -> boolean()), #sent{}, outbox()) -> outbox().
kept(Receiver, Keeps, #sent{messages = Messages, doubted = Doubted} = Sent, Box) ->
    Left = [Kept || M <- queue:to_list(Messages), [_ | _] = Kept <- [lists:filter(Keeps, M)]],
    Sent1 = Sent#sent{
        messages = queue:from_list(Left),
        size = length(Left),
        events = length(lists:append(Left)),
        doubted = gb_sets:filter(Keeps, Doubted)
    },
    put_sent(Receiver, Sent1, Box).

-spec drop_doubted(position(), gb_sets:set(position())) -> gb_sets:set(position()).
drop_doubted(Position, Doubted) ->
    case gb_sets:is_empty(Doubted) orelse gb_sets:smallest(Doubted) > Position of
        true -> Doubted;
        false -> drop_doubted(Position, gb_sets:delete(gb_sets:smallest(Doubted), Doubted))
    end.

%% From the front, up to the first that stays: so it costs what is acknowledged, not what is out.
-spec drop(position(), Messages, Gone, Gone) -> {Messages, Gone, Gone} when
    Messages :: queue:queue([position(), ...]), Gone :: non_neg_integer().
drop(Position, Messages, Gone, Events) ->
    case queue:out(Messages) of
        {{value, Message}, Rest} ->
            case lists:splitwith(fun(At) -> At =< Position end, Message) of
                {_, []} -> drop(Position, Rest, Gone + 1, Events + length(Message));
                {[], _} -> {Messages, Gone, Events};
                {Some, Left} -> {queue:in_r(Left, Rest), Gone, Events + length(Some)}
            end;
        {empty, _} ->
            {Messages, Gone, Events}
    end.

-doc "What a receiver has been sent is its own business from now on.".
-spec forget(receiver(), outbox()) -> outbox().
forget(Receiver, #outbox{sent = All, count = Count, newest = Newest} = Box) ->
    Box1 = Box#outbox{newest = maps:remove(Receiver, Newest)},
    case maps:take(Receiver, All) of
        {Sent, Left} -> Box1#outbox{sent = Left, count = Count - total(Sent)};
        error -> Box1
    end.

-doc """
What a receiver is not known to have handled is taken from it: it is to be read again (from `next/1`
on), and goes to others, or to the same one once more.
""".
-spec lose(receiver(), outbox()) -> outbox().
lose(Receiver, #outbox{sent = All, again = Again} = Box) when
    is_map_key(Receiver, All)
->
    Lost = positions(map_get(Receiver, All)),
    [First | _] = Again1 = lists:umerge([lists:usort(Lost), early(Box), Again]),
    %% What waits is read again, too: it comes after.
    {_, Box1} = emptied(forget(Receiver, Box)),
    taken_from(Receiver, Lost, Box1#outbox{next = First, again = Again1});
lose(Receiver, Box) ->
    forget(Receiver, Box).

%% Its word for one of these is of the old copy: others have it by now, and so may this one, among
%% other events. One that is never heard of these is not waited for: the newest are kept.
-spec taken_from(receiver(), [position()], outbox()) -> outbox().
taken_from(Receiver, Lost, #outbox{ack = manual, stale = Stale, window = Window} = Box) ->
    Old = maps:get(Receiver, Stale, []) ++ Lost,
    Kept = lists:nthtail(max(0, length(Old) - ?COPIES * Window), Old),
    Box#outbox{stale = Stale#{Receiver => Kept}};
taken_from(_Receiver, _Lost, Box) ->
    Box.

-doc """
What these receivers were sent, one event a message, has reached another one, nobody knows in which
order, behind what that one had: it counts as one message, which is handled when the next one is.
""".
-spec merge([receiver()], Into :: receiver(), outbox()) -> outbox().
merge(Receivers, Into, #outbox{sent = All, newest = Newest} = Box) ->
    Own = maps:with([Into | Receivers], All),
    Last = lists:max([-1 | maps:values(maps:with([Into | Receivers], Newest))]),
    Box1 = lists:foldl(fun forget/2, Box, [Into | Receivers]),
    case lists:usort(lists:append([positions(Sent) || _ := Sent <- Own])) of
        [] -> Box1;
        Positions -> merged(Positions, Last, Into, Box1)
    end.

-spec merged([position(), ...], integer(), receiver(), outbox()) -> outbox().
merged(Positions, Last, Into, #outbox{sent = All, count = Count, newest = Newest} = Box) ->
    Sent = (more(Positions, #sent{}))#sent{merged = true},
    Box#outbox{
        sent = All#{Into => Sent},
        count = Count + length(Positions),
        newest = Newest#{Into => Last}
    }.

-spec positions(#sent{}) -> [position()].
positions(#sent{messages = Messages, doubted = Doubted}) ->
    gb_sets:to_list(Doubted) ++ lists:append(queue:to_list(Messages)).

%% The demand stays.
-spec emptied(outbox()) -> {[position()], outbox()}.
emptied(#outbox{queue = Queue} = Box) ->
    Demand = erl_esdb_backpressure:get_demand(Queue),
    {ok, Events, Empty} = erl_esdb_backpressure:dequeue_all(Queue),
    {[E#event.position || E <- Events], demand(Demand, Box#outbox{queue = Empty})}.

-doc """
Takes all that is not known to be handled from those who have it; reading goes on from the place
(`next/1`). A demand stays: it is that of others, too.
""".
-spec again(outbox()) -> outbox().
again(#outbox{sent = All} = Box) ->
    Place = place(Box),
    {_, Box1} = emptied(Box),
    Take = fun(Receiver, Sent, Acc) -> taken_from(Receiver, positions(Sent), Acc) end,
    at(Place, (maps:fold(Take, Box1, All))#outbox{newest = #{}}).

-doc "The same where those who take the events have ended: a demand begins at 0 again.".
-spec rewind(outbox()) -> outbox().
rewind(Box) ->
    #outbox{queue = Queue} = Box1 = again(Box),
    {ok, [], Empty} = erl_esdb_backpressure:dequeue_all(Queue),
    Box1#outbox{queue = Empty}.

-doc "The position of the first event that is not handled.".
-spec floor(outbox()) -> position().
floor(#outbox{acknowledged = Position, last = Last} = Box) when
    is_integer(Position), Position < Last
->
    min(Position + 1, unhandled(Box));
floor(Box) ->
    unhandled(Box).

%% What is to be read again is not before where reading goes on, or waits in the queue.
-spec unhandled(outbox()) -> position().
unhandled(#outbox{sent = All, queue = Queue, next = Next}) ->
    Waiting =
        case erl_esdb_backpressure:peek(Queue) of
            {ok, #event{position = Position}} when is_integer(Position) -> [Position];
            empty -> []
        end,
    lists:min([Next | Waiting] ++ [first(Sent) || _ := Sent <- All]).

-spec first(#sent{}) -> position().
first(#sent{events = 0, doubted = Doubted}) ->
    gb_sets:smallest(Doubted);
first(#sent{messages = Messages, sorted = true, doubted = Doubted}) ->
    case gb_sets:is_empty(Doubted) of
        true -> hd(queue:get(Messages));
        false -> min(gb_sets:smallest(Doubted), hd(queue:get(Messages)))
    end;
first(#sent{} = Sent) ->
    lists:min(positions(Sent)).

-doc "What is to be saved.".
-spec place(outbox()) -> place().
place(#outbox{ack = auto, count = Count} = Box) when Count =< ?NAMED ->
    case is_one_row(Box) orelse is_unacknowledged(Box) orelse named(Box) of
        [_ | _] = Named when length(Named) =< ?NAMED -> {beyond(Box), Named};
        _ -> floor(Box)
    end;
place(Box) ->
    floor(Box).

%% Nothing is handled beyond the first event that is not.
-spec is_one_row(outbox()) -> boolean().
is_one_row(#outbox{sent = All, again = []} = Box) when map_size(All) < 2 ->
    lists:all(fun(#sent{sorted = Sorted}) -> Sorted end, maps:values(All)) andalso
        early(Box) =:= [];
is_one_row(#outbox{}) ->
    false.

-spec is_unacknowledged(outbox()) -> boolean().
is_unacknowledged(#outbox{acknowledged = undefined}) -> false;
is_unacknowledged(#outbox{acknowledged = Position, last = Last}) -> Position < Last.

%% All that is not handled of what was handed over once.
-spec named(outbox()) -> [position()].
named(#outbox{sent = All, again = Again} = Box) ->
    Sent = lists:append([positions(Sent) || _ := Sent <- All]),
    lists:umerge([lists:usort(Sent), early(Box), Again]).

%% What waits to go out again.
-spec early(outbox()) -> [position()].
early(#outbox{queue = Queue, last = Last} = Box) ->
    case erl_esdb_backpressure:peek(Queue) of
        {ok, #event{position = Position}} when Position =< Last ->
            {Waiting, _} = emptied(Box),
            [At || At <- Waiting, At =< Last];
        _ ->
            []
    end.

%% Before it, nothing else is wanted.
-spec beyond(outbox()) -> position().
beyond(#outbox{queue = Queue, last = Last, next = Next}) ->
    case erl_esdb_backpressure:is_empty(Queue) of
        true -> max(Last + 1, Next);
        false -> Last + 1
    end.

-doc "What changes when something is handed over or handled.".
-spec progress(outbox()) -> term().
progress(#outbox{last = Last, count = Count, next = Next}) -> {Last, Count, Next}.

-doc "The subscriber of a queue in mode `pull` wants so many more.".
-spec demand(non_neg_integer() | infinity, outbox()) -> outbox().
demand(infinity, Box) -> Box;
demand(More, #outbox{queue = Queue} = Box) when is_integer(More) ->
    Box#outbox{queue = erl_esdb_backpressure:add_demand(Queue, More)}.

-doc "Whether there are events whose handling is seen in mailboxes.".
-spec is_unhandled(outbox()) -> boolean().
is_unhandled(#outbox{ack = Ack, count = Count}) -> Ack =:= auto andalso Count > 0.

-doc "What `erl_esdb_subscriptions:info/2` tells of it.".
-spec info(outbox()) -> map().
info(#outbox{queue = Queue, count = Count, next = Next} = Box) ->
    #{
        queue => erl_esdb_backpressure:info(Queue),
        unhandled => Count,
        position => Next,
        floor => floor(Box)
    }.
