-module(erl_esdb_causation).
-moduledoc """
What led to an event, and what it led to.

An event names its cause in its metadata: `causation_id` is the id of the event that it follows
from, `correlation_id` is shared by all events of one undertaking. Both keys may be atoms or
binaries.

```erlang
1> Event = fun(Id, Metadata) ->
       #{event_id => Id, event_type => ~"Step", data => #{}, metadata => Metadata}
   end.
2> {ok, _} = erl_esdb:start_store(shop).
3> {ok, 1} = erl_esdb_streams:append(shop, ~"order-1", -1, [
       Event(~"placed", #{}), Event(~"paid", #{causation_id => ~"placed"})
   ]).
4> {ok, [Placed, Paid]} = erl_esdb_causation:get_chain(shop, ~"paid").
5> {ok, #{root := ~"placed", edges := [{~"placed", ~"paid"}]} = Graph} =
       erl_esdb_causation:build_graph(shop, ~"paid").
6> Dot = erl_esdb_causation:to_dot(Graph).
```

Nothing is searched: the indexes of the store (`m:erl_esdb_index`) say where to look, so the cost of
a question depends on its answer and hardly on the size of the store. Every event that was appended
before the call is seen. Copies in streams of links (`$link:...`) are left out. Where an id was
given twice, in different appends, the older event is meant. Causes that go in a circle end every
walk where it would begin again.

The last argument of every question may be options: `timeout` in milliseconds, also for what the
index still has to do before it can answer, and `consistency`. Other keys are ignored.

Each of the first four questions emits `[erl_esdb, causation, query]` when it was answered, with
`duration` and `event_count`, `store_id`, `id`, and as `query_type` its name: `causation_effects`,
`causation_cause`, `causation_chain` or `causation_correlated`.

## Errors

Every question may answer `{error, R}`, R as in `m:erl_esdb_index`: `{not_indexed, Kind}` where the
store was started without that index, `{corrupt_events, Stream, Version}`, and what says that the
store cannot be reached. An id that is no binary is `error(badarg)`.
""".

%% Questions
-export([get_effects/2, get_effects/3, get_cause/2, get_cause/3]).
-export([get_chain/2, get_chain/3, get_correlated/2, get_correlated/3]).
-export([build_graph/2, build_graph/3]).
%% Drawings
-export([to_dot/1, to_svg/1, to_svg/2]).
-export_type([graph/0, options/0]).

-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Events whose effects are looked up together.
-define(TOGETHER, 1000).

-doc """
`nodes` in the order of positions, each id once; `edges` from cause to effect, each once; `root` the
id of the event that all began with, `undefined` where there is none because causes go in a circle.
""".
-type graph() :: #{
    nodes := [event()],
    edges := [{Cause :: binary(), Effect :: binary()}],
    root := binary() | undefined
}.
-type options() :: erl_esdb_index:options().
-type reason() :: erl_esdb_index:reason().

-doc #{equiv => get_effects(Store, EventId, #{})}.
-spec get_effects(Store :: atom(), EventId :: binary()) -> {ok, [event()]} | {error, reason()}.
get_effects(Store, EventId) -> get_effects(Store, EventId, #{}).

-doc "The events that name this one as their cause, in the order of positions; `[]` for none.".
-spec get_effects(Store :: atom(), EventId :: binary(), options()) ->
    {ok, [event()]} | {error, reason()}.
get_effects(Store, EventId, Options) ->
    asked(causation_effects, Store, EventId, [causation], Options, fun(View) ->
        look(View, causation, [EventId])
    end).

-doc #{equiv => get_cause(Store, EventId, #{})}.
-spec get_cause(Store :: atom(), EventId :: binary()) ->
    {ok, event()} | {error, not_found | no_cause | reason()}.
get_cause(Store, EventId) -> get_cause(Store, EventId, #{}).

-doc """
The event that this one names as its cause.

## Errors

- `no_cause`: it names none
- `not_found`: there is no such event, or its cause is gone
""".
-spec get_cause(Store :: atom(), EventId :: binary(), options()) ->
    {ok, event()} | {error, not_found | no_cause | reason()}.
get_cause(Store, EventId, Options) ->
    asked(causation_cause, Store, EventId, [event_id], Options, fun(View) ->
        maybe
            {ok, Event} ?= find(View, EventId),
            cause(View, Event)
        end
    end).

-doc #{equiv => get_chain(Store, EventId, #{})}.
-spec get_chain(Store :: atom(), EventId :: binary()) ->
    {ok, [event(), ...]} | {error, not_found | reason()}.
get_chain(Store, EventId) -> get_chain(Store, EventId, #{}).

-doc """
The events that led to this one, from cause to cause: the first one first, this one last.

The first is an event without a cause, or whose cause is gone, or whose cause comes later in the
chain. `not_found`: there is no such event.
""".
-spec get_chain(Store :: atom(), EventId :: binary(), options()) ->
    {ok, [event(), ...]} | {error, not_found | reason()}.
get_chain(Store, EventId, Options) ->
    asked(causation_chain, Store, EventId, [event_id], Options, fun(View) ->
        chain(View, EventId)
    end).

-doc #{equiv => get_correlated(Store, CorrelationId, #{})}.
-spec get_correlated(Store :: atom(), CorrelationId :: binary()) ->
    {ok, [event()]} | {error, reason()}.
get_correlated(Store, CorrelationId) -> get_correlated(Store, CorrelationId, #{}).

-doc "The events with this correlation id, in the order of positions; `[]` for none.".
-spec get_correlated(Store :: atom(), CorrelationId :: binary(), options()) ->
    {ok, [event()]} | {error, reason()}.
get_correlated(Store, CorrelationId, Options) ->
    asked(causation_correlated, Store, CorrelationId, [correlation], Options, fun(View) ->
        look(View, correlation, [CorrelationId])
    end).

-doc #{equiv => build_graph(Store, Id, #{})}.
-spec build_graph(Store :: atom(), Id :: binary()) ->
    {ok, graph()} | {error, not_found | reason()}.
build_graph(Store, Id) -> build_graph(Store, Id, #{}).

-doc """
All that hangs together with an event or a correlation id.

With the id of an event: the first event of its chain, and all that this led to. With any other id:
the events with this correlation id, edges between these only, and as `root` the first of them that
none of them caused. `not_found`: neither is there.
""".
-spec build_graph(Store :: atom(), Id :: binary(), options()) ->
    {ok, graph()} | {error, not_found | reason()}.
build_graph(Store, Id, Options) when is_binary(Id) ->
    maybe
        {ok, View} ?= erl_esdb_index:view(Store, [event_id, causation, correlation], Options),
        case chain(View, Id) of
            {ok, [First | _]} -> descendants(View, First);
            {error, not_found} -> correlated(View, Id);
            {error, Reason} -> {error, Reason}
        end
    end;
build_graph(_, _, _) ->
    error(badarg).

-doc """
The graph as text for Graphviz, with a comment `// cause -> effect` for each edge beside it.

An edge with an end that is not among the nodes has its comment only.
""".
-spec to_dot(graph()) -> binary().
to_dot(#{nodes := Nodes, edges := Edges}) -> erl_esdb_causation_dot:text(Nodes, Edges);
to_dot(_) ->
    error(badarg).

-doc #{equiv => to_svg(Graph, 10_000)}.
-spec to_svg(graph()) -> {ok, binary()} | {error, erl_esdb_causation_dot:reason()}.
to_svg(Graph) -> to_svg(Graph, 10_000).

-doc """
The graph drawn by Graphviz, whose program `dot` has to be on the path, as SVG.

## Errors

- `graphviz_not_found`
- `graphviz_timeout`: it took longer than so many milliseconds, and was ended
- `{graphviz_failed, Status}`: it ended with this status
""".
-spec to_svg(graph(), timeout()) -> {ok, binary()} | {error, erl_esdb_causation_dot:reason()}.
to_svg(Graph, Timeout) -> erl_esdb_causation_dot:svg(to_dot(Graph), Timeout).

%% ---- walking

-type view() :: erl_esdb_index:view().
-type seen() :: #{Id :: binary() => []}.

-spec look(view(), erl_esdb_index_keys:kind(), [binary()]) -> {ok, [event()]} | {error, reason()}.
look(View, Kind, Ids) -> erl_esdb_index:look(View, [{Kind, Id} || Id <- Ids], any, #{}).

-spec find(view(), binary()) -> {ok, event()} | {error, not_found | reason()}.
find(View, Id) ->
    case erl_esdb_index:look(View, [{event_id, Id}], any, #{limit => 1}) of
        {ok, [Event]} -> {ok, Event};
        {ok, []} -> {error, not_found};
        {error, Reason} -> {error, Reason}
    end.

-spec cause(view(), event()) -> {ok, event()} | {error, no_cause | not_found | reason()}.
cause(View, Event) ->
    case erl_esdb_index_keys:cause(Event) of
        undefined -> {error, no_cause};
        Id -> find(View, Id)
    end.

-spec chain(view(), binary()) -> {ok, [event(), ...]} | {error, not_found | reason()}.
chain(View, Id) ->
    maybe
        {ok, Event} ?= find(View, Id),
        climb(View, #{Id => []}, [Event])
    end.

-spec climb(view(), seen(), [event(), ...]) -> {ok, [event(), ...]} | {error, reason()}.
climb(View, Seen, [First | _] = Chain) ->
    maybe
        {ok, #event{event_id = Id} = Cause} ?= cause(View, First),
        false ?= is_map_key(Id, Seen),
        ok ?= erl_esdb_index:in_time(View),
        climb(View, Seen#{Id => []}, [Cause | Chain])
    else
        true -> {ok, Chain};
        {error, End} when End =:= no_cause; End =:= not_found -> {ok, Chain};
        {error, Reason} -> {error, Reason}
    end.

-spec descendants(view(), event()) -> {ok, graph()} | {error, reason()}.
descendants(View, #event{event_id = Id} = First) ->
    maybe
        {ok, Nodes} ?= descend(View, [Id], [], #{Id => []}, [First]),
        Graph = graph(lists:keysort(#event.position, Nodes)),
        {ok, Graph#{root => hd([Root || Root <- roots(Graph), Root =:= Id] ++ [undefined])}}
    end.

%% Level by level. `Ids': those of this level whose effects were not looked up yet.
-spec descend(view(), Ids :: [binary()], NextLevel :: [binary()], seen(), [event()]) ->
    {ok, [event()]} | {error, reason()}.
descend(_View, [], [], _Seen, Nodes) ->
    {ok, Nodes};
descend(View, [], Next, Seen, Nodes) ->
    descend(View, Next, [], Seen, Nodes);
descend(View, Ids, Next, Seen, Nodes) ->
    {Some, Rest} = some(?TOGETHER, Ids, []),
    maybe
        {ok, Effects} ?= look(View, causation, Some),
        {New, Seen1} = lists:foldl(fun unseen/2, {[], Seen}, Effects),
        Next1 = [Id || #event{event_id = Id} <- New] ++ Next,
        descend(View, Rest, Next1, Seen1, New ++ Nodes)
    end.

-spec some(non_neg_integer(), [Id], [Id]) -> {[Id], [Id]}.
some(Left, [Id | Ids], Some) when Left > 0 -> some(Left - 1, Ids, [Id | Some]);
some(_Left, Ids, Some) -> {Some, Ids}.

-spec unseen(event(), {[event()], seen()}) -> {[event()], seen()}.
unseen(#event{event_id = Id}, {New, Seen}) when is_map_key(Id, Seen) -> {New, Seen};
unseen(#event{event_id = Id} = Event, {New, Seen}) -> {[Event | New], Seen#{Id => []}}.

-spec correlated(view(), binary()) -> {ok, graph()} | {error, not_found | reason()}.
correlated(View, Id) ->
    case look(View, correlation, [Id]) of
        {ok, []} ->
            {error, not_found};
        {ok, Events} ->
            Graph = graph(lists:uniq(fun(#event{event_id = EventId}) -> EventId end, Events)),
            {ok, Graph#{root => hd(roots(Graph) ++ [undefined])}};
        {error, Reason} ->
            {error, Reason}
    end.

-spec graph([event()]) -> #{nodes := [event()], edges := [{binary(), binary()}]}.
graph(Nodes) ->
    Pairs = [{Event#event.event_id, erl_esdb_index_keys:cause(Event)} || Event <- Nodes],
    #{nodes => Nodes, edges => esdb_graph_nif:build_edges(Pairs)}.

-spec roots(#{nodes := [event()], edges := [{binary(), binary()}]}) -> [binary()].
roots(#{nodes := Nodes, edges := Edges}) ->
    esdb_graph_nif:find_roots([Id || #event{event_id = Id} <- Nodes], Edges).

%% ---- telemetry

%% Tells of what was answered, also that there is nothing; not of a store that gave no answer.
-spec asked(atom(), Store :: atom(), binary(), Kinds, options(), fun((view()) -> Answer)) ->
    Answer | {error, reason()}
when
    Kinds :: [erl_esdb_index_keys:kind()], Answer :: {ok, term()} | {error, term()}.
asked(Type, Store, Id, Kinds, Options, Ask) when is_binary(Id) ->
    Begin = erlang:monotonic_time(),
    maybe
        {ok, View} ?= erl_esdb_index:view(Store, Kinds, Options),
        Answer = Ask(View),
        tell(Answer, erlang:monotonic_time() - Begin, #{
            store_id => Store, id => Id, query_type => Type
        }),
        Answer
    end;
asked(_, _, _, _, _, _) ->
    error(badarg).

-spec tell({ok, term()} | {error, term()}, integer(), map()) -> ok.
tell({error, Reason}, _Duration, _Metadata) when Reason =/= not_found, Reason =/= no_cause ->
    ok;
tell(Answer, Duration, Metadata) ->
    Measurements = #{duration => Duration, event_count => count(Answer)},
    erl_esdb_telemetry:emit(?CAUSATION_QUERY, Measurements, Metadata).

-spec count({ok, term()} | {error, term()}) -> non_neg_integer().
count({ok, Events}) when is_list(Events) -> length(Events);
count({ok, #event{}}) -> 1;
count({error, _}) -> 0.
