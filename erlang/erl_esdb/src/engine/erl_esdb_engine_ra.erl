-module(erl_esdb_engine_ra).
-moduledoc """
A store on disk, on one node or several: one Ra cluster.

Commands go through Ra (Raft): one is done when a majority of the members has it on disk, and then it
is in `m:erl_esdb_ra_machine` of each of them. Reads look into the tables of this node, in the process
of the caller; bodies come from the cache of the replica or from Ra's log.

| `consistency` of a read | sees |
|---|---|
| `local` | what this node has applied: never less than what it has shown before, maybe not the latest |
| `read_your_writes` (default) | besides, all that was written through this node before |
| `linearizable` | all that was acknowledged anywhere before the read began; asks the leader |

After a start `read_your_writes` waits until this node has all that was acknowledged before.

A command whose outcome is not known (its leader ended, or the time did) is sent again as long as
there is time, where that cannot do it twice: appends, which are recognised by their ids.
""".

-behaviour(erl_esdb_engine).
-behaviour(gen_server).

-export([start_link/2, command/3, read/6, read_log/5]).
-export([stream/3, streams/2, names/5, tip/3, tombs/4, metadata/3]).
-export([next_position/2, document/3, documents/4, checkpoint/3, checkpoints/2, drop/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("../log/erl_esdb_log.hrl").

%% How often a body that the tables name is looked for before it is taken for lost.
-define(LOOKS, 4).
%% Milliseconds for one try of a command whose leader may be gone.
-define(TRY, 2000).
%% Of a replica that is not known to have all that was acknowledged.
-define(UNKNOWN, 16#7FFFFFFFFFFFFFF).
%% Milliseconds that a start waits for other members: then the store is there, and its calls wait.
-define(START, 5000).

-record(handle, {
    store :: atom(),
    engine :: pid(),
    server :: ra:server_id(),
    %% {Process} of which a command is on its way
    sending :: ets:table(),
    max_queue :: pos_integer(),
    %% what is to be applied here before a read: the index of the last command that was answered
    floor :: atomics:atomics_ref(),
    readers :: tuple(),
    %% for reads that say nothing of it
    timeout :: timeout()
}).

-record(state, {
    store :: atom(),
    dir :: file:filename_all(),
    system :: atom(),
    server :: ra:server_id(),
    %% the server's
    monitor :: reference()
}).

%% ---- engine, in the process of the caller

-doc false.
-spec start_link(atom(), erl_esdb_engine:settings()) -> gen_server:start_ret().
start_link(Store, Settings) ->
    gen_server:start_link(?MODULE, {Store, Settings}, [{timeout, infinity}]).

-doc false.
-spec command(#handle{}, erl_esdb_log:command(), timeout()) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:failure()}.
command(#handle{sending = Sending} = Handle, Command, Timeout) ->
    try ets:info(Sending, size) of
        undefined -> {error, not_started};
        Size -> admitted(Size, Handle, Command, erl_esdb_deadline:in(Timeout))
    catch
        error:badarg -> {error, not_started}
    end.

-spec admitted(non_neg_integer(), #handle{}, erl_esdb_log:command(), Until) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:failure()}
when
    Until :: erl_esdb_deadline:deadline().
admitted(Size, #handle{max_queue = Max, sending = Sending} = Handle, Command, Until) ->
    case Size < Max orelse living(Sending) < Max of
        true -> sending(Handle, Command, Until);
        false -> {error, overloaded}
    end.

%% Those that were killed while they waited are still in the table.
-spec living(ets:table()) -> non_neg_integer().
living(Sending) ->
    Dead = [Pid || {Pid} <- ets:tab2list(Sending), not is_process_alive(Pid)],
    lists:foreach(fun(Pid) -> ets:delete(Sending, Pid) end, Dead),
    ets:info(Sending, size).

-spec sending(#handle{}, erl_esdb_log:command(), erl_esdb_deadline:deadline()) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:failure()}.
sending(#handle{sending = Sending} = Handle, Command, Until) ->
    try
        true = ets:insert(Sending, {self()}),
        sent(Handle, Command, Until)
    after
        left(Sending)
    end.

-spec left(ets:table()) -> true.
left(Sending) ->
    try
        ets:delete(Sending, self())
    catch
        error:badarg -> true
    end.

-spec sent(#handle{}, erl_esdb_log:command(), erl_esdb_deadline:deadline()) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:failure()}.
sent(#handle{server = Server, floor = Floor} = Handle, Command, Until) ->
    Left = erl_esdb_deadline:left(Until),
    case ra:process_command(leader(Server), Command, #{timeout => try_for(Command, Left)}) of
        {ok, {Index, Reply}, _Leader} ->
            ok = raise(Index, Floor),
            Reply;
        Failure ->
            failed(Failure, Handle, Command, Until)
    end.

%% Only what may be sent twice is given up before the end of the time.
-spec try_for(erl_esdb_log:command(), timeout()) -> timeout().
try_for(Command, Left) ->
    case may_repeat(Command) of
        true when Left > ?TRY -> ?TRY;
        _ -> Left
    end.

%% Whoever sent an append recognises it by its ids.
-spec may_repeat(erl_esdb_log:command()) -> boolean().
may_repeat({append, _, _, _, #{ids := [_ | _]}}) -> true;
may_repeat({append, _, Expected, _, _}) -> Expected >= -1;
may_repeat(sweep) -> true;
may_repeat(_) -> false.

-spec leader(ra:server_id()) -> ra:server_id().
leader({Name, _} = Server) ->
    case ra_leaderboard:lookup_leader(Name) of
        undefined -> Server;
        Leader -> Leader
    end.

-spec failed(term(), #handle{}, erl_esdb_log:command(), erl_esdb_deadline:deadline()) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:failure()}.
failed({error, Reason}, #handle{engine = Engine} = Handle, Command, Until) ->
    Unsent = Reason =:= noproc,
    Over = erl_esdb_deadline:is_over(Until),
    case is_process_alive(Engine) of
        false -> {error, not_started};
        true when Over -> {error, unreached(Handle)};
        true when Unsent -> again(Handle, Command, Until);
        true -> repeated(may_repeat(Command), Handle, Command, Until)
    end;
failed({timeout, _}, Handle, Command, Until) ->
    case erl_esdb_deadline:is_over(Until) of
        true -> {error, unreached(Handle)};
        false -> repeated(may_repeat(Command), Handle, Command, Until)
    end.

-spec repeated(boolean(), #handle{}, erl_esdb_log:command(), erl_esdb_deadline:deadline()) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:failure()}.
repeated(true, Handle, Command, Until) -> again(Handle, Command, Until);
repeated(false, Handle, _Command, _Until) -> {error, unreached(Handle)}.

%% The leader's node may be gone before the members know: this one is asked.
-spec again(#handle{}, erl_esdb_log:command(), erl_esdb_deadline:deadline()) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:failure()}.
again(#handle{server = {Name, _} = Server} = Handle, Command, Until) ->
    _ = ra_leaderboard:lookup_leader(Name) =/= Server andalso pause(),
    sent(Handle, Command, Until).

%% Between two tries: an election takes a few hundred milliseconds.
-spec pause() -> ok.
pause() ->
    receive
    after 20 -> ok
    end.

%% Why there was no answer.
-spec unreached(#handle{}) -> timeout | no_quorum.
unreached(#handle{server = {Name, _}}) ->
    Members = [Node || {_, Node} <- members(Name)],
    Reached = [Node || Node <- Members, Node =:= node() orelse lists:member(Node, nodes())],
    case {ra_leaderboard:lookup_leader(Name), 2 * length(Reached) > length(Members)} of
        {undefined, _} -> no_quorum;
        {_, false} when Members =/= [] -> no_quorum;
        _ -> timeout
    end.

-spec members(atom()) -> [ra:server_id()].
members(Name) ->
    case ra_leaderboard:lookup_members(Name) of
        undefined -> [];
        Members -> Members
    end.

-spec raise(non_neg_integer(), atomics:atomics_ref()) -> ok.
raise(Index, Floor) ->
    case atomics:get(Floor, 1) of
        Before when Before < Index -> raise(Index, Before, Floor);
        _ -> ok
    end.

-spec raise(non_neg_integer(), non_neg_integer(), atomics:atomics_ref()) -> ok.
raise(Index, Before, Floor) ->
    case atomics:compare_exchange(Floor, 1, Before, Index) of
        ok -> ok;
        _ -> raise(Index, Floor)
    end.

%% ---- reading

%% Looks into the replica of this node when it is as far as is wanted; again where it is replaced
%% meanwhile.
-spec reading(#handle{}, erl_esdb_engine:options(), Look) -> Result | {error, Failure} when
    Look :: fun((erl_esdb_ra_replica:replica(), erl_esdb_deadline:deadline()) -> Result),
    Failure :: erl_esdb_engine:failure().
reading(#handle{timeout = Timeout} = Handle, Options, Look) ->
    Until = erl_esdb_deadline:in(maps:get(timeout, Options, Timeout)),
    Consistency = maps:get(consistency, Options, read_your_writes),
    look(Handle, Consistency, Look, Until).

-spec look(#handle{}, atom(), Look, erl_esdb_deadline:deadline()) -> Result | {error, Failure} when
    Look :: fun((erl_esdb_ra_replica:replica(), erl_esdb_deadline:deadline()) -> Result),
    Failure :: erl_esdb_engine:failure().
look(#handle{store = Store, engine = Engine} = Handle, Consistency, Look, Until) ->
    Answer =
        maybe
            {ok, Replica} ?= erl_esdb_ra_replica:find(Store),
            ok ?= reached(Consistency, Handle, Replica, Until),
            case erl_esdb_tables:looking(fun() -> Look(Replica, Until) end) of
                {error, not_started} -> {error, replaced};
                Result -> Result
            end
        end,
    case Answer of
        {error, Why} when Why =:= replaced; Why =:= not_started ->
            case is_process_alive(Engine) andalso not erl_esdb_deadline:is_over(Until) of
                true ->
                    ok = pause(),
                    look(Handle, Consistency, Look, Until);
                false ->
                    {error, not_started}
            end;
        {error, timeout} ->
            {error, unreached(Handle)};
        Result1 ->
            Result1
    end.

-spec reached(atom(), #handle{}, erl_esdb_ra_replica:replica(), erl_esdb_deadline:deadline()) ->
    ok | {error, timeout | no_quorum | not_started}.
reached(local, _Handle, _Replica, _Until) ->
    ok;
reached(read_your_writes, #handle{floor = Floor} = Handle, Replica, Until) ->
    case atomics:get(Floor, 1) of
        ?UNKNOWN -> reached(linearizable, Handle, Replica, Until);
        Index -> erl_esdb_ra_replica:await(Replica, Index, Until)
    end;
reached(linearizable, #handle{server = Server} = Handle, Replica, Until) ->
    maybe
        {ok, Index} ?= asked(Server, Until),
        ok = known(Index, Handle),
        erl_esdb_ra_replica:await(Replica, Index, Until)
    end.

%% The index of the last command, from the leader, which has asked a majority whether it still is.
-spec asked(ra:server_id(), erl_esdb_deadline:deadline()) ->
    {ok, non_neg_integer()} | {error, timeout | not_started}.
asked(Server, Until) ->
    Left = min(erl_esdb_deadline:left(Until), ?TRY),
    case ra:consistent_query(leader(Server), {erl_esdb_ra_machine, ask, [index]}, Left) of
        {ok, Index, _} ->
            {ok, Index};
        _ ->
            case erl_esdb_deadline:is_over(Until) of
                true ->
                    {error, timeout};
                false ->
                    ok = pause(),
                    asked(Server, Until)
            end
    end.

-spec known(non_neg_integer(), #handle{}) -> ok.
known(Index, #handle{floor = Floor}) ->
    _ = atomics:compare_exchange(Floor, 1, ?UNKNOWN, Index),
    ok.

-doc false.
-spec read(
    #handle{},
    binary(),
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    erl_esdb_engine:options()
) -> {ok, [erl_esdb_engine:piece()]} | {error, stream_not_found | erl_esdb_engine:failure()}.
read(Handle, Stream, From, Count, Direction, Options) ->
    reading(Handle, Options, fun(Replica, Until) ->
        Tables = erl_esdb_ra_replica:tables(Replica),
        Spans = fun() ->
            erl_esdb_tables:spans(Tables, Stream, From, Count, Direction, Options)
        end,
        pieces(Spans, Replica, Handle, Until)
    end).

-doc false.
-spec read_log(
    #handle{},
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    erl_esdb_engine:options()
) -> {ok, [erl_esdb_engine:piece()]} | {error, erl_esdb_engine:failure()}.
read_log(Handle, From, Count, Direction, Options) ->
    reading(Handle, Options, fun(Replica, Until) ->
        Tables = erl_esdb_ra_replica:tables(Replica),
        Spans = fun() ->
            {ok, erl_esdb_tables:log_spans(Tables, From, Count, Direction, Options)}
        end,
        pieces(Spans, Replica, Handle, Until)
    end).

-type spans() :: fun(
    () -> {ok, [{binary(), erl_esdb_log:span()}]} | {error, stream_not_found}
).

-spec pieces(spans(), erl_esdb_ra_replica:replica(), #handle{}, erl_esdb_deadline:deadline()) ->
    {ok, [erl_esdb_engine:piece()]} | {error, stream_not_found | erl_esdb_engine:failure()}.
pieces(Spans, Replica, Handle, Until) ->
    Wanted = fun() ->
        case Spans() of
            {ok, Found} -> {ok, Found, [Row#row.index || {_, {Row, _, _}} <- Found]};
            {error, Reason} -> {error, Reason}
        end
    end,
    case bodies(Wanted, ?LOOKS, Replica, Handle, Until) of
        {ok, Found, Bodies} -> {ok, [piece(Span, Bodies) || Span <- Found]};
        {error, Reason} -> {error, Reason}
    end.

-spec piece({binary(), erl_esdb_log:span()}, #{pos_integer() => body()}) -> erl_esdb_engine:piece().
piece({Stream, {#row{index = Index}, _, _} = Span}, Bodies) ->
    case Bodies of
        #{Index := Body} when is_binary(Body) -> {Stream, Span, Body};
        #{Index := Parts} when is_list(Parts) -> {Stream, Span, part(Stream, Parts)};
        #{} -> {Stream, Span, damaged}
    end.

-spec part(binary(), [{binary(), erl_esdb_batch:packed()}]) -> erl_esdb_batch:packed().
part(Stream, Parts) ->
    case lists:keyfind(Stream, 1, Parts) of
        {_, Packed} -> Packed;
        false -> damaged
    end.

-type body() :: erl_esdb_batch:packed() | [{binary(), erl_esdb_batch:packed()}].

%% What the tables name, with its bodies. One that is not in the log may have been removed after the
%% look into the tables: then the next look does not name it.
-spec bodies(Wanted, Looks :: non_neg_integer(), Replica, #handle{}, Until) ->
    {ok, Found, #{pos_integer() => body()}} | {error, Reason}
when
    Wanted :: fun(() -> {ok, Found, [pos_integer()]} | {error, Reason}),
    Replica :: erl_esdb_ra_replica:replica(),
    Until :: erl_esdb_deadline:deadline().
bodies(Wanted, Looks, Replica, Handle, Until) ->
    maybe
        {ok, Found, Indexes} ?= Wanted(),
        {Bodies, Missing} = kept(Indexes, Replica),
        {ok, Fetched} ?= fetch(lists:usort(Missing), Handle, Until),
        ok = lists:foreach(
            fun({Index, Body}) -> remember(Index, Body, Replica) end, maps:to_list(Fetched)
        ),
        case map_size(Fetched) =:= length(lists:usort(Missing)) orelse Looks =:= 0 of
            true ->
                {ok, Found, maps:merge(Bodies, Fetched)};
            false ->
                ok = pause(),
                bodies(Wanted, Looks - 1, Replica, Handle, Until)
        end
    end.

-spec kept([pos_integer()], erl_esdb_ra_replica:replica()) ->
    {#{pos_integer() => body()}, Missing :: [pos_integer()]}.
kept(Indexes, Replica) ->
    Look = fun(Index, {Bodies, Missing}) ->
        case erl_esdb_ra_replica:body(Index, Replica) of
            {ok, Body} -> {Bodies#{Index => Body}, Missing};
            none -> {Bodies, [Index | Missing]}
        end
    end,
    lists:foldl(Look, {#{}, []}, Indexes).

-spec remember(pos_integer(), body(), erl_esdb_ra_replica:replica()) -> ok.
remember(Index, Body, Replica) when is_binary(Body) ->
    erl_esdb_ra_replica:keep(Index, Body, Replica);
remember(Index, [_ | _] = Parts, Replica) ->
    case lists:keymember(damaged, 2, Parts) of
        true -> ok;
        false -> erl_esdb_ra_replica:keep(Index, Parts, Replica)
    end;
remember(_Index, _Damaged, _Replica) ->
    ok.

-spec fetch([pos_integer()], #handle{}, erl_esdb_deadline:deadline()) ->
    {ok, #{pos_integer() => body()}} | {error, timeout | not_started}.
fetch([], _Handle, _Until) ->
    {ok, #{}};
fetch(Indexes, #handle{readers = Readers}, Until) ->
    Reader = element(1 + erlang:phash2(self(), tuple_size(Readers)), Readers),
    case erl_esdb_ra_reader:fetch(Reader, Indexes, Until) of
        {ok, Commands} -> {ok, #{Index => verified(C) || Index := C <- Commands}};
        {error, Reason} -> {error, Reason}
    end.

-spec verified(erl_esdb_log:command()) -> body().
verified(Command) ->
    case erl_esdb_ra_machine:body(Command) of
        Body when is_binary(Body) -> erl_esdb_batch:verified(Body);
        Parts -> [{Stream, erl_esdb_batch:verified(Body)} || {Stream, Body} <- Parts]
    end.

-doc false.
-spec document(#handle{}, erl_esdb_log:document_key(), erl_esdb_engine:options()) ->
    {ok, {pos_integer(), erl_esdb_batch:packed()}}
    | {error, not_found | erl_esdb_engine:failure()}.
document(Handle, Key, Options) ->
    reading(Handle, Options, fun(Replica, Until) ->
        Tables = erl_esdb_ra_replica:tables(Replica),
        Wanted = fun() ->
            case erl_esdb_tables:document(Tables, Key) of
                {ok, {_, Index} = Entry} -> {ok, Entry, [Index]};
                {error, not_found} -> {error, not_found}
            end
        end,
        case bodies(Wanted, ?LOOKS, Replica, Handle, Until) of
            {ok, {Version, Index}, Bodies} -> {ok, {Version, maps:get(Index, Bodies, damaged)}};
            {error, Reason} -> {error, Reason}
        end
    end).

%% Looks into the tables alone.
-spec in_tables(#handle{}, erl_esdb_engine:options(), fun((erl_esdb_tables:tables()) -> Result)) ->
    Result | {error, erl_esdb_engine:failure()}.
in_tables(Handle, Options, Fun) ->
    reading(Handle, Options, fun(Replica, _Until) -> Fun(erl_esdb_ra_replica:tables(Replica)) end).

-doc false.
-spec stream(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_log:info()} | {error, stream_not_found | erl_esdb_engine:failure()}.
stream(Handle, Stream, Options) ->
    in_tables(Handle, Options, fun(Tables) -> erl_esdb_tables:stream(Tables, Stream, Options) end).

-doc false.
-spec streams(#handle{}, erl_esdb_engine:options()) ->
    {ok, [binary()]} | {error, erl_esdb_engine:failure()}.
streams(Handle, Options) ->
    in_tables(Handle, Options, fun(Tables) -> {ok, erl_esdb_tables:streams(Tables)} end).

-doc false.
-spec names(
    #handle{},
    binary() | first,
    binary(),
    non_neg_integer() | infinity,
    erl_esdb_engine:options()
) -> {ok, [binary()]} | {error, erl_esdb_engine:failure()}.
names(Handle, Behind, Prefix, Limit, Options) ->
    in_tables(Handle, Options, fun(Tables) ->
        {ok, erl_esdb_tables:names(Tables, Behind, Prefix, Limit)}
    end).

-doc false.
-spec tip(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_engine:place()}
    | {error, erl_esdb_engine:failure()}.
tip(Handle, Stream, Options) ->
    in_tables(Handle, Options, fun(Tables) -> {ok, erl_esdb_tables:tip(Tables, Stream)} end).

-doc false.
-spec tombs(
    #handle{}, binary() | first, non_neg_integer() | infinity, erl_esdb_engine:options()
) -> {ok, [{binary(), erl_esdb_log:info()}]} | {error, erl_esdb_engine:failure()}.
tombs(Handle, Behind, Limit, Options) ->
    in_tables(Handle, Options, fun(Tables) ->
        {ok, erl_esdb_tables:tombs(Tables, Behind, Limit)}
    end).

-doc false.
-spec metadata(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_log:metadata()} | {error, erl_esdb_engine:failure()}.
metadata(Handle, Stream, Options) ->
    in_tables(Handle, Options, fun(Tables) -> {ok, erl_esdb_tables:metadata(Tables, Stream)} end).

-doc false.
-spec next_position(#handle{}, erl_esdb_engine:options()) ->
    {ok, non_neg_integer()} | {error, erl_esdb_engine:failure()}.
next_position(Handle, Options) ->
    in_tables(Handle, Options, fun(Tables) -> {ok, erl_esdb_tables:next_position(Tables)} end).

-doc false.
-spec documents(
    #handle{}, erl_esdb_log:document_key(), erl_esdb_log:document_key(), erl_esdb_engine:options()
) -> {ok, [{erl_esdb_log:document_key(), pos_integer()}]} | {error, erl_esdb_engine:failure()}.
documents(Handle, From, To, Options) ->
    in_tables(Handle, Options, fun(Tables) ->
        {ok, erl_esdb_tables:documents(Tables, From, To)}
    end).

-doc false.
-spec checkpoint(#handle{}, term(), erl_esdb_engine:options()) ->
    {ok, term()} | {error, not_found | erl_esdb_engine:failure()}.
checkpoint(Handle, Key, Options) ->
    in_tables(Handle, Options, fun(Tables) -> erl_esdb_tables:checkpoint(Tables, Key) end).

-doc false.
-spec checkpoints(#handle{}, erl_esdb_engine:options()) ->
    {ok, #{term() => term()}} | {error, erl_esdb_engine:failure()}.
checkpoints(Handle, Options) ->
    in_tables(Handle, Options, fun(Tables) -> {ok, erl_esdb_tables:checkpoints(Tables)} end).

-doc false.
-spec drop(atom(), file:filename_all()) -> ok | {error, term()}.
drop(Store, Dir) ->
    maybe
        {ok, System} ?= erl_esdb_ra_systems:acquire(Dir),
        try
            Server = {erl_esdb_naming:store_worker_name(Store), node()},
            erl_esdb_ra_server:delete(System, Dir, Server)
        after
            ok = erl_esdb_ra_systems:release(Dir)
        end
    end.

%% ---- the process: it starts the server and ends with it

-doc false.
-spec init({atom(), erl_esdb_engine:settings()}) -> {ok, #state{}} | {stop, term()}.
init({Store, #{life := #{data_dir := Dir}} = Settings}) ->
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    {Name, _} = Server = {erl_esdb_naming:store_worker_name(Store), node()},
    ok = erl_esdb_ra_replica:prepare(Store, maps:get(read_cache, Settings)),
    maybe
        {ok, System} ?= erl_esdb_ra_systems:acquire(Dir),
        ok ?= erl_esdb_ra_server:start(System, Dir, Store, Server, Settings),
        Handle = handle(Store, Server, Settings),
        _ = synchronized(Handle, erl_esdb_deadline:in(?START)),
        Monitor = monitor(process, Name),
        ok = erl_esdb_engine:ready(Store, ?MODULE, {Handle, Settings}),
        {ok, #state{
            store = Store, dir = Dir, system = System, server = Server, monitor = Monitor
        }}
    else
        {error, Reason} -> {stop, Reason}
    end.

-spec handle(atom(), ra:server_id(), erl_esdb_engine:settings()) -> #handle{}.
handle(Store, Server, #{max_queue := Max, timeout := Timeout}) ->
    Floor = atomics:new(1, []),
    ok = atomics:put(Floor, 1, ?UNKNOWN),
    Readers = [reader(Server) || _ <- lists:seq(1, erlang:system_info(schedulers))],
    #handle{
        store = Store,
        engine = self(),
        server = Server,
        sending = ets:new(?MODULE, [set, public, {write_concurrency, true}]),
        max_queue = Max,
        floor = Floor,
        readers = list_to_tuple(Readers),
        timeout = Timeout
    }.

%% Linked: the one does not go on without the others.
-spec reader(ra:server_id()) -> pid().
reader(Server) ->
    {ok, Reader} = erl_esdb_ra_reader:start_link(Server),
    Reader.

%% Whoever reads after a start sees what was acknowledged before it. Where other members are missing
%% the store starts nevertheless, and the first read goes on with this.
-spec synchronized(#handle{}, erl_esdb_deadline:deadline()) -> ok | {error, term()}.
synchronized(#handle{store = Store, server = Server} = Handle, Until) ->
    maybe
        {ok, Index} ?= asked(Server, Until),
        {ok, Replica} ?= erl_esdb_ra_replica:find(Store),
        ok ?= erl_esdb_ra_replica:await(Replica, Index, Until),
        known(Index, Handle)
    end.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, {error, unknown_request}, #state{}}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(Message, State) -> ignored(Message, State).

-doc false.
%% What follows the log begins anew with another server.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({'DOWN', Ref, process, _, Reason}, #state{monitor = Ref} = State) ->
    {stop, {server_down, Reason}, State};
handle_info({'EXIT', _, Reason}, State) ->
    {stop, Reason, State};
handle_info(Message, State) ->
    ignored(Message, State).

-spec ignored(term(), #state{}) -> {noreply, #state{}}.
ignored(Message, #state{store = Store} = State) ->
    ?LOG_DEBUG("store ~tp: ignored ~tP", [Store, Message, 20]),
    {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(Reason, #state{store = Store, dir = Dir, system = System, server = Server}) ->
    ok = erl_esdb_engine:gone(Store, Reason),
    ok = erl_esdb_ra_server:stop(System, Server),
    ok = erl_esdb_ra_replica:close(Store),
    erl_esdb_ra_systems:release(Dir).
