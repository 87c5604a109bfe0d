-module(erl_esdb_memory).
-moduledoc """
Memory pressure: how full the memory of the machine is, and calls when that changes.

A process that the application does not start by itself; put it below a supervisor of yours:

```erlang
#{id => erl_esdb_memory, start => {erl_esdb_memory, start_link, [#{check_interval => 5000}]}}
```

```erlang
1> {ok, _} = erl_esdb_memory:start_link().
2> erl_esdb_memory:level().
normal
3> Ref = erl_esdb_memory:on_pressure_change(fun(Level) -> logger:notice("memory: ~p", [Level]) end).
```

| option | default | |
|---|---|---|
| `elevated_threshold` | 0.70 | share of the memory in use from which on it is `elevated` |
| `critical_threshold` | 0.85 | the same for `critical` |
| `check_interval` | 10,000 | milliseconds between two looks |

With `os_mon` running the memory is that of the machine: in use is what is neither free nor cached
nor buffered. Without it, it is what this node has allocated, of twice that: always half, so the
level then says something only with thresholds that are meant for it.

The callbacks run in this process, one after the other; one that crashes is told in the log and
stays. A callback must not call this module: the call would wait for itself.

Every function that asks the process exits with `noproc` where it does not run.
""".

-behaviour(gen_server).

-export([start_link/0, start_link/1, level/0, level/1]).
-export([configure/1, get_config/0, get_stats/0, check_now/0]).
-export([on_pressure_change/1, remove_callback/1, usage/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).
-export_type([level/0, config/0]).

-include_lib("kernel/include/logger.hrl").
-include("erl_esdb_telemetry.hrl").

-type level() :: normal | elevated | critical.
-type config() :: #{
    elevated_threshold := number(), critical_threshold := number(), check_interval := pos_integer()
}.

-record(state, {
    config :: config(),
    level = normal :: level(),
    used = 0 :: non_neg_integer(),
    total = 0 :: non_neg_integer(),
    last_check = 0 :: integer(),
    callbacks = [] :: [{reference(), fun((level()) -> term())}],
    timer = make_ref() :: reference()
}).

-define(DEFAULTS, #{
    elevated_threshold => 0.70, critical_threshold => 0.85, check_interval => 10_000
}).
%% The longest time that a timer takes.
-define(MAX_INTERVAL, 16#FFFFFFFF).

-doc "The same as `start_link/1` with the defaults.".
-spec start_link() -> gen_server:start_ret().
start_link() -> start_link(#{}).

-doc "Starts the process, registered as `erl_esdb_memory`. A wrong option raises `badarg`.".
-spec start_link(map()) -> gen_server:start_ret().
start_link(Options) -> gen_server:start_link({local, ?MODULE}, ?MODULE, valid(Options), []).

-doc "The level that the last look found.".
-spec level() -> level().
level() -> maps:get(level, get_stats()).

-doc "The level of a share of the memory, with the default thresholds.".
-spec level(Ratio :: number()) -> level().
level(Ratio) when is_number(Ratio) -> level(Ratio, ?DEFAULTS);
level(_) -> error(badarg).

-spec level(number(), config()) -> level().
level(Ratio, #{critical_threshold := Critical}) when Ratio >= Critical -> critical;
level(Ratio, #{elevated_threshold := Elevated}) when Ratio >= Elevated -> elevated;
level(_, #{}) -> normal.

-doc "Changes some options, and looks at once. A wrong one raises `badarg`.".
-spec configure(map()) -> ok.
configure(Options) -> gen_server:call(?MODULE, {configure, valid(Options)}).

-spec valid(map()) -> map().
valid(Options) when is_map(Options) ->
    maps:foreach(fun(Key, Value) -> is_valid(Key, Value) orelse error(badarg) end, Options),
    Options;
valid(_) ->
    error(badarg).

-spec is_valid(term(), term()) -> boolean().
is_valid(elevated_threshold, Value) -> is_number(Value);
is_valid(critical_threshold, Value) -> is_number(Value);
is_valid(check_interval, Value) when is_integer(Value) -> Value > 0 andalso Value =< ?MAX_INTERVAL;
is_valid(_, _) -> false.

-doc "The options.".
-spec get_config() -> config().
get_config() -> gen_server:call(?MODULE, get_config).

-doc "What the last look found: bytes, and the time of it in milliseconds since 1970.".
-spec get_stats() ->
    #{
        level := level(),
        memory_used := non_neg_integer(),
        memory_total := non_neg_integer(),
        last_check := integer(),
        callback_count := non_neg_integer()
    }.
get_stats() -> gen_server:call(?MODULE, get_stats).

-doc "Looks now.".
-spec check_now() -> level().
check_now() -> gen_server:call(?MODULE, check_now).

-doc "Has a fun called with the new level, each time that it changes.".
-spec on_pressure_change(fun((level()) -> term())) -> reference().
on_pressure_change(Fun) when is_function(Fun, 1) -> gen_server:call(?MODULE, {add, Fun});
on_pressure_change(_) -> error(badarg).

-doc "Has it called no more; `ok` also for a reference that is not known.".
-spec remove_callback(reference()) -> ok.
remove_callback(Ref) -> gen_server:call(?MODULE, {remove, Ref}).

%% ---- the process

-doc false.
-spec init(map()) -> {ok, #state{}}.
init(Options) -> {ok, checked(#state{config = maps:merge(?DEFAULTS, Options)})}.

-doc false.
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({configure, Options}, _From, #state{config = Config} = State) ->
    {reply, ok, checked(State#state{config = maps:merge(Config, Options)})};
handle_call(get_config, _From, #state{config = Config} = State) ->
    {reply, Config, State};
handle_call(get_stats, _From, State) ->
    {reply, stats(State), State};
handle_call(check_now, _From, State) ->
    #state{level = Level} = State1 = checked(State),
    {reply, Level, State1};
handle_call({add, Fun}, _From, #state{callbacks = Callbacks} = State) ->
    Ref = make_ref(),
    {reply, Ref, State#state{callbacks = Callbacks ++ [{Ref, Fun}]}};
handle_call({remove, Ref}, _From, #state{callbacks = Callbacks} = State) ->
    {reply, ok, State#state{callbacks = lists:keydelete(Ref, 1, Callbacks)}};
handle_call(_, _From, State) ->
    {reply, {error, unknown_request}, State}.

-doc false.
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

-doc false.
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({timeout, Timer, check}, #state{timer = Timer} = State) -> {noreply, checked(State)};
handle_info(_, State) -> {noreply, State}.

-spec stats(#state{}) -> map().
stats(State) ->
    #{
        level => State#state.level,
        memory_used => State#state.used,
        memory_total => State#state.total,
        last_check => State#state.last_check,
        callback_count => length(State#state.callbacks)
    }.

%% A look, and the timer for the next.
-spec checked(#state{}) -> #state{}.
checked(#state{config = Config, timer = Timer, level = Before} = State) ->
    _ = erlang:cancel_timer(Timer),
    {Used, Total} = usage(system_memory()),
    Level = level(Used / Total, Config),
    Level =:= Before orelse changed(Before, Level, Used / Total, State#state.callbacks),
    State#state{
        level = Level,
        used = Used,
        total = Total,
        last_check = erlang:system_time(millisecond),
        timer = erlang:start_timer(maps:get(check_interval, Config), self(), check)
    }.

-spec changed(level(), level(), float(), [{reference(), fun((level()) -> term())}]) -> ok.
changed(Before, Level, Ratio, Callbacks) ->
    erl_esdb_telemetry:emit(
        ?MEMORY_PRESSURE_CHANGED,
        #{usage_ratio => Ratio},
        #{old_level => Before, new_level => Level}
    ),
    lists:foreach(fun({_, Fun}) -> told(Fun, Level) end, Callbacks).

-spec told(fun((level()) -> term()), level()) -> ok.
told(Fun, Level) ->
    try Fun(Level) of
        _ -> ok
    catch
        Class:Reason:Stack ->
            ?LOG_ERROR("a callback for memory pressure failed: ~tp ~tp~n~tp", [
                Class, Reason, Stack
            ])
    end.

%% ---- where the numbers come from

-doc false.
%% What is in use of what, in bytes, from what `memsup' says.
-spec usage([{atom(), non_neg_integer()}]) -> {non_neg_integer(), pos_integer()}.
usage(Memory) ->
    Given = maps:from_list(Memory),
    case maps:get(total_memory, Given, 0) of
        0 ->
            Used = erlang:memory(total),
            {Used, 2 * Used};
        Total ->
            Unused = maps:values(maps:with([free_memory, cached_memory, buffered_memory], Given)),
            {max(0, Total - lists:sum(Unused)), Total}
    end.

%% Not called by its name: os_mon need not be there, and need not run.
-spec system_memory() -> [{atom(), non_neg_integer()}].
system_memory() -> system_memory(memsup).

-spec system_memory(module()) -> [{atom(), non_neg_integer()}].
system_memory(Memsup) ->
    try is_pid(whereis(Memsup)) andalso Memsup:get_system_memory_data() of
        false -> [];
        Memory -> Memory
    catch
        exit:_ -> []
    end.
