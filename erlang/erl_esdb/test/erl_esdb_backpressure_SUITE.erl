-module(erl_esdb_backpressure_SUITE).
-moduledoc "The bounded queue, by row and against a list.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_backpressure, [enqueue/2, enqueue_many/2, dequeue/2, dequeue_all/1, info/1]).

all() ->
    [F || {F, 1} <- ?MODULE:module_info(exports), lists:prefix("a_", atom_to_list(F))].

new(Options) ->
    {ok, Queue} = erl_esdb_backpressure:new(Options),
    Queue.

filled(Options, Elements) ->
    {ok, Queue} = enqueue_many(new(Options), Elements),
    Queue.

contents(Queue) ->
    {ok, Elements, _} = dequeue_all(Queue),
    Elements.

a_bpq_01_defaults(_Config) ->
    ?assertMatch(
        #{max_size := 1000, strategy := drop_oldest, mode := push, warning_threshold := 800},
        info(new(#{}))
    ),
    [
        ?assertError(badarg, new(Options))
     || Options <- [#{max_queue => 0}, #{strategy => any}, #{mode => x}, #{warning_threshold => a}]
    ].

a_bpq_02_first_in_first_out(_Config) ->
    {ok, Q1} = enqueue(new(#{}), 1),
    {ok, Q2} = enqueue(Q1, 2),
    {ok, Q3} = enqueue(Q2, 3),
    ?assertEqual([1, 2, 3], contents(Q3)),
    ?assertEqual({ok, 1}, erl_esdb_backpressure:peek(Q3)),
    ?assertEqual(empty, erl_esdb_backpressure:peek(new(#{}))).

a_bpq_03_many_or_the_first_error(_Config) ->
    ?assertEqual([1, 2], contents(filled(#{max_queue => 2, strategy => error}, [1, 2]))),
    ?assertEqual(
        {error, queue_full}, enqueue_many(new(#{max_queue => 2, strategy => error}), [1, 2, 3])
    ).

a_bpq_04_drop_oldest(_Config) ->
    Queue = filled(#{max_queue => 3, strategy => drop_oldest}, [1, 2, 3, 4]),
    ?assertMatch(#{dropped := 1, size := 3}, info(Queue)),
    ?assertEqual([2, 3, 4], contents(Queue)).

a_bpq_05_drop_newest(_Config) ->
    Queue = filled(#{max_queue => 3, strategy => drop_newest}, [1, 2, 3, 4]),
    ?assertMatch(#{dropped := 1, size := 3}, info(Queue)),
    ?assertEqual([1, 2, 3], contents(Queue)).

a_bpq_06_block_and_error(_Config) ->
    Blocking = filled(#{max_queue => 1, strategy => block}, [1]),
    ?assertEqual({error, blocked}, enqueue(Blocking, 2)),
    ?assertEqual([1], contents(Blocking)),
    Failing = filled(#{max_queue => 1, strategy => error}, [1]),
    ?assertEqual({error, queue_full}, enqueue(Failing, 2)),
    ?assertEqual([1], contents(Failing)).

a_bpq_07_dequeue(_Config) ->
    Queue = filled(#{}, [1, 2, 3]),
    {ok, [1, 2], Rest} = dequeue(Queue, 2),
    {ok, [3], Empty} = dequeue(Rest, 7),
    ?assertEqual({ok, [], Empty}, dequeue(Empty, 1)),
    ?assertError(badarg, dequeue(Queue, -1)).

a_bpq_08_dequeue_all(_Config) ->
    {ok, [1, 2], Queue} = dequeue_all(filled(#{}, [1, 2])),
    ?assertEqual(0, erl_esdb_backpressure:size(Queue)).

%% Any sequence of calls, against a list.
a_bpq_09_size_is_what_is_in_it(_Config) ->
    Strategy = oneof([drop_oldest, drop_newest, block, error]),
    Property = ?FORALL(
        {Max, How, Calls},
        {range(1, 5), Strategy, list(oneof([{in, nat()}, {out, range(0, 3)}]))},
        begin
            Start = {new(#{max_queue => Max, strategy => How}), []},
            {Queue, List} = lists:foldl(fun(C, Acc) -> step(C, How, Max, Acc) end, Start, Calls),
            erl_esdb_backpressure:size(Queue) =:= length(List) andalso
                erl_esdb_backpressure:is_empty(Queue) =:= (List =:= []) andalso
                erl_esdb_backpressure:is_full(Queue) =:= (length(List) =:= Max) andalso
                contents(Queue) =:= List
        end
    ),
    erl_esdb_test:property(200, Property).

step({out, Count}, _How, _Max, {Queue, List}) ->
    {ok, Out, Queue1} = dequeue(Queue, Count),
    {Out, Rest} = lists:split(min(Count, length(List)), List),
    {Queue1, Rest};
step({in, Element}, How, Max, {Queue, List}) ->
    case {enqueue(Queue, Element), length(List) < Max, How} of
        {{ok, Queue1}, true, _} -> {Queue1, List ++ [Element]};
        {{ok, Queue1}, false, drop_oldest} -> {Queue1, tl(List) ++ [Element]};
        {{ok, Queue1}, false, drop_newest} -> {Queue1, List};
        {{error, blocked}, false, block} -> {Queue, List};
        {{error, queue_full}, false, error} -> {Queue, List}
    end.

a_bpq_10_info(_Config) ->
    Info = info(filled(#{max_queue => 4}, [1, 2])),
    Keys = [
        size, max_size, strategy, mode, warning_threshold, demand, dropped, is_full, utilization
    ],
    ?assertEqual(lists:sort(Keys), lists:sort(maps:keys(Info))),
    ?assertMatch(#{size := 2, max_size := 4, utilization := 0.5, is_full := false}, Info).

a_bpq_11_demand_of_push(_Config) ->
    Queue = new(#{mode => push}),
    ?assertEqual(infinity, erl_esdb_backpressure:get_demand(Queue)),
    ?assertEqual(Queue, erl_esdb_backpressure:add_demand(Queue, 5)).

a_bpq_12_demand_of_pull(_Config) ->
    Queue = filled(#{mode => pull}, [1, 2, 3, 4]),
    ?assertEqual(0, erl_esdb_backpressure:get_demand(Queue)),
    Ten = erl_esdb_backpressure:add_demand(erl_esdb_backpressure:set_demand(Queue, 4), 6),
    {ok, [1, 2, 3], Seven} = dequeue(Ten, 3),
    ?assertEqual(7, erl_esdb_backpressure:get_demand(Seven)),
    {ok, [1, 2, 3], None} = dequeue(erl_esdb_backpressure:set_demand(Queue, 1), 3),
    ?assertEqual(0, erl_esdb_backpressure:get_demand(None)),
    ?assertError(badarg, erl_esdb_backpressure:set_demand(Queue, -1)).

a_bpq_13_dequeue_all_ends_demand(_Config) ->
    Queue = erl_esdb_backpressure:set_demand(filled(#{mode => pull}, [1]), 5),
    {ok, [1], Queue1} = dequeue_all(Queue),
    ?assertEqual(0, erl_esdb_backpressure:get_demand(Queue1)).

a_bpq_14_warning(_Config) ->
    Options = #{max_queue => 10, store_id => s, subscription_key => <<"k">>},
    Told = told(fun() -> filled(Options, lists:seq(1, 10)) end),
    Metadata = #{store_id => s, subscription_key => <<"k">>},
    Expected = [
        {?BACKPRESSURE_WARNING, #{queue_size => Size, max_size => 10}, Metadata}
     || Size <- [8, 9]
    ],
    ?assertEqual(Expected, Told).

a_bpq_15_dropped(_Config) ->
    Options = #{max_queue => 1, warning_threshold => 5, strategy => drop_newest},
    Told = told(fun() -> filled(Options, [1, 2]) end),
    Metadata = #{store_id => undefined, subscription_key => undefined, strategy => drop_newest},
    ?assertEqual([{?BACKPRESSURE_DROPPED, #{count => 1}, Metadata}], Told).

told(Fun) ->
    Self = self(),
    Tell = fun(Event, Measurements, Metadata, _) -> Self ! {Event, Measurements, Metadata} end,
    Events = [?BACKPRESSURE_WARNING, ?BACKPRESSURE_DROPPED],
    ok = erl_esdb_telemetry:attach_many(?MODULE, Events, Tell, none),
    Fun(),
    ok = erl_esdb_telemetry:detach(?MODULE),
    mail().

mail() ->
    receive
        Message -> [Message | mail()]
    after 0 -> []
    end.
