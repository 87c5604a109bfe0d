#!/bin/sh
# The documentation as HTML in _build/docs, rendered by ExDoc from the compiled modules. A warning is an error.
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

# One site of the library, the store and its metrics, which refer to each other.
version=$(sed -n 's/.*{vsn, "\(.*\)"}.*/\1/p' src/erl_esdb_nifs.app.src)
lib=_build/default/lib
# The types of dependencies are looked up there.
export ERL_LIBS="$PWD/$lib:$PWD/_build/default/checkouts"
rm -rf _build/docs
metrics=$(ls -d $lib/erl_esdb_metrics/ebin 2>/dev/null || true)
# shellcheck disable=SC2086
render erl_esdb "$version" $lib/erl_esdb_nifs/ebin $lib/erl_esdb/ebin $metrics --config doc/ex_doc.exs \
    --output _build/docs --proglang erlang --quiet --warnings-as-errors
echo "docs: _build/docs/index.html"
