"""When memory runs out: the request is refused, the server goes on. Real limits, in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgegeo.server.memory import give_back, resident_bytes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS and /proc are Linux's")

PROGRAM = """
import resource, sys
from pathlib import Path
import numpy as np
from fastapi.testclient import TestClient
from edgegeo.server import ServerSettings
from edgegeo.server.app import create_app
from edgegeo.server.engine import Engine

settings = ServerSettings(bundles=(Path(sys.argv[1]),), threads=1, allowed_hosts=("testserver",), cache_mb=0)
engine = Engine.open(settings)
huge = np.zeros((120_000, 3, 32, 32), np.float32)
session, embed = engine.locator.model.session("vision"), engine.embed_texts

def hungry(tokens):
    session.run(["image_features"], {"pixel_values": huge})
    return embed(tokens)

with TestClient(create_app(engine, settings), raise_server_exceptions=False) as client:
    def ask():
        return client.post("/v1/embeddings", json={"input": "a river"})
    wanted = ask().json()
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 24 * 2**20, resource.RLIM_INFINITY))
    engine.embed_texts = hungry
    for _ in range(2):
        refused = ask()
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "out_of_memory"), refused.text
        assert "onnx" not in refused.text
    engine.embed_texts = embed
    assert ask().json()["data"] == wanted["data"]
    assert client.get("/health/ready").status_code == 200
print("recovered")
"""


def test_the_server_recovers_when_onnxruntime_gets_no_memory(tiny_bundle: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tiny_bundle)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "recovered\n", done.stderr[-2000:]


def test_freed_memory_goes_back_to_the_system() -> None:
    kept = [bytes(2**16) + b"x" for _ in range(800)]  # pieces that the C library keeps when they are freed
    full = resident_bytes()
    last = kept.pop()
    kept.clear()
    give_back()
    assert last
    assert full - resident_bytes() > 30 * 2**20
