-module(erl_esdb_event_json).
-moduledoc """
An event as a line of JSON, and back.

```erlang
1> Line = erl_esdb_event_json:encode(Event).
2> {ok, #{event_type := ~"Placed"}} = erl_esdb_event_json:decode(Line, existing).
```

```json
{"position":7,"stream_id":"order-1","version":0,"event_id":"...","event_type":"Placed",
 "epoch_us":1700000000000000,"data":{"total":42},"metadata":{},"tags":["eu"]}
```

| field | |
|---|---|
| `stream_id`, `event_type` | always there |
| `data` | always there: an object, or a string where it is binary |
| `metadata` | an object; empty where it is missing |
| `event_id`, `tags`, `..._content_type` | missing ones are made up, none, or usual |
| `position`, `version` | where it was recorded |
| `epoch_us` | when, in microseconds since 1970 |
| `NAME_etf` | in place of NAME: what is not JSON, as Base64 of the external term format |

**Atoms become strings**: keys, and values other than `true`, `false` and `null`; read again they
are binaries. All else comes back as it was: what JSON cannot say exactly (binaries that are no
UTF-8, tuples, keys that are numbers, an atom and a binary of one name as two keys of a map) is
`NAME_etf`. Whoever writes such lines in another language needs no `_etf`.
""".

-export([encode/1, decode/2, is_json/1]).

-include("erl_esdb.hrl").

%% In the order in which people look for them.
-define(FIELDS, [
    position,
    stream_id,
    version,
    event_id,
    event_type,
    epoch_us,
    data,
    metadata,
    tags,
    data_content_type,
    metadata_content_type,
    prev_event_hash,
    mac
]).

-doc "The line of an event, with its end.".
-spec encode(event()) -> iolist().
encode(Event) ->
    Map = erl_esdb_event_segment:to_map(Event),
    Fields = [field(Name, maps:get(Name, Map)) || Name <- ?FIELDS, is_map_key(Name, Map)],
    [${, lists:join($,, Fields), "}\n"].

-spec field(atom(), term()) -> iolist().
field(Name, Value) ->
    case is_json(Value) of
        true -> [$", atom_to_binary(Name), "\":", json:encode(Value)];
        false -> [$", atom_to_binary(Name), "_etf\":\"", etf(Value), $"]
    end.

-spec etf(term()) -> binary().
etf(Value) -> base64:encode(term_to_binary(Value, [{minor_version, 2}])).

-doc "Whether JSON says a term exactly, but for atoms, of which it makes strings.".
-spec is_json(term()) -> boolean().
is_json(Map) when is_map(Map) ->
    Keys = [key(Key) || Key := _ <- Map],
    lists:all(fun is_binary/1, Keys) andalso
        length(lists:usort(Keys)) =:= length(Keys) andalso
        lists:all(fun is_json/1, maps:values(Map));
is_json(Text) when is_binary(Text) -> is_utf8(Text);
is_json([Head | Tail]) ->
    is_json(Head) andalso is_list(Tail) andalso is_json(Tail);
is_json(Value) ->
    Value =:= [] orelse is_number(Value) orelse is_atom(Value).

-spec key(term()) -> binary() | none.
key(Key) when is_atom(Key) -> atom_to_binary(Key);
key(Key) when is_binary(Key) -> utf8_key(is_utf8(Key), Key);
key(_) -> none.

-spec utf8_key(boolean(), binary()) -> binary() | none.
utf8_key(true, Key) -> Key;
utf8_key(false, _) -> none.

-spec is_utf8(binary()) -> boolean().
is_utf8(<<_/utf8, Rest/binary>>) -> is_utf8(Rest);
is_utf8(Rest) -> Rest =:= <<>>.

-doc """
The event of a line, as a map for `erl_esdb_streams:append/4` with `stream_id` and, where they are
known, `position`, `version` and `epoch_us`. `Atoms` as `erl_esdb_event_segment:unpack/2`, for
`_etf`.

## Errors

- `invalid_json`
- `{missing | bad_type, Field}`
""".
-spec decode(Line :: binary(), existing | create) ->
    {ok, map()} | {error, invalid_json | {missing | bad_type, atom()}}.
decode(Line, Atoms) ->
    try json:decode(Line) of
        #{} = Object -> event(Object, Atoms);
        _ -> {error, invalid_json}
    catch
        %% Whatever the parser says.
        error:_ -> {error, invalid_json}
    end.

-spec event(map(), existing | create) -> {ok, map()} | {error, {missing | bad_type, atom()}}.
event(Object, Atoms) ->
    try
        Found = [{Name, value(Name, Object, Atoms)} || Name <- ?FIELDS],
        {ok, #{Name => checked(Name, Value) || {Name, {ok, Value}} <- Found}}
    catch
        throw:{Why, Name} -> {error, {Why, Name}}
    end.

-spec value(atom(), map(), existing | create) -> {ok, term()} | none.
value(Name, Object, Atoms) ->
    Text = atom_to_binary(Name),
    Etf = <<Text/binary, "_etf">>,
    case Object of
        #{Etf := Base64} when is_binary(Base64) -> {ok, term(Name, Base64, Atoms)};
        #{Text := Value} -> {ok, Value};
        #{} when Name =:= stream_id; Name =:= event_type; Name =:= data -> throw({missing, Name});
        #{} -> none
    end.

-spec term(atom(), binary(), existing | create) -> term().
term(Name, Base64, Atoms) ->
    try
        {ok, Term} = erl_esdb_event_segment:decode(base64:decode(Base64), Atoms),
        Term
    catch
        %% Not Base64, or no term in it.
        error:_ -> throw({bad_type, Name})
    end.

-spec checked(atom(), term()) -> term().
checked(Name, Value) ->
    case is_valid(Name, Value) of
        true -> Value;
        false -> throw({bad_type, Name})
    end.

-spec is_valid(atom(), term()) -> boolean().
is_valid(data, Data) -> is_map(Data) orelse is_binary(Data);
is_valid(metadata, Metadata) -> is_map(Metadata);
is_valid(epoch_us, Time) -> is_integer(Time);
is_valid(tags, Tags) -> is_list(Tags) andalso lists:all(fun is_binary/1, Tags);
is_valid(Name, Number) when Name =:= position; Name =:= version ->
    is_integer(Number) andalso Number >= 0;
is_valid(Name, _) when Name =:= prev_event_hash; Name =:= mac -> true;
is_valid(_, Text) -> is_binary(Text).
