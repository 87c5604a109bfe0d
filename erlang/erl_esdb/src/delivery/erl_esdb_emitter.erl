-module(erl_esdb_emitter).
-moduledoc """
A process that passes events on to a subscriber.

```erlang
1> {ok, _} = erl_esdb_emitter:start_link(shop, Key, self(), shop_mail_emitter).
2> ok = erl_esdb_emitter_group:broadcast(shop, Key, Event).
3> receive {events, [Event]} -> ok end.
```

It is a member of the group of its subscription (`m:erl_esdb_emitter_group`), also when the process
that keeps the groups has crashed and is there again. What reaches it as
`{broadcast | forward_to_local, Topic, Event}` or `{events, Events}` goes to the subscriber as
`{events, Events}`; without a subscriber to the members of the process group
`{Store, Topic, subscribers}`; and nowhere when the subscriber has died.

A subscription with a `pool_size` of more than one hands its events over through as many emitters of
its own, each stream through one of them.
""".

-behaviour(gen_server).

-export([start_link/4, start_lane/3, child_spec/4, update_subscriber/2, stop/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").

-define(SCOPE, erl_esdb_pg).
%% Milliseconds until it is tried again to join a group.
-define(AGAIN, 20).

-record(state, {
    store :: atom(),
    key :: binary(),
    subscriber :: pid() | undefined,
    %% whether there is or was one: only without does the group get the events
    had = false :: boolean(),
    member :: boolean()
}).

-doc "Starts an emitter under a name, as a member of its group.".
-spec start_link(Store :: atom(), Key :: binary(), Subscriber :: pid() | undefined, atom()) ->
    gen_server:start_ret().
start_link(Store, Key, Subscriber, Name) ->
    gen_server:start_link({local, Name}, ?MODULE, {Store, Key, Subscriber, true}, []).

-doc false.
%% One that has no name and is no member: only the subscription knows it.
-spec start_lane(atom(), binary(), pid()) -> gen_server:start_ret().
start_lane(Store, Key, Subscriber) ->
    gen_server:start_link(?MODULE, {Store, Key, Subscriber, false}, []).

-doc "An emitter below a supervisor.".
-spec child_spec(Store :: atom(), Key :: binary(), Subscriber :: pid() | undefined, atom()) ->
    supervisor:child_spec().
child_spec(Store, Key, Subscriber, Name) ->
    #{
        id => Name,
        start => {?MODULE, start_link, [Store, Key, Subscriber, Name]},
        restart => permanent,
        shutdown => 5000,
        type => worker,
        modules => [?MODULE]
    }.

-doc "What comes from now on goes to another process.".
-spec update_subscriber(Emitter :: pid() | atom(), Subscriber :: pid()) -> ok.
update_subscriber(Emitter, Subscriber) when is_pid(Subscriber) ->
    gen_server:cast(Emitter, {update_subscriber, Subscriber}).

-doc "Stops an emitter. What reached it before is passed on.".
-spec stop(Emitter :: pid() | atom()) -> ok.
stop(Emitter) -> gen_server:stop(Emitter).

-doc false.
-spec init({atom(), binary(), pid() | undefined, boolean()}) -> {ok, #state{}}.
init({Store, Key, Subscriber, Member}) ->
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store, Key}),
    ok = joined(Member, Store, Key),
    {ok, watched(Subscriber, #state{store = Store, key = Key, member = Member})}.

-spec joined(boolean(), atom(), binary()) -> ok.
joined(true, Store, Key) ->
    _ = monitor(process, whereis(?SCOPE), [{tag, groups_down}]),
    erl_esdb_emitter_group:join_worker(Store, Key, self());
joined(false, _, _) ->
    ok.

-spec watched(pid() | undefined, #state{}) -> #state{}.
watched(undefined, State) ->
    State;
watched(Pid, State) ->
    _ = monitor(process, Pid),
    State#state{subscriber = Pid, had = true}.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, {error, unknown_request}, #state{}}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({update_subscriber, Pid}, State) -> {noreply, watched(Pid, State)};
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({Kind, _Topic, Event}, State) when Kind =:= broadcast; Kind =:= forward_to_local ->
    {noreply, passed([Event], State)};
handle_info({events, Events}, State) ->
    {noreply, passed(Events, State)};
handle_info({groups_down, _, process, _, _}, State) ->
    {noreply, later(State)};
handle_info(join, State) ->
    {noreply, joined_again(whereis(?SCOPE), State)};
handle_info({'DOWN', _, process, Pid, _}, #state{subscriber = Pid} = State) ->
    {noreply, State#state{subscriber = undefined}};
handle_info({'EXIT', Pid, _}, #state{subscriber = Pid} = State) ->
    {noreply, State#state{subscriber = undefined}};
handle_info({'EXIT', _, Reason}, #state{member = false} = State) ->
    {stop, Reason, State};
handle_info(_, State) ->
    {noreply, State}.

-spec later(#state{}) -> #state{}.
later(State) ->
    _ = erlang:send_after(?AGAIN, self(), join),
    State.

%% The groups are there again, empty. Where they end during this, their monitor tells.
-spec joined_again(pid() | undefined, #state{}) -> #state{}.
joined_again(undefined, State) ->
    later(State);
joined_again(_Groups, #state{store = Store, key = Key} = State) ->
    try joined(true, Store, Key) of
        ok -> State
    catch
        exit:_ -> State;
        error:badarg -> later(State)
    end.

-spec passed([term()], #state{}) -> #state{}.
passed(Events, #state{subscriber = undefined, had = false, store = Store, key = Key} = State) ->
    Topic = erl_esdb_emitter_group:topic(Store, Key),
    Members = pg:get_members(?SCOPE, {Store, Topic, subscribers}),
    lists:foreach(fun(Pid) -> Pid ! {events, Events} end, Members),
    State;
passed(_Events, #state{subscriber = undefined, store = Store, key = Key} = State) ->
    ?LOG_WARNING("store ~tp: the subscriber of ~ts is dead", [Store, Key]),
    State;
passed(Events, #state{subscriber = Pid} = State) ->
    Pid ! {events, Events},
    State.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{member = false}) ->
    ok;
terminate(_Reason, #state{store = Store, key = Key}) ->
    try
        _ = pg:leave(?SCOPE, erl_esdb_emitter_group:worker_key(Store, Key), self()),
        erl_esdb_emitter_group:leave(Store, Key, self())
    catch
        %% There are no groups.
        exit:_ -> ok
    end.
