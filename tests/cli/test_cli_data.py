"""edgegeo data."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

ROWS = "IMG_ID,LAT,LON\na.jpg,{}\nb.jpg,nan,5\nc.jpg,5,200\n"


def folder(root: Path, position: str = "5,100") -> Path:
    (root / "im2gps3k.csv").write_text(ROWS.format(position))
    Image.new("RGB", (16, 16)).save(root / "a.jpg")
    return root


def test_check_tells_what_was_refused(cli: Any, tmp_path: Path) -> None:
    done = cli("data", "check", "im2gps3k", folder(tmp_path))
    assert done.code == 0
    assert "3 rows read, 1 kept, 2 refused" in done.out
    assert "coordinates are NaN" in done.out
    assert "im2gps3k.csv:3" in done.out
    assert "holds 1 pictures" in done.out
    assert "scored as 'distance'" in done.out
    assert str(tmp_path / "a.jpg") in done.out
    found = cli("data", "check", "auto", tmp_path, "--json").json
    assert found["report"]["kept"] == 1
    assert found["counts"] == {"pictures": 1}
    assert found["protocols"][0]["within_km"] == [1, 25, 200, 750, 2500]
    assert found["sample"] == {"picture": str(tmp_path / "a.jpg"), "lat": 5, "lon": 100}
    assert "2 of 3 rows of im2gps3k refused" in cli("data", "check", "im2gps3k", tmp_path, "--strict").refused()
    assert "no row of im2gps3k" in cli("data", "check", "im2gps3k", tmp_path, "--option", "swapped=true").refused()
    assert "NAME=VALUE" in cli("data", "check", "im2gps3k", tmp_path, "--option", "swapped").refused()


def test_check_repeats_warnings(cli: Any, tmp_path: Path) -> None:
    folder(tmp_path, "100,5")
    (tmp_path / "im2gps3k.csv").write_text("IMG_ID,LAT,LON\na.jpg,100,5\n")
    done = cli("data", "check", "im2gps3k", tmp_path)
    assert "warning: im2gps3k.csv: 1 values of LAT" in done.err
    assert "lat: 5.0" in done.out


def test_check_decodes_pictures_when_asked(cli: Any, tmp_path: Path) -> None:
    (folder(tmp_path) / "a.jpg").write_bytes(b"junk")
    assert cli("data", "check", "im2gps3k", tmp_path).code == 0
    assert "damaged picture" in cli("data", "check", "im2gps3k", tmp_path, "--check-images").refused()


def test_list(cli: Any) -> None:
    assert "cvg-text" in cli("data", "list").out
    assert {"name", "title", "layout", "splits"} == set(cli("data", "list", "--json").json[0])


def test_planet_folders_are_data_sets(cli: Any, tmp_path: Path) -> None:
    done = cli("data", "planet", "-o", tmp_path / "s", "--places", 2, "--form", "sft", "--size", 32, "--json")
    assert done.json["counts"] == {"conversations": 2}
    assert len(json.loads((tmp_path / "s/train.json").read_text())) == 2
    done = cli("data", "check", "auto", tmp_path / "s", "--check-images")
    assert "2 rows read, 2 kept, none refused" in done.out
    done = cli("data", "planet", "-o", tmp_path / "r", "--places", 2, "--size", 32, "--captions", 2, "--split", "test")
    assert "4 queries, 2 gallery" in done.out
    assert "not empty" in cli("data", "planet", "-o", tmp_path / "r", "--places", 2).refused()
    shown = cli("data", "check", "planet", "--option", "places=2", "--option", "query=photo")
    assert "ground view of" in shown.out
