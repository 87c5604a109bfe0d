-module(erl_esdb_event_segment).
-moduledoc """
Events as packed segments (`m:esdb_segment_nif`), and back.

Each event becomes a map with the envelope keys that a segment has columns for; what an event
usually does not have (tags, other content types, hashes) is left out. Data that has no place in a
segment, because it holds terms such as pids, stands in it as external term under `encoded`.

```erlang
1> {ok, Segment} = erl_esdb_event_segment:pack(Events, #{compress => zstd}).
2> {ok, Events} = erl_esdb_event_segment:unpack(Segment, existing).
```
""".

-export([pack/2, unpack/2, split/2, size_of/1, to_map/1, from_map/2, decode/2]).

-include("erl_esdb.hrl").

%% What is built of a segment at once may take 256 MiB; so much less may stand in one.
-define(MAX_EVENT, 134_217_728).

-doc """
Packs events; options as `esdb_segment_nif:pack/2`.

## Errors

- `{event_too_large, Size, Max}`: an event of more than 128 MiB
""".
-spec pack([event()], map()) -> {ok, binary()} | {error, term()}.
pack(Events, Options) ->
    Maps = [to_map(Event) || Event <- Events],
    maybe
        ok ?= check_sizes(Events),
        {error, {unsupported_term, _}} ?= packed(Maps, Options),
        packed([portable(Map) || Map <- Maps], Options)
    end.

-spec packed([map()], map()) -> {ok, binary()} | {error, term()}.
packed(Maps, Options) ->
    case esdb_segment_nif:pack(Maps, Options) of
        {error, Reason} -> {error, Reason};
        Segment when is_binary(Segment) -> {ok, Segment}
    end.

-spec check_sizes([event()]) -> ok | {error, {event_too_large, pos_integer(), pos_integer()}}.
check_sizes([Event | Events]) ->
    case size_of(Event) of
        Size when Size > ?MAX_EVENT -> {error, {event_too_large, Size, ?MAX_EVENT}};
        _ -> check_sizes(Events)
    end;
check_sizes([]) ->
    ok.

-doc "The bytes of what an event holds, in the external term format.".
-spec size_of(event()) -> pos_integer().
size_of(#event{data = Data, metadata = Metadata}) ->
    erlang:external_size(Data) + erlang:external_size(Metadata).

-spec portable(map()) -> map().
portable(Map) ->
    case esdb_segment_nif:pack([Map]) of
        {error, {unsupported_term, 0}} -> encoded(Map);
        _ -> Map
    end.

-spec encoded(map()) -> map().
encoded(#{data := Data, metadata := Metadata} = Map) ->
    Bytes = term_to_binary({Data, Metadata}, [{minor_version, 2}]),
    (maps:without([data, metadata], Map))#{encoded => Bytes}.

-doc "Splits events into lists of at most so many events and, but for large ones, bytes.".
-spec split([event()], #{events := pos_integer(), bytes := pos_integer()}) -> [[event(), ...]].
split(Events, Limits) -> split(Events, Limits, 0, 0, []).

-spec split([event()], map(), non_neg_integer(), non_neg_integer(), [event()]) ->
    [[event(), ...]].
split([Event | Events], Limits, Count, Bytes, Part) ->
    Size = size_of(Event),
    #{events := MaxEvents, bytes := MaxBytes} = Limits,
    case Part =/= [] andalso (Count >= MaxEvents orelse Bytes + Size > MaxBytes) of
        true -> [lists:reverse(Part) | split(Events, Limits, 1, Size, [Event])];
        false -> split(Events, Limits, Count + 1, Bytes + Size, [Event | Part])
    end;
split([], _Limits, _Count, _Bytes, []) ->
    [];
split([], _Limits, _Count, _Bytes, Part) ->
    [lists:reverse(Part)].

-doc """
The events of a segment. `Atoms`: whether atoms that this node does not have make it corrupt
(`existing`) or are made (`create`).
""".
-spec unpack(esdb_segment_nif:segment(), existing | create) ->
    {ok, [event()]} | {error, term()}.
unpack(Segment, Atoms) ->
    case esdb_segment_nif:to_events(Segment, #{atoms => Atoms}) of
        {error, Reason} -> {error, Reason};
        Maps -> from_maps(Maps, Atoms, [])
    end.

-spec from_maps([map()], existing | create, [event()]) -> {ok, [event()]} | {error, term()}.
from_maps([Map | Maps], Atoms, Events) ->
    case from_map(Map, Atoms) of
        {ok, Event} -> from_maps(Maps, Atoms, [Event | Events]);
        {error, Reason} -> {error, Reason}
    end;
from_maps([], _Atoms, Events) ->
    {ok, lists:reverse(Events)}.

-doc "An event as a map.".
-spec to_map(event()) -> map().
to_map(#event{epoch_us = Time} = Event) ->
    Usual = #{
        timestamp => Time div 1000,
        data_content_type => ?CONTENT_TYPE_JSON,
        metadata_content_type => ?CONTENT_TYPE_JSON,
        tags => [],
        position => undefined,
        prev_event_hash => undefined,
        mac => undefined
    },
    Fields = lists:zip(record_info(fields, event), tl(tuple_to_list(Event))),
    #{Key => Value || {Key, Value} <- Fields, not is_usual(Key, Value, Usual)}.

-spec is_usual(atom(), term(), map()) -> boolean().
is_usual(Key, Value, Usual) ->
    case Usual of
        #{Key := Value} -> true;
        #{} -> false
    end.

-doc "The event of such a map. What is missing or of a wrong type makes it corrupt.".
-spec from_map(map(), existing | create) -> {ok, event()} | {error, {corrupt, event}}.
from_map(#{encoded := Bytes} = Map, Atoms) when is_binary(Bytes) ->
    case decode(Bytes, Atoms) of
        {ok, {Data, Metadata}} ->
            from_map((maps:remove(encoded, Map))#{data => Data, metadata => Metadata}, Atoms);
        _ ->
            {error, {corrupt, event}}
    end;
from_map(#{epoch_us := Time} = Map, _Atoms) when is_integer(Time) ->
    Fields = [field(Key, Map) || Key <- record_info(fields, event)],
    case lists:all(fun({Key, Value}) -> is_valid(Key, Value) end, Fields) of
        true -> {ok, list_to_tuple([event | [Value || {_, Value} <- Fields]])};
        false -> {error, {corrupt, event}}
    end;
from_map(_, _) ->
    {error, {corrupt, event}}.

-spec field(atom(), map()) -> {atom(), term()}.
field(Key, Map) when is_map_key(Key, Map) -> {Key, maps:get(Key, Map)};
field(timestamp = Key, #{epoch_us := Time}) -> {Key, Time div 1000};
field(data_content_type = Key, _) -> {Key, ?CONTENT_TYPE_JSON};
field(metadata_content_type = Key, _) -> {Key, ?CONTENT_TYPE_JSON};
field(tags = Key, _) -> {Key, []};
field(Key, _) -> {Key, undefined}.

-spec is_valid(atom(), term()) -> boolean().
is_valid(version, V) -> is_integer(V) andalso V >= 0;
is_valid(position, P) -> P =:= undefined orelse (is_integer(P) andalso P >= 0);
is_valid(data, Data) -> is_map(Data) orelse is_binary(Data);
is_valid(metadata, Metadata) -> is_map(Metadata);
is_valid(tags, Tags) -> is_list(Tags);
is_valid(prev_event_hash, Hash) -> Hash =:= undefined orelse is_binary(Hash);
is_valid(mac, {Id, Mac}) -> is_integer(Id) andalso is_binary(Mac);
is_valid(mac, Mac) -> Mac =:= undefined;
is_valid(Key, Time) when Key =:= timestamp; Key =:= epoch_us -> is_integer(Time);
is_valid(_, Text) -> is_binary(Text).

-doc """
Decodes an external term. Compressed ones are refused: they may become anything large.
""".
-spec decode(binary(), existing | create) -> {ok, term()} | error.
decode(<<131, 80, _/binary>>, _Atoms) ->
    error;
decode(Bytes, Atoms) ->
    Options =
        case Atoms of
            existing -> [safe, used];
            create -> [used]
        end,
    try binary_to_term(Bytes, Options) of
        {Term, Used} when Used =:= byte_size(Bytes) -> {ok, Term};
        _ -> error
    catch
        error:badarg -> error
    end.
