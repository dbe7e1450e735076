"""Many candidates, one position: the rules of fusion, and evidence from a gallery and from a prior position.

GeoLocSFT (arXiv 2506.01277, open question 1) leaves open how K answers become one. Every rule here is a weighted one:
weights say how far a candidate is believed, the rule says which point stands for them all. Arrays are batched over
leading axes as in runtime/sphere.py, so that a fit over a thousand places and one answer take the same code.
"""

from dataclasses import dataclass, field

import numpy as np

from edgegeo.errors import InputError
from edgegeo.geo import Position
from edgegeo.runtime import sphere
from edgegeo.runtime.sphere import Doubles

RULES = ("first", "mean", "median", "trimmed", "medoid", "mode", "shift", "cluster")
"""first: the model's own single answer. mean, median: of all. trimmed: the mean of the nearer three quarters. medoid,
mode: the candidate nearest to all, and the one in the densest spot. shift: the top of the density, by mean-shift.
cluster: the mean of the heaviest group."""
WEIGHTS = ("even", "likelihood", "agreement", "scorer")
"""even: all alike. likelihood: tempered probability of the text. agreement: density of the others. scorer: learned."""
INSIDE = 0.8
"""Share of cases that a prior's radius holds, as the answer's: so one answer can be the next one's prior."""
_SIGMAS = float(np.sqrt(-2 * np.log(1 - INSIDE)))
_FLOOR = 1e-4
_REACHES_KM = (200.0, 750.0, 2500.0)


@dataclass(frozen=True)
class Prior:
    """A place known from elsewhere, e.g. the last fix: within `radius_km` of `position` four times out of five."""

    position: Position
    radius_km: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.radius_km) and 0 < self.radius_km <= 20_100):
            raise InputError(f"the prior's radius must be above 0 and at most 20,100 km, not {self.radius_km:g}")

    @classmethod
    def parse(cls, text: str) -> "Prior":
        """From "LAT,LON,KM"; InputError for anything else."""
        try:
            lat, lon, km = (float(part) for part in text.split(","))
        except ValueError:
            raise InputError(f"a prior is LAT,LON,KM, e.g. 48.1,11.6,50, not {text!r:.60}") from None
        return cls(Position(lat, lon), km)


@dataclass(frozen=True)
class Linear:
    """A small linear model, as plain numbers: score = bias + sum of weight times feature."""

    features: tuple[str, ...]
    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        if len(self.features) != len(self.weights):
            raise ValueError(f"{len(self.features)} features for {len(self.weights)} weights")
        if not np.isfinite([*self.weights, self.bias]).all():
            raise ValueError("weights must be finite numbers")

    def __call__(self, values: dict[str, Doubles]) -> Doubles:
        """Scores of named feature arrays of one shape."""
        out = np.zeros(np.shape(next(iter(values.values())))) + self.bias
        for name, weight in zip(self.features, self.weights, strict=True):
            out = out + weight * values[name]
        return np.asarray(out)


@dataclass(frozen=True)
class Fusing:
    """One way to fuse."""

    rule: str = "median"
    weights: str = "even"
    bandwidth_km: float = 600.0
    """Width of the kernel of mode, shift, cluster and agreement."""
    temperature: float = 1.0
    """Of likelihood weights: below 1 they lean on the likely ones, above 1 they even out."""
    tile_km: float = 600.0
    """How far around it a tile of the gallery speaks for a place."""
    tile_temperature: float = 0.03
    """Of the softmax over the tiles' cosines."""
    scorer: Linear | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES or self.weights not in WEIGHTS:
            raise ValueError(f"unknown fusion '{self.rule}' with weights '{self.weights}'")
        if (self.weights == "scorer") != (self.scorer is not None):
            raise ValueError("weights 'scorer' and a scorer belong together")
        if min(self.bandwidth_km, self.temperature, self.tile_km, self.tile_temperature) <= 0:
            raise ValueError("bandwidths and temperatures must be above 0")


@dataclass(frozen=True)
class Clues:
    """What is known of B pictures: K candidates and M tiles each, missing ones with NaN coordinates."""

    candidates: Doubles
    """(B, K, 2) degrees; the first is the single answer."""
    logprobs: Doubles
    """(B, K)."""
    tiles: Doubles = field(default_factory=lambda: np.zeros((1, 0, 2)))
    """(B, M, 2) degrees, best first."""
    scores: Doubles = field(default_factory=lambda: np.zeros((1, 0)))
    """(B, M) cosines."""


def centre(rule: str, points: Doubles, weights: Doubles, width_km: float) -> Doubles:
    """The unit vector (..., 3) that stands for weighted points (..., K, 3), by one of RULES.

    Points without weight play no part; where no point has any, the first one is returned and means nothing.
    """
    if rule == "first":
        return sphere.picked(points, (weights > 0).astype(np.float64))
    if rule == "mean":
        return sphere.mean(points, weights)
    if rule == "median":
        return sphere.median(points, weights)
    if rule == "medoid":
        return sphere.medoid(points, weights)
    if rule == "trimmed":
        far = sphere.between_km(points, sphere.median(points, weights)[..., None, :])
        return sphere.mean(points, weights * _nearest(far, weights, 0.75))
    near = sphere.table_km(points, points)
    if rule == "cluster":
        inside = (near <= width_km) * weights[..., None, :]
        heaviest = np.where(weights > 0, inside.sum(axis=-1), -1.0).argmax(axis=-1)
        members = np.take_along_axis(inside, heaviest[..., None, None], axis=-2)[..., 0, :]
        return sphere.mean(points, members)
    density = (kernel(near, width_km) * weights[..., None, :]).sum(axis=-1)
    here = sphere.picked(points, np.where(weights > 0, density, -1.0))
    if rule == "shift":
        for _ in range(20):
            pull = kernel(sphere.between_km(points, here[..., None, :]), width_km) * weights
            here = sphere.mean(points, pull)
    return here


def kernel(far_km: Doubles, width_km: float | Doubles) -> Doubles:
    """A Gaussian of distances in kilometres, 1 at the middle; the shape of `far_km`."""
    return np.asarray(np.exp(-0.5 * (far_km / width_km) ** 2))


def _nearest(far: Doubles, weights: Doubles, share: float) -> Doubles:
    """1 for the nearest points that hold `share` of the weight together, 0 for the rest (..., K)."""
    order = np.argsort(far, axis=-1, kind="stable")
    before = np.cumsum(np.take_along_axis(weights, order, -1), -1) - np.take_along_axis(weights, order, -1)
    kept = before < share * weights.sum(axis=-1, keepdims=True)
    out = np.zeros_like(far)
    np.put_along_axis(out, order, kept.astype(np.float64), -1)
    return out


def believed(clues: Clues, fusing: Fusing, tiles: bool = False) -> Doubles:
    """Weights (B, K) of the candidates, each row's sum 1, or 0 where no candidate is a position.

    With `tiles`, a candidate also counts for as much as the gallery's tiles speak for its surroundings.
    """
    there = np.isfinite(clues.candidates[..., 0]).astype(np.float64)
    if fusing.weights == "likelihood":
        told = np.where(there > 0, clues.logprobs, -np.inf)
        weights = there * np.exp((clues.logprobs - _highest(told)) / fusing.temperature)
    elif fusing.weights == "agreement":
        points = points_of(clues.candidates)
        weights = there * (kernel(sphere.table_km(points, points), fusing.bandwidth_km) * there[..., None, :]).sum(-1)
    elif fusing.scorer is not None:
        weights = there / (1 + np.exp(-np.clip(fusing.scorer(traits(clues, fusing)), -30, 30)))
    else:
        weights = there
    if tiles:
        weights = weights * (_FLOOR + spoken(clues, points_of(clues.candidates), fusing))
    total = weights.sum(axis=-1, keepdims=True)
    return np.asarray(weights / np.where(total > 0, total, 1.0))


def traits(clues: Clues, fusing: Fusing) -> dict[str, Doubles]:
    """What the learned scorer knows of each candidate (B, K)."""
    points = points_of(clues.candidates)
    there = np.isfinite(clues.candidates[..., 0])
    near = sphere.table_km(points, points)
    others = np.maximum(there.sum(axis=-1, keepdims=True) - 1, 1)
    out = {"logprob": np.where(there, clues.logprobs - _highest(np.where(there, clues.logprobs, -np.inf)), 0.0)}
    for km in _REACHES_KM:
        out[f"near_{km:g}"] = ((near <= km) & there[..., None, :]).sum(axis=-1) / others
        out[f"tiles_{km:g}"] = spoken(clues, points, fusing, km)
    return out


def tile_weights(clues: Clues, temperature: float) -> Doubles:
    """Softmax (B, M) of the tiles' scores; no tiles, no weights."""
    there = np.isfinite(clues.tiles[..., 0])
    if not clues.scores.shape[-1]:
        return np.zeros(clues.scores.shape)
    scores = np.where(there, clues.scores, -np.inf)
    weights = np.where(there, np.exp((scores - _highest(scores)) / temperature), 0.0)
    return np.asarray(weights / np.maximum(weights.sum(axis=-1, keepdims=True), 1e-300))


def spoken(clues: Clues, points: Doubles, fusing: Fusing, km: float | None = None) -> Doubles:
    """How far the tiles speak for each point (B, K, 3), 0 to 1 as (B, K): their weight around it."""
    if not clues.scores.shape[-1]:
        return np.zeros(points.shape[:-1])
    weights = tile_weights(clues, fusing.tile_temperature)
    return np.asarray(
        (kernel(sphere.table_km(points, points_of(clues.tiles)), km or fusing.tile_km) * weights[..., None, :]).sum(-1)
    )


def points_of(places: Doubles) -> Doubles:
    """Unit vectors (..., 3) of degrees (..., 2); missing places become the north pole, which weighs 0."""
    return sphere.vectors(np.where(np.isfinite(places), places, 90.0))


def with_prior(points: Doubles, weights: Doubles, prior: Prior, width_km: float) -> tuple[Doubles, Doubles, float]:
    """Points and weights after a prior: (points (..., K, 3), weights (..., K), pull).

    Points are taken for the middles of Gaussians `width_km` wide, the prior for one more; their product is again such
    a mixture, in closed form: every point moves towards the prior by `pull`, and counts by how well the two agree. So
    a wide prior chooses among candidates, and a narrow one decides by itself.
    """
    sigma = prior.radius_km / _SIGMAS
    pull = width_km**2 / (width_km**2 + sigma**2)
    middle = sphere.vectors([prior.position.lat, prior.position.lon])
    far = sphere.between_km(points, middle)
    fit = -0.5 * far**2 / (width_km**2 + sigma**2)
    fit = np.exp(fit - np.where(weights > 0, fit, -np.inf).max(axis=-1, keepdims=True, initial=-1e300))
    weights = weights * np.minimum(fit, 1.0)
    total = weights.sum(axis=-1, keepdims=True)
    moved = sphere.towards(points, np.broadcast_to(middle, points.shape), np.full(points.shape[:-1], pull))
    return moved, np.asarray(weights / np.where(total > 0, total, 1.0)), float(pull)


def _highest(values: Doubles) -> Doubles:
    top = values.max(axis=-1, keepdims=True, initial=-np.inf)
    return np.where(np.isfinite(top), top, 0.0)
