"""Where a gallery's tiles come from: the demonstration planet, a folder of geo-tagged photos, or a CSV list.

Map tiles and rasters have their own room, runtime/tiles.

Each source yields a Row for every usable tile and a Skipped for every one that is not, so that the end of the build can
name them; it can be read again, so that an interrupted build can be finished.
"""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgegeo.errors import InputError, one_line
from edgegeo.exif import read_gps
from edgegeo.geo import check_position
from edgegeo.runtime.gallery.rows import Drawn, Origin, Row, Skipped, Tiles

if TYPE_CHECKING:
    from edgegeo.planet import Planet

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
UNREAD = (".heic", ".heif", ".avif", ".tif", ".tiff", ".dng", ".gif", ".bmp", ".jp2")
"""Pictures too, but of forms that are not opened: they are named rather than passed over."""
COLUMNS = ("path", "lat", "lon")


def planet_places(
    planet: "Planet", split: str = "test", n: int = 1000, seed: int = 0, view: str = "satellite", size: int = 256
) -> Tiles:
    """Views ("satellite" or "ground") of the first n places of a split, ids "test-00000" onwards, drawn when needed."""
    if view not in ("satellite", "ground"):
        raise InputError(f"a planet is seen as satellite or ground, not {view!r}")
    origin = Origin("planet", seed=planet.seed, split=split, view=view)
    return Tiles(origin, partial(_views, planet, split, n, seed, view, size), n)


def photo_folder(folder: str | Path) -> Tiles:
    """Every JPEG, PNG and WebP under a folder by its EXIF GPS position, in order of name; ids are relative paths.

    Pictures without a position, damaged ones, and those of other forms are Skipped.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"no folder at {root}; check the path")
    paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in (*SUFFIXES, *UNREAD) and p.is_file())
    return Tiles(Origin("folder", str(root.absolute())), partial(_photos, root, paths), len(paths))


def csv_list(file: str | Path) -> Tiles:
    """Columns path, lat, lon and optionally id (by default the path); paths are relative to the list's folder.

    A missing picture is Skipped; coordinates that are no place, or a malformed list, are an InputError naming the line.
    """
    path = Path(file)
    try:
        with path.open("rb") as stream:
            total = sum(1 for _ in stream) - 1
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror or error}); check the path") from None
    return Tiles(Origin("csv", str(path.absolute())), partial(_listing, path), max(0, total))


def _views(planet: "Planet", split: str, n: int, seed: int, view: str, size: int) -> Iterator[Row]:
    seen = planet.satellite if view == "satellite" else planet.ground
    for number, place in enumerate(planet.places(split, n, seed)):
        mark = f"planet {planet.seed} {view} {size} {place.lat!r} {place.lon!r}"
        picture = Drawn(mark, partial(seen, place.lat, place.lon, size=size))
        yield Row(f"{split}-{number:05d}", place.lat, place.lon, picture)


def _photos(root: Path, paths: list[Path]) -> Iterator[Row | Skipped]:
    from PIL import Image

    for path in paths:
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() in UNREAD:
            yield Skipped(name, "is not a JPEG, PNG or WebP picture; convert it to one of them")
            continue
        try:
            with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
                position = read_gps(image)
        except Exception as error:  # metadata of damaged files: anything; the reason is kept
            yield Skipped(name, f"can't be read as a picture ({one_line(error)})")
            continue
        if position is None:
            yield Skipped(name, "has no usable GPS position in its EXIF; list its place in a CSV with path, lat, lon")
        else:
            yield Row(name, position.lat, position.lon, path)


def _listing(path: Path) -> Iterator[Row | Skipped]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}")
            for entry in reader:
                yield _listed(path, reader.line_num, entry)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror or error}); check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a UTF-8 CSV list ({error}); save it as one") from None


def _listed(file: Path, line: int, entry: dict[str, str | None]) -> Row | Skipped:
    where = f"{file}, line {line}"
    try:
        lat, lon = float(entry["lat"] or ""), float(entry["lon"] or "")
        check_position(lat, lon)
    except (ValueError, TypeError):
        raise InputError(f"{where}: lat and lon must be numbers, got {entry['lat']!r}, {entry['lon']!r}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if not entry["path"]:
        raise InputError(f"{where}: the path is empty")
    name = entry.get("id") or entry["path"]
    picture = file.parent / entry["path"]
    return Row(name, lat, lon, picture) if picture.is_file() else Skipped(name, f"no picture at {picture}")
