#!/usr/bin/env bash
# Set up and run the tests; arguments go to pytest (-m slow, a path, -k name ...).
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh --dev
exec .venv/bin/python -m pytest "$@"
