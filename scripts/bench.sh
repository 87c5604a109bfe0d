#!/bin/sh
# Measures; see bench/README.md.   scripts/bench.sh [hash | crypto | archive | store | append | durable | ...]...
#
#   RECORD=1   also writes the record of today, and its tables into doc/guides/performance.md
set -eu
cd "$(dirname "$0")/.."
mkdir -p _build/bench
erlc -pa _build/default/checkouts/ra/ebin -pa _build/default/lib/ra/ebin -o _build/bench bench/*.erl
names=
for name in "$@"; do names="$names\"$name\","; done
record=bench/record/$(date +%Y-%m-%d).md
page=doc/guides/performance.md

measure() {
    ESDB_NIF=require erl -noinput -pa _build/default/checkouts/*/ebin -pa _build/default/lib/*/ebin -pa _build/bench \
        -eval "esdb_bench:main($1, [${names%,}]), halt()."
}

# Between `<!-- record: Title -->` and `<!-- end -->` stands what the record has under that title.
fill_page() {
    awk -v record="$1" '
        BEGIN {
            while ((getline line < record) > 0) {
                if (line ~ /^## /) title = substr(line, 4)
                else if (title != "" && !(line == "" && text[title] == "")) text[title] = text[title] line "\n"
            }
        }
        /^<!-- record: .* -->$/ {
            title = substr($0, 14, length($0) - 17)
            print
            if (title in text) {
                printf "\n%s", text[title]
                if (text[title] !~ /\n\n$/) print ""
                inside = 1
            }
            next
        }
        /^<!-- end -->$/ { inside = 0 }
        !inside { print }
    ' "$2" >"$2.new"
    mv "$2.new" "$2"
}

if [ -z "${RECORD:-}" ]; then
    measure none
else
    measure "\"$record\""
    fill_page "$record" "$page"
fi
