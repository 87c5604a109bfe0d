-module(bench_file).
-moduledoc """
Many ranges of a file in one call against `file:pread/2` with a list.

The file is in the memory of the operating system, except in the rows that say `cold`: these are of
one call, the middle one of five, before each of which the system was made to forget the file.
""".

-export([run/0]).

-define(LENGTH, 450).
-define(COUNT, 1000).

-doc "Measures all rows.".
-spec run() -> ok.
run() ->
    esdb_bench:title("Ranges of a file (1,000 of 450 bytes)"),
    esdb_durable:in_folder(fun(Dir) ->
        Name = filename:join(Dir, "ranges"),
        ok = written(Name, 450_000 * ?COUNT),
        {ok, Ours} = esdb_file_nif:open(Name),
        {ok, Theirs} = file:open(Name, [read, raw, binary]),
        Apart = [{"2.5 kB", 2500}, {"32 kB", 32_768}, {"450 kB", 450_000}],
        lists:foreach(fun(Row) -> rows(Row, Ours, Theirs) end, Apart),
        ok = esdb_file_nif:close(Ours),
        file:close(Theirs)
    end).

%% Parts that differ, a megabyte at a time.
-spec written(file:filename(), pos_integer()) -> ok.
written(Name, Size) ->
    Part = rand:bytes(1_000_000),
    {ok, File} = file:open(Name, [write, raw]),
    lists:foreach(fun(_) -> ok = file:write(File, Part) end, lists:seq(1, Size div 1_000_000 + 1)),
    ok = file:sync(File),
    file:close(File).

-spec rows({string(), pos_integer()}, esdb_file_nif:file(), file:fd()) -> ok.
rows({What, Gap}, Ours, Theirs) ->
    Ranges = [{N * Gap, ?LENGTH} || N <- lists:seq(0, ?COUNT - 1)],
    Ours1 = fun() -> esdb_file_nif:read(Ours, Ranges) end,
    Theirs1 = fun() -> file:pread(Theirs, Ranges) end,
    true = Ours1() =:= Theirs1(),
    Forget = fun() -> file:advise(Theirs, 0, 0, dont_need) end,
    lists:foreach(
        fun({When, Before}) ->
            [Nif, Otp] = [middle(Call, Before) || Call <- [Ours1, Theirs1]],
            _ = esdb_bench:measured(
                What ++ " apart" ++ When, {"read/2", Nif}, {"file:pread/2", Otp}, none
            )
        end,
        [{"", fun() -> ok end}, {", cold", Forget}]
    ).

%% Nanoseconds of a range, of five calls the one in the middle. Files are for one process only, so
%% the rounds of other benchmarks are not for them.
-spec middle(fun(() -> {ok, [binary()]}), fun(() -> ok)) -> float().
middle(Call, Before) -> lists:nth(3, lists:sort([once(Call, Before) || _ <- lists:seq(1, 5)])).

-spec once(fun(() -> {ok, [binary()]}), fun(() -> ok)) -> float().
once(Call, Before) ->
    ok = Before(),
    {Ns, {ok, [_ | _]}} = timer:tc(Call, nanosecond),
    Ns / ?COUNT.
