-module(erl_esdb_store).
-moduledoc """
Between the API and the engine of a store: checks what comes in, packs it once in the process of the
caller, unpacks what goes out, and names failures.

Every function answers `{error, {store_not_started | timeout | no_quorum | overloaded, Store}}`
where the store cannot be reached, and `error(badarg)` for arguments of a wrong shape. A timeout is
`infinity` or 0 to 4,294,967,295 milliseconds. After `timeout`, and after `store_not_started` where
the store ended during the call, it is not known whether a command was done.
""".

-export([append/5, append_many/3]).
-export([read/6, read_log/5, read_log_end/3, read_log_end/4]).
-export([read_category/6, read_by_types/4, read_by_tags/5, matching/4]).
-export([info/2, info/3, streams/1, names/2, next_position/1, next_position/2]).
-export([delete/2, delete/3, truncate/3, truncate/4]).
-export([set_metadata/4, get_metadata/3, scavengeable/2, scavengeable/3, tip/2, tip/3, tombs/3]).
-export([put_document/3, put_document/4, put_documents/3, get_document/2, get_document/3]).
-export([delete_document/2, delete_document/3, delete_documents/3]).
-export([list_documents/3, list_documents/4]).
-export([checkpoint/2, checkpoint/3, checkpoints/2, save_checkpoints/2, save_checkpoints/3]).
-export([is_ready/1, get_store/1, get_leader/1, is_timeout/1]).
%% What takes several looks or commands, in one time.
-export([engine/1, engine/2, command/5, timeout/2, deadline/2, left/1, limit/3, named/2]).
-export_type([failure/0, count/0, window/0, read_options/0, names_options/0, deadline/0]).

-include("erl_esdb.hrl").

-import(erl_esdb_args, [all/2, check/1, is_count/1, is_natural/1, less/2]).

%% Events whose places are looked up at a time by a search through the whole log; they are decoded
%% one by one.
-define(PAGE, 1000).
%% Names that are listed where no limit is given.
-define(NAMES, 1000).
%% Pieces that are decoded between two looks at the clock.
-define(BETWEEN, 256).
%% Bytes of a document, packed.
-define(MAX_DOCUMENT, 16_777_216).
%% The longest time that `receive` takes.
-define(MAX_TIMEOUT, 16#FFFFFFFF).

-type failure() :: {store_not_started | timeout | no_quorum | overloaded, Store :: atom()}.
-type count() :: non_neg_integer() | infinity.
-type command_options() :: #{
    timeout => timeout(), handle => erl_esdb_engine:handle(), _ => _
}.
-doc "Of the log: from which position on, how many events, and which way.".
-type window() :: {From :: non_neg_integer() | last, count(), direction()}.
-doc """
`hidden`: also what the metadata of a stream hides; default false. `copies`: also the events of link
streams, where many streams are read; default true. `verify`: see
`m:erl_esdb_integrity`.
""".
-type read_options() :: #{
    consistency => linearizable | read_your_writes | local,
    timeout => timeout(),
    hidden => boolean(),
    copies => boolean(),
    verify => erl_esdb_integrity:mode(),
    decode => erl_esdb_json:codec(),
    archives => erl_esdb_archive_backend:backend(),
    _ => _
}.
-type names_options() :: #{
    prefix => binary(),
    pattern => binary(),
    from => binary(),
    limit => pos_integer() | infinity,
    timeout => timeout(),
    _ => _
}.
-type deadline() :: erl_esdb_deadline:deadline().

-doc "Whether the store can be used.".
-spec is_ready(atom()) -> boolean().
is_ready(Store) ->
    case next_position(Store) of
        {ok, _} -> true;
        {error, _} -> false
    end.

-doc "The name of a store: itself.".
-spec get_store(Store) -> Store when Store :: atom().
get_store(Store) when is_atom(Store) -> Store;
get_store(_) -> error(badarg).

-doc """
The node that orders the appends of a store: this one, for a store that lives on one node. Errors:
`not_started`, `no_leader`, and the other failures of a store.
""".
-spec get_leader(Store :: atom()) -> {ok, node()} | {error, not_started | no_leader | failure()}.
get_leader(Store) ->
    case erl_esdb_cluster:leader(Store) of
        {error, {store_not_started, _}} -> {error, not_started};
        Leader -> Leader
    end.

%% ---- streams

-doc "See `erl_esdb_streams:append/5`.".
-spec append(atom(), binary(), term(), [new_event() | event()], erl_esdb_append:options()) ->
    {ok, append_result()} | {error, term()}.
append(Store, Stream, Expected, Events, Options) ->
    erl_esdb_append:append(Store, Stream, Expected, Events, Options).

-doc "See `erl_esdb_streams:append_many/3`.".
-spec append_many(atom(), [erl_esdb_append:given()], erl_esdb_append:options()) ->
    {ok, #{binary() => append_result()}} | {error, term()}.
append_many(Store, Parts, Options) ->
    erl_esdb_append:append_many(Store, Parts, Options).

-doc false.
-spec limit(Error, non_neg_integer(), pos_integer()) ->
    ok | {error, {Error, non_neg_integer(), pos_integer()}}.
limit(Error, Size, Max) when Size > Max -> {error, {Error, Size, Max}};
limit(_Error, _Size, _Max) -> ok.

-doc "See `erl_esdb_streams:read/6`. `last` begins backward with the newest event.".
-spec read(
    atom(), binary(), non_neg_integer() | last, count(), direction(), read_options()
) -> {ok, [event()]} | {error, term()}.
read(Store, Stream, From, Count, Direction, Options) ->
    ok = check(is_binary(Stream) andalso is_window(From, Count, Direction)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store),
        Until = deadline(Options, Settings),
        Timed = timed(Options, Until),
        Read = fun() ->
            Pieces = Engine:read(Handle, Stream, From, Count, Direction, Timed),
            named(Store, stream_events(Stream, Pieces, Direction, Until))
        end,
        Checked = erl_esdb_integrity:read(Store, Settings, Stream, Options, Read),
        erl_esdb_json:decode_all(Checked, Options)
    end.

-spec stream_events(
    binary(),
    {ok, [erl_esdb_engine:piece()]} | {error, term()},
    direction(),
    deadline()
) -> {ok, [event()]} | {error, term()}.
stream_events(_Stream, {ok, Pieces}, Direction, Until) -> events(Pieces, Direction, Until);
stream_events(Stream, {error, stream_not_found}, _, _) -> {error, {stream_not_found, Stream}};
stream_events(_Stream, {error, Reason}, _, _) -> {error, Reason}.

-doc "See `erl_esdb_streams:read_log/5`.".
-spec read_log(atom(), non_neg_integer() | last, count(), direction(), read_options()) ->
    {ok, [event()]} | {error, term()}.
read_log(Store, From, Count, Direction, Options) ->
    ok = check(is_window(From, Count, Direction)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store),
        Until = deadline(Options, Settings),
        Timed = timed(Options, Until),
        {ok, Pieces} ?= named(Store, Engine:read_log(Handle, From, Count, Direction, Timed)),
        erl_esdb_json:decode_all(named(Store, events(Pieces, Direction, Until)), Options)
    end.

%% What is left of the time is for the engine.
-spec timed(read_options(), deadline()) -> read_options().
timed(Options, Until) -> Options#{timeout => erl_esdb_deadline:left(Until)}.

-doc "The same as `read_log_end/4` without options.".
-spec read_log_end(atom(), Skip :: non_neg_integer(), count()) ->
    {ok, [event()]} | {error, term()}.
read_log_end(Store, Skip, Count) -> read_log_end(Store, Skip, Count, #{}).

-doc "The newest `Count` events of all streams, downwards, without the last `Skip` positions.".
-spec read_log_end(atom(), Skip :: non_neg_integer(), count(), read_options()) ->
    {ok, [event()]} | {error, term()}.
read_log_end(Store, Skip, Count, Options) ->
    ok = check(is_window(Skip, Count, backward)),
    ok = check_options(Options),
    case next_position(Store, Options) of
        {ok, Next} when Skip < Next -> read_log(Store, Next - Skip - 1, Count, backward, Options);
        {ok, _} -> {ok, []};
        {error, Reason} -> {error, Reason}
    end.

-doc "The first events of these types in the order of positions; no types means all.".
-spec read_by_types(atom(), [binary()], window(), read_options()) ->
    {ok, [event()]} | {error, term()}.
read_by_types(Store, Types, Window, Options) ->
    matching(Store, [#{types => Types}], Window, Options).

-doc "See `erl_esdb_streams:read_by_tags/4`.".
-spec read_by_tags(atom(), [binary()], any | all, window(), read_options()) ->
    {ok, [event()]} | {error, term()}.
read_by_tags(Store, Tags, Which, Window, Options) ->
    ok = check(all(fun is_binary/1, Tags)),
    case {Which, Tags} of
        {all, [_ | _]} -> matching(Store, [#{tags => Tags}], Window, Options);
        {any, [_ | _]} -> matching(Store, [#{tags => [Tag]} || Tag <- Tags], Window, Options);
        {_, []} when Which =:= any; Which =:= all -> nothing(Store, Window, Options);
        _ -> error(badarg)
    end.

%% As it would be answered if there were no event.
-spec nothing(atom(), window(), read_options()) -> {ok, []} | {error, term()}.
nothing(Store, {From, Count, Direction}, Options) ->
    ok = check(is_window(From, Count, Direction)),
    read_log(Store, 0, 0, forward, Options).

-doc """
The events that match a query, in the order of positions: from a position on, so many, forward or
backward.

The index of types and tags says where to look (`m:erl_esdb_index`). Where a query has an item that
every event matches, or the store keeps no such index, the log is read page by page. Where that
takes longer than the time allowed the answer is `{error, {timeout, Store}}`.
""".
-spec matching(atom(), erl_esdb_query:query(), window(), read_options()) ->
    {ok, [event()]} | {error, term()}.
matching(Store, Query, {From, Count, Direction}, Options) ->
    ok = check(erl_esdb_query:is_query(Query) andalso is_window(From, Count, Direction)),
    ok = check_options(Options),
    Compiled = erl_esdb_query:compile(Query),
    maybe
        {ok, _, _, Settings} ?= engine(Store),
        {ok, Where} ?= erl_esdb_query:where(Query, maps:get(indexes, Settings, [])),
        Wanted = fun(#event{stream_id = Stream} = Event) ->
            erl_esdb_query:matches_event(Event, Compiled) andalso is_wanted(Stream, Options)
        end,
        Look = Options#{from => From, limit => Count, direction => Direction},
        erl_esdb_json:decode_all(erl_esdb_index:search(Store, Where, Wanted, Look), Options)
    else
        {error, Reason} ->
            {error, Reason};
        none ->
            Keep = fun(Body) -> erl_esdb_query:matches(Body, Compiled) end,
            Of = fun(Stream) -> is_wanted(Stream, Options) end,
            search(Store, {Of, Keep}, From, Count, Direction, Options)
    end.

-spec is_wanted(binary(), map()) -> boolean().
is_wanted(Stream, #{copies := false}) -> not erl_esdb_event:are_copies(Stream);
is_wanted(_Stream, _Options) -> true.

-doc "See `erl_esdb_streams:read_category/6`.".
-spec read_category(
    atom(), binary(), non_neg_integer() | last, count(), direction(), read_options()
) -> {ok, [event()]} | {error, term()}.
read_category(Store, Pattern, From, Count, Direction, Options) ->
    ok = check(is_binary(Pattern) andalso is_window(From, Count, Direction)),
    ok = check_options(Options),
    Compiled = erl_esdb_pattern:compile(Pattern),
    case erl_esdb_pattern:name(Compiled) of
        {ok, Stream} ->
            read_one(Store, Stream, {From, Count, Direction}, Options);
        several ->
            Of = fun(Stream) -> erl_esdb_pattern:matches(Stream, Compiled) end,
            search(Store, {Of, fun(_) -> true end}, From, Count, Direction, Options)
    end.

%% A category of one stream: where its events are is known without the others.
-spec read_one(atom(), binary(), window(), read_options()) -> {ok, [event()]} | {error, term()}.
read_one(Store, Stream, {From, Count, Direction}, Options) ->
    maybe
        {ok, _, _, Settings} ?= engine(Store),
        Until = deadline(Options, Settings),
        {ok, First} ?= version_at(Store, Stream, From, Direction, timed(Options, Until)),
        Read = (timed(Options, Until))#{verify => skip_all},
        {ok, Events} ?= read(Store, Stream, First, Count, Direction, Read),
        %% It may have been deleted and made again in between.
        {ok, [Event || Event <- Events, is_from(Event, From, Direction)]}
    else
        none -> {ok, []};
        {error, {stream_not_found, _}} -> {ok, []};
        {error, Reason} -> {error, Reason}
    end.

%% With which version a read begins that is to begin at a position.
-spec version_at(atom(), binary(), non_neg_integer() | last, direction(), read_options()) ->
    {ok, non_neg_integer() | last} | none | {error, term()}.
version_at(_Store, _Stream, last, backward, _Options) ->
    {ok, last};
version_at(Store, Stream, Position, forward, Options) ->
    erl_esdb_bisect:from_position(Store, Stream, Position, Options);
version_at(Store, Stream, Position, backward, Options) ->
    case erl_esdb_bisect:from_position(Store, Stream, Position + 1, Options) of
        {ok, 0} -> none;
        {ok, Version} -> {ok, Version - 1};
        {error, Reason} -> {error, Reason}
    end.

-spec is_from(event(), non_neg_integer() | last, direction()) -> boolean().
is_from(#event{position = Position}, From, forward) -> Position >= From;
%% Every atom is greater than every number.
is_from(#event{position = Position}, From, backward) -> Position =< From.

%% ---- a search through the log

-record(search, {
    %% which streams, and which of their events
    streams :: fun((binary()) -> boolean()),
    keep :: fun((erl_esdb_event:body()) -> boolean()),
    page :: page(),
    direction :: direction(),
    until :: deadline()
}).
-type page() :: fun(
    (non_neg_integer() | last) -> {ok, [erl_esdb_engine:piece()]} | {error, failure()}
).
-type found() :: {Left :: count(), [event()]}.

-spec search(
    atom(),
    {fun((binary()) -> boolean()), fun((erl_esdb_event:body()) -> boolean())},
    From :: non_neg_integer() | last,
    count(),
    direction(),
    read_options()
) -> {ok, [event()]} | {error, term()}.
search(Store, {Of, Keep}, From, Count, Direction, Options) ->
    ok = check(is_window(From, Count, Direction)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store),
        Until = deadline(Options, Settings),
        Page = fun(Position) ->
            Timed = timed(Options, Until),
            named(Store, Engine:read_log(Handle, Position, ?PAGE, Direction, Timed))
        end,
        Search = #search{
            streams = Of, keep = Keep, page = Page, direction = Direction, until = Until
        },
        {ok, {_, Found}} ?= named(Store, search_from(From, {Count, []}, Search)),
        erl_esdb_json:decode_all({ok, lists:reverse(Found)}, Options)
    end.

%% A page is where events are; only one of them at a time is decoded, and kept or forgotten.
-spec search_from(integer() | last, found(), #search{}) -> {ok, found()} | {error, term()}.
search_from(From, {Left, _} = Sum, _Search) when Left =:= 0; From =:= -1 ->
    {ok, Sum};
search_from(From, Sum, #search{page = Page, until = Until} = Search) ->
    maybe
        {ok, [_ | _] = Pieces} ?= Page(From),
        {ok, Sum1} ?= search_pieces(Pieces, Search, Sum),
        ok ?= erl_esdb_deadline:check(Until, false),
        {_, Last, _} = lists:last(Pieces),
        search_from(beyond(Last, Search), Sum1, Search)
    else
        {ok, []} -> {ok, Sum};
        {error, Reason} -> {error, Reason}
    end.

-spec beyond(erl_esdb_log:span(), #search{}) -> integer().
beyond(Span, #search{direction = forward}) -> erl_esdb_log:after_span(Span);
beyond(Span, #search{direction = backward}) -> erl_esdb_log:before_span(Span).

-spec search_pieces([erl_esdb_engine:piece()], #search{}, found()) ->
    {ok, found()} | {error, term()}.
search_pieces([{Stream, _, _} = Piece | Pieces], #search{} = Search, {Left, _} = Sum) when
    Left =/= 0
->
    maybe
        true ?= (Search#search.streams)(Stream),
        {ok, Sum1} ?= search_piece(Piece, Search, Sum),
        search_pieces(Pieces, Search, Sum1)
    else
        false -> search_pieces(Pieces, Search, Sum);
        {error, Reason} -> {error, Reason}
    end;
search_pieces(_, _Search, Sum) ->
    {ok, Sum}.

-spec search_piece(erl_esdb_engine:piece(), #search{}, found()) -> {ok, found()} | {error, term()}.
search_piece(Piece, #search{direction = forward, keep = Keep}, Sum) ->
    fold_piece(Piece, Keep, Sum);
search_piece(Piece, #search{direction = backward, keep = Keep}, {Left, Found}) ->
    case fold_piece(Piece, Keep, {infinity, []}) of
        {ok, {_, Newest}} -> {ok, took(Newest, Left, Found)};
        {error, Reason} -> {error, Reason}
    end.

-spec took([event()], count(), [event()]) -> found().
took([Event | Events], Left, Found) when Left =/= 0 ->
    took(Events, less(Left, 1), [Event | Found]);
took(_, Left, Found) ->
    {Left, Found}.

%% What is found of a piece, the last first.
-spec fold_piece(erl_esdb_engine:piece(), fun((erl_esdb_event:body()) -> boolean()), found()) ->
    {ok, found()} | {error, term()}.
fold_piece({Stream, {Row, From, To}, Packed}, Keep, Sum) ->
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
found(1, Found) -> {stop, {0, Found}};
found(Left, Found) -> {next, {less(Left, 1), Found}}.

%% ---- what is known of streams

-doc "The same as `info/3` without options.".
-spec info(atom(), binary()) ->
    {ok, erl_esdb_log:info()} | {error, {stream_not_found, binary()} | failure()}.
info(Store, Stream) -> info(Store, Stream, #{}).

-doc "What is known of a stream: `first` is the first version that may be seen.".
-spec info(atom(), binary(), read_options()) ->
    {ok, erl_esdb_log:info()} | {error, {stream_not_found, binary()} | failure()}.
info(Store, Stream, Options) ->
    ok = check(is_binary(Stream)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        {ok, Info} ?= named(Store, Engine:stream(Handle, Stream, Options)),
        {ok, Info}
    else
        {error, stream_not_found} -> {error, {stream_not_found, Stream}};
        {error, Reason} -> {error, Reason}
    end.

-doc "The same as `scavengeable/3` without options.".
-spec scavengeable(atom(), binary()) ->
    {ok, Before :: non_neg_integer()} | {error, {stream_not_found, binary()} | failure()}.
scavengeable(Store, Stream) -> scavengeable(Store, Stream, #{}).

-doc """
The version before which all events of a stream may be removed: those that its metadata hides. See
`truncate/3`.
""".
-spec scavengeable(atom(), binary(), read_options()) ->
    {ok, Before :: non_neg_integer()} | {error, {stream_not_found, binary()} | failure()}.
scavengeable(Store, Stream, Options) ->
    case info(Store, Stream, Options) of
        {ok, #{first := First}} -> {ok, First};
        {error, Reason} -> {error, Reason}
    end.

-doc "The same as `tip/3` without options.".
-spec tip(atom(), binary()) ->
    {ok, erl_esdb_engine:place()}
    | {error, failure()}.
tip(Store, Stream) -> tip(Store, Stream, #{}).

-doc """
What the next append of a stream goes on from, also behind a tombstone and where nothing is: the
version it gets, the time of the last one, the tip that it has to name, the number of the stream,
and the first version that was signed.
""".
-spec tip(atom(), binary(), read_options()) ->
    {ok, erl_esdb_engine:place()}
    | {error, failure()}.
tip(Store, Stream, Options) ->
    ok = check(is_binary(Stream)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:tip(Handle, Stream, Options))
    end.

-doc """
What is known of streams that have a tombstone and were not made again, behind a name, in the order
of their names: a page.
""".
-spec tombs(atom(), Behind :: binary() | first, read_options()) ->
    {ok, [{binary(), erl_esdb_log:info()}]} | {error, failure()}.
tombs(Store, Behind, Options) ->
    ok = check(Behind =:= first orelse is_binary(Behind)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:tombs(Handle, Behind, ?NAMES, Options))
    end.

-doc "See `erl_esdb_streams:set_metadata/4`.".
-spec set_metadata(atom(), binary(), erl_esdb_log:metadata(), map()) -> ok | {error, failure()}.
set_metadata(Store, Stream, Metadata, Options) ->
    Command = {set_metadata, Stream, Metadata},
    ok = check(erl_esdb_log:is_command(Command) andalso is_map(Options)),
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store),
        ok ?= erl_esdb_args:stream_id(Stream),
        done(command(Store, Engine, Handle, Command, timeout(Options, Settings)))
    end.

-doc "See `erl_esdb_streams:get_metadata/3`.".
-spec get_metadata(atom(), binary(), read_options()) ->
    {ok, erl_esdb_log:metadata()} | {error, failure()}.
get_metadata(Store, Stream, Options) ->
    ok = check(is_binary(Stream)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:metadata(Handle, Stream, Options))
    end.

-doc "The names of all streams, sorted.".
-spec streams(atom()) -> {ok, [binary()]} | {error, failure()}.
streams(Store) ->
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:streams(Handle, #{}))
    end.

-doc "See `erl_esdb_streams:list_streams/2`.".
-spec names(atom(), names_options()) -> {ok, [binary()], Next :: binary() | done} | {error, term()}.
names(Store, Options) ->
    ok = check_names(Options),
    Limit = maps:get(limit, Options, ?NAMES),
    Pattern = erl_esdb_pattern:compile(maps:get(pattern, Options, ~"*")),
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store),
        {ok, Prefix} ?= prefix(maps:get(prefix, Options, <<>>), erl_esdb_pattern:prefix(Pattern)),
        Until = deadline(Options, Settings),
        Page = fun(Behind, Size) -> Engine:names(Handle, Behind, Prefix, Size, Options) end,
        From = maps:get(from, Options, first),
        named(Store, names(From, Limit, min(Limit, ?NAMES), [], {Pattern, Page, Until}))
    else
        none -> {ok, [], done};
        {error, Reason} -> {error, Reason}
    end.

%% What names begin with that are to begin with both.
-spec prefix(binary(), binary()) -> {ok, binary()} | none.
prefix(A, B) when byte_size(A) > byte_size(B) ->
    prefix(B, A);
prefix(A, B) ->
    case binary:longest_common_prefix([A, B]) =:= byte_size(A) of
        true -> {ok, B};
        false -> none
    end.

-type names() :: {
    erl_esdb_pattern:pattern(),
    fun(
        (binary() | first, pos_integer()) -> {ok, [binary()]} | {error, erl_esdb_engine:failure()}
    ),
    deadline()
}.

%% Page by page, and of each page what matches: as many names as are wanted, twice as many each time
%% that this was not enough.
-spec names(binary() | first, pos_integer() | infinity, pos_integer(), [[binary()]], names()) ->
    {ok, [binary()], binary() | done} | {error, erl_esdb_engine:failure()}.
names(Behind, Limit, Size, Pages, {Pattern, Page, _} = Names) ->
    case Page(Behind, Size) of
        {ok, []} ->
            {ok, lists:append(lists:reverse(Pages)), done};
        {ok, All} ->
            Found = take(Limit, [Name || Name <- All, erl_esdb_pattern:matches(Name, Pattern)]),
            names_behind(lists:last(All), Limit, Size, [Found | Pages], Names);
        {error, Reason} ->
            {error, Reason}
    end.

-spec names_behind(
    binary(), pos_integer() | infinity, pos_integer(), [[binary()], ...], names()
) -> {ok, [binary()], binary() | done} | {error, erl_esdb_engine:failure()}.
names_behind(_Behind, Limit, _Size, [Found | _] = Pages, _Names) when length(Found) =:= Limit ->
    {ok, lists:append(lists:reverse(Pages)), lists:last(Found)};
names_behind(Behind, Limit, Size, [Found | _] = Pages, {_, _, Until} = Names) ->
    maybe
        ok ?= erl_esdb_deadline:check(Until, false),
        names(Behind, less(Limit, length(Found)), min(2 * Size, ?NAMES), Pages, Names)
    end.

-spec take(count(), [Name]) -> [Name].
take(infinity, Names) -> Names;
take(Limit, Names) -> lists:sublist(Names, Limit).

-doc "The same as `next_position/2` without options.".
-spec next_position(atom()) -> {ok, non_neg_integer()} | {error, failure()}.
next_position(Store) -> next_position(Store, #{}).

-doc "The position that the next event gets.".
-spec next_position(atom(), read_options()) -> {ok, non_neg_integer()} | {error, failure()}.
next_position(Store, Options) ->
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:next_position(Handle, Options))
    end.

-doc "The same as `delete/3` without options.".
-spec delete(atom(), binary()) -> ok | {error, failure()}.
delete(Store, Stream) -> delete(Store, Stream, #{}).

-doc "See `erl_esdb_streams:delete/3`.".
-spec delete(atom(), binary(), #{mode => hard | tombstone, timeout => timeout(), _ => _}) ->
    ok | {error, failure()}.
delete(Store, Stream, Options) when is_binary(Stream), is_map(Options) ->
    case maps:get(mode, Options, hard) of
        hard -> delete_hard(Store, Stream, Options);
        tombstone -> done(command(Store, {tombstone, Stream}, Options));
        _ -> error(badarg)
    end;
delete(_, _, _) ->
    error(badarg).

-spec delete_hard(atom(), binary(), map()) -> ok | {error, failure()}.
delete_hard(Store, Stream, Options) ->
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store),
        Until = deadline(Options, Settings),
        {ok, #{no := No}} ?= tip(Store, Stream, maps:with([timeout], Options)),
        ok ?= done(command(Store, Engine, Handle, {delete, Stream}, left(Until))),
        forget(Store, Stream, No, Until)
    end.

%% What is kept of the stream with this number, and of others that had its name before. The stream
%% is gone: what cannot be removed now is nobody's, and goes with the next one of the name.
-spec forget(atom(), binary(), pos_integer() | none, deadline()) -> ok.
forget(_Store, _Stream, none, _Until) ->
    ok;
forget(Store, Stream, No, Until) ->
    Found = [
        list_documents(Store, First, Last, #{timeout => left(Until)})
     || {First, Last} <- [
            {{integrity, Stream, 0, 0}, {integrity, Stream, No + 1, -1}},
            {{archive, Stream, 0, 0}, {archive, Stream, No + 1, -1}},
            {{snapshot_mark, Stream, 0, 0}, {snapshot_mark, Stream, No + 1, -1}}
        ]
    ],
    lists:foreach(
        fun(Key) -> delete_document(Store, Key, #{timeout => left(Until)}) end,
        [Key || {ok, Documents} <- Found, {Key, _} <- Documents]
    ).

-doc "The same as `truncate/4` without options.".
-spec truncate(atom(), binary(), Before :: non_neg_integer()) ->
    {ok, {non_neg_integer(), non_neg_integer()}}
    | {error, {stream_not_found | stream_replaced, binary()} | failure()}.
truncate(Store, Stream, Before) -> truncate(Store, Stream, Before, #{}).

-doc """
Removes the events of a stream before a version; numbering goes on. Answers the versions removed:
from the first to before the second.

Options: `timeout`; `no`, the number that the stream has to have: `{stream_replaced, Stream}` where
it was deleted and made again.
""".
-spec truncate(atom(), binary(), Before :: non_neg_integer(), Options) ->
    {ok, {non_neg_integer(), non_neg_integer()}}
    | {error, {stream_not_found | stream_replaced, binary()} | failure()}
when
    Options :: #{timeout => timeout(), no => pos_integer(), _ => _}.
truncate(Store, Stream, Before, Options) ->
    ok = check(is_binary(Stream) andalso is_natural(Before) andalso is_map(Options)),
    No = maps:get(no, Options, any),
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store),
        Until = deadline(Options, Settings),
        cut(Store, {Engine, Handle, Settings}, {Stream, No, Before}, Until)
    end.

-spec cut(atom(), {module(), term(), map()}, {binary(), pos_integer() | any, integer()}, Until) ->
    {ok, {non_neg_integer(), non_neg_integer()}} | {error, term()}
when
    Until :: deadline().
cut(Store, {Engine, Handle, Settings} = At, {Stream, No, Before} = Cut, Until) ->
    Timed = #{timeout => left(Until)},
    maybe
        {ok, Command} ?=
            erl_esdb_integrity:truncation(Store, Settings, Stream, No, Before, Timed),
        {ok, {From, To}} ?= command(Store, Engine, Handle, Command, left(Until)),
        {ok, {From, To}}
    else
        {error, stream_not_found} -> {error, {stream_not_found, Stream}};
        %% What was kept of it does not go with the stream that is there now.
        {error, stream_replaced} when No =:= any -> cut(Store, At, Cut, Until);
        {error, stream_moved} -> cut(Store, At, Cut, Until);
        {error, stream_replaced} -> {error, {stream_replaced, Stream}};
        {error, Failure} -> {error, Failure}
    end.

%% ---- documents

-doc "The same as `put_document/4` without options.".
-spec put_document(atom(), erl_esdb_log:document_key(), term()) ->
    {ok, pos_integer()} | {error, {document_too_large, pos_integer(), pos_integer()} | failure()}.
put_document(Store, Key, Term) -> put_document(Store, Key, Term, #{}).

-doc """
Keeps a term, of at most 16 MiB packed, under a key. Answers how often that was done.

Options: `timeout`; `handle`, that of the engine for which it is meant: where the store was begun
anew since, with another one, the error is `store_not_started`.
""".
-spec put_document(atom(), erl_esdb_log:document_key(), term(), command_options()) ->
    {ok, pos_integer()} | {error, {document_too_large, pos_integer(), pos_integer()} | failure()}.
put_document(Store, Key, Term, Options) ->
    ok = check(is_tuple(Key) andalso is_map(Options)),
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store, Options),
        Timeout = timeout(Options, Settings),
        ok ?= limit(document_too_large, erl_esdb_batch:packed_size([Term]), ?MAX_DOCUMENT),
        Body = erl_esdb_batch:pack([Term]),
        command(Store, Engine, Handle, {put_document, Key, Body}, Timeout)
    end.

-doc """
Keeps several, one after the other, up to the first that fails. Options as `put_document/4`, for
each of them.
""".
-spec put_documents(atom(), [{erl_esdb_log:document_key(), term()}], command_options()) ->
    ok | {error, {document_too_large, pos_integer(), pos_integer()} | failure()}.
put_documents(_Store, [], _Options) ->
    ok;
put_documents(Store, [{Key, Term} | Documents], Options) ->
    case put_document(Store, Key, Term, Options) of
        {ok, _Times} -> put_documents(Store, Documents, Options);
        {error, Reason} -> {error, Reason}
    end.

-doc "The same as `get_document/3` without options.".
-spec get_document(atom(), erl_esdb_log:document_key()) ->
    {ok, term()} | {error, not_found | {corrupt_document, erl_esdb_log:document_key()} | failure()}.
get_document(Store, Key) -> get_document(Store, Key, #{}).

-doc "The term under a key.".
-spec get_document(atom(), erl_esdb_log:document_key(), read_options()) ->
    {ok, term()} | {error, not_found | {corrupt_document, erl_esdb_log:document_key()} | failure()}.
get_document(Store, Key, Options) ->
    ok = check(is_tuple(Key)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        {ok, {_Version, Body}} ?= named(Store, Engine:document(Handle, Key, Options)),
        {ok, [Term]} ?= erl_esdb_batch:unpack(Body, 0, 0),
        {ok, Term}
    else
        {error, corrupt} -> {error, {corrupt_document, Key}};
        {error, Reason} -> {error, Reason}
    end.

-doc "The same as `delete_document/3` without options.".
-spec delete_document(atom(), erl_esdb_log:document_key()) -> ok | {error, failure()}.
delete_document(Store, Key) -> delete_document(Store, Key, #{}).

-doc "Removes what is under a key. Options as `put_document/4`.".
-spec delete_document(atom(), erl_esdb_log:document_key(), command_options()) ->
    ok | {error, failure()}.
delete_document(Store, Key, Options) ->
    ok = check(is_tuple(Key) andalso is_map(Options)),
    done(command(Store, {delete_document, Key}, Options)).

-doc """
Removes what is under several keys, one after the other, up to the first that fails. Options as
`put_document/4`, for each of them.
""".
-spec delete_documents(atom(), [erl_esdb_log:document_key()], command_options()) ->
    ok | {error, failure()}.
delete_documents(_Store, [], _Options) ->
    ok;
delete_documents(Store, [Key | Keys], Options) ->
    case delete_document(Store, Key, Options) of
        ok -> delete_documents(Store, Keys, Options);
        {error, Reason} -> {error, Reason}
    end.

-doc "The same as `list_documents/4` without options.".
-spec list_documents(atom(), erl_esdb_log:document_key(), erl_esdb_log:document_key()) ->
    {ok, [{erl_esdb_log:document_key(), pos_integer()}]} | {error, failure()}.
list_documents(Store, From, To) -> list_documents(Store, From, To, #{}).

-doc "The keys between two keys, both included, in term order, and how often each was put.".
-spec list_documents(
    atom(), erl_esdb_log:document_key(), erl_esdb_log:document_key(), read_options()
) -> {ok, [{erl_esdb_log:document_key(), pos_integer()}]} | {error, failure()}.
list_documents(Store, From, To, Options) ->
    ok = check(is_tuple(From) andalso is_tuple(To)),
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:documents(Handle, From, To, Options))
    end.

%% ---- checkpoints

-doc "The same as `checkpoint/3` without options.".
-spec checkpoint(atom(), Key :: term()) -> {ok, term()} | {error, not_found | failure()}.
checkpoint(Store, Key) -> checkpoint(Store, Key, #{}).

-doc "The value that was saved under a key.".
-spec checkpoint(atom(), Key :: term(), read_options()) ->
    {ok, term()} | {error, not_found | failure()}.
checkpoint(Store, Key, Options) ->
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:checkpoint(Handle, Key, Options))
    end.

-doc "All values by their keys, at one moment.".
-spec checkpoints(atom(), read_options()) -> {ok, #{Key :: term() => term()}} | {error, failure()}.
checkpoints(Store, Options) ->
    ok = check_options(Options),
    maybe
        {ok, Engine, Handle, _} ?= engine(Store),
        named(Store, Engine:checkpoints(Handle, Options))
    end.

-doc "The same as `save_checkpoints/3` without options.".
-spec save_checkpoints(atom(), erl_esdb_log:checkpoints()) -> ok | {error, failure()}.
save_checkpoints(Store, Values) -> save_checkpoints(Store, Values, #{}).

-doc "Saves values under keys, and forgets those that are `delete`: all at once.".
-spec save_checkpoints(atom(), erl_esdb_log:checkpoints(), #{timeout => timeout(), _ => _}) ->
    ok | {error, failure()}.
save_checkpoints(Store, Values, Options) ->
    ok = check(is_map(Values) andalso is_map(Options)),
    done(command(Store, {checkpoint, Values}, Options)).

%% ---- pieces to events

-spec events([erl_esdb_engine:piece()], direction(), deadline()) ->
    {ok, [event()]} | {error, term()}.
events(Pieces, Direction, Until) -> events(Pieces, Direction, Until, ?BETWEEN, []).

%% The last event first: what came before is at hand.
-spec events([erl_esdb_engine:piece()], direction(), deadline(), non_neg_integer(), [event()]) ->
    {ok, [event()]} | {error, term()}.
events([{Stream, {Row, From, To}, Packed} | Pieces], Direction, Until, Left, Before) when
    Left > 0
->
    First = erl_esdb_log:first_version(Row),
    case erl_esdb_batch:unpack(Packed, From - First, To - First) of
        {ok, Bodies} when Direction =:= forward ->
            Before1 = erl_esdb_event:events_before(Stream, Row, From, Bodies, Before),
            events(Pieces, Direction, Until, Left - 1, Before1);
        {ok, Bodies} ->
            Before1 = erl_esdb_event:events(Stream, Row, From, Bodies) ++ Before,
            events(Pieces, Direction, Until, Left - 1, Before1);
        {error, corrupt} ->
            {error, {corrupt_events, Stream, First}}
    end;
events([], _Direction, _Until, _Left, Before) ->
    {ok, lists:reverse(Before)};
events(Pieces, Direction, Until, 0, Before) ->
    maybe
        ok ?= erl_esdb_deadline:check(Until, false),
        events(Pieces, Direction, Until, ?BETWEEN, Before)
    end.

%% ---- the engine, and names for its failures

-doc false.
-spec engine(atom()) ->
    {ok, module(), erl_esdb_engine:handle(), erl_esdb_engine:settings()} | {error, failure()}.
engine(Store) when is_atom(Store) ->
    case erl_esdb_engine:find(Store) of
        {error, not_started} -> {error, {store_not_started, Store}};
        Found -> Found
    end;
engine(_) ->
    error(badarg).

-doc false.
-spec engine(atom(), command_options()) ->
    {ok, module(), erl_esdb_engine:handle(), erl_esdb_engine:settings()} | {error, failure()}.
engine(Store, #{handle := Meant}) ->
    case engine(Store) of
        {ok, _, Handle, _} when Handle =/= Meant -> {error, {store_not_started, Store}};
        Found -> Found
    end;
engine(Store, #{}) ->
    engine(Store).

-spec command(atom(), erl_esdb_log:command(), command_options()) ->
    erl_esdb_log:reply() | {error, erl_esdb_engine:repeated() | failure()}.
command(Store, Command, Options) ->
    maybe
        {ok, Engine, Handle, Settings} ?= engine(Store, Options),
        command(Store, Engine, Handle, Command, timeout(Options, Settings))
    end.

-doc false.
-spec command(
    atom(), module(), erl_esdb_engine:handle(), erl_esdb_log:command(), timeout()
) -> erl_esdb_log:reply() | {error, erl_esdb_engine:repeated() | failure()}.
command(Store, Engine, Handle, Command, Timeout) ->
    named(Store, Engine:command(Handle, Command, Timeout)).

-spec done(ok | {error, Reason}) -> ok | {error, Reason}.
done(ok) -> ok;
done({error, Reason}) -> {error, Reason}.

-doc false.
-spec named(atom(), Answer) -> Answer | {error, failure()}.
named(Store, {error, not_started}) -> {error, {store_not_started, Store}};
named(Store, {error, timeout}) -> {error, {timeout, Store}};
named(Store, {error, no_quorum}) -> {error, {no_quorum, Store}};
named(Store, {error, overloaded}) -> {error, {overloaded, Store}};
named(_Store, Answer) -> Answer.

%% ---- arguments

-spec is_window(term(), term(), term()) -> boolean().
is_window(From, Count, Direction) ->
    (is_natural(From) orelse (From =:= last andalso Direction =:= backward)) andalso
        is_count(Count) andalso
        (Direction =:= forward orelse Direction =:= backward).

-spec check_options(term()) -> ok.
check_options(Options) when is_map(Options) ->
    Mode = maps:get(verify, Options, skip_legacy),
    ok = check(lists:member(Mode, [skip_legacy, strict, skip_all])),
    Consistency = maps:get(consistency, Options, local),
    _ = timeout(Options, #{timeout => infinity}),
    ok = check(is_boolean(maps:get(hidden, Options, false))),
    ok = check(lists:member(maps:get(decode, Options, none), [none, json])),
    check(lists:member(Consistency, [linearizable, read_your_writes, local]));
check_options(_) ->
    error(badarg).

-spec check_names(term()) -> ok.
check_names(Options) ->
    ok = check_options(Options),
    Names = maps:values(maps:with([prefix, pattern, from], Options)),
    Limit = maps:get(limit, Options, ?NAMES),
    ok = check(lists:all(fun is_binary/1, Names)),
    check(Limit =:= infinity orelse (is_natural(Limit) andalso Limit > 0)).

-doc false.
%% When a call has to have answered.
-spec deadline(map(), #{timeout := timeout(), _ => _}) -> deadline().
deadline(Options, Settings) -> erl_esdb_deadline:in(timeout(Options, Settings)).

-doc false.
-spec left(deadline()) -> timeout().
left(Until) -> erl_esdb_deadline:left(Until).

-doc false.
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
