-module(erl_esdb_causation_SUITE).
-moduledoc """
What led to an event and what it led to: row by row of the checklist, against a computation on the
list of all events, and on commits, each caused by its first parent.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_causation, [get_effects/2, get_cause/2, get_chain/2, get_correlated/2]).
-import(erl_esdb_causation, [build_graph/2, to_dot/1, to_svg/1, to_svg/2]).
-import(erl_esdb_test, [ids/1]).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all() ++ [{group, drawing}].

groups() ->
    erl_esdb_test:groups(cases("a_cau_") ++ cases("b_")) ++
        [{drawing, [], cases("d_") ++ cases("t_")}].

cases(Prefix) ->
    [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix(Prefix, atom_to_list(F))].

init_per_group(Group, Config) -> erl_esdb_test:init_per_group(Group, Config).

end_per_group(Group, Config) -> erl_esdb_test:end_per_group(Group, Config).

init_per_testcase(_Case, Config) ->
    case proplists:get_value(options, Config) of
        undefined -> Config;
        Options -> [{store, erl_esdb_test:start_store(Options)} | Config]
    end.

end_per_testcase(_Case, Config) ->
    _ = [erl_esdb:stop_store(Store) || {store, Store} <- Config],
    ok.

store(Config) -> proplists:get_value(store, Config).

%% ---- events

event(Id) -> event(Id, #{}).

event(Id, Metadata) ->
    #{event_id => Id, event_type => ~"Step", data => #{}, metadata => Metadata}.

caused(Id, Cause) -> event(Id, #{causation_id => Cause}).

in(Id, Correlation) -> event(Id, #{correlation_id => Correlation}).

append(Store, Events) -> append(Store, ~"s", Events).

append(Store, Stream, Events) ->
    {ok, _} = erl_esdb_streams:append(Store, Stream, any, Events),
    ok.

%% a -> b -> c -> d, each in a stream of its own.
chain(Store) ->
    append(Store, ~"s-a", [event(~"a")]),
    append(Store, ~"s-b", [caused(~"b", ~"a")]),
    append(Store, ~"s-c", [caused(~"c", ~"b")]),
    append(Store, ~"s-d", [caused(~"d", ~"c")]).

found({ok, Events}) when is_list(Events) -> ids(Events).

%% ---- the checklist

a_cau_01_effects(Config) ->
    Store = store(Config),
    append(Store, ~"x", [event(~"a"), caused(~"b", ~"a"), caused(~"other", ~"b")]),
    append(Store, ~"y", [caused(~"c", ~"a")]),
    ?assertEqual([~"b", ~"c"], found(get_effects(Store, ~"a"))),
    {ok, [#event{stream_id = ~"x", version = 1, position = 1}, #event{stream_id = ~"y"}]} =
        get_effects(Store, ~"a").

a_cau_02_no_effects(Config) ->
    Store = store(Config),
    ?assertEqual({ok, []}, get_effects(Store, ~"a")),
    chain(Store),
    ?assertEqual({ok, []}, get_effects(Store, ~"d")),
    ?assertEqual({ok, []}, get_effects(Store, ~"unknown")).

a_cau_03_cause(Config) ->
    Store = store(Config),
    chain(Store),
    {ok, [Event]} = erl_esdb_streams:read(Store, ~"s-b", 0, 1, forward),
    ?assertEqual({ok, Event}, get_cause(Store, ~"c")).

a_cau_04_no_cause(Config) ->
    Store = store(Config),
    chain(Store),
    ?assertEqual({error, not_found}, get_cause(Store, ~"unknown")),
    ?assertEqual({error, no_cause}, get_cause(Store, ~"a")),
    ok = erl_esdb_streams:delete(Store, ~"s-b"),
    ?assertEqual({error, not_found}, get_cause(Store, ~"c")).

a_cau_05_chain(Config) ->
    Store = store(Config),
    chain(Store),
    ?assertEqual([~"a", ~"b", ~"c", ~"d"], found(get_chain(Store, ~"d"))),
    ?assertEqual([~"a", ~"b"], found(get_chain(Store, ~"b"))),
    ?assertEqual([~"a"], found(get_chain(Store, ~"a"))),
    ?assertEqual({error, not_found}, get_chain(Store, ~"unknown")).

a_cau_06_a_broken_chain(Config) ->
    Store = store(Config),
    chain(Store),
    ok = erl_esdb_streams:delete(Store, ~"s-a"),
    ?assertEqual([~"b", ~"c", ~"d"], found(get_chain(Store, ~"d"))),
    ok = erl_esdb_streams:delete(Store, ~"s-c"),
    ?assertEqual([~"d"], found(get_chain(Store, ~"d"))).

a_cau_07_a_cycle(Config) ->
    Store = store(Config),
    append(Store, [caused(~"a", ~"b"), caused(~"b", ~"a"), caused(~"self", ~"self")]),
    ?assertEqual([~"b", ~"a"], found(get_chain(Store, ~"a"))),
    ?assertEqual([~"a", ~"b"], found(get_chain(Store, ~"b"))),
    ?assertEqual([~"self"], found(get_chain(Store, ~"self"))),
    append(Store, [caused(~"c", ~"a")]),
    ?assertEqual([~"b", ~"a", ~"c"], found(get_chain(Store, ~"c"))),
    {ok, #{nodes := Nodes, edges := Edges, root := undefined}} = build_graph(Store, ~"c"),
    ?assertEqual([~"a", ~"b", ~"c"], ids(Nodes)),
    ?assertEqual([{~"a", ~"b"}, {~"a", ~"c"}, {~"b", ~"a"}], lists:sort(Edges)).

a_cau_08_correlated(Config) ->
    Store = store(Config),
    append(Store, ~"x", [in(~"a", ~"r"), in(~"b", ~"other")]),
    append(Store, ~"y", [in(~"c", ~"r")]),
    append(Store, ~"x", [in(~"d", ~"r")]),
    ?assertEqual([~"a", ~"c", ~"d"], found(get_correlated(Store, ~"r"))),
    ?assertEqual({ok, []}, get_correlated(Store, ~"unknown")).

a_cau_09_graph_of_an_event(Config) ->
    Store = store(Config),
    chain(Store),
    append(Store, [caused(~"c2", ~"b"), caused(~"d2", ~"c2"), event(~"else")]),
    Expected = #{
        ids => [~"a", ~"b", ~"c", ~"d", ~"c2", ~"d2"],
        edges => lists:sort([
            {~"a", ~"b"}, {~"b", ~"c"}, {~"b", ~"c2"}, {~"c", ~"d"}, {~"c2", ~"d2"}
        ]),
        root => ~"a"
    },
    [?assertEqual(Expected, shape(build_graph(Store, Id)), Id) || Id <- [~"d2", ~"c", ~"a"]].

shape({ok, #{nodes := Nodes, edges := Edges, root := Root} = Graph}) when map_size(Graph) =:= 3 ->
    #{ids => ids(Nodes), edges => lists:sort(Edges), root => Root}.

a_cau_10_graph_of_a_correlation(Config) ->
    Store = store(Config),
    In = fun(Id, Cause) -> event(Id, #{causation_id => Cause, correlation_id => ~"r"}) end,
    append(Store, [
        event(~"before"),
        In(~"a", ~"c"),
        In(~"b", ~"before"),
        In(~"c", ~"b"),
        caused(~"d", ~"c")
    ]),
    ?assertEqual(
        #{
            ids => [~"a", ~"b", ~"c"],
            edges => [{~"b", ~"c"}, {~"c", ~"a"}],
            %% the first that none of them caused
            root => ~"b"
        },
        shape(build_graph(Store, ~"r"))
    ),
    append(Store, [event(~"x", #{causation_id => ~"y", correlation_id => ~"o"})]),
    append(Store, [event(~"y", #{causation_id => ~"x", correlation_id => ~"o"})]),
    ?assertMatch(#{ids := [~"x", ~"y"], root := undefined}, shape(build_graph(Store, ~"o"))).

a_cau_11_graph_of_nothing(Config) ->
    Store = store(Config),
    chain(Store),
    ?assertEqual({error, not_found}, build_graph(Store, ~"unknown")).

a_cau_12_shared_descendants(Config) ->
    Store = store(Config),
    %% An event names one cause; two ways to one event come of an id that was used twice.
    append(Store, ~"x", [event(~"a"), caused(~"b", ~"a"), caused(~"c", ~"a"), caused(~"d", ~"b")]),
    append(Store, ~"y", [caused(~"d", ~"c")]),
    append(Store, ~"y", [caused(~"e", ~"d")]),
    #{ids := Ids, edges := Edges} = shape(build_graph(Store, ~"e")),
    ?assertEqual([~"a", ~"b", ~"c", ~"d", ~"e"], lists:sort(Ids)),
    ?assertEqual(lists:usort(Edges), Edges),
    ?assertEqual([{~"a", ~"b"}, {~"a", ~"c"}, {~"b", ~"d"}, {~"d", ~"e"}], Edges),
    append(Store, ~"z", [in(~"p", ~"r"), in(~"q", ~"r")]),
    append(Store, ~"z", [event(~"p", #{correlation_id => ~"r", causation_id => ~"q"})]),
    ?assertMatch(#{ids := [~"p", ~"q"]}, shape(build_graph(Store, ~"r"))).

a_cau_15_many_events(Config) ->
    Store = store(Config),
    Count = 10_050,
    Metadata = #{causation_id => ~"root", correlation_id => ~"r"},
    Ids = [integer_to_binary(N) || N <- lists:seq(1, Count)],
    append(Store, [event(~"root")]),
    append(Store, [event(Id, Metadata) || Id <- Ids]),
    ?assertEqual(Ids, found(get_effects(Store, ~"root"))),
    ?assertEqual(Ids, found(get_correlated(Store, ~"r"))),
    ?assertEqual([~"root", lists:last(Ids)], found(get_chain(Store, lists:last(Ids)))),
    {ok, #{nodes := Nodes, edges := Edges}} = build_graph(Store, ~"5000"),
    ?assertEqual({[~"root" | Ids], Count}, {ids(Nodes), length(Edges)}).

a_cau_16_binary_keys(Config) ->
    Store = store(Config),
    Metadata = #{~"causation_id" => ~"a", ~"correlation_id" => ~"r"},
    append(Store, [event(~"a"), event(~"b", Metadata)]),
    ?assertEqual([~"b"], found(get_effects(Store, ~"a"))),
    ?assertMatch({ok, #event{event_id = ~"a"}}, get_cause(Store, ~"b")),
    ?assertEqual([~"a", ~"b"], found(get_chain(Store, ~"b"))),
    ?assertEqual([~"b"], found(get_correlated(Store, ~"r"))),
    ?assertMatch(#{edges := [{~"a", ~"b"}], root := ~"a"}, shape(build_graph(Store, ~"b"))).

a_cau_17_telemetry(Config) ->
    Store = store(Config),
    chain(Store),
    append(Store, [in(~"e", ~"r"), in(~"f", ~"r")]),
    ok = erl_esdb_telemetry:attach_many(?FUNCTION_NAME, [?CAUSATION_QUERY], told(self()), none),
    {ok, _} = get_effects(Store, ~"a"),
    {ok, _} = get_cause(Store, ~"b"),
    {ok, _} = get_chain(Store, ~"d"),
    {ok, _} = get_correlated(Store, ~"r"),
    {error, no_cause} = get_cause(Store, ~"a"),
    {error, not_found} = get_chain(Store, ~"unknown"),
    {error, _} = get_chain(no_such_store, ~"d"),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    Expected = [
        {~"a", causation_effects, 1},
        {~"b", causation_cause, 1},
        {~"d", causation_chain, 4},
        {~"r", causation_correlated, 2},
        {~"a", causation_cause, 0},
        {~"unknown", causation_chain, 0}
    ],
    Told = [
        {#{store_id => Store, id => Id, query_type => Type}, Count}
     || {Id, Type, Count} <- Expected
    ],
    ?assertEqual(Told, telemetry()).

told(Self) ->
    fun(?CAUSATION_QUERY, #{duration := Duration, event_count := Count}, Metadata, none) when
        is_integer(Duration), Duration >= 0
    ->
        Self ! {told, {Metadata, Count}}
    end.

telemetry() ->
    receive
        {told, What} -> [What | telemetry()]
    after 0 -> []
    end.

%% ---- beyond the checklist

b_links_change_nothing(Config) ->
    Store = store(Config),
    chain(Store),
    {ok, Events} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    append(Store, ~"$link:steps", Events),
    ?assertEqual([~"b"], found(get_effects(Store, ~"a"))),
    ok = erl_esdb_streams:delete(Store, ~"s-a"),
    ?assertEqual([~"b", ~"c", ~"d"], found(get_chain(Store, ~"d"))).

b_an_id_given_twice_is_the_older_event(Config) ->
    Store = store(Config),
    append(Store, ~"x", [event(~"a")]),
    append(Store, ~"y", [caused(~"a", ~"a0"), caused(~"b", ~"a")]),
    {ok, #event{stream_id = ~"x"}} = get_cause(Store, ~"b"),
    ?assertEqual({error, no_cause}, get_cause(Store, ~"a")),
    ok = erl_esdb_streams:delete(Store, ~"x"),
    {ok, #event{stream_id = ~"y"}} = get_cause(Store, ~"b").

b_a_chain_of_thousands(Config) ->
    Store = store(Config),
    Count = 10_000,
    [append(Store, [caused(name(N), name(N - 1))]) || N <- lists:seq(1, Count)],
    Ids = [name(N) || N <- lists:seq(1, Count)],
    ?assertEqual(Ids, found(get_chain(Store, name(Count)))),
    {ok, #{nodes := Nodes, edges := Edges, root := ~"1"}} = build_graph(Store, ~"2"),
    ?assertEqual({Count, Count - 1}, {length(Nodes), length(Edges)}).

name(N) -> integer_to_binary(N).

b_without_the_index(Config) ->
    Options = (proplists:get_value(options, Config))#{indexes => [event_id]},
    Store = erl_esdb_test:start_store(Options),
    chain(Store),
    ?assertEqual([~"a", ~"b"], found(get_chain(Store, ~"b"))),
    ?assertEqual({error, {not_indexed, causation}}, get_effects(Store, ~"a")),
    ?assertEqual({error, {not_indexed, correlation}}, get_correlated(Store, ~"r")),
    ?assertEqual({error, {not_indexed, causation}}, build_graph(Store, ~"a")),
    ok = erl_esdb:stop_store(Store).

questions() ->
    [
        fun erl_esdb_causation:get_effects/2,
        fun erl_esdb_causation:get_cause/2,
        fun erl_esdb_causation:get_chain/2,
        fun erl_esdb_causation:get_correlated/2,
        fun erl_esdb_causation:build_graph/2
    ].

questions_with_options() ->
    [
        fun erl_esdb_causation:get_effects/3,
        fun erl_esdb_causation:get_cause/3,
        fun erl_esdb_causation:get_chain/3,
        fun erl_esdb_causation:get_correlated/3,
        fun erl_esdb_causation:build_graph/3
    ].

b_bad_input(Config) ->
    Store = store(Config),
    [
        ?assertEqual({error, {store_not_started, nowhere}}, Ask(nowhere, ~"a"))
     || Ask <- questions()
    ],
    Bad = [{Store, a}, {Store, "a"}, {Store, undefined}, {~"store", ~"a"}, {"store", ~"a"}],
    [?assertError(badarg, Ask(S, Id), {S, Id}) || Ask <- questions(), {S, Id} <- Bad],
    [?assertError(badarg, Ask(Store, ~"a", [])) || Ask <- questions_with_options()],
    [?assertError(badarg, Ask(Store, ~"a", #{timeout => -1})) || Ask <- questions_with_options()],
    Huge = binary:copy(~"x", 10_000),
    append(Store, [event(Huge), caused(~"b", Huge), event(~"c", #{correlation_id => <<>>})]),
    ?assertEqual([~"b"], found(get_effects(Store, Huge))),
    ?assertEqual([~"c"], found(get_correlated(Store, <<>>))),
    ?assertEqual({ok, []}, get_effects(Store, <<>>)).

b_a_timeout_is_kept(Config) ->
    Store = store(Config),
    Sup = erl_esdb_naming:notification_sup_name(Store),
    {_, Index, _, _} = lists:keyfind(index, 1, supervisor:which_children(Sup)),
    ok = sys:suspend(Index),
    chain(Store),
    [
        ?assertEqual({error, {timeout, Store}}, Ask(Store, ~"a", #{timeout => 5}))
     || Ask <- questions_with_options()
    ],
    ok = sys:resume(Index),
    [
        ?assertNotEqual({error, {timeout, Store}}, Ask(Store, ~"a", #{}))
     || Ask <- questions_with_options()
    ].

%% ---- against a computation on all events

b_any_events_against_a_computation(Config) ->
    Options = proplists:get_value(options, Config),
    Property = ?FORALL(
        {Appends, Removals},
        {list({stream(), list({range(0, 9), cause(), correlation()})}), list(removal())},
        begin
            Store = erl_esdb_test:start_store(Options),
            lists:foreach(fun(Append) -> append_some(Store, Append) end, Appends),
            _ = get_chain(Store, ~"0"),
            lists:foreach(fun(Removal) -> remove(Store, Removal) end, Removals),
            {ok, Events} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
            Wrong = wrong(Store, Events, [integer_to_binary(N) || N <- lists:seq(0, 12)]),
            ok = erl_esdb:stop_store(Store),
            ?WHENFAIL(io:format("~p~n", [Wrong]), Wrong =:= [])
        end
    ),
    erl_esdb_test:property(200, Property).

stream() -> oneof([~"x", ~"y", ~"$link:z"]).
cause() -> oneof([none, range(0, 11)]).
correlation() -> oneof([none, range(9, 12)]).
removal() -> oneof([{truncate, stream(), range(0, 6)}, {delete, stream()}]).

append_some(Store, {Stream, Specs}) ->
    Unique = lists:uniq(fun({Id, _, _}) -> Id end, Specs),
    %% Where the stream has one of the ids nothing is written.
    erl_esdb_streams:append(Store, Stream, any, [
        event(integer_to_binary(Id), maps:from_list(
            [{causation_id, integer_to_binary(C)} || C <- [Cause], C =/= none] ++
                [{~"correlation_id", integer_to_binary(C)} || C <- [Correlation], C =/= none]
        ))
     || {Id, Cause, Correlation} <- Unique
    ]).

remove(Store, {truncate, Stream, Before}) -> erl_esdb_store:truncate(Store, Stream, Before);
remove(Store, {delete, Stream}) -> erl_esdb_streams:delete(Store, Stream).

%% The questions whose answers differ.
wrong(Store, Events, Ids) ->
    Seen = [Event || #event{stream_id = Stream} = Event <- Events, Stream =/= ~"$link:z"],
    Oldest = maps:from_list([{Event#event.event_id, Event} || Event <- lists:reverse(Seen)]),
    Checks = [
        {effects, fun(Id) -> get_effects(Store, Id) =:= {ok, effects(Id, Seen)} end},
        {cause, fun(Id) -> get_cause(Store, Id) =:= cause(Id, Oldest) end},
        {chain, fun(Id) -> get_chain(Store, Id) =:= chain(Id, Oldest) end},
        {correlated, fun(Id) -> get_correlated(Store, Id) =:= {ok, correlated(Id, Seen)} end},
        {graph, fun(Id) -> is_graph(build_graph(Store, Id), Id, Seen, Oldest) end}
    ],
    [{Name, Id} || {Name, Check} <- Checks, Id <- Ids, not Check(Id)].

%% Written without the code it judges.
cause(#event{metadata = Metadata}) -> named(causation_id, Metadata).
correlation(#event{metadata = Metadata}) -> named(correlation_id, Metadata).

named(Key, Metadata) ->
    case maps:get(Key, Metadata, maps:get(atom_to_binary(Key), Metadata, null)) of
        Id when is_binary(Id) -> Id;
        _ -> none
    end.

effects(Id, Events) -> [Event || Event <- Events, cause(Event) =:= Id].

correlated(Id, Events) -> [Event || Event <- Events, correlation(Event) =:= Id].

cause(Id, Oldest) ->
    case Oldest of
        #{Id := Event} ->
            case cause(Event) of
                none -> {error, no_cause};
                Cause when is_map_key(Cause, Oldest) -> {ok, maps:get(Cause, Oldest)};
                _ -> {error, not_found}
            end;
        #{} ->
            {error, not_found}
    end.

chain(Id, Oldest) when is_map_key(Id, Oldest) -> {ok, chain(Id, Oldest, [])};
chain(_, _) -> {error, not_found}.

chain(Id, Oldest, Chain) ->
    case Oldest of
        #{Id := Event} ->
            case lists:member(Event, Chain) of
                true -> Chain;
                false -> chain(cause(Event), Oldest, [Event | Chain])
            end;
        #{} ->
            Chain
    end.

is_graph(Answer, Id, Events, Oldest) ->
    case {chain(Id, Oldest), correlated(Id, Events)} of
        {{ok, [First | _]}, _} -> is_descent(Answer, First, Events);
        {_, []} -> Answer =:= {error, not_found};
        {_, Correlated} -> is_correlation(Answer, Correlated)
    end.

%% Which of two events with one id is taken depends on the way; what is reached does not, where each
%% id stands for one event.
is_descent({ok, #{nodes := Nodes, edges := Edges, root := Root}}, First, Events) ->
    Ids = [Event#event.event_id || Event <- Nodes],
    Reached = closure([First#event.event_id], Events),
    Known = lists:sort(Ids) =:= Reached andalso lists:usort(Nodes) -- Events =:= [],
    Known andalso is_consistent(Nodes, Edges) andalso
        Root =:= root_of([First#event.event_id], Edges);
is_descent(_, _, _) ->
    false.

closure(Ids, Events) ->
    Effects = [E#event.event_id || E <- Events, lists:member(cause(E), Ids)],
    case lists:usort(Ids ++ Effects) of
        Ids -> Ids;
        More -> closure(More, Events)
    end.

is_correlation({ok, #{nodes := Nodes, edges := Edges, root := Root}}, Correlated) ->
    Nodes =:= lists:uniq(fun(E) -> E#event.event_id end, Correlated) andalso
        is_consistent(Nodes, Edges) andalso
        Root =:= root_of([E#event.event_id || E <- Nodes], Edges);
is_correlation(_, _) ->
    false.

is_consistent(Nodes, Edges) ->
    Ids = [E#event.event_id || E <- Nodes],
    Expected = [{cause(E), E#event.event_id} || E <- Nodes, lists:member(cause(E), Ids)],
    Positions = [E#event.position || E <- Nodes],
    lists:sort(Edges) =:= lists:sort(Expected) andalso Positions =:= lists:sort(Positions).

root_of(Ids, Edges) ->
    case [Id || Id <- Ids, not lists:keymember(Id, 2, Edges)] of
        [Root | _] -> Root;
        [] -> undefined
    end.

%% ---- commits

%% The 500 commits of the library's tests, or with ESDB_EVENTS a whole history.
b_commits_against_a_computation(Config) ->
    Store = store(Config),
    Commits = commits(),
    ?assert(length(Commits) >= 500),
    lists:foreach(fun({Stream, Event}) -> append(Store, Stream, [Event]) end, Commits),
    {ok, Events} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    Oldest = maps:from_list([{Event#event.event_id, Event} || Event <- Events]),
    ?assertEqual(length(Commits), map_size(Oldest)),
    Effects = maps:groups_from_list(fun cause/1, Events),
    Related = maps:groups_from_list(fun correlation/1, Events),
    Some = some(Events, 500),
    [
        begin
            ?assertEqual({ok, maps:get(Id, Effects, [])}, get_effects(Store, Id)),
            ?assertEqual(cause(Id, Oldest), get_cause(Store, Id))
        end
     || #event{event_id = Id} <- Some
    ],
    Few = ids(some(Some, 20)),
    [?assertEqual({ok, up(Id, Oldest)}, get_chain(Store, Id)) || Id <- Few],
    Weeks = some(lists:sort(maps:keys(maps:remove(none, Related))), 200),
    ?assertNotEqual([], Weeks),
    [?assertEqual({ok, maps:get(Id, Related)}, get_correlated(Store, Id)) || Id <- Weeks],
    #event{event_id = Last} = lists:last(Events),
    [First | _] = up(Last, Oldest),
    {ok, #{nodes := Nodes, edges := Edges, root := Root}} = build_graph(Store, Last),
    Ids = descent([First#event.event_id], Effects),
    ?assertEqual({First#event.event_id, lists:sort(Ids)}, {Root, lists:sort(ids(Nodes))}),
    ?assertEqual(length(Ids) - 1, length(Edges)).

some(List, Count) ->
    Step = max(1, length(List) div Count),
    [Item || {N, Item} <- lists:enumerate(0, List), N rem Step =:= 0].

up(Id, Oldest) ->
    {ok, Chain} = chain_of_thousands(Id, Oldest, []),
    Chain.

%% A history has no cycles.
chain_of_thousands(Id, Oldest, Chain) ->
    case Oldest of
        #{Id := Event} -> chain_of_thousands(cause(Event), Oldest, [Event | Chain]);
        #{} -> {ok, Chain}
    end.

descent([], _Effects) -> [];
descent(Ids, Effects) ->
    Ids ++ descent([E#event.event_id || Id <- Ids, E <- maps:get(Id, Effects, [])], Effects).

commits() ->
    case os:getenv("ESDB_EVENTS") of
        false -> [sample(Line) || Line <- lists:enumerate(json:decode(read(sample_file())))];
        File -> [whole(json:decode(Line)) || Line <- lines(read(File))]
    end.

%% The area and the week are taken from the hash and the place.
sample({N, [Id, Parents]}) ->
    <<Area, _/binary>> = binary:decode_hex(Id),
    Week = <<"week-", (integer_to_binary(N div 20))/binary>>,
    Metadata = #{causation_id => hd(Parents ++ [undefined]), correlation_id => Week},
    {<<"area-", (integer_to_binary(Area rem 12))/binary>>, event(Id, Metadata)}.

whole(#{~"event_id" := Id, ~"event_type" := Type, ~"stream_id" := Stream} = Event) ->
    #{~"data" := Data, ~"metadata" := Metadata} = Event,
    {Stream, #{event_id => Id, event_type => Type, data => Data, metadata => Metadata}}.

lines(Text) -> binary:split(Text, ~"\n", [global, trim_all]).

read(File) ->
    case file:read_file(File) of
        {ok, <<31, 139, _/binary>> = Zipped} -> zlib:gunzip(Zipped);
        {ok, Text} -> Text
    end.

%% In the folder `test' of the repository's root, wherever this suite was compiled.
sample_file() -> above(filename:dirname(proplists:get_value(source, ?MODULE:module_info(compile)))).

above(Folder) ->
    File = filename:join([Folder, "test", "data", "commits.json"]),
    case filelib:is_regular(File) of
        true -> File;
        false when Folder =/= "/" -> above(filename:dirname(Folder))
    end.

%% ---- drawings

node_of(Id, Type) ->
    #event{
        event_id = Id,
        event_type = Type,
        stream_id = ~"s",
        version = 0,
        data = #{},
        timestamp = 0,
        epoch_us = 0
    }.

graph(Ids, Edges) ->
    #{nodes => [node_of(Id, ~"Step") || Id <- Ids], edges => Edges, root => undefined}.

a_cau_13_the_empty_graph(_Config) ->
    ?assertEqual(~"digraph causation {\n}\n", to_dot(graph([], []))).

a_cau_14_dot(_Config) ->
    Ids = [~"evt-1", ~B(say "hi"), ~B(back\slash)],
    Dot = to_dot(graph(Ids, [{~"evt-1", ~B(say "hi")}])),
    Has = fun(Text) -> binary:match(Dot, Text) =/= nomatch end,
    ?assert(Has(~B("evt-1" [label="evt-1\nStep"];))),
    ?assert(Has(~B("say \"hi\"" [label="say \"hi\"\nStep"];))),
    ?assert(Has(~B("back\\slash" [label="back\\slash\nStep"];))),
    ?assert(Has(~B("evt-1" -> "say \"hi\"";))),
    Size = byte_size(Dot),
    ?assertEqual(~"digraph causation {\n", binary:part(Dot, 0, 20)),
    ?assertEqual(~"\n}\n", binary:part(Dot, Size, -3)).

t_14_quoted_ids_and_the_comment(_Config) ->
    Dot = to_dot(graph([~"evt-1", ~"evt-2"], [{~"evt-1", ~"evt-2"}, {~"evt-1", ~"evt-2"}])),
    ?assertMatch({_, _}, binary:match(Dot, ~B("evt-1" -> "evt-2";))),
    ?assertMatch([_], binary:matches(Dot, ~"\n  // evt-1 -> evt-2\n")),
    %% An id with a line break in it stays in its line.
    Evil = to_dot(graph([~"a\nb", <<255>>], [{~"a\nb", <<255>>}])),
    ?assertMatch([_], binary:matches(Evil, ~B(// a\x0Ab -> ÿ))),
    Lines = binary:split(Evil, ~"\n", [global]),
    ?assertEqual([], [Line || <<"b", _/binary>> = Line <- Lines]).

t_15_chains_begin_with_the_root(Config) ->
    Store = erl_esdb_test:start_store(#{}),
    chain(Store),
    ?assertEqual([~"a", ~"b", ~"c", ~"d"], found(get_chain(Store, ~"d"))),
    ?assertMatch({ok, #{root := ~"a"}}, build_graph(Store, ~"d")),
    ok = erl_esdb:stop_store(Store),
    Config.

t_16_there_is_no_cap(_Config) ->
    Store = erl_esdb_test:start_store(#{}),
    append(Store, [event(~"root")]),
    Metadata = #{causation_id => ~"root", correlation_id => ~"r"},
    [append(Store, [event(<<>>, Metadata) || _ <- lists:seq(1, 1500)]) || _ <- lists:seq(1, 7)],
    {ok, Effects} = get_effects(Store, ~"root"),
    ?assertEqual({10_500, 10_500}, {length(Effects), length(lists:usort(ids(Effects)))}),
    ?assertEqual({ok, Effects}, get_correlated(Store, ~"r")),
    ok = erl_esdb:stop_store(Store).

%% With Graphviz and, by a path on which there is none, without.
d_svg(_Config) ->
    Graph = graph([~"evt-1", ~"a \"b\" \\ c\n<&>", <<255>>], [{~"evt-1", <<255>>}]),
    case os:find_executable("dot") of
        false ->
            ?assertEqual({error, graphviz_not_found}, to_svg(Graph));
        _ ->
            {ok, Svg} = to_svg(Graph),
            ?assertMatch({_, _}, binary:match(Svg, ~"<svg")),
            ?assertMatch({_, _}, binary:match(Svg, ~"evt&#45;1")),
            ?assertMatch({ok, _}, to_svg(graph([], []), infinity))
    end.

d_svg_without_graphviz(_Config) ->
    with_path("/nowhere", fun() ->
        ?assertEqual({error, graphviz_not_found}, to_svg(graph([], [])))
    end).

%% Programs named `dot' that fail, that never end, and that do not read.
d_svg_of_a_bad_program(Config) ->
    Folder = filename:join(proplists:get_value(priv_dir, Config), ?FUNCTION_NAME),
    Path = Folder ++ ":" ++ os:getenv("PATH"),
    Try = fun(Script, Timeout) ->
        program(Folder, Script),
        with_path(Path, fun() -> to_svg(large_graph(), Timeout) end)
    end,
    ?assertEqual({error, {graphviz_failed, 3}}, Try("exit 3", 5000)),
    ?assertEqual({ok, ~"drawn\n"}, Try("cat > /dev/null; echo drawn", 5000)),
    ?assertEqual({error, graphviz_timeout}, Try("while true; do :; done", 50)),
    Own = [Port || Port <- erlang:ports(), {connected, self()} =:= connected(Port)],
    ?assertEqual([], Own).

connected(Port) -> erlang:port_info(Port, connected).

large_graph() -> graph([integer_to_binary(N) || N <- lists:seq(1, 20_000)], []).

program(Folder, Script) ->
    File = filename:join(Folder, "dot"),
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, ["#!/bin/sh\n", Script, "\n"]),
    ok = file:change_mode(File, 8#755).

with_path(Path, Fun) ->
    Before = os:getenv("PATH"),
    true = os:putenv("PATH", Path),
    try
        Fun()
    after
        os:putenv("PATH", Before)
    end.

d_bad_graphs(_Config) ->
    Bad = [#{}, #{nodes => []}, [], undefined, ~"graph"],
    [?assertError(_, to_dot(Graph), Graph) || Graph <- Bad],
    ?assertError(badarg, to_svg(graph([], []), -1)).
