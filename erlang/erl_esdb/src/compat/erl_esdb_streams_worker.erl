-module(erl_esdb_streams_worker).
-moduledoc """
What the writer and the reader of a stream share: a process that is found by its group, does what it
is asked through `m:erl_esdb_streams`, and ends when nobody has asked for a while.

Nothing needs these processes: the store orders appends itself, and reads go past every process.
They are for callers of the original, which had one of each for a stream.
""".

-behaviour(gen_server).

-export([start_link/3, find/3, ask/4, partition/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([kind/0]).

-include("erl_esdb.hrl").

-type kind() :: streams_writer | streams_reader.
-type request() ::
    {append, erl_esdb_streams:expected(), [new_event() | event()]}
    | {read, non_neg_integer(), erl_esdb_store:count(), direction()}.

-define(SCOPE, erl_esdb_pg).
%% Milliseconds; and the longest time that a process can wait.
-define(IDLE, 10_000).
-define(MAX_IDLE, 16#FFFFFFFF).

-record(state, {
    kind :: kind(),
    store :: atom(),
    stream :: binary(),
    idle :: pos_integer()
}).

-doc "Starts the worker of a stream.".
-spec start_link(module(), kind(), {Store :: atom(), Stream :: binary(), non_neg_integer()}) ->
    gen_server:start_ret().
start_link(Module, Kind, {Store, Stream, Partition}) when
    is_atom(Store), is_binary(Stream), is_integer(Partition)
->
    gen_server:start_link(?MODULE, {Module, Kind, Store, Stream}, []).

-doc "Which of as many parts as there are schedulers a stream belongs to.".
-spec partition(Store :: atom(), Stream :: binary()) -> non_neg_integer().
partition(Store, Stream) ->
    erlang:phash2({Store, Stream}, erlang:system_info(schedulers_online)).

-doc """
The worker of a stream on this node; it is started where there is none.

Of callers at the same time one starts it: the supervisor knows a worker by its kind and stream.
""".
-spec find(module(), kind(), {Store :: atom(), Stream :: binary()}) ->
    {ok, pid()} | {error, {store_not_started, atom()}}.
find(Module, Kind, {Store, Stream} = Key) when is_atom(Store), is_binary(Stream) ->
    case pg:get_local_members(?SCOPE, {Store, Stream, Kind}) of
        [Pid | _] ->
            alive(Pid, Module, Kind, Key);
        [] ->
            Started = erl_esdb_streams_sup:start_worker(Module, Kind, Store, Stream),
            started(Started, Module, Kind, Key)
    end;
find(_, _, _) ->
    error(badarg).

-spec started({ok, pid()} | {error, term()}, module(), kind(), {atom(), binary()}) ->
    {ok, pid()} | {error, {store_not_started, atom()}}.
started({ok, Pid}, _, _, _) -> {ok, Pid};
started({error, {already_started, Pid}}, Module, Kind, Key) -> alive(Pid, Module, Kind, Key);
started({error, _}, _, _, {Store, _}) -> {error, {store_not_started, Store}}.

%% The news that a process has ended may be on its way to its group and its supervisor.
-spec alive(pid(), module(), kind(), {atom(), binary()}) ->
    {ok, pid()} | {error, {store_not_started, atom()}}.
alive(Pid, Module, Kind, Key) ->
    case is_process_alive(Pid) of
        true ->
            {ok, Pid};
        false ->
            erlang:yield(),
            find(Module, Kind, Key)
    end.

-doc """
Asks the worker of a stream. One that ended before it took the request is replaced. Errors:
`{worker_down, Store}` where it was killed meanwhile: then it is not known whether it was done.
""".
-spec ask(module(), kind(), {Store :: atom(), Stream :: binary()}, request()) ->
    {ok, term()} | {error, term()}.
ask(Module, Kind, {Store, _} = Key, Request) ->
    maybe
        {ok, Pid} ?= find(Module, Kind, Key),
        answered(asked(Pid, Request), Module, Kind, Key, Request)
    else
        {error, {store_not_started, Store}} -> {error, {store_not_started, Store}}
    end.

-spec asked(pid(), request()) -> {answer, term()} | {down, term()}.
asked(Pid, Request) ->
    try
        {answer, gen_server:call(Pid, Request, infinity)}
    catch
        exit:{Reason, {gen_server, call, _}} -> {down, Reason}
    end.

%% One that ends by itself has answered what it took: this request is not among it.
-spec answered(
    {answer, term()} | {down, term()}, module(), kind(), {atom(), binary()}, request()
) -> term().
answered({answer, {raise, badarg}}, _, _, _, _) -> error(badarg);
answered({answer, Answer}, _, _, _, _) -> Answer;
answered({down, noproc}, Module, Kind, Key, Request) -> ask(Module, Kind, Key, Request);
answered({down, normal}, Module, Kind, Key, Request) -> ask(Module, Kind, Key, Request);
answered({down, shutdown}, _, _, {Store, _}, _) -> {error, {store_not_started, Store}};
answered({down, _}, _, _, {Store, _}, _) -> {error, {worker_down, Store}}.

%% ---- the process

-doc false.
-spec init({module(), kind(), atom(), binary()}) -> {ok, #state{}, timeout()}.
init({_Module, Kind, Store, Stream}) ->
    proc_lib:set_label({Kind, Store, Stream}),
    ok = pg:join(?SCOPE, {Store, Stream, Kind}, self()),
    Idle = idle(Kind),
    {ok, #state{kind = Kind, store = Store, stream = Stream, idle = Idle}, Idle}.

-spec idle(kind()) -> pos_integer().
idle(Kind) ->
    case erl_esdb_config:get_env(idle_key(Kind), ?IDLE) of
        Idle when is_integer(Idle), Idle > 0, Idle =< ?MAX_IDLE -> Idle;
        _ -> ?IDLE
    end.

-spec idle_key(kind()) -> atom().
idle_key(streams_writer) -> writer_idle_timeout_ms;
idle_key(streams_reader) -> reader_idle_timeout_ms.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}, timeout()}.
handle_call(Request, _From, #state{idle = Idle} = State) ->
    {reply, reply(Request, State), State, Idle}.

%% What is wrong about a request is the caller's to hear.
-spec reply(term(), #state{}) -> term().
reply({append, Expected, Events}, #state{kind = streams_writer} = State) ->
    delegated(fun() ->
        erl_esdb_streams:append(State#state.store, State#state.stream, Expected, Events)
    end);
reply({read, Start, Count, Direction}, #state{kind = streams_reader} = State) ->
    delegated(fun() ->
        erl_esdb_streams:read(State#state.store, State#state.stream, Start, Count, Direction)
    end);
reply(_, _) ->
    {error, unknown_request}.

-spec delegated(fun(() -> Result)) -> Result | {raise, badarg}.
delegated(Fun) ->
    try
        Fun()
    catch
        error:badarg -> {raise, badarg}
    end.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}, timeout()}.
handle_cast(_, #state{idle = Idle} = State) -> {noreply, State, Idle}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}, timeout()} | {stop, normal, #state{}}.
handle_info(timeout, State) -> {stop, normal, State};
handle_info(_, #state{idle = Idle} = State) -> {noreply, State, Idle}.
