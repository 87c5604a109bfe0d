#!/bin/sh
# The tools this repository is built with: Erlang/OTP, rebar3, Elixir, Rust; and libraries: Ra, Prometheus, PropEr.
#
#   scripts/toolchain.sh setup    install what is missing (quick when nothing is)
#   scripts/toolchain.sh tests    the same, and what the tests need besides
#   scripts/toolchain.sh rust     succeed where there is a Rust that is new enough
#   scripts/toolchain.sh env      print the exports that put the tools in use on a shell's PATH
#   scripts/toolchain.sh ex_doc   print the folder that holds ExDoc's compiled libraries (Debian only)
#   scripts/toolchain.sh rivals   print the folder that holds compiled Khepri, for benchmarks (Debian only)
#   scripts/toolchain.sh shellcheck   print the program ShellCheck, the machine's own or Debian's
#
# What the machine has is used. What it lacks is installed on Debian: from its own packages where they are
# new enough (Debian 13), else into a folder of the user (Debian 12), without touching the system's package
# sources. A package that is too old is never installed. On other systems a list says what is missing.
# doc/guides/toolchain.md explains each step.
#
#   ESDB_CACHE   that folder (default: ${XDG_CACHE_HOME:-$HOME/.cache}/erl_esdb)
#   ESDB_DEPS    off: without Ra and Prometheus, which then are not looked for
set -eu

MIN_OTP=27
MIN_REBAR3=3.24
MIN_ELIXIR=1.18
MIN_RA=3.1
# What Debian's compiled Ra is for.
RA_OTP=29
root=$(cd "$(dirname "$0")/.." && pwd -P)
cache=${ESDB_CACHE:-${XDG_CACHE_HOME:-${HOME:-}/.cache}/erl_esdb}
log=$cache/setup.log
looked_for=$cache/setup.done
without_deps=$root/_build/without_deps
min_rust=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")

# --- What is there ------------------------------------------------------------------------------------

# at_least HAVE WANT: dotted versions
at_least() {
    [ -n "$1" ] && [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

otp_version() {
    erl -noinput -boot start_clean -eval 'io:put_chars(erlang:system_info(otp_release)), halt().' 2>/dev/null || true
}
rebar3_version() { rebar3 --version 2>/dev/null | sed -n 's/^rebar \([0-9.]*\).*/\1/p'; }
elixir_version() { elixir --short-version 2>/dev/null || true; }
cargo_version() { cargo --version 2>/dev/null | cut -d ' ' -f 2 || true; }

# The user's own tools come first; each tool that they lack or have too old is taken from the cache.
use_toolchain() {
    if [ -x "$cache/otp/bin/erl" ] && ! at_least "$(otp_version)" "$MIN_OTP"; then
        PATH=$cache/otp/bin:$PATH
    fi
    if [ -x "$cache/bin/rebar3" ] && ! have_rebar3; then
        PATH=$cache/bin:$PATH
    fi
    if [ -x "$cache/elixir/bin/elixir" ] && ! at_least "$(elixir_version)" "$MIN_ELIXIR"; then
        PATH=$cache/elixir/bin:$PATH
    fi
    export PATH
}

have_erlang() { at_least "$(otp_version)" "$MIN_OTP"; }
have_rebar3() { at_least "$(rebar3_version)" "$MIN_REBAR3"; }
have_elixir() { at_least "$(elixir_version)" "$MIN_ELIXIR"; }
have_rust() { at_least "$(cargo_version)" "$min_rust"; }

# PropEr is a dependency of the tests. It comes from the Erlang package registry like any dependency, or,
# where that cannot be reached, from a folder that _checkouts/ names.
have_proper() {
    [ -e "$root/_checkouts/proper/include/proper.hrl" ] || [ -e "$root/_build/test/lib/proper/include/proper.hrl" ]
}

# --- Saying what happens ------------------------------------------------------------------------------

say() { echo "setup: $*"; }

fail() {
    say "$*" >&2
    exit 1
}

# step TITLE COMMAND...: output goes to the log, its end to the terminal if the command fails
step() {
    title=$1
    shift
    printf 'setup: %s ... ' "$title"
    started=$(date +%s)
    mkdir -p "$cache"
    echo "=== $title" >>"$log"
    if "$@" >>"$log" 2>&1 </dev/null; then
        echo "done ($(($(date +%s) - started)) s)"
    else
        echo "failed"
        tail -n 20 "$log" >&2
        fail "the whole output is in $log"
    fi
}

# --- Debian -------------------------------------------------------------------------------------------

is_debian() {
    [ -r /etc/os-release ] && (. /etc/os-release && [ "$ID" = debian ]) &&
        command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

# Root, or somebody whom sudo lets, or who can be asked for a password.
can_be_root() {
    [ "$(id -u)" = 0 ] || { command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; }
}

# The version the machine's own package sources offer, without epoch and revision.
debian_candidate() {
    apt-cache policy "$1" 2>/dev/null | sed -n 's/^ *Candidate: \([0-9]*:\)\?\([0-9.]*\).*/\2/p'
}

# debian_has PACKAGE VERSION: the machine's own sources have it that new, and we may install it.
debian_has() { at_least "$(debian_candidate "$1")" "$2" && can_be_root; }

# The same of what stands on Erlang. Beside our own build of Erlang/OTP it would bring Debian's along.
debian_has_for_erlang() {
    [ "$(command -v erl)" != "$cache/otp/bin/erl" ] && debian_has "$@"
}

# Old lists are better than none: what cannot be installed from them fails by itself.
refresh_package_lists() {
    if can_be_root; then
        (step "Refreshing the package lists" as_root apt-get update) || true
    fi
}

# The machine's own Debian mirror: the first source whose suite is the machine's release.
debian_mirror() {
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    cat /etc/apt/sources.list.d/*.sources 2>/dev/null | awk -v suite="$codename" '
        /^URIs:/ { uri = $2 }
        /^Suites:/ { for (i = 2; i <= NF; i++) if ($i == suite) found = 1 }
        /^$/ { if (found && uri) { print uri; exit } uri = ""; found = 0 }
        END { if (found && uri) print uri }' | head -n 1 | grep . && return
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        sed 's/\[[^]]*\]//' | awk -v suite="$codename" '$1 == "deb" && $3 == suite { print $2; exit }' | grep .
}

# A package state of our own that sees a newer Debian; the system's is not touched.
private_apt() {
    suite=$1
    state=$cache/apt/$suite
    mkdir -p "$state/lists/partial" "$state/cache/archives/partial"
    mirror=$(debian_mirror) || fail "found no Debian mirror in /etc/apt"
    signed=
    for keyring in /usr/share/keyrings/debian-archive-keyring.pgp /usr/share/keyrings/debian-archive-keyring.gpg; do
        [ ! -e "$keyring" ] || signed="[signed-by=$keyring]"
    done
    for type in deb deb-src; do
        echo "$type $signed $mirror $suite main"
    done >"$state/sources.list"
    cat >"$state/apt.conf" <<EOF
Dir::Etc::sourcelist "$state/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::Lists "$state/lists";
Dir::Cache "$state/cache";
Acquire::Languages "none";
APT::Sandbox::User "root";
EOF
    export APT_CONFIG="$state/apt.conf"
    [ -e "$state/updated" ] || { apt-get update && touch "$state/updated"; }
}

# A mirror may lack a file that its index names: the next suite has another version of it. What is fetched
# later comes from the same suite if it can, because compiled Erlang code belongs to one OTP release. So what
# is fetched is tried as well: an Erlang/OTP of the user's may be too old for that of a suite.
from_suites() {
    for suite in $(cat "$cache/suite" 2>/dev/null) testing unstable stable; do
        if (private_apt "$suite" && "$@"); then
            echo "$suite" >"$cache/suite"
            return 0
        fi
        # Old lists may be the reason: the next attempt gets new ones.
        rm -f "$cache/apt/$suite/updated"
    done
    return 1
}

fetch_source() {
    mkdir -p "$cache/src" && cd "$cache/src" && apt-get source --download-only erlang
}

# unpack_packages NAME...: the files of each Debian package in $cache/debian/NAME
unpack_packages() {
    mkdir -p "$cache/debian" && cd "$cache/debian" || return 1
    for package in "$@"; do
        rm -rf "$package" "$package"_*.deb &&
            apt-get download "$package" &&
            dpkg-deb -x "$package"_*.deb "$package" &&
            rm -f "$package"_*.deb || return 1
    done
}

build_otp() {
    cd "$cache/src"
    rm -rf otp && mkdir otp
    tar -xf "$(ls -t erlang_*.orig.tar.* | head -n 1)" -C otp --strip-components 1
    cd otp
    # Debian takes these two out; the installation stops without them.
    touch lib/common_test/priv/jquery-latest.js lib/common_test/priv/jquery.tablesorter.min.js
    disabled=
    for app in javac wx odbc megaco observer debugger et jinterface diameter snmp ftp tftp eldap; do
        disabled="$disabled --without-$app"
    done
    # shellcheck disable=SC2086
    ./configure --prefix="$cache/otp" $disabled &&
        make -j"$(nproc)" &&
        make install DESTDIR="$cache/stage" || return 1
    # Moved into place only when complete, so that an interrupted setup begins again.
    rm -rf "$cache/otp" && mv "$cache/stage$cache/otp" "$cache/otp"
    cd "$cache" && rm -rf src stage
}

# What compiling OTP needs; asked of the compiler, so that any way of having it will do.
otp_build_needs() {
    command -v gcc >/dev/null || echo gcc
    command -v g++ >/dev/null || echo g++
    command -v make >/dev/null || echo make
    command -v perl >/dev/null || echo perl
    echo '#include <curses.h>' | gcc -E - >/dev/null 2>&1 || echo libncurses-dev
    echo '#include <openssl/evp.h>' | gcc -E - >/dev/null 2>&1 || echo libssl-dev
    command -v xz >/dev/null || echo xz-utils
}

install_otp_from_source() {
    missing=$(otp_build_needs)
    if [ -n "$missing" ]; then
        can_be_root || fail "please install: $(echo $missing)"
        # shellcheck disable=SC2086
        step "Installing $(echo $missing)" apt_install $missing
    fi
    step "Fetching the sources of Erlang/OTP" from_suites fetch_source
    step "Building Erlang/OTP (about 8 minutes on two cores)" build_otp
}

# Debian's Erlang/OTP serves where it runs Ra: one from the registry, or Debian's own.
install_erlang_on_debian() {
    if debian_has erlang-base "$RA_OTP" || { debian_has erlang-base "$MIN_OTP" && registry_answers; }; then
        step "Installing Debian's Erlang/OTP" apt_install erlang-dev erlang-crypto erlang-public-key \
            erlang-ssl erlang-tools erlang-common-test erlang-dialyzer erlang-eunit erlang-parsetools \
            erlang-syntax-tools erlang-xmerl erlang-inets erlang-os-mon erlang-runtime-tools erlang-reltool \
            erlang-edoc erlang-src
    else
        install_otp_from_source
    fi
}

install_rebar3_on_debian() {
    if debian_has_for_erlang rebar3 "$MIN_REBAR3"; then
        step "Installing Debian's rebar3" apt_install rebar3
    else
        step "Fetching rebar3" from_suites fetch_rebar3
    fi
}

fetch_rebar3() {
    unpack_packages rebar3 || return 1
    unpacked=$cache/debian/rebar3/usr/bin
    (PATH=$unpacked:$PATH && have_rebar3) || return 1
    mkdir -p "$cache/bin" && cp "$unpacked/rebar3" "$cache/bin/rebar3"
}

install_elixir_on_debian() {
    if debian_has_for_erlang elixir "$MIN_ELIXIR"; then
        step "Installing Debian's Elixir" apt_install elixir
    else
        step "Fetching Elixir" from_suites fetch_elixir
    fi
}

fetch_elixir() {
    unpack_packages elixir || return 1
    unpacked=$cache/debian/elixir/usr/lib/elixir
    (PATH=$unpacked/bin:$PATH && have_elixir) || return 1
    rm -rf "$cache/elixir" && mv "$unpacked" "$cache/elixir"
}

# There is nothing else to get a new Rust from. Without a candidate the package lists are not there, so that
# nothing is known yet.
install_rust_on_debian() {
    if debian_has cargo "$min_rust"; then
        step "Installing Debian's Rust" apt_install cargo
    else
        ! can_be_root || [ -n "$(debian_candidate cargo)" ]
    fi
}

# --- Compiled libraries ---------------------------------------------------------------------------------

# What stands in deps comes from the Erlang package registry. Where that cannot be reached, _checkouts/ points
# to the compiled libraries of Debian packages.

# Asked before there is an Erlang that could ask itself: apt's helper goes the way that apt goes.
registry_answers() {
    mkdir -p "$cache" && /usr/lib/apt/apt-helper -o Acquire::Retries=0 -o Acquire::https::Timeout=10 \
        download-file https://repo.hex.pm/public_key "$cache/registry.key" >>"$log" 2>&1
}

# loads FOLDER MODULE: whether this Erlang can load what is compiled there
loads() {
    [ -d "$1" ] && erl -noinput -boot start_clean -pa "$1" \
        -eval "halt(case code:ensure_loaded($2) of {module, _} -> 0; _ -> 1 end)." >/dev/null 2>&1
}

# check_out NAME FOLDER DEPS: rebar3 takes the compiled library in the folder for the source of this name
check_out() {
    mkdir -p "$root/_checkouts/$1"
    for part in ebin include priv; do
        rm -f "$root/_checkouts/$1/$part"
        [ ! -d "$2/$part" ] || ln -s "$2/$part" "$root/_checkouts/$1/$part"
    done
    echo "{deps, [$3]}." >"$root/_checkouts/$1/rebar.config"
}

# --- Ra -----------------------------------------------------------------------------------------------

# Debian has no package of Ra, but RabbitMQ stands on it and brings it along, with other libraries.
plugins_folder() {
    for folder in "$cache"/debian/rabbitmq-server/usr/lib/rabbitmq/lib/*/plugins /usr/lib/rabbitmq/lib/*/plugins; do
        for ra in "$folder"/ra-[0-9]*; do
            ! { at_least "${ra##*/ra-}" "$MIN_RA" && loads "$ra/ebin" ra; } || { echo "$folder"; return; }
        done
    done
    return 1
}

# With what each of them stands on.
PLUGINS="aten: gen_batch_server: seshat: ra:aten,gen_batch_server,seshat
    ddskerl: prometheus:ddskerl cowlib: ranch: cowboy:cowlib,ranch"

check_out_plugins() {
    plugins=$(plugins_folder) || return 1
    for plugin in $PLUGINS; do
        name=${plugin%%:*}
        folder=$(echo "$plugins/$name"-[0-9]*)
        [ -d "$folder/ebin" ] && check_out "$name" "$folder" "${plugin#*:}" || return 1
    done
}

fetch_plugins() { unpack_packages rabbitmq-server && check_out_plugins; }

can_fetch_plugins() { is_debian && at_least "$(otp_version)" "$RA_OTP"; }

have_deps() {
    if [ -e "$root/_checkouts/ra" ]; then
        loads "$root/_checkouts/ra/ebin" ra && [ -e "$root/_checkouts/cowboy/ebin/cowboy.app" ]
    else
        [ -e "$root/_build/default/lib/ra/src" ] && [ -e "$root/_build/default/lib/cowboy/src" ]
    fi
}

install_deps() {
    check_out_plugins && return
    # An unfinished checkout would hide what the registry has.
    remove_deps
    mkdir -p "$cache"
    (cd "$root" && rebar3 get-deps >>"$log" 2>&1) && return
    can_fetch_plugins && (step "Fetching Ra" from_suites fetch_plugins)
}

remove_deps() {
    for plugin in $PLUGINS; do
        rm -rf "$root/_checkouts/${plugin%%:*}"
    done
}

# The store in memory does without. What was not to be had is looked for again by the next setup.
provide_deps() {
    if [ "${ESDB_DEPS:-}" != off ]; then
        unset ESDB_DEPS
        if have_deps || install_deps; then
            rm -f "$without_deps"
            return
        fi
        remove_deps
        mkdir -p "$root/_build" && touch "$without_deps"
        export ESDB_DEPS=off
    fi
    say "no Ra and no Prometheus that this Erlang/OTP runs, or ESDB_DEPS=off is set: stores are in memory only," \
        "and there are no metrics"
}

rivals() {
    use_toolchain
    plugins_folder ||
        { can_fetch_plugins && step "Fetching Khepri" from_suites fetch_plugins >&2 && plugins_folder; }
}

# --- ShellCheck ---------------------------------------------------------------------------------------

# Debian's is that of the machine's own release, for it is a compiled program; nothing is installed.
shellcheck_program() {
    ! command -v shellcheck || return 0
    program=$cache/debian/shellcheck/usr/bin/shellcheck
    [ -x "$program" ] || { is_debian && step "Fetching ShellCheck" unpack_packages shellcheck >&2; }
    "$program" --version >/dev/null 2>&1 && echo "$program"
}

# --- PropEr -------------------------------------------------------------------------------------------

# A folder that holds a compiled PropEr which this Erlang can load.
proper_folder() {
    for folder in "$cache"/debian/erlang-proper/usr/lib/erlang/lib/proper-* /usr/lib/erlang/lib/proper-*; do
        if loads "$folder/ebin" proper; then
            echo "$folder"
            return
        fi
    done
    return 1
}

# Debian packs the header files apart.
proper_headers() {
    for include in "$1/include" "$cache"/debian/erlang-proper-dev/usr/lib/erlang/lib/proper-*/include; do
        [ ! -e "$include/proper.hrl" ] || { echo "$include"; return; }
    done
    return 1
}

check_out_proper() {
    folder=$(proper_folder) && include=$(proper_headers "$folder") || return 1
    mkdir -p "$root/_checkouts/proper"
    ln -sfn "$folder/ebin" "$root/_checkouts/proper/ebin"
    ln -sfn "$include" "$root/_checkouts/proper/include"
    echo '{deps, []}.' >"$root/_checkouts/proper/rebar.config"
}

from_registry() { (cd "$root" && rebar3 as test get-deps >>"$log" 2>&1); }

install_proper() {
    check_out_proper && return
    # An unfinished checkout would hide what the registry has.
    rm -rf "$root/_checkouts/proper"
    mkdir -p "$cache"
    from_registry && return
    is_debian || return 1
    # Its version tells nothing about the Erlang/OTP that it was compiled with.
    if debian_has_for_erlang erlang-base "$MIN_OTP"; then
        step "Installing Debian's PropEr" apt_install erlang-proper erlang-proper-dev
        check_out_proper
    else
        step "Fetching PropEr" from_suites fetch_proper
    fi
}

fetch_proper() { unpack_packages erlang-proper erlang-proper-dev && check_out_proper; }

# --- ExDoc --------------------------------------------------------------------------------------------

EX_DOC="ex_doc earmark_parser makeup makeup_c makeup_elixir makeup_erlang nimble_parsec"

install_ex_doc() {
    packages=$(for library in $EX_DOC; do echo "elixir-$library" | tr _ -; done)
    # shellcheck disable=SC2086
    from_suites unpack_packages $packages
    mkdir -p "$cache/ex_doc"
    for package in $packages; do
        cp -R "$cache/debian/$package"/usr/lib/elixir/lib/* "$cache/ex_doc/"
    done
}

ex_doc() {
    if [ ! -e "$cache/ex_doc/ex_doc/ebin" ]; then
        is_debian || return 1
        step "Fetching ExDoc" install_ex_doc >&2
    fi
    echo "$cache/ex_doc"
}

# --- The commands ------------------------------------------------------------------------------

missing_tools() {
    have_erlang || echo "  Erlang/OTP $MIN_OTP or newer   your system's packages, asdf, mise or kerl"
    have_rebar3 || echo "  rebar3 3.24 or newer     your system's packages, asdf or mise"
}

# Everything works without Elixir and Rust, so they are looked for once, and again where that failed, as it
# does without a network.
install_on_debian() {
    if have_erlang && have_rebar3 && [ -e "$looked_for" ]; then
        return
    fi
    refresh_package_lists
    have_erlang || { install_erlang_on_debian; use_toolchain; }
    have_rebar3 || { install_rebar3_on_debian; use_toolchain; }
    failed=
    have_elixir || { (install_elixir_on_debian) || failed=yes; use_toolchain; }
    have_rust || (install_rust_on_debian) || failed=yes
    mkdir -p "$cache"
    if [ -z "$failed" ]; then touch "$looked_for"; else rm -f "$looked_for"; fi
}

left_out() {
    have_elixir || say "no Elixir $MIN_ELIXIR or newer: what is written in Elixir is left out"
    have_rust || say "no Rust $min_rust or newer: everything runs on the Erlang implementations, with the same results"
    if is_debian && ! { have_elixir && have_rust; }; then
        if [ -e "$looked_for" ]; then
            say "to look for it again, remove $looked_for"
        else
            say "the next make looks for it again; to prevent that, create $looked_for"
        fi
    fi
}

setup() {
    use_toolchain
    if ! have_erlang || ! have_rebar3 || ! have_elixir || ! have_rust; then
        ! is_debian || install_on_debian
        missing=$(missing_tools)
        if [ -n "$missing" ]; then
            say "this needs tools that are not there, and only on Debian can it install them itself:" >&2
            fail "missing
$missing"
        fi
    fi
    left_out
    provide_deps
}

setup_tests() {
    setup
    have_proper || install_proper ||
        fail "PropEr, which the tests need, could be had neither from the registry nor from a package"
}

print_env() {
    use_toolchain
    echo "export PATH='$(quotable "$PATH")'"
    # mix finds compiled libraries by the folder; rebar3 looks there by itself.
    if [ "${ESDB_DEPS:-}" = off ] || [ -e "$without_deps" ]; then
        echo "export ESDB_DEPS=off"
    elif [ -e "$root/_checkouts/ra" ]; then
        echo "export ESDB_DEPS='$(quotable "$root/_checkouts")'"
    fi
}

quotable() { echo "$1" | sed "s/'/'\\\\''/g"; }

[ -n "${ESDB_CACHE:-}${XDG_CACHE_HOME:-}${HOME:-}" ] ||
    fail "HOME is not set: set it, or ESDB_CACHE to the folder that tools may be installed into"

case ${1:-} in
    setup) setup ;;
    tests) setup_tests ;;
    rust) have_rust ;;
    env) print_env ;;
    ex_doc) ex_doc ;;
    rivals) rivals ;;
    shellcheck) shellcheck_program ;;
    *) fail "usage: $0 setup | tests | env | rust | ex_doc | rivals | shellcheck" ;;
esac
