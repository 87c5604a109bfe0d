#!/bin/sh
# Everything a contributor must see pass: the suites with the native libraries and without, the Rust
# tests, and the consumer projects. Goes on after a failure, and ends with the runners' own summary lines and
# the sums.
#
#   ESDB_PROP=N    N times as many random cases
#   EVENTS=FILE    the cases about real events take those of this file (NDJSON, see the demo)
set -u
case ${EVENTS:-} in
    "") ;;
    /*) export ESDB_EVENTS="$EVENTS" ;;
    *) export ESDB_EVENTS="$PWD/$EVENTS" ;;
esac
unset EVENTS
cd "$(dirname "$0")/.." || exit 1

work=$(mktemp -d "${TMPDIR:-/tmp}/esdb_test.XXXXXX")
trap 'rm -rf "$work"' EXIT
passed=0
failed=0

# step NAME COMMAND...: one after the other beside what is shown; its output waits in $work/NAME.output
step() {
    name=$1
    shift
    started=$(date +%s)
    if ("$@") >"$work/$name.output" 2>&1; then code=0; else code=$?; fi
    echo "$(($(date +%s) - started))" >"$work/$name.seconds"
    echo "$code" >"$work/$name.status"
}

# finish NAME TITLE: shows the output of a step that is done and keeps it in $work/output
finish() {
    title=$2
    printf '\n=== %s\n' "$title"
    tee "$work/output" <"$work/$1.output"
    cp "$work/$1.status" "$work/status"
    ended "$(cat "$work/$1.seconds")"
}

# run TITLE COMMAND...: shows the output and keeps it in $work/output
run() {
    title=$1
    shift
    started=$(date +%s)
    printf '\n=== %s\n' "$title"
    { "$@" 2>&1 && echo 0 >"$work/status" || echo $? >"$work/status"; } | tee "$work/output"
    ended "$(($(date +%s) - started))"
}

ended() {
    echo "=== $title: $1 s"
    [ "$(cat "$work/status")" = 0 ] || { echo "  $title" && failed_cases; } >>"$work/failed"
    { echo "$title:"; own_words || echo "(no summary: ended with status $(cat "$work/status"))"; } >>"$work/summary"
}

# plain FILE: without colours
plain() {
    sed "s/$(printf '\033')\[[0-9;]*m//g" "$1"
}

# The lines of the output in which Common Test, EUnit, cargo and mix sum up.
own_words() {
    plain "$work/output" | grep -E \
        -e '^All [0-9]+ tests passed' -e '^(Failed|Skipped|Passed) [0-9]+ ' \
        -e '^test result: ' -e '^Result: ' -e '^[0-9]+ (doctest|propert|test).* failures?'
}

# The failed cases of Common Test and of mix, each with the beginning of its reason.
failed_cases() {
    plain "$work/output" | awk '
        / ==> .*: FAILED$/ || /^  [0-9]+\) / { left = 12 }
        left > 0 { print "    " substr($0, 1, 240); left-- }'
}

# sum_of PATTERN: adds up the numbers that the sed pattern finds in the output
sum_of() {
    sed -n "$1" "$work/output" | awk '{ n += $1 } END { print n + 0 }'
}

count() {
    passed=$((passed + $1))
    failed=$((failed + $2))
}

count_common_test() {
    count "$(sum_of 's/.*All \([0-9]*\) tests passed.*/\1/p; s/.*Passed \([0-9]*\) tests.*/\1/p')" \
        "$(sum_of 's/.*Failed \([0-9]*\) tests.*/\1/p')"
}

count_cargo() {
    count "$(sum_of 's/^test result: .* \([0-9]*\) passed.*/\1/p')" "$(sum_of 's/^test result: .* \([0-9]*\) failed.*/\1/p')"
}

# library MODE BUILD FOLDER: the suites of the library, built below this folder.
library() {
    env REBAR_BASE_DIR="$3" ESDB_NIF="$1" ESDB_NIF_BUILD="$2" rebar3 ct --dir=test
}

# The suites of the store, of its metrics and of the demo, with the native libraries, on every engine.
stores() {
    dirs=
    for app in erl_esdb erl_esdb_metrics esdb_demo; do
        [ "$app" = erl_esdb_metrics ] && [ "${ESDB_DEPS:-}" = off ] || dirs=$dirs,_build/test/lib/$app/test
    done
    env ESDB_NIF="$1" ESDB_NIF_BUILD="$2" rebar3 ct --dir="${dirs#,}"
}

# The same on the Erlang implementations, in memory: what an engine does with what they compute is the
# same, and what finds and watches nodes computes nothing.
stores_in_erlang() {
    base=$in_erlang
    suites=
    for suite in erlang/erl_esdb/test/*_SUITE.erl; do
        name=$(basename "$suite" .erl)
        case $name in
            *_cluster_SUITE | *_consistency_SUITE | *_discovery_SUITE | *_failover_SUITE) ;;
            *_fault_SUITE | *_health_SUITE | *_leader_SUITE | *_ra_SUITE) ;;
            *) suites=$suites,$base/test/lib/erl_esdb/test/$name ;;
        esac
    done
    env REBAR_BASE_DIR="$base" ESDB_NIF=off ESDB_ENGINES=memory rebar3 ct --suite="${suites#,}"
}

# Each run of Common Test has a folder of its own, for it removes the logs of earlier ones; cargo has one for all.
in_erlang=_build/in_erlang
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$PWD/_build/cargo}"

# What mostly computes: on one processor, while on another the store's suites mostly wait for nodes, disks and
# timers. Those stay in front: what a shell starts beside itself does not hear of an interrupt, which the
# demo's cases send.
beside() {
    step library_require library require require _build/library
    step library_off library off auto "$in_erlang"
    step store_off stores_in_erlang
    step rust cargo test --quiet --locked --workspace
    step consumers test/consumers/run.sh
}

count_consumers() {
    if [ "$(cat "$work/status")" = 0 ]; then count 1 0; else count 0 1; fi
}

if scripts/toolchain.sh rust; then
    beside &
    lane=$!
    # An interrupt ends what runs beside as well.
    trap 'trap "" TERM; kill -TERM 0; exit 130' INT
    run "store, ESDB_NIF=require" stores require require
    count_common_test
    wait "$lane"
    for mode in require off; do
        finish "library_$mode" "library, ESDB_NIF=$mode"
        count_common_test
    done
    finish store_off "store, ESDB_NIF=off"
    count_common_test
    finish rust "Rust tests"
    count_cargo
    finish consumers "consumer projects"
    count_consumers
else
    echo "There is no Rust, or an old one: the suites run on the Erlang implementations only."
    run "library, ESDB_NIF=off" library off auto _build
    count_common_test
    run "store, ESDB_NIF=off" stores off auto
    count_common_test
    run "consumer projects" test/consumers/run.sh
    count_consumers
fi

without_ra() { [ "${ESDB_DEPS:-}" != off ] || echo "There is no Ra here: stores on disk and metrics were not tested."; }

printf '\n=== The runners\n'
without_ra
cat "$work/summary"
[ ! -s "$work/failed" ] || { printf '\nFailed:\n' && cat "$work/failed"; }
printf '\n%s passed, %s failed\n' "$passed" "$failed"
[ ! -s "$work/failed" ] && [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
