-module(erl_esdb_load).
-moduledoc """
Clients that ask a store for anything, and write down what they were answered.

```erlang
1> History = erl_esdb_history:new().
2> Targets = fun() -> [{node(), fun erlang:apply/3}] end.
3> erl_esdb_load:run(#{history => History, store => shop, targets => Targets, seed => 42}).
```

Each of the `clients` does so many `operations` and ends. What it draws depends on the seed and its
number alone; what it is answered does not. The streams are few, so that appends are refused often,
and appends, reads, truncations and deletions meet.

An append whose outcome is unknown is sent again, with the same events, to whichever node is drawn:
a store recognises it. Truncations and deletions are not sent again.

`follow/2` keeps a subscription and writes down what it delivers, through crashes:
`m:erl_esdb_subscriber`.
""".

-export([run/1, weights/0, follow/2, awaited/3, unfollow/1]).
-export_type([load/0, target/0, follower/0]).

-include("../include/erl_esdb.hrl").
-include("erl_esdb_history.hrl").

-doc "A node, as it stands in the history, and the way to call it.".
-type target() :: {Node :: term(), erl_esdb_history:via()}.
-doc """
`name`: of this load among others on one store. `targets`: who can be asked now. `operations`: of
each client. `stop`: clients end when the first of these atomics is not 0.
""".
-type load() :: #{
    history := erl_esdb_history:history(),
    store := atom(),
    targets := fun(() -> [target()]),
    seed := integer(),
    name => binary(),
    clients => pos_integer(),
    operations => pos_integer(),
    streams => pos_integer(),
    weights => #{atom() => non_neg_integer()},
    retries => non_neg_integer(),
    stop => atomics:atomics_ref()
}.
-opaque follower() :: pid().

%% What a client knows: versions of streams, and a position.
-record(client, {
    load :: load(),
    number :: pos_integer(),
    versions = #{} :: #{binary() => integer()},
    position = -1 :: integer()
}).

%% Milliseconds until somebody who could not be asked is asked again, and that a subscriber waits.
-define(PAUSE, 20).
-define(WAIT, 100).
-define(DEFAULTS, #{
    name => ~"load", clients => 6, operations => 100, streams => 4, weights => #{}, retries => 8
}).

-doc "How often each operation is drawn.".
-spec weights() -> #{atom() => non_neg_integer()}.
weights() ->
    #{
        append_exact => 1500,
        append_any => 600,
        append_first => 50,
        append_many => 300,
        append_if => 400,
        read => 1200,
        read_log => 400,
        truncate => 30,
        tombstone => 2,
        delete => 3,
        put => 200,
        forget => 50,
        get => 200
    }.

-doc "Runs the load to its end, and answers how many calls had which outcome.".
-spec run(load()) -> #{ok | refused | unknown => non_neg_integer()}.
run(Given) ->
    #{weights := Weights, clients := Clients} = Load = maps:merge(?DEFAULTS, Given),
    Load1 = Load#{weights := maps:to_list(maps:merge(weights(), Weights))},
    Outcomes = erl_esdb_test:concurrently([
        fun() -> client(Load1, Number) end
     || Number <- lists:seq(1, Clients)
    ]),
    lists:foldl(fun add/2, #{}, Outcomes).

-spec add(map(), map()) -> map().
add(A, B) -> maps:merge_with(fun(_, X, Y) -> X + Y end, A, B).

-spec client(load(), pos_integer()) -> map().
client(#{seed := Seed, operations := Operations} = Load, Number) ->
    _ = rand:seed(exsss, {Seed, Number, 17}),
    client(#client{load = Load, number = Number}, Operations, #{}).

-spec client(#client{}, non_neg_integer(), map()) -> map().
client(_Client, 0, Outcomes) ->
    Outcomes;
client(#client{load = Load} = Client, Left, Outcomes) ->
    case is_stopped(Load) of
        true ->
            Outcomes;
        false ->
            Request = request(drawn(maps:get(weights, Load)), Client, Left),
            {Result, Tries} = asked(Client, Request, retries(Request, Load)),
            client(learned(Request, Result, Client), Left - 1, add(Tries, Outcomes))
    end.

-spec is_stopped(load()) -> boolean().
is_stopped(#{stop := Stop}) -> atomics:get(Stop, 1) =/= 0;
is_stopped(#{}) -> false.

-spec retries(erl_esdb_history:request(), load()) -> non_neg_integer().
retries({append, _, _}, #{retries := Retries}) -> Retries;
retries(_, _) -> 0.

%% ---- asking

-spec asked(#client{}, erl_esdb_history:request(), non_neg_integer()) -> {term(), map()}.
asked(#client{load = #{targets := Targets} = Load} = Client, Request, Retries) ->
    case Targets() of
        [] ->
            ok = pause(),
            again(Client, Request, Retries, none, #{});
        Some ->
            {Node, Via} = one_of(Some),
            #{history := History, store := Store} = Load,
            Who = {Client#client.number, Node},
            Result = erl_esdb_history:call(History, Who, Request, Store, Via),
            judged(Client, Request, Retries, Result)
    end.

-spec judged(#client{}, erl_esdb_history:request(), non_neg_integer(), term()) -> {term(), map()}.
judged(Client, Request, Retries, Result) ->
    case kind(Result, maps:get(store, Client#client.load)) of
        unknown ->
            ok = pause(),
            again(Client, Request, Retries, Result, #{unknown => 1});
        Kind ->
            {Result, #{Kind => 1}}
    end.

-spec again(#client{}, erl_esdb_history:request(), non_neg_integer(), term(), map()) ->
    {term(), map()}.
again(Client, Request, Retries, Result, Tries) ->
    case Retries =:= 0 orelse is_stopped(Client#client.load) of
        true ->
            {Result, Tries};
        false ->
            {Last, More} = asked(Client, Request, Retries - 1),
            {Last, add(Tries, More)}
    end.

-spec kind(term(), atom()) -> ok | refused | unknown.
kind({unreachable, _}, _Store) -> unknown;
kind({error, {timeout, Store}}, Store) -> unknown;
kind({error, {no_quorum, Store}}, Store) -> unknown;
kind({error, {store_not_started, Store}}, Store) -> unknown;
kind({error, _}, _Store) -> refused;
kind(_, _Store) -> ok.

%% What cannot be asked is not asked at once again.
-spec pause() -> ok.
pause() ->
    receive
    after ?PAUSE -> ok
    end.

-spec learned(erl_esdb_history:request(), term(), #client{}) -> #client{}.
learned({append, [{Stream, _, _}], _}, {ok, #append_result{} = Result}, Client) ->
    knows(Stream, Result, Client);
learned({append, _, _}, {ok, #{} = Results}, Client) ->
    maps:fold(fun knows/3, Client, Results);
learned({append, [{Stream, _, _}], _}, {error, {wrong_expected_version, _, Version}}, Client) ->
    at(Stream, Version, Client);
learned({append, _, _}, {error, {Stream, {wrong_expected_version, _, Version}}}, Client) ->
    at(Stream, Version, Client);
learned({append, _, _}, {error, {condition_failed, Position}}, Client) ->
    Client#client{position = max(Position, Client#client.position)};
learned({read, _, _, _}, {ok, [_ | _] = Events}, #client{position = Position} = Client) ->
    Client#client{position = lists:max([Position | [P || #event{position = P} <- Events]])};
learned(_, _, Client) ->
    Client.

-spec knows(binary(), append_result(), #client{}) -> #client{}.
knows(Stream, #append_result{version = Version, position = Position}, Client) ->
    at(Stream, Version, Client#client{position = max(Position, Client#client.position)}).

-spec at(binary(), integer(), #client{}) -> #client{}.
at(Stream, Version, #client{versions = Versions} = Client) ->
    Client#client{versions = Versions#{Stream => Version}}.

%% ---- drawing

-spec drawn([{atom(), non_neg_integer()}]) -> atom().
drawn(Weights) -> drawn(rand:uniform(lists:sum([W || {_, W} <- Weights])), Weights).

-spec drawn(integer(), [{atom(), non_neg_integer()}]) -> atom().
drawn(N, [{What, Weight} | _]) when N =< Weight -> What;
drawn(N, [{_, Weight} | Weights]) -> drawn(N - Weight, Weights).

-spec one_of([Element, ...]) -> Element.
one_of(List) -> lists:nth(rand:uniform(length(List)), List).

-spec stream(load()) -> binary().
stream(#{streams := Streams}) -> stream_name(rand:uniform(Streams)).

-spec stream_name(pos_integer()) -> binary().
stream_name(N) -> <<"stream-", (integer_to_binary(N))/binary>>.

%% The numbers of a stream that is deleted begin again: only one of them is, the last.
-spec request(atom(), #client{}, pos_integer()) -> erl_esdb_history:request().
request(append_exact, #client{load = Load} = Client, Nth) ->
    Stream = stream(Load),
    {append, [{Stream, known(Stream, Client), events(Client, Nth, size())}], #{}};
request(append_any, #client{load = Load} = Client, Nth) ->
    {append, [{stream(Load), ?ANY_VERSION, events(Client, Nth, size())}], #{}};
request(append_first, #client{load = Load} = Client, Nth) ->
    {append, [{stream(Load), ?NO_STREAM, events(Client, Nth, size())}], #{}};
request(append_many, #client{load = #{streams := Streams}} = Client, Nth) ->
    Count = min(Streams, 1 + rand:uniform(2)),
    Events = events(Client, Nth, 2 * Count),
    {append,
        [
            {stream_name(N), one_of([?ANY_VERSION, known(stream_name(N), Client)]),
                lists:sublist(Events, 2 * I - 1, 2)}
         || {I, N} <- lists:enumerate(lists:sublist(shuffled(lists:seq(1, Streams)), Count))
        ],
        #{}};
request(append_if, #client{load = Load, position = Position} = Client, Nth) ->
    Query = one_of([
        [#{types => [type()]}], [#{tags => [tag()]}], [#{types => [type()], tags => [tag()]}]
    ]),
    Condition = #{fail_if_events_match => Query, after_position => Position},
    {append, [{stream(Load), ?ANY_VERSION, events(Client, Nth, 1)}], #{condition => Condition}};
request(read, #client{load = Load} = Client, _Nth) ->
    Stream = stream(Load),
    {read, Stream, window(maps:get(Stream, Client#client.versions, 0)), consistency()};
request(read_log, #client{position = Position}, _Nth) ->
    {read, log, window(Position), consistency()};
request(truncate, #client{load = Load} = Client, _Nth) ->
    Stream = stream(Load),
    {truncate, Stream, rand:uniform(max(1, known(Stream, Client)))};
request(tombstone, #client{load = Load}, _Nth) ->
    {delete, stream(Load), tombstone};
request(delete, #client{load = #{streams := Streams}}, _Nth) ->
    {delete, stream_name(Streams), hard};
request(put, #client{number = Number}, Nth) ->
    {put, document(), {Number, Nth, crypto:strong_rand_bytes(4)}};
request(forget, _Client, _Nth) ->
    {forget, document()};
request(get, _Client, _Nth) ->
    {get, document(), consistency()}.

-spec known(binary(), #client{}) -> integer().
known(Stream, #client{versions = Versions}) -> maps:get(Stream, Versions, ?NO_STREAM).

-spec size() -> pos_integer().
size() -> one_of([1, 1, 1, 2, 3, 8]).

-spec window(integer()) -> {non_neg_integer() | last, pos_integer(), direction()}.
window(Known) ->
    From = rand:uniform(max(1, Known + 2)) - 1,
    Count = one_of([1, 5, 30]),
    one_of([{From, Count, forward}, {From, Count, backward}, {last, Count, backward}]).

-spec consistency() -> erl_esdb_history:consistency().
consistency() -> one_of([linearizable, linearizable, read_your_writes, local]).

-spec document() -> {binary(), non_neg_integer()}.
document() -> {~"documents", rand:uniform(3)}.

-spec type() -> binary().
type() -> one_of([~"Placed", ~"Paid", ~"Shipped"]).

-spec tag() -> binary().
tag() -> <<"order:", (integer_to_binary(rand:uniform(20)))/binary>>.

-spec events(#client{}, pos_integer(), pos_integer()) -> [new_event()].
events(#client{number = Number, load = #{name := Name}}, Nth, Count) ->
    [
        erl_esdb_history:event(
            iolist_to_binary(io_lib:format("~ts-~b-~b-~b", [Name, Number, Nth, N])),
            type(),
            lists:usort([tag() || _ <- lists:seq(1, rand:uniform(2))]),
            #{n => N, pad => rand:bytes(rand:uniform(300))}
        )
     || N <- lists:seq(1, Count)
    ].

-spec shuffled([Element]) -> [Element].
shuffled(List) -> [Element || {_, Element} <- lists:sort([{rand:uniform(), E} || E <- List])].

%% ---- subscribers

-doc """
Makes a subscription and follows it from the beginning, in a process of its own, until it is told to
end. Where the subscriber or its node is gone, another is attached on a node that can be asked.
Returns when there is the subscription.
""".
-spec follow(load(), {Name :: binary(), {stream, binary()} | all}) -> follower().
follow(#{seed := Seed} = Load, {Name, _} = Wanted) ->
    Self = self(),
    Follower = spawn_link(fun() ->
        _ = rand:seed(exsss, {Seed, erlang:phash2(Name), 18}),
        {Key, Via, Subscriber} = subscribed(Load, Wanted),
        Self ! {self(), subscribed},
        following(Load, Wanted, Key, Via, Subscriber)
    end),
    receive
        {Follower, subscribed} -> Follower
    end.

-spec unfollow(follower()) -> ok.
unfollow(Follower) ->
    true = unlink(Follower),
    Ref = monitor(process, Follower),
    exit(Follower, kill),
    receive
        {'DOWN', Ref, process, Follower, _} -> ok
    end.

-doc "Waits until all of this was delivered, so many milliseconds at most; answers what was not.".
-spec awaited(load(), #final{}, timeout()) -> [{Name :: term(), Missing :: non_neg_integer()}].
awaited(Load, Final, Timeout) -> awaited_until(Load, Final, erl_esdb_deadline:in(Timeout)).

-spec awaited_until(load(), #final{}, erl_esdb_deadline:deadline()) -> [{term(), pos_integer()}].
awaited_until(#{history := History} = Load, Final, Until) ->
    case missing(erl_esdb_history:entries(History), Final) of
        [] ->
            [];
        Missing ->
            case erl_esdb_deadline:is_over(Until) of
                true ->
                    Missing;
                false ->
                    ok = pause(),
                    awaited_until(Load, Final, Until)
            end
    end.

-spec missing([erl_esdb_history:entry()], #final{}) -> [{term(), pos_integer()}].
missing(Entries, #final{events = Events}) ->
    [
        {Name, length(Missing)}
     || #call{op = {subscribe, Name, Selector, 0}, outcome = {ok, _}} <- Entries,
        Wanted <- [[P || #seen{position = P, stream = S} <- Events, is_of(S, Selector)]],
        Missing <- [ordsets:subtract(Wanted, got(Name, Entries))],
        Missing =/= []
    ].

-spec is_of(binary(), {stream, binary()} | all) -> boolean().
is_of(_Stream, all) -> true;
is_of(Stream, {stream, Wanted}) -> Stream =:= Wanted.

-spec got(term(), [erl_esdb_history:entry()]) -> ordsets:ordset(non_neg_integer()).
got(Name, Entries) ->
    ordsets:from_list([
        Position
     || #delivery{subscription = N, events = Events} <- Entries,
        N =:= Name,
        #seen{position = Position} <- Events
    ]).

-spec subscribed(load(), {binary(), {stream, binary()} | all}) ->
    {binary(), erl_esdb_history:via(), pid()}.
subscribed(#{history := History, store := Store} = Load, {Name, Selector} = Wanted) ->
    {Node, Via, Subscriber} = subscriber(Load),
    Request = {subscribe, Name, Selector, 0, Subscriber},
    case erl_esdb_history:call(History, {Name, Node}, Request, Store, Via) of
        {ok, Key} ->
            {Key, Via, Subscriber};
        %% A try before, whose answer was lost.
        {error, {already_exists, Name}} ->
            attached(Load, erl_esdb_history:subscription_key(Name, Selector));
        _ ->
            ok = pause(),
            subscribed(Load, Wanted)
    end.

-spec subscriber(load()) -> {term(), erl_esdb_history:via(), pid()}.
subscriber(#{targets := Targets} = Load) ->
    case Targets() of
        [] ->
            ok = pause(),
            subscriber(Load);
        Some ->
            {Node, Via} = one_of(Some),
            case via(Via, erl_esdb_subscriber, start, []) of
                Pid when is_pid(Pid) ->
                    {Node, Via, Pid};
                _ ->
                    ok = pause(),
                    subscriber(Load)
            end
    end.

-spec attached(load(), binary()) -> {binary(), erl_esdb_history:via(), pid()}.
attached(#{store := Store} = Load, Key) ->
    {_, Via, Subscriber} = subscriber(Load),
    case via(Via, erl_esdb_subscriptions, attach, [Store, Key, Subscriber]) of
        ok ->
            {Key, Via, Subscriber};
        _ ->
            ok = pause(),
            attached(Load, Key)
    end.

%% First written down, then acknowledged.
-spec following(
    load(), {binary(), {stream, binary()} | all}, binary(), erl_esdb_history:via(), pid()
) -> no_return().
following(Load, {Name, _} = Wanted, Key, Via, Subscriber) ->
    #{history := History, store := Store} = Load,
    case via(Via, erl_esdb_subscriber, take, [Subscriber, ?WAIT]) of
        {ok, []} ->
            following(Load, Wanted, Key, Via, Subscriber);
        {ok, Events} ->
            ok = erl_esdb_history:delivered(History, Name, Events),
            ok = acknowledge([Store, Name | acknowledged(Wanted, Events)], Load),
            following(Load, Wanted, Key, Via, Subscriber);
        _ ->
            ok = pause(),
            {Key, Via1, Subscriber1} = attached(Load, Key),
            following(Load, Wanted, Key, Via1, Subscriber1)
    end.

%% Until somebody has taken it: what is not acknowledged holds up what is next.
-spec acknowledge([term()], load()) -> ok.
acknowledge(Arguments, #{targets := Targets} = Load) ->
    Answers = [
        via(Via, erl_esdb_subscriptions, ack, Arguments)
     || Some <- [Targets()], Some =/= [], {_, Via} <- [one_of(Some)]
    ],
    case Answers of
        [ok] ->
            ok;
        _ ->
            ok = pause(),
            acknowledge(Arguments, Load)
    end.

-spec acknowledged({binary(), {stream, binary()} | all}, [event(), ...]) -> [term()].
acknowledged({_, Selector}, Events) ->
    #event{stream_id = Stream, version = Version, position = Position} = lists:last(Events),
    case Selector of
        all -> [undefined, Position];
        {stream, Stream} -> [Stream, Version]
    end.

-spec via(erl_esdb_history:via(), module(), atom(), [term()]) -> term().
via(Via, Module, Function, Arguments) ->
    try
        Via(Module, Function, Arguments)
    catch
        Class:Reason -> {unreachable, {Class, Reason}}
    end.
