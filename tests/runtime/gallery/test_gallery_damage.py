"""Every flipped byte and every truncation of every file of a gallery is found before the file is parsed."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery_tiles import everything, photo_list, tiles

from edgegeo.errors import GalleryError
from edgegeo.runtime import Embedder, Gallery
from edgegeo.runtime.gallery.build import build_gallery
from edgegeo.runtime.gallery.compact import Layout, compact
from edgegeo.runtime.gallery.edit import add_tiles, delete_tiles
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.runtime.gallery.manifest import read_info, read_journal
from edgegeo.runtime.gallery.sources import csv_list


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder.open(tiny_bundle, threads=1)


@pytest.fixture
def gallery(embedder: Embedder, tmp_path: Path) -> Path:
    """Two segments, deleted rows, and an unfinished addition."""
    path = Gallery.build(tmp_path / "g", tiles(9), embedder).path
    add_tiles(path, tiles(2, first=9), embedder)
    delete_tiles(path, ["tile-3", "tile-10"])
    broken_off(path, photo_list(tmp_path / "photos", 6, first=30), embedder)
    return path


def broken_off(path: Path, source: Path, embedder: Embedder) -> None:
    """An addition that stops when nearly everything is embedded."""

    def stop(stage: str, done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        add_tiles(path, csv_list(source), embedder, settings=IntakeSettings(batch=2, part_rows=2), progress=stop)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was parsed: paths given to numpy, and texts given to json."""
    seen: list[object] = []
    load, loads = np.load, json.loads

    def noted(call: Any) -> Any:
        def noting(what: Any, *args: Any, **options: Any) -> Any:
            seen.append(Path(what) if isinstance(what, (str, Path)) else what)
            return call(what, *args, **options)

        return noting

    monkeypatch.setattr(np, "load", noted(load))
    monkeypatch.setattr(json, "loads", noted(loads))
    return seen


def damages(data: bytes, flips: int, cuts: int, rng: random.Random) -> Iterator[bytes]:
    for at in rng.sample(range(len(data)), min(flips, len(data))):
        yield data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    for length in rng.sample(range(len(data)), min(cuts, len(data))):
        yield data[:length]
    yield data + b"\0"


def damage_everything(path: Path, parsed: list[object], flips: int, cuts: int, seed: int) -> int:
    """Damage every file in turn, open the gallery and read all of it; the number of damages that were found."""
    rng = random.Random(seed)
    journal = read_journal(path)
    unpublished = {segment.name for segment in journal.segments} if journal else set()
    tried = 0
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name != "lock"):
        if file.parent.name in unpublished:
            continue
        data = file.read_bytes()
        for damaged in damages(data, flips, cuts, rng):
            file.write_bytes(damaged)
            parsed.clear()
            with pytest.raises(GalleryError):
                read_journal(path) if file.name == "unfinished.json" else everything(Gallery.open(path))
            assert file not in parsed
            assert not file.name.endswith(".json") or parsed == []
            tried += 1
        file.write_bytes(data)
    assert len(Gallery.open(path)) == 9
    return tried


def test_damage_is_found_before_anything_is_parsed(gallery: Path, parsed: list[object]) -> None:
    assert damage_everything(gallery, parsed, flips=6, cuts=3, seed=0) > 100


def test_every_bit_of_the_heads_of_the_manifests(gallery: Path) -> None:
    for name, read in (("gallery.json", read_info), ("unfinished.json", read_journal)):
        file = gallery / name
        data = file.read_bytes()
        for bit in range(8 * 24):
            at = bit // 8
            file.write_bytes(data[:at] + bytes([data[at] ^ (1 << bit % 8)]) + data[at + 1 :])
            with pytest.raises(GalleryError):
                read(gallery)
        file.write_bytes(data)
        assert read(gallery) is not None


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_much_damage_is_found_before_anything_is_parsed(gallery: Path, parsed: list[object]) -> None:
    assert damage_everything(gallery, parsed, flips=1500, cuts=300, seed=1) > 10_000


@pytest.fixture
def coded(embedder: Embedder, tmp_path: Path) -> Path:
    """One segment with codes and lists."""
    path = Gallery.build(tmp_path / "coded", tiles(9), embedder).path
    compact(path, Layout("binary", approximate=True))
    return path


def test_damaged_codes_and_lists_are_found(coded: Path, parsed: list[object]) -> None:
    assert damage_everything(coded, parsed, flips=6, cuts=3, seed=2) > 120


def test_what_a_damaged_block_does_not_touch_is_still_read(coded: Path) -> None:
    whole = Gallery.open(coded)
    file = next((coded / "segments").iterdir()) / "thumbs.bin"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    gallery = Gallery.open(coded)
    np.testing.assert_array_equal(
        gallery.search(gallery.vector(3)[None], 2).rows, whole.search(whole.vector(3), 2).rows
    )
    with pytest.raises(GalleryError, match=r"thumbs.bin is damaged \(bytes"):
        gallery.thumbnail(8)
    with pytest.raises(GalleryError, match="recorded hash"):
        Gallery.open(coded, check_hashes=True)


def test_a_damaged_part_of_unfinished_work_is_embedded_again(gallery: Path, embedder: Embedder, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(gallery, tmp_path / "whole"))
    source, settings = csv_list(tmp_path / "photos" / "list-30.csv"), IntakeSettings(batch=2, part_rows=2)
    expected = add_tiles(whole, source, embedder, settings=settings)
    journal = read_journal(gallery)
    assert journal is not None
    assert expected.resumed == sum(segment.rows for segment in journal.segments) == 4
    file = gallery / "segments" / journal.segments[0].name / "vectors.npy"
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    report = add_tiles(gallery, source, embedder, settings=settings)
    assert (report.added, report.resumed) == (expected.added, 2)
    first, second = Gallery.open(gallery), Gallery.open(whole)
    assert [first.id(row) for row in range(15)] == [second.id(row) for row in range(15)]
    np.testing.assert_array_equal([first.vector(r) for r in range(15)], [second.vector(r) for r in range(15)])


def test_a_damaged_journal_is_named(gallery: Path, embedder: Embedder, tmp_path: Path) -> None:
    (gallery / "unfinished.json").write_text("{")
    source = csv_list(tmp_path / "photos" / "list-30.csv")
    with pytest.raises(GalleryError, match=r"unfinished\.json is damaged.*--restart"):
        add_tiles(gallery, source, embedder)
    assert delete_tiles(gallery, ["tile-1"]) == 1
    assert add_tiles(gallery, source, embedder, restart=True).added == 6
    assert not (gallery / "unfinished.json").exists()
    with pytest.raises(GalleryError, match="not finished"):
        build_stopped(tmp_path / "new", tmp_path / "photos" / "list-30.csv", embedder)


def build_stopped(path: Path, source: Path, embedder: Embedder) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_gallery(path, csv_list(source), embedder, settings=IntakeSettings(batch=2, part_rows=2), progress=stop)
    Gallery.open(path)
