-module(erl_esdb_snapshot_policy).
-moduledoc """
When a snapshot is due, and how it is made: the work behind `erl_esdb_snapshots:maybe_snapshot/2`
and of `m:erl_esdb_snapshotter`, which has it done by itself.

A policy is a document under `{snapshot_policy, Pattern}`.

```erlang
1> erl_esdb_snapshot_policy:is_due(#{every => 100}, 199, 99).
true
```
""".

-export([set/3, get/2, delete/2, list/1, run/2]).
-export([choose/2, is_due/3, superfluous/2]).
-export_type([policy/0]).

-include("erl_esdb.hrl").

-define(PAGE, 1000).

-type policy() :: #{
    every := pos_integer(),
    fold := {module(), atom(), Args :: [term()]},
    keep => pos_integer() | infinity,
    initial => term(),
    automatic => boolean()
}.

-doc false.
-spec set(atom(), binary(), policy()) -> ok | {error, term()}.
set(Store, Pattern, Policy) when is_binary(Pattern), is_map(Policy) ->
    maybe
        {ok, Whole} ?= check(Policy),
        {ok, _} ?= erl_esdb_store:put_document(Store, {snapshot_policy, Pattern}, Whole),
        erl_esdb_snapshotter:policies_changed(Store)
    end;
set(_, _, _) ->
    error(badarg).

-spec check(map()) -> {ok, policy()} | {error, {invalid_option, term(), term()}}.
check(Policy) ->
    Whole = maps:merge(#{every => undefined, fold => undefined, keep => infinity}, Policy),
    case [{Key, Value} || Key := Value <- Whole, not is_valid(Key, Value)] of
        [] -> {ok, maps:merge(#{initial => #{}, automatic => true}, Whole)};
        [{Key, Value} | _] -> {error, {invalid_option, Key, Value}}
    end.

-spec is_valid(term(), term()) -> boolean().
is_valid(every, Every) ->
    is_integer(Every) andalso Every > 0;
is_valid(keep, Keep) ->
    Keep =:= infinity orelse (is_integer(Keep) andalso Keep > 0);
is_valid(fold, {Module, Function, Args}) ->
    is_atom(Module) andalso is_atom(Function) andalso is_list(Args) andalso
        is_function_of(Module, Function, length(Args) + 2);
is_valid(automatic, Automatic) ->
    is_boolean(Automatic);
is_valid(Key, _) ->
    Key =:= initial.

-spec is_function_of(module(), atom(), arity()) -> boolean().
is_function_of(Module, Function, Arity) ->
    _ = code:ensure_loaded(Module),
    erlang:function_exported(Module, Function, Arity).

-doc false.
-spec get(atom(), binary()) -> {ok, {binary(), policy()}} | {error, term()}.
get(Store, Stream) when is_binary(Stream) ->
    maybe
        {ok, Patterns} ?= patterns(Store),
        {ok, Pattern} ?= choose(Patterns, Stream),
        {ok, Policy} ?= erl_esdb_store:get_document(Store, {snapshot_policy, Pattern}),
        {ok, {Pattern, Policy}}
    end;
get(_, _) ->
    error(badarg).

-doc "The pattern that holds for a stream: the closest of those that match.".
-spec choose([binary()], Stream :: binary()) -> {ok, binary()} | {error, not_found}.
choose(Patterns, Stream) ->
    Matching = [
        {-weight(Pattern), Pattern}
     || Pattern <- Patterns,
        erl_esdb_pattern:matches(Stream, erl_esdb_pattern:compile(Pattern))
    ],
    case lists:sort(Matching) of
        [{_, Pattern} | _] -> {ok, Pattern};
        [] -> {error, not_found}
    end.

-spec weight(binary()) -> non_neg_integer().
weight(Pattern) -> byte_size(binary:replace(Pattern, ~"*", ~"", [global])).

-doc false.
-spec delete(atom(), binary()) -> ok | {error, term()}.
delete(Store, Pattern) when is_binary(Pattern) ->
    maybe
        ok ?= erl_esdb_store:delete_document(Store, {snapshot_policy, Pattern}),
        ok ?= erl_esdb_store:save_checkpoints(Store, #{{snapshot_policy, Pattern} => delete}),
        erl_esdb_snapshotter:policies_changed(Store)
    end;
delete(_, _) ->
    error(badarg).

-doc false.
-spec list(atom()) -> {ok, #{binary() => policy()}} | {error, term()}.
list(Store) ->
    maybe
        {ok, Patterns} ?= patterns(Store),
        Documents = [
            {Pattern, erl_esdb_store:get_document(Store, {snapshot_policy, Pattern})}
         || Pattern <- Patterns
        ],
        {ok, #{Pattern => Policy || {Pattern, {ok, Policy}} <- Documents}}
    end.

-spec patterns(atom()) -> {ok, [binary()]} | {error, term()}.
patterns(Store) ->
    %% There is no greatest binary; the next atom is the bound.
    From = {snapshot_policy, <<>>},
    case erl_esdb_store:list_documents(Store, From, {snapshot_policy_, <<>>}) of
        {ok, Keys} -> {ok, [Pattern || {{snapshot_policy, Pattern}, _} <- Keys]};
        {error, Reason} -> {error, Reason}
    end.

-doc false.
-spec run(atom(), binary()) ->
    {saved, non_neg_integer()} | not_due | no_policy | {error, term()}.
run(Store, Stream) ->
    case get(Store, Stream) of
        {ok, {_Pattern, Policy}} -> run(Store, Stream, Policy);
        {error, not_found} -> no_policy;
        {error, Reason} -> {error, Reason}
    end.

-spec run(atom(), binary(), policy()) -> {saved, non_neg_integer()} | not_due | {error, term()}.
run(Store, Stream, Policy) ->
    maybe
        {ok, #{first := First, next := Next}} ?= erl_esdb_store:info(Store, Stream),
        {ok, Versions} ?= erl_esdb_snapshots_store:versions(Store, Stream),
        Latest = lists:last([-1 | Versions]),
        true ?= is_due(Policy, Next - 1, Latest),
        ok ?= continues(Stream, Latest + 1, First),
        {ok, State, Version} ?= state(Store, Stream, Policy, Latest),
        %% Not so where the events were removed while we read.
        true ?= Version > Latest,
        ok ?= erl_esdb_snapshots:save(Store, Stream, Version, State),
        ok ?= prune(Store, Stream, superfluous(Policy, Versions ++ [Version])),
        {saved, Version}
    else
        false -> not_due;
        {error, Reason} -> {error, Reason}
    end.

-doc "Whether enough events came after the latest snapshot; -1 stands for none.".
-spec is_due(#{every := pos_integer(), _ => _}, Version :: integer(), Latest :: integer()) ->
    boolean().
is_due(#{every := Every}, Version, Latest) -> Version - Latest >= Every.

-doc "Which of these versions are not kept.".
-spec superfluous(#{keep := pos_integer() | infinity, _ => _}, [non_neg_integer()]) ->
    [non_neg_integer()].
superfluous(#{keep := infinity}, _) -> [];
superfluous(#{keep := Keep}, Versions) -> lists:sublist(Versions, max(0, length(Versions) - Keep)).

-spec continues(binary(), non_neg_integer(), non_neg_integer()) ->
    ok | {error, {events_removed, binary(), non_neg_integer(), non_neg_integer()}}.
continues(_Stream, From, First) when First =< From -> ok;
continues(Stream, From, First) -> {error, {events_removed, Stream, From, First}}.

-spec state(atom(), binary(), policy(), integer()) ->
    {ok, State :: term(), Version :: non_neg_integer()} | {error, term()}.
state(Store, Stream, #{initial := Initial} = Policy, -1) ->
    fold(Store, Stream, 0, Policy, Initial);
state(Store, Stream, Policy, Latest) ->
    maybe
        {ok, #snapshot{data = State}} ?= erl_esdb_snapshots:load_at(Store, Stream, Latest),
        fold(Store, Stream, Latest + 1, Policy, State)
    end.

-spec fold(atom(), binary(), non_neg_integer(), policy(), term()) ->
    {ok, term(), non_neg_integer()} | {error, term()}.
fold(Store, Stream, From, #{fold := {Module, Function, Args}} = Policy, State) ->
    Step = fun(Event, Acc) -> apply(Module, Function, [Event, Acc | Args]) end,
    case erl_esdb_store:read(Store, Stream, From, ?PAGE, forward, #{}) of
        {ok, [#event{version = From} | _] = Events} ->
            State1 = lists:foldl(Step, State, Events),
            fold(Store, Stream, From + length(Events), Policy, State1);
        {ok, []} ->
            {ok, State, From - 1};
        %% Events were removed while we read.
        {ok, [#event{version = First} | _]} ->
            {error, {events_removed, Stream, From, First}};
        {error, Reason} ->
            {error, Reason}
    end.

-spec prune(atom(), binary(), [non_neg_integer()]) -> ok | {error, term()}.
prune(Store, Stream, [Version | Versions]) ->
    maybe
        ok ?= erl_esdb_snapshots:delete_at(Store, Stream, Version),
        prune(Store, Stream, Versions)
    end;
prune(_Store, _Stream, []) ->
    ok.
