-module(erl_esdb_ra_wal).
-moduledoc """
Looks through a file of Ra's write-ahead log before Ra does.

Ra takes the first record that is not whole for the end, as a crash leaves it, where nothing or
zeros come behind. So where a length is damaged the records behind it are gone without a word. Here
it is asked whether there are any.

```
 file    "RAWA"  version:8  records                    numbers are big-endian
         then the end of the file, or zeros up to what was allocated

 record  _:1  0:1  writer:22  size:16  uid  body       the first of a writer in the file
         _:1  1:1  writer:22  body
 body    adler32:32  length:32  index:64  term:64  entry
         the checksum is of what comes behind the length; 0 is none
```

What a loss of power leaves is no damage: of the last write, which nobody was told of, each sector
of the disk may be missing, so whole records may stand behind a hole. A hole is a sector of zeros,
or what is left of one from the broken record on; where there is none between that and a whole
record, it was written as a whole.
""".

-export([read/2]).
-export_type([written/0]).

-define(MAGIC, "RAWA").
-define(VERSION, 1).
-define(HEAD, 5).
%% Bytes of the smallest sector of a disk.
-define(SECTOR, 512).
%% What a term in the external format begins with.
-define(TERM, 131).

-doc "The writers of a file, with the highest term of each.".
-type written() :: #{ra:uid() => non_neg_integer()}.
-type writers() :: #{Number :: non_neg_integer() => ra:uid()}.
-type terms() :: #{Number :: non_neg_integer() => non_neg_integer()}.
-type place() :: non_neg_integer().

-doc """
Who has written to a file. `damaged`: what looks like its end is none, for one of these servers has
written behind it. Errors: `unknown_format`, of another version of Ra; or why it cannot be read.
""".
-spec read(file:filename_all(), [ra:uid()]) ->
    {ok, written()} | damaged | {error, unknown_format | file:posix()}.
read(File, Servers) ->
    case file:read_file(File) of
        {ok, <<?MAGIC, ?VERSION, Records/binary>> = Bytes} ->
            {Last, End, Writers, Terms} = walk(Records, ?HEAD, ?HEAD, Servers, #{}, #{}),
            case is_followed(Bytes, broken(Bytes, Last, End), Writers, Servers) of
                true -> damaged;
                false -> {ok, written(Writers, Terms)}
            end;
        {ok, _} ->
            {error, unknown_format};
        {error, Reason} ->
            {error, Reason}
    end.

-spec written(writers(), terms()) -> written().
written(Writers, Terms) ->
    maps:from_list([{Uid, map_get(Number, Terms)} || Number := Uid <- Writers]).

%% From length to length, about as fast as the file is read: where the last record begins, and what
%% is no record any more. Which server a number is for is looked at more closely.
-spec walk(binary(), place(), place(), [ra:uid()], writers(), terms()) ->
    {Last :: place(), End :: place(), writers(), terms()}.
walk(Bytes, At, Last, Servers, Writers, Terms) ->
    case Bytes of
        <<_:1, 1:1, Number:22, _:32, Length:32, _:64, Term:64, _:Length/binary, Rest/binary>> when
            is_map_key(Number, Terms)
        ->
            Next = At + 27 + Length,
            walk(Rest, Next, At, Servers, Writers, highest(Number, Term, Terms));
        <<_:1, 0:1, Number:22, Size:16, Uid:Size/binary, Crc:32, Length:32,
            Body:(16 + Length)/binary, Rest/binary>> when
            Length > 0, Number =:= map_size(Writers)
        ->
            case checked(Crc, Body) =/= damaged andalso not is_near(Uid, Servers) of
                true ->
                    <<_:64, Term:64, _/binary>> = Body,
                    Named = Writers#{Number => Uid},
                    walk(Rest, At + 29 + Size + Length, At, Servers, Named, Terms#{Number => Term});
                false ->
                    {Last, At, Writers, Terms}
            end;
        _ ->
            {Last, At, Writers, Terms}
    end.

-spec highest(non_neg_integer(), non_neg_integer(), terms()) -> terms().
highest(Number, Term, Terms) ->
    case Terms of
        #{Number := Before} when Before >= Term -> Terms;
        #{} -> Terms#{Number => Term}
    end.

%% Whether it is the name of a server but for a byte or two, which no checksum covers: twelve of
%% them are random.
-spec is_near(binary(), [ra:uid()]) -> boolean().
is_near(Uid, Servers) ->
    not lists:member(Uid, Servers) andalso
        lists:any(fun(Server) -> differing(Uid, Server, 0) =< 2 end, Servers).

-spec differing(binary(), binary(), non_neg_integer()) -> non_neg_integer() | infinity.
differing(<<A, As/binary>>, <<B, Bs/binary>>, Count) when A =:= B -> differing(As, Bs, Count);
differing(<<_, As/binary>>, <<_, Bs/binary>>, Count) -> differing(As, Bs, Count + 1);
differing(<<>>, <<>>, Count) -> Count;
differing(_, _, _) -> infinity.

%% Ra compares each record with its checksum. Here it is done with the last: a wrong length has made
%% it the last one.
-spec broken(binary(), place(), place()) -> place() | none.
broken(Bytes, Last, End) ->
    case Last < End andalso record(Bytes, Last) of
        damaged ->
            Last;
        _ ->
            case Bytes of
                <<_:End/binary>> -> none;
                <<_:End/binary, 0:104, _/binary>> -> none;
                _ -> End
            end
    end.

%% Whether a record of these servers stands behind one that is broken, and no hole between.
-spec is_followed(binary(), place() | none, writers(), [ra:uid()]) -> boolean().
is_followed(_Bytes, Broken, _Writers, Servers) when Broken =:= none; Servers =:= [] ->
    false;
is_followed(Bytes, Broken, Writers, Servers) ->
    case hole(Bytes, Broken) of
        Broken ->
            false;
        Hole ->
            Patterns = binary:compile_pattern(heads(Writers, Servers)),
            is_found(Bytes, Broken + 1, Hole, Patterns)
    end.

%% Where the first hole begins from here on, or the file ends.
-spec hole(binary(), place()) -> place().
hole(Bytes, From) ->
    Left = 8 * (?SECTOR - From rem ?SECTOR),
    case Bytes of
        <<_:From/binary, 0:Left, _/binary>> ->
            From;
        _ ->
            Behind = {From, byte_size(Bytes) - From},
            case binary:match(Bytes, <<0:(8 * ?SECTOR)>>, [{scope, Behind}]) of
                {Hole, _} -> Hole;
                nomatch -> byte_size(Bytes)
            end
    end.

%% What records of these servers begin with. The broken one may have named a writer that is not
%% known therefore: it had the next number.
-spec heads(writers(), [ra:uid()]) -> [binary()].
heads(Writers, Servers) ->
    Known = [Number || Number := Uid <- Writers, lists:member(Uid, Servers)],
    [
        <<Truncates:1, 1:1, Number:22>>
     || Number <- [map_size(Writers) | Known], Truncates <- [0, 1]
    ] ++ [<<(byte_size(Uid)):16, Uid/binary>> || Uid <- Servers].

-spec is_found(binary(), place(), place(), binary:cp()) -> boolean().
is_found(Bytes, From, Limit, Patterns) when From < Limit ->
    case binary:match(Bytes, Patterns, [{scope, {From, Limit - From}}]) of
        {At, Length} ->
            record(Bytes, head(At, Length)) =:= whole orelse
                is_found(Bytes, At + 1, Limit, Patterns);
        nomatch ->
            false
    end;
is_found(_Bytes, _From, _Limit, _Patterns) ->
    false.

%% That of a writer is behind the first three bytes.
-spec head(place(), pos_integer()) -> place().
head(At, 3) -> At;
head(At, _) -> At - 3.

%% What begins here.
-spec record(binary(), place()) -> whole | unchecked | damaged.
record(Bytes, At) ->
    case Bytes of
        <<_:At/binary, _:1, 1:1, _:22, Crc:32, Length:32, Body:(16 + Length)/binary, _/binary>> ->
            checked(Crc, Body);
        <<_:At/binary, _:1, 0:1, _:22, Size:16, _:Size/binary, Crc:32, Length:32,
            Body:(16 + Length)/binary, _/binary>> ->
            checked(Crc, Body);
        _ ->
            damaged
    end.

-spec checked(non_neg_integer(), binary()) -> whole | unchecked | damaged.
checked(0, _Body) ->
    unchecked;
checked(Crc, <<_:128, ?TERM, _/binary>> = Body) ->
    case erlang:adler32(Body) of
        Crc -> whole;
        _ -> damaged
    end;
checked(_Crc, _Body) ->
    damaged.
