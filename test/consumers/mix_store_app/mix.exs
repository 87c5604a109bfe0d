defmodule Consumer.MixProject do
  use Mix.Project

  # A project that depends on the store, as a user's would: the library and the header files come along.
  # The environment names the repository with the checkout under test.
  def project do
    [
      app: :consumer,
      version: "1.0.0",
      elixir: "~> 1.18",
      deps: [
        {:erl_esdb, git: System.fetch_env!("ERL_ESDB"), branch: "main", subdir: "erlang/erl_esdb"}
      ]
    ]
  end

  def application, do: [extra_applications: [:logger]]
end
