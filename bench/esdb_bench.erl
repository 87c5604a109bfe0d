-module(esdb_bench).
-moduledoc """
Measures one function against a named alternative in the same run.

The two are called in turn, in rounds, so that whatever else the machine does meets both; each round
gives one time a call, and the medians are compared. Both must answer the same (or what `same` says)
before anything is timed. The result is a ratio: how many times faster ours is.

```erlang
esdb_bench:compare("XXH3, 1 KiB", #{
    ours => {"xxhash3", fun() -> esdb_hash_nif:xxhash3(Data) end},
    rival => {"erlang:phash2", fun() -> erlang:phash2(Data) end},
    same => fun(_, _) -> true end,
    goal => 6.0
}).
```
""".

-export([main/2, title/1, compare/2, measured/4, note/2]).
-export_type([row/0]).

-type row() :: #{
    ours := {Name :: string(), fun(() -> term())},
    rival := {Name :: string(), fun(() -> term())},
    %% Judges the two results; default: they are equal.
    same => fun((Ours :: term(), Rival :: term()) -> boolean()),
    %% The ratio asked for; shown, never a reason to fail.
    goal => float()
}.

-define(ROUNDS, 15).
-define(ROUND_NS, 20_000_000).

-doc """
Runs `run/0` of each module named (all `bench_*` when none is), and prints the report.

With a file it is written there as well, as Markdown: the record, from which the tables of
`doc/guides/performance.md` are taken.
""".
-spec main(none | file:filename(), [string()]) -> ok.
main(File, Names) ->
    put(rows, []),
    lists:foreach(fun(Module) -> Module:run() end, modules(Names)),
    io:put_chars(["\n", report(), "\n"]),
    record(File).

-spec record(none | file:filename()) -> ok.
record(none) -> ok;
record(File) -> ok = file:write_file(File, unicode:characters_to_binary(markdown())).

%% A heading for each group, its rows as a table, its remarks below.
-spec markdown() -> iodata().
markdown() ->
    Groups = groups(lists:reverse(get(rows)), []),
    ["# ", report(), "\n", [group(Group) || Group <- Groups]].

-spec groups([tuple()], [[tuple()]]) -> [[tuple()]].
groups([], Groups) ->
    lists:reverse(Groups);
groups([Title | Rows], Groups) ->
    {Own, Rest} = lists:splitwith(fun(Row) -> element(1, Row) =/= title end, Rows),
    groups(Rest, [[Title | Own] | Groups]).

-spec group([tuple()]) -> iodata().
group([{title, Title} | Rows]) ->
    Notes = [["\n", Text, "\n"] || {note, Text} <- Rows],
    Table = [line(Row) || {row, _, _, _, _, _, _, _} = Row <- Rows],
    Head = "| | ours | rival | ratio | goal |\n|---|---|---|---|---|\n",
    ["\n## ", Title, "\n\n", Head, Table, Notes].

-spec line(tuple()) -> iodata().
line({row, What, OursName, OursNs, RivalName, RivalNs, Ratio, Goal}) ->
    io_lib:format("| ~ts | `~ts` ~ts | `~ts` ~ts | ~.2f | ~ts |\n", [
        What, OursName, time(OursNs), RivalName, time(RivalNs), Ratio, goal(Ratio, Goal)
    ]).

-spec modules([string()]) -> [module()].
modules([]) ->
    Folder = filename:dirname(code:which(?MODULE)),
    Files = lists:sort(filelib:wildcard("bench_*.beam", Folder)),
    [list_to_atom(filename:rootname(File)) || File <- Files];
modules(Names) ->
    [list_to_atom("bench_" ++ Name) || Name <- Names].

-doc "Begins a group of rows.".
-spec title(string()) -> ok.
title(Text) ->
    add({title, Text}).

-doc "A remark below the rows so far: what has no rival, an honest loss explained.".
-spec note(string(), [term()]) -> ok.
note(Format, Arguments) ->
    add({note, lists:flatten(io_lib:format(Format, Arguments))}).

-doc "Measures one row.".
-spec compare(string(), row()) -> Ratio :: float().
compare(What, #{ours := {OursName, Ours}, rival := {RivalName, Rival}} = Row) ->
    Same = maps:get(same, Row, fun(A, B) -> A =:= B end),
    Same(Ours(), Rival()) orelse error({results_differ, What}),
    {OursNs, RivalNs} = measure(Ours, Rival),
    Ratio = RivalNs / OursNs,
    add({row, What, OursName, OursNs, RivalName, RivalNs, Ratio, maps:get(goal, Row, none)}),
    Ratio.

-doc """
A row of what was measured elsewhere, in nanoseconds: what waits for a disk, with others at once, is
not measured call by call.
""".
-spec measured(string(), {string(), float()}, {string(), float()}, none | float()) ->
    Ratio :: float().
measured(What, {OursName, OursNs}, {RivalName, RivalNs}, Goal) ->
    Ratio = RivalNs / OursNs,
    add({row, What, OursName, OursNs, RivalName, RivalNs, Ratio, Goal}),
    Ratio.

-spec measure(fun(() -> term()), fun(() -> term())) -> {float(), float()}.
measure(Ours, Rival) ->
    OursCalls = calls_a_round(Ours),
    RivalCalls = calls_a_round(Rival),
    Rounds = [
        {round_ns(Ours, OursCalls), round_ns(Rival, RivalCalls)}
     || _ <- lists:seq(1, ?ROUNDS)
    ],
    {OursNs, RivalNs} = lists:unzip(Rounds),
    {median(OursNs), median(RivalNs)}.

%% As many calls as take about one round; the first calls also warm the caches.
-spec calls_a_round(fun(() -> term())) -> pos_integer().
calls_a_round(Fun) ->
    calls_a_round(Fun, 1).

-spec calls_a_round(fun(() -> term()), pos_integer()) -> pos_integer().
calls_a_round(Fun, Calls) ->
    case Calls * round_ns(Fun, Calls) of
        Total when Total >= ?ROUND_NS / 4 -> max(1, round(Calls * ?ROUND_NS / Total));
        _ -> calls_a_round(Fun, Calls * 4)
    end.

%% A process of its own for each round: no row pays for the garbage of the row before.
-spec round_ns(fun(() -> term()), pos_integer()) -> float().
round_ns(Fun, Calls) ->
    {Pid, Monitor} = spawn_monitor(fun() ->
        Start = erlang:monotonic_time(nanosecond),
        repeat(Fun, Calls),
        exit({ns, max(1, erlang:monotonic_time(nanosecond) - Start) / Calls})
    end),
    receive
        {'DOWN', Monitor, process, Pid, {ns, Ns}} -> Ns;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    end.

-spec repeat(fun(() -> term()), non_neg_integer()) -> ok.
repeat(_Fun, 0) ->
    ok;
repeat(Fun, Calls) ->
    _ = Fun(),
    repeat(Fun, Calls - 1).

-spec median([float()]) -> float().
median(Values) ->
    lists:nth((length(Values) + 1) div 2, lists:sort(Values)).

-spec add(tuple()) -> ok.
add(Row) ->
    io:put_chars(render(Row)),
    Rows =
        case get(rows) of
            undefined -> [];
            Known -> Known
        end,
    put(rows, [Row | Rows]),
    ok.

-doc "What machine and which versions the rows belong to, and how many goals were met.".
-spec report() -> iolist().
report() ->
    Goals = [Ratio >= Goal || {row, _, _, _, _, _, Ratio, Goal} <- get(rows), Goal =/= none],
    io_lib:format("~b of ~b goals met; OTP ~s, ~s, ~s, ~s", [
        length([met || true <- Goals]),
        length(Goals),
        erlang:system_info(otp_release),
        erlang:system_info(system_architecture),
        cpu(),
        calendar:system_time_to_rfc3339(erlang:system_time(second), [{offset, "Z"}])
    ]).

-spec render(tuple()) -> iodata().
render({title, Text}) ->
    Head = io_lib:format("~-40s ~-24s ~-28s ~8s ~8s", ["", "ours", "rival", "ratio", "goal"]),
    io_lib:format("~n~ts~n~ts~n", [Text, Head]);
render({note, Text}) ->
    io_lib:format("  ~ts~n", [Text]);
render({row, What, OursName, OursNs, RivalName, RivalNs, Ratio, Goal}) ->
    io_lib:format("~-40ts ~-24ts ~-28ts ~7.2fx ~8s~n", [
        What,
        [OursName, $\s, time(OursNs)],
        [RivalName, $\s, time(RivalNs)],
        Ratio,
        goal(Ratio, Goal)
    ]).

-spec goal(float(), none | float()) -> string().
goal(_Ratio, none) -> "";
goal(Ratio, Goal) when Ratio >= Goal -> lists:flatten(io_lib:format("~.2fx", [Goal]));
goal(_Ratio, Goal) -> lists:flatten(io_lib:format("~.2fx !", [Goal])).

-spec time(float()) -> iolist().
time(Ns) when Ns < 1000 -> io_lib:format("~b ns", [round(Ns)]);
time(Ns) when Ns < 1.0e6 -> io_lib:format("~.2f us", [Ns / 1000]);
time(Ns) -> io_lib:format("~.2f ms", [Ns / 1.0e6]).

-spec cpu() -> string().
cpu() ->
    case file:read_file("/proc/cpuinfo") of
        {ok, Text} ->
            case re:run(Text, "model name\\s*: (.*)", [{capture, all_but_first, list}]) of
                {match, [Name]} -> Name;
                nomatch -> "unknown CPU"
            end;
        {error, _} ->
            "unknown CPU"
    end.
