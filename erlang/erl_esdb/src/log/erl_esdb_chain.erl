-module(erl_esdb_chain).
-moduledoc """
Hash chains over the events of a stream, and a code on each that only who has the key can make.

Each event names the chain hash of the event before it (the first 32 zero bytes), and carries a
message authentication code of all its bytes, that name included. So nobody without the key can
change an event, and nobody at all can take one out or put one in between without breaking the next
one's name. What a chain alone cannot tell is that its newest events are gone: whoever has to know
keeps the tip elsewhere.

```
chain hash = SHA-256("chain|" ++ bytes of the event without its code and name ++ name)
code       = {KeyId, HMAC-SHA-256(Key, "evt|" ++ bytes of the event with its name)}
```

The bytes of an event are the external term format (deterministic, `minor_version` 2) of
`{event, Id, Type, Stream, Version, Data, Metadata, Timestamp, EpochUs, DataContentType,
MetadataContentType, Tags, Name}`, `Name` undefined in the chain hash. Its position is in neither:
it is assigned when the append is ordered, after it was signed.

```erlang
1> {ok, Keys} = erl_esdb_chain:keys(#{enabled => true, key => crypto:strong_rand_bytes(32)}).
2> {Signed, Tip} = erl_esdb_chain:sign(Keys, none, Events).
3> {ok, Tip} = erl_esdb_chain:verify(Keys, none, Signed).
```

HMAC is that of RFC 2104, SHA-256 that of FIPS 180-4.
""".

-export([keys/1, sign/3, verify/3, chain_hash/1, is_signed/1]).
-export([code/2, code_of/3]).
-export_type([keys/0, tip/0, hash/0, violation/0]).

-include("erl_esdb.hrl").

-define(GENESIS, <<0:256>>).
-define(KEY_SIZE, 32).

-doc "Keys by their ids, and which of them signs. A key is in a fun so that no log shows it.".
-opaque keys() :: {SignsWith :: pos_integer(), #{pos_integer() => fun(() -> binary())}}.
-type hash() :: <<_:256>>.
-doc "The chain hash of the last event; none where no event was signed yet.".
-type tip() :: none | hash().
-doc "The first event that is not as it was written, and what is wrong with it.".
-type violation() :: #{
    layer := storage,
    stream_id := binary(),
    version := non_neg_integer(),
    kind := chain_mismatch | mac_mismatch | missing_integrity,
    context := map()
}.

-doc """
The keys of a store's option `integrity`.

`disabled`, or a map: `enabled => true` and `key => <<_:256>>`, a single key with the id 1; or `keys
=> #{Id => Key}`, of which `key_id` (default: the greatest) signs and all verify, so that keys can
rotate.

Errors: `{integrity_key_invalid_size, Bytes}`, `integrity_config_invalid`.
""".
-spec keys(term()) ->
    {ok, disabled | keys()}
    | {error, {integrity_key_invalid_size, non_neg_integer()} | integrity_config_invalid}.
keys(disabled) ->
    {ok, disabled};
keys(#{enabled := true, key := Key} = Config) when is_binary(Key), map_size(Config) =:= 2 ->
    keys(1, #{1 => Key});
keys(#{enabled := true, keys := #{} = Keys} = Config) when map_size(Keys) > 0 ->
    Id = maps:get(key_id, Config, lists:max(maps:keys(Keys))),
    case maps:without([enabled, keys, key_id], Config) of
        Rest when map_size(Rest) =:= 0, is_map_key(Id, Keys) -> keys(Id, Keys);
        _ -> {error, integrity_config_invalid}
    end;
keys(_) ->
    {error, integrity_config_invalid}.

-spec keys(term(), map()) ->
    {ok, keys()}
    | {error, {integrity_key_invalid_size, non_neg_integer()} | integrity_config_invalid}.
keys(Id, Keys) ->
    case [Key || _ := Key <- Keys, byte_size_of(Key) =/= ?KEY_SIZE] of
        [] ->
            Hidden = #{KeyId => fun() -> Key end || KeyId := Key <- Keys, is_id(KeyId)},
            with_all(Id, Hidden, map_size(Keys));
        [Key | _] when is_binary(Key) ->
            {error, {integrity_key_invalid_size, byte_size(Key)}};
        _ ->
            {error, integrity_config_invalid}
    end.

-spec byte_size_of(term()) -> non_neg_integer() | none.
byte_size_of(Key) when is_binary(Key) -> byte_size(Key);
byte_size_of(_) -> none.

-spec is_id(term()) -> boolean().
is_id(Id) -> is_integer(Id) andalso Id > 0.

-spec with_all(term(), #{pos_integer() => fun(() -> binary())}, non_neg_integer()) ->
    {ok, keys()} | {error, integrity_config_invalid}.
with_all(Id, Keys, Count) when map_size(Keys) =:= Count -> {ok, {Id, Keys}};
with_all(_, _, _) -> {error, integrity_config_invalid}.

-doc """
Signs events that follow each other in their stream, the first behind this tip. Answers them and the
tip that they make. Their stream, versions and times have to be those that they will have.
""".
-spec sign(keys(), tip(), [event()]) -> {[event()], tip()}.
sign(Keys, Tip, Events) ->
    lists:mapfoldl(fun(Event, Before) -> signed(Keys, Event, Before) end, Tip, Events).

-spec signed(keys(), event(), tip()) -> {event(), hash()}.
signed(Keys, Event, Tip) ->
    Named = Event#event{prev_event_hash = name(Tip)},
    {Named#event{mac = code(Keys, event_bytes(Named))}, chain_hash(Named)}.

-spec name(tip()) -> hash().
name(none) -> ?GENESIS;
name(Hash) -> Hash.

-doc """
Checks signed events that follow each other, the first behind this tip. Answers the tip that they
make.

Of each event the name is compared first, then the code. An event that is not signed is a violation
of the kind `missing_integrity`; who allows such events below a version does not hand them in.
""".
-spec verify(keys(), tip(), [event()]) -> {ok, tip()} | {error, violation()}.
verify(Keys, Tip, [Event | Events]) ->
    case judged(Keys, name(Tip), Event) of
        ok -> verify(Keys, chain_hash(Event), Events);
        {Kind, Context} -> {error, violation(Event, Kind, Context)}
    end;
verify(_Keys, Tip, []) ->
    {ok, Tip}.

-spec judged(keys(), hash(), event()) -> ok | {atom(), map()}.
judged(_Keys, _Name, #event{prev_event_hash = undefined}) ->
    {missing_integrity, #{}};
judged(_Keys, Name, #event{prev_event_hash = Found}) when Found =/= Name ->
    {chain_mismatch, #{expected => Name, found => Found}};
judged(Keys, _Name, Event) ->
    case has_code(Keys, Event) of
        true -> ok;
        false -> {mac_mismatch, context(Keys, Event#event.mac)}
    end.

-spec context(keys(), term()) -> map().
context({_, Keys}, {Id, _}) when not is_map_key(Id, Keys) -> #{detail => unknown_key, key_id => Id};
context(_, _) -> #{}.

-spec violation(event(), atom(), map()) -> violation().
violation(#event{stream_id = Stream, version = Version}, Kind, Context) ->
    #{layer => storage, stream_id => Stream, version => Version, kind => Kind, context => Context}.

-doc "Whether an event was signed when it was written.".
-spec is_signed(event()) -> boolean().
is_signed(#event{prev_event_hash = Name}) -> Name =/= undefined.

-doc "The chain hash of a signed event, which the next one names.".
-spec chain_hash(event()) -> hash().
chain_hash(#event{prev_event_hash = <<_:256>> = Name} = Event) ->
    crypto:hash(sha256, [~"chain|", bytes(Event#event{prev_event_hash = undefined}), Name]).

%% By the key that it names.
-spec has_code(keys(), event()) -> boolean().
has_code(Keys, #event{mac = {Id, Code}} = Event) when is_binary(Code) ->
    case code_of(Id, Keys, event_bytes(Event)) of
        {ok, Own} -> esdb_crypto_nif:secure_compare(Own, Code);
        unknown_key -> false
    end;
has_code(_, _) ->
    false.

-doc "The code of these bytes by the key that signs, for what is no event.".
-spec code(keys(), iodata()) -> {KeyId :: pos_integer(), hash()}.
code({Id, Keys}, Bytes) -> {Id, esdb_crypto_nif:hmac_sha256((map_get(Id, Keys))(), Bytes)}.

-doc "The code of these bytes by one of the keys.".
-spec code_of(term(), keys(), iodata()) -> {ok, hash()} | unknown_key.
code_of(Id, {_, Keys}, Bytes) when is_map_key(Id, Keys) ->
    {_, Code} = code({Id, Keys}, Bytes),
    {ok, Code};
code_of(_, _, _) ->
    unknown_key.

-spec event_bytes(event()) -> iolist().
event_bytes(Event) -> [~"evt|", bytes(Event)].

%% A tuple of its own, so that a field that the record gets one day does not change what was signed.
-spec bytes(event()) -> binary().
bytes(Event) ->
    Signed = {
        event,
        Event#event.event_id,
        Event#event.event_type,
        Event#event.stream_id,
        Event#event.version,
        Event#event.data,
        Event#event.metadata,
        Event#event.timestamp,
        Event#event.epoch_us,
        Event#event.data_content_type,
        Event#event.metadata_content_type,
        Event#event.tags,
        Event#event.prev_event_hash
    },
    term_to_binary(Signed, [deterministic, {minor_version, 2}]).
