-module(esdb_segment_events).
-moduledoc false.
%% Events to the columns of a segment and back, and segments from parts of segments. The same in
%% both modes: terms are encoded and built by the virtual machine.

-export([pack/2, select/4, room/0, all/1, gather/2, verify/1, field/4]).
-export_type([options/0, indices/0]).

-type source() :: {binary(), esdb_segment_format:dictionary()}.
-type columns() :: esdb_segment_format:columns().
-type reason() ::
    esdb_segment_format:reason() | too_large | {unsupported_term, Index :: non_neg_integer()}.
-type options() :: #{
    compress := none | zstd, level := 1..22, dictionary := esdb_segment_format:dictionary()
}.

-define(MIN_INTEGER, -16#7FFFFFFFFFFFFFFF).
-define(MAX_INTEGER, 16#7FFFFFFFFFFFFFFF).
-define(COMPRESSED_TERM, 80).
-define(MAX_BUILT, 268_435_456).

%% One by one, or the first, the step from one to the next, and how many.
-type indices() :: [non_neg_integer()] | {integer(), 1 | -1, non_neg_integer()}.

%% Packing

%% The segment of these events. A term that has no place in one is told by the event's index.
-spec pack([map()], options()) -> {ok, binary()} | {error, reason()}.
pack(Events, #{compress := Compress, level := Level, dictionary := Dictionary}) ->
    maybe
        {ok, Rows} ?= rows(Events, 0, []),
        How =
            case Compress of
                none -> stored;
                zstd -> {zstd, Level}
            end,
        write(length(Rows), transposed(Rows), fun(_) -> How end, Dictionary)
    end.

-spec rows([map()], non_neg_integer(), [tuple()]) -> {ok, [tuple()]} | {error, reason()}.
rows([Event | Events], Index, Rows) when is_map(Event) ->
    case esdb_etf_erl:is_storable(Event) of
        true -> rows(Events, Index + 1, [row(Event) | Rows]);
        false -> {error, {unsupported_term, Index}}
    end;
rows([], _, Rows) ->
    {ok, lists:reverse(Rows)};
rows(_, _, _) ->
    error(badarg).

%% The nine values of an event. What its column cannot hold is among the others, under its key.
-spec row(map()) -> tuple().
row(Event) ->
    Fitting = [
        {Id, Key, fitted(Id, Key, Event)}
     || {Id, Key} <- esdb_segment_format:keys(), is_map_key(Key, Event)
    ],
    Held = [Held || {_, _, Value} = Held <- Fitting, Value =/= none],
    Others =
        case length(Held) =:= map_size(Event) of
            true -> none;
            false -> encoded(maps:without([Key || {_, Key, _} <- Held], Event))
        end,
    lists:foldl(
        fun({Id, _, Value}, Row) -> setelement(Id, Row, Value) end,
        {none, none, none, none, none, none, none, none, Others},
        Held
    ).

-spec fitted(1..8, atom(), map()) -> esdb_segment_format:value().
fitted(Id, Key, Event) ->
    case Event of
        #{Key := Value} when Id >= 7 ->
            encoded(Value);
        #{Key := Value} when Id >= 4, is_binary(Value) ->
            Value;
        #{Key := Value} when
            Id =< 3, is_integer(Value), Value >= ?MIN_INTEGER, Value =< ?MAX_INTEGER
        ->
            Value;
        #{} ->
            none
    end.

-spec encoded(term()) -> binary().
encoded(Term) -> term_to_binary(Term, [deterministic, {minor_version, 2}]).

-spec transposed([tuple()]) -> [{1..9, [esdb_segment_format:value()]}].
transposed(Rows) ->
    [{Id, [element(Id, Row) || Row <- Rows]} || Id <- esdb_segment_format:ids()].

%% Sections that nobody has anything for are left out; but some bytes there must be to vouch for the
%% number of events.
-spec write(Count, [{1..9, [esdb_segment_format:value()]}], Compressed, Dictionary) ->
    {ok, binary()} | {error, reason()}
when
    Count :: non_neg_integer(),
    Compressed :: fun((1..9) -> stored | {zstd, 1..22}),
    Dictionary :: esdb_segment_format:dictionary().
write(Count, Columns, Compressed, Dictionary) ->
    Encoded = [{Id, esdb_segment_format:encode(Id, Values)} || {Id, Values} <- Columns],
    Sections =
        case [{Id, Bytes} || {Id, {ok, Bytes}} <- Encoded] of
            [] when Count > 0 -> [{9, <<0:Count/unit:32>>}];
            Some -> Some
        end,
    esdb_segment_format:write(Count, Sections, Compressed, Dictionary).

%% Parts

%% One segment of the events with these indices of each source, in that order. A section is
%% compressed if it is in one of the sources.
-spec gather([{source(), all | [non_neg_integer()]}], esdb_segment_format:dictionary()) ->
    {ok, binary()} | {error, reason()}.
gather(Parts, Dictionary) ->
    maybe
        {ok, Loaded} ?= loaded(Parts, []),
        Columns = [{Id, gathered(Id, Loaded)} || Id <- esdb_segment_format:ids()],
        Zstd = [Id || {_, #{sections := S}, _} <- Loaded, #{id := Id, codec := zstd} <- S],
        Compressed = fun(Id) ->
            case lists:member(Id, Zstd) of
                true -> {zstd, 3};
                false -> stored
            end
        end,
        Count = lists:sum([length(Indices) || {_, _, Indices} <- Loaded]),
        write(Count, Columns, Compressed, Dictionary)
    end.

-spec loaded([{source(), all | [non_neg_integer()]}], [Loaded]) ->
    {ok, [Loaded]} | {error, reason()}
when
    Loaded :: {columns(), esdb_segment_format:header(), [non_neg_integer()]}.
loaded([{{Segment, _} = Source, Which} | Parts], Done) ->
    maybe
        {ok, #{count := Count} = Header} ?= esdb_segment_format:header(Segment),
        {ok, Columns} ?= esdb_segment_format:load(Source, Header, esdb_segment_format:ids()),
        loaded(Parts, [{Columns, Header, indices(Which, Count)} | Done])
    end;
loaded([], Done) ->
    {ok, lists:reverse(Done)}.

-spec indices(all | [non_neg_integer()], non_neg_integer()) -> [non_neg_integer()].
indices(all, Count) -> lists:seq(0, Count - 1);
indices(Indices, _) -> Indices.

-spec gathered(1..9, [{columns(), esdb_segment_format:header(), [non_neg_integer()]}]) ->
    [esdb_segment_format:value()].
gathered(Id, Loaded) ->
    lists:append([
        case Columns of
            #{Id := Column} -> [esdb_segment_format:value(Column, I) || I <- Indices];
            #{} -> [none || _ <- Indices]
        end
     || {Columns, _, Indices} <- Loaded
    ]).

%% Back to events

%% Count and columns of everything.
-spec all(source()) -> {ok, non_neg_integer(), columns()} | {error, reason()}.
all({Segment, _} = Source) ->
    maybe
        {ok, #{count := Count} = Header} ?= esdb_segment_format:header(Segment),
        {ok, Columns} ?= esdb_segment_format:load(Source, Header, esdb_segment_format:ids()),
        {ok, Count, Columns}
    end.

-doc """
The events of these indices that pass, as many as asked for, and how much room they leave.

Terms take up to 16 times the bytes that they are made of, so an answer may be made of `room()`
bytes. The first event that is broken, or finds no room, is the result.
""".
-spec select(columns(), Indices, Passes, Options) ->
    {ok, [map()], Room :: non_neg_integer()} | {error, reason()}
when
    Indices :: indices(),
    Passes :: fun((non_neg_integer()) -> boolean()),
    Options :: {Limit, existing | create, Room :: non_neg_integer()},
    Limit :: non_neg_integer() | infinity.
select(Columns, Indices, Passes, {Limit, Atoms, Room}) ->
    try
        selected(Columns, Indices, Passes, {Limit, Atoms, Room}, [])
    catch
        throw:{corrupt, Section} -> {error, {corrupt, Section}};
        throw:too_large -> {error, too_large}
    end.

-doc "So many bytes of payloads may become the terms of one answer.".
-spec room() -> pos_integer().
room() -> ?MAX_BUILT.

-spec selected(columns(), indices(), fun(), tuple(), [map()]) -> {ok, [map()], non_neg_integer()}.
selected(_, _, _, {0, _, Room}, Done) ->
    {ok, lists:reverse(Done), Room};
selected(Columns, Indices, Passes, {Limit, Atoms, Room} = Options, Done) ->
    case next(Indices) of
        none ->
            {ok, lists:reverse(Done), Room};
        {I, Others} ->
            case Passes(I) of
                true ->
                    Left = left(Room, Columns, I),
                    Event = event(Columns, I, Atoms),
                    Less = {less(Limit), Atoms, Left},
                    selected(Columns, Others, Passes, Less, [Event | Done]);
                false ->
                    selected(Columns, Others, Passes, Options, Done)
            end
    end.

%% Neither a list of all of them, nor what comes behind a limit, is ever made.
-spec next(indices()) -> {non_neg_integer(), indices()} | none.
next([I | Others]) -> {I, Others};
next([]) -> none;
next({I, _, 0}) when is_integer(I) -> none;
next({I, Step, Left}) -> {I, {I + Step, Step, Left - 1}}.

-spec left(non_neg_integer(), columns(), non_neg_integer()) -> non_neg_integer().
left(Room, Columns, I) ->
    lists:foldl(
        fun(Id, Left) ->
            case column(Id, Columns, I) of
                none -> Left;
                Payload when byte_size(Payload) =< Left -> Left - byte_size(Payload);
                _ -> throw(too_large)
            end
        end,
        Room,
        [7, 8, 9]
    ).

-spec less(pos_integer() | infinity) -> non_neg_integer() | infinity.
less(infinity) -> infinity;
less(Limit) when is_integer(Limit) -> Limit - 1.

-spec event(columns(), non_neg_integer(), existing | create) -> map().
event(Columns, I, Atoms) ->
    Others = others(Columns, I, Atoms),
    lists:foldl(
        fun({Id, Key}, Event) ->
            case column(Id, Columns, I) of
                none -> Event;
                Value when Id >= 7 -> Event#{Key => decoded(Id, Value, Atoms)};
                Value -> Event#{Key => Value}
            end
        end,
        Others,
        esdb_segment_format:keys()
    ).

-spec column(1..9, columns(), non_neg_integer()) -> esdb_segment_format:value().
column(Id, Columns, I) ->
    case Columns of
        #{Id := Column} -> esdb_segment_format:value(Column, I);
        #{} -> none
    end.

-spec others(columns(), non_neg_integer(), existing | create) -> map().
others(Columns, I, Atoms) ->
    case column(9, Columns, I) of
        none ->
            #{};
        Payload ->
            case decoded(9, Payload, Atoms) of
                Others when is_map(Others) -> Others;
                _ -> throw({corrupt, others})
            end
    end.

%% One whole term. A compressed one would be taken at its word about its size.
-spec decoded(7..9, binary(), existing | create) -> term().
decoded(Id, <<131, Tag, _/binary>> = Payload, Atoms) when Tag =/= ?COMPRESSED_TERM ->
    try binary_to_term(Payload, [used | decoding(Atoms)]) of
        {Term, Used} when Used =:= byte_size(Payload) -> placed(Id, Term, Atoms);
        _ -> throw({corrupt, esdb_segment_format:name(Id)})
    catch
        error:_ -> throw({corrupt, esdb_segment_format:name(Id)})
    end;
decoded(Id, _, _) ->
    throw({corrupt, esdb_segment_format:name(Id)}).

%% Of what comes from anywhere, terms that no segment has are not let through.
-spec placed(7..9, term(), existing | create) -> term().
placed(_, Term, create) ->
    Term;
placed(Id, Term, existing) ->
    esdb_etf_erl:is_storable(Term) orelse throw({corrupt, esdb_segment_format:name(Id)}),
    Term.

-spec decoding(existing | create) -> [safe].
decoding(existing) -> [safe];
decoding(create) -> [].

%% The value of an envelope field, without building the event.
-spec field(version | epoch_us | event_type, columns(), non_neg_integer(), existing | create) ->
    {ok, term()} | none.
field(Key, Columns, I, Atoms) ->
    {Id, Key} = lists:keyfind(Key, 2, esdb_segment_format:keys()),
    case column(Id, Columns, I) of
        none -> other(Key, column(9, Columns, I), Atoms);
        Value -> {ok, Value}
    end.

-spec other(atom(), none | binary(), existing | create) -> {ok, term()} | none.
other(_, none, _) ->
    none;
other(Key, Payload, Atoms) ->
    case found(esdb_etf_erl:key(Key), Payload) of
        {ok, Slice} -> {ok, decoded(9, <<131, Slice/binary>>, Atoms)};
        missing -> none
    end.

-spec found(esdb_etf_erl:key(), binary()) -> {ok, esdb_etf_erl:key()} | missing.
found(Key, Payload) ->
    try
        case esdb_etf_erl:find(Key, esdb_etf_erl:payload(Payload)) of
            {ok, View} -> {ok, esdb_etf_erl:slice(View)};
            missing -> missing
        end
    catch
        throw:malformed -> throw({corrupt, others})
    end.

%% Whether each payload is one whole well-formed term, and each of the others a map.
-spec verify(source()) -> ok | {error, reason()}.
verify(Source) ->
    maybe
        {ok, Count, Columns} ?= all(Source),
        Payloads = [Id || Id <- [7, 8, 9], is_map_key(Id, Columns)],
        verify(Payloads, Count, Columns)
    end.

-spec verify([7..9], non_neg_integer(), columns()) -> ok | {error, reason()}.
verify([Id | Ids], Count, Columns) ->
    Column = maps:get(Id, Columns),
    case are_payloads(Id, Column, Count) of
        true -> verify(Ids, Count, Columns);
        false -> {error, {corrupt, esdb_segment_format:name(Id)}}
    end;
verify([], _, _) ->
    ok.

-spec are_payloads(7..9, esdb_segment_format:column(), non_neg_integer()) -> boolean().
are_payloads(_, _, 0) ->
    true;
are_payloads(Id, Column, Count) ->
    is_payload(Id, esdb_segment_format:value(Column, Count - 1)) andalso
        are_payloads(Id, Column, Count - 1).

-spec is_payload(7..9, esdb_segment_format:value()) -> boolean().
is_payload(_, none) ->
    true;
is_payload(Id, Payload) ->
    try
        <<>> =:= esdb_etf_erl:check(esdb_etf_erl:payload(Payload)) andalso
            (Id =/= 9 orelse esdb_etf_erl:is_map_payload(Payload))
    catch
        throw:malformed -> false
    end.
