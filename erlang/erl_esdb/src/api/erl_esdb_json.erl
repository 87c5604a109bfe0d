-module(erl_esdb_json).
-moduledoc """
JSON for events that other languages shall read.

Without it the data of an event are an Erlang term: maps with atoms, tuples and whatever else, given
back as they were. With `codec => json`, for an append or for a store, they are stored as JSON text:

```erlang
1> Placed = #{event_type => ~"OrderPlaced", data => #{total => 42}}.
2> erl_esdb_streams:append(shop, ~"order-1", -1, [Placed], #{codec => json}).
{ok,0}
3> {ok, [Stored]} = erl_esdb_streams:read(shop, ~"order-1", 0, 1, forward).
4> {Stored#event.data, Stored#event.data_content_type}.
{<<"{\"total\":42}">>,<<"application/json">>}
5> {ok, [Event]} = erl_esdb_streams:read(shop, ~"order-1", 0, 1, forward, #{decode => json}).
6> Event#event.data.
#{<<"total">> => 42}
```

What is JSON text is told by two things together: the data are a binary, and the content type is
`application/json`. A map with that content type (it is the default) is an Erlang term; a binary
with another content type is left alone, by the codec and by the reader. Text that another language
wrote is appended as it is, a binary.

* Atoms become strings, except `true`, `false` and `null`; so do keys. They stay strings when the
  data are read: no atom is made of what somebody wrote. Tuples, pids, funs and binaries that are
  not UTF-8 have no JSON, nor has a map in which two keys become one.
* Metadata stay a map, because links, schemas and the indexes look into them; of it is made what it
  would be after a trip through JSON: binaries as keys, and values that JSON has. `causation_id`,
  `correlation_id` and `schema_version` are found under either spelling.
* `decode => json` gives the JSON value of the data, a map as a rule. Text that is not JSON,
  whatever its content type says, is left as it is: `decode/1` tells.
""".

-export([encode/1, decode/1, decoded/1, encode_all/2, decode_all/2]).
-export_type([codec/0, invalid/0]).

-include("erl_esdb.hrl").

-type codec() :: json | none.
-type invalid() :: {invalid_event, {not_json, data | metadata}}.

-doc """
An event with its data as JSON text and its metadata as JSON has them.

## Errors

`{invalid_event, {not_json, data | metadata}}`: there is no JSON for it; or the data are a binary of
the content type JSON, and are none. An event with another content type for its data keeps them, and
what is no event is not looked at.
""".
-spec encode(new_event() | event()) -> {ok, new_event() | event()} | {error, invalid()}.
encode(#event{data = Data, data_content_type = Type, metadata = Metadata} = Event) ->
    maybe
        {ok, Data1} ?= text(Data, Type),
        {ok, Metadata1} ?= normal(Metadata),
        {ok, Event#event{data = Data1, metadata = Metadata1}}
    end;
encode(#{data := Data} = Event) ->
    maybe
        {ok, Data1} ?= text(Data, maps:get(data_content_type, Event, ?CONTENT_TYPE_JSON)),
        {ok, Metadata} ?= normal(maps:get(metadata, Event, #{})),
        {ok, Event#{data := Data1, metadata => Metadata}}
    end;
encode(Event) ->
    {ok, Event}.

-spec text(term(), binary()) -> {ok, term()} | {error, invalid()}.
text(Data, ?CONTENT_TYPE_JSON) when is_binary(Data) ->
    case value(Data) of
        {ok, _} -> {ok, Data};
        error -> {error, {invalid_event, {not_json, data}}}
    end;
text(Data, ?CONTENT_TYPE_JSON) when is_map(Data) ->
    case encoded(Data) of
        {ok, Text} -> {ok, Text};
        error -> {error, {invalid_event, {not_json, data}}}
    end;
text(Data, _) ->
    {ok, Data}.

-spec normal(term()) -> {ok, term()} | {error, invalid()}.
normal(Metadata) when map_size(Metadata) > 0 ->
    maybe
        {ok, Text} ?= encoded(Metadata),
        {ok, Value} ?= value(Text),
        {ok, Value}
    else
        error -> {error, {invalid_event, {not_json, metadata}}}
    end;
normal(Metadata) ->
    {ok, Metadata}.

%% OTP's encoder would write two equal keys.
-spec encoded(map()) -> {ok, binary()} | error.
encoded(Map) ->
    try
        {ok, iolist_to_binary(json:encode(Map, fun encoder/2))}
    catch
        error:_ -> error
    end.

-spec encoder(term(), json:encoder()) -> iodata().
encoder(Map, Encode) when is_map(Map) -> json:encode_map_checked(Map, Encode);
encoder(Term, Encode) -> json:encode_value(Term, Encode).

-spec value(binary()) -> {ok, term()} | error.
value(Text) ->
    try
        {ok, json:decode(Text)}
    catch
        error:_ -> error
    end.

-doc """
An event with its data decoded, where they are JSON text. Another event stays as it is.

Errors: `{invalid_json, Stream, Version}`: the content type says JSON, and it is a binary that is
none.
""".
-spec decode(event()) -> {ok, event()} | {error, {invalid_json, binary(), non_neg_integer()}}.
decode(#event{data = Data, data_content_type = ?CONTENT_TYPE_JSON} = Event) when is_binary(Data) ->
    case value(Data) of
        {ok, Value} -> {ok, Event#event{data = Value}};
        error -> {error, {invalid_json, Event#event.stream_id, Event#event.version}}
    end;
decode(#event{} = Event) ->
    {ok, Event};
decode(_) ->
    error(badarg).

-doc false.
%% What an append with this codec stores.
-spec encode_all([new_event() | event()], codec()) ->
    {ok, [new_event() | event()]} | {error, invalid()}.
encode_all(Events, none) -> {ok, Events};
encode_all(Events, json) -> encode_each(Events, []).

-spec encode_each([new_event() | event()], [new_event() | event()]) ->
    {ok, [new_event() | event()]} | {error, invalid()}.
encode_each([Event | Events], Encoded) ->
    case encode(Event) of
        {ok, Event1} -> encode_each(Events, [Event1 | Encoded]);
        {error, Reason} -> {error, Reason}
    end;
encode_each([], Encoded) ->
    {ok, lists:reverse(Encoded)}.

-doc false.
%% What a read with these options answers.
-spec decode_all({ok, [event()]} | {error, term()}, map()) -> {ok, [event()]} | {error, term()}.
decode_all({ok, Events}, #{decode := json}) -> {ok, [decoded(Event) || Event <- Events]};
decode_all(Answer, _Options) -> Answer.

-doc false.
%% The same, where there is no room for an error.
-spec decoded(event()) -> event().
decoded(Event) ->
    case decode(Event) of
        {ok, Decoded} -> Decoded;
        {error, _} -> Event
    end.
