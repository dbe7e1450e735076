#!/usr/bin/env bash
# Set up and run the tests; arguments go to pytest (-m slow, a path, -k name ...).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --dev
# One test process a core; more threads in each would only wait for each other.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec .venv/bin/python -m pytest -n auto --dist loadfile "$@"
