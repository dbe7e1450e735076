"""How far an answer can be trusted: a radius, a confidence, and what a bundle was fitted to say about them.

Nothing here is assumed about the model. Labelled places (validation places of the planet, or a user's own photos) are
located once; a logistic score sorts the answers from doubtful to sure, and within each band of the score the errors
seen there give the radii (conformal quantiles in groups; Vovk 2012, arXiv 1209.2673) and the confidence. A bundle
without a fit says None.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.bundle import Bundle
from edgegeo.errors import BundleError, InputError
from edgegeo.geo import Position, distance_km
from edgegeo.runtime.fusion import INSIDE, Fusing, Linear
from edgegeo.runtime.sphere import Doubles
from edgegeo.runtime.weighing import QUERIES, TEXT_SHARE, Weighing
from edgegeo.schema import SchemaFault, parse, to_plain

FIT_NAME = "fit.json"
SCHEMA_VERSION = 1
LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Shares of answers that the radii hold; the second is the radius that is shown."""
CLOSE_KM = 750.0
"""What a confidence is about: the share of such answers within it."""
SETTINGS = ("one", "several", "one+tiles", "several+tiles", "tiles")
"""What an answer was made from: one written position or several, a gallery or none. Each is fitted by itself."""
_SAME_KM = 25.0


@dataclass(frozen=True)
class Band:
    """Answers whose score lies between two edges, and how far off they were."""

    from_score: float
    """Lower edge; -1e9 in the first band."""
    radii_km: tuple[float, ...]
    """One for each of LEVELS."""
    confidence: float
    """Share within CLOSE_KM."""
    places: int
    """Labelled places that the numbers come from."""


@dataclass(frozen=True)
class Doubt:
    """Radius and confidence for one setting."""

    score: Linear
    bands: tuple[Band, ...]

    def __post_init__(self) -> None:
        edges = [band.from_score for band in self.bands]
        if not edges or edges != sorted(edges):
            raise ValueError("bands must rise")
        for band in self.bands:
            if len(band.radii_km) != len(LEVELS) or not 0 <= band.confidence <= 1:
                raise ValueError("a band has a radius for each level, and a confidence between 0 and 1")

    def judge(self, features: dict[str, Doubles]) -> tuple[Doubles, Doubles]:
        """Radii (B, levels) in km and confidences (B,): those of the band that the score lies in."""
        scores = self.score(features)
        edges = np.array([band.from_score for band in self.bands[1:]])
        which = np.searchsorted(edges, scores, side="right")
        radii = np.array([band.radii_km for band in self.bands])
        return radii[which], np.array([band.confidence for band in self.bands])[which]


@dataclass(frozen=True)
class Fit:
    """fit.json, whole: everything that was learned from labelled places, as plain numbers."""

    schema: int
    generation: Fusing
    """Candidates alone."""
    gallery: Fusing
    """Candidates with tiles."""
    choosers: dict[str, Linear]
    """By SETTINGS: above 0 the best tile is taken for the place itself; below it, or absent, the candidates win."""
    doubts: dict[str, Doubt]
    """By SETTINGS; those that the bundle can't do are absent."""
    cue: Linear | None
    """Above 0 a picture has something to go by, by statistics of its pixels."""
    blanks: tuple[tuple[float, float], ...]
    """What the model says to pictures that show nothing (lat, lon)."""
    source: dict[str, Any] = field(default_factory=dict)
    """What it was fitted on."""
    rerank: dict[str, Weighing] = field(default_factory=dict)
    """By QUERIES: how both stages of a search are weighed; those that the bundle can't do are absent."""
    text_share: float = TEXT_SHARE
    """Share of the words in a search by words and photos together."""

    def __post_init__(self) -> None:
        if self.schema != SCHEMA_VERSION:
            raise ValueError(f"fit version {self.schema}, this edgegeo reads {SCHEMA_VERSION}")
        if unknown := sorted({*self.doubts, *self.choosers} - set(SETTINGS) | set(self.rerank) - set(QUERIES)):
            raise ValueError(f"unknown setting '{unknown[0]}'")
        if not 0 <= self.text_share <= 1:
            raise ValueError("the share of the words must be between 0 and 1")

    def blank(self, position: Position) -> bool:
        """Whether the model says the same to pictures that show nothing: mode collapse of one picture."""
        return any(distance_km(position.lat, position.lon, *blank) <= _SAME_KM for blank in self.blanks)


def open_fit(bundle: Bundle) -> Fit | None:
    """The bundle's fit; None without one; BundleError for a damaged one."""
    name = bundle.manifest.fit
    if name is None:
        return None
    try:
        return parse(Fit, json.loads(bundle.file(name).read_bytes()), name)
    except (SchemaFault, ValueError, OSError) as error:
        raise BundleError(f"{bundle.path / name} can't be read ({error}); fit the bundle again") from None


def write_fit(fit: Fit, folder: Path) -> str:
    """Write fit.json into a bundle's folder; its name, for the manifest."""
    text = json.dumps(to_plain(fit), indent=1, allow_nan=False)
    (folder / FIT_NAME).write_text(text + "\n", encoding="utf-8")
    return FIT_NAME


def shown(radii: Doubles) -> float:
    """The radius that is shown of one answer's (levels,): that of INSIDE, 80 %."""
    return float(radii[LEVELS.index(INSIDE)])


def check_confidence(least: float) -> None:
    """InputError unless a smallest confidence is a share."""
    if not 0 <= least <= 1:
        raise InputError(f"the smallest confidence must be between 0 and 1, not {least:g}")


def setting_of(candidates: int, tiles: int) -> str:
    """Which of SETTINGS an answer of so many written positions and tiles is."""
    written = "" if not candidates else "one" if candidates == 1 else "several"
    return "+".join(part for part in (written, "tiles" if tiles else "") if part)
