"""The planet: one seed, and everything a caller asks of it."""

import math
from functools import lru_cache

import numpy as np
from PIL import Image

from edgegeo.errors import InputError
from edgegeo.planet.ground import render_ground
from edgegeo.planet.noise import Floats
from edgegeo.planet.overview import render_overview
from edgegeo.planet.place import Place, make_place
from edgegeo.planet.satellite import render_satellite
from edgegeo.planet.splits import coordinates
from edgegeo.planet.words import describe_place
from edgegeo.planet.world import World, world_of

DEFAULT_SEED = 2026
MIN_SIZE, MAX_SIZE = 16, 2048


class Planet:
    """A procedural planet of Earth's size: a deterministic function of latitude, longitude (degrees) and seed.

    Every method takes any finite longitude (it wraps) and a latitude in [-90, 90], and raises InputError otherwise.
    """

    def __init__(self, seed: int = DEFAULT_SEED) -> None:
        self.seed = seed

    @property
    def world(self) -> World:
        """The globe's tables; built at first use, about a second."""
        return world_of(self.seed)

    def place(self, lat: float, lon: float) -> Place:
        """What there is at a point; coordinates are rounded to 1e-4 degrees."""
        return _place(self.seed, *_checked(lat, lon))

    def coordinates(self, split: str, n: int, seed: int = 0) -> Floats:
        """Latitude and longitude, (n, 2), of `places` without the rest: 100,000 in seconds."""
        return coordinates(self.world, split, n, seed)

    def places(self, split: str, n: int, seed: int = 0) -> list[Place]:
        """The first n land places of a split ('train', 'validation' or 'test'); splits never share a cell."""
        return [make_place(self.world, float(lat), float(lon)) for lat, lon in self.coordinates(split, n, seed)]

    def satellite(self, lat: float, lon: float, size: int = 256) -> Image.Image:
        """The satellite tile centred on a point: (size, size) RGB, north up, 320 m across."""
        return render_satellite(self.place(lat, lon), _checked_size(size))

    def ground(self, lat: float, lon: float, heading: float | None = None, size: int = 256) -> Image.Image:
        """The photo taken there towards `heading` (degrees from north; None: the place's own)."""
        place = self.place(lat, lon)
        if heading is None:
            heading = place.heading
        if not math.isfinite(heading):
            raise InputError(f"the heading must be a finite number of degrees, got {heading}")
        return render_ground(place, heading % 360.0, _checked_size(size))

    def describe(self, lat: float, lon: float, variant: int = 0) -> str:
        """A description of the place; variants differ in phrasing and in the facts they leave out."""
        return describe_place(self.place(lat, lon), variant)

    def overview(self, width: int = 1024, borders: bool = True) -> Image.Image:
        """A map of the world, equirectangular, (width / 2, width) RGB."""
        return render_overview(self.world, _checked_size(width), borders)

    def is_land(self, lat: float, lon: float) -> bool:
        """Whether a point is above the sea."""
        lat, lon = _checked(lat, lon)
        return bool(self.world.is_land(np.array([lat]), np.array([lon]))[0])


@lru_cache(maxsize=4096)
def _place(seed: int, lat: float, lon: float) -> Place:
    return make_place(world_of(seed), lat, lon)


def _checked(lat: float, lon: float) -> tuple[float, float]:
    lat, lon = float(lat), float(lon)
    if not (math.isfinite(lat) and math.isfinite(lon)):
        raise InputError(f"coordinates must be finite numbers, got lat={lat} lon={lon}")
    if not -90.0 <= lat <= 90.0:
        raise InputError(f"latitude must be between -90 and 90 degrees, got {lat}")
    return lat, lon


def _checked_size(size: int) -> int:
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise InputError(f"picture size must be between {MIN_SIZE} and {MAX_SIZE} pixels, got {size}")
    return int(size)
