#!/usr/bin/env bash
# Sets everything up in .venv and runs the main job on this machine.
#
#   bash cluster/local.sh                             the embedded model on installed packages
#   bash cluster/local.sh source=folder source.path=$PWD/code name=mine
#   bash cluster/local.sh --help                      what can be set
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cluster/setup.sh
set_up
exec .venv/bin/selfalign "$@"
