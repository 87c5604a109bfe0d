-module(erl_esdb_engine_memory).
-moduledoc """
A store in the memory of one node, for as long as its process lives.

One process applies the commands; its state is the machine. What changed it writes into ETS
tables, in the order the machine gives, before it answers. Reads look there, in the process of the
caller, at the same time as each other and as appends.

What a truncation or deletion leaves behind is erased a slice at a time, between the commands that
come.

A reader goes from the head of a stream or the order of the log down to chunks and bodies. These
may be removed in between by a truncation or deletion; then it begins again with the new head.
Nothing that a head names is ever missing otherwise, because a head is written after all it names
and before anything it does not name any more is removed.

The promise is that of memory: the process and its tables are the only copy. When the process
crashes or is killed, its supervisor starts another, and the store is there again and empty: no
streams, positions from 0. Handlers of `[erl_esdb, store, stopped]` and `started` see it happen. Who
must not lose events takes an engine that writes to disk.
""".

-behaviour(erl_esdb_engine).
-behaviour(gen_server).

-export([start_link/2, command/3, read/6, read_log/5]).
-export([stream/3, streams/2, next_position/2, document/3, documents/4]).
-export([checkpoint/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("../log/erl_esdb_log.hrl").

%% Everything a reader needs: the process, and its tables.
-record(handle, {
    server :: pid(),
    %% {Stream, Head}, ordered
    streams :: ets:table(),
    %% {Number of a stream, Name, First version kept} and {order, Sequence}
    owners :: ets:table(),
    %% {{Number of a stream or 0, Number}, Chunk or gap}
    chunks :: ets:table(),
    %% {Index, Packed events or body of a document}
    bodies :: ets:table(),
    %% {Key, Version, Index}, ordered
    documents :: ets:table(),
    %% {Key, Value}
    checkpoints :: ets:table()
}).

-record(state, {
    store :: atom(),
    handle :: #handle{},
    index = 0 :: non_neg_integer(),
    log = erl_esdb_log:new() :: erl_esdb_log:state(),
    %% whether a message is on its way that goes on with erasing
    sweeping = false :: boolean()
}).

%% ---- engine, in the process of the caller

-doc false.
-spec start_link(atom(), erl_esdb_engine:settings()) -> gen_server:start_ret().
start_link(Store, Settings) -> gen_server:start_link(?MODULE, {Store, Settings}, []).

-doc false.
-spec command(#handle{}, erl_esdb_log:command(), timeout()) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:failure()}.
command(#handle{server = Server}, Command, Timeout) ->
    try
        gen_server:call(Server, Command, Timeout)
    catch
        exit:{timeout, _} -> {error, timeout};
        exit:{Reason, {gen_server, call, _}} = Exit:Stack -> ended(Reason, Exit, Stack)
    end.

%% It was not there (noproc), or it ended or crashed before it answered. Another reason is a mistake
%% on this side, such as a time that no receive can wait (timeout_value): then the command is sent,
%% and "not started" would deny it.
-spec ended(term(), term(), [tuple()]) -> {error, not_started}.
ended(Reason, _, _) when Reason =:= noproc; Reason =:= normal; Reason =:= killed ->
    {error, not_started};
ended(shutdown, _, _) ->
    {error, not_started};
ended({shutdown, _}, _, _) ->
    {error, not_started};
ended({Crash, [_ | _]}, _, _) when Crash =/= timeout_value ->
    {error, not_started};
ended(_, Exit, Stack) ->
    erlang:raise(exit, Exit, Stack).

-doc false.
-spec read(
    #handle{},
    binary(),
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    erl_esdb_engine:options()
) -> {ok, [erl_esdb_engine:piece()]} | {error, stream_not_found | erl_esdb_engine:failure()}.
read(Handle, Stream, From, Count, Direction, _Options) ->
    looking(fun() -> read_stream(Handle, Stream, From, Count, Direction) end).

-spec read_stream(
    #handle{},
    binary(),
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward
) -> {ok, [erl_esdb_engine:piece()]} | {error, stream_not_found}.
read_stream(#handle{streams = Streams} = Handle, Stream, From, Count, Direction) ->
    case ets:lookup(Streams, Stream) of
        [{_, Head}] ->
            Fetch = fetch(Handle, erl_esdb_log:no(Head)),
            Spans = erl_esdb_log:rows(Head, From, Count, Direction, Fetch),
            {ok, [piece(Handle, Stream, Span) || Span <- Spans]};
        [] ->
            {error, stream_not_found}
    end.

-doc false.
-spec read_log(
    #handle{},
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    erl_esdb_engine:options()
) -> {ok, [erl_esdb_engine:piece()]} | {error, erl_esdb_engine:failure()}.
read_log(#handle{owners = Owners} = Handle, From, Count, Direction, _Options) ->
    Owner = fun(No) ->
        case ets:lookup(Owners, No) of
            [{_, Name, First}] -> {Name, First};
            [] -> gone
        end
    end,
    looking(fun() ->
        [{order, Order}] = ets:lookup(Owners, order),
        Fetch = fetch(Handle, 0),
        Found = erl_esdb_log:log_rows(Order, From, Count, Direction, Owner, Fetch),
        {ok, [piece(Handle, Stream, Span) || {Stream, Span} <- Found]}
    end).

-doc false.
-spec stream(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_log:info()} | {error, stream_not_found | erl_esdb_engine:failure()}.
stream(#handle{streams = Streams}, Stream, _Options) ->
    looking(fun() ->
        case ets:lookup(Streams, Stream) of
            [{_, Head}] -> {ok, erl_esdb_log:describe(Head)};
            [] -> {error, stream_not_found}
        end
    end).

-doc false.
-spec streams(#handle{}, erl_esdb_engine:options()) ->
    {ok, [binary()]} | {error, erl_esdb_engine:failure()}.
streams(#handle{streams = Streams}, _Options) ->
    looking(fun() -> {ok, ets:select(Streams, [{{'$1', '_'}, [], ['$1']}])} end).

-doc false.
-spec next_position(#handle{}, erl_esdb_engine:options()) ->
    {ok, non_neg_integer()} | {error, erl_esdb_engine:failure()}.
next_position(#handle{owners = Owners}, _Options) ->
    looking(fun() ->
        [{order, Order}] = ets:lookup(Owners, order),
        {ok, erl_esdb_log:log_end(Order)}
    end).

-doc false.
-spec document(#handle{}, erl_esdb_log:document_key(), erl_esdb_engine:options()) ->
    {ok, {pos_integer(), binary()}} | {error, not_found | erl_esdb_engine:failure()}.
document(#handle{documents = Documents, bodies = Bodies}, Key, _Options) ->
    looking(fun() ->
        case ets:lookup(Documents, Key) of
            [{_, Version, Index}] -> {ok, {Version, body(Bodies, Index)}};
            [] -> {error, not_found}
        end
    end).

-doc false.
-spec documents(
    #handle{}, erl_esdb_log:document_key(), erl_esdb_log:document_key(), erl_esdb_engine:options()
) -> {ok, [{erl_esdb_log:document_key(), pos_integer()}]} | {error, erl_esdb_engine:failure()}.
documents(#handle{documents = Documents}, From, To, _Options) ->
    Between = [{'>=', '$1', {const, From}}, {'=<', '$1', {const, To}}],
    looking(fun() ->
        {ok, ets:select(Documents, [{{'$1', '$2', '_'}, Between, [{{'$1', '$2'}}]}])}
    end).

-doc false.
-spec checkpoint(#handle{}, term(), erl_esdb_engine:options()) ->
    {ok, term()} | {error, not_found | erl_esdb_engine:failure()}.
checkpoint(#handle{checkpoints = Checkpoints}, Key, _Options) ->
    looking(fun() ->
        case ets:lookup(Checkpoints, Key) of
            [{_, Value}] -> {ok, Value};
            [] -> {error, not_found}
        end
    end).

-spec piece(#handle{}, binary(), erl_esdb_log:span()) -> erl_esdb_engine:piece().
piece(#handle{bodies = Bodies}, Stream, {#row{index = Index}, _, _} = Span) ->
    {Stream, Span, body(Bodies, Index)}.

-spec body(ets:table(), erl_esdb_log:index()) -> binary().
body(Bodies, Index) ->
    case ets:lookup(Bodies, Index) of
        [{_, Body}] -> Body;
        [] -> throw(removed)
    end.

-spec fetch(#handle{}, non_neg_integer()) -> erl_esdb_chunks:fetch().
fetch(#handle{chunks = Chunks}, No) ->
    fun(Number) ->
        case ets:lookup(Chunks, {No, Number}) of
            [{_, Chunk}] -> Chunk;
            [] -> throw(removed)
        end
    end.

%% What was found may be removed before it is fetched: then its stream has another head by now,
%% and there was one more truncation for each time we look again. The tables go with the process.
-spec looking(fun(() -> Result)) -> Result | {error, not_started}.
looking(Look) ->
    try
        Look()
    catch
        throw:removed -> looking(Look);
        error:badarg:Stack -> ets_gone(Stack)
    end.

-spec ets_gone([tuple()]) -> {error, not_started}.
ets_gone([{ets, _, _, _} | _]) -> {error, not_started};
ets_gone(Stack) -> erlang:raise(error, badarg, Stack).

%% ---- the process

-doc false.
-spec init({atom(), erl_esdb_engine:settings()}) -> {ok, #state{}}.
init({Store, Settings}) ->
    %% terminate/2 shall run when the supervisor stops us.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    Handle = #handle{
        server = self(),
        streams = table(ordered_set),
        owners = table(set),
        chunks = table(set),
        bodies = table(set),
        documents = table(ordered_set),
        checkpoints = table(set)
    },
    mirror({order, erl_esdb_chunks:new()}, <<>>, Handle),
    ok = erl_esdb_engine:ready(Store, ?MODULE, {Handle, Settings}),
    {ok, #state{store = Store, handle = Handle}}.

-spec table(set | ordered_set) -> ets:table().
table(Type) -> ets:new(?MODULE, [Type, protected, {read_concurrency, true}]).

-doc false.
%% The tables are the only copy: no message that is none of ours may end the process.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, erl_esdb_log:reply() | {error, unknown_request}, #state{}}.
handle_call(Request, _From, State) ->
    case erl_esdb_log:is_command(Request) of
        true ->
            {Reply, State1} = applied(Request, State),
            {reply, Reply, sweep_later(State1)};
        false ->
            {reply, {error, unknown_request}, State}
    end.

-spec applied(erl_esdb_log:command(), #state{}) -> {erl_esdb_log:reply(), #state{}}.
applied(Command, #state{index = Before, log = Log, handle = Handle} = State) ->
    Index = Before + 1,
    {Reply, Effects, Log1} = erl_esdb_log:apply(Index, Command, Log),
    Body = brought(Command),
    lists:foreach(fun(Effect) -> mirror(Effect, Body, Handle) end, Effects),
    lists:foreach(fun(Effect) -> feed(Effect, State) end, Effects),
    {Reply, State#state{index = Index, log = Log1}}.

%% What was appended can be read by now.
-spec feed(erl_esdb_log:effect(), #state{}) -> ok.
feed({order, Order}, #state{store = Store}) ->
    erl_esdb_feed:committed(Store, erl_esdb_log:log_end(Order));
feed(_, _State) ->
    ok.

%% Whatever came in the meantime has its turn before the next slice is erased.
-spec sweep_later(#state{}) -> #state{}.
sweep_later(#state{sweeping = false, log = Log} = State) ->
    case erl_esdb_log:pending(Log) of
        true ->
            self() ! sweep,
            State#state{sweeping = true};
        false ->
            State
    end;
sweep_later(State) ->
    State.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(Message, State) -> ignored(Message, State).

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info(sweep, State) ->
    {ok, State1} = applied(sweep, State),
    {noreply, sweep_later(State1#state{sweeping = false})};
handle_info(Message, State) ->
    ignored(Message, State).

-spec ignored(term(), #state{}) -> {noreply, #state{}}.
ignored(Message, #state{store = Store} = State) ->
    ?LOG_DEBUG("store ~tp: ignored ~tP", [Store, Message, 20]),
    {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(Reason, #state{store = Store}) -> erl_esdb_engine:gone(Store, Reason).

-spec brought(erl_esdb_log:command()) -> binary().
brought({append, _, _, Packed, _}) -> Packed;
brought({put_document, _, Body}) -> Body;
brought(_) -> <<>>.

-spec mirror(erl_esdb_log:effect(), binary(), #handle{}) -> true.
mirror({live, [Index]}, Body, #handle{bodies = Bodies}) ->
    ets:insert(Bodies, {Index, Body});
mirror({dead, Indexes}, _, #handle{bodies = Bodies}) ->
    lists:foreach(fun(Index) -> ets:delete(Bodies, Index) end, Indexes),
    true;
mirror({stream, Name, Head}, _, #handle{streams = Streams, owners = Owners}) ->
    ets:insert(Owners, {erl_esdb_log:no(Head), Name, erl_esdb_log:first(Head)}),
    ets:insert(Streams, {Name, Head});
mirror({no_stream, Name, Head}, _, #handle{streams = Streams, owners = Owners}) ->
    ets:delete(Owners, erl_esdb_log:no(Head)),
    ets:delete(Streams, Name);
mirror({order, Order}, _, #handle{owners = Owners}) ->
    ets:insert(Owners, {order, Order});
mirror({chunk, Key, Chunk}, _, #handle{chunks = Chunks}) ->
    ets:insert(Chunks, {Key, Chunk});
mirror({no_chunk, Key}, _, #handle{chunks = Chunks}) ->
    ets:delete(Chunks, Key);
mirror({document, Key, {Version, Index}}, _, #handle{documents = Documents}) ->
    ets:insert(Documents, {Key, Version, Index});
mirror({no_document, Key}, _, #handle{documents = Documents}) ->
    ets:delete(Documents, Key);
mirror({checkpoint, Saved, Gone}, _, #handle{checkpoints = Checkpoints}) ->
    lists:foreach(fun(Key) -> ets:delete(Checkpoints, Key) end, Gone),
    ets:insert(Checkpoints, maps:to_list(Saved)).
