#!/bin/sh
# Stores on nodes that fail while clients use them, chapter after chapter, and what came of it.
#
#   MINUTES=n   for so long (default 5); the chapter that runs then is ended
#   SEED=s      the first chapter's; each next one has the next number (default: drawn, and printed)
#
# As root the nodes' files are on small file systems of their own, in memory, which run full; and in every second
# chapter of several nodes each has a network namespace of its own.
set -eu
cd "$(dirname "$0")/.."
rebar3 as test compile
exec erl -noinput -pa _build/test/checkouts/*/ebin -pa _build/test/lib/*/ebin -pa _build/test/lib/*/test \
    -run erl_esdb_torture main "${MINUTES:-5}" "${SEED:-drawn}"
