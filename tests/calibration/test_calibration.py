"""Sample manifests."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgegeo.calibration import check_samples, describe_samples, read_manifest, write_manifest
from edgegeo.errors import InputError


@dataclass(frozen=True)
class Sample:
    id: str
    text: str
    photo: bytes
    tile: bytes


SAMPLES = [Sample("a", "a field", b"1", b"2"), Sample("b", "a river", b"3", b"4")]


def test_manifest_survives_the_disk(tmp_path: Path) -> None:
    manifest = describe_samples(SAMPLES, "validation", 7)
    write_manifest(manifest, tmp_path / "m.json")
    assert read_manifest(tmp_path / "m.json") == manifest
    check_samples(manifest, SAMPLES)


def test_altered_sample_is_named() -> None:
    manifest = describe_samples(SAMPLES, "validation", 7)
    with pytest.raises(InputError, match=r"1 of 2 .* first is b"):
        check_samples(manifest, [SAMPLES[0], Sample("b", "a river", b"3", b"5")])


def test_bytes_that_move_between_fields_change_the_hash() -> None:
    one, two = Sample("a", "", b"12", b"3"), Sample("a", "", b"1", b"23")
    assert describe_samples([one], "test", 0).sha256 != describe_samples([two], "test", 0).sha256


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": 1}'])
def test_damaged_manifest(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(InputError, match=r"m\.json"):
        read_manifest(tmp_path / "m.json")


def test_missing_manifest_and_no_samples(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="can't be read"):
        read_manifest(tmp_path / "none.json")
    with pytest.raises(InputError, match="at least one sample"):
        describe_samples([], "validation", 0)
