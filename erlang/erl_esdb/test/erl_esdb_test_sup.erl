-module(erl_esdb_test_sup).
-moduledoc "A supervisor that is what its argument says.".

-behaviour(supervisor).

-export([init/1]).

-spec init(Init) -> {ok, Init} when
    Init :: {supervisor:sup_flags(), [supervisor:child_spec()]}.
init(Init) -> {ok, Init}.
