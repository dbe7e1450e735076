"""What `Locator.locate` found: the tiles, the answer with its evidence and its doubt, as plain data and as GeoJSON."""

from dataclasses import dataclass, field
from typing import Any

from edgegeo.geo import Position
from edgegeo.runtime.deciding import Evidence
from edgegeo.runtime.gallery.gallery import Hits
from edgegeo.runtime.generate import Generated


@dataclass(frozen=True)
class Hit:
    """A tile of the gallery that fits the query."""

    id: str
    position: Position
    score: float
    """Cosine of tile and query."""
    rerank_score: float | None
    """p(yes) for the pair, if it was re-ranked."""


@dataclass(frozen=True)
class Answer:
    """What `Locator.locate` found."""

    position: Position | None
    """The place; None if nothing gave one, or if the model abstained."""
    source: str
    """Which part decided: "generation", "fusion" (candidates weighed by tiles or a prior), "retrieval", "prior",
    "none"."""
    radius_km: float | None
    """Radius that holds the place with 80 %; None where the bundle was not fitted for such a question."""
    hits: tuple[Hit, ...]
    """Tiles, best first: re-ranked ones before the others."""
    text: str | None
    """What the model wrote; None if it was not asked."""
    generated: Position | None
    """The position in the text."""
    timings_ms: dict[str, float]
    """Wall milliseconds of each stage that ran ("load": components opened for the first time), and "total"."""
    candidates: tuple[Generated, ...] = ()
    """Everything the model wrote; `text` and `generated` are those of the most likely one that is a position."""
    confidence: float | None = None
    """Share of such answers that lie within 750 km; None as for the radius."""
    radii_km: dict[float, float] = field(default_factory=dict)
    """Share of such answers -> radius that holds them; {} as for the radius."""
    calibration: str | None = None
    """Where radius and confidence come from: "fit", "prior" (the radius it claimed), or None."""
    evidence: Evidence | None = None
    """Weights of candidates, tiles and prior, and what each would have answered alone."""
    warnings: tuple[str, ...] = ()
    """Reasons for doubt in words: a picture that shows nothing, an answer that the model gives to such pictures."""
    abstained: bool = False
    """Whether a position was found and withheld, as its confidence was below the one asked for."""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "position": _plain(self.position),
            "source": self.source,
            "radius_km": self.radius_km,
            "radii_km": {f"{level:g}": km for level, km in self.radii_km.items()},
            "confidence": self.confidence,
            "calibration": self.calibration,
            "abstained": self.abstained,
            "warnings": list(self.warnings),
            "hits": [{**vars(hit), "position": _plain(hit.position)} for hit in self.hits],
            "text": self.text,
            "generated": _plain(self.generated),
            "candidates": [
                {"text": c.text, "position": _plain(c.position), "logprob": c.logprob, "phrasing": c.phrasing}
                for c in self.candidates
            ],
            "evidence": None if self.evidence is None else _evidence(self.evidence),
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
        }

    def to_geojson(self) -> dict[str, Any]:
        """An RFC 7946 FeatureCollection: the answer first (if there is one), then candidates and hits by rank."""
        features = []
        if self.position is not None:
            facts = {
                "role": "answer", "source": self.source, "radius_km": self.radius_km, "confidence": self.confidence,
                "calibration": self.calibration, "text": self.text,
                "rule": self.evidence.rule if self.evidence else None, "warnings": list(self.warnings),
            }  # fmt: skip
            features.append(_feature(self.position, facts))
        if len(self.candidates) > 1:
            weights = self.evidence.candidates if self.evidence else ()
            for rank, one in enumerate(self.candidates, start=1):
                if one.position is not None:
                    weight = weights[rank - 1] if len(weights) >= rank else None
                    facts = {"role": "candidate", "rank": rank, "logprob": one.logprob, "weight": weight}
                    features.append(_feature(one.position, facts))
        for rank, hit in enumerate(self.hits, start=1):
            facts = {"role": "hit", "rank": rank, "id": hit.id, "score": hit.score, "rerank_score": hit.rerank_score}
            features.append(_feature(hit.position, facts))
        return {"type": "FeatureCollection", "features": features}


def hits_of(found: Hits) -> list[Hit]:
    """The tiles that a search found for its first query, best first."""
    return [
        Hit(id, Position(float(place[0]), float(place[1])), float(score), None)
        for id, place, score in zip(found.ids[0], found.positions[0], found.scores[0], strict=True)
    ]


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {**vars(evidence), "proposals": {name: _plain(place) for name, place in evidence.proposals.items()}}


def _plain(position: Position | None) -> dict[str, float] | None:
    return None if position is None else {"lat": position.lat, "lon": position.lon}


def _feature(position: Position, facts: dict[str, Any]) -> dict[str, Any]:
    place = {"type": "Point", "coordinates": [position.lon, position.lat]}
    return {"type": "Feature", "geometry": place, "properties": facts}
