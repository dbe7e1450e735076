"""Where the tiles of a raster lie: squares of so many metres, or those of the web-mercator pyramid."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgegeo.errors import InputError
from edgegeo.geo import EARTH_RADIUS_KM, Position, wrap_longitude
from edgegeo.runtime.tiles.mercator import MAX_LAT, bounds_m, check_zoom, coordinates_of, ground_m, place_of

_DEGREE_M = EARTH_RADIUS_KM * 1000 * math.pi / 180
_WEB_MERCATOR = "EPSG:3857"


@dataclass(frozen=True)
class Cutting:
    """How large tiles are, and by how much neighbours overlap."""

    ground: float | None = None
    """Metres along a tile's side."""
    zoom: int | None = None
    """Instead of `ground`: as large as the tiles of this zoom, and at their places if they don't overlap."""
    overlap: float | None = None
    """Share of a side, 0 to 0.9. None: a quarter for `ground`, nothing for `zoom`."""

    def __post_init__(self) -> None:
        if (self.ground is None) == (self.zoom is None):
            raise InputError("a raster is cut by --ground METRES or by --zoom Z: name one of them")
        if self.zoom is not None:
            check_zoom(self.zoom)
        if self.ground is not None and not (math.isfinite(self.ground) and self.ground > 0):
            raise InputError(f"the side of a tile is a number of metres above 0, not {self.ground}")
        if not 0 <= self.share <= 0.9:
            raise InputError(f"tiles overlap by 0 to 0.9 of their side, not {self.share}")

    @property
    def share(self) -> float:
        """The overlap in use."""
        return (0.0 if self.ground is None else 0.25) if self.overlap is None else self.overlap

    def side_m(self, lat: float) -> float:
        """Metres on the ground along a tile's side."""
        return ground_m(self.zoom or 0, lat) if self.ground is None else self.ground

    def __str__(self) -> str:
        size = f"zoom {self.zoom}" if self.ground is None else f"{self.ground:g} m a tile"
        return f"{size}, overlap {self.share:g}"


@dataclass(frozen=True)
class Extent:
    """Degrees that a raster covers; east is beyond 180 where it crosses the antimeridian."""

    west: float
    south: float
    east: float
    north: float

    def size_m(self) -> tuple[float, float]:
        """Width, where it is widest, and height in metres."""
        nearest = 0.0 if self.south <= 0 <= self.north else min(abs(self.south), abs(self.north))
        width = (self.east - self.west) * _DEGREE_M * math.cos(math.radians(nearest))
        return width, (self.north - self.south) * _DEGREE_M


class Cut(NamedTuple):
    """One tile: its name within the raster, its centre, and its square in a coordinate system."""

    name: str
    centre: Position
    crs: str
    bounds: tuple[float, float, float, float]
    """West, south, east, north in units of the coordinate system."""


def count_cuts(extent: Extent, cutting: Cutting) -> int:
    """How many `cuts` there will be."""
    if cutting.ground is None:
        columns, rows = _pyramid(extent, cutting)
        return len(columns) * len(rows)
    return sum(len(_centres(width, cutting)) for _, width in _rows(extent, cutting))


def cuts(extent: Extent, cutting: Cutting) -> Iterator[Cut]:
    """The tiles over an extent by rows from the north; those at its edge may reach beyond it only in a pyramid.

    Squares in metres lie on an azimuthal equidistant plane about their own centre, north up, so that they are as large
    as they say at any latitude; the first and the last of a row end where the raster does, which spreads the overlap.
    """
    if cutting.ground is None:
        yield from _pyramid_cuts(extent, cutting)
        return
    half = cutting.ground / 2
    for number, (lat, width) in enumerate(_rows(extent, cutting)):
        degrees = (extent.east - extent.west) / width if width else 0.0
        for column, metres in enumerate(_centres(width, cutting)):
            centre = Position(lat, wrap_longitude(extent.west + float(metres) * degrees))
            plane = f"+proj=aeqd +lat_0={centre.lat:.9f} +lon_0={centre.lon:.9f} +datum=WGS84 +units=m +no_defs"
            yield Cut(f"{cutting.ground:g}m/{number}/{column}", centre, plane, (-half, -half, half, half))


def _rows(extent: Extent, cutting: Cutting) -> Iterator[tuple[float, float]]:
    """Latitude of each row of tiles, and the metres the extent is wide there."""
    for metres in _centres(extent.size_m()[1], cutting):
        lat = extent.north - float(metres) / _DEGREE_M
        yield lat, (extent.east - extent.west) * _DEGREE_M * math.cos(math.radians(lat))


def _centres(length: float, cutting: Cutting) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Where the tiles' middles lie on a length in metres: as few as overlap by no less than is asked.

    A twentieth of a step that is left over is no reason for one more: the outline of a raster whose north is not quite
    up is that much larger.
    """
    side = cutting.ground or 0.0
    count = 1 + max(0, math.ceil((length - side) / (side * (1 - cutting.share)) - 0.05))
    return np.array([length / 2]) if count == 1 else np.linspace(side / 2, length - side / 2, count)


def _pyramid(extent: Extent, cutting: Cutting) -> tuple[range, range]:
    """Numbers of the columns and rows, in steps of a tile without its overlap, that meet the extent."""
    zoom, step = cutting.zoom or 0, 1 - cutting.share
    left, top = coordinates_of(zoom, min(extent.north, MAX_LAT), extent.west)
    right, bottom = coordinates_of(zoom, max(extent.south, -MAX_LAT), extent.east)
    side = 1 << zoom
    columns = range(math.floor((left - 1) / step) + 1, math.ceil(right / step))
    rows = range(
        max(0, math.floor((top - 1) / step) + 1), min(math.ceil(bottom / step), math.floor((side - 1) / step) + 1)
    )
    return columns[: math.ceil(side / step)], rows


def _pyramid_cuts(extent: Extent, cutting: Cutting) -> Iterator[Cut]:
    zoom, step = cutting.zoom or 0, 1 - cutting.share
    columns, rows = _pyramid(extent, cutting)
    for row in rows:
        for column in columns:
            # A raster that crosses the antimeridian goes on with the columns from 0.
            x, y = (column * step) % (1 << zoom), row * step
            name = f"{zoom}/{_short(x)}/{_short(y)}"
            yield Cut(name, place_of(zoom, x + 0.5, y + 0.5), _WEB_MERCATOR, bounds_m(zoom, x, y))


def _short(number: float) -> str:
    return f"{number:.4f}".rstrip("0").rstrip(".")
