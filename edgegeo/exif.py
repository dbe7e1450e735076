"""GPS positions in photo metadata (EXIF 2.32, GPS IFD)."""

from fractions import Fraction
from typing import Any

from PIL import ExifTags, Image

from edgegeo.errors import InputError
from edgegeo.geo import Position


def write_gps(exif: Image.Exif, lat: float, lon: float, heading: float | None = None) -> None:
    """Put a position (degrees) and, if given, the camera's true heading (degrees) into `exif`."""
    Position(lat, lon)
    gps: dict[int, Any] = {
        ExifTags.GPS.GPSVersionID: b"\x02\x03\x00\x00",
        ExifTags.GPS.GPSLatitudeRef: "N" if lat >= 0 else "S",
        ExifTags.GPS.GPSLatitude: _to_dms(abs(lat)),
        ExifTags.GPS.GPSLongitudeRef: "E" if lon >= 0 else "W",
        ExifTags.GPS.GPSLongitude: _to_dms(abs(lon)),
    }
    if heading is not None:
        gps[ExifTags.GPS.GPSImgDirectionRef] = "T"
        gps[ExifTags.GPS.GPSImgDirection] = Fraction(round((heading % 360.0) * 100), 100)
    exif[ExifTags.IFD.GPSInfo] = gps


def read_gps(image: Image.Image) -> Position | None:
    """The position stored in a photo, or None if it has none or an unusable one (NaN, out of range, 0/0)."""
    gps = image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    try:
        lat = _from_dms(gps[ExifTags.GPS.GPSLatitude])
        lon = _from_dms(gps[ExifTags.GPS.GPSLongitude])
        if str(gps.get(ExifTags.GPS.GPSLatitudeRef, "N")).strip("\0 ").upper() == "S":
            lat = -lat
        if str(gps.get(ExifTags.GPS.GPSLongitudeRef, "E")).strip("\0 ").upper() == "W":
            lon = -lon
        return Position(lat, lon)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, InputError):
        return None


def _to_dms(degrees: float) -> tuple[Fraction, Fraction, Fraction]:
    # 1/10,000 of a second is 3 mm on the ground; rounding the whole first keeps 59.99999" from becoming 60".
    total = round(degrees * 3600 * 10_000)
    whole_seconds, tenthousandths = divmod(total, 10_000)
    minutes, seconds = divmod(whole_seconds, 60)
    return (
        Fraction(minutes // 60),
        Fraction(minutes % 60),
        Fraction(seconds * 10_000 + tenthousandths, 10_000),
    )


def _from_dms(values: Any) -> float:
    degrees, minutes, seconds = (float(v) for v in values)
    return degrees + minutes / 60 + seconds / 3600
