-module(erl_esdb_test_backend).
-moduledoc """
An archive backend that keeps events in an ETS table, tells what it is asked, and fails where a test
says so.
""".

-behaviour(erl_esdb_archive_backend).

-export([init/1, archive/3, read/2, list/3, delete/2, exists/2]).

%% `table', `owner' who is told, `reads' (a counter of events that were read), and what goes wrong:
%% `fail', `lose', and funs, `during' the writing of an archive and `listing' of keys.
init(#{table := _, owner := _} = Options) -> {ok, Options}.

archive(#{fail := Reason} = State, Key, _Events) ->
    tell(State, {archive, Key}),
    {error, Reason};
archive(#{table := Table} = State, Key, Events) ->
    tell(State, {archive, Key}),
    _ = (maps:get(during, State, fun() -> ok end))(),
    Kept =
        case State of
            #{lose := true} -> tl(Events);
            #{} -> Events
        end,
    true = ets:insert(Table, {Key, Kept}),
    {ok, State}.

read(#{table := Table} = State, Key) ->
    case ets:lookup(Table, Key) of
        [{Key, Events}] ->
            _ = [counters:add(Reads, 1, length(Events)) || #{reads := Reads} <- [State]],
            {ok, Events, State};
        [] -> {error, {archive_not_found, Key}}
    end.

list(#{table := Table} = State, Store, Stream) ->
    _ = (maps:get(listing, State, fun() -> ok end))(),
    Keys = [
        Key
     || {Key, _} <- ets:tab2list(Table),
        {ok, #{store_id := S, stream_id := I}} <- [erl_esdb_archive_backend:parse_key(Key)],
        S =:= Store,
        I =:= Stream
    ],
    {ok, Keys, State}.

delete(#{table := Table} = State, Key) ->
    true = ets:delete(Table, Key),
    {ok, State}.

exists(#{table := Table} = State, Key) -> {ets:member(Table, Key), State}.

tell(#{owner := Owner}, What) -> Owner ! {?MODULE, What}.
