-module(erl_esdb_subscriber).
-moduledoc """
A subscriber on the node of the store, that keeps what it is sent until somebody elsewhere takes it.

Who takes the events writes them down, and acknowledges them afterwards. So what is lost with this
process, or with its node, was not acknowledged, and comes again.
""".

-export([start/0, take/2, kill_all/0]).

-include("../include/erl_esdb.hrl").

-spec start() -> pid().
start() ->
    spawn(fun() ->
        ok = proc_lib:set_label(?MODULE),
        loop([])
    end).

-doc "What has come since it was asked last, in that order; waits so many milliseconds for some.".
-spec take(pid(), timeout()) -> {ok, [event()]} | {error, dead}.
take(Pid, Timeout) ->
    Ref = monitor(process, Pid),
    Pid ! {take, self(), Ref, Timeout},
    receive
        {Ref, Events} ->
            true = demonitor(Ref, [flush]),
            {ok, Events};
        {'DOWN', Ref, process, Pid, _} ->
            {error, dead}
    end.

-doc "Kills all of this node, and answers how many there were.".
-spec kill_all() -> non_neg_integer().
kill_all() ->
    Pids = [Pid || Pid <- processes(), is_one(Pid)],
    length([Pid || Pid <- Pids, exit(Pid, kill)]).

-spec is_one(pid()) -> boolean().
is_one(Pid) ->
    case process_info(Pid, label) of
        {label, ?MODULE} -> true;
        _ -> false
    end.

-spec loop([event()]) -> no_return().
loop(Events) ->
    receive
        {events, New} -> loop(Events ++ New);
        {take, From, Ref, Timeout} -> loop(give(From, Ref, Timeout, Events))
    end.

-spec give(pid(), reference(), timeout(), [event()]) -> [].
give(From, Ref, Timeout, []) ->
    receive
        {events, Events} -> give(From, Ref, 0, Events)
    after Timeout -> give(From, Ref, [])
    end;
give(From, Ref, _Timeout, Events) ->
    give(From, Ref, Events).

-spec give(pid(), reference(), [event()]) -> [].
give(From, Ref, Events) ->
    From ! {Ref, Events},
    [].
