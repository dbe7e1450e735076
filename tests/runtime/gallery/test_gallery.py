import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from gallery_tiles import everything
from PIL import Image

from edgegeo.bundle import open_bundle
from edgegeo.errors import GalleryError, InputError
from edgegeo.runtime import Embedder, Gallery, Row, Skipped, open_image
from edgegeo.runtime.gallery import manifest as manifest_module
from edgegeo.runtime.gallery.edit import delete_tiles
from edgegeo.runtime.gallery.workers import thumbnail


def tile(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))


def tiles(count: int) -> list[Row]:
    return [Row(f"tile-{i}", i / 2 - 10, 3.0 * i - 100, tile(i)) for i in range(count)]


def file_of(gallery: Path, name: str) -> Path:
    """A file of the gallery's only segment."""
    (segment,) = (gallery / "segments").iterdir()
    return segment / name


@pytest.fixture(scope="module")
def embedder(tiny_bundle: Path) -> Embedder:
    return Embedder.open(tiny_bundle, threads=1)


@pytest.fixture(scope="module")
def gallery(embedder: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery.build(tmp_path_factory.mktemp("galleries") / "tiles", tiles(21), embedder, batch=4)


def test_every_tile_finds_itself(gallery: Gallery, embedder: Embedder) -> None:
    hits = gallery.search(embedder.images([row.image for row in tiles(21)]), 3)
    assert [ids[0] for ids in hits.ids] == [f"tile-{i}" for i in range(21)]
    assert hits.rows[:, 0].tolist() == list(range(21))
    np.testing.assert_allclose(hits.scores[:, 0], 1, atol=1e-5)
    np.testing.assert_array_equal(hits.positions[:, 0], [[i / 2 - 10, 3.0 * i - 100] for i in range(21)])


def test_what_was_stored_comes_back(gallery: Gallery) -> None:
    assert len(gallery) == 21
    assert gallery.row("tile-20") == 20
    assert gallery.row("nothing") is None
    assert gallery.id(3) == "tile-3"
    assert (gallery.position(4).lat, gallery.position(4).lon) == (-8.0, -88.0)
    thumb = open_image(gallery.thumbnail(5))
    assert thumb.size == (40, 40)
    assert np.abs(np.asarray(thumb, float) - np.asarray(tile(5), float)).mean() < 20
    assert gallery.skipped == ()


def test_half_precision(embedder: Embedder, tmp_path: Path, gallery: Gallery) -> None:
    small = Gallery.build(tmp_path / "g", tiles(21), embedder, dtype="float16")
    query = embedder.texts(["a green field"])
    assert small.search(query, 5).ids == gallery.search(query, 5).ids
    assert file_of(small.path, "vectors.npy").stat().st_size < file_of(gallery.path, "vectors.npy").stat().st_size
    with pytest.raises(InputError, match="int8"):
        Gallery.build(tmp_path / "h", tiles(2), embedder, dtype="int8")


def test_the_build_tells_its_progress_and_accepts_a_stream(embedder: Embedder, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    built = Gallery.build(tmp_path / "g", iter(tiles(7)), embedder, batch=3, progress=lambda *a: told.append(a))
    assert len(built) == 7
    assert [done for stage, done, _ in told if stage == "tiles"] == [3, 6, 7]
    assert {stage for stage, _, _ in told} == {"tiles", "check"}


def test_broken_pictures_are_named(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"junk")
    rows = [
        *tiles(2),
        Row("bad", 1, 2, tmp_path / "broken.jpg"),
        Skipped("earlier", "no GPS"),
        ("gone", 0, 0, "none.jpg"),
    ]
    built = Gallery.build(tmp_path / "g", rows, embedder)
    assert len(built) == 2
    assert [s.id for s in built.skipped] == ["bad", "earlier", "gone"]
    assert "not a JPEG" in built.skipped[0].reason
    assert Gallery.open(tmp_path / "g").skipped == built.skipped


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (Row("x", float("nan"), 0, tile(1)), r"row 2 \(id 'x'\): coordinates must be finite"),
        (Row("x", 91, 0, tile(1)), "row 2 .* latitude"),
        (Row("x", 0, "east", tile(1)), "row 2 .* must be numbers"),
        (Row("tile-0", 0, 0, tile(1)), "row 0 has the same id"),
        (Row("", 0, 0, tile(1)), "needs a name"),
    ],
)
def test_a_bad_row_is_named_and_nothing_is_written(embedder: Embedder, tmp_path: Path, row: Row, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Gallery.build(tmp_path / "g", [*tiles(2), row], embedder)
    assert list(tmp_path.iterdir()) == []


def test_the_old_gallery_survives_a_failure(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gallery.build(tmp_path / "g", tiles(3), embedder)

    def failing() -> Iterator[Row]:
        yield from tiles(20)
        raise OSError(28, "No space left on device")

    with pytest.raises(GalleryError, match=r"No space left on device.*unchanged"):
        Gallery.build(tmp_path / "g", failing(), embedder, batch=2)
    monkeypatch.setattr(manifest_module.os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(GalleryError, match="unchanged"):
        Gallery.build(tmp_path / "g", tiles(5), embedder)
    monkeypatch.undo()
    assert len(Gallery.open(tmp_path / "g")) == 3


def test_a_gallery_replaces_a_gallery_and_nothing_else(embedder: Embedder, tmp_path: Path) -> None:
    Gallery.build(tmp_path / "g", tiles(3), embedder)
    assert len(Gallery.build(tmp_path / "g", tiles(4), embedder)) == 4
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("dear diary")
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery.build(tmp_path / "mine", tiles(1), embedder)
    (tmp_path / "theirs" / "segments" / "0123456789abcdef").mkdir(parents=True)
    for change in (lambda p: Gallery.build(p, tiles(1), embedder), lambda p: delete_tiles(p, ["x"])):
        with pytest.raises(GalleryError, match="not a gallery"):
            change(tmp_path / "theirs")
        assert [p.name for p in (tmp_path / "theirs").rglob("*")] == ["segments", "0123456789abcdef"]
    (tmp_path / "file").write_text("")
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery.build(tmp_path / "file", tiles(1), embedder)
    (tmp_path / "empty").mkdir()
    assert len(Gallery.build(tmp_path / "empty", tiles(1), embedder)) == 1


def test_nothing_usable(embedder: Embedder, tmp_path: Path) -> None:
    for rows in ([], [Row("a", 0, 0, b"junk")]):
        with pytest.raises(GalleryError, match="no usable tiles"):
            Gallery.build(tmp_path / "g", rows, embedder)
    assert list(tmp_path.iterdir()) == []


def test_a_gallery_of_another_bundle(gallery: Gallery, other_tiny_bundle: Path) -> None:
    other = open_bundle(other_tiny_bundle)
    with pytest.raises(GalleryError, match=r"made with bundle 'tiny', bundle 'other' embeds differently; rebuild it"):
        Gallery.open(gallery.path, bundle=other)
    with pytest.raises(GalleryError, match="edgegeo index build"):
        Gallery.open(gallery.path, embedding_id=other.embedding_id)


def test_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(GalleryError, match="no gallery at"):
        Gallery.open(tmp_path / "none")
    with pytest.raises(GalleryError, match="not a gallery"):
        Gallery.open(tmp_path)


@pytest.mark.parametrize(
    "name", ["vectors.npy", "positions.npy", "digests.npy", "ids.bin", "ids.offsets.npy", "thumbs.bin"]
)
def test_damaged_files(gallery: Gallery, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "g"
    shutil.copytree(gallery.path, copy)
    file = file_of(copy, name)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(GalleryError, match="differs from its recorded hash"):
        Gallery.open(copy, check_hashes=True)
    with pytest.raises(GalleryError, match="differ from their checksum"):
        everything(Gallery.open(copy))
    file.write_bytes(data[:-3])
    with pytest.raises(GalleryError, match="cut off"):
        Gallery.open(copy)
    file.unlink()
    with pytest.raises(GalleryError, match="missing"):
        Gallery.open(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "two"}, {"dim": 7}, {"dim": 0}, {"dtype": "float16"}, {"dtype": "int3"}, {"segments": []},
        {"extra": 1}, {"deleted": {"name": "../x", "rows": 1, "file": {"bytes": 1, "sha256": ""}}},
    ],
)  # fmt: skip
def test_a_manifest_that_does_not_fit(gallery: Gallery, tmp_path: Path, change: dict) -> None:
    copy = tmp_path / "g"
    shutil.copytree(gallery.path, copy)
    info = json.loads((copy / "gallery.json").read_text())["gallery"]
    body = json.dumps({**info, **change})
    head = f'{{"schema": 3,\n"sha256": "{hashlib.sha256(body.encode()).hexdigest()}",\n"gallery": '
    (copy / "gallery.json").write_text(f"{head}{body}}}\n")
    with pytest.raises(GalleryError, match="build"):
        Gallery.open(copy)


def test_other_versions_and_other_files(gallery: Gallery, tmp_path: Path) -> None:
    copy = tmp_path / "g"
    shutil.copytree(gallery.path, copy)
    for text, words in (
        (
            '{\n "schema": 1,\n "bundle": "x"}',
            r"gallery version 1, this edgegeo reads versions 2 and 3; build the gallery",
        ),
        ((copy / "gallery.json").read_text().replace('"schema": 3', '"schema": 4'), "gallery version 4"),
        ("{", "damaged"),
        ("", "damaged"),
        ((copy / "gallery.json").read_text()[:-1], "damaged"),
    ):
        (copy / "gallery.json").write_text(text)
        with pytest.raises(GalleryError, match=words):
            Gallery.open(copy)


def test_bad_queries(gallery: Gallery) -> None:
    with pytest.raises(GalleryError, match="length 32"):
        gallery.search(np.zeros((1, 31), np.float32))
    with pytest.raises(GalleryError, match="NaN"):
        gallery.search(np.full((1, 32), np.nan, np.float32))
    with pytest.raises(GalleryError, match="k must be"):
        gallery.search(np.zeros((1, 32), np.float32), 0)
    with pytest.raises(GalleryError, match="all zeros"):
        gallery.search(np.stack([gallery.vector(0), np.zeros(32, np.float32)]))
    none = gallery.search(np.zeros((0, 32), np.float32), 3)
    assert (none.rows.shape, none.positions.shape, none.ids) == ((0, 3), (0, 3, 2), ())
    assert len(gallery.search(np.ones((1, 32), np.float32), 500).ids[0]) == 21


def test_a_mix_up_while_building_is_caught(embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = Embedder.features
    # A runtime that shuffles the rows of a batch: every vector is fine, none is in its place.
    monkeypatch.setattr(Embedder, "features", lambda self, x: features(self, x)[::-1].copy())
    with pytest.raises(GalleryError, match="does not find itself"):
        Gallery.build(tmp_path / "g", tiles(8), embedder, batch=8)
    assert list(tmp_path.iterdir()) == []


def test_thumbnails_of_strips_can_be_opened() -> None:
    strip = Image.new("RGB", (2000, 10))
    import io

    small = Image.open(io.BytesIO(thumbnail(strip, 128)))
    assert small.size == (128, 8)
