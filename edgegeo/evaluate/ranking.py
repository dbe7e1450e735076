"""Ranks of the right items, average precision, and how far the first item is; ties always count against the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegeo.geo import distance_km
from edgegeo.progress import Progress, silent

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Values = NDArray[np.float64]

TIE = 1e-6
"""Scores this close are equal: inner products of unit vectors in float32 carry errors of about this size, and equal
rows get slightly different ones in different places of a matrix product."""
_BLOCK = 256


@dataclass(frozen=True)
class Ranks:
    """What became of N queries."""

    first: Values
    """Rank from 1 of the best hit; infinite where there is none to find."""
    hits: Rows
    """How many hits were among the items ranked."""
    ranked: Rows
    """How many items were ranked."""
    precision: Values
    """Average precision; 0 where it was not asked for."""
    top: Rows
    """Gallery row that came first; -1 where nothing could be ranked."""
    km: Values
    """Kilometres of the first item from the true position; NaN where nothing could be ranked or nothing is known."""


@dataclass(frozen=True)
class Task:
    """What N queries are looked up in; everything by gallery row."""

    hits: Callable[[int], Sequence[int]]
    """Query -> the right rows."""
    pool: Callable[[int], Rows | None]
    """Query -> the rows it is ranked among; None for all."""
    truth: Values | None = None
    """(N, 2) true positions of the queries in degrees."""
    positions: Values | None = None
    """(G, 2) of the gallery."""
    precision: bool = False
    """Whether average precision is wanted."""


def rank(
    queries: Vectors, gallery: Vectors, read: tuple[NDArray[np.bool_], NDArray[np.bool_]], task: Task,
    progress: Progress = silent,
) -> Ranks:  # fmt: skip
    """Rank the gallery (G, dim) for every query (N, dim), both unit vectors.

    Pessimistic about ties: an item that is no hit and scores within TIE of a hit stands before it, so that a gallery
    of equal rows finds nothing; of items tied for the first place the farthest counts. read: (N,) and (G,), False for
    items that could not be embedded: such a query misses, such an item comes last and is never a hit.
    """
    count = len(queries)
    first, precision, km = np.full(count, np.inf), np.zeros(count), np.full(count, np.nan)
    top, hits, ranked = (np.full(count, fill, np.int64) for fill in (-1, 0, 0))
    for start in range(0, count, _BLOCK):
        scores = queries[start : start + _BLOCK] @ gallery.T
        scores[:, ~read[1]] = -np.inf
        for row, line in enumerate(scores, start):
            pool = task.pool(row)
            right = np.zeros(len(gallery), bool)
            right[list(task.hits(row))] = True
            if pool is not None:
                line, right = line[pool], right[pool]
            hits[row], ranked[row] = right.sum(), len(line)
            if not read[0][row] or not len(line) or not np.isfinite(line.max()):
                continue
            first[row] = first_hit(line, right)
            if task.precision:
                precision[row] = average_precision(line, right)
            at, km[row] = _top(line, right, pool, row, task)
            top[row] = at if pool is None else pool[at]
        progress("rank", min(start + _BLOCK, count), count)
    return Ranks(first, hits, ranked, precision, top, km)


def first_hit(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Rank from 1 of the best of the `right` items by scores, both (G,); infinite if there is none."""
    found = scores[right]
    if not found.size or found.max() == -np.inf:
        return np.inf
    return 1.0 + float((scores[~right] >= found.max() - TIE).sum())


def average_precision(scores: NDArray[np.floating], right: NDArray[np.bool_]) -> float:
    """Area under the precision-recall curve by the trapezium rule, as University-1652 (ACM MM 2020) computes it.

    With hits at ranks r_1 < ... < r_n: the mean of (p + q) / 2, p = i / r_i and q = (i - 1) / (r_i - 1), 1 for r_1 = 1.
    """
    total = int(right.sum())
    if not total:
        return 0.0
    found = np.sort(scores[right])[::-1]
    found = found[np.isfinite(found)]
    others = np.sort(scores[~right])
    before = len(others) - np.searchsorted(others, found - TIE, side="left") + np.arange(len(found))
    nth = np.arange(1, len(found) + 1)
    after = nth / (before + 1)
    ahead = np.where(before > 0, (nth - 1) / np.maximum(before, 1), 1.0)
    return float(((after + ahead) / 2).sum() / total)


def _top(
    scores: NDArray[np.floating], right: NDArray[np.bool_], pool: Rows | None, row: int, task: Task
) -> tuple[int, float]:
    """The item in the first place, and its kilometres from the truth: of tied ones the farthest, else no hit."""
    tied = np.flatnonzero(scores >= scores.max() - TIE)
    if task.truth is None or task.positions is None or np.isnan(task.truth[row]).any():
        return int(tied[np.argmin(right[tied])]), np.nan
    there = task.positions[tied if pool is None else pool[tied]]
    far = np.asarray(distance_km(there[:, 0], there[:, 1], *task.truth[row]))
    if np.isnan(far).any():
        return int(tied[np.argmin(right[tied])]), np.nan
    return int(tied[far.argmax()]), float(far.max())
