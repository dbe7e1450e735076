"""How a gallery is searched: by every row, by codes or lists that name candidates, and only where a region lets it.

Whatever names the candidates, their stored vectors give the scores and the order. Few rows (all of a small segment, or
those that a region holds) are compared as they are stored, which is exact; more of them by their codes. A region that
holds a good part of a segment with lists only filters what they name.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import islice

import numpy as np

from edgegeo.runtime.gallery.coded import Codes
from edgegeo.runtime.gallery.exact import QUERY_BLOCK, Floats, Numbers, best, products, rescored, rows_a_piece
from edgegeo.runtime.gallery.inverted import INVERTED, Inverted
from edgegeo.runtime.gallery.manifest import StageEntry
from edgegeo.runtime.gallery.region import Region
from edgegeo.runtime.gallery.segment import Segment, Stack

EXACT_ROWS = 1 << 14
"""Up to here stored rows are scored at once: it takes 10 to 20 ms, and codes would leave some of them to chance."""
FILTERED_ROWS = 1 << 16
"""Rows near a region from which on lists are asked first: they answer in a few ms, and 2^16 places alone take that."""
_GAP = 1 << 12  # Rows between two ranges that are read with them rather than skipped.
_CODES_A_PIECE = 1 << 16
_PLACES_A_PIECE = 1 << 18
_FEW_PLACES = 1 << 10
_LOOKS = 8
_MOST_FETCHED = 1 << 15


class Scope:
    """The rows of a segment that a search may find: all, or those in a region, without the deleted ones."""

    def __init__(self, segment: Segment, deleted: Numbers, region: Region | None) -> None:
        """`deleted` ascending."""
        self.segment, self.deleted, self.region = segment, deleted, region
        self.ranges: Numbers = np.array([[0, len(segment)]])
        """(R, 2) where they lie, from and up to, ascending."""
        if region is not None:
            self.ranges = segment.caps().touched(region, len(segment))
        self.reach = int((self.ranges[:, 1] - self.ranges[:, 0]).sum())
        """Rows in the ranges."""
        listed = any(stage.kind == "ivf" for stage in segment.entry.stages)
        self.filters = listed and region is not None and self.reach >= FILTERED_ROWS
        """Whether lists should be asked first: telling which of the rows the region holds costs more."""

    @cached_property
    def rows(self) -> Numbers | None:
        """Their numbers, ascending; None: all but the deleted."""
        if self.region is None:
            return None
        # Many short ranges are asked for at once.
        sizes = np.cumsum(self.ranges[:, 1] - self.ranges[:, 0])
        found = [np.empty(0, np.int64)]
        for group in np.split(self.ranges, np.flatnonzero(np.diff(sizes // _PLACES_A_PIECE)) + 1):
            spans = group.tolist()
            if spans:
                rows = np.concatenate([np.arange(start, end) for start, end in spans])
                places = np.concatenate([self.segment.positions[start:end] for start, end in spans])
                found.append(rows[self.region.holds(places)])
        return self._left(np.concatenate(found))

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self.segment) - len(self.deleted) if self.rows is None else len(self.rows)

    def up_to(self, k: int) -> int:
        """The count, k at most: as a rule a few places tell that there are so many."""
        found = 0
        for start, end in islice(_pieces(self, _FEW_PLACES), _LOOKS if self.filters else 0):
            found += len(self.kept(np.arange(start, end)))
            if found >= k:
                return k
        self.filters = False  # the rows are told now
        return min(k, self.count)

    def kept(self, rows: Numbers) -> Numbers:
        """Those of some rows that may be found; numbers below 0 are none."""
        rows = rows[rows >= 0]
        if self.region is not None:
            rows = rows[self.region.holds(self.segment.positions[rows])]
        return self._left(rows)

    def _left(self, rows: Numbers) -> Numbers:
        return rows[~np.isin(rows, self.deleted)] if len(self.deleted) else rows


def search_stack(
    stack: Stack, queries: Floats, k: int, deleted: Numbers, region: Region | None = None
) -> tuple[Numbers, Floats]:
    """Rows of the stack (Q, k) and their scores, best first, equal scores by row; k is cut to what there is."""
    queries = np.ascontiguousarray(queries, np.float32)
    scopes = []
    for segment, start in zip(stack.segments, stack.starts.tolist(), strict=False):
        first, last = np.searchsorted(deleted, (start, start + len(segment)))
        scopes.append(Scope(segment, deleted[first:last] - start, region))
    k = min(k, sum(scope.up_to(k) for scope in scopes))
    rows, scores = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32)
    for at in range(0, len(queries) if k else 0, QUERY_BLOCK):
        part = queries[at : at + QUERY_BLOCK]
        named: list[list[Numbers]] = [[] for _ in part]
        for segment, scope, start in zip(stack.segments, scopes, stack.starts.tolist(), strict=False):
            if scope.up_to(1):
                for line, found in zip(named, nominate(segment, scope, part, k), strict=True):
                    line.append(found + start)
        nominees = [line[0] if len(line) == 1 else np.concatenate(line) for line in named]
        rows[at : at + len(part)], scores[at : at + len(part)] = rescored(stack.vectors, part, nominees, k)
    return rows, scores


def nominate(segment: Segment, scope: Scope, queries: Floats, k: int) -> list[Numbers]:
    """For each query the rows of a segment that are worth scoring: at least k, where there are so many."""
    lists = next((stage for stage in segment.entry.stages if stage.kind == "ivf"), None)
    # Lists know no regions and no deletions: they serve where a good part of the rows counts.
    fit = scope.filters or (scope.region is None and scope.count > _few(segment, k))
    if lists is None or not fit or 4 * len(scope.deleted) > len(segment):
        return _compared(segment, scope, queries, k)
    asked = wanted(lists, k)
    count = asked * len(segment) // scope.reach
    if scope.filters and count > _MOST_FETCHED:
        return _compared(segment, scope, queries, k)
    index = inverted(segment)
    # As many more lists as would hold the rows asked for beyond, four times over.
    found = index.nearest(queries, count, lists.probes + 4 * (count - asked) * index.lists // len(segment))
    kept = [scope.kept(line) for line in found]
    least = max(k, asked // 4) if scope.filters else min(k, scope.count)
    if short := [number for number, line in enumerate(kept) if len(line) < least]:
        for number, rows in zip(short, _compared(segment, scope, queries[short], k), strict=True):
            kept[number] = rows
    return kept


def _few(segment: Segment, k: int) -> int:
    """Up to so many rows of a segment are scored as they are stored."""
    codes = next((stage for stage in segment.entry.stages if stage.kind != "ivf"), None)
    return len(segment) if codes is None else max(EXACT_ROWS, 2 * wanted(codes, k))


def _compared(segment: Segment, scope: Scope, queries: Floats, k: int) -> list[Numbers]:
    """`nominate` by every row of the scope, as stored or by its codes."""
    codes = next((stage for stage in segment.entry.stages if stage.kind != "ivf"), None)
    if codes is None or scope.count <= _few(segment, k):
        return [rows for rows, _ in best(_exact(segment, scope, queries), len(queries), k)]
    return [rows for rows, _ in coded(segment, scope, queries, codes.kind, wanted(codes, k))]


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
