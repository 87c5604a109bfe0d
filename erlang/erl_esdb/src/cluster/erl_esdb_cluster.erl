-module(erl_esdb_cluster).
-moduledoc """
The nodes that a store lives on, and which of them leads.

```erlang
1> ok = erl_esdb_cluster:join(shop, 'shop@10.0.0.1').
2> erl_esdb_cluster:members(shop).
{ok,['shop@10.0.0.1','shop@10.0.0.2']}
3> erl_esdb_cluster:leader(shop).
{ok,'shop@10.0.0.1'}
```

An engine that lives on one node has one member, itself, which leads. What the members are and who
leads is the knowledge of this node: no other is asked, so it may be a moment old.

What delivers the events of a store runs on one node at a time: on the one that leads. Processes
that have to know are told (`watch_leader/1`), and what users ask of them is asked there, wherever
it is called (`at_leader/3`).
""".

-export([view/1, members/1, leader/1, is_leading/1]).
-export([join/2, join/3, leave/1, leave/2]).
-export([transfer_leadership/2, transfer_leadership/3, force_remove/2, force_remove/3]).
-export([leader_is/2, watch_leader/1, known_leader/1, put_leader/2]).
-export([is_clustered/1, can_join/1]).
-export([at_leader/3, at_leader_here/3, tell_leader/2, caught_up/1, check_leading/1]).

-include("erl_esdb.hrl").

%% Milliseconds: for a change of the members, which may have to copy a store; and between two looks
%% for a leader, or for what another node has written.
-define(CHANGE, 30_000).
-define(LOOK, 20).

-define(LEADER, {?MODULE, leader}).

-type options() :: #{timeout => timeout(), _ => _}.
-type change_error() ::
    {not_clustered, Store :: atom()} | erl_esdb_store:failure() | term().

-doc """
What this node knows of the cluster of a store: `members`, `leader` (`undefined` where it knows
none), its own `role`, and how far the log of the store is here. Errors: the failures of a store.
""".
-spec view(Store :: atom()) -> {ok, erl_esdb_engine:view()} | {error, erl_esdb_store:failure()}.
view(Store) ->
    maybe
        {ok, Engine, Handle, _} ?= erl_esdb_store:engine(Store),
        erl_esdb_store:named(Store, viewed(Engine, Handle))
    end.

-spec viewed(module(), erl_esdb_engine:handle()) ->
    {ok, erl_esdb_engine:view()} | {error, erl_esdb_engine:failure()}.
viewed(Engine, Handle) ->
    case erlang:function_exported(Engine, view, 1) of
        true -> Engine:view(Handle);
        false -> {ok, alone()}
    end.

-spec alone() -> erl_esdb_engine:view().
alone() ->
    #{
        members => [node()],
        leader => node(),
        role => leader,
        term => 0,
        commit_index => 0,
        last_applied => 0
    }.

-doc "The nodes that a store lives on, sorted.".
-spec members(Store :: atom()) -> {ok, [node()]} | {error, erl_esdb_store:failure()}.
members(Store) ->
    case view(Store) of
        {ok, #{members := Members}} -> {ok, lists:usort(Members)};
        {error, Reason} -> {error, Reason}
    end.

-doc "The node that orders what is written to a store. Errors: `no_leader`, failures of a store.".
-spec leader(Store :: atom()) -> {ok, node()} | {error, no_leader | erl_esdb_store:failure()}.
leader(Store) ->
    case view(Store) of
        {ok, #{leader := undefined}} -> {error, no_leader};
        {ok, #{leader := Leader}} -> {ok, Leader};
        {error, Reason} -> {error, Reason}
    end.

-doc "Whether this node leads.".
-spec is_leading(Store :: atom()) -> boolean().
is_leading(Store) -> leader(Store) =:= {ok, node()}.

%% ---- changes

-doc "The same as `join/3` without options.".
-spec join(Store :: atom(), node()) -> ok | {error, change_error()}.
join(Store, Node) -> join(Store, Node, #{}).

-doc """
Has a store of this node join that of another node: it becomes a member, with what is there. Joins
of a store by way of the same node are made one after the other: each waits for the one before.

Option: `timeout` (30,000 milliseconds). To copy a large store may take longer: it goes on as long
as it gets on, and `timeout` is how long nothing more may come. Errors: `{not_clustered, Store}`
where its engine lives on one node, failures of a store, and why the engine refuses.
""".
-spec join(Store :: atom(), node(), options()) -> ok | {error, change_error()}.
join(Store, Node, Options) when is_atom(Node), is_map(Options) ->
    change(Store, join, [Node], Options, fun(Change) -> locked(Store, Node, Change) end);
join(_, _, _) ->
    error(badarg).

%% Two nodes that join each other at once would each leave what the other joins.
-spec locked(atom(), node(), fun(() -> Answer)) -> Answer.
locked(Store, Node, Change) ->
    global:trans({{?MODULE, Store}, self()}, Change, lists:usort([node(), Node])).

-doc "The same as `leave/2` without options.".
-spec leave(Store :: atom()) -> ok | {error, change_error()}.
leave(Store) -> leave(Store, #{}).

-doc """
Has this node be no member any more.

Option: `timeout` (30,000 milliseconds), for all of it. Errors as `join/3`.
""".
-spec leave(Store :: atom(), options()) -> ok | {error, change_error()}.
leave(Store, Options) when is_map(Options) -> change(Store, leave, [], Options);
leave(_, _) -> error(badarg).

-doc "The same as `transfer_leadership/3` without options.".
-spec transfer_leadership(Store :: atom(), node()) -> ok | {error, change_error()}.
transfer_leadership(Store, Node) -> transfer_leadership(Store, Node, #{}).

-doc """
Has another member lead. Option and errors as `leave/2`; `{not_member, Node}`, and `{unreachable,
Node}` where it is not connected: nobody is asked to lead who cannot answer.
""".
-spec transfer_leadership(Store :: atom(), node(), options()) -> ok | {error, change_error()}.
transfer_leadership(Store, Node, Options) when is_atom(Node), is_map(Options) ->
    change(Store, transfer_leadership, [Node], Options);
transfer_leadership(_, _, _) ->
    error(badarg).

-doc "The same as `force_remove/3` without options.".
-spec force_remove(Store :: atom(), node()) -> ok | {error, change_error()}.
force_remove(Store, Node) -> force_remove(Store, Node, #{}).

-doc """
Removes a member that is dead and does not come back. One that lives leaves by itself: `leave/1`.
Option and errors as `leave/2`.
""".
-spec force_remove(Store :: atom(), node(), options()) -> ok | {error, change_error()}.
force_remove(Store, Node, Options) when is_atom(Node), is_map(Options) ->
    change(Store, force_remove, [Node], Options);
force_remove(_, _, _) ->
    error(badarg).

-spec change(atom(), atom(), [node()], options()) -> ok | {error, change_error()}.
change(Store, Function, Args, Options) ->
    change(Store, Function, Args, Options, fun(Change) -> Change() end).

-spec change(atom(), atom(), [node()], options(), fun((fun(() -> Answer)) -> Answer)) ->
    ok | {error, change_error()}
when
    Answer :: ok | {error, term()}.
change(Store, Function, Args, Options, With) ->
    Timed = Options#{timeout => erl_esdb_store:timeout(Options, #{timeout => ?CHANGE})},
    maybe
        {ok, Engine, Handle, _} ?= erl_esdb_store:engine(Store),
        true ?= erlang:function_exported(Engine, Function, length(Args) + 2),
        Change = fun() -> apply(Engine, Function, [Handle | Args] ++ [Timed]) end,
        erl_esdb_store:named(Store, With(Change))
    else
        false -> {error, {not_clustered, Store}};
        {error, Reason} -> {error, Reason}
    end.

%% ---- who leads

-doc false.
%% Whether a store can live on several nodes: then what other nodes are to know goes into the store.
-spec is_clustered(Store :: atom()) -> boolean().
is_clustered(Store) ->
    case erl_esdb_engine:find(Store) of
        {ok, Engine, _, _} -> can_join(Engine);
        {error, not_started} -> false
    end.

-doc false.
-spec can_join(Engine :: module()) -> boolean().
can_join(Engine) -> erlang:function_exported(Engine, join, 3).

-doc """
The engine's word that a node leads from now on, or that none does for all it knows. Does not wait.
One that does not say it is asked each second.
""".
-spec leader_is(Store :: atom(), node() | undefined) -> ok.
leader_is(Store, Node) ->
    case whereis(erl_esdb_naming:leader_watch_name(Store)) of
        undefined ->
            ok;
        Pid ->
            Pid ! {erl_esdb_leader, Store, Node},
            ok
    end.

-doc """
Has the calling process told who leads: it gets `{erl_esdb_leader, Store, Node | undefined}` with
each change, now and then also without one, until it ends. Answers who leads now.
""".
-spec watch_leader(Store :: atom()) -> node() | undefined.
watch_leader(Store) when is_atom(Store) ->
    %% Watching first: what changes from here on is told.
    ok = watching(Store),
    known_leader(Store);
watch_leader(_) ->
    error(badarg).

-spec watching(atom()) -> ok.
watching(Store) ->
    _ = watchers(Store),
    _ = erl_esdb_volatile:put(Store, {?MODULE, watcher, self()}, true),
    ok.

%% Those that have ended are forgotten.
-spec watchers(atom()) -> [pid()].
watchers(Store) ->
    Pids = [Pid || {_, _, Pid} <- erl_esdb_volatile:keys(Store, {?MODULE, watcher, '_'})],
    {Alive, Dead} = lists:partition(fun erlang:is_process_alive/1, Pids),
    lists:foreach(fun(P) -> erl_esdb_volatile:delete(Store, {?MODULE, watcher, P}) end, Dead),
    Alive.

-doc false.
-spec known_leader(Store :: atom()) -> node() | undefined.
known_leader(Store) ->
    case erl_esdb_volatile:get(Store, ?LEADER) of
        {ok, Leader} -> Leader;
        {error, not_found} -> undefined
    end.

-doc false.
%% The word of `m:erl_esdb_leader_watch', which tells all who watch.
-spec put_leader(Store :: atom(), node() | undefined) -> ok.
put_leader(Store, Leader) ->
    _ = erl_esdb_volatile:put(Store, ?LEADER, Leader),
    Message = {erl_esdb_leader, Store, Leader},
    lists:foreach(fun(Pid) -> Pid ! Message end, watchers(Store)).

-doc false.
%% Whether this node is told that it leads: what asks for that does not ask the engine each time.
-spec check_leading(Store :: atom()) -> ok | {error, {not_leader, atom()}}.
check_leading(Store) ->
    case known_leader(Store) of
        Node when Node =:= node() -> ok;
        _ -> {error, {not_leader, Store}}
    end.

-doc false.
%% Answers when all is here that was written before this call, wherever: what begins to lead asks
%% for it before it reads what it goes on from.
-spec caught_up(Store :: atom()) -> ok | {error, erl_esdb_store:failure()}.
caught_up(Store) ->
    case erl_esdb_store:next_position(Store, #{consistency => linearizable}) of
        {ok, _} -> ok;
        {error, Reason} -> {error, Reason}
    end.

%% ---- asking the leader

-type call() :: {module(), atom(), [term()]}.

-doc false.
%% Calls a function on the node that leads, with its arguments and, as the last one, options with
%% the `timeout' that is left. Where none leads, or the function answers
%% `{error, {not_leader, Store}}', the next one is waited for. When a change was made elsewhere this
%% returns as this node knows it, too. Where the connection breaks it is not known whether it was
%% made: that is `{timeout, Store}'.
-spec at_leader(Store :: atom(), call(), options()) -> term() | {error, erl_esdb_store:failure()}.
at_leader(Store, Call, Options) ->
    maybe
        {ok, _, _, Settings} ?= erl_esdb_store:engine(Store),
        at(known_leader(Store), Store, Call, erl_esdb_store:deadline(Options, Settings))
    end.

-spec at(node() | undefined, atom(), call(), erl_esdb_store:deadline()) -> term().
at(undefined, Store, Call, Until) ->
    another(Store, Call, Until);
at(Node, Store, Call, Until) when Node =:= node() ->
    answered(applied(Call, timed(Until)), Store, Call, Until);
at(Node, Store, Call, Until) ->
    Args = [Store, Call, timed(Until)],
    try erpc:call(Node, ?MODULE, at_leader_here, Args, erl_esdb_store:left(Until)) of
        {Answer, Index} ->
            ok = await_applied(Store, Index, Until),
            answered(Answer, Store, Call, Until)
    catch
        error:{erpc, _} -> {error, {timeout, Store}};
        error:{exception, Reason, _} -> error(Reason);
        exit:{exception, _} -> {error, {timeout, Store}}
    end.

-spec timed(erl_esdb_store:deadline()) -> options().
timed(Until) -> #{timeout => erl_esdb_store:left(Until)}.

-spec applied(call(), options()) -> term().
applied({Module, Function, Args}, Options) -> apply(Module, Function, Args ++ [Options]).

-spec answered(term(), atom(), call(), erl_esdb_store:deadline()) -> term().
answered({error, {not_leader, Store}}, Store, Call, Until) -> another(Store, Call, Until);
answered(Answer, _Store, _Call, _Until) -> Answer.

-spec another(atom(), call(), erl_esdb_store:deadline()) -> term().
another(Store, Call, Until) ->
    case min(?LOOK, erl_esdb_store:left(Until)) of
        0 ->
            {error, {no_quorum, Store}};
        Time ->
            receive
            after Time -> at_next(Store, Call, Until)
            end
    end.

%% The store may have ended meanwhile.
-spec at_next(atom(), call(), erl_esdb_store:deadline()) -> term().
at_next(Store, Call, Until) ->
    case erl_esdb_store:engine(Store) of
        {ok, _, _, _} -> at(known_leader(Store), Store, Call, Until);
        {error, Reason} -> {error, Reason}
    end.

-doc false.
%% What `at_leader/3' calls there: the answer, and how far the log was when it was given.
-spec at_leader_here(Store :: atom(), call(), options()) -> {term(), non_neg_integer()}.
at_leader_here(Store, Call, Options) ->
    Answer = applied(Call, Options),
    {Answer, last_applied(Store)}.

-spec last_applied(atom()) -> non_neg_integer().
last_applied(Store) ->
    case view(Store) of
        {ok, #{last_applied := Index}} -> Index;
        {error, _} -> 0
    end.

%% What was done is done: where this node does not get there in time the answer is told all the
%% same.
-spec await_applied(atom(), non_neg_integer(), erl_esdb_store:deadline()) -> ok.
await_applied(Store, Index, Until) ->
    case last_applied(Store) >= Index orelse min(?LOOK, erl_esdb_store:left(Until)) of
        Done when Done =:= true; Done =:= 0 ->
            ok;
        Time ->
            receive
            after min(Time, 1) -> await_applied(Store, Index, Until)
            end
    end.

-doc false.
%% Has a function called on the node that leads, if one does. Nobody waits for it.
-spec tell_leader(Store :: atom(), call()) -> ok.
tell_leader(Store, {Module, Function, Args}) ->
    case known_leader(Store) of
        undefined ->
            ok;
        Leader when Leader =:= node() ->
            _ = apply(Module, Function, Args),
            ok;
        Leader ->
            erpc:cast(Leader, Module, Function, Args)
    end.
