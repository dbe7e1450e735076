"""Small tile pyramids and rasters, for the tests of sources."""

import io
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

Names = Iterable[tuple[int, int, int]]


def picture(z: int, x: int, y: int, form: str = "PNG") -> bytes:
    """A tile of its own colours."""
    stream = io.BytesIO()
    rng = np.random.default_rng((z, x, y))
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, form)
    return stream.getvalue()


def block(z: int, x: int, y: int, width: int, height: int | None = None) -> list[tuple[int, int, int]]:
    """Names of a rectangle of tiles."""
    return [(z, x + i, y + j) for i in range(width) for j in range(height or width)]


def write_folder(root: Path, names: Names, suffix: str = ".png", tms: bool = False) -> Path:
    """z/x/y.png with row 0 in the north, or in the south."""
    form = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP"}[suffix]
    for z, x, y in names:
        file = root / str(z) / str(x) / f"{(1 << z) - 1 - y if tms else y}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(picture(z, x, y, form))
    return root


def write_mbtiles(file: Path, names: Names, form: str = "png", flat: bool = True) -> Path:
    """An MBTiles file of tiles that are named with row 0 in the north; `flat`: a table, else a view of two."""
    with closing(sqlite3.connect(file)) as base:
        base.execute("CREATE TABLE metadata (name text, value text)")
        base.execute("INSERT INTO metadata VALUES ('format', ?)", (form,))
        columns = "zoom_level integer, tile_column integer, tile_row integer"
        pillow = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "pbf": "PNG"}[form]
        if flat:
            base.execute(f"CREATE TABLE tiles ({columns}, tile_data blob)")
        else:
            base.execute(f"CREATE TABLE map ({columns}, tile_id text)")
            base.execute("CREATE TABLE images (tile_data blob, tile_id text)")
            base.execute(
                "CREATE VIEW tiles AS SELECT zoom_level, tile_column, tile_row, tile_data FROM map "
                "JOIN images ON images.tile_id = map.tile_id"
            )
        for z, x, y in names:
            row, data = (1 << z) - 1 - y, picture(z, x, y, pillow)
            if flat:
                base.execute("INSERT INTO tiles VALUES (?, ?, ?, ?)", (z, x, row, data))
            else:
                base.execute("INSERT INTO map VALUES (?, ?, ?, ?)", (z, x, row, f"{z}/{x}/{row}"))
                base.execute("INSERT INTO images VALUES (?, ?)", (data, f"{z}/{x}/{row}"))
        base.commit()
    return file
