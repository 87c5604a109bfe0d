#!/bin/sh
# Fails when a Markdown file links to a file or folder of this repository that does not exist.
#
# Looks at inline links and link definitions outside of code. Addresses with a scheme, and anchors, are
# not followed.
set -u
cd "$(dirname "$0")/.." || exit 1

# The targets of FILE, one a line with the number of its line.
targets() {
    awk '
        /^ *(```|~~~)/ { in_code = !in_code; next }
        in_code { next }
        {
            gsub(/`[^`]*`/, "")
            if ($0 ~ /^ *\[[^]]+\]: /) print NR, $2
            while (match($0, /\]\([^()]+\)/)) {
                target = substr($0, RSTART + 2, RLENGTH - 3)
                $0 = substr($0, RSTART + RLENGTH)
                sub(/ .*/, "", target)
                print NR, target
            }
        }' "$1"
}

# exists FILE TARGET
exists() {
    path=${2%%#*}
    case $2 in
        *://* | mailto:*) return 0 ;;
        /*) [ -e ".$path" ] ;;
        *) [ -z "$path" ] || [ -e "$(dirname "$1")/$path" ] ;;
    esac
}

found=$(
    git ls-files --cached --others --exclude-standard -- '*.md' | while read -r file; do
        targets "$file" | while read -r line target; do
            exists "$file" "$target" || echo "$file:$line: $target does not exist"
        done
    done
)
[ -z "$found" ] || { echo "$found"; exit 1; }
