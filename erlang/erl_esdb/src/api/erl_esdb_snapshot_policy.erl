-module(erl_esdb_snapshot_policy).
-moduledoc """
When a snapshot is due, and how it is made: the work behind `erl_esdb_snapshots:maybe_snapshot/2`
and of `m:erl_esdb_snapshotter`, which has it done by itself.

A policy is a document under `{snapshot_policy, Pattern}`. A snapshot that it makes has a mark
(`m:erl_esdb_snapshot_marks`): so one of a stream that was deleted is not taken for one of another
of its name.

```erlang
1> erl_esdb_snapshot_policy:is_due(#{every => 100}, 199, 99).
true
```
""".

-export([set/4, get/3, delete/3, list/2, run/3]).
-export([choose/2, is_due/3, is_due/5, superfluous/2]).
-export_type([policy/0, seen/0]).

-include("erl_esdb.hrl").

-define(PAGE, 1000).

-type policy() :: #{
    every := pos_integer(),
    fold := {module(), atom(), Args :: [term()]},
    keep => pos_integer() | infinity,
    initial => term(),
    automatic => boolean(),
    decode => erl_esdb_json:codec()
}.
-type options() :: erl_esdb_snapshots_store:options().
%% The number of a stream, its first version, and that of its newest snapshot.
-type seen() :: {No :: pos_integer(), Base :: non_neg_integer(), Latest :: integer()}.

-doc false.
-spec set(atom(), binary(), policy(), options()) -> ok | {error, term()}.
set(Store, Pattern, Policy, Options) when is_binary(Pattern), is_map(Policy) ->
    maybe
        {ok, Whole} ?= check(Policy),
        {ok, _} ?= erl_esdb_store:put_document(Store, {snapshot_policy, Pattern}, Whole, Options),
        erl_esdb_snapshotter:policies_changed(Store)
    end;
set(_, _, _, _) ->
    error(badarg).

-spec check(map()) -> {ok, policy()} | {error, {invalid_option, term(), term()}}.
check(Policy) ->
    Whole = maps:merge(#{every => undefined, fold => undefined, keep => infinity}, Policy),
    case [{Key, Value} || Key := Value <- Whole, not is_valid(Key, Value)] of
        [] -> {ok, maps:merge(#{initial => #{}, automatic => true, decode => none}, Whole)};
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
is_valid(decode, Codec) ->
    Codec =:= none orelse Codec =:= json;
is_valid(Key, _) ->
    Key =:= initial.

-spec is_function_of(module(), atom(), arity()) -> boolean().
is_function_of(Module, Function, Arity) ->
    _ = code:ensure_loaded(Module),
    erlang:function_exported(Module, Function, Arity).

-doc false.
-spec get(atom(), binary(), options()) -> {ok, {binary(), policy()}} | {error, term()}.
get(Store, Stream, Options) when is_binary(Stream) ->
    maybe
        {ok, Patterns} ?= patterns(Store, Options),
        {ok, Pattern} ?= choose(Patterns, Stream),
        {ok, Policy} ?= erl_esdb_store:get_document(Store, {snapshot_policy, Pattern}, Options),
        {ok, {Pattern, Policy}}
    end;
get(_, _, _) ->
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
-spec delete(atom(), binary(), options()) -> ok | {error, term()}.
delete(Store, Pattern, Options) when is_binary(Pattern) ->
    Key = {snapshot_policy, Pattern},
    maybe
        ok ?= erl_esdb_store:delete_document(Store, Key, Options),
        ok ?= erl_esdb_store:save_checkpoints(Store, #{Key => delete}),
        erl_esdb_snapshotter:policies_changed(Store)
    end;
delete(_, _, _) ->
    error(badarg).

-doc false.
-spec list(atom(), options()) -> {ok, #{binary() => policy()}} | {error, term()}.
list(Store, Options) ->
    maybe
        {ok, Patterns} ?= patterns(Store, Options),
        Documents = [
            {Pattern, erl_esdb_store:get_document(Store, {snapshot_policy, Pattern}, Options)}
         || Pattern <- Patterns
        ],
        {ok, #{Pattern => Policy || {Pattern, {ok, Policy}} <- Documents}}
    end.

-spec patterns(atom(), options()) -> {ok, [binary()]} | {error, term()}.
patterns(Store, Options) ->
    %% There is no greatest binary; the next atom is the bound.
    {From, To} = {{snapshot_policy, <<>>}, {snapshot_policy_, <<>>}},
    case erl_esdb_store:list_documents(Store, From, To, Options) of
        {ok, Keys} -> {ok, [Pattern || {{snapshot_policy, Pattern}, _} <- Keys]};
        {error, Reason} -> {error, Reason}
    end.

-doc false.
-spec run(atom(), binary(), options()) ->
    {saved, non_neg_integer()} | not_due | no_policy | {error, term()}.
run(Store, Stream, Options) ->
    Timed = maps:with([timeout], Options),
    case get(Store, Stream, Timed) of
        {ok, {_Pattern, Policy}} -> run(Store, Stream, Policy, Timed);
        {error, not_found} -> no_policy;
        {error, Reason} -> {error, Reason}
    end.

-spec run(atom(), binary(), policy(), options()) ->
    {saved, non_neg_integer()} | not_due | {error, term()}.
run(Store, Stream, Policy, Timed) ->
    maybe
        {ok, #{info := Info, latest := Latest, state := State} = Known} ?=
            known(Store, Stream, Policy, Timed),
        #{no := No, base := Base, first := First, next := Next} = Info,
        true ?= is_due(Policy, Next - 1, Latest),
        %% First: where none can be made none is removed.
        ok ?= continues(Stream, Latest + 1, First),
        Others = others(Store, Stream, Known, Timed),
        ok ?= prune(Store, Stream, Others, Timed),
        {ok, State1, Version} ?= fold(Store, Stream, Latest, Policy, State, Timed),
        %% Not so where the events were removed while we read.
        true ?= Version > Latest,
        %% The same before and after, so it was this one that was read.
        {ok, #{no := No, base := Base}} ?= erl_esdb_pages:info(Store, Stream, Timed),
        {ok, Metadata} ?= erl_esdb_snapshot_marks:metadata(Store, No, Timed),
        ok ?= erl_esdb_snapshots:save(Store, Stream, Version, State1, Metadata, Timed),
        Kept = (map_get(versions, Known) -- Others) ++ [Version],
        ok ?= prune(Store, Stream, superfluous(Policy, Kept), Timed),
        {saved, Version}
    else
        false -> not_due;
        {error, Reason} -> {error, Reason};
        {ok, _Another} -> run(Store, Stream, Policy, Timed)
    end.

-doc false.
%% Whether `run/3' would make one now, and what was seen of the stream. Which snapshot is its newest
%% is not known without reading it, with the state in it. So that is done where one is due by what
%% was seen before, and not for each event.
-spec is_due(atom(), binary(), policy(), Before :: seen() | none, options()) ->
    {ok, boolean(), seen()} | {error, term()}.
is_due(Store, Stream, Policy, Before, Timed) ->
    case is_early(Store, Stream, Policy, Before, Timed) of
        {ok, true} -> {ok, false, Before};
        {ok, false} -> look(Store, Stream, Policy, Timed);
        {error, Reason} -> {error, Reason}
    end.

-spec look(atom(), binary(), policy(), options()) -> {ok, boolean(), seen()} | {error, term()}.
look(Store, Stream, Policy, Timed) ->
    case known(Store, Stream, Policy, Timed) of
        {ok, #{info := #{no := No, base := Base, next := Next}, latest := Latest}} ->
            {ok, is_due(Policy, Next - 1, Latest), {No, Base, Latest}};
        {error, Reason} ->
            {error, Reason}
    end.

-spec is_early(atom(), binary(), policy(), seen() | none, options()) ->
    {ok, boolean()} | {error, term()}.
is_early(_Store, _Stream, _Policy, none, _Timed) ->
    {ok, false};
is_early(Store, Stream, Policy, {No, Base, Latest}, Timed) ->
    maybe
        {ok, #{no := No, base := Base, next := Next}} ?= erl_esdb_pages:info(Store, Stream, Timed),
        false ?= is_due(Policy, Next - 1, Latest),
        is_kept(Store, Stream, Base, Latest, Timed)
    else
        {error, Reason} -> {error, Reason};
        %% It is due, or the stream is another one.
        _ -> {ok, false}
    end.

%% Before the first version there is no snapshot.
-spec is_kept(atom(), binary(), non_neg_integer(), integer(), options()) ->
    {ok, boolean()} | {error, term()}.
is_kept(_Store, _Stream, Base, Latest, _Timed) when Latest < Base ->
    {ok, true};
is_kept(Store, Stream, _Base, Latest, Timed) ->
    try
        {ok, erl_esdb_snapshots_store:exists(Store, Stream, Latest, Timed)}
    catch
        error:{erl_esdb, Reason} -> {error, Reason}
    end.

%% A stream and the versions that have a snapshot; of which version the newest one of this stream
%% is, and the state in it. The name may have been that of other streams, whose snapshots outlive
%% them: `others' are of such streams, and of those that are `outside' nothing is part of this one.
-type known() :: #{
    info := erl_esdb_log:info(),
    versions := [non_neg_integer()],
    latest := integer(),
    state := term(),
    others := [non_neg_integer()],
    outside := [non_neg_integer()]
}.

-spec known(atom(), binary(), policy(), options()) -> {ok, known()} | {error, term()}.
known(Store, Stream, #{initial := Initial}, Timed) ->
    maybe
        %% First: so none of them is newer than what is known of the stream.
        {ok, Versions} ?= erl_esdb_snapshots_store:versions(Store, Stream, Timed),
        {ok, #{base := Base} = Info} ?= erl_esdb_pages:info(Store, Stream, Timed),
        Candidates = candidates(Info, Versions),
        Known = #{
            info => Info,
            versions => Versions,
            latest => Base - 1,
            state => Initial,
            others => [],
            outside => Versions -- Candidates
        },
        Found = fun(Version) -> found(Store, Stream, Info, Version, Timed) end,
        latest(lists:reverse(Candidates), Found, Known)
    end.

%% What a snapshot is of is no part of a stream that has not come so far, or begins behind it.
-spec candidates(erl_esdb_log:info(), [non_neg_integer()]) -> [non_neg_integer()].
candidates(#{base := Base, next := Next}, Versions) ->
    [Version || Version <- Versions, Version >= Base, Version < Next].

-spec latest([non_neg_integer()], fun((non_neg_integer()) -> Found), known()) ->
    {ok, known()} | {error, term()}
when
    Found :: {ok, State :: term()} | other | {error, term()}.
latest([Version | Versions], Found, #{others := Others} = Known) ->
    case Found(Version) of
        {ok, State} -> {ok, Known#{latest := Version, state := State}};
        other -> latest(Versions, Found, Known#{others := [Version | Others]});
        {error, not_found} -> latest(Versions, Found, Known);
        {error, Reason} -> {error, Reason}
    end;
latest([], _Found, Known) ->
    {ok, Known}.

%% The snapshots of other streams that a policy has made.
-spec others(atom(), binary(), known(), options()) -> [non_neg_integer()].
others(Store, Stream, #{others := Others, outside := Outside}, Timed) ->
    Others ++
        [
            Version
         || Version <- Outside,
            {ok, Snapshot} <- [erl_esdb_snapshots:load_at(Store, Stream, Version, Timed)],
            erl_esdb_snapshot_marks:is_marked(Snapshot)
        ].

-spec found(atom(), binary(), erl_esdb_log:info(), non_neg_integer(), options()) ->
    {ok, State :: term()} | other | {error, term()}.
found(Store, Stream, #{no := No}, Version, Timed) ->
    maybe
        {ok, #snapshot{data = State} = Snapshot} ?=
            erl_esdb_snapshots:load_at(Store, Stream, Version, Timed),
        {ok, true} ?= erl_esdb_snapshot_marks:is_own(Store, Snapshot, No, Timed),
        {ok, State}
    else
        {ok, false} -> other;
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

-spec fold(atom(), binary(), Last :: integer(), policy(), term(), options()) ->
    {ok, term(), Last :: integer()} | {error, term()}.
fold(Store, Stream, Last, Policy, State, Timed) ->
    #{fold := {Module, Function, Args}} = Policy,
    From = Last + 1,
    Step = fun(Event, Acc) -> apply(Module, Function, [Event, Acc | Args]) end,
    Options = Timed#{hidden => true, decode => maps:get(decode, Policy, none)},
    case erl_esdb_store:read(Store, Stream, From, ?PAGE, forward, Options) of
        {ok, [#event{version = From} | _] = Events} ->
            State1 = lists:foldl(Step, State, Events),
            fold(Store, Stream, (lists:last(Events))#event.version, Policy, State1, Timed);
        {ok, []} ->
            {ok, State, Last};
        %% Events were removed while we read.
        {ok, [#event{version = First} | _]} ->
            {error, {events_removed, Stream, From, First}};
        {error, Reason} ->
            {error, Reason}
    end.

-spec prune(atom(), binary(), [non_neg_integer()], options()) -> ok | {error, term()}.
prune(Store, Stream, [Version | Versions], Timed) ->
    maybe
        ok ?= erl_esdb_snapshots:delete_at(Store, Stream, Version, Timed),
        prune(Store, Stream, Versions, Timed)
    end;
prune(_Store, _Stream, [], _Timed) ->
    ok.
