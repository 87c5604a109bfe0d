-module(erl_esdb_data_gen).
-moduledoc "Generators of events, for the suites of archives, exports and backups.".

-export([new_event/0, new_events/0, json_event/0, value/0, json/0, stream/0]).
-export([log/1, signed_log/1, write/2]).

-include_lib("proper/include/proper.hrl").
-include("../include/erl_esdb.hrl").

%% Names with meanings elsewhere: in paths, keys, patterns.
stream() ->
    oneof([
        <<"order-1">>,
        <<"order-2">>,
        <<"a/b">>,
        <<"..">>,
        <<"%2E">>,
        <<"~x*?">>,
        <<"$link:y">>,
        <<255, 0, 10>>,
        <<>>,
        binary:copy(<<"long">>, 100)
    ]).

value() ->
    ?SIZED(Size, value(min(Size, 6))).

value(0) ->
    oneof([integer(), float(), binary(), boolean(), undefined, <<"text">>, 1 bsl 70, [], #{}]);
value(Size) ->
    Less = value(Size div 4),
    oneof([
        value(0),
        few(list(Less)),
        ?LET({A, B}, {Less, Less}, {A, B}),
        ?LET({A, B}, {Less, Less}, [A | B]),
        few(map(Less, Less))
    ]).

%% Lists are as long as the size says, at each level.
few(Type) -> resize(3, Type).

json() ->
    ?SIZED(Size, json(min(Size, 6))).

json(0) ->
    oneof([integer(), float(), text(), boolean(), null, 1 bsl 70]);
json(Size) ->
    oneof([json(0), few(list(json(Size div 4))), few(map(text(), json(Size div 4)))]).

text() ->
    ?LET(
        Chars,
        few(list(oneof([$a, $", $\\, 10, 0, 16#E9, 16#1F600, range(32, 126)]))),
        unicode:characters_to_binary(Chars)
    ).

data() -> oneof([few(map(value(), value())), binary()]).

new_event() ->
    ?LET(
        {Type, Data, Metadata, Tags, Content},
        {binary(), data(), few(map(value(), value())), tags(), content_type()},
        Content#{event_type => Type, data => Data, metadata => Metadata, tags => Tags}
    ).

new_events() -> few(non_empty(list(new_event()))).

json_event() ->
    ?LET(
        {Type, Data, Metadata},
        {text(), oneof([few(map(text(), json())), text()]), few(map(text(), json()))},
        #{event_type => Type, data => Data, metadata => Metadata}
    ).

tags() -> oneof([[], few(list(binary()))]).

content_type() ->
    oneof([#{}, #{data_content_type => <<"x/y">>}, #{metadata_content_type => <<"text/plain">>}]).

%% What is done to a store: appends, removals, documents.
log(Event) ->
    log(Event, [{1, {snapshot, stream(), range(0, 5), few(value())}}]).

%% The same for one that signs: snapshots are of events that are there.
signed_log(Event) ->
    log(Event, [{1, {snapshot_of_last, stream()}}]).

log(Event, Documents) ->
    Step = frequency([
        {8, {append, stream(), few(non_empty(list(Event)))}},
        {2, {truncate, stream(), range(0, 12)}},
        {1, {delete, stream()}},
        {1, {bury, stream()}},
        {1, {checkpoint, range(0, 3), few(value())}}
        | Documents
    ]),
    ?SIZED(Size, resize(min(Size, 20), list(Step))).

write(Store, Log) -> lists:foreach(fun(Step) -> step(Store, Step) end, Log).

step(Store, {append, Stream, Events}) ->
    {ok, _} = erl_esdb_streams:append(Store, Stream, any, Events);
step(Store, {truncate, Stream, Before}) ->
    erl_esdb_store:truncate(Store, Stream, Before);
step(Store, {delete, Stream}) ->
    ok = erl_esdb_streams:delete(Store, Stream);
step(Store, {bury, Stream}) ->
    ok = erl_esdb_streams:delete(Store, Stream, #{mode => tombstone});
step(Store, {checkpoint, Key, Value}) ->
    ok = erl_esdb_store:save_checkpoints(Store, #{Key => Value});
step(Store, {snapshot_of_last, Stream}) ->
    case erl_esdb_streams:get_version(Store, Stream) of
        -1 -> ok;
        Version -> snapshot_of(Store, Stream, Version)
    end;
step(Store, {snapshot, Stream, Version, Data}) ->
    ok = erl_esdb_snapshots:save(Store, Stream, Version, Data).

%% The event may be gone, and what was kept of it.
snapshot_of(Store, Stream, Version) ->
    case erl_esdb_snapshots:save(Store, Stream, Version, Version) of
        ok -> ok;
        {error, {snapshot_anchor_unavailable, _}} -> ok
    end.
