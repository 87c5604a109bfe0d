#!/bin/sh
# Stores on nodes that fail while clients use them, chapter after chapter, and what came of it.
#
#   MINUTES=n   for so long (default 5); the chapter that runs then is ended
#   SEED=s      the first chapter's; each next one has the next number (default: drawn, and printed)
#
# As root the nodes' files are on small file systems of their own, in memory, which run full; and in every second
# chapter of several nodes each has a network namespace of its own. Where it is interrupted these are taken away.
set -eu
cd "$(dirname "$0")/.."
rebar3 as test compile
erl -noinput -pa _build/test/checkouts/*/ebin -pa _build/test/lib/*/ebin -pa _build/test/lib/*/test \
    -run erl_esdb_torture main "${MINUTES:-5}" "${SEED:-drawn}" &
erl=$!

# What a chapter that was not ended has left: its names have the number of the process in them.
left() {
    trap - INT TERM
    kill "$erl" 2>/dev/null || true
    wait "$erl" || true
    folder=${TMPDIR:-/tmp}/esdb_torture.$erl
    awk -v below="$folder/" 'index($2, below) == 1 { print $2 }' /proc/mounts | while read -r mounted; do
        umount -l "$mounted"
    done
    for name in /run/netns/esdb"$erl"_*; do
        [ ! -e "$name" ] || ip netns del "$(basename "$name")"
    done
    rm -rf "$folder"
    exit 130
}
trap left INT TERM
wait "$erl"
