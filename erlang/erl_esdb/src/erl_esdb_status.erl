-module(erl_esdb_status).
-moduledoc """
What an operator asks of a store, as one map: `erl_esdb:status/1`.

It is put together from what the parts of the store on this node know of themselves, at most a few
microseconds apart. A part that does not answer in time leaves its keys out, so that the status is
there also of a store that is in trouble.
""".

-export([status/2, readiness/2]).
-export_type([status/0, readiness/0, subscription_status/0, projection_status/0, options/0]).

-include("erl_esdb.hrl").

%% Milliseconds. A load balancer does not wait longer either.
-define(TIMEOUT, 1000).

-type options() :: #{timeout => timeout(), _ => _}.
-type readiness() ::
    ready | {not_ready, store_not_started | timeout | no_quorum | overloaded}.
-doc """
A subscription. `floor` is the first position that is not handled; `lag`, how many positions lie
between it and the end of the log, whether it selects their events or not. It is `not_running` where
no process of this node answers for it: then `floor` is what was saved last.
""".
-type subscription_status() :: #{
    key := binary(),
    name := binary(),
    type := subscription_type(),
    status := running | {halted, term()} | not_running,
    floor => non_neg_integer(),
    lag => non_neg_integer()
}.
-doc "A projection of this node: the position that is folded next, and how many are missing.".
-type projection_status() :: #{
    name := binary(),
    status := running | not_running,
    position => non_neg_integer(),
    lag => non_neg_integer()
}.
-type status() :: #{
    store := atom(),
    node := node(),
    engine := atom(),
    mode => single | cluster,
    data_dir => file:filename(),
    uptime_ms => non_neg_integer(),
    readiness := readiness(),
    next_position => non_neg_integer(),
    lag => non_neg_integer(),
    index => #{atom() => non_neg_integer()},
    subscriptions => [subscription_status()],
    projections := [projection_status()],
    %% what the engine tells, see erl_esdb_engine
    _ => _
}.

-doc "See `erl_esdb:status/2`.".
-spec status(Store :: atom(), options()) ->
    {ok, status()} | {error, {store_not_started, Store :: atom()}}.
status(Store, Options) ->
    ok = erl_esdb_args:check(is_map(Options)),
    Until = deadline(Options),
    case erl_esdb_store:engine(Store) of
        {ok, Engine, Handle, _Settings} -> {ok, put_together(Store, {Engine, Handle}, Until)};
        {error, {store_not_started, Store}} = Error -> Error
    end.

-spec put_together(atom(), {module(), erl_esdb_engine:handle()}, erl_esdb_deadline:deadline()) ->
    status().
put_together(Store, {Engine, Handle}, Until) ->
    {Readiness, Next} = position(Store, half(erl_esdb_deadline:left(Until))),
    Status = #{
        store => Store,
        node => node(),
        engine => erl_esdb_config:engine_name(Engine),
        readiness => Readiness,
        projections => projections(Store, Next, Until)
    },
    Parts = [
        next_position(Next),
        life(Store),
        lag(erl_esdb_engine:status(Engine, Handle)),
        index(erl_esdb_index:info(Store), Next),
        subscriptions(Store, Next, Until)
    ],
    lists:foldl(fun maps:merge/2, Status, Parts).

-doc "See `erl_esdb:readiness/2`.".
-spec readiness(Store :: atom(), options()) -> readiness().
readiness(Store, Options) ->
    ok = erl_esdb_args:check(is_atom(Store) andalso is_map(Options)),
    {Readiness, _} = position(Store, erl_esdb_deadline:left(deadline(Options))),
    Readiness.

-spec deadline(options()) -> erl_esdb_deadline:deadline().
deadline(Options) -> erl_esdb_store:deadline(Options, #{timeout => ?TIMEOUT}).

%% Where the log ends, as a majority knows it: an append would need the same. Otherwise as far as
%% this node has heard of it.
-spec position(atom(), timeout()) -> {readiness(), non_neg_integer() | undefined}.
position(Store, Timeout) ->
    Linearizable = #{consistency => linearizable, timeout => Timeout},
    case erl_esdb_store:next_position(Store, Linearizable) of
        {ok, Next} -> {ready, Next};
        {error, {Reason, _}} -> {{not_ready, Reason}, last_heard(Store, Timeout)}
    end.

-spec last_heard(atom(), timeout()) -> non_neg_integer() | undefined.
last_heard(Store, Timeout) ->
    case erl_esdb_store:next_position(Store, #{consistency => local, timeout => Timeout}) of
        {ok, Next} -> Next;
        {error, _} -> undefined
    end.

%% The rest is for the other parts, also of a store that takes all its time to say nothing.
-spec half(timeout()) -> timeout().
half(infinity) -> infinity;
half(Timeout) -> Timeout div 2.

-spec next_position(non_neg_integer() | undefined) -> map().
next_position(undefined) -> #{};
next_position(Next) -> #{next_position => Next}.

-spec life(atom()) -> map().
life(Store) ->
    case [Life || {Of, Life} <- erl_esdb_engine:lives(), Of =:= Store] of
        [#{since := Since, mode := Mode, data_dir := Dir}] ->
            Uptime = erlang:monotonic_time(millisecond) - Since,
            maps:merge(data_dir(Dir), #{mode => Mode, uptime_ms => Uptime});
        %% It has ended a moment ago.
        [] ->
            #{}
    end.

-spec data_dir(file:filename() | undefined) -> map().
data_dir(undefined) -> #{};
data_dir(Dir) -> #{data_dir => Dir}.

%% Commands that are decided and not yet done on this node.
-spec lag(map()) -> map().
lag(#{commit_index := Decided, applied_index := Done} = Engine) ->
    Engine#{lag => max(0, Decided - Done)};
lag(Engine) ->
    Engine.

-spec index({ok, erl_esdb_index:info()} | {error, term()}, non_neg_integer() | undefined) -> map().
index({ok, #{next := At} = Info}, Next) -> #{index => behind(At, Next, Info)};
index({error, _}, _Next) -> #{}.

-spec behind(non_neg_integer(), non_neg_integer() | undefined, map()) -> map().
behind(_At, undefined, Info) -> Info;
behind(At, Next, Info) -> Info#{lag => max(0, Next - At)}.

%% ---- who reads the log

-spec subscriptions(atom(), non_neg_integer() | undefined, erl_esdb_deadline:deadline()) -> map().
subscriptions(Store, Next, Until) ->
    maybe
        {ok, Keys} ?= erl_esdb_subscriptions_store:keys(Store, local(Until)),
        Kept = fun(Key) -> {ok, kept(Store, Key, Until)} end,
        {ok, Found} ?= erl_esdb_deadline:map(Kept, Keys, Until),
        Answers = ask(Store, {subscription, info}, Keys, Until),
        {ok, Saved} ?= saved(Store, Answers, Keys, Until),
        #{subscriptions => [subscription(S, Answers, Saved, Next) || {ok, S} <- Found]}
    else
        {error, _} -> #{}
    end.

%% What this node knows is there also where no majority is.
-spec local(erl_esdb_deadline:deadline()) -> erl_esdb_store:read_options().
local(Until) -> #{consistency => local, timeout => erl_esdb_deadline:left(Until)}.

%% It may have been removed meanwhile.
-spec kept(atom(), binary(), erl_esdb_deadline:deadline()) ->
    {ok, subscription()} | {error, term()}.
kept(Store, Key, Until) ->
    erl_esdb_store:get_document(Store, {subscription, Key}, local(Until)).

%% Of those that do not answer.
-spec saved(atom(), #{binary() => map()}, [binary()], erl_esdb_deadline:deadline()) ->
    {ok, #{term() => term()}} | {error, term()}.
saved(_Store, Answers, Keys, _Until) when map_size(Answers) =:= length(Keys) -> {ok, #{}};
saved(Store, _Answers, _Keys, Until) ->
    erl_esdb_store:checkpoints(Store, local(Until)).

-spec subscription(subscription(), #{binary() => map()}, #{term() => term()}, Next) ->
    subscription_status()
when
    Next :: non_neg_integer() | undefined.
subscription(#subscription{id = Key, type = Type} = Subscription, Answers, Saved, Next) ->
    Entry = #{key => Key, name => Subscription#subscription.subscription_name, type => Type},
    SavedKey = erl_esdb_subscriptions_store:next_key(Key),
    case {Answers, Saved} of
        {#{Key := #{status := Status, floor := Floor}}, _} ->
            behind(Floor, Next, Entry#{status => Status, floor => Floor});
        {_, #{SavedKey := {_, [Floor | _]}}} ->
            behind(Floor, Next, Entry#{status => not_running, floor => Floor});
        {_, #{SavedKey := Floor}} when is_integer(Floor) ->
            behind(Floor, Next, Entry#{status => not_running, floor => Floor});
        {_, _} ->
            Entry#{status => not_running}
    end.

-spec projections(atom(), non_neg_integer() | undefined, erl_esdb_deadline:deadline()) ->
    [projection_status()].
projections(Store, Next, Until) ->
    Names = lists:sort(erl_esdb_delivery:ids(Store, projection)),
    Answers = ask(Store, {projection, position}, Names, Until),
    [projection(Name, Answers, Next) || Name <- Names].

-spec projection(binary(), #{binary() => term()}, non_neg_integer() | undefined) ->
    projection_status().
projection(Name, Answers, Next) ->
    case Answers of
        #{Name := At} -> behind(At, Next, #{name => Name, status => running, position => At});
        #{} -> #{name => Name, status => not_running}
    end.

%% Asks processes of this node, all at the same time: one that hangs delays the others no longer
%% than the time allows.
-spec ask(atom(), {erl_esdb_delivery:kind(), term()}, [Id], erl_esdb_deadline:deadline()) ->
    #{Id => term()}
when
    Id :: binary().
ask(Store, {Kind, Request}, Ids, Until) ->
    Pids = [{Id, Pid} || Id <- Ids, {ok, Pid} <- [erl_esdb_delivery:pid(Store, Kind, Id)]],
    Send = fun({Id, Pid}, Requests) -> gen_server:send_request(Pid, Request, Id, Requests) end,
    answers(lists:foldl(Send, gen_server:reqids_new(), Pids), Until, #{}).

-spec answers(gen_server:request_id_collection(), erl_esdb_deadline:deadline(), Answers) ->
    Answers
when
    Answers :: #{binary() => term()}.
answers(Requests, Until, Answers) ->
    case gen_server:receive_response(Requests, erl_esdb_deadline:left(Until), true) of
        {{reply, {ok, Answer}}, Id, Left} -> answers(Left, Until, Answers#{Id => Answer});
        {_, _Id, Left} -> answers(Left, Until, Answers);
        Nothing when Nothing =:= no_request; Nothing =:= timeout -> Answers
    end.
