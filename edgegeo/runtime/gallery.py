"""A gallery: geo-tagged tiles embedded once, searched many times through a memory map.

NAME/
  gallery.json             GalleryInfo: who made it, how many, and the hash of every file
  vectors.npy              (N, dim) float32 or float16 unit vectors
  positions.npy            (N, 2) float64 latitude and longitude in degrees
  ids.bin ids.offsets.npy  ids, UTF-8
  thumbs.bin thumbs.offsets.npy   thumbnails, JPEG: re-ranking and the web page show them
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, FileEntry, sha256_of
from edgegeo.errors import GalleryError
from edgegeo.geo import Position
from edgegeo.progress import Progress, silent
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.image import Source
from edgegeo.runtime.packed import Packed
from edgegeo.runtime.search import exact_search
from edgegeo.schema import SchemaFault, parse

INFO_NAME = "gallery.json"
SCHEMA_VERSION = 1
FILES = {"vectors.npy", "positions.npy", "ids.bin", "ids.offsets.npy", "thumbs.bin", "thumbs.offsets.npy"}
DTYPES = ("float32", "float16")


class Row(NamedTuple):
    """One tile for a gallery; a plain tuple of the same four does as well."""

    id: str
    lat: float
    lon: float
    image: Source


@dataclass(frozen=True)
class Skipped:
    """A tile that could not be used, and why; kept in gallery.json so that nothing is dropped in silence."""

    id: str
    reason: str


@dataclass(frozen=True)
class GalleryInfo:
    """gallery.json, whole."""

    schema: int
    bundle: str
    """Name of the bundle that embedded the tiles."""
    embedding_id: str
    count: int
    dim: int
    dtype: str
    skipped: tuple[Skipped, ...]
    files: dict[str, FileEntry]


@dataclass(frozen=True)
class Hits:
    """Search results, best first, for Q queries and k hits each."""

    rows: NDArray[np.int64]
    """(Q, k) rows of the gallery."""
    ids: tuple[tuple[str, ...], ...]
    positions: NDArray[np.float64]
    """(Q, k, 2) latitude and longitude."""
    scores: NDArray[np.float32]
    """(Q, k) cosines."""


class Gallery:
    """An opened gallery; reading is safe from several threads."""

    def __init__(self, path: Path, info: GalleryInfo) -> None:
        self.path = path
        self.info = info
        self._vectors = _load(path / "vectors.npy", (info.count, info.dim), info.dtype)
        self._positions = _load(path / "positions.npy", (info.count, 2), "float64")
        self._ids = Packed(path, "ids", info.count)
        self._thumbs = Packed(path, "thumbs", info.count)
        self._rows: dict[str, int] | None = None

    @classmethod
    def build(
        cls,
        path: str | Path,
        rows: Iterable[Row | tuple[str, float, float, Source] | Skipped],
        embedder: Embedder,
        batch: int = 16,
        progress: Progress = silent,
        dtype: str = "float32",
    ) -> "Gallery":
        """Embed every tile, write the gallery beside `path`, move it there, and read it back.

        What stood at `path` survives any failure. Pictures that can't be opened are listed in `.skipped`; a NaN or
        impossible coordinate, or an id that comes twice, is an InputError naming the row. After the build some tiles
        are embedded again and must find themselves: GalleryError otherwise.
        """
        from edgegeo.runtime.gallery_build import build_gallery

        return build_gallery(Path(path), rows, embedder, batch, progress, dtype)

    @classmethod
    def open(
        cls,
        path: str | Path,
        embedding_id: str | None = None,
        bundle: Bundle | None = None,
        check_hashes: bool = True,
    ) -> "Gallery":
        """Read and check a gallery; GalleryError for a missing or damaged one, or one made by another bundle.

        Give the `bundle` (or only its `embedding_id`) that will embed the queries. `check_hashes=False` checks sizes
        only, for many gigabytes on slow storage.
        """
        path = Path(path)
        info = _read_info(path)
        wanted = bundle.embedding_id if bundle is not None else embedding_id
        if wanted is not None and wanted != info.embedding_id:
            other = f"bundle '{bundle.manifest.name}'" if bundle is not None else "this bundle"
            raise GalleryError(
                f"gallery {path} was made with bundle '{info.bundle}', {other} embeds differently; "
                f"rebuild it with: edgegeo index build --bundle {bundle.path if bundle else 'BUNDLE'} -o {path}"
            )
        for name, entry in info.files.items():
            _check_file(path, name, entry, check_hashes)
        return cls(path, info)

    def __len__(self) -> int:
        return self.info.count

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Tiles of the source that could not be used."""
        return self.info.skipped

    @property
    def positions(self) -> NDArray[np.float64]:
        """(N, 2) latitude and longitude in degrees, memory-mapped."""
        return self._positions

    def search(self, queries: NDArray[np.float32], k: int = 10) -> Hits:
        """The k tiles nearest to each query (Q, dim); exact; ties go to the lower row. k is cut to the gallery."""
        queries = np.atleast_2d(np.asarray(queries, np.float32))
        if queries.ndim != 2 or queries.shape[1] != self.info.dim:
            raise GalleryError(
                f"gallery {self.path} holds vectors of length {self.info.dim}, the query has shape {queries.shape}; "
                "embed it with the bundle that made the gallery"
            )
        if not np.isfinite(queries).all():
            raise GalleryError("the query vector holds NaN or infinite numbers; embed the query again")
        if k < 1:
            raise GalleryError(f"k must be at least 1, not {k}")
        rows, scores = exact_search(self._vectors, queries, k)
        ids = tuple(tuple(self.id(int(row)) for row in line) for line in rows)
        return Hits(rows, ids, np.asarray(self._positions[rows], np.float64), scores)

    def id(self, row: int) -> str:
        """Id of a row."""
        return self._ids[row].decode()

    def row(self, id: str) -> int | None:
        """Row of an id; None for an unknown one."""
        if self._rows is None:
            self._rows = {self.id(row): row for row in range(len(self))}
        return self._rows.get(id)

    def position(self, row: int) -> Position:
        """Where the tile of a row is."""
        return Position(float(self._positions[row, 0]), float(self._positions[row, 1]))

    def vector(self, row: int) -> NDArray[Any]:
        """The stored unit vector (dim,) of a row."""
        return np.asarray(self._vectors[row])

    def thumbnail(self, row: int) -> bytes:
        """The tile's thumbnail, a JPEG file."""
        return self._thumbs[row]


def _read_info(path: Path) -> GalleryInfo:
    if not path.is_dir():
        raise GalleryError(f"no gallery at {path}; build one with: edgegeo index build -o {path}")
    file = path / INFO_NAME
    try:
        data: Any = json.loads(file.read_bytes())
    except FileNotFoundError:
        raise GalleryError(f"{path} has no {INFO_NAME}: it is not a gallery; build one elsewhere") from None
    except (OSError, ValueError, RecursionError) as error:
        raise GalleryError(f"{file} can't be read ({error}); build the gallery again") from None
    version = data.get("schema") if isinstance(data, dict) else None
    if version != SCHEMA_VERSION:
        raise GalleryError(
            f"{path} has gallery version {version!r:.20}, this edgegeo reads version {SCHEMA_VERSION}; build it again"
        )
    try:
        info = parse(GalleryInfo, data, INFO_NAME)
    except SchemaFault as fault:
        raise GalleryError(f"{file} is damaged ({fault}); build the gallery again") from None
    if set(info.files) != FILES or info.dtype not in DTYPES or info.count < 1 or info.dim < 1:
        raise GalleryError(f"{file} is damaged (it lists other files or an unknown form); build the gallery again")
    return info


def _check_file(root: Path, name: str, entry: FileEntry, check_hash: bool) -> None:
    file = root / name
    if not file.is_file() or file.is_symlink():
        raise GalleryError(f"{file} is missing; build the gallery again")
    size = file.stat().st_size
    if size != entry.bytes:
        raise GalleryError(f"{file} has {size} bytes instead of {entry.bytes}: it was cut off; build the gallery again")
    if check_hash and sha256_of(file) != entry.sha256:
        raise GalleryError(f"{file} differs from its recorded hash: it was damaged; build the gallery again")


def _load(file: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise GalleryError(f"{file} can't be read ({error}); build the gallery again") from None
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise GalleryError(f"{file} holds {array.dtype} {array.shape} instead of {dtype} {shape}; build it again")
    return np.asarray(array)
