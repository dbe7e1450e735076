"""Flags of `edgegeo train` become the settings dataclasses, whole and checked."""

from pathlib import Path
from typing import Any

import pytest

from edgegeo.cli.train import _common, settings_of
from edgegeo.errors import InputError
from edgegeo.train.settings import BaseSettings, GpsSettings, RetrieverSettings

NOTHING: tuple[None, ...] = (None,) * 8


def test_flags_not_given_leave_the_defaults(tmp_path: Path, home: Path) -> None:
    settings = settings_of(BaseSettings, _common(tmp_path, *NOTHING))
    assert settings.out == tmp_path
    assert settings.data.cache == home / "planet-cache"
    assert settings.steps == BaseSettings(tmp_path).steps
    assert settings.shape == BaseSettings(tmp_path).shape


def test_flags_and_set_arrive(tmp_path: Path, home: Path) -> None:
    words = ["shape.hidden=128", "data.validation=10", "compile=true", "lr=1", "steps=7", "data.cache=~/x"]
    settings = settings_of(BaseSettings, _common(tmp_path, 5, 4, 0.1, 3, 20, None, 1, words))
    assert (settings.steps, settings.batch, settings.lr, settings.seed) == (7, 4, 1.0, 3)  # --set comes last
    assert (settings.shape.hidden, settings.data.validation, settings.data.places) == (128, 10, 20)
    assert settings.compile is True
    assert settings.data.cache == Path("~/x").expanduser()


@pytest.mark.parametrize("cls", [RetrieverSettings, GpsSettings])
def test_adapters(cls: Any, tmp_path: Path, home: Path) -> None:
    settings = settings_of(cls, _common(tmp_path, *NOTHING) | {"checkpoint": tmp_path, "rank": 4})
    assert (settings.checkpoint, settings.rank) == (tmp_path, 4)


@pytest.mark.parametrize(
    ("word", "part"),
    [
        ("wings=2", "wings"),
        ("steps=many", "steps"),
        ("out.deep=1", "out"),
        ("rank", "NAME=VALUE"),
        ("=1", "NAME=VALUE"),
    ],
)
def test_wrong_settings_are_named(word: str, part: str, tmp_path: Path, home: Path) -> None:
    with pytest.raises(InputError, match=part):
        settings_of(BaseSettings, _common(tmp_path, *(None,) * 7, [word]))


def test_all_faults_are_told_at_once(tmp_path: Path, home: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)wings.*legs"):
        settings_of(BaseSettings, _common(tmp_path, *(None,) * 7, ["wings=2", "legs=4"]))


def test_refusals(cli: Any, tmp_path: Path) -> None:
    assert "--method" in cli("train", "retriever", "-o", tmp_path, "--method", "magic").refused()
    assert "--output" in cli("train", "base").refused()
