"""Exact nearest neighbours by inner product over memory-mapped arrays, with ties that never depend on luck."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import GalleryError

_BLOCK_BYTES = 16 * 2**20
QUERY_BLOCK = 128
SLACK = 1e-5
"""Inner products of unit vectors in float32 differ between BLAS kernels by less than this."""
_LEAST = float(np.finfo(np.float32).min)
_WIDENED = 1 << 16  # numbers at a time: they stay in the cache
_NO_EXPONENT_ABOVE = np.int32(-0x70000001)  # the sign and the lowest 28 bits
Numbers = NDArray[np.int64]
Floats = NDArray[np.float32]


def exact_search(vectors: Any, queries: Floats, k: int) -> tuple[Numbers, Floats]:
    """The k rows of `vectors` (N, D) float16/float32 with the largest inner product with each query (Q, D).

    Returns rows (Q, k) int64 and scores (Q, k) float32, best first; equal scores are ordered by row. The matrix
    product only nominates rows: nominees are scored again one by one, so that a result does not depend on the block or
    the batch a row happened to be in.
    """
    return search_parts([vectors], queries, k, np.empty(0, np.int64))


def searchable(queries: Any, k: int, dim: int, gallery: str) -> Floats:
    """Queries (Q, dim), or one of (dim,), as float32 (Q, dim); GalleryError for what no gallery can look for."""
    queries = np.atleast_2d(np.asarray(queries, np.float32))
    if queries.ndim != 2 or queries.shape[1] != dim:
        raise GalleryError(
            f"gallery {gallery} holds vectors of length {dim}, the query has shape {queries.shape}; embed it with the "
            "bundle that made the gallery"
        )
    if not np.isfinite(queries).all():
        raise GalleryError("the query vector holds NaN or infinite numbers; embed the query again")
    if k < 1:
        raise GalleryError(f"k must be at least 1, not {k}")
    if not queries.any(axis=1).all():
        raise GalleryError("the query vector is all zeros and near to nothing; embed the query again")
    return np.asarray(queries, np.float32)


def search_parts(parts: Sequence[Any], queries: Floats, k: int, deleted: Numbers) -> tuple[Numbers, Floats]:
    """`exact_search` in several arrays (N_i, D), rows numbered through them, without the `deleted` rows (ascending)."""
    queries = np.ascontiguousarray(queries, np.float32)
    k = min(k, sum(map(len, parts)) - len(deleted))
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), QUERY_BLOCK):
        part = queries[start : start + QUERY_BLOCK]
        nominees = [found for found, _ in best(_scored(parts, part, deleted), len(part), k)]
        rows[start : start + len(part)], scores[start : start + len(part)] = rescored(parts, part, nominees, k)
    return rows, scores


def take_rows(parts: Sequence[Any], rows: Numbers) -> NDArray[Any]:
    """Rows (M,) of several arrays, numbered through them, in the order asked for."""
    if len(parts) == 1:
        return np.asarray(parts[0][rows])
    starts = np.cumsum([0, *map(len, parts)])
    which = np.searchsorted(starts, rows, side="right") - 1
    out = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
    for part in np.unique(which):
        here = which == part
        out[here] = parts[part][rows[here] - starts[part]]
    return out


def best(
    pieces: Iterable[tuple[int | Numbers, Floats]], queries: int, count: int, slack: float = SLACK
) -> list[tuple[Numbers, Floats]]:
    """For each query every row that could be among its `count` best, ties and rounding included, and their scores.

    `pieces` give scores (Q, n) with the number of their first row, or the numbers of all; -inf leaves a row out.
    """
    rows: list[Numbers] = [np.empty(0, np.int64) for _ in range(queries)]
    values: list[Floats] = [np.empty(0, np.float32) for _ in range(queries)]
    floors = [_LEAST] * queries
    for numbers, scores in pieces:
        for index, line in enumerate(scores):
            at = np.flatnonzero(line >= floors[index])
            if len(at) == 0:
                continue
            named = at + numbers if isinstance(numbers, int) else numbers[at]
            rows[index] = np.concatenate([rows[index], named])
            values[index] = np.concatenate([values[index], line[at]])
            if len(values[index]) > count:
                kth = np.partition(values[index], len(values[index]) - count)[len(values[index]) - count]
                floors[index] = kth - 2 * slack
                keep = values[index] >= floors[index]
                rows[index], values[index] = rows[index][keep], values[index][keep]
    return list(zip(rows, values, strict=True))


def products(piece: NDArray[Any], queries: Floats) -> Floats:
    """Inner products (Q, n) of rows (n, D) of any float type with queries (Q, D)."""
    piece = widened(piece)
    # One query: a matrix-vector product runs at memory speed, a one-row matrix product several times slower.
    return np.asarray((piece @ queries[0])[None] if len(queries) == 1 else queries @ piece.T)


def widened(rows: NDArray[Any]) -> Floats:
    """Rows (n, D) as float32. Finite float16 numbers by their bits: exact, and several times as fast as by numpy."""
    if rows.dtype != np.float16:
        return np.asarray(rows, np.float32)
    out, halves = np.empty(rows.shape, np.float32), np.ascontiguousarray(rows).view(np.int16)
    bits, step = out.view(np.int32), max(1, _WIDENED // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        piece = bits[start : start + step]
        piece[...] = halves[start : start + step]
        piece <<= 13
        piece &= _NO_EXPONENT_ABOVE
        out[start : start + step] *= 2.0**112  # the difference of the exponents' biases
    return out


def rows_a_piece(dim: int) -> int:
    """Rows of `dim` float32 numbers that are scored at once."""
    return max(1024, _BLOCK_BYTES // (4 * dim))


def rescored(parts: Sequence[Any], queries: Floats, nominees: Sequence[Numbers], k: int) -> tuple[Numbers, Floats]:
    """For each query the k best of its nominees (at least k), (Q, k) rows and scores that no batch changes.

    Best first, equal scores by row.
    """
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    step = max(1, rows_a_piece(queries.shape[1]) // max(map(len, nominees), default=1))
    for start in range(0, len(queries), step):
        group = nominees[start : start + step]
        vectors = widened(take_rows(parts, np.concatenate(group)))
        first = 0
        for index, own in enumerate(group, start):
            rows[index], scores[index] = _ordered(vectors[first : first + len(own)], own, queries[index], k)
            first += len(own)
    return rows, scores


def _ordered(vectors: Floats, rows: Numbers, query: Floats, k: int) -> tuple[Numbers, Floats]:
    if len(rows) > 4 * k:  # float32 says first which of them can't be among the k
        rough = vectors @ query
        near = np.flatnonzero(rough >= np.partition(rough, len(rough) - k)[len(rough) - k] - 2 * SLACK)
        vectors, rows = vectors[near], rows[near]
    # float64 sums along one row: the same row always gets the same score, and equal rows equal scores.
    scores = (vectors.astype(np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]


def _scored(parts: Sequence[Any], queries: Floats, deleted: Numbers) -> Iterator[tuple[int, Floats]]:
    offset = 0
    for vectors in parts:
        block = rows_a_piece(vectors.shape[1])
        for start in range(0, len(vectors), block):
            scores = products(vectors[start : start + block], queries)
            first, last = np.searchsorted(deleted, (offset + start, offset + start + scores.shape[1]))
            scores[:, deleted[first:last] - offset - start] = -np.inf  # below every floor
            yield offset + start, scores
        offset += len(vectors)
