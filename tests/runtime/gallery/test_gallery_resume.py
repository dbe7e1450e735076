import os
from pathlib import Path

import numpy as np
import pytest
from gallery_tiles import held, photo_list, tile, tiles

from edgegeo.errors import GalleryError, InputError
from edgegeo.exif import write_gps
from edgegeo.planet import Planet
from edgegeo.runtime import Embedder, Gallery, Row
from edgegeo.runtime.gallery import intake as intake_module
from edgegeo.runtime.gallery import segment as segment_module
from edgegeo.runtime.gallery.build import BuildReport, build_gallery
from edgegeo.runtime.gallery.edit import add_tiles
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.runtime.gallery.rows import Origin, Tiles
from edgegeo.runtime.gallery.sources import csv_list, photo_folder, planet_places

SMALL = IntakeSettings(batch=2, part_rows=2)


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder.open(tiny_bundle, threads=1)


class Stop(Exception):
    """What interrupts a build here."""


def stopped(path: Path, rows: Tiles, embedder: Embedder, after: int) -> None:
    """A build that is interrupted once so many tiles of the source were seen."""

    def stop(stage: str, done: int, total: int) -> None:
        if done >= after:
            raise Stop

    with pytest.raises(Stop):
        build_gallery(path, rows, embedder, settings=SMALL, progress=stop)


def counted(path: Path, rows: Tiles, embedder: Embedder, patch: pytest.MonkeyPatch, **how: bool) -> tuple:
    """The report of a build, and how many pictures were embedded for it, its proof included."""
    embedded = 0
    features = Embedder.features

    def counting(self: Embedder, pictures: list) -> np.ndarray:
        nonlocal embedded
        embedded += len(pictures)
        return features(self, pictures)

    patch.setattr(Embedder, "features", counting)
    report = build_gallery(path, rows, embedder, settings=SMALL, **how)
    patch.setattr(Embedder, "features", features)
    return report, embedded


def same(report: BuildReport, rows: Tiles, embedder: Embedder, place: Path) -> bool:
    """Whether a build gave what an undisturbed one gives."""
    other = build_gallery(place, rows, embedder, settings=SMALL).gallery
    return held(report.gallery) == held(other) and report.gallery.skipped == other.skipped


def test_finished_tiles_are_not_embedded_again(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = csv_list(photo_list(tmp_path / "photos", 12))
    stopped(tmp_path / "g", rows, embedder, after=8)
    report, embedded = counted(tmp_path / "g", rows, embedder, monkeypatch)
    # Of the 8 rows seen, one was broken and one a copy; of 12 tiles 6 were left, and rows 0, 1, 4 are proven.
    assert (report.resumed, report.changed, embedded) == (6, 0, 6 + 3)
    assert [tile.id for tile in report.gallery.skipped] == ["tile-1-again", "broken"]
    assert same(report, rows, embedder, tmp_path / "other")
    assert counted(tmp_path / "g", rows, embedder, monkeypatch)[1] == 12 + 3  # a finished one begins anew


def test_restart(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = csv_list(photo_list(tmp_path / "photos", 12))
    stopped(tmp_path / "g", rows, embedder, after=8)
    report, embedded = counted(tmp_path / "g", rows, embedder, monkeypatch, restart=True)
    assert (report.resumed, embedded) == (0, 15)


def test_a_changed_source(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    file = photo_list(tmp_path / "photos", 12)
    stopped(tmp_path / "g", csv_list(file), embedder, after=10)
    tile(77).save(tmp_path / "photos" / "tile-2.png")  # another picture under the old name
    lines = file.read_text().splitlines()
    lines.pop(1)  # tile-0 left the list
    lines.insert(3, "tile-11.png,4,5,early")  # and one came in the middle
    file.write_text("\n".join(lines) + "\n")
    report, _ = counted(tmp_path / "g", csv_list(file), embedder, monkeypatch)
    assert (report.resumed, report.changed) == (6, 2)
    assert same(report, csv_list(file), embedder, tmp_path / "other")
    gallery = report.gallery
    query = embedder.images([tile(77), tile(11)])
    assert gallery.search(query, 1).ids[0] == ("tile-2",)
    assert gallery.search(query, 1).ids[1] == ("early",)


def test_another_order(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    file = photo_list(tmp_path / "photos", 8)
    head, *lines = file.read_text().splitlines()
    for rows in (4, 100):  # segments that are kept whole, or copied
        for module in (intake_module, segment_module):
            monkeypatch.setattr(module, "SEGMENT_ROWS", rows)
        file.write_text("\n".join([head, *lines]))
        stopped(tmp_path / f"g{rows}", csv_list(file), embedder, after=10)
        file.write_text("\n".join([head, *lines[:1], *lines[:0:-1]]))
        report = build_gallery(tmp_path / f"g{rows}", csv_list(file), embedder, settings=SMALL)
        # Of two copies the first is kept: now that is the other one.
        assert (report.resumed, report.changed) == (7, 1)
        names = held(report.gallery).ids
        assert names == ["tile-0", "tile-7", "tile-6", "tile-5", "tile-4", "tile-1-again", "tile-3", "tile-2"]


def test_a_file_touched_counts_as_changed(tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = csv_list(photo_list(tmp_path / "photos", 12))
    stopped(tmp_path / "g", rows, embedder, after=8)
    os.utime(tmp_path / "photos" / "tile-0.png", (1, 1))
    report, _ = counted(tmp_path / "g", rows, embedder, monkeypatch)
    assert (report.resumed, report.changed) == (5, 1)


def test_another_source_or_bundle_is_named(tmp_path: Path, embedder: Embedder, other_tiny_bundle: Path) -> None:
    rows = csv_list(photo_list(tmp_path / "photos", 12))
    stopped(tmp_path / "g", rows, embedder, after=8)
    with pytest.raises(GalleryError, match=r"not finished.*same edgegeo index build"):
        Gallery.open(tmp_path / "g")
    second = csv_list(photo_list(tmp_path / "photos", 4, first=20))
    with pytest.raises(GalleryError, match=r"unfinished work with .*list-0\.csv.*--restart"):
        build_gallery(tmp_path / "g", second, embedder)
    with pytest.raises(GalleryError, match="unfinished work with bundle 'tiny', which embeds differently"):
        build_gallery(tmp_path / "g", rows, Embedder.open(other_tiny_bundle, threads=1))
    with pytest.raises(GalleryError, match="unfinished work with float32"):
        build_gallery(tmp_path / "g", rows, embedder, dtype="float16")
    assert build_gallery(tmp_path / "g", rows, embedder).resumed == 6


def test_a_standing_gallery_stays_until_the_new_one_is_whole(tmp_path: Path, embedder: Embedder) -> None:
    Gallery.build(tmp_path / "g", tiles(3), embedder)
    rows = csv_list(photo_list(tmp_path / "photos", 12))
    stopped(tmp_path / "g", rows, embedder, after=8)
    assert (len(Gallery.open(tmp_path / "g")), Gallery.open(tmp_path / "g").version) == (3, 1)
    # Tiles sent by someone else go in between, and leave the unfinished work alone.
    add_tiles(tmp_path / "g", tiles(1, first=50), embedder)
    report = build_gallery(tmp_path / "g", rows, embedder, settings=SMALL)
    assert (len(report.gallery), report.gallery.version, report.resumed) == (12, 3, 6)


def test_a_journal_that_was_not_removed(tmp_path: Path, embedder: Embedder) -> None:
    """Killed between the new version and the removal of what led to it."""
    Gallery.build(tmp_path / "g", tiles(3), embedder)
    rows = csv_list(photo_list(tmp_path / "photos", 4, first=10))
    stopped_at: list[bytes] = []
    journal = tmp_path / "g" / "unfinished.json"

    def keep(stage: str, done: int, total: int) -> None:
        if stage == "check":
            stopped_at.append(journal.read_bytes())

    assert add_tiles(tmp_path / "g", rows, embedder, settings=SMALL, progress=keep).added == 4
    assert not journal.exists()
    journal.write_bytes(stopped_at[0])
    add_tiles(tmp_path / "g", tiles(1, first=50), embedder)
    assert not journal.exists()
    journal.write_bytes(stopped_at[0])
    assert add_tiles(tmp_path / "g", csv_list(photo_list(tmp_path / "more", 5, first=20)), embedder).added == 5


def test_a_bad_row_keeps_what_was_finished(tmp_path: Path, embedder: Embedder) -> None:
    file = photo_list(tmp_path / "photos", 12)
    good = file.read_text()
    file.write_text(good.replace("tile-10.png,-9.5", "tile-10.png,-95"))
    with pytest.raises(InputError, match="line 14: latitude"):
        build_gallery(tmp_path / "g", csv_list(file), embedder, settings=SMALL)
    file.write_text(good)
    assert build_gallery(tmp_path / "g", csv_list(file), embedder, settings=SMALL).resumed > 4


def test_the_planet_resumes_without_drawing(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(tmp_path / "g", planet_places(Planet(), n=6, size=64), embedder, after=4)
    drawn: list[float] = []
    draw = Planet.satellite
    monkeypatch.setattr(Planet, "satellite", lambda self, *a, **k: drawn.append(a[0]) or draw(self, *a, **k))
    report = build_gallery(tmp_path / "g", planet_places(Planet(), n=6, size=64), embedder, settings=SMALL)
    assert report.resumed == 4
    assert len(drawn) == 2 + 2  # two were left, and rows 0 and 1 are proven
    assert report.gallery.sources == (Origin("planet", seed=Planet().seed, split="test", view="satellite"),)
    assert Gallery.open(tmp_path / "g").sources == report.gallery.sources


def test_duplicates(tmp_path: Path, embedder: Embedder) -> None:
    for name, lat in (("a.jpg", 1.0), ("copy.jpg", 1.0), ("elsewhere.jpg", 2.0)):
        picture = tile(1)
        exif = picture.getexif()
        write_gps(exif, lat, 2.0)
        picture.save(tmp_path / name, exif=exif)
    (tmp_path / "copy.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    rows = [("x", 5.0, 5.0, tile(2)), ("y", 5.0, 5.0, tile(2)), ("z", 6.0, 5.0, tile(2))]
    for how, ids, skipped in (
        ("skip", ["x", "z"], ["y"]),
        ("skip-anywhere", ["x"], ["y", "z"]),
        ("keep", ["x", "y", "z"], []),
    ):
        gallery = build_gallery(tmp_path / how, rows, embedder, settings=IntakeSettings(duplicates=how)).gallery
        assert (held(gallery).ids, [tile.id for tile in gallery.skipped]) == (ids, skipped)
        assert all("the same picture as 'x'" in tile.reason for tile in gallery.skipped)
    folder = build_gallery(tmp_path / "folder", photo_folder(tmp_path), embedder).gallery
    assert held(folder).ids == ["a.jpg", "elsewhere.jpg"]
    assert folder.skipped[0].id == "copy.jpg"
    with pytest.raises(InputError, match="skip, skip-anywhere, keep, not 'hide'"):
        IntakeSettings(duplicates="hide")


def test_large_builds_make_few_segments_and_little_rubbish(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Gallery.build(tmp_path / "whole", tiles(31), embedder, batch=2)
    for module in (intake_module, segment_module):
        monkeypatch.setattr(module, "SEGMENT_ROWS", 8)
    counts = []

    def count(stage: str, done: int, total: int) -> None:
        counts.append(len(list((tmp_path / "g" / "segments").iterdir())) if stage == "tiles" and done > 2 else 0)

    source = Tiles(Origin("rows", "test"), lambda: iter(tiles(31)), 31)
    gallery = build_gallery(tmp_path / "g", source, embedder, settings=SMALL, progress=count).gallery
    assert [segment.rows for segment in gallery.info.segments] == [8, 8, 8, 7]
    assert max(counts) <= 7
    assert held(gallery) == held(whole)
    rows = [Row("last", 0.0, 0.0, tile(99))]
    add_tiles(tmp_path / "g", rows, embedder)
    assert Gallery.open(tmp_path / "g").row("last") == 31
