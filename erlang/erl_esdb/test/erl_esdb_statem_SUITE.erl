-module(erl_esdb_statem_SUITE).
-moduledoc """
The state machine of the whole store, plain and with signed events. `ESDB_PROP` multiplies the
number of its runs.
""".

-compile([export_all, nowarn_export_all]).

suite() -> [{timetrap, {minutes, 10}}].

%% On three nodes by hand (`ESDB_ENGINES=ra3`): it takes minutes there.
all() -> erl_esdb_test:all().

groups() -> erl_esdb_test:groups([calls, calls_of_a_store_that_signs]).

init_per_group(Engine, Config) -> erl_esdb_test:init_per_group(Engine, Config).

end_per_group(Engine, Config) -> erl_esdb_test:end_per_group(Engine, Config).

calls(_Config) -> run(erl_esdb_test:options()).

calls_of_a_store_that_signs(_Config) ->
    run((erl_esdb_test:options())#{integrity => #{enabled => true, key => <<7:256>>}}).

%% What is killed says so, and is not heard.
run(Options) ->
    erl_esdb_test:quietly(fun() ->
        erl_esdb_test:property(300, erl_esdb_statem:sequential(Options))
    end).
