#!/usr/bin/env bash
# The main job on a fresh machine: install, export the packaged model to int8, build a gallery, locate a photo.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
edgegeo export --int8
edgegeo index build
edgegeo locate --candidates 10 --map where.png
echo "Next: edgegeo serve   (in .venv/bin; then open http://127.0.0.1:8080)"
