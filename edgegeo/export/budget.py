"""An accuracy budget: the smallest mix of precisions that loses no more than allowed against the fp32 graphs.

1. Sensitivity: the error that each group of matrices makes alone, at the embeddings (calibration/sensitivity.py).
2. Order: steps to finer precisions, most error removed a byte first.
3. Search: the task itself is scored, on validation places, for few of those mixes: bisection for the fewest steps.
4. Confirmation: the mix found is scored on as many other validation places, because a minimum over several noisy
   scores is lucky; while it fails there, steps are taken that halve the error. Test places are never looked at.

Every score is compared with the fp32 graphs place by place (matched pairs, Agresti and Min 2005). Components of one
kind are a base with other adapters, so that what is found for the judged one is done to its siblings too, and every
byte counts as often as there are siblings: the bundle is what should be small.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgegeo.bundle import Bundle, Roles
from edgegeo.calibration import readable
from edgegeo.calibration.sensitivity import (
    Effect,
    Group,
    Step,
    effect,
    group_matrices,
    halved_after,
    measure_effects,
    mix_after,
    order_steps,
)
from edgegeo.errors import DeviceError, InputError, VerificationError
from edgegeo.evaluate import Scene, planet_scenes
from edgegeo.evaluate.bootstrap import interval, matched
from edgegeo.export import pack
from edgegeo.export.budget_terms import Budget, Change, Found, Trial
from edgegeo.export.components import Layout, Ranges, module
from edgegeo.export.journal import Journal
from edgegeo.export.judge import ImageCache, Judge, judge_of
from edgegeo.export.plan import stored_bytes
from edgegeo.export.source import Source
from edgegeo.export.switched import SwitchedModel, write_switched
from edgegeo.measure import Latency, available_mb, summarize, time_in_turn, time_job
from edgegeo.progress import Progress
from edgegeo.recipe import Recipe
from edgegeo.runtime import Embedder, Generator, Model
from edgegeo.schema import to_plain

__all__ = ["Budget", "Change", "Found", "Search", "Trial", "open_search"]

WORST_PLACES = 500
"""Places that the groups with the largest errors are scored on, each alone."""
CONFIRMATIONS = 6
LEAST_SCORE = 0.05
"""A model that finds less than this with fp32 graphs loses nothing that could be measured."""
TIMING_SECONDS = 20.0
SAME = 0.9995
"""Least mean cosine of the written graphs with what was measured."""
SESSIONS = 4.5
"""Memory of a search by the bytes of its float32 weights: fp32 and switched graphs, each with packed copies."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Effort:
    """How closely a search looks."""

    groups: int = 64
    """Groups that a sensitivity pass measures at most."""
    probes: int = 16
    """Places that errors are measured on: embeddings are continuous, so that few suffice to rank."""
    worst: int = 5
    """Groups whose effect alone is also scored on the task."""


LARGE, LARGE_MB = Effort(groups=32, probes=4, worst=2), 256
"""Of models of more float32 weights than these, whose sensitivity pass would take hours."""


class Search:
    """The switched graphs of one recipe, judged against the fp32 bundle."""

    def __init__(
        self, judge: Judge, model: SwitchedModel, exact: Model, recipe: Recipe, budget: Budget,
        scenes: Sequence[Scene], progress: Progress, journal: Journal | None = None,
        siblings: Mapping[str, int] | None = None, effort: Effort = Effort(),
    ) -> None:  # fmt: skip
        """scenes: twice the budget's places; the first half is searched on. journal: of what was measured before.
        siblings: kind of component -> how many of it the bundle has; one of each where nothing is said.
        """
        self.judge, self.model, self.exact, self.recipe, self.budget = judge, model, exact, recipe, budget
        half = len(scenes) // 2
        self.scenes = {"search": tuple(scenes[:half]), "confirm": tuple(scenes[half:])}
        self.progress, self.journal = progress, journal or Journal()
        self.siblings, self.effort = siblings or {}, effort
        self.sizes = {
            f"{part}.{layer}": {one: self.siblings.get(kind_of(part), 1) * size for one, size in sizes.items()}
            for part, layers in model.ladders.items() for layer, sizes in layers.items()
        }  # fmt: skip
        self.cache = ImageCache()
        self.references: dict[tuple[str, int], dict[str, NDArray[np.float64]]] = {}

    def run(self) -> Found:
        """`find`, and how long every mix of the curve takes."""
        found = self.find()
        return replace(found, latency=self._latency(found.trials))

    def find(self) -> Found:
        """The mix. VerificationError with the nearest miss where there is none; InputError where the fp32 model can't
        do the task either."""
        self._check_reference()
        groups = group_matrices(self.sizes, self.effort.groups)
        effects = self._effects(groups)
        steps = order_steps(groups, effects)
        trials: dict[int, Trial] = {}
        confirmed = self._confirmed(steps, self._least(steps, trials), trials)
        chosen = trials[confirmed.steps]
        recipe = replace(self.recipe, layers=self._layers(chosen.mix))
        return Found(
            self.budget, self.judge.name, self.judge.role, recipe, groups, effects, self._worst(groups, effects),
            self._curve(trials, steps), chosen, confirmed,
            threads=self.model.threads,
        )  # fmt: skip

    def check(self, made: Bundle, found: Found) -> None:
        """VerificationError unless a written bundle computes what was scored; ends the journal."""
        scenes = self.scenes["confirm"][: self.effort.probes]
        self.model.mix(found.chosen.mix)
        wanted = self.judge.probe(self.model, scenes, ImageCache())
        got = self.judge.probe(Model(made), scenes, ImageCache())
        least = min(effect("", "", [one], [other]).cosine for one, other in zip(got, wanted, strict=True))
        if not least >= SAME:
            raise VerificationError(
                f"the written graphs compute something else than the ones the budget was judged on (cosine {least:.6f} "
                f"instead of {SAME}). Nothing was written; report this with the checkpoint's config.json"
            )
        self.journal.close()

    def _check_reference(self) -> None:
        known = self._reference("search", len(self.scenes["search"]))
        low = [f"{name} {100 * v.mean():.1f} %" for name, v in known.items() if v.mean() < LEAST_SCORE]
        if low:
            raise InputError(
                f"with fp32 graphs the checkpoint reaches {', '.join(low)} on places of the demonstration planet, so a "
                "drop there says nothing about it; count with --agreement how many queries find another first tile, or "
                "name the layers to keep in a recipe, [layers], and judge it with edgegeo eval --data --against"
            )

    def _reference(self, which: str, count: int) -> dict[str, NDArray[np.float64]]:
        """Outcomes of the fp32 graphs on the first `count` places of a half."""
        if (which, count) not in self.references:
            self.references[which, count] = self._outcomes(None, which, count, "fp32 graphs")
        return self.references[which, count]

    def _effects(self, groups: Sequence[Group]) -> tuple[Effect, ...]:
        scenes = self.scenes["search"][: self.effort.probes]

        def outputs(mix: Mapping[str, str]) -> list[NDArray[np.float32]]:
            self.model.mix(mix)
            return self.judge.probe(self.model, scenes, self.cache)

        def recall(group: str, precision: str, measure: Callable[[], Effect]) -> Effect:
            return Effect(**self.journal.recall([group, precision], lambda: asdict(measure())))

        def listen(done: int, total: int) -> None:
            self.progress("budget: sensitivity", done, total)

        return measure_effects(groups, outputs, recall, listen)

    def _least(self, steps: Sequence[Step], trials: dict[int, Trial]) -> int:
        """The fewest steps that keep to the budget on the search places, by bisection; all of them if none does."""
        trials[0] = self._trial(steps, 0, "search")
        if trials[0].within(self.budget):
            return 0
        low, high = 0, len(steps)
        while high - low > 1:
            middle = (low + high) // 2
            trials[middle] = self._trial(steps, middle, "search")
            low, high = (low, middle) if trials[middle].within(self.budget) else (middle, high)
        if high not in trials:
            trials[high] = self._trial(steps, high, "search")
        return high

    def _confirmed(self, steps: Sequence[Step], count: int, trials: dict[int, Trial]) -> Trial:
        """The first mix from `count` steps on that keeps to the budget on other places too; the last try takes all."""
        missed: list[Trial] = []
        for left in reversed(range(CONFIRMATIONS)):
            tried = self._trial(steps, count, "confirm")
            if tried.within(self.budget):
                return tried
            missed.append(tried)
            if count == len(steps):
                break
            count = len(steps) if left == 1 else halved_after(steps, count)
            if count not in trials:
                trials[count] = self._trial(steps, count, "search")
        raise VerificationError(self._miss(missed))

    def _trial(self, steps: Sequence[Step], count: int, which: str) -> Trial:
        name = "as the recipe" if count == 0 else f"{count} of {len(steps)} steps"
        return self._score(name, mix_after(steps, count), which, count)

    def _score(self, name: str, mix: dict[str, str], which: str, steps: int, places: int | None = None) -> Trial:
        count = len(self.scenes[which][:places])
        before = self._reference(which, count)
        after = self._outcomes(mix, which, count, f"{which}, {name}")
        changes = tuple(_change(metric, after[metric], before[metric]) for metric in before)
        size = sum(sizes[mix.get(layer, next(iter(sizes)))] for layer, sizes in self.sizes.items())
        return Trial(name, steps, count, mix, changes, size)

    def _outcomes(
        self, mix: Mapping[str, str] | None, which: str, count: int, stage: str
    ) -> dict[str, NDArray[np.float64]]:
        """What the judge says of a mix, or of the fp32 graphs (None), on the first `count` places of a half."""

        def measure() -> dict[str, list[float]]:
            listen = self._named(f"budget: {stage}")
            if mix is None:
                found = self.judge.outcomes(self.exact, self.scenes[which][:count], ImageCache(), listen)
            else:
                self.model.mix(mix)
                found = self.judge.outcomes(self.model, self.scenes[which][:count], self.cache, listen)
            return {name: values.tolist() for name, values in found.items()}

        key = [which, count, None if mix is None else sorted(mix.items())]
        # A judge that compares with the fp32 graphs has to see them.
        known = measure() if mix is None and self.judge.compares else self.journal.recall(key, measure)
        return {name: np.array(values, np.float64) for name, values in known.items()}

    def _worst(self, groups: Sequence[Group], effects: Sequence[Effect]) -> dict[str, tuple[Change, ...]]:
        """What the groups with the largest errors cost the task, each alone."""
        known = {group.name: group for group in groups}
        base = [one for one in effects if one.precision == next(iter(known[one.group].sizes))]
        finest = {layer: list(sizes)[-1] for layer, sizes in self.sizes.items()}
        out = {}
        for one in sorted(base, key=lambda one: -one.error)[: self.effort.worst]:
            mix = finest | dict.fromkeys(known[one.group].layers, one.precision)
            out[one.group] = self._score(f"{one.group} alone", mix, "search", 0, WORST_PLACES).changes
        return out

    def _curve(self, trials: dict[int, Trial], steps: Sequence[Step]) -> tuple[Trial, ...]:
        """The trials of the search and every uniform precision, from the smallest."""
        uniform = []
        ladders = {tuple(sizes) for sizes in self.sizes.values()}
        for precision in dict.fromkeys(one for ladder in ladders for one in ladder[1:]):
            mix = {layer: precision for layer, sizes in self.sizes.items() if precision in sizes}
            if all(mix != one.mix for one in trials.values()):
                uniform.append(self._score(f"{precision} or finer throughout", mix, "search", len(steps)))
        return tuple(sorted([*trials.values(), *uniform], key=lambda one: (one.matrix_bytes, one.steps)))

    def _latency(self, curve: Sequence[Trial]) -> dict[str, dict[str, Latency]]:
        """Milliseconds for one input, all mixes in turn."""
        scene, jobs = self.scenes["search"][0], {}
        for one in curve:
            for job, work in _jobs(self.judge.role, self.model, scene).items():
                jobs[one.name, job] = _switched(self.model, one.mix, work)
        keyed = {f"{i}": work for i, work in enumerate(jobs.values())}
        once = sum(sum(time_job(work, repeats=1, warmup=1)) for work in keyed.values())
        repeats = max(3, min(40, int(TIMING_SECONDS / max(once, 1e-3))))
        took = time_in_turn(keyed, repeats, warmup=0)
        out: dict[str, dict[str, Latency]] = {}
        for (trial, job), seconds in zip(jobs, took.values(), strict=True):
            out.setdefault(trial, {})[job] = summarize(seconds)
        return out

    def _miss(self, trials: Sequence[Trial]) -> str:
        near = min(trials, key=lambda one: one.drop)
        bad = max(near.changes, key=lambda one: -one.change.value)
        raised = f"{len(near.mix)} of {len(self.sizes)} matrices kept finer"
        asked = "with its whole interval within" if self.budget.proven else "at most"
        return (
            f"no mix of {self.recipe.name} and finer matrices loses {asked} {self.budget.max_drop:g} points of "
            f"{self.judge.name}: the nearest, {raised}, loses {near.drop:.1f} ({bad.metric}, 95 % interval "
            f"{-100 * bad.change.high:.1f} to {-100 * bad.change.low:.1f}, {near.places:,} places). Nothing was "
            "written; allow more with --max-drop, or start from a finer precision"
        )

    def _layers(self, mix: Mapping[str, str]) -> dict[str, str]:
        """A recipe's [layers] of a mix. The first pattern counts, so that what was raised stands before what the recipe
        says of it, and what siblings follow behind."""
        rest = {pattern: one for pattern, one in self.recipe.layers.items() if pattern not in mix}
        alike = {self._pattern(layer): one for layer, one in mix.items()}
        return dict(mix) | rest | alike if rest else alike

    def _pattern(self, layer: str) -> str:
        part, _, name = layer.partition(".")
        kind = kind_of(part)
        return f"{kind}*.{name}" if self.siblings.get(kind, 1) > 1 else layer

    def _named(self, stage: str) -> Progress:
        return lambda inner, done, total: self.progress(stage, done, total)


def open_search(
    source: Source, recipe: Recipe, plan: Layout, exact: Bundle, ranges: Ranges, folder: Path, budget: Budget,
    seed: int, progress: Progress,
) -> Search:  # fmt: skip
    """The search for a checkpoint; `folder` holds its switched graphs, which it needs to the end. It lies in a staged
    bundle, beside which a hidden file lets a search that was killed go on.

    DeviceError where they would not fit into memory.
    """
    judge = judge_of(tuple(source.roles), budget.agreement)
    effort = LARGE if _check_memory(plan, judge.role) > LARGE_MB else Effort()
    board = _open_board(source, recipe, plan, ranges, folder, judge.role)
    # Calibration saw the first ones.
    first = recipe.calibration_samples
    scenes = planet_scenes(first + 2 * budget.places, "validation", seed, progress)[first:]
    scenes = readable(scenes, source.checkpoint.reads)
    facts = {
        "source": source.facts, "recipe": to_plain(recipe), "places": len(scenes), "judge": judge.name, "seed": seed,
        "tools": pack.tool_versions(),
    }  # fmt: skip
    known = Journal(folder.parent.with_name(f".{source.name}-{recipe.name}.budget.jsonl"), facts)
    siblings = Counter(part.kind for part in plan.parts.values())
    return Search(judge, board, Model(exact), recipe, budget, scenes, progress, known, siblings, effort)


def kind_of(component: str) -> str:
    """Kind of a component by its name, of which `layout` makes "trunk" and "trunk_embed"."""
    return component.partition("_")[0]


def _check_memory(plan: Layout, role: str) -> float:
    """Megabytes of a role's float32 weights; DeviceError where a search of them would not fit."""
    names = set(plan.roles[role].values())
    exact = sum(stored_bytes(module(p.kind, p.modules), "fp32", 32) for n, p in plan.parts.items() if n in names)
    needed, free = SESSIONS * exact / 2**20, available_mb()
    if needed > free:
        raise DeviceError(
            f"a budget is judged with fp32 graphs beside those of every precision: about {needed / 1024:.1f} GiB of "
            f"memory, {free / 1024:.1f} GiB are free; name the layers to keep in a recipe, [layers], without --max-drop"
        )
    return exact / 2**20


def _open_board(
    source: Source, recipe: Recipe, plan: Layout, ranges: Ranges, folder: Path, role: str
) -> SwitchedModel:  # fmt: skip
    """The switched graphs of a role's components, written to `folder` and opened."""
    folder.mkdir()
    written, ladders = {}, {}
    for name in dict.fromkeys(plan.roles[role].values()):
        written[name], ladders[name] = write_switched(plan.parts[name], recipe, folder, ranges)
    pack.write_arrays(source, recipe, folder, ranges)
    pack.copy_files(source, folder)
    manifest = pack.manifest(source, recipe, plan, written, {})
    manifest = replace(manifest, roles=Roles(**{role: getattr(manifest.roles, role)}))
    return SwitchedModel(pack.draft(folder, manifest), ladders)


def _change(metric: str, after: NDArray[np.float64], before: NDArray[np.float64]) -> Change:
    won, lost = int((after > before).sum()), int((after < before).sum())
    return Change(metric, interval(after), interval(before), matched(won, lost, len(after)), won, lost)


def _jobs(role: str, model: Model, scene: Scene) -> dict[str, Work]:
    if role == "generate":
        generator = Generator(model)
        return {"answer a photo": lambda: generator.answer(scene.photo)}
    embedder = Embedder(model)
    return {
        "embed a text": lambda: embedder.texts([scene.text]),
        "embed a photo": lambda: embedder.images([scene.photo]),
    }


def _switched(model: SwitchedModel, mix: Mapping[str, str], work: Work) -> Work:
    def job() -> object:
        model.mix(mix)
        return work()

    return job
