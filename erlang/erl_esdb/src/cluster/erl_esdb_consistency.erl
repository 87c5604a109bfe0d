-module(erl_esdb_consistency).
-moduledoc """
What the answers of the members of a cluster say of it. Pure: `m:erl_esdb_consistency_checker` asks.

```erlang
1> [erl_esdb_consistency:required_quorum(N) || N <- [1, 2, 3, 4, 5, 7]].
[1,2,2,3,3,4]
```
""".

-export([required_quorum/1, quorum/2, membership/1, leader/1, raft/1]).
-export([check/2, overall/1]).
-export_type([answers/0, check/0, checks/0, status/0]).

%% Entries that a member may be behind another.
-define(MAX_LAG, 100).

-doc "What each of the nodes that were asked says of the cluster.".
-type answers() :: #{node() => {ok, erl_esdb_engine:view()} | {error, term()}}.
-type status() :: healthy | degraded | split_brain | no_quorum.
-type check() :: #{status := ok | warning | error, message := binary(), data := map()}.
-type checks() :: #{membership := check(), leader := check(), raft := check(), quorum := check()}.

-doc "How many of so many members have to agree.".
-spec required_quorum(non_neg_integer()) -> pos_integer().
required_quorum(Total) when is_integer(Total), Total >= 0 -> Total div 2 + 1.

-doc "Whether the members that answer are enough, and how many more may fail.".
-spec quorum(Total :: non_neg_integer(), Available :: non_neg_integer()) ->
    #{
        has_quorum := boolean(),
        total_nodes := non_neg_integer(),
        available_nodes := non_neg_integer(),
        required_quorum := pos_integer(),
        quorum_margin := integer(),
        can_lose := non_neg_integer()
    }.
quorum(Total, Available) ->
    Required = required_quorum(Total),
    #{
        has_quorum => Available >= Required,
        total_nodes => Total,
        available_nodes => Available,
        required_quorum => Required,
        quorum_margin => Available - Required,
        can_lose => max(0, Available - Required)
    }.

-doc "Whether all that answer know the same members.".
-spec membership(answers()) -> map().
membership(Answers) ->
    Views = maps:groups_from_list(
        fun({_, #{members := Members}}) -> lists:usort(Members) end,
        fun({Node, _}) -> Node end,
        views(Answers)
    ),
    Data = #{
        nodes_checked => map_size(Answers),
        nodes_responded => length(views(Answers)),
        failed_nodes => lists:sort([Node || Node := {error, _} <- Answers])
    },
    case maps:keys(Views) of
        [View] ->
            Data#{status => consensus, consistent_view => View};
        [] ->
            Data#{status => no_answer};
        Several ->
            Data#{status => split_brain, conflicting_views => length(Several), views => Views}
    end.

-spec views(answers()) -> [{node(), erl_esdb_engine:view()}].
views(Answers) -> lists:sort([{Node, View} || Node := {ok, View} <- Answers]).

-doc "Whether all that answer know the same leader.".
-spec leader(answers()) -> map().
leader(Answers) ->
    Reported = #{Node => Leader || {Node, #{leader := Leader}} <- views(Answers)},
    case lists:usort(maps:values(Reported)) of
        [Leader] when Leader =/= undefined -> #{status => consensus, leader => Leader};
        [_, _ | _] -> #{status => no_consensus, leaders_reported => Reported};
        _ -> #{status => no_leader}
    end.

-doc "Whether the logs of all that answer are of one term, and close to each other.".
-spec raft(answers()) -> map().
raft(Answers) ->
    Views = views(Answers),
    Terms = #{Node => Term || {Node, #{term := Term}} <- Views},
    {Min, Max} = range([Index || {_, #{commit_index := Index}} <- Views]),
    Consistent = length(lists:usort(maps:values(Terms))) =< 1,
    #{
        status => consensus(Consistent andalso Max - Min < ?MAX_LAG),
        terms => Terms,
        terms_consistent => Consistent,
        commit_index_range => {Min, Max},
        max_commit_lag => Max - Min,
        leader => maps:get(leader, leader(Answers), undefined)
    }.

-spec range([non_neg_integer()]) -> {non_neg_integer(), non_neg_integer()}.
range([]) -> {0, 0};
range(Indexes) -> {lists:min(Indexes), lists:max(Indexes)}.

-spec consensus(boolean()) -> consensus | warning.
consensus(true) -> consensus;
consensus(false) -> warning.

-doc "What is to be thought of one of them.".
-spec check(membership | leader | raft | quorum, map()) -> check().
check(membership, #{status := consensus, failed_nodes := []} = Data) ->
    check(ok, ~"all members know the same members", Data);
check(membership, #{status := consensus} = Data) ->
    check(warning, ~"some members do not answer", Data);
check(membership, #{status := split_brain} = Data) ->
    check(error, ~"there are several clusters of this store", Data);
check(membership, #{status := no_answer} = Data) ->
    check(error, ~"no member answers", Data);
check(leader, #{status := consensus} = Data) ->
    check(ok, ~"all members know the same leader", Data);
check(leader, #{status := no_consensus} = Data) ->
    check(warning, ~"members know different leaders", Data);
check(leader, #{status := no_leader} = Data) ->
    check(error, ~"no member knows a leader", Data);
check(raft, #{status := consensus} = Data) ->
    check(ok, ~"the logs of the members are close to each other", Data);
check(raft, #{status := warning} = Data) ->
    check(warning, ~"the log of a member is behind, or of another term", Data);
check(quorum, #{has_quorum := false} = Data) ->
    check(error, ~"too few members answer", Data);
check(quorum, #{total_nodes := Total, available_nodes := Available} = Data) when
    Available < Total
->
    check(warning, ~"some members do not answer, but enough do", Data);
check(quorum, Data) ->
    check(ok, ~"all members answer", Data).

-spec check(ok | warning | error, binary(), map()) -> check().
check(Status, Message, Data) -> #{status => Status, message => Message, data => Data}.

-doc "What is to be thought of all of it: the first of split brain, no quorum, degraded, healthy.".
-spec overall(checks()) -> status().
overall(#{membership := #{data := #{status := split_brain}}}) ->
    split_brain;
overall(#{quorum := #{data := #{has_quorum := false}}}) ->
    no_quorum;
overall(Checks) ->
    case lists:all(fun(#{status := Status}) -> Status =:= ok end, maps:values(Checks)) of
        true -> healthy;
        false -> degraded
    end.
