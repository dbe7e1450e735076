"""What loaders yield: retrieval sets, positions of pictures, bare positions, and conversations to train on."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.datasets.protocol import GpsProtocol, RetrievalProtocol
from edgegeo.datasets.report import Report
from edgegeo.errors import InputError
from edgegeo.geo import Position, distance_km
from edgegeo.planet import Planet

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Drawn:
    """A picture of the planet that is drawn when it is opened."""

    seed: int
    lat: float
    lon: float
    view: Literal["satellite", "ground"]
    size: int

    def __str__(self) -> str:
        return f"{self.view} view of {self.lat:.4f}, {self.lon:.4f} (planet {self.seed})"

    def open(self) -> Image.Image:
        """The picture, (size, size) RGB."""
        planet = Planet(self.seed)
        draw = planet.satellite if self.view == "satellite" else planet.ground
        return draw(self.lat, self.lon, size=self.size)


Picture = Path | Drawn


def open_picture(picture: Picture) -> Image.Image:
    """Any picture of a data set as upright RGB; ImageError for a damaged file."""
    if isinstance(picture, Drawn):
        return picture.open()
    from edgegeo.runtime.image import open_image

    return open_image(picture)


@dataclass(frozen=True, slots=True)
class Region:
    """A sentence about a part of a picture, and where that part is: centre and size as shares of the picture."""

    text: str
    box: tuple[float, float, float, float] | None


@dataclass(frozen=True, slots=True)
class Item:
    """Something to embed, query or gallery item alike: a text, a picture, or both."""

    id: str
    group: str
    """Items of one group match: the building, the place, the image with its captions."""
    pair: str
    """The very picture it is of or about; training pairs are made of equal ones."""
    text: str | None = None
    image: Picture | None = None
    """Only named, opened at use: see `open`."""
    position: Position | None = None
    regions: tuple[Region, ...] = ()

    def open(self) -> Image.Image:
        """The picture as upright RGB; InputError for an item that has none."""
        if self.image is None:
            raise InputError(f"{self.id} has no picture")
        return open_picture(self.image)


@dataclass(frozen=True)
class RetrievalSet:
    """Queries and the gallery they are looked up in."""

    queries: tuple[Item, ...]
    gallery: tuple[Item, ...]
    protocols: tuple[RetrievalProtocol, ...]
    """The first is the data set's own."""
    report: Report
    candidates: tuple[tuple[int, ...], ...] | None = None
    """For each query the gallery rows it is ranked among, where the data set gives them."""
    negatives: tuple[tuple[int, ...], ...] | None = None
    """For each query gallery rows that are hard to tell from the right one."""

    def positives(self, query: Item, hit: Literal["group", "pair"] = "group") -> tuple[int, ...]:
        """The gallery rows that are hits for a query, in order."""
        found = self._by_group if hit == "group" else self._by_pair
        return found.get(getattr(query, hit), ())

    def pool(self, row: int, protocol: RetrievalProtocol) -> NDArray[np.int64] | None:
        """(G,) the gallery rows that query number `row` is ranked among under a protocol; None for all of them."""
        if protocol.pool == "given":
            if self.candidates is None:
                raise InputError(f"{self.report.dataset} gives no candidates; use another of its protocols")
            return np.array(self.candidates[row], np.int64)
        if protocol.pool == "nearest":
            truth = self.queries[row].position
            if truth is None or np.isnan(self.positions).any():
                raise InputError(f"{self.report.dataset} lacks positions, which '{protocol.name}' needs")
            km = distance_km(self.positions[:, 0], self.positions[:, 1], truth.lat, truth.lon)
            return np.argsort(km, kind="stable")[: protocol.nearest].astype(np.int64)
        return None

    @cached_property
    def positions(self) -> Floats:
        """(N, 2) latitude and longitude of the gallery, NaN where unknown."""
        rows = [(i.position.lat, i.position.lon) if i.position else (np.nan, np.nan) for i in self.gallery]
        return np.array(rows, np.float64).reshape(len(rows), 2)

    def pairs(self) -> Iterator[tuple[Item, Item]]:
        """Every query with every gallery item of the same picture: what contrastive training learns from."""
        for query in self.queries:
            for row in self.positives(query, "pair"):
                yield query, self.gallery[row]

    def reversed(self) -> "RetrievalSet":
        """Queries and gallery exchanged: image to text instead of text to image."""
        if self.candidates is not None or self.negatives is not None:
            raise InputError(f"{self.report.dataset} gives candidates for its own queries; it has one direction only")
        return replace(self, queries=self.gallery, gallery=self.queries)

    def pictures(self) -> set[Path]:
        """Every picture file named."""
        return {item.image for side in (self.queries, self.gallery) for item in side if isinstance(item.image, Path)}

    @cached_property
    def _by_group(self) -> dict[str, tuple[int, ...]]:
        return _index(item.group for item in self.gallery)

    @cached_property
    def _by_pair(self) -> dict[str, tuple[int, ...]]:
        return _index(item.pair for item in self.gallery)


@dataclass(frozen=True, slots=True)
class GpsSample:
    """A picture and where it was taken."""

    id: str
    position: Position
    image: Picture
    benchmark: str = ""
    """Which benchmark it belongs to, where a data set holds several."""

    def open(self) -> Image.Image:
        """The picture as upright RGB."""
        return open_picture(self.image)


@dataclass(frozen=True)
class GpsSet:
    """Pictures with their positions."""

    samples: tuple[GpsSample, ...]
    protocols: tuple[GpsProtocol, ...]
    report: Report

    @cached_property
    def positions(self) -> Floats:
        """(N, 2) latitude and longitude in degrees."""
        return np.array([(s.position.lat, s.position.lon) for s in self.samples], np.float64).reshape(-1, 2)

    def pictures(self) -> set[Path]:
        """Every picture file named."""
        return {sample.image for sample in self.samples if isinstance(sample.image, Path)}


@dataclass(frozen=True, eq=False)
class PositionSet:
    """Bare positions, such as the galleries that location encoders search."""

    positions: Floats
    """(N, 2) latitude and longitude in degrees."""
    report: Report

    def pictures(self) -> set[Path]:
        """None."""
        return set()


@dataclass(frozen=True, slots=True)
class SftRow:
    """One conversation about a picture: what is asked, and the answer to be learned."""

    id: str
    images: tuple[Picture, ...]
    prompt: str
    """With `<image>` where each picture stands."""
    answer: str
    position: Position
    """Parsed from the answer."""
    caption: dict[str, Any] | None = None
    """The geo-caption, where the answer is one."""


@dataclass(frozen=True)
class SftSet:
    """Conversations to fine-tune on."""

    rows: tuple[SftRow, ...]
    protocols: tuple[GpsProtocol, ...]
    report: Report

    def pictures(self) -> set[Path]:
        """Every picture file named."""
        return {image for row in self.rows for image in row.images if isinstance(image, Path)}


Loaded = RetrievalSet | GpsSet | PositionSet | SftSet


def count(loaded: Loaded) -> dict[str, int]:
    """How much a set holds, by what it holds."""
    if isinstance(loaded, RetrievalSet):
        groups = len({item.group for item in loaded.gallery})
        return {"queries": len(loaded.queries), "gallery": len(loaded.gallery), "groups": groups}
    if isinstance(loaded, GpsSet):
        return {"pictures": len(loaded.samples)}
    if isinstance(loaded, PositionSet):
        return {"positions": len(loaded.positions)}
    return {"conversations": len(loaded.rows)}


def _index(keys: Iterator[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, []).append(row)
    return {key: tuple(rows) for key, rows in found.items()}
