-module(erl_esdb_upcast).
-moduledoc """
What a schema does to an event: brings it up to the current version, and judges it. Pure but for the
functions of the schema itself.

`m:erl_esdb_schema` keeps the schemas.
""".

-export([rules/1, compiled/1, upcast/2, validate/2, version/1]).
-export_type([schema/0, rules/0, invalid/0, step/0, failure/0]).

-include("erl_esdb.hrl").

-define(KEY, schema_version).
-define(TEXT_KEY, ~"schema_version").

-type schema() :: #{
    version := pos_integer(),
    upcast_from => #{pos_integer() => erl_esdb_callback:callback()},
    validator => erl_esdb_callback:callback(),
    description => term(),
    _ => _
}.
-doc "A schema with its functions looked up; `lost` is a fun that went when the store stopped.".
-type rules() :: #{
    version := pos_integer(),
    upcast_from := #{pos_integer() => erl_esdb_callback:classified() | lost},
    validator =>
        erl_esdb_callback:classified() | lost | {compiled, fun((event()) -> boolean())}
}.
-type place() :: validator | {upcast_from, pos_integer()}.
-type invalid() ::
    {invalid_version, term()}
    | {invalid_schema, {bad_type, upcast_from | place()} | {undefined_function, place()}}.
-type step() :: {From :: pos_integer(), Duration :: integer()}.
-type failure() ::
    {upcast_failed, From :: pos_integer(), term()}
    | {validator_failed, term()}
    | {function_lost, place()}.

-doc "Checks a schema.".
-spec rules(map()) -> {ok, rules()} | {error, invalid()}.
rules(#{version := Version} = Schema) when is_integer(Version), Version > 0 ->
    maybe
        {ok, Steps} ?= steps(maps:get(upcast_from, Schema, #{})),
        {ok, Validator} ?= callbacks([{validator, V} || {validator, V} <- maps:to_list(Schema)]),
        {ok, Validator#{version => Version, upcast_from => Steps}}
    end;
rules(Schema) ->
    {error, {invalid_version, maps:get(version, Schema, undefined)}}.

-spec steps(term()) ->
    {ok, #{pos_integer() => erl_esdb_callback:classified()}} | {error, invalid()}.
steps(Steps) when is_map(Steps) ->
    case lists:all(fun(From) -> is_integer(From) andalso From > 0 end, maps:keys(Steps)) of
        true -> numbered(callbacks([{{upcast_from, From}, Step} || From := Step <- Steps]));
        false -> {error, {invalid_schema, {bad_type, upcast_from}}}
    end;
steps(_) ->
    {error, {invalid_schema, {bad_type, upcast_from}}}.

-spec numbered({ok, map()} | {error, invalid()}) -> {ok, map()} | {error, invalid()}.
numbered({ok, Steps}) -> {ok, #{From => Step || {upcast_from, From} := Step <- Steps}};
numbered({error, Reason}) -> {error, Reason}.

-spec callbacks([{place(), term()}]) ->
    {ok, #{place() => erl_esdb_callback:classified()}} | {error, invalid()}.
callbacks(Given) ->
    Classified = [{Place, erl_esdb_callback:classify(Term)} || {Place, Term} <- Given],
    Bad = [{bad_type, Place} || {Place, Callback} <- Classified, not may_be(Place, Callback)],
    Unknown = [
        {undefined_function, Place}
     || Bad =:= [], {Place, Callback} <- Classified, not erl_esdb_callback:is_known(Callback)
    ],
    case Bad ++ Unknown of
        [] -> {ok, maps:from_list(Classified)};
        [Reason | _] -> {error, {invalid_schema, Reason}}
    end.

%% A predicate answers true or false, which is no data.
-spec may_be(place(), erl_esdb_callback:classified() | error) -> boolean().
may_be(_, error) -> false;
may_be({upcast_from, _}, {predicate, _}) -> false;
may_be(_, _) -> true.

-doc "The same rules, for many events: a predicate is compiled only once.".
-spec compiled(rules()) -> rules().
compiled(#{validator := {predicate, _} = Predicate} = Rules) ->
    Rules#{validator := {compiled, erl_esdb_callback:matcher(Predicate)}};
compiled(Rules) ->
    Rules.

-doc "The version of the schema that an event was written with: 1 where it does not say.".
-spec version(event()) -> pos_integer().
version(#event{metadata = Metadata}) ->
    case given(Metadata) of
        Version when is_integer(Version), Version > 0 -> Version;
        _ -> 1
    end.

-spec given(map()) -> term().
given(#{?KEY := Version}) -> Version;
given(#{?TEXT_KEY := Version}) -> Version;
given(#{}) -> undefined.

-doc """
Brings an event up to the version of the schema: through each step that there is, in their order.
Answers the steps that were applied, and the time that each took, in native units.
""".
-spec upcast(event(), rules()) -> {ok, event(), [step()]} | {error, failure(), [step()]}.
upcast(Event, #{version := Target, upcast_from := Steps}) ->
    case version(Event) of
        Version when Version >= Target ->
            {ok, Event, []};
        Version ->
            All = lists:sort(maps:to_list(Steps)),
            Due = [{From, Step} || {From, Step} <- All, From >= Version, From < Target],
            finished(apply_steps(Due, Event#event.data, []), Event, Target)
    end.

-spec apply_steps([{pos_integer(), erl_esdb_callback:classified() | lost}], term(), [step()]) ->
    {ok, term(), [step()]} | {error, failure(), [step()]}.
apply_steps([{From, Step} | Due], Data, Done) ->
    Begin = erlang:monotonic_time(),
    case step(From, Step, Data) of
        {ok, Data1} ->
            apply_steps(Due, Data1, [{From, erlang:monotonic_time() - Begin} | Done]);
        {error, Failure} ->
            {error, Failure, lists:reverse(Done)}
    end;
apply_steps([], Data, Done) ->
    {ok, Data, lists:reverse(Done)}.

-spec step(pos_integer(), erl_esdb_callback:classified() | lost, term()) ->
    {ok, term()} | {error, failure()}.
step(From, lost, _Data) ->
    {error, {function_lost, {upcast_from, From}}};
step(From, Callback, Data) ->
    try erl_esdb_callback:call(Callback, Data) of
        Result when is_map(Result); is_binary(Result) -> {ok, Result};
        Other -> {error, {upcast_failed, From, {not_data, Other}}}
    catch
        Class:Reason -> {error, {upcast_failed, From, {Class, Reason}}}
    end.

-spec finished({ok, term(), [step()]} | {error, failure(), [step()]}, event(), pos_integer()) ->
    {ok, event(), [step()]} | {error, failure(), [step()]}.
finished({ok, Data, Done}, #event{metadata = Metadata} = Event, Target) ->
    {ok, Event#event{data = Data, metadata = stamped(Metadata, Target)}, Done};
finished({error, Failure, Done}, _Event, _Target) ->
    {error, Failure, Done}.

%% Under the key that was there.
-spec stamped(map(), pos_integer()) -> map().
stamped(Metadata, Version) when is_map_key(?KEY, Metadata) -> Metadata#{?KEY := Version};
stamped(#{?TEXT_KEY := _} = Metadata, Version) -> Metadata#{?TEXT_KEY := Version};
stamped(Metadata, Version) -> Metadata#{?KEY => Version}.

-doc """
What the validator says of the data of an event; `ok` without one. `true` counts as `ok`, `false` as
`{error, invalid}`.
""".
-spec validate(event(), rules()) -> ok | {error, term()}.
validate(_Event, #{validator := lost}) ->
    {error, {function_lost, validator}};
validate(Event, #{validator := {predicate, _}} = Rules) ->
    validate(Event, compiled(Rules));
validate(Event, #{validator := {compiled, Test}}) ->
    judged(fun() -> Test(Event) end);
validate(#event{data = Data}, #{validator := Validator}) ->
    judged(fun() -> erl_esdb_callback:call(Validator, Data) end);
validate(_Event, #{}) ->
    ok.

-spec judged(fun(() -> term())) -> ok | {error, term()}.
judged(Judge) ->
    try Judge() of
        ok -> ok;
        true -> ok;
        false -> {error, invalid};
        {error, Reason} -> {error, Reason};
        Other -> {error, {validator_failed, {no_verdict, Other}}}
    catch
        Class:Reason -> {error, {validator_failed, {Class, Reason}}}
    end.
