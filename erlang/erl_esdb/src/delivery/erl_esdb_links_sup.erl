-module(erl_esdb_links_sup).
-moduledoc """
The supervisor of the links of a store: the processes of those that run, and the one that decides
which do. They end together, so that no link runs that this one does not know.
""".

-behaviour(supervisor).

-export([start_link/1, start_pool/1, start_link_process/2, stop_link_process/2]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc "Starts the supervisor, registered as `erl_esdb_naming:links_sup_name/1` says.".
-spec start_link(store_config()) -> supervisor:startlink_ret().
start_link(#store_config{store_id = Store} = Config) ->
    start(erl_esdb_naming:links_sup_name(Store), {links, Config}).

-doc false.
-spec start_pool(store_config()) -> supervisor:startlink_ret().
start_pool(#store_config{store_id = Store}) ->
    start(erl_esdb_naming:link_pool_name(Store), pool).

-spec start(atom(), term()) -> supervisor:startlink_ret().
start(Name, Args) ->
    erl_esdb_system_sup:start_named(fun() ->
        supervisor:start_link({local, Name}, ?MODULE, Args)
    end).

-doc "Starts the process of a link.".
-spec start_link_process(atom(), erl_esdb_link_spec:definition()) -> {ok, pid()} | {error, term()}.
start_link_process(Store, Definition) ->
    case supervisor:start_child(erl_esdb_naming:link_pool_name(Store), [Store, Definition]) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    end.

-doc "Ends the process of a link, if it has not ended.".
-spec stop_link_process(atom(), pid()) -> ok.
stop_link_process(Store, Pid) ->
    _ = supervisor:terminate_child(erl_esdb_naming:link_pool_name(Store), Pid),
    ok.

-doc false.
-spec init({links, store_config()} | pool) ->
    {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init({links, Config}) ->
    {ok,
        {#{strategy => one_for_all, intensity => 5, period => 30}, [
            #{
                id => link_pool,
                start => {?MODULE, start_pool, [Config]},
                shutdown => infinity,
                type => supervisor
            },
            #{id => link_mgr, start => {erl_esdb_link_mgr, start_link, [Config]}}
        ]}};
init(pool) ->
    Link = #{id => link, start => {erl_esdb_link, start_link, []}, restart => temporary},
    {ok, {#{strategy => simple_one_for_one, intensity => 1, period => 5}, [Link]}}.
