-module(erl_esdb_streams_statem).
-moduledoc """
The streams API as a PropEr state machine: the model is what was written, with its versions and
positions.

Run one after the other every call is compared with the model, also those that are several reads (by
pages, by types). Run in parallel, PropEr looks for an order of the calls that explains all answers;
there only calls that see one moment take part.
""".

-behaviour(proper_statem).

-export([sequential/1, parallel/1]).
-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([append/4, fill/3, read/4, read_all/3, read_log/3, pages/2, by_types/2]).
-export([delete/1, truncate/2, version/1, exists/1, list/0, position/0]).

-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-define(STORE, erl_esdb_streams_statem).

%% An event: its position, stream, version, type and what is in it.
-type place() :: {non_neg_integer(), binary(), non_neg_integer(), binary(), term()}.

-type model() :: #{
    mode := sequential | parallel,
    %% the position of the next event
    position := non_neg_integer(),
    %% next version and the events that are kept
    streams := #{binary() => {non_neg_integer(), [place()]}}
}.

-spec sequential(map()) -> proper:outer_test().
sequential(Options) ->
    ?FORALL(Commands, commands(?MODULE, initial_state()), begin
        {ok, _} = erl_esdb:start_store(?STORE, Options),
        {History, State, Result} = run_commands(?MODULE, Commands),
        ok = erl_esdb:stop_store(?STORE),
        ?WHENFAIL(
            io:format("~tp~n~tp~n~tp~n", [History, State, Result]),
            aggregate(command_names(Commands), Result =:= ok)
        )
    end).

-spec parallel(map()) -> proper:outer_test().
parallel(Options) ->
    Initial = (initial_state())#{mode := parallel},
    ?FORALL(Commands, parallel_commands(?MODULE, Initial), begin
        {ok, _} = erl_esdb:start_store(?STORE, Options),
        {Sequential, Parallel, Result} = run_parallel_commands(?MODULE, Commands),
        ok = erl_esdb:stop_store(?STORE),
        ?WHENFAIL(io:format("~tp~n~tp~n~tp~n", [Sequential, Parallel, Result]), Result =:= ok)
    end).

%% ---- calls

-spec append(binary(), term(), [{binary(), term()}], map()) -> term().
append(Stream, Expected, Given, Options) ->
    Events = [erl_esdb_test:event(Term, Type) || {Type, Term} <- Given],
    erl_esdb_streams:append(?STORE, Stream, Expected, Events, Options).

%% One append an event, so that chunks of rows fill.
-spec fill(binary(), binary(), pos_integer()) -> term().
fill(Stream, Type, Count) ->
    lists:last([append(Stream, any, [{Type, N}], #{}) || N <- lists:seq(1, Count)]).

-spec read(binary(), {non_neg_integer(), erl_esdb_store:count()}, direction(), map()) -> term().
read(Stream, {Start, Count}, Direction, Options) ->
    places(erl_esdb_streams:read(?STORE, Stream, Start, Count, Direction, Options)).

-spec read_all(binary() | non_neg_integer(), erl_esdb_store:count(), direction()) -> term().
read_all(From, Count, Direction) ->
    places(erl_esdb_streams:read_all(?STORE, From, Count, Direction)).

-spec read_log(non_neg_integer() | last, erl_esdb_store:count(), direction()) -> term().
read_log(From, Count, Direction) ->
    places(erl_esdb_streams:read_log(?STORE, From, Count, Direction, #{})).

%% The whole log, as a reader goes on from the last position.
-spec pages(pos_integer(), direction()) -> term().
pages(Size, forward) -> {ok, pages(0, Size, forward)};
pages(Size, backward) -> {ok, pages(last, Size, backward)}.

-spec pages(integer() | last, pos_integer(), direction()) -> [place()].
pages(-1, _Size, backward) ->
    [];
pages(From, Size, Direction) ->
    case read_log(From, Size, Direction) of
        {ok, []} -> [];
        {ok, Page} -> Page ++ pages(beyond(lists:last(Page), Direction), Size, Direction)
    end.

-spec beyond(place(), direction()) -> integer().
beyond({Position, _, _, _, _}, forward) -> Position + 1;
beyond({Position, _, _, _, _}, backward) -> Position - 1.

-spec by_types([binary()], pos_integer() | map()) -> term().
by_types(Types, Options) ->
    places(erl_esdb_streams:read_by_event_types(?STORE, Types, Options)).

-spec places({ok, [event()]} | {error, term()}) -> {ok, [place()]} | {error, term()}.
places({ok, Events}) ->
    {ok, [
        {E#event.position, E#event.stream_id, E#event.version, E#event.event_type, value(E)}
     || E <- Events
    ]};
places({error, Reason}) ->
    {error, Reason}.

-spec value(event()) -> term().
value(#event{data = #{n := Term}}) -> Term.

-spec delete(binary()) -> term().
delete(Stream) -> erl_esdb_streams:delete(?STORE, Stream).

-spec truncate(binary(), non_neg_integer()) -> term().
truncate(Stream, Before) -> erl_esdb_store:truncate(?STORE, Stream, Before).

-spec version(binary()) -> integer().
version(Stream) -> erl_esdb_streams:get_version(?STORE, Stream).

-spec exists(binary()) -> boolean().
exists(Stream) -> erl_esdb_streams:exists(?STORE, Stream).

-spec list() -> term().
list() -> erl_esdb_streams:list_streams(?STORE).

-spec position() -> term().
position() -> erl_esdb_store:next_position(?STORE).

%% ---- the model

-spec initial_state() -> model().
initial_state() -> #{mode => sequential, position => 0, streams => #{}}.

-spec command(model()) -> proper_types:type().
command(#{mode := parallel}) ->
    frequency(calls());
command(#{mode := sequential}) ->
    frequency(
        calls() ++
            [
                {1, {call, ?MODULE, fill, [stream(), type(), range(100, 300)]}},
                {2, {call, ?MODULE, read_all, [some(), count(), backward]}},
                {2, {call, ?MODULE, pages, [range(1, 60), direction()]}},
                {2, {call, ?MODULE, by_types, [resize(2, list(type())), batch()]}}
            ]
    ).

%% Each of them is one look or one command.
calls() ->
    [
        {8, {call, ?MODULE, append, [stream(), expected(), resize(4, list(given())), options()]}},
        {4, {call, ?MODULE, read, [stream(), {some(), count()}, direction(), read_options()]}},
        {1, {call, ?MODULE, read_all, [stream(), count(), direction()]}},
        {1, {call, ?MODULE, read_all, [some(), count(), forward]}},
        {2, {call, ?MODULE, read_log, [some(), count(), direction()]}},
        {1, {call, ?MODULE, read_log, [last, count(), backward]}},
        {1, {call, ?MODULE, version, [stream()]}},
        {1, {call, ?MODULE, exists, [stream()]}},
        {1, {call, ?MODULE, delete, [stream()]}},
        {1, {call, ?MODULE, truncate, [stream(), some()]}},
        {1, {call, ?MODULE, list, []}},
        {1, {call, ?MODULE, position, []}}
    ].

stream() -> oneof([<<"a">>, <<"b">>]).

given() -> {type(), nat()}.

type() -> oneof([<<"X">>, <<"Y">>, <<"Z">>]).

direction() -> oneof([forward, backward]).

%% A version, a position or how many of them.
some() -> frequency([{4, nat()}, {1, range(0, 400)}]).

expected() ->
    frequency([
        {4, any}, {2, range(0, 8)}, {1, no_stream}, {1, stream_exists}, {1, oneof([-1, -2, -4])}
    ]).

count() -> frequency([{4, some()}, {1, infinity}]).

options() ->
    oneof([
        #{},
        #{return => version},
        #{return => result},
        #{timeout => 60_000},
        #{return => result, timeout => infinity, unheard_of => 1}
    ]).

read_options() ->
    oneof([
        #{},
        #{consistency => local},
        #{consistency => read_your_writes, timeout => 60_000},
        #{consistency => linearizable, unheard_of => 1}
    ]).

batch() -> ?LET(N, range(1, 400), oneof([N, #{batch_size => N}, #{}])).

-spec precondition(model(), term()) -> boolean().
precondition(_, _) -> true.

-spec next_state(model(), term(), term()) -> model().
next_state(Model, _Result, {call, _, append, [Stream, Expected, Given, _]}) ->
    {Next, _} = stream(Stream, Model),
    case meets(Expected, Next - 1) of
        true -> written(Stream, Given, Model);
        false -> Model
    end;
next_state(Model, _Result, {call, _, fill, [Stream, Type, Count]}) ->
    written(Stream, [{Type, N} || N <- lists:seq(1, Count)], Model);
next_state(#{streams := Streams} = Model, _Result, {call, _, delete, [Stream]}) ->
    Model#{streams := maps:remove(Stream, Streams)};
next_state(#{streams := Streams} = Model, _Result, {call, _, truncate, [Stream, Before]}) ->
    case Streams of
        #{Stream := {Next, Kept}} ->
            Left = [Place || {_, _, Version, _, _} = Place <- Kept, Version >= Before],
            Model#{streams := Streams#{Stream := {Next, Left}}};
        #{} ->
            Model
    end;
next_state(Model, _Result, _) ->
    Model.

-spec stream(binary(), model()) -> {non_neg_integer(), [place()]}.
stream(Stream, #{streams := Streams}) -> maps:get(Stream, Streams, {0, []}).

-spec written(binary(), [{binary(), term()}], model()) -> model().
written(_Stream, [], Model) ->
    Model;
written(Stream, Given, #{position := Position, streams := Streams} = Model) ->
    {Next, Kept} = stream(Stream, Model),
    New = [
        {Position + N, Stream, Next + N, Type, Term}
     || {N, {Type, Term}} <- lists:enumerate(0, Given)
    ],
    Count = length(Given),
    Model#{
        position := Position + Count, streams := Streams#{Stream => {Next + Count, Kept ++ New}}
    }.

-spec meets(term(), integer()) -> boolean().
meets(Any, _) when Any =:= any; Any =:= -2 -> true;
meets(Exists, Actual) when Exists =:= stream_exists; Exists =:= -4 -> Actual >= 0;
meets(no_stream, Actual) -> Actual =:= -1;
meets(Version, Actual) -> Version =:= Actual.

-spec postcondition(model(), term(), term()) -> boolean().
postcondition(Model, {call, _, Function, Args}, Result) ->
    Result =:= answer(Function, Args, Model).

%% What a call is to answer.
-spec answer(atom(), [term()], model()) -> term().
answer(append, [Stream, Expected, Given, Options], #{position := Position} = Model) ->
    {Next, _} = stream(Stream, Model),
    case {meets(Expected, Next - 1), Options} of
        {true, #{return := result}} -> {ok, result(Next, Position, length(Given))};
        {true, #{}} -> {ok, Next - 1 + length(Given)};
        {false, _} -> {error, {wrong_expected_version, version_of(Expected), Next - 1}}
    end;
answer(fill, [Stream, _Type, Count], Model) ->
    {Next, _} = stream(Stream, Model),
    {ok, Next - 1 + Count};
answer(read, [Stream, {Start, Count}, Direction, _], #{streams := Streams}) ->
    case Streams of
        #{Stream := {_, Kept}} -> {ok, window(Kept, Start, Count, Direction)};
        #{} -> {error, {stream_not_found, Stream}}
    end;
answer(read_all, [Stream, Count, Direction], #{streams := Streams}) when is_binary(Stream) ->
    case {Streams, Direction} of
        {#{Stream := {_, Kept}}, forward} -> {ok, window(Kept, 0, Count, forward)};
        {#{Stream := {Next, Kept}}, backward} -> {ok, window(Kept, Next - 1, Count, backward)};
        {#{}, _} -> {error, {stream_not_found, Stream}}
    end;
answer(read_all, [From, Count, forward], Model) ->
    answer(read_log, [From, Count, forward], Model);
answer(read_all, [Skip, Count, backward], #{position := Position} = Model) ->
    answer(read_log, [Position - 1 - Skip, Count, backward], Model);
answer(read_log, [last, Count, backward], #{position := Position} = Model) ->
    answer(read_log, [Position - 1, Count, backward], Model);
answer(read_log, [From, Count, forward], Model) ->
    {ok, take(Count, [Place || Place <- log(Model), element(1, Place) >= From])};
answer(read_log, [From, Count, backward], Model) ->
    Until = [Place || Place <- log(Model), element(1, Place) =< From],
    {ok, take(Count, lists:reverse(Until))};
answer(pages, [_Size, forward], Model) ->
    {ok, log(Model)};
answer(pages, [_Size, backward], Model) ->
    {ok, lists:reverse(log(Model))};
answer(by_types, [Types, #{batch_size := Count}], Model) ->
    answer(by_types, [Types, Count], Model);
answer(by_types, [Types, #{}], Model) ->
    answer(by_types, [Types, 1000], Model);
answer(by_types, [Types, Count], Model) ->
    Wanted = fun({_, _, _, Type, _}) -> Types =:= [] orelse lists:member(Type, Types) end,
    {ok, take(Count, lists:filter(Wanted, log(Model)))};
answer(version, [Stream], Model) ->
    {Next, _} = stream(Stream, Model),
    Next - 1;
answer(exists, [Stream], #{streams := Streams}) ->
    is_map_key(Stream, Streams);
answer(delete, [_Stream], _Model) ->
    ok;
answer(truncate, [Stream, Before], #{streams := Streams}) ->
    case Streams of
        #{Stream := {Next, Kept}} ->
            First = Next - length(Kept),
            {ok, {First, max(First, min(Before, Next))}};
        #{} ->
            {error, {stream_not_found, Stream}}
    end;
answer(list, [], #{streams := Streams}) ->
    {ok, lists:sort(maps:keys(Streams))};
answer(position, [], #{position := Position}) ->
    {ok, Position}.

-spec result(non_neg_integer(), non_neg_integer(), non_neg_integer()) -> append_result().
result(Next, _Position, 0) ->
    #append_result{version = Next - 1, position = undefined, count = 0};
result(Next, Position, Count) ->
    #append_result{version = Next + Count - 1, position = Position + Count - 1, count = Count}.

-spec version_of(term()) -> integer().
version_of(no_stream) -> -1;
version_of(stream_exists) -> -4;
version_of(Version) -> Version.

%% All events that are kept, by position.
-spec log(model()) -> [place()].
log(#{streams := Streams}) ->
    lists:sort([Place || _ := {_, Kept} <- Streams, Place <- Kept]).

-spec window([place()], integer(), erl_esdb_store:count(), direction()) -> [place()].
window(Kept, Start, infinity, Direction) ->
    window(Kept, Start, 1_000_000, Direction);
window(Kept, Start, Count, forward) ->
    [Place || {_, _, V, _, _} = Place <- Kept, V >= Start, V < Start + Count];
window(Kept, Start, Count, backward) ->
    [Place || {_, _, V, _, _} = Place <- lists:reverse(Kept), V =< Start, V > Start - Count].

-spec take(erl_esdb_store:count(), [Place]) -> [Place].
take(infinity, Places) -> Places;
take(Count, Places) -> lists:sublist(Places, Count).
