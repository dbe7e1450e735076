"""Where samples come from besides the planet: a folder of photos, a data set, or (on request only) noise."""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from edgegeo.datasets import GpsSet, PositionSet, RetrievalSet, SftSet
from edgegeo.datasets.sets import Loaded, Picture, open_picture
from edgegeo.errors import ImageError, InputError
from edgegeo.exif import read_gps
from edgegeo.geo import Position
from edgegeo.planet.photos import encode_jpeg
from edgegeo.runtime import open_image

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
RANDOM_SIDE = 256


@dataclass(frozen=True)
class PlainSample:
    """A place of which anything but its id may be unknown: empty text, empty bytes, no position."""

    id: str
    text: str = ""
    photo: bytes = b""
    tile: bytes = b""
    lat: float | None = None
    lon: float | None = None


def photo_samples(folder: Path, count: int, seed: int) -> tuple[PlainSample, ...]:
    """Photos of a folder and its subfolders, drawn by the seed; positions from their EXIF where they have one.

    InputError without a picture that can be opened; damaged ones are passed over.
    """
    if not folder.is_dir():
        raise InputError(f"no folder at {folder}; give --photos a folder of pictures")
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURES and p.is_file())
    found: list[PlainSample] = []
    for index in _order(len(files), seed):
        data = files[index].read_bytes()
        try:
            open_image(data)
        except ImageError:
            continue
        with Image.open(BytesIO(data)) as image:
            where = read_gps(image)
        found.append(_sample(files[index].relative_to(folder).as_posix(), "", data, b"", where))
        if len(found) == count:
            break
    if not found:
        raise InputError(f"{folder} holds no picture that can be opened ({', '.join(PICTURES)}); name another folder")
    return tuple(found)


def dataset_samples(loaded: Loaded, count: int, seed: int) -> tuple[PlainSample, ...]:
    """Rows of a data set, drawn by the seed: texts, photos, tiles and positions as far as it has them."""
    rows = list(_rows(loaded))
    return tuple(rows[index]() for index in _order(len(rows), seed)[:count])


def random_samples(count: int, seed: int) -> tuple[PlainSample, ...]:
    """Noise in place of pictures and words; what is calibrated on it is of no use but to try the tools."""
    generator = np.random.default_rng(seed)
    found = []
    for index in range(count):
        pictures = [encode_jpeg(_noise(generator)) for _ in range(2)]
        text = "".join(chr(code) for code in generator.integers(97, 123, 40))
        lat, lon = generator.uniform(-90, 90), generator.uniform(-180, 180)
        found.append(PlainSample(f"random-{index:05d}", text, pictures[0], pictures[1], float(lat), float(lon)))
    return tuple(found)


def _order(count: int, seed: int) -> list[int]:
    return [int(index) for index in np.random.default_rng(seed).permutation(count)]


def _rows(loaded: Loaded) -> Iterator["_Row"]:
    if isinstance(loaded, RetrievalSet):
        for query, item in loaded.pairs():
            text = query.text or item.text or ""
            yield _Row(f"{query.id}~{item.id}", text, query.image, item.image, query.position or item.position)
    elif isinstance(loaded, GpsSet):
        for one in loaded.samples:
            yield _Row(one.id, "", one.image, None, one.position)
    elif isinstance(loaded, SftSet):
        for row in loaded.rows:
            yield _Row(row.id, "", row.images[0] if row.images else None, None, row.position)
    elif isinstance(loaded, PositionSet):
        raise InputError(f"{loaded.report.dataset} has positions only; calibrate on pictures or texts")


@dataclass(frozen=True)
class _Row:
    """A row whose pictures are not opened yet."""

    id: str
    text: str
    photo: Picture | None
    tile: Picture | None
    where: Position | None

    def __call__(self) -> PlainSample:
        return _sample(self.id, self.text, _bytes(self.photo), _bytes(self.tile), self.where)


def _sample(name: str, text: str, photo: bytes, tile: bytes, where: Position | None) -> PlainSample:
    return PlainSample(name, text, photo, tile, where.lat if where else None, where.lon if where else None)


def _bytes(picture: Picture | None) -> bytes:
    if picture is None:
        return b""
    return picture.read_bytes() if isinstance(picture, Path) else encode_jpeg(open_picture(picture))


def _noise(generator: np.random.Generator) -> Image.Image:
    return Image.fromarray(generator.integers(0, 256, (RANDOM_SIDE, RANDOM_SIDE, 3), dtype=np.uint8))
