"""How much of the way from a single answer to the best of K a rule of fusion goes, and which rule goes furthest."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgegeo.errors import InputError
from edgegeo.evaluate.bootstrap import Metric, interval
from edgegeo.evaluate.logistic import logistic
from edgegeo.evaluate.study import NONE, Study
from edgegeo.geo import GPS_THRESHOLDS_KM
from edgegeo.runtime.doubt import CLOSE_KM
from edgegeo.runtime.fusion import RULES, Clues, Fusing, believed, centre, points_of, traits
from edgegeo.runtime.sphere import Doubles

_SCORER = ("logprob", "near_200", "near_750", "near_2500")
_SCORER_TILES = (*_SCORER, "tiles_200", "tiles_750", "tiles_2500")
_WIDTHS_KM = (300.0, 600.0, 900.0)


@dataclass(frozen=True)
class Gap:
    """One rule at one threshold."""

    share: Metric
    """Share of the places within the threshold."""
    closed: Metric
    """(share - single) / (oracle - single): 0 is the single answer, 1 the best of the candidates."""


@dataclass(frozen=True)
class Comparison:
    """Every rule over one study, at every threshold."""

    count: int
    tiles: str
    single: dict[float, float]
    oracle: dict[float, float]
    rules: dict[str, dict[float, Gap]]
    errors: dict[str, Doubles]
    """Rule -> kilometres (N,)."""


def gap(fused: Doubles, single: Doubles, best: Doubles, threshold_km: float) -> Gap:
    """Share and share of the gap closed, with bootstrap intervals over places. All (N,) kilometres.

    NaN where single and oracle are equal: nothing is there to close.
    """
    hits = np.stack([fused <= threshold_km, single <= threshold_km, best <= threshold_km]).astype(np.float64)

    def closed(rows: Doubles) -> float:
        after, before, most = hits[:, rows.astype(np.int64)].mean(axis=1)
        return float((after - before) / (most - before)) if most > before else float("nan")

    return Gap(interval(hits[0]), _finite(interval(np.arange(len(fused)), closed)))


def compare(
    study: Study, count: int, tiles: str, ways: dict[str, Fusing], final: Callable[[Clues], Doubles] | None = None
) -> Comparison:
    """Every named way over a study; `final` is the whole decision of `locate` (points of clues), as one more row."""
    if not 1 <= count <= study.count:
        raise InputError(f"the study has {study.count} candidates a place, {count} were asked for")
    clues, far = study.clues(count, tiles), study.distances(count)
    errors = {name: study.errors(fused(clues, way)) for name, way in ways.items()}
    if final is not None:
        errors["locate"] = study.errors(final(clues))
    best = far.min(axis=1)
    return Comparison(
        count, tiles,
        {km: float((far[:, 0] <= km).mean()) for km in GPS_THRESHOLDS_KM},
        {km: float((best <= km).mean()) for km in GPS_THRESHOLDS_KM},
        {n: {km: gap(e, far[:, 0], best, km) for km in GPS_THRESHOLDS_KM} for n, e in errors.items()},
        errors,
    )  # fmt: skip


def fused(clues: Clues, way: Fusing) -> Doubles:
    """Unit vectors (N, 3): candidates alone, or weighed by the tiles where there are some."""
    weights = believed(clues, way, tiles=clues.tiles.shape[-2] > 0)
    return centre(way.rule, points_of(clues.candidates), weights, way.bandwidth_km)


def closeness(errors: Doubles) -> float:
    """What the choice of a rule goes by: the share within 750 km with a soft edge, so that few places decide little."""
    return float(np.mean(1 / (1 + (errors / CLOSE_KM) ** 4)))


def ways_alone(study: Study, count: int) -> dict[str, Fusing]:
    """Every rule for candidates alone, the learned scorer fitted on the study."""
    ways = {rule: Fusing(rule) for rule in RULES if rule not in ("first", "mode", "shift", "cluster")}
    for km in _WIDTHS_KM:
        ways |= {f"{rule} {km:g} km": Fusing(rule, bandwidth_km=km) for rule in ("mode", "shift", "cluster")}
        ways[f"median, agreement {km:g} km"] = Fusing("median", "agreement", bandwidth_km=km)
    for temperature in (1.0, 2.0, 4.0):
        for rule in ("mean", "median"):
            ways[f"{rule}, likelihood {temperature:g}"] = Fusing(rule, "likelihood", temperature=temperature)
    scorer = learned(study, count, (NONE,), Fusing(), _SCORER)
    return ways | {f"{rule}, learned": replace(scorer, rule=rule) for rule in ("mean", "median")}


def ways_with_tiles(study: Study, count: int, tiles: Sequence[str]) -> dict[str, Fusing]:
    """Ways to weigh candidates by tiles."""
    ways = {}
    for km in (400.0, 600.0, 800.0):
        for temperature in (0.05, 0.1):
            named = f"tiles {km:g} km at {temperature:g}"
            plain = Fusing("mean", tile_km=km, tile_temperature=temperature)
            ways[f"mean, {named}"] = plain
            ways[f"median, {named}"] = replace(plain, rule="median")
            ways[f"mode, {named}"] = replace(plain, rule="mode")
    base = Fusing("mean", tile_temperature=0.05)
    scorer = learned(study, count, tiles, base, _SCORER_TILES)
    return ways | {f"{rule}, learned": replace(scorer, rule=rule) for rule in ("mean", "median")}


def learned(study: Study, count: int, tiles: Sequence[str], way: Fusing, features: tuple[str, ...]) -> Fusing:
    """The way with a scorer of candidates: how likely each lies within 750 km."""
    values: dict[str, list[Doubles]] = {name: [] for name in features}
    targets = []
    for kind in tiles:
        clues = study.clues(count, kind)
        there = np.isfinite(clues.candidates[..., 0])
        known = traits(clues, way)
        for name in features:
            values[name].append(known[name][there])
        targets.append((study.distances(count) <= CLOSE_KM)[there])
    scorer = logistic({name: np.concatenate(v) for name, v in values.items()}, np.concatenate(targets))
    return replace(way, weights="scorer", scorer=scorer)


def best_way(study: Study, count: int, tiles: Sequence[str], ways: dict[str, Fusing]) -> tuple[str, dict[str, float]]:
    """(the winner's name, closeness of every way), over the kinds of tiles alike; the first of equals."""
    scores = {}
    for name, way in ways.items():
        points = [fused(study.clues(count, kind), way) for kind in tiles]
        scores[name] = float(np.mean([closeness(study.errors(one)) for one in points]))
    return max(scores, key=lambda name: scores[name]), scores


def _finite(metric: Metric) -> Metric:
    """NaN throughout where the value is: resamples of no gap say nothing."""
    return metric if np.isfinite(metric.value) else Metric(float("nan"), float("nan"), float("nan"))
