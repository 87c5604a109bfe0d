-module(erl_esdb_backpressure).
-moduledoc """
A bounded queue between what reads events and who takes them. Pure but for its telemetry.

```erlang
1> {ok, Q0} = erl_esdb_backpressure:new(#{max_queue => 2, strategy => drop_oldest}).
2> {ok, Q1} = erl_esdb_backpressure:enqueue_many(Q0, [a, b, c]).
3> {ok, [b, c], Q2} = erl_esdb_backpressure:dequeue_all(Q1).
4> #{dropped := 1} = erl_esdb_backpressure:info(Q2).
```

| option | default | |
|---|---|---|
| `max_queue` | 1000 | how many elements fit |
| `strategy` | `drop_oldest` | when it is full: `drop_oldest`, `drop_newest`, `block` or `error` |
| `mode` | `push` | `pull`: the taker says how many it wants |
| `warning_threshold` | 80 % of `max_queue` | from this size on each element warns |
| `store_id`, `subscription_key` | `undefined` | stand in the telemetry |

`[erl_esdb, subscription, backpressure, warning]` has `queue_size` and `max_size`,
`[erl_esdb, subscription, backpressure, dropped]` has `count`, and `strategy` in its metadata.
""".

-export([new/1, enqueue/2, enqueue_many/2, dequeue/2, dequeue_all/1, peek/1]).
-export([size/1, is_empty/1, is_full/1, info/1]).
-export([set_demand/2, add_demand/2, get_demand/1]).
-export_type([queue/0, queue/1, options/0, strategy/0, mode/0, demand/0]).

-include("erl_esdb_telemetry.hrl").

-define(MAX_QUEUE, 1000).

-type strategy() :: drop_oldest | drop_newest | block | error.
-type mode() :: push | pull.
-type demand() :: non_neg_integer() | infinity.
-type options() :: #{
    max_queue => pos_integer(),
    strategy => strategy(),
    mode => mode(),
    warning_threshold => non_neg_integer(),
    store_id => atom(),
    subscription_key => binary(),
    _ => _
}.

-record(queue, {
    items = queue:new() :: queue:queue(term()),
    size = 0 :: non_neg_integer(),
    max :: pos_integer(),
    strategy :: strategy(),
    mode :: mode(),
    threshold :: non_neg_integer(),
    demand :: demand(),
    dropped = 0 :: non_neg_integer(),
    metadata :: map()
}).

-opaque queue(_Element) :: #queue{}.
-type queue() :: queue(term()).

-doc "An empty queue. A value that cannot be raises `badarg`; other keys are ignored.".
-spec new(options()) -> {ok, queue()}.
new(Options) when is_map(Options) ->
    Max = option(max_queue, ?MAX_QUEUE, fun is_positive/1, Options),
    Mode = option(mode, push, fun(Value) -> lists:member(Value, [push, pull]) end, Options),
    {ok, #queue{
        max = Max,
        mode = Mode,
        strategy = option(strategy, drop_oldest, fun is_strategy/1, Options),
        threshold = option(warning_threshold, trunc(Max * 0.8), fun is_natural/1, Options),
        demand = no_demand(Mode),
        metadata = #{
            store_id => maps:get(store_id, Options, undefined),
            subscription_key => maps:get(subscription_key, Options, undefined)
        }
    }};
new(_) ->
    error(badarg).

-spec option(atom(), Default, fun((term()) -> boolean()), map()) -> term() | Default.
option(Key, Default, Good, Options) ->
    Value = maps:get(Key, Options, Default),
    Good(Value) orelse error(badarg),
    Value.

-spec is_positive(term()) -> boolean().
is_positive(Value) -> is_integer(Value) andalso Value > 0.

-spec is_natural(term()) -> boolean().
is_natural(Value) -> is_integer(Value) andalso Value >= 0.

-spec is_strategy(term()) -> boolean().
is_strategy(Value) -> lists:member(Value, [drop_oldest, drop_newest, block, error]).

-spec no_demand(mode()) -> demand().
no_demand(push) -> infinity;
no_demand(pull) -> 0.

-doc """
Puts an element at the end. In a full queue `drop_oldest` makes room at the front, `drop_newest`
leaves the element out, both with `ok`; `block` answers `blocked`, `error` answers `queue_full`.
""".
-spec enqueue(queue(E), E) -> {ok, queue(E)} | {error, queue_full | blocked}.
enqueue(#queue{size = Size, threshold = Threshold} = Queue, Element) ->
    Size >= Threshold andalso warn(Queue),
    case is_full(Queue) of
        false -> {ok, added(Queue, Element)};
        true -> overflow(Queue, Element)
    end;
enqueue(_, _) ->
    error(badarg).

-spec warn(queue()) -> ok.
warn(#queue{size = Size, max = Max, metadata = Metadata}) ->
    Measurements = #{queue_size => Size, max_size => Max},
    erl_esdb_telemetry:emit(?BACKPRESSURE_WARNING, Measurements, Metadata).

-spec added(queue(E), E) -> queue(E).
added(#queue{items = Items, size = Size} = Queue, Element) ->
    Queue#queue{items = queue:in(Element, Items), size = Size + 1}.

-spec overflow(queue(E), E) -> {ok, queue(E)} | {error, queue_full | blocked}.
overflow(#queue{strategy = drop_oldest, items = Items, size = Size} = Queue, Element) ->
    Shorter = Queue#queue{items = queue:drop(Items), size = Size - 1},
    {ok, added(dropped(Shorter), Element)};
overflow(#queue{strategy = drop_newest} = Queue, _Element) ->
    {ok, dropped(Queue)};
overflow(#queue{strategy = block}, _Element) ->
    {error, blocked};
overflow(#queue{strategy = error}, _Element) ->
    {error, queue_full}.

-spec dropped(queue(E)) -> queue(E).
dropped(#queue{dropped = Dropped, strategy = Strategy, metadata = Metadata} = Queue) ->
    erl_esdb_telemetry:emit(
        ?BACKPRESSURE_DROPPED, #{count => 1}, Metadata#{strategy => Strategy}
    ),
    Queue#queue{dropped = Dropped + 1}.

-doc "Puts elements at the end, one after the other, until one is refused.".
-spec enqueue_many(queue(E), [E]) -> {ok, queue(E)} | {error, queue_full | blocked}.
enqueue_many(Queue, [Element | Elements]) ->
    case enqueue(Queue, Element) of
        {ok, Queue1} -> enqueue_many(Queue1, Elements);
        {error, Reason} -> {error, Reason}
    end;
enqueue_many(Queue, []) ->
    {ok, Queue}.

-doc "Takes the first elements, at most so many, whatever the demand; it sinks by their number.".
-spec dequeue(queue(E), non_neg_integer()) -> {ok, [E], queue(E)}.
dequeue(#queue{items = Items, size = Size, demand = Demand} = Queue, Count) when
    is_integer(Count), Count >= 0
->
    Taken = min(Count, Size),
    {Front, Rest} = queue:split(Taken, Items),
    Queue1 = Queue#queue{items = Rest, size = Size - Taken, demand = less(Demand, Taken)},
    {ok, queue:to_list(Front), Queue1};
dequeue(_, _) ->
    error(badarg).

-spec less(demand(), non_neg_integer()) -> demand().
less(infinity, _) -> infinity;
less(Demand, Taken) -> max(0, Demand - Taken).

-doc "Takes all elements. A finite demand becomes 0.".
-spec dequeue_all(queue(E)) -> {ok, [E], queue(E)}.
dequeue_all(#queue{items = Items, mode = Mode} = Queue) ->
    Empty = Queue#queue{items = queue:new(), size = 0, demand = no_demand(Mode)},
    {ok, queue:to_list(Items), Empty};
dequeue_all(_) ->
    error(badarg).

-doc "The first element, which stays.".
-spec peek(queue(E)) -> {ok, E} | empty.
peek(#queue{size = 0}) -> empty;
peek(#queue{items = Items}) -> {ok, queue:get(Items)};
peek(_) ->
    error(badarg).

-doc "How many elements there are.".
-spec size(queue()) -> non_neg_integer().
size(#queue{size = Size}) -> Size;
size(_) ->
    error(badarg).

-doc "Whether there is none.".
-spec is_empty(queue()) -> boolean().
is_empty(#queue{size = Size}) -> Size =:= 0;
is_empty(_) ->
    error(badarg).

-doc "Whether no more fits.".
-spec is_full(queue()) -> boolean().
is_full(#queue{size = Size, max = Max}) -> Size >= Max;
is_full(_) ->
    error(badarg).

-doc "The state of the queue; `utilization` is 0.0 when it is empty and 1.0 when it is full.".
-spec info(queue()) ->
    #{
        size := non_neg_integer(),
        max_size := pos_integer(),
        strategy := strategy(),
        mode := mode(),
        warning_threshold := non_neg_integer(),
        demand := demand(),
        dropped := non_neg_integer(),
        is_full := boolean(),
        utilization := float()
    }.
info(#queue{size = Size, max = Max} = Queue) ->
    #{
        size => Size,
        max_size => Max,
        strategy => Queue#queue.strategy,
        mode => Queue#queue.mode,
        warning_threshold => Queue#queue.threshold,
        demand => Queue#queue.demand,
        dropped => Queue#queue.dropped,
        is_full => is_full(Queue),
        utilization => Size / Max
    };
info(_) ->
    error(badarg).

-doc "Sets the demand of a queue in mode `pull`; in mode `push` it is always `infinity`.".
-spec set_demand(queue(E), non_neg_integer()) -> queue(E).
set_demand(#queue{mode = pull} = Queue, Demand) when is_integer(Demand), Demand >= 0 ->
    Queue#queue{demand = Demand};
set_demand(#queue{mode = push} = Queue, Demand) when is_integer(Demand), Demand >= 0 ->
    Queue;
set_demand(_, _) ->
    error(badarg).

-doc "Adds to the demand of a queue in mode `pull`.".
-spec add_demand(queue(E), non_neg_integer()) -> queue(E).
add_demand(#queue{mode = pull, demand = Demand} = Queue, More) when
    is_integer(Demand), is_integer(More)
->
    set_demand(Queue, Demand + More);
add_demand(Queue, More) ->
    set_demand(Queue, More).

-doc "How many elements are wanted.".
-spec get_demand(queue()) -> demand().
get_demand(#queue{demand = Demand}) -> Demand;
get_demand(_) ->
    error(badarg).
