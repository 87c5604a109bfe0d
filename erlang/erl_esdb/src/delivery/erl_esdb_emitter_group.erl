-module(erl_esdb_emitter_group).
-moduledoc """
The processes that stand for a subscription: its emitters, and handlers that joined by themselves.

```erlang
1> {ok, Key} = erl_esdb_subscriptions:subscribe(shop, event_type, ~"Paid", ~"mail").
2> ok = erl_esdb_emitter_group:join(shop, Key, self()).
3> receive {event, Event} -> Event end.
```

A handler that joined gets events of the subscription as `{event, Event}`, each event one of the
handlers. `broadcast/3` is a way of its own past the subscription: one member, drawn at random, gets
`{forward_to_local, Topic, Event}` where it lives on this node, `{broadcast, Topic, Event}`
elsewhere, which an emitter passes on to its subscriber.

Members are processes of the application, not of the store: they stay members when the store is
stopped, and leave with `leave/3`, or when they end. When the process that keeps the groups crashes,
handlers are to join again.

Names of emitters are atoms, made by `emitter_name/2,3` for who asks for them; subscriptions
themselves use none.
""".

-export([join/3, leave/3, members/2, handlers/2, join_worker/3, broadcast/3]).
-export([group_key/2, worker_key/2, topic/2, emitter_name/2, emitter_name/3]).
-export([persist_emitters/3, retrieve_emitters/2, erase_emitters/2]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

-define(SCOPE, erl_esdb_pg).

-doc "Makes processes members.".
-spec join(Store :: atom(), Key :: binary(), pid() | [pid()]) -> ok.
join(Store, Key, Pids) -> pg:join(?SCOPE, group_key(Store, Key), Pids).

-doc """
Ends memberships; `ok` also for a process that is no member. A handler may still be sent what is
being read just now.
""".
-spec leave(Store :: atom(), Key :: binary(), pid() | [pid()]) -> ok.
leave(Store, Key, Pids) ->
    _ = pg:leave(?SCOPE, group_key(Store, Key), Pids),
    ok.

-doc "The members on all nodes, emitters too.".
-spec members(Store :: atom(), Key :: binary()) -> [pid()].
members(Store, Key) -> pg:get_members(?SCOPE, group_key(Store, Key)).

-doc "The members that are no emitters, in a fixed order.".
-spec handlers(Store :: atom(), Key :: binary()) -> [pid()].
handlers(Store, Key) ->
    lists:usort(members(Store, Key)) -- pg:get_members(?SCOPE, worker_key(Store, Key)).

-doc false.
%% First the mark, then the membership: nobody takes it for a handler in between.
-spec join_worker(atom(), binary(), pid()) -> ok.
join_worker(Store, Key, Pid) ->
    ok = pg:join(?SCOPE, worker_key(Store, Key), Pid),
    join(Store, Key, Pid).

-doc "Sends an event to one member.".
-spec broadcast(Store :: atom(), Key :: binary(), event()) -> ok | {error, no_emitters}.
broadcast(Store, Key, Event) ->
    case members(Store, Key) of
        [] -> {error, no_emitters};
        Members -> sent(Store, Key, Event, lists:nth(rand:uniform(length(Members)), Members))
    end.

-spec sent(atom(), binary(), event(), pid()) -> ok.
sent(Store, Key, Event, Member) ->
    Begin = erlang:monotonic_time(),
    Member ! {shape(Member), topic(Store, Key), Event},
    erl_esdb_telemetry:emit(
        ?EMITTER_BROADCAST,
        #{duration => erlang:monotonic_time() - Begin},
        #{
            store_id => Store,
            subscription_id => Key,
            event_id => id(Event),
            recipient_count => 1
        }
    ).

-spec shape(pid()) -> forward_to_local | broadcast.
shape(Pid) when node(Pid) =:= node() -> forward_to_local;
shape(_) -> broadcast.

-spec id(term()) -> binary() | undefined.
id(#event{event_id = Id}) -> Id;
id(_) -> undefined.

-doc "The name of the group.".
-spec group_key(Store :: atom(), Key :: binary()) -> {atom(), binary(), emitters}.
group_key(Store, Key) -> {Store, Key, emitters}.

-doc false.
-spec worker_key(atom(), binary()) -> {atom(), binary(), emitter_workers}.
worker_key(Store, Key) -> {Store, Key, emitter_workers}.

-doc "The topic that stands in messages.".
-spec topic(Store :: atom(), Key :: binary()) -> binary().
topic(Store, Key) -> <<(atom_to_binary(Store))/binary, $:, Key/binary>>.

-doc "The name of the first emitter. Makes an atom.".
-spec emitter_name(Store :: atom(), Key :: binary()) -> atom().
emitter_name(Store, Key) -> binary_to_atom(<<(base(Store, Key))/binary, "_emitter">>).

-doc "The name of the Nth emitter. Makes an atom.".
-spec emitter_name(Store :: atom(), Key :: binary(), pos_integer()) -> atom().
emitter_name(Store, Key, N) when is_integer(N), N > 0 ->
    binary_to_atom(<<(base(Store, Key))/binary, "_emitter_", (integer_to_binary(N))/binary>>).

-spec base(atom(), binary()) -> binary().
base(Store, Key) -> <<(atom_to_binary(Store))/binary, $_, Key/binary>>.

-doc "Keeps the names of the emitters of a subscription: one without number, then 2 to Pool.".
-spec persist_emitters(Store :: atom(), Key :: binary(), Pool :: pos_integer()) -> [atom()].
persist_emitters(Store, Key, Pool) when is_integer(Pool), Pool > 0 ->
    Numbered = [emitter_name(Store, Key, N) || N <- lists:seq(2, Pool)],
    Names = [emitter_name(Store, Key) | Numbered],
    persistent_term:put(group_key(Store, Key), list_to_tuple(Names)),
    Names.

-doc "The names that were kept, `[]` where there are none.".
-spec retrieve_emitters(Store :: atom(), Key :: binary()) -> [atom()].
retrieve_emitters(Store, Key) ->
    tuple_to_list(persistent_term:get(group_key(Store, Key), {})).

-doc "Forgets the names.".
-spec erase_emitters(Store :: atom(), Key :: binary()) -> ok.
erase_emitters(Store, Key) ->
    _ = persistent_term:erase(group_key(Store, Key)),
    ok.
