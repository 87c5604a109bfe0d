# What ExDoc renders besides the modules; see scripts/docs.sh.
[
  main: "readme",
  extras:
    ["README.md", "CHANGELOG.md"] ++
      Path.wildcard("doc/*.md") ++ Path.wildcard("doc/guides/*.md") ++ Path.wildcard("doc/adr/*.md"),
  groups_for_extras: [Guides: ~r"doc/guides/", Decisions: ~r"doc/adr/"],
  formatters: ["html"]
]
