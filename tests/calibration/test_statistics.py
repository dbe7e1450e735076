"""Calibration files: written, read, refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgegeo.calibration import Calibration, describe_samples, open_calibration
from edgegeo.calibration.observer import Observer
from edgegeo.calibration.ranges import all_ranges
from edgegeo.calibration.sources import PlainSample
from edgegeo.calibration.statistics import SCHEMA_VERSION, CalibrationRecord, LayerRecord, write_calibration
from edgegeo.errors import InputError

ROWS = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)


@pytest.fixture
def written(tmp_path: Path) -> Calibration:
    seen = Observer(moments=True)
    seen.see(ROWS)
    with (tmp_path / "part.npz").open("wb") as stream:
        np.savez(stream, **seen.arrays())
    layer = LayerRecord("normed", seen.rows, seen.histogram.low, seen.histogram.high, dict(all_ranges(seen.histogram)))
    record = CalibrationRecord(
        SCHEMA_VERSION, "tiny", "abc", {"size": 64}, describe_samples([PlainSample("a", "words")], "all", 0), False,
        {"trunk": {"layers.0.qkv": layer}}, "", "", {},
    )  # fmt: skip
    return write_calibration(record, {"trunk/layers.0.qkv": tmp_path / "part.npz"}, tmp_path / "c.json")


def test_statistics_survive_the_disk(written: Calibration) -> None:
    one = open_calibration(written.path)["trunk"]["layers.0.qkv"]
    np.testing.assert_allclose(one.absmax, np.abs(ROWS).max(axis=0))
    np.testing.assert_allclose(one.square, (ROWS**2).mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(one.grams()[0], ROWS.T @ ROWS / 50, rtol=1e-4, atol=1e-5)
    assert written["trunk"].ranges("minmax")["layers.0.qkv"] == (float(ROWS.min()), float(ROWS.max()))
    assert written.said()["statistics_sha256"] == written.sha256
    assert written.said()["random"] is False


def test_equal_statistics_make_equal_files(written: Calibration, tmp_path: Path) -> None:
    before = written.path.read_bytes(), written.path.with_suffix(".npz").read_bytes()
    write_calibration(written.record, {"trunk/layers.0.qkv": tmp_path / "part.npz"}, written.path)
    assert before == (written.path.read_bytes(), written.path.with_suffix(".npz").read_bytes())


def test_other_weights_other_pictures_other_components(written: Calibration) -> None:
    written.require("abc", {"size": 64})
    with pytest.raises(InputError, match="other weights"):
        written.require("abd", {"size": 64})
    with pytest.raises(InputError, match="other picture settings"):
        written.require("abc", {"size": 128})
    with pytest.raises(InputError, match="says nothing about 'head'"):
        written["head"]


def test_altered_arrays_are_refused(written: Calibration) -> None:
    arrays = written.path.with_suffix(".npz")
    data = bytearray(arrays.read_bytes())
    data[200] ^= 1
    arrays.write_bytes(bytes(data))
    with pytest.raises(InputError, match="cut off or altered"):
        open_calibration(written.path)
    arrays.unlink()
    with pytest.raises(InputError, match="copy both files"):
        open_calibration(written.path)


@pytest.mark.parametrize(
    ("change", "said"), [({"schema": 9}, "version 9"), ({"arrays": "../x.npz"}, "lacks"), ({"more": 1}, "unknown key")]
)
def test_damaged_records_are_refused(written: Calibration, change: dict[str, object], said: str) -> None:
    written.path.write_text(json.dumps(json.loads(written.path.read_text()) | change))
    with pytest.raises(InputError, match=said):
        open_calibration(written.path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="edgegeo calibrate"):
        open_calibration(tmp_path / "none.json")
