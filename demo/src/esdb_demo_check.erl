-module(esdb_demo_check).
-moduledoc """
Whether the store has what it acknowledged: every event once, in the order in which it was written,
with the content that it had.

```erlang
1> Sent = #{~"s" => [{~"a", 1}, {~"b", 2}]}.
2> esdb_demo_check:compare(Sent, #{~"s" => [{~"b", 2}]}).
#{events => 1, missing => 1, twice => 0, unknown => 0, changed => 0, disordered => 0}
```
""".

-include_lib("erl_esdb_gater/include/esdb_gater_types.hrl").

-export([compare/2, is_good/1, sum/1, found/1]).
-export_type([entries/0, outcome/0]).

-define(PAGE, 1000).

-doc "By streams, in their order: the id of an event, and a digest of the whole.".
-type entries() :: #{Stream :: binary() => [{Id :: binary(), Sum :: integer()}]}.
-doc """
How many events there are, and of how many something is wrong. `disordered`: how many streams have
their events in another order.
""".
-type outcome() :: #{
    events := non_neg_integer(),
    missing := non_neg_integer(),
    twice := non_neg_integer(),
    unknown := non_neg_integer(),
    changed := non_neg_integer(),
    disordered := non_neg_integer()
}.

-doc "What is there against what was acknowledged.".
-spec compare(Acknowledged :: entries(), Found :: entries()) -> outcome().
compare(Acknowledged, Found) ->
    Streams = maps:keys(maps:merge(Acknowledged, Found)),
    Of = fun(Stream, Entries) -> maps:get(Stream, Entries, []) end,
    Outcomes = [stream(Of(S, Acknowledged), Of(S, Found)) || S <- Streams],
    Add = fun(Outcome, Sum) -> maps:merge_with(fun(_, A, B) -> A + B end, Outcome, Sum) end,
    lists:foldl(Add, stream([], []), Outcomes).

-spec stream([{binary(), integer()}], [{binary(), integer()}]) -> outcome().
stream(Sent, Found) ->
    Expected = maps:from_list(Sent),
    Have = maps:from_list(Found),
    #{
        events => length(Found),
        missing => map_size(maps:without(maps:keys(Have), Expected)),
        twice => length(Found) - map_size(Have),
        unknown => map_size(maps:without(maps:keys(Expected), Have)),
        changed => length([Id || Id := Sum <- Have, maps:get(Id, Expected, Sum) =/= Sum]),
        disordered => disordered(in(Have, Sent), in(Expected, Found))
    }.

%% The ids that the other side has too, each where it comes first.
-spec in(#{binary() => integer()}, [{binary(), integer()}]) -> [binary()].
in(Others, Entries) -> lists:uniq([Id || {Id, _} <- Entries, is_map_key(Id, Others)]).

-spec disordered([binary()], [binary()]) -> 0 | 1.
disordered(Same, Same) -> 0;
disordered(_, _) -> 1.

-doc "Whether nothing is wrong.".
-spec is_good(outcome()) -> boolean().
is_good(Outcome) -> lists:all(fun(N) -> N =:= 0 end, maps:values(maps:remove(events, Outcome))).

-doc "The digest of an event.".
-spec sum(esdb_demo_event:commit()) -> integer().
sum(Event) -> esdb_hash_nif:xxhash3(term_to_binary(Event, [deterministic])).

-doc """
What a store has, as this node knows it when it has all that was acknowledged anywhere, and a digest
of the order of all its events. Where a version does not go on from the one before it the event gets
another id: it counts as one that nobody sent.
""".
-spec found(Store :: atom()) -> {ok, entries(), Order :: integer()} | {error, term()}.
found(Store) -> found(Store, 0, #{consistency => linearizable}, {#{}, 0}).

-type found() :: {#{binary() => {non_neg_integer(), [{binary(), integer()}]}}, integer()}.

-spec found(atom(), non_neg_integer(), map(), found()) ->
    {ok, entries(), integer()} | {error, term()}.
found(Store, Position, Options, {Streams, Order} = Found) ->
    case erl_esdb_streams:read_log(Store, Position, ?PAGE, forward, Options) of
        {ok, []} ->
            {ok, #{Stream => lists:reverse(Entries) || Stream := {_, Entries} <- Streams}, Order};
        {ok, Page} ->
            Next = (lists:last(Page))#event.position + 1,
            %% What this node has by now is all that was there when the first page was read.
            found(Store, Next, #{consistency => local}, lists:foldl(fun add/2, Found, Page));
        {error, Reason} ->
            {error, Reason}
    end.

-spec add(#event{}, found()) -> found().
add(#event{stream_id = Stream, version = Version, event_id = Id} = Event, {Streams, Order}) ->
    {Next, Entries} = maps:get(Stream, Streams, {0, []}),
    Entry = {named(Version =:= Next, Id), sum(esdb_demo_event:from_stored(Event))},
    Place = term_to_binary({Order, Event#event.position, Id}),
    {Streams#{Stream => {Version + 1, [Entry | Entries]}}, esdb_hash_nif:xxhash3(Place)}.

-spec named(boolean(), binary()) -> binary().
named(true, Id) -> Id;
named(false, Id) -> <<"behind a gap: ", Id/binary>>.
