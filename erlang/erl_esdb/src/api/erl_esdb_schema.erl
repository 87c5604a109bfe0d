-module(erl_esdb_schema).
-moduledoc """
Schemas: what the data of a type of events looks like today, and how older data becomes that.

An event keeps the data that it was written with. Its metadata say in `schema_version` which version
of the schema that was (1 where they do not); `upcast/2` brings what was read up to the current one.

```erlang
1> erl_esdb_schema:register(shop, ~"OrderPlaced", #{
       version => 2,
       upcast_from => #{1 => fun(Data) -> Data#{currency => ~"EUR"} end},
       validator => {exists, currency}
   }).
ok
2> {ok, Events} = erl_esdb_streams:read(shop, ~"order-1", 0, 100, forward).
3> [Event] = erl_esdb_schema:upcast(shop, Events).
4> Event#event.data.
#{total => 42,currency => <<"EUR">>}
```

Steps and validators are functions of the data: `{Module, Function, ExtraArgs}` or `fun M:F/1`
survive a restart, another fun works until the store stops, and on this node only; `get/2` lists
those as `volatile`, and after a restart, or on another node, as `lost`. A validator may be a
predicate of `m:esdb_filter_nif`, asked of the event; it looks into data that are JSON text.
Functions get the data as the event has them: read with `decode => json` where they are to be maps.

Before a schema is put to use, `check/3` tells for which of the stored events it would fail.

Errors that are not named with a function are those of `m:erl_esdb_streams`; the functions that have
no room for them (`upcast/2` and `upcast_event/2`) raise `error({erl_esdb, Reason})`.
""".

-export([register/3, unregister/2, get/2, list/1, get_version/2]).
-export([upcast/2, upcast_event/2, validate/2, check/2, check/3]).
-export_type([schema/0, registered/0, report/0, failed/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb.hrl").
-include("erl_esdb_telemetry.hrl").

%% Events of the log that are looked at at a time.
-define(PAGE, 200).
%% Keys of documents: the first that a schema can have, and one behind all that it can have.
-define(FIRST, {schema, <<>>}).
-define(BEHIND, {'schema ', 0}).
%% Failures that a report lists.
-define(LIMIT, 100).

-type schema() :: erl_esdb_upcast:schema().
-doc """
As it was registered, and: `volatile`, where there are funs that go when the store stops; `lost`,
where there were some.
""".
-type registered() :: #{
    version := pos_integer(),
    event_type := binary(),
    registered_at := Milliseconds :: integer(),
    volatile => [validator | {upcast_from, pos_integer()}],
    lost => [validator | {upcast_from, pos_integer()}],
    _ => _
}.
-type failed() :: #{
    event_id := binary(),
    event_type := binary(),
    stream_id := binary(),
    version := non_neg_integer(),
    position := non_neg_integer(),
    schema_version := pos_integer(),
    reason := erl_esdb_upcast:failure() | {invalid, term()}
}.
-doc "`next`: where the next call goes on, when this one stopped at its limit.".
-type report() :: #{
    checked := non_neg_integer(),
    failed := non_neg_integer(),
    failures := [failed()],
    next := Position :: non_neg_integer() | done
}.

%% ---- registration

-doc """
Registers the schema of a type of events; one that was registered before is replaced.

## Errors

- `{invalid_version, V}`: the version is missing, or no integer above 0
- `{invalid_schema, {bad_type, upcast_from | {upcast_from, V} | validator}}`
- `{invalid_schema, {undefined_function, Where}}`: there is no such function on this node
""".
-spec register(Store :: atom(), EventType :: binary(), schema() | map()) -> ok | {error, term()}.
register(Store, Type, Schema) when is_atom(Store), is_binary(Type), is_map(Schema) ->
    maybe
        {ok, Rules} ?= erl_esdb_upcast:rules(Schema),
        {ok, Before} ?= found(Store, Type),
        {Kept, Funs} = apart(Rules),
        Id = crypto:strong_rand_bytes(8),
        Now = erlang:system_time(millisecond),
        Given = maps:without([volatile, lost], Schema),
        Document = (maps:merge(Given, Kept))#{id => Id, event_type => Type, registered_at => Now},
        ok ?= erl_esdb_volatile:put(Store, {schema, Type, Id}, Funs),
        {ok, _} ?= erl_esdb_store:put_document(Store, {schema, Type}, Document),
        forget(Store, Type, Before),
        #{version := Version} = Rules,
        tell(?SCHEMA_REGISTERED, Version, Store, Type)
    end;
register(_, _, _) ->
    error(badarg).

%% What a document can keep, and the funs, by the places that say `volatile` instead.
-spec apart(erl_esdb_upcast:rules()) -> {map(), map()}.
apart(#{upcast_from := Steps} = Rules) ->
    Validator = maps:with([validator], Rules),
    Kept = #{upcast_from => maps:map(fun keep/2, Steps)},
    Funs = #{{upcast_from, From} => Fun || From := {volatile, Fun} <- Steps},
    {
        maps:merge(Kept, maps:map(fun keep/2, Validator)),
        maps:merge(Funs, #{Key => Fun || Key := {volatile, Fun} <- Validator})
    }.

-spec keep(term(), erl_esdb_callback:classified()) -> erl_esdb_callback:classified() | volatile.
keep(_Key, {volatile, _}) -> volatile;
keep(_Key, Classified) -> Classified.

-spec found(atom(), binary()) -> {ok, map() | none} | {error, term()}.
found(Store, Type) ->
    case erl_esdb_store:get_document(Store, {schema, Type}) of
        {error, not_found} -> {ok, none};
        Found -> Found
    end.

-spec forget(atom(), binary(), map() | none) -> ok.
forget(_Store, _Type, none) -> ok;
forget(Store, Type, #{id := Id}) -> erl_esdb_volatile:delete(Store, {schema, Type, Id}).

-doc "Removes the schema of a type of events; `ok` also where there is none.".
-spec unregister(Store :: atom(), EventType :: binary()) -> ok | {error, term()}.
unregister(Store, Type) when is_atom(Store), is_binary(Type) ->
    maybe
        {ok, #{} = Before} ?= found(Store, Type),
        ok ?= erl_esdb_store:delete_document(Store, {schema, Type}),
        forget(Store, Type, Before),
        tell(?SCHEMA_UNREGISTERED, 0, Store, Type)
    else
        {ok, none} -> ok;
        {error, Reason} -> {error, Reason}
    end;
unregister(_, _) ->
    error(badarg).

-spec tell(erl_esdb_telemetry:event_name(), non_neg_integer(), atom(), binary()) -> ok.
tell(Event, Version, Store, Type) ->
    Measurements = #{version => Version, system_time => erlang:system_time(millisecond)},
    erl_esdb_telemetry:emit(Event, Measurements, #{store_id => Store, event_type => Type}).

-doc "The schema of a type of events. Errors: `not_found`.".
-spec get(Store :: atom(), EventType :: binary()) -> {ok, registered()} | {error, term()}.
get(Store, Type) when is_atom(Store), is_binary(Type) ->
    maybe
        {ok, Document} ?= erl_esdb_store:get_document(Store, {schema, Type}),
        {ok, shown(Document, whole(Store, Document))}
    end;
get(_, _) ->
    error(badarg).

%% The rules of a document, with the funs that are here.
-spec whole(atom(), map()) -> erl_esdb_upcast:rules().
whole(Store, #{event_type := Type, id := Id, upcast_from := Steps} = Document) ->
    Funs =
        case erl_esdb_volatile:get(Store, {schema, Type, Id}) of
            {ok, Found} -> Found;
            {error, not_found} -> #{}
        end,
    Rules = maps:with([version, validator], Document),
    Rules1 = maps:map(fun(Key, Value) -> returned(Key, Value, Funs) end, Rules),
    Rules1#{upcast_from => #{V => returned({upcast_from, V}, S, Funs) || V := S <- Steps}}.

-spec returned(term(), term(), map()) -> term().
returned(Place, volatile, Funs) ->
    case Funs of
        #{Place := Fun} -> {volatile, Fun};
        #{} -> lost
    end;
returned(_Place, Value, _Funs) ->
    Value.

-spec shown(map(), erl_esdb_upcast:rules()) -> registered().
shown(Document, Rules) ->
    Places = places(Rules),
    Lists = [
        {volatile, [Place || {Place, {volatile, _}} <- Places]},
        {lost, [Place || {Place, lost} <- Places]}
    ],
    Steps = #{V => Step || {{upcast_from, V}, {_, Step}} <- Places},
    Shown = maps:from_list(
        [{validator, Validator} || {validator, {_, Validator}} <- Places] ++
            [{upcast_from, Steps} || map_size(Steps) > 0] ++
            [{Key, List} || {Key, [_ | _] = List} <- Lists]
    ),
    maps:merge(maps:without([id, upcast_from, validator], Document), Shown).

-spec places(erl_esdb_upcast:rules()) -> [{term(), erl_esdb_callback:classified() | lost}].
places(#{upcast_from := Steps} = Rules) ->
    [{{upcast_from, V}, maps:get(V, Steps)} || V <- lists:sort(maps:keys(Steps))] ++
        [{validator, Validator} || validator := Validator <- Rules].

-doc "All schemas, in the order of their types.".
-spec list(Store :: atom()) ->
    {ok, [#{event_type := binary(), version := pos_integer(), registered_at := integer()}]}
    | {error, term()}.
list(Store) when is_atom(Store) ->
    maybe
        {ok, Keys} ?= erl_esdb_store:list_documents(Store, ?FIRST, ?BEHIND),
        {ok, lists:append([listed(Store, Type) || {{schema, Type}, _} <- Keys])}
    end;
list(_) ->
    error(badarg).

%% None, where it was removed in between.
-spec listed(atom(), binary()) -> [map()].
listed(Store, Type) ->
    case erl_esdb_store:get_document(Store, {schema, Type}) of
        {ok, Document} -> [maps:with([event_type, version, registered_at], Document)];
        {error, _} -> []
    end.

-doc "The current version of the schema of a type of events. Errors: `not_found`.".
-spec get_version(Store :: atom(), EventType :: binary()) -> {ok, pos_integer()} | {error, term()}.
get_version(Store, Type) ->
    maybe
        {ok, #{version := Version}} ?= ?MODULE:get(Store, Type),
        {ok, Version}
    end.

%% ---- use

-doc """
Brings events up to the current versions of their schemas; see `upcast_event/2`. The order and the
number of events stay.
""".
-spec upcast(Store :: atom(), [event()]) -> [event()].
upcast(Store, Events) when is_atom(Store) ->
    is_proper(Events) orelse error(badarg),
    Types = lists:usort([Type || #event{event_type = Type} <- Events]),
    Schemas = #{Type => Rules || Type <- Types, {ok, Rules} <- [rules(Store, Type)]},
    [upcasted(Store, Event, Schemas) || Event <- Events];
upcast(_, _) ->
    error(badarg).

-spec is_proper(term()) -> boolean().
is_proper([_ | List]) -> is_proper(List);
is_proper(End) -> End =:= [].

-doc """
Brings an event up to the current version of its schema: through the step of each version from its
own on, each with the data that the one before made; versions without a step are passed over.
Afterwards `schema_version` is the current version. An event without a schema, of the current
version, or of a newer one is unchanged.

So is one for which a step fails: it crashes, or its result is no data. The log has a warning then.
""".
-spec upcast_event(Store :: atom(), event()) -> event().
upcast_event(Store, #event{} = Event) ->
    [Upcasted] = upcast(Store, [Event]),
    Upcasted;
upcast_event(_, _) ->
    error(badarg).

-spec rules(atom(), binary()) -> {ok, erl_esdb_upcast:rules()} | none.
rules(Store, Type) ->
    case found(Store, Type) of
        {ok, none} -> none;
        {ok, Document} -> {ok, whole(Store, Document)};
        {error, Reason} -> error({erl_esdb, Reason})
    end.

-spec upcasted(atom(), event(), #{binary() => erl_esdb_upcast:rules()}) -> event().
upcasted(Store, #event{event_type = Type} = Event, Schemas) when is_map_key(Type, Schemas) ->
    case erl_esdb_upcast:upcast(Event, maps:get(Type, Schemas)) of
        {ok, Upcasted, Steps} ->
            tell_steps(Store, Type, Steps),
            Upcasted;
        {error, Failure, Steps} ->
            tell_steps(Store, Type, Steps),
            ?LOG_WARNING("store ~tp: event ~ts (~ts) is left as it was written: ~tP", [
                Store, Event#event.event_id, Type, Failure, 20
            ]),
            Event
    end;
upcasted(_Store, #event{} = Event, _Schemas) ->
    Event;
upcasted(_, _, _) ->
    error(badarg).

-spec tell_steps(atom(), binary(), [erl_esdb_upcast:step()]) -> ok.
tell_steps(Store, Type, Steps) ->
    lists:foreach(
        fun({From, Duration}) ->
            Metadata = #{store_id => Store, event_type => Type},
            erl_esdb_telemetry:emit(
                ?SCHEMA_UPCASTED,
                #{duration => Duration},
                Metadata#{from_version => From, to_version => From + 1}
            )
        end,
        Steps
    ).

-doc """
Asks the validator of the schema about an event: `ok`, also without a schema or a validator, or the
error that it answers. It is not brought up to the current version before.

## Errors

- what the validator answers; `invalid` where that is `false`
- `{validator_failed, Why}`: it crashed, or gave no verdict
- `{function_lost, validator}`: it was a fun, and the store has stopped since
""".
-spec validate(Store :: atom(), event()) -> ok | {error, term()}.
validate(Store, #event{event_type = Type} = Event) when is_atom(Store) ->
    case found(Store, Type) of
        {ok, none} -> ok;
        {ok, Document} -> erl_esdb_upcast:validate(Event, whole(Store, Document));
        {error, Reason} -> {error, Reason}
    end;
validate(_, _) ->
    error(badarg).

%% ---- dry run

-doc "The same as `check/3` without options.".
-spec check(Store :: atom(), EventType :: binary() | all) -> {ok, report()} | {error, term()}.
check(Store, Types) -> check(Store, Types, #{}).

-doc """
Lists the stored events, of one type or of all that have a schema, that could not be brought up to
the current version, or would not be valid then. Nothing is changed.

Reads the events of these types, or the log where the store has no index of types, from its
beginning to where it ends now, a page at a time: the memory it takes does not grow with the store.
Options:

- `schemas`: a map of schemas by types, to try before they are registered; they count instead of
  the registered ones
- `from`: the position to begin at, the `next` of a report before (default 0)
- `limit`: how many failures to list before it stops (default 100)
- `decode => json`, `timeout`: as `erl_esdb_streams:read_log/5`

Errors: those of `register/3` for a schema given.
""".
-spec check(
    Store :: atom(),
    EventType :: binary() | all,
    #{
        schemas => #{binary() => schema() | map()},
        from => non_neg_integer(),
        limit => pos_integer(),
        _ => _
    }
) -> {ok, report()} | {error, term()}.
check(Store, Types, Options) when is_atom(Store), is_map(Options) ->
    Limit = maps:get(limit, Options, ?LIMIT),
    From = maps:get(from, Options, 0),
    Types =:= all orelse is_binary(Types) orelse error(badarg),
    is_integer(Limit) andalso Limit > 0 orelse error(badarg),
    is_integer(From) andalso From >= 0 orelse error(badarg),
    maybe
        {ok, Given} ?= given(schemas(maps:get(schemas, Options, #{})), #{}),
        {ok, Registered} ?= registered(Store),
        {ok, End} ?= erl_esdb_store:next_position(Store),
        Schemas = chosen(Types, maps:merge(Registered, Given)),
        {ok, Read} ?= reader(Store, maps:keys(Schemas), Options),
        checked(Read, Schemas, {From, End}, {0, Limit, []})
    end;
check(_, _, _) ->
    error(badarg).

-spec schemas(term()) -> [{binary(), map()}].
schemas(#{} = Schemas) ->
    Given = maps:to_list(Schemas),
    lists:all(fun({T, S}) -> is_binary(T) andalso is_map(S) end, Given) orelse error(badarg),
    Given;
schemas(_) ->
    error(badarg).

-type reader() :: fun((From :: non_neg_integer()) -> {ok, [event()]} | {error, term()}).

-spec reader(atom(), [binary()], map()) -> {ok, reader()} | {error, term()}.
reader(_Store, [], _Options) ->
    {ok, fun(_) -> {ok, []} end};
reader(Store, Types, Options) ->
    case erl_esdb_store:engine(Store) of
        {ok, _, _, #{indexes := Kinds}} ->
            {ok, reader(lists:member(type, Kinds), Store, Types, Options)};
        {error, Reason} -> {error, Reason}
    end.

-spec reader(boolean(), atom(), [binary()], map()) -> reader().
reader(true, Store, Types, Options) ->
    fun(From) -> erl_esdb_store:read_by_types(Store, Types, {From, ?PAGE, forward}, Options) end;
reader(false, Store, _Types, Options) ->
    fun(From) -> erl_esdb_store:read_log(Store, From, ?PAGE, forward, Options) end.

-spec given([{binary(), map()}], map()) -> {ok, map()} | {error, erl_esdb_upcast:invalid()}.
given([{Type, Schema} | Schemas], Acc) ->
    maybe
        {ok, Rules} ?= erl_esdb_upcast:rules(Schema),
        given(Schemas, Acc#{Type => Rules})
    end;
given([], Acc) ->
    {ok, Acc}.

-spec registered(atom()) -> {ok, #{binary() => erl_esdb_upcast:rules()}} | {error, term()}.
registered(Store) ->
    maybe
        {ok, Listed} ?= list(Store),
        {ok, #{T => R || #{event_type := T} <- Listed, {ok, R} <- [rules(Store, T)]}}
    end.

-spec chosen(binary() | all, Schemas) -> Schemas when
    Schemas :: #{binary() => erl_esdb_upcast:rules()}.
chosen(all, Schemas) -> maps:map(fun(_, Rules) -> erl_esdb_upcast:compiled(Rules) end, Schemas);
chosen(Type, Schemas) -> chosen(all, maps:with([Type], Schemas)).

-type sum() :: {Checked :: non_neg_integer(), Left :: non_neg_integer(), [failed()]}.

-spec checked(
    reader(),
    #{binary() => erl_esdb_upcast:rules()},
    {From :: non_neg_integer(), End :: non_neg_integer()},
    sum()
) -> {ok, report()} | {error, term()}.
checked(Read, Schemas, {From, End}, Sum) when From < End ->
    maybe
        {ok, [_ | _] = Events} ?= Read(From),
        Old = [Event || #event{position = Position} = Event <- Events, Position < End],
        {Next, Sum1} = checked_page(Old, Schemas, {From, Sum}),
        case Sum1 of
            {_, 0, _} -> {ok, report(Next, Sum1)};
            _ -> checked(Read, Schemas, {after_page(Events), End}, Sum1)
        end
    else
        {ok, []} -> {ok, report(done, Sum)};
        {error, Reason} -> {error, Reason}
    end;
checked(_Read, _Schemas, _Window, Sum) ->
    {ok, report(done, Sum)}.

-spec after_page([event()]) -> non_neg_integer().
after_page(Events) -> (lists:last(Events))#event.position + 1.

-spec checked_page([event()], #{binary() => erl_esdb_upcast:rules()}, {Next, sum()}) ->
    {Next, sum()}
when
    Next :: non_neg_integer().
checked_page([Event | Events], Schemas, {_, {Checked, Left, Found}}) when Left > 0 ->
    Sum =
        case judged(Event, Schemas) of
            no_schema -> {Checked, Left, Found};
            ok -> {Checked + 1, Left, Found};
            {error, Reason} -> {Checked + 1, Left - 1, [failed(Event, Reason) | Found]}
        end,
    checked_page(Events, Schemas, {Event#event.position + 1, Sum});
checked_page(_, _Schemas, Reached) ->
    Reached.

-spec judged(event(), #{binary() => erl_esdb_upcast:rules()}) -> no_schema | ok | {error, term()}.
judged(#event{event_type = Type} = Event, Schemas) when is_map_key(Type, Schemas) ->
    Rules = maps:get(Type, Schemas),
    case erl_esdb_upcast:upcast(Event, Rules) of
        {ok, Upcasted, _} -> verdict(erl_esdb_upcast:validate(Upcasted, Rules));
        {error, Failure, _} -> {error, Failure}
    end;
judged(_, _) ->
    no_schema.

-spec verdict(ok | {error, term()}) -> ok | {error, term()}.
verdict(ok) -> ok;
verdict({error, {validator_failed, _} = Reason}) -> {error, Reason};
verdict({error, {function_lost, _} = Reason}) -> {error, Reason};
verdict({error, Reason}) -> {error, {invalid, Reason}}.

-spec failed(event(), term()) -> failed().
failed(Event, Reason) ->
    #{
        event_id => Event#event.event_id,
        event_type => Event#event.event_type,
        stream_id => Event#event.stream_id,
        version => Event#event.version,
        position => Event#event.position,
        schema_version => erl_esdb_upcast:version(Event),
        reason => Reason
    }.

-spec report(non_neg_integer() | done, sum()) -> report().
report(Next, {Checked, _Left, Found}) ->
    #{checked => Checked, failed => length(Found), failures => lists:reverse(Found), next => Next}.
