-module(erl_esdb_streams_statem).
-moduledoc """
The streams API as a PropEr state machine: the model is a map of streams to what was written.

Run one after the other it is compared with the model call by call. Run in parallel, PropEr looks
for an order of the calls that explains all answers.
""".

-behaviour(proper_statem).

-export([sequential/1, parallel/1]).
-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([append/3, read/3, delete/1, truncate/2, version/1, list/0, log/0]).

-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-define(STORE, erl_esdb_streams_statem).

%% Next version and the events that are kept: [{Version, Term}].
-type model() :: #{binary() => {non_neg_integer(), [{non_neg_integer(), term()}]}}.

-spec sequential(map()) -> proper:outer_test().
sequential(Options) ->
    ?FORALL(Commands, commands(?MODULE), begin
        {ok, _} = erl_esdb:start_store(?STORE, Options),
        {History, State, Result} = run_commands(?MODULE, Commands),
        ok = erl_esdb:stop_store(?STORE),
        ?WHENFAIL(io:format("~tp~n~tp~n~tp~n", [History, State, Result]), Result =:= ok)
    end).

-spec parallel(map()) -> proper:outer_test().
parallel(Options) ->
    ?FORALL(Commands, parallel_commands(?MODULE), begin
        {ok, _} = erl_esdb:start_store(?STORE, Options),
        {Sequential, Parallel, Result} = run_parallel_commands(?MODULE, Commands),
        ok = erl_esdb:stop_store(?STORE),
        ?WHENFAIL(io:format("~tp~n~tp~n~tp~n", [Sequential, Parallel, Result]), Result =:= ok)
    end).

%% ---- calls

-spec append(binary(), term(), [term()]) -> term().
append(Stream, Expected, Terms) ->
    erl_esdb_streams:append(?STORE, Stream, Expected, [erl_esdb_test:event(T) || T <- Terms]).

-spec read(binary(), {non_neg_integer(), erl_esdb_store:count()}, direction()) -> term().
read(Stream, {Start, Count}, Direction) ->
    case erl_esdb_streams:read(?STORE, Stream, Start, Count, Direction) of
        {ok, Events} -> {ok, [{E#event.version, maps:get(n, E#event.data)} || E <- Events]};
        {error, Reason} -> {error, Reason}
    end.

-spec delete(binary()) -> term().
delete(Stream) -> erl_esdb_streams:delete(?STORE, Stream).

-spec truncate(binary(), non_neg_integer()) -> term().
truncate(Stream, Before) -> erl_esdb_store:truncate(?STORE, Stream, Before).

-spec version(binary()) -> integer().
version(Stream) -> erl_esdb_streams:get_version(?STORE, Stream).

-spec list() -> term().
list() -> erl_esdb_streams:list_streams(?STORE).

-spec log() -> term().
log() ->
    {ok, Events} = erl_esdb_streams:read_log(?STORE, 0, infinity, forward, #{}),
    Positions = [E#event.position || E <- Events],
    Written = [{E#event.stream_id, {E#event.version, maps:get(n, E#event.data)}} || E <- Events],
    {Positions =:= lists:usort(Positions), lists:sort(Written)}.

%% ---- the model

-spec initial_state() -> model().
initial_state() -> #{}.

-spec command(model()) -> proper_types:type().
command(_) ->
    frequency([
        {8, {call, ?MODULE, append, [stream(), expected(), resize(4, list(nat()))]}},
        {4, {call, ?MODULE, read, [stream(), {nat(), count()}, oneof([forward, backward])]}},
        {2, {call, ?MODULE, version, [stream()]}},
        {1, {call, ?MODULE, delete, [stream()]}},
        {1, {call, ?MODULE, truncate, [stream(), nat()]}},
        {1, {call, ?MODULE, list, []}},
        {1, {call, ?MODULE, log, []}}
    ]).

stream() -> oneof([<<"a">>, <<"b">>]).

expected() ->
    frequency([
        {4, any}, {2, range(0, 8)}, {1, no_stream}, {1, stream_exists}, {1, oneof([-1, -2, -4])}
    ]).

count() -> frequency([{4, nat()}, {1, infinity}]).

-spec precondition(model(), term()) -> boolean().
precondition(_, _) -> true.

-spec next_state(model(), term(), term()) -> model().
next_state(Model, _Result, {call, _, append, [Stream, Expected, Terms]}) ->
    {Next, Kept} = maps:get(Stream, Model, {0, []}),
    case Terms =/= [] andalso meets(Expected, Next - 1) of
        true -> Model#{Stream => {Next + length(Terms), Kept ++ lists:enumerate(Next, Terms)}};
        false -> Model
    end;
next_state(Model, _Result, {call, _, delete, [Stream]}) ->
    maps:remove(Stream, Model);
next_state(Model, _Result, {call, _, truncate, [Stream, Before]}) ->
    case Model of
        #{Stream := {Next, Kept}} ->
            Model#{Stream := {Next, [Event || {Version, _} = Event <- Kept, Version >= Before]}};
        #{} ->
            Model
    end;
next_state(Model, _Result, _) ->
    Model.

-spec meets(term(), integer()) -> boolean().
meets(Any, _) when Any =:= any; Any =:= -2 -> true;
meets(Exists, Actual) when Exists =:= stream_exists; Exists =:= -4 -> Actual >= 0;
meets(no_stream, Actual) -> Actual =:= -1;
meets(Version, Actual) -> Version =:= Actual.

-spec postcondition(model(), term(), term()) -> boolean().
postcondition(Model, {call, _, append, [Stream, Expected, Terms]}, Result) ->
    {Next, _} = maps:get(Stream, Model, {0, []}),
    case meets(Expected, Next - 1) of
        true -> Result =:= {ok, Next - 1 + length(Terms)};
        false -> Result =:= {error, {wrong_expected_version, number(Expected), Next - 1}}
    end;
postcondition(Model, {call, _, read, [Stream, {Start, Count}, Direction]}, Result) ->
    case Model of
        #{Stream := {_, Kept}} -> Result =:= {ok, window(Kept, Start, Count, Direction)};
        #{} -> Result =:= {error, {stream_not_found, Stream}}
    end;
postcondition(Model, {call, _, version, [Stream]}, Result) ->
    {Next, _} = maps:get(Stream, Model, {0, []}),
    Result =:= Next - 1;
postcondition(_Model, {call, _, delete, [_]}, Result) ->
    Result =:= ok;
postcondition(Model, {call, _, truncate, [Stream, Before]}, Result) ->
    case Model of
        #{Stream := {Next, Kept}} ->
            First = Next - length(Kept),
            Result =:= {ok, {First, max(First, min(Before, Next))}};
        #{} ->
            Result =:= {error, {stream_not_found, Stream}}
    end;
postcondition(Model, {call, _, list, []}, Result) ->
    Result =:= {ok, lists:sort(maps:keys(Model))};
postcondition(Model, {call, _, log, []}, Result) ->
    Result =:= {true, lists:sort([{S, Event} || S := {_, Kept} <- Model, Event <- Kept])}.

-spec number(term()) -> integer().
number(no_stream) -> -1;
number(stream_exists) -> -4;
number(Version) -> Version.

-spec window([{non_neg_integer(), term()}], non_neg_integer(), term(), direction()) -> list().
window(Kept, Start, infinity, Direction) ->
    window(Kept, Start, 1_000_000, Direction);
window(Kept, Start, Count, forward) ->
    [Event || {Version, _} = Event <- Kept, Version >= Start, Version < Start + Count];
window(Kept, Start, Count, backward) ->
    [Event || {V, _} = Event <- lists:reverse(Kept), V =< Start, V > Start - Count].
