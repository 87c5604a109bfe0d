-module(erl_esdb_chunks).
-moduledoc """
A sequence of rows, one an append, in a few bytes each.

A store keeps one row an append for its stream and one for the order of all events, in RAM, for
ever: so they must be small. 128 rows make a chunk, a binary of the differences between
neighbours; every 32nd row stands for itself (a restart point, as in the blocks of LevelDB), so that
one row is found without a look at all those before it. The sequence itself holds the last, open
chunk only; a full one is handed to the caller, who keeps it by its number and gives it back through
a fun. That way the same code runs on the maps of the pure machine and on ETS tables that many
processes read at once.

```
 chunk  =  restarts row, row, ...

 restarts  3 x 16 bits, big-endian: where rows 32, 64 and 96 begin in the chunk, 0: not there yet
 row       head [index] [stream] [version] [position] [parts] epoch
           differences to the row before; of rows 0, 32, 64 and 96 to a row of zeros

 head      varint   (count - 1) * 32 + flags
 index     zigzag   index - index before - 1             flag 1: there, otherwise 0
 stream    zigzag   stream - stream before               flag 2
 version   zigzag   version - (version + count) before   flag 4
 position  zigzag   position - (position + count) before flag 8
 parts     varint   rows of this index - 1               flag 16
 epoch     zigzag   epoch_us - epoch_us before

 varint: 7 bits a byte, the lowest first, the top bit set where more follow; zigzag: 0 -1 1 -2 2 ...
```

A chunk all of whose rows are of no use any more shrinks to its first row, by which it is still
found, and to how far one may go on from it, `{gap, FirstRow, Forward, Back}`. Gaps are joined as a
buddy allocator joins free blocks (Knowlton 1965): two neighbours of 2^n chunks that together begin
at a multiple of 2^(n+1) make one of that size, and its first and last chunk know. So a walk passes
over any number of them in a number of steps that grows with its logarithm, wherever it begins.

Within a stream the version is always as predicted, in the order of all events the position is, so
neither costs a byte there. One append after the other to one stream takes three to five bytes, and
a restart point some twenty.

```erlang
1> {Seq, none} = erl_esdb_chunks:add(Row, erl_esdb_chunks:new()).
2> erl_esdb_chunks:fold(version, 0, forward, fun(R, Acc) -> {next, [R | Acc]} end, [], Seq, Fetch).
```
""".

-export([new/0, add/2, last/1, fold/7, walk/7, since/3, drop_before/4, numbers/1]).
-export([rows/0, holder/5, remove/3]).
-export_type([seq/0, fetch/0, field/0, chunk_no/0, chunk/0]).

-include("erl_esdb_log.hrl").

-compile({inline, [int/1, field/2, signed/1]}).

-define(ROWS, 128).
%% Rows from one restart point to the next, and the bytes that name these points.
-define(SECTION, 32).
-define(RESTARTS, 6).
-define(ZERO, #row{}).
%% Chunks among which bisection is as fast as a guess.
-define(FEW, 8).

-record(seq, {
    %% full chunks: the first that is still kept, and the next one
    first = 0 :: chunk_no(),
    next = 0 :: chunk_no(),
    %% rows in the open chunk, and the chunk
    size = 0 :: 0..?ROWS,
    open = <<>> :: binary(),
    %% the last row of all, kept also when its chunk is full
    last = ?ZERO :: #row{}
}).

-opaque seq() :: #seq{}.
-type chunk_no() :: non_neg_integer().
-doc "Gives a full chunk back by its number.".
-type fetch() :: fun((chunk_no()) -> chunk()).
-doc "Rows, or a gap and how many chunks to go on from it: at least 1, which is itself.".
-type chunk() ::
    binary() | {gap, FirstRow :: binary(), Forward :: pos_integer(), Back :: pos_integer()}.
-doc """
What a sequence is searched by: it rises from row to row. Times do in a stream, where they may also
stay the same.
""".
-type field() :: version | position | epoch.

-doc "No rows.".
-spec new() -> seq().
new() -> #seq{}.

-doc "The last row; a row of zeros where there is none.".
-spec last(seq()) -> #row{}.
last(#seq{last = Last}) -> Last.

-doc "The numbers of the full chunks that are kept: from the first to before the second.".
-spec numbers(seq()) -> {chunk_no(), chunk_no()}.
numbers(#seq{first = First, next = Next}) -> {First, Next}.

-doc "Adds a row at the end. Answers the chunk that it filled, which is the caller's to keep.".
-spec add(#row{}, seq()) -> {seq(), none | {chunk_no(), binary()}}.
add(Row, #seq{size = Size, open = Open, last = Last} = Seq) ->
    Before =
        case Size rem ?SECTION of
            0 -> ?ZERO;
            _ -> Last
        end,
    Chunk = iolist_to_binary([restarted(Size, Open) | encode(Row, Before)]),
    added(Seq#seq{size = Size + 1, open = Chunk, last = Row}).

%% The chunk, which names the row that comes next where that is a restart point.
-spec restarted(0..?ROWS, binary()) -> iodata().
restarted(0, <<>>) ->
    <<0:(8 * ?RESTARTS)>>;
restarted(Size, Open) when Size rem ?SECTION =:= 0 ->
    Before = Size div ?SECTION - 1,
    <<Front:Before/binary-unit:16, 0:16, Rest/binary>> = Open,
    [Front, <<(byte_size(Open)):16>>, Rest];
restarted(_Size, Open) ->
    Open.

-spec added(#seq{}) -> {seq(), none | {chunk_no(), binary()}}.
added(#seq{size = ?ROWS, next = Next, open = Chunk} = Seq) ->
    {Seq#seq{size = 0, open = <<>>, next = Next + 1}, {Next, Chunk}};
added(Seq) ->
    {Seq, none}.

-doc """
Folds over the rows that hold the events from `From` on, forward or backward, until the fun says
stop.

Forward begins with the row that holds `From` or, where there is none, the first after it;
backward with the last row that begins at or before it. The chunk is found by bisection.
""".
-spec fold(field(), integer(), forward | backward, Fun, Acc, seq(), fetch()) -> Acc when
    Fun :: fun((#row{}, Acc) -> {next | stop, Acc}).
fold(Field, From, Direction, Fun, Acc, Seq, Fetch) ->
    {Result, _Passed} = walk(Field, From, Direction, Fun, Acc, Seq, Fetch),
    Result.

-doc "The same, and answers whether it passed over a gap.".
-spec walk(field(), integer(), forward | backward, Fun, Acc, seq(), fetch()) ->
    {Acc, Passed :: boolean()}
when
    Fun :: fun((#row{}, Acc) -> {next | stop, Acc}).
walk(Field, From, Direction, Fun, Acc, Seq, Fetch) ->
    Number = find(Field, From, Seq, Fetch),
    case {Direction, chunk(Number, Seq, Fetch)} of
        {forward, {gap, _, Forward, _}} ->
            Place = {Number + Forward - 1, 0, <<>>},
            forward([], ?ZERO, Place, Fun, {Acc, true}, Seq, Fetch);
        {backward, {gap, _, _, Back}} ->
            backward([], {Number - Back + 1, 0, <<>>}, Fun, {Acc, true}, Seq, Fetch);
        {forward, Chunk} ->
            Section = section_of(Field, From, Chunk),
            {Before, Rest} = skip(Field, From, section(Section, Chunk), ?ZERO),
            forward(Rest, Before, {Number, Section, Chunk}, Fun, {Acc, false}, Seq, Fetch);
        {backward, Chunk} ->
            Section = section_of(Field, From, Chunk),
            Rows = rows_to(Field, From, section(Section, Chunk), ?ZERO, []),
            backward(Rows, {Number, Section, Chunk}, Fun, {Acc, false}, Seq, Fetch)
    end.

-doc "The first row of a stream that is not older than a time.".
-spec since(EpochUs :: integer(), seq(), fetch()) -> #row{} | none.
since(Time, Seq, Fetch) ->
    Look = fun
        (#row{epoch_us = Epoch}, none) when Epoch < Time -> {next, none};
        (Row, none) -> {stop, Row}
    end,
    %% The last chunk that begins before the time: later ones may begin with the time itself.
    fold(epoch, Time - 1, forward, Look, none, Seq, Fetch).

%% A chunk, and how far in it a walk is.
-type place() :: {chunk_no(), section_no(), binary()}.
-type section_no() :: 0..(?ROWS div ?SECTION).

%% Decodes no row more than the fun asks for.
-spec forward([byte()], #row{}, place(), Fun, {Acc, boolean()}, seq(), fetch()) ->
    {Acc, boolean()}
when
    Fun :: fun((#row{}, Acc) -> {next | stop, Acc}).
forward([_ | _] = Bytes, Before, Place, Fun, {Acc, Passed}, Seq, Fetch) ->
    {Row, Rest} = row(Bytes, Before),
    case Fun(Row, Acc) of
        {next, Acc1} -> forward(Rest, Row, Place, Fun, {Acc1, Passed}, Seq, Fetch);
        {stop, Acc1} -> {Acc1, Passed}
    end;
forward([], _Before, {Number, Section, Chunk}, Fun, Sum, Seq, Fetch) ->
    case section(Section + 1, Chunk) of
        [] -> forward_from(Number + 1, Fun, Sum, Seq, Fetch);
        Bytes -> forward(Bytes, ?ZERO, {Number, Section + 1, Chunk}, Fun, Sum, Seq, Fetch)
    end.

-spec forward_from(chunk_no(), Fun, {Acc, boolean()}, seq(), fetch()) -> {Acc, boolean()} when
    Fun :: fun((#row{}, Acc) -> {next | stop, Acc}).
forward_from(Number, Fun, {Acc, _} = Sum, #seq{next = Next} = Seq, Fetch) when Number =< Next ->
    case chunk(Number, Seq, Fetch) of
        {gap, _, Forward, _} -> forward_from(Number + Forward, Fun, {Acc, true}, Seq, Fetch);
        Chunk -> forward(section(0, Chunk), ?ZERO, {Number, 0, Chunk}, Fun, Sum, Seq, Fetch)
    end;
forward_from(_Number, _Fun, Sum, _Seq, _Fetch) ->
    Sum.

-spec backward([#row{}], place(), Fun, {Acc, boolean()}, seq(), fetch()) -> {Acc, boolean()} when
    Fun :: fun((#row{}, Acc) -> {next | stop, Acc}).
backward([Row | Rows], Place, Fun, {Acc, Passed}, Seq, Fetch) ->
    case Fun(Row, Acc) of
        {next, Acc1} -> backward(Rows, Place, Fun, {Acc1, Passed}, Seq, Fetch);
        {stop, Acc1} -> {Acc1, Passed}
    end;
backward([], {Number, 0, _Chunk}, Fun, Sum, Seq, Fetch) ->
    backward_from(Number - 1, Fun, Sum, Seq, Fetch);
backward([], {Number, Section, Chunk}, Fun, Sum, Seq, Fetch) ->
    Rows = lists:reverse(rows(section(Section - 1, Chunk), ?ZERO)),
    backward(Rows, {Number, Section - 1, Chunk}, Fun, Sum, Seq, Fetch).

-spec backward_from(integer(), Fun, {Acc, boolean()}, seq(), fetch()) -> {Acc, boolean()} when
    Fun :: fun((#row{}, Acc) -> {next | stop, Acc}).
backward_from(Number, Fun, {Acc, _} = Sum, #seq{first = First} = Seq, Fetch) when
    Number >= First
->
    case chunk(Number, Seq, Fetch) of
        {gap, _, _, Back} -> backward_from(Number - Back, Fun, {Acc, true}, Seq, Fetch);
        Chunk -> backward([], {Number, ?ROWS div ?SECTION, Chunk}, Fun, Sum, Seq, Fetch)
    end;
backward_from(_Number, _Fun, Sum, _Seq, _Fetch) ->
    Sum.

%% The bytes from the row on that ends after the key, and the row before them.
-spec skip(field(), integer(), [byte()], #row{}) -> {#row{}, [byte()]}.
skip(_Field, _From, [], Before) ->
    {Before, []};
skip(Field, From, Bytes, Before) ->
    {Row, Rest} = row(Bytes, Before),
    case key(Field, Row) + Row#row.count > From of
        true -> {Before, Bytes};
        false -> skip(Field, From, Rest, Row)
    end.

%% The rows that begin at or before the key, the last first.
-spec rows_to(field(), integer(), [byte()], #row{}, [#row{}]) -> [#row{}].
rows_to(_Field, _From, [], _Before, Rows) ->
    Rows;
rows_to(Field, From, Bytes, Before, Rows) ->
    {Row, Rest} = row(Bytes, Before),
    case key(Field, Row) =< From of
        true -> rows_to(Field, From, Rest, Row, [Row | Rows]);
        false -> Rows
    end.

-doc "Lets go of the full chunks whose rows all end before `Key`: `numbers/1` tells of which.".
-spec drop_before(field(), non_neg_integer(), seq(), fetch()) -> seq().
drop_before(Field, Key, Seq, Fetch) ->
    Seq#seq{first = find(Field, Key, Seq, Fetch)}.

-doc "How many rows make a full chunk.".
-spec rows() -> pos_integer().
rows() -> ?ROWS.

-doc """
The chunk that holds the event with this key, and the key from which on events are in later ones.

It is looked for from a chunk on that begins at or before the key, in ever longer steps, so that
near ones are found fast.
""".
-spec holder(field(), non_neg_integer(), From :: chunk_no(), seq(), fetch()) ->
    {chunk_no(), Until :: non_neg_integer() | infinity}.
holder(Field, Key, From, Seq, Fetch) ->
    Number = gallop(Field, Key, From, 1, Seq, Fetch),
    case last_number(Seq) of
        Number -> {Number, infinity};
        _ -> {Number, first_key(Field, chunk(Number + 1, Seq, Fetch))}
    end.

-spec gallop(field(), non_neg_integer(), chunk_no(), pos_integer(), seq(), fetch()) ->
    chunk_no().
gallop(Field, Key, Low, Step, Seq, Fetch) when is_integer(Low), is_integer(Step) ->
    case last_number(Seq) of
        Last when Low + Step > Last ->
            bisect(Field, Key, Low, Last, Seq, Fetch);
        _ ->
            case first_key(Field, chunk(Low + Step, Seq, Fetch)) =< Key of
                true -> gallop(Field, Key, Low + Step, 2 * Step, Seq, Fetch);
                false -> bisect(Field, Key, Low, Low + Step - 1, Seq, Fetch)
            end
    end.

-doc """
Makes a gap of a full chunk: answers the chunks that change with it, to be kept in this order.

Each is right whether the others are there already or not.
""".
-spec remove(chunk_no(), seq(), fetch()) -> [{chunk_no(), chunk()}].
remove(Number, #seq{next = Next} = Seq, Fetch) when Number < Next ->
    Gap = {gap, first_bytes(chunk(Number, Seq, Fetch)), 1, 1},
    join(Number, 1, #{Number => Gap}, Seq, Fetch).

%% A block of `Size` chunks is a gap: it and its buddy are one where the buddy is a gap too.
-spec join(chunk_no(), pos_integer(), #{chunk_no() => chunk()}, seq(), fetch()) ->
    [{chunk_no(), chunk()}].
join(Begin, Size, Changed, #seq{first = First, next = Next} = Seq, Fetch) ->
    Buddy = Begin bxor Size,
    case Buddy >= First andalso Buddy + Size =< Next andalso Fetch(Buddy) of
        {gap, _, Forward, _} when Forward >= Size ->
            Begin1 = min(Begin, Buddy),
            Look = fun(N) -> maps:get(N, Changed, Fetch(N)) end,
            Changed1 = grown(Begin1, 2 * Size, Changed, Look),
            join(Begin1, 2 * Size, Changed1, Seq, Fetch);
        _ ->
            lists:sort(maps:to_list(Changed))
    end.

-spec grown(chunk_no(), pos_integer(), #{chunk_no() => chunk()}, fun((chunk_no()) -> chunk())) ->
    #{chunk_no() => chunk()}.
grown(Begin, Size, Changed, Look) ->
    End = Begin + Size - 1,
    {gap, Bytes1, _, Back} = Look(Begin),
    {gap, Bytes2, Forward, _} = Look(End),
    Changed#{Begin => {gap, Bytes1, Size, Back}, End => {gap, Bytes2, Forward, Size}}.

%% The last chunk that begins at or before the key, the first chunk where none does. The open
%% chunk has the number that it will get.
-spec find(field(), integer(), seq(), fetch()) -> chunk_no().
find(Field, Key, #seq{first = First} = Seq, Fetch) ->
    Last = last_number(Seq),
    case Field =/= epoch andalso Last - First >= ?FEW of
        true -> guess(Field, Key, First, Last, Seq, Fetch);
        false -> bisect(Field, Key, First, Last, Seq, Fetch)
    end.

%% Appends are of about the same size, as a rule: the chunk is near the place that the key has among
%% all keys (interpolation search, Peterson 1957), and where not it is found in steps that double.
-spec guess(field(), integer(), chunk_no(), chunk_no(), seq(), fetch()) -> chunk_no().
guess(Field, Key, Low, High, #seq{last = Last} = Seq, Fetch) ->
    Begin = begin_of(Field, Low, Seq, Fetch),
    All = max(1, key(Field, Last) - Begin),
    Near = min(High, max(Low, Low + (Key - Begin) * (High - Low) div All)),
    case first_key(Field, chunk(Near, Seq, Fetch)) =< Key of
        true -> gallop(Field, Key, Near, 1, Seq, Fetch);
        false -> gallop_back(Field, Key, Near, 1, Seq, Fetch)
    end.

%% As a rule the first chunk begins at 0; for a guess that is good enough.
-spec begin_of(field(), chunk_no(), seq(), fetch()) -> integer().
begin_of(_Field, 0, _Seq, _Fetch) -> 0;
begin_of(Field, Number, Seq, Fetch) -> first_key(Field, chunk(Number, Seq, Fetch)).

%% The chunk begins after the key.
-spec gallop_back(field(), integer(), chunk_no(), pos_integer(), seq(), fetch()) -> chunk_no().
gallop_back(Field, Key, High, Step, #seq{first = First} = Seq, Fetch) when High - Step =< First ->
    bisect(Field, Key, First, max(First, High - 1), Seq, Fetch);
gallop_back(Field, Key, High, Step, Seq, Fetch) ->
    Low = High - Step,
    case first_key(Field, chunk(Low, Seq, Fetch)) =< Key of
        true -> bisect(Field, Key, Low, High - 1, Seq, Fetch);
        false -> gallop_back(Field, Key, Low, 2 * Step, Seq, Fetch)
    end.

-spec last_number(seq()) -> chunk_no().
last_number(#seq{first = First, next = Next, size = 0}) -> max(First, Next - 1);
last_number(#seq{next = Next}) -> Next.

-spec bisect(field(), integer(), chunk_no(), chunk_no(), seq(), fetch()) -> chunk_no().
bisect(_Field, _Key, Low, Low, _Seq, _Fetch) ->
    Low;
bisect(Field, Key, Low, High, Seq, Fetch) ->
    Middle = (Low + High + 1) div 2,
    case first_key(Field, chunk(Middle, Seq, Fetch)) =< Key of
        true -> bisect(Field, Key, Middle, High, Seq, Fetch);
        false -> bisect(Field, Key, Low, Middle - 1, Seq, Fetch)
    end.

-spec key(field(), #row{}) -> integer().
key(version, #row{version = Version}) -> Version;
key(position, #row{position = Position}) -> Position;
key(epoch, #row{epoch_us = Epoch}) -> Epoch.

-spec chunk(chunk_no(), seq(), fetch()) -> chunk().
chunk(Next, #seq{next = Next, open = Open}, _Fetch) -> Open;
chunk(Number, _Seq, Fetch) -> Fetch(Number).

%% ---- the bytes of a row

-spec encode(#row{}, Before :: #row{}) -> iolist().
encode(Row, Before) ->
    #row{index = I0, count = C0, stream = S0, version = V0, position = P0, epoch_us = E0} = Before,
    #row{index = I, count = C, stream = S, version = V, position = P, epoch_us = E} = Row,
    Parts = Row#row.parts - 1,
    Index = I - I0 - 1,
    Stream = S - S0,
    Version = V - V0 - C0,
    Position = P - P0 - C0,
    Places = flag(Index, 1) + flag(Stream, 2) + flag(Version, 4) + flag(Position, 8),
    [
        varint((C - 1) bsl 5 bor (Places + flag(Parts, 16))),
        [zigzag(Index) || Index =/= 0],
        [zigzag(Stream) || Stream =/= 0],
        [zigzag(Version) || Version =/= 0],
        [zigzag(Position) || Position =/= 0],
        [varint(Parts) || Parts =/= 0],
        zigzag(E - E0)
    ].

-spec flag(integer(), Bit) -> 0 | Bit when Bit :: 1 | 2 | 4 | 8 | 16.
flag(0, _) -> 0;
flag(_, Bit) -> Bit.

-spec zigzag(integer()) -> iolist().
zigzag(N) when N >= 0 -> varint(N bsl 1);
zigzag(N) -> varint((-N bsl 1) - 1).

-spec varint(non_neg_integer()) -> iolist().
varint(N) when N < 128 -> [N];
varint(N) -> [N band 127 bor 128 | varint(N bsr 7)].

-spec first_key(field(), chunk()) -> integer().
first_key(Field, {gap, Bytes, _, _}) -> key_at(Field, 0, Bytes);
first_key(Field, Chunk) -> key_at(Field, ?RESTARTS, Chunk).

%% A field of a row that stands for itself, without the others: the integers before it are passed
%% over. Each flag in the first byte says that there is one.
-spec key_at(field(), non_neg_integer(), binary()) -> integer().
key_at(Field, Begin, Chunk) ->
    <<_:Begin/binary, _:3, F16:1, F8:1, F4:1, F2:1, F1:1, _/binary>> = Chunk,
    <<_:Begin/binary, Row/binary>> = Chunk,
    case Field of
        version when F4 =:= 0 -> 0;
        version -> signed(nth_int(1 + F1 + F2, Row));
        position when F8 =:= 0 -> 0;
        position -> signed(nth_int(1 + F1 + F2 + F4, Row));
        epoch -> signed(nth_int(1 + F1 + F2 + F4 + F8 + F16, Row))
    end.

-spec nth_int(non_neg_integer(), binary()) -> non_neg_integer().
nth_int(0, <<0:1, Low:7, _/binary>>) -> Low;
nth_int(0, <<1:1, Low:7, Rest/binary>>) -> int_of(Rest, Low, 7);
nth_int(Left, <<0:1, _:7, Rest/binary>>) -> nth_int(Left - 1, Rest);
nth_int(Left, <<1:1, _:7, Rest/binary>>) -> nth_int(Left, Rest).

-spec int_of(binary(), non_neg_integer(), pos_integer()) -> non_neg_integer().
int_of(<<0:1, Bits:7, _/binary>>, Acc, Shift) -> Bits bsl Shift bor Acc;
int_of(<<1:1, Bits:7, Rest/binary>>, Acc, Shift) -> int_of(Rest, Bits bsl Shift bor Acc, Shift + 7).

%% The last section that begins at or before the key, the first where none does.
-spec section_of(field(), integer(), binary()) -> 0..(?ROWS div ?SECTION - 1).
section_of(Field, Key, Chunk) -> section_of(Field, Key, Chunk, 0, ?ROWS div ?SECTION - 1).

-spec section_of(field(), integer(), binary(), Section, Section) -> Section when
    Section :: 0..(?ROWS div ?SECTION - 1).
section_of(_Field, _Key, _Chunk, Low, Low) ->
    Low;
section_of(Field, Key, Chunk, Low, High) ->
    Middle = (Low + High + 1) div 2,
    Begin = restart(Middle, Chunk),
    case Begin =/= 0 andalso key_at(Field, Begin, Chunk) =< Key of
        true -> section_of(Field, Key, Chunk, Middle, High);
        false -> section_of(Field, Key, Chunk, Low, Middle - 1)
    end.

%% The bytes of the rows from one restart point to the next. By way of a list: taking bytes off a
%% binary one by one and handing on the rest makes a sub-binary each time, which costs five times as
%% much.
-spec section(section_no(), binary()) -> [byte()].
section(Section, Chunk) ->
    case {restart(Section, Chunk), restart(Section + 1, Chunk)} of
        {0, _} -> [];
        {Begin, 0} -> binary_to_list(binary_part(Chunk, Begin, byte_size(Chunk) - Begin));
        {Begin, End} -> binary_to_list(binary_part(Chunk, Begin, End - Begin))
    end.

%% Where a section begins; 0 where there is none.
-spec restart(section_no() | ?ROWS div ?SECTION + 1, binary()) -> non_neg_integer().
restart(_Section, <<>>) ->
    0;
restart(0, _Chunk) ->
    ?RESTARTS;
restart(Section, Chunk) when Section < ?ROWS div ?SECTION ->
    binary:decode_unsigned(binary_part(Chunk, 2 * Section - 2, 2));
restart(_Section, _Chunk) ->
    0.

%% Encoded again: a part of the chunk would keep all of it.
-spec first_bytes(binary()) -> binary().
first_bytes(Chunk) ->
    {Row, _} = row(section(0, Chunk), ?ZERO),
    iolist_to_binary(encode(Row, ?ZERO)).

-spec rows([byte()], Before :: #row{}) -> [#row{}].
rows([], _Before) ->
    [];
rows(Bytes, Before) ->
    {Row, Rest} = row(Bytes, Before),
    [Row | rows(Rest, Row)].

-spec row([byte(), ...], Before :: #row{}) -> {#row{}, [byte()]}.
row(Bytes, #row{index = I, count = C, stream = S, version = V, position = P, epoch_us = E}) ->
    {Head, Bytes0} = int(Bytes),
    {Index, Bytes1} = field(Head band 1, Bytes0),
    {Stream, Bytes2} = field(Head band 2, Bytes1),
    {Version, Bytes3} = field(Head band 4, Bytes2),
    {Position, Bytes4} = field(Head band 8, Bytes3),
    {Parts, Bytes5} = field(Head band 16, Bytes4),
    {Epoch, Rest} = int(Bytes5),
    Row = #row{
        index = I + signed(Index) + 1,
        count = (Head bsr 5) + 1,
        stream = S + signed(Stream),
        version = V + C + signed(Version),
        position = P + C + signed(Position),
        epoch_us = E + signed(Epoch),
        parts = Parts + 1
    },
    {Row, Rest}.

-spec field(0 | 1 | 2 | 4 | 8 | 16, [byte()]) -> {non_neg_integer(), [byte()]}.
field(0, Bytes) -> {0, Bytes};
field(_, Bytes) -> int(Bytes).

-spec signed(non_neg_integer()) -> integer().
signed(N) when N band 1 =:= 0 -> N bsr 1;
signed(N) -> -((N + 1) bsr 1).

-spec int([byte(), ...]) -> {non_neg_integer(), [byte()]}.
int([A | Rest]) when A < 128 -> {A, Rest};
int([A, B | Rest]) when B < 128 -> {B bsl 7 bor (A band 127), Rest};
int([A, B | Rest]) -> int(Rest, (B band 127) bsl 7 bor (A band 127), 14).

-spec int([byte(), ...], non_neg_integer(), pos_integer()) -> {non_neg_integer(), [byte()]}.
int([A | Rest], Acc, Shift) when A < 128 -> {A bsl Shift bor Acc, Rest};
int([A | Rest], Acc, Shift) -> int(Rest, (A band 127) bsl Shift bor Acc, Shift + 7).
