"""The web-mercator tile pyramid (EPSG:3857, OGC 17-083r4): zoom z has 2^z x 2^z tiles, row 0 in the north.

A TMS pyramid (MBTiles, gdal2tiles) is the same with row 0 in the south.
"""

import math
from typing import NamedTuple

from edgegeo.errors import InputError
from edgegeo.geo import Position

DEEPEST = 30
HALF_WORLD_M = math.pi * 6378137.0
"""Half the side of the world's square in EPSG:3857 metres."""
MAX_LAT = math.degrees(math.atan(math.sinh(math.pi)))
"""Latitude of the square's upper side, 85.0511 degrees."""


class Tile(NamedTuple):
    """One tile, its row counted from the north."""

    z: int
    x: int
    y: int

    @property
    def id(self) -> str:
        """z/x/y, the same whatever the tile was read from."""
        return f"{self.z}/{self.x}/{self.y}"

    @property
    def centre(self) -> Position:
        """Where the tile's middle pixel lies."""
        return place_of(self.z, self.x + 0.5, self.y + 0.5)


def place_of(z: int, x: float, y: float) -> Position:
    """The place at tile coordinates; x is taken around the world."""
    side = float(1 << z)
    lat = math.degrees(math.atan(math.sinh(math.pi * (1 - 2 * y / side))))
    return Position(lat, (x / side) % 1.0 * 360.0 - 180.0)


def coordinates_of(z: int, lat: float, lon: float) -> tuple[float, float]:
    """Tile coordinates (x, y) of a place; latitudes beyond the square lie on its edge."""
    side = float(1 << z)
    phi = math.radians(max(-MAX_LAT, min(MAX_LAT, lat)))
    return (lon + 180.0) / 360.0 * side, (1 - math.asinh(math.tan(phi)) / math.pi) / 2 * side


def bounds_m(z: int, x: float, y: float) -> tuple[float, float, float, float]:
    """West, south, east, north in EPSG:3857 metres of the tile whose upper left corner has these coordinates."""
    side = 2 * HALF_WORLD_M / (1 << z)
    west, north = x * side - HALF_WORLD_M, HALF_WORLD_M - y * side
    return west, north - side, west + side, north


def ground_m(z: int, lat: float) -> float:
    """Metres on the ground along a tile's side at a latitude."""
    return 2 * HALF_WORLD_M / (1 << z) * math.cos(math.radians(lat))


def flipped(z: int, y: int) -> int:
    """The row counted from the other side: TMS to XYZ and back."""
    return (1 << z) - 1 - y


def check_zoom(z: int) -> None:
    """InputError unless z is a zoom level."""
    if not 0 <= z <= DEEPEST:
        raise InputError(f"a zoom is a whole number from 0 to {DEEPEST}, not {z}")
