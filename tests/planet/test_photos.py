"""Photos on disk carry their position."""

from pathlib import Path

import pytest
from PIL import Image

from edgegeo.exif import read_gps
from edgegeo.planet import Planet
from edgegeo.planet.photos import write_photo


def test_a_photo_remembers_where_it_was_taken(tmp_path: Path) -> None:
    planet = Planet()
    for k, place in enumerate(planet.places("test", 5)):
        path = write_photo(tmp_path / f"{k}.jpg", planet, place.lat, place.lon, 33.5)
        with Image.open(path) as image:
            position = read_gps(image)
            heading = image.getexif().get_ifd(0x8825)[17]
        assert position is not None
        assert position.lat == pytest.approx(place.lat, abs=1e-6)
        assert position.lon == pytest.approx(place.lon, abs=1e-6)
        assert float(heading) == pytest.approx(33.5)
