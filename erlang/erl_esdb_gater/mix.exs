defmodule ErlEsdbGater.MixProject do
  use Mix.Project

  # Name and version stand once, in the application resource file that rebar3 reads too.
  {:ok, [{:application, app, properties}]} =
    :file.consult(Path.join(__DIR__, "src/erl_esdb_gater.app.src"))

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
      deps: [],
      lockfile: "_build/mix.lock"
    ]
  end

  def application, do: []
end
