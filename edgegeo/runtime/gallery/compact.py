"""Compaction: the rows that are there in one segment, in the order of the sphere, with codes for a first scan."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import GalleryError, InputError
from edgegeo.progress import Progress, silent
from edgegeo.runtime.gallery.coded import CODES as CODED
from edgegeo.runtime.gallery.coded import SCALES
from edgegeo.runtime.gallery.gallery import Gallery, open_version
from edgegeo.runtime.gallery.hilbert import curve
from edgegeo.runtime.gallery.inverted import INVERTED, require_faiss
from edgegeo.runtime.gallery.manifest import DTYPES, GalleryInfo, SegmentEntry, StageEntry
from edgegeo.runtime.gallery.segment import CHECKSUMS, Block, Stack, write_segment
from edgegeo.runtime.gallery.stages import make_stages
from edgegeo.runtime.gallery.writing import commit, writing

CODES = ("float32", "float16", "int8", "binary")
APPROXIMATE_ROWS = 200_000
"""From here on coded galleries get an approximate index unless told otherwise: a scan takes tens of milliseconds."""
_SAMPLES = 16
_SLACK = 1e-3  # between a float16 row and itself


@dataclass(frozen=True)
class Layout:
    """How compaction stores rows."""

    codes: str
    """One of CODES. float32 and float16 rows are scanned as they are; int8 and binary codes are scanned in memory, and
    the candidates scored by float16 rows on disk."""
    approximate: bool | None = None
    """Whether coded rows get lists for an approximate search (FAISS); None: from APPROXIMATE_ROWS on."""

    def __post_init__(self) -> None:
        if self.codes not in CODES:
            raise InputError(f"--codes takes one of {', '.join(CODES)}, not {self.codes!r:.40}")
        if self.approximate and not self.coded:
            raise InputError("an approximate index needs --codes int8 or binary")

    @property
    def coded(self) -> bool:
        """Whether there are codes beside the rows."""
        return self.codes not in DTYPES

    @property
    def dtype(self) -> str:
        """Of the stored rows."""
        return "float16" if self.coded else self.codes

    def lists(self, rows: int) -> bool:
        """Whether so many rows get an approximate index."""
        return self.coded and (rows >= APPROXIMATE_ROWS if self.approximate is None else self.approximate)


def compact(path: str | Path, layout: Layout | None = None, progress: Progress = silent) -> int:
    """Copy the rows that are there into one segment in the order of the sphere and return the new version.

    Without a `layout` codes stay what they are. Disk space for the copy is needed beside the gallery until it stands;
    a gallery that is compact already stays as it is. GalleryError where rows would need a precision they don't have.
    """
    path = Path(path)
    with writing(path):
        gallery = Gallery.open(path)
        layout = layout or Layout(codes_of(gallery.info))
        if gallery.info.dtype == "float16" and layout.dtype == "float32":
            raise GalleryError(f"the rows of {path} are float16, float32 needs another build: edgegeo index build")
        if _stands(gallery, layout):
            return gallery.version
        rows = gallery.stored(np.arange(len(gallery)))
        entry, _ = arranged(path, gallery.stack, rows, layout, progress)
        info = dataclasses.replace(
            gallery.info, version=gallery.version + 1, dtype=layout.dtype, segments=(entry,), deleted=None
        )
        check_self(open_version(path, info, {}, check_hashes=False))
        commit(path, info, gallery.info)
    return info.version


def arranged(
    path: Path, stack: Stack, rows: NDArray[np.int64], layout: Layout, progress: Progress = silent
) -> tuple[SegmentEntry, NDArray[np.int64]]:
    """A segment of the stack's `rows` along the curve, and which of them each of its rows is; nothing refers to it."""
    lists = layout.lists(len(rows))
    if lists:
        require_faiss(path)
    positions = np.concatenate([segment.positions.all() for segment in stack.segments])[rows]
    order = np.argsort(curve(positions), kind="stable")
    stages = partial(make_stages, kind=layout.codes, approximate=lists, progress=progress) if layout.coded else _none
    blocks = partial(_block, stack, rows[order], layout.dtype, progress)
    return write_segment(path, len(rows), blocks, by_place=True, stages=stages), order


def scanned_bytes(info: GalleryInfo) -> int:
    """Bytes that a search of everything keeps in memory: codes, or lists, or the rows where a segment has neither."""
    total = 0
    for entry in info.segments:
        read = {"ivf": (INVERTED,), "int8": (CODED, SCALES), "binary": (CODED, SCALES)}
        names = read[entry.stages[-1].kind] if entry.stages else ("vectors.npy",)
        total += sum(entry.files[name].bytes for name in names)
    return total


def codes_of(info: GalleryInfo) -> str:
    """What a gallery's rows are scanned by: one of CODES."""
    return next((stage.kind for segment in info.segments for stage in segment.stages), info.dtype)


def check_self(gallery: Gallery) -> None:
    """Some rows must find themselves, by whatever stages there are; GalleryError otherwise."""
    for row in np.unique(np.linspace(0, len(gallery) - 1, _SAMPLES).astype(np.int64)).tolist():
        vector = np.asarray(gallery.vector(row), np.float32)
        if not gallery.search(vector, 1).scores[0, 0] >= float(vector @ vector) - _SLACK:
            raise GalleryError(
                f"tile '{gallery.id(row)}' does not find itself in the new gallery, {gallery.path} was not changed; "
                "compact it with other --codes"
            )


def _stands(gallery: Gallery, layout: Layout) -> bool:
    info = gallery.info
    kinds = ((layout.codes,) if layout.coded else ()) + (("ivf",) if layout.lists(len(gallery)) else ())
    return (
        [(entry.by_place, tuple(stage.kind for stage in entry.stages)) for entry in info.segments] == [(True, kinds)]
        and info.deleted is None
        and info.dtype == layout.dtype
        and CHECKSUMS in info.segments[0].files
    )


def _block(stack: Stack, rows: NDArray[np.int64], dtype: str, progress: Progress, start: int, end: int) -> Block:
    block = stack.block(rows[start:end])
    progress("rows", end, len(rows))
    return block._replace(vectors=block.vectors.astype(dtype, copy=False))


def _none(folder: Path) -> tuple[StageEntry, ...]:
    return ()
