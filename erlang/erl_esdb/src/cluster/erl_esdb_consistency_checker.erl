-module(erl_esdb_consistency_checker).
-moduledoc """
Asks the members of a store's cluster what they know of it, and compares.

```erlang
1> erl_esdb_consistency_checker:get_status(shop).
{ok,healthy}
2> erl_esdb_consistency_checker:get_quorum_status(shop).
{ok,#{has_quorum => true,total_nodes => 3,available_nodes => 3,required_quorum => 2,
      quorum_margin => 1,can_lose => 1}}
```

Asked are the members that this node knows, and connected nodes on which the store runs in mode
`cluster` or has several members: two clusters of one store are a `split_brain`. Where answers
differ they are asked for up to three times, a tenth of a second apart, for members learn of a
change one after the other.

| status | |
|---|---|
| `split_brain` | members know different members |
| `no_quorum` | so few answer that nothing can be written |
| `degraded` | any other check has an error or a warning |
| `healthy` | |

In mode `cluster`, and where there are other members, the process checks each
`consistency_check_interval` (5000 milliseconds, at least 1000). The other functions work without
it.

Telemetry: `[erl_esdb, consistency, check, complete]` after each check; when something changes
`[erl_esdb, consistency, status, changed]`, `[erl_esdb, consistency, split_brain, detected]`,
`[erl_esdb, consistency, quorum, lost]` and `restored`.
""".

-behaviour(gen_server).

-export([start_link/1, check_now/1, get_status/1]).
-export([verify_membership_consensus/1, verify_leader_consensus/1, verify_raft_consistency/1]).
-export([get_quorum_status/1, get_local_raft_stats/1, on_status_change/2, remove_callback/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([check_result/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Milliseconds: between checks, at least and by default; for the answers of others; and between two
%% questions where answers differ, and how often.
-define(FLOOR, 1000).
-define(INTERVAL, 5000).
-define(ASK, 5000).
-define(SETTLE, 100).
-define(LOOKS, 3).

-type check_result() :: #{
    status := erl_esdb_consistency:status(),
    checks := erl_esdb_consistency:checks(),
    timestamp := Milliseconds :: integer(),
    duration_us := non_neg_integer()
}.
-type failure() :: erl_esdb_store:failure().

-record(state, {
    store :: atom(),
    mode :: single | cluster,
    status = healthy :: erl_esdb_consistency:status(),
    has_quorum = true :: boolean(),
    callbacks = [] :: [{reference(), fun((erl_esdb_consistency:status()) -> term())}],
    %% the process that checks
    check :: reference() | undefined
}).

-doc "Starts the process, registered as `erl_esdb_naming:consistency_checker_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store, mode = Mode}) ->
    Name = erl_esdb_naming:consistency_checker_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, {Store, Mode}, [])
    end).

-doc "Checks, in the calling process. Errors: the failures of a store.".
-spec check_now(Store :: atom()) -> check_result() | {error, failure()}.
check_now(Store) ->
    case checked(Store) of
        {ok, Result} ->
            _ = call(Store, {checked, Result}),
            Result;
        {error, Reason} ->
            {error, Reason}
    end.

-doc "What the last check found. Errors: `not_running`.".
-spec get_status(Store :: atom()) -> {ok, erl_esdb_consistency:status()} | {error, not_running}.
get_status(Store) -> call(Store, get_status).

-doc "Whether all members know the same members. Errors: the failures of a store.".
-spec verify_membership_consensus(Store :: atom()) -> {ok, map()} | {error, failure()}.
verify_membership_consensus(Store) -> of_answers(Store, fun erl_esdb_consistency:membership/1).

-doc "Whether all members know the same leader. Errors: the failures of a store.".
-spec verify_leader_consensus(Store :: atom()) -> {ok, map()} | {error, failure()}.
verify_leader_consensus(Store) -> of_answers(Store, fun erl_esdb_consistency:leader/1).

-doc "Whether the logs of all members are close to each other. Errors: the failures of a store.".
-spec verify_raft_consistency(Store :: atom()) -> {ok, map()} | {error, failure()}.
verify_raft_consistency(Store) -> of_answers(Store, fun erl_esdb_consistency:raft/1).

-doc "Whether enough members answer. Errors: the failures of a store.".
-spec get_quorum_status(Store :: atom()) -> {ok, map()} | {error, failure()}.
get_quorum_status(Store) ->
    maybe
        {ok, Voters, Answers} ?= answers(Store),
        {ok, quorum(Voters, Answers)}
    end.

-spec of_answers(atom(), fun((erl_esdb_consistency:answers()) -> map())) ->
    {ok, map()} | {error, failure()}.
of_answers(Store, Fun) ->
    maybe
        {ok, _, Answers} ?= answers(Store),
        {ok, Fun(Answers)}
    end.

-doc """
What this node knows of the cluster, and the mode that the store runs in: what the others ask for.
Errors: the failures of a store.
""".
-spec get_local_raft_stats(Store :: atom()) -> {ok, map()} | {error, failure()}.
get_local_raft_stats(Store) ->
    maybe
        {ok, View} ?= erl_esdb_cluster:view(Store),
        Modes = [Mode || {S, #{mode := Mode}} <- erl_esdb_engine:lives(), S =:= Store],
        {ok, View#{mode => hd(Modes ++ [single])}}
    end.

-doc "Has a fun called, in a process of its own, with each new status. Errors: `not_running`.".
-spec on_status_change(Store :: atom(), fun((erl_esdb_consistency:status()) -> term())) ->
    reference() | {error, not_running}.
on_status_change(Store, Fun) when is_function(Fun, 1) -> call(Store, {add, Fun});
on_status_change(_, _) -> error(badarg).

-doc "Has it called no more; `ok` also for a reference that is not known. Errors: `not_running`.".
-spec remove_callback(Store :: atom(), reference()) -> ok | {error, not_running}.
remove_callback(Store, Ref) -> call(Store, {remove, Ref}).

-spec call(atom(), term()) -> term() | {error, not_running}.
call(Store, Request) ->
    try
        gen_server:call(erl_esdb_naming:consistency_checker_name(Store), Request)
    catch
        exit:{_, {gen_server, call, _}} -> {error, not_running}
    end.

%% ---- the process

-doc false.
-spec init({atom(), single | cluster}) -> {ok, #state{}}.
init({Store, Mode}) -> {ok, later(#state{store = Store, mode = Mode})}.

-spec later(#state{}) -> #state{}.
later(#state{mode = single} = State) ->
    State;
later(State) ->
    Interval = erl_esdb_config:get_env(consistency_check_interval, ?INTERVAL),
    _ = erlang:send_after(max(?FLOOR, Interval), self(), check),
    State.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({checked, Result}, _From, State) ->
    {reply, ok, judged(Result, State)};
handle_call(get_status, _From, #state{status = Status} = State) ->
    {reply, {ok, Status}, State};
handle_call({add, Fun}, _From, #state{callbacks = Callbacks} = State) ->
    Ref = make_ref(),
    {reply, Ref, State#state{callbacks = [{Ref, Fun} | Callbacks]}};
handle_call({remove, Ref}, _From, #state{callbacks = Callbacks} = State) ->
    {reply, ok, State#state{callbacks = lists:keydelete(Ref, 1, Callbacks)}};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info(check, #state{check = undefined, store = Store} = State) ->
    %% Members that do not answer take their time: who asks for the status does not wait for them.
    Ref = erl_esdb_task:start(fun() -> checked(Store) end),
    {noreply, State#state{check = Ref}};
handle_info({'DOWN', Ref, process, _, Reason}, #state{check = Ref} = State) ->
    {noreply, later(ended(Reason, State#state{check = undefined}))};
handle_info(_, State) ->
    {noreply, State}.

%% A store that does not answer here says nothing of the cluster.
-spec ended(term(), #state{}) -> #state{}.
ended({done, {ok, Result}}, State) ->
    judged(Result, State);
ended(Reason, #state{store = Store} = State) ->
    ?LOG_DEBUG("store ~tp: the cluster was not checked: ~tP", [Store, Reason, 20]),
    State.

-spec judged(check_result(), #state{}) -> #state{}.
judged(#{status := Status, checks := #{quorum := #{data := Quorum}}} = Result, State) ->
    changed(Status, Result, quorum_changed(Quorum, State)).

-spec quorum_changed(map(), #state{}) -> #state{}.
quorum_changed(#{has_quorum := Has}, #state{has_quorum = Has} = State) ->
    State;
quorum_changed(#{has_quorum := Has} = Quorum, State) ->
    Event =
        case Has of
            true -> ?QUORUM_RESTORED;
            false -> ?QUORUM_LOST
        end,
    tell(Event, maps:with([available_nodes, required_quorum], Quorum), #{}, State),
    State#state{has_quorum = Has}.

-spec changed(erl_esdb_consistency:status(), check_result(), #state{}) -> #state{}.
changed(Status, _Result, #state{status = Status} = State) ->
    State;
changed(Status, Result, #state{status = Before, callbacks = Callbacks} = State) ->
    tell(?CONSISTENCY_STATUS_CHANGED, #{}, #{old_status => Before, new_status => Status}, State),
    Status =:= split_brain andalso tell(?SPLIT_BRAIN_DETECTED, #{}, #{result => Result}, State),
    lists:foreach(fun({_, Fun}) -> spawn(fun() -> Fun(Status) end) end, Callbacks),
    State#state{status = Status}.

-spec tell(erl_esdb_telemetry:event_name(), map(), map(), #state{}) -> ok.
tell(Event, Measurements, Metadata, #state{store = Store}) ->
    Now = erlang:system_time(millisecond),
    erl_esdb_telemetry:emit(Event, Measurements#{system_time => Now}, Metadata#{store_id => Store}).

%% ---- a check

-spec checked(atom()) -> {ok, check_result()} | {error, failure()}.
checked(Store) ->
    Begin = erlang:monotonic_time(microsecond),
    maybe
        {ok, Voters, Answers} ?= answers(Store),
        Checks = checks(Voters, Answers),
        Status = erl_esdb_consistency:overall(Checks),
        Duration = erlang:monotonic_time(microsecond) - Begin,
        erl_esdb_telemetry:emit(
            ?CONSISTENCY_CHECK_COMPLETE,
            #{duration_us => Duration},
            #{store_id => Store, status => Status, checks => Checks}
        ),
        {ok, #{
            status => Status,
            checks => Checks,
            timestamp => erlang:system_time(millisecond),
            duration_us => Duration
        }}
    end.

-spec checks([node()], erl_esdb_consistency:answers()) -> erl_esdb_consistency:checks().
checks(Voters, Answers) ->
    Data = #{
        membership => erl_esdb_consistency:membership(Answers),
        leader => erl_esdb_consistency:leader(Answers),
        raft => erl_esdb_consistency:raft(Answers),
        quorum => quorum(Voters, Answers)
    },
    #{Which => erl_esdb_consistency:check(Which, Found) || Which := Found <- Data}.

-spec quorum([node()], erl_esdb_consistency:answers()) -> map().
quorum(Voters, Answers) ->
    Available = [Node || Node := {ok, _} <- maps:with(Voters, Answers)],
    erl_esdb_consistency:quorum(length(Voters), length(Available)).

-spec answers(atom()) ->
    {ok, Voters :: [node()], erl_esdb_consistency:answers()} | {error, failure()}.
answers(Store) -> answers(Store, ?LOOKS).

-spec answers(atom(), pos_integer()) ->
    {ok, [node()], erl_esdb_consistency:answers()} | {error, failure()}.
answers(Store, Looks) ->
    case asked(Store) of
        {ok, Voters, Answers} when Looks > 1 ->
            case is_settled(Answers) of
                true ->
                    {ok, Voters, Answers};
                false ->
                    receive
                    after ?SETTLE -> answers(Store, Looks - 1)
                    end
            end;
        Asked ->
            Asked
    end.

-spec is_settled(erl_esdb_consistency:answers()) -> boolean().
is_settled(Answers) ->
    #{status := Membership} = erl_esdb_consistency:membership(Answers),
    #{status := Leader} = erl_esdb_consistency:leader(Answers),
    {Membership, Leader} =:= {consensus, consensus}.

-spec asked(atom()) -> {ok, [node()], erl_esdb_consistency:answers()} | {error, failure()}.
asked(Store) ->
    maybe
        {ok, #{members := Members} = Own} ?= get_local_raft_stats(Store),
        Nodes = lists:usort(Members ++ nodes()) -- [node()],
        Given = erpc:multicall(Nodes, ?MODULE, get_local_raft_stats, [Store], ?ASK),
        Others = maps:from_list([{N, given(A)} || {N, A} <- lists:zip(Nodes, Given)]),
        Concerned = maps:filter(fun(N, A) -> is_concerned(N, A, Members) end, Others),
        %% Who does not vote yet counts for no quorum.
        {ok, maps:get(voters, Own, Members), Concerned#{node() => {ok, Own}}}
    end.

-spec given(term()) -> {ok, map()} | {error, term()}.
given({ok, {ok, Stats}}) -> {ok, Stats};
given({ok, {error, Reason}}) -> {error, Reason};
given({_Class, Reason}) -> {error, Reason}.

%% Any other node need not have the store.
-spec is_concerned(node(), {ok, map()} | {error, term()}, [node()]) -> boolean().
is_concerned(_Node, {ok, #{mode := cluster}}, _Members) -> true;
is_concerned(_Node, {ok, #{members := [_, _ | _]}}, _Members) -> true;
is_concerned(Node, _Answer, Members) -> lists:member(Node, Members).
