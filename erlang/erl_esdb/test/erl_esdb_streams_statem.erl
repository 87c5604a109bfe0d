-module(erl_esdb_streams_statem).
-moduledoc """
The streams API as a PropEr state machine: the model is what was written, with its versions and
positions.

Run one after the other every call is compared with the model, also those that are several looks
(by pages, by types and tags, with metadata) or several commands (appends with ids or under a
condition). Run in parallel, PropEr looks for an order of the calls that explains all answers; there
only calls that see one moment take part.
""".

-behaviour(proper_statem).

-export([sequential/1, parallel/1]).
-export([initial_state/0, command/1, precondition/2, postcondition/3, next_state/3]).
-export([append/4, append_many/2, fill/3, read/4, read_all/3, read_log/3, pages/2]).
-export([matching/2, by_types/2, by_tags/3, category/4, names/1]).
-export([delete/2, truncate/2, version/1, exists/1, list/0, position/0]).
-export([set_metadata/2, get_metadata/1, scavengeable/1, info/1]).
%% For machines that this one is a part of
-export([limits/0, places/1, kept/1, log/1]).

-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

-define(STORE, erl_esdb_streams_statem).
%% An event: its position, stream, version, type and what is in it: a number, the id that was given,
%% and its tags.
-type place() :: {non_neg_integer(), binary(), non_neg_integer(), binary(), content()}.
-type content() :: {integer(), Id :: binary() | none, Tags :: [binary()]}.
-type given() :: {Type :: binary(), content()}.

-type model() :: #{
    mode := sequential | parallel,
    %% the position of the next event
    position := non_neg_integer(),
    %% next version, the first one since the stream was made, and the events that are kept
    streams := #{binary() => {non_neg_integer(), non_neg_integer(), [place()]}},
    %% next versions
    tombs := #{binary() => non_neg_integer()},
    metadata := #{binary() => map()}
}.

-spec sequential(map()) -> proper:outer_test().
sequential(Options) ->
    ?FORALL(Commands, commands(?MODULE, initial_state()), begin
        {ok, _} = begun(Options),
        {History, State, Result} = run_commands(?MODULE, Commands),
        ok = erl_esdb:stop_store(?STORE),
        ?WHENFAIL(
            erl_esdb_test:why(Result, {History, State}),
            aggregate(command_names(Commands), Result =:= ok)
        )
    end).

-spec parallel(map()) -> proper:outer_test().
parallel(Options) ->
    Initial = (initial_state())#{mode := parallel},
    ?FORALL(Commands, parallel_commands(?MODULE, Initial), begin
        {ok, _} = begun(Options),
        {Sequential, Parallel, Result} = run_parallel_commands(?MODULE, Commands),
        ok = erl_esdb:stop_store(?STORE),
        ?WHENFAIL(erl_esdb_test:why(Result, {Sequential, Parallel}), Result =:= ok)
    end).

-spec begun(map()) -> {ok, pid()} | {error, term()}.
begun(Options) ->
    erl_esdb_test:start_store(?STORE, maps:merge(erl_esdb_test:fresh(Options), limits())).

-doc "So that a store forgets no id, as the model.".
-spec limits() -> map().
limits() -> #{idempotence_window => 1_000_000, idempotence_appends => 1_000_000}.

%% ---- calls

-spec append(binary(), term(), [given()], map()) -> term().
append(Stream, Expected, Given, Options) ->
    erl_esdb_streams:append(?STORE, Stream, Expected, events(Given), Options).

-spec append_many([{binary(), term(), [given()]}], map()) -> term().
append_many(Parts, Options) ->
    Given = [{Stream, Expected, events(Events)} || {Stream, Expected, Events} <- Parts],
    erl_esdb_streams:append_many(?STORE, Given, Options).

-spec events([given()]) -> [new_event()].
events(Given) -> [event(Type, Content) || {Type, Content} <- Given].

-spec event(binary(), content()) -> new_event().
event(Type, {_, Id, Tags} = Content) ->
    Event = (erl_esdb_test:event(Content, Type))#{tags => Tags},
    case Id of
        none -> Event;
        _ -> Event#{event_id => Id}
    end.

%% One append an event, so that chunks of rows fill.
-spec fill(binary(), binary(), pos_integer()) -> term().
fill(Stream, Type, Count) ->
    lists:last([append(Stream, any, [{Type, {N, none, []}}], #{}) || N <- lists:seq(1, Count)]).

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

-spec by_tags([binary()], any | all, pos_integer() | map()) -> term().
by_tags(Tags, Which, Options) ->
    places(erl_esdb_streams:read_by_tags(?STORE, Tags, Which, Options)).

-spec matching(erl_esdb_query:query(), erl_esdb_store:window()) -> term().
matching(Query, Window) -> places(erl_esdb_store:matching(?STORE, Query, Window, #{})).

-spec category(binary(), non_neg_integer(), erl_esdb_store:count(), direction()) -> term().
category(Pattern, From, Count, Direction) ->
    places(erl_esdb_streams:read_category(?STORE, Pattern, From, Count, Direction)).

-spec names(map()) -> term().
names(Options) -> erl_esdb_streams:list_streams(?STORE, Options).

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

-spec delete(binary(), map()) -> term().
delete(Stream, Options) -> erl_esdb_streams:delete(?STORE, Stream, Options).

-spec set_metadata(binary(), map()) -> term().
set_metadata(Stream, Metadata) ->
    erl_esdb_streams:set_metadata(?STORE, Stream, Metadata, #{}).

-spec get_metadata(binary()) -> term().
get_metadata(Stream) -> erl_esdb_streams:get_metadata(?STORE, Stream).

-spec scavengeable(binary()) -> term().
scavengeable(Stream) -> erl_esdb_store:scavengeable(?STORE, Stream).

-spec info(binary()) -> term().
info(Stream) ->
    case erl_esdb_store:info(?STORE, Stream) of
        {ok, Info} -> {ok, maps:with([first, base, next], Info)};
        Error -> Error
    end.

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
initial_state() ->
    #{mode => sequential, position => 0, streams => #{}, tombs => #{}, metadata => #{}}.

-spec command(model()) -> proper_types:type().
command(#{mode := parallel}) ->
    frequency(calls(new()));
command(#{mode := sequential} = Model) ->
    frequency(
        repetitions(runs(Model)) ++ calls(given()) ++
            [
                {3, {call, ?MODULE, append, [stream(), expected(), batch(given()), condition()]}},
                {1, {call, ?MODULE, append_many, [parts(given()), condition()]}},
                {1, {call, ?MODULE, fill, [stream(), type(), range(100, 300)]}},
                {2, {call, ?MODULE, read_all, [some(), count(), backward]}},
                {2, {call, ?MODULE, pages, [range(1, 60), direction()]}},
                {2, {call, ?MODULE, by_types, [resize(2, list(type())), search()]}},
                {1, {call, ?MODULE, by_tags, [tags(), oneof([any, all]), search()]}},
                {2, {call, ?MODULE, matching, [query(), {some(), count(), direction()}]}},
                {1, {call, ?MODULE, category, [pattern(), some(), count(), direction()]}},
                {1, {call, ?MODULE, names, [names_options()]}},
                {2, {call, ?MODULE, set_metadata, [stream(), metadata()]}},
                {1, {call, ?MODULE, get_metadata, [stream()]}},
                {1, {call, ?MODULE, scavengeable, [stream()]}},
                {3, {call, ?MODULE, info, [stream()]}}
            ]
    ).

%% What was appended is sent again, to one stream or to some of them.
repetitions([]) ->
    [];
repetitions(Runs) ->
    Part = ?LET(Run, oneof(Runs), repetition(Run)),
    Parts = frequency([{4, Part}, {1, {stream(), any, []}}]),
    [
        {6, ?LET({S, E, G}, Part, {call, ?MODULE, append, [S, E, G, options()]})},
        {2, {call, ?MODULE, append_many, [resize(3, list(Parts)), options()]}}
    ].

%% Some of a run, one after the other, as it would have been expected then or in other ways.
repetition({Stream, Run}) ->
    ?LET(
        {Begin, Size, Expected},
        {range(0, length(Run) - 1), range(1, 3), oneof([exact, any, stream_exists, no_stream])},
        begin
            [{_, _, Version, _, _} | _] = Part = lists:sublist(Run, Begin + 1, Size),
            Given = [{Type, Content} || {_, _, _, Type, Content} <- Part],
            {Stream, expectation(Expected, Version), Given}
        end
    ).

expectation(exact, Version) -> Version - 1;
expectation(Other, _Version) -> Other.

%% The events with ids of each stream; others between them make the runs less than perfect.
-spec runs(model()) -> [{binary(), [place()]}].
runs(#{streams := Streams}) ->
    [
        {Stream, Run}
     || Stream := {_, _, Kept} <- Streams,
        [_ | _] = Run <- [[E || {_, _, _, _, {_, Id, _}} = E <- Kept, Id =/= none]]
    ].

%% Each of them is one look or one command, as long as no id was given.
calls(Event) ->
    [
        {8, {call, ?MODULE, append, [stream(), expected(), batch(Event), options()]}},
        {3, {call, ?MODULE, append_many, [parts(Event), options()]}},
        {4, {call, ?MODULE, read, [stream(), {some(), count()}, direction(), read_options()]}},
        {1, {call, ?MODULE, read_all, [stream(), count(), direction()]}},
        {1, {call, ?MODULE, read_all, [some(), count(), forward]}},
        {2, {call, ?MODULE, read_log, [some(), count(), direction()]}},
        {1, {call, ?MODULE, read_log, [last, count(), backward]}},
        {1, {call, ?MODULE, version, [stream()]}},
        {1, {call, ?MODULE, exists, [stream()]}},
        {1, {call, ?MODULE, delete, [stream(), oneof([#{}, #{mode => hard}])]}},
        {2, {call, ?MODULE, delete, [stream(), #{mode => tombstone}]}},
        {1, {call, ?MODULE, truncate, [stream(), some()]}},
        {1, {call, ?MODULE, list, []}},
        {1, {call, ?MODULE, position, []}}
    ].

batch(Event) -> resize(4, list(Event)).

parts(Event) ->
    ?LET(
        Streams,
        resize(4, list(stream())),
        [{Stream, expected(), batch(Event)} || Stream <- Streams]
    ).

new() -> {type(), {nat(), none, tags()}}.

%% Ids of few, so that they meet.
given() -> {type(), {nat(), oneof([none, id()]), tags()}}.

id() -> ?LET(N, range($a, $h), <<N>>).

tags() -> resize(2, list(tag())).

tag() -> oneof([<<"t">>, <<"u">>]).

query() -> resize(2, list(item())).

item() ->
    ?LET(
        {Types, Tags, Keys},
        {resize(2, list(type())), tags(), oneof([[types], [tags], [types, tags]])},
        maps:with(Keys, #{types => Types, tags => Tags})
    ).

condition() ->
    ?LET(
        {Query, After, Keys},
        {query(), range(-1, 60), oneof([[], [after_position]])},
        #{
            condition =>
                maps:with([fail_if_events_match | Keys], #{
                    fail_if_events_match => Query, after_position => After
                })
        }
    ).

pattern() -> oneof([<<"*">>, <<"a*">>, <<"*-1">>, <<"a-?">>, <<"b">>]).

names_options() ->
    ?LET(
        {Pattern, Prefix, From, Limit, Keys},
        {
            pattern(),
            oneof([<<>>, <<"a">>, <<"a-">>]),
            stream(),
            range(1, 4),
            resize(4, list(oneof([pattern, prefix, from, limit])))
        },
        maps:with(Keys, #{pattern => Pattern, prefix => Prefix, from => From, limit => Limit})
    ).

metadata() ->
    ?LET(
        {Count, Before, Keys},
        {range(1, 20), some(), resize(3, list(oneof([max_age, max_count, truncate_before])))},
        maps:with(Keys, #{
            max_age => 1_000_000_000_000, max_count => Count, truncate_before => Before
        })
    ).

stream() -> oneof([<<"a-1">>, <<"a-2">>, <<"b">>]).

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
        #{consistency => linearizable, unheard_of => 1},
        #{hidden => true}
    ]).

search() -> ?LET(N, range(1, 400), oneof([N, #{batch_size => N}, #{}])).

-spec precondition(model(), term()) -> boolean().
precondition(_, _) -> true.

-spec next_state(model(), term(), term()) -> model().
next_state(Model, _Result, {call, _, append, [Stream, Expected, Given, Options]}) ->
    appended([{Stream, Expected, Given}], Options, Model);
next_state(Model, _Result, {call, _, append_many, [Parts, Options]}) ->
    case twice([Stream || {Stream, _, _} <- Parts]) of
        [] -> appended(Parts, Options, Model);
        _ -> Model
    end;
next_state(Model, _Result, {call, _, fill, [Stream, Type, Count]}) ->
    written(Stream, [{Type, {N, none, []}} || N <- lists:seq(1, Count)], Model);
next_state(Model, _Result, {call, _, delete, [Stream, #{mode := tombstone}]}) ->
    #{streams := Streams, tombs := Tombs} = Model,
    case Streams of
        #{Stream := {Next, _, _}} ->
            Model#{streams := maps:remove(Stream, Streams), tombs := Tombs#{Stream => Next}};
        #{} ->
            Model
    end;
next_state(Model, _Result, {call, _, delete, [Stream, _]}) ->
    #{streams := Streams, tombs := Tombs, metadata := Metadata} = Model,
    Model#{
        streams := maps:remove(Stream, Streams),
        tombs := maps:remove(Stream, Tombs),
        metadata := maps:remove(Stream, Metadata)
    };
next_state(#{streams := Streams} = Model, _Result, {call, _, truncate, [Stream, Before]}) ->
    case Streams of
        #{Stream := {Next, Base, Kept}} ->
            Left = [Place || {_, _, Version, _, _} = Place <- Kept, Version >= Before],
            Model#{streams := Streams#{Stream := {Next, Base, Left}}};
        #{} ->
            Model
    end;
next_state(#{metadata := All} = Model, _Result, {call, _, set_metadata, [Stream, Metadata]}) ->
    Model#{metadata := All#{Stream => Metadata}};
next_state(Model, _Result, _) ->
    Model.

-spec stream(binary(), model()) -> {non_neg_integer(), non_neg_integer(), [place()]}.
stream(Stream, #{streams := Streams}) -> maps:get(Stream, Streams, {0, 0, []}).

-spec appended([{binary(), term(), [given()]}], map(), model()) -> model().
appended(Parts, Options, Model) ->
    case judged(Parts, Options, Model) of
        ok ->
            Write = fun({Stream, _, Given}, Sum) -> written(Stream, Given, Sum) end,
            lists:foldl(Write, Model, Parts);
        _ ->
            Model
    end.

-spec written(binary(), [given()], model()) -> model().
written(_Stream, [], Model) ->
    Model;
written(Stream, Given, #{position := Position, streams := Streams, tombs := Tombs} = Model) ->
    Begin = maps:get(Stream, Tombs, 0),
    {Next, Base, Kept} = maps:get(Stream, Streams, {Begin, Begin, []}),
    New = [
        {Position + N, Stream, Next + N, Type, Content}
     || {N, {Type, Content}} <- lists:enumerate(0, Given)
    ],
    Count = length(Given),
    Model#{
        position := Position + Count,
        streams := Streams#{Stream => {Next + Count, Base, Kept ++ New}},
        tombs := maps:remove(Stream, Tombs)
    }.

%% Whether the appends may be done, what they were answered the first time, or why they may not.
-spec judged([{binary(), term(), [given()]}], map(), model()) ->
    ok | {done, [{integer(), non_neg_integer() | undefined, non_neg_integer()}]} | {error, term()}.
judged(Parts, Options, Model) ->
    Wrong = [
        {Stream, {duplicate_event_ids, Twice}}
     || {Stream, _, Given} <- Parts, [_ | _] = Twice <- [twice(ids(Given))]
    ],
    Answers = [{Part, asked(Part, Model)} || Part <- Parts],
    Errors = [{Stream, Reason} || {{Stream, _, _}, {error, Reason}} <- Answers],
    Done = [Part || {Part, {done, _}} <- Answers],
    Open = [Part || {{_, _, [_ | _]} = Part, ok} <- Answers],
    case {Wrong ++ Errors, Done, Open} of
        {[Error | _], _, _} -> {error, Error};
        {[], [], _} -> allowed(Options, Model);
        {[], [_ | _], []} -> {done, [first(Answer, Model) || Answer <- Answers]};
        {[], [{S, _, Given} | _], _} -> {error, {S, {duplicate_event_ids, ids(Given)}}}
    end.

-spec first({{binary(), term(), [given()]}, ok | {done, Reply}}, model()) -> Reply.
first({_, {done, Reply}}, _Model) ->
    Reply;
first({{Stream, _, []}, ok}, Model) ->
    {Next, _, _} = stream(Stream, Model),
    {Next - 1, undefined, 0}.

-spec ids([given()]) -> [binary()].
ids(Given) -> [Id || {_, {_, Id, _}} <- Given, Id =/= none].

-spec twice([binary()]) -> [binary()].
twice(Ids) -> lists:usort(Ids -- lists:usort(Ids)).

-spec asked({binary(), term(), [given()]}, model()) -> ok | {done, tuple()} | {error, term()}.
asked({Stream, Expected, Given}, Model) ->
    {Next, Base, Kept} = stream(Stream, Model),
    Version = version_of(Expected),
    From = from(Version, Base),
    Within = [E || {_, _, V, _, _} = E <- Kept, V >= From, V < From + length(Given)],
    case {Version, meets(Expected, Next - 1), Within} of
        {-2, true, _} -> again(Given, Kept, ok);
        {-4, true, _} -> again(Given, Kept, ok);
        {_, true, _} -> ok;
        {Exact, false, [{_, _, From, _, _} | _]} when Exact >= -1 ->
            again(Given, Within, {error, {wrong_expected_version, Version, Next - 1}});
        {_, false, _} -> {error, {wrong_expected_version, Version, Next - 1}}
    end.

%% A stream that was made again after a tombstone begins there for who expects none. Nothing is
%% from after the end.
-spec from(integer(), non_neg_integer()) -> non_neg_integer() | infinity.
from(-1, Base) -> Base;
from(Version, Base) when Version >= Base -> Version + 1;
from(_, _) -> infinity.

%% Whether events with these ids are among these, the latest of each counting.
-spec again([given()], [place()], Otherwise) -> Otherwise | {done, tuple()} | {error, term()}.
again(Given, Places, Otherwise) ->
    Latest = #{Id => {V, P} || {P, _, V, _, {_, Id, _}} <- Places, Id =/= none},
    Found = [{Id, map_get(Id, Latest)} || Id <- ids(Given), is_map_key(Id, Latest)],
    Versions = [V || {_, {V, _}} <- Found],
    case Found of
        [] ->
            Otherwise;
        [{_, {First, _}} | _] when length(Found) =:= length(Given) ->
            {_, {Last, Position}} = lists:last(Found),
            case Versions =:= lists:seq(First, First + length(Given) - 1) of
                true -> {done, {Last, Position, length(Given)}};
                false -> {error, {duplicate_event_ids, [Id || {Id, _} <- Found]}}
            end;
        _ ->
            {error, {duplicate_event_ids, [Id || {Id, _} <- Found]}}
    end.

%% Hidden events are events.
-spec allowed(map(), model()) -> ok | {error, term()}.
allowed(#{condition := #{fail_if_events_match := Query} = Condition}, Model) ->
    After = maps:get(after_position, Condition, -1),
    case [P || {P, _, _, _, _} = E <- kept(Model), P > After, is_match(E, Query)] of
        [Position | _] -> {error, {condition_failed, Position}};
        [] -> ok
    end;
allowed(_Options, _Model) ->
    ok.

-spec is_match(place(), erl_esdb_query:query()) -> boolean().
is_match(_Place, []) ->
    true;
is_match({_, _, _, Type, {_, _, Tags}}, Query) ->
    lists:any(
        fun(Item) ->
            Types = maps:get(types, Item, []),
            (Types =:= [] orelse lists:member(Type, Types)) andalso
                lists:all(fun(Tag) -> lists:member(Tag, Tags) end, maps:get(tags, Item, []))
        end,
        Query
    ).

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
answer(append, [Stream, Expected, Given, Options], Model) ->
    Part = {Stream, Expected, Given},
    case judged([Part], Options, Model) of
        ok -> {ok, returned(hd(results([Part], Model)), Options)};
        {done, [Result]} -> {ok, returned(Result, Options)};
        {error, {Stream, Reason}} -> {error, Reason};
        {error, Reason} -> {error, Reason}
    end;
answer(append_many, [Parts, Options], Model) ->
    Streams = [Stream || {Stream, _, _} <- Parts],
    case {Parts, Streams -- lists:usort(Streams)} of
        {[], _} -> {ok, #{}};
        {_, [Twice | _]} -> {error, {Twice, duplicate_stream}};
        {_, []} -> answer_many(Streams, Parts, Options, Model)
    end;
answer(fill, [Stream, _Type, Count], Model) ->
    {Next, _, _} = next(Stream, Model),
    {ok, Next - 1 + Count};
answer(read, [Stream, {Start, Count}, Direction, Options], #{streams := Streams} = Model) ->
    case {Streams, Options} of
        {#{Stream := {_, _, Kept}}, #{hidden := true}} ->
            {ok, window(Kept, Start, Count, Direction)};
        {#{Stream := _}, #{}} ->
            {ok, window(visible(Stream, Model), Start, Count, Direction)};
        {#{}, _} ->
            {error, {stream_not_found, Stream}}
    end;
answer(read_all, [Stream, Count, Direction], #{streams := Streams} = Model) when
    is_binary(Stream)
->
    Start =
        case {Streams, Direction} of
            {#{Stream := {Next, _, _}}, backward} -> Next - 1;
            {#{Stream := _}, forward} -> 0;
            {#{}, _} -> none
        end,
    case Start of
        none -> {error, {stream_not_found, Stream}};
        _ -> {ok, window(visible(Stream, Model), Start, Count, Direction)}
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
answer(by_types, [Types, Options], Model) ->
    answer(matching, [[#{types => Types}], {0, batch_size(Options), forward}], Model);
answer(by_tags, [[], _Which, _Options], _Model) ->
    {ok, []};
answer(by_tags, [Tags, Which, Options], Model) ->
    Query =
        case Which of
            any -> [#{tags => [Tag]} || Tag <- Tags];
            all -> [#{tags => Tags}]
        end,
    answer(matching, [Query, {0, batch_size(Options), forward}], Model);
answer(matching, [Query, {From, Count, Direction}], Model) ->
    {ok, All} = answer(read_log, [From, infinity, Direction], Model),
    {ok, take(Count, [Place || Place <- All, is_match(Place, Query)])};
answer(category, [Pattern, From, Count, Direction], Model) ->
    {ok, All} = answer(read_log, [From, infinity, Direction], Model),
    {ok, take(Count, [Place || {_, S, _, _, _} = Place <- All, is_named(S, Pattern)])};
answer(names, [Options], #{streams := Streams}) ->
    From = maps:get(from, Options, <<>>),
    Prefix = maps:get(prefix, Options, <<>>),
    Limit = maps:get(limit, Options, 1000),
    Names = [
        S
     || S <- lists:sort(maps:keys(Streams)),
        S > From,
        is_named(S, maps:get(pattern, Options, <<"*">>)),
        is_named(S, <<Prefix/binary, "*">>)
    ],
    case length(Names) < Limit of
        true -> {ok, Names, done};
        false -> {ok, lists:sublist(Names, Limit), lists:nth(Limit, Names)}
    end;
answer(version, [Stream], Model) ->
    {Next, _, _} = stream(Stream, Model),
    Next - 1;
answer(exists, [Stream], #{streams := Streams}) ->
    is_map_key(Stream, Streams);
answer(delete, [_Stream, _Options], _Model) ->
    ok;
answer(truncate, [Stream, Before], #{streams := Streams}) ->
    case Streams of
        #{Stream := {Next, _, Kept}} ->
            First = Next - length(Kept),
            {ok, {First, max(First, min(Before, Next))}};
        #{} ->
            {error, {stream_not_found, Stream}}
    end;
answer(set_metadata, [_Stream, _Metadata], _Model) ->
    ok;
answer(get_metadata, [Stream], #{metadata := Metadata}) ->
    {ok, maps:get(Stream, Metadata, #{})};
answer(scavengeable, [Stream], Model) ->
    case answer(info, [Stream], Model) of
        {ok, #{first := First}} -> {ok, First};
        Error -> Error
    end;
answer(info, [Stream], #{streams := Streams} = Model) ->
    case Streams of
        #{Stream := {Next, Base, _}} ->
            First = Next - length(visible(Stream, Model)),
            {ok, #{first => First, base => Base, next => Next}};
        #{} ->
            {error, {stream_not_found, Stream}}
    end;
answer(list, [], #{streams := Streams}) ->
    {ok, lists:sort(maps:keys(Streams))};
answer(position, [], #{position := Position}) ->
    {ok, Position}.

-spec answer_many([binary()], [{binary(), term(), [given()]}], map(), model()) -> term().
answer_many(Streams, Parts, Options, Model) ->
    By = fun(Results) ->
        {ok, maps:from_list(lists:zip(Streams, [returned(Result, Options) || Result <- Results]))}
    end,
    case judged(Parts, Options, Model) of
        ok -> By(results(Parts, Model));
        {done, Results} -> By(Results);
        {error, Reason} -> {error, Reason}
    end.

-spec results([{binary(), term(), [given()]}], model()) -> [tuple()].
results(Parts, #{position := Position} = Model) ->
    Result = fun({Stream, _, Given}, From) ->
        {result(Stream, length(Given), From, Model), From + length(Given)}
    end,
    {Results, _} = lists:mapfoldl(Result, Position, Parts),
    Results.

-spec result(binary(), non_neg_integer(), non_neg_integer(), model()) -> tuple().
result(Stream, 0, _Position, Model) ->
    {Next, _, _} = stream(Stream, Model),
    {Next - 1, undefined, 0};
result(Stream, Count, Position, Model) ->
    {Next, _, _} = next(Stream, Model),
    {Next + Count - 1, Position + Count - 1, Count}.

-spec next(binary(), model()) -> {non_neg_integer(), non_neg_integer(), [place()]}.
next(Stream, #{streams := Streams, tombs := Tombs}) ->
    maps:get(Stream, Streams, {maps:get(Stream, Tombs, 0), 0, []}).

-spec returned(tuple(), map()) -> integer() | append_result().
returned({Version, Position, Count}, #{return := result}) ->
    #append_result{version = Version, position = Position, count = Count};
returned({Version, _, _}, _) ->
    Version.

-spec batch_size(pos_integer() | map()) -> pos_integer().
batch_size(#{batch_size := Count}) -> Count;
batch_size(#{}) -> 1000;
batch_size(Count) -> Count.

-spec is_named(binary(), binary()) -> boolean().
is_named(Name, Pattern) ->
    erl_esdb_reads_SUITE:naive(binary_to_list(Name), binary_to_list(Pattern)).

-spec version_of(term()) -> integer().
version_of(any) -> -2;
version_of(no_stream) -> -1;
version_of(stream_exists) -> -4;
version_of(Version) -> Version.

%% All events that are kept, and all that may be seen, by position.
-spec kept(model()) -> [place()].
kept(#{streams := Streams}) ->
    lists:sort([Place || _ := {_, _, Kept} <- Streams, Place <- Kept]).

-spec log(model()) -> [place()].
log(#{streams := Streams} = Model) ->
    lists:sort([Place || Stream := _ <- Streams, Place <- visible(Stream, Model)]).

-spec visible(binary(), model()) -> [place()].
visible(Stream, #{streams := Streams, metadata := All}) ->
    #{Stream := {Next, _, Kept}} = Streams,
    Metadata = maps:get(Stream, All, #{}),
    Count = maps:get(max_count, Metadata, Next),
    Before = maps:get(truncate_before, Metadata, 0),
    [Place || {_, _, V, _, _} = Place <- Kept, V >= Before, V >= Next - Count].

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
