-module(erl_esdb_ra_members).
-moduledoc """
Changes of the members of a store's Ra cluster: one at a time, each done when a majority has it on
disk.
""".

-export([join/6, leave/4, remove/3, transfer/4]).
-export([invitation/1]).

%% Milliseconds for one try.
-define(TRY, 5000).
%% Between two looks.
-define(PAUSE, 20).

-type until() :: erl_esdb_deadline:deadline().
-type reason() ::
    {not_empty, Store :: atom()}
    | {not_member, node()}
    | {store_not_started, Store :: atom()}
    | not_started
    | {unreachable, node()}
    | no_quorum
    | timeout
    | term().

-doc """
Makes the server of this node, whose store has to be empty, a member of the cluster that the store
has on another node. It returns when this one votes and has all that the others have.

A server that this node had in the cluster before, and lost with its disk, is removed from it first.

However long it takes to copy what is there, it goes on as long as it gets on: the time that `Until`
leaves is that for which nothing more may have come. Where nothing has, or it did not begin before,
this node is no member, and its store is empty as before: `gone` where it is not known whether the
others took it up, and it is to begin anew, under another name. `ok` also where both are of one
cluster already. Errors: `{not_empty, Store}`, `{store_not_started, Store}` of the other node,
`{unreachable, Node}`, `no_quorum`, `timeout`; `not_started` where the store is stopped meanwhile.
""".
-spec join(System, Store, ra:server_id(), node(), erl_esdb_engine:settings(), until()) ->
    ok | {error | gone, reason()}
when
    System :: atom(),
    Store :: atom().
join(System, Store, Server, Node, Settings, Until) ->
    Time = erl_esdb_deadline:left(Until),
    maybe
        {ok, #{server := Contact, members := Members, machine := Machine}} ?=
            invited(Store, Node, Until),
        false ?= lists:member(Server, Members),
        ok ?= is_empty(Store, Server),
        {Lost, Others} = lists:partition(fun({_, Of}) -> Of =:= node() end, Members),
        ok ?= removed(Contact, Lost, Until),
        Uid = ra:new_uid(atom_to_binary(erl_esdb_ra_server:cluster(Store))),
        ok ?= erl_esdb_ra_server:renew(System, Store, Server, Others, Machine, Uid),
        Come = fun() -> come(System, Server) end,
        case joined(Contact, Server, Uid, {Come, Time}, Until) of
            ok -> ok;
            {error, Reason} -> {given_up(System, Store, Server, Others, Settings), Reason}
        end
    else
        true -> ok;
        {error, Why} -> {error, Why}
    end.

-spec removed(ra:server_id() | [ra:server_id()], [ra:server_id()], until()) ->
    ok | {error, reason()}.
removed(_Contact, [], _Until) ->
    ok;
removed(Contact, [Lost | More], Until) ->
    case remove(Contact, Lost, Until) of
        ok -> removed(Contact, More, Until);
        {error, {not_member, _}} -> removed(Contact, More, Until);
        {error, Reason} -> {error, Reason}
    end.

%% A member that nobody waits for would count as one that does not answer.
-spec given_up(atom(), atom(), ra:server_id(), [ra:server_id()], Settings) -> error | gone when
    Settings :: erl_esdb_engine:settings().
given_up(System, Store, Server, Others, Settings) ->
    case removed(Others, [Server], erl_esdb_deadline:in(?TRY)) of
        ok ->
            case erl_esdb_ra_server:reset(System, Store, Server, Settings) of
                ok -> error;
                {error, _} -> gone
            end;
        {error, _} ->
            ok = erl_esdb_ra_server:stop(System, Server),
            _ = erl_esdb_ra_server:delete(System, Server),
            gone
    end.

%% What is here is given up: there must be nothing, and nobody else who has it. One that does not
%% vote was about to join when its node was killed, and the others do not know of it.
-spec is_empty(atom(), ra:server_id()) -> ok | {error, {not_empty, atom()}}.
is_empty(Store, Server) ->
    maybe
        {ok, Members, _} ?= ra:members({local, Server}, ?TRY),
        true ?= Members =:= [Server] orelse not is_voter(Server),
        {ok, Replica} ?= erl_esdb_ra_replica:find(Store),
        true ?= erl_esdb_tables:is_empty(erl_esdb_ra_replica:tables(Replica)),
        ok
    else
        _ -> {error, {not_empty, Store}}
    end.

-spec invited(atom(), node(), until()) -> {ok, map()} | {error, reason()}.
invited(Store, Node, Until) ->
    try erpc:call(Node, ?MODULE, invitation, [Store], erl_esdb_deadline:left(Until)) of
        {ok, Invitation} -> {ok, Invitation};
        {error, Reason} -> {error, Reason}
    catch
        error:{erpc, timeout} -> {error, timeout};
        error:{erpc, _} -> {error, {unreachable, Node}};
        error:{exception, undef, _} -> {error, {unreachable, Node}}
    end.

-doc false.
%% What a new member has to know: who is one, and how the machine is made.
-spec invitation(atom()) ->
    {ok, #{server := ra:server_id(), members := [ra:server_id()], machine := term()}}
    | {error, term()}.
invitation(Store) ->
    maybe
        {ok, erl_esdb_engine_ra, Handle, _} ?= erl_esdb_engine:find(Store),
        Server = erl_esdb_engine_ra:server(Handle),
        {ok, Members, _} ?= ra:members(Server, ?TRY),
        {ok, Machine} ?= erl_esdb_engine_ra:machine(Handle),
        {ok, #{server => Server, members => Members, machine => Machine}}
    else
        {ok, _, _, _} -> {error, {not_clustered, Store}};
        {error, not_started} -> {error, {store_not_started, Store}};
        {timeout, _} -> {error, no_quorum};
        {error, Reason} -> {error, Reason}
    end.

-spec joined(ra:server_id(), ra:server_id(), ra:uid(), {fun(() -> come()), timeout()}, until()) ->
    ok | {error, reason()}.
joined(Contact, Server, Uid, {Come, Time}, Until) ->
    New = #{id => Server, membership => promotable, uid => Uid},
    maybe
        ok ?= changed(Contact, {'$ra_join', New, await_consensus}, Until),
        ok ?= await_moving(
            fun() -> is_ending() orelse is_voter(Server) end, Come, Time, Come()
        ),
        true ?= is_voter(Server),
        ok
    else
        false -> {error, not_started};
        {error, Reason} -> {error, Reason}
    end.

%% Whether the supervisor of this process, which may wait for long, waits for its end.
-spec is_ending() -> boolean().
is_ending() ->
    {messages, Messages} = process_info(self(), messages),
    lists:any(fun is_end/1, Messages).

-spec is_end(term()) -> boolean().
is_end({'EXIT', _, shutdown}) -> true;
is_end(_) -> false.

%% Numbers that rise while a server is sent what is there: entries, a snapshot, what it applies.
-type come() :: [integer()].

-spec come(atom(), ra:server_id()) -> come().
come(System, Server) ->
    Metrics = ra:key_metrics(Server),
    Files = erl_esdb_ra_server:files(System, Server),
    [
        maps:get(disk_bytes, Files, 0)
        | [
            maps:get(Index, Metrics, 0)
         || Index <- [last_index, last_written_index, commit_index, last_applied, snapshot_index]
        ]
    ].

%% What has been sent before, and is sent again, is no more.
-spec await_moving(fun(() -> boolean()), fun(() -> come()), timeout(), come()) ->
    ok | {error, timeout}.
await_moving(Done, Come, Time, Most) ->
    maybe
        {error, timeout} ?= await(Done, erl_esdb_deadline:in(Time)),
        case lists:zipwith(fun max/2, Most, Come()) of
            Most -> {error, timeout};
            More -> await_moving(Done, Come, Time, More)
        end
    end.

-spec is_voter(ra:server_id()) -> boolean().
is_voter(Server) ->
    maps:get(membership, ra:key_metrics(Server)) =:= voter.

-doc """
Removes this node from the cluster; then its server has no data any more, and is to be started anew.
Errors: `{not_member, Node}` of a cluster of one, `no_quorum`, `timeout`.
""".
-spec leave(System :: atom(), Store :: atom(), ra:server_id(), until()) -> ok | {error, reason()}.
leave(System, Store, {_, Node} = Server, Until) ->
    maybe
        {ok, Members, Leader} ?= members(Server, Until),
        [_ | _] ?= Others = lists:delete(Server, Members),
        ok = handed_over(Store, Leader, Server, Others, Until),
        ok ?= remove(Others, Server, Until),
        ok = erl_esdb_ra_server:stop(System, Server),
        erl_esdb_ra_server:delete(System, Server)
    else
        [] -> {error, {not_member, Node}};
        {error, Reason} -> {error, Reason}
    end.

-spec members(ra:server_id(), until()) ->
    {ok, [ra:server_id()], ra:server_id()} | {error, no_quorum | term()}.
members(Server, Until) ->
    case ra:members(Server, erl_esdb_deadline:left(Until)) of
        {ok, Members, Leader} -> {ok, Members, Leader};
        {timeout, _} -> {error, no_quorum};
        {error, Reason} -> {error, Reason}
    end.

%% Who leads hands over first: so nobody waits for an election. One that is connected may still have
%% no store that runs, and does not take all the time.
-spec handed_over(atom(), ra:server_id(), ra:server_id(), [ra:server_id()], until()) -> ok.
handed_over(Store, Server, Server, Others, Until) ->
    case lists:filter(fun is_connected/1, Others) of
        [Other | _] ->
            _ = transfer(Store, Server, Other, erl_esdb_deadline:in(try_of(Until))),
            ok;
        [] ->
            ok
    end;
handed_over(_Store, _Leader, _Server, _Others, _Until) ->
    ok.

-doc "Removes a member. Errors: `{not_member, Node}`, `no_quorum`, `timeout`.".
-spec remove(ra:server_id() | [ra:server_id()], ra:server_id(), until()) ->
    ok | {error, reason()}.
remove(Contacts, Server, Until) -> changed(Contacts, {'$ra_leave', Server, await_consensus}, Until).

-doc """
Has another member lead. Errors: `{not_member, Node}`, `{unreachable, Node}` of a member that is not
connected, `no_quorum`, `timeout`.
""".
-spec transfer(Store :: atom(), ra:server_id(), ra:server_id(), until()) -> ok | {error, reason()}.
transfer(Store, Server, {_, Node} = Target, Until) ->
    case is_connected(Target) of
        true -> transferring(Store, Server, Target, Until);
        false -> {error, {unreachable, Node}}
    end.

%% A leader that waits for one that does not answer orders nothing meanwhile.
-spec is_connected(ra:server_id()) -> boolean().
is_connected({_, Node}) -> lists:member(Node, [node() | nodes(connected)]).

-spec transferring(atom(), ra:server_id(), ra:server_id(), until()) -> ok | {error, reason()}.
transferring(Store, Server, {_, Node} = Target, Until) ->
    Left = try_of(Until),
    case ra:transfer_leadership(Server, Target, Left) of
        ok -> transferred(Store, Server, Target, Until);
        already_leader -> ok;
        {error, unknown_member} -> {error, {not_member, Node}};
        {error, Reason} -> {error, Reason};
        {timeout, _} -> {error, no_quorum}
    end.

%% The word to the next leader may be lost, where it is just ending: it is said again then.
-spec transferred(atom(), ra:server_id(), ra:server_id(), until()) -> ok | {error, reason()}.
transferred(Store, Server, Target, Until) ->
    Cluster = erl_esdb_ra_server:cluster(Store),
    Try = erl_esdb_deadline:in(try_of(Until)),
    case await(fun() -> ra_leaderboard:lookup_leader(Cluster) =:= Target end, Try) of
        ok ->
            ok;
        {error, timeout} ->
            maybe
                ok ?= erl_esdb_deadline:check(Until, false),
                transfer(Store, Server, Target, Until)
            end
    end.

%% Ra allows one change at a time, and none before a leader has committed something of its own.
-spec changed(ra:server_id() | [ra:server_id()], term(), until()) -> ok | {error, reason()}.
changed(Contacts, Command, Until) ->
    Left = try_of(Until),
    case ra_server_proc:command(Contacts, Command, Left) of
        {ok, {error, Reason}, _} -> refused(Reason, Contacts, Command, Until);
        {ok, _, _} -> ok;
        {error, Reason} -> refused(Reason, Contacts, Command, Until);
        {timeout, _} -> refused(no_quorum, Contacts, Command, Until)
    end.

-spec refused(term(), ra:server_id() | [ra:server_id()], term(), until()) -> ok | {error, reason()}.
refused(already_member, _Contacts, {'$ra_join', _, _}, _Until) ->
    ok;
refused(not_member, _Contacts, {'$ra_leave', {_, Node}, _}, _Until) ->
    {error, {not_member, Node}};
refused(Reason, Contacts, Command, Until) ->
    case erl_esdb_deadline:is_over(Until) of
        true when Reason =:= no_quorum -> {error, no_quorum};
        true -> {error, timeout};
        false ->
            ok = pause(),
            changed(Contacts, Command, Until)
    end.

-spec await(fun(() -> boolean()), until()) -> ok | {error, timeout}.
await(Fun, Until) ->
    case {Fun(), erl_esdb_deadline:is_over(Until)} of
        {true, _} ->
            ok;
        {false, true} ->
            {error, timeout};
        {false, false} ->
            ok = pause(),
            await(Fun, Until)
    end.

%% Milliseconds that one try may take.
-spec try_of(until()) -> timeout().
try_of(Until) -> min(?TRY, erl_esdb_deadline:left(Until)).

-spec pause() -> ok.
pause() ->
    receive
    after ?PAUSE -> ok
    end.
