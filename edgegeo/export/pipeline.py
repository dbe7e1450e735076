"""Checkpoint to bundle, the whole way: graphs, quantisation, verification, accuracy, packing, reading back."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgegeo.bundle import Bundle, Component, check_target, staging
from edgegeo.calibration import Calibration, readable
from edgegeo.errors import InputError
from edgegeo.evaluate import Scene, planet_scenes
from edgegeo.export import components, pack, parity, windows
from edgegeo.export.budget import Budget, open_search
from edgegeo.export.calibrating import RECORDED, Chosen, known
from edgegeo.export.components import Layout, Ranges
from edgegeo.export.conclude import Staged, conclude
from edgegeo.export.costs import Costs
from edgegeo.export.report import ExportReport
from edgegeo.export.source import Source
from edgegeo.models.weights import is_lean
from edgegeo.planet import DEFAULT_SEED
from edgegeo.progress import Progress, silent
from edgegeo.recipe import Recipe, check_layers, preset

PARITY_SAMPLES = 8
LEAN_SAMPLES, LEAN_STEPS = 2, 4
"""Of models too large for float32: places compared, and tokens of their answers; a forward pass takes seconds."""


def export_source(
    source: Source, recipe: Recipe, out: Path, places: int = 1000, progress: Progress = silent,
    costs: Costs | None = None, budget: Budget | None = None, calibration: Calibration | None = None,
) -> ExportReport:  # fmt: skip
    """Export an opened checkpoint to `out`; see `edgegeo.export.export`. costs: of what was done before."""
    if budget is not None:
        budget.check(recipe)
        _check_size(source)
    started = time.monotonic()
    costs = costs or Costs()
    check_target(out)
    plan = components.layout(source)
    samples = planet_scenes(recipe.calibration_samples, "validation", _planet_seed(source), progress)
    samples = readable(samples, source.checkpoint.reads)
    with staging(out) as exact_folder, staging(out) as folder, staging(out) as final:
        if is_lean(source.checkpoint.model) and not recipe.exact:
            done = _in_parts(source, recipe, plan, samples, folder, costs, progress, calibration)
        else:
            folders = (exact_folder, folder)
            done = _whole(source, recipe, plan, samples, folders, costs, progress, budget, calibration)
        return conclude(done, samples, places, final, out, started, progress)


def _whole(
    source: Source, recipe: Recipe, plan: Layout, samples: tuple[Scene, ...], folders: tuple[Path, Path],
    costs: Costs, progress: Progress, budget: Budget | None, given: Calibration | None,
) -> Staged:  # fmt: skip
    """By way of a complete fp32 bundle, which is compared first and stands beside the result in the report."""
    with costs.stage("write fp32"):
        exact, names = _stage(source, preset("fp32", recipe.target), plan, folders[0], {}, {}, progress)
    check_layers(recipe, names)
    checked = samples[:PARITY_SAMPLES]
    expected = _expect(source, checked, None, costs, progress)
    with costs.stage("compare fp32"):
        exact_stages = parity.compare(exact, source, expected, checked)
    parity.require(exact_stages, "fp32")
    if recipe.exact:
        made = Bundle(exact.path, replace(exact.manifest, name=f"{source.name}-{recipe.name}"), "")
        return Staged(made, None, exact_stages, (), _merged(source), costs=costs)
    with costs.stage("calibrate"):
        calibrated = known(source, recipe, plan, Chosen(given, samples), folders[0], progress)
    found = search = None
    if budget is not None:
        with costs.stage("search within the budget"):
            place = folders[0] / "switched"
            seen, seed = calibrated.statistics, _planet_seed(source)
            search = open_search(source, recipe, plan, exact, seen, place, budget, seed, progress)
            found = search.run()
        recipe = found.recipe
    with costs.stage(f"write {recipe.name}"):
        made, _ = _stage(source, recipe, plan, folders[1], calibrated.statistics, calibrated.said, progress)
    with costs.stage(f"compare {recipe.name}"):
        stages = parity.compare(made, source, expected, checked)
    parity.require(stages, recipe.name)
    if found is not None and search is not None:
        search.check(made, found)
    return Staged(made, exact, stages, exact_stages, _merged(source), calibrated.notes, costs, found)


def _in_parts(
    source: Source, recipe: Recipe, plan: Layout, samples: tuple[Scene, ...], folder: Path, costs: Costs,
    progress: Progress, given: Calibration | None,
) -> Staged:  # fmt: skip
    """For models that don't fit in float32: the exact graphs are proved part by part and never stand together."""
    with costs.stage("calibrate"):
        calibrated = known(source, recipe, plan, Chosen(given, samples), folder, progress)
    with costs.stage(f"write {recipe.name}"):
        made, names = _stage(source, recipe, plan, folder, calibrated.statistics, calibrated.said, progress)
        shutil.rmtree(folder / RECORDED, ignore_errors=True)  # the rest of the folder is the bundle
    check_layers(recipe, names)
    checked = samples[:LEAN_SAMPLES]
    expected = _expect(source, checked, LEAN_STEPS, costs, progress)
    with costs.stage("prove fp32 in parts"):
        exact = windows.prove(source, made, plan, expected, checked[0], folder, progress)
    parity.require(exact, "fp32")
    with costs.stage(f"compare {recipe.name}"):
        stages = parity.compare(made, source, expected, checked)
    parity.require(stages, recipe.name)
    note = f"too large for an fp32 bundle: its fp32 graphs were proved part by part, {len(checked)} places compared"
    return Staged(made, None, (*exact, *stages), (), _merged(source), (note, *calibrated.notes), costs)


def _expect(
    source: Source, samples: Sequence[Scene], steps: int | None, costs: Costs, progress: Progress
) -> parity.Expected:
    progress("run transformers", 0, 1)
    with costs.stage("run transformers"):
        expected = parity.expect(source, samples, steps)
    progress("run transformers", 1, 1)
    return expected


def _merged(source: Source) -> dict[str, float]:
    return {r: s.merge_difference for r, s in source.roles.items() if s.merge_difference is not None}


def _stage(
    source: Source, recipe: Recipe, plan: Layout, folder: Path, ranges: Ranges, calibration: dict[str, Any],
    progress: Progress,
) -> tuple[Bundle, tuple[str, ...]]:  # fmt: skip
    """Write everything but golden outputs and accuracy card into a staged folder; the names of all matrices."""
    written: dict[str, Component] = {}
    names: list[str] = []
    for index, (name, part) in enumerate(plan.parts.items()):
        progress(f"write {recipe.name}", index, len(plan.parts))
        written[name], found = components.write(part, recipe, folder, ranges)
        names.extend(found)
    progress(f"write {recipe.name}", len(plan.parts), len(plan.parts))
    pack.write_arrays(source, recipe, folder, ranges)
    pack.copy_files(source, folder)
    return pack.draft(folder, pack.manifest(source, recipe, plan, written, calibration)), tuple(names)


def _check_size(source: Source) -> None:
    if is_lean(source.checkpoint.model):
        raise InputError(
            "a budget is judged against whole fp32 graphs, and this checkpoint is too large for them; name the layers "
            "to keep in a recipe, [layers], without --max-drop"
        )


def _planet_seed(source: Source) -> int:
    seed = source.checkpoint.settings.planet_seed
    return DEFAULT_SEED if seed is None else seed
