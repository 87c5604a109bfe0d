# What ExDoc renders besides the modules, and how it groups these: as the folders do. See scripts/docs.sh.
folder = fn name ->
  for file <- Path.wildcard("erlang/erl_esdb/src/#{name}/*.erl") do
    file |> Path.basename(".erl") |> String.to_atom()
  end
end

[
  main: "readme",
  # Two files of one name would make two pages, and neither the main one.
  extras:
    ["README.md", "CHANGELOG.md", "LICENSE"] ++
      Path.wildcard("doc/*.md") ++
      Path.wildcard("doc/guides/*.md") ++
      [{"erlang/erl_esdb/README.md", filename: "architecture", title: "Architecture of the store"}] ++
      [{"doc/adr/README.md", filename: "decisions"}] ++ Path.wildcard("doc/adr/0*.md"),
  groups_for_extras: [Guides: ~r"doc/guides/", Decisions: ~r"doc/adr/"],
  groups_for_modules: [
    "The library": ~r"^esdb_.*_nif$|^esdb_nif$",
    "The store": [:erl_esdb | folder.("api")],
    "The store: delivery": folder.("delivery"),
    "The store: archives and copies": folder.("archive"),
    "The store: clusters": folder.("cluster"),
    "The store: names of the original": folder.("compat"),
    Metrics: ~r"^erl_esdb_metrics",
    "Inside the store": ~r"^erl_esdb",
    "Inside the library": ~r"^esdb_"
  ],
  formatters: ["html"]
]
