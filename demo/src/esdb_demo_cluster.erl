-module(esdb_demo_cluster).
-moduledoc """
`make demo-cluster`: real events are written through three nodes, one of them is killed (`kill -9`)
meanwhile, and in the end every node is asked what it has.

```sh
make demo-cluster
make demo-cluster EVENTS=file.ndjson.gz
```

Several writers write at the same time, each through one node after the other. The node that leads
is killed while the first thousand events are on their way, and is started again after some
thousand more, or when all is written. A write of which it is not known whether it was done is sent
again through another node: the store knows its events by their ids.

It reads the environment variables `REPO`, `EVENTS`, `DATA` (the folder of the stores), `NO_COLOR`,
`COLUMNS` and `LANG` as `m:esdb_demo` does. The exit status is 0 if every event that was
acknowledged is there once and in order on all nodes, else 1, after one sentence on standard error.
""".

-export([main/0, run/1]).
-export_type([options/0]).

-type options() :: #{
    repo := file:filename(),
    events := file:filename(),
    %% The folder of the stores.
    data := file:filename(),
    style := esdb_demo_terminal:style()
}.

-define(STORE, demo).
%% Events of an append, first and when the node is killed, and processes that write at a time.
-define(FEW, 10).
-define(PIECE, 100).
-define(WRITERS, 6).
%% The node is back after so many thousands.
-define(AWAY, 10).
%% Milliseconds for an append with all that is tried for it, and between two tries.
-define(PATIENCE, 60_000).
-define(PAUSE, 20).

%% What happened, in a table: each of these one key.
-define(START, #{
    chunks => 0,
    written => 0,
    again => 0,
    longest_us => 0,
    append_us => 0,
    victim => none,
    killed_after => 0,
    back_after => none
}).

-record(run, {
    nodes :: esdb_demo_nodes:nodes(),
    %% {Key, Value} as above, and {{stream, Name}, Entries}, the newest first
    table :: ets:table()
}).

-record(result, {
    title :: binary(),
    imported :: esdb_demo_import:imported(),
    told :: #{atom() => term()},
    streams :: non_neg_integer(),
    seen :: [{esdb_demo_nodes:member(), {ok, esdb_demo_check:outcome()} | {error, term()}}],
    one_order :: boolean()
}).

-doc "Runs as the environment says and ends the system, for `erl -run esdb_demo_cluster main`.".
-spec main() -> no_return().
main() ->
    esdb_demo:main(fun(Options) -> run(Options) end).

-doc """
Writes, kills, compares, and prints what was found.

## Errors
One sentence for people: the source cannot be read or has no events, the nodes do not start, or what
they have is not what was acknowledged. What was found is printed in the latter case as well.
""".
-spec run(options()) -> ok | {error, Sentence :: binary()}.
run(#{repo := Repo, events := Events, data := Data, style := Style}) ->
    maybe
        {ok, Source} ?= esdb_demo_source:choose(Repo, Events),
        ok = esdb_demo_terminal:say("Starting three nodes ...", Style),
        {ok, Nodes} ?= started(esdb_demo_nodes:start(Data, ?STORE)),
        ok = esdb_demo_terminal:clear(Style),
        Table = ets:new(?MODULE, [private]),
        true = ets:insert(Table, maps:to_list(?START)),
        try
            with_nodes(Source, #run{nodes = Nodes, table = Table}, Style)
        after
            ok = esdb_demo_nodes:stop(Nodes),
            true = ets:delete(Table)
        end
    end.

-spec started({ok, esdb_demo_nodes:nodes()} | {error, term()}) ->
    {ok, esdb_demo_nodes:nodes()} | {error, binary()}.
started({ok, Nodes}) ->
    {ok, Nodes};
started({error, Reason}) ->
    Text = io_lib:format("the three nodes do not start: ~0tP", [Reason, 20]),
    {error, esdb_demo_text:binary(Text)}.

-spec with_nodes(esdb_demo_source:source(), #run{}, esdb_demo_terminal:style()) ->
    ok | {error, binary()}.
with_nodes(Source, #run{nodes = Nodes} = Run, Style) ->
    Lane = esdb_demo_lane:through(fun(append, [_, Batches]) -> append(Run, Batches) end),
    maybe
        {ok, #{events := Events} = Imported} ?=
            esdb_demo_import:run(Source, ?STORE, [Lane], Style),
        ok ?= some(Events, Source),
        ok = back(all, Run),
        ok = esdb_demo_terminal:say("Asking each node what it has ...", Style),
        Sent = sent(Run),
        Seen = [{Number, seen(Nodes, Number)} || Number <- esdb_demo_nodes:numbers()],
        ok = esdb_demo_terminal:clear(Style),
        Result = #result{
            title = esdb_demo_source:describe(Source),
            imported = Imported,
            told = #{Key => value(Key, Run) || Key := _ <- ?START},
            streams = map_size(Sent),
            seen = [{Number, compared(Found, Sent)} || {Number, Found} <- Seen],
            one_order = length(lists:usort([Order || {_, {ok, _, Order}} <- Seen])) =:= 1
        },
        ok = esdb_demo_terminal:print(rendered(Result, Style), Style),
        verdict(is_good(Result))
    end.

-spec some(non_neg_integer(), esdb_demo_source:source()) -> ok | {error, binary()}.
some(0, Source) ->
    {error, esdb_demo_text:binary(["there are no events in ", esdb_demo_source:place(Source)])};
some(_, _) ->
    ok.

-spec seen(esdb_demo_nodes:nodes(), esdb_demo_nodes:member()) ->
    {ok, esdb_demo_check:entries(), integer()} | {error, term()}.
seen(Nodes, Number) ->
    case esdb_demo_nodes:call(Nodes, Number, esdb_demo_check, found, [?STORE]) of
        {ok, Answer} -> Answer;
        {error, Reason} -> {error, Reason}
    end.

-spec compared({ok, esdb_demo_check:entries(), integer()} | {error, term()}, Sent) ->
    {ok, esdb_demo_check:outcome()} | {error, term()}
when
    Sent :: esdb_demo_check:entries().
compared({ok, Found, _}, Sent) -> {ok, esdb_demo_check:compare(Sent, Found)};
compared({error, Reason}, _) -> {error, Reason}.

-spec is_good(#result{}) -> boolean().
is_good(#result{seen = Seen, one_order = OneOrder}) ->
    Good = fun
        ({_, {ok, Outcome}}) -> esdb_demo_check:is_good(Outcome);
        ({_, {error, _}}) -> false
    end,
    OneOrder andalso lists:all(Good, Seen).

-spec verdict(boolean()) -> ok | {error, binary()}.
verdict(true) -> ok;
verdict(false) -> {error, ~"the nodes do not have what was acknowledged"}.

%% ---- writing

-spec value(atom(), #run{}) -> term().
value(Key, #run{table = Table}) -> ets:lookup_element(Table, Key, 2).

-spec put_value(atom(), term(), #run{}) -> ok.
put_value(Key, Value, #run{table = Table}) ->
    true = ets:insert(Table, {Key, Value}),
    ok.

-spec add(atom(), non_neg_integer(), #run{}) -> ok.
add(Key, More, Run) -> put_value(Key, value(Key, Run) + More, Run).

-spec sent(#run{}) -> esdb_demo_check:entries().
sent(#run{table = Table}) ->
    #{Stream => lists:reverse(Entries) || {{stream, Stream}, Entries} <- ets:tab2list(Table)}.

%% What the import gives at a time: one batch a stream. Streams are shared out to the writers, so
%% the events of each are written in their order.
-spec append(#run{}, [{Stream :: binary(), [map()]}]) ->
    {ok, Micros :: non_neg_integer(), [esdb_demo_steps:refused()]}
    | {error, {binary(), Reason :: term()}}.
append(#run{nodes = Nodes} = Run, Batches) ->
    ok = add(chunks, 1, Run),
    ok = back(due, Run),
    Size =
        case value(victim, Run) of
            none -> ?FEW;
            _ -> ?PIECE
        end,
    Pieces = [{Stream, pieces(Events, Size)} || {Stream, Events} <- Batches],
    Left = lists:sum([length(Parts) || {_, Parts} <- Pieces]),
    Self = self(),
    Share = fun(W) -> [P || {N, P} <- lists:enumerate(Pieces), N rem ?WRITERS =:= W] end,
    Start = fun(W) -> spawn_monitor(fun() -> written(Share(W), W, Nodes, Self) end) end,
    Writers = [Start(W) || W <- lists:seq(0, ?WRITERS - 1)],
    {Micros, Answers} = timer:tc(fun() -> collected(Writers, {Left, Left}, Run, []) end),
    case [{Stream, Reason} || {failed, Stream, Reason} <- Answers] of
        [] -> {ok, Micros, [R || {refused, R} <- Answers]};
        [Failure | _] -> {error, Failure}
    end.

-spec pieces([map()], pos_integer()) -> [[map()]].
pieces(Events, Size) when length(Events) =< Size -> [Events];
pieces(Events, Size) ->
    {Piece, Rest} = lists:split(Size, Events),
    [Piece | pieces(Rest, Size)].

%% In a process of its own; each begins with another node.
-spec written([{binary(), [[map()]]}], non_neg_integer(), esdb_demo_nodes:nodes(), pid()) -> ok.
written(Share, First, Nodes, To) ->
    All = [{Stream, Piece} || {Stream, Pieces} <- Share, Piece <- Pieces],
    Write = fun({Via, {Stream, Piece}}) ->
        Start = erlang:monotonic_time(microsecond),
        Answer = sent(Nodes, Via, {Stream, Piece}, 0, Start),
        To ! {self(), Stream, Piece, Answer, erlang:monotonic_time(microsecond) - Start}
    end,
    lists:foreach(Write, lists:enumerate(First, All)).

%% Through one node after the other, until one says that it is done.
-spec sent(esdb_demo_nodes:nodes(), non_neg_integer(), {binary(), [map()]}, Again, integer()) ->
    {ok, Again, [esdb_demo_steps:refused()]} | {error, term()}
when
    Again :: non_neg_integer().
sent(Nodes, Via, Batch, Again, Start) ->
    Number = 1 + Via rem 3,
    Late = erlang:monotonic_time(microsecond) - Start > ?PATIENCE * 1000,
    case esdb_demo_nodes:call(Nodes, Number, esdb_demo_steps, append, [?STORE, [Batch]]) of
        {ok, {ok, _, Refused}} ->
            {ok, Again, Refused};
        {ok, {error, {_, Reason}}} when Late ->
            {error, Reason};
        {error, Reason} when Late ->
            {error, Reason};
        {error, down} ->
            sent(Nodes, Via + 1, Batch, Again, Start);
        _ ->
            receive
            after ?PAUSE -> sent(Nodes, Via + 1, Batch, Again + 1, Start)
            end
    end.

-type answer() :: {refused, esdb_demo_steps:refused()} | {failed, binary(), term()}.

-spec collected([{pid(), reference()}], {Left, Of}, #run{}, [answer()]) -> [answer()] when
    Left :: non_neg_integer(), Of :: non_neg_integer().
collected([], _, _Run, Answers) ->
    Answers;
collected(Writers, {Left, Of}, Run, Answers) ->
    ok = kill_one(Left * 3 =< Of * 2, Run),
    receive
        {Pid, Stream, Piece, Answer, Micros} when is_pid(Pid) ->
            More = answered(Stream, Piece, Answer, Micros, Run),
            collected(Writers, {Left - 1, Of}, Run, More ++ Answers);
        {'DOWN', Ref, process, Pid, normal} ->
            collected(Writers -- [{Pid, Ref}], {Left, Of}, Run, Answers)
    end.

-spec answered(binary(), [map()], Answer, non_neg_integer(), #run{}) -> [answer()] when
    Answer :: {ok, non_neg_integer(), [esdb_demo_steps:refused()]} | {error, term()}.
answered(Stream, _Piece, {error, Reason}, _Micros, _Run) ->
    [{failed, Stream, Reason}];
answered(Stream, Piece, {ok, Again, Refused}, Micros, #run{table = Table} = Run) ->
    Without = maps:from_list(Refused),
    Taken = [entry(Stream, E) || #{event_id := Id} = E <- Piece, not is_map_key(Id, Without)],
    Before = ets:lookup_element(Table, {stream, Stream}, 2, []),
    true = Taken =:= [] orelse
        ets:insert(Table, {{stream, Stream}, lists:reverse(Taken, Before)}),
    ok = add(written, length(Taken), Run),
    ok = add(again, Again, Run),
    ok = put_value(longest_us, max(Micros, value(longest_us, Run)), Run),
    [{refused, R} || R <- Refused].

-spec entry(binary(), map()) -> {binary(), integer()}.
entry(Stream, #{event_id := Id} = New) ->
    {Id, esdb_demo_check:sum(esdb_demo_event:from_new(Stream, New))}.

%% ---- killing

%% Once: when a third of the first events is acknowledged, and others are on their way.
-spec kill_one(Due :: boolean(), #run{}) -> ok.
kill_one(Due, #run{nodes = Nodes} = Run) ->
    case Due andalso value(victim, Run) =:= none of
        true ->
            Victim = esdb_demo_nodes:leader(Nodes),
            ok = put_value(victim, Victim, Run),
            ok = put_value(killed_after, value(written, Run), Run),
            esdb_demo_nodes:kill(Nodes, Victim);
        false ->
            ok
    end.

%% The node that was killed is started again when it was away long enough, at the latest in the end.
-spec back(due | all, #run{}) -> ok.
back(When, #run{nodes = Nodes} = Run) ->
    Away = value(victim, Run) =/= none andalso value(back_after, Run) =:= none,
    case Away andalso (When =:= all orelse value(chunks, Run) > ?AWAY) of
        true ->
            ok = put_value(back_after, value(written, Run), Run),
            ok = esdb_demo_nodes:revive(Nodes, value(victim, Run));
        false ->
            ok
    end.

%% ---- what is said about it

-spec rendered(#result{}, esdb_demo_terminal:style()) -> unicode:chardata().
rendered(#result{imported = Imported, told = Told} = Result, Style) ->
    #{victim := Victim, killed_after := Killed, back_after := Back} = Told,
    #{again := Again, longest_us := Longest} = Told,
    #{append_us := [Micros]} = Imported,
    Written = map_get(written, Told),
    [
        esdb_demo_chart:heading(Result#result.title, Style),
        [
            ["  ", Line, "\n"]
         || Line <- [
                [
                    [number(Written), " events in ", number(Result#result.streams)],
                    " streams, written through three nodes"
                ],
                [number(Written * 1_000_000 div max(1, Micros)), " events a second"],
                [
                    [atom_to_list(esdb_demo_nodes:name(Victim)), ", which led, was killed"],
                    [" (kill -9) after ", number(Killed), " events"]
                ],
                ["it was started again after ", number(Back)],
                [
                    ["longest append ", esdb_demo_chart:duration(Longest), "; "],
                    ["sent again, their outcome unknown: ", number(Again)]
                ]
            ]
        ],
        left_out(Imported, Style),
        esdb_demo_chart:heading("What each node has, against what was acknowledged", Style),
        esdb_demo_chart:table(
            [
                ["", "events", "missing", "twice", "unknown", "changed", "out of order"]
                | [row(Number, Seen) || {Number, Seen} <- Result#result.seen]
            ],
            Style
        ),
        conclusion(Result, Style)
    ].

-spec number(non_neg_integer()) -> string().
number(N) -> esdb_demo_chart:number(N).

-spec left_out(esdb_demo_import:imported(), esdb_demo_terminal:style()) -> unicode:chardata().
left_out(#{problems := 0}, _) -> [];
left_out(#{problems := N}, Style) ->
    ["  ", esdb_demo_chart:alarm([number(N), " items of the source were left out"], Style), "\n"].

-spec row(esdb_demo_nodes:member(), {ok, esdb_demo_check:outcome()} | {error, term()}) ->
    [unicode:chardata()].
row(Number, {ok, Outcome}) ->
    Keys = [events, missing, twice, unknown, changed, disordered],
    [atom_to_list(esdb_demo_nodes:name(Number)) | [number(map_get(Key, Outcome)) || Key <- Keys]];
row(Number, {error, Reason}) ->
    Why = esdb_demo_chart:label(io_lib:format("~0tp", [Reason]), 40),
    [atom_to_list(esdb_demo_nodes:name(Number)), Why, "", "", "", "", ""].

-spec conclusion(#result{}, esdb_demo_terminal:style()) -> unicode:chardata().
conclusion(#result{one_order = OneOrder} = Result, Style) ->
    [
        "\n  ",
        case {is_good(Result), OneOrder} of
            {true, _} ->
                ["Every event that was acknowledged is there once, in order, on all three nodes,\n",
                    "  which have all events in one order.\n"];
            {false, true} ->
                [esdb_demo_chart:alarm("This is not what was acknowledged.", Style), "\n"];
            {false, false} ->
                [esdb_demo_chart:alarm("The nodes do not have the same order.", Style), "\n"]
        end
    ].
