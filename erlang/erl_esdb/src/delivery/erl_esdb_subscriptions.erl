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

By default a process is sent events as long as fewer than `window` of them wait in its mailbox,
which can be seen on its own node only: one on another node should acknowledge. Then:

- `ack => manual`: of each process at most `window` events are out that are not acknowledged with
  `ack/4`. They come in the order of positions, whatever the `pool_size`.
- `mode => pull`: as many as were asked for with `demand/3`.
- `max_queue` events are read ahead. When they are not taken, the `strategy` decides: `block` (the
  default) reads no further, `drop_oldest` and `drop_newest` go on and leave events out, `error`
  sends the subscriber `{erl_esdb_subscription, Key, {error, queue_full}}` and stops until one is
  attached, or a handler joins.

## After a crash

Another process is attached with `attach/3`. It gets what the one before had not handled: with
`ack => manual` what was not acknowledged, else what was in its mailbox when it was looked at last,
and the message it was at. So the default loses nothing either, and repeats some. What a handler had
goes to the other handlers in the same way, or to who subscribed. Where mailboxes cannot be seen, as
on another node, the newest `window` messages of a process count as not handled; with a `pool_size`
above 1 also the last two of each emitter.

Who is replaced by another, or leaves the group, and is seen to live, takes along what it was sent.
With `ack => manual` the others get what it had not acknowledged.

After a crash of `erl_esdb_pg`, the process that knows the groups, handlers and trackers are to join
again; emitters and subscriptions do by themselves.

## Events that were changed

In a store that signs (`m:erl_esdb_integrity`) all events are verified before they are sent, those
of the past and new ones alike. Where one is not as it was written, nothing that was read with it is
sent. Who gets the events gets `{subscription_error, {integrity_violation, Details}}`, once, and
`info/2` says `halted`. The subscription stays, and tries again when a process is attached, joins as
a handler or connects as a consumer, or when the store is started again.

## Time

Every function that asks the store has a form with options, in which `timeout` is how many
milliseconds it may take, or `infinity`; by default what the store says (its option `timeout`). The
time is for the whole call where one process answers it, else for each look into the store. After
`{error, {timeout, Store}}` a change may have been made, or be made yet. `setup_tracking/2` asks
nobody who could be slow.
""".

-export([subscribe/4, subscribe/5, unsubscribe/2, unsubscribe/3, unsubscribe/4]).
-export([attach/3, attach/4, ack/4, ack/5, demand/3, demand/4, setup_tracking/2]).
-export([get/2, get/3, list/1, list/2, exists/2, exists/3, info/2, info/3]).
%% Competing consumers
-export([connect/4, disconnect/3, disconnect/4]).
-export([ack_events/4, ack_events/5, nack/5, nack/6]).
-export([parked/2, parked/3, replay_parked/2, replay_parked/3]).
-export([resume/2, acknowledged/2, subscribe_here/4, ack_here/6]).
-export_type([options/0, call_options/0]).

-include_lib("kernel/include/logger.hrl").
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
    decode => erl_esdb_json:codec(),
    timeout => timeout(),
    _ => _
}.
-doc "Of any call: how long it may take, in milliseconds.".
-type call_options() :: #{timeout => timeout(), _ => _}.

-doc "The same as `subscribe/5` without options.".
-spec subscribe(
    Store :: atom(), subscription_type(), erl_esdb_filters:selector(), Name :: binary()
) -> {ok, Key :: binary()} | {error, term()}.
subscribe(Store, Type, Selector, Name) -> subscribe(Store, Type, Selector, Name, #{}).

-doc """
Makes a subscription. Answers its key, which is made of type, selector and name
(`erl_esdb_subscriptions_store:key/3`); where another subscription has that key, it is another one.

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
| `decode` | `none` | `json` sends data that are JSON text as their value: `m:erl_esdb_json` |
| `timeout` | that of the store | of this call |

All options but `timeout` are kept in the subscription, also unknown ones, of which a line in the
log warns. No fun can be among them: none survives the store. A `start_from` beyond the end is the
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
    Kept = maps:remove(timeout, Options),
    maybe
        {ok, _} ?= compiled(Type, Selector),
        ok ?= check(Kept),
        Subscription = subscription(Type, erl_esdb_filters:stored(Selector), Name, Kept),
        Call = {?MODULE, subscribe_here, [Store, Subscription, self()]},
        {ok, Key} ?= erl_esdb_cluster:at_leader(Store, Call, maps:with([timeout], Options)),
        warn_unknown(Store, Key, Kept),
        created(Store, Subscription#subscription{id = Key}),
        {ok, Key}
    end;
subscribe(_, _, _, _, _) ->
    error(badarg).

-doc false.
%% On the node that leads, which knows where the end is.
-spec subscribe_here(atom(), subscription(), Caller :: pid(), call_options()) ->
    {ok, binary()} | {error, term()}.
subscribe_here(Store, Subscription, Caller, Options) ->
    maybe
        {ok, Until} ?= until(Store, Options),
        {ok, Next} ?= start(Store, Subscription, left(Until)),
        erl_esdb_subscription_manager:subscribe(
            Store, Subscription, Next, Caller, left(Until)
        )
    end.

-spec compiled(term(), term()) -> {ok, erl_esdb_filters:filter()} | {error, term()}.
compiled(Type, Selector) ->
    case erl_esdb_filters:compile(Type, Selector) of
        {ok, Filter} when not is_map(Selector) -> {ok, Filter};
        {ok, Filter} -> without_fun(Selector, {ok, Filter}, {error, {invalid_selector, Selector}});
        {error, Reason} -> {error, Reason}
    end.

-spec without_fun(term(), Good, Bad) -> Good | Bad.
without_fun(Term, Good, Bad) ->
    case has_fun(Term) of
        false -> Good;
        true -> Bad
    end.

-spec has_fun(term()) -> boolean().
has_fun([Head | Tail]) -> has_fun(Head) orelse has_fun(Tail);
has_fun(Tuple) when is_tuple(Tuple) -> has_fun(tuple_to_list(Tuple));
has_fun(Map) when is_map(Map) -> has_fun(maps:to_list(Map));
has_fun(Term) -> is_function(Term).

-spec until(atom(), call_options()) -> {ok, erl_esdb_store:deadline()} | {error, term()}.
until(Store, Options) ->
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        {ok, erl_esdb_store:deadline(Options, Settings)}
    end.

-spec left(erl_esdb_store:deadline()) -> call_options().
left(Until) -> #{timeout => erl_esdb_store:left(Until)}.

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

-spec check(options()) -> ok | {error, {invalid_option, term(), term()}}.
check(Options) ->
    Wrong = [{Key, Value} || Key := Value <- Options, not is_option(Key, Value)],
    case lists:sort(Wrong) of
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}};
        [] -> ok
    end.

-spec is_option(term(), term()) -> boolean().
is_option(Key, Value) ->
    case tests() of
        #{Key := Is} -> Is(Value);
        #{} -> not has_fun({Key, Value})
    end.

-spec tests() -> #{atom() => fun((term()) -> boolean())}.
tests() ->
    Positive = fun(Value) -> is_integer(Value) andalso Value > 0 end,
    Natural = fun(Value) -> is_integer(Value) andalso Value >= 0 end,
    #{
        subscriber => fun erlang:is_pid/1,
        subscription_name => fun erlang:is_binary/1,
        start_from => fun(Value) -> Value =:= latest orelse Natural(Value) end,
        pool_size => Positive,
        batch => Positive,
        ack => one_of([auto, manual]),
        window => Positive,
        mode => one_of([push, pull]),
        max_queue => Positive,
        strategy => one_of([drop_oldest, drop_newest, block, error]),
        warning_threshold => Natural,
        consumers => one_of([competing]),
        max_retries => Natural,
        retry_delays => fun(Value) -> is_delays(Value, Positive) end,
        decode => one_of([json, none])
    }.

-spec warn_unknown(atom(), binary(), options()) -> ok.
warn_unknown(Store, Key, Options) ->
    case maps:keys(maps:without(maps:keys(tests()), Options)) of
        [] ->
            ok;
        Unknown ->
            ?LOG_WARNING("store ~tp: subscription ~ts: unknown options ~tp", [Store, Key, Unknown])
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
-spec start(atom(), subscription(), call_options()) -> {ok, non_neg_integer()} | {error, term()}.
start(Store, #subscription{options = Options} = Subscription, Timeout) ->
    maybe
        {ok, End} ?= erl_esdb_store:next_position(Store, Timeout),
        case maps:get(start_from, Options, 0) of
            latest -> {ok, End};
            0 -> {ok, 0};
            From -> start(Store, stream(Subscription), From, End, Timeout)
        end
    end.

-spec start(atom(), {ok, binary()} | any, non_neg_integer(), non_neg_integer(), call_options()) ->
    {ok, non_neg_integer()} | {error, term()}.
start(Store, {ok, Stream}, Version, End, Timeout) ->
    erl_esdb_cursor:first_position(Store, Stream, Version, End, Timeout);
start(_Store, any, Position, End, _Timeout) ->
    {ok, min(Position, End)}.

-spec stream(subscription()) -> {ok, binary()} | any.
stream(#subscription{type = stream, selector = Stream}) when Stream =/= <<"$all">> -> {ok, Stream};
stream(#subscription{}) -> any.

-doc false.
%% The place to go on from: what was saved, or the beginning.
-spec resume(atom(), subscription()) -> {ok, erl_esdb_outbox:place()} | {error, term()}.
resume(Store, #subscription{id = Key} = Subscription) ->
    case erl_esdb_checkpoints:get(Store, erl_esdb_subscriptions_store:next_key(Key)) of
        {ok, Place} -> {ok, Place};
        {error, not_found} -> start(Store, Subscription, #{});
        {error, Reason} -> {error, Reason}
    end.

-doc false.
-spec acknowledged(atom(), binary()) -> {ok, non_neg_integer() | undefined} | {error, term()}.
acknowledged(Store, Key) ->
    case erl_esdb_store:checkpoint(Store, erl_esdb_subscriptions_store:acknowledged_key(Key)) of
        {ok, {_Number, Position}} -> {ok, Position};
        {error, not_found} -> {ok, undefined};
        {error, Reason} -> {error, Reason}
    end.

-doc "The same as `unsubscribe/3` without options.".
-spec unsubscribe(Store :: atom(), Key :: binary()) -> ok | {error, not_found | term()}.
unsubscribe(Store, Key) -> unsubscribe(Store, Key, #{}).

-doc """
Removes a subscription. When it returns, nothing more is sent.

`unsubscribe(Store, Key, Options)` removes that with the key, `unsubscribe(Store, Type, Name)` the
first one of a type and name, as `unsubscribe/4` does.

Telemetry: `[erl_esdb, subscription, deleted]`. Errors: `not_found` and the failures of a store.
""".
-spec unsubscribe(Store :: atom(), Key :: binary(), call_options()) ->
                     ok | {error, not_found | term()};
                 (Store :: atom(), subscription_type(), Name :: binary()) ->
                     ok | {error, not_found | term()}.
unsubscribe(Store, Key, Options) when is_atom(Store), is_binary(Key), is_map(Options) ->
    case erl_esdb_subscription_manager:unsubscribe(Store, Key, Options) of
        {ok, Subscription} -> deleted(Store, Subscription);
        {error, Reason} -> {error, Reason}
    end;
unsubscribe(Store, Type, Name) ->
    unsubscribe(Store, Type, Name, #{}).

-doc "Removes the first subscription of a type and name. Errors as `unsubscribe/3`.".
-spec unsubscribe(Store :: atom(), subscription_type(), Name :: binary(), call_options()) ->
    ok | {error, not_found | term()}.
unsubscribe(Store, Type, Name, Options) when
    is_atom(Store), is_atom(Type), is_binary(Name), is_map(Options)
->
    IsOf = fun(#subscription{type = T}) -> T =:= Type end,
    maybe
        {ok, Until} ?= until(Store, Options),
        {ok, Key, _} ?= found_first(Store, {Name, IsOf}, left(Until)),
        unsubscribe(Store, Key, left(Until))
    end;
unsubscribe(_, _, _, _) ->
    error(badarg).

-spec found_first(atom(), {binary(), fun((subscription()) -> boolean())}, call_options()) ->
    {ok, binary(), subscription()} | {error, term()}.
found_first(Store, Wanted, Options) ->
    try
        erl_esdb_subscriptions_store:find(Store, Wanted, Options)
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-spec deleted(atom(), subscription()) -> ok.
deleted(Store, #subscription{id = Key} = Subscription) ->
    Metadata = #{store_id => Store, subscription_id => Key},
    ok = erl_esdb_telemetry:emit(?SUBSCRIPTION_DELETED, now_ms(), Metadata),
    erl_esdb_tracker_group:notify_deleted(Store, subscriptions, Subscription).

-doc "The same as `attach/4` without options.".
-spec attach(Store :: atom(), Key :: binary(), pid()) -> ok | {error, not_found | term()}.
attach(Store, Key, Pid) -> attach(Store, Key, Pid, #{}).

-doc """
Makes a process the subscriber, in place of who took the events before. It gets
`{events, [Event]}`, from these on:

- with `ack => manual`, what was not acknowledged;
- where the one before is dead, or on another node, what it has not handled;
- else what was not sent to it. It may still be sent what is being read just now.

Errors: `not_found`, `competing` (consumers connect: `connect/4`) and the failures of a store.
""".
-spec attach(Store :: atom(), Key :: binary(), pid(), call_options()) ->
    ok | {error, not_found | competing | term()}.
attach(Store, Key, Pid, Options) when
    is_atom(Store), is_binary(Key), is_pid(Pid), is_map(Options)
->
    case erl_esdb_subscription_manager:attach(Store, Key, Pid, Options) of
        {ok, Subscription} ->
            erl_esdb_tracker_group:notify_updated(Store, subscriptions, Subscription);
        {error, Reason} ->
            {error, Reason}
    end;
attach(_, _, _, _) ->
    error(badarg).

-doc "The same as `ack/5` without options.".
-spec ack(atom(), Name :: binary(), Stream :: binary() | undefined, non_neg_integer()) ->
    ok | {error, term()}.
ack(Store, Name, Stream, Number) -> ack(Store, Name, Stream, Number, #{}).

-doc """
Acknowledges all events of a subscription up to one. Competing consumers acknowledge single ones:
`ack_events/4`.

The number is a version, of the stream of the subscription, or of the stream given; with `undefined`
it is a position. It becomes the `checkpoint` of the subscription as it stands; of two subscriptions
with one name it is the first one's. The last word counts, also one that goes back: from there
delivery goes on after a crash. Telemetry: `[erl_esdb, subscription, checkpoint]`.

Where handlers take the events, each acknowledges, from its own process, what itself was sent up to
this event; another process acknowledges this one event for them. Here no word goes back. A handler
speaks of what itself was sent also while a subscriber takes all events, and after it has left.
Where the process of the subscription began again, here or on another node that leads since, it
sends again what is not acknowledged, and a word of what handlers were sent before then is of that
one event.

Errors: `{subscription_not_found, Name}` and the failures of a store.
""".
-spec ack(
    atom(), Name :: binary(), Stream :: binary() | undefined, non_neg_integer(), call_options()
) -> ok | {error, {subscription_not_found, binary()} | term()}.
ack(Store, Name, Stream, Number, Options) when
    is_atom(Store),
    is_binary(Name),
    is_integer(Number),
    Number >= 0,
    is_binary(Stream) orelse Stream =:= undefined,
    is_map(Options)
->
    Call = {?MODULE, ack_here, [Store, Name, Stream, Number, self()]},
    case erl_esdb_cluster:at_leader(Store, Call, maps:with([timeout], Options)) of
        {ok, Key} ->
            Metadata = #{store_id => Store, subscription_id => Key, subscription_name => Name},
            erl_esdb_telemetry:emit(?SUBSCRIPTION_CHECKPOINT, #{position => Number}, Metadata);
        {error, Reason} ->
            {error, Reason}
    end;
ack(_, _, _, _, _) ->
    error(badarg).

-doc false.
%% On the node that leads, which knows where what it has sent stands.
-spec ack_here(
    atom(), binary(), binary() | undefined, non_neg_integer(), By :: pid(), call_options()
) -> {ok, Key :: binary()} | {error, {subscription_not_found, binary()} | term()}.
ack_here(Store, Name, Stream, Number, By, Options) ->
    maybe
        ok ?= erl_esdb_cluster:check_leading(Store),
        {ok, Until} ?= until(Store, Options),
        {ok, Key, Subscription} ?= found_first(Store, {Name, fun(_) -> true end}, left(Until)),
        ok ?= acknowledge(Store, {Key, Subscription}, {Stream, Number}, By, Until),
        {ok, Key}
    else
        {error, not_found} -> {error, {subscription_not_found, Name}};
        {error, Reason} -> {error, Reason}
    end.

-spec acknowledge(
    atom(),
    {binary(), subscription()},
    {binary() | undefined, non_neg_integer()},
    pid(),
    erl_esdb_store:deadline()
) -> ok | {error, term()}.
acknowledge(Store, {Key, S}, {Stream, Number}, By, Until) ->
    maybe
        {ok, Position} ?= acknowledged_position(Store, S, Stream, Number, left(Until)),
        AckKey = erl_esdb_subscriptions_store:acknowledged_key(Key),
        {ok, Said} ?= said(Store, {Key, S}, Position, By, left(Until)),
        ok ?= erl_esdb_checkpoints:put(Store, #{AckKey => {Number, Said}}, left(Until)),
        Event = acknowledged_event(S, Stream, Number, Position),
        pass_on(Store, Key, {Event, Position, By}, left(Until))
    end.

%% Of what handlers have only the process of the subscription knows what is not handled.
-spec said(atom(), {binary(), subscription()}, Position, By :: pid(), call_options()) ->
    {ok, Position} | {error, term()}
when
    Position :: non_neg_integer() | undefined.
said(_Store, _Subscription, undefined, _By, _Options) ->
    {ok, undefined};
said(Store, {Key, #subscription{options = #{ack := manual}}}, Position, By, Options) ->
    case is_of_all(Store, Key, By, Options) of
        {ok, true} -> {ok, Position};
        {ok, false} -> {ok, undefined};
        {error, Reason} -> {error, Reason}
    end;
said(_Store, _Subscription, Position, _By, _Options) ->
    {ok, Position}.

%% Whether a process speaks of all events up to one: no handler has any, and it was none, also under
%% another node that led: what it says then is of what it was sent, and others had events besides.
-spec is_of_all(atom(), binary(), pid(), call_options()) -> {ok, boolean()} | {error, term()}.
is_of_all(Store, Key, By, Options) ->
    case erl_esdb_emitter_group:handlers(Store, Key) of
        [] -> was_no_handler(By, erl_esdb_delivery:handlers(Store, Key, Options));
        [_ | _] -> {ok, false}
    end.

-spec was_no_handler(pid(), {ok, [pid()]} | {error, term()}) -> {ok, boolean()} | {error, term()}.
was_no_handler(By, {ok, Handlers}) -> {ok, not lists:member(By, Handlers)};
was_no_handler(_By, {error, Reason}) -> {error, Reason}.

-spec acknowledged_event(subscription(), binary() | undefined, non_neg_integer(), Position) ->
    erl_esdb_outbox:name() | undefined
when
    Position :: non_neg_integer() | undefined.
acknowledged_event(#subscription{options = #{consumers := competing}}, _, _, _) ->
    undefined;
acknowledged_event(Subscription, Stream, Number, Position) ->
    case version_of(stream(Subscription), Stream) of
        {ok, Named} -> {Named, Number};
        any -> Position
    end.

%% What competing consumers have done, each of them says of each event.
-spec acknowledged_position(
    atom(), subscription(), binary() | undefined, non_neg_integer(), call_options()
) -> {ok, non_neg_integer() | undefined} | {error, term()}.
acknowledged_position(_, #subscription{options = #{consumers := competing}}, _, _, _) ->
    {ok, undefined};
acknowledged_position(Store, Subscription, Stream, Number, Options) ->
    position(Store, version_of(stream(Subscription), Stream), Number, Options).

-spec version_of({ok, binary()} | any, binary() | undefined) -> {ok, binary()} | any.
version_of({ok, Stream}, _) -> {ok, Stream};
version_of(any, undefined) -> any;
version_of(any, <<"$all">>) -> any;
version_of(any, Stream) -> {ok, Stream}.

%% Of an event that does not exist, that of the last one before what comes after it.
-spec position(atom(), {ok, binary()} | any, non_neg_integer(), call_options()) ->
    {ok, non_neg_integer() | undefined} | {error, term()}.
position(Store, Stream, Number, Options) ->
    case erl_esdb_store:next_position(Store, Options) of
        {ok, End} -> position(Store, Stream, Number, End, Options);
        {error, Reason} -> {error, Reason}
    end.

-spec position(
    atom(), {ok, binary()} | any, non_neg_integer(), End :: non_neg_integer(), call_options()
) -> {ok, non_neg_integer() | undefined} | {error, term()}.
position(_Store, _, _Number, 0, _Options) ->
    {ok, undefined};
position(_Store, any, Number, End, _Options) ->
    {ok, min(Number, End - 1)};
position(Store, {ok, Stream}, Version, End, Options) ->
    case erl_esdb_store:read(Store, Stream, Version, 1, forward, Options) of
        {ok, [#event{position = Position}]} -> {ok, Position};
        {error, {stream_not_found, _}} -> {ok, undefined};
        {ok, []} -> before(erl_esdb_cursor:first_position(Store, Stream, Version, End, Options));
        {error, Reason} -> {error, Reason}
    end.

-spec before({ok, non_neg_integer()} | {error, term()}) ->
    {ok, non_neg_integer() | undefined} | {error, term()}.
before({ok, 0}) -> {ok, undefined};
before({ok, Position}) -> {ok, Position - 1};
before({error, Reason}) -> {error, Reason}.

%% The process saves the place. Without one it is saved here, but where handlers may be behind.
-spec pass_on(atom(), binary(), {Event, Position, By :: pid()}, call_options()) ->
    ok | {error, term()}
when
    Event :: erl_esdb_outbox:name() | undefined, Position :: non_neg_integer() | undefined.
pass_on(_Store, _Key, {undefined, _, _}, _Options) ->
    ok;
pass_on(Store, Key, {Event, Position, By}, Options) ->
    case erl_esdb_delivery:pid(Store, subscription, Key) of
        {ok, Pid} -> gen_server:cast(Pid, {acknowledged, Event, Position, By});
        {error, _} -> save_place(Store, Key, Position, By, Options)
    end.

-spec save_place(atom(), binary(), non_neg_integer() | undefined, pid(), call_options()) ->
    ok | {error, term()}.
save_place(_Store, _Key, undefined, _By, _Options) ->
    ok;
save_place(Store, Key, Position, By, Options) ->
    case is_of_all(Store, Key, By, Options) of
        {ok, true} ->
            NextKey = erl_esdb_subscriptions_store:next_key(Key),
            erl_esdb_checkpoints:put(Store, #{NextKey => Position + 1}, Options);
        {ok, false} ->
            ok;
        {error, Reason} ->
            {error, Reason}
    end.

-doc "The same as `demand/4` without options.".
-spec demand(Store :: atom(), Key :: binary(), non_neg_integer()) -> ok | {error, term()}.
demand(Store, Key, Count) -> demand(Store, Key, Count, #{}).

-doc """
Asks for so many more events, of a subscription with `mode => pull`. What was asked for and has not
come goes to who takes the events next. It is forgotten where a process ends, or is replaced on
another node, that took all of them and no handler is there; where the subscription stops for an
error; and where its process begins anew.

Errors: `not_found`, `competing`, `{not_running, Key}` (the subscription is there, and its process
is about to begin again) and the failures of a store.
""".
-spec demand(Store :: atom(), Key :: binary(), non_neg_integer(), call_options()) ->
    ok | {error, not_found | competing | {not_running, binary()} | term()}.
demand(Store, Key, Count, Options) when is_integer(Count), Count >= 0 ->
    done(call(Store, Key, {demand, Count}, Options));
demand(_, _, _, _) ->
    error(badarg).

-spec call(atom(), binary(), term(), call_options()) -> ok | {ok, term()} | {error, term()}.
call(Store, Key, Request, Options) when is_atom(Store), is_binary(Key), is_map(Options) ->
    case erl_esdb_delivery:call_leader(Store, subscription, Key, Request, Options) of
        {error, Why} when Why =:= not_found; Why =:= {store_not_started, Store} ->
            {error, missing(get(Store, Key, Options), Key)};
        Answer ->
            Answer
    end;
call(_, _, _, _) ->
    error(badarg).

%% Why there is no process that answers.
-spec missing({ok, subscription()} | {error, Reason}, binary()) -> {not_running, binary()} | Reason.
missing({ok, _}, Key) -> {not_running, Key};
missing({error, Reason}, _Key) -> Reason.

-spec done(ok | {error, Reason}) -> ok | {error, Reason}.
done(ok) -> ok;
done({error, Reason}) -> {error, Reason}.

-spec found({ok, Found} | {error, Reason}) -> {ok, Found} | {error, Reason}.
found({ok, Found}) -> {ok, Found};
found({error, Reason}) -> {error, Reason}.

-doc "The same as `get/3` without options.".
-spec get(Store :: atom(), Key :: binary()) -> {ok, subscription()} | {error, not_found | term()}.
get(Store, Key) -> get(Store, Key, #{}).

-doc "The subscription with this key.".
-spec get(Store :: atom(), Key :: binary(), call_options()) ->
    {ok, subscription()} | {error, not_found | term()}.
get(Store, Key, Options) ->
    try erl_esdb_subscriptions_store:get(Store, Key, Options) of
        undefined -> {error, not_found};
        Subscription -> {ok, Subscription}
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-doc "The same as `list/2` without options.".
-spec list(Store :: atom()) -> {ok, [subscription()]} | {error, term()}.
list(Store) -> list(Store, #{}).

-doc "All subscriptions of a store, in the order of their keys.".
-spec list(Store :: atom(), call_options()) -> {ok, [subscription()]} | {error, term()}.
list(Store, Options) ->
    try
        erl_esdb_subscriptions_store:list(Store, Options)
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

-doc "The same as `exists/3` without options.".
-spec exists(Store :: atom(), Key :: binary()) -> boolean().
exists(Store, Key) -> exists(Store, Key, #{}).

-doc "Whether there is a subscription with this key; `false` also where the store cannot be asked.".
-spec exists(Store :: atom(), Key :: binary(), call_options()) -> boolean().
exists(Store, Key, Options) ->
    case get(Store, Key, Options) of
        {ok, _} -> true;
        {error, _} -> false
    end.

-doc "The same as `info/3` without options.".
-spec info(Store :: atom(), Key :: binary()) -> {ok, map()} | {error, not_found | term()}.
info(Store, Key) -> info(Store, Key, #{}).

-doc """
How far a subscription is: `status` (`running` or `{halted, Reason}`), `position` up to which the
log was read, `floor`, the first position that is not handled, and what is held: of `queue` see
`erl_esdb_backpressure:info/1`. Errors as `demand/4`.
""".
-spec info(Store :: atom(), Key :: binary(), call_options()) ->
    {ok, map()} | {error, not_found | {not_running, binary()} | term()}.
info(Store, Key, Options) -> found(call(Store, Key, info, Options)).

-doc "Makes a process one that is told of subscriptions: see `m:erl_esdb_tracker_group`.".
-spec setup_tracking(Store :: atom(), pid()) -> ok.
setup_tracking(Store, Pid) -> erl_esdb_tracker_group:join(Store, subscriptions, Pid).

%% ---- competing consumers

-doc """
Makes a process one of the consumers that share the events of a subscription with
`consumers => competing`.

It gets `{events, [Event]}` and says of each event what became of it: `ack_events/4` or `nack/5`. At
most `max_in_flight` (10) are with it at a time. Of a stream only one event is out at any time, and
none follows one that failed before that is done, skipped or parked; other streams go on. What a
consumer had when it ended goes to the others, and counts as an attempt that failed.

How often an event was tried is known as long as the process of the subscription lives: after its
crash, or a restart of the store, counting begins again.

Options: `max_in_flight`, and `timeout` of this call. Errors: `not_competing`, and those of
`demand/4`.
""".
-spec connect(Store :: atom(), Key :: binary(), pid(), #{
    max_in_flight => pos_integer(), timeout => timeout(), _ => _
}) -> ok | {error, not_found | not_competing | term()}.
connect(Store, Key, Pid, Options) when is_pid(Pid), is_map(Options) ->
    case maps:get(max_in_flight, Options, 1) of
        Max when is_integer(Max), Max > 0 ->
            done(call(Store, Key, {connect, Pid, maps:remove(timeout, Options)}, Options));
        Max ->
            {error, {invalid_option, max_in_flight, Max}}
    end;
connect(_, _, _, _) ->
    error(badarg).

-doc "The same as `disconnect/4` without options.".
-spec disconnect(Store :: atom(), Key :: binary(), pid()) -> ok | {error, term()}.
disconnect(Store, Key, Pid) -> disconnect(Store, Key, Pid, #{}).

-doc "Ends what `connect/4` began. What the consumer had goes to the others.".
-spec disconnect(Store :: atom(), Key :: binary(), pid(), call_options()) -> ok | {error, term()}.
disconnect(Store, Key, Pid, Options) when is_pid(Pid) ->
    done(call(Store, Key, {disconnect, Pid}, Options));
disconnect(_, _, _, _) ->
    error(badarg).

-doc "The same as `ack_events/5` without options.".
-spec ack_events(Store :: atom(), Key :: binary(), pid(), [erl_esdb_competing:ref()]) ->
    ok | {error, term()}.
ack_events(Store, Key, Pid, Refs) -> ack_events(Store, Key, Pid, Refs, #{}).

-doc """
A competing consumer has handled these events, named by themselves, by position or id.

Errors: `{not_in_flight, [Ref]}` (the others were acknowledged), `not_competing`, and those of
`demand/4`.
""".
-spec ack_events(
    Store :: atom(), Key :: binary(), pid(), [erl_esdb_competing:ref()], call_options()
) -> ok | {error, {not_in_flight, [erl_esdb_competing:ref()]} | not_competing | term()}.
ack_events(Store, Key, Pid, Refs, Options) -> settle(Store, Key, Pid, Refs, ack, Options).

-doc "The same as `nack/6` without options.".
-spec nack(
    Store :: atom(), Key :: binary(), pid(), [erl_esdb_competing:ref()], park | retry | skip
) -> ok | {error, term()}.
nack(Store, Key, Pid, Refs, How) -> nack(Store, Key, Pid, Refs, How, #{}).

-doc """
A competing consumer could not handle these events, named by themselves, by position or id. They are

- `retry`: sent again, to any consumer, after the next of the `retry_delays`; after `max_retries`
  they are parked
- `park`: put aside until `replay_parked/2`
- `skip`: left out

Errors as of `ack_events/5`.
""".
-spec nack(
    Store :: atom(),
    Key :: binary(),
    pid(),
    [erl_esdb_competing:ref()],
    park | retry | skip,
    call_options()
) -> ok | {error, term()}.
nack(Store, Key, Pid, Refs, How, Options) when How =:= park; How =:= retry; How =:= skip ->
    settle(Store, Key, Pid, Refs, How, Options);
nack(_, _, _, _, _, _) ->
    error(badarg).

-spec settle(
    atom(),
    binary(),
    pid(),
    [erl_esdb_competing:ref()],
    ack | park | retry | skip,
    call_options()
) -> ok | {error, term()}.
settle(Store, Key, Pid, Refs, How, Options) when is_pid(Pid) ->
    are_refs(Refs) orelse error(badarg),
    done(call(Store, Key, {settle, Pid, Refs, How}, Options));
settle(_, _, _, _, _, _) ->
    error(badarg).

-spec are_refs(term()) -> boolean().
are_refs([Ref | Refs]) -> is_ref(Ref) andalso are_refs(Refs);
are_refs(Rest) -> Rest =:= [].

-spec is_ref(term()) -> boolean().
is_ref(#event{position = Position}) -> is_integer(Position);
is_ref(Ref) -> is_binary(Ref) orelse (is_integer(Ref) andalso Ref >= 0).

-doc "The same as `parked/3` without options.".
-spec parked(Store :: atom(), Key :: binary()) ->
    {ok, [erl_esdb_consumers:parked()]} | {error, not_found | term()}.
parked(Store, Key) -> parked(Store, Key, #{}).

-doc """
The events that were parked, in the order of their positions: at most `limit` (1000), `from` a
position on (0).
""".
-spec parked(Store :: atom(), Key :: binary(), erl_esdb_consumers:parked_options()) ->
    {ok, [erl_esdb_consumers:parked()]}
    | {error, not_found | {invalid_option, atom(), term()} | term()}.
parked(Store, Key, Options) when is_atom(Store), is_binary(Key), is_map(Options) ->
    maybe
        ok ?= check_parked(Options),
        {ok, _} ?= get(Store, Key, maps:with([timeout], Options)),
        erl_esdb_consumers:parked(Store, Key, Options)
    end;
parked(_, _, _) ->
    error(badarg).

-spec check_parked(map()) -> ok | {error, {invalid_option, atom(), term()}}.
check_parked(#{limit := Limit}) when not (is_integer(Limit) andalso Limit > 0) ->
    {error, {invalid_option, limit, Limit}};
check_parked(#{from := From}) when not (is_integer(From) andalso From >= 0) ->
    {error, {invalid_option, from, From}};
check_parked(#{}) ->
    ok.

-doc "The same as `replay_parked/3` without options.".
-spec replay_parked(Store :: atom(), Key :: binary()) -> {ok, non_neg_integer()} | {error, term()}.
replay_parked(Store, Key) -> replay_parked(Store, Key, #{}).

-doc """
Sends events that were parked again, after what is held of their streams: at most `limit` (1000),
`from` a position on (0). Answers how many go out, or were on their way already. Each stays parked
until it is acknowledged or skipped. One that was removed from its stream meanwhile is forgotten.

Errors: `not_competing`, `{invalid_option, Key, Value}`, and those of `demand/4`.
""".
-spec replay_parked(Store :: atom(), Key :: binary(), erl_esdb_consumers:parked_options()) ->
    {ok, non_neg_integer()} | {error, not_found | not_competing | term()}.
replay_parked(Store, Key, Options) when is_map(Options) ->
    case check_parked(Options) of
        ok -> found(call(Store, Key, {replay, maps:with([from, limit], Options)}, Options));
        {error, Reason} -> {error, Reason}
    end;
replay_parked(_, _, _) ->
    error(badarg).
