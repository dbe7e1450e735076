"""Segments: the immutable folders that a gallery's rows lie in.

segments/NAME/
  vectors.npy                     (N, dim) float32 or float16 unit vectors
  positions.npy                   (N, 2) float64 latitude and longitude in degrees
  digests.npy                     (N, 32) uint8: identity of the row, content of its picture (gallery_rows.py)
  ids.bin ids.offsets.npy         ids, UTF-8
  thumbs.bin thumbs.offsets.npy   thumbnails, JPEG: re-ranking and the web page show them
A segment may list more files, of an index: they are checked like the others, and not read by who does not know them.
"""

import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import FileEntry, sha256_of
from edgegeo.errors import GalleryError
from edgegeo.runtime.gallery_manifest import SEGMENTS, SegmentEntry, sync
from edgegeo.runtime.gallery_rows import DIGEST_BYTES
from edgegeo.runtime.packed import Packed, PackedWriter
from edgegeo.runtime.search import take_rows

ID_FILES = ("ids.bin", "ids.offsets.npy")
FILES = {"vectors.npy", "positions.npy", "digests.npy", *ID_FILES, "thumbs.bin", "thumbs.offsets.npy"}
SEGMENT_ROWS = 1 << 18
"""Larger segments are never copied into one by builds and additions; only `compact` does."""
SEGMENT_NAME = re.compile(r"[0-9a-f]{16}")
"""Names of segments' folders: random, so that none is ever used twice."""
_COPY_ROWS = 2048


class Block(NamedTuple):
    """Rows in memory."""

    ids: list[bytes]
    positions: NDArray[np.float64]
    vectors: NDArray[Any]
    thumbs: list[bytes]
    digests: NDArray[np.uint8]


class Segment:
    """One opened segment, memory-mapped."""

    def __init__(self, gallery: Path, entry: SegmentEntry, dim: int, dtype: str) -> None:
        folder = gallery / SEGMENTS / entry.name
        self.entry = entry
        self.vectors = _load(folder / "vectors.npy", (entry.rows, dim), dtype)
        self.positions: NDArray[np.float64] = _load(folder / "positions.npy", (entry.rows, 2), "float64")
        self.digests: NDArray[np.uint8] = _load(folder / "digests.npy", (entry.rows, 2 * DIGEST_BYTES), "uint8")
        self.ids = Packed(folder, "ids", entry.rows)
        self.thumbs = Packed(folder, "thumbs", entry.rows)

    @classmethod
    def open(
        cls, gallery: Path, entry: SegmentEntry, dim: int, dtype: str, hashed: Collection[str] | None = None
    ) -> "Segment":
        """Check every file's size, and the hashes of all files or of the `hashed` ones, then map them."""
        if not entry.files.keys() >= FILES or any("/" in name or name in ("", ".", "..") for name in entry.files):
            raise GalleryError(f"{gallery}: segment {entry.name} lists other files; build the gallery again")
        for name, file in entry.files.items():
            check_file(gallery / SEGMENTS / entry.name / name, file, hashed is None or name in hashed)
        return cls(gallery, entry, dim, dtype)

    def __len__(self) -> int:
        return self.entry.rows


class Stack:
    """Segments one below the other, their rows numbered through."""

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self.starts = np.cumsum([0, *map(len, self.segments)])
        self.vectors = [segment.vectors for segment in self.segments]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def at(self, row: int) -> tuple[Segment, int]:
        """The segment of a row, and its number there."""
        which = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.segments[which], row - int(self.starts[which])

    def block(self, rows: NDArray[np.int64]) -> Block:
        """Rows in memory, in the order asked for."""
        places = [self.at(int(row)) for row in rows]
        return Block(
            [segment.ids[row] for segment, row in places],
            take_rows([segment.positions for segment in self.segments], rows),
            take_rows(self.vectors, rows),
            [segment.thumbs[row] for segment, row in places],
            take_rows([segment.digests for segment in self.segments], rows),
        )


def check_file(file: Path, entry: FileEntry, hashed: bool = True) -> None:
    """GalleryError for a file that is missing, cut off, a link, or, if `hashed`, differs from its hash."""
    try:
        if not file.is_file() or file.is_symlink():
            raise GalleryError(f"{file} is missing; build the gallery again")
        size = file.stat().st_size
        if size != entry.bytes:
            raise GalleryError(
                f"{file} has {size} bytes instead of {entry.bytes}: it was cut off; build the gallery again"
            )
        if hashed and sha256_of(file) != entry.sha256:
            raise GalleryError(f"{file} differs from its recorded hash: it was damaged; build the gallery again")
    except OSError as error:
        raise GalleryError(f"{file} can't be read ({error.strerror or error}); build the gallery again") from None


def write_segment(gallery: Path, count: int, blocks: Callable[[int, int], Block]) -> SegmentEntry:
    """A segment of `count` rows, `blocks(start, end)` giving them piece by piece, under a name never used before.

    Nothing refers to it yet: a writer that is stopped here leaves rubbish that the next one removes. Who refers to it
    has to `sync_segment` it first.
    """
    name = secrets.token_hex(8)
    folder = gallery / SEGMENTS / name
    folder.mkdir(parents=True)
    try:
        with ExitStack() as stack:
            first = blocks(0, min(count, _COPY_ROWS))
            arrays = {
                "vectors": _array(stack, folder / "vectors.npy", first.vectors, count),
                "positions": _array(stack, folder / "positions.npy", first.positions, count),
                "digests": _array(stack, folder / "digests.npy", first.digests, count),
            }
            packed = {field: stack.enter_context(PackedWriter(folder, field)) for field in ("ids", "thumbs")}
            for start in range(0, count, _COPY_ROWS):
                block = blocks(start, min(count, start + _COPY_ROWS)) if start else first
                for field, stream in arrays.items():
                    stream.write(np.ascontiguousarray(getattr(block, field)).tobytes())
                for field, writer in packed.items():
                    for item in getattr(block, field):
                        writer.append(item)
        files = {file.name: FileEntry(file.stat().st_size, sha256_of(file)) for file in sorted(folder.iterdir())}
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return SegmentEntry(name, count, files)


def sync_segment(gallery: Path, entry: SegmentEntry) -> None:
    """Make a segment survive a power cut."""
    folder = gallery / SEGMENTS / entry.name
    # At once: the file system puts what waits together into one write.
    with ThreadPoolExecutor(len(entry.files)) as pool:
        list(pool.map(sync, (folder / name for name in entry.files)))
    sync(folder)
    sync(folder.parent)


def copy_rows(gallery: Path, stack: Stack, rows: NDArray[np.int64]) -> list[SegmentEntry]:
    """Segments that hold these rows in this order: large ones that do so already as they are, the others copied."""
    out: list[SegmentEntry] = []

    def write(piece: NDArray[np.int64]) -> None:
        for start in range(0, len(piece), SEGMENT_ROWS):
            part = piece[start : start + SEGMENT_ROWS]
            out.append(write_segment(gallery, len(part), partial(_picked, stack, part)))

    done = 0
    for at, segment in sorted(_standing(stack, rows), key=itemgetter(0)):
        write(rows[done:at])
        out.append(segment.entry)
        done = at + len(segment)
    write(rows[done:])
    return out


def _picked(stack: Stack, rows: NDArray[np.int64], start: int, end: int) -> Block:
    return stack.block(rows[start:end])


def _standing(stack: Stack, rows: NDArray[np.int64]) -> Iterator[tuple[int, Segment]]:
    """Segments worth keeping whose rows stand among the asked ones whole and in order, and from where on."""
    for segment, start in zip(stack.segments, stack.starts, strict=False):
        if len(segment) < min(SEGMENT_ROWS, len(rows)):
            continue
        for at in np.flatnonzero(rows == start):
            if np.array_equal(rows[at : at + len(segment)], np.arange(start, start + len(segment))):
                yield int(at), segment


def _array(stack: ExitStack, file: Path, like: NDArray[Any], count: int) -> BinaryIO:
    stream = stack.enter_context(file.open("wb"))
    shape = (count, *like.shape[1:])
    head = {"descr": np.lib.format.dtype_to_descr(like.dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, head)
    return stream


def _load(file: Path, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise GalleryError(f"{file} can't be read ({error}); build the gallery again") from None
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise GalleryError(f"{file} holds {array.dtype} {array.shape} instead of {dtype} {shape}; build it again")
    return np.asarray(array)
