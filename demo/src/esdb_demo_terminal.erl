-module(esdb_demo_terminal).
-moduledoc """
What the place that the demo prints to can show, and the line that shows how far it is.

On a terminal that line is a bar, drawn over itself; elsewhere it is a plain line now and then.
`NO_COLOR` (any value) and `TERM=dumb` turn colours off. Without a UTF-8 locale only ASCII is used.

```erlang
1> esdb_demo_terminal:style().
#{unicode => true,width => 80,colour => true,live => true}
```
""".

-export([style/0, style/2, prepare/0]).
-export([progress/2, step/3, finish/2, say/2, clear/1, print/2]).
-export_type([style/0, progress/0]).

-type style() :: #{
    unicode := boolean(),
    colour := boolean(),
    %% Whether a line can be drawn over itself.
    live := boolean(),
    width := 40..120
}.

-record(progress, {
    task :: unicode:chardata(),
    style :: style(),
    %% What was shown last: a time in ms on a terminal, else a number of quarters.
    last = none :: none | integer()
}).

-opaque progress() :: #progress{}.

-define(REDRAW_MS, 80).
-define(BAR, 32).

-doc "Sets up standard output: no log lines between the report's, and none when it is closed.".
-spec prepare() -> ok.
prepare() ->
    ok = logger:set_primary_config(level, none),
    ok.

-doc "The style for standard output.".
-spec style() -> style().
style() ->
    Options =
        case io:getopts() of
            {error, _} -> [];
            Known -> Known
        end,
    style(Options, fun os:getenv/1).

-doc "The style for the given `io:getopts/0` options and environment.".
-spec style([proplists:property()], fun((string()) -> string() | false)) -> style().
style(Options, GetEnv) ->
    %% OTP 27 knows `terminal` only, newer ones each of the three streams.
    Terminal = proplists:get_value(stdout, Options, proplists:get_value(terminal, Options, false)),
    Live = Terminal =:= true andalso GetEnv("TERM") =/= "dumb",
    #{
        unicode => proplists:get_value(encoding, Options) =:= unicode andalso is_utf8(GetEnv),
        colour => Live andalso lists:member(GetEnv("NO_COLOR"), [false, ""]),
        live => Live,
        width => width(GetEnv("COLUMNS"))
    }.

%% The first of the three that is set decides (POSIX, "Internationalization Variables").
-spec is_utf8(fun((string()) -> string() | false)) -> boolean().
is_utf8(GetEnv) ->
    Set = [V || Name <- ["LC_ALL", "LC_CTYPE", "LANG"], V <- [GetEnv(Name)], V =/= false, V =/= ""],
    case Set of
        [] -> false;
        [Locale | _] -> re:run(Locale, "utf-?8", [caseless, {capture, none}]) =:= match
    end.

-spec width(string() | false) -> 40..120.
width(false) ->
    80;
width(Columns) ->
    case string:to_integer(Columns) of
        {N, ""} when is_integer(N), N > 0 -> max(40, min(120, N - 1));
        _ -> 80
    end.

-doc "The start of a progress line about a task.".
-spec progress(Task :: unicode:chardata(), style()) -> progress().
progress(Task, Style) ->
    #progress{task = Task, style = Style}.

-doc "Shows how far the task is; too small a step shows nothing.".
-spec step(Share :: float() | unknown, Events :: non_neg_integer(), progress()) -> progress().
step(Share, Events, #progress{style = #{live := true} = Style, last = Last} = Progress) ->
    Now = erlang:monotonic_time(millisecond),
    case Last =:= none orelse Now - Last >= ?REDRAW_MS of
        true ->
            redraw(bar_line(Progress#progress.task, Share, Events, Style), Style),
            Progress#progress{last = Now};
        false ->
            Progress
    end;
step(Share, Events, #progress{task = Task, last = Last} = Progress) ->
    case quarter(Share) of
        Last ->
            Progress;
        Quarter ->
            io:put_chars(plain_line(Task, Quarter, Events)),
            Progress#progress{last = Quarter}
    end.

-doc "Shows that the task is done and takes the line away where that can be.".
-spec finish(Events :: non_neg_integer(), progress()) -> ok.
finish(_, #progress{style = #{live := true} = Style}) -> clear(Style);
finish(Events, #progress{task = Task}) -> io:put_chars(plain_line(Task, 4, Events)).

-doc "Says what is being done: for the moment on a terminal, as a line elsewhere.".
-spec say(unicode:chardata(), style()) -> ok.
say(Text, #{live := true} = Style) -> redraw(Text, Style);
say(Text, _) -> io:put_chars([Text, "\n"]).

-doc "Takes away what was said or shown for the moment.".
-spec clear(style()) -> ok.
clear(#{live := true} = Style) ->
    redraw("", Style),
    io:put_chars("\r");
clear(_) ->
    ok.

-doc "Prints a text; without Unicode each character outside of ASCII is a question mark.".
-spec print(unicode:chardata(), style()) -> ok.
print(Text, #{unicode := true}) ->
    io:put_chars(Text);
print(Text, _) ->
    io:put_chars([ascii(C) || C <- unicode:characters_to_list(Text)]).

-spec ascii(char()) -> char().
ascii(C) when C < 128 -> C;
ascii(_) -> $?.

-spec redraw(unicode:chardata(), style()) -> ok.
redraw(Text, #{width := Width}) ->
    io:put_chars(["\r", string:pad(string:slice(Text, 0, Width - 1), Width - 1)]).

%% Of a whole that is not finished yet three quarters are shown.
-spec quarter(float() | unknown) -> 0..3.
quarter(unknown) -> 0;
quarter(Share) -> min(3, trunc(Share * 4)).

-spec plain_line(unicode:chardata(), 0..4, non_neg_integer()) -> unicode:chardata().
plain_line(Task, 0, _) ->
    [Task, "\n"];
plain_line(Task, Quarter, Count) ->
    [Task, io_lib:format(": ~b %, ", [Quarter * 25]), esdb_demo_chart:number(Count), " events\n"].

-spec bar_line(unicode:chardata(), float() | unknown, non_neg_integer(), style()) ->
    unicode:chardata().
bar_line(Task, Share, Count, Style) ->
    [Task, " ", bar(Share, Style), " ", esdb_demo_chart:number(Count), " events"].

-spec bar(float() | unknown, style()) -> unicode:chardata().
bar(unknown, _) ->
    "...";
bar(Share, #{width := Width} = Style) ->
    Cells = max(8, min(?BAR, Width - 48)),
    Filled = esdb_demo_chart:bar(Share, 1, Cells, Style),
    ["[", string:pad(Filled, Cells), "]", io_lib:format("~4b %", [round(Share * 100)])].
