-module(esdb_demo_event).
-moduledoc """
One commit as an event: its shape, the check of what a file gives, and the way to the store and
back.

```erlang
1> {ok, Event} = esdb_demo_event:parse(~'''
{"event_id":"c0ffee","event_type":"CommitAuthored","stream_id":"area-src",
 "epoch_us":1294562768000000,"data":{"areas":{"src":{"insertions":3}}},"metadata":{}}
'''), #{data := #{~"areas" := Areas}} = Event, esdb_demo_event:add_insertions(Areas, #{}).
#{<<"src">> => 3}
```

In the store the metadata keys `causation_id`, `correlation_id` and `actor_id` are atoms, as the
store's causation functions expect them; all other keys stay binaries, so no input makes an atom.
The time of the commit is kept under the reserved key `<<"$epoch_us">>` of the metadata, because
the store's own `epoch_us` is the time of the append; a line that has this key itself is refused.
What is null stays null, and what is absent stays absent: an event comes back as it went in.
""".

-include_lib("erl_esdb_gater/include/esdb_gater_types.hrl").

-export([parse/1, check/1]).
-export([to_new/1, from_new/2, from_stored/1, to_json/1]).
-export([add_insertions/2]).
-export_type([commit/0]).

-type commit() :: #{
    event_id := binary(),
    event_type := binary(),
    stream_id := binary(),
    epoch_us := non_neg_integer(),
    data := #{binary() => term()},
    metadata := #{binary() => term()}
}.

%% The last microsecond of the year 9999: later than this no calendar goes.
-define(LAST_US, 253_402_300_799_999_999).
%% An integer of more digits than this is no number of lines or microseconds, and the time that it
%% takes to convert grows with the square of its length.
-define(MAX_DIGITS, 30).
-define(TIME_KEY, ~"$epoch_us").
-define(ATOM_KEYS, [causation_id, correlation_id, actor_id]).

-doc """
The event in a line of NDJSON.

## Errors
A short text for people that says what is wrong with the line.
""".
-spec parse(Line :: binary()) -> {ok, commit()} | {error, Why :: binary()}.
parse(Line) ->
    try json:decode(Line, ok, #{integer => fun to_integer/1}) of
        {Json, ok, Rest} ->
            case is_blank(Rest) of
                true -> check(Json);
                false -> {error, ~"more than one JSON value"}
            end
    catch
        error:_ -> {error, ~"not valid JSON"}
    end.

-spec to_integer(binary()) -> integer().
to_integer(Digits) when byte_size(Digits) =< ?MAX_DIGITS -> binary_to_integer(Digits);
to_integer(_) -> error(badarg).

-spec is_blank(binary()) -> boolean().
is_blank(Rest) ->
    string:trim(Rest) =:= <<>>.

-doc "Checks the presence and the types of the members of a decoded JSON object.".
-spec check(term()) -> {ok, commit()} | {error, Why :: binary()}.
check(#{} = Json) ->
    Checks = [
        {~"event_id", fun is_name/1, ~"event_id is not a non-empty string"},
        {~"event_type", fun is_name/1, ~"event_type is not a non-empty string"},
        {~"stream_id", fun is_name/1, ~"stream_id is not a non-empty string"},
        {~"epoch_us", fun is_time/1, ~"epoch_us is not an integer between the years 1970 and 9999"},
        {~"data", fun is_map/1, ~"data is not an object"},
        {~"metadata", fun is_map/1, ~"metadata is not an object"},
        {~"metadata", fun is_free/1, ~"metadata has the reserved key $epoch_us"}
    ],
    Fails = fun({Key, Is, _}) -> not Is(maps:get(Key, Json, missing)) end,
    case lists:search(Fails, Checks) of
        false -> {ok, from_json(Json)};
        {value, {Key, _, Why}} -> {error, problem(Key, Json, Why)}
    end;
check(_) ->
    {error, ~"not a JSON object"}.

-spec problem(binary(), map(), binary()) -> binary().
problem(Key, Json, _) when not is_map_key(Key, Json) -> <<Key/binary, " is missing">>;
problem(_, _, Why) -> Why.

-spec is_name(term()) -> boolean().
is_name(Term) ->
    is_binary(Term) andalso Term =/= <<>>.

-spec is_time(term()) -> boolean().
is_time(Term) ->
    is_integer(Term) andalso Term >= 0 andalso Term =< ?LAST_US.

-spec is_free(map()) -> boolean().
is_free(Metadata) ->
    not is_map_key(?TIME_KEY, Metadata).

-spec from_json(map()) -> commit().
from_json(#{
    ~"event_id" := Id,
    ~"event_type" := Type,
    ~"stream_id" := Stream,
    ~"epoch_us" := Time,
    ~"data" := Data,
    ~"metadata" := Metadata
}) ->
    #{
        event_id => binary:copy(Id),
        event_type => Type,
        stream_id => Stream,
        epoch_us => Time,
        data => Data,
        metadata => Metadata
    }.

-doc "The event as `erl_esdb_streams:append/4` takes it.".
-spec to_new(commit()) -> map().
to_new(#{epoch_us := Time, metadata := Metadata} = Event) ->
    Kept = #{stored_key(Key) => Value || Key := Value <- Metadata},
    New = maps:with([event_id, event_type, data], Event),
    New#{metadata => Kept#{?TIME_KEY => Time}}.

-spec stored_key(binary()) -> atom() | binary().
stored_key(~"causation_id") -> causation_id;
stored_key(~"correlation_id") -> correlation_id;
stored_key(~"actor_id") -> actor_id;
stored_key(Other) -> Other.

-doc "What `to_new/1` made, in the shape of `t:commit/0` again.".
-spec from_new(Stream :: binary(), map()) -> commit().
from_new(Stream, #{metadata := Stored} = New) ->
    {Time, Rest} = maps:take(?TIME_KEY, Stored),
    Atoms = #{atom_to_binary(Key) => Value || Key := Value <- maps:with(?ATOM_KEYS, Rest)},
    (maps:with([event_id, event_type, data], New))#{
        stream_id => Stream,
        epoch_us => Time,
        metadata => maps:merge(maps:without(?ATOM_KEYS, Rest), Atoms)
    }.

-doc "The event that the store gives back, in the shape of `t:commit/0` again.".
-spec from_stored(#event{}) -> commit().
from_stored(#event{stream_id = Stream} = E) ->
    from_new(Stream, #{
        event_id => E#event.event_id,
        event_type => E#event.event_type,
        data => E#event.data,
        metadata => E#event.metadata
    }).

-doc "The event as one line of JSON, without a line end: what the archive of the report holds.".
-spec to_json(commit()) -> binary().
to_json(Event) ->
    iolist_to_binary(json:encode(Event)).

-doc """
The inserted lines of each area with those of one more event, given the value of `areas` in its
data; what is of another form counts nothing.
""".
-spec add_insertions(Areas :: term(), Counts) -> Counts when Counts :: #{binary() => pos_integer()}.
add_insertions(#{} = Areas, Counts) ->
    Add = fun
        (Area, #{~"insertions" := N}, In) when is_integer(N), N > 0 ->
            In#{Area => maps:get(Area, In, 0) + N};
        (_, _, In) ->
            In
    end,
    maps:fold(Add, Counts, Areas);
add_insertions(_, Counts) ->
    Counts.
