-module(erl_esdb_links_SUITE).
-moduledoc "Links: what they select and write, and that each source has one output.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../include/erl_esdb_telemetry.hrl").

-import(erl_esdb_test, [await/1, event/1, events/2]).

-define(N, ~"big").
-define(OUT, ~"$link:big").

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

%% A link goes with who leads.
groups() -> erl_esdb_test:groups(cases(), #{one_node => [b_a_link_waits_for_the_store]}).

cases() ->
    [
        F
     || {F, 1} <- ?MODULE:module_info(exports),
        lists:any(fun(P) -> lists:prefix(P, atom_to_list(F)) end, ["a_", "b_", "t_"])
    ].

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) -> [{store, erl_esdb_test:start_store(#{})} | Config].

end_per_testcase(_Case, Config) ->
    _ = erl_esdb:stop_store(store(Config)),
    ok.

store(Config) -> proplists:get_value(store, Config).

stream(Stream) -> #{type => stream, stream_id => Stream}.

pattern(Pattern) -> #{type => stream_pattern, pattern => Pattern}.

spec(Source) -> #{name => ?N, source => Source}.

started(Store, #{name := Name} = Spec) ->
    ok = erl_esdb_links:create(Store, Spec),
    ok = erl_esdb_links:start(Store, Name).

append(Store, Stream, Events) ->
    {ok, _} = erl_esdb_streams:append(Store, Stream, any, Events),
    ok.

%% The outputs of a link.
outputs(Store, Name) ->
    case erl_esdb_streams:read(Store, erl_esdb_link_spec:stream(Name), 0, infinity, forward) of
        {ok, Events} -> Events;
        {error, {stream_not_found, _}} -> []
    end.

%% The numbers in the data of the outputs, when there are so many.
numbers(Store, Name, Count) ->
    await(fun() -> length(outputs(Store, Name)) >= Count end),
    [N || #event{data = #{n := N}} <- outputs(Store, Name)].

%% Returns when the link has seen all that is in the log: an event that it selects came through.
settled(Store, Name, Stream) ->
    Id = integer_to_binary(erlang:unique_integer([positive])),
    append(Store, Stream, [(event(last))#{event_id => Id}]),
    await(fun() -> lists:member(Id, erl_esdb_test:ids(outputs(Store, Name))) end).

%% ---- definitions

a_lnk_01_create(Config) ->
    ?assertEqual(ok, erl_esdb_links:create(store(Config), spec(stream(~"s")))),
    ?assertEqual(
        {ok, #{name => ?N, source => stream(~"s"), status => stopped, processed => 0}},
        erl_esdb_links:get(store(Config), ?N)
    ).

a_lnk_02_already_exists(Config) ->
    ok = erl_esdb_links:create(store(Config), spec(stream(~"s"))),
    ?assertEqual(
        {error, already_exists}, erl_esdb_links:create(store(Config), spec(#{type => all}))
    ),
    {ok, #{source := Source}} = erl_esdb_links:get(store(Config), ?N),
    ?assertEqual(stream(~"s"), Source),
    Other = #{name => ~"x", source => #{type => all}},
    Create = fun() -> erl_esdb_links:create(store(Config), Other) end,
    Results = erl_esdb_test:concurrently([Create || _ <- lists:seq(1, 10)]),
    ?assertEqual(1, length([ok || ok <- Results])).

a_lnk_03_incomplete_specs(Config) ->
    All = #{type => all},
    [
        ?assertEqual({error, {invalid_link, Why}}, erl_esdb_links:create(store(Config), Spec))
     || {Spec, Why} <- [
            {#{}, {missing, name}},
            {#{name => ?N}, {missing, source}},
            {#{name => big, source => All}, {bad_type, name}},
            {#{name => ~"", source => All}, {bad_type, name}},
            {#{name => binary:copy(~"n", 65_531), source => All}, {bad_type, name}},
            {#{name => ?N, source => all}, {bad_type, source}},
            {#{name => ?N, source => #{type => stream}}, {bad_type, source}},
            {#{name => ?N, source => pattern("s")}, {bad_type, source}},
            {#{name => ?N, source => stream(~"")}, {bad_type, source}},
            {#{name => ?N, source => stream(binary:copy(~"s", 65_537))}, {bad_type, source}},
            {#{name => ?N, source => pattern(~"")}, {bad_type, source}},
            {#{name => ?N, source => All, decode => xml}, {bad_type, decode}},
            {#{name => ?N, source => All, backfill => yes}, {bad_type, backfill}},
            {#{name => ?N, source => All, filter => fun() -> true end}, {bad_type, filter}},
            {#{name => ?N, source => All, filter => {nosuch, f, []}}, {undefined_function, filter}},
            {#{name => ?N, source => All, transform => {gt, n, 1}}, {bad_type, transform}}
        ]
    ],
    ?assertEqual({ok, []}, erl_esdb_links:list(store(Config))).

a_lnk_04_unknown(Config) ->
    ?assertEqual({error, not_found}, erl_esdb_links:get(store(Config), ?N)),
    ?assertEqual({error, not_found}, erl_esdb_links:info(store(Config), ?N)),
    ?assertEqual({error, not_found}, erl_esdb_links:start(store(Config), ?N)).

a_lnk_05_list(Config) ->
    ?assertEqual({ok, []}, erl_esdb_links:list(store(Config))),
    Names = lists:sort([~"b", ~"a", <<255>>, binary:copy(~"n", 300)]),
    All = #{type => all},
    [ok = erl_esdb_links:create(store(Config), #{name => N, source => All}) || N <- Names],
    {ok, Infos} = erl_esdb_links:list(store(Config)),
    ?assertEqual(Names, [Name || #{name := Name} <- Infos]).

a_lnk_06_info(Config) ->
    Store = store(Config),
    Before = erlang:system_time(millisecond),
    ok = erl_esdb_links:create(Store, (spec(stream(~"s")))#{backfill => true}),
    {ok, Info} = erl_esdb_links:info(Store, ?N),
    ?assertMatch(
        #{
            name := ?N,
            status := stopped,
            processed := 0,
            last_event := undefined,
            link_stream := ?OUT,
            link_stream_version := -1
        },
        Info
    ),
    ?assert(maps:get(created_at, Info) >= Before),
    append(Store, ~"s", [(event(1))#{event_id => ~"one"}]),
    ok = erl_esdb_links:start(Store, ?N),
    Expected = Info#{
        status := running, processed := 1, last_event := ~"one", link_stream_version := 0
    },
    await(fun() -> erl_esdb_links:info(Store, ?N) =:= {ok, Expected} end),
    {ok, #{last_event := ~"one"}} = erl_esdb_links:get(Store, ?N).

%% ---- what is selected

a_lnk_07_backfill(Config) ->
    Store = store(Config),
    %% More than the link reads at a time, with others in between.
    [
        begin
            append(Store, ~"s", events(N, N + 9)),
            append(Store, ~"other", events(N, N + 4))
        end
     || N <- lists:seq(0, 490, 10)
    ],
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    ?assertEqual(lists:seq(0, 499), numbers(Store, ?N, 500)).

a_lnk_08_no_backfill(Config) ->
    Store = store(Config),
    append(Store, ~"s", events(1, 3)),
    started(Store, spec(stream(~"s"))),
    ?assertMatch({ok, #{link_stream_version := -1}}, erl_esdb_links:info(Store, ?N)),
    append(Store, ~"s", events(4, 4)),
    ?assertEqual([4], numbers(Store, ?N, 1)).

a_lnk_09_live(Config) ->
    Store = store(Config),
    append(Store, ~"s", events(0, 0)),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    [append(Store, ~"s", events(N, N)) || N <- lists:seq(1, 50)],
    ?assertEqual(lists:seq(0, 50), numbers(Store, ?N, 51)).

a_lnk_10_each_source(Config) ->
    Store = store(Config),
    Sources = [
        {~"one", stream(~"a-1")},
        {~"some", pattern(~"a-*")},
        {~"every", #{type => all}},
        %% T-17: a question mark is itself.
        {~"mark", pattern(~"a-?")}
    ],
    [started(Store, #{name => Name, source => Source}) || {Name, Source} <- Sources],
    [append(Store, S, [event(S)]) || S <- [~"a-1", ~"a-2", ~"b", ~"a-?"]],
    ?assertEqual([~"a-1", ~"a-2", ~"b", ~"a-?"], numbers(Store, ~"every", 4)),
    ?assertEqual([~"a-1", ~"a-2", ~"a-?"], numbers(Store, ~"some", 3)),
    ?assertEqual([~"a-1"], numbers(Store, ~"one", 1)),
    ?assertEqual([~"a-?"], numbers(Store, ~"mark", 1)).

%% Patterns against the obvious way of matching them.
t_17_patterns(_Config) ->
    Byte = oneof([$a, $b, $?, $., $*]),
    Property = ?FORALL(
        {Pattern, Text},
        {list(Byte), list(oneof([$a, $b, $?, $.]))},
        begin
            Source = pattern(list_to_binary(Pattern)),
            Rules = erl_esdb_link_spec:rules(#{source => Source, decode => none, id => ~"id"}),
            Selects = maps:get(selects, Rules),
            glob(Pattern, Text) =:= Selects(list_to_binary(Text))
        end
    ),
    erl_esdb_test:property(2000, Property).

glob([$* | Rest], Text) -> lists:any(fun(T) -> glob(Rest, T) end, tails(Text));
glob([C | Rest], [C | Text]) -> glob(Rest, Text);
glob([], []) -> true;
glob(_, _) -> false.

tails([]) -> [[]];
tails([_ | Rest] = Text) -> [Text | tails(Rest)].

a_lnk_11_links_are_no_source_of_all(Config) ->
    Store = store(Config),
    Links = [
        {~"x", #{type => all}},
        {~"y", #{type => all}},
        {~"w", pattern(~"*")},
        {~"z", pattern(~"$link:*")}
    ],
    [started(Store, #{name => Name, source => Source}) || {Name, Source} <- Links],
    append(Store, ~"s", events(1, 20)),
    append(Store, ~"t", events(21, 21)),
    [?assertEqual(lists:seq(1, 21), numbers(Store, Name, 21)) || Name <- [~"x", ~"y", ~"w"]],
    [settled(Store, Name, ~"s") || Name <- [~"x", ~"y", ~"w"]],
    %% The last of them follows the log by itself.
    await(fun() ->
        [24, 24, 24, 0] =:= [length(outputs(Store, Name)) || {Name, _} <- Links]
    end).

b_loops_are_refused(Config) ->
    Store = store(Config),
    Create = fun(Name, Source) ->
        erl_esdb_links:create(Store, #{name => Name, source => Source})
    end,
    ?assertEqual({error, {link_loop, [~"a"]}}, Create(~"a", stream(~"$link:a"))),
    ok = Create(~"a", stream(~"$link:b")),
    ok = Create(~"b", stream(~"$link:c")),
    ?assertEqual({error, {link_loop, [~"c", ~"a", ~"b"]}}, Create(~"c", stream(~"$link:a"))),
    ?assertEqual(ok, Create(~"c", stream(~"s"))).

b_a_link_may_read_another(Config) ->
    Store = store(Config),
    started(Store, #{name => ~"a", source => stream(~"s"), filter => {gt, n, 3}}),
    started(Store, #{name => ~"b", source => stream(~"$link:a"), filter => {lt, n, 6}}),
    append(Store, ~"s", events(1, 9)),
    ?assertEqual([4, 5], numbers(Store, ~"b", 2)),
    [#event{metadata = Metadata} | _] = outputs(Store, ~"b"),
    ?assertMatch(#{source_stream := ~"$link:a", source_version := 0}, Metadata).

%% ---- filters and transformations

a_lnk_12_filters(Config) ->
    Store = store(Config),
    Filters = [
        {~"fun", fun(#event{data = #{n := N}}) -> N rem 2 =:= 0 end},
        {~"named", {?MODULE, is_multiple, [2]}},
        {~"predicate", {in, n, [2, 4, 6, 8]}},
        {~"crashing", fun(#event{data = #{n := N}}) when N rem 2 =:= 0 -> true end},
        {~"vague", fun(#event{data = #{n := N}}) -> N rem 2 =:= 0 orelse perhaps end}
    ],
    [started(Store, #{name => Name, source => stream(~"s"), filter => F}) || {Name, F} <- Filters],
    append(Store, ~"s", events(1, 9)),
    [?assertEqual([2, 4, 6, 8], numbers(Store, Name, 4)) || {Name, _} <- Filters].

is_multiple(#event{data = #{n := N}}, Of) -> N rem Of =:= 0.

a_lnk_13_transformations(Config) ->
    Store = store(Config),
    Twice = fun(#event{data = #{n := N}} = E) ->
        E#event{data = #{n => 2 * N}, event_type = ~"Twice"}
    end,
    Negative = fun(#event{data = #{n := N}}) -> #{event_type => ~"T", data => #{n => -N}} end,
    Transforms = [
        {~"record", Twice, [2, 4]},
        {~"map", Negative, [-1, -2]},
        {~"named", {?MODULE, plus, [10]}, [11, 12]},
        {~"crashing", fun(_) -> error(deliberate) end, [1, 2]},
        {~"no_event", fun(_) -> #{data => no_type} end, [1, 2]},
        {~"nothing", fun(_) -> ok end, [1, 2]}
    ],
    Source = stream(~"s"),
    [started(Store, #{name => N, source => Source, transform => T}) || {N, T, _} <- Transforms],
    append(Store, ~"s", events(1, 2)),
    [?assertEqual(Expected, numbers(Store, Name, 2)) || {Name, _, Expected} <- Transforms],
    [#event{event_type = ~"Twice"} | _] = outputs(Store, ~"record"),
    [#event{event_type = ~"Counted"} | _] = outputs(Store, ~"crashing").

plus(#event{data = #{n := N}} = Event, More) -> Event#event{data = #{n => N + More}}.

a_lnk_14_output(Config) ->
    Store = store(Config),
    Event = #{
        event_type => ~"T",
        event_id => ~"the id",
        data => ~"bytes",
        metadata => #{k => v},
        tags => [~"red"],
        data_content_type => ~"text/plain"
    },
    append(Store, ~"other", events(1, 3)),
    append(Store, ~"s", [event(0), Event]),
    Other = fun(E) -> E#event{event_id = ~"another"} end,
    started(Store, (spec(stream(~"s")))#{backfill => true, transform => Other}),
    await(fun() -> length(outputs(Store, ?N)) =:= 2 end),
    [_, Output] = outputs(Store, ?N),
    ?assertMatch(
        #event{
            event_id = ~"the id",
            event_type = ~"T",
            stream_id = ?OUT,
            version = 1,
            data = ~"bytes",
            tags = [~"red"],
            data_content_type = ~"text/plain"
        },
        Output
    ),
    ?assertEqual(
        #{k => v, source_stream => ~"s", source_version => 1, source_position => 4},
        maps:remove(link_id, Output#event.metadata)
    ),
    ?assertMatch(#{link_id := <<_:128>>}, Output#event.metadata).

a_lnk_15_processed(Config) ->
    Store = store(Config),
    started(Store, (spec(stream(~"s")))#{filter => {gt, n, 7}}),
    append(Store, ~"s", events(1, 10)),
    [_, _, _] = numbers(Store, ?N, 3),
    await(fun() ->
        {ok, #{processed := Processed}} = erl_esdb_links:get(Store, ?N),
        Processed =:= 3
    end).

%% ---- life

a_lnk_16_stop(Config) ->
    Store = store(Config),
    ?assertEqual(ok, erl_esdb_links:stop(Store, ~"unknown")),
    started(Store, spec(stream(~"s"))),
    append(Store, ~"s", events(1, 1)),
    [1] = numbers(Store, ?N, 1),
    ?assertEqual(ok, erl_esdb_links:stop(Store, ?N)),
    ?assertEqual(ok, erl_esdb_links:stop(Store, ?N)),
    ?assertMatch({ok, #{status := stopped, processed := 1}}, erl_esdb_links:get(Store, ?N)),
    append(Store, ~"s", events(2, 2)),
    %% Another link has been through the same log by now, and there is no process of this one.
    started(Store, #{name => ~"next", source => stream(~"s"), backfill => true}),
    [1, 2] = numbers(Store, ~"next", 2),
    ?assertEqual(1, length(outputs(Store, ?N))),
    ?assertMatch([_], supervisor:which_children(erl_esdb_naming:link_pool_name(Store))).

a_lnk_17_stop_and_start(Config) ->
    Store = store(Config),
    started(Store, spec(stream(~"s"))),
    ?assertEqual(ok, erl_esdb_links:start(Store, ?N)),
    append(Store, ~"s", events(1, 1)),
    [1] = numbers(Store, ?N, 1),
    ok = erl_esdb_links:stop(Store, ?N),
    append(Store, ~"s", events(2, 2)),
    %% Without backfill what was written meanwhile is history.
    ?assertEqual(ok, erl_esdb_links:start(Store, ?N)),
    append(Store, ~"s", events(3, 3)),
    ?assertEqual([1, 3], numbers(Store, ?N, 2)).

a_lnk_17_with_backfill_it_goes_on_where_it_was(Config) ->
    Store = store(Config),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    append(Store, ~"s", events(1, 1)),
    [1] = numbers(Store, ?N, 1),
    ok = erl_esdb_links:stop(Store, ?N),
    append(Store, ~"s", events(2, 2)),
    ok = erl_esdb_links:start(Store, ?N),
    append(Store, ~"s", events(3, 3)),
    ?assertEqual([1, 2, 3], numbers(Store, ?N, 3)).

a_lnk_18_delete(Config) ->
    Store = store(Config),
    ?assertEqual(ok, erl_esdb_links:delete(Store, ?N)),
    started(Store, spec(stream(~"s"))),
    append(Store, ~"s", events(1, 1)),
    [1] = numbers(Store, ?N, 1),
    ?assertEqual(ok, erl_esdb_links:delete(Store, ?N)),
    ?assertEqual({error, not_found}, erl_esdb_links:get(Store, ?N)),
    ?assertEqual({ok, []}, erl_esdb_links:list(Store)),
    ?assertMatch([_], outputs(Store, ?N)),
    ?assertEqual([], supervisor:which_children(erl_esdb_naming:link_pool_name(Store))),
    {ok, Left} = erl_esdb_store:list_documents(Store, {a, 0}, {z, 0}),
    ?assertEqual([], [Key || {Key, _} <- Left]),
    ?assertEqual({error, not_found}, erl_esdb_store:checkpoint(Store, {link, ?N})),
    %% A new link of the name writes behind what is there.
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    ?assertEqual([1, 1], numbers(Store, ?N, 2)).

%% The stream of a link is one like any other: also for who subscribes to it.
a_lnk_19_subscription(Config) ->
    Store = store(Config),
    started(Store, (spec(stream(~"s")))#{filter => {gt, n, 1}}),
    {ok, _} = erl_esdb_subscriptions:subscribe(
        Store, stream, ?OUT, ~"reader", #{subscriber_pid => self()}
    ),
    append(Store, ~"s", events(1, 3)),
    ?assertEqual([2, 3], [N || #event{stream_id = ?OUT, data = #{n := N}} <- delivered(2)]).

delivered(0) ->
    [];
delivered(Count) ->
    receive
        {event, Event} -> [Event | delivered(Count - 1)];
        {events, Events} -> Events ++ delivered(Count - length(Events))
    after 60_000 -> error({not_delivered, Count})
    end.

%% What follows the log ends with its feed, and is there again.
b_the_feed_ends(Config) ->
    Store = store(Config),
    started(Store, spec(stream(~"s"))),
    append(Store, ~"s", events(1, 1)),
    [1] = numbers(Store, ?N, 1),
    Link = link_process(Store),
    Feed = feed_process(Store),
    exit(Feed, kill),
    await(fun() -> not lists:member(feed_process(Store), [Feed, none]) end),
    append(Store, ~"s", events(2, 2)),
    ?assertEqual([1, 2], numbers(Store, ?N, 2)),
    ?assertEqual(Link, link_process(Store)).

feed_process(Store) ->
    case erl_esdb_feed:subscribe(Store) of
        {ok, Feed} -> erl_esdb_feed:pid(Feed);
        {error, _} -> none
    end.

%% A link that waits takes no time, also where the end of the log was removed.
b_a_link_that_waits_sleeps(Config) ->
    Store = store(Config),
    append(Store, ~"s", events(1, 1)),
    append(Store, ~"t", events(2, 3)),
    ok = erl_esdb_streams:delete(Store, ~"t"),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    [1] = numbers(Store, ?N, 1),
    ok = erl_esdb_streams:delete(Store, ?OUT),
    append(Store, ~"s", events(4, 4)),
    [4] = numbers(Store, ?N, 1),
    ok = erl_esdb_streams:delete(Store, ?OUT),
    Link = link_process(Store),
    Asleep = fun() ->
        {reductions, Before} = process_info(Link, reductions),
        [erlang:yield() || _ <- lists:seq(1, 1000)],
        process_info(Link, [reductions, status]) =:= [{reductions, Before}, {status, waiting}]
    end,
    await(Asleep),
    append(Store, ~"s", events(5, 5)),
    ?assertEqual([5], numbers(Store, ?N, 1)).

%% The stream of a link is one like any other.
a_lnk_19_its_stream_is_a_stream(Config) ->
    Store = store(Config),
    started(Store, spec(stream(~"s"))),
    append(Store, ~"s", events(1, 3)),
    [1, 2, 3] = numbers(Store, ?N, 3),
    ?assertEqual({ok, [?OUT, ~"s"]}, erl_esdb_streams:list_streams(Store)),
    ?assertEqual(2, erl_esdb_streams:get_version(Store, ?OUT)),
    {ok, Log} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    Outputs = outputs(Store, ?N),
    ?assertEqual(Outputs, [E || #event{stream_id = ?OUT} = E <- Log]),
    {ok, [_, _]} = erl_esdb_streams:read(Store, ?OUT, 1, 5, forward).

a_lnk_20_telemetry(Config) ->
    Store = store(Config),
    Self = self(),
    %% It may ask, also for a change.
    Handler = fun
        (Event, #{system_time := _}, #{store_id := S, link_name := Name}, _) when S =:= Store ->
            {ok, _} = erl_esdb_links:list(Store),
            ok = erl_esdb_links:stop(Store, ~"unknown"),
            Self ! {lists:last(Event), Name};
        (_, _, _, _) ->
            ok
    end,
    Events = [?LINK_CREATED, ?LINK_STARTED, ?LINK_STOPPED, ?LINK_DELETED],
    ok = erl_esdb_telemetry:attach_many(?FUNCTION_NAME, Events, Handler, none),
    started(Store, spec(stream(~"s"))),
    ok = erl_esdb_links:start(Store, ?N),
    ok = erl_esdb_links:stop(Store, ?N),
    ok = erl_esdb_links:stop(Store, ?N),
    ok = erl_esdb_links:delete(Store, ?N),
    ok = erl_esdb_links:delete(Store, ?N),
    ok = erl_esdb_telemetry:detach(?FUNCTION_NAME),
    ?assertEqual([{K, ?N} || K <- [created, started, stopped, deleted]], mailbox()).

mailbox() ->
    receive
        Message -> [Message | mailbox()]
    after 0 -> []
    end.

%% ---- faults

link_process(Store) ->
    [{_, Pid, _, _}] = supervisor:which_children(erl_esdb_naming:link_pool_name(Store)),
    Pid.

%% Killed again and again, at any point of its loop.
b_one_output_for_each_source_whatever_is_killed(Config) ->
    Store = store(Config),
    started(Store, (spec(#{type => all}))#{backfill => true, filter => {gte, n, 0}}),
    Total = 3000,
    Write = fun() ->
        [append(Store, <<"s-", (N rem 7 + $0)>>, [event(N)]) || N <- lists:seq(1, Total)]
    end,
    Kill = fun() -> kill(Store, Total, 0) end,
    [_, Kills] = erl_esdb_test:concurrently([Write, Kill]),
    ?assert(Kills > 3),
    ?assertEqual(lists:seq(1, Total), numbers(Store, ?N, Total)),
    await(fun() ->
        {ok, #{processed := Processed}} = erl_esdb_links:get(Store, ?N),
        Processed =:= Total
    end),
    Outputs = outputs(Store, ?N),
    ?assertEqual(Outputs, lists:uniq(fun(#event{event_id = Id}) -> Id end, Outputs)).

%% The manager now and then, so that a link is not ended for good after five crashes.
kill(Store, Total, Kills) ->
    case length(outputs(Store, ?N)) of
        Total ->
            Kills;
        Before ->
            Victim =
                case Kills rem 3 of
                    2 -> whereis(erl_esdb_naming:link_mgr_name(Store));
                    _ -> any_link_process(Store)
                end,
            is_pid(Victim) andalso Kills < 15 andalso exit(Victim, kill),
            await(fun() -> length(outputs(Store, ?N)) > min(Before + 100, Total - 1) end),
            kill(Store, Total, Kills + 1)
    end.

any_link_process(Store) ->
    try
        link_process(Store)
    catch
        _:_ -> none
    end.

%% What was written and not saved is seen in the stream of the link.
b_progress_that_was_not_saved(Config) ->
    Store = store(Config),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    append(Store, ~"s", events(1, 5)),
    {ok, Early} = erl_esdb_store:checkpoint(Store, {link, ?N}),
    [1, 2, 3, 4, 5] = numbers(Store, ?N, 5),
    ok = erl_esdb_links:stop(Store, ?N),
    ok = erl_esdb_store:save_checkpoints(Store, #{{link, ?N} => Early}),
    %% And somebody else writes there too.
    append(Store, ?OUT, [event(foreign)]),
    ok = erl_esdb_links:start(Store, ?N),
    append(Store, ~"s", events(6, 6)),
    ?assertEqual([1, 2, 3, 4, 5, foreign, 6], numbers(Store, ?N, 7)),
    await(fun() ->
        {ok, Info} = erl_esdb_links:info(Store, ?N),
        maps:with([processed, link_stream_version], Info) =:=
            #{processed => 6, link_stream_version => 6}
    end).

%% Nor does it matter what of the stream was removed or is hidden by then.
b_progress_that_was_not_saved_of_what_is_gone(Config) ->
    Store = store(Config),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    {ok, Early} = erl_esdb_store:checkpoint(Store, {link, ?N}),
    append(Store, ~"s", events(1, 5)),
    [1, 2, 3, 4, 5] = numbers(Store, ?N, 5),
    Again = fun(Count) ->
        ok = erl_esdb_links:stop(Store, ?N),
        ok = erl_esdb_store:save_checkpoints(Store, #{{link, ?N} => Early}),
        ok = erl_esdb_links:start(Store, ?N),
        append(Store, ~"s", events(Count, Count)),
        await(fun() -> erl_esdb_streams:get_version(Store, ?OUT) =:= Count - 1 end)
    end,
    ok = erl_esdb_streams:set_metadata(Store, ?OUT, #{max_count => 1}, #{}),
    Again(6),
    ?assertEqual([6], numbers(Store, ?N, 1)),
    {ok, _} = erl_esdb_store:truncate(Store, ?OUT, 5),
    Again(7),
    ?assertEqual([7], numbers(Store, ?N, 1)).

%% Somebody has written behind, and that is gone.
b_a_stream_that_is_ahead_of_what_is_saved(Config) ->
    Store = store(Config),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    append(Store, ~"s", events(1, 1)),
    [1] = numbers(Store, ?N, 1),
    ok = erl_esdb_links:stop(Store, ?N),
    append(Store, ?OUT, [event(foreign), event(foreign)]),
    {ok, _} = erl_esdb_store:truncate(Store, ?OUT, 3),
    ok = erl_esdb_links:start(Store, ?N),
    append(Store, ~"s", events(2, 2)),
    ?assertEqual([2], numbers(Store, ?N, 1)).

b_others_write_to_its_stream_while_it_runs(Config) ->
    Store = store(Config),
    started(Store, spec(stream(~"s"))),
    append(Store, ~"s", events(1, 1)),
    [1] = numbers(Store, ?N, 1),
    append(Store, ?OUT, [event(foreign)]),
    append(Store, ~"s", events(2, 2)),
    ?assertEqual([1, foreign, 2], numbers(Store, ?N, 3)),
    ok = erl_esdb_streams:delete(Store, ?OUT),
    append(Store, ~"s", events(3, 3)),
    ?assertEqual([3], numbers(Store, ?N, 1)).

%% What looks like an output, and would have the link go on behind events that it has not seen: of
%% another link, of another store, made up, or its own once more.
b_outputs_of_others_in_its_stream(Config) ->
    Store = store(Config),
    started(Store, spec(stream(~"s"))),
    started(Store, #{name => ~"ahead", source => #{type => all}}),
    append(Store, ~"s", events(1, 2)),
    [1, 2] = numbers(Store, ?N, 2),
    append(Store, ~"t", events(1, 5)),
    _ = numbers(Store, ~"ahead", 7),
    [Own | _] = outputs(Store, ?N),
    Copies = [
        #{event_type => ~"T", data => #{n => foreign}, metadata => Metadata}
     || Metadata <- [
            #{source_position => 1_000_000},
            #{source_position => 20, source_stream => ~"s", source_version => 2},
            (Own#event.metadata)#{source_position := 1_000_000},
            (lists:last(outputs(Store, ~"ahead")))#event.metadata,
            Own#event.metadata
        ]
    ],
    [append(Store, ?OUT, [Copy]) || Copy <- Copies],
    append(Store, ~"s", events(3, 6)),
    ?assertEqual(
        [1, 2, foreign, foreign, foreign, foreign, foreign, 3, 4, 5, 6], numbers(Store, ?N, 11)
    ),
    await(fun() ->
        {ok, #{processed := Processed}} = erl_esdb_links:get(Store, ?N), Processed =:= 6
    end).

%% As after a restore that did not bring the place.
b_its_stream_alone_tells_where_it_was(Config) ->
    Store = store(Config),
    append(Store, ~"s", events(1, 2)),
    [
        begin
            Source = #{name => Name, source => stream(~"s"), backfill => Backfill},
            started(Store, Source),
            append(Store, ~"s", events(3, 4)),
            settled(Store, Name, ~"s"),
            Count = length(outputs(Store, Name)),
            ok = erl_esdb_links:stop(Store, Name),
            ok = put_back(Store, Name),
            settled(Store, Name, ~"s"),
            ?assertEqual(Count + 1, length(outputs(Store, Name)))
        end
     || {Name, Backfill} <- [{~"with", true}, {~"without", false}]
    ],
    started(Store, #{name => ~"new", source => stream(~"s")}),
    ok = put_back(Store, ~"new"),
    settled(Store, ~"new", ~"s"),
    ?assertEqual([last], numbers(Store, ~"new", 1)).

%% Also where its beginning was removed, of more events than are read at a time.
b_what_is_left_of_its_stream_tells_where_it_was(Config) ->
    Store = store(Config),
    append(Store, ~"s", events(1, 300)),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    _ = numbers(Store, ?N, 300),
    ok = erl_esdb_links:stop(Store, ?N),
    {ok, _} = erl_esdb_store:truncate(Store, ?OUT, 150),
    ok = put_back(Store, ?N),
    append(Store, ~"s", events(301, 301)),
    await(fun() -> lists:member(301, numbers(Store, ?N, 151)) end),
    {ok, Kept} = erl_esdb_streams:read(Store, ?OUT, 150, infinity, forward),
    ?assertEqual(lists:seq(151, 301), [N || #event{data = #{n := N}} <- Kept]).

%% Ends a link and its manager, and lets it run again without its place.
put_back(Store, Name) ->
    Mgr = erl_esdb_naming:link_mgr_name(Store),
    {ok, Definition} = erl_esdb_store:get_document(Store, {link, Name}),
    ok = sys:suspend(Mgr),
    _ = [
        supervisor:terminate_child(erl_esdb_naming:link_pool_name(Store), Pid)
     || {_, Pid, _, _} <- supervisor:which_children(erl_esdb_naming:link_pool_name(Store))
    ],
    ok = erl_esdb_store:save_checkpoints(Store, #{{link, Name} => delete}),
    Running = Definition#{status := running, from_end := false},
    {ok, _} = erl_esdb_store:put_document(Store, {link, Name}, Running),
    Pid = whereis(Mgr),
    exit(Pid, kill),
    await(fun() -> element(1, erl_esdb_store:checkpoint(Store, {link, Name})) =:= ok end).

%% What cannot be read does not become readable by waiting.
b_what_cannot_be_read_ends_the_link(_Config) ->
    Store = erl_esdb_test:start_store(#{integrity => #{enabled => true, key => <<7:256>>}}),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    {ok, Early} = erl_esdb_store:checkpoint(Store, {link, ?N}),
    append(Store, ~"s", events(1, 3)),
    [1, 2, 3] = numbers(Store, ?N, 3),
    ok = erl_esdb_links:stop(Store, ?N),
    ok = erl_esdb_store:save_checkpoints(Store, #{{link, ?N} => Early}),
    forge(Store, ?OUT),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    ok = erl_esdb_links:start(Store, ?N),
    await(fun() -> maps:get(status, element(2, erl_esdb_links:get(Store, ?N))) =:= error end),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertMatch({ok, #{reason := {integrity_violation, _}}}, erl_esdb_links:get(Store, ?N)),
    ok = erl_esdb:stop_store(Store).

%% Changes the first append of a stream where the engine in memory keeps it.
forge(Store, Stream) ->
    {ok, Engine, Handle, _} = erl_esdb_store:engine(Store),
    {ok, [{_, _, Packed}]} = Engine:read(Handle, Stream, 0, 1, forward, #{}),
    {ok, Count} = erl_esdb_batch:count(Packed),
    {ok, Bodies} = erl_esdb_batch:unpack(Packed, 0, Count - 1),
    Forged = erl_esdb_batch:pack([setelement(2, Body, ~"Forged") || Body <- Bodies]),
    _ = sys:replace_state(erl_esdb_test:orderer(Store), fun(State) ->
        [
            ets:insert(Table, setelement(Place, Row, Forged))
         || Table <- ets:all(),
            ets:info(Table, owner) =:= self(),
            Row <- ets:tab2list(Table),
            Place <- lists:seq(1, tuple_size(Row)),
            element(Place, Row) =:= Packed
        ],
        State
    end),
    ok.

%% Between two engines: the link says once that it waits, and goes on.
b_a_link_waits_for_the_store(Config) ->
    Store = store(Config),
    Core = erl_esdb_naming:core_sup_name(Store),
    Self = self(),
    Tell = fun
        (#{msg := {"store ~tp: link ~ts waits" ++ _, [S | _]}}, _) when S =:= Store ->
            Self ! waits,
            stop;
        (Event, _) ->
            Event
    end,
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    Link = link_process(Store),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {Tell, none}),
    ok = supervisor:terminate_child(Core, persistence_sup),
    Link ! resume,
    receive waits -> ok end,
    Link ! resume,
    _ = sys:get_state(Link),
    {ok, _} = supervisor:restart_child(Core, persistence_sup),
    append(Store, ~"s", events(1, 1)),
    ?assertEqual([1], numbers(Store, ?N, 1)),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertEqual({Link, []}, {link_process(Store), mailbox()}).

%% No append may have an id twice, a link may.
b_sources_with_the_same_id(Config) ->
    Store = store(Config),
    [append(Store, S, [(event(S))#{event_id => ~"same"}]) || S <- [~"a", ~"b", ~"c"]],
    started(Store, (spec(#{type => all}))#{backfill => true}),
    ?assertEqual([~"a", ~"b", ~"c"], numbers(Store, ?N, 3)).

b_an_output_that_is_refused_ends_the_link(Config) ->
    Store = store(Config),
    Other = erl_esdb_test:start_store(#{max_event_size => 300}),
    Grow = fun(#event{data = #{n := N}} = E) ->
        E#event{data = #{n => N, ballast => binary:copy(~"x", N)}}
    end,
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    started(Other, (spec(stream(~"s")))#{transform => Grow}),
    append(Other, ~"s", [event(N) || N <- [1, 2, 3, 1000, 4]]),
    await(fun() -> maps:get(status, element(2, erl_esdb_links:get(Other, ?N))) =:= error end),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    {ok, #{reason := {event_too_large, _, 300}}} = erl_esdb_links:get(Other, ?N),
    %% What came before it is there, and it is not left out.
    ?assertEqual([1, 2, 3], numbers(Other, ?N, 3)),
    ok = erl_esdb:stop_store(Other),
    ?assertEqual({ok, []}, erl_esdb_links:list(Store)).

b_a_link_that_crashes_too_often(Config) ->
    Store = store(Config),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    started(Store, spec(stream(~"s"))),
    Crash = fun(Before) ->
        await(fun() -> not lists:member(any_link_process(Store), [Before, none]) end),
        Pid = link_process(Store),
        exit(Pid, kill),
        Pid
    end,
    lists:foldl(fun(_, Before) -> Crash(Before) end, none, lists:seq(1, 6)),
    await(fun() -> maps:get(status, element(2, erl_esdb_links:get(Store, ?N))) =:= error end),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    {ok, #{reason := {crashed, Why}}} = erl_esdb_links:get(Store, ?N),
    %% Why, nobody knows where the last one was killed before it was watched.
    ?assert(lists:member(Why, [killed, noproc])),
    append(Store, ~"s", events(1, 1)),
    %% It may be started again, and goes on where it was.
    ok = erl_esdb_links:start(Store, ?N),
    ?assertEqual([1], numbers(Store, ?N, 1)),
    {ok, Info} = erl_esdb_links:get(Store, ?N),
    ?assertNot(is_map_key(reason, Info)).

%% It runs again when it is known again that it shall.
b_a_link_that_ends_while_the_store_cannot_be_read(Config) ->
    Store = store(Config),
    Core = erl_esdb_naming:core_sup_name(Store),
    Mgr = erl_esdb_naming:link_mgr_name(Store),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    {ok, Definition} = erl_esdb_store:get_document(Store, {link, ?N}),
    {ok, Progress} = erl_esdb_store:checkpoint(Store, {link, ?N}),
    ok = supervisor:terminate_child(Core, persistence_sup),
    exit(link_process(Store), kill),
    await(fun() -> element(3, sys:get_state(Mgr)) =:= #{} end),
    %% This engine comes back empty: so the definition is put where it was before anybody looks.
    ok = sys:suspend(Mgr),
    {ok, _} = supervisor:restart_child(Core, persistence_sup),
    {ok, _} = erl_esdb_store:put_document(Store, {link, ?N}, Definition),
    ok = erl_esdb_store:save_checkpoints(Store, #{{link, ?N} => Progress}),
    ok = sys:resume(Mgr),
    append(Store, ~"s", events(1, 1)),
    ?assertEqual([1], numbers(Store, ?N, 1)),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME).

%% What is to be written of it is, when the store takes it.
b_a_link_that_ends_while_the_store_is_overloaded(_Config) ->
    Store = erl_esdb_test:start_store(#{max_queue => 1}),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    started(Store, spec(stream(~"s"))),
    Engine = erl_esdb_test:orderer(Store),
    ok = sys:suspend(Engine),
    Write = fun() -> erl_esdb_streams:append(Store, ~"t", any, events(1, 1), #{timeout => 1}) end,
    await(fun() -> Write() =:= {error, {overloaded, Store}} end),
    Crash = fun(_, Before) ->
        await(fun() -> not lists:member(any_link_process(Store), [Before, none]) end),
        Pid = link_process(Store),
        exit(Pid, kill),
        Pid
    end,
    _ = lists:foldl(Crash, none, lists:seq(1, 6)),
    Mgr = erl_esdb_naming:link_mgr_name(Store),
    await(fun() -> element(3, sys:get_state(Mgr)) =:= #{} end),
    ?assertMatch({ok, #{status := running}}, erl_esdb_links:get(Store, ?N)),
    ok = sys:resume(Engine),
    await(fun() -> maps:get(status, element(2, erl_esdb_links:get(Store, ?N))) =:= error end),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertMatch({ok, #{reason := {crashed, _}}}, erl_esdb_links:get(Store, ?N)),
    ok = erl_esdb:stop_store(Store).

%% ---- restarts

%% T-29, T-32: as after a restart of the node: the documents are there, the funs are not.
t_32_funs_are_lost(Config) ->
    Store = store(Config),
    Odd = fun(#event{data = #{n := N}}) -> N rem 2 =:= 1 end,
    Spec = (spec(stream(~"s")))#{filter => Odd},
    started(Store, Spec),
    ?assertMatch({ok, #{volatile := [filter]}}, erl_esdb_links:get(Store, ?N)),
    {ok, Document} = erl_esdb_store:get_document(Store, {link, ?N}),
    ?assertEqual(volatile, maps:get(filter, Document)),
    append(Store, ~"s", events(1, 3)),
    [1, 3] = numbers(Store, ?N, 2),
    ok = logger:add_handler_filter(default, ?FUNCTION_NAME, {fun(_, _) -> stop end, none}),
    ok = funs_are_gone(Store),
    exit(whereis(erl_esdb_naming:link_mgr_name(Store)), kill),
    await(fun() -> maps:get(status, element(2, erl_esdb_links:get(Store, ?N))) =:= error end),
    ok = logger:remove_handler_filter(default, ?FUNCTION_NAME),
    ?assertMatch({ok, #{reason := {functions_lost, [filter]}}}, erl_esdb_links:get(Store, ?N)),
    append(Store, ~"s", events(4, 6)),
    ?assertEqual({error, {functions_lost, [filter]}}, erl_esdb_links:start(Store, ?N)),
    %% Another source is another link.
    Other = Spec#{source := #{type => all}},
    ?assertEqual({error, already_exists}, erl_esdb_links:create(Store, Other)),
    ok = erl_esdb_links:create(Store, Spec),
    ok = erl_esdb_links:start(Store, ?N),
    ?assertEqual([1, 3, 5], numbers(Store, ?N, 3)).

t_32_named_functions_survive(Config) ->
    Store = store(Config),
    Spec = (spec(stream(~"s")))#{
        filter => {?MODULE, is_multiple, [2]}, transform => {?MODULE, plus, [1]}
    },
    started(Store, Spec),
    {ok, Info} = erl_esdb_links:get(Store, ?N),
    ?assertNot(is_map_key(volatile, Info)),
    ok = funs_are_gone(Store),
    Mgr = whereis(erl_esdb_naming:link_mgr_name(Store)),
    exit(Mgr, kill),
    append(Store, ~"s", events(1, 4)),
    ?assertEqual([3, 5], numbers(Store, ?N, 2)).

%% The outputs of a store with a codec are recognised too.
b_in_a_store_of_json(_Config) ->
    Store = erl_esdb_test:start_store(#{codec => json}),
    started(Store, (spec(stream(~"s")))#{backfill => true}),
    append(Store, ~"s", events(1, 5)),
    {ok, Early} = erl_esdb_store:checkpoint(Store, {link, ?N}),
    await(fun() -> length(outputs(Store, ?N)) =:= 5 end),
    ok = erl_esdb_links:stop(Store, ?N),
    ok = erl_esdb_store:save_checkpoints(Store, #{{link, ?N} => Early}),
    ok = erl_esdb_links:start(Store, ?N),
    append(Store, ~"s", events(6, 6)),
    await(fun() -> length(outputs(Store, ?N)) >= 6 end),
    ?assertEqual(
        [<<"{\"n\":", (integer_to_binary(N))/binary, "}">> || N <- lists:seq(1, 6)],
        [Data || #event{data = Data} <- outputs(Store, ?N)]
    ),
    ok = erl_esdb:stop_store(Store).

b_a_link_of_a_link_in_a_store_of_json(_Config) ->
    Store = erl_esdb_test:start_store(#{codec => json}),
    Big = {gt, {data, [~"n"]}, 3},
    started(Store, #{name => ~"a", source => stream(~"s"), filter => Big}),
    started(Store, #{name => ~"b", source => stream(~"$link:a")}),
    append(Store, ~"s", events(1, 5)),
    await(fun() -> length(outputs(Store, ~"b")) =:= 2 end),
    [#event{metadata = Metadata, data = Data} | _] = outputs(Store, ~"b"),
    ?assertEqual(~"{\"n\":4}", Data),
    ?assertMatch(#{~"source_stream" := ~"$link:a", ~"source_version" := 0}, Metadata),
    ok = erl_esdb:stop_store(Store).

%% What a function gets and answers, and what is text again.
b_functions_get_json_decoded(_Config) ->
    Store = erl_esdb_test:start_store(#{codec => json}),
    Odd = fun(#event{data = #{~"n" := N}}) -> N rem 2 =:= 1 end,
    Transforms = #{
        ~"plus" => fun(#event{data = #{~"n" := N}} = E) -> E#event{data = #{n => N + 10}} end,
        ~"same" => fun(E) -> E end,
        ~"map" => fun(#event{data = D}) -> #{event_type => ~"T", data => D#{m => 1}} end,
        ~"no_json" => fun(E) -> E#event{data = #{n => {1}}} end
    },
    Spec = #{source => stream(~"s"), filter => Odd, decode => json},
    [started(Store, Spec#{name => N, transform => T}) || N := T <- Transforms],
    started(Store, Spec#{name => ~"none"}),
    Text = ~" {\"n\" : 1.0e0}",
    append(Store, ~"s", [#{event_type => ~"T", data => Text, metadata => #{}}]),
    append(Store, ~"s", events(1, 1)),
    Expected = #{
        ~"plus" => ~"{\"n\":11}",
        ~"same" => ~"{\"n\":1}",
        ~"map" => ~"{\"m\":1,\"n\":1}",
        ~"no_json" => ~"{\"n\":1}",
        ~"none" => ~"{\"n\":1}"
    },
    [
        begin
            await(fun() -> length(outputs(Store, Name)) =:= 1 end),
            [#event{data = Data}] = outputs(Store, Name),
            ?assertEqual(json:decode(Wanted), json:decode(Data)),
            ?assertMatch({ok, #{decode := json}}, erl_esdb_links:get(Store, Name))
        end
     || Name := Wanted <- Expected
    ],
    ok = erl_esdb:stop_store(Store).

%% ---- options

%% Each call waits so long as it is told, here for one who is busy.
b_a_call_has_its_time(Config) ->
    Store = store(Config),
    Soon = #{timeout => 20},
    Spec = spec(stream(~"s")),
    Mgr = erl_esdb_naming:link_mgr_name(Store),
    ok = sys:suspend(Mgr),
    [
        ?assertEqual({error, {timeout, Store}}, Result)
     || Result <- [
            erl_esdb_links:create(Store, Spec, Soon),
            erl_esdb_links:start(Store, ?N, Soon),
            erl_esdb_links:stop(Store, ?N, Soon),
            erl_esdb_links:delete(Store, ?N, Soon)
        ]
    ],
    ok = sys:resume(Mgr),
    %% All of this is done in its order.
    _ = sys:get_state(Mgr),
    Late = #{timeout => 10_000},
    ?assertEqual({error, not_found}, erl_esdb_links:get(Store, ?N, Late)),
    ?assertEqual({error, not_found}, erl_esdb_links:info(Store, ?N, Late)),
    ?assertEqual({ok, []}, erl_esdb_links:list(Store, Late)),
    Never = #{timeout => never},
    ok = erl_esdb_links:create(Store, Spec),
    [
        ?assertError(badarg, Call())
     || Call <- [
            fun() -> erl_esdb_links:create(Store, Spec, Never) end,
            fun() -> erl_esdb_links:start(Store, ?N, Never) end,
            fun() -> erl_esdb_links:stop(Store, ?N, Never) end,
            fun() -> erl_esdb_links:delete(Store, ?N, Never) end,
            fun() -> erl_esdb_links:get(Store, ?N, Never) end,
            fun() -> erl_esdb_links:info(Store, ?N, Never) end,
            fun() -> erl_esdb_links:list(Store, Never) end
        ]
    ].

%% ---- misuse

b_misuse(Config) ->
    Store = store(Config),
    [
        ?assertError(badarg, Call())
     || Call <- [
            fun() -> erl_esdb_links:create("s", spec(#{type => all})) end,
            fun() -> erl_esdb_links:create(Store, []) end,
            fun() -> erl_esdb_links:start(Store, name) end,
            fun() -> erl_esdb_links:stop("s", ?N) end,
            fun() -> erl_esdb_links:delete(Store, name) end,
            fun() -> erl_esdb_links:get(Store, name) end,
            fun() -> erl_esdb_links:info("s", ?N) end,
            fun() -> erl_esdb_links:list("s") end
        ]
    ].

b_unknown_store(_Config) ->
    [
        ?assertEqual({error, {store_not_started, nosuch}}, Result)
     || Result <- [
            erl_esdb_links:create(nosuch, spec(#{type => all})),
            erl_esdb_links:start(nosuch, ?N),
            erl_esdb_links:stop(nosuch, ?N),
            erl_esdb_links:delete(nosuch, ?N),
            erl_esdb_links:get(nosuch, ?N),
            erl_esdb_links:info(nosuch, ?N),
            erl_esdb_links:list(nosuch)
        ]
    ].

%% As after a restart of the node: what is known of processes stays.
funs_are_gone(Store) ->
    Table = erl_esdb_naming:volatile_name(Store),
    [
        ets:delete(Table, Key)
     || {Key, _} <- ets:tab2list(Table), element(1, Key) =:= link
    ],
    ok.
