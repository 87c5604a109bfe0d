-module(esdb_nif).
-moduledoc """
Finds the native libraries, judges the result of loading them, and tells which implementation runs.

Each `esdb_*_nif` module is complete in Erlang; its library, where there is one, replaces functions
in place when the module is loaded. What happens when there is none is decided by the environment
variable `ESDB_NIF`, or else by the application key `nif` of `erl_esdb_nifs`:

| value | meaning |
|---|---|
| `auto` (default) | with the library where it can be loaded, else in Erlang |
| `require` | a module whose library cannot be loaded is not loaded either |
| `off` | Erlang, even if there is a library |

The questions that take help from other threads (lists of segments, see `m:esdb_segment_nif`) take
so many at most as the application key `threads` of `erl_esdb_nifs` says, a positive integer; by
default half as many as there are schedulers online. It is read when the module is loaded.

```erlang
1> esdb_nif:status().
#{policy => auto,version => <<"0.1.0">>,
  modules => #{esdb_archive_nif => nif,esdb_crypto_nif => nif,esdb_filter_nif => nif,
               esdb_hash_nif => nif}}
```
""".

-export([status/0]).
-export([modules/0, path/1, version/0, threads/0, loaded/2]).
-export_type([implementation/0, policy/0]).

-type implementation() :: nif | erlang.
-type policy() :: auto | require | off.

-define(APP, erl_esdb_nifs).
%% As many as there may be schedulers.
-define(MAX_THREADS, 1024).
%% Holds the implementation that was reported in the log of this node.
-define(REPORTED, {?MODULE, reported}).
%% Not even a folder, and not below the working directory, where anybody may have put a file.
-define(NO_FILE, "/dev/null/esdb_nif").

-doc """
The policy in force, the version, and for each module which implementation answers.

Loads the modules that are not loaded yet. A module that cannot be loaded (policy `require` without
a library, or a library of another version) is `{error, Reason}`.
""".
-spec status() ->
    #{
        policy := policy(),
        version := binary(),
        modules := #{module() => implementation() | {error, term()}}
    }.
status() ->
    Modules = #{Module => module_status(Module) || Module <- modules()},
    #{policy => policy(), version => version(), modules => Modules}.

-spec module_status(module()) -> implementation() | {error, term()}.
module_status(Module) ->
    case code:ensure_loaded(Module) of
        {module, Module} -> Module:implementation();
        {error, Reason} -> {error, Reason}
    end.

-doc false.
%% The modules that have a library.
-spec modules() -> [module()].
modules() ->
    [
        esdb_hash_nif,
        esdb_crypto_nif,
        esdb_archive_nif,
        esdb_filter_nif,
        esdb_aggregate_nif,
        esdb_graph_nif,
        esdb_segment_nif,
        esdb_file_nif,
        esdb_runs_nif
    ].

-doc false.
%% Where load_nif/2 shall look. With the policy `off`, and where the application is not on the code
%% path, that is a name that no file has: load_nif/2 can be called from the module itself only, so
%% the way not to load a library is to offer none.
-spec path(module()) -> string().
path(Module) ->
    case {policy(), code:priv_dir(?APP)} of
        {off, _} -> ?NO_FILE;
        {_, {error, bad_name}} -> ?NO_FILE;
        {_, Dir} -> Dir ++ "/" ++ atom_to_list(Module)
    end.

-doc false.
%% Handed to the library, which refuses to load into code of another version.
-spec version() -> binary().
version() ->
    _ = application:load(?APP),
    case application:get_key(?APP, vsn) of
        {ok, Version} -> list_to_binary(Version);
        undefined -> <<"unknown">>
    end.

-doc false.
%% How many threads one question may run on, with that of the caller.
-spec threads() -> 1..?MAX_THREADS.
threads() ->
    _ = application:load(?APP),
    case application:get_env(?APP, threads) of
        {ok, Threads} when is_integer(Threads), Threads > 0 -> min(Threads, ?MAX_THREADS);
        _ -> max(1, erlang:system_info(schedulers_online) div 2)
    end.

-doc false.
%% The value of a module's on_load function: `ok` keeps the module, with or without its library.
-spec loaded(module(), ok | {error, {atom(), string()}}) -> ok | {error, term()}.
loaded(Module, ok) ->
    report(Module, nif, "");
loaded(Module, {error, {Class, Text}}) ->
    Exists = filelib:is_regular(path(Module) ++ ".so"),
    case {Class, policy()} of
        {load_failed, off} -> report(Module, erlang, "switched off");
        {load_failed, auto} when not Exists -> report(Module, erlang, "there is none");
        %% A library for another machine, for example: usable only without it, and worth telling.
        {load_failed, auto} -> report(Module, erlang, Text);
        %% Wrong library, other version, or a reload of a module that runs on a library already:
        %% then the new code is refused and what runs goes on running.
        {_, _} -> {error, {Class, Text}}
    end.

%% One line a node, and one more for each module that differs from what the line says.
-spec report(module(), implementation(), string()) -> ok.
report(Module, Implementation, Why) ->
    case persistent_term:get(?REPORTED, none) of
        Implementation ->
            ok;
        none ->
            persistent_term:put(?REPORTED, Implementation),
            log(?APP, Implementation, Why);
        _Other ->
            log(Module, Implementation, Why)
    end.

-spec log(atom(), implementation(), string()) -> ok.
log(Who, nif, _) ->
    logger:info("~s ~s: running on the native libraries in ~ts", [
        Who, version(), filename:dirname(path(?MODULE))
    ]);
log(Who, erlang, Why) ->
    logger:notice("~s ~s: running in Erlang, without the native library: ~ts", [
        Who, version(), Why
    ]).

-spec policy() -> policy().
policy() ->
    case os:getenv("ESDB_NIF", "") of
        "auto" -> auto;
        "require" -> require;
        "off" -> off;
        "" -> configured_policy();
        Other -> error({badarg, {"ESDB_NIF", Other}})
    end.

-spec configured_policy() -> policy().
configured_policy() ->
    case application:get_env(?APP, nif, auto) of
        Policy when Policy =:= auto; Policy =:= require; Policy =:= off -> Policy;
        Other -> error({badarg, {?APP, nif, Other}})
    end.
