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
        rows_are_small,
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
        many_appends_stay_small
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
        {<<"s">>, First}
    end,
    Fetch = fun(Number) -> error({no_chunk, Number}) end,
    Read = fun(From, Direction) ->
        ok = counters:put(Cuts, 1, 0),
        Spans = erl_esdb_log:log_rows(Order, From, infinity, Direction, Owner, Fetch),
        [Version || {<<"s">>, {_, Version, Version}} <- Spans]
    end,
    ?assertEqual(lists:seq(0, 9), Read(0, forward)),
    ?assertEqual(lists:seq(9, 0, -1), Read(last, backward)).

%% ---- sequences

row() ->
    ?LET(
        {Gap, Count, Stream, Version, Position, Epoch},
        {
            frequency([{5, 0}, {1, nat()}, {1, range(0, 1 bsl 40)}]),
            frequency([{5, range(1, 3)}, {1, range(1, 100_000)}]),
            range(0, 1 bsl 34),
            range(0, 100),
            range(0, 100),
            frequency([{5, range(0, 10_000)}, {1, integer()}, {1, range(-(1 bsl 60), 1 bsl 60)}])
        },
        {Gap, Count, Stream, Version, Position, Epoch}
    ).

%% Rows whose index, version and position rise, as they do in a store.
rising(Steps) ->
    {Rows, _} = lists:mapfoldl(fun next_row/2, #row{}, Steps),
    Rows.

next_row({Gap, Count, Stream, Skip1, Skip2, Epoch}, #row{} = Last) ->
    Row = #row{
        index = Last#row.index + 1 + Gap,
        count = Count,
        stream = Stream,
        version = Last#row.version + Last#row.count + Skip1,
        position = Last#row.position + Last#row.count + Skip2,
        epoch_us = Last#row.epoch_us + Epoch
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
    Rows = rising([{0, 1, 0, 0, 0, 1000} || _ <- lists:seq(1, 1280)]),
    {_, Chunks} = build(Rows),
    ?assert(byte_size(maps:get(5, Chunks)) =< 128 * 3 + 20).

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
        {2, {truncate, stream(), nat()}},
        {1, {delete, stream()}},
        {1, sweep},
        {1, {put_document, {doc, range(1, 3)}, <<"document">>}},
        {1, {delete_document, {doc, range(1, 3)}}},
        {1, {checkpoint, checkpoints()}}
    ]).

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

%% The model: streams as lists of {Version, Position}, kept and counted separately.
model(Commands) ->
    {Streams, _, Replies} = lists:foldl(fun model_step/2, {#{}, 0, []}, Commands),
    {Streams, lists:reverse(Replies)}.

model_step({append, S, E, _, #{count := N}}, {Streams, Position, Replies}) ->
    {Next, Kept} = maps:get(S, Streams, {0, []}),
    case E =:= -2 orelse E =:= Next - 1 orelse (E =:= -4 andalso Next > 0) of
        false ->
            {Streams, Position, [{error, {wrong_expected_version, E, Next - 1}} | Replies]};
        true when N =:= 0 ->
            {Streams, Position, [{ok, {Next - 1, undefined, 0}} | Replies]};
        true ->
            New = [{Next + I, Position + I} || I <- lists:seq(0, N - 1)],
            Reply = {ok, {Next + N - 1, Position + N - 1, N}},
            {Streams#{S => {Next + N, Kept ++ New}}, Position + N, [Reply | Replies]}
    end;
model_step({truncate, S, Before}, {Streams, Position, Replies}) ->
    case Streams of
        #{S := {Next, Kept}} ->
            Left = [Event || {V, _} = Event <- Kept, V >= Before],
            From = Next - length(Kept),
            Reply = {ok, {From, max(From, min(Before, Next))}},
            {Streams#{S => {Next, Left}}, Position, [Reply | Replies]};
        #{} ->
            {Streams, Position, [{error, stream_not_found} | Replies]}
    end;
model_step({delete, S}, {Streams, Position, Replies}) ->
    {maps:remove(S, Streams), Position, [ok | Replies]};
model_step(sweep, {Streams, Position, Replies}) ->
    {Streams, Position, [ok | Replies]};
model_step({put_document, _, _}, {Streams, Position, Replies}) ->
    {Streams, Position, [document | Replies]};
model_step({delete_document, _}, {Streams, Position, Replies}) ->
    {Streams, Position, [ok | Replies]};
model_step({checkpoint, _}, {Streams, Position, Replies}) ->
    {Streams, Position, [ok | Replies]}.

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
effect({live, Indexes}, M) -> maps:merge(M, #{{live, I} => true || I <- Indexes});
effect({order, Order}, M) -> M#{order => Order};
effect({dead, Indexes}, M) -> maps:without([{live, I} || I <- Indexes], M);
effect({checkpoint, Saved, Gone}, M) ->
    M1 = maps:without([{checkpoint, Key} || Key <- Gone], M),
    maps:merge(M1, #{{checkpoint, Key} => Value || Key := Value <- Saved});
effect(_, M) -> M.

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
                lists:sort(Live -- Dead) =:= lists:sort(Kept ++ Documents)
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
        erl_esdb_log:no(Head) => {S, erl_esdb_log:first(Head)}
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
        {<<"s">>, First}
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

%% Words of the heap, and what lies outside of it, which erts_debug:size/1 does not count.
size_of(Term) -> erts_debug:flat_size(Term) * erlang:system_info(wordsize) + off_heap(Term).

off_heap(Bin) when is_binary(Bin), byte_size(Bin) > 64 -> byte_size(Bin);
off_heap(Tuple) when is_tuple(Tuple) -> off_heap(tuple_to_list(Tuple));
off_heap(Map) when is_map(Map) -> off_heap(maps:to_list(Map));
off_heap([Head | Tail]) -> off_heap(Head) + off_heap(Tail);
off_heap(_) -> 0.
