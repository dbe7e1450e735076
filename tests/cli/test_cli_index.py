"""Galleries from the command line: built, broken off, added to, deleted from, compacted."""

import json
from pathlib import Path
from typing import Any

import pytest
from gallery_tiles import held, photo_list

from edgegeo.runtime import Embedder, Gallery
from edgegeo.runtime.gallery.build import build_gallery
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.runtime.gallery.sources import csv_list


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return photo_list(tmp_path / "photos", 6)


@pytest.fixture
def words(tiny_bundle: Path, tmp_path: Path) -> tuple[object, ...]:
    return ("--bundle", tiny_bundle, "--gallery", tmp_path / "g")


@pytest.fixture
def built(cli: Any, tiny_bundle: Path, source: Path, tmp_path: Path) -> Path:
    done = cli("index", "build", source, "-o", tmp_path / "g", "--bundle", tiny_bundle)
    assert done.code == 0, done
    assert "6 tiles, 2 skipped" in done.out
    assert "skipped broken: " in done.err
    assert "skipped tile-1-again: is the same picture as 'tile-1'" in done.err
    return tmp_path / "g"


def test_add_and_delete(cli: Any, built: Path, words: tuple, tmp_path: Path) -> None:
    more = photo_list(tmp_path / "more", 4, first=20)
    done = cli("index", "add", more, *words, "--json").json
    assert (done["added"], done["version"], len(done["skipped"])) == (4, 2, 2)
    assert "tile-20" in cli("index", "add", more, *words).refused()
    assert "4 tiles added (4 of them replaced)" in cli("index", "add", more, *words, "--replace").out
    assert "2 tiles deleted, 8 left, version 4" in cli("index", "delete", "tile-0", "tile-23", *words).out
    facts = cli("index", "stats", *words, "--json").json
    assert (facts["tiles"], facts["version"], facts["unfinished"]) == (8, 4, 0)
    assert [Path(name).name for name in facts["sources"]] == ["list-0.csv", "list-20.csv"]
    assert "version 5" in cli("index", "compact", *words).out
    facts = cli("index", "stats", *words, "--json").json
    assert (facts["tiles"], facts["deleted"], facts["segments"]) == (8, 0, 1)
    assert "float32" in cli("index", "stats", *words).out
    assert sorted(held(Gallery.open(built)).ids) == [*(f"tile-{i}" for i in (1, 2, 20, 21, 22, 3, 4, 5))]


def test_delete_by_place(cli: Any, built: Path, words: tuple) -> None:
    assert cli("index", "delete", "--within", "-9.8,-98.8,40", *words, "--json").json["deleted"] == 3
    assert cli("index", "delete", "--within", "80,0,10", *words, "--json").json == {
        "gallery": str(built), "deleted": 0, "tiles": 3, "version": 2,
    }  # fmt: skip
    for circle in ("1,2", "a,b,c", "1,2,0", "91,0,1", "nan,0,1"):
        assert cli("index", "delete", "--within", circle, *words).refused()
    assert len(Gallery.open(built)) == 3


def test_refusals(cli: Any, built: Path, words: tuple, source: Path, other_tiny_bundle: Path, tmp_path: Path) -> None:
    assert "no tile 'x'" in cli("index", "delete", "tile-0", "x", *words).refused()
    assert "--within" in cli("index", "delete", *words).refused()
    assert "--within" in cli("index", "delete", "tile-0", "--within", "1,2,3", *words).refused()
    assert "leave nothing" in cli("index", "delete", "--within", "0,0,30000", *words).refused()
    assert (
        "embeds differently" in cli("index", "add", source, "--bundle", other_tiny_bundle, "--gallery", built).refused()
    )
    assert "skip-anywhere" in cli("index", "add", source, *words, "--duplicates", "hide").refused()
    (tmp_path / "empty.csv").write_text("path,lat,lon\n")
    assert "the source has no tiles" in cli("index", "add", tmp_path / "empty.csv", *words).refused()
    none = ("--gallery", tmp_path / "none")
    for verb in (("add", source), ("delete", "x"), ("stats",), ("compact",)):
        assert "edgegeo index build" in cli("index", *verb, *words[:2], *none).refused()
    assert not (tmp_path / "none").exists()
    assert len(Gallery.open(built)) == 6


def test_interrupted_and_given_again(cli: Any, tiny_bundle: Path, source: Path, words: tuple, tmp_path: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done == total:
            raise KeyboardInterrupt

    small = IntakeSettings(batch=2, part_rows=2)
    with pytest.raises(KeyboardInterrupt):
        build_gallery(tmp_path / "g", csv_list(source), Embedder.open(tiny_bundle), settings=small, progress=stop)
    assert "not finished" in cli("index", "stats", *words).refused()
    (tmp_path / "photos" / "tile-2.png").unlink()
    done = cli("index", "build", source, "-o", tmp_path / "g", "--bundle", tiny_bundle)
    assert done.code == 0, done
    assert "5 tiles were embedded before the interruption and taken over" in done.err
    assert "the source changed since: 1 tiles" in done.err
    assert held(Gallery.open(tmp_path / "g")).ids == [f"tile-{i}" for i in (0, 1, 3, 4, 5)]


def test_codes_and_places(cli: Any, tiny_bundle: Path, source: Path, built: Path, words: tuple, tmp_path: Path) -> None:
    done = cli("index", "build", source, "-o", tmp_path / "coded", "--bundle", tiny_bundle, "--codes", "binary")
    assert done.code == 0, done
    coded = (*words[:2], "--gallery", tmp_path / "coded")
    facts = cli("index", "stats", *coded, "--json").json
    assert (facts["codes"], facts["dtype"], facts["tiles"]) == ("binary", "float16", 6)
    assert [stage["kind"] for stage in facts["stages"]] == ["binary"]
    assert facts["bytes_a_row_scanned"] < facts["bytes_a_row_on_disk"]
    assert "of the nearest" in cli("index", "stats", *coded).out
    assert "version 2" in cli("index", "compact", "--codes", "int8", *coded).out
    assert cli("index", "stats", *coded, "--json").json["codes"] == "int8"
    assert "another build" in cli("index", "compact", "--codes", "float32", *coded).refused()
    assert "int4" in cli("index", "compact", "--codes", "int4", *coded).refused()
    assert "int4" in cli("index", "build", source, "-o", tmp_path / "x", *words[:2], "--codes", "int4").refused()
    area = {"type": "Polygon", "coordinates": [[[-99, -10], [-98, -10], [-98, -9], [-99, -9], [-99, -10]]]}
    (tmp_path / "area.json").write_text(json.dumps(area))
    expected = {"tile-4", "tile-5"}  # at -9.8, -98.8 and -9.75, -98.5
    for place in (
        ("--within", "-9.78,-98.65,30"), ("--box", "-10,-99,-9,-98"), ("--polygon", tmp_path / "area.json"),
    ):  # fmt: skip
        hits = cli("index", "search", "--text", "a field", *place, *words, "--json").json["hits"]
        assert {hit["id"] for hit in hits} == expected
    area["coordinates"][0][1:3] = area["coordinates"][0][2:0:-1]
    (tmp_path / "crossed.json").write_text(json.dumps(area))
    said = cli("index", "search", "--text", "a field", "--polygon", tmp_path / "crossed.json", *words).refused()
    assert "crosses itself near longitude -98.50000, latitude -9.50000" in said
    for wrong in (
        ("--within", "1,2"),
        ("--within", "1,2,inf"),
        ("--box", "1,2,3"),
        ("--box", "2,0,1,0"),
        ("--within", "1,2,3", "--box", "0,0,1,1"),
    ):
        assert cli("index", "search", "--text", "a field", *wrong, *words).refused()
