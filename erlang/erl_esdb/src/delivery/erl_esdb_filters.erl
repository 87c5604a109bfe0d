-module(erl_esdb_filters).
-moduledoc """
Selectors of subscriptions, compiled.

```erlang
1> {ok, Filter} = erl_esdb_filters:compile(event_pattern, ~"order-*").
2> erl_esdb_filters:matches(Filter, Event).
true
```

| type | selector | matches events |
|---|---|---|
| `stream` | a name, or `<<"$all">>` | of that stream, of every stream |
| `event_type` | a binary | of that type |
| `event_pattern` | a wildcard | of streams with such names: `*` is any run, `?` is itself |
| `event_pattern` | a map | whose fields (`t:event/0`) equal its values; maps in it ask for a part |
| `event_payload` | a map | whose data, a map, has such fields |
| `event_pattern`, `event_payload` | a predicate or its handle | see `m:esdb_filter_nif` |

Data that are JSON text (`m:erl_esdb_json`) are looked at as the value that they stand for, with
binaries as keys: `#{~"total" => {gt, 5}}`. In a map of fields, `data => Binary` is the text itself.

A value of a payload is equality, or `{Op, V}` with `gt gte lt lte eq neq in any_of prefix suffix
wildcard regex`, or `{between, Low, High}`, with the meaning they have in a predicate: a field that
is missing, or of another kind, matches none of them.
""".

-export([by_stream/1, by_event_type/1, by_event_pattern/1, by_event_payload/1]).
-export([compile/2, stored/1, matches/2, stream/1, wildcard/1, wildcard_match/2]).
-export_type([filter/0, selector/0, reason/0, wildcard/0]).

-include("erl_esdb.hrl").

-type selector() :: binary() | map() | esdb_filter_nif:predicate().
-type wildcard() :: {is, binary()} | {parts, First :: binary(), [binary()], Last :: binary()}.
-opaque filter() ::
    all
    | {stream, binary()}
    | {event_type, binary()}
    | {wildcard, wildcard()}
    | {fields, map()}
    | {payload, esdb_predicate_erl:test()}
    | {predicate, esdb_predicate_erl:test()}.
-type reason() ::
    invalid_stream | {invalid_type, term()} | {invalid_selector, term()}
    | {invalid_predicate, esdb_predicate_erl:mistake()}.

-define(COMPARES(Op),
    (Op =:= gt orelse Op =:= gte orelse Op =:= lt orelse Op =:= lte orelse Op =:= eq orelse
        Op =:= neq orelse Op =:= in orelse Op =:= any_of orelse Op =:= prefix orelse
        Op =:= suffix orelse Op =:= wildcard orelse Op =:= regex)
).
-define(FIELDS, [
    event_id,
    event_type,
    stream_id,
    version,
    data,
    metadata,
    timestamp,
    epoch_us,
    data_content_type,
    metadata_content_type,
    tags,
    position
]).

-doc "The events of a stream, of all streams for `<<\"$all\">>`.".
-spec by_stream(binary()) -> filter() | {error, invalid_stream}.
by_stream(<<>>) -> {error, invalid_stream};
by_stream(<<"$all">>) -> all;
by_stream(Stream) when is_binary(Stream) -> {stream, Stream};
by_stream(_) -> error(badarg).

-doc "The events of a type.".
-spec by_event_type(binary()) -> filter().
by_event_type(Type) when is_binary(Type) -> {event_type, Type};
by_event_type(_) -> error(badarg).

-doc "The events of the streams that match a wildcard, or whose fields a map names.".
-spec by_event_pattern(binary() | map()) -> filter() | {error, reason()}.
by_event_pattern(Pattern) when is_binary(Pattern) -> {wildcard, wildcard(Pattern)};
by_event_pattern(Pattern) when is_map(Pattern) -> by_fields(Pattern, maps:keys(Pattern) -- ?FIELDS);
by_event_pattern(Predicate) -> by_predicate(Predicate).

-spec by_fields(map(), Unknown :: [term()]) -> filter() | {error, reason()}.
by_fields(Pattern, []) -> {fields, Pattern};
by_fields(Pattern, _) -> {error, {invalid_selector, Pattern}}.

-doc "The events whose data has such fields.".
-spec by_event_payload(map()) -> filter() | {error, reason()}.
by_event_payload(Expectations) when is_map(Expectations) ->
    Normal = {'and', [expectation(Key, Value) || Key := Value <- Expectations]},
    case compiled(Normal) of
        {ok, Test} -> {payload, Test};
        {error, Reason} -> {error, Reason}
    end;
by_event_payload(Predicate) ->
    by_predicate(Predicate).

-spec expectation(term(), term()) -> esdb_filter_nif:predicate().
expectation(Key, {between, Low, High}) -> {between, {data, [Key]}, Low, High};
expectation(Key, {Op, Value}) when ?COMPARES(Op) -> {Op, {data, [Key]}, Value};
expectation(Key, Value) -> {eq, {data, [Key]}, Value}.

-spec by_predicate(term()) -> filter() | {error, reason()}.
by_predicate(Predicate) ->
    case compiled(Predicate) of
        {ok, Test} -> {predicate, Test};
        {error, Reason} -> {error, Reason}
    end.

-spec compiled(term()) -> {ok, esdb_predicate_erl:test()} | {error, reason()}.
compiled(Predicate) ->
    case esdb_filter_nif:compile_predicate(Predicate) of
        {ok, Handle} -> {ok, esdb_predicate_erl:test(Handle)};
        {error, Reason} -> {error, Reason}
    end.

-doc """
The filter of a type and a selector.

Errors: `{invalid_type, Type}`, `invalid_stream` (an empty name), `{invalid_selector, Selector}`,
`{invalid_predicate, Mistake}`.
""".
-spec compile(subscription_type() | term(), selector() | term()) ->
    {ok, filter()} | {error, reason()}.
compile(stream, Stream) when is_binary(Stream) -> made(by_stream(Stream));
compile(event_type, Type) when is_binary(Type) -> made(by_event_type(Type));
compile(event_pattern, Pattern) -> made(by_event_pattern(Pattern));
compile(event_payload, Payload) when not is_binary(Payload) -> made(by_event_payload(Payload));
compile(Type, Selector) when Type =:= stream; Type =:= event_type; Type =:= event_payload ->
    {error, {invalid_selector, Selector}};
compile(Type, _) ->
    {error, {invalid_type, Type}}.

-spec made(filter() | {error, reason()}) -> {ok, filter()} | {error, reason()}.
made({error, Reason}) -> {error, Reason};
made(Filter) -> {ok, Filter}.

-doc """
A selector as it is kept: a handle as the predicate that it was made of, since what it carries
besides belongs to this node.
""".
-spec stored(selector()) -> selector().
stored({esdb_predicate, _, _} = Handle) ->
    case esdb_predicate_erl:normalise(Handle) of
        {ok, Normal} -> Normal;
        {error, _} -> Handle
    end;
stored(Selector) ->
    Selector.

-doc "Whether an event is selected.".
-spec matches(filter(), event()) -> boolean().
matches(all, _) -> true;
matches({stream, Stream}, Event) -> Event#event.stream_id =:= Stream;
matches({event_type, Type}, Event) -> Event#event.event_type =:= Type;
matches({wildcard, Wildcard}, Event) -> wildcard_match(Wildcard, Event#event.stream_id);
matches({fields, #{data := Part} = Pattern}, Event) when is_map(Part) ->
    contains(Pattern, erl_esdb_callback:as_map(erl_esdb_json:decoded(Event)));
matches({fields, Pattern}, Event) -> contains(Pattern, erl_esdb_callback:as_map(Event));
matches({payload, Test}, Event) -> is_payload(Test, erl_esdb_json:decoded(Event));
matches({predicate, Test}, Event) -> Test(erl_esdb_callback:as_map(erl_esdb_json:decoded(Event))).

-spec is_payload(esdb_predicate_erl:test(), event()) -> boolean().
is_payload(Test, #event{data = Data} = Event) ->
    is_map(Data) andalso Test(erl_esdb_callback:as_map(Event)).

-spec contains(map(), map()) -> boolean().
contains(Pattern, Map) ->
    lists:all(fun({Key, Part}) -> is_part(Part, Key, Map) end, maps:to_list(Pattern)).

-spec is_part(term(), term(), map()) -> boolean().
is_part(Part, Key, Map) when is_map(Part) ->
    case Map of
        #{Key := Inner} when is_map(Inner) -> contains(Part, Inner);
        #{} -> false
    end;
is_part(Part, Key, Map) ->
    case Map of
        #{Key := Value} -> Value =:= Part;
        #{} -> false
    end.

-doc "The only stream whose events can be selected, where there is one.".
-spec stream(filter()) -> {ok, binary()} | any.
stream({stream, Stream}) -> {ok, Stream};
stream(_) -> any.

-doc "A wildcard, compiled: `*` is any run of bytes, also of none, everything else is itself.".
-spec wildcard(binary()) -> wildcard().
wildcard(Pattern) ->
    case binary:split(Pattern, ~"*", [global]) of
        [Whole] ->
            {is, Whole};
        [First | Rest] ->
            {Middle, [Last]} = lists:split(length(Rest) - 1, Rest),
            {parts, First, [Part || Part <- Middle, Part =/= <<>>], Last}
    end.

-doc "Whether the whole text matches.".
-spec wildcard_match(wildcard(), binary()) -> boolean().
wildcard_match({is, Whole}, Text) ->
    Whole =:= Text;
wildcard_match({parts, First, Middle, Last}, Text) ->
    From = byte_size(First),
    Length = byte_size(Text) - From - byte_size(Last),
    Length >= 0 andalso binary:part(Text, 0, From) =:= First andalso
        binary:part(Text, byte_size(Text), -byte_size(Last)) =:= Last andalso
        in_order(Middle, binary:part(Text, From, Length)).

%% Each part at its first place: a later one would leave less for the next part.
-spec in_order([binary()], binary()) -> boolean().
in_order([], _) ->
    true;
in_order([Part | Parts], Text) ->
    case binary:split(Text, Part) of
        [_, Rest] -> in_order(Parts, Rest);
        [_] -> false
    end.
