"""Train, validation and test places: random land points in disjoint cells of about one square degree."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError
from edgegeo.planet.noise import Floats, mix64, mix64_array, unit_array
from edgegeo.planet.place import QUANTUM
from edgegeo.planet.world import World

SPLITS = ("train", "validation", "test")
_BLOCK = 1 << 15


def split_of(lat: Floats, lon: Floats, seed: int) -> NDArray[np.int64]:
    """The index in SPLITS of N points: their one-degree cell, hashed (90 %, 5 %, 5 %)."""
    row = np.clip(np.floor(lat + 90.0).astype(np.int64), 0, 179)
    widths = np.array([max(1, round(360.0 * math.cos(math.radians(k - 89.5)))) for k in range(180)])
    n = widths[row]
    col = np.minimum(((lon + 180.0) % 360.0 / 360.0 * n).astype(np.int64), n - 1)
    draw = mix64_array(mix64_array(mix64(seed, 800), row), col) % np.uint64(20)
    return np.where(draw >= 2, 0, np.where(draw == 0, 1, 2))


def coordinates(world: World, split: str, n: int, seed: int = 0) -> Floats:
    """The first n land points of a split's stream, (n, 2) latitudes and longitudes in degrees.

    Points are uniform over the land's area; a longer stream starts with the shorter one.
    """
    if split not in SPLITS:
        raise InputError(f"no split {split!r}: choose one of {', '.join(SPLITS)}")
    if n < 0:
        raise InputError(f"the number of places must not be negative, got {n}")
    blocks, have = [], 0
    stream = _blocks(world, SPLITS.index(split), seed)
    while have < n:
        blocks.append(next(stream))
        have += len(blocks[-1])
    return np.concatenate(blocks)[:n] if blocks else np.zeros((0, 2))


def _blocks(world: World, split: int, seed: int) -> Iterator[Floats]:
    start = 0
    while True:
        index = np.arange(start, start + _BLOCK, dtype=np.int64)
        z = 2.0 * unit_array(mix64_array(mix64(world.seed, 801, split, seed), index)) - 1.0
        lon = 360.0 * unit_array(mix64_array(mix64(world.seed, 802, split, seed), index)) - 180.0
        # rounding to the place grid also hides the last bit of arcsin, which differs between processors
        lat = np.round(np.degrees(np.arcsin(z)) * QUANTUM) / QUANTUM
        lon = np.round(lon * QUANTUM) / QUANTUM
        keep = split_of(lat, lon, world.seed) == split
        lat, lon = lat[keep], lon[keep]
        land = world.is_land(lat, lon)
        yield np.stack([lat[land], lon[land]], axis=1)
        start += _BLOCK
