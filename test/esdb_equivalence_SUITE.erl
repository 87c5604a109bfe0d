-module(esdb_equivalence_SUITE).
-moduledoc """
The contract of the twins: for every exported function and every input, valid or not, the native
library and the Erlang twin give the same value or the same class of error.

The suite walks the exports, so a function without a generator fails it. A generator module
`esdb_X_gen` stands beside it for each module `esdb_X_nif` and exports

- `args(Function, Arity)`: the PropEr type of the argument list. `{'$make', M, F, A}` anywhere in
  it is evaluated on the node that runs the case (handles must be made there). To draw arguments
  takes longer than most calls: functions of the same type are called with the same;
- `cost(Function, Arity)`: `cheap` (10,000 cases) or `costly` (1,000);
- `observe(Function, Arguments, Result)`: what must be equal of a result; runs where the result was
  made, with the arguments it was made from.

`ESDB_PROP=N` multiplies the number of cases.
""".

-compile(export_all).

-include_lib("proper/include/proper.hrl").
-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-define(MODULES, esdb_nif:modules()).
-define(NOT_COMPARED, [
    {module_info, 0}, {module_info, 1}, {implementation, 0}, {is_nif_loaded, 0}
]).

suite() -> [{timetrap, {minutes, 20}}].

all() ->
    [every_export_has_a_generator, generators_tell_results_apart] ++
        [{group, Module} || Module <- ?MODULES].

groups() -> [{M, [], [a_nif_05_both_implementations_agree]} || M <- ?MODULES].

init_per_group(Module, Config) -> [{module, Module} | Config].

end_per_group(_Module, _Config) -> ok.

every_export_has_a_generator(_Config) ->
    ?assertEqual(
        [],
        [{M, F, A} || M <- ?MODULES, {F, A} <- exports(M), not has_generator(M, F, A)]
    ).

%% A generator that yields the same result for all its cases would prove nothing.
generators_tell_results_apart(_Config) ->
    ?assertEqual(
        [],
        [{M, F, A} || M <- ?MODULES, {F, A} <- exports(M), A > 0, not tells_apart(M, F, A)]
    ).

a_nif_05_both_implementations_agree(Config) ->
    Module = ?config(module, Config),
    {Here, There} = modes(Module),
    ct:pal("~s: ~s here, ~s in the peer", [Module, Here, There]),
    Peer = esdb_peer:start(There),
    try
        %% Both nodes know the atoms of the cases.
        {value, {module, _}} = esdb_peer:call(Peer, code, ensure_loaded, [generator(Module)]),
        %% The proof that two implementations are compared, and not one with itself.
        Answer = esdb_peer:call(Peer, Module, implementation, []),
        ?assertEqual({value, implementation(There)}, Answer),
        Found = [disagreement(Peer, Module, Functions) || Functions <- alike(Module)],
        ?assertEqual([], lists:append(Found))
    after
        esdb_peer:stop(Peer)
    end.

%% Which implementation runs here, and which one the peer shall run. Where no library has been
%% built the peer runs Erlang too: the cases still prove that hostile input raises nothing but
%% badarg.
modes(Module) ->
    Built = filelib:wildcard("esdb_*_nif.so", code:priv_dir(erl_esdb_nifs)) =/= [],
    case Module:implementation() of
        nif -> {nif, off};
        erlang when Built -> {erlang, require};
        erlang -> {erlang, off}
    end.

implementation(require) -> nif;
implementation(off) -> erlang.

%% Functions whose arguments are drawn alike.
alike(Module) ->
    Type = fun({F, A}) -> {cases(Module, F, A), arguments(Module, F, A)} end,
    Typed = [{Type(Function), Function} || Function <- exports(Module)],
    [[F || {T, F} <- Typed, T =:= Type1] || Type1 <- lists:uniq([T || {T, _} <- Typed])].

disagreement(Peer, Module, [{Function, Arity} | _] = Functions) ->
    Cases = cases(Module, Function, Arity),
    Property = ?FORALL(Arguments, arguments(Module, Function, Arity), begin
        Asked = [Module, [F || {F, _} <- Functions], Arguments],
        Here = apply(?MODULE, evaluate_each, Asked),
        There = peer:call(Peer, ?MODULE, evaluate_each, Asked, 120_000),
        Differ = differ(Functions, Here, There),
        ?WHENFAIL(
            [
                ct:pal("~s:~s~nhere:  ~P~nthere: ~P~nargs: ~P", [
                    Module, F, H, 60, T, 60, Arguments, 60
                ])
             || {{F, _}, H, T} <- Differ
            ],
            Differ =:= []
        )
    end),
    Check = fun() -> proper:quickcheck(Property, [quiet, {numtests, Cases}]) end,
    {Time, Result} = timer:tc(Check, millisecond),
    ct:log("~s ~0p: ~b cases, ~b ms", [Module, Functions, Cases, Time]),
    [{Module, Functions, proper:counterexample()} || Result =/= true].

differ(Functions, Here, There) ->
    [
        {Function, H, T}
     || {Function, H, T} <- lists:zip3(Functions, Here, There),
        class(H) =/= class(T) orelse not is_expected(H)
    ].

%% Exported because it runs on the peer too.
evaluate_each(Module, Functions, Arguments) ->
    [evaluate(Module, Function, Arguments) || Function <- Functions].

evaluate(Module, Function, Arguments) ->
    Resolved = resolve(Arguments),
    case esdb_peer:evaluate(Module, Function, Resolved) of
        {value, Value} -> {value, (generator(Module)):observe(Function, Resolved, Value)};
        Raised -> Raised
    end.

resolve({'$make', Module, Function, Arguments}) -> apply(Module, Function, resolve(Arguments));
resolve([Head | Tail]) -> [resolve(Head) | resolve(Tail)];
resolve(Tuple) when is_tuple(Tuple) -> list_to_tuple(resolve(tuple_to_list(Tuple)));
resolve(Map) when is_map(Map) -> #{K => resolve(V) || K := V <- Map};
resolve(Term) -> Term.

class({value, Value}) -> {value, Value};
class({Class, Reason}) -> {Class, Reason}.

%% Misuse is badarg; anything else that is raised is a bug, even if both sides raise it.
is_expected({value, _}) -> true;
is_expected({error, badarg}) -> true;
%% Arithmetic that Erlang's own would not do either.
is_expected({error, badarith}) -> true;
is_expected(_) -> false.

%% What is raised does not count.
tells_apart(Module, Function, Arity) ->
    tells_apart(arguments(Module, Function, Arity), Module, Function, [], 1_000).

tells_apart(_, _, _, _, 0) ->
    false;
tells_apart(Type, Module, Function, Known, Left) ->
    case evaluate(Module, Function, sample(Type)) of
        {value, Value} when Known =:= [Value]; Known =:= [] ->
            tells_apart(Type, Module, Function, [Value], Left - 1);
        {value, _} ->
            true;
        _ ->
            tells_apart(Type, Module, Function, Known, Left - 1)
    end.

sample(Type) ->
    {ok, Arguments} = proper_gen:pick(Type),
    Arguments.

arguments(Module, Function, Arity) -> (generator(Module)):args(Function, Arity).

cases(Module, Function, Arity) ->
    Base =
        case (generator(Module)):cost(Function, Arity) of
            cheap -> 10_000;
            costly -> 1_000
        end,
    %% In the run with the library switched off the same comparison is made a second time.
    Share =
        case Module:implementation() of
            nif -> 1;
            erlang -> 10
        end,
    max(50, Base * list_to_integer(os:getenv("ESDB_PROP", "1")) div Share).

has_generator(Module, Function, Arity) ->
    try
        {ok, Arguments} = proper_gen:pick(arguments(Module, Function, Arity)),
        length(Arguments) =:= Arity
    catch
        error:_ -> false
    end.

exports(Module) -> Module:module_info(exports) -- ?NOT_COMPARED.

generator(Module) ->
    Name = atom_to_list(Module),
    list_to_atom(lists:sublist(Name, length(Name) - length("_nif")) ++ "_gen").
