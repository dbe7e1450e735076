"""edgegeo calibrate at the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sealing import seal

from edgegeo.bundle import MANIFEST_NAME
from edgegeo.calibration import open_calibration, read_manifest


def test_a_bundle_is_calibrated_on_photos(tiny_bundle: Path, cli: Any, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        Image.new("RGB", (48, 40), "green").save(tmp_path / f"{name}.jpg")
    out = tmp_path / "c.json"
    made = cli("calibrate", tiny_bundle, "--photos", tmp_path, "--samples", 2, "--licence", "mine", "-o", out,
               "--save-manifest", tmp_path / "m.json", "--json")  # fmt: skip
    assert made.code == 0, made.err
    found = open_calibration(out)
    assert made.json["sha256"] == found.sha256
    assert (found.record.samples.count, found.record.samples.licence, found.record.random) == (2, "mine", False)
    assert read_manifest(tmp_path / "m.json") == found.record.samples
    assert found["trunk"]["layers.0.key"].record.rows > 0
    assert not out.with_suffix(".work").exists()
    again = cli(
        "calibrate", tiny_bundle, "--photos", tmp_path, "--samples", 2, "-o", out, "--manifest", tmp_path / "m.json"
    )
    assert again.code == 0, again.err
    assert "2 samples" in again.out
    other = cli(
        "calibrate", tiny_bundle, "--photos", tmp_path, "--samples", 3, "-o", out, "--manifest", tmp_path / "m.json"
    )
    assert "differ from the manifest" in other.refused()


def test_noise_says_so(tiny_bundle: Path, cli: Any, tmp_path: Path) -> None:
    made = cli("calibrate", tiny_bundle, "--random", "--samples", 1, "--moments", "none", "-o", tmp_path / "r.json")
    assert made.code == 0, made.err
    assert "these samples are noise" in made.out
    assert open_calibration(tmp_path / "r.json").said()["random"] is True
    assert open_calibration(tmp_path / "r.json")["trunk"]["l0.qkvw"].grams() == []


def test_faults_are_told_before_any_work(tiny_bundle: Path, cli: Any, tmp_path: Path) -> None:
    assert "name one of" in cli("calibrate", "--photos", tmp_path, "--random").refused()
    assert "no folder" in cli("calibrate", tiny_bundle, "--photos", tmp_path / "none").refused()
    for words in (("--data-root", tmp_path), ("--split", "train"), ("--option", "a=1"), ("--licence", "CC0")):
        assert f"{words[0]} only works with" in cli("calibrate", tiny_bundle, *words).refused()
    assert ".json" in cli("calibrate", tiny_bundle, "--random", "-o", tmp_path / "c.npz").refused()
    (tmp_path / "file").write_text("")
    for flag in ("-o", "--save-manifest"):
        words = ("--random", "--samples", 1, flag, tmp_path / "file" / "c.json")
        assert "can't write" in cli("calibrate", tiny_bundle, *words).refused()
    (tmp_path / "mine.work").mkdir()
    (tmp_path / "mine.work" / "thesis.txt").write_text("years of work")
    kept = cli("calibrate", tiny_bundle, "--random", "--samples", 1, "-o", tmp_path / "mine.json").refused()
    assert "mine.work is where a calibration keeps its state" in kept
    assert (tmp_path / "mine.work" / "thesis.txt").read_text() == "years of work"
    assert "leave those flags out" in cli("calibrate", tiny_bundle, "--random", "--method", "slq").refused()
    assert "--moments takes some of" in cli("calibrate", tiny_bundle, "--moments", "all").refused()


def test_a_quantised_bundle_is_refused(tiny_bundle: Path, cli: Any, tmp_path: Path) -> None:
    import shutil

    place = tmp_path / "int8"
    shutil.copytree(tiny_bundle, place)
    manifest = json.loads((place / MANIFEST_NAME).read_text())
    manifest["components"]["trunk"]["precision"] = "int8"
    seal(place, manifest)
    assert "ranges are taken from float graphs" in cli("calibrate", place, "--random", "--samples", 1).refused()


@pytest.mark.parametrize("words", [("--calibration", "none.json")])
def test_an_export_without_its_calibration_file(cli: Any, words: tuple[str, ...]) -> None:
    assert "make one with edgegeo calibrate" in cli("export", "--int8", *words).refused()
