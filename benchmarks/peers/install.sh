#!/usr/bin/env bash
# Install peers, each into a virtual environment of its own: all of them, or those named.
#   benchmarks/peers/install.sh [openvino] [genai] [llama] [sentence]
# transformers, torch.compile and the plain export need nothing more than edgegeo[all]. llama.cpp is compiled for this
# processor (10 minutes on two cores). PEERS names the folder (.peers), PYTHON the project's interpreter.
set -euo pipefail
cd "$(dirname "$0")/../.."
peers=${PEERS:-.peers}
python=${PYTHON:-python3}
parent=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
[ $# -gt 0 ] || set -- openvino genai llama sentence

# A peer's own packages come first, the project's (numpy, torch, transformers) behind them.
layered() {
  [ -x "$peers/$1/bin/python" ] || "$python" -m venv "$peers/$1"
  site=$("$peers/$1/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "import sys; sys.path.append('$parent')" >"$site/project.pth"
}
pip() { local name=$1; shift; "$peers/$name/bin/python" -m pip install -q "$@"; }

for name in "$@"; do
  echo "$name: installing into $peers/$name"
  case $name in
    openvino) layered openvino; pip openvino 'openvino==2026.4.1' 'nncf==3.4.0' ;;
    genai) layered genai; pip genai 'onnxruntime-genai==0.18.0' ;;
    llama)
      layered llama
      pip llama 'gguf==0.19.0' cmake ninja scikit-build-core
      CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF" pip llama --no-build-isolation 'llama-cpp-python==0.3.36' ;;
    sentence)  # its exporter needs an older transformers than the project's, so nothing is shared
      [ -x "$peers/sentence/bin/python" ] || "$python" -m venv "$peers/sentence"
      pip sentence "torch==$("$python" -c 'import torch; print(torch.__version__.partition("+")[0])')" \
        'sentence-transformers[onnx]==5.7.0' ;;
    *) echo "error: unknown peer '$name'; use openvino, genai, llama or sentence" >&2; exit 2 ;;
  esac
done
