-module(esdb_events_erl).
-moduledoc false.
%% What the functions over events take: a list of maps, a packed segment, one with its dictionary,
%% or a list of segments. The first element tells what a list is one of.

-export([is_packed/1, built/1]).

-define(IS_SEGMENT(Term),
    (is_binary(Term) orelse
        (is_tuple(Term) andalso tuple_size(Term) =:= 3 andalso
            element(1, Term) =:= esdb_segment))
).

%% Whether the question is one for `esdb_segment_nif`.
-spec is_packed(term()) -> boolean().
is_packed([Segment | _]) when ?IS_SEGMENT(Segment) -> true;
is_packed(Segment) -> ?IS_SEGMENT(Segment).

%% The events of each segment, where an answer has to be made of events after all.
-spec built(esdb_segment_nif:segments()) ->
    {ok, [[map()]]} | {error, esdb_segment_nif:reason()}.
built(Segments) when is_list(Segments) ->
    are_segments(Segments) orelse error(badarg),
    built(Segments, []);
built(Segment) ->
    built([Segment], []).

-spec built([esdb_segment_nif:segment()], [[map()]]) ->
    {ok, [[map()]]} | {error, esdb_segment_nif:reason()}.
built([Segment | Segments], Done) ->
    case esdb_segment_nif:to_events(Segment) of
        {error, Reason} -> {error, Reason};
        Events -> built(Segments, [Events | Done])
    end;
built([], Done) ->
    {ok, lists:reverse(Done)}.

-spec are_segments(nonempty_maybe_improper_list() | term()) -> boolean().
are_segments([Segment | Segments]) -> ?IS_SEGMENT(Segment) andalso are_segments(Segments);
are_segments(Rest) -> Rest =:= [].
