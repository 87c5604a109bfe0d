#!/bin/sh
# Starts the demo on the applications that `make build` compiled (or those below ESDB_LIB). REPO and
# EVENTS choose the events.
set -eu
cd "$(dirname "$0")/.."
[ -n "${REPO:-}" ] || unset REPO
[ -n "${EVENTS:-}" ] || unset EVENTS
# +Bd: Ctrl-C ends the demo, it does not ask what to do.
lib=${ESDB_LIB:-_build/default/lib}
exec erl +Bd -noinput -pa "$lib"/../checkouts/*/ebin -pa "$lib"/*/ebin -run esdb_demo main
