-module(erl_esdb_ra_reader).
-moduledoc """
Reads commands back from Ra's log on this node, by their indexes.

A store has a few of these processes, because each keeps the segment files open that it read last.
Ra says where entries are (a read plan); the files are read here, not in Ra's server.
""".

-behaviour(gen_server).

-export([start_link/1, fetch/3, refresh/1]).
-export([init/1, handle_call/3, handle_cast/2]).

%% Ra answers more than its specification says.
-dialyzer({nowarn_function, fetched/3}).

%% Segment files that are kept open.
-define(OPEN, 32).

-record(state, {
    server :: ra:server_id(),
    open :: ra_flru:state()
}).

-type commands() :: #{ra:index() => erl_esdb_log:command()}.

-doc "A reader of the log of a server on this node.".
-spec start_link(ra:server_id()) -> gen_server:start_ret().
start_link(Server) -> gen_server:start_link(?MODULE, Server, []).

-doc """
The commands with these indexes, without those that are not in the log: any more, or yet.
""".
-spec fetch(Reader :: pid(), [ra:index()], erl_esdb_deadline:deadline()) ->
    {ok, commands()} | {error, timeout | not_started}.
fetch(Reader, Indexes, Until) ->
    try
        gen_server:call(Reader, {fetch, Indexes, Until}, erl_esdb_deadline:left(Until))
    catch
        exit:{timeout, _} -> {error, timeout};
        exit:{_, {gen_server, call, _}} -> {error, not_started}
    end.

-doc "Has a reader open all files anew.".
-spec refresh(Reader :: pid()) -> ok.
refresh(Reader) -> gen_server:cast(Reader, refresh).

-doc false.
-spec init(ra:server_id()) -> {ok, #state{}}.
init({Name, _} = Server) ->
    proc_lib:set_label({?MODULE, Name}),
    {ok, #state{server = Server, open = new()}}.

-spec new() -> ra_flru:state().
new() ->
    ra_flru:new(?OPEN, fun({_, Segment}) ->
        _ = ra_log_segment:close(Segment),
        ok
    end).

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, {ok, commands()} | {error, timeout | not_started | unknown_request}, #state{}}.
handle_call({fetch, Indexes, Until}, _From, #state{} = State) ->
    case erl_esdb_deadline:is_over(Until) of
        %% Who asked does not wait any more.
        true ->
            {reply, {error, timeout}, State};
        false ->
            {Answer, State1} = fetched(Indexes, Until, State),
            {reply, Answer, State1}
    end;
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(refresh, #state{open = Open} = State) ->
    _ = ra_flru:evict_all(Open),
    {noreply, State#state{open = new()}};
handle_cast(_, State) ->
    {noreply, State}.

-spec fetched([ra:index()], erl_esdb_deadline:deadline(), #state{}) ->
    {{ok, commands()} | {error, timeout | not_started}, #state{}}.
fetched(Indexes, Until, #state{server = Server, open = Open} = State) ->
    Left = erl_esdb_deadline:left(Until),
    try ra_server_proc:read_entries(Server, Indexes, Open, Left) of
        {ok, {Entries, Open1}} -> {{ok, commands(Entries)}, State#state{open = Open1}};
        {error, _} -> {{error, not_started}, State};
        {timeout, _} -> {{error, timeout}, State}
    catch
        %% A compaction has moved what the plan said: nothing is found, and who asks looks again.
        _:_ ->
            _ = ra_flru:evict_all(Open),
            {{ok, #{}}, State#state{open = new()}}
    end.

-spec commands(#{ra:index() => {ra:index(), non_neg_integer(), term()}}) -> commands().
commands(Entries) ->
    #{Index => Command || Index := {_, _, {'$usr', _, Command, _}} <- Entries}.
