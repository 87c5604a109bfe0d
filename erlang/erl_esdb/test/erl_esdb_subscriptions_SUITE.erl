-module(erl_esdb_subscriptions_SUITE).
-moduledoc "Subscriptions, how they are kept, and what they select.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_subscriptions, [subscribe/4, subscribe/5]).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() ->
    Cases = [F || {F, 1} <- ?MODULE:module_info(exports), is_case(atom_to_list(F))],
    erl_esdb_test:groups(Cases, #{
        in_memory => [b_a_store_that_is_started_while_it_is_stopped]
    }).

is_case(Name) -> lists:any(fun(P) -> lists:prefix(P, Name) end, ["a_", "b_", "t_"]).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb_test:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

append(Store, Stream, Events) ->
    {ok, Version} = erl_esdb_streams:append(Store, Stream, any, Events),
    Version.

typed(Type) -> #{event_type => Type, data => #{}}.

data(Data) -> #{event_type => <<"T">>, data => Data}.

%% So many events, of either shape.
events(0) ->
    [];
events(Count) ->
    receive
        {events, [Event]} -> [Event | events(Count - 1)];
        {event, Event} -> [Event | events(Count - 1)]
    after 60_000 -> error({missing, Count})
    end.

%% All that was sent before an event of a stream of its own, which ends it.
until_end(Store) ->
    _ = append(Store, <<"end">>, [typed(<<"End">>)]),
    until_end().

until_end() ->
    case events(1) of
        [#event{event_type = <<"End">>}] -> [];
        [Event] -> [Event | until_end()]
    end.

nothing_more() ->
    receive
        {Shape, _} = Message when Shape =:= event; Shape =:= events -> error({unexpected, Message})
    after 0 -> ok
    end.

names(Events) -> [{E#event.stream_id, E#event.version} || E <- Events].

%% What a subscription selects of these: it gets no other, as its order shows.
selected(Config, Type, Selector, Streams) ->
    Store = store(Config),
    {ok, All} = subscribe(Store, stream, <<"$all">>, <<"all">>, #{subscriber => spawned(Store)}),
    {ok, Key} = subscribe(Store, Type, Selector, <<"sub">>, #{subscriber => self()}),
    [append(Store, Stream, [Event]) || {Stream, Event} <- Streams],
    caught_up(Store, Key),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    ok = erl_esdb_subscriptions:unsubscribe(Store, All),
    [Stream || {Stream, _} <- names(mail())].

spawned(_Store) -> spawn_link(fun Loop() -> receive stop -> ok; _ -> Loop() end end).

%% A subscription that has read all there is has sent all there is.
caught_up(Store, Key) ->
    {ok, End} = erl_esdb_store:next_position(Store),
    erl_esdb_test:await(fun() ->
        {ok, #{position := Position, queue := #{size := Size}}} =
            erl_esdb_subscriptions:info(Store, Key),
        Position =:= End andalso Size =:= 0
    end).

mail() ->
    receive
        {events, Events} -> Events ++ mail();
        {event, Event} -> [Event | mail()]
    after 0 -> []
    end.

%% ---- subscribing

a_sub_01_key(Config) ->
    Key = erl_esdb_subscriptions_store:key(stream, <<"s">>, <<"n">>),
    ?assertEqual({ok, Key}, subscribe(store(Config), stream, <<"s">>, <<"n">>)),
    ?assert(is_binary(Key)).

a_sub_02_duplicate(Config) ->
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    ?assertEqual(
        {error, {already_exists, <<"n">>}}, subscribe(store(Config), stream, <<"s">>, <<"n">>)
    ).

a_sub_03_one_name_twice(Config) ->
    {ok, Key1} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    {ok, Key2} = subscribe(store(Config), stream, <<"t">>, <<"n">>),
    ?assertNotEqual(Key1, Key2).

record(Config, Options) ->
    {ok, Key} = subscribe(store(Config), stream, <<"s">>, <<"n">>, Options),
    {ok, Subscription} = erl_esdb_subscriptions:get(store(Config), Key),
    ok = erl_esdb_subscriptions:unsubscribe(store(Config), Key),
    Subscription.

a_sub_04_pool_size(Config) ->
    ?assertMatch(#subscription{pool_size = 1}, record(Config, #{})),
    ?assertMatch(#subscription{pool_size = 4}, record(Config, #{pool_size => 4})).

a_sub_05_start_from(Config) ->
    ?assertMatch(#subscription{checkpoint = undefined}, record(Config, #{})),
    Options = #{start_from => 3, of_mine => 1},
    ?assertMatch(#subscription{checkpoint = 3, options = Options}, record(Config, Options)).

a_sub_06_subscriber(Config) ->
    ?assertMatch(#subscription{subscriber_pid = undefined}, record(Config, #{})),
    Self = self(),
    ?assertMatch(#subscription{subscriber_pid = Self}, record(Config, #{subscriber => Self})).

a_sub_07_stream(Config) ->
    Streams = [{<<"a">>, typed(<<"T">>)}, {<<"b">>, typed(<<"T">>)}, {<<"a">>, typed(<<"U">>)}],
    ?assertEqual([<<"a">>, <<"a">>], selected(Config, stream, <<"a">>, Streams)).

a_sub_08_stream_without_dollar(Config) ->
    Streams = [{S, typed(<<"T">>)} || S <- [<<"order-123">>, <<"order-1234">>]],
    ?assertEqual([<<"order-123">>], selected(Config, stream, <<"order-123">>, Streams)).

a_sub_09_stream_with_dollar(Config) ->
    Streams = [{S, typed(<<"T">>)} || S <- [<<"test$abc">>, <<"abc">>]],
    ?assertEqual([<<"test$abc">>], selected(Config, stream, <<"test$abc">>, Streams)).

a_sub_10_all_streams(Config) ->
    Streams = [{S, typed(<<"T">>)} || S <- [<<"a">>, <<"b">>, <<"c$d">>]],
    ?assertEqual([<<"a">>, <<"b">>, <<"c$d">>], selected(Config, stream, <<"$all">>, Streams)).

a_sub_11_event_type(Config) ->
    Types = [{<<"a">>, <<"T">>}, {<<"b">>, <<"U">>}, {<<"c">>, <<"T">>}],
    Streams = [{S, typed(T)} || {S, T} <- Types],
    ?assertEqual([<<"a">>, <<"c">>], selected(Config, event_type, <<"T">>, Streams)).

pattern(Config, Pattern, Names) ->
    selected(Config, event_pattern, Pattern, [{Name, typed(<<"T">>)} || Name <- Names]).

a_sub_12_prefix(Config) ->
    Found = pattern(Config, <<"order-*">>, [<<"order-1">>, <<"user-1">>, <<"order-">>]),
    ?assertEqual([<<"order-1">>, <<"order-">>], Found).

a_sub_13_suffix_and_middle(Config) ->
    Names = [<<"x-eu">>, <<"eu">>, <<"a-z">>, <<"a-b-z">>, <<"a-x-zz">>],
    ?assertEqual([<<"x-eu">>], pattern(Config, <<"*-eu">>, Names)),
    %% Each stream has two events by now.
    ?assertEqual([<<"a-b-z">>, <<"a-b-z">>], pattern(Config, <<"a-*-z">>, Names)).

a_sub_14_map_pattern(Config) ->
    Streams = [{<<"a">>, typed(<<"T">>)}, {<<"b">>, typed(<<"U">>)}],
    ?assertEqual([<<"a">>], selected(Config, event_pattern, #{event_type => <<"T">>}, Streams)),
    With = fun(User) -> (typed(<<"T">>))#{metadata => #{user => User, more => 1}} end,
    Users = [{<<"c">>, With(1)}, {<<"d">>, With(2)}],
    Pattern = #{metadata => #{user => 2}, event_type => <<"T">>},
    ?assertEqual([<<"d">>], selected(Config, event_pattern, Pattern, Users)),
    ?assertMatch(
        {error, {invalid_selector, _}},
        subscribe(store(Config), event_pattern, #{no_field => 1}, <<"n">>)
    ).

a_sub_15_literal_characters(Config) ->
    Found = pattern(Config, <<"a.b*">>, [<<"axb">>, <<"a.b">>, <<"a.bc">>]),
    ?assertEqual([<<"a.b">>, <<"a.bc">>], Found).

payload(Config, Selector, Datas) ->
    Streams = [{integer_to_binary(N), data(D)} || {N, D} <- lists:enumerate(Datas)],
    [binary_to_integer(S) || S <- selected(Config, event_payload, Selector, Streams)].

a_sub_16_payload_equality(Config) ->
    Datas = [#{customer_type => <<"VIP">>}, #{customer_type => <<"no">>}, #{}],
    ?assertEqual([1], payload(Config, #{customer_type => <<"VIP">>}, Datas)).

a_sub_17_payload_greater(Config) ->
    ?assertEqual(
        [2], payload(Config, #{total => {gt, 10_000}}, [#{total => 10_000}, #{total => 10_001}])
    ).

a_sub_17_payload_operators(Config) ->
    Datas = [#{n => N} || N <- [1, 2, 3]],
    [
        ?assertEqual({Op, Numbers}, {Op, lists:usort(payload_now(Config, #{n => Op}, Datas))})
     || {Op, Numbers} <- [
            {{gte, 2}, [2, 3]},
            {{lt, 2}, [1]},
            {{lte, 2}, [1, 2]},
            {{eq, 2}, [2]},
            {2, [2]},
            {{neq, 2}, [1, 3]},
            {{in, [1, 3]}, [1, 3]},
            {{between, 2, 3}, [2, 3]}
        ]
    ].

payload_now(Config, Selector, Datas) ->
    Numbers = [maps:get(n, D) || D <- Datas],
    Found = payload(Config, Selector, Datas),
    [lists:nth((N - 1) rem length(Numbers) + 1, Numbers) || N <- Found].

a_sub_18_payload_missing(Config) ->
    Datas = [#{other => 1}, <<"binary">>, #{total => <<"text">>}, #{total => undefined}],
    ?assertEqual([], payload(Config, #{total => {gt, 1}}, Datas)),
    %% Fields of the event are not those of its data.
    ?assertEqual([], payload(Config, #{version => 0}, Datas)).

a_sub_19_unknown_type(Config) ->
    Store = store(Config),
    ?assertEqual({error, {invalid_type, bogus}}, subscribe(Store, bogus, <<"s">>, <<"n">>)),
    ?assertMatch({error, {invalid_selector, 7}}, subscribe(Store, stream, 7, <<"n">>)),
    ?assertMatch({error, invalid_stream}, subscribe(Store, stream, <<>>, <<"n">>)),
    ?assertMatch({error, {invalid_predicate, _}}, subscribe(Store, event_payload, {x}, <<"n">>)),
    ?assertMatch(
        {error, {invalid_option, pool_size, 0}},
        subscribe(Store, stream, <<"s">>, <<"n">>, #{pool_size => 0})
    ),
    ?assertEqual(
        {error, {store_not_started, no_store}}, subscribe(no_store, stream, <<"s">>, <<"n">>)
    ),
    ?assertError(badarg, subscribe(Store, stream, <<"s">>, name)).

a_predicate_selects(Config) ->
    Predicate = {'and', [{gt, amount, 9}, {prefix, stream_id, <<"o">>}]},
    Amounts = [{<<"o1">>, 5}, {<<"o2">>, 50}, {<<"u">>, 50}],
    Streams = [{S, data(#{amount => N})} || {S, N} <- Amounts],
    ?assertEqual([<<"o2">>], selected(Config, event_payload, Predicate, Streams)),
    {ok, Handle} = esdb_filter_nif:compile_predicate(Predicate),
    ?assertEqual(
        [<<"o2">>, <<"o2">>], selected(Config, event_pattern, Handle, Streams)
    ),
    %% What is kept of a handle is a term that every node understands.
    {ok, Key} = subscribe(store(Config), event_payload, Handle, <<"kept">>),
    {ok, #subscription{selector = Kept}} = erl_esdb_subscriptions:get(store(Config), Key),
    ?assertEqual({ok, Kept}, esdb_predicate_erl:normalise(Kept)).

%% ---- delivery

a_sub_20_to_a_subscriber(Config) ->
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"n">>, #{subscriber => self()}),
    _ = append(store(Config), <<"s">>, [typed(<<"T">>)]),
    receive
        {events, [#event{stream_id = <<"s">>, event_type = <<"T">>}]} -> ok
    after 60_000 -> error(missing)
    end.

handler(Report) ->
    spawn_link(fun Loop() ->
        receive
            {event, Event} ->
                Report ! {handled, self(), Event},
                Loop();
            stop ->
                ok
        end
    end).

handled(0) -> [];
handled(Count) ->
    receive
        {handled, Pid, Event} -> [{Pid, Event} | handled(Count - 1)]
    after 60_000 -> error({missing, Count})
    end.

joined(Store, Key, Count) ->
    Handlers = [handler(self()) || _ <- lists:seq(1, Count)],
    ok = join(Store, Key, Handlers),
    Handlers.

a_sub_21_to_a_handler(Config) ->
    {ok, Key} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    [Handler] = joined(store(Config), Key, 1),
    _ = append(store(Config), <<"s">>, erl_esdb_test:events(3)),
    ?assertMatch([{Handler, _}, {Handler, _}, {Handler, _}], handled(3)),
    nothing_more(),
    %% When it has gone the events come to who subscribed.
    ok = leave(store(Config), Key, Handler),
    _ = append(store(Config), <<"s">>, erl_esdb_test:events(1)),
    ?assertEqual([{<<"s">>, 3}], names(events(1))).

join(Store, Key, Pids) ->
    ok = erl_esdb_emitter_group:join(Store, Key, Pids),
    heard(Store, Key).

leave(Store, Key, Pids) ->
    ok = erl_esdb_emitter_group:leave(Store, Key, Pids),
    heard(Store, Key).

%% What was said to the subscription before has been done, and what it was reading is handed over.
heard(Store, Key) ->
    {ok, _} = erl_esdb_subscriptions:info(Store, Key),
    ok.

a_sub_22_to_who_subscribed(Config) ->
    _ = append(store(Config), <<"s">>, [typed(<<"T">>)]),
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    receive
        {event, #event{stream_id = <<"s">>}} -> ok
    after 60_000 -> error(missing)
    end.

a_sub_23_not_before_it_is_there(Config) ->
    Store = store(Config),
    Self = self(),
    Reader = spawn_link(fun() ->
        [is_there(Store, Event) || Event <- events(200)],
        Self ! all_there
    end),
    {ok, _} = subscribe(Store, stream, <<"$all">>, <<"n">>, #{subscriber => Reader}),
    [append(Store, <<(N rem 7)>>, erl_esdb_test:events(2)) || N <- lists:seq(1, 100)],
    receive
        all_there -> ok
    after 60_000 -> error(missing)
    end.

is_there(Store, #event{stream_id = Stream, version = Version} = Event) ->
    {ok, [Event]} = erl_esdb_streams:read(Store, Stream, Version, 1, forward).

a_sub_24_refused_append(Config) ->
    {ok, _} = subscribe(store(Config), stream, <<"$all">>, <<"n">>),
    {error, _} = erl_esdb_streams:append(store(Config), <<"s">>, 7, erl_esdb_test:events(1)),
    ?assertEqual([], until_end(store(Config))).

a_sub_25_order(Config) ->
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"n">>, #{subscriber => self()}),
    [append(store(Config), <<"s">>, erl_esdb_test:events(10)) || _ <- lists:seq(1, 100)],
    ?assertEqual(lists:seq(0, 999), erl_esdb_test:versions(events(1000))).

a_sub_26_order_through_a_pool(Config) ->
    Options = #{subscriber => self(), pool_size => 4},
    {ok, _} = subscribe(store(Config), stream, <<"$all">>, <<"n">>, Options),
    [append(store(Config), <<(N rem 9)>>, erl_esdb_test:events(5)) || N <- lists:seq(1, 180)],
    ordered_streams(events(900)),
    nothing_more().

ordered_streams(Events) ->
    Streams = maps:groups_from_list(
        fun(E) -> E#event.stream_id end, fun(E) -> E#event.version end, Events
    ),
    [?assertEqual(lists:seq(0, length(Vs) - 1), Vs) || _ := Vs <- Streams].

a_sub_27_exactly_once(Config) ->
    Store = store(Config),
    {ok, _} = subscribe(Store, stream, <<"$all">>, <<"n">>, #{subscriber => self()}),
    Writers = [
        fun() -> [append(Store, <<W>>, erl_esdb_test:events(3)) || _ <- lists:seq(1, 50)] end
     || W <- lists:seq(1, 4)
    ],
    _ = erl_esdb_test:concurrently(Writers),
    Events = until_end(Store),
    ?assertEqual(lists:seq(0, 599), [E#event.position || E <- Events]).

a_sub_28_two_subscriptions(Config) ->
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"m">>),
    _ = append(store(Config), <<"s">>, erl_esdb_test:events(2)),
    ?assertEqual([0, 0, 1, 1], lists:sort(erl_esdb_test:versions(events(4)))).

%% In any order of the two: each event to one handler, and each handler has some.
a_sub_29_each_to_one_handler(Config) ->
    Shares = shares(Config),
    ?assertEqual(lists:seq(0, 999), lists:sort(lists:append(Shares))).

a_sub_30_each_handler_has_a_share(Config) ->
    Shares = shares(Config),
    ?assertEqual(4, length(Shares)),
    [?assert(length(Share) > 100) || Share <- Shares].

shares(Config) ->
    {ok, Key} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    Handlers = joined(store(Config), Key, 4),
    [append(store(Config), <<"s">>, erl_esdb_test:events(10)) || _ <- lists:seq(1, 100)],
    Handled = handled(1000),
    nothing_more(),
    [[E#event.version || {Pid, E} <- Handled, Pid =:= Handler] || Handler <- Handlers].

a_sub_31_dead_subscriber(Config) ->
    Dead = spawned(store(Config)),
    {ok, Key} = subscribe(store(Config), stream, <<"s">>, <<"n">>, #{subscriber => Dead}),
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"m">>, #{subscriber => self()}),
    unlink(Dead),
    exit(Dead, kill),
    _ = append(store(Config), <<"s">>, erl_esdb_test:events(3)),
    %% The other subscription goes on, and this one waits for who comes next.
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))),
    ?assert(erl_esdb_subscriptions:exists(store(Config), Key)),
    ok = erl_esdb_subscriptions:attach(store(Config), Key, self()),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))).

a_sub_32_slow_subscriber(Config) ->
    Store = store(Config),
    Slow = spawn_link(fun() -> receive stop -> ok end end),
    Options = #{subscriber => Slow, window => 10, max_queue => 5},
    {ok, Key} = subscribe(Store, stream, <<"$all">>, <<"slow">>, Options),
    [append(Store, <<"s">>, erl_esdb_test:events(100)) || _ <- lists:seq(1, 20)],
    {ok, _} = subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => self()}),
    ?assertEqual(lists:seq(0, 1999), erl_esdb_test:versions(events(2000))),
    %% Not more than its window waits in its mailbox, and its queue is bounded.
    Waiting = {message_queue_len, 10},
    erl_esdb_test:await(fun() -> Waiting =:= process_info(Slow, message_queue_len) end),
    {ok, #{queue := #{size := 5}, position := 15}} = erl_esdb_subscriptions:info(Store, Key),
    Slow ! stop.

%% ---- catching up

a_sub_33_history_then_live(Config) ->
    _ = append(store(Config), <<"s">>, erl_esdb_test:events(5)),
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    _ = append(store(Config), <<"s">>, erl_esdb_test:events(2)),
    ?assertEqual(lists:seq(0, 6), erl_esdb_test:versions(events(7))),
    nothing_more().

a_sub_34_start_from(Config) ->
    Store = store(Config),
    _ = append(Store, <<"other">>, erl_esdb_test:events(10)),
    _ = append(Store, <<"s">>, erl_esdb_test:events(5)),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{start_from => 3}),
    ?assertEqual([3, 4], erl_esdb_test:versions(events(2))),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    %% Of other types it is a position.
    {ok, _} = subscribe(Store, event_pattern, <<"*">>, <<"n">>, #{start_from => 8}),
    ?assertEqual(lists:seq(8, 14), [E#event.position || E <- events(7)]),
    nothing_more().

a_sub_35_no_gap_and_no_duplicate(Config) ->
    Store = store(Config),
    Self = self(),
    Writer = spawn_link(fun() ->
        [append(Store, <<(N rem 3)>>, erl_esdb_test:events(1)) || N <- lists:seq(1, 3000)],
        Self ! written
    end),
    Subscribers = [
        spawn_link(fun() ->
            {ok, _} = subscribe(Store, stream, <<"$all">>, <<N>>),
            Self ! {got, N, [E#event.position || E <- events(3000)]}
        end)
     || N <- lists:seq(1, 5)
    ],
    ?assertEqual(5, length(Subscribers)),
    ?assert(is_pid(Writer)),
    [
        receive
            {got, N, Positions} -> ?assertEqual(lists:seq(0, 2999), Positions)
        after 60_000 -> error(missing)
        end
     || N <- lists:seq(1, 5)
    ],
    receive written -> ok end.

a_sub_36_beyond_the_end(Config) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(5)),
    {ok, _} = subscribe(Store, stream, <<"s">>, <<"n">>, #{start_from => 100}),
    {ok, _} = subscribe(Store, event_pattern, <<"s">>, <<"m">>, #{start_from => 100}),
    {ok, _} = subscribe(Store, stream, <<"$all">>, <<"l">>, #{start_from => latest}),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    ?assertEqual([5, 5, 5], erl_esdb_test:versions(events(3))),
    nothing_more().

a_deleted_stream_begins_again(Config) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(5)),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{start_from => 3}),
    ?assertEqual([3, 4], erl_esdb_test:versions(events(2))),
    caught_up(Store, Key),
    ok = erl_esdb_streams:delete(Store, <<"s">>),
    _ = append(Store, <<"s">>, erl_esdb_test:events(2)),
    ?assertEqual([0, 1], erl_esdb_test:versions(events(2))),
    nothing_more().

a_removed_events_are_passed_over(Config) ->
    Store = store(Config),
    [append(Store, <<(N rem 2)>>, erl_esdb_test:events(1)) || N <- lists:seq(1, 2000)],
    {ok, _} = erl_esdb_store:truncate(Store, <<0>>, 990),
    ok = erl_esdb_streams:delete(Store, <<1>>),
    {ok, _} = subscribe(Store, stream, <<"$all">>, <<"n">>, #{subscriber => self()}),
    ?assertEqual([{<<0>>, V} || V <- lists:seq(990, 999)], names(until_end(Store))).

%% ---- acknowledging

a_sub_37_ack(Config) ->
    {ok, Key} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    ?assertEqual(ok, erl_esdb_subscriptions:ack(store(Config), <<"n">>, <<"s">>, 7)),
    {ok, #subscription{checkpoint = 7}} = erl_esdb_subscriptions:get(store(Config), Key),
    ?assertEqual(ok, erl_esdb_subscriptions:ack(store(Config), <<"n">>, <<"s">>, 2)),
    {ok, #subscription{checkpoint = 2}} = erl_esdb_subscriptions:get(store(Config), Key).

%% As far as an engine without a disk can show it: the processes begin again from what is saved.
a_sub_38_goes_on_after_the_checkpoint(Config) ->
    Store = store(Config),
    Options = #{ack => manual, subscriber => self()},
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    _ = append(Store, <<"s">>, erl_esdb_test:events(6)),
    6 = length(events(6)),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 3),
    {ok, #{floor := 4}} = erl_esdb_subscriptions:info(Store, Key),
    crash_delivery(Store),
    ?assertEqual([4, 5], erl_esdb_test:versions(events(2))),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    ?assertEqual([6], erl_esdb_test:versions(events(1))),
    nothing_more().

%% All that delivers is killed by way of its feed, and is there again.
crash_delivery(Store) ->
    {ok, {Feed, _}} = erl_esdb_delivery:find(Store, feed, none),
    {ok, Manager} = erl_esdb_delivery:pid(Store, manager, none),
    exit(Feed, kill),
    erl_esdb_test:await(fun() ->
        {ok, Manager} =/= erl_esdb_delivery:pid(Store, manager, none)
    end),
    {ok, Again} = erl_esdb_delivery:pid(Store, manager, none),
    {error, unknown_request} = gen_server:call(Again, ?FUNCTION_NAME).

a_sub_39_ack_of_an_unknown_name(Config) ->
    ?assertEqual(
        {error, {subscription_not_found, <<"no">>}},
        erl_esdb_subscriptions:ack(store(Config), <<"no">>, <<"s">>, 1)
    ).

a_sub_40_ack_arguments(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, event_type, <<"Counted">>, <<"n">>, #{
        ack => manual, subscriber => self()
    }),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    _ = append(Store, <<"t">>, erl_esdb_test:events(3)),
    6 = length(events(6)),
    ?assertEqual(ok, erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, 1)),
    {ok, #{floor := 2}} = erl_esdb_subscriptions:info(Store, Key),
    %% With a stream the number is one of its versions.
    ?assertEqual(ok, erl_esdb_subscriptions:ack(Store, <<"n">>, <<"t">>, 1)),
    {ok, #{floor := 5}} = erl_esdb_subscriptions:info(Store, Key),
    ?assertError(badarg, erl_esdb_subscriptions:ack(Store, <<"s">>, <<"n">>, -1)).

a_sub_41_ack_is_told(Config) ->
    Store = store(Config),
    {ok, _} = subscribe(Store, stream, <<"s">>, <<"n">>),
    Self = self(),
    Tell = fun(_, Measurements, Metadata, _) -> Self ! {told, Measurements, Metadata} end,
    ok = erl_esdb_telemetry:attach_many(?FUNCTION_NAME, [?SUBSCRIPTION_CHECKPOINT], Tell, none),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, 7),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    receive
        {told, #{position := 7}, #{store_id := Store, subscription_name := <<"n">>}} -> ok
    after 0 -> error(missing)
    end.

%% ---- unsubscribing

a_sub_42_unsubscribe(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    ?assertEqual(ok, erl_esdb_subscriptions:unsubscribe(Store, Key)),
    ?assertNot(erl_esdb_subscriptions:exists(Store, Key)),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    {ok, _} = subscribe(Store, stream, <<"end">>, <<"n">>),
    ?assertEqual([], until_end(Store)).

a_sub_43_unsubscribe_unknown(Config) ->
    ?assertEqual({error, not_found}, erl_esdb_subscriptions:unsubscribe(store(Config), <<"1">>)).

a_sub_44_unsubscribe_by_name(Config) ->
    {ok, Key} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    ?assertEqual(ok, erl_esdb_subscriptions:unsubscribe(store(Config), stream, <<"n">>)),
    ?assertNot(erl_esdb_subscriptions:exists(store(Config), Key)).

a_sub_45_unsubscribe_other_type(Config) ->
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    ?assertEqual(
        {error, not_found}, erl_esdb_subscriptions:unsubscribe(store(Config), event_type, <<"n">>)
    ).

a_sub_46_subscribe_again(Config) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(2)),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    2 = length(events(2)),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 1),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    ?assertEqual({ok, Key}, subscribe(Store, stream, <<"s">>, <<"n">>)),
    %% From the beginning: nothing of the one before has stayed.
    ?assertEqual([0, 1], erl_esdb_test:versions(events(2))),
    {ok, #subscription{checkpoint = undefined}} = erl_esdb_subscriptions:get(Store, Key).

a_sub_47_get_unknown(Config) ->
    ?assertEqual({error, not_found}, erl_esdb_subscriptions:get(store(Config), <<"1">>)).

a_sub_48_list(Config) ->
    ?assertEqual({ok, []}, erl_esdb_subscriptions:list(store(Config))),
    Keys = [
        element(2, subscribe(store(Config), stream, <<N>>, <<"n">>))
     || N <- lists:seq(1, 5)
    ],
    {ok, Found} = erl_esdb_subscriptions:list(store(Config)),
    ?assertEqual(lists:sort(Keys), [S#subscription.id || S <- Found]).

a_sub_49_exists(Config) ->
    ?assertEqual(false, erl_esdb_subscriptions:exists(store(Config), <<"1">>)),
    {ok, Key} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    ?assertEqual(true, erl_esdb_subscriptions:exists(store(Config), Key)),
    ?assertEqual(false, erl_esdb_subscriptions:exists(no_store, Key)).

%% As far as an engine without a disk can show it.
a_sub_50_survives_its_processes(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    3 = length(events(3)),
    crash_delivery(Store),
    {ok, [#subscription{id = Key}]} = erl_esdb_subscriptions:list(Store),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    %% Who subscribed still gets the events; what it may have been at comes again.
    Versions = until(fun(V) -> V =:= 3 end),
    ?assertEqual(lists:seq(hd(Versions), 3), Versions),
    ?assert(hd(Versions) >= 0).

until(Is) ->
    [#event{version = Version}] = events(1),
    case Is(Version) of
        true -> [Version];
        false -> [Version | until(Is)]
    end.

%% ---- telemetry, trackers

a_sub_51_created_is_told_once(Config) ->
    Store = store(Config),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    {error, _} = subscribe(Store, stream, <<"s">>, <<"n">>),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    [{_, #{system_time := _}, Metadata}] =
        [T || {?SUBSCRIPTION_CREATED, _, _} = T <- erl_esdb_test:collected(?FUNCTION_NAME)],
    ?assertEqual(
        #{
            store_id => Store,
            subscription_id => Key,
            type => stream,
            selector => <<"s">>,
            subscription_name => <<"n">>
        },
        Metadata
    ).

a_sub_52_delivered_and_deleted_are_told(Config) ->
    Store = store(Config),
    ok = erl_esdb_test:collect(?FUNCTION_NAME, Store),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    Ids = erl_esdb_test:ids(events(3)),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    ok = erl_esdb_test:release(?FUNCTION_NAME),
    Told = erl_esdb_test:collected(?FUNCTION_NAME),
    Delivered = [M || {?SUBSCRIPTION_EVENT_DELIVERED, #{count := 1}, M} <- Told],
    ?assertEqual(Ids, [Id || #{event_id := Id, event_type := <<"Counted">>} <- Delivered]),
    [{_, #{system_time := _}, #{subscription_id := Key}}] =
        [T || {?SUBSCRIPTION_DELETED, _, _} = T <- Told].

a_sub_53_tracking(Config) ->
    Store = store(Config),
    ok = erl_esdb_subscriptions:setup_tracking(Store, self()),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    receive {feature_created, subscriptions, #subscription{id = Key}} -> ok end,
    receive {feature_deleted, subscriptions, #subscription{id = Key}} -> ok end.

%% ---- back-pressure

a_pull_gives_what_is_asked_for(Config) ->
    Store = store(Config),
    Options = #{mode => pull, subscriber => self()},
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    ok = erl_esdb_subscriptions:demand(Store, Key, 3),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))),
    ok = erl_esdb_subscriptions:demand(Store, Key, 4),
    ?assertEqual([3, 4, 5, 6], erl_esdb_test:versions(events(4))),
    {ok, #{queue := #{demand := 0}}} = erl_esdb_subscriptions:info(Store, Key),
    nothing_more(),
    ok = erl_esdb_subscriptions:demand(Store, Key, 100),
    ?assertEqual([7, 8, 9], erl_esdb_test:versions(events(3))).

dropping(Config, Strategy) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    Options = #{mode => pull, subscriber => self(), max_queue => 3, strategy => Strategy},
    {ok, Key} = subscribe(Store, stream, <<"s">>, atom_to_binary(Strategy), Options),
    erl_esdb_test:await(fun() ->
        {ok, #{position := Position}} = erl_esdb_subscriptions:info(Store, Key),
        Position =:= 10
    end),
    {ok, #{queue := #{dropped := 7}}} = erl_esdb_subscriptions:info(Store, Key),
    ok = erl_esdb_subscriptions:demand(Store, Key, 10),
    erl_esdb_test:versions(events(3)).

a_strategy_drop_oldest(Config) ->
    ?assertEqual([7, 8, 9], dropping(Config, drop_oldest)).

a_strategy_drop_newest(Config) ->
    ?assertEqual([0, 1, 2], dropping(Config, drop_newest)).

a_strategy_block(Config) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    Options = #{mode => pull, subscriber => self(), max_queue => 3, strategy => block},
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    ok = erl_esdb_subscriptions:demand(Store, Key, 10),
    ?assertEqual(lists:seq(0, 9), erl_esdb_test:versions(events(10))).

a_strategy_error(Config) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    Options = #{mode => pull, subscriber => self(), max_queue => 3, strategy => error},
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    receive
        {erl_esdb_subscription, Key, {error, queue_full}} -> ok
    after 60_000 -> error(missing)
    end,
    nothing_more(),
    %% Whoever is attached gets all of it, if it asks in time.
    ok = erl_esdb_subscriptions:unsubscribe(Store, Key),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options#{max_queue => 20}),
    ok = erl_esdb_subscriptions:demand(Store, Key, 10),
    ?assertEqual(lists:seq(0, 9), erl_esdb_test:versions(events(10))).

a_window_of_unacknowledged_events(Config) ->
    Store = store(Config),
    Options = #{ack => manual, window => 3, subscriber => self()},
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))),
    {ok, #{unhandled := 3, floor := 0}} = erl_esdb_subscriptions:info(Store, Key),
    nothing_more(),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 1),
    ?assertEqual([3, 4], erl_esdb_test:versions(events(2))),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 4),
    ?assertEqual([5, 6, 7], erl_esdb_test:versions(events(3))),
    nothing_more().

a_batches(Config) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    {ok, _} = subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => self(), batch => 4}),
    Sizes = [
        receive
            {events, Events} -> length(Events)
        after 60_000 -> error(missing)
        end
     || _ <- [1, 2, 3]
    ],
    ?assertEqual([4, 4, 2], Sizes).

%% ---- who takes over

%% A subscriber that has its mail in its mailbox when it is killed: what it had not taken, and the
%% one before, go to the next.
a_attached_process_gets_what_was_not_handled(Config) ->
    Store = store(Config),
    Self = self(),
    Subscriber = spawn(fun() ->
        Self ! {took, erl_esdb_test:versions(events(4))},
        receive never -> ok end
    end),
    %% Subscribed by a process that has ended: nobody else takes the events.
    [{ok, Key}] = erl_esdb_test:concurrently([
        fun() -> subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => Subscriber}) end
    ]),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    receive {took, [0, 1, 2, 3]} -> ok after 60_000 -> error(missing) end,
    erl_esdb_test:await(fun() ->
        {ok, #{unhandled => 7}} =:= kept(erl_esdb_subscriptions:info(Store, Key))
    end),
    exit(Subscriber, kill),
    Next = handler_of_events(Self),
    ok = erl_esdb_subscriptions:attach(Store, Key, Next),
    Handled = [{Pid, E#event.version} || {Pid, E} <- handled(7)],
    ?assertEqual([{Next, V} || V <- lists:seq(3, 9)], Handled).

%% Who subscribed for another does not get what that one leaves.
a_subscriber_that_ended_leaves_its_events_to_the_next(Config) ->
    Store = store(Config),
    Self = self(),
    First = spawn(fun() -> receive {events, _} -> Self ! first, receive never -> ok end end end),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => First}),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    receive first -> ok after 60_000 -> error(missing) end,
    killed(First),
    _ = append(Store, <<"s">>, erl_esdb_test:events(2)),
    Next = handler_of_events(Self),
    ok = erl_esdb_subscriptions:attach(Store, Key, Next),
    %% The last one that the first took may have been in its hands.
    ?assertEqual([{Next, 0}, {Next, 1}, {Next, 2}], [{P, E#event.version} || {P, E} <- handled(3)]),
    receive {event, _} -> error(given_to_who_subscribed) after 0 -> ok end.

%% It dies while it handles a message of several events: all of them come again.
a_subscriber_that_ends_inside_a_batch(Config) ->
    Store = store(Config),
    Self = self(),
    First = spawn(fun() ->
        receive
            {events, Events} -> Self ! {first, length(Events)}, receive never -> ok end
        end
    end),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    {ok, Key} =
        subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => First, batch => 10}),
    receive {first, 10} -> ok after 60_000 -> error(missing) end,
    {ok, _} = erl_esdb_subscriptions:info(Store, Key),
    killed(First),
    ok = erl_esdb_subscriptions:attach(Store, Key, handler_of_events(Self)),
    ?assertEqual(lists:seq(0, 9), [E#event.version || {_, E} <- handled(10)]).

%% Who is replaced keeps what it was sent, unless it is to acknowledge that, or dies: also where the
%% subscription hears of its end later than of the next.
a_who_is_replaced_leaves_its_events_or_keeps_them(Config) ->
    Store = store(Config),
    Hows = [{auto, dies}, {auto, lives}, {manual, lives}],
    Cases = [{Taker, How} || Taker <- [named, caller], How <- Hows],
    [
        begin
            Stream = integer_to_binary(N),
            ?assertEqual({Case, left_by(How)}, {Case, next_gets(Store, Stream, Taker, How)})
        end
     || {N, {Taker, How} = Case} <- lists:enumerate(Cases)
    ].

left_by({auto, lives}) -> [3];
left_by(_) -> [0, 1, 2, 3].

next_gets(Store, Stream, Taker, {Ack, Fate}) ->
    {First, Key} = idle_taker(Store, Stream, Taker, #{ack => Ack}),
    _ = append(Store, Stream, erl_esdb_test:events(3)),
    erl_esdb_test:await(fun() -> has(First, 3) end),
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    ok = sys:suspend(Process),
    Next = handler_of_events(self()),
    ok = erl_esdb_subscriptions:attach(Store, Key, Next),
    _ = [killed(First) || Fate =:= dies],
    ok = sys:resume(Process),
    heard(Store, Key),
    _ = append(Store, Stream, erl_esdb_test:events(1)),
    Handled = handled(length(left_by({Ack, Fate}))),
    [Next] = lists:usort([Pid || {Pid, _} <- Handled]),
    [E#event.version || {_, E} <- Handled].

idle_taker(Store, Stream, named, Options) ->
    First = idle(),
    {ok, Key} = subscribe(Store, stream, Stream, Stream, Options#{subscriber => First}),
    {First, Key};
idle_taker(Store, Stream, caller, Options) ->
    Self = self(),
    First = spawn(fun() ->
        {ok, Key} = subscribe(Store, stream, Stream, Stream, Options),
        Self ! {subscribed, Key},
        receive never -> ok end
    end),
    receive {subscribed, Key} -> {First, Key} after 60_000 -> error(missing) end.

%% One that takes nothing out of its mailbox.
idle() -> spawn(fun() -> receive never -> ok end end).

killed(Pid) -> ok = erl_esdb_test:killed(Pid).

%% Who goes on in another role has what it was sent before, and leaves it when it dies.
a_who_goes_on_in_another_role(Config) ->
    Store = store(Config),
    Roles = [
        attached_itself,
        handler_that_leaves,
        handler_that_leaves_another,
        handler_when_another_is_attached
    ],
    [
        ?assertEqual({Role, [0, 1, 2, 3]}, {Role, left_in(Role, Store, atom_to_binary(Role))})
     || Role <- Roles
    ],
    %% Nor is it sent anything twice.
    {First, Key} = idle_taker(Store, <<"m">>, caller, #{ack => manual}),
    _ = append(Store, <<"m">>, erl_esdb_test:events(3)),
    caught_up(Store, Key),
    ok = erl_esdb_subscriptions:attach(Store, Key, First),
    heard(Store, Key),
    _ = append(Store, <<"m">>, erl_esdb_test:events(1)),
    caught_up(Store, Key),
    ?assertEqual([0, 1, 2, 3], has_versions(First)).

left_in(Role, Store, Stream) ->
    {First, Key} = idle_taker(Store, Stream, caller, #{}),
    _ = [join(Store, Key, First) || Role =/= attached_itself],
    _ = append(Store, Stream, erl_esdb_test:events(3)),
    caught_up(Store, Key),
    ok = changes_role(Role, Store, Key, First),
    heard(Store, Key),
    ?assertEqual(3, unhandled(Store, Key)),
    killed(First),
    _ = append(Store, Stream, erl_esdb_test:events(1)),
    Next = handler_of_events(self()),
    ok = erl_esdb_subscriptions:attach(Store, Key, Next),
    lists:sort([E#event.version || {_, E} <- handled(4)]).

changes_role(attached_itself, Store, Key, Pid) ->
    erl_esdb_subscriptions:attach(Store, Key, Pid);
changes_role(handler_that_leaves, Store, Key, Pid) ->
    leave(Store, Key, Pid);
changes_role(handler_that_leaves_another, Store, Key, Pid) ->
    Other = idle(),
    ok = join(Store, Key, Other),
    ok = leave(Store, Key, Pid),
    ok = leave(Store, Key, Other),
    killed(Other),
    ok;
changes_role(handler_when_another_is_attached, Store, Key, _Pid) ->
    Other = idle(),
    ok = erl_esdb_subscriptions:attach(Store, Key, Other),
    heard(Store, Key),
    killed(Other),
    ok.

%% What handlers have not acknowledged goes to who speaks of all from then on.
a_who_is_attached_has_what_handlers_have_not_acknowledged(Config) ->
    Store = store(Config),
    Key = subscribed_by_none(Store),
    [A, B] = two_on_demand(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(6)),
    caught_up(Store, Key),
    [First, _] = took(A, 2),
    erl_esdb_test:await(fun() -> unhandled(Store, Key) =:= 4 end),
    Next = idle(),
    ok = erl_esdb_subscriptions:attach(Store, Key, Next),
    caught_up(Store, Key),
    Acknowledged = [First, First + 2],
    ?assertEqual(lists:seq(0, 5) -- Acknowledged, has_versions(Next)),
    %% What they say later is of nobody's events.
    2 = length(took(B, 2)),
    ?assertEqual(4, unhandled(Store, Key)),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, 5),
    ?assertEqual(0, unhandled(Store, Key)).

%% What came to it through the lanes of a pool as well.
a_subscriber_that_goes_on_as_a_handler(Config) ->
    Store = store(Config),
    First = idle(),
    Options = #{subscriber => First, pool_size => 3},
    {ok, Key} = subscribe(Store, stream, <<"$all">>, <<"n">>, Options),
    ok = join(Store, Key, First),
    [append(Store, <<N>>, erl_esdb_test:events(1)) || N <- lists:seq(1, 4)],
    erl_esdb_test:await(fun() -> has(First, 4) end),
    Next = idle(),
    ok = erl_esdb_subscriptions:attach(Store, Key, Next),
    caught_up(Store, Key),
    ?assertEqual([], has_versions(Next)),
    killed(First),
    erl_esdb_test:await(fun() -> 4 =:= length(has_versions(Next)) end).

%% By default, once something was acknowledged: all beyond it goes to the next, whoever that is.
a_what_is_beyond_the_acknowledged_goes_to_handlers(Config) ->
    Store = store(Config),
    First = handler_of_events(self()),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => First}),
    Handler = idle(),
    ok = join(Store, Key, Handler),
    _ = append(Store, <<"s">>, erl_esdb_test:events(5)),
    5 = length(handled(5)),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 1),
    heard(Store, Key),
    unlink(First),
    killed(First),
    erl_esdb_test:await(fun() -> has_versions(Handler) =:= [2, 3, 4] end).

%% Who was sent nothing of that leaves nothing, and who asked for events still gets them.
a_stand_by_that_dies_changes_nothing(Config) ->
    Store = store(Config),
    Options = #{subscriber => self(), mode => pull},
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    Idle = [idle(), idle()],
    ok = join(Store, Key, Idle),
    ok = erl_esdb_subscriptions:demand(Store, Key, 6),
    _ = append(Store, <<"s">>, erl_esdb_test:events(5)),
    5 = length(events(5)),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 1),
    lists:foreach(fun killed/1, Idle),
    erl_esdb_test:await(fun() -> erl_esdb_emitter_group:handlers(Store, Key) =:= [] end),
    heard(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    ?assertEqual([5], erl_esdb_test:versions(events(1))).

%% Of several who share the events one dies: the others get what they asked for.
a_demand_stays_with_those_who_live(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{mode => pull}),
    Stuck = idle(),
    ok = join(Store, Key, [Stuck, self()]),
    ok = erl_esdb_subscriptions:demand(Store, Key, 6),
    _ = append(Store, <<"s">>, erl_esdb_test:events(4)),
    caught_up(Store, Key),
    2 = length(events(2)),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 1),
    heard(Store, Key),
    killed(Stuck),
    2 = length(events(2)).

%% Its word is for what it was sent then, not for what it was sent since.
a_word_for_what_was_taken_is_for_that_alone(Config) ->
    Store = store(Config),
    {Key, A, _Next} = taken_over(Store),
    ok = erl_esdb_subscriptions:attach(Store, Key, A),
    caught_up(Store, Key),
    ?assert(has(A, 9)),
    Had = took(A, 3),
    heard(Store, Key),
    ?assertEqual(3, unhandled(Store, Key)),
    ?assertEqual([0, 1, 2], took(A, 3)),
    heard(Store, Key),
    ?assertEqual(length([V || V <- [3, 4, 5], not lists:member(V, Had)]), unhandled(Store, Key)).

%% One that leaves, forgets what it was sent, and comes again, acknowledges that once.
a_handler_that_forgets_and_comes_again(Config) ->
    Store = store(Config),
    Options = #{ack => manual, window => 3},
    [{ok, Key}] = erl_esdb_test:concurrently([
        fun() -> subscribe(Store, stream, <<"s">>, <<"n">>, Options) end
    ]),
    ok = join(Store, Key, self()),
    _ = append(Store, <<"s">>, erl_esdb_test:events(5)),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))),
    ok = leave(Store, Key, self()),
    ok = join(Store, Key, self()),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 2),
    ?assertEqual([3, 4], erl_esdb_test:versions(events(2))),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 4),
    heard(Store, Key),
    ?assertEqual(0, unhandled(Store, Key)).

%% Also where it is back before that is heard of.
a_handler_that_forgets_and_is_back_at_once(Config) ->
    Store = store(Config),
    Options = #{ack => manual, window => 3},
    [{ok, Key}] = erl_esdb_test:concurrently([
        fun() -> subscribe(Store, stream, <<"s">>, <<"n">>, Options) end
    ]),
    ok = join(Store, Key, self()),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    3 = length(events(3)),
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    ok = sys:suspend(Process),
    ok = erl_esdb_emitter_group:leave(Store, Key, self()),
    ok = erl_esdb_emitter_group:join(Store, Key, self()),
    ok = sys:resume(Process),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 2),
    heard(Store, Key),
    ?assertEqual(0, unhandled(Store, Key)).

%% More than the queue holds is no reason to stop where all is taken.
a_small_queue_that_says_when_it_is_full(Config) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(50)),
    Options = #{subscriber => self(), max_queue => 3, strategy => error},
    {ok, _} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    ?assertEqual(lists:seq(0, 49), erl_esdb_test:versions(events(50))).

%% Who had all events before a handler came speaks of all that it was sent.
a_who_had_all_before_handlers_came_speaks_for_itself(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{ack => manual}),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    3 = length(events(3)),
    Handler = idle(),
    ok = join(Store, Key, Handler),
    _ = append(Store, <<"s">>, erl_esdb_test:events(2)),
    caught_up(Store, Key),
    ?assertEqual([3, 4], has_versions(Handler)),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 2),
    heard(Store, Key),
    ?assertEqual(2, unhandled(Store, Key)).

%% Also where the process of the subscription has begun anew in between.
a_handler_speaks_for_itself_while_another_takes_all(Config) ->
    Store = store(Config),
    {Key, A, Next} = taken_over(Store),
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    killed(Process),
    erl_esdb_test:await(fun() -> length(has_versions(Next)) =:= 12 end),
    _ = took(A, 3),
    heard(Store, Key),
    killed(Next),
    Last = idle(),
    ok = erl_esdb_subscriptions:attach(Store, Key, Last),
    caught_up(Store, Key),
    ?assertEqual(lists:seq(0, 5), has_versions(Last)).

%% One of two handlers that had six events between them, which one that was attached has by now.
taken_over(Store) ->
    Key = subscribed_by_none(Store),
    [A, _B] = two_on_demand(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(6)),
    caught_up(Store, Key),
    Next = idle(),
    ok = erl_esdb_subscriptions:attach(Store, Key, Next),
    erl_esdb_test:await(fun() -> has_versions(Next) =:= lists:seq(0, 5) end),
    {Key, A, Next}.

%% Handlers that have events when a subscriber dies do not get them again.
a_handlers_keep_what_they_have_when_a_subscriber_dies(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    Handler = idle(),
    ok = join(Store, Key, Handler),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    caught_up(Store, Key),
    Subscriber = idle(),
    ok = erl_esdb_subscriptions:attach(Store, Key, Subscriber),
    heard(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    caught_up(Store, Key),
    ?assertEqual([3], has_versions(Subscriber)),
    killed(Subscriber),
    erl_esdb_test:await(fun() -> has_versions(Handler) =:= [0, 1, 2, 3] end).

has_versions(Pid) ->
    {messages, Messages} = process_info(Pid, messages),
    erl_esdb_test:versions(lists:append([carried(M) || M <- Messages])).

carried({event, Event}) -> [Event];
carried({events, Events}) -> Events.

kept({ok, #{unhandled := Count}}) -> {ok, #{unhandled => Count}}.

handler_of_events(Report) ->
    spawn_link(fun Loop() ->
        receive
            {events, Events} ->
                [Report ! {handled, self(), Event} || Event <- Events],
                Loop()
        end
    end).

a_crashed_process_begins_again(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => self()}),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    3 = length(events(3)),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    exit(Pid, kill),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    Versions = until(fun(V) -> V =:= 3 end),
    ?assertEqual(lists:seq(hd(Versions), 3), Versions).

a_stopped_store_leaves_nothing(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => self(), pool_size => 2}),
    {ok, Subscription} = erl_esdb_subscriptions:get(Store, Key),
    {ok, _} = erl_esdb_emitter_pool:start_emitter(Store, Subscription),
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    ok = erl_esdb:stop_store(Store),
    ?assertNot(is_process_alive(Process)),
    ?assertEqual(undefined, ets:info(erl_esdb_naming:volatile_name(Store), size)),
    ?assertEqual([], erl_esdb_emitter_group:retrieve_emitters(Store, Key)),
    ?assertEqual([], erl_esdb_emitter_group:members(Store, Key)),
    ?assertEqual({error, {store_not_started, Store}}, erl_esdb_subscriptions:list(Store)).

%% What a handler that dies has not handled goes to the others, and only that.
a_handler_that_ends_leaves_its_events_to_the_others(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    Stuck = idle(),
    ok = join(Store, Key, Stuck),
    [Handler] = joined(Store, Key, 1),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    Own = [V || {_, #event{version = V}} <- handled(5)],
    erl_esdb_test:await(fun() ->
        {ok, #{unhandled => 6}} =:= kept(erl_esdb_subscriptions:info(Store, Key))
    end),
    exit(Stuck, kill),
    Left = [V || {Pid, #event{version = V}} <- handled(5), Pid =:= Handler],
    ?assertEqual(lists:seq(0, 9), lists:sort(Own ++ Left)),
    nothing_more(),
    receive {handled, _, _} = More -> error({twice, More}) after 0 -> ok end.

%% What one handler acknowledges says nothing of what another has.
a_handler_acknowledges_its_own(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{ack => manual}),
    Stuck = idle(),
    Self = self(),
    Handler = spawn(fun() -> acknowledging(Store, <<"n">>, Self) end),
    ok = join(Store, Key, [Stuck, Handler]),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    Own = [V || {_, #event{version = V}} <- handled(5)],
    erl_esdb_test:await(fun() ->
        {ok, #{unhandled => 5}} =:= kept(erl_esdb_subscriptions:info(Store, Key))
    end),
    %% Nor does it once the process of the subscription has begun anew.
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    exit(Process, kill),
    exit(Stuck, kill),
    ok = until_handled(Handler, lists:seq(0, 9) -- Own),
    erl_esdb_test:await(fun() ->
        {ok, #{unhandled => 0}} =:= kept(erl_esdb_subscriptions:info(Store, Key))
    end).

acknowledging(Store, Name, Test) ->
    receive
        {event, #event{version = Version} = Event} ->
            ok = erl_esdb_subscriptions:ack(Store, Name, undefined, Version),
            Test ! {handled, self(), Event},
            acknowledging(Store, Name, Test)
    end.

until_handled(_Handler, []) ->
    ok;
until_handled(Handler, Missing) ->
    [{Handler, #event{version = Version}}] = handled(1),
    until_handled(Handler, Missing -- [Version]).

%% What another had left comes behind what it was sent itself.
a_handler_acknowledges_in_the_order_of_sending(Config) ->
    Store = store(Config),
    Key = subscribed_by_none(Store),
    [A, B] = two_on_demand(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    caught_up(Store, Key),
    exit(B, kill),
    erl_esdb_test:await(fun() -> unhandled(Store, Key) =:= 10 andalso has(A, 10) end),
    First = took(A, 5),
    ?assertEqual(lists:sort(First), First),
    erl_esdb_test:await(fun() -> unhandled(Store, Key) =:= 5 end),
    exit(A, kill),
    C = on_demand(Store, self()),
    ok = join(Store, Key, C),
    ?assertEqual(lists:seq(0, 9) -- First, took(C, 5)).

%% What one has left unhandled when it leaves is with the others, whatever it says afterwards.
a_handler_that_has_left_speaks_for_nobody(Config) ->
    Store = store(Config),
    Key = subscribed_by_none(Store),
    [A, B] = two_on_demand(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    erl_esdb_test:await(fun() -> has(A, 5) andalso has(B, 5) end),
    ok = leave(Store, Key, B),
    erl_esdb_test:await(fun() -> has(A, 10) end),
    5 = length(took(B, 5)),
    ?assertEqual(10, unhandled(Store, Key)),
    %% And where nobody is left who takes events.
    ok = leave(Store, Key, A),
    10 = length(took(A, 10)),
    C = on_demand(Store, self()),
    ok = join(Store, Key, C),
    ?assertEqual(lists:seq(0, 9), took(C, 10)).

%% Who has handled an event says so, whatever became of it meanwhile: cut, hidden, or with its
%% stream deleted, or made again. One of another stream lies between, and has their positions apart.
a_what_is_gone_is_acknowledged(Config) ->
    Store = store(Config),
    [
        begin
            Name = <<(integer_to_binary(N))/binary>>,
            ok = goes_on(Store, Name, Taker, Away)
        end
     || {N, {Taker, Away}} <- lists:enumerate([
            {T, A}
         || T <- [subscriber, handler], A <- [cut, hidden, deleted, made_again]
        ])
    ].

goes_on(Store, Name, Taker, Away) ->
    Options = #{ack => manual, window => 2},
    {ok, Key} =
        case Taker of
            subscriber -> subscribe(Store, stream, Name, Name, Options#{subscriber => self()});
            handler -> subscribe(Store, stream, Name, Name, Options)
        end,
    _ = [join(Store, Key, self()) || Taker =:= handler],
    [append(Store, S, erl_esdb_test:events(1)) || S <- [Name, <<"foreign">>, Name, <<"foreign">>]],
    ?assertEqual([0, 1], erl_esdb_test:versions(events(2))),
    ok = away(Away, Store, Name),
    [ok = erl_esdb_subscriptions:ack(Store, Name, Name, V) || V <- [0, 1]],
    _ = append(Store, Name, erl_esdb_test:events(2)),
    ?assertEqual(2, length(events(2))),
    erl_esdb_subscriptions:unsubscribe(Store, Key).

away(cut, Store, Name) ->
    {ok, _} = erl_esdb_store:truncate(Store, Name, 2),
    ok;
away(hidden, Store, Name) ->
    erl_esdb_streams:set_metadata(Store, Name, #{truncate_before => 2}, #{});
away(deleted, Store, Name) ->
    erl_esdb_streams:delete(Store, Name);
away(made_again, Store, Name) ->
    ok = erl_esdb_streams:delete(Store, Name),
    _ = append(Store, Name, erl_esdb_test:events(3)),
    %% They wait for room.
    ok.

%% Who does not know how many handlers there are speaks of single events also where there is one.
a_the_last_handler_has_what_is_not_acknowledged(Config) ->
    Store = store(Config),
    Key = subscribed_by_none(Store),
    [A, B] = two_on_demand(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(6)),
    caught_up(Store, Key),
    exit(B, kill),
    erl_esdb_test:await(fun() -> has(A, 6) end),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, 4),
    ?assertEqual(5, unhandled(Store, Key)),
    exit(A, kill),
    C = on_demand(Store, self()),
    ok = join(Store, Key, C),
    ?assertEqual([0, 1, 2, 3, 5], took(C, 5)).

%% What handlers said by default bounds what is handled also after the process has begun anew.
a_what_handlers_said_is_known_after_a_crash(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{}),
    Self = self(),
    ok = join(Store, Key, spawn(fun() -> saying_once(Store, Self) end)),
    _ = append(Store, <<"s">>, erl_esdb_test:events(6)),
    6 = length(handled(6)),
    erl_esdb_test:await(fun() -> floor_of(Store, Key) =:= 1 end),
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    exit(Process, kill),
    ?assertEqual([1, 2, 3, 4, 5], [V || {_, #event{version = V}} <- handled(5)]),
    %% All but the last are seen to be taken out.
    erl_esdb_test:await(fun() -> unhandled(Store, Key) =:= 1 end),
    ?assertEqual(1, floor_of(Store, Key)).

saying_once(Store, Test) ->
    receive
        {event, #event{version = Version} = Event} ->
            Test ! {handled, self(), Event},
            _ = [erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, 0) || Version =:= 0],
            saying_once(Store, Test)
    end.

floor_of(Store, Key) ->
    case erl_esdb_subscriptions:info(Store, Key) of
        {ok, #{floor := Floor}} -> Floor;
        {error, _} -> none
    end.

%% A process that is none of the handlers acknowledges single events.
a_single_events_are_acknowledged_for_handlers(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{ack => manual}),
    _ = two_on_demand(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    caught_up(Store, Key),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, 9),
    ?assertEqual(9, unhandled(Store, Key)),
    [ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, V) || V <- lists:seq(0, 8)],
    {ok, #{unhandled := 0, floor := 10}} = erl_esdb_subscriptions:info(Store, Key).

%% What one of the handlers acknowledges says nothing of what another has either when there are none
%% any more: not when the process of the subscription begins anew afterwards.
a_handler_that_has_left_acknowledges_its_own(Config) ->
    Store = store(Config),
    Key = subscribed_by_none(Store),
    [First, Second] = two_on_demand(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(4)),
    caught_up(Store, Key),
    ok = leave(Store, Key, [First, Second]),
    Own = lists:sort(took(Second, 2)),
    heard(Store, Key),
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    killed(Process),
    Last = idle(),
    ok = erl_esdb_emitter_group:join(Store, Key, Last),
    Wanted = lists:seq(0, 3) -- Own,
    erl_esdb_test:await(fun() -> Wanted -- has_versions(Last) =:= [] end).

%% What a handler acknowledges after the process of the subscription began anew may be what the one
%% before has sent it: that says nothing of what it was sent since.
a_word_of_what_was_sent_before_a_crash(Config) ->
    Store = store(Config),
    Key = subscribed_by_none(Store),
    [First, Second] = [on_demand(Store, self()) || _ <- [1, 2]],
    ok = join(Store, Key, First),
    _ = append(Store, <<"s">>, erl_esdb_test:events(6)),
    caught_up(Store, Key),
    ok = join(Store, Key, Second),
    _ = append(Store, <<"s">>, erl_esdb_test:events(2)),
    caught_up(Store, Key),
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    killed(Process),
    %% Half of all once more.
    erl_esdb_test:await(fun() -> has(First, 7 + 4) andalso has(Second, 1 + 4) end),
    [Own] = took(Second, 1),
    ?assertEqual(7, unhandled(Store, Key)),
    lists:foreach(fun killed/1, [First, Second]),
    heard(Store, Key),
    Last = on_demand(Store, self()),
    ok = join(Store, Key, Last),
    ?assertEqual(lists:seq(0, 7) -- [Own], lists:sort(took(Last, 7))).

%% Who acknowledges not each event goes on all the same, and with the first that only the new
%% process can have sent it what was left open is known to be handled.
a_words_for_several_after_a_crash(Config) ->
    Store = store(Config),
    Self = self(),
    [{ok, Key}] = erl_esdb_test:concurrently([
        fun() -> subscribe(Store, stream, <<"s">>, <<"n">>, #{ack => manual, window => 2}) end
    ]),
    Handler = spawn(fun() -> acknowledging_each_second(Store, Self) end),
    ok = join(Store, Key, Handler),
    _ = append(Store, <<"s">>, erl_esdb_test:events(12)),
    [0, 1] = [V || {_, #event{version = V}} <- handled(2)],
    {ok, Process} = erl_esdb_delivery:pid(Store, subscription, Key),
    killed(Process),
    Handler ! go_on,
    ?assertEqual([0, 1 | lists:seq(2, 11)], [V || {_, #event{version = V}} <- handled(12)]),
    erl_esdb_test:await(fun() -> unhandled(Store, Key) =:= 6 end),
    ?assertEqual(0, floor_of(Store, Key)),
    {ok, Next} = erl_esdb_delivery:pid(Store, subscription, Key),
    Next ! certain,
    heard(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(2)),
    erl_esdb_test:await(fun() -> floor_of(Store, Key) =:= 14 end).

%% Those before `go_on` are not acknowledged.
acknowledging_each_second(Store, Test) ->
    Handle = fun() -> receive {event, Event} -> Test ! {handled, self(), Event}, Event end end,
    _ = [Handle(), Handle()],
    receive go_on -> ok end,
    (fun Loop() ->
        _ = Handle(),
        #event{version = Version} = Handle(),
        ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, Version),
        Loop()
    end)().

%% Also where its supervisor is killed, which leaves it to hear of that: what two send would come in
%% no order.
a_process_begins_when_the_one_before_has_ended(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    {ok, Before} = erl_esdb_delivery:pid(Store, subscription, Key),
    {ok, Supervisor} = erl_esdb_delivery:pid(Store, subscriptions, none),
    true = erlang:suspend_process(Before),
    killed(Supervisor),
    erl_esdb_test:await(fun() ->
        erl_esdb_delivery:pid(Store, subscription, Key) =/= {ok, Before} andalso
            (is_process_alive(Before) =:= false orelse error(two_at_a_time))
    end),
    _ = append(Store, <<"s">>, erl_esdb_test:events(2)),
    ?assertEqual([0, 1], [V || #event{version = V} <- events(2)]).

%% Nor where the word of one comes after the news of its end, as it may from another node: there
%% somebody else passes it on.
a_late_word_of_a_handler_that_has_ended(Config) ->
    Store = store(Config),
    Key = subscribed_by_none(Store),
    Handlers = [First, Second] = two_on_demand(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(4)),
    caught_up(Store, Key),
    lists:foreach(fun killed/1, Handlers),
    erl_esdb_test:await(fun() -> erl_esdb_emitter_group:handlers(Store, Key) =:= [] end),
    heard(Store, Key),
    [
        {ok, Key} = erl_esdb_subscriptions:ack_here(Store, <<"n">>, undefined, 3, Handler, #{})
     || Handler <- [First, Second]
    ],
    heard(Store, Key),
    Last = idle(),
    ok = join(Store, Key, Last),
    erl_esdb_test:await(fun() -> [0, 1, 2] -- has_versions(Last) =:= [] end).

%% One that does not go on holds up only its own share.
a_window_is_of_each_handler(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{ack => manual, window => 3}),
    Stuck = idle(),
    Self = self(),
    Handler = spawn(fun() -> acknowledging(Store, <<"n">>, Self) end),
    ok = join(Store, Key, [Stuck, Handler]),
    _ = append(Store, <<"s">>, erl_esdb_test:events(50)),
    47 = length(handled(47)),
    erl_esdb_test:await(fun() -> unhandled(Store, Key) =:= 3 end).

%% By a process that has ended: nobody but handlers takes the events.
subscribed_by_none(Store) ->
    [{ok, Key}] = erl_esdb_test:concurrently([
        fun() -> subscribe(Store, stream, <<"s">>, <<"n">>, #{ack => manual}) end
    ]),
    Key.

unhandled(Store, Key) ->
    {ok, #{unhandled := Count}} = erl_esdb_subscriptions:info(Store, Key),
    Count.

two_on_demand(Store, Key) ->
    Handlers = [on_demand(Store, self()) || _ <- [1, 2]],
    ok = join(Store, Key, Handlers),
    Handlers.

%% A handler that handles, and acknowledges, so many as it is told.
on_demand(Store, Test) -> spawn(fun() -> demanded(Store, Test) end).

demanded(Store, Test) ->
    receive
        {take, Count} ->
            Test ! {took, self(), [one(Store) || _ <- lists:seq(1, Count)]},
            demanded(Store, Test)
    end.

one(Store) ->
    receive
        {event, Event} -> acknowledged(Store, Event);
        {events, [Event]} -> acknowledged(Store, Event)
    end.

acknowledged(Store, #event{version = Version}) ->
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, Version),
    Version.

took(Handler, Count) ->
    Handler ! {take, Count},
    receive
        {took, Handler, Versions} -> Versions
    after 60_000 -> error(missing)
    end.

has(Handler, Count) -> {message_queue_len, Count} =:= process_info(Handler, message_queue_len).

%% Who acknowledges a position says that all before it are handled: they have come.
a_pool_keeps_the_order_of_what_is_acknowledged(Config) ->
    Store = store(Config),
    Options = #{subscriber => self(), pool_size => 3, ack => manual, window => 50},
    {ok, Key} = subscribe(Store, stream, <<"$all">>, <<"n">>, Options),
    [append(Store, <<N>>, erl_esdb_test:events(5)) || N <- lists:seq(1, 20)],
    ?assertEqual(lists:seq(0, 49), [P || #event{position = P} <- events(50)]),
    nothing_more(),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, undefined, 19),
    ?assertEqual(lists:seq(50, 69), [P || #event{position = P} <- events(20)]),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    exit(Pid, kill),
    ?assertEqual(lists:seq(20, 69), [P || #event{position = P} <- events(50)]).

%% One that leaves while it lives takes along what it has.
a_handler_that_leaves_keeps_what_it_was_sent(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    ok = join(Store, Key, self()),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    caught_up(Store, Key),
    ok = leave(Store, Key, self()),
    [Handler] = joined(Store, Key, 1),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    ?assertMatch([{Handler, #event{version = 3}}], handled(1)),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(mail())),
    receive {handled, _, _} = More -> error({twice, More}) after 0 -> ok end.

%% With emitters between, all but the last two of each are known to be handled.
a_pool_repeats_little_after_a_crash(Config) ->
    Store = store(Config),
    Options = #{subscriber => self(), pool_size => 2},
    {ok, Key} = subscribe(Store, stream, <<"$all">>, <<"n">>, Options),
    [append(Store, <<N>>, erl_esdb_test:events(5)) || N <- lists:seq(1, 20)],
    100 = length(events(100)),
    erl_esdb_test:await(fun() ->
        {ok, #{unhandled := Count}} = erl_esdb_subscriptions:info(Store, Key),
        Count =< 4
    end),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    exit(Pid, kill),
    ?assert(length(until_end(Store)) =< 4).

%% A window counts events, also where a message has several.
a_window_of_events_in_batches(Config) ->
    Store = store(Config),
    Slow = spawn_link(fun() -> receive stop -> ok end end),
    Options = #{subscriber => Slow, window => 20, batch => 10, max_queue => 5},
    _ = append(Store, <<"s">>, erl_esdb_test:events(200)),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    erl_esdb_test:await(fun() ->
        {ok, #{position := Position}} = erl_esdb_subscriptions:info(Store, Key),
        Position =:= 25
    end),
    {messages, Messages} = process_info(Slow, messages),
    ?assertEqual(20, length(lists:append([Events || {events, Events} <- Messages]))),
    Slow ! stop.

%% Looks at a mailbox that nothing is taken from come later and later.
a_slow_subscriber_is_looked_at_less_and_less(Config) ->
    Store = store(Config),
    Self = self(),
    Slow = spawn_link(fun Loop() ->
        receive
            take -> receive {events, [Event]} -> Self ! {taken, Event#event.version}, Loop() end
        end
    end),
    _ = append(Store, <<"s">>, erl_esdb_test:events(10)),
    Options = #{subscriber => Slow, window => 1},
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    1 = erlang:trace(Pid, true, ['receive', monotonic_timestamp]),
    Times = [looked() || _ <- lists:seq(1, 6)],
    1 = erlang:trace(Pid, false, ['receive']),
    Waits = lists:zipwith(fun(B, A) -> B - A end, tl(Times), lists:droplast(Times)),
    %% The last of five is at least eight times the first that there can be.
    ?assert(erlang:convert_time_unit(lists:last(Waits), native, millisecond) >= 80),
    [
        begin
            Slow ! take,
            receive {taken, V} -> ok after 60_000 -> error({missing, V}) end
        end
     || V <- lists:seq(0, 9)
    ].

looked() ->
    receive
        {trace_ts, _, 'receive', look, Time} -> Time;
        {trace_ts, _, 'receive', _, _} -> looked()
    after 60_000 -> error(missing)
    end.

%% Also after its process began again, who subscribed for another gets nothing.
a_subscriber_that_ended_has_no_substitute(Config) ->
    Store = store(Config),
    Subscriber = spawn(fun() -> receive stop -> ok end end),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, #{subscriber => Subscriber}),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    killed(Subscriber),
    killed(Pid),
    erl_esdb_test:await(fun() ->
        {ok, Pid} =/= erl_esdb_delivery:pid(Store, subscription, Key) andalso
            element(1, erl_esdb_subscriptions:info(Store, Key)) =:= ok
    end),
    _ = append(Store, <<"s">>, erl_esdb_test:events(2)),
    {ok, #{position := 0}} = erl_esdb_subscriptions:info(Store, Key),
    {ok, #{position := 0}} = erl_esdb_subscriptions:info(Store, Key),
    nothing_more(),
    ok = erl_esdb_subscriptions:attach(Store, Key, self()),
    ?assertEqual([0, 1], erl_esdb_test:versions(events(2))).

%% ---- JSON

a_selector_looks_into_json(Config) ->
    Store = json_store(Config),
    Totals = [{<<"s">>, #{<<"total">> => N}} || N <- [3, 5, 7]],
    Subscriber = self(),
    [
        begin
            {ok, Key} = subscribe(Store, Type, Selector, <<"n">>, #{subscriber => Subscriber}),
            [append(Store, S, [data(D)]) || {S, D} <- Totals],
            caught_up(Store, Key),
            Found = lists:usort([E#event.data || E <- mail()]),
            ?assertEqual({Selector, [<<"{\"total\":5}">>]}, {Selector, Found}),
            ok = erl_esdb_subscriptions:unsubscribe(Store, Key)
        end
     || {Type, Selector} <- [
            {event_payload, #{<<"total">> => 5}},
            {event_payload, {between, {data, [<<"total">>]}, 4, 6}},
            {event_pattern, #{data => #{<<"total">> => 5}}},
            {event_pattern, #{data => <<"{\"total\":5}">>}}
        ]
    ],
    ok = erl_esdb:stop_store(Store).

a_decoded_event(Config) ->
    Store = json_store(Config),
    Options = #{subscriber => self(), decode => json},
    {ok, _} = subscribe(Store, stream, <<"$all">>, <<"n">>, Options),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"c">>, #{
        consumers => competing, decode => json
    }),
    _ = append(Store, <<"s">>, [data(#{n => 1}), data(#{n => 2})]),
    ?assertEqual([#{<<"n">> => 1}, #{<<"n">> => 2}], [E#event.data || E <- events(2)]),
    ok = erl_esdb_subscriptions:connect(Store, Key, self(), #{}),
    [#event{data = #{<<"n">> := 1}} = First] = events(1),
    ok = erl_esdb_subscriptions:nack(Store, Key, self(), [First], park),
    [#event{data = #{<<"n">> := 2}} = Second] = events(1),
    ok = erl_esdb_subscriptions:ack_events(Store, Key, self(), [Second]),
    {ok, 1} = erl_esdb_subscriptions:replay_parked(Store, Key),
    [#event{data = #{<<"n">> := 1}}] = events(1),
    ?assertEqual(
        {error, {invalid_option, decode, yaml}},
        subscribe(Store, stream, <<"s">>, <<"x">>, #{decode => yaml})
    ),
    ok = erl_esdb:stop_store(Store).

json_store(Config) ->
    erl_esdb_test:start_store((proplists:get_value(options, Config))#{codec => json}).

%% ---- stores that sign

signing_store(Config) ->
    Integrity = #{enabled => true, key => <<"0123456789abcdef0123456789abcdef">>},
    erl_esdb_test:start_store((proplists:get_value(options, Config))#{integrity => Integrity}).

%% Nothing of a page with an event that was changed is sent, whoever gets the events; who does is
%% told once, and the subscription goes on when somebody is attached.
b_catching_up_verifies(Config) ->
    Store = signing_store(Config),
    [append(Store, S, erl_esdb_test:events(3)) || S <- [<<"s">>, <<"t">>]],
    {ok, Live} = subscribe(Store, stream, <<"$all">>, <<"live">>, #{subscriber => self()}),
    ?assertEqual(6, length(events(6))),
    Undo = changed(Store, <<"t">>, 1),
    [
        begin
            {ok, Key} = subscribe(Store, Type, Selector, <<"n">>, Options),
            ?assertMatch(
                #{
                    stream_id := <<"t">>,
                    version := 1,
                    kind := mac_mismatch,
                    context := #{detected_at := catchup_replay}
                },
                violation()
            ),
            {ok, #{status := {halted, {integrity_violation, _}}}} =
                erl_esdb_subscriptions:info(Store, Key),
            nothing_more(),
            ?assert(erl_esdb_subscriptions:exists(Store, Key)),
            ok = erl_esdb_subscriptions:unsubscribe(Store, Key)
        end
     || {Type, Selector} <- [{stream, <<"$all">>}, {stream, <<"t">>}, {event_pattern, <<"t*">>}],
        Options <- [#{}, #{subscriber => self()}]
    ],
    %% What is not selected is not looked at, and who has read on goes on.
    {ok, _} = subscribe(Store, event_pattern, <<"s*">>, <<"other">>, #{}),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))),
    _ = append(Store, <<"u">>, erl_esdb_test:events(1)),
    ?assertMatch([#event{stream_id = <<"u">>}], events(1)),
    {ok, Key} = subscribe(Store, stream, <<"t">>, <<"again">>),
    #{version := 1} = violation(),
    ok = erl_esdb_subscriptions:attach(Store, Key, self()),
    #{version := 1} = violation(),
    Undo(),
    ok = erl_esdb_subscriptions:attach(Store, Key, self()),
    ?assertEqual([0, 1, 2], erl_esdb_test:versions(events(3))),
    ok = erl_esdb_subscriptions:unsubscribe(Store, Live),
    ok = erl_esdb:stop_store(Store).

b_handlers_and_consumers_are_told_of_violations(Config) ->
    Store = signing_store(Config),
    _ = append(Store, <<"s">>, erl_esdb_test:events(3)),
    {ok, Key} = subscribe(Store, stream, <<"$all">>, <<"c">>, #{consumers => competing}),
    Undo = changed(Store, <<"s">>, 2),
    ok = erl_esdb_subscriptions:connect(Store, Key, self(), #{}),
    #{version := 2} = violation(),
    {ok, #{status := {halted, _}, held := 0}} = erl_esdb_subscriptions:info(Store, Key),
    nothing_more(),
    %% An event that is written later changes nothing.
    _ = append(Store, <<"t">>, erl_esdb_test:events(1)),
    {ok, #{status := {halted, _}, held := 0}} = erl_esdb_subscriptions:info(Store, Key),
    %% Of one whose subscriber is dead nothing is read before a handler joins.
    {Dead, Ref} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Ref, process, _, _} -> ok end,
    {ok, Grouped} = subscribe(Store, stream, <<"$all">>, <<"h">>, #{subscriber => Dead}),
    ok = join(Store, Grouped, [self(), spawned(Store)]),
    #{version := 2} = violation(),
    Undo(),
    ok = erl_esdb_subscriptions:connect(Store, Key, self(), #{}),
    ?assertEqual([{<<"s">>, 0}, {<<"t">>, 0}], lists:sort(names(events(2)))),
    ok = erl_esdb:stop_store(Store).

%% Readers race a stream that is cut: nothing is a violation, and what is there comes.
b_a_stream_that_is_cut_is_no_violation(Config) ->
    Store = signing_store(Config),
    {ok, Key} = subscribe(Store, stream, <<"$all">>, <<"n">>, #{subscriber => self(), window => 3}),
    [
        begin
            _ = append(Store, <<"s">>, erl_esdb_test:events(4)),
            {ok, _} = erl_esdb_store:truncate(Store, <<"s">>, 4 * N - 2)
        end
     || N <- lists:seq(1, 100)
    ],
    Versions = erl_esdb_test:versions(until_end(Store)),
    ?assertEqual(Versions, lists:usort(Versions)),
    ?assertEqual([398, 399], lists:nthtail(length(Versions) - 2, Versions)),
    {ok, #{status := running}} = erl_esdb_subscriptions:info(Store, Key),
    ok = erl_esdb:stop_store(Store).

violation() ->
    receive
        {subscription_error, {integrity_violation, Details}} -> Details;
        {Shape, _} = Message when Shape =:= event; Shape =:= events -> error({unexpected, Message})
    after 60_000 -> error(missing)
    end.

changed(Store, Stream, Version) ->
    erl_esdb_integrity_SUITE:change(Store, Stream, Version, fun(Body) ->
        setelement(2, Body, <<"Changed">>)
    end).

%% ---- options, keys, errors

b_a_fun_is_refused_and_the_unknown_warned_of(Config) ->
    Store = store(Config),
    Fun = fun() -> ok end,
    Subscribe = fun(Selector, Options) ->
        subscribe(Store, event_pattern, Selector, <<"n">>, Options)
    end,
    ?assertEqual(
        {error, {invalid_option, of_mine, [#{a => {Fun}}]}},
        Subscribe(<<"*">>, #{of_mine => [#{a => {Fun}}]})
    ),
    ?assertMatch({error, {invalid_selector, _}}, Subscribe(#{data => #{a => [Fun]}}, #{})),
    {ok, []} = erl_esdb_subscriptions:list(Store),
    ok = logger:add_handler(?FUNCTION_NAME, ?MODULE, #{config => self()}),
    {ok, Key} = Subscribe(<<"*">>, #{strategi => block, timeout => 1000, window => 5}),
    ok = logger:remove_handler(?FUNCTION_NAME),
    receive {logged, warning, [Store, Key, [strategi]]} -> ok after 0 -> error(missing) end,
    {ok, #subscription{options = Options}} = erl_esdb_subscriptions:get(Store, Key),
    ?assertEqual(#{strategi => block, window => 5}, Options).

%% The handler of the case above.
log(#{level := Level, msg := {Format, Args}}, #{config := Pid}) when is_list(Format) ->
    Pid ! {logged, Level, Args};
log(_, _) ->
    ok.

%% Two names whose keys are equal by nature.
b_keys_that_collide(Config) ->
    Store = store(Config),
    [A, B] = Names = [<<"n13176">>, <<"n16468">>],
    [Natural] = lists:usort([erl_esdb_subscriptions_store:key(stream, <<"s">>, N) || N <- Names]),
    {ok, Natural} = subscribe(Store, stream, <<"s">>, A),
    {ok, Other} = subscribe(Store, stream, <<"s">>, B, #{subscriber => self()}),
    ?assertNotEqual(Natural, Other),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    ?assertEqual([0, 0], erl_esdb_test:versions(events(2))),
    {ok, #subscription{id = Other, subscription_name = B}} =
        erl_esdb_subscriptions:get(Store, Other),
    Exists = fun(Name) -> {error, {already_exists, Name}} end,
    [?assertEqual(Exists(N), subscribe(Store, stream, <<"s">>, N)) || N <- Names],
    ok = erl_esdb_subscriptions:unsubscribe(Store, Natural),
    ?assertEqual(Exists(B), subscribe(Store, stream, <<"s">>, B)),
    ?assertEqual({ok, Natural}, subscribe(Store, stream, <<"s">>, A)),
    %% Kept without an id, a record takes the place of its own, and of no other.
    [
        ok = erl_esdb_subscriptions_store:put(Store, #subscription{
            type = stream, selector = <<"s">>, subscription_name = Name
        })
     || Name <- [B, A, B]
    ],
    {ok, Kept} = erl_esdb_subscriptions_store:list(Store),
    ?assertEqual(
        lists:sort([{Natural, A}, {Other, B}]),
        [{S#subscription.id, S#subscription.subscription_name} || S <- Kept]
    ).

b_an_unknown_store(_Config) ->
    Error = {error, {store_not_started, no_store}},
    Calls = [
        {subscribe, [stream, <<"s">>, <<"n">>]},
        {unsubscribe, [<<"k">>]},
        {unsubscribe, [stream, <<"n">>]},
        {attach, [<<"k">>, self()]},
        {ack, [<<"n">>, undefined, 1]},
        {demand, [<<"k">>, 1]},
        {get, [<<"k">>]},
        {list, []},
        {info, [<<"k">>]},
        {connect, [<<"k">>, self(), #{}]},
        {disconnect, [<<"k">>, self()]},
        {ack_events, [<<"k">>, self(), [1]]},
        {nack, [<<"k">>, self(), [1], park]},
        {parked, [<<"k">>]},
        {replay_parked, [<<"k">>]}
    ],
    [
        ?assertEqual({F, Error}, {F, apply(erl_esdb_subscriptions, F, [no_store | Args])})
     || {F, Args} <- Calls
    ].

b_a_key_that_is_none(Config) ->
    Store = store(Config),
    [
        ?assertEqual({F, {error, not_found}}, {F, apply(erl_esdb_subscriptions, F, [Store | Args])})
     || {F, Args} <- [
            {attach, [<<"k">>, self()]},
            {demand, [<<"k">>, 1]},
            {info, [<<"k">>]},
            {connect, [<<"k">>, self(), #{}]},
            {ack_events, [<<"k">>, self(), [1]]},
            {parked, [<<"k">>]},
            {replay_parked, [<<"k">>]}
        ]
    ].

%% Whoever is asked and does not answer, the call ends in time.
b_a_call_ends_in_time(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    Error = {error, {timeout, Store}},
    In = fun(F, Args) ->
        Options = #{timeout => 20},
        ?assertEqual({F, Error}, {F, apply(erl_esdb_subscriptions, F, [Store | Args] ++ [Options])})
    end,
    {ok, Manager} = erl_esdb_delivery:pid(Store, manager, none),
    ok = sys:suspend(Manager),
    In(subscribe, [stream, <<"s">>, <<"m">>]),
    In(unsubscribe, [<<"k">>]),
    In(unsubscribe, [stream, <<"n">>]),
    In(attach, [Key, self()]),
    ok = sys:resume(Manager),
    {ok, Competing} = subscribe(Store, stream, <<"s">>, <<"c">>, #{consumers => competing}),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Competing),
    ok = sys:suspend(Pid),
    In(info, [Competing]),
    In(demand, [Competing, 1]),
    In(disconnect, [Competing, self()]),
    In(ack_events, [Competing, self(), [1]]),
    In(nack, [Competing, self(), [1], skip]),
    In(replay_parked, [Competing]),
    ?assertEqual(
        Error, erl_esdb_subscriptions:connect(Store, Competing, self(), #{timeout => 20})
    ),
    ok = sys:resume(Pid),
    {ok, Checkpoints} = erl_esdb_delivery:find(Store, checkpoints, none),
    ok = sys:suspend(Checkpoints),
    In(ack, [<<"c">>, undefined, 1]),
    ok = sys:resume(Checkpoints),
    ?assertError(badarg, erl_esdb_subscriptions:info(Store, Key, #{timeout => soon})).

%% What was acknowledged is saved when that returns, though the process ends before it hears of it.
b_acknowledged_just_before_a_crash(Config) ->
    Store = store(Config),
    _ = append(Store, <<"s">>, [data(#{n => N}) || N <- lists:seq(0, 9)]),
    Options = #{subscriber => self(), ack => manual, window => 3},
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>, Options),
    ?assertEqual([0, 1, 2], [V || #event{version = V} <- events(3)]),
    {ok, Pid} = erl_esdb_delivery:pid(Store, subscription, Key),
    true = erlang:suspend_process(Pid),
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"s">>, 1),
    exit(Pid, kill),
    ?assertEqual([2, 3, 4], [V || #event{version = V} <- events(3)]).

%% A manager that ends during a call, and one that ended before, make an error.
b_a_manager_that_ends(Config) ->
    Store = store(Config),
    Error = {error, {store_not_started, Store}},
    {ok, Manager} = erl_esdb_delivery:pid(Store, manager, none),
    ok = sys:suspend(Manager),
    Calls = [
        fun() -> subscribe(Store, stream, <<"s">>, <<"n">>) end,
        fun() -> erl_esdb_subscriptions:unsubscribe(Store, <<"k">>) end,
        fun() -> erl_esdb_subscriptions:attach(Store, <<"k">>, self()) end,
        fun() ->
            Asked = {message_queue_len, 3},
            erl_esdb_test:await(fun() -> Asked =:= process_info(Manager, message_queue_len) end),
            exit(Manager, kill)
        end
    ],
    ?assertEqual([Error, Error, Error, true], erl_esdb_test:concurrently(Calls)),
    erl_esdb_test:await(fun() ->
        {ok, Manager} =/= erl_esdb_delivery:pid(Store, manager, none)
    end),
    Dead = spawn(fun() -> ok end),
    {ok, Alive} = erl_esdb_delivery:pid(Store, manager, none),
    ok = erl_esdb_delivery:put(Store, manager, none, Dead),
    ?assertEqual(Error, subscribe(Store, stream, <<"s">>, <<"n">>)),
    ok = erl_esdb_delivery:put(Store, manager, none, Alive),
    ?assertMatch({ok, _}, subscribe(Store, stream, <<"s">>, <<"n">>)).

%% Names are not looked for in all subscriptions.
b_an_unknown_name_costs_nothing(Config) ->
    Store = store(Config),
    Cost = fun() ->
        erl_esdb_test:reductions(fun() ->
            {error, _} = erl_esdb_subscriptions:ack(Store, <<"unknown">>, undefined, 1),
            false = erl_esdb_subscriptions_store:exists(Store, stream, <<"unknown">>),
            {error, not_found} = erl_esdb_subscriptions:unsubscribe(Store, stream, <<"unknown">>)
        end)
    end,
    Alone = Cost(),
    [
        ok = erl_esdb_subscriptions_store:put(Store, subscription(integer_to_binary(N)))
     || N <- lists:seq(1, 1000)
    ],
    ?assert(Cost() < 3 * Alone).

%% What is done at the end of a stop takes nothing from the store that was started meanwhile.
b_a_store_that_is_started_while_it_is_stopped(Config) ->
    Store = store(Config),
    Options = proplists:get_value(options, Config),
    Stop = fun() -> erl_esdb:stop_store(Store) end,
    [
        begin
            {_, Ref} = spawn_opt(Stop, [monitor, {priority, low}]),
            erl_esdb_test:await(fun() ->
                element(1, erl_esdb:start_store(Store, Options)) =:= ok
            end),
            receive {'DOWN', Ref, process, _, _} -> ok end,
            ?assertMatch({ok, _}, subscribe(Store, stream, <<"s">>, <<"n">>)),
            _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
            ?assertEqual([0], erl_esdb_test:versions(events(1)))
        end
     || _ <- lists:seq(1, 30)
    ].

%% ---- how they are kept

a_sst_01_key(_Config) ->
    Key = erl_esdb_subscriptions_store:key(stream, <<"order-123">>, <<"sub">>),
    ?assertEqual(<<"84568820">>, Key),
    Subscription = #subscription{
        type = stream, selector = <<"order-123">>, subscription_name = <<"sub">>
    },
    ?assertEqual(Key, erl_esdb_subscriptions_store:key(Subscription)).

subscription(Name) ->
    #subscription{type = event_type, selector = <<"T">>, subscription_name = Name}.

kept_as_k() -> (subscription(<<"m">>))#subscription{id = <<"k">>}.

a_sst_02_put(Config) ->
    Store = store(Config),
    ok = erl_esdb_subscriptions_store:put(Store, subscription(<<"n">>)),
    Key = erl_esdb_subscriptions_store:key(event_type, <<"T">>, <<"n">>),
    ?assertMatch(#subscription{id = Key}, erl_esdb_subscriptions_store:get(Store, Key)),
    ok = erl_esdb_subscriptions_store:put(Store, kept_as_k()),
    ?assertMatch(#subscription{id = <<"k">>}, erl_esdb_subscriptions_store:get(Store, <<"k">>)).

a_sst_03_get(Config) ->
    ?assertEqual(undefined, erl_esdb_subscriptions_store:get(store(Config), <<"k">>)),
    Given = (kept_as_k())#subscription{options = #{a => 1}},
    ok = erl_esdb_subscriptions_store:put(store(Config), Given),
    ?assertEqual(Given, erl_esdb_subscriptions_store:get(store(Config), <<"k">>)).

a_sst_04_delete(Config) ->
    Store = store(Config),
    ok = erl_esdb_subscriptions_store:put(Store, kept_as_k()),
    ?assertEqual(ok, erl_esdb_subscriptions_store:delete(Store, <<"k">>)),
    ?assertEqual(ok, erl_esdb_subscriptions_store:delete(Store, <<"k">>)),
    ?assertEqual(undefined, erl_esdb_subscriptions_store:get(Store, <<"k">>)).

a_sst_05_exists(Config) ->
    Store = store(Config),
    ok = erl_esdb_subscriptions_store:put(Store, kept_as_k()),
    ?assert(erl_esdb_subscriptions_store:exists(Store, event_type, <<"m">>)),
    ?assertNot(erl_esdb_subscriptions_store:exists(Store, stream, <<"m">>)),
    ?assert(erl_esdb_subscriptions_store:exists(Store, <<"k">>)),
    ?assertNot(erl_esdb_subscriptions_store:exists(Store, <<"l">>)).

a_sst_06_find_by_name(Config) ->
    Store = store(Config),
    ?assertEqual({error, not_found}, erl_esdb_subscriptions_store:find_by_name(Store, <<"m">>)),
    Given = kept_as_k(),
    ok = erl_esdb_subscriptions_store:put(Store, Given),
    ?assertEqual({ok, <<"k">>, Given}, erl_esdb_subscriptions_store:find_by_name(Store, <<"m">>)),
    ?assertEqual({ok, <<"k">>, Given}, erl_esdb_subscriptions_store:find_by_name(Store, <<"m">>)),
    ok = erl_esdb_subscriptions_store:delete(Store, <<"k">>),
    ?assertEqual({error, not_found}, erl_esdb_subscriptions_store:find_by_name(Store, <<"m">>)).

a_sst_07_update_checkpoint(Config) ->
    Store = store(Config),
    ?assertEqual(
        {error, not_found}, erl_esdb_subscriptions_store:update_checkpoint(Store, <<"k">>, 1)
    ),
    ok = erl_esdb_subscriptions_store:put(Store, kept_as_k()),
    ?assertEqual(ok, erl_esdb_subscriptions_store:update_checkpoint(Store, <<"k">>, 9)),
    ?assertMatch(#subscription{checkpoint = 9}, erl_esdb_subscriptions_store:get(Store, <<"k">>)).

a_sst_08_list(Config) ->
    Store = store(Config),
    ?assertEqual({ok, []}, erl_esdb_subscriptions_store:list(Store)),
    [ok = erl_esdb_subscriptions_store:put(Store, subscription(<<N>>)) || N <- lists:seq(1, 5)],
    {ok, Found} = erl_esdb_subscriptions_store:list(Store),
    ?assertEqual(5, length(Found)).

%% ---- filters

a_flt_01_by_stream(_Config) ->
    Event = #event{stream_id = <<"s">>},
    [
        ?assert(erl_esdb_filters:matches(erl_esdb_filters:by_stream(S), Event))
     || S <- [<<"$all">>, <<"s">>]
    ],
    ?assertNot(erl_esdb_filters:matches(erl_esdb_filters:by_stream(<<"t">>), Event)),
    ?assertEqual({error, invalid_stream}, erl_esdb_filters:by_stream(<<>>)).

a_flt_02_others(_Config) ->
    Event = #event{
        stream_id = <<"s">>, event_type = <<"T">>, data = #{n => 5}, metadata = #{}, version = 3
    },
    Filters = [
        erl_esdb_filters:by_event_type(<<"T">>),
        erl_esdb_filters:by_event_pattern(#{event_type => <<"T">>, version => 3}),
        erl_esdb_filters:by_event_payload(#{n => {gt, 4}})
    ],
    [?assert(erl_esdb_filters:matches(Filter, Event)) || Filter <- Filters],
    Other = Event#event{event_type = <<"U">>, data = #{n => 4}},
    [?assertNot(erl_esdb_filters:matches(Filter, Other)) || Filter <- Filters].

t_18_a_pattern_is_a_wildcard_or_a_map(Config) ->
    Streams = [{<<"order-1">>, typed(<<"T">>)}, {<<"user-1">>, typed(<<"U">>)}],
    ?assertEqual([<<"order-1">>], selected(Config, event_pattern, <<"order-*">>, Streams)),
    Map = #{event_type => <<"U">>},
    ?assertEqual([<<"user-1">>], lists:usort(selected(Config, event_pattern, Map, Streams))).

%% What a handler gets of its subscription and of a broadcast.
t_19_shapes_of_messages(Config) ->
    Store = store(Config),
    {ok, Key} = subscribe(Store, stream, <<"s">>, <<"n">>),
    ok = join(Store, Key, self()),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    Event = receive {event, E} -> E end,
    ok = erl_esdb_emitter_group:broadcast(Store, Key, Event),
    Topic = erl_esdb_emitter_group:topic(Store, Key),
    receive {forward_to_local, Topic, Event} -> ok end,
    ok = erl_esdb_subscriptions:attach(Store, Key, self()),
    heard(Store, Key),
    _ = append(Store, <<"s">>, erl_esdb_test:events(1)),
    receive {events, [#event{version = 1}]} -> ok end,
    nothing_more().

t_21_ack_takes_the_name_before_the_stream(Config) ->
    {ok, _} = subscribe(store(Config), stream, <<"s">>, <<"n">>),
    ?assertEqual(ok, erl_esdb_subscriptions:ack(store(Config), <<"n">>, <<"s">>, 1)),
    ?assertEqual(
        {error, {subscription_not_found, <<"s">>}},
        erl_esdb_subscriptions:ack(store(Config), <<"s">>, <<"n">>, 1)
    ).

t_22_ack_finds_the_first_of_a_name(Config) ->
    Store = store(Config),
    Keys = [element(2, subscribe(Store, stream, S, <<"n">>)) || S <- [<<"s">>, <<"t">>, <<"u">>]],
    ok = erl_esdb_subscriptions:ack(Store, <<"n">>, <<"t">>, 5),
    {ok, Found} = erl_esdb_subscriptions:list(Store),
    First = lists:min(Keys),
    ?assertEqual([First], [S#subscription.id || S <- Found, S#subscription.checkpoint =:= 5]).

t_23_history_is_replayed_by_default(Config) ->
    _ = append(store(Config), <<"s">>, erl_esdb_test:events(2)),
    {ok, _} = subscribe(store(Config), event_type, <<"Counted">>, <<"n">>),
    ?assertEqual([0, 1], erl_esdb_test:versions(events(2))).

t_24_the_record_has_the_names_of_the_api(Config) ->
    Before = erlang:system_time(millisecond),
    Record = record(Config, #{}),
    ?assertMatch(
        #subscription{type = stream, selector = <<"s">>, subscription_name = <<"n">>}, Record
    ),
    ?assert(Record#subscription.created_at >= Before).

t_25_type_all_is_unknown(Config) ->
    ?assertEqual(
        {error, {invalid_type, all}}, subscribe(store(Config), all, <<"$all">>, <<"n">>)
    ).

%% Against a regular expression made of it.
t_17_wildcards_have_stars_only(_Config) ->
    Bytes = list(oneof("ab*?.")),
    Property = ?FORALL(
        {Pattern, Text},
        {Bytes, Bytes},
        begin
            Escaped = [
                case C of
                    $* -> ".*";
                    _ -> [$\\, C]
                end
             || C <- Pattern
            ],
            Quoted = [re_safe(Part) || Part <- Escaped],
            Regex = iolist_to_binary(["\\A", Quoted, "\\z"]),
            Expected = re:run(Text, Regex, [dotall, {capture, none}]) =:= match,
            Wildcard = erl_esdb_filters:wildcard(list_to_binary(Pattern)),
            Expected =:= erl_esdb_filters:wildcard_match(Wildcard, list_to_binary(Text))
        end
    ),
    erl_esdb_test:property(2000, Property).

re_safe([$\\, C]) when C =:= $a; C =:= $b -> [C];
re_safe(Part) -> Part.
