"""Places that a search is held to: a circle, a box, or the polygons of a GeoJSON file.

Each tells which points it holds, and which caps of the sphere it may touch: a gallery reads only those blocks of rows.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.geo import EARTH_RADIUS_KM, check_position, distance_km, wrap_longitude
from edgegeo.runtime.sphere import places, vectors

Doubles = NDArray[np.float64]
Mask = NDArray[np.bool_]
_PAIRS = 1 << 21
_TOUCH = 1e-9  # degrees, a tenth of a millimetre: edges that come closer touch, and don't cross


class Region(Protocol):
    """A part of the sphere."""

    def holds(self, points: Doubles) -> Mask:
        """Whether points (N, 2), latitudes and longitudes in degrees, lie in it."""

    def touches(self, centers: Doubles, radii: Doubles) -> Mask:
        """False only for caps (unit vectors (B, 3), radii (B,) in radians) of which no point lies in it."""


@dataclass(frozen=True)
class Circle:
    """Every point within `km` of one."""

    lat: float
    lon: float
    km: float

    def __post_init__(self) -> None:
        check_position(self.lat, self.lon)
        if not 0 < self.km < np.inf:
            raise InputError(f"a circle takes a distance above 0 km, not {self.km}")

    def holds(self, points: Doubles) -> Mask:
        """See Region."""
        return np.asarray(distance_km(self.lat, self.lon, points[:, 0], points[:, 1]) <= self.km)

    def touches(self, centers: Doubles, radii: Doubles) -> Mask:
        """See Region."""
        middle = vectors([self.lat, self.lon])
        # Beyond half the sphere every cap is touched; the cosine no longer falls there.
        reach = np.minimum(radii + self.km / EARTH_RADIUS_KM, np.pi)
        return np.asarray(centers @ middle >= np.cos(reach) - 1e-12)


@dataclass(frozen=True)
class Box:
    """Latitudes from south to north and longitudes eastward from west to east: west above east crosses 180 degrees."""

    south: float
    west: float
    north: float
    east: float

    def __post_init__(self) -> None:
        check_position(self.south, self.west)
        check_position(self.north, self.east)
        if self.south > self.north:
            raise InputError(f"a box goes from south to north, not from {self.south} to {self.north}")

    @property
    def width(self) -> float:
        """Degrees of longitude."""
        return self.east - self.west + (360.0 if self.east < self.west else 0.0)

    def holds(self, points: Doubles) -> Mask:
        """See Region; at a pole every longitude is the same."""
        lat, lon = points[:, 0], points[:, 1]
        within = ((lon - self.west) % 360.0 <= self.width) | (np.abs(lat) == 90.0) | (self.width >= 360.0)
        return np.asarray((lat >= self.south) & (lat <= self.north) & within)

    def touches(self, centers: Doubles, radii: Doubles) -> Mask:
        """See Region: a cap is left out where its latitudes, or the meridians it reaches, end before the box."""
        lat, lon = np.moveaxis(places(centers), -1, 0)
        up = np.radians(np.maximum(np.maximum(self.south - lat, lat - self.north), 0.0))
        past = (lon - self.west) % 360.0
        aside = np.where(past <= self.width, 0.0, np.minimum(past - self.width, 360.0 - past))
        # The distance to a meridian 90 degrees away or more is the one to the pole where they meet.
        across = np.arcsin(np.cos(np.radians(lat)) * np.sin(np.radians(np.minimum(aside, 90.0))))
        return np.asarray(np.maximum(up, across if self.width < 360.0 else 0.0) <= radii + 1e-9)


class Polygons:
    """GeoJSON polygons with their holes, by the even-odd rule; edges are straight in longitude and latitude.

    As RFC 7946 (3.1.9) has it, a polygon across 180 degrees is cut in two there; longitudes beyond 180 do as well.
    A point on an edge may count either way.
    """

    def __init__(self, polygons: list[list[Doubles]]) -> None:
        """Rings (M, 2) of longitudes and latitudes, the first and last point equal: the outer one, then holes."""
        self._polygons = polygons
        self._boxes = [_bounds(rings[0]) for rings in polygons]

    @classmethod
    def read(cls, file: str | Path) -> "Polygons":
        """The polygons of a GeoJSON file; InputError where it has none, or they can't be."""
        try:
            data = json.loads(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"{file} can't be opened ({error.strerror or error}); check the path") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} is not JSON ({error!s:.80}); give a GeoJSON file") from None
        try:
            polygons = [[_ring(ring) for ring in rings] for rings in _polygons(data)]
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
        if not polygons or not all(polygons):
            raise InputError(f"{file} has no Polygon or MultiPolygon; draw one, or use --within or --box")
        return cls(polygons)

    def holds(self, points: Doubles) -> Mask:
        """See Region."""
        out = np.zeros(len(points), bool)
        for rings, box in zip(self._polygons, self._boxes, strict=True):
            near = np.flatnonzero(box.holds(points) & ~out)
            for turn in (-360.0, 0.0, 360.0):
                out[near] |= _inside(rings, points[near, 1] + turn, points[near, 0])
        return out

    def touches(self, centers: Doubles, radii: Doubles) -> Mask:
        """See Region."""
        return np.asarray(np.any([box.touches(centers, radii) for box in self._boxes], axis=0))


def _inside(rings: list[Doubles], x: Doubles, y: Doubles) -> Mask:
    out = np.zeros(len(x), bool)
    for ring in rings:
        (x0, y0), (x1, y1) = ring[:-1].T, ring[1:].T
        level = y0 == y1  # crossed by no horizontal ray
        slope = (x1 - x0) / np.where(level, 1.0, y1 - y0)
        step = max(1, _PAIRS // len(x0))
        for start in range(0, len(x), step):
            px, py = x[start : start + step, None], y[start : start + step, None]
            crossed = ((y0 > py) != (y1 > py)) & (px < x0 + (py - y0) * slope)
            out[start : start + step] ^= np.count_nonzero(crossed, axis=1) % 2 == 1
    return out


def _bounds(ring: Doubles) -> Box:
    (west, south), (east, north) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
    if east - west >= 360.0:
        return Box(south, -180.0, north, 180.0)
    west, east = (side if abs(side) <= 180.0 else wrap_longitude(side) for side in (west, east))
    return Box(south, west, north, east)


def _ring(data: Any) -> Doubles:
    try:
        ring = np.array([[float(point[0]), float(point[1])] for point in data], np.float64).reshape(-1, 2)
    except (TypeError, ValueError, IndexError, KeyError):
        raise InputError("a polygon's ring is a list of [longitude, latitude]") from None
    if len(ring) < 4 or not np.array_equal(ring[0], ring[-1]):
        raise InputError("a polygon's ring has at least four points, the last equal to the first")
    sound = np.isfinite(ring).all() and np.abs(ring[:, 1]).max() <= 90 and np.abs(ring[:, 0]).max() <= 360
    if not sound or np.ptp(ring[:, 0]) > 360:
        raise InputError("a polygon's latitudes lie within 90 degrees, its longitudes within 360, their span too")
    if (crossing := _crossing(ring)) is not None:
        lon, lat = crossing
        raise InputError(f"a polygon's ring crosses itself near longitude {lon:.5f}, latitude {lat:.5f}; mend it there")
    (x, y), (next_x, next_y) = (ring[:-1] - ring[0]).T, (ring[1:] - ring[0]).T
    if abs(float(np.sum(x * next_y - next_x * y))) < _TOUCH**2:
        raise InputError("a polygon's ring encloses nothing; give it three corners or more")
    return ring


def _crossing(ring: Doubles) -> tuple[float, float] | None:
    """Longitude and latitude where an edge of the ring crosses another one; None where none does.

    Edges are sorted by their western ends, and compared with those that begin before they end.
    """
    low, high = np.minimum(ring[:-1], ring[1:]), np.maximum(ring[:-1], ring[1:])
    order = np.argsort(low[:, 0], kind="stable")
    count = np.searchsorted(low[order, 0], high[order, 0], side="right") - np.arange(1, len(order) + 1)
    for some in np.split(np.arange(len(order)), np.flatnonzero(np.diff(np.cumsum(count) // _PAIRS)) + 1):
        first = np.repeat(some, count[some])
        before = np.repeat(np.cumsum(count[some]) - count[some], count[some])
        one, other = order[first], order[first + 1 + np.arange(len(first)) - before]
        near = (low[one, 1] <= high[other, 1]) & (low[other, 1] <= high[one, 1])
        one, other = one[near], other[near]
        ends = _sides(ring, one, other), _sides(ring, other, one)
        crossed = np.flatnonzero((ends[0] < 0) & (ends[1] < 0))
        if len(crossed):
            (start, end), (other_start, other_end) = (
                ring[[edge, edge + 1]] for edge in (one[crossed[0]], other[crossed[0]])
            )
            (x, y), (u, v), (a, b) = end - start, other_end - other_start, other_start - start
            lon, lat = (start + (a * v - b * u) / (x * v - y * u) * (end - start)).tolist()
            return lon, lat
    return None


def _sides(ring: Doubles, one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """-1 where the ends of an edge lie on two sides of the line through another one, 1 where on one, 0 where on it."""
    along = ring[one + 1] - ring[one]
    length = np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-300)
    out = np.ones(len(one), np.int64)
    for end in (ring[other], ring[other + 1]):
        across = (along[:, 0] * (end - ring[one])[:, 1] - along[:, 1] * (end - ring[one])[:, 0]) / length
        out *= np.where(np.abs(across) > _TOUCH, np.sign(across), 0).astype(np.int64)
    return out


def _polygons(data: Any) -> list[Any]:
    """Coordinates of every polygon in a GeoJSON object."""
    kind = data.get("type") if isinstance(data, dict) else None
    inner = {"FeatureCollection": "features", "GeometryCollection": "geometries"}.get(str(kind))
    if inner is not None:
        return [one for member in _list(data.get(inner)) for one in _polygons(member)]
    if kind == "Feature":
        return _polygons(data.get("geometry"))
    if kind == "Polygon":
        return [_list(data.get("coordinates"))]
    return [_list(one) for one in _list(data.get("coordinates"))] if kind == "MultiPolygon" else []


def _list(data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise InputError("its coordinates, features or geometries are no list")
    return data
