-module(erl_esdb_event).
-moduledoc """
Events on their way in and out: what a caller hands in is checked and becomes a body, a body and its
place in the log become an `#event{}`.

A body is `{Id, Type, Data, Metadata}`, with a map of what differs from the usual as fifth element
where something does. Bodies are stored, so their form is part of the format on disk.
""".

-export([bodies/1, event/4, events/4, events_before/5, id/1, type/1, tags/1, are_copies/1]).
-export([from_record/1, unsigned/4, signed/2]).
-export([given/1, hashes/3, facts/1, type_hash/1, tag_hash/1]).
-export_type([body/0, invalid/0]).

-include("erl_esdb.hrl").
-include("erl_esdb_log.hrl").

-type body() ::
    {Id :: binary(), Type :: binary(), data(), Metadata :: map()}
    | {Id :: binary(), Type :: binary(), data(), Metadata :: map(), Unusual :: map()}.
-type data() :: map() | binary().
-type invalid() ::
    {invalid_event, not_an_event | {missing | bad_type, atom()}}
    | {duplicate_event_ids, [binary()]}.

-define(RANDOM, 16).
%% So that a type, a tag and all ids together have other hashes than an id of the same bytes.
-define(TYPE_SEED, 1).
-define(TAG_SEED, 2).
-define(ALL_SEED, 3).

-doc """
Checks events and makes bodies of them.

An event is a `t:new_event/0` or an `#event{}`, whose stream, version, position and times are
ignored. An event without an id gets a random one (UUID version 4). The first event that is wrong
is reported.
""".
-spec bodies([new_event() | event()]) -> {ok, [body()]} | {error, invalid()}.
bodies(Events) ->
    Random = crypto:strong_rand_bytes(?RANDOM * length(Events)),
    try
        Bodies = bodies(Events, Random),
        ok = unique(given(Events)),
        {ok, Bodies}
    catch
        throw:{invalid, Why} -> {error, Why}
    end.

-spec bodies([term()], binary()) -> [body()].
bodies([Event | Events], <<Random:?RANDOM/binary, Rest/binary>>) ->
    [body(Event, Random) | bodies(Events, Rest)];
bodies([], <<>>) ->
    [].

-spec body(term(), binary()) -> body().
body(#event{} = Event, Random) ->
    body(from_record(Event), Random);
body(#{} = Event, Random) ->
    Type = value(event_type, fun is_binary/1, Event),
    Data = value(data, fun is_data/1, Event),
    Metadata = value(metadata, fun is_map/1, Event, #{}),
    Id = id(value(event_id, fun is_binary/1, Event, <<>>), Random),
    case unusual(Event) of
        Unusual when map_size(Unusual) =:= 0 -> {Id, Type, Data, Metadata};
        Unusual -> {Id, Type, Data, Metadata, Unusual}
    end;
body(_, _) ->
    throw({invalid, {invalid_event, not_an_event}}).

-doc "The fields of an event that an append takes.".
-spec from_record(event()) -> map().
from_record(#event{} = Event) ->
    All = #{
        event_id => Event#event.event_id,
        event_type => Event#event.event_type,
        data => Event#event.data,
        metadata => Event#event.metadata,
        tags => Event#event.tags,
        data_content_type => Event#event.data_content_type,
        metadata_content_type => Event#event.metadata_content_type
    },
    #{Key => Value || Key := Value <- All, Value =/= undefined}.

-spec value(atom(), fun((term()) -> boolean()), map()) -> term().
value(Key, Good, Event) ->
    case Event of
        #{Key := Value} -> check(Key, Good(Value), Value);
        #{} -> throw({invalid, {invalid_event, {missing, Key}}})
    end.

-spec value(atom(), fun((term()) -> boolean()), map(), Default) -> term() | Default.
value(Key, Good, Event, Default) ->
    case Event of
        #{Key := Value} -> check(Key, Good(Value), Value);
        #{} -> Default
    end.

-spec check(atom(), boolean(), Value) -> Value.
check(_Key, true, Value) -> Value;
check(Key, false, _Value) -> throw({invalid, {invalid_event, {bad_type, Key}}}).

-spec is_data(term()) -> boolean().
is_data(Data) -> is_map(Data) orelse is_binary(Data).

-spec is_tags(term()) -> boolean().
is_tags([Tag | Tags]) -> is_binary(Tag) andalso is_tags(Tags);
is_tags(Rest) -> Rest =:= [].

-spec unusual(map()) -> map().
unusual(Event) ->
    Type = ?CONTENT_TYPE_JSON,
    Tagged = unusual(tags, fun is_tags/1, [], Event, #{}),
    Content = unusual(metadata_content_type, fun is_binary/1, Type, Event, Tagged),
    unusual(data_content_type, fun is_binary/1, Type, Event, Content).

-spec unusual(atom(), fun((term()) -> boolean()), Usual :: term(), map(), map()) -> map().
unusual(Key, Good, Usual, Event, Unusual) ->
    case value(Key, Good, Event, Usual) of
        Usual -> Unusual;
        Value -> Unusual#{Key => Value}
    end.

%% An empty id is no id. Digits are looked up byte by byte: of what makes an append that costs most.
-spec id(binary(), binary()) -> binary().
id(<<>>, <<A, B, C, D, E, F, _:4, G:4, H, _:2, I:6, J, K, L, M, N, O, P>>) ->
    <<
        (hex(A)):16,
        (hex(B)):16,
        (hex(C)):16,
        (hex(D)):16,
        $-,
        (hex(E)):16,
        (hex(F)):16,
        $-,
        (hex(16#40 bor G)):16,
        (hex(H)):16,
        $-,
        (hex(16#80 bor I)):16,
        (hex(J)):16,
        $-,
        (hex(K)):16,
        (hex(L)):16,
        (hex(M)):16,
        (hex(N)):16,
        (hex(O)):16,
        (hex(P)):16
    >>;
id(Given, _) ->
    Given.

-compile({inline, [hex/1, digit/1]}).
-spec hex(byte()) -> 0..16#FFFF.
hex(Byte) -> digit(Byte bsr 4) bsl 8 bor digit(Byte band 15).

-spec digit(0..15) -> byte().
digit(N) when N < 10 -> $0 + N;
digit(N) -> $a - 10 + N.

%% Of the ids that were given: a random one is like no other.
-spec unique([binary()]) -> ok.
unique([]) ->
    ok;
unique([_]) ->
    ok;
unique(Ids) ->
    case map_size(maps:from_keys(Ids, [])) =:= length(Ids) of
        true -> ok;
        false -> throw({invalid, {duplicate_event_ids, lists:usort(Ids -- lists:usort(Ids))}})
    end.

-doc "The id of a body.".
-spec id(body()) -> binary().
id(Body) -> element(1, Body).

-doc "The type of a body.".
-spec type(body()) -> binary().
type(Body) -> element(2, Body).

-doc "Whether the events of this stream are copies of others, which a link has made.".
-spec are_copies(Stream :: binary()) -> boolean().
are_copies(<<"$link:", _/binary>>) -> true;
are_copies(_) -> false.

-doc "The tags of a body.".
-spec tags(body()) -> [binary()].
tags({_, _, _, _, #{tags := Tags}}) -> Tags;
tags(_) -> [].

-doc "The ids that the caller gave: an event without one gets another each time it is sent.".
-spec given([new_event() | event()]) -> [binary()].
given(Events) -> [Id || Event <- Events, Id <- [given_id(Event)], Id =/= <<>>].

-spec given_id(new_event() | event()) -> binary().
given_id(#event{} = Event) -> given_id(from_record(Event));
given_id(#{event_id := Id}) -> Id;
given_id(#{}) -> <<>>.

-doc """
The hashes by which the machine recognises an append: one of each id that the caller gave, and one
of all ids unless these are all. Or only the latter: each hash takes room and time in the machine.
""".
-spec hashes(Given :: [binary()], [body()], each | whole) -> [erl_esdb_seen:hash()].
hashes(_Given, Bodies, whole) ->
    [hash_of_all(Bodies)];
hashes(Given, Bodies, each) when length(Given) =:= length(Bodies) ->
    [hash(Id) || Id <- Given];
hashes(Given, Bodies, each) ->
    [hash_of_all(Bodies) | [hash(Id) || Id <- Given]].

-spec hash(binary()) -> erl_esdb_seen:hash().
hash(Id) -> esdb_hash_nif:xxhash3(Id) bsr 5.

-spec hash_of_all([body()]) -> erl_esdb_seen:hash().
hash_of_all(Bodies) ->
    Ids = [[<<(byte_size(Id)):32>>, Id] || Body <- Bodies, Id <- [id(Body)]],
    esdb_hash_nif:xxhash3(Ids, ?ALL_SEED) bsr 5.

-doc "What the machine keeps of the types and tags of an append.".
-spec facts([body()]) -> erl_esdb_recent:facts().
facts([Body]) ->
    erl_esdb_recent:facts([type_hash(type(Body)) | [tag_hash(Tag) || Tag <- unique_tags(Body)]]);
facts(Bodies) ->
    Types = maps:from_keys([type(Body) || Body <- Bodies], []),
    Tags = maps:from_keys([Tag || Body <- Bodies, Tag <- tags(Body)], []),
    Hashes = [type_hash(Type) || Type := _ <- Types] ++ [tag_hash(Tag) || Tag := _ <- Tags],
    erl_esdb_recent:facts(Hashes).

-spec unique_tags(body()) -> [binary()].
unique_tags(Body) ->
    case tags(Body) of
        [_, _ | _] = Tags -> lists:usort(Tags);
        Tags -> Tags
    end.

-doc false.
-spec type_hash(binary()) -> erl_esdb_recent:hash().
type_hash(Type) -> esdb_hash_nif:xxhash3(Type, ?TYPE_SEED) band 16#FFFFFFFF.

-doc false.
-spec tag_hash(binary()) -> erl_esdb_recent:hash().
tag_hash(Tag) -> esdb_hash_nif:xxhash3(Tag, ?TAG_SEED) band 16#FFFFFFFF.

-doc "The events from a version on that an append brought.".
-spec events(Stream :: binary(), #row{}, Version :: non_neg_integer(), [body()]) -> [event()].
events(Stream, Row, Version, [Body | Bodies]) ->
    [event(Stream, Row, Version, Body) | events(Stream, Row, Version + 1, Bodies)];
events(_Stream, _Row, _Version, []) ->
    [].

-doc "`events/4` in front of a list, the last one first.".
-spec events_before(binary(), #row{}, Version :: non_neg_integer(), [body()], [event()]) ->
    [event()].
events_before(Stream, Row, Version, [Body | Bodies], Before) ->
    Event = event(Stream, Row, Version, Body),
    events_before(Stream, Row, Version + 1, Bodies, [Event | Before]);
events_before(_Stream, _Row, _Version, [], Before) ->
    Before.

-doc "The event of this version that an append brought.".
-spec event(Stream :: binary(), #row{}, Version :: non_neg_integer(), body()) -> event().
event(Stream, Row, Version, {Id, Type, Data, Metadata}) ->
    #row{version = First, position = Position, epoch_us = Time} = Row,
    #event{
        event_id = Id,
        event_type = Type,
        stream_id = Stream,
        version = Version,
        data = Data,
        metadata = Metadata,
        timestamp = Time div 1000,
        epoch_us = Time,
        position = Position + Version - First
    };
event(Stream, Row, Version, {Id, Type, Data, Metadata, Unusual}) ->
    Event = event(Stream, Row, Version, {Id, Type, Data, Metadata}),
    Event#event{
        data_content_type = maps:get(data_content_type, Unusual, ?CONTENT_TYPE_JSON),
        metadata_content_type = maps:get(metadata_content_type, Unusual, ?CONTENT_TYPE_JSON),
        tags = maps:get(tags, Unusual, []),
        prev_event_hash = maps:get(prev_event_hash, Unusual, undefined),
        mac = maps:get(mac, Unusual, undefined)
    }.

-doc "The event that a body becomes with this version and time; its position is not known yet.".
-spec unsigned(Stream :: binary(), Version :: non_neg_integer(), integer(), body()) -> event().
unsigned(Stream, Version, Time, Body) ->
    event(Stream, #row{version = Version, epoch_us = Time}, Version, Body).

-doc "The body with what an event was signed with.".
-spec signed(body(), event()) ->
    {Id :: binary(), Type :: binary(), data(), Metadata :: map(), Unusual :: map()}.
signed(Body, #event{prev_event_hash = Name, mac = Code}) ->
    {Id, Type, Data, Metadata, Unusual} = whole(Body),
    {Id, Type, Data, Metadata, Unusual#{prev_event_hash => Name, mac => Code}}.

-spec whole(body()) -> {binary(), binary(), data(), map(), map()}.
whole({Id, Type, Data, Metadata}) -> {Id, Type, Data, Metadata, #{}};
whole(Body) -> Body.
