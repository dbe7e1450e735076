"""Checkpoint to bundle, the whole way: graphs, quantisation, verification, accuracy, packing, reading back."""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgegeo.bundle import MANIFEST_NAME, Bundle, Manifest, publish, staging
from edgegeo.calibration import describe_samples, record_ranges
from edgegeo.errors import BundleError, VerificationError
from edgegeo.evaluate import Scene, Scores, evaluate, planet_scenes
from edgegeo.export import components, pack, parity, report
from edgegeo.export.components import Layout, Ranges
from edgegeo.export.graph import save
from edgegeo.export.linear import Storage
from edgegeo.export.report import ExportReport
from edgegeo.export.source import Source
from edgegeo.measure import Latency, summarize, time_in_turn, time_job
from edgegeo.planet import DEFAULT_SEED
from edgegeo.progress import Progress, silent
from edgegeo.recipe import Recipe, preset
from edgegeo.runtime import Embedder, Generator, Model, open_session, verify_bundle
from edgegeo.runtime.verify import COSINE, MARGIN, golden_outputs
from edgegeo.schema import to_plain

PARITY_SAMPLES = 8
GOLDEN_SAMPLES = 2
TIMING_SECONDS = 30.0
TASKS = ("retrieval", "gps")
"""Scored before and after; re-ranking every place would take longer than the rest together (`edgegeo eval` does it)."""


def export_source(
    source: Source, recipe: Recipe, out: Path, places: int = 1000, progress: Progress = silent
) -> ExportReport:
    """Export an opened checkpoint to `out`; see `edgegeo.export.export`."""
    started = time.monotonic()
    _check_target(out)
    plan = components.layout(source)
    samples = planet_scenes(recipe.calibration_samples, "validation", _planet_seed(source), progress)
    with staging(out) as exact_folder, staging(out) as folder, staging(out) as final:
        exact = _stage(source, preset("fp32"), plan, exact_folder, {}, {}, progress)
        progress("run transformers", 0, 1)
        checked = samples[:PARITY_SAMPLES]
        expected = parity.expect(source, checked)
        progress("run transformers", 1, 1)
        exact_stages = parity.compare(exact, source, expected, checked)
        parity.require(exact_stages, "fp32")
        if _is_exact(recipe):
            made, stages = exact, exact_stages
            made = Bundle(exact.path, replace(exact.manifest, name=f"{source.name}-{recipe.name}"), "")
        else:
            ranges, calibration = _calibrate(exact, recipe, plan, samples, _planet_seed(source), progress)
            made = _stage(source, recipe, plan, folder, ranges, calibration, progress)
            stages = parity.compare(made, source, expected, checked)
            parity.require(stages, recipe.name)
        _write_golden(made, samples)
        before = None if made.path == exact.path else exact
        scores = _score(made, before, places, progress)
        took = _time(made, before, samples)
        rows = [*report.size_rows(made, before), *report.parity_rows(stages, exact_stages if before else ())]
        progress("verify", 0, 1)
        published = _publish(made, _finished(made.manifest, stages, scores), final, out)
        progress("verify", 1, 1)
    rows += report.accuracy_rows(*scores)
    rows += report.latency_rows(*took)
    return ExportReport(
        out=str(published.path), name=published.manifest.name, fingerprint=published.fingerprint,
        bytes=published.bytes, places=places, seconds=time.monotonic() - started,
        merge_differences={r: s.merge_difference for r, s in source.roles.items() if s.merge_difference is not None},
        rows=tuple(rows),
    )  # fmt: skip


def _check_target(out: Path) -> None:
    """What `publish` would refuse at the end is refused before the work."""
    if out.exists() and not (out / MANIFEST_NAME).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise BundleError(f"{out} exists and is not a bundle; choose another place with -o")


def _stage(
    source: Source, recipe: Recipe, plan: Layout, folder: Path, ranges: Ranges, calibration: dict[str, Any],
    progress: Progress,
) -> Bundle:  # fmt: skip
    """Write everything but golden outputs and accuracy card into a staged folder."""
    written = {}
    for index, (name, part) in enumerate(plan.parts.items()):
        progress(f"write {recipe.name}", index, len(plan.parts))
        written[name] = components.write(part, recipe, folder, ranges)
    progress(f"write {recipe.name}", len(plan.parts), len(plan.parts))
    pack.write_arrays(source, recipe, folder)
    pack.copy_files(source, folder)
    return pack.draft(folder, pack.manifest(source, recipe, plan, written, calibration))


def _planet_seed(source: Source) -> int:
    seed = source.checkpoint.settings.planet_seed
    return DEFAULT_SEED if seed is None else seed


def _is_exact(recipe: Recipe) -> bool:
    return {recipe.vision, recipe.trunk, recipe.head, recipe.embeddings} == {"fp32"}


def _calibrate(
    exact: Bundle, recipe: Recipe, plan: Layout, samples: tuple[Scene, ...], seed: int, progress: Progress
) -> tuple[Ranges, dict[str, Any]]:
    """Ranges of the vision towers' activations, where the recipe asks for static ones."""
    if recipe.vision != "int8" or recipe.vision_activations != "static":
        return {}, {}
    pixels = Model(exact).prepare([picture for s in samples for picture in (s.photo, s.tile)])
    ranges = {}
    for name, part in plan.parts.items():
        if part.kind == "vision":
            graph = components.build(part, Storage())
            graph.expose_layer_inputs()
            file = exact.path / "calibration" / f"{name}.onnx"
            save(graph.model(), file)
            ranges[name] = record_ranges(open_session(file), graph.layer_inputs, lambda: _batches(pixels), progress)
            shutil.rmtree(file.parent)
    return ranges, to_plain(describe_samples(samples, "validation", seed))


def _batches(pixels: NDArray[np.float32]) -> Iterator[dict[str, NDArray[np.float32]]]:
    # Every layer's input comes out at once: 16 pictures of 128 px, 2 of 512 px.
    size = max(1, min(16, 2_000_000 // pixels[0].size))
    for start in range(0, len(pixels), size):
        yield {"pixel_values": pixels[start : start + size]}


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
    card = report.accuracy_card(*scores)
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
