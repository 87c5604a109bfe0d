-module(esdb_graph_gen).
-moduledoc "Arguments for the functions of `esdb_graph_nif`; see `esdb_equivalence_SUITE`.".

-export([args/2, cost/2, observe/3]).
%% Called where the case runs
-export([forged/1, forged/2, forged/4]).
%% For other suites
-export([ids/0, edges/0, id/0]).

-include_lib("proper/include/proper.hrl").

-define(M, esdb_graph_nif).

args(build_edges, 1) -> [with_hostile(list({id(), frequency([{3, id()}, {1, undefined}])}))];
args(new, 2) -> [given_nodes(), given_edges()];
args(add, 3) -> [graph(), given_nodes(), given_edges()];
args(to_dot, 2) -> [with_hostile(list({id(), text(), text()})), given_edges()];
args(to_dot_simple, 2) -> [with_hostile(list({id(), text()})), given_edges()];
args(has_path, 4) -> [given_nodes(), given_edges(), id(), id()];
args(F, 3) when F =:= get_ancestors; F =:= get_descendants -> [given_nodes(), given_edges(), id()];
args(_, 1) -> [graph()];
args(F, 2) when
    F =:= get_ancestors; F =:= get_descendants; F =:= ancestors_count; F =:= descendants_count
->
    [graph(), id()];
args(_, 2) -> [given_nodes(), given_edges()];
args(_, 3) -> [graph(), id(), id()].

cost(_, _) -> costly.

%% A handle is what it answers.
observe(F, _, Graph) when F =:= new; F =:= add ->
    {?M:graph_stats(Graph), ?M:topo_sort(Graph), ?M:find_cycle(Graph), ?M:components(Graph),
        ?M:longest_path(Graph), [?M:get_ancestors(Graph, Id) || Id <- ?M:find_leaves(Graph)]};
observe(_, _, Result) ->
    Result.

%% Often with all of the numbers that most edges are of.
ids() -> ?LET({Some, Numbers}, {list(id()), oneof([[], lists:seq(0, 8)])}, Some ++ Numbers).

edges() ->
    frequency([
        {3, list({id(), id()})},
        %% Without cycles.
        {2, ?LET(Pairs, list({integer(0, 7), integer(1, 4)}), [{A, A + B} || {A, B} <- Pairs])}
    ]).

id() ->
    frequency([
        {12, integer(0, 8)},
        {3, oneof([~"a", ~"b", a, b, "a", 1.0, 0.0, -0.0, {1, [x]}, #{k => 1}, undefined])},
        {1, oneof([<<255, 0>>, <<1:3>>, 1 bsl 80, ~"say \"no\"\\", ~"two\nlines", "", [1 | 2]])}
    ]).

text() -> oneof([binary(), id(), ~"OrderPlaced", ~"a & b &lt; c", "Größe", ["io", ~"list"]]).

given_nodes() -> with_hostile(ids()).

given_edges() ->
    frequency([
        {12, edges()},
        {1, ?LET({Edges, Bad}, {edges(), hostile_edge()}, Edges ++ [Bad])},
        {1, hostile_list()}
    ]).

hostile_edge() -> oneof([{a}, {}, {1, 2, 3}, a, [1, 2], ~"edge", #{1 => 2}]).

with_hostile(Type) -> frequency([{12, Type}, {1, hostile_list()}]).

hostile_list() -> oneof([a, 1, ~"nodes", {}, #{}, [a | b], [{1, 2} | {3, 4}], [{1}], [1, 2 | 3]]).

%% Handles: new ones, grown ones, of a foreign implementation, and forged.
graph() ->
    frequency([
        {6, new()},
        {4,
            ?LET(
                {Graph, Steps},
                {new(), list({ids(), edges()})},
                lists:foldl(fun added/2, Graph, Steps)
            )},
        {2, ?LET(Graph, new(), {'$make', ?MODULE, forged, [Graph]})},
        {1, ?LET({Graph, Other}, {new(), new()}, {'$make', ?MODULE, forged, [Graph, Other]})},
        {2, forged_terms()},
        {1, oneof([a, 1, {}, [], ?LAZY(make_ref()), {esdb_dictionary, <<>>, none} | forged_funs()])}
    ]).

new() -> ?LET({Nodes, Edges}, {ids(), edges()}, {'$make', ?M, new, [Nodes, Edges]}).

added({Nodes, Edges}, Graph) -> {'$make', ?M, add, [Graph, Nodes, Edges]}.

%% Of another version of the module, so that it must be rebuilt.
forged(Graph) -> {esdb_graph, outdated(parts(Graph))}.

%% With what the implementation made of another one.
forged(Graph, Other) ->
    {esdb_graph, outdated(setelement(5, parts(Graph), element(5, parts(Other))))}.

forged(Chunks, Pairs, Waiting, Compiled) ->
    {esdb_graph, outdated({esdb_graph, Chunks, Pairs, Waiting, Compiled})}.

parts({esdb_graph, Kept}) ->
    {env, [Parts]} = erlang:fun_info(Kept, env),
    Parts.

%% A handle's fun as another version of the module would send it, around other parts: one
%% bit of what tells versions apart is turned (NEW_FUN_EXT of the external term format).
outdated(Parts) ->
    {esdb_graph, Kept} = Empty = ?M:new([], []),
    <<131, 112, _:32, Arity, Bit:1, Version:127, Rest/binary>> = term_to_binary(Kept),
    Header = binary:part(Rest, 0, byte_size(Rest) - byte_size(encoded(parts(Empty)))),
    Body = <<Arity, (1 - Bit):1, Version:127, Header/binary, (encoded(Parts))/binary>>,
    binary_to_term(<<131, 112, (byte_size(Body) + 4):32, Body/binary>>).

encoded(Term) ->
    <<131, Bytes/binary>> = term_to_binary(Term),
    Bytes.

forged_terms() ->
    ?LET(
        {Chunks, Pairs, Waiting, Compiled},
        {
            oneof([
                {}, {{a, b}}, {{a, a}}, {{}}, {a}, [], {{a}, {b}}, {{a, b}, {}}, {[a, b]}
            ]),
            oneof([
                [], [<<0:64>>], [<<0:32, 1:32/little>>], [<<9:32, 0:32>>], [<<1, 2, 3>>],
                [<<2:32/little, 0:32>>], [<<0:32>>, <<0:32>>], [<<0:64>> | <<0:64>>], [<<1:9>>],
                <<0:64>>, x
            ]),
            oneof([#{}, #{c => [{a, c}]}, #{c => x}, #{c => [x]}, []]),
            oneof([none, x | compiled()])
        },
        oneof([
            {'$make', ?MODULE, forged, [Chunks, Pairs, Waiting, Compiled]},
            {esdb_graph, Chunks, Pairs, Waiting, Compiled}
        ])
    ).

%% As the twin's, with garbage inside.
compiled() ->
    [
        {graph, make_ref(), 2, 1, #{a => 0, b => 1}, Along, Against}
     || {Along, Against} <- [
            {#{0 => x}, #{}}, {#{0 => [77]}, #{}}, {#{0 => [1]}, #{}}, {#{}, #{0 => [1]}}, {x, y}
        ]
    ].

forged_funs() ->
    [
        {esdb_graph, Kept}
     || Kept <- [
            1, fun ?M:implementation/0, fun ?M:none/0, fun ?M:new/2, fun lists:module_info/0,
            fun() -> {esdb_graph, {{a}}, [], #{}, none} end
        ]
    ].
