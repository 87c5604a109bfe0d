# Runs the Elixir examples of pages, as erl_esdb_guide.erl does the Erlang ones.
#
#   elixir -pa EBIN... erl_esdb_guide.exs FOLDER PAGE...
#
# A page is one session: blocks of `iex> ` prompts (`...> ` goes on), and blocks that define a
# module, whose tests are run. What is printed, then the result, is what stands behind a line. Ends
# with the number of lines that ran, or with status 1.
defmodule Guide do
  def run(page, folder) do
    text = page |> File.read!() |> String.replace("/var/lib/shop", folder)
    steps = Enum.flat_map(blocks(text), &steps/1)
    Enum.reduce(steps, {[], Code.env_for_eval([])}, &step(&1, &2, page))
    if text =~ "ExUnit.Case", do: tested()
    for store <- :erl_esdb.which_stores(), do: :ok = :erl_esdb.stop_store(store)
    Enum.count(steps, &match?({:line, _, _}, &1))
  end

  defp tested do
    %{failures: 0, total: total} = ExUnit.run()
    true = total > 0
  end

  defp blocks(text) do
    for [_, block] <- Regex.scan(~r/^ *```elixir\n(.*?)^ *```$/ms, text), do: block
  end

  defp steps("defmodule" <> _ = block), do: [{:module, block}]

  defp steps(block) do
    [_ | entries] = String.split(block, ~r/^iex> /m)
    for entry <- entries, do: cut(entry)
  end

  defp cut(entry) do
    [first | rest] = String.split(entry, "\n")
    {more, shown} = Enum.split_while(rest, &String.starts_with?(&1, "...>"))
    code = Enum.join([first | Enum.map(more, &String.replace_prefix(&1, "...>", ""))], "\n")
    {:line, code, shown |> Enum.join("\n") |> String.trim()}
  end

  defp step({:module, code}, session, page) do
    {_, session} = evaluate(code, session, page)
    session
  end

  defp step({:line, code, shown}, session, page) do
    {{printed, value}, session} = evaluate(code, session, page)

    if shown != "" and not same?(shown, String.trim(printed), value, session, page) do
      raise "#{page}: #{code}\nshown: #{shown}\ngot: #{printed}#{inspect(value, pretty: true)}"
    end

    session
  end

  defp same?(shown, printed, value, session, page) do
    String.starts_with?(shown, printed) and
      match?({{_, ^value}, _}, evaluate(String.replace_prefix(shown, printed, ""), session, page))
  end

  defp evaluate(code, {binding, env}, page) do
    {:ok, screen} = StringIO.open("")
    before = Process.group_leader()
    Process.group_leader(self(), screen)

    try do
      quoted = Code.string_to_quoted!(code, file: page)
      {value, binding, env} = Code.eval_quoted_with_env(quoted, binding, env)
      {{screen |> StringIO.contents() |> elem(1), value}, {binding, env}}
    rescue
      error ->
        IO.puts(:stderr, "#{page}: #{code}")
        reraise error, __STACKTRACE__
    after
      Process.group_leader(self(), before)
    end
  end
end

[folder | pages] = System.argv()
Logger.configure(level: :warning)
Code.put_compiler_option(:ignore_module_conflict, true)
ExUnit.start(autorun: false)
{:ok, _} = Application.ensure_all_started(:erl_esdb)
IO.puts("#{pages |> Enum.map(&Guide.run(&1, folder)) |> Enum.sum()} lines ran")
