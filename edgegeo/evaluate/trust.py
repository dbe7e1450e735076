"""Fusion and doubt of one bundle over places of a split: what `edgegeo eval --candidates` reports."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.bundle import Bundle
from edgegeo.errors import BundleError, InputError
from edgegeo.evaluate.doubt import COLLAPSED, Reliability, collapse
from edgegeo.evaluate.fitting import reliability_of
from edgegeo.evaluate.fusion import Comparison, compare
from edgegeo.evaluate.scenes import planet_scenes
from edgegeo.evaluate.study import NONE, OTHER, OWN, study_scenes
from edgegeo.planet import DEFAULT_SEED
from edgegeo.progress import Progress, silent
from edgegeo.runtime import Model
from edgegeo.runtime.deciding import UNFITTED, settle
from edgegeo.runtime.doubt import open_fit, setting_of
from edgegeo.runtime.fusion import Clues, Fusing
from edgegeo.runtime.generate import MOST_CANDIDATES
from edgegeo.runtime.sphere import Doubles


@dataclass(frozen=True)
class Trust:
    """Everything measured."""

    places: int
    count: int
    comparisons: dict[str, Comparison]
    """By kind of tiles: none, own, other."""
    reliability: dict[str, Reliability]
    """By setting; {} for a bundle without a fit."""
    commonest: float
    """Share of the single answers that lie on the commonest spot."""

    @property
    def collapsed(self) -> bool:
        """Whether the model says the same to different pictures."""
        return self.commonest >= COLLAPSED

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "candidates": self.count,
            "single": next(iter(self.comparisons.values())).single,
            "oracle": next(iter(self.comparisons.values())).oracle,
            "fusion": {
                kind: {name: {f"{km:g}": _plain(vars(g.share), vars(g.closed)) for km, g in row.items()}
                       for name, row in one.rules.items()}
                for kind, one in self.comparisons.items()
            },
            "reliability": {name: one.to_dict() for name, one in self.reliability.items()},
            "commonest_spot": self.commonest,
            "mode_collapse": self.collapsed,
        }  # fmt: skip


def measure_trust(
    bundle: str | Path | Bundle | Model, places: int, split: str = "test", count: int = 10,
    threads: int | None = None, provider: str = "cpu", progress: Progress = silent,
) -> Trust:  # fmt: skip
    """Locate places with `count` candidates and compare; InputError for fewer than 2 or more than 32."""
    if not 2 <= count <= MOST_CANDIDATES:
        raise InputError(f"fusion is measured with 2 to {MOST_CANDIDATES} candidates, not {count}")
    model = Model.open(bundle, threads, provider)
    if model.bundle.manifest.roles.generate is None:
        raise BundleError(f"{model.bundle.path}: the bundle offers no GPS generation, so there is nothing to fuse")
    seed = model.bundle.manifest.source.get("planet_seed")
    scenes = planet_scenes(places, split, seed if isinstance(seed, int) else DEFAULT_SEED, progress)
    study = study_scenes(model, scenes, count, progress=progress)
    fit = open_fit(model.bundle)
    comparisons = {}
    for kind in (NONE, *(k for k in (OWN, OTHER) if k in study.found)):
        ways = {rule: Fusing(rule) for rule in ("mean", "median", "medoid", "mode")} if kind == NONE else {}
        if fit is None:
            comparisons[kind] = compare(study, count, kind, ways or {"median": UNFITTED})
            continue
        setting = setting_of(count, 0 if kind == NONE else 1)

        def final(clues: Clues, setting: str = setting) -> Doubles:
            return settle(clues, fit, setting)[0]

        ways["fitted rule"] = fit.generation if kind == NONE else fit.gallery
        comparisons[kind] = compare(study, count, kind, ways, final)
    said = {} if fit is None else reliability_of(study, fit)
    return Trust(places, count, comparisons, said, collapse(study.positions[:, 0])[0])


def _plain(share: dict[str, float], closed: dict[str, float]) -> dict[str, Any]:
    return {"share": share, "closed": {k: v if np.isfinite(v) else None for k, v in closed.items()}}
