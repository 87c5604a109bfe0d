-module(esdb_segment_gen).
-moduledoc """
Arguments for every export of `m:esdb_segment_nif`, valid and hostile, for `esdb_equivalence_SUITE`;
and events, predicates and damaged segments for `esdb_segment_SUITE`.
""".

-include_lib("proper/include/proper.hrl").

-export([args/2, cost/2, observe/3]).
-export([events/0, event/0, few/1, predicate/0, path/0, aggregate/0, init/0, content/0]).
-export([damaged/1, repaired/1, overwritten/3]).

-define(M, esdb_segment_nif).
-define(DICTIONARY, ~"amount tags placed paid sent order-17 actor a b c").

cost(_, _) -> costly.

%% -------- arguments

args(pack, 1) -> [listed(packable())];
args(pack, 2) -> [listed(packable()), pack_options()];
args(with_dictionary, 2) -> [segment(), dictionary()];
args(info, 1) -> [segment()];
args(count, 1) -> [segment()];
args(verify, 1) -> [segment()];
args(to_events, 1) -> [segment()];
args(to_events, 2) -> [segment(), to_events_options()];
args(concat, 1) -> [listed(segment())];
args(slice, 3) -> [segment(), number_of_events(), number_of_events()];
args(filter, 2) -> [segments(), asked_predicate()];
args(select, 2) -> [segments(), asked_predicate()];
args(select, 3) -> [segments(), asked_predicate(), atoms()];
args(first, 2) -> [segments(), asked_predicate()];
args(first, 3) -> [segments(), asked_predicate(), atoms()];
args(count_where, 2) -> [segments(), asked_predicate()];
args(sum, 2) -> [segments(), asked_path()];
args(min, 2) -> [segments(), asked_path()];
args(max, 2) -> [segments(), asked_path()];
args(group_by, 3) -> [segments(), asked_path(), asked_aggregates()];
args(fold_tagged, 2) -> [segments(), frequency([{12, init()}, {1, nonsense()}])];
args(project, 2) -> [segment(), listed(asked_path())];
args(project, 3) -> [segment(), listed(asked_path()), atoms()].

%% To make a type takes longer than to pick from it.
kept(Key, Make) ->
    case get({?MODULE, Key}) of
        undefined ->
            Type = Make(),
            put({?MODULE, Key}, Type),
            Type;
        Type ->
            Type
    end.

%% -------- events

events() ->
    ?LET(
        N,
        frequency([{1, 0}, {12, range(1, 8)}, {1, range(9, 40)}]),
        proper_types:resize(4, vector(N, event()))
    ).

%% Most have the envelope that a store gives them.
event() -> kept(event, fun event_type/0).

event_type() ->
    frequency([
        {8, ?LET(Fields, envelope(), maps:from_list(Fields))},
        {3, ?LET(Fields, list(oneof(fields())), maps:from_list(Fields))},
        {1, map(key(), content())}
    ]).

envelope() ->
    [
        {event_id, binary(4)},
        {event_type, oneof([~"placed", ~"paid", ~"sent"])},
        {stream_id, ?LET(N, range(1, 4), <<"order-", ($0 + N)>>)},
        {version, range(0, 20)},
        {epoch_us, range(1_000, 1_020)},
        {data, data()},
        {metadata, ?LET(N, range(0, 2), #{actor => N})}
    ].

fields() ->
    [
        {event_id, oneof([binary(), content()])},
        {event_type, oneof([~"placed", placed, <<1:3>>, 7])},
        {stream_id, oneof([~"order-1", ~"order-2", undefined])},
        {version, oneof([integer(), large(), 1.5, none])},
        {position, oneof([integer(), large()])},
        {epoch_us, oneof([range(1_000, 1_020), large()])},
        {data, oneof([data(), content()])},
        {metadata, oneof([#{actor => 1}, content()])},
        {amount, numeric()},
        {~"amount", numeric()},
        {extra, content()}
    ].

data() -> kept(data, fun data_type/0).

data_type() -> ?LET(Pairs, list({key(), value()}), maps:from_list(Pairs)).

key() ->
    oneof([amount, tags, name, nested, total, ~"amount", ~"name", 1, 1.0, {a, b}, undefined, data]).

value() -> kept(value, fun value_type/0).

value_type() ->
    frequency([
        {6, numeric()},
        {3, name()},
        {2, {oneof([sum, overwrite]), oneof([numeric(), name()])}},
        {2, list(oneof([range(0, 3), name(), numeric()]))},
        {2, ?LET({K, V}, {key(), numeric()}, #{K => V})},
        {2, content()}
    ]).

name() -> oneof([~"a", ~"ab", ~"abc", ~"b-17", <<>>, binary()]).

numeric() -> kept(numeric, fun numeric_type/0).

numeric_type() ->
    frequency([
        {6, range(-3, 300)},
        {2, oneof([0.0, -0.0, 0.5, 1.0, 2.0, -1.5, 9_007_199_254_740_992.0])},
        {1, large()},
        {1, oneof([float(), 1.0e308, -1.0e308])}
    ]).

large() -> kept(large, fun large_type/0).

large_type() ->
    ?LET(
        {Bits, Near, Sign},
        {
            oneof([8, 31, 32, 53, 62, 63, 64, 65, 200, 1023, 1024, 2100]),
            range(-2, 2),
            oneof([1, -1])
        },
        Sign * ((1 bsl Bits) + Near)
    ).

%% Every kind that has its place.
content() -> ?SIZED(Size, content(min(Size, 8))).

content(Size) -> kept({content, Size}, fun() -> content_type(Size) end).

content_type(0) ->
    oneof([numeric(), name(), amount, sum, '', [], {}, #{}, <<1:1>>, ~"a", ~"\0"]);
content_type(Size) ->
    Smaller = ?LAZY(content(Size div 3)),
    frequency([
        {4, content(0)},
        {1, bitstring()},
        {1, list(byte())},
        {2, list(Smaller)},
        {1, ?LET({A, B}, {Smaller, Smaller}, [A | B])},
        {2, ?LET(List, list(Smaller), list_to_tuple(List))},
        {2, ?LET(Pairs, list({Smaller, Smaller}), maps:from_list(Pairs))}
    ]).

packable() -> kept(packable, fun packable_type/0).

packable_type() ->
    frequency([
        {20, event()},
        {1, oneof([#{data => self()}, #{data => [a | make_ref()]}, #{fun lists:map/2 => 1}])},
        {1, nonsense()}
    ]).

pack_options() ->
    frequency([
        {6, valid_options()},
        {1, oneof([#{level => 0}, #{level => 23}, #{compress => lz4}])},
        {1, oneof([#{dictionary => a}, #{x => 1}])},
        {1, nonsense()}
    ]).

valid_options() ->
    oneof([
        #{},
        #{compress => none, level => 3},
        #{compress => zstd},
        ?LET(Level, range(1, 12), #{compress => zstd, level => Level}),
        #{compress => zstd, dictionary => ?DICTIONARY}
    ]).

dictionary() ->
    frequency([
        {4, ?DICTIONARY},
        {2, non_empty(binary())},
        {4, {'$make', esdb_archive_nif, dictionary, [?DICTIONARY]}},
        {1, oneof([<<>>, none, a, {esdb_dictionary, 1, 2}])}
    ]).

number_of_events() ->
    frequency([{12, range(0, 12)}, {1, oneof([-1, 1 bsl 70, 1.0, a])}]).

to_events_options() ->
    frequency([
        {12, ?LET(Pairs, list(to_events_option()), maps:from_list(Pairs))},
        {1, oneof([#{limit => -1}, #{types => ~"a"}, #{types => [a | b]}])},
        {1, oneof([#{from_us => 1.0}, #{x => 1}])},
        {1, nonsense()}
    ]).

to_events_option() -> kept(to_events_option, fun to_events_option_type/0).

to_events_option_type() ->
    oneof([
        {from_version, oneof([range(-1, 21), large()])},
        {to_version, oneof([range(-1, 21), large()])},
        {from_us, range(1_000, 1_020)},
        {to_us, range(1_000, 1_020)},
        {types, list(oneof([~"placed", ~"paid", placed, 7, 7.0]))},
        {limit, oneof([range(0, 5), infinity])},
        {direction, oneof([forward, backward])},
        {atoms, atoms()}
    ]).

atoms() -> frequency([{6, existing}, {6, create}, {1, unknown}]).

%% -------- questions

path() -> kept(path, fun path_type/0).

path_type() ->
    frequency([
        {14, inner_path()},
        {3, {oneof([event, data]), inner_path()}}
    ]).

inner_path() ->
    frequency([
        {6, key()},
        {6, oneof([event_id, event_type, stream_id, version, epoch_us, position, metadata])},
        {2, ?LET({A, B}, {key(), key()}, [A, B])},
        {2, oneof([[metadata, actor], [data, amount], [data], [event_type, x], [version], extra])}
    ]).

asked_path() ->
    frequency([
        {20, path()},
        {1, oneof([[], [a | b], self(), ?LAZY([make_ref()]), {event, []}, {data, [a | b]}])}
    ]).

aggregate() -> kept(aggregate, fun aggregate_type/0).

aggregate_type() -> oneof([count, ?LET({K, P}, {oneof([sum, min, max, avg]), path()}, {K, P})]).

asked_aggregates() ->
    frequency([
        {8, aggregate()},
        {8, list(aggregate())},
        {1, oneof([{sum}, {total, amount}, {sum, []}, [count | count], [{count, amount}]])}
    ]).

init() ->
    frequency([
        {3, #{}},
        {3, ?LET(Pairs, list({key(), value()}), maps:from_list(Pairs))}
    ]).

predicate() -> ?SIZED(Size, predicate(min(Size, 8))).

predicate(Size) -> kept({predicate, Size}, fun() -> predicate_type(Size) end).

predicate_type(0) ->
    frequency([
        {1, boolean()},
        {2, {event_type, oneof([~"placed", ~"paid", placed])}},
        {8, {oneof([eq, neq, gt, gte, lt, lte]), path(), operand()}},
        {3, {between, path(), operand(), operand()}},
        {3, {oneof([in, any_of]), path(), list(operand())}},
        {2, {exists, path()}},
        {3, {oneof([prefix, suffix]), path(), name()}},
        {3, {wildcard, path(), oneof([~"a*", ~"*c", ~"a*c", ~"*b*", ~"ab", ~"?b*", ~"order-*"])}},
        {3, {regex, path(), oneof([~"^a", ~"b.c?", ~"order-[1-2]$", ~"a|b", ~"\\d+"])}}
    ]);
predicate_type(Size) ->
    Smaller = ?LAZY(predicate(Size div 3)),
    frequency([
        {4, predicate(0)},
        {2, {oneof(['and', 'or']), list(Smaller)}},
        {1, {'not', Smaller}}
    ]).

operand() -> kept(operand, fun operand_type/0).

operand_type() -> frequency([{4, numeric()}, {4, name()}, {1, range(0, 20)}, {2, content()}]).

asked_predicate() ->
    frequency([
        {20, predicate()},
        {3, ?LET(P, predicate(), handle(P))},
        {1, ?LET(B, binary(), {esdb_predicate, B, none})},
        {1, oneof([{eq, a}, {'and', a}, {regex, a, ~"("}, {in, a, [b | c]}, {eq, self(), 1}])},
        {1, nonsense()}
    ]).

%% One of another node, or of an earlier load.
handle(Predicate) ->
    {ok, Normal} = esdb_predicate_erl:normalise(Predicate),
    {esdb_predicate, esdb_predicate_erl:canonical(Normal), none}.

nonsense() -> oneof([an_atom, 1.5, 17, {}, <<1:3>>, [a | b], "text", self()]).

listed(Type) -> frequency([{20, few(Type)}, {1, [Type | an_improper_end]}, {1, nonsense()}]).

%% -------- segments

few(Type) -> ?LET(N, range(0, 4), vector(N, Type)).

segments() -> frequency([{12, segment()}, {8, few(segment())}, {1, [segment() | a]}]).

segment() -> kept(segment, fun segment_type/0).

segment_type() ->
    frequency([
        {12, packed()},
        {10, ?LET(Segment, packed(), damaged(Segment))},
        {2, ?LET(Events, events(), with_dictionary(Events))},
        {1, ?LET(Events, events(), packed(Events, #{compress => zstd, dictionary => ?DICTIONARY}))},
        {1, {esdb_segment, packed(), oneof([?DICTIONARY, ~"another", a])}},
        {1, binary()},
        {1, nonsense()}
    ]).

packed() ->
    ?LET(
        {Events, Options},
        {events(), frequency([{4, #{}}, {1, #{compress => zstd}}])},
        packed(Events, Options)
    ).

packed(Events, Options) ->
    Segment = ?M:pack(Events, Options),
    true = is_binary(Segment),
    Segment.

with_dictionary(Events) ->
    Segment = packed(Events, #{compress => zstd, dictionary => ?DICTIONARY}),
    {'$make', ?M, with_dictionary, [Segment, ?DICTIONARY]}.

%% Damage that checksums find, and damage that they vouch for.
damaged(Segment) ->
    ?LET(
        {Kind, At, Byte, Number},
        {
            frequency([
                {1, cut},
                {1, longer},
                {2, anywhere},
                {4, head},
                {12, byte},
                {6, little},
                {3, big}
            ]),
            range(0, 1 bsl 30),
            byte(),
            oneof([0, 1, 2, 255, 1 bsl 16, 1 bsl 24, 1 bsl 31, 1 bsl 32 - 1])
        },
        damaged(Kind, Segment, At, Byte, Number)
    ).

damaged(cut, Segment, At, _, _) ->
    binary:part(Segment, 0, At rem byte_size(Segment));
damaged(longer, Segment, _, Byte, _) ->
    <<Segment/binary, Byte>>;
damaged(anywhere, Segment, At, Byte, _) ->
    overwritten(Segment, At, <<Byte>>);
damaged(head, Segment, At, Byte, _) ->
    repaired(overwritten(Segment, in_head(Segment, At), <<Byte>>));
damaged(byte, Segment, At, Byte, _) ->
    repaired(overwritten(Segment, behind_head(Segment, At), <<Byte>>));
damaged(little, Segment, At, _, Number) ->
    repaired(overwritten(Segment, behind_head(Segment, At), <<Number:32/little>>));
damaged(big, Segment, At, _, Number) ->
    repaired(overwritten(Segment, behind_head(Segment, At), <<Number:32>>)).

in_head(Segment, At) -> At rem head_size(Segment).

behind_head(Segment, At) ->
    Start = head_size(Segment) + 8,
    case byte_size(Segment) - Start of
        0 -> At;
        Rest -> Start + At rem Rest
    end.

head_size(<<"ESDS", _, _, K:16/little, _/binary>>) -> 16 + 40 * K.

%% These bytes at that place, as far as there is one.
overwritten(Segment, At0, Bytes) ->
    Place = At0 rem byte_size(Segment),
    Size = min(byte_size(Bytes), byte_size(Segment) - Place),
    <<Before:Place/binary, _:Size/binary, After/binary>> = Segment,
    <<Before/binary, (binary:part(Bytes, 0, Size))/binary, After/binary>>.

%% With all checksums made anew, as far as there is a place for them.
repaired(<<Head:16/binary, Rest/binary>> = Segment) ->
    <<_:6/binary, K:16/little, _/binary>> = Head,
    Size = 40 * K,
    case Rest of
        <<Table:Size/binary, _:64, Sections/binary>> ->
            Entries = [entry(Entry, Segment) || <<Entry:40/binary>> <= Table],
            First = iolist_to_binary([Head | Entries]),
            <<First/binary, (esdb_hash_nif:xxhash3(First)):64/little, Sections/binary>>;
        _ ->
            Segment
    end.

entry(Entry, Segment) ->
    <<Start:8/binary, Offset:64/little, Stored:64/little, Size:8/binary, Hash:8/binary>> = Entry,
    Hash1 =
        case Offset + Stored =< byte_size(Segment) of
            true -> <<(esdb_hash_nif:xxhash3(binary:part(Segment, Offset, Stored))):64/little>>;
            false -> Hash
        end,
    <<Start/binary, Offset:64/little, Stored:64/little, Size/binary, Hash1/binary>>.

%% -------- what must be equal

observe(Function, Arguments, Segment) when
    Function =:= pack;
    Function =:= filter;
    Function =:= slice;
    Function =:= concat;
    Function =:= with_dictionary
->
    observed(Segment, is_compressing(Arguments));
observe(_, _, Result) ->
    Result.

observed({esdb_segment, Bytes, {esdb_dictionary, Dictionary, _}} = Segment, Compressing) ->
    {Dictionary, seen(Bytes, Segment, Compressing)};
observed(Bytes, Compressing) when is_binary(Bytes) ->
    seen(Bytes, Bytes, Compressing);
observed(Other, _) ->
    Other.

%% Compressed bytes, and whether they are the smaller ones, are up to the compressor; all others are
%% told by the format.
seen(Bytes, _, false) -> Bytes;
seen(_, Segment, true) -> {?M:count(Segment), ?M:to_events(Segment)}.

is_compressing(#{compress := Codec}) -> Codec =:= zstd;
is_compressing({esdb_segment, Bytes, _}) -> is_compressing(Bytes);
is_compressing([Argument | Arguments]) ->
    is_compressing(Argument) orelse is_compressing(Arguments);
is_compressing(Bytes) when is_binary(Bytes) ->
    case esdb_segment_format:header(Bytes) of
        {ok, #{sections := Sections}} -> [zstd || #{codec := zstd} <- Sections] =/= [];
        {error, _} -> false
    end;
is_compressing(_) ->
    false.
