import csv
import json
from pathlib import Path

import numpy as np
import pytest
from small_files import retrieval

from edgegeo.datasets import Drawn, GpsSet, SftSet, open_dataset, open_picture
from edgegeo.datasets.planet_folder import PlanetFolder, write_planet
from edgegeo.errors import InputError
from edgegeo.exif import read_gps
from edgegeo.planet import Planet
from edgegeo.runtime.gallery.sources import csv_list


def test_retrieval_on_the_planet() -> None:
    data = retrieval("planet", split="validation", places=3, captions=2, size=32)
    assert (len(data.queries), len(data.gallery), data.report.read) == (6, 3, 3)
    assert data.positives(data.queries[3]) == (1,)
    place = Planet().places("validation", 3)[1]
    assert data.gallery[1].image == Drawn(place.seed, place.lat, place.lon, "satellite", 32)
    np.testing.assert_array_equal(data.gallery[1].open(), Planet().satellite(place.lat, place.lon, 32))
    photos = retrieval("planet", split="validation", places=3, query="photo", size=32)
    np.testing.assert_array_equal(photos.queries[1].open(), Planet().ground(place.lat, place.lon, size=32))
    assert data.pictures() == set()


def test_positions_and_conversations_of_the_planet() -> None:
    gps = open_dataset("planet", split="test", form="gps", places=2, size=32)
    assert isinstance(gps, GpsSet)
    assert gps.samples[0].open().size == (32, 32)
    sft = open_dataset("planet", split="train", form="sft", places=2, answers="tag")
    assert isinstance(sft, SftSet)
    place = Planet().places("train", 1)[0]
    assert sft.rows[0].answer == f"<answer> lat: {place.lat:.5f} lon: {place.lon:.5f} </answer>"
    assert sft.rows[0].position == gps.samples[0].position.__class__(place.lat, place.lon)
    with pytest.raises(InputError, match="form is one of"):
        open_dataset("planet", form="poetry")
    with pytest.raises(InputError, match="at least 1"):
        open_dataset("planet", places=0)


def test_written_captions_and_tiles(tmp_path: Path) -> None:
    target = tmp_path / "out"
    steps: list[int] = []
    data = write_planet(
        target, PlanetFolder("retrieval", 3, "validation", size=32), lambda stage, done, total: steps.append(done)
    )
    assert steps == [1, 2, 3]
    assert data.report.dataset == "karpathy"
    again = retrieval("karpathy", target, "val", strict=True)
    assert (len(again.queries), len(again.gallery)) == (15, 3)
    place = Planet().places("validation", 3)[2]
    assert again.gallery[2].position == again.queries[10].position
    assert again.gallery[2].image == target / "tiles" / f"{place.lat:.4f},{place.lon:.4f}_validation-00002.png"
    np.testing.assert_array_equal(open_picture(again.gallery[2].image), Planet().satellite(place.lat, place.lon, 32))
    whole = json.loads((target / "dataset_planet.json").read_text())
    assert [s["sentid"] for s in whole["images"][1]["sentences"]] == whole["images"][1]["sentids"] == [5, 6, 7, 8, 9]
    # the CSV is what `edgegeo index build` takes, and the photos carry their positions
    assert [row.id for row in csv_list(target / "tiles.csv")] == [f"validation-0000{k}" for k in range(3)]
    with (target / "tiles.csv").open(newline="") as stream:
        assert float(list(csv.DictReader(stream))[2]["lat"]) == place.lat
    photos = open_dataset("photos", target / "photos", strict=True)
    assert isinstance(photos, GpsSet)
    np.testing.assert_allclose(photos.positions[2], (place.lat, place.lon), atol=1e-7)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]  # no draft is left


def test_written_conversations(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    data = write_planet(tmp_path / "empty", PlanetFolder("sft", 2, size=32))
    assert isinstance(data, SftSet)
    assert [row.images[0].name for row in data.rows] == ["train-00000.jpg", "train-00001.jpg"]  # type: ignore[union-attr]
    drawn = open_dataset("planet", split="train", form="sft", places=2)
    assert isinstance(drawn, SftSet)
    assert [row.answer for row in data.rows] == [row.answer for row in drawn.rows]
    from PIL import Image

    with Image.open(data.rows[0].images[0]) as image:  # type: ignore[arg-type]
        assert read_gps(image) is not None
    with pytest.raises(InputError, match="not empty; name another"):
        write_planet(tmp_path / "empty", PlanetFolder("sft", 2, size=32))


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgegeo.datasets.planet_folder.write_photo", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_planet(tmp_path / "out", PlanetFolder("sft", 1, size=32))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="form is retrieval or sft"):
        PlanetFolder("tar", 1)
