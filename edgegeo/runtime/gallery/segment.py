"""Segments: the immutable folders that a gallery's rows lie in.

segments/NAME/
  vectors.npy                     (N, dim) float32 or float16 unit vectors
  positions.npy                   (N, 2) float64 latitude and longitude in degrees
  digests.npy                     (N, 32) uint8: identity of the row, content of its picture (rows.py)
  ids.bin ids.offsets.npy         ids, UTF-8
  thumbs.bin thumbs.offsets.npy   thumbnails, JPEG: re-ranking and the web page show them
  ids.keys.npy                    (N, 2) uint64: hashes of the ids, sorted, and their rows
  caps.npy                        (N / 64, 4) float32: a cap of the sphere round every 64 rows (hilbert.py)
  codes.npy scales.npy            int8 or binary codes for a first scan, where there are any (coded.py)
  inverted.faiss                  lists for an approximate search, where there are any (inverted.py)
  checksums.bin                   CRC-32 of every 16 KiB of the other files, uint32, files by name
Opening checks sizes and the hash of checksums.bin; everything else is checked where it is first read (checked.py).
"""

import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import FileEntry, sha256_of, sync
from edgegeo.errors import GalleryError
from edgegeo.runtime.gallery.checked import Checked, CheckedArray, Sums, blocks_of, sums_of
from edgegeo.runtime.gallery.exact import take_rows
from edgegeo.runtime.gallery.hilbert import BLOCK_ROWS, Caps, caps
from edgegeo.runtime.gallery.ids import IdRows, hash_of, sorted_keys
from edgegeo.runtime.gallery.manifest import SEGMENTS, SegmentEntry, StageEntry
from edgegeo.runtime.gallery.packed import Packed, PackedWriter
from edgegeo.runtime.gallery.rows import DIGEST_BYTES

CHECKSUMS = "checksums.bin"
KEYS = "ids.keys.npy"
CAPS = "caps.npy"
FILES = {
    "vectors.npy", "positions.npy", "digests.npy", "ids.bin", "ids.offsets.npy", "thumbs.bin", "thumbs.offsets.npy",
}  # fmt: skip
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
        self.folder = gallery / SEGMENTS / entry.name
        self.entry = entry
        sums = _read_sums(self.folder, entry)
        # All of them at once: whoever opened a version keeps it when a later one removes its files.
        self.files = {
            name: Checked(self.folder / name, sums[name] if sums is not None else None)
            for name in entry.files
            if name != CHECKSUMS
        }
        self.vectors = self.array("vectors.npy", (entry.rows, dim), dtype)
        self.positions = self.array("positions.npy", (entry.rows, 2), "float64")
        self.digests = self.array("digests.npy", (entry.rows, 2 * DIGEST_BYTES), "uint8")
        self.ids = Packed(self.files["ids.bin"], self.files["ids.offsets.npy"], entry.rows)
        self.thumbs = Packed(self.files["thumbs.bin"], self.files["thumbs.offsets.npy"], entry.rows)
        self.id_rows = IdRows(self.ids, self.array(KEYS, (entry.rows, 2), "<u8") if KEYS in entry.files else None)
        self.kept: dict[str, Any] = {}
        """What searches have read of it."""

    @classmethod
    def open(cls, gallery: Path, entry: SegmentEntry, dim: int, dtype: str, check_hashes: bool = True) -> "Segment":
        """Check every file's size and map it; hash it first where asked to, or where its blocks have no checksums."""
        if not entry.files.keys() >= FILES or any("/" in name or name in ("", ".", "..") for name in entry.files):
            raise GalleryError(f"{gallery}: segment {entry.name} lists other files; build the gallery again")
        whole = check_hashes or CHECKSUMS not in entry.files
        for name, file in entry.files.items():
            check_file(gallery / SEGMENTS / entry.name / name, file, whole or name == CHECKSUMS)
        return cls(gallery, entry, dim, dtype)

    def __len__(self) -> int:
        return self.entry.rows

    def array(self, name: str, shape: tuple[int, ...], dtype: str) -> CheckedArray:
        """One of its .npy files."""
        return CheckedArray(self.file(name), shape, dtype)

    def file(self, name: str) -> Checked:
        """One of its files; GalleryError where it has none of that name."""
        if name not in self.files:
            raise GalleryError(f"{self.folder} lacks {name}; build the gallery again")
        return self.files[name]

    def caps(self) -> Caps:
        """Caps round every 64 rows; read once."""
        if CAPS not in self.kept:
            shape = (-(-len(self) // BLOCK_ROWS), 4)
            stands = CAPS in self.entry.files
            self.kept[CAPS] = Caps(self.array(CAPS, shape, "float32").all() if stands else caps(self.positions.all()))
        found: Caps = self.kept[CAPS]
        return found


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

    def packed(self, parts: Sequence[Packed], rows: NDArray[np.int64]) -> list[bytes]:
        """Items of rows, in the order asked for, of one `Packed` a segment."""
        if len(parts) == 1:
            return parts[0].take(rows)
        which = np.searchsorted(self.starts, rows, side="right") - 1
        out = np.empty(len(rows), object)
        for part in np.unique(which).tolist():
            here = np.flatnonzero(which == part)
            for at, item in zip(here.tolist(), parts[part].take(rows[here] - self.starts[part]), strict=True):
                out[at] = item
        return list(out)

    def block(self, rows: NDArray[np.int64]) -> Block:
        """Rows in memory, in the order asked for."""
        return Block(
            self.packed([segment.ids for segment in self.segments], rows),
            take_rows([segment.positions for segment in self.segments], rows),
            take_rows(self.vectors, rows),
            self.packed([segment.thumbs for segment in self.segments], rows),
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


def write_segment(
    gallery: Path,
    count: int,
    blocks: Callable[[int, int], Block],
    by_place: bool = False,
    stages: Callable[[Path], tuple[StageEntry, ...]] = lambda folder: (),
) -> SegmentEntry:
    """A segment of `count` rows, `blocks(start, end)` giving them piece by piece, under a name never used before.

    `stages` is given the folder when the rows are in it, to add files of its own and say what they are. Nothing refers
    to the segment yet: a writer that is stopped here leaves rubbish that the next one removes. Who refers to it has to
    `sync_segment` it first.
    """
    name = secrets.token_hex(8)
    folder = gallery / SEGMENTS / name
    folder.mkdir(parents=True)
    try:
        _write_rows(folder, count, blocks)
        np.save(folder / CAPS, caps(np.load(folder / "positions.npy", mmap_mode="r")))
        made = stages(folder)
        checked = {file.name: (file.stat().st_size, *sums_of(file)) for file in sorted(folder.iterdir())}
        sums = np.concatenate([sums for _, _, sums in checked.values()])
        (folder / CHECKSUMS).write_bytes(sums.astype("<u4").tobytes())
        files = {name: FileEntry(size, sha256) for name, (size, sha256, _) in checked.items()}
        files[CHECKSUMS] = FileEntry(4 * len(sums), sha256_of(folder / CHECKSUMS))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return SegmentEntry(name, count, files, by_place, made)


def _write_rows(folder: Path, count: int, blocks: Callable[[int, int], Block]) -> None:
    hashes = bytearray()
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
                writer.extend(getattr(block, field))
            hashes += b"".join(map(hash_of, block.ids))
    np.save(folder / KEYS, sorted_keys(hashes))


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


def _read_sums(folder: Path, entry: SegmentEntry) -> dict[str, Sums] | None:
    """Checksums of blocks by file; None for a segment that has none. Its own hash was compared already."""
    if CHECKSUMS not in entry.files:
        return None
    counts = {name: blocks_of(file.bytes) for name, file in sorted(entry.files.items()) if name != CHECKSUMS}
    try:
        sums = np.frombuffer((folder / CHECKSUMS).read_bytes(), "<u4")
    except OSError as error:
        raise GalleryError(f"{folder / CHECKSUMS} can't be read ({error}); build the gallery again") from None
    if len(sums) != sum(counts.values()):
        raise GalleryError(f"{folder / CHECKSUMS} doesn't fit the segment's files; build the gallery again")
    return dict(zip(counts, np.split(sums, np.cumsum(list(counts.values()))[:-1]), strict=True))
