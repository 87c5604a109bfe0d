-module(esdb_demo_ndjson).
-moduledoc """
Events from a file of newline-delimited JSON, plain or gzipped (told by its first bytes, not its
name).

The file is read in chunks and never held as a whole. A line that is no event is passed on as a
problem with its line number; a file that cannot be read to its end is an error.

```erlang
1> esdb_demo_ndjson:fold("events.ndjson.gz",
       fun({event, _Line, _Event}, N) -> N + 1; (_, N) -> N end, 0).
{ok,36053}
```
""".

-export([fold/3]).

-define(CHUNK, 65_536).
%% A commit that touches ten thousand top-level folders has a line of about 600 kB.
-define(MAX_LINE, 4_194_304).
-define(GZIP, 16#1F, 16#8B).
%% zlib's window bits for a gzip header.
-define(GZIP_BITS, 31).

-record(reader, {
    path :: file:filename_all(),
    file :: file:io_device(),
    size :: non_neg_integer(),
    %% Bytes of the file that were read, compressed or not.
    done = 0 :: non_neg_integer(),
    line = 1 :: pos_integer(),
    pieces = esdb_demo_pieces:new($\n, ?MAX_LINE) :: esdb_demo_pieces:pieces(),
    handler :: fun((esdb_demo_source:item(), term()) -> term())
}).

-doc """
Folds over the lines of a file, in order; see `t:esdb_demo_source:item/0` for what the function
gets.

## Errors
One sentence for people: the file cannot be opened or read, or its gzip data is broken.
""".
-spec fold(file:filename_all(), fun((esdb_demo_source:item(), Acc) -> Acc), Acc) ->
    {ok, Acc} | {error, Sentence :: binary()}.
fold(Path, Handler, Acc) ->
    case file:open(Path, [read, raw, binary]) of
        {ok, File} ->
            Reader = #reader{path = Path, file = File, size = file_size(File), handler = Handler},
            try
                start(Reader, Acc)
            catch
                throw:{?MODULE, Sentence} -> {error, Sentence}
            after
                ok = file:close(File)
            end;
        {error, Reason} ->
            {error, cannot_read(Path, Reason)}
    end.

%% A pipe has no size; then there is no progress to show.
-spec file_size(file:io_device()) -> non_neg_integer().
file_size(File) ->
    case file:position(File, eof) of
        {ok, Size} ->
            {ok, 0} = file:position(File, bof),
            Size;
        {error, _} ->
            0
    end.

-spec start(#reader{}, Acc) -> {ok, Acc}.
start(Reader, Acc) ->
    case read(Reader) of
        {<<?GZIP, _/binary>> = Chunk, Next} -> gunzipped(Chunk, Next, Acc);
        {<<16#EF, 16#BB, 16#BF, Chunk/binary>>, Next} -> plain({Chunk, Next}, Acc);
        {Chunk, Next} -> plain({Chunk, Next}, Acc);
        eof -> {ok, Acc}
    end.

-spec plain({binary(), #reader{}} | eof, Acc) -> {ok, Acc}.
plain({Chunk, Reader}, Acc) ->
    {Next, Acc1} = lines(Chunk, Reader, Acc),
    case read(Next) of
        eof -> {ok, last_line(Next, Acc1)};
        More -> plain(More, Acc1)
    end.

-spec gunzipped(binary(), #reader{}, Acc) -> {ok, Acc}.
gunzipped(Chunk, Reader, Acc) ->
    Z = zlib:open(),
    %% `reset`: a file may be several gzip members one after the other.
    ok = zlib:inflateInit(Z, ?GZIP_BITS, reset),
    try
        {Last, Acc1} = inflate_all(Z, Chunk, Reader, Acc),
        %% Raises data_error when the last member is not complete.
        ok = zlib:inflateEnd(Z),
        {ok, last_line(Last, Acc1)}
    catch
        error:data_error -> fail(Reader, ~"its gzip data is broken or cut off")
    after
        zlib:close(Z)
    end.

-spec inflate_all(zlib:zstream(), binary(), #reader{}, Acc) -> {#reader{}, Acc}.
inflate_all(Z, Chunk, Reader, Acc) ->
    {Next, Acc1} = inflate(zlib:safeInflate(Z, Chunk), Z, Reader, Acc),
    case read(Next) of
        eof -> {Next, Acc1};
        {More, Read} -> inflate_all(Z, More, Read, Acc1)
    end.

%% safeInflate/2 hands out bounded pieces, so that a small file cannot fill the memory.
-spec inflate({continue | finished, iodata()}, zlib:zstream(), #reader{}, Acc) -> {#reader{}, Acc}.
inflate({continue, Output}, Z, Reader, Acc) ->
    {Next, Acc1} = lines(iolist_to_binary(Output), Reader, Acc),
    inflate(zlib:safeInflate(Z, []), Z, Next, Acc1);
inflate({finished, Output}, _, Reader, Acc) ->
    lines(iolist_to_binary(Output), Reader, Acc).

-spec read(#reader{}) -> {binary(), #reader{}} | eof.
read(#reader{file = File, done = Done} = Reader) ->
    case file:read(File, ?CHUNK) of
        {ok, Chunk} -> {Chunk, Reader#reader{done = Done + byte_size(Chunk)}};
        eof -> eof;
        {error, Reason} -> fail(Reader, file:format_error(Reason))
    end.

-spec lines(binary(), #reader{}, Acc) -> {#reader{}, Acc}.
lines(Chunk, #reader{pieces = Pieces, handler = Handler} = Reader, Acc) ->
    {Lines, More} = esdb_demo_pieces:feed(Chunk, Pieces),
    {Next, Acc1} = lists:foldl(fun line/2, {Reader#reader{pieces = More}, Acc}, Lines),
    {Next, Handler({progress, progress(Next)}, Acc1)}.

-spec last_line(#reader{}, Acc) -> Acc.
last_line(#reader{pieces = Pieces} = Reader, Acc) ->
    {_, Acc1} = lists:foldl(fun line/2, {Reader, Acc}, esdb_demo_pieces:rest(Pieces)),
    Acc1.

-spec line(esdb_demo_pieces:piece(), {#reader{}, Acc}) -> {#reader{}, Acc}.
line(Piece, {#reader{line = Number, handler = Handler} = Reader, Acc}) ->
    Next = Reader#reader{line = Number + 1},
    case item(Piece) of
        blank -> {Next, Acc};
        {ok, Event} -> {Next, Handler({event, Number, Event}, Acc)};
        {error, Why} -> {Next, Handler({problem, Number, Why}, Acc)}
    end.

-spec item(esdb_demo_pieces:piece()) ->
    blank | {ok, esdb_demo_event:commit()} | {error, binary()}.
item(too_long) -> {error, ~"longer than 4 MiB"};
item(<<>>) -> blank;
item(~"\r") -> blank;
item(Line) -> esdb_demo_event:parse(Line).

-spec progress(#reader{}) -> float() | unknown.
progress(#reader{size = 0}) -> unknown;
progress(#reader{size = Size, done = Done}) -> min(1.0, Done / Size).

-spec fail(#reader{}, unicode:chardata()) -> no_return().
fail(#reader{path = Path}, Why) ->
    throw({?MODULE, cannot_read(Path, Why)}).

-spec cannot_read(file:filename_all(), atom() | unicode:chardata()) -> binary().
cannot_read(Path, Reason) when is_atom(Reason) -> cannot_read(Path, file:format_error(Reason));
cannot_read(Path, Why) -> esdb_demo_text:binary(["cannot read ", Path, ": ", Why]).
