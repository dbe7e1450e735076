#!/usr/bin/env bash
# Make a virtual environment (.venv, or $1) with everything: training, export, runtime, server; with --dev the test tools too.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv dev=()
for word in "$@"; do
  if [ "$word" = --dev ]; then dev=(--group dev); else venv=$word; fi
done
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "error: training and export need Python 3.11 or newer; name one with PYTHON=/path/to/python3.11" >&2; exit 2; }
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install -q 'pip>=25.1'
# torch first and by its exact version, so that nothing later pulls another build of it.
"$venv/bin/python" -m pip install -q "$(grep '^torch==' constraints.txt)"
"$venv/bin/python" -m pip install -q -c constraints.txt "${dev[@]}" -e '.[all]'
