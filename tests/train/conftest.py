"""A tiny world for training tests: eight places, drawn once, and settings small enough for seconds."""

from pathlib import Path
from typing import Any

import pytest
from invented import tiny_settings

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of drawn places, shared by all training tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def data(cache: Path) -> Any:
    """Eight training and four validation places of the default planet."""
    from edgegeo.train.settings import Data

    return Data(cache=cache, places=8, validation=4)


@pytest.fixture(scope="session")
def base_folder(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder pre-trained for two steps."""
    from edgegeo.train.pretrain import train_base

    out = tmp_path_factory.mktemp("train") / "base"
    train_base(tiny_settings(out, data))
    return out
