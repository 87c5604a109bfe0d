-module(consumer).
-moduledoc "What a project that keeps its events in the store would call.".

-export([place/2, total/1]).

-include_lib("erl_esdb_gater/include/esdb_gater_types.hrl").

-spec place(binary(), integer()) -> {ok, integer()} | {error, term()}.
place(Order, Total) ->
    Placed = #{event_type => ~"OrderPlaced", data => #{total => Total}},
    erl_esdb_streams:append(shop, Order, ?NO_STREAM, [Placed]).

-spec total(binary()) -> integer().
total(Order) ->
    {ok, [#event{data = #{total := Total}}]} = erl_esdb_streams:read(shop, Order, 0, 10, forward),
    Total.
