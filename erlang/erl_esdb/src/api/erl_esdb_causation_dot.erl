-module(erl_esdb_causation_dot).
-moduledoc """
Graphs of causation as text for Graphviz, and drawn by it.

Ids stand in quotes, because most are no names in its language. Beside each edge stands a comment
without quotes, `// evt-1 -> evt-2`: that is what some readers of these files look for. Text and
escapes are those of `esdb_graph_nif:to_dot/2`.
""".

-export([text/2, svg/2]).
-export_type([reason/0]).

-include("erl_esdb.hrl").

-type reason() ::
    graphviz_not_found | graphviz_timeout | {graphviz_failed, Status :: non_neg_integer() | term()}.

%% A port cannot close one direction alone, so `head' ends the text after so many bytes; `cat' takes
%% what a program does not read that ends early. The limit, in seconds of a processor, is for one
%% that still runs when nobody waits for it any more.
-define(SCRIPT, <<
    "ulimit -t \"$3\"; exec 2>/dev/null; "
    "head -c \"$1\" | { \"$2\" -Tsvg; status=$?; cat >/dev/null; exit $status; }"
>>).

-doc "The text for events and edges; without either it has no lines but its first and last.".
-spec text([event()], [{binary(), binary()}]) -> binary().
text([], []) ->
    ~"digraph causation {\n}\n";
text(Nodes, Edges) ->
    Boxes = [{Id, Id, Type} || #event{event_id = Id, event_type = Type} <- Nodes],
    Text = esdb_graph_nif:to_dot(Boxes, Edges),
    Open = binary:part(Text, 0, byte_size(Text) - byte_size(~"}\n")),
    Comments = [
        ["  // ", in_line(From), " -> ", in_line(To), $\n]
     || {From, To} <- lists:uniq(Edges)
    ],
    iolist_to_binary([Open, Comments, "}\n"]).

%% A comment ends with its line: no id may end it earlier.
-spec in_line(binary()) -> binary().
in_line(Id) ->
    case unicode:characters_to_binary(Id) of
        Id -> << <<(shown(C))/binary>> || <<C/utf8>> <= Id >>;
        _ -> << <<(shown(C))/binary>> || <<C>> <= Id >>
    end.

-spec shown(char()) -> binary().
shown(C) when C < 32; C >= 127, C < 160; C =:= 16#2028; C =:= 16#2029 ->
    iolist_to_binary(io_lib:format("\\x~2.16.0B", [C]));
shown(C) ->
    <<C/utf8>>.

-doc "Has Graphviz draw the text, in so many milliseconds.".
-spec svg(binary(), timeout()) -> {ok, binary()} | {error, reason()}.
svg(Text, Timeout) ->
    erl_esdb_store:is_timeout(Timeout) orelse error(badarg),
    case {os:find_executable("dot"), os:find_executable("sh")} of
        {Dot, Shell} when is_list(Dot), is_list(Shell) -> drawn(Shell, Dot, Text, Timeout);
        _ -> {error, graphviz_not_found}
    end.

%% In a process of its own: the port goes with it, wherever it waits. Its answer is its end.
-dialyzer({nowarn_function, drawn/4}).
-spec drawn(string(), string(), binary(), timeout()) -> {ok, binary()} | {error, reason()}.
drawn(Shell, Dot, Text, Timeout) ->
    Args = ["-c", ?SCRIPT, "sh", integer_to_list(byte_size(Text)), Dot, seconds(Timeout)],
    {Pid, Ref} = spawn_monitor(fun() -> exit({answer, draw(Shell, Args, Text)}) end),
    receive
        {'DOWN', Ref, process, Pid, {answer, Answer}} -> Answer
    after Timeout ->
        exit(Pid, kill),
        receive
            {'DOWN', Ref, process, Pid, _} -> {error, graphviz_timeout}
        end
    end.

-spec seconds(timeout()) -> string().
seconds(infinity) -> "unlimited";
seconds(Timeout) -> integer_to_list(Timeout div 1000 + 1).

-spec draw(string(), [string() | binary()], binary()) -> {ok, binary()} | {error, reason()}.
draw(Shell, Args, Text) ->
    process_flag(trap_exit, true),
    Port = open_port({spawn_executable, Shell}, [{args, Args}, binary, exit_status, hide]),
    Port ! {self(), {command, Text}},
    received(Port, []).

-spec received(port(), [binary()]) -> {ok, binary()} | {error, reason()}.
received(Port, Pieces) ->
    receive
        {Port, {data, Piece}} -> received(Port, [Piece | Pieces]);
        {Port, {exit_status, 0}} -> {ok, iolist_to_binary(lists:reverse(Pieces))};
        {Port, {exit_status, Status}} -> {error, {graphviz_failed, Status}};
        {'EXIT', Port, Reason} -> {error, {graphviz_failed, Reason}}
    end.
