#!/bin/sh
# What a formatter would see to, for the languages without one here: line length, tabs, blank ends.
set -u
cd "$(dirname "$0")/.." || exit 1

bad=0
# report MESSAGE PATTERN GLOB...
report() {
    message=$1 pattern=$2
    shift 2
    found=$(git grep -nIE "$pattern" -- "$@")
    if [ -n "$found" ]; then
        echo "$message:"
        echo "$found" | cut -c 1-160 | head -n 20
        bad=1
    fi
}

sources="*.erl *.hrl *.config *.escript *.src"
# shellcheck disable=SC2086
report "longer than 100 characters" '^.{101,}$' $sources
# shellcheck disable=SC2086
report "a tab" "$(printf '\t')" $sources '*.sh' '*.rs' '*.ex' '*.exs'
report "blanks at the end of a line" ' +$' '*.erl' '*.hrl' '*.rs' '*.ex' '*.exs' '*.sh' '*.md' '*.toml' Makefile
report "unfinished work" 'TODO|FIXME|XXX|todo!\(|unimplemented!\(' '*.erl' '*.hrl' '*.rs' '*.ex' '*.exs'
report "a sleep" 'timer:sleep|Process\.sleep|thread::sleep' '*.erl' '*.rs' '*.ex' '*.exs'
exit $bad
