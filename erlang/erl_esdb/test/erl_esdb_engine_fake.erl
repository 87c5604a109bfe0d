-module(erl_esdb_engine_fake).
-moduledoc """
An engine for tests that lives on several nodes: the events are in memory on one of them, the home,
and the others ask there. Who leads is a word of the home; when the leader's node goes down it is
the home itself. A fate decides what becomes of each command there: it may be done twice, or
something be done between a command and its answer.
""".

-behaviour(erl_esdb_engine).
-behaviour(gen_server).

-export([start_store/2, set_fate/2]).
-export([start_link/2, command/3, read/6, read_log/5]).
-export([stream/3, streams/2, names/5, tip/3, tombs/4, metadata/3]).
-export([next_position/2, document/3, documents/4, checkpoint/3, checkpoints/2]).
-export([view/1, join/3, leave/2, transfer_leadership/3, force_remove/3]).
-export([at_home/4, set_home/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include("../include/erl_esdb.hrl").

-record(state, {
    store :: atom(), members :: [node()], leader :: node(), term = 1 :: pos_integer()
}).

start_store(Store, Options) ->
    {ok, {Config, _, Settings}} =
        erl_esdb_config:plan(Store, maps:merge(#{engine => memory}, Options)),
    supervisor:start_child(erl_esdb_sup, #{
        id => {store, Store},
        start => {erl_esdb_system_sup, start_link, [{Config, ?MODULE, Settings}]},
        restart => transient,
        shutdown => infinity,
        type => supervisor
    }).

start_link(Store, Settings) ->
    gen_server:start_link({local, name(Store)}, ?MODULE, {Store, Settings}, []).

name(Store) -> list_to_atom("fake_engine_" ++ atom_to_list(Store)).
memory(Store) -> list_to_atom("fake_memory_" ++ atom_to_list(Store)).

init({Store, #{life := Life} = Settings}) ->
    process_flag(trap_exit, true),
    {ok, _} = erl_esdb_engine_memory:start_link(memory(Store), Settings#{life => Life}),
    ok = set_home(Store, node()),
    ok = set_fate(Store, fun(Apply, Command) -> Apply(Command) end),
    %% `ignored' where nothing is distributed.
    _ = net_kernel:monitor_nodes(true),
    ok = erl_esdb_engine:ready(Store, ?MODULE, {Store, Settings}),
    {ok, #state{store = Store, members = [node()], leader = node()}}.

set_home(Store, Node) -> persistent_term:put({?MODULE, Store}, Node).

%% `Fate(Apply, Command)' is the answer to a command; `Apply' has the engine do one.
set_fate(Store, Fate) -> persistent_term:put({?MODULE, fate, Store}, Fate).

home(Store) -> persistent_term:get({?MODULE, Store}).

%% ---- data

command(Store, Command, Timeout) -> ask(Store, command, [Command, Timeout]).
read(Store, Stream, From, Count, Direction, Options) ->
    ask(Store, read, [Stream, From, Count, Direction, Options]).
read_log(Store, From, Count, Direction, Options) ->
    ask(Store, read_log, [From, Count, Direction, Options]).
stream(Store, Stream, Options) -> ask(Store, stream, [Stream, Options]).
streams(Store, Options) -> ask(Store, streams, [Options]).
names(Store, Behind, Prefix, Limit, Options) ->
    ask(Store, names, [Behind, Prefix, Limit, Options]).
tip(Store, Stream, Options) -> ask(Store, tip, [Stream, Options]).
tombs(Store, Behind, Limit, Options) -> ask(Store, tombs, [Behind, Limit, Options]).
metadata(Store, Stream, Options) -> ask(Store, metadata, [Stream, Options]).
next_position(Store, Options) -> ask(Store, next_position, [Options]).
document(Store, Key, Options) -> ask(Store, document, [Key, Options]).
documents(Store, From, To, Options) -> ask(Store, documents, [From, To, Options]).
checkpoint(Store, Key, Options) -> ask(Store, checkpoint, [Key, Options]).
checkpoints(Store, Options) -> ask(Store, checkpoints, [Options]).

ask(Store, Function, Args) ->
    try
        erpc:call(home(Store), ?MODULE, at_home, [Store, Function, Args, node()], 5000)
    catch
        error:{erpc, _} -> {error, timeout}
    end.

at_home(Store, Function, Args, _From) ->
    case erl_esdb_engine:find(memory(Store)) of
        {ok, Engine, Handle, _} ->
            Answer = done(Store, Engine, Handle, Function, Args),
            Function =:= command andalso gen_server:cast(name(Store), committed),
            Answer;
        {error, Reason} ->
            {error, Reason}
    end.

done(Store, Engine, Handle, command, [Command, Timeout]) ->
    Fate = persistent_term:get({?MODULE, fate, Store}),
    Fate(fun(Given) -> Engine:command(Handle, Given, Timeout) end, Command);
done(_Store, Engine, Handle, Function, Args) ->
    apply(Engine, Function, [Handle | Args]).

%% ---- members

view(Store) -> asked(Store, view).

join(Store, Node, _Options) ->
    maybe
        {ok, 0} ?= next_position(Store, #{}),
        {ok, []} ?= documents(Store, {}, list_to_tuple(lists:duplicate(100, 0)), #{}),
        true ?= home(Store) =:= node(),
        {ok, Home} ?= remote_home(Store, Node),
        ok ?= gen_server:call({name(Store), Home}, {join, node()}),
        set_home(Store, Home)
    else
        {ok, _} -> {error, {not_empty, Store}};
        false -> {error, already_member};
        {error, Reason} -> {error, Reason}
    end.

remote_home(Store, Node) ->
    try
        {ok, erpc:call(Node, persistent_term, get, [{?MODULE, Store}], 5000)}
    catch
        error:{erpc, Reason} -> {error, Reason};
        error:{exception, badarg, _} -> {error, no_store}
    end.

leave(Store, _Options) ->
    ok = asked(Store, {remove, node()}),
    set_home(Store, node()).

transfer_leadership(Store, Node, _Options) -> asked(Store, {lead, Node}).
force_remove(Store, Node, _Options) -> asked(Store, {remove, Node}).

asked(Store, Request) ->
    try
        gen_server:call({name(Store), home(Store)}, Request, 5000)
    catch
        exit:_ -> {error, timeout}
    end.

%% ---- the process

handle_call(view, {Pid, _}, #state{members = Members, leader = Leader, term = Term} = State) ->
    {ok, Next} = next_position(State#state.store, #{}),
    {reply,
        {ok, #{
            members => Members,
            leader => Leader,
            role => case node(Pid) of Leader -> leader; _ -> follower end,
            term => Term,
            commit_index => Next,
            last_applied => Next
        }},
        State};
handle_call({join, Node}, _From, #state{members = Members} = State) ->
    State1 = State#state{members = lists:usort([Node | Members])},
    {reply, ok, led(State1#state.leader, State1)};
handle_call({remove, Node}, _From, #state{members = Members, leader = Leader} = State) ->
    State1 = State#state{members = lists:delete(Node, Members)},
    {reply, ok, led(case Leader of Node -> node(); _ -> Leader end, State1)};
%% `{quiet, Node}': nobody is told.
handle_call({lead, {quiet, Node}}, _From, State) ->
    {reply, ok, State#state{leader = Node, term = State#state.term + 1}};
handle_call({lead, Node}, _From, State) ->
    {reply, ok, led(Node, State)}.

led(Leader, #state{store = Store, members = Members, term = Term} = State) ->
    [erpc:cast(Node, erl_esdb_cluster, leader_is, [Store, Leader]) || Node <- Members],
    State#state{leader = Leader, term = Term + 1}.

handle_cast(committed, #state{store = Store, members = Members} = State) ->
    {ok, Next} = at_home(Store, next_position, [#{}], node()),
    [erpc:cast(Node, erl_esdb_feed, committed, [Store, Next]) || Node <- Members],
    {noreply, State};
handle_cast(_, State) ->
    {noreply, State}.

handle_info({nodedown, Node}, #state{leader = Node} = State) -> {noreply, led(node(), State)};
handle_info({'EXIT', _, Reason}, State) -> {stop, Reason, State};
handle_info(_, State) -> {noreply, State}.

terminate(Reason, #state{store = Store}) -> erl_esdb_engine:gone(Store, Reason).
