-module(erl_esdb_ra_reader).
-moduledoc """
Reads commands back from Ra's log on this node, by their indexes.

A store has a few of these processes, because each keeps the segment files open that it read last,
and one more for what is read in the background, so that no caller waits behind it.
Ra says where entries are (a read plan); the files are read here (`m:erl_esdb_ra_segment`), not in
Ra's server. Plans and segments of a form that is not known here are left to Ra to read.

What is read is compared with its checksums, and kept in the replica for others if it shall be.
""".

-behaviour(gen_server).

-export([start_link/2, fetch/5]).
-export([init/1, handle_call/3, handle_cast/2]).
-export_type([wanted/0, did/0, body/0]).

%% Plans are opaque.
-dialyzer({nowarn_function, planned/2}).

%% Segment files that are kept open.
-define(OPEN, 32).

-record(state, {
    server :: ra:server_id(),
    open :: ra_flru:state()
}).

-doc "The indexes of commands, and what each did.".
-type wanted() :: #{ra:index() => did()}.
-type did() :: {append, Stream :: binary(), pos_integer()} | {document, Key :: tuple()}.
-doc "What a command brought: one body, or one a stream.".
-type body() :: erl_esdb_batch:packed() | [{binary(), erl_esdb_batch:packed()}].
-type bodies() :: #{ra:index() => body()}.
-type entries() :: #{ra:index() => term()}.

-doc "A reader of the log of a server on this node. Whom it is for is in its label.".
-spec start_link(ra:server_id(), For :: callers | background) -> gen_server:start_ret().
start_link(Server, For) -> gen_server:start_link(?MODULE, {Server, For}, []).

-doc """
What these commands brought, without those that are not in the log: any more, or yet. The replica
keeps it, or not.
""".
-spec fetch(Reader :: pid(), wanted(), erl_esdb_ra_replica:replica(), keep | forget, Until) ->
    {ok, bodies()} | {error, timeout | not_started}
when
    Until :: erl_esdb_deadline:deadline().
fetch(Reader, Wanted, Replica, Keep, Until) ->
    Left = erl_esdb_deadline:left(Until),
    try
        gen_server:call(Reader, {fetch, Wanted, Replica, Keep, Until}, Left)
    catch
        exit:{timeout, _} -> {error, timeout};
        exit:{_, {gen_server, call, _}} -> {error, not_started}
    end.

-doc false.
-spec init({ra:server_id(), callers | background}) -> {ok, #state{}}.
init({{Name, _} = Server, For}) ->
    proc_lib:set_label({?MODULE, For, Name}),
    {ok, #state{server = Server, open = new()}}.

-spec new() -> ra_flru:state().
new() -> ra_flru:new(?OPEN, fun({_Name, Segment}) -> closed(Segment) end).

-spec closed({segment, erl_esdb_ra_segment:segment()}) -> ok.
closed({segment, Segment}) -> erl_esdb_ra_segment:close(Segment).

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, {ok, bodies()} | {error, timeout | not_started | unknown_request}, #state{}}.
handle_call({fetch, Wanted, Replica, Keep, Until}, _From, #state{} = State) ->
    case erl_esdb_deadline:is_over(Until) of
        %% Who asked does not wait any more.
        true ->
            {reply, {error, timeout}, State};
        false ->
            {Answer, State1} = fetched(Wanted, Until, State),
            ok = kept(Keep, Answer, Replica),
            {reply, Answer, State1}
    end;
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

-spec fetched(wanted(), erl_esdb_deadline:deadline(), #state{}) ->
    {{ok, bodies()} | {error, timeout | not_started}, #state{}}.
fetched(Wanted, Until, #state{server = Server, open = Open} = State) ->
    Left = erl_esdb_deadline:left(Until),
    Indexes = lists:sort(maps:keys(Wanted)),
    try gen_statem:call(Server, {local_call, {read_entries, Indexes}}, Left) of
        {ok, Plan} ->
            {Entries, State1} = planned(Plan, State),
            {Bodies, State2} = bodies(Wanted, Entries, State1),
            {{ok, Bodies}, State2};
        {error, _} ->
            {{error, not_started}, State}
    catch
        exit:{timeout, {gen_statem, call, _}} ->
            {{error, timeout}, State};
        exit:{_, {gen_statem, call, _}} ->
            {{error, not_started}, State};
        %% A compaction has moved what the plan said: nothing is found, and who asks looks again.
        _:_ ->
            _ = ra_flru:evict_all(Open),
            {{ok, #{}}, State#state{open = new()}}
    end.

%% ---- commands and their bodies

%% A file that is held open may have an entry that was replaced before it was decided, with the same
%% index: it is found out by what it is, and all files are opened anew.
-spec bodies(wanted(), entries(), #state{}) -> {bodies(), #state{}}.
bodies(Wanted, Entries, #state{open = Open} = State) ->
    Bodies = #{
        Index => verified(Command)
     || Index := {'$usr', _, Packed, _} <- Entries,
        Command <- [erl_esdb_ra_command:unpack(Packed)],
        did(maps:get(Index, Wanted), Command)
    },
    case map_size(Bodies) < map_size(Entries) of
        true ->
            _ = ra_flru:evict_all(Open),
            {Bodies, State#state{open = new()}};
        false ->
            {Bodies, State}
    end.

-spec did(did(), erl_esdb_log:command()) -> boolean().
did({append, Stream, Count}, {append, Stream, _, _, #{count := Count}}) -> true;
did({append, Stream, Count}, {append_many, Parts, _}) ->
    case lists:keyfind(Stream, 1, Parts) of
        {_, _, _, #{count := Is}} -> Is =:= Count;
        false -> false
    end;
did({document, Key}, {put_document, Key, _}) -> true;
did(_, _) -> false.

-spec verified(erl_esdb_log:command()) -> body().
verified(Command) ->
    case erl_esdb_ra_machine:body(Command) of
        Body when is_binary(Body) -> erl_esdb_batch:verified(Body);
        Parts -> [{Stream, erl_esdb_batch:verified(Body)} || {Stream, Body} <- Parts]
    end.

-spec kept(keep | forget, {ok, bodies()} | {error, term()}, erl_esdb_ra_replica:replica()) -> ok.
kept(keep, {ok, Bodies}, Replica) ->
    maps:foreach(fun(Index, Body) -> remember(Index, Body, Replica) end, Bodies);
kept(_Keep, _Answer, _Replica) ->
    ok.

-spec remember(ra:index(), body(), erl_esdb_ra_replica:replica()) -> ok.
remember(Index, Body, Replica) ->
    Damaged = Body =:= damaged orelse is_list(Body) andalso lists:keymember(damaged, 2, Body),
    try
        true = Damaged orelse ok =:= erl_esdb_ra_replica:keep(Index, Body, Replica),
        ok
    catch
        %% It was replaced.
        error:badarg -> ok
    end.

%% ---- plans and segments

-spec planned(term(), #state{}) -> {entries(), #state{}}.
planned({read_plan, Dir, Read, Segments} = Plan, State) when is_map(Read), is_list(Segments) ->
    Memory = #{Index => Command || Index := {_, _, Command} <- Read},
    try
        lists:foldl(fun(Part, Sum) -> from_segment(Dir, Part, Sum) end, {Memory, State}, Segments)
    catch
        throw:{left_to_ra, Open} -> left_to_ra(Plan, State#state{open = Open})
    end;
planned(Plan, State) ->
    left_to_ra(Plan, State).

%% What is open stays so.
-spec left_to_ra(term(), #state{}) -> {entries(), #state{}}.
left_to_ra(Plan, State) ->
    Entry = fun(_Index, _Term, Command) -> Command end,
    Options = #{access_pattern => random, file_advise => normal, index_mode => binary},
    {Entries, Open} = ra_log:execute_read_plan(Plan, undefined, Entry, Options),
    _ = ra_flru:evict_all(Open),
    {Entries, State}.

-spec from_segment(file:filename_all(), {binary(), [ra:index()]}, {entries(), #state{}}) ->
    {entries(), #state{}}.
from_segment(Dir, {Name, Unsorted}, {Entries, #state{open = Open} = State}) ->
    Indexes = lists:sort(Unsorted),
    {Found, Open1} =
        case ra_flru:fetch(Name, Open) of
            {ok, {segment, Segment}, Touched} ->
                case erl_esdb_ra_segment:entries(Indexes, Segment, earlier) of
                    {ok, All} ->
                        {All, Touched};
                    %% It may have been written to, or replaced, since it was opened.
                    _ ->
                        {_, Evicted} = ra_flru:evict(Name, Touched),
                        from_file(Dir, Name, Indexes, Evicted)
                end;
            error ->
                from_file(Dir, Name, Indexes, Open)
        end,
    {maps:merge(Entries, Found), State#state{open = Open1}}.

%% What is not in it, or is damaged, is not found.
-spec from_file(file:filename_all(), binary(), [ra:index()], ra_flru:state()) ->
    {entries(), ra_flru:state()}.
from_file(Dir, Name, Indexes, Open) ->
    case erl_esdb_ra_segment:open(filename:join(Dir, Name)) of
        {ok, Segment} ->
            case erl_esdb_ra_segment:entries(Indexes, Segment, now) of
                {error, too_large} ->
                    ok = erl_esdb_ra_segment:close(Segment),
                    throw({left_to_ra, Open});
                {error, _} ->
                    ok = erl_esdb_ra_segment:close(Segment),
                    {#{}, Open};
                {_, Entries} ->
                    {Entries, ra_flru:insert(Name, {segment, Segment}, Open)}
            end;
        {error, unknown_format} ->
            throw({left_to_ra, Open});
        {error, _} ->
            {#{}, Open}
    end.
