-module(erl_esdb_clock).
-moduledoc """
The wall clock of the store: what events are stamped with, and their age is measured by.

It is that of the node. A test can have it jump (`jump/1`), which changes the time that a store sees
and nothing else: to set the clock of the machine would reach further, and the runtime system hides
such jumps from `erlang:system_time/1` for a while.
""".

-export([now_us/0, jump/1, back/0]).

-doc "Microseconds since 1970.".
-spec now_us() -> integer().
now_us() ->
    case persistent_term:get(?MODULE, 0) of
        Off when is_integer(Off) -> erlang:system_time(microsecond) + Off
    end.

-doc false.
%% From now on the clock of this node is so many microseconds off.
-spec jump(Microseconds :: integer()) -> ok.
jump(Off) when is_integer(Off) -> persistent_term:put(?MODULE, Off).

-doc false.
-spec back() -> ok.
back() ->
    _ = persistent_term:erase(?MODULE),
    ok.
