-module(erl_esdb_three).
-moduledoc """
Stores on disk that live on three nodes: this one and two others on the loopback interface, which
are started once for many stores.

```erlang
ok = erl_esdb_three:begin_all(),
{ok, _} = erl_esdb_three:start_store(shop, #{engine => ra, data_dir => "/tmp/x/1"}),
{ok, [_, _, _]} = erl_esdb:members(shop),
ok = erl_esdb:stop_store(shop),
ok = erl_esdb_three:end_all().
```

A store begins as a cluster of three at once, which this node leads. One that was stopped here and
is started again finds the others as they were, and is made the leader again. What the others have
of stores that do not run here is stopped when the next one is started.
""".

-export([begin_all/0, end_all/0, begin_one/0, end_one/0]).
-export([start_store/2, lead/1, settled/1, peers/0]).
-export([opened/3, closed/1, has_heard/2]).

%% The others, and a table of {Store, Folder} of those that run there.
-define(PEERS, {?MODULE, peers}).
-define(STORES, ?MODULE).
-define(OTHERS, 2).
-define(TIMEOUT, 60_000).
-define(TRY, 1_000).
-define(WAIT, 30_000).
-define(HOST, "127.0.0.1").
-define(COOKIE, esdb_test).

-doc "Starts the others, and makes this node one of them.".
-spec begin_all() -> ok.
begin_all() ->
    %% With the first of them the daemon of names is there.
    Peers = erl_esdb_nodes:start(?OTHERS),
    ok = persistent_term:put(?PEERS, Peers),
    ?STORES = stores(),
    renamed(fun named/0),
    %% The others connect to each other with that.
    lists:foreach(fun(Node) -> true = net_kernel:connect_node(Node) end, others()).

-spec end_all() -> ok.
end_all() ->
    lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()),
    Peers = persistent_term:get(?PEERS),
    ok = erl_esdb_nodes:stop(Peers),
    true = persistent_term:erase(?PEERS),
    true = exit(ets:info(?STORES, owner), kill),
    renamed(fun net_kernel:stop/0).

-doc "Gives this node a name, and starts no others.".
-spec begin_one() -> ok.
begin_one() ->
    %% The daemon of names.
    ok = erl_esdb_nodes:stop(erl_esdb_nodes:start(1)),
    renamed(fun named/0).

-spec end_one() -> ok.
end_one() ->
    lists:foreach(fun erl_esdb:stop_store/1, erl_esdb:which_stores()),
    renamed(fun net_kernel:stop/0).

-doc "The others.".
-spec peers() -> [erl_esdb_nodes:peer()].
peers() -> persistent_term:get(?PEERS).

%% Of a process of its own: who begins is not who runs the cases.
-spec stores() -> atom().
stores() ->
    Self = self(),
    _ = spawn(fun() ->
        ?STORES = ets:new(?STORES, [named_table, public]),
        Self ! {?STORES, made},
        receive
            stop -> ok
        end
    end),
    receive
        {?STORES, made} -> ?STORES
    end.

%% Ra remembers under which name it was started.
-spec renamed(fun(() -> ok)) -> ok.
renamed(Rename) ->
    Running = [App || {App, _, _} <- application:which_applications(), App =:= erl_esdb],
    _ = application:stop(erl_esdb),
    _ = application:stop(ra),
    ok = Rename(),
    lists:foreach(fun(App) -> {ok, _} = application:ensure_all_started(App) end, Running).

-spec named() -> ok.
named() ->
    ok = application:set_env(kernel, inet_dist_use_interface, {127, 0, 0, 1}),
    ok = application:set_env(kernel, prevent_overlapping_partitions, false),
    Name = list_to_atom("esdb0_" ++ os:getpid() ++ "@" ++ ?HOST),
    {ok, _} = net_kernel:start(Name, #{name_domain => longnames}),
    true = erlang:set_cookie(?COOKIE),
    ok.

-doc "As `erl_esdb:start_store/2`, of a store on disk.".
-spec start_store(atom(), map()) -> {ok, pid()} | {error, term()}.
start_store(Store, #{data_dir := _} = Given) ->
    %% Three nodes on one machine: a call of thousands of commands takes longer than on one.
    Options = maps:merge(#{timeout => ?WAIT}, Given),
    {ok, _} = application:ensure_all_started(erl_esdb),
    case {lists:member(Store, erl_esdb:which_stores()), erl_esdb_config:plan(Store, Options)} of
        {false, {ok, {_, _, Settings}}} ->
            ok = leave_behind(Store, Options),
            started(Store, Options, Settings);
        _ ->
            erl_esdb:start_store(Store, Options)
    end.

%% Stores of others that do not run here, but for this one where it has the same data.
-spec leave_behind(atom(), map()) -> ok.
leave_behind(Store, #{data_dir := Dir}) ->
    Running = erl_esdb:which_stores(),
    Left = [
        S
     || {S, D} <- ets:tab2list(?STORES), {S, D} =/= {Store, Dir}, not lists:member(S, Running)
    ],
    lists:foreach(fun(S) -> true = ets:delete(?STORES, S) end, Left),
    _ = [{ok, _} = done(on(Node, closed, [S])) || S <- Left, Node <- others()],
    ok.

-spec others() -> [node()].
others() -> [erl_esdb_nodes:name(Peer) || Peer <- peers()].

%% First the servers of all three, then one of them leads, then what is above them.
-spec started(atom(), map(), erl_esdb_engine:settings()) -> {ok, pid()} | {error, term()}.
started(Store, #{data_dir := Dir} = Options, Settings) ->
    IsNew = ets:insert_new(?STORES, {Store, Dir}),
    Opening = [on(Node, opened, [Store, of_other(Node, Options), self()]) || Node <- others()],
    {ok, System} = erl_esdb_ra_systems:acquire(Dir),
    ok = begun(System, Store, Settings),
    ok = lists:foreach(fun begun/1, Opening),
    Server = server(Store, node()),
    _ = IsNew andalso ra:trigger_election(Server, ?TIMEOUT),
    Started = erl_esdb:start_store(Store, Options),
    ok = erl_esdb_ra_systems:release(Dir),
    _ = [{ok, _} = done(Opened) || Opened <- Opening],
    _ = [lead(Store) || {ok, _} <- [Started]],
    Started.

-spec of_other(node(), map()) -> map().
of_other(Node, #{data_dir := Dir} = Options) ->
    Options#{data_dir := Dir ++ "-" ++ atom_to_list(Node)}.

-doc "Has this node lead a store, which another may have done since its server ended.".
-spec lead(atom()) -> ok.
lead(Store) ->
    %% What the leader says is lost where it is heard by a server that is about to end.
    Lead = fun() -> erl_esdb_cluster:transfer_leadership(Store, node(), #{timeout => ?TRY}) end,
    erl_esdb_test:await(fun() -> Lead() =:= ok end, ?TIMEOUT).

-doc """
Waits until all nodes have heard who leads, and do what they do then: the word of it comes a moment
after the election. Until then one that leads no more may go on, also with what is asked of it now.
""".
-spec settled(atom()) -> ok.
settled(Store) -> erl_esdb_test:await(fun() -> is_settled(Store) end, ?TIMEOUT).

-spec is_settled(atom()) -> boolean().
is_settled(Store) ->
    Before = erl_esdb_cluster:view(Store),
    case Before of
        {ok, #{leader := Leader}} when Leader =/= undefined ->
            Heard = erpc:multicall([node() | others()], ?MODULE, has_heard, [Store, Leader]),
            lists:all(fun(Answer) -> Answer =:= {ok, true} end, Heard) andalso
                term(erl_esdb_cluster:view(Store)) =:= term(Before);
        _ ->
            false
    end.

-spec term({ok, erl_esdb_engine:view()} | {error, term()}) -> non_neg_integer() | none.
term({ok, #{term := Term}}) -> Term;
term({error, _}) -> none.

-doc false.
%% On each node; who answers has done what it was told before.
-spec has_heard(atom(), node()) -> boolean().
has_heard(Store, Leader) ->
    {error, unknown_request} =
        gen_server:call(erl_esdb_naming:leader_watch_name(Store), ?FUNCTION_NAME),
    {ok, Manager} = erl_esdb_delivery:pid(Store, manager, none),
    Answer = gen_server:call(Manager, ?FUNCTION_NAME),
    erl_esdb_cluster:known_leader(Store) =:= Leader andalso
        (Answer =:= {error, unknown_request}) =:= (Leader =:= node()).

-spec server(atom(), node()) -> ra:server_id().
server(Store, Node) -> {erl_esdb_naming:store_worker_name(Store), Node}.

%% The server of a store on this node, alone: one that goes on, or one of three that begin.
-spec begun(atom(), atom(), erl_esdb_engine:settings()) -> ok.
begun(System, Store, #{read_cache := ReadCache} = Settings) ->
    Server = server(Store, node()),
    ok = erl_esdb_ra_replica:prepare(Store, ReadCache),
    case ra:restart_server(System, Server) of
        ok -> ok;
        {error, {already_started, _}} -> ok;
        {error, name_not_registered} -> ra:start_server(System, config(Store, Server, Settings))
    end.

-spec config(atom(), ra:server_id(), erl_esdb_engine:settings()) -> map().
config(Store, {Name, Node} = Server, Settings) ->
    Uid = ra:new_uid(atom_to_binary(Name)),
    Limits = maps:with([idempotence_window, idempotence_appends, condition_window], Settings),
    #{
        id => Server,
        uid => Uid,
        cluster_name => Name,
        initial_members => [server(Store, N) || N <- lists:sort([Node | nodes()])],
        machine => {module, erl_esdb_ra_machine, #{store => Store, limits => Limits}},
        log_init_args => #{
            uid => Uid,
            snapshot_module => erl_esdb_ra_snapshot,
            min_snapshot_interval => 0,
            segment_max_entries => erl_esdb_ra_systems:segment_entries()
        }
    }.

%% ---- on another node

-spec on(node(), atom(), [term()]) -> {pid(), reference()}.
on(Node, Function, Arguments) -> spawn_monitor(Node, ?MODULE, Function, Arguments).

-spec begun({pid(), reference()}) -> ok.
begun({Pid, Ref}) ->
    receive
        {Pid, begun} -> ok;
        {'DOWN', Ref, process, Pid, Reason} -> error({other_node, Reason})
    end.

-spec done({pid(), reference()}) -> term().
done({Pid, Ref}) ->
    receive
        {'DOWN', Ref, process, Pid, {done, Answer}} -> Answer;
        {'DOWN', Ref, process, Pid, Reason} -> {error, Reason}
    end.

-doc false.
-spec opened(atom(), map(), pid()) -> no_return().
opened(Store, #{data_dir := Dir} = Options, From) ->
    {ok, {_, _, Settings}} = erl_esdb_config:plan(Store, Options),
    {ok, System} = erl_esdb_ra_systems:acquire(Dir),
    ok = begun(System, Store, Settings),
    From ! {self(), begun},
    case erl_esdb:start_store(Store, Options) of
        {ok, Pid} -> exit({done, {ok, Pid}});
        {error, {already_started, Pid}} -> exit({done, {ok, Pid}})
    end.

-doc false.
-spec closed(atom()) -> no_return().
closed(Store) -> exit({done, {ok, erl_esdb:stop_store(Store)}}).
