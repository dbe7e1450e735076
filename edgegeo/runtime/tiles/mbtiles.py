"""MBTiles 1.3: a tile pyramid in one SQLite file, rows counted from the south."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from edgegeo.errors import InputError
from edgegeo.runtime.gallery.rows import Origin, Row, Skipped, Tiles
from edgegeo.runtime.tiles.mercator import DEEPEST, Tile, check_zoom, flipped
from edgegeo.runtime.tiles.pyramid import Pairs, choose_zoom, in_pieces

_VECTOR = ("pbf", "mvt")
_GZIP = b"\x1f\x8b"


def mbtiles(file: str | Path, zoom: int | None = None, tms: bool | None = None) -> Tiles:
    """The tiles of one zoom, by column and row; ids are z/x/y with row 0 in the north.

    tms: rows are counted from the south, as the format says (None), or against it from the north (False). Tiles
    without a picture, or beyond the zoom, are Skipped. InputError for a file that is no MBTiles, or of vector tiles.
    """
    path = Path(file)
    if zoom is not None:
        check_zoom(zoom)
    with _opened(path) as database:
        _check_pictures(path, database)
        query = "SELECT DISTINCT zoom_level FROM tiles WHERE zoom_level BETWEEN 0 AND ? ORDER BY zoom_level"
        zooms = [row[0] for row in database.execute(query, (DEEPEST,))]

        def tiles(z: int) -> Iterator[Pairs]:
            return in_pieces(database.execute("SELECT tile_column, tile_row FROM tiles WHERE zoom_level = ?", (z,)))

        chosen, remark = choose_zoom(path, zoom, zooms, tiles)
        (total,) = database.execute("SELECT count(*) FROM tiles WHERE zoom_level = ?", (chosen,)).fetchone()
    from_north = tms is False
    origin = Origin("mbtiles", str(path.absolute()), detail=f"zoom {chosen}{', XYZ rows' if from_north else ''}")
    return Tiles(origin, partial(_rows, path, chosen, from_north), total, remark)


def _rows(path: Path, zoom: int, from_north: bool) -> Iterator[Row | Skipped]:
    query = (
        "SELECT tile_column, tile_row, tile_data FROM tiles WHERE zoom_level = ? ORDER BY tile_column, tile_row, rowid"
    )
    with _opened(path) as database:
        if not _has_rowid(database):
            query = query.removesuffix(", rowid")
        last: Tile | None = None
        for x, row, data in database.execute(query, (zoom,)):
            name = f"{path.name}: column {x}, row {row}"
            if not (isinstance(x, int) and isinstance(row, int)) or x < 0 or row < 0 or x >> zoom or row >> zoom:
                yield Skipped(name, f"is beyond zoom {zoom}, whose columns and rows end at {(1 << zoom) - 1}")
                continue
            tile = Tile(zoom, x, row if from_north else flipped(zoom, row))
            if tile == last:
                yield Skipped(name, f"is a second picture of tile {tile.id}")
                continue
            last = tile
            if not isinstance(data, bytes) or not data:
                yield Skipped(tile.id, "has no picture in the file")
                continue
            centre = tile.centre
            yield Row(tile.id, centre.lat, centre.lon, data)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The file, read-only; what SQLite finds wrong with it becomes an InputError."""
    if not path.is_file():
        raise InputError(f"no MBTiles file at {path}; check the path")
    try:
        # Rows are read by one thread after the other, never by two at once.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False)) as base:
            yield base
    except sqlite3.Error as error:
        raise InputError(f"{path} can't be read as MBTiles ({error}); check or copy the file again") from None


def _check_pictures(path: Path, database: sqlite3.Connection) -> None:
    """InputError for vector tiles, by what the file says of itself or by its first tile."""
    said = ""
    if database.execute("SELECT 1 FROM sqlite_master WHERE name = 'metadata'").fetchone():
        row = database.execute("SELECT value FROM metadata WHERE name = 'format'").fetchone()
        said = str(row[0]).lower() if row else ""
    first = database.execute("SELECT tile_data FROM tiles LIMIT 1").fetchone()
    if said in _VECTOR or (first and isinstance(first[0], bytes) and first[0].startswith(_GZIP)):
        raise InputError(f"{path} holds vector tiles ({said or 'gzip'}); render them to png, jpg or webp first")


def _has_rowid(database: sqlite3.Connection) -> bool:
    """Whether `tiles` is a table: often it is a view over a table of pictures that several tiles share."""
    row = database.execute("SELECT type, sql FROM sqlite_master WHERE name = 'tiles'").fetchone()
    return bool(row) and row[0] == "table" and "without rowid" not in str(row[1]).lower()
