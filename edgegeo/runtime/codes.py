"""Embeddings in fewer bytes: int8 with a scale per dimension, one bit per dimension, and leading dimensions only."""

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError

Vectors = NDArray[np.float32]

PERCENTILE = 99.9
"""Of a dimension's magnitudes, the one that becomes 127. One scale for all dimensions would waste most of the range:
unit vectors times 127 keep 0.961 of the nearest neighbours where these scales keep 0.995."""
SAMPLE = 65_536
"""Rows that scales are fitted on at most; more move no percentile and take the memory of a copy."""


def fit_scales(vectors: Vectors, percentile: float = PERCENTILE) -> Vectors:
    """The step (D,) float32 of every dimension's int8 code, so that `percentile` of its magnitudes lie within 127.

    vectors (N, D), any float type, evenly sampled down to `SAMPLE` rows. A dimension that is always 0 gets the step 1.
    InputError for no rows, or numbers that are not finite.
    """
    rows = _rows(vectors)
    if len(rows) == 0:
        raise InputError("scales need at least one vector")
    step = -(-len(rows) // SAMPLE)
    magnitudes = np.abs(np.asarray(rows[::step], np.float32))
    if not np.isfinite(magnitudes).all():
        raise InputError("a vector holds NaN or infinite numbers; embed it again")
    top = np.percentile(magnitudes, percentile, axis=0)
    top = np.where(top > 0, top, magnitudes.max(axis=0))
    return np.where(top > 0, top / 127.0, 1.0).astype(np.float32)


def to_int8(vectors: Vectors, scales: Vectors) -> NDArray[np.int8]:
    """Codes (N, D) int8 within +-127 of vectors (N, D); what lies beyond a scale's range is clipped.

    Since `from_int8` only multiplies, a dot product with codes is one with the query times the scales:
    q . (c * s) = (q * s) . c.
    """
    codes = np.asarray(_rows(vectors), np.float32) / scales
    np.rint(codes, out=codes)
    return np.clip(codes, -127, 127, out=codes).astype(np.int8)


def from_int8(codes: NDArray[np.int8], scales: Vectors) -> Vectors:
    """Vectors (N, D) float32 of int8 codes; their length is 1 up to rounding."""
    return np.asarray(codes * scales, np.float32)


def to_binary(vectors: Vectors) -> NDArray[np.uint8]:
    """Signs (N, ceil(D / 8)) uint8 of vectors (N, D): bit 1 for a positive number, the first dimension in the highest
    bit of the first byte, a last short byte filled with zeros. Hamming distance then ranks as the angle does, roughly:
    candidates are scored again with something finer."""
    return np.packbits(np.asarray(_rows(vectors)) > 0, axis=1)


def from_binary(codes: NDArray[np.uint8], dim: int) -> Vectors:
    """Unit vectors (N, dim) float32 of signs, every number +-1 / sqrt(dim): their dot products with float queries rank
    better than Hamming distances, and those among themselves rank as Hamming distances do."""
    signs = np.unpackbits(codes, axis=1, count=dim).astype(np.float32)
    return np.asarray((2 * signs - 1) / np.sqrt(np.float32(dim)), np.float32)


def truncate(vectors: Vectors, dims: int) -> Vectors:
    """The first `dims` numbers of vectors (N, D) as unit vectors (N, dims) float32; a zero vector stays zero.

    Worth something where the model was trained for it (Matryoshka Representation Learning, arXiv 2205.13147).
    InputError unless 1 <= dims <= D.
    """
    rows = _rows(vectors)
    if not 1 <= dims <= rows.shape[1]:
        raise InputError(f"dims must be between 1 and {rows.shape[1]}, not {dims}")
    head = np.array(rows[:, :dims], np.float32)
    return np.asarray(head / np.maximum(np.linalg.norm(head, axis=1, keepdims=True), 1e-12), np.float32)


def _rows(vectors: Vectors) -> Vectors:
    if np.ndim(vectors) != 2:
        raise InputError(f"vectors come as rows (N, dim), not in the shape {np.shape(vectors)}")
    return vectors
