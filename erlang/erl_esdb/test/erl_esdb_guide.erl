-module(erl_esdb_guide).
-moduledoc """
Runs the Erlang examples of a page: what they show is what happens.

A page is one session, as in the shell: a block of `N> ` prompts is run line by line, with records
(`rr`) and with what is printed. What is shown behind a line must be the result; where nothing is
shown it must only not fail. A block that begins with `-module(` is a file that the reader has: it
is compiled and loaded. Other blocks show a form and no session.

Paths below `/var/lib/shop` stand for a folder that the caller gives.
""".

-export([session/3]).

-type record_forms() :: [erl_parse:abstract_form()].
-type state() :: {erl_eval:binding_struct(), record_forms()}.


-doc "How many lines of a page ran.".
-spec session(Name :: string(), Page :: binary(), Folder :: file:filename()) -> non_neg_integer().
session(Name, Page, Folder) ->
    Steps = lists:append([steps(Block) || Block <- blocks(placed(Page, Folder))]),
    Run = fun
        ({module, Source}, State) -> loaded(Folder, Source, State);
        ({line, Tokens, Shown}, State) -> line(Name, Tokens, Shown, State)
    end,
    Before = group_leader(),
    Screen = spawn_link(fun() -> screen([]) end),
    true = group_leader(Screen, self()),
    try
        lists:foldl(Run, {#{}, []}, Steps),
        length([line || {line, _, _} <- Steps])
    after
        true = group_leader(Before, self()),
        true = unlink(Screen),
        exit(Screen, kill)
    end.

-spec placed(binary(), file:filename()) -> binary().
placed(Page, Folder) ->
    binary:replace(Page, ~"/var/lib/shop", unicode:characters_to_binary(Folder), [global]).

-spec blocks(binary()) -> [binary()].
blocks(Page) ->
    Options = [global, multiline, dotall, {capture, all_but_first, binary}],
    case re:run(Page, "^ *```erlang\n(.*?)^ *```$", Options) of
        {match, Blocks} -> [Block || [Block] <- Blocks];
        nomatch -> []
    end.

-type step() :: {line, [term()], Shown :: string()} | {module, string()}.

-spec steps(binary()) -> [step()].
steps(<<"-module(", _/binary>> = Module) ->
    [{module, unicode:characters_to_list(Module)}];
steps(Block) ->
    [_ | Entries] = re:split(Block, "^[0-9]+> ", [multiline, {return, binary}]),
    [cut(unicode:characters_to_list(Entry)) || Entry <- Entries].

%% A line goes up to its full stop; what stands behind that is what it shows.
-spec cut(string()) -> step().
cut(Entry) ->
    {done, {ok, Tokens, _}, Rest} = erl_scan:tokens([], Entry, 1),
    {line, Tokens, string:trim(Rest)}.

-spec loaded(file:filename(), string(), state()) -> state().
loaded(Folder, Source, State) ->
    {Module, Binary} = compiled(Folder, Source),
    {module, Module} = code:load_binary(Module, atom_to_list(Module) ++ ".erl", Binary),
    State.

-spec line(string(), [term()], string(), state()) -> state().
line(Name, Tokens, Shown, {Bindings, Records}) ->
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    try evaluated(Expressions, Bindings, Records) of
        {Value, Bindings1, Records1} ->
            ok = compared(Name, Expressions, {printed(), Value}, Shown, Records1),
            {Bindings1, Records1}
    catch
        Class:Reason:Stack ->
            io:format(user, "~ts: ~ts~n", [Name, code(Expressions)]),
            erlang:raise(Class, Reason, Stack)
    end.

-spec compared(string(), [erl_parse:abstract_expr()], {string(), term()}, string(), _) -> ok.
compared(_, _, _, "", _) ->
    ok;
compared(Name, Expressions, {Printed, Value} = Got, Shown, Records) ->
    case string:prefix(Shown, string:trim(Printed)) of
        nomatch ->
            error({differs, Name, code(Expressions), {shown, Shown}, {got, Got}});
        Rest ->
            {ok, Tokens, _} = erl_scan:string(Rest ++ "."),
            {ok, Parsed} = erl_parse:parse_exprs(Tokens),
            {Expected, _, _} = evaluated(Parsed, #{}, Records),
            Expected =:= Value orelse
                error({differs, Name, code(Expressions), {shown, Shown}, {got, Got}}),
            ok
    end.

-spec code([erl_parse:abstract_expr()]) -> binary().
code(Expressions) -> unicode:characters_to_binary(erl_pp:exprs(Expressions)).

%% ---- what is printed

%% A group leader that keeps what is written to it.
-spec screen(iodata()) -> no_return().
screen(Printed) ->
    receive
        {io_request, From, Ref, Request} ->
            From ! {io_reply, Ref, ok},
            screen([Printed | written(Request)]);
        {printed, From} ->
            From ! {printed, Printed},
            screen([])
    end.

-spec written(tuple()) -> unicode:chardata().
written({put_chars, _, Chars}) -> Chars;
written({put_chars, _, Module, Function, Args}) -> apply(Module, Function, Args);
written(_) -> [].

-spec printed() -> string().
printed() ->
    group_leader() ! {printed, self()},
    receive
        {printed, Printed} -> unicode:characters_to_list(Printed)
    end.

%% ---- what the shell adds to expressions: records

-spec evaluated([erl_parse:abstract_expr()], erl_eval:binding_struct(), record_forms()) ->
    {term(), erl_eval:binding_struct(), record_forms()}.
evaluated([{call, _, {atom, _, rr}, [{Kind, _, Given}]}], Bindings, Records) ->
    Read = read(Kind, Given),
    {records, Bindings, Records ++ [Record || Record <- Read, not lists:member(Record, Records)]};
evaluated(Expressions, Bindings, Records) ->
    {value, Value, Bindings1} = erl_eval:exprs(expanded(Expressions, Records), Bindings),
    {Value, maps:filter(fun is_from_the_page/2, Bindings1), Records}.

%% The expansion of records makes variables of its own, with names that nobody can write.
-spec is_from_the_page(atom(), term()) -> boolean().
is_from_the_page(Name, _) -> not lists:member(hd(atom_to_list(Name)), lists:seq($a, $z)).

-spec read(atom | string, module() | file:filename()) -> record_forms().
read(atom, Module) ->
    {ok, {_, [{abstract_code, {_, Forms}}]}} =
        beam_lib:chunks(code:which(Module), [abstract_code]),
    [Form || {attribute, _, record, _} = Form <- Forms];
read(string, "erlang/erl_esdb/include/" ++ Header) ->
    {ok, Forms} = epp:parse_file(filename:join([code:lib_dir(erl_esdb), "include", Header]), []),
    [Form || {attribute, _, record, _} = Form <- Forms].

-spec expanded([erl_parse:abstract_expr()], record_forms()) -> [erl_parse:abstract_expr()].
expanded(Expressions, Records) ->
    Function = {function, 1, line, 0, [{clause, 1, [], [], Expressions}]},
    Forms = [{attribute, 1, module, line} | Records] ++ [Function],
    Expanded = erl_expand_records:module(Forms, [strict_record_tests]),
    [{clause, _, _, _, Body}] = hd([Clauses || {function, _, line, 0, Clauses} <- Expanded]),
    Body.

%% ---- modules

-spec compiled(file:filename(), string()) -> {module(), binary()}.
compiled(Folder, Source) ->
    {match, [Module]} = re:run(Source, "^-module\\((\\w+)\\)", [{capture, [1], list}]),
    File = filename:join(Folder, Module ++ ".erl"),
    ok = file:write_file(File, unicode:characters_to_binary(Source)),
    {ok, Name, Binary} = compile:file(File, [binary, debug_info, report]),
    {Name, Binary}.
