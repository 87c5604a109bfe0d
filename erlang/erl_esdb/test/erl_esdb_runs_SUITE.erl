-module(erl_esdb_runs_SUITE).
-moduledoc "Sorted runs and positions of several keys, against lists.".

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("proper/include/proper.hrl").

all() ->
    [
        any_growth_against_a_model,
        cursors_seek,
        any_and_all_against_sets,
        any_and_all_in_depth_against_sets,
        what_takes_long_is_left_and_taken_up_again,
        an_entry_takes_fourteen_bytes,
        hashes_are_found_in_large_runs,
        a_look_at_a_large_run_costs_what_one_at_a_small_run_costs,
        there_are_few_runs,
        a_large_merge_is_left_to_others,
        what_is_added_during_a_merge_stays,
        what_is_denied_is_dropped,
        runs_come_back_from_a_file,
        what_is_no_such_file_is_refused,
        files_of_merged_runs,
        files_that_are_missing_or_damaged
    ].

%% ---- a model: the list of entries, in the order of positions

%% The hashes that occur, at each of some positions that follow each other.
batch() -> list(list(frequency([{5, range(0, 4)}, {1, range(0, 16#FFFFFFFFFFFFFF)}]))).

step() ->
    frequency([{6, {add, batch()}}, {1, {drop, range(2, 5)}}, {1, lock}, {1, merge}]).

added(Entries, Next, Runs) ->
    erl_esdb_runs:add([erl_esdb_runs:entry(H, P) || {H, P} <- Entries], Next, Runs).

model(Steps) -> lists:foldl(fun step/2, {erl_esdb_runs:new(), [], none}, Steps).

step({add, Batch}, {Runs, Entries, Group}) ->
    At = erl_esdb_runs:next_position(Runs),
    New = [
        {Hash, Position}
     || {Position, Hashes} <- lists:enumerate(At, Batch), Hash <- lists:usort(Hashes)
    ],
    {added(New, At + length(Batch), Runs), Entries ++ New, Group};
step(lock, {Runs, Entries, none}) ->
    case erl_esdb_runs:all(Runs) of
        {merge, Group, Runs1} -> {Runs1, Entries, Group};
        none -> {Runs, Entries, none}
    end;
step(merge, {Runs, Entries, none}) ->
    case erl_esdb_runs:due(Runs) of
        {merge, Group, Runs1} -> step(merge, {Runs1, Entries, Group});
        none -> {Runs, Entries, none}
    end;
step(merge, {Runs, Entries, Group}) ->
    {erl_esdb_runs:replace(erl_esdb_runs:merge(Group), Runs), Entries, none};
%% All entries whose positions the number divides, of what is merged.
step({drop, Number}, {Runs, Entries, [_ | _] = Group}) ->
    {From, Before} = erl_esdb_runs:stretch(Group),
    Keep = fun(Position) -> Position rem Number =/= 0 end,
    Merged = erl_esdb_runs:merge([erl_esdb_runs:filter(Keep, Run) || Run <- Group]),
    Kept = [E || {_, P} = E <- Entries, P < From orelse P >= Before orelse Keep(P)],
    {erl_esdb_runs:replace(Merged, Runs), Kept, none};
step(_, Model) ->
    Model.

found(Hash, From, forward, Entries) -> [P || {H, P} <- Entries, H =:= Hash, P >= From];
found(Hash, last, backward, Entries) -> found(Hash, 1 bsl 55, backward, Entries);
found(Hash, From, backward, Entries) ->
    lists:reverse([P || {H, P} <- Entries, H =:= Hash, P =< From]).

drain(Cursor) ->
    case erl_esdb_runs:next(Cursor) of
        {Position, Cursor1} -> [Position | drain(Cursor1)];
        none -> []
    end.

questions(Runs, Entries) ->
    Next = erl_esdb_runs:next_position(Runs),
    Hashes = lists:usort([0, 5, 16#FFFFFFFFFFFFFF] ++ [H || {H, _} <- Entries]),
    Froms = lists:usort([0, Next div 3, Next div 2, max(0, Next - 1), Next, Next + 1]),
    [{H, F, D} || H <- Hashes, D <- [forward, backward], F <- [last || D =:= backward] ++ Froms].

any_growth_against_a_model(_Config) ->
    Property = ?FORALL(
        Steps,
        resize(40, list(step())),
        begin
            {Runs, Entries, _} = model(Steps),
            Wrong = [
                Question
             || {Hash, From, Direction} = Question <- questions(Runs, Entries),
                drain(erl_esdb_runs:cursor(Hash, From, Direction, Runs)) =/=
                    found(Hash, From, Direction, Entries)
            ],
            ?WHENFAIL(
                io:format("~p~n", [Wrong]),
                Wrong =:= [] andalso erl_esdb_runs:size(Runs) =:= length(Entries)
            )
        end
    ),
    erl_esdb_test:property(300, Property).

cursors_seek(_Config) ->
    Property = ?FORALL(
        {Steps, Hash, Direction, Taken, Share},
        {resize(40, list(step())), range(0, 4), direction(), range(0, 20), range(0, 100)},
        begin
            {Runs, Entries, _} = model(Steps),
            To = erl_esdb_runs:next_position(Runs) * Share div 100,
            From = lists:nth(1, [0 || Direction =:= forward] ++ [last]),
            Cursor = taken(Taken, erl_esdb_runs:cursor(Hash, From, Direction, Runs)),
            Left = drain(Cursor),
            %% Seeking leads on, never back.
            Left =:= lists:nthtail(
                min(Taken, length(found(Hash, From, Direction, Entries))),
                found(Hash, From, Direction, Entries)
            ) andalso
                (Left =:= [] orelse not is_ahead(Direction, To, hd(Left)) orelse
                    drain(erl_esdb_runs:seek(To, Cursor)) =:=
                        [P || P <- Left, P =:= To orelse is_ahead(Direction, P, To)])
        end
    ),
    erl_esdb_test:property(300, Property).

direction() -> oneof([forward, backward]).

is_ahead(forward, Position, From) -> Position > From;
is_ahead(backward, Position, From) -> Position < From.

taken(0, Cursor) ->
    Cursor;
taken(Count, Cursor) ->
    case erl_esdb_runs:next(Cursor) of
        {_, Cursor1} -> taken(Count - 1, Cursor1);
        none -> Cursor
    end.

any_and_all_against_sets(_Config) ->
    Property = ?FORALL(
        {Steps, Hashes, Mode, Direction, Count},
        {resize(40, list(step())), list(range(0, 5)), oneof([any, all]), direction(), range(1, 9)},
        begin
            {Runs, Entries, _} = model(Steps),
            From = lists:nth(1, [0 || Direction =:= forward] ++ [last]),
            Keys = [key(H, From, Direction, Runs) || H <- Hashes],
            Positions = erl_esdb_index_positions:new(Mode, Direction, Keys),
            take_all(Count, Positions) =:= positions(Mode, Hashes, Direction, Entries)
        end
    ),
    erl_esdb_test:property(300, Property).

key(Hash, From, Direction, Runs) ->
    erl_esdb_index_positions:key(erl_esdb_runs:cursor(Hash, From, Direction, Runs)).

%% Any of some and all of others, in some depth.
where() -> ?SIZED(Size, where(min(3, Size))).

where(0) ->
    {key, range(0, 5)};
where(Depth) ->
    frequency([
        {1, where(0)},
        {2, {oneof([any, all]), ?LAZY(resize(4, list(where(Depth - 1))))}}
    ]).

any_and_all_in_depth_against_sets(_Config) ->
    Property = ?FORALL(
        {Steps, Where, Direction, Count},
        {resize(40, list(step())), resize(3, where()), direction(), range(1, 9)},
        begin
            {Runs, Entries, _} = model(Steps),
            From = lists:nth(1, [0 || Direction =:= forward] ++ [last]),
            Found = take_all(Count, nested(Where, From, Direction, Runs)),
            Found =:= directed(Direction, set(Where, Entries))
        end
    ),
    erl_esdb_test:property(1000, Property).

directed(forward, Set) -> Set;
directed(backward, Set) -> lists:reverse(Set).

nested({key, Hash}, From, Direction, Runs) ->
    key(Hash, From, Direction, Runs);
nested({Mode, Several}, From, Direction, Runs) ->
    Each = [nested(Where, From, Direction, Runs) || Where <- Several],
    erl_esdb_index_positions:new(Mode, Direction, Each).

set({key, Hash}, Entries) ->
    ordsets:from_list([P || {H, P} <- Entries, H =:= Hash]);
set({_, []}, _Entries) ->
    [];
set({any, Several}, Entries) ->
    ordsets:union([set(Where, Entries) || Where <- Several]);
set({all, Several}, Entries) ->
    ordsets:intersection([set(Where, Entries) || Where <- Several]).

%% Two keys that never agree: the caller gets a word now and then.
what_takes_long_is_left_and_taken_up_again(_Config) ->
    Count = 50_000,
    Entries = [{P rem 2, P} || P <- lists:seq(0, Count - 1)] ++ [{H, Count} || H <- [0, 1]],
    Runs = added(Entries, Count + 1, erl_esdb_runs:new()),
    Keys = [key(Hash, 0, forward, Runs) || Hash <- [0, 1]],
    Positions = erl_esdb_index_positions:new(all, forward, Keys),
    {[], Rest} = erl_esdb_index_positions:take(10, Positions),
    ?assertEqual([Count], patient(Rest)).

patient(done) ->
    [];
patient(Positions) ->
    {Taken, Rest} = erl_esdb_index_positions:take(10, Positions),
    Taken ++ patient(Rest).

take_all(Count, Positions) ->
    case erl_esdb_index_positions:take(Count, Positions) of
        {Taken, done} when length(Taken) =< Count -> Taken;
        {Taken, Rest} when length(Taken) =:= Count -> Taken ++ take_all(Count, Rest)
    end.

positions(_Mode, [], _Direction, _Entries) ->
    [];
positions(Mode, Hashes, Direction, Entries) ->
    Sets = [ordsets:from_list([P || {H, P} <- Entries, H =:= Hash]) || Hash <- Hashes],
    case {Mode, Direction} of
        {any, forward} -> ordsets:union(Sets);
        {any, backward} -> lists:reverse(ordsets:union(Sets));
        {all, forward} -> ordsets:intersection(Sets);
        {all, backward} -> lists:reverse(ordsets:intersection(Sets))
    end.

%% ---- sizes

random_entries(From, Count) ->
    [{rand:uniform(1 bsl 56) - 1, Position} || Position <- lists:seq(From, From + Count - 1)].

an_entry_takes_fourteen_bytes(_Config) ->
    Runs = added(random_entries(0, 1000), 1000, erl_esdb_runs:new()),
    %% And four for each place of the table, which has one for 64 to 128 entries.
    ?assertEqual({1000, 14_032}, {erl_esdb_runs:size(Runs), erl_esdb_runs:bytes(Runs)}),
    %% Neither is there room for more in the memory that a run takes; what is small has 256 bytes
    %% in OTP 27.
    {merge, [Run], _} = erl_esdb_runs:all(Runs),
    Fields = [Field || Field <- tuple_to_list(Run), is_binary(Field)],
    Sizes = [{byte_size(Field), binary:referenced_byte_size(Field)} || Field <- Fields],
    ?assertMatch([{14_000, 14_000}, {32, Small}] when Small =< 256, Sizes).

%% Large runs, in which hashes are looked for by way of a table: every one, also those that have
%% many entries, and those that there are not.
hashes_are_found_in_large_runs(_Config) ->
    Property = ?FORALL(
        {Count, Often, Distance},
        {range(100, 3000), list(hash()), oneof([1, 1 bsl 20, 1 bsl 44])},
        begin
            Some = random_entries(0, Count),
            Same = [{Hash, P} || P <- lists:seq(Count, Count + 99), Hash <- lists:usort(Often)],
            Entries = Some ++ Same,
            Runs = added(Entries, Count + 100, erl_esdb_runs:new()),
            Known = maps:groups_from_list(fun({H, _}) -> H end, fun({_, P}) -> P end, Entries),
            Near = [H || {Hash, _} <- Some, H <- [Hash - Distance, Hash + Distance], is_hash(H)],
            Asked = Near ++ [0, 16#FFFFFFFFFFFFFF | maps:keys(Known)],
            [] =:= [H || H <- Asked, drain(whole(H, Runs)) =/= maps:get(H, Known, [])]
        end
    ),
    erl_esdb_test:property(50, Property).

hash() -> oneof([0, 16#FFFFFFFFFFFFFF, range(0, 16#FFFFFFFFFFFFFF)]).

is_hash(Hash) -> Hash >= 0 andalso Hash < 1 bsl 56.

whole(Hash, Runs) -> erl_esdb_runs:cursor(Hash, 0, forward, Runs).

%% By the table a search begins near its end, however large the run is. In reductions.
a_look_at_a_large_run_costs_what_one_at_a_small_run_costs(_Config) ->
    Cost = fun(Count) ->
        Entries = random_entries(0, Count),
        Runs = added(Entries, Count, erl_esdb_runs:new()),
        Hashes = [Hash || {Hash, _} <- lists:sublist(Entries, 1000)],
        {reductions, Before} = process_info(self(), reductions),
        lists:foreach(fun(Hash) -> {_, _} = erl_esdb_runs:next(whole(Hash, Runs)) end, Hashes),
        {reductions, After} = process_info(self(), reductions),
        (After - Before) / length(Hashes)
    end,
    {Small, Large} = {Cost(1000), Cost(60_000)},
    ?assert(Large < 1.3 * Small, {Small, Large}).

there_are_few_runs(_Config) ->
    Add = fun(Position, Runs) ->
        Runs1 = added([{Position * 7919 rem 1000, Position}], Position + 1, Runs),
        ?assert(erl_esdb_runs:count(Runs1) =< 1 + math:log2(Position + 1)),
        Runs1
    end,
    lists:foldl(Add, erl_esdb_runs:new(), lists:seq(0, 3000)).

a_large_merge_is_left_to_others(_Config) ->
    Add = fun(Size, Runs) ->
        At = erl_esdb_runs:next_position(Runs),
        added(random_entries(At, Size), At + Size, Runs)
    end,
    %% The older one is not less than twice as large.
    Runs = lists:foldl(Add, erl_esdb_runs:new(), [50_000, 25_000]),
    ?assertEqual({2, none}, {erl_esdb_runs:count(Runs), erl_esdb_runs:due(Runs)}),
    Runs1 = Add(1, Runs),
    ?assertEqual({3, none}, {erl_esdb_runs:count(Runs1), erl_esdb_runs:due(Runs1)}),
    %% Those that can be are merged at once, what is too much is due.
    Runs2 = Add(20_000, Runs1),
    ?assertEqual(2, erl_esdb_runs:count(Runs2)),
    {merge, Group, Runs3} = erl_esdb_runs:due(Runs2),
    ?assertEqual({none, none}, {erl_esdb_runs:due(Runs3), erl_esdb_runs:all(Runs3)}),
    Runs4 = erl_esdb_runs:replace(erl_esdb_runs:merge(Group), Runs3),
    ?assertEqual({1, 95_001}, {erl_esdb_runs:count(Runs4), erl_esdb_runs:size(Runs4)}),
    ?assertEqual(none, erl_esdb_runs:due(Runs4)).

what_is_added_during_a_merge_stays(_Config) ->
    Runs = added([{1, 0}, {2, 0}], 1, erl_esdb_runs:new()),
    {merge, Group, Runs1} = erl_esdb_runs:all(Runs),
    Runs2 = added([{1, 1}], 2, Runs1),
    ?assertEqual([0, 1], drain(erl_esdb_runs:cursor(1, 0, forward, Runs2))),
    Runs3 = erl_esdb_runs:replace(erl_esdb_runs:merge(Group), Runs2),
    ?assertEqual([0, 1], drain(erl_esdb_runs:cursor(1, 0, forward, Runs3))),
    ?assertEqual({2, 3}, {erl_esdb_runs:next_position(Runs3), erl_esdb_runs:size(Runs3)}).

what_is_denied_is_dropped(_Config) ->
    Runs = added(random_entries(0, 100), 100, erl_esdb_runs:new()),
    {merge, [Run], Runs1} = erl_esdb_runs:all(Runs),
    ?assertEqual({0, 100}, erl_esdb_runs:stretch([Run])),
    Half = erl_esdb_runs:filter(fun(Position) -> Position >= 50 end, Run),
    ?assertEqual(50, erl_esdb_runs:size(erl_esdb_runs:replace(Half, Runs1))),
    ?assertEqual(lists:seq(50, 99), lists:sort(erl_esdb_runs:sample(1000, Half))),
    ?assert(length(erl_esdb_runs:sample(10, Half)) >= 10),
    None = erl_esdb_runs:filter(fun(_) -> false end, Run),
    Empty = erl_esdb_runs:replace(None, Runs1),
    ?assertEqual({0, 0}, {erl_esdb_runs:size(Empty), erl_esdb_runs:count(Empty)}),
    ?assertEqual(100, erl_esdb_runs:next_position(Empty)).

%% ---- files

runs_come_back_from_a_file(_Config) ->
    Property = ?FORALL(
        {Steps, Label},
        {resize(30, list(step())), byte()},
        begin
            {Runs, Entries, _} = model(Steps),
            File = iolist_to_binary(erl_esdb_runs:to_iodata(Label, Runs)),
            {ok, Label, Back} = erl_esdb_runs:from_binary(File),
            erl_esdb_runs:next_position(Back) =:= erl_esdb_runs:next_position(Runs) andalso
                erl_esdb_runs:count(Back) =:= erl_esdb_runs:count(Runs) andalso
                lists:all(
                    fun({Hash, From, Direction}) ->
                        drain(erl_esdb_runs:cursor(Hash, From, Direction, Back)) =:=
                            found(Hash, From, Direction, Entries)
                    end,
                    questions(Runs, Entries)
                )
        end
    ),
    erl_esdb_test:property(100, Property).

what_is_no_such_file_is_refused(_Config) ->
    Runs = added([{1, 0}, {2, 1}], 2, erl_esdb_runs:new()),
    File = iolist_to_binary(erl_esdb_runs:to_iodata(3, Runs)),
    ?assertMatch({ok, 3, _}, erl_esdb_runs:from_binary(File)),
    Flip = fun(At) ->
        <<Before:At/binary, Byte, After/binary>> = File,
        <<Before/binary, (Byte bxor 1), After/binary>>
    end,
    Bad =
        [Flip(At) || At <- lists:seq(0, byte_size(File) - 1)] ++
            [binary:part(File, 0, Size) || Size <- lists:seq(0, byte_size(File) - 1)] ++
            [<<File/binary, 0>>],
    [?assertEqual({error, corrupt}, erl_esdb_runs:from_binary(Bin)) || Bin <- Bad],
    %% Nor is one believed whose checksum is right.
    Entry = <<1:56, 0:56>>,
    Tables = [
        {1, 2, [{0, 2, 2}], Entry},
        {1, 2, [{0, 3, 1}], Entry},
        {1, 2, [{1, 1, 1}], Entry},
        {1, 2, [{0, 2, 0}], <<>>},
        {2, 2, [{0, 2, 1}], Entry},
        {2, 3, [{0, 2, 1}, {1, 3, 1}], <<Entry/binary, Entry/binary>>},
        {1, 2, [{0, 2, 1}], <<Entry/binary, 0>>}
    ],
    [?assertEqual({error, corrupt}, erl_esdb_runs:from_binary(file(T))) || T <- Tables],
    ?assertMatch({ok, 0, _}, erl_esdb_runs:from_binary(file({1, 2, [{0, 2, 1}], Entry}))).

%% A run that covers others takes their place.
files_of_merged_runs(Config) ->
    Dir = folder(Config, merged),
    Kinds = [type, tag],
    Load = fun() -> of_runs(erl_esdb_index_files:load(Dir, Kinds)) end,
    ?assertEqual({0, []}, Load()),
    [ok = erl_esdb_index_files:save(Dir, Kinds, a_run(From, From + 100)) || From <- [0, 100, 200]],
    ?assertEqual({300, lists:seq(0, 299)}, Load()),
    ok = erl_esdb_index_files:save(Dir, Kinds, a_run(0, 200)),
    ?assertEqual(["0-200.runs", "200-300.runs"], names(Dir)),
    ?assertEqual({300, lists:seq(0, 299)}, Load()),
    %% Those of other kinds are no use, and go when one is written anew.
    ?assertEqual({0, []}, of_runs(erl_esdb_index_files:load(Dir, [type]))),
    ok = erl_esdb_index_files:save(Dir, [type], a_run(0, 200)),
    ?assertEqual({0, []}, Load()),
    ?assertEqual({200, lists:seq(0, 199)}, of_runs(erl_esdb_index_files:load(Dir, [type]))).

%% What follows without a gap from the beginning is there; a damaged file is as good as none.
files_that_are_missing_or_damaged(Config) ->
    Dir = folder(Config, damaged),
    Kinds = [event_id],
    Load = fun() -> of_runs(erl_esdb_index_files:load(Dir, Kinds)) end,
    Parts = [{0, 10}, {10, 30}, {30, 40}],
    [ok = erl_esdb_index_files:save(Dir, Kinds, a_run(From, Before)) || {From, Before} <- Parts],
    ok = file:write_file(filename:join([Dir, "index", "0-40.runs.new"]), <<"cut off">>),
    ok = file:write_file(filename:join([Dir, "index", "notes"]), <<"no file of ours">>),
    ?assertEqual({40, lists:seq(0, 39)}, Load()),
    %% A longer one that is damaged leaves those it was made of, where they are still there.
    ok = file:write_file(filename:join([Dir, "index", "0-30.runs"]), <<"EI">>),
    ?assertEqual({40, lists:seq(0, 39)}, Load()),
    Second = filename:join([Dir, "index", "10-30.runs"]),
    {ok, Bytes} = file:read_file(Second),
    ok = erl_esdb_disk:flip(Second, byte_size(Bytes) div 2),
    ?assertEqual({10, lists:seq(0, 9)}, Load()),
    ok = file:delete(Second),
    ?assertEqual({10, lists:seq(0, 9)}, Load()),
    ok = file:delete(filename:join([Dir, "index", "0-10.runs"])),
    ?assertEqual({0, []}, Load()),
    %% Where nothing can be written nothing is kept, and nobody fails.
    ok = file:write_file(filename:join(Dir, "file"), <<>>),
    ?assertEqual(ok, erl_esdb_index_files:save(filename:join(Dir, "file"), Kinds, a_run(0, 10))).

folder(Config, Name) ->
    Folder = filename:join(proplists:get_value(priv_dir, Config), Name),
    ok = file:make_dir(Folder),
    Folder.

names(Dir) ->
    {ok, Names} = file:list_dir(filename:join(Dir, "index")),
    lists:sort(Names).

%% With an entry for each position, all of one hash.
a_run(From, Before) ->
    Entries = <<<<17:56, Position:56>> || Position <- lists:seq(From, Before - 1)>>,
    {ok, 0, Runs} =
        erl_esdb_runs:from_binary(file({1, Before, [{From, Before, Before - From}], Entries})),
    {merge, [Run], _} = erl_esdb_runs:all(Runs),
    Run.

of_runs(Runs) -> {erl_esdb_runs:next_position(Runs), drain(whole(17, Runs))}.

file({Count, Next, Table, Entries}) ->
    Places = <<<<F:64, B:64, S:64>> || {F, B, S} <- Table>>,
    Front = <<"EI", 1, 0, Count:32, Next:64, Places/binary, Entries/binary>>,
    <<Front/binary, (esdb_hash_nif:xxhash3(Front)):64>>.
