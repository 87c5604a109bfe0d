-module(erl_esdb_ra_systems).
-moduledoc """
The Ra systems of this node, one a folder.

A Ra system has the write-ahead log of its stores: one file, one sync for whatever they write at a
time. Stores with the same `data_dir` share one system. It is started for the first of them and ends
with the last, also where one was killed.
""".

-behaviour(gen_server).

-export([start_link/0, acquire/1, release/1, segment_entries/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-include_lib("kernel/include/logger.hrl").

%% Words of the heaps of Ra's processes, and of binaries that they may hold before there is a
%% collection: 1 MiB and 64 MiB. A heap of 128 Ki words and more is collected on another thread, and
%% callers wait for that.
-define(HEAP, 121_536).
-define(BINARIES, 8_388_608).
%% What the names of systems begin with.
-define(NAME, "erl_esdb_").
%% Entries of a segment file. Ra's default of 4096 makes eight times as many files.
-define(SEGMENT_ENTRIES, 32_768).
%% Milliseconds that a folder may still be another node's, which is about to end; between two looks.
-define(IN_USE, 2000).
-define(LOOK, 50).
%% Milliseconds that Ra has to start again what of a system has ended, and between two looks.
-define(AGAIN, 500).
-define(PAUSE, 20).
%% Bytes of a file of the write-ahead log: what may have to be read again after a crash, and what
%% the log has in memory besides.
-define(WAL_BYTES, 67_108_864).

-record(system, {
    name :: atom(),
    lock :: erl_esdb_ra_lock:lock(),
    %% the processes whose it is, with their monitors
    owners :: #{pid() => reference()}
}).

%% By the folder.
-type state() :: #{file:filename() => #system{}}.

-doc false.
-spec start_link() -> gen_server:start_ret().
start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-doc """
The system of a folder, which runs as long as the calling process does not release it or end.
A system that Ra has given up, as it does where the disk is full, is started anew, also while others
have it: their servers ended with it.

Errors: `{data_dir, Folder, Reason}` where it cannot be made or started; `Reason` is `in_use` where
another node has had it for two seconds, `damaged_write_ahead_log` where what was written last does
not fit its checksums, `{damaged_file, File}` or `{unknown_data, ServerFolder}` as of
`m:erl_esdb_ra_folder`, or what the system says: `enospc`, `eacces` and the like.
""".
-spec acquire(file:filename_all()) ->
    {ok, System :: atom()} | {error, {data_dir, file:filename_all(), term()}}.
acquire(Dir) ->
    case acquired(folder(Dir), erl_esdb_deadline:in(?IN_USE)) of
        {ok, System} -> {ok, System};
        {error, Reason} -> {error, {data_dir, Dir, Reason}}
    end.

%% Waits here, and not in the process of all systems.
-spec acquired(file:filename(), erl_esdb_deadline:deadline()) -> {ok, atom()} | {error, term()}.
acquired(Folder, Until) ->
    case gen_server:call(?MODULE, {acquire, Folder}, infinity) of
        {error, in_use} ->
            case erl_esdb_deadline:is_over(Until) of
                true ->
                    {error, in_use};
                false ->
                    ok = pause(?LOOK),
                    acquired(Folder, Until)
            end;
        Answer ->
            Answer
    end.

-spec pause(pos_integer()) -> ok.
pause(Time) ->
    receive
    after Time -> ok
    end.

-doc "The calling process does not need the system of a folder any more.".
-spec release(file:filename_all()) -> ok.
release(Dir) -> gen_server:call(?MODULE, {release, folder(Dir)}, infinity).

-doc "Entries of a segment file.".
-spec segment_entries() -> pos_integer().
segment_entries() -> ?SEGMENT_ENTRIES.

-spec folder(file:filename_all()) -> file:filename().
folder(Dir) ->
    Name = unicode:characters_to_list(filename:absname(Dir)),
    true = is_list(Name),
    Name.

-doc false.
%% The systems of a process before this one, which was killed, have no lock any more: they end, and
%% their stores start them anew.
-spec init([]) -> {ok, state()}.
init([]) ->
    process_flag(trap_exit, true),
    ok = erl_esdb_ra_reports:install(),
    ok = lists:foreach(fun ra_system:stop/1, left_behind()),
    {ok, #{}}.

-spec left_behind() -> [atom()].
left_behind() ->
    case whereis(ra_systems_sup) of
        undefined ->
            [];
        Sup ->
            [
                Name
             || {Name, _, _, _} <- supervisor:which_children(Sup),
                lists:prefix(?NAME, atom_to_list(Name))
            ]
    end.

-doc false.
-spec handle_call(term(), gen_server:from(), state()) ->
    {reply, {ok, atom()} | ok | {error, term()}, state()}.
handle_call({acquire, Dir}, {Pid, _}, State) ->
    case State of
        #{Dir := #system{name = Name} = System} ->
            case running(Name, Dir, erl_esdb_deadline:in(?AGAIN)) of
                ok -> {reply, {ok, Name}, State#{Dir := owned(Pid, System)}};
                {error, Reason} -> {reply, {error, Reason}, State}
            end;
        #{} ->
            Name = free_name(State, 1),
            case started(Name, Dir) of
                {ok, Lock} ->
                    System = #system{name = Name, lock = Lock, owners = #{}},
                    {reply, {ok, Name}, State#{Dir => owned(Pid, System)}};
                {error, Reason} ->
                    {reply, {error, Reason}, State}
            end
    end;
handle_call({release, Dir}, {Pid, _}, State) ->
    {reply, ok, left(Pid, Dir, State)};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({'DOWN', _, process, Pid, _}, State) ->
    Dirs = [Dir || Dir := #system{owners = Owners} <- State, is_map_key(Pid, Owners)],
    {noreply, lists:foldl(fun(Dir, Sum) -> left(Pid, Dir, Sum) end, State, Dirs)};
handle_info(_, State) ->
    {noreply, State}.

-doc false.
-spec terminate(term(), state()) -> ok.
terminate(_Reason, State) ->
    maps:foreach(fun(Dir, System) -> stopped(System, Dir) end, State),
    _ = erl_esdb_ra_reports:remove(),
    ok.

-spec owned(pid(), #system{}) -> #system{}.
owned(Pid, #system{owners = Owners} = System) when is_map_key(Pid, Owners) -> System;
owned(Pid, #system{owners = Owners} = System) ->
    System#system{owners = Owners#{Pid => monitor(process, Pid)}}.

-spec left(pid(), file:filename(), state()) -> state().
left(Pid, Dir, State) ->
    case State of
        #{Dir := #system{owners = #{Pid := Ref} = Owners} = System} ->
            true = demonitor(Ref, [flush]),
            case maps:remove(Pid, Owners) of
                None when map_size(None) =:= 0 ->
                    ok = stopped(System, Dir),
                    maps:remove(Dir, State);
                Others ->
                    State#{Dir := System#system{owners = Others}}
            end;
        #{} ->
            State
    end.

%% Names are atoms: those of systems that have ended are used again.
-spec free_name(state(), pos_integer()) -> atom().
free_name(State, N) ->
    Name = list_to_atom(?NAME ++ integer_to_list(N)),
    case [Dir || Dir := #system{name = Taken} <- State, Taken =:= Name] of
        [] -> Name;
        _ -> free_name(State, N + 1)
    end.

-spec started(atom(), file:filename()) -> {ok, erl_esdb_ra_lock:lock()} | {error, term()}.
started(Name, Dir) ->
    maybe
        ok ?= filelib:ensure_path(Dir),
        %% What it is in may be somebody else's.
        _ = ra_lib:sync_dir(filename:dirname(Dir)),
        {ok, Lock} ?= erl_esdb_ra_lock:take(Dir),
        case started_locked(Name, Dir) of
            ok ->
                {ok, Lock};
            {error, Reason} ->
                ok = erl_esdb_ra_lock:release(Lock),
                {error, Reason}
        end
    end.

-spec started_locked(atom(), file:filename()) -> ok | {error, term()}.
started_locked(Name, Dir) ->
    maybe
        ok ?= erl_esdb_ra_folder:prepare(Dir),
        {ok, _} ?= application:ensure_all_started(ra),
        begun(Name, Dir)
    end.

-spec begun(atom(), file:filename()) -> ok | {error, term()}.
begun(Name, Dir) ->
    case ra_system:start(config(Name, Dir)) of
        {ok, _} -> ok;
        {error, {Reason, _Child}} -> {error, named(innermost(Reason))};
        {error, Reason} -> {error, named(Reason)}
    end.

%% A system of which a process is missing for longer than a moment is started anew.
-spec running(atom(), file:filename(), erl_esdb_deadline:deadline()) -> ok | {error, term()}.
running(Name, Dir, Until) ->
    case {is_whole(Name), erl_esdb_deadline:is_over(Until)} of
        {true, _} ->
            ok;
        {false, false} ->
            ok = pause(?PAUSE),
            running(Name, Dir, Until);
        {false, true} ->
            ?LOG_WARNING("~ts: Ra system ~tp has ended and is started anew", [Dir, Name]),
            ok = ended(Name, Dir),
            started_locked(Name, Dir)
    end.

-spec is_whole(atom()) -> boolean().
is_whole(Name) ->
    Names = ra_system:derive_names(Name),
    Processes = [log_ets, log_sup, log_meta, segment_writer, wal, server_sup],
    lists:all(fun(Process) -> is_pid(whereis(map_get(Process, Names))) end, Processes).

%% Each supervisor on the way wraps what its child said.
-spec innermost(term()) -> term().
innermost({shutdown, {failed_to_start_child, _, Reason}}) -> innermost(Reason);
innermost(Reason) -> Reason.

-spec named(term()) -> term().
named(wal_checksum_validation_failure) -> damaged_write_ahead_log;
named(Reason) -> erl_esdb_ra_server:posix(Reason).

-spec config(atom(), file:filename()) -> ra_system:config().
config(Name, Dir) ->
    (ra_system:default_config())#{
        name => Name,
        names => ra_system:derive_names(Name),
        data_dir => Dir,
        wal_data_dir => Dir,
        wal_max_size_bytes => ?WAL_BYTES,
        segment_max_entries => ?SEGMENT_ENTRIES,
        %% Collected every few hundred commands instead of every dozen.
        server_min_heap_size => ?HEAP,
        server_min_bin_vheap_size => ?BINARIES,
        wal_min_heap_size => ?HEAP,
        wal_min_bin_vheap_size => ?BINARIES,
        server_recovery_strategy => undefined
    }.

-spec stopped(#system{}, file:filename()) -> ok.
stopped(#system{name = Name, lock = Lock}, Dir) ->
    ok = ended(Name, Dir),
    erl_esdb_ra_lock:release(Lock).

-spec ended(atom(), file:filename()) -> ok.
ended(Name, Dir) ->
    case ra_system:stop(Name) of
        ok -> ok;
        {error, Reason} -> ?LOG_WARNING("~ts: Ra system ~tp: ~tp", [Dir, Name, Reason])
    end.
