-module(erl_esdb_link_mgr).
-moduledoc """
Keeps the definitions of the links of a store, and sees to it that those run that shall.

All changes go through this process, one after the other. A link whose process ends is started
again, up to five times in half a minute; then, and when it says itself that it cannot go on, its
status is `error` and the definition says why. A store that does not answer then is asked again.

Of a store that lives on several nodes the links run on the one that leads. Funs that no document
can keep are known where they were given: with another leader such a link has lost them.
""".

-behaviour(gen_server).

-export([start_link/1, request/3, asked/3, definition/3, progress/3, definitions/2]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Milliseconds: for a call, longer than it takes to end a link; until the links are read again.
-define(TIMEOUT, 30_000).
-define(RETRY, 200).
%% Crashes of a link, in milliseconds.
-define(CRASHES, 5).
-define(PERIOD, 30_000).
%% Keys of documents: the first that a link can have, and one behind all that it can have.
-define(FIRST, {link, <<>>}).
-define(BEHIND, {'link ', 0}).

-record(state, {
    store :: atom(),
    %% the processes of the links that run, and their names
    running = #{} :: #{binary() => pid()},
    names = #{} :: #{pid() => binary()},
    %% when they crashed lately
    crashes = #{} :: #{binary() => [integer()]},
    leading :: boolean()
}).

-type answer() ::
    {changed, erl_esdb_telemetry:event_name(), binary()} | unchanged | {error, term()}.
-type request() :: {create, map()} | {delete | start | stop, binary()}.
-type options() :: #{timeout => timeout(), _ => _}.

-doc "Starts the process, registered as `erl_esdb_naming:link_mgr_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store}) ->
    Name = erl_esdb_naming:link_mgr_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, Store, [])
    end).

-doc """
Has a change made. Telemetry is told of it here, in the process of the caller, so that a handler may
use the API. Option: `timeout`.
""".
-spec request(Store :: atom(), request(), options()) -> ok | {error, term()}.
request(Store, Request, Options) ->
    Timeout = erl_esdb_store:timeout(Options, #{timeout => ?TIMEOUT}),
    Call = {?MODULE, asked, [Store, Request]},
    case erl_esdb_cluster:at_leader(Store, Call, #{timeout => Timeout}) of
        {changed, Event, Name} -> tell(Event, Store, Name);
        unchanged -> ok;
        {error, Reason} -> {error, Reason}
    end.

-doc false.
%% On the node that leads.
-spec asked(Store :: atom(), request(), options()) -> answer().
asked(Store, Request, #{timeout := Timeout}) ->
    try
        gen_server:call(erl_esdb_naming:link_mgr_name(Store), Request, Timeout)
    catch
        exit:{timeout, _} -> {error, {timeout, Store}};
        exit:{_, {gen_server, call, _}} -> {error, {store_not_started, Store}}
    end.

-spec tell(erl_esdb_telemetry:event_name(), atom(), binary()) -> ok.
tell(Event, Store, Name) ->
    Measurements = #{system_time => erlang:system_time(millisecond)},
    erl_esdb_telemetry:emit(Event, Measurements, #{store_id => Store, link_name => Name}).

-doc "The definition of a link, with its funs. Asks no process. Option: `timeout`.".
-spec definition(Store :: atom(), Name :: binary(), options()) ->
    {ok, erl_esdb_link_spec:definition()} | {error, term()}.
definition(Store, Name, Options) ->
    maybe
        {ok, #{id := Id} = Definition} ?=
            erl_esdb_store:get_document(Store, {link, Name}, timed(Options)),
        {ok, erl_esdb_link_spec:whole(Definition, funs(Store, Name, Id))}
    end.

-spec timed(options()) -> options().
timed(Options) -> maps:with([timeout], Options).

-spec funs(atom(), binary(), binary()) -> map().
funs(Store, Name, Id) ->
    case erl_esdb_volatile:get(Store, {link, Name, Id}) of
        {ok, Funs} -> Funs;
        {error, not_found} -> #{}
    end.

-doc "How far a link has come. Asks no process. Option: `timeout`.".
-spec progress(Store :: atom(), Name :: binary(), options()) ->
    {ok, erl_esdb_link_spec:progress()} | {error, term()}.
progress(Store, Name, Options) ->
    erl_esdb_store:checkpoint(Store, {link, Name}, timed(Options)).

-doc "The definitions of all links, in the order of their names. Option: `timeout`, of each look.".
-spec definitions(Store :: atom(), options()) ->
    {ok, [erl_esdb_link_spec:definition()]} | {error, term()}.
definitions(Store, Options) ->
    maybe
        {ok, Keys} ?= erl_esdb_store:list_documents(Store, ?FIRST, ?BEHIND, timed(Options)),
        Found = [definition(Store, Name, Options) || {{link, Name}, _} <- Keys],
        {ok, [Definition || {ok, Definition} <- Found]}
    end.

%% ---- the process

-doc false.
-spec init(atom()) -> {ok, #state{}, {continue, recover}}.
init(Store) ->
    Leading = erl_esdb_cluster:watch_leader(Store) =:= node(),
    {ok, #state{store = Store, leading = Leading}, {continue, recover}}.

-doc false.
-spec handle_continue(recover, #state{}) -> {noreply, #state{}}.
handle_continue(recover, #state{leading = false} = State) ->
    {noreply, State};
handle_continue(recover, #state{store = Store, running = Running} = State) ->
    case caught_up(Store) of
        {ok, Definitions} ->
            Shall = [
                Definition
             || #{status := running, name := Name} = Definition <- Definitions,
                not is_map_key(Name, Running)
            ],
            {noreply, lists:foldl(fun run_again/2, State, Shall)};
        {error, Reason} ->
            ?LOG_DEBUG("store ~tp: links wait: ~tp", [Store, Reason]),
            _ = erlang:send_after(?RETRY, self(), recover),
            {noreply, State}
    end.

-spec caught_up(atom()) -> {ok, [erl_esdb_link_spec:definition()]} | {error, term()}.
caught_up(Store) ->
    case erl_esdb_cluster:caught_up(Store) of
        ok -> definitions(Store, #{});
        {error, Reason} -> {error, Reason}
    end.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(_, _From, #state{leading = false, store = Store} = State) ->
    {reply, {error, {not_leader, Store}}, State};
handle_call({create, Spec}, _From, State) ->
    {reply, create(Spec, State), State};
handle_call({delete, Name}, _From, State) ->
    State1 = end_link(Name, State),
    {reply, delete(Name, State1), State1};
handle_call({start, Name}, _From, State) when is_map_key(Name, State#state.running) ->
    {reply, unchanged, State};
handle_call({start, Name}, _From, State) ->
    case start(Name, State) of
        {ok, State1} -> {reply, {changed, ?LINK_STARTED, Name}, State1};
        {error, Reason} -> {reply, {error, Reason}, State}
    end;
handle_call({stop, Name}, _From, State) ->
    State1 = end_link(Name, State),
    {reply, stop(Name, State1), State1};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, recover}}.
handle_info({erl_esdb_leader, Store, Leader}, #state{store = Store} = State) ->
    led(Leader =:= node(), State);
handle_info(recover, State) ->
    {noreply, State, {continue, recover}};
handle_info({'DOWN', _, process, Pid, Reason}, #state{names = Names} = State) when
    is_map_key(Pid, Names)
->
    Name = maps:get(Pid, Names),
    {noreply, ended(Name, Reason, counted(Name, Reason, forgotten(Pid, State)))};
handle_info({ended, _Name, _Reason}, #state{leading = false} = State) ->
    {noreply, State};
handle_info({ended, Name, Reason}, State) ->
    {noreply, ended(Name, Reason, State)};
handle_info(_, State) ->
    {noreply, State}.

-spec led(boolean(), #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, recover}}.
led(Leading, #state{leading = Leading} = State) ->
    {noreply, State};
led(true, State) ->
    {noreply, State#state{leading = true}, {continue, recover}};
led(false, #state{running = Running} = State) ->
    Ended = lists:foldl(fun end_link/2, State, maps:keys(Running)),
    {noreply, Ended#state{leading = false, crashes = #{}}}.

%% ---- definitions

-spec create(map(), #state{}) -> answer().
create(Spec, #state{store = Store}) ->
    maybe
        {ok, #{name := Name} = Definition, Funs} ?= erl_esdb_link_spec:check(Spec),
        {ok, Definition1} ?= may_be_created(Store, Definition),
        ok ?= placed(Store, Name, maps:get(id, Definition1) =:= maps:get(id, Definition)),
        ok ?= erl_esdb_volatile:put(Store, {link, Name, maps:get(id, Definition1)}, Funs),
        {ok, _} ?= erl_esdb_store:put_document(Store, {link, Name}, Definition1),
        {changed, ?LINK_CREATED, Name}
    end.

-spec may_be_created(atom(), erl_esdb_link_spec:definition()) ->
    {ok, erl_esdb_link_spec:definition()} | {error, term()}.
may_be_created(Store, #{name := Name, source := Source} = Definition) ->
    Find = fun(Other) ->
        case erl_esdb_store:get_document(Store, {link, Other}) of
            {ok, #{source := Found}} -> {ok, Found};
            {error, _} -> none
        end
    end,
    case {definition(Store, Name, #{}), erl_esdb_link_spec:loop(Name, Source, Find)} of
        {{ok, Before}, _} -> again(Before, Definition);
        {{error, not_found}, none} -> {ok, Definition};
        {{error, not_found}, Loop} -> {error, {link_loop, Loop}};
        {{error, Reason}, _} -> {error, Reason}
    end.

%% A link that has lost its funs takes new ones, and goes on where it was.
-spec again(erl_esdb_link_spec:definition(), erl_esdb_link_spec:definition()) ->
    {ok, erl_esdb_link_spec:definition()} | {error, already_exists}.
again(#{source := Source} = Before, #{source := Source} = Definition) ->
    case lost(Before) of
        [] -> {error, already_exists};
        _ -> {ok, maps:merge(Definition, maps:with([id, from_end, created_at], Before))}
    end;
again(_, _) ->
    {error, already_exists}.

%% What a link cannot run without: funs that are gone, functions that this node does not have.
-spec lost(erl_esdb_link_spec:definition()) -> [erl_esdb_link_spec:place()].
lost(Definition) ->
    Callbacks = lists:sort(maps:to_list(maps:with([filter, transform], Definition))),
    IsLost = fun(C) -> C =:= lost orelse not erl_esdb_callback:is_known(C) end,
    [Place || {Place, Callback} <- Callbacks, IsLost(Callback)].

%% A new link begins with the oldest event, until it is started. This is written first: no
%% definition is without it.
-spec placed(atom(), binary(), IsNew :: boolean()) -> ok | {error, term()}.
placed(_Store, _Name, false) -> ok;
placed(Store, Name, true) -> place(Store, Name, 0, #{processed => 0, last_event => undefined}).

-spec place(atom(), binary(), non_neg_integer(), map()) -> ok | {error, term()}.
place(Store, Name, Next, Progress) ->
    maybe
        {ok, Version} ?= erl_esdb_link:version(Store, erl_esdb_link_spec:stream(Name), #{}),
        Placed = Progress#{next => Next, version => Version},
        erl_esdb_store:save_checkpoints(Store, #{{link, Name} => Placed})
    end.

-spec delete(binary(), #state{}) -> answer().
delete(Name, #state{store = Store}) ->
    maybe
        {ok, #{id := Id}} ?= erl_esdb_store:get_document(Store, {link, Name}),
        ok ?= erl_esdb_store:delete_document(Store, {link, Name}),
        ok ?= erl_esdb_store:save_checkpoints(Store, #{{link, Name} => delete}),
        ok = erl_esdb_volatile:delete(Store, {link, Name, Id}),
        {changed, ?LINK_DELETED, Name}
    else
        {error, not_found} -> unchanged;
        {error, Reason} -> {error, Reason}
    end.

-spec start(binary(), #state{}) -> {ok, #state{}} | {error, term()}.
start(Name, #state{store = Store} = State) ->
    maybe
        {ok, Definition} ?= definition(Store, Name, #{}),
        [] ?= lost(Definition),
        ok ?= at_end(Store, Definition),
        ok ?= put_status(Store, Name, #{status => running, from_end => false}),
        {ok, run(Definition, State#state{crashes = maps:remove(Name, State#state.crashes)})}
    else
        [_ | _] = Lost -> {error, {functions_lost, Lost}};
        {error, Reason} -> {error, Reason}
    end.

%% What comes after this call is for the link, and nothing before it.
-spec at_end(atom(), erl_esdb_link_spec:definition()) -> ok | {error, term()}.
at_end(Store, #{name := Name, from_end := true}) ->
    maybe
        {ok, Progress} ?= progress(Store, Name, #{}),
        {ok, Next} ?= erl_esdb_store:next_position(Store),
        place(Store, Name, Next, Progress)
    end;
at_end(_, _) ->
    ok.

-spec stop(binary(), #state{}) -> answer().
stop(Name, #state{store = Store}) ->
    case erl_esdb_store:get_document(Store, {link, Name}) of
        {ok, #{status := stopped}} -> unchanged;
        {ok, #{backfill := Backfill}} -> stopped(Store, Name, not Backfill);
        {error, not_found} -> unchanged;
        {error, Reason} -> {error, Reason}
    end.

-spec stopped(atom(), binary(), boolean()) -> answer().
stopped(Store, Name, FromEnd) ->
    maybe
        ok ?= put_status(Store, Name, #{status => stopped, from_end => FromEnd}),
        {changed, ?LINK_STOPPED, Name}
    end.

-spec put_status(atom(), binary(), map()) -> ok | {error, term()}.
put_status(Store, Name, Status) ->
    maybe
        {ok, Definition} ?= erl_esdb_store:get_document(Store, {link, Name}),
        Changed = maps:merge(maps:remove(reason, Definition), Status),
        {ok, _} ?= erl_esdb_store:put_document(Store, {link, Name}, Changed),
        ok
    end.

%% ---- processes

-spec run(erl_esdb_link_spec:definition(), #state{}) -> #state{}.
run(#{name := Name} = Definition, #state{store = Store} = State) ->
    case erl_esdb_links_sup:start_link_process(Store, Definition) of
        {ok, Pid} ->
            _ = monitor(process, Pid),
            ok = erl_esdb_link:go(Pid),
            #state{running = Running, names = Names} = State,
            State#state{running = Running#{Name => Pid}, names = Names#{Pid => Name}};
        {error, Reason} ->
            failed(Name, Reason, State)
    end.

%% After a restart of this process or of the store.
-spec run_again(erl_esdb_link_spec:definition(), #state{}) -> #state{}.
run_again(#{name := Name} = Definition, State) ->
    case lost(Definition) of
        [] -> run(Definition, State);
        Lost -> failed(Name, {functions_lost, Lost}, State)
    end.

%% Ends the process of a link, when it has finished and saved what it was about.
-spec end_link(binary(), #state{}) -> #state{}.
end_link(Name, #state{store = Store, running = Running} = State) ->
    case Running of
        #{Name := Pid} ->
            ok = erl_esdb_links_sup:stop_link_process(Store, Pid),
            forgotten(Pid, State);
        #{} ->
            State
    end.

-spec forgotten(pid(), #state{}) -> #state{}.
forgotten(Pid, #state{running = Running, names = Names} = State) ->
    {Name, Names1} = maps:take(Pid, Names),
    State#state{running = maps:remove(Name, Running), names = Names1}.

%% What a link says itself is no crash.
-spec counted(binary(), term(), #state{}) -> #state{}.
counted(_Name, {shutdown, {failed, _}}, State) ->
    State;
counted(Name, _Reason, #state{crashes = Crashes} = State) ->
    Now = erlang:monotonic_time(millisecond),
    Lately = [Now | [Time || Time <- maps:get(Name, Crashes, []), Time > Now - ?PERIOD]],
    State#state{crashes = Crashes#{Name => Lately}}.

%% Where the store does not answer it is asked again: by then the link may run again, or shall not.
-spec ended(binary(), term(), #state{}) -> #state{}.
ended(Name, _Reason, #state{running = Running} = State) when is_map_key(Name, Running) ->
    State;
ended(Name, Reason, #state{store = Store} = State) ->
    case definition(Store, Name, #{}) of
        {ok, #{status := running} = Definition} -> judged(Definition, Reason, State);
        {ok, #{}} -> State;
        {error, not_found} -> State;
        {error, Why} -> unread(erl_esdb_delivery:is_failure(Why, Store), Name, Reason, State)
    end.

-spec judged(erl_esdb_link_spec:definition(), term(), #state{}) -> #state{}.
judged(#{name := Name}, {shutdown, {failed, Reason}}, State) ->
    failed(Name, Reason, State);
judged(#{name := Name} = Definition, Reason, #state{crashes = Crashes} = State) ->
    case length(maps:get(Name, Crashes, [])) > ?CRASHES of
        false -> run_again(Definition, State);
        true -> failed(Name, {crashed, Reason}, State)
    end.

-spec unread(IsFailure :: boolean(), binary(), term(), #state{}) -> #state{}.
unread(true, Name, Reason, State) -> later({ended, Name, Reason}, State);
unread(false, Name, Reason, State) -> failed(Name, {crashed, Reason}, State).

-spec later({ended, binary(), term()}, #state{}) -> #state{}.
later(Message, State) ->
    _ = erlang:send_after(?RETRY, self(), Message),
    State.

-spec failed(binary(), term(), #state{}) -> #state{}.
failed(Name, Reason, #state{store = Store} = State) ->
    maybe
        {error, Why} ?= put_status(Store, Name, #{status => error, reason => Reason}),
        true ?= erl_esdb_delivery:is_failure(Why, Store),
        later({ended, Name, {shutdown, {failed, Reason}}}, State)
    else
        _ ->
            ?LOG_ERROR("store ~tp: link ~ts does not go on: ~tP", [Store, Name, Reason, 20]),
            State
    end.
