"""The whole way: a photo or a description in, a place out."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgegeo.bundle import Bundle
from edgegeo.errors import InputError
from edgegeo.geo import Position
from edgegeo.runtime.cue import has_cue
from edgegeo.runtime.deciding import Evidence, Verdict, decide
from edgegeo.runtime.decoding import Listener
from edgegeo.runtime.doubt import LEVELS, check_confidence, open_fit
from edgegeo.runtime.embed import Embedder, normalized
from edgegeo.runtime.fusion import Clues, Prior
from edgegeo.runtime.gallery import Gallery, Hits
from edgegeo.runtime.generate import SAMPLING, Generated, Generator
from edgegeo.runtime.image import Source, open_image
from edgegeo.runtime.model import Model
from edgegeo.runtime.pictures import ImageTokens, Picture, prepare_picture
from edgegeo.runtime.rerank import Reranker, fused, probability
from edgegeo.runtime.sampling import Decoding
from edgegeo.runtime.tokens import fill
from edgegeo.runtime.trunk import Floats

CONFIDENT = 0.9
"""p(yes) from which the best re-ranked tile outweighs a generated position. Of 600 validation photos of the planet 52 %
reach it when their own tile is in the gallery (and 91 % of those are right), 26 % when it is not
(benchmarks/fit_rerank.py)."""

TILES = 20
"""Hits of the search that are weighed as evidence, whatever number is asked for."""
NO_CUE = "the picture shows nothing to tell a place by"
BLANK = "the model says the same to pictures that show nothing"


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


class Locator:
    """Embeds, searches, re-ranks and generates with one bundle and, optionally, a gallery.

    Which position is the answer (runtime/deciding.py): for a photo the fused candidates, weighed by the tiles of the
    gallery, unless the bundle's fit finds the best tile the better guess, or re-ranking gives the first one
    p(yes) >= CONFIDENT; where nothing was generated, and for a text, the best tile. A prior weighs and moves them.
    """

    def __init__(self, model: Model, gallery: Gallery | None = None) -> None:
        roles = model.bundle.manifest.roles
        self.model = model
        self.gallery = gallery
        self.fit = open_fit(model.bundle)
        self.embedder = Embedder(model) if roles.embed is not None else None
        self.reranker = Reranker(model) if roles.rerank is not None else None
        self.generator = Generator(model) if roles.generate is not None else None

    @classmethod
    def open(
        cls,
        bundle: str | Path | Bundle | Model,
        gallery: str | Path | Gallery | None = None,
        threads: int | None = None,
        provider: str = "cpu",
    ) -> "Locator":
        """Open a bundle and a gallery made by it; BundleError, GalleryError or DeviceError."""
        model = Model.open(bundle, threads, provider)
        if gallery is not None and not isinstance(gallery, Gallery):
            gallery = Gallery.open(gallery, bundle=model.bundle)
        return cls(model, gallery)

    def locate(
        self,
        photo: Source | None = None,
        text: str | None = None,
        k: int = 10,
        rerank: int = 0,
        generate: bool = True,
        candidates: int = 1,
        decoding: Decoding | None = None,
        listener: Listener | None = None,
        prior: Prior | None = None,
        min_confidence: float = 0.0,
        picture: Picture | None = None,
    ) -> Answer:
        """Find the place of a photo, a description, or both (their embeddings are averaged).

        `k` tiles are returned of the gallery; the best `rerank` of the search are looked at again as pairs (0: none),
        with the photo if there is one; `generate=False` skips the generated answer; otherwise `candidates` of them are
        written as `decoding` says and fused. `prior` is a place known from elsewhere; below `min_confidence` the
        position is withheld (InputError where the bundle can't tell). `picture` is the photo prepared already, where
        another thread has done so. InputError for an unusable query.
        """
        check_confidence(min_confidence)
        generate = generate and photo is not None and self.generator is not None
        self._check(photo, text, k, rerank, generate)
        clock = _Clock()
        unopened = self.model.unopened(self._components(photo is not None, rerank > 0, generate))
        if unopened:
            with clock.stage("load"):
                self.model.load(unopened)
        vision = _Vision(self.model, clock, photo, picture)
        hits: list[Hit] = []
        if self.gallery is not None:
            hits = self._retrieve(self.gallery, vision, text, max(k, rerank, TILES), clock)
            if rerank:
                hits = self._rerank(self.gallery, vision, text, hits, rerank, clock)
        drawn: list[Generated] = []
        if generate and self.generator is not None:
            features = vision.features(self.generator.role.vision)
            with clock.stage("generate"):
                if candidates > 1:
                    drawn = self.generator.candidates_of(features[0], candidates, decoding or SAMPLING, listener)
                else:
                    drawn = self.generator.features(features, decoding, listener)
        known = photo is not None and text is None and not rerank
        verdict = decide(_clues(hits[: max(TILES, rerank)], drawn), self.fit, prior, _sure(hits), known)
        return self._answered(verdict, vision, hits[:k], drawn, min_confidence, clock)

    def _answered(
        self, verdict: Verdict, vision: "_Vision", hits: list[Hit], drawn: list[Generated], least: float,
        clock: "_Clock",
    ) -> Answer:  # fmt: skip
        """The verdict in the form that callers know, withheld where it is too doubtful."""
        written = max(drawn, key=lambda one: (one.position is not None, one.logprob), default=None)
        warnings = self._warnings(vision, written)
        # What the fit knows it knows of pictures that show something.
        confidence = 0.0 if warnings and verdict.calibration == "fit" else verdict.confidence
        position, abstained = _withheld(verdict.position, confidence, least)
        radii = verdict.radii_km if confidence == verdict.confidence else None
        return Answer(
            position=position,
            source="none" if abstained else verdict.evidence.decided,
            radius_km=verdict.radius_km if radii else None,
            hits=tuple(hits),
            text=written.text if written else None,
            generated=written.position if written else None,
            timings_ms=clock.finished(),
            candidates=tuple(drawn),
            confidence=confidence,
            radii_km=dict(zip(LEVELS, radii, strict=True)) if radii else {},
            calibration=verdict.calibration,
            evidence=verdict.evidence,
            warnings=warnings,
            abstained=abstained,
        )

    def _warnings(self, vision: "_Vision", written: Generated | None) -> tuple[str, ...]:
        """Reasons to doubt the picture itself, as far as the bundle's fit knows them."""
        if self.fit is None or not vision.given:
            return ()
        out = []
        if self.fit.cue is not None and not has_cue(vision.image, self.fit.cue):
            out.append(NO_CUE)
        if written is not None and written.position is not None and self.fit.blank(written.position):
            out.append(BLANK)
        return tuple(out)

    def _components(self, photo: bool, rerank: bool, generate: bool) -> list[str]:
        """Components that a query needs, so that opening them is told apart from running them."""
        named: list[str] = []
        if self.gallery is not None and self.embedder is not None:
            named += [self.embedder.role.trunk] + [self.embedder.role.vision] * photo
        if rerank and self.reranker is not None:
            named += [self.reranker.role.trunk, self.reranker.role.vision]
        if generate and self.generator is not None:
            named += [self.generator.role.vision, self.generator.role.trunk, self.generator.role.head]
        return named

    def _check(self, photo: Source | None, text: str | None, k: int, rerank: int, generate: bool) -> None:
        if photo is None and text is None:
            raise InputError("nothing to locate: give a photo, a text, or both")
        if k < 1 or rerank < 0:
            raise InputError(f"k must be at least 1 and rerank at least 0, got k={k} rerank={rerank}")
        if self.gallery is None and rerank:
            raise InputError("re-ranking needs a gallery; build one with: edgegeo index build")
        if self.gallery is None and not generate:
            what = "a text is located by search" if photo is None else "without generation a photo is located by search"
            raise InputError(f"{what}, which needs a gallery; build one with: edgegeo index build")

    def _retrieve(self, gallery: Gallery, vision: "_Vision", text: str | None, k: int, clock: "_Clock") -> list[Hit]:
        embedder = self.embedder or Embedder(self.model)  # without the role, its own error says so
        vectors: list[Floats] = []
        if text is not None:
            with clock.stage("embed"):
                vectors.append(embedder.texts([text]))
        if vision.given:
            features = vision.features(embedder.role.vision)
            with clock.stage("embed"):
                vectors.append(embedder.features(features))
        with clock.stage("search"):
            query = vectors[0] if len(vectors) == 1 else normalized(np.asarray(sum(vectors), np.float32))
            found = gallery.search(query, k)
        return hits_of(found)

    def _rerank(
        self, gallery: Gallery, vision: "_Vision", text: str | None, hits: list[Hit], count: int, clock: "_Clock"
    ) -> list[Hit]:
        reranker = self.reranker or Reranker(self.model)
        role = reranker.role
        if vision.given:
            pieces, pictures = fill(role.image_prompt), vision.features(role.vision)
        else:
            pieces, pictures = reranker.query(text or "")
        with clock.stage("rerank"):
            rows = [gallery.row(hit.id) for hit in hits[:count]]
            tiles = self.model.prepare([gallery.thumbnail(row) for row in rows if row is not None])
            margins = reranker.features(pieces, pictures, self.model.features(role.vision, tiles))
        scores = probability(margins)
        both = fused(np.array([hit.score for hit in hits[:count]]), margins)
        order = sorted(range(len(scores)), key=lambda i: (-both[i], i))
        looked_at = [Hit(hits[i].id, hits[i].position, hits[i].score, float(scores[i])) for i in order]
        return looked_at + hits[count:]


def hits_of(found: Hits) -> list[Hit]:
    """The tiles that a search found for its first query, best first."""
    return [
        Hit(id, Position(float(place[0]), float(place[1])), float(score), None)
        for id, place, score in zip(found.ids[0], found.positions[0], found.scores[0], strict=True)
    ]


@dataclass
class _Clock:
    """Milliseconds by stage."""

    begun: float = field(default_factory=time.perf_counter)
    spent: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent[name] = self.spent.get(name, 0.0) + (time.perf_counter() - start) * 1e3

    def finished(self) -> dict[str, float]:
        return {**self.spent, "total": (time.perf_counter() - self.begun) * 1e3}


class _Vision:
    """The photo's image tokens, computed once for every role that shares a vision tower."""

    def __init__(self, model: Model, clock: _Clock, photo: Source | None, picture: Picture | None) -> None:
        self.given = photo is not None
        self._model = model
        self._clock = clock
        self._done: dict[str, list[ImageTokens]] = {}
        if photo is not None:
            with clock.stage("decode"):
                image = open_image(photo)
            self.image = image
            if picture is None:
                with clock.stage("preprocess"):
                    picture = prepare_picture(image, model.bundle.manifest.image)
            self._picture = picture

    def features(self, component: str) -> list[ImageTokens]:
        if component not in self._done:
            with self._clock.stage("vision"):
                self._done[component] = self._model.features(component, [self._picture])
        return self._done[component]


def _clues(hits: list[Hit], drawn: list[Generated]) -> Clues:
    """One picture's evidence as arrays; the greedy answer is the first candidate."""
    nowhere = (np.nan, np.nan)
    written = [(one.position.lat, one.position.lon) if one.position else nowhere for one in drawn]
    return Clues(
        np.array(written, np.float64).reshape(1, -1, 2) if written else np.full((1, 1, 2), np.nan),
        np.array([[one.logprob for one in drawn] or [0.0]], np.float64),
        np.array([(hit.position.lat, hit.position.lon) for hit in hits], np.float64).reshape(1, -1, 2),
        np.array([[hit.score for hit in hits]], np.float64).reshape(1, -1),
    )


def _sure(hits: list[Hit]) -> bool:
    return bool(hits) and hits[0].rerank_score is not None and hits[0].rerank_score >= CONFIDENT


def _withheld(position: Position | None, confidence: float | None, least: float) -> tuple[Position | None, bool]:
    """(position, whether it was withheld)."""
    if position is None or least == 0:
        return position, False
    if confidence is None:
        raise InputError(
            "this answer has no confidence to compare with the smallest one asked for: the bundle was not fitted for "
            "such a question; run: edgegeo fit, or leave the smallest confidence out"
        )
    return (None, True) if confidence < least else (position, False)


def _evidence(evidence: Evidence) -> dict[str, Any]:
    return {**vars(evidence), "proposals": {name: _plain(place) for name, place in evidence.proposals.items()}}


def _plain(position: Position | None) -> dict[str, float] | None:
    return None if position is None else {"lat": position.lat, "lon": position.lon}


def _feature(position: Position, facts: dict[str, Any]) -> dict[str, Any]:
    place = {"type": "Point", "coordinates": [position.lon, position.lat]}
    return {"type": "Feature", "geometry": place, "properties": facts}
