"""Many small byte strings in one file, with their offsets in another: ids and thumbnails of a gallery."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import GalleryError
from edgegeo.runtime.gallery.checked import Checked, CheckedArray


class PackedWriter:
    """Appends items to NAME.bin; leaving the context writes the offsets (count + 1,) int64 to NAME.offsets.npy."""

    def __init__(self, folder: Path, name: str) -> None:
        self._stream = (folder / f"{name}.bin").open("wb")
        self._offsets_file = folder / f"{name}.offsets.npy"
        self._lengths: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]

    def extend(self, items: Sequence[bytes]) -> None:
        """Add items."""
        self._stream.write(b"".join(items))
        self._lengths.append(np.fromiter(map(len, items), np.int64, len(items)))

    def __enter__(self) -> "PackedWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None:
            np.save(self._offsets_file, np.cumsum(np.concatenate(self._lengths)))


class Packed:
    """Reads what PackedWriter wrote, through a memory map: opening costs nothing, an item costs its own bytes."""

    def __init__(self, items: Checked, offsets: Checked, count: int) -> None:
        self._bytes = items
        self._offsets = CheckedArray(offsets, (count + 1,), np.int64)
        if self._offsets[0] != 0 or self._offsets[count] != self._bytes.size:
            raise self._unfit()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        start, end = self._offsets[index : index + 2].tolist()
        if not 0 <= start <= end <= self._bytes.size:
            raise self._unfit()
        return self._bytes.bytes(start, end).tobytes()

    def take(self, rows: NDArray[np.int64]) -> list[bytes]:
        """Items by their numbers, in the order asked for."""
        starts, ends = self._offsets[rows], self._offsets[rows + 1]
        if len(rows) and not bool(((starts >= 0) & (starts <= ends) & (ends <= self._bytes.size)).all()):
            raise self._unfit()
        self._bytes.check_spans(starts, ends)
        whole = self._bytes.mapped
        return [whole[start:end].tobytes() for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def all(self) -> list[bytes]:
        """Every item, in one pass."""
        offsets = self._offsets.all()
        if bool((np.diff(offsets) < 0).any()):
            raise self._unfit()
        whole = self._bytes.bytes(0, self._bytes.size).tobytes()
        return [whole[start:end] for start, end in pairwise(offsets.tolist())]

    def _unfit(self) -> GalleryError:
        return GalleryError(f"{self._bytes.file} and its offsets don't fit; build the gallery again")
