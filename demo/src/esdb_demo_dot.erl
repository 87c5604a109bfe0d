-module(esdb_demo_dot).
-moduledoc """
A part of the causation graph as a drawing in the DOT language of Graphviz.

A history of thousands of commits is no picture, so the end of the longest chain is drawn, and
around it the other parents of its merges and the commits that its commits caused.

```erlang
1> esdb_demo_dot:text(#{chain => [], nodes => [], edges => []}).
<<"digraph causation {\n}\n">>
```
""".

-export([select/2, text/1, write/2]).
-export_type([selection/0, written/0]).

-type selection() :: #{
    %% The drawn end of the longest chain.
    chain := [binary()],
    nodes := [esdb_demo_event:commit()],
    %% The first cause of an event (`cause`), or a further parent of a merge.
    edges := [{From :: binary(), To :: binary(), cause | parent}]
}.
%% Lines about the drawing, or why there is none.
-type written() :: {ok, [unicode:chardata()]} | {error, Sentence :: binary()}.
-type fold() :: fun((fun((esdb_demo_event:commit(), Acc) -> Acc), Acc) -> Acc).

-define(CHAIN, 40).
-define(NEIGHBOURS, 60).
-define(DOT_MS, 20_000).
%% Characters of a stream's name in a box.
-define(NAME, 40).
%% Bytes of an id up to which it stands for itself in the drawing.
-define(ID, 64).

-doc """
Chooses what to draw: the last 40 events of the chain and at most 60 neighbours.

`Fold` folds over all events and is called twice.
""".
-spec select(Chain :: [binary()], fold()) -> selection().
select(Chain, Fold) ->
    End = lists:nthtail(max(0, length(Chain) - ?CHAIN), Chain),
    InChain = #{Id => [] || Id <- End},
    Parents = Fold(fun(E, In) -> other_parents(E, InChain, In) end, #{}),
    {Members, Around, _} = Fold(
        fun(Event, In) -> pick(Event, InChain, Parents, In) end, {[], [], ?NEIGHBOURS}
    ),
    Nodes = lists:reverse(Around, lists:reverse(Members)),
    Drawn = #{Id => [] || #{event_id := Id} <- Nodes},
    #{chain => End, nodes => Nodes, edges => lists:append([edges(E, Drawn) || E <- Nodes])}.

-spec other_parents(esdb_demo_event:commit(), #{binary() => []}, #{binary() => []}) ->
    #{binary() => []}.
other_parents(#{event_id := Id} = Event, InChain, In) when is_map_key(Id, InChain) ->
    lists:foldl(fun(Parent, Acc) -> Acc#{Parent => []} end, In, parents(Event));
other_parents(_, _, In) ->
    In.

-spec pick(Event, #{binary() => []}, #{binary() => []}, Picked) -> Picked when
    Event :: esdb_demo_event:commit(), Picked :: {[Event], [Event], non_neg_integer()}.
pick(#{event_id := Id} = Event, InChain, Parents, {Members, Around, Room}) ->
    Near = is_map_key(Id, Parents) orelse is_map_key(cause(Event), InChain),
    if
        is_map_key(Id, InChain) -> {[Event | Members], Around, Room};
        Near, Room > 0 -> {Members, [Event | Around], Room - 1};
        true -> {Members, Around, Room}
    end.

-spec edges(esdb_demo_event:commit(), #{binary() => []}) -> [{binary(), binary(), cause | parent}].
edges(#{event_id := Id} = Event, Drawn) ->
    Cause = cause(Event),
    [{Cause, Id, cause} || is_map_key(Cause, Drawn)] ++
        [{P, Id, parent} || P <- parents(Event), P =/= Cause, is_map_key(P, Drawn)].

-spec cause(esdb_demo_event:commit()) -> binary() | none.
cause(#{metadata := #{~"causation_id" := Cause}}) when is_binary(Cause) -> Cause;
cause(_) -> none.

-spec parents(esdb_demo_event:commit()) -> [binary()].
parents(#{metadata := #{~"parents" := Parents}}) when is_list(Parents) ->
    lists:usort([P || P <- Parents, is_binary(P)]);
parents(_) ->
    [].

-doc "The drawing; every name is quoted, so that no input can end it.".
-spec text(selection()) -> binary().
text(#{nodes := [], edges := []}) ->
    ~"digraph causation {\n}\n";
text(#{chain := Chain, nodes := Nodes, edges := Edges}) ->
    Bold = #{Id => [] || Id <- Chain},
    esdb_demo_text:binary([
        "digraph causation {\n",
        "  rankdir=LR;\n",
        "  node [shape=box, style=\"rounded,filled\", fillcolor=\"#f4f4f4\", color=\"#999999\",",
        " fontname=\"Helvetica\", fontsize=10];\n",
        "  edge [color=\"#999999\"];\n",
        [node_line(Node, Bold) || Node <- Nodes],
        [edge_line(Edge, Bold) || Edge <- Edges],
        "}\n"
    ]).

-spec node_line(esdb_demo_event:commit(), #{binary() => []}) -> unicode:chardata().
node_line(#{event_id := Id, stream_id := Stream, epoch_us := Time} = Event, Bold) ->
    Name = esdb_demo_chart:label(Stream, ?NAME),
    Lines = [string:slice(Id, 0, 10), Name, esdb_demo_calendar:date(Time), changes(Event)],
    Label = lists:join("\\n", [escape(L) || L <- Lines]),
    Look = [", fillcolor=\"#cfe8ff\", color=\"#1f6fb2\"" || is_map_key(Id, Bold)],
    ["  ", node_name(Id), " [label=\"", Label, "\"", Look, "];\n"].

-spec changes(esdb_demo_event:commit()) -> unicode:chardata().
changes(#{data := #{~"insertions" := I, ~"deletions" := D}}) when is_integer(I), is_integer(D) ->
    io_lib:format("+~b -~b", [I, D]);
changes(_) ->
    "".

-spec edge_line({binary(), binary(), cause | parent}, #{binary() => []}) -> unicode:chardata().
edge_line({From, To, parent}, _) ->
    ["  ", node_name(From), " -> ", node_name(To), " [style=dashed];\n"];
edge_line({From, To, cause}, Bold) when is_map_key(From, Bold), is_map_key(To, Bold) ->
    ["  ", node_name(From), " -> ", node_name(To), " [color=\"#1f6fb2\", penwidth=2];\n"];
edge_line({From, To, cause}, _) ->
    ["  ", node_name(From), " -> ", node_name(To), ";\n"].

%% An id can be as long as a line of the source may be: the digest of a long one stands for it.
-spec node_name(binary()) -> unicode:chardata().
node_name(Id) when byte_size(Id) =< ?ID -> ["\"", escape(Id), "\""];
node_name(Id) -> node_name(binary:encode_hex(crypto:hash(sha256, Id), lowercase)).

%% In a quoted string of DOT only quotes and backslashes are special; control characters, a zero
%% byte above all, do not belong into it.
-spec escape(unicode:chardata()) -> unicode:chardata().
escape(Text) -> [escape_char(C) || C <- unicode:characters_to_list(Text)].

-spec escape_char(char()) -> string().
escape_char($") -> "\\\"";
escape_char($\\) -> "\\\\";
escape_char(C) when C < 32; C =:= 127 -> io_lib:format("?~2.16.0b", [C]);
escape_char(C) -> [C].

-doc """
Writes `causation.dot` into a folder, and `causation.svg` where there is Graphviz; returns the lines
about it for the report.

## Errors
One sentence for people when the folder cannot be written to. No SVG is no error.
""".
-spec write(file:filename(), selection()) -> written().
write(Folder, #{chain := Chain, nodes := Nodes} = Selection) ->
    Path = filename:join(Folder, "causation.dot"),
    case write_file(Path, text(Selection)) of
        ok ->
            What = io_lib:format("~ts: its last ~b and ~b around them", [
                Path, length(Chain), length(Nodes) - length(Chain)
            ]),
            {ok, [What | svg(Path, filename:join(Folder, "causation.svg"))]};
        {error, Reason} ->
            Why = ["cannot write ", Path, ": ", file:format_error(Reason)],
            {error, esdb_demo_text:binary(Why)}
    end.

-spec write_file(file:filename(), binary()) ->
    ok | {error, file:posix() | badarg | terminated | system_limit}.
write_file(Path, Text) ->
    maybe
        ok ?= filelib:ensure_dir(Path),
        file:write_file(Path, Text)
    end.

-spec svg(file:filename(), file:filename()) -> [unicode:chardata()].
svg(Dot, Svg) ->
    %% A picture of an earlier run must not stand beside the text of this one.
    _ = file:delete(Svg),
    case esdb_demo_program:run("dot", ["-Tsvg", "-o", Svg, Dot], ?DOT_MS) of
        {ok, 0, _} -> [Svg];
        {ok, Status, _} -> [io_lib:format("no picture: dot ended with ~b", [Status])];
        {error, not_found} -> ["no picture: there is no dot (Graphviz) on the PATH"];
        {error, timeout} -> ["no picture: dot was stopped after 20 seconds"]
    end.
