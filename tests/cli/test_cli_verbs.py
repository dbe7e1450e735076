"""Each verb on a real tiny bundle."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgegeo.exif import read_gps


def test_verify(cli: Any, tiny_bundle: Path) -> None:
    done = cli("verify", tiny_bundle, "--json")
    assert done.code == 0
    assert done.json["passed"]
    assert "every hash right" in cli("verify", tiny_bundle).out


def test_embed(cli: Any, tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    target = tmp_path / "v.npy"
    done = cli("embed", photo, "--text", "a river", "--bundle", tiny_bundle, "-o", target, "--json")
    assert done.code == 0
    items = done.json["items"]
    assert [sorted(item) for item in items] == [["embedding", "text"], ["embedding", "image"]]
    stored = np.load(target, allow_pickle=False)
    assert stored.shape == (2, done.json["dim"])
    np.testing.assert_allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(stored[0], items[0]["embedding"], atol=1e-7)
    assert str(photo) in cli("embed", photo, "--bundle", tiny_bundle).out


def test_index_of_the_planet(cli: Any, tiny_bundle: Path, home: Path) -> None:
    done = cli("index", "build", "--places", 4, "--bundle", tiny_bundle)
    assert done.code == 0
    assert "4 tiles, 0 skipped" in done.out
    found = cli("index", "search", "--text", "a river", "-k", 2, "--bundle", tiny_bundle, "--json").json
    assert found["tiles"] == 4
    assert len(found["hits"]) == 2
    assert found["hits"][0]["score"] >= found["hits"][1]["score"]
    # locate takes the gallery that index build wrote without being told
    assert len(cli("locate", "--text", "a river", "--bundle", tiny_bundle, "--json").json["hits"]) == 4


def test_index_of_own_pictures(cli: Any, tiny_bundle: Path, photo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    shutil.copy(photo, folder / "a.jpg")
    Image.new("RGB", (64, 64)).save(folder / "nowhere.png")
    done = cli("index", "build", folder, "-o", tmp_path / "g", "--bundle", tiny_bundle, "--json")
    assert done.json["tiles"] == 1
    assert "skipped nowhere.png" in done.err
    (folder / "list.csv").write_text("path,lat,lon,id\nnowhere.png,1.5,2.5,black\n")
    assert cli("index", "build", folder / "list.csv", "-o", tmp_path / "g", "--bundle", tiny_bundle).code == 0
    found = cli("index", "search", photo, "--gallery", tmp_path / "g", "--bundle", tiny_bundle, "--json").json
    assert [hit["id"] for hit in found["hits"]] == ["black"]
    assert "-o FOLDER" in cli("index", "build", folder, "--bundle", tiny_bundle).refused()


def test_locate_a_photo(cli: Any, tiny_bundle: Path, gallery: Path, photo: Path, tmp_path: Path) -> None:
    words = ("locate", photo, "--bundle", tiny_bundle, "--gallery", gallery, "-k", 3, "--rerank", 2)
    done = cli(*words, "--json")
    assert done.code == 0
    found = done.json
    assert len(found["hits"]) == 3
    assert found["hits"][0]["rerank_score"] is not None
    with Image.open(photo) as image:
        truth = read_gps(image)
    assert truth is not None
    assert found["exif"] == {"lat": truth.lat, "lon": truth.lon}
    assert found["error_km"] is not None  # the random model writes nothing: the best tile is the answer
    assert {"vision", "search", "total"} <= set(found["timings_ms"])
    assert found["memory_mb"]["peak_mb"] > 0
    assert found["bundle"]["precision"] == {"vision": "fp32", "trunk": "fp32", "head": "fp32"}
    told = cli(*words, "--map", tmp_path / "where.png")
    assert "EXIF says" in told.out
    assert "km from EXIF" in told.out
    assert "MB at most" in told.out
    with Image.open(tmp_path / "where.png") as picture:
        assert picture.width == 1280


def test_locate_a_description(cli: Any, tiny_bundle: Path, gallery: Path, tmp_path: Path) -> None:
    words = ("--text", "green fields", "--bundle", tiny_bundle, "--gallery", gallery)
    found = cli("locate", *words, "--json").json
    assert found["photo"] is None
    assert found["source"] == "retrieval"
    assert found["exif"] is None
    assert cli("locate", *words, "--map", tmp_path / "where.png").code == 0


def test_locate_without_arguments_takes_a_demonstration_photo(cli: Any, tiny_bundle: Path, home: Path) -> None:
    shutil.copytree(tiny_bundle, home / "bundles" / "pocket-int8")
    done = cli("locate")
    assert done.code == 0
    assert "a place no training saw" in done.out
    assert "none found" in done.out  # random weights write no answer, and none is not 0, 0
    assert "edgegeo index build" in done.err
    assert (home / "demo" / "place-00000.jpg").is_file()


def test_eval(cli: Any, roomy_bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "scores.json"
    done = cli("eval", "--bundle", roomy_bundle, "--places", 4, "-o", target, "--json")
    assert done.code == 0
    assert done.json["metrics"]["photo_to_tile_recall_at_10"]["value"] == 1.0
    assert json.loads(target.read_text())["places"] == 4
    told = cli("eval", "--bundle", roomy_bundle, "--places", 4, "--against", roomy_bundle, "--tasks", "retrieval").out
    assert "0.0 % [0.0 %, 0.0 %]" in told


def test_planet_pictures(cli: Any, home: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.jpg"
    done = cli("planet", "photo", "--place", 1, "-o", photo, "--size", 64, "--json")
    with Image.open(photo) as image:
        position = read_gps(image)
        assert image.size == (64, 64)
    assert position is not None
    assert position.lat == pytest.approx(done.json["lat"], abs=1e-6)
    assert done.json["text"]
    for verb, size in (("tile", (64, 64)), ("map", (128, 64))):
        target = tmp_path / f"{verb}.png"
        flag = ("--size", 64) if verb == "tile" else ("--width", 128)
        assert cli("planet", verb, "-o", target, *flag).code == 0
        with Image.open(target) as image:
            assert image.size == size
    assert cli("planet", "sheet", "-o", tmp_path / "sheet.png", "--count", 2).code == 0
