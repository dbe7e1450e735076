"""Many small byte strings in one file, with their offsets in another: ids and thumbnails of a gallery."""

from itertools import pairwise
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import GalleryError


class PackedWriter:
    """Appends items to NAME.bin; leaving the context writes the offsets (count + 1,) int64 to NAME.offsets.npy."""

    def __init__(self, folder: Path, name: str) -> None:
        self._stream = (folder / f"{name}.bin").open("wb")
        self._offsets_file = folder / f"{name}.offsets.npy"
        self._offsets = [0]

    def append(self, item: bytes) -> None:
        """Add one item."""
        self._stream.write(item)
        self._offsets.append(self._offsets[-1] + len(item))

    def __enter__(self) -> "PackedWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
        if kind is None:
            np.save(self._offsets_file, np.array(self._offsets, np.int64))


class Packed:
    """Reads what PackedWriter wrote, through a memory map: opening costs nothing, an item costs its own bytes."""

    def __init__(self, folder: Path, name: str, count: int) -> None:
        file = folder / f"{name}.bin"
        try:
            offsets = np.load(folder / f"{name}.offsets.npy", mmap_mode="r", allow_pickle=False)
            size = file.stat().st_size
            # An empty file can't be mapped.
            self._bytes: NDArray[np.uint8] = np.memmap(file, np.uint8, "r") if size else np.empty(0, np.uint8)
        except (OSError, ValueError) as error:
            raise GalleryError(f"{file} can't be read ({error}); build the gallery again") from None
        fits = offsets.shape == (count + 1,) and offsets.dtype == np.int64
        if not fits or offsets[0] != 0 or offsets[-1] != size or bool((np.diff(offsets) < 0).any()):
            raise GalleryError(f"{file} and its offsets don't fit; build the gallery again")
        self._offsets: NDArray[np.int64] = offsets

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, index: int) -> bytes:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._bytes[self._offsets[index] : self._offsets[index + 1]].tobytes()

    def all(self) -> list[bytes]:
        """Every item, in one pass."""
        whole, offsets = self._bytes.tobytes(), self._offsets.tolist()
        return [whole[start:end] for start, end in pairwise(offsets)]
