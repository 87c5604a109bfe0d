-module(esdb_demo_packed).
-moduledoc """
The questions of the demo, asked of packed events: only what an answer is made of is unpacked.

`m:esdb_demo_plain` answers the same ones in plain Erlang.

```erlang
1> Segment = esdb_demo_packed:keep(Events), esdb_demo_packed:ask(types, [Segment]).
#{<<"CommitAuthored">> => 299,<<"CommitMerged">> => 1}
2> {Graph, _} = esdb_demo_packed:ask(graph, [Segment]), esdb_demo_packed:ask(chain, Graph).
{chain,[<<"337c3f2d">>,<<"8a1b">>]}
```
""".

-export([keep/1, ask/2]).

-doc "A segment of the events; they may be more than one can have.".
-spec keep([esdb_demo_event:commit()]) -> binary() | {error, too_large}.
keep(Events) ->
    case esdb_segment_nif:pack(Events) of
        Segment when is_binary(Segment) -> Segment;
        {error, too_large} -> {error, too_large}
    end.

-doc """
The answer: `types`, `weeks`, `streams`, `areas`, `large` and `graph` of segments, `chain` and
`{led_to, Id}` of the graph.
""".
-spec ask
    (types | weeks | streams | areas | large, [binary()]) -> esdb_demo_questions:answer();
    (graph, [binary()]) -> {esdb_graph_nif:graph(), Edges :: non_neg_integer()};
    (chain | {led_to, binary()}, esdb_graph_nif:graph()) -> esdb_demo_questions:answer().
ask(types, Segments) ->
    esdb_segment_nif:group_by(Segments, event_type, count);
ask(weeks, Segments) ->
    esdb_segment_nif:group_by(Segments, [metadata, ~"correlation_id"], count);
ask(streams, Segments) ->
    esdb_segment_nif:group_by(Segments, stream_id, [count, {sum, ~"insertions"}]);
ask(areas, Segments) ->
    Areas = [Of || Segment <- Segments, [Of] <- esdb_segment_nif:project(Segment, [~"areas"])],
    lists:foldl(fun esdb_demo_event:add_insertions/2, #{}, Areas);
ask(large, Segments) ->
    esdb_segment_nif:count_where(Segments, {gt, ~"insertions", esdb_demo_questions:large()});
ask(graph, Segments) ->
    Paths = [event_id, [metadata, ~"causation_id"]],
    Pairs = [
        {Id, Cause}
     || Segment <- Segments, [Id, Cause] <- esdb_segment_nif:project(Segment, Paths)
    ],
    %% An event that names itself as its cause has none.
    Edges = [Edge || {Cause, Id} = Edge <- esdb_graph_nif:build_edges(Pairs), Cause =/= Id],
    {esdb_graph_nif:new([Id || {Id, _} <- Pairs], Edges), length(Edges)};
ask(chain, Graph) ->
    case esdb_graph_nif:longest_path(Graph) of
        {ok, Chain} ->
            {chain, Chain};
        {error, cycle_detected} ->
            {ok, Circle} = esdb_graph_nif:find_cycle(Graph),
            {circle, Circle}
    end;
ask({led_to, Id}, Graph) ->
    esdb_graph_nif:get_descendants(Graph, Id).
