-module(erl_esdb_volatile).
-moduledoc """
What a store knows only as long as it runs: funs that were registered, which no document can keep,
and where its processes are.

A table of its own for each store. It belongs to the supervisor of the store: it is there before
its other processes, outlives their crashes, and goes with the store.
""".

-export([create/1, put/3, get/2, delete/2, delete/3, keys/2]).
-export([claim/2]).

-doc "Makes the table of a store. The process that calls owns it.".
-spec create(Store :: atom()) -> ok.
create(Store) ->
    _ = ets:new(table(Store), [named_table, public, {read_concurrency, true}]),
    ok.

-doc "Keeps a term under a key.".
-spec put(Store :: atom(), Key :: term(), term()) -> ok | {error, {store_not_started, atom()}}.
put(Store, Key, Term) ->
    try ets:insert(table(Store), {Key, Term}) of
        true -> ok
    catch
        error:badarg -> {error, {store_not_started, Store}}
    end.

-doc "The term under a key.".
-spec get(Store :: atom(), Key :: term()) -> {ok, term()} | {error, not_found}.
get(Store, Key) ->
    try ets:lookup(table(Store), Key) of
        [{_, Term}] -> {ok, Term};
        [] -> {error, not_found}
    catch
        error:badarg -> {error, not_found}
    end.

-doc "Forgets what is under a key; also where nothing is, or the store does not run.".
-spec delete(Store :: atom(), Key :: term()) -> ok.
delete(Store, Key) ->
    try ets:delete(table(Store), Key) of
        true -> ok
    catch
        error:badarg -> ok
    end.

-doc "The same, but only where this term is under it.".
-spec delete(Store :: atom(), Key :: term(), term()) -> ok.
delete(Store, Key, Term) ->
    try ets:delete_object(table(Store), {Key, Term}) of
        true -> ok
    catch
        error:badarg -> ok
    end.

-doc "The keys that match an ETS pattern.".
-spec keys(Store :: atom(), Pattern :: term()) -> [term()].
keys(Store, Pattern) ->
    try
        ets:select(table(Store), [{{Pattern, '_'}, [], [{element, 1, '$_'}]}])
    catch
        error:badarg -> []
    end.

-doc """
Keeps the calling process under a key, unless another one that lives is kept there. Of two that call
at once one wins.
""".
-spec claim(Store :: atom(), Key :: term()) ->
    ok | {error, {already_started, pid()} | {store_not_started, atom()}}.
claim(Store, Key) ->
    try
        claim_in(table(Store), Key)
    catch
        error:badarg -> {error, {store_not_started, Store}}
    end.

-spec claim_in(atom(), term()) -> ok | {error, {already_started, pid()}}.
claim_in(Table, Key) ->
    case ets:insert_new(Table, {Key, self()}) orelse ets:lookup(Table, Key) of
        true -> ok;
        [{_, Pid}] when Pid =:= self() -> ok;
        [{_, Pid} = Row] -> claim_of(is_process_alive(Pid), Pid, Row, Table);
        [] -> claim_in(Table, Key)
    end.

%% Only the row of the dead: somebody else may have taken its place meanwhile.
-spec claim_of(boolean(), pid(), {term(), pid()}, atom()) ->
    ok | {error, {already_started, pid()}}.
claim_of(true, Pid, _Row, _Table) ->
    {error, {already_started, Pid}};
claim_of(false, _Pid, {Key, _} = Row, Table) ->
    true = ets:delete_object(Table, Row),
    claim_in(Table, Key).

-spec table(atom()) -> atom().
table(Store) -> erl_esdb_naming:volatile_name(Store).
