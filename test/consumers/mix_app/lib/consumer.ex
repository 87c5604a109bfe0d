defmodule Consumer do
  @moduledoc "What a project that has an event store would call."

  @doc "The partition of a stream, the same on every node."
  @spec partition(binary()) :: 0..15
  def partition(stream), do: :esdb_hash_nif.partition_hash(stream, 16)

  @doc "Packs, to be read again by `unpack/1`."
  @spec pack(binary()) :: binary()
  def pack(data) do
    {:ok, packed} = :esdb_archive_nif.compress(data, :zstd)
    packed
  end

  @doc "Reads what `pack/1` wrote."
  @spec unpack(binary()) :: binary()
  def unpack(packed) do
    {:ok, data} = :esdb_archive_nif.decompress(packed, :zstd)
    data
  end
end
