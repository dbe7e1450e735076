"""Exact nearest neighbours by inner product over memory-mapped arrays, with ties that never depend on luck."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 16 * 2**20
_QUERY_BLOCK = 128
# Inner products of unit vectors in float32 differ between BLAS kernels by less than this.
_SLACK = 1e-5
_LEAST = float(np.finfo(np.float32).min)


def exact_search(
    vectors: NDArray[Any], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k rows of `vectors` (N, D) float16/float32 with the largest inner product with each query (Q, D).

    Returns rows (Q, k) int64 and scores (Q, k) float32, best first; equal scores are ordered by row. The matrix
    product only nominates rows: nominees are scored again one by one, so that a result does not depend on the block or
    the batch a row happened to be in.
    """
    return search_parts([vectors], queries, k, np.empty(0, np.int64))


def search_parts(
    parts: Sequence[NDArray[Any]], queries: NDArray[np.float32], k: int, deleted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """`exact_search` in several arrays (N_i, D), rows numbered through them, without the `deleted` rows (ascending)."""
    queries = np.ascontiguousarray(queries, np.float32)
    k = min(k, sum(map(len, parts)) - len(deleted))
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _QUERY_BLOCK):
        part = queries[start : start + _QUERY_BLOCK]
        for index, nominees in enumerate(_nominate(parts, part, k, deleted)):
            chosen, score = _rescore(parts, part[index], nominees, k)
            rows[start + index], scores[start + index] = chosen, score
    return rows, scores


def take_rows(parts: Sequence[NDArray[Any]], rows: NDArray[np.int64]) -> NDArray[Any]:
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


def _nominate(
    parts: Sequence[NDArray[Any]], queries: NDArray[np.float32], k: int, deleted: NDArray[np.int64]
) -> list[NDArray[np.int64]]:
    """For each query every row that could be among its k best, ties and rounding included."""
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64) for _ in queries]
    values: list[NDArray[np.float32]] = [np.empty(0, np.float32) for _ in queries]
    floors = [_LEAST] * len(queries)
    for start, piece in _blocks(parts):
        # One query: a matrix-vector product runs at memory speed, a one-row matrix product several times slower.
        scores = (piece @ queries[0])[None] if len(queries) == 1 else queries @ piece.T
        first, last = np.searchsorted(deleted, (start, start + len(piece)))
        scores[:, deleted[first:last] - start] = -np.inf  # below every floor
        for index, line in enumerate(scores):
            at = np.flatnonzero(line >= floors[index])
            if len(at) == 0:
                continue
            rows[index] = np.concatenate([rows[index], at + start])
            values[index] = np.concatenate([values[index], line[at]])
            if len(values[index]) > k:
                kth = np.partition(values[index], len(values[index]) - k)[len(values[index]) - k]
                floors[index] = kth - 2 * _SLACK
                keep = values[index] >= floors[index]
                rows[index], values[index] = rows[index][keep], values[index][keep]
    return rows


def _blocks(parts: Sequence[NDArray[Any]]) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Pieces of the arrays as float32, each with the number of its first row."""
    offset = 0
    for vectors in parts:
        block = max(1024, _BLOCK_BYTES // (4 * vectors.shape[1]))
        for start in range(0, len(vectors), block):
            yield offset + start, np.asarray(vectors[start : start + block], np.float32)
        offset += len(vectors)


def _rescore(
    parts: Sequence[NDArray[Any]], query: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    # float64 sums along one row: the same row always gets the same score, and equal rows equal scores.
    vectors = np.asarray(take_rows(parts, rows), np.float64)
    scores = (vectors * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
