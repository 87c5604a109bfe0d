-module(erl_esdb_streams_statem_SUITE).
-moduledoc "The state machine of the streams API, in sequence and at once, and races of writers.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

suite() -> [{timetrap, {minutes, 5}}].

all() -> [{group, Engine} || {Engine, _} <- erl_esdb_streams_SUITE:engines()].

groups() ->
    Cases = [calls_in_sequence, calls_in_parallel, racers_with_one_expectation, many_writers],
    [{Engine, [], Cases} || {Engine, _} <- erl_esdb_streams_SUITE:engines()].

init_per_group(Engine, Config) -> erl_esdb_streams_SUITE:init_per_group(Engine, Config).

end_per_group(_Engine, _Config) -> ok.

options(Config) -> proplists:get_value(options, Config).

calls_in_sequence(Config) ->
    erl_esdb_test:property(500, erl_esdb_streams_statem:sequential(options(Config))).

calls_in_parallel(Config) ->
    erl_esdb_test:property(100, erl_esdb_streams_statem:parallel(options(Config))).

%% Of any number of racers with the same expectation one wins, in every round, and it is its batch
%% that is there afterwards, whole.
racers_with_one_expectation(Config) ->
    Property = ?FORALL(
        {Racers, Sizes},
        {range(2, 20), non_empty(list(range(1, 5)))},
        begin
            Store = erl_esdb_test:start_store(options(Config)),
            {Winners, _} = lists:mapfoldl(
                fun(Size, Expected) -> race(Store, Racers, Size, Expected) end, -1, Sizes
            ),
            Won = lists:zip(Winners, Sizes),
            Written = [{Winner, N} || {Winner, Size} <- Won, N <- lists:seq(1, Size)],
            {ok, Events} = erl_esdb_streams:read(Store, <<"s">>, 0, infinity, forward),
            ok = erl_esdb:stop_store(Store),
            [maps:get(n, E#event.data) || E <- Events] =:= Written
        end
    ),
    erl_esdb_test:property(50, Property).

race(Store, Racers, Size, Expected) ->
    Append = fun(Me) ->
        Events = [erl_esdb_test:event({Me, N}) || N <- lists:seq(1, Size)],
        {Me, erl_esdb_streams:append(Store, <<"s">>, Expected, Events)}
    end,
    Results = erl_esdb_test:concurrently([fun() -> Append(Me) end || Me <- lists:seq(1, Racers)]),
    [{Winner, {ok, Version}}] = [Won || {_, {ok, _}} = Won <- Results],
    Refused = {error, {wrong_expected_version, Expected, Version}},
    true = lists:all(fun({Me, Result}) -> Me =:= Winner orelse Result =:= Refused end, Results),
    {Winner, Version}.

%% Writers of several streams at once: each answer is a version that is there, each stream is
%% dense, and so are the positions of all of them together.
many_writers(Config) ->
    Property = ?FORALL(
        Plans,
        non_empty(list(non_empty(list({range(1, 4), range(1, 6)})))),
        begin
            Store = erl_esdb_test:start_store(options(Config)),
            Numbered = lists:enumerate(Plans),
            Writers = [fun() -> write(Store, Writer, Plan) end || {Writer, Plan} <- Numbered],
            Answers = lists:append(erl_esdb_test:concurrently(Writers)),
            {ok, All} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
            ok = erl_esdb:stop_store(Store),
            Positions = [E#event.position || E <- All],
            Found = [{E#event.stream_id, E#event.version, maps:get(n, E#event.data)} || E <- All],
            Positions =:= lists:seq(0, length(All) - 1) andalso
                lists:sort(Found) =:= lists:sort(Answers) andalso dense(Found)
        end
    ),
    erl_esdb_test:property(100, Property).

write(Store, Writer, Plan) ->
    Batches = lists:enumerate(Plan),
    lists:append([batch(Store, Writer, Batch, S, Size) || {Batch, {S, Size}} <- Batches]).

batch(Store, Writer, Batch, S, Size) ->
    Terms = [{Writer, Batch, N} || N <- lists:seq(1, Size)],
    Events = [erl_esdb_test:event(Term) || Term <- Terms],
    {ok, Last} = erl_esdb_streams:append(Store, <<S>>, any, Events),
    [{<<S>>, Version, Term} || {Version, Term} <- lists:enumerate(Last - Size + 1, Terms)].

dense(Found) ->
    Streams = maps:groups_from_list(fun({S, _, _}) -> S end, fun({_, V, _}) -> V end, Found),
    lists:all(
        fun(Versions) -> Versions =:= lists:seq(0, length(Versions) - 1) end, maps:values(Streams)
    ).
