-module(erl_esdb_ra_machine_next).
-moduledoc """
A next version of the machine, which exists in the tests only: it knows one more command, and keeps
how often it was given.

`beam/1` makes an `m:erl_esdb_ra_machine` that has this version besides its own, as a later release
would: for nodes that are upgraded.
""".

-behaviour(ra_machine).

-export([init/1, apply/3, state_enter/2, live_indexes/1, snapshot_module/0, overview/1]).
-export([beam/1]).

init(Args) -> erl_esdb_ra_machine:init(Args).

apply(#{index := Index}, {next, Word}, State) ->
    {State, {Index, {next, Word}}, []};
apply(Meta, Command, State) ->
    erl_esdb_ra_machine:apply(Meta, Command, State).

state_enter(Role, State) -> erl_esdb_ra_machine:state_enter(Role, State).

live_indexes(State) -> erl_esdb_ra_machine:live_indexes(State).

snapshot_module() -> erl_esdb_ra_machine:snapshot_module().

overview(State) -> erl_esdb_ra_machine:overview(State).

-doc "Writes it into a folder, which is to come first in the code path.".
-spec beam(file:filename()) -> ok.
beam(Dir) ->
    Path = code:which(erl_esdb_ra_machine),
    {ok, {_, [{abstract_code, {raw_abstract_v1, Forms}}]}} =
        beam_lib:chunks(Path, [abstract_code]),
    Changed = [changed(Form) || Form <- Forms, not is_spec(Form)],
    {ok, erl_esdb_ra_machine, Code} = compile:forms(Changed, [debug_info]),
    ok = filelib:ensure_path(Dir),
    file:write_file(filename:join(Dir, "erl_esdb_ra_machine.beam"), Code).

%% version() -> 1.  which_module(0) -> the old one; which_module(1) -> this one.
changed({function, A, version, 0, _}) ->
    {function, A, version, 0, [{clause, A, [], [], [{integer, A, 1}]}]};
changed({function, A, which_module, 1, Old}) ->
    New = {clause, A, [{integer, A, 1}], [], [{atom, A, ?MODULE}]},
    {function, A, which_module, 1, [New | Old]};
changed(Form) ->
    Form.

is_spec({attribute, _, spec, {{version, 0}, _}}) -> true;
is_spec(_) -> false.
