-module(erl_esdb_ra_machine).
-moduledoc """
The replicated state machine of a store on Ra: `m:erl_esdb_log`, whose tables are a replica on each
node (`m:erl_esdb_ra_replica`).

The state that Ra holds is small. Bodies of events and documents stay in Ra's log, where they live
as long as the machine says so (`live_indexes/1`); what has keys is in ETS tables, and is written
with the state by `m:erl_esdb_ra_snapshot`.

A snapshot is due when what was applied since the last one would take a tenth of the time of reading
it all, so that writing snapshots takes time in proportion to what is appended, however much there
is. Its picture of the tables is opened with the command after which it is due: the effect that asks
for it is done later, when more commands may have been applied.

Whoever changes a field of what is in a snapshot, of the records of `m:erl_esdb_log` and of those in
its tables too, takes the next number for `format` and for `version/0`, and adds a clause that reads
what was written before: `check_format/1` says of all else that it cannot be read.
""".

-behaviour(ra_machine).

-export([init/1, apply/3, state_enter/2, live_indexes/1, snapshot_module/0, overview/1]).
-export([version/0, which_module/1, init_aux/1, handle_aux/5]).
-export([ask/2, body/1, picture/1, written/1]).
-export([to_snapshot/1, from_snapshot/2, check_format/1]).
-export_type([state/0]).

%% Commands and bytes after which a snapshot is due, where a tenth of what is kept is not more.
-define(COMMANDS, 20_000).
-define(BYTES, 67_108_864).
%% Indexes that have died, of what was removed at a time, after which one is due, where a tenth of
%% what is kept is not more: their space comes back with a snapshot.
-define(DEAD, 256).
%% Milliseconds for which Ra may put the writing of a snapshot off: after that it has let it fall,
%% as it does while it is not done with the one before.
-define(PATIENCE, 3000).

-record(machine, {
    store :: atom(),
    log :: erl_esdb_log:state(),
    %% none: a snapshot that somebody reads who is not the store's server
    replica :: erl_esdb_ra_replica:replica() | none,
    %% of the tables, where this is a state that is to be written
    picture = 0 :: erl_esdb_tables:picture() | 0,
    %% of the last command
    index = 0 :: non_neg_integer(),
    %% what Ra is to keep: a `t:ra_seq:state/0`, and what died of it since the last snapshot
    live = [] :: ra_seq:state(),
    dead = [] :: [pos_integer()],
    dying = 0 :: non_neg_integer(),
    kept = 0 :: non_neg_integer(),
    %% of the state that was to be written last
    asked = 0 :: non_neg_integer(),
    %% since then
    commands = 0 :: non_neg_integer(),
    bytes = 0 :: non_neg_integer(),
    %% whether a command is on its way that goes on with erasing
    sweeping = false :: boolean()
}).

-opaque state() :: #machine{}.
-type reply() :: {Index :: pos_integer(), erl_esdb_log:reply() | {error, unknown_command}}.

-doc false.
-spec init(#{store := atom(), limits := erl_esdb_log:limits(), _ => _}) -> state().
init(#{store := Store, limits := Limits}) ->
    Replica = erl_esdb_ra_replica:open(Store),
    ok = erl_esdb_ra_replica:publish(Replica),
    %% Of a store that runs the server may have been started again.
    ok = erl_esdb_feed:committed(Store, 0),
    Base = erl_esdb_tables:base(erl_esdb_ra_replica:tables(Replica)),
    #machine{store = Store, log = erl_esdb_log:new(Limits, Base), replica = Replica}.

-doc false.
-spec version() -> 0.
version() -> 0.

-doc false.
-spec which_module(ra_machine:version()) -> module().
which_module(0) -> ?MODULE.

-doc false.
-spec snapshot_module() -> module().
snapshot_module() -> erl_esdb_ra_snapshot.

-doc false.
-spec apply(ra_machine:command_meta_data(), erl_esdb_ra_command:packed() | term(), state()) ->
    {state(), reply() | ok, ra_machine:effects()}.
apply(#{index := Index}, Packed, #machine{log = Log} = Machine) ->
    Command = erl_esdb_ra_command:unpack(Packed),
    case erl_esdb_log:is_command(Command) of
        true ->
            {Reply, Effects, Log1} = erl_esdb_log:apply(Index, Command, Log),
            Machine1 = changed(Index, Command, Effects, Machine),
            done(Index, Command, Reply, Machine1#machine{log = erl_esdb_log:rest(Log1)});
        false ->
            %% Ra's own words (another version of the machine, nodes), or a mistake.
            {Machine, {Index, {error, unknown_command}}, []}
    end.

-spec changed(pos_integer(), erl_esdb_log:command(), [erl_esdb_log:effect()], state()) -> state().
changed(Index, _Command, [], #machine{replica = Replica} = Machine) ->
    ok = erl_esdb_ra_replica:applied(Index, Replica),
    Machine;
changed(Index, Command, Effects, #machine{store = Store, replica = Replica} = Machine) ->
    Body = body(Command),
    ok = keep(Effects, Index, Body, Replica),
    Tables = erl_esdb_ra_replica:tables(Replica),
    lists:foreach(fun(Effect) -> ok = erl_esdb_tables:write(Effect, Tables) end, Effects),
    ok = erl_esdb_ra_replica:applied(Index, Replica),
    lists:foreach(fun(Effect) -> feed(Effect, Store) end, Effects),
    lists:foldl(fun lives/2, Machine, Effects).

-spec keep([erl_esdb_log:effect()], pos_integer(), Body, erl_esdb_ra_replica:replica()) -> ok when
    Body :: binary() | [{binary(), binary()}].
keep([{live, [Index]} | _], Index, Body, Replica) ->
    erl_esdb_ra_replica:keep(Index, Body, Replica);
keep(_Effects, _Index, _Body, _Replica) ->
    ok.

-spec feed(erl_esdb_log:effect(), atom()) -> ok.
feed({order, Order}, Store) -> erl_esdb_feed:committed(Store, erl_esdb_log:log_end(Order));
feed(_Effect, _Store) -> ok.

-spec lives(erl_esdb_log:effect(), state()) -> state().
lives({live, [Index]}, #machine{live = Live, kept = Kept} = Machine) ->
    Machine#machine{live = ra_seq:append(Index, Live), kept = Kept + 1};
lives({dead, Indexes}, #machine{dead = Dead, dying = Dying, kept = Kept} = Machine) ->
    Count = length(Indexes),
    Machine#machine{dead = Indexes ++ Dead, dying = Dying + Count, kept = Kept - Count};
lives(_Effect, Machine) ->
    Machine.

-doc "What a command brought to be kept: one body, or one a stream.".
-spec body(erl_esdb_log:command()) -> binary() | [{binary(), binary()}].
body({append, _, _, Packed, _}) -> Packed;
body({append_many, Parts, _}) -> several([P || {_, _, _, #{count := N}} = P <- Parts, N > 0]);
body({put_document, _, Body}) -> Body;
body(_) -> <<>>.

-spec several([{binary(), erl_esdb_log:expected(), binary(), erl_esdb_log:summary()}]) ->
    binary() | [{binary(), binary()}].
several([{_, _, Packed, _}]) -> Packed;
several(Parts) -> [{Stream, Packed} || {Stream, _, Packed, _} <- Parts].

-spec done(pos_integer(), erl_esdb_log:command(), erl_esdb_log:reply(), state()) ->
    {state(), reply(), ra_machine:effects()}.
done(Index, Command, Reply, #machine{commands = Commands, bytes = Bytes} = Machine) ->
    Machine1 = Machine#machine{
        index = Index, commands = Commands + 1, bytes = Bytes + size_of(Command)
    },
    {Sweep, Machine2} = sweep(Command, Machine1),
    {Snapshot, Machine3} = snapshot(Command, Machine2),
    {Machine3, {Index, Reply}, Sweep ++ Snapshot}.

-spec size_of(erl_esdb_log:command()) -> non_neg_integer().
size_of(Command) -> erl_esdb_ra_replica:size_of(body(Command)).

%% Whatever came in the meantime has its turn before the next slice is erased. Only the leader does
%% this effect; where it is lost with a leader the next one goes on.
-spec sweep(erl_esdb_log:command(), state()) -> {ra_machine:effects(), state()}.
sweep(Command, #machine{log = Log, sweeping = Sweeping} = Machine) ->
    case {erl_esdb_log:pending(Log), Command} of
        {true, _} when Command =:= sweep; not Sweeping ->
            {[{append, sweep, noreply}], Machine#machine{sweeping = true}};
        {true, _} ->
            {[], Machine};
        {false, _} ->
            {[], Machine#machine{sweeping = false}}
    end.

-doc false.
-spec state_enter(Role :: atom(), state()) -> ra_machine:effects().
state_enter(leader, #machine{log = Log}) ->
    case erl_esdb_log:pending(Log) of
        %% To append a command is not allowed here: Ra would end.
        true -> [{timer, sweep, 0}];
        false -> []
    end;
state_enter(_, _Machine) ->
    [].

%% ---- snapshots

-spec snapshot(erl_esdb_log:command(), state()) -> {ra_machine:effects(), state()}.
snapshot(Command, #machine{index = Index, replica = Replica} = Machine) ->
    Tables = erl_esdb_ra_replica:tables(Replica),
    Written = erl_esdb_ra_replica:written(Replica),
    %% Or Ra has let the last one fall.
    Due = Machine#machine.asked > Written orelse is_due(Command, Machine),
    case Due andalso Index > Written andalso may_open_picture(Tables) of
        true ->
            Machine1 = (begun(Machine))#machine{picture = erl_esdb_tables:open_picture(Tables)},
            %% Not before this node has written what it has applied.
            Options = #{condition => [{written, Index}, no_snapshot_sends]},
            {[{release_cursor, Index, Machine1, Options}], Machine1};
        false ->
            {[], Machine}
    end.

-doc false.
-spec init_aux(atom()) -> none.
init_aux(_Name) -> none.

-doc false.
%% A snapshot that was due while another was written is taken when that is done, also where no more
%% commands come.
-spec handle_aux(Role :: atom(), cast | {call, ra:from()}, term(), none, Server) ->
    {no_reply, none, Server} | {no_reply, none, Server, ra_machine:effects()}
when
    Server :: term().
handle_aux(Role, cast, tick, Aux, Server) ->
    #machine{store = Store} = Machine = ra_aux:machine_state(Server),
    ok = erl_esdb_ra_view:said(Store, Role, Server),
    {Effects, _Machine} = snapshot(sweep, Machine),
    {no_reply, Aux, Server, Effects};
handle_aux(_Role, _Kind, _Command, Aux, Server) ->
    {no_reply, Aux, Server}.

-spec is_due(erl_esdb_log:command(), state()) -> boolean().
is_due(Command, #machine{kept = Kept, dying = Dying} = Machine) ->
    #machine{commands = Commands, bytes = Bytes} = Machine,
    Share = Kept div 10,
    (Commands >= Share andalso (Commands >= ?COMMANDS orelse Bytes >= ?BYTES)) orelse
        (Dying >= Share andalso (Dying >= ?DEAD orelse is_removed(Command, Machine))).

%% Whether that was the last of what was to be removed.
-spec is_removed(erl_esdb_log:command(), state()) -> boolean().
is_removed(Command, #machine{log = Log, dying = Dying}) ->
    Dying > 0 andalso is_removal(Command) andalso not erl_esdb_log:pending(Log).

-spec is_removal(erl_esdb_log:command()) -> boolean().
is_removal(sweep) -> true;
is_removal({truncate, _, _}) -> true;
is_removal({truncate, _, _, _}) -> true;
is_removal({delete, _}) -> true;
is_removal({tombstone, _}) -> true;
is_removal(_) -> false.

-spec begun(state()) -> state().
begun(#machine{index = Index, live = Live, dead = Dead} = Machine) ->
    Machine#machine{
        asked = Index,
        live = erl_esdb_ra_live:subtract(Live, Dead),
        dead = [],
        dying = 0,
        commands = 0,
        bytes = 0
    }.

-spec may_open_picture(erl_esdb_tables:tables()) -> boolean().
may_open_picture(Tables) -> erl_esdb_tables:may_open_picture(Tables, ?PATIENCE).

-doc false.
-spec live_indexes(state()) -> {ra_seq, ra_seq:state()}.
live_indexes(#machine{live = Live, dead = Dead}) ->
    {ra_seq, erl_esdb_ra_live:subtract(Live, Dead)}.

-doc "The picture that belongs to a state, and of which tables.".
-spec picture(state()) -> {erl_esdb_tables:picture() | 0, erl_esdb_tables:tables()}.
picture(#machine{picture = Number, replica = Replica}) ->
    {Number, erl_esdb_ra_replica:tables(Replica)}.

-doc "The word of who writes snapshots that this state is written.".
-spec written(state()) -> ok.
written(#machine{index = Index, replica = Replica}) -> erl_esdb_ra_replica:written(Index, Replica).

-doc "A state as it is written, without its tables.".
-spec to_snapshot(state()) -> #{format := 1, store := atom(), _ => _}.
to_snapshot(#machine{store = Store, log = Log, live = Live, dead = Dead} = Machine) ->
    #{
        format => 1,
        store => Store,
        log => erl_esdb_log:on(none, Log),
        live => erl_esdb_ra_live:subtract(Live, Dead),
        index => Machine#machine.index,
        kept => Machine#machine.kept,
        sweeping => Machine#machine.sweeping
    }.

-doc """
Whether this release reads what was written: of a format that it knows, with the fields that it has.
""".
-spec check_format(term()) -> ok | {error, {unsupported_version, non_neg_integer() | unknown}}.
check_format(#{format := 1} = Written) ->
    case is_known(Written) of
        true -> ok;
        false -> {error, {unsupported_version, unknown}}
    end;
check_format(#{format := Format}) when is_integer(Format), Format >= 0 ->
    {error, {unsupported_version, Format}};
check_format(_) ->
    {error, {unsupported_version, unknown}}.

-spec is_known(map()) -> boolean().
is_known(#{store := Store, log := Log, index := Index} = Written) ->
    is_atom(Store) andalso is_integer(Index) andalso erl_esdb_log:is_state(Log) andalso
        lists:all(fun(Key) -> is_map_key(Key, Written) end, [live, kept, sweeping]);
is_known(_) ->
    false.

-doc "The state of what was written, on the tables of a replica or on none.".
-spec from_snapshot(map(), erl_esdb_ra_replica:replica() | none) -> state().
from_snapshot(#{format := 1, store := Store, log := Log, index := Index} = Written, Replica) ->
    #{live := Live, kept := Kept, sweeping := Sweeping} = Written,
    Machine = #machine{
        store = Store,
        log = Log,
        replica = none,
        index = Index,
        live = Live,
        kept = Kept,
        sweeping = Sweeping
    },
    on(Replica, Machine).

-spec on(erl_esdb_ra_replica:replica() | none, state()) -> state().
on(none, Machine) ->
    Machine;
on(Replica, #machine{log = Log, index = Index} = Machine) ->
    Tables = erl_esdb_ra_replica:tables(Replica),
    ok = erl_esdb_tables:write_order(erl_esdb_log:order(Log), Tables),
    ok = erl_esdb_tables:write_seen(erl_esdb_log:seen(Log), Tables),
    ok = erl_esdb_ra_replica:applied(Index, Replica),
    Base = erl_esdb_tables:base(Tables),
    Machine#machine{replica = Replica, log = erl_esdb_log:on(Base, Log)}.

%% ---- queries

-doc "A query, for `ra:consistent_query/3`: `index` of the last command.".
-spec ask(index, state()) -> non_neg_integer().
ask(index, #machine{index = Index}) -> Index.

-doc false.
-spec overview(state()) -> map().
overview(#machine{store = Store, index = Index, kept = Kept}) ->
    #{store => Store, index => Index, kept => Kept}.
