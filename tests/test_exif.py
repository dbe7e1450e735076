"""GPS positions in photos."""

import io
from fractions import Fraction

import pytest
from PIL import ExifTags, Image

from edgegeo.exif import read_gps, write_gps


def photo_with(exif: Image.Exif) -> Image.Image:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "JPEG", exif=exif)
    stream.seek(0)
    return Image.open(stream)


@pytest.mark.parametrize(("lat", "lon"), [(12.345678, -98.765432), (-59.9999999, 179.9999999), (0.0, 0.0), (90, -180)])
def test_positions_survive_a_file(lat: float, lon: float) -> None:
    exif = Image.Exif()
    write_gps(exif, lat, lon, heading=-90.0)
    photo = photo_with(exif)
    position = read_gps(photo)
    assert position is not None
    assert (position.lat, position.lon) == pytest.approx((lat, lon), abs=1e-7)
    assert float(photo.getexif().get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSImgDirection]) == 270.0


class Tampered(Image.Image):
    """An opened picture whose GPS directory holds whatever a broken camera wrote."""

    def __init__(self, gps: dict[int, object]) -> None:
        super().__init__()
        self.gps = gps

    def getexif(self) -> Image.Exif:
        exif = Image.Exif()
        exif._ifds[ExifTags.IFD.GPSInfo] = self.gps
        return exif


@pytest.mark.parametrize(
    "latitude", [None, (Fraction(200), Fraction(0), Fraction(0)), "garbage", (1.0, 2.0), (float("nan"), 0.0, 0.0)]
)
def test_unusable_positions_are_none(latitude: object) -> None:
    gps: dict[int, object] = {ExifTags.GPS.GPSLongitude: (Fraction(1), Fraction(0), Fraction(0))}
    assert read_gps(Tampered(gps | {ExifTags.GPS.GPSLatitude: (2.0, 0.0, 0.0)})) is not None
    if latitude is not None:
        gps[ExifTags.GPS.GPSLatitude] = latitude
    assert read_gps(Tampered(gps)) is None
