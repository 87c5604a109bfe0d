-module(esdb_graph_nif).
-moduledoc """
Questions about directed graphs: what led to what, in which order, and whether it goes in circles.

Each question can be asked about lists, or about a handle that is built once and asked many times:

```erlang
1> Nodes = [~"placed", ~"paid", ~"shipped"],
   Edges = esdb_graph_nif:build_edges([
       {~"placed", undefined}, {~"paid", ~"placed"}, {~"shipped", ~"paid"}
   ]).
[{<<"placed">>,<<"paid">>},{<<"paid">>,<<"shipped">>}]
2> esdb_graph_nif:topo_sort(Nodes, Edges).
{ok,[<<"placed">>,<<"paid">>,<<"shipped">>]}
3> Graph = esdb_graph_nif:new(Nodes, Edges),
   esdb_graph_nif:get_ancestors(Graph, ~"shipped").
[<<"placed">>,<<"paid">>]
4> Larger = esdb_graph_nif:add(Graph, [~"returned"], [{~"shipped", ~"returned"}]),
   esdb_graph_nif:shortest_path(Larger, ~"paid", ~"returned").
{ok,[<<"paid">>,<<"shipped">>,<<"returned">>]}
```

## Rules

- Ids are any terms, the same if `=:=` says so: `1` and `1.0` are two.
- A node that is given twice counts once; its place is the first.
- An edge with an end that is not among the nodes is ignored in every function. A handle remembers
  it: `add/3` of the missing node makes it count.
- An edge that is given twice counts twice in `edge_count`, and makes no other difference.
- Results have no repeats and are in the order of the nodes. Where more than one answer is right,
  that order decides which one it is; the order of the edges never matters.
- Lists that are improper, and edges that are not pairs, are `badarg`.

A graph may have 2^32 - 3 nodes and as many edges. Chains of a million nodes are fine: nothing
recurses along them.

## Handles

A handle is a term: it never changes, can be sent and dies with its last user. It carries the ids
(as they are, not copied) and the edges, and beside them what its implementation made of them. On
another node, or after the library was loaded anew, it is rebuilt from these for a question; the
library keeps the last four, of a million nodes and edges together, for the next one, Erlang none.
`add(Graph, [], [])` gives one that is at home. Handles are not for storing; store nodes and edges.

All of it is in a fun of this module, so its parts cannot be exchanged; any other fun is `badarg`.
One of another version of this module is believed nothing but its ids and edges.
""".

%% Edges from causes
-export([build_edges/1]).
%% About lists
-export([find_roots/2, find_leaves/2, topo_sort/2, has_cycle/2, find_cycle/2, graph_stats/2]).
-export([has_path/4, get_ancestors/3, get_descendants/3]).
%% Handles
-export([new/2, add/3]).
-export([find_roots/1, find_leaves/1, topo_sort/1, has_cycle/1, find_cycle/1, graph_stats/1]).
-export([has_path/3, get_ancestors/2, get_descendants/2]).
-export([ancestors_count/2, descendants_count/2, common_ancestors/3]).
-export([shortest_path/3, longest_path/1, components/1]).
%% Text
-export([to_dot/2, to_dot_simple/2]).
-export_type([graph/0, id/0, edge/0, stats/0]).

-nifs([
    build_edges_n/1,
    build_edges_d/1,
    once_n/3,
    once_d/3,
    ask_n/4,
    ask_d/4,
    grow_n/5,
    grow_d/5,
    rebuilt_d/3
]).
%% What these see of the functions that the library replaces is not in their Erlang bodies.
-dialyzer({nowarn_function, [build_edges/1, once/3, walk_near/2, grown/3]}).
-dialyzer({nowarn_function, [bytes/2, build_edges_n/1]}).
%% One function asks all questions: dialyzer does not tell their results apart.
-dialyzer(no_missing_return).

%% What a handle closes over.
-record(esdb_graph, {
    chunks = {} :: esdb_graph_erl:chunks(),
    pairs = [] :: pairs(),
    %% Edges with an unknown end, by that end.
    waiting = #{} :: #{id() => [edge()]},
    %% What the implementation that runs here made of the chunks and pairs.
    compiled = none :: none | reference() | esdb_graph_erl:graph()
}).

%% Both numbers of each edge, little-endian, 32 bits each: the newest edges first, and each piece at
%% least twice as long as the one before it, so that to add some does not mean to copy all.
-type pairs() :: [binary()].
-type parts() :: #esdb_graph{}.
-opaque graph() :: {esdb_graph, fun(() -> parts())}.
-type id() :: term().
-type edge() :: {From :: id(), To :: id()}.
-type stats() :: #{
    node_count := non_neg_integer(),
    edge_count := non_neg_integer(),
    root_count := non_neg_integer(),
    leaf_count := non_neg_integer(),
    max_depth := non_neg_integer()
}.

%% Nodes and edges together that a normal scheduler takes: from lists, and of a handle.
-define(SHORT, 4_000).
-define(SHORT_KEPT, 20_000).

-include("esdb_nif.hrl").

%% Edges from causes

-doc """
An edge `{Cause, Id}` for each pair whose cause is the id of a pair of the list, in their order.

An event with several causes stands in the list once for each. No edge comes twice.
""".
-spec build_edges([{Id :: id(), Cause :: id() | undefined}]) -> [edge()].
build_edges(Pairs) ->
    case length(Pairs) =< ?SHORT andalso build_edges_n(Pairs) of
        Edges when is_list(Edges) -> Edges;
        _ -> build_edges_d(Pairs)
    end.

%% About lists

-doc "The nodes that no edge leads to.".
-spec find_roots(Nodes :: [id()], Edges :: [edge()]) -> [id()].
find_roots(Nodes, Edges) -> once(roots, Nodes, Edges).

-doc "The nodes that no edge leads away from.".
-spec find_leaves(Nodes :: [id()], Edges :: [edge()]) -> [id()].
find_leaves(Nodes, Edges) -> once(leaves, Nodes, Edges).

-doc """
All nodes, each behind those that lead to it; `{error, cycle_detected}` if that cannot be.

Whenever more than one could come next, it is the one that comes first in `Nodes` (Kahn 1962).
""".
-spec topo_sort(Nodes :: [id()], Edges :: [edge()]) -> {ok, [id()]} | {error, cycle_detected}.
topo_sort(Nodes, Edges) -> once(topological, Nodes, Edges).

-doc "Whether the edges go in a circle somewhere; an edge from a node to itself does.".
-spec has_cycle(Nodes :: [id()], Edges :: [edge()]) -> boolean().
has_cycle(Nodes, Edges) -> once(has_cycle, Nodes, Edges).

-doc """
A cycle: its nodes along the edges, from the one that comes first in `Nodes`; the last leads to it.

Which one, if there are more: nodes to which nothing leads are taken away until there are none. From
the first node left one goes back against the edges, always to the first in `Nodes`, until one comes
to a node again.
""".
-spec find_cycle(Nodes :: [id()], Edges :: [edge()]) -> {ok, [id()]} | none.
find_cycle(Nodes, Edges) -> once(cycle, Nodes, Edges).

-doc """
Counts. `max_depth` is the largest distance, in edges, of a node from the root nearest to it.

It is 0 where there are no roots. The longest chain is another thing: see `longest_path/1`.
""".
-spec graph_stats(Nodes :: [id()], Edges :: [edge()]) -> stats().
graph_stats(Nodes, Edges) -> once(stats, Nodes, Edges).

-doc "Whether the edges lead from one node to another. A known node leads to itself.".
-spec has_path(Nodes :: [id()], Edges :: [edge()], From :: id(), To :: id()) -> boolean().
has_path(Nodes, Edges, From, To) -> once({has_path, From, To}, Nodes, Edges).

-doc "All that leads to a node, over any number of edges, without itself; `[]` for an unknown one.".
-spec get_ancestors(Nodes :: [id()], Edges :: [edge()], Id :: id()) -> [id()].
get_ancestors(Nodes, Edges, Id) -> once({ancestors, Id}, Nodes, Edges).

-doc "All that a node leads to, over any number of edges, without itself; `[]` for an unknown one.".
-spec get_descendants(Nodes :: [id()], Edges :: [edge()], Id :: id()) -> [id()].
get_descendants(Nodes, Edges, Id) -> once({descendants, Id}, Nodes, Edges).

%% Handles

-doc "A handle of the graph of these nodes and edges.".
-spec new(Nodes :: [id()], Edges :: [edge()]) -> graph().
new(Nodes, Edges) -> closed(larger(#esdb_graph{}, Nodes, Edges)).

-doc """
A larger graph; the old handle goes on answering as before.

It answers as if all nodes had been given to `new/2`, the old ones first, and all edges, those too
that were ignored because of an unknown end. The cost is that of what is added; now and then, as
rarely as makes it cheap on average, the whole is built anew. One event at a time that makes some
10 us for each of 100,000; who has many gives them together.
""".
-spec add(graph(), Nodes :: [id()], Edges :: [edge()]) -> graph().
add(Graph, Nodes, Edges) -> closed(larger(opened(Graph), Nodes, Edges)).

-spec larger(parts(), [id()], [edge()]) -> parts().
larger(#esdb_graph{chunks = Chunks, pairs = Pairs, waiting = Waiting} = Graph, Nodes, Edges) when
    is_tuple(Chunks), is_map(Waiting), length(Nodes) >= 0, length(Edges) >= 0
->
    {Awaited, Others} = awaited(Nodes, Waiting, []),
    {Fresh, MorePairs, Missing, Compiled} = grown(Graph, Nodes, Awaited ++ Edges),
    #esdb_graph{
        chunks = esdb_graph_erl:chunked(Chunks, Fresh),
        pairs = more_pairs(MorePairs, Pairs),
        waiting = lists:foldl(fun wait/2, Others, Missing),
        compiled = Compiled
    };
larger(_, _, _) ->
    error(badarg).

-doc "`find_roots/2` of a handle.".
-spec find_roots(graph()) -> [id()].
find_roots(Graph) -> whole(roots, Graph).

-doc "`find_leaves/2` of a handle.".
-spec find_leaves(graph()) -> [id()].
find_leaves(Graph) -> whole(leaves, Graph).

-doc "`topo_sort/2` of a handle.".
-spec topo_sort(graph()) -> {ok, [id()]} | {error, cycle_detected}.
topo_sort(Graph) -> whole(topological, Graph).

-doc "`has_cycle/2` of a handle.".
-spec has_cycle(graph()) -> boolean().
has_cycle(Graph) -> whole(has_cycle, Graph).

-doc "`find_cycle/2` of a handle.".
-spec find_cycle(graph()) -> {ok, [id()]} | none.
find_cycle(Graph) -> whole(cycle, Graph).

-doc "`graph_stats/2` of a handle.".
-spec graph_stats(graph()) -> stats().
graph_stats(Graph) -> whole(stats, Graph).

-doc "`has_path/4` of a handle.".
-spec has_path(graph(), From :: id(), To :: id()) -> boolean().
has_path(Graph, From, To) -> walk({has_path, From, To}, Graph).

-doc "`get_ancestors/3` of a handle.".
-spec get_ancestors(graph(), Id :: id()) -> [id()].
get_ancestors(Graph, Id) -> walk({ancestors, Id}, Graph).

-doc "`get_descendants/3` of a handle.".
-spec get_descendants(graph(), Id :: id()) -> [id()].
get_descendants(Graph, Id) -> walk({descendants, Id}, Graph).

-doc "How many `get_ancestors/2` has, without building the list.".
-spec ancestors_count(graph(), Id :: id()) -> non_neg_integer().
ancestors_count(Graph, Id) -> walk({ancestors_count, Id}, Graph).

-doc "How many `get_descendants/2` has, without building the list.".
-spec descendants_count(graph(), Id :: id()) -> non_neg_integer().
descendants_count(Graph, Id) -> walk({descendants_count, Id}, Graph).

-doc "What leads to both nodes: the ancestors of the one that are ancestors of the other too.".
-spec common_ancestors(graph(), id(), id()) -> [id()].
common_ancestors(Graph, One, Other) -> walk({common, One, Other}, Graph).

-doc """
A path with as few edges as possible, with both ends; `none` if there is none or an end is unknown.

Of several it is the one whose second node comes first among the nodes, then the third, and so on.
From a node to itself it is that node.
""".
-spec shortest_path(graph(), From :: id(), To :: id()) -> {ok, [id()]} | none.
shortest_path(Graph, From, To) -> walk({shortest, From, To}, Graph).

-doc """
The path with the most edges, `{ok, []}` if there are no nodes; impossible where there is a cycle.

Of several it is the one whose first node comes first among the nodes, then the second, and so on.
""".
-spec longest_path(graph()) -> {ok, [id()]} | {error, cycle_detected}.
longest_path(Graph) -> whole(longest, Graph).

-doc "The parts that hang together, whichever way edges point, in the order of their first nodes.".
-spec components(graph()) -> [[id()]].
components(Graph) -> whole(components, Graph).

%% Text

-doc """
The graph as text for Graphviz: a box for each node, with type and label below each other.

Id, type and label are any terms: binaries, atoms and strings show as they read, all others in
Erlang's syntax. The text is valid for every id; bytes that are no UTF-8, and control characters,
show as `\\xHH`. Ids that differ are different nodes, also where they read alike.
""".
-spec to_dot(Nodes :: [{id(), Type :: term(), Label :: term()}], Edges :: [edge()]) -> binary().
to_dot(Nodes, Edges) when length(Nodes) >= 0, length(Edges) >= 0 ->
    esdb_graph_dot:text([labelled(Node) || Node <- Nodes], Edges);
to_dot(_, _) ->
    error(badarg).

-doc "The same with the type alone in the box.".
-spec to_dot_simple(Nodes :: [{id(), Type :: term()}], Edges :: [edge()]) -> binary().
to_dot_simple(Nodes, Edges) when length(Nodes) >= 0, length(Edges) >= 0 ->
    esdb_graph_dot:text([typed(Node) || Node <- Nodes], Edges);
to_dot_simple(_, _) ->
    error(badarg).

-spec labelled({id(), term(), term()} | term()) -> {id(), [term()]}.
labelled({Id, Type, Label}) -> {Id, [Type, Label]};
labelled(_) -> error(badarg).

-spec typed({id(), term()} | term()) -> {id(), [term()]}.
typed({Id, Type}) -> {Id, [Type]};
typed(_) -> error(badarg).

%% Where a question is answered

%% A graph that is small may have ids that are long: the library answers `long` when they are.
-spec once(esdb_graph_erl:question(), [id()], [edge()]) -> term().
once(Question, Nodes, Edges) ->
    case length(Nodes) + length(Edges) of
        Size when Size =< ?SHORT ->
            case once_n(Question, Nodes, Edges) of
                long -> once_d(Question, Nodes, Edges);
                Answer -> Answer
            end;
        _ ->
            once_d(Question, Nodes, Edges)
    end.

%% A question that looks at all nodes.
-spec whole(esdb_graph_erl:question(), graph()) -> term().
whole(Question, Graph) ->
    #esdb_graph{chunks = Chunks, pairs = Pairs} = Parts = opened(Graph),
    case esdb_graph_erl:count(Chunks) + count(Pairs) =< ?SHORT_KEPT of
        true -> walk_near(Question, Parts);
        false -> walk_far(Question, Parts)
    end.

%% A question that starts from a node: how far it goes shows on the way.
-spec walk(esdb_graph_erl:question(), graph()) -> term().
walk(Question, Graph) -> walk_near(Question, opened(Graph)).

-spec walk_near(esdb_graph_erl:question(), parts()) -> term().
walk_near(Question, #esdb_graph{chunks = Chunks, pairs = Pairs, compiled = Compiled} = Graph) ->
    case ask_n(Question, Chunks, count(Pairs), Compiled) of
        long -> walk_far(Question, Graph);
        foreign -> walk_far(Question, at_home(Graph));
        Answer -> Answer
    end.

-spec walk_far(esdb_graph_erl:question(), parts()) -> term().
walk_far(Question, #esdb_graph{chunks = Chunks, pairs = Pairs, compiled = Compiled} = Graph) ->
    case ask_d(Question, Chunks, count(Pairs), Compiled) of
        foreign -> walk_far(Question, at_home(Graph));
        Answer -> Answer
    end.

-spec at_home(parts()) -> parts().
at_home(#esdb_graph{chunks = Chunks, pairs = Pairs, compiled = Compiled} = Graph) ->
    Joined = iolist_to_binary(lists:reverse(Pairs)),
    Graph#esdb_graph{compiled = rebuilt_d(Chunks, Joined, esdb_graph_erl:version(Compiled))}.

-spec count(pairs()) -> non_neg_integer().
count(Pairs) -> bytes(Pairs, 0) div 8.

-spec bytes(pairs(), non_neg_integer()) -> non_neg_integer().
bytes([Piece | Pieces], Bytes) when is_binary(Piece) -> bytes(Pieces, Bytes + byte_size(Piece));
bytes([], Bytes) -> Bytes;
bytes(_, _) -> error(badarg).

-spec more_pairs(binary(), pairs()) -> pairs().
more_pairs(<<>>, Pairs) ->
    Pairs;
more_pairs(New, [Last | Older]) when 2 * byte_size(New) > byte_size(Last) ->
    more_pairs(iolist_to_binary([Last, New]), Older);
more_pairs(New, Pairs) ->
    [New | Pairs].

-spec grown(parts(), [id()], [edge()]) -> esdb_graph_erl:growth().
grown(#esdb_graph{chunks = Chunks, pairs = Pairs, compiled = Compiled} = Graph, Nodes, Edges) ->
    Few = length(Nodes) + length(Edges) =< ?SHORT,
    case Few andalso grow_n(Chunks, count(Pairs), Compiled, Nodes, Edges) of
        foreign -> grown_far(at_home(Graph), Nodes, Edges);
        Growth when is_tuple(Growth) -> Growth;
        _ -> grown_far(Graph, Nodes, Edges)
    end.

-spec grown_far(parts(), [id()], [edge()]) -> esdb_graph_erl:growth().
grown_far(#esdb_graph{chunks = Chunks, pairs = Pairs, compiled = Compiled} = Graph, Nodes, Edges) ->
    case grow_d(Chunks, count(Pairs), Compiled, Nodes, Edges) of
        foreign -> grown_far(at_home(Graph), Nodes, Edges);
        Growth -> Growth
    end.

%% Handles: nobody else can make a fun of this module, so no part of one needs checking

-spec closed(parts()) -> graph().
closed(Parts) -> {esdb_graph, fun() -> Parts end}.

-spec opened(graph() | term()) -> parts().
opened({esdb_graph, Kept}) ->
    case esdb_handle:opened(Kept, ?MODULE) of
        {ok, #esdb_graph{} = Parts} -> Parts;
        {ok, _} -> error(badarg);
        none -> outdated(Kept)
    end;
opened(_) ->
    error(badarg).

%% A fun of another version of this module cannot be called, but it has the ids and edges, which
%% decide; they are looked at in full.
-spec outdated(term()) -> parts().
outdated(Kept) when is_function(Kept, 0) ->
    case {erlang:fun_info(Kept, module), erlang:fun_info(Kept, env)} of
        {{module, ?MODULE}, {env, [#esdb_graph{chunks = Chunks} = Parts]}} when is_tuple(Chunks) ->
            Parts#esdb_graph{compiled = none};
        _ ->
            error(badarg)
    end;
outdated(_) ->
    error(badarg).

%% The edges that waited for one of the nodes.
-spec awaited([id()], Waiting, [edge()]) -> {[edge()], Waiting} when
    Waiting :: #{id() => [edge()]}.
awaited([Id | Ids], Waiting, Edges) when is_map_key(Id, Waiting) ->
    {Awaited, Others} = maps:take(Id, Waiting),
    awaited(Ids, Others, Awaited ++ Edges);
awaited([_ | Ids], Waiting, Edges) when map_size(Waiting) > 0 ->
    awaited(Ids, Waiting, Edges);
awaited(_, Waiting, Edges) ->
    {Edges, Waiting}.

-spec wait({id(), edge()}, Waiting) -> Waiting when Waiting :: #{id() => [edge()]}.
wait({Id, Edge}, Waiting) ->
    Waiting#{Id => [Edge | maps:get(Id, Waiting, [])]}.

%% Replaced when the library is loaded: _n on the caller's scheduler, _d on a dirty one

-spec build_edges_n([{id(), id()}]) -> [edge()] | long.
build_edges_n(Pairs) -> esdb_graph_erl:build_edges(Pairs).

-spec build_edges_d([{id(), id()}]) -> [edge()].
build_edges_d(Pairs) -> esdb_graph_erl:build_edges(Pairs).

-spec once_n(esdb_graph_erl:question(), [id()], [edge()]) -> term().
once_n(Question, Nodes, Edges) -> esdb_graph_erl:once(Question, Nodes, Edges).

-spec once_d(esdb_graph_erl:question(), [id()], [edge()]) -> term().
once_d(Question, Nodes, Edges) -> esdb_graph_erl:once(Question, Nodes, Edges).

%% The library may answer `long`: more than a normal scheduler should be kept busy with.
-spec ask_n(esdb_graph_erl:question(), tuple(), non_neg_integer(), term()) -> term().
ask_n(Question, Chunks, Edges, Compiled) -> esdb_graph_erl:ask(Question, Chunks, Edges, Compiled).

-spec ask_d(esdb_graph_erl:question(), tuple(), non_neg_integer(), term()) -> term().
ask_d(Question, Chunks, Edges, Compiled) -> esdb_graph_erl:ask(Question, Chunks, Edges, Compiled).

-spec grow_n(tuple(), non_neg_integer(), term(), [id()], [edge()]) ->
    esdb_graph_erl:growth() | foreign.
grow_n(Chunks, Known, Compiled, Nodes, Edges) ->
    esdb_graph_erl:grow(Chunks, Known, Compiled, Nodes, Edges).

-spec grow_d(tuple(), non_neg_integer(), term(), [id()], [edge()]) ->
    esdb_graph_erl:growth() | foreign.
grow_d(Chunks, Known, Compiled, Nodes, Edges) ->
    esdb_graph_erl:grow(Chunks, Known, Compiled, Nodes, Edges).

%% The library keeps a few for the next question, by their version.
-spec rebuilt_d(tuple(), binary(), reference() | none) -> term().
rebuilt_d(Chunks, Pairs, _Version) -> esdb_graph_erl:rebuilt(Chunks, Pairs).
