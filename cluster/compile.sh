#!/usr/bin/env bash
# Compiles requirements-cpu.txt and requirements-gpu.txt out of pyproject.toml; for maintainers,
# after a change of the dependencies. Names and versions only, so that any index serves them.
#
#   bash cluster/compile.sh [--upgrade]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
eval "$(.venv/bin/python cluster/pip_settings.py)"
compile() {
    .venv/bin/python -m uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
        --extra "$1" --extra dev --overrides cluster/overrides.txt --no-annotate --no-header \
        --no-emit-index-url --no-emit-find-links --output-file "cluster/requirements-$1.txt" \
        "${@:2}"
}
# Where no mirror has the CPU build of torch, the PyTorch project's index does.
compile cpu "$@" || compile cpu --index https://download.pytorch.org/whl/cpu "$@"
UV_FIND_LINKS='' compile gpu "$@"
