-module(erl_esdb_ra_reports).
-moduledoc """
Of the reports of a Ra system that fails again and again, one of each kind in ten seconds.

Where the disk is full a Ra system ends and is started again dozens of times in a second, and its
supervisors report each with the whole configuration: thousands of lines. This is a primary filter
of `m:logger` for what OTP reports of the systems of this application, and of nothing else. The
first report of a kind is as ever, for the second there is one line, and the others are left out.
`logger:remove_primary_filter(erl_esdb_ra_reports)` brings them back.

And it leaves out two warnings of Ra about what is meant to be, where a store stops: that a snapshot
could not be written, which was given up (`m:erl_esdb_ra_snapshot`), and that who writes them ended
before the server did, as their supervisor has it.
""".

-export([install/0, remove/0, filter/2]).

-include_lib("kernel/include/logger.hrl").

%% Milliseconds in which a kind is told once.
-define(PERIOD, 10_000).
%% What the names of our systems begin with, and those of their processes.
-define(SYSTEM, "erl_esdb_").
-define(PROCESS, "ra_erl_esdb_").

%% Who fails, of whom that is told, and why as far as it is a word.
-type kind() :: {supervisor | process, Who :: term(), What :: term(), Why :: atom()}.

-doc "From now on, as long as the calling process lives.".
-spec install() -> ok.
install() ->
    ?MODULE = ets:new(?MODULE, [named_table, public]),
    _ = remove(),
    Filter = {fun ?MODULE:filter/2, #{period => ?PERIOD}},
    ok = logger:add_primary_filter(?MODULE, Filter).

-doc "No more.".
-spec remove() -> ok | {error, term()}.
remove() -> logger:remove_primary_filter(?MODULE).

-doc false.
-spec filter(logger:log_event(), #{period := non_neg_integer()}) -> stop | ignore.
filter(#{msg := {report, #{label := {Label, What}, report := Report}}}, #{period := Period}) ->
    case kind(Label, What, Report) of
        none -> ignore;
        Kind -> told(Kind, Period)
    end;
filter(#{msg := {_, [Server, Why | _]}, meta := #{mfa := Where}}, _Config) ->
    case is_meant(Where, Why) andalso is_server(Server) of
        true -> stop;
        false -> ignore
    end;
filter(_Event, _Config) ->
    ignore.

-spec is_meant(mfa(), term()) -> boolean().
is_meant({ra_worker, _, _}, {case_clause, {error, {erl_esdb_ra_snapshot, store_stops}}}) -> true;
is_meant({ra_server_proc, handle_process_down, _}, shutdown) -> true;
is_meant(_, _) -> false.

%% As Ra names it in what it logs: a tuple as it is printed, with quotes where the name needs them.
-spec is_server(term()) -> boolean().
is_server("{'" ++ Text) -> lists:prefix(?SYSTEM, Text);
is_server("{" ++ Text) -> lists:prefix(?SYSTEM, Text);
is_server(_) -> false.

-spec kind(atom(), atom(), term()) -> kind() | none.
kind(supervisor, What, [{supervisor, Sup}, {errorContext, _}, {reason, Why}, {offender, Child}]) ->
    case is_system(proplists:get_value(mfargs, Child)) of
        true -> {supervisor, who(Sup), {What, proplists:get_value(id, Child)}, word(Why)};
        false -> none
    end;
kind(proc_lib, crash, [Info, _Linked]) ->
    Names = [
        proplists:get_value(registered_name, Info) | proplists:get_value(ancestors, Info, [])
    ],
    case lists:any(fun is_process/1, Names) of
        true ->
            {_, Why, _} = proplists:get_value(error_info, Info),
            {process, lists:filter(fun is_process/1, Names), initial(Info), word(Why)};
        false ->
            none
    end;
kind(_, _, _) ->
    none.

-spec is_system(term()) -> boolean().
is_system({_, _, [#{system_config := #{name := Name}} | _]}) -> begins(?SYSTEM, Name);
is_system({_, _, [#{system := Name} | _]}) -> begins(?SYSTEM, Name);
is_system({_, _, [#{name := Name} | _]}) -> begins(?SYSTEM, Name);
is_system({_, _, [Name | _]}) -> begins(?SYSTEM, Name);
is_system(_) -> false.

-spec is_process(term()) -> boolean().
is_process(Name) -> begins(?PROCESS, Name).

-spec begins(string(), term()) -> boolean().
begins(Prefix, Name) -> is_atom(Name) andalso lists:prefix(Prefix, atom_to_list(Name)).

-spec who(term()) -> term().
who({Pid, Module}) when is_pid(Pid) -> Module;
who(Name) -> Name.

-spec initial([tuple()]) -> module() | undefined.
initial(Info) ->
    case proplists:get_value(initial_call, Info) of
        {Module, _, _} -> Module;
        _ -> undefined
    end.

-spec word(term()) -> atom().
word(Why) ->
    case erl_esdb_ra_server:posix(Why) of
        Word when is_atom(Word) -> Word;
        _ -> other
    end.

-spec told(kind(), non_neg_integer()) -> stop | ignore.
told(Kind, Period) ->
    Now = erlang:monotonic_time(millisecond),
    try ets:lookup(?MODULE, Kind) of
        [{_, Since, Times}] when Now - Since < Period ->
            true = ets:insert(?MODULE, {Kind, Since, Times + 1}),
            _ = Times =:= 1 andalso left_out(Kind, Period),
            stop;
        _ ->
            true = ets:insert(?MODULE, {Kind, Now, 1}),
            ignore
    catch
        %% Who installed it has just ended.
        error:badarg -> ignore
    end.

-spec left_out(kind(), non_neg_integer()) -> ok.
left_out({_, Who, What, Why}, Period) ->
    ?LOG_WARNING("~tp: ~tp, ~tp again; told once in ~b seconds", [Who, What, Why, Period div 1000]).
