-module(erl_esdb_runs).
-moduledoc """
Where keys occur in the log, in 14 bytes an occurrence: sorted runs that grow by merging. Pure.

A log-structured merge tree (O'Neil et al. 1996) without levels on disk. What is added becomes a
run, an immutable binary of sorted entries. A run is joined with the newer ones once they are half
its size: so their number, and how often an entry is copied, grow with the logarithm of the number
of entries. Each run covers a stretch of the log of its own, so entries of the same key are in the
order of positions from run to run, and a search that needs only the first few never opens the rest.

```
   bytes
 +------------------------+------------------------+
 | hash of the key     7  | position            7  |   an entry: big-endian, sorted as it stands
 +------------------------+------------------------+
```

Hashes are spread evenly, so their upper bits say nearly where in a run they are: a table beside the
entries, 4 bytes for each 64 of them, has where the hashes with the same upper bits begin, and only
between two of its places is searched.

56 bits are what an Erlang integer holds without an allocation. A hash stands for every key that has
it, and a position may have been removed from the log since: whoever finds one looks at the event.

```erlang
1> Entries = [erl_esdb_runs:entry(17, 0), erl_esdb_runs:entry(4, 0), erl_esdb_runs:entry(17, 1)].
2> Runs = erl_esdb_runs:add(Entries, 2, erl_esdb_runs:new()).
3> Cursor = erl_esdb_runs:cursor(17, 0, forward, Runs).
4> {0, Cursor1} = erl_esdb_runs:next(Cursor).
5> {1, _} = erl_esdb_runs:next(Cursor1).
```

Large merges take time, so they are for another process: `due/1` names the runs, `merge/1` joins
them, `replace/2` puts the result in their place. In between, runs are added and read as always.
""".

-export([new/0, entry/2, add/3, next_position/1, size/1, bytes/1, count/1]).
-export([due/1, all/1, merge/1, filter/2, replace/2, stretch/1, sample/2]).
-export([only/1, append/2]).
-export([cursor/4, next/1, seek/2]).
-export([to_iodata/2, from_binary/1]).
-export_type([runs/0, run/0, cursor/0, entry/0, hash/0, position/0, direction/0]).

-compile({no_auto_import, [size/1]}).

-define(ENTRY, 14).
%% Entries that are merged at once, by the process that adds: the work of a few milliseconds.
-define(AT_ONCE, 65_536).
%% Entries to a place of the table of a run, as a power of two: 64.
-define(TO_A_PLACE, 6).
%% The format of `to_iodata/2'.
-define(MAGIC, "EI").
-define(FORMAT, 1).
-define(HEADER, 16).
-define(RUN, 24).
-define(SUM, 8).

-record(run, {
    %% positions from the first to before the second are in it
    from :: position(),
    before :: position(),
    size :: non_neg_integer(),
    entries :: binary(),
    %% of how many upper bits of a hash, and for each of their values 32 bits: the number of the
    %% first entry that is not before it
    bits :: 0..32,
    places :: binary()
}).

-record(runs, {
    %% all positions before this one are in
    next = 0 :: position(),
    %% the runs before this position are being merged elsewhere
    locked = 0 :: position(),
    %% the newest first
    list = [] :: [#run{}]
}).

-record(cursor, {
    hash :: hash(),
    direction :: direction(),
    %% the first position that is meant, or backward the last
    from :: position(),
    %% what is left of the entries of the run that is open
    slice = <<>> :: binary(),
    %% the runs that come after it
    runs :: [#run{}]
}).

-opaque runs() :: #runs{}.
-opaque run() :: #run{}.
-opaque cursor() :: #cursor{}.
-doc "As it stands in a run: see above.".
-type entry() :: <<_:112>>.
-type hash() :: 0..16#FFFFFFFFFFFFFF.
-type position() :: 0..16#FFFFFFFFFFFFFF.
-type direction() :: forward | backward.

-doc "Nothing is in yet.".
-spec new() -> runs().
new() -> #runs{}.

-doc "The position after all that is in.".
-spec next_position(runs()) -> position().
next_position(#runs{next = Next}) -> Next.

-doc "How many entries there are.".
-spec size(runs()) -> non_neg_integer().
size(#runs{list = List}) -> iolist_size([Run#run.entries || Run <- List]) div ?ENTRY.

-doc "How many bytes the runs take.".
-spec bytes(runs()) -> non_neg_integer().
bytes(#runs{list = List}) -> iolist_size([[Run#run.entries, Run#run.places] || Run <- List]).

-doc "How many runs there are.".
-spec count(runs()) -> non_neg_integer().
count(#runs{list = List}) -> length(List).

%% ---- growing

-doc "That a hash occurs at a position.".
-spec entry(hash(), position()) -> entry().
entry(Hash, Position) -> <<Hash:56, Position:56>>.

-doc """
Adds the entries, in any order, of the positions from `next_position/1` to before `Next`.
""".
-spec add(Entries :: iodata(), Next :: position(), runs()) -> runs().
add(Entries, Next, #runs{next = From, list = List} = Runs) when Next >= From ->
    case esdb_runs_nif:sort(Entries, ?ENTRY) of
        <<>> ->
            Runs#runs{next = Next};
        Sorted when Next > From ->
            settle(Runs#runs{next = Next, list = [run(covered(List), Next, Sorted) | List]})
    end.

%% From where on a new run covers the log: in between nothing was found.
-spec covered([#run{}]) -> position().
covered([#run{before = Before} | _]) -> Before;
covered([]) -> 0.

-spec run(position(), position(), esdb_runs_nif:run()) -> #run{}.
run(From, Before, Entries) ->
    Size = byte_size(Entries) div ?ENTRY,
    Bits = bits(Size bsr (?TO_A_PLACE + 1)),
    #run{
        from = From,
        before = Before,
        size = Size,
        entries = Entries,
        bits = Bits,
        %% What is built piece by piece has room to grow: the copy has none.
        places = binary:copy(places(1, Bits, 0, Size, Entries, <<0:32>>))
    }.

%% How many bits a number has.
-spec bits(non_neg_integer()) -> 0..32.
bits(0) -> 0;
bits(N) -> 1 + bits(N bsr 1).

%% Each is looked for from the one before it on.
-spec places(pos_integer(), 0..32, non_neg_integer(), non_neg_integer(), binary(), binary()) ->
    binary().
places(Nth, Bits, _Low, _Size, _Entries, Places) when Nth =:= 1 bsl Bits ->
    Places;
places(Nth, Bits, Low, Size, Entries, Places) ->
    Place = gallop({Nth bsl (56 - Bits), 0}, Entries, Low, 32, Size),
    places(Nth + 1, Bits, Place, Size, Entries, <<Places/binary, Place:32>>).

-spec settle(#runs{}) -> #runs{}.
settle(#runs{list = List, locked = Locked} = Runs) ->
    case group(List, ?AT_ONCE, Locked) of
        {[_], _} -> Runs;
        {Group, Older} -> Runs#runs{list = [merge(Group) | Older]}
    end.

%% The newest runs that are to become one, the oldest first: each is less than twice as large as
%% those after it together.
-spec group([#run{}, ...], pos_integer() | infinity, position()) -> {[#run{}, ...], [#run{}]}.
group([Newest | Older], Max, Locked) -> group(Older, Newest#run.size, [Newest], Max, Locked).

-spec group([#run{}], pos_integer(), [#run{}, ...], pos_integer() | infinity, position()) ->
    {[#run{}, ...], [#run{}]}.
group([#run{size = Size, before = Before} = Run | Older], Sum, Group, Max, Locked) when
    Size < 2 * Sum, Size + Sum =< Max, Before > Locked
->
    group(Older, Size + Sum, [Run | Group], Max, Locked);
group(Older, _Sum, Group, _Max, _Locked) ->
    {Group, Older}.

-doc """
The runs that are to be merged by another process, the oldest first. They stay as they are until
`replace/2`; until then there are no others to be merged.
""".
-spec due(runs()) -> {merge, [run(), ...], runs()} | none.
due(#runs{locked = 0, list = [_ | _] = List} = Runs) ->
    case group(List, infinity, 0) of
        {[_], _} -> none;
        {Group, _} -> lock(Group, Runs)
    end;
due(#runs{}) ->
    none.

-doc "The same with all runs, also where they need not be merged.".
-spec all(runs()) -> {merge, [run(), ...], runs()} | none.
all(#runs{locked = 0, list = [_ | _] = List} = Runs) -> lock(lists:reverse(List), Runs);
all(#runs{}) -> none.

-spec lock([#run{}, ...], #runs{}) -> {merge, [#run{}, ...], #runs{}}.
lock(Group, Runs) ->
    #run{before = Before} = lists:last(Group),
    {merge, Group, Runs#runs{locked = Before}}.

-doc "Puts what was made of the runs of `due/1` in their place.".
-spec replace(run(), runs()) -> runs().
replace(#run{from = From, before = Before} = Merged, #runs{locked = Before, list = List} = Runs) ->
    Newer = [Run || Run <- List, Run#run.from >= Before],
    Older = [Run || Run <- List, Run#run.before =< From],
    Kept = [Merged || Merged#run.size > 0],
    Runs#runs{locked = 0, list = Newer ++ Kept ++ Older}.

-doc "One run of several that follow each other, the oldest first.".
-spec merge([run(), ...]) -> run().
merge([Run]) ->
    Run;
merge(Runs) ->
    {From, Before} = stretch(Runs),
    run(From, Before, esdb_runs_nif:merge([Entries || #run{entries = Entries} <- Runs], ?ENTRY)).

-doc "The run without the entries whose positions the fun denies.".
-spec filter(fun((position()) -> boolean()), run()) -> run().
filter(Keep, #run{from = From, before = Before, entries = Entries}) ->
    Kept = <<
        <<Hash:56, Position:56>>
     || <<Hash:56, Position:56>> <= Entries, Keep(Position)
    >>,
    run(From, Before, binary:copy(Kept)).

-doc "The positions that runs which follow each other cover: from the first to before the second.".
-spec stretch([run(), ...]) -> {position(), position()}.
stretch([#run{from = From} | _] = Runs) -> {From, (lists:last(Runs))#run.before}.

-doc "The run alone, as if nothing had come before it.".
-spec only(run()) -> runs().
only(#run{before = Before} = Run) -> #runs{next = Before, list = [Run]}.

-doc "The runs that go on where the others end, and those.".
-spec append(Newer :: runs(), Older :: runs()) -> runs().
append(#runs{next = Next, list = Newer}, #runs{next = From, list = Older} = Runs) when
    Next >= From
->
    Runs#runs{next = Next, list = Newer ++ Older}.

-doc "The positions of about so many entries, from all over the run.".
-spec sample(pos_integer(), run()) -> [position()].
sample(Count, #run{size = Size, entries = Entries}) ->
    Step = max(1, Size div Count),
    [element(2, nth(Nth, Entries)) || Nth <- lists:seq(0, Size - 1, Step)].

%% ---- looking up

-doc "Where a hash occurs, from a position on, upwards or downwards. Nothing is searched yet.".
-spec cursor(hash(), From :: position() | last, direction(), runs()) -> cursor().
cursor(Hash, last, backward, #runs{next = Next} = Runs) ->
    cursor(Hash, max(0, Next - 1), backward, Runs);
cursor(Hash, From, Direction, #runs{list = List}) ->
    #cursor{hash = Hash, direction = Direction, from = From, runs = ordered(Direction, List)}.

-spec ordered(direction(), [#run{}]) -> [#run{}].
ordered(forward, List) -> lists:reverse(List);
ordered(backward, List) -> List.

-doc "The next position, and the cursor after it.".
-spec next(cursor()) -> {position(), cursor()} | none.
next(#cursor{slice = <<>>, runs = []}) ->
    none;
next(#cursor{slice = <<>>, runs = [Run | Runs]} = Cursor) ->
    next(Cursor#cursor{slice = slice(Run, Cursor), runs = Runs});
next(#cursor{direction = forward, slice = Slice} = Cursor) ->
    <<_:56, Position:56, Rest/binary>> = Slice,
    {Position, Cursor#cursor{slice = Rest}};
next(#cursor{direction = backward, slice = Slice} = Cursor) ->
    Size = byte_size(Slice) - ?ENTRY,
    <<Rest:Size/binary, _:56, Position:56>> = Slice,
    {Position, Cursor#cursor{slice = Rest}}.

%% The entries of the hash in a run, on this side of where the cursor begins.
-spec slice(#run{}, #cursor{}) -> binary().
slice(#run{before = Before}, #cursor{direction = forward, from = From}) when Before =< From ->
    <<>>;
slice(#run{from = First}, #cursor{direction = backward, from = From}) when First > From ->
    <<>>;
slice(#run{entries = Entries} = Run, #cursor{hash = Hash} = Cursor) ->
    {Least, Most} = limits(Cursor),
    {First, Last} = between(Hash, Run),
    Low = bisect({Hash, Least}, Entries, First, Last),
    High = gallop({Hash, Most + 1}, Entries, Low, 1, Last),
    part(Entries, Low, High).

%% From the first entry with the same upper bits to before the first with others.
-spec between(hash(), #run{}) -> {non_neg_integer(), non_neg_integer()}.
between(Hash, #run{bits = Bits, places = Places, size = Size}) ->
    Skip = Hash bsr (56 - Bits),
    case Places of
        <<_:Skip/binary-unit:32, First:32, Last:32, _/binary>> -> {First, Last};
        <<_:Skip/binary-unit:32, First:32>> -> {First, Size}
    end.

-spec limits(#cursor{}) -> {position(), position()}.
limits(#cursor{direction = forward, from = From}) -> {From, 16#FFFFFFFFFFFFFF};
limits(#cursor{direction = backward, from = From}) -> {0, From}.

-spec part(binary(), non_neg_integer(), non_neg_integer()) -> binary().
part(Entries, Low, High) -> binary_part(Entries, Low * ?ENTRY, (High - Low) * ?ENTRY).

-doc "Moves a cursor on to a position: what lies before it (backward: after it) is passed over.".
-spec seek(position(), cursor()) -> cursor().
seek(Position, #cursor{hash = Hash, direction = forward, slice = Slice} = Cursor) ->
    Size = byte_size(Slice) div ?ENTRY,
    Low = gallop({Hash, Position}, Slice, 0, 1, Size),
    Cursor#cursor{from = Position, slice = part(Slice, Low, Size)};
seek(Position, #cursor{hash = Hash, direction = backward, slice = Slice} = Cursor) ->
    High = bisect({Hash, Position + 1}, Slice, 0, byte_size(Slice) div ?ENTRY),
    Cursor#cursor{from = Position, slice = part(Slice, 0, High)}.

%% The first index from `Low' on whose entry is not less, looked for in ever longer steps: a key has
%% few entries as a rule.
-spec gallop(Least, binary(), non_neg_integer(), pos_integer(), non_neg_integer()) ->
    non_neg_integer()
when
    Least :: {hash(), position()}.
gallop(Least, Entries, Low, Step, Size) when Low + Step =< Size ->
    case nth(Low + Step - 1, Entries) < Least of
        true -> gallop(Least, Entries, Low + Step, 2 * Step, Size);
        false -> bisect(Least, Entries, Low, Low + Step - 1)
    end;
gallop(Least, Entries, Low, _Step, Size) ->
    bisect(Least, Entries, Low, Size).

%% The first index from `Low' to `High' whose entry is not less.
-spec bisect(Least, binary(), non_neg_integer(), non_neg_integer()) -> non_neg_integer() when
    Least :: {hash(), position()}.
bisect(_Least, _Entries, Low, High) when Low >= High ->
    Low;
bisect({LeastHash, LeastPosition} = Least, Entries, Low, High) ->
    Middle = (Low + High) bsr 1,
    case nth(Middle, Entries) of
        {Hash, Position} when
            Hash < LeastHash; Hash =:= LeastHash, Position < LeastPosition
        ->
            bisect(Least, Entries, Middle + 1, High);
        _ ->
            bisect(Least, Entries, Low, Middle)
    end.

-compile({inline, [nth/2]}).
-spec nth(non_neg_integer(), binary()) -> {hash(), position()}.
nth(Nth, Entries) ->
    Skip = Nth * ?ENTRY,
    <<_:Skip/binary, Hash:56, Position:56, _/binary>> = Entries,
    {Hash, Position}.

%% ---- to keep and to bring back

-doc """
All runs in one piece, for a file; `Label` is a number of the caller's, which comes back with them.

```
   bytes
 +---------+---------+---------------+--------------------+---------------------+
 | "EI"  2 | 1     1 | label       1 | number of runs   4 | next position     8 |
 +---------+---------+---------------+--------------------+---------------------+
 | a run, the oldest first: from 8, before 8, number of entries 8               |  ...
 +------------------------------------------------------------------------------+
 | entries of the runs ...                                                      |
 +------------------------------------------------------------------------------+
 | XXH3-64 of all before                                                      8 |
 +------------------------------------------------------------------------------+
```
""".
-spec to_iodata(Label :: byte(), runs()) -> iolist().
to_iodata(Label, #runs{next = Next, list = List}) ->
    Runs = lists:reverse(List),
    Header = <<?MAGIC, ?FORMAT, Label, (length(Runs)):32, Next:64>>,
    Table = [<<F:64, B:64, S:64>> || #run{from = F, before = B, size = S} <- Runs],
    All = [Header, Table | [Run#run.entries || Run <- Runs]],
    [All, <<(sum(All)):64>>].

-spec sum(iolist()) -> esdb_hash_nif:hash().
sum(Pieces) ->
    Add = fun(Piece, State) -> esdb_hash_nif:update(State, Piece) end,
    esdb_hash_nif:digest(lists:foldl(Add, esdb_hash_nif:new(), lists:flatten(Pieces))).

-doc "The runs of `to_iodata/2`, and its label; `corrupt` for anything else.".
-spec from_binary(binary()) -> {ok, Label :: byte(), runs()} | {error, corrupt}.
from_binary(Bin) when byte_size(Bin) >= ?HEADER + ?SUM ->
    Size = byte_size(Bin) - ?SUM,
    <<Front:Size/binary, Sum:64>> = Bin,
    case {esdb_hash_nif:xxhash3(Front), Front} of
        {Sum, <<?MAGIC, ?FORMAT, Label, Count:32, Next:64, Rest/binary>>} ->
            restored(Label, Count, Next, Rest);
        _ ->
            {error, corrupt}
    end;
from_binary(Bin) when is_binary(Bin) ->
    {error, corrupt}.

-spec restored(byte(), non_neg_integer(), position(), binary()) ->
    {ok, byte(), #runs{}} | {error, corrupt}.
restored(Label, Count, Next, Rest) when Count * ?RUN =< byte_size(Rest) ->
    {Table, Entries} = split_binary(Rest, Count * ?RUN),
    Places = [{From, Before, Size} || <<From:64, Before:64, Size:64>> <= Table],
    case restored_runs(Places, 0, Next, Entries, []) of
        {ok, List} -> {ok, Label, #runs{next = Next, list = List}};
        error -> {error, corrupt}
    end;
restored(_Label, _Count, _Next, _Rest) ->
    {error, corrupt}.

-spec restored_runs([{position(), position(), pos_integer()}], From, Next, binary(), Runs) ->
    {ok, Runs} | error
when
    From :: position(), Next :: position(), Runs :: [#run{}].
restored_runs([{From, Before, Size} | Places], Least, Next, Entries, Runs) when
    From >= Least, From < Before, Before =< Next, Size * ?ENTRY =< byte_size(Entries), Size > 0
->
    {Own, Rest} = split_binary(Entries, Size * ?ENTRY),
    restored_runs(Places, Before, Next, Rest, [run(From, Before, binary:copy(Own)) | Runs]);
restored_runs([], _Least, _Next, <<>>, Runs) ->
    {ok, Runs};
restored_runs(_Places, _Least, _Next, _Entries, _Runs) ->
    error.
