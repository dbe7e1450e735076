"""Fixtures that several rooms share."""

from pathlib import Path

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
