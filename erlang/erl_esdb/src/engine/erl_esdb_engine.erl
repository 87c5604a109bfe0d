-module(erl_esdb_engine).
-moduledoc """
What keeps the batches of a store and orders its commands.

An engine is a process below the store's supervisor that runs `m:erl_esdb_log` on the commands it
is given. It keeps what the commands brought (packed events, documents) until the machine says
that it is dead, and finds it by its index. When it can be used it calls `ready/3`; every other
callback gets the handle given there and may run in any process.

A callback that cannot reach the store answers `{error, t:failure/0}` within the time allowed; it
does not exit. `Options` of reads are checked already: `consistency`, `timeout`, and `hidden`, which
is true where also that is wanted that the metadata of a stream hides. `background` is true where
all of the log is read once, by who follows it: that takes nothing from what callers read.
""".

-export([ready/3, gone/2, find/1, running/0, status/2]).
-export([create_registry/0, lives/0, ended/3, remover/1, stopping/1, was_stopped/1]).
-export_type([handle/0, failure/0, repeated/0, options/0, piece/0, place/0]).
-export_type([settings/0, view/0, status/0]).

-doc "What the engine needs to find the store again, from any process of this node.".
-type handle() :: term().
-type failure() :: not_started | timeout | no_quorum | overloaded.
-doc "Since which index an append may have been done, and why it is refused now.".
-type repeated() :: {repeated, Since :: non_neg_integer(), term()}.
-type options() :: #{
    consistency => linearizable | read_your_writes | local,
    timeout => timeout(),
    hidden => boolean(),
    background => boolean(),
    _ => _
}.
-doc """
Packed events and which of them are meant. An engine that brings them back from a disk compares
their checksum then (`erl_esdb_batch:verified/1`): nobody does later. So it is with documents.
""".
-type piece() :: {Stream :: binary(), erl_esdb_log:span(), erl_esdb_batch:packed()}.
-doc "What the next append of a stream goes on from.".
-type place() :: #{
    next := non_neg_integer(),
    epoch_us := integer(),
    tip := erl_esdb_log:tip(),
    no := pos_integer() | none,
    signed := none | non_neg_integer()
}.
-doc """
What the API needs to know of a store: limits in bytes, events and waiting commands, timeout in
milliseconds; what the machine needs to know, `t:erl_esdb_log:limits/0`. And, on the way through the
engine to `ready/3`, what is told of it. `repeats` is an engine's word that it may send an append
again whose outcome it does not know: then whoever sent it compares ids that it made itself, too.
""".
-type settings() :: #{
    max_event_size := pos_integer(),
    max_batch_size := pos_integer(),
    max_batch_events := pos_integer(),
    max_queue := pos_integer(),
    timeout := timeout(),
    repeats => boolean(),
    life => #{
        supervisor := pid(), mode := single | cluster, data_dir := file:filename() | undefined
    },
    _ => _
}.

-doc """
What a node knows of the cluster of its store: the indexes are those of the engine's log on this
node, 0 where there is none. `voters`: the members of which a majority decides, where these are not
all.
""".
-type view() :: #{
    members := [node()],
    voters => [node()],
    leader := node() | undefined,
    role := leader | follower | candidate | recovering,
    term := non_neg_integer(),
    commit_index := non_neg_integer(),
    last_applied := non_neg_integer(),
    _ => _
}.

-doc """
What an engine tells of a store on this node, for operators; what it does not know is not there.

`waiting`: commands that wait. `last_index`, `commit_index`, `applied_index`: the last command that
this node has, that is decided, and that is done here. `members_lag`: where this node leads, how
many decided commands each other member does not have. `snapshot_index`, `snapshot_age_ms`: of the
newest snapshot of the machine. `compaction`: of the files of the log, since the engine began.
`disk_bytes`: of all files of the store; `wal_bytes`: of the log that all stores of the folder
share. `ram_bytes`: without the indexes of `m:erl_esdb_index`.
""".
-type status() :: #{
    role => leader | follower | candidate | atom(),
    leader => node(),
    members => [node()],
    waiting => non_neg_integer(),
    term => non_neg_integer(),
    last_index => non_neg_integer(),
    commit_index => non_neg_integer(),
    applied_index => non_neg_integer(),
    snapshot_index => non_neg_integer(),
    snapshot_age_ms => non_neg_integer(),
    members_lag => #{node() => non_neg_integer()},
    compaction => #{atom() => non_neg_integer()},
    disk_bytes => non_neg_integer(),
    ram_bytes => non_neg_integer(),
    segments => non_neg_integer(),
    wal_bytes => non_neg_integer(),
    _ => _
}.

-callback start_link(Store :: atom(), settings()) -> gen_server:start_ret().

-doc """
Orders and applies a command.

`overloaded`: it was not given to the engine, for which `max_queue` commands wait already. A timeout
does not tell whether it was applied; nor does `not_started` where the engine ended during
the call. One that was not there when the call began has applied nothing.

`repeated`: what an append is refused for that the engine had sent before, or the caller (`repeat`).
""".
-callback command(handle(), erl_esdb_log:command(), timeout()) ->
    erl_esdb_log:reply() | {error, repeated() | failure()}.

-doc "The window of versions of `erl_esdb_log:rows/5`.".
-callback read(
    handle(),
    Stream :: binary(),
    From :: non_neg_integer() | last,
    Count :: non_neg_integer() | infinity,
    forward | backward,
    options()
) -> {ok, [piece()]} | {error, stream_not_found | failure()}.

-doc "The events from a position on, as `erl_esdb_log:log_rows/6` finds them.".
-callback read_log(
    handle(),
    From :: non_neg_integer() | last,
    Count :: non_neg_integer() | infinity,
    forward | backward,
    options()
) -> {ok, [piece()]} | {error, failure()}.

-callback stream(handle(), Stream :: binary(), options()) ->
    {ok, erl_esdb_log:info()} | {error, stream_not_found | failure()}.

-doc "The names of all streams, sorted.".
-callback streams(handle(), options()) -> {ok, [binary()]} | {error, failure()}.

-doc """
The names of streams that begin with a prefix and come behind a name, in order, at most so many.
""".
-callback names(
    handle(),
    Behind :: binary() | first,
    Prefix :: binary(),
    Limit :: non_neg_integer() | infinity,
    options()
) -> {ok, [binary()]} | {error, failure()}.

-doc """
What the next append of a stream goes on from, also behind a tombstone and where nothing is: the
version that it gets, the time of the last one (0), the tip, the number of the stream, and the first
version that came with a tip.
""".
-callback tip(handle(), Stream :: binary(), options()) ->
    {ok, place()}
    | {error, failure()}.

-doc """
What is known of streams that have a tombstone and were not made again, behind a name, in the order
of their names, at most so many.
""".
-callback tombs(
    handle(), Behind :: binary() | first, Limit :: non_neg_integer() | infinity, options()
) -> {ok, [{Stream :: binary(), erl_esdb_log:info()}]} | {error, failure()}.

-doc "What may be seen of a stream, also of one that is not there.".
-callback metadata(handle(), Stream :: binary(), options()) ->
    {ok, erl_esdb_log:metadata()} | {error, failure()}.

-doc "The position that the next event gets.".
-callback next_position(handle(), options()) -> {ok, non_neg_integer()} | {error, failure()}.

-callback document(handle(), erl_esdb_log:document_key(), options()) ->
    {ok, {Version :: pos_integer(), erl_esdb_batch:packed()}} | {error, not_found | failure()}.

-doc "Keys and versions of the documents between two keys, both included, in term order.".
-callback documents(
    handle(), From :: erl_esdb_log:document_key(), To :: erl_esdb_log:document_key(), options()
) -> {ok, [{erl_esdb_log:document_key(), pos_integer()}]} | {error, failure()}.

-doc "What is kept under a key of a checkpoint.".
-callback checkpoint(handle(), Key :: term(), options()) ->
    {ok, term()} | {error, not_found | failure()}.

-doc "All that is kept under keys of checkpoints, at one moment.".
-callback checkpoints(handle(), options()) ->
    {ok, #{Key :: term() => Value :: term()}} | {error, failure()}.

-doc """
Removes what a store left behind that does not run: for an engine that leaves something. `DataDir`
is what `ready/3` was told of it.
""".
-callback drop(Store :: atom(), DataDir :: file:filename() | undefined) -> ok | {error, term()}.

-doc "What this node knows of the cluster, without asking others. Without it there is one node.".
-callback view(handle()) -> {ok, view()} | {error, failure()}.

-doc """
Makes this node a member of the cluster that the store has on another node, and takes what is there
in place of what is here. An engine that cannot live on several nodes has none of these; one that
can refuses to throw away events (`join` of a store that has some). `Options` have the `timeout`.
Every change of the leader is told with `erl_esdb_cluster:leader_is/2`.
""".
-callback join(handle(), node(), options()) -> ok | {error, term()}.

-doc "Ends the membership of this node.".
-callback leave(handle(), options()) -> ok | {error, term()}.

-doc "Has another member lead.".
-callback transfer_leadership(handle(), node(), options()) -> ok | {error, term()}.

-doc "Removes a member that does not answer any more.".
-callback force_remove(handle(), node(), options()) -> ok | {error, term()}.

-doc "What there is to tell an operator; answers within a moment, also where the store hangs.".
-callback status(handle()) -> status().

-doc """
A folder of this node that lives as long as what the store has here, and goes with it: for what is
made from the log and need not be made again. Without it there is none.
""".
-callback folder(handle()) -> {ok, file:filename_all()} | none.

-optional_callbacks([
    drop/2, folder/1, status/1, view/1, join/3, leave/2, transfer_leadership/3, force_remove/3
]).

-doc "The engine's word that its store can be used from now on, with the settings of its start.".
-spec ready(Store :: atom(), module(), {handle(), settings()}) -> ok.
ready(Store, Engine, {Handle, Settings}) ->
    {Origin, Settings1} = maps:take(life, Settings),
    Life = Origin#{engine => self(), since => erlang:monotonic_time(millisecond)},
    true = ets:insert(?MODULE, {Store, {Engine, Handle, Settings1}, self(), Life}),
    erl_esdb_lifecycle:watch(Store, Life).

-doc "The engine's word that its store cannot be used any more, and why.".
-spec gone(Store :: atom(), Reason :: term()) -> ok.
gone(Store, Reason) ->
    true = ets:match_delete(?MODULE, {Store, '_', self(), '_'}),
    true = ets:insert(?MODULE, {{ended, self()}, Reason}),
    ok.

-doc false.
%% Forgets an engine that has ended, and answers why it did: what it said itself, or what is known
%% from outside, where it was killed.
-spec ended(Store :: atom(), Engine :: pid(), Otherwise :: term()) -> Reason :: term().
ended(Store, Engine, Otherwise) ->
    true = ets:match_delete(?MODULE, {Store, '_', Engine, '_'}),
    case ets:take(?MODULE, {ended, Engine}) of
        [{_, Reason}] -> Reason;
        [] -> Otherwise
    end.

-doc false.
%% The supervisor of a store is about to be ended by a call. Supervisors end with the same reason
%% when they give up.
-spec stopping(Supervisor :: pid()) -> ok.
stopping(Supervisor) ->
    true = ets:insert(?MODULE, {{stopping, Supervisor}, true}),
    ok.

-doc false.
%% Whether that was so; then it is forgotten.
-spec was_stopped(Supervisor :: pid()) -> boolean().
was_stopped(Supervisor) -> ets:take(?MODULE, {stopping, Supervisor}) =/= [].

-doc "The engine of a running store.".
-spec find(Store :: atom()) -> {ok, module(), handle(), settings()} | {error, not_started}.
find(Store) ->
    try ets:lookup_element(?MODULE, Store, 2, none) of
        {Engine, Handle, Settings} -> {ok, Engine, Handle, Settings};
        none -> {error, not_started}
    catch
        %% The application does not run.
        error:badarg -> {error, not_started}
    end.

-doc "What the engine of a running store tells an operator.".
-spec status(module(), handle()) -> status().
status(Engine, Handle) ->
    case erlang:function_exported(Engine, status, 1) of
        true -> Engine:status(Handle);
        false -> #{}
    end.

-doc "The stores whose engines live, sorted.".
-spec running() -> [atom()].
running() ->
    try ets:select(?MODULE, [{{'$1', '_', '$2', '_'}, [], [{{'$1', '$2'}}]}]) of
        Found -> lists:sort([Store || {Store, Engine} <- Found, is_process_alive(Engine)])
    catch
        error:badarg -> []
    end.

-doc false.
-spec lives() -> [{atom(), erl_esdb_lifecycle:life()}].
lives() -> ets:select(?MODULE, [{{'$1', '_', '_', '$2'}, [], [{{'$1', '$2'}}]}]).

-doc false.
%% The table belongs to the top supervisor, so that it lives as long as the application.
-spec create_registry() -> ok.
create_registry() ->
    ?MODULE = ets:new(?MODULE, [named_table, public, {read_concurrency, true}]),
    ok.

-doc false.
%% What removes what a store that runs will leave when it is stopped.
-spec remover(Store :: atom()) -> {ok, fun(() -> ok | {error, term()})} | {error, not_found}.
remover(Store) when is_atom(Store) ->
    try ets:lookup(?MODULE, Store) of
        [{_, {Engine, _, _}, _, #{data_dir := Dir}}] -> {ok, remover(Engine, Store, Dir)};
        [] -> {error, not_found}
    catch
        error:badarg -> {error, not_found}
    end;
remover(_) ->
    error(badarg).

-spec remover(module(), atom(), file:filename() | undefined) -> fun(() -> ok | {error, term()}).
remover(Engine, Store, Dir) ->
    case erlang:function_exported(Engine, drop, 2) of
        true -> fun() -> Engine:drop(Store, Dir) end;
        false -> fun() -> ok end
    end.
