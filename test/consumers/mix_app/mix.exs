defmodule Consumer.MixProject do
  use Mix.Project

  # A project that depends on erl_esdb_nifs, as a user's would. Elsewhere the dependency reads
  #   {:erl_esdb_nifs, git: "https://…/erl_esdb.git"}
  # here the environment names the checkout under test.
  def project do
    [
      app: :consumer,
      version: "1.0.0",
      elixir: "~> 1.18",
      deps: [{:erl_esdb_nifs, path: System.fetch_env!("ERL_ESDB_NIFS")}]
    ]
  end

  def application, do: [extra_applications: [:logger]]
end
