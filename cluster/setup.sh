# Makes .venv ready, or finds that it is. For the scripts beside it, which source this file from
# the project's folder. No root, no account, and but on a GPU no compiler; pip's own settings (index,
# extra indexes, find-links, certificate) are used, so that a package mirror set up for pip serves
# here too.

find_python() { # prints a Python 3.11 to 3.13 with venv
    local candidate
    for candidate in python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && "$candidate" -c \
            'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
            2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    echo "selfalign: no Python 3.11, 3.12 or 3.13 with venv on PATH; install one" \
        "(Debian, Ubuntu: apt install python3-venv)" >&2
    return 1
}

# The CPU build of torch stands on a package mirror, or else on the PyTorch project's own index.
install_torch() {
    local torch
    torch=$(grep '^torch==' "$1")
    "${UV[@]}" "$torch" 2>/dev/null ||
        "${UV[@]}" --default-index https://download.pytorch.org/whl/cpu "$torch"
}

# On a GPU vLLM's kernels are compiled by Triton, which wants a C compiler and Python's headers.
look_for_compiler() {
    local headers
    headers=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("include"))')
    if ! command -v "${CC:-gcc}" >/dev/null && ! command -v clang >/dev/null; then
        echo "selfalign: vLLM needs a C compiler on a GPU; install one" \
            "(Debian, Ubuntu: apt install gcc)" >&2
    elif [ ! -e "$headers/Python.h" ]; then
        echo "selfalign: vLLM needs $headers/Python.h on a GPU; install it" \
            "(Debian, Ubuntu: apt install python3-dev)" >&2
    fi
}

set_up() {
    local kind=cpu requirements stamp python
    if command -v nvidia-smi >/dev/null && nvidia-smi -L >/dev/null 2>&1; then kind=gpu; fi
    requirements=cluster/requirements-$kind.txt
    stamp=$(cat "$requirements" pyproject.toml cluster/setup.sh | sha256sum | cut -d' ' -f1)
    if [ "$(cat .venv/ready 2>/dev/null)" != "$stamp $PWD" ]; then
        echo "selfalign: setting up .venv for $kind, once: one to three minutes, 3 GB (GPU: 12 GB)"
        python=$(find_python)
        "$python" -m venv --clear .venv
        .venv/bin/python -m pip install --quiet --quiet --disable-pip-version-check uv
        eval "$(.venv/bin/python cluster/pip_settings.py)"
        # Bytecode: every Ray worker imports Ray and pandas, at half the cost where it is there.
        UV=(.venv/bin/python -m uv pip install --quiet --no-deps --compile-bytecode
            --python .venv/bin/python)
        if [ "$kind" = cpu ]; then install_torch "$requirements"; fi
        "${UV[@]}" -r "$requirements"
        "${UV[@]}" --editable .
        echo "$stamp $PWD" >.venv/ready
    fi
    .venv/bin/python -m selfalign_ray.engine.embedded >/dev/null
    if [ "$kind" = gpu ]; then look_for_compiler; fi
}
