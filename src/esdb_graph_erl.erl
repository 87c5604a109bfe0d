-module(esdb_graph_erl).
-moduledoc """
The twin of `esdb_graph_nif`: graphs in plain Erlang, answering the same.

Nodes are numbered from 0 in the order in which they were given. Ids stay in *chunks*, a tuple of
tuples of 1,024 ids (the last may have fewer), which a handle brings along; everything else is maps
of numbers. Where more than one answer is right, the rule that picks one looks at these numbers
only, never at the order of the edges.

```erlang
1> esdb_graph_erl:once(topological, [b, a], [{a, b}]).
{ok,[a,b]}
```
""".

-export([once/3, ask/4, grow/5, rebuilt/2, build_edges/1]).
%% For both implementations
-export([chunked/2, count/1, version/1]).
-export_type([graph/0, question/0, id/0, edge/0, chunks/0, growth/0]).

-record(graph, {
    %% Of each graph another, so that a node where it is foreign knows it again.
    version :: reference(),
    nodes = 0 :: non_neg_integer(),
    edges = 0 :: non_neg_integer(),
    index = #{} :: #{id() => number_of_node()},
    %% The neighbours of a node, each as often as there is an edge; no key where there are none.
    along = #{} :: neighbours(),
    against = #{} :: neighbours()
}).

-opaque graph() :: #graph{}.
-type id() :: term().
-type edge() :: {From :: id(), To :: id()}.
-type chunks() :: tuple().
-type number_of_node() :: non_neg_integer().
-type neighbours() :: #{number_of_node() => [number_of_node()]}.
-type question() ::
    roots
    | leaves
    | topological
    | has_cycle
    | cycle
    | stats
    | longest
    | components
    | {ancestors | descendants | ancestors_count | descendants_count, id()}
    | {has_path | shortest | common, id(), id()}.
%% The ids and edges (numbers, little-endian, 32 bits each) that are new; edges with an unknown end,
%% each behind that end; and what they grew to.
-type growth() :: {Fresh :: [id()], Pairs :: binary(), Missing :: [{id(), edge()}], graph()}.

%% The same in native/graph/src/ids.rs.
-define(CHUNK, 1024).

-doc "The answer about a graph that is built for this question alone.".
-spec once(question(), [id()], [edge()]) -> term().
once(Question, Nodes, Edges) ->
    {Fresh, _, _, Graph} = grown(empty(), Nodes, Edges),
    answer(Question, Graph, chunked({}, Fresh)).

-doc "The answer about the graph of a handle; `foreign` if that was not made by this module.".
-spec ask(question(), chunks(), Edges :: non_neg_integer(), Compiled :: term()) -> term() | foreign.
ask(Question, Chunks, Edges, Compiled) ->
    case is_own(Chunks, Edges, Compiled) of
        true -> answer(Question, Compiled, Chunks);
        false -> foreign
    end.

-doc "A larger graph; `foreign` as in `ask/4`, unless there is nothing yet.".
-spec grow(chunks(), Edges :: non_neg_integer(), Compiled :: term(), [id()], [edge()]) ->
    growth() | foreign.
grow(Chunks, Known, Compiled, Nodes, Edges) ->
    case is_own(Chunks, Known, Compiled) of
        true -> grown(Compiled, Nodes, Edges);
        false when Chunks =:= {}, Known =:= 0 -> grown(empty(), Nodes, Edges);
        false -> foreign
    end.

-doc "The graph of a handle, from its ids and edges alone; `badarg` if they are not those of one.".
-spec rebuilt(chunks(), Pairs :: binary()) -> graph().
rebuilt(Chunks, Pairs) ->
    Ids = lists:append([tuple_to_list(Chunk) || Chunk <- tuple_to_list(Chunks)]),
    {Fresh, _, _, Graph} = grown(empty(), Ids, []),
    Numbers = [{From, To} || <<From:32/little, To:32/little>> <= Pairs],
    Last = length(Ids) - 1,
    Known = [Pair || {From, To} = Pair <- Numbers, From =< Last, To =< Last],
    case chunked({}, Fresh) =:= Chunks andalso length(Known) * 8 =:= byte_size(Pairs) of
        true -> connected(Graph, Known);
        false -> error(badarg)
    end.

-spec is_own(chunks(), non_neg_integer(), term()) -> boolean().
is_own(Chunks, Edges, Compiled) ->
    Nodes = count(Chunks),
    case Compiled of
        #graph{nodes = Nodes, edges = Edges, index = #{}, along = #{}, against = #{}} -> true;
        _ -> false
    end.

-doc "What tells a graph that was made elsewhere from all others, if anything does.".
-spec version(Compiled :: term()) -> reference() | none.
version(#graph{version = Version}) when is_reference(Version) -> Version;
version(Resource) when is_reference(Resource) -> Resource;
version(_) -> none.

-spec empty() -> #graph{}.
empty() -> #graph{version = make_ref()}.

-doc "An edge from each cause to what it led to; see `esdb_graph_nif:build_edges/1`.".
-spec build_edges([{id(), Cause :: id() | undefined}]) -> [edge()].
build_edges(Pairs) ->
    Known = #{id_of(Pair) => [] || Pair <- Pairs},
    Edges = [
        {Cause, Id}
     || {Id, Cause} <- Pairs, Cause =/= undefined, is_map_key(Cause, Known)
    ],
    unique(Edges, #{}).

-spec id_of({id(), id()} | term()) -> id().
id_of({Id, _}) -> Id;
id_of(_) -> error(badarg).

-spec unique([T], #{T => []}) -> [T].
unique([Item | Items], Seen) when is_map_key(Item, Seen) -> unique(Items, Seen);
unique([Item | Items], Seen) -> [Item | unique(Items, Seen#{Item => []})];
unique([], _) -> [].

%% Ids

-doc "The chunks with more ids at their end.".
-spec chunked(chunks(), [id()]) -> chunks().
chunked(Chunks, []) ->
    Chunks;
chunked({}, Ids) ->
    list_to_tuple(pieces(Ids, length(Ids)));
%% So it mostly is: events arrive one by one.
chunked(Chunks, [Id]) ->
    Size = tuple_size(Chunks),
    case element(Size, Chunks) of
        Last when tuple_size(Last) < ?CHUNK ->
            setelement(Size, Chunks, erlang:append_element(Last, Id));
        _ ->
            erlang:append_element(Chunks, {Id})
    end;
chunked(Chunks, Ids) ->
    {Full, [Last]} = lists:split(tuple_size(Chunks) - 1, tuple_to_list(Chunks)),
    Open = tuple_to_list(Last) ++ Ids,
    list_to_tuple(Full ++ pieces(Open, length(Open))).

-spec pieces([id()], non_neg_integer()) -> [tuple()].
pieces(Ids, Count) when Count =< ?CHUNK ->
    [list_to_tuple(Ids)];
pieces(Ids, Count) ->
    {Piece, Rest} = lists:split(?CHUNK, Ids),
    [list_to_tuple(Piece) | pieces(Rest, Count - ?CHUNK)].

-doc "How many ids chunks hold, by the size of the last one.".
-spec count(chunks()) -> non_neg_integer().
count({}) ->
    0;
count(Chunks) ->
    Size = tuple_size(Chunks),
    (Size - 1) * ?CHUNK + tuple_size(element(Size, Chunks)).

-spec id(number_of_node(), chunks()) -> id().
id(Node, Chunks) ->
    element(Node rem ?CHUNK + 1, element(Node div ?CHUNK + 1, Chunks)).

-spec ids([number_of_node()], chunks()) -> [id()].
ids(Nodes, Chunks) -> [id(Node, Chunks) || Node <- Nodes].

%% Growing

-spec grown(#graph{}, [id()], [edge()]) -> growth().
grown(Graph, Nodes, Edges) ->
    {Fresh, Index} = numbered(Nodes, Graph#graph.nodes, Graph#graph.index, []),
    {Pairs, Missing} = known(Edges, Index, [], []),
    Next = Graph#graph{version = make_ref(), index = Index, nodes = map_size(Index)},
    Bytes = <<<<From:32/little, To:32/little>> || {From, To} <- Pairs>>,
    {Fresh, Bytes, Missing, connected(Next, Pairs)}.

-spec numbered([id()], number_of_node(), Index, [id()]) -> {[id()], Index} when
    Index :: #{id() => number_of_node()}.
numbered([Id | Ids], Next, Index, Fresh) when is_map_key(Id, Index) ->
    numbered(Ids, Next, Index, Fresh);
numbered([Id | Ids], Next, Index, Fresh) ->
    numbered(Ids, Next + 1, Index#{Id => Next}, [Id | Fresh]);
numbered([], _, Index, Fresh) ->
    {lists:reverse(Fresh), Index}.

-spec known([edge()], #{id() => number_of_node()}, Pairs, Missing) -> {Pairs, Missing} when
    Pairs :: [{number_of_node(), number_of_node()}], Missing :: [{id(), edge()}].
known([{From, To} = Edge | Edges], Index, Pairs, Missing) ->
    case Index of
        #{From := A, To := B} -> known(Edges, Index, [{A, B} | Pairs], Missing);
        #{From := _} -> known(Edges, Index, Pairs, [{To, Edge} | Missing]);
        #{} -> known(Edges, Index, Pairs, [{From, Edge} | Missing])
    end;
known([], _, Pairs, Missing) ->
    {lists:reverse(Pairs), lists:reverse(Missing)};
known(_, _, _, _) ->
    error(badarg).

-spec connected(#graph{}, [{number_of_node(), number_of_node()}]) -> #graph{}.
connected(#graph{edges = Edges, along = Along, against = Against} = Graph, Pairs) ->
    Graph#graph{
        edges = Edges + length(Pairs),
        along = lists:foldl(fun({From, To}, Map) -> put_neighbour(From, To, Map) end, Along, Pairs),
        against = lists:foldl(
            fun({From, To}, Map) -> put_neighbour(To, From, Map) end, Against, Pairs
        )
    }.

-spec put_neighbour(number_of_node(), number_of_node(), neighbours()) -> neighbours().
put_neighbour(Node, Neighbour, Map) ->
    case Map of
        #{Node := Others} -> Map#{Node := [Neighbour | Others]};
        #{} -> Map#{Node => [Neighbour]}
    end.

%% Answers

-spec answer(question(), #graph{}, chunks()) -> term().
answer(roots, Graph, Chunks) ->
    ids(ends(Graph#graph.against, Graph), Chunks);
answer(leaves, Graph, Chunks) ->
    ids(ends(Graph#graph.along, Graph), Chunks);
answer(topological, Graph, Chunks) ->
    or_cycle(topological(Graph), Chunks);
answer(has_cycle, Graph, _) ->
    {Order, _} = peeled(Graph),
    length(Order) < Graph#graph.nodes;
answer(cycle, Graph, Chunks) ->
    or_none(cycle(Graph), Chunks);
answer(stats, Graph, _) ->
    stats(Graph);
answer(longest, Graph, Chunks) ->
    or_cycle(longest(Graph), Chunks);
answer(components, Graph, Chunks) ->
    [ids(Part, Chunks) || Part <- components(Graph)];
answer({ancestors, Id}, #graph{against = Against} = Graph, Chunks) ->
    ids(in_order(reached(Id, Against, Graph)), Chunks);
answer({descendants, Id}, #graph{along = Along} = Graph, Chunks) ->
    ids(in_order(reached(Id, Along, Graph)), Chunks);
answer({ancestors_count, Id}, #graph{against = Against} = Graph, _) ->
    map_size(reached(Id, Against, Graph));
answer({descendants_count, Id}, #graph{along = Along} = Graph, _) ->
    map_size(reached(Id, Along, Graph));
answer({common, One, Other}, #graph{against = Against} = Graph, Chunks) ->
    Both = maps:intersect(reached(One, Against, Graph), reached(Other, Against, Graph)),
    ids(in_order(Both), Chunks);
answer({has_path, From, To}, #graph{index = Index} = Graph, _) ->
    case Index of
        #{From := A, To := B} -> leads([A], #{A => []}, B, Graph#graph.along);
        #{} -> false
    end;
answer({shortest, From, To}, #graph{index = Index} = Graph, Chunks) ->
    case Index of
        #{From := A, To := B} -> or_none(shortest(A, B, Graph), Chunks);
        #{} -> none
    end.

-spec or_cycle({ok, [number_of_node()]} | none, chunks()) ->
    {ok, [id()]} | {error, cycle_detected}.
or_cycle({ok, Nodes}, Chunks) -> {ok, ids(Nodes, Chunks)};
or_cycle(none, _) -> {error, cycle_detected}.

-spec or_none({ok, [number_of_node()]} | none, chunks()) -> {ok, [id()]} | none.
or_none({ok, Nodes}, Chunks) -> {ok, ids(Nodes, Chunks)};
or_none(none, _) -> none.

-spec in_order(#{number_of_node() => term()}) -> [number_of_node()].
in_order(Set) -> lists:sort(maps:keys(Set)).

%% The nodes without neighbours in a direction.
-spec ends(neighbours(), #graph{}) -> [number_of_node()].
ends(Neighbours, Graph) ->
    [Node || Node <- all(Graph), not is_map_key(Node, Neighbours)].

-spec all(#graph{}) -> [number_of_node()].
all(#graph{nodes = Nodes}) -> lists:seq(0, Nodes - 1).

-spec neighbours(number_of_node(), neighbours()) -> [number_of_node()].
neighbours(Node, Neighbours) ->
    case Neighbours of
        #{Node := Others} -> Others;
        #{} -> []
    end.

%% Kahn 1962; of the nodes that are ready the first in node order comes first.
-spec topological(#graph{}) -> {ok, [number_of_node()]} | none.
topological(#graph{along = Along, against = Against} = Graph) ->
    Ready = gb_sets:from_ordset(ends(Against, Graph)),
    Order = topological(Ready, waits(Against), Along, []),
    case length(Order) =:= Graph#graph.nodes of
        true -> {ok, lists:reverse(Order)};
        false -> none
    end.

-spec topological(gb_sets:set(number_of_node()), Waits, neighbours(), Order) -> Order when
    Waits :: #{number_of_node() => pos_integer()}, Order :: [number_of_node()].
topological(Ready, Waits, Along, Order) ->
    case gb_sets:is_empty(Ready) of
        true ->
            Order;
        false ->
            {Node, Others} = gb_sets:take_smallest(Ready),
            {Next, Left} = released(neighbours(Node, Along), Waits, []),
            Set = lists:foldl(fun gb_sets:add_element/2, Others, Next),
            topological(Set, Left, Along, [Node | Order])
    end.

-spec waits(neighbours()) -> #{number_of_node() => pos_integer()}.
waits(Against) -> #{Node => length(Others) || Node := Others <- Against}.

%% One edge less leads to each of the nodes: those to which none leads any more.
-spec released([number_of_node()], Waits, [number_of_node()]) -> {[number_of_node()], Waits} when
    Waits :: #{number_of_node() => pos_integer()}.
released([Node | Nodes], Waits, Ready) ->
    case Waits of
        #{Node := 1} -> released(Nodes, maps:remove(Node, Waits), [Node | Ready]);
        #{Node := Count} -> released(Nodes, Waits#{Node := Count - 1}, Ready)
    end;
released([], Waits, Ready) ->
    {Ready, Waits}.

%% The nodes that are not on or after a cycle, in reverse of some topological order, and for all
%% others how many edges lead to them from each other.
-spec peeled(#graph{}) -> {[number_of_node()], #{number_of_node() => pos_integer()}}.
peeled(#graph{along = Along, against = Against} = Graph) ->
    peeled(ends(Against, Graph), waits(Against), Along, []).

-spec peeled([number_of_node()], Waits, neighbours(), Order) -> {Order, Waits} when
    Waits :: #{number_of_node() => pos_integer()}, Order :: [number_of_node()].
peeled([Node | Ready], Waits, Along, Order) ->
    {Next, Left} = released(neighbours(Node, Along), Waits, Ready),
    peeled(Next, Left, Along, [Node | Order]);
peeled([], Waits, _, Order) ->
    {Order, Waits}.

%% Each node that is left has one left that leads to it. From the first in node order the walk goes
%% back, always to the first in node order, until it comes to a node for the second time.
-spec cycle(#graph{}) -> {ok, [number_of_node()]} | none.
cycle(#graph{against = Against} = Graph) ->
    case peeled(Graph) of
        {_, Left} when map_size(Left) =:= 0 -> none;
        {_, Left} -> {ok, cycle(lists:min(maps:keys(Left)), Left, Against, #{}, [])}
    end.

-spec cycle(number_of_node(), Left, neighbours(), Seen, Walk) -> Walk when
    Left :: #{number_of_node() => pos_integer()},
    Seen :: #{number_of_node() => []},
    Walk :: [number_of_node()].
cycle(Node, _, _, Seen, Walk) when is_map_key(Node, Seen) ->
    {After, _} = lists:splitwith(fun(Other) -> Other =/= Node end, Walk),
    from_smallest(After ++ [Node]);
cycle(Node, Left, Against, Seen, Walk) ->
    Before = [Other || Other <- neighbours(Node, Against), is_map_key(Other, Left)],
    cycle(lists:min(Before), Left, Against, Seen#{Node => []}, [Node | Walk]).

-spec from_smallest([number_of_node(), ...]) -> [number_of_node(), ...].
from_smallest(Cycle) ->
    First = lists:min(Cycle),
    {Before, After} = lists:splitwith(fun(Node) -> Node =/= First end, Cycle),
    After ++ Before.

-spec stats(#graph{}) -> #{atom() => non_neg_integer()}.
stats(#graph{along = Along, against = Against} = Graph) ->
    Roots = ends(Against, Graph),
    #{
        node_count => Graph#graph.nodes,
        edge_count => Graph#graph.edges,
        root_count => length(Roots),
        leaf_count => length(ends(Along, Graph)),
        max_depth => depth(Roots, #{}, Along, 0)
    }.

%% Breadth first, from all roots at once. They are not marked: nothing leads to them.
-spec depth([number_of_node()], #{number_of_node() => []}, neighbours(), Depth) -> Depth when
    Depth :: non_neg_integer().
depth(Level, Seen, Along, Depth) ->
    case next_level(Level, Seen, Along, []) of
        {[], _} -> Depth;
        {Next, Marked} -> depth(Next, Marked, Along, Depth + 1)
    end.

%% What the nodes of a level lead to and is not seen yet; that is marked with a value.
-spec next_level([number_of_node()], Seen, neighbours(), Mark) -> {[number_of_node()], Seen} when
    Seen :: #{number_of_node() => Mark}.
next_level(Level, Seen, Neighbours, Mark) ->
    lists:foldl(
        fun(Node, Acc) -> unseen(neighbours(Node, Neighbours), Mark, Acc) end, {[], Seen}, Level
    ).

-spec unseen([number_of_node()], Mark, Acc) -> Acc when
    Acc :: {[number_of_node()], #{number_of_node() => Mark}}.
unseen([Node | Nodes], Mark, {_, Seen} = Acc) when is_map_key(Node, Seen) ->
    unseen(Nodes, Mark, Acc);
unseen([Node | Nodes], Mark, {Next, Seen}) ->
    unseen(Nodes, Mark, {[Node | Next], Seen#{Node => Mark}});
unseen([], _, Acc) ->
    Acc.

%% All that can be reached from a node, without itself.
-spec reached(id(), neighbours(), #graph{}) -> #{number_of_node() => []}.
reached(Id, Neighbours, #graph{index = Index}) ->
    case Index of
        #{Id := Node} -> maps:remove(Node, flooded([Node], #{Node => []}, Neighbours));
        #{} -> #{}
    end.

-spec flooded([number_of_node()], Seen, neighbours()) -> Seen when
    Seen :: #{number_of_node() => []}.
flooded([Node | Open], Seen, Neighbours) ->
    {Next, Marked} = unseen(neighbours(Node, Neighbours), [], {Open, Seen}),
    flooded(Next, Marked, Neighbours);
flooded([], Seen, _) ->
    Seen.

-spec leads([number_of_node()], #{number_of_node() => []}, number_of_node(), neighbours()) ->
    boolean().
leads(_, Seen, To, _) when is_map_key(To, Seen) ->
    true;
leads([Node | Open], Seen, To, Along) ->
    {Next, Marked} = unseen(neighbours(Node, Along), [], {Open, Seen}),
    leads(Next, Marked, To, Along);
leads([], _, _, _) ->
    false.

%% Distances are searched from the end, so that the choice can be made from the start.
-spec shortest(number_of_node(), number_of_node(), #graph{}) -> {ok, [number_of_node()]} | none.
shortest(From, To, #graph{along = Along, against = Against}) ->
    case distances([To], From, 0, Against, #{To => 0}) of
        #{From := _} = Distances -> {ok, descent(From, Distances, Along)};
        #{} -> none
    end.

-spec distances([number_of_node()], number_of_node(), Far, neighbours(), Seen) -> Seen when
    Far :: non_neg_integer(), Seen :: #{number_of_node() => Far}.
distances(Level, From, Far, Against, Seen) when Level =/= [], not is_map_key(From, Seen) ->
    {Next, Marked} = next_level(Level, Seen, Against, Far + 1),
    distances(Next, From, Far + 1, Against, Marked);
distances(_, _, _, _, Seen) ->
    Seen.

-spec longest(#graph{}) -> {ok, [number_of_node()]} | none.
longest(#graph{nodes = 0}) ->
    {ok, []};
longest(#graph{nodes = Nodes, along = Along} = Graph) ->
    case peeled(Graph) of
        {Order, _} when length(Order) < Nodes ->
            none;
        {Order, _} ->
            Heights = lists:foldl(fun(Node, Acc) -> heights(Node, Along, Acc) end, #{}, Order),
            {ok, descent(highest(Heights), Heights, Along)}
    end.

-spec heights(number_of_node(), neighbours(), Heights) -> Heights when
    Heights :: #{number_of_node() => non_neg_integer()}.
heights(Node, Along, Heights) ->
    Below = [maps:get(Next, Heights) + 1 || Next <- neighbours(Node, Along)],
    Heights#{Node => lists:max([0 | Below])}.

-spec highest(#{number_of_node() => non_neg_integer()}) -> number_of_node().
highest(Heights) ->
    {_, Node} = lists:min([{-Height, Node} || Node := Height <- Heights]),
    Node.

%% From a node down to level 0, each step one level down, to the first in node order.
-spec descent(number_of_node(), #{number_of_node() => non_neg_integer()}, neighbours()) ->
    [number_of_node()].
descent(Node, Levels, Along) ->
    case Levels of
        #{Node := 0} ->
            [Node];
        #{Node := Level} ->
            Below = [Next || Next <- neighbours(Node, Along), is_at(Level - 1, Next, Levels)],
            [Node | descent(lists:min(Below), Levels, Along)]
    end.

-spec is_at(non_neg_integer(), number_of_node(), #{number_of_node() => non_neg_integer()}) ->
    boolean().
is_at(Level, Node, Levels) ->
    case Levels of
        #{Node := Level} -> true;
        #{} -> false
    end.

-spec components(#graph{}) -> [[number_of_node()]].
components(#graph{along = Along, against = Against} = Graph) ->
    components(all(Graph), Along, Against, #{}).

-spec components([number_of_node()], neighbours(), neighbours(), #{number_of_node() => []}) ->
    [[number_of_node()]].
components([Node | Nodes], Along, Against, Seen) when is_map_key(Node, Seen) ->
    components(Nodes, Along, Against, Seen);
components([Node | Nodes], Along, Against, Seen) ->
    {Part, Marked} = part([Node], Along, Against, Seen#{Node => []}, [Node]),
    [lists:sort(Part) | components(Nodes, Along, Against, Marked)];
components([], _, _, _) ->
    [].

-spec part(Nodes, neighbours(), neighbours(), Seen, Nodes) -> {Nodes, Seen} when
    Nodes :: [number_of_node()], Seen :: #{number_of_node() => []}.
part([Node | Open], Along, Against, Seen, Part) ->
    Acc = unseen(neighbours(Node, Along), [], {[], Seen}),
    {Next, Marked} = unseen(neighbours(Node, Against), [], Acc),
    part(Next ++ Open, Along, Against, Marked, Next ++ Part);
part([], _, _, Seen, Part) ->
    {Part, Seen}.
