"""Settings that no run or model can have are refused before anything is drawn."""

from pathlib import Path
from typing import Any

import pytest

from edgegeo.train.settings import BaseSettings, Data, Schedule, Shape


@pytest.mark.parametrize(
    "wrong", [{"hidden": 40}, {"hidden": 32, "kv_heads": 2}, {"image_size": 100}, {"patch_size": 0}, {"text_layers": 0}]
)
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must"):
        Shape(**wrong)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"warmup": -1}, {"threads": 0}])
def test_impossible_runs_are_refused(wrong: dict[str, int], tmp_path: Path) -> None:
    for kind in (Schedule, lambda **given: BaseSettings(out=tmp_path, **given)):
        with pytest.raises(ValueError, match=r"seed and warmup must be at least 0, threads at least 1"):
            kind(**wrong)


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"talk": 0}, {"validate_every": 0}, {"lr": 0.0}, {"lr": float("nan")}])
def test_a_base_that_learns_nothing_is_refused(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must be at least 1, lr above 0"):
        BaseSettings(out=tmp_path, **wrong)


def test_a_folder_that_would_not_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"name the data set with --data"):
        Data(root=tmp_path)
    with pytest.raises(ValueError, match=r"planet_seed must be"):
        Data(planet_seed=-1)
