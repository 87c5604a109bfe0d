-module(erl_esdb_engine_memory).
-moduledoc """
A store in the memory of one node, for as long as its process lives.

One process applies the commands. What changed it writes into `m:erl_esdb_tables` and a table of
bodies, in the order the machine gives, before it answers. Reads look there, in the process of the
caller, at the same time as each other and as appends.

What a truncation or deletion leaves behind is erased a slice at a time, between the commands that
come.

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
-export([next_position/2, document/3, documents/4, checkpoint/3, checkpoints/2]).
-export([view/1, status/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("../log/erl_esdb_log.hrl").

%% Everything a reader needs: the process, and its tables.
-record(handle, {
    server :: pid(),
    %% how many commands wait for it, about, and may
    waiting :: counters:counters_ref(),
    max_queue :: pos_integer(),
    %% of the bodies, which are no part of what ETS counts
    bytes :: counters:counters_ref(),
    tables :: erl_esdb_tables:tables(),
    %% {Index, Packed events or body of a document}; of an append to several streams
    %% {{Index, Stream}, Packed events} and {Index, [Stream]}
    bodies :: ets:table()
}).

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
read(#handle{tables = Tables} = Handle, Stream, From, Count, Direction, Options) ->
    erl_esdb_tables:looking(fun() ->
        maybe
            {ok, Found} ?=
                erl_esdb_tables:spans(Tables, Stream, From, Count, Direction, Options),
            pieces(Handle, Found, Options)
        end
    end).

-doc false.
-spec read_log(
    #handle{},
    non_neg_integer() | last,
    non_neg_integer() | infinity,
    forward | backward,
    erl_esdb_engine:options()
) -> {ok, [erl_esdb_engine:piece()]} | {error, erl_esdb_engine:failure()}.
read_log(#handle{tables = Tables} = Handle, From, Count, Direction, Options) ->
    erl_esdb_tables:looking(fun() ->
        pieces(
            Handle, erl_esdb_tables:log_spans(Tables, From, Count, Direction, Options), Options
        )
    end).

-doc false.
-spec stream(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_log:info()} | {error, stream_not_found | erl_esdb_engine:failure()}.
stream(#handle{tables = Tables}, Stream, Options) ->
    erl_esdb_tables:looking(fun() -> erl_esdb_tables:stream(Tables, Stream, Options) end).

-doc false.
-spec streams(#handle{}, erl_esdb_engine:options()) ->
    {ok, [binary()]} | {error, erl_esdb_engine:failure()}.
streams(#handle{tables = Tables}, _Options) ->
    erl_esdb_tables:looking(fun() -> {ok, erl_esdb_tables:streams(Tables)} end).

-doc false.
-spec names(
    #handle{},
    binary() | first,
    binary(),
    non_neg_integer() | infinity,
    erl_esdb_engine:options()
) -> {ok, [binary()]} | {error, erl_esdb_engine:failure()}.
names(#handle{tables = Tables}, Behind, Prefix, Limit, _Options) ->
    erl_esdb_tables:looking(fun() ->
        {ok, erl_esdb_tables:names(Tables, Behind, Prefix, Limit)}
    end).

-doc false.
-spec tip(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_engine:place()}
    | {error, erl_esdb_engine:failure()}.
tip(#handle{tables = Tables}, Stream, _Options) ->
    erl_esdb_tables:looking(fun() -> {ok, erl_esdb_tables:tip(Tables, Stream)} end).

-doc false.
-spec tombs(
    #handle{}, binary() | first, non_neg_integer() | infinity, erl_esdb_engine:options()
) -> {ok, [{binary(), erl_esdb_log:info()}]} | {error, erl_esdb_engine:failure()}.
tombs(#handle{tables = Tables}, Behind, Limit, _Options) ->
    erl_esdb_tables:looking(fun() -> {ok, erl_esdb_tables:tombs(Tables, Behind, Limit)} end).

-doc false.
-spec metadata(#handle{}, binary(), erl_esdb_engine:options()) ->
    {ok, erl_esdb_log:metadata()} | {error, erl_esdb_engine:failure()}.
metadata(#handle{tables = Tables}, Stream, _Options) ->
    erl_esdb_tables:looking(fun() -> {ok, erl_esdb_tables:metadata(Tables, Stream)} end).

-doc false.
-spec next_position(#handle{}, erl_esdb_engine:options()) ->
    {ok, non_neg_integer()} | {error, erl_esdb_engine:failure()}.
next_position(#handle{tables = Tables}, _Options) ->
    erl_esdb_tables:looking(fun() -> {ok, erl_esdb_tables:next_position(Tables)} end).

-doc false.
-spec document(#handle{}, erl_esdb_log:document_key(), erl_esdb_engine:options()) ->
    {ok, {pos_integer(), binary()}} | {error, not_found | erl_esdb_engine:failure()}.
document(#handle{tables = Tables, bodies = Bodies}, Key, _Options) ->
    erl_esdb_tables:looking(fun() ->
        maybe
            {ok, {Version, Index}} ?= erl_esdb_tables:document(Tables, Key),
            {ok, {Version, body(Bodies, Index)}}
        end
    end).

-doc false.
-spec documents(
    #handle{}, erl_esdb_log:document_key(), erl_esdb_log:document_key(), erl_esdb_engine:options()
) -> {ok, [{erl_esdb_log:document_key(), pos_integer()}]} | {error, erl_esdb_engine:failure()}.
documents(#handle{tables = Tables}, From, To, _Options) ->
    erl_esdb_tables:looking(fun() -> {ok, erl_esdb_tables:documents(Tables, From, To)} end).

-doc false.
-spec checkpoint(#handle{}, term(), erl_esdb_engine:options()) ->
    {ok, term()} | {error, not_found | erl_esdb_engine:failure()}.
checkpoint(#handle{tables = Tables}, Key, _Options) ->
    erl_esdb_tables:looking(fun() -> erl_esdb_tables:checkpoint(Tables, Key) end).

-doc false.
-spec checkpoints(#handle{}, erl_esdb_engine:options()) ->
    {ok, #{term() => term()}} | {error, erl_esdb_engine:failure()}.
checkpoints(#handle{tables = Tables}, _Options) ->
    erl_esdb_tables:looking(fun() -> {ok, erl_esdb_tables:checkpoints(Tables)} end).

-doc false.
%% Its log are the events.
-spec view(#handle{}) -> {ok, erl_esdb_engine:view()} | {error, erl_esdb_engine:failure()}.
view(Handle) ->
    maybe
        {ok, Next} ?= next_position(Handle, #{}),
        {ok, #{
            members => [node()],
            leader => node(),
            role => leader,
            term => 0,
            commit_index => Next,
            last_applied => Next
        }}
    end.

-doc false.
-spec status(#handle{}) -> erl_esdb_engine:status().
status(#handle{server = Server, tables = Tables, bytes = Bytes}) ->
    case process_info(Server, [memory, message_queue_len]) of
        [{memory, Heap}, {message_queue_len, Waiting}] ->
            #{
                role => leader,
                leader => node(),
                members => [node()],
                ram_bytes => Heap + erl_esdb_tables:bytes(Tables) + counters:get(Bytes, 1),
                waiting => Waiting
            };
        undefined ->
            #{}
    end.

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

%% ---- the process

-doc false.
-spec init({atom(), erl_esdb_engine:settings()}) -> {ok, #state{}}.
init({Store, Settings}) ->
    %% terminate/2 shall run when the supervisor stops us.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    Tables = erl_esdb_tables:new(),
    Handle = #handle{
        server = self(),
        waiting = counters:new(1, [atomics]),
        max_queue = maps:get(max_queue, Settings),
        bytes = counters:new(1, []),
        tables = Tables,
        bodies = ets:new(?MODULE, [set, protected, {read_concurrency, true}])
    },
    ok = erl_esdb_engine:ready(Store, ?MODULE, {Handle, Settings}),
    Log = erl_esdb_log:new(Settings, erl_esdb_tables:base(Tables)),
    {ok, #state{store = Store, handle = Handle, log = Log}}.

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
    {Reply, State#state{index = Index, log = erl_esdb_log:rest(Log1)}}.

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

-spec mirror(erl_esdb_log:effect(), binary() | [{binary(), binary()}], #handle{}) -> ok.
mirror({live, [Index]}, Body, Handle) when is_binary(Body) ->
    keep([{Index, Body}], Handle);
mirror({live, [Index]}, Parts, #handle{bodies = Bodies} = Handle) ->
    true = ets:insert(Bodies, {Index, [Stream || {Stream, _} <- Parts]}),
    keep([{{Index, Name}, Packed} || {Name, Packed} <- Parts], Handle);
mirror({dead, Indexes}, _, Handle) ->
    lists:foreach(fun(Index) -> forget(Index, Handle) end, Indexes);
mirror(Effect, _, #handle{tables = Tables}) ->
    erl_esdb_tables:write(Effect, Tables).

-spec keep([{Key :: term(), binary()}, ...], #handle{}) -> ok.
keep(Objects, #handle{bodies = Bodies, bytes = Bytes}) ->
    true = ets:insert(Bodies, Objects),
    counters:add(Bytes, 1, lists:sum([byte_size(Body) || {_, Body} <- Objects])).

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
