-module(erl_esdb_lines).
-moduledoc """
The lines of a file, one at a time and with bounded memory, from any place on.

```erlang
1> {ok, Lines} = erl_esdb_lines:open("events.ndjson", 0, 16_777_216).
2> {ok, Line, Lines1} = erl_esdb_lines:next(Lines).
3> Next = erl_esdb_lines:offset(Lines1).
```
""".

-export([open/3, next/1, offset/1, close/1]).
-export_type([lines/0]).

-define(BLOCK, 65_536).

-record(lines, {
    fd :: file:fd(),
    max :: pos_integer(),
    %% of the next line
    offset :: non_neg_integer(),
    %% read already
    buffer = <<>> :: binary()
}).
-opaque lines() :: #lines{}.

-doc "Opens a file at an offset where a line begins. It belongs to the process that opens it.".
-spec open(file:filename_all(), Offset :: non_neg_integer(), MaxLine :: pos_integer()) ->
    {ok, lines()} | {error, {read_failed, term()}}.
open(Path, Offset, Max) ->
    maybe
        {ok, Fd} ?= file:open(Path, [read, raw, binary]),
        {ok, Offset} ?= file:position(Fd, Offset),
        {ok, #lines{fd = Fd, max = Max, offset = Offset}}
    else
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-doc """
The next line, without its end (`\\n`, `\\r\\n`). The last line need not have one.

## Errors

- `{line_too_long, Max}`, `{read_failed, Reason}`
""".
-spec next(lines()) ->
    {ok, binary(), lines()} | eof | {error, {line_too_long, pos_integer()} | {read_failed, term()}}.
next(#lines{buffer = Buffer} = Lines) ->
    case binary:match(Buffer, ~"\n") of
        {At, 1} -> taken(At, Lines);
        nomatch -> more(Lines, [Buffer], byte_size(Buffer))
    end.

-spec taken(non_neg_integer(), lines()) ->
    {ok, binary(), lines()} | {error, {line_too_long, pos_integer()}}.
taken(At, #lines{max = Max}) when At > Max ->
    {error, {line_too_long, Max}};
taken(At, #lines{buffer = Buffer, offset = Offset} = Lines) ->
    <<Line:At/binary, $\n, Rest/binary>> = Buffer,
    {ok, chomp(Line), Lines#lines{buffer = Rest, offset = Offset + At + 1}}.

-spec chomp(binary()) -> binary().
chomp(Line) ->
    Size = byte_size(Line) - 1,
    case Line of
        <<Chomped:Size/binary, $\r>> -> Chomped;
        _ -> Line
    end.

%% What was searched is not searched again, nor copied before the line is whole.
-spec more(lines(), [binary()], non_neg_integer()) ->
    {ok, binary(), lines()} | eof | {error, term()}.
more(#lines{max = Max}, _Read, Size) when Size > Max ->
    {error, {line_too_long, Max}};
more(#lines{fd = Fd} = Lines, Read, Size) ->
    case file:read(Fd, ?BLOCK) of
        {ok, Block} -> block(binary:match(Block, ~"\n"), Block, Lines, Read, Size);
        eof when Size =:= 0 -> eof;
        eof -> last(Lines, Read, Size);
        {error, Reason} -> {error, {read_failed, Reason}}
    end.

-spec block({non_neg_integer(), 1} | nomatch, binary(), lines(), [binary()], non_neg_integer()) ->
    {ok, binary(), lines()} | eof | {error, term()}.
block(nomatch, Block, Lines, Read, Size) ->
    more(Lines, [Block | Read], Size + byte_size(Block));
block({At, 1}, Block, Lines, Read, Size) ->
    Buffer = iolist_to_binary(lists:reverse([Block | Read])),
    taken(Size + At, Lines#lines{buffer = Buffer}).

-spec last(lines(), [binary()], pos_integer()) -> {ok, binary(), lines()}.
last(#lines{offset = Offset} = Lines, Read, Size) ->
    Line = iolist_to_binary(lists:reverse(Read)),
    {ok, chomp(Line), Lines#lines{buffer = <<>>, offset = Offset + Size}}.

-doc "Where the next line begins.".
-spec offset(lines()) -> non_neg_integer().
offset(#lines{offset = Offset}) -> Offset.

-doc "Closes the file.".
-spec close(lines()) -> ok.
close(#lines{fd = Fd}) ->
    _ = file:close(Fd),
    ok.
