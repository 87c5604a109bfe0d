-module(esdb_graph_dot).
-moduledoc """
Graphs as text for Graphviz; the same code in both implementations of `esdb_graph_nif`.

A node is called by the text of its id. What cannot stand in a file of text (control characters,
bytes that are no UTF-8) is written as `\\xHH`. Where two ids have the same text, as `a` and
`~"a"` have, the second gets its number behind it: nodes are never confused.
""".

-export([text/2]).

-doc "The file, of nodes with labels (in several lines) and of edges.".
-spec text([{Id, Lines :: [term()]}], [{From :: Id, To :: Id}]) -> binary() when Id :: term().
text(Nodes, Edges) ->
    Named = named(Nodes, #{}, #{}, []),
    Names = #{Id => Name || {Id, Name, _} <- Named},
    iolist_to_binary([
        "digraph causation {\n  rankdir=TB;\n  node [shape=box];\n",
        [node_line(Name, Lines) || {_, Name, Lines} <- Named],
        edge_lines(Edges, Names, #{}),
        "}\n"
    ]).

-spec node_line(binary(), [term()]) -> iolist().
node_line(Name, Lines) ->
    Label = lists:join("\\n", [label(Line) || Line <- Lines]),
    ["  \"", Name, "\" [label=\"", Label, "\"];\n"].

%% In labels Graphviz reads `&lt;` and the like.
-spec label(term()) -> binary().
label(Line) -> binary:replace(escaped(Line), ~"&", ~"&amp;", [global]).

%% Each edge once, and only between nodes that are there.
-spec edge_lines([{term(), term()}], #{term() => binary()}, #{{term(), term()} => []}) -> iolist().
edge_lines([{From, To} = Edge | Edges], Names, Seen) ->
    case Names of
        #{From := A, To := B} when not is_map_key(Edge, Seen) ->
            Line = ["  \"", A, "\" -> \"", B, "\";\n"],
            [Line | edge_lines(Edges, Names, Seen#{Edge => []})];
        #{} ->
            edge_lines(Edges, Names, Seen)
    end;
edge_lines([], _, _) ->
    [];
edge_lines(_, _, _) ->
    error(badarg).

%% The first of the nodes with an id counts.
-spec named([{Id, [term()]}], #{Id => []}, #{binary() => []}, Named) -> Named when
    Id :: term(), Named :: [{Id, Name :: binary(), Lines :: [term()]}].
named([{Id, _} | Nodes], Ids, Used, Named) when is_map_key(Id, Ids) ->
    named(Nodes, Ids, Used, Named);
named([{Id, Lines} | Nodes], Ids, Used, Named) ->
    Name = free(escaped(Id), map_size(Ids) + 1, Used),
    named(Nodes, Ids#{Id => []}, Used#{Name => []}, [{Id, Name, Lines} | Named]);
named([], _, _, Named) ->
    lists:reverse(Named).

%% Adds the number until nobody has the name.
-spec free(binary(), pos_integer(), #{binary() => []}) -> binary().
free(Name, Number, Used) when is_map_key(Name, Used) ->
    free(<<Name/binary, " #", (integer_to_binary(Number))/binary>>, Number, Used);
free(Name, _, _) ->
    Name.

%% What stands between quotes: only `\"` means something else than itself to the reader of the
%% file, so `\\` stays two characters in names and becomes one in labels.
-spec escaped(term()) -> binary().
escaped(Term) ->
    Text = as_text(Term),
    case is_simple(Text) of
        true -> Text;
        false -> spelt(Text)
    end.

%% Most ids are: nothing in them needs to be written in another way.
-spec is_simple(binary()) -> boolean().
is_simple(<<C, Rest/binary>>) when C >= 32, C < 127, C =/= $", C =/= $\\ -> is_simple(Rest);
is_simple(Rest) -> Rest =:= <<>>.

-spec spelt(binary()) -> binary().
spelt(Text) ->
    case unicode:characters_to_binary(Text) of
        Text -> << <<(in_text(C))/binary>> || <<C/utf8>> <= Text >>;
        _ -> << <<(in_bytes(C))/binary>> || <<C>> <= Text >>
    end.

-spec in_text(char()) -> binary().
in_text($") -> ~B(\");
in_text($\\) -> ~B(\\);
in_text($\n) -> ~B(\n);
in_text($\t) -> ~"\t";
in_text(C) when C < 32; C >= 127, C < 160 -> as_hex(C);
in_text(C) when C =:= 16#FFFE; C =:= 16#FFFF -> as_hex(C);
in_text(C) -> <<C/utf8>>.

-spec in_bytes(byte()) -> binary().
in_bytes(C) when C < 128 -> in_text(C);
in_bytes(C) -> as_hex(C).

-spec as_hex(char()) -> binary().
as_hex(C) -> iolist_to_binary(io_lib:format("\\\\x~2.16.0B", [C])).

-spec as_text(term()) -> binary().
as_text(Term) when is_binary(Term) -> Term;
as_text(Term) when is_atom(Term) -> atom_to_binary(Term);
as_text(Term) when is_integer(Term) -> integer_to_binary(Term);
as_text([_ | _] = Term) ->
    case io_lib:printable_unicode_list(Term) of
        true -> <<<<C/utf8>> || C <- Term>>;
        false -> as_syntax(Term)
    end;
as_text(Term) -> as_syntax(Term).

%% Keys of maps in order: the same text on every node.
-spec as_syntax(term()) -> binary().
as_syntax(Term) -> <<<<C/utf8>> || C <- lists:flatten(io_lib:format("~0tkp", [Term]))>>.
