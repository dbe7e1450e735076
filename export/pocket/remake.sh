#!/usr/bin/env bash
# Remakes the packaged checkpoint edgegeo/pocket from seeds: every place, weight and batch follows from them.
# Usage: export/pocket/remake.sh [FOLDER]     (default: ./pocket; needs edgegeo[train])
# About two and a half hours on two cores with bf16 instructions. Another processor or torch rounds differently: the scores come out
# alike, the bytes don't.
# A rehearsal in minutes: PLACES=200 VALIDATION=40 TEST=50 STEPS=3 export/pocket/remake.sh /tmp/pocket
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-pocket}
work=$out.work
train=(--cache "$work/places" --places "${PLACES:-60000}" --set "data.validation=${VALIDATION:-1000}")
steps() { echo "--steps ${STEPS:-$1}"; }

# shellcheck disable=SC2046  # two words each
edgegeo train base -o "$work/base" "${train[@]}" $(steps 1000) --batch 128 --seed 2026 --set compile=true --set validate_every=250
mkdir -p "$out"
cp "$work"/base/*.json "$work"/base/*.jinja "$work"/base/model.safetensors "$out/"

adapt=("${train[@]}" --checkpoint "$out" --seed 1234 --batch 128)
lora=$out/adapters/retriever-lora slq=$out/adapters/retriever-slq gps=$out/adapters/gps-lora yes_no=$out/adapters/reranker-lora
edgegeo train retriever --method lora -o "$lora" "${adapt[@]}" $(steps 200) --set schedule.validate_every=50
edgegeo train retriever --method slq -o "$slq" "${adapt[@]}" $(steps 300) --set schedule.validate_every=75
edgegeo train gps -o "$gps" "${adapt[@]}" $(steps 250) --recipe "$here/../train/answers.gps.pocket.toml"
edgegeo train reranker -o "$yes_no" "${train[@]}" --checkpoint "$out" ${STEPS:+--steps "$STEPS"} --set "retriever=$lora" \
  --recipe "$here/../train/near-misses.reranker.pocket.toml"
mv "$out"/adapters/*.run "$work/"

# Test places are looked at here for the first time.
python "$here/score.py" "$out" "$work/places" "${TEST:-1000}"
