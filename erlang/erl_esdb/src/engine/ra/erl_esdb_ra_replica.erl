-module(erl_esdb_ra_replica).
-moduledoc """
What a node has of a store on Ra in memory: its tables, how far they are, and the bodies that were
written or read lately.

It belongs to the Ra server of the store on this node, which makes it when it starts and anew when
it takes over a snapshot; processes of this node find it by the name of the store. One that is
replaced is gone at once, with its tables: who reads there looks for the new one.

```erlang
1> {ok, Replica} = erl_esdb_ra_replica:find(shop).
2> ok = erl_esdb_ra_replica:await(Replica, Index, erl_esdb_deadline:in(5000)).
3> {ok, Head} = erl_esdb_tables:stream(erl_esdb_ra_replica:tables(Replica), ~"order-1", #{}).
```
""".

-export([prepare/2, open/1, publish/1, close/1, find/1, is_current/1, tables/1]).
-export([applied/1, applied/2, await/3, written/1, written/2]).
-export([keep/3, bodies/3, size_of/1, bytes/1]).
-export_type([replica/0]).

%% Places in the array of a replica: the index of the command that was applied last, and how many
%% processes wait for another.
-define(APPLIED, 1).
-define(WAITING, 2).
%% Bytes of bodies of one of the two generations, and which one is the young one.
-define(BYTES, 3).
-define(YOUNG, 4).
%% The index of the state that was written last.
-define(WRITTEN, 5).
%% Bytes of bodies where nobody has said how many.
-define(READ_CACHE, 67_108_864).
%% The share of a body that is not its bytes.
-define(OVERHEAD, 100).

-record(replica, {
    store :: atom(),
    server :: pid(),
    tables :: erl_esdb_tables:tables(),
    state :: atomics:atomics_ref(),
    %% {{Index, Alias}}, ordered
    waiting :: ets:table(),
    %% {Index, Body}: the young generation and the old one change places
    bodies :: {ets:table(), ets:table()},
    %% bytes that one of them takes
    half :: pos_integer()
}).

-opaque replica() :: #replica{}.

-doc "How many bytes of bodies the replicas of a store keep that are opened from here on.".
-spec prepare(Store :: atom(), ReadCache :: pos_integer()) -> ok.
prepare(Store, ReadCache) -> persistent_term:put({?MODULE, read_cache, Store}, ReadCache).

-doc """
A new, empty replica of the calling process. It takes the place of an earlier one with `publish/1`:
until then readers see that one.
""".
-spec open(Store :: atom()) -> replica().
open(Store) ->
    ReadCache = persistent_term:get({?MODULE, read_cache, Store}, ?READ_CACHE),
    Replica = #replica{
        store = Store,
        server = self(),
        tables = erl_esdb_tables:new(),
        state = atomics:new(5, []),
        waiting = ets:new(?MODULE, [ordered_set, public]),
        bodies = {bodies(), bodies()},
        half = max(1, ReadCache div 2)
    },
    ok = atomics:put(Replica#replica.state, ?YOUNG, 1),
    Replica.

-doc "From here on this is the replica of its store; an earlier one of the process is deleted.".
-spec publish(replica()) -> ok.
publish(#replica{store = Store} = Replica) ->
    Before = put(?MODULE, Replica),
    ok = persistent_term:put({?MODULE, Store}, Replica),
    delete(Before).

-spec bodies() -> ets:table().
bodies() -> ets:new(?MODULE, [set, public, {read_concurrency, true}]).

-spec delete(replica() | undefined) -> ok.
delete(undefined) ->
    ok;
delete(#replica{tables = Tables, bodies = {A, B}, waiting = Waiting}) ->
    %% Who waits is to look at the new one, and hears of it before all this is taken apart.
    Tell = fun({{_Index, Alias}}) -> Alias ! {Alias, replaced} end,
    lists:foreach(Tell, ets:tab2list(Waiting)),
    ok = erl_esdb_tables:delete(Tables),
    lists:foreach(fun ets:delete/1, [A, B, Waiting]).

-doc "Forgets the replica of a store whose server has been stopped.".
-spec close(Store :: atom()) -> ok.
close(Store) ->
    _ = persistent_term:erase({?MODULE, Store}),
    _ = persistent_term:erase({?MODULE, read_cache, Store}),
    ok.

-doc "The replica of a store on this node.".
-spec find(Store :: atom()) -> {ok, replica()} | {error, not_started}.
find(Store) ->
    case persistent_term:get({?MODULE, Store}, none) of
        none -> {error, not_started};
        Replica -> {ok, Replica}
    end.

-doc "Whether it was not replaced, and its server lives.".
-spec is_current(replica()) -> boolean().
is_current(#replica{server = Server} = Replica) ->
    is_published(Replica) andalso is_process_alive(Server).

-spec is_published(replica()) -> boolean().
is_published(#replica{store = Store} = Replica) -> find(Store) =:= {ok, Replica}.

-doc "Its tables.".
-spec tables(replica()) -> erl_esdb_tables:tables().
tables(#replica{tables = Tables}) -> Tables.

%% ---- how far it is

-doc "The index of the last command that can be read here.".
-spec applied(replica()) -> non_neg_integer().
applied(#replica{state = State}) -> atomics:get(State, ?APPLIED).

-doc "The server's word that what a command changed is in the tables.".
-spec applied(non_neg_integer(), replica()) -> ok.
applied(Index, #replica{state = State} = Replica) ->
    ok = atomics:put(State, ?APPLIED, Index),
    case atomics:get(State, ?WAITING) of
        0 -> ok;
        _ -> tell(ets:first(Replica#replica.waiting), Index, Replica#replica.waiting)
    end.

-spec tell(Key | '$end_of_table', non_neg_integer(), ets:table()) -> ok when
    Key :: {non_neg_integer(), reference()}.
tell({Wanted, Alias} = Key, Index, Waiting) when Wanted =< Index ->
    true = ets:delete(Waiting, Key),
    Alias ! {Alias, applied},
    tell(ets:first(Waiting), Index, Waiting);
tell(_, _Index, _Waiting) ->
    ok.

-doc "Waits until a command has been applied here; `not_started` where another took its place.".
-spec await(replica(), Index :: non_neg_integer(), erl_esdb_deadline:deadline()) ->
    ok | {error, timeout | not_started}.
await(#replica{state = State} = Replica, Index, Until) ->
    case atomics:get(State, ?APPLIED) >= Index of
        true -> ok;
        false -> wait(Replica, Index, Until)
    end.

%% First the place in the row, then one more look: whoever applies the command meanwhile sees it,
%% and so does who puts another in the place of this one.
-spec wait(replica(), non_neg_integer(), erl_esdb_deadline:deadline()) ->
    ok | {error, timeout | not_started}.
wait(#replica{state = State, waiting = Waiting, server = Server} = Replica, Index, Until) ->
    Alias = monitor(process, Server, [{alias, reply_demonitor}]),
    Key = {Index, Alias},
    ok = atomics:add(State, ?WAITING, 1),
    try
        true = ets:insert(Waiting, {Key}),
        case {atomics:get(State, ?APPLIED) >= Index, is_published(Replica)} of
            {true, _} -> ok;
            {false, true} -> waited(Alias, Until);
            {false, false} -> {error, not_started}
        end
    catch
        %% It was replaced.
        error:badarg -> {error, not_started}
    after
        _ = demonitor(Alias, [flush]),
        forget(Key, Replica)
    end.

-spec waited(reference(), erl_esdb_deadline:deadline()) -> ok | {error, timeout | not_started}.
waited(Alias, Until) ->
    receive
        {Alias, applied} -> ok;
        {Alias, replaced} -> {error, not_started};
        {'DOWN', Alias, process, _, _} -> {error, not_started}
    after erl_esdb_deadline:left(Until) -> {error, timeout}
    end.

-spec forget({non_neg_integer(), reference()}, replica()) -> ok.
forget({_, Alias} = Key, #replica{state = State, waiting = Waiting}) ->
    ok = atomics:sub(State, ?WAITING, 1),
    try
        true = ets:delete(Waiting, Key)
    catch
        error:badarg -> true
    end,
    receive
        {Alias, _} -> ok
    after 0 -> ok
    end.

-doc "The index of the state that was written last, since the server has started.".
-spec written(replica()) -> non_neg_integer().
written(#replica{state = State}) -> atomics:get(State, ?WRITTEN).

-doc "The word that the state with this index is written.".
-spec written(non_neg_integer(), replica()) -> ok.
written(Index, #replica{state = State}) -> atomics:put(State, ?WRITTEN, Index).

%% ---- bodies

-doc """
Keeps a body for readers. Bounded: when the young generation is full it becomes the old one, and
what was the old one is forgotten.
""".
-spec keep(Index :: pos_integer(), Body, replica()) -> ok when
    Body :: binary() | [{binary(), binary()}].
keep(Index, Body, #replica{state = State, half = Half} = Replica) ->
    true = ets:insert(young(Replica), {Index, Body}),
    case atomics:add_get(State, ?BYTES, size_of(Body) + ?OVERHEAD) > Half of
        true -> turn(Replica);
        false -> ok
    end.

-doc "The bytes of what a command brought.".
-spec size_of(binary() | [{binary(), binary()}]) -> non_neg_integer().
size_of(Body) when is_binary(Body) -> byte_size(Body);
size_of([{_Stream, Body} | Parts]) -> byte_size(Body) + size_of(Parts);
size_of([]) -> 0.

%% Only who resets the count turns.
-spec turn(replica()) -> ok.
turn(#replica{state = State, half = Half, bodies = Bodies}) ->
    case atomics:exchange(State, ?BYTES, 0) of
        Bytes when Bytes > Half ->
            Old = 3 - atomics:get(State, ?YOUNG),
            true = ets:delete_all_objects(element(Old, Bodies)),
            atomics:put(State, ?YOUNG, Old);
        Bytes ->
            atomics:add(State, ?BYTES, Bytes)
    end.

-spec young(replica()) -> ets:table().
young(#replica{state = State, bodies = Bodies}) -> element(atomics:get(State, ?YOUNG), Bodies).

-doc """
The bodies of these commands, in their order: `none` for each that is not kept.

Whoever will `stay` has what it finds kept for longer. Who passes once through much does not: that
would take the place of what others ask for again and again.
""".
-spec bodies([Index :: pos_integer()], stay | pass, replica()) -> [Body | none] when
    Body :: binary() | [{binary(), binary()}].
bodies(Indexes, Use, #replica{state = State, bodies = Bodies} = Replica) ->
    Young = atomics:get(State, ?YOUNG),
    Old = element(3 - Young, Bodies),
    Keep =
        case Use of
            stay -> Old;
            pass -> none
        end,
    bodies(Indexes, element(Young, Bodies), Old, Keep, Replica).

%% Neighbours came at the same time: the table that had the last one is asked first.
-spec bodies([pos_integer()], ets:table(), ets:table(), ets:table() | none, replica()) ->
    [Body | none]
when
    Body :: binary() | [{binary(), binary()}].
bodies([Index | Indexes], First, Second, Keep, Replica) ->
    case ets:lookup_element(First, Index, 2, none) of
        none ->
            case ets:lookup_element(Second, Index, 2, none) of
                none ->
                    [none | bodies(Indexes, First, Second, Keep, Replica)];
                Body ->
                    ok = stays(Second =:= Keep, Index, Body, Replica),
                    [Body | bodies(Indexes, Second, First, Keep, Replica)]
            end;
        Body ->
            ok = stays(First =:= Keep, Index, Body, Replica),
            [Body | bodies(Indexes, First, Second, Keep, Replica)]
    end;
bodies([], _First, _Second, _Keep, _Replica) ->
    [].

-spec stays(boolean(), pos_integer(), Body, replica()) -> ok when
    Body :: binary() | [{binary(), binary()}].
stays(true, Index, Body, Replica) -> keep(Index, Body, Replica);
stays(false, _Index, _Body, _Replica) -> ok.

-doc "The bytes of RAM that a replica takes: its tables, and the bodies that are kept.".
-spec bytes(replica()) -> non_neg_integer().
bytes(#replica{tables = Tables, half = Half, state = State}) ->
    %% The young generation, and an old one where there is one: at most twice the half.
    erl_esdb_tables:bytes(Tables) + min(Half, atomics:get(State, ?BYTES)).
