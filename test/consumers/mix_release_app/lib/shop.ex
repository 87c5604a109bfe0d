defmodule Shop do
  @moduledoc "A shop that keeps its orders in the store `:shop`."

  require Record

  Record.defrecordp(
    :event,
    Record.extract(:event, from_lib: "erl_esdb_gater/include/esdb_gater_types.hrl")
  )

  @doc "Places an order, which only the first one who does so can."
  @spec place(binary(), integer()) :: {:ok, integer()} | {:error, term()}
  def place(order, total) do
    placed = %{event_type: "OrderPlaced", data: %{total: total}}
    :erl_esdb_streams.append(:shop, order, :no_stream, [placed])
  end

  @doc "What an order cost."
  @spec total(binary()) :: integer()
  def total(order) do
    {:ok, [event(data: %{total: total})]} = :erl_esdb_streams.read(:shop, order, 0, 1, :forward)
    total
  end
end
