"""Files mapped read-only whose blocks are compared with their checksums before a byte of them is used.

Opening costs nothing, whatever the size; what is read is checked once, block by block, at its first use. A CRC-32 finds
every flipped byte of a block; a file's SHA-256 stands in the manifest, for who wants all of it proved at once.
"""

import hashlib
import zlib
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import GalleryError

BLOCK = 1 << 14
"""Bytes under one checksum: a candidate that is looked at costs one or two of them, a gigabyte has 256 kB of sums."""
_PIECE = 64 * BLOCK
_HEAD = 4096
Sums = NDArray[np.uint32]


def blocks_of(size: int) -> int:
    """How many blocks a file of so many bytes has."""
    return -(-size // BLOCK)


def sums_of(file: Path) -> tuple[str, Sums]:
    """Hex SHA-256 of a file and the CRC-32 of each of its blocks, in one pass."""
    digest, sums = hashlib.sha256(), []
    with file.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
            view = memoryview(piece)
            sums += [zlib.crc32(view[start : start + BLOCK]) for start in range(0, len(piece), BLOCK)]
    return digest.hexdigest(), np.array(sums, "<u4")


class Checked:
    """One mapped file. Without `sums` nothing is compared: the file was hashed as a whole when it was opened."""

    def __init__(self, file: Path, sums: Sums | None) -> None:
        try:
            self.size = file.stat().st_size
            # An empty file can't be mapped.
            self.mapped: NDArray[np.uint8] = (
                np.asarray(np.memmap(file, np.uint8, "r")) if self.size else np.empty(0, np.uint8)
            )
        except (OSError, ValueError) as error:
            raise GalleryError(f"{file} can't be read ({error}); build the gallery again") from None
        self.file = file
        self._sums = np.empty(0, "<u4") if sums is None else sums
        self._todo = np.full(blocks_of(self.size), sums is not None)
        self._done = sums is None or self.size == 0

    def bytes(self, start: int, end: int) -> NDArray[np.uint8]:
        """Bytes from start to end, checked; a view of the map."""
        if not self._done and end > start:
            first = start // BLOCK
            self._check(first + np.flatnonzero(self._todo[first : blocks_of(end)]))
        return self.mapped[start:end]

    def check_spans(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
        """Check the blocks of many spans of bytes, from starts and up to ends."""
        if self._done or len(starts) == 0:
            return
        first, last = starts // BLOCK, np.maximum(ends - 1, starts) // BLOCK
        last = np.minimum(last, len(self._todo) - 1)
        for step in range(int((last - first).max()) + 1):
            here = np.minimum(first + step, last)
            if (waiting := self._todo[here]).any():
                self._check(np.unique(here[waiting]))

    def check(self) -> None:
        """Check what has not been checked yet."""
        self._check(np.flatnonzero(self._todo))
        self._done = True

    def _check(self, blocks: NDArray[np.int64]) -> None:
        for block in blocks.tolist():
            data = self.mapped[block * BLOCK : (block + 1) * BLOCK].data
            if zlib.crc32(data) != self._sums[block]:
                raise GalleryError(
                    f"{self.file} is damaged (bytes {block * BLOCK:,} to {block * BLOCK + len(data) - 1:,} differ from "
                    "their checksum); build the gallery again"
                )
            self._todo[block] = False


class CheckedArray:
    """A .npy file under `Checked`: rows by number, slice or numbers, each checked before it is given away."""

    def __init__(self, checked: Checked, shape: tuple[int, ...], dtype: Any) -> None:
        self._checked, file = checked, checked.file
        self.shape, self.dtype = shape, np.dtype(dtype)
        head = BytesIO(self._checked.bytes(0, min(_HEAD, self._checked.size)).tobytes())
        try:
            np.lib.format.read_magic(head)
            found, fortran, kind = np.lib.format.read_array_header_1_0(head)
        except (ValueError, EOFError) as error:
            raise GalleryError(f"{file} can't be read ({error}); build the gallery again") from None
        if found != shape or kind != self.dtype or fortran:
            raise GalleryError(f"{file} holds {kind} {found} instead of {dtype} {shape}; build the gallery again")
        self._offset = head.tell()
        self._row_bytes = self.dtype.itemsize * int(np.prod(shape[1:]))
        if self._checked.size != self._offset + self._row_bytes * shape[0]:
            raise GalleryError(f"{file} has another length than its header says; build the gallery again")
        self._rows: NDArray[Any] = np.ndarray(shape, self.dtype, self._checked.mapped, self._offset)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """A row, a slice of rows as a view, or rows by their numbers; negative numbers are an IndexError."""
        if isinstance(rows, slice):
            start, end, _ = rows.indices(len(self))
            self._checked.bytes(self._offset + start * self._row_bytes, self._offset + end * self._row_bytes)
        else:
            numbers = np.atleast_1d(np.asarray(rows, np.int64))
            if len(numbers) and not numbers.view(np.uint64).max() < len(self):
                raise IndexError(rows)
            starts = self._offset + numbers * self._row_bytes
            self._checked.check_spans(starts, starts + self._row_bytes)
        return np.asarray(self._rows[rows])

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(self.all())

    def all(self) -> NDArray[Any]:
        """The whole array as a view, every block of it checked."""
        self._checked.check()
        return self._rows
