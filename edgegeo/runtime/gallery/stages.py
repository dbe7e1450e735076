"""Codes and lists for a segment that is being written, set so that they keep the nearest rows, and what they keep."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgegeo.bundle import FileEntry
from edgegeo.progress import Progress
from edgegeo.runtime.gallery.coded import write_codes
from edgegeo.runtime.gallery.exact import Numbers, search_parts
from edgegeo.runtime.gallery.inverted import write_inverted
from edgegeo.runtime.gallery.manifest import SegmentEntry, StageEntry
from edgegeo.runtime.gallery.search import Scope, coded, inverted
from edgegeo.runtime.gallery.segment import Segment

TARGET = 0.996
"""Share of the ten nearest that a stage should keep, measured; the first setting that does is taken. Higher than the
0.99 to be promised: real queries lie farther from the rows than the rows do from each other (benchmarks/)."""
QUERIES = 512
_CANDIDATES = (50, 100, 200, 400, 800, 1600)
_PROBES = (8, 16, 32, 64, 128, 256)
_NEAREST = 10


def make_stages(folder: Path, kind: str, approximate: bool, progress: Progress) -> tuple[StageEntry, ...]:
    """Write codes ("int8" or "binary"), and lists if `approximate`, for the rows in a segment's folder.

    Recall is measured with rows of the segment as queries, evenly chosen, each without itself among its neighbours.
    """
    write_codes(folder, kind)
    lists = write_inverted(folder, progress) if approximate else 0
    rows = np.load(folder / "vectors.npy", mmap_mode="r")
    files = {file.name: FileEntry(file.stat().st_size, "") for file in folder.iterdir()}
    segment = Segment(folder.parent.parent, SegmentEntry(folder.name, len(rows), files), rows.shape[1], rows.dtype.name)
    chosen = np.unique(np.linspace(0, len(rows) - 1, QUERIES).astype(np.int64))
    queries = segment.vectors[chosen].astype(np.float32)
    progress("recall", 0, len(chosen))
    nearest, _ = search_parts([rows], queries, _NEAREST + 1, np.empty(0, np.int64))
    truth = [line[line != row][:_NEAREST] for line, row in zip(nearest, chosen.tolist(), strict=True)]
    whole = Scope(segment, np.empty(0, np.int64), None)
    found = [line for line, _ in coded(segment, whole, queries, kind, _CANDIDATES[-1])]
    stages = [_first(StageEntry(kind, count, _kept(truth, found, count)) for count in _CANDIDATES)]
    if lists:
        stages.append(_first(_settings(segment, queries, truth, lists)))
    progress("recall", len(chosen), len(chosen))
    return tuple(stages)


def _settings(segment: Segment, queries: np.ndarray, truth: list[Numbers], lists: int) -> Iterator[StageEntry]:
    counts = _CANDIDATES[1:4]
    for probes in sorted({min(probes, lists) for probes in _PROBES}):
        found = list(inverted(segment).nearest(queries, counts[-1], probes))
        for count in counts:
            yield StageEntry("ivf", count, _kept(truth, found, count), probes)


def _first(settings: Iterator[StageEntry]) -> StageEntry:
    """The first setting that reaches the target, or the best of all."""
    tried = []
    for stage in settings:
        if stage.recall >= TARGET:
            return stage
        tried.append(stage)
    return max(tried, key=lambda stage: stage.recall)


def _kept(truth: list[Numbers], found: list[Numbers], count: int) -> float:
    """Share of the true neighbours among the first `count` found; scored again, these are the hits."""
    total = sum(len(line) for line in truth)
    kept = sum(int(np.isin(line, near[:count]).sum()) for line, near in zip(truth, found, strict=True))
    return kept / total if total else 1.0
