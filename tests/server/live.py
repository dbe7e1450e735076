"""A server in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgegeo.server.settings import KEY_VARIABLE

# The build side is blocked in every such process: the server has to do without it.
PROGRAM = """
import sys
for name in ("torch", "transformers", "peft", "onnx", "onnxscript", "onnx_ir", "safetensors", "scipy"):
    sys.modules[name] = None
from pathlib import Path
from edgegeo.server import ServerSettings, read_api_key, serve
bundle, gallery = map(Path, sys.argv[1:])
settings = ServerSettings(bundles=(bundle,), gallery=gallery, port=0, threads=1, api_key=read_api_key())
serve(settings, lambda line: print(line, flush=True))
print("ended", flush=True)
"""


@contextmanager
def running(bundle: Path, gallery: Path, key: str = "") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address."""
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(bundle), str(gallery)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", KEY_VARIABLE: key},
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving tiny (fp32, cpu, 12 tiles) at http://"), line + process.stdout.read()
        yield process, line.split(" at ")[1].split()[0].rstrip("/")
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
