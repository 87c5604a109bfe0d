#!/bin/sh
# Fuzzes every target for a short while where cargo-fuzz and a nightly compiler are; elsewhere replays the
# corpus, and bounded mutations of it, on the stable compiler.   FUZZ_SECONDS=N for each target
set -eu
cd "$(dirname "$0")/../native/fuzz"
if cargo fuzz --version >/dev/null 2>&1 && cargo +nightly --version >/dev/null 2>&1; then
    for target in $(cargo +nightly fuzz list); do
        cargo +nightly fuzz run "$target" -- -max_total_time="${FUZZ_SECONDS:-20}" -rss_limit_mb=2048
    done
else
    echo "no cargo-fuzz with a nightly compiler: replaying the corpus"
    cargo test --quiet --release
fi
