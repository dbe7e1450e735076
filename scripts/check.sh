#!/usr/bin/env bash
# Linters, types and import contracts: what a person runs before a commit and CI runs after it.
set -euo pipefail
cd "$(dirname "$0")/.."
ruff check .
ruff format --check .
mypy
lint-imports
