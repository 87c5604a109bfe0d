-module(esdb_file_nif).
-moduledoc """
Reads many ranges of a file at once.

`file:pread/2` goes to a scheduler for input and output and back for each range, 5 to 15 us: more
than it takes to read some hundred bytes that the operating system has in memory. Here one call
reads them all; ranges that lie near each other are read together, and where a disk has to be asked
it is told of all of them first, so that it fetches them at a time and not one after the other.

```erlang
1> {ok, File} = esdb_file_nif:open(code:which(esdb_file_nif)).
2> esdb_file_nif:read(File, [{8, 4}, {0, 4}, {1 bsl 40, 100}]).
{ok,[<<"BEAM">>,<<"FOR1">>,<<>>]}
3> esdb_file_nif:close(File).
ok
```

A file belongs to the process that opened it and is closed with it, or when nothing refers to it any
more. All calls run on schedulers for input and output: none blocks others, however slow the disk.

## Errors

Names of the operating system's errors (`t:file:posix/0`); a folder is `eisdir`, what is neither
file nor folder `einval`, and so is a file that was closed. `not_on_controlling_process`: another
process opened the file. `too_large`: more than 65,536 ranges, or more than 64 MiB, in one call.
Arguments of a wrong shape are `error(badarg)`.
""".

-export([open/1, read/2, close/1]).
-export_type([file/0, range/0, reason/0]).

-nifs([open_d/1, read_d/2, close_d/1]).

%% Of one implementation, like a state of `m:esdb_hash_nif`.
-opaque file() :: reference() | esdb_file_erl:file().
-doc "The offset of the first byte, and how many bytes; the end is before 2^62.".
-type range() :: {Offset :: non_neg_integer(), Length :: non_neg_integer()}.
-type reason() :: file:posix() | not_on_controlling_process | too_large.

%% Ranges of a call, and their bytes together.
-define(RANGES, 65_536).
-define(BYTES, 67_108_864).
-define(END, 16#3FFFFFFFFFFFFFFF).

-include("esdb_nif.hrl").

-doc "Opens a file for reading.".
-spec open(file:filename_all()) -> {ok, file()} | {error, reason()}.
open(Name) -> open_d(name(Name)).

-doc """
The bytes of these ranges, in their order; fewer of a range where the file ends in it, none where it
ends before. They may overlap and come in any order.
""".
-spec read(file(), [range()]) -> {ok, [binary()]} | {error, reason()}.
read(File, Ranges) ->
    case checked(Ranges, 0, 0) of
        ok -> read_d(File, Ranges);
        too_large -> {error, too_large}
    end.

-doc "Closes a file.".
-spec close(file()) -> ok | {error, reason()}.
close(File) -> close_d(File).

%% Arguments

-spec name(file:filename_all() | term()) -> binary().
name(Name) when is_binary(Name) ->
    case binary:match(Name, <<0>>) of
        nomatch -> Name;
        _ -> error(badarg)
    end;
name([_ | _] = Name) ->
    try unicode:characters_to_binary(Name, unicode, file:native_name_encoding()) of
        Encoded when is_binary(Encoded) -> name(Encoded);
        _ -> error(badarg)
    catch
        error:_ -> error(badarg)
    end;
name([]) ->
    <<>>;
name(_) ->
    error(badarg).

-spec checked([range()] | term(), non_neg_integer(), non_neg_integer()) -> ok | too_large.
checked([{Offset, Length} | Ranges], Count, Bytes) when
    is_integer(Offset), Offset >= 0, is_integer(Length), Length >= 0, Offset + Length =< ?END
->
    checked(Ranges, Count + 1, Bytes + Length);
checked([], Count, Bytes) when Count =< ?RANGES, Bytes =< ?BYTES ->
    ok;
checked([], _Count, _Bytes) ->
    too_large;
checked(_, _, _) ->
    error(badarg).

%% Replaced when the library is loaded

-spec open_d(binary()) -> {ok, file()} | {error, reason()}.
open_d(Name) -> esdb_file_erl:open(Name).

-spec read_d(file(), [range()]) -> {ok, [binary()]} | {error, reason()}.
read_d(File, Ranges) -> esdb_file_erl:read(File, Ranges).

-spec close_d(file()) -> ok | {error, reason()}.
close_d(File) -> esdb_file_erl:close(File).
