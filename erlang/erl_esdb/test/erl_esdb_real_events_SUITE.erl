-module(erl_esdb_real_events_SUITE).
-moduledoc """
Real events, through streams, links and subscriptions, against what is computed from the file: see
`erl_esdb_test:commits/0`. Causation, times, archives and exports of them stand in their suites.
""".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../include/erl_esdb.hrl").

-import(erl_esdb_test, [ids/1]).

-define(MANY, {gt, {data, [~"insertions"]}, 1000}).

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() ->
    erl_esdb_test:groups([
        streams_are_those_of_the_file,
        categories_are_those_of_the_file,
        tags_and_types_are_those_of_the_file,
        links_select_what_the_file_has,
        a_link_of_some_streams,
        subscribers_see_what_the_file_has
    ]).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

init_per_testcase(_Case, Config) ->
    [{store, erl_esdb_test:start_store(#{})}, {commits, erl_esdb_test:commits()} | Config].

end_per_testcase(_Case, Config) -> erl_esdb:stop_store(store(Config)).

store(Config) -> proplists:get_value(store, Config).

commits(Config) -> proplists:get_value(commits, Config).

%% Every commit has the size of its change as a tag.
append(Config, Commits) ->
    [
        {ok, _} = erl_esdb_streams:append(store(Config), Stream, any, [
            (maps:with([event_id, event_type, data, metadata], Commit))#{tags => tags(Commit)}
        ])
     || #{stream_id := Stream} = Commit <- Commits
    ].

tags(#{data := #{~"files" := Files, ~"insertions" := Insertions}}) ->
    [~"one file" || Files =:= 1] ++ [~"much" || Insertions > 1000].

names(Commits) -> [Id || #{event_id := Id} <- Commits].

is_much(#{data := #{~"insertions" := Insertions}}) -> Insertions > 1000.

%% Each event as it stands in the file, in its order, read in either direction.
streams_are_those_of_the_file(Config) ->
    Store = store(Config),
    append(Config, commits(Config)),
    Streams = maps:groups_from_list(fun(#{stream_id := S}) -> S end, commits(Config)),
    ?assertEqual({ok, lists:sort(maps:keys(Streams))}, erl_esdb_streams:list_streams(Store)),
    [
        begin
            {ok, Events} = erl_esdb_streams:read(Store, Stream, 0, infinity, forward),
            ?assertEqual([seen(Commit) || Commit <- Commits], [seen(Event) || Event <- Events]),
            ?assertEqual(lists:seq(0, length(Commits) - 1), erl_esdb_test:versions(Events)),
            Last = length(Commits) - 1,
            ?assertEqual(Last, erl_esdb_streams:get_version(Store, Stream)),
            {ok, Back} = erl_esdb_streams:read(Store, Stream, Last, infinity, backward),
            ?assertEqual(Events, lists:reverse(Back))
        end
     || Stream := Commits <- Streams
    ],
    {ok, Log} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    ?assertEqual([seen(Commit) || Commit <- commits(Config)], [seen(Event) || Event <- Log]).

seen(#event{event_id = Id, event_type = Type, stream_id = Stream} = Event) ->
    {Id, Type, Stream, Event#event.data, Event#event.metadata};
seen(#{event_id := Id, event_type := Type, stream_id := Stream} = Commit) ->
    {Id, Type, Stream, map_get(data, Commit), map_get(metadata, Commit)}.

categories_are_those_of_the_file(Config) ->
    append(Config, commits(Config)),
    [
        begin
            Wanted = [C || #{stream_id := S} = C <- commits(Config), naive(S, Pattern)],
            {ok, Events} =
                erl_esdb_streams:read_category(store(Config), Pattern, 0, infinity, forward),
            ?assertEqual(names(Wanted), ids(Events))
        end
     || Pattern <- [~"area-*", some_areas(Config), ~"*-2", ~"area-?", ~"none-*"]
    ].

naive(Stream, Pattern) ->
    erl_esdb_reads_SUITE:naive(binary_to_list(Stream), binary_to_list(Pattern)).

tags_and_types_are_those_of_the_file(Config) ->
    Store = store(Config),
    append(Config, commits(Config)),
    Options = #{batch_size => length(commits(Config))},
    Wanted = fun(Test) -> names([C || C <- commits(Config), Test(C)]) end,
    Both = [~"one file", ~"much"],
    [
        begin
            {ok, Events} = erl_esdb_streams:read_by_tags(Store, Both, Which, Options),
            Has = fun(C) -> lists:Which(fun(Tag) -> lists:member(Tag, tags(C)) end, Both) end,
            ?assertEqual(Wanted(Has), ids(Events))
        end
     || Which <- [any, all]
    ],
    [
        begin
            {ok, Events} = erl_esdb_streams:read_by_event_types(Store, Types, Options),
            Is = fun(#{event_type := Type}) -> lists:member(Type, Types) end,
            ?assertEqual(Wanted(Is), ids(Events))
        end
     || Types <- [[~"CommitAuthored"], [~"CommitMerged"], [~"CommitMerged", ~"CommitAuthored"]]
    ].

%% One half is there before, the other comes while the link runs.
links_select_what_the_file_has(Config) ->
    linked(Config, #{type => all}, fun(_) -> true end).

a_link_of_some_streams(Config) ->
    Pattern = some_areas(Config),
    Source = #{type => stream_pattern, pattern => Pattern},
    linked(Config, Source, fun(#{stream_id := S}) -> naive(S, Pattern) end).

%% The area of the first large commit, and those whose names begin as its does.
some_areas(Config) ->
    [#{stream_id := Stream} | _] = lists:filter(fun is_much/1, commits(Config)),
    <<Begin:6/binary, _/binary>> = Stream,
    <<Begin/binary, "*">>.

linked(Config, Source, IsSource) ->
    Store = store(Config),
    {Before, After} = lists:split(length(commits(Config)) div 2, commits(Config)),
    append(Config, Before),
    Link = #{name => ~"much", source => Source, filter => ?MANY, backfill => true},
    ok = erl_esdb_links:create(Store, Link),
    ok = erl_esdb_links:start(Store, ~"much"),
    append(Config, After),
    [_ | _] = Wanted = [C || C <- commits(Config), IsSource(C), is_much(C)],
    ok = erl_esdb_test:await(fun() ->
        erl_esdb_streams:get_version(Store, ~"$link:much") =:= length(Wanted) - 1
    end),
    {ok, Events} = erl_esdb_streams:read(Store, ~"$link:much", 0, infinity, forward),
    ?assertEqual(names(Wanted), ids(Events)),
    ?assertEqual([S || #{stream_id := S} <- Wanted], [source(Event) || Event <- Events]).

source(#event{metadata = #{source_stream := Stream}}) -> Stream.

subscribers_see_what_the_file_has(Config) ->
    {Before, After} = lists:split(length(commits(Config)) div 2, commits(Config)),
    append(Config, Before),
    {ok, _} = erl_esdb_subscriptions:subscribe(store(Config), event_pattern, ?MANY, ~"n"),
    append(Config, After),
    Wanted = names([C || C <- commits(Config), is_much(C)]),
    Next = fun(_) -> receive {event, Event} -> Event after 60_000 -> error(missing) end end,
    ?assertEqual(Wanted, ids([Next(Id) || Id <- Wanted])).
