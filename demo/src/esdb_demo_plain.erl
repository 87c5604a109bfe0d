-module(esdb_demo_plain).
-moduledoc """
The questions of the demo, answered without the library: `binary_to_term/1`, lists and maps.

It is what `m:esdb_demo_packed` is compared with, in its answers and in its times.

```erlang
1> Page = esdb_demo_plain:keep(Events), esdb_demo_plain:ask(types, [Page]).
#{<<"CommitAuthored">> => 299,<<"CommitMerged">> => 1}
```
""".

-export([keep/1, ask/2]).
-export_type([graph/0]).

-record(graph, {
    %% In the order of the events.
    ids :: [binary()],
    %% Of events whose cause is there.
    causes :: #{binary() => binary()},
    %% In the order of the events.
    effects :: #{binary() => [binary(), ...]}
}).

-opaque graph() :: #graph{}.

%% The sum of the integers and that of the floats.
-type lines() :: {integer(), float() | none}.
-type streams() :: #{binary() => {pos_integer(), lines()}}.

-doc "The events as one binary.".
-spec keep([esdb_demo_event:commit()]) -> binary().
keep(Events) -> term_to_binary(Events).

-doc "The answers of `esdb_demo_packed:ask/2`, of what `keep/1` made.".
-spec ask
    (types | weeks | streams | areas | large, [binary()]) -> esdb_demo_questions:answer();
    (graph, [binary()]) -> {graph(), Edges :: non_neg_integer()};
    (chain | {led_to, binary()}, graph()) -> esdb_demo_questions:answer().
ask(types, Pages) ->
    fold(fun(#{event_type := Type}, Types) -> count(Type, Types) end, #{}, Pages);
ask(weeks, Pages) ->
    Add = fun(#{metadata := Metadata}, Weeks) ->
        count(maps:get(~"correlation_id", Metadata, undefined), Weeks)
    end,
    fold(Add, #{}, Pages);
ask(streams, Pages) ->
    Sums = lists:foldl(fun merge_streams/2, #{}, [streams(binary_to_term(P)) || P <- Pages]),
    #{Stream => [N, total(Lines)] || Stream := {N, Lines} <- Sums};
ask(areas, Pages) ->
    Add = fun(#{data := Data}, Areas) ->
        esdb_demo_event:add_insertions(maps:get(~"areas", Data, undefined), Areas)
    end,
    fold(Add, #{}, Pages);
ask(large, Pages) ->
    Large = esdb_demo_questions:large(),
    Add = fun
        (#{data := #{~"insertions" := N}}, Count) when is_number(N), N > Large -> Count + 1;
        (_, Count) -> Count
    end,
    fold(Add, 0, Pages);
ask(graph, Pages) ->
    Graph = graph(lists:reverse(fold(fun(E, Links) -> [link_of(E) | Links] end, [], Pages))),
    {Graph, map_size(Graph#graph.causes)};
ask(chain, #graph{ids = Ids} = Graph) ->
    Ordered = top_down([Id || Id <- Ids, not is_map_key(Id, Graph#graph.causes)], Graph, []),
    case length(Ordered) =:= length(Ids) of
        true -> {chain, longest(Graph, heights(Ordered, Graph))};
        false -> {circle, circle(Graph, #{Id => [] || Id <- Ordered})}
    end;
ask({led_to, Id}, #graph{ids = Ids} = Graph) ->
    Reached = reached([Id], Graph, #{}),
    [Effect || Effect <- Ids, is_map_key(Effect, Reached), Effect =/= Id].

-spec fold(fun((esdb_demo_event:commit(), Acc) -> Acc), Acc, [binary()]) -> Acc.
fold(Fun, Acc, Pages) ->
    lists:foldl(fun(Page, In) -> lists:foldl(Fun, In, binary_to_term(Page)) end, Acc, Pages).

-spec count(Key, #{Key => pos_integer()}) -> #{Key => pos_integer()}.
count(Key, Counts) ->
    Counts#{Key => maps:get(Key, Counts, 0) + 1}.

%% Page by page: only then floats add up to the same.
-spec streams([esdb_demo_event:commit()]) -> streams().
streams(Events) ->
    Add = fun(#{stream_id := Stream, data := Data}, Streams) ->
        {N, Lines} = maps:get(Stream, Streams, {0, {0, none}}),
        Streams#{Stream => {N + 1, add(maps:get(~"insertions", Data, none), Lines)}}
    end,
    lists:foldl(Add, #{}, Events).

-spec merge_streams(streams(), streams()) -> streams().
merge_streams(Page, Before) ->
    Merge = fun(_, {M, Lines}, {N, {I, F}}) -> {M + N, add(F, add(I, Lines))} end,
    maps:merge_with(Merge, Before, Page).

-spec add(term(), lines()) -> lines().
add(N, {I, F}) when is_integer(N) -> {I + N, F};
add(N, {I, none}) when is_float(N) -> {I, N};
add(N, {I, F}) when is_float(N) -> {I, F + N};
add(_, Lines) -> Lines.

-spec total(lines()) -> number().
total({I, none}) -> I;
total({I, F}) -> I + F.

%% Graphs: each event has one cause at most, so without circles they are trees.

-spec link_of(esdb_demo_event:commit()) -> {Id :: binary(), Cause :: term()}.
link_of(#{event_id := Id, metadata := Metadata}) ->
    {Id, maps:get(~"causation_id", Metadata, none)}.

-spec graph([{binary(), term()}]) -> graph().
graph(Links) ->
    Known = #{Id => [] || {Id, _} <- Links},
    Caused = [Link || {Id, Cause} = Link <- Links, Cause =/= Id, is_map_key(Cause, Known)],
    #graph{
        ids = [Id || {Id, _} <- Links],
        causes = maps:from_list(Caused),
        effects = maps:groups_from_list(fun({_, C}) -> C end, fun({Id, _}) -> Id end, Caused)
    }.

%% All that the roots of trees led to, with them, each behind its cause.
-spec top_down([binary()], graph(), [binary()]) -> [binary()].
top_down([], _, Done) ->
    lists:reverse(Done);
top_down([Id | Ids], #graph{effects = Effects} = Graph, Done) ->
    top_down(maps:get(Id, Effects, []) ++ Ids, Graph, [Id | Done]).

-spec reached([binary()], graph(), #{binary() => []}) -> #{binary() => []}.
reached([], _, Reached) ->
    Reached;
reached([Id | Ids], Graph, Reached) when is_map_key(Id, Reached) ->
    reached(Ids, Graph, Reached);
reached([Id | Ids], #graph{effects = Effects} = Graph, Reached) ->
    reached(maps:get(Id, Effects, []) ++ Ids, Graph, Reached#{Id => []}).

%% The number of events of the longest chain that begins with each.
-spec heights([binary()], graph()) -> #{binary() => pos_integer()}.
heights(TopDown, #graph{effects = Effects}) ->
    Add = fun(Id, Heights) ->
        Heights#{Id => 1 + lists:max([0 | [map_get(E, Heights) || E <- maps:get(Id, Effects, [])]])}
    end,
    lists:foldl(Add, #{}, lists:reverse(TopDown)).

%% Of several the one whose first event comes first, then the second, and so on.
-spec longest(graph(), #{binary() => pos_integer()}) -> [binary()].
longest(#graph{ids = Ids} = Graph, Heights) ->
    down(Ids, lists:max(maps:values(Heights)), Graph, Heights).

-spec down([binary()], non_neg_integer(), graph(), #{binary() => pos_integer()}) -> [binary()].
down(_, 0, _, _) ->
    [];
down(Ids, Height, #graph{effects = Effects} = Graph, Heights) ->
    {value, Id} = lists:search(fun(One) -> map_get(One, Heights) =:= Height end, Ids),
    [Id | down(maps:get(Id, Effects, []), Height - 1, Graph, Heights)].

%% What is in no tree has a circle above it: up from the first of these until one comes again.
-spec circle(graph(), #{binary() => []}) -> [binary()].
circle(#graph{ids = Ids, causes = Causes}, InTrees) ->
    {value, Start} = lists:search(fun(Id) -> not is_map_key(Id, InTrees) end, Ids),
    Circle = up(Start, Causes, [], #{}),
    Members = #{Id => [] || Id <- Circle},
    {value, First} = lists:search(fun(Id) -> is_map_key(Id, Members) end, Ids),
    {Last, Begin} = lists:splitwith(fun(Id) -> Id =/= First end, Circle),
    Begin ++ Last.

-spec up(binary(), #{binary() => binary()}, [binary()], #{binary() => []}) -> [binary()].
up(Id, _, Path, Seen) when is_map_key(Id, Seen) ->
    %% The head of the path is caused by Id, and the circle ends where Id stands in it.
    {Circle, [Id | _]} = lists:splitwith(fun(One) -> One =/= Id end, Path),
    [Id | Circle];
up(Id, Causes, Path, Seen) ->
    up(map_get(Id, Causes), Causes, [Id | Path], Seen#{Id => []}).
