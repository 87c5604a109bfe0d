-module(erl_esdb_ra_segment).
-moduledoc """
Reads many entries of one of Ra's segment files at once.

Ra's own reader takes one entry after the other from the file unless their indexes are consecutive,
and those of one stream among many are not. Here all that a page needs is one call to
`m:esdb_file_nif`, and each entry is compared with its checksum, as Ra does it in a recovery.

```
 segment   "RASG"  version:16  records:16        numbers are big-endian
           index   a record for each entry, in the order in which they were written, then zeros
           data    entries

 record    index:64  term:64  offset:64  length:32  crc32:32        version 2
           index:64  term:64  offset:32  length:32  crc32:32        version 1
 entry     the command in the external term format; a checksum of 0 is none
```

An index that does not rise replaces all from it on: these were written before their fate was
decided. A file grows until it is full, so before what was read from one that was opened earlier is
believed, it is asked whether it has grown.
""".

-export([open/1, close/1, entries/3, last_term/1]).
-export_type([segment/0]).

-define(MAGIC, "RASG").
-define(HEADER, 8).
%% What one call reads at most.
-define(BYTES, 16_777_216).
-define(RANGES, 8192).

-record(segment, {
    file :: esdb_file_nif:file(),
    %% of offsets in records
    bits :: 32 | 64,
    %% rising, without those that were replaced
    records :: binary(),
    %% the first byte behind the last entry
    ends :: pos_integer()
}).

-opaque segment() :: #segment{}.
-type place() :: {Offset :: non_neg_integer(), Length :: non_neg_integer(), Crc :: integer()}.

-doc """
Opens a segment. Errors: `unknown_format`, of another version of Ra, and those of
`esdb_file_nif:open/1`.
""".
-spec open(file:filename_all()) ->
    {ok, segment()} | {error, unknown_format | esdb_file_nif:reason()}.
open(Name) ->
    maybe
        {ok, File} ?= esdb_file_nif:open(Name),
        {ok, Segment} ?= opened(File),
        {ok, Segment}
    end.

-spec opened(esdb_file_nif:file()) ->
    {ok, segment()} | {error, unknown_format | esdb_file_nif:reason()}.
opened(File) ->
    maybe
        {ok, [<<?MAGIC, Version:16, Count:16>>]} ?= esdb_file_nif:read(File, [{0, ?HEADER}]),
        {ok, Bits} ?= bits(Version),
        Size = Count * record_bytes(Bits),
        {ok, [Index]} ?= esdb_file_nif:read(File, [{?HEADER, Size}]),
        {ok, indexed(File, Bits, Index, ?HEADER + Size)}
    else
        {ok, _} -> closed(File, unknown_format);
        unknown -> closed(File, unknown_format);
        {error, Reason} -> closed(File, Reason)
    end.

-spec closed(esdb_file_nif:file(), Reason) -> {error, Reason}.
closed(File, Reason) ->
    _ = esdb_file_nif:close(File),
    {error, Reason}.

-spec bits(non_neg_integer()) -> {ok, 32 | 64} | unknown.
bits(1) -> {ok, 32};
bits(2) -> {ok, 64};
bits(_) -> unknown.

-spec record_bytes(32 | 64) -> pos_integer().
record_bytes(Bits) -> 24 + Bits div 8.

-doc "Closes a segment.".
-spec close(segment()) -> ok.
close(#segment{file = File}) ->
    _ = esdb_file_nif:close(File),
    ok.

-doc """
The term of the last entry of a segment file, 0 where it has none. Errors as of `open/1`.
""".
-spec last_term(file:filename_all()) ->
    {ok, non_neg_integer()} | {error, unknown_format | esdb_file_nif:reason()}.
last_term(Name) ->
    maybe
        {ok, #segment{bits = Bits, records = Records} = Segment} ?= open(Name),
        ok = close(Segment),
        Skip = max(0, byte_size(Records) - record_bytes(Bits)),
        case Records of
            <<_:Skip/binary, _Index:64, Term:64, _/binary>> -> {ok, Term};
            <<>> -> {ok, 0}
        end
    end.

%% ---- the index

-spec indexed(esdb_file_nif:file(), 32 | 64, binary(), pos_integer()) -> segment().
indexed(File, Bits, Index, Begin) ->
    {Count, Rising} = written(Bits, Index, 0, 0),
    Records = binary:part(Index, 0, Count * record_bytes(Bits)),
    Last = fun({Offset, Length, _}, End) -> max(End, Offset + Length) end,
    #segment{
        file = File,
        bits = Bits,
        records =
            case Rising of
                true -> binary:copy(Records);
                false -> valid(Bits, Records, [])
            end,
        ends = lists:foldl(Last, Begin, [place(Bits, Count - 1, Records) || Count > 0])
    }.

%% How many records there are, and whether each has a greater index than the one before.
-spec written(32 | 64, binary(), non_neg_integer(), non_neg_integer()) ->
    {non_neg_integer(), boolean()}.
written(Bits, Index, Count, Last) ->
    case Index of
        <<0:64, 0:64, 0:Bits, 0:64, _/binary>> ->
            {Count, true};
        <<I:64, _:64, _:Bits, _:64, Rest/binary>> when I > Last; Count =:= 0 ->
            written(Bits, Rest, Count + 1, I);
        <<_:64, _:64, _:Bits, _:64, Rest/binary>> ->
            {Count + 1 + zeros_from(Bits, Rest, 0), false};
        _ ->
            {Count, true}
    end.

-spec zeros_from(32 | 64, binary(), non_neg_integer()) -> non_neg_integer().
zeros_from(Bits, Index, Count) ->
    case Index of
        <<0:64, 0:64, 0:Bits, 0:64, _/binary>> -> Count;
        <<_:64, _:64, _:Bits, _:64, Rest/binary>> -> zeros_from(Bits, Rest, Count + 1);
        _ -> Count
    end.

%% Without the records that later ones replaced.
-spec valid(32 | 64, binary(), [binary()]) -> binary().
valid(_Bits, <<>>, Valid) ->
    iolist_to_binary(lists:reverse(Valid));
valid(Bits, Records, Valid) ->
    {<<Index:64, _/binary>> = Record, Rest} = split_binary(Records, record_bytes(Bits)),
    Before = lists:dropwhile(fun(<<I:64, _/binary>>) -> I >= Index end, Valid),
    valid(Bits, Rest, [Record | Before]).

-spec place(32 | 64, non_neg_integer(), binary()) -> place().
place(Bits, Nth, Records) ->
    Skip = Nth * record_bytes(Bits),
    <<_:Skip/binary, _:64, _:64, Offset:Bits, Length:32, Crc:32, _/binary>> = Records,
    {Offset, Length, Crc}.

-spec index(32 | 64, non_neg_integer(), binary()) -> non_neg_integer().
index(Bits, Nth, Records) ->
    Skip = Nth * record_bytes(Bits),
    <<_:Skip/binary, Index:64, _/binary>> = Records,
    Index.

%% Where the entries with these indexes are, which rise; without those that are not there.
-spec places([ra:index()], non_neg_integer(), segment()) -> [{ra:index(), place()}].
places([Index | Indexes], From, #segment{bits = Bits, records = Records} = Segment) ->
    case find(Index, From, Segment) of
        {found, Nth} ->
            [{Index, place(Bits, Nth, Records)} | places(Indexes, Nth + 1, Segment)];
        {none, Nth} ->
            places(Indexes, Nth, Segment)
    end;
places([], _From, _Segment) ->
    [].

%% The record of an index, or where it would be, from one on. Where no index is missing in between
%% it is as far away as the numbers say, and it is never farther.
-spec find(ra:index(), non_neg_integer(), segment()) ->
    {found | none, non_neg_integer()}.
find(Index, From, #segment{bits = Bits, records = Records}) ->
    Count = byte_size(Records) div record_bytes(Bits),
    case From < Count andalso Index - index(Bits, From, Records) of
        Distance when is_integer(Distance), Distance >= 0 ->
            High = min(Count - 1, From + Distance),
            case index(Bits, High, Records) of
                Index -> {found, High};
                Less when Less < Index -> {none, High + 1};
                _ -> bisect(Index, From, High, Bits, Records)
            end;
        _ ->
            {none, From}
    end.

%% The index at `High` is greater, the one at `Low' is not.
-spec bisect(ra:index(), non_neg_integer(), non_neg_integer(), 32 | 64, binary()) ->
    {found | none, non_neg_integer()}.
bisect(Index, Low, High, Bits, Records) when High - Low =< 1 ->
    case index(Bits, Low, Records) of
        Index -> {found, Low};
        _ -> {none, High}
    end;
bisect(Index, Low, High, Bits, Records) ->
    Middle = (Low + High) div 2,
    case index(Bits, Middle, Records) =< Index of
        true -> bisect(Index, Middle, High, Bits, Records);
        false -> bisect(Index, Low, Middle, Bits, Records)
    end.

%% ---- the entries

-doc """
The entries with these indexes, which rise. `missing`: one is not in the segment; `damaged`: one
does not fit its checksum, or is no term; the others come with the word.

`{error, grown}`: somebody has written to the segment since it was opened (`earlier`), so what it
says may be replaced by now. Who has opened it just `now` is not told: there may be bytes behind the
last entry that a crash has left.
""".
-spec entries([ra:index()], segment(), Opened :: now | earlier) ->
    {ok, Entries} | {missing | damaged, Entries} | {error, grown | esdb_file_nif:reason()}
when
    Entries :: #{ra:index() => term()}.
entries(Indexes, Segment, Opened) ->
    Places = places(Indexes, 0, Segment),
    maybe
        {ok, Read} ?= read(parts(Places, 0, 0, []), Segment, Opened, #{}),
        true ?= map_size(Read) =:= length(Places) orelse {damaged, Read},
        true ?= length(Places) =:= length(Indexes) orelse {missing, Read},
        {ok, Read}
    end.

%% What one call reads.
-spec parts([{ra:index(), place()}], non_neg_integer(), non_neg_integer(), Part) -> [Part] when
    Part :: [{ra:index(), place()}].
parts([{_, {_, Length, _}} = Place | Places], Bytes, Count, Part) when
    Part =:= []; Bytes + Length =< ?BYTES, Count < ?RANGES
->
    parts(Places, Bytes + Length, Count + 1, [Place | Part]);
parts([], _Bytes, _Count, Part) ->
    [lists:reverse(Part)];
parts(Places, _Bytes, _Count, Part) ->
    [lists:reverse(Part) | parts(Places, 0, 0, [])].

%% The first range is behind the end.
-spec read([[{ra:index(), place()}]], segment(), now | earlier, Entries) ->
    {ok, Entries} | {error, grown | esdb_file_nif:reason()}
when
    Entries :: #{ra:index() => term()}.
read([Part | Parts], #segment{file = File, ends = End} = Segment, Opened, Entries) ->
    Ranges = [{Offset, Length} || {_, {Offset, Length, _}} <- Part],
    case esdb_file_nif:read(File, [{End, 1} | Ranges]) of
        {ok, [<<_>> | _]} when Opened =:= earlier ->
            {error, grown};
        {ok, [_ | Found]} ->
            read(Parts, Segment, Opened, decoded(Part, Found, Entries));
        {error, Reason} ->
            {error, Reason}
    end;
read([], _Segment, _Opened, Entries) ->
    {ok, Entries}.

-spec decoded([{ra:index(), place()}], [binary()], Entries) -> Entries when
    Entries :: #{ra:index() => term()}.
decoded(Part, Found, Entries) ->
    New = [
        {Index, Entry}
     || {{Index, {_, Length, Crc}}, Bytes} <- lists:zip(Part, Found),
        byte_size(Bytes) =:= Length,
        Crc =:= 0 orelse erlang:crc32(Bytes) =:= Crc,
        {ok, Entry} <- [entry(Bytes)]
    ],
    maps:merge(Entries, maps:from_list(New)).

-spec entry(binary()) -> {ok, term()} | damaged.
entry(Bytes) ->
    try
        {ok, binary_to_term(Bytes)}
    catch
        error:badarg -> damaged
    end.
