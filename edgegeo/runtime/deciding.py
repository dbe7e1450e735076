"""Gallery, model and prior together: one position, what decided it, and the weight of every piece of evidence."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from edgegeo.geo import Position
from edgegeo.runtime import sphere
from edgegeo.runtime.doubt import CLOSE_KM, LEVELS, Fit, setting_of, shown
from edgegeo.runtime.fusion import (
    INSIDE,
    Clues,
    Fusing,
    Prior,
    believed,
    centre,
    kernel,
    points_of,
    tile_weights,
    with_prior,
)
from edgegeo.runtime.sphere import Doubles

UNFITTED = Fusing()
"""Without a fit: the geometric median of the candidates, all alike."""


@dataclass(frozen=True)
class Proposals:
    """What each part says of B pictures, as unit vectors (B, 3), and what is known about it."""

    written: Doubles
    """The candidates alone."""
    joint: Doubles
    """The candidates, weighed by the tiles."""
    tile: Doubles
    """The tile that fits and that the candidates speak for most."""
    candidate_weights: Doubles
    """(B, K), of `joint`."""
    tile_weights: Doubles
    """(B, M), of `tile`."""
    features: dict[str, Doubles]
    """(B,) each; what the fit's scores are made of."""


@dataclass(frozen=True)
class Evidence:
    """Where an answer comes from."""

    decided: str
    """"generation", "fusion", "retrieval", "prior" or "none", as `Answer.source`."""
    rule: str
    """The rule in words, e.g. "median of 10 candidates, weighed by 10 tiles"."""
    candidates: tuple[float, ...]
    """Weight of each candidate, in their order."""
    tiles: tuple[float, ...]
    """Weight of each tile, in their order."""
    prior_pull: float
    """How far the prior moved the answer: 0 not at all, 1 all the way."""
    spread_km: float | None
    """Median distance of the candidates from their centre; None below two."""
    agreement: float | None
    """Share of the candidates within 750 km of their centre; None below two."""
    proposals: dict[str, Position]
    """What each part would have answered alone."""


@dataclass(frozen=True)
class Verdict:
    """One position with its evidence and its doubt."""

    position: Position | None
    evidence: Evidence
    radii_km: tuple[float, ...] | None
    """One for each of LEVELS; None where nothing was fitted."""
    confidence: float | None
    """Share of such answers within 750 km; None where nothing was fitted."""
    calibration: str | None
    """Where radius and confidence come from: "fit", "prior" (its own claim), or None."""

    @property
    def radius_km(self) -> float | None:
        """The radius that holds the place with 80 %."""
        return None if self.radii_km is None else shown(np.array(self.radii_km))


def propose(clues: Clues, generation: Fusing, gallery: Fusing) -> Proposals:
    """Every part's own answer for B pictures."""
    points, tiles = points_of(clues.candidates), points_of(clues.tiles)
    alone = believed(clues, generation)
    written = centre(generation.rule, points, alone, generation.bandwidth_km)
    has_tiles = clues.tiles.shape[-2] > 0
    together = believed(clues, gallery, tiles=True) if has_tiles else alone
    joint = centre(gallery.rule, points, together, gallery.bandwidth_km) if has_tiles else written
    features = _written_features(clues, points, alone, written)
    weights, tile = tile_weights(clues, gallery.tile_temperature), joint
    if has_tiles:
        near = (kernel(sphere.table_km(tiles, points), gallery.tile_km) * alone[..., None, :]).sum(axis=-1)
        held = weights * (near + 1e-3)
        weights = held / np.maximum(held.sum(axis=-1, keepdims=True), 1e-300)
        tile = sphere.picked(tiles, weights)
        features |= _tile_features(clues, weights, weights.argmax(axis=-1), sphere.between_km(tile, joint), near)
    return Proposals(written, joint, tile, together, weights, features)


def _written_features(clues: Clues, points: Doubles, weights: Doubles, middle: Doubles) -> dict[str, Doubles]:
    far = sphere.between_km(points, middle[..., None, :])
    there = np.isfinite(clues.candidates[..., 0])
    count = np.maximum(there.sum(axis=-1), 1)
    likely = np.where(there, clues.logprobs, 0.0)
    return {
        "logprob": likely[..., :1].sum(axis=-1),
        "spread": np.log1p((far * weights).sum(axis=-1)) - 6,
        "agreement": ((far <= CLOSE_KM) & there).sum(axis=-1) / count,
        "wide": ((far > 2500) & there).sum(axis=-1) / count,
        "latitude": np.abs(middle[..., 2]),
    }


def _tile_features(clues: Clues, weights: Doubles, index: Any, apart: Doubles, near: Doubles) -> dict[str, Doubles]:
    def at(values: Doubles) -> Doubles:
        return np.asarray(np.take_along_axis(values, index[..., None], axis=-1)[..., 0])

    best = clues.scores[..., 0]
    others = np.where(np.arange(clues.scores.shape[-1]) == index[..., None], -1.0, clues.scores)
    second = np.where(np.isfinite(others), others, -1.0).max(axis=-1)
    return {
        "cosine": at(clues.scores),
        "margin": at(clues.scores) - second,
        "behind": at(clues.scores) - best,
        "held": at(weights),
        "near": np.log(at(near) + 1e-3),
        "apart": np.log1p(apart) - 6,
    }


def settle(clues: Clues, fit: Fit, setting: str) -> tuple[Doubles, Any, Proposals]:
    """(points (B, 3), whether each is the tile (B,), proposals) of B pictures of one setting, without a prior."""
    made = propose(clues, fit.generation, fit.gallery)
    if setting == "tiles":
        return points_of(clues.tiles)[:, 0], np.ones(len(made.joint), bool), made
    chooser = fit.choosers.get(setting)
    if chooser is None or not clues.tiles.shape[-2]:
        return made.joint, np.zeros(len(made.joint), bool), made
    taken = chooser(made.features) > 0
    return np.where(taken[:, None], made.tile, made.joint), taken, made


def decide(
    clues: Clues, fit: Fit | None = None, prior: Prior | None = None, sure_of_tile: bool = False,
    calibrated: bool = True,
) -> Verdict:  # fmt: skip
    """The answer for one picture (B = 1).

    sure_of_tile: re-ranking has made the first tile certain. calibrated=False: the fit does not know this kind of
    question (a text, re-ranked tiles), so radius and confidence stay None.
    """
    generation, gallery = (fit.generation, fit.gallery) if fit else (UNFITTED, UNFITTED)
    count = int(np.isfinite(clues.candidates[..., 0]).sum())
    tiles = clues.tiles.shape[-2]
    setting = setting_of(count, tiles)
    if fit is not None:
        points, taken, made = settle(clues, fit, setting)
        point, took = points[0], bool(taken[0])
    else:
        made = propose(clues, generation, gallery)
        point, took = made.written[0], False
    proposals = _proposals(made, count, tiles)
    source = "fusion" if fit and tiles and count > 1 else "generation"
    if sure_of_tile or (tiles and not count):
        # Of re-ranked tiles the first one counts; a search alone has only its first hit to give.
        source, point = "retrieval", points_of(clues.tiles)[0, 0]
        proposals["retrieval"] = _position(point)
    elif not count:
        source = "none"
    elif took:
        source = "retrieval"
    doubt = fit.doubts.get(setting) if fit and calibrated and not sure_of_tile else None
    radii, confidence, calibration = None, None, None
    if doubt is not None:
        some, sure = doubt.judge(made.features)
        radii, confidence, calibration = tuple(map(float, some[0])), float(sure[0]), "fit"
    pull = 0.0
    if prior is not None:
        source, point, pull = _under(prior, clues, made, source, point, gallery)
        if source == "prior":
            radii, confidence = _claim(prior)
            calibration = "prior"
        elif source != "retrieval" or not took:
            # The fit has seen no priors: what it says about the answer without one does not hold for this one.
            radii, confidence, calibration = None, None, None
    evidence = _evidence(clues, made, source, pull, proposals, generation if source == "generation" else gallery, count)
    position = None if source == "none" else _position(point)
    if position is not None and source == "retrieval":
        position = _exact(position, clues.tiles[0])
    elif position is not None and source == "generation" and count == 1:
        position = _exact(position, clues.candidates[0][np.isfinite(clues.candidates[0, :, 0])])
    return Verdict(position, evidence, radii, confidence, calibration)


def _under(
    prior: Prior, clues: Clues, made: Proposals, source: str, point: Doubles, fusing: Fusing
) -> tuple[str, Doubles, float]:
    """(source, position, pull) with the prior: a tile is kept or not, candidates are weighed and moved."""
    middle = sphere.vectors([prior.position.lat, prior.position.lon])
    if source == "none":
        return "prior", middle, 1.0
    if source == "retrieval" and sphere.between_km(point, middle) <= 2 * prior.radius_km:
        return source, point, 0.0
    points, weights = points_of(clues.candidates), made.candidate_weights
    if not weights.any():
        # A search alone: its tiles are known exactly, so the prior chooses among them and moves none.
        points, weights = points_of(clues.tiles), made.tile_weights
        _, weights, _ = with_prior(points, weights, prior, prior.radius_km / 10)
        return "retrieval", sphere.picked(points, weights)[0], 0.0
    moved, weights, pull = with_prior(points, weights, prior, fusing.bandwidth_km)
    return ("prior" if pull > 0.5 else "fusion"), centre(fusing.rule, moved, weights, fusing.bandwidth_km)[0], pull


def _claim(prior: Prior) -> tuple[tuple[float, ...], float]:
    """Radii and confidence of a prior's own claim, a Gaussian: r(p) = sigma sqrt(-2 ln(1 - p))."""
    sigma = prior.radius_km / np.sqrt(-2 * np.log(1 - INSIDE))
    radii = tuple(float(sigma * np.sqrt(-2 * np.log(1 - level))) for level in LEVELS)
    return radii, float(1 - np.exp(-0.5 * (CLOSE_KM / sigma) ** 2))


def _proposals(made: Proposals, count: int, tiles: int) -> dict[str, Position]:
    out = {}
    if count:
        out["generation"] = _position(made.written[0])
    if tiles:
        out["retrieval"] = _position(made.tile[0])
    if tiles and count > 1:
        out["fusion"] = _position(made.joint[0])
    return out


def _evidence(
    clues: Clues, made: Proposals, source: str, pull: float, proposals: dict[str, Position], fusing: Fusing, count: int
) -> Evidence:
    tiles = clues.tiles.shape[-2]
    spread = float(np.expm1(made.features["spread"][0] + 6)) if count > 1 else None
    rule = {"retrieval": "the tile", "prior": "the prior", "none": "nothing to go by"}.get(source)
    if rule is None:
        what = {"first": "first"}.get(fusing.rule, fusing.rule)
        rule = f"{what} of {count} candidates" if count > 1 else "the one answer"
        rule += f", weighed by {tiles} tiles" if source == "fusion" and tiles else ""
    agreement = float(made.features["agreement"][0]) if count > 1 else None
    return Evidence(
        source, rule, tuple(map(float, made.candidate_weights[0])), tuple(map(float, made.tile_weights[0])),
        pull, spread, agreement, proposals,
    )  # fmt: skip


def _exact(near: Position, places: Doubles) -> Position:
    """The tile or answer at a position as it was written: the way over the sphere costs the last digit."""
    apart = sphere.between_km(points_of(places), sphere.vectors([near.lat, near.lon]))
    lat, lon = places[int(apart.argmin())]
    return Position(float(lat), float(lon))


def _position(point: Doubles) -> Position:
    lat, lon = sphere.places(point)
    return Position(float(lat), float(lon))
