-module(esdb_handle).
-moduledoc false.
%% What a module has kept in a handle, as a fun of its own: a handle can be sent and stored as any
%% other term, and what another module, or a stranger, puts in its place is not called.

-export([opened/2]).

%% What the fun has, if it is one of this module as it is loaded now.
-spec opened(Kept :: term(), module()) -> {ok, term()} | none.
opened(Kept, Module) when is_function(Kept, 0) ->
    case erlang:fun_info(Kept, module) of
        {module, Module} -> called(Kept);
        _ -> none
    end;
opened(_, _) ->
    none.

%% A fun of another version of the module cannot be called.
-spec called(fun(() -> term())) -> {ok, term()} | none.
called(Kept) ->
    try
        {ok, Kept()}
    catch
        error:_ -> none
    end.
