#!/usr/bin/env bash
# Sets everything up in .venv and runs all checks: style, types, tests.
#
#   bash cluster/local_test.sh                        all
#   bash cluster/local_test.sh tests/hops -k parse    pytest's arguments
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cluster/setup.sh
set_up
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/mypy
exec .venv/bin/pytest "$@"
