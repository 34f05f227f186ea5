# Sourced by run_all.sh and check.sh: puts a Python that has mammo-cbam and its pinned packages first on the PATH.
# An active conda or virtual environment that has the package is used as it is; otherwise .venv is made once and reused.

extras="demo,download,cluster,explore,tensorboard,benchmarks,dev"

# Looked for and not imported, which would take seconds of every run.
has_package() {
    (cd / && "$1" -c 'import importlib.util as i, sys; sys.exit(not all(map(i.find_spec, ("mammo_lib", "papermill", "torch", "xdist"))))') >/dev/null 2>&1
}

find_python() {
    local name
    for name in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            echo "$name"
            return
        fi
    done
    echo "error: Python 3.11 or newer is needed and none is on the PATH: install one, then run this again" >&2
    return 1
}

stamp=.venv/mammo-cbam.stamp
wanted=$(cat pyproject.toml requirements.txt environment.sh | cksum) # what .venv must have been made from

# By a library that a process of this machine holds open; Linux alone can tell. Its names have no symbolic links.
in_use() { grep -qsF "$(pwd -P)/.venv/" /proc/[0-9]*/maps; }

is_fresh() { [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; }

make_venv() {
    if is_fresh; then
        return
    fi
    local python
    python=$(find_python) || return 1
    if in_use; then # it would be lost at its next import, perhaps hours from now
        echo "error: .venv is older than this checkout and something runs in it: run this again when that has ended, or 'source .venv/bin/activate' first to use it as it is" >&2
        return 1
    fi
    echo "set-up: making .venv from pyproject.toml and requirements.txt (a few minutes, once)"
    rm -rf .venv
    "$python" -m venv .venv || {
        echo "error: '$python -m venv .venv' failed: install the venv module (Debian: python3-venv), then run this again" >&2
        return 1
    }
    local uv=uv
    if ! command -v uv >/dev/null; then
        echo "set-up: installing uv into .venv"
        .venv/bin/python -m pip install --quiet --disable-pip-version-check uv
        uv=.venv/bin/uv
    fi
    "$uv" pip install --quiet --python .venv/bin/python --constraint requirements.txt --editable ".[$extras]"
    echo "$wanted" >"$stamp"
    echo "set-up: done"
}

# torch takes its large arrays on the CPU in huge pages (Linux, where the kernel leaves the choice): a step takes less
# time and somewhat more memory, and gives the same numbers.
export THP_MEM_ALLOC_ENABLE="${THP_MEM_ALLOC_ENABLE:-1}"

if [ -n "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ] && has_package python; then
    echo "environment: the active one, ${VIRTUAL_ENV:-$CONDA_PREFIX}"
    if [ "${VIRTUAL_ENV:-}" = "$PWD/.venv" ] && ! is_fresh; then # in use, so not made anew under its users' feet
        echo "warning: .venv may be older than this checkout: 'deactivate', and run this again to have it made anew" >&2
    fi
else
    make_venv
    export VIRTUAL_ENV="$PWD/.venv" PATH="$PWD/.venv/bin:$PATH"
    echo "environment: .venv"
fi
