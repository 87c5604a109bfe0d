#!/bin/sh
# Builds and tests projects that depend on this checkout, offline, from a source folder that cannot be written
# to: two that use the library, with cargo on the PATH and without, and two that use the store, without.
#
#   test/consumers/run.sh [rebar3 | mix | rebar3_store | mix_store]...     (default: all; mix where Elixir is)
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
work=$(mktemp -d "${TMPDIR:-/tmp}/esdb_consumers.XXXXXX")
cleanup() {
    chmod -R u+w "$work"
    rm -rf "$work"
}
trap cleanup EXIT

fail() {
    echo "consumers: $*" >&2
    exit 1
}

# What git would give a user: the committed and the added files, and nothing of our own builds.
make_source() {
    mkdir "$work/source"
    (cd "$root" && git ls-files -z --cached --others --exclude-standard | tar -cf - --null -T - 2>/dev/null) |
        tar -xf - -C "$work/source"
    (cd "$work/source" && git init -q -b main && git add -A &&
        git -c user.name=test -c user.email=test@localhost commit -q -m "The checkout under test")
    chmod -R a-w "$work/source"
    touch "$work/source.made"
}

# Permissions do not stop root, so that nothing was written is looked up as well.
source_is_untouched() {
    touched=$(find "$work/source" -newer "$work/source.made")
    [ -z "$touched" ] || fail "the build wrote into the source folder: $touched"
}

# A PATH on which there is everything but cargo.
path_without_cargo() {
    result=
    IFS=:
    for folder in $PATH; do
        [ -x "$folder/cargo" ] && folder=$(shadow "$folder")
        result=${result:+$result:}$folder
    done
    unset IFS
    echo "$result"
}

shadow() {
    copy=$work/path/$(echo "$1" | tr / _)
    mkdir -p "$copy"
    for tool in "$1"/*; do
        case $(basename "$tool") in
            cargo* | rust*) ;;
            *) ln -sf "$tool" "$copy/" ;;
        esac
    done
    echo "$copy"
}

# The one target folder for all of these builds; thin LTO: what is asked is whether they build and load.
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/_build/cargo}"
export ESDB_CARGO_PROFILE=quick
unset ESDB_NIF ESDB_NIF_BUILD

# What cargo needs of its registry is fetched once; after that nothing here may ask for the network.
go_offline() {
    ! has_rust || cargo fetch --quiet --locked --manifest-path "$root/Cargo.toml" || fail "cargo cannot fetch"
    export CARGO_NET_OFFLINE=true HEX_OFFLINE=1
}

has_rust() { "$root/scripts/toolchain.sh" rust; }

# dependency NAME [FOLDER]: as a user of rebar3 writes it
dependency() {
    if [ -z "${2:-}" ]; then
        echo "{$1, {git, \"file://$work/source\", {branch, \"main\"}}}"
    else
        echo "{$1, {git_subdir, \"file://$work/source\", {branch, \"main\"}, \"$2\"}}"
    fi
}

# quietly COMMAND...: its output only if it fails; git shows its progress to mix, too
quietly() {
    "$@" >"$work/output" 2>&1 || { tr '\r' '\n' <"$work/output" | tail -n 20; return 1; }
}

# consumer KIND NAME EXPECTED PATH: the project's own tests
consumer() {
    kind=$1 name=$2 expected=$3 path=$4
    project=$work/$kind-$name
    cp -R "$here/${kind}_app" "$project"
    echo "consumers: $kind, $name: expecting $expected"
    case $kind in
        rebar3)
            if [ "$name" = with-cargo ]; then
                echo "{deps, [$(dependency erl_esdb_nifs)]}." >"$project/rebar.config"
            else
                mkdir "$project/_checkouts"
                ln -s "$work/source" "$project/_checkouts/erl_esdb_nifs"
            fi
            (cd "$project" && PATH=$path EXPECTED_IMPLEMENTATION=$expected rebar3 eunit) ||
                fail "$kind, $name: failed" ;;
        mix)
            (cd "$project" && PATH=$path EXPECTED_IMPLEMENTATION=$expected ERL_ESDB_NIFS=$work/source \
                MIX_ENV=test mix test) || fail "$kind, $name: failed" ;;
        rebar3_store)
            echo "{deps, [$(dependency erl_esdb_nifs),
                $(dependency erl_esdb_gater erlang/erl_esdb_gater), $(dependency erl_esdb erlang/erl_esdb)]}." \
                >"$project/rebar.config"
            (cd "$project" && PATH=$path EXPECTED_IMPLEMENTATION=$expected rebar3 eunit) ||
                fail "$kind, $name: failed" ;;
        mix_store)
            (cd "$project" && export PATH="$path" ERL_ESDB="file://$work/source" MIX_ENV=test &&
                quietly mix deps.get && EXPECTED_IMPLEMENTATION=$expected mix test) ||
                fail "$kind, $name: failed" ;;
        *) fail "$kind is none of rebar3, mix, rebar3_store, mix_store" ;;
    esac
}

# A second build has nothing to do: it must leave the libraries alone.
builds_once() {
    project=$work/$1-with-cargo
    libraries=$(find "$project/_build" -name 'esdb_*_nif.so' | sort)
    [ -n "$libraries" ] || fail "$1: no library below _build"
    touch "$work/before"
    consumer_again "$1" "$project"
    # shellcheck disable=SC2086
    changed=$(find $libraries -newer "$work/before")
    [ -z "$changed" ] || fail "$1: a second build replaced $changed"
}

consumer_again() {
    case $1 in
        rebar3) (cd "$2" && rebar3 compile) ;;
        mix) (cd "$2" && ERL_ESDB_NIFS=$work/source MIX_ENV=test mix compile --force) ;;
    esac
}

kinds=${*:-rebar3 mix rebar3_store mix_store}
go_offline
make_source
without=$(path_without_cargo)
for kind in $kinds; do
    if [ "${kind#mix}" != "$kind" ] && ! command -v mix >/dev/null; then
        echo "consumers: $kind: there is no Elixir here"
        continue
    fi
    consumer "$kind" without-cargo erlang "$without"
    if [ "${kind%_store}" = "$kind" ] && has_rust; then
        consumer "$kind" with-cargo nif "$PATH"
        builds_once "$kind"
    fi
done
source_is_untouched
echo "consumers: all built and passed"
