# What ExDoc renders besides the modules; see scripts/docs.sh.
[
  main: "readme",
  # Two files of one name would make two pages, and neither the main one.
  extras:
    ["README.md", "CHANGELOG.md", "LICENSE"] ++
      Path.wildcard("doc/*.md") ++
      Path.wildcard("doc/guides/*.md") ++
      [{"doc/adr/README.md", filename: "decisions"}] ++ Path.wildcard("doc/adr/0*.md"),
  groups_for_extras: [Guides: ~r"doc/guides/", Decisions: ~r"doc/adr/"],
  formatters: ["html"]
]
