from pathlib import Path

import numpy as np
import pytest
from small_files import picture, retrieval, traps, write

from edgegeo.datasets.cvg import is_panorama
from edgegeo.errors import InputError
from edgegeo.geo import Position

PANO = "40.70,-74.00_2021-05_abc_d.jpg"
SINGLE = "40.71,-74.01_x.jpg"


def city(root: Path, version: str, entries: dict[str, object], view: str = "satellite") -> None:
    write(root / version / "test.json", entries)
    for name in entries:
        if "gone" not in name and ".." not in name:
            picture(root / f"{version}-{view}" / name)


def test_names_carry_positions_and_tell_panoramas(tmp_path: Path) -> None:
    city(tmp_path, "NewYork", {PANO: "a wide street", SINGLE: "a corner"})
    data = retrieval("cvg-text", tmp_path)
    assert data.queries[0].position == Position(40.70, -74.00)
    assert data.gallery[1].image == tmp_path / "NewYork-satellite" / SINGLE
    assert data.positives(data.queries[1]) == (1,)
    assert [q.text for q in retrieval("cvg-text", tmp_path, scenes="panorama").queries] == ["a wide street"]
    single = retrieval("cvg-text", tmp_path, scenes="single")
    assert [q.text for q in single.queries] == ["a corner"]
    assert len(single.gallery) == 2  # the gallery stays whole


def test_underscores_of_folders_make_no_panorama() -> None:
    assert is_panorama(PANO)
    assert not is_panorama(SINGLE)
    assert not is_panorama(f"my_data_folder/{SINGLE}")


def test_the_oracle_gallery_is_the_hundred_nearest(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"{lat:.6f},{lon:.6f}_a.png" for lat, lon in rng.uniform((35, 139), (36, 140), (130, 2))]
    city(tmp_path, "Tokyo", dict.fromkeys(names, "a street"))
    data = retrieval("cvg-text", tmp_path)
    oracle, full = data.protocols
    assert (oracle.name, full.name) == ("oracle gallery of the 100 nearest", "full gallery")
    assert oracle.within_km == full.within_km == (0.05, 0.10, 0.15)
    pool = data.pool(7, oracle)
    assert pool is not None
    assert pool[0] == 7  # the truth is always in it
    assert len(pool) == len(set(pool.tolist())) == 100
    truth = data.positions[7]
    flat = np.hypot(data.positions[:, 0] - truth[0], (data.positions[:, 1] - truth[1]) * np.cos(np.radians(35.5)))
    left_out = np.setdiff1d(np.arange(130), pool)
    assert flat[pool].max() < flat[left_out].min() * 1.05
    assert data.pool(7, full) is None


def test_versions_and_views(tmp_path: Path) -> None:
    city(tmp_path, "Brisbane", {SINGLE: "one"})
    city(tmp_path, "Brisbane-photos", {PANO: "two"})
    picture(tmp_path / "Brisbane-OSM" / SINGLE)
    with pytest.raises(InputError, match=r"Brisbane, Brisbane-photos; name one with version="):
        retrieval("cvg-text", tmp_path)
    assert len(retrieval("cvg-text", tmp_path, version="Brisbane-photos").gallery) == 1
    mixed = retrieval("cvg-text", tmp_path, version="Brisbane-mixed")
    assert [q.text for q in mixed.queries] == ["one", "two"]
    city(tmp_path, "Brisbane-photos", {PANO: "two", SINGLE: "of the other part too"})
    assert retrieval("cvg-text", tmp_path, version="Brisbane-mixed").report.reasons() == {"duplicate picture name": 1}
    osm = retrieval("cvg-text", tmp_path, version="Brisbane", view="osm")
    assert osm.gallery[0].image == tmp_path / "Brisbane-OSM" / SINGLE
    with pytest.raises(InputError, match="has no folder Brisbane-ground"):
        retrieval("cvg-text", tmp_path, version="Brisbane", view="ground")
    with pytest.raises(InputError, match="no version 'Paris'"):
        retrieval("cvg-text", tmp_path, version="Paris")
    with pytest.raises(InputError, match="view is one of"):
        retrieval("cvg-text", tmp_path, version="Brisbane", view="x-ray")


def test_annotations_may_lie_below_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "CVG-text" / "Tokyo" / "test.json", {SINGLE: "one"})
    picture(tmp_path / "Tokyo-satellite" / SINGLE)
    assert len(retrieval("cvg-text", tmp_path, version="Tokyo").gallery) == 1
    with pytest.raises(InputError, match=r"train\.json"):
        retrieval("cvg-text", tmp_path, "train", version="Tokyo")


def test_broken_entries(tmp_path: Path) -> None:
    city(
        tmp_path,
        "NewYork",
        {
            SINGLE: "kept",
            "gone_40,1.jpg": "x",
            "40.0,-74.0_gone.jpg": "x",
            "95.0,10.0_a.jpg": "x",
            "10.0,200.0_a.jpg": "x",
            "41.0,-74.0_a.jpg": None,
            "42.0,-74.0_a.jpg": " ",
            "43.0,-74.0_a/../../b.jpg": "x",
        },
    )
    data = retrieval("cvg-text", tmp_path)
    assert [q.text for q in data.queries] == ["kept"]
    assert data.report.reasons() == {
        "file name does not start with lat,lon": 2,
        "coordinates out of range": 2,
        "missing picture": 1,
        "caption is no text": 1,
        "empty caption": 1,
    }
    assert data.report.read == 8


def test_a_name_that_stands_twice_keeps_its_first_caption(tmp_path: Path) -> None:
    city(tmp_path, "NewYork", {SINGLE: "x"})
    write(tmp_path / "NewYork" / "test.json", f'{{"{SINGLE}": "first", "{SINGLE}": "second"}}')
    data = retrieval("cvg-text", tmp_path)
    assert [q.text for q in data.queries] == ["first"]
    assert traps(data) == {"a key stands twice in the JSON; the first is kept": 1}
    write(tmp_path / "NewYork" / "test.json", [])
    with pytest.raises(InputError, match="no dict of picture name"):
        retrieval("cvg-text", tmp_path)
