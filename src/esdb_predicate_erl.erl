-module(esdb_predicate_erl).
-moduledoc """
Predicates on events: their normal form, its bytes, and the evaluation on maps.

```erlang
1> {ok, Normal} = esdb_predicate_erl:normalise({'and', [{event_type, ~"paid"}, {gt, amount, 10}]}).
{ok,{'and',[{eq,{event,[event_type]},<<"paid">>},{gt,{data,[amount]},10}]}}
2> Compiled = esdb_predicate_erl:compile(Normal).
3> esdb_predicate_erl:matches(Compiled, #{event_type => ~"paid", data => #{amount => 11}}).
true
```

What users write is told in `esdb_filter_nif`. The canonical bytes of a predicate are the external
term format (`deterministic`, `minor_version` 2) of exactly one of

- `true`, `false`, `{'and', [N]}`, `{'or', [N]}`, `{'not', N}`, nested at most 100 deep;
- `{eq | neq | gt | gte | lt | lte, Path, Value}`, `{between, Path, Low, High}`;
- `{in | any_of, Path, [Value]}`, `{exists, Path}`;
- `{prefix | suffix | equals_bytes | infix, Path, Binary}`;
- `{wildcard, Path, Pattern}`, a pattern that is none of these four tests;
- `{regex, Path, Rendering}`, as `esdb_regex_erl:rendering/1` writes it;

with Path `{data, [Key, ...]}`, from the data of the event, or `{event, [Key, ...]}`, from the event
itself, where the first key is one of `stream_id`, `event_type`, `version`, `metadata`, `event_id` and
`epoch_us`. No key or value has a fun, pid, port or reference in it.
""".

-export([normalise/1, canonical/1, decode/1]).
-export([compile/1, matches/2]).
-export([handle/1, made/1]).
-export_type([predicate/0, path/0, normal/0, normal_path/0, compiled/0, handle/0]).
-export_type([mistake/0, reason/0]).

-type key() :: term().
-type path() :: key() | [key(), ...].
-type predicate() ::
    boolean()
    | {'and' | 'or', [predicate()]}
    | {'not', predicate()}
    | {event_type, Type :: term()}
    | {eq | neq | gt | gte | lt | lte, path(), Value :: term()}
    | {between, path(), Low :: term(), High :: term()}
    | {in | any_of, path(), [Value :: term()]}
    | {exists, path()}
    | {prefix | suffix, path(), binary()}
    | {wildcard | regex, path(), binary() | {atom(), binary(), term()}}
    | handle().
-type normal_path() :: {data | event, [key(), ...]}.
-type normal() ::
    boolean()
    | {'and' | 'or', [normal()]}
    | {'not', normal()}
    | {eq | neq | gt | gte | lt | lte, normal_path(), Value :: term()}
    | {between, normal_path(), Low :: term(), High :: term()}
    | {in | any_of, normal_path(), [Value :: term()]}
    | {exists, normal_path()}
    | {prefix | suffix | equals_bytes | infix | wildcard | regex, normal_path(), binary()}.
%% The normal form with patterns that are compiled, and lists as sets.
-opaque compiled() :: term().
-type handle() :: {esdb_predicate, Canonical :: binary(), Compiled :: term()}.

-doc """
Where the mistake is, and what it is.

The position is the way from the predicate to the mistake, by places in tuples and lists, from 1:
`[2, 3, 3]` is the third element of the third member of the list that is the second element.
""".
-type mistake() :: {Position :: [pos_integer()], reason()}.
-type reason() ::
    unknown_predicate
    | invalid_path
    | not_a_list
    | not_a_binary
    | not_storable
    | {too_deep, Limit :: pos_integer()}
    | {invalid_pattern, esdb_regex_erl:mistake()}.

-define(MAX_DEPTH, 100).

-define(IS_EVENT_KEY(Key),
    (Key =:= stream_id orelse Key =:= event_type orelse Key =:= version orelse
        Key =:= metadata orelse Key =:= event_id orelse Key =:= epoch_us)
).
-define(IS_COMPARISON(Op),
    (Op =:= eq orelse Op =:= neq orelse Op =:= gt orelse Op =:= gte orelse
        Op =:= lt orelse Op =:= lte)
).

%% Normal form

-doc "The normal form of a predicate, which may contain handles of patterns and predicates.".
-spec normalise(predicate() | term()) ->
    {ok, normal()} | {error, {invalid_predicate, mistake()}}.
normalise(Predicate) ->
    try
        {ok, normal(Predicate, [], 0)}
    catch
        throw:{mistake, At, Reason} -> {error, {invalid_predicate, {lists:reverse(At), Reason}}}
    end.

%% At is the way to the predicate, backwards.
-spec normal(term(), [pos_integer()], non_neg_integer()) -> normal().
normal(_, At, Depth) when Depth > ?MAX_DEPTH ->
    throw({mistake, At, {too_deep, ?MAX_DEPTH}});
normal(Boolean, _, _) when is_boolean(Boolean) ->
    Boolean;
normal({Op, Predicates}, At, Depth) when Op =:= 'and'; Op =:= 'or' ->
    Each = fun(Predicate, Here) -> normal(Predicate, Here, Depth + 1) end,
    {Op, each(Predicates, [2 | At], 1, Each)};
normal({'not', Predicate}, At, Depth) ->
    {'not', normal(Predicate, [2 | At], Depth + 1)};
normal({event_type, Type}, At, _) ->
    {eq, {event, [event_type]}, storable(Type, [2 | At])};
normal({exists, Path}, At, _) ->
    {exists, path(Path, [2 | At])};
normal({Op, Path, Value}, At, _) when ?IS_COMPARISON(Op) ->
    {Op, path(Path, [2 | At]), storable(Value, [3 | At])};
normal({between, Path, Low, High}, At, _) ->
    {between, path(Path, [2 | At]), storable(Low, [3 | At]), storable(High, [4 | At])};
normal({Op, Path, Values}, At, _) when Op =:= in; Op =:= any_of ->
    {Op, path(Path, [2 | At]), each(Values, [3 | At], 1, fun storable/2)};
normal({Op, Path, Bytes}, At, _) when Op =:= prefix; Op =:= suffix ->
    {Op, path(Path, [2 | At]), bytes(Bytes, [3 | At])};
normal({wildcard, Path, Pattern}, At, _) ->
    wildcard(path(Path, [2 | At]), pattern(esdb_wildcard, Pattern, [3 | At]));
normal({regex, Path, Pattern}, At, _) ->
    {regex, path(Path, [2 | At]), regex(pattern(esdb_regex, Pattern, [3 | At]), [3 | At])};
normal({esdb_predicate, Canonical, _}, At, Depth) ->
    case decode(Canonical) of
        {ok, Normal} -> nested(Normal, At, Depth);
        error -> throw({mistake, At, unknown_predicate})
    end;
normal(_, At, _) ->
    throw({mistake, At, unknown_predicate}).

%% A normal form inside of another: only its depth is new.
-spec nested(normal(), [pos_integer()], non_neg_integer()) -> normal().
nested(Normal, At, Depth) ->
    case Depth + depth(Normal) =< ?MAX_DEPTH of
        true -> Normal;
        false -> throw({mistake, At, {too_deep, ?MAX_DEPTH}})
    end.

-spec depth(normal()) -> non_neg_integer().
depth({Op, Normals}) when Op =:= 'and'; Op =:= 'or' ->
    1 + lists:max([0 | [depth(Normal) || Normal <- Normals]]);
depth({'not', Normal}) ->
    1 + depth(Normal);
depth(_) ->
    0.

-spec each(term(), [pos_integer()], pos_integer(), fun((term(), [pos_integer()]) -> X)) -> [X].
each([Item | Items], At, N, Fun) -> [Fun(Item, [N | At]) | each(Items, At, N + 1, Fun)];
each([], _, _, _) -> [];
each(_, At, _, _) -> throw({mistake, At, not_a_list}).

-spec path(term(), [pos_integer()]) -> normal_path().
path([], At) ->
    throw({mistake, At, invalid_path});
path([Key | _] = Keys, At) ->
    length_or_throw(Keys, At),
    {root(Key), storable(Keys, At)};
path(Key, At) ->
    {root(Key), [storable(Key, At)]}.

-spec length_or_throw(nonempty_maybe_improper_list(), [pos_integer()]) -> pos_integer().
length_or_throw(Keys, At) ->
    try
        length(Keys)
    catch
        error:badarg -> throw({mistake, At, invalid_path})
    end.

-spec root(key()) -> data | event.
root(Key) when ?IS_EVENT_KEY(Key) -> event;
root(_) -> data.

%% What an event on disk can have.
-spec storable(term(), [pos_integer()]) -> term().
storable(Term, At) ->
    is_storable(Term) orelse throw({mistake, At, not_storable}),
    Term.

-spec is_storable(term()) -> boolean().
is_storable([Head | Tail]) ->
    is_storable(Head) andalso is_storable(Tail);
is_storable(Tuple) when is_tuple(Tuple) ->
    is_storable(tuple_to_list(Tuple));
is_storable(Map) when is_map(Map) ->
    is_storable(maps:to_list(Map));
is_storable(Term) ->
    not (is_function(Term) orelse is_pid(Term) orelse is_port(Term) orelse is_reference(Term)).

-spec bytes(term(), [pos_integer()]) -> binary().
bytes(Bytes, _) when is_binary(Bytes) -> Bytes;
bytes(_, At) -> throw({mistake, At, not_a_binary}).

%% A pattern, or its handle: the bytes decide.
-spec pattern(atom(), term(), [pos_integer()]) -> binary().
pattern(Kind, {Kind, Pattern, _}, At) -> bytes(Pattern, At);
pattern(_, Pattern, At) -> bytes(Pattern, At).

-spec wildcard(normal_path(), binary()) -> normal().
wildcard(Path, Pattern) ->
    case esdb_wildcard_erl:compile(Pattern) of
        {equals, Bytes} -> {equals_bytes, Path, Bytes};
        {Op, Bytes} when Op =:= prefix; Op =:= suffix; Op =:= infix -> {Op, Path, Bytes};
        _ -> {wildcard, Path, Pattern}
    end.

-spec regex(binary(), [pos_integer()]) -> binary().
regex(Pattern, At) ->
    case esdb_regex_erl:parse(Pattern) of
        {ok, Parsed} -> esdb_regex_erl:rendering(Parsed);
        {error, Mistake} -> throw({mistake, At, {invalid_pattern, Mistake}})
    end.

-doc "The canonical bytes of a normal form.".
-spec canonical(normal()) -> binary().
canonical(Normal) -> term_to_binary(Normal, [deterministic, {minor_version, 2}]).

-doc "The normal form from its canonical bytes; `error` when they are anything else.".
-spec decode(binary() | term()) -> {ok, normal()} | error.
decode(<<131, Tag, _/binary>> = Canonical) when Tag =/= $P ->
    try binary_to_term(Canonical, [safe]) of
        Term -> checked(Term)
    catch
        error:badarg -> error
    end;
decode(_) ->
    error.

%% A term is a normal form when it is the one of the predicate that it reads as.
-spec checked(term()) -> {ok, normal()} | error.
checked(Term) ->
    try normalise(written(Term, 0)) of
        {ok, Term} -> {ok, Term};
        _ -> error
    catch
        throw:not_normal -> error
    end.

-spec written(term(), non_neg_integer()) -> predicate().
written(_, Depth) when Depth > ?MAX_DEPTH -> throw(not_normal);
written(Boolean, _) when is_boolean(Boolean) -> Boolean;
written({Op, Normals}, Depth) when (Op =:= 'and' orelse Op =:= 'or') ->
    {Op, each(Normals, [], 1, fun(Normal, _) -> written(Normal, Depth + 1) end)};
written({'not', Normal}, Depth) -> {'not', written(Normal, Depth + 1)};
written({exists, {_, Keys}}, _) -> {exists, Keys};
written({between, {_, Keys}, Low, High}, _) -> {between, Keys, Low, High};
written({equals_bytes, {_, Keys}, Bytes}, _) -> {wildcard, Keys, Bytes};
written({infix, {_, Keys}, Bytes}, _) when is_binary(Bytes) ->
    {wildcard, Keys, <<$*, Bytes/binary, $*>>};
written({Op, {_, Keys}, Value}, _) when Op =/= esdb_predicate -> {Op, Keys, Value};
written(_, _) -> throw(not_normal).

%% Evaluation

-doc "A normal form made ready for `matches/2`.".
-spec compile(normal()) -> compiled().
compile({Op, Normals}) when Op =:= 'and'; Op =:= 'or' ->
    {Op, [compile(Normal) || Normal <- Normals]};
compile({'not', Normal}) ->
    {'not', compile(Normal)};
compile({Op, Path, Values}) when Op =:= in; Op =:= any_of ->
    {Op, Path, #{Value => [] || Value <- Values}, [N || N <- Values, is_number(N)]};
compile({wildcard, Path, Pattern}) ->
    {ok, Handle} = esdb_filter_nif:compile_wildcard(Pattern),
    {wildcard, Path, Handle};
compile({infix, Path, Bytes}) ->
    {ok, Handle} = esdb_filter_nif:compile_wildcard(<<$*, Bytes/binary, $*>>),
    {wildcard, Path, Handle};
compile({regex, Path, Rendering}) ->
    {ok, Handle} = esdb_filter_nif:compile_regex(Rendering),
    {regex, Path, Handle};
compile(Normal) ->
    Normal.

-doc """
Whether an event satisfies a predicate. An event that is no map is `badarg`.

Data is the map under `data` where there is one, else the event itself.
""".
-spec matches(compiled(), Event :: map()) -> boolean().
matches(Compiled, Event) when is_map(Event) -> holds(Compiled, Event);
matches(_, _) -> error(badarg).

-spec holds(term(), map()) -> boolean().
holds(Boolean, _) when is_boolean(Boolean) ->
    Boolean;
holds({'and', Compiled}, Event) ->
    lists:all(fun(One) -> holds(One, Event) end, Compiled);
holds({'or', Compiled}, Event) ->
    lists:any(fun(One) -> holds(One, Event) end, Compiled);
holds({'not', Compiled}, Event) ->
    not holds(Compiled, Event);
holds({exists, Path}, Event) ->
    field(Path, Event) =/= missing;
holds({between, Path, Low, High}, Event) ->
    case field(Path, Event) of
        {value, Value} -> compares(gte, Value, Low) andalso compares(lte, Value, High);
        missing -> false
    end;
holds({in, Path, Set, Numbers}, Event) ->
    case field(Path, Event) of
        {value, Value} -> is_in(Value, Set, Numbers);
        missing -> false
    end;
holds({any_of, Path, Set, Numbers}, Event) ->
    case field(Path, Event) of
        {value, Values} when is_list(Values) -> is_any_in(Values, Set, Numbers);
        {value, Value} -> is_in(Value, Set, Numbers);
        missing -> false
    end;
holds({Op, Path, Operand}, Event) ->
    case field(Path, Event) of
        {value, Value} -> compares(Op, Value, Operand);
        missing -> false
    end;
holds(_, _) ->
    error(badarg).

-spec field(normal_path(), map()) -> {value, term()} | missing.
field({data, Keys}, #{data := Data}) when is_map(Data) -> lookup(Keys, Data);
field({_, Keys}, Event) -> lookup(Keys, Event).

-spec lookup([key()], term()) -> {value, term()} | missing.
lookup([Key], Map) when is_map_key(Key, Map) -> {value, map_get(Key, Map)};
lookup([Key | Keys], Map) when is_map_key(Key, Map) -> lookup(Keys, map_get(Key, Map));
lookup(_, _) -> missing.

-spec compares(atom(), term(), term()) -> boolean().
compares(eq, A, B) when is_number(A), is_number(B) -> A == B;
compares(eq, A, B) -> A =:= B;
compares(neq, A, B) -> not compares(eq, A, B);
compares(prefix, Value, Prefix) ->
    is_binary(Value) andalso esdb_filter_erl:has_prefix(Value, Prefix);
compares(suffix, Value, Suffix) ->
    is_binary(Value) andalso esdb_filter_erl:has_suffix(Value, Suffix);
compares(equals_bytes, Value, Bytes) -> Value =:= Bytes;
compares(wildcard, Value, Handle) ->
    is_binary(Value) andalso esdb_filter_nif:wildcard_match(Value, Handle);
compares(regex, Value, Handle) ->
    is_binary(Value) andalso esdb_filter_nif:regex_match(Value, Handle);
compares(Op, A, B) when is_number(A), is_number(B); is_binary(A), is_binary(B) ->
    ordered(Op, A, B);
compares(_, _, _) -> false.

-spec ordered(gt | gte | lt | lte, T, T) -> boolean().
ordered(gt, A, B) -> A > B;
ordered(gte, A, B) -> A >= B;
ordered(lt, A, B) -> A < B;
ordered(lte, A, B) -> A =< B.

%% Exactly, and a number also by its value.
-spec is_in(term(), #{term() => []}, [number()]) -> boolean().
is_in(Value, Set, _) when is_map_key(Value, Set) -> true;
is_in(Value, _, Numbers) when is_number(Value) -> lists:any(fun(N) -> N == Value end, Numbers);
is_in(_, _, _) -> false.

%% Of an improper list the end is no member.
-spec is_any_in(maybe_improper_list(), #{term() => []}, [number()]) -> boolean().
is_any_in([Value | Values], Set, Numbers) ->
    is_in(Value, Set, Numbers) orelse is_any_in(Values, Set, Numbers);
is_any_in(_, _, _) ->
    false.

%% Handles

-doc """
The handle of a predicate, or a handle that is good on this node: for what takes either.

Raises `badarg` when it is neither. The canonical bytes of a handle decide, unless what was made of
them is known to come from them.
""".
-spec handle(predicate() | term()) -> handle().
handle({esdb_predicate, Canonical, {Canonical, _}} = Handle) when is_binary(Canonical) ->
    Handle;
handle(Predicate) ->
    case normalise(Predicate) of
        {ok, Normal} -> made(Normal);
        {error, _} -> error(badarg)
    end.

-doc "The handle of a normal form.".
-spec made(normal()) -> handle().
made(Normal) ->
    Canonical = canonical(Normal),
    {esdb_predicate, Canonical, {Canonical, compile(Normal)}}.
