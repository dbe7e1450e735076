"""The places a model is scored on: description, photo and satellite tile of each, kept as compressed bytes."""

from dataclasses import dataclass
from functools import lru_cache

from edgegeo.errors import InputError
from edgegeo.planet import DEFAULT_SEED, Planet
from edgegeo.planet.photos import encode_jpeg
from edgegeo.progress import Progress, silent


@dataclass(frozen=True)
class Scene:
    """One place with its two pictures (JPEG bytes) and one description."""

    id: str
    lat: float
    lon: float
    text: str
    photo: bytes
    tile: bytes


def planet_scenes(
    n: int, split: str = "test", planet_seed: int = DEFAULT_SEED, progress: Progress = silent
) -> tuple[Scene, ...]:
    """The first n scenes of a split. Rendered once in a process, whatever the number of runs over them."""
    if n < 1:
        raise InputError(f"an evaluation needs at least one place, got {n}")
    planet = Planet(planet_seed)
    out = []
    for index, (lat, lon) in enumerate(planet.coordinates(split, n)):
        out.append(_scene(planet_seed, split, index, float(lat), float(lon)))
        progress("draw places", index + 1, n)
    return tuple(out)


@lru_cache(maxsize=16384)
def _scene(planet_seed: int, split: str, index: int, lat: float, lon: float) -> Scene:
    planet = Planet(planet_seed)
    photo, tile = planet.ground(lat, lon), planet.satellite(lat, lon)
    return Scene(f"{split}-{index:05d}", lat, lon, planet.describe(lat, lon), encode_jpeg(photo), encode_jpeg(tile))
