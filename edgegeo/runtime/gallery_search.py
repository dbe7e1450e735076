"""How a gallery is searched: by every row, by codes or lists that name candidates, and only where a region lets it.

Whatever names the candidates, their stored vectors give the scores and the order. Few rows (all of a small segment, or
those that a region holds) are compared as they are stored, which is exact; more of them by their codes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from edgegeo.runtime.coded import Codes
from edgegeo.runtime.gallery_manifest import StageEntry
from edgegeo.runtime.gallery_segment import Segment, Stack
from edgegeo.runtime.inverted import INVERTED, Inverted
from edgegeo.runtime.region import Region
from edgegeo.runtime.search import QUERY_BLOCK, Floats, Numbers, best, products, rescored, rows_a_piece

EXACT_ROWS = 1 << 14
"""Up to here stored rows are scored at once: it takes 10 to 20 ms, and codes would leave some of them to chance."""
_GAP = 1 << 12  # Rows between two ranges that are read with them rather than skipped.
_CODES_A_PIECE = 1 << 16
_PLACES_A_PIECE = 1 << 18


@dataclass(frozen=True)
class Scope:
    """The rows of a segment that a search may find."""

    ranges: Numbers
    """(R, 2) where they lie, from and up to, ascending."""
    rows: Numbers | None
    """Their numbers, ascending; None: all but the deleted."""
    deleted: Numbers
    count: int


def scope_of(segment: Segment, deleted: Numbers, region: Region | None) -> Scope:
    """All rows, or those in a region, without the `deleted` ones (ascending)."""
    if region is None:
        return Scope(np.array([[0, len(segment)]]), None, deleted, len(segment) - len(deleted))
    ranges = segment.caps().touched(region, len(segment))
    rows = np.concatenate([np.empty(0, np.int64), *_held(segment, ranges, region)])
    if len(deleted):
        rows = rows[~np.isin(rows, deleted, assume_unique=True)]
    return Scope(ranges, rows, deleted, len(rows))


def _held(segment: Segment, ranges: Numbers, region: Region) -> Iterator[Numbers]:
    """Rows of the ranges that a region holds; many short ranges are asked for at once."""
    sizes = np.cumsum(ranges[:, 1] - ranges[:, 0])
    for group in np.split(ranges, np.flatnonzero(np.diff(sizes // _PLACES_A_PIECE)) + 1):
        if len(group):
            rows = np.concatenate([np.arange(start, end) for start, end in group.tolist()])
            places = np.concatenate([segment.positions[start:end] for start, end in group.tolist()])
            yield rows[region.holds(places)]


def search_stack(
    stack: Stack, queries: Floats, k: int, deleted: Numbers, region: Region | None = None
) -> tuple[Numbers, Floats]:
    """Rows of the stack (Q, k) and their scores, best first, equal scores by row; k is cut to what there is."""
    queries = np.ascontiguousarray(queries, np.float32)
    scopes = []
    for segment, start in zip(stack.segments, stack.starts.tolist(), strict=False):
        first, last = np.searchsorted(deleted, (start, start + len(segment)))
        scopes.append(scope_of(segment, deleted[first:last] - start, region))
    k = min(k, sum(scope.count for scope in scopes))
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for at in range(0, len(queries) if k else 0, QUERY_BLOCK):
        part = queries[at : at + QUERY_BLOCK]
        named: list[list[Numbers]] = [[] for _ in part]
        for segment, scope, start in zip(stack.segments, scopes, stack.starts.tolist(), strict=False):
            if scope.count:
                for line, found in zip(named, nominate(segment, scope, part, k), strict=True):
                    line.append(found + start)
        nominees = [line[0] if len(line) == 1 else np.concatenate(line) for line in named]
        rows[at : at + len(part)], scores[at : at + len(part)] = rescored(stack.vectors, part, nominees, k)
    return rows, scores


def nominate(segment: Segment, scope: Scope, queries: Floats, k: int) -> list[Numbers]:
    """For each query the rows of a segment that are worth scoring."""
    stages = {stage.kind: stage for stage in segment.entry.stages}
    lists = stages.pop("ivf", None)
    codes = next(iter(stages.values()), None)
    if codes is None or scope.count <= max(EXACT_ROWS, 2 * wanted(codes, k)):
        return [rows for rows, _ in best(_exact(segment, scope, queries), len(queries), k)]
    # Lists know no regions and no deletions: they serve where nearly every row counts.
    if lists is None or scope.rows is not None or 4 * len(scope.deleted) > len(segment):
        return [rows for rows, _ in coded(segment, scope, queries, codes.kind, wanted(codes, k))]
    found = inverted(segment).nearest(queries, wanted(lists, k), lists.probes)
    kept = [line[line >= 0] for line in found]
    if len(scope.deleted):
        kept = [line[~np.isin(line, scope.deleted)] for line in kept]
    short = [index for index, line in enumerate(kept) if len(line) < min(k, scope.count)]
    if short:
        more = coded(segment, scope, queries[short], codes.kind, wanted(codes, k))
        for index, (rows, _) in zip(short, more, strict=True):
            kept[index] = rows
    return kept


def wanted(stage: StageEntry, k: int) -> int:
    """Candidates for k hits."""
    return -(-stage.candidates * max(k, 10) // 10)


def coded(segment: Segment, scope: Scope, queries: Floats, kind: str, count: int) -> list[tuple[Numbers, Floats]]:
    """The `count` rows nearest by their codes, best first, equal ones by row, and what their codes say."""
    if "codes" not in segment.kept:
        segment.kept["codes"] = Codes(segment, kind)
    codes: Codes = segment.kept["codes"]
    scan = codes.scan(queries)

    def scored() -> Iterator[tuple[int, Floats]]:
        for start, end in _pieces(scope, _CODES_A_PIECE):
            yield start, _masked(scan(codes.rows[start:end]), scope, start)

    out = []
    for rows, values in best(scored(), len(queries), count, slack=0.0):
        order = np.lexsort((rows, -values))[:count]
        out.append((rows[order], values[order]))
    return out


def inverted(segment: Segment) -> Inverted:
    """The segment's lists, opened once."""
    if INVERTED not in segment.kept:
        segment.kept[INVERTED] = Inverted(segment)
    lists: Inverted = segment.kept[INVERTED]
    return lists


def _exact(segment: Segment, scope: Scope, queries: Floats) -> Iterator[tuple[int | Numbers, Floats]]:
    step = rows_a_piece(segment.vectors.shape[1])
    if scope.rows is not None and scope.count <= EXACT_ROWS:
        for start in range(0, scope.count, step):
            rows = scope.rows[start : start + step]
            yield rows, products(segment.vectors[rows], queries)
        return
    for start, end in _pieces(scope, step):
        yield start, _masked(products(segment.vectors[start:end], queries), scope, start)


def _pieces(scope: Scope, step: int) -> Iterator[tuple[int, int]]:
    """The scope's ranges in pieces of at most `step` rows, ranges close to each other in one."""
    ranges = scope.ranges
    apart = np.flatnonzero(ranges[1:, 0] - ranges[:-1, 1] > _GAP) + 1
    starts, ends = ranges[np.concatenate([[0], apart]), 0], ranges[np.concatenate([apart - 1, [-1]]), 1]
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        for at in range(start, end, step):
            yield at, min(at + step, end)


def _masked(scores: Floats, scope: Scope, start: int) -> Floats:
    """Scores (Q, n) of rows from `start` on, -inf for those outside the scope."""
    end = start + scores.shape[1]
    if scope.rows is None:
        first, last = np.searchsorted(scope.deleted, (start, end))
        scores[:, scope.deleted[first:last] - start] = -np.inf
        return scores
    first, last = np.searchsorted(scope.rows, (start, end))
    out = np.ones(scores.shape[1], bool)
    out[scope.rows[first:last] - start] = False
    scores[:, out] = -np.inf
    return scores
