#!/usr/bin/env bash
# Sets everything up in .venv and runs all checks: style, types, tests.
#
#   bash cluster/local_test.sh                        all
#   bash cluster/local_test.sh tests/hops -k parse    pytest's arguments
#
# Types take a minute of a core: they are checked beside the tests, in the time that these leave,
# and told last.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cluster/setup.sh
set_up
.venv/bin/ruff check .
.venv/bin/ruff format --check .
types=$(mktemp)
nice -n 19 .venv/bin/mypy >"$types" 2>&1 &
trap 'rm "$types"; kill $(jobs -pr) 2>/dev/null || true' EXIT
trap 'exit 130' INT # else Ctrl-C would end the tests alone
code=0
.venv/bin/pytest "$@" || code=$?
wait $! || code=$?
cat "$types"
exit "$code"
