-module(esdb_demo_chart).
-moduledoc """
Numbers, bars, sparklines and tables as text.

Everything is built from a `t:esdb_demo_terminal:style/0` and returned, nothing is printed here.

```erlang
1> io:put_chars(esdb_demo_chart:bars([{"lib", 120, ""}, {"src", 45, ""}],
                                     #{unicode => false, colour => false, width => 40})).
  lib ######################### 120
  src #########                  45
```
""".

-export([number/1, percent/2, bytes/1, duration/1, ratio/1]).
-export([bar/4, bars/2, sparkline/3, table/2, label/2]).
-export([heading/2, note/2, alarm/2, paragraph/2]).

-type style() :: #{unicode := boolean(), colour := boolean(), width := pos_integer(), _ => _}.

-define(FULL, 16#2588).
-define(LABEL, 20).

%% Numbers

-doc "A whole number with commas between thousands.".
-spec number(integer()) -> string().
number(N) when N < 0 -> "-" ++ number(-N);
number(N) when N < 1000 -> integer_to_list(N);
number(N) -> number(N div 1000) ++ io_lib:format(",~3..0b", [N rem 1000]).

-doc "`Part` of `Whole` in percent.".
-spec percent(number(), number()) -> unicode:chardata().
percent(_, 0) -> "-";
percent(Part, Whole) -> io_lib:format("~.1f %", [100 * Part / Whole]).

-doc "A number of bytes in the unit that suits it (1 kB is 1000 B).".
-spec bytes(non_neg_integer()) -> unicode:chardata().
bytes(N) when N < 1000 -> io_lib:format("~b B", [N]);
bytes(N) when N < 1_000_000 -> io_lib:format("~.1f kB", [N / 1000]);
bytes(N) when N < 1_000_000_000 -> io_lib:format("~.2f MB", [N / 1_000_000]);
bytes(N) -> io_lib:format("~.2f GB", [N / 1_000_000_000]).

-doc "A number of microseconds in the unit that suits it.".
-spec duration(non_neg_integer()) -> unicode:chardata().
duration(Us) when Us < 1000 -> io_lib:format("~b us", [Us]);
duration(Us) when Us < 10_000 -> io_lib:format("~.1f ms", [Us / 1000]);
duration(Us) when Us < 1_000_000 -> io_lib:format("~b ms", [round(Us / 1000)]);
duration(Us) -> io_lib:format("~.2f s", [Us / 1_000_000]).

-doc "How many times.".
-spec ratio(float()) -> unicode:chardata().
ratio(X) when X >= 9.95 -> io_lib:format("~bx", [round(X)]);
ratio(X) -> io_lib:format("~.1fx", [X]).

%% Charts

-doc "A bar for `Value` where `Max` fills `Cells`; the smallest value above zero is still seen.".
-spec bar(number(), number(), pos_integer(), style()) -> string().
bar(Value, _, _, _) when Value =< 0 ->
    "";
bar(Value, Max, Cells, #{unicode := true}) ->
    Eighths = max(1, round(min(Value, Max) / Max * Cells * 8)),
    lists:duplicate(Eighths div 8, ?FULL) ++ [?FULL + 8 - R || R <- [Eighths rem 8], R > 0];
bar(Value, Max, Cells, _) ->
    lists:duplicate(max(1, round(min(Value, Max) / Max * Cells)), $#).

-doc "A bar chart: a label, a bar, the number and a remark a line.".
-spec bars([{Label, non_neg_integer(), Remark}], style()) -> [unicode:chardata()] when
    Label :: unicode:chardata(), Remark :: unicode:chardata().
bars(Rows, #{width := Width} = Style) ->
    Max = lists:max([1 | [N || {_, N, _} <- Rows]]),
    Labels = widest([label(L, ?LABEL) || {L, _, _} <- Rows]),
    Numbers = widest([number(N) || {_, N, _} <- Rows]),
    Remarks = widest([R || {_, _, R} <- Rows]),
    Cells = max(5, Width - Labels - Numbers - Remarks - 6),
    [
        line([
            "  ",
            string:pad(label(Label, ?LABEL), Labels),
            " ",
            string:pad(bar(N, Max, Cells, Style), Cells),
            " ",
            string:pad(number(N), Numbers, leading),
            "  ",
            string:pad(Remark, Remarks, leading)
        ])
     || {Label, N, Remark} <- Rows
    ].

-doc "Values as a line of at most `Cells` columns of different heights; several values share one.".
-spec sparkline([non_neg_integer()], pos_integer(), style()) -> string().
sparkline(Values, Cells, Style) ->
    Columns = columns(Values, Cells),
    Max = lists:max([1 | Columns]),
    [height(V, Max, Style) || V <- Columns].

%% The mean of each share of the values, so that a last, shorter share does not look low.
-spec columns([non_neg_integer()], pos_integer()) -> [number()].
columns(Values, Cells) ->
    Per = max(1, (length(Values) + Cells - 1) div Cells),
    means(Values, length(Values), Per).

-spec means([number()], non_neg_integer(), pos_integer()) -> [number()].
means([], _, _) ->
    [];
means(Values, Left, Per) ->
    Take = min(Left, Per),
    {Share, More} = lists:split(Take, Values),
    [lists:sum(Share) / Take | means(More, Left - Take, Per)].

-spec height(number(), number(), style()) -> char().
height(V, _, _) when V == 0 -> $\s;
height(V, Max, #{unicode := true}) -> 16#2580 + max(1, round(V / Max * 8));
height(V, Max, _) -> lists:nth(max(1, round(V / Max * 6)), ".:-=+#").

-doc "Rows in columns: the first one to the left, the others to the right.".
-spec table([[unicode:chardata()]], style()) -> unicode:chardata().
table(Rows, _Style) ->
    Widths = column_widths(Rows),
    [line(["  " | cells(Row, Widths)]) || Row <- Rows].

-spec column_widths([[unicode:chardata()]]) -> [non_neg_integer()].
column_widths([First | _] = Rows) ->
    lists:foldl(
        fun(Row, Widths) -> lists:zipwith(fun max/2, [string:length(C) || C <- Row], Widths) end,
        [0 || _ <- First],
        Rows
    ).

-spec cells([unicode:chardata()], [non_neg_integer()]) -> unicode:chardata().
cells([First | Rest], [Width | Widths]) ->
    [
        string:pad(First, Width)
        | [["  ", string:pad(C, W, leading)] || {C, W} <- lists:zip(Rest, Widths)]
    ].

-doc "A name from outside as it can be printed: no control characters, at most `Max` long.".
-spec label(unicode:chardata(), pos_integer()) -> unicode:chardata().
label(Name, Max) ->
    Clean = [printable(C) || C <- unicode:characters_to_list(Name)],
    case string:length(Clean) > Max of
        true -> [string:slice(Clean, 0, Max - 2), ".."];
        false -> Clean
    end.

%% C0, DEL and C1, and what turns the direction of writing.
-spec printable(char()) -> char().
printable(C) when C < 32; C >= 127, C < 160 -> $?;
printable(C) when C >= 16#202A, C =< 16#202E; C >= 16#2066, C =< 16#2069 -> $?;
printable(C) -> C.

%% Text

-doc "A heading.".
-spec heading(unicode:chardata(), style()) -> unicode:chardata().
heading(Text, Style) -> ["\n", paint("1;36", Text, Style), "\n"].

-doc "A remark under a chart.".
-spec note(unicode:chardata(), style()) -> unicode:chardata().
note(Text, Style) -> ["  ", paint("2", Text, Style), "\n"].

-doc "Something that should not be.".
-spec alarm(unicode:chardata(), style()) -> unicode:chardata().
alarm(Text, Style) -> paint("1;31", Text, Style).

-doc "Words in lines that fit, indented.".
-spec paragraph([unicode:chardata()], style()) -> unicode:chardata().
paragraph(Words, #{width := Width}) ->
    {Lines, Last, _} = lists:foldl(
        fun(Word, Acc) -> word(Word, string:length(Word), Width - 4, Acc) end, {[], [], 0}, Words
    ),
    [["    ", Line, "\n"] || Line <- lists:reverse([Last | Lines])].

-spec word(unicode:chardata(), non_neg_integer(), integer(), {Lines, Line, non_neg_integer()}) ->
    {Lines, Line, non_neg_integer()}
when
    Lines :: [unicode:chardata()], Line :: unicode:chardata().
word(Word, Length, _Width, {Lines, _, 0}) -> {Lines, Word, Length};
word(Word, Length, Width, {Lines, Line, Size}) when Size + 1 + Length =< Width ->
    {Lines, [Line, " ", Word], Size + 1 + Length};
word(Word, Length, _Width, {Lines, Line, _}) -> {[Line | Lines], Word, Length}.

-spec paint(string(), unicode:chardata(), style()) -> unicode:chardata().
paint(Code, Text, #{colour := true}) -> ["\e[", Code, "m", Text, "\e[0m"];
paint(_, Text, _) -> Text.

-spec line(unicode:chardata()) -> unicode:chardata().
line(Text) -> [string:trim(Text, trailing, " "), "\n"].

-spec widest([unicode:chardata()]) -> non_neg_integer().
widest(Texts) -> lists:max([0 | [string:length(T) || T <- Texts]]).
