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

Commands that have been sent and not yet taken are counted by who sends and by the process. Where
there are `max_queue` of them the next is refused at once, `overloaded`.

The promise is that of memory: the process and its tables are the only copy. When the process
crashes or is killed, its supervisor starts another, and the store is there again and empty: no
streams, positions from 0. Handlers of `[erl_esdb, store, stopped]` and `started` see it happen. Who
must not lose events takes an engine that writes to disk.
""".

-behaviour(erl_esdb_engine).
-behaviour(gen_server).

-export([start_link/2, command/3, read/6, read_log/5]).
-export([stream/3, streams/2, names/5, tip/3, tombs/4, metadata/3]).
-export([next_position/2, document/3, documents/4, checkpoint/3, checkpoints/2, status/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("../log/erl_esdb_log.hrl").

-import(erl_esdb_args, [less/2]).

%% Everything a reader needs: the process, and its tables.
-record(handle, {
    server :: pid(),
    %% how many commands wait for it, about, and may
    waiting :: counters:counters_ref(),
    %% of the bodies, which are no part of what ETS counts
    bytes :: counters:counters_ref(),
    max_queue :: pos_integer(),
    %% {Stream, Head}, ordered
    streams :: ets:table(),
    %% {Stream, Head} of streams with a tombstone, ordered
    tombs :: ets:table(),
    %% {Stream, Metadata}
    metadata :: ets:table(),
    %% {Number of a stream, Name, First version kept} and {order, Sequence}
    owners :: ets:table(),
    %% {{Number of a stream or 0, Number}, Chunk or gap}
    chunks :: ets:table(),
    %% {Index, Packed events or body of a document}; of an append to several streams
    %% {{Index, Stream}, Packed events} and {Index, [Stream]}
    bodies :: ets:table(),
    %% {Key, Version, Index}, ordered
    documents :: ets:table(),
    %% {Key, Value}
    checkpoints :: ets:table()
}).

%% What the next append goes on from.
-define(TIP, [next, epoch_us, tip, no, signed]).

-record(state, {
    store :: atom(),
    handle :: #handle{},
    index = 0 :: non_neg_integer(),
    log :: erl_esdb_log:state(),
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
command(#handle{server = Server, waiting = Waiting} = Handle, Command, Timeout) ->
    case is_full(Handle) of
        true ->
            {error, overloaded};
        false ->
            ok = counters:add(Waiting, 1, 1),
            call(Server, Command, Timeout)
    end.

%% One who is killed between counting and sending is counted for ever. So the count is only believed
%% where it says that there is room; otherwise the queue itself is asked, which takes longer.
-spec is_full(#handle{}) -> boolean().
is_full(#handle{server = Server, waiting = Waiting, max_queue = Max}) ->
    counters:get(Waiting, 1) >= Max andalso
        case process_info(Server, message_queue_len) of
            {message_queue_len, Length} -> Length >= Max;
            undefined -> false
        end.

-spec call(pid(), erl_esdb_log:command(), timeout()) ->
    erl_esdb_log:reply() | {error, not_started | timeout}.
call(Server, Command, Timeout) ->
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
read(Handle, Stream, From, Count, Direction, Options) ->
    maybe
        {ok, Pieces} ?=
            on_head(Handle, Stream, Options, fun(Head, Fetch) ->
                Spans = erl_esdb_log:rows(Head, From, Count, Direction, Fetch),
                pieces(Handle, [{Stream, Span} || Span <- Spans], Options)
            end),
        Pieces
    end.

%% The head of a stream, as its metadata lets it be seen.
-spec on_head(#handle{}, binary(), erl_esdb_engine:options(), Fun) ->
    {ok, Result} | {error, stream_not_found | not_started}
when
    Fun :: fun((erl_esdb_log:head(), erl_esdb_chunks:fetch()) -> Result).
on_head(#handle{streams = Streams} = Handle, Stream, Options, Fun) ->
    looking(fun() ->
        case ets:lookup(Streams, Stream) of
            [{_, Head}] ->
                Fetch = fetch(Handle, erl_esdb_log:no(Head)),
                {ok, Fun(view(Handle, Stream, Head, Options, Fetch), Fetch)};
            [] ->
                {error, stream_not_found}
        end
    end).

-spec view(#handle{}, binary(), erl_esdb_log:head(), map(), erl_esdb_chunks:fetch()) ->
    erl_esdb_log:head().
view(_Handle, _Stream, Head, #{hidden := true}, _Fetch) ->
    Head;
view(#handle{metadata = Table}, Stream, Head, _Options, Fetch) ->
    case ets:lookup(Table, Stream) of
        [{_, Metadata}] -> erl_esdb_log:view(Head, Metadata, now_us(), Fetch);
        [] -> Head
    end.

-spec now_us() -> integer().
now_us() -> erlang:system_time(microsecond).

-doc false.
-spec read_log(
    #handle{},
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    erl_esdb_engine:options()
) -> {ok, [erl_esdb_engine:piece()]} | {error, erl_esdb_engine:failure()}.
read_log(#handle{owners = Owners} = Handle, From, Count, Direction, Options) ->
    Owner = fun(No) ->
        case ets:lookup(Owners, No) of
            [{_, Name, First}] -> {Name, First, first_seen(Handle, Name, No, First, Options)};
            [] -> gone
        end
    end,
    looking(fun() ->
        [{order, Order}] = ets:lookup(Owners, order),
        Fetch = fetch(Handle, 0),
        Found = erl_esdb_log:log_rows(Order, From, Count, Direction, Owner, Fetch),
        pieces(Handle, Found, Options)
    end).

-spec first_seen(#handle{}, binary(), pos_integer(), First, map()) -> First when
    First :: non_neg_integer().
first_seen(_Handle, _Name, _No, First, #{hidden := true}) ->
    First;
first_seen(#handle{streams = Streams, metadata = Table} = Handle, Name, No, First, Options) ->
    case ets:member(Table, Name) andalso ets:lookup(Streams, Name) of
        [{_, Head}] -> erl_esdb_log:first(view(Handle, Name, Head, Options, fetch(Handle, No)));
        %% It has none, or was removed a moment ago.
        _ -> First
    end.

-doc false.
-spec stream(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_log:info()} | {error, stream_not_found | erl_esdb_engine:failure()}.
stream(Handle, Stream, Options) ->
    on_head(Handle, Stream, Options, fun(Head, _Fetch) -> erl_esdb_log:describe(Head) end).

-doc false.
-spec streams(#handle{}, erl_esdb_engine:options()) ->
    {ok, [binary()]} | {error, erl_esdb_engine:failure()}.
streams(#handle{streams = Streams}, _Options) ->
    looking(fun() -> {ok, ets:select(Streams, [{{'$1', '_'}, [], ['$1']}])} end).

-doc false.
-spec names(
    #handle{},
    binary() | first,
    binary(),
    non_neg_integer() | infinity,
    erl_esdb_engine:options()
) -> {ok, [binary()]} | {error, erl_esdb_engine:failure()}.
names(#handle{streams = Streams}, Behind, Prefix, Limit, _Options) ->
    looking(fun() ->
        First =
            case Behind =:= first orelse Behind < Prefix of
                true -> from(Prefix, Streams);
                false -> ets:next(Streams, Behind)
            end,
        {ok, collect(First, Prefix, Limit, Streams)}
    end).

%% The first key that is not before this one.
-spec from(Key, ets:table()) -> Key | '$end_of_table' when Key :: binary() | tuple().
from(Key, Table) ->
    case ets:member(Table, Key) of
        true -> Key;
        false -> ets:next(Table, Key)
    end.

-spec collect(
    binary() | '$end_of_table', binary(), non_neg_integer() | infinity, ets:table()
) -> [binary()].
collect(_Name, _Prefix, 0, _Streams) ->
    [];
collect(Name, Prefix, Limit, Streams) ->
    Size = byte_size(Prefix),
    case Name of
        <<Prefix:Size/binary, _/binary>> ->
            [Name | collect(ets:next(Streams, Name), Prefix, less(Limit, 1), Streams)];
        _ ->
            []
    end.

-doc false.
-spec tip(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_engine:place()}
    | {error, erl_esdb_engine:failure()}.
tip(#handle{streams = Streams, tombs = Tombs}, Stream, _Options) ->
    looking(fun() ->
        %% The second time for one that went on behind its tombstone in between.
        Tables = [Streams, Tombs, Streams],
        case [Head || Table <- Tables, {_, Head} <- ets:lookup(Table, Stream)] of
            [Head | _] -> {ok, maps:with(?TIP, erl_esdb_log:describe(Head))};
            [] -> {ok, #{next => 0, epoch_us => 0, tip => none, no => none, signed => none}}
        end
    end).

-doc false.
-spec tombs(
    #handle{}, binary() | first, non_neg_integer() | infinity, erl_esdb_engine:options()
) -> {ok, [{binary(), erl_esdb_log:info()}]} | {error, erl_esdb_engine:failure()}.
tombs(#handle{tombs = Tombs}, Behind, Limit, _Options) ->
    looking(fun() ->
        First =
            case Behind of
                first -> ets:first(Tombs);
                _ -> ets:next(Tombs, Behind)
            end,
        {ok, buried(First, Limit, Tombs)}
    end).

-spec buried(binary() | '$end_of_table', non_neg_integer() | infinity, ets:table()) ->
    [{binary(), erl_esdb_log:info()}].
buried(Name, Limit, _Tombs) when Limit =:= 0; Name =:= '$end_of_table' ->
    [];
buried(Name, Limit, Tombs) ->
    After = ets:next(Tombs, Name),
    case ets:lookup(Tombs, Name) of
        [{_, Head}] -> [{Name, erl_esdb_log:describe(Head)} | buried(After, less(Limit, 1), Tombs)];
        %% Made again a moment ago.
        [] -> buried(After, Limit, Tombs)
    end.

-doc false.
-spec metadata(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_log:metadata()} | {error, erl_esdb_engine:failure()}.
metadata(#handle{metadata = Table}, Stream, _Options) ->
    looking(fun() ->
        case ets:lookup(Table, Stream) of
            [{_, Metadata}] -> {ok, Metadata};
            [] -> {ok, #{}}
        end
    end).

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
    looking(fun() -> {ok, documents(from(From, Documents), To, Documents)} end).

%% From key to key: a match specification with bounds would look at every document of the store.
-spec documents(erl_esdb_log:document_key() | '$end_of_table', tuple(), ets:table()) ->
    [{erl_esdb_log:document_key(), pos_integer()}].
documents(Key, To, Documents) when is_tuple(Key), Key =< To ->
    After = ets:next(Documents, Key),
    case ets:lookup(Documents, Key) of
        [{_, Version, _}] -> [{Key, Version} | documents(After, To, Documents)];
        %% Removed a moment ago.
        [] -> documents(After, To, Documents)
    end;
documents(_, _, _) ->
    [].

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

-doc false.
-spec checkpoints(#handle{}, erl_esdb_engine:options()) ->
    {ok, #{term() => term()}} | {error, erl_esdb_engine:failure()}.
checkpoints(#handle{checkpoints = Checkpoints}, _Options) ->
    looking(fun() -> {ok, maps:from_list(ets:tab2list(Checkpoints))} end).

-doc false.
-spec status(#handle{}) -> erl_esdb_engine:status().
status(#handle{server = Server} = Handle) ->
    case process_info(Server, [memory, message_queue_len]) of
        [{memory, Heap}, {message_queue_len, Waiting}] ->
            Bytes = Heap + tables_bytes(Handle) + counters:get(Handle#handle.bytes, 1),
            Self = #{role => leader, leader => node(), members => [node()]},
            Self#{ram_bytes => Bytes, waiting => Waiting};
        undefined ->
            #{}
    end.

-spec tables_bytes(#handle{}) -> non_neg_integer().
tables_bytes(#handle{streams = Streams, tombs = Tombs, metadata = Metadata} = Handle) ->
    #handle{owners = Owners, chunks = Chunks, bodies = Bodies} = Handle,
    #handle{documents = Documents, checkpoints = Checkpoints} = Handle,
    Tables = [Streams, Tombs, Metadata, Owners, Chunks, Bodies, Documents, Checkpoints],
    %% One that went with the process meanwhile has no memory.
    Words = [Size || Table <- Tables, Size <- [ets:info(Table, memory)], is_integer(Size)],
    lists:sum(Words) * erlang:system_info(wordsize).

-spec pieces(#handle{}, [{binary(), erl_esdb_log:span()}], erl_esdb_engine:options()) ->
    {ok, [erl_esdb_engine:piece()]} | {error, timeout}.
pieces(Handle, Found, Options) ->
    Until = erl_esdb_deadline:in(maps:get(timeout, Options, infinity)),
    erl_esdb_deadline:map(fun(Span) -> {ok, piece(Handle, Span)} end, Found, Until).

-spec piece(#handle{}, {binary(), erl_esdb_log:span()}) -> erl_esdb_engine:piece().
piece(#handle{bodies = Bodies}, {Stream, {#row{index = Index, parts = 1}, _, _} = Span}) ->
    {Stream, Span, body(Bodies, Index)};
piece(#handle{bodies = Bodies}, {Stream, {#row{index = Index}, _, _} = Span}) ->
    {Stream, Span, body(Bodies, {Index, Stream})}.

-spec body(ets:table(), erl_esdb_log:index() | {erl_esdb_log:index(), binary()}) -> binary().
body(Bodies, Key) ->
    case ets:lookup(Bodies, Key) of
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
        waiting = counters:new(1, [atomics]),
        bytes = counters:new(1, []),
        max_queue = maps:get(max_queue, Settings),
        streams = table(ordered_set),
        tombs = table(ordered_set),
        metadata = table(set),
        owners = table(set),
        chunks = table(set),
        bodies = table(set),
        documents = table(ordered_set),
        checkpoints = table(set)
    },
    true = ets:insert(Handle#handle.owners, {order, erl_esdb_chunks:new()}),
    ok = erl_esdb_engine:ready(Store, ?MODULE, {Handle, Settings}),
    {ok, #state{store = Store, handle = Handle, log = erl_esdb_log:new(Settings)}}.

-spec table(set | ordered_set) -> ets:table().
table(Type) -> ets:new(?MODULE, [Type, protected, {read_concurrency, true}]).

-doc false.
%% The tables are the only copy: no message that is none of ours may end the process.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, erl_esdb_log:reply() | {error, unknown_request}, #state{}}.
handle_call(Request, _From, #state{handle = Handle} = State) ->
    case erl_esdb_log:is_command(Request) of
        true ->
            ok = counters:sub(Handle#handle.waiting, 1, 1),
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

%% One body, or one a stream.
-spec brought(erl_esdb_log:command()) -> binary() | [{binary(), binary()}].
brought({append, _, _, Packed, _}) -> Packed;
brought({append_many, Parts, _}) -> several([P || {_, _, _, #{count := N}} = P <- Parts, N > 0]);
brought({put_document, _, Body}) -> Body;
brought(_) -> <<>>.

-spec several([{binary(), erl_esdb_log:expected(), binary(), erl_esdb_log:summary()}]) ->
    binary() | [{binary(), binary()}].
several([{_, _, Packed, _}]) -> Packed;
several(Parts) -> [{Stream, Packed} || {Stream, _, Packed, _} <- Parts].

-spec mirror(erl_esdb_log:effect(), binary() | [{binary(), binary()}], #handle{}) -> true.
mirror({live, [Index]}, Body, Handle) when is_binary(Body) ->
    keep([{Index, Body}], Handle);
mirror({live, [Index]}, Parts, #handle{bodies = Bodies} = Handle) ->
    true = ets:insert(Bodies, {Index, [Stream || {Stream, _} <- Parts]}),
    keep([{{Index, Name}, Packed} || {Name, Packed} <- Parts], Handle);
mirror({dead, Indexes}, _, Handle) ->
    lists:foreach(fun(Index) -> forget(Index, Handle) end, Indexes),
    true;
mirror({tomb, Name, Head}, _, #handle{tombs = Tombs}) ->
    ets:insert(Tombs, {Name, Head});
mirror({no_tomb, Name}, _, #handle{tombs = Tombs}) ->
    ets:delete(Tombs, Name);
mirror({metadata, Name, Metadata}, _, #handle{metadata = Table}) ->
    ets:insert(Table, {Name, Metadata});
mirror({no_metadata, Name}, _, #handle{metadata = Table}) ->
    ets:delete(Table, Name);
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

-spec keep([{Key :: term(), binary()}, ...], #handle{}) -> true.
keep(Objects, #handle{bodies = Bodies, bytes = Bytes}) ->
    ok = counters:add(Bytes, 1, lists:sum([byte_size(Body) || {_, Body} <- Objects])),
    ets:insert(Bodies, Objects).

-spec forget(erl_esdb_log:index() | {erl_esdb_log:index(), binary()}, #handle{}) -> ok.
forget(Key, #handle{bodies = Bodies, bytes = Bytes} = Handle) ->
    case ets:take(Bodies, Key) of
        [{_, Body}] when is_binary(Body) ->
            counters:sub(Bytes, 1, byte_size(Body));
        [{Index, Names}] ->
            lists:foreach(fun(Name) -> forget({Index, Name}, Handle) end, Names);
        [] ->
            ok
    end.
