-module(erl_esdb_streams_sup).
-moduledoc """
The supervisor of the writers and readers of a store. They are temporary: one that ended is started
again by who needs it next.
""".

-behaviour(supervisor).

-export([start_link/1, start_worker/4]).
-export([init/1]).

-include("erl_esdb.hrl").

-doc "Starts the supervisor, registered as `erl_esdb_naming:streams_sup_name/1` says.".
-spec start_link(store_config()) -> supervisor:startlink_ret().
start_link(#store_config{store_id = Store}) ->
    Name = erl_esdb_naming:streams_sup_name(Store),
    erl_esdb_system_sup:start_named(fun() ->
        supervisor:start_link({local, Name}, ?MODULE, [])
    end).

-doc "Starts the writer or reader of a stream; one that is there is `{already_started, Pid}`.".
-spec start_worker(module(), erl_esdb_streams_worker:kind(), Store :: atom(), binary()) ->
    {ok, pid()} | {error, term()}.
start_worker(Module, Kind, Store, Stream) ->
    Key = {Store, Stream, erl_esdb_streams_worker:partition(Store, Stream)},
    Child = #{
        id => {Kind, Stream}, start => {Module, start_link, [Key]}, restart => temporary
    },
    try supervisor:start_child(erl_esdb_naming:streams_sup_name(Store), Child) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        {error, Reason} -> {error, Reason}
    catch
        exit:_ -> {error, not_started}
    end.

-doc false.
-spec init([]) -> {ok, {supervisor:sup_flags(), []}}.
init([]) -> {ok, {#{strategy => one_for_one, intensity => 10, period => 60}, []}}.
