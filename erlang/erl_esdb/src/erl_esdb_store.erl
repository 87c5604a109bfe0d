-module(erl_esdb_store).
-moduledoc """
Between the API and the engine of a store: checks what comes in, packs it once in the process of the
caller, unpacks what goes out, and names failures.

Every function answers `{error, {store_not_started | timeout | no_quorum | overloaded, Store}}`
where the store cannot be reached, and `error(badarg)` for arguments of a wrong shape. A timeout is
`infinity` or 0 to 4,294,967,295 milliseconds. After `timeout`, and after `store_not_started` where
the store ended during the call, it is not known whether a command was done.
""".

-export([check_append/5, append/5, read/6, read_log/5, read_log_end/3, read_by_types/3]).
-export([info/2, streams/1, next_position/1]).
-export([delete/2, truncate/3]).
-export([put_document/3, get_document/2, delete_document/2, list_documents/3]).
-export([checkpoint/2, save_checkpoints/2]).
-export([is_ready/1, is_timeout/1]).
-export_type([failure/0, count/0, read_options/0, append_options/0]).

-include("erl_esdb.hrl").

%% Events whose places are looked up at a time by a search through the whole log; they are decoded
%% one by one.
-define(PAGE, 1000).
%% Bytes of a stream's name: it is kept in RAM, in a key.
-define(MAX_STREAM_ID, 65_536).
%% Bytes of a document, packed.
-define(MAX_DOCUMENT, 16_777_216).
%% The longest time that `receive` takes.
-define(MAX_TIMEOUT, 16#FFFFFFFF).

-type failure() :: {store_not_started | timeout | no_quorum | overloaded, Store :: atom()}.
-type count() :: non_neg_integer() | infinity.
-type read_options() :: #{
    consistency => linearizable | read_your_writes | local, timeout => timeout(), _ => _
}.
-type append_options() :: #{return => version | result, timeout => timeout(), _ => _}.

-doc "Whether the store can be used.".
-spec is_ready(atom()) -> boolean().
is_ready(Store) ->
    case next_position(Store) of
        {ok, _} -> true;
        {error, _} -> false
    end.

%% ---- streams

-doc "Raises `badarg` where arguments of `append/5` have a wrong shape.".
-spec check_append(term(), term(), term(), term(), term()) -> ok.
check_append(Store, Stream, Expected, Events, Options) ->
    _ = expected(Expected),
    ok = check(is_atom(Store) andalso is_binary(Stream) andalso is_map(Options)),
    _ = timeout(Options, #{timeout => infinity}),
    ok = check(lists:member(maps:get(return, Options, version), [version, result])),
    check(is_proper(Events)).

-doc "See `erl_esdb_streams:append/5`.".
-spec append(atom(), binary(), term(), [new_event() | event()], append_options()) ->
    {ok, append_result()} | {error, term()}.
append(Store, Stream, Expected, Events, Options) ->
    ok = check_append(Store, Stream, Expected, Events, Options),
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store),
        ok ?= limit(stream_id_too_long, byte_size(Stream), ?MAX_STREAM_ID),
        ok ?= limit(too_many_events, length(Events), max_batch_events, Settings),
        {ok, Bodies} ?= erl_esdb_event:bodies(Events),
        {ok, Packed} ?= pack(Bodies, Settings),
        Summary = #{count => length(Bodies), epoch_us => erlang:system_time(microsecond)},
        Command = {append, Stream, expected(Expected), Packed, Summary},
        Timeout = timeout(Options, Settings),
        {ok, {Version, Position, Count}} ?= command(Store, Engine, Handle, Command, Timeout),
        {ok, #append_result{version = Version, position = Position, count = Count}}
    end.

%% Sizes are counted before the first event is encoded: bodies that share a large binary take its
%% size once, encoded they take it once each.
-spec pack([erl_esdb_event:body()], erl_esdb_engine:settings()) ->
    {ok, binary()} | {error, term()}.
pack(Bodies, Settings) ->
    Sizes = [erl_esdb_batch:term_size(Body) || Body <- Bodies],
    maybe
        ok ?= limit(event_too_large, lists:max([0 | Sizes]), max_event_size, Settings),
        ok ?= limit(batch_too_large, lists:sum(Sizes), max_batch_size, Settings),
        {ok, erl_esdb_batch:pack(Bodies)}
    end.

-spec limit(atom(), non_neg_integer(), atom(), erl_esdb_engine:settings()) ->
    ok | {error, {atom(), non_neg_integer(), pos_integer()}}.
limit(Error, Size, Limit, Settings) -> limit(Error, Size, maps:get(Limit, Settings)).

-spec limit(Error, non_neg_integer(), pos_integer()) ->
    ok | {error, {Error, non_neg_integer(), pos_integer()}}.
limit(Error, Size, Max) when Size > Max -> {error, {Error, Size, Max}};
limit(_Error, _Size, _Max) -> ok.

-spec expected(term()) -> erl_esdb_log:expected().
expected(any) -> ?ANY_VERSION;
expected(no_stream) -> ?NO_STREAM;
expected(stream_exists) -> ?STREAM_EXISTS;
expected(Version) when is_integer(Version), Version >= ?ANY_VERSION -> Version;
expected(?STREAM_EXISTS) -> ?STREAM_EXISTS;
expected(_) -> error(badarg).

-doc "See `erl_esdb_streams:read/6`. `last` begins backward with the newest event.".
-spec read(
    atom(), binary(), non_neg_integer() | last, count(), direction(), read_options()
) -> {ok, [event()]} | {error, term()}.
read(Store, Stream, From, Count, Direction, Options) ->
    ok = check(is_binary(Stream) andalso is_window(From, Count, Direction)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        {ok, Pieces} ?=
            named(Store, Engine:read(Handle, Stream, From, Count, Direction, Options)),
        events(Pieces, Direction)
    else
        {error, stream_not_found} -> {error, {stream_not_found, Stream}};
        {error, Reason} -> {error, Reason}
    end.

-doc "See `erl_esdb_streams:read_log/5`.".
-spec read_log(atom(), non_neg_integer() | last, count(), direction(), read_options()) ->
    {ok, [event()]} | {error, term()}.
read_log(Store, From, Count, Direction, Options) ->
    ok = check(is_window(From, Count, Direction)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        {ok, Pieces} ?= named(Store, Engine:read_log(Handle, From, Count, Direction, Options)),
        events(Pieces, Direction)
    end.

-doc "The newest `Count` events of all streams, downwards, without the last `Skip` positions.".
-spec read_log_end(atom(), Skip :: non_neg_integer(), count()) ->
    {ok, [event()]} | {error, term()}.
read_log_end(Store, Skip, Count) ->
    ok = check(is_window(Skip, Count, backward)),
    case next_position(Store) of
        {ok, Next} when Skip < Next -> read_log(Store, Next - Skip - 1, Count, backward, #{});
        {ok, _} -> {ok, []};
        {error, Reason} -> {error, Reason}
    end.

-doc "The first `Count` events of these types in the order of positions; no types means all.".
-spec read_by_types(atom(), [binary()], count()) -> {ok, [event()]} | {error, term()}.
read_by_types(Store, Types, Count) ->
    ok = check(is_proper(Types) andalso lists:all(fun is_binary/1, Types)),
    ok = check(is_window(0, Count, forward)),
    Wanted = maps:from_keys(Types, true),
    Keep = fun(Body) -> Types =:= [] orelse is_map_key(erl_esdb_event:type(Body), Wanted) end,
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        Page = fun(From) ->
            named(Store, Engine:read_log(Handle, From, ?PAGE, forward, #{}))
        end,
        search(Page, Keep, 0, {Count, []})
    end.

-type found() :: {Left :: count(), [event()]}.
-type page() :: fun(
    (non_neg_integer()) -> {ok, [erl_esdb_engine:piece()]} | {error, failure()}
).

%% A page is where events are; only one of them at a time is decoded, and kept or forgotten.
-spec search(page(), fun((erl_esdb_event:body()) -> boolean()), non_neg_integer(), found()) ->
    {ok, [event()]} | {error, term()}.
search(_Page, _Keep, _From, {0, Found}) ->
    {ok, lists:reverse(Found)};
search(Page, Keep, From, {_, Found} = Sum) ->
    maybe
        {ok, [_ | _] = Pieces} ?= Page(From),
        {ok, Sum1} ?= search_pieces(Pieces, Keep, Sum),
        {_, Last, _} = lists:last(Pieces),
        search(Page, Keep, erl_esdb_log:after_span(Last), Sum1)
    else
        {ok, []} -> {ok, lists:reverse(Found)};
        {error, Reason} -> {error, Reason}
    end.

-spec search_pieces(
    [erl_esdb_engine:piece()], fun((erl_esdb_event:body()) -> boolean()), found()
) -> {ok, found()} | {error, term()}.
search_pieces([Piece | Pieces], Keep, {Left, _} = Sum) when Left =/= 0 ->
    case search_piece(Piece, Keep, Sum) of
        {ok, Sum1} -> search_pieces(Pieces, Keep, Sum1);
        {error, Reason} -> {error, Reason}
    end;
search_pieces(_, _Keep, Sum) ->
    {ok, Sum}.

-spec search_piece(erl_esdb_engine:piece(), fun((erl_esdb_event:body()) -> boolean()), found()) ->
    {ok, found()} | {error, term()}.
search_piece({Stream, {Row, From, To}, Packed}, Keep, Sum) ->
    First = erl_esdb_log:first_version(Row),
    Look = fun(Nth, Body, {Left, Found}) ->
        case Keep(Body) of
            true -> found(Left, [erl_esdb_event:event(Stream, Row, First + Nth, Body) | Found]);
            false -> {next, {Left, Found}}
        end
    end,
    case erl_esdb_batch:fold(Packed, From - First, To - First, Look, Sum) of
        {ok, Sum1} -> {ok, Sum1};
        {error, corrupt} -> {error, {corrupt_events, Stream, First}}
    end.

-spec found(count(), [event()]) -> {next | stop, found()}.
found(infinity, Found) -> {next, {infinity, Found}};
found(1, Found) -> {stop, {0, Found}};
found(Left, Found) -> {next, {Left - 1, Found}}.

-doc "What is known of a stream.".
-spec info(atom(), binary()) ->
    {ok, erl_esdb_log:info()} | {error, {stream_not_found, binary()} | failure()}.
info(Store, Stream) ->
    ok = check(is_binary(Stream)),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        {ok, Info} ?= named(Store, Engine:stream(Handle, Stream, #{})),
        {ok, Info}
    else
        {error, stream_not_found} -> {error, {stream_not_found, Stream}};
        {error, Reason} -> {error, Reason}
    end.

-doc "The names of all streams, sorted.".
-spec streams(atom()) -> {ok, [binary()]} | {error, failure()}.
streams(Store) ->
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:streams(Handle, #{}))
    end.

-doc "The position that the next event gets.".
-spec next_position(atom()) -> {ok, non_neg_integer()} | {error, failure()}.
next_position(Store) ->
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:next_position(Handle, #{}))
    end.

-doc "Removes a stream. Its versions begin again at 0, its positions stay used.".
-spec delete(atom(), binary()) -> ok | {error, failure()}.
delete(Store, Stream) ->
    ok = check(is_binary(Stream)),
    done(command(Store, {delete, Stream})).

-doc """
Removes the events of a stream before a version; numbering goes on. Answers the versions removed:
from the first to before the second.
""".
-spec truncate(atom(), binary(), Before :: non_neg_integer()) ->
    {ok, {non_neg_integer(), non_neg_integer()}}
    | {error, {stream_not_found, binary()} | failure()}.
truncate(Store, Stream, Before) ->
    ok = check(is_binary(Stream) andalso is_integer(Before) andalso Before >= 0),
    case command(Store, {truncate, Stream, Before}) of
        {ok, {From, Cut}} -> {ok, {From, Cut}};
        {error, stream_not_found} -> {error, {stream_not_found, Stream}};
        {error, Failure} -> {error, Failure}
    end.

%% ---- documents

-doc "Keeps a term, of at most 16 MiB packed, under a key. Answers how often that was done.".
-spec put_document(atom(), erl_esdb_log:document_key(), term()) ->
    {ok, pos_integer()} | {error, {document_too_large, pos_integer(), pos_integer()} | failure()}.
put_document(Store, Key, Term) ->
    ok = check(is_tuple(Key)),
    maybe
        {ok, Engine, Handle, #{timeout := Timeout}} ?= engine(Store),
        ok ?= limit(document_too_large, erl_esdb_batch:packed_size([Term]), ?MAX_DOCUMENT),
        Body = erl_esdb_batch:pack([Term]),
        command(Store, Engine, Handle, {put_document, Key, Body}, Timeout)
    end.

-doc "The term under a key.".
-spec get_document(atom(), erl_esdb_log:document_key()) ->
    {ok, term()} | {error, not_found | {corrupt_document, erl_esdb_log:document_key()} | failure()}.
get_document(Store, Key) ->
    ok = check(is_tuple(Key)),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        {ok, {_Version, Body}} ?= named(Store, Engine:document(Handle, Key, #{})),
        {ok, [Term]} ?= erl_esdb_batch:unpack(Body, 0, 0),
        {ok, Term}
    else
        {error, corrupt} -> {error, {corrupt_document, Key}};
        {error, Reason} -> {error, Reason}
    end.

-doc "Removes what is under a key.".
-spec delete_document(atom(), erl_esdb_log:document_key()) -> ok | {error, failure()}.
delete_document(Store, Key) ->
    ok = check(is_tuple(Key)),
    done(command(Store, {delete_document, Key})).

-doc "The keys between two keys, both included, in term order, and how often each was put.".
-spec list_documents(atom(), erl_esdb_log:document_key(), erl_esdb_log:document_key()) ->
    {ok, [{erl_esdb_log:document_key(), pos_integer()}]} | {error, failure()}.
list_documents(Store, From, To) ->
    ok = check(is_tuple(From) andalso is_tuple(To)),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:documents(Handle, From, To, #{}))
    end.

%% ---- checkpoints

-doc "The value that was saved under a key.".
-spec checkpoint(atom(), Key :: term()) -> {ok, term()} | {error, not_found | failure()}.
checkpoint(Store, Key) ->
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:checkpoint(Handle, Key, #{}))
    end.

-doc "Saves values under keys, and forgets those that are `delete`: all at once.".
-spec save_checkpoints(atom(), erl_esdb_log:checkpoints()) -> ok | {error, failure()}.
save_checkpoints(Store, Values) ->
    ok = check(is_map(Values)),
    done(command(Store, {checkpoint, Values})).

%% ---- pieces to events

-spec events([erl_esdb_engine:piece()], direction()) -> {ok, [event()]} | {error, term()}.
events(Pieces, Direction) ->
    try
        {ok, lists:flatmap(fun(Piece) -> piece(Piece, Direction) end, Pieces)}
    catch
        throw:{corrupt, Where} -> {error, Where}
    end.

-spec piece(erl_esdb_engine:piece(), direction()) -> [event()].
piece({Stream, {Row, From, To}, Packed}, Direction) ->
    First = erl_esdb_log:first_version(Row),
    case erl_esdb_batch:unpack(Packed, From - First, To - First) of
        {ok, Bodies} ->
            Versions = lists:seq(From, To),
            Make = fun(Version, Body) -> erl_esdb_event:event(Stream, Row, Version, Body) end,
            ordered(Direction, lists:zipwith(Make, Versions, Bodies));
        {error, corrupt} ->
            throw({corrupt, {corrupt_events, Stream, First}})
    end.

-spec ordered(direction(), [event()]) -> [event()].
ordered(forward, Events) -> Events;
ordered(backward, Events) -> lists:reverse(Events).

%% ---- the engine, and names for its failures

-spec engine(atom()) ->
    {ok, module(), erl_esdb_engine:handle(), erl_esdb_engine:settings()} | {error, failure()}.
engine(Store) when is_atom(Store) ->
    case erl_esdb_engine:find(Store) of
        {error, not_started} -> {error, {store_not_started, Store}};
        Found -> Found
    end;
engine(_) ->
    error(badarg).

-spec command(atom(), erl_esdb_log:command()) -> erl_esdb_log:reply() | {error, failure()}.
command(Store, Command) ->
    maybe
        {ok, Engine, Handle, #{timeout := Timeout}} ?= engine(Store),
        command(Store, Engine, Handle, Command, Timeout)
    end.

-spec command(
    atom(), module(), erl_esdb_engine:handle(), erl_esdb_log:command(), timeout()
) -> erl_esdb_log:reply() | {error, failure()}.
command(Store, Engine, Handle, Command, Timeout) ->
    named(Store, Engine:command(Handle, Command, Timeout)).

-spec done(ok | {error, Reason}) -> ok | {error, Reason}.
done(ok) -> ok;
done({error, Reason}) -> {error, Reason}.

-spec named(atom(), Answer) -> Answer | {error, failure()}.
named(Store, {error, not_started}) -> {error, {store_not_started, Store}};
named(Store, {error, timeout}) -> {error, {timeout, Store}};
named(Store, {error, no_quorum}) -> {error, {no_quorum, Store}};
named(Store, {error, overloaded}) -> {error, {overloaded, Store}};
named(_Store, Answer) -> Answer.

%% ---- arguments

-spec check(boolean()) -> ok.
check(true) -> ok;
check(false) -> error(badarg).

-spec is_window(term(), term(), term()) -> boolean().
is_window(From, Count, Direction) ->
    (is_natural(From) orelse (From =:= last andalso Direction =:= backward)) andalso
        (is_natural(Count) orelse Count =:= infinity) andalso
        (Direction =:= forward orelse Direction =:= backward).

-spec is_natural(term()) -> boolean().
is_natural(Value) -> is_integer(Value) andalso Value >= 0.

-spec is_proper(term()) -> boolean().
is_proper([_ | Rest]) -> is_proper(Rest);
is_proper(Rest) -> Rest =:= [].

-spec check_options(term()) -> ok.
check_options(Options) when is_map(Options) ->
    Consistency = maps:get(consistency, Options, local),
    _ = timeout(Options, #{timeout => infinity}),
    check(lists:member(Consistency, [linearizable, read_your_writes, local]));
check_options(_) ->
    error(badarg).

-spec timeout(map(), #{timeout := timeout(), _ => _}) -> timeout().
timeout(#{timeout := Timeout}, _) ->
    ok = check(is_timeout(Timeout)),
    Timeout;
timeout(#{}, #{timeout := Timeout}) ->
    Timeout.

-doc "Whether this is a time that a call can wait: `infinity` or 0 to 4,294,967,295 milliseconds.".
-spec is_timeout(term()) -> boolean().
is_timeout(Timeout) ->
    Timeout =:= infinity orelse (is_natural(Timeout) andalso Timeout =< ?MAX_TIMEOUT).
