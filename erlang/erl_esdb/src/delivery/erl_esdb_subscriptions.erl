-module(erl_esdb_subscriptions).
-moduledoc """
Subscriptions: events that come to a process as they are written, from any place of the past on.

```erlang
1> {ok, _} = erl_esdb:start_store(shop).
2> {ok, Key} = erl_esdb_subscriptions:subscribe(shop, event_pattern, ~"order-*", ~"mail").
3> Placed = #{event_type => ~"Placed", data => #{total => 42}}.
4> {ok, 0} = erl_esdb_streams:append(shop, ~"order-1", -1, [Placed]).
5> receive {event, Event} -> Event end.
6> ok = erl_esdb_subscriptions:unsubscribe(shop, Key).
```

What is selected stands in `m:erl_esdb_filters`. A subscription is kept with the store, until it is
removed; it goes on where it stopped.

## What is promised

Events come after they are committed, those of a stream in its order, without order between streams;
each at least once, and once where nothing crashes. A subscriber that is slow, or dead, delays
nobody else and no append: each subscription has a process of its own, which reads the log at its
own pace.

## Who gets them

| | gets |
|---|---|
| the process in the option `subscriber`, or attached with `attach/3` | `{events, [Event]}` |
| else handlers that joined (`erl_esdb_emitter_group:join/3`), in turn | `{event, Event}` |
| else the process that subscribed | `{event, Event}` |
| with `consumers => competing`: who connected with `connect/4` | `{events, [Event]}` |

While there is nobody, nothing is read. The order of a stream holds for one process; where it has to
hold for several that share the work, take competing consumers.

## How fast

By default a subscriber is sent events as long as fewer than `window` messages wait in its mailbox,
which can be seen on its own node only: one on another node should acknowledge. Then:

- `ack => manual`: at most `window` events that are not acknowledged with `ack/4` are out.
- `mode => pull`: as many as were asked for with `demand/3`.
- `max_queue` events are read ahead. When they are not taken, the `strategy` decides: `block` (the
  default) reads no further, `drop_oldest` and `drop_newest` go on and leave events out, `error`
  sends the subscriber `{erl_esdb_subscription, Key, {error, queue_full}}` and stops until one is
  attached.

## After a crash

Another process is attached with `attach/3`. It gets what the one before had not handled: with
`ack => manual` what was not acknowledged, else what was in its mailbox when it was looked at last,
and the event it was at. So the default loses nothing either, and repeats some. With `pool_size`
above 1, or a subscriber on another node, the newest `window` events come again; of what handlers
had in their mailboxes, nothing does.
""".

-export([subscribe/4, subscribe/5, unsubscribe/2, unsubscribe/3, attach/3]).
-export([ack/4, demand/3, get/2, list/1, exists/2, info/2, setup_tracking/2]).
%% Competing consumers
-export([connect/4, disconnect/3, nack/5, parked/2, replay_parked/2]).
-export([resume/2, acknowledged/2]).
-export_type([options/0]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-type options() :: #{
    subscriber => pid(),
    start_from => non_neg_integer() | latest,
    pool_size => pos_integer(),
    batch => pos_integer(),
    ack => auto | manual,
    window => pos_integer(),
    mode => erl_esdb_backpressure:mode(),
    max_queue => pos_integer(),
    strategy => erl_esdb_backpressure:strategy(),
    consumers => competing,
    max_retries => non_neg_integer(),
    retry_delays => [pos_integer(), ...],
    _ => _
}.

-doc "The same as `subscribe/5` without options.".
-spec subscribe(
    Store :: atom(), subscription_type(), erl_esdb_filters:selector(), Name :: binary()
) -> {ok, Key :: binary()} | {error, term()}.
subscribe(Store, Type, Selector, Name) -> subscribe(Store, Type, Selector, Name, #{}).

-doc """
Makes a subscription. Answers its key, which is made of type, selector and name.

| option | default | |
|---|---|---|
| `subscriber` | | the process that gets the events as `{events, [Event]}` |
| `start_from` | 0 | the first version of a stream, else the first position; `latest` is the end |
| `pool_size` | 1 | with a subscriber: through so many processes, each stream through one of them |
| `batch` | 1 | events of a message `{events, Events}`, at most (with a `pool_size` of 1) |
| `ack`, `window` | `auto`, 1000 | what counts as handled, and how much may be out |
| `mode`, `max_queue`, `strategy` | `push`, 1000, `block` | see above |
| `consumers` | | `competing`: see `connect/4` |
| `max_retries`, `retry_delays` | 10, `[100, 1000, 10000]` | of competing consumers; milliseconds |

All options are kept in the subscription, also unknown ones. A `start_from` beyond the end is the
end: what is new comes.

Telemetry: `[erl_esdb, subscription, created]`; for each event that is handed over
`[erl_esdb, subscription, event_delivered]`.

## Errors

- `{already_exists, Name}`: there is one of this type, selector and name
- `{invalid_type, Type}`, `invalid_stream`, `{invalid_selector, Selector}`,
  `{invalid_predicate, Mistake}`
- `{invalid_option, Key, Value}`
- `{store_not_started, Store}` and the other failures of a store
""".
-spec subscribe(
    Store :: atom(), subscription_type(), erl_esdb_filters:selector(), Name :: binary(), options()
) -> {ok, Key :: binary()} | {error, term()}.
subscribe(Store, Type, Selector, Name, Options) when
    is_atom(Store), is_binary(Name), is_map(Options)
->
    maybe
        {ok, _} ?= erl_esdb_filters:compile(Type, Selector),
        ok ?= check(Options),
        Subscription = subscription(Type, erl_esdb_filters:stored(Selector), Name, Options),
        {ok, Next} ?= start(Store, Subscription),
        {ok, Key} ?= erl_esdb_subscription_manager:subscribe(Store, Subscription, Next, self()),
        created(Store, Subscription),
        {ok, Key}
    end;
subscribe(_, _, _, _, _) ->
    error(badarg).

-spec subscription(subscription_type(), erl_esdb_filters:selector(), binary(), options()) ->
    subscription().
subscription(Type, Selector, Name, Options) ->
    #subscription{
        id = erl_esdb_subscriptions_store:key(Type, Selector, Name),
        type = Type,
        selector = Selector,
        subscription_name = Name,
        subscriber_pid = maps:get(subscriber, Options, undefined),
        created_at = erlang:system_time(millisecond),
        pool_size = maps:get(pool_size, Options, 1),
        checkpoint = given(Options),
        options = Options
    }.

-spec given(options()) -> non_neg_integer() | undefined.
given(#{start_from := From}) when is_integer(From) -> From;
given(#{}) -> undefined.

-spec check(options()) -> ok | {error, {invalid_option, atom(), term()}}.
check(Options) ->
    Positive = fun(Value) -> is_integer(Value) andalso Value > 0 end,
    Natural = fun(Value) -> is_integer(Value) andalso Value >= 0 end,
    Tests = [
        {subscriber, fun erlang:is_pid/1},
        {start_from, fun(Value) -> Value =:= latest orelse Natural(Value) end},
        {pool_size, Positive},
        {batch, Positive},
        {ack, one_of([auto, manual])},
        {window, Positive},
        {mode, one_of([push, pull])},
        {max_queue, Positive},
        {strategy, one_of([drop_oldest, drop_newest, block, error])},
        {warning_threshold, Natural},
        {consumers, one_of([competing])},
        {max_retries, Natural},
        {retry_delays, fun(Value) -> is_delays(Value, Positive) end}
    ],
    case [Key || {Key, Good} <- Tests, is_map_key(Key, Options), not Good(map_get(Key, Options))] of
        [Key | _] -> {error, {invalid_option, Key, map_get(Key, Options)}};
        [] -> ok
    end.

-spec one_of([atom()]) -> fun((term()) -> boolean()).
one_of(Values) -> fun(Value) -> lists:member(Value, Values) end.

-spec is_delays(term(), fun((term()) -> boolean())) -> boolean().
is_delays([Delay], Good) -> Good(Delay);
is_delays([Delay | Delays], Good) -> Good(Delay) andalso is_delays(Delays, Good);
is_delays(_, _) -> false.

-spec created(atom(), subscription()) -> ok.
created(Store, #subscription{id = Key, type = Type} = Subscription) ->
    ok = erl_esdb_telemetry:emit(?SUBSCRIPTION_CREATED, now_ms(), #{
        store_id => Store,
        subscription_id => Key,
        type => Type,
        selector => Subscription#subscription.selector,
        subscription_name => Subscription#subscription.subscription_name
    }),
    erl_esdb_tracker_group:notify_created(Store, subscriptions, Subscription).

-spec now_ms() -> #{system_time := integer()}.
now_ms() -> #{system_time => erlang:system_time(millisecond)}.

%% The position that a new subscription begins at.
-spec start(atom(), subscription()) -> {ok, non_neg_integer()} | {error, term()}.
start(Store, #subscription{options = Options} = Subscription) ->
    maybe
        {ok, End} ?= erl_esdb_store:next_position(Store),
        case maps:get(start_from, Options, 0) of
            latest -> {ok, End};
            0 -> {ok, 0};
            From -> start(Store, stream(Subscription), From, End)
        end
    end.

-spec start(atom(), {ok, binary()} | any, non_neg_integer(), non_neg_integer()) ->
    {ok, non_neg_integer()} | {error, term()}.
start(Store, {ok, Stream}, Version, End) ->
    erl_esdb_cursor:first_position(Store, Stream, Version, End);
start(_Store, any, Position, End) ->
    {ok, min(Position, End)}.

-spec stream(subscription()) -> {ok, binary()} | any.
stream(#subscription{type = stream, selector = Stream}) when Stream =/= <<"$all">> -> {ok, Stream};
stream(#subscription{}) -> any.

-doc false.
%% The position to go on from: what was saved, or the beginning.
-spec resume(atom(), subscription()) -> {ok, non_neg_integer()} | {error, term()}.
resume(Store, #subscription{id = Key} = Subscription) ->
    case erl_esdb_checkpoints:get(Store, erl_esdb_subscriptions_store:next_key(Key)) of
        {ok, Position} -> {ok, Position};
        {error, not_found} -> start(Store, Subscription);
        {error, Reason} -> {error, Reason}
    end.

-doc false.
-spec acknowledged(atom(), binary()) -> non_neg_integer() | undefined.
acknowledged(Store, Key) ->
    case erl_esdb_store:checkpoint(Store, erl_esdb_subscriptions_store:acknowledged_key(Key)) of
        {ok, {_Number, Position}} -> Position;
        {error, _} -> undefined
    end.

-doc """
Removes a subscription. When it returns, nothing more is sent.

Telemetry: `[erl_esdb, subscription, deleted]`. Errors: `not_found`.
""".
-spec unsubscribe(Store :: atom(), Key :: binary()) -> ok | {error, not_found | term()}.
unsubscribe(Store, Key) when is_atom(Store), is_binary(Key) ->
    case erl_esdb_subscription_manager:unsubscribe(Store, Key) of
        {ok, Subscription} -> deleted(Store, Subscription);
        {error, Reason} -> {error, Reason}
    end;
unsubscribe(_, _) ->
    error(badarg).

-spec deleted(atom(), subscription()) -> ok.
deleted(Store, #subscription{id = Key} = Subscription) ->
    Metadata = #{store_id => Store, subscription_id => Key},
    ok = erl_esdb_telemetry:emit(?SUBSCRIPTION_DELETED, now_ms(), Metadata),
    erl_esdb_tracker_group:notify_deleted(Store, subscriptions, Subscription).

-doc "Removes the first subscription of a type and name.".
-spec unsubscribe(Store :: atom(), subscription_type(), Name :: binary()) ->
    ok | {error, not_found | term()}.
unsubscribe(Store, Type, Name) ->
    maybe
        {ok, Subscriptions} ?= list(Store),
        [Key | _] ?= [Key || #subscription{id = Key} = S <- Subscriptions, is_of(Type, Name, S)],
        unsubscribe(Store, Key)
    else
        [] -> {error, not_found};
        {error, Reason} -> {error, Reason}
    end.

-spec is_of(term(), term(), subscription()) -> boolean().
is_of(Type, Name, #subscription{type = Type, subscription_name = Name}) -> true;
is_of(_, _, _) -> false.

-doc """
Makes a process the subscriber, in place of the one before. It gets `{events, [Event]}`, from what
the one before has not handled, if that one is dead, else from what was not sent to it.
""".
-spec attach(Store :: atom(), Key :: binary(), pid()) -> ok | {error, not_found | term()}.
attach(Store, Key, Pid) when is_pid(Pid) ->
    case erl_esdb_subscription_manager:attach(Store, Key, Pid) of
        {ok, Subscription} ->
            erl_esdb_tracker_group:notify_updated(Store, subscriptions, Subscription);
        {error, Reason} ->
            {error, Reason}
    end;
attach(_, _, _) ->
    error(badarg).

-doc """
Acknowledges events.

By name (`ack(Store, Name, Stream, Number)`): all events of the subscription up to this one. The
number is a version, of the stream of the subscription, or of the stream given; with `undefined` it
is a position. It becomes the `checkpoint` of the subscription as it stands; of two subscriptions
with one name it is the first one's. The last word counts, also one that goes back: from there
delivery goes on after a crash. Telemetry: `[erl_esdb, subscription, checkpoint]`.

By a competing consumer (`ack(Store, Key, Pid, Refs)`): these events, named by themselves, by
position or id.

## Errors

- `{subscription_not_found, Name}`
- of competing consumers `{not_in_flight, [Ref]}` (the others were acknowledged), `not_found`,
  `not_competing`
""".
-spec ack(atom(), binary(), binary() | undefined, non_neg_integer()) -> ok | {error, term()};
         (atom(), binary(), pid(), [erl_esdb_competing:ref()]) -> ok | {error, term()}.
ack(Store, Key, Pid, Refs) when is_pid(Pid), is_list(Refs) ->
    done(call(Store, Key, {settle, Pid, Refs, ack}));
ack(Store, Name, Stream, Number) when
    is_binary(Name), is_integer(Number), Number >= 0, is_binary(Stream) orelse Stream =:= undefined
->
    try erl_esdb_subscriptions_store:find_by_name(Store, Name) of
        {ok, Key, Subscription} -> acknowledge(Store, Key, Subscription, Stream, Number);
        {error, not_found} -> {error, {subscription_not_found, Name}}
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end;
ack(_, _, _, _) ->
    error(badarg).

-spec acknowledge(atom(), binary(), subscription(), binary() | undefined, non_neg_integer()) ->
    ok | {error, term()}.
acknowledge(Store, Key, #subscription{subscription_name = Name} = S, Stream, Number) ->
    maybe
        {ok, Position} ?= acknowledged_position(Store, S, Stream, Number),
        AckKey = erl_esdb_subscriptions_store:acknowledged_key(Key),
        ok ?= erl_esdb_checkpoints:put(Store, #{AckKey => {Number, Position}}),
        ok = pass_on(Store, Key, Position),
        Metadata = #{store_id => Store, subscription_id => Key, subscription_name => Name},
        erl_esdb_telemetry:emit(?SUBSCRIPTION_CHECKPOINT, #{position => Number}, Metadata)
    end.

%% What competing consumers have done, each of them says of each event.
-spec acknowledged_position(atom(), subscription(), binary() | undefined, non_neg_integer()) ->
    {ok, non_neg_integer() | undefined} | {error, term()}.
acknowledged_position(_, #subscription{options = #{consumers := competing}}, _, _) ->
    {ok, undefined};
acknowledged_position(Store, Subscription, Stream, Number) ->
    position(Store, version_of(stream(Subscription), Stream), Number).

-spec version_of({ok, binary()} | any, binary() | undefined) -> {ok, binary()} | any.
version_of({ok, Stream}, _) -> {ok, Stream};
version_of(any, undefined) -> any;
version_of(any, <<"$all">>) -> any;
version_of(any, Stream) -> {ok, Stream}.

%% Of an event that does not exist, that of the last one before what comes after it.
-spec position(atom(), {ok, binary()} | any, non_neg_integer()) ->
    {ok, non_neg_integer() | undefined} | {error, term()}.
position(Store, Stream, Number) ->
    case erl_esdb_store:next_position(Store) of
        {ok, End} -> position(Store, Stream, Number, End);
        {error, Reason} -> {error, Reason}
    end.

-spec position(atom(), {ok, binary()} | any, non_neg_integer(), End :: non_neg_integer()) ->
    {ok, non_neg_integer() | undefined} | {error, term()}.
position(_Store, _, _Number, 0) ->
    {ok, undefined};
position(_Store, any, Number, End) ->
    {ok, min(Number, End - 1)};
position(Store, {ok, Stream}, Version, End) ->
    case erl_esdb_store:read(Store, Stream, Version, 1, forward, #{}) of
        {ok, [#event{position = Position}]} -> {ok, Position};
        {error, {stream_not_found, _}} -> {ok, undefined};
        {ok, []} -> before(erl_esdb_cursor:first_position(Store, Stream, Version, End));
        {error, Reason} -> {error, Reason}
    end.

-spec before({ok, non_neg_integer()} | {error, term()}) ->
    {ok, non_neg_integer() | undefined} | {error, term()}.
before({ok, 0}) -> {ok, undefined};
before({ok, Position}) -> {ok, Position - 1};
before({error, Reason}) -> {error, Reason}.

%% The process saves the place. Without one it is saved here.
-spec pass_on(atom(), binary(), non_neg_integer() | undefined) -> ok | {error, term()}.
pass_on(_Store, _Key, undefined) ->
    ok;
pass_on(Store, Key, Position) ->
    case erl_esdb_delivery:pid(Store, subscription, Key) of
        {ok, Pid} ->
            gen_server:cast(Pid, {acknowledged, Position});
        {error, _} ->
            NextKey = erl_esdb_subscriptions_store:next_key(Key),
            erl_esdb_checkpoints:put(Store, #{NextKey => Position + 1})
    end.

-doc "Asks for so many more events, of a subscription with `mode => pull`.".
-spec demand(Store :: atom(), Key :: binary(), non_neg_integer()) -> ok | {error, term()}.
demand(Store, Key, Count) when is_integer(Count), Count >= 0 ->
    done(call(Store, Key, {demand, Count}));
demand(_, _, _) ->
    error(badarg).

-spec call(atom(), binary(), term()) -> ok | {ok, term()} | {error, term()}.
call(Store, Key, Request) ->
    maybe
        {ok, Pid} ?= erl_esdb_delivery:pid(Store, subscription, Key),
        try
            gen_server:call(Pid, Request, infinity)
        catch
            exit:_ -> {error, not_found}
        end
    end.

-spec done(ok | {error, Reason}) -> ok | {error, Reason}.
done(ok) -> ok;
done({error, Reason}) -> {error, Reason}.

-spec found({ok, Found} | {error, Reason}) -> {ok, Found} | {error, Reason}.
found({ok, Found}) -> {ok, Found};
found({error, Reason}) -> {error, Reason}.

-doc "The subscription with this key.".
-spec get(Store :: atom(), Key :: binary()) -> {ok, subscription()} | {error, not_found | term()}.
get(Store, Key) ->
    try erl_esdb_subscriptions_store:get(Store, Key) of
        undefined -> {error, not_found};
        Subscription -> {ok, Subscription}
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-doc "All subscriptions of a store.".
-spec list(Store :: atom()) -> {ok, [subscription()]} | {error, term()}.
list(Store) ->
    try
        erl_esdb_subscriptions_store:list(Store)
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-doc "Whether there is a subscription with this key; `false` also where the store cannot be asked.".
-spec exists(Store :: atom(), Key :: binary()) -> boolean().
exists(Store, Key) ->
    case get(Store, Key) of
        {ok, _} -> true;
        {error, _} -> false
    end.

-doc """
How far a subscription is: `position` up to which the log was read, `floor` it would go on from
after a crash, and what is held: of `queue` see `erl_esdb_backpressure:info/1`.
""".
-spec info(Store :: atom(), Key :: binary()) -> {ok, map()} | {error, not_found | term()}.
info(Store, Key) -> found(call(Store, Key, info)).

-doc "Makes a process one that is told of subscriptions: see `m:erl_esdb_tracker_group`.".
-spec setup_tracking(Store :: atom(), pid()) -> ok.
setup_tracking(Store, Pid) -> erl_esdb_tracker_group:join(Store, subscriptions, Pid).

%% ---- competing consumers

-doc """
Makes a process one of the consumers that share the events of a subscription with
`consumers => competing`.

It gets `{events, [Event]}` and says of each event what became of it: `ack/4` or `nack/5`. At most
`max_in_flight` (10) are with it at a time. Of a stream only one event is out at any time, and none
follows one that failed before that is done, skipped or parked; other streams go on. What a consumer
had when it ended goes to the others, and counts as an attempt that failed.
""".
-spec connect(Store :: atom(), Key :: binary(), pid(), #{max_in_flight => pos_integer()}) ->
    ok | {error, not_found | not_competing | term()}.
connect(Store, Key, Pid, Options) when is_pid(Pid), is_map(Options) ->
    case maps:get(max_in_flight, Options, 1) of
        Max when is_integer(Max), Max > 0 -> done(call(Store, Key, {connect, Pid, Options}));
        Max -> {error, {invalid_option, max_in_flight, Max}}
    end;
connect(_, _, _, _) ->
    error(badarg).

-doc "Ends what `connect/4` began. What the consumer had goes to the others.".
-spec disconnect(Store :: atom(), Key :: binary(), pid()) -> ok | {error, term()}.
disconnect(Store, Key, Pid) when is_pid(Pid) -> done(call(Store, Key, {disconnect, Pid}));
disconnect(_, _, _) -> error(badarg).

-doc """
A consumer could not handle these events, named by themselves, by position or id. They are

- `retry`: sent again, to any consumer, after the next of the `retry_delays`; after `max_retries`
  they are parked
- `park`: put aside until `replay_parked/2`
- `skip`: left out

Errors as of `ack/4`.
""".
-spec nack(
    Store :: atom(), Key :: binary(), pid(), [erl_esdb_competing:ref()], park | retry | skip
) -> ok | {error, term()}.
nack(Store, Key, Pid, Refs, How) when
    is_pid(Pid), is_list(Refs), How =:= park orelse How =:= retry orelse How =:= skip
->
    done(call(Store, Key, {settle, Pid, Refs, How}));
nack(_, _, _, _, _) ->
    error(badarg).

-doc "The events that were parked, in the order of their positions.".
-spec parked(Store :: atom(), Key :: binary()) ->
    {ok, [erl_esdb_consumers:parked()]} | {error, not_found | term()}.
parked(Store, Key) ->
    case get(Store, Key) of
        {ok, _} -> erl_esdb_consumers:parked(Store, Key);
        {error, Reason} -> {error, Reason}
    end.

-doc """
Sends the events that were parked again, after what is held of their streams. Answers how many. Each
stays parked until it is acknowledged or skipped.
""".
-spec replay_parked(Store :: atom(), Key :: binary()) ->
    {ok, non_neg_integer()} | {error, not_found | not_competing | term()}.
replay_parked(Store, Key) -> found(call(Store, Key, replay)).
