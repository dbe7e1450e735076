"""Doubt fitted on labelled places, and how well it keeps its word: reliability, coverage, mode collapse."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgegeo.errors import InputError
from edgegeo.evaluate.logistic import logistic
from edgegeo.runtime.doubt import CLOSE_KM, LEVELS, Band, Doubt
from edgegeo.runtime.fusion import Linear
from edgegeo.runtime.sphere import Doubles, table_km, vectors

FOLDS = 5
BAND_PLACES = 60
"""Answers that a band is made of at least; fewer can't hold a 95 % radius."""
MOST_BANDS = 8
BINS = 10
COLLAPSED = 0.25
"""Share of answers on one spot from which a set of different pictures counts as mode collapse."""
SMALLEST_KM = 1.0
"""Smallest radius that is ever claimed: places and their tiles are points on the planet, and fields outside."""
_SPOT_KM = 25.0


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence: what was said, and what came true."""

    said: float
    """Mean confidence."""
    came: float
    """Share within 750 km."""
    places: int


@dataclass(frozen=True)
class Reliability:
    """What confidences and radii are worth over labelled places."""

    places: int
    bins: tuple[Bin, ...]
    expected_error: float
    """Expected calibration error: mean of |said - came| over the answers (Naeini 2015)."""
    coverage: dict[float, float]
    """Level -> share of the places that lie within the radius of that level."""
    median_radius_km: float
    """Of the radii that are shown (80 %)."""

    def to_dict(self) -> dict[str, Any]:
        """For --json and the accuracy card."""
        return {
            "places": self.places,
            "expected_calibration_error": self.expected_error,
            "coverage": {f"{level:g}": share for level, share in self.coverage.items()},
            "median_radius_km": self.median_radius_km,
            "bins": [vars(one) for one in self.bins],
        }

    @property
    def passed(self) -> bool:
        """Whether the expected calibration error is below 0.05."""
        return self.expected_error < 0.05


def fit_doubt(features: dict[str, Doubles], errors: Doubles, groups: Any = None) -> Doubt:
    """Score and bands from N located answers: features (N,) each, kilometres off (N,).

    The scores that sort answers into bands come from fits that did not see them (FOLDS folds; rows of one of `groups`
    stay together), else the bands would promise too much.
    """
    errors = np.asarray(errors, np.float64)
    if errors.size < 20:
        raise InputError(f"doubt needs at least 20 labelled places, got {errors.size}")
    close = errors <= CLOSE_KM
    groups = np.arange(errors.size) if groups is None else groups
    fold = folds(groups)
    scores = np.empty(errors.size)
    for number in range(FOLDS):
        rest = fold != number
        part = logistic({n: v[rest] for n, v in features.items()}, close[rest])
        scores[~rest] = part({n: v[~rest] for n, v in features.items()})
    whole: Linear = logistic(features, close)
    count = int(np.clip(errors.size // BAND_PLACES, 1, MOST_BANDS))
    edges = np.unique(np.quantile(scores, np.arange(1, count) / count)) if count > 1 else np.zeros(0)
    which = np.searchsorted(edges, scores, side="right")
    lower = [-1e9, *map(float, edges)]
    bands = [_band(lower[i], errors[which == i]) for i in range(len(lower)) if (which == i).any()]
    return Doubt(whole, tuple(_rising(bands)))


def conformal(errors: Doubles, level: float) -> float:
    """The radius that holds a new answer with at least `level`: order statistic ceil((n + 1) level) (Vovk 2005)."""
    ordered = np.sort(errors)
    return float(ordered[min(int(np.ceil((ordered.size + 1) * level)), ordered.size) - 1])


def reliability(confidence: Doubles, radii: Doubles, errors: Doubles) -> Reliability:
    """Confidences (N,) and radii (N, levels) against what came true: kilometres off (N,)."""
    close = (errors <= CLOSE_KM).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    which = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    bins = []
    for number in range(BINS):
        rows = order[which[order] == number]
        if rows.size:
            bins.append(Bin(float(confidence[rows].mean()), float(close[rows].mean()), int(rows.size)))
    wrong = sum(abs(one.said - one.came) * one.places for one in bins) / max(len(errors), 1)
    held = {level: float((errors <= radii[:, i]).mean()) for i, level in enumerate(LEVELS)}
    return Reliability(len(errors), tuple(bins), float(wrong), held, float(np.median(radii[:, LEVELS.index(0.8)])))


def collapse(positions: Doubles) -> tuple[float, tuple[float, float] | None]:
    """(share of answers (N, 2) within 25 km of the commonest spot, that spot); no answers: 0 and None.

    GeoLocSFT's failure sign: the same coordinates for different pictures.
    """
    there = positions[np.isfinite(positions[:, 0])]
    if not there.size:
        return 0.0, None
    spots, index = np.unique(np.round(there, 1), axis=0, return_inverse=True)
    counts = np.bincount(index.ravel())
    top = vectors(spots[np.argsort(-counts)[:50]])
    near = (table_km(top, vectors(there)) <= _SPOT_KM).mean(axis=1)
    best = int(near.argmax())
    spot = spots[np.argsort(-counts)[:50]][best]
    return float(near[best]), (float(spot[0]), float(spot[1]))


def folds(groups: Any) -> Any:
    _, number = np.unique(groups, return_inverse=True)
    shuffled = np.random.default_rng(0).permutation(int(number.max()) + 1)
    return shuffled[number] % FOLDS


def _band(edge: float, errors: Doubles) -> Band:
    radii = tuple(max(conformal(errors, level), SMALLEST_KM) for level in LEVELS)
    confidence = float(((errors <= CLOSE_KM).sum() + 0.5) / (errors.size + 1))
    return Band(edge, radii, confidence, int(errors.size))


def _rising(bands: Sequence[Band]) -> list[Band]:
    """Neighbours that contradict the order of their scores share one confidence (pool adjacent violators)."""
    pools: list[list[Band]] = []
    for band in bands:
        pools.append([band])
        while len(pools) > 1 and _pooled(pools[-2]) > _pooled(pools[-1]):
            last = pools.pop()
            pools[-1] += last
    return [Band(b.from_score, b.radii_km, _pooled(pool), b.places) for pool in pools for b in pool]


def _pooled(pool: Sequence[Band]) -> float:
    return sum(b.confidence * b.places for b in pool) / sum(b.places for b in pool)
