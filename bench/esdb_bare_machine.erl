-module(esdb_bare_machine).
-moduledoc """
The least that keeps appends on Ra, for benchmarks: a rival of the store, and what it stands on.

Bodies live in the log, and the machine knows the indexes of those that are there. It has no
streams, versions or positions, checks nothing, recognises nothing that comes twice, and finds
nothing again. Snapshots as often as in a store whose events are small.
""".

-behaviour(ra_machine).

-export([init/1, apply/3, live_indexes/1]).
-export([start/2, stop/1, append/2, count/1, kept/1]).

-define(COMMANDS, 20_000).

-type state() :: {ra_seq:state(), Kept :: non_neg_integer(), Since :: non_neg_integer()}.

-doc false.
-spec init(map()) -> state().
init(_) -> {[], 0, 0}.

-doc false.
-spec apply(ra_machine:command_meta_data(), {append, binary()} | term(), state()) ->
    {state(), term()} | {state(), term(), ra_machine:effects()}.
apply(#{index := Index}, {append, _Body}, {Live, Kept, Since}) ->
    Live1 = ra_seq:append(Index, Live),
    case Since >= ?COMMANDS andalso Since >= Kept div 10 of
        true ->
            State = {Live1, Kept + 1, 0},
            Effect = {release_cursor, Index, State, #{condition => [{written, Index}]}},
            {State, {ok, Kept}, [Effect]};
        false ->
            {{Live1, Kept + 1, Since + 1}, {ok, Kept}}
    end;
apply(_, _, State) ->
    {State, ok}.

-doc false.
-spec live_indexes(state()) -> {ra_seq, ra_seq:state()}.
live_indexes({Live, _, _}) -> {ra_seq, Live}.

-doc """
A cluster of these nodes, the first of which is this one, with the settings that stores have: each
has a folder of its own below `Dir`.
""".
-spec start(file:filename(), [node(), ...]) -> ra:server_id().
start(Dir, [Here | _] = Nodes) ->
    Servers = [{?MODULE, Node} || Node <- Nodes],
    [ok = on(Node, fun() -> started(Dir, Servers) end) || Node <- Nodes],
    ok = ra:trigger_election({?MODULE, Here}),
    {ok, _, Leader} = ra:members(hd(Servers), 10_000),
    Leader.

-spec on(node(), fun(() -> Result)) -> Result.
on(Node, Fun) when Node =:= node() -> Fun();
on(Node, Fun) -> erpc:call(Node, Fun).

-spec started(file:filename(), [ra:server_id(), ...]) -> ok | {error, term()}.
started(Dir, Servers) ->
    {ok, System} = keeper(filename:join(Dir, node())),
    Uid = ra:new_uid(~"bare"),
    ra:start_server(System, #{
        id => {?MODULE, node()},
        uid => Uid,
        cluster_name => ?MODULE,
        initial_members => Servers,
        machine => {module, ?MODULE, #{}},
        log_init_args => #{
            uid => Uid,
            min_snapshot_interval => 0,
            segment_max_entries => erl_esdb_ra_systems:segment_entries()
        }
    }).

%% A Ra system belongs to a process: here to one that lives until `stop/1`.
-spec keeper(file:filename()) -> {ok, atom()}.
keeper(Dir) ->
    Self = self(),
    _ = spawn(fun() ->
        true = register(esdb_bare_keeper, self()),
        Self ! {?MODULE, erl_esdb_ra_systems:acquire(Dir)},
        receive
            {stop, Pid} ->
                ok = erl_esdb_ra_systems:release(Dir),
                Pid ! {?MODULE, stopped}
        end
    end),
    receive
        {?MODULE, {ok, System}} -> {ok, System}
    end.

-doc "Ends it on these nodes.".
-spec stop([node(), ...]) -> ok.
stop(Nodes) ->
    lists:foreach(fun(Node) -> on(Node, fun stopped/0) end, Nodes).

-spec stopped() -> ok.
stopped() ->
    esdb_bare_keeper ! {stop, self()},
    receive
        {?MODULE, stopped} -> ok
    end.

-doc "Appends events, encoded here as a store's are.".
-spec append(ra:server_id(), [map()]) -> ok.
append(Leader, Events) ->
    Body = term_to_binary(Events),
    {ok, {ok, _}, _} = ra:process_command(Leader, {append, Body}, 60_000),
    ok.

-doc "How many appends there are.".
-spec count(ra:server_id()) -> non_neg_integer().
count(Leader) ->
    {ok, Kept, _} = ra:consistent_query(Leader, {?MODULE, kept, []}),
    Kept.

-doc false.
-spec kept(state()) -> non_neg_integer().
kept({_, Kept, _}) -> Kept.
