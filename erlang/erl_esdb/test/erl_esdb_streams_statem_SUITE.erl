-module(erl_esdb_streams_statem_SUITE).
-moduledoc "The state machine of the streams API, in sequence and at once, and races of writers.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

suite() -> [{timetrap, {minutes, 10}}].

all() -> erl_esdb_test:all().

groups() ->
    Cases = [
        calls_in_sequence,
        calls_in_parallel,
        calls_in_parallel_to_a_store_that_signs,
        racers_with_one_expectation,
        many_writers,
        fifty_writers_on_one_stream,
        fifty_writers_on_fifty_streams,
        fifty_writers_take_little_memory
    ],
    erl_esdb_test:groups(Cases).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

options(Config) -> proplists:get_value(options, Config).

calls_in_sequence(Config) ->
    erl_esdb_test:property(500, erl_esdb_streams_statem:sequential(options(Config))).

calls_in_parallel(Config) ->
    erl_esdb_test:property(100, erl_esdb_streams_statem:parallel(options(Config))).

%% Each append names the one before it: who was overtaken signs again.
calls_in_parallel_to_a_store_that_signs(Config) ->
    Signs = #{integrity => #{enabled => true, key => <<7:256>>}},
    Options = maps:merge(options(Config), Signs),
    erl_esdb_test:property(100, erl_esdb_streams_statem:parallel(Options)).

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

%% ---- fifty writers, and what has to be true when they are done

fifty_writers_on_one_stream(Config) -> fifty_writers(Config, [<<"s">>]).

fifty_writers_on_fifty_streams(Config) ->
    fifty_writers(Config, [<<"s-", N>> || N <- lists:seq(1, 50)]).

fifty_writers(Config, Streams) ->
    Store = erl_esdb_test:start_store(options(Config)),
    Subscriber = subscriber(Store),
    Processes = processes(),
    Names = list_to_tuple(Streams),
    Writer = fun(Me) -> fun() -> script(Store, Me, Names) end end,
    Notes = lists:append(erl_esdb_test:concurrently([Writer(Me) || Me <- lists:seq(1, 50)])),
    Written = lists:append([Events || {written, Events} <- Notes]),
    Refused = lists:append([Ids || {refused, Ids} <- Notes]),
    ?assert(length(Written) > 1000 andalso length(Refused) > 50),
    {ok, Kept} = erl_esdb_streams:read_log(Store, 0, infinity, forward, #{}),
    %% 1: what was acknowledged is there as it was acknowledged, unless it was removed.
    Told = #{Position => {S, V, Id} || {Position, S, V, Id} <- Written},
    [
        ?assertEqual({S, V, Id}, map_get(P, Told))
     || #event{position = P, stream_id = S, version = V, event_id = Id} <- Kept
    ],
    Cut = maps:groups_from_list(fun({S, _}) -> S end, fun({_, V}) -> V end, cuts(Notes)),
    Removed = [E || {_, S, V, _} = E <- Written, V < lists:max(maps:get(S, Cut, [0]))],
    ?assertEqual(length(Written), length(Kept) + length(Removed)),
    %% 2: a refused append has no effect.
    Ids = #{Id => [] || #event{event_id = Id} <- Kept},
    ?assertEqual([], [Id || Id <- Refused, is_map_key(Id, Ids)]),
    %% 3: no version and no position was given twice, and none was left out.
    Positions = [Position || {Position, _, _, _} <- Written],
    ?assertEqual(lists:seq(0, length(Written) - 1), lists:sort(Positions)),
    ?assertEqual({ok, length(Written)}, erl_esdb_store:next_position(Store)),
    ByStream = maps:groups_from_list(fun({_, S, _, _}) -> S end, fun(E) -> E end, Written),
    [?assertEqual([], wrong_in(Store, S, Events)) || S := Events <- ByStream],
    %% 5: who listens has all of them that are kept, once and in order, and nothing else.
    Heard = heard(Subscriber, Kept),
    Places = [Place || #event{position = P} = E <- Heard, Place <- [{P, place(E)}]],
    ?assertEqual(lists:uniq(lists:sort(Places)), Places),
    ?assertEqual([], [P || {P, Place} <- Places, Place =/= map_get(P, Told)]),
    ?assertEqual([], Kept -- Heard),
    %% 6: nobody is left behind.
    ?assertEqual([], [P || P <- processes() -- Processes, is_linked_to_us(P)]),
    ok = erl_esdb:stop_store(Store).

place(#event{stream_id = Stream, version = Version, event_id = Id}) -> {Stream, Version, Id}.

%% From the beginning, while all the others write.
subscriber(Store) ->
    Self = self(),
    Pid = spawn_link(fun() -> listen(Self, []) end),
    Options = #{subscriber => Pid, batch => 10},
    {ok, _} = erl_esdb_subscriptions:subscribe(Store, stream, <<"$all">>, <<"n">>, Options),
    Pid.

listen(Report, Heard) ->
    receive
        {events, Events} -> listen(Report, lists:reverse(Events, Heard));
        {asked, Report} -> Report ! {heard, self(), Heard}, listen(Report, Heard)
    end.

%% What it has heard, in order, when it has heard of the last.
heard(Pid, Kept) ->
    Last = lists:last(Kept),
    Ask = fun() -> Pid ! {asked, self()}, receive {heard, Pid, Heard} -> Heard end end,
    erl_esdb_test:await(fun() -> lists:member(Last, Ask()) end),
    lists:reverse(Ask()).

%% 4: at most 20 bytes an append for streams and positions, and 100 an event for what is derived.
%% What is remembered of the newest appends is bounded by options, and small here.
fifty_writers_take_little_memory(Config) ->
    Small = #{idempotence_window => 10, idempotence_appends => 10, condition_window => 10},
    Store = erl_esdb_test:start_store(maps:merge(options(Config), Small)),
    Each = 2000,
    Write = fun(Stream) ->
        [
            {ok, _} = erl_esdb_streams:append(Store, Stream, any, [erl_esdb_test:event(N)])
         || N <- lists:seq(1, Each)
        ]
    end,
    _ = erl_esdb_test:concurrently([fun() -> Write(<<"s-", N>>) end || N <- lists:seq(1, 50)]),
    Appends = 50 * Each,
    {ok, Appends} = erl_esdb_store:next_position(Store),
    {ok, [_]} = erl_esdb_streams:read_by_event_types(Store, [<<"Counted">>], 1),
    erl_esdb_test:await(fun() ->
        {ok, #{next := Next}} = erl_esdb_index:info(Store),
        Next =:= Appends
    end),
    {ok, #{bytes := Derived}} = erl_esdb_index:info(Store),
    Bytes = erl_esdb_log_SUITE:size_of(erl_esdb_test:machine(Store)),
    ct:pal("~.2f bytes an append, ~.2f derived an event", [Bytes / Appends, Derived / Appends]),
    ?assert(Bytes =< 20 * Appends),
    ?assert(Derived =< 100 * Appends),
    ok = erl_esdb:stop_store(Store).

cuts(Notes) -> [Cut || {cut, Cut} <- Notes].

is_linked_to_us(Pid) -> lists:member(self(), element(2, process_info(Pid, links))).

%% Versions are dense and rise with the positions, times never fall, and pages make the whole.
wrong_in(Store, Stream, Written) ->
    Sorted = lists:sort(Written),
    Versions = [V || {_, _, V, _} <- Sorted],
    {ok, Events} = erl_esdb_streams:read(Store, Stream, 0, infinity, forward),
    {ok, #{first := First, next := Next}} = erl_esdb_store:info(Store, Stream),
    Times = [T || #event{epoch_us = T} <- Events],
    Checks = [
        {versions, Versions =:= lists:seq(0, length(Versions) - 1)},
        {next, Next =:= length(Versions)},
        {kept, erl_esdb_test:versions(Events) =:= lists:seq(First, Next - 1)},
        {times, Times =:= lists:sort(Times)}
    ],
    [{Stream, What} || {What, false} <- Checks].

%% What one writer does, always the same for the same number, and what it notes of it.
script(Store, Me, Streams) ->
    _ = rand:seed(exsss, Me),
    lists:append([step(rand:uniform(10), Store, {Me, N}, Streams) || N <- lists:seq(1, 30)]).

step(1, Store, Tag, Streams) ->
    %% a batch with one event that is none
    Stream = some(Streams),
    {error, {invalid_event, _}} =
        erl_esdb_streams:append(Store, Stream, any, batch(Tag, 2) ++ [#{event_type => <<"T">>}]),
    [{refused, ids(batch(Tag, 2))}];
step(2, Store, _Tag, Streams) ->
    Stream = some(Streams),
    Before = max(0, erl_esdb_streams:get_version(Store, Stream) div 2),
    case erl_esdb_store:truncate(Store, Stream, Before) of
        {ok, {_, Cut}} -> [{cut, {Stream, Cut}}];
        {error, {stream_not_found, Stream}} -> []
    end;
step(N, Store, Tag, Streams) when N =< 5 ->
    Stream = some(Streams),
    Expected = erl_esdb_streams:get_version(Store, Stream),
    sent(Store, Stream, Expected, batch(Tag, rand:uniform(3)));
step(N, Store, Tag, Streams) when N =< 7 ->
    many(Store, lists:usort([some(Streams), some(Streams), some(Streams)]), Tag);
step(_, Store, Tag, Streams) ->
    sent(Store, some(Streams), any, batch(Tag, rand:uniform(3))).

some(Streams) -> element(rand:uniform(tuple_size(Streams)), Streams).

%% One that was done is sent again.
sent(Store, Stream, Expected, Batch) ->
    Options = #{return => result},
    Send = fun() -> erl_esdb_streams:append(Store, Stream, Expected, Batch, Options) end,
    case Send() of
        {ok, Result} ->
            Written = {written, noted(Stream, Batch, Result)},
            [Written | again(Store, Stream, Batch, Result, Send())];
        {error, {wrong_expected_version, Expected, _}} ->
            [{refused, ids(Batch)}]
    end.

%% The answer is the same, unless somebody removed some of it in between: then it is not known.
again(_Store, _Stream, _Batch, Result, {ok, Result}) ->
    [];
again(Store, Stream, Batch, #append_result{version = Last, count = Count}, Answer) ->
    {ok, #{first := First}} = erl_esdb_store:info(Store, Stream),
    true = First > Last - Count + 1,
    case Answer of
        {ok, Other} when First > Last -> [{written, noted(Stream, Batch, Other)}];
        {error, {duplicate_event_ids, _}} -> [];
        {error, {wrong_expected_version, _, _}} -> []
    end.

many(Store, Streams, Tag) ->
    Parts = [{S, any, batch({Tag, S}, rand:uniform(3))} || S <- Streams],
    {ok, Results} = erl_esdb_streams:append_many(Store, Parts, #{return => result}),
    Noted = [noted(S, Batch, map_get(S, Results)) || {S, _, Batch} <- Parts],
    %% Their positions follow each other, in this order.
    [First | _] = Positions = [P || {P, _, _, _} <- lists:append(Noted)],
    Positions = lists:seq(First, First + length(Positions) - 1),
    [{written, lists:append(Noted)}].

batch(Tag, Size) ->
    [
        (erl_esdb_test:event(N))#{event_id => base64:encode(term_to_binary({Tag, N}))}
     || N <- lists:seq(1, Size)
    ].

ids(Batch) -> [Id || #{event_id := Id} <- Batch].

noted(Stream, Batch, #append_result{version = Version, position = Position, count = Count}) ->
    Count = length(Batch),
    [
        {Position - Count + N, Stream, Version - Count + N, Id}
     || {N, Id} <- lists:enumerate(ids(Batch))
    ].
