"""Percentile bootstrap over places: how far a score would move with other places of the same kind."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgegeo.errors import InputError

RESAMPLES = 1000
SEED = 0
Values = NDArray[np.float64]
Statistic = Callable[[Values], Any]
"""A reduction over the last axis, e.g. `mean` or `median`."""


@dataclass(frozen=True)
class Metric:
    """A score with its 95 % bootstrap interval. Shares are 0..1, distances km."""

    value: float
    low: float
    high: float


def mean(values: Values) -> Any:
    """Mean over the last axis."""
    return np.mean(values, axis=-1)


def median(values: Values) -> Any:
    """Median over the last axis; infinities (no prediction) sort last."""
    return np.median(values, axis=-1)


def interval(values: Any, statistic: Statistic = mean, resamples: int = RESAMPLES, seed: int = SEED) -> Metric:
    """The statistic of one value a place, with the 2.5 and 97.5 percentiles over resampled places (Efron 1979).

    values (N,); the same seed and N resample the same places, so that intervals of two scores can be compared.
    """
    data = _checked(values)
    drawn = _resampled(data, statistic, resamples, seed)
    return Metric(float(statistic(data)), _percentile(drawn, 2.5), _percentile(drawn, 97.5))


def paired(
    after: Any, before: Any, statistic: Statistic = mean, resamples: int = RESAMPLES, seed: int = SEED
) -> Metric:
    """The change of a statistic between two runs over the same places, resampling both together.

    Far narrower than the two single intervals, since most places score the same in both runs.
    """
    one, two = _checked(after), _checked(before)
    if one.shape != two.shape:
        raise InputError(f"the two runs cover {one.size} and {two.size} places; compare runs over the same places")
    with np.errstate(invalid="ignore"):  # two infinite medians have no difference: NaN
        drawn = _resampled(one, statistic, resamples, seed) - _resampled(two, statistic, resamples, seed)
        value = float(statistic(one) - statistic(two))
    return Metric(value, _percentile(drawn, 2.5), _percentile(drawn, 97.5))


def matched(won: int, lost: int, count: int) -> Metric:
    """The change of a share between two runs over `count` places, of which `won` are right in the first run only and
    `lost` in the second only, with the adjusted Wald interval for matched pairs (Agresti and Min 2005).

    A bootstrap of runs that never differ has no width at all, however few the places; this keeps one.
    """
    if count < 1 or min(won, lost) < 0 or won + lost > count:
        raise InputError(f"{won} places won and {lost} lost are no comparison over {count} places")
    more, fewer, total = won + 0.5, lost + 0.5, count + 2.0
    middle = (more - fewer) / total
    spread = 1.959964 * math.sqrt(more + fewer - (more - fewer) ** 2 / total) / total
    return Metric((won - lost) / count, max(-1.0, middle - spread), min(1.0, middle + spread))


def clustered(values: Any, groups: Any, resamples: int = RESAMPLES, seed: int = SEED) -> Metric:
    """The mean of values (N,) with an interval that resamples whole groups (N,) of small integers.

    Five captions of one image fail together: drawn one by one they would promise too much (Field and Welsh 2007).
    """
    data = _checked(values)
    drawn = _group_means(data, groups, resamples, seed)
    return Metric(float(data.mean()), _percentile(drawn, 2.5), _percentile(drawn, 97.5))


def paired_clustered(after: Any, before: Any, groups: Any, resamples: int = RESAMPLES, seed: int = SEED) -> Metric:
    """The change of a mean between two runs over the same values, resampling whole groups of both together."""
    one, two = _checked(after), _checked(before)
    if one.shape != two.shape:
        raise InputError(f"the two runs cover {one.size} and {two.size} queries; compare runs over the same queries")
    with np.errstate(invalid="ignore"):  # two infinite means have no difference: NaN
        change = one - two
        drawn = _group_means(change, groups, resamples, seed)
        return Metric(float(change.mean()), _percentile(drawn, 2.5), _percentile(drawn, 97.5))


def _group_means(data: Values, groups: Any, resamples: int, seed: int) -> Values:
    """Means (resamples,) over groups drawn with replacement."""
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(number, data), np.bincount(number)
    rng = np.random.default_rng(seed)
    out = np.empty(resamples)
    for i in range(resamples):
        drawn = rng.integers(0, sums.size, sums.size)
        out[i] = sums[drawn].sum() / sizes[drawn].sum()
    return out


def _resampled(data: Values, statistic: Statistic, resamples: int, seed: int) -> Values:
    rng = np.random.default_rng(seed)
    out = np.empty(resamples)
    for i in range(resamples):
        out[i] = statistic(data[rng.integers(0, data.size, data.size)])
    return out


def _percentile(drawn: Values, q: float) -> float:
    # Linear interpolation between infinities is NaN; the order statistic is what is meant.
    return float(np.percentile(drawn, q, method="linear" if np.isfinite(drawn).all() else "nearest"))


def _checked(values: Any) -> Values:
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or data.size == 0:
        raise InputError("a score needs at least one place")
    return data
