"""Tile folders, z/x/y.png: what slippy maps are served from."""

import os
import re
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from edgegeo.errors import InputError
from edgegeo.runtime.gallery.rows import Origin, Row, Skipped, Tiles
from edgegeo.runtime.tiles.mercator import DEEPEST, Tile, check_zoom, flipped
from edgegeo.runtime.tiles.pyramid import choose_zoom, in_pieces

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
VECTORS = (".pbf", ".mvt")
TMS_MARK = "tilemapresource.xml"
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")


class _Found(NamedTuple):
    """The picture of a tile as it is named, its row as the folder counts it."""

    x: int
    y: int
    path: Path


def xyz_folder(folder: str | Path, zoom: int | None = None, tms: bool | None = None) -> Tiles:
    """The tiles z/x/y.png (.jpg, .webp) of one zoom, by column and row; ids are z/x/y with row 0 in the north.

    tms: rows are counted from the south; None: no, and InputError where the folder looks otherwise. Pictures that are
    no tile of the zoom are Skipped. InputError for a folder without tiles, a zoom that is not there, vector tiles.
    """
    root = Path(folder)
    if zoom is not None:
        check_zoom(zoom)
    if tms is None and (root / TMS_MARK).is_file():
        raise InputError(
            f"{root} holds {TMS_MARK}, as tools write it that count rows from the south: say --tms, or --xyz if "
            "row 0 is in the north"
        )
    zooms = _numbers(root, DEEPEST)
    chosen, remark = choose_zoom(
        root, zoom, zooms, lambda z: in_pieces((one.x, one.y) for one in _tiles(root / str(z)))
    )
    total = sum(1 for _ in _tiles(root / str(chosen)))
    if total == 0:
        raise InputError(_without_pictures(root / str(chosen)))
    origin = Origin("xyz", str(root.absolute()), detail=f"zoom {chosen}{', TMS rows' if tms else ''}")
    return Tiles(origin, partial(_rows, root, chosen, bool(tms)), total, remark)


def is_tiled(root: Path) -> bool:
    """Whether a folder's names are those of z/x/y.png."""
    columns = (root / str(z) / str(x) for z in _numbers(root, DEEPEST) for x in islice(_numbers(root / str(z)), 3))
    return any(
        _NUMBER.fullmatch(Path(name).stem) and Path(name).suffix.lower() in (*PICTURES, *VECTORS)
        for column in columns
        for name in islice(_names(column), 100)
    )


def _rows(root: Path, zoom: int, tms: bool) -> Iterator[Row | Skipped]:
    last: Tile | None = None
    stray: list[Path] = []
    for found in _tiles(root / str(zoom), stray):
        name = found.path.relative_to(root).as_posix()
        if found.x >> zoom or found.y >> zoom:
            yield Skipped(name, f"is beyond zoom {zoom}, whose columns and rows end at {(1 << zoom) - 1}")
            continue
        tile = Tile(zoom, found.x, flipped(zoom, found.y) if tms else found.y)
        if tile == last:
            yield Skipped(name, f"is a second picture of tile {tile.id}")
            continue
        last = tile
        yield Row(tile.id, *_place(tile), found.path)
    for path in stray:
        yield Skipped(path.relative_to(root).as_posix(), "is not named like a tile, z/x/y.png")


def _place(tile: Tile) -> tuple[float, float]:
    centre = tile.centre
    return centre.lat, centre.lon


def _tiles(level: Path, stray: list[Path] | None = None) -> Iterator[_Found]:
    """Pictures of a zoom by column and row; other pictures go to `stray`."""
    for x in _numbers(level):
        found = []
        for name in _names(level / str(x)):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() not in PICTURES:
                continue
            if _NUMBER.fullmatch(stem):
                found.append((int(stem), name))
            elif stray is not None:
                stray.append(level / str(x) / name)
        for y, name in sorted(found):
            yield _Found(x, y, level / str(x) / name)


def _numbers(folder: Path, most: int | None = None) -> list[int]:
    """The folders in a folder whose names are numbers, ascending."""
    found = [int(n) for n in _names(folder) if _NUMBER.fullmatch(n) and (folder / n).is_dir()]
    return sorted(n for n in found if most is None or n <= most)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except NotADirectoryError:
        return []
    except OSError as error:
        raise InputError(f"{folder} can't be read ({error.strerror or error}); check the path") from None


def _without_pictures(level: Path) -> str:
    held = {Path(name).suffix.lower() for x in _numbers(level) for name in _names(level / str(x))}
    if held & set(VECTORS):
        return f"{level} holds vector tiles ({', '.join(sorted(held & set(VECTORS)))}); render them to png first"
    return f"{level} holds no tiles (x/y.png, .jpg or .webp)"
