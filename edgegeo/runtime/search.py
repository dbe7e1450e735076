"""Exact nearest neighbours by inner product over a memory-mapped array, with ties that never depend on luck."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 16 * 2**20
_QUERY_BLOCK = 128
# Inner products of unit vectors in float32 differ between BLAS kernels by less than this.
_SLACK = 1e-5


def exact_search(
    vectors: NDArray[Any], queries: NDArray[np.float32], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The k rows of `vectors` (N, D) float16/float32 with the largest inner product with each query (Q, D).

    Returns rows (Q, k) int64 and scores (Q, k) float32, best first; equal scores are ordered by row. The matrix
    product only nominates rows: nominees are scored again one by one, so that a result does not depend on the block or
    the batch a row happened to be in.
    """
    queries = np.ascontiguousarray(queries, np.float32)
    k = min(k, len(vectors))
    rows = np.empty((len(queries), k), np.int64)
    scores = np.empty((len(queries), k), np.float32)
    for start in range(0, len(queries), _QUERY_BLOCK):
        part = queries[start : start + _QUERY_BLOCK]
        for index, nominees in enumerate(_nominate(vectors, part, k)):
            chosen, score = _rescore(vectors, part[index], nominees, k)
            rows[start + index], scores[start + index] = chosen, score
    return rows, scores


def _nominate(vectors: NDArray[Any], queries: NDArray[np.float32], k: int) -> list[NDArray[np.int64]]:
    """For each query every row that could be among its k best, ties and rounding included."""
    count, dim = vectors.shape
    block = max(1024, _BLOCK_BYTES // (4 * dim))
    rows: list[NDArray[np.int64]] = [np.empty(0, np.int64) for _ in queries]
    values: list[NDArray[np.float32]] = [np.empty(0, np.float32) for _ in queries]
    floors = [-np.inf] * len(queries)
    for start in range(0, count, block):
        piece = np.asarray(vectors[start : start + block], np.float32)
        # One query: a matrix-vector product runs at memory speed, a one-row matrix product several times slower.
        scores = (piece @ queries[0])[None] if len(queries) == 1 else queries @ piece.T
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


def _rescore(
    vectors: NDArray[Any], query: NDArray[np.float32], rows: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    # float64 sums along one row: the same row always gets the same score, and equal rows equal scores.
    scores = (np.asarray(vectors[rows], np.float64) * query.astype(np.float64)).sum(axis=1).astype(np.float32)
    order = np.lexsort((rows, -scores))[:k]
    return rows[order], scores[order]
