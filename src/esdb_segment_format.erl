-module(esdb_segment_format).
-moduledoc false.
%% The bytes of a packed segment: header, table and sections, read and written.
%%
%% All numbers are little-endian. n is the count of events, k the number of sections.
%%
%%   bytes
%%  +--------+-----------+---------+-----------------+-------------------+---------+
%%  | "ESDS" | version 1 | flags 1 | sections (k)  2 | events (n)      4 | zero  4 |
%%  +--------+-----------+---------+-----------------+-------------------+---------+
%%  k times, with ascending ids:
%%  +------+---------+--------+--------+----------+----------+--------+------------+
%%  | id 1 | codec 1 | zero 2 | zero 4 | offset 8 | stored 8 | size 8 | XXH3-64  8 |
%%  +------+---------+--------+--------+----------+----------+--------+------------+
%%  +------------------------------------------------------------------------------+
%%  | XXH3-64 of all before                                                      8 |
%%  +------------------------------------------------------------------------------+
%%  | sections, back to back in the order of the table, nothing behind             |
%%  +------------------------------------------------------------------------------+
%%
%% `stored` is the number of bytes in the segment and `size` what they become; the checksum is that
%% of the stored bytes. Codec 0 is the bytes as they are, codec 1 a Zstandard frame.
%%
%%  1 versions, 2 positions, 3 epoch_us
%%  +------------------------------------------+
%%  | value, i64; -2^63: the event has none 8n |
%%  +------------------------------------------+
%%  4 event ids
%%  +-----------------------------+----------------+-------+
%%  | bit i: event i has one  n/8 | end of each 4n | bytes |
%%  +-----------------------------+----------------+-------+
%%  5 types, 6 streams
%%  +---------------------------+-----------------+----------------+-------+
%%  | number of its name, 0: 4n | names (m)     4 | end of each 4m | bytes |
%%  +---------------------------+-----------------+----------------+-------+
%%  7 data, 8 metadata, 9 others
%%  +----------------+-----------------------------------------------+
%%  | end of each 4n | external terms; no bytes: the event has none  |
%%  +----------------+-----------------------------------------------+
%%
%% A section that no event has anything for is left out, except that n > 0 takes at least one. Bits
%% count from the lowest of each byte, and ends from the first byte behind the table of ends.

-export([header/1, weight/1, load/3, write/4, encode/2, value/2]).
-export([ids/0, name/1, keys/0, first_dictionary/1]).
-export_type([header/0, section/0, columns/0, column/0, value/0, dictionary/0, reason/0]).

-type id() :: 1..9.
-type name() ::
    versions | positions | epoch_us | event_ids | types | streams | data | metadata | others.
-type section() :: #{
    id := id(),
    codec := stored | zstd,
    offset := non_neg_integer(),
    stored := non_neg_integer(),
    size := non_neg_integer(),
    hash := non_neg_integer()
}.
-type header() :: #{count := non_neg_integer(), sections := [section()]}.
%% What is in a section, every offset in it checked.
-type column() ::
    {integers, binary()}
    | {ids, Present :: binary(), Ends :: binary(), Bytes :: binary()}
    | {names, Codes :: binary(), Names :: tuple()}
    | {payloads, Ends :: binary(), Bytes :: binary()}.
-type columns() :: #{id() => column()}.
-type value() :: none | integer() | binary().
-type dictionary() :: none | binary() | {esdb_dictionary, binary(), term()}.
-type reason() ::
    {corrupt, header | name()}
    | {unsupported_version, byte()}
    | {dictionary_mismatch, pos_integer()}
    | invalid_dictionary
    | no_memory.

-define(MAGIC, "ESDS").
-define(VERSION, 1).
-define(MAX_SECTIONS, 9).
-define(HEADER, 16).
-define(ENTRY, 40).
-define(HASH, 8).
%% Bounds on what a segment may say of itself, so that none takes more memory than this allows.
-define(MAX_SIZE, 1_073_741_824).
-define(MAX_COUNT, 16_777_216).
-define(NO_INTEGER, -16#8000000000000000).
-define(MAX_INTEGER, 16#7FFFFFFFFFFFFFFF).
%% Sections this short do not become shorter.
-define(MIN_COMPRESSED, 64).

-define(IS_INTEGERS(Id), (Id =< 3)).
-define(IS_NAMES(Id), (Id =:= 5 orelse Id =:= 6)).

%% The sections in the order of their ids.
-spec ids() -> [id()].
ids() -> [1, 2, 3, 4, 5, 6, 7, 8, 9].

-spec name(id()) -> name().
name(1) -> versions;
name(2) -> positions;
name(3) -> epoch_us;
name(4) -> event_ids;
name(5) -> types;
name(6) -> streams;
name(7) -> data;
name(8) -> metadata;
name(9) -> others.

%% The keys of an event that have a section of their own.
-spec keys() -> [{1..8, atom()}].
keys() ->
    [
        {1, version},
        {2, position},
        {3, epoch_us},
        {4, event_id},
        {5, event_type},
        {6, stream_id},
        {7, data},
        {8, metadata}
    ].

%% Reading

%% How many events there are, how many bytes, and how many bytes its compressed sections become, by
%% a table that nobody has checked: it only decides about the scheduler.
-spec weight(binary()) ->
    {Events :: non_neg_integer(), Bytes :: non_neg_integer(), Unpacked :: non_neg_integer()}.
weight(<<?MAGIC, _, _, K:16/little, N:32/little, _:32, Rest/binary>> = Segment) when
    K =< ?MAX_SECTIONS
->
    {N, byte_size(Segment), become(K, Rest, 0)};
weight(Segment) ->
    {0, byte_size(Segment), 0}.

-spec become(non_neg_integer(), binary(), non_neg_integer()) -> non_neg_integer().
become(K, <<_, 1, _:22/binary, Size:64/little, _:64, Rest/binary>>, Sum) when K > 0 ->
    become(K - 1, Rest, Sum + Size);
become(K, <<_:?ENTRY/binary, Rest/binary>>, Sum) when K > 0 ->
    become(K - 1, Rest, Sum);
become(_, _, Sum) ->
    Sum.

%% The header and the table, checked against their checksum and against each other.
-spec header(binary()) -> {ok, header()} | {error, reason()}.
header(<<?MAGIC, ?VERSION, 0, K:16/little, Count:32/little, 0:32, _/binary>> = Segment) when
    K =< ?MAX_SECTIONS, Count =< ?MAX_COUNT, Count =:= 0 orelse K > 0
->
    Length = ?HEADER + ?ENTRY * K,
    case Segment of
        <<Head:Length/binary, Hash:64/little, _/binary>> ->
            <<_:?HEADER/binary, Table/binary>> = Head,
            case esdb_hash_nif:xxhash3(Head) of
                Hash -> table(Table, Length + ?HASH, byte_size(Segment), Count);
                _ -> corrupt(header)
            end;
        _ ->
            corrupt(header)
    end;
header(<<?MAGIC, Version, _/binary>>) when Version =/= ?VERSION ->
    {error, {unsupported_version, Version}};
header(_) ->
    corrupt(header).

-spec table(binary(), pos_integer(), pos_integer(), non_neg_integer()) ->
    {ok, header()} | {error, reason()}.
table(Table, Start, End, Count) ->
    case entries(Table, 0, Start, 0, []) of
        {ok, End, Sections} -> {ok, #{count => Count, sections => Sections}};
        _ -> corrupt(header)
    end.

-spec entries(binary(), 0..9, pos_integer(), non_neg_integer(), [section()]) ->
    {ok, End :: pos_integer(), [section()]} | error.
entries(
    <<Id, Codec, 0:48, Offset:64/little, Stored:64/little, Size:64/little, Hash:64/little,
        Rest/binary>>,
    Last,
    Offset,
    Sum,
    Sections
) when
    Id > Last,
    Id =< ?MAX_SECTIONS,
    Codec =:= 1 orelse (Codec =:= 0 andalso Stored =:= Size),
    Sum + Size =< ?MAX_SIZE
->
    Section = #{
        id => Id,
        codec => codec(Codec),
        offset => Offset,
        stored => Stored,
        size => Size,
        hash => Hash
    },
    entries(Rest, Id, Offset + Stored, Sum + Size, [Section | Sections]);
entries(<<>>, _, End, _, Sections) ->
    {ok, End, lists:reverse(Sections)};
entries(_, _, _, _, _) ->
    error.

-spec codec(0..1) -> stored | zstd.
codec(0) -> stored;
codec(1) -> zstd.

%% The columns of those of the sections that are there, in ascending order; the first that is
%% damaged is the result.
-spec load({binary(), dictionary()}, header(), [id()]) -> {ok, columns()} | {error, reason()}.
load({Segment, Dictionary}, #{count := Count, sections := Sections}, Ids) ->
    Wanted = [Section || #{id := Id} = Section <- Sections, lists:member(Id, Ids)],
    columns(Wanted, Segment, Dictionary, Count, #{}).

-spec columns([section()], binary(), dictionary(), non_neg_integer(), columns()) ->
    {ok, columns()} | {error, reason()}.
columns([#{id := Id} = Section | Sections], Segment, Dictionary, Count, Done) ->
    maybe
        {ok, Bytes} ?= bytes(Section, Segment, Dictionary),
        {ok, Column} ?= column(Id, Count, Bytes),
        columns(Sections, Segment, Dictionary, Count, Done#{Id => Column})
    else
        error -> corrupt(name(Id));
        {error, Reason} -> {error, Reason}
    end;
columns([], _, _, _, Done) ->
    {ok, Done}.

-spec bytes(section(), binary(), dictionary()) -> {ok, binary()} | error | {error, reason()}.
bytes(#{offset := Offset, stored := Stored, hash := Hash} = Section, Segment, Dictionary) ->
    Bytes = binary:part(Segment, Offset, Stored),
    case esdb_hash_nif:xxhash3(Bytes) of
        Hash -> unpacked(Section, Bytes, Dictionary);
        _ -> error
    end.

-spec unpacked(section(), binary(), dictionary()) -> {ok, binary()} | error | {error, reason()}.
unpacked(#{codec := stored}, Bytes, _) ->
    {ok, Bytes};
unpacked(#{codec := zstd, size := Size}, Bytes, Dictionary) ->
    Options = with_dictionary(#{max_size => Size}, Dictionary),
    case esdb_archive_nif:decompress(Bytes, zstd, Options) of
        {ok, Content} when byte_size(Content) =:= Size -> {ok, Content};
        {error, {dictionary_mismatch, Id}} -> {error, {dictionary_mismatch, Id}};
        {error, no_memory} -> {error, no_memory};
        _ -> error
    end.

-spec with_dictionary(map(), dictionary()) -> map().
with_dictionary(Options, none) -> Options;
with_dictionary(Options, Dictionary) -> Options#{dictionary => Dictionary}.

-spec column(id(), non_neg_integer(), binary()) -> {ok, column()} | error.
column(Id, Count, Bytes) when ?IS_INTEGERS(Id) ->
    case byte_size(Bytes) =:= 8 * Count of
        true -> {ok, {integers, Bytes}};
        false -> error
    end;
column(4, Count, Bytes) ->
    Bits = (Count + 7) div 8,
    maybe
        <<Present:Bits/binary, Rest/binary>> ?= Bytes,
        {ok, Ends, Ids} ?= ends(Count, Rest),
        true ?= are_present(Present, Count, 0, Ends, 0),
        {ok, {ids, Present, Ends, Ids}}
    else
        _ -> error
    end;
column(Id, Count, Bytes) when ?IS_NAMES(Id) ->
    Length = 4 * Count,
    maybe
        <<Codes:Length/binary, M:32/little, Rest/binary>> ?= Bytes,
        %% Each name is of some event.
        true ?= M =< Count,
        {ok, Ends, Names} ?= ends(M, Rest),
        true ?= are_codes(Codes, M),
        {ok, {names, Codes, list_to_tuple(pieces(Ends, 0, Names))}}
    else
        _ -> error
    end;
column(_, Count, Bytes) ->
    maybe
        {ok, Ends, Payloads} ?= ends(Count, Bytes),
        {ok, {payloads, Ends, Payloads}}
    end.

%% So many ends, ascending, and the bytes behind them, the last end at their end.
-spec ends(non_neg_integer(), binary()) -> {ok, binary(), binary()} | error.
ends(Count, Bytes) ->
    Length = 4 * Count,
    case Bytes of
        <<Ends:Length/binary, Rest/binary>> ->
            case are_ascending(Ends, 0, byte_size(Rest)) of
                true -> {ok, Ends, Rest};
                false -> error
            end;
        _ ->
            error
    end.

-spec are_ascending(binary(), non_neg_integer(), non_neg_integer()) -> boolean().
are_ascending(<<End:32/little, Ends/binary>>, Last, Size) ->
    End >= Last andalso are_ascending(Ends, End, Size);
are_ascending(<<>>, Last, Size) ->
    Last =:= Size.

%% Bits behind the last event are zero, and what is absent has no bytes.
-spec are_present(binary(), non_neg_integer(), non_neg_integer(), binary(), non_neg_integer()) ->
    boolean().
are_present(Present, Count, I, <<End:32/little, Ends/binary>>, Last) ->
    (End =:= Last orelse is_present(Present, I)) andalso
        are_present(Present, Count, I + 1, Ends, End);
are_present(Present, Count, _, <<>>, _) ->
    not lists:any(
        fun(I) -> is_present(Present, I) end, lists:seq(Count, 8 * byte_size(Present) - 1)
    ).

-spec is_present(binary(), non_neg_integer()) -> boolean().
is_present(Present, I) -> binary:at(Present, I bsr 3) band (1 bsl (I band 7)) =/= 0.

-spec are_codes(binary(), non_neg_integer()) -> boolean().
are_codes(<<Code:32/little, Codes/binary>>, M) -> Code =< M andalso are_codes(Codes, M);
are_codes(<<>>, _) -> true.

-spec pieces(binary(), non_neg_integer(), binary()) -> [binary()].
pieces(<<End:32/little, Ends/binary>>, Start, Bytes) ->
    [binary:part(Bytes, Start, End - Start) | pieces(Ends, End, Bytes)];
pieces(<<>>, _, _) ->
    [].

%% What event I, counted from 0, has in a column. A payload of no bytes is `none`.
-spec value(column(), non_neg_integer()) -> value().
value({integers, Bytes}, I) ->
    Skip = 8 * I,
    case Bytes of
        <<_:Skip/binary, ?NO_INTEGER:64/little-signed, _/binary>> -> none;
        <<_:Skip/binary, Integer:64/little-signed, _/binary>> -> Integer
    end;
value({ids, Present, Ends, Bytes}, I) ->
    case is_present(Present, I) of
        true -> piece(Ends, I, Bytes);
        false -> none
    end;
value({names, Codes, Names}, I) ->
    Skip = 4 * I,
    case Codes of
        <<_:Skip/binary, 0:32, _/binary>> -> none;
        <<_:Skip/binary, Code:32/little, _/binary>> -> element(Code, Names)
    end;
value({payloads, Ends, Bytes}, I) ->
    case piece(Ends, I, Bytes) of
        <<>> -> none;
        Payload -> Payload
    end.

-spec piece(binary(), non_neg_integer(), binary()) -> binary().
piece(<<End:32/little, _/binary>>, 0, Bytes) ->
    binary:part(Bytes, 0, End);
piece(Ends, I, Bytes) ->
    Skip = 4 * (I - 1),
    <<_:Skip/binary, Start:32/little, End:32/little, _/binary>> = Ends,
    binary:part(Bytes, Start, End - Start).

-spec corrupt(header | name()) -> {error, reason()}.
corrupt(What) -> {error, {corrupt, What}}.

%% Which dictionary is used for what is made of several segments.
-spec first_dictionary([{binary(), dictionary()}]) -> dictionary().
first_dictionary([{_, none} | Sources]) -> first_dictionary(Sources);
first_dictionary([{_, Dictionary} | _]) -> Dictionary;
first_dictionary([]) -> none.

%% Writing

%% The bytes of a section from its value for each event; `none` when there is no value at all.
-spec encode(id(), [value()]) -> none | {ok, binary()}.
encode(Id, Values) ->
    case lists:all(fun(Value) -> Value =:= none end, Values) of
        true -> none;
        false -> {ok, iolist_to_binary(encoded(Id, Values))}
    end.

-spec encoded(id(), [value()]) -> iolist().
encoded(Id, Values) when ?IS_INTEGERS(Id) ->
    [<<(integer(Value)):64/little-signed>> || Value <- Values];
encoded(4, Values) ->
    [bits(Values) | with_ends(Values)];
encoded(Id, Values) when ?IS_NAMES(Id) ->
    {Codes, Numbers} = lists:mapfoldl(fun code/2, #{}, Values),
    Names = [Name || {_, Name} <- lists:sort([{Number, Name} || Name := Number <- Numbers])],
    [[<<Code:32/little>> || Code <- Codes], <<(length(Names)):32/little>> | with_ends(Names)];
encoded(_, Values) ->
    with_ends(Values).

-spec integer(none | integer()) -> integer().
integer(none) -> ?NO_INTEGER;
integer(Integer) when Integer > ?NO_INTEGER, Integer =< ?MAX_INTEGER -> Integer.

%% The first value is the lowest bit.
-spec bits([value()]) -> [byte()].
bits([_ | _] = Values) ->
    {Eight, Rest} = lists:split(min(8, length_to(8, Values)), Values),
    [lists:foldr(fun(Value, Byte) -> Byte bsl 1 bor bit(Value) end, 0, Eight) | bits(Rest)];
bits([]) ->
    [].

-spec length_to(non_neg_integer(), [term()]) -> non_neg_integer().
length_to(Most, [_ | Rest]) when Most > 0 -> 1 + length_to(Most - 1, Rest);
length_to(_, _) -> 0.

-spec bit(value()) -> 0..1.
bit(none) -> 0;
bit(_) -> 1.

-spec code(none | binary(), #{binary() => pos_integer()}) ->
    {non_neg_integer(), #{binary() => pos_integer()}}.
code(none, Numbers) ->
    {0, Numbers};
code(Name, Numbers) ->
    case Numbers of
        #{Name := Number} -> {Number, Numbers};
        #{} -> {map_size(Numbers) + 1, Numbers#{Name => map_size(Numbers) + 1}}
    end.

-spec with_ends([none | binary()]) -> iolist().
with_ends(Values) ->
    {Ends, _} = lists:mapfoldl(
        fun(Value, Start) ->
            End = Start + size_of(Value),
            {<<End:32/little>>, End}
        end,
        0,
        Values
    ),
    [Ends | [Value || Value <- Values, Value =/= none]].

-spec size_of(none | binary()) -> non_neg_integer().
size_of(none) -> 0;
size_of(Value) -> byte_size(Value).

%% A segment of these sections, those of them compressed that are to be and gain by it.
-spec write(Count, [{id(), binary()}], Compressed, dictionary()) ->
    {ok, binary()} | {error, too_large | invalid_dictionary | no_memory}
when
    Count :: non_neg_integer(),
    Compressed :: fun((id()) -> stored | {zstd, Level :: 1..22}).
write(Count, Sections, Compressed, Dictionary) ->
    Sizes = [byte_size(Bytes) || {_, Bytes} <- Sections],
    case lists:sum(Sizes) =< ?MAX_SIZE andalso Count =< ?MAX_COUNT of
        true -> packed(Count, Sections, Compressed, Dictionary);
        false -> {error, too_large}
    end.

-spec packed(non_neg_integer(), [{id(), binary()}], Compressed, dictionary()) ->
    {ok, binary()} | {error, invalid_dictionary | no_memory}
when
    Compressed :: fun((id()) -> stored | {zstd, Level :: 1..22}).
packed(Count, Sections, Compressed, Dictionary) ->
    try
        {ok, written(Count, [packed(Section, Compressed, Dictionary) || Section <- Sections])}
    catch
        throw:{unpackable, Reason} -> {error, Reason}
    end.

-spec packed({id(), binary()}, fun((id()) -> stored | {zstd, 1..22}), dictionary()) ->
    {id(), 0..1, Stored :: binary(), Size :: non_neg_integer()}.
packed({Id, Bytes}, Compressed, Dictionary) ->
    case Compressed(Id) of
        {zstd, Level} when byte_size(Bytes) >= ?MIN_COMPRESSED ->
            Options = with_dictionary(#{level => Level}, Dictionary),
            case esdb_archive_nif:compress(Bytes, zstd, Options) of
                {ok, Frame} when byte_size(Frame) < byte_size(Bytes) ->
                    {Id, 1, Frame, byte_size(Bytes)};
                {ok, _} ->
                    {Id, 0, Bytes, byte_size(Bytes)};
                {error, Reason} ->
                    throw({unpackable, Reason})
            end;
        _ ->
            {Id, 0, Bytes, byte_size(Bytes)}
    end.

-spec written(non_neg_integer(), [{id(), 0..1, binary(), non_neg_integer()}]) -> binary().
written(Count, Sections) ->
    K = length(Sections),
    Start = ?HEADER + ?ENTRY * K + ?HASH,
    {Entries, _} = lists:mapfoldl(fun entry/2, Start, Sections),
    Head = iolist_to_binary([
        <<?MAGIC, ?VERSION, 0, K:16/little, Count:32/little, 0:32>>, Entries
    ]),
    Hash = <<(esdb_hash_nif:xxhash3(Head)):64/little>>,
    iolist_to_binary([Head, Hash | [Stored || {_, _, Stored, _} <- Sections]]).

-spec entry({id(), 0..1, binary(), non_neg_integer()}, Offset) -> {binary(), Offset} when
    Offset :: pos_integer().
entry({Id, Codec, Stored, Size}, Offset) ->
    Length = byte_size(Stored),
    Hash = esdb_hash_nif:xxhash3(Stored),
    {
        <<Id, Codec, 0:48, Offset:64/little, Length:64/little, Size:64/little, Hash:64/little>>,
        Offset + Length
    }.
