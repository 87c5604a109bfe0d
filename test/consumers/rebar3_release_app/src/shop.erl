-module(shop).
-moduledoc "A shop that keeps its orders in the store `shop`.".

-export([place/2, total/1]).

-include_lib("erl_esdb_gater/include/esdb_gater_types.hrl").

-doc "Places an order, which only the first one who does so can.".
-spec place(binary(), integer()) -> {ok, integer()} | {error, term()}.
place(Order, Total) ->
    Placed = #{event_type => ~"OrderPlaced", data => #{total => Total}},
    erl_esdb_streams:append(shop, Order, ?NO_STREAM, [Placed]).

-doc "What an order cost.".
-spec total(binary()) -> integer().
total(Order) ->
    {ok, [#event{data = #{total := Total}}]} = erl_esdb_streams:read(shop, Order, 0, 1, forward),
    Total.
