import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gallery_tiles import held, tile, tiles

from edgegeo.errors import GalleryBusyError, GalleryError, InputError
from edgegeo.runtime import Embedder, Gallery, Row
from edgegeo.runtime.gallery import build as build_module
from edgegeo.runtime.gallery import writing as writing_module
from edgegeo.runtime.gallery.compact import Layout, compact
from edgegeo.runtime.gallery.edit import add_tiles, delete_tiles, ids_within
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.runtime.gallery.region import Circle
from edgegeo.runtime.gallery.writing import writing


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder.open(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def template(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Gallery.build(tmp_path_factory.mktemp("galleries") / "g", tiles(12), embedder).path


@pytest.fixture
def path(template: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template, tmp_path / "g"))


def test_added_tiles_are_found_and_open_galleries_stay(path: Path, embedder: Embedder) -> None:
    old = Gallery.open(path)
    report = add_tiles(path, [*tiles(5, first=12), ("broken", 1, 2, b"junk")], embedder)
    assert (report.added, report.replaced, report.version) == (5, 0, 2)
    assert [tile.id for tile in report.skipped] == ["broken"]
    assert (len(old), old.version) == (12, 1)
    new = old.newest()
    assert (len(new), new.version) == (17, 2)
    hits = new.search(embedder.images([tile(i) for i in range(17)]), 1)
    assert hits.rows[:, 0].tolist() == list(range(17))
    assert [new.row(f"tile-{i}") for i in (0, 12, 16)] == [0, 12, 16]
    assert new.positions[16].tolist() == [16 / 20 - 10, 0.3 * 16 - 100]
    assert old.newest().stack.segments[0] is old.stack.segments[0]
    assert new.newest() is new


def test_one_at_a_time_is_the_same_and_leaves_few_segments(path: Path, embedder: Embedder, tmp_path: Path) -> None:
    for number in range(12, 30):
        add_tiles(path, tiles(1, first=number), embedder)
    gallery = Gallery.open(path)
    assert gallery.version == 19
    assert len(gallery.info.segments) <= 6
    whole = Gallery.build(tmp_path / "whole", tiles(30), embedder)
    assert held(gallery)[:2] == held(whole)[:2]
    np.testing.assert_allclose([gallery.vector(i) for i in range(30)], [whole.vector(i) for i in range(30)], atol=1e-6)


def test_an_id_that_exists(path: Path, embedder: Embedder) -> None:
    before = held(Gallery.open(path))
    rows = [*tiles(2, first=20), Row("tile-3", 5.0, 6.0, tile(99))]
    with pytest.raises(InputError, match=r"row 2 \(id 'tile-3'\): the gallery has a tile of this id"):
        add_tiles(path, rows, embedder)
    assert held(Gallery.open(path)) == before
    report = add_tiles(path, rows, embedder, replace=True)
    assert (report.added, report.replaced) == (3, 1)
    gallery = Gallery.open(path)
    assert len(gallery) == 14
    assert gallery.row("tile-3") == 13
    assert gallery.position(13).lat == 5.0
    assert gallery.row("tile-4") == 3
    query = embedder.images([tile(99), tile(3)])
    assert gallery.search(query, 1).ids[0] == ("tile-3",)
    assert gallery.search(query, 14).scores[1].max() < 0.9999  # the picture that was replaced


def test_a_picture_that_the_gallery_has(path: Path, embedder: Embedder) -> None:
    known = tiles(1, first=4)[0]
    add_tiles(path, tiles(2, first=12), embedder)
    rows = [
        Row("same", known.lat, known.lon, known.image),
        Row("elsewhere", 1.0, 2.0, known.image),
        Row("new", *tiles(1, first=13)[0][1:]),
    ]
    report = add_tiles(path, rows, embedder)
    assert [(tile.id, tile.reason) for tile in report.skipped] == [
        ("same", "is the same picture as 'tile-4'"),
        ("new", "is the same picture as 'tile-13'"),
    ]
    assert add_tiles(path, [known], embedder, replace=True).replaced == 1
    delete_tiles(path, ["tile-4"])
    assert add_tiles(path, rows[:1], embedder).added == 1
    assert add_tiles(path, rows[2:], embedder, settings=IntakeSettings(duplicates="keep")).added == 1


def test_deleted_tiles_are_gone(path: Path, embedder: Embedder) -> None:
    old = Gallery.open(path)
    assert delete_tiles(path, ["tile-0", "tile-7", "tile-11", "unknown"]) == 3
    assert delete_tiles(path, ["unknown"]) == 0
    gallery = Gallery.open(path)
    names = [f"tile-{i}" for i in (1, 2, 3, 4, 5, 6, 8, 9, 10)]
    assert (gallery.version, len(gallery)) == (2, 9)
    assert held(gallery).ids == names
    assert gallery.row("tile-7") is None
    hits = gallery.search(embedder.images([tile(i) for i in range(12)]), 20)
    assert hits.rows.shape == (12, 9)
    assert {id for line in hits.ids for id in line} == set(names)
    for line, rows, places in zip(hits.ids, hits.rows, hits.positions, strict=True):
        assert [gallery.id(int(row)) for row in rows] == list(line)
        np.testing.assert_array_equal(gallery.positions[rows], places)
    assert gallery.thumbnail(0) == old.thumbnail(1)
    with pytest.raises(IndexError):
        gallery.id(9)
    assert len(old) == len(held(old).ids) == 12
    with pytest.raises(GalleryError, match="leave nothing"):
        delete_tiles(path, names)


def test_deleted_rows_of_merged_segments(path: Path, embedder: Embedder) -> None:
    add_tiles(path, tiles(2, first=12), embedder)
    delete_tiles(path, ["tile-5", "tile-12"])
    add_tiles(path, tiles(2, first=14), embedder)
    gallery = Gallery.open(path)
    assert ([segment.rows for segment in gallery.info.segments], gallery.deleted.tolist()) == ([12, 3], [5])
    names = [f"tile-{i}" for i in range(16) if i not in (5, 12)]
    assert held(gallery).ids == names
    assert gallery.search(embedder.images([tile(i) for i in (13, 14, 15)]), 1).rows[:, 0].tolist() == [11, 12, 13]


def same_tiles(one: Gallery, other: Gallery) -> bool:
    """Whether two galleries hold the same tiles, in whatever order."""

    def lines(gallery: Gallery) -> list[tuple[object, ...]]:
        whole = held(gallery)
        vectors = [gallery.vector(row).tobytes() for row in range(len(gallery))]
        return sorted(zip(whole.ids, map(tuple, gallery.positions), whole.thumbs, vectors, strict=True))

    return lines(one) == lines(other)


def test_tiles_around_a_point(path: Path) -> None:
    gallery = Gallery.open(path)
    assert ids_within(gallery, Circle(-9.8, -98.8, 1.0)) == ["tile-4"]
    assert ids_within(gallery, Circle(-9.8, -98.8, 40.0)) == ["tile-3", "tile-4", "tile-5"]


def test_compacting_changes_only_the_order(path: Path, embedder: Embedder) -> None:
    add_tiles(path, tiles(3, first=12), embedder)
    add_tiles(path, tiles(1, first=15), embedder)
    delete_tiles(path, ["tile-2", "tile-13"])
    old = Gallery.open(path)
    before = held(old)
    assert compact(path) == 5
    gallery = Gallery.open(path)
    assert same_tiles(gallery, old)
    assert (len(gallery.info.segments), gallery.info.stored) == (1, 14)
    assert sorted(p.name for p in path.iterdir()) == ["gallery.json", "lock", "segments"]
    assert len(list((path / "segments").iterdir())) == 1
    assert held(old) == before  # its files are gone, its memory maps are not
    assert compact(path) == 5


def test_additions_leave_codes_alone(path: Path, embedder: Embedder) -> None:
    compact(path, Layout("int8"))
    add_tiles(path, tiles(30, first=12), embedder)
    gallery = Gallery.open(path)
    assert [[stage.kind for stage in entry.stages] for entry in gallery.info.segments] == [["int8"], []]
    assert gallery.search(embedder.images([tile(3), tile(33)]), 1).ids == (("tile-3",), ("tile-33",))
    compact(path)
    gallery = Gallery.open(path)
    assert [[stage.kind for stage in entry.stages] for entry in gallery.info.segments] == [["int8"]]
    assert len(gallery) == 42


def test_damage_is_not_copied_under_a_new_hash(path: Path, embedder: Embedder) -> None:
    file = next((path / "segments").iterdir()) / "vectors.npy"
    data = bytearray(file.read_bytes())
    data[-5] ^= 4
    delete_tiles(path, ["tile-1"])
    file.write_bytes(data)
    with pytest.raises(GalleryError, match="differ from their checksum"):
        compact(path)
    with pytest.raises(GalleryError, match="differ from their checksum"):
        add_tiles(path, tiles(12, first=12), embedder)  # large enough to take the damaged segment in
    with pytest.raises(GalleryError, match="recorded hash"):
        Gallery.open(path, check_hashes=True)


def test_one_writer(path: Path, embedder: Embedder) -> None:
    with writing(path):
        for change in (
            lambda: add_tiles(path, tiles(1, first=12), embedder),
            lambda: delete_tiles(path, ["tile-1"]),
            lambda: compact(path),
            lambda: Gallery.build(path, tiles(2), embedder),
        ):
            with pytest.raises(GalleryBusyError, match="another process is writing"):
                change()
        assert len(Gallery.open(path)) == 12
    assert delete_tiles(path, ["tile-1"]) == 1


def test_the_wrong_bundle_and_no_gallery(path: Path, other_tiny_bundle: Path, embedder: Embedder) -> None:
    other = Embedder.open(other_tiny_bundle, threads=1)
    with pytest.raises(GalleryError, match="made with bundle 'tiny'"):
        add_tiles(path, tiles(1, first=12), other)
    for change in (lambda: add_tiles(path / "x", tiles(1), embedder), lambda: compact(path / "x")):
        with pytest.raises(GalleryError, match="no gallery at"):
            change()
    assert not (path / "x").exists()


def test_a_full_disk_loses_nothing(path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = held(Gallery.open(path))
    sync = os.fsync
    for allowed in range(25):
        left = [allowed]

        def failing(file: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device")
            sync(file)

        monkeypatch.setattr(os, "fsync", failing)
        try:
            add_tiles(path, tiles(3, first=12), embedder)
            break
        except GalleryError as error:
            assert "No space left on device" in str(error)  # noqa: PT017
        finally:
            monkeypatch.setattr(os, "fsync", sync)
        if Gallery.open(path).version > 1:
            break  # the disk was full after the version stood
        assert held(Gallery.open(path)) == before
    assert allowed > 8
    assert len(Gallery.open(path)) == 15


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written(path: Path, embedder: Embedder) -> None:
    path.chmod(0o500)
    with pytest.raises(GalleryError, match="can't write to"):
        delete_tiles(path, ["tile-1"])
    path.chmod(0o700)


def test_a_mix_up_is_caught(path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    features = Embedder.features
    monkeypatch.setattr(Embedder, "features", lambda self, x: features(self, x)[::-1].copy())
    with pytest.raises(GalleryError, match="does not find itself"):
        add_tiles(path, tiles(8, first=12), embedder)
    assert len(Gallery.open(path)) == 12


def test_readers_see_whole_versions(path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {1: held(Gallery.open(path))}
    commit = writing_module.commit

    def noting(folder: Path, info: object, before: object) -> None:
        versions[info.version] = held(build_module.open_version(folder, info, {}))  # type: ignore[attr-defined]
        commit(folder, info, before)  # type: ignore[arg-type]

    monkeypatch.setattr("edgegeo.runtime.gallery.edit.commit", noting)
    monkeypatch.setattr("edgegeo.runtime.gallery.build.commit", noting)
    monkeypatch.setattr("edgegeo.runtime.gallery.compact.commit", noting)
    seen: list[tuple[int, object]] = []
    faults: list[BaseException] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            try:
                gallery = Gallery.open(path)
                seen.append((gallery.version, held(gallery)))
            except BaseException as error:
                faults.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(12, 18):
        add_tiles(path, tiles(1, first=number), embedder)
        delete_tiles(path, [f"tile-{number - 12}"])
        compact(path)
    done.set()
    reader.join()
    assert faults == []
    assert len({version for version, _ in seen}) > 2
    assert all(found == versions[version] for version, found in seen)


def test_a_failure_leaves_no_rubbish(path: Path, embedder: Embedder) -> None:
    def failing() -> Iterator[Row]:
        yield from tiles(6, first=12)
        raise OSError(5, "Input/output error")

    before = sorted(path.rglob("*"))
    for change in (add_tiles, build_module.build_gallery):
        with pytest.raises(GalleryError, match="Input/output error"):
            change(path, failing(), embedder, settings=IntakeSettings(batch=2, part_rows=2))
        assert sorted(path.rglob("*")) == before
