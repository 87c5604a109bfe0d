#!/bin/sh
# The documentation as HTML in _build/docs/APPLICATION, rendered by ExDoc from the compiled modules.
#
# ExDoc is taken from the PATH (`mix escript.install hex ex_doc`), or on Debian from its package.
set -eu
cd "$(dirname "$0")/.."

if command -v ex_doc >/dev/null; then
    render() { ex_doc "$@"; }
elif command -v elixir >/dev/null && folder=$(scripts/toolchain.sh ex_doc); then
    render() {
        # shellcheck disable=SC2046
        elixir $(printf -- '-pa %s ' "$folder"/*/ebin) -e 'ExDoc.CLI.main(System.argv())' -- "$@"
    }
else
    echo "docs: no ExDoc here; install it with: mix escript.install hex ex_doc" >&2
    exit 1
fi

version=$(sed -n 's/.*{vsn, "\(.*\)"}.*/\1/p' src/erl_esdb_nifs.app.src)
for ebin in _build/default/lib/*/ebin; do
    app=$(basename "$(dirname "$ebin")")
    ls "$ebin"/*.beam >/dev/null 2>&1 || continue
    render "$app" "$version" "$ebin" --config doc/ex_doc.exs --output "_build/docs/$app" --quiet
    echo "docs: _build/docs/$app/index.html"
done
