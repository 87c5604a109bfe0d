-module(erl_esdb_history_gen).
-moduledoc """
Random histories of a store that keeps its promises, and of ones that break one.

A plan is a list of things to do, each with how long before and after the moment at which it is
done its call begins and ends. It is done one after the other on a model of a store; so whatever the
calls overlap, there is an order that explains them. Some outcomes are then forgotten, as if the
answer had been lost; of those some were done, and some not.

A mutation changes one thing that no history with these outcomes may have.
""".

-export([plan/0, history/1, mutations/1]).

-include_lib("proper/include/proper.hrl").
-include("erl_esdb_history.hrl").

-define(STREAMS, [~"a", ~"b", ~"c"]).
%% Between the moments of two steps.
-define(STEP, 100).

-record(model, {
    log = [] :: [#seen{}],
    next = 0 :: non_neg_integer(),
    %% of each stream the next version
    streams = #{} :: #{binary() => non_neg_integer()},
    tombs = #{} :: #{binary() => non_neg_integer()},
    documents = #{} :: #{term() => term()},
    entries = [] :: [erl_esdb_history:entry()]
}).

-doc "What is done.".
-spec plan() -> proper_types:type().
plan() -> list({step(), integer(1, 250), integer(1, 250), fate()}).

-spec step() -> proper_types:type().
step() ->
    frequency([
        {8, {append, [{stream(), expected(), integer(1, 3)}]}},
        {2, {append, ?LET(S, vector(3, boolean()), parts(S))}},
        {4, {read, wanted(), integer(0, 5), integer(1, 9), direction(), consistency()}},
        {1, {truncate, stream(), integer(1, 4)}},
        {1, {delete, stream(), oneof([hard, tombstone])}},
        {1, {put, integer(1, 2)}},
        {1, {get, integer(1, 2)}}
    ]).

-spec parts([boolean()]) -> [{binary(), any, pos_integer()}].
parts(Which) ->
    case [{S, any, 2} || {S, true} <- lists:zip(?STREAMS, Which)] of
        [] -> [{~"a", any, 1}];
        Parts -> Parts
    end.

stream() -> oneof(?STREAMS).
wanted() -> oneof([log | ?STREAMS]).
expected() -> oneof([any, exact, exact, wrong]).
direction() -> oneof([forward, backward]).
consistency() -> oneof([linearizable, read_your_writes, local]).
%% `lost': done, and the answer lost; `never': sent, and never done.
fate() -> frequency([{8, answered}, {1, lost}, {1, never}]).

-doc "The history of a plan and its end.".
-spec history([tuple()]) -> {[erl_esdb_history:entry()], #final{}}.
history(Plan) ->
    Done = lists:foldl(fun step/2, #model{}, lists:enumerate(Plan)),
    #model{log = Log, documents = Documents, entries = Entries} = Done,
    Final = #final{
        events = lists:reverse(Log),
        documents = #{Key => {value, Value} || Key := Value <- Documents}
    },
    {lists:reverse(Entries) ++ subscriber(Final#final.events), Final}.

%% One who comes at the end and gets what is there.
-spec subscriber([#seen{}]) -> [erl_esdb_history:entry()].
subscriber(Events) ->
    At = 1_000_000_000,
    [
        #call{op = {subscribe, all, all, 0}, from = At, to = At + 1, outcome = {ok, ~"key"}}
        | [
            #delivery{subscription = all, at = At + 1 + N, events = [Event]}
         || {N, Event} <- lists:enumerate(Events)
        ]
    ].

-spec step({pos_integer(), tuple()}, #model{}) -> #model{}.
step({N, {Step, Before, After, Fate}}, Model) ->
    Now = 1000 + N * ?STEP,
    {Op, Outcome, Model1} = done(Step, N, Model),
    Call = #call{client = N rem 3, node = n, op = Op, from = Now - Before, to = Now + After},
    case Fate of
        answered -> entry(Call#call{outcome = Outcome}, Model1);
        lost -> entry(Call#call{to = infinity, outcome = unknown}, Model1);
        never -> entry(Call#call{to = infinity, outcome = unknown}, Model)
    end.

-spec entry(#call{}, #model{}) -> #model{}.
entry(Call, #model{entries = Entries} = Model) -> Model#model{entries = [Call | Entries]}.

-spec done(tuple(), pos_integer(), #model{}) ->
    {erl_esdb_history:op(), erl_esdb_history:outcome(), #model{}}.
done({append, Given}, N, Model) ->
    Parts = [
        {S, number(Expected, S, Model), events(N, I, Count)}
     || {I, {S, Expected, Count}} <- lists:enumerate(Given)
    ],
    Op = {append, Parts, none},
    case [S || {S, Expected, _} <- Parts, Expected >= -1, Expected =/= version(S, Model)] of
        [] ->
            {Placed, Model1} = lists:mapfoldl(fun append/2, Model, Parts),
            {Op, {ok, Placed}, Model1};
        [Stream | _] ->
            {Op, {refused, {wrong_expected_version, Stream}}, Model}
    end;
done({read, Of, From, Count, Direction, Consistency}, _N, #model{log = Log} = Model) ->
    Wanted = [S || #seen{stream = Stream} = S <- Log, Of =:= log orelse Stream =:= Of],
    Window = {From, Count, Direction},
    {{read, Of, Window, Consistency}, {ok, window(Of, Window, Wanted)}, Model};
done({truncate, Stream, Before}, _N, #model{log = Log} = Model) ->
    Kept = [E || #seen{stream = S, version = V} = E <- Log, S =/= Stream orelse V >= Before],
    Removed =
        case length(Kept) =:= length(Log) of
            true -> 0;
            false -> min(Before, 1 + version(Stream, Model))
        end,
    {{truncate, Stream, Before}, {ok, Removed}, Model#model{log = Kept}};
done({delete, Stream, Mode}, _N, Model) ->
    {{delete, Stream, Mode}, {ok, ok}, deleted(Mode, Stream, Model)};
done({put, Key}, N, #model{documents = Documents} = Model) ->
    {{put, Key, N}, {ok, ok}, Model#model{documents = Documents#{Key => N}}};
done({get, Key}, _N, #model{documents = Documents} = Model) ->
    Value =
        case Documents of
            #{Key := V} -> {value, V};
            #{} -> none
        end,
    {{get, Key, linearizable}, {ok, Value}, Model}.

-spec number(any | exact | wrong, binary(), #model{}) -> integer().
number(any, _Stream, _Model) -> -2;
number(exact, Stream, Model) -> version(Stream, Model);
number(wrong, Stream, Model) -> version(Stream, Model) + 3.

-spec version(binary(), #model{}) -> integer().
version(Stream, #model{streams = Streams}) -> maps:get(Stream, Streams, 0) - 1.

-spec events(pos_integer(), pos_integer(), pos_integer()) -> [{binary(), tuple()}].
events(N, Part, Count) ->
    [
        {iolist_to_binary(io_lib:format("~b-~b-~b", [N, Part, I])), {~"T", [], {N, I}}}
     || I <- lists:seq(1, Count)
    ].

-spec append({binary(), integer(), [tuple()]}, #model{}) -> {tuple(), #model{}}.
append({Stream, _, Events}, #model{streams = Streams, tombs = Tombs} = Model) ->
    First = maps:get(Stream, Streams, maps:get(Stream, Tombs, 0)),
    #model{log = Log, next = Next} = Model1 = lists:foldl(
        fun({I, {Id, Content}}, #model{log = Before, next = Position} = M) ->
            Seen = #seen{stream = Stream, version = First + I, position = Position, id = Id},
            M#model{log = [Seen#seen{content = Content} | Before], next = Position + 1}
        end,
        Model,
        lists:enumerate(0, Events)
    ),
    Version = First + length(Events),
    {
        {Stream, Version - 1, Next - 1},
        Model1#model{
            log = Log,
            streams = Streams#{Stream => Version},
            tombs = maps:remove(Stream, Tombs)
        }
    }.

-spec window(binary() | log, tuple(), [#seen{}]) -> [#seen{}].
window(log, {From, Count, forward}, Newest) ->
    lists:sublist([E || #seen{position = P} = E <- lists:reverse(Newest), P >= From], Count);
window(log, {From, Count, backward}, Newest) ->
    lists:sublist([E || #seen{position = P} = E <- Newest, P =< From], Count);
window(_, {From, Count, forward}, Newest) ->
    [E || #seen{version = V} = E <- lists:reverse(Newest), V >= From, V < From + Count];
window(_, {From, Count, backward}, Newest) ->
    [E || #seen{version = V} = E <- Newest, V =< From, V > From - Count].

-spec deleted(hard | tombstone, binary(), #model{}) -> #model{}.
deleted(Mode, Stream, #model{log = Log, streams = Streams, tombs = Tombs} = Model) ->
    Tombs1 =
        case Streams of
            _ when Mode =:= hard -> maps:remove(Stream, Tombs);
            #{Stream := Next} -> Tombs#{Stream => Next};
            #{} -> Tombs
        end,
    Model#model{
        log = [E || #seen{stream = S} = E <- Log, S =/= Stream],
        streams = maps:remove(Stream, Streams),
        tombs = Tombs1
    }.

%% ---- mutations

-doc """
Histories that are not clean any more, each with what was done to it: those for which this one has
what it takes.
""".
-spec mutations({[erl_esdb_history:entry()], #final{}}) ->
    [{Name :: atom(), {[erl_esdb_history:entry()], #final{}}}].
mutations({Entries, #final{events = Events, documents = Documents} = Final}) ->
    Kept = [E || E <- Events, is_kept(E, Entries)],
    lists:append([
        [{event_lost, {Entries, without(E, Final)}} || E <- Kept],
        [
            {event_changed, {Entries, in_place(E, E#seen{content = {~"T", [], other}}, Final)}}
         || E <- Events
        ],
        [
            {event_moved, {Entries, in_place(E, E#seen{version = V + 1000}, Final)}}
         || #seen{version = V} = E <- Events
        ],
        [{event_at_a_position_of_another, {Entries, at_another(Final)}} || length(Events) > 1],
        [{refused_written, {Entries, with(Ids, Final)}} || Ids <- refused(Entries)],
        [
            {delivery_lost, {Entries -- [D], Final}}
         || #delivery{} = D <- Entries
        ],
        [{delivered_in_reverse, {reversed(Entries), Final}} || are_of_one_stream(Events)],
        [
            {document_changed,
                {Entries, Final#final{documents = Documents#{Key := {value, nobodys}}}}}
         || Key := _ <- Documents
        ],
        [{read_lacks, {replaced(R, R1, Entries), Final}} || {R, R1} <- lacking(Entries)],
        [{acknowledged_late, {[later(Events) | Entries], Final}} || Events =/= []]
    ]).

%% Nothing that may have been done removes it.
-spec is_kept(#seen{}, [erl_esdb_history:entry()]) -> boolean().
is_kept(#seen{stream = Stream}, Entries) ->
    [] =:=
        [
            Call
         || #call{op = {What, S, _}} = Call <- Entries,
            S =:= Stream,
            What =:= truncate orelse What =:= delete
        ].

-spec without(#seen{}, #final{}) -> #final{}.
without(Seen, #final{events = Events} = Final) -> Final#final{events = Events -- [Seen]}.

-spec in_place(#seen{}, #seen{}, #final{}) -> #final{}.
in_place(Seen, Other, #final{events = Events} = Final) ->
    Final#final{events = replaced(Seen, Other, Events)}.

-spec replaced(Element, Element, [Element]) -> [Element].
replaced(A, B, List) -> [if Element =:= A -> B; true -> Element end || Element <- List].

-spec at_another(#final{}) -> #final{}.
at_another(#final{events = [#seen{position = First}, Second | Events]} = Final) ->
    [Same] = [E || #seen{position = P} = E <- Final#final.events, P =:= First],
    Final#final{events = [Same, Second#seen{position = First} | Events]}.

-spec refused([erl_esdb_history:entry()]) -> [{binary(), term(), binary()}].
refused(Entries) ->
    [
        {Id, Content, Stream}
     || #call{outcome = {refused, _}, op = {append, [{Stream, _, [{Id, Content} | _]} | _], _}} <-
            Entries
    ].

-spec with({binary(), term(), binary()}, #final{}) -> #final{}.
with({Id, Content, Stream}, #final{events = Events} = Final) ->
    Seen = #seen{stream = Stream, version = 999, position = 99_999, id = Id, content = Content},
    Final#final{events = Events ++ [Seen]}.

-spec reversed([erl_esdb_history:entry()]) -> [erl_esdb_history:entry()].
reversed(Entries) ->
    {Deliveries, Others} = lists:partition(fun(E) -> is_record(E, delivery) end, Entries),
    Others ++ lists:reverse(Deliveries).

-spec are_of_one_stream([#seen{}]) -> boolean().
are_of_one_stream(Events) ->
    Streams = [S || #seen{stream = S} <- Events],
    length(lists:usort(Streams)) < length(Streams).

%% Linearizable reads without one of the events that were acknowledged before and never removed.
-spec lacking([erl_esdb_history:entry()]) -> [{#call{}, #call{}}].
lacking(Entries) ->
    [
        {Call, Call#call{outcome = {ok, Seen -- [E]}}}
     || #call{op = {read, Of, _, linearizable}, outcome = {ok, Seen}} = Call <- Entries,
        Of =/= log,
        E <- Seen,
        is_kept(E, Entries),
        is_acknowledged(E, Call#call.from, Entries)
    ].

-spec is_acknowledged(#seen{}, integer(), [erl_esdb_history:entry()]) -> boolean().
is_acknowledged(#seen{id = Id}, Before, Entries) ->
    lists:any(
        fun
            (#call{op = {append, Parts, _}, outcome = {ok, _}, to = To}) ->
                To < Before andalso [] =/= [I || {_, _, Es} <- Parts, {I, _} <- Es, I =:= Id];
            (_) ->
                false
        end,
        Entries
    ).

%% An append that was acknowledged, and of which there is nothing.
-spec later([#seen{}, ...]) -> #call{}.
later(Events) ->
    Last = lists:max([P || #seen{position = P} <- Events]),
    #call{
        op = {append, [{~"d", -2, [{~"lost", {~"T", [], lost}}]}], none},
        from = 1,
        to = 2,
        outcome = {ok, [{~"d", 0, Last + 1}]}
    }.
