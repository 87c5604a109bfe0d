-module(erl_esdb_history).
-moduledoc """
What many clients asked of a store, and what they were answered: recorded while it happens, and
judged at the end.

```erlang
1> History = erl_esdb_history:new().
2> Request = {append, [{~"s", -1, [erl_esdb_history:event(~"id-1", #{n => 1})]}], #{}}.
3> erl_esdb_history:call(History, {client, node()}, Request, shop, fun erlang:apply/3).
{ok,#append_result{version = 0,position = 0,count = 1}}
4> {ok, Final} = erl_esdb_history:final(shop, fun erlang:apply/3).
5> erl_esdb_history:check(erl_esdb_history:entries(History), Final).
[]
```

All clients are processes of one node, whatever nodes answer them. So there is one order of all
begins and ends, that of `erlang:unique_integer([monotonic])`: a call that ended before another
began has the smaller stamp, and no clock has a say.

Of an event is kept what tells it from any other: its id, and as `content` its type, its tags and a
digest of its data and metadata. `check/2` compares all of these wherever the event was seen. What
it finds are `t:violation/0`, each with the calls concerned; `m:erl_esdb_history_check` has the
rules.
""".

-export([new/0, delete/1, call/5, delivered/3, fault/2, entries/1, operations/1]).
-export([final/2, check/2, format/1, event/2, event/4, seen/1, subscription_key/2]).
-export_type([history/0, entry/0, op/0, outcome/0, stamp/0, content/0, request/0, via/0]).
-export_type([who/0, violation/0, consistency/0]).

-include("../include/erl_esdb.hrl").
-include("erl_esdb_history.hrl").

-opaque history() :: ets:table().
-type entry() :: #call{} | #delivery{} | #fault{}.
-doc "Rises over all that is recorded, in the order in which it happened.".
-type stamp() :: integer().
-type content() :: {Type :: binary(), Tags :: [binary()], Digest :: term()}.
-type consistency() :: linearizable | read_your_writes | local.
-type window() :: {non_neg_integer() | last, non_neg_integer(), direction()}.
-doc "What was asked, as the rules see it. A condition: a query, and the position after which.".
-type op() ::
    {append, [{Stream :: binary(), Expected :: integer(), [{Id :: binary(), content()}]}],
        none | {erl_esdb_query:query(), integer()}}
    | {read, binary() | log, window(), consistency()}
    | {truncate, binary(), Before :: non_neg_integer()}
    | {delete, binary(), hard | tombstone}
    | {put, Key :: term(), Value :: term()}
    | {forget, Key :: term()}
    | {get, Key :: term(), consistency()}
    | {subscribe, Name :: term(), {stream, binary()} | all, From :: non_neg_integer()}.
-doc """
`refused` had no effect; `unknown` may have had, may have later on, or may never have. An append
answers for each part the last version and position; a truncation before which version all is gone.
""".
-type outcome() :: {ok, term()} | {refused, term()} | unknown.
-doc "What is asked of the store: `op` with whole events and the options of an append.".
-type request() ::
    {append, [erl_esdb_append:given(), ...], map()}
    | {read, binary() | log, window(), consistency()}
    | {truncate, binary(), non_neg_integer()}
    | {delete, binary(), hard | tombstone}
    | {put, {binary(), non_neg_integer()}, term()}
    | {forget, {binary(), non_neg_integer()}}
    | {get, {binary(), non_neg_integer()}, consistency()}
    | {subscribe, Name :: binary(), {stream, binary()} | all, From :: non_neg_integer(), pid()}.
-doc "Calls a function where the store is. What it raises is an unknown outcome.".
-type via() :: fun((module(), atom(), [term()]) -> term()).
-type who() :: {Client :: term(), Node :: term()}.
-doc "What rule is broken, by what, and the entries that say so.".
-type violation() :: {Rule :: atom(), term(), [entry() | #final{}]}.

-doc "An empty history. It belongs to this process.".
-spec new() -> history().
new() -> ets:new(?MODULE, [ordered_set, public, {write_concurrency, true}]).

-spec delete(history()) -> ok.
delete(History) ->
    true = ets:delete(History),
    ok.

-doc "An event to append.".
-spec event(Id :: binary(), Data :: map()) -> new_event().
event(Id, Data) -> event(Id, ~"Happened", [], Data).

-spec event(Id :: binary(), Type :: binary(), Tags :: [binary()], Data :: map()) -> new_event().
event(Id, Type, Tags, Data) ->
    #{event_id => Id, event_type => Type, tags => Tags, data => Data, metadata => #{~"of" => Id}}.

-doc """
Asks a store, and records what was asked, when, and what came of it. Answers what the store did, or
`{unreachable, Reason}`.

It is in the history from its begin on: where the process of the client ends meanwhile, the outcome
stays unknown.
""".
-spec call(history(), who(), request(), Store :: atom(), via()) -> term().
call(History, {Client, Node}, Request, Store, Via) ->
    Call = #call{client = Client, node = Node, op = op(Request), from = stamp()},
    true = ets:insert(History, {Call#call.from, Call}),
    Result = asked(Request, Store, Via),
    Outcome = outcome(Request, Result),
    true = ets:insert(History, {Call#call.from, ended(Call, Outcome)}),
    Result.

-spec ended(#call{}, outcome()) -> #call{}.
ended(Call, unknown) -> Call;
ended(Call, Outcome) -> Call#call{to = stamp(), outcome = Outcome}.

-spec asked(request(), atom(), via()) -> term().
asked(Request, Store, Via) ->
    {Module, Function, Arguments} = mfa(Store, Request),
    try
        Via(Module, Function, Arguments)
    catch
        Class:Reason -> {unreachable, {Class, Reason}}
    end.

-doc "Records events that came to a subscriber.".
-spec delivered(history(), Subscription :: term(), [event()]) -> ok.
delivered(History, Subscription, Events) ->
    At = stamp(),
    Seen = lists:map(fun seen/1, Events),
    Delivery = #delivery{subscription = Subscription, at = At, events = Seen},
    true = ets:insert(History, {At, Delivery}),
    ok.

-doc "Records what was done to the store from outside.".
-spec fault(history(), What :: term()) -> ok.
fault(History, What) ->
    At = stamp(),
    true = ets:insert(History, {At, #fault{what = What, at = At}}),
    ok.

-doc "All that was recorded, in the order in which it began.".
-spec entries(history()) -> [entry()].
entries(History) -> [Entry || {_, Entry} <- ets:tab2list(History)].

-doc "How many entries there are.".
-spec operations(history()) -> non_neg_integer().
operations(History) -> ets:info(History, size).

-spec stamp() -> stamp().
stamp() -> erlang:unique_integer([monotonic]).

-doc "What is kept of an event that was read.".
-spec seen(event()) -> #seen{}.
seen(#event{} = Event) ->
    #event{event_type = Type, tags = Tags, data = Data, metadata = Metadata} = Event,
    #seen{
        stream = Event#event.stream_id,
        version = Event#event.version,
        position = Event#event.position,
        id = Event#event.event_id,
        content = content(Type, Tags, Data, Metadata)
    }.

-spec content(binary(), [binary()], term(), map()) -> content().
content(Type, Tags, Data, Metadata) ->
    {Type, Tags, erlang:md5(term_to_binary({Data, Metadata}, [deterministic]))}.

%% ---- requests

-spec op(request()) -> op().
op({append, Parts, Options}) ->
    {append, [{S, Expected, lists:map(fun given/1, Events)} || {S, Expected, Events} <- Parts],
        condition(Options)};
op({subscribe, Name, Selector, From, _Subscriber}) ->
    {subscribe, Name, Selector, From};
op(Request) ->
    Request.

-spec given(new_event()) -> {binary(), content()}.
given(#{event_id := Id, event_type := Type, data := Data} = Event) ->
    {Id, content(Type, maps:get(tags, Event, []), Data, maps:get(metadata, Event, #{}))}.

-spec condition(map()) -> none | {erl_esdb_query:query(), integer()}.
condition(#{condition := #{fail_if_events_match := Query} = Condition}) ->
    {Query, maps:get(after_position, Condition, -1)};
condition(#{}) ->
    none.

-spec mfa(atom(), request()) -> {module(), atom(), [term()]}.
mfa(Store, {append, [{Stream, Expected, Events}], Options}) ->
    {erl_esdb_streams, append, [Store, Stream, Expected, Events, Options#{return => result}]};
mfa(Store, {append, Parts, Options}) ->
    {erl_esdb_streams, append_many, [Store, Parts, Options#{return => result}]};
mfa(Store, {read, log, {From, Count, Direction}, Consistency}) ->
    Options = #{consistency => Consistency},
    {erl_esdb_streams, read_log, [Store, From, Count, Direction, Options]};
mfa(Store, {read, Stream, {last, Count, backward}, Consistency}) ->
    Options = #{consistency => Consistency},
    {erl_esdb_streams, read_all, [Store, Stream, Count, backward, Options]};
mfa(Store, {read, Stream, {From, Count, Direction}, Consistency}) ->
    Options = #{consistency => Consistency},
    {erl_esdb_streams, read, [Store, Stream, From, Count, Direction, Options]};
mfa(Store, {truncate, Stream, Before}) ->
    Options = #{before_version => Before, require_snapshot => false},
    {erl_esdb_scavenge, scavenge, [Store, Stream, Options]};
mfa(Store, {delete, Stream, Mode}) ->
    {erl_esdb_streams, delete, [Store, Stream, #{mode => Mode}]};
mfa(Store, {put, {Stream, Version}, Value}) ->
    {erl_esdb_snapshots, save, [Store, Stream, Version, Value]};
mfa(Store, {forget, {Stream, Version}}) ->
    {erl_esdb_snapshots, delete_at, [Store, Stream, Version]};
mfa(Store, {get, {Stream, Version}, Consistency}) ->
    {erl_esdb_snapshots, load_at, [Store, Stream, Version, #{consistency => Consistency}]};
mfa(Store, {subscribe, Name, Selector, From, Subscriber}) ->
    Options = #{start_from => From, subscriber => Subscriber, ack => manual, batch => 100},
    {erl_esdb_subscriptions, subscribe, [Store, stream, selector(Selector), Name, Options]}.

-doc "The key of a subscription that was asked for.".
-spec subscription_key(Name :: binary(), {stream, binary()} | all) -> binary().
subscription_key(Name, Selector) ->
    erl_esdb_subscriptions_store:key(stream, selector(Selector), Name).

-spec selector({stream, binary()} | all) -> binary().
selector({stream, Stream}) -> Stream;
selector(all) -> ~"$all".

%% ---- outcomes

-spec outcome(request(), term()) -> outcome().
outcome({append, [{Stream, _, _}], _}, {ok, #append_result{} = Result}) ->
    {ok, [placed(Stream, Result)]};
outcome({append, Parts, _}, {ok, Results}) ->
    {ok, [placed(Stream, map_get(Stream, Results)) || {Stream, _, _} <- Parts]};
outcome({read, _, _, _}, {ok, Events}) ->
    {ok, lists:map(fun seen/1, Events)};
outcome({read, Stream, _, _}, {error, {stream_not_found, Stream}}) ->
    {ok, []};
outcome({truncate, _, _}, {ok, #{deleted_count := 0}}) ->
    {ok, 0};
outcome({truncate, _, _}, {ok, #{deleted_versions := {_, Last}}}) ->
    {ok, Last + 1};
outcome({get, _, _}, {ok, #snapshot{data = Value}}) ->
    {ok, {value, Value}};
outcome({get, _, _}, {error, not_found}) ->
    {ok, none};
outcome({subscribe, _, _, _, _}, {ok, Key}) ->
    {ok, Key};
%% A try before, whose answer was lost.
outcome({subscribe, Name, Selector, _, _}, {error, {already_exists, Name}}) ->
    {ok, subscription_key(Name, Selector)};
outcome(_, ok) ->
    {ok, ok};
outcome(_, {error, Reason}) ->
    failed(Reason);
outcome(_, {unreachable, _}) ->
    unknown.

-spec placed(binary(), append_result()) -> {binary(), integer(), non_neg_integer() | undefined}.
placed(Stream, #append_result{version = Version, position = Position}) ->
    {Stream, Version, Position}.

%% `overloaded' was not sent.
-spec failed(term()) -> outcome().
failed({Failure, Store}) when
    is_atom(Store),
    (Failure =:= timeout orelse Failure =:= no_quorum orelse Failure =:= store_not_started)
->
    unknown;
failed(Reason) ->
    {refused, Reason}.

%% ---- the end

-define(PAGE, 500).

-doc "All that a store has now: what a reader of the whole log sees.".
-spec final(Store :: atom(), via()) -> {ok, #final{}} | {error, term()}.
final(Store, Via) ->
    case pages(Store, Via, 0, []) of
        {ok, Events} -> {ok, #final{events = Events}};
        {error, Reason} -> {error, Reason}
    end.

-spec pages(atom(), via(), non_neg_integer(), [[#seen{}]]) -> {ok, [#seen{}]} | {error, term()}.
pages(Store, Via, From, Before) ->
    case asked({read, log, {From, ?PAGE, forward}, linearizable}, Store, Via) of
        {ok, []} ->
            {ok, lists:append(lists:reverse(Before))};
        {ok, Events} ->
            Page = lists:map(fun seen/1, Events),
            pages(Store, Via, (lists:last(Page))#seen.position + 1, [Page | Before]);
        Failure ->
            {error, Failure}
    end.

-doc """
What of this history cannot have been, if the store keeps its promises and has this in the end. The
documents of the end are compared where `documents` names them.
""".
-spec check([entry()], #final{}) -> [violation()].
check(Entries, Final) -> erl_esdb_history_check:check(Entries, Final).

-doc "A violation as text: the rule, what broke it, and each call on a line of its own.".
-spec format(violation()) -> iodata().
format({Rule, What, Entries}) ->
    [
        io_lib:format("~ts: ~0tp~n", [Rule, What])
        | [io_lib:format("    ~ts~n", [line(Entry)]) || Entry <- Entries]
    ].

-spec line(entry() | #final{}) -> iodata().
line(#call{client = Client, node = Node, op = Op, from = From, to = To, outcome = Outcome}) ->
    io_lib:format("[~tp, ~tp] ~0tp at ~0tp: ~0tP -> ~0tP", [
        From, To, Client, Node, Op, 60, Outcome, 60
    ]);
line(#delivery{subscription = Subscription, at = At, events = Events}) ->
    io_lib:format("[~tp] to ~0tp: ~0tP", [At, Subscription, Events, 60]);
line(#fault{what = What, at = At}) ->
    io_lib:format("[~tp] fault: ~0tp", [At, What]);
line(#final{events = Events}) ->
    io_lib:format("in the end: ~tp events", [length(Events)]).
