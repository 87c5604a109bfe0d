-module(erl_esdb_tracker_group).
-moduledoc """
Processes that are told when something of a store is made, changed or removed.

```erlang
1> ok = erl_esdb_tracker_group:join(shop, subscriptions, self()).
2> {ok, _} = erl_esdb_subscriptions:subscribe(shop, event_type, ~"Paid", ~"mail").
3> receive {feature_created, subscriptions, Subscription} -> Subscription end.
```

A group is one of the process groups of the scope `erl_esdb_pg`, so members may live on any node
that is connected. They stay members when the store is stopped, until they leave or end; when the
process that keeps the groups crashes, they are to join again.
""".

-export([group_key/2, join/3, leave/3, members/2]).
-export([notify_created/3, notify_updated/3, notify_deleted/3]).
-export_type([feature/0]).

-define(SCOPE, erl_esdb_pg).

-type feature() :: subscriptions | streams | snapshots | atom().

-doc "The name of the group.".
-spec group_key(Store :: atom(), feature()) -> non_neg_integer().
group_key(Store, Feature) -> erlang:phash2({Store, Feature, trackers}).

-doc "Makes processes members. One that joins twice is a member twice.".
-spec join(Store :: atom(), feature(), pid() | [pid()]) -> ok.
join(Store, Feature, Pids) -> pg:join(?SCOPE, group_key(Store, Feature), Pids).

-doc "Ends memberships; `ok` also for a process that is no member.".
-spec leave(Store :: atom(), feature(), pid() | [pid()]) -> ok.
leave(Store, Feature, Pids) ->
    _ = pg:leave(?SCOPE, group_key(Store, Feature), Pids),
    ok.

-doc "The members on all nodes.".
-spec members(Store :: atom(), feature()) -> [pid()].
members(Store, Feature) -> pg:get_members(?SCOPE, group_key(Store, Feature)).

-doc "Sends `{feature_created, Feature, Data}` to the members.".
-spec notify_created(Store :: atom(), feature(), Data :: term()) -> ok.
notify_created(Store, Feature, Data) -> notify(Store, Feature, {feature_created, Feature, Data}).

-doc "Sends `{feature_updated, Feature, Data}` to the members.".
-spec notify_updated(Store :: atom(), feature(), Data :: term()) -> ok.
notify_updated(Store, Feature, Data) -> notify(Store, Feature, {feature_updated, Feature, Data}).

-doc "Sends `{feature_deleted, Feature, Data}` to the members.".
-spec notify_deleted(Store :: atom(), feature(), Data :: term()) -> ok.
notify_deleted(Store, Feature, Data) -> notify(Store, Feature, {feature_deleted, Feature, Data}).

-spec notify(atom(), feature(), tuple()) -> ok.
notify(Store, Feature, Message) ->
    lists:foreach(fun(Pid) -> Pid ! Message end, members(Store, Feature)).
