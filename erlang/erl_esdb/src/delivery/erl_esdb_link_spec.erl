-module(erl_esdb_link_spec).
-moduledoc """
What a link is, and what it makes of an event. Pure but for the functions of the link itself.

`m:erl_esdb_links` is the API, `m:erl_esdb_link` the process that follows the log.
""".

-export([check/1, whole/2, loop/3, stream/1, is_link_stream/1]).
-export([rules/1, outputs/2, recovered/4, new_progress/0]).
-export_type([spec/0, source/0, definition/0, progress/0, rules/0, invalid/0, place/0, mark/0]).

-include("erl_esdb.hrl").

-define(PREFIX, "$link:").
%% Bytes of the name of a stream.
-define(MAX_STREAM_ID, 65_536).

-type source() ::
    #{type := stream, stream_id := binary()}
    | #{type := stream_pattern, pattern := binary()}
    | #{type := all}.
-type spec() :: #{
    name := binary(),
    source := source(),
    filter => erl_esdb_callback:callback(),
    transform => fun((event()) -> event() | new_event()) | {module(), atom(), [term()]},
    backfill => boolean(),
    decode => erl_esdb_json:codec(),
    _ => _
}.
-type place() :: filter | transform.
-doc "What is kept of a link. `from_end`: the next start begins behind what is there by then.".
-type definition() :: #{
    name := binary(),
    source := source(),
    backfill := boolean(),
    decode := erl_esdb_json:codec(),
    status := stopped | running | error,
    from_end := boolean(),
    created_at := Milliseconds :: integer(),
    id := binary(),
    reason => term(),
    place() => erl_esdb_callback:classified() | volatile | lost
}.
-doc """
How far a link has come: the next position to look at, the version of its stream by then, how many
events it wrote, and the id of the last.
""".
-type progress() :: #{
    next := non_neg_integer(),
    version := integer(),
    processed := non_neg_integer(),
    last_event := binary() | undefined
}.
-doc "What tells the outputs of a link from events that others wrote to its stream.".
-type mark() :: binary().
-type rules() :: #{
    mark := mark(),
    decode := erl_esdb_json:codec(),
    selects := fun((binary()) -> boolean()),
    keeps := fun((event()) -> boolean()),
    transform := fun((event()) -> term())
}.
-type invalid() :: {invalid_link, {missing | bad_type | undefined_function, atom()}}.

%% ---- definitions

-doc "Checks a spec. The funs that no document can keep are apart.".
-spec check(map()) -> {ok, definition(), #{place() => fun()}} | {error, invalid()}.
check(Spec) ->
    try
        Callbacks = #{P => callback(P, V) || P := V <- maps:with([filter, transform], Spec)},
        Whole = maps:merge(#{backfill => false, decode => none}, Spec),
        Backfill = field(backfill, Whole),
        Definition = #{
            name => field(name, Spec),
            source => field(source, Spec),
            backfill => Backfill,
            decode => field(decode, Whole),
            status => stopped,
            from_end => not Backfill,
            created_at => erlang:system_time(millisecond),
            id => crypto:strong_rand_bytes(8)
        },
        Kept = maps:map(fun(_, Callback) -> kept(Callback) end, Callbacks),
        {ok, maps:merge(Definition, Kept), #{P => Fun || P := {volatile, Fun} <- Callbacks}}
    catch
        throw:{invalid, Why} -> {error, {invalid_link, Why}}
    end.

-spec field(atom(), map()) -> term().
field(Key, Spec) ->
    case Spec of
        #{Key := Value} -> good(Key, is_good(Key, Value), Value);
        #{} -> throw({invalid, {missing, Key}})
    end.

-spec good(atom(), boolean(), Value) -> Value.
good(_Key, true, Value) -> Value;
good(Key, false, _Value) -> throw({invalid, {bad_type, Key}}).

-spec is_good(atom(), term()) -> boolean().
is_good(backfill, Value) -> is_boolean(Value);
is_good(decode, Value) -> Value =:= json orelse Value =:= none;
is_good(name, Name) when is_binary(Name), Name =/= <<>> ->
    byte_size(stream(Name)) =< ?MAX_STREAM_ID;
is_good(source, #{type := stream, stream_id := Stream}) -> is_name(Stream);
is_good(source, #{type := stream_pattern, pattern := Pattern}) -> is_name(Pattern);
is_good(source, #{type := all}) -> true;
is_good(_, _) -> false.

%% Of a stream; or what can match one.
-spec is_name(term()) -> boolean().
is_name(Name) ->
    is_binary(Name) andalso Name =/= <<>> andalso byte_size(Name) =< ?MAX_STREAM_ID.

-spec callback(place(), term()) -> erl_esdb_callback:classified().
callback(Place, Term) ->
    Callback = erl_esdb_callback:classify(Term),
    good(Place, may_be(Place, Callback), Callback),
    erl_esdb_callback:is_known(Callback) orelse throw({invalid, {undefined_function, Place}}),
    Callback.

%% A predicate makes no event.
-spec may_be(place(), erl_esdb_callback:classified() | error) -> boolean().
may_be(_, error) -> false;
may_be(Place, {predicate, _}) -> Place =:= filter;
may_be(_, _) -> true.

-spec kept(erl_esdb_callback:classified()) -> erl_esdb_callback:classified() | volatile.
kept({volatile, _}) -> volatile;
kept(Callback) -> Callback.

-doc "A definition with its funs; `lost` is one that went when the store stopped.".
-spec whole(definition(), #{place() => fun()}) -> definition().
whole(Definition, Funs) ->
    Missing = #{P => found(P, Funs) || P := volatile <- maps:with([filter, transform], Definition)},
    maps:merge(Definition, Missing).

-spec found(place(), #{place() => fun()}) -> {volatile, fun()} | lost.
found(Place, Funs) ->
    case Funs of
        #{Place := Fun} -> {volatile, Fun};
        #{} -> lost
    end.

-doc "The stream that a link writes.".
-spec stream(Name :: binary()) -> binary().
stream(Name) -> <<?PREFIX, Name/binary>>.

-doc "Whether a stream is written by a link.".
-spec is_link_stream(binary()) -> boolean().
is_link_stream(Stream) -> erl_esdb_event:are_copies(Stream).

-doc """
The names of the links through which a link would read what it writes; `none` where it would not.
`Source` tells the source of the link of this name.
""".
-spec loop(binary(), source(), fun((binary()) -> {ok, source()} | none)) -> [binary()] | none.
loop(Name, Source, Find) -> loop(Name, Source, Find, [Name]).

-spec loop(binary(), source(), fun((binary()) -> {ok, source()} | none), [binary()]) ->
    [binary()] | none.
loop(Name, #{type := stream, stream_id := <<?PREFIX, Name/binary>>}, _Find, Passed) ->
    lists:reverse(Passed);
loop(Name, #{type := stream, stream_id := <<?PREFIX, Other/binary>>}, Find, Passed) ->
    case Find(Other) of
        {ok, Source} -> loop(Name, Source, Find, [Other | Passed]);
        none -> none
    end;
loop(_Name, _Source, _Find, _Passed) ->
    none.

%% ---- events

-doc "What a link does, with everything compiled that can be. Not for one that has lost a fun.".
-spec rules(definition()) -> rules().
rules(#{source := Source, decode := Decode, id := Id} = Definition) ->
    #{
        mark => binary:encode_hex(Id, lowercase),
        decode => Decode,
        selects => selector(Source),
        keeps => keeper(maps:get(filter, Definition, none)),
        transform => transformer(maps:get(transform, Definition, none))
    }.

-spec selector(source()) -> fun((binary()) -> boolean()).
selector(#{type := stream, stream_id := Wanted}) ->
    fun(Stream) -> Stream =:= Wanted end;
selector(#{type := stream_pattern, pattern := Pattern}) ->
    Compiled = erl_esdb_pattern:compile(Pattern),
    Matches = fun(Stream) -> erl_esdb_pattern:matches(Stream, Compiled) end,
    fun(Stream) -> not is_link_stream(Stream) andalso Matches(Stream) end;
selector(#{type := all}) ->
    fun(Stream) -> not is_link_stream(Stream) end.

-spec keeper(erl_esdb_callback:classified() | none) -> fun((event()) -> boolean()).
keeper(none) ->
    fun(_) -> true end;
keeper(Callback) ->
    Test = erl_esdb_callback:matcher(Callback),
    fun(Event) ->
        try
            Test(Event)
        catch
            _:_ -> false
        end
    end.

-spec transformer(erl_esdb_callback:classified() | none) -> fun((event()) -> term()).
transformer(none) ->
    fun(Event) -> Event end;
transformer(Callback) ->
    fun(Event) ->
        try
            erl_esdb_callback:call(Callback, Event)
        catch
            _:_ -> Event
        end
    end.

-doc "What a link writes for events, in their order.".
-spec outputs([event()], rules()) -> [new_event()].
outputs(Events, #{selects := Selects, keeps := Keeps, mark := Mark} = Rules) ->
    [
        output(Event, transformed(Event, Seen, Rules), Mark)
     || #event{stream_id = Stream} = Event <- Events,
        Selects(Stream),
        Seen <- [seen(Event, Rules)],
        Keeps(Seen)
    ].

%% As the functions of the user get it.
-spec seen(event(), rules()) -> event().
seen(Event, #{decode := json}) -> erl_esdb_json:decoded(Event);
seen(Event, #{decode := none}) -> Event.

%% What is no event counts as the failure of the transformation. What was JSON becomes it again.
-spec transformed(event(), Seen :: event(), rules()) -> new_event().
transformed(Event, Seen, #{transform := Transform}) ->
    maybe
        Made = Transform(Seen),
        true ?= Made =/= Seen,
        {ok, Fields} ?= fields(Made),
        {ok, Fields1} ?= as_before(Seen =:= Event, Fields),
        Fields1
    else
        _ ->
            {ok, Unchanged} = fields(Event),
            Unchanged
    end.

-spec as_before(IsTerm :: boolean(), new_event()) -> {ok, new_event()} | {error, term()}.
as_before(true, Fields) -> {ok, Fields};
as_before(false, Fields) -> erl_esdb_json:encode(Fields).

%% The id is that of the source: it tells for which event this one stands.
-spec output(event(), new_event(), mark()) -> new_event().
output(Source, #{metadata := Metadata} = Fields, Mark) ->
    Marks = #{
        link_id => Mark,
        source_stream => Source#event.stream_id,
        source_version => Source#event.version,
        source_position => Source#event.position
    },
    %% A source that is itself the output of a link may have them, also as a codec spells them.
    Texts = [atom_to_binary(Key) || Key := _ <- Marks],
    Fields#{
        event_id => Source#event.event_id,
        metadata := maps:merge(maps:without(Texts, Metadata), Marks)
    }.

-spec fields(term()) -> {ok, new_event()} | error.
fields(#event{} = Event) ->
    fields(erl_esdb_event:from_record(Event));
fields(Map) ->
    case is_map(Map) andalso erl_esdb_event:bodies([maps:remove(event_id, Map)]) of
        {ok, _} -> {ok, Map#{metadata => maps:get(metadata, Map, #{})}};
        _ -> error
    end.

-doc "Of a link that has written nothing.".
-spec new_progress() -> progress().
new_progress() ->
    #{next => 0, version => ?NO_STREAM, processed => 0, last_event => undefined}.

-doc """
How far a link has come that has written these events since its progress was saved: behind the
source of the last.

Events without the mark of the link do not count: others may write to its stream, also copies of the
outputs of another link or store. Nor does one count again, or one whose source cannot be (`End` is
the end of the log).
""".
-spec recovered([event()], mark(), End :: non_neg_integer(), progress()) -> progress().
recovered(Events, Mark, End, Progress) ->
    lists:foldl(fun(Event, Acc) -> recover(Event, Mark, End, Acc) end, Progress, Events).

-spec recover(event(), mark(), non_neg_integer(), progress()) -> progress().
recover(#event{version = Version, metadata = Metadata} = Event, Mark, End, Progress) ->
    #{next := Next, processed := Processed} = Progress,
    case {marked(link_id, Metadata), marked(source_position, Metadata)} of
        {Mark, At} when is_integer(At), At >= Next, At < End ->
            Progress#{
                next := At + 1,
                version := Version,
                processed := Processed + 1,
                last_event := Event#event.event_id
            };
        _ ->
            Progress#{version := Version}
    end.

%% In a store with the codec JSON the keys of metadata become binaries.
-spec marked(atom(), map()) -> term().
marked(Key, Metadata) ->
    Text = atom_to_binary(Key),
    case Metadata of
        #{Key := Value} -> Value;
        #{Text := Value} -> Value;
        #{} -> none
    end.
