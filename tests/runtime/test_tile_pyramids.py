"""Tile folders and MBTiles: which tiles, where they lie, and what is refused."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from tile_sources import block, picture, write_folder, write_mbtiles

from edgegeo.errors import GalleryError, InputError
from edgegeo.runtime import Embedder, Gallery, Row, Skipped
from edgegeo.runtime.gallery.build import build_gallery
from edgegeo.runtime.gallery.intake import IntakeSettings
from edgegeo.runtime.gallery.rows import identity
from edgegeo.runtime.tiles.mbtiles import mbtiles
from edgegeo.runtime.tiles.mercator import Tile
from edgegeo.runtime.tiles.opening import TileChoice, kind_of, open_source
from edgegeo.runtime.tiles.pyramid import deepest_complete
from edgegeo.runtime.tiles.xyz import xyz_folder

CITY = [*block(10, 500, 300, 2), *block(11, 1000, 600, 4), *block(12, 2000, 1200, 3)]
"""Zoom 11 covers zoom 10; zoom 12 only a corner of it."""


def ids(source: object) -> list[str]:
    return [one.id for one in source if isinstance(one, Row)]


def test_a_folder_of_tiles(tmp_path: Path) -> None:
    tiles = xyz_folder(write_folder(tmp_path, CITY))
    assert "taking 11; 12 cover only a part" in tiles.remark
    rows = list(tiles)
    assert tiles.total == len(rows) == 16
    assert [row.id for row in rows] == [f"11/{x}/{y}" for x in range(1000, 1004) for y in range(600, 604)]
    centre = Tile(11, 1000, 600).centre
    assert (rows[0].lat, rows[0].lon) == (centre.lat, centre.lon)
    assert rows[0].image == tmp_path / "11" / "1000" / "600.png"
    assert (tiles.origin.kind, tiles.origin.detail) == ("xyz", "zoom 11")
    assert ids(xyz_folder(tmp_path, zoom=12)) == [f"12/{x}/{y}" for x in range(2000, 2003) for y in range(1200, 1203)]
    assert xyz_folder(tmp_path, zoom=12).remark == ""
    assert xyz_folder(tmp_path, zoom=12).origin != tiles.origin


def test_rows_from_the_south(tmp_path: Path) -> None:
    names = block(4, 3, 2, 2)
    north = list(xyz_folder(write_folder(tmp_path / "north", names)))
    south = list(xyz_folder(write_folder(tmp_path / "south", names, tms=True), tms=True))
    assert {row[:3] for row in north} == {row[:3] for row in south}
    by_id = {row.id: row.image.read_bytes() for row in south}
    assert by_id == {f"{z}/{x}/{y}": picture(z, x, y) for z, x, y in names}
    (tmp_path / "south" / "tilemapresource.xml").write_text("<TileMap/>")
    with pytest.raises(InputError, match=r"--tms, or --xyz"):
        xyz_folder(tmp_path / "south")
    assert len(ids(xyz_folder(tmp_path / "south", tms=True))) == 4


def test_what_is_no_tile_is_named(tmp_path: Path) -> None:
    write_folder(tmp_path, block(2, 0, 0, 2))
    (tmp_path / "2" / "0" / "0.jpg").write_bytes(picture(2, 0, 0, "JPEG"))
    for name in ("4.png", "01.png", "legend.png", "notes.txt"):
        (tmp_path / "2" / "0" / name).write_bytes(b"x")
    found = list(xyz_folder(tmp_path))
    assert ids(found) == ["2/0/0", "2/0/1", "2/1/0", "2/1/1"]
    skipped = {one.id: one.reason for one in found if isinstance(one, Skipped)}
    assert set(skipped) == {"2/0/0.png", "2/0/4.png", "2/0/01.png", "2/0/legend.png"}
    assert "second picture of tile 2/0/0" in skipped["2/0/0.png"]
    assert "beyond zoom 2" in skipped["2/0/4.png"]


def test_folders_that_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path, block(2, 0, 0, 2))
    with pytest.raises(InputError, match="no zoom 5; it has 2"):
        xyz_folder(tmp_path, zoom=5)
    with pytest.raises(InputError, match="from 0 to 30"):
        xyz_folder(tmp_path, zoom=31)
    vector = tmp_path / "vector" / "3" / "1"
    vector.mkdir(parents=True)
    (vector / "2.pbf").write_bytes(b"\x1f\x8b")
    assert kind_of(tmp_path / "vector") == "xyz"
    with pytest.raises(InputError, match="vector tiles"):
        xyz_folder(tmp_path / "vector")
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no tiles"):
        xyz_folder(tmp_path / "none")
    with pytest.raises(InputError, match="holds no pictures"):
        kind_of(tmp_path / "none")


@pytest.mark.parametrize(
    ("levels", "deepest"),
    [
        ({10: block(10, 0, 0, 2), 11: block(11, 0, 0, 4)}, 11),
        ({10: block(10, 0, 0, 2), 11: block(11, 0, 0, 2)}, 10),  # one of four parents only
        ({10: block(10, 0, 0, 2), 11: [(11, 1, 1), (11, 2, 1), (11, 1, 2), (11, 3, 3)]}, 11),  # sea left out
        ({10: block(10, 0, 0, 2), 12: block(12, 0, 0, 8)}, 12),  # a zoom between is not there
        ({10: block(10, 0, 0, 2), 11: block(11, 0, 0, 1), 12: block(12, 0, 0, 8)}, 12),
        ({0: [(0, 0, 0)], 5: block(5, 9, 9, 3), 6: block(6, 18, 18, 2)}, 5),
        ({7: block(7, 1, 1, 1)}, 7),
    ],
)
def test_the_deepest_complete_zoom(levels: dict, deepest: int) -> None:
    def tiles(zoom: int) -> list[np.ndarray]:
        return [np.array([name[1:] for name in levels[zoom]], np.int64)]

    assert deepest_complete(list(levels), tiles) == deepest


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("form", ["png", "jpg", "webp"])
def test_mbtiles(tmp_path: Path, form: str, flat: bool) -> None:
    tiles = mbtiles(write_mbtiles(tmp_path / "city.mbtiles", reversed(CITY), form, flat))
    rows = list(tiles)
    assert (tiles.total, len(rows), tiles.origin.detail) == (16, 16, "zoom 11")
    pillow = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}[form]
    assert {row.id: row.image for row in rows} == {
        f"11/{x}/{y}": picture(11, x, y, pillow) for _, x, y in block(11, 1000, 600, 4)
    }
    centre = Tile(11, 1000, 603).centre
    assert rows[0][:3] == ("11/1000/603", centre.lat, centre.lon)  # stored rows count from the south
    assert [identity(row) for row in rows] == [identity(row) for row in tiles]
    assert len(ids(mbtiles(tmp_path / "city.mbtiles", zoom=12))) == 9


def test_mbtiles_written_against_the_format(tmp_path: Path) -> None:
    file = write_mbtiles(tmp_path / "a.mbtiles", [(4, 3, 2)])
    assert ids(mbtiles(file)) == ["4/3/2"]
    assert ids(mbtiles(file, tms=False)) == ["4/3/13"]
    with closing(sqlite3.connect(file)) as base:
        for values in ((4, 3, 13, b"again"), (4, 16, 0, b"x"), (4, 0, 0, None), (4, 0, -1, b"x"), (4, 0, "one", b"x")):
            base.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", values)
        base.commit()
    found = list(mbtiles(file))
    assert ids(found) == ["4/3/2"]
    reasons = sorted(one.reason.split(",")[0] for one in found if isinstance(one, Skipped))
    assert reasons == [
        "has no picture in the file", "is a second picture of tile 4/3/2", *["is beyond zoom 4"] * 3,
    ]  # fmt: skip


def test_mbtiles_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vector tiles"):
        mbtiles(write_mbtiles(tmp_path / "v.mbtiles", [(1, 0, 0)], "pbf"))
    file = write_mbtiles(tmp_path / "gzip.mbtiles", [])
    with closing(sqlite3.connect(file)) as base:
        base.execute("INSERT INTO tiles VALUES (1, 0, 0, ?)", (b"\x1f\x8b\x08",))
        base.commit()
    with pytest.raises(InputError, match="vector tiles"):
        mbtiles(file)
    with pytest.raises(InputError, match="holds no tiles"):
        mbtiles(write_mbtiles(tmp_path / "empty.mbtiles", []))
    (tmp_path / "junk.mbtiles").write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(InputError, match="can't be read as MBTiles"):
        mbtiles(tmp_path / "junk.mbtiles")
    with closing(sqlite3.connect(tmp_path / "other.mbtiles")) as base:
        base.execute("CREATE TABLE things (a)")
    with pytest.raises(InputError, match="no such table"):
        mbtiles(tmp_path / "other.mbtiles")
    with pytest.raises(InputError, match="no MBTiles file"):
        mbtiles(tmp_path / "none.mbtiles")
    cut = tmp_path / "cut.mbtiles"
    whole = write_mbtiles(tmp_path / "whole.mbtiles", block(5, 0, 0, 8)).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="can't be read as MBTiles"):
        list(mbtiles(cut))


def test_the_same_tiles_give_the_same_gallery(tmp_path: Path, tiny_bundle: Path) -> None:
    names = block(6, 20, 30, 3)
    embedder = Embedder.open(tiny_bundle, threads=1)
    folder = Gallery.build(tmp_path / "a", xyz_folder(write_folder(tmp_path / "xyz", names)), embedder)
    packed = Gallery.build(tmp_path / "b", mbtiles(write_mbtiles(tmp_path / "m.mbtiles", names)), embedder)
    for gallery in (folder, packed):
        assert len(gallery) == 9
    for id in ("6/20/30", "6/22/32"):
        one, other = (gallery.row(id) for gallery in (folder, packed))
        assert folder.position(one) == packed.position(other)
        assert np.allclose(folder.vector(one), packed.vector(other), atol=1e-5)
        assert folder.thumbnail(one) == packed.thumbnail(other)


def test_a_build_that_was_stopped_goes_on(tmp_path: Path, tiny_bundle: Path) -> None:
    def stop(stage: str, done: int, total: int) -> None:
        if done >= 6:
            raise KeyboardInterrupt

    embedder, small = Embedder.open(tiny_bundle, threads=1), IntakeSettings(batch=2, part_rows=2)
    source = mbtiles(write_mbtiles(tmp_path / "m.mbtiles", block(6, 20, 30, 3)))
    with pytest.raises(KeyboardInterrupt):
        build_gallery(tmp_path / "g", source, embedder, settings=small, progress=stop)
    with pytest.raises(GalleryError, match=r"unfinished work with .*m\.mbtiles \(zoom 6\)"):
        build_gallery(tmp_path / "g", mbtiles(tmp_path / "m.mbtiles", tms=False), embedder, settings=small)
    report = build_gallery(tmp_path / "g", mbtiles(tmp_path / "m.mbtiles"), embedder, settings=small)
    assert (report.resumed, len(report.gallery)) == (6, 9)


def test_sources_are_told_apart(tmp_path: Path) -> None:
    write_folder(tmp_path / "xyz", block(3, 1, 1, 1), ".webp")
    write_mbtiles(tmp_path / "m.mbtiles", block(3, 1, 1, 1))
    (tmp_path / "photos" / "2023" / "10").mkdir(parents=True)
    (tmp_path / "photos" / "2023" / "10" / "5.jpg").write_bytes(b"x")
    (tmp_path / "list.csv").write_text("path,lat,lon\n")
    assert [kind_of(tmp_path / n) for n in ("xyz", "m.mbtiles", "photos", "list.csv")] == [
        "xyz", "mbtiles", "photos", "csv",
    ]  # fmt: skip
    assert ids(open_source(tmp_path / "xyz")) == ["3/1/1"]
    assert isinstance(next(iter(open_source(tmp_path / "xyz", "photos"))), Skipped)  # no EXIF in a tile
    (tmp_path / "renamed.db").write_bytes((tmp_path / "m.mbtiles").read_bytes())
    assert ids(open_source(tmp_path / "renamed.db", "mbtiles")) == ["3/1/1"]
    with pytest.raises(InputError, match="--source"):
        kind_of(tmp_path / "renamed.db")
    for kind, choice, words in (
        ("csv", TileChoice(zoom=3), "--zoom does not go with a source of csv"),
        ("photos", TileChoice(tms=False), "--xyz does not go"),
        ("xyz", TileChoice(ground=100), "--ground does not go"),
        ("map", TileChoice(), "not 'map'"),
    ):
        with pytest.raises(InputError, match=words):
            open_source(tmp_path / "xyz", kind, choice)
    with pytest.raises(InputError, match="nothing at"):
        kind_of(tmp_path / "nowhere")
