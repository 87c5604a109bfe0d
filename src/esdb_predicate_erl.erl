-module(esdb_predicate_erl).
-moduledoc """
Predicates on events: their normal form, its bytes, and the evaluation on maps.

```erlang
1> {ok, Normal} = esdb_predicate_erl:normalise({'and', [{event_type, ~"paid"}, {gt, amount, 10}]}).
{ok,{'and',[{eq,{event,[event_type]},<<"paid">>},{gt,{data,[amount]},10}]}}
2> Test = esdb_predicate_erl:compile(Normal).
3> esdb_predicate_erl:matches(Test, #{event_type => ~"paid", data => #{amount => 11}}).
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
itself; a path of the user that does not say so is one of the latter if its first key is
`stream_id`, `event_type`, `version`, `metadata`, `event_id` or `epoch_us`. No key or value has a
fun, pid, port or reference in it, and none takes more than 524,000 bytes.
""".

-export([normalise/1, canonical/1, decode/1]).
-export([compile/1, matches/2]).
-export([made/1, test/1, is_own/1]).
-export_type([predicate/0, path/0, normal/0, normal_path/0, test/0, handle/0]).
-export_type([mistake/0, reason/0]).

-type key() :: term().
-doc "A key, or several, one inside the other; behind `data` or `event` where that has to be said.".
-type path() :: term() | [term(), ...] | {data | event, term() | [term(), ...]}.
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
-type test() :: fun((Event :: map()) -> boolean()).
-type handle() :: {esdb_predicate, Canonical :: binary(), Kept :: term()}.

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
    | too_large
    | {too_deep, Limit :: pos_integer()}
    | {invalid_pattern, esdb_regex_erl:mistake()}.

-define(MAX_DEPTH, 100).

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
path({Root, _} = Path, At) when Root =:= event; Root =:= data -> keys(Path, [2 | At]);
path(Path, At) -> keys(Path, At).

-spec keys(path(), [pos_integer()]) -> normal_path().
keys(Path, At) ->
    case esdb_path:parse(Path) of
        invalid -> throw({mistake, At, invalid_path});
        {Root, Keys} -> {Root, storable(Keys, At)}
    end.

%% What an event on disk can have.
-spec storable(term(), [pos_integer()]) -> term().
storable(Term, At) ->
    esdb_etf_erl:is_askable(Term) orelse throw({mistake, At, too_large}),
    esdb_etf_erl:is_storable(Term) orelse throw({mistake, At, not_storable}),
    Term.

-spec bytes(term(), [pos_integer()]) -> binary().
bytes(Bytes, _) when is_binary(Bytes) -> Bytes;
bytes(_, At) -> throw({mistake, At, not_a_binary}).

%% A pattern, or its handle: the bytes decide.
-spec pattern(atom(), term(), [pos_integer()]) -> binary().
pattern(Kind, {Kind, Pattern, _}, At) -> bytes(Pattern, At);
pattern(_, Pattern, At) -> bytes(Pattern, At).

-spec wildcard(normal_path(), binary()) ->
    {prefix | suffix | equals_bytes | infix | wildcard, normal_path(), binary()}.
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
    try
        {ok, Normal} = checked(binary_to_term(Canonical, [safe])),
        %% One form has one encoding.
        Canonical = canonical(Normal),
        {ok, Normal}
    catch
        error:_ -> error
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
        throw:not_normal -> error;
        throw:{mistake, _, _} -> error
    end.

-spec written(term(), non_neg_integer()) -> boolean() | tuple().
written(_, Depth) when Depth > ?MAX_DEPTH -> throw(not_normal);
written(Boolean, _) when is_boolean(Boolean) -> Boolean;
written({Op, Normals}, Depth) when (Op =:= 'and' orelse Op =:= 'or') ->
    {Op, each(Normals, [], 1, fun(Normal, _) -> written(Normal, Depth + 1) end)};
written({'not', Normal}, Depth) -> {'not', written(Normal, Depth + 1)};
written({exists, {_, _}} = Normal, _) -> Normal;
written({between, {_, _}, _, _} = Normal, _) -> Normal;
written({equals_bytes, {_, _} = Path, Bytes}, _) -> {wildcard, Path, Bytes};
written({infix, {_, _} = Path, Bytes}, _) when is_binary(Bytes) ->
    {wildcard, Path, <<$*, Bytes/binary, $*>>};
written({Op, {_, _}, _} = Normal, _) when Op =/= esdb_predicate -> Normal;
written(_, _) -> throw(not_normal).

%% Evaluation

%% A test of the field at a path, called V. The fields that are asked for most, a key of the event
%% or of its data, are matched in the head of the fun: that is what a fun of the caller would do. (A
%% key that stands there as it is, and is in no variable, is found twice as fast.)
-define(ON(Path, V, Test),
    case Path of
        {event, [event_type]} ->
            fun
                (#{event_type := V}) -> Test;
                (_) -> false
            end;
        {event, [Key]} ->
            fun
                (#{Key := V}) -> Test;
                (_) -> false
            end;
        {data, [Key]} ->
            fun
                (#{data := #{Key := V}}) -> Test;
                (#{data := #{}}) -> false;
                (#{Key := V}) -> Test;
                (_) -> false
            end;
        {Root, Keys} ->
            fun(Event) ->
                case field(Root, Keys, Event) of
                    {value, V} -> Test;
                    missing -> false
                end
            end
    end
).

-doc "A normal form as a fun that takes an event, which must be a map.".
-spec compile(normal()) -> test().
compile(Boolean) when is_boolean(Boolean) ->
    fun(_) -> Boolean end;
compile({'and', [{eq, {event, [event_type]}, Type} | Normals]}) when not is_number(Type) ->
    Test = compile({'and', Normals}),
    fun
        (#{event_type := V} = Event) when V =:= Type -> Test(Event);
        (_) -> false
    end;
compile({'and', Normals}) ->
    all([compile(Normal) || Normal <- Normals]);
compile({'or', Normals}) ->
    any([compile(Normal) || Normal <- Normals]);
compile({'not', Normal}) ->
    Test = compile(Normal),
    fun(Event) -> not Test(Event) end;
compile({exists, Path}) ->
    ?ON(Path, _, true);
compile({Op, Path, Value}) when Op =:= eq; Op =:= neq ->
    equal(Op, Path, Value);
compile({Op, Path, Value}) when ?IS_COMPARISON(Op) ->
    compared(Op, Path, Value);
compile({between, Path, Low, High}) when
    is_number(Low), is_number(High); is_binary(Low), is_binary(High)
->
    all([compared(gte, Path, Low), compared(lte, Path, High)]);
compile({between, _, _, _}) ->
    compile(false);
compile({Op, Path, Values}) when Op =:= in; Op =:= any_of ->
    member(Op, Path, esdb_member_erl:new(Values));
compile({equals_bytes, Path, Bytes}) ->
    equal(eq, Path, Bytes);
compile({Op, Path, Bytes}) ->
    text(Op, Path, Bytes).

-spec all([test()]) -> test().
all([]) -> compile(true);
all([Test]) -> Test;
all([A, B]) ->
    fun(Event) ->
        case A(Event) of
            true -> B(Event);
            false -> false
        end
    end;
all([A | Tests]) -> all([A, all(Tests)]).

-spec any([test()]) -> test().
any([]) -> compile(false);
any([Test]) -> Test;
any([A, B]) -> fun(Event) -> A(Event) orelse B(Event) end;
any([A | Tests]) -> any([A, any(Tests)]).

%% Nothing but a number is `==` to a number.
-spec equal(eq | neq, normal_path(), term()) -> test().
equal(eq, Path, Number) when is_number(Number) -> ?ON(Path, V, V == Number);
equal(neq, Path, Number) when is_number(Number) -> ?ON(Path, V, V /= Number);
equal(eq, Path, Value) -> ?ON(Path, V, V =:= Value);
equal(neq, Path, Value) -> ?ON(Path, V, V =/= Value).

%% Numbers with numbers, binaries with binaries; anything else is in no order.
-spec compared(gt | gte | lt | lte, normal_path(), term()) -> test().
compared(gt, Path, N) when is_number(N) -> ?ON(Path, V, is_number(V) andalso V > N);
compared(gte, Path, N) when is_number(N) -> ?ON(Path, V, is_number(V) andalso V >= N);
compared(lt, Path, N) when is_number(N) -> ?ON(Path, V, is_number(V) andalso V < N);
compared(lte, Path, N) when is_number(N) -> ?ON(Path, V, is_number(V) andalso V =< N);
compared(gt, Path, B) when is_binary(B) -> ?ON(Path, V, is_binary(V) andalso V > B);
compared(gte, Path, B) when is_binary(B) -> ?ON(Path, V, is_binary(V) andalso V >= B);
compared(lt, Path, B) when is_binary(B) -> ?ON(Path, V, is_binary(V) andalso V < B);
compared(lte, Path, B) when is_binary(B) -> ?ON(Path, V, is_binary(V) andalso V =< B);
compared(_, _, _) -> compile(false).

-spec member(in | any_of, normal_path(), esdb_member_erl:set()) -> test().
member(in, Path, Set) -> ?ON(Path, V, esdb_member_erl:is_in(V, Set));
member(any_of, Path, Set) -> ?ON(Path, V, esdb_member_erl:is_any_in(V, Set)).

-spec text(prefix | suffix | infix | wildcard | regex, normal_path(), binary()) -> test().
text(prefix, Path, Prefix) ->
    ?ON(Path, V, is_binary(V) andalso esdb_filter_erl:has_prefix(V, Prefix));
text(suffix, Path, Suffix) ->
    ?ON(Path, V, is_binary(V) andalso esdb_filter_erl:has_suffix(V, Suffix));
text(infix, Path, Bytes) ->
    text(wildcard, Path, <<$*, Bytes/binary, $*>>);
text(wildcard, Path, Pattern) ->
    {ok, Handle} = esdb_filter_nif:compile_wildcard(Pattern),
    ?ON(Path, V, is_binary(V) andalso esdb_filter_nif:wildcard_match(V, Handle));
text(regex, Path, Rendering) ->
    {ok, Handle} = esdb_filter_nif:compile_regex(Rendering),
    ?ON(Path, V, is_binary(V) andalso esdb_filter_nif:regex_match(V, Handle)).

-doc """
Whether an event satisfies a predicate. An event that is no map is `badarg`.

Data is the map under `data` where there is one, else the event itself.
""".
-spec matches(test(), Event :: map()) -> boolean().
matches(Test, Event) when is_map(Event) -> Test(Event);
matches(_, _) -> error(badarg).

-spec field(data | event, [key(), ...], map()) -> {value, term()} | missing.
field(data, Keys, #{data := #{} = Data}) -> lookup(Keys, Data);
field(_, Keys, Event) -> lookup(Keys, Event).

-spec lookup([key(), ...], term()) -> {value, term()} | missing.
lookup([Key], Map) when is_map_key(Key, Map) -> {value, map_get(Key, Map)};
lookup([Key | Keys], Map) when is_map_key(Key, Map) -> lookup(Keys, map_get(Key, Map));
lookup(_, _) -> missing.

%% Handles

-doc "The handle of a normal form.".
-spec made(normal()) -> handle().
made(Normal) ->
    Canonical = canonical(Normal),
    Test = compile(Normal),
    {esdb_predicate, Canonical, fun() -> {Canonical, Test} end}.

-doc """
What a predicate, or its handle, asks of an event that is a map.

Raises `badarg` when it is neither. The canonical bytes of a handle decide: what it carries besides
counts only if this module made it of these bytes. It is a fun because nobody else can make one of
this module's.
""".
-spec test(predicate() | term()) -> test().
test({esdb_predicate, Canonical, Kept} = Handle) ->
    case esdb_handle:opened(Kept, ?MODULE) of
        {ok, {Canonical, Test}} when is_function(Test, 1) -> Test;
        _ -> test_anew(Handle)
    end;
test(Predicate) ->
    test_anew(Predicate).

-spec test_anew(predicate() | term()) -> test().
test_anew(Predicate) ->
    case normalise(Predicate) of
        {ok, Normal} -> compile(Normal);
        {error, _} -> error(badarg)
    end.

-doc "Whether this module made the handle, so that its bytes need not be read to be trusted.".
-spec is_own(term()) -> boolean().
is_own({esdb_predicate, Canonical, Kept}) ->
    case esdb_handle:opened(Kept, ?MODULE) of
        {ok, {Canonical, _}} when is_binary(Canonical) -> true;
        _ -> false
    end;
is_own(_) ->
    false.

