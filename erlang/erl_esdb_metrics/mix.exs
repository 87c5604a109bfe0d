defmodule ErlEsdbMetrics.MixProject do
  use Mix.Project

  # What the application is stands once, in the resource file that rebar3 reads too.
  {:ok, [{:application, app, properties}]} =
    :file.consult(Path.join(__DIR__, "src/erl_esdb_metrics.app.src"))

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
      erlc_options: [:debug_info],
      # The store comes with the checkout that this application came with.
      deps: [{:erl_esdb, path: "../erl_esdb"} | libraries()],
      lockfile: "_build/mix.lock"
    ]
  end

  # Where the registry cannot be reached, ESDB_DEPS names a folder of compiled libraries.
  defp libraries do
    case System.get_env("ESDB_DEPS") do
      folder when folder in [nil, "off"] ->
        [{:prometheus, "~> 6.0"}, {:cowboy, "~> 2.12"}, {:ranch, "~> 2.0"}]

      folder ->
        for app <- [:prometheus, :ddskerl, :cowboy, :cowlib, :ranch] do
          {app, path: Path.join(folder, to_string(app)), compile: "true", manager: :make}
        end
    end
  end

  def application do
    @properties
    |> Keyword.take([:mod, :registered, :env])
    |> Keyword.put(:extra_applications, [:crypto])
  end
end
