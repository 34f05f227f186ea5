#!/usr/bin/env bash
# Format, lint, types, tests: sets itself up as run_all.sh does. Arguments go to pytest, for instance ./check.sh -k cbam
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
source environment.sh
ruff format --check .
ruff check .
mypy
unset PYTHONDONTWRITEBYTECODE # the tests start many short processes: a module is compiled once, not in each of them
# Whole files to each process, so that what a file's tests share is made once; of one thread each, or they get in each
# other's way.
OMP_NUM_THREADS=1 pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
