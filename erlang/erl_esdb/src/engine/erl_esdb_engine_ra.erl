-module(erl_esdb_engine_ra).
-moduledoc """
A store on disk, on one node or several: one Ra cluster.

Commands go through Ra (Raft): one is done when a majority of the members has it on disk, and then
it is in `m:erl_esdb_ra_machine` of each of them. Reads look into the tables of this node, in the
process of the caller; bodies come from the cache of the replica or from Ra's log.

| `consistency` of a read | sees |
|---|---|
| `local` | what this node has applied: never less than it has shown before, maybe not all |
| `read_your_writes` (default) | besides, all that was written through this node before |
| `linearizable` | all that was acknowledged anywhere before the read began; asks the leader |

After a start `read_your_writes` waits until this node has all that was acknowledged before.

A command whose outcome is not known (its leader ended, or the time did) is sent again as long as
there is time, where that cannot do it twice: appends, which are recognised by their ids. Where
events of their stream were removed in between the outcome stays unknown.
""".

-behaviour(erl_esdb_engine).
-behaviour(gen_server).

-export([start_link/2, command/3, read/6, read_log/5]).
-export([stream/3, streams/2, names/5, tip/3, tombs/4, metadata/3]).
-export([next_position/2, document/3, documents/4, checkpoint/3, checkpoints/2, drop/2, folder/1]).
-export([view/1, status/1, join/3, leave/2, transfer_leadership/3, force_remove/3]).
-export([machine/1, server/1, adopt/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("../log/erl_esdb_log.hrl").

%% How often a body that the tables name is looked for before it is taken for lost.
-define(LOOKS, 4).
%% Milliseconds for one try to ask the leader, and between two looks at who leads.
-define(TRY, 2000).
-define(LOOK, 500).
%% Of a replica that is not known to have all that was acknowledged.
-define(UNKNOWN, 16#7FFFFFFFFFFFFFF).
%% Milliseconds that a start waits for other members: then the store is there, and its calls wait.
-define(START, 5000).
%% And for a server that Ra starts again.
-define(RESTART, 2000).
%% Between two looks at who leads and who is connected.
-define(WATCH, 200).

-record(handle, {
    store :: atom(),
    engine :: pid(),
    server :: ra:server_id(),
    %% what the servers of all members have in common
    cluster :: atom(),
    system :: atom(),
    %% {Process} of which a command is on its way, and {Reference} for one that was given up
    sending :: ets:table(),
    max_queue :: pos_integer(),
    %% what is to be applied here before a read: the index of the last command that was answered
    floor :: atomics:atomics_ref(),
    readers :: tuple(),
    %% the one of those who follow the log
    background :: pid(),
    %% while a command is on its way: the index of the last one that was applied here before
    since = 0 :: non_neg_integer(),
    %% for reads that say nothing of it
    timeout :: timeout()
}).

-record(state, {
    store :: atom(),
    dir :: file:filename_all(),
    system :: atom(),
    server :: ra:server_id(),
    handle :: #handle{},
    settings :: erl_esdb_engine:settings(),
    %% the server's
    monitor :: reference(),
    %% the index of the newest snapshot, and who led, at the last look
    snapshot = 0 :: non_neg_integer(),
    leader = undefined :: node() | undefined
}).

-type answer() ::
    erl_esdb_log:reply() | {error, erl_esdb_engine:repeated() | erl_esdb_engine:failure()}.

%% ---- engine, in the process of the caller

-doc false.
-spec start_link(atom(), erl_esdb_engine:settings()) -> gen_server:start_ret().
start_link(Store, Settings) ->
    gen_server:start_link(?MODULE, {Store, Settings}, [{timeout, infinity}]).

-doc false.
-spec command(#handle{}, erl_esdb_log:command(), timeout()) -> answer().
command(#handle{sending = Sending} = Handle, Command, Timeout) ->
    try ets:info(Sending, size) of
        undefined -> {error, not_started};
        Size -> admitted(Size, Handle, Command, erl_esdb_deadline:in(Timeout))
    catch
        error:badarg -> {error, not_started}
    end.

-spec admitted(non_neg_integer(), #handle{}, erl_esdb_log:command(), Until) ->
    answer()
when
    Until :: erl_esdb_deadline:deadline().
admitted(Size, #handle{max_queue = Max} = Handle, Command, Until) ->
    case Size < Max orelse waiting(Handle) < Max of
        true -> sending(Handle, Command, Until);
        false -> {error, overloaded}
    end.

%% What callers gave up, or sent before they were killed, counts as long as it may be in the queue.
-spec waiting(#handle{}) -> non_neg_integer().
waiting(#handle{sending = Sending, server = {Name, _}}) ->
    Left = [Key || {Key} <- ets:tab2list(Sending), not is_waiting(Key)],
    Done = max(0, length(Left) - queue(whereis(Name))),
    lists:foreach(fun(Key) -> ets:delete(Sending, Key) end, lists:sublist(Left, Done)),
    ets:info(Sending, size).

-spec is_waiting(pid() | reference()) -> boolean().
is_waiting(Key) -> is_pid(Key) andalso is_process_alive(Key).

-spec queue(pid() | undefined) -> non_neg_integer().
queue(undefined) ->
    0;
queue(Server) ->
    case process_info(Server, message_queue_len) of
        {message_queue_len, Length} -> Length;
        undefined -> 0
    end.

-spec sending(#handle{}, erl_esdb_log:command(), erl_esdb_deadline:deadline()) -> answer().
sending(#handle{sending = Sending} = Handle, Command, Until) ->
    try
        true = ets:insert(Sending, {self()}),
        Answer = sent(Handle, Command, Until),
        true = Answer =/= {error, timeout} orelse ets:insert(Sending, {make_ref()}),
        Answer
    catch
        %% The engine has ended.
        error:badarg:Stack -> gone(Stack)
    after
        left(Sending)
    end.

-spec gone([tuple()]) -> {error, not_started}.
gone([{ets, _, _, _} | _]) -> {error, not_started};
gone(Stack) -> erlang:raise(error, badarg, Stack).

-spec left(ets:table()) -> true.
left(Sending) ->
    try
        ets:delete(Sending, self())
    catch
        error:badarg -> true
    end.

-spec sent(#handle{}, erl_esdb_log:command(), erl_esdb_deadline:deadline()) -> answer().
sent(#handle{store = Store} = Handle, Command, Until) ->
    %% What is applied here lies before the command, wherever it will be in the log.
    Since =
        case erl_esdb_ra_replica:find(Store) of
            {ok, Replica} -> erl_esdb_ra_replica:applied(Replica);
            {error, not_started} -> 0
        end,
    case sent_to(leader(Handle), Handle#handle{since = Since}, Command, Until) of
        {error, {repeated, _, Refusal}} = Refused ->
            case is_forgotten(Refusal) of
                true -> {error, unreached(Handle)};
                false -> Refused
            end;
        Answer ->
            Answer
    end.

-spec is_forgotten(term()) -> boolean().
is_forgotten({refused, Refusals}) -> lists:member(forgotten, Refusals);
is_forgotten(Refusal) -> Refusal =:= forgotten.

-spec leader(#handle{}) -> ra:server_id().
leader(#handle{cluster = Cluster, server = Server}) ->
    case ra_leaderboard:lookup_leader(Cluster) of
        undefined -> Server;
        Leader -> Leader
    end.

%% As `ra:process_command/3` does it, but with a look at who leads while it waits: a leader that was
%% deposed does not answer what it was asked before.
-spec sent_to(ra:server_id(), #handle{}, erl_esdb_log:command(), erl_esdb_deadline:deadline()) ->
    answer().
sent_to(Leader, Handle, Command, Until) ->
    Packed = erl_esdb_ra_command:pack(Command),
    Request = {leader_call, {command, normal, {'$usr', Packed, await_consensus}}},
    Id = gen_statem:send_request(Leader, Request),
    answered(Id, Leader, Handle, Command, Until).

-spec answered(gen_statem:request_id(), ra:server_id(), #handle{}, Command, Until) ->
    answer()
when
    Command :: erl_esdb_log:command(), Until :: erl_esdb_deadline:deadline().
answered(Id, Leader, #handle{floor = Floor} = Handle, Command, Until) ->
    case gen_statem:wait_response(Id, min(?LOOK, erl_esdb_deadline:left(Until))) of
        {reply, {wrap_reply, {Index, Reply}}} ->
            ok = raise(Index, Floor),
            told(Command, Reply);
        {reply, {redirect, Other}} ->
            sent_to(Other, Handle, Command, Until);
        {reply, {error, _}} ->
            unanswered(unknown, Handle, Command, Until);
        {error, {noproc, _}} ->
            unanswered(unsent, Handle, Command, Until);
        {error, _} ->
            unanswered(unknown, Handle, Command, Until);
        timeout ->
            case erl_esdb_deadline:is_over(Until) orelse has_gone(Leader, Handle, Command) of
                false ->
                    answered(Id, Leader, Handle, Command, Until);
                true ->
                    _ = gen_statem:receive_response(Id, 0),
                    unanswered(unknown, Handle, Command, Until)
            end
    end.

%% Whether somebody else leads by now, and the command may be sent twice.
-spec has_gone(ra:server_id(), #handle{}, erl_esdb_log:command()) -> boolean().
has_gone(Leader, #handle{cluster = Cluster}, Command) ->
    may_repeat(Command) andalso
        not lists:member(ra_leaderboard:lookup_leader(Cluster), [Leader, undefined]).

%% Whoever sent an append recognises it by its ids, where it has some: what is restored has none.
-spec may_repeat(erl_esdb_log:command()) -> boolean().
may_repeat({append, _, _, _, Summary}) -> has_ids(Summary);
may_repeat({append_many, Parts, _}) ->
    lists:all(fun({_, _, _, Summary}) -> has_ids(Summary) end, Parts);
may_repeat(_) -> false.

-spec has_ids(erl_esdb_log:summary()) -> boolean().
has_ids(#{count := Count} = Summary) -> Count > 0 andalso maps:get(ids, Summary, []) =/= [].

-spec unanswered(unsent | unknown, #handle{}, erl_esdb_log:command(), Until) ->
    answer()
when
    Until :: erl_esdb_deadline:deadline().
unanswered(Sent, #handle{engine = Engine, server = Server} = Handle, Command, Until) ->
    Repeat = Sent =:= unsent orelse may_repeat(Command),
    case is_process_alive(Engine) of
        false ->
            {error, not_started};
        true ->
            case Repeat andalso not erl_esdb_deadline:is_over(Until) of
                true ->
                    ok = pause(),
                    Again = again(Sent, Command, Handle),
                    %% The leader's node may be gone before this one knows: it is asked itself.
                    sent_to(other(leader(Handle), Server), Handle, Again, Until);
                false ->
                    {error, unreached(Handle)}
            end
    end.

%% The command, which says from here on that it may have been done already.
-spec again(unsent | unknown, erl_esdb_log:command(), #handle{}) -> erl_esdb_log:command().
again(unknown, {append, Stream, Expected, Packed, Summary}, Handle) ->
    {append, Stream, Expected, Packed, repeat(Summary, Handle)};
again(unknown, {append_many, Parts, Common}, Handle) ->
    {append_many, [{S, E, P, repeat(Summary, Handle)} || {S, E, P, Summary} <- Parts], Common};
again(_Sent, Command, _Handle) ->
    Command.

%% The caller may have said it already, of a command before this one.
-spec repeat(erl_esdb_log:summary(), #handle{}) -> erl_esdb_log:summary().
repeat(#{repeat := _} = Summary, _Handle) -> Summary;
repeat(Summary, #handle{since = Since}) -> Summary#{repeat => Since}.

%% A refusal may be for what the command did itself when it was sent first.
-spec told(erl_esdb_log:command(), erl_esdb_log:reply()) -> answer().
told({append, _, _, _, #{repeat := Since}}, {error, Refusal}) ->
    {error, {repeated, Since, Refusal}};
told({append_many, [{_, _, _, #{repeat := Since}} | _], _}, {error, Refusal}) ->
    {error, {repeated, Since, Refusal}};
told(_Command, Reply) ->
    Reply.

-spec other(ra:server_id(), ra:server_id()) -> ra:server_id().
other({_, Node} = Leader, Server) ->
    case lists:member(Node, [node() | nodes()]) of
        true -> Leader;
        false -> Server
    end.

%% Between two tries: an election takes a few hundred milliseconds.
-spec pause() -> ok.
pause() ->
    receive
    after 20 -> ok
    end.

%% Why there was no answer.
-spec unreached(#handle{}) -> timeout | no_quorum.
unreached(#handle{cluster = Cluster}) ->
    Members = [Node || {_, Node} <- members(Cluster)],
    Reached = [Node || Node <- Members, Node =:= node() orelse lists:member(Node, nodes())],
    case {ra_leaderboard:lookup_leader(Cluster), 2 * length(Reached) > length(Members)} of
        {undefined, _} -> no_quorum;
        {_, false} when Members =/= [] -> no_quorum;
        _ -> timeout
    end.

-spec members(atom()) -> [ra:server_id()].
members(Cluster) ->
    case ra_leaderboard:lookup_members(Cluster) of
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
reading(Handle, Options, Look) ->
    Until = until(Handle, Options),
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
reached(linearizable, Handle, Replica, Until) ->
    maybe
        {ok, Index} ?= asked(Handle, Until),
        ok = known(Index, Handle),
        erl_esdb_ra_replica:await(Replica, Index, Until)
    end.

%% The index of the last command, from the leader, which has asked a majority whether it still is.
-spec asked(#handle{}, erl_esdb_deadline:deadline()) ->
    {ok, non_neg_integer()} | {error, timeout | not_started}.
asked(Handle, Until) ->
    Left = min(erl_esdb_deadline:left(Until), ?TRY),
    case ra:consistent_query(leader(Handle), {erl_esdb_ra_machine, ask, [index]}, Left) of
        {ok, Index, _} ->
            {ok, Index};
        _ ->
            case erl_esdb_deadline:is_over(Until) of
                true ->
                    {error, timeout};
                false ->
                    ok = pause(),
                    asked(Handle, Until)
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
        pieces(Spans, stay, Replica, Handle, Until)
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
        pieces(Spans, log_use(Options), Replica, Handle, Until)
    end).

-spec log_use(erl_esdb_engine:options()) -> pass | background.
log_use(#{background := true}) -> background;
log_use(_) -> pass.

-type spans() :: fun(
    () -> {ok, [{binary(), erl_esdb_log:span()}]} | {error, stream_not_found}
).

-spec pieces(
    spans(), use(), erl_esdb_ra_replica:replica(), #handle{}, erl_esdb_deadline:deadline()
) -> {ok, [erl_esdb_engine:piece()]} | {error, stream_not_found | erl_esdb_engine:failure()}.
pieces(Spans, Use, Replica, Handle, Until) ->
    Wanted = fun() ->
        case Spans() of
            {ok, Found} -> {ok, Found, indexes(Found)};
            {error, Reason} -> {error, Reason}
        end
    end,
    case bodies({Wanted, fun dids/1, Use}, ?LOOKS, Replica, Handle, Until) of
        {ok, Found, Bodies} -> {ok, with_bodies(Found, Bodies)};
        {error, Reason} -> {error, Reason}
    end.

-spec indexes([{binary(), erl_esdb_log:span()}]) -> [pos_integer()].
indexes(Spans) -> [Index || {_, {#row{index = Index}, _, _}} <- Spans].

-spec dids([{binary(), erl_esdb_log:span()}]) -> [erl_esdb_ra_reader:did()].
dids(Spans) -> [{append, Stream, Count} || {Stream, {#row{count = Count}, _, _}} <- Spans].

-spec with_bodies([{binary(), erl_esdb_log:span()}], [body()]) -> [erl_esdb_engine:piece()].
with_bodies([{Stream, Span} | Spans], [Body | Bodies]) ->
    [{Stream, Span, of_stream(Stream, Body)} | with_bodies(Spans, Bodies)];
with_bodies([], []) ->
    [].

-spec of_stream(binary(), body()) -> erl_esdb_batch:packed().
of_stream(Stream, Parts) when is_list(Parts) ->
    case lists:keyfind(Stream, 1, Parts) of
        {_, Packed} -> Packed;
        false -> damaged
    end;
of_stream(_Stream, Body) ->
    Body.

-type body() :: erl_esdb_ra_reader:body().
%% Whether what is found in memory shall stay there, and what is read gets there.
-type use() :: stay | pass | background.
%% What the tables name, with the indexes of the commands; what each of these did, where it has to
%% be read; and how it is used.
-type wanted(Found, Reason) :: {
    fun(() -> {ok, Found, [pos_integer()]} | {error, Reason}),
    fun((Found) -> [erl_esdb_ra_reader:did()]),
    use()
}.

%% What the tables name, with the bodies in the same order. One that is not in the log may have been
%% removed after the look into the tables: then the next look does not name it.
-spec bodies(wanted(Found, Reason), Looks :: non_neg_integer(), Replica, #handle{}, Until) ->
    {ok, Found, [body()]} | {error, Reason | timeout | not_started}
when
    Replica :: erl_esdb_ra_replica:replica(),
    Until :: erl_esdb_deadline:deadline().
bodies({Look, Did, Use} = Wanted, Looks, Replica, Handle, Until) ->
    maybe
        {ok, Found, Indexes} ?= Look(),
        Kept = erl_esdb_ra_replica:bodies(Indexes, stays(Use), Replica),
        true ?= lists:member(none, Kept) orelse {ok, Found, Kept},
        Missing = missing(Indexes, Kept, Did(Found)),
        {ok, Fetched} ?= fetch(Use, Missing, Replica, Handle, Until),
        case map_size(Fetched) =:= map_size(Missing) orelse Looks =:= 0 of
            true ->
                {ok, Found, filled(Indexes, Kept, Fetched)};
            false ->
                ok = pause(),
                bodies(Wanted, Looks - 1, Replica, Handle, Until)
        end
    end.

-spec missing([pos_integer()], [body() | none], [erl_esdb_ra_reader:did()]) ->
    erl_esdb_ra_reader:wanted().
missing(Indexes, Kept, Dids) ->
    #{Index => Did || {Index, none, Did} <- lists:zip3(Indexes, Kept, Dids)}.

-spec filled([pos_integer()], [body() | none], #{pos_integer() => body()}) -> [body()].
filled([Index | Indexes], [none | Kept], Fetched) ->
    [maps:get(Index, Fetched, damaged) | filled(Indexes, Kept, Fetched)];
filled([_ | Indexes], [Body | Kept], Fetched) ->
    [Body | filled(Indexes, Kept, Fetched)];
filled([], [], _Fetched) ->
    [].

-spec stays(use()) -> stay | pass.
stays(stay) -> stay;
stays(_) -> pass.

-spec fetch(use(), erl_esdb_ra_reader:wanted(), Replica, #handle{}, Until) ->
    {ok, #{pos_integer() => body()}} | {error, timeout | not_started}
when
    Replica :: erl_esdb_ra_replica:replica(),
    Until :: erl_esdb_deadline:deadline().
fetch(background, Wanted, Replica, #handle{background = Reader}, Until) ->
    erl_esdb_ra_reader:fetch(Reader, Wanted, Replica, forget, Until);
fetch(_, Wanted, Replica, Handle, Until) ->
    erl_esdb_ra_reader:fetch(reader_of(self(), Handle), Wanted, Replica, keep, Until).

-spec reader_of(pid(), #handle{}) -> pid().
reader_of(Pid, #handle{readers = Readers}) ->
    element(1 + erlang:phash2(Pid, tuple_size(Readers)), Readers).

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
        Did = fun(_) -> [{document, Key}] end,
        case bodies({Wanted, Did, stay}, ?LOOKS, Replica, Handle, Until) of
            {ok, {Version, _}, [Body]} -> {ok, {Version, Body}};
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

%% ---- the cluster

-doc false.
-spec view(#handle{}) -> {ok, erl_esdb_engine:view()} | {error, erl_esdb_engine:failure()}.
view(#handle{store = Store, server = Server, cluster = Cluster}) ->
    Metrics = ra:key_metrics(Server),
    case Metrics of
        #{state := noproc} ->
            {error, not_started};
        #{state := State, membership := Membership} ->
            Members = lists:usort([node() | [Node || {_, Node} <- members(Cluster)]]),
            {ok, #{
                members => Members,
                voters => erl_esdb_ra_view:voters(Store, Members, Membership),
                leader => leading(Cluster),
                role => role(State),
                term => maps:get(term, Metrics, 0),
                last_index => maps:get(last_index, Metrics, 0),
                commit_index => maps:get(commit_index, Metrics, 0),
                last_applied => maps:get(last_applied, Metrics, 0),
                %% -1: there is none.
                snapshot_index => max(0, maps:get(snapshot_index, Metrics, 0))
            }}
    end.

-doc false.
-spec status(#handle{}) -> erl_esdb_engine:status().
status(#handle{store = Store, system = System, sending = Sending, server = Server} = Handle) ->
    maybe
        {ok, View} ?= view(Handle),
        {ok, Replica} ?= erl_esdb_ra_replica:find(Store),
        Files = erl_esdb_ra_server:files(System, Server),
        Known = maps:merge(Files, #{
            role => maps:get(role, View),
            members => maps:get(members, View),
            term => maps:get(term, View),
            last_index => maps:get(last_index, View),
            commit_index => maps:get(commit_index, View),
            applied_index => maps:get(last_applied, View),
            snapshot_index => maps:get(snapshot_index, View),
            waiting => ets:info(Sending, size),
            ram_bytes => erl_esdb_ra_replica:bytes(Replica) + heap(Server)
        }),
        led(maps:get(leader, View), said(Store, maps:get(role, View), Known))
    else
        {error, _} -> #{}
    end.

-spec led(node() | undefined, erl_esdb_engine:status()) -> erl_esdb_engine:status().
led(undefined, Status) -> Status;
led(Leader, Status) -> Status#{leader => Leader}.

-spec said(atom(), atom(), erl_esdb_engine:status()) -> erl_esdb_engine:status().
said(Store, Role, Status) ->
    Said = [
        {members_lag, {ok, Lag}} || Role =:= leader, {ok, Lag} <- [erl_esdb_ra_view:lag(Store)]
    ] ++ [{compaction, erl_esdb_ra_view:compaction(Store)}],
    maps:merge(Status, #{Key => Value || {Key, {ok, Value}} <- Said}).

-spec heap(ra:server_id()) -> non_neg_integer().
heap({Name, _}) ->
    Server = whereis(Name),
    case is_pid(Server) andalso process_info(Server, memory) of
        {memory, Bytes} -> Bytes;
        _ -> 0
    end.

-spec role(atom()) -> leader | follower | candidate | recovering.
role(leader) -> leader;
role(Voted) when Voted =:= candidate; Voted =:= pre_vote -> candidate;
role(Follows) when Follows =:= follower; Follows =:= await_condition -> follower;
role(_) -> recovering.

-doc false.
-spec join(#handle{}, node(), erl_esdb_engine:options()) -> ok | {error, term()}.
join(Handle, Node, Options) ->
    change(Handle, fun(Until) -> {change, join, Node, Until} end, Options).

-doc false.
%% What this node had of the store is gone then, so the store ends here.
-spec leave(#handle{}, erl_esdb_engine:options()) -> ok | {error, term()}.
leave(#handle{store = Store} = Handle, Options) ->
    case change(Handle, fun(Until) -> {change, leave, Until} end, Options) of
        ok ->
            _ = erl_esdb:stop_store(Store),
            ok;
        {error, Reason} ->
            {error, Reason}
    end.

-spec change(#handle{}, fun((erl_esdb_deadline:deadline()) -> term()), erl_esdb_engine:options()) ->
    ok | {error, term()}.
change(#handle{engine = Engine} = Handle, Request, Options) ->
    try
        %% It has an end of its own.
        gen_server:call(Engine, Request(until(Handle, Options)), infinity)
    catch
        exit:_ -> {error, not_started}
    end.

-spec until(#handle{}, erl_esdb_engine:options()) -> erl_esdb_deadline:deadline().
until(#handle{timeout = Timeout}, Options) ->
    erl_esdb_deadline:in(maps:get(timeout, Options, Timeout)).

-doc false.
-spec transfer_leadership(#handle{}, node(), erl_esdb_engine:options()) -> ok | {error, term()}.
transfer_leadership(#handle{store = Store, server = Server} = Handle, Node, Options) ->
    maybe
        {ok, Member} ?= member(Server, Node),
        erl_esdb_ra_members:transfer(Store, Server, Member, until(Handle, Options))
    end.

-doc false.
-spec force_remove(#handle{}, node(), erl_esdb_engine:options()) -> ok | {error, term()}.
force_remove(#handle{server = Server} = Handle, Node, Options) ->
    maybe
        {ok, Member} ?= member(Server, Node),
        erl_esdb_ra_members:remove(Server, Member, until(Handle, Options))
    end.

%% As this node knows it, also where nobody leads.
-spec member(ra:server_id(), node()) ->
    {ok, ra:server_id()} | {error, {not_member, node()} | term()}.
member(Server, Node) ->
    case ra:members({local, Server}, ?TRY) of
        {ok, Members, _} ->
            case lists:keyfind(Node, 2, Members) of
                {_, _} = Member -> {ok, Member};
                false -> {error, {not_member, Node}}
            end;
        {error, Reason} ->
            {error, Reason};
        {timeout, _} ->
            {error, timeout}
    end.

-doc """
Has this node go on with a store that a node of another name has written, alone. The store does not
run. Nothing of it changes but the name; see `erl_esdb:adopt/2`.
""".
-spec adopt(Store :: atom(), file:filename_all()) -> ok | {error, term()}.
adopt(Store, Dir) ->
    at_rest(Dir, fun(System) ->
        maybe
            {ok, Server} ?= erl_esdb_ra_server:find(System, Store),
            erl_esdb_ra_server:adopt(System, Dir, Server)
        end
    end).

%% With the Ra system of a store that does not run.
-spec at_rest(file:filename_all(), fun((System :: atom()) -> Answer)) -> Answer | {error, term()}.
at_rest(Dir, Fun) ->
    maybe
        {ok, System} ?= erl_esdb_ra_systems:acquire(Dir),
        try
            Fun(System)
        after
            ok = erl_esdb_ra_systems:release(Dir)
        end
    end.

-doc "The Ra server of a store on this node.".
-spec server(#handle{}) -> ra:server_id().
server(#handle{server = Server}) -> Server.

-doc "How the machine of a store is made that lives on this node.".
-spec machine(#handle{}) -> {ok, term()} | {error, term()}.
machine(#handle{system = System, server = Server}) -> erl_esdb_ra_server:machine(System, Server).

-doc false.
-spec drop(atom(), file:filename_all()) -> ok | {error, term()}.
drop(Store, Dir) ->
    at_rest(Dir, fun(System) ->
        case erl_esdb_ra_server:find(System, Store) of
            {ok, Server} -> erl_esdb_ra_server:delete(System, Server);
            {error, not_found} -> ok;
            {error, Reason} -> {error, Reason}
        end
    end).

-doc false.
-spec folder(#handle{}) -> {ok, file:filename_all()} | none.
folder(#handle{system = System, server = {Name, _}}) ->
    case ra_directory:uid_of(System, Name) of
        Uid when is_binary(Uid) -> {ok, ra_env:server_data_dir(System, Uid)};
        %% Between two servers.
        undefined -> none
    end.

%% ---- the process: it starts the server and ends with it

-doc false.
-spec init({atom(), erl_esdb_engine:settings()}) -> {ok, #state{}} | {stop, term()}.
init({Store, #{life := #{data_dir := Dir}} = Settings}) ->
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    ok = erl_esdb_ra_replica:prepare(Store, maps:get(read_cache, Settings)),
    maybe
        {ok, System} ?= erl_esdb_ra_systems:acquire(Dir),
        {ok, {Name, _} = Server} ?= erl_esdb_ra_server:start(System, Dir, Store, Settings),
        Handle = handle(Store, Server, System, Settings),
        _ = synchronized(Handle, erl_esdb_deadline:in(?START)),
        ok = erl_esdb_engine:ready(Store, ?MODULE, {Handle, Settings#{repeats => true}}),
        self() ! look,
        {ok, #state{
            store = Store,
            dir = Dir,
            system = System,
            server = Server,
            handle = Handle,
            settings = Settings,
            monitor = monitor(process, Name)
        }}
    else
        {error, Reason} -> {stop, Reason}
    end.

-spec handle(atom(), ra:server_id(), atom(), erl_esdb_engine:settings()) -> #handle{}.
handle(Store, Server, System, #{max_queue := Max, timeout := Timeout}) ->
    Floor = atomics:new(1, []),
    ok = atomics:put(Floor, 1, ?UNKNOWN),
    Readers = [reader(Server, callers) || _ <- lists:seq(1, erlang:system_info(schedulers))],
    #handle{
        store = Store,
        engine = self(),
        server = Server,
        cluster = erl_esdb_ra_server:cluster(Store),
        system = System,
        sending = ets:new(?MODULE, [set, public, {write_concurrency, true}]),
        max_queue = Max,
        floor = Floor,
        readers = list_to_tuple(Readers),
        background = reader(Server, background),
        timeout = Timeout
    }.

%% Linked: the one does not go on without the others.
-spec reader(ra:server_id(), callers | background) -> pid().
reader(Server, For) ->
    {ok, Reader} = erl_esdb_ra_reader:start_link(Server, For),
    Reader.

%% Whoever reads after a start sees what was acknowledged before it. Where other members are missing
%% the store starts nevertheless, and the first read goes on with this.
-spec synchronized(#handle{}, erl_esdb_deadline:deadline()) -> ok | {error, term()}.
synchronized(#handle{store = Store} = Handle, Until) ->
    maybe
        {ok, Index} ?= asked(Handle, Until),
        {ok, Replica} ?= erl_esdb_ra_replica:find(Store),
        ok ?= erl_esdb_ra_replica:await(Replica, Index, Until),
        known(Index, Handle)
    end.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, ok | {error, term()}, #state{}} | {stop, term(), {error, term()}, #state{}}.
handle_call({change, join, Node, Until}, _From, #state{store = Store} = State) ->
    #state{system = System, server = Server, settings = Settings} = State,
    changing(State, fun() ->
        erl_esdb_ra_members:join(System, Store, Server, Node, Settings, Until)
    end);
handle_call({change, leave, Until}, _From, #state{store = Store} = State) ->
    #state{system = System, server = Server} = State,
    changing(State, fun() -> erl_esdb_ra_members:leave(System, Store, Server, Until) end);
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

%% The server may be another one afterwards, with another past. Where it is gone the store begins
%% anew.
-spec changing(#state{}, fun(() -> ok | {error | gone, term()})) ->
    {reply, ok | {error, term()}, #state{}} | {stop, term(), {error, term()}, #state{}}.
changing(#state{server = {Name, _}, handle = Handle, monitor = Before} = State, Change) ->
    true = demonitor(Before, [flush]),
    ok = erl_esdb_ra_view:forget(State#state.store),
    ok = atomics:put(Handle#handle.floor, 1, ?UNKNOWN),
    case Change() of
        {gone, Reason} -> {stop, {not_joined, Reason}, {error, Reason}, State};
        Answer -> {reply, Answer, State#state{monitor = monitor(process, Name)}}
    end.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(Message, State) -> ignored(Message, State).

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({'DOWN', Ref, process, _, Reason}, #state{monitor = Ref, handle = Handle} = State) ->
    ok = atomics:put(Handle#handle.floor, 1, ?UNKNOWN),
    {noreply, restarted(Reason, erl_esdb_deadline:in(?RESTART), State)};
handle_info({restarted, Reason, Until}, State) ->
    case erl_esdb_deadline:is_over(Until) of
        true -> {stop, {server_down, Reason}, State};
        false -> {noreply, restarted(Reason, Until, State)}
    end;
handle_info(look, State) ->
    _ = erlang:send_after(?WATCH, self(), look),
    {noreply, looked(State)};
handle_info({'EXIT', Pid, Reason} = Message, #state{handle = Handle} = State) ->
    #handle{readers = Readers, background = Background} = Handle,
    case lists:member(Pid, [Background | tuple_to_list(Readers)]) of
        true -> {stop, Reason, State};
        false -> ignored(Message, State)
    end;
handle_info(Message, State) ->
    ignored(Message, State).

%% A server that crashes is started again by Ra, and knows all that it knew: what follows the log
%% goes on. Where Ra gives up this process ends, and with it the store begins anew.
-spec restarted(term(), erl_esdb_deadline:deadline(), #state{}) -> #state{}.
restarted(Reason, Until, #state{server = {Name, _} = Server} = State) ->
    case whereis(Name) of
        undefined ->
            _ = erlang:send_after(20, self(), {restarted, Reason, Until}),
            State;
        Pid ->
            Monitor = monitor(process, Pid),
            _ = erl_esdb_ra_server:elected(Server),
            State#state{monitor = Monitor}
    end.

%% Who leads now, and whether all members are connected: Ra connects them once.
-spec looked(#state{}) -> #state{}.
looked(#state{store = Store, leader = Before} = State) ->
    Cluster = erl_esdb_ra_server:cluster(Store),
    Missing = [Node || {_, Node} <- members(Cluster), not lists:member(Node, [node() | nodes()])],
    Connect = fun() -> lists:foreach(fun net_kernel:connect_node/1, Missing) end,
    _ = Missing =:= [] orelse spawn(Connect),
    State1 = compacted(State),
    case leading(Cluster) of
        Before ->
            State1;
        Leader ->
            ok = erl_esdb_cluster:leader_is(Store, Leader),
            State1#state{leader = Leader}
    end.

%% With each snapshot Ra drops segments of which nothing lives; those of which less than half does
%% are written anew when it is asked to.
-spec compacted(#state{}) -> #state{}.
compacted(#state{server = Server, snapshot = Before} = State) ->
    case ra:key_metrics(Server) of
        #{snapshot_index := Index} when Index =/= Before ->
            ok = ra:trigger_compaction(Server),
            State#state{snapshot = Index};
        _ ->
            State
    end.

-spec leading(atom()) -> node() | undefined.
leading(Cluster) ->
    case ra_leaderboard:lookup_leader(Cluster) of
        {_, Node} -> Node;
        undefined -> undefined
    end.

-spec ignored(term(), #state{}) -> {noreply, #state{}}.
ignored(Message, #state{store = Store} = State) ->
    ?LOG_DEBUG("store ~tp: ignored ~tP", [Store, Message, 20]),
    {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(Reason, #state{store = Store, dir = Dir, system = System, server = Server}) ->
    ok = erl_esdb_engine:gone(Store, Reason),
    ok = given_up(erl_esdb_ra_replica:find(Store)),
    ok = erl_esdb_ra_server:stop(System, Server),
    ok = erl_esdb_ra_replica:close(Store),
    erl_esdb_ra_systems:release(Dir).

%% A snapshot of a large store takes longer than Ra waits for who writes it.
-spec given_up({ok, erl_esdb_ra_replica:replica()} | {error, not_started}) -> ok.
given_up({ok, Replica}) -> erl_esdb_tables:end_pictures(erl_esdb_ra_replica:tables(Replica));
given_up({error, not_started}) -> ok.
