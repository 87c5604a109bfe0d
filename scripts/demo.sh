#!/bin/sh
# Starts the demo on the applications that `make build` compiled. REPO and EVENTS choose the events.
set -eu
cd "$(dirname "$0")/.."
[ -n "${REPO:-}" ] || unset REPO
[ -n "${EVENTS:-}" ] || unset EVENTS
exec erl -noinput -pa _build/default/lib/*/ebin -run esdb_demo main
