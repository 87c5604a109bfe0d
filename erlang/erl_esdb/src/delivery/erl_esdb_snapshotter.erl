-module(erl_esdb_snapshotter).
-moduledoc """
Takes the snapshots that the policies of a store ask for, when events were committed.

One process for a store. For each policy it goes through the log on its own, a page at a time: it
sees which streams were written to, and for which of them a snapshot is due. The snapshots of a
policy are made one after the other, each in a process of its own
(`m:erl_esdb_snapshot_policy`). So a fold that is slow holds up the snapshots of its own policy
and nothing else, and one that crashes ends its own process only:

- the log of the node has a line with the reason, and telemetry `[erl_esdb, snapshot, failed]`
- the stream is tried again when as many events came as the policy has between two snapshots

A policy begins with the oldest event, so that it holds for the streams that are there already; one
that was changed begins again. How far each is gets saved now and then: what is looked at once more
after a crash is found to have its snapshot.

Of a store that lives on several nodes the one that leads does it.
""".

-behaviour(gen_server).

-export([start_link/1, policies_changed/1, look/1]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).
-export([made/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Positions whose streams are looked at at a time.
-define(PAGE, 1000).
%% Milliseconds: between a commit and the look at what it brought, so that many commits are one
%% look; and until it is tried again, after the store did not answer.
-define(PAUSE, 50).
-define(RETRY, 200).
%% Streams of a policy of which something is remembered; when there are more all are forgotten.
-define(FAILURES, 1000).
-define(SEEN, 10_000).

-type due() :: {Stream :: binary(), Version :: non_neg_integer()}.

-record(place, {
    policy :: erl_esdb_snapshot_policy:policy(),
    %% all before this position was looked at, and that is saved up to there
    next :: non_neg_integer(),
    saved :: non_neg_integer(),
    %% what is due, and the process that makes the first of it
    due = [] :: [due()],
    worker :: pid() | undefined,
    %% at which version of which stream it failed
    failures = #{} :: #{binary() => non_neg_integer()},
    %% what it has seen of those that are long enough for a snapshot
    seen = #{} :: #{binary() => erl_esdb_snapshot_policy:seen()}
}).

-record(state, {
    store :: atom(),
    feed :: erl_esdb_feed:feed() | undefined,
    %% by their patterns: all that there are, and those that act by themselves
    patterns = [] :: [binary()],
    places = #{} :: #{binary() => #place{}},
    timer :: reference() | undefined,
    leading :: boolean()
}).

-doc "Starts the process of a store.".
-spec start_link(Store :: atom()) -> gen_server:start_ret().
start_link(Store) -> gen_server:start_link(?MODULE, Store, []).

-doc "Says that a policy was set or removed: it is looked at now, not only with the next commit.".
-spec policies_changed(Store :: atom()) -> ok.
policies_changed(Store) -> erl_esdb_cluster:tell_leader(Store, {?MODULE, look, [Store]}).

-doc false.
%% On the node that leads.
-spec look(Store :: atom()) -> ok.
look(Store) ->
    case erl_esdb_volatile:get(Store, ?MODULE) of
        {ok, Pid} -> gen_server:cast(Pid, look);
        {error, not_found} -> ok
    end.

-doc false.
-spec init(atom()) -> {ok, #state{}, {continue, subscribe}}.
init(Store) ->
    %% Its workers are not to outlive it.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store}),
    _ = erl_esdb_volatile:put(Store, ?MODULE, self()),
    Leading = erl_esdb_cluster:watch_leader(Store) =:= node(),
    {ok, #state{store = Store, leading = Leading}, {continue, subscribe}}.

-doc false.
-spec handle_continue(subscribe, #state{}) -> {noreply, #state{}}.
handle_continue(subscribe, #state{store = Store} = State) ->
    case erl_esdb_feed:subscribe(Store) of
        {ok, Feed} ->
            _ = monitor(process, erl_esdb_feed:pid(Feed), [{tag, feed_down}]),
            {noreply, looked(State#state{feed = Feed})};
        {error, _} ->
            {noreply, later(?RETRY, State)}
    end.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(look, State) -> {noreply, later(0, State)};
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, subscribe}} | {stop, term(), #state{}}.
handle_info({erl_esdb_feed, _}, State) ->
    {noreply, later(?PAUSE, State)};
handle_info({timeout, Timer, look}, #state{timer = Timer, feed = undefined} = State) ->
    {noreply, State#state{timer = undefined}, {continue, subscribe}};
handle_info({timeout, Timer, look}, #state{timer = Timer} = State) ->
    {noreply, looked(State#state{timer = undefined})};
handle_info({erl_esdb_leader, Store, Leader}, #state{store = Store} = State) ->
    {noreply, led(Leader =:= node(), State)};
handle_info({feed_down, _, process, _, _}, State) ->
    {noreply, later(?RETRY, State#state{feed = undefined})};
handle_info({'EXIT', Pid, Reason}, State) ->
    {noreply, ended(Pid, Reason, State)};
handle_info(_, State) ->
    {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{store = Store, places = Places}) ->
    ok = handed_over(Store, Places),
    erl_esdb_volatile:delete(Store, ?MODULE, self()).

-spec handed_over(atom(), #{binary() => #place{}}) -> ok.
handed_over(Store, Places) ->
    maps:foreach(fun(_, Place) -> end_worker(Place) end, Places),
    _ = save(Store, maps:filter(fun(_, Place) -> is_unsaved(1, Place) end, Places)),
    ok.

-spec led(boolean(), #state{}) -> #state{}.
led(Leading, #state{leading = Leading} = State) ->
    State;
led(true, State) ->
    later(0, State#state{leading = true});
led(false, #state{store = Store, places = Places} = State) ->
    ok = handed_over(Store, Places),
    State#state{leading = false, places = #{}}.

-spec later(non_neg_integer(), #state{}) -> #state{}.
later(Pause, #state{timer = undefined} = State) ->
    State#state{timer = erlang:start_timer(Pause, self(), look)};
later(0, #state{timer = Timer} = State) ->
    _ = erlang:cancel_timer(Timer),
    later(0, State#state{timer = undefined});
later(_Pause, State) ->
    State.

%% ---- a look

-spec looked(#state{}) -> #state{}.
looked(#state{leading = false} = State) ->
    State;
looked(#state{store = Store} = State) ->
    maybe
        %% The end first: what is written meanwhile leads to the next look.
        {ok, End} ?= erl_esdb_store:next_position(Store),
        {ok, State1} ?= with_policies(State),
        stepped(maps:to_list(State1#state.places), End, State1)
    else
        {error, Reason} -> retry(Reason, State)
    end.

-spec retry(term(), #state{}) -> #state{}.
retry(Reason, #state{store = Store} = State) ->
    ?LOG_DEBUG("store ~tp: snapshots wait: ~tp", [Store, Reason]),
    later(?RETRY, State).

-spec waiting(non_neg_integer(), #state{}) -> #state{}.
waiting(End, #state{feed = Feed, places = Places} = State) ->
    Behind = [Next || #place{due = [], next = Next} <- maps:values(Places), Next < End],
    case Behind =:= [] andalso erl_esdb_feed:wait(Feed, End) of
        false -> later(0, State);
        ready -> later(?PAUSE, State);
        wait -> State
    end.

-spec with_policies(#state{}) -> {ok, #state{}} | {error, term()}.
with_policies(#state{store = Store, places = Places} = State) ->
    maybe
        {ok, Policies} ?= erl_esdb_snapshot_policy:list(Store, #{}),
        Acting = #{P => Policy || P := #{automatic := true} = Policy <- Policies},
        Same = maps:filter(fun(P, #place{policy = Was}) -> is_same(P, Was, Acting) end, Places),
        Others = fun(Map) -> maps:without(maps:keys(Same), Map) end,
        ok ?= erl_esdb_cluster:caught_up(Store),
        {ok, New} ?= places(Store, maps:to_list(Others(Acting)), #{}),
        maps:foreach(fun(_, Place) -> end_worker(Place) end, Others(Places)),
        {ok, State#state{patterns = maps:keys(Policies), places = maps:merge(Same, New)}}
    end.

-spec is_same(binary(), erl_esdb_snapshot_policy:policy(), map()) -> boolean().
is_same(Pattern, Policy, Acting) ->
    case Acting of
        #{Pattern := Policy} -> true;
        #{} -> false
    end.

-spec places(atom(), [{binary(), erl_esdb_snapshot_policy:policy()}], Places) ->
    {ok, Places} | {error, term()}
when
    Places :: #{binary() => #place{}}.
places(Store, [{Pattern, Policy} | Policies], Places) ->
    maybe
        {ok, Next} ?= next(Policy, erl_esdb_store:checkpoint(Store, key(Pattern))),
        Place = #place{policy = Policy, next = Next, saved = Next},
        places(Store, Policies, Places#{Pattern => Place})
    end;
places(_Store, [], Places) ->
    {ok, Places}.

-spec key(binary()) -> term().
key(Pattern) -> {snapshot_policy, Pattern}.

%% Where it was, if it was this policy.
-spec next(erl_esdb_snapshot_policy:policy(), {ok, term()} | {error, term()}) ->
    {ok, non_neg_integer()} | {error, term()}.
next(Policy, {ok, {Next, Hash}}) ->
    case erlang:phash2(Policy) of
        Hash -> {ok, Next};
        _ -> {ok, 0}
    end;
next(_Policy, {error, not_found}) ->
    {ok, 0};
next(_Policy, {error, Reason}) ->
    {error, Reason}.

%% ---- the policies, one after the other

-spec stepped([{binary(), #place{}}], End :: non_neg_integer(), #state{}) -> #state{}.
stepped([{Pattern, Place} | Others], End, #state{store = Store, places = Places} = State) ->
    maybe
        {ok, Place1} ?= step(Pattern, Place, End, State),
        {ok, Place2} ?= saved(Pattern, Place1, Store),
        Begun = begun(Place2, Store),
        stepped(Others, End, State#state{places = Places#{Pattern := Begun}})
    else
        {error, Reason} -> retry(Reason, State)
    end;
stepped([], End, State) ->
    waiting(End, State).

%% What is due is made before more of the log is looked at.
-spec step(binary(), #place{}, non_neg_integer(), #state{}) -> {ok, #place{}} | {error, term()}.
step(_Pattern, #place{due = [_ | _]} = Place, _End, _State) ->
    {ok, Place};
step(_Pattern, #place{next = Next} = Place, End, _State) when Next >= End ->
    {ok, Place};
step(Pattern, #place{next = Next} = Place, End, #state{store = Store} = State) ->
    maybe
        {ok, Pieces} ?= pieces(Store, Next),
        {ok, Place1} ?= due(maps:to_list(written(Pieces)), Pattern, Place, State),
        {ok, Place1#place{next = behind(Pieces, End)}}
    end.

-spec pieces(atom(), non_neg_integer()) -> {ok, [erl_esdb_engine:piece()]} | {error, term()}.
pieces(Store, From) ->
    maybe
        {ok, Engine, Handle, _} ?= erl_esdb_store:engine(Store),
        {ok, Pieces} ?= Engine:read_log(Handle, From, ?PAGE, forward, #{}),
        {ok, Pieces}
    end.

%% Which streams, and up to which version.
-spec written([erl_esdb_engine:piece()]) -> #{binary() => non_neg_integer()}.
written(Pieces) -> #{Stream => To || {Stream, {_, _, To}, _} <- Pieces}.

%% Where there is nothing up to the end, what was there is gone.
-spec behind([erl_esdb_engine:piece()], non_neg_integer()) -> non_neg_integer().
behind([], End) -> End;
behind(Pieces, _End) -> erl_esdb_log:after_span(element(2, lists:last(Pieces))).

-spec due([due()], binary(), #place{}, #state{}) -> {ok, #place{}} | {error, term()}.
due([{Stream, Version} = Written | More], Pattern, Place, State) ->
    #state{store = Store, patterns = Patterns} = State,
    #place{policy = Policy, failures = Failures} = Place,
    Failed = maps:get(Stream, Failures, ?NO_STREAM),
    maybe
        {ok, Pattern} ?= erl_esdb_snapshot_policy:choose(Patterns, Stream),
        true ?= erl_esdb_snapshot_policy:is_due(Policy, Version, Failed),
        {ok, Place1} ?= seen(Written, Place, Store),
        due(More, Pattern, Place1, State)
    else
        {error, Reason} when Reason =/= not_found -> {error, Reason};
        %% It is too early, or another policy is closer.
        _ -> due(More, Pattern, Place, State)
    end;
due([], _Pattern, Place, _State) ->
    {ok, Place}.

-spec seen(due(), #place{}, atom()) -> {ok, #place{}} | {error, term()}.
seen({Stream, _} = Written, #place{policy = Policy, due = Due, seen = Seen} = Place, Store) ->
    Before = maps:get(Stream, Seen, none),
    case erl_esdb_snapshot_policy:is_due(Store, Stream, Policy, Before, #{}) of
        {ok, IsDue, Now} ->
            Seen1 = remember(Stream, Now, Seen, ?SEEN),
            {ok, Place#place{due = [Written || IsDue] ++ Due, seen = Seen1}};
        {error, Reason} ->
            %% Who is to make it meets whatever else is wrong, and tells.
            case erl_esdb_delivery:is_failure(Reason, Store) of
                true -> {error, Reason};
                false -> {ok, Place#place{due = [Written | Due]}}
            end
    end.

%% ---- what is kept of it

-spec saved(binary(), #place{}, atom()) -> {ok, #place{}} | {error, term()}.
saved(Pattern, Place, Store) ->
    case is_unsaved(?PAGE, Place) of
        true ->
            maybe
                ok ?= save(Store, #{Pattern => Place}),
                {ok, Place#place{saved = Place#place.next}}
            end;
        false ->
            {ok, Place}
    end.

%% Not before the snapshots of what was looked at are there.
-spec is_unsaved(pos_integer(), #place{}) -> boolean().
is_unsaved(Positions, #place{due = Due, next = Next, saved = Saved}) ->
    Due =:= [] andalso Next - Saved >= Positions.

-spec save(atom(), #{binary() => #place{}}) -> ok | {error, term()}.
save(_Store, Places) when map_size(Places) =:= 0 ->
    ok;
save(Store, Places) ->
    erl_esdb_store:save_checkpoints(Store, #{
        key(Pattern) => {Next, erlang:phash2(Policy)}
     || Pattern := #place{next = Next, policy = Policy} <- Places
    }).

%% ---- workers

-spec begun(#place{}, atom()) -> #place{}.
begun(#place{due = [{Stream, _} | _], worker = undefined} = Place, Store) ->
    Place#place{worker = spawn_link(?MODULE, made, [Store, Stream])};
begun(Place, _Store) ->
    Place.

-doc false.
-spec made(atom(), binary()) -> no_return().
made(Store, Stream) ->
    proc_lib:set_label({?MODULE, Store, Stream}),
    try
        exit({made, erl_esdb_snapshot_policy:run(Store, Stream, #{})})
    catch
        error:Reason:Stack -> exit({Reason, Stack});
        throw:Reason:Stack -> exit({{nocatch, Reason}, Stack})
    end.

-spec end_worker(#place{}) -> ok.
end_worker(#place{worker = Pid}) when is_pid(Pid) ->
    true = unlink(Pid),
    true = exit(Pid, kill),
    ok;
end_worker(#place{}) ->
    ok.

-spec ended(pid(), term(), #state{}) -> #state{}.
ended(Pid, Reason, #state{store = Store, places = Places} = State) ->
    case [Found || {_, #place{worker = P}} = Found <- maps:to_list(Places), P =:= Pid] of
        [{Pattern, Place}] ->
            {Pause, Place1} = judged(Reason, Place#place{worker = undefined}, Store),
            later(Pause, State#state{places = Places#{Pattern := Place1}});
        [] ->
            State
    end.

-spec judged(term(), #place{}, atom()) -> {Pause :: non_neg_integer(), #place{}}.
judged({made, {error, Reason}}, Place, Store) ->
    case erl_esdb_delivery:is_failure(Reason, Store) of
        true -> {?RETRY, Place};
        false -> {0, failed(Reason, Place, Store)}
    end;
judged({made, _}, #place{due = [_ | Due]} = Place, _Store) ->
    {0, Place#place{due = Due}};
judged(Reason, Place, Store) ->
    {0, failed(Reason, Place, Store)}.

-spec failed(term(), #place{}, atom()) -> #place{}.
failed({stream_not_found, _}, #place{due = [_ | Due]} = Place, _Store) ->
    Place#place{due = Due};
failed(Reason, #place{due = [{Stream, Version} | Due], failures = Failures} = Place, Store) ->
    ?LOG_ERROR("store ~tp: no snapshot of ~ts, version ~b: ~tP", [
        Store, Stream, Version, Reason, 30
    ]),
    erl_esdb_telemetry:emit(
        ?SNAPSHOT_FAILED,
        #{system_time => erlang:system_time(millisecond)},
        #{store_id => Store, stream_id => Stream, version => Version, reason => Reason}
    ),
    Place#place{due = Due, failures = remember(Stream, Version, Failures, ?FAILURES)}.

-spec remember(binary(), Value, #{binary() => Value}, Max :: pos_integer()) ->
    #{binary() => Value}.
remember(Stream, Value, Known, Max) when map_size(Known) < Max; is_map_key(Stream, Known) ->
    Known#{Stream => Value};
remember(Stream, Value, _Known, _Max) ->
    #{Stream => Value}.
