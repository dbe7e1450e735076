"""Tiles on their way into a gallery: a name, a place, a picture, and what tells one from another."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from edgegeo.errors import ImageError, InputError
from edgegeo.geo import check_position
from edgegeo.runtime.image import Source

DIGEST_BYTES = 16
DUPLICATES = ("skip", "skip-anywhere", "keep")
"""What becomes of a picture whose bytes came before: left out at the same place, left out anywhere, or kept."""


@dataclass(frozen=True)
class Drawn:
    """A picture that is drawn when it is needed. Equal marks promise equal pixels, without drawing them."""

    mark: str
    draw: Callable[[], Image.Image | None]
    """None: there is nothing to be seen here; such tiles are counted, not listed."""


class Row(NamedTuple):
    """One tile for a gallery; a plain tuple of the same four does as well."""

    id: str
    lat: float
    lon: float
    image: Source | Drawn


@dataclass(frozen=True)
class Skipped:
    """A tile that could not be used, and why; kept in gallery.json so that nothing is dropped in silence."""

    id: str
    reason: str


@dataclass(frozen=True)
class Origin:
    """Where tiles came from."""

    kind: str
    """"planet", "folder", "csv", "xyz", "mbtiles", "geotiff" or "data"; "rows" for tiles handed over by a program."""
    place: str = ""
    """Absolute path of the folder or file."""
    seed: int | None = None
    """Of the demonstration planet."""
    split: str | None = None
    view: str | None = None
    detail: str = ""
    """What else tells which tiles they are: the zoom, how a raster was cut, the options of a data set."""

    def __str__(self) -> str:
        if self.kind == "planet":
            return f"the planet {self.seed} ({self.split}, {self.view})"
        return f"{self.place or 'tiles of a program'}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True)
class Tiles:
    """Rows that can be read again: knowing their origin, a build that was interrupted goes on where it stopped."""

    origin: Origin
    read: Callable[[], Iterator[Row | Skipped]]
    total: int = 0
    """How many there will be; 0: not known."""
    remark: str = ""
    """What a person should know of how they were chosen."""

    def __iter__(self) -> Iterator[Row | Skipped]:
        return self.read()

    def __length_hint__(self) -> int:
        return self.total


def origin_of(rows: Iterable[Any]) -> Origin | None:
    """Where rows come from, None for rows that can't be read again."""
    return rows.origin if isinstance(rows, Tiles) else None


def checked_row(row: Row, number: int) -> Row:
    """The row with its coordinates as floats; InputError naming the row for an unusable name or place."""
    where = f"row {number} (id {row.id!r:.60})"
    try:
        lat, lon = float(row.lat), float(row.lon)
        check_position(lat, lon)
    except (TypeError, ValueError):
        raise InputError(f"{where}: coordinates must be numbers, got lat={row.lat!r} lon={row.lon!r}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    if not isinstance(row.id, str) or not row.id:
        raise InputError(f"{where}: a tile needs a name, give every row an id")
    try:
        row.id.encode()
    except UnicodeEncodeError:
        raise InputError(f"{where}: the name is not valid Unicode; rename the tile") from None
    return Row(row.id, lat, lon, row.image)


def identity(row: Row) -> bytes:
    """16 bytes that change with a row's name, place or picture; a file counts by its path, size and time of change.

    An interrupted build takes a tile as finished by this, without reading its picture again.
    """
    image = row.image
    what: tuple[object, ...]
    if isinstance(image, Drawn):
        what = ("drawn", image.mark)
    elif isinstance(image, (str, Path)):
        try:
            state = os.stat(image)
            what = ("file", str(Path(image).absolute()), state.st_size, state.st_mtime_ns)
        except (OSError, ValueError):
            what = ("missing", str(image))
    else:
        what = ("content", content(image))
    return _digest(repr((row.id, row.lat, row.lon, what)).encode("utf-8", "surrogateescape"))


def content(source: Source) -> bytes:
    """16 bytes that name a picture's content: the bytes of a file, or the pixels of an opened picture."""
    if isinstance(source, Image.Image):
        return _digest(repr((source.mode, source.size)).encode() + source.tobytes())
    if isinstance(source, (str, Path)):
        try:
            return _digest(Path(source).read_bytes())
        except OSError as error:
            raise ImageError(f"{source} can't be opened ({error.strerror or error}); check the path") from None
    return _digest(bytes(source))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()
