-module(esdb_demo_report).
-moduledoc """
The report as text, made from what was measured and nothing else.

```erlang
1> io:put_chars(esdb_demo_report:render(Result, esdb_demo_terminal:style())).
```
""".

-export([render/2, failures/1, where/1]).
-export_type([result/0]).

-type result() :: #{
    title := binary(),
    %% What one must know about the source.
    remarks := [binary()],
    imported := esdb_demo_import:imported(),
    %% Of stores on disk: how this node's came back.
    disk => none | esdb_demo_steps:reopened(),
    %% What this node runs on.
    implementation := nif | erlang,
    here := esdb_demo_steps:measured(),
    %% The second node, or why there is none.
    there := {ok, esdb_demo_steps:measured()} | {none, Why :: binary()},
    %% Codecs of which one node could not read what the other one wrote.
    unread := [esdb_demo_archive:codec()],
    drawing := esdb_demo_dot:written(),
    elapsed_us := non_neg_integer()
}.

-type style() :: esdb_demo_terminal:style().

-define(TIME_ROWS, 20).
-define(WEEK_ROWS, 12).
-define(NARROW, 12).
%% Characters of a name from outside in an answer.
-define(ANSWER, 14).

-doc "The whole report.".
-spec render(result(), style()) -> unicode:chardata().
render(Result, Style) ->
    [
        overview(Result, Style),
        types(Result, Style),
        timeline(Result, Style),
        areas(Result, Style),
        chain(Result, Style),
        questions(Result, Style),
        partitions(Result, Style),
        archive(Result, Style),
        times(Result, Style),
        ending(Result, Style)
    ].

-doc "What should not have been, one sentence each; nothing for a good run.".
-spec failures(result()) -> [binary()].
failures(#{unread := Unread} = Result) ->
    Measured = measured(Result),
    Unlike = lists:usort([C || #{archive := Rs} <- Measured, #{same := false, codec := C} <- Rs]),
    Wrong = lists:usort(lists:append([W || #{wrong := W} <- Measured])),
    Digests = lists:usort([D || #{digest := D} <- Measured]),
    Texts = lists:append([
        [["the archive did not read back identically: ", codec_name(C)] || C <- Unlike],
        [["one node cannot read the other's archive: ", codec_name(C)] || C <- Unread],
        [["the library and plain Erlang answer differently: ", atom_to_binary(W)] || W <- Wrong],
        ["Rust and Erlang did not agree on what they found" || length(Digests) > 1],
        ["the store came back with other events" || not is_all_back(Result)]
    ]),
    [esdb_demo_text:binary(Text) || Text <- Texts].

%% As a new store has no events but those that were imported.
-spec is_all_back(result()) -> boolean().
is_all_back(#{disk := #{events := Back}, imported := #{events := Events}}) -> Back =:= Events;
is_all_back(_) -> true.

%% One or two measurements, this node's first.
-spec measured(result()) -> [esdb_demo_steps:measured()].
measured(#{here := Here, there := There}) ->
    [Here | [Measured || {ok, Measured} <- [There]]].

%% Events, streams, problems

-spec overview(result(), style()) -> unicode:chardata().
overview(#{title := Title, remarks := Remarks, here := Here} = Result, Style) ->
    #{imported := Imported} = Result,
    #{facts := Facts} = Here,
    #{events := Events, streams := Streams, first := First, last := Last} = Facts,
    #{append_us := [AppendUs | _]} = Imported,
    Days = [esdb_demo_calendar:date(First), " to ", esdb_demo_calendar:date(Last)],
    [
        esdb_demo_chart:heading(Title, Style),
        [esdb_demo_chart:note(Remark, Style) || Remark <- Remarks],
        io_lib:format("  ~ts in ~ts, ~ts~n", [
            counted(Events, "event"), counted(map_size(Streams), "stream"), Days
        ]),
        io_lib:format("  ~ts events a second into the store~n", [
            esdb_demo_chart:number(per_second(Events, AppendUs))
        ]),
        disk(maps:get(disk, Result, none)),
        problems(Imported, Style)
    ].

-spec disk(none | esdb_demo_steps:reopened()) -> unicode:chardata().
disk(none) ->
    [];
disk(#{start_us := Micros, events := Events, bytes := Bytes}) ->
    [
        ["  on disk in ", esdb_demo_chart:bytes(Bytes), "; stopped, and started again in "],
        [esdb_demo_chart:duration(Micros), " with ", counted(Events, "event"), ":\n"],
        "  what follows is read from there\n"
    ].

-spec problems(esdb_demo_import:imported(), style()) -> unicode:chardata().
problems(#{problems := 0}, _) ->
    [];
problems(#{problems := N, reasons := Reasons} = Imported, Style) ->
    [
        ["  ", esdb_demo_chart:alarm([counted(N, "item"), " left out:"], Style), "\n"],
        esdb_demo_chart:paragraph(places(Imported), Style),
        [esdb_demo_chart:paragraph(reason(Reason), Style) || Reason <- Reasons]
    ].

%% The words of one reason; all but the first place are in the list above it.
-spec reason({esdb_demo_import:where(), binary(), pos_integer()}) -> [unicode:chardata()].
reason({Where, Why, Times}) ->
    Often = [["(", esdb_demo_chart:number(Times), " times)"] || Times > 1],
    [[where(Where), ":"] | binary:split(Why, ~" ", [global])] ++ Often.

%% All of them by number, several in a row as one.
-spec places(esdb_demo_import:imported()) -> [unicode:chardata()].
places(#{problems := N, problem_places := Places}) ->
    Named = lists:sum([places_in(Place) || Place <- Places]),
    Rest = [["and ", esdb_demo_chart:number(N - Named), " more"] || N > Named],
    Kind =
        case Places of
            [{Line, _} | _] when is_integer(Line) -> "line";
            _ -> "commit"
        end,
    [[Kind, ["s" || N > 1]] | commas([place(Place) || Place <- Places] ++ Rest)].

-spec commas([unicode:chardata(), ...]) -> [unicode:chardata(), ...].
commas([Last]) -> [Last];
commas([Word | Words]) -> [[Word, ","] | commas(Words)].

-spec places_in({esdb_demo_import:where(), esdb_demo_import:where()}) -> pos_integer().
places_in({From, To}) when is_integer(From), is_integer(To) -> To - From + 1;
places_in({_, _}) -> 1.

-spec place({esdb_demo_import:where(), esdb_demo_import:where()}) -> unicode:chardata().
place({Line, Line}) when is_integer(Line) -> integer_to_list(Line);
place({From, To}) when is_integer(From), is_integer(To) -> io_lib:format("~b-~b", [From, To]);
place({Commit, _}) -> short(Commit).

-doc "Where an item of the source stands, for people.".
-spec where(pos_integer() | binary()) -> unicode:chardata().
where(Line) when is_integer(Line) -> ["line ", integer_to_list(Line)];
where(Commit) -> ["commit ", short(Commit)].

%% Charts

-spec types(result(), style()) -> unicode:chardata().
types(#{here := #{facts := #{events := Events}}} = Result, Style) ->
    Types = answer(types, Result),
    Shown = lists:sublist(most_first(Types), 10),
    [
        esdb_demo_chart:heading("Events by type", Style),
        esdb_demo_chart:bars(
            [{Type, N, esdb_demo_chart:percent(N, Events)} || {Type, N} <- Shown], Style
        ),
        more(map_size(Types) - length(Shown), "type", Style)
    ].

-spec timeline(result(), style()) -> unicode:chardata().
timeline(#{here := #{facts := #{days := Days}}}, #{width := Width} = Style) ->
    {Unit, Spans} = esdb_demo_calendar:spans(Days, ?TIME_ROWS),
    Weeks = esdb_demo_calendar:weeks(Days),
    Counts = [N || {_, N} <- Weeks],
    [
        esdb_demo_chart:heading(["Events by ", unit(Unit)], Style),
        esdb_demo_chart:bars([{Label, N, ""} || {Label, N} <- Spans], Style),
        [
            [
                ["\n  ", esdb_demo_chart:sparkline(Counts, Width - 4, Style), "\n"],
                esdb_demo_chart:note(sparkline_note(length(Weeks), Width - 4), Style),
                busiest_weeks(#{Week => N || {Week, N} <- Weeks, N > 0}, Style)
            ]
         || Unit =/= week
        ]
    ].

%% A long history has more weeks than anybody reads: those with the most events, each by its Monday.
-spec busiest_weeks(#{Monday :: integer() => pos_integer()}, style()) -> unicode:chardata().
busiest_weeks(Weeks, Style) ->
    Shown = lists:sublist(most_first(Weeks), ?WEEK_ROWS),
    [
        esdb_demo_chart:heading("Events by week, the busiest, from Monday", Style),
        esdb_demo_chart:bars(
            [{esdb_demo_calendar:day_name(Day), N, ""} || {Day, N} <- Shown], Style
        ),
        more(map_size(Weeks) - length(Shown), "week", Style)
    ].

-spec sparkline_note(pos_integer(), pos_integer()) -> unicode:chardata().
sparkline_note(Weeks, Cells) ->
    Per = (Weeks + Cells - 1) div Cells,
    io_lib:format("the same week by week: ~ts, ~b in a column", [counted(Weeks, "week"), Per]).

-spec areas(result(), style()) -> unicode:chardata().
areas(Result, Style) ->
    Areas = answer(areas, Result),
    Sum = lists:sum(maps:values(Areas)),
    Rows = [
        {Area, N, esdb_demo_chart:percent(N, Sum)}
     || {Area, N} <- lists:sublist(most_first(Areas), 5)
    ],
    [
        esdb_demo_chart:heading("Areas with the most inserted lines", Style),
        esdb_demo_chart:bars(Rows, Style),
        esdb_demo_chart:note(
            ["of ", counted(Sum, "line"), " in ", counted(map_size(Areas), "area")], Style
        )
    ].

-spec partitions(result(), style()) -> unicode:chardata().
partitions(#{here := #{partitions := Partitions}}, Style) ->
    #{streams := Streams, stream_events := Events, ids := Ids} = Partitions,
    Rows = [
        {integer_to_list(P), N, counted(E, "event")}
     || {P, N, E} <- lists:zip3(lists:seq(0, length(Ids) - 1), Streams, Events)
    ],
    [
        esdb_demo_chart:heading("Streams in 16 partitions by XXH3", Style),
        esdb_demo_chart:bars(Rows, Style),
        esdb_demo_chart:note(evenness(Ids), Style)
    ].

%% Few streams cannot spread evenly; the ids of the events show what the hash itself does.
-spec evenness([non_neg_integer()]) -> unicode:chardata().
evenness(Ids) ->
    io_lib:format("the ids of the ~ts spread on their own: ~ts to ~ts a partition", [
        counted(lists:sum(Ids), "event"),
        esdb_demo_chart:number(lists:min(Ids)),
        esdb_demo_chart:number(lists:max(Ids))
    ]).

-spec chain(result(), style()) -> unicode:chardata().
chain(#{drawing := Drawing} = Result, Style) ->
    {Kind, Chain} = answer(chain, Result),
    Heading =
        case Kind of
            chain -> "Longest chain of causes";
            circle -> "Causes go in a circle"
        end,
    [
        esdb_demo_chart:heading(Heading, Style),
        io_lib:format("  ~ts, from ~ts to ~ts~n", [
            counted(length(Chain), "event"), short(hd(Chain)), short(lists:last(Chain))
        ]),
        drawing(Drawing, Style)
    ].

-spec drawing(esdb_demo_dot:written(), style()) -> unicode:chardata().
drawing({ok, Lines}, _) -> [["  ", Line, "\n"] || Line <- Lines];
drawing({error, Why}, Style) -> ["  ", esdb_demo_chart:alarm(["no drawing: ", Why], Style), "\n"].

%% Questions

-spec questions(result(), style()) -> unicode:chardata().
questions(#{here := #{asked := Asked, storage := Storage}} = Result, Style) ->
    Head = ["", "", library(Result), "plain", "faster"],
    Rows = [kept_row(Storage) | [question_row(One) || One <- Asked]],
    [
        esdb_demo_chart:heading("Questions to the packed events", Style),
        esdb_demo_chart:table([Head | Rows], Style),
        esdb_demo_chart:note([ran(Result), ", on packed segments. plain: without it,"], Style),
        esdb_demo_chart:note("by binary_to_term of the same events, and maps", Style),
        [esdb_demo_chart:note("each answer was the same both ways", Style) || all_same(Asked)]
    ].

-spec all_same([esdb_demo_questions:asked()]) -> boolean().
all_same(Asked) -> lists:all(fun(#{same := Same}) -> Same end, Asked).

-spec library(result()) -> string().
library(#{implementation := nif}) -> "Rust";
library(_) -> "twin".

-spec ran(result()) -> string().
ran(#{implementation := nif}) -> "Rust: the library";
ran(_) -> "twin: the library's own Erlang".

-spec kept_row(esdb_demo_questions:storage()) -> [unicode:chardata()].
kept_row(#{segments := N, packed_size := Size} = Storage) ->
    Answer = [esdb_demo_chart:bytes(Size), " in ", counted(N, "segment")],
    ["pack them, once", Answer | both_times(Storage)].

-spec question_row(esdb_demo_questions:asked()) -> [unicode:chardata()].
question_row(#{question := Question, answer := Answer, same := Same} = Asked) ->
    {What, Found} = found(Question, Answer),
    [What, [Found, [" (NOT THE SAME)" || not Same]] | both_times(Asked)].

-spec both_times(#{packed_us := non_neg_integer(), plain_us := non_neg_integer(), _ => _}) ->
    [unicode:chardata()].
both_times(#{packed_us := Packed, plain_us := Plain}) ->
    [
        esdb_demo_chart:duration(Packed),
        esdb_demo_chart:duration(Plain),
        esdb_demo_chart:ratio(Plain / max(1, Packed))
    ].

-spec found(esdb_demo_questions:question(), esdb_demo_questions:answer()) ->
    {unicode:chardata(), unicode:chardata()}.
found(types, Types) -> {["commonest of ", counted(map_size(Types), "type")], most(Types)};
found(weeks, Weeks) -> {["busiest of ", counted(map_size(Weeks), "week")], most(Weeks)};
found(streams, out_of_range) -> {"stream with most lines", "no float holds it"};
found(streams, Streams) -> {"stream with most lines", most(#{S => N || S := [_, N] <- Streams})};
found(areas, Areas) -> {"area with most lines", most(Areas)};
found(large, N) -> {["above ", large(), " lines"], counted(N, "event")};
found(graph, Edges) -> {"graph of causes, built", counted(Edges, "edge")};
found(chain, {chain, Chain}) -> {"longest chain", events(Chain)};
found(chain, {circle, Circle}) -> {"longest chain", ["a circle of ", events(Circle)]};
found({led_to, Id}, Led) -> {[short(Id), " led to"], events(Led)}.

-spec events([binary()]) -> string().
events(Ids) -> counted(length(Ids), "event").

-spec large() -> string().
large() -> esdb_demo_chart:number(esdb_demo_questions:large()).

-spec most(#{term() => number()}) -> unicode:chardata().
most(Counts) when map_size(Counts) =:= 0 ->
    "none";
most(Counts) ->
    [{Key, N} | _] = most_first(Counts),
    [esdb_demo_chart:label(key(Key), ?ANSWER), ": ", amount(N)].

-spec key(term()) -> unicode:chardata().
key(Key) when is_binary(Key) -> Key;
key(undefined) -> "none";
key(Key) -> io_lib:format("~0tp", [Key]).

-spec amount(number()) -> unicode:chardata().
amount(N) when is_integer(N) -> esdb_demo_chart:number(N);
amount(N) -> io_lib:format("~.6g", [N]).

%% Archive

-spec archive(result(), style()) -> unicode:chardata().
archive(#{here := #{facts := #{events := Events}, archive := Archive}} = Result, Style) ->
    Head = ["", "size", "ratio", "same" | archive_columns(Result)],
    Rows = [archive_row(R, Events, Result) || R <- Archive],
    {Single, Blocks} = lists:split(length([R || #{shape := single} = R <- Archive]), Rows),
    Raw = raw_row(hd(Archive), Events, length(Head)),
    Title = fun(Text) -> [Text | lists:duplicate(length(Head) - 1, "")] end,
    Alone = [archive_directions(Result), Head, Title("each event alone"), Raw | Single],
    All = Alone ++ [Title("blocks of 1,000 events") | Blocks],
    [
        esdb_demo_chart:heading("The archive, as lines of JSON", Style),
        esdb_demo_chart:table(All, Style),
        archive_notes(Result, Style)
    ].

%% Above the names of the implementations: which of them write and which read.
-spec archive_directions(result()) -> [string()].
archive_directions(#{there := {ok, _}}) -> ["", "", "", "", "write", "", "read", ""];
archive_directions(_) -> ["", "", "", "", "write", "read"].

-spec archive_columns(result()) -> [string()].
archive_columns(#{there := {ok, _}}) -> ["Rust", "Erlang", "Rust", "Erlang"];
archive_columns(#{implementation := nif}) -> ["Rust", "Rust"];
archive_columns(_) -> ["Erlang", "Erlang"].

-spec raw_row(esdb_demo_archive:result(), pos_integer(), pos_integer()) -> [unicode:chardata()].
raw_row(#{raw := Raw} = Result, Events, Columns) ->
    Size = scaled(fun esdb_demo_chart:bytes/1, Raw, Result, Events),
    ["  raw", Size, "1.0x" | lists:duplicate(Columns - 3, "")].

-spec archive_row(esdb_demo_archive:result(), pos_integer(), result()) -> [unicode:chardata()].
archive_row(#{raw := Raw, packed := Packed, codec := Codec} = Here, Events, Result) ->
    Both = [same_row(Here, Measured) || Measured <- measured(Result)],
    Time = fun(Key) ->
        [scaled(fun esdb_demo_chart:duration/1, maps:get(Key, R), R, Events) || R <- Both]
    end,
    [
        ["  ", codec_name(Codec)],
        scaled(fun esdb_demo_chart:bytes/1, Packed, Here, Events),
        esdb_demo_chart:ratio(Raw / max(1, Packed)),
        same(Both)
        | Time(write_us) ++ Time(read_us)
    ].

-spec same_row(esdb_demo_archive:result(), esdb_demo_steps:measured()) ->
    esdb_demo_archive:result().
same_row(#{codec := Codec, shape := Shape}, #{archive := Archive}) ->
    hd([R || #{codec := C, shape := S} = R <- Archive, C =:= Codec, S =:= Shape]).

-spec same([esdb_demo_archive:result()]) -> string().
same(Results) ->
    case lists:all(fun(#{same := Same}) -> Same end, Results) of
        true -> "yes";
        false -> "NO"
    end.

%% What was measured on a part of the events is scaled to all of them, and marked.
-spec scaled(
    fun((non_neg_integer()) -> unicode:chardata()),
    non_neg_integer(),
    esdb_demo_archive:result(),
    pos_integer()
) -> unicode:chardata().
scaled(Format, Value, #{events := Events}, Events) -> Format(Value);
scaled(Format, Value, #{events := Part}, Events) -> ["~", Format(round(Value * Events / Part))].

-spec codec_name(esdb_demo_archive:codec()) -> string().
codec_name(zlib) -> "zlib";
codec_name(lz4) -> "LZ4";
codec_name(zstd) -> "zstd";
codec_name(zstd_dictionary) -> "zstd, dictionary".

-spec archive_notes(result(), style()) -> unicode:chardata().
archive_notes(#{here := #{facts := #{events := Events}}} = Result, Style) ->
    All = [R || #{archive := Rs} <- measured(Result), R <- Rs],
    Dictionary =
        case [R || #{codec := zstd_dictionary} = R <- All] of
            [] -> "no dictionary: too few events to train one";
            _ -> "dictionary: 32 KiB, trained on at most 4,000 of these events"
        end,
    Least = lists:min([N || #{events := N} <- All]),
    [
        esdb_demo_chart:note("same: read back, each event is byte for byte what it was", Style),
        esdb_demo_chart:note(Dictionary, Style),
        [esdb_demo_chart:note("zlib is OTP's own in both columns", Style) || two_columns(Result)],
        [
            esdb_demo_chart:note(
                [
                    "~ measured on the first events only, ",
                    esdb_demo_chart:number(Least),
                    " at least, and scaled to all"
                ],
                Style
            )
         || Least < Events
        ]
    ].

-spec two_columns(result()) -> boolean().
two_columns(#{there := There}) ->
    element(1, There) =:= ok.

%% Times

-spec times(result(), style()) -> unicode:chardata().
times(#{there := There} = Result, Style) ->
    [
        esdb_demo_chart:heading("Time by step", Style),
        esdb_demo_chart:table([times_head(Result) | [times_row(S, Result) || S <- steps()]], Style),
        case There of
            {ok, _} ->
                [
                    esdb_demo_chart:note("Rust: this node. Erlang: a second node with", Style),
                    esdb_demo_chart:note("ESDB_NIF=off. The same steps on the same events,", Style),
                    esdb_demo_chart:note("one node at a time.", Style)
                ];
            {none, Why} ->
                esdb_demo_chart:note(Why, Style)
        end
    ].

-spec times_head(result()) -> [string()].
times_head(#{there := {ok, _}}) -> ["", "Rust", "Erlang", "faster"];
times_head(#{implementation := nif}) -> ["", "Rust"];
times_head(_) -> ["", "Erlang"].

-spec steps() -> [{append | fold | spread | keep | ask | train, string()}].
steps() ->
    [
        {append, "append to the store"},
        {fold, "read all back and fold"},
        {spread, "XXH3 of ids and streams"},
        {keep, "pack into segments"},
        {ask, "ask all questions"},
        {train, "train the dictionary"}
    ].

-spec times_row({atom(), string()}, result()) -> [unicode:chardata()].
times_row({Step, Name}, Result) ->
    case step_times(Step, Result) of
        [Rust, Erlang] ->
            Faster = esdb_demo_chart:ratio(Erlang / max(1, Rust)),
            [Name, esdb_demo_chart:duration(Rust), esdb_demo_chart:duration(Erlang), Faster];
        [One] ->
            [Name, esdb_demo_chart:duration(One)]
    end.

-spec step_times(atom(), result()) -> [non_neg_integer()].
step_times(append, #{imported := #{append_us := Micros}}) ->
    Micros;
step_times(Step, Result) ->
    [maps:get(Step, Times) || #{times := Times} <- measured(Result)].

-spec ending(result(), style()) -> unicode:chardata().
ending(#{elapsed_us := Elapsed} = Result, Style) ->
    [
        "\n",
        case failures(Result) of
            [] -> ["  Done in ", esdb_demo_chart:duration(Elapsed), ".\n", agreement(Result)];
            Failures -> [["  ", esdb_demo_chart:alarm(F, Style), "\n"] || F <- Failures]
        end
    ].

-spec agreement(result()) -> string().
agreement(#{there := {ok, _}}) ->
    "  Rust and Erlang found the same, and each reads what the other one packed.\n";
agreement(_) ->
    "".

%% Helpers

-spec per_second(non_neg_integer(), non_neg_integer()) -> non_neg_integer().
per_second(Events, Us) ->
    Events * 1_000_000 div max(1, Us).

-spec counted(non_neg_integer(), string()) -> string().
counted(1, Thing) -> "1 " ++ Thing;
counted(N, Thing) -> esdb_demo_chart:number(N) ++ " " ++ Thing ++ "s".

-spec answer(types | areas | chain, result()) -> esdb_demo_questions:answer().
answer(Question, #{here := #{asked := Asked}}) ->
    esdb_demo_questions:answer(Question, Asked).

-spec most_first(#{Key => number()}) -> [{Key, number()}].
most_first(Counts) ->
    [{Key, -N} || {N, Key} <- lists:sort([{-N, Key} || Key := N <- Counts])].

-spec more(integer(), string(), style()) -> unicode:chardata().
more(0, _, _) -> [];
more(N, Thing, Style) -> esdb_demo_chart:note(["and ", counted(N, Thing), " more"], Style).

-spec unit(esdb_demo_calendar:unit()) -> string().
unit(week) -> "week, from Monday";
unit({years, N}) -> integer_to_list(N) ++ " years";
unit(Unit) -> atom_to_list(Unit).

-spec short(binary()) -> unicode:chardata().
short(Id) ->
    esdb_demo_chart:label(string:slice(Id, 0, ?NARROW), ?NARROW).
