#!/bin/sh
# What a change must satisfy besides the tests: formats, lints, xref, dialyzer, documentation, fuzzing.
# Goes on after a failure, and ends with a list. A tool that is not there is named, not passed over.
set -u
cd "$(dirname "$0")/.." || exit 1

ok=0
failed=
absent=

# check TITLE COMMAND...
check() {
    title=$1
    shift
    printf '%-44s ' "$title"
    started=$(date +%s)
    if output=$("$@" 2>&1); then
        echo "ok ($(($(date +%s) - started)) s)"
        ok=$((ok + 1))
    else
        echo "FAILED"
        echo "$output" | tail -n 60
        failed="$failed
  $title"
    fi
}

# A Rust that is too old counts as none.
is_there() {
    case $1 in
        cargo*) scripts/toolchain.sh rust && $1 --version >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

# needs TOOL TITLE COMMAND...
needs() {
    tool=$1
    shift
    if is_there "$tool"; then
        check "$@"
    else
        absent="$absent
  $1: no $tool"
    fi
}

[ "${ESDB_DEPS:-}" != off ] || absent="
  metrics, and calls of Ra: no Ra"

check "text format" scripts/check_format.sh
needs "cargo fmt" "Rust format" cargo fmt --all --check
needs "cargo fmt" "Rust format, fuzzing" cargo fmt --manifest-path native/fuzz/Cargo.toml --check
needs "cargo clippy" "Rust lints" cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
needs "cargo clippy" "Rust lints, fuzzing" cargo clippy --quiet --locked --manifest-path native/fuzz/Cargo.toml --all-targets -- -D warnings
needs "cargo" "Rust documentation" env RUSTDOCFLAGS=-Dwarnings cargo doc --quiet --locked --no-deps --package esdb_core --package esdb_boundary
needs "mix" "Elixir format" mix format --check-formatted
! program=$(scripts/toolchain.sh shellcheck 2>/dev/null) || PATH=$PATH:$(dirname "$program")
needs "shellcheck" "shell scripts" shellcheck --severity=warning native/build.sh scripts/*.sh test/consumers/run.sh .ci/run
check "Erlang compiles without a warning" rebar3 as strict compile
check "xref" rebar3 xref
check "dialyzer" rebar3 dialyzer
check "documentation of every public function" scripts/check_docs.escript
check "links between documents" scripts/check_links.sh
check "documentation as HTML" scripts/docs.sh
needs "cargo" "fuzz corpus" scripts/fuzz.sh

[ -z "$absent" ] || printf '\nNot checked:%s\n' "$absent"
[ -z "$failed" ] || printf '\nFailed:%s\n' "$failed"
count=$(echo "$failed" | grep -c '^  ')
printf '\nchecks: %s passed, %s failed\n' "$ok" "$count"
[ -z "$failed" ]
