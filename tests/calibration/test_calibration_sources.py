"""Samples besides the planet's: photos, data sets, noise."""

from pathlib import Path

import pytest
from PIL import Image

from edgegeo.calibration.sources import dataset_samples, photo_samples, random_samples
from edgegeo.datasets import open_dataset
from edgegeo.errors import InputError
from edgegeo.exif import write_gps


def photo(place: Path, lat: float | None = None) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if lat is not None:
        write_gps(exif, lat, 20.0)
    Image.new("RGB", (32, 32), "green").save(place, exif=exif)


def test_photos_with_and_without_a_position(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", 12.5)
    photo(tmp_path / "deeper" / "b.jpg")
    (tmp_path / "c.jpg").write_bytes(b"no picture")
    found = {one.id: one for one in photo_samples(tmp_path, 10, 0)}
    assert set(found) == {"a.jpg", "deeper/b.jpg"}
    assert found["a.jpg"].lat == pytest.approx(12.5)
    assert found["deeper/b.jpg"].lat is None
    assert found["a.jpg"].photo == (tmp_path / "a.jpg").read_bytes()


def test_the_seed_draws(tmp_path: Path) -> None:
    for name in range(12):
        photo(tmp_path / f"{name}.jpg")
    draws = [tuple(one.id for one in photo_samples(tmp_path, 4, seed)) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_folders_without_pictures(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        photo_samples(tmp_path / "none", 1, 0)
    with pytest.raises(InputError, match="no picture that can be opened"):
        photo_samples(tmp_path, 1, 0)


def test_a_data_set_gives_texts_pictures_and_positions() -> None:
    found = dataset_samples(open_dataset("planet", split="validation", places=4, size=32), 2, 0)
    assert len(found) == 2
    assert all(one.text and one.tile and one.lat is not None for one in found)


def test_noise_is_repeatable() -> None:
    assert random_samples(2, 3) == random_samples(2, 3) != random_samples(2, 4)
