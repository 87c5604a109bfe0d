-module(erl_esdb_link).
-moduledoc """
The process of a link that runs: follows the log from where the link is, and writes to its stream.

What is old and what is new comes through the same loop: a page of the log is read, what the link
makes of it is appended, and how far it has come is saved. An append names the exact version of the
link's stream, and each output the position of its source. So after a crash the last output that is
there tells where to go on: each source has one output, whenever the process ends. The outputs of a
link have its mark, so that what others write to its stream does not disturb it.

Where the store does not answer the link waits for it. An event that the store refuses as output
(too large, after a transformation) ends the link with `{shutdown, {failed, Reason}}`, for it may
not be left out; and so does one that cannot be read.
""".

-behaviour(gen_server).

-export([start_link/2, go/1, version/3]).
-export([init/1, handle_continue/2, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").

%% Events that are read, and at most written, at a time.
-define(PAGE, 100).
%% Positions passed without an output, after which it is worth a command that they were.
-define(WORTH_SAVING, 1000).
%% Milliseconds until it is tried again, after the store did not answer.
-define(RETRY, 200).

-record(state, {
    store :: atom(),
    name :: binary(),
    stream :: binary(),
    rules :: erl_esdb_link_spec:rules(),
    backfill :: boolean(),
    %% where the link is, and what of it is saved
    progress :: erl_esdb_link_spec:progress() | undefined,
    saved :: erl_esdb_link_spec:progress() | undefined,
    %% what wakes it; and whether it is to be woken
    feed :: erl_esdb_feed:feed() | undefined,
    idle = false :: boolean(),
    %% whether the log of the node says already that it waits for the store
    waits = false :: boolean()
}).

%% How a page went, and how far the link has come.
-type outcome() ::
    {ok | {error, term()} | {failed, term()}, erl_esdb_link_spec:progress()}.

-doc "Starts the process of a link, which does nothing before `go/1`.".
-spec start_link(Store :: atom(), erl_esdb_link_spec:definition()) -> gen_server:start_ret().
start_link(Store, Definition) -> gen_server:start_link(?MODULE, {Store, Definition}, []).

-doc "Has a link begin: who watches it then learns why it ends.".
-spec go(pid()) -> ok.
go(Link) ->
    Link ! resume,
    ok.

-doc "The version of a stream, -1 where there is none. Option: `timeout`.".
-spec version(atom(), binary(), #{timeout => timeout(), _ => _}) ->
    {ok, integer()} | {error, term()}.
version(Store, Stream, Options) ->
    case erl_esdb_store:info(Store, Stream, maps:with([timeout], Options)) of
        {ok, #{next := Next}} -> {ok, Next - 1};
        {error, {stream_not_found, _}} -> {ok, ?NO_STREAM};
        {error, Reason} -> {error, Reason}
    end.

-doc false.
-spec init({atom(), erl_esdb_link_spec:definition()}) -> {ok, #state{}}.
init({Store, #{name := Name, backfill := Backfill} = Definition}) ->
    %% A page is finished, and saved, before this ends.
    process_flag(trap_exit, true),
    proc_lib:set_label({?MODULE, Store, Name}),
    State = #state{
        store = Store,
        name = Name,
        stream = erl_esdb_link_spec:stream(Name),
        backfill = Backfill,
        rules = erl_esdb_link_spec:rules(Definition)
    },
    {ok, State}.

-doc false.
-spec handle_continue(resume | page, #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, page}} | {stop, term(), #state{}}.
handle_continue(resume, State) -> resumed(resume(State), State);
handle_continue(page, State) -> paged(page(State#state{idle = false})).

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(_, _From, State) -> {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) ->
    {noreply, #state{}}
    | {noreply, #state{}, {continue, resume | page}}
    | {stop, term(), #state{}}.
handle_info(page, State) ->
    {noreply, State, {continue, page}};
handle_info(resume, State) ->
    {noreply, State, {continue, resume}};
handle_info({erl_esdb_feed, _}, #state{idle = true} = State) ->
    {noreply, State, {continue, page}};
handle_info({feed_down, _, process, _, _}, State) ->
    {noreply, State#state{feed = undefined, idle = false}, {continue, resume}};
%% A process that a function of the user has linked.
handle_info({'EXIT', _, Reason}, State) when Reason =/= normal -> {stop, Reason, State};
handle_info(_, State) -> {noreply, State}.

-doc false.
-spec terminate(term(), #state{}) -> ok.
terminate(_Reason, #state{progress = undefined}) ->
    ok;
terminate(_Reason, State) ->
    _ = save(State),
    ok.

%% ---- the loop

-spec resumed({ok, #state{}} | {error, term()}, #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, page}} | {stop, term(), #state{}}.
resumed({ok, State}, _) -> {noreply, State#state{waits = false}, {continue, page}};
resumed({error, Reason}, State) -> stopped(Reason, State).

%% Where the store does not answer nothing is lost by waiting, and it is not known what was written.
-spec stopped(term(), #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, resume}} | {stop, term(), #state{}}.
stopped({wrong_expected_version, _, _}, State) ->
    {noreply, State, {continue, resume}};
stopped(Reason, #state{store = Store} = State) ->
    case erl_esdb_delivery:is_failure(Reason, Store) of
        true -> {noreply, retry(Reason, State)};
        false -> {stop, {shutdown, {failed, Reason}}, State}
    end.

-spec retry(term(), #state{}) -> #state{}.
retry(Reason, #state{store = Store, name = Name, waits = Waits} = State) ->
    Waits orelse ?LOG_WARNING("store ~tp: link ~ts waits: ~tp", [Store, Name, Reason]),
    _ = erlang:send_after(?RETRY, self(), resume),
    State#state{waits = true}.

-spec paged({more | idle, #state{}} | {error | failed, term(), #state{}}) ->
    {noreply, #state{}} | {noreply, #state{}, {continue, resume}} | {stop, term(), #state{}}.
paged({more, State}) ->
    %% Through the mailbox, so that a request to end comes before the next page.
    self() ! page,
    {noreply, State};
paged({idle, #state{feed = undefined} = State}) ->
    %% The word that it has ended, and that leads on, is on its way.
    {noreply, State};
paged({idle, #state{feed = Feed, progress = #{next := Next}} = State}) ->
    _ = erl_esdb_feed:wait(Feed, Next) =:= ready andalso (self() ! page),
    {noreply, State#state{idle = true}};
paged({error, Reason, State}) ->
    stopped(Reason, State);
paged({failed, Reason, State}) ->
    {stop, {shutdown, {failed, Reason}}, State}.

%% Where the saved progress says, or behind what was written after it was saved.
-spec resume(#state{}) -> {ok, #state{}} | {error, term()}.
resume(#state{store = Store, stream = Stream} = Given) ->
    maybe
        {ok, State} ?= subscribed(Given),
        {ok, End} ?= erl_esdb_store:next_position(Store),
        {ok, Saved} ?= saved(State, End),
        {ok, Version} ?= version(Store, Stream, #{}),
        %% A stream that was removed begins again.
        Known = min(maps:get(version, Saved), Version),
        {ok, Progress} ?= recover(State, End, Saved#{version := Known}),
        %% What was removed of the stream by now keeps its version.
        Reached = max(Version, maps:get(version, Progress)),
        save(State#state{progress = Progress#{version := Reached}, saved = Saved})
    end.

%% Of a link that came into this store without its place there is nothing but its stream.
-spec saved(#state{}, non_neg_integer()) ->
    {ok, erl_esdb_link_spec:progress()} | {error, term()}.
saved(#state{store = Store, name = Name} = State, End) ->
    maybe
        {error, not_found} ?= erl_esdb_store:checkpoint(Store, {link, Name}),
        {ok, Progress} ?= placed(State, End, erl_esdb_link_spec:new_progress()),
        ok ?= erl_esdb_store:save_checkpoints(Store, #{{link, Name} => Progress}),
        {ok, Progress}
    end.

%% Without backfill it must not begin before what is written from now on.
-spec placed(#state{}, non_neg_integer(), Progress) -> {ok, Progress} | {error, term()} when
    Progress :: erl_esdb_link_spec:progress().
placed(#state{backfill = true}, _End, New) ->
    {ok, New};
placed(#state{backfill = false} = State, End, New) ->
    case recover(State, End, New) of
        {ok, #{processed := 0}} -> {ok, New#{next := End}};
        {ok, _} -> {ok, New};
        {error, Reason} -> {error, Reason}
    end.

-spec subscribed(#state{}) -> {ok, #state{}} | {error, term()}.
subscribed(#state{store = Store, feed = undefined} = State) ->
    maybe
        {ok, Feed} ?= erl_esdb_feed:subscribe(Store),
        _ = monitor(process, erl_esdb_feed:pid(Feed), [{tag, feed_down}]),
        {ok, State#state{feed = Feed}}
    end;
subscribed(State) ->
    {ok, State}.

-spec recover(#state{}, non_neg_integer(), erl_esdb_link_spec:progress()) ->
    {ok, erl_esdb_link_spec:progress()} | {error, term()}.
recover(#state{store = Store, stream = Stream} = State, End, #{version := Version} = Progress) ->
    case erl_esdb_pages:info(Store, Stream) of
        {ok, #{first := First, next := Next}} when Next > First, Next > Version + 1 ->
            %% A page of what was removed would have nothing, whatever comes after it.
            recover_from(max(First, Version + 1), State, End, Progress);
        {ok, #{}} ->
            {ok, Progress};
        {error, {stream_not_found, _}} ->
            {ok, Progress};
        {error, Reason} ->
            {error, Reason}
    end.

-spec recover_from(non_neg_integer(), #state{}, End, Progress) ->
    {ok, Progress} | {error, term()}
when
    End :: non_neg_integer(), Progress :: erl_esdb_link_spec:progress().
recover_from(From, #state{store = Store, stream = Stream, rules = Rules} = State, End, Progress) ->
    #{mark := Mark} = Rules,
    case erl_esdb_store:read(Store, Stream, From, ?PAGE, forward, #{hidden => true}) of
        {ok, []} ->
            %% It was cut meanwhile, or is another one.
            recover(State, End, Progress);
        {ok, Events} ->
            recover(State, End, erl_esdb_link_spec:recovered(Events, Mark, End, Progress));
        {error, {stream_not_found, _}} ->
            {ok, Progress};
        {error, Reason} ->
            {error, Reason}
    end.

-spec page(#state{}) -> {more | idle, #state{}} | {error | failed, term(), #state{}}.
page(#state{store = Store, progress = #{next := Next} = Progress, rules = Rules} = State) ->
    maybe
        {ok, End} ?= erl_esdb_store:next_position(Store),
        {ok, Events} ?= erl_esdb_store:read_log(Store, Next, ?PAGE, forward, #{}),
        Outputs = erl_esdb_link_spec:outputs(Events, Rules),
        passed(Events, End, write(Outputs, Progress, State), State)
    else
        {error, Reason} -> {error, Reason, State}
    end.

%% Where there is nothing up to the end, what was there is gone.
-spec passed([event()], non_neg_integer(), outcome(), #state{}) ->
    {more | idle, #state{}} | {error | failed, term(), #state{}}.
passed([], End, _Nothing, #state{progress = #{next := Next} = Progress} = State) ->
    {idle, State#state{progress = Progress#{next := max(Next, End)}}};
passed(Events, _End, Outcome, State) ->
    written(Outcome, (lists:last(Events))#event.position + 1, State).

-spec written(outcome(), non_neg_integer(), #state{}) ->
    {more, #state{}} | {error | failed, term(), #state{}}.
written({ok, Progress}, After, State) ->
    case save_if_worth(State#state{progress = Progress#{next := After}}) of
        {ok, State1} -> {more, State1};
        {error, Reason} -> {error, Reason, State}
    end;
written({{Kind, Reason}, Progress}, _After, State) ->
    {Kind, Reason, State#state{progress = Progress}}.

%% What the store refuses is halved until it is clear which event it is: all of them may be too much
%% together, and two streams may have events of one id, which no append may.
-spec write([new_event()], erl_esdb_link_spec:progress(), #state{}) -> outcome().
write([], Progress, _State) ->
    {ok, Progress};
write(Outputs, #{version := Version} = Progress, #state{store = Store, stream = Stream} = State) ->
    case erl_esdb_streams:append(Store, Stream, Version, Outputs) of
        {ok, Last} -> {ok, progressed(Outputs, Last, Progress)};
        {error, {wrong_expected_version, _, _} = Reason} -> {{error, Reason}, Progress};
        {error, Reason} ->
            Waits = erl_esdb_delivery:is_failure(Reason, Store),
            refused(Waits, Reason, Outputs, Progress, State)
    end.

-spec refused(boolean(), term(), [new_event()], erl_esdb_link_spec:progress(), #state{}) ->
    outcome().
refused(true, Reason, _Outputs, Progress, _State) ->
    {{error, Reason}, Progress};
refused(false, Reason, [_], Progress, _State) ->
    {{failed, Reason}, Progress};
refused(false, _Reason, Outputs, Progress, State) ->
    {First, Second} = lists:split(length(Outputs) div 2, Outputs),
    case write(First, Progress, State) of
        {ok, Progress1} -> write(Second, Progress1, State);
        Failure -> Failure
    end.

-spec progressed([new_event()], integer(), erl_esdb_link_spec:progress()) ->
    erl_esdb_link_spec:progress().
progressed(Outputs, Version, #{processed := Processed} = Progress) ->
    #{event_id := Id, metadata := #{source_position := At}} = lists:last(Outputs),
    Progress#{
        next := At + 1,
        version := Version,
        processed := Processed + length(Outputs),
        last_event := Id
    }.

-spec save_if_worth(#state{}) -> {ok, #state{}} | {error, term()}.
save_if_worth(#state{progress = Progress, saved = Saved} = State) ->
    #{next := Next, version := Version} = Progress,
    case Saved of
        #{version := Version, next := Before} when Next - Before < ?WORTH_SAVING -> {ok, State};
        #{} -> save(State)
    end.

-spec save(#state{}) -> {ok, #state{}} | {error, term()}.
save(#state{progress = Progress, saved = Progress} = State) ->
    {ok, State};
save(#state{store = Store, name = Name, progress = Progress} = State) ->
    maybe
        ok ?= erl_esdb_store:save_checkpoints(Store, #{{link, Name} => Progress}),
        {ok, State#state{saved = Progress}}
    end.
