-module(esdb_durable).
-moduledoc """
What benchmarks of the store on disk have in common: folders, stores, nodes of this machine.
""".

-export([khepri/0, quiet/0, in_folder/1]).
-export([start/2, start/3, stop/1, server/1, peers/1, start_cluster/3, bytes/1, forgotten/1]).

-define(HOST, "127.0.0.1").
-define(TIMEOUT, 60_000).

-doc "Has Khepri at hand where the toolchain knows it; otherwise its rows are left out.".
-spec khepri() -> boolean().
khepri() ->
    Folder = string:trim(os:cmd("sh scripts/toolchain.sh rivals 2>/dev/null")),
    Found = filelib:wildcard(filename:join(Folder, "{khepri,horus}-[0-9]*/ebin")),
    ok = code:add_pathsa(Found),
    case Folder =/= "" andalso application:ensure_all_started(khepri) of
        {ok, _} ->
            true;
        _ ->
            esdb_bench:note("Khepri is not here: its rows are left out", []),
            false
    end.

-doc "Starts the application, without the log messages of those that come and go.".
-spec quiet() -> ok.
quiet() ->
    {ok, _} = application:ensure_all_started(erl_esdb),
    ok = logger:set_primary_config(level, error).

-doc "A folder for as long as the fun runs, below `BENCH_DIR` or the folder of the build.".
-spec in_folder(fun((file:filename()) -> Result)) -> Result.
in_folder(Fun) ->
    Parent = os:getenv("BENCH_DIR", filename:dirname(code:which(?MODULE))),
    Name = "data-" ++ os:getpid() ++ "-" ++ integer_to_list(erlang:unique_integer([positive])),
    Dir = filename:absname(filename:join(Parent, Name)),
    ok = filelib:ensure_path(Dir),
    try
        Fun(Dir)
    after
        _ = file:del_dir_r(Dir)
    end.

-doc "Starts a store on disk.".
-spec start(atom(), file:filename()) -> ok.
start(Store, Dir) -> start(Store, Dir, #{}).

-spec start(atom(), file:filename(), map()) -> ok.
start(Store, Dir, Options) ->
    Folder = filename:join(Dir, node()),
    {ok, _} = erl_esdb:start_store(Store, Options#{engine => ra, data_dir => Folder}),
    ok.

-spec stop(atom()) -> ok.
stop(Store) -> erl_esdb:stop_store(Store).

-doc "The Ra server of a store on this node.".
-spec server(atom()) -> ra:server_id().
server(Store) ->
    {ok, erl_esdb_engine_ra, Handle, _} = erl_esdb_engine:find(Store),
    erl_esdb_engine_ra:server(Handle).

-doc "So many nodes of this machine, connected.".
-spec peers(pos_integer()) -> [{pid(), node()}].
peers(Count) ->
    [{First, _} | Others] = Peers = [peer(N) || N <- lists:seq(1, Count)],
    [true = peer:call(First, net_kernel, connect_node, [Node]) || {_, Node} <- Others],
    Peers.

-spec peer(pos_integer()) -> {pid(), node()}.
peer(N) ->
    {ok, Pid, Node} = peer:start_link(#{
        name => "bench" ++ integer_to_list(N) ++ "_" ++ os:getpid(),
        host => ?HOST,
        longnames => true,
        connection => standard_io,
        args =>
            ["-pa" | code:get_path()] ++
            ["-setcookie", "bench", "-kernel", "inet_dist_use_interface", "{127,0,0,1}"],
        env => [{"ERL_EPMD_ADDRESS", ?HOST}, {"ESDB_NIF", os:getenv("ESDB_NIF", "")}],
        wait_boot => ?TIMEOUT
    }),
    ok = peer:call(Pid, application, set_env, [erl_esdb, discovery, [{method, none}]]),
    ok = peer:call(Pid, ?MODULE, quiet, [], ?TIMEOUT),
    {Pid, Node}.

-doc "One store on these nodes; the first leads.".
-spec start_cluster(atom(), file:filename(), [{pid(), node()}, ...]) -> ok.
start_cluster(Store, Dir, [{First, Node} | Others] = Peers) ->
    Options = #{mode => cluster},
    [ok = peer:call(Peer, ?MODULE, start, [Store, Dir, Options], ?TIMEOUT) || {Peer, _} <- Peers],
    [ok = peer:call(Peer, erl_esdb, join, [Store, Node], ?TIMEOUT) || {Peer, _} <- Others],
    {ok, Members} = peer:call(First, erl_esdb, members, [Store]),
    true = length(Members) =:= length(Peers),
    ok.

-doc "The bytes of all files below a folder.".
-spec bytes(file:filename()) -> non_neg_integer().
bytes(Dir) ->
    Add = fun(File, Sum) -> Sum + filelib:file_size(File) end,
    filelib:fold_files(Dir, ".*", true, Add, 0).

-doc "Has the operating system forget what it keeps in memory of the files below a folder.".
-spec forgotten(file:filename()) -> ok.
forgotten(Dir) ->
    filelib:fold_files(Dir, ".*", true, fun(Name, ok) -> forgotten_file(Name) end, ok).

-spec forgotten_file(file:filename()) -> ok.
forgotten_file(Name) ->
    {ok, File} = file:open(Name, [read, raw]),
    _ = file:advise(File, 0, 0, dont_need),
    file:close(File).
