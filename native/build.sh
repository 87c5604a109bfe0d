#!/bin/sh
# The one native build: rebar3 (as a hook), mix (as a compiler) and make all call it.
#
#   native/build.sh [DIR]      build the libraries and put esdb_*_nif.so into DIR
#
# Without DIR it asks rebar3's environment where the application is being built.
# Nothing is written into the source folder, which may be read-only.
#
#   ESDB_NIF_BUILD=auto     build if there is a cargo, otherwise say so in one line and go on (default)
#   ESDB_NIF_BUILD=require  no cargo is an error
#   ESDB_NIF_BUILD=off      build nothing; libraries of an earlier build are taken away
#   ESDB_CARGO_PROFILE      release (default) or quick: thin LTO, for tests that only build and load
#   CARGO_TARGET_DIR        where cargo works; default beside the build folder
set -eu

source_dir=$(cd "$(dirname "$0")/.." && pwd -P)
profile=${ESDB_CARGO_PROFILE:-release}

min_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$source_dir/Cargo.toml")

say() { echo "erl_esdb_nifs: $*"; }
fail() { say "$*" >&2; exit 1; }

# The folder of the application in a rebar3 build: a dependency lies in lib/, a checkout in checkouts/.
rebar3_app_dir() {
    : "${REBAR_BUILD_DIR:?give the output folder as an argument, or run this as a rebar3 hook}"
    checkout=${REBAR_CHECKOUTS_DIR:-_checkouts}/erl_esdb_nifs
    if [ -d "$checkout" ] && [ "$(cd "$checkout" && pwd -P)" = "$source_dir" ]; then
        echo "$REBAR_BUILD_DIR/checkouts/erl_esdb_nifs"
    else
        echo "${REBAR_DEPS_DIR:-$REBAR_BUILD_DIR/lib}/erl_esdb_nifs"
    fi
}

output=${1:-}
if [ -z "$output" ]; then
    output=$(rebar3_app_dir)/priv
fi

# Why there is nothing to build with; empty when there is.
no_rust() {
    if ! command -v cargo >/dev/null 2>&1; then
        echo "no cargo on the PATH"
        return
    fi
    version=$(cargo --version 2>/dev/null | cut -d ' ' -f 2)
    oldest=$(printf '%s\n%s\n' "$min_rust" "${version:-0}" | sort -V | head -n 1)
    [ "$oldest" = "$min_rust" ] || echo "cargo ${version:-of an unknown version} is older than $min_rust"
}

# Goes on without building. Libraries of the very sources that lie here may stay; older ones may not fit
# the Erlang code any more.
without_building() {
    if [ "$(cat "$output/sources.sum" 2>/dev/null)" = "$(sum_of_sources)" ]; then
        say "$1, so the libraries that were built from these sources stay"
    else
        rm -f "$output"/esdb_*_nif.so
        say "$1, so the pure Erlang implementations will run (same results, slower)"
    fi
}

sum_of_sources() {
    (cd "$source_dir" &&
        find Cargo.toml Cargo.lock native src/*.app.src -type f ! -path 'native/fuzz/*' -exec cksum {} + | sort | cksum)
}

case ${ESDB_NIF_BUILD:-auto} in
    off)
        rm -f "$output"/esdb_*_nif.so
        exit 0 ;;
    auto)
        reason=$(no_rust)
        if [ -n "$reason" ]; then
            without_building "$reason"
            exit 0
        fi ;;
    require)
        reason=$(no_rust)
        [ -z "$reason" ] || fail "ESDB_NIF_BUILD=require, but $reason" ;;
    *)
        fail "ESDB_NIF_BUILD is auto, require or off, not '$ESDB_NIF_BUILD'" ;;
esac

# rebar3 makes a link to the priv folder of the source where there is one; ours is always built.
[ ! -L "$output" ] || rm "$output"
mkdir -p "$output"
output=$(cd "$output" && pwd -P)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(dirname "$output")/.cargo-target}
export CARGO_TARGET_DIR

cargo build --quiet --locked --profile "$profile" --manifest-path "$source_dir/Cargo.toml" --workspace ||
    fail "the native build failed (ESDB_NIF_BUILD=off builds without Rust)"

case $(uname -s) in
    Darwin) suffix=dylib ;;
    *) suffix=so ;;
esac
for library in "$CARGO_TARGET_DIR/$profile"/libesdb_*_nif."$suffix"; do
    name=$(basename "$library" ".$suffix")
    target=$output/${name#lib}.so
    # A running VM may have the old file mapped: never write into it, replace it.
    if ! cmp -s "$library" "$target"; then
        cp "$library" "$target.new" && mv "$target.new" "$target"
    fi
done
sum_of_sources >"$output/sources.sum"
