-module(esdb_demo).
-moduledoc """
The demonstration of erl_esdb: takes the history of a repository, or a file of events, into an event
store and reports about it, with the native libraries and without them side by side.

```sh
make demo
make demo REPO=../another
make demo EVENTS=file.ndjson.gz
make demo ENGINE=ra
```

With `ENGINE=ra` the stores are on disk; both are stopped and started again before they are read.

It reads these environment variables:

| variable | meaning |
|---|---|
| `REPO` | a git repository; without it, and without `EVENTS`, the folder that we are in |
| `EVENTS` | a file of newline-delimited JSON, plain or gzipped |
| `ENGINE` | `memory` (also without it) or `ra` |
| `DATA` | the folder of stores on disk; without it a new one, which is removed again |
| `OUT` | the folder for `causation.dot` and `.svg`; without it `demo` if there is one, else `.` |
| `ESDB_NIF` | `off`: only in Erlang |
| `NO_COLOR`, `COLUMNS`, `LANG` | as usual |

The exit status is 0, or 1 after one sentence on standard error.
""".

-export([main/0, main/1, run/1]).
-export_type([options/0]).

-type options() :: #{
    repo := file:filename(),
    events := file:filename(),
    %% "" where nobody asked for a folder.
    out := file:filename(),
    %% "", "memory" or "ra".
    engine => string(),
    data => file:filename(),
    style := esdb_demo_terminal:style()
}.

-define(STORE, demo).
%% Microseconds that one codec may take in one lane.
-define(BUDGET, 3_000_000).

-doc "Runs the demo as the environment says and ends the system, for `erl -run esdb_demo main`.".
-spec main() -> no_return().
main() ->
    main(fun run/1).

-doc "The same for another program that takes these options.".
-spec main(fun((options()) -> ok | {error, Sentence :: binary()})) -> no_return().
main(Run) ->
    ok = esdb_demo_terminal:prepare(),
    Options = #{
        repo => os:getenv("REPO", ""),
        events => os:getenv("EVENTS", ""),
        out => os:getenv("OUT", ""),
        engine => os:getenv("ENGINE", ""),
        data => os:getenv("DATA", ""),
        style => esdb_demo_terminal:style()
    },
    try with_data(Run, Options) of
        ok -> halt(0);
        {error, Sentence} -> refuse(Sentence)
    catch
        %% Nobody reads any more, as after `make demo | head`: nothing to say, and no failure.
        error:terminated -> halt(0);
        Class:Reason:Stack ->
            refuse(["a defect: ", erl_error:format_exception(Class, Reason, Stack)])
    end.

%% A folder that nobody asked for is removed in the end.
-spec with_data(fun((options()) -> Answer), options()) -> Answer.
with_data(Run, #{data := ""} = Options) ->
    Name = "esdb_demo." ++ os:getpid(),
    Data = filename:join(os:getenv("TMPDIR", "/tmp"), Name),
    try
        Run(Options#{data := Data})
    after
        file:del_dir_r(Data)
    end;
with_data(Run, Options) ->
    Run(Options).

-spec folder(file:filename()) -> file:filename().
folder("") ->
    case filelib:is_dir("demo") of
        true -> "demo";
        false -> "."
    end;
folder(Out) ->
    Out.

-spec refuse(unicode:chardata()) -> no_return().
refuse(Sentence) ->
    io:put_chars(standard_error, ["demo: ", Sentence, "\n"]),
    halt(1).

-doc """
Runs the demo and prints its report.

## Errors
One sentence for people: the source cannot be read or has no events, the results are not what they
must be, or the drawing cannot be written to the folder that was asked for. The report is printed in
the latter two cases as well.
""".
-spec run(options()) -> ok | {error, Sentence :: binary()}.
run(#{repo := Repo, events := Events} = Options) ->
    maybe
        {ok, Source} ?= esdb_demo_source:choose(Repo, Events),
        {ok, _} ?= stored(here, Options),
        {ok, Here} = esdb_demo_lane:open(here),
        There = open_there(),
        try
            with_lanes(Source, Here, There, Options)
        after
            close(Here, There)
        end
    end.

%% The options of the store of a lane.
-spec stored(here | there, options()) -> {ok, map()} | {error, binary()}.
stored(Lane, Options) ->
    case maps:get(engine, Options, "") of
        Engine when Engine =:= ""; Engine =:= "memory" ->
            {ok, #{}};
        "ra" ->
            Dir = filename:join(map_get(data, Options), atom_to_list(Lane)),
            {ok, #{engine => ra, data_dir => Dir}};
        Other ->
            {error, esdb_demo_text:binary(["there is no ENGINE ", Other, ", only memory and ra"])}
    end.

-spec open_there() -> {ok, esdb_demo_lane:lane()} | {none, Why :: binary()}.
open_there() ->
    case {esdb_demo_steps:implementation(), esdb_nif:status()} of
        {nif, _} ->
            started(esdb_demo_lane:open(off));
        {erlang, #{policy := off}} ->
            {none, ~"One column only: ESDB_NIF=off, so everything ran in Erlang."};
        {erlang, _} ->
            {none, ~"One column only: the native libraries are not built, so all ran in Erlang."}
    end.

-spec started({ok, esdb_demo_lane:lane()} | {error, term()}) ->
    {ok, esdb_demo_lane:lane()} | {none, Why :: binary()}.
started({ok, Lane}) ->
    {ok, Lane};
started({error, Reason}) ->
    Why = io_lib:format("One column only: no second node could be started (~0tp).", [Reason]),
    {none, esdb_demo_text:binary(Why)}.

-spec close(esdb_demo_lane:lane(), {ok, esdb_demo_lane:lane()} | {none, binary()}) -> ok.
close(Here, There) ->
    _ = esdb_demo_lane:call(Here, close, [?STORE]),
    lists:foreach(fun esdb_demo_lane:close/1, [Lane || {ok, Lane} <- [There]]).

-spec with_lanes(Source, Here, There, options()) -> ok | {error, binary()} when
    Source :: esdb_demo_source:source(),
    Here :: esdb_demo_lane:lane(),
    There :: {ok, esdb_demo_lane:lane()} | {none, binary()}.
with_lanes(Source, Here, There, #{out := Out, style := Style} = Options) ->
    Start = erlang:monotonic_time(microsecond),
    Places = [{here, Here} | [{there, Lane} || {ok, Lane} <- [There]]],
    Lanes = [Lane || {_, Lane} <- Places],
    Stores = [{Lane, element(2, stored(Place, Options))} || {Place, Lane} <- Places],
    maybe
        ok ?= open_stores(Stores),
        {ok, #{events := Events} = Imported} ?= esdb_demo_import:run(Source, ?STORE, Lanes, Style),
        ok ?= some(Events, Imported, Source),
        {ok, Disk} ?= reopened(Stores),
        MeasuredHere = measure(Here, measure, measured_here(There), Style),
        MeasuredThere = measure_there(There, Style),
        {_, Chain} = esdb_demo_questions:answer(chain, maps:get(asked, MeasuredHere)),
        Selection = esdb_demo_dot:select(Chain, fun fold/2),
        Drawing = esdb_demo_dot:write(folder(Out), Selection),
        Result = #{
            title => esdb_demo_source:describe(Source),
            remarks => esdb_demo_source:remarks(Source),
            imported => Imported,
            disk => Disk,
            implementation => esdb_demo_steps:implementation(),
            here => MeasuredHere,
            there => MeasuredThere,
            unread => exchange(Here, MeasuredHere, There, MeasuredThere),
            drawing => Drawing,
            elapsed_us => erlang:monotonic_time(microsecond) - Start
        },
        ok = esdb_demo_terminal:print(esdb_demo_report:render(Result, Style), Style),
        verdict(esdb_demo_report:failures(Result), Out, Drawing)
    end.

-spec open_stores([{esdb_demo_lane:lane(), map()}]) -> ok | {error, binary()}.
open_stores(Stores) ->
    Opened = [esdb_demo_lane:call(Lane, open, [?STORE, Options]) || {Lane, Options} <- Stores],
    does_start([Reason || {error, Reason} <- Opened]).

-spec does_start([term()]) -> ok | {error, binary()}.
does_start([]) ->
    ok;
does_start([{engine_not_available, ra} | _]) ->
    {error, ~"there is no Ra here, which stores on disk stand on"};
does_start([Reason | _]) ->
    Text = io_lib:format("the event store does not start: ~0tp", [Reason]),
    {error, esdb_demo_text:binary(Text)}.

%% Stores on disk are stopped and started again: what is read from here on was there.
-spec reopened([{esdb_demo_lane:lane(), map()}]) ->
    {ok, none | esdb_demo_steps:reopened()} | {error, binary()}.
reopened([{_, None} | _]) when map_size(None) =:= 0 ->
    {ok, none};
reopened(Stores) ->
    Answers = [esdb_demo_lane:call(Lane, reopen, [?STORE, Options]) || {Lane, Options} <- Stores],
    case does_start([Reason || {error, Reason} <- Answers]) of
        ok -> {ok, element(2, hd(Answers))};
        {error, Sentence} -> {error, Sentence}
    end.

-spec some(non_neg_integer(), esdb_demo_import:imported(), esdb_demo_source:source()) ->
    ok | {error, binary()}.
some(0, #{reasons := Reasons}, Source) ->
    First = [[" (", esdb_demo_report:where(At), ": ", Why, ")"] || {At, Why, _} <- Reasons],
    Place = esdb_demo_source:place(Source),
    {error, esdb_demo_text:binary(["there are no events in ", Place | lists:sublist(First, 1)])};
some(_, _, _) ->
    ok.

-spec measure(esdb_demo_lane:lane(), atom(), string(), esdb_demo_terminal:style()) ->
    esdb_demo_steps:measured().
measure(Lane, Function, Where, Style) ->
    ok = esdb_demo_terminal:say(["Measuring ", Where, " ..."], Style),
    Measured = esdb_demo_lane:call(Lane, Function, [?STORE, ?BUDGET]),
    ok = esdb_demo_terminal:clear(Style),
    Measured.

-spec measured_here({ok, esdb_demo_lane:lane()} | {none, binary()}) -> string().
measured_here({ok, _}) -> "with Rust";
measured_here({none, _}) -> "this node".

-spec measure_there({ok, esdb_demo_lane:lane()} | {none, binary()}, esdb_demo_terminal:style()) ->
    {ok, esdb_demo_steps:measured()} | {none, binary()}.
measure_there({ok, Lane}, Style) ->
    {ok, measure(Lane, measure_briefly, "the same in Erlang", Style)};
measure_there(None, _) ->
    None.

%% Each node reads what the other one wrote.
-spec exchange(Lane, Measured, {ok, Lane} | None, {ok, Measured} | None) ->
    [esdb_demo_archive:codec()]
when
    Lane :: esdb_demo_lane:lane(),
    Measured :: esdb_demo_steps:measured(),
    None :: {none, binary()}.
exchange(Here, #{parcel := Ours}, {ok, There}, {ok, #{parcel := Theirs}}) ->
    Read = [
        esdb_demo_lane:call(Lane, unlike, [Parcel])
     || {Lane, Parcel} <- [{Here, Theirs}, {There, Ours}]
    ],
    lists:usort(lists:append(Read));
exchange(_, _, _, _) ->
    [].

-spec fold(fun((esdb_demo_event:commit(), Acc) -> Acc), Acc) -> Acc.
fold(Fun, Acc) ->
    esdb_demo_steps:fold(?STORE, Fun, Acc).

%% Where nobody asked for the drawing, as in a checkout that is read only, the report says enough.
-spec verdict([binary()], Out :: file:filename(), esdb_demo_dot:written()) ->
    ok | {error, binary()}.
verdict([Failure | _], _, _) -> {error, Failure};
verdict([], [_ | _], {error, Sentence}) -> {error, Sentence};
verdict([], _, _) -> ok.
