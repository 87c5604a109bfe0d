-module(erl_esdb_statem).
-moduledoc """
The whole store as a PropEr state machine: the streams of `m:erl_esdb_streams_statem`, and with them
scavenges by version and by time, snapshots, reads by time, proofs of integrity, and subscriptions
whose subscribers crash, while processes of the store are killed.

What a call answers is compared at once. What comes to subscribers comes later: each subscription
has the positions that are still due, those that were selected, and visible, all the time since they
were written; a `drain` waits until they were all handled, by whichever process took the place of
those that crashed. What was handled is an event that was written, was selected, and came in order:
only after somebody was killed may it go back, or where another node leads since.
""".

-behaviour(proper_statem).

-export([sequential/1]).
-export([initial_state/0, initial_state/1, command/1]).
-export([precondition/2, postcondition/3, next_state/3]).
-export([mark/2, scavenge/2, scavenge_until/3, until/2, verify/1, verify_all/0]).
-export([save/3, load/1, load_at/2, saved/1, forget/1, forget_at/2, has/1, has_at/2]).
-export([subscribe/2, unsubscribe/1, attach/1, crash/2, drain/1, kill/1, kill_engine/0]).

-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-define(STREAMS, erl_esdb_streams_statem).
-define(STORE, erl_esdb_streams_statem).
-define(SEEN, ?MODULE).
%% No supervisor of a store gives up before it was asked for more restarts.
-define(KILLS, 3).

%% Named by its number, that no two have.
-type id() :: pos_integer().
-type wanted() :: {subscription_type(), binary()}.
-type awaited() :: #{
    wanted := wanted(),
    %% nothing before this position is selected
    start := non_neg_integer(),
    due := [non_neg_integer()],
    %% how often what was handed over may come again
    kills := non_neg_integer()
}.
-type model() :: #{
    streams := map(),
    signs := boolean(),
    durable := boolean(),
    %% every event that ever was, by its position
    history := #{non_neg_integer() => tuple()},
    %% of events that are later than all before them in their stream
    marks := [non_neg_integer()],
    snapshots := #{binary() => #{non_neg_integer() => term()}},
    subscriptions := #{id() => awaited()},
    next := id(),
    kills := non_neg_integer()
}.

-doc "Any calls, on a store with these options.".
-spec sequential(map()) -> proper:outer_test().
sequential(Options) ->
    Initial = initial_state(Options),
    ?FORALL(Commands, more_commands(2, commands(?MODULE, Initial)), begin
        {History, State, Result} = run(Options, Commands),
        ?WHENFAIL(
            erl_esdb_test:why({Result, [R || {_, R} <- [last(History)]]}, State),
            aggregate(command_names(Commands), Result =:= ok)
        )
    end).

-spec last([Element]) -> Element | none.
last([]) -> none;
last(List) -> lists:last(List).

-spec run(map(), [term()]) -> {term(), model(), term()}.
run(Options, Commands) ->
    ?SEEN = ets:new(?SEEN, [named_table, public, ordered_set]),
    Fresh = erl_esdb_test:fresh(Options),
    {ok, _} = erl_esdb_test:start_store(?STORE, maps:merge(Fresh, ?STREAMS:limits())),
    try
        {History, State, Result} = run_commands(?MODULE, Commands),
        {History, State, ended(Result, State)}
    after
        lists:foreach(fun(Pid) -> exit(Pid, kill) end, takers()),
        ok = erl_esdb:stop_store(?STORE),
        true = ets:delete(?SEEN)
    end.

%% In the end all that is due is to come.
-spec ended(term(), model()) -> term().
ended(ok, #{subscriptions := Subscriptions} = Model) ->
    case [Id || Id := _ <- Subscriptions, not is_drained(Id, Model)] of
        [] -> mailbox(process_info(self(), messages));
        Ids -> {not_delivered, [{Id, missing(Id, Model), seen(Id)} || Id <- Ids]}
    end;
ended(Result, _Model) ->
    Result.

%% Who subscribes for another is sent nothing.
-spec mailbox({messages, [term()]}) -> ok | {unexpected, [term()]}.
mailbox({messages, Messages}) ->
    case [M || M <- Messages, lists:member(element(1, M), [event, events])] of
        [] -> ok;
        Events -> {unexpected, Events}
    end.

%% ---- calls

-doc "Appends an event that is later than all before it in its stream.".
-spec mark(binary(), binary()) -> term().
mark(Stream, Type) ->
    ok = later_than(Stream),
    ?STREAMS:append(Stream, any, [{Type, {0, none, []}}], #{}).

-spec later_than(binary()) -> ok.
later_than(Stream) ->
    case erl_esdb_store:info(?STORE, Stream) of
        {ok, #{epoch_us := Last}} -> passed(Last);
        {error, {stream_not_found, Stream}} -> ok
    end.

-spec passed(integer()) -> ok.
passed(Time) ->
    case erlang:system_time(microsecond) > Time of
        true -> ok;
        false -> passed(Time)
    end.

-spec scavenge(binary(), map()) -> term().
scavenge(Stream, Options) -> erl_esdb_scavenge:scavenge(?STORE, Stream, Options).

-doc "Removes what is earlier than the event at this position.".
-spec scavenge_until(binary(), non_neg_integer(), map()) -> term().
scavenge_until(Stream, Position, Options) ->
    scavenge(Stream, Options#{before => time_of(Position)}).

-doc "Reads what is earlier than the event at this position.".
-spec until(binary(), non_neg_integer()) -> term().
until(Stream, Position) ->
    ?STREAMS:places(erl_esdb_temporal:read_until(?STORE, Stream, time_of(Position) - 1)).

-spec time_of(non_neg_integer()) -> integer().
time_of(Position) ->
    {ok, [#event{position = Position, epoch_us = Time}]} =
        erl_esdb_streams:read_log(?STORE, Position, 1, forward, #{}),
    Time.

-spec verify(binary()) -> term().
verify(Stream) ->
    case erl_esdb_integrity:verify_stream(?STORE, Stream) of
        {ok, Report} -> {ok, maps:without([tip], Report)};
        Error -> Error
    end.

-spec verify_all() -> term().
verify_all() -> erl_esdb_integrity:verify_store(?STORE).

-spec save(binary(), non_neg_integer(), term()) -> term().
save(Stream, Version, Data) -> erl_esdb_snapshots:save(?STORE, Stream, Version, Data).

-spec load(binary()) -> term().
load(Stream) -> loaded(erl_esdb_snapshots:load(?STORE, Stream)).

-spec load_at(binary(), non_neg_integer()) -> term().
load_at(Stream, Version) -> loaded(erl_esdb_snapshots:load_at(?STORE, Stream, Version)).

-spec loaded({ok, snapshot()} | {error, term()}) -> {ok, {integer(), term()}} | {error, term()}.
loaded({ok, #snapshot{version = Version, data = Data}}) -> {ok, {Version, Data}};
loaded({error, Reason}) -> {error, Reason}.

-spec saved(binary()) -> term().
saved(Stream) ->
    case erl_esdb_snapshots:list(?STORE, Stream) of
        {ok, Snapshots} -> {ok, [{V, D} || #snapshot{version = V, data = D} <- Snapshots]};
        Error -> Error
    end.

-spec forget(binary()) -> term().
forget(Stream) -> erl_esdb_snapshots:delete(?STORE, Stream).

-spec forget_at(binary(), non_neg_integer()) -> term().
forget_at(Stream, Version) -> erl_esdb_snapshots:delete_at(?STORE, Stream, Version).

-spec has(binary()) -> boolean().
has(Stream) -> erl_esdb_snapshots:exists(?STORE, Stream).

-spec has_at(binary(), non_neg_integer()) -> boolean().
has_at(Stream, Version) -> erl_esdb_snapshots:exists_at(?STORE, Stream, Version).

%% ---- subscribers

-doc """
Makes a subscription. Who takes its events (`taker`) is named in it, has made it, or is a member of
its group.
""".
-spec subscribe({id(), wanted()}, map()) -> term().
subscribe({Id, {Type, Selector} = Wanted}, #{taker := Taker} = Options) ->
    Subscribe = fun(More) ->
        Given = maps:merge(maps:remove(taker, Options), More),
        erl_esdb_subscriptions:subscribe(?STORE, Type, Selector, name(Id), Given)
    end,
    Ack = ack(Wanted, Options),
    %% Of a node that has not heard that it leads no more the events may come besides.
    ok = erl_esdb_test:settled(?STORE),
    Term = {{term, Id}, erl_esdb_test:term(?STORE)},
    true = ets:insert(?SEEN, [{{ack, Id}, Ack}, {{takes, Id}, Taker}, Term]),
    {ok, Key} =
        case Taker of
            named -> Subscribe(#{subscriber => taker(Id, fun() -> ok end)});
            caller -> subscribed_by(taker(Id, subscribing(Subscribe)));
            member -> hd(erl_esdb_test:concurrently([fun() -> Subscribe(#{}) end]))
        end,
    true = ets:insert(?SEEN, {{key, Id}, Key}),
    _ = [joined(Id) || Taker =:= member, _ <- [1, 2]],
    ok.

%% Whether it acknowledges, and by which number: of a stream it is the version.
-spec ack(wanted(), map()) -> none | version | position.
ack(_Wanted, #{ack := auto}) -> none;
ack({stream, Stream}, _) when Stream =/= <<"$all">> -> version;
ack(_Wanted, _) -> position.

-spec subscribing(fun((map()) -> term())) -> fun(() -> term()).
subscribing(Subscribe) ->
    Self = self(),
    fun() -> Self ! {self(), Subscribe(#{})} end.

-spec subscribed_by(pid()) -> term().
subscribed_by(Pid) ->
    receive
        {Pid, Result} -> Result
    after 60_000 -> error(no_answer)
    end.

-spec name(id()) -> binary().
name(Id) -> <<"subscription-", (integer_to_binary(Id))/binary>>.

-spec key(id()) -> binary().
key(Id) -> ets:lookup_element(?SEEN, {key, Id}, 2).

-spec unsubscribe(id()) -> term().
unsubscribe(Id) ->
    Result = erl_esdb_subscriptions:unsubscribe(?STORE, key(Id)),
    _ = [erl_esdb_test:killed(Pid) || Pid <- takers(Id)],
    Result.

-doc "Has its subscriber crash, and another take its place.".
-spec attach(id()) -> ok | {error, term()}.
attach(Id) ->
    _ = [erl_esdb_test:killed(Pid) || Pid <- takers(Id)],
    case ets:lookup_element(?SEEN, {takes, Id}, 2) of
        member -> joined(Id);
        _ -> erl_esdb_subscriptions:attach(?STORE, key(Id), taker(Id, fun() -> ok end))
    end.

-spec joined(id()) -> ok.
joined(Id) ->
    erl_esdb_emitter_group:join(?STORE, key(Id), taker(Id, fun() -> ok end)).

-doc "Has its subscriber crash after so many events more, be it inside a batch.".
-spec crash(id(), non_neg_integer()) -> ok.
crash(Id, After) ->
    lists:foreach(fun(Pid) -> Pid ! {crash_after, After} end, takers(Id)).

-doc "The postcondition waits.".
-spec drain(id()) -> ok.
drain(_Id) -> ok.

-spec takers() -> [pid()].
takers() -> [Pid || [Pid] <- ets:match(?SEEN, {{taker, '_', '$1'}}), is_process_alive(Pid)].

-spec takers(id()) -> [pid()].
takers(Id) -> [Pid || [Pid] <- ets:match(?SEEN, {{taker, Id, '$1'}}), is_process_alive(Pid)].

-spec taker(id(), fun(() -> term())) -> pid().
taker(Id, Begin) ->
    Ack = ets:lookup_element(?SEEN, {ack, Id}, 2),
    Pid = spawn(fun() -> _ = Begin(), take({Id, Ack}, infinity) end),
    true = ets:insert(?SEEN, {{taker, Id, Pid}}),
    Pid.

%% A word to crash is heard before the events that wait.
-spec take({id(), none | version | position}, non_neg_integer() | infinity) -> no_return().
take(Me, Left) ->
    receive
        {crash_after, After} -> take(Me, After)
    after 0 ->
        receive
            {crash_after, After} -> take(Me, After);
            {events, Events} -> take(Me, handle_all(Me, Events, Left));
            {event, Event} -> take(Me, handle_all(Me, [Event], Left))
        end
    end.

-spec handle_all({id(), none | version | position}, [event()], Left) -> Left when
    Left :: non_neg_integer() | infinity.
handle_all(Me, Events, Left) -> lists:foldl(fun(E, N) -> handle(Me, E, N) end, Left, Events).

-spec handle({id(), none | version | position}, event(), non_neg_integer() | infinity) ->
    non_neg_integer() | infinity.
handle(_Me, _Event, 0) ->
    exit(crashed);
handle({Id, Ack}, Event, Left) ->
    {ok, [Place]} = ?STREAMS:places({ok, [Event]}),
    true = ets:insert(?SEEN, {{seen, Id, erlang:unique_integer([monotonic])}, self(), Place}),
    ok = acknowledge(Ack, Id, Event),
    less(Left).

-spec less(non_neg_integer() | infinity) -> non_neg_integer() | infinity.
less(infinity) -> infinity;
less(Left) -> Left - 1.

%% Again, while what would hear of it begins anew.
-spec acknowledge(none | version | position, id(), event()) -> ok.
acknowledge(none, _Id, _Event) -> ok;
acknowledge(version, Id, #event{version = Version}) -> acknowledge(Id, Version);
acknowledge(position, Id, #event{position = Position}) -> acknowledge(Id, Position).

-spec acknowledge(id(), non_neg_integer()) -> ok.
acknowledge(Id, Number) ->
    erl_esdb_test:await(fun() ->
        erl_esdb_subscriptions:ack(?STORE, name(Id), undefined, Number) =:= ok
    end).

%% ---- processes of the store

-doc "Kills one of the processes that deliver, or that search, and waits until all are back.".
-spec kill(atom() | {subscription, id()}) -> ok.
kill(What) ->
    %% Of a store on several nodes it may just be beginning where the leader is now.
    erl_esdb_test:await(fun() -> is_pid(process(What)) end),
    case process(What) of
        Victim when is_pid(Victim) ->
            exit(Victim, kill),
            erl_esdb_test:await(fun() -> is_back(What, Victim) end);
        none ->
            kill(What)
    end.

-spec is_back(term(), pid()) -> boolean().
is_back(What, Victim) ->
    Whats = [What, index, feed, checkpoints, manager] ++ keys(),
    process(What) =/= Victim andalso lists:all(fun is_there_again/1, Whats).

-spec keys() -> [{subscription, id()}].
keys() -> [{subscription, Id} || [Id] <- ets:match(?SEEN, {{key, '$1'}, '_'})].

-spec is_there_again(term()) -> boolean().
is_there_again(What) -> is_running(process(What)) orelse is_removed(What).

-spec is_running(pid() | none) -> boolean().
is_running(Pid) -> is_pid(Pid) andalso is_process_alive(Pid).

-spec is_removed(term()) -> boolean().
is_removed({subscription, Id}) -> not erl_esdb_subscriptions:exists(?STORE, key(Id));
is_removed(_) -> false.

-spec process(term()) -> pid() | none.
process(index) ->
    case ets:lookup(erl_esdb_index, ?STORE) of
        [{_, Pid, _}] -> Pid;
        [] -> none
    end;
process({subscription, Id}) ->
    found(erl_esdb_delivery:pid(?STORE, subscription, key(Id)));
process(Kind) ->
    found(erl_esdb_delivery:pid(?STORE, Kind, none)).

-spec found({ok, pid() | {pid(), term()}} | {error, term()}) -> pid() | none.
found({ok, {Feed, _}}) -> Feed;
found({ok, Pid}) -> Pid;
found({error, _}) -> none.

-doc """
Kills what keeps the events. An engine that is memory begins with nothing; with another the
subscriptions go on.
""".
-spec kill_engine() -> ok.
kill_engine() ->
    Durable = is_map_key(data_dir, erl_esdb_test:options()),
    Durable orelse lists:foreach(fun erl_esdb_test:killed/1, takers()),
    Victims = [Feed, Index | _] = [process(feed), process(index), erl_esdb_test:engine(?STORE)],
    exit(lists:last(Victims), kill),
    Replaced = fun() ->
        not lists:any(fun is_process_alive/1, Victims) andalso
            erl_esdb_store:is_ready(?STORE) andalso
            not lists:member(process(feed), [Feed, none]) andalso
            not lists:member(process(index), [Index, none])
    end,
    erl_esdb_test:await(Replaced, 30_000),
    ok = erl_esdb_test:lead(?STORE),
    Kinds = [feed, checkpoints, manager, index],
    erl_esdb_test:await(fun() ->
        lists:all(fun is_running/1, [process(K) || K <- Kinds]) andalso
            (not Durable orelse lists:all(fun is_there_again/1, keys()))
    end),
    true = Durable orelse ets:delete_all_objects(?SEEN),
    ok.

%% ---- what was handled

-spec seen(id()) -> [{pid(), tuple()}].
seen(Id) ->
    [{Pid, Place} || [Pid, Place] <- ets:match(?SEEN, {{seen, Id, '_'}, '$1', '$2'})].

-spec missing(id(), model()) -> [non_neg_integer()].
missing(Id, #{subscriptions := Subscriptions}) ->
    #{Id := #{due := Due}} = Subscriptions,
    ordsets:subtract(Due, lists:usort([element(1, Place) || {_, Place} <- seen(Id)])).

%% All that is due comes, to another subscriber where one has crashed; and it was right.
-spec is_drained(id(), model()) -> boolean().
is_drained(Id, Model) ->
    Patience = list_to_integer(os:getenv("ESDB_PATIENCE", "30000")),
    Until = erlang:monotonic_time(millisecond) + Patience,
    is_complete(Id, Model, Until) andalso is_sound(Id, Model).

-spec is_complete(id(), model(), integer()) -> boolean().
is_complete(Id, Model, Until) ->
    case {missing(Id, Model), takers(Id)} of
        {[], _} ->
            true;
        {_, []} ->
            _ = attach(Id),
            is_complete(Id, Model, Until);
        {_, _} ->
            erlang:yield(),
            erlang:monotonic_time(millisecond) < Until andalso is_complete(Id, Model, Until)
    end.

-spec is_sound(id(), model()) -> boolean().
is_sound(Id, #{subscriptions := Subscriptions, history := History}) ->
    #{Id := #{wanted := Wanted, start := Start, kills := Kills}} = Subscriptions,
    Seen = seen(Id),
    Runs = maps:groups_from_list(
        fun({Pid, {_, Stream, _, _, _}}) -> {Pid, Stream} end, fun({_, Place}) -> Place end, Seen
    ),
    Again = Kills + rewinds(Id),
    Elections = elections(Id),
    lists:all(fun({_, Place}) -> is_wanted(Place, Wanted, Start, History) end, Seen) andalso
        lists:all(fun(Run) -> is_sound(Run, Again, Elections) end, maps:values(Runs)).

%% What one process had of one stream: in order, but for what came again. Who leads anew goes on
%% from what was saved, also while the one before has not heard of it: then what the two hand over
%% comes in any order, and from each of them once.
-spec is_sound([tuple()], non_neg_integer(), non_neg_integer()) -> boolean().
is_sound(Run, Again, 0) -> descents(Run) =< Again;
is_sound(Run, Again, Elections) -> copies(Run) =< 1 + Again + Elections.

%% How often the same came at most.
-spec copies([tuple(), ...]) -> pos_integer().
copies(Run) ->
    Same = maps:groups_from_list(fun(Place) -> Place end, Run),
    lists:max([length(Copies) || _ := Copies <- Same]).

%% How often it was decided since who leads.
-spec elections(id()) -> non_neg_integer().
elections(Id) -> erl_esdb_test:term(?STORE) - ets:lookup_element(?SEEN, {term, Id}, 2).

%% A member may have joined, and had events, before the news of the death of the one before: what
%% that one had comes again, and then what followed it.
-spec rewinds(id()) -> non_neg_integer().
rewinds(Id) ->
    case ets:lookup_element(?SEEN, {takes, Id}, 2) of
        member -> length(ets:match(?SEEN, {{taker, Id, '$1'}})) - 1;
        _ -> 0
    end.

-spec is_wanted(tuple(), wanted(), non_neg_integer(), map()) -> boolean().
is_wanted({Position, _, _, _, _} = Place, Wanted, Start, History) ->
    Position >= Start andalso selects(Wanted, Place) andalso
        maps:get(Position, History, none) =:= Place.

%% How often what one process had of one stream began again.
-spec descents([tuple()]) -> non_neg_integer().
descents([A | [B | _] = Rest]) when B > A -> descents(Rest);
descents([_ | [_ | _] = Rest]) -> 1 + descents(Rest);
descents(_) -> 0.

-spec selects(wanted(), tuple()) -> boolean().
selects({stream, <<"$all">>}, _) -> true;
selects({stream, Stream}, {_, S, _, _, _}) -> S =:= Stream;
selects({event_type, Type}, {_, _, _, T, _}) -> T =:= Type;
selects({event_pattern, <<"a-*">>}, {_, S, _, _, _}) -> binary:first(S) =:= $a.

%% ---- the model

-spec initial_state() -> model().
initial_state() -> initial_state(#{}).

-spec initial_state(map()) -> model().
initial_state(Options) ->
    #{
        streams => ?STREAMS:initial_state(),
        signs => is_map_key(integrity, Options),
        durable => maps:get(engine, Options, memory) =/= memory,
        history => #{},
        marks => [],
        snapshots => #{},
        subscriptions => #{},
        next => 1,
        kills => 0
    }.

-spec command(model()) -> proper_types:type().
command(#{streams := Streams} = Model) ->
    frequency(
        [{40, ?STREAMS:command(Streams)}, {60, frequency(calls(Model))}]
    ).

-spec calls(model()) -> [{pos_integer(), proper_types:type()}].
calls(#{next := Next, subscriptions := Subscriptions} = Model) ->
    Written = [{4, {call, ?STREAMS, append, [stream(), any, batch(), #{}]}}],
    Snapshots = [
        {4, {call, ?MODULE, save, [stream(), version(), nat()]}},
        {2, {call, ?MODULE, load, [stream()]}},
        {1, {call, ?MODULE, load_at, [stream(), version()]}},
        {1, {call, ?MODULE, saved, [stream()]}},
        {1, {call, ?MODULE, forget, [stream()]}},
        {1, {call, ?MODULE, forget_at, [stream(), version()]}},
        {1, {call, ?MODULE, has, [stream()]}},
        {1, {call, ?MODULE, has_at, [stream(), version()]}}
    ],
    Removals = [
        {3, {call, ?MODULE, mark, [stream(), type()]}},
        {4, {call, ?MODULE, scavenge, [stream(), scavenge_options()]}},
        {1, {call, ?MODULE, verify, [stream()]}},
        {1, {call, ?MODULE, verify_all, []}}
    ],
    Subscribed = [
        {4, {call, ?MODULE, subscribe, [{Next, wanted()}, options()]}},
        {1, {call, ?MODULE, kill, [oneof([feed, checkpoints, subscriptions, manager, index])]}},
        {1, {call, ?MODULE, kill_engine, []}}
    ],
    Written ++ Snapshots ++ Removals ++ Subscribed ++ marked(Model) ++
        subscribers(maps:keys(Subscriptions)).

-spec marked(model()) -> [{pos_integer(), proper_types:type()}].
marked(Model) ->
    case visible_marks(Model) of
        [] ->
            [];
        Marks ->
            Mark = oneof(Marks),
            [
                {4, ?LET({S, P}, Mark, {call, ?MODULE, scavenge_until, [S, P, keeping()]})},
                {2, ?LET({S, P}, Mark, {call, ?MODULE, until, [S, P]})}
            ]
    end.

-spec subscribers([id()]) -> [{pos_integer(), proper_types:type()}].
subscribers([]) ->
    [];
subscribers(Ids) ->
    [
        {1, {call, ?MODULE, unsubscribe, [oneof(Ids)]}},
        {3, {call, ?MODULE, attach, [oneof(Ids)]}},
        {5, {call, ?MODULE, crash, [oneof(Ids), range(0, 5)]}},
        {6, {call, ?MODULE, drain, [oneof(Ids)]}},
        {1, {call, ?MODULE, kill, [{subscription, oneof(Ids)}]}}
    ].

stream() -> oneof([<<"a-1">>, <<"a-2">>, <<"b">>]).

type() -> oneof([<<"X">>, <<"Y">>, <<"Z">>]).

batch() -> resize(6, list({type(), {nat(), none, []}})).

version() -> frequency([{4, range(0, 8)}, {1, range(0, 400)}]).

wanted() ->
    frequency([
        {3, {stream, <<"$all">>}},
        {2, {stream, stream()}},
        {1, {event_type, type()}},
        {1, {event_pattern, <<"a-*">>}}
    ]).

options() ->
    ?LET(
        {From, Ack, Batch, Window, Pool, Taker},
        {
            oneof([0, latest, range(0, 20)]),
            oneof([auto, manual]),
            range(1, 4),
            oneof([20, 1000]),
            frequency([{3, 1}, {1, 2}]),
            oneof([named, caller, member])
        },
        #{
            start_from => From,
            ack => Ack,
            batch => Batch,
            window => Window,
            pool_size => Pool,
            taker => Taker
        }
    ).

scavenge_options() ->
    ?LET(
        {Before, Kept, Keys},
        {version(), keeping(), list(oneof([before_version, dry_run]))},
        maps:merge(Kept, maps:with(Keys, #{before_version => Before, dry_run => true}))
    ).

keeping() ->
    ?LET(
        {Keep, Keys},
        {range(0, 5), list(oneof([keep_versions, require_snapshot]))},
        maps:with(Keys, #{keep_versions => Keep, require_snapshot => false})
    ).

-spec precondition(model(), term()) -> boolean().
precondition(#{streams := Streams}, {call, ?STREAMS, _, _} = Call) ->
    ?STREAMS:precondition(Streams, Call);
%% Of what is not there nothing can be proved.
precondition(#{signs := true} = Model, {call, _, save, [Stream, Version, _]}) ->
    lists:any(fun({_, S, V, _, _}) -> {S, V} =:= {Stream, Version} end, kept(Model));
precondition(Model, {call, _, Name, [Stream, Position | _]}) when
    Name =:= scavenge_until; Name =:= until
->
    lists:member({Stream, Position}, visible_marks(Model));
precondition(#{next := Next}, {call, _, subscribe, [{Id, _}, _]}) ->
    Id >= Next;
precondition(#{kills := Kills}, {call, _, kill_engine, _}) ->
    Kills < ?KILLS;
precondition(#{kills := Kills} = Model, {call, _, kill, [What]}) ->
    Kills < ?KILLS andalso is_there(What, Model);
precondition(#{subscriptions := Subscriptions}, {call, _, Name, [Id | _]}) when
    Name =:= unsubscribe; Name =:= attach; Name =:= crash; Name =:= drain
->
    is_map_key(Id, Subscriptions);
precondition(_Model, _Call) ->
    true.

-spec is_there(term(), model()) -> boolean().
is_there({subscription, Id}, #{subscriptions := Subscriptions}) -> is_map_key(Id, Subscriptions);
is_there(_, _Model) -> true.

-spec next_state(model(), term(), term()) -> model().
next_state(Model, Result, {call, ?STREAMS, _, _} = Call) ->
    changed(Result, Call, Model);
next_state(#{streams := Streams, marks := Marks} = Model, Result, {call, _, mark, [S, Type]}) ->
    Append = {call, ?STREAMS, append, [S, any, [{Type, {0, none, []}}], #{}]},
    changed(Result, Append, Model#{marks := [maps:get(position, Streams) | Marks]});
next_state(Model, Result, {call, _, Name, [Stream | _] = Args}) when
    Name =:= scavenge; Name =:= scavenge_until
->
    case removal(Name, Args, Model) of
        {ok, {_, Before}, false} ->
            changed(Result, {call, ?STREAMS, truncate, [Stream, Before]}, Model);
        _ ->
            Model
    end;
next_state(#{snapshots := All} = Model, _Result, {call, _, save, [Stream, Version, Data]}) ->
    Snapshots = maps:get(Stream, All, #{}),
    Model#{snapshots := All#{Stream => Snapshots#{Version => Data}}};
next_state(#{snapshots := All} = Model, _Result, {call, _, forget, [Stream]}) ->
    Model#{snapshots := maps:remove(Stream, All)};
next_state(#{snapshots := All} = Model, _Result, {call, _, forget_at, [Stream, Version]}) ->
    case maps:remove(Version, maps:get(Stream, All, #{})) of
        Left when Left =:= #{} -> Model#{snapshots := maps:remove(Stream, All)};
        Left -> Model#{snapshots := All#{Stream => Left}}
    end;
next_state(Model, _Result, {call, _, subscribe, [{Id, Wanted}, #{start_from := From}]}) ->
    #{subscriptions := Subscriptions} = Model,
    Start = start(Wanted, From, Model),
    Subscription = #{wanted => Wanted, start => Start, due => [], kills => 0},
    Due = due([P || {P, _, _, _, _} <- log(Model)], log(Model), Subscription),
    Model#{
        subscriptions := Subscriptions#{Id => Subscription#{due := Due}},
        next := Id + 1
    };
next_state(#{subscriptions := All} = Model, _Result, {call, _, unsubscribe, [Id]}) ->
    Model#{subscriptions := maps:remove(Id, All)};
next_state(#{durable := false} = Model, _Result, {call, _, kill_engine, _}) ->
    #{signs := Signs, next := Next, kills := Kills} = Model,
    (initial_state())#{signs := Signs, next := Next, kills := Kills + 1};
next_state(#{kills := Kills, subscriptions := All} = Model, _Result, {call, _, Kill, _}) when
    Kill =:= kill; Kill =:= kill_engine
->
    Killed = #{Id => S#{kills := N + 1} || Id := #{kills := N} = S <- All},
    Model#{kills := Kills + 1, subscriptions := Killed};
next_state(Model, _Result, _Call) ->
    Model.

%% What a call does to the streams, and to what is due of them.
-spec changed(term(), term(), model()) -> model().
changed(Result, Call, #{streams := Before, history := History, subscriptions := All} = Model) ->
    From = maps:get(position, Before),
    Model1 = Model#{streams := ?STREAMS:next_state(Before, Result, Call)},
    New = #{P => Place || {P, _, _, _, _} = Place <- kept(Model1), P >= From},
    Log = log(Model1),
    Subscriptions = #{
        Id => S#{due := due(Due ++ maps:keys(New), Log, S)}
     || Id := #{due := Due} = S <- All
    },
    Model1#{history := maps:merge(History, New), subscriptions := Subscriptions}.

%% Of these positions those that are selected and to be seen.
-spec due([non_neg_integer()], [tuple()], awaited()) -> ordsets:ordset(non_neg_integer()).
due(Positions, Log, #{wanted := Wanted, start := Start}) ->
    Visible = [P || {P, _, _, _, _} = Place <- Log, P >= Start, selects(Wanted, Place)],
    ordsets:intersection(ordsets:from_list(Positions), Visible).

%% A version of the stream, where it is one that is meant; what is beyond the end begins there.
-spec start(wanted(), non_neg_integer() | latest, model()) -> non_neg_integer().
start(_Wanted, 0, _Model) ->
    0;
start(_Wanted, latest, #{streams := #{position := End}}) ->
    End;
start({stream, Stream}, From, #{streams := #{position := End}} = Model) when
    Stream =/= <<"$all">>
->
    hd([P || {P, S, V, _, _} <- log(Model), S =:= Stream, V >= From] ++ [End]);
start(_Wanted, From, #{streams := #{position := End}}) ->
    min(From, End).

-spec kept(model()) -> [tuple()].
kept(#{streams := Streams}) -> ?STREAMS:kept(Streams).

-spec log(model()) -> [tuple()].
log(#{streams := Streams}) -> ?STREAMS:log(Streams).

-spec visible_marks(model()) -> [{binary(), non_neg_integer()}].
visible_marks(#{marks := Marks} = Model) ->
    [{S, P} || {P, S, _, _, _} <- log(Model), lists:member(P, Marks)].

%% Versions from the first to before the second, and whether it is only asked; or why not.
-spec removal(atom(), [term()], model()) ->
    {ok, {non_neg_integer(), non_neg_integer()}, boolean()} | {error, term()}.
removal(scavenge, [Stream, Options], Model) ->
    removal(Stream, maps:get(before_version, Options, 0), Options, Model);
removal(scavenge_until, [Stream, Position, Options], Model) ->
    [Version] = [V || {P, _, V, _, _} <- log(Model), P =:= Position],
    removal(Stream, Version, Options, Model).

-spec removal(binary(), non_neg_integer(), map(), model()) ->
    {ok, {non_neg_integer(), non_neg_integer()}, boolean()} | {error, term()}.
removal(Stream, Cut, Options, #{snapshots := Snapshots} = Model) ->
    #{streams := #{streams := Streams}} = Model,
    Required = maps:get(require_snapshot, Options, true),
    case Streams of
        #{} when Required, not is_map_key(Stream, Snapshots) ->
            {error, {no_snapshot, Stream}};
        #{Stream := {Next, _, Kept}} ->
            Hidden = Next - length([P || {P, S, _, _, _} <- log(Model), S =:= Stream]),
            First = Next - length(Kept),
            Most = Next - maps:get(keep_versions, Options, 0),
            Before = max(First, min(max(Cut, Hidden), Most)),
            {ok, {First, Before}, maps:get(dry_run, Options, false)};
        #{} ->
            {error, {stream_not_found, Stream}}
    end.

-spec postcondition(model(), term(), term()) -> boolean().
postcondition(#{streams := Streams}, {call, ?STREAMS, _, _} = Call, Result) ->
    ?STREAMS:postcondition(Streams, Call, Result);
postcondition(#{streams := Streams}, {call, _, mark, [Stream, Type]}, Result) ->
    Append = {call, ?STREAMS, append, [Stream, any, [{Type, {0, none, []}}], #{}]},
    ?STREAMS:postcondition(Streams, Append, Result);
postcondition(Model, {call, _, drain, [Id]}, ok) ->
    is_drained(Id, Model);
postcondition(Model, {call, _, Name, Args}, Result) ->
    Result =:= answer(Name, Args, Model).

-spec answer(atom(), [term()], model()) -> term().
answer(Name, [Stream | _] = Args, Model) when Name =:= scavenge; Name =:= scavenge_until ->
    case removal(Name, Args, Model) of
        {ok, Span, Dry} -> {ok, maps:merge(removed(Stream, Span), #{dry_run => true || Dry})};
        Error -> Error
    end;
answer(until, [Stream, Position], Model) ->
    {ok, [Place || {P, S, _, _, _} = Place <- log(Model), S =:= Stream, P < Position]};
answer(verify, _, #{signs := false}) ->
    {error, integrity_disabled};
answer(verify, [Stream], #{streams := #{streams := Streams}}) ->
    case Streams of
        #{Stream := {Next, _, Kept}} -> {ok, report(Stream, Next, length(Kept))};
        #{} -> {error, {stream_not_found, Stream}}
    end;
answer(verify_all, [], #{signs := false}) ->
    {error, integrity_disabled};
answer(verify_all, [], #{streams := #{streams := Streams}} = Model) ->
    Count = length(kept(Model)),
    {ok, #{streams => map_size(Streams), events => Count, signed => Count}};
answer(load, [Stream], Model) ->
    case snapshots(Stream, Model) of
        [] -> {error, not_found};
        Snapshots -> {ok, lists:last(Snapshots)}
    end;
answer(load_at, [Stream, Version], Model) ->
    case lists:keyfind(Version, 1, snapshots(Stream, Model)) of
        false -> {error, not_found};
        Snapshot -> {ok, Snapshot}
    end;
answer(saved, [Stream], Model) ->
    {ok, snapshots(Stream, Model)};
answer(has, [Stream], Model) ->
    snapshots(Stream, Model) =/= [];
answer(has_at, [Stream, Version], Model) ->
    lists:keymember(Version, 1, snapshots(Stream, Model));
%% All others do what they are asked for.
answer(_Name, _Args, _Model) ->
    ok.

-spec snapshots(binary(), model()) -> [{non_neg_integer(), term()}].
snapshots(Stream, #{snapshots := All}) -> lists:sort(maps:to_list(maps:get(Stream, All, #{}))).

-spec removed(binary(), {non_neg_integer(), non_neg_integer()}) -> map().
removed(Stream, {From, Before}) ->
    Versions =
        case From of
            Before -> {0, 0};
            _ -> {From, Before - 1}
        end,
    #{
        stream_id => Stream,
        deleted_count => Before - From,
        deleted_versions => Versions,
        archived => false
    }.

-spec report(binary(), non_neg_integer(), non_neg_integer()) -> map().
report(Stream, Next, Count) ->
    #{
        stream_id => Stream,
        first => Next - Count,
        last => Next - 1,
        events => Count,
        signed => Count
    }.
