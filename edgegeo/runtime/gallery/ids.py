"""Rows by id, without holding the ids: their hashes, sorted, in a mapped file that a lookup probes some 20 times."""

import hashlib
from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from edgegeo.runtime.gallery.checked import CheckedArray
from edgegeo.runtime.gallery.packed import Packed

Keys = NDArray[np.uint64]


def sorted_keys(hashes: bytes | bytearray) -> Keys:
    """(N, 2) uint64, of N hashes of 8 bytes: each with its row, in the order of the hashes, then of the rows."""
    keys = np.frombuffer(hashes, "<u8")
    order = np.argsort(keys, kind="stable")
    return np.stack([keys[order], order.astype("<u8")], axis=1)


def hash_of(id: bytes) -> bytes:
    """8 bytes that spread ids evenly."""
    return hashlib.blake2b(id, digest_size=8).digest()


class IdRows:
    """Finds rows of one segment by id; where it has no file of keys, they are made of the ids at the first lookup."""

    def __init__(self, ids: Packed, keys: CheckedArray | None) -> None:
        self._ids = ids
        self._keys: CheckedArray | Keys | None = keys

    def rows(self, id: bytes) -> Iterator[int]:
        """Rows with this id, ascending."""
        if self._keys is None:
            self._keys = sorted_keys(b"".join(map(hash_of, self._ids.all())))
        keys, wanted = self._keys, int.from_bytes(hash_of(id), "little")
        at = bisect_left(range(len(keys)), wanted, key=lambda place: int(keys[place][0]))
        while at < len(keys) and int(keys[at][0]) == wanted:
            row = int(keys[at][1])
            if row < len(self._ids) and self._ids[row] == id:
                yield row
            at += 1
