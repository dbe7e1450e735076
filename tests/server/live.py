"""A server in a process of its own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgegeo.server.settings import KEY_VARIABLE

# The build side is blocked in every such process: the server has to do without it.
PROGRAM = """
import json, sys
for name in ("torch", "transformers", "peft", "onnx", "onnxscript", "onnx_ir", "safetensors", "scipy"):
    sys.modules[name] = None
from pathlib import Path
from edgegeo.server import ServerSettings, read_api_key, serve
bundle, gallery, changes = Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3])
usual = {"bundles": (bundle,), "gallery": gallery, "port": 0, "threads": 1, "api_key": read_api_key()}
serve(ServerSettings(**{**usual, **changes}), lambda line: print(line, flush=True))
print("ended", flush=True)
"""


@contextmanager
def running(
    bundle: Path,
    gallery: Path,
    key: str = "",
    log: Path | None = None,
    environ: dict[str, str] | None = None,
    before: str = "",
    **changes: Any,
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server process and its address. `log` takes its stderr; `before` is Python that runs first; `changes` are
    settings."""
    with tempfile.TemporaryFile("w+") if log is None else log.open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", before + PROGRAM, str(bundle), str(gallery), json.dumps(changes)],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", KEY_VARIABLE: key, **(environ or {})},
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line.startswith("serving tiny (fp32, cpu, 12 tiles) at http://"):
                said.seek(0)  # not before: the process writes where this file stands
                raise AssertionError(line + said.read())
            yield process, line.split(" at ")[1].split()[0].rstrip("/")
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
