defmodule ConsumerTest do
  use ExUnit.Case, async: true

  @moduletag :capture_log

  # The application of the store was started with this one.
  test "places an order once" do
    {:ok, _} = :erl_esdb.start_store(:shop)
    assert Consumer.place("order-1", 42) == {:ok, 0}
    assert Consumer.place("order-1", 43) == {:error, {:wrong_expected_version, -1, 0}}
    assert Consumer.total("order-1") == 42
  end

  test "runs on the expected implementation" do
    expected = System.fetch_env!("EXPECTED_IMPLEMENTATION")
    assert to_string(:esdb_hash_nif.implementation()) == expected
  end
end
