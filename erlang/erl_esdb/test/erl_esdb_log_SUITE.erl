-module(erl_esdb_log_SUITE).
-moduledoc "The pure machine and its sequences of rows, against naive models.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").
-include("../src/log/erl_esdb_log.hrl").

all() ->
    [
        rows_come_back,
        rows_are_found,
        rows_are_dropped,
        no_less_than_nothing_is_read,
        rows_are_small,
        a_row_is_found_by_a_part_of_its_chunk,
        rows_are_found_by_time,
        gaps_are_passed_over,
        a_gap_takes_few_steps,
        any_commands_against_a_model,
        checkpoints_are_the_last_values,
        the_same_commands_give_the_same_state,
        time_never_runs_backwards,
        a_refused_command_changes_nothing,
        effects_mirror_the_state,
        dead_once,
        removal_takes_bounded_steps,
        a_gap_met_during_a_cut_is_looked_at_again,
        a_stream_cut_during_a_read_is_seen_as_it_was,
        many_appends_stay_small,
        what_is_remembered_stays_small,
        parts_of_an_append_share_an_index,
        a_tombstone_keeps_the_version,
        metadata_shows_a_part,
        a_tip_is_followed,
        what_was_looked_at_is_cut,
        ids_are_seen_again,
        ids_are_forgotten,
        a_repeat_is_told_whether_it_was_done,
        a_repeat_finds_older_appends_as_any_other,
        a_repeat_is_refused_where_nobody_knows,
        removals_against_a_model,
        ids_against_a_model,
        conditions_are_checked,
        recent_appends_against_a_model,
        commands_are_told_from_others
    ].

%% A reader of the order asks for the streams while they are cut: had it the first rows of a stream
%% and, after a cut, only the last ones, it would report a stream with a hole.
a_stream_cut_during_a_read_is_seen_as_it_was(_Config) ->
    Append = fun(Index, {_, Log}) ->
        Command = {append, <<"s">>, -2, <<>>, #{count => 1, epoch_us => 0}},
        {{ok, _}, Effects, Log1} = erl_esdb_log:apply(Index, Command, Log),
        {proplists:get_value(order, Effects), Log1}
    end,
    {Order, _} = lists:foldl(Append, {none, erl_esdb_log:new()}, lists:seq(1, 10)),
    Cuts = counters:new(1, []),
    Owner = fun(1) ->
        First = counters:get(Cuts, 1),
        ok = counters:add(Cuts, 1, 5),
        {<<"s">>, First, First}
    end,
    Fetch = fun(Number) -> error({no_chunk, Number}) end,
    Read = fun(From, Direction) ->
        ok = counters:put(Cuts, 1, 0),
        Spans = erl_esdb_log:log_rows(Order, From, infinity, Direction, Owner, Fetch),
        [Version || {<<"s">>, {_, Version, Version}} <- Spans]
    end,
    ?assertEqual(lists:seq(0, 9), Read(0, forward)),
    ?assertEqual(lists:seq(9, 0, -1), Read(last, backward)).

no_less_than_nothing_is_read(_Config) ->
    {_, _, Log} = erl_esdb_log:apply(
        1, {append, <<"s">>, -2, <<>>, #{count => 3, epoch_us => 0}}, erl_esdb_log:new()
    ),
    Ways = [forward, backward],
    [?assertEqual([], erl_esdb_log:read_log(1, 0, Way, Log)) || Way <- Ways],
    [?assertError(badarg, erl_esdb_log:read_log(1, -1, Way, Log), Way) || Way <- Ways],
    [?assertError(badarg, erl_esdb_log:read(<<"s">>, 1, -1, Way, Log), Way) || Way <- Ways].

%% ---- sequences

row() ->
    ?LET(
        {Gap, Count, Stream, Version, Position, Epoch, Parts},
        {
            %% -1: the same as before
            frequency([{5, 0}, {1, -1}, {1, nat()}, {1, range(0, 1 bsl 40)}]),
            frequency([{5, range(1, 3)}, {1, range(1, 100_000)}]),
            range(0, 1 bsl 34),
            range(0, 100),
            range(0, 100),
            frequency([{5, range(0, 10_000)}, {1, integer()}, {1, range(-(1 bsl 60), 1 bsl 60)}]),
            frequency([{5, 1}, {1, range(2, 5)}, {1, range(1, 1 bsl 20)}])
        },
        {Gap, Count, Stream, Version, Position, Epoch, Parts}
    ).

%% Rows whose index, version and position rise, as they do in a store.
rising(Steps) ->
    {Rows, _} = lists:mapfoldl(fun next_row/2, #row{}, Steps),
    Rows.

next_row({Gap, Count, Stream, Skip1, Skip2, Epoch, Parts}, #row{} = Last) ->
    Row = #row{
        index = Last#row.index + 1 + Gap,
        count = Count,
        stream = Stream,
        version = Last#row.version + Last#row.count + Skip1,
        position = Last#row.position + Last#row.count + Skip2,
        epoch_us = Last#row.epoch_us + Epoch,
        parts = Parts
    },
    {Row, Row}.

rows() -> ?LET(Steps, resize(400, list(row())), rising(Steps)).

build(Rows) ->
    lists:foldl(
        fun(Row, {Seq, Chunks}) ->
            case erl_esdb_chunks:add(Row, Seq) of
                {Seq1, none} -> {Seq1, Chunks};
                {Seq1, {No, Chunk}} -> {Seq1, Chunks#{No => Chunk}}
            end
        end,
        {erl_esdb_chunks:new(), #{}},
        Rows
    ).

fold(Field, From, Direction, {Seq, Chunks}) ->
    Collect = fun(Row, Acc) -> {next, [Row | Acc]} end,
    Fetch = fun(No) -> maps:get(No, Chunks) end,
    lists:reverse(erl_esdb_chunks:fold(Field, From, Direction, Collect, [], Seq, Fetch)).

rows_come_back(_Config) ->
    Property = ?FORALL(
        Rows,
        rows(),
        begin
            Built = {Seq, _} = build(Rows),
            Last = lists:last([#row{} | Rows]),
            fold(version, 0, forward, Built) =:= Rows andalso
                fold(position, 1 bsl 70, backward, Built) =:= lists:reverse(Rows) andalso
                erl_esdb_chunks:last(Seq) =:= Last
        end
    ),
    erl_esdb_test:property(200, Property).

rows_are_found(_Config) ->
    Property = ?FORALL(
        {Rows, Field, Some},
        {rows(), oneof([version, position]), range(0, 100_000)},
        begin
            Built = build(Rows),
            Ends = [key(Field, Row) + Row#row.count || Row <- [#row{} | Rows]],
            From = max(0, lists:nth(1 + Some rem length(Ends), Ends) + Some rem 3 - 1),
            Forward = [Row || Row <- Rows, key(Field, Row) + Row#row.count > From],
            Backward = lists:reverse([Row || Row <- Rows, key(Field, Row) =< From]),
            fold(Field, From, forward, Built) =:= Forward andalso
                fold(Field, From, backward, Built) =:= Backward
        end
    ),
    erl_esdb_test:property(300, Property).

key(version, Row) -> Row#row.version;
key(position, Row) -> Row#row.position.

rows_are_dropped(_Config) ->
    Property = ?FORALL(
        {Rows, Some},
        {?SUCHTHAT(Rows, rows(), Rows =/= []), range(0, 100_000)},
        begin
            {Seq, Chunks} = build(Rows),
            Cut = (lists:nth(1 + Some rem length(Rows), Rows))#row.version,
            Fetch = fun(No) -> maps:get(No, Chunks) end,
            Seq1 = erl_esdb_chunks:drop_before(version, Cut, Seq, Fetch),
            {First, _} = erl_esdb_chunks:numbers(Seq),
            {Keep, _} = erl_esdb_chunks:numbers(Seq1),
            Gone = lists:seq(First, Keep - 1),
            Left = fold(version, 0, forward, {Seq1, maps:without(Gone, Chunks)}),
            Kept = [Row || Row <- Rows, Row#row.version >= Cut],
            %% All that is kept is there, in at most one chunk's company.
            lists:suffix(Kept, Left) andalso length(Left) - length(Kept) =< 128 andalso
                lists:suffix(Left, Rows)
        end
    ),
    erl_esdb_test:property(200, Property).

rows_are_small(_Config) ->
    %% One event after the other to one stream, a millisecond apart.
    Rows = rising([{0, 1, 0, 0, 0, 1000, 1} || _ <- lists:seq(1, 1280)]),
    {_, Chunks} = build(Rows),
    ?assert(byte_size(maps:get(5, Chunks)) =< 128 * 3 + 4 * 20 + 6).

%% Wherever a row stands in its chunk, few of those before it are decoded. The cost in reductions.
a_row_is_found_by_a_part_of_its_chunk(_Config) ->
    {Seq, Chunks} = build(rising([{0, 1, 0, 0, 0, 1000, 1} || _ <- lists:seq(1, 128)])),
    Fetch = fun(No) -> maps:get(No, Chunks) end,
    Cost = fun(From, Fun) ->
        {reductions, Before} = process_info(self(), reductions),
        _ = erl_esdb_chunks:fold(version, From, forward, Fun, none, Seq, Fetch),
        {reductions, After} = process_info(self(), reductions),
        After - Before
    end,
    All = Cost(0, fun(_Row, Acc) -> {next, Acc} end),
    Each = [Cost(From, fun(Row, _) -> {stop, Row} end) || From <- lists:seq(0, 127)],
    ?assert(lists:max(Each) * 2 < All, {lists:max(Each), All}).

%% Times of a stream never fall, many are the same.
rows_are_found_by_time(_Config) ->
    Property = ?FORALL(
        {Steps, Some},
        {resize(600, list(frequency([{3, 0}, {1, range(0, 3)}]))), range(-2, 700)},
        begin
            Rows = rising([{0, 1, 0, 0, 0, Epoch, 1} || Epoch <- Steps]),
            {Seq, Chunks} = build(Rows),
            Fetch = fun(No) -> maps:get(No, Chunks) end,
            Since = [Row || Row <- Rows, Row#row.epoch_us >= Some],
            erl_esdb_chunks:since(Some, Seq, Fetch) =:= hd(Since ++ [none])
        end
    ),
    erl_esdb_test:property(300, Property),
    %% Chunks that begin with the time that one before them begins with.
    Steps = [6, 1 | lists:duplicate(400, 0)],
    {Seq, Chunks} = build(rising([{0, 1, 0, 0, 0, Step, 1} || Step <- Steps])),
    Since = fun(Time) -> erl_esdb_chunks:since(Time, Seq, fun(N) -> map_get(N, Chunks) end) end,
    ?assertEqual([0, 0, 1], [Row#row.version || Row <- [Since(5), Since(6), Since(7)]]),
    ?assertEqual(none, Since(8)).

%% Whatever full chunks are removed, in whatever order: the others' rows are found from everywhere.
gaps_are_passed_over(_Config) ->
    Property = ?FORALL(
        {Count, Picks, From},
        {range(0, 6000), resize(60, list(range(0, 46))), range(0, 6200)},
        begin
            {Seq, Chunks} = build(plain(Count)),
            {0, Next} = erl_esdb_chunks:numbers(Seq),
            %% runs of chunks, so that gaps grow together
            Runs = [lists:seq(N, min(N + N rem 7, Next - 1)) || N <- Picks, N < Next],
            Removed = unique(lists:append(Runs), []),
            Built = {Seq, lists:foldl(remover(Seq), Chunks, Removed)},
            Kept = [R || R <- plain(Count), not lists:member(R#row.position div 128, Removed)],
            Up = [R || #row{position = P} = R <- Kept, P >= From],
            Down = lists:reverse([R || #row{position = P} = R <- Kept, P =< From]),
            fold(position, From, forward, Built) =:= Up andalso
                fold(position, From, backward, Built) =:= Down
        end
    ),
    erl_esdb_test:property(300, Property).

%% One event a row, so that the chunk of a position is known.
plain(Count) ->
    [#row{index = N + 1, count = 1, version = N, position = N} || N <- lists:seq(0, Count - 1)].

unique([H | T], Seen) ->
    case lists:member(H, Seen) of
        true -> unique(T, Seen);
        false -> unique(T, [H | Seen])
    end;
unique([], Seen) -> Seen.

remover(Seq) ->
    fun(Number, Chunks) ->
        Fetch = fun(N) -> maps:get(N, Chunks) end,
        maps:merge(Chunks, maps:from_list(erl_esdb_chunks:remove(Number, Seq, Fetch)))
    end.

%% 199,900 rows out of 200,000: by way of 1,561 chunks if it were not for the jumps.
a_gap_takes_few_steps(_Config) ->
    Count = 200_000,
    {Seq, Chunks} = build(plain(Count)),
    Gap = lists:foldl(remover(Seq), Chunks, lists:seq(1, 1561)),
    Fetched = counters:new(1, []),
    Fetch = fun(Number) ->
        ok = counters:add(Fetched, 1, 1),
        maps:get(Number, Gap)
    end,
    Second = fun
        (Row, []) -> {next, [Row#row.position]};
        (Row, [First]) -> {stop, [First, Row#row.position]}
    end,
    Walk = fun(From, Direction) ->
        ok = counters:put(Fetched, 1, 0),
        Found = erl_esdb_chunks:fold(position, From, Direction, Second, [], Seq, Fetch),
        ?assert(counters:get(Fetched, 1) < 40),
        Found
    end,
    ?assertEqual([127, 199_936], Walk(127, forward)),
    ?assertEqual([199_936, 127], Walk(199_936, backward)),
    [?assertEqual([199_936, 199_937], Walk(From, forward)) || From <- [128, 77_777, 199_935]],
    [?assertEqual([127, 126], Walk(From, backward)) || From <- [128, 77_777, 199_935]],
    %% Nor does it take the room of the rows.
    Bytes = lists:sum([byte_size(Row) || {gap, Row, _, _} <- maps:values(Gap)]),
    ?assert(Bytes < 1561 * 20).

%% ---- the machine

%% One stream name of few, so that commands meet.
stream() -> oneof([<<"a">>, <<"b">>, <<"$c">>]).

command() ->
    frequency([
        {10, {append, stream(), expected(), <<"body">>, summary()}},
        {3, {append_many, ?LET(S, shuffled(), [many(Name) || Name <- S]), #{}}},
        {2, {truncate, stream(), nat()}},
        {1, {delete, stream()}},
        {1, {tombstone, stream()}},
        {1, {set_metadata, stream(), oneof([#{}, #{max_count => 1}, #{truncate_before => 2}])}},
        {1, sweep},
        {1, {put_document, {doc, range(1, 3)}, <<"document">>}},
        {1, {delete_document, {doc, range(1, 3)}}},
        {1, {checkpoint, checkpoints()}}
    ]).

%% Some of the streams, each once.
shuffled() ->
    oneof([[<<"a">>, <<"b">>], [<<"$c">>, <<"b">>, <<"a">>], [<<"b">>], [<<"b">>, <<"$c">>]]).

many(Name) -> {Name, frequency([{5, -2}, {1, expected()}]), <<"body">>, summary()}.

checkpoints() ->
    ?LET(Pairs, list({range(1, 3), oneof([nat(), delete])}), maps:from_list(Pairs)).

expected() -> frequency([{3, -2}, {1, -1}, {1, -4}, {3, range(0, 12)}]).

summary() -> ?LET({Count, Time}, {range(0, 4), nat()}, #{count => Count, epoch_us => Time}).

%% Short and mixed, or so many appends to one stream that its chunks fill, are cut and read across.
commands() ->
    oneof([
        resize(100, list(command())),
        ?LET(
            {Count, Cuts, Rest},
            {range(100, 400), list(range(0, 900)), resize(30, list(command()))},
            [append_number(N) || N <- lists:seq(1, Count)] ++
                [{truncate, <<"a">>, Cut} || Cut <- Cuts] ++ Rest
        )
    ]).

append_number(N) ->
    {append, <<"a">>, -2, <<"body">>, #{count => 1 + N rem 3, epoch_us => N}}.

%% A version or a position in either.
place() -> frequency([{1, nat()}, {1, range(0, 900)}]).

run(Commands) ->
    {Log, _, Replies} = lists:foldl(
        fun(Command, {Log, Index, Replies}) ->
            {Reply, _, Log1} = erl_esdb_log:apply(Index, Command, Log),
            {Log1, Index + 1, [Reply | Replies]}
        end,
        {erl_esdb_log:new(), 1, []},
        Commands
    ),
    {Log, lists:reverse(Replies)}.

%% The model: streams as lists of {Version, Position}, kept and counted separately, and the next
%% versions of those with a tombstone.
model(Commands) ->
    {Streams, _, _, Replies} = lists:foldl(fun model_step/2, {#{}, #{}, 0, []}, Commands),
    {Streams, lists:reverse(Replies)}.

model_step({append, S, E, P, Summary}, {_, _, _, Replies} = Model) ->
    case model_append([{S, E, P, Summary}], Model) of
        {Streams, Tombs, Position, [{ok, [Reply]} | _]} ->
            {Streams, Tombs, Position, [{ok, Reply} | Replies]};
        {Streams, Tombs, Position, [{error, {refused, [Refusal]}} | _]} ->
            {Streams, Tombs, Position, [{error, Refusal} | Replies]}
    end;
model_step({append_many, Parts, _}, Model) ->
    model_append(Parts, Model);
model_step({truncate, S, Before}, {Streams, Tombs, Position, Replies}) ->
    case Streams of
        #{S := {Next, Kept}} ->
            Left = [Event || {V, _} = Event <- Kept, V >= Before],
            From = Next - length(Kept),
            Reply = {ok, {From, max(From, min(Before, Next))}},
            {Streams#{S => {Next, Left}}, Tombs, Position, [Reply | Replies]};
        #{} ->
            {Streams, Tombs, Position, [{error, stream_not_found} | Replies]}
    end;
model_step({delete, S}, {Streams, Tombs, Position, Replies}) ->
    {maps:remove(S, Streams), maps:remove(S, Tombs), Position, [ok | Replies]};
model_step({tombstone, S}, {Streams, Tombs, Position, Replies}) ->
    case Streams of
        #{S := {Next, _}} ->
            {maps:remove(S, Streams), Tombs#{S => Next}, Position, [ok | Replies]};
        #{} ->
            {Streams, Tombs, Position, [ok | Replies]}
    end;
model_step({put_document, _, _}, {Streams, Tombs, Position, Replies}) ->
    {Streams, Tombs, Position, [document | Replies]};
model_step(Other, {Streams, Tombs, Position, Replies}) when
    Other =:= sweep; element(1, Other) =:= set_metadata; element(1, Other) =:= delete_document;
    element(1, Other) =:= checkpoint
->
    {Streams, Tombs, Position, [ok | Replies]}.

model_append(Parts, {Streams, Tombs, Position, Replies}) ->
    Answers = [model_may(E, maps:get(S, Streams, none)) || {S, E, _, _} <- Parts],
    case lists:usort(Answers) of
        [ok] ->
            Write = fun({S, _, _, #{count := N}}, Sum) -> model_write(S, N, Sum) end,
            {Replied, {Streams1, Tombs1, Position1}} =
                lists:mapfoldl(Write, {Streams, Tombs, Position}, Parts),
            {Streams1, Tombs1, Position1, [{ok, Replied} | Replies]};
        _ ->
            {Streams, Tombs, Position, [{error, {refused, Answers}} | Replies]}
    end.

model_may(-2, _) -> ok;
model_may(-4, {_, _}) -> ok;
model_may(E, {Next, _}) when E =:= Next - 1 -> ok;
model_may(-1, none) -> ok;
model_may(E, none) -> {wrong_expected_version, E, -1};
model_may(E, {Next, _}) -> {wrong_expected_version, E, Next - 1}.

model_write(S, 0, {Streams, _, _} = Sum) ->
    {Next, _} = maps:get(S, Streams, {0, []}),
    {{Next - 1, undefined, 0}, Sum};
model_write(S, N, {Streams, Tombs, Position}) ->
    {Next, Kept} = maps:get(S, Streams, {maps:get(S, Tombs, 0), []}),
    New = [{Next + I, Position + I} || I <- lists:seq(0, N - 1)],
    Streams1 = Streams#{S => {Next + N, Kept ++ New}},
    {{Next + N - 1, Position + N - 1, N}, {Streams1, maps:remove(S, Tombs), Position + N}}.

%% The last value of each key counts, and whoever follows the effects has the same.
checkpoints_are_the_last_values(_Config) ->
    Property = ?FORALL(
        Commands,
        commands(),
        begin
            {Log, _, Mirror} = lists:foldl(fun mirror_step/2, new_mirror(), Commands),
            Saved = [Values || {checkpoint, Values} <- Commands],
            Last = lists:foldl(fun(Values, Acc) -> maps:merge(Acc, Values) end, #{}, Saved),
            lists:all(
                fun(Key) ->
                    Value = maps:get(Key, Last, delete),
                    checkpoint(erl_esdb_log:checkpoint(Key, Log)) =:= Value andalso
                        maps:get({checkpoint, Key}, Mirror, delete) =:= Value
                end,
                [1, 2, 3]
            )
        end
    ),
    erl_esdb_test:property(200, Property).

checkpoint({ok, Value}) -> Value;
checkpoint({error, not_found}) -> delete.

any_commands_against_a_model(_Config) ->
    Property = ?FORALL(
        {Commands, From, Count},
        {commands(), place(), frequency([{3, place()}, {1, infinity}])},
        begin
            {Log, Replies} = run(Commands),
            {Streams, Expected} = model(Commands),
            maps:keys(Streams) =:= erl_esdb_log:streams(Log) andalso
                lists:all(fun agree/1, lists:zip(Replies, Expected)) andalso
                lists:all(
                    fun(S) -> same_reads(S, From, Count, Streams, Log) end,
                    [<<"a">>, <<"b">>, <<"$c">>]
                ) andalso same_log(From, Count, Streams, Log)
        end
    ),
    erl_esdb_test:property(300, Property).

agree({{ok, N}, document}) -> N > 0;
agree({Reply, Expected}) -> Reply =:= Expected.

same_reads(S, From, Count, Streams, Log) ->
    case Streams of
        #{S := {Next, Kept}} ->
            {ok, #{next := Next, first := First}} = erl_esdb_log:stream(S, Log),
            Up = [E || {V, _} = E <- Kept, V >= From, V < end_of(From, Count)],
            Down = [E || {V, _} = E <- lists:reverse(Kept), V =< From, V > begin_of(From, Count)],
            First =:= Next - length(Kept) andalso
                expand(erl_esdb_log:read(S, From, Count, forward, Log), forward) =:= Up andalso
                expand(erl_esdb_log:read(S, From, Count, backward, Log), backward) =:= Down;
        #{} ->
            {error, stream_not_found} =:= erl_esdb_log:read(S, From, Count, forward, Log)
    end.

end_of(From, Count) when is_integer(Count) -> From + Count;
end_of(_, infinity) -> infinity.

begin_of(From, Count) when is_integer(Count) -> From - Count;
begin_of(_, infinity) -> -1.

expand({ok, Spans}, Direction) ->
    lists:append([places(Span, Direction) || Span <- Spans]).

places({#row{version = V, position = P}, Low, High}, Direction) ->
    All = [{N, P + N - V} || N <- lists:seq(Low, High)],
    case Direction of
        forward -> All;
        backward -> lists:reverse(All)
    end.

same_log(From, Count, Streams, Log) ->
    All = lists:sort([{P, S, V} || S := {_, Kept} <- Streams, {V, P} <- Kept]),
    Up = take(Count, [E || {P, _, _} = E <- All, P >= From]),
    Down = take(Count, lists:reverse([E || {P, _, _} = E <- All, P =< From])),
    Read = fun(Start, Direction) ->
        [
            {P, S, V}
         || {S, Span} <- erl_esdb_log:read_log(Start, Count, Direction, Log),
            {V, P} <- places(Span, Direction)
        ]
    end,
    Read(From, forward) =:= Up andalso Read(From, backward) =:= Down andalso
        Read(last, backward) =:= take(Count, lists:reverse(All)).

take(infinity, List) -> List;
take(Count, List) -> lists:sublist(List, Count).

the_same_commands_give_the_same_state(_Config) ->
    Property = ?FORALL(Commands, commands(), run(Commands) =:= run(Commands)),
    erl_esdb_test:property(50, Property),
    %% Nor does it depend on the process: one with another dictionary, heap and time.
    {ok, Commands} = proper_gen:pick(commands()),
    [Other] = erl_esdb_test:concurrently([fun() -> run(Commands) end]),
    ?assertEqual(term_to_binary(run(Commands)), term_to_binary(Other)).

time_never_runs_backwards(_Config) ->
    Append = fun(Time) -> {append, <<"a">>, -2, <<>>, #{count => 1, epoch_us => Time}} end,
    {Log, _} = run([Append(Time) || Time <- [100, 50, 101, -7, 102]]),
    {ok, Spans} = erl_esdb_log:read(<<"a">>, 0, infinity, forward, Log),
    ?assertEqual([100, 100, 101, 101, 102], [Row#row.epoch_us || {Row, _, _} <- Spans]).

a_refused_command_changes_nothing(_Config) ->
    Property = ?FORALL(
        {Commands, Command},
        {commands(), command()},
        begin
            {Log, _} = run(Commands),
            case erl_esdb_log:apply(100_000, Command, Log) of
                {{error, _}, Effects, Log1} -> Effects =:= [] andalso Log1 =:= Log;
                %% A removal of less than an append waits for its turn, to find that it has no work.
                {_, [], Log1} when Command =:= sweep, Log1 =/= Log -> erl_esdb_log:pending(Log);
                {_, [], Log1} -> Log1 =:= Log;
                {_, [_ | _], Log1} -> Log1 =/= Log
            end
        end
    ),
    erl_esdb_test:property(300, Property).

%% Tables that only follow the effects answer what the machine answers.
effects_mirror_the_state(_Config) ->
    Property = ?FORALL(
        Commands,
        commands(),
        begin
            {Log, _, Mirror} = lists:foldl(fun mirror_step/2, new_mirror(), Commands),
            Heads = [{S, Head} || {stream, S} := Head <- Mirror],
            lists:sort([S || {S, _} <- Heads]) =:= erl_esdb_log:streams(Log) andalso
                lists:all(fun(S) -> same_metadata(S, Mirror, Log) end, [<<"a">>, <<"b">>]) andalso
                lists:all(fun({S, Head}) -> mirrored(S, Head, Mirror, Log) end, Heads)
        end
    ),
    erl_esdb_test:property(200, Property).

mirror_step(Command, {Log, Index, Mirror}) ->
    {_, Effects, Log1} = erl_esdb_log:apply(Index, Command, Log),
    {Log1, Index + 1, lists:foldl(fun effect/2, Mirror, Effects)}.

effect({stream, Name, Head}, M) -> M#{{stream, Name} => Head};
effect({no_stream, Name, _}, M) -> maps:remove({stream, Name}, M);
effect({chunk, Key, Chunk}, M) -> M#{{chunk, Key} => Chunk};
effect({no_chunk, Key}, M) -> maps:remove({chunk, Key}, M);
effect({metadata, Name, Metadata}, M) -> M#{{metadata, Name} => Metadata};
effect({no_metadata, Name}, M) -> maps:remove({metadata, Name}, M);
effect({live, Indexes}, M) -> maps:merge(M, #{{live, I} => true || I <- Indexes});
effect({order, Order}, M) -> M#{order => Order};
effect({dead, Indexes}, M) -> maps:without([{live, I} || I <- Indexes], M);
effect({checkpoint, Saved, Gone}, M) ->
    M1 = maps:without([{checkpoint, Key} || Key <- Gone], M),
    maps:merge(M1, #{{checkpoint, Key} => Value || Key := Value <- Saved});
effect(_, M) -> M.

same_metadata(S, Mirror, Log) ->
    maps:get({metadata, S}, Mirror, #{}) =:= erl_esdb_log:metadata(S, Log).

mirrored(S, Head, Mirror, Log) ->
    Fetch = fun(No) -> maps:get({chunk, {erl_esdb_log:no(Head), No}}, Mirror) end,
    Spans = erl_esdb_log:rows(Head, 0, infinity, forward, Fetch),
    {ok, Spans} =:= erl_esdb_log:read(S, 0, infinity, forward, Log) andalso
        lists:all(fun({Row, _, _}) -> is_map_key({live, Row#row.index}, Mirror) end, Spans).

%% What comes to life dies at most once and never lives again; what is left alive is what is kept.
dead_once(_Config) ->
    Property = ?FORALL(
        Commands,
        commands(),
        begin
            {Log, _, All} = lists:foldl(
                fun(Command, {Log, Index, Acc}) ->
                    {_, Effects, Log1} = erl_esdb_log:apply(Index, Command, Log),
                    {Log1, Index + 1, Acc ++ Effects}
                end,
                {erl_esdb_log:new(), 1, []},
                %% Enough that nothing is left to be erased.
                Commands ++ lists:duplicate(length(Commands), sweep)
            ),
            false = erl_esdb_log:pending(Log),
            Live = [I || {live, Is} <- All, I <- Is],
            Dead = [I || {dead, Is} <- All, I <- Is],
            Kept = [
                Row#row.index
             || S <- erl_esdb_log:streams(Log),
                {ok, Spans} <- [erl_esdb_log:read(S, 0, infinity, forward, Log)],
                {Row, _, _} <- Spans
            ],
            Documents = [I || {_, {_, I}} <- erl_esdb_log:documents({}, {doc, 9}, Log)],
            length(lists:usort(Live)) =:= length(Live) andalso
                length(lists:usort(Dead)) =:= length(Dead) andalso
                lists:sort(Live -- Dead) =:= lists:usort(Kept ++ Documents)
        end
    ),
    erl_esdb_test:property(200, Property).

%% However much is removed: the command and each sweep erase at most 256 appends, and at the end
%% nothing is left, neither of bodies nor of chunks, and the order is read in a few steps.
removal_takes_bounded_steps(_Config) ->
    Count = 20_000,
    Append = fun(N) ->
        Stream = <<"s", (N rem 3)>>,
        {append, Stream, -2, <<>>, #{count => 1, epoch_us => N}}
    end,
    Full = lists:foldl(fun mirror_step/2, new_mirror(), [Append(N) || N <- lists:seq(1, Count)]),
    Removals = [{truncate, <<"s", 0>>, 6_660}, {delete, <<"s", 1>>}, {truncate, <<"s", 2>>, 9_999}],
    {Log, _, Mirror} = Swept = sweep(lists:foldl(fun erase_step/2, Full, Removals)),
    Live = [I || {live, I} := _ <- Mirror],
    %% Of the first stream the last six of 6,666 are left, of the others nothing.
    ?assertEqual([Count - 2 - 3 * N || N <- [5, 4, 3, 2, 1, 0]], lists:sort(Live)),
    ?assertEqual([], [Number || {chunk, {No, Number}} := _ <- Mirror, No =/= 0, Number < 51]),
    {Positions, Fetched} = first_positions(Swept),
    ?assertEqual([I - 1 || I <- lists:sort(Live)], Positions),
    ?assert(Fetched < 40),
    ?assertEqual(length(Live), length(erl_esdb_log:read_log(0, infinity, forward, Log))).

new_mirror() -> {erl_esdb_log:new(), 1, #{}}.

sweep({Log, _, _} = Mirror) ->
    case erl_esdb_log:pending(Log) of
        true -> sweep(erase_step(sweep, Mirror));
        false -> Mirror
    end.

erase_step(Command, {Log, Index, Mirror}) ->
    {_, Effects, Log1} = erl_esdb_log:apply(Index, Command, Log),
    ?assert(length([I || {dead, Indexes} <- Effects, I <- Indexes]) =< 256),
    ?assert(length(Effects) < 30),
    {Log1, Index + 1, lists:foldl(fun effect/2, Mirror, Effects)}.

%% As an engine reads the order, and how many chunks that took.
first_positions({_, _, #{order := Order} = Mirror}) ->
    Fetched = counters:new(1, []),
    Fetch = fun(Number) ->
        ok = counters:add(Fetched, 1, 1),
        maps:get({chunk, {0, Number}}, Mirror)
    end,
    Owners = #{
        erl_esdb_log:no(Head) => {S, erl_esdb_log:first(Head), erl_esdb_log:first(Head)}
     || {stream, S} := Head <- Mirror
    },
    Owner = fun(No) -> maps:get(No, Owners, gone) end,
    Spans = erl_esdb_log:log_rows(Order, 0, 20, forward, Owner, Fetch),
    {[Row#row.position || {_, {Row, _, _}} <- Spans], counters:get(Fetched, 1)}.

%% A reader that has asked for a stream, and then passes over what was erased since, looks again.
a_gap_met_during_a_cut_is_looked_at_again(_Config) ->
    Append = {append, <<"s">>, -2, <<>>, #{count => 1, epoch_us => 0}},
    Full = lists:foldl(fun mirror_step/2, new_mirror(), lists:duplicate(1000, Append)),
    {_, _, #{order := Order} = Mirror} = sweep(erase_step({truncate, <<"s">>, 900}, Full)),
    Fetch = fun(Number) -> maps:get({chunk, {0, Number}}, Mirror) end,
    Firsts = counters:new(1, []),
    Owner = fun(1) ->
        First = counters:get(Firsts, 1),
        ok = counters:put(Firsts, 1, 900),
        {<<"s">>, First, First}
    end,
    Read = fun() -> erl_esdb_log:log_rows(Order, last, infinity, backward, Owner, Fetch) end,
    ?assertThrow(removed, Read()),
    ?assertEqual(lists:seq(999, 900, -1), [V || {_, {_, V, V}} <- Read()]).

%% Invariant 4: at most 20 bytes an append for streams and positions. A hundred streams in turn,
%% batches of one to three, a quarter of a millisecond apart.
many_appends_stay_small(_Config) ->
    Count = 200_000,
    Log = lists:foldl(
        fun(N, Log) ->
            Stream = <<"stream-", (integer_to_binary(N * 7919 rem 100))/binary>>,
            Summary = #{count => 1 + N rem 3, epoch_us => 1_700_000_000_000_000 + N * 250},
            {{ok, _}, _, Log1} = erl_esdb_log:apply(N, {append, Stream, -2, <<>>, Summary}, Log),
            Log1
        end,
        erl_esdb_log:new(),
        lists:seq(1, Count)
    ),
    Bytes = size_of(Log),
    ct:pal("~.2f bytes an append", [Bytes / Count]),
    ?assert(Bytes / Count =< 20).

%% As many ids and appends as are kept by default, and twice as many more: less than 12 MB, and so
%% little of it on the heap of the process that nobody waits for its garbage collection.
what_is_remembered_stays_small(_Config) ->
    Table = ets:new(?FUNCTION_NAME, [set]),
    {Seen, Recent} = lists:foldl(
        fun(N, {Seen, Recent}) ->
            Facts = erl_esdb_recent:facts([N rem 20, 16#FFFFFFFF - N]),
            Hash = erlang:phash2(N) bsl 27 bor erlang:phash2({N}),
            {see(N rem 100, N, [Hash], Seen, Table), erl_esdb_recent:add(1, Facts, Recent)}
        end,
        {erl_esdb_seen:new(100_000), erl_esdb_recent:new(100_000)},
        lists:seq(1, 300_000)
    ),
    100_000 = ets:info(Table, size),
    InTable = ets:info(Table, memory) * erlang:system_info(wordsize),
    Ids = size_of(Seen) + InTable,
    ct:pal("~.1f bytes an id, ~.1f an append", [Ids / 1.0e5, size_of(Recent) / 1.0e5]),
    ?assert(Ids + size_of(Recent) < 12_000_000),
    ?assert(erts_debug:flat_size({Seen, Recent}) < 20_000).

%% What is kept in a table of what was seen.
see(No, Version, Hashes, Seen, Table) ->
    Keys = erl_esdb_seen:keys(No, Hashes),
    {Seen1, Forgotten} = erl_esdb_seen:add(Version + 1, Version, Keys, Seen),
    true = ets:insert(Table, [{Key, Version} || Key <- Keys]),
    lists:foreach(fun(Entry) -> ets:delete_object(Table, Entry) end, Forgotten),
    Seen1.

%% Words of the heap, and what lies outside of it, which erts_debug:size/1 does not count.
size_of(Term) -> erts_debug:flat_size(Term) * erlang:system_info(wordsize) + off_heap(Term).

off_heap(Bin) when is_binary(Bin), byte_size(Bin) > 64 -> byte_size(Bin);
off_heap(Tuple) when is_tuple(Tuple) -> off_heap(tuple_to_list(Tuple));
off_heap(Map) when is_map(Map) -> off_heap(maps:to_list(Map));
off_heap([Head | Tail]) -> off_heap(Head) + off_heap(Tail);
off_heap(_) -> 0.

%% ---- appends to several streams, tombstones, metadata, tips

applied(Commands, Log) -> applied(1_000_000, Commands, Log).

applied(From, Commands, Log) ->
    lists:foldl(
        fun({Index, Command}, {_, Effects, Sum}) ->
            {Reply, New, Sum1} = erl_esdb_log:apply(Index, Command, Sum),
            {Reply, Effects ++ New, Sum1}
        end,
        {none, [], Log},
        lists:enumerate(From, Commands)
    ).

summary(Count) -> #{count => Count, epoch_us => 0}.

%% It is dead with the last of them, and not before.
parts_of_an_append_share_an_index(_Config) ->
    Parts = [{<<"a">>, -1, <<>>, summary(2)}, {<<"b">>, -2, <<>>, summary(0)}] ++
        [{<<"c">>, -1, <<>>, summary(1)}],
    {Reply, Effects, Log} = erl_esdb_log:apply(7, {append_many, Parts, #{}}, erl_esdb_log:new()),
    ?assertEqual({ok, [{1, 1, 2}, {-1, undefined, 0}, {0, 2, 1}]}, Reply),
    ?assertEqual([[7]], [Live || {live, Live} <- Effects]),
    Places = [{S, Row#row.index, Row#row.parts} || {S, {Row, _, _}} <- all(Log)],
    ?assertEqual([{<<"a">>, 7, 2}, {<<"c">>, 7, 2}], Places),
    {ok, Effects1, Log1} = erl_esdb_log:apply(8, {delete, <<"a">>}, Log),
    ?assertEqual([], [Dead || {dead, Dead} <- Effects1]),
    {ok, Effects2, Log2} = erl_esdb_log:apply(9, {delete, <<"c">>}, Log1),
    ?assertEqual([[7]], [Dead || {dead, Dead} <- Effects2]),
    ?assertEqual([], all(Log2)),
    %% Half of it is noted, of the whole nothing stays.
    ?assertEqual([true, false], [has_key(7, Sum) || Sum <- [Log1, Log2]]),
    %% One that may not be done holds the others back.
    Refused = [{<<"x">>, -1, <<>>, summary(1)}, {<<"y">>, 3, <<>>, summary(1)}],
    ?assertEqual(
        {{error, {refused, [ok, {wrong_expected_version, 3, -1}]}}, [], Log2},
        erl_esdb_log:apply(10, {append_many, Refused, #{}}, Log2)
    ).

%% Whether there is a map somewhere in the term that has this key.
has_key(Key, Map) when is_map(Map) ->
    is_map_key(Key, Map) orelse has_key(Key, maps:values(Map));
has_key(Key, Tuple) when is_tuple(Tuple) -> has_key(Key, tuple_to_list(Tuple));
has_key(Key, [Head | Tail]) -> has_key(Key, Head) orelse has_key(Key, Tail);
has_key(_Key, _) -> false.

all(Log) -> erl_esdb_log:read_log(0, infinity, forward, Log).

a_tombstone_keeps_the_version(_Config) ->
    Append = fun(Expected) -> {append, <<"s">>, Expected, <<>>, summary(3)} end,
    {ok, _, Log} = applied([Append(-1), {tombstone, <<"s">>}], erl_esdb_log:new()),
    ?assertEqual({error, stream_not_found}, erl_esdb_log:stream(<<"s">>, Log)),
    ?assertEqual([], all(Log)),
    [
        ?assertMatch({{error, {wrong_expected_version, E, -1}}, [], Log}, applied([Append(E)], Log))
     || E <- [2, 0, -4]
    ],
    {{ok, {5, 5, 3}}, _, Log1} = applied([Append(-1)], Log),
    ?assertMatch({ok, #{first := 3, base := 3, next := 6}}, erl_esdb_log:stream(<<"s">>, Log1)),
    {{ok, {8, 8, 3}}, _, Log2} = applied([{tombstone, <<"s">>}, Append(-2)], Log1),
    %% Deleted for good it begins again.
    {{ok, {2, 11, 3}}, _, Log3} =
        applied([{tombstone, <<"s">>}, {delete, <<"s">>}, Append(-1)], Log2),
    ?assertMatch({ok, #{first := 0, base := 0, next := 3}}, erl_esdb_log:stream(<<"s">>, Log3)).

metadata_shows_a_part(_Config) ->
    Append = fun(N) -> {append, <<"s">>, -2, <<>>, #{count => 2, epoch_us => N * 10}} end,
    Commands = [Append(N) || N <- lists:seq(1, 500)],
    {_, _, Mirror} = lists:foldl(fun mirror_step/2, new_mirror(), Commands),
    #{{stream, <<"s">>} := Head} = Mirror,
    Fetch = fun(No) -> maps:get({chunk, {erl_esdb_log:no(Head), No}}, Mirror) end,
    First = fun(Metadata, Now) ->
        erl_esdb_log:first(erl_esdb_log:view(Head, Metadata, Now, Fetch))
    end,
    ?assertEqual(0, First(#{}, 0)),
    ?assertEqual(17, First(#{truncate_before => 17}, 0)),
    ?assertEqual(1000, First(#{truncate_before => 5000}, 0)),
    ?assertEqual([0, 0, 1, 999], [First(#{max_count => N}, 0) || N <- [1001, 1000, 999, 1]]),
    %% The time of the event with version V is 10 * (V div 2 + 1).
    Age = fun(Now) -> First(#{max_age => 100}, Now) end,
    ?assertEqual([0, 0, 2, 2, 998, 1000], [Age(N) || N <- [100, 110, 111, 120, 5100, 5101]]),
    ?assertEqual(900, First(#{max_age => 1000, max_count => 100, truncate_before => 3}, 5010)).

a_tip_is_followed(_Config) ->
    [One, Two] = [<<N:256>> || N <- [1, 2]],
    Append = fun(Tip) -> {append, <<"s">>, -2, <<>>, (summary(1))#{tip => Tip}} end,
    Moved = fun(Tip, Log) ->
        ?assertMatch({{error, tip_moved}, [], Log}, applied([Append(Tip)], Log))
    end,
    Empty = erl_esdb_log:new(),
    Moved({One, Two}, Empty),
    {{ok, _}, _, Log} = applied([Append({none, One})], Empty),
    ?assertMatch({ok, #{tip := One}}, erl_esdb_log:stream(<<"s">>, Log)),
    [Moved(Tip, Log) || Tip <- [{none, Two}, {Two, One}]],
    {{ok, _}, _, Log1} = applied([Append({One, Two}), {truncate, <<"s">>, 2}], Log),
    ?assertMatch({ok, #{tip := Two, first := 2}}, erl_esdb_log:stream(<<"s">>, Log1)),
    {ok, _, Log2} = applied([{tombstone, <<"s">>}], Log1),
    Moved({none, One}, Log2),
    ?assertMatch({{ok, {2, 2, 1}}, _, _}, applied([Append({Two, One})], Log2)),
    ?assertMatch({{ok, {0, 2, 1}}, _, _}, applied([{delete, <<"s">>}, Append({none, One})], Log2)).

%% ---- ids that were seen, conditions

with_ids(Stream, Expected, Ids) ->
    {append, Stream, Expected, <<>>, (summary(length(Ids)))#{ids => Ids}}.

what_was_looked_at_is_cut(_Config) ->
    Append = {append, <<"s">>, -2, <<>>, #{count => 2, epoch_us => 0}},
    Cut = fun(Sight) -> {truncate, <<"s">>, 5, Sight} end,
    {_, _, Log} = applied([Append, Append], erl_esdb_log:new()),
    [
        ?assertEqual({{error, Reason}, [], Log}, applied([Cut(Sight)], Log))
     || {Sight, Reason} <- [
            {#{no => 2}, stream_replaced},
            {#{no => 2, next => 4}, stream_replaced},
            {#{no => 1, next => 2}, stream_moved}
        ]
    ],
    [
        ?assertMatch({{ok, {0, 4}}, _, _}, applied([Cut(Sight)], Log))
     || Sight <- [#{no => 1}, #{no => 1, next => 4}]
    ],
    Empty = erl_esdb_log:new(),
    ?assertMatch({{error, stream_not_found}, [], _}, applied([Cut(#{no => 1, next => 4})], Empty)).

ids_are_seen_again(_Config) ->
    Any = fun(Ids) -> with_ids(<<"s">>, -2, Ids) end,
    {{ok, _}, _, Log} = applied([Any([1, 2]), Any([3])], erl_esdb_log:new()),
    Seen = fun(Command) ->
        {{error, {seen, Spans}}, [], Log} = applied([Command], Log),
        lists:sort(Spans)
    end,
    ?assertEqual([{0, 1}], Seen(Any([1, 2]))),
    ?assertEqual([{0, 1}], Seen(Any([2, 9]))),
    ?assertEqual([{0, 1}, {2, 2}], Seen(Any([1, 3]))),
    ?assertEqual([{2, 2}], Seen(with_ids(<<"s">>, -4, [3]))),
    {append, S, E, P, Summary} = Any([1, 3]),
    ?assertEqual([{2, 2}], Seen({append, S, E, P, Summary#{known => [0]}})),
    %% Not where the version is named, in another stream, or where nothing is left of them.
    Done = fun(Commands) -> ?assertMatch({{ok, _}, _, _}, applied(Commands, Log)) end,
    Done([{append, S, E, P, Summary#{known => [0, 2]}}]),
    Done([with_ids(<<"s">>, 2, [1, 2])]),
    Done([with_ids(<<"t">>, -2, [1, 2])]),
    Done([{truncate, <<"s">>, 2}, Any([1, 2])]),
    ?assertMatch(
        {{error, {seen, [{0, 1}]}}, _, _}, applied([{truncate, <<"s">>, 1}, Any([1, 2])], Log)
    ),
    Done([{delete, <<"s">>}, Any([1, 2])]).

ids_are_forgotten(_Config) ->
    Any = fun(Ids) -> with_ids(<<"s">>, -2, Ids) end,
    Of = fun(Limits, Commands) -> element(1, applied(Commands, erl_esdb_log:new(Limits))) end,
    Three = [Any([1]), Any([2]), Any([3])],
    Seen = {error, {seen, [{0, 0}]}},
    ?assertEqual(Seen, Of(#{}, Three ++ [Any([1])])),
    ?assertEqual(Seen, Of(#{idempotence_window => 3}, Three ++ [Any([1])])),
    ?assertMatch({ok, _}, Of(#{idempotence_window => 2}, Three ++ [Any([1])])),
    ?assertEqual(Seen, Of(#{idempotence_appends => 3}, Three ++ [Any([1])])),
    ?assertMatch({ok, _}, Of(#{idempotence_appends => 2}, Three ++ [Any([1])])),
    ?assertMatch({ok, _}, Of(#{idempotence_window => 2}, [Any([1, 2, 3]), Any([1])])).

with_repeat(Since, {append, S, E, P, Summary}) -> {append, S, E, P, Summary#{repeat => Since}}.

%% Its ids are found however many appends came since, by which others are not found any more.
a_repeat_is_told_whether_it_was_done(_Config) ->
    Any = fun(Ids) -> with_ids(<<"s">>, -2, Ids) end,
    Limits = #{idempotence_appends => 2},
    Start = erl_esdb_log:new(Limits),
    {{ok, _}, _, Log} = applied([Any([N]) || N <- lists:seq(1, 300)], Start),
    ?assertMatch({{ok, _}, _, _}, applied([Any([1])], Log)),
    [
        ?assertEqual(
            {{error, {seen, [{N - 1, N - 1}]}}, [], Log},
            applied([with_repeat(0, Any([N]))], Log)
        )
     || N <- [1, 2, 128, 129, 300]
    ],
    ?assertMatch({{ok, _}, _, _}, applied([with_repeat(0, Any([301]))], Log)),
    %% What had these ids was removed before the command was sent first.
    {{ok, {0, 10}}, _, Cut} = erl_esdb_log:apply(2_000_000, {truncate, <<"s">>, 10}, Log),
    Again = with_repeat(2_000_000, Any([3])),
    ?assertMatch({{ok, _}, _, _}, erl_esdb_log:apply(2_000_001, Again, Cut)).

%% Only what came after it was sent first is found however many appends came since: it was not what
%% brought an older one, which is found by it as by any other.
a_repeat_finds_older_appends_as_any_other(_Config) ->
    Any = fun(Ids) -> with_ids(<<"s">>, -2, Ids) end,
    Start = erl_esdb_log:new(#{idempotence_appends => 2}),
    {{ok, _}, _, Log} = applied([Any([N]) || N <- [1, 2, 3]], Start),
    First = fun(Command) -> element(1, applied([Command], Log)) end,
    %% The command that was applied last before: 1 is no more among the last two appends, 2 is.
    Since = 1_000_002,
    [
        ?assertEqual(First(Any(Ids)), First(with_repeat(Since, Any(Ids))))
     || Ids <- [[1], [2], [3], [1, 2], [2, 3], [1, 2, 3]]
    ],
    ?assertMatch({ok, {3, 3, 1}}, First(with_repeat(Since, Any([1])))),
    ?assertEqual({error, {seen, [{1, 1}]}}, First(with_repeat(Since, Any([2])))),
    %% It was done, and so much came since that nobody else would find it.
    {{ok, _}, _, Later} = applied(Since + 1, [Any([N]) || N <- [1, 4, 5]], Log),
    Repeat = fun(S, Ids) ->
        element(1, erl_esdb_log:apply(2_000_000, with_repeat(S, Any(Ids)), Later))
    end,
    ?assertEqual({error, {seen, [{3, 3}]}}, Repeat(Since, [1])),
    ?assertMatch({ok, _}, Repeat(Since + 1, [1])),
    %% One that came since, an older one that is found, and one that is not.
    ?assertEqual({error, {seen, [{3, 3}, {4, 4}]}}, Repeat(Since, [1, 2, 4])).

%% The sender names what was applied before it sent the command first. What was removed since may
%% have been what it brought.
a_repeat_is_refused_where_nobody_knows(_Config) ->
    Append = fun(Index, Expected, Log) ->
        erl_esdb_log:apply(Index, with_ids(<<"s">>, Expected, [17]), Log)
    end,
    Repeat = fun(Index, Since, Expected, Log) ->
        Command = with_repeat(Since, with_ids(<<"s">>, Expected, [17])),
        element(1, erl_esdb_log:apply(Index, Command, Log))
    end,
    [
        begin
            {{ok, _}, _, Log1} = Append(1, Expected, erl_esdb_log:new()),
            {_, [_ | _], Log2} = erl_esdb_log:apply(2, Removal, Log1),
            ?assertEqual({error, forgotten}, Repeat(3, 0, Expected, Log2)),
            ?assertEqual({error, forgotten}, Repeat(3, 1, Expected, Log2)),
            ?assertNotEqual({error, forgotten}, Repeat(3, 2, Expected, Log2)),
            %% From another stream, or where there was nothing.
            {_, _, Log3} = applied([{delete, <<"t">>}, {truncate, <<"s">>, 0}], Log1),
            ?assertNotEqual({error, forgotten}, Repeat(1_000_009, 0, Expected, Log3))
        end
     || Removal <- [{delete, <<"s">>}, {tombstone, <<"s">>}, {truncate, <<"s">>, 1}],
        Expected <- [-2, -1]
    ],
    %% The ids are not remembered any more; who names a version needs none.
    Others = [with_ids(<<"t">>, -2, [N]) || N <- [1, 2]],
    Few = erl_esdb_log:new(#{idempotence_window => 2}),
    {{ok, _}, _, First} = Append(999_999, -2, Few),
    {{ok, _}, _, Log4} = applied(Others, First),
    ?assertEqual({error, forgotten}, Repeat(1_000_009, 999_998, -2, Log4)),
    ?assertMatch({ok, _}, Repeat(1_000_009, 999_999, -2, Log4)),
    ?assertEqual(
        {error, {wrong_expected_version, -1, 0}}, Repeat(1_000_009, 999_998, -1, Log4)
    ).

%% It never says no where it is yes, and after many removals it still says no.
removals_against_a_model(_Config) ->
    Name = fun(N) -> integer_to_binary(N rem 7_001) end,
    Count = 25_000,
    Removals = lists:foldl(
        fun(N, Sum) -> erl_esdb_removals:add(N, Name(N), Sum) end,
        erl_esdb_removals:new(),
        lists:seq(1, Count)
    ),
    Is = fun(Since, N) -> erl_esdb_removals:is_since(Since, Name(N), Removals) end,
    [?assert(Is(N - 1, N)) || N <- lists:seq(1, Count, 97)],
    [?assertNot(Is(N, N)) || N <- lists:seq(Count - 4_000, Count, 97), N + 7_001 > Count],
    ?assert(erts_debug:flat_size(Removals) < 100).

%% First in, first out; a hash that comes again counts from the last time on.
ids_against_a_model(_Config) ->
    Property = ?FORALL(
        {Max, Adds},
        {range(0, 20), list({range(1, 3), resize(4, list(range(0, 9)))})},
        begin
            Numbered = lists:enumerate(0, Adds),
            Table = ets:new(?FUNCTION_NAME, [set]),
            Add = fun
                ({_, {_, []}}, Seen) -> Seen;
                ({V, {No, Hashes}}, Seen) -> see(No, V, lists:usort(Hashes), Seen, Table)
            end,
            Seen = lists:foldl(Add, erl_esdb_seen:new(Max), Numbered),
            Kept = latest(lists:reverse(Numbered), Max),
            Found = lists:all(
                fun({No, Hash}) ->
                    Last = [V || {V, {N, Hs}} <- Kept, N =:= No, lists:member(Hash, Hs)],
                    [Key] = erl_esdb_seen:keys(No, [Hash]),
                    [V || {_, V} <- ets:lookup(Table, Key)] =:= lists:sublist(Last, 1)
                end,
                [{No, Hash} || No <- [1, 2, 3], Hash <- lists:seq(0, 9)]
            ),
            %% A table that is filled anew is the same.
            Again = maps:from_list(erl_esdb_seen:entries(Seen)),
            Found andalso Again =:= maps:from_list(ets:tab2list(Table))
        end
    ),
    erl_esdb_test:property(500, Property).

%% The newest first, as long as there is room.
latest([{_, {_, Hashes}} = Add | Adds], Room) ->
    case Room - length(lists:usort(Hashes)) of
        Left when Left < 0 -> [];
        Left -> [Add | latest(Adds, Left)]
    end;
latest([], _) ->
    [].

conditions_are_checked(_Config) ->
    Append = fun(Facts, More) ->
        Summary = (summary(1))#{facts => erl_esdb_recent:facts(Facts)},
        {append, <<"s">>, -2, <<>>, maps:merge(Summary, More)}
    end,
    {{ok, _}, _, Log} = applied([Append([1, 2], #{}), Append([3], #{})], erl_esdb_log:new()),
    Ask = fun(Condition) ->
        element(1, applied([Append([9], #{condition => Condition})], Log))
    end,
    Stale = {error, stale},
    ?assertEqual({error, {condition_failed, 5}}, Ask({failed, 5})),
    ?assertMatch({ok, {2, 2, 1}}, Ask({evaluated, 1, []})),
    ?assertEqual(Stale, Ask({evaluated, 0, []})),
    ?assertEqual(Stale, Ask({evaluated, 0, [{[4, 3], []}]})),
    ?assertMatch({ok, _}, Ask({evaluated, 0, [{[4], []}, {any, [3, 4]}]})),
    ?assertEqual(Stale, Ask({evaluated, -1, [{[1], [2]}]})),
    ?assertMatch({ok, _}, Ask({evaluated, -1, [{[1], [3]}]})),
    %% The expectation is asked first, and a condition of many parts holds for all of them.
    {append, S, _, P, Summary} = Append([9], #{condition => {failed, 5}}),
    ?assertMatch(
        {{error, {wrong_expected_version, 0, 1}}, [], Log},
        applied([{append, S, 0, P, Summary}], Log)
    ),
    Many = {append_many, [{S, -2, P, summary(1)}], #{condition => {evaluated, 0, [{[3], []}]}}},
    ?assertMatch({{error, stale}, [], Log}, applied([Many], Log)).

%% What may match and does not is allowed, the other way round is not; and what lies within the
%% window and has no such hash is known not to match.
recent_appends_against_a_model(_Config) ->
    Property = ?FORALL(
        {Max, Adds, Some, Query},
        {
            range(0, 700),
            resize(900, list({range(1, 3), resize(3, list(range(1, 6)))})),
            range(0, 2500),
            resize(2, list({oneof([any, [range(1, 6)]]), resize(2, list(range(1, 6)))}))
        },
        begin
            Add = fun({Count, Facts}, Sum) ->
                erl_esdb_recent:add(Count, erl_esdb_recent:facts(Facts), Sum)
            end,
            Recent = lists:foldl(Add, erl_esdb_recent:new(Max), Adds),
            {Placed, End} = lists:mapfoldl(
                fun({Count, Facts}, P) -> {{P + Count - 1, Facts}, P + Count} end, 0, Adds
            ),
            After = Some rem (End + 2) - 1,
            Later = [Facts || {Last, Facts} <- Placed, Last > After],
            Matches = lists:any(fun(Facts) -> has(Query, Facts) end, Later),
            May = erl_esdb_recent:may_match(After, Query, Recent),
            case length(Later) =< Max of
                true -> May =:= Matches;
                false -> May orelse not Matches
            end
        end
    ),
    erl_esdb_test:property(500, Property).

has([], _Facts) ->
    true;
has(Query, Facts) ->
    lists:any(
        fun({Types, Tags}) ->
            (Types =:= any orelse Types -- Facts =/= Types) andalso
                lists:usort(Tags) -- Facts =:= []
        end,
        Query
    ).

%% The engine's process crashes on anything that is let through and has no clause.
commands_are_told_from_others(_Config) ->
    Summary = summary(1),
    Part = {<<"s">>, -2, <<>>, Summary},
    Good = [
        {append, <<"s">>, -2, <<>>, Summary#{ids => [1], known => [0], facts => <<1:32>>}},
        {append, <<"s">>, -2, <<>>, Summary#{tip => {none, <<0:256>>}}},
        {append, <<"s">>, -2, <<>>, Summary#{condition => {evaluated, -1, [{any, [1]}]}}},
        {append, <<"s">>, -2, <<>>, Summary#{condition => {evaluated, 7, [{[1], []}]}}},
        {append_many, [Part, setelement(1, Part, <<"t">>)], #{condition => {failed, 1}}},
        {tombstone, <<"s">>},
        {set_metadata, <<"s">>, #{max_age => 1, max_count => 1, truncate_before => 0}},
        sweep
    ],
    Bad = [
        {append, <<"s">>, -2, <<>>, Summary#{ids => [a]}},
        {append, <<"s">>, -2, <<>>, Summary#{ids => [1 | 2]}},
        {append, <<"s">>, -2, <<>>, Summary#{known => none}},
        {append, <<"s">>, -2, <<>>, Summary#{facts => <<1:31>>}},
        {append, <<"s">>, -2, <<>>, Summary#{facts => <<1:24>>}},
        {append, <<"s">>, -2, <<>>, Summary#{tip => {none, none}}},
        {append, <<"s">>, -2, <<>>, Summary#{tip => {<<1>>, <<0:256>>}}},
        {append, <<"s">>, -2, <<>>, Summary#{condition => {evaluated, -1, [any]}}},
        {append, <<"s">>, -2, <<>>, Summary#{condition => always}},
        {append_many, [], #{}},
        {append_many, [Part, Part], #{}},
        {append_many, [Part | Part], #{}},
        {append_many, [Part], []},
        {tombstone, s},
        {set_metadata, <<"s">>, #{max_count => 0}},
        {set_metadata, <<"s">>, #{unheard_of => 1}},
        {set_metadata, <<"s">>, []},
        nonsense
    ],
    Unpacked = fun(Term) -> erl_esdb_ra_command:unpack(Term) end,
    BadPart = {<<"s">>, -2, <<>>, {1, 5, [a], any}},
    BadPacked = [
        BadPart,
        {<<"s">>, -2, <<>>, {1, 5, [1], any, []}},
        {<<"s">>, -2, <<>>, {1, 5, [1], any, #{repeat => -1}}},
        {<<"s">>, -2, <<>>, {1, 5}},
        {<<"s">>, -2, <<>>, none},
        {append_many, [BadPart], #{}},
        {append_many, [{1, 5, [], any}], #{}},
        {append_many, [{}], #{}},
        {append_many, [one | two], #{}}
    ],
    ?assertEqual([], [Term || Term <- Good, not erl_esdb_log:is_command(Term)]),
    ?assertEqual([], [Term || Term <- Bad, erl_esdb_log:is_command(Unpacked(Term))]),
    ?assertEqual([], [Term || Term <- BadPacked, erl_esdb_log:is_command(Unpacked(Term))]),
    Packed = [erl_esdb_ra_command:pack(Term) || Term <- Good],
    ?assertEqual(lists:map(fun said/1, Good), lists:map(Unpacked, Packed)).

%% With what it means where it says nothing.
said({append, S, E, P, Summary}) -> {append, S, E, P, said(Summary)};
said({append_many, Parts, Common}) ->
    {append_many, [{S, E, P, said(Summary)} || {S, E, P, Summary} <- Parts], Common};
said(#{} = Summary) -> maps:merge(#{ids => [], facts => any}, Summary);
said(Other) -> Other.
