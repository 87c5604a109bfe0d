defmodule ErlEsdb.MixProject do
  use Mix.Project

  # What the application is stands once, in the resource file that rebar3 reads too.
  {:ok, [{:application, app, properties}]} =
    :file.consult(Path.join(__DIR__, "src/erl_esdb.app.src"))

  @app app
  @properties properties

  def project do
    [
      app: @app,
      version: to_string(@properties[:vsn]),
      description: to_string(@properties[:description]),
      language: :erlang,
      elixir: "~> 1.18",
      compilers: [:erlang, :app],
      erlc_options: [:debug_info | without_ra()],
      # The first two come with the checkout that this application came with.
      deps: [
        {:erl_esdb_gater, path: "../erl_esdb_gater"},
        {:erl_esdb_nifs, path: "../.."}
        | ra()
      ],
      lockfile: "_build/mix.lock"
    ]
  end

  # Where the registry cannot be reached, ESDB_DEPS names a folder of compiled libraries, or is "off":
  # without Ra stores are in memory only.
  defp ra do
    case System.get_env("ESDB_DEPS") do
      nil -> [{:ra, "~> 3.1"}]
      "off" -> []
      folder -> for app <- [:ra, :aten, :gen_batch_server, :seshat], do: compiled(app, folder)
    end
  end

  # The modules that run on it are compiled all the same.
  defp without_ra do
    if System.get_env("ESDB_DEPS") == "off", do: [:nowarn_undefined_behaviour], else: []
  end

  defp compiled(app, folder) do
    {app, path: Path.join(folder, to_string(app)), compile: "true", manager: :make}
  end

  def application do
    @properties
    |> Keyword.take([:mod, :registered, :env])
    |> Keyword.put(:extra_applications, applications())
  end

  # Without those that mix adds by itself: its own and the dependencies.
  defp applications do
    optional = Keyword.get(@properties, :optional_applications, [])
    given = [:kernel, :stdlib, :erl_esdb_gater, :erl_esdb_nifs]

    for application <- Enum.uniq(@properties[:applications] ++ optional),
        application not in given do
      if application in optional, do: {application, :optional}, else: application
    end
  end
end
