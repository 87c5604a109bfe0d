-module(bench_graph).
-moduledoc """
Graphs against the best that OTP has to offer: maps and lists in plain Erlang, and `digraph`.

The generated graph is a history: each event has one cause, one in ten has two; ids are 20 bytes.
The real one is that of commits and their parents, ids as hexadecimal text: of the file that
`EVENTS` names (NDJSON, gzipped or not), or else the 500 of the tests. The rivals of the kept graph
are kept too, as maps of neighbours, and stop as soon as they know.
""".

-export([run/0]).

-type edges() :: [{term(), term()}].
-type neighbours() :: #{term() => [term()]}.

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    Real = commits(os:getenv("EVENTS", "")),
    esdb_bench:title("Graphs, from lists"),
    lists:foreach(fun from_lists/1, [1_000, 100_000]),
    sort("commits", Real),
    esdb_bench:title("Graphs, kept: 100000 events"),
    kept(history(100_000, fun id/1)),
    esdb_bench:title("Graphs, kept: commits"),
    kept(Real).

-spec from_lists(pos_integer()) -> ok.
from_lists(Count) ->
    sort("ids of 20 bytes", history(Count, fun id/1)),
    sort("numbers", history(Count, fun(N) -> N end)).

-spec sort(string(), {[term()], edges()}) -> ok.
sort(What, {Nodes, Edges}) ->
    Ours = fun() -> esdb_graph_nif:topo_sort(Nodes, Edges) end,
    Title = lists:flatten(io_lib:format("topological sort, ~b ~s", [length(Nodes), What])),
    Same = fun({ok, A}, {ok, B}) -> is_sorted(A, Edges) andalso is_sorted(B, Edges) end,
    lists:foreach(
        fun(Rival) ->
            esdb_bench:compare(Title, #{
                ours => {"topo_sort", Ours}, rival => Rival, same => Same, goal => 12.0
            })
        end,
        [
            {"maps", fun() -> kahn(Nodes, Edges) end},
            {"digraph", fun() -> digraph_sort(Nodes, Edges) end}
        ]
    ).

-spec kept({[term()], edges()}) -> ok.
kept({Nodes, Edges}) ->
    Graph = esdb_graph_nif:new(Nodes, Edges),
    Along = neighbours(Edges),
    Against = neighbours([{To, From} || {From, To} <- Edges]),
    {First, Middle, Last, Other} = asked(Graph, Nodes),
    true = esdb_graph_nif:has_path(Graph, First, Last),
    false = esdb_graph_nif:has_path(Graph, Middle, Other),
    ask("path, from the first to the last", 100.0,
        {"has_path", fun() -> esdb_graph_nif:has_path(Graph, First, Last) end},
        fun() -> leads([First], #{First => []}, Last, Along) end),
    ask("no path", 100.0,
        {"has_path", fun() -> esdb_graph_nif:has_path(Graph, Middle, Other) end},
        fun() -> leads([Middle], #{Middle => []}, Other, Along) end),
    ask("descendants, count", 100.0,
        {"descendants_count", fun() -> esdb_graph_nif:descendants_count(Graph, First) end},
        fun() -> map_size(flood([First], #{First => []}, Along)) - 1 end),
    ask("ancestors, count", 100.0,
        {"ancestors_count", fun() -> esdb_graph_nif:ancestors_count(Graph, Last) end},
        fun() -> map_size(flood([Last], #{Last => []}, Against)) - 1 end),
    ask("descendants, ids", 8.0,
        {"get_descendants", fun() -> esdb_graph_nif:get_descendants(Graph, First) end},
        fun() -> maps:keys(maps:remove(First, flood([First], #{First => []}, Along))) end),
    ask("ancestors, ids", 8.0,
        {"get_ancestors", fun() -> esdb_graph_nif:get_ancestors(Graph, Last) end},
        fun() -> maps:keys(maps:remove(Last, flood([Last], #{Last => []}, Against))) end),
    with_digraph(Graph, Nodes, Edges, Last),
    _ = esdb_bench:compare("one event more", #{
        ours => {"add", fun() -> esdb_graph_nif:add(Graph, [new], [{Last, new}]) end},
        rival => {"new", fun() -> esdb_graph_nif:new(Nodes ++ [new], [{Last, new} | Edges]) end},
        same => fun(A, B) -> esdb_graph_nif:graph_stats(A) =:= esdb_graph_nif:graph_stats(B) end
    }),
    New = fun() -> esdb_graph_nif:new(Nodes, Edges) end,
    Build = median([element(1, timer:tc(New)) || _ <- lists:seq(1, 9)]),
    esdb_bench:note("Building the graph of ~b nodes: ~.1f ms (goal: 50 for 100000).", [
        length(Nodes), Build / 1_000
    ]).

%% The node from which most is reached and the last that it leads to; one halfway, and another,
%% late as well, that this one does not lead to.
-spec asked(esdb_graph_nif:graph(), [term()]) -> {term(), term(), term(), term()}.
asked(Graph, Nodes) ->
    Roots = esdb_graph_nif:find_roots(Graph),
    {_, First} = lists:max([{esdb_graph_nif:descendants_count(Graph, Id), Id} || Id <- Roots]),
    Last = lists:last(esdb_graph_nif:get_descendants(Graph, First)),
    Way = esdb_graph_nif:get_ancestors(Graph, Last),
    Middle = lists:nth(length(Way) div 2, Way),
    Reached = maps:from_keys([Middle | esdb_graph_nif:get_descendants(Graph, Middle)], []),
    [Other | _] = [Id || Id <- lists:reverse(Nodes), not is_map_key(Id, Reached)],
    {First, Middle, Last, Other}.

-spec with_digraph(esdb_graph_nif:graph(), [term()], edges(), term()) -> float().
with_digraph(Graph, Nodes, Edges, Last) ->
    Other = digraph_of(Nodes, Edges, [protected]),
    Ratio = esdb_bench:compare("ancestors, ids", #{
        ours => {"get_ancestors", fun() -> esdb_graph_nif:get_ancestors(Graph, Last) end},
        rival => {"digraph, kept too", fun() ->
            digraph_utils:reaching_neighbours([Last], Other)
        end},
        goal => 8.0,
        same => fun(A, B) -> in_order(A) =:= in_order(B) end
    }),
    true = digraph:delete(Other),
    Ratio.

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

%% Commits with their parents, as far as these are commits of the file too.
-spec commits(file:filename()) -> {[term()], edges()}.
commits(File) ->
    Commits = read_commits(File),
    Causes = [{Id, Cause} || {Id, Parents} <- Commits, Cause <- [undefined | Parents]],
    {[Id || {Id, _} <- Commits], esdb_graph_nif:build_edges(Causes)}.

-spec read_commits(file:filename()) -> [{binary(), [binary()]}].
read_commits("") ->
    {ok, Json} = file:read_file("test/data/commits.json"),
    [{Id, Parents} || [Id, Parents] <- json:decode(Json)];
read_commits(File) ->
    {ok, Bytes} = file:read_file(File),
    Text =
        case filename:extension(File) of
            ".gz" -> zlib:gunzip(Bytes);
            _ -> Bytes
        end,
    Events = [json:decode(Line) || Line <- binary:split(Text, ~"\n", [global, trim_all])],
    [{Id, Parents} || #{~"event_id" := Id, ~"metadata" := #{~"parents" := Parents}} <- Events].

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
    Graph = digraph_of(Nodes, Edges, []),
    Sorted = digraph_utils:topsort(Graph),
    true = digraph:delete(Graph),
    case Sorted of
        false -> {error, cycle_detected};
        _ -> {ok, Sorted}
    end.

-spec digraph_of([term()], edges(), [digraph:d_type()]) -> digraph:graph().
digraph_of(Nodes, Edges, Type) ->
    Graph = digraph:new(Type),
    lists:foreach(fun(Node) -> digraph:add_vertex(Graph, Node) end, Nodes),
    lists:foreach(fun({From, To}) -> digraph:add_edge(Graph, From, To) end, Edges),
    Graph.

-spec neighbours(edges()) -> neighbours().
neighbours(Edges) ->
    maps:groups_from_list(fun({From, _}) -> From end, fun({_, To}) -> To end, Edges).

-spec leads([term()], #{term() => []}, term(), neighbours()) -> boolean().
leads(_, Seen, To, _) when is_map_key(To, Seen) ->
    true;
leads([Node | Open], Seen, To, Next) ->
    {More, Marked} = step(Node, Open, Seen, Next),
    leads(More, Marked, To, Next);
leads([], _, _, _) ->
    false.

-spec flood([term()], #{term() => []}, neighbours()) -> #{term() => []}.
flood([Node | Open], Seen, Next) ->
    {More, Marked} = step(Node, Open, Seen, Next),
    flood(More, Marked, Next);
flood([], Seen, _) ->
    Seen.

-spec step(term(), [term()], #{term() => []}, neighbours()) -> {[term()], #{term() => []}}.
step(Node, Open, Seen, Next) ->
    lists:foldl(
        fun
            (To, {Acc, Set}) when is_map_key(To, Set) -> {Acc, Set};
            (To, {Acc, Set}) -> {[To | Acc], Set#{To => []}}
        end,
        {Open, Seen},
        maps:get(Node, Next, [])
    ).
