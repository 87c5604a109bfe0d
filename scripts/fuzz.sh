#!/bin/sh
# Fuzzes every target for a short while where cargo-fuzz and a C++ compiler are; elsewhere replays the corpus,
# and bounded mutations of it. What a run finds new stays out of the corpus, which holds chosen seeds.
#
#   FUZZ_SECONDS=N     for each target (default 10)
set -eu
cd "$(dirname "$0")/../native/fuzz"

# The fuzzer needs switches of the nightly compiler; the stable one has them behind this variable.
fuzz() {
    subcommand=$1
    shift
    RUSTC_BOOTSTRAP=1 cargo fuzz "$subcommand" --fuzz-dir . "$@"
}

if ! cargo fuzz --version >/dev/null 2>&1 || ! command -v c++ >/dev/null; then
    echo "no cargo-fuzz with a C++ compiler: replaying the corpus"
    exec cargo test --quiet --locked --release
fi

targets=$(fuzz list)
[ -n "$targets" ] || {
    echo "cargo-fuzz finds no target" >&2
    exit 1
}
found=$(mktemp -d "${TMPDIR:-/tmp}/esdb_fuzz.XXXXXX")
trap 'rm -rf "$found"' EXIT
for target in $targets; do
    mkdir "$found/$target"
    fuzz run "$target" "$found/$target" "corpus/$target" -- \
        -max_total_time="${FUZZ_SECONDS:-10}" -rss_limit_mb=2048
done
