-module(esdb_graph_SUITE).
-moduledoc """
Graphs: the rows A-NGR of the checklist, the rules of the module, and two other computations of the
same: a naive one (closures as lists of pairs) for random graphs, and OTP's `digraph` for a part of
a real history (`test/data/commits.json`: commits with their parents, some of them unknown).

`make test EVENTS=file.ndjson.gz` takes a whole file of events instead of that part.
""".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(M, esdb_graph_nif).

suite() -> [{timetrap, {minutes, 10}}].

all() ->
    [
        a_ngr_01_build_edges,
        a_ngr_02_roots_and_leaves,
        a_ngr_03_topological_order,
        a_ngr_04_cycles,
        a_ngr_05_stats,
        t_61_depth_is_that_of_the_shortest_way,
        a_ngr_06_paths,
        a_ngr_07_ancestors_and_descendants,
        a_ngr_08_text_for_graphviz,
        a_ngr_08_ids_are_never_confused,
        a_ngr_08_graphviz_reads_any_id,
        a_ngr_09_a_long_chain,
        a_ngr_09_a_wide_star,
        a_ngr_10_duplicates,
        the_ready_node_that_comes_first,
        a_cycle_is_named,
        ids_are_any_terms,
        shortest_paths,
        longest_paths,
        common_ancestors,
        components,
        handles_never_change,
        versions_branch,
        growing_is_not_quadratic,
        edges_wait_for_their_ends,
        growing_event_by_event,
        foreign_handles_are_rebuilt,
        outdated_handles_are_rebuilt,
        forged_handles_are_refused,
        misuse_is_badarg,
        lists_and_handles_agree,
        growing_is_building_at_once,
        the_naive_computation_agrees,
        real_events_agree_with_digraph
    ].

chain() -> {[a, b, c, d], [{a, b}, {b, c}, {c, d}]}.

a_ngr_01_build_edges(_Config) ->
    ?assertEqual([], ?M:build_edges([])),
    Linear = [{a, undefined}, {b, a}, {c, b}],
    ?assertEqual([{a, b}, {b, c}], ?M:build_edges(Linear)),
    ?assertEqual([{a, b}], ?M:build_edges([{a, gone}, {b, a}])),
    %% A cause may come later; an event may have two; nothing comes twice.
    Twice = [{a, b}, {b, undefined}, {a, c}, {c, x}, {a, b}],
    ?assertEqual([{b, a}, {c, a}], ?M:build_edges(Twice)),
    ?assertEqual([], ?M:build_edges([{undefined, undefined}, {a, undefined}])).

a_ngr_02_roots_and_leaves(_Config) ->
    {Nodes, Edges} = chain(),
    ?assertEqual([a], ?M:find_roots(Nodes, Edges)),
    ?assertEqual([d], ?M:find_leaves(Nodes, Edges)),
    ?assertEqual([z, a, q], ?M:find_roots([z, a, b, q], [{a, b}])),
    ?assertEqual([z, b, q], ?M:find_leaves([z, a, b, q], [{a, b}])),
    ?assertEqual([], ?M:find_roots([], Edges)).

a_ngr_03_topological_order(_Config) ->
    {Nodes, Edges} = chain(),
    ?assertEqual({ok, Nodes}, ?M:topo_sort(lists:reverse(Nodes), Edges)),
    ?assertEqual({ok, []}, ?M:topo_sort([], [])),
    ?assertEqual({error, cycle_detected}, ?M:topo_sort([a, b], [{a, b}, {b, a}])),
    holds(?FORALL({Ids, Pairs}, dag(), begin
        {ok, Order} = ?M:topo_sort(Ids, Pairs),
        Places = maps:from_list(swapped(lists:enumerate(Order))),
        lists:sort(Order) =:= lists:usort(Ids) andalso
            lists:all(fun({A, B}) -> map_get(A, Places) < map_get(B, Places) end, Pairs)
    end)).

a_ngr_04_cycles(_Config) ->
    {Nodes, Edges} = chain(),
    ?assertNot(?M:has_cycle(Nodes, Edges)),
    ?assert(?M:has_cycle(Nodes, [{d, b} | Edges])),
    ?assert(?M:has_cycle([a], [{a, a}])),
    ?assertNot(?M:has_cycle([a], [{a, b}, {b, a}])),
    ?assertNot(?M:has_cycle([], [])).

a_ngr_05_stats(_Config) ->
    {Nodes, Edges} = chain(),
    ?assertEqual(stats(4, 3, 1, 1, 3), ?M:graph_stats(Nodes, Edges)),
    ?assertEqual(stats(4, 3, 2, 2, 1), ?M:graph_stats([a, b, x, y], [{a, x}, {b, x}, {b, y}])),
    ?assertEqual(stats(0, 0, 0, 0, 0), ?M:graph_stats([], [])),
    ?assertEqual(stats(2, 2, 0, 0, 0), ?M:graph_stats([a, b], [{a, b}, {b, a}])).

t_61_depth_is_that_of_the_shortest_way(_Config) ->
    {Nodes, Edges} = chain(),
    ?assertEqual(stats(4, 4, 1, 1, 2), ?M:graph_stats(Nodes, [{a, c} | Edges])),
    ?assertEqual(stats(4, 4, 1, 1, 2), ?M:graph_stats(?M:new(Nodes, [{a, c} | Edges]))),
    ?assertEqual({ok, [a, b, c, d]}, ?M:longest_path(?M:new(Nodes, [{a, c} | Edges]))).

stats(Nodes, Edges, Roots, Leaves, Depth) ->
    #{
        node_count => Nodes,
        edge_count => Edges,
        root_count => Roots,
        leaf_count => Leaves,
        max_depth => Depth
    }.

a_ngr_06_paths(_Config) ->
    {Nodes, Edges} = chain(),
    ?assert(?M:has_path(Nodes, Edges, a, d)),
    ?assertNot(?M:has_path(Nodes, Edges, d, a)),
    ?assert(?M:has_path(Nodes, Edges, b, b)),
    ?assertNot(?M:has_path(Nodes, Edges, a, x)),
    ?assertNot(?M:has_path(Nodes, Edges, x, a)),
    ?assertNot(?M:has_path(Nodes, Edges, x, x)).

a_ngr_07_ancestors_and_descendants(_Config) ->
    {Nodes, Edges} = chain(),
    ?assertEqual([a, b], ?M:get_ancestors(Nodes, Edges, c)),
    ?assertEqual([c, d], ?M:get_descendants(Nodes, Edges, b)),
    ?assertEqual([], ?M:get_ancestors(Nodes, Edges, a)),
    ?assertEqual([], ?M:get_descendants(Nodes, Edges, d)),
    ?assertEqual([], ?M:get_descendants(Nodes, Edges, x)),
    Circle = [{d, a} | Edges],
    ?assertEqual([a, b, d], ?M:get_ancestors(Nodes, Circle, c)),
    ?assertEqual([a, b, d], ?M:get_descendants(Nodes, Circle, c)),
    %% In the order of the nodes, whatever the order of the edges.
    ?assertEqual([d, c, b], ?M:get_descendants([d, a, c, b], lists:reverse(Edges), a)).

a_ngr_08_text_for_graphviz(_Config) ->
    Dot = ?M:to_dot([{~"e1", ~"Placed", ~"42 €"}, {~"e2", paid, "late"}], [{~"e1", ~"e2"}]),
    ?assertEqual(
        ~"""
        digraph causation {
          rankdir=TB;
          node [shape=box];
          "e1" [label="Placed\n42 €"];
          "e2" [label="paid\nlate"];
          "e1" -> "e2";
        }

        """,
        Dot
    ),
    Simple = ?M:to_dot_simple([{~"e1", ~"Placed"}, {~"e1", x}], [{~"e1", ~"e1"}, {~"e1", ~"no"}]),
    Lines = ~"\"e1\" [label=\"Placed\"];\n  \"e1\" -> \"e1\";\n}",
    ?assertMatch({_, _}, binary:match(Simple, Lines)).

a_ngr_08_ids_are_never_confused(_Config) ->
    Alike = [a, ~"a", "a", 1, ~"1", 1.0, ~"1.0", ~"a #2", {a}, ~"{a}"],
    Ids = Alike ++ [<<255>>, ~B(\xFF), ~"a\nb", ~B(a\nb)],
    Dot = ?M:to_dot_simple([{Id, same} || Id <- Ids], []),
    ?assertEqual(length(Ids), length(lists:usort(names(Dot)))).

%% The names of the nodes, with their quotes.
names(Dot) ->
    Lines = [binary:split(Line, ~" [label") || Line <- binary:split(Dot, ~"\n", [global])],
    [Name || [Name, _] <- Lines].

%% Where Graphviz is installed it is asked too.
a_ngr_08_graphviz_reads_any_id(Config) ->
    File = filename:join(?config(priv_dir, Config), "ids.dot"),
    Dot = os:find_executable("dot"),
    holds(100, ?FORALL(Ids, non_empty(list(any_id())), begin
        Unique = lists:uniq(Ids),
        Edges = lists:zip(Unique, tl(Unique) ++ [hd(Unique)]),
        Text = ?M:to_dot([{Id, Id, Id} || Id <- Ids], Edges),
        ok = file:write_file(File, Text),
        {Names, Arrows} = parsed(Text),
        conjunction([
            {names, length(lists:uniq(Names)) =:= length(Unique)},
            {arrows, Arrows =:= lists:zip(Names, tl(Names) ++ [hd(Names)])},
            {text, is_plain(Text)},
            {graphviz, is_read(Dot, File, length(Unique), length(Edges))}
        ])
    end)).

any_id() ->
    oneof([
        binary(),
        ?LET(Codes, list(oneof(special())), list_to_binary(Codes)),
        oneof([~"&lt;", ~"node", ~"<b>html</b>", ~"ends in \\", ~"\\N \\G \\\"", ~"Größe ✓"]),
        oneof([<<0>>, <<"a", 255>>]),
        esdb_graph_gen:id(),
        any()
    ]).

special() -> "\"\\\n\r\t&;<>{}a" ++ [0, 7, 127, 128, 255].

%% The names of the nodes and edges, read strictly by the grammar of the language DOT.
parsed(Text) ->
    Header = ~"digraph causation {\n  rankdir=TB;\n  node [shape=box];\n",
    {0, Size} = binary:match(Text, Header),
    statements(binary:part(Text, Size, byte_size(Text) - Size), [], []).

statements(~"}\n", Nodes, Edges) ->
    {lists:reverse(Nodes), lists:reverse(Edges)};
statements(<<"  \"", Rest/binary>>, Nodes, Edges) ->
    case quoted(Rest, <<>>) of
        {Name, <<" [label=\"", More/binary>>} ->
            {_, <<"];\n", Next/binary>>} = quoted(More, <<>>),
            statements(Next, [Name | Nodes], Edges);
        {From, <<" -> \"", More/binary>>} ->
            {To, <<";\n", Next/binary>>} = quoted(More, <<>>),
            statements(Next, Nodes, [{From, To} | Edges])
    end.

%% As Graphviz does: two backslashes are a pair, one before a quote makes it part of the text.
quoted(<<"\\\\", Rest/binary>>, Text) -> quoted(Rest, <<Text/binary, "\\\\">>);
quoted(<<"\\\"", Rest/binary>>, Text) -> quoted(Rest, <<Text/binary, "\"">>);
quoted(<<"\"", Rest/binary>>, Text) -> {Text, Rest};
quoted(<<C, Rest/binary>>, Text) -> quoted(Rest, <<Text/binary, C>>).

%% UTF-8 without control characters but those that end lines and tabs.
is_plain(Text) ->
    case unicode:characters_to_list(Text) of
        Chars when is_list(Chars) -> [C || C <- Chars, C < 32, C =/= $\n, C =/= $\t] =:= [];
        _ -> false
    end.

is_read(false, _, _, _) ->
    true;
is_read(Dot, File, Nodes, Edges) ->
    Port = open_port({spawn_executable, Dot}, [
        {args, ["-Tplain", File]}, exit_status, binary, stderr_to_stdout
    ]),
    {Status, Output} = output(Port, []),
    Lines = binary:split(Output, ~"\n", [global]),
    %% By bytes: a space and the accent behind it are one character.
    Count = fun(Word) -> length([L || L <- Lines, esdb_filter_nif:has_prefix(L, Word)]) end,
    Status =:= 0 andalso binary:match(Output, [~"Warning", ~"Error"]) =:= nomatch andalso
        {Count(~"node "), Count(~"edge ")} =:= {Nodes, Edges}.

output(Port, Parts) ->
    receive
        {Port, {data, Part}} -> output(Port, [Part | Parts]);
        {Port, {exit_status, Status}} -> {Status, iolist_to_binary(lists:reverse(Parts))}
    end.

%% Each function about handles, and each about lists, with what it must answer. None may take long.
a_ngr_09_a_long_chain(_Config) ->
    Large = large(),
    Nodes = lists:seq(1, Large),
    Edges = [{N, N + 1} || N <- lists:droplast(Nodes)],
    Last = Large - 1,
    Causes = [{N, N - 1} || N <- Nodes],
    large(Nodes, Edges, Causes, {1, Large, Last}, #{
        build_edges => Edges,
        find_roots => [1],
        find_leaves => [Large],
        topo_sort => {ok, Nodes},
        graph_stats => stats(Large, Last, 1, 1, Last),
        get_ancestors => lists:droplast(Nodes),
        get_descendants => tl(Nodes),
        common_ancestors => lists:seq(1, Large - 2),
        shortest_path => {ok, Nodes},
        longest_path => {ok, Nodes}
    }),
    Circle = ?M:new(Nodes, [{Large, 1} | Edges]),
    ?assertEqual({ok, Nodes}, in_time(fun() -> ?M:find_cycle(Circle) end)),
    ?assertEqual({error, cycle_detected}, in_time(fun() -> ?M:longest_path(Circle) end)).

a_ngr_09_a_wide_star(_Config) ->
    Large = large(),
    Leaves = lists:seq(1, Large),
    Nodes = [0 | Leaves],
    Edges = [{0, N} || N <- Leaves],
    Causes = [{0, undefined} | [{N, 0} || N <- Leaves]],
    large(Nodes, Edges, Causes, {0, Large, 1}, #{
        build_edges => Edges,
        find_roots => [0],
        find_leaves => Leaves,
        topo_sort => {ok, Nodes},
        graph_stats => stats(Large + 1, Large, 1, Large, 1),
        get_ancestors => [0],
        get_descendants => Leaves,
        common_ancestors => [0],
        shortest_path => {ok, [0, Large]},
        longest_path => {ok, [0, 1]}
    }).

%% A million; the tests of the twins would take minutes with that.
large() ->
    case ?M:implementation() of
        nif -> 1_000_000;
        erlang -> 200_000
    end.

large(Nodes, Edges, Causes, {First, Last, Other}, Specific) ->
    Graph = ?M:new(Nodes, Edges),
    Expected = Specific#{
        has_cycle => false,
        find_cycle => none,
        has_path => true,
        ancestors_count => length(map_get(get_ancestors, Specific)),
        descendants_count => length(map_get(get_descendants, Specific)),
        components => [Nodes]
    },
    Typed = [{N, t} || N <- Nodes],
    Ids = #{
        get_ancestors => [Last],
        ancestors_count => [Last],
        get_descendants => [First],
        descendants_count => [First],
        has_path => [First, Last],
        shortest_path => [First, Last],
        common_ancestors => [Last, Other]
    },
    Asked = [
        {F, A}
     || {F, A} <- ?M:module_info(exports),
        is_map_key(F, Expected),
        F =/= build_edges
    ],
    [
        begin
            More = maps:get(F, Ids, []),
            Arguments =
                case A - length(More) of
                    1 -> [Graph | More];
                    2 -> [Nodes, Edges | More]
                end,
            Answer = in_time(fun() -> apply(?M, F, Arguments) end),
            ?assert(map_get(F, Expected) =:= Answer, {F, A})
        end
     || {F, A} <- Asked, ?M:implementation() =:= nif orelse is_enough(F, A)
    ],
    ?assert(map_get(build_edges, Expected) =:= in_time(fun() -> ?M:build_edges(Causes) end)),
    Larger = in_time(fun() -> ?M:add(Graph, [more], [{First, more}]) end),
    ?assertEqual([First], ?M:get_ancestors(Larger, more) -- [more]),
    Dot = in_time(fun() -> ?M:to_dot_simple(Typed, Edges) end),
    ?assertEqual(length(Nodes) + length(Edges) + 4, length(binary:matches(Dot, ~"\n"))),
    Labelled = in_time(fun() -> ?M:to_dot([{N, t, l} || N <- Nodes], Edges) end),
    ?assertEqual(length(Nodes), length(binary:matches(Labelled, ~"[label=\"t\\nl\"]"))),
    %% Nothing was left out.
    Called = [{build_edges, 1}, {new, 2}, {add, 3}, {to_dot, 2}, {to_dot_simple, 2} | Asked],
    Others = [{module_info, 0}, {module_info, 1}, {implementation, 0}, {is_nif_loaded, 0}],
    ?assertEqual([], ?M:module_info(exports) -- (Called ++ Others)).

%% In Erlang it takes the most of the time to make the graph of lists, for each function the same.
is_enough(F, 2) -> lists:member(F, [get_ancestors, get_descendants, ancestors_count]);
is_enough(F, 3) -> lists:member(F, [has_path, shortest_path, common_ancestors]);
is_enough(_, A) -> A =:= 1.

%% Seconds, in Erlang too; minutes are for machines that do much else.
in_time(Call) ->
    {Us, Result} = timer:tc(Call),
    ?assert(Us < 300_000_000),
    Result.

a_ngr_10_duplicates(_Config) ->
    Nodes = [a, b, a, b, a],
    Edges = [{a, b}, {a, b}],
    ?assertEqual(stats(2, 2, 1, 1, 1), ?M:graph_stats(Nodes, Edges)),
    ?assertEqual({ok, [a, b]}, ?M:topo_sort(Nodes, Edges)),
    ?assertEqual([a], ?M:find_roots(Nodes, Edges)),
    ?assertEqual([b], ?M:get_descendants(Nodes, Edges, a)),
    ?assertEqual([[a, b]], ?M:components(?M:new(Nodes, Edges))),
    ?assertEqual(none, ?M:find_cycle(Nodes, Edges)).

the_ready_node_that_comes_first(_Config) ->
    ?assertEqual({ok, [c, b, a]}, ?M:topo_sort([c, b, a], [])),
    ?assertEqual({ok, [b, a, d, c]}, ?M:topo_sort([a, b, c, d], [{b, a}, {d, c}])),
    %% a comes first as soon as it is ready.
    ?assertEqual({ok, [b, a, c, d]}, ?M:topo_sort([a, b, c, d], [{b, d}, {b, a}, {b, c}])).

a_cycle_is_named(_Config) ->
    ?assertEqual({ok, [a]}, ?M:find_cycle([b, a], [{a, a}, {b, a}])),
    ?assertEqual({ok, [a, c, b]}, ?M:find_cycle([a, b, c], [{b, a}, {a, c}, {c, b}])),
    ?assertEqual({ok, [b, c]}, ?M:find_cycle([a, b, c, d], [{a, b}, {b, c}, {c, b}, {c, d}])),
    holds(?FORALL({Nodes, Edges}, random(), begin
        case ?M:find_cycle(Nodes, Edges) of
            none ->
                not ?M:has_cycle(Nodes, Edges);
            {ok, [First | Rest] = Cycle} ->
                Steps = lists:zip(Cycle, Rest ++ [First]),
                Order = [Id || Id <- lists:uniq(Nodes), lists:member(Id, Cycle)],
                ?M:has_cycle(Nodes, Edges) andalso Steps -- Edges =:= [] andalso
                    Cycle =:= lists:uniq(Cycle) andalso hd(Order) =:= First
        end
    end)).

ids_are_any_terms(_Config) ->
    Plain = [1, 1.0, 0.0, -0.0, a, "a", ~"a", <<1:3>>, 1 bsl 99, [], {}, undefined],
    Deep = [{a, [1 | 2]}, #{1 => 1}, #{1.0 => 1}],
    Ids = Plain ++ Deep ++ [self(), make_ref(), fun ids_are_any_terms/1],
    Edges = lists:zip(lists:droplast(Ids), tl(Ids)),
    ?assertEqual({ok, Ids}, ?M:topo_sort(Ids, Edges)),
    ?assertEqual({ok, Ids}, ?M:longest_path(?M:new(lists:reverse(Ids), Edges))),
    ?assert(is_binary(?M:to_dot_simple([{Id, Id} || Id <- Ids], Edges))).

shortest_paths(_Config) ->
    {Nodes, Edges} = chain(),
    Graph = ?M:new(Nodes, [{a, c} | Edges]),
    ?assertEqual({ok, [a, c, d]}, ?M:shortest_path(Graph, a, d)),
    ?assertEqual({ok, [b]}, ?M:shortest_path(Graph, b, b)),
    ?assertEqual(none, ?M:shortest_path(Graph, d, a)),
    ?assertEqual(none, ?M:shortest_path(Graph, x, x)),
    %% Of several the one that comes first among the nodes.
    Diamond = ?M:new([a, q, p, z], [{a, p}, {a, q}, {p, z}, {q, z}]),
    ?assertEqual({ok, [a, q, z]}, ?M:shortest_path(Diamond, a, z)).

longest_paths(_Config) ->
    {Nodes, Edges} = chain(),
    ?assertEqual({ok, Nodes}, ?M:longest_path(?M:new(Nodes, [{a, d} | Edges]))),
    ?assertEqual({ok, []}, ?M:longest_path(?M:new([], []))),
    ?assertEqual({ok, [b]}, ?M:longest_path(?M:new([b, a], []))),
    ?assertEqual({ok, [y, q]}, ?M:longest_path(?M:new([y, x, q, p], [{x, p}, {y, p}, {y, q}]))),
    ?assertEqual({error, cycle_detected}, ?M:longest_path(?M:new([a], [{a, a}]))).

common_ancestors(_Config) ->
    Graph = ?M:new([r, a, b, x, y], [{r, a}, {r, b}, {a, x}, {b, x}, {b, y}]),
    ?assertEqual([r, b], ?M:common_ancestors(Graph, x, y)),
    ?assertEqual([r, a, b], ?M:common_ancestors(Graph, x, x)),
    ?assertEqual([], ?M:common_ancestors(Graph, x, unknown)),
    ?assertEqual(3, ?M:ancestors_count(Graph, x)),
    ?assertEqual(2, ?M:descendants_count(Graph, b)),
    ?assertEqual(0, ?M:ancestors_count(Graph, unknown)).

components(_Config) ->
    ?assertEqual([], ?M:components(?M:new([], []))),
    Graph = ?M:new([a, b, c, d, e], [{c, a}, {d, b}, {e, c}]),
    ?assertEqual([[a, c, e], [b, d]], ?M:components(Graph)).

handles_never_change(_Config) ->
    {Nodes, Edges} = chain(),
    Old = ?M:new(Nodes, Edges),
    Bytes = term_to_binary(?M:graph_stats(Old)),
    One = ?M:add(Old, [e], [{d, e}]),
    Other = ?M:add(Old, [f], [{a, f}, {f, d}]),
    ?assertEqual(Bytes, term_to_binary(?M:graph_stats(Old))),
    ?assertEqual([a, b, c], ?M:get_ancestors(Old, d)),
    ?assertEqual([b, c, d, e], ?M:get_descendants(One, a)),
    ?assertEqual([a, b, c, f], ?M:get_ancestors(Other, d)),
    ?assertEqual([], ?M:get_ancestors(Other, e)).

%% Two graphs grow from each version of one, and none of them knows of another.
versions_branch(_Config) ->
    Grow = fun(N, Graph) -> ?M:add(Graph, [N], [{N - 1, N}]) end,
    Versions = lists:foldl(fun(N, [G | _] = Gs) -> [Grow(N, G) | Gs] end, [?M:new([0], [])],
        lists:seq(1, 1_500)),
    Branched = [
        {Graph, ?M:add(Graph, [left], [{0, left}]), ?M:add(Graph, [right], [{right, 0}])}
     || Graph <- Versions
    ],
    Sizes = lists:seq(1_500, 0, -1),
    [
        begin
            ?assertEqual(Size, ?M:descendants_count(Graph, 0)),
            ?assertEqual(Size + 1, ?M:descendants_count(Left, 0)),
            ?assertEqual(0, ?M:ancestors_count(Left, 0)),
            ?assertEqual(Size, ?M:descendants_count(Right, 0)),
            ?assertEqual([right], ?M:get_ancestors(Right, 0))
        end
     || {Size, {Graph, Left, Right}} <- lists:zip(Sizes, Branched)
    ].

%% A graph of eight times as many events takes little longer than eight graphs; were it quadratic,
%% eight times as long. Time of processors: a machine may do other things meanwhile.
growing_is_not_quadratic(_Config) ->
    Add = fun(N, Graph) -> ?M:add(Graph, [N], [{N div 2, N}]) end,
    Grow = fun(Count) -> lists:foldl(Add, ?M:new([], []), lists:seq(1, Count)) end,
    Time = fun(Counts) ->
        {Before, _} = erlang:statistics(runtime),
        lists:foreach(Grow, Counts),
        {After, _} = erlang:statistics(runtime),
        After - Before
    end,
    {Few, Many} = {Time(lists:duplicate(16, 5_000)), Time([40_000, 40_000])},
    ct:log("16 times 5,000 events: ~b ms, twice 40,000 events: ~b ms", [Few, Many]),
    ?assert(Many < 4 * Few).

edges_wait_for_their_ends(_Config) ->
    Graph = ?M:new([b], [{a, b}, {b, c}, {x, y}]),
    ?assertEqual(stats(1, 0, 1, 1, 0), ?M:graph_stats(Graph)),
    Whole = ?M:add(?M:add(?M:add(Graph, [c], []), [y, a], []), [x], []),
    ?assertEqual(stats(5, 3, 2, 2, 2), ?M:graph_stats(Whole)),
    ?assertEqual({ok, [a, b, c, x, y]}, ?M:topo_sort(Whole)),
    ?assertEqual([y], ?M:get_descendants(Whole, x)).

growing_event_by_event(_Config) ->
    Events = [{N, N div 2} || N <- lists:seq(1, 5_000)],
    Grow = fun({Id, Cause}, Graph) -> ?M:add(Graph, [Id], [{Cause, Id}]) end,
    Graph = lists:foldl(Grow, ?M:new([], []), Events),
    Built = ?M:new([Id || {Id, _} <- Events], [{Cause, Id} || {Id, Cause} <- Events]),
    [
        ?assertEqual(?M:F(Built), ?M:F(Graph))
     || F <- [graph_stats, topo_sort, longest_path, components, find_leaves, find_roots]
    ],
    ?assertEqual(?M:get_descendants(Built, 7), ?M:get_descendants(Graph, 7)),
    Halves = [1, 2, 4, 9, 19, 39, 78, 156, 312, 625, 1250, 2500],
    ?assertEqual(Halves, ?M:get_ancestors(Graph, 5_000)).

foreign_handles_are_rebuilt(_Config) ->
    Nodes = lists:seq(1, 3_000),
    Graph = ?M:new(Nodes, [{N, N + 1} || N <- Nodes]),
    Elsewhere = esdb_peer:start(other_mode()),
    try
        {value, Foreign} = esdb_peer:call(Elsewhere, ?M, new, [Nodes, [{N, N + 1} || N <- Nodes]]),
        ?assertEqual(?M:graph_stats(Graph), ?M:graph_stats(Foreign)),
        ?assertEqual(?M:get_ancestors(Graph, 700), ?M:get_ancestors(Foreign, 700)),
        %% There too, and the edge that waits has come along.
        Sent = esdb_peer:call(Elsewhere, ?M, shortest_path, [Graph, 10, 20]),
        ?assertEqual({value, {ok, lists:seq(10, 20)}}, Sent),
        Larger = ?M:add(Foreign, [3_001], []),
        ?assert(?M:has_path(Larger, 1, 3_001)),
        %% The same numbers of nodes and edges, other edges: what is kept of one is not the other's.
        Turned = [{N + 1, N} || N <- Nodes],
        {value, Other} = esdb_peer:call(Elsewhere, ?M, new, [Nodes, Turned]),
        [
            ?assertEqual({ok, Ids}, ?M:topo_sort(Handle))
         || _ <- [once, again], {Handle, Ids} <- [{Foreign, Nodes}, {Other, lists:reverse(Nodes)}]
        ]
    after
        esdb_peer:stop(Elsewhere)
    end.

other_mode() ->
    Built = filelib:wildcard("esdb_graph_nif.so", code:priv_dir(erl_esdb_nifs)) =/= [],
    case ?M:implementation() of
        erlang when Built -> require;
        _ -> off
    end.

%% One of another version of the module is believed its ids and edges alone.
outdated_handles_are_rebuilt(_Config) ->
    Graph = ?M:new([a, b], [{a, b}]),
    Other = ?M:new([c, d], [{d, c}]),
    [
        begin
            ?assertEqual([b], ?M:get_descendants(Handle, a)),
            ?assertEqual([], ?M:get_descendants(Handle, d)),
            ?assertEqual({ok, [a, b]}, ?M:topo_sort(Handle)),
            ?assertEqual([b, e], ?M:get_descendants(?M:add(Handle, [e], [{b, e}]), a))
        end
     || Handle <- [esdb_graph_gen:forged(Graph), esdb_graph_gen:forged(Graph, Other)]
    ].

forged_handles_are_refused(_Config) ->
    Forged = fun(Ids, Pairs) -> esdb_graph_gen:forged(Ids, Pairs, #{}, make_ref()) end,
    ?assertEqual([a], ?M:find_roots(Forged({{a, b}}, [<<0:32/little, 1:32/little>>]))),
    %% In pieces, as far as they are one sequence of pairs.
    ?assertEqual([a], ?M:find_roots(Forged({{a, b}}, [<<1:32/little>>, <<0:32/little>>]))),
    [
        ?assertError(badarg, ?M:find_roots(Forged(Ids, Pairs)))
     || {Ids, Pairs} <- [
            {{{a}}, [<<0:32, 1:32>>]},
            {{{a, a}}, []},
            {{{a}, {b}}, []},
            {{{}}, []},
            {{a}, []},
            {[], []},
            {{{a}}, [<<1, 2, 3>>]},
            {{{a}}, [<<0:64>> | <<0:64>>]},
            {{{a}}, [[<<0:64>>]]},
            {{{a}}, [<<1:9>>]},
            {{{a}}, <<>>},
            {{{a}}, a}
        ]
    ],
    %% Funs that are not those of handles, and the parts without one.
    Parts = {esdb_graph, {{a}}, [], #{}, none},
    [
        ?assertError(badarg, ?M:find_roots(Handle))
     || Handle <- [
            Parts,
            {esdb_graph, Parts},
            {esdb_graph, fun() -> Parts end},
            {esdb_graph, fun(_) -> Parts end},
            {esdb_graph, fun ?M:implementation/0},
            {esdb_graph, fun ?M:none/0}
        ]
    ].

misuse_is_badarg(_Config) ->
    Bad = [a, [a | b], 1, {}],
    [?assertError(badarg, ?M:topo_sort(Nodes, [])) || Nodes <- Bad],
    [?assertError(badarg, ?M:topo_sort([], Edges)) || Edges <- [[a], [{a}], [{a, b, c}] | Bad]],
    [?assertError(badarg, ?M:new([a], Edges)) || Edges <- [[a], [{a}], [{a, b} | c] | Bad]],
    [?assertError(badarg, ?M:build_edges(Pairs)) || Pairs <- [[a], [{a}], [{a, b} | c] | Bad]],
    [?assertError(badarg, ?M:to_dot(Nodes, [])) || Nodes <- [[a], [{a, b}] | Bad]],
    [?assertError(badarg, ?M:has_path(Graph, a, b)) || Graph <- Bad].

%% Properties

lists_and_handles_agree(_Config) ->
    holds(?FORALL({Nodes, Edges, A, B}, {ids(), edges(), id(), id()}, begin
        Graph = ?M:new(Nodes, Edges),
        Whole = [find_roots, find_leaves, topo_sort, has_cycle, find_cycle, graph_stats],
        Walks = [{has_path, [A, B]}, {get_ancestors, [A]}, {get_descendants, [B]}],
        lists:all(
            fun({F, More}) ->
                apply(?M, F, [Nodes, Edges | More]) =:= apply(?M, F, [Graph | More])
            end,
            [{F, []} || F <- Whole] ++ Walks
        )
    end)).

growing_is_building_at_once(_Config) ->
    Steps = non_empty(list({ids(), edges()})),
    holds(?FORALL({Parts, Id}, {Steps, id()}, begin
        {Nodes, Edges} = lists:unzip(Parts),
        Built = ?M:new(lists:append(Nodes), lists:append(Edges)),
        Grown = lists:foldl(fun({N, E}, G) -> ?M:add(G, N, E) end, ?M:new([], []), Parts),
        lists:all(
            fun(F) -> ?M:F(Built) =:= ?M:F(Grown) end,
            [find_roots, topo_sort, find_cycle, graph_stats, longest_path, components]
        ) andalso ?M:get_ancestors(Built, Id) =:= ?M:get_ancestors(Grown, Id)
    end)).

the_naive_computation_agrees(_Config) ->
    holds(?FORALL({Nodes, Edges}, random(), begin
        Ids = lists:uniq(Nodes),
        Known = [E || {A, B} = E <- Edges, lists:member(A, Ids), lists:member(B, Ids)],
        Leads = closure(lists:uniq(Known)),
        Graph = ?M:new(Nodes, Edges),
        Cyclic = lists:any(fun(Id) -> lists:member({Id, Id}, Leads) end, Ids),
        Pairs = [{A, B} || A <- Ids, B <- Ids],
        Paths = [Pair || {A, B} = Pair <- Pairs, ?M:has_path(Graph, A, B)],
        Ancestors = [[A || A <- Ids, A =/= I, lists:member({A, I}, Leads)] || I <- Ids],
        Descendants = [[D || D <- Ids, D =/= I, lists:member({I, D}, Leads)] || I <- Ids],
        Roots = [I || I <- Ids, not lists:any(fun({_, B}) -> B =:= I end, Known)],
        Leaves = [I || I <- Ids, not lists:any(fun({A, _}) -> A =:= I end, Known)],
        Shortest = [naive_shortest([[A]], B, Ids, Known) || {A, B} <- Pairs],
        Both = closure(lists:uniq(Known ++ swapped(Known) ++ [{I, I} || I <- Ids])),
        Parts = lists:uniq([[J || J <- Ids, lists:member({I, J}, Both)] || I <- Ids]),
        Common = [
            [Id || Id <- As, lists:member(Id, Bs)]
         || As <- Ancestors, Bs <- Ancestors
        ],
        Depths = [
            lists:min([length(Path) - 1 || {{From, To}, {ok, Path}} <- lists:zip(Pairs, Shortest),
                lists:member(From, Roots), To =:= Id])
         || Id <- Ids,
            lists:any(fun(R) -> R =:= Id orelse lists:member({R, Id}, Leads) end, Roots)
        ],
        conjunction([
            {roots, ?M:find_roots(Graph) =:= Roots},
            {leaves, ?M:find_leaves(Graph) =:= Leaves},
            {stats,
                ?M:graph_stats(Graph) =:=
                    stats(length(Ids), length(Known), length(Roots), length(Leaves),
                        lists:max([0 | Depths]))},
            {cycle, ?M:has_cycle(Graph) =:= Cyclic},
            {sorted, ?M:topo_sort(Graph) =:= naive_sort(Ids, Known)},
            {paths, Paths =:= [P || {A, B} = P <- Pairs, A =:= B orelse lists:member(P, Leads)]},
            {ancestors, [?M:get_ancestors(Graph, I) || I <- Ids] =:= Ancestors},
            {descendants, [?M:get_descendants(Graph, I) || I <- Ids] =:= Descendants},
            {counts, [?M:ancestors_count(Graph, I) || I <- Ids] =:= [length(A) || A <- Ancestors]},
            {counts_down,
                [?M:descendants_count(Graph, I) || I <- Ids] =:= [length(D) || D <- Descendants]},
            {common, [?M:common_ancestors(Graph, A, B) || {A, B} <- Pairs] =:= Common},
            {components, ?M:components(Graph) =:= Parts},
            {shortest, [?M:shortest_path(Graph, A, B) || {A, B} <- Pairs] =:= Shortest},
            {longest, Cyclic orelse ?M:longest_path(Graph) =:= {ok, naive_longest(Ids, Known)}}
        ])
    end)).

closure(Pairs) ->
    case lists:uniq(Pairs ++ [{A, D} || {A, B} <- Pairs, {C, D} <- Pairs, B =:= C]) of
        Pairs -> Pairs;
        More -> closure(More)
    end.

naive_sort([], _) ->
    {ok, []};
naive_sort(Ids, Edges) ->
    case [Id || Id <- Ids, not lists:any(fun({_, To}) -> To =:= Id end, Edges)] of
        [] ->
            {error, cycle_detected};
        [Id | _] ->
            case naive_sort(Ids -- [Id], [E || {A, _} = E <- Edges, A =/= Id]) of
                {ok, Rest} -> {ok, [Id | Rest]};
                Error -> Error
            end
    end.

%% All paths without repeats, level by level, in the order of the nodes; kept in reverse.
naive_shortest([], _, _, _) ->
    none;
naive_shortest(Paths, To, Ids, Edges) ->
    case [Path || [Last | _] = Path <- Paths, Last =:= To] of
        [Path | _] -> {ok, lists:reverse(Path)};
        [] -> naive_shortest(firsts(extended(Paths, Ids, Edges), []), To, Ids, Edges)
    end.

extended(Paths, Ids, Edges) ->
    [
        [Id, Last | Path]
     || [Last | Path] <- Paths,
        Id <- Ids,
        lists:member({Last, Id}, Edges),
        not lists:member(Id, [Last | Path])
    ].

%% The first path to each node is enough.
firsts([[Last | _] = Path | Paths], Kept) ->
    case lists:member(Last, [hd(K) || K <- Kept]) of
        true -> firsts(Paths, Kept);
        false -> firsts(Paths, Kept ++ [Path])
    end;
firsts([], Kept) ->
    Kept.

naive_longest(Ids, Edges) -> lists:reverse(naive_longest([[Id] || Id <- Ids], [], Ids, Edges)).

naive_longest([], Best, _, _) ->
    Best;
naive_longest([First | _] = Paths, _, Ids, Edges) ->
    naive_longest(firsts(extended(Paths, Ids, Edges), []), First, Ids, Edges).

%% Real events

real_events_agree_with_digraph(_Config) ->
    Commits = [
        {Id, Parents}
     || #{event_id := Id, metadata := #{~"parents" := Parents}} <- esdb_commits:events()
    ],
    ?assert(length(Commits) >= 500),
    %% All of few, and a hundred or so of many.
    compare_with_digraph(Commits, max(1, (length(Commits) - 500) div 100)).

%% Every Step-th commit is asked about.
compare_with_digraph(Commits, Step) ->
    Ids = [Id || {Id, _} <- Commits],
    Known = maps:from_keys(Ids, []),
    Edges = [{Parent, Id} || {Id, Parents} <- Commits, Parent <- Parents],
    ?assertEqual(
        [Edge || {Parent, _} = Edge <- Edges, is_map_key(Parent, Known)],
        ?M:build_edges([{Id, P} || {Id, Parents} <- Commits, P <- [undefined | Parents]])
    ),
    Graph = ?M:new(Ids, Edges),
    Other = digraph:new(),
    [digraph:add_vertex(Other, Id) || Id <- Ids],
    [digraph:add_edge(Other, A, B) || {A, B} <- Edges, is_map_key(A, Known)],
    Asked = [Id || {Place, Id} <- lists:enumerate(Ids), Place rem Step =:= 0],
    #{edge_count := EdgeCount} = ?M:graph_stats(Graph),
    ?assertEqual(digraph:no_edges(Other), EdgeCount),
    ?assertEqual([Id || Id <- Ids, digraph:in_degree(Other, Id) =:= 0], ?M:find_roots(Graph)),
    ?assertEqual([Id || Id <- Ids, digraph:out_degree(Other, Id) =:= 0], ?M:find_leaves(Graph)),
    ?assertEqual(not digraph_utils:is_acyclic(Other), ?M:has_cycle(Graph)),
    ?assertEqual(
        lists:sort([lists:sort(Part) || Part <- digraph_utils:components(Other)]),
        lists:sort([lists:sort(Part) || Part <- ?M:components(Graph)])
    ),
    {ok, Order} = ?M:topo_sort(Graph),
    ?assertEqual({ok, Order}, ?M:topo_sort(Ids, Edges)),
    is_sorted(Order, Edges),
    {ok, Longest} = ?M:longest_path(Graph),
    ?assertEqual(longest(Order, Edges), length(Longest)),
    [
        begin
            Reaching = digraph_utils:reaching_neighbours([Id], Other),
            Reachable = digraph_utils:reachable_neighbours([Id], Other),
            ?assertEqual(lists:sort(Reaching), lists:sort(?M:get_ancestors(Graph, Id))),
            ?assertEqual(length(Reaching), ?M:ancestors_count(Graph, Id)),
            ?assertEqual(lists:sort(Reachable), lists:sort(?M:get_descendants(Graph, Id))),
            ?assertEqual(length(Reachable), ?M:descendants_count(Graph, Id)),
            Shortest = digraph:get_short_path(Other, hd(Ids), Id),
            same_length(Shortest, ?M:shortest_path(Graph, hd(Ids), Id))
        end
     || Id <- Asked
    ],
    ct:pal("~b commits, ~b edges, longest chain ~b", [length(Ids), EdgeCount, length(Longest)]),
    digraph:delete(Other).

same_length(false, Path) -> ?assert(Path =:= none orelse length(element(2, Path)) =:= 1);
same_length(Expected, {ok, Path}) -> ?assertEqual(length(Expected), length(Path)).

is_sorted(Order, Edges) ->
    Places = maps:from_list(swapped(lists:enumerate(Order))),
    [?assert(map_get(A, Places) < map_get(B, Places)) || {A, B} <- Edges, is_map_key(A, Places)].

longest(Order, Edges) ->
    Next = maps:groups_from_list(fun({A, _}) -> A end, fun({_, B}) -> B end, Edges),
    Lengths = lists:foldr(
        fun(Id, Acc) ->
            Acc#{Id => 1 + lists:max([0 | [map_get(B, Acc) || B <- maps:get(Id, Next, [])]])}
        end,
        #{},
        Order
    ),
    lists:max(maps:values(Lengths)).

%% Generators

ids() -> esdb_graph_gen:ids().
edges() -> esdb_graph_gen:edges().
id() -> esdb_graph_gen:id().

random() ->
    ?LET(
        Nodes,
        list(oneof([a, b, c, 1, 1.0, ~"1", #{1 => a}, #{1.0 => a}, unusual()])),
        {Nodes, list({oneof([x | Nodes]), oneof([x | Nodes])})}
    ).

%% The same terms each time: a few of them, so that they meet again.
unusual() ->
    oneof([
        self(),
        list_to_ref("#Ref<0.1.2.3>"),
        fun lists:sort/1,
        fun ?MODULE:suite/0,
        binary:copy(~"long ", 20_000),
        [binary:copy(~"long ", 20_000)],
        <<5:3>>,
        1 bsl 64,
        -0.0,
        0.0,
        {[], #{}}
    ]).

dag() ->
    ?LET(
        {Ids, Pairs},
        {list(integer(0, 20)), list({integer(0, 20), integer(1, 20)})},
        {Ids, [{A, A + B} || {A, B} <- Pairs, lists:member(A, Ids), lists:member(A + B, Ids)]}
    ).

swapped(Pairs) -> [{B, A} || {A, B} <- Pairs].

holds(Property) -> holds(1_000, Property).

holds(Cases, Property) ->
    Times = Cases * list_to_integer(os:getenv("ESDB_PROP", "1")),
    ?assert(proper:quickcheck(Property, [quiet, {numtests, Times}, {to_file, user}])).
