[
  inputs: [
    "mix.exs",
    "doc/ex_doc.exs",
    ".formatter.exs",
    "erlang/*/mix.exs",
    "erlang/*/test/*.exs",
    "test/consumers/*/**/*.{ex,exs}"
  ],
  line_length: 100
]
