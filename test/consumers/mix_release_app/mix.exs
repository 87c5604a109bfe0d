defmodule Shop.MixProject do
  use Mix.Project

  # A release of an application with a store on disk, as doc/guides/deployment.md describes it. run.sh puts
  # the checkout under test in the place of the repository.
  def project do
    [
      app: :shop,
      version: "1.0.0",
      elixir: "~> 1.18",
      # It brings the store along.
      deps: [
        {:erl_esdb_metrics,
         git: "https://…/erl_esdb.git", branch: "main", subdir: "erlang/erl_esdb_metrics"}
      ],
      releases: [shop: [include_executables_for: [:unix]]]
    ]
  end

  def application, do: [extra_applications: [:logger]]
end
