-module(erl_esdb_store_mgr).
-moduledoc """
Knows how a store was started.

```erlang
1> erl_esdb_store_mgr:get_info(shop).
{ok,#{mode => single,ready => true,store_id => shop,data_dir => undefined}}
```
""".

-behaviour(gen_server).

-export([start_link/1, get_info/1]).
-export([init/1, handle_call/3, handle_cast/2]).

-include("erl_esdb.hrl").

-doc "Starts the process of a store, registered as `erl_esdb_naming:store_mgr_name/1` says.".
-spec start_link(store_config()) -> gen_server:start_ret().
start_link(#store_config{store_id = Store} = Config) ->
    Name = erl_esdb_naming:store_mgr_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        gen_server:start_link({local, Name}, ?MODULE, Config, [])
    end).

-doc """
How a store was started, and whether it can be used. `data_dir` is `undefined` for a store that
writes nothing. Errors: `{store_not_started, Store}`, `{timeout, Store}`.
""".
-spec get_info(Store :: atom()) ->
    {ok, #{
        store_id := atom(),
        mode := single | cluster,
        data_dir := file:filename() | undefined,
        ready := boolean()
    }}
    | {error, {store_not_started | timeout, atom()}}.
get_info(Store) ->
    try gen_server:call(erl_esdb_naming:store_mgr_name(Store), get_config) of
        #store_config{mode = Mode, data_dir = Dir} ->
            Ready = erl_esdb_store:is_ready(Store),
            {ok, #{store_id => Store, mode => Mode, data_dir => Dir, ready => Ready}}
    catch
        exit:{timeout, _} -> {error, {timeout, Store}};
        exit:{_, {gen_server, call, _}} -> {error, {store_not_started, Store}}
    end.

%% ---- the process

-doc false.
-spec init(store_config()) -> {ok, store_config()}.
init(Config) -> {ok, Config}.

-doc false.
-spec handle_call(term(), gen_server:from(), store_config()) -> {reply, term(), store_config()}.
handle_call(get_config, _From, Config) -> {reply, Config, Config};
handle_call(_, _From, Config) -> {reply, {error, unknown_request}, Config}.

-doc false.
-spec handle_cast(term(), store_config()) -> {noreply, store_config()}.
handle_cast(_, Config) -> {noreply, Config}.
