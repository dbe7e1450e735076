"""A gallery: geo-tagged tiles embedded once, searched many times through a memory map.

NAME/
  gallery.json       GalleryInfo: who made it, its version, its segments, and the hash of every file
  segments/          immutable folders of rows (segment.py)
  deleted-*.npy      numbers of the deleted rows, ascending int64, where there are any
  unfinished.json    what a build or an addition has embedded so far (intake.py)
  lock               held by the one writer
A change writes new files beside the old ones and then replaces gallery.json: a reader opens the old version or the new
one, and keeps what it opened.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle
from edgegeo.errors import GalleryError
from edgegeo.geo import Position
from edgegeo.progress import Progress, silent
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery.exact import searchable, take_rows
from edgegeo.runtime.gallery.manifest import GalleryInfo, read_info
from edgegeo.runtime.gallery.region import Region
from edgegeo.runtime.gallery.rows import Drawn, Origin, Row, Skipped
from edgegeo.runtime.gallery.search import search_stack
from edgegeo.runtime.gallery.segment import Segment, Stack, check_file
from edgegeo.runtime.image import Source

__all__ = ["Drawn", "Gallery", "Hits", "Row", "Skipped"]

_ATTEMPTS = 20


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
    """One version of a gallery, opened; it stays as it is, and reading is safe from several threads.

    Rows are numbered from 0 in the order of the source, or along a curve over the sphere once the gallery is compact;
    additions last, deleted tiles left out. Other versions number them otherwise, ids are for good.
    """

    def __init__(self, path: Path, info: GalleryInfo, segments: Sequence[Segment], deleted: NDArray[np.int64]) -> None:
        self.path = path
        self.info = info
        self.stack = Stack(segments)
        self.deleted = deleted
        """Rows of the stack that are deleted, ascending."""
        # The i-th deleted row comes before every row from here on.
        self._gaps = deleted - np.arange(len(deleted))
        self._positions: NDArray[np.float64] | None = None

    @classmethod
    def build(
        cls,
        path: str | Path,
        rows: Iterable[Row | tuple[str, float, float, Source | Drawn] | Skipped],
        embedder: Embedder,
        batch: int = 16,
        progress: Progress = silent,
        dtype: str = "float32",
    ) -> "Gallery":
        """Embed every tile, write the gallery, and read it back; see `build.build_gallery` for more choices.

        What stood at `path` stays in use until the new gallery is whole, and survives any failure. Pictures that
        can't be opened or come twice are listed in `.skipped`; a NaN or impossible coordinate, or an id that comes
        twice, is an InputError naming the row. Some tiles are embedded again and must find themselves: GalleryError
        otherwise. If the rows are `Tiles` (sources.py), a build that was interrupted goes on where it stopped.
        """
        from edgegeo.runtime.gallery.build import build_gallery

        return build_gallery(path, rows, embedder, batch, progress, dtype).gallery

    @classmethod
    def open(
        cls,
        path: str | Path,
        embedding_id: str | None = None,
        bundle: Bundle | None = None,
        check_hashes: bool = False,
    ) -> "Gallery":
        """Read and check a gallery; GalleryError for a missing or damaged one, or one made by another bundle.

        Give the `bundle` (or only its `embedding_id`) that will embed the queries. What describes the gallery is
        checked now, and every file's size; the rest block by block where it is first read, any later call raising
        GalleryError for damage. `check_hashes` hashes every file now.
        """

        def check(info: GalleryInfo) -> None:
            wanted = bundle.embedding_id if bundle is not None else embedding_id
            if wanted is not None and wanted != info.embedding_id:
                other = "this bundle" if bundle is None else f"bundle '{bundle.manifest.name}'"
                if bundle is not None and bundle.manifest.name == info.bundle:
                    other = "the one of this name at hand"
                raise GalleryError(
                    f"gallery {path} was made with bundle '{info.bundle}', {other} embeds differently; "
                    f"rebuild it with: edgegeo index build --bundle {bundle.path if bundle else 'BUNDLE'} -o {path}"
                )

        return _open_newest(Path(path), check, {}, check_hashes)

    def newest(self) -> "Gallery":
        """The version that stands on disk now: this one if it is, otherwise a new one that shares what is unchanged.

        Only files that this version did not have are checked. GalleryError as from `open`.
        """

        def check(info: GalleryInfo) -> None:
            if info.embedding_id != self.info.embedding_id:
                raise GalleryError(f"gallery {self.path} was built again with another bundle; open it with that one")

        if read_info(self.path) == self.info:
            return self
        known = {segment.entry.name: segment for segment in self.stack.segments}
        return _open_newest(self.path, check, known, False)

    def __len__(self) -> int:
        return self.info.count

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.path.name

    @property
    def version(self) -> int:
        """One more with every change of the gallery."""
        return self.info.version

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Tiles of the source that could not be used."""
        return self.info.skipped

    @property
    def sources(self) -> tuple[Origin, ...]:
        """What it was built from, then what was added."""
        return self.info.sources

    @property
    def positions(self) -> NDArray[np.float64]:
        """(N, 2) latitude and longitude in degrees; memory-mapped where the gallery is of one piece."""
        if self._positions is None:
            parts = [segment.positions.all() for segment in self.stack.segments]
            whole = parts[0] if len(parts) == 1 else np.concatenate(parts)
            self._positions = np.delete(whole, self.deleted, axis=0) if len(self.deleted) else whole
        return self._positions

    def search(self, queries: NDArray[np.float32], k: int = 10, within: Region | None = None) -> Hits:
        """The k tiles nearest to each query (Q, dim), of the whole gallery or `within` a region (region.py).

        Ties go to the lower row; k is cut to the tiles there are. Exact for float rows; codes and approximate lists
        keep the share of the nearest that was measured when they were made (`StageEntry.recall`).
        """
        queries = searchable(queries, k, self.info.dim, str(self))
        stored, scores = search_stack(self.stack, queries, k, self.deleted, within)
        positions = take_rows([segment.positions for segment in self.stack.segments], stored.ravel())
        rows = stored - np.searchsorted(self.deleted, stored)
        names = self.stack.packed([segment.ids for segment in self.stack.segments], stored.ravel())
        wide = rows.shape[1]
        ids = tuple(tuple(name.decode() for name in names[at * wide : (at + 1) * wide]) for at in range(len(rows)))
        return Hits(rows, ids, np.asarray(positions, np.float64).reshape(*rows.shape, 2), scores)

    def id(self, row: int) -> str:
        """Id of a row."""
        segment, at = self._at(row)
        return segment.ids[at].decode()

    def row(self, id: str) -> int | None:
        """Row of an id; None for an unknown one."""
        try:
            wanted = id.encode()
        except UnicodeEncodeError:
            return None
        for segment, start in zip(self.stack.segments, self.stack.starts.tolist(), strict=False):
            for at in segment.id_rows.rows(wanted):
                before = int(np.searchsorted(self.deleted, start + at))
                if before == len(self.deleted) or self.deleted[before] != start + at:
                    return int(start + at - before)
        return None

    def position(self, row: int) -> Position:
        """Where the tile of a row is."""
        segment, at = self._at(row)
        return Position(float(segment.positions[at, 0]), float(segment.positions[at, 1]))

    def vector(self, row: int) -> NDArray[Any]:
        """The stored unit vector (dim,) of a row."""
        segment, at = self._at(row)
        return np.asarray(segment.vectors[at])

    def thumbnail(self, row: int) -> bytes:
        """The tile's thumbnail, a JPEG file."""
        segment, at = self._at(row)
        return segment.thumbs[at]

    def stored(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the stack, deleted ones counted, for rows of the gallery."""
        return rows + np.searchsorted(self._gaps, rows, side="right")

    def _at(self, row: int) -> tuple[Segment, int]:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.stack.at(int(self.stored(np.array(row, np.int64))) if len(self.deleted) else row)


def open_version(path: Path, info: GalleryInfo, known: dict[str, Segment], check_hashes: bool = True) -> Gallery:
    """The gallery that `info` describes; segments in `known` are taken over unchecked."""
    segments = [
        known.get(entry.name) or Segment.open(path, entry, info.dim, info.dtype, check_hashes)
        for entry in info.segments
    ]
    deleted = np.empty(0, np.int64)
    if info.deleted is not None:
        file = path / info.deleted.name
        check_file(file, info.deleted.file)
        try:
            deleted = np.load(file, allow_pickle=False)
        except (OSError, ValueError) as error:
            raise GalleryError(f"{file} can't be read ({error}); build the gallery again") from None
        if deleted.shape != (info.deleted.rows,) or deleted.dtype != np.int64 or bool((np.diff(deleted) < 1).any()):
            raise GalleryError(f"{file} is damaged (its rows don't fit); build the gallery again")
        if len(deleted) and not 0 <= deleted[0] <= deleted[-1] < info.stored:
            raise GalleryError(f"{file} is damaged (its rows don't fit); build the gallery again")
    return Gallery(path, info, segments, deleted)


def _open_newest(
    path: Path, check: Callable[[GalleryInfo], None], known: dict[str, Segment], check_hashes: bool
) -> Gallery:
    """`open_version` of what stands there; again where a writer replaced it, and removed its files, meanwhile."""
    info = read_info(path)
    for _ in range(_ATTEMPTS):
        check(info)
        try:
            return open_version(path, info, known, check_hashes)
        except GalleryError:
            newer = read_info(path)
            if newer == info:
                raise
            info = newer
    raise GalleryError(f"gallery {path} is being changed faster than it can be opened; try again in a moment")
