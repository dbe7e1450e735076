#!/usr/bin/env bash
# The field install, proved: 'edgegeo[cpu]' alone in an empty environment pulls no torch, transformers, onnx or scipy,
# stays small, and runs every runtime verb on a bundle that the build environment (.venv) exports.
# LEAN_PYTHON names the interpreter; without it the oldest supported one that can be found is taken (JetPack 6 has 3.10).
set -euo pipefail
cd "$(dirname "$0")/.."
python=${LEAN_PYTHON:-}
for candidate in python3.10 "$HOME"/.pyenv/versions/3.10.*/bin/python python3; do
  # Run it: a version manager's stub answers to the name without being an interpreter.
  [ -n "$python" ] || { "$candidate" -c '' 2>/dev/null && python=$candidate; } || true
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export EDGEGEO_HOME="$work/home"
.venv/bin/edgegeo export --int8 --places 50 >/dev/null

"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install -q 'pip>=25.1'
pins=constraints.txt
"$python" -c 'import sys; sys.exit(sys.version_info >= (3, 11))' && pins=runtime/jetpack6.txt
"$work/venv/bin/python" -m pip install -q -c "$pins" '.[cpu]'
if "$work/venv/bin/python" -m pip list 2>/dev/null | grep -iE '^(torch|transformers|onnx|scipy|peft|safetensors) '; then
  echo "error: the lean install pulled a build-side package" >&2; exit 1
fi
du -sm "$work/venv/lib" | awk '{print "lean install: " $1 " MB with " "'"$("$python" --version)"'"}'
edgegeo="$work/venv/bin/edgegeo"
"$edgegeo" verify
# Into a file: `head` closing the pipe early would end the verb, and with pipefail this script, by SIGPIPE.
"$edgegeo" embed --text "a river north of a village" --json >"$work/embedding.json"
head -c 200 "$work/embedding.json"; echo
"$edgegeo" index build --places 60
"$edgegeo" index search --text "a river north of a village" -k 3
"$edgegeo" locate --rerank 3
