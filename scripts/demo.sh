#!/bin/sh
# Starts the demo, or the module of it that is named, on the applications that `make build` compiled
# (or those below ESDB_LIB). REPO, EVENTS and ENGINE choose what it does. Stores on disk have a folder
# that is removed in the end, also after Ctrl-C; with DATA they have that one, and it stays.
set -eu
cd "$(dirname "$0")/.."
[ -n "${REPO:-}" ] || unset REPO
[ -n "${EVENTS:-}" ] || unset EVENTS
module=${1:-esdb_demo}
lib=${ESDB_LIB:-_build/default/lib}
# +Bd: Ctrl-C ends the demo, it does not ask what to do.
set -- erl +Bd -noinput -pa "$lib"/../checkouts/*/ebin -pa "$lib"/*/ebin -run "$module" main
if [ "$module" = esdb_demo ] && [ "${ENGINE:-memory}" = memory ]; then exec "$@"; fi
if [ -n "${DATA:-}" ]; then exec "$@"; fi

DATA=$(mktemp -d "${TMPDIR:-/tmp}/esdb_demo.XXXXXX")
export DATA
trap 'rm -rf "$DATA"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
"$@"
