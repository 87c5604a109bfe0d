#!/bin/sh
# Measures; see bench/README.md.   scripts/bench.sh [hash | crypto | archive | store]...
set -eu
cd "$(dirname "$0")/.."
mkdir -p _build/bench
erlc -o _build/bench bench/*.erl
names=
for name in "$@"; do names="$names\"$name\","; done
measure() {
    ESDB_NIF=require erl -noinput -pa _build/default/lib/*/ebin -pa _build/bench \
        -eval "esdb_bench:main([${names%,}]), halt()."
}
if [ -n "${RECORD:-}" ]; then
    mkdir -p bench/record
    measure | tee "bench/record/$(date +%Y-%m-%d).txt"
else
    measure
fi
