"""A tiny world for training tests: eight places, drawn once, and settings small enough for seconds."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

TINY = {"image_size": 32, "hidden": 32, "vision_layers": 1, "text_layers": 1, "kv_heads": 1, "ffn": 32, "vocab": 512}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of drawn places, shared by all training tests."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def data(cache: Path) -> Any:
    """Eight training and four validation places of the default planet."""
    from edgegeo.train.settings import PlanetData

    return PlanetData(cache=cache, places=8, validation=4)


@pytest.fixture(scope="session")
def base_folder(data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder pre-trained for two steps."""
    from edgegeo.train.pretrain import train_base

    out = tmp_path_factory.mktemp("train") / "base"
    train_base(tiny_settings(out, data))
    return out


def tiny_settings(out: Path, data: Any, **changes: Any) -> Any:
    """Two steps on the tiny world."""
    from edgegeo.train.settings import BaseSettings, Shape

    given = {"steps": 2, "batch": 4, "talk": 2, "warmup": 1, "validate_every": 1, "threads": 1, **changes}
    return BaseSettings(out=out, data=data, shape=Shape(**TINY), **given)
