"""The accuracy card: every score of a bundle over one set of places, with intervals, and the change between two."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle
from edgegeo.errors import BundleError, InputError
from edgegeo.evaluate.bootstrap import Metric, Statistic, interval, mean, median, paired
from edgegeo.evaluate.coded import coded_hits
from edgegeo.evaluate.gps import guessed_distances, locate_scenes, random_distances
from edgegeo.evaluate.rerank import rerank_scenes
from edgegeo.evaluate.retrieval import embed_scenes, retrieval_hits
from edgegeo.evaluate.scenes import Scene, planet_scenes
from edgegeo.geo import GPS_THRESHOLDS_KM
from edgegeo.planet import DEFAULT_SEED, Planet
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Embedder, Generator, Model, Reranker

TASKS = ("retrieval", "gps", "rerank", "codes")
_GUESSES = 1000


@dataclass(frozen=True)
class Scores:
    """One run: raw outcomes a place, and the metrics made of them."""

    places: int
    split: str
    metrics: dict[str, Metric]
    outcomes: dict[str, NDArray[np.float64]] = field(repr=False)
    """Metric name -> one value a place (N,): 0/1 for shares, km for medians. Paired comparisons need them."""

    def to_dict(self) -> dict[str, Any]:
        """For --json and the accuracy card; a median beyond every answer is None, since JSON has no infinity."""
        return {"places": self.places, "split": self.split, "metrics": {n: plain(m) for n, m in self.metrics.items()}}


def evaluate(
    bundle: str | Path | Bundle | Model, places: int = 1000, tasks: Sequence[str] = TASKS, split: str = "test",
    planet_seed: int | None = None, threads: int | None = None, provider: str = "cpu", progress: Progress = silent,
) -> Scores:  # fmt: skip
    """Score a bundle on planet places; tasks whose role the bundle lacks are skipped.

    planet_seed: None takes the planet that the bundle's checkpoint was trained on, or the default one.
    Raises InputError for an unknown task, BundleError if the bundle offers none of the tasks.
    """
    if unknown := sorted(set(tasks) - set(TASKS)):
        raise InputError(f"unknown task '{unknown[0]}'; use {', '.join(TASKS)}")
    model = Model.open(bundle, threads, provider)
    if planet_seed is None:
        known = model.bundle.manifest.source.get("planet_seed")
        planet_seed = known if isinstance(known, int) else DEFAULT_SEED
    scenes = planet_scenes(places, split, planet_seed, progress)
    roles = model.bundle.manifest.roles
    outcomes: dict[str, NDArray[np.float64]] = {}
    if roles.embed is not None and {"retrieval", "rerank", "codes"} & set(tasks):
        embeddings = embed_scenes(Embedder(model), scenes, progress=progress)
        outcomes |= retrieval_hits(embeddings)
        if "codes" in tasks:
            outcomes |= coded_hits(embeddings, roles.embed.matryoshka)
        if roles.rerank is not None and "rerank" in tasks:
            for query in ("text", "photo"):
                run = rerank_scenes(Reranker(model), embeddings, scenes, query, progress=progress)
                outcomes[f"rerank_{query}_recall_at_1"] = run.yes_no
                outcomes[f"rerank_fused_{query}_recall_at_1"] = run.fused
    if roles.generate is not None and "gps" in tasks:
        outcomes |= _gps(model, scenes, split, planet_seed, progress)
    if not outcomes:
        raise BundleError(f"{model.bundle.path}: the bundle offers none of {', '.join(tasks)}; export it with a role")
    metrics = {name: interval(values, statistic_of(name)) for name, values in outcomes.items()}
    return Scores(places, split, metrics, outcomes)


def difference(after: Scores, before: Scores) -> dict[str, Metric]:
    """Change of every metric both runs have, with the interval of the paired bootstrap."""
    shared = [name for name in after.outcomes if name in before.outcomes]
    return {n: paired(after.outcomes[n], before.outcomes[n], statistic_of(n)) for n in shared}


def statistic_of(metric: str) -> Statistic:
    """Medians for kilometres, means for shares."""
    return median if metric.endswith("median_km") else mean


def plain(metric: Metric) -> dict[str, float | None]:
    """A metric for JSON; what is not finite becomes None."""
    return {k: (v if np.isfinite(v) else None) for k, v in vars(metric).items()}


def _gps(
    model: Model, scenes: Sequence[Scene], split: str, planet_seed: int, progress: Progress
) -> dict[str, NDArray[np.float64]]:
    run = locate_scenes(Generator(model), scenes, progress=progress)
    out = {"gps_answered": np.isfinite(run.distances).astype(np.float64)} | _within("gps", run.distances)
    other = "validation" if split != "validation" else "train"
    guesses = np.asarray(Planet(planet_seed).coordinates(other, _GUESSES), np.float64)
    return (
        out | _within("gps_guess", guessed_distances(scenes, guesses)) | _within("gps_random", random_distances(scenes))
    )


def _within(name: str, distances: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    out = {f"{name}_within_{km:g}_km": (distances <= km).astype(np.float64) for km in GPS_THRESHOLDS_KM}
    return out | {f"{name}_median_km": distances}
