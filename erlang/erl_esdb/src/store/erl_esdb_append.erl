-module(erl_esdb_append).
-moduledoc """
Appends, between the API and the machine: what comes in is checked and packed, sent as one command,
and what the machine refuses is looked into.

The machine has no bodies. So it cannot say for sure that events were there before, nor whether one
matches a query: it says that this may be, and here the events are read. Then the answer is known,
or the command is sent again with what was learned, within the time of the call.

```erlang
1> erl_esdb_append:append(shop, ~"order-1", -1, [#{event_type => ~"Placed", data => #{}}], #{}).
{ok,{append_result,0,0,1}}
```
""".

-export([check/5, check_many/3, append/5, append_many/3]).
-export_type([options/0, condition/0, given/0]).

-include("erl_esdb.hrl").

-import(erl_esdb_args, [check/1, is_proper/1]).

%% A command with more events is recognised as a whole only: the machine is to be done with it soon.
-define(EACH, 1000).

-doc "No event after the position may match; without a position, none at all.".
-type condition() :: #{
    fail_if_events_match := erl_esdb_query:query(), after_position => integer()
}.
-doc """
`tips`, for who signs: of a stream the tip it has and the one it gets. `epoch_us`: the time that was
signed.
""".
-type options() :: #{
    return => version | result,
    timeout => timeout(),
    condition => condition(),
    codec => erl_esdb_json:codec(),
    tips => #{binary() => {erl_esdb_log:tip(), binary()}},
    epoch_us => integer(),
    _ => _
}.
-type given() :: {Stream :: binary(), Expected :: term(), [new_event() | event()]}.

%% What is written to one stream.
-record(part, {
    stream :: binary(),
    expected :: erl_esdb_log:expected(),
    %% of all events, and whether the append may have been sent before: the caller gave one of them,
    %% or the engine repeats
    ids :: [binary()],
    given :: boolean(),
    bodies :: [erl_esdb_event:body()],
    packed :: binary(),
    summary :: erl_esdb_log:summary(),
    %% of one that the engine repeated: whether what is there was read since
    looked = false :: boolean()
}).

-record(call, {
    store :: atom(),
    engine :: module(),
    handle :: erl_esdb_engine:handle(),
    keys :: disabled | erl_esdb_chain:keys(),
    until :: erl_esdb_deadline:deadline()
}).

%% A query, and from which position on it is still to be asked.
-type open() :: none | {erl_esdb_query:query(), non_neg_integer()}.
-type outcome() :: ok | found() | unsure | {failure, term()}.
-type found() :: same() | {other, Versions :: [non_neg_integer()]}.
-type same() :: {done, append_result()} | {error, term()}.

-doc "Raises `badarg` where arguments of `append/5` have a wrong shape.".
-spec check(term(), term(), term(), term(), term()) -> ok.
check(Store, Stream, Expected, Events, Options) ->
    ok = check(is_atom(Store)),
    ok = check_part({Stream, Expected, Events}),
    check_options(Options).

-doc "Raises `badarg` where arguments of `append_many/3` have a wrong shape.".
-spec check_many(term(), term(), term()) -> ok.
check_many(Store, Parts, Options) ->
    ok = check(is_atom(Store) andalso is_proper(Parts)),
    ok = lists:foreach(fun check_part/1, Parts),
    check_options(Options).

-spec check_part(term()) -> ok.
check_part({Stream, Expected, Events}) ->
    _ = expected(Expected),
    check(is_binary(Stream) andalso is_proper(Events));
check_part(_) ->
    error(badarg).

-spec check_options(term()) -> ok.
check_options(Options) when is_map(Options) ->
    _ = erl_esdb_store:timeout(Options, #{timeout => infinity}),
    ok = check(lists:member(maps:get(return, Options, version), [version, result])),
    ok = check(lists:member(maps:get(codec, Options, none), [none, json])),
    check(is_condition(maps:get(condition, Options, none)));
check_options(_) ->
    error(badarg).

-spec is_condition(term()) -> boolean().
is_condition(#{fail_if_events_match := Query} = Condition) ->
    Position = maps:get(after_position, Condition, -1),
    is_integer(Position) andalso Position >= -1 andalso erl_esdb_query:is_query(Query) andalso
        map_size(maps:without([fail_if_events_match, after_position], Condition)) =:= 0;
is_condition(Other) ->
    Other =:= none.

-spec expected(term()) -> erl_esdb_log:expected().
expected(any) -> ?ANY_VERSION;
expected(no_stream) -> ?NO_STREAM;
expected(stream_exists) -> ?STREAM_EXISTS;
expected(Version) when is_integer(Version), Version >= ?ANY_VERSION -> Version;
expected(?STREAM_EXISTS) -> ?STREAM_EXISTS;
expected(_) -> error(badarg).

-doc "See `erl_esdb_streams:append/5`.".
-spec append(atom(), binary(), term(), [new_event() | event()], options()) ->
    {ok, append_result()} | {error, term()}.
append(Store, Stream, Expected, Events, Options) ->
    ok = check(Store, Stream, Expected, Events, Options),
    case run(Store, [{Stream, Expected, Events}], Options) of
        {ok, [Result]} -> {ok, Result};
        {error, {part, Stream, Reason}} -> {error, Reason};
        {error, Reason} -> {error, Reason}
    end.

-doc "See `erl_esdb_streams:append_many/3`.".
-spec append_many(atom(), [given()], options()) ->
    {ok, #{binary() => append_result()}} | {error, {binary(), term()} | term()}.
append_many(Store, Given, Options) ->
    ok = check_many(Store, Given, Options),
    Streams = [Stream || {Stream, _, _} <- Given],
    case Streams -- lists:usort(Streams) of
        [Twice | _] -> {error, {Twice, duplicate_stream}};
        [] -> by_stream(Streams, run(Store, Given, Options))
    end.

-spec by_stream([binary()], {ok, [append_result()]} | {error, term()}) ->
    {ok, #{binary() => append_result()}} | {error, term()}.
by_stream(Streams, {ok, Results}) -> {ok, maps:from_list(lists:zip(Streams, Results))};
by_stream(_Streams, {error, {part, Stream, Reason}}) -> {error, {Stream, Reason}};
by_stream(_Streams, {error, Reason}) -> {error, Reason}.

-spec run(atom(), [given()], options()) -> {ok, [append_result()]} | {error, term()}.
run(Store, Given, Options) ->
    maybe
        {ok, Engine, Handle, Settings} ?= erl_esdb_store:engine(Store),
        Until = erl_esdb_store:deadline(Options, Settings),
        Time = maps:get(epoch_us, Options, erl_esdb_clock:now_us()),
        Count = lists:sum([length(Events) || {_, _, Events} <- Given]),
        Codec = codec(Options, Settings),
        {ok, [_ | _] = Parts} ?= parts(Given, {0, 0, which(Count)}, Codec, Settings),
        Call = #call{
            store = Store,
            engine = Engine,
            handle = Handle,
            keys = maps:get(integrity, Settings, disabled),
            until = Until
        },
        Try = fun({Open, Left}) -> submit(Call, Open, Left) end,
        Asked = [asked(Part, Time, Options) || Part <- Parts],
        {ok, Answer} ?= erl_esdb_turns:run(turns(Call, Parts), Until, Try, {open(Options), Asked}),
        Answer
    else
        {error, timeout} -> {error, {timeout, Store}};
        Other -> Other
    end.

%% Whoever signs too slowly is refused by the machine, and would be for ever.
-spec turns(#call{}, [#part{}]) -> [erl_esdb_turns:key()].
turns(#call{keys = disabled}, _Parts) -> [];
turns(#call{store = Store}, Parts) -> [{Store, Stream} || #part{stream = Stream} <- Parts].

-spec which(non_neg_integer()) -> each | whole.
which(Count) when Count =< ?EACH -> each;
which(_Count) -> whole.

%% ---- what comes in

%% Limits are those of the whole command, of which so many events and bytes are used; and which ids
%% are remembered depends on it.
-type used() :: {Events :: non_neg_integer(), Bytes :: non_neg_integer(), each | whole}.

-spec parts([given()], used(), erl_esdb_json:codec(), map()) ->
    {ok, [#part{}]} | {error, {part, binary(), term()}}.
parts([], _Used, _Codec, _Settings) ->
    {ok, []};
parts([{Stream, Expected, Events} | Given], Used, Codec, Settings) ->
    maybe
        {ok, Encoded} ?= erl_esdb_json:encode_all(Events, Codec),
        {ok, Part, Used1} ?= part(Stream, Expected, Encoded, Used, Settings),
        {ok, Parts} ?= parts(Given, Used1, Codec, Settings),
        {ok, [Part | Parts]}
    else
        {error, {part, Other, Reason}} -> {error, {part, Other, Reason}};
        {error, Reason} -> {error, {part, Stream, Reason}}
    end.

-spec codec(options(), map()) -> erl_esdb_json:codec().
codec(#{codec := Codec}, _Settings) -> Codec;
codec(#{}, Settings) -> maps:get(codec, Settings, none).

-spec part(binary(), term(), [term()], used(), map()) ->
    {ok, #part{}, used()} | {error, term()}.
part(Stream, Expected, Events, {Count, Size, Which}, Settings) ->
    Count1 = Count + length(Events),
    maybe
        ok ?= erl_esdb_args:stream_id(Stream),
        ok ?= limit(too_many_events, Count1, max_batch_events, Settings),
        {ok, Bodies} ?= erl_esdb_event:bodies(Events),
        {ok, Packed, Size1} ?= pack(Bodies, Size, Settings),
        Given = erl_esdb_event:given(Events),
        Part = #part{
            stream = Stream,
            expected = expected(Expected),
            ids = [erl_esdb_event:id(Body) || Body <- Bodies],
            given = Given =/= [] orelse maps:get(repeats, Settings, false),
            bodies = Bodies,
            packed = Packed,
            summary = summary(Stream, Given, Bodies, Which)
        },
        {ok, Part, {Count1, Size1, Which}}
    end.

-spec summary(binary(), [binary()], [erl_esdb_event:body()], each | whole) ->
    erl_esdb_log:summary().
summary(_Stream, _Given, [], _Which) ->
    #{count => 0, epoch_us => 0};
summary(Stream, Given, Bodies, Which) ->
    #{
        count => length(Bodies),
        epoch_us => 0,
        ids => erl_esdb_event:hashes(Given, Bodies, Which),
        facts => facts(erl_esdb_event:are_copies(Stream), Bodies)
    }.

%% A copy that a link makes of an event is no other event: no condition looks at it.
-spec facts(boolean(), [erl_esdb_event:body()]) -> erl_esdb_recent:facts().
facts(true, _Bodies) -> erl_esdb_event:facts([]);
facts(false, Bodies) -> erl_esdb_event:facts(Bodies).

-spec asked(#part{}, integer(), options()) -> #part{}.
asked(#part{stream = Stream, summary = Summary} = Part, Time, Options) ->
    Tip = maps:with([Stream], maps:get(tips, Options, #{})),
    Summary1 = Summary#{epoch_us => Time},
    Part#part{summary = maps:merge(Summary1, #{tip => Both || _ := Both <- Tip})}.

%% Sizes are counted before the first event is encoded: bodies that share a large binary take its
%% size once, encoded they take it once each.
-spec pack([erl_esdb_event:body()], non_neg_integer(), map()) ->
    {ok, binary(), non_neg_integer()} | {error, term()}.
pack(Bodies, Used, Settings) ->
    Sizes = [erl_esdb_batch:term_size(Body) || Body <- Bodies],
    Size = Used + lists:sum(Sizes),
    maybe
        ok ?= limit(event_too_large, lists:max([0 | Sizes]), max_event_size, Settings),
        ok ?= limit(batch_too_large, Size, max_batch_size, Settings),
        {ok, erl_esdb_batch:pack(Bodies), Size}
    end.

-spec limit(atom(), non_neg_integer(), atom(), map()) ->
    ok | {error, {atom(), non_neg_integer(), pos_integer()}}.
limit(Error, Size, Limit, Settings) ->
    erl_esdb_store:limit(Error, Size, maps:get(Limit, Settings)).

%% ---- conditions

-spec open(options()) -> open().
open(#{condition := #{fail_if_events_match := Query} = Condition}) ->
    {Query, maps:get(after_position, Condition, -1) + 1};
open(#{}) ->
    none.

%% The first event that matches, or up to where there is none.
-spec evaluate(#call{}, open()) -> {ok, none | erl_esdb_log:condition()} | {error, term()}.
evaluate(_Call, none) ->
    {ok, none};
evaluate(#call{store = Store} = Call, {Query, From}) ->
    Options = read_options(Call),
    maybe
        {ok, Next} ?= erl_esdb_store:next_position(Store, Options),
        {ok, []} ?= erl_esdb_store:matching(Store, Query, {From, 1, forward}, Options),
        Hashed = erl_esdb_query:hashed(erl_esdb_query:compile(Query)),
        {ok, {evaluated, max(Next, From) - 1, Hashed}}
    else
        {ok, [#event{position = Position}]} -> {ok, {failed, Position}};
        {error, Reason} -> {error, Reason}
    end.

%% A hidden event is an event, the copy of one is none.
-spec read_options(#call{}) -> map().
read_options(#call{until = Until}) ->
    #{hidden => true, copies => false, timeout => erl_esdb_deadline:left(Until)}.

-spec later(open(), none | erl_esdb_log:condition()) -> open().
later({Query, _From}, {evaluated, UpTo, _}) -> {Query, UpTo + 1};
later(Open, _Asked) -> Open.

%% ---- the command, and what is refused

-type tried() :: {done, {ok, [append_result()]} | {error, term()}} | {again, {open(), [#part{}]}}.

-spec submit(#call{}, open(), [#part{}]) -> tried().
submit(Call, Open, Parts) ->
    maybe
        {ok, Asked} ?= evaluate(Call, Open),
        Open1 = later(Open, Asked),
        {ok, Sealed} ?= sealed(Call, Parts),
        case command(Call, Sealed, Asked) of
            {ok, Replies} -> {done, {ok, [result(Reply) || Reply <- Replies]}};
            {error, {repeated, Since, Why}} -> denied(Call, Open1, repeats(Since, Parts), Why);
            {error, Why} -> denied(Call, Open1, Parts, Why)
        end
    else
        {error, Failure} -> {done, {error, Failure}}
    end.

%% What the engine sent twice may have been done once: every later try says so too, for between the
%% answer and the look at what is there that can be removed.
-spec repeats(non_neg_integer(), [#part{}]) -> [#part{}].
repeats(Since, Parts) ->
    [
        Part#part{summary = Summary#{repeat => Since}}
     || #part{summary = Summary} = Part <- Parts
    ].

-spec denied(#call{}, open(), [#part{}], term()) -> tried().
denied(_Call, Open, Parts, stale) ->
    {again, {Open, Parts}};
denied(Call, Open, Parts, {refused, Refusals}) ->
    refused(Call, Open, lists:zip(Parts, Refusals));
denied(Call, Open, [Part], {seen, _} = Refusal) ->
    refused(Call, Open, [{Part, Refusal}]);
denied(Call, Open, [Part], {wrong_expected_version, _, _} = Refusal) ->
    refused(Call, Open, [{Part, Refusal}]);
denied(Call, Open, [Part], tip_moved) ->
    refused(Call, Open, [{Part, tip_moved}]);
denied(_Call, _Open, _Parts, Reason) ->
    {done, {error, Reason}}.

%% In a store that signs: with what a part goes behind, as it is now.
-spec sealed(#call{}, [#part{}]) -> {ok, [#part{}]} | {error, term()}.
sealed(#call{keys = disabled}, Parts) ->
    {ok, Parts};
sealed(Call, [#part{bodies = [_ | _]} = Part | Parts]) ->
    #call{store = Store, keys = Keys, until = Until} = Call,
    Timed = #{timeout => erl_esdb_deadline:left(Until)},
    #part{stream = Stream, bodies = Bodies, summary = #{epoch_us := Now} = Summary} = Part,
    maybe
        {ok, #{epoch_us := Last, tip := Tip} = Place} ?= erl_esdb_store:tip(Store, Stream, Timed),
        Time = max(Now, Last),
        {Signed, New} = erl_esdb_integrity:seal(Keys, Stream, Place#{epoch_us := Time}, Bodies),
        {ok, Others} ?= sealed(Call, Parts),
        Summary1 = Summary#{epoch_us := Time, tip => {Tip, New}},
        {ok, [Part#part{packed = erl_esdb_batch:pack(Signed), summary = Summary1} | Others]}
    end;
sealed(Call, [Part | Parts]) ->
    maybe
        {ok, Others} ?= sealed(Call, Parts),
        {ok, [Part | Others]}
    end;
sealed(_Call, []) ->
    {ok, []}.

-spec command(#call{}, [#part{}], none | erl_esdb_log:condition()) ->
    {ok, [erl_esdb_log:appended()]} | {error, term()}.
command(Call, [#part{} = Part], Asked) ->
    #part{stream = Stream, expected = Expected, packed = Packed, summary = Summary} = Part,
    case send(Call, {append, Stream, Expected, Packed, with(Asked, Summary)}) of
        {ok, {_, _, _} = Reply} -> {ok, [Reply]};
        {error, Reason} -> {error, Reason}
    end;
command(Call, Parts, Asked) ->
    Given = [
        {Stream, Expected, Packed, Summary}
     || #part{stream = Stream, expected = Expected, packed = Packed, summary = Summary} <- Parts
    ],
    case send(Call, {append_many, Given, with(Asked, #{})}) of
        {ok, Replies} when is_list(Replies) -> {ok, Replies};
        {error, Reason} -> {error, Reason}
    end.

-spec with(none | erl_esdb_log:condition(), map()) -> map().
with(none, Map) -> Map;
with(Condition, Map) -> Map#{condition => Condition}.

-spec send(#call{}, erl_esdb_log:command()) -> erl_esdb_log:reply() | {error, term()}.
send(#call{store = Store, engine = Engine, handle = Handle, until = Until}, Command) ->
    erl_esdb_store:command(Store, Engine, Handle, Command, erl_esdb_deadline:left(Until)).

-spec result(erl_esdb_log:appended()) -> append_result().
result({Version, Position, Count}) ->
    #append_result{version = Version, position = Position, count = Count}.

-spec refused(#call{}, open(), [{#part{}, ok | erl_esdb_log:refusal()}]) -> tried().
refused(Call, Open, Refused) ->
    Outcomes = [{Part, outcome(Call, Part, Refusal)} || {Part, Refusal} <- Refused],
    maybe
        [] ?= [{error, Reason} || {_, {failure, Reason}} <- Outcomes],
        [] ?= [unsure || {_, unsure} <- Outcomes],
        [] ?= [{error, {part, S, Why}} || {#part{stream = S}, {error, Why}} <- Outcomes],
        [] ?= [Part || {Part, {done, _}} <- Outcomes],
        %% Ids that only share their hashes with others.
        {again, {Open, [known(Part, Outcome) || {Part, Outcome} <- Outcomes]}}
    else
        [{error, Error} | _] -> {done, {error, Error}};
        [unsure | _] -> {again, {Open, [known(Part, Outcome) || {Part, Outcome} <- Outcomes]}};
        [#part{} = Done | _] -> {done, repeated(Call, Done, Outcomes)}
    end.

-spec known(#part{}, outcome()) -> #part{}.
known(#part{summary = Summary} = Part, {other, Versions}) ->
    Part#part{summary = Summary#{known => Versions ++ maps:get(known, Summary, [])}};
known(Part, unsure) ->
    Part#part{looked = true};
known(Part, _Outcome) ->
    Part.

%% Some part was done before. If all were, it was this append.
-spec repeated(#call{}, #part{}, [{#part{}, outcome()}]) ->
    {ok, [append_result()]} | {error, term()}.
repeated(Call, #part{stream = Stream, ids = Ids}, Outcomes) ->
    case [Part || {#part{ids = [_ | _]} = Part, Outcome} <- Outcomes, not is_done(Outcome)] of
        [] -> {ok, [first_result(Call, Part, Outcome) || {Part, Outcome} <- Outcomes]};
        [_ | _] -> {error, {part, Stream, {duplicate_event_ids, Ids}}}
    end.

-spec is_done(outcome()) -> boolean().
is_done({done, _}) -> true;
is_done(_) -> false.

-spec first_result(#call{}, #part{}, outcome()) -> append_result().
first_result(_Call, _Part, {done, Result}) ->
    Result;
first_result(#call{store = Store}, #part{stream = Stream}, _Nothing) ->
    case erl_esdb_store:info(Store, Stream) of
        {ok, #{next := Next}} -> result({Next - 1, undefined, 0});
        {error, _} -> result({?NO_STREAM, undefined, 0})
    end.

%% ---- was it done before?

-spec outcome(#call{}, #part{}, ok | erl_esdb_log:refusal()) -> outcome().
outcome(_Call, _Part, ok) ->
    ok;
outcome(Call, #part{given = true} = Part, {wrong_expected_version, Expected, Actual} = Refusal) when
    Expected >= ?NO_STREAM, Actual >= 0
->
    Found = after_version(Call, Part, Expected, Refusal),
    case Found =:= {error, Refusal} andalso Actual > Expected andalso is_unsure(Part) of
        true -> unsure;
        false -> Found
    end;
outcome(Call, #part{} = Part, {seen, Spans}) ->
    among(Call, Part, Spans);
%% Somebody was faster: it is signed again, behind what is there now.
outcome(#call{keys = Keys}, _Part, tip_moved) when Keys =/= disabled ->
    {other, []};
outcome(_Call, _Part, Refusal) ->
    {error, Refusal}.

%% Whether what was done by an earlier try may have been removed after the answer to a later one.
%% Then the next answer is `forgotten`; if it is the same again, what was read is what was there.
-spec is_unsure(#part{}) -> boolean().
is_unsure(#part{looked = Looked, summary = Summary}) ->
    not Looked andalso is_map_key(repeat, Summary).

%% The events after the expected version, if they are still there.
-spec after_version(#call{}, #part{}, integer(), erl_esdb_log:refusal()) ->
    found() | {failure, term()}.
after_version(#call{store = Store} = Call, Part, Expected, Refusal) ->
    #part{stream = Stream, ids = Ids} = Part,
    Options = read_options(Call),
    maybe
        {ok, #{base := Base}} ?= erl_esdb_store:info(Store, Stream, Options),
        {ok, From} ?= behind(Expected, Base),
        {ok, Events} ?= erl_esdb_store:read(Store, Stream, From, length(Ids), forward, Options),
        [#event{version = From} | _] ?= Events,
        compared(Ids, Events, {error, Refusal})
    else
        {error, {stream_not_found, _}} -> {error, Refusal};
        {error, Reason} -> {failure, Reason};
        _Removed -> {error, Refusal}
    end.

%% A stream that was made again after a tombstone begins there for who expects none.
-spec behind(integer(), non_neg_integer()) -> {ok, non_neg_integer()} | removed.
behind(?NO_STREAM, Base) -> {ok, Base};
behind(Expected, Base) when Expected >= Base -> {ok, Expected + 1};
behind(_Expected, _Base) -> removed.

-spec compared([binary()], [event()], Otherwise) -> same() | Otherwise.
compared(Ids, Events, Otherwise) ->
    Found = #{Id => Event || #event{event_id = Id} = Event <- Events},
    case [Id || Id <- Ids, is_map_key(Id, Found)] of
        [] -> Otherwise;
        Twice -> all_or_some(Ids, Twice, Found)
    end.

-spec all_or_some([binary()], [binary()], #{binary() => event()}) -> same().
all_or_some(Ids, Ids, Found) ->
    Events = [map_get(Id, Found) || Id <- Ids],
    [#event{version = First} | _] = Events,
    #event{version = Last, position = Position} = lists:last(Events),
    InTurn = lists:seq(First, First + length(Ids) - 1),
    case [Version || #event{version = Version} <- Events] =:= InTurn of
        true -> {done, result({Last, Position, length(Ids)})};
        false -> {error, {duplicate_event_ids, Ids}}
    end;
all_or_some(_Ids, Some, _Found) ->
    {error, {duplicate_event_ids, Some}}.

%% The appends that may have brought the ids.
-spec among(#call{}, #part{}, [{non_neg_integer(), non_neg_integer()}]) ->
    found() | {failure, term()}.
among(#call{store = Store} = Call, #part{stream = Stream, ids = Ids}, Spans) ->
    Options = read_options(Call),
    Reads = [
        erl_esdb_store:read(Store, Stream, From, To - From + 1, forward, Options)
     || {From, To} <- Spans
    ],
    case [Error || {error, Error} <- Reads] of
        [] ->
            Events = [Event || {ok, Page} <- Reads, Event <- Page],
            compared(Ids, Events, {other, [From || {From, _} <- Spans]});
        %% Deleted a moment ago.
        [{stream_not_found, _} | _] ->
            {other, []};
        [Error | _] ->
            {failure, Error}
    end.
