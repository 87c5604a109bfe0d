-module(erl_esdb_metrics_collector).
-moduledoc """
What the stores of this node tell of themselves at each scrape: `erl_esdb:status/2`, as gauges.

The stores are asked at the same time. What one does not know, or does not tell in time, has no
sample.
""".

-behaviour(prometheus_collector).

-export([collect_mf/2, collect_metrics/2, deregister_cleanup/1, metrics/0]).

-type labels() :: [{atom(), binary()}].
-type sample() :: {labels(), number()}.
-type status() :: #{store := atom(), _ => _}.

-doc "The metrics with their descriptions.".
-spec metrics() -> [{atom(), string()}, ...].
metrics() -> [{Name, Help} || {Name, Help, _} <- families()].

-spec families() -> [{atom(), string(), fun((status()) -> [sample()])}, ...].
families() ->
    [
        {erl_esdb_store_ready, "1 if the store can append, and read what was appended last",
            fun(#{store := Store} = Status) ->
                [{store(Store), flag(maps:get(readiness, Status, no) =:= ready)}]
            end},
        {erl_esdb_store_leader, "1 if this node leads the store",
            of_store(role, fun(Role) -> flag(Role =:= leader) end)},
        {erl_esdb_store_members, "Nodes of the store", of_store(members, fun erlang:length/1)},
        {erl_esdb_uptime_seconds, "Since the store began", of_store(uptime_ms, fun seconds/1)},
        {erl_esdb_next_position, "The position that the next event gets", of_store(next_position)},
        {erl_esdb_lag_commands, "Commands that are decided and not yet done here", of_store(lag)},
        {erl_esdb_member_lag_commands,
            "Decided commands that another member does not have, as the leader knows it",
            fun members_lag/1},
        {erl_esdb_waiting_commands, "Commands that wait for the engine", of_store(waiting)},
        {erl_esdb_term, "Grows with each election", of_store(term)},
        {erl_esdb_last_index, "The last command that this node has", of_store(last_index)},
        {erl_esdb_commit_index, "The last command that is decided", of_store(commit_index)},
        {erl_esdb_applied_index, "The last command that is done here", of_store(applied_index)},
        {erl_esdb_snapshot_index, "The last command of the newest snapshot of the engine",
            of_store(snapshot_index)},
        {erl_esdb_snapshot_age_seconds, "Since the newest snapshot of the engine",
            of_store(snapshot_age_ms, fun seconds/1)},
        {erl_esdb_ram_bytes, "RAM of the engine", of_store(ram_bytes)},
        {erl_esdb_disk_bytes, "Files of the store", of_store(disk_bytes)},
        {erl_esdb_wal_bytes, "The log that all stores of the folder share", of_store(wal_bytes)},
        {erl_esdb_segments, "Files of events", of_store(segments)},
        {erl_esdb_index_bytes, "RAM of the indexes", of_part(index, bytes)},
        {erl_esdb_index_entries, "Entries of the indexes", of_part(index, entries)},
        {erl_esdb_index_lag, "Positions that are not indexed yet", of_part(index, lag)},
        {erl_esdb_subscription_lag, "Positions that a subscription has not handled",
            of_each(subscriptions, fun subscription/1, fun lag/1)},
        {erl_esdb_subscription_running, "1 if a subscription delivers from this node",
            of_each(subscriptions, fun subscription/1, fun running/1)},
        {erl_esdb_projection_lag, "Positions that a projection has not folded",
            of_each(projections, fun projection/1, fun lag/1)},
        {erl_esdb_projection_running, "1 if a projection answers",
            of_each(projections, fun projection/1, fun running/1)}
    ].

-doc false.
-spec collect_mf(prometheus_registry:registry(), prometheus_collector:collect_mf_callback()) -> ok.
collect_mf(_Registry, Callback) ->
    Statuses = statuses(erl_esdb_metrics_config:get(timeout)),
    lists:foreach(
        fun({Name, Help, Samples}) ->
            %% A family without samples has no place in a scrape.
            case [Sample || S <- Statuses, {_, N} = Sample <- Samples(S), is_number(N)] of
                [] -> ok;
                Found -> Callback(prometheus_model_helpers:create_mf(Name, Help, gauge, Found))
            end
        end,
        families()
    ).

-doc false.
-spec collect_metrics(prometheus_metric:name(), [sample()]) -> [prometheus_model:'Metric'()].
collect_metrics(_Name, Samples) -> prometheus_model_helpers:gauge_metrics(Samples).

-doc false.
-spec deregister_cleanup(prometheus_registry:registry()) -> ok.
deregister_cleanup(_Registry) -> ok.

%% ---- the stores

-spec statuses(pos_integer()) -> [status()].
statuses(Timeout) ->
    Ask = fun(Store) -> erl_esdb:status(Store, #{timeout => Timeout}) end,
    Answers = erl_esdb_metrics_stores:ask(erl_esdb_metrics_stores:names(), {Ask, error}),
    [status(Store, Answer) || {Store, Answer} <- Answers].

-spec status(atom(), {ok, status()} | {error, term()} | error) -> status().
status(_Store, {ok, Status}) -> Status;
status(Store, _) -> #{store => Store}.

%% ---- samples

-spec of_store(atom()) -> fun((status()) -> [sample()]).
of_store(Key) -> of_store(Key, fun(Value) -> Value end).

-spec of_store(atom(), fun((term()) -> number())) -> fun((status()) -> [sample()]).
of_store(Key, Number) ->
    fun
        (#{store := Store, Key := Value}) -> [{store(Store), Number(Value)}];
        (#{}) -> []
    end.

-spec of_part(atom(), atom()) -> fun((status()) -> [sample()]).
of_part(Part, Key) ->
    fun
        (#{store := Store, Part := #{Key := Value}}) -> [{store(Store), Value}];
        (#{}) -> []
    end.

-spec of_each(atom(), fun((map()) -> labels()), fun((map()) -> [number()])) ->
    fun((status()) -> [sample()]).
of_each(Parts, Labels, Numbers) ->
    fun
        (#{store := Store, Parts := List}) ->
            [{store(Store) ++ Labels(Part), N} || Part <- List, N <- Numbers(Part)];
        (#{}) ->
            []
    end.

-spec members_lag(status()) -> [sample()].
members_lag(#{store := Store, members_lag := Lags}) ->
    [{store(Store) ++ [{member, atom_to_binary(Node)}], Lag} || Node := Lag <- Lags];
members_lag(#{}) ->
    [].

-spec lag(map()) -> [non_neg_integer()].
lag(#{lag := Lag}) -> [Lag];
lag(#{}) -> [].

-spec running(map()) -> [0 | 1].
running(#{status := Status}) -> [flag(Status =:= running)].

-spec store(atom()) -> labels().
store(Store) -> [{store, atom_to_binary(Store)}].

-spec subscription(map()) -> labels().
subscription(#{key := Key, name := Name}) ->
    [{subscription, erl_esdb_metrics_label:of_name(Name)}, {key, Key}].

-spec projection(map()) -> labels().
projection(#{name := Name}) -> [{projection, erl_esdb_metrics_label:of_name(Name)}].

-spec flag(boolean()) -> 0 | 1.
flag(true) -> 1;
flag(false) -> 0.

-spec seconds(integer()) -> float().
seconds(Milliseconds) -> Milliseconds / 1000.
