#!/bin/sh
# Builds and tests projects that depend on this checkout, offline, from a source folder that cannot be written
# to: two that use the library, with cargo on the PATH and without; two that use the store; and two releases with a
# store on disk, which are started, stopped and started again.
#
#   test/consumers/run.sh [rebar3 | mix | rebar3_store | mix_store | rebar3_release | mix_release]...
#
# By default all of them; those of mix where Elixir is, and the releases where Ra is.
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
root=$(cd "$here/../.." && pwd -P)
work=$(mktemp -d "${TMPDIR:-/tmp}/esdb_consumers.XXXXXX")
cleanup() {
    [ -z "${started:-}" ] || { "$started" stop >/dev/null 2>&1 && ends; } || true
    [ -z "${ERL_EPMD_PORT:-}" ] || epmd -kill >/dev/null 2>&1 || true
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

# What cargo needs of its registry is fetched once; after that nothing here may ask for the network, but for Ra
# where that comes from the registry.
go_offline() {
    ! has_rust || cargo fetch --quiet --locked --manifest-path "$root/Cargo.toml" || fail "cargo cannot fetch"
    export CARGO_NET_OFFLINE=true
    [ -z "${ESDB_DEPS:-}" ] || export HEX_OFFLINE=1
}

# check_out PROJECT: compiled libraries, as somebody has them who cannot reach the registry
check_out() {
    case ${ESDB_DEPS:-} in
        "" | off) return ;;
    esac
    mkdir -p "$1/_checkouts"
    for library in ra aten gen_batch_server seshat prometheus ddskerl cowboy cowlib ranch; do
        ln -s "$ESDB_DEPS/$library" "$1/_checkouts/$library"
    done
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
            check_out "$project"
            (cd "$project" && PATH=$path EXPECTED_IMPLEMENTATION=$expected rebar3 eunit) ||
                fail "$kind, $name: failed" ;;
        mix_store)
            (cd "$project" && export PATH="$path" ERL_ESDB="file://$work/source" MIX_ENV=test &&
                quietly mix deps.get && EXPECTED_IMPLEMENTATION=$expected mix test) ||
                fail "$kind, $name: failed" ;;
        *) fail "$kind is none of rebar3, mix, rebar3_store, mix_store, rebar3_release, mix_release" ;;
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

# --- Releases: an order that was placed is there when the release was stopped and has started again

release() {
    kind=$1
    project=$work/$kind
    echo "consumers: $kind: built, started, stopped, started again"
    cp -R "$here/${kind}_app" "$project"
    (PATH=$without && build_release) || fail "$kind: not built"
    shop=$(echo "$project"/_build/*/rel/shop/bin/shop)
    export SHOP_DATA="$work/$kind-data" SHOP_PORT=0 SHOP_COOKIE=of-a-test RELEASE_COOKIE=of-a-test
    # An epmd of its own, for this machine only.
    export ERL_EPMD_PORT=$((20000 + $$ % 10000)) ERL_EPMD_ADDRESS=127.0.0.1
    start_release
    says "{ok,0}" 'shop:place(<<"order-1">>, 42)' 'Shop.place("order-1", 42)'
    says 42 'shop:total(<<"order-1">>)' 'Shop.total("order-1")'
    says true 'is_integer(erl_esdb_metrics:port())' 'is_integer(:erl_esdb_metrics.port())'
    stop_release
    start_release
    says 42 'shop:total(<<"order-1">>)' 'Shop.total("order-1")'
    says "{error,{wrong_expected_version,-1,0}}" 'shop:place(<<"order-1">>, 43)' 'Shop.place("order-1", 43)'
    stop_release
}

build_release() {
    cd "$project" || return 1
    sed -i "s|https://…/erl_esdb.git|file://$work/source|" rebar.config mix.exs 2>/dev/null || true
    case $kind in
        rebar3_release)
            check_out . && quietly rebar3 release ;;
        mix_release)
            export MIX_ENV=prod && quietly mix deps.get && quietly mix release ;;
    esac
}

# The store has started when the node can be spoken to and answers.
start_release() {
    "$shop" daemon
    started=$shop
    waits "ready" "it does not start" 'erl_esdb:readiness(shop)' ':erl_esdb.readiness(:shop)'
}

stop_release() {
    "$shop" stop >/dev/null || fail "$kind: does not stop"
    ends || fail "$kind: does not end"
    started=
}

ends() {
    tries=0
    while epmd -names 2>/dev/null | grep -q '^name shop '; do
        tries=$((tries + 1))
        [ "$tries" -lt 180 ] || return 1
        sleep 1
    done
}

# asked ERLANG ELIXIR: what the node answers, without what the two languages write differently. Lines of the log
# may be among it.
asked() {
    case $kind in
        rebar3_release) "$shop" eval "$1." 2>/dev/null | tail -n 1 ;;
        mix_release) "$shop" rpc "IO.puts(\"answer: #{inspect($2)}\")" 2>/dev/null | sed -n 's/^answer: //p' ;;
    esac | sed 's/ //g; s/\([{,]\):/\1/g; s/^://'
}

# says EXPECTED ERLANG ELIXIR
says() {
    answer=$(asked "$2" "$3")
    [ "$answer" = "$1" ] || fail "$kind: $2 answers $answer, not $1"
}

# waits EXPECTED MESSAGE ERLANG ELIXIR
waits() {
    tries=0
    until [ "$(asked "$3" "$4")" = "$1" ]; do
        tries=$((tries + 1))
        [ "$tries" -lt 180 ] || fail "$kind: $2"
        sleep 1
    done
}

has_ra() { [ "${ESDB_DEPS:-}" != off ]; }

# How dependencies are had here, where the caller does not say it.
[ -n "${ESDB_DEPS:-}" ] || eval "$("$root/scripts/toolchain.sh" env)"
kinds=${*:-rebar3 mix rebar3_store mix_store rebar3_release mix_release}
go_offline
make_source
without=$(path_without_cargo)
for kind in $kinds; do
    if [ "${kind#mix}" != "$kind" ] && ! command -v mix >/dev/null; then
        echo "consumers: $kind: there is no Elixir here"
        continue
    fi
    if [ "${kind%_release}" != "$kind" ]; then
        if has_ra; then release "$kind"; else echo "consumers: $kind: there is no Ra here"; fi
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
