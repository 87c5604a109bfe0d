-module(erl_esdb_aggregator).
-moduledoc """
Folds events into the state that they describe, by tags in their data.

| field of an event | what it does to the field of the state |
|---|---|
| `{sum, N}`, N a number | adds N to it; it is `{sum, Sum}` then |
| `{overwrite, Value}` | takes its place |
| any other value | takes its place |

For a sum that is added, the state counts with its number: of `{sum, M}` and `{overwrite, M}`, and a
number itself; anything else counts 0. Tags stay in the state until `finalize/1`.

```erlang
1> Events = [#{data => #{name => ~"Alice", balance => {sum, 100}}},
             #{data => #{status => {overwrite, open}, balance => {sum, -30}}}].
2> State = erl_esdb_aggregator:foldl(Events).
#{name => <<"Alice">>,status => {overwrite,open},balance => {sum,70}}
3> erl_esdb_aggregator:finalize(State).
#{name => <<"Alice">>,status => open,balance => 70}
```

An event is an `#event{}` whose data is a map, a map with a map under `data`, or any other map,
which is then the data itself. Anything else (an event whose data is a binary, say) is passed over.
""".

-export([foldl/1, foldl/2, foldr/1, foldr/2]).
-export([finalize/1, aggregate/3]).
-export_type([tagged_map/0, element/0, options/0]).

-include("erl_esdb.hrl").

-type tagged_map() :: #{Field :: term() => {sum, number()} | {overwrite, term()} | term()}.
-type element() :: event() | map() | term().
-type options() :: #{initial_state => map(), finalize => boolean(), _ => _}.

-doc #{equiv => foldl(Events, #{})}.
-spec foldl(Events :: [element()]) -> tagged_map().
foldl(Events) -> foldl(Events, #{}).

-doc """
The state `Initial` after all events, the first one first.

A list that has no end, or an initial state that is no map, is `badarg`; a sum that no float holds
is `badarith`.
""".
-spec foldl(Events :: [element()], Initial :: tagged_map()) -> tagged_map().
foldl(Events, Initial) -> fold(maps_of(Events), Initial, false).

-doc #{equiv => foldr(Events, #{})}.
-spec foldr(Events :: [element()]) -> tagged_map().
foldr(Events) -> foldr(Events, #{}).

-doc "As `foldl/2`, the last event first: the fields of the first one win.".
-spec foldr(Events :: [element()], Initial :: tagged_map()) -> tagged_map().
foldr(Events, Initial) -> fold(lists:reverse(maps_of(Events)), Initial, false).

-doc "The state with `Value` for each `{sum, Value}` and `{overwrite, Value}`, one level deep.".
-spec finalize(State :: tagged_map()) -> map().
finalize(State) -> esdb_aggregate_nif:finalize(State).

-doc """
The state after a snapshot and the events that followed it.

It begins with the data of the snapshot, if that is a map, else with an empty one; without a
snapshot (`undefined`) with the option `initial_state` (default `#{}`), which a snapshot overrides.
Unless the option `finalize` is false, the result is without tags.
""".
-spec aggregate(Events :: [element()], snapshot() | undefined, options()) -> map().
aggregate(Events, Snapshot, Options) when is_map(Options) ->
    fold(maps_of(Events), initial(Snapshot, Options), maps:get(finalize, Options, true));
aggregate(_, _, _) ->
    error(badarg).

-spec initial(snapshot() | undefined, options()) -> map().
initial(undefined, Options) -> maps:get(initial_state, Options, #{});
initial(#snapshot{data = #{} = Data}, _Options) -> Data;
initial(#snapshot{}, _Options) -> #{};
initial(_, _) -> error(badarg).

%% The library has errors for packed events only.
-dialyzer({no_missing_return, fold/3}).
-spec fold([map()], tagged_map(), boolean()) -> map().
fold(Maps, Initial, Finalize) -> esdb_aggregate_nif:aggregate_events(Maps, Initial, Finalize).

%% The library knows maps only; a record becomes one, and what would be passed over falls away.
-spec maps_of([element()] | term()) -> [map()].
maps_of([#event{data = #{} = Data} | Events]) -> [#{data => Data} | maps_of(Events)];
maps_of([#{} = Event | Events]) -> [Event | maps_of(Events)];
maps_of([_ | Events]) -> maps_of(Events);
maps_of([]) -> [];
maps_of(_) -> error(badarg).
