-module(bench_graph).
-moduledoc """
Graphs against the best that OTP has to offer: maps and lists in plain Erlang, and `digraph`.

The graph is a history: each event has one cause, one in ten has two; ids are 20 bytes, as commits
have. The plain Erlang rivals of the kept graph get their maps of neighbours built beforehand too.
""".

-export([run/0]).

-type edges() :: [{term(), term()}].
-type neighbours() :: #{term() => [term()]}.

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    esdb_bench:title("Graphs, from lists"),
    lists:foreach(fun from_lists/1, [1_000, 100_000]),
    esdb_bench:title("Graphs, kept"),
    kept(100_000).

-spec from_lists(pos_integer()) -> ok.
from_lists(Count) ->
    {Nodes, Edges} = history(Count, fun id/1),
    sort(Count, "ids of 20 bytes", Nodes, Edges),
    {Numbers, Pairs} = history(Count, fun(N) -> N end),
    sort(Count, "numbers", Numbers, Pairs).

-spec sort(pos_integer(), string(), [term()], edges()) -> ok.
sort(Count, What, Nodes, Edges) ->
    Ours = fun() -> esdb_graph_nif:topo_sort(Nodes, Edges) end,
    Title = lists:flatten(io_lib:format("topological sort, ~b ~s", [Count, What])),
    Same = fun({ok, A}, {ok, B}) -> is_sorted(A, Edges) andalso is_sorted(B, Edges) end,
    _ = esdb_bench:compare(Title, #{
        ours => {"topo_sort", Ours},
        rival => {"maps", fun() -> kahn(Nodes, Edges) end},
        same => Same,
        goal => 12.0
    }),
    _ = esdb_bench:compare(Title, #{
        ours => {"topo_sort", Ours},
        rival => {"digraph", fun() -> digraph_sort(Nodes, Edges) end},
        same => Same,
        goal => 12.0
    }),
    ok.

-spec kept(pos_integer()) -> ok.
kept(Count) ->
    {Nodes, Edges} = history(Count, fun id/1),
    Graph = esdb_graph_nif:new(Nodes, Edges),
    Along = neighbours(Edges),
    Against = neighbours([{To, From} || {From, To} <- Edges]),
    New = fun() -> esdb_graph_nif:new(Nodes, Edges) end,
    Build = median([element(1, timer:tc(New)) || _ <- lists:seq(1, 9)]),
    [First, Middle, Last] = [id(N) || N <- [1, Count div 1_000, Count]],
    ask("path, through all", 100.0,
        {"has_path", fun() -> esdb_graph_nif:has_path(Graph, First, Last) end},
        fun() -> is_map_key(Last, flood([First], #{First => []}, Along)) end),
    ask("no path", 100.0,
        {"has_path", fun() -> esdb_graph_nif:has_path(Graph, Middle, First) end},
        fun() -> is_map_key(First, flood([Middle], #{Middle => []}, Along)) end),
    ask("descendants, count", 100.0,
        {"descendants_count", fun() -> esdb_graph_nif:descendants_count(Graph, Middle) end},
        fun() -> map_size(flood([Middle], #{Middle => []}, Along)) - 1 end),
    ask("ancestors, count", 100.0,
        {"ancestors_count", fun() -> esdb_graph_nif:ancestors_count(Graph, Last) end},
        fun() -> map_size(flood([Last], #{Last => []}, Against)) - 1 end),
    ask("descendants, ids", 8.0,
        {"get_descendants", fun() -> esdb_graph_nif:get_descendants(Graph, Middle) end},
        fun() -> maps:keys(maps:remove(Middle, flood([Middle], #{Middle => []}, Along))) end),
    ask("ancestors, ids", 8.0,
        {"get_ancestors", fun() -> esdb_graph_nif:get_ancestors(Graph, Last) end},
        fun() -> maps:keys(maps:remove(Last, flood([Last], #{Last => []}, Against))) end),
    _ = esdb_bench:compare("one event more", #{
        ours => {"add", fun() -> esdb_graph_nif:add(Graph, [new], [{Last, new}]) end},
        rival => {"new", fun() -> esdb_graph_nif:new(Nodes ++ [new], [{Last, new} | Edges]) end},
        same => fun(A, B) -> esdb_graph_nif:graph_stats(A) =:= esdb_graph_nif:graph_stats(B) end
    }),
    esdb_bench:note("Building the graph of ~b nodes: ~.1f ms (goal: 50).", [Count, Build / 1_000]).

-spec ask(string(), float(), {string(), fun(() -> term())}, fun(() -> term())) -> ok.
ask(What, Goal, Ours, Rival) ->
    _ = esdb_bench:compare(What, #{
        ours => Ours,
        rival => {"maps, kept too", Rival},
        goal => Goal,
        same => fun(A, B) -> in_order(A) =:= in_order(B) end
    }),
    ok.

-spec in_order(term()) -> term().
in_order(Ids) when is_list(Ids) -> lists:sort(Ids);
in_order(Other) -> Other.

-spec median([T]) -> T.
median(Values) -> lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

-spec id(integer()) -> binary().
id(N) -> crypto:hash(sha, <<N:64>>).

%% Events in their order, each caused by one of the hundred before it. Terms are shared as they are
%% in lists that were made from the same events.
-spec history(pos_integer(), fun((integer()) -> term())) -> {[term()], edges()}.
history(Count, Id) ->
    _ = rand:seed(exsss, {1, 2, 3}),
    Ids = list_to_tuple([Id(N) || N <- lists:seq(1, Count)]),
    Cause = fun(N) -> element(max(1, N - rand:uniform(100)), Ids) end,
    Edges = [
        {Cause(N), element(N, Ids)}
     || N <- lists:seq(2, Count), _ <- lists:seq(0, N rem 10 div 9)
    ],
    {tuple_to_list(Ids), Edges}.

-spec is_sorted([term()], edges()) -> boolean().
is_sorted(Order, Edges) ->
    Places = #{Id => Place || {Place, Id} <- lists:enumerate(Order)},
    lists:all(fun({A, B}) -> map_get(A, Places) < map_get(B, Places) end, Edges).

%% Rivals

-spec kahn([term()], edges()) -> {ok, [term()]} | {error, cycle_detected}.
kahn(Nodes, Edges) ->
    Zero = maps:from_keys(Nodes, 0),
    {Waits, Next} = degrees(Edges, Zero, #{}),
    Ready = [Node || Node <- Nodes, map_get(Node, Waits) =:= 0],
    Order = kahn(Ready, Waits, Next, []),
    case length(Order) =:= map_size(Zero) of
        true -> {ok, lists:reverse(Order)};
        false -> {error, cycle_detected}
    end.

-spec degrees(edges(), #{term() => integer()}, neighbours()) ->
    {#{term() => integer()}, neighbours()}.
degrees([{From, To} | Edges], Waits, Next) ->
    case Waits of
        #{From := _, To := Count} ->
            Others = maps:get(From, Next, []),
            degrees(Edges, Waits#{To := Count + 1}, Next#{From => [To | Others]});
        #{} ->
            degrees(Edges, Waits, Next)
    end;
degrees([], Waits, Next) ->
    {Waits, Next}.

-spec kahn([term()], #{term() => integer()}, neighbours(), [term()]) -> [term()].
kahn([Node | Ready], Waits, Next, Order) ->
    {More, Left} = lists:foldl(
        fun(To, {Acc, Counts}) ->
            case Counts of
                #{To := 1} -> {[To | Acc], Counts#{To := 0}};
                #{To := Count} -> {Acc, Counts#{To := Count - 1}}
            end
        end,
        {Ready, Waits},
        maps:get(Node, Next, [])
    ),
    kahn(More, Left, Next, [Node | Order]);
kahn([], _, _, Order) ->
    Order.

-spec digraph_sort([term()], edges()) -> {ok, [term()]} | {error, cycle_detected}.
digraph_sort(Nodes, Edges) ->
    Graph = digraph:new(),
    lists:foreach(fun(Node) -> digraph:add_vertex(Graph, Node) end, Nodes),
    lists:foreach(fun({From, To}) -> digraph:add_edge(Graph, From, To) end, Edges),
    Sorted = digraph_utils:topsort(Graph),
    true = digraph:delete(Graph),
    case Sorted of
        false -> {error, cycle_detected};
        _ -> {ok, Sorted}
    end.

-spec neighbours(edges()) -> neighbours().
neighbours(Edges) ->
    maps:groups_from_list(fun({From, _}) -> From end, fun({_, To}) -> To end, Edges).

-spec flood([term()], #{term() => []}, neighbours()) -> #{term() => []}.
flood([Node | Open], Seen, Next) ->
    {More, Marked} = lists:foldl(
        fun
            (To, {Acc, Set}) when is_map_key(To, Set) -> {Acc, Set};
            (To, {Acc, Set}) -> {[To | Acc], Set#{To => []}}
        end,
        {Open, Seen},
        maps:get(Node, Next, [])
    ),
    flood(More, Marked, Next);
flood([], Seen, _) ->
    Seen.
