defmodule ConsumerTest do
  use ExUnit.Case, async: true

  # The run tells what it expects, so that a library that silently was not built fails here.
  test "runs on the expected implementation" do
    expected = String.to_existing_atom(System.fetch_env!("EXPECTED_IMPLEMENTATION"))
    assert :esdb_nif.status().modules |> Map.values() |> Enum.uniq() == [expected]
  end

  # The same partition with and without the library: computed once with the reference implementation.
  test "partitions" do
    assert Consumer.partition("order-122") == 8
  end

  test "packs and unpacks" do
    data = String.duplicate("an event ", 100)
    assert data |> Consumer.pack() |> Consumer.unpack() == data
  end

  test "only the library was built" do
    assert :code.lib_dir(:erl_esdb) == {:error, :bad_name}
  end
end
