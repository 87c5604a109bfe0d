-module(erl_esdb_index_reader).
-moduledoc """
Reads what an index needs from the log: page by page what there is to index, single events where
they were found, and which positions are still there.

It takes the pieces of the engine as they are, in the process of the caller: of a batch that holds
many events only those that are wanted are made.
""".

-export([page/3, events/3, live/2, is_live/2]).
-export_type([log/0]).

-include("erl_esdb.hrl").
-include("../log/erl_esdb_log.hrl").

%% Events of a page, at most.
-define(PAGE, 1000).
%% Wanted events that lie so near to each other are read together, with those between them.
-define(NEAR, 8).

-doc "Where to read, and how.".
-type log() :: #{
    engine := module(),
    handle := erl_esdb_engine:handle(),
    options := erl_esdb_engine:options()
}.
-type position() :: erl_esdb_runs:position().
-type piece() :: erl_esdb_engine:piece().
-type corrupt() :: {corrupt_events, Stream :: binary(), Version :: non_neg_integer()}.

-doc """
Maps a fun over the next events from a position on, and answers what it gave, the last first; the
position after them, or `last` where there are none; and what is damaged, whose events are left out.
""".
-spec page(log(), From :: position(), fun((event()) -> [Result])) ->
    {ok, [Result], position() | last, [corrupt()]} | {error, erl_esdb_engine:failure()}.
page(Log, From, Fun) ->
    case read_log(Log, From, ?PAGE) of
        {ok, []} ->
            {ok, [], last, []};
        {ok, Pieces} ->
            {Results, Corrupt} = lists:foldl(mapper(Fun), {[], []}, Pieces),
            {ok, Results, piece_end(lists:last(Pieces)), Corrupt};
        {error, Failure} ->
            {error, Failure}
    end.

-spec mapper(fun((event()) -> [Result])) ->
    fun((piece(), {[Result], [corrupt()]}) -> {[Result], [corrupt()]}).
mapper(Fun) ->
    fun({_, {_, From, To}, _} = Piece, {Results, Corrupt}) ->
        Add = fun(Event, Acc) -> Fun(Event) ++ Acc end,
        case fold(Piece, From, To, Add, Results) of
            {ok, Results1} -> {Results1, Corrupt};
            {error, Where} -> {Results, [Where | Corrupt]}
        end
    end.

-doc """
The events at these positions, which rise, that are still there and that the fun wants, in their
order.
""".
-spec events(log(), [position()], fun((event()) -> boolean())) ->
    {ok, [event()]} | {error, corrupt() | erl_esdb_engine:failure()}.
events(Log, Positions, Wanted) -> events(Log, Positions, Wanted, []).

-spec events(log(), [position()], fun((event()) -> boolean()), [event()]) ->
    {ok, [event()]} | {error, corrupt() | erl_esdb_engine:failure()}.
events(_Log, [], _Wanted, Found) ->
    {ok, lists:reverse(Found)};
events(Log, [First | _] = Positions, Wanted, Found) ->
    {Near, Rest} = near(Positions),
    maybe
        {ok, Pieces} ?= read_log(Log, First, lists:last(Near) - First + 1),
        {ok, Found1} ?= pick(Pieces, Near, Wanted, Found),
        events(Log, Rest, Wanted, Found1)
    end.

%% Those at the head of the list that are read together.
-spec near([position(), ...]) -> {[position(), ...], [position()]}.
near([Position, Next | Rest]) when Next - Position =< ?NEAR ->
    {Near, Rest1} = near([Next | Rest]),
    {[Position | Near], Rest1};
near([Position | Rest]) ->
    {[Position], Rest}.

%% Both rise: the pieces and the positions.
-spec pick([piece()], [position()], fun((event()) -> boolean()), [event()]) ->
    {ok, [event()]} | {error, corrupt()}.
pick([Piece | Pieces], [_ | _] = Positions, Wanted, Found) ->
    {From, Before} = {piece_begin(Piece), piece_end(Piece)},
    Left = lists:dropwhile(fun(Position) -> Position < From end, Positions),
    case lists:splitwith(fun(Position) -> Position < Before end, Left) of
        {[], _} ->
            pick(Pieces, Left, Wanted, Found);
        {Own, Rest} ->
            maybe
                {ok, Found1} ?= pick_from(Piece, Own, Wanted, Found),
                pick(Pieces, Rest, Wanted, Found1)
            end
    end;
pick(_Pieces, _Positions, _Wanted, Found) ->
    {ok, Found}.

-spec pick_from(piece(), [position(), ...], fun((event()) -> boolean()), [event()]) ->
    {ok, [event()]} | {error, corrupt()}.
pick_from({_, {Row, _, _}, _} = Piece, [First | _] = Positions, Wanted, Found) ->
    #row{position = Position, version = Version} = Row,
    Add = fun(#event{position = P} = Event, {Left, Acc}) ->
        case Left of
            [P | Left1] -> {Left1, [Event || Wanted(Event)] ++ Acc};
            _ -> {Left, Acc}
        end
    end,
    [From, To] = [Version + P - Position || P <- [First, lists:last(Positions)]],
    case fold(Piece, From, To, Add, {Positions, Found}) of
        {ok, {[], Found1}} -> {ok, Found1};
        {error, Where} -> {error, Where}
    end.

%% Folds over the events of a piece from version to version.
-spec fold(piece(), non_neg_integer(), non_neg_integer(), fun((event(), Acc) -> Acc), Acc) ->
    {ok, Acc} | {error, corrupt()}.
fold({Stream, {Row, _, _}, Packed}, From, To, Fun, Acc) ->
    First = erl_esdb_log:first_version(Row),
    Each = fun(Nth, Body, Sum) ->
        {next, Fun(erl_esdb_event:event(Stream, Row, First + Nth, Body), Sum)}
    end,
    case erl_esdb_batch:fold(Packed, From - First, To - First, Each, Acc) of
        {ok, Acc1} -> {ok, Acc1};
        {error, corrupt} -> {error, {corrupt_events, Stream, First}}
    end.

-doc "Whether there is an event at this position.".
-spec is_live(log(), position()) -> boolean().
is_live(Log, Position) ->
    case read_log(Log, Position, 1) of
        {ok, [Piece]} -> piece_begin(Piece) =:= Position;
        {ok, []} -> false;
        %% Nothing is thrown away for want of an answer.
        {error, _} -> true
    end.

-doc """
Which positions of a stretch, from the first to before the second, there are events at: a bit each.
What can be asked is a fun; outside of the stretch it says false.
""".
-spec live(log(), {position(), position()}) ->
    {ok, fun((position()) -> boolean())} | {error, erl_esdb_engine:failure()}.
live(Log, {From, Before}) ->
    case bits(Log, From, Before, <<>>) of
        {ok, Bits} -> {ok, fun(Position) -> is_set(Position - From, Bits) end};
        {error, Failure} -> {error, Failure}
    end.

-spec is_set(integer(), bitstring()) -> boolean().
is_set(Skip, Bits) ->
    case Bits of
        <<_:Skip, Bit:1, _/bitstring>> -> Bit =:= 1;
        _ -> false
    end.

%% `At': the position of the bit that comes next.
-spec bits(log(), position(), position(), bitstring()) ->
    {ok, bitstring()} | {error, erl_esdb_engine:failure()}.
bits(Log, At, Before, Bits) when At < Before ->
    case read_log(Log, At, ?PAGE) of
        {ok, []} ->
            {ok, Bits};
        {ok, Pieces} ->
            {At1, Bits1} = lists:foldl(fun set/2, {At, Bits}, Pieces),
            bits(Log, At1, Before, Bits1);
        {error, Failure} ->
            {error, Failure}
    end;
bits(_Log, _At, _Before, Bits) ->
    {ok, Bits}.

-spec set(piece(), {position(), bitstring()}) -> {position(), bitstring()}.
set(Piece, {At, Bits}) ->
    {From, Before} = {piece_begin(Piece), piece_end(Piece)},
    {Before, <<Bits/bitstring, 0:(From - At), -1:(Before - From)>>}.

-spec piece_begin(piece()) -> position().
piece_begin({_, {#row{position = Position, version = Version}, From, _}, _}) when
    is_integer(Position), is_integer(Version), is_integer(From)
->
    Position + From - Version.

-spec piece_end(piece()) -> position().
piece_end({_, Span, _}) -> erl_esdb_log:after_span(Span).

-spec read_log(log(), position(), pos_integer()) ->
    {ok, [piece()]} | {error, erl_esdb_engine:failure()}.
read_log(#{engine := Engine, handle := Handle, options := Options}, From, Count) ->
    Engine:read_log(Handle, From, Count, forward, Options).
