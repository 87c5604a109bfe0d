-module(erl_esdb_competing).
-moduledoc """
Consumers that share the events of a subscription: who has which event, which wait, and for what.
Pure.

```erlang
1> S0 = erl_esdb_competing:connect(Consumer, 10, erl_esdb_competing:new(#{})).
2> {[{Consumer, E0}], S1} = erl_esdb_competing:dispatch(erl_esdb_competing:add([E0, E1], S0)).
3> {ok, E0, S2} = erl_esdb_competing:done(Consumer, E0#event.position, S1).
4> {[{Consumer, E1}], S3} = erl_esdb_competing:dispatch(S2).
```

The events of a stream stand in a lane. Only the first one of a lane goes out, and the next one not
before it is done or parked: so the order of a stream holds, also through retries, and other lanes
go on. A lane holds a bounded number of events; of more it knows where they begin, and asks for them
again (`refills/1`) when it is empty.

No call costs more where more streams, events or consumers are out, but `floor/2` and `info/1`,
which look at each lane, and `disconnect/2`.
""".

-export([new/1, connect/3, disconnect/2, consumers/1, add/2, replay/2, dispatch/1]).
-export([done/3, retry/3, due/2, find/3, refills/1, refill/4, floor/2, room/1, info/1]).
-export_type([state/0, options/0, ref/0, due/0]).

-include("erl_esdb.hrl").

%% Events of one stream that are held.
-define(LANE, 50).
-define(MAX_QUEUE, 10_000).
-define(DELAYS, [100, 1000, 10_000]).
-define(MAX_RETRIES, 10).

-type options() :: #{
    max_queue => pos_integer(), max_retries => non_neg_integer(), retry_delays => [pos_integer()],
    _ => _
}.
-doc "What names an event: its position, its id, or itself.".
-type ref() :: non_neg_integer() | binary() | event().
-doc "An event that is to go out again.".
-type due() :: {Stream :: binary(), Position :: non_neg_integer()}.

-record(entry, {
    event :: event(),
    %% how often it went out and came back
    attempts = 0 :: non_neg_integer(),
    %% whether it was parked before: it stands there until it is done, so no place depends on it
    replay = false :: boolean()
}).

-record(lane, {
    %% what the first entry does; `empty': it is asked for what is held nowhere
    head = ready :: ready | out | waits | empty,
    entries = queue:new() :: queue:queue(#entry{}),
    size = 0 :: non_neg_integer(),
    %% their positions
    held = #{} :: #{non_neg_integer() => []},
    %% position of the first event that is not held
    more :: non_neg_integer() | undefined
}).

-record(competing, {
    max_queue :: pos_integer(),
    max_retries :: non_neg_integer(),
    delays :: [pos_integer()],
    lanes = #{} :: #{binary() => #lane{}},
    %% entries held
    size = 0 :: non_neg_integer(),
    %% lanes whose first entry may go out
    ready = queue:new() :: queue:queue(binary()),
    %% what is out, by position, and the positions by who has it and the id; two streams may have
    %% events of one id
    out = #{} :: #{non_neg_integer() => {pid(), binary()}},
    ids = #{} :: #{{pid(), binary()} => [non_neg_integer(), ...]},
    consumers = #{} :: #{pid() => {Max :: pos_integer(), Out :: non_neg_integer()}},
    %% who can take more, and how much
    rooms = gb_sets:new() :: gb_sets:set({pos_integer(), pid()}),
    empty = [] :: [{binary(), non_neg_integer()}]
}).

-opaque state() :: #competing{}.

-doc """
Without consumers and events. Options: `max_queue` (10,000: events held, after which reading waits),
`max_retries` (10), `retry_delays` in milliseconds (`[100, 1000, 10000]`, the last one for all
further retries).
""".
-spec new(options()) -> state().
new(Options) ->
    #competing{
        max_queue = maps:get(max_queue, Options, ?MAX_QUEUE),
        max_retries = maps:get(max_retries, Options, ?MAX_RETRIES),
        delays = maps:get(retry_delays, Options, ?DELAYS)
    }.

-doc "A consumer that takes at most so many events at a time.".
-spec connect(pid(), pos_integer(), state()) -> state().
connect(Pid, Max, #competing{consumers = Consumers} = State) ->
    {_, Out} = maps:get(Pid, Consumers, {Max, 0}),
    has(Pid, {Max, Out}, State).

-spec has(pid(), {pos_integer(), non_neg_integer()}, state()) -> state().
has(Pid, {Max, Out} = Count, State) ->
    #competing{consumers = Consumers, rooms = Rooms} = State1 = without(Pid, State),
    State1#competing{
        consumers = Consumers#{Pid => Count}, rooms = with_room(Max - Out, Pid, Rooms)
    }.

-spec with_room(integer(), pid(), Rooms) -> Rooms when Rooms :: gb_sets:set({pos_integer(), pid()}).
with_room(Room, Pid, Rooms) when Room > 0 -> gb_sets:add_element({Room, Pid}, Rooms);
with_room(_Room, _Pid, Rooms) -> Rooms.

-spec without(pid(), state()) -> state().
without(Pid, #competing{consumers = Consumers, rooms = Rooms} = State) ->
    case maps:take(Pid, Consumers) of
        {{Max, Out}, Others} ->
            Rooms1 = gb_sets:del_element({Max - Out, Pid}, Rooms),
            State#competing{consumers = Others, rooms = Rooms1};
        error ->
            State
    end.

-doc """
A consumer that is gone. What it had goes out again, to another; the events that are to be parked
because that was their last attempt are answered.
""".
-spec disconnect(pid(), state()) -> {Park :: [event()], state()}.
disconnect(Pid, #competing{out = Out} = State) ->
    Had = lists:sort([Position || Position := {P, _} <- Out, P =:= Pid]),
    {Park, State1} = lists:mapfoldl(fun(At, S) -> returned(Pid, At, S) end, State, Had),
    {lists:append(Park), without(Pid, State1)}.

-spec returned(pid(), non_neg_integer(), state()) -> {[event()], state()}.
returned(Pid, Position, State) ->
    case retry(Pid, Position, State) of
        {retry, Due, _Delay, State1} -> {[], due(Due, State1)};
        {park, Event, State1} -> {[Event], State1}
    end.

-doc "Who is connected.".
-spec consumers(state()) -> [pid()].
consumers(#competing{consumers = Consumers}) -> maps:keys(Consumers).

-doc "Takes in events, each after those of its stream.".
-spec add([event()], state()) -> state().
add(Events, State) -> lists:foldl(fun(E, S) -> added(#entry{event = E}, S) end, State, Events).

-spec added(#entry{}, state()) -> state().
added(#entry{event = #event{stream_id = Stream} = Event} = Entry, State) ->
    #competing{lanes = Lanes, ready = Ready, size = Size} = State,
    case Lanes of
        #{Stream := #lane{more = More}} when is_integer(More) ->
            State;
        #{Stream := #lane{size = Held} = Lane} when Held >= ?LANE ->
            Lane1 = Lane#lane{more = Event#event.position},
            State#competing{lanes = Lanes#{Stream := Lane1}};
        #{Stream := Lane} ->
            State#competing{lanes = Lanes#{Stream := longer(Entry, Lane)}, size = Size + 1};
        #{} ->
            Lane = longer(Entry, #lane{}),
            Ready1 = queue:in(Stream, Ready),
            State#competing{lanes = Lanes#{Stream => Lane}, ready = Ready1, size = Size + 1}
    end.

-spec longer(#entry{}, #lane{}) -> #lane{}.
longer(#entry{event = #event{position = Position}} = Entry, Lane) ->
    #lane{entries = Entries, size = Size, held = Held} = Lane,
    Lane#lane{entries = queue:in(Entry, Entries), size = Size + 1, held = Held#{Position => []}}.

-spec shorter(#lane{}) -> #lane{}.
shorter(#lane{entries = Entries, size = Size, held = Held} = Lane) ->
    {{value, #entry{event = #event{position = Position}}}, Entries1} = queue:out(Entries),
    Lane#lane{entries = Entries1, size = Size - 1, held = maps:remove(Position, Held)}.

-doc """
Takes in an event that was parked: it goes out after what its stream holds. Answers whether it will;
it does not where more of its stream has to be read before.
""".
-spec replay(event(), state()) -> {boolean(), state()}.
replay(#event{stream_id = Stream, position = Position} = Event, State) ->
    #competing{lanes = Lanes, size = Size} = State,
    Entry = #entry{event = Event, replay = true},
    case Lanes of
        #{Stream := #lane{head = empty}} ->
            {false, State};
        #{Stream := #lane{held = #{Position := _}}} ->
            {true, State};
        #{Stream := Lane} ->
            Lanes1 = Lanes#{Stream := longer(Entry, Lane)},
            {true, State#competing{lanes = Lanes1, size = Size + 1}};
        #{} ->
            {true, added(Entry, State)}
    end.

-doc "The events that go out now, and to whom: to who has the most room.".
-spec dispatch(state()) -> {[{pid(), event()}], state()}.
dispatch(State) -> dispatch(State, []).

-spec dispatch(state(), [{pid(), event()}]) -> {[{pid(), event()}], state()}.
dispatch(#competing{ready = Ready, rooms = Rooms} = State, Sent) ->
    case {queue:out(Ready), gb_sets:is_empty(Rooms)} of
        {{{value, Stream}, Ready1}, false} ->
            {_, Pid} = gb_sets:largest(Rooms),
            {Event, State1} = sent(Stream, Pid, State#competing{ready = Ready1}),
            dispatch(State1, [{Pid, Event} | Sent]);
        _ ->
            {lists:reverse(Sent), State}
    end.

-spec sent(binary(), pid(), state()) -> {event(), state()}.
sent(Stream, Pid, #competing{lanes = Lanes, out = Out, ids = Ids} = State) ->
    #{Stream := #lane{entries = Entries} = Lane} = Lanes,
    #entry{event = #event{position = Position, event_id = Id} = Event} = queue:get(Entries),
    Same = maps:get({Pid, Id}, Ids, []),
    State1 = State#competing{
        lanes = Lanes#{Stream := Lane#lane{head = out}},
        out = Out#{Position => {Pid, Stream}},
        ids = Ids#{{Pid, Id} => [Position | Same]}
    },
    {Event, counted(Pid, 1, State1)}.

-spec counted(pid(), 1 | -1, state()) -> state().
counted(Pid, More, #competing{consumers = Consumers} = State) ->
    #{Pid := {Max, Out}} = Consumers,
    has(Pid, {Max, Out + More}, State).

-doc "The position of an event that a consumer has.".
-spec find(pid(), ref(), state()) -> {ok, Position :: non_neg_integer()} | error.
find(Pid, #event{position = Position}, State) when is_integer(Position) ->
    find(Pid, Position, State);
find(Pid, Position, #competing{out = Out}) when is_integer(Position) ->
    case Out of
        #{Position := {Pid, _}} -> {ok, Position};
        #{} -> error
    end;
find(Pid, Id, #competing{ids = Ids}) ->
    case Ids of
        #{{Pid, Id} := [Position | _]} -> {ok, Position};
        #{} -> error
    end.

-spec head(binary(), #{binary() => #lane{}}) -> #entry{}.
head(Stream, Lanes) ->
    #{Stream := #lane{entries = Entries}} = Lanes,
    queue:get(Entries).

-doc "An event that a consumer has is done, or given up; the next one of its stream may go out.".
-spec done(pid(), Position :: non_neg_integer(), state()) -> {ok, event(), state()}.
done(Pid, Position, State) ->
    {Stream, State1} = back(Pid, Position, State),
    #competing{lanes = Lanes} = State1,
    #entry{event = Event} = head(Stream, Lanes),
    {ok, Event, next(Stream, State1)}.

-spec back(pid(), non_neg_integer(), state()) -> {binary(), state()}.
back(Pid, Position, #competing{out = Out, ids = Ids, lanes = Lanes} = State) ->
    {{Pid, Stream}, Out1} = maps:take(Position, Out),
    #entry{event = #event{event_id = Id}} = head(Stream, Lanes),
    State1 = State#competing{out = Out1, ids = without(Position, {Pid, Id}, Ids)},
    {Stream, counted(Pid, -1, State1)}.

-spec without(non_neg_integer(), Key, Ids) -> Ids when
    Key :: {pid(), binary()}, Ids :: #{Key => [non_neg_integer(), ...]}.
without(Position, Key, Ids) ->
    case map_get(Key, Ids) of
        [Position] -> maps:remove(Key, Ids);
        Positions -> Ids#{Key := lists:delete(Position, Positions)}
    end.

-spec next(binary(), state()) -> state().
next(Stream, #competing{lanes = Lanes, ready = Ready, size = Size, empty = Empty} = State) ->
    #{Stream := #lane{more = More} = Lane} = Lanes,
    Lane1 = shorter(Lane),
    State1 = State#competing{size = Size - 1},
    case Lane1 of
        #lane{size = 0, more = undefined} ->
            State1#competing{lanes = maps:remove(Stream, Lanes)};
        #lane{size = 0} ->
            Lanes1 = Lanes#{Stream := Lane1#lane{head = empty}},
            State1#competing{lanes = Lanes1, empty = [{Stream, More} | Empty]};
        #lane{} ->
            Lanes1 = Lanes#{Stream := Lane1#lane{head = ready}},
            State1#competing{lanes = Lanes1, ready = queue:in(Stream, Ready)}
    end.

-doc """
An event that a consumer has is to go out again, after so many milliseconds (then `due/2` is to be
called); or it has done so often enough and is to be parked.
""".
-spec retry(pid(), Position :: non_neg_integer(), state()) ->
    {retry, due(), Delay :: pos_integer(), state()} | {park, event(), state()}.
retry(Pid, Position, #competing{max_retries = Max, delays = Delays} = State) ->
    {Stream, State1} = back(Pid, Position, State),
    #competing{lanes = Lanes} = State1,
    #{Stream := #lane{entries = Entries} = Lane} = Lanes,
    case queue:get(Entries) of
        #entry{attempts = Max, event = Event} ->
            {park, Event, next(Stream, State1)};
        #entry{attempts = Attempts} = Entry ->
            Entries1 = queue:in_r(Entry#entry{attempts = Attempts + 1}, queue:drop(Entries)),
            Lane1 = Lane#lane{head = waits, entries = Entries1},
            Delay = lists:nth(min(Attempts + 1, length(Delays)), Delays),
            {retry, {Stream, Position}, Delay, State1#competing{lanes = Lanes#{Stream := Lane1}}}
    end.

-doc "The time of an event has come that was to go out again.".
-spec due(due(), state()) -> state().
due({Stream, Position}, #competing{lanes = Lanes, ready = Ready} = State) ->
    maybe
        #{Stream := #lane{head = waits} = Lane} ?= Lanes,
        #entry{event = #event{position = Position}} ?= head(Stream, Lanes),
        Lanes1 = Lanes#{Stream := Lane#lane{head = ready}},
        State#competing{lanes = Lanes1, ready = queue:in_r(Stream, Ready)}
    else
        _ -> State
    end.

-doc "The streams whose lanes are empty, and from which position on there is more.".
-spec refills(state()) -> {[{Stream :: binary(), Position :: non_neg_integer()}], state()}.
refills(#competing{empty = Empty} = State) -> {Empty, State#competing{empty = []}}.

-doc "What was found for a lane, and the position from which on there may be more.".
-spec refill(Stream :: binary(), [event()], More :: non_neg_integer() | undefined, state()) ->
    state().
refill(Stream, Events, More, #competing{lanes = Lanes} = State) ->
    State1 = add(Events, State#competing{lanes = maps:remove(Stream, Lanes)}),
    case {More, State1} of
        {undefined, _} ->
            State1;
        {_, #competing{lanes = #{Stream := Lane} = Lanes1}} ->
            State1#competing{lanes = Lanes1#{Stream := Lane#lane{more = More}}};
        {_, #competing{lanes = Lanes1, empty = Empty}} ->
            Lane = #lane{head = empty, more = More},
            State1#competing{lanes = Lanes1#{Stream => Lane}, empty = [{Stream, More} | Empty]}
    end.

-doc "The position to go on from when all this is lost, where reading has come to `Next`.".
-spec floor(Next :: non_neg_integer(), state()) -> non_neg_integer().
floor(Next, #competing{lanes = Lanes}) ->
    lists:min([Next | [Position || _ := Lane <- Lanes, Position <- first(Lane)]]).

-spec first(#lane{}) -> [non_neg_integer()].
first(#lane{entries = Entries, more = More}) ->
    case queue:peek(Entries) of
        {value, #entry{event = #event{position = Position}, replay = false}} -> [Position];
        _ -> first_unparked(queue:to_list(Entries), More)
    end.

-spec first_unparked([#entry{}], non_neg_integer() | undefined) -> [non_neg_integer()].
first_unparked(Entries, More) ->
    case [E#event.position || #entry{event = E, replay = false} <- Entries] of
        [Position | _] -> [Position];
        [] -> [More || is_integer(More)]
    end.

-doc "How many events may be read.".
-spec room(state()) -> non_neg_integer().
room(#competing{max_queue = Max, size = Size}) -> max(0, Max - Size).

-doc "What `erl_esdb_subscriptions:info/2` tells of it.".
-spec info(state()) -> map().
info(#competing{size = Size, out = Out, consumers = Consumers, lanes = Lanes}) ->
    #{
        held => Size,
        out => map_size(Out),
        streams => map_size(Lanes),
        consumers => #{Pid => Count || Pid := {_, Count} <- Consumers}
    }.
