[
  inputs: ["mix.exs", "doc/ex_doc.exs", ".formatter.exs", "test/consumers/mix_app/**/*.{ex,exs}"],
  line_length: 100
]
