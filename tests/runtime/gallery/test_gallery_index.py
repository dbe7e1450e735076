"""Galleries with codes and lists: what searches find by them, and in a region, next to looking at every row."""

from pathlib import Path

import numpy as np
import pytest

from edgegeo.errors import GalleryError, InputError
from edgegeo.runtime import Gallery
from edgegeo.runtime.gallery import coded
from edgegeo.runtime.gallery import search as search_module
from edgegeo.runtime.gallery.compact import Layout, codes_of, compact, scanned_bytes
from edgegeo.runtime.gallery.edit import delete_tiles
from edgegeo.runtime.gallery.exact import exact_search
from edgegeo.runtime.gallery.inverted import Inverted
from edgegeo.runtime.gallery.manifest import GalleryInfo
from edgegeo.runtime.gallery.region import Box, Circle, Region
from edgegeo.runtime.gallery.segment import Block, write_segment
from edgegeo.runtime.gallery.writing import commit, write_deleted, writing

ROWS, DIM = 6000, 64


def clustered(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(60, DIM))
    vectors = centres[rng.integers(0, 60, count)] + 0.7 * rng.normal(size=(count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def rows_of(vectors: np.ndarray, positions: np.ndarray, first: int, start: int, end: int) -> Block:
    names = [f"t{first + row}".encode() for row in range(start, end)]
    return Block(names, positions[start:end], vectors[start:end], names, np.zeros((end - start, 32), np.uint8))


def made(path: Path, vectors: np.ndarray, positions: np.ndarray, parts: int = 2) -> Path:
    """A gallery of given vectors, in several segments."""
    with writing(path, create=True):
        entries, done = [], 0
        for part, where in zip(np.array_split(vectors, parts), np.array_split(positions, parts), strict=True):
            first = done
            entries.append(
                write_segment(path, len(part), lambda a, b, p=part, w=where, f=first: rows_of(p, w, f, a, b))
            )
            done += len(part)
        commit(path, GalleryInfo(1, "b", "e", DIM, "float32", (), (), tuple(entries)), None)
    return path


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    rng = np.random.default_rng(5)
    towns = rng.uniform([-60, -180], [60, 180], (30, 2))
    return towns[rng.integers(0, 30, ROWS)] + rng.normal(0, 0.5, (ROWS, 2)).clip(-1, 1) * [1, 0]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, places: np.ndarray) -> Path:
    vectors = clustered(ROWS, 0)
    vectors[[10, 3000, 5999]] = vectors[10]
    return made(tmp_path_factory.mktemp("index") / "g", vectors, places)


@pytest.fixture(scope="module", params=["float16", "int8", "binary", "ivf", "ivf over int8"])
def compacted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, places: np.ndarray) -> Path:
    path = made(tmp_path_factory.mktemp("index") / "g", clustered(ROWS, 0), places)
    approximate = request.param.startswith("ivf")
    compact(path, Layout({"ivf": "binary", "ivf over int8": "int8"}.get(request.param, request.param), approximate))
    return path


@pytest.fixture
def no_exact_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "EXACT_ROWS", 0)


def found(gallery: Gallery, queries: np.ndarray, **how: object) -> list[set[str]]:
    return [set(ids) for ids in gallery.search(queries, 10, **how).ids]  # type: ignore[arg-type]


def recall(one: list[set[str]], other: list[set[str]]) -> float:
    return float(np.mean([len(a & b) / len(b) for a, b in zip(one, other, strict=True)]))


@pytest.mark.usefixtures("no_exact_rows")
@pytest.mark.parametrize("region", [None, Circle(0, 0, 6000), Box(-60, 150, 60, -120)], ids=str)
def test_nearly_all_of_the_nearest_are_found(compacted: Path, template: Path, region: object) -> None:
    queries = clustered(200, 7)
    truth = found(Gallery.open(template), queries, within=region)
    gallery = Gallery.open(compacted)
    assert recall(found(gallery, queries, within=region), truth) >= 0.98
    for index in (0, 5):  # one query takes other kernels than a batch
        assert recall(found(gallery, queries[index], within=region), truth[index : index + 1]) >= 0.8
    for stage in gallery.info.segments[0].stages:
        assert stage.recall >= 0.99


@pytest.mark.usefixtures("no_exact_rows")
@pytest.mark.parametrize("region", [Circle(0, 0, 6000), Box(-60, 150, 60, -120), Circle(12, 34, 4000)], ids=str)
def test_lists_filtered_by_a_region(
    compacted: Path, template: Path, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "FILTERED_ROWS", 1)
    monkeypatch.setattr(search_module, "_FEW_PLACES", 64)
    asked: list[int] = []
    nearest = Inverted.nearest
    monkeypatch.setattr(Inverted, "nearest", lambda self, *how: asked.append(how[1]) or nearest(self, *how))
    queries, whole, gallery = clustered(200, 7), Gallery.open(template), Gallery.open(compacted)
    assert recall(found(gallery, queries, within=region), found(whole, queries, within=region)) >= 0.98
    inside = int(region.holds(whole.positions).sum())
    assert 50 < inside < len(whole)
    # Of the smallest region the few places that are looked at tell too little: its rows are counted and compared.
    assert bool(asked) == (inside > 500 and "ivf" in [stage.kind for stage in gallery.info.segments[0].stages])
    every = gallery.search(queries[:2], len(whole), region)
    assert every.rows.shape == (2, inside)
    assert all(region.holds(positions).all() for positions in every.positions)
    assert len({*every.ids[0]}) == inside


@pytest.mark.usefixtures("no_exact_rows")
def test_deleted_rows_are_never_found(compacted: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, queries = Gallery.open(compacted), clustered(20, 8)
    gone = {id for line in found(gallery, queries) for id in line}
    deleted = np.array(sorted(gallery.row(id) for id in gone))  # type: ignore[type-var]
    entry = write_deleted(compacted, deleted, 9)
    info = gallery.info.__class__(**{**vars(gallery.info), "deleted": entry})
    from edgegeo.runtime.gallery.gallery import open_version

    left = open_version(compacted, info, {})
    for region, filtered in ((None, 1 << 16), (Circle(0, 0, 15_000), 1 << 16), (Circle(0, 0, 15_000), 1)):
        monkeypatch.setattr(search_module, "FILTERED_ROWS", filtered)
        again = found(left, queries, within=region)
        assert all(len(line) == 10 and not line & gone for line in again)


def test_everything_but_the_order_stays(compacted: Path, template: Path) -> None:
    old, new = Gallery.open(template), Gallery.open(compacted)
    for id in ("t0", "t77", "t5999"):
        one, other = old.row(id), new.row(id)
        assert one is not None
        assert other is not None
        assert new.id(other) == id
        assert new.position(other) == old.position(one)
        assert new.thumbnail(other) == id.encode()
    assert new.row("t6000") is None
    assert new.row("\ud800") is None
    assert sorted(new.id(row) for row in range(len(new))) == sorted(old.id(row) for row in range(len(old)))


@pytest.mark.parametrize("region", [Circle(0, 0, 6000), Box(-60, 150, 60, -120), Circle(12, 34, 9000)], ids=str)
def test_a_region_is_exact_on_stored_rows(template: Path, tmp_path: Path, region: object, places: np.ndarray) -> None:
    gallery = Gallery.open(template)
    inside = np.flatnonzero(region.holds(gallery.positions))  # type: ignore[attr-defined]
    queries = clustered(9, 3)
    rows, scores = exact_search(np.array([gallery.vector(row) for row in inside]), queries, 10)
    hits = gallery.search(queries, 10, region)  # type: ignore[arg-type]
    np.testing.assert_array_equal(hits.rows, inside[rows])
    np.testing.assert_array_equal(hits.scores, scores)


def test_an_empty_region(template: Path) -> None:
    hits = Gallery.open(template).search(clustered(2, 0), 10, Circle(-89, 0, 1))
    assert (hits.rows.shape, hits.positions.shape, hits.ids) == ((2, 0), (2, 0, 2), ((), ()))


def test_equal_rows_by_codes_tie_by_row(template: Path, tmp_path: Path, no_exact_rows: None) -> None:
    vectors = np.repeat(clustered(3, 4), 2000, axis=0)
    path = made(tmp_path / "g", vectors, np.zeros((ROWS, 2)))
    compact(path, Layout("binary", approximate=False))
    hits = Gallery.open(path).search(vectors[:1], 7)
    assert hits.rows[0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert hits.ids[0][0] == "t0"


def test_numpy_and_the_library_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    codes = {
        "_dots": rng.integers(-127, 128, (300, 96), np.int8),
        "_hamming": rng.integers(0, 256, (300, 12), np.uint8),
    }
    for name, rows in codes.items():
        with_library = [getattr(coded, name)(rows[:count])(rows) for count in (1, 5)]
        with monkeypatch.context() as patch:
            patch.setattr(coded, "kernels", lambda: None)
            for count, result in zip((1, 5), with_library, strict=True):
                np.testing.assert_array_equal(result, getattr(coded, name)(rows[:count])(rows))


def test_layouts_that_are_none(template: Path, compacted: Path) -> None:
    with pytest.raises(InputError, match="float32, float16, int8, binary"):
        Layout("int4")
    with pytest.raises(InputError, match="approximate"):
        Layout("float16", approximate=True)
    with pytest.raises(GalleryError, match="another build"):
        compact(compacted, Layout("float32"))
    version = Gallery.open(compacted).version
    assert compact(compacted) >= version


def test_what_is_scanned(compacted: Path) -> None:
    info = Gallery.open(compacted).info
    a_row = {"float16": 2 * DIM, "int8": DIM, "binary": DIM / 8}[codes_of(info)]
    if info.segments[0].stages and info.segments[0].stages[-1].kind == "ivf":
        assert scanned_bytes(info) == info.segments[0].files["inverted.faiss"].bytes
    else:
        assert scanned_bytes(info) / ROWS == pytest.approx(a_row, abs=0.5)


def test_without_faiss(template: Path, compacted: Path, monkeypatch: pytest.MonkeyPatch, no_exact_rows: None) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(GalleryError, match=r"pip install 'edgegeo\[index\]'"):
        compact(template, Layout("int8", approximate=True))
    if any(stage.kind == "ivf" for stage in Gallery.open(compacted).info.segments[0].stages):
        with pytest.raises(GalleryError, match="--exact"):
            Gallery.open(compacted).search(clustered(1, 0))


def test_a_gallery_of_version_2(template: Path, tmp_path: Path) -> None:
    """Segments without checksums, keys and caps, as they were before: hashed whole when opened, and searched alike."""
    import hashlib
    import json
    import shutil

    path = Path(shutil.copytree(template, tmp_path / "old"))
    info = json.loads((path / "gallery.json").read_text())["gallery"]
    for segment in info["segments"]:
        del segment["by_place"], segment["stages"]
        for name in ("checksums.bin", "ids.keys.npy", "caps.npy"):
            del segment["files"][name]
            (path / "segments" / segment["name"] / name).unlink()
    body = json.dumps(info)
    head = f'{{"schema": 2,\n"sha256": "{hashlib.sha256(body.encode()).hexdigest()}",\n"gallery": '
    (path / "gallery.json").write_text(f"{head}{body}}}\n")
    old, new, queries = Gallery.open(path), Gallery.open(template), clustered(5, 1)
    for region in (None, Circle(0, 0, 6000)):
        assert old.search(queries, 10, region).ids == new.search(queries, 10, region).ids
    assert old.row("t4000") == new.row("t4000")
    file = path / "segments" / info["segments"][0]["name"] / "vectors.npy"
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(GalleryError, match="recorded hash"):
        Gallery.open(path)
    data[5000] ^= 1
    file.write_bytes(data)
    compact(path)
    assert Gallery.open(path).info.segments[0].by_place
    assert delete_tiles(path, ["t1"]) == 1
