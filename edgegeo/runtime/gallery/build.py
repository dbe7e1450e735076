"""Building a gallery: a stream of tiles through the embedder into a version that appears whole or not at all."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.errors import GalleryError
from edgegeo.progress import Progress, silent
from edgegeo.runtime.embed import Embedder
from edgegeo.runtime.gallery.compact import Layout, arranged
from edgegeo.runtime.gallery.gallery import Gallery, open_version
from edgegeo.runtime.gallery.intake import Intake, IntakeSettings
from edgegeo.runtime.gallery.manifest import INFO_NAME, JOURNAL_NAME, GalleryInfo, read_info
from edgegeo.runtime.gallery.rows import Origin, origin_of
from edgegeo.runtime.gallery.segment import Segment, Stack
from edgegeo.runtime.gallery.workers import TileWorkers
from edgegeo.runtime.gallery.writing import check_place, commit, writing
from edgegeo.runtime.pictures import Picture

_SELF_COSINE = 0.98
_SELF_SLACK = 0.01


@dataclass(frozen=True)
class BuildReport:
    """What a build did."""

    gallery: Gallery
    resumed: int
    """Tiles that an interrupted run had embedded already."""
    changed: int
    """Tiles that an interrupted run had embedded, and that the source no longer has as they were."""


def build_gallery(
    path: str | Path,
    rows: Iterable[Any],
    embedder: Embedder,
    batch: int = 16,
    progress: Progress = silent,
    dtype: str = "float32",
    settings: IntakeSettings | None = None,
    restart: bool = False,
    workers: TileWorkers | None = None,
) -> BuildReport:
    """`Gallery.build`; `settings` in place of `batch` and `dtype`, `restart` drops what an interrupted run finished.

    `workers` open the tiles, and may embed them (ray_workers.py); by default threads of this process do.
    GalleryError where unfinished work of another source or bundle is found, or another process writes.
    """
    path = Path(path)
    settings = settings or IntakeSettings(batch=batch, dtype=dtype)
    check_place(path)
    with writing(path, create=True):
        before = _standing(path)
        intake = Intake(path, embedder, settings, origin_of(rows), before, restart, workers=workers)
        intake.take(rows, progress)
        if len(intake) == 0:
            reasons = "; ".join(f"{s.id}: {s.reason}" for s in intake.skipped[:3])
            raise GalleryError(
                f"the source has no usable tiles{f' ({reasons})' if reasons else ''}; check its pictures"
            )
        bundle = embedder.model.bundle
        info = GalleryInfo(
            version=before.version + 1 if before else 1,
            bundle=bundle.manifest.name,
            embedding_id=bundle.embedding_id,
            dim=embedder.dim,
            dtype=settings.dtype,
            sources=(origin_of(rows) or Origin("rows"),),
            skipped=tuple(intake.skipped),
            segments=tuple(intake.segments()),
            absorbed=intake.token,
        )
        samples = intake.samples
        if settings.codes:
            segments = [Segment.open(path, entry, info.dim, info.dtype) for entry in info.segments]
            entry, order = arranged(path, Stack(segments), np.arange(info.count), Layout(settings.codes), progress)
            info = dataclasses.replace(info, segments=(entry,))
            samples = {int(np.flatnonzero(order == row)[0]): picture for row, picture in samples.items()}
        publish(path, info, before, embedder, samples, progress)
    return BuildReport(Gallery.open(path, bundle=bundle, check_hashes=False), intake.resumed, intake.changed)


def publish(
    path: Path,
    info: GalleryInfo,
    before: GalleryInfo | None,
    embedder: Embedder,
    samples: dict[int, Picture],
    progress: Progress,
    known: Sequence[Segment] = (),
) -> None:
    """Read a new version back from disk, prove a few of its tiles, and make it the gallery in place of `before`.

    `samples`: pictures by row; `known`: segments that need no reading back.
    """
    progress("check", 0, len(samples))
    gallery = open_version(path, info, {segment.entry.name: segment for segment in known})
    try:
        _check_self(gallery, embedder, samples)
    except GalleryError:
        (path / JOURNAL_NAME).unlink(missing_ok=True)  # what it lists is not to be trusted either
        raise
    progress("check", len(samples), len(samples))
    commit(path, info, before)


def _check_self(gallery: Gallery, embedder: Embedder, samples: dict[int, Picture]) -> None:
    """Every sampled tile, embedded alone, must be found where it was stored."""
    for row, picture in samples.items():
        vector = embedder.features(embedder.model.features(embedder.role.vision, [picture]))
        hits = gallery.search(vector, 1)
        own = float(np.asarray(gallery.vector(row), np.float32) @ vector[0])
        if own < _SELF_COSINE or own < float(hits.scores[0, 0]) - _SELF_SLACK:
            raise GalleryError(
                f"tile '{gallery.id(row)}' does not find itself in the new gallery (cosine {own:.3f}), {gallery.path} "
                "was not written; run edgegeo verify on the bundle"
            )


def _standing(path: Path) -> GalleryInfo | None:
    """The version that will be replaced, None where there is none that can be read."""
    if not (path / INFO_NAME).exists():
        return None
    try:
        return read_info(path)
    except GalleryError:
        return None
