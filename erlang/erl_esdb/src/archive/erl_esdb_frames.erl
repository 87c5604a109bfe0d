-module(erl_esdb_frames).
-moduledoc """
A file of frames: that of archives, exports and backups.

```
   bytes
 +---------+---------+---------+
 | "EF"  2 | 1     1 | kind  1 |
 +---------+---------+---------+----------------------+
 | tag   1 | length        4   | body ...             |   a frame, as often as needed
 +---------+-------------------+----------------------+
 | sum                      8  |
 +-----------------------------+
```

Numbers are unsigned and big-endian. The kind is `A` (archive), `X` (export), `B` (events of a
backup) or `D` (its documents). A tag is `H` (header), `S` (segment of events), `D` (documents), `C`
(checkpoints), `T` (table of streams) or `E` (end, the last one). The sum is XXH3-64 of the sum
before (that of the first frame: of the four bytes at the begin), tag, length and body: so a frame
that is damaged, lost, doubled or out of order is found, and a file that was cut off has no end.

```erlang
1> {Begin, Sum} = erl_esdb_frames:head(export).
2> {Frame, Sum1} = erl_esdb_frames:frame(segment, Segment, Sum).
3> {End, _} = erl_esdb_frames:frame('end', ~"", Sum1).
4> erl_esdb_frames:decode([Begin, Frame, End], export).
{ok,[{segment,Segment},{'end',<<>>}]}
```
""".

-export([head/1, frame/3, decode/2]).
-export([open/2, resume/4, next/1, place/1, close/1]).
-export_type([kind/0, tag/0, reason/0, reader/0]).

-define(MAGIC, "EF").
-define(FORMAT, 1).
-define(HEAD, 4).
-define(FRONT, 5).
-define(SUM, 8).

-type kind() :: archive | export | backup | documents.
-type tag() :: header | segment | documents | checkpoints | streams | 'end'.
-type sum() :: non_neg_integer().
-type reason() :: corrupt | truncated | {unsupported_version, byte()} | {read_failed, term()}.

-record(reader, {
    fd :: file:fd(),
    size :: non_neg_integer(),
    offset :: non_neg_integer(),
    sum :: sum()
}).
-opaque reader() :: #reader{}.

-doc "The begin of a file, and the sum that its first frame goes on from.".
-spec head(kind()) -> {binary(), sum()}.
head(Kind) ->
    Head = <<?MAGIC, ?FORMAT, (kind(Kind))>>,
    {Head, esdb_hash_nif:xxhash3(Head)}.

-doc "A frame, and the sum that the next one goes on from.".
-spec frame(tag(), iodata(), sum()) -> {iodata(), sum()}.
frame(Tag, Body, Sum) ->
    Front = <<(tag(Tag)), (iolist_size(Body)):32>>,
    Sum1 = sum(Sum, Front, Body),
    {[Front, Body, <<Sum1:64>>], Sum1}.

-spec sum(sum(), binary(), iodata()) -> sum().
sum(Sum, Front, Body) -> esdb_hash_nif:xxhash3([<<Sum:64>>, Front, Body]).

-spec kind(kind()) -> byte().
kind(archive) -> $A;
kind(export) -> $X;
kind(backup) -> $B;
kind(documents) -> $D.

-spec tag(tag()) -> byte().
tag(header) -> $H;
tag(segment) -> $S;
tag(documents) -> $D;
tag(checkpoints) -> $C;
tag(streams) -> $T;
tag('end') -> $E.

-spec tag_of(byte()) -> tag() | unknown.
tag_of($H) -> header;
tag_of($S) -> segment;
tag_of($D) -> documents;
tag_of($C) -> checkpoints;
tag_of($T) -> streams;
tag_of($E) -> 'end';
tag_of(_) -> unknown.

-doc "All frames of a file.".
-spec decode(iodata(), kind()) -> {ok, [{tag(), binary()}]} | {error, reason()}.
decode(File, Kind) ->
    Bytes = iolist_to_binary(File),
    maybe
        {ok, Sum} ?= check_head(Bytes, Kind),
        decode_frames(binary_part(Bytes, ?HEAD, byte_size(Bytes) - ?HEAD), Sum, [])
    end.

-spec check_head(binary(), kind()) -> {ok, sum()} | {error, reason()}.
check_head(<<?MAGIC, ?FORMAT, Kind, _/binary>>, Expected) ->
    case kind(Expected) of
        Kind -> {ok, element(2, head(Expected))};
        _ -> {error, corrupt}
    end;
check_head(<<?MAGIC, Format, _, _/binary>>, _) when Format > ?FORMAT ->
    {error, {unsupported_version, Format}};
check_head(Bytes, _) when byte_size(Bytes) < ?HEAD -> {error, truncated};
check_head(_, _) ->
    {error, corrupt}.

-spec decode_frames(binary(), sum(), [{tag(), binary()}]) ->
    {ok, [{tag(), binary()}]} | {error, reason()}.
decode_frames(<<Front:?FRONT/binary, Rest/binary>>, Sum, Frames) ->
    <<Tag, Length:32>> = Front,
    case Rest of
        <<Body:Length/binary, Sum1:64, Rest1/binary>> ->
            decode_frame(tag_of(Tag), Sum1 =:= sum(Sum, Front, Body), Body, Rest1, Sum1, Frames);
        _ ->
            {error, truncated}
    end;
decode_frames(_, _, _) ->
    {error, truncated}.

-spec decode_frame(tag() | unknown, boolean(), binary(), binary(), sum(), [{tag(), binary()}]) ->
    {ok, [{tag(), binary()}]} | {error, reason()}.
decode_frame('end', true, Body, <<>>, _Sum, Frames) ->
    {ok, lists:reverse([{'end', Body} | Frames])};
decode_frame(Tag, true, Body, Rest, Sum, Frames) when Tag =/= 'end', Tag =/= unknown ->
    decode_frames(Rest, Sum, [{Tag, Body} | Frames]);
decode_frame(_, _, _, _, _, _) ->
    {error, corrupt}.

%% ---- a frame at a time

-doc "Opens a file to read it frame by frame. It belongs to the process that opens it.".
-spec open(file:filename_all(), kind()) -> {ok, reader()} | {error, reason()}.
open(Path, Kind) ->
    {_, Sum} = head(Kind),
    resume(Path, Kind, ?HEAD, Sum).

-doc "The same from a place on that `place/1` told.".
-spec resume(file:filename_all(), kind(), Offset :: non_neg_integer(), sum()) ->
    {ok, reader()} | {error, reason()}.
resume(Path, Kind, Offset, Sum) ->
    case file:open(Path, [read, raw, binary]) of
        {ok, Fd} -> opened(Fd, Kind, Offset, Sum);
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-spec opened(file:fd(), kind(), non_neg_integer(), sum()) ->
    {ok, reader()} | {error, reason()}.
opened(Fd, Kind, Offset, Sum) ->
    maybe
        {ok, Head} ?= pread(Fd, 0, ?HEAD),
        {ok, _} ?= check_head(Head, Kind),
        {ok, Size} ?= file:position(Fd, eof),
        {ok, #reader{fd = Fd, size = Size, offset = Offset, sum = Sum}}
    else
        {error, Reason} ->
            ok = file:close(Fd),
            {error, Reason}
    end.

-spec pread(file:fd(), non_neg_integer(), non_neg_integer()) ->
    {ok, binary()} | {error, reason()}.
pread(_Fd, _Offset, 0) ->
    {ok, <<>>};
pread(Fd, Offset, Length) ->
    case file:pread(Fd, Offset, Length) of
        {ok, Bytes} when byte_size(Bytes) =:= Length -> {ok, Bytes};
        {error, Reason} -> {error, {read_failed, Reason}};
        _ -> {error, truncated}
    end.

-doc "The next frame. The last one is `'end'`, and nothing follows it.".
-spec next(reader()) -> {ok, tag(), binary(), reader()} | {error, reason()}.
next(#reader{fd = Fd, offset = Offset, size = Size, sum = Sum} = Reader) ->
    maybe
        {ok, <<Tag, Length:32>> = Front} ?= pread(Fd, Offset, ?FRONT),
        Begin = Offset + ?FRONT,
        %% No memory is taken for what cannot be there.
        true ?= Begin + Length + ?SUM =< Size,
        {ok, Body} ?= pread(Fd, Begin, Length),
        {ok, <<Sum1:64>>} ?= pread(Fd, Begin + Length, ?SUM),
        Next = Begin + Length + ?SUM,
        ok ?= check(tag_of(Tag), Sum1 =:= sum(Sum, Front, Body), Next =:= Size),
        {ok, tag_of(Tag), Body, Reader#reader{offset = Next, sum = Sum1}}
    else
        false -> {error, truncated};
        {error, Reason} -> {error, Reason}
    end.

-spec check(tag() | unknown, boolean(), boolean()) -> ok | {error, corrupt}.
check(unknown, _, _) -> {error, corrupt};
check('end', IsIntact, IsLast) when IsIntact, IsLast -> ok;
check(Tag, true, _) when Tag =/= 'end' -> ok;
check(_, _, _) -> {error, corrupt}.

-doc "Where the next frame begins, and the sum it goes on from.".
-spec place(reader()) -> {non_neg_integer(), sum()}.
place(#reader{offset = Offset, sum = Sum}) -> {Offset, Sum}.

-doc "Closes the file.".
-spec close(reader()) -> ok.
close(#reader{fd = Fd}) ->
    _ = file:close(Fd),
    ok.
