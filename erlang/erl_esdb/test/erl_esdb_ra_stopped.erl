-module(erl_esdb_ra_stopped).
-moduledoc """
Writers of snapshots that stop for ever at a certain place, on a node that is about to be killed;
and such that are slow, or lose what Ra loses.

`beam/2` makes an `m:erl_esdb_ra_snapshot` that does so:

- `before_snapshot`: the list of live entries is written, the snapshot is begun;
- `before_list`: the snapshot is written, and no list yet, as Ra alone does it;
- `no_mend`: a list of live entries that is missing is not written again;
- `slow`: each write of a snapshot, also of one that is sent, takes as long as `pace/1` says.
""".

-export([beam/2, is_stopped/0, pace/1]).
-export([write_indexes/2, fold_picture/4, written/1, is_file/1, write/2]).
-export_type([place/0]).

-type place() :: before_snapshot | before_list | no_mend | slow.

-doc "Writes it into a folder, which is to come first in the code path.".
-spec beam(place(), file:filename()) -> ok.
beam(Place, Dir) ->
    Path = code:which(erl_esdb_ra_snapshot),
    {ok, {_, [{abstract_code, {raw_abstract_v1, Forms}}]}} =
        beam_lib:chunks(Path, [abstract_code]),
    Calls = calls(Place),
    Changed = erl_syntax:revert_forms([
        erl_syntax_lib:map(fun(Tree) -> changed(Tree, Calls) end, Form)
     || Form <- Forms
    ]),
    {ok, erl_esdb_ra_snapshot, Code} = compile:forms(Changed, [debug_info]),
    ok = filelib:ensure_path(Dir),
    file:write_file(filename:join(Dir, "erl_esdb_ra_snapshot.beam"), Code).

%% What is called here instead.
-spec calls(place()) -> [{module(), atom()}].
calls(before_snapshot) -> [{erl_esdb_tables, fold_picture}];
calls(before_list) -> [{ra_snapshot, write_indexes}, {erl_esdb_ra_machine, written}];
calls(no_mend) -> [{ra_lib, is_file}];
calls(slow) -> [{file, write}].

-spec changed(erl_syntax:syntaxTree(), [{module(), atom()}]) -> erl_syntax:syntaxTree().
changed(Tree, Calls) ->
    maybe
        module_qualifier ?= erl_syntax:type(Tree),
        Module = erl_syntax:module_qualifier_argument(Tree),
        Function = erl_syntax:module_qualifier_body(Tree),
        [atom, atom] ?= [erl_syntax:type(Part) || Part <- [Module, Function]],
        Called = {erl_syntax:atom_value(Module), erl_syntax:atom_value(Function)},
        true ?= lists:member(Called, Calls),
        Here = erl_syntax:copy_pos(Module, erl_syntax:atom(?MODULE)),
        erl_syntax:copy_pos(Tree, erl_syntax:module_qualifier(Here, Function))
    else
        _ -> Tree
    end.

-doc "Whether a writer of this node has stopped.".
-spec is_stopped() -> boolean().
is_stopped() -> persistent_term:get(?MODULE, false).

-doc "Milliseconds that each write of this node takes; `never`: it fails.".
-spec pace(non_neg_integer() | never) -> ok.
pace(Pace) -> persistent_term:put({?MODULE, pace}, Pace).

-spec stopped() -> no_return().
stopped() ->
    ok = persistent_term:put(?MODULE, true),
    receive
        {?MODULE, go_on} -> exit(normal)
    end.

%% ---- called instead

-doc false.
-spec write_indexes(file:filename_all(), ra_seq:state()) -> ok.
write_indexes(_Dir, _Live) -> ok.

-doc false.
-spec fold_picture(fun(), term(), erl_esdb_tables:picture() | 0, erl_esdb_tables:tables()) ->
    no_return().
fold_picture(_Fun, _Acc, _Picture, _Tables) -> stopped().

-doc false.
-spec written(erl_esdb_ra_machine:state()) -> no_return().
written(_State) -> stopped().

-doc false.
-spec write(file:io_device(), iodata()) -> ok | {error, term()}.
write(Fd, Bytes) ->
    case persistent_term:get({?MODULE, pace}, 0) of
        never ->
            {error, eio};
        Time ->
            receive
            after Time -> file:write(Fd, Bytes)
            end
    end.

-doc false.
-spec is_file(file:filename_all()) -> true.
is_file(_File) -> true.
