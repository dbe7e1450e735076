"""A few boxes of latitude and longitude that hold a region: what a database's index of points can look up."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegeo.geo import EARTH_RADIUS_KM
from edgegeo.runtime.gallery.region import Region
from edgegeo.runtime.sphere import between_km, vectors

MOST = 16
"""Boxes at most: each is a lookup of its own."""
_DEEPEST = 20


class Cell(NamedTuple):
    """Degrees; its own edges included."""

    south: float
    west: float
    north: float
    east: float


def cover(region: Region) -> list[Cell]:
    """Cells that hold every point of a region between them: the world in quarters, as long as few of them are touched.

    Cells of the deepest level are some 40 m wide; a region that touches none has no point.
    """
    cells = np.array([[-90.0, -180.0, 90.0, 0.0], [-90.0, 0.0, 90.0, 180.0]])
    for _ in range(_DEEPEST):
        smaller = _quarters(cells)
        smaller = smaller[region.touches(*_caps(smaller))]
        if len(smaller) > MOST:
            break
        cells = smaller
    return [Cell(*cell) for cell in cells.tolist()]


def _quarters(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    south, west, north, east = cells.T
    lat, lon = (south + north) / 2, (west + east) / 2
    parts = ((south, west, lat, lon), (south, lon, lat, east), (lat, west, north, lon), (lat, lon, north, east))
    return np.concatenate([np.stack(part, axis=1) for part in parts])


def _caps(cells: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors and radii in radians of caps around cells, by their corners and the middles of their edges."""
    south, west, north, east = cells.T
    lat, lon = (south + north) / 2, (west + east) / 2
    centers = vectors(np.stack([lat, lon], axis=1))
    rim = [(a, o) for a in (south, lat, north) for o in (west, lon, east)]
    nearest = np.where((south <= 0) & (north >= 0), 0.0, np.where(np.abs(south) < np.abs(north), south, north))
    rim += [(nearest, west), (nearest, east)]  # a parallel is longest nearest the equator
    reach = [between_km(centers, vectors(np.stack(one, axis=1))) for one in rim]
    return centers, np.max(reach, axis=0) / EARTH_RADIUS_KM + 1e-9
