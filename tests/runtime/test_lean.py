"""The runtime without the build side: blocked imports, what gets loaded, start-up and memory."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgegeo.runtime

BLOCKER = """
import sys

BLOCKED = {"torch", "transformers", "onnx", "onnxscript", "peft", "safetensors", "scipy", "pandas"}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"blocked: {name}")

sys.meta_path.insert(0, Blocker())
"""

EVERY_VERB = """
import json
from pathlib import Path
from PIL import Image
from edgegeo.planet import Planet
from edgegeo.runtime import (Embedder, Gallery, Generator, Locator, Model, Reranker, open_image, parse_answer,
                             prepare_picture, verify_bundle)
from edgegeo.runtime.gallery.sources import planet_places

bundle, folder = sys.argv[1], Path(sys.argv[2])
model = Model.open(bundle, threads=1)
picture = Image.new("RGB", (50, 40), (10, 200, 30))
picture.save(folder / "photo.jpg")
prepare_picture(open_image(folder / "photo.jpg"), model.bundle.manifest.image)
assert Embedder(model).texts(["a green field"]).shape == (1, 32)
assert Embedder(model).images([folder / "photo.jpg"]).shape == (1, 32)
Gallery.build(folder / "gallery", planet_places(Planet(), n=3, size=64), Embedder(model))
assert Reranker(model).score("a green field", [picture]).shape == (1,)
assert Generator(model).answer(picture).text
assert parse_answer("<answer>1, 2</answer>") is not None
assert verify_bundle(bundle).passed
answer = Locator.open(bundle, folder / "gallery", threads=1).locate(photo=folder / "photo.jpg", rerank=2)
json.dumps([answer.to_dict(), answer.to_geojson()])
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *arguments], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_every_verb_with_the_build_side_blocked(tiny_bundle: Path, tmp_path: Path) -> None:
    loaded = set(json.loads(run(BLOCKER + EVERY_VERB, str(tiny_bundle), str(tmp_path))))
    assert not loaded & {"torch", "transformers", "onnx", "peft", "safetensors", "scipy", "fastapi", "typer", "rich"}
    assert {"onnxruntime", "tokenizers", "numpy", "PIL"} <= loaded


def test_importing_the_runtime_loads_nothing_heavy() -> None:
    script = "import sys, edgegeo.runtime; print(*(m for m in ('onnxruntime', 'numpy', 'PIL') if m in sys.modules))"
    assert run(script).strip() == ""


def test_public_names() -> None:
    for name in edgegeo.runtime.__all__:
        assert getattr(edgegeo.runtime, name).__name__ == name
    assert sorted(edgegeo.runtime.__all__) == sorted(edgegeo.runtime._HOMES)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        edgegeo.runtime.Nothing  # noqa: B018


def test_start_up_and_memory(tiny_bundle: Path) -> None:
    script = """
import json, sys, time
start = time.perf_counter()
from edgegeo.runtime import Embedder
Embedder.open(sys.argv[1]).texts(["a green field"])
seconds = time.perf_counter() - start
from edgegeo.measure import resident_mb
print(json.dumps([seconds, resident_mb()]))
"""
    seconds, megabytes = min(json.loads(run(script, str(tiny_bundle))) for _ in range(2))
    assert seconds < 2
    assert megabytes < 150


@pytest.mark.slow
def test_memory_stays_flat(tiny_bundle: Path) -> None:
    script = """
import json, random, sys
from PIL import Image
from edgegeo.measure import resident_mb
from edgegeo.runtime import Locator, Model

model = Model.open(sys.argv[1], threads=1)
locator = Locator(model)
draw = random.Random(0)

def requests(count):
    for _ in range(count):
        locator.embedder.texts(["field " * draw.randint(1, 20) for _ in range(draw.randint(1, 5))])
        picture = Image.new("RGB", (draw.randint(20, 200), draw.randint(20, 200)))
        locator.reranker.score("a field", [picture] * draw.randint(1, 4))
        locator.locate(photo=picture)

requests(300)
before = resident_mb()
requests(3000)
print(json.dumps(resident_mb() - before))
"""
    assert float(run(script, str(tiny_bundle))) < 8
