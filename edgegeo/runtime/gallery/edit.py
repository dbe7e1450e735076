"""Changing a gallery that stands: tiles added, replaced and deleted; compact.py merges its segments.

Each change is a new version that appears in one step; galleries that are open keep the version they opened
(`Gallery.newest` gives the new one). All of them raise GalleryBusyError while another process or thread writes.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import GalleryError
from edgegeo.progress import Progress, silent
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery.build import publish
from edgegeo.runtime.gallery.gallery import Gallery
from edgegeo.runtime.gallery.intake import Intake, IntakeSettings
from edgegeo.runtime.gallery.manifest import GalleryInfo, SegmentEntry
from edgegeo.runtime.gallery.region import Region
from edgegeo.runtime.gallery.rows import Drawn, Origin, Row, Skipped, origin_of
from edgegeo.runtime.gallery.segment import SEGMENT_ROWS, Segment, Stack, copy_rows
from edgegeo.runtime.gallery.standing import Standing
from edgegeo.runtime.gallery.writing import commit, write_deleted, writing
from edgegeo.runtime.image import Source


@dataclass(frozen=True)
class AddReport:
    """What an addition did."""

    added: int
    """Tiles that are in the gallery now, the replacing ones included."""
    replaced: int
    skipped: tuple[Skipped, ...]
    """Tiles that could not be used, and why."""
    version: int
    """Version of the gallery that holds them; the earlier one where nothing was added."""
    resumed: int = 0
    """Of the added, tiles that an interrupted run had embedded already."""
    changed: int = 0
    """Tiles that an interrupted run had embedded, and that the source no longer has as they were."""


def add_tiles(
    path: str | Path,
    rows: Iterable[Row | tuple[str, float, float, Source | Drawn] | Skipped],
    embedder: Embedder,
    replace: bool = False,
    settings: IntakeSettings | None = None,
    restart: bool = False,
    progress: Progress = silent,
) -> AddReport:
    """Embed tiles and append them; all of them appear, in one new version, or none does.

    An id that the gallery has is an InputError naming it, or with `replace` takes the place of the tile that had it.
    Pictures that can't be opened or come twice are skipped and reported. If the rows are `Tiles` (sources.py),
    an addition that was interrupted goes on where it stopped, unless `restart`. The gallery's dtype stands above that
    of the `settings`. GalleryError for a gallery of another bundle, or a source without any tile.
    """
    path = Path(path)
    with writing(path):
        gallery = Gallery.open(path, bundle=embedder.model.bundle)
        chosen = dataclasses.replace(settings or IntakeSettings(), dtype=gallery.info.dtype)
        intake = Intake(path, embedder, chosen, origin_of(rows), gallery.info, restart, Standing(gallery), replace)
        intake.take(rows, progress)
        if len(intake) == 0:
            if not intake.skipped:
                raise GalleryError(f"the source has no tiles; check it. {path} stays as it was")
            return AddReport(0, 0, tuple(intake.skipped), gallery.version)
        new = [Segment.open(path, entry, gallery.info.dim, gallery.info.dtype) for entry in intake.segments()]
        old = [row for segment in new for id in segment.ids.all() if (row := gallery.row(id.decode())) is not None]
        dead = np.union1d(gallery.deleted, gallery.stored(np.array(old, np.int64)))
        segments, dead = _appended(gallery, dead, new)
        sources = dict.fromkeys((*gallery.sources, origin_of(rows) or Origin("rows")))
        info = _next(gallery, segments, dead, sources=tuple(sources), absorbed=intake.token or gallery.info.absorbed)
        first = info.count - len(intake)
        samples = {first + number: picture for number, picture in intake.samples.items()}
        publish(path, info, gallery.info, embedder, samples, progress, known=(*gallery.stack.segments, *new))
    return AddReport(len(intake), len(old), tuple(intake.skipped), info.version, intake.resumed, intake.changed)


def delete_tiles(path: str | Path, ids: Iterable[str]) -> int:
    """Delete tiles by id and return how many there were; unknown ids change nothing.

    The vectors stay on disk until `compact`. GalleryError where nothing would be left.
    """
    path = Path(path)
    with writing(path):
        gallery = Gallery.open(path)
        rows = {row for id in ids if (row := gallery.row(id)) is not None}
        if not rows:
            return 0
        if len(rows) == len(gallery):
            raise GalleryError(f"that would leave nothing of the gallery {path}; remove its folder instead")
        dead = np.union1d(gallery.deleted, gallery.stored(np.array(sorted(rows), np.int64)))
        commit(path, _next(gallery, gallery.info.segments, dead), gallery.info)
    return len(rows)


def ids_within(gallery: Gallery, region: Region) -> list[str]:
    """Ids of the tiles in a region, for `delete_tiles`."""
    near = np.flatnonzero(region.holds(gallery.positions))
    return [gallery.id(int(row)) for row in near]


def _next(gallery: Gallery, segments: Sequence[SegmentEntry], dead: NDArray[np.int64], **changes: Any) -> GalleryInfo:
    """The version after the opened one."""
    version = gallery.version + 1
    deleted = write_deleted(gallery.path, dead, version)
    return dataclasses.replace(gallery.info, version=version, segments=tuple(segments), deleted=deleted, **changes)


def _appended(
    gallery: Gallery, dead: NDArray[np.int64], new: Sequence[Segment]
) -> tuple[list[SegmentEntry], NDArray[np.int64]]:
    """The segments with the new ones behind them, and their deleted rows.

    Small segments at the end are merged with the new ones, so that N additions of one tile leave about log2(N)
    segments to search; merged rows are copied about as often.
    """
    entries, info = list(gallery.info.segments), gallery.info
    rows, tail = sum(map(len, new)), len(entries)
    # Codes and lists stay what they are until `compact`.
    while tail and not entries[tail - 1].stages and entries[tail - 1].rows <= min(2 * rows, SEGMENT_ROWS):
        tail -= 1
        rows += entries[tail].rows
    if tail == len(entries):
        return [*entries, *(segment.entry for segment in new)], dead
    small = [Segment.open(gallery.path, entry, info.dim, info.dtype) for entry in entries[tail:]]
    stack, start = Stack([*small, *new]), sum(entry.rows for entry in entries[:tail])
    kept = np.setdiff1d(np.arange(len(stack)), dead[dead >= start] - start)
    return [*entries[:tail], *copy_rows(gallery.path, stack, kept)], dead[dead < start]
