defmodule ConsumerTest do
  use ExUnit.Case

  @moduletag :capture_log

  # The application of the store was started with this one.
  test "places an order once" do
    {:ok, _} = :erl_esdb.start_store(:shop)
    on_exit(fn -> :erl_esdb.stop_store(:shop) end)
    assert Consumer.place("order-1", 42) == {:ok, 0}
    assert Consumer.place("order-1", 43) == {:error, {:wrong_expected_version, -1, 0}}
    assert Consumer.total("order-1") == 42
  end

  # Where there is no Ra the environment says so.
  test "keeps orders on disk" do
    options = %{engine: :ra, data_dir: ~c"_build/shop"}

    if System.get_env("ESDB_DEPS") == "off" do
      assert :erl_esdb.start_store(:shop, options) == {:error, {:engine_not_available, :ra}}
    else
      {:ok, _} = :erl_esdb.start_store(:shop, options)
      on_exit(fn -> :erl_esdb.drop(:shop) end)
      assert Consumer.place("order-1", 42) == {:ok, 0}
      :ok = :erl_esdb.stop_store(:shop)
      {:ok, _} = :erl_esdb.start_store(:shop, options)
      assert Consumer.total("order-1") == 42
    end
  end

  test "runs on the expected implementation" do
    expected = System.fetch_env!("EXPECTED_IMPLEMENTATION")
    assert to_string(:esdb_hash_nif.implementation()) == expected
  end
end
