defmodule ErlEsdbNifs.MixProject do
  use Mix.Project

  # Name and version stand once, in the application resource file that rebar3 reads too.
  {:ok, [{:application, app, properties}]} =
    :file.consult(Path.join(__DIR__, "src/erl_esdb_nifs.app.src"))

  @app app
  @properties properties

  def project do
    [
      app: @app,
      version: to_string(@properties[:vsn]),
      description: to_string(@properties[:description]),
      language: :erlang,
      elixir: "~> 1.18",
      compilers: [:erlang, :esdb_native, :app],
      erlc_options: [:debug_info],
      deps: [],
      package: package(),
      # The sources of this project may be read-only for whoever depends on it.
      lockfile: "_build/mix.lock"
    ]
  end

  def application, do: [extra_applications: [:crypto], env: @properties[:env]]

  defp package do
    [
      licenses: @properties[:licenses],
      links: %{},
      files:
        ~w(src native/*/src native/*/Cargo.toml native/boundary/build.rs native/build.sh) ++
          ~w(Cargo.toml Cargo.lock mix.exs rebar.config README.md CHANGELOG.md LICENSE)
    ]
  end
end

defmodule Mix.Tasks.Compile.EsdbNative do
  @moduledoc "Builds the native libraries with `native/build.sh`, which see for its switches."
  use Mix.Task.Compiler

  @no_shell "erl_esdb_nifs: no sh here to build with, so the Erlang implementations will run"

  @impl true
  def run(_arguments) do
    cond do
      System.find_executable("sh") -> build()
      System.get_env("ESDB_NIF_BUILD") == "require" -> Mix.raise(@no_shell)
      true -> Mix.shell().info(@no_shell)
    end
  end

  defp build do
    priv = Path.join(Mix.Project.app_path(), "priv")

    case System.cmd("sh", ["native/build.sh", priv], into: IO.stream(), stderr_to_stdout: true) do
      {_, 0} -> :ok
      {_, status} -> Mix.raise("native/build.sh ended with status #{status}")
    end
  end

  @impl true
  def clean do
    Mix.Project.app_path()
    |> Path.join("priv/esdb_*_nif.so")
    |> Path.wildcard()
    |> Enum.each(&File.rm!/1)
  end
end
