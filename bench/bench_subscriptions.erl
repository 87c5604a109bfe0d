-module(bench_subscriptions).
-moduledoc """
Events on their way to subscribers: to 1, 10, 100 and 1,000 of them, in stores that begin with 1e3,
1e5 and 1e6 events, against the least that sends a list of terms to as many processes: a
`gen_server` that knows them by a group of `m:pg`. That one keeps nothing, waits for nobody, and
forgets what it sent, so a ratio below 1 is what delivery after a commit, in order, from any place
of the past on, costs.

A call hands over ten events, and returns when each subscriber has said that it has all of them;
that they came in order it has looked at before. Latencies are those from before the append to the
moment at which a subscriber has the event, one event at a time.
""".

-behaviour(gen_server).

-export([run/0]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(SIZES, [1_000, 100_000, 1_000_000]).
-define(SUBSCRIBERS, [1, 10, 100, 1_000]).
-define(STREAM, <<"bench">>).
-define(BATCH, 10).
-define(PAGE, 1_000).

-spec run() -> ok.
run() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    {ok, _} = pg:start_link(?MODULE),
    lists:foreach(fun sized/1, ?SIZES).

-spec sized(pos_integer()) -> ok.
sized(Size) ->
    {ok, _} = erl_esdb:start_store(?MODULE),
    ok = fill(0, Size),
    Title = "Subscriptions, ~b events: ten more to each subscriber (one call)",
    esdb_bench:title(lists:flatten(io_lib:format(Title, [Size]))),
    lists:foreach(fun(Count) -> fan_out(Size, Count) end, ?SUBSCRIBERS),
    catch_up(Size),
    ok = erl_esdb:stop_store(?MODULE).

-spec fill(non_neg_integer(), pos_integer()) -> ok.
fill(Size, Size) ->
    ok;
fill(From, Size) ->
    {ok, _} = erl_esdb_streams:append(?MODULE, ?STREAM, From - 1, events(1_000)),
    fill(From + 1_000, Size).

-spec events(pos_integer()) -> [map()].
events(Count) ->
    [
        #{event_type => <<"Counted">>, data => #{n => N, note => binary:copy(<<"n">>, 150)}}
     || N <- lists:seq(1, Count)
    ].

%% ---- to all of them

-spec fan_out(pos_integer(), pos_integer()) -> ok.
fan_out(Size, Count) ->
    Ours = [started(fun subscribed/1) || _ <- lists:seq(1, Count)],
    Rivals = [started(fun(_) -> ok = pg:join(?MODULE, all, self()) end) || _ <- Ours],
    {ok, Server} = gen_server:start_link(?MODULE, [], []),
    Events = events(?BATCH),
    Append = fun() ->
        {ok, _} = erl_esdb_streams:append(?MODULE, ?STREAM, any, Events),
        everyone(?BATCH, Ours)
    end,
    Publish = fun() ->
        ok = gen_server:call(Server, {publish, Events}),
        everyone(?BATCH, Rivals)
    end,
    What = lists:flatten(io_lib:format("~b subscribers", [Count])),
    _ = esdb_bench:compare(What, #{
        ours => {"append", fun() -> to(Ours, Append) end},
        rival => {"gen_server, pg", fun() -> to(Rivals, Publish) end}
    }),
    latencies(Size, Count, Ours),
    lists:foreach(fun ended/1, Ours ++ Rivals),
    ok = gen_server:stop(Server),
    {ok, All} = erl_esdb_subscriptions:list(?MODULE),
    Keys = [element(2, Subscription) || Subscription <- All],
    lists:foreach(fun(Key) -> ok = erl_esdb_subscriptions:unsubscribe(?MODULE, Key) end, Keys).

-spec started(fun((binary()) -> term())) -> pid().
started(Begin) ->
    Self = self(),
    Name = integer_to_binary(erlang:unique_integer([positive])),
    Pid = spawn_link(fun() ->
        _ = Begin(Name),
        Self ! {ready, self()},
        subscriber(0, Self, -1, [])
    end),
    receive {ready, Pid} -> Pid end.

-spec subscribed(binary()) -> ok.
subscribed(Name) ->
    Options = #{subscriber => self(), batch => ?BATCH, start_from => latest},
    {ok, _} = erl_esdb_subscriptions:subscribe(?MODULE, stream, <<"$all">>, Name, Options),
    ok.

%% Says how many it has when they are as many as were asked for.
-spec subscriber(non_neg_integer(), pid(), integer(), [integer()]) -> no_return().
subscriber(Count, Report, Last, Latencies) ->
    receive
        {to, Pid} ->
            subscriber(Count, Pid, Last, Latencies);
        {wanted, Count} ->
            Report ! {has, self()},
            subscriber(0, Report, Last, Latencies);
        latencies ->
            Report ! {latencies, self(), Latencies},
            subscriber(Count, Report, Last, []);
        {events, Events} ->
            Now = erlang:monotonic_time(microsecond),
            Latencies1 = since(Events, Now) ++ Latencies,
            subscriber(Count + length(Events), Report, in_order(Events, Last), Latencies1)
    end.

-spec in_order([tuple() | map()], integer()) -> integer().
in_order([Event | Events], Last) when is_tuple(Event) ->
    Position = element(13, Event),
    true = Last =:= -1 orelse Position =:= Last + 1,
    in_order(Events, Position);
in_order(_, Last) ->
    Last.

-spec since([tuple() | map()], integer()) -> [integer()].
since(Events, Now) -> [Now - Begin || Event <- Events, #{sent := Begin} <- [data(Event)]].

-spec data(tuple() | map()) -> map().
data(#{data := Data}) -> Data;
data(Event) -> element(6, Event).

%% Each benchmarked call has a process of its own.
-spec to([pid()], fun(() -> Result)) -> Result.
to(Pids, Fun) ->
    lists:foreach(fun(Pid) -> Pid ! {to, self()} end, Pids),
    Fun().

-spec everyone(pos_integer(), [pid()]) -> ok.
everyone(Count, Pids) ->
    lists:foreach(fun(Pid) -> Pid ! {wanted, Count} end, Pids),
    lists:foreach(fun(Pid) -> receive {has, Pid} -> ok end end, Pids).

-spec ended(pid()) -> ok.
ended(Pid) ->
    true = unlink(Pid),
    Ref = monitor(process, Pid),
    exit(Pid, kill),
    receive {'DOWN', Ref, process, _, _} -> ok end.

-spec latencies(pos_integer(), pos_integer(), [pid()]) -> ok.
latencies(Size, Count, Pids) ->
    Appends = max(20, 2_000 div Count),
    to(Pids, fun() -> lists:foreach(fun(_) -> timed(Pids) end, lists:seq(1, Appends)) end),
    lists:foreach(fun(Pid) -> Pid ! latencies end, Pids),
    Found = lists:append([receive {latencies, Pid, L} -> L end || Pid <- Pids]),
    true = length(Found) =:= Appends * Count,
    Sorted = lists:sort(Found),
    esdb_bench:note("~b events, ~b subscribers: an event is there after ~b us (p50), ~b us (p99)", [
        Size, Count, percentile(50, Sorted), percentile(99, Sorted)
    ]).

-spec timed([pid()]) -> ok.
timed(Pids) ->
    Event = #{event_type => <<"Sent">>, data => #{sent => erlang:monotonic_time(microsecond)}},
    {ok, _} = erl_esdb_streams:append(?MODULE, ?STREAM, any, [Event]),
    everyone(1, Pids).

-spec percentile(pos_integer(), [integer(), ...]) -> integer().
percentile(Percent, Sorted) -> lists:nth(max(1, length(Sorted) * Percent div 100), Sorted).

%% ---- from the beginning

%% A subscriber that reads all there is, against a loop over pages of the log.
-spec catch_up(pos_integer()) -> ok.
catch_up(Size) ->
    {ok, End} = erl_esdb_store:next_position(?MODULE),
    {Us, End} = timer:tc(fun() -> caught_up(End) end),
    {LoopUs, End} = timer:tc(fun() -> looped(0, End) end),
    Rate = fun(Time) -> End * 1_000_000 div max(1, Time) end,
    esdb_bench:note(
        "~b events: a new subscriber has all of them at ~b events a second; "
        "a loop of reads of ~b: ~b events a second",
        [Size, Rate(Us), ?PAGE, Rate(LoopUs)]
    ).

-spec caught_up(pos_integer()) -> non_neg_integer().
caught_up(End) ->
    Options = #{subscriber => self(), batch => 100, start_from => 0},
    {ok, Key} = erl_esdb_subscriptions:subscribe(?MODULE, stream, <<"$all">>, <<"all">>, Options),
    Count = counted(0, End),
    ok = erl_esdb_subscriptions:unsubscribe(?MODULE, Key),
    Count.

-spec counted(non_neg_integer(), pos_integer()) -> non_neg_integer().
counted(End, End) ->
    End;
counted(Count, End) ->
    receive {events, [Event | _] = Events} ->
        Count = element(13, Event),
        counted(Count + length(Events), End)
    end.

-spec looped(non_neg_integer(), pos_integer()) -> non_neg_integer().
looped(End, End) ->
    End;
looped(From, End) ->
    {ok, Events} = erl_esdb_streams:read_log(?MODULE, From, ?PAGE, forward, #{}),
    looped(From + length(Events), End).

%% ---- the rival

-spec init([]) -> {ok, none}.
init([]) -> {ok, none}.

-spec handle_call({publish, [map()]}, gen_server:from(), none) -> {reply, ok, none}.
handle_call({publish, Events}, _From, State) ->
    lists:foreach(fun(Pid) -> Pid ! {events, Events} end, pg:get_members(?MODULE, all)),
    {reply, ok, State}.

-spec handle_cast(term(), none) -> {noreply, none}.
handle_cast(_, State) -> {noreply, State}.
