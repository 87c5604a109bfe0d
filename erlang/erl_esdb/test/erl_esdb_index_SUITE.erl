-module(erl_esdb_index_SUITE).
-moduledoc """
The indexes of a store: what they find against a search through the whole log, what they do when
they are asked early, when events go, when they crash.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").
-include("../src/log/erl_esdb_log.hrl").

-import(erl_esdb_index, [positions/4, events/4, events_of/4]).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all() ++ [{group, reader}, {group, keys}].

groups() ->
    erl_esdb_test:groups(stores()) ++
        [{reader, [parallel], reader()}, {keys, [parallel], keys()}].

stores() ->
    [
        any_history_against_a_search,
        each_kind_is_found,
        a_page_after_the_other,
        an_append_is_found_at_once,
        many_appends_at_once,
        it_follows_the_log_by_itself,
        it_hears_of_appends,
        what_is_removed_is_not_found,
        a_limit_counts_what_is_there,
        what_is_removed_is_dropped,
        a_merge_drops_what_is_gone,
        equal_hashes_are_told_apart,
        copies_of_links_are_left_out,
        at_most_a_hundred_bytes_an_event,
        only_the_kinds_of_the_option,
        no_kinds_no_process,
        kinds_that_there_are_not,
        a_crash_costs_a_rebuild,
        a_crash_of_the_engine,
        an_engine_that_shows_less_for_a_moment,
        a_slow_index_times_out,
        a_crash_is_waited_for,
        no_store,
        nothing_is_left_behind,
        unknown_messages,
        misuse
    ].

reader() ->
    [
        r_damaged_events_are_left_out_of_pages,
        r_damaged_events_that_are_wanted,
        r_what_is_gone_is_passed_over,
        r_only_what_is_wanted_is_made,
        r_a_log_that_does_not_answer
    ].

keys() -> [k_keys_of_an_event, k_metadata_of_any_shape, k_labels].

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

options(Config) -> proplists:get_value(options, Config).

append(Store, Stream, Events) ->
    {ok, Version} = erl_esdb_streams:append(Store, Stream, any, Events),
    Version.

event(Id, More) ->
    maps:merge(#{event_id => Id, event_type => ~"T", data => #{}}, More).

index(Store) ->
    Sup = erl_esdb_naming:notification_sup_name(Store),
    [Index] = [Pid || {index, Pid, _, _} <- supervisor:which_children(Sup)],
    Index.

info(Store) ->
    {ok, Info} = erl_esdb_index:info(Store),
    Info.

%% ---- against a search through the whole log

-define(STREAMS, [~"a", ~"b", ~"$link:c"]).

some(Prefix) -> ?LET(N, range(0, 3), <<Prefix/binary, (integer_to_binary(N))/binary>>).

new_event() ->
    ?LET(
        {Type, Tags, Cause, Correlation, Spelling},
        {some(~"t"), list(some(~"g")), some(~"e"), some(~"c"), oneof([atom, binary, none])},
        #{
            event_type => Type,
            data => #{},
            tags => Tags,
            metadata => metadata(Spelling, Cause, Correlation)
        }
    ).

metadata(atom, Cause, Correlation) ->
    #{causation_id => Cause, correlation_id => Correlation};
metadata(binary, Cause, Correlation) ->
    #{~"causation_id" => Cause, ~"correlation_id" => Correlation};
metadata(none, _, _) ->
    #{causation_id => undefined, other => 1}.

%% Ids repeat over appends, not within one.
command() ->
    frequency([
        {8, {append, oneof(?STREAMS), list(new_event()), range(0, 5)}},
        {1, {truncate, oneof(?STREAMS), range(0, 10)}},
        {1, {delete, oneof(?STREAMS)}},
        {2, look},
        {1, compact}
    ]).

run({append, Stream, Events, From}, Store) ->
    Named = [
        Event#{event_id => <<"e", (integer_to_binary(N))/binary>>}
     || {N, Event} <- lists:enumerate(From, Events)
    ],
    %% Where the stream has one of the ids nothing is written.
    erl_esdb_streams:append(Store, Stream, any, Named);
run({truncate, Stream, Before}, Store) ->
    erl_esdb_store:truncate(Store, Stream, Before);
run({delete, Stream}, Store) ->
    erl_esdb_streams:delete(Store, Stream);
run(look, Store) ->
    events(Store, event_id, ~"e0", #{});
run(compact, Store) ->
    erl_esdb_index:compact(Store, infinity).

key() ->
    oneof([
        {event_id, some(~"e")},
        {type, some(~"t")},
        {tag, some(~"g")},
        {causation, some(~"e")},
        {correlation, some(~"c")}
    ]).

window() ->
    ?LET(
        {Direction, From, Limit},
        {
            oneof([forward, backward]),
            oneof([default, range(0, 40)]),
            oneof([infinity, range(0, 5)])
        },
        maps:merge(
            #{direction => Direction, limit => Limit},
            #{from => From || From =/= default}
        )
    ).

any_history_against_a_search(Config) ->
    Property = ?FORALL(
        {Commands, Questions},
        {list(command()), list({list(key()), oneof([any, all]), window()})},
        begin
            Store = erl_esdb_test:start_store(options(Config)),
            lists:foreach(fun(Command) -> run(Command, Store) end, Commands),
            {ok, Log} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
            Wrong = [
                Question
             || {Keys, Mode, Window} = Question <- Questions,
                events_of(Store, Keys, Mode, Window) =/= {ok, search(Log, Keys, Mode, Window)}
            ],
            ok = erl_esdb:stop_store(Store),
            ?WHENFAIL(io:format("~p~n", [Wrong]), Wrong =:= [])
        end
    ),
    erl_esdb_test:property(100, Property).

search(_Log, [], _Mode, _Window) ->
    [];
search(Log, Keys, Mode, #{direction := Direction, limit := Limit} = Window) ->
    Test = #{any => fun lists:any/2, all => fun lists:all/2},
    Has = fun(Event) -> (maps:get(Mode, Test))(fun(Key) -> has(Key, Event) end, Keys) end,
    Found = [Event || Event <- Log, Has(Event), is_within(Direction, Event, Window)],
    limited(Limit, ordered(Direction, Found)).

%% Written without the code it judges.
has({type, Type}, Event) -> Event#event.event_type =:= Type;
has({tag, Tag}, Event) -> lists:member(Tag, Event#event.tags);
has(_, #event{stream_id = ~"$link:c"}) -> false;
has({event_id, Id}, Event) -> Event#event.event_id =:= Id;
has({causation, Id}, Event) -> names(causation_id, Id, Event);
has({correlation, Id}, Event) -> names(correlation_id, Id, Event).

names(Key, Id, #event{metadata = Metadata}) ->
    Id =:= maps:get(Key, Metadata, maps:get(atom_to_binary(Key), Metadata, none)).

is_within(forward, #event{position = P}, Window) -> P >= maps:get(from, Window, 0);
is_within(backward, #event{position = P}, Window) -> P =< maps:get(from, Window, infinity).

ordered(forward, Events) -> Events;
ordered(backward, Events) -> lists:reverse(Events).

limited(infinity, Events) -> Events;
limited(Limit, Events) -> lists:sublist(Events, Limit).

%% ---- what is found

each_kind_is_found(Config) ->
    Store = store(Config),
    Metadata = #{causation_id => ~"e0", ~"correlation_id" => ~"c"},
    append(Store, ~"s", [event(~"e0", #{}), event(~"e1", #{tags => [~"g"], metadata => Metadata})]),
    ?assertEqual({ok, [0, 1]}, positions(Store, type, ~"T", #{})),
    Found = [{event_id, ~"e1"}, {tag, ~"g"}, {causation, ~"e0"}, {correlation, ~"c"}],
    {ok, [_, Event]} = erl_esdb_streams:read(Store, ~"s", 0, 2, forward),
    [?assertEqual({ok, [Event]}, events(Store, Kind, Key, #{})) || {Kind, Key} <- Found],
    ?assertEqual({ok, [Event]}, events_of(Store, Found, all, #{})),
    ?assertEqual({ok, []}, events_of(Store, [{tag, ~"e1"}, {type, ~"g"}], any, #{})),
    ?assertEqual({ok, []}, events_of(Store, [], any, #{})).

a_page_after_the_other(Config) ->
    Store = store(Config),
    Tagged = event(<<>>, #{tags => [~"g"]}),
    [append(Store, ~"s", lists:duplicate(Count, Tagged)) || Count <- [1, 7, 2500]],
    append(Store, ~"s", [event(<<>>, #{})]),
    All = lists:seq(0, 2507),
    ?assertEqual({ok, All}, positions(Store, tag, ~"g", #{})),
    ?assertEqual(All, pages(Store, #{limit => 300})),
    ?assertEqual(lists:reverse(All), pages(Store, #{limit => 299, direction => backward})).

pages(Store, Options) ->
    case positions(Store, tag, ~"g", Options) of
        {ok, []} -> [];
        {ok, Page} -> Page ++ pages_after(lists:last(Page), Store, Options)
    end.

pages_after(0, _Store, #{direction := backward}) -> [];
pages_after(P, Store, #{direction := backward} = O) -> pages(Store, O#{from => P - 1});
pages_after(P, Store, Options) -> pages(Store, Options#{from => P + 1}).

an_append_is_found_at_once(Config) ->
    Store = store(Config),
    [
        begin
            Id = integer_to_binary(N),
            append(Store, ~"s", [event(Id, #{})]),
            ?assertEqual({ok, [N]}, positions(Store, event_id, Id, #{}))
        end
     || N <- lists:seq(0, 500)
    ].

many_appends_at_once(Config) ->
    Store = store(Config),
    Writer = fun(W) ->
        fun() ->
            Stream = integer_to_binary(W),
            [
                begin
                    Id = <<Stream/binary, "-", (integer_to_binary(N))/binary>>,
                    append(Store, Stream, [event(Id, #{tags => [Stream]})]),
                    {ok, [_]} = positions(Store, event_id, Id, #{}),
                    {ok, Own} = positions(Store, tag, Stream, #{}),
                    N = length(Own)
                end
             || N <- lists:seq(1, 20)
            ]
        end
    end,
    Done = erl_esdb_test:concurrently([Writer(W) || W <- lists:seq(1, 50)]),
    ?assertEqual(lists:duplicate(50, lists:seq(1, 20)), Done),
    ?assertEqual({ok, lists:seq(0, 999)}, positions(Store, type, ~"T", #{})).

it_follows_the_log_by_itself(Config) ->
    Store = store(Config),
    append(Store, ~"s", erl_esdb_test:events(3000)),
    ok = erl_esdb_index:wake(Store),
    erl_esdb_test:await(fun() -> maps:get(next, info(Store)) =:= 3000 end),
    %% Nobody wakes it and nobody asks.
    append(Store, ~"s", erl_esdb_test:events(1)),
    erl_esdb_test:await(fun() -> maps:get(next, info(Store)) =:= 3001 end),
    #{entries := 6002, bytes := Bytes} = info(Store),
    ?assert(Bytes >= 6002 * 14 andalso Bytes < 6002 * 14.1, Bytes).

%% Sooner than it would look by itself, also when the feed has ended and there is another.
it_hears_of_appends(Config) ->
    Store = store(Config),
    [
        begin
            Feed = hears(Store),
            %% Several in a row: the first may come just before it looks.
            erl_esdb_test:await(fun() ->
                lists:max([heard_after(Store) || _ <- [1, 2, 3]]) < 700
            end),
            true = exit(Feed, kill),
            erl_esdb_test:await(fun() -> not is_process_alive(Feed) end)
        end
     || _ <- [first, second]
    ].

%% The feed that the index listens to, when it does.
hears(Store) ->
    erl_esdb_test:await(fun() -> monitored(Store) =/= [] end),
    [Feed] = monitored(Store),
    Feed.

monitored(Store) ->
    {monitors, Monitors} = process_info(index(Store), monitors),
    [Pid || {process, Pid} <- Monitors].

heard_after(Store) ->
    #{next := Next} = info(Store),
    Begin = erlang:monotonic_time(millisecond),
    append(Store, ~"s", erl_esdb_test:events(1)),
    erl_esdb_test:await(fun() -> maps:get(next, info(Store)) =:= Next + 1 end),
    erlang:monotonic_time(millisecond) - Begin.

%% ---- what is gone

what_is_removed_is_not_found(Config) ->
    Store = store(Config),
    [append(Store, S, [event(<<S/binary, I>>, #{}) || I <- "012"]) || S <- [~"a", ~"b"]],
    ?assertEqual({ok, [0, 1, 2, 3, 4, 5]}, positions(Store, type, ~"T", #{})),
    {ok, _} = erl_esdb_store:truncate(Store, ~"a", 2),
    ?assertEqual({ok, [2, 3, 4, 5]}, positions(Store, type, ~"T", #{})),
    ?assertEqual({ok, []}, events(Store, event_id, ~"a1", #{})),
    ok = erl_esdb_streams:delete(Store, ~"b"),
    ?assertEqual({ok, [2]}, positions(Store, type, ~"T", #{})),
    %% A limit counts what is found.
    append(Store, ~"b", [event(~"b0", #{})]),
    ?assertEqual({ok, [6]}, positions(Store, event_id, ~"b0", #{limit => 1})),
    ?assertEqual({ok, [6]}, positions(Store, type, ~"T", #{limit => 1, direction => backward})).

%% Where much of what is found is gone.
a_limit_counts_what_is_there(Config) ->
    Store = store(Config),
    Streams = [~"a", ~"b"],
    [append(Store, S, erl_esdb_test:events(10)) || _ <- lists:seq(1, 100), S <- Streams],
    {ok, _} = erl_esdb_store:truncate(Store, ~"a", 995),
    ok = erl_esdb_streams:delete(Store, ~"b"),
    Found = fun(Options) -> positions(Store, type, ~"Counted", Options) end,
    ?assertEqual({ok, [1985, 1986, 1987, 1988, 1989]}, Found(#{})),
    ?assertEqual({ok, [1985]}, Found(#{limit => 1})),
    ?assertEqual({ok, [1985, 1986, 1987]}, Found(#{limit => 3})),
    ?assertEqual({ok, [1989, 1988]}, Found(#{limit => 2, direction => backward})),
    ?assertEqual({ok, [1987, 1988, 1989]}, Found(#{limit => 5, from => 1987})),
    ?assertEqual({ok, []}, Found(#{limit => 0})).

what_is_removed_is_dropped(Config) ->
    Store = store(Config),
    [append(Store, S, erl_esdb_test:events(100)) || S <- [~"a", ~"b"]],
    {ok, _} = positions(Store, type, ~"Counted", #{}),
    ?assertMatch(#{entries := 400}, info(Store)),
    {ok, _} = erl_esdb_store:truncate(Store, ~"a", 30),
    ok = erl_esdb_streams:delete(Store, ~"b"),
    ?assertMatch(#{entries := 400}, info(Store)),
    ok = erl_esdb_index:compact(Store, 5000),
    ?assertMatch(#{entries := 140, runs := 1, next := 200}, info(Store)),
    ?assertEqual({ok, lists:seq(30, 99)}, positions(Store, type, ~"Counted", #{})),
    ok = erl_esdb_streams:delete(Store, ~"a"),
    ok = erl_esdb_index:compact(Store, 5000),
    ?assertMatch(#{entries := 0, runs := 0, next := 200}, info(Store)).

%% Without being told: in one of the merges that come with growth.
a_merge_drops_what_is_gone(Config) ->
    Store = store(Config),
    Fill = fun() ->
        append(Store, ~"s", erl_esdb_test:events(5000)),
        {ok, [_]} = positions(Store, type, ~"Counted", #{limit => 1, direction => backward})
    end,
    [Fill() || _ <- lists:seq(1, 5)],
    {ok, _} = erl_esdb_store:truncate(Store, ~"s", 24_000),
    ?assertMatch(#{next := 25_000, entries := 50_000}, info(Store)),
    erl_esdb_test:await(fun() ->
        Fill(),
        #{next := Next, entries := Entries} = info(Store),
        Entries =< 2 * Next - 40_000
    end),
    ?assertMatch({ok, [24_000, 24_001]}, positions(Store, type, ~"Counted", #{limit => 2})).

%% ---- one by one

%% Two ids whose XXH3, with the byte of their kind before them, agree in the upper 56 bits.
equal_hashes_are_told_apart(Config) ->
    {A, B} = collision(),
    ?assertEqual(
        erl_esdb_index_keys:hash({event_id, A}), erl_esdb_index_keys:hash({event_id, B})
    ),
    Store = store(Config),
    append(Store, ~"s", [event(A, #{}), event(B, #{}), event(~"c", #{})]),
    ?assertEqual({ok, [0]}, positions(Store, event_id, A, #{})),
    ?assertEqual({ok, [1]}, positions(Store, event_id, B, #{limit => 1})),
    ?assertEqual({ok, [0, 1]}, positions_of_any(Store, [A, B])),
    ?assertEqual({ok, []}, events_of(Store, [{event_id, A}, {event_id, B}], all, #{})).

%% For texts of eight bytes XXH3 can be computed backwards: the second is one of the 255 whose hash
%% differs in the lowest byte only, the one that begins with the number of the kind.
collision() -> {~"e000001", <<16#10FDB98CF2CE2B:56>>}.

positions_of_any(Store, Ids) ->
    {ok, Events} = events_of(Store, [{event_id, Id} || Id <- Ids], any, #{}),
    {ok, [Event#event.position || Event <- Events]}.

copies_of_links_are_left_out(Config) ->
    Store = store(Config),
    Metadata = #{causation_id => ~"c", correlation_id => ~"r"},
    Event = event(~"e", #{tags => [~"g"], metadata => Metadata}),
    append(Store, ~"$link:all", [Event]),
    append(Store, ~"$linked", [Event]),
    Both = [{type, ~"T"}, {tag, ~"g"}],
    [?assertEqual({ok, [0, 1]}, positions(Store, K, V, #{})) || {K, V} <- Both],
    Others = [{event_id, ~"e"}, {causation, ~"c"}, {correlation, ~"r"}],
    [?assertEqual({ok, [1]}, positions(Store, K, V, #{})) || {K, V} <- Others].

%% Invariant 4 of the design, with all indexes on.
at_most_a_hundred_bytes_an_event(Config) ->
    Store = store(Config),
    Count = 5000,
    Metadata = #{causation_id => ~"c", correlation_id => ~"r"},
    Event = event(<<>>, #{tags => [~"g", ~"h"], metadata => Metadata}),
    append(Store, ~"s", lists:duplicate(Count, Event)),
    {ok, _} = positions(Store, type, ~"T", #{limit => 1}),
    ?assertEqual(6 * Count, maps:get(entries, info(Store))),
    ?assert(memory(index(Store)) =< 100 * Count, memory(index(Store)) / Count).

%% What a process takes when its garbage is gone: itself, its table, and the binaries of both, which
%% are the same.
memory(Pid) ->
    true = erlang:garbage_collect(Pid),
    [{memory, Own}, {binary, Binaries}] = process_info(Pid, [memory, binary]),
    Words = [ets:info(Table, memory) || Table <- ets:all(), ets:info(Table, owner) =:= Pid],
    Sizes = #{Address => Size || {Address, Size, _} <- Binaries},
    Own + lists:sum(maps:values(Sizes)) + lists:sum(Words) * erlang:system_info(wordsize).

only_the_kinds_of_the_option(Config) ->
    Store = erl_esdb_test:start_store((options(Config))#{indexes => [type, tag, type]}),
    append(Store, ~"s", [event(~"e", #{tags => [~"g"]})]),
    ?assertEqual({ok, [0]}, positions(Store, type, ~"T", #{})),
    ?assertEqual({error, {not_indexed, event_id}}, positions(Store, event_id, ~"e", #{})),
    Keys = [{tag, ~"g"}, {correlation, ~"c"}],
    ?assertEqual({error, {not_indexed, correlation}}, events_of(Store, Keys, all, #{})),
    ?assertMatch(#{entries := 2}, info(Store)),
    ok = erl_esdb:stop_store(Store).

no_kinds_no_process(Config) ->
    Store = erl_esdb_test:start_store((options(Config))#{indexes => []}),
    append(Store, ~"s", [event(~"e", #{})]),
    ?assertEqual({error, {not_indexed, type}}, positions(Store, type, ~"T", #{})),
    %% Nothing is asked, so nothing is needed.
    ?assertEqual({ok, []}, events_of(Store, [], all, #{limit => 1})),
    ?assertError({badmatch, []}, index(Store)),
    ?assertEqual({error, {store_not_started, Store}}, erl_esdb_index:info(Store)),
    ok = erl_esdb:stop_store(Store).

kinds_that_there_are_not(Config) ->
    [
        ?assertEqual(
            {error, {invalid_option, indexes, Bad}},
            erl_esdb:start_store(?FUNCTION_NAME, (options(Config))#{indexes => Bad})
        )
     || Bad <- [all, [types], [type | tag], ~"type", [<<"type">>]]
    ].

%% ---- faults

a_crash_costs_a_rebuild(Config) ->
    Store = store(Config),
    append(Store, ~"s", erl_esdb_test:events(2000)),
    {ok, All} = positions(Store, type, ~"Counted", #{}),
    Index = index(Store),
    Ref = monitor(process, Index),
    true = exit(Index, kill),
    receive
        {'DOWN', Ref, process, Index, killed} -> ok
    end,
    %% Until there is a new one the store says that it cannot be reached, then all is as before.
    erl_esdb_test:await(fun() ->
        case positions(Store, type, ~"Counted", #{}) of
            {ok, Found} -> Found =:= All;
            {error, {store_not_started, Store}} -> false
        end
    end),
    ?assertNotEqual(Index, index(Store)),
    ?assertEqual(1999, erl_esdb_streams:get_version(Store, ~"s")).

a_crash_of_the_engine(Config) ->
    Store = store(Config),
    append(Store, ~"s", [event(~"old", #{})]),
    {ok, [0]} = positions(Store, event_id, ~"old", #{}),
    Index = index(Store),
    true = exit(erl_esdb_test:engine(Store), kill),
    erl_esdb_test:await(fun() ->
        not is_process_alive(Index) andalso erl_esdb_store:is_ready(Store)
    end),
    {ok, Log} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    erl_esdb_test:await(fun() ->
        events(Store, event_id, ~"old", #{}) =:= {ok, [E || #event{event_id = ~"old"} = E <- Log]}
    end),
    append(Store, ~"s", [event(~"new", #{})]),
    ?assertMatch({ok, [#event{event_id = ~"new"}]}, events(Store, event_id, ~"new", #{})).

%% What is not there yet is not taken for removed.
an_engine_that_shows_less_for_a_moment(Config) ->
    Store = store(Config),
    _ = append(Store, ~"s", [event(Id, #{}) || Id <- [~"a", ~"b", ~"c"]]),
    {ok, Engine, Handle, Settings} = erl_esdb_engine:find(Store),
    Began = atomics:new(1, []),
    Other = list_to_atom(atom_to_list(Store) ++ "_other"),
    Life = #{supervisor => self(), mode => single, data_dir => undefined},
    Given = {{Engine, Handle, Began}, Settings#{life => Life}},
    ok = erl_esdb_engine:ready(Other, ?MODULE, Given),
    {ok, Index} = erl_esdb_index:start_link(Other, [event_id]),
    ?assertEqual({ok, [0, 1, 2]}, positions_of_all(Other)),
    ?assertEqual(2, atomics:get(Began, 1)),
    true = unlink(Index),
    ok = gen_server:stop(Index),
    ok = erl_esdb_engine:gone(Other, normal).

positions_of_all(Store) ->
    Ids = [{event_id, Id} || Id <- [~"a", ~"b", ~"c"]],
    maybe
        {ok, Events} ?= events_of(Store, Ids, any, #{consistency => local}),
        {ok, [Position || #event{position = Position} <- Events]}
    end.

%% This module as an engine: it begins anew (1) when it was asked for events first, and has them
%% again (2) when somebody has seen that.
next_position({Engine, Handle, Began}, Options) ->
    case atomics:compare_exchange(Began, 1, 1, 2) of
        ok -> {ok, 0};
        _ -> Engine:next_position(Handle, Options)
    end.

a_slow_index_times_out(Config) ->
    Store = erl_esdb_test:start_store((erl_esdb_test:fresh(options(Config)))#{timeout => infinity}),
    ok = sys:suspend(index(Store)),
    append(Store, ~"s", [event(~"e", #{})]),
    ?assertEqual({error, {timeout, Store}}, events(Store, event_id, ~"e", #{timeout => 20})),
    ?assertEqual({error, {timeout, Store}}, events(Store, event_id, ~"e", #{timeout => 0})),
    ok = sys:resume(index(Store)),
    ?assertMatch({ok, [_]}, events(Store, event_id, ~"e", #{})),
    %% Where there is nothing to wait for it does not matter that it is slow.
    ok = sys:suspend(index(Store)),
    ?assertMatch({ok, [_]}, events(Store, event_id, ~"e", #{timeout => 0})),
    ok = erl_esdb:stop_store(Store).

%% The store runs, its index has crashed: who asks then waits for the next index.
a_crash_is_waited_for(Config) ->
    Store = store(Config),
    append(Store, ~"s", [event(~"e", #{})]),
    {ok, [_]} = events(Store, event_id, ~"e", #{}),
    Sup = erl_esdb_naming:notification_sup_name(Store),
    ok = supervisor:terminate_child(Sup, index),
    ?assertEqual({error, {timeout, Store}}, events(Store, event_id, ~"e", #{timeout => 20})),
    Self = self(),
    Asker = spawn_link(fun() -> Self ! {self(), events(Store, event_id, ~"e", #{})} end),
    erl_esdb_test:await(fun() -> process_info(Asker, status) =:= {status, waiting} end),
    {ok, _} = supervisor:restart_child(Sup, index),
    receive
        {Asker, Answer} -> ?assertMatch({ok, [#event{event_id = ~"e"}]}, Answer)
    end.

no_store(Config) ->
    Store = store(Config),
    ok = erl_esdb:stop_store(Store),
    Gone = {error, {store_not_started, Store}},
    ?assertEqual(Gone, events(Store, type, ~"T", #{})),
    ?assertEqual(Gone, positions(Store, type, ~"T", #{})),
    ?assertEqual(Gone, erl_esdb_index:view(Store, [type], #{})),
    ?assertEqual(Gone, erl_esdb_index:info(Store)),
    ?assertEqual(Gone, erl_esdb_index:compact(Store, 100)),
    ?assertEqual(ok, erl_esdb_index:wake(Store)).

nothing_is_left_behind(Config) ->
    Store = store(Config),
    append(Store, ~"s", erl_esdb_test:events(10)),
    {ok, _} = positions(Store, type, ~"Counted", #{}),
    {ok, View} = erl_esdb_index:view(Store, [type], #{}),
    Index = index(Store),
    [{_, Index, Table}] = ets:lookup(erl_esdb_index, Store),
    ok = erl_esdb:stop_store(Store),
    ?assertNot(is_process_alive(Index)),
    ?assertEqual(undefined, ets:info(Table)),
    ?assertEqual([], ets:lookup(erl_esdb_index, Store)),
    %% A view is of a store that is there.
    Gone = {error, {store_not_started, Store}},
    ?assertEqual(Gone, erl_esdb_index:look(View, [{type, ~"Counted"}], any, #{})).

unknown_messages(Config) ->
    Store = store(Config),
    Index = index(Store),
    ?assertEqual({error, unknown_request}, gen_server:call(Index, anything)),
    ok = gen_server:cast(Index, anything),
    Index ! anything,
    Index ! {merged, self(), anything},
    append(Store, ~"s", [event(~"e", #{})]),
    ?assertMatch({ok, [_]}, events(Store, event_id, ~"e", #{})),
    ?assertEqual(Index, index(Store)).

misuse(Config) ->
    Store = store(Config),
    Calls =
        [{~"store", type, ~"T", #{}}, {Store, types, ~"T", #{}}, {Store, type, 't', #{}}] ++
            [
                {Store, type, ~"T", Options}
             || Options <- [
                    [],
                    #{from => -1},
                    #{from => last},
                    #{from => 1.0},
                    #{limit => -1},
                    #{limit => all},
                    #{direction => up},
                    #{timeout => -1},
                    #{timeout => 1 bsl 32},
                    #{consistency => strong}
                ]
            ],
    [?assertError(badarg, events(S, K, V, O), Call) || {S, K, V, O} = Call <- Calls],
    [?assertError(badarg, positions(S, K, V, O), Call) || {S, K, V, O} = Call <- Calls],
    Keys = [{type, ~"T"}],
    Bad = [{Keys, some}, {{type, ~"T"}, any}, {[{type, ~"T"} | type], any}, {[type], all}],
    [?assertError(badarg, events_of(Store, K, M, #{}), {K, M}) || {K, M} <- Bad],
    ?assertEqual({ok, []}, events(Store, type, binary:copy(~"T", 10_000), #{unknown => option})).

%% ---- the reader, on an engine that is a list of pieces

read_log({Engine, Handle, Began}, From, Count, Direction, Options) ->
    case atomics:compare_exchange(Began, 1, 0, 1) of
        ok -> {ok, []};
        _ -> Engine:read_log(Handle, From, Count, Direction, Options)
    end;
read_log(not_started, _From, _Count, forward, #{}) ->
    {error, not_started};
read_log(Pieces, From, Count, forward, #{}) ->
    Left = [Piece || {_, {R, _, T}, _} = Piece <- Pieces, R#row.position + T >= From],
    {ok, cut(Left, From, Count)}.

%% Streams of one append each: versions begin at 0.
cut([{S, {R, F, T}, P} | Pieces], From, Count) when Count > 0 ->
    First = max(F, From - R#row.position),
    Last = min(T, First + Count - 1),
    [{S, {R, First, Last}, P} | cut(Pieces, From, Count - (Last - First + 1))];
cut(_, _, _) ->
    [].

piece(Position, Count) ->
    Positions = lists:seq(Position, Position + Count - 1),
    Packed = erl_esdb_batch:pack([{integer_to_binary(P), ~"T", #{}, #{}} || P <- Positions]),
    Row = #row{position = Position, count = Count},
    {<<"s", (integer_to_binary(Position))/binary>>, {Row, 0, Count - 1}, Packed}.

damaged({Stream, Span, Packed}) ->
    Size = byte_size(Packed) - 1,
    <<Front:Size/binary, Last>> = Packed,
    {Stream, Span, erl_esdb_batch:verified(<<Front/binary, (Last bxor 1)>>)}.

log(Pieces) -> #{engine => ?MODULE, handle => Pieces, options => #{}}.

positions({ok, Events}) -> [P || #event{position = P} <- Events].

all(_) -> true.

r_damaged_events_are_left_out_of_pages(_Config) ->
    Log = log([piece(0, 3), damaged(piece(3, 4)), piece(9, 2)]),
    Position = fun(#event{position = P}) -> [P] end,
    {ok, Found, 11, Corrupt} = erl_esdb_index_reader:page(Log, 0, Position),
    ?assertEqual({[0, 1, 2, 9, 10], [{corrupt_events, ~"s3", 0}]}, {lists:sort(Found), Corrupt}),
    ?assertEqual({ok, [], last, []}, erl_esdb_index_reader:page(Log, 11, Position)),
    {ok, Rest, 11, []} = erl_esdb_index_reader:page(Log, 8, Position),
    ?assertEqual([9, 10], lists:sort(Rest)).

r_damaged_events_that_are_wanted(_Config) ->
    Log = log([piece(0, 3), damaged(piece(3, 4)), piece(7, 2)]),
    Read = fun(Positions) -> erl_esdb_index_reader:events(Log, Positions, fun all/1) end,
    ?assertEqual({error, {corrupt_events, ~"s3", 0}}, Read([1, 4])),
    %% Those between that nobody wants are not looked at.
    ?assertEqual([1, 7, 8], positions(Read([1, 7, 8]))).

r_what_is_gone_is_passed_over(_Config) ->
    Log = log([piece(2, 1), piece(5, 3), piece(2000, 1), piece(5000, 10)]),
    Read = fun(Positions) -> erl_esdb_index_reader:events(Log, Positions, fun all/1) end,
    Some = [0, 2, 3, 6, 9, 1999, 2000, 5004, 5009, 9999],
    ?assertEqual([2, 6, 2000, 5004, 5009], positions(Read(Some))),
    ?assertEqual([], positions(Read([0, 1, 3, 4, 8, 6000]))),
    ?assertEqual({ok, []}, Read([])),
    Live = [P || P <- lists:seq(0, 5012), erl_esdb_index_reader:is_live(Log, P)],
    ?assertEqual([2, 5, 6, 7, 2000] ++ lists:seq(5000, 5009), Live),
    {ok, IsLive} = erl_esdb_index_reader:live(Log, {1, 5012}),
    ?assertEqual(Live, [P || P <- lists:seq(0, 5012), IsLive(P)]).

r_only_what_is_wanted_is_made(_Config) ->
    Log = log([piece(0, 1000)]),
    Self = self(),
    Wanted = fun(#event{position = P}) ->
        Self ! {asked, P},
        P rem 2 =:= 0
    end,
    Asked = [3, 4, 500, 507, 998],
    ?assertEqual([4, 500, 998], positions(erl_esdb_index_reader:events(Log, Asked, Wanted))),
    ?assertEqual(Asked, asked()).

asked() ->
    receive
        {asked, Position} -> [Position | asked()]
    after 0 -> []
    end.

r_a_log_that_does_not_answer(_Config) ->
    Log = log(not_started),
    Gone = {error, not_started},
    ?assertEqual(Gone, erl_esdb_index_reader:page(Log, 0, fun(E) -> [E] end)),
    ?assertEqual(Gone, erl_esdb_index_reader:events(Log, [1], fun all/1)),
    ?assertEqual(Gone, erl_esdb_index_reader:live(Log, {0, 1})),
    %% Nothing is thrown away for want of an answer.
    ?assert(erl_esdb_index_reader:is_live(Log, 0)).

%% ---- keys

record(Metadata) ->
    #event{
        event_id = ~"e",
        event_type = ~"T",
        stream_id = ~"s",
        version = 0,
        data = #{},
        metadata = Metadata,
        timestamp = 0,
        epoch_us = 0,
        position = 7,
        tags = [~"b", ~"a", ~"b"]
    }.

k_keys_of_an_event(_Config) ->
    All = erl_esdb_index_keys:kinds(),
    Event = record(#{causation_id => ~"c", correlation_id => ~"r"}),
    Keys = [
        {event_id, ~"e"},
        {type, ~"T"},
        {tag, ~"a"},
        {tag, ~"b"},
        {causation, ~"c"},
        {correlation, ~"r"}
    ],
    ?assertEqual(Keys, erl_esdb_index_keys:keys(Event, All)),
    ?assertEqual([{type, ~"T"}], erl_esdb_index_keys:keys(Event, [type])),
    ?assertEqual(
        [erl_esdb_runs:entry(erl_esdb_index_keys:hash(Key), 7) || Key <- Keys],
        erl_esdb_index_keys:entries(Event, All)
    ),
    %% A key is one of its kind.
    Hashes = [erl_esdb_index_keys:hash({Kind, ~"x"}) || Kind <- All],
    ?assertEqual(length(All), length(lists:usort(Hashes))),
    ?assert(lists:all(fun(Hash) -> Hash >= 0 andalso Hash < 1 bsl 56 end, Hashes)).

k_metadata_of_any_shape(_Config) ->
    Cause = fun(Metadata) -> erl_esdb_index_keys:cause(record(Metadata)) end,
    ?assertEqual(~"a", Cause(#{causation_id => ~"a", ~"causation_id" => ~"b"})),
    ?assertEqual(~"b", Cause(#{causation_id => undefined, ~"causation_id" => ~"b"})),
    None = [#{}, #{causation_id => null}, #{~"causation_id" => 17}, #{"causation_id" => ~"a"}],
    [?assertEqual(undefined, Cause(Metadata)) || Metadata <- None],
    ?assertEqual(~"b", erl_esdb_index_keys:correlation(record(#{~"correlation_id" => ~"b"}))).

k_labels(_Config) ->
    All = erl_esdb_index_keys:kinds(),
    Bits = lists:zip(All, [16, 8, 4, 2, 1]),
    Sets = [[Kind || {Kind, Bit} <- Bits, N band Bit > 0] || N <- lists:seq(0, 31)],
    Labels = [erl_esdb_index_keys:label(Set) || Set <- Sets],
    ?assertEqual(32, length(lists:usort(Labels))),
    ?assert(lists:all(fun(Label) -> Label >= 0 andalso Label =< 255 end, Labels)),
    ?assertEqual(
        erl_esdb_index_keys:label([type, tag]), erl_esdb_index_keys:label([tag, type, tag])
    ).
