"""Any retrieval or GPS data set scored on any subject: what `edgegeo eval --data` runs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgegeo.datasets import GpsSample, GpsSet, RetrievalSet, SftSet
from edgegeo.datasets.sets import Loaded
from edgegeo.errors import InputError
from edgegeo.evaluate.score_positions import score_positions
from edgegeo.evaluate.score_retrieval import Joint, score_retrieval
from edgegeo.evaluate.section import Result
from edgegeo.evaluate.subject import Subject
from edgegeo.progress import Progress, silent


@dataclass(frozen=True)
class Sampling:
    """Which queries are scored."""

    limit: int | None = None
    """Only so many, drawn without replacement; None for all."""
    seed: int = 0

    def rows(self, count: int) -> NDArray[np.int64] | None:
        """(limit,) ascending rows of `count` queries; None where all are taken."""
        if self.limit is None or self.limit >= count:
            return None
        if self.limit < 1:
            raise InputError(f"at least one query is needed, not {self.limit}")
        return np.sort(np.random.default_rng(self.seed).permutation(count)[: self.limit]).astype(np.int64)


def score_dataset(
    subjects: Sequence[Subject], data: Loaded, sampling: Sampling | None = None, joint: Joint = "refuse",
    threads: int | None = None, progress: Progress = silent,
) -> list[Result]:  # fmt: skip
    """Score every subject on the same queries of a loaded data set; see `score_retrieval` and `score_positions`.

    Conversations (SftSet) are scored by the positions in their answers. InputError for a set that has nothing to score.
    """
    known = as_scored(data)
    chosen = (sampling or Sampling()).rows(count_queries(known))
    for subject in subjects:  # before the first one works for hours
        subject.check("embed" if isinstance(known, RetrievalSet) else "generate")
    out = []
    for subject in subjects:
        listen = progress if len(subjects) == 1 else _named(progress, subject)
        if isinstance(known, RetrievalSet):
            out.append(score_retrieval(subject, known, chosen, joint, threads, listen))
        else:
            out.append(score_positions(subject, known, chosen, threads, listen))
    return out


def as_scored(data: Loaded) -> RetrievalSet | GpsSet:
    """The set itself, or the pictures and positions of its conversations; InputError for bare positions."""
    if isinstance(data, (RetrievalSet, GpsSet)):
        return data
    if not isinstance(data, SftSet):
        raise InputError(f"{data.report.dataset} holds bare positions, so there is nothing to score")
    many = [row.id for row in data.rows if len(row.images) != 1]
    if many:
        raise InputError(
            f"{len(many)} conversations have no picture or several, for instance {many[0]}; leave them out"
        )
    samples = tuple(GpsSample(row.id, row.position, row.images[0]) for row in data.rows)
    return GpsSet(samples, data.protocols, data.report)


def count_queries(data: RetrievalSet | GpsSet) -> int:
    """How many queries or pictures a set has."""
    return len(data.queries if isinstance(data, RetrievalSet) else data.samples)


def _named(progress: Progress, subject: Subject) -> Progress:
    return lambda stage, done, total: progress(f"{subject.kind}: {stage}", done, total)
