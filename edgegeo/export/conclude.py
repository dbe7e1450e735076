"""The end of every export: golden outputs, accuracy, latency, packing, reading back, and the report of it all."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgegeo.bundle import Bundle, Manifest, publish
from edgegeo.errors import VerificationError
from edgegeo.evaluate import Scene, Scores, evaluate
from edgegeo.export import parity, report
from edgegeo.export.budget import Found
from edgegeo.export.budget_report import write_report
from edgegeo.export.costs import Costs
from edgegeo.export.fitting import with_fit
from edgegeo.export.report import ExportReport
from edgegeo.export.scales import with_scales
from edgegeo.measure import Latency, summarize, time_in_turn, time_job
from edgegeo.progress import Progress
from edgegeo.runtime import Embedder, Generator, Model, verify_bundle
from edgegeo.runtime.verify import COSINE, MARGIN, golden_outputs

GOLDEN_SAMPLES = 2
TIMING_SECONDS = 30.0
TASKS = ("retrieval", "gps", "codes")
"""Scored before and after; re-ranking every place would take longer than the rest together (`edgegeo eval` does it)."""


@dataclass(frozen=True)
class Staged:
    """A bundle that is written and compared, but not published."""

    made: Bundle
    before: Bundle | None
    """The fp32 bundle of the same checkpoint; None where `made` is it, or there is none."""
    stages: tuple[parity.Stage, ...]
    exact_stages: tuple[parity.Stage, ...] = ()
    """The stages of `before`."""
    merge_differences: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What the report has to say in words."""
    costs: Costs = field(default_factory=Costs)
    """What it took so far; the end is added."""
    found: Found | None = None
    """The mix of precisions, where an accuracy budget was given."""


def conclude(
    staged: Staged, samples: tuple[Scene, ...], places: int, folder: Path, out: Path, started: float, progress: Progress
) -> ExportReport:
    """Score, time and publish a staged bundle: finished in `folder`, read back there, then moved to `out`.

    started: time.monotonic() at the beginning of the export.
    """
    made, before, costs = staged.made, staged.before, staged.costs
    with costs.stage("score and time"):
        _write_golden(made, samples)
        scores = _score(made, before, places, progress)
        manifest = with_scales(made, with_fit(made, places, progress), samples, places > 0)
        took = _time(made, before, samples)
    quantisation = write_report(staged.found, made, scores) if staged.found is not None else None
    rows = [*report.size_rows(made, before), *report.parity_rows(staged.stages, staged.exact_stages)]
    progress("verify", 0, 1)
    with costs.stage("read back and publish"):
        published = _publish(made, _finished(manifest, staged.stages, scores), folder, out)
    progress("verify", 1, 1)
    rows += report.accuracy_rows(*scores)
    rows += report.latency_rows(*took)
    rows += report.cost_rows(costs)
    return ExportReport(
        out=str(published.path), name=published.manifest.name, fingerprint=published.fingerprint,
        bytes=published.bytes, places=places, seconds=time.monotonic() - started,
        merge_differences=staged.merge_differences, rows=tuple(rows), notes=staged.notes, peak_mb=costs.peak_mb,
        quantisation=quantisation,
    )  # fmt: skip


def _write_golden(bundle: Bundle, samples: tuple[Scene, ...]) -> None:
    images = [np.asarray(Image.open(BytesIO(s.photo)).convert("RGB")) for s in samples[:GOLDEN_SAMPLES]]
    texts = [s.text for s in samples[:GOLDEN_SAMPLES]]
    golden: dict[str, Any] = golden_outputs(Model(bundle, 1), np.stack(images), texts)
    np.savez(bundle.path / bundle.manifest.golden, **golden)


def _score(made: Bundle, before: Bundle | None, places: int, progress: Progress) -> tuple[Scores | None, Scores | None]:
    """(after, before); both None without places."""
    if not places:
        return None, None

    def named(stage: str) -> Progress:
        return lambda inner, done, total: progress(f"{stage}: {inner}", done, total)

    old = evaluate(before, places, TASKS, progress=named("fp32")) if before is not None else None
    return evaluate(made, places, TASKS, progress=named(made.manifest.name)), old


def _time(
    made: Bundle, before: Bundle | None, samples: tuple[Scene, ...]
) -> tuple[dict[str, Latency], dict[str, Latency]]:
    """Milliseconds of each job for one input, both bundles in turn; as often as fits in half a minute.

    On one thread: with several, a neighbour on one core makes the others wait, and the median tells of the neighbour.
    """
    jobs = {f"after {job}": run for job, run in _jobs(made, samples[0]).items()}
    if before is not None:
        jobs |= {f"before {job}": run for job, run in _jobs(before, samples[0]).items()}
    once = sum(sum(time_job(job, repeats=1, warmup=1)) for job in jobs.values())
    repeats = max(3, min(40, int(TIMING_SECONDS / max(once, 1e-3))))
    took = {name: summarize(seconds) for name, seconds in time_in_turn(jobs, repeats, warmup=0).items()}
    after = {n.removeprefix("after "): t for n, t in took.items() if n.startswith("after ")}
    return after, {n.removeprefix("before "): t for n, t in took.items() if n.startswith("before ")}


def _jobs(bundle: Bundle, sample: Scene) -> dict[str, Callable[[], object]]:
    model = Model(bundle, threads=1)
    jobs: dict[str, Callable[[], object]] = {}
    if bundle.manifest.roles.embed is not None:
        embedder = Embedder(model)
        jobs["embed a text, 1 thread"] = lambda: embedder.texts([sample.text])
        jobs["embed a photo, 1 thread"] = lambda: embedder.images([sample.photo])
    if bundle.manifest.roles.generate is not None:
        generator = Generator(model)
        jobs["answer a photo, 1 thread"] = lambda: generator.answer(sample.photo)
    return jobs


def _finished(
    manifest: Manifest, stages: tuple[parity.Stage, ...], scores: tuple[Scores | None, Scores | None]
) -> Manifest:
    card = {**manifest.accuracy, **report.accuracy_card(*scores)}
    card["parity"] = {s.name: {"measure": s.measure, "value": s.value, "limit": s.limit} for s in stages}
    card["golden_tolerance"] = {"cosine": COSINE, "yes_no_margin": MARGIN}
    return replace(manifest, accuracy=card)


def _publish(made: Bundle, manifest: Manifest, folder: Path, out: Path) -> Bundle:
    """Finish the bundle beside `out`, read it back there, re-run its golden inputs, and only then move it to `out`."""
    beside = publish(made.path, manifest, folder / "bundle")
    checked = verify_bundle(beside)
    if not checked.passed:
        wrong = ", ".join(check.name for check in checked.checks if not check.passed)
        raise VerificationError(f"the bundle does not repeat its own golden outputs ({wrong}); nothing was written")
    return publish(beside.path, beside.manifest, out)
