"""Which matrices a quantised model suffers from most, and in what order raising their precision pays. Torch-free.

The error that each group of matrices makes alone is measured at the model's output; independent rounding errors add
up in power, so the error of a mix is about the sum over its groups, and the best next step is the one that removes
most of it a byte (the reasoning of HAWQ-V2, arXiv 1911.03852, with errors measured instead of estimated from Hessians).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

Sizes = Mapping[str, Mapping[str, int]]
"""Matrix -> precision -> bytes, from the coarsest to the finest."""


@dataclass(frozen=True)
class Group:
    """Matrices that are raised together."""

    name: str
    layers: tuple[str, ...]
    """COMPONENT.LAYER of each."""
    sizes: dict[str, int]
    """Precision -> bytes of them all, from the coarsest to the finest."""


@dataclass(frozen=True)
class Effect:
    """What one group at one precision does to the output while all others are at their finest."""

    group: str
    precision: str
    error: float
    """Power of the difference over the power of the output, mean over all rows; 0 for none."""
    cosine: float
    """Mean cosine of the rows."""

    @property
    def sqnr_db(self) -> float:
        """Signal over quantisation noise in decibels; infinite without any."""
        return float("inf") if self.error <= 0 else float(-10 * np.log10(self.error))


@dataclass(frozen=True)
class Step:
    """One group raised by one or more rungs."""

    group: Group
    precision: str
    gain: float
    """Error it removes, by the measured effects."""
    bytes: int
    """Room it takes."""


def group_matrices(sizes: Sizes, limit: int) -> tuple[Group, ...]:
    """Groups in the model's order: single matrices, or where those are more than `limit`, whole blocks, or runs of
    neighbouring blocks. Matrices of different components or different ladders are never grouped."""
    names = list(sizes)
    if len(names) > limit:
        names_of = [[*run] for _, run in groupby(names, key=lambda one: (_block(one), tuple(sizes[one])))]
    else:
        names_of = [[one] for one in names]
    while len(names_of) > limit:
        merged: list[list[str]] = []
        for run in names_of:
            if merged and len(merged[-1]) < 2 * len(run) and _kin(merged[-1][0], run[0], sizes):
                merged[-1] += run
            else:
                merged.append(run)
        if len(merged) == len(names_of):
            break  # components and ladders alone are more than the limit
        names_of = merged
    return tuple(_group(run, sizes) for run in names_of)


def effect(group: str, precision: str, got: Sequence[Any], wanted: Sequence[Any]) -> Effect:
    """Compare outputs (N, D) of several kinds; every kind counts alike, and a NaN stays one."""
    errors, cosines = [], []
    for one, other in zip(got, wanted, strict=True):
        a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
        power = np.maximum((b * b).sum(axis=-1), 1e-30)
        errors.append(float(np.mean(((a - b) ** 2).sum(axis=-1) / power)))
        norms = np.sqrt(np.maximum((a * a).sum(axis=-1) * power, 1e-60))
        cosines.append(float(np.mean((a * b).sum(axis=-1) / norms)))
    return Effect(group, precision, float(np.mean(errors)), float(np.mean(cosines)))


def measure_effects(
    groups: Sequence[Group], outputs: Callable[[Mapping[str, str]], Sequence[NDArray[Any]]],
    recall: Callable[[str, str, Callable[[], Effect]], Effect] = lambda group, precision, measure: measure(),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Effect, ...]:  # fmt: skip
    """Every group at every precision below its finest, alone. outputs: of a mix, matrix -> precision; recall: measures
    an effect, or knows it from before."""
    finest = {layer: _finest(group) for group in groups for layer in group.layers}
    wanted = cache(lambda: outputs(finest))
    trials = [(group, precision) for group in groups for precision in list(group.sizes)[:-1]]
    found = []
    for done, (group, precision) in enumerate(trials):
        mix = finest | dict.fromkeys(group.layers, precision)
        found.append(recall(group.name, precision, partial(_alone, group.name, precision, mix, outputs, wanted)))
        progress(done + 1, len(trials))
    return tuple(found)


def order_steps(groups: Sequence[Group], effects: Sequence[Effect]) -> tuple[Step, ...]:
    """All steps from the coarsest mix to the finest, the one that removes most error a byte first.

    A rung that is no better than the one below is skipped where a higher one is: a group's steps follow the lower
    convex hull of its errors over bytes, so that the best order is simply by slope.
    """
    known = {(one.group, one.precision): one.error for one in effects}
    steps: list[Step] = []
    for group in groups:
        rungs = list(group.sizes)
        errors = [known.get((group.name, rung), 0.0) for rung in rungs]
        at = 0
        while at < len(rungs) - 1:
            slopes = [
                (errors[at] - errors[to]) / max(group.sizes[rungs[to]] - group.sizes[rungs[at]], 1)
                for to in range(at + 1, len(rungs))
            ]
            to = at + 1 + int(np.argmax(slopes))
            room = group.sizes[rungs[to]] - group.sizes[rungs[at]]
            steps.append(Step(group, rungs[to], errors[at] - errors[to], room))
            at = to
    # Stable, and slopes of one group fall: a group's steps keep their order.
    return tuple(sorted(steps, key=lambda step: -step.gain / max(step.bytes, 1)))


def halved_after(steps: Sequence[Step], count: int) -> int:
    """The fewest steps, more than `count`, that leave at most half of the error which `count` leave."""
    rest = np.cumsum([step.gain for step in reversed(steps)])[::-1]
    allowed = rest[count] / 2 if count < len(steps) else 0.0
    return next((more for more in range(count + 1, len(steps)) if rest[more] <= allowed), len(steps))


def mix_after(steps: Sequence[Step], count: int) -> dict[str, str]:
    """Matrix -> precision after the first `count` steps; matrices that no step raised are left out."""
    return {layer: step.precision for step in steps[:count] for layer in step.group.layers}


def _alone(
    group: str, precision: str, mix: Mapping[str, str], outputs: Callable[[Mapping[str, str]], Sequence[NDArray[Any]]],
    wanted: Callable[[], Sequence[NDArray[Any]]],
) -> Effect:  # fmt: skip
    exact = wanted()  # before the mix: both are asked of one model
    return effect(group, precision, outputs(mix), exact)


def _finest(group: Group) -> str:
    return list(group.sizes)[-1]


def _group(names: Sequence[str], sizes: Sizes) -> Group:
    total = {precision: sum(sizes[name][precision] for name in names) for precision in sizes[names[0]]}
    blocks = list(dict.fromkeys(map(_block, names)))
    if len(names) == 1:
        name = names[0]
    elif len(blocks) == 1:
        name = f"{blocks[0]}.*" if len(names) > 1 else names[0]
    else:
        name = f"{blocks[0]} to {blocks[-1].rpartition('.')[2]}"
    return Group(name, tuple(names), total)


def _block(name: str) -> str:
    """COMPONENT.layers.N of a matrix in a layer; of others their own name."""
    parts = name.split(".")
    at = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return name if at is None else ".".join(parts[: at + 1])


def _kin(one: str, other: str, sizes: Sizes) -> bool:
    return one.partition(".")[0] == other.partition(".")[0] and tuple(sizes[one]) == tuple(sizes[other])
