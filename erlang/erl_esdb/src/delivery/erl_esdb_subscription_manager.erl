-module(erl_esdb_subscription_manager).
-moduledoc """
Makes and removes the subscriptions of a store, one after the other, and keeps a process running for
each.

A process that ends by itself is started again: at once, then after 20 milliseconds, after twice as
long each time, up to five seconds. So a subscription that cannot go on harms no other.

Of a store that lives on several nodes each has a manager, and the one of the node that leads works:
it starts the processes, from the places that are saved, when it begins to lead, and ends them when
another node does.
""".

-behaviour(gen_server).

-export([start_link/1, start_subscription/3, subscribe/5, unsubscribe/3, attach/4, look/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").

%% Milliseconds.
-define(FIRST_DELAY, 10).
-define(RETRY, 200).
-define(LONGEST_DELAY, 5000).
%% A process that ran so long has not failed at its start.
-define(STABLE, 60_000).

-record(run, {
    ref :: reference(),
    pid :: pid(),
    since :: integer(),
    failures :: non_neg_integer()
}).

-record(state, {
    store :: atom(),
    running = #{} :: #{Key :: binary() => #run{}},
    %% whose processes the monitors are of
    keys = #{} :: #{reference() => Key :: binary()},
    leading :: boolean(),
    %% whether subscriptions ran here that the node that leads may not know of
    left = false :: boolean()
}).

-type options() :: #{timeout => timeout(), _ => _}.

-doc false.
-spec start_link(atom()) -> gen_server:start_ret().
start_link(Store) -> gen_server:start_link(?MODULE, Store, []).

-doc false.
%% Of the child of `m:erl_esdb_subscription_sup': which module it is stands in the subscription.
-spec start_subscription(atom(), module(), subscription()) -> gen_server:start_ret().
start_subscription(Store, Module, Subscription) -> Module:start_link(Store, Subscription).

-doc false.
%% `Caller': who gets the events where nobody else takes them.
-spec subscribe(atom(), subscription(), Next :: non_neg_integer(), Caller :: pid(), options()) ->
    {ok, binary()} | {error, term()}.
subscribe(Store, Subscription, Next, Caller, Options) ->
    call(Store, {subscribe, Subscription, Next, Caller}, Options).

-doc false.
-spec unsubscribe(atom(), binary(), options()) -> {ok, subscription()} | {error, term()}.
unsubscribe(Store, Key, Options) -> call(Store, {unsubscribe, Key}, Options).

-doc false.
-spec attach(atom(), binary(), pid(), options()) -> {ok, subscription()} | {error, term()}.
attach(Store, Key, Pid, Options) -> call(Store, {attach, Key, Pid}, Options).

-spec call(atom(), term(), options()) -> {ok, term()} | {error, term()}.
call(Store, Request, Options) ->
    erl_esdb_delivery:call_leader(Store, manager, none, Request, Options).

-doc false.
%% On the node that leads: subscriptions were made elsewhere, by who believed to lead.
-spec look(Store :: atom()) -> ok.
look(Store) ->
    case erl_esdb_delivery:pid(Store, manager, none) of
        {ok, Manager} ->
            Manager ! begin_again,
            ok;
        {error, _} ->
            ok
    end.

-doc false.
-spec init(atom()) -> {ok, #state{}, {continue, start}}.
init(Store) ->
    proc_lib:set_label({?MODULE, Store}),
    ok = erl_esdb_delivery:put(Store, manager, none, self()),
    Leading = erl_esdb_cluster:watch_leader(Store) =:= node(),
    {ok, #state{store = Store, leading = Leading}, {continue, start}}.

-doc false.
-spec handle_continue(start, #state{}) -> {noreply, #state{}}.
handle_continue(start, #state{leading = false} = State) ->
    {noreply, State};
handle_continue(start, #state{store = Store} = State) ->
    case keys(Store) of
        {ok, Keys} ->
            {noreply, begun(Keys, State)};
        {error, Reason} ->
            %% An engine that ended takes this process with it in a moment.
            ?LOG_DEBUG("store ~tp: subscriptions wait: ~tp", [Store, Reason]),
            _ = erlang:send_after(?RETRY, self(), begin_again),
            {noreply, State}
    end.

-spec keys(atom()) -> {ok, [binary()]} | {error, term()}.
keys(Store) ->
    maybe
        ok ?= erl_esdb_cluster:caught_up(Store),
        {ok, Keys} ?= erl_esdb_subscriptions_store:keys(Store),
        {ok, IsOfNow} ?= erl_esdb_delivery:is_of_this_life(Store),
        ok ?= detached(IsOfNow, Store, Keys),
        {ok, Keys}
    end.

%% Subscribers of an earlier life of a node without a name: who has their names now is not meant.
-spec detached(IsOfNow :: boolean(), atom(), [binary()]) -> ok | {error, term()}.
detached(true, _Store, _Keys) ->
    ok;
detached(false, Store, [Key | Keys]) ->
    maybe
        {ok, #subscription{subscriber_pid = Pid} = Subscription} ?= found(Store, Key),
        true ?= is_pid(Pid),
        ok ?=
            erl_esdb_subscriptions_store:put(
                Store, Subscription#subscription{subscriber_pid = undefined}
            ),
        detached(false, Store, Keys)
    else
        {error, Reason} when Reason =/= not_found -> {error, Reason};
        _ -> detached(false, Store, Keys)
    end;
detached(false, Store, []) ->
    of_this_life(Store, erl_esdb_delivery:life_values(Store)).

-spec of_this_life(atom(), erl_esdb_log:checkpoints()) -> ok | {error, term()}.
of_this_life(_Store, Values) when map_size(Values) =:= 0 -> ok;
of_this_life(Store, Values) -> erl_esdb_store:save_checkpoints(Store, Values).

-spec begun([binary()], #state{}) -> #state{}.
begun(Keys, #state{store = Store} = State) ->
    Forget = fun(Key) -> erl_esdb_delivery:remove(Store, consumer, Key) end,
    lists:foreach(Forget, erl_esdb_delivery:ids(Store, consumer) -- Keys),
    lists:foldl(fun(Key, Acc) -> begun(Key, 0, Acc) end, State, Keys).

%% One that cannot be read is tried again, and keeps none of the others from going on. Where the
%% keys are read again some run already.
-spec begun(binary(), non_neg_integer(), #state{}) -> #state{}.
begun(Key, _Failures, #state{running = Running} = State) when is_map_key(Key, Running) ->
    State;
begun(Key, Failures, #state{store = Store} = State) ->
    case found(Store, Key) of
        {ok, Subscription} -> started(Subscription, Failures, State);
        {error, not_found} -> State;
        {error, Reason} -> again(Key, Reason, Failures, State)
    end.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(_, _From, #state{leading = false, store = Store} = State) ->
    {reply, {error, {not_leader, Store}}, State};
handle_call({subscribe, Subscription, Next, Caller}, _From, #state{store = Store} = State) ->
    case created(Store, Subscription, Next, Caller) of
        {ok, Key} ->
            {reply, {ok, Key}, started(Subscription#subscription{id = Key}, 0, State)};
        {error, Reason} -> {reply, {error, Reason}, State}
    end;
handle_call({unsubscribe, Key}, _From, #state{store = Store} = State) ->
    case found(Store, Key) of
        {ok, Subscription} ->
            State1 = stopped(Key, State),
            unsubscribed(removed(Store, Subscription), Key, State1);
        {error, Reason} ->
            {reply, {error, Reason}, State}
    end;
handle_call({attach, Key, Pid}, _From, #state{store = Store} = State) ->
    {reply, attached(Store, Key, Pid), State};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% One that could not be removed goes on.
-spec unsubscribed({ok, subscription()} | {error, term()}, binary(), #state{}) ->
    {reply, {ok, subscription()} | {error, term()}, #state{}}.
unsubscribed({ok, Subscription}, _Key, State) -> {reply, {ok, Subscription}, State};
unsubscribed({error, Reason}, Key, State) -> {reply, {error, Reason}, begun(Key, 0, State)}.

-spec created(atom(), subscription(), non_neg_integer(), pid()) ->
    {ok, binary()} | {error, term()}.
created(Store, #subscription{subscription_name = Name} = Subscription, Next, Caller) ->
    maybe
        {ok, Key} ?= erl_esdb_subscriptions_store:free_key(Store, Subscription),
        %% The place first: whoever finds the subscription finds it, too.
        Taken = erl_esdb_delivery:consumers_values(Store, Key, Caller),
        Handlers = erl_esdb_delivery:handlers_values(Store, Key, delete),
        Life = erl_esdb_delivery:life_values(Store),
        ok ?= erl_esdb_checkpoints:put(Store, (maps:merge(maps:merge(Taken, Handlers), Life))#{
            erl_esdb_subscriptions_store:next_key(Key) => Next,
            erl_esdb_subscriptions_store:acknowledged_key(Key) => delete
        }),
        ok ?= erl_esdb_subscriptions_store:put(Store, Subscription#subscription{id = Key}),
        ok = erl_esdb_delivery:put(Store, consumer, Key, Caller),
        {ok, Key}
    else
        {error, {already_exists, _Key}} -> {error, {already_exists, Name}};
        {error, Reason} -> {error, Reason}
    end.

-spec found(atom(), binary()) -> {ok, subscription()} | {error, term()}.
found(Store, Key) ->
    try erl_esdb_subscriptions_store:get(Store, Key) of
        undefined -> {error, not_found};
        Subscription -> {ok, Subscription}
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

%% The process is gone, so what it had saved is deleted for good.
-spec removed(atom(), subscription()) -> {ok, subscription()} | {error, term()}.
removed(Store, #subscription{id = Key} = Subscription) ->
    maybe
        ok ?= erl_esdb_subscriptions_store:delete(Store, Key),
        Taken = erl_esdb_delivery:consumers_values(Store, Key, delete),
        Handlers = erl_esdb_delivery:handlers_values(Store, Key, delete),
        ok ?= erl_esdb_checkpoints:put(Store, (maps:merge(Taken, Handlers))#{
            erl_esdb_subscriptions_store:next_key(Key) => delete
        }),
        ok ?= erl_esdb_consumers:forget(Store, Key),
        ok = erl_esdb_delivery:remove(Store, consumer, Key),
        ok = erl_esdb_delivery:remove(Store, handlers, Key),
        ok = erl_esdb_emitter_pool:stop(Store, Key),
        {ok, Subscription}
    end.

-spec attached(atom(), binary(), pid()) -> {ok, subscription()} | {error, term()}.
attached(Store, Key, Pid) ->
    maybe
        {ok, Subscription} ?= found(Store, Key),
        ok ?= takes_one(Subscription),
        ok ?= of_this_life(Store, erl_esdb_delivery:life_values(Store)),
        Subscription1 = Subscription#subscription{subscriber_pid = Pid},
        ok ?= erl_esdb_subscriptions_store:put(Store, Subscription1),
        ok = pass_on(erl_esdb_delivery:pid(Store, subscription, Key), {attach, Pid}),
        {ok, Subscription1}
    end.

-spec takes_one(subscription()) -> ok | {error, competing}.
takes_one(#subscription{options = #{consumers := competing}}) -> {error, competing};
takes_one(#subscription{}) -> ok.

%% A process that is about to begin again finds it in the subscription.
-spec pass_on({ok, pid()} | {error, term()}, term()) -> ok.
pass_on({ok, Process}, Message) -> gen_server:cast(Process, Message);
pass_on({error, _}, _Message) -> ok.

-spec started(subscription(), non_neg_integer(), #state{}) -> #state{}.
started(#subscription{id = Key} = Subscription, Failures, #state{store = Store} = State) ->
    case erl_esdb_subscription_sup:start(Store, Subscription) of
        {ok, Pid} -> watched(Key, Pid, Failures, State);
        {error, Reason} -> again(Key, Reason, Failures, State)
    end.

-spec watched(binary(), pid(), non_neg_integer(), #state{}) -> #state{}.
watched(Key, Pid, Failures, #state{running = Running, keys = Keys} = State) ->
    Ref = monitor(process, Pid),
    Since = erlang:monotonic_time(millisecond),
    Run = #run{ref = Ref, pid = Pid, since = Since, failures = Failures},
    State#state{running = Running#{Key => Run}, keys = Keys#{Ref => Key}}.

-spec again(binary(), term(), non_neg_integer(), #state{}) -> #state{}.
again(Key, Reason, Failures, #state{store = Store} = State) ->
    ?LOG_WARNING("store ~tp: subscription ~ts begins again after ~tP", [Store, Key, Reason, 30]),
    Delay = min(?LONGEST_DELAY, ?FIRST_DELAY bsl min(Failures, 20)),
    _ = erlang:send_after(first_at_once(Failures, Delay), self(), {start, Key, Failures + 1}),
    State.

-spec first_at_once(non_neg_integer(), pos_integer()) -> non_neg_integer().
first_at_once(0, _) -> 0;
first_at_once(_, Delay) -> Delay.

-spec stopped(binary(), #state{}) -> #state{}.
stopped(Key, #state{store = Store, running = Running, keys = Keys} = State) ->
    case maps:take(Key, Running) of
        {#run{ref = Ref, pid = Pid}, Running1} ->
            true = demonitor(Ref, [flush]),
            ok = erl_esdb_subscription_sup:stop(Store, Pid),
            ok = erl_esdb_delivery:remove(Store, subscription, Key, Pid),
            State#state{running = Running1, keys = maps:remove(Ref, Keys)};
        error ->
            State
    end.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {noreply, #state{}, {continue, start}}.
handle_info({'DOWN', Ref, process, _, Reason}, #state{keys = Keys, running = Running} = State) ->
    case maps:take(Ref, Keys) of
        {Key, Keys1} ->
            {#run{pid = Pid} = Run, Running1} = maps:take(Key, Running),
            %% One that was killed stands there still.
            ok = erl_esdb_delivery:remove(State#state.store, subscription, Key, Pid),
            State1 = State#state{keys = Keys1, running = Running1},
            {noreply, again(Key, Reason, failures(Run), State1)};
        error ->
            {noreply, State}
    end;
handle_info({erl_esdb_leader, Store, Leader}, #state{store = Store} = State) ->
    case led(Leader =:= node(), State) of
        {noreply, #state{left = true} = State1} when Leader =/= undefined ->
            ok = erl_esdb_cluster:tell_leader(Store, {?MODULE, look, [Store]}),
            {noreply, State1#state{left = false}};
        Other ->
            Other
    end;
handle_info({start, _Key, _Failures}, #state{leading = false} = State) ->
    {noreply, State};
%% Meanwhile it may have been removed, and made again.
handle_info({start, Key, _Failures}, #state{running = Running} = State) when
    is_map_key(Key, Running)
->
    {noreply, State};
handle_info({start, Key, Failures}, State) ->
    {noreply, begun(Key, Failures, State)};
handle_info(begin_again, State) ->
    {noreply, State, {continue, start}};
handle_info(_, State) ->
    {noreply, State}.

-spec led(boolean(), #state{}) -> {noreply, #state{}} | {noreply, #state{}, {continue, start}}.
led(Leading, #state{leading = Leading} = State) ->
    {noreply, State};
led(true, State) ->
    {noreply, State#state{leading = true, left = false}, {continue, start}};
%% A node that has just joined, or that was cut off, may have made subscriptions when another led
%% already, which had read by then which there are.
led(false, #state{store = Store, running = Running} = State) ->
    State1 = lists:foldl(fun stopped/2, State, maps:keys(Running)),
    ok = erl_esdb_checkpoints:hand_over(Store),
    ok = erl_esdb_delivery:forget_consumers(Store),
    {noreply, State1#state{leading = false, left = State#state.left orelse Running =/= #{}}}.

-spec failures(#run{}) -> non_neg_integer().
failures(#run{since = Since, failures = Failures}) ->
    case erlang:monotonic_time(millisecond) - Since of
        Time when Time > ?STABLE -> 0;
        _ -> Failures
    end.
