-module(erl_esdb_metrics_text).
-moduledoc """
A strict reader of Prometheus' text format, version 0.0.4, independent of the library that writes.

It asks for more than the format does: HELP and TYPE, in any order, before the samples of a metric,
all in one group, with blank lines between groups only; no timestamps, no comments, no series twice;
and of a histogram rising buckets that end with `+Inf`, a sum and a count.
""".

-export([parse/1, sample/3, samples/2]).
-export_type([family/0]).

-type labels() :: #{binary() => binary()}.
-type family() :: #{
    type := binary(),
    help := binary(),
    samples := [{Name :: binary(), labels(), Value :: number() | infinity | nan}]
}.

-doc "The metrics by their names, or why the line with this number is none of the format.".
-spec parse(binary()) -> {ok, #{binary() => family()}} | {error, {Line :: pos_integer(), term()}}.
parse(Text) ->
    try
        is_list(unicode:characters_to_list(Text)) orelse throw(no_utf8),
        <<>> =:= Text orelse binary:last(Text) =:= $\n orelse throw(no_end_of_line),
        Lines = lists:droplast(binary:split(Text, ~"\n", [global])),
        {ok, families(Lines, 1, #{})}
    catch
        throw:{Line, Reason} -> {error, {Line, Reason}};
        throw:Reason -> {error, {1, Reason}}
    end.

-doc "The value of the one sample with these labels.".
-spec sample(binary(), labels(), #{binary() => family()}) -> number() | infinity | nan | none.
sample(Name, Labels, Families) ->
    case [Value || {L, Value} <- samples(Name, Families), L =:= Labels] of
        [Value] -> Value;
        [] -> none
    end.

-doc "All samples of a name.".
-spec samples(binary(), #{binary() => family()}) -> [{labels(), number() | infinity | nan}].
samples(Name, Families) ->
    [
        {Labels, Value}
     || #{samples := Samples} <- maps:values(Families), {N, Labels, Value} <- Samples, N =:= Name
    ].

%% ---- families: HELP, TYPE and samples

families([], _Line, Families) ->
    Families;
families([<<>> | Lines], Line, Families) ->
    families(Lines, Line + 1, Families);
families([First, Second | Lines], Line, Families) ->
    {Name, Type, Help} = head(lists:sort([comment(First, Line), comment(Second, Line + 1)]), Line),
    ok = name(Name, Line),
    ok = escapes(Help, "\\n", Line),
    is_map_key(Name, Families) andalso throw({Line, {twice, Name}}),
    Types = [~"counter", ~"gauge", ~"histogram", ~"summary", ~"untyped"],
    lists:member(Type, Types) orelse throw({Line, {no_type, Type}}),
    {Samples, Others} = lists:splitwith(fun is_sample/1, Lines),
    Parsed = [sample(S, N) || {N, S} <- lists:enumerate(Line + 2, Samples)],
    lists:foreach(fun(S) -> ok = belongs(S, Type, Name, Line) end, Parsed),
    Keys = [{N, Labels} || {N, Labels, _} <- Parsed],
    length(lists:usort(Keys)) =:= length(Keys) orelse throw({Line, {series_twice, Name}}),
    ok = complete(Type, Name, Parsed, Line),
    Family = #{type => Type, help => Help, samples => Parsed},
    families(Others, Line + 2 + length(Samples), Families#{Name => Family});
families([_], Line, _Families) ->
    throw({Line, no_head}).

head([{help, Name, Help}, {type, Name, Type}], _Line) -> {Name, Type, Help};
head(_, Line) -> throw({Line, no_head}).

comment(<<"# HELP ", Rest/binary>>, Line) -> entry(help, two(Rest, Line));
comment(<<"# TYPE ", Rest/binary>>, Line) -> entry(type, two(Rest, Line));
comment(_, Line) -> throw({Line, no_head}).

entry(Kind, {Name, Text}) -> {Kind, Name, Text}.

is_sample(<<>>) -> false;
is_sample(<<"#", _/binary>>) -> false;
is_sample(_) -> true.

two(Text, Line) ->
    case binary:split(Text, ~" ") of
        [First, Second] -> {First, Second};
        [_] -> throw({Line, too_short})
    end.

belongs({Name, _, _}, ~"histogram", Of, Line) ->
    Suffix = [S || S <- [~"_bucket", ~"_sum", ~"_count"], Name =:= <<Of/binary, S/binary>>],
    Suffix =/= [] orelse throw({Line, {other_name, Name}}),
    ok;
belongs({Name, _, Value}, Type, Name, Line) ->
    Type =/= ~"counter" orelse (is_number(Value) andalso Value >= 0) orelse
        throw({Line, {negative, Name}}),
    ok;
belongs({Name, _, _}, _Type, _Of, Line) ->
    throw({Line, {other_name, Name}}).

complete(~"histogram", Name, Samples, Line) ->
    Series = lists:usort([maps:remove(~"le", Labels) || {_, Labels, _} <- Samples]),
    lists:foreach(fun(Labels) -> ok = histogram(Name, Labels, Samples, Line) end, Series);
complete(_, _, _, _) ->
    ok.

histogram(Name, Labels, Samples, Line) ->
    Buckets = [
        {bound(maps:get(~"le", L, none), Line), Value}
     || {N, L, Value} <- Samples,
        N =:= <<Name/binary, "_bucket">>,
        maps:remove(~"le", L) =:= Labels
    ],
    {Bounds, Counts} = lists:unzip(Buckets),
    Bounds =:= lists:usort(Bounds) orelse throw({Line, {bounds, Bounds}}),
    Counts =:= lists:sort(Counts) orelse throw({Line, {counts, Counts}}),
    Buckets =/= [] andalso lists:last(Bounds) =:= infinity orelse throw({Line, no_last_bucket}),
    Totals = [V || {N, L, V} <- Samples, N =:= <<Name/binary, "_count">>, L =:= Labels],
    Totals =:= [lists:last(Counts)] orelse throw({Line, {count, Totals}}),
    Sums = [V || {N, L, V} <- Samples, N =:= <<Name/binary, "_sum">>, L =:= Labels],
    length(Sums) =:= 1 orelse throw({Line, no_sum}),
    ok.

%% Atoms are greater than numbers.
bound(none, Line) -> throw({Line, no_bound});
bound(Text, Line) -> value(Text, Line).

%% ---- one sample: name{label="value",...} value

sample(Text, Line) ->
    {Name, Rest} = until(Text, "{ ", Line),
    ok = name(Name, Line),
    {Labels, Value} = labels(Rest, Line),
    {Name, Labels, value(Value, Line)}.

until(Text, Stops, Line) ->
    case string:take(Text, Stops, true) of
        {_, <<>>} -> throw({Line, too_short});
        {Before, Rest} -> {Before, Rest}
    end.

labels(<<" ", Value/binary>>, _Line) -> {#{}, Value};
labels(<<"{} ", Value/binary>>, _Line) -> {#{}, Value};
labels(<<"{", Rest/binary>>, Line) -> label(Rest, #{}, Line).

label(Text, Labels, Line) ->
    {Name, Rest} = until(Text, "=", Line),
    ok = label_name(Name, Line),
    is_map_key(Name, Labels) andalso throw({Line, {label_twice, Name}}),
    case Rest of
        <<"=\"", Quoted/binary>> ->
            {Value, After} = quoted(Quoted, <<>>, Line),
            next_label(After, Labels#{Name => Value}, Line);
        _ ->
            throw({Line, no_quote})
    end.

next_label(<<",", Rest/binary>>, Labels, Line) -> label(Rest, Labels, Line);
next_label(<<"} ", Value/binary>>, Labels, _Line) -> {Labels, Value};
next_label(_, _, Line) -> throw({Line, no_end_of_labels}).

quoted(<<"\\\\", Rest/binary>>, Value, Line) -> quoted(Rest, <<Value/binary, $\\>>, Line);
quoted(<<"\\\"", Rest/binary>>, Value, Line) -> quoted(Rest, <<Value/binary, $">>, Line);
quoted(<<"\\n", Rest/binary>>, Value, Line) -> quoted(Rest, <<Value/binary, $\n>>, Line);
quoted(<<"\\", _/binary>>, _Value, Line) -> throw({Line, unknown_escape});
quoted(<<"\"", Rest/binary>>, Value, _Line) -> {Value, Rest};
quoted(<<C, Rest/binary>>, Value, Line) -> quoted(Rest, <<Value/binary, C>>, Line);
quoted(<<>>, _Value, Line) -> throw({Line, no_quote}).

value(~"+Inf", _Line) -> infinity;
value(~"NaN", _Line) -> nan;
value(Text, Line) ->
    case re:run(Text, "^[+-]?[0-9]+(\\.[0-9]+)?(e[+-]?[0-9]+)?$", [dollar_endonly]) of
        {match, _} -> number(Text);
        nomatch -> throw({Line, {no_number, Text}})
    end.

number(Text) ->
    case string:to_float(Text) of
        {Float, <<>>} when is_float(Float) -> Float;
        _ -> integer_or_power(string:to_integer(Text))
    end.

integer_or_power({Integer, <<>>}) -> Integer;
integer_or_power({Integer, <<"e", Power/binary>>}) ->
    Integer * math:pow(10, binary_to_integer(Power)).

name(Name, Line) -> like(Name, "^[a-zA-Z_:][a-zA-Z0-9_:]*$", Line).

label_name(Name, Line) -> like(Name, "^[a-zA-Z_][a-zA-Z0-9_]*$", Line).

like(Name, Pattern, Line) ->
    case re:run(Name, Pattern, [dollar_endonly]) of
        {match, _} -> ok;
        nomatch -> throw({Line, {no_name, Name}})
    end.

%% After each backslash one of these.
escapes(Text, Allowed, Line) ->
    case binary:split(Text, ~"\\") of
        [_] -> ok;
        [_, <<C, Rest/binary>>] ->
            lists:member(C, Allowed) orelse throw({Line, unknown_escape}),
            escapes(Rest, Allowed, Line);
        [_, <<>>] -> throw({Line, unknown_escape})
    end.
