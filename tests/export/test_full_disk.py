"""A disk that fills up while weights stream to it: one line, nothing left behind, the old bundle untouched."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgegeo.bundle import open_bundle
from edgegeo.errors import BundleError
from edgegeo.export import graph
from edgegeo.export.pipeline import export_source
from edgegeo.export.source import Source
from edgegeo.models import weights
from edgegeo.recipe import preset


@pytest.fixture
def small_files() -> Iterator[Any]:
    """Lets the kernel refuse files beyond a size, as a full disk would; given back afterwards."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("lean", [False, True])
@pytest.mark.parametrize("room", [10_000, 60_000, 200_000])
def test_the_kernel_refuses_a_write(
    source: Source, checkpoint: Path, tmp_path: Path, small_files: Any, monkeypatch: pytest.MonkeyPatch, room: int,
    lean: bool,
) -> None:  # fmt: skip
    from edgegeo.export.source import open_source

    monkeypatch.setattr(graph, "EXTERNAL_DATA_FROM_BYTES", 4096)  # so that the tiny graphs stream as well
    if lean:
        monkeypatch.setattr(weights, "FULL_BYTES", 0)
        source = open_source(checkpoint)
    out = tmp_path / "out"
    small_files(room)
    with pytest.raises(BundleError, match=r"writing the bundle failed \(File too large\); free some space"):
        export_source(source, preset("int8"), out, places=0)
    assert not list(tmp_path.iterdir())


def test_streamed_graphs_make_a_whole_bundle(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(graph, "EXTERNAL_DATA_FROM_BYTES", 4096)
    export_source(source, preset("int4"), tmp_path / "out", places=0)
    files = open_bundle(tmp_path / "out").manifest.files
    assert {"onnx/decoder_model_merged_q4.onnx_data", "onnx/vision_encoder_int8.onnx_data"} <= set(files)
