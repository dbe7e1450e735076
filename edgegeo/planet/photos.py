"""Photos of the planet as files, with their position in EXIF like a phone writes it."""

from pathlib import Path

from PIL import Image

from edgegeo.exif import write_gps
from edgegeo.planet.globe import Planet


def write_photo(
    path: str | Path, planet: Planet, lat: float, lon: float, heading: float | None = None, size: int = 256
) -> Path:
    """Write the ground photo of a place as a JPEG with its GPS position and heading; returns the path."""
    place = planet.place(lat, lon)
    heading = place.heading if heading is None else heading % 360.0
    exif = Image.Exif()
    write_gps(exif, place.lat, place.lon, heading)
    path = Path(path)
    planet.ground(lat, lon, heading, size).save(path, "JPEG", quality=92, exif=exif)
    return path
