-module(erl_esdb_callback).
-moduledoc """
What users hand in to be called later, by schemas and links: and which of it survives a restart.

| what | survives |
|---|---|
| `{Module, Function, ExtraArgs}`, called with the argument in front of them | yes |
| `fun Module:Function/1` | yes, it is the same |
| a predicate of `m:esdb_filter_nif`, where it is asked of events | yes |
| any other fun of one argument | until the store stops: it is `volatile` |

A fun belongs to the version of the module that made it, on the node that made it; a document that
kept one could not be read any more after the next release. So none is kept in a document.
""".

-export([classify/1, is_known/1, call/2, matcher/1, as_map/1]).
-export_type([callback/0, classified/0]).

-include("erl_esdb.hrl").

-type callback() ::
    fun((term()) -> term())
    | {module(), Function :: atom(), ExtraArgs :: [term()]}
    | esdb_filter_nif:predicate().
-type classified() ::
    {named, {module(), atom(), [term()]} | fun((term()) -> term())}
    | {predicate, term()}
    | {volatile, fun((term()) -> term())}.

-doc """
What a callback is. All but what is `volatile` can be kept in a document. A term that is a predicate
is one, also where it has the form of `{Module, Function, Args}`.
""".
-spec classify(term()) -> classified() | error.
classify(Fun) when is_function(Fun, 1) ->
    case erlang:fun_info(Fun, type) of
        {type, external} -> {named, Fun};
        {type, local} -> {volatile, Fun}
    end;
classify(Term) ->
    case {esdb_filter_nif:compile_predicate(Term), Term} of
        {{ok, _}, _} -> {predicate, Term};
        {_, {M, F, Args}} when is_atom(M), is_atom(F), length(Args) >= 0 -> {named, Term};
        _ -> error
    end.

-doc "Whether there is such a function on this node. True of what has no name.".
-spec is_known(classified()) -> boolean().
is_known({named, Fun}) when is_function(Fun) ->
    {module, Module} = erlang:fun_info(Fun, module),
    {name, Name} = erlang:fun_info(Fun, name),
    is_known({named, {Module, Name, []}});
is_known({named, {Module, Function, Args}}) ->
    _ = code:ensure_loaded(Module),
    erlang:function_exported(Module, Function, length(Args) + 1);
is_known(_) ->
    true.

-doc "Calls it with its one argument; a predicate is asked whether it is satisfied by it.".
-spec call(classified(), term()) -> term().
call({named, {Module, Function, Args}}, Argument) -> apply(Module, Function, [Argument | Args]);
call({predicate, Predicate}, Map) -> esdb_filter_nif:any_match([Map], Predicate);
call({_, Fun}, Argument) -> Fun(Argument).

-doc """
A test of events. A predicate is compiled once, here; where it looks into the data, and these are
JSON text, it is asked of what they say.
""".
-spec matcher(classified()) -> fun((event()) -> boolean()).
matcher({predicate, Predicate}) ->
    {ok, Compiled} = esdb_filter_nif:compile_predicate(Predicate),
    {ok, Normal} = esdb_predicate_erl:normalise(Predicate),
    Test = fun(Event) -> esdb_filter_nif:any_match([as_map(Event)], Compiled) =:= true end,
    case reads_data(Normal) of
        true -> fun(Event) -> Test(erl_esdb_json:decoded(Event)) end;
        false -> Test
    end;
matcher(Callback) ->
    fun(Event) -> call(Callback, Event) =:= true end.

-spec reads_data(esdb_predicate_erl:normal()) -> boolean().
reads_data({Op, Parts}) when Op =:= 'and'; Op =:= 'or' -> lists:any(fun reads_data/1, Parts);
reads_data({'not', Part}) -> reads_data(Part);
reads_data(Boolean) when is_boolean(Boolean) -> false;
reads_data(Test) -> element(1, element(2, Test)) =:= data.

-doc "An event in the form that predicates and maps of fields are asked of.".
-spec as_map(event()) -> map().
as_map(#event{} = Event) ->
    #{
        event_id => Event#event.event_id,
        event_type => Event#event.event_type,
        stream_id => Event#event.stream_id,
        version => Event#event.version,
        data => Event#event.data,
        metadata => Event#event.metadata,
        data_content_type => Event#event.data_content_type,
        metadata_content_type => Event#event.metadata_content_type,
        tags => Event#event.tags,
        timestamp => Event#event.timestamp,
        epoch_us => Event#event.epoch_us,
        position => Event#event.position
    }.
