"""What a gallery offers, wherever it lies: in a folder, or in a database."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle
from edgegeo.geo import Position
from edgegeo.runtime.gallery.gallery import Gallery, Hits
from edgegeo.runtime.gallery.manifest import GalleryInfo
from edgegeo.runtime.gallery.region import Region
from edgegeo.runtime.gallery.rows import Origin, Skipped


class GalleryBackend(Protocol):
    """One version of a gallery, opened: it stays as it is, and reading is safe from several threads."""

    @property
    def name(self) -> str:
        """What it is called, without its whole place."""

    @property
    def info(self) -> GalleryInfo:
        """What made it, and how many tiles it has."""

    @property
    def version(self) -> int:
        """One more with every change."""

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Tiles of the source that could not be used."""

    @property
    def sources(self) -> tuple[Origin, ...]:
        """What it was built from, then what was added."""

    @property
    def positions(self) -> NDArray[np.float64]:
        """(N, 2) latitude and longitude in degrees."""

    def __len__(self) -> int:
        """How many tiles it has."""

    def __str__(self) -> str:
        """Its place, for messages."""

    def search(self, queries: NDArray[np.float32], k: int = 10, within: Region | None = None) -> Hits:
        """The k tiles nearest to each query (Q, dim), of all or `within` a region, ties by row; k is cut to them.

        GalleryError for queries of another length.
        """

    def id(self, row: int) -> str:
        """Id of a row."""

    def row(self, id: str) -> int | None:
        """Row of an id; None for an unknown one."""

    def position(self, row: int) -> Position:
        """Where the tile of a row is."""

    def vector(self, row: int) -> NDArray[Any]:
        """The stored unit vector (dim,) of a row."""

    def thumbnail(self, row: int) -> bytes:
        """The tile's thumbnail, a JPEG file."""

    def newest(self) -> "GalleryBackend":
        """The version that stands there now: this one if it is."""


def open_gallery(place: str | Path, bundle: Bundle | None = None) -> GalleryBackend:
    """A gallery by its folder or its address postgresql://HOST:PORT/DATABASE/GALLERY; GalleryError as from `open`."""
    from edgegeo.runtime.postgres.address import is_address

    if is_address(place):
        from edgegeo.runtime.postgres.gallery import PostgresGallery

        return PostgresGallery.open(str(place), bundle)
    return Gallery.open(place, bundle=bundle)
