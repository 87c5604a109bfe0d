-module(erl_esdb_index).
-moduledoc """
Finds events by id, type, tag, cause and correlation, without a search through the log.

One process a store and node follows the log and keeps where each key occurs (`m:erl_esdb_runs`,
`m:erl_esdb_index_keys`). What it keeps is derived: it is never asked whether an event exists, only
where to look, and each event is looked at before it is given out. So hashes that collide and events
that were removed change nothing but the time it takes. The store's option `indexes` says which
kinds are kept; without any there is no process.

Look-ups run in the process of the caller. It asks the store how far the log reaches and, where the
index is not that far yet, waits until it is: every event appended before the call is found. The
index follows what its node has, which needs no majority: so a look-up with `local` needs none
either, and finds what a read with `local` finds.

```erlang
1> erl_esdb_index:events(shop, tag, ~"customer-7", #{direction => backward, limit => 2}).
{ok,[#event{...},#event{...}]}
2> erl_esdb_index:events_of(shop, [{type, ~"Placed"}, {tag, ~"customer-7"}], all, #{}).
{ok,[#event{...}]}
```

Where the index has crashed and its supervisor is about to start another, a look-up waits for it.

| option of a look-up | default | |
|---|---|---|
| `from` | 0, backward `last` | the position to begin at |
| `limit` | `infinity` | events, at most |
| `direction` | `forward` | of positions, or `backward` |
| `timeout` | that of the store | milliseconds to wait for the index and to look, or `infinity` |
| `consistency` | `read_your_writes` | how the log's end is asked for: `erl_esdb_streams:read/6` |

## Errors

- `{not_indexed, Kind}`: the store does not keep this kind
- `{store_not_started | timeout | no_quorum | overloaded, Store}`; after a timeout the index goes on
  from where it is
- `{corrupt_events, Stream, Version}`: an event that was found is damaged. What is damaged when the
  index comes by is left out, with a line in the log

Arguments of a wrong shape are `error(badarg)`.
""".

-behaviour(gen_server).

%% Look-ups
-export([positions/4, events/4, events_of/4, search/4, view/3, look/4, in_time/1]).
%% The index itself
-export([wake/1, compact/2, info/1, create_registry/0, start_link/2]).
%% gen_server
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export_type([view/0, where/0, options/0, reason/0, info/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").

-import(erl_esdb_args, [check/1, is_count/1, is_natural/1, less/2]).

%% Pages that are indexed between two messages, at most.
-define(PAGES, 8).
%% Milliseconds from the word of the feed until its events are indexed. Who asks earlier does not
%% wait for that, and all that is written in between is one piece of work.
-define(PAUSE, 50).
%% Milliseconds after which an index that nobody asks and nobody wakes looks for itself.
-define(TICK, 1000).
%% Positions that are read at a time during a look-up.
-define(PORTION, 256).
%% Milliseconds for the question how far the log reaches elsewhere.
-define(ASK, 2000).
%% Milliseconds between two looks for an index that crashed.
-define(AWAY, 5).
%% Words of binaries before there is a collection for them: 8 MiB.
-define(BINARIES, 1_048_576).
%% Words of a heap on which a page is indexed with little to collect in between: its events are
%% garbage as soon as their keys are taken.
-define(HEAP, 300_000).
%% From so many events on it is worth that.
-define(MUCH, 500).
%% Entries of a run that are looked at to see whether it is worth to look at all.
-define(SAMPLE, 64).

-type kind() :: erl_esdb_index_keys:kind().
-type key() :: erl_esdb_index_keys:key().
-doc "The events with a key; with any of the keys, or all; and so on.".
-type where() :: key() | {any | all, [where()]}.
-type options() :: #{
    from => non_neg_integer() | last,
    limit => erl_esdb_store:count(),
    direction => direction(),
    timeout => timeout(),
    consistency => linearizable | read_your_writes | local,
    _ => _
}.
-type reason() ::
    {not_indexed, kind()}
    | {corrupt_events, Stream :: binary(), Version :: non_neg_integer()}
    | erl_esdb_store:failure().
-doc "`next`: the position that is indexed next; `bytes`: what the entries take in memory.".
-type info() :: #{
    next := non_neg_integer(),
    entries := non_neg_integer(),
    bytes := non_neg_integer(),
    runs := non_neg_integer()
}.

-record(view, {
    store :: atom(),
    log :: erl_esdb_index_reader:log(),
    runs :: erl_esdb_runs:runs(),
    until :: erl_esdb_deadline:deadline()
}).
-opaque view() :: #view{}.

-record(state, {
    store :: atom(),
    kinds :: [kind(), ...],
    %% {runs, Runs}: what the callers see
    table :: ets:table(),
    runs = erl_esdb_runs:new() :: erl_esdb_runs:runs(),
    %% who waits until a position is reached
    waiting = [] :: [{erl_esdb_runs:position(), gen_server:from()}],
    %% whether what was kept in files is in
    loaded = false :: boolean(),
    %% from where on events may be left out, because they could not be read
    left_out = none :: none | erl_esdb_runs:position(),
    %% what tells that the log has grown, once it is there
    feed = none :: none | erl_esdb_feed:feed(),
    %% whether it has, and the pause after its word is not over
    pausing = false :: boolean(),
    %% whether a message is on its way that goes on with indexing
    stepping = false :: boolean(),
    %% the process that merges runs, and who waits for it
    merger = none :: none | {pid(), [gen_server:from()]},
    %% who waits for a merge of all runs that has not begun
    compacting = [] :: [gen_server:from()]
}).

%% ---- look-ups, in the process of the caller

-doc "The positions of the events with a key; see `events/4`.".
-spec positions(Store :: atom(), kind(), Key :: binary(), options()) ->
    {ok, [non_neg_integer()]} | {error, reason()}.
positions(Store, Kind, Key, Options) ->
    maybe
        {ok, Events} ?= events(Store, Kind, Key, Options),
        {ok, [Position || #event{position = Position} <- Events]}
    end.

-doc "The events with a key, in the order of positions.".
-spec events(Store :: atom(), kind(), Key :: binary(), options()) ->
    {ok, [event()]} | {error, reason()}.
events(Store, Kind, Key, Options) -> events_of(Store, [{Kind, Key}], any, Options).

-doc """
The events with any of the keys, or with all of them, in the order of positions, each once. No keys
find nothing. What comes after the limit is not searched: for the next page begin at the last
position plus 1 (backward: minus 1).
""".
-spec events_of(Store :: atom(), [key()], any | all, options()) ->
    {ok, [event()]} | {error, reason()}.
events_of(Store, Keys, Mode, Options) ->
    ok = check_look(Keys, Mode, Options),
    maybe
        {ok, View} ?= view(Store, [Kind || {Kind, _} <- Keys], Options),
        look(View, Keys, Mode, Options)
    end.

-doc """
The events that a fun wants, among those with such keys. It is asked of each, and of some that have
other keys.
""".
-spec search(Store :: atom(), where(), Wanted :: fun((event()) -> boolean()), options()) ->
    {ok, [event()]} | {error, reason()}.
search(Store, Where, Wanted, Options) ->
    ok = check_options(Options),
    maybe
        {ok, View} ?= view(Store, kinds(Where), Options),
        look_for(View, Where, Wanted, Options)
    end.

-spec kinds(where()) -> [kind()].
kinds({Mode, Several}) when is_list(Several), Mode =:= any orelse Mode =:= all ->
    lists:usort(lists:flatmap(fun kinds/1, Several));
kinds({Kind, _Key}) ->
    [Kind].

-doc """
What these kinds of keys find from now on, with every event that was appended before: for look-ups
that belong together, and share the time. Of the options it takes `timeout` and `consistency`.
""".
-spec view(Store :: atom(), [kind()], options()) -> {ok, view()} | {error, reason()}.
view(Store, Kinds, Options) when is_atom(Store) ->
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, Settings} ?= erl_esdb_engine:find(Store),
        #{indexes := Indexed, timeout := Timeout} = Settings,
        [] ?= [Kind || Kind <- Kinds, not lists:member(Kind, Indexed)],
        Until = erl_esdb_deadline:in(maps:get(timeout, Options, Timeout)),
        {ok, Next} ?= Engine:next_position(Handle, Options),
        {ok, Runs} ?= reached(Store, Kinds, Next, Until),
        Log = #{engine => Engine, handle => Handle, options => Options},
        {ok, #view{store = Store, log = Log, runs = Runs, until = Until}}
    else
        [Kind | _] -> {error, {not_indexed, Kind}};
        {error, Failure} -> erl_esdb_store:named(Store, {error, Failure})
    end;
view(_, _, _) ->
    error(badarg).

-doc "Whether there is time left for more look-ups.".
-spec in_time(view()) -> ok | {error, reason()}.
in_time(#view{store = Store, until = Until}) ->
    case erl_esdb_deadline:is_over(Until) of
        true -> {error, {timeout, Store}};
        false -> ok
    end.

-doc "`events_of/4` of a view; the options `timeout` and `consistency` have no meaning here.".
-spec look(view(), [key()], any | all, options()) -> {ok, [event()]} | {error, reason()}.
look(View, [Key], _Mode, Options) ->
    look_for(View, Key, wanted([Key], any), Options);
look(View, Keys, Mode, Options) ->
    Unique = lists:usort(Keys),
    look_for(View, {Mode, Unique}, wanted(Unique, Mode), Options).

-spec look_for(view(), where(), fun((event()) -> boolean()), options()) ->
    {ok, [event()]} | {error, reason()}.
look_for(#view{store = Store, log = Log, until = Until} = View, Where, Wanted, Options) ->
    {From, Direction} = window(Options),
    Positions = positions_of(Where, From, Direction, View),
    Read = fun(Found) -> read(Log, Found, Direction, Wanted) end,
    Limit = maps:get(limit, Options, infinity),
    case collect(Positions, Limit, min(Limit, ?PORTION), {Read, Until}, []) of
        {ok, Events} -> {ok, Events};
        {error, Failure} -> erl_esdb_store:named(Store, {error, Failure})
    end.

-spec positions_of(where(), non_neg_integer() | last, direction(), view()) ->
    erl_esdb_index_positions:positions().
positions_of({Mode, Several}, From, Direction, View) when is_list(Several) ->
    Each = [positions_of(Where, From, Direction, View) || Where <- Several],
    erl_esdb_index_positions:new(Mode, Direction, Each);
positions_of(Key, From, Direction, #view{runs = Runs}) ->
    Hash = erl_esdb_index_keys:hash(Key),
    erl_esdb_index_positions:key(erl_esdb_runs:cursor(Hash, From, Direction, Runs)).

-spec window(options()) -> {non_neg_integer() | last, direction()}.
window(#{direction := backward} = Options) -> {maps:get(from, Options, last), backward};
window(Options) -> {maps:get(from, Options, 0), forward}.

%% A position is one of the keys' only when its event says so.
-spec wanted([key()], any | all) -> fun((event()) -> boolean()).
wanted([{Kind, _} = Key], _Mode) ->
    fun(Event) -> lists:member(Key, erl_esdb_index_keys:keys(Event, [Kind])) end;
wanted(Keys, Mode) ->
    Set = maps:from_keys(Keys, []),
    Kinds = lists:usort([Kind || {Kind, _} <- Keys]),
    Has = fun(Event) ->
        [Key || Key <- erl_esdb_index_keys:keys(Event, Kinds), is_map_key(Key, Set)]
    end,
    case Mode of
        any -> fun(Event) -> Has(Event) =/= [] end;
        all -> fun(Event) -> length(Has(Event)) =:= map_size(Set) end
    end.

-spec read(
    erl_esdb_index_reader:log(), [non_neg_integer()], direction(), fun((event()) -> boolean())
) -> {ok, [event()]} | {error, term()}.
read(Log, Positions, forward, Wanted) ->
    erl_esdb_index_reader:events(Log, Positions, Wanted);
read(Log, Positions, backward, Wanted) ->
    maybe
        {ok, Events} ?= erl_esdb_index_reader:events(Log, lists:reverse(Positions), Wanted),
        {ok, lists:reverse(Events)}
    end.

%% As many positions at a time as events are wanted; twice as many each time that this was not
%% enough: then what is found there was removed, or is not wanted, and there may be much of it.
-spec collect(
    Positions, erl_esdb_store:count(), non_neg_integer(), {Read, Until}, [[event()]]
) ->
    {ok, [event()]} | {error, term()}
when
    Positions :: erl_esdb_index_positions:positions() | done,
    Read :: fun(([non_neg_integer()]) -> {ok, [event()]} | {error, term()}),
    Until :: erl_esdb_deadline:deadline().
collect(Positions, Left, _Portion, _Timed, Found) when Positions =:= done; Left =:= 0 ->
    {ok, lists:append(lists:reverse(Found))};
collect(Positions, Left, Portion, {Read, Until} = Timed, Found) ->
    {Taken, Rest} = erl_esdb_index_positions:take(Portion, Positions),
    maybe
        {ok, Events} ?= Read(Taken),
        Kept = lists:sublist(Events, min(Left, Portion)),
        Left1 = less(Left, length(Kept)),
        ok ?= erl_esdb_deadline:check(Until, Rest =:= done orelse Left1 =:= 0),
        collect(Rest, Left1, min(2 * Portion, ?PORTION), Timed, [Kept | Found])
    end.

%% What the index has when it has reached a position. Who asks for no kinds needs none.
-spec reached(atom(), [kind()], non_neg_integer(), erl_esdb_deadline:deadline()) ->
    {ok, erl_esdb_runs:runs()} | {error, erl_esdb_engine:failure()}.
reached(_Store, [], _Next, _Until) ->
    {ok, erl_esdb_runs:new()};
reached(Store, Kinds, Next, Until) ->
    maybe
        {error, not_started} ?= reach(Store, Next, Until),
        %% It has crashed, or its store has ended.
        {ok, _, _, _} ?= erl_esdb_engine:find(Store),
        ok ?= erl_esdb_deadline:check(Until, false),
        receive after ?AWAY -> reached(Store, Kinds, Next, Until) end
    end.

-spec reach(atom(), non_neg_integer(), erl_esdb_deadline:deadline()) ->
    {ok, erl_esdb_runs:runs()} | {error, erl_esdb_engine:failure()}.
reach(Store, Next, Until) ->
    maybe
        {ok, Index, Table} ?= find(Store),
        {ok, Runs} ?= published(Table),
        false ?= erl_esdb_runs:next_position(Runs) >= Next andalso {ok, Runs},
        ok ?= called(Index, {reach, Next}, erl_esdb_deadline:left(Until)),
        published(Table)
    end.

-spec find(atom()) -> {ok, pid(), ets:table()} | {error, not_started}.
find(Store) ->
    try ets:lookup(?MODULE, Store) of
        [{_, Index, Table}] -> {ok, Index, Table};
        [] -> {error, not_started}
    catch
        %% The application does not run.
        error:badarg -> {error, not_started}
    end.

%% The table goes with its process.
-spec published(ets:table()) -> {ok, erl_esdb_runs:runs()} | {error, not_started}.
published(Table) ->
    try
        {ok, ets:lookup_element(Table, runs, 2)}
    catch
        error:badarg -> {error, not_started}
    end.

-spec called(pid(), term(), timeout()) -> Answer | {error, erl_esdb_engine:failure()} when
    Answer :: term().
called(Index, Request, Timeout) ->
    try
        gen_server:call(Index, Request, Timeout)
    catch
        exit:{timeout, {gen_server, call, _}} -> {error, timeout};
        exit:{_Ended, {gen_server, call, _}} -> {error, not_started}
    end.

%% ---- arguments

-spec check_look(term(), term(), term()) -> ok.
check_look(Keys, Mode, Options) ->
    ok = check(are_keys(Keys) andalso (Mode =:= any orelse Mode =:= all)),
    check_options(Options).

-spec are_keys(term()) -> boolean().
are_keys([{Kind, Key} | Keys]) ->
    erl_esdb_index_keys:is_kind(Kind) andalso is_binary(Key) andalso are_keys(Keys);
are_keys(Rest) ->
    Rest =:= [].

-spec check_options(term()) -> ok.
check_options(Options) when is_map(Options) ->
    {From, Direction} = window(Options),
    ok = check(is_natural(From) orelse (From =:= last andalso Direction =:= backward)),
    ok = check(lists:member(maps:get(direction, Options, forward), [forward, backward])),
    Limit = maps:get(limit, Options, infinity),
    ok = check(is_count(Limit)),
    Consistency = maps:get(consistency, Options, read_your_writes),
    ok = check(lists:member(Consistency, [linearizable, read_your_writes, local])),
    check(erl_esdb_store:is_timeout(maps:get(timeout, Options, infinity)));
check_options(_) ->
    error(badarg).

%% ---- the index itself

-doc "Tells the index that the log has grown. Nobody needs to: it looks itself when it is asked.".
-spec wake(Store :: atom()) -> ok.
wake(Store) ->
    case find(Store) of
        {ok, Index, _} -> gen_server:cast(Index, wake);
        {error, not_started} -> ok
    end.

-doc """
Merges all runs and drops what was removed from the log. As a rule that comes by itself, as the
index grows: whoever has removed much at once may want the memory back now. Without a majority
nothing is dropped.
""".
-spec compact(Store :: atom(), timeout()) -> ok | {error, erl_esdb_store:failure()}.
compact(Store, Timeout) ->
    maybe
        {ok, Index, _} ?= find(Store),
        ok ?= called(Index, compact, Timeout)
    else
        {error, Failure} -> erl_esdb_store:named(Store, {error, Failure})
    end.

-doc "How far the index is and what it takes.".
-spec info(Store :: atom()) -> {ok, info()} | {error, erl_esdb_store:failure()}.
info(Store) ->
    maybe
        {ok, _, Table} ?= find(Store),
        {ok, Runs} ?= published(Table),
        {ok, #{
            next => erl_esdb_runs:next_position(Runs),
            entries => erl_esdb_runs:size(Runs),
            bytes => erl_esdb_runs:bytes(Runs),
            runs => erl_esdb_runs:count(Runs)
        }}
    else
        {error, Failure} -> erl_esdb_store:named(Store, {error, Failure})
    end.

-doc false.
%% The table belongs to the top supervisor, so that it lives as long as the application.
-spec create_registry() -> ok.
create_registry() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {read_concurrency, true}]),
    ok.

-doc false.
-spec start_link(atom(), [kind(), ...]) -> gen_server:start_ret().
start_link(Store, Kinds) ->
    Memory = [
        %% What was merged is garbage that weighs more than its terms show.
        {fullsweep_after, 4},
        %% Some pages are read and indexed before they are collected.
        {min_bin_vheap_size, ?BINARIES}
    ],
    gen_server:start_link(?MODULE, {Store, Kinds}, [{spawn_opt, Memory}]).

-doc false.
-spec init({atom(), [kind(), ...]}) -> {ok, #state{}, timeout()}.
init({Store, Kinds}) ->
    %% terminate/2 shall run when the supervisor stops us.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    Table = ets:new(?MODULE, [protected, {read_concurrency, true}]),
    State = publish(#state{store = Store, kinds = Kinds, table = Table}),
    true = ets:insert(?MODULE, {Store, self(), Table}),
    {ok, State, 0}.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, ok | {error, unknown_request}, #state{}, timeout()} | {noreply, #state{}, timeout()}.
handle_call({reach, Position}, From, #state{runs = Runs, waiting = Waiting} = State) ->
    case erl_esdb_runs:next_position(Runs) of
        Reached when Reached >= Position -> {reply, ok, State, ?TICK};
        _ -> {noreply, step_later(State#state{waiting = [{Position, From} | Waiting]}), ?TICK}
    end;
handle_call(compact, From, #state{compacting = Compacting} = State) ->
    {noreply, merge_later(State#state{compacting = [From | Compacting]}), ?TICK};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State, ?TICK}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}, timeout()}.
handle_cast(wake, State) -> {noreply, step_later(State), ?TICK};
handle_cast(_, State) -> {noreply, State, ?TICK}.

-doc false.
-spec handle_info(term(), #state{}) ->
    {noreply, #state{}, timeout()} | {stop, term(), #state{}}.
handle_info(timeout, State) ->
    {noreply, step_later(State), ?TICK};
handle_info({erl_esdb_feed, _}, State) ->
    {noreply, pause(State), ?TICK};
handle_info(follow, State) ->
    {noreply, step_later(State#state{pausing = false}), ?TICK};
handle_info({'DOWN', _, process, _, _}, State) ->
    {noreply, State#state{feed = none}, ?TICK};
handle_info(step, State) ->
    {noreply, merge_later(step(State#state{stepping = false})), ?TICK};
handle_info({merged, Merger, Run}, #state{merger = {Merger, Waiting}} = State) ->
    {noreply, merge_later(merged(Run, Waiting, State)), ?TICK};
handle_info({'EXIT', _, Reason}, State) when Reason =/= normal ->
    {stop, Reason, State};
handle_info(_, State) ->
    {noreply, State, ?TICK}.

-doc false.
-spec terminate(term(), #state{}) -> true.
terminate(_Reason, #state{store = Store, table = Table}) ->
    ets:delete_object(?MODULE, {Store, self(), Table}).

-spec publish(#state{}) -> #state{}.
publish(#state{table = Table, runs = Runs} = State) ->
    true = ets:insert(Table, {runs, Runs}),
    State.

%% ---- following the log, some pages at a time, between the messages that come

-spec step_later(#state{}) -> #state{}.
step_later(#state{stepping = false} = State) ->
    self() ! step,
    State#state{stepping = true};
step_later(State) ->
    State.

-spec step(#state{}) -> #state{}.
step(#state{loaded = false, store = Store} = State) ->
    maybe
        {ok, Log, Next} ?= log(Store, local),
        stepped(Next, State#state{loaded = true, runs = load(Log, Next, State)})
    else
        {error, Failure} -> answered({error, Failure}, State)
    end;
step(#state{store = Store, runs = Runs} = State) ->
    From = erl_esdb_runs:next_position(Runs),
    maybe
        {ok, Log, Next} ?= log(Store, local),
        Gather = fun() -> gather(Log, From, Next, State) end,
        {ok, Reached, {Entries, LeftOut}} ?= with_room(Next - From, Gather),
        stepped(Next, State#state{
            runs = erl_esdb_runs:add(Entries, Reached, Runs), left_out = LeftOut
        })
    else
        {error, Failure} -> answered({error, Failure}, State)
    end.

%% Files that reach further than the log are of another one.
-spec load(erl_esdb_index_reader:log(), non_neg_integer(), #state{}) -> erl_esdb_runs:runs().
load(Log, Next, #state{store = Store, kinds = Kinds, runs = None}) ->
    maybe
        {ok, Folder} ?= folder(Log),
        Runs = erl_esdb_index_files:load(Folder, Kinds),
        Reached = erl_esdb_runs:next_position(Runs),
        true ?= Reached =< Next orelse may_have(Reached, Log),
        Runs
    else
        none ->
            None;
        false ->
            ?LOG_WARNING("store ~tp: files of the index are of another log", [Store]),
            None
    end.

%% A node that has not done again yet what it had done asks how far the others are. Where nobody
%% knows it what was kept is believed.
-spec may_have(non_neg_integer(), erl_esdb_index_reader:log()) -> boolean().
may_have(Reached, #{engine := Engine, handle := Handle}) ->
    case Engine:next_position(Handle, #{timeout => ?ASK}) of
        {ok, Next} -> Reached =< Next;
        {error, _} -> true
    end.

-spec folder(erl_esdb_index_reader:log()) -> {ok, file:filename_all()} | none.
folder(#{engine := Engine, handle := Handle}) ->
    case erlang:function_exported(Engine, folder, 1) of
        true -> Engine:folder(Handle);
        false -> none
    end.

%% The room is given back: an index that has nothing to do shall take no more than its entries.
-spec with_room(integer(), fun(() -> Result)) -> Result.
with_room(Events, Gather) when Events >= ?MUCH ->
    Before = process_flag(min_heap_size, ?HEAP),
    Result = Gather(),
    _ = process_flag(min_heap_size, Before),
    true = garbage_collect(),
    Result;
with_room(_Events, Gather) ->
    Gather().

-spec log(atom(), local | linearizable) ->
    {ok, erl_esdb_index_reader:log(), Next :: non_neg_integer()}
    | {error, erl_esdb_engine:failure()}.
log(Store, Consistency) ->
    maybe
        {ok, Engine, Handle, _} ?= erl_esdb_engine:find(Store),
        %% What the metadata of a stream hides may be seen again.
        Options = #{hidden => true, background => true, consistency => Consistency},
        {ok, Next} ?= Engine:next_position(Handle, Options),
        {ok, #{engine => Engine, handle => Handle, options => Options}, Next}
    end.

%% The entries of the next pages, in no order, those of a page in one piece.
-spec gather(erl_esdb_index_reader:log(), non_neg_integer(), non_neg_integer(), #state{}) ->
    {ok, non_neg_integer(), gathered()} | {error, erl_esdb_engine:failure()}.
gather(Log, From, Next, #state{store = Store, kinds = Kinds, left_out = LeftOut}) ->
    Entries = fun(Event) -> erl_esdb_index_keys:entries(Event, Kinds) end,
    Page = fun(At) -> page(Log, At, Next, Entries) end,
    Warn = fun(Where) -> ?LOG_WARNING("store ~tp: not indexed: ~tp", [Store, Where]) end,
    gather(?PAGES, From, Next, Page, Warn, {[], LeftOut}).

%% An engine that has just begun anew has less for a moment than it had when it was asked how far
%% the log reaches. So that there is nothing more is believed when it has as much again.
-spec page(erl_esdb_index_reader:log(), Position, Position, fun((event()) -> [Entry])) ->
    {ok, [Entry], Position | last, [term()]} | {error, erl_esdb_engine:failure()}
when
    Position :: non_neg_integer(), Entry :: erl_esdb_runs:entry().
page(#{engine := Engine, handle := Handle, options := Options} = Log, At, Next, Entries) ->
    maybe
        {ok, [], last, []} ?= erl_esdb_index_reader:page(Log, At, Entries),
        {ok, Now} ?= Engine:next_position(Handle, Options),
        true ?= Now >= Next,
        erl_esdb_index_reader:page(Log, At, Entries)
    else
        false -> {error, not_started};
        Answer -> Answer
    end.

-type gathered() :: {Entries :: [binary()], LeftOut :: none | erl_esdb_runs:position()}.

-spec gather(non_neg_integer(), Position, Position, Page, fun((term()) -> ok), gathered()) ->
    {ok, Position, gathered()} | {error, erl_esdb_engine:failure()}
when
    Position :: non_neg_integer(),
    Page :: fun(
        (Position) ->
            {ok, [erl_esdb_runs:entry()], Position | last, [term()]}
            | {error, erl_esdb_engine:failure()}
    ).
gather(Pages, At, Next, Page, Warn, {Entries, LeftOut} = Gathered) when Pages > 0, At < Next ->
    case Page(At) of
        {ok, [], last, []} ->
            {ok, Next, Gathered};
        {ok, New, At1, Corrupt} ->
            lists:foreach(Warn, Corrupt),
            Gathered1 = {[iolist_to_binary(New) | Entries], left_out(Corrupt, At, LeftOut)},
            gather(Pages - 1, At1, Next, Page, Warn, Gathered1);
        {error, Failure} ->
            {error, Failure}
    end;
gather(_Pages, At, _Next, _Page, _Warn, Gathered) ->
    {ok, At, Gathered}.

%% What cannot be read now may be readable after the next start.
-spec left_out([term()], Position, none | Position) -> none | Position when
    Position :: erl_esdb_runs:position().
left_out([_ | _], At, none) when is_integer(At) -> At;
left_out(_Corrupt, _At, LeftOut) -> LeftOut.

-spec stepped(non_neg_integer(), #state{}) -> #state{}.
stepped(Next, #state{runs = Runs} = State) ->
    State1 = answered(ok, publish(State)),
    case erl_esdb_runs:next_position(Runs) < Next of
        true -> step_later(State1);
        false -> listen(State1)
    end.

%% Without a feed the next look is that of the tick.
-spec listen(#state{}) -> #state{}.
listen(#state{feed = none, store = Store} = State) ->
    case erl_esdb_feed:subscribe(Store) of
        {ok, Feed} ->
            _ = monitor(process, erl_esdb_feed:pid(Feed)),
            listen(State#state{feed = Feed});
        {error, _} ->
            State
    end;
listen(#state{feed = Feed, runs = Runs} = State) ->
    case erl_esdb_feed:wait(Feed, erl_esdb_runs:next_position(Runs)) of
        ready -> pause(State);
        wait -> State
    end.

-spec pause(#state{}) -> #state{}.
pause(#state{pausing = false} = State) ->
    _ = erlang:send_after(?PAUSE, self(), follow),
    State#state{pausing = true};
pause(State) ->
    State.

%% Those who wait for more go on waiting; an error is for all of them.
-spec answered(ok | {error, erl_esdb_engine:failure()}, #state{}) -> #state{}.
answered(Answer, #state{runs = Runs, waiting = Waiting} = State) ->
    Reached = erl_esdb_runs:next_position(Runs),
    IsDue = fun({Position, _}) -> Answer =/= ok orelse Position =< Reached end,
    {Due, Waiting1} = lists:partition(IsDue, Waiting),
    lists:foreach(fun({_, From}) -> gen_server:reply(From, Answer) end, Due),
    State#state{waiting = Waiting1}.

%% ---- merging, in a process of its own, one merge at a time

-spec merge_later(#state{}) -> #state{}.
merge_later(#state{merger = none, compacting = [], runs = Runs} = State) ->
    merging(erl_esdb_runs:due(Runs), [], State);
merge_later(#state{merger = none, compacting = Waiting, runs = Runs} = State) ->
    merging(erl_esdb_runs:all(Runs), Waiting, State#state{compacting = []});
merge_later(State) ->
    State.

-spec merging(Due, [gen_server:from()], #state{}) -> #state{} when
    Due :: {merge, [erl_esdb_runs:run(), ...], erl_esdb_runs:runs()} | none.
merging({merge, Group, Runs}, Waiting, #state{store = Store, left_out = LeftOut} = State) ->
    #state{kinds = Kinds} = State,
    Index = self(),
    Merger = spawn_link(fun() ->
        proc_lib:set_label({?MODULE, merger, Store}),
        Run = erl_esdb_runs:merge(swept(Store, Group, Waiting =/= [])),
        ok = save(Store, Kinds, Run, LeftOut),
        Index ! {merged, self(), Run}
    end),
    State#state{merger = {Merger, Waiting}, runs = Runs};
merging(none, Waiting, State) ->
    lists:foreach(fun(From) -> gen_server:reply(From, ok) end, Waiting),
    State.

%% Not where something is missing: the next start reads the log from there.
-spec save(atom(), [kind()], erl_esdb_runs:run(), none | erl_esdb_runs:position()) -> ok.
save(Store, Kinds, Run, LeftOut) ->
    maybe
        {_, Before} = erl_esdb_runs:stretch([Run]),
        true ?= LeftOut =:= none orelse Before =< LeftOut,
        {ok, Log, _} ?= log(Store, local),
        {ok, Folder} ?= folder(Log),
        erl_esdb_index_files:save(Folder, Kinds, Run)
    else
        _ -> ok
    end.

-spec merged(erl_esdb_runs:run(), [gen_server:from()], #state{}) -> #state{}.
merged(Run, Waiting, #state{runs = Runs} = State) ->
    State1 = publish(State#state{merger = none, runs = erl_esdb_runs:replace(Run, Runs)}),
    %% The old runs may be most of the memory of the index.
    true = garbage_collect(),
    lists:foreach(fun(From) -> gen_server:reply(From, ok) end, Waiting),
    State1.

%% The runs without what is no longer in the log, where a sample says that this is worth while or it
%% has to be. What this node does not have yet must not be taken for removed.
-spec swept(atom(), [Run, ...], boolean()) -> [Run, ...] when Run :: erl_esdb_runs:run().
swept(Store, Runs, Must) ->
    maybe
        {ok, Log, _} ?= log(Store, linearizable),
        true ?= Must orelse lists:any(fun(Run) -> is_worth(Log, Run) end, Runs),
        {ok, Live} ?= erl_esdb_index_reader:live(Log, erl_esdb_runs:stretch(Runs)),
        [erl_esdb_runs:filter(Live, Run) || Run <- Runs]
    else
        _ -> Runs
    end.

%% More than one of eight entries is dead.
-spec is_worth(erl_esdb_index_reader:log(), erl_esdb_runs:run()) -> boolean().
is_worth(Log, Run) ->
    Sample = erl_esdb_runs:sample(?SAMPLE, Run),
    Dead = [P || P <- Sample, not erl_esdb_index_reader:is_live(Log, P)],
    8 * length(Dead) > length(Sample).
