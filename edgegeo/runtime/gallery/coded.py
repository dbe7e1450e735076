"""A first scan over int8 or binary codes: a quarter or a thirty-second of the bytes of float32 rows.

int8: a scale per dimension (codes.py), the query coded likewise; binary: Hamming distance of signs. Both give whole
numbers, equal for equal rows. numkong's kernels where it is installed, numpy otherwise, with the same results.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.runtime.codes import fit_scales, to_binary, to_int8
from edgegeo.runtime.gallery.checked import CheckedArray
from edgegeo.runtime.gallery.exact import Floats
from edgegeo.runtime.gallery.segment import Segment

CODES = "codes.npy"
SCALES = "scales.npy"
_PIECE = 1 << 16
Scan = Callable[[NDArray[Any]], Floats]


def write_codes(folder: Path, kind: str) -> None:
    """The codes of the rows in a segment's folder, "int8" or "binary", beside them."""
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    scales = fit_scales(vectors) if kind == "int8" else np.ones(vectors.shape[1], np.float32)
    width = vectors.shape[1] if kind == "int8" else -(-vectors.shape[1] // 8)
    np.save(folder / SCALES, scales)
    codes = np.lib.format.open_memmap(
        folder / CODES, "w+", np.int8 if kind == "int8" else np.uint8, (len(vectors), width)
    )
    for start in range(0, len(vectors), _PIECE):
        piece = np.asarray(vectors[start : start + _PIECE], np.float32)
        codes[start : start + _PIECE] = to_int8(piece, scales) if kind == "int8" else to_binary(piece)
    codes.flush()


class Codes:
    """The codes of one segment, "int8" or "binary"."""

    def __init__(self, segment: Segment, kind: str) -> None:
        rows, dim = segment.vectors.shape
        self.kind = kind
        width, dtype = (dim, "int8") if kind == "int8" else (-(-dim // 8), "uint8")
        self.rows: CheckedArray = segment.array(CODES, (rows, width), dtype)
        self._scales = segment.array(SCALES, (dim,), "float32").all()

    def scan(self, queries: Floats) -> Scan:
        """A function that scores pieces of the codes: whole numbers (Q, n) as float32, higher is nearer."""
        if self.kind == "binary":
            return _hamming(to_binary(queries))
        weighted = queries * self._scales
        steps = np.abs(weighted).max(axis=1, keepdims=True) / 127
        return _dots(np.rint(weighted / np.where(steps > 0, steps, 1)).astype(np.int8))


def _dots(queries: NDArray[np.int8]) -> Scan:
    library = kernels()
    if library is None:
        wide = queries.astype(np.float32).T
        # Sums of up to 1,040 products of int8 numbers are exact in float32.
        return lambda codes: np.ascontiguousarray((codes.astype(np.float32) @ wide).T)
    if len(queries) == 1:
        return lambda codes: np.asarray(library.cdist(queries, codes, metric="dot")).astype(np.float32)
    packed = library.dots_pack(queries)
    return lambda codes: np.ascontiguousarray(np.asarray(library.dots_packed(codes, packed)).T).astype(np.float32)


def _hamming(queries: NDArray[np.uint8]) -> Scan:
    library = kernels()
    if library is None:
        ones = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)
        return lambda codes: -np.stack([ones[codes ^ query].sum(axis=1, dtype=np.float32) for query in queries])
    if len(queries) == 1:
        return lambda codes: -np.asarray(library.cdist(queries, codes, metric="hamming", dtype="uint1")).astype("f4")
    packed = library.hammings_pack(queries, "uint1")
    return lambda codes: -np.ascontiguousarray(np.asarray(library.hammings_packed(codes, packed)).T).astype("f4")


def kernels() -> Any:
    """numkong, or None where it is not installed."""
    try:
        import numkong
    except ImportError:
        return None
    return numkong
