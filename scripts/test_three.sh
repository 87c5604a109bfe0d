#!/bin/sh
# The suites of the store that run on every engine, on three nodes: an hour, where `make test` has only one
# of them. SUITES="streams statem" runs some.
set -eu
cd "$(dirname "$0")/.."
of_each_engine() {
    grep -l 'erl_esdb_test:groups' erlang/erl_esdb/test/*_SUITE.erl | sed 's#.*/erl_esdb_##; s#_SUITE.erl$##'
}
suites=
for name in ${SUITES:-$(of_each_engine)}; do
    suites=$suites,_build/test/lib/erl_esdb/test/erl_esdb_${name}_SUITE
done
ESDB_ENGINES=ra3 exec rebar3 ct --suite="${suites#,}"
