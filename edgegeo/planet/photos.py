"""Pictures of the planet as JPEG, and photos with their position in EXIF like a phone writes it."""

import io
from pathlib import Path

from PIL import Image

from edgegeo.exif import write_gps
from edgegeo.planet.globe import Planet

JPEG_QUALITY = 92
"""What cameras and tile servers write; the models see pictures that went through it."""


def encode_jpeg(image: Image.Image) -> bytes:
    """A picture as the bytes of a JPEG file."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def write_photo(
    path: str | Path, planet: Planet, lat: float, lon: float, heading: float | None = None, size: int = 256
) -> Path:
    """Write the ground photo of a place as a JPEG with its GPS position and heading; returns the path."""
    place = planet.place(lat, lon)
    heading = place.heading if heading is None else heading % 360.0
    exif = Image.Exif()
    write_gps(exif, place.lat, place.lon, heading)
    path = Path(path)
    planet.ground(lat, lon, heading, size).save(path, "JPEG", quality=JPEG_QUALITY, exif=exif)
    return path
