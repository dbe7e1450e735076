"""GPS generation scored in kilometres, beside what guessing would score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegeo.evaluate.scenes import Scene
from edgegeo.geo import distance_km
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Generator

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GpsRun:
    """One answer a place."""

    distances: Floats
    """Kilometres from the true position (N,); infinite where there was no answer, which is a miss at any threshold."""
    distinct: int
    """Different positions among the answers: 1 would be mode collapse (GeoLocSFT, failure signs)."""


def locate_scenes(
    generator: Generator, scenes: Sequence[Scene], batch: int = 16, progress: Progress = silent
) -> GpsRun:
    """Generate a position for every scene's photo."""
    distances = np.full(len(scenes), np.inf)
    positions = set()
    for start in range(0, len(scenes), batch):
        chunk = scenes[start : start + batch]
        for offset, answer in enumerate(generator.answers([s.photo for s in chunk], batch=batch)):
            if answer.position is not None:
                scene = chunk[offset]
                distances[start + offset] = distance_km(scene.lat, scene.lon, answer.position.lat, answer.position.lon)
                positions.add((answer.position.lat, answer.position.lon))
        progress("generate", start + len(chunk), len(scenes))
    return GpsRun(distances, len(positions))


def guessed_distances(scenes: Sequence[Scene], guesses: NDArray[np.float64]) -> Floats:
    """Distances (N,) of the best constant answer: the one of `guesses` (M, 2: lat, lon) with the smallest median.

    The guesses are positions of another split, so the baseline knows where land is but not the test places.
    """
    lat, lon = np.array([s.lat for s in scenes]), np.array([s.lon for s in scenes])
    among = distance_km(guesses[:, :1], guesses[:, 1:], guesses[None, :, 0], guesses[None, :, 1])
    best = guesses[int(np.argmin(np.median(among, axis=1)))]
    return np.asarray(distance_km(lat, lon, best[0], best[1]))


def random_distances(scenes: Sequence[Scene], seed: int = 0) -> Floats:
    """Distances (N,) of answering every photo with another scene's position."""
    lat, lon = np.array([s.lat for s in scenes]), np.array([s.lon for s in scenes])
    other = np.random.default_rng(seed).permutation(len(scenes))
    fixed = other == np.arange(len(scenes))
    other[fixed] = (other[fixed] + 1) % len(scenes)
    return np.asarray(distance_km(lat, lon, lat[other], lon[other]))
