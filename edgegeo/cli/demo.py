"""The demonstration planet as the command line uses it: unseen places by number, and their photos."""

from pathlib import Path
from typing import TYPE_CHECKING

from edgegeo.cli.files import write_whole
from edgegeo.errors import InputError
from edgegeo.home import data_home

if TYPE_CHECKING:
    from edgegeo.planet import Place, Planet

LAST_PLACE = 99_999


def unseen_place(planet: "Planet", number: int) -> "Place":
    """The number-th place that no training has seen; the first ones are those of the default gallery."""
    if not 0 <= number <= LAST_PLACE:
        raise InputError(f"place numbers go from 0 to {LAST_PLACE}, got {number}")
    return planet.places("test", number + 1)[number]


def demo_photo(planet: "Planet", number: int) -> Path:
    """A photo with EXIF GPS of an unseen place, under the data home."""
    from edgegeo.planet.photos import write_photo

    place = unseen_place(planet, number)
    target = data_home() / "demo" / f"place-{number:05d}.jpg"
    return write_whole(target, lambda draft: write_photo(draft, planet, place.lat, place.lon))
