-module(erl_esdb_ra_view).
-moduledoc """
What the Ra server of a store on this node has said last of its cluster and of its log: each second,
by itself. Whoever wants to know it asks nobody, so that it is told also where the server hangs, and
costs nothing where it is asked for often.

```erlang
1> erl_esdb_ra_view:lag(shop).
{ok,#{'shop@10.0.0.2' => 0,'shop@10.0.0.3' => 4711}}
```
""".

-export([said/3, forget/1, voters/3, lag/1, compaction/1]).
-export_type([compaction/0]).

-define(COUNTERS, [
    minor_compactions,
    major_compactions,
    major_compaction_segments_compacted,
    major_compaction_segments_written
]).

-doc """
Of the log of commands, since its server began: how often segments of which nothing lives were
looked for (`runs`), how often others were written anew (`rewrites`), how many segments these were
and have become; and when that was last.
""".
-type compaction() :: #{
    runs := non_neg_integer(),
    rewrites := non_neg_integer(),
    segments_before := non_neg_integer(),
    segments_after := non_neg_integer(),
    age_ms => non_neg_integer()
}.

-doc "The server's word, in its process, with what Ra gives to the machine: see `ra_aux`.".
-spec said(Store :: atom(), Role :: atom(), Server :: term()) -> ok.
said(Store, Role, Server) ->
    Overview = ra_aux:overview(Server),
    Said = #{
        voters => voters(Overview),
        lag => lag(Role, Overview),
        compaction => counted(Overview, Store)
    },
    %% Of a server that runs without its store nobody asks.
    _ = erl_esdb_volatile:put(Store, ?MODULE, Said),
    ok.

-doc "What was said is of a server that is replaced by another.".
-spec forget(Store :: atom()) -> ok.
forget(Store) -> erl_esdb_volatile:delete(Store, ?MODULE).

-spec find(atom(), atom()) -> {ok, term()} | {error, not_found}.
find(Store, Key) ->
    maybe
        {ok, Said} ?= erl_esdb_volatile:get(Store, ?MODULE),
        {ok, maps:get(Key, Said)}
    end.

%% ---- who votes

-spec voters(map()) -> [node()].
voters(#{id := {_, Own} = Id, membership := Membership, cluster := Cluster}) ->
    Others = [Node || {_, Node} := Peer <- maps:remove(Id, Cluster), is_voter(Peer)],
    [Own || Membership =:= voter] ++ Others.

%% Ra says it of those that were members before it knew others.
-spec is_voter(map()) -> boolean().
is_voter(#{voter_status := #{membership := Membership}}) -> Membership =:= voter;
is_voter(#{}) -> true.

-doc """
The members of which a majority decides: without one that is just joining. `Membership` is that of
this node.
""".
-spec voters(Store :: atom(), Members :: [node()], Membership :: atom()) -> [node()].
voters(Store, Members, Membership) ->
    Voters =
        case find(Store, voters) of
            {ok, Said} -> [Node || Node <- Members, lists:member(Node, Said)];
            {error, not_found} -> Members
        end,
    case Membership of
        voter -> lists:usort([node() | Voters]);
        unknown -> Voters;
        _ -> lists:delete(node(), Voters)
    end.

%% ---- how far the others are

-spec lag(Role :: atom(), map()) -> #{node() => non_neg_integer()} | none.
lag(leader, #{id := Id, commit_index := Decided, cluster := Cluster}) ->
    #{
        Node => max(0, Decided - Has)
     || {_, Node} := #{match_index := Has} <- maps:remove(Id, Cluster)
    };
lag(_Role, _Overview) ->
    none.

-doc """
How many decided commands each other member does not have, for all that this node knows, which
leads: of one that has not answered since it does, all. Errors: `not_found` where another one leads.
""".
-spec lag(Store :: atom()) -> {ok, #{node() => non_neg_integer()}} | {error, not_found}.
lag(Store) ->
    case find(Store, lag) of
        {ok, #{} = Lag} -> {ok, Lag};
        _ -> {error, not_found}
    end.

%% ---- compaction

%% The counters, and when they were others.
-spec counted(map(), atom()) -> {map(), Since :: integer() | never} | none.
counted(#{id := Id}, Store) ->
    case {ra_counters:counters(Id, ?COUNTERS), find(Store, compaction)} of
        {undefined, _} -> none;
        {Counters, {ok, {Counters, Since}}} -> {Counters, Since};
        {Counters, _} -> {Counters, since(Counters)}
    end.

-spec since(map()) -> integer() | never.
since(#{minor_compactions := 0, major_compactions := 0}) -> never;
since(#{}) -> erlang:monotonic_time(millisecond).

-doc "What is known of it. Errors: `not_found` before the server has said something.".
-spec compaction(Store :: atom()) -> {ok, compaction()} | {error, not_found}.
compaction(Store) ->
    maybe
        {ok, {Counters, Since}} ?= find(Store, compaction),
        #{
            minor_compactions := Minor,
            major_compactions := Major,
            major_compaction_segments_compacted := Before,
            major_compaction_segments_written := After
        } = Counters,
        Compaction = #{
            runs => Minor + Major,
            rewrites => Major,
            segments_before => Before,
            segments_after => After
        },
        {ok, maps:merge(Compaction, age(Since))}
    else
        _ -> {error, not_found}
    end.

-spec age(integer() | never) -> #{age_ms => non_neg_integer()}.
age(never) -> #{};
age(Since) -> #{age_ms => erlang:monotonic_time(millisecond) - Since}.
