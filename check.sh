#!/usr/bin/env bash
# Format, lint, types, tests: sets itself up as run_all.sh does. Arguments go to pytest, for instance ./check.sh -k cbam
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"
source environment.sh
ruff format --check .
ruff check .
mypy
pytest "$@"
