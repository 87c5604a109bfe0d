-module(erl_esdb_turns).
-moduledoc """
Turns, for what several processes of a node try at once and only one can do at a time: an append to
a stream whose events are signed names the event before it, so it fails where another was faster.
With tries alone one who needs long to sign would never win against many who need little.

Who fails takes the turn, and those who come then wait for theirs, in their order. Nobody who meets
nobody is held up: the first try is free, and asks no process.

```erlang
1> Try = fun(N) when N < 3 -> {again, N + 1}; (N) -> {done, N} end.
2> erl_esdb_turns:run([{shop, ~"order-1"}], erl_esdb_deadline:in(1000), Try, 0).
{ok,3}
```

A turn is a courtesy and no lock: what must not happen has to be refused by others. It ends with the
process that has it.
""".

-behaviour(gen_server).

-export([run/4, start_link/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([key/0]).

-doc "What is tried: by convention a store and a stream. Those of a call differ from each other.".
-type key() :: term().
%% Who waits: the process, its monitor, and how to tell it.
-type waiting() :: {pid(), reference(), gen_server:from()}.
%% Those who wait, by numbers that rise, and their numbers: who gives up is found at once.
-type queue() :: {gb_trees:tree(integer(), waiting()), #{pid() => integer()}}.
%% Of each key who has the turn, and who waits for it.
-type turns() :: #{key() => {{pid(), reference()}, queue()}}.

-doc """
Tries until it is done, in the process of the caller. After the first try that says `again` the
others have the turn of all the keys; without keys they go on without.

Error: `timeout`. The tries that there were have done nothing.
""".
-spec run([key()], erl_esdb_deadline:deadline(), Try, State) -> {ok, Result} | {error, timeout} when
    Try :: fun((State) -> {done, Result} | {again, State}).
run(Keys, Until, Try, State) ->
    Sorted = lists:sort(Keys),
    case lists:any(fun is_taken/1, Sorted) of
        true -> in_turn(Sorted, fun() -> tries(Until, Try, State) end, Until);
        false -> freely(Sorted, Until, Try, State)
    end.

-spec freely([key()], erl_esdb_deadline:deadline(), Try, State) ->
    {ok, Result} | {error, timeout}
when
    Try :: fun((State) -> {done, Result} | {again, State}).
freely(Keys, Until, Try, State) ->
    maybe
        {again, State1} ?= Try(State),
        ok ?= erl_esdb_deadline:check(Until, false),
        in_turn(Keys, fun() -> tries(Until, Try, State1) end, Until)
    else
        {done, Result} -> {ok, Result};
        {error, timeout} -> {error, timeout}
    end.

-spec tries(erl_esdb_deadline:deadline(), Try, State) -> {ok, Result} | {error, timeout} when
    Try :: fun((State) -> {done, Result} | {again, State}).
tries(Until, Try, State) -> freely([], Until, Try, State).

%% In the order of the keys, so that no two wait for each other.
-spec in_turn([key()], fun(() -> Answer), erl_esdb_deadline:deadline()) ->
    Answer | {error, timeout}.
in_turn([], Fun, _Until) ->
    Fun();
in_turn([Key | Keys], Fun, Until) ->
    maybe
        ok ?= take(Key, Until),
        try
            in_turn(Keys, Fun, Until)
        after
            give(Key)
        end
    end.

-spec is_taken(key()) -> boolean().
is_taken(Key) ->
    try
        ets:member(?MODULE, Key)
    catch
        error:badarg -> false
    end.

%% Without the process everybody tries.
-spec take(key(), erl_esdb_deadline:deadline()) -> ok | {error, timeout}.
take(Key, Until) ->
    try
        gen_server:call(?MODULE, {take, Key}, erl_esdb_deadline:left(Until))
    catch
        exit:{timeout, _} ->
            give(Key),
            {error, timeout};
        exit:{_Ended, {gen_server, call, _}} ->
            ok
    end.

-spec give(key()) -> ok.
give(Key) -> gen_server:cast(?MODULE, {give, Key, self()}).

%% ---- the process

-doc false.
-spec start_link() -> gen_server:start_ret().
start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-doc false.
-spec init([]) -> {ok, turns()}.
init([]) ->
    ?MODULE = ets:new(?MODULE, [named_table, protected, {read_concurrency, true}]),
    {ok, #{}}.

-doc false.
-spec handle_call({take, key()} | term(), gen_server:from(), turns()) ->
    {reply, ok | {error, unknown_request}, turns()} | {noreply, turns()}.
handle_call({take, Key}, {Pid, _} = From, Turns) ->
    Ref = monitor(process, Pid, [{tag, {gone, Key}}]),
    case Turns of
        #{Key := {Holder, Queue}} ->
            {noreply, Turns#{Key := {Holder, in({Pid, Ref, From}, Queue)}}};
        #{} ->
            true = ets:insert(?MODULE, {Key}),
            {reply, ok, Turns#{Key => {{Pid, Ref}, {gb_trees:empty(), #{}}}}}
    end;
handle_call(_, _From, Turns) ->
    {reply, {error, unknown_request}, Turns}.

-doc false.
-spec handle_cast({give, key(), pid()} | term(), turns()) -> {noreply, turns()}.
handle_cast({give, Key, Pid}, Turns) -> {noreply, left(Key, Pid, Turns)};
handle_cast(_, Turns) -> {noreply, Turns}.

-doc false.
-spec handle_info(term(), turns()) -> {noreply, turns()}.
handle_info({{gone, Key}, _Ref, process, Pid, _}, Turns) -> {noreply, left(Key, Pid, Turns)};
handle_info(_, Turns) -> {noreply, Turns}.

%% Who had the turn, or waited for it, does not any more. Word of its end may come later, and finds
%% nothing then; to look for it among all messages would take longer the more there are.
-spec left(key(), pid(), turns()) -> turns().
left(Key, Pid, Turns) ->
    case Turns of
        #{Key := {{Pid, Ref}, Queue}} ->
            true = demonitor(Ref),
            next(Key, Queue, Turns);
        #{Key := {Holder, Queue}} ->
            Turns#{Key := {Holder, without(Pid, Queue)}};
        #{} ->
            Turns
    end.

-spec next(key(), queue(), turns()) -> turns().
next(Key, Queue, Turns) ->
    case out(Queue) of
        {{Pid, Ref, From}, Queue1} ->
            gen_server:reply(From, ok),
            Turns#{Key := {{Pid, Ref}, Queue1}};
        empty ->
            true = ets:delete(?MODULE, Key),
            maps:remove(Key, Turns)
    end.

%% A process waits once: it gives up before it asks again.
-spec in(waiting(), queue()) -> queue().
in({Pid, _, _} = Waiting, {Tree, Numbers}) ->
    Number = erlang:unique_integer([monotonic]),
    {gb_trees:insert(Number, Waiting, Tree), Numbers#{Pid => Number}}.

-spec out(queue()) -> {waiting(), queue()} | empty.
out({_Tree, Numbers}) when map_size(Numbers) =:= 0 ->
    empty;
out({Tree, Numbers}) ->
    {_, {Pid, _, _} = Waiting, Tree1} = gb_trees:take_smallest(Tree),
    {Waiting, {Tree1, maps:remove(Pid, Numbers)}}.

-spec without(pid(), queue()) -> queue().
without(Pid, {Tree, Numbers}) when is_map_key(Pid, Numbers) ->
    {Number, Numbers1} = maps:take(Pid, Numbers),
    {{Pid, Ref, _}, Tree1} = gb_trees:take(Number, Tree),
    true = demonitor(Ref),
    {Tree1, Numbers1};
without(_Pid, Queue) ->
    Queue.
